/* history.h: what was published, by number: what a replay server reads, from any thread and without the GIL.
 *
 * The number of a message is the 64-bit count that its notifier's counter is the lower half of. It follows from the events
 * alone, sent or dropped or unwanted: the messages of the topic before it, less those before its notifier began. An epoch is
 * one life of the counters; a journal that lives in a file can hold several.
 */
#ifndef ZMQPUB_HISTORY_H
#define ZMQPUB_HISTORY_H

#include "journal_file.h"

/* Beside those of journal.h. */
enum { ZP_GONE = -10, ZP_END = -11, ZP_DAMAGED = -12, ZP_UNKNOWN_EPOCH = -13, ZP_UNKNOWN_NOTIFIER = -14, ZP_NO_ROOM = -15 };

typedef struct zp_history zp_history;

typedef struct {
    uint16_t id;              /* within its epoch, never used twice */
    uint8_t topic;
    char address[256];        /* as active_notifiers() reports it */
    uint64_t first, next;     /* numbers: of the first message held, and of the next to be made */
    uint64_t base;            /* messages of its topic that the epoch made before its number 0 */
    uint64_t from, until;     /* the events that it announces: [from, until); UINT64_MAX while it is active */
} zp_history_notifier;

typedef struct {
    uint8_t epoch[ZP_EPOCH_BYTES];
    uint64_t started_ms;      /* Unix time */
    int current;
    uint64_t first, end;      /* the events held: [first, end) */
    size_t count;
    zp_history_notifier *notifiers; /* in order of their ids */
} zp_history_epoch;

/* The epochs of which something is held, oldest first, and the current one last. ZP_OK or ZP_NO_MEMORY. */
int zp_history_describe(zp_history *h, zp_history_epoch **out, size_t *count);
void zp_history_epochs_free(zp_history_epoch *epochs, size_t count);

/* The event that makes message `number` of a notifier. ZP_GONE: that left, *event is the first held of the epoch (or of the
 * notifier); ZP_END: it is not made yet, or the notifier ended before it, *event is where the epoch (or the notifier) ends;
 * ZP_UNKNOWN_EPOCH, ZP_UNKNOWN_NOTIFIER: *event is not set. */
int zp_history_locate(zp_history *h, const uint8_t epoch[ZP_EPOCH_BYTES], uint16_t notifier, uint64_t number, uint64_t *event);

/* The event, with one reference to its body, which the caller gives back, and how many messages of each topic its epoch made
 * before it. ZP_GONE: it left; ZP_END: it is not made yet; ZP_NO_MEMORY; ZP_DAMAGED: the file does not hold what was written. */
int zp_history_get(zp_history *h, uint64_t event, zp_event *out, uint64_t before[ZP_TOPICS]);

/* The number of the first message that the event of zp_history_get makes for a notifier: 1 with *number, or 0 when the event
 * is not one that this notifier announces. */
static inline int zp_history_number(const zp_history_notifier *n, uint64_t event, const uint64_t before[ZP_TOPICS], uint64_t *number) {
    if (event < n->from || event >= n->until) return 0;
    *number = before[n->topic] - n->base;
    return 1;
}

/* ---- for the engine and its endpoints ---- */

/* Borrows the journal, which outlives it. NULL without memory. */
zp_history *zp_history_new(zp_journal *j, const uint8_t epoch[ZP_EPOCH_BYTES], uint64_t started_ms);
void zp_history_free(zp_history *h);

/* Keep it in a file from now on, before the first event and notifier: the epoch goes on where it was if that is wanted and can
 * be, else the one that zp_history_new began comes after those of the file. 0, or -1 with *error. */
int zp_history_open_file(zp_history *h, const char *path, uint64_t journal_bytes, double sync, int go_on, zp_file_error *error);
/* The notifiers of this process are all there: what else the epoch had ends here. ZP_OK or ZP_NO_ROOM. */
int zp_history_settle(zp_history *h);
/* Nobody reads it any more, and the journal is closed. */
void zp_history_close_file(zp_history *h);

typedef struct {
    uint64_t events, lost;   /* found in the file; lost by the last end of its publisher */
    int may_continue;        /* nothing that was sent is missing */
} zp_recovery;
zp_recovery zp_history_recovery(zp_history *h);
/* errno of the last background sync, if it failed since this was last asked; else 0. */
int zp_history_take_sync_error(zp_history *h);

void zp_history_epoch_id(zp_history *h, uint8_t out[ZP_EPOCH_BYTES]);

/* Between these two no event is appended. */
void zp_history_lock(zp_history *h);
void zp_history_unlock(zp_history *h);
/* A notifier begins or ends here: *at is the place, and *base what is before its number 0. ZP_OK, ZP_NO_MEMORY, or ZP_NO_ROOM
 * for one more. Between lock and unlock. */
int zp_history_begin_notifier(zp_history *h, int topic, const char *address, zp_position *at, uint64_t *base);
int zp_history_end_notifier(zp_history *h, int topic, const char *address, zp_position *at);

#endif
