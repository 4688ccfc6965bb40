/* log.h: what the senders have to say to a human, kept until a thread with the GIL passes it to Python's logging. */
#ifndef ZMQPUB_LOG_H
#define ZMQPUB_LOG_H

#include <pthread.h>
#include <stdint.h>

enum { ZP_LOG_EVICTED_STALLED = 1, ZP_LOG_EVICTED_LAGGING, ZP_LOG_EVICTED_FLOODING, ZP_LOG_LOSSY, ZP_LOG_DROPPED, ZP_LOG_TERMINATED, ZP_LOG_FAILED };

#define ZP_LOG_SLOTS 64

typedef struct {
    int what;
    int error;              /* errno of ZP_LOG_FAILED */
    uint64_t number;        /* backlog bytes of an evicted subscriber; dropped messages */
    char endpoint[256];     /* the bound address */
    char peer[96];          /* the remote address */
} zp_log_record;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t ready;
    zp_log_record slot[ZP_LOG_SLOTS];
    uint64_t head, tail;    /* records [tail, head) wait; when full the oldest goes */
    int closed;
} zp_log;

void zp_log_init(zp_log *log);
void zp_log_free(zp_log *log);
void zp_log_close(zp_log *log);
void zp_log_add(zp_log *log, int what, const char *endpoint, const char *peer, uint64_t number, int error);
/* Wait at most timeout_ns for a record: 1 with *out, 0 when there is none, -1 when the log was closed and is empty. */
int zp_log_take(zp_log *log, zp_log_record *out, uint64_t timeout_ns);

#endif
