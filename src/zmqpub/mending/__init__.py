"""How what is missing is had: decisions without I/O, for zmqpub.receiving."""
