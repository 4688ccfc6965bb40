# Included by _fast.pyx: the endpoint where subscribers ask for what they missed.

@cython.no_gc_clear # the engine has to outlive the server
cdef class ReplayEndpoint:
    """The replay endpoint of a publisher: its socket and the thread that serves it."""

    cdef zp_replay *replay      # owned; NULL where it could not be bound
    cdef Engine engine          # keeps the journal, its history and the log
    cdef readonly str address   # as configured

    def __cinit__(self, Engine engine not None, str option, str address, str endpoint, *, bint ipv6, stall_timeout,
                  int keepalive_idle, int keepalive_interval):
        cdef zp_replay_settings settings
        cdef int error = 0
        cdef Context context = engine.context
        cdef void *handle = NULL
        cdef bytes name = os.fsencode(endpoint)
        cdef const char *text = name
        self.engine = engine
        self.address = address
        settings.ipv6 = ipv6
        settings.stall_ns = _nanoseconds(stall_timeout)
        settings.keepalive_idle = keepalive_idle
        settings.keepalive_interval = keepalive_interval
        if endpoint.startswith("inproc://"):  # its clients are in the publisher's context: nobody could reach it in another
            if context.handle == NULL or context.closed:
                raise ClosedError("the ZeroMQ context was terminated")
            handle = context.handle
        with nogil:
            self.replay = zp_replay_open(handle, text, &settings, engine.history, engine.journal, engine.log, &error)
        if self.replay == NULL:
            raise _not_bound(option, address, error)

    def __dealloc__(self):
        if self.replay == NULL or self.engine.generation != zp_fork_generation():
            return
        zp_replay_stop(self.replay, 0)
        with nogil:
            zp_replay_join(self.replay)
            zp_replay_free(self.replay)

    @property
    def bound(self):
        """What libzmq bound, with the real port."""
        return (<bytes>self.replay.listener.bound).decode()

    @property
    def state(self):
        """running, stopped, terminated (the context under it) or failed."""
        return _STATES[self.replay.state]

    def start(self):
        """Begin to serve: whoever publishes is ready."""
        zp_replay_start(self.replay)

    def stop(self, linger):
        """Ask it to end: at once (0), when answers under way are gone after at most ``linger`` seconds, or whenever (None)."""
        zp_replay_stop(self.replay, _nanoseconds(linger))

    def join(self):
        """Wait until it has ended; a signal's exception interrupts the wait."""
        cdef timespec nap
        nap.tv_sec = 0
        nap.tv_nsec = 50_000
        while self.replay.started and self.replay.state == ZP_RUNNING:
            with nogil:
                nanosleep(&nap, NULL)
            PyErr_CheckSignals()
            if nap.tv_nsec < 5_000_000:
                nap.tv_nsec *= 2
        with nogil:
            zp_replay_join(self.replay)

    def counts(self):
        """(requests, answers, messages, bytes, malformed, dropped, evictions)."""
        cdef zp_replay_counts *c = &self.replay.counts
        return c.requests, c.answers, c.messages, c.bytes, c.malformed, c.dropped, c.evictions

    def clients(self):
        """How many are connected; inproc ones are not seen."""
        cdef zp_peers *peers = &self.replay.listener.peers
        pthread_mutex_lock(&peers.lock)
        cdef size_t count = peers.count
        pthread_mutex_unlock(&peers.lock)
        return count

    # ---- snapshots ----

    def offer_snapshots(self, bint offered):
        """Whether there is somebody to ask."""
        zp_replay_offer(self.replay, offered)

    def wait_snapshot(self, double timeout):
        """True when a snapshot is asked for: give_snapshot is due. False: not within ``timeout`` seconds. StopIteration after
        close_snapshots."""
        cdef uint64_t timeout_ns = <uint64_t>(timeout * 1e9)
        cdef int result
        with nogil:
            result = zp_snapshots_wait(&self.replay.snapshots, timeout_ns)
        if result < 0:
            raise StopIteration
        return result > 0

    def give_snapshot(self, bytes header, bytes body):
        """The two frames of the answer, whatever its request id; without a header: it could not be had."""
        cdef const uint8_t *first = NULL
        cdef const uint8_t *second = NULL
        cdef size_t first_size = 0, second_size = 0
        if header is not None:
            first, first_size = <const uint8_t *>PyBytes_AS_STRING(header), PyBytes_GET_SIZE(header)
            second, second_size = <const uint8_t *>PyBytes_AS_STRING(body), PyBytes_GET_SIZE(body)
        if zp_replay_give(self.replay, first, first_size, second, second_size) < 0:
            raise MemoryError

    def close_snapshots(self):
        """End wait_snapshot."""
        zp_snapshots_close(&self.replay.snapshots)
