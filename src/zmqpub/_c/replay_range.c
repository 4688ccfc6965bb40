#include "replay_range.h"
#include <stdlib.h>
#include <string.h>

#define PAUSE_EVERY 32   /* messages */
#define IDLE 64          /* events without a wanted message after which the next one is looked up */

/* One notifier that is asked for; at most one of each topic, because the frames say the topic only. */
typedef struct {
    zp_range_span *span;                    /* NULL: nobody asked for the topic */
    const zp_history_notifier *notifier;
    uint64_t end;                           /* the number after the newest, when the request came */
    uint64_t number;                        /* of the first message that the event in hand makes for it */
    int present;                            /* does it make any? Else number means nothing */
} track;

typedef struct {
    zp_history *history;
    const zp_replay_request *request;
    zp_range *out;
    track tracks[ZP_TOPICS];
    const zp_history_notifier *until;       /* NULL: to the end */
    uint64_t last_event;                    /* the one that makes message `until` */
    zp_range_pause *pause;
    void *pause_context;
} making;

/* What looking at an event came to. */
enum { NEXT, REACHED, FULL, FAILED };

/* ---- who is asked for ---- */

static const zp_history_epoch *find_epoch(const zp_history_epoch *epochs, size_t count, const uint8_t *id) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(epochs[i].epoch, id, ZP_EPOCH_BYTES) == 0) return &epochs[i];
    return NULL;
}

static const zp_history_notifier *find_notifier(const zp_history_epoch *epoch, uint16_t id) {
    for (size_t i = 0; i < epoch->count; i++)
        if (epoch->notifiers[i].id == id) return &epoch->notifiers[i];
    return NULL;
}

static int refuse(const char **problem, int status, const char *text) {
    *problem = text;
    return status;
}

/* Everything before the first that is held is gone. */
static void begin_span(track *t, const zp_replay_from *start) {
    const uint64_t first = start->first < t->notifier->first ? t->notifier->first : start->first;
    *t->span = (zp_range_span){.notifier = start->notifier, .first = first, .next = first, .gone = first - start->first};
    t->end = t->notifier->next;
}

static int find_tracks(making *m, const zp_history_epoch *epoch, const char **problem) {
    const zp_replay_request *r = m->request;
    for (unsigned i = 0; i < r->count; i++) {
        const zp_history_notifier *n = find_notifier(epoch, r->starts[i].notifier);
        if (!n) return refuse(problem, ZP_REPLAY_UNKNOWN_NOTIFIER, "the epoch has no such notifier, or holds nothing of it any more");
        track *t = &m->tracks[n->topic];
        if (t->span) return refuse(problem, ZP_REPLAY_BAD_REQUEST, "two notifiers of one topic: their frames could not be told apart");
        t->notifier = n;
        t->span = &m->out->span[m->out->spans++];
        begin_span(t, &r->starts[i]);
    }
    if (r->until_notifier == ZP_REPLAY_NO_NOTIFIER) return ZP_REPLAY_OK;
    m->until = find_notifier(epoch, r->until_notifier);
    if (!m->until) return refuse(problem, ZP_REPLAY_UNKNOWN_NOTIFIER, "the epoch has no such notifier to end at");
    return ZP_REPLAY_OK;
}

/* The message to end at left the journal, and so did all before it. How many of the other notifiers' came before it is not known
 * any more: their numbers stay as asked. */
static void give_up(making *m) {
    for (int topic = 0; topic < ZP_TOPICS; topic++) {
        track *t = &m->tracks[topic];
        if (!t->span) continue;
        const uint64_t asked = t->span->first - t->span->gone, until = m->request->until;
        const uint64_t gone = t->notifier == m->until && until > asked ? until - asked : 0;
        t->span->gone = gone;
        t->span->first = t->span->next = t->end = asked + gone;
    }
    m->out->gone = 1;
}

static int find_end(making *m, const char **problem) {
    m->last_event = UINT64_MAX;
    if (!m->until) return ZP_REPLAY_OK;
    uint64_t event;
    switch (zp_history_locate(m->history, m->request->epoch, m->until->id, m->request->until, &event)) {
    case ZP_OK: m->last_event = event; return ZP_REPLAY_OK;
    case ZP_END: return ZP_REPLAY_OK;
    case ZP_GONE: give_up(m); return ZP_REPLAY_OK;
    default: return refuse(problem, ZP_REPLAY_UNKNOWN_NOTIFIER, "what was asked for has left the journal");
    }
}

