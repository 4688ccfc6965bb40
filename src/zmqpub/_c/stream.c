#include "stream.h"
#include <string.h>

/* How far a counter may run ahead and still be taken for a gap; see compare_counters in wire.py, which counts from the message
 * before, not from the one expected. */
#define FURTHEST_GAP 0x7FFFFFFEu

void zp_stream_init(zp_stream *s, uint16_t index, unsigned topics, int latest_only) {
    memset(s, 0, sizeof *s);
    s->index = index;
    s->topics = topics;
    s->latest_only = latest_only;
}

static void forget_last(zp_topic_state *t) {
    if (t->last_body) zp_body_unref(t->last_body);
    t->last_body = NULL;
    t->has_last = 0;
}

void zp_stream_free(zp_stream *s) {
    for (int i = 0; i < ZP_TOPICS; i++) forget_last(&s->topic[i]);
}

void zp_stream_expect(zp_stream *s, int topic, uint32_t counter) {
    s->topic[topic].known = 1;
    s->topic[topic].next = counter;
}

static void count(atomic_uint_least64_t *counter, uint64_t n) {
    /* One thread writes: no need to lock the bus. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static zp_entry about(const zp_stream *s, int kind, int topic) {
    return (zp_entry){.kind = (uint8_t)kind, .topic = (uint8_t)topic, .source = s->index, .generation = s->generation};
}

static zp_entry step(const zp_stream *s, int kind, int topic, uint64_t expected, uint64_t got) {
    zp_entry e = about(s, kind, topic);
    e.u.step.expected = expected;
    e.u.step.got = got;
    return e;
}

/* ---- counters ---- */

/* What comes next no longer follows from what came before. */
static void lose_track(zp_stream *s, int topic) {
    if (topic == ZP_SEQUENCE) s->mempool_known = s->disconnecting = 0;
    if (topic == ZP_RAWBLOCK) s->tip_known = 0;
}

static void tell_gap(zp_stream *s, int topic, uint32_t expected, uint32_t got, zp_stage *stage) {
    if (s->latest_only) return;
    const zp_entry e = step(s, ZP_ENTRY_GAP, topic, expected, got);
    count(&s->counts.gaps, 1);
    zp_stage_add(stage, &e);
}

/* The run before a restart of which nothing could be said yet. */
static void keep_old_run(zp_topic_state *t) {
    t->old_discarded = t->discarded;
    t->old_first = t->first_discarded;
    t->old_next = t->next;
    t->old_generation = t->discarded_generation;
}

/* Counters went back: a new run, in which every topic counts from 0. */
static void restart(zp_stream *s, const zp_entry *e, int discard, zp_stage *stage) {
    const zp_entry told = step(s, ZP_ENTRY_RESTART, e->topic, s->topic[e->topic].next, e->counter);
    count(&s->counts.restarts, 1);
    for (int i = 0; i < ZP_TOPICS; i++) {
        if (!(s->topics & 1u << i)) continue;
        zp_topic_state *t = &s->topic[i];
        if (discard && !s->restart_discarded) keep_old_run(t);
        forget_last(t);
        t->known = 1;
        t->next = 0;
        t->discarded = 0;
        lose_track(s, i);
    }
    if (!discard) {
        zp_stage_add(stage, &told);
    } else if (!s->restart_discarded) {
        s->restart_discarded = 1;
        s->restart = told;
    }
}

static int is_duplicate(const zp_topic_state *t, const zp_entry *e) {
    return t->has_last && e->kind == ZP_ENTRY_MESSAGE && e->counter == t->next - 1 && e->length == t->last_length &&
           zp_notification_same_body(e, t->last, t->last_body);
}

static void remember(zp_topic_state *t, const zp_entry *e) {
    forget_last(t);
    if (e->kind != ZP_ENTRY_MESSAGE) return;
    t->has_last = 1;
    t->last_length = e->length;
    if (e->flags & ZP_HAS_BODY) {
        t->last_body = e->u.body;
        zp_body_ref(t->last_body);
    } else {
        memcpy(t->last, e->u.small, e->length);
    }
}

/* Hold the message's counter against the one expected, and say what that shows. */
static void follow(zp_stream *s, const zp_entry *e, int discard, zp_stage *stage) {
    zp_topic_state *t = &s->topic[e->topic];
    if (t->known && e->counter - t->next > FURTHEST_GAP) restart(s, e, discard, stage);
    if (t->known && e->counter != t->next) {
        lose_track(s, e->topic);
        if (!discard) tell_gap(s, e->topic, t->next, e->counter, stage);
    }
    if (discard && !t->discarded) {
        t->discarded = 1;
        t->first_discarded = t->known ? t->next : e->counter;
        t->discarded_generation = s->generation;
    }
    t->known = 1;
    t->next = e->counter + 1;
}

/* ---- the mempool and the chain ---- */

static void follow_mempool(zp_stream *s, const zp_entry *e, zp_stage *stage) {
    const uint64_t got = zp_load_le(e->u.small + 33, 8);
    if (s->mempool_known && got != s->mempool_next && !s->latest_only) {
        const zp_entry told = step(s, ZP_ENTRY_MEMPOOL_GAP, e->topic, s->mempool_next, got);
        count(&s->counts.mempool_gaps, 1);
        zp_stage_add(stage, &told);
    }
    s->mempool_known = 1;
    s->mempool_next = got + 1;
}

static void tell_reorg(zp_stream *s, int topic, const uint8_t *old_tip, const uint8_t *new_previous, zp_stage *stage) {
    zp_entry e = about(s, ZP_ENTRY_REORG, topic);
    e.flags = new_previous ? ZP_HAS_NEW : 0;
    e.u.hashes = calloc(2, 32);
    if (e.u.hashes) memcpy(e.u.hashes, old_tip, 32);
    if (e.u.hashes && new_previous) memcpy(e.u.hashes + 32, new_previous, 32);
    count(&s->counts.reorgs, 1);
    zp_stage_add(stage, &e);
}

/* A block takes transactions out of the mempool without a message for each: its sequence jumps, and rightly. */
static void follow_labels(zp_stream *s, const zp_entry *e, zp_stage *stage) {
    const uint8_t label = e->u.small[32];
    if (label == 'A' || label == 'R') {
        follow_mempool(s, e, stage);
        return;
    }
    s->mempool_known = 0;
    if (label == 'D' && !s->disconnecting) tell_reorg(s, e->topic, e->u.small, NULL, stage);
    s->disconnecting = label == 'D';
}

static void follow_chain(zp_stream *s, const zp_entry *e, zp_stage *stage) {
    const uint8_t *hash = zp_body_hash(e->u.body);
    uint8_t previous[32];
    for (int i = 0; i < 32; i++) previous[i] = e->u.body->raw[35 - i];
    const int follows = memcmp(previous, s->tip, 32) == 0 || memcmp(hash, s->tip, 32) == 0;
    if (s->tip_known && !follows) tell_reorg(s, e->topic, s->tip, previous, stage);
    s->tip_known = 1;
    memcpy(s->tip, hash, 32);
}

/* ---- in and out ---- */

static void accept_malformed(zp_stream *s, zp_entry *e, int discard, zp_stage *stage) {
    const int counted = e->topic != ZP_NO_TOPIC && e->flags & ZP_HAS_COUNTER;
    count(&s->counts.malformed, 1);
    /* It was sent, and it arrived: its counter counts. The one before once more tells nothing of the publisher. */
    if (counted && !(s->topic[e->topic].known && e->counter == s->topic[e->topic].next - 1)) {
        follow(s, e, discard, stage);
        remember(&s->topic[e->topic], e);
        lose_track(s, e->topic);
    }
    if (discard) zp_entry_release(e);
    else zp_stage_add(stage, e);
}

static void accept_duplicate(zp_stream *s, zp_entry *e, int discard, zp_stage *stage) {
    zp_entry told = about(s, ZP_ENTRY_DUPLICATE, e->topic);
    told.counter = e->counter;
    count(&s->counts.duplicates, 1);
    zp_entry_release(e);
    if (!discard) zp_stage_add(stage, &told);
}

static void accept_message(zp_stream *s, zp_entry *e, int discard, zp_stage *stage) {
    count(&s->counts.messages, 1);
    count(&s->counts.bytes, e->flags & ZP_HAS_BODY ? e->u.body->size : e->length);
    follow(s, e, discard, stage);
    remember(&s->topic[e->topic], e);
    if (discard && !s->latest_only) {
        count(&s->counts.discarded, 1);
        lose_track(s, e->topic);
        zp_entry_release(e);
        return;
    }
    if (e->topic == ZP_SEQUENCE) follow_labels(s, e, stage);
    if (e->topic == ZP_RAWBLOCK) follow_chain(s, e, stage);
    zp_stage_add(stage, e);
}

void zp_stream_accept(zp_stream *s, zp_entry *e, int discard, zp_stage *stage) {
    e->source = s->index;
    e->generation = s->generation;
    if (e->kind != ZP_ENTRY_MESSAGE) accept_malformed(s, e, discard, stage);
    else if (is_duplicate(&s->topic[e->topic], e)) accept_duplicate(s, e, discard, stage);
    else accept_message(s, e, discard, stage);
}

static void tell_overflow(zp_stream *s, int topic, uint32_t first, uint32_t next, uint32_t generation, zp_stage *stage) {
    if (s->latest_only) return;
    zp_entry e = step(s, ZP_ENTRY_GAP, topic, first, next);
    e.flags = ZP_OVERFLOW;
    e.generation = generation;
    count(&s->counts.gaps, 1);
    zp_stage_add(stage, &e);
}

void zp_stream_tell_discarded(zp_stream *s, uint32_t below, zp_stage *stage) {
    for (int i = 0; i < ZP_TOPICS; i++) {
        zp_topic_state *t = &s->topic[i];
        if (!t->old_discarded || t->old_generation >= below) continue;
        tell_overflow(s, i, t->old_first, t->old_next, t->old_generation, stage);
        t->old_discarded = 0;
    }
    if (s->restart_discarded && s->restart.generation >= below) return; /* as is all that came after it */
    if (s->restart_discarded) zp_stage_add(stage, &s->restart);
    s->restart_discarded = 0;
    for (int i = 0; i < ZP_TOPICS; i++) {
        zp_topic_state *t = &s->topic[i];
        if (!t->discarded || t->discarded_generation >= below) continue;
        tell_overflow(s, i, t->first_discarded, t->next, t->discarded_generation, stage);
        t->discarded = 0;
    }
}
