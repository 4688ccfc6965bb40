"""The replay protocol: its values, its codec, a client's side and a publisher's."""
