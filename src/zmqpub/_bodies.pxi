# Included by _fast.pyx: blocks and transactions, and whose bytes they refer to.

# ---- bodies: whose bytes they are ----

cdef bint _is_immutable(object data, Py_buffer *view):
    """May the bytes be referred to, rather than copied? Read-only is not enough: a view of a bytearray can be."""
    if not view.readonly:
        return False
    owner = data
    while isinstance(owner, memoryview):
        owner = owner.obj
    if isinstance(owner, mmap.mmap):
        return memoryview(owner).readonly
    return isinstance(owner, (bytes, Block, Transaction))


cdef object _decode_error(int kind, zp_decode_error *error):
    what = "block" if kind == ZP_BLOCK else "transaction"
    if kind == ZP_BLOCK and error.transaction != 0xFFFFFFFF:
        what = f"block, transaction {error.transaction}"
    return DecodeError(what, error.offset, error.expected.decode(), error.got.decode())


cdef zp_body *_parse(int kind, const uint8_t *raw, size_t size) except NULL:
    cdef zp_decode_error error
    cdef zp_body *body = zp_body_parse(kind, raw, size, &error)
    if body == NULL:
        if error.expected == NULL:
            raise MemoryError
        raise _decode_error(kind, &error)
    return body


cdef zp_body *_body_of_view(int kind, object data) except NULL:
    cdef Py_buffer *view = <Py_buffer *>malloc(sizeof(Py_buffer))
    cdef zp_body *body = NULL
    cdef uint8_t *copy
    if view == NULL:
        raise MemoryError
    try:
        PyObject_GetBuffer(data, view, PyBUF_SIMPLE)
    except:
        free(view)
        raise
    try:
        if _is_immutable(data, view):
            body = _parse(kind, <const uint8_t *>view.buf, view.len)
            (<zp_body_fields *>body).owner = view
            (<zp_body_fields *>body).owner_kind = ZP_OWNER_VIEW
            return body
        copy = <uint8_t *>malloc(view.len if view.len else 1)
        if copy == NULL:
            raise MemoryError
        memcpy(copy, view.buf, view.len)
        try:
            body = _parse(kind, copy, view.len)
        except:
            free(copy)
            raise
        (<zp_body_fields *>body).owner = copy
        (<zp_body_fields *>body).owner_kind = ZP_OWNER_COPY
        return body
    finally:
        if body == NULL or (<zp_body_fields *>body).owner_kind == ZP_OWNER_COPY:
            PyBuffer_Release(view)
            free(view)