/* ---- messages ---- */

static zp_range_message *new_message(zp_range *out) {
    const size_t place = out->count % ZP_RANGE_CHUNK;
    if (place == 0) {
        zp_range_chunk *chunk = malloc(sizeof *chunk);
        if (!chunk) return NULL;
        chunk->next = NULL;
        if (out->last) out->last->next = chunk;
        else out->chunks = chunk;
        out->last = chunk;
    }
    return &out->last->messages[place];
}

static int has_room(const making *m, uint64_t size) {
    const zp_range *out = m->out;
    return out->count == 0 || (out->count < m->request->max_messages && out->bytes + size <= m->request->max_bytes);
}

static int add(making *m, const zp_event *e, zp_message which, track *t) {
    size_t topic_size;
    zp_topic_text(which.topic, &topic_size);
    const uint64_t size = topic_size + zp_message_body_size(e, which.topic, which.index) + 4;
    if (!has_room(m, size)) return FULL;
    zp_range_message *message = new_message(m->out);
    if (!message || zp_message_body(&message->body, e, which.topic, which.index) < 0) return FAILED;
    message->topic = (uint8_t)which.topic;
    message->counter = (uint32_t)t->span->next++;
    m->out->bytes += size;
    if (++m->out->count % PAUSE_EVERY == 0) m->pause(m->pause_context);
    return NEXT;
}

/* ---- one event ---- */

/* Numbers may be missing where a record of the journal's file was damaged, or left while this was at work. At a notifier's front
 * they are said to be gone; further on the answer ends before them, so that they are at the front of the next. */
static int bridge(making *m, track *t, uint64_t to) {
    if (t->span->next >= to || t->span->next >= t->end) return NEXT;
    if (t->span->next != t->span->first) return FULL;
    if (to > t->end) to = t->end;
    t->span->gone += to - t->span->first;
    t->span->first = t->span->next = to;
    m->out->gone = 1;
    return NEXT;
}

static int look_at(making *m, const zp_event *e, uint64_t event, const uint64_t before[ZP_TOPICS]) {
    for (int topic = 0; topic < ZP_TOPICS; topic++) {
        track *t = &m->tracks[topic];
        int r = NEXT;
        t->present = 0;
        if (!t->span) continue;
        if (event >= t->notifier->until) {
            r = bridge(m, t, t->end);
        } else if (zp_history_number(t->notifier, event, before, &t->number)) {
            r = bridge(m, t, t->number);
            t->present = zp_event_messages(e, topic) != 0;
        }
        if (r == FULL) return FULL;
    }
    return NEXT;
}

/* At the message to end at, all that comes before it has to be in the answer. */
static int arrive(making *m, const uint32_t passed[ZP_TOPICS]) {
    for (int topic = 0; topic < ZP_TOPICS; topic++) {
        track *t = &m->tracks[topic];
        if (t->present && bridge(m, t, t->number + passed[topic]) == FULL) return FULL;
    }
    return REACHED;
}

static int take(making *m, const zp_event *e, uint64_t event, const uint64_t before[ZP_TOPICS]) {
    uint32_t passed[ZP_TOPICS] = {0};
    uint64_t until_number = 0;
    const int ends_here = event == m->last_event && zp_history_number(m->until, event, before, &until_number);
    if (look_at(m, e, event, before) == FULL) return FULL;
    const uint32_t size = zp_event_size(e);
    for (uint32_t place = 0; place < size; place++) {
        const zp_message which = zp_event_message(e, place);
        track *t = &m->tracks[which.topic];
        if (ends_here && which.topic == m->until->topic && until_number + which.index == m->request->until) return arrive(m, passed);
        passed[which.topic]++;
        if (!t->present || t->number + which.index != t->span->next || t->span->next >= t->end) continue;
        const int result = add(m, e, which, t);
        if (result != NEXT) return result;
    }
    return NEXT;
}

/* ---- from event to event ---- */

static int is_complete(const making *m) {
    for (int topic = 0; topic < ZP_TOPICS; topic++)
        if (m->tracks[topic].span && m->tracks[topic].span->next < m->tracks[topic].end) return 0;
    return 1;
}

