/* receiver.h: the thread that receives: all SUB sockets of one receiver and their monitors. It never takes the GIL.
 *
 * It reads everything as soon as it is there, whatever the consumer does, checks it (notification.h), holds it against what came
 * before (stream.h) and puts it into the inbox, up to its bound in bytes; what is beyond is discarded, and said to be when
 * there is room again. Silence is counted by this thread's own waiting, so the consumer's time never counts, nor does the
 * time that the process was stopped.
 */
#ifndef ZMQPUB_RECEIVER_H
#define ZMQPUB_RECEIVER_H

#include "inbox.h"
#include "stream.h"
#include "zmqapi.h"

enum { ZP_RECEIVING = 1, ZP_RECEIVER_STOPPED, ZP_RECEIVER_TERMINATED, ZP_RECEIVER_FAILED };

typedef struct {
    int rcvhwm, latest_only;
    int keepalive_idle, keepalive_interval;      /* seconds; -1: the system's */
    int heartbeat_ms;                            /* 0: none */
    int reconnect_ms, reconnect_max_ms;
    uint64_t stale_ns;                           /* UINT64_MAX: never */
    size_t byte_bound;
} zp_receiver_settings;

typedef struct {
    char *endpoint;                              /* owned */
    int ipv6, is_inproc;
    void *socket, *monitor;                      /* owned; NULL while they could not be made */
    zp_stream stream;
    atomic_int connected;
    unsigned refusals;                           /* handshakes that failed, since the last that did not */
    int said_connected;                          /* what the consumer was last told */
    uint32_t said_generation;
    atomic_uint generation;                      /* the stream's, for other threads */
    char remote[256];                            /* what it is connected to, as the monitor says */
    uint64_t give_up_at;                         /* zp_now(): if libzmq has not tried to connect again by then, it never will */
    unsigned given_up;                           /* how often, since the last message */
    int heard;                                   /* since silence was last counted */
    uint64_t silence_ns;                         /* since the last message */
    uint64_t waited_ns, patience_ns;             /* since the socket was made; until it is made anew */
    atomic_uint_least64_t last_heard;            /* zp_now() */
} zp_source;

typedef struct {
    zp_receiver_settings settings;
    void *context;                               /* borrowed: outlives the receiver */
    zp_source *sources;
    size_t count;
    zp_inbox inbox;
    zp_wakeup wakeup;
    zp_frames frames;
    zp_stage stage;
    zmq_pollitem_t *items;
    int overflow;                                /* messages are being discarded */
    uint64_t last_tick;
    pthread_t thread;
    int started, error;
    atomic_int stop, state;
} zp_receiver;

/* NULL with *error when out of memory or of descriptors. */
zp_receiver *zp_receiver_new(void *context, const zp_receiver_settings *settings, size_t sources, int *error);
/* Describe source i and connect it; before the start. 0, or libzmq's errno. */
int zp_receiver_open(zp_receiver *r, size_t i, const char *endpoint, int ipv6, unsigned topics);
/* After zp_receiver_open, before the start. */
void zp_receiver_expect(zp_receiver *r, size_t i, int topic, uint32_t counter);
int zp_receiver_start(zp_receiver *r);           /* 0 or errno */
void zp_receiver_stop(zp_receiver *r);           /* asks it to end */
void zp_receiver_join(zp_receiver *r);
void zp_receiver_free(zp_receiver *r);           /* it must have ended, or never been started */

#endif
