#define _GNU_SOURCE /* SCHED_BATCH */
#include "endpoint.h"
#include "clock.h"
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH 64                 /* events fetched at a time */
#define BATCH_BYTES (1u << 20)   /* or about so many bytes of bodies: they leave the journal only when all are sent */
#define SEND_TIMEOUT_MS 10       /* how long a full pipe is waited for before the sender looks who it is */
#define LARGEST_UPSTREAM 512     /* bytes: subscribers send only prefixes, and libzmq keeps a node for each byte of one */

/* ---- the socket ---- */

static int configure(zp_endpoint *ep) {
    const zp_endpoint_settings *s = &ep->settings;
    const int64_t largest = LARGEST_UPSTREAM;
    void *socket = ep->listener.socket;
    int bad = zp_set_int(socket, ZMQ_SNDHWM, s->hwm) | zp_set_int(socket, ZMQ_XPUB_NODROP, 1) |
              zp_set_int(socket, ZMQ_XPUB_VERBOSER, 1) | zp_set_int(socket, ZMQ_SNDTIMEO, SEND_TIMEOUT_MS) |
              zp_set_int(socket, ZMQ_TCP_KEEPALIVE, 1) | zp_zmq.setsockopt_(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    if (s->ipv6) bad |= zp_set_int(socket, ZMQ_IPV6, 1);
    if (s->refuse_old) bad |= zp_refuse_old_peers(socket);
    if (s->keepalive_idle >= 0) bad |= zp_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, s->keepalive_idle);
    if (s->keepalive_interval >= 0) bad |= zp_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, s->keepalive_interval);
    return bad ? -1 : 0;
}

zp_endpoint *zp_endpoint_open(void *context, const char *address, const zp_endpoint_settings *settings, zp_journal *journal,
                              zp_log *log, int *error) {
    zp_endpoint *ep = calloc(1, sizeof *ep);
    if (!ep) return *error = ENOMEM, NULL;
    ep->settings = *settings;
    ep->journal = journal;
    ep->log = log;
    ep->wakeup.read_fd = ep->wakeup.write_fd = -1;
    pthread_mutex_init(&ep->changes_lock, NULL);
    zp_listener_init(&ep->listener);
    if (zp_wakeup_open(&ep->wakeup) < 0) {
        *error = errno;
        zp_endpoint_free(ep);
        return NULL;
    }
    if (zp_listener_open(&ep->listener, context, ZMQ_XPUB) < 0 || configure(ep) < 0 || zp_listener_bind(&ep->listener, address) < 0) {
        *error = zp_zmq.errno_();
        zp_endpoint_free(ep);
        return NULL;
    }
    return ep;
}

void zp_endpoint_free(zp_endpoint *ep) {
    zp_listener_close(&ep->listener, 0);
    for (zp_change *c = ep->changes, *next; c; c = next) {
        next = c->link;
        free(c);
    }
    zp_wakeup_close(&ep->wakeup);
    zp_listener_free(&ep->listener);
    pthread_mutex_destroy(&ep->changes_lock);
    free(ep);
}

/* ---- notifiers that come and go ---- */

int zp_endpoint_change(zp_endpoint *ep, zp_history *history, int topic, const char *address, int active) {
    zp_change *c = malloc(sizeof *c), **p;
    if (!c) return ZP_NO_MEMORY;
    *c = (zp_change){.topic = topic, .active = active};
    zp_history_lock(history); /* so that no event comes between the change's place and its being known to the sender */
    const int result = active ? zp_history_begin_notifier(history, topic, address, &c->from, &c->base)
                              : zp_history_end_notifier(history, topic, address, &c->from);
    if (result == ZP_OK) {
        pthread_mutex_lock(&ep->changes_lock);
        for (p = &ep->changes; *p; p = &(*p)->link) continue;
        *p = c;
        atomic_store(&ep->has_changes, 1);
        pthread_mutex_unlock(&ep->changes_lock);
    }
    zp_history_unlock(history);
    if (result == ZP_OK) zp_wakeup_signal(&ep->wakeup);
    else free(c);
    return result;
}

