# Included by _fast.pyx: the receiver's Python face.

cdef size_t DEFAULT_BYTE_BOUND = 256 * 1024 * 1024


cdef int _milliseconds(seconds) except? -1:
    return <int>min(max(0.0, round(seconds * 1000)), 0x7FFFFFFF)


cdef uint64_t _deadline(seconds) except? 0:
    """By zp_now(); None and infinity are never."""
    cdef uint64_t left = _nanoseconds(seconds)
    return left if left == 0xFFFFFFFFFFFFFFFF else zp_now() + left


cdef uint64_t _slice_until(uint64_t deadline) noexcept:
    """How long to wait before signals are looked at again; 0: it is past the deadline."""
    cdef uint64_t now = zp_now()
    return 0 if now >= deadline else min(WAIT_SLICE, deadline - now)


cdef void *_handle(Context context) except NULL:
    if context.handle == NULL or context.closed:
        raise ClosedError("the ZeroMQ context was terminated")
    return context.handle


@cython.final
@cython.no_gc_clear # the context has to outlive the thread
cdef class Receiver:
    """All SUB sockets of a subscriber, received from by one C thread. See _fast.pyi for the arguments.

    For one consumer: of two threads that take in turns, each sees gaps where the other has been. Raises ConnectError for an
    endpoint that libzmq does not take, ForkedError in a child of the process that made it.
    """

    cdef zp_receiver *receiver      # owned
    cdef object __weakref__
    cdef object context             # of the sockets
    cdef int generation_of_process  # zp_fork_generation() of the process it lives in
    cdef bint latest_only
    cdef bint is_closed
    cdef list addresses             # of each source, as given
    cdef list topics                # of each source, as bits
    cdef Progress *progress         # owned; five for each source
    cdef uint32_t *oldest           # owned; of each source: live items of older connections are skipped
    cdef list before_restart        # of each source: what was delivered before the last restart was handed out

    def __cinit__(self, sources, *, Context context not None, size_t byte_bound=DEFAULT_BYTE_BOUND, int rcvhwm=0,
                  bint latest_only=False, stale_after=None, heartbeat=None, int keepalive_idle=-1, int keepalive_interval=-1,
                  reconnect_interval=0.1, reconnect_interval_max=5.0):
        cdef zp_receiver_settings settings
        cdef int error = 0
        sources = list(sources)
        if len(sources) > 0xFFFF:
            raise ValueError(f"at most 65535 sources, not {len(sources)}")
        self.generation_of_process = zp_fork_generation()
        self.context = context
        self.latest_only = latest_only
        self.addresses = []
        self.topics = []
        settings.rcvhwm = rcvhwm
        settings.latest_only = latest_only
        settings.keepalive_idle = keepalive_idle
        settings.keepalive_interval = keepalive_interval
        settings.heartbeat_ms = 0 if heartbeat is None else max(1, _milliseconds(heartbeat))
        settings.reconnect_ms = max(1, _milliseconds(reconnect_interval))
        settings.reconnect_max_ms = _milliseconds(reconnect_interval_max)
        settings.stale_ns = _nanoseconds(stale_after)
        settings.byte_bound = byte_bound if byte_bound else 1
        self.progress = <Progress *>calloc(5 * len(sources) + 1, sizeof(Progress))
        self.oldest = <uint32_t *>calloc(len(sources) + 1, sizeof(uint32_t))
        self.before_restart = [{} for _ in sources]
        if self.progress == NULL or self.oldest == NULL:
            raise MemoryError
        self.receiver = zp_receiver_new(_handle(context), &settings, len(sources), &error)
        if self.receiver == NULL:
            raise OSError(error, f"cannot make a receiver: {os.strerror(error)}")
        for address, endpoint, ipv6, topics, expected in sources:
            self._open(address, endpoint, ipv6, topics, expected)
        error = zp_receiver_start(self.receiver)
        if error:
            raise OSError(error, f"cannot start the thread that receives: {os.strerror(error)}")
        _open_receivers.add(self)

    cdef int _open(self, str address, str endpoint, bint ipv6, unsigned topics, expected) except -1:
        cdef size_t i = len(self.addresses)
        cdef int error
        self.addresses.append(address)
        self.topics.append(topics)
        error = zp_receiver_open(self.receiver, i, os.fsencode(endpoint), ipv6, topics)
        if error:
            raise ConnectError(address, error, (<bytes>zp_zmq.strerror_(error)).decode())
        for topic, counter in expected.items():
            _set_progress(self._progress(i, self._checked_topic(i, topic)), counter)
            zp_receiver_expect(self.receiver, i, topic, counter)
        return 0

    def __dealloc__(self):
        # A forked child leaves everything as it is: the thread and its sockets exist in the parent only.
        if self.receiver != NULL and self.generation_of_process == zp_fork_generation():
            zp_receiver_stop(self.receiver)
            with nogil:
                zp_receiver_join(self.receiver)
                zp_receiver_free(self.receiver)
        free(self.progress)
        free(self.oldest)

    # ---- how far the consumer has come ----

    cdef inline Progress *_progress(self, size_t source, size_t topic) noexcept:
        return &self.progress[5 * source + topic]

    cdef int _restart(self, size_t source) except -1:
        """Handed out: from now on all topics of the source count from 0."""
        cdef Progress *progress
        cdef int topic
        self.before_restart[source] = self.delivered(source)
        for topic in range(5):
            if <unsigned>self.topics[source] & (1 << topic):
                progress = self._progress(source, topic)
                progress.next = progress.skip_from = 0
                progress.known = True
                progress.has_announced = False
        return 0

    cdef int _checked(self, source) except -1:
        if not 0 <= source < len(self.addresses):
            raise IndexError(f"source {source} of {len(self.addresses)}")
        return source

    cdef int _checked_topic(self, source, topic) except -1:
        if not 0 <= topic < 5 or not <unsigned>self.topics[source] & (1 << <int>topic):
            raise ValueError(f"topic {topic} was not asked for at {self.addresses[source]}")
        return topic

    cdef int _check(self) except -1:
        if self.generation_of_process != zp_fork_generation():
            raise ForkedError("this receiver belongs to the parent process; a forked child makes its own")
        return 0

    def delivered(self, source):
        """By topic index: the counter after the last that a Batch handed out. What is not known is absent."""
        cdef int s = self._checked(source)
        return {topic: self._progress(s, topic).next for topic in range(5) if self._progress(s, topic).known}

    def set_delivered(self, source, topic, counter):
        """Set it, or with None forget it: the next message is handed out whatever its counter."""
        cdef int s = self._checked(source)
        cdef Progress *progress = self._progress(s, self._checked_topic(s, topic))
        if counter is None:
            progress.known = progress.has_announced = False
        else:
            _set_progress(progress, counter)

    def skip_before(self, source, uint32_t generation):
        """Live messages, gaps and restarts that an earlier connection than ``generation`` brought are skipped from now on."""
        self.oldest[self._checked(source)] = generation

    def delivered_before_restart(self, source):
        """What delivered() was before the last ("restart", …) was handed out: whoever had learned of it another way goes back to that."""
        return dict(self.before_restart[self._checked(source)])

    # ---- what was received ----

    def take(self, timeout=None):
        """The next Batch, None where there was nothing within ``timeout`` seconds (None: forever; 0: do not wait)."""
        cdef Batch batch = Batch.__new__(Batch, self)
        cdef uint64_t deadline = _deadline(timeout), slice_ns
        cdef int ended = 0
        while True:
            self._check()
            if self.is_closed:
                raise ClosedError("the receiver was closed")
            batch.chunk = zp_inbox_take(&self.receiver.inbox, &ended)
            if batch.chunk != NULL:
                return batch
            if ended:
                self._raise_end()
            slice_ns = _slice_until(deadline)
            if slice_ns == 0:
                return None
            with nogil:
                zp_inbox_wait(&self.receiver.inbox, slice_ns)
            PyErr_CheckSignals()

    cdef int _raise_end(self) except -1:
        if self.receiver.state == ZP_RECEIVER_FAILED:
            raise OSError(self.receiver.error, f"receiving failed: {(<bytes>zp_zmq.strerror_(self.receiver.error)).decode()}")
        raise ClosedError("the ZeroMQ context was terminated")

    def fileno(self):
        """A descriptor, readable while take(0) has something, or something to raise."""
        self._check()
        return self.receiver.inbox.ready.read_fd

    def close(self):
        """End it; what was not taken is gone. May be called again, and from any thread."""
        if self.is_closed:
            return
        self.is_closed = True
        _open_receivers.discard(self)
        if self.generation_of_process != zp_fork_generation():
            return # in a forked child there is nothing that is ours to close
        zp_receiver_stop(self.receiver)
        zp_inbox_end(&self.receiver.inbox) # wakes who waits
        with nogil:
            zp_receiver_join(self.receiver)
        self._discard()

    cdef int _discard(self) except -1:
        cdef zp_chunk *chunk
        cdef int ended = 0
        while True:
            chunk = zp_inbox_take(&self.receiver.inbox, &ended)
            if chunk == NULL:
                return 0
            zp_chunk_free(chunk)

    @property
    def closed(self):
        return bool(self.is_closed)

    # ---- its state ----

    def generation(self, source):
        """How many connections there were, the present one included, as far as the thread knows."""
        return self.receiver.sources[self._checked(source)].generation

    def connected(self, source):
        """Is there a connection now?"""
        return bool(self.receiver.sources[self._checked(source)].connected)

    def stats(self):
        """A zmqpub.stats.ReceiverStats."""
        cdef size_t entries
        cdef Py_ssize_t i
        self._check()
        pthread_mutex_lock(&self.receiver.inbox.lock)
        entries = self.receiver.inbox.entries
        pthread_mutex_unlock(&self.receiver.inbox.lock)
        return ReceiverStats(
            entries, self.receiver.inbox.bytes, self.receiver.inbox.bound,
            tuple([self._source_stats(i) for i in range(len(self.addresses))]),
        )

    cdef object _source_stats(self, size_t i):
        cdef zp_source *source = &self.receiver.sources[i]
        cdef zp_stream_counts *counts = &source.stream.counts
        cdef uint64_t heard = source.last_heard, now = zp_now()
        return SourceStats(
            self.addresses[i], bool(source.connected), source.generation, counts.messages, counts.bytes, counts.discarded,
            counts.gaps, counts.restarts, counts.duplicates, counts.malformed, counts.mempool_gaps, counts.reorgs, counts.stale,
            (now - heard) / 1e9 if now > heard else 0.0,
        )


_open_receivers = weakref.WeakSet()


@atexit.register
def _close_receivers():
    """Threads end while their interpreter still stands."""
    for receiver in list(_open_receivers):
        receiver.close()
