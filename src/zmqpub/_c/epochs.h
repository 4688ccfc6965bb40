/* epochs.h: which lives of the counters a journal has seen, and which notifiers each of them had. Plain data: whoever shares
 * it locks it.
 */
#ifndef ZMQPUB_EPOCHS_H
#define ZMQPUB_EPOCHS_H

#include "journal.h"

#define ZP_EPOCH_BYTES 16
#define ZP_MOST_EPOCHS 16
#define ZP_MOST_NOTIFIERS 65535 /* of an epoch: 0xFFFF is no id */

typedef struct {
    char address[256];
    zp_position from, until;  /* until: meaningless while active */
    uint64_t base;            /* messages of its topic before its number 0 */
    uint16_t id;
    uint8_t topic, active;
    uint8_t claimed;          /* it belongs to an endpoint of this process */
} zp_epoch_notifier;

typedef struct {
    uint8_t id[ZP_EPOCH_BYTES];
    uint64_t started_ms;
    zp_position start;
    zp_epoch_notifier *notifiers; /* owned; in order of their ids */
    size_t count, capacity;
    uint16_t next_id;
} zp_epoch;

typedef struct {
    zp_epoch list[ZP_MOST_EPOCHS]; /* the last is the current one */
    size_t count;
} zp_epochs;

/* The current epoch from now on; the notifiers of the one before end, and the oldest epoch goes when there are too many. */
void zp_epochs_begin(zp_epochs *e, const uint8_t id[ZP_EPOCH_BYTES], uint64_t started_ms, const zp_position *at);
void zp_epochs_free(zp_epochs *e);
/* The events from `at` on are not there after all. */
void zp_epochs_cut(zp_epochs *e, const zp_position *at);
void zp_epochs_forget_oldest(zp_epochs *e);
/* End the active notifiers of the current epoch that nobody claimed, or all. */
void zp_epochs_end_notifiers(zp_epochs *e, const zp_position *at, int claimed_too);
/* Forget what has no event at or behind `begin`, except for the current epoch and its active notifiers. */
void zp_epochs_forget(zp_epochs *e, uint64_t begin);

static inline zp_epoch *zp_epochs_current(zp_epochs *e) { return &e->list[e->count - 1]; }
/* Where epoch i ends, in a journal that ends at `end`. */
const zp_position *zp_epochs_end(const zp_epochs *e, size_t i, const zp_position *end);

/* In the current epoch. The new notifier, NULL without memory or ids; the active one of that topic and address, or NULL. */
zp_epoch_notifier *zp_epochs_add(zp_epochs *e, int topic, const char *address, const zp_position *at);
zp_epoch_notifier *zp_epochs_find(zp_epochs *e, int topic, const char *address);
/* Make room for one more notifier of the current epoch: 0 or -1. */
int zp_epoch_reserve(zp_epoch *epoch);

/* As bytes: how many; write them; read them into an empty list: ZP_OK, ZP_NO_MEMORY, or -1 for what is no such list. */
size_t zp_epochs_packed_size(const zp_epochs *e);
void zp_epochs_pack(const zp_epochs *e, uint8_t *out);
int zp_epochs_unpack(zp_epochs *e, const uint8_t *data, size_t size);

#endif
