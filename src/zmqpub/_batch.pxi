# Included by _fast.pyx: what the consumer takes, and how far it has come.

# How far the consumer has come with one topic of one source. Counters wrap, so "behind" has a beginning: what was repaired
# since the last live message. Whatever is not within that is ahead, and never skipped in silence.
cdef struct Progress:
    uint32_t next           # the counter after the last that was handed out
    uint32_t skip_from      # live messages from here to next were repaired
    uint32_t announced      # the counter of the message before which a gap was handed out
    bint known              # is next known?
    bint has_announced


cdef inline bint _is_behind(Progress *p, uint32_t counter) noexcept:
    return p.known and <uint32_t>(counter - p.skip_from) < <uint32_t>(p.next - p.skip_from)


cdef inline void _handed_out(Progress *p, uint32_t counter, bint repaired) noexcept:
    if not repaired:
        p.skip_from = counter + 1
    elif counter != p.next or p.skip_from == p.next:
        p.skip_from = counter
    p.next = counter + 1
    p.known = True
    p.has_announced = False


cdef void _set_progress(Progress *p, uint32_t next) noexcept:
    """To where somebody says it is: what is behind then is skipped."""
    if not p.known:
        p.skip_from = next + (<uint32_t>1 << 31)
    elif <int32_t>(next - p.next) < 0:
        p.skip_from = next
    p.next = next
    p.known = True
    p.has_announced = False


