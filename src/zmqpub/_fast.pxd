# The cimport interface: a Cython node publishes through these without a Python call.
#
#     from zmqpub._fast cimport Block, Engine, BLOCK_CONNECTED
#     cdef Engine engine = publisher.engine          # once
#     engine.publish_block(BLOCK_CONNECTED, block)   # per event; or publish_copy(...) without the GIL
#
# Needs no header of zmqpub: the C structures stay opaque.

from libc.stddef cimport size_t
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from zmqpub._opaque cimport zp_body, zp_endpoint, zp_history, zp_journal, zp_log


# Double SHA-256, digest order; hash_pairs: 64 bytes in, 32 out, count times, in place if wanted (a merkle level).
cdef void hash_message(uint8_t *out, const uint8_t *data, size_t length) noexcept nogil
cdef void hash_pairs(uint8_t *out, const uint8_t *data, size_t count) noexcept nogil


cdef enum EventKind:
    TRANSACTION_ADDED = 1
    TRANSACTION_REMOVED = 2
    BLOCK_CONNECTED = 3
    BLOCK_DISCONNECTED = 4
    TIP_UPDATED = 5


cdef class Block:
    cdef zp_body *body      # one reference, never NULL once constructed


cdef class Transaction:
    cdef zp_body *body      # one reference: the transaction's own, or the block's that it stands in
    cdef uint32_t index     # which transaction of the body


cdef class Engine:
    cdef zp_journal *journal    # owned
    cdef zp_history *history    # owned; what the journal retains, by number
    cdef zp_log *log            # owned
    cdef readonly object context  # the zmq.Context that the sockets belong to
    cdef readonly str journal_path  # None: the journal is in memory
    cdef bint syncs             # each event, before the call returns
    cdef bint own_context       # nobody else has sockets in it but inproc subscribers
    cdef int generation         # zp_fork_generation() of the process it lives in

    # 0, or an exception (ClosedError, ForkedError, MemoryError). They wait, releasing the GIL, where the journal is full
    # and that is the policy.
    cdef int publish_block(self, int kind, Block block) except -1
    cdef int publish_transaction(self, int kind, Transaction transaction, uint64_t mempool_sequence) except -1
    # Without the GIL, from raw bytes that are copied: 0, or -1 closed, -2 the journal is full (policy wait: try again),
    # -3 no memory, -4 malformed, -5 in a forked child, -6 larger than the journal file takes, -7 that file can't be written.
    cdef int publish_copy(self, int kind, const uint8_t *raw, size_t size, uint64_t mempool_sequence) noexcept nogil
    cdef int append(self, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence)
    cdef int publish_body(self, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence) except -1


cdef class Endpoint:
    cdef zp_endpoint *endpoint  # owned; NULL once freed
    cdef Engine engine          # keeps the journal and the log
    cdef readonly str address   # as configured