/* The first event that makes something that is still wanted; UINT64_MAX where there is none. */
static uint64_t next_wanted(const making *m) {
    uint64_t first = UINT64_MAX, event;
    for (int topic = 0; topic < ZP_TOPICS; topic++) {
        const track *t = &m->tracks[topic];
        if (!t->span || t->span->next >= t->end) continue;
        const int r = zp_history_locate(m->history, m->request->epoch, t->notifier->id, t->span->next, &event);
        if ((r == ZP_OK || r == ZP_GONE) && event < first) first = event;
    }
    return first;
}

/* Past events that make nothing that is wanted, but not past the one to end at. */
static uint64_t jump(const making *m, uint64_t event) {
    const uint64_t wanted = next_wanted(m);
    if (wanted == UINT64_MAX || wanted <= event) return event;
    return wanted < m->last_event ? wanted : m->last_event;
}

/* Where there is no end to be reached, all that was there when the request came has to be in the answer. The end may not have been
 * reached because its very event is damaged: then only of its own notifier it is known what should have come before. */
static int finish(making *m) {
    for (int topic = 0; topic < ZP_TOPICS; topic++) {
        track *t = &m->tracks[topic];
        const int ends_there = m->last_event != UINT64_MAX;
        if (!t->span || (ends_there && t->notifier != m->until)) continue;
        if (bridge(m, t, ends_there ? m->request->until : t->end) == FULL) return FULL;
    }
    return REACHED;
}

/* REACHED, FULL or FAILED. */
static int walk(making *m) {
    uint64_t event = next_wanted(m), before[ZP_TOPICS];
    unsigned idle = 0;
    while (event <= m->last_event && event != UINT64_MAX && !is_complete(m)) {
        zp_event e;
        const size_t count = m->out->count;
        int r = zp_history_get(m->history, event, &e, before);
        if (r == ZP_NO_MEMORY) return FAILED;
        if (r == ZP_OK) {
            r = take(m, &e, event, before);
            zp_body_unref(e.body);
            if (r != NEXT) return r;
        } else if (r == ZP_END) {
            break;
        } else if (count) { /* gone or damaged: at the front of the next answer it will be said */
            return FULL;
        } else {
            idle = IDLE;
        }
        idle = m->out->count == count ? idle + 1 : 0;
        if (++event > m->last_event || idle < IDLE) continue;
        event = jump(m, event);
        idle = 0;
    }
    return finish(m);
}

static int make(making *m, const char **problem) {
    int status = find_end(m, problem);
    if (status != ZP_REPLAY_OK) return status;
    const int r = walk(m);
    if (r == FAILED) return refuse(problem, ZP_REPLAY_BUSY, "no memory for an answer; ask again later");
    m->out->more = r == FULL;
    for (unsigned i = 0; i < m->out->spans; i++) m->out->gone |= m->out->span[i].gone != 0;
    return ZP_REPLAY_OK;
}

int zp_range_make(zp_range *out, zp_history *h, const zp_replay_request *request, zp_range_pause *pause, void *context,
                  const char **problem) {
    making m = {.history = h, .request = request, .out = out, .pause = pause, .pause_context = context};
    zp_history_epoch *epochs;
    size_t count;
    memset(out, 0, sizeof *out);
    if (zp_history_describe(h, &epochs, &count) != ZP_OK) return refuse(problem, ZP_REPLAY_BUSY, "no memory for an answer; ask again later");
    const zp_history_epoch *epoch = find_epoch(epochs, count, request->epoch);
    int status = epoch ? find_tracks(&m, epoch, problem) : refuse(problem, ZP_REPLAY_UNKNOWN_EPOCH, "nothing of this epoch is held");
    if (status == ZP_REPLAY_OK) status = make(&m, problem);
    zp_history_epochs_free(epochs, count);
    return status;
}

void zp_range_free(zp_range *range) {
    size_t left = range->count;
    for (zp_range_chunk *chunk = range->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        for (size_t i = 0; i < ZP_RANGE_CHUNK && left; i++, left--) zp_zmq.msg_close_(&chunk->messages[i].body);
        free(chunk);
    }
    range->chunks = range->last = NULL;
    range->count = 0;
}
