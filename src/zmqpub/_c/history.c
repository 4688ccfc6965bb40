#include "history.h"
#include "recognize.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct zp_history {
    pthread_mutex_t lock;     /* of epochs; taken before the journal's */
    zp_journal *journal;      /* borrowed */
    zp_epochs epochs;
    zp_journal_file file;     /* where journal->file is set */
    zp_recovery recovery;
};

zp_history *zp_history_new(zp_journal *j, const uint8_t epoch[ZP_EPOCH_BYTES], uint64_t started_ms) {
    zp_history *h = calloc(1, sizeof *h);
    if (!h) return NULL;
    h->journal = j;
    pthread_mutex_init(&h->lock, NULL);
    zp_epochs_begin(&h->epochs, epoch, started_ms, &j->end);
    return h;
}

void zp_history_free(zp_history *h) {
    zp_history_close_file(h);
    zp_epochs_free(&h->epochs);
    pthread_mutex_destroy(&h->lock);
    free(h);
}

void zp_history_lock(zp_history *h) {
    pthread_mutex_lock(&h->lock);
    pthread_mutex_lock(&h->journal->lock);
}

void zp_history_unlock(zp_history *h) {
    pthread_mutex_unlock(&h->journal->lock);
    pthread_mutex_unlock(&h->lock);
}

void zp_history_epoch_id(zp_history *h, uint8_t out[ZP_EPOCH_BYTES]) {
    pthread_mutex_lock(&h->lock);
    memcpy(out, zp_epochs_current(&h->epochs)->id, ZP_EPOCH_BYTES);
    pthread_mutex_unlock(&h->lock);
}

/* What is held: [begin, end). */
typedef struct {
    zp_position begin, end;
} zp_span;

static zp_span held(const zp_history *h) {
    const zp_journal *j = h->journal;
    if (j->file) return (zp_span){j->file->begin.at, j->file->end.at};
    return (zp_span){j->retain ? zp_journal_begin_locked(j) : j->end, j->end};
}

/* ---- the file ---- */

/* Into the file, if there is one. The oldest epochs make room for the current one, which may be too large all the same. */
static int save(zp_history *h) {
    int result = ZP_OK;
    while (h->journal->file && (result = zp_file_save_epochs(h->journal->file, &h->epochs)) == ZP_NO_ROOM && h->epochs.count > 1)
        zp_epochs_forget_oldest(&h->epochs);
    return result;
}

static void go_on_or_begin(zp_history *h, zp_epochs *found, int go_on) {
    const zp_epoch begun = *zp_epochs_current(&h->epochs);
    zp_epochs_cut(found, &h->file.end.at);
    h->epochs = *found;
    if (!go_on || !h->file.may_continue || !found->count) zp_epochs_begin(&h->epochs, begun.id, begun.started_ms, &h->file.end.at);
}

int zp_history_open_file(zp_history *h, const char *path, uint64_t journal_bytes, double sync, int go_on, zp_file_error *error) {
    zp_epochs found = {.count = 0};
    zp_journal *j = h->journal;
    if (zp_journal_file_open(&h->file, path, journal_bytes, sync, &found, error) < 0) {
        zp_epochs_free(&found);
        return -1;
    }
    const int is_new = found.count == 0;
    h->recovery = (zp_recovery){h->file.end.at.event - h->file.begin.at.event, h->file.lost_events, is_new || h->file.may_continue};
    go_on_or_begin(h, &found, go_on);
    j->file = &h->file;
    j->in_file = 1;
    j->end = h->file.end.at;
    j->tail = j->began = j->end.event;
    j->recognizer = zp_recognizer_new(&h->file);
    if (!j->recognizer) return zp_file_fail(error, ZP_FILE_SYSTEM, ENOMEM, 0, "memory to know its events again", "none");
    save(h);
    return 0;
}

