#include "log.h"
#include "clock.h"
#include <stdio.h>
#include <string.h>

void zp_log_init(zp_log *log) {
    memset(log, 0, sizeof *log);
    pthread_mutex_init(&log->lock, NULL);
    pthread_cond_init(&log->ready, NULL);
}

void zp_log_free(zp_log *log) {
    pthread_cond_destroy(&log->ready);
    pthread_mutex_destroy(&log->lock);
}

void zp_log_close(zp_log *log) {
    pthread_mutex_lock(&log->lock);
    log->closed = 1;
    pthread_cond_broadcast(&log->ready);
    pthread_mutex_unlock(&log->lock);
}

void zp_log_add(zp_log *log, int what, const char *endpoint, const char *peer, uint64_t number, int error) {
    pthread_mutex_lock(&log->lock);
    if (log->head - log->tail == ZP_LOG_SLOTS) log->tail++;
    zp_log_record *r = &log->slot[log->head++ % ZP_LOG_SLOTS];
    r->what = what;
    r->number = number;
    r->error = error;
    snprintf(r->endpoint, sizeof r->endpoint, "%s", endpoint);
    snprintf(r->peer, sizeof r->peer, "%s", peer);
    pthread_cond_signal(&log->ready);
    pthread_mutex_unlock(&log->lock);
}

int zp_log_take(zp_log *log, zp_log_record *out, uint64_t timeout_ns) {
    int result;
    pthread_mutex_lock(&log->lock);
    if (log->head == log->tail && !log->closed && timeout_ns) {
        struct timespec t; /* the wall clock: a step of it makes one wait longer or shorter, no more */
        clock_gettime(CLOCK_REALTIME, &t);
        uint64_t until = (uint64_t)t.tv_nsec + timeout_ns;
        t.tv_sec += (time_t)(until / 1000000000u);
        t.tv_nsec = (long)(until % 1000000000u);
        pthread_cond_timedwait(&log->ready, &log->lock, &t);
    }
    if (log->head != log->tail) {
        *out = log->slot[log->tail++ % ZP_LOG_SLOTS];
        result = 1;
    } else {
        result = log->closed ? -1 : 0;
    }
    pthread_mutex_unlock(&log->lock);
    return result;
}
