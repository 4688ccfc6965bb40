/* flow.c: what a sender does when a subscriber does not keep up, and how it learns who is there. */
#include "clock.h"
#include "endpoint.h"
#include <string.h>

int zp_set_int(void *socket, int option, int value) { return zp_zmq.setsockopt_(socket, option, &value, sizeof value); }

/* ---- who is there ---- */

static void drain_monitor(zp_endpoint *ep) {
    for (zmq_msg_t m;;) {
        uint16_t event;
        int32_t value;
        zp_zmq.msg_init_(&m);
        if (zp_zmq.msg_recv_(&m, ep->monitor, ZMQ_DONTWAIT) < 0) {
            zp_zmq.msg_close_(&m);
            return;
        }
        if (zp_zmq.msg_size_(&m) == 6 && zp_zmq.msg_more_(&m)) {
            const uint8_t *data = zp_zmq.msg_data_(&m);
            memcpy(&event, data, 2);
            memcpy(&value, data + 2, 4);
            if (event == ZMQ_EVENT_ACCEPTED) zp_peers_accepted(&ep->peers, value, zp_now());
            else if (event == ZMQ_EVENT_DISCONNECTED) zp_peers_disconnected(&ep->peers, value);
        }
        zp_zmq.msg_close_(&m);
    }
}

static void report_eviction(zp_endpoint *ep, int what, const zp_peer *peer, uint64_t now) {
    ep->last_eviction = now;
    atomic_fetch_add(&ep->evictions, 1);
    zp_log_add(ep->log, what, ep->bound, peer->address, peer->backlog, 0);
}

/* A subscription without a connection is inproc's, and counted; elsewhere it is of a peer that could not be identified, and
 * stands, as its end can't be told from what libzmq reports of peers that left (their connection's end says it already). */
static void note_nameless(zp_endpoint *ep, zp_notifier *n, int on) {
    if (on) n->nameless++;
    else if (ep->is_inproc && n->nameless) n->nameless--;
}

/* One subscription (on) or its end, of whom libzmq names by the number of its connection. What one peer cancels concerns
 * nobody else. Answers whether it was about any topic. */
static int note_subscription(zp_endpoint *ep, zp_peer *peer, const uint8_t *prefix, size_t length, int on) {
    int useful = 0;
    for (int t = 0; t < ZP_TOPICS; t++) {
        size_t topic_length;
        const char *topic = zp_topic_text(t, &topic_length);
        zp_notifier *n = &ep->notifiers[t];
        if (length > topic_length || memcmp(topic, prefix, length) != 0) continue;
        useful = 1;
        if (peer) zp_peers_subscribe(&ep->peers, peer, t, (unsigned)length, on);
        else note_nameless(ep, n, on);
    }
    return useful;
}

/* A real subscriber sends a handful of prefixes in its life. */
#define MOST_UPSTREAM 1000u      /* messages in a second */
#define MOST_USELESS 262144u     /* bytes of prefixes of no topic, in all */

static void mind_flood(zp_endpoint *ep, zp_peer *peer, size_t useless) {
    const uint64_t now = zp_now();
    zp_peer gone;
    if (now - peer->said_since > 1000000000u) {
        peer->said_since = now;
        peer->said = 0;
    }
    peer->useless += useless;
    if ((++peer->said <= MOST_UPSTREAM && peer->useless <= MOST_USELESS) || peer->evicted) return;
    zp_peers_evict(&ep->peers, peer, &gone);
    report_eviction(ep, ZP_LOG_EVICTED_FLOODING, &gone, now);
}

static void note_upstream(zp_endpoint *ep, zmq_msg_t *m) {
    const uint8_t *data = zp_zmq.msg_data_(m);
    const size_t size = zp_zmq.msg_size_(m);
    const int fd = ep->is_inproc ? -1 : zp_zmq.msg_get_(m, ZMQ_SRCFD);
    zp_peer *peer = fd >= 0 ? zp_peers_find(&ep->peers, fd) : NULL;
    int useful = 0;
    /* Anything else that a peer may send upstream means nothing here. */
    if (size > 0 && data[0] <= 1 && !zp_zmq.msg_more_(m)) useful = note_subscription(ep, peer, data + 1, size - 1, data[0]);
    if (peer) mind_flood(ep, peer, useful ? 0 : size);
}

/* So many at a time, so that nobody who talks without end keeps the sender from sending. */
#define DRAIN 256

static void drain_subscriptions(zp_endpoint *ep) {
    int left = DRAIN;
    for (zmq_msg_t m; left; left--) {
        zp_zmq.msg_init_(&m);
        const int got = zp_zmq.msg_recv_(&m, ep->socket, ZMQ_DONTWAIT);
        if (got >= 0) note_upstream(ep, &m);
        zp_zmq.msg_close_(&m);
        if (got < 0) break;
    }
    if (!left) ep->last_look = 0; /* there may be more: look again soon */
}

/* Connections first: a subscription names one, and the end of one ends its subscriptions. */
static void drain(zp_endpoint *ep) {
    drain_monitor(ep);
    drain_subscriptions(ep);
    for (int t = 0; t < ZP_TOPICS; t++) {
        zp_notifier *n = &ep->notifiers[t];
        n->subscribed = ep->peers.wanted[t] + n->nameless;
        atomic_store_explicit(&n->wanted, n->subscribed != 0, memory_order_relaxed);
    }
}

