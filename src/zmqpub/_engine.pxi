# Included by _fast.pyx: the journal, the endpoints, and the way of an event into them.

cdef uint64_t WAIT_SLICE = 50_000_000  # ns between two looks at pending signals while a call waits


cdef uint64_t _nanoseconds(seconds) except? 0:
    """None and infinity are forever."""
    if seconds is None or seconds >= 1e9:
        return 0xFFFFFFFFFFFFFFFF
    return <uint64_t>(max(0.0, seconds) * 1e9)


_STATES = {0: "bound", ZP_RUNNING: "running", ZP_STOPPED: "stopped", ZP_TERMINATED: "terminated", ZP_FAILED: "failed"}

cdef dict _JOURNAL_HINTS = {
    ZP_FILE_SYSTEM: "", ZP_FILE_IN_USE: "close that one, or give this one a file of its own",
    ZP_FILE_NO_SPACE: "make room, or set a smaller journal_bytes",
    ZP_FILE_VERSION_OTHER: "move the file away to begin a new journal; what it holds can't be replayed then",
    ZP_FILE_DAMAGED: "move the file away to begin a new journal; what it holds can't be replayed then",
    ZP_FILE_SIZE: "set that, or move the file away to begin a new journal; what it holds can't be replayed then",
}


cdef int _open_journal(Engine engine, size_t journal_bytes, double sync, bint go_on) except -1:
    cdef zp_file_error error
    cdef bytes path = os.fsencode(engine.journal_path)
    cdef const char *name = path
    cdef int result
    with nogil: # to create it, or to read all that it holds
        result = zp_history_open_file(engine.history, name, journal_bytes, sync, go_on, &error)
    if result < 0:
        raise JournalError(
            engine.journal_path, error.offset, error.expected.decode(), error.got.decode(), _JOURNAL_HINTS[error.code], error.error
        )
    return 0


cdef int _refuse_event(Engine engine, zp_body *body, int result) except -1:
    if result == ZP_CLOSED:
        raise ClosedError("the publisher was closed, or its ZeroMQ context was terminated")
    if result == ZP_TOO_LARGE:
        size = (<zp_body_fields *>body).size
        raise JournalError(engine.journal_path, 0, "an event of at most half the ring", f"one of {size} bytes", "set a larger journal_bytes")
    if result == ZP_FILE_FAILED:
        error = (<zp_journal_fields *>engine.journal).file_error
        raise JournalError(engine.journal_path, 0, "a file that can be written", os.strerror(error), "nothing was published", error)
    raise MemoryError


