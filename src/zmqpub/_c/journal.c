#include "journal.h"
#include "clock.h"
#include "journal_file.h"
#include "recognize.h"
#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 1024 /* events in a chunk: 56 KB */

static zp_event *at(const zp_journal *j, uint64_t s) { return &j->chunks[(s / CHUNK) & (j->chunk_slots - 1)][s % CHUNK]; }

uint32_t zp_event_messages(const zp_event *e, int topic) {
    const int block = e->kind == ZP_BLOCK_CONNECTED || e->kind == ZP_BLOCK_DISCONNECTED;
    switch (topic) {
    case ZP_HASHBLOCK:
    case ZP_RAWBLOCK: return e->kind == ZP_TIP_UPDATED;
    case ZP_HASHTX:
    case ZP_RAWTX: return block ? e->body->count : e->kind == ZP_TX_ADDED;
    default: return e->kind != ZP_TIP_UPDATED;
    }
}

zp_position zp_event_end(const zp_event *e) {
    return (zp_position){
        .event = e->at.event + 1,
        .tx = e->at.tx + zp_event_messages(e, ZP_HASHTX),
        .tip = e->at.tip + zp_event_messages(e, ZP_HASHBLOCK),
    };
}

int zp_journal_init(zp_journal *j, size_t bound, int on_full, int retain) {
    memset(j, 0, sizeof *j);
    j->retain = retain;
    j->bound = bound;
    j->on_full = on_full;
    j->chunk_slots = 16;
    j->chunks = calloc(j->chunk_slots, sizeof *j->chunks);
    if (!j->chunks) return -1;
    pthread_condattr_t monotonic;
    pthread_condattr_init(&monotonic);
#ifndef __APPLE__
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
#endif
    pthread_mutex_init(&j->lock, NULL);
    pthread_mutex_init(&j->writer, NULL);
    pthread_cond_init(&j->progress, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return 0;
}

/* Sleep on progress, the lock held, until `deadline` of zp_now(). 0 when the time is up. */
static int sleep_until(zp_journal *j, uint64_t deadline) {
    uint64_t now = zp_now();
    if (now >= deadline) return 0;
    struct timespec t;
#ifdef __APPLE__
    uint64_t left = deadline - now;
    t.tv_sec = (time_t)(left / 1000000000u);
    t.tv_nsec = (long)(left % 1000000000u);
    j->waiters++;
    pthread_cond_timedwait_relative_np(&j->progress, &j->lock, &t);
#else
    t.tv_sec = (time_t)(deadline / 1000000000u);
    t.tv_nsec = (long)(deadline % 1000000000u);
    j->waiters++;
    pthread_cond_timedwait(&j->progress, &j->lock, &t);
#endif
    j->waiters--;
    return 1;
}

/* ---- bytes: a body counts once, however many events hold it ---- */

static size_t event_cost(const zp_body *b) {
    return b->size + sizeof *b + (b->kind == ZP_BLOCK ? b->count * sizeof *b->places : 0);
}

static size_t cost_of_holding(zp_journal *j, zp_body *b) {
    return atomic_load_explicit(&b->journal, memory_order_relaxed) == j ? 0 : event_cost(b);
}

static void hold(zp_journal *j, zp_body *b) {
    void *nobody = NULL;
    zp_body_ref(b);
    if (atomic_load(&b->journal) == j || atomic_compare_exchange_strong(&b->journal, &nobody, j)) {
        if (b->journal_events++ == 0) j->bytes += event_cost(b);
    } else {
        j->bytes += event_cost(b); /* another publisher's journal counts it already: here every event of it counts in full */
    }
    j->bytes += sizeof(zp_event);
}

/* The journal's reference is left to the caller, who gives it back outside the lock: that may free megabytes. */
static zp_body *let_go(zp_journal *j, zp_body *b) {
    j->bytes -= sizeof(zp_event);
    if (atomic_load(&b->journal) == j) {
        if (--b->journal_events == 0) {
            j->bytes -= event_cost(b);
            atomic_store(&b->journal, NULL);
        }
    } else {
        j->bytes -= event_cost(b);
    }
    return b;
}

/* ---- the ring, the lock held ---- */

static zp_body *drop_tail(zp_journal *j) {
    zp_body *body = let_go(j, at(j, j->tail)->body);
    j->tail++;
    if (j->tail % CHUNK == 0) {
        zp_event **slot = &j->chunks[((j->tail - 1) / CHUNK) & (j->chunk_slots - 1)];
        zp_event *chunk = *slot;
        *slot = NULL;
        /* Keep one at hand, so that a journal that hovers around a chunk's end does not allocate at each turn. */
        zp_event **ahead = &j->chunks[(j->end.event / CHUNK + 1) & (j->chunk_slots - 1)];
        if (!*ahead) *ahead = chunk;
        else free(chunk);
    }
    return body;
}

/* All before it is with libzmq, or given up: no cursor needs it. */
static uint64_t passed_by_all(const zp_journal *j) {
    uint64_t upto = j->end.event;
    for (const zp_journal_cursor *c = j->cursors; c; c = c->link)
        if (c->done < upto) upto = c->done;
    return upto;
}

static void drop_oldest(zp_journal *j) {
    int missed = 0;
    for (zp_journal_cursor *c = j->cursors; c; c = c->link) {
        if (c->next > j->tail) continue; /* its reader has it in hand and will still send it */
        c->next = j->tail + 1;
        if (c->done < c->next) c->done = c->next;
        missed = 1;
    }
    j->dropped_events += (uint64_t)missed;
    zp_body_unref(drop_tail(j));
}

static int grow(zp_journal *j) {
    size_t slots = j->chunk_slots * 2;
    zp_event **chunks = calloc(slots, sizeof *chunks);
    if (!chunks) return -1;
    for (uint64_t n = j->tail / CHUNK; n <= j->end.event / CHUNK; n++) {
        chunks[n & (slots - 1)] = j->chunks[n & (j->chunk_slots - 1)];
        j->chunks[n & (j->chunk_slots - 1)] = NULL;
    }
    for (size_t i = 0; i < j->chunk_slots; i++) free(j->chunks[i]); /* the spare one */
    free(j->chunks);
    j->chunks = chunks;
    j->chunk_slots = slots;
    return 0;
}

/* A place for the event at head; NULL when there is no memory. */
static zp_event *room(zp_journal *j) {
    if (j->end.event / CHUNK - j->tail / CHUNK + 2 >= j->chunk_slots && j->end.event % CHUNK == 0 && grow(j) < 0) return NULL;
    zp_event **slot = &j->chunks[(j->end.event / CHUNK) & (j->chunk_slots - 1)];
    if (!*slot && !(*slot = malloc(CHUNK * sizeof **slot))) return NULL;
    return at(j, j->end.event);
}

/* The next sleeping reader that has something to fetch (before event `end`); unlock_and_wake takes it on. One is enough: it wakes
 * the next (zp_journal_fetch), so that the publishing thread pays for one at most. */
static zp_journal_cursor *sleeper_before(zp_journal *j, uint64_t end) {
    for (zp_journal_cursor *c = j->cursors; c; c = c->link)
        if (c->waiting && c->next < end) {
            c->waiting = 0;
            atomic_fetch_add(&j->waking, 1);
            return c;
        }
    return NULL;
}

static zp_journal_cursor *sleeper(zp_journal *j) { return sleeper_before(j, j->end.event); }

/* The wake is a system call, and who is woken wants the lock first of all: so unlock before. Meanwhile `waking` keeps the
 * reader from being removed. */
static void unlock_and_wake(zp_journal *j, zp_journal_cursor *c) {
    pthread_mutex_unlock(&j->lock);
    if (!c) return;
    c->wake(c->reader);
    atomic_fetch_sub(&j->waking, 1);
}

/* Room for `cost` more bytes: what is only retained goes first, then it is as on_full says. */
static int make_room(zp_journal *j, size_t cost) {
    if (j->bytes + cost <= j->bound) return ZP_OK;
    const uint64_t passed = j->retain ? passed_by_all(j) : 0;
    while (j->bytes + cost > j->bound && j->tail < j->end.event) {
        if (j->tail < passed) zp_body_unref(drop_tail(j));
        else if (j->on_full == ZP_ON_FULL_DROP) drop_oldest(j);
        else return ZP_FULL;
    }
    return ZP_OK;
}

/* There is room for it. ZP_OK or ZP_NO_MEMORY. */
static int add(zp_journal *j, const zp_event *event) {
    zp_event *e = room(j);
    if (!e) return ZP_NO_MEMORY;
    hold(j, event->body);
    *e = *event;
    e->at = j->end;
    j->end = zp_event_end(e);
    return ZP_OK;
}

static size_t cost_of(zp_journal *j, const zp_event *e) { return sizeof *e + cost_of_holding(j, e->body); }

/* ---- a journal in a file: the writer's lock held ---- */

/* A block takes about as long to write as to hash. A sender that sleeps can hash it meanwhile. */
#define WORTH_HASHING 262144u

static zp_journal_cursor *announce(zp_journal *j, const zp_event *e, const zp_plan *plan) {
    if (plan->body_kind != ZP_BLOCK || plan->length < WORTH_HASHING) return NULL;
    zp_body_ref(e->body);
    j->coming = e->body;
    return sleeper_before(j, UINT64_MAX);
}

static void announce_no_more(zp_journal *j) {
    if (j->coming) zp_body_unref(j->coming);
    j->coming = NULL;
}

/* Room for it in the file and in memory. ZP_OK, ZP_FULL or ZP_CLOSED. */
static int prepare(zp_journal *j, const zp_event *e, const zp_plan *plan) {
    zp_journal_cursor *reader = NULL;
    pthread_mutex_lock(&j->lock);
    int result = j->closed ? ZP_CLOSED : make_room(j, cost_of(j, e));
    if (result == ZP_OK) {
        const uint64_t upto = zp_file_must_drop(j->file, plan), passed = passed_by_all(j);
        while (j->tail < upto && j->tail < passed) zp_body_unref(drop_tail(j));
        while (j->tail < upto && j->on_full == ZP_ON_FULL_DROP) drop_oldest(j);
        if (j->tail < upto) result = ZP_FULL;
        else if (upto > j->file->begin.at.event) zp_file_drop(j->file, upto);
        if (result == ZP_OK) reader = announce(j, e, plan);
    }
    unlock_and_wake(j, reader);
    return result;
}

/* It was written, if result is ZP_OK: from now on it counts. */
static int commit(zp_journal *j, const zp_event *e, const zp_plan *plan, int result) {
    zp_journal_cursor *reader = NULL;
    pthread_mutex_lock(&j->lock);
    announce_no_more(j);
    if (result == ZP_OK) result = zp_file_reserve(j->file);
    if (result == ZP_OK) result = add(j, e);
    if (result == ZP_OK) {
        zp_file_commit(j->file, e, plan);
        reader = sleeper(j);
        while (!j->cursors && j->tail < j->end.event) zp_body_unref(drop_tail(j)); /* nobody to keep it in memory for */
    }
    unlock_and_wake(j, reader);
    return result;
}

/* Was it handed over, and written, before the last restart? */
static int is_repetition(zp_journal *j, const zp_event *e) {
    if (!j->recognizer) return 0;
    const int known = zp_recognize(j->recognizer, e);
    if (known == 0) {
        zp_recognizer_free(j->recognizer);
        j->recognizer = NULL;
    } else if (known > 0) {
        atomic_fetch_add(&j->recognized, 1);
    }
    return known;
}

int zp_journal_recognizing(zp_journal *j) {
    pthread_mutex_lock(&j->writer);
    const int still = j->recognizer != NULL;
    pthread_mutex_unlock(&j->writer);
    return still;
}

void zp_journal_stop_recognizing(zp_journal *j) {
    pthread_mutex_lock(&j->writer);
    zp_recognizer_free(j->recognizer);
    j->recognizer = NULL;
    pthread_mutex_unlock(&j->writer);
}

static int write_event(zp_journal *j, const zp_event *e) {
    zp_plan plan;
    int result;
    pthread_mutex_lock(&j->lock);
    const int closed = j->closed || !j->file;
    pthread_mutex_unlock(&j->lock);
    if (closed) return ZP_CLOSED;
    const int known = is_repetition(j, e);
    if (known) return known > 0 ? ZP_OK : known;
    do {
        result = zp_file_plan(j->file, e, &plan);
        if (result == ZP_OK) result = prepare(j, e, &plan);
    } while (result == ZP_OK && plan.body_at < j->file->begin.position); /* the body that it was to refer to had to leave */
    if (result != ZP_OK) return result;
    if ((result = zp_file_write(j->file, e, &plan)) != ZP_OK) j->file_error = errno;
    return commit(j, e, &plan, result);
}

/* ---- for those who publish ---- */

static int append_in_memory(zp_journal *j, const zp_event *e) {
    int result = ZP_OK;
    zp_journal_cursor *reader = NULL;
    pthread_mutex_lock(&j->lock);
    if (j->closed) {
        result = ZP_CLOSED;
    } else if (j->cursors || j->retain) { /* without a reader there is nothing to keep */
        result = make_room(j, cost_of(j, e));
        if (result == ZP_OK) result = add(j, e);
        if (result == ZP_OK) reader = sleeper(j);
    }
    unlock_and_wake(j, reader);
    return result;
}

int zp_journal_append(zp_journal *j, int kind, zp_body *body, uint32_t index, uint64_t mempool_sequence) {
    const zp_event e = {.body = body, .mempool_sequence = mempool_sequence, .time = zp_now(), .index = index, .kind = (uint8_t)kind};
    if (!j->in_file) return append_in_memory(j, &e);
    pthread_mutex_lock(&j->writer);
    const int result = write_event(j, &e);
    pthread_mutex_unlock(&j->writer);
    return result;
}

void zp_journal_wait_room(zp_journal *j, uint64_t timeout_ns) {
    pthread_mutex_lock(&j->lock);
    if (!j->closed && j->tail < j->end.event) sleep_until(j, zp_now() + timeout_ns);
    pthread_mutex_unlock(&j->lock);
}

int zp_journal_wait_done(zp_journal *j, uint64_t upto, uint64_t timeout_ns) {
    const uint64_t deadline = zp_now() + timeout_ns;
    int result = 0;
    pthread_mutex_lock(&j->lock);
    for (;;) {
        int done = 1;
        for (zp_journal_cursor *c = j->cursors; c; c = c->link) done &= c->done >= upto;
        if (done || j->closed) { /* once closed, a cursor that is gone may have given up, and not been done */
            result = j->closed ? ZP_CLOSED : 1;
            break;
        }
        if (!sleep_until(j, deadline)) break;
    }
    pthread_mutex_unlock(&j->lock);
    return result;
}

int zp_journal_is_behind(zp_journal *j) {
    int behind = 0;
    pthread_mutex_lock(&j->lock);
    for (const zp_journal_cursor *c = j->cursors; c; c = c->link) behind |= c->done < j->end.event;
    pthread_mutex_unlock(&j->lock);
    return behind;
}

zp_position zp_journal_end(zp_journal *j) {
    pthread_mutex_lock(&j->lock);
    const zp_position end = j->end;
    pthread_mutex_unlock(&j->lock);
    return end;
}

zp_position zp_journal_begin_locked(const zp_journal *j) { return j->tail < j->end.event ? at(j, j->tail)->at : j->end; }

const zp_event *zp_journal_at_locked(const zp_journal *j, uint64_t event) { return at(j, event); }

void zp_journal_close(zp_journal *j) {
    pthread_mutex_lock(&j->lock);
    j->closed = 1;
    pthread_cond_broadcast(&j->progress);
    pthread_mutex_unlock(&j->lock);
}

void zp_journal_free(zp_journal *j) {
    while (j->tail < j->end.event) zp_body_unref(drop_tail(j));
    for (size_t i = 0; i < j->chunk_slots; i++) free(j->chunks[i]);
    free(j->chunks);
    pthread_cond_destroy(&j->progress);
    pthread_mutex_destroy(&j->lock);
    pthread_mutex_destroy(&j->writer);
    zp_recognizer_free(j->recognizer);
}

void zp_journal_get_stats(zp_journal *j, zp_journal_stats *out) {
    pthread_mutex_lock(&j->lock);
    const uint64_t waiting = passed_by_all(j);
    out->events = j->end.event - waiting;
    out->bytes = j->bytes;
    out->bound = j->bound;
    out->appended = j->end.event - j->began;
    out->dropped_events = j->dropped_events;
    out->oldest_ns = out->events ? zp_now() - at(j, waiting)->time : 0;
    if (j->retain) {
        out->retained_events = j->end.event - j->tail;
        out->retained_bytes = j->bytes;
    } else if (j->file) {
        out->retained_events = j->file->end.at.event - j->file->begin.at.event;
        out->retained_bytes = j->file->end.position - j->file->begin.position;
    } else {
        out->retained_events = j->final_events;
        out->retained_bytes = j->final_bytes;
    }
    out->recognized = j->recognized;
    pthread_mutex_unlock(&j->lock);
}

/* ---- for the senders ---- */

#define TRIM 64

/* Let go of what every cursor has handed over, unless it is retained; takes the lock itself, and not for long. */
static void trim(zp_journal *j) {
    zp_body *bodies[TRIM];
    size_t n;
    do {
        n = 0;
        pthread_mutex_lock(&j->lock);
        const uint64_t upto = j->retain ? 0 : passed_by_all(j);
        while (j->tail < upto && n < TRIM) bodies[n++] = drop_tail(j);
        if (j->waiters) pthread_cond_broadcast(&j->progress);
        pthread_mutex_unlock(&j->lock);
        for (size_t i = 0; i < n; i++) zp_body_unref(bodies[i]);
    } while (n == TRIM);
}

void zp_journal_add_cursor(zp_journal *j, zp_journal_cursor *c, void (*wake)(void *), void *reader) {
    memset(c, 0, sizeof *c);
    c->wake = wake;
    c->reader = reader;
    pthread_mutex_lock(&j->lock);
    c->next = c->done = j->end.event;
    c->link = j->cursors;
    j->cursors = c;
    pthread_mutex_unlock(&j->lock);
}

void zp_journal_remove_cursor(zp_journal *j, zp_journal_cursor *c) {
    pthread_mutex_lock(&j->lock);
    for (zp_journal_cursor **p = &j->cursors; *p; p = &(*p)->link)
        if (*p == c) {
            *p = c->link;
            break;
        }
    zp_journal_cursor *reader = sleeper(j); /* the one that was to be woken next may have counted on this one */
    pthread_cond_broadcast(&j->progress);
    unlock_and_wake(j, reader);
    trim(j);
    while (atomic_load(&j->waking)) sched_yield(); /* some thread may be about to wake the one that was removed */
}

size_t zp_journal_fetch(zp_journal *j, zp_journal_cursor *c, zp_event *out, size_t max, size_t max_bytes, zp_position *from, int sleep) {
    size_t n = 0, bytes = 0;
    pthread_mutex_lock(&j->lock);
    *from = c->next < j->end.event ? at(j, c->next)->at : j->end;
    while (n < max && c->next < j->end.event && (n == 0 || bytes < max_bytes)) {
        out[n] = *at(j, c->next++);
        zp_body_ref(out[n].body);
        bytes += out[n++].body->size;
    }
    c->waiting = n == 0 && sleep;
    unlock_and_wake(j, n ? sleeper(j) : NULL);
    return n;
}

zp_body *zp_journal_coming(zp_journal *j) {
    if (!j->in_file) return NULL;
    pthread_mutex_lock(&j->lock);
    zp_body *body = j->coming;
    if (body) zp_body_ref(body);
    pthread_mutex_unlock(&j->lock);
    return body;
}

void zp_journal_done(zp_journal *j, zp_journal_cursor *c, uint64_t upto) {
    pthread_mutex_lock(&j->lock);
    if (c->done < upto) c->done = upto;
    pthread_mutex_unlock(&j->lock);
    trim(j);
}
