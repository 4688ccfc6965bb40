/* replay_answers.c: the answers of the replay endpoint, made and handed to libzmq. */
#include "clock.h"
#include "replay.h"
#include "replay_range.h"
#include <sched.h>
#include <stdlib.h>
#include <string.h>

#define HEADER 10u                    /* ZPR1, operation | 0x80, status, id */
#define EPOCH 27u                     /* in a HELLO: id, start, whether it is the current one, how many notifiers */
#define NOTIFIER 21u                  /* id, topic, two numbers, length of the address */
#define MOST_EPOCHS 255u

/* What answers under way may hold, of all clients and of one: beyond that, ask again later. Each is at least one large answer. */
#define MOST_UNDER_WAY (64u << 20)
#define SHARE (16u << 20)
#define MESSAGE_COST 256u             /* what libzmq holds of a message beside its frames' bytes */

#define GIVE_WAY_EVERY 32             /* messages */
#define LONGEST_GIVING_WAY 2000000u   /* ns */
#define NO_NAPS 10000000u             /* ns, after one of those */

typedef struct {
    zp_replay *replay;
    const void *identity;
    size_t identity_size;
    int delimiter;
} recipient;

static recipient sender_of(zp_replay *r, zp_replay_letter *letter) {
    return (recipient){r, zp_zmq.msg_data_(&letter->identity), zp_zmq.msg_size_(&letter->identity), letter->delimiter};
}

static void count(atomic_uint_least64_t *counter, uint64_t n) {
    /* Only this thread writes it. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

/* ---- others first ---- */

/* Short naps while a live endpoint has something to send. Not for ever: there may be always something, or one may wait for a
 * subscriber that takes nothing; then not again for a while. And whoever woke meanwhile gets the processor at once, instead of when
 * this thread's time is up (measured, beside four clients that replay: p99 of a live message 1.3 ms without, as idle with it). */
static void give_way(void *context) {
    zp_replay *r = context;
    const struct timespec nap = {0, 100000};
    uint64_t now = zp_now();
    const uint64_t until = now + LONGEST_GIVING_WAY;
    while (now >= r->napped_enough_until && zp_journal_is_behind(r->journal) && !atomic_load(&r->stop)) {
        nanosleep(&nap, NULL);
        if ((now = zp_now()) >= until) r->napped_enough_until = now + NO_NAPS;
    }
    sched_yield();
}

/* ---- frames ---- */

enum { SENT = 0, DROPPED = 1, DEAD = -1 };

static int dead(zp_replay *r, zmq_msg_t *m) {
    r->error = zp_zmq.errno_();
    zp_zmq.msg_close_(m);
    return DEAD;
}

static int no_memory(zp_replay *r) {
    r->error = ENOMEM;
    return DEAD;
}

static int send_frame(zp_replay *r, zmq_msg_t *m, int more) {
    const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    while (zp_zmq.msg_send_(m, r->listener.socket, flags) < 0)
        if (zp_zmq.errno_() != EINTR) return dead(r, m);
    return SENT;
}

/* libzmq learns that a client took an answer from a message of its other thread, which it looks for every millisecond or so;
 * asked for its events it looks at once. */
static void look_for_room(zp_replay *r) {
    int events;
    size_t size = sizeof events;
    zp_zmq.getsockopt_(r->listener.socket, ZMQ_EVENTS, &events, &size);
}

/* What a client has no room for is dropped. With ZMQ_ROUTER_MANDATORY that is known at the first frame; the others cannot fail
 * for it. */
static int send_identity(const recipient *to) {
    zp_replay *r = to->replay;
    zmq_msg_t m;
    int looked = 0;
    if (zp_message_copy(&m, to->identity, to->identity_size) < 0) return no_memory(r);
    while (zp_zmq.msg_send_(&m, r->listener.socket, ZMQ_DONTWAIT | ZMQ_SNDMORE) < 0) {
        const int error = zp_zmq.errno_();
        if (error == EINTR) continue;
        if (error == EAGAIN && !looked++) {
            look_for_room(r);
            continue;
        }
        if (error != EAGAIN && error != EHOSTUNREACH) return dead(r, &m);
        zp_zmq.msg_close_(&m);
        count(&r->counts.dropped, 1);
        return DROPPED;
    }
    return SENT;
}

/* Begin an answer: its envelope. It is counted before it is on its way, so that who has it finds it counted. */
static int begin(const recipient *to) {
    zmq_msg_t m;
    const int result = send_identity(to);
    if (result == SENT) count(&to->replay->counts.answers, 1);
    if (result != SENT || !to->delimiter) return result;
    zp_zmq.msg_init_(&m);
    return send_frame(to->replay, &m, 1);
}

static int send_copy(zp_replay *r, const void *data, size_t size, int more) {
    zmq_msg_t m;
    return zp_message_copy(&m, data, size) < 0 ? no_memory(r) : send_frame(r, &m, more);
}

static uint8_t *put(uint8_t *p, uint64_t value, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) *p++ = (uint8_t)(value >> (8 * i));
    return p;
}

