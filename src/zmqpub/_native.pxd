# The C under _c/, as Cython sees it. Only the package's own .pyx files use this; clients cimport zmqpub._fast.

from libc.stddef cimport size_t
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from zmqpub._opaque cimport zp_body, zp_endpoint, zp_history, zp_journal, zp_log


cdef extern from "cursor.h" nogil:
    ctypedef struct zp_decode_error:
        size_t offset
        uint32_t transaction
        const char *expected
        char got[80]

    ctypedef struct zp_cursor:
        const uint8_t *start
        const uint8_t *p
        const uint8_t *end
        zp_decode_error *error

    bint zp_compact_size(zp_cursor *c, uint64_t *out, const char *expected) noexcept
    uint64_t zp_load_le(const uint8_t *p, unsigned bytes) noexcept


cdef extern from "body.h" nogil:
    ctypedef struct zp_tx_place:
        uint32_t start
        uint32_t witness

    ctypedef struct zp_body_fields "zp_body":
        const uint8_t *raw
        size_t size
        void *owner
        uint8_t kind
        uint8_t owner_kind
        uint32_t count
        zp_tx_place *places
        zp_body *next

    enum:
        ZP_BLOCK
        ZP_TRANSACTION
        ZP_OWNER_COPY
        ZP_OWNER_OBJECT
        ZP_OWNER_VIEW

    zp_body *zp_body_parse(int kind, const uint8_t *raw, size_t size, zp_decode_error *error) noexcept
    zp_body *zp_body_from_txid(const uint8_t *txid) noexcept
    void zp_body_ref(zp_body *b) noexcept
    void zp_body_unref(zp_body *b) noexcept
    zp_body *zp_body_take_released() noexcept
    bint zp_body_any_released() noexcept
    void zp_body_free(zp_body *b) noexcept
    const uint8_t *zp_body_txid(zp_body *b, uint32_t i) noexcept
    const uint8_t *zp_body_wtxid(zp_body *b, uint32_t i) noexcept
    const uint8_t *zp_body_hash(zp_body *b) noexcept
    uint32_t zp_body_tx_end(const zp_body *b, uint32_t i) noexcept


cdef extern from "sha256.h" nogil:
    void zp_sha256d(uint8_t *out, const uint8_t *data, size_t length) noexcept
    void zp_sha256d_pairs(uint8_t *out, const uint8_t *data, size_t count) noexcept
    const char *zp_sha256_backend() noexcept
    int zp_sha256_select(const char *name) noexcept
    const char *zp_sha256_available(size_t i) noexcept


cdef extern from "fork.h" nogil:
    int zp_fork_generation() noexcept
    int zp_fork_watch() noexcept


cdef extern from "zmqapi.h" nogil:
    ctypedef struct zmq_msg_t:
        pass
    const char *zp_zmq_load(const char *path) noexcept
    ctypedef struct zp_zmq_table:
        const char *(*strerror_)(int) noexcept nogil
        void *(*msg_data_)(zmq_msg_t *) noexcept nogil
        size_t (*msg_size_)(const zmq_msg_t *) noexcept nogil
        void (*version_)(int *, int *, int *) noexcept nogil
    zp_zmq_table zp_zmq
    const int ETERM


cdef extern from "histogram.h" nogil:
    ctypedef struct zp_histogram:
        uint64_t count
        uint64_t max
    uint64_t zp_histogram_percentile(zp_histogram *h, double share) noexcept


cdef extern from "log.h" nogil:
    ctypedef struct zp_log_record:
        int what
        int error
        uint64_t number
        char endpoint[256]
        char peer[96]

    const size_t SIZEOF_LOG "sizeof(zp_log)"
    enum:
        ZP_LOG_EVICTED_STALLED
        ZP_LOG_EVICTED_LAGGING
        ZP_LOG_EVICTED_FLOODING
        ZP_LOG_LOSSY
        ZP_LOG_DROPPED
        ZP_LOG_TERMINATED
        ZP_LOG_FAILED

    void zp_log_init(zp_log *log) noexcept
    void zp_log_free(zp_log *log) noexcept
    void zp_log_close(zp_log *log) noexcept
    int zp_log_take(zp_log *log, zp_log_record *out, uint64_t timeout_ns) noexcept