/* Each look costs a system call: at most every 200 us while there is work (libzmq itself looks every millisecond). */
#define LOOK_EVERY 200000u

void zp_look_around(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    if (now - ep->last_look < LOOK_EVERY) return;
    ep->last_look = now;
    drain(ep);
}

/* ---- who is slow ---- */

static int evict_stalled(zp_endpoint *ep, uint64_t now) {
    zp_peer gone;
    int any = 0;
    while (zp_peers_evict_stalled(&ep->peers, now, ep->settings.stall_ns, &gone)) {
        report_eviction(ep, ZP_LOG_EVICTED_STALLED, &gone, now);
        any = 1;
    }
    return any;
}

/* Act at three quarters of max_lag, so that those who keep up never see all of it; after an eviction give the rest time to
 * catch up before the next is blamed. */
static int lags(const zp_endpoint *ep, uint64_t now) {
    const uint64_t limit = ep->settings.max_lag_ns / 4 * 3;
    const uint64_t pause = limit / 4 < 1000000000u ? limit / 4 : 1000000000u;
    return now - ep->event_time >= limit && now - ep->last_eviction >= pause && now - ep->blocked_since >= pause;
}

/* A subscriber without a descriptor (inproc) can't be disconnected: drop for it, and say so now and then. */
static int begin_losing(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    if (!atomic_exchange(&ep->lossy, 1) && now - ep->last_lossy_log > 10000000000u) {
        zp_log_add(ep->log, ZP_LOG_LOSSY, ep->bound, "", 0, 0);
        ep->last_lossy_log = now;
    }
    return ZP_LOST;
}

/* Can somebody who is not seen here, and so cannot be disconnected, be the one that is waited for? */
static int unseen_may_block(zp_endpoint *ep) { return ep->is_inproc || zp_peers_any_unseen(&ep->peers); }

static int judge(zp_endpoint *ep, uint64_t now) {
    const uint64_t stall = ep->settings.stall_ns;
    const uint64_t since = ep->blocked_since > ep->last_eviction ? ep->blocked_since : ep->last_eviction;
    zp_peers_sample(&ep->peers, now, stall);
    if (evict_stalled(ep, now)) return ZP_SENT;
    if (lags(ep, now)) {
        zp_peer gone;
        if (zp_peers_evict_slowest(&ep->peers, &gone)) report_eviction(ep, ZP_LOG_EVICTED_LAGGING, &gone, now);
        else if (unseen_may_block(ep)) return begin_losing(ep);
    } else if (now - since >= stall && !zp_peers_any_backlog(&ep->peers) && unseen_may_block(ep)) {
        return begin_losing(ep);
    }
    return ZP_SENT;
}

int zp_blocked(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    if (atomic_load(&ep->stop) && now >= atomic_load(&ep->stop_deadline)) return ZP_GIVE_UP;
    if (!ep->blocked_since) ep->blocked_since = now;
    if (ep->settings.slow_subscriber == ZP_SLOW_DROP || atomic_load(&ep->lossy)) return begin_losing(ep);
    drain(ep);
    return ep->settings.slow_subscriber == ZP_SLOW_WAIT ? ZP_SENT : judge(ep, now);
}

void zp_unblocked(zp_endpoint *ep) {
    const uint64_t blocked = zp_now() - ep->blocked_since;
    atomic_fetch_add_explicit(&ep->blocked_ns, blocked, memory_order_relaxed);
    ep->blocked_since = 0;
    zp_peers_relax(&ep->peers);
}

static int is_unbounded(const zp_endpoint *ep) {
    return ep->settings.hwm == 0 && ep->settings.slow_subscriber == ZP_SLOW_DISCONNECT;
}

int zp_unbounded_needs_care(zp_endpoint *ep) {
    /* libzmq may still be writing what was sent last: what it will leave behind shows within a second. */
    return is_unbounded(ep) && ep->peers.count && (zp_peers_any_backlog(&ep->peers) || zp_now() - ep->event_sent < 1000000000u);
}

void zp_watch_unbounded(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    if (!is_unbounded(ep) || now - ep->peers.last_sample < 50000000u) return;
    zp_peers_sample(&ep->peers, now, ep->settings.stall_ns);
    evict_stalled(ep, now);
}

/* ---- the end ---- */

/* libzmq (4.3.5, session_base.cpp, clean_pipes) aborts the process when a connection fails, in the middle of a message, after
 * its socket was closed with linger 0 and before that has reached the connection's own thread: a subscriber killed while the
 * publisher is closed does it. So let every connection end while the socket still lives, and close it then. */
void zp_hang_up(zp_endpoint *ep) {
    const uint64_t deadline = zp_now() + 500000000u;
    zmq_pollitem_t item = {ep->monitor, 0, ZMQ_POLLIN, 0};
    if (!ep->socket || !ep->monitor || ep->is_inproc) return;
    drain_monitor(ep); /* not unbind: that would end the connections from the wrong side, too */
    while (zp_peers_shut_all(&ep->peers) && zp_now() < deadline) {
        if (zp_zmq.poll_(&item, 1, 10) < 0 && zp_zmq.errno_() != EINTR) { /* the context was terminated: it reports no more */
            const struct timespec moment = {0, 10000000};
            nanosleep(&moment, NULL);
            return;
        }
        drain_monitor(ep);
    }
}
