/* replay_request.h: what a client of the replay endpoint asks, taken from untrusted bytes (docs/replay.md). */
#ifndef ZMQPUB_REPLAY_REQUEST_H
#define ZMQPUB_REPLAY_REQUEST_H

#include "epochs.h"

enum { ZP_REPLAY_HELLO = 1, ZP_REPLAY_RANGE, ZP_REPLAY_SNAPSHOT };
enum {
    ZP_REPLAY_OK,
    ZP_REPLAY_BAD_REQUEST,
    ZP_REPLAY_UNKNOWN_EPOCH,
    ZP_REPLAY_UNKNOWN_NOTIFIER,
    ZP_REPLAY_UNSUPPORTED,
    ZP_REPLAY_NO_SNAPSHOT,
    ZP_REPLAY_BUSY
};

#define ZP_REPLAY_NO_NOTIFIER 0xFFFF
#define ZP_REPLAY_LARGEST_REQUEST 4096u

typedef struct {
    uint16_t notifier;
    uint64_t first;
} zp_replay_from;

typedef struct {
    uint8_t operation;
    uint32_t id;                    /* chosen by the client, repeated in the answer */
    /* Of RANGE: */
    uint8_t epoch[ZP_EPOCH_BYTES];
    uint32_t max_messages, max_bytes; /* within the server's limits */
    uint16_t until_notifier;        /* or ZP_REPLAY_NO_NOTIFIER */
    uint64_t until;
    unsigned count;
    zp_replay_from starts[ZP_TOPICS]; /* one notifier of each topic at most */
} zp_replay_request;

/* A status, ZP_REPLAY_OK where *out is good; else *problem is a static text, and operation and id are as far as they go. */
int zp_replay_parse(const uint8_t *data, size_t size, zp_replay_request *out, const char **problem);

#endif
