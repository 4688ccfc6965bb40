#include "recognize.h"
#include <stdlib.h>
#include <string.h>

/* A block is known by its hash, a mempool event by its kind, txid and number. */
typedef struct {
    uint8_t hash[32];
    uint64_t mempool_sequence; /* of a block: its event, so that the last one stands last */
    uint8_t kind;
} seen;

typedef struct {
    seen *list;
    size_t count, capacity;
} seen_list;

struct zp_recognizer {
    seen_list blocks, mempool;
    uint8_t tip[32];
    int has_tip;               /* and no block came after it */
};

static int is_block(int kind) { return kind == ZP_BLOCK_CONNECTED || kind == ZP_BLOCK_DISCONNECTED; }

/* ---- what was there ---- */

static int add(seen_list *l, const uint8_t *hash, uint64_t number, int kind) {
    if (!hash) return ZP_NO_MEMORY;
    if (l->count == l->capacity) {
        const size_t capacity = l->capacity ? 2 * l->capacity : 64;
        seen *grown = realloc(l->list, capacity * sizeof *grown);
        if (!grown) return ZP_NO_MEMORY;
        l->list = grown;
        l->capacity = capacity;
    }
    seen *s = &l->list[l->count++];
    memset(s, 0, sizeof *s);
    memcpy(s->hash, hash, 32);
    s->mempool_sequence = number;
    s->kind = (uint8_t)kind;
    return ZP_OK;
}

static int note(zp_recognizer *r, const zp_event *e) {
    if (e->kind == ZP_TIP_UPDATED) {
        memcpy(r->tip, zp_body_hash(e->body), 32);
        r->has_tip = 1;
        return ZP_OK;
    }
    if (!is_block(e->kind)) return add(&r->mempool, zp_body_txid(e->body, e->index), e->mempool_sequence, e->kind);
    r->has_tip = 0;
    return add(&r->blocks, zp_body_hash(e->body), e->at.event, e->kind);
}

static int by_hash_and_number(const void *a, const void *b) {
    const seen *x = a, *y = b;
    const int order = memcmp(x->hash, y->hash, 32);
    if (order) return order;
    if (x->mempool_sequence != y->mempool_sequence) return x->mempool_sequence < y->mempool_sequence ? -1 : 1;
    return (int)x->kind - (int)y->kind;
}

/* Of each block only what came last counts. */
static void keep_last(seen_list *l) {
    size_t kept = 0;
    for (size_t i = 0; i < l->count; i++)
        if (i + 1 == l->count || memcmp(l->list[i].hash, l->list[i + 1].hash, 32) != 0) l->list[kept++] = l->list[i];
    l->count = kept;
}

static void sort(seen_list *l) {
    if (l->count) qsort(l->list, l->count, sizeof *l->list, by_hash_and_number);
}

static int note_all(zp_recognizer *r, zp_journal_file *f) {
    const uint64_t end = f->end.at.event, held = end - f->begin.at.event;
    for (uint64_t event = held > ZP_RECOGNIZED ? end - ZP_RECOGNIZED : f->begin.at.event; event < end; event++) {
        zp_event e;
        const zp_record_place run = zp_file_run_of_event(f, event);
        int result = zp_file_read(f, &run, event, &e);
        if (result == ZP_OK) {
            result = note(r, &e);
            zp_body_unref(e.body);
        }
        if (result != ZP_OK) return result;
    }
    return ZP_OK;
}

zp_recognizer *zp_recognizer_new(zp_journal_file *f) {
    zp_recognizer *r = calloc(1, sizeof *r);
    if (r && note_all(r, f) != ZP_OK) {
        zp_recognizer_free(r);
        return NULL;
    }
    zp_file_forget_bodies(f);
    if (!r) return NULL;
    sort(&r->blocks);
    keep_last(&r->blocks);
    sort(&r->mempool);
    return r;
}

void zp_recognizer_free(zp_recognizer *r) {
    if (!r) return;
    free(r->blocks.list);
    free(r->mempool.list);
    free(r);
}

/* ---- is it there again? ---- */

static int by_hash(const void *a, const void *b) { return memcmp(((const seen *)a)->hash, ((const seen *)b)->hash, 32); }

int zp_recognize(const zp_recognizer *r, const zp_event *e) {
    seen key = {.mempool_sequence = e->mempool_sequence, .kind = e->kind};
    const int mempool = e->kind == ZP_TX_ADDED || e->kind == ZP_TX_REMOVED;
    const uint8_t *hash = mempool ? zp_body_txid(e->body, e->index) : zp_body_hash(e->body);
    if (!hash) return ZP_NO_MEMORY;
    if (e->kind == ZP_TIP_UPDATED) return r->has_tip && memcmp(r->tip, hash, 32) == 0;
    memcpy(key.hash, hash, 32);
    const seen_list *l = mempool ? &r->mempool : &r->blocks;
    if (!l->count) return 0;
    if (mempool) return bsearch(&key, l->list, l->count, sizeof key, by_hash_and_number) != NULL;
    const seen *last = bsearch(&key, l->list, l->count, sizeof key, by_hash);
    return last && last->kind == e->kind;
}
