#include "snapshots.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

void zp_snapshots_init(zp_snapshots *s) {
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
}

void zp_snapshots_free(zp_snapshots *s) {
    zp_snapshot_free(s->ready);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
}

void zp_snapshot_free(zp_snapshot *snapshot) { free(snapshot); }

/* ---- the server ---- */

uint64_t zp_snapshots_ask(zp_snapshots *s) {
    uint64_t call = 0;
    pthread_mutex_lock(&s->lock);
    if (s->offered) {
        s->asked = 1;
        call = s->begun + 1; /* one that is under way may be older than what the client has seen */
        pthread_cond_signal(&s->changed);
    }
    pthread_mutex_unlock(&s->lock);
    return call;
}

int zp_snapshots_take(zp_snapshots *s, zp_snapshot **out, uint64_t *made) {
    pthread_mutex_lock(&s->lock);
    const int fresh = s->fresh;
    s->fresh = 0;
    *out = s->ready;
    *made = s->made;
    s->ready = NULL;
    pthread_mutex_unlock(&s->lock);
    return fresh;
}

/* ---- the Python thread ---- */

void zp_snapshots_offer(zp_snapshots *s, int offered) {
    pthread_mutex_lock(&s->lock);
    s->offered = offered;
    pthread_mutex_unlock(&s->lock);
}

void zp_snapshots_close(zp_snapshots *s) {
    pthread_mutex_lock(&s->lock);
    s->closed = 1;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

static void sleep_for(zp_snapshots *s, uint64_t timeout_ns) {
    struct timespec t; /* the wall clock: a step of it makes one wait longer or shorter, no more */
    clock_gettime(CLOCK_REALTIME, &t);
    const uint64_t until = (uint64_t)t.tv_nsec + timeout_ns;
    t.tv_sec += (time_t)(until / 1000000000u);
    t.tv_nsec = (long)(until % 1000000000u);
    pthread_cond_timedwait(&s->changed, &s->lock, &t);
}

int zp_snapshots_wait(zp_snapshots *s, uint64_t timeout_ns) {
    pthread_mutex_lock(&s->lock);
    if (!s->asked && !s->closed) sleep_for(s, timeout_ns);
    const int result = s->closed ? -1 : s->asked;
    if (result > 0) {
        s->asked = 0;
        s->begun++;
    }
    pthread_mutex_unlock(&s->lock);
    return result;
}

static zp_snapshot *new_snapshot(const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size) {
    zp_snapshot *snapshot = malloc(sizeof *snapshot + header_size + body_size);
    if (!snapshot) return NULL;
    snapshot->header_size = header_size;
    snapshot->body_size = body_size;
    snapshot->header = (uint8_t *)(snapshot + 1);
    snapshot->body = snapshot->header + header_size;
    memcpy(snapshot->header, header, header_size);
    if (body_size) memcpy(snapshot->body, body, body_size);
    return snapshot;
}

int zp_snapshots_give(zp_snapshots *s, const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size) {
    zp_snapshot *snapshot = header ? new_snapshot(header, header_size, body, body_size) : NULL;
    pthread_mutex_lock(&s->lock);
    zp_snapshot *unseen = s->ready;
    s->ready = snapshot;
    s->made = s->begun;
    s->fresh = 1;
    pthread_mutex_unlock(&s->lock);
    zp_snapshot_free(unseen);
    return header && !snapshot ? -1 : 0;
}