void zp_history_close_file(zp_history *h) {
    zp_journal *j = h->journal;
    zp_journal_stats last;
    zp_journal_get_stats(j, &last);
    pthread_mutex_lock(&h->lock);
    pthread_mutex_lock(&j->writer);
    pthread_mutex_lock(&j->lock);
    j->final_events = last.retained_events;
    j->final_bytes = last.retained_bytes;
    const int open = j->file != NULL;
    j->file = NULL;
    pthread_mutex_unlock(&j->lock);
    pthread_mutex_unlock(&j->writer);
    if (open) zp_journal_file_close(&h->file);
    pthread_mutex_unlock(&h->lock);
}

int zp_history_settle(zp_history *h) {
    zp_history_lock(h);
    zp_epochs_end_notifiers(&h->epochs, &h->journal->end, 0);
    const int result = save(h);
    zp_history_unlock(h);
    return result;
}

zp_recovery zp_history_recovery(zp_history *h) { return h->recovery; }

int zp_history_take_sync_error(zp_history *h) { return atomic_exchange(&h->file.sync_error, 0); }

/* ---- notifiers that come and go ---- */

/* One that this epoch had before the restart goes on. */
static zp_epoch_notifier *claim(zp_history *h, int topic, const char *address) {
    zp_epoch_notifier *n = zp_epochs_find(&h->epochs, topic, address);
    if (!n || n->claimed) return NULL;
    n->claimed = 1;
    return n;
}

int zp_history_begin_notifier(zp_history *h, int topic, const char *address, zp_position *at, uint64_t *base) {
    *at = h->journal->end;
    zp_epochs_forget(&h->epochs, held(h).begin.event);
    const zp_epoch_notifier *n = claim(h, topic, address);
    if (!n) {
        if (zp_epochs_current(&h->epochs)->next_id == ZP_MOST_NOTIFIERS) return ZP_NO_ROOM;
        if (!(n = zp_epochs_add(&h->epochs, topic, address, at))) return ZP_NO_MEMORY;
        if (save(h) != ZP_OK) {
            zp_epochs_current(&h->epochs)->count--;
            return ZP_NO_ROOM;
        }
    }
    *base = n->base;
    return ZP_OK;
}

int zp_history_end_notifier(zp_history *h, int topic, const char *address, zp_position *at) {
    zp_epoch_notifier *n = zp_epochs_find(&h->epochs, topic, address);
    *at = h->journal->end;
    if (n) {
        n->active = 0;
        n->until = *at;
        save(h);
    }
    return ZP_OK;
}

/* ---- what there is ---- */


/* The part of an epoch that is held. */
static zp_span epoch_span(const zp_epochs *e, size_t i, const zp_span *held) {
    zp_span s = {e->list[i].start, *zp_epochs_end(e, i, &held->end)};
    if (s.begin.event < held->begin.event) s.begin = held->begin;
    if (s.begin.event > s.end.event) s.begin = s.end;
    return s;
}

/* The part of a notifier's life that is held; `epoch` is that of its epoch. */
static zp_span notifier_span(const zp_epoch_notifier *n, const zp_span *epoch) {
    zp_span s = *epoch;
    if (!n->active && n->until.event < s.end.event) s.end = n->until;
    if (s.begin.event < n->from.event) s.begin = n->from;
    if (s.begin.event > s.end.event) s.begin = s.end;
    return s;
}

static void describe_notifier(const zp_epoch *epoch, const zp_epoch_notifier *n, const zp_span *held, zp_history_notifier *out) {
    const zp_span s = notifier_span(n, held);
    out->id = n->id;
    out->topic = n->topic;
    memcpy(out->address, n->address, sizeof out->address);
    out->first = zp_messages_before(&s.begin, n->topic) - n->base;
    out->next = zp_messages_before(&s.end, n->topic) - n->base;
    out->base = n->base - zp_messages_before(&epoch->start, n->topic);
    out->from = n->from.event;
    out->until = n->active ? UINT64_MAX : n->until.event;
}