cdef zp_body *_body_of(int kind, object data) except NULL:
    """Parse ``data``; the one reference to what comes back is the caller's."""
    cdef zp_body *body
    if zp_body_any_released():
        _release_owners()
    if type(data) is not bytes:
        return _body_of_view(kind, data)
    # The walk keeps the GIL: it takes 0.05 ms a MB, and with a busy Python thread to get the GIL back takes 5 ms.
    body = _parse(kind, <const uint8_t *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    Py_INCREF(data)
    (<zp_body_fields *>body).owner = <PyObject *>data
    (<zp_body_fields *>body).owner_kind = ZP_OWNER_OBJECT
    return body


cdef int _release_owners() except -1:
    """Give back what bodies that ended on other threads still hold of Python's."""
    cdef zp_body_fields *body = <zp_body_fields *>zp_body_take_released()
    cdef zp_body_fields *following
    while body != NULL:
        following = <zp_body_fields *>body.next
        if body.owner_kind == ZP_OWNER_VIEW:
            PyBuffer_Release(<Py_buffer *>body.owner)
            free(body.owner)
        else:
            Py_DECREF(<object>body.owner)
        zp_body_free(<zp_body *>body)
        body = following
    return 0


cdef bytes _hash(const uint8_t *hash):
    if hash == NULL:
        raise MemoryError
    return PyBytes_FromStringAndSize(<const char *>hash, 32)


cdef bytes _reversed(const uint8_t *hash):
    return PyBytes_FromStringAndSize(<const char *>hash, 32)[::-1]


# ---- transactions ----

# Given instead of raw bytes: the body is set by who makes the object. (Bodies are otherwise set once, in __cinit__, so that
# there is no object without one, nor one whose views could outlive it.)
cdef object _LATER = object()


cdef Transaction _transaction(zp_body *body, uint32_t index):
    cdef Transaction tx = Transaction.__new__(Transaction, _LATER)
    zp_body_ref(body)
    tx.body = body
    tx.index = index
    return tx


cdef const uint8_t *_start(Transaction tx) noexcept:
    return (<zp_body_fields *>tx.body).raw + (<zp_body_fields *>tx.body).places[tx.index].start


cdef size_t _size(Transaction tx) noexcept:
    return zp_body_tx_end(tx.body, tx.index) - (<zp_body_fields *>tx.body).places[tx.index].start


cdef class Transaction:
    """A serialized transaction, walked once and not copied.

    ``Transaction(raw)`` takes any buffer; ``bytes`` (and read-only views of ``bytes`` or of a memory map) are referred to,
    anything mutable is copied once. Raises DecodeError where Bitcoin Core would refuse to deserialize it, and for bytes
    that follow it. Equal when their wtxids are.
    """

    def __cinit__(self, raw):
        if raw is not _LATER:
            self.body = _body_of(ZP_TRANSACTION, raw)

    def __dealloc__(self):
        if self.body != NULL:
            zp_body_unref(self.body)
            if zp_body_any_released():
                _release_owners()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>_start(self), _size(self), True, flags)

    @property
    def txid(self):
        """Hash of the serialization without witness, 32 bytes, display order."""
        return _hash(zp_body_txid(self.body, self.index))

    @property
    def wtxid(self):
        """Hash of the serialization with witness, 32 bytes, display order; the txid where there is no witness."""
        return _hash(zp_body_wtxid(self.body, self.index))

    @property
    def raw(self):
        """The serialization, with witness: a read-only view of the buffer that was given."""
        return memoryview(self)

    @property
    def size(self):
        """Bytes of the serialization, with witness."""
        return _size(self)

    @property
    def has_witness(self):
        """Is it serialized with a witness (BIP 144)?"""
        return (<zp_body_fields *>self.body).places[self.index].witness != 0

    @property
    def version(self):
        """Unsigned 32 bits."""
        return zp_load_le(_start(self), 4)

    @property
    def locktime(self):
        """Unsigned 32 bits."""
        return zp_load_le(_start(self) + _size(self) - 4, 4)

    @property
    def inputs(self):
        """A tuple of TxIn, with their witnesses."""
        return _parts(self)[0]

    @property
    def outputs(self):
        """A tuple of TxOut."""
        return _parts(self)[1]

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<const char *>_start(self), _size(self))

    def __eq__(self, other):
        return isinstance(other, Transaction) and self.wtxid == other.wtxid

    def __hash__(self):
        return hash(self.wtxid)

    def __reduce__(self):
        return Transaction, (bytes(self),)

    def __repr__(self):
        return f"<Transaction {self.txid.hex()}, {self.size} bytes>"


cdef uint64_t _count(zp_cursor *c) except? 0xFFFFFFFFFFFFFFFF:
    cdef uint64_t n = 0
    if not zp_compact_size(c, &n, "a CompactSize"):
        raise AssertionError("a body changed under its Transaction")
    return n


cdef bytes _take(zp_cursor *c, uint64_t n):
    if n > <size_t>(c.end - c.p):
        raise AssertionError("a body changed under its Transaction")
    data = PyBytes_FromStringAndSize(<const char *>c.p, n)
    c.p += n
    return data


cdef tuple _parts(Transaction tx):
    """Inputs and outputs of a transaction that was walked before."""
    cdef zp_decode_error error
    cdef zp_cursor c
    cdef bint segwit = tx.has_witness
    cdef uint64_t i
    c.start = c.p = _start(tx)
    c.end = c.start + _size(tx)
    c.error = &error
    c.p += 6 if segwit else 4
    inputs = [
        (_take(&c, 32)[::-1], zp_load_le(_skip(&c, 4), 4), _take(&c, _count(&c)), zp_load_le(_skip(&c, 4), 4))
        for i in range(_count(&c))
    ]
    outputs = [TxOut(<int64_t>zp_load_le(_skip(&c, 8), 8), _take(&c, _count(&c))) for i in range(_count(&c))]
    if not segwit:
        return tuple([TxIn(*fields) for fields in inputs]), tuple(outputs)
    witnesses = [tuple([_take(&c, _count(&c)) for i in range(_count(&c))]) for _ in inputs]
    return tuple([TxIn(*fields, witness) for fields, witness in zip(inputs, witnesses)]), tuple(outputs)


