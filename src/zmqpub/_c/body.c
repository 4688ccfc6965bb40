#include "body.h"
#include "sha256.h"
#include <pthread.h>
#include <stdlib.h>

/* How many transactions are hashed at a time: enough to keep two SHA-256 lanes busy, few enough that a sender starts
 * sending while the rest of the block is still unhashed. */
#define BATCH 32

/* ---- the walk ---- */

/* One transaction, as UnserializeTransaction of Bitcoin Core's primitives/transaction.h reads it. */
static bool walk_transaction(zp_cursor *c, zp_tx_place *place) {
    uint64_t inputs, outputs = 0, items, length;
    bool segwit = false;
    place->start = (uint32_t)zp_offset(c);
    place->witness = 0;
    if (!zp_skip(c, 4, "4 bytes of transaction version")) return false;
    if (!zp_compact_size(c, &inputs, "the number of inputs")) return false;
    if (inputs == 0) { /* the marker of BIP 144, or a transaction without inputs and outputs */
        if (zp_left(c) == 0) return zp_short(c, 1, "the flag after the segregated witness marker");
        uint8_t flag = *c->p++;
        if (flag != 0) {
            if (flag != 1) return zp_wrong(c, c->p - 1, "the segregated witness flag 0x01", "x", flag);
            segwit = true;
            if (!zp_compact_size(c, &inputs, "the number of inputs")) return false;
        }
    }
    const bool has_outputs = segwit || inputs != 0;
    for (uint64_t i = 0; i < inputs; i++) {
        if (!zp_skip(c, 36, "36 bytes of outpoint")) return false;
        if (!zp_compact_size(c, &length, "the length of an input script")) return false;
        if (!zp_skip(c, length + 4, "an input script and 4 bytes of sequence")) return false;
    }
    if (has_outputs && !zp_compact_size(c, &outputs, "the number of outputs")) return false;
    for (uint64_t i = 0; i < outputs; i++) {
        if (!zp_skip(c, 8, "8 bytes of amount")) return false;
        if (!zp_compact_size(c, &length, "the length of an output script")) return false;
        if (!zp_skip(c, length, "an output script")) return false;
    }
    if (segwit) {
        const uint8_t *witness = c->p;
        bool empty = true;
        place->witness = (uint32_t)zp_offset(c);
        for (uint64_t i = 0; i < inputs; i++) {
            if (!zp_compact_size(c, &items, "the number of witness items")) return false;
            if (items) empty = false;
            for (; items; items--) {
                if (!zp_compact_size(c, &length, "the length of a witness item")) return false;
                if (!zp_skip(c, length, "a witness item")) return false;
            }
        }
        if (empty) return zp_wrong(c, witness, "a witness that is not empty (superfluous witness record)", "e", 0);
    }
    return zp_skip(c, 4, "4 bytes of lock time");
}

static bool walk_block(zp_cursor *c, zp_body *b) {
    uint64_t count;
    if (!zp_skip(c, 80, "80 bytes of block header")) return false;
    if (!zp_compact_size(c, &count, "the number of transactions")) return false;
    /* The smallest transaction has 10 bytes: a count that cannot be is refused before memory is taken for it. */
    if (count > zp_left(c) / 10) return zp_short(c, count * 10, "as many transactions as announced");
    b->count = (uint32_t)count;
    b->places = malloc((count ? count : 1) * sizeof *b->places);
    if (!b->places) return c->error->expected = NULL, false;
    for (uint32_t i = 0; i < b->count; i++) {
        c->error->transaction = i;
        if (!walk_transaction(c, &b->places[i])) return false;
    }
    c->error->transaction = UINT32_MAX;
    return true;
}

static zp_body *new_body(int kind) {
    zp_body *b = calloc(1, sizeof *b);
    if (!b) return NULL;
    atomic_init(&b->refs, 1);
    b->kind = (uint8_t)kind;
    b->count = 1;
    b->places = &b->place;
    return b;
}

zp_body *zp_body_parse(int kind, const uint8_t *raw, size_t size, zp_decode_error *error) {
    zp_cursor c = {raw, raw, raw + size, error};
    error->transaction = UINT32_MAX;
    error->expected = NULL;
    zp_body *b = new_body(kind);
    if (!b) return NULL;
    b->raw = raw;
    b->size = size;
    bool ok = size <= UINT32_MAX || zp_wrong(&c, raw, "less than 4 GiB", "u", size);
    if (ok) ok = kind == ZP_BLOCK ? walk_block(&c, b) : walk_transaction(&c, &b->place);
    if (ok && zp_left(&c)) ok = zp_wrong(&c, c.p, "the end of the data", "b", zp_left(&c));
    if (ok) return b;
    zp_body_free(b);
    return NULL;
}

zp_body *zp_body_from_txid(const uint8_t txid[32]) {
    zp_body *b = new_body(ZP_TXID_ONLY);
    if (!b) return NULL;
    memcpy(b->hash, txid, 32);
    atomic_store(&b->txids, b->hash);
    atomic_store(&b->txids_made, 1);
    return b;
}

/* ---- the end of a body ---- */

static _Atomic(zp_body *) released;

