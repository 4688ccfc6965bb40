"""The replay protocol: its values, its codec, and a publisher's side of it."""
