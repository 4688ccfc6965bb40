"""Ten lines that publish blocks as Bitcoin Core does. The node here is standard input, a serialized block in hex a line:

bitcoin-cli getblock $(bitcoin-cli getbestblockhash) 0 | python examples/embed.py
"""

import sys

from zmqpub import Block, Publisher

options = {"zmqpubrawblock": "tcp://127.0.0.1:28332", "zmqpubhashtx": "tcp://127.0.0.1:28332"}
with Publisher(options, linger=5.0) as publisher:
    for line in sys.stdin:
        block = Block(bytes.fromhex(line))  # any buffer; DecodeError says offset, expected and got
        publisher.block_connected(block)  # appends and returns, no matter what subscribers do
        publisher.updated_block_tip(block)
    publisher.flush()  # wait until all of it is with libzmq
    print(publisher.stats().sent, "messages sent")
