/* endpoint.h: one address and the thread that sends on it.
 *
 * The thread never takes the GIL. It reads the journal through its own cursor, makes the frames of each event late, and
 * waits when libzmq's pipes are full; who makes it wait too long is disconnected (flow.c). After zp_endpoint_start the
 * socket belongs to that thread alone.
 */
#ifndef ZMQPUB_ENDPOINT_H
#define ZMQPUB_ENDPOINT_H

#include "histogram.h"
#include "history.h"
#include "listener.h"
#include "log.h"
#include "messages.h"
#include "wakeup.h"

enum { ZP_SLOW_DISCONNECT, ZP_SLOW_DROP, ZP_SLOW_WAIT };

typedef struct {
    int active;                        /* read and written by the sender only, once it runs */
    unsigned subscribed;               /* 0 when nobody subscribes to any of it; sender only */
    unsigned nameless;                 /* subscriptions of whom no connection is known (inproc); sender only */
    uint64_t base;                     /* messages of its topic before its first; sender only */
    atomic_uint counter;               /* the next message's four bytes */
    atomic_uint_least64_t sent;        /* handed to libzmq */
    atomic_uint_least64_t unwanted;    /* counted only: nobody had subscribed */
    atomic_uint_least64_t dropped;     /* not handed over, or known to have missed a subscriber */
    atomic_int wanted;                 /* the same as subscribed, for stats() */
} zp_notifier;

typedef struct zp_change zp_change;
struct zp_change {                     /* a notifier added or removed while the endpoint runs */
    zp_change *link;
    zp_position from;                  /* before the first event that it concerns */
    uint64_t base;                     /* of a notifier that is added */
    int topic, active;
};

typedef struct {
    int hwm, slow_subscriber, keepalive_idle, keepalive_interval, ipv6; /* keepalive: seconds, -1 for the system's */
    int refuse_old;                    /* peers that speak ZMTP 1.0 or 2.0 */
    uint64_t stall_ns, max_lag_ns;
} zp_endpoint_settings;

typedef struct {
    zp_endpoint_settings settings;
    zp_notifier notifiers[ZP_TOPICS];
    zp_journal *journal;               /* borrowed: outlives the endpoint */
    zp_log *log;                       /* borrowed, likewise */
    zp_journal_cursor cursor;
    zp_histogram latency;              /* from an event's appending until its last frame is with libzmq */
    zp_listener listener;
    zp_wakeup wakeup;
    pthread_t thread;
    int started;
    atomic_int state;
    atomic_int stop;
    atomic_uint_least64_t stop_deadline; /* zp_now() until which the rest is still sent; UINT64_MAX: all of it */
    pthread_mutex_t changes_lock;
    zp_change *changes;
    atomic_int has_changes;
    atomic_uint_least64_t evictions, blocked_ns;
    atomic_int lossy;                  /* some subscriber without a descriptor is being dropped for; see flow.c */
    int was_lossy;                     /* once, so that libzmq may know of subscribers that it passes over */
    uint64_t blocked_since;            /* the pipes are full since then; 0 when they are not */
    uint64_t unexplained_since;        /* and no connection that we see has a backlog */
    uint64_t window_since, window_waited; /* of the time since window_since, how much went by waiting; see flow.c */
    int expecting;            /* a connection may be subscribing just now: every topic is made */
    uint64_t last_eviction, last_look, last_lossy_log, last_dropped_log;
    uint64_t dropped_unlogged;
    uint64_t event_time, event_sent;   /* when the event in hand was appended, and the last one was with libzmq */
    int error;                         /* errno of ZP_FAILED */
} zp_endpoint;

/* Create the socket and bind it: NULL with *error (errno) when that fails; nothing is left then. */
zp_endpoint *zp_endpoint_open(void *context, const char *address, const zp_endpoint_settings *settings, zp_journal *journal,
                              zp_log *log, int *error);
int zp_endpoint_start(zp_endpoint *ep);                       /* 0 or errno */
void zp_endpoint_stop(zp_endpoint *ep, uint64_t linger_ns);   /* ask it to end; UINT64_MAX: when all is sent */
void zp_endpoint_join(zp_endpoint *ep);                       /* wait until it did */
void zp_endpoint_free(zp_endpoint *ep);                       /* joined, or never started */
/* A notifier begins, or ends, with the next event; `address` is how the history names it. 0, ZP_NO_MEMORY or ZP_NO_ROOM. */
int zp_endpoint_change(zp_endpoint *ep, zp_history *history, int topic, const char *address, int active);

/* ---- between endpoint.c, frames.c and flow.c ---- */

enum { ZP_SENT = 0, ZP_LOST = 1, ZP_GIVE_UP = -1, ZP_DEAD = -2 };

int zp_send_event(zp_endpoint *ep, const zp_event *e);        /* frames.c: ZP_SENT, ZP_GIVE_UP or ZP_DEAD */
/* What its notifiers should have sent when the journal is at `at`, and did not, is dropped: answers how many messages. */
uint64_t zp_catch_up(zp_endpoint *ep, const zp_position *at);
void zp_look_around(zp_endpoint *ep);                         /* flow.c: connections and subscriptions that came or went */
void zp_look_at_all(zp_endpoint *ep);                         /* without a limit to how often, and to the last of them */
/* The pipes are full: zp_begin_wait at once, then zp_blocked after each try that took too long (ZP_SENT: try again; ZP_LOST:
 * send, dropping where it is full), zp_unblocked when there was room. */
void zp_begin_wait(zp_endpoint *ep);
int zp_blocked(zp_endpoint *ep);
void zp_unblocked(zp_endpoint *ep);
void zp_ran_free(zp_endpoint *ep);                            /* nothing is left in the journal */
/* The same care for a mark of 0, which never blocks: every 50 ms while there is or may be a backlog. */
void zp_watch_unbounded(zp_endpoint *ep);
int zp_unbounded_needs_care(zp_endpoint *ep);

#endif
