#include "epochs.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void remove_first(zp_epochs *e, size_t n) {
    for (size_t i = 0; i < n; i++) free(e->list[i].notifiers);
    memmove(e->list, e->list + n, (e->count - n) * sizeof *e->list);
    e->count -= n;
}

void zp_epochs_begin(zp_epochs *e, const uint8_t id[ZP_EPOCH_BYTES], uint64_t started_ms, const zp_position *at) {
    if (e->count) zp_epochs_end_notifiers(e, at, 1);
    if (e->count == ZP_MOST_EPOCHS) remove_first(e, 1);
    zp_epoch *epoch = &e->list[e->count++];
    memset(epoch, 0, sizeof *epoch);
    memcpy(epoch->id, id, ZP_EPOCH_BYTES);
    epoch->started_ms = started_ms;
    epoch->start = *at;
}

void zp_epochs_end_notifiers(zp_epochs *e, const zp_position *at, int claimed_too) {
    zp_epoch *epoch = zp_epochs_current(e);
    for (size_t i = 0; i < epoch->count; i++) {
        zp_epoch_notifier *n = &epoch->notifiers[i];
        if (!n->active || (n->claimed && !claimed_too)) continue;
        n->active = 0;
        n->until = *at;
    }
}

void zp_epochs_cut(zp_epochs *e, const zp_position *at) {
    for (size_t i = 0; i < e->count; i++)
        if (e->list[i].start.event > at->event) e->list[i].start = *at;
}

void zp_epochs_forget_oldest(zp_epochs *e) { remove_first(e, 1); }

void zp_epochs_free(zp_epochs *e) { remove_first(e, e->count); }

const zp_position *zp_epochs_end(const zp_epochs *e, size_t i, const zp_position *end) {
    return i + 1 < e->count ? &e->list[i + 1].start : end;
}

static void forget_notifiers(zp_epoch *epoch, uint64_t begin) {
    size_t kept = 0;
    for (size_t i = 0; i < epoch->count; i++) {
        const zp_epoch_notifier *n = &epoch->notifiers[i];
        if (n->active || n->until.event >= begin) epoch->notifiers[kept++] = *n;
    }
    epoch->count = kept;
}

void zp_epochs_forget(zp_epochs *e, uint64_t begin) {
    size_t gone = 0;
    while (gone + 1 < e->count && e->list[gone + 1].start.event < begin) gone++;
    remove_first(e, gone);
    for (size_t i = 0; i < e->count; i++) forget_notifiers(&e->list[i], begin);
}

int zp_epoch_reserve(zp_epoch *epoch) {
    if (epoch->count < epoch->capacity) return 0;
    const size_t capacity = epoch->capacity ? 2 * epoch->capacity : 8;
    zp_epoch_notifier *grown = realloc(epoch->notifiers, capacity * sizeof *grown);
    if (!grown) return -1;
    epoch->notifiers = grown;
    epoch->capacity = capacity;
    return 0;
}

zp_epoch_notifier *zp_epochs_add(zp_epochs *e, int topic, const char *address, const zp_position *at) {
    zp_epoch *epoch = zp_epochs_current(e);
    if (epoch->next_id == ZP_MOST_NOTIFIERS || zp_epoch_reserve(epoch) < 0) return NULL;
    zp_epoch_notifier *n = &epoch->notifiers[epoch->count++];
    *n = (zp_epoch_notifier){
        .from = *at, .base = zp_messages_before(at, topic), .id = epoch->next_id++, .topic = (uint8_t)topic, .active = 1,
        .claimed = 1,
    };
    snprintf(n->address, sizeof n->address, "%s", address);
    return n;
}

zp_epoch_notifier *zp_epochs_find(zp_epochs *e, int topic, const char *address) {
    zp_epoch *epoch = zp_epochs_current(e);
    for (size_t i = 0; i < epoch->count; i++) {
        zp_epoch_notifier *n = &epoch->notifiers[i];
        if (n->active && n->topic == topic && strcmp(n->address, address) == 0) return n;
    }
    return NULL;
}

/* ---- as bytes ---- */

/* Before the address, which follows without its end. */
typedef struct {
    zp_position from, until;
    uint64_t base;
    uint16_t id, length;
    uint8_t topic, active, unused[2];
} packed_notifier;

typedef struct {
    uint8_t id[ZP_EPOCH_BYTES];
    uint64_t started_ms;
    zp_position start;
    uint32_t count;
    uint16_t next_id, unused;
} packed_epoch;

size_t zp_epochs_packed_size(const zp_epochs *e) {
    size_t size = 0;
    for (size_t i = 0; i < e->count; i++) {
        size += sizeof(packed_epoch);
        for (size_t k = 0; k < e->list[i].count; k++) size += sizeof(packed_notifier) + strlen(e->list[i].notifiers[k].address);
    }
    return size;
}

static uint8_t *put(uint8_t *out, const void *data, size_t size) {
    memcpy(out, data, size);
    return out + size;
}

void zp_epochs_pack(const zp_epochs *e, uint8_t *out) {
    for (size_t i = 0; i < e->count; i++) {
        const zp_epoch *epoch = &e->list[i];
        packed_epoch p = {.started_ms = epoch->started_ms, .start = epoch->start, .count = (uint32_t)epoch->count, .next_id = epoch->next_id};
        memcpy(p.id, epoch->id, ZP_EPOCH_BYTES);
        out = put(out, &p, sizeof p);
        for (size_t k = 0; k < epoch->count; k++) {
            const zp_epoch_notifier *n = &epoch->notifiers[k];
            const packed_notifier q = {
                .from = n->from, .until = n->until, .base = n->base, .id = n->id, .length = (uint16_t)strlen(n->address),
                .topic = n->topic, .active = n->active,
            };
            out = put(put(out, &q, sizeof q), n->address, q.length);
        }
    }
}

typedef struct {
    const uint8_t *p;
    size_t left;
} reader;

static int get(reader *r, void *out, size_t size) {
    if (r->left < size) return -1;
    memcpy(out, r->p, size);
    r->p += size;
    r->left -= size;
    return 0;
}

static int unpack_notifier(zp_epoch *epoch, reader *r) {
    packed_notifier q;
    if (zp_epoch_reserve(epoch) < 0) return ZP_NO_MEMORY;
    zp_epoch_notifier *n = &epoch->notifiers[epoch->count];
    if (get(r, &q, sizeof q) < 0 || q.length >= sizeof n->address || q.topic >= ZP_TOPICS) return -1;
    *n = (zp_epoch_notifier){.from = q.from, .until = q.until, .base = q.base, .id = q.id, .topic = q.topic, .active = q.active != 0};
    if (get(r, n->address, q.length) < 0) return -1;
    epoch->count++;
    return ZP_OK;
}

int zp_epochs_unpack(zp_epochs *e, const uint8_t *data, size_t size) {
    reader r = {data, size};
    int result = ZP_OK;
    while (r.left && result == ZP_OK) {
        packed_epoch p;
        if (e->count == ZP_MOST_EPOCHS || get(&r, &p, sizeof p) < 0) return -1;
        zp_epochs_begin(e, p.id, p.started_ms, &p.start);
        zp_epochs_current(e)->next_id = p.next_id;
        for (uint32_t k = 0; k < p.count && result == ZP_OK; k++) result = unpack_notifier(zp_epochs_current(e), &r);
    }
    return result;
}