cdef extern from "journal.h" nogil:
    enum:
        ZP_HASHBLOCK
        ZP_HASHTX
        ZP_RAWBLOCK
        ZP_RAWTX
        ZP_SEQUENCE
        ZP_TOPICS
        ZP_OK
        ZP_CLOSED
        ZP_FULL
        ZP_NO_MEMORY
        ZP_TOO_LARGE
        ZP_FILE_FAILED

    ctypedef struct zp_journal_fields "zp_journal":
        int file_error

    const size_t SIZEOF_JOURNAL "sizeof(zp_journal)"

    ctypedef struct zp_journal_stats:
        uint64_t events
        uint64_t bytes
        uint64_t bound
        uint64_t appended
        uint64_t dropped_events
        uint64_t oldest_ns
        uint64_t recognized
        uint64_t retained_events
        uint64_t retained_bytes

    ctypedef struct zp_position:
        uint64_t event
        uint64_t tx
        uint64_t tip

    ctypedef struct zp_event:
        zp_body *body
        zp_position at
        uint64_t mempool_sequence
        uint64_t time
        uint32_t index
        uint8_t kind

    int zp_journal_init(zp_journal *j, size_t bound, int on_full, bint retain) noexcept
    void zp_journal_free(zp_journal *j) noexcept
    void zp_journal_close(zp_journal *j) noexcept
    int zp_journal_append(zp_journal *j, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence) noexcept
    void zp_journal_wait_room(zp_journal *j, uint64_t timeout_ns) noexcept
    int zp_journal_wait_done(zp_journal *j, uint64_t upto, uint64_t timeout_ns) noexcept
    zp_position zp_journal_end(zp_journal *j) noexcept
    int zp_journal_recognizing(zp_journal *j) noexcept
    void zp_journal_stop_recognizing(zp_journal *j) noexcept
    void zp_journal_get_stats(zp_journal *j, zp_journal_stats *out) noexcept


cdef extern from "journal_file.h" nogil:
    enum:
        ZP_FILE_SYSTEM
        ZP_FILE_IN_USE
        ZP_FILE_NO_SPACE
        ZP_FILE_VERSION_OTHER
        ZP_FILE_DAMAGED
        ZP_FILE_SIZE

    const double ZP_SYNC_EVENT

    ctypedef struct zp_file_error:
        int code
        int error
        uint64_t offset
        char expected[128]
        char got[128]


cdef extern from "crc32c.h" nogil:
    uint32_t zp_crc32c(uint32_t crc, const void *data, size_t size) noexcept
    uint32_t zp_crc32c_portable(uint32_t crc, const void *data, size_t size) noexcept
    const char *zp_crc32c_backend() noexcept


cdef extern from "history.h" nogil:
    ctypedef struct zp_recovery:
        uint64_t events
        uint64_t lost
        int may_continue

    int zp_history_open_file(zp_history *h, const char *path, uint64_t journal_bytes, double sync, bint go_on, zp_file_error *error) noexcept
    int zp_history_settle(zp_history *h) noexcept
    void zp_history_close_file(zp_history *h) noexcept
    zp_recovery zp_history_recovery(zp_history *h) noexcept
    int zp_history_take_sync_error(zp_history *h) noexcept
    enum:
        ZP_GONE
        ZP_END
        ZP_DAMAGED
        ZP_UNKNOWN_EPOCH
        ZP_UNKNOWN_NOTIFIER
        ZP_NO_ROOM

    ctypedef struct zp_history_notifier:
        uint16_t id
        uint8_t topic
        char address[256]
        uint64_t first
        uint64_t next
        uint64_t base
        uint64_t from_ "from"
        uint64_t until

    ctypedef struct zp_history_epoch:
        uint8_t epoch[16]
        uint64_t started_ms
        int current
        uint64_t first
        uint64_t end
        size_t count
        zp_history_notifier *notifiers

    int zp_history_describe(zp_history *h, zp_history_epoch **out, size_t *count) noexcept
    void zp_history_epochs_free(zp_history_epoch *epochs, size_t count) noexcept
    int zp_history_locate(zp_history *h, const uint8_t *epoch, uint16_t notifier, uint64_t number, uint64_t *event) noexcept
    int zp_history_get(zp_history *h, uint64_t event, zp_event *out, uint64_t *before) noexcept
    zp_history *zp_history_new(zp_journal *j, const uint8_t *epoch, uint64_t started_ms) noexcept
    void zp_history_free(zp_history *h) noexcept
    void zp_history_epoch_id(zp_history *h, uint8_t *out) noexcept


