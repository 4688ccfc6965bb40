/* frames.c: the messages of an event, made for those that somebody wants and handed to libzmq. */
#include "endpoint.h"
#include <stdlib.h>
#include <string.h>

static void add(atomic_uint_least64_t *counter, uint64_t n) {
    /* Only this thread writes it. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

static void advance(zp_notifier *n, uint32_t messages) {
    atomic_store_explicit(&n->counter, atomic_load_explicit(&n->counter, memory_order_relaxed) + messages, memory_order_relaxed);
}

uint64_t zp_catch_up(zp_endpoint *ep, const zp_position *at) {
    uint64_t all = 0;
    for (int t = 0; t < ZP_TOPICS; t++) {
        zp_notifier *n = &ep->notifiers[t];
        if (!n->active) continue;
        const uint32_t behind = (uint32_t)(zp_messages_before(at, t) - n->base) - (uint32_t)atomic_load_explicit(&n->counter, memory_order_relaxed);
        if (!behind) continue;
        advance(n, behind);
        add(&n->dropped, behind);
        all += behind;
    }
    return all;
}

/* ---- one message ---- */

/* While some subscriber is being dropped for, or may not be there at all, each body is a block of its own whose release tells,
 * when it happens inside the sending call on the sending thread, that nobody took the message. */
static _Thread_local void *probe;

static void release_probe(void *data, void *hint) {
    (void)hint;
    if (probe == data) probe = NULL;
    free(data);
}

static int init_probe(zmq_msg_t *m, zmq_msg_t *original) {
    const size_t size = zp_zmq.msg_size_(original);
    void *copy = malloc(size);
    if (!copy) return -1;
    memcpy(copy, zp_zmq.msg_data_(original), size);
    if (zp_zmq.msg_init_data_(m, copy, size, release_probe, NULL) < 0) {
        free(copy);
        return -1;
    }
    probe = copy;
    zp_zmq.msg_close_(original);
    return 0;
}

/* The first frame waits where the pipes are full; the others then have their place. The first try does not wait, so that the
 * clock is read only where there is something to wait for. */
static int send_first(zp_endpoint *ep, zmq_msg_t *m) {
    int how = ZP_SENT, flags = ZMQ_SNDMORE | ZMQ_DONTWAIT;
    while (zp_zmq.msg_send_(m, ep->listener.socket, flags) < 0) {
        const int error = zp_zmq.errno_();
        if (error == EINTR) continue; /* no handler runs here, but setuid() and the like signal every thread */
        if (error != EAGAIN) return ep->error = error, ZP_DEAD;
        if (flags & ZMQ_DONTWAIT) {
            flags = ZMQ_SNDMORE;
            zp_begin_wait(ep);
            continue;
        }
        if ((how = zp_blocked(ep)) < 0) return how;
        if (how == ZP_LOST) zp_set_int(ep->listener.socket, ZMQ_XPUB_NODROP, 0);
    }
    return how;
}

static int send_rest(zp_endpoint *ep, zmq_msg_t *m, int flags) {
    while (zp_zmq.msg_send_(m, ep->listener.socket, flags) < 0) {
        const int error = zp_zmq.errno_();
        if (error == EAGAIN || error == EINTR) continue;
        zp_zmq.msg_close_(m);
        return ep->error = error, ZP_DEAD;
    }
    return ZP_SENT;
}

/* Is the topic wanted only by peers that could not be identified? Such a one may have left unnoticed. */
static int is_doubtful(const zp_endpoint *ep, int topic) {
    return !ep->listener.is_inproc && ep->notifiers[topic].nameless && !ep->listener.peers.wanted[topic];
}

/* Count a message that was asked about: `lost` when a subscriber may have been passed over (its pipe may still have been emptied
 * at the last moment: with one subscriber it is known whether he got it). */
static void count_watched(zp_endpoint *ep, int topic, int taken, int lost) {
    zp_notifier *n = &ep->notifiers[topic];
    if (taken) atomic_store_explicit(&ep->lossy, 0, memory_order_relaxed);
    if (!taken && !ep->was_lossy && is_doubtful(ep, topic)) {
        n->nameless = n->subscribed = 0;
        atomic_store_explicit(&n->wanted, 0, memory_order_relaxed);
        add(&n->unwanted, 1);
    } else if (taken && (!lost || n->subscribed == 1)) {
        add(&n->sent, 1);
    } else {
        add(&n->dropped, 1);
    }
}

static int send_message(zp_endpoint *ep, int topic, zmq_msg_t *body) {
    zp_notifier *n = &ep->notifiers[topic];
    zmq_msg_t first, last;
    int how, rest = ZP_SENT;
    if (zp_message_topic(&first, topic) < 0) goto no_memory;
    how = send_first(ep, &first);
    if (how < 0) {
        zp_zmq.msg_close_(&first);
        zp_zmq.msg_close_(body);
        return how;
    }
    const int watched = how == ZP_LOST || atomic_load_explicit(&ep->lossy, memory_order_relaxed) || is_doubtful(ep, topic);
    if (watched) {
        zmq_msg_t copy;
        probe = NULL;
        if (init_probe(&copy, body) < 0) goto no_memory;
        rest = send_rest(ep, &copy, ZMQ_SNDMORE);
    } else {
        rest = send_rest(ep, body, ZMQ_SNDMORE);
    }
    const int taken = !watched || probe;
    probe = NULL;
    if (rest == ZP_SENT) {
        const unsigned counter = atomic_load_explicit(&n->counter, memory_order_relaxed);
        if (zp_message_counter(&last, (uint32_t)counter) < 0) return ep->error = ENOMEM, ZP_DEAD;
        rest = send_rest(ep, &last, 0);
    }
    if (how == ZP_LOST) zp_set_int(ep->listener.socket, ZMQ_XPUB_NODROP, 1);
    if (rest < 0) return rest;
    advance(n, 1);
    if (watched) count_watched(ep, topic, taken, how == ZP_LOST);
    else add(&n->sent, 1);
    if (taken && ep->blocked_since) zp_unblocked(ep);
    return ZP_SENT;
no_memory:
    zp_zmq.msg_close_(body);
    return ep->error = ENOMEM, ZP_DEAD;
}

static int wanted(zp_endpoint *ep, int topic, uint32_t messages) {
    zp_notifier *n = &ep->notifiers[topic];
    if (!n->active) return 0;
    if (n->subscribed || ep->expecting) return 1;
    advance(n, messages);
    add(&n->unwanted, messages);
    return 0;
}

static int send_one(zp_endpoint *ep, const zp_event *e, int topic, uint32_t index) {
    zmq_msg_t body;
    if (!wanted(ep, topic, 1)) return ZP_SENT;
    if (zp_message_body(&body, e, topic, index) < 0) return ep->error = ENOMEM, ZP_DEAD;
    return send_message(ep, topic, &body);
}

/* ---- events ---- */

static int send_transaction(zp_endpoint *ep, const zp_event *e, uint32_t index) {
    const int r = send_one(ep, e, ZP_HASHTX, index);
    return r == ZP_SENT ? send_one(ep, e, ZP_RAWTX, index) : r;
}

static int nobody_wants_transactions(zp_endpoint *ep) {
    return !ep->expecting && !ep->notifiers[ZP_HASHTX].subscribed && !ep->notifiers[ZP_RAWTX].subscribed;
}

static int send_transactions(zp_endpoint *ep, const zp_event *e) {
    const uint32_t count = e->body->count;
    int r = ZP_SENT;
    for (uint32_t i = 0; i < count && r == ZP_SENT; i++) {
        if (i % 64 == 0) {
            if (i) zp_look_around(ep);
            if (nobody_wants_transactions(ep)) { /* the next 64, or to the end, in one step */
                uint32_t n = count - i < 64 ? count - i : 64;
                wanted(ep, ZP_HASHTX, n);
                wanted(ep, ZP_RAWTX, n);
                i += n - 1;
                continue;
            }
        }
        r = send_transaction(ep, e, i);
    }
    return r;
}

static int send_frames(zp_endpoint *ep, const zp_event *e) {
    int r = ZP_SENT;
    switch (e->kind) {
    case ZP_TX_REMOVED: break;
    case ZP_TX_ADDED: r = send_transaction(ep, e, 0); break;
    case ZP_TIP_UPDATED:
        r = send_one(ep, e, ZP_HASHBLOCK, 0);
        return r == ZP_SENT ? send_one(ep, e, ZP_RAWBLOCK, 0) : r;
    default: r = send_transactions(ep, e);
    }
    return r == ZP_SENT ? send_one(ep, e, ZP_SEQUENCE, 0) : r;
}

int zp_send_event(zp_endpoint *ep, const zp_event *e) {
    ep->event_time = e->time;
    return send_frames(ep, e);
}
