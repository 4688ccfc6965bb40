/* channel.h: a DEALER socket for questions to a replay endpoint, and its answers made into entries.
 *
 * Connected when first used. One thread asks at a time; any may close.
 */
#ifndef ZMQPUB_CHANNEL_H
#define ZMQPUB_CHANNEL_H

#include "inbox.h"
#include "notification.h"
#include <pthread.h>

typedef struct {
    char *endpoint;               /* owned */
    int ipv6;
    void *context;                /* borrowed: outlives the channel */
    void *socket;                 /* owned; NULL until used; guarded by lock */
    pthread_mutex_t lock;
    atomic_int closed;
} zp_channel;

/* What the messages of an answer are, per topic, before anybody has looked at them. */
typedef struct {
    int any, contiguous;
    uint32_t first, next;
} zp_span;

enum { ZP_ANSWER_FRAMES = 8 };
typedef struct {
    zmq_msg_t header;
    int has_messages;             /* the answer to a RANGE: the rest are messages, in chunks; else frames */
    zp_chunk *chunks, *last;      /* owned */
    uint32_t messages;
    zp_span spans[ZP_TOPICS];
    char *malformed;              /* owned; why it is not what it should be, then there are no chunks */
    zmq_msg_t frames[ZP_ANSWER_FRAMES];
    int frame_count;
} zp_answer;

zp_channel *zp_channel_new(void *context, const char *endpoint, int ipv6); /* NULL when out of memory */
void zp_channel_free(zp_channel *c);
int zp_channel_send(zp_channel *c, const void *request, size_t size);       /* 0, or libzmq's errno; ENOTSOCK once closed */
void zp_channel_reset(zp_channel *c);
void zp_channel_close(zp_channel *c);
/* Wait at most timeout_ns: 1 with *out filled in (zp_answer_release it), 0, or minus libzmq's errno. Messages of other topics than
 * `topics` make the answer malformed. */
int zp_channel_receive(zp_channel *c, uint64_t timeout_ns, uint16_t source, unsigned topics, zp_answer *out);
void zp_answer_release(zp_answer *a);

#endif
