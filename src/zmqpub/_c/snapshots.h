/* snapshots.h: a letter box between the replay server, which never takes the GIL, and the Python thread that asks the source of
 * the events for its state. One call serves all who asked before it began.
 */
#ifndef ZMQPUB_SNAPSHOTS_H
#define ZMQPUB_SNAPSHOTS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    size_t header_size, body_size;
    uint8_t *header, *body;       /* the two frames of the answer, in one allocation; the header's request id is to be filled in */
} zp_snapshot;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int offered, closed;
    int asked;                    /* somebody waits for a call that has not begun */
    uint64_t begun, made;         /* calls that began; the last one whose outcome is here */
    zp_snapshot *ready;           /* that outcome, owned; NULL: it failed */
    int fresh;                    /* the server has not seen it */
} zp_snapshots;

void zp_snapshots_init(zp_snapshots *s);
void zp_snapshots_free(zp_snapshots *s);

/* For the server: ask. 0 when nobody offers any, else the number of the call that will answer. */
uint64_t zp_snapshots_ask(zp_snapshots *s);
/* 1 when there is news: calls up to *made are answered with *out, which the caller owns, or have failed (NULL). */
int zp_snapshots_take(zp_snapshots *s, zp_snapshot **out, uint64_t *made);
void zp_snapshot_free(zp_snapshot *snapshot);

/* For the Python thread. */
void zp_snapshots_offer(zp_snapshots *s, int offered);
void zp_snapshots_close(zp_snapshots *s);
/* 1: a call is asked for, and has begun with this; 0: not within timeout_ns; -1: closed. */
int zp_snapshots_wait(zp_snapshots *s, uint64_t timeout_ns);
/* How it ended: a copy of two frames, or with header NULL that it failed. 0, or -1 without memory, which is a failure, too. */
int zp_snapshots_give(zp_snapshots *s, const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size);

#endif
