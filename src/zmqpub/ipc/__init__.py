"""Bitcoin Core's IPC, both ends: Cap'n Proto over unix sockets and socket pairs. Needs the extra ``zmqpub[ipc]``."""