cdef extern from "pthread.h" nogil:
    ctypedef struct pthread_mutex_t:
        pass
    int pthread_mutex_lock(pthread_mutex_t *) noexcept
    int pthread_mutex_unlock(pthread_mutex_t *) noexcept


cdef extern from "peers.h" nogil:
    ctypedef struct zp_peer:
        uint64_t since
        uint64_t backlog
        char address[96]
        int fd

    ctypedef struct zp_peers:
        pthread_mutex_t lock
        zp_peer *list
        size_t count
    uint64_t zp_peer_backlog(const zp_peer *peer) noexcept


cdef extern from "listener.h" nogil:
    ctypedef struct zp_listener:
        char bound[256]
        zp_peers peers


cdef extern from "clock.h" nogil:
    uint64_t zp_now() noexcept


cdef extern from "endpoint.h" nogil:
    # The atomic counters read as plain integers here: C11 loads them.
    ctypedef struct zp_notifier:
        bint active
        uint32_t counter
        uint64_t sent
        uint64_t unwanted
        uint64_t dropped
        bint wanted

    ctypedef struct zp_endpoint_settings:
        int hwm
        int slow_subscriber
        int keepalive_idle
        int keepalive_interval
        bint ipv6
        bint refuse_old
        uint64_t stall_ns
        uint64_t max_lag_ns

    ctypedef struct zp_endpoint_fields "zp_endpoint":
        zp_notifier notifiers[5]
        zp_listener listener
        zp_histogram latency
        int state
        bint started
        uint64_t evictions
        uint64_t blocked_ns

    zp_endpoint *zp_endpoint_open(void *context, const char *address, const zp_endpoint_settings *settings,
                                  zp_journal *journal, zp_log *log, int *error) noexcept
    int zp_endpoint_start(zp_endpoint *ep) noexcept
    void zp_endpoint_stop(zp_endpoint *ep, uint64_t linger_ns) noexcept
    void zp_endpoint_join(zp_endpoint *ep) noexcept
    void zp_endpoint_free(zp_endpoint *ep) noexcept
    enum:
        ZP_RUNNING
        ZP_STOPPED
        ZP_TERMINATED
        ZP_FAILED
    const char *zp_topic_text(int topic, size_t *length) noexcept
    int zp_endpoint_change(zp_endpoint *ep, zp_history *history, int topic, const char *address, bint active) noexcept


cdef extern from "entry.h" nogil:
    enum:
        ZP_ENTRY_VOID
        ZP_ENTRY_MESSAGE
        ZP_ENTRY_GAP
        ZP_ENTRY_RESTART
        ZP_ENTRY_DUPLICATE
        ZP_ENTRY_MEMPOOL_GAP
        ZP_ENTRY_REORG
        ZP_ENTRY_STALE
        ZP_ENTRY_CONNECTED
        ZP_ENTRY_DISCONNECTED
        ZP_ENTRY_REFUSED
        ZP_ENTRY_MALFORMED
        ZP_HAS_BODY
        ZP_HAS_COUNTER
        ZP_OVERFLOW
        ZP_HAS_NEW
        ZP_NO_TOPIC
        ZP_LARGEST_SMALL

    # The members of the entry's union, under the names by which they are reached.
    ctypedef struct zp_entry:
        uint8_t kind
        uint8_t topic
        uint8_t length
        uint8_t flags
        uint16_t source
        uint32_t counter
        uint32_t generation
        uint8_t *small "u.small"
        zp_body *body "u.body"
        uint64_t expected "u.step.expected"
        uint64_t got "u.step.got"
        uint64_t silence_ns "u.silence_ns"
        char *text "u.text"
        uint8_t *hashes "u.hashes"
        char *reason "u.malformed.reason"
        uint8_t *name "u.malformed.name"

    void zp_entry_release(zp_entry *e) noexcept


cdef extern from "inbox.h" nogil:
    ctypedef struct zp_chunk:
        zp_chunk *link
        uint32_t count
        uint32_t at
        zp_entry *entries

    ctypedef struct zp_wakeup:
        int read_fd

    ctypedef struct zp_inbox:
        pthread_mutex_t lock
        size_t entries
        size_t bytes
        size_t bound
        zp_wakeup ready

    void zp_chunk_free(zp_chunk *chunk) noexcept
    zp_chunk *zp_inbox_take(zp_inbox *inbox, int *ended) noexcept
    bint zp_inbox_wait(zp_inbox *inbox, uint64_t timeout_ns) noexcept
    void zp_inbox_end(zp_inbox *inbox) noexcept