cdef class Engine:
    """The journal of one publisher, and what its endpoints share. Any thread may publish.

    ``on_full``: 0 waits for room, 1 drops the oldest event. ``retain``: keep what was sent, within journal_bytes, for replay;
    in a file where ``journal_path`` names one. ``journal_sync``: seconds, 0 for never, -1 for each event. ``go_on``: let counters
    and epoch of the file go on where that can be. ``own_context``: nobody else has sockets in it but inproc subscribers. Raises
    JournalError for a file that can't be used.
    """

    def __cinit__(self, Context context not None, size_t journal_bytes, int on_full, *, bint retain=False, str journal_path=None,
                  double journal_sync=0.0, bint go_on=True, bint own_context=False):
        cdef bytes epoch = os.urandom(16)
        self.generation = zp_fork_generation()
        self.context = context
        self.own_context = own_context
        self.journal = <zp_journal *>calloc(1, SIZEOF_JOURNAL)
        self.log = <zp_log *>calloc(1, SIZEOF_LOG)
        if self.journal == NULL or self.log == NULL or zp_journal_init(
            self.journal, journal_bytes, on_full, retain and journal_path is None
        ) < 0:
            free(self.journal)
            self.journal = NULL
            raise MemoryError
        zp_log_init(self.log)
        self.history = zp_history_new(self.journal, <const uint8_t *>PyBytes_AS_STRING(epoch), int(time.time() * 1000))
        if self.history == NULL:
            raise MemoryError
        if journal_path is not None:
            self.journal_path = journal_path
            self.syncs = journal_sync == ZP_SYNC_EVENT
            _open_journal(self, journal_bytes, journal_sync, go_on)

    def __dealloc__(self):
        # A forked child leaves everything as it is: the locks may be held by threads that exist in the parent only.
        if self.journal == NULL or self.generation != zp_fork_generation():
            return
        if self.history != NULL:
            zp_history_free(self.history)
        zp_journal_free(self.journal)
        zp_log_free(self.log)
        free(self.journal)
        free(self.log)
        _release_owners()

    def check(self):
        """Raise ForkedError in a child of the process that made this."""
        if self.generation != zp_fork_generation():
            raise ForkedError("this publisher belongs to the parent process; a forked child makes its own")

    cdef int publish_body(self, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence) except -1:
        cdef int result
        if self.generation != zp_fork_generation():
            self.check()
        if zp_body_any_released():
            _release_owners()
        result = self.append(kind, body, index, mempool_sequence)
        while result == ZP_FULL:
            with nogil:
                zp_journal_wait_room(self.journal, WAIT_SLICE)
            PyErr_CheckSignals()
            result = self.append(kind, body, index, mempool_sequence)
        if result != ZP_OK:
            _refuse_event(self, body, result)
        return 0

    cdef int append(self, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence):
        cdef int result
        if not self.syncs: # then it takes microseconds, and to get the GIL back can take milliseconds
            return zp_journal_append(self.journal, kind, body, index, mempool_sequence)
        with nogil:
            result = zp_journal_append(self.journal, kind, body, index, mempool_sequence)
        return result

    cdef int publish_block(self, int kind, Block block) except -1:
        return self.publish_body(kind, block.body, 0, 0)

    cdef int publish_transaction(self, int kind, Transaction transaction, uint64_t mempool_sequence) except -1:
        return self.publish_body(kind, transaction.body, transaction.index, mempool_sequence)

    cdef int publish_copy(self, int kind, const uint8_t *raw, size_t size, uint64_t mempool_sequence) noexcept nogil:
        cdef zp_decode_error error
        cdef zp_body *body
        cdef uint8_t *copy
        cdef int result
        if self.generation != zp_fork_generation():
            return -5
        copy = <uint8_t *>malloc(size if size else 1)
        if copy == NULL:
            return ZP_NO_MEMORY
        memcpy(copy, raw, size)
        body = zp_body_parse(ZP_BLOCK if kind >= EventKind.BLOCK_CONNECTED else ZP_TRANSACTION, copy, size, &error)
        if body == NULL:
            free(copy)
            return ZP_NO_MEMORY if error.expected == NULL else -4
        (<zp_body_fields *>body).owner = copy
        (<zp_body_fields *>body).owner_kind = ZP_OWNER_COPY
        result = zp_journal_append(self.journal, kind, body, 0, mempool_sequence)
        zp_body_unref(body)
        return result

    def block_event(self, int kind, block):
        """Append one of the three block events; ``block``: a Block or its serialization."""
        cdef zp_body *body
        if isinstance(block, Block):
            self.publish_body(kind, (<Block>block).body, 0, 0)
            return
        body = _body_of(ZP_BLOCK, block)
        try:
            self.publish_body(kind, body, 0, 0)
        finally:
            zp_body_unref(body)

    def transaction_event(self, int kind, tx, uint64_t mempool_sequence):
        """Append one of the two mempool events; ``tx``: a Transaction, its serialization or (removed) its 32-byte txid."""
        cdef zp_body *body
        if isinstance(tx, Transaction):
            self.publish_body(kind, (<Transaction>tx).body, (<Transaction>tx).index, mempool_sequence)
            return
        if kind == EventKind.TRANSACTION_REMOVED and isinstance(tx, bytes) and len(tx) == 32:
            body = zp_body_from_txid(<const uint8_t *>PyBytes_AS_STRING(tx))
            if body == NULL:
                raise MemoryError
        else:
            body = _body_of(ZP_TRANSACTION, tx)
        try:
            self.publish_body(kind, body, 0, mempool_sequence)
        finally:
            zp_body_unref(body)

    def flush(self, timeout=None):
        """Wait until every endpoint has handed over to libzmq all that was appended before the call; False: not in time.

        ``timeout``: seconds, None is forever. Raises ClosedError when the end came first.
        """
        self.check()
        cdef uint64_t upto = zp_journal_end(self.journal).event, left = _nanoseconds(timeout), slice_ns
        cdef int result
        while True:
            slice_ns = left if left < WAIT_SLICE else WAIT_SLICE
            with nogil:
                result = zp_journal_wait_done(self.journal, upto, slice_ns)
            PyErr_CheckSignals()
            if result == ZP_CLOSED:
                raise ClosedError("the publisher was closed, or its ZeroMQ context terminated, before all was sent")
            if result == 1:
                _release_owners()
                return True
            if left != 0xFFFFFFFFFFFFFFFF:
                left -= slice_ns
                if left == 0:
                    return False

    @property
    def epoch(self):
        """16 bytes that name this life of the counters."""
        cdef uint8_t epoch[16]
        self.check()
        zp_history_epoch_id(self.history, epoch)
        return PyBytes_FromStringAndSize(<char *>epoch, 16)

    @property
    def journaled(self):
        """Events that the journal ever held: with a journal file those of earlier lives, too."""
        self.check()
        return zp_journal_end(self.journal).event

    @property
    def recognizing(self):
        """Is an event that the journal file held still taken for a repetition, as no new one came yet?"""
        self.check()
        return bool(zp_journal_recognizing(self.journal))

    def stop_recognizing(self):
        """From now on every event is a new one: for who knows by other means which those in the journal file are."""
        self.check()
        zp_journal_stop_recognizing(self.journal)

    def settle(self):
        """All endpoints are there: whatever notifiers the journal file had besides end here."""
        self.check()
        if zp_history_settle(self.history) != ZP_OK:
            raise MemoryError

    def recovery(self):
        """(events found in the journal file, events that its last end has lost, can the counters go on)."""
        cdef zp_recovery r
        self.check()
        r = zp_history_recovery(self.history)
        return r.events, r.lost, bool(r.may_continue)

    def close_file(self):
        """Close the journal file, once the endpoints are gone; it may take a sync."""
        with nogil:
            zp_history_close_file(self.history)

    def close_journal(self):
        """Refuse further events; what is in the journal stays for the endpoints."""
        zp_journal_close(self.journal)

    def close_log(self):
        """Let take_log end once it has nothing left."""
        zp_log_close(self.log)

    def journal_stats(self):
        """(events, bytes, bound in bytes, events ever appended, events dropped, age of the oldest in seconds, events and bytes
        that can be replayed, events recognized)."""
        cdef zp_journal_stats s
        self.check()
        zp_journal_get_stats(self.journal, &s)
        return s.events, s.bytes, s.bound, s.appended, s.dropped_events, s.oldest_ns / 1e9, s.retained_events, s.retained_bytes, s.recognized

    def take_log(self, double timeout):
        """The next thing that a sender has to say: (what, endpoint, peer, number, errno), None within ``timeout`` seconds.

        Raises StopIteration after close_log, when all was said. Meanwhile it gives back the memory of what was sent.
        """
        cdef zp_log_record record
        cdef uint64_t timeout_ns = <uint64_t>(timeout * 1e9)
        cdef int result
        with nogil:
            result = zp_log_take(self.log, &record, timeout_ns)
        if zp_body_any_released():
            _release_owners()
        if result <= 0 and (error := zp_history_take_sync_error(self.history)):
            return "sync-failed", self.journal_path, "", 0, error
        if result < 0:
            raise StopIteration
        if result == 0:
            return None
        what = {
            ZP_LOG_EVICTED_STALLED: "evicted-stalled", ZP_LOG_EVICTED_LAGGING: "evicted-lagging",
            ZP_LOG_EVICTED_FLOODING: "evicted-flooding", ZP_LOG_LOSSY: "lossy",
            ZP_LOG_DROPPED: "dropped", ZP_LOG_TERMINATED: "terminated", ZP_LOG_FAILED: "failed",
        }[record.what]
        return what, record.endpoint.decode(), record.peer.decode(), record.number, record.error