static uint8_t *put_bytes(uint8_t *p, const void *data, size_t size) {
    memcpy(p, data, size);
    return p + size;
}

static uint8_t *put_header(uint8_t *p, unsigned operation, unsigned status, uint32_t id) {
    p = put_bytes(p, "ZPR1", 4);
    *p++ = (uint8_t)(operation | 0x80);
    *p++ = (uint8_t)status;
    return put(p, id, 4);
}

/* An answer of one or two frames. */
static int answer(const recipient *to, const void *header, size_t header_size, const void *body, size_t body_size) {
    zp_replay *r = to->replay;
    int result = begin(to);
    if (result != SENT) return result == DEAD ? DEAD : 0;
    result = send_copy(r, header, header_size, body != NULL);
    return result == SENT && body ? send_copy(r, body, body_size, 0) : result;
}

static int answer_error(const recipient *to, unsigned operation, unsigned status, uint32_t id, const char *text) {
    uint8_t header[HEADER];
    if (status == ZP_REPLAY_BAD_REQUEST || status == ZP_REPLAY_UNSUPPORTED) count(&to->replay->counts.malformed, 1);
    put_header(header, operation, status, id);
    return answer(to, header, HEADER, text, strlen(text));
}

/* ---- HELLO ---- */

static size_t hello_size(const zp_history_epoch *epochs, size_t n) {
    size_t size = HEADER + 1;
    for (size_t i = 0; i < n; i++) {
        size += EPOCH;
        for (size_t k = 0; k < epochs[i].count; k++) size += NOTIFIER + strlen(epochs[i].notifiers[k].address);
    }
    return size;
}

static uint8_t *put_notifier(uint8_t *p, const zp_history_notifier *n) {
    const size_t length = strlen(n->address);
    p = put(p, n->id, 2);
    p = put(p, n->topic, 1);
    p = put(p, n->first, 8);
    p = put(p, n->next, 8);
    p = put(p, length, 2);
    return put_bytes(p, n->address, length);
}

static uint8_t *put_epoch(uint8_t *p, const zp_history_epoch *epoch) {
    p = put_bytes(p, epoch->epoch, ZP_EPOCH_BYTES);
    p = put(p, epoch->started_ms, 8);
    p = put(p, epoch->current != 0, 1);
    p = put(p, epoch->count, 2);
    for (size_t k = 0; k < epoch->count; k++) p = put_notifier(p, &epoch->notifiers[k]);
    return p;
}

static int serve_hello(const recipient *to, uint32_t id) {
    zp_history_epoch *epochs;
    size_t n;
    if (zp_history_describe(to->replay->history, &epochs, &n) != ZP_OK) return no_memory(to->replay);
    const size_t skipped = n > MOST_EPOCHS ? n - MOST_EPOCHS : 0, size = hello_size(epochs + skipped, n - skipped);
    uint8_t *header = malloc(size);
    int result = header ? SENT : no_memory(to->replay);
    if (header) {
        uint8_t *p = put_header(header, ZP_REPLAY_HELLO, ZP_REPLAY_OK, id);
        *p++ = (uint8_t)(n - skipped);
        for (size_t i = skipped; i < n; i++) p = put_epoch(p, &epochs[i]);
        result = answer(to, header, size, NULL, 0);
    }
    free(header);
    zp_history_epochs_free(epochs, n);
    return result;
}