cdef const uint8_t *_skip(zp_cursor *c, size_t n) except NULL:
    cdef const uint8_t *at = c.p
    if n > <size_t>(c.end - c.p):
        raise AssertionError("a body changed under its Transaction")
    c.p += n
    return at


# ---- blocks ----

cdef Block _block(zp_body *body):
    cdef Block block = Block.__new__(Block, _LATER)
    zp_body_ref(body)
    block.body = body
    return block


cdef list _hashes(zp_body *body, bint with_witness):
    cdef uint32_t i, n = (<zp_body_fields *>body).count
    if n:
        with nogil: # a millisecond for a large block
            zp_body_txid(body, n - 1)
    return [_hash(zp_body_wtxid(body, i) if with_witness else zp_body_txid(body, i)) for i in range(n)]


cdef class Block:
    """A serialized block, walked once and not copied.

    ``Block(raw)`` takes any buffer, as Transaction does, and raises DecodeError as it does. It is a sequence of its
    transactions. One Block serves every event, and its hashes are made once, when first asked for. Equal when their
    hashes are.
    """

    def __cinit__(self, raw):
        if raw is not _LATER:
            self.body = _body_of(ZP_BLOCK, raw)

    def __dealloc__(self):
        if self.body != NULL:
            zp_body_unref(self.body)
            if zp_body_any_released():
                _release_owners()

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, <void *>(<zp_body_fields *>self.body).raw, (<zp_body_fields *>self.body).size, True, flags)

    @property
    def hash(self):
        """The block's hash, 32 bytes, display order."""
        return _hash(zp_body_hash(self.body))

    @property
    def header(self):
        """The block's first 80 bytes, as a BlockHeader."""
        cdef const uint8_t *raw = (<zp_body_fields *>self.body).raw
        return BlockHeader(
            <int>zp_load_le(raw, 4), _reversed(raw + 4), _reversed(raw + 36),
            zp_load_le(raw + 68, 4), zp_load_le(raw + 72, 4), zp_load_le(raw + 76, 4),
        )

    @property
    def txids(self):
        """The transactions' txids, in order: a list of 32 bytes each, display order."""
        return _hashes(self.body, False)

    @property
    def wtxids(self):
        """The transactions' wtxids, in order: a list of 32 bytes each, display order (the coinbase's real one)."""
        return _hashes(self.body, True)

    @property
    def raw(self):
        """The serialization: a read-only view of the buffer that was given."""
        return memoryview(self)

    @property
    def size(self):
        """Bytes of the serialization."""
        return (<zp_body_fields *>self.body).size

    def __len__(self):
        return (<zp_body_fields *>self.body).count

    def __getitem__(self, index):
        cdef Py_ssize_t n = (<zp_body_fields *>self.body).count, i
        if isinstance(index, slice):
            return [_transaction(self.body, k) for k in range(*index.indices(n))]
        i = index
        if i < 0:
            i += n
        if not 0 <= i < n:
            raise IndexError(f"transaction {index} of a block of {n}")
        return _transaction(self.body, i)

    def __iter__(self):
        cdef uint32_t i
        for i in range((<zp_body_fields *>self.body).count):
            yield _transaction(self.body, i)

    def __bytes__(self):
        return PyBytes_FromStringAndSize(<const char *>(<zp_body_fields *>self.body).raw, (<zp_body_fields *>self.body).size)

    def __eq__(self, other):
        return isinstance(other, Block) and self.hash == other.hash

    def __hash__(self):
        return hash(self.hash)

    def __reduce__(self):
        return Block, (bytes(self),)

    def __repr__(self):
        return f"<Block {self.hash.hex()}, {len(self)} transactions, {self.size} bytes>"
