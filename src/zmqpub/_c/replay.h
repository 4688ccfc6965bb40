/* replay.h: the endpoint where subscribers ask for what they missed (docs/replay.md): a ROUTER socket and the thread that serves
 * it, one request at a time, the clients in turn. It has a ZeroMQ context and I/O thread of its own, so that it shares neither
 * with the live endpoints, and gives way to them. It never takes the GIL.
 */
#ifndef ZMQPUB_REPLAY_H
#define ZMQPUB_REPLAY_H

#include "history.h"
#include "listener.h"
#include "log.h"
#include "replay_clients.h"
#include "snapshots.h"
#include "wakeup.h"

typedef struct {
    int ipv6, keepalive_idle, keepalive_interval; /* keepalive: seconds, -1 for the system's */
    uint64_t stall_ns;                            /* a client that takes nothing for so long is disconnected */
} zp_replay_settings;

typedef struct {
    atomic_uint_least64_t requests;   /* all that came, malformed ones among them */
    atomic_uint_least64_t answers;    /* handed to libzmq, errors among them */
    atomic_uint_least64_t messages;   /* in answers to RANGE */
    atomic_uint_least64_t bytes;      /* of all frames of those */
    atomic_uint_least64_t malformed;
    atomic_uint_least64_t dropped;    /* answers that the client had no room for, or was not there for */
    atomic_uint_least64_t evictions;  /* clients disconnected */
} zp_replay_counts;

typedef struct {                      /* who waits for a snapshot */
    uint8_t identity[255];
    uint8_t identity_size;
    int delimiter;
    uint32_t id;
    uint64_t call;                    /* of zp_snapshots that will answer */
} zp_replay_waiter;

#define ZP_REPLAY_WAITERS 256

typedef struct {
    zp_replay_settings settings;
    char *address;                    /* owned */
    void *context;                    /* owned where own_context */
    int own_context;
    zp_history *history;              /* borrowed, as the next two */
    zp_journal *journal;
    zp_log *log;
    zp_listener listener;
    zp_clients clients;
    zp_snapshots snapshots;
    zp_replay_waiter waiters[ZP_REPLAY_WAITERS];
    size_t waiting;
    uint64_t napped_enough_until;     /* zp_now(); the live endpoints were given way to, in vain */
    zp_replay_counts counts;
    zp_wakeup wakeup;
    pthread_t thread;
    pthread_mutex_t lock;             /* of the three flags */
    pthread_cond_t changed;
    int opened, open_error, serving;
    int started;
    int error;                        /* errno of ZP_FAILED */
    atomic_int state;                 /* as an endpoint's */
    atomic_int stop;
    atomic_uint_least64_t stop_deadline;
} zp_replay;

/* Bind: NULL with *error (errno) when that fails; nothing is left then. `context` NULL: one of its own. */
zp_replay *zp_replay_open(void *context, const char *address, const zp_replay_settings *settings, zp_history *history,
                          zp_journal *journal, zp_log *log, int *error);
void zp_replay_start(zp_replay *r);                     /* serve */
void zp_replay_stop(zp_replay *r, uint64_t linger_ns);  /* ask it to end; answers under way may take so long */
void zp_replay_join(zp_replay *r);
void zp_replay_free(zp_replay *r);                      /* joined */

/* Python's side of the snapshots: see snapshots.h. It wakes the server. */
void zp_replay_offer(zp_replay *r, int offered);
int zp_replay_give(zp_replay *r, const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size);

/* ---- between replay.c and replay_answers.c ---- */

typedef struct {
    zmq_msg_t identity, frame;        /* of the client, and the request; both are there */
    int delimiter;                    /* an empty frame before the request, as REQ sends it */
    int extra;                        /* frames behind the request, which there may not be */
} zp_replay_letter;

/* Answer a request. 0, or -1 with r->error when the socket is of no use any more. */
int zp_replay_serve(zp_replay *r, zp_replay_letter *letter);
/* Answer those who wait for a snapshot that was made, or that failed. */
int zp_replay_serve_snapshots(zp_replay *r);

#endif
