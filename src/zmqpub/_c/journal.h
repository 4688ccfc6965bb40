/* journal.h: the queue between those who publish and the senders: one ring of events, bounded in bytes.
 *
 * Appending costs a lock held for some tens of nanoseconds; nobody waits for the network. Every reader has its own
 * cursor, so a slow one delays no other. An event stays until every cursor has handed it over, or until the bound is
 * reached and the caller chose to drop the oldest: then the cursors that had not fetched it go on behind it.
 * A journal that retains keeps what was handed over, too, until the bound asks for its room (history.h reads it).
 */
#ifndef ZMQPUB_JOURNAL_H
#define ZMQPUB_JOURNAL_H

#include "body.h"
#include <pthread.h>

/* The topics, sorted by name as Bitcoin Core sorts its notifiers. */
enum { ZP_HASHBLOCK, ZP_HASHTX, ZP_RAWBLOCK, ZP_RAWTX, ZP_SEQUENCE, ZP_TOPICS };

enum { ZP_TX_ADDED = 1, ZP_TX_REMOVED, ZP_BLOCK_CONNECTED, ZP_BLOCK_DISCONNECTED, ZP_TIP_UPDATED };
enum { ZP_ON_FULL_WAIT, ZP_ON_FULL_DROP };

/* What zp_journal_append answers. The last two are of a journal in a file: the event is larger than half of it, and the system
 * refused to write or to sync (errno). */
enum { ZP_OK = 0, ZP_CLOSED = -1, ZP_FULL = -2, ZP_NO_MEMORY = -3, ZP_TOO_LARGE = -6, ZP_FILE_FAILED = -7 };

/* A place between two events, as what was published before it: so many events, transaction messages (of hashtx, as of
 * rawtx) and tip messages (of hashblock, as of rawblock). Each other event makes one message of sequence. Counts are of
 * the journal's whole life, whoever was there to send. */
typedef struct {
    uint64_t event, tx, tip;
} zp_position;

static inline uint64_t zp_messages_before(const zp_position *p, int topic) {
    switch (topic) {
    case ZP_HASHTX:
    case ZP_RAWTX: return p->tx;
    case ZP_HASHBLOCK:
    case ZP_RAWBLOCK: return p->tip;
    default: return p->event - p->tip;
    }
}

typedef struct {
    zp_body *body;             /* one reference */
    zp_position at;            /* before it */
    uint64_t mempool_sequence;
    uint64_t time;             /* zp_now() when it was appended */
    uint32_t index;            /* which transaction of the body, for the transaction events */
    uint8_t kind;
} zp_event;

typedef struct zp_journal_cursor zp_journal_cursor;
struct zp_journal_cursor {
    uint64_t next;                 /* the event to fetch next */
    uint64_t done;                 /* all before it are with libzmq, or given up; guarded by the journal's lock */
    int waiting;                   /* its reader sleeps and wants to be woken; guarded by the lock */
    void (*wake)(void *reader);    /* called without the lock: a system call, no more */
    void *reader;
    zp_journal_cursor *link;
};

struct zp_journal_file;
struct zp_recognizer;

typedef struct {
    pthread_mutex_t writer;        /* of a journal in a file: one event at a time is written; taken before lock */
    zp_body *coming;               /* a large block that is being written to the file; one reference; guarded by lock */
    int in_file;                   /* set once, before the first event */
    struct zp_journal_file *file;  /* borrowed: where events are retained; NULL when closed; guarded by writer and lock */
    struct zp_recognizer *recognizer; /* owned; what the file held, until the first new event; guarded by writer */
    uint64_t final_events, final_bytes; /* what was retained when the file was closed */
    atomic_uint_least64_t recognized; /* events that were handed over again */
    int file_error;                /* errno of ZP_FILE_FAILED */
    pthread_mutex_t lock;
    pthread_cond_t progress;       /* a cursor moved, or the journal was closed */
    int waiters;                   /* threads that wait for progress */
    zp_event **chunks;             /* ring of chunk pointers; event s is in chunk s / CHUNK */
    size_t chunk_slots;            /* a power of two */
    zp_position end;               /* behind the last event */
    uint64_t began;                /* the first event of this process */
    uint64_t tail;                 /* events [tail, end.event) are held */
    size_t bytes, bound;
    uint64_t dropped_events;
    int on_full, closed;
    int retain;                    /* in memory */
    zp_journal_cursor *cursors;
    atomic_int waking;             /* wakes under way outside the lock: no cursor may vanish meanwhile */
} zp_journal;

typedef struct {
    uint64_t events, bytes, bound, appended, dropped_events, oldest_ns; /* events not handed over by all; the age of the oldest */
    uint64_t recognized;
    uint64_t retained_events, retained_bytes;                           /* those that a history reads, the ones above among them */
} zp_journal_stats;

int zp_journal_init(zp_journal *j, size_t bound, int on_full, int retain); /* 0 or -1 */
void zp_journal_free(zp_journal *j);                               /* no cursor may be left */
void zp_journal_close(zp_journal *j);                              /* appends are refused from now on; waiters wake */

void zp_journal_add_cursor(zp_journal *j, zp_journal_cursor *c, void (*wake)(void *), void *reader);
void zp_journal_remove_cursor(zp_journal *j, zp_journal_cursor *c);

/* Append one event; takes its own reference to body. ZP_FULL when the bound is reached and the policy is to wait. */
int zp_journal_append(zp_journal *j, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence);
/* Wait for room or for progress, at most timeout_ns. */
void zp_journal_wait_room(zp_journal *j, uint64_t timeout_ns);
/* 1: every cursor has handed over all that was appended before `upto`; 0: not within timeout_ns; ZP_CLOSED when it was closed. */
int zp_journal_wait_done(zp_journal *j, uint64_t upto, uint64_t timeout_ns);
zp_position zp_journal_end(zp_journal *j);

/* Copy up to max events (and no more than about max_bytes of bodies, but one event always) from the cursor on, each with
 * a reference that the caller gives back. *from gets the place before the first: further than where the last fetch ended
 * when events were dropped between. With sleep != 0 and nothing to fetch, the cursor is marked waiting. */
size_t zp_journal_fetch(zp_journal *j, zp_journal_cursor *c, zp_event *out, size_t max, size_t max_bytes, zp_position *from, int sleep);
/* For a sender that has nothing to do: a block that will come when it is in the file, so that its hashes can be made meanwhile. With
 * a reference; NULL: there is none. */
zp_body *zp_journal_coming(zp_journal *j);
void zp_journal_done(zp_journal *j, zp_journal_cursor *c, uint64_t upto);
/* Is what the file held still looked for in what is appended? */
int zp_journal_recognizing(zp_journal *j);
/* From now on every event is a new one. */
void zp_journal_stop_recognizing(zp_journal *j);

void zp_journal_get_stats(zp_journal *j, zp_journal_stats *out);

/* Has any cursor something to hand over? */
int zp_journal_is_behind(zp_journal *j);

/* For a history, the lock held: the oldest event that is in memory, and any that is there. */
zp_position zp_journal_begin_locked(const zp_journal *j);
const zp_event *zp_journal_at_locked(const zp_journal *j, uint64_t event);

/* How many messages an event makes for a topic. */
uint32_t zp_event_messages(const zp_event *e, int topic);
/* The place behind it. */
zp_position zp_event_end(const zp_event *e);

#endif
