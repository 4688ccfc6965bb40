#include "channel.h"
#include "listener.h"
#include <string.h>

#define RANGE_ANSWERED 0x82         /* the operation of a header frame: see docs/replay.md */
#define LARGEST_FRAME (64ll << 20)  /* bytes: a snapshot of two million txids */
#define MOST_MESSAGES 65536         /* in an answer: what the protocol allows */
#define QUEUED 4                    /* answers that libzmq holds for us */

zp_channel *zp_channel_new(void *context, const char *endpoint, int ipv6) {
    zp_channel *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->context = context;
    c->ipv6 = ipv6;
    c->endpoint = strdup(endpoint);
    pthread_mutex_init(&c->lock, NULL);
    if (c->endpoint) return c;
    zp_channel_free(c);
    return NULL;
}

/* ---- the socket, under the lock ---- */

static void drop(zp_channel *c) {
    if (c->socket) zp_zmq.close_(c->socket);
    c->socket = NULL;
}

/* 0, or libzmq's errno. */
static int connect_socket(zp_channel *c) {
    const int64_t largest = LARGEST_FRAME;
    if (c->socket) return 0;
    if (atomic_load(&c->closed)) return ENOTSOCK;
    if ((c->socket = zp_zmq.socket_(c->context, ZMQ_DEALER)) && zp_set_int(c->socket, ZMQ_LINGER, 0) == 0 &&
        zp_set_int(c->socket, ZMQ_IPV6, c->ipv6) == 0 && zp_set_int(c->socket, ZMQ_RCVHWM, QUEUED) == 0 &&
        zp_set_int(c->socket, ZMQ_TCP_KEEPALIVE, 1) == 0 &&
        zp_zmq.setsockopt_(c->socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest) == 0 && zp_zmq.connect_(c->socket, c->endpoint) == 0)
        return 0;
    const int error = zp_zmq.errno_();
    drop(c);
    return error;
}

static int send_request(zp_channel *c, const void *request, size_t size) {
    zmq_msg_t message;
    const int error = connect_socket(c);
    if (error) return error;
    if (zp_zmq.msg_init_size_(&message, size) < 0) return ENOMEM;
    memcpy(zp_zmq.msg_data_(&message), request, size);
    if (zp_zmq.msg_send_(&message, c->socket, ZMQ_DONTWAIT) >= 0) return 0;
    const int failed = zp_zmq.errno_();
    zp_zmq.msg_close_(&message);
    return failed;
}

int zp_channel_send(zp_channel *c, const void *request, size_t size) {
    pthread_mutex_lock(&c->lock);
    const int error = send_request(c, request, size);
    pthread_mutex_unlock(&c->lock);
    return error;
}

void zp_channel_reset(zp_channel *c) {
    pthread_mutex_lock(&c->lock);
    drop(c);
    pthread_mutex_unlock(&c->lock);
}

void zp_channel_close(zp_channel *c) {
    atomic_store(&c->closed, 1); /* whoever waits for an answer looks at it between two short waits */
    zp_channel_reset(c);
}

void zp_channel_free(zp_channel *c) {
    drop(c);
    pthread_mutex_destroy(&c->lock);
    free(c->endpoint);
    free(c);
}

/* ---- answers ---- */

static void drop_chunks(zp_answer *a) {
    for (zp_chunk *chunk = a->chunks, *next; chunk; chunk = next) {
        next = chunk->link;
        zp_chunk_free(chunk);
    }
    a->chunks = a->last = NULL;
    a->messages = 0;
}

void zp_answer_release(zp_answer *a) {
    zp_zmq.msg_close_(&a->header);
    for (int i = 0; i < a->frame_count; i++) zp_zmq.msg_close_(&a->frames[i]);
    drop_chunks(a);
    free(a->malformed);
    memset(a, 0, sizeof *a);
    zp_zmq.msg_init_(&a->header);
}

static void refuse(zp_answer *a, char *reason) {
    if (a->malformed) free(reason);
    else a->malformed = reason ? reason : strdup("no memory for it");
}

static zp_entry *next_entry(zp_answer *a) {
    if (!a->last || a->last->count == ZP_CHUNK_ENTRIES) {
        zp_chunk *chunk = zp_chunk_new();
        if (!chunk) return NULL;
        if (a->last) a->last->link = chunk;
        else a->chunks = chunk;
        a->last = chunk;
    }
    return &a->last->entries[a->last->count];
}

