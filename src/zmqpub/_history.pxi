# Included by _fast.pyx: the history as Python sees it, for diagnosis and tests. Replay reads it in C.

def _crc32c(bytes data not None, uint32_t crc=0, bint portable=False):
    """CRC-32C of ``data``, which goes on from ``crc``; ``portable``: without the processor's instruction."""
    if portable:
        return zp_crc32c_portable(crc, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
    return zp_crc32c(crc, PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))


def _crc32c_backend():
    """sse4.2, armv8 or portable."""
    return zp_crc32c_backend().decode()


cdef dict _HISTORY_STATES = {
    ZP_OK: "ok", ZP_GONE: "gone", ZP_END: "end", ZP_DAMAGED: "damaged", ZP_UNKNOWN_EPOCH: "unknown-epoch", ZP_UNKNOWN_NOTIFIER: "unknown-notifier",
}


def _describe_history(Engine engine not None):
    """What is held: [(epoch, started in Unix ms, is current, first event, end event, notifiers)], the current epoch last.

    notifiers: [(id, topic index, address, first number held, next number, base, from event, until event)].
    """
    cdef zp_history_epoch *epochs = NULL
    cdef zp_history_notifier *n
    cdef size_t count = 0, i, k
    engine.check()
    if zp_history_describe(engine.history, &epochs, &count) != ZP_OK:
        raise MemoryError
    try:
        result = []
        for i in range(count):
            notifiers = []
            for k in range(epochs[i].count):
                n = &epochs[i].notifiers[k]
                notifiers.append((n.id, n.topic, n.address.decode(), n.first, n.next, n.base, n.from_, n.until))
            result.append((
                PyBytes_FromStringAndSize(<char *>epochs[i].epoch, 16), epochs[i].started_ms, bool(epochs[i].current),
                epochs[i].first, epochs[i].end, notifiers,
            ))
        return result
    finally:
        zp_history_epochs_free(epochs, count)


def _locate_in_history(Engine engine not None, bytes epoch not None, int notifier, uint64_t number):
    """(state, event): state is ok, gone, end, unknown-epoch or unknown-notifier."""
    cdef uint64_t event = 0
    cdef int result
    engine.check()
    if len(epoch) != 16:
        raise ValueError("an epoch has 16 bytes")
    result = zp_history_locate(engine.history, <const uint8_t *>PyBytes_AS_STRING(epoch), notifier, number, &event)
    return _HISTORY_STATES[result], event


def _event_of_history(Engine engine not None, uint64_t event):
    """(kind, body, mempool sequence, messages of each topic that its epoch made before it), or the state: gone, end or damaged.

    body: the serialization of the block or transaction, or the 32 bytes of a txid.
    """
    cdef zp_event e
    cdef uint64_t before[5]
    cdef zp_body_fields *body
    cdef int result
    engine.check()
    with nogil:
        result = zp_history_get(engine.history, event, &e, before)
    if result == ZP_NO_MEMORY:
        raise MemoryError
    if result != ZP_OK:
        return _HISTORY_STATES[result]
    body = <zp_body_fields *>e.body
    if body.raw == NULL:
        data = _hash(zp_body_txid(e.body, 0))
    elif body.kind == ZP_BLOCK and e.kind < EventKind.BLOCK_CONNECTED:
        data = PyBytes_FromStringAndSize(
            <const char *>body.raw + body.places[e.index].start, zp_body_tx_end(e.body, e.index) - body.places[e.index].start
        )
    else:
        data = PyBytes_FromStringAndSize(<const char *>body.raw, body.size)
    zp_body_unref(e.body)
    return e.kind, data, e.mempool_sequence, tuple([before[i] for i in range(5)])
