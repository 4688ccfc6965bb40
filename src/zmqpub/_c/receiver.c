#include "receiver.h"
#include "clock.h"
#include "sockets.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define BURST 1024                  /* messages of one source before the next source's turn */
#define LONGEST_TICK_NS 250000000u  /* between two looks at how long it has been silent */
#define SHORTEST_TICK_NS 1000000u
#define MOST_PATIENCE 16            /* an address that stays silent is tried anew ever less often: up to so many times stale_after */
#define SHORTEST_GRACE_MS 200u      /* for libzmq to try again after a connection ended */
#define MOST_GIVEN_UP 16
#define REFUSALS 3                  /* failed handshakes in a row that are no chance, as one is with a publisher that just ends */
#define NO_MEMORY_NAP_NS 10000000

/* ---- the beginning and the end ---- */

zp_receiver *zp_receiver_new(void *context, const zp_receiver_settings *settings, size_t sources, int *error) {
    zp_receiver *r = calloc(1, sizeof *r);
    if (!r) return *error = ENOMEM, NULL;
    r->settings = *settings;
    r->context = context;
    r->sources = calloc(sources ? sources : 1, sizeof *r->sources);
    r->items = calloc(1 + 2 * sources, sizeof *r->items);
    if (!r->sources || !r->items || zp_wakeup_open(&r->wakeup) < 0) {
        *error = r->sources && r->items ? errno : ENOMEM;
    } else if (zp_inbox_init(&r->inbox, settings->byte_bound, settings->latest_only ? sources : 0, &r->wakeup) < 0) {
        *error = errno;
        zp_wakeup_close(&r->wakeup);
    } else {
        zp_frames_init(&r->frames);
        return r;
    }
    free(r->sources);
    free(r->items);
    free(r);
    return NULL;
}

void zp_receiver_expect(zp_receiver *r, size_t i, int topic, uint32_t counter) {
    zp_stream_expect(&r->sources[i].stream, topic, counter);
}

static void close_sockets(zp_receiver *r) {
    for (size_t i = 0; i < r->count; i++) zp_source_close(&r->sources[i]);
}

void zp_receiver_free(zp_receiver *r) {
    close_sockets(r);
    for (size_t i = 0; i < r->stage.count; i++) zp_entry_release(&r->stage.entries[i]);
    for (size_t i = 0; i < r->count; i++) {
        zp_stream_free(&r->sources[i].stream);
        free(r->sources[i].endpoint);
    }
    zp_frames_close(&r->frames);
    zp_inbox_free(&r->inbox);
    zp_wakeup_close(&r->wakeup);
    free(r->sources);
    free(r->items);
    free(r);
}

/* ---- to the inbox ---- */

/* Out of memory it waits rather than loses: what is not read meanwhile stays with libzmq and the network. */
static void flush(zp_receiver *r) {
    const struct timespec nap = {0, NO_MEMORY_NAP_NS};
    zp_stage *stage = &r->stage;
    size_t done = 0;
    while ((done += zp_inbox_put(&r->inbox, stage->entries + done, stage->count - done)) < stage->count && !atomic_load(&r->stop))
        nanosleep(&nap, NULL);
    for (; done < stage->count; done++) zp_entry_release(&stage->entries[done]);
    stage->count = stage->bytes = 0;
}

static void make_room(zp_receiver *r) {
    if (zp_stage_is_full(&r->stage)) flush(r);
}

/* ---- connections ---- */

