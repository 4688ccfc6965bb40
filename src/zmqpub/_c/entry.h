/* entry.h: one thing received, or noticed about the stream, as it waits for its consumer: 64 bytes, a cache line.
 *
 * The thread that receives makes entries in order, the consumer turns them into objects. What they own goes with them.
 */
#ifndef ZMQPUB_ENTRY_H
#define ZMQPUB_ENTRY_H

#include "body.h"
#include <stdlib.h>

enum {
    ZP_ENTRY_VOID,          /* nothing: a message that a newer one replaced (latest only) */
    ZP_ENTRY_MESSAGE,
    ZP_ENTRY_GAP,           /* before the message that shows it */
    ZP_ENTRY_RESTART,
    ZP_ENTRY_DUPLICATE,
    ZP_ENTRY_MEMPOOL_GAP,
    ZP_ENTRY_REORG,
    ZP_ENTRY_STALE,
    ZP_ENTRY_CONNECTED,
    ZP_ENTRY_DISCONNECTED,
    ZP_ENTRY_REFUSED,       /* whoever listens there does not speak our protocol */
    ZP_ENTRY_MALFORMED
};

enum {
    ZP_HAS_BODY = 1,        /* a message: a raw one, whose body is referred to; the others stand in small */
    ZP_HAS_COUNTER = 2,     /* malformed: the counter could be read */
    ZP_OVERFLOW = 4,        /* gap: we had no room, rather than the network lost it */
    ZP_HAS_NEW = 8          /* reorg: a new block showed it, and its previous hash is the second one */
};

#define ZP_NO_TOPIC 0xFF    /* malformed: the first frame is no topic that was asked for */
#define ZP_LARGEST_SMALL 41 /* bytes of the longest body that is not raw: a sequence message of the mempool */
#define ZP_LARGEST_NAME 32  /* bytes of a strange first frame that are kept */

typedef struct {
    uint8_t kind;
    uint8_t topic;          /* index, or ZP_NO_TOPIC */
    uint8_t length;         /* of small; of name */
    uint8_t flags;
    uint16_t source;
    uint32_t counter;       /* message, duplicate, malformed */
    uint32_t generation;    /* of the connection that brought it: not older than the true one */
    union {
        uint8_t small[ZP_LARGEST_SMALL];
        zp_body *body;                              /* one reference */
        struct {
            uint64_t expected, got;
        } step;                                     /* gap, restart, mempool gap */
        uint64_t silence_ns;                        /* stale */
        char *text;                                 /* connected: the endpoint; malloc'd, may be NULL */
        uint8_t *hashes;                            /* reorg: old tip, new block's previous; malloc'd, may be NULL */
        struct {
            char *reason;                           /* malloc'd, may be NULL */
            uint8_t name[ZP_LARGEST_NAME];          /* the start of the first frame, where it is no topic */
        } malformed;
    } u;
} zp_entry;

_Static_assert(sizeof(zp_entry) == 64, "an entry is a cache line");

static inline void zp_entry_release(zp_entry *e) {
    switch (e->kind) {
    case ZP_ENTRY_MESSAGE:
        if (e->flags & ZP_HAS_BODY) zp_body_unref(e->u.body);
        break;
    case ZP_ENTRY_CONNECTED: free(e->u.text); break;
    case ZP_ENTRY_REORG: free(e->u.hashes); break;
    case ZP_ENTRY_MALFORMED: free(e->u.malformed.reason); break;
    default: break;
    }
    e->kind = ZP_ENTRY_VOID;
}

#define ZP_TEXT_BYTES 192   /* what a malloc'd text is taken to need: few are longer */

/* What it counts against the bound of what is held: itself, and what it keeps. */
static inline size_t zp_entry_bytes(const zp_entry *e) {
    if (e->kind == ZP_ENTRY_MESSAGE && e->flags & ZP_HAS_BODY)
        return sizeof *e + sizeof(zp_body) + e->u.body->size + e->u.body->count * sizeof(zp_tx_place);
    return sizeof *e + (e->kind == ZP_ENTRY_MALFORMED || e->kind == ZP_ENTRY_REORG ? ZP_TEXT_BYTES : 0);
}

#endif
