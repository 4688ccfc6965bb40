/* replay_range.h: the messages that answer a RANGE request, made anew from the journal's history. Knows no sockets. */
#ifndef ZMQPUB_REPLAY_RANGE_H
#define ZMQPUB_REPLAY_RANGE_H

#include "history.h"
#include "messages.h"
#include "replay_request.h"

typedef struct {
    zmq_msg_t body;
    uint32_t counter;
    uint8_t topic;
} zp_range_message;

#define ZP_RANGE_CHUNK 1024

typedef struct zp_range_chunk zp_range_chunk;
struct zp_range_chunk {          /* they are linked, not moved: what libzmq keeps in a zmq_msg_t is its own business */
    zp_range_chunk *next;
    zp_range_message messages[ZP_RANGE_CHUNK];
};

typedef struct {
    uint16_t notifier;
    uint64_t first, next;        /* the messages [first, next) are in the answer */
    uint64_t gone;               /* so many before them, from the asked number on, are not held any more */
} zp_range_span;

typedef struct {
    unsigned spans;
    zp_range_span span[ZP_TOPICS]; /* in the order of the request */
    int more, gone;
    size_t count;                /* messages in the chunks, in the order in which they were published */
    uint64_t bytes;              /* of all their frames */
    zp_range_chunk *chunks, *last;
} zp_range;

/* Called between the making of some messages and the next: for others to go first. */
typedef void zp_range_pause(void *context);

/* A status; where it is not ZP_REPLAY_OK, *problem is a static text. zp_range_free is due either way. */
int zp_range_make(zp_range *out, zp_history *h, const zp_replay_request *request, zp_range_pause *pause, void *context,
                  const char **problem);
void zp_range_free(zp_range *range); /* bodies that were sent are libzmq's already: closing them again frees nothing */

#endif
