"""A subscriber in plain pyzmq, for any publisher of Bitcoin's notifications: python examples/listen.py tcp://127.0.0.1:28332"""

import sys

import zmq

TOPICS = (b"hashblock", b"hashtx", b"rawblock", b"rawtx", b"sequence")

with zmq.Context() as context, context.socket(zmq.SUB) as socket:
    socket.rcvhwm = 0  # drop nothing here, however long a block's burst is
    for name in TOPICS:
        socket.subscribe(name)
    socket.connect(sys.argv[1])
    expected: dict[bytes, int] = {}
    while True:
        topic, body, number = socket.recv_multipart()
        counter = int.from_bytes(number, "little")
        if counter != expected.get(topic, counter):
            print(f"{topic.decode()}: expected counter {expected[topic]}, got {counter}: messages were missed")
        expected[topic] = (counter + 1) % 2**32
        # Hashes come as explorers show them; a sequence body is a hash, a label and, for transactions, a number.
        shown = f"{len(body)} bytes" if topic.startswith(b"raw") else f"{body[:32].hex()} {body[32:33].decode()}"
        print(f"{topic.decode()} {counter} {shown}", flush=True)