void zp_body_free(zp_body *b) {
    uint8_t *txids = atomic_load(&b->txids);
    if (txids != b->hash) free(txids);
    free(atomic_load(&b->wtxids));
    if (b->places != &b->place) free(b->places);
    free(b);
}

void zp_body_unref(zp_body *b) {
    if (atomic_fetch_sub_explicit(&b->refs, 1, memory_order_release) != 1) return;
    atomic_thread_fence(memory_order_acquire);
    if (b->owner_kind == ZP_OWNER_OBJECT || b->owner_kind == ZP_OWNER_VIEW) {
        zp_body *head = atomic_load_explicit(&released, memory_order_relaxed);
        do b->next = head;
        while (!atomic_compare_exchange_weak_explicit(&released, &head, b, memory_order_release, memory_order_relaxed));
        return;
    }
    if (b->owner_kind == ZP_OWNER_RELEASES) ((zp_owner *)b->owner)->release(b->owner);
    else free(b->owner);
    zp_body_free(b);
}

zp_body *zp_body_take_released(void) {
    if (!atomic_load_explicit(&released, memory_order_relaxed)) return NULL;
    return atomic_exchange_explicit(&released, NULL, memory_order_acquire);
}

int zp_body_any_released(void) { return atomic_load_explicit(&released, memory_order_relaxed) != NULL; }

/* ---- hashes, made once ---- */

/* A few locks for all bodies (a mutex in each would be a sixth of a small transaction's memory). */
#define LOCKS 64
static pthread_mutex_t locks[LOCKS];
static pthread_once_t locks_once = PTHREAD_ONCE_INIT;

static void init_locks(void) {
    for (int i = 0; i < LOCKS; i++) pthread_mutex_init(&locks[i], NULL);
}

/* A thread of the parent may have held one at the fork; what it guards only ever grows, so a fresh lock is enough. */
static void prepare_locks(void) {
    init_locks();
    pthread_atfork(NULL, NULL, init_locks);
}

static pthread_mutex_t *lock_of(const zp_body *b) {
    pthread_once(&locks_once, prepare_locks);
    return &locks[((uintptr_t)b >> 8) % LOCKS];
}

static void job_of(const zp_body *b, uint32_t i, bool with_witness, zp_hash_job *job) {
    const uint32_t start = b->places[i].start, witness = b->places[i].witness, end = zp_body_tx_end(b, i);
    const uint8_t *raw = b->raw;
    memset(job, 0, sizeof *job);
    if (with_witness || !witness) {
        job->part[0] = raw + start;
        job->length[0] = end - start;
        return;
    }
    job->part[0] = raw + start;
    job->length[0] = 4;
    job->part[1] = raw + start + 6; /* past the marker and the flag */
    job->length[1] = witness - start - 6;
    job->part[2] = raw + end - 4;
    job->length[2] = 4;
}

/* Hash on until transaction i is done. */
static const uint8_t *hash_up_to(zp_body *b, uint32_t i, bool with_witness) {
    _Atomic(uint8_t *) *array = with_witness ? &b->wtxids : &b->txids;
    atomic_uint *made = with_witness ? &b->wtxids_made : &b->txids_made;
    if (i < atomic_load_explicit(made, memory_order_acquire)) return atomic_load_explicit(array, memory_order_relaxed) + 32 * (size_t)i;
    pthread_mutex_t *lock = lock_of(b);
    pthread_mutex_lock(lock);
    uint8_t *hashes = atomic_load_explicit(array, memory_order_relaxed);
    if (!hashes) {
        hashes = b->kind == ZP_TRANSACTION && !with_witness ? b->hash : malloc(32 * (size_t)b->count);
        atomic_store_explicit(array, hashes, memory_order_relaxed);
    }
    if (hashes)
        for (uint32_t at = atomic_load_explicit(made, memory_order_relaxed); at <= i;) {
            zp_hash_job jobs[BATCH];
            uint32_t n = b->count - at < BATCH ? b->count - at : BATCH;
            for (uint32_t k = 0; k < n; k++) {
                job_of(b, at + k, with_witness, &jobs[k]);
                jobs[k].out = hashes + 32 * (size_t)(at + k);
            }
            zp_sha256d_jobs(jobs, n);
            at += n;
            atomic_store_explicit(made, at, memory_order_release);
        }
    pthread_mutex_unlock(lock);
    return hashes ? hashes + 32 * (size_t)i : NULL;
}

const uint8_t *zp_body_txid(zp_body *b, uint32_t i) { return hash_up_to(b, i, false); }

const uint8_t *zp_body_wtxid(zp_body *b, uint32_t i) {
    return b->places[i].witness ? hash_up_to(b, i, true) : hash_up_to(b, i, false);
}

const uint8_t *zp_body_hash(zp_body *b) {
    if (atomic_load_explicit(&b->block_hashed, memory_order_acquire)) return b->hash;
    pthread_mutex_t *lock = lock_of(b);
    pthread_mutex_lock(lock);
    if (!atomic_load_explicit(&b->block_hashed, memory_order_relaxed)) {
        zp_hash_job job = {{b->raw, NULL, NULL}, {80, 0, 0}, b->hash};
        zp_sha256d_jobs(&job, 1);
        atomic_store_explicit(&b->block_hashed, 1, memory_order_release);
    }
    pthread_mutex_unlock(lock);
    return b->hash;
}