static void note_span(zp_span *span, uint32_t counter) {
    if (!span->any) *span = (zp_span){1, 1, counter, counter};
    if (counter != span->next) span->contiguous = 0;
    span->next = counter + 1;
}

static void add_message(zp_answer *a, zp_frames *f, uint16_t source, unsigned topics) {
    zp_entry *e = a->messages < MOST_MESSAGES ? next_entry(a) : NULL;
    if (!e) {
        refuse(a, strdup(a->messages < MOST_MESSAGES ? "no memory for it" : "more messages than an answer may have"));
        return;
    }
    zp_notification_read(f, ZP_FRAMES, topics, e);
    if (e->kind != ZP_ENTRY_MESSAGE) {
        refuse(a, e->u.malformed.reason);
        return;
    }
    e->source = source;
    e->generation = 0;
    a->last->bytes += zp_entry_bytes(e);
    a->last->count++;
    a->messages++;
    note_span(&a->spans[e->topic], e->counter);
}

/* One frame, which is there: a message of several frames comes as a whole. 0, or libzmq's errno. */
static int receive_frame(zp_channel *c, zmq_msg_t *frame) {
    while (zp_zmq.msg_recv_(frame, c->socket, ZMQ_DONTWAIT) < 0)
        if (zp_zmq.errno_() != EINTR) return zp_zmq.errno_();
    return 0;
}

static int receive_messages(zp_channel *c, uint16_t source, unsigned topics, zp_answer *a) {
    zp_frames f;
    int error = 0, at = 0, more = zp_zmq.msg_more_(&a->header);
    zp_frames_init(&f);
    for (; more && !(error = receive_frame(c, &f.frame[at])); more = zp_zmq.msg_more_(&f.frame[at]), at = (at + 1) % ZP_FRAMES)
        if (at == ZP_FRAMES - 1 && !a->malformed) add_message(a, &f, source, topics);
    if (!error && at) refuse(a, strdup("its frames are no triples of topic, body and counter"));
    zp_frames_close(&f);
    return error;
}

static int receive_frames(zp_channel *c, zp_answer *a) {
    zmq_msg_t frame;
    int error = 0, more = zp_zmq.msg_more_(&a->header);
    zp_zmq.msg_init_(&frame);
    while (more && !(error = receive_frame(c, &frame))) {
        more = zp_zmq.msg_more_(&frame);
        if (a->frame_count == ZP_ANSWER_FRAMES) continue;
        zp_zmq.msg_init_(&a->frames[a->frame_count]);
        zp_zmq.msg_move_(&a->frames[a->frame_count++], &frame);
    }
    zp_zmq.msg_close_(&frame);
    return error;
}

static int receive_answer(zp_channel *c, uint16_t source, unsigned topics, zp_answer *a) {
    int error = receive_frame(c, &a->header);
    if (error) return error;
    const uint8_t *header = zp_zmq.msg_data_(&a->header);
    a->has_messages = zp_zmq.msg_size_(&a->header) >= 6 && header[4] == RANGE_ANSWERED && header[5] == 0;
    error = a->has_messages ? receive_messages(c, source, topics, a) : receive_frames(c, a);
    if (a->malformed) drop_chunks(a);
    return error;
}

/* ENOTSOCK: not connected, as nothing was sent since it was made or reset. */
static int wait_and_receive(zp_channel *c, long timeout_ms, uint16_t source, unsigned topics, zp_answer *out) {
    if (!c->socket) return ENOTSOCK;
    zmq_pollitem_t item = {c->socket, 0, ZMQ_POLLIN, 0};
    const int n = zp_zmq.poll_(&item, 1, timeout_ms);
    if (n < 0) return zp_zmq.errno_() == EINTR ? EAGAIN : zp_zmq.errno_();
    return n ? receive_answer(c, source, topics, out) : EAGAIN;
}

int zp_channel_receive(zp_channel *c, uint64_t timeout_ns, uint16_t source, unsigned topics, zp_answer *out) {
    memset(out, 0, sizeof *out);
    zp_zmq.msg_init_(&out->header);
    pthread_mutex_lock(&c->lock);
    const int error = wait_and_receive(c, (long)((timeout_ns + 999999) / 1000000), source, topics, out);
    pthread_mutex_unlock(&c->lock);
    if (!error) return 1;
    zp_answer_release(out);
    return error == EAGAIN ? 0 : -error;
}
