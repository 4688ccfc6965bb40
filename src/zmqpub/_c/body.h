/* body.h: a parsed block or transaction, shared by everything that refers to its bytes.
 *
 * One walk over the buffer finds every transaction; nothing is copied. Hashes are made when first asked for, by whoever
 * asks, once. A body is counted atomically: Python objects, journal events and frames inside libzmq hold references.
 * When the last one goes, on whatever thread, a body whose bytes belong to Python is put on a lock-free list and freed
 * later by a thread that holds the GIL (zp_body_take_released).
 */
#ifndef ZMQPUB_BODY_H
#define ZMQPUB_BODY_H

#include "cursor.h"
#include <stdatomic.h>

typedef struct {
    uint32_t start;   /* offset of the transaction in the body */
    uint32_t witness; /* offset of its witness, 0 where it has none */
} zp_tx_place;

enum { ZP_BLOCK = 1, ZP_TRANSACTION = 2, ZP_TXID_ONLY = 3 };
/* A malloc'd copy, a PyObject *, a Py_buffer *, a zp_owner *. */
enum { ZP_OWNER_NONE = 0, ZP_OWNER_COPY, ZP_OWNER_OBJECT, ZP_OWNER_VIEW, ZP_OWNER_RELEASES };

/* Whatever else keeps bytes alive: the first member of it. Released on any thread, without the GIL. */
typedef struct zp_owner {
    void (*release)(struct zp_owner *owner);
} zp_owner;

typedef struct zp_body zp_body;
struct zp_body {
    atomic_size_t refs;
    const uint8_t *raw;                   /* kept alive by owner */
    size_t size;
    void *owner;                          /* freed or released with the body; see owner_kind */
    uint8_t kind, owner_kind;
    atomic_uchar block_hashed;
    uint32_t count;                       /* transactions */
    zp_tx_place *places;                  /* count entries, owned; of a transaction: the one below */
    zp_tx_place place;
    atomic_uint txids_made, wtxids_made;  /* how many of each are ready, from the first on */
    _Atomic(uint8_t *) txids, wtxids;     /* count x 32 bytes, display order, owned; NULL until first asked for */
    uint8_t hash[32];                     /* of a block: display order, once block_hashed; of a transaction: its txid */
    zp_body *next;                        /* on the list of released bodies */
    _Atomic(void *) journal;              /* the journal that counts its bytes (journal.c); NULL when none does */
    atomic_uint_least64_t file_key;       /* where a journal file has it (journal_records.c); 0 when none has */
    size_t journal_events;                /* how many of that journal's events hold it; guarded by that journal's lock */
};

/* Walk raw; NULL with *error filled in, or with error->expected == NULL when out of memory. The caller owns the one
 * reference and then sets owner. */
zp_body *zp_body_parse(int kind, const uint8_t *raw, size_t size, zp_decode_error *error);
/* A body that is only a txid, 32 bytes in display order; NULL when out of memory. */
zp_body *zp_body_from_txid(const uint8_t txid[32]);

static inline void zp_body_ref(zp_body *b) { atomic_fetch_add_explicit(&b->refs, 1, memory_order_relaxed); }
static inline void zp_body_ref_many(zp_body *b, size_t n) { atomic_fetch_add_explicit(&b->refs, n, memory_order_relaxed); }
void zp_body_unref(zp_body *b);           /* any thread, with or without the GIL */
zp_body *zp_body_take_released(void);     /* the whole list, linked by next; the caller releases owners, then frees each */
int zp_body_any_released(void);
void zp_body_free(zp_body *b);            /* the memory only; owner must be gone */

/* All 32 bytes, display order. They may hash (a batch at a time) and may wait for another thread that does; they never
 * fail except for memory: then NULL. */
const uint8_t *zp_body_txid(zp_body *b, uint32_t i);
const uint8_t *zp_body_wtxid(zp_body *b, uint32_t i);
const uint8_t *zp_body_hash(zp_body *b);

static inline uint32_t zp_body_tx_end(const zp_body *b, uint32_t i) {
    return i + 1 < b->count ? b->places[i + 1].start : (uint32_t)b->size;
}

#endif
