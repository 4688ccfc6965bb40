#include "receiving.h"
#include "clock.h"
#include "sockets.h"
#include <string.h>

#define BURST 1024                  /* messages of one source before the next source's turn */
#define SHORTEST_GRACE_MS 200u      /* for libzmq to try again after a connection ended */
#define REFUSALS 3                  /* failed handshakes in a row that are no chance, as one is with a publisher that just ends */
#define NO_MEMORY_NAP_NS 10000000

/* ---- to the inbox ---- */

/* Out of memory it waits rather than loses: what is not read meanwhile stays with libzmq and the network. */
void zp_receiver_flush(zp_receiver *r) {
    const struct timespec nap = {0, NO_MEMORY_NAP_NS};
    zp_stage *stage = &r->stage;
    size_t done = 0;
    while ((done += zp_inbox_put(&r->inbox, stage->entries + done, stage->count - done)) < stage->count && !atomic_load(&r->stop))
        nanosleep(&nap, NULL);
    for (; done < stage->count; done++) zp_entry_release(&stage->entries[done]);
    stage->count = stage->bytes = 0;
}

void zp_receiver_make_room(zp_receiver *r) {
    if (zp_stage_is_full(&r->stage)) zp_receiver_flush(r);
}

/* ---- connections ---- */

static void say(zp_receiver *r, const zp_source *source, int kind, uint32_t generation, char *text) {
    zp_entry e = {.kind = (uint8_t)kind, .source = source->stream.index, .generation = generation};
    if (kind == ZP_ENTRY_CONNECTED) e.u.text = text;
    zp_receiver_make_room(r);
    zp_stage_add(&r->stage, &e);
}

/* Say what changed since it was last said: while messages are discarded, many changes become one. */
static void tell_connection(zp_receiver *r, zp_source *source) {
    const int is_connected = atomic_load(&source->connected);
    const uint32_t generation = source->stream.generation;
    if (r->overflow) return;
    if (source->said_connected && !(is_connected && source->said_generation == generation)) {
        say(r, source, ZP_ENTRY_DISCONNECTED, source->said_generation, NULL);
        source->said_connected = 0;
    }
    if (is_connected && !source->said_connected) {
        say(r, source, ZP_ENTRY_CONNECTED, generation, strdup(source->remote));
        source->said_connected = 1;
        source->said_generation = generation;
    }
}

void zp_receiver_connected(zp_receiver *r, zp_source *source) {
    if (atomic_load(&source->connected)) return;
    source->refusals = 0;
    source->give_up_at = 0;
    atomic_store(&source->generation, ++source->stream.generation);
    atomic_store(&source->connected, 1);
    tell_connection(r, source);
}

static void disconnected(zp_receiver *r, zp_source *source) {
    atomic_store(&source->connected, 0);
    tell_connection(r, source);
}

static int receive_some(zp_receiver *r, zp_source *source, int most);

int zp_receiver_end_connection(zp_receiver *r, zp_source *source) {
    int n = BURST;
    while (n == BURST && !atomic_load(&r->stop)) n = receive_some(r, source, BURST);
    if (n < 0) return -1;
    disconnected(r, source);
    return 0;
}

/* A connection ended. libzmq (4.3.5, session_base.cpp, engine_error) connects again, and says so at once, unless the other end
 * broke ZMTP's rules: then it never does, though that may have been another server, or a repaired one be back tomorrow. */
void zp_receiver_expect_retry(const zp_receiver *r, zp_source *source) {
    const uint64_t most = r->settings.reconnect_max_ms > r->settings.reconnect_ms ? r->settings.reconnect_max_ms : r->settings.reconnect_ms;
    uint64_t grace = (uint64_t)(r->settings.reconnect_ms > 0 ? r->settings.reconnect_ms : 1) << source->given_up;
    if (grace > most) grace = most;
    if (grace < SHORTEST_GRACE_MS) grace = SHORTEST_GRACE_MS;
    source->give_up_at = zp_now() + grace * 1000000u;
}

/* A connection ended before its hands were shaken, whether libzmq calls that a failed handshake or not (where both ends refuse each
 * other, that depends on who is faster). Said once, until somebody there shakes hands. */
