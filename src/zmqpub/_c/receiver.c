#include "receiver.h"
#include "clock.h"
#include "receiving.h"
#include "sockets.h"
#include <signal.h>
#include <stdio.h>
#include <string.h>


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

/* ---- the thread ---- */

/* Until it is time to look at the silence, or to give up; -1: for ever. */
static long patience_ms(const zp_receiver *r) {
    int watching = r->settings.stale_ns != UINT64_MAX;
    for (size_t i = 0; i < r->count; i++) watching |= r->sources[i].give_up_at != 0;
    return watching ? (long)(zp_receiver_tick_ns(r) / 1000000) : -1;
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
        if (r->overflow && zp_inbox_has_room(&r->inbox)) zp_receiver_tell_discarded(r);
        for (size_t i = 0; i < r->count; i++) {
            const int had = zp_receiver_serve(r, &r->sources[i]);
            if (had < 0) return -1;
            more |= had;
        }
        if (zp_receiver_tick(r) < 0) return -1;
        zp_receiver_flush(r);
        if (!more && rest(r) < 0) return -1;
    }
    return 0;
}

static void *run(void *argument) {
    zp_receiver *r = argument;
    for (size_t i = 0; i < r->count; i++)
        if (r->sources[i].is_inproc) zp_receiver_connected(r, &r->sources[i]);
    const int failed = receive(r) < 0;
    zp_receiver_flush(r);
    close_sockets(r); /* first: whoever terminates the context waits for it */
    atomic_store(&r->state, !failed ? ZP_RECEIVER_STOPPED : zp_is_dead(r->error) ? ZP_RECEIVER_TERMINATED : ZP_RECEIVER_FAILED);
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
