#include "recognize.h"
#include <stdlib.h>
#include <string.h>

/* A block is known by its hash, a mempool event by its kind, txid and number. */
typedef struct {
    uint8_t hash[32];
    uint64_t mempool_sequence; /* of a block: its event, so that the last one stands last */
    uint32_t place;            /* among the events noted */
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
    uint32_t tip_place;
    uint64_t *order;           /* of each event noted a fingerprint, in order */
    uint32_t count, next;      /* next: the place of the event that would go on with what was recognized last */
};

static int is_block(int kind) { return kind == ZP_BLOCK_CONNECTED || kind == ZP_BLOCK_DISCONNECTED; }

/* ---- what was there ---- */

static uint64_t fingerprint(const uint8_t *hash, const zp_event *e) {
    uint64_t start;
    memcpy(&start, hash, sizeof start);
    return start ^ (e->mempool_sequence * 0x9E3779B97F4A7C15u) ^ ((uint64_t)e->kind << 56);
}

static int add(seen_list *l, const uint8_t *hash, uint64_t number, int kind, uint32_t place) {
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
    s->place = place;
    s->kind = (uint8_t)kind;
    return ZP_OK;
}

static const uint8_t *hash_of(const zp_event *e) {
    const int mempool = e->kind == ZP_TX_ADDED || e->kind == ZP_TX_REMOVED;
    return mempool ? zp_body_txid(e->body, e->index) : zp_body_hash(e->body);
}

static int note(zp_recognizer *r, const zp_event *e) {
    const uint8_t *hash = hash_of(e);
    if (!hash) return ZP_NO_MEMORY;
    const uint32_t place = r->count;
    r->order[r->count++] = fingerprint(hash, e);
    if (e->kind == ZP_TIP_UPDATED) {
        memcpy(r->tip, hash, 32);
        r->has_tip = 1;
        r->tip_place = place;
        return ZP_OK;
    }
    if (!is_block(e->kind)) return add(&r->mempool, hash, e->mempool_sequence, e->kind, place);
    r->has_tip = 0;
    return add(&r->blocks, hash, e->at.event, e->kind, place);
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
    const uint64_t end = f->end.at.event, held = end - f->begin.at.event, noted = held > ZP_RECOGNIZED ? ZP_RECOGNIZED : held;
    if (noted && !(r->order = malloc(noted * sizeof *r->order))) return ZP_NO_MEMORY;
    for (uint64_t event = end - noted; event < end; event++) {
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
    zp_file_give_pages_back(f);
    if (!r) return NULL;
    sort(&r->blocks);
    keep_last(&r->blocks);
    sort(&r->mempool);
    r->next = r->count; /* nothing was recognized yet */
    return r;
}

void zp_recognizer_free(zp_recognizer *r) {
    if (!r) return;
    free(r->blocks.list);
    free(r->mempool.list);
    free(r->order);
    free(r);
}

/* ---- is it there again? ---- */

static int by_hash(const void *a, const void *b) { return memcmp(((const seen *)a)->hash, ((const seen *)b)->hash, 32); }

/* Where it is known by itself, whatever came before: its place, or -1. */
static int64_t find(const zp_recognizer *r, const uint8_t *hash, const zp_event *e) {
    if (e->kind == ZP_TIP_UPDATED) return r->has_tip && memcmp(r->tip, hash, 32) == 0 ? (int64_t)r->tip_place : -1;
    seen key = {.mempool_sequence = e->mempool_sequence, .kind = e->kind};
    memcpy(key.hash, hash, 32);
    const int block = is_block(e->kind);
    const seen_list *l = block ? &r->blocks : &r->mempool;
    if (!l->count) return -1;
    const seen *last = bsearch(&key, l->list, l->count, sizeof key, block ? by_hash : by_hash_and_number);
    return last && last->kind == e->kind ? (int64_t)last->place : -1;
}

int zp_recognize(zp_recognizer *r, const zp_event *e) {
    const uint8_t *hash = hash_of(e);
    if (!hash) return ZP_NO_MEMORY;
    if (r->next < r->count && r->order[r->next] == fingerprint(hash, e)) {
        r->next++;
        return 1;
    }
    const int64_t place = find(r, hash, e);
    if (place < 0) return 0;
    r->next = (uint32_t)place + 1;
    return 1;
}