static void refused(zp_receiver *r, zp_source *source) {
    if (source->refusals < REFUSALS && ++source->refusals == REFUSALS && !r->overflow)
        say(r, source, ZP_ENTRY_REFUSED, source->stream.generation, NULL);
}

static int connection_ended(zp_receiver *r, zp_source *source) {
    const int was_connected = atomic_load(&source->connected);
    const uint32_t generation = source->stream.generation;
    if (zp_receiver_end_connection(r, source) < 0) return -1;
    if (!was_connected && source->stream.generation == generation) refused(r, source);
    zp_receiver_expect_retry(r, source);
    return 0;
}

/* 0, or -1 with r->error. */
static int read_monitor(zp_receiver *r, zp_source *source) {
    zp_monitor_event event;
    for (;;) {
        if (zp_monitor_next(source->monitor, &event) < 0) return r->error = errno, -1;
        switch (event.event) {
        case 0: return 0;
        case ZMQ_EVENT_CONNECTED:
            memcpy(source->remote, event.address, sizeof source->remote);
            source->give_up_at = 0;
            break;
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: zp_receiver_connected(r, source); break;
        case ZMQ_EVENT_DISCONNECTED:
            if (connection_ended(r, source) < 0) return -1;
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: zp_receiver_expect_retry(r, source); break; /* the end of the connection follows */
        default: source->give_up_at = 0; /* it tries */
        }
    }
}

/* A message without a connection: its monitor has more to say; a publisher of ZMTP 2.0 or older does not even shake hands. */
static int find_connection(zp_receiver *r, zp_source *source) {
    zp_monitor_event event;
    while (!atomic_load(&source->connected)) {
        if (zp_monitor_next(source->monitor, &event) < 0) return r->error = errno, -1;
        if (event.event == ZMQ_EVENT_CONNECTED) memcpy(source->remote, event.address, sizeof source->remote);
        if (event.event == 0 || event.event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) zp_receiver_connected(r, source);
    }
    return 0;
}

/* ---- messages ---- */

static int must_discard(zp_receiver *r) {
    if (!r->overflow && atomic_load_explicit(&r->inbox.bytes, memory_order_relaxed) + r->stage.bytes >= r->inbox.bound) {
        r->overflow = 1;
        atomic_store(&r->inbox.wants_room, 1);
    }
    return r->overflow;
}

void zp_receiver_tell_discarded(zp_receiver *r) {
    r->overflow = 0;
    atomic_store(&r->inbox.wants_room, 0);
    for (size_t i = 0; i < r->count; i++) {
        zp_source *source = &r->sources[i];
        zp_receiver_make_room(r);
        zp_stream_tell_discarded(&source->stream, source->stream.generation, &r->stage);
        tell_connection(r, source);
        zp_receiver_make_room(r);
        zp_stream_tell_discarded(&source->stream, UINT32_MAX, &r->stage);
    }
}

/* How many it received, at most `most`; -1 with r->error. */
static int receive_some(zp_receiver *r, zp_source *source, int most) {
    zp_entry e;
    int n = 0, frames = 0;
    for (; n < most && (frames = zp_frames_receive(&r->frames, source->socket)) > 0; n++) {
        if (!atomic_load_explicit(&source->connected, memory_order_relaxed) && find_connection(r, source) < 0) return -1;
        zp_notification_read(&r->frames, frames, source->stream.topics, &e);
        zp_receiver_make_room(r);
        zp_stream_accept(&source->stream, &e, must_discard(r), &r->stage);
    }
    if (frames < 0) return r->error = zp_zmq.errno_(), -1;
    if (n) {
        source->heard = 1;
        source->given_up = 0;
        atomic_store_explicit(&source->last_heard, zp_now(), memory_order_relaxed);
    }
    return n;
}

/* 1: there may be more, 0, or -1 with r->error. */
int zp_receiver_serve(zp_receiver *r, zp_source *source) {
    if (!source->socket) return 0;
    if (read_monitor(r, source) < 0) return -1;
    const int n = receive_some(r, source, BURST);
    return n < 0 ? -1 : n == BURST;
}