static int describe_epoch(const zp_epochs *e, size_t i, const zp_span *held, zp_history_epoch *out) {
    const zp_epoch *epoch = &e->list[i];
    const zp_span s = epoch_span(e, i, held);
    memcpy(out->epoch, epoch->id, ZP_EPOCH_BYTES);
    out->started_ms = epoch->started_ms;
    out->current = i + 1 == e->count;
    out->first = s.begin.event;
    out->end = s.end.event;
    out->notifiers = malloc((epoch->count ? epoch->count : 1) * sizeof *out->notifiers);
    if (!out->notifiers) return ZP_NO_MEMORY;
    out->count = epoch->count;
    for (size_t k = 0; k < epoch->count; k++) describe_notifier(epoch, &epoch->notifiers[k], &s, &out->notifiers[k]);
    return ZP_OK;
}

void zp_history_epochs_free(zp_history_epoch *epochs, size_t count) {
    for (size_t i = 0; epochs && i < count; i++) free(epochs[i].notifiers);
    free(epochs);
}

static zp_span look(zp_history *h) {
    pthread_mutex_lock(&h->journal->lock);
    const zp_span s = held(h);
    pthread_mutex_unlock(&h->journal->lock);
    return s;
}

int zp_history_describe(zp_history *h, zp_history_epoch **out, size_t *count) {
    int result = ZP_OK;
    pthread_mutex_lock(&h->lock);
    const zp_span held = look(h);
    zp_epochs_forget(&h->epochs, held.begin.event);
    *count = 0;
    *out = calloc(h->epochs.count, sizeof **out);
    if (!*out) result = ZP_NO_MEMORY;
    for (size_t i = 0; i < h->epochs.count && result == ZP_OK; i++) {
        result = describe_epoch(&h->epochs, i, &held, &(*out)[i]);
        if (result == ZP_OK) ++*count;
    }
    pthread_mutex_unlock(&h->lock);
    if (result == ZP_OK) return ZP_OK;
    zp_history_epochs_free(*out, *count);
    *out = NULL;
    *count = 0;
    return result;
}

/* ---- number to event ---- */

static int find(const zp_epochs *e, const uint8_t id[ZP_EPOCH_BYTES], uint16_t notifier, size_t *epoch, const zp_epoch_notifier **n) {
    for (size_t i = e->count; i-- > 0;) {
        if (memcmp(e->list[i].id, id, ZP_EPOCH_BYTES) != 0) continue;
        *epoch = i;
        for (size_t k = 0; k < e->list[i].count; k++)
            if (e->list[i].notifiers[k].id == notifier) {
                *n = &e->list[i].notifiers[k];
                return ZP_OK;
            }
        return ZP_UNKNOWN_NOTIFIER;
    }
    return ZP_UNKNOWN_EPOCH;
}

/* The event in [first, end) that makes message `count` of a topic, counted over the journal's whole life: the last one with
 * no more than that before it. The journal's lock held. */
static uint64_t search_memory(const zp_history *h, uint64_t first, uint64_t end, int topic, uint64_t count) {
    while (end - first > 1) {
        const uint64_t middle = first + (end - first) / 2;
        if (zp_messages_before(&zp_journal_at_locked(h->journal, middle)->at, topic) <= count) first = middle;
        else end = middle;
    }
    return first;
}

/* Where message `number` of a notifier is to be looked for; with the journal's lock. */
static int narrow(const zp_span *s, const zp_epoch_notifier *n, uint64_t number, uint64_t *event) {
    if (number >= zp_messages_before(&s->end, n->topic) - n->base) return *event = s->end.event, ZP_END;
    if (number < zp_messages_before(&s->begin, n->topic) - n->base) return *event = s->begin.event, ZP_GONE;
    return ZP_OK;
}

