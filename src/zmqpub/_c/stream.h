/* stream.h: what the messages of one address tell when they are held against each other: gaps in counters, restarts,
 * duplicates, jumps of the mempool sequence, reorgs. Does no I/O: entries go in, entries come out.
 */
#ifndef ZMQPUB_STREAM_H
#define ZMQPUB_STREAM_H

#include "entry.h"
#include "journal.h"
#include "notification.h"

/* Entries on their way out. Whoever fills it leaves room for what one step can add. */
enum { ZP_STAGE = 256, ZP_STAGE_STEP = 16 };
typedef struct {
    size_t count, bytes;
    zp_entry entries[ZP_STAGE];
} zp_stage;

static inline int zp_stage_is_full(const zp_stage *stage) { return stage->count + ZP_STAGE_STEP > ZP_STAGE; }
static inline zp_entry *zp_stage_add(zp_stage *stage, const zp_entry *e) {
    stage->bytes += zp_entry_bytes(e);
    stage->entries[stage->count] = *e;
    return &stage->entries[stage->count++];
}

typedef struct {
    int known;                      /* is there an expectation? */
    uint32_t next;                  /* the counter expected */
    int discarded;                  /* messages from first_discarded to next were not kept */
    uint32_t first_discarded, discarded_generation;
    int old_discarded;              /* likewise, of the run before a restart that happened meanwhile */
    uint32_t old_first, old_next, old_generation;
    int has_last;                   /* the message before, to know it again */
    uint8_t last_length, last[ZP_LARGEST_SMALL];
    zp_body *last_body;             /* one reference */
} zp_topic_state;

typedef struct {
    atomic_uint_least64_t messages, bytes, discarded, gaps, restarts, duplicates, malformed, mempool_gaps, reorgs, stale;
} zp_stream_counts;

typedef struct {
    uint16_t index;                 /* which source */
    unsigned topics;                /* a bit for each that was asked for */
    int latest_only;                /* gaps are no news */
    uint32_t generation;
    zp_topic_state topic[ZP_TOPICS];
    int mempool_known;              /* is mempool_next known? */
    uint64_t mempool_next;
    int tip_known, disconnecting;   /* disconnecting: the last label about a block was D */
    uint8_t tip[32];                /* the last raw block's hash, display order */
    int restart_discarded;          /* a restart happened while messages were discarded: */
    zp_entry restart;
    zp_stream_counts counts;
} zp_stream;

void zp_stream_init(zp_stream *s, uint16_t index, unsigned topics, int latest_only);
void zp_stream_free(zp_stream *s);
void zp_stream_expect(zp_stream *s, int topic, uint32_t counter);
/* Take in a message, or what is malformed; what *e owns is the stage's afterwards, or gone. discard: there is no room for it. */
void zp_stream_accept(zp_stream *s, zp_entry *e, int discard, zp_stage *stage);
/* There is room again: say what was discarded since an earlier connection than `below` brought it. */
void zp_stream_tell_discarded(zp_stream *s, uint32_t below, zp_stage *stage);

#endif
