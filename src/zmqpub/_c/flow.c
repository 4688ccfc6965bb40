/* flow.c: what a sender does when a subscriber does not keep up, and how it learns who is there. */
#include "clock.h"
#include "endpoint.h"
#include <string.h>

/* ---- who is there ---- */

static void report_eviction(zp_endpoint *ep, int what, const zp_peer *peer) {
    atomic_fetch_add(&ep->evictions, 1);
    zp_log_add(ep->log, what, ep->listener.bound, peer->address, peer->backlog, 0);
}

/* A subscription without a connection is inproc's, and counted; elsewhere it is of a peer that could not be identified, and
 * stands, as its end can't be told from what libzmq reports of peers that left (their connection's end says it already). */
static void note_nameless(zp_endpoint *ep, zp_notifier *n, int on) {
    if (on) n->nameless++;
    else if (ep->listener.is_inproc && n->nameless) n->nameless--;
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
        if (peer) zp_peers_subscribe(&ep->listener.peers, peer, t, (unsigned)length, on);
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
    zp_peers_evict(&ep->listener.peers, peer, &gone);
    report_eviction(ep, ZP_LOG_EVICTED_FLOODING, &gone);
}

static void note_upstream(zp_endpoint *ep, zmq_msg_t *m) {
    const uint8_t *data = zp_zmq.msg_data_(m);
    const size_t size = zp_zmq.msg_size_(m);
    const int fd = ep->listener.is_inproc ? -1 : zp_zmq.msg_get_(m, ZMQ_SRCFD);
    zp_peer *peer = fd >= 0 ? zp_peers_find(&ep->listener.peers, fd) : NULL;
    int useful = 0;
    if (peer) peer->silent = 0;
    /* Anything else that a peer may send upstream means nothing here. */
    if (size > 0 && data[0] <= 1 && !zp_zmq.msg_more_(m)) useful = note_subscription(ep, peer, data + 1, size - 1, data[0]);
    if (peer) mind_flood(ep, peer, useful ? 0 : size);
}

/* So many at a time, so that nobody who talks without end keeps the sender from sending. */
#define DRAIN 256

static int read_upstream(zp_endpoint *ep, zmq_msg_t messages[DRAIN]) {
    for (int n = 0; n < DRAIN; n++) {
        zp_zmq.msg_init_(&messages[n]);
        if (zp_zmq.msg_recv_(&messages[n], ep->listener.socket, ZMQ_DONTWAIT) >= 0) continue;
        zp_zmq.msg_close_(&messages[n]);
        return n;
    }
    ep->last_look = 0; /* there may be more: look again soon */
    return DRAIN;
}

/* libzmq puts subscriptions in force while it sends, a moment before they can be read here. Were only what is known to be wanted
 * made in that moment, a new subscriber to several topics would get those that others want some events earlier than the rest. So
 * everything is made from when a connection begins until it has said something, for as long as a handshake may take. */
#define HANDSHAKE 2000000000u

/* A subscription names its connection by a number that may have been another's just before. So it is read first, and looked at
 * when that connection, which began earlier, is known. */