/* A notifier that is added begins as a new one, at counter 0, unless the history knows it from an earlier life. */
static void apply(zp_endpoint *ep, const zp_change *c) {
    zp_notifier *n = &ep->notifiers[c->topic];
    zp_catch_up(ep, &c->from);
    if (c->active && !n->active) {
        n->base = c->base;
        atomic_store(&n->counter, (uint32_t)(zp_messages_before(&c->from, c->topic) - c->base));
        atomic_store(&n->sent, 0);
        atomic_store(&n->unwanted, 0);
        atomic_store(&n->dropped, 0);
    }
    n->active = c->active;
}

static void apply_changes(zp_endpoint *ep, uint64_t event) {
    if (!atomic_load_explicit(&ep->has_changes, memory_order_acquire)) return;
    pthread_mutex_lock(&ep->changes_lock);
    while (ep->changes && ep->changes->from.event <= event) {
        zp_change *c = ep->changes;
        ep->changes = c->link;
        apply(ep, c);
        free(c);
    }
    atomic_store(&ep->has_changes, ep->changes != NULL);
    pthread_mutex_unlock(&ep->changes_lock);
}

/* ---- the thread ---- */

static int past_deadline(zp_endpoint *ep) { return atomic_load(&ep->stop) && zp_now() >= atomic_load(&ep->stop_deadline); }

/* Sleep until there are events, a connection, a subscription, or a word from another thread. 0, or -1 with ep->error. */
static int rest(zp_endpoint *ep) {
    zmq_pollitem_t items[] = {
        {ep->listener.socket, 0, ZMQ_POLLIN, 0}, {ep->listener.monitor, 0, ZMQ_POLLIN, 0}, {NULL, ep->wakeup.read_fd, ZMQ_POLLIN, 0}};
    const long timeout = zp_unbounded_needs_care(ep) ? 50 : -1;
    if (zp_zmq.poll_(items, 3, timeout) < 0 && zp_zmq.errno_() != EINTR) return ep->error = zp_zmq.errno_(), -1;
    if (items[2].revents) zp_wakeup_clear(&ep->wakeup);
    if (items[0].revents || items[1].revents) ep->last_look = 0;
    return 0;
}

/* Send a batch; what can't be sent is counted as dropped. ZP_SENT, ZP_GIVE_UP or ZP_DEAD. */
static int send_batch(zp_endpoint *ep, zp_event *batch, size_t n) {
    int r = ZP_SENT;
    for (size_t i = 0; i < n; i++) {
        apply_changes(ep, batch[i].at.event);
        if (r == ZP_SENT && past_deadline(ep)) r = ZP_GIVE_UP;
        if (r == ZP_SENT) {
            r = zp_send_event(ep, &batch[i]);
            ep->event_sent = zp_now();
            zp_histogram_record(&ep->latency, ep->event_sent - batch[i].time);
        }
        if (r != ZP_SENT) {
            const zp_position end = zp_event_end(&batch[i]);
            zp_catch_up(ep, &end);
        }
        zp_body_unref(batch[i].body);
        if ((i & 7) == 7) zp_look_around(ep);
    }
    return r;
}

/* The journal goes on at `from`: what lay before it, and was not fetched, was dropped there. */
static void note_missed(zp_endpoint *ep, const zp_position *from) {
    apply_changes(ep, from->event);
    ep->dropped_unlogged += zp_catch_up(ep, from);
    if (!ep->dropped_unlogged || zp_now() - ep->last_dropped_log < 1000000000u) return; /* a line a second is enough */
    zp_log_add(ep->log, ZP_LOG_DROPPED, ep->listener.bound, "", ep->dropped_unlogged, 0);
    ep->dropped_unlogged = 0;
    ep->last_dropped_log = zp_now();
}

/* After an end before everything was sent: the rest counts as dropped. */
static void count_rest(zp_endpoint *ep) {
    zp_event batch[BATCH];
    zp_position from;
    for (size_t n; (n = zp_journal_fetch(ep->journal, &ep->cursor, batch, BATCH, SIZE_MAX, &from, 0));)
        for (size_t i = 0; i < n; i++) zp_body_unref(batch[i].body);
    apply_changes(ep, UINT64_MAX);
    zp_catch_up(ep, &from);
}

