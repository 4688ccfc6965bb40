# Included by _fast.pyx: the typed notifications.

# Set while the core makes one: nobody else can, or there would be one without a body.
cdef bint _making = False

cdef tuple _TOPICS = (Topic.HASHBLOCK, Topic.HASHTX, Topic.RAWBLOCK, Topic.RAWTX, Topic.SEQUENCE)
cdef dict _LABELS = {ord(label.value): label for label in SequenceLabel}


@cython.freelist(512)
cdef class Received:
    """What the five typed notifications have in common. Immutable; only a receiver makes them.

    Equal when topic, address, counter and body are: a message that was repaired equals the one that was lost.
    """

    # Owned: the body of a raw topic; the other bodies stand in small.
    cdef zp_body *_body
    cdef str _address
    cdef uint32_t _counter
    cdef uint8_t _topic, _length, _repaired
    cdef uint8_t _small[41]

    def __cinit__(self):
        if not _making:
            raise TypeError(f"{type(self).__name__} objects are made by receiving")

    def __dealloc__(self):
        if self._body != NULL:
            zp_body_unref(self._body)

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        if self._body != NULL:
            PyBuffer_FillInfo(buffer, self, <void *>(<zp_body_fields *>self._body).raw, (<zp_body_fields *>self._body).size, True, flags)
        else:
            PyBuffer_FillInfo(buffer, self, self._small, self._length, True, flags)

    cdef bytes _hash(self):
        return PyBytes_FromStringAndSize(<const char *>self._small, 32)

    @property
    def topic(self):
        """As a zmqpub.Topic."""
        return _TOPICS[self._topic]

    @property
    def address(self):
        """Where it was received from, as the user wrote it."""
        return self._address

    @property
    def counter(self):
        """Unsigned 32 bits."""
        return self._counter

    @property
    def repaired(self):
        """Was it lost, and had from the publisher's history?"""
        return bool(self._repaired)

    @property
    def body(self):
        """The second frame: bytes; of a raw topic a read-only view, not a copy."""
        if self._body != NULL:
            return memoryview(self)
        return PyBytes_FromStringAndSize(<const char *>self._small, self._length)

    def __eq__(self, other):
        cdef Received one
        if not isinstance(other, Received):
            return NotImplemented
        one = <Received>other
        return (
            self._topic == one._topic and self._counter == one._counter and self._address == one._address and self.body == one.body
        )

    def __hash__(self):
        return hash((self._topic, self._address, self._counter))

    def __repr__(self):
        return f"<{type(self).__name__} {self._what()}, counter {self._counter}, {self._address}{', repaired' if self._repaired else ''}>"

    cdef str _what(self):
        return self._hash().hex()

    def __reduce__(self):
        raise TypeError(f"{type(self).__name__} objects cannot be pickled; their body can")


@cython.final
cdef class HashBlock(Received):
    """A block became the tip: its hash."""

    @property
    def hash(self):
        """The block's hash, 32 bytes, display order."""
        return self._hash()


@cython.final
cdef class HashTx(Received):
    """A transaction entered the mempool, or stood in a block that was connected or disconnected: its txid."""

    @property
    def txid(self):
        """32 bytes, display order."""
        return self._hash()


@cython.final
cdef class RawBlock(Received):
    """A block became the tip: the block. It was walked when it was received; hashes are made when asked for."""

    @property
    def block(self):
        """As a zmqpub.Block, without a copy."""
        return _block(self._body)

    @property
    def hash(self):
        """The block's hash, 32 bytes, display order."""
        return _hash(zp_body_hash(self._body))

    cdef str _what(self):
        return self.hash.hex()


@cython.final
cdef class RawTx(Received):
    """As HashTx: the transaction."""

    @property
    def transaction(self):
        """As a zmqpub.Transaction, without a copy."""
        return _transaction(self._body, 0)

    @property
    def txid(self):
        """32 bytes, display order."""
        return _hash(zp_body_txid(self._body, 0))

    cdef str _what(self):
        return self.txid.hex()


@cython.final
cdef class Sequence(Received):
    """A block was connected or disconnected, or a transaction entered or left the mempool."""

    @property
    def hash(self):
        """Of the block, or the txid: 32 bytes, display order."""
        return self._hash()

    @property
    def label(self):
        """As a zmqpub.SequenceLabel."""
        return _LABELS[self._small[32]]

    @property
    def mempool_sequence(self):
        """Of a transaction, unsigned 64 bits; None for a block."""
        return zp_load_le(self._small + 33, 8) if self._length == 41 else None

    cdef str _what(self):
        number = f" {self.mempool_sequence}" if self._length == 41 else ""
        return f"{self.label}{number} {self._hash().hex()}"


cdef Received _received(zp_entry *e, str address, bint repaired):
    """What a message is to Python; the entry's body goes over to it."""
    global _making
    cdef Received made
    _making = True
    try:
        if e.topic == ZP_HASHTX:
            made = HashTx.__new__(HashTx)
        elif e.topic == ZP_SEQUENCE:
            made = Sequence.__new__(Sequence)
        elif e.topic == ZP_RAWTX:
            made = RawTx.__new__(RawTx)
        elif e.topic == ZP_HASHBLOCK:
            made = HashBlock.__new__(HashBlock)
        else:
            made = RawBlock.__new__(RawBlock)
    finally:
        _making = False
    made._address = address
    made._counter = e.counter
    made._topic = e.topic
    made._repaired = repaired
    made._length = e.length
    if e.flags & ZP_HAS_BODY:
        made._body = e.body
        e.kind = ZP_ENTRY_VOID
    else:
        memcpy(made._small, e.small, ZP_LARGEST_SMALL)
    return made
