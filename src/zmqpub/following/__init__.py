"""How the chain is followed: decisions without I/O, for zmqpub.follower."""