static void say(zp_receiver *r, const zp_source *source, int kind, uint32_t generation, char *text) {
    zp_entry e = {.kind = (uint8_t)kind, .source = source->stream.index, .generation = generation};
    if (kind == ZP_ENTRY_CONNECTED) e.u.text = text;
    make_room(r);
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

static void connected(zp_receiver *r, zp_source *source) {
    if (atomic_load(&source->connected)) return;
    source->refusals = 0;
    atomic_store(&source->generation, ++source->stream.generation);
    atomic_store(&source->connected, 1);
    tell_connection(r, source);
}

static void disconnected(zp_receiver *r, zp_source *source) {
    atomic_store(&source->connected, 0);
    tell_connection(r, source);
}

static int is_dead(int error) { return error == ETERM || error == ENOTSOCK; }

static int receive_some(zp_receiver *r, zp_source *source, int most);

/* Everything that the ended connection brought is taken in as its own: a message is never said to be of a newer connection than
 * it is. */
static int drain_and_disconnect(zp_receiver *r, zp_source *source) {
    int n = BURST;
    while (n == BURST && !atomic_load(&r->stop)) n = receive_some(r, source, BURST);
    if (n < 0) return -1;
    disconnected(r, source);
    return 0;
}

/* A connection ended. libzmq (4.3.5, session_base.cpp, engine_error) connects again, and says so at once, unless the other end
 * broke ZMTP's rules: then it never does, though that may have been another server, or a repaired one be back tomorrow. */
static void expect_retry(const zp_receiver *r, zp_source *source) {
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

static int end_connection(zp_receiver *r, zp_source *source) {
    const int was_connected = atomic_load(&source->connected);
    const uint32_t generation = source->stream.generation;
    if (drain_and_disconnect(r, source) < 0) return -1;
    if (!was_connected && source->stream.generation == generation) refused(r, source);
    expect_retry(r, source);
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
        case ZMQ_EVENT_HANDSHAKE_SUCCEEDED: connected(r, source); break;
        case ZMQ_EVENT_DISCONNECTED:
            if (end_connection(r, source) < 0) return -1;
            break;
        case ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL:
        case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH: expect_retry(r, source); break; /* the end of the connection follows */
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
        if (event.event == 0 || event.event == ZMQ_EVENT_HANDSHAKE_SUCCEEDED) connected(r, source);
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

static void tell_discarded(zp_receiver *r) {
    r->overflow = 0;
    atomic_store(&r->inbox.wants_room, 0);
    for (size_t i = 0; i < r->count; i++) {
        zp_source *source = &r->sources[i];
        make_room(r);
        zp_stream_tell_discarded(&source->stream, source->stream.generation, &r->stage);
        tell_connection(r, source);
        make_room(r);
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
        make_room(r);
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
static int serve(zp_receiver *r, zp_source *source) {
    if (!source->socket) return 0;
    if (read_monitor(r, source) < 0) return -1;
    const int n = receive_some(r, source, BURST);
    return n < 0 ? -1 : n == BURST;
}

/* ---- silence ---- */

static uint64_t tick_ns(const zp_receiver *r) {
    const uint64_t quarter = r->settings.stale_ns / 4;
    return quarter > LONGEST_TICK_NS ? LONGEST_TICK_NS : quarter < SHORTEST_TICK_NS ? SHORTEST_TICK_NS : quarter;
}

/* A fresh socket looks the name up anew, and has no connection that is dead without knowing. */
static int make_anew(zp_receiver *r, zp_source *source) {
    zp_source_close(source);
    source->give_up_at = 0;
    const int error = zp_source_open(source, &r->settings, r->context);
    if (is_dead(error)) return r->error = error, -1;
    if (error) expect_retry(r, source); /* out of descriptors or memory: later */
    if (!error && source->is_inproc) connected(r, source);
    return 0;
}

static int give_up(zp_receiver *r, zp_source *source) {
    if (source->given_up < MOST_GIVEN_UP) source->given_up++;
    return make_anew(r, source);
}

static int renew(zp_receiver *r, zp_source *source) {
    if (source->socket && drain_and_disconnect(r, source) < 0) return -1;
    zp_entry e = {.kind = ZP_ENTRY_STALE, .source = source->stream.index, .generation = source->stream.generation};
    e.u.silence_ns = source->silence_ns;
    atomic_fetch_add(&source->stream.counts.stale, 1);
    make_room(r);
    zp_stage_add(&r->stage, &e);
    const uint64_t most = r->settings.stale_ns * MOST_PATIENCE;
    source->patience_ns = source->patience_ns < most / 2 ? source->patience_ns * 2 : most;
    source->waited_ns = 0;
    return make_anew(r, source);
}

static int count_silence(zp_receiver *r, zp_source *source, uint64_t elapsed) {
    if (source->heard) {
        source->heard = 0;
        source->silence_ns = source->waited_ns = 0;
        source->patience_ns = r->settings.stale_ns;
        return 0;
    }
    source->silence_ns += elapsed;
    source->waited_ns += elapsed;
    return source->waited_ns < source->patience_ns ? 0 : renew(r, source);
}

/* Counted is no more than what was waited for on purpose: not that the process was stopped, or the machine asleep. */
static int tick(zp_receiver *r) {
    const uint64_t now = zp_now(), longest = 2 * tick_ns(r);
    uint64_t elapsed = now - r->last_tick;
    r->last_tick = now;
    if (elapsed > longest) elapsed = longest;
    for (size_t i = 0; i < r->count; i++) {
        zp_source *source = &r->sources[i];
        if (source->give_up_at && now >= source->give_up_at && give_up(r, source) < 0) return -1;
        if (r->settings.stale_ns != UINT64_MAX && count_silence(r, source, elapsed) < 0) return -1;
    }
    return 0;
}

/* ---- the thread ---- */

/* Until it is time to look at the silence, or to give up; -1: for ever. */
static long patience_ms(const zp_receiver *r) {
    int watching = r->settings.stale_ns != UINT64_MAX;
    for (size_t i = 0; i < r->count; i++) watching |= r->sources[i].give_up_at != 0;
    return watching ? (long)(tick_ns(r) / 1000000) : -1;
}

/* Sleep until there is something on any socket, a word from another thread, or time to look at the silence. */
static int rest(zp_receiver *r) {
    int n = 0;
    r->items[n++] = (zmq_pollitem_t){NULL, r->wakeup.read_fd, ZMQ_POLLIN, 0};
    for (size_t i = 0; i < r->count; i++) {
        if (!r->sources[i].socket) continue;
        r->items[n++] = (zmq_pollitem_t){r->sources[i].socket, 0, ZMQ_POLLIN, 0};
        r->items[n++] = (zmq_pollitem_t){r->sources[i].monitor, 0, ZMQ_POLLIN, 0};
    }
    if (zp_zmq.poll_(r->items, n, patience_ms(r)) < 0 && zp_zmq.errno_() != EINTR) return r->error = zp_zmq.errno_(), -1;
    if (r->items[0].revents) zp_wakeup_clear(&r->wakeup);
    return 0;
}

/* 0 when asked to end, -1 with r->error. */
static int receive(zp_receiver *r) {
    while (!atomic_load(&r->stop)) {
        int more = 0;
        if (r->overflow && zp_inbox_has_room(&r->inbox)) tell_discarded(r);
        for (size_t i = 0; i < r->count; i++) {
            const int had = serve(r, &r->sources[i]);
            if (had < 0) return -1;
            more |= had;
        }
        if (tick(r) < 0) return -1;
        flush(r);
        if (!more && rest(r) < 0) return -1;
    }
    return 0;
}

static void *run(void *argument) {
    zp_receiver *r = argument;
    for (size_t i = 0; i < r->count; i++)
        if (r->sources[i].is_inproc) connected(r, &r->sources[i]);
    const int failed = receive(r) < 0;
    flush(r);
    close_sockets(r); /* first: whoever terminates the context waits for it */
    atomic_store(&r->state, !failed ? ZP_RECEIVER_STOPPED : is_dead(r->error) ? ZP_RECEIVER_TERMINATED : ZP_RECEIVER_FAILED);
    zp_inbox_end(&r->inbox);
    return NULL;
}

int zp_receiver_open(zp_receiver *r, size_t i, const char *endpoint, int ipv6, unsigned topics) {
    zp_source *source = &r->sources[i];
    zp_stream_init(&source->stream, (uint16_t)i, topics, r->settings.latest_only);
    r->count = i + 1;
    source->ipv6 = ipv6;
    source->is_inproc = strncmp(endpoint, "inproc://", 9) == 0;
    source->patience_ns = r->settings.stale_ns;
    snprintf(source->remote, sizeof source->remote, "%s", endpoint);
    atomic_store(&source->last_heard, zp_now());
    if (!(source->endpoint = strdup(endpoint))) return ENOMEM;
    return zp_source_open(source, &r->settings, r->context);
}

int zp_receiver_start(zp_receiver *r) {
    sigset_t all, before;
    atomic_store(&r->state, ZP_RECEIVING);
    r->last_tick = zp_now();
    /* Signals are the interpreter's business: none is delivered to this thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    r->started = !error;
    return error;
}

void zp_receiver_stop(zp_receiver *r) {
    atomic_store(&r->stop, 1);
    zp_wakeup_signal(&r->wakeup);
}

void zp_receiver_join(zp_receiver *r) {
    if (!r->started) return;
    pthread_join(r->thread, NULL);
    r->started = 0;
}