/* ---- RANGE ---- */

static size_t put_range_header(uint8_t *header, const zp_replay_request *request, const zp_range *range) {
    uint8_t *p = put_header(header, ZP_REPLAY_RANGE, ZP_REPLAY_OK, request->id);
    p = put_bytes(p, request->epoch, ZP_EPOCH_BYTES);
    *p++ = (uint8_t)((range->more ? 1 : 0) | (range->gone ? 2 : 0));
    p = put(p, range->spans, 2);
    for (unsigned i = 0; i < range->spans; i++) {
        p = put(p, range->span[i].notifier, 2);
        p = put(p, range->span[i].first, 8);
        p = put(p, range->span[i].next, 8);
        p = put(p, range->span[i].gone, 8);
    }
    return (size_t)(p - header);
}

/* The counter is each message's last frame; that of the last message takes the answer's bytes from its client's account when
 * libzmq is done with it. */
static int make_counter(zmq_msg_t *m, uint32_t counter, zp_client *client, size_t bytes) {
    uint8_t number[4];
    if (!client) return zp_message_counter(m, counter);
    zp_store_le32(number, counter);
    return zp_client_frame(client, m, number, sizeof number, bytes);
}

static int send_message(zp_replay *r, zp_range_message *message, zp_client *client, size_t bytes) {
    zmq_msg_t m;
    int result = zp_message_topic(&m, message->topic) < 0 ? no_memory(r) : send_frame(r, &m, 1);
    if (result == SENT) result = send_frame(r, &message->body, 1);
    if (result != SENT) return result;
    if (make_counter(&m, message->counter, client, bytes) < 0) return no_memory(r);
    return send_frame(r, &m, !client);
}

static int send_messages(zp_replay *r, zp_range *range, zp_client *client) {
    const size_t bytes = range->bytes + range->count * MESSAGE_COST;
    size_t sent = 0;
    for (zp_range_chunk *chunk = range->chunks; chunk; chunk = chunk->next)
        for (size_t i = 0; i < ZP_RANGE_CHUNK && sent < range->count; i++) {
            const int result = send_message(r, &chunk->messages[i], ++sent == range->count ? client : NULL, bytes);
            if (result != SENT) return result;
            if (sent % GIVE_WAY_EVERY == 0) give_way(r);
        }
    return SENT;
}

static int send_range(const recipient *to, const zp_replay_request *request, zp_range *range, zp_client *client) {
    zp_replay *r = to->replay;
    uint8_t header[HEADER + 19 + 26 * ZP_TOPICS];
    const size_t size = put_range_header(header, request, range);
    int result = begin(to);
    if (result != SENT) return result == DEAD ? DEAD : 0;
    count(&r->counts.messages, range->count);
    count(&r->counts.bytes, range->bytes);
    result = send_copy(r, header, size, range->count != 0);
    return result == SENT ? send_messages(r, range, client) : result;
}

/* The client's account, NULL where there is no room for another answer. */
static zp_client *account_of(const recipient *to) {
    zp_clients *clients = &to->replay->clients;
    if (zp_clients_under_way(clients) > MOST_UNDER_WAY) return NULL;
    zp_client *client = zp_clients_get(clients, to->identity, to->identity_size);
    return client && atomic_load(&client->under_way) < SHARE ? client : NULL;
}

static const char too_much[] = "too much is under way; take what was sent and ask again";

static int serve_range(const recipient *to, const zp_replay_request *request) {
    zp_client *client = account_of(to);
    if (!client) return answer_error(to, ZP_REPLAY_RANGE, ZP_REPLAY_BUSY, request->id, too_much);
    const char *problem = "";
    zp_range range;
    const int status = zp_range_make(&range, to->replay->history, request, give_way, to->replay, &problem);
    const int result = status == ZP_REPLAY_OK ? send_range(to, request, &range, client)
                                              : answer_error(to, ZP_REPLAY_RANGE, (unsigned)status, request->id, problem);
    zp_range_free(&range);
    return result;
}

