# Included by _fast.pyx: questions to a replay endpoint.

@cython.final
@cython.no_gc_clear # the context has to outlive the socket
cdef class Channel:
    """A DEALER socket for questions to one endpoint; one thread at a time, close() from any. Connects when first used."""

    cdef zp_channel *channel        # owned
    cdef Context context
    cdef int generation_of_process
    cdef bint is_closed
    cdef readonly str endpoint

    def __cinit__(self, str endpoint not None, bint ipv6, Context context not None):
        self.generation_of_process = zp_fork_generation()
        self.context = context
        self.endpoint = endpoint
        self.channel = zp_channel_new(_handle(context), os.fsencode(endpoint), ipv6)
        if self.channel == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.channel != NULL and self.generation_of_process == zp_fork_generation():
            zp_channel_free(self.channel)

    cdef int _check(self) except -1:
        if self.generation_of_process != zp_fork_generation():
            raise ForkedError("this channel belongs to the parent process; a forked child makes its own")
        if self.is_closed:
            raise ClosedError("the channel was closed")
        if self.context.handle == NULL or self.context.closed:
            raise ClosedError("the ZeroMQ context was terminated")
        return 0

    cdef int _failed(self, int error) except -1:
        self._check()
        if error == ETERM:
            raise ClosedError("the ZeroMQ context was terminated")
        raise ConnectError(self.endpoint, error, (<bytes>zp_zmq.strerror_(error)).decode())

    def send(self, bytes request not None):
        """Ask. It does not wait: a peer that is not there yet gets it when it is."""
        cdef int error
        cdef const char *data = PyBytes_AS_STRING(request)
        cdef size_t size = PyBytes_GET_SIZE(request)
        self._check()
        with nogil:
            error = zp_channel_send(self.channel, data, size)
        if error:
            self._failed(error)

    def receive(self, timeout, Receiver receiver, source, unsigned topics):
        """The next answer: (header frame, frames that follow, None), or, when a RANGE was answered, (header frame, [], Batch of
        repaired messages of ``topics``, as bits). None where there was none within ``timeout`` seconds. ``receiver``: whose
        source that is; None where nothing is received yet: then the messages of an answer are dropped."""
        cdef zp_answer answer
        cdef uint64_t deadline = _deadline(timeout), slice_ns
        cdef uint16_t s = 0 if receiver is None else receiver._checked(source)
        cdef int result
        while True:
            self._check()
            slice_ns = _slice_until(deadline)
            with nogil:
                result = zp_channel_receive(self.channel, slice_ns, s, topics, &answer)
            if result < 0:
                self._failed(-result)
            if result:
                try:
                    return _answer(&answer, receiver)
                finally:
                    zp_answer_release(&answer)
            PyErr_CheckSignals()
            if slice_ns == 0:
                return None

    def reset(self):
        """Drop the connection and what was asked over it; the next send connects anew, names resolved anew."""
        self._check()
        with nogil:
            zp_channel_reset(self.channel)

    def close(self):
        """End it; whoever waits for an answer gets ClosedError. May be called again."""
        self.is_closed = True
        if self.generation_of_process != zp_fork_generation():
            return # in a forked child there is nothing that is ours to close
        with nogil:
            zp_channel_close(self.channel)


cdef bytes _frame(zmq_msg_t *frame):
    return PyBytes_FromStringAndSize(<const char *>zp_zmq.msg_data_(frame), zp_zmq.msg_size_(frame))


cdef tuple _answer(zp_answer *answer, Receiver receiver):
    """Its Python form; the chunks go over to the Batch."""
    cdef Batch batch
    cdef int i
    header = _frame(&answer.header)
    if not answer.has_messages or receiver is None:
        return header, [_frame(&answer.frames[i]) for i in range(answer.frame_count)], None
    batch = Batch.__new__(Batch, receiver)
    batch.repaired = True
    batch.malformed = None if answer.malformed == NULL else _text(answer.malformed)
    batch.messages = answer.messages
    batch.spans = {
        i: (answer.spans[i].first, answer.spans[i].next, bool(answer.spans[i].contiguous)) for i in range(5) if answer.spans[i].any
    }
    batch.chunk = answer.chunks
    answer.chunks = NULL
    return header, [], batch