@cython.final
@cython.no_gc_clear # the receiver has to outlive the chunks' way through here
cdef class Batch:
    """What was received, in order: an iterator of typed notifications and tuples, see Receiver.take.

    To hand an item out moves ``Receiver.delivered``. A live message behind that is skipped, as it was repaired meanwhile; one
    beyond it is preceded by a ("gap", …) in any case. Live items of a connection before Receiver.skip_before are skipped.
    """

    cdef Receiver receiver
    cdef zp_chunk *chunk        # owned, with those linked to it
    cdef bint repaired          # an answer of a replay endpoint
    cdef readonly uint32_t messages
    cdef readonly dict spans
    cdef readonly object malformed

    def __cinit__(self, Receiver receiver not None):
        self.receiver = receiver

    def __dealloc__(self):
        while self.chunk != NULL:
            self._drop_chunk()

    cdef int _drop_chunk(self) except -1:
        cdef zp_chunk *chunk = self.chunk
        self.chunk = chunk.link
        zp_chunk_free(chunk)
        return 0

    cdef zp_entry *_peek(self) except? NULL:
        """The next entry; NULL at the end."""
        while self.chunk != NULL:
            if self.chunk.at < self.chunk.count:
                return &self.chunk.entries[self.chunk.at]
            self._drop_chunk()
        return NULL

    cdef int _pass(self, zp_entry *e) except -1:
        """Done with the entry, whose contents may have gone elsewhere."""
        self.chunk.at += 1
        zp_entry_release(e)
        return 0

    cdef object _next(self, bint tuples):
        """The next item; None at the end, or with a tuple next where those are not wanted."""
        cdef zp_entry *e
        cdef Progress *progress
        while True:
            e = self._peek()
            if e == NULL:
                return None
            if e.kind == ZP_ENTRY_VOID or self._is_old(e):
                self._pass(e)
            elif e.kind == ZP_ENTRY_MESSAGE:
                progress = self.receiver._progress(e.source, e.topic)
                if not self.repaired and progress.known and e.counter != progress.next:
                    if _is_behind(progress, e.counter):
                        self._pass(e)
                        continue
                    if not self.receiver.latest_only and not (progress.has_announced and progress.announced == e.counter):
                        return self._gap(e, progress, progress.next, e.counter) if tuples else None
                return self._message(e, progress)
            elif not tuples:
                # What is to be skipped is skipped here, too: the end of the notifications is a tuple that there will be.
                if self._concerns(e):
                    return None
                self._pass(e)
            elif self._concerns(e):
                return self._tuple(e)
            else:
                self._pass(e)

    cdef bint _is_old(self, zp_entry *e) noexcept:
        """Is it of a connection that is not trusted any more? (What it says of connections is true all the same.)"""
        if self.repaired or e.generation >= self.receiver.oldest[e.source]:
            return False
        return e.kind not in (ZP_ENTRY_STALE, ZP_ENTRY_CONNECTED, ZP_ENTRY_DISCONNECTED, ZP_ENTRY_REFUSED)

    cdef object _message(self, zp_entry *e, Progress *progress):
        made = _received(e, <str>self.receiver.addresses[e.source], self.repaired)
        _handed_out(progress, e.counter, self.repaired)
        self._pass(e)
        return made

    cdef tuple _gap(self, zp_entry *e, Progress *progress, uint32_t expected, uint32_t got):
        progress.announced = got
        progress.has_announced = True
        return "gap", e.source, _TOPICS[e.topic], expected, got, "overflow" if e.flags & ZP_OVERFLOW else "network"

    cdef bint _concerns(self, zp_entry *e) noexcept:
        """Is an event still news, after what was repaired meanwhile?"""
        cdef Progress *progress
        if e.topic == ZP_NO_TOPIC or not (e.kind == ZP_ENTRY_GAP or e.kind == ZP_ENTRY_MALFORMED and e.flags & ZP_HAS_COUNTER):
            return True
        progress = self.receiver._progress(e.source, e.topic)
        return not _is_behind(progress, <uint32_t>e.got - 1 if e.kind == ZP_ENTRY_GAP else e.counter)

    cdef tuple _tuple(self, zp_entry *e):
        cdef Progress *progress = NULL
        cdef uint32_t expected
        cdef uint16_t s = e.source
        if e.kind == ZP_ENTRY_GAP:
            progress = self.receiver._progress(s, e.topic)
            expected = <uint32_t>e.expected
            if _is_behind(progress, expected):
                expected = progress.next
            item = self._gap(e, progress, expected, <uint32_t>e.got)
        elif e.kind == ZP_ENTRY_RESTART:
            self.receiver._restart(s)
            item = ("restart", s, _TOPICS[e.topic], <uint32_t>e.expected, <uint32_t>e.got)
        elif e.kind == ZP_ENTRY_DUPLICATE:
            item = ("duplicate", s, _TOPICS[e.topic], e.counter)
        elif e.kind == ZP_ENTRY_MEMPOOL_GAP:
            item = ("mempool-gap", s, e.expected, e.got)
        elif e.kind == ZP_ENTRY_REORG:
            item = self._reorg(e)
        elif e.kind == ZP_ENTRY_STALE:
            item = ("stale", s, e.silence_ns / 1e9)
        elif e.kind == ZP_ENTRY_CONNECTED:
            item = ("connected", s, e.generation, _text(e.text))
        elif e.kind == ZP_ENTRY_DISCONNECTED:
            item = ("disconnected", s, e.generation)
        elif e.kind == ZP_ENTRY_REFUSED:
            item = ("refused", s)
        else:
            item = self._malformed(e)
        self._pass(e)
        return item

    cdef tuple _reorg(self, zp_entry *e):
        if e.hashes == NULL: # there was no memory for them
            return "reorg", e.source, b"", None
        return "reorg", e.source, _hash(e.hashes), _hash(e.hashes + 32) if e.flags & ZP_HAS_NEW else None

    cdef tuple _malformed(self, zp_entry *e):
        counter = e.counter if e.flags & ZP_HAS_COUNTER else None
        if e.topic == ZP_NO_TOPIC:
            name = PyBytes_FromStringAndSize(<const char *>e.name, e.length).decode("ascii", "backslashreplace")
        else:
            name = _TOPICS[e.topic].value
            if counter is not None:
                _handed_out(self.receiver._progress(e.source, e.topic), e.counter, False)
        return "malformed", e.source, name, counter, _text(e.reason)

    def __iter__(self):
        return self

    def __next__(self):
        item = self._next(True)
        if item is None:
            raise StopIteration
        return item

    def notifications(self):
        """An iterator over the typed notifications that come next, up to the next tuple (which next() then gives) or the end."""
        return _Notifications(self)

    def take(self, Py_ssize_t limit):
        """As many of notifications() as a list, at most ``limit``; empty when a tuple or the end comes next."""
        cdef list items = []
        while len(items) < limit:
            item = self._next(False)
            if item is None:
                break
            items.append(item)
        return items

    @property
    def remaining(self):
        """Entries not looked at yet; some may turn out to be skipped."""
        cdef zp_chunk *chunk = self.chunk
        cdef size_t n = 0
        while chunk != NULL:
            n += chunk.count - chunk.at
            chunk = chunk.link
        return n


@cython.final
cdef class _Notifications:
    cdef Batch batch

    def __cinit__(self, Batch batch):
        self.batch = batch

    def __iter__(self):
        return self

    def __next__(self):
        item = self.batch._next(False)
        if item is None:
            raise StopIteration
        return item


cdef str _text(const char *text):
    """What the C side had to say; it may have had no memory to say it."""
    return "" if text == NULL else (<bytes>text).decode("utf-8", "replace")