/* While a block is being written to the journal's file. Answers whether there was one. */
static int hash_ahead(zp_endpoint *ep) {
    zp_body *coming = zp_journal_coming(ep->journal);
    if (!coming) return 0;
    if (ep->notifiers[ZP_HASHTX].active && ep->notifiers[ZP_HASHTX].subscribed && coming->count) zp_body_txid(coming, coming->count - 1);
    zp_body_unref(coming);
    return 1;
}

static int serve(zp_endpoint *ep) {
    zp_event batch[BATCH];
    zp_position from;
    int was_ahead = 0;
    for (;;) {
        const int stopping = atomic_load(&ep->stop);
        zp_look_around(ep);
        zp_watch_unbounded(ep);
        size_t n = zp_journal_fetch(ep->journal, &ep->cursor, batch, BATCH, BATCH_BYTES, &from, !stopping);
        note_missed(ep, &from);
        if (n) {
            int r = send_batch(ep, batch, n);
            zp_journal_done(ep->journal, &ep->cursor, from.event + n);
            if (r != ZP_SENT) return r;
        } else {
            zp_ran_free(ep);
            if (stopping) return ZP_SENT;
            if (!was_ahead && (was_ahead = hash_ahead(ep))) continue; /* and look again what there is */
            was_ahead = 0;
            if (rest(ep) < 0) return ZP_DEAD;
        }
    }
}

static int linger_left_ms(zp_endpoint *ep) {
    const uint64_t deadline = atomic_load(&ep->stop_deadline), now = zp_now();
    if (deadline == UINT64_MAX) return -1;
    if (deadline <= now) return 0;
    const uint64_t ms = (deadline - now + 999999) / 1000000;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

/* Waking a thread lets it push its waker off the processor. SCHED_BATCH keeps the processor's share but not that privilege, so
 * that the call that published goes on first (measured: 3.5 us instead of 7 in the median, 14 instead of 1,600 at the 90th
 * percentile, two processors, four subscribers; the notification itself is no later). */
static void let_the_waker_go_on(void) {
#ifdef SCHED_BATCH
    const struct sched_param none = {0};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
#endif
}

static void *run(void *argument) {
    zp_endpoint *ep = argument;
    let_the_waker_go_on();
    const int r = serve(ep);
    const int terminated = r == ZP_DEAD && (ep->error == ETERM || ep->error == ENOTSOCK);
    if (terminated) zp_journal_close(ep->journal); /* before the sockets, which whoever terminates the context waits for */
    count_rest(ep);
    if (r == ZP_SENT) zp_look_at_all(ep);
    zp_listener_close(&ep->listener, r == ZP_SENT ? linger_left_ms(ep) : 0);
    zp_journal_remove_cursor(ep->journal, &ep->cursor);
    if (r == ZP_DEAD) zp_log_add(ep->log, terminated ? ZP_LOG_TERMINATED : ZP_LOG_FAILED, ep->listener.bound, "", 0, ep->error);
    atomic_store(&ep->state, terminated ? ZP_TERMINATED : r == ZP_DEAD ? ZP_FAILED : ZP_STOPPED);
    return NULL;
}

static void wake(void *reader) { zp_wakeup_signal(&((zp_endpoint *)reader)->wakeup); }

int zp_endpoint_start(zp_endpoint *ep) {
    sigset_t all, before;
    zp_journal_add_cursor(ep->journal, &ep->cursor, wake, ep);
    atomic_store(&ep->state, ZP_RUNNING);
    /* Signals are the interpreter's business: none is delivered to this thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&ep->thread, NULL, run, ep);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) zp_journal_remove_cursor(ep->journal, &ep->cursor);
    else ep->started = 1;
    return error;
}

void zp_endpoint_stop(zp_endpoint *ep, uint64_t linger_ns) {
    const uint64_t deadline = linger_ns >= UINT64_MAX / 2 ? UINT64_MAX : zp_now() + linger_ns;
    if (!atomic_load(&ep->stop) || deadline < atomic_load(&ep->stop_deadline)) atomic_store(&ep->stop_deadline, deadline);
    atomic_store(&ep->stop, 1);
    zp_wakeup_signal(&ep->wakeup);
}

void zp_endpoint_join(zp_endpoint *ep) {
    if (!ep->started) return;
    pthread_join(ep->thread, NULL);
    ep->started = 0;
}