static void drain(zp_endpoint *ep) {
    zmq_msg_t messages[DRAIN];
    const int n = read_upstream(ep, messages);
    zp_listener_look(&ep->listener);
    for (int i = 0; i < n; i++) {
        note_upstream(ep, &messages[i]);
        zp_zmq.msg_close_(&messages[i]);
    }
    ep->expecting = zp_peers_any_subscribing(&ep->listener.peers, zp_now(), HANDSHAKE);
    for (int t = 0; t < ZP_TOPICS; t++) {
        zp_notifier *n = &ep->notifiers[t];
        n->subscribed = ep->listener.peers.wanted[t] + n->nameless;
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

/* Before an end that lets the rest be sent: who has subscribed by now is known, and so not taken for one who is to be dropped. */
void zp_look_at_all(zp_endpoint *ep) {
    for (int most = 64; most > 0; most--) {
        ep->last_look = 1;
        drain(ep);
        if (ep->last_look) return;
    }
}

/* ---- who is slow ---- */

/* The endpoint's time is looked at in windows of at most a second: a lag is some subscriber's doing only where most of it went
 * by waiting for full pipes. A sender that has too much to do lags as well, and no eviction would help it. */
static uint64_t lag_limit(const zp_endpoint *ep) {
    return ep->settings.max_lag_ns / 4 * 3; /* act early, so that those who keep up never see all of it */
}

static void begin_window(zp_endpoint *ep, uint64_t now) {
    ep->window_since = now;
    ep->window_waited = 0;
    zp_peers_forget(&ep->listener.peers);
}

static uint64_t waited_in_window(const zp_endpoint *ep, uint64_t now) {
    const uint64_t since = ep->blocked_since > ep->window_since ? ep->blocked_since : ep->window_since;
    return ep->window_waited + (ep->blocked_since ? now - since : 0);
}

static void evicted(zp_endpoint *ep, int what, const zp_peer *peer, uint64_t now) {
    report_eviction(ep, what, peer);
    begin_window(ep, now);
    ep->last_eviction = ep->unexplained_since = now;
}

static int evict_stalled(zp_endpoint *ep, uint64_t now) {
    zp_peer gone;
    int any = 0;
    while (zp_peers_evict_stalled(&ep->listener.peers, now, ep->settings.stall_ns, &gone)) {
        evicted(ep, ZP_LOG_EVICTED_STALLED, &gone, now);
        any = 1;
    }
    return any;
}

/* At the end of a window, has the endpoint fallen behind by waiting? Then its slowest subscriber goes: 1, or -1 when none of
 * those that we see has any backlog, or 0. After an eviction the rest have the time to catch up (who takes twice what is
 * published does it within the limit) before the next is blamed, unless it is one that keeps the endpoint waiting without a
 * break. */
static int evict_lagging(zp_endpoint *ep, uint64_t now) {
    const uint64_t limit = lag_limit(ep), window = limit / 4 < 1000000000u ? limit / 4 : 1000000000u;
    const uint64_t length = now - ep->window_since;
    zp_peer gone;
    if (length < window) return 0;
    const int held = ep->blocked_since && now - ep->blocked_since >= window;
    const int paced = waited_in_window(ep, now) >= length / 2 && now - ep->last_eviction >= limit;
    const int late = now - ep->event_time >= limit && (held || paced);
    if (late && zp_peers_evict_slowest(&ep->listener.peers, &gone)) {
        evicted(ep, ZP_LOG_EVICTED_LAGGING, &gone, now);
        return 1;
    }
    begin_window(ep, now);
    return late ? -1 : 0;
}

static void sample(zp_endpoint *ep, uint64_t now) {
    const uint64_t stall = ep->settings.stall_ns;
    zp_peers_sample(&ep->listener.peers, now, stall > 200000000u ? stall : 200000000u); /* more than there is between two samples */
}

/* A subscriber without a descriptor (inproc) can't be disconnected: drop for it, and say so now and then. */
static int begin_losing(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    ep->was_lossy = 1;
    if (!atomic_exchange(&ep->lossy, 1) && now - ep->last_lossy_log > 10000000000u) {
        zp_log_add(ep->log, ZP_LOG_LOSSY, ep->listener.bound, "", 0, 0);
        ep->last_lossy_log = now;
    }
    return ZP_LOST;
}

/* Can somebody who is not seen here, and so cannot be disconnected, be the one that is waited for? */
static int unseen_may_block(zp_endpoint *ep) { return ep->listener.is_inproc || zp_peers_any_unseen(&ep->listener.peers); }

static int judge(zp_endpoint *ep, uint64_t now) {
    const int paused = now - ep->listener.peers.last_sample > 1000000000u; /* we were: stopped, or without a processor */
    sample(ep, now);
    if (evict_stalled(ep, now)) return ZP_SENT;
    const int lagging = evict_lagging(ep, now);
    if (lagging > 0) return ZP_SENT;
    if (!ep->unexplained_since || paused || zp_peers_any_backlog(&ep->listener.peers)) ep->unexplained_since = now;
    const int unexplained = now - ep->unexplained_since >= ep->settings.stall_ns;
    return (lagging || unexplained) && unseen_may_block(ep) ? begin_losing(ep) : ZP_SENT;
}

void zp_begin_wait(zp_endpoint *ep) {
    if (ep->blocked_since) return;
    ep->blocked_since = zp_now();
    if (!ep->window_since) begin_window(ep, ep->blocked_since);
}

int zp_blocked(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    if (atomic_load(&ep->stop) && now >= atomic_load(&ep->stop_deadline)) return ZP_GIVE_UP;
    if (ep->settings.slow_subscriber == ZP_SLOW_DROP || atomic_load(&ep->lossy)) return begin_losing(ep);
    drain(ep);
    return ep->settings.slow_subscriber == ZP_SLOW_WAIT ? ZP_SENT : judge(ep, now);
}

void zp_unblocked(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    atomic_fetch_add_explicit(&ep->blocked_ns, now - ep->blocked_since, memory_order_relaxed);
    ep->window_waited = waited_in_window(ep, now);
    ep->blocked_since = ep->unexplained_since = 0;
    zp_peers_restart(&ep->listener.peers);
    /* Many short waits make a lag as well as a long one. */
    if (ep->settings.slow_subscriber != ZP_SLOW_DISCONNECT || now - ep->event_time < lag_limit(ep) / 2) return;
    if (now - ep->listener.peers.last_sample >= 10000000u) sample(ep, now);
    evict_lagging(ep, now);
}

void zp_ran_free(zp_endpoint *ep) { ep->window_since = 0; }

static int is_unbounded(const zp_endpoint *ep) {
    return ep->settings.hwm == 0 && ep->settings.slow_subscriber == ZP_SLOW_DISCONNECT;
}

int zp_unbounded_needs_care(zp_endpoint *ep) {
    /* libzmq may still be writing what was sent last: what it will leave behind shows within a second. */
    return is_unbounded(ep) && ep->listener.peers.count && (zp_peers_any_backlog(&ep->listener.peers) || zp_now() - ep->event_sent < 1000000000u);
}

void zp_watch_unbounded(zp_endpoint *ep) {
    const uint64_t now = zp_now();
    if (!is_unbounded(ep) || now - ep->listener.peers.last_sample < 50000000u) return;
    sample(ep, now);
    evict_stalled(ep, now);
}