cdef object _not_bound(str option, str address, int error):
    """The exception for an address that libzmq did not bind."""
    if error == ETERM:
        return ClosedError("the ZeroMQ context was terminated")
    return BindError(option, address, error, (<bytes>zp_zmq.strerror_(error)).decode())


@cython.no_gc_clear # the engine has to outlive the sender
cdef class Endpoint:
    """One bound address and the thread that sends on it. Made by a publisher, under its lock."""

    def __cinit__(self, Engine engine not None, str option, str address, str endpoint, *, int hwm, bint ipv6,
                  int slow_subscriber, stall_timeout, max_lag, int keepalive_idle, int keepalive_interval):
        cdef zp_endpoint_settings settings
        cdef int error = 0
        cdef Context context = engine.context
        self.engine = engine
        self.address = address
        settings.hwm = hwm
        settings.ipv6 = ipv6
        settings.refuse_old = engine.own_context and endpoint.startswith("ipc://")  # see listener.c
        settings.slow_subscriber = slow_subscriber
        settings.stall_ns = _nanoseconds(stall_timeout)
        settings.max_lag_ns = _nanoseconds(max_lag)
        settings.keepalive_idle = keepalive_idle
        settings.keepalive_interval = keepalive_interval
        if context.handle == NULL or context.closed:
            raise ClosedError("the ZeroMQ context was terminated")
        self.endpoint = zp_endpoint_open(context.handle, os.fsencode(endpoint), &settings, engine.journal, engine.log, &error)
        if self.endpoint == NULL:
            raise _not_bound(option, address, error)

    def __dealloc__(self):
        if self.endpoint == NULL or self.engine.generation != zp_fork_generation():
            return
        zp_endpoint_stop(self.endpoint, 0)
        with nogil:
            zp_endpoint_join(self.endpoint)
            zp_endpoint_free(self.endpoint)

    @property
    def bound(self):
        """What libzmq bound, with the real port."""
        return (<bytes>(<zp_endpoint_fields *>self.endpoint).listener.bound).decode()

    def start(self, topics, address):
        """Begin to send; ``topics``: the indices, in the order of sorted names, of those that have a notifier here;
        ``address``: as active_notifiers() reports it."""
        cdef int error = zp_endpoint_start(self.endpoint)
        if error:
            raise OSError(error, f"cannot start the sender of {self.address}: {os.strerror(error)}")
        for topic in topics:
            self.change(topic, True, address)

    def change(self, int topic, bint active, str address not None):
        """A notifier is added or removed, from the next event on."""
        cdef bytes name = os.fsencode(address)
        cdef const char *text = name
        cdef int result
        with nogil:
            result = zp_endpoint_change(self.endpoint, self.engine.history, topic, text, active)
        if result == ZP_NO_ROOM:
            raise ClosedError("this epoch had as many notifiers as it can: a new publisher is needed")
        if result != ZP_OK:
            raise MemoryError

    def stop(self, linger):
        """Ask it to end: at once (0), after at most ``linger`` seconds, or when all is sent (None)."""
        zp_endpoint_stop(self.endpoint, _nanoseconds(linger))

    def join(self):
        """Wait until it has ended; a signal's exception interrupts the wait."""
        cdef timespec nap
        nap.tv_sec = 0
        nap.tv_nsec = 50_000
        while (<zp_endpoint_fields *>self.endpoint).started and (<zp_endpoint_fields *>self.endpoint).state == ZP_RUNNING:
            with nogil:
                nanosleep(&nap, NULL)
            PyErr_CheckSignals()
            if nap.tv_nsec < 5_000_000:
                nap.tv_nsec *= 2
        with nogil:
            zp_endpoint_join(self.endpoint)

    @property
    def state(self):
        """running, stopped, terminated (the context under it) or failed."""
        return _STATES[(<zp_endpoint_fields *>self.endpoint).state]

    def notifier_stats(self, int topic):
        """(counter of the next message, sent, unwanted, dropped, wanted) of one topic."""
        cdef zp_notifier *n = &(<zp_endpoint_fields *>self.endpoint).notifiers[topic]
        return n.counter, n.sent, n.unwanted, n.dropped, bool(n.wanted)

    def latency(self, shares):
        """(events, seconds at each share of them, the longest): from an event's appending until it was with libzmq."""
        cdef zp_histogram *h = &(<zp_endpoint_fields *>self.endpoint).latency
        return h.count, [zp_histogram_percentile(h, share) / 1e9 for share in shares], h.max / 1e9

    def flow_stats(self):
        """(evictions, seconds that full pipes were waited for)."""
        cdef zp_endpoint_fields *ep = <zp_endpoint_fields *>self.endpoint
        return ep.evictions, ep.blocked_ns / 1e9

    def subscribers(self):
        """[(remote address, bytes the kernel holds for it, seconds since it connected)]; inproc ones are not seen."""
        cdef zp_peers *peers = &(<zp_endpoint_fields *>self.endpoint).listener.peers
        cdef uint64_t now = zp_now()
        cdef size_t i
        cdef zp_peer *peer
        result = []
        pthread_mutex_lock(&peers.lock)
        try:
            for i in range(peers.count):
                peer = &peers.list[i]
                result.append((peer.address.decode(), zp_peer_backlog(peer), (now - peer.since) / 1e9))
        finally:
            pthread_mutex_unlock(&peers.lock)
        return result