/* The same in the file, whose records are looked at without the journal's lock. */
static int search_file(zp_history *h, const zp_record_place *run, const zp_span *s, int topic, uint64_t count, uint64_t *event) {
    const int result = zp_file_search(h->journal->file, run, s->end.event, topic, count, event);
    if (result != ZP_DAMAGED) return result;
    pthread_mutex_lock(&h->journal->lock);
    const zp_position begin = held(h).begin;
    pthread_mutex_unlock(&h->journal->lock);
    if (begin.event <= run->at.event) return ZP_DAMAGED;
    *event = begin.event; /* it left while it was looked for */
    return ZP_GONE;
}

int zp_history_locate(zp_history *h, const uint8_t epoch[ZP_EPOCH_BYTES], uint16_t notifier, uint64_t number, uint64_t *event) {
    size_t i;
    const zp_epoch_notifier *n;
    pthread_mutex_lock(&h->lock);
    int result = find(&h->epochs, epoch, notifier, &i, &n);
    if (result == ZP_OK) {
        zp_journal *j = h->journal;
        zp_record_place run = {0};
        pthread_mutex_lock(&j->lock);
        const zp_span all = held(h), part = epoch_span(&h->epochs, i, &all), s = notifier_span(n, &part);
        const int in_file = j->file != NULL;
        result = narrow(&s, n, number, event);
        if (result == ZP_OK && in_file) run = zp_file_run_of_count(j->file, n->topic, number + n->base);
        else if (result == ZP_OK) *event = search_memory(h, s.begin.event, s.end.event, n->topic, number + n->base);
        pthread_mutex_unlock(&j->lock);
        if (result == ZP_OK && in_file) result = search_file(h, &run, &s, n->topic, number + n->base, event);
    }
    pthread_mutex_unlock(&h->lock);
    return result;
}

/* ---- the events ---- */

/* The epoch that an event belongs to, NULL when it left. */
static const zp_epoch *epoch_of(const zp_epochs *e, uint64_t event) {
    for (size_t i = e->count; i-- > 0;)
        if (e->list[i].start.event <= event) return &e->list[i];
    return NULL;
}

static int in_memory(const zp_journal *j, uint64_t event) { return event >= j->tail && event < j->end.event; }

/* From the file; what is no longer there may have left while it was read. */
static int read_file(zp_history *h, const zp_record_place *run, uint64_t event, zp_event *out) {
    const int result = zp_file_read(h->journal->file, run, event, out);
    if (result != ZP_DAMAGED) return result;
    pthread_mutex_lock(&h->journal->lock);
    const uint64_t begin = held(h).begin.event;
    pthread_mutex_unlock(&h->journal->lock);
    return event < begin ? ZP_GONE : ZP_DAMAGED;
}

int zp_history_get(zp_history *h, uint64_t event, zp_event *out, uint64_t before[ZP_TOPICS]) {
    zp_journal *j = h->journal;
    zp_record_place run = {0};
    int result = ZP_OK, from_file = 0;
    pthread_mutex_lock(&h->lock);
    pthread_mutex_lock(&j->lock);
    const zp_span s = held(h);
    const zp_epoch *epoch = epoch_of(&h->epochs, event);
    if (event >= s.end.event) {
        result = ZP_END;
    } else if (event < s.begin.event || !epoch) {
        result = ZP_GONE;
    } else if (in_memory(j, event)) {
        *out = *zp_journal_at_locked(j, event);
        zp_body_ref(out->body);
    } else {
        from_file = 1;
        run = zp_file_run_of_event(j->file, event);
    }
    pthread_mutex_unlock(&j->lock);
    if (from_file) result = read_file(h, &run, event, out);
    if (result == ZP_OK)
        for (int t = 0; t < ZP_TOPICS; t++) before[t] = zp_messages_before(&out->at, t) - zp_messages_before(&epoch->start, t);
    pthread_mutex_unlock(&h->lock);
    return result;
}
