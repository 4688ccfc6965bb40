/* inbox.h: the queue between the thread that receives and the consumer: chunks of entries, bounded in bytes.
 *
 * The thread puts in some at a time, the consumer takes a whole chunk; either holds the lock for a microsecond at most. A
 * descriptor is readable exactly while there is something to take, or the end was reached, so that poll, asyncio and a plain
 * wait all use the same.
 */
#ifndef ZMQPUB_INBOX_H
#define ZMQPUB_INBOX_H

#include "entry.h"
#include "journal.h"
#include "wakeup.h"
#include <pthread.h>

#define ZP_CHUNK_ENTRIES 1024

typedef struct zp_chunk zp_chunk;
struct zp_chunk {
    zp_chunk *link;
    uint32_t count;          /* entries in it */
    uint32_t at;             /* the next one for its consumer */
    size_t bytes;            /* of its entries, see zp_entry_bytes */
    zp_entry entries[ZP_CHUNK_ENTRIES];
};

zp_chunk *zp_chunk_new(void);                          /* NULL when out of memory */
void zp_chunk_free(zp_chunk *chunk);                   /* with what its entries from `at` on own */

typedef struct {
    zp_chunk *chunk;
    uint32_t index;
} zp_place;

typedef struct {
    pthread_mutex_t lock;
    zp_chunk *first, *last;
    size_t entries;
    atomic_size_t bytes;
    size_t bound;
    int ended;               /* nothing will be put in any more */
    int readable;            /* ready was signaled */
    zp_wakeup ready;
    atomic_int wants_room;   /* the thread discards, and is to be woken when there is room again */
    const zp_wakeup *room;
    zp_place *latest;        /* latest only: where the newest message of each source and topic is; else NULL */
    size_t places;
} zp_inbox;

/* room: signaled when there is room again. latest_sources: of how many sources only the latest is kept; 0: all is kept.
 * 0, or -1 with errno. */
int zp_inbox_init(zp_inbox *in, size_t bound, size_t latest_sources, const zp_wakeup *room);
void zp_inbox_free(zp_inbox *in);
/* Takes the entries over; how many: fewer than n when out of memory. */
size_t zp_inbox_put(zp_inbox *in, const zp_entry *entries, size_t n);
void zp_inbox_end(zp_inbox *in);
/* The oldest chunk, the caller's from now on; NULL when there is none, with *ended. */
zp_chunk *zp_inbox_take(zp_inbox *in, int *ended);
/* Is there something to take, or the end? Waits for it at most timeout_ns, or until a signal. */
int zp_inbox_wait(zp_inbox *in, uint64_t timeout_ns);

/* Room is where less than three quarters are held: less often full is better than sooner filled again. */
static inline int zp_inbox_is_full(const zp_inbox *in) { return atomic_load_explicit(&in->bytes, memory_order_relaxed) >= in->bound; }
static inline int zp_inbox_has_room(const zp_inbox *in) {
    return atomic_load_explicit(&in->bytes, memory_order_relaxed) <= in->bound - in->bound / 4;
}

#endif
