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
    if (e->count == ZP_MOST_EPOCHS) remove_first(e, 1);
    zp_epoch *epoch = &e->list[e->count++];
    memset(epoch, 0, sizeof *epoch);
    memcpy(epoch->id, id, ZP_EPOCH_BYTES);
    epoch->started_ms = started_ms;
    epoch->start = *at;
}

void zp_epochs_free(zp_epochs *e) { remove_first(e, e->count); }

const zp_position *zp_epochs_end(const zp_epochs *e, size_t i, const zp_position *end) {
    return i + 1 < e->count ? &e->list[i + 1].start : end;
}

static void forget_notifiers(zp_epoch *epoch, uint64_t begin) {
    size_t kept = 0;
    for (size_t i = 0; i < epoch->count; i++) {
        const zp_epoch_notifier *n = &epoch->notifiers[i];
        if (n->active || n->until.event > begin) epoch->notifiers[kept++] = *n;
    }
    epoch->count = kept;
}

void zp_epochs_forget(zp_epochs *e, uint64_t begin) {
    size_t gone = 0;
    while (gone + 1 < e->count && e->list[gone + 1].start.event <= begin) gone++;
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
        .from = *at, .base = zp_messages_before(at, topic), .id = epoch->next_id++, .topic = (uint8_t)topic, .active = 1
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