/* ---- SNAPSHOT ---- */

static int refuse_snapshot(const recipient *to, unsigned status, uint32_t id, const char *text) {
    return answer_error(to, ZP_REPLAY_SNAPSHOT, status, id, text);
}

static int serve_snapshot(const recipient *to, uint32_t id) {
    zp_replay *r = to->replay;
    if (r->waiting == ZP_REPLAY_WAITERS || !account_of(to)) return refuse_snapshot(to, ZP_REPLAY_BUSY, id, too_much);
    const uint64_t call = zp_snapshots_ask(&r->snapshots);
    if (!call) return refuse_snapshot(to, ZP_REPLAY_NO_SNAPSHOT, id, "the source of the events offers no snapshot");
    zp_replay_waiter *waiter = &r->waiters[r->waiting++];
    *waiter = (zp_replay_waiter){.identity_size = (uint8_t)to->identity_size, .delimiter = to->delimiter, .id = id, .call = call};
    memcpy(waiter->identity, to->identity, to->identity_size);
    return SENT;
}

static int send_snapshot(const recipient *to, const zp_snapshot *snapshot, uint32_t id) {
    zp_replay *r = to->replay;
    zmq_msg_t body;
    zp_client *client = zp_clients_get(&r->clients, to->identity, to->identity_size);
    if (!client || zp_client_frame(client, &body, snapshot->body, snapshot->body_size, snapshot->body_size + MESSAGE_COST) < 0)
        return refuse_snapshot(to, ZP_REPLAY_BUSY, id, too_much);
    put(snapshot->header + 6, id, 4);
    int result = begin(to);
    if (result == SENT) result = send_copy(r, snapshot->header, snapshot->header_size, 1);
    if (result != SENT) {
        zp_zmq.msg_close_(&body);
        return result == DEAD ? DEAD : 0;
    }
    return send_frame(r, &body, 0);
}

int zp_replay_serve_snapshots(zp_replay *r) {
    zp_snapshot *snapshot;
    uint64_t made;
    int result = SENT;
    if (!zp_snapshots_take(&r->snapshots, &snapshot, &made)) return SENT;
    size_t left = 0;
    for (size_t i = 0; i < r->waiting; i++) {
        const zp_replay_waiter *w = &r->waiters[i];
        const recipient to = {r, w->identity, w->identity_size, w->delimiter};
        if (w->call > made || result != SENT) r->waiters[left++] = *w;
        else if (snapshot) result = send_snapshot(&to, snapshot, w->id);
        else result = refuse_snapshot(&to, ZP_REPLAY_NO_SNAPSHOT, w->id, "the source of the events could not give its snapshot");
    }
    r->waiting = left;
    zp_snapshot_free(snapshot);
    return result;
}

/* ---- requests ---- */

static int serve_good(const recipient *to, const zp_replay_request *request) {
    switch (request->operation) {
    case ZP_REPLAY_HELLO: return serve_hello(to, request->id);
    case ZP_REPLAY_RANGE: return serve_range(to, request);
    default: return serve_snapshot(to, request->id);
    }
}

int zp_replay_serve(zp_replay *r, zp_replay_letter *letter) {
    zp_replay_request request;
    const char *problem = "";
    const recipient to = sender_of(r, letter);
    count(&r->counts.requests, 1);
    int status = zp_replay_parse(zp_zmq.msg_data_(&letter->frame), zp_zmq.msg_size_(&letter->frame), &request, &problem);
    if (status == ZP_REPLAY_OK && letter->extra) {
        status = ZP_REPLAY_BAD_REQUEST;
        problem = "a request is one frame, and an empty one may stand before it";
    }
    if (status == ZP_REPLAY_OK) return serve_good(&to, &request);
    return answer_error(&to, request.operation, (unsigned)status, request.id, problem);
}
