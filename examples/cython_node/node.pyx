# A node in Cython that publishes without a Python call: what it needs is cimported from zmqpub._fast.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint64_t

from zmqpub._fast cimport BLOCK_CONNECTED, TIP_UPDATED, TRANSACTION_ADDED, Block, Engine


cdef int connect(Engine engine, Block block) except -1:
    """A block that was parsed already: appended to the journal by reference, in well under a microsecond."""
    engine.publish_block(BLOCK_CONNECTED, block)
    return engine.publish_block(TIP_UPDATED, block)


cdef int accept(Engine engine, const uint8_t *raw, size_t size, uint64_t mempool_sequence) noexcept nogil:
    """Raw bytes of the node's own, copied, without the GIL: 0, or why not (see _fast.pxd)."""
    return engine.publish_copy(TRANSACTION_ADDED, raw, size, mempool_sequence)


def run(publisher, Block block, const uint8_t[::1] transaction, int count):
    """Connect ``block``, then accept ``transaction`` ``count`` times; how many of them were refused."""
    cdef Engine engine = publisher.engine
    cdef int i, refused = 0
    connect(engine, block)
    with nogil:
        for i in range(count):
            if accept(engine, &transaction[0], transaction.shape[0], i) < 0:
                refused += 1
    return refused