cdef extern from "receiver.h" nogil:
    ctypedef struct zp_receiver_settings:
        int rcvhwm
        bint latest_only
        int keepalive_idle
        int keepalive_interval
        int heartbeat_ms
        int reconnect_ms
        int reconnect_max_ms
        uint64_t stale_ns
        size_t byte_bound

    ctypedef struct zp_stream_counts:
        uint64_t messages
        uint64_t bytes
        uint64_t discarded
        uint64_t gaps
        uint64_t restarts
        uint64_t duplicates
        uint64_t malformed
        uint64_t mempool_gaps
        uint64_t reorgs
        uint64_t stale

    ctypedef struct zp_stream:
        zp_stream_counts counts

    ctypedef struct zp_source:
        zp_stream stream
        int connected
        uint32_t generation
        uint64_t last_heard

    ctypedef struct zp_receiver:
        zp_source *sources
        size_t count
        zp_inbox inbox
        int error
        int state

    enum:
        ZP_RECEIVER_STOPPED
        ZP_RECEIVER_TERMINATED
        ZP_RECEIVER_FAILED

    zp_receiver *zp_receiver_new(void *context, const zp_receiver_settings *settings, size_t sources, int *error) noexcept
    int zp_receiver_open(zp_receiver *r, size_t i, const char *endpoint, bint ipv6, unsigned topics) noexcept
    void zp_receiver_expect(zp_receiver *r, size_t i, int topic, uint32_t counter) noexcept
    int zp_receiver_start(zp_receiver *r) noexcept
    void zp_receiver_stop(zp_receiver *r) noexcept
    void zp_receiver_join(zp_receiver *r) noexcept
    void zp_receiver_free(zp_receiver *r) noexcept


cdef extern from "channel.h" nogil:
    ctypedef struct zp_channel:
        pass

    ctypedef struct zp_span:
        bint any
        bint contiguous
        uint32_t first
        uint32_t next

    ctypedef struct zp_answer:
        zmq_msg_t header
        bint has_messages
        zp_chunk *chunks
        uint32_t messages
        zp_span spans[5]
        char *malformed
        zmq_msg_t frames[8]
        int frame_count

    zp_channel *zp_channel_new(void *context, const char *endpoint, bint ipv6) noexcept
    void zp_channel_free(zp_channel *c) noexcept
    int zp_channel_send(zp_channel *c, const void *request, size_t size) noexcept
    void zp_channel_reset(zp_channel *c) noexcept
    void zp_channel_close(zp_channel *c) noexcept
    int zp_channel_receive(zp_channel *c, uint64_t timeout_ns, uint16_t source, unsigned topics, zp_answer *out) noexcept
    void zp_answer_release(zp_answer *a) noexcept


cdef extern from "snapshots.h" nogil:
    ctypedef struct zp_snapshots:
        pass
    void zp_snapshots_close(zp_snapshots *s) noexcept
    int zp_snapshots_wait(zp_snapshots *s, uint64_t timeout_ns) noexcept


cdef extern from "replay.h" nogil:
    ctypedef struct zp_replay_settings:
        bint ipv6
        int keepalive_idle
        int keepalive_interval
        uint64_t stall_ns

    ctypedef struct zp_replay_counts:
        uint64_t requests
        uint64_t answers
        uint64_t messages
        uint64_t bytes
        uint64_t malformed
        uint64_t dropped
        uint64_t evictions

    ctypedef struct zp_replay:
        zp_listener listener
        zp_snapshots snapshots
        zp_replay_counts counts
        bint started
        int state

    zp_replay *zp_replay_open(void *context, const char *address, const zp_replay_settings *settings, zp_history *history,
                              zp_journal *journal, zp_log *log, int *error) noexcept
    void zp_replay_start(zp_replay *r) noexcept
    void zp_replay_stop(zp_replay *r, uint64_t linger_ns) noexcept
    void zp_replay_join(zp_replay *r) noexcept
    void zp_replay_free(zp_replay *r) noexcept
    void zp_replay_offer(zp_replay *r, bint offered) noexcept
    int zp_replay_give(zp_replay *r, const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size) noexcept
