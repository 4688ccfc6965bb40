"""The way back: transactions and blocks made from their parts, merkle roots, proof of work.

Hashes are 32 bytes in display order (reversed), unless a function says otherwise.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from libc.stddef cimport size_t
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset

from zmqpub._fast cimport Block, Transaction, hash_message, hash_pairs

from zmqpub.primitives import BlockHeader

__all__ = ["build_block", "build_transaction", "merkle_root", "mine", "serialize_header", "witness_commitment", "xor"]


# ---- a growing buffer ----

cdef struct Writer:
    uint8_t *data       # owned
    size_t size
    size_t capacity


cdef uint8_t *_room(Writer *w, size_t n) except NULL:
    """The next n bytes, to be filled by the caller."""
    cdef uint8_t *data
    cdef size_t capacity
    if w.size + n > w.capacity:
        capacity = 2 * (w.size + n)
        data = <uint8_t *>realloc(w.data, capacity)
        if data == NULL:
            raise MemoryError
        w.data = data
        w.capacity = capacity
    w.size += n
    return w.data + w.size - n


cdef int _put_int(Writer *w, uint64_t v, int n) except -1:
    cdef uint8_t *at = _room(w, n)
    cdef int i
    for i in range(n):
        at[i] = (v >> (8 * i)) & 0xFF
    return 0


cdef int _put_compact_size(Writer *w, uint64_t n) except -1:
    if n < 253:
        return _put_int(w, n, 1)
    if n <= 0xFFFF:
        _put_int(w, 253, 1)
        return _put_int(w, n, 2)
    if n <= 0xFFFFFFFF:
        _put_int(w, 254, 1)
        return _put_int(w, n, 4)
    _put_int(w, 255, 1)
    return _put_int(w, n, 8)


cdef int _put_bytes(Writer *w, bytes data) except -1:
    memcpy(_room(w, PyBytes_GET_SIZE(data)), PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return 0


cdef int _put_script(Writer *w, data) except -1:
    cdef bytes raw = data if type(data) is bytes else bytes(data)
    _put_compact_size(w, PyBytes_GET_SIZE(raw))
    return _put_bytes(w, raw)


cdef int _reverse(uint8_t *out, hash) except -1:
    """A hash in display order, into 32 bytes in digest order."""
    cdef bytes raw = hash if type(hash) is bytes else bytes(hash)
    cdef const uint8_t *at = <const uint8_t *>PyBytes_AS_STRING(raw)
    cdef int i
    if PyBytes_GET_SIZE(raw) != 32:
        raise ValueError(f"a hash has 32 bytes, got {PyBytes_GET_SIZE(raw)}")
    for i in range(32):
        out[i] = at[31 - i]
    return 0


cdef bytes _finish(Writer *w):
    return PyBytes_FromStringAndSize(<char *>w.data, w.size)


# ---- transactions ----

def build_transaction(inputs, outputs, *, uint32_t version=2, uint32_t locktime=0):
    """A Transaction from TxIn and TxOut (or equal tuples); serialized with a witness where any input has one (BIP 144)."""
    cdef Writer w
    cdef bint segwit = False
    memset(&w, 0, sizeof(w))
    for txin in inputs:
        if len(txin) > 4 and txin[4]:
            segwit = True
            break
    if segwit is False and not inputs and outputs:
        raise ValueError("a transaction with outputs but no inputs cannot be serialized: it would read as one with a witness")
    try:
        _put_int(&w, version, 4)
        if segwit:
            _put_int(&w, 0x0100, 2)
        _put_compact_size(&w, len(inputs))
        for txin in inputs:
            _put_input(&w, txin[0], txin[1], txin[2] if len(txin) > 2 else b"", txin[3] if len(txin) > 3 else 0xFFFFFFFF)
        _put_compact_size(&w, len(outputs))
        for value, script in outputs:
            _put_int(&w, <uint64_t><int64_t>value, 8)
            _put_script(&w, script)
        if segwit:
            for txin in inputs:
                stack = txin[4] if len(txin) > 4 else ()
                _put_compact_size(&w, len(stack))
                for item in stack:
                    _put_script(&w, item)
        _put_int(&w, locktime, 4)
        return Transaction(_finish(&w))
    finally:
        free(w.data)


cdef int _put_input(Writer *w, prev_txid, uint32_t prev_index, script_sig, uint32_t sequence) except -1:
    _reverse(_room(w, 32), prev_txid)
    _put_int(w, prev_index, 4)
    _put_script(w, script_sig)
    return _put_int(w, sequence, 4)


# ---- blocks ----

cdef int _put_header(Writer *w, header) except -1:
    cdef object version, prev_hash, root, time, bits, nonce
    version, prev_hash, root, time, bits, nonce = header
    _put_int(w, <uint32_t>(version & 0xFFFFFFFF), 4)
    _reverse(_room(w, 32), prev_hash)
    _reverse(_room(w, 32), root)
    _put_int(w, <uint32_t>time, 4)
    _put_int(w, <uint32_t>bits, 4)
    return _put_int(w, <uint32_t>nonce, 4)


def serialize_header(header):
    """The 80 bytes of a BlockHeader (or an equal tuple)."""
    cdef Writer w
    memset(&w, 0, sizeof(w))
    try:
        _put_header(&w, header)
        return _finish(&w)
    finally:
        free(w.data)


def build_block(header, transactions):
    """A Block from its header, taken as it is, and its Transactions."""
    cdef Writer w
    memset(&w, 0, sizeof(w))
    try:
        _put_header(&w, header)
        _put_compact_size(&w, len(transactions))
        for tx in transactions:
            _put_bytes(&w, bytes(tx))
        return Block(_finish(&w))
    finally:
        free(w.data)


cdef bytes _root(uint8_t *hashes, size_t n):
    """The merkle root of n hashes (digest order), whose place (room for n + 1) is used up; digest order."""
    if n == 0:
        return bytes(32)
    while n > 1:
        if n & 1:
            memcpy(hashes + 32 * n, hashes + 32 * (n - 1), 32)
            n += 1
        n //= 2
        hash_pairs(hashes, hashes, n)
    return PyBytes_FromStringAndSize(<char *>hashes, 32)


def merkle_root(hashes):
    """The merkle root of txids or wtxids; 32 zero bytes for none.

    As Bitcoin's own, it does not tell a list from one with repeated hashes at its end (CVE-2012-2459).
    """
    cdef size_t n = len(hashes), i
    cdef uint8_t *at = <uint8_t *>malloc(32 * (n + 1))
    if at == NULL:
        raise MemoryError
    try:
        for i in range(n):
            _reverse(at + 32 * i, hashes[i])
        return _root(at, n)[::-1]
    finally:
        free(at)


def witness_commitment(wtxids, reserved=bytes(32)):
    """What the coinbase's commitment output holds after its six bytes of header: 32 bytes in digest order (BIP 141).

    ``wtxids`` in block order, the coinbase's entry counting as zero whatever it is; ``reserved``: the 32 bytes of the
    coinbase's witness.
    """
    root = merkle_root([bytes(32), *wtxids[1:]])
    cdef uint8_t digest[32]
    cdef bytes message = root[::-1] + reserved
    if len(message) != 64:
        raise ValueError(f"the reserved value has 32 bytes, got {len(reserved)}")
    hash_message(digest, <const uint8_t *>PyBytes_AS_STRING(message), 64)
    return PyBytes_FromStringAndSize(<char *>digest, 32)


# ---- proof of work ----

cdef int _target(uint32_t bits, uint8_t *out) except -1:
    """The target that ``bits`` stands for, 32 bytes, the most significant first."""
    cdef int size = bits >> 24
    target = bits & 0x007FFFFF
    target = target << (8 * (size - 3)) if size > 3 else target >> (8 * (3 - size))
    if bits & 0x00800000 or target == 0 or target >> 256:
        raise ValueError(f"bits {bits:#010x} stand for no target")
    memcpy(out, PyBytes_AS_STRING(target.to_bytes(32, "big")), 32)
    return 0


def mine(header, uint64_t max_tries=1 << 32):
    """``header`` with the first nonce, from its own on, whose hash meets its bits; ValueError when there is none."""
    cdef uint8_t target[32]
    cdef uint8_t digest[32]
    cdef uint8_t raw[80]
    cdef uint64_t nonce = header[5], end = nonce + max_tries, chunk
    cdef int i, found = 0
    _target(header[4], target)
    memcpy(raw, PyBytes_AS_STRING(serialize_header(header)), 80)
    if end > 1 << 32:
        end = 1 << 32
    while nonce < end and not found:
        chunk = nonce + 100000 if nonce + 100000 < end else end
        with nogil:
            while nonce < chunk:
                for i in range(4):
                    raw[76 + i] = (nonce >> (8 * i)) & 0xFF
                hash_message(digest, raw, 80)
                for i in range(16):
                    digest[i], digest[31 - i] = digest[31 - i], digest[i]
                if memcmp(digest, target, 32) <= 0:
                    found = 1
                    break
                nonce += 1
        PyErr_CheckSignals()
    if not found:
        raise ValueError(f"no nonce from {header[5]} on, in {max_tries} tries, meets the bits {header[4]:#010x}")
    return BlockHeader(*header[:5], nonce)


# ---- obfuscation ----

def xor(const uint8_t[::1] data, bytes key, uint64_t offset=0):
    """``data`` with the key of Bitcoin Core's xor.dat applied; ``offset``: where in its file the data begins."""
    cdef size_t n = data.shape[0], size = PyBytes_GET_SIZE(key), i, words
    cdef bytes result = PyBytes_FromStringAndSize(NULL, n)
    cdef uint8_t *out = <uint8_t *>PyBytes_AS_STRING(result)
    cdef uint8_t turned[8]
    cdef uint64_t word, mask
    if size != 8:
        raise ValueError(f"the key has 8 bytes, got {size}")
    if n == 0:
        return result
    for i in range(8):
        turned[i] = PyBytes_AS_STRING(key)[(offset + i) % 8]
    memcpy(&mask, turned, 8)
    words = n // 8
    for i in range(words):
        memcpy(&word, &data[8 * i], 8)
        word ^= mask
        memcpy(out + 8 * i, &word, 8)
    for i in range(8 * words, n):
        out[i] = data[i] ^ turned[i % 8]
    return result
