/* journal_sync.c: what survives a loss of power: what was synced, at each event or now and then by a thread of its own. */
#include "clock.h"
#include "journal_file.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>

struct zp_syncer {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    int stop;
    uint64_t synced;           /* events that the disk has */
    zp_journal_file *file;
};

/* The mapped head is synced with the rest: its pages are the file's. */
int zp_file_sync(zp_journal_file *f) {
#ifdef __APPLE__
    const int r = fcntl(f->fd, F_FULLFSYNC);
#else
    const int r = fdatasync(f->fd);
#endif
    return r < 0 ? errno : 0;
}

static void deadline_after(double seconds, struct timespec *t) {
    clock_gettime(CLOCK_REALTIME, t);
    const double whole = (double)(time_t)seconds;
    t->tv_sec += (time_t)seconds;
    t->tv_nsec += (long)((seconds - whole) * 1e9);
    if (t->tv_nsec >= 1000000000) t->tv_sec++, t->tv_nsec -= 1000000000;
}

static void *run(void *argument) {
    zp_syncer *s = argument;
    pthread_mutex_lock(&s->lock);
    while (!s->stop) {
        struct timespec until;
        deadline_after(s->file->sync, &until);
        pthread_cond_timedwait(&s->wanted, &s->lock, &until);
        const uint64_t committed = s->file->state->committed;
        if (committed == s->synced) continue;
        pthread_mutex_unlock(&s->lock);
        const int failed = zp_file_sync(s->file);
        pthread_mutex_lock(&s->lock);
        if (failed) atomic_store(&s->file->sync_error, failed);
        else s->synced = committed;
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

int zp_syncer_start(zp_journal_file *f) {
    sigset_t all, before;
    if (f->sync <= 0) return 0;
    zp_syncer *s = calloc(1, sizeof *s);
    if (!s) return ENOMEM;
    s->file = f;
    s->synced = f->state->committed;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->wanted, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int failed = pthread_create(&s->thread, NULL, run, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed) {
        pthread_cond_destroy(&s->wanted);
        pthread_mutex_destroy(&s->lock);
        free(s);
        return failed;
    }
    f->syncer = s;
    return 0;
}

void zp_syncer_stop(zp_journal_file *f) {
    zp_syncer *s = f->syncer;
    pthread_mutex_lock(&s->lock);
    s->stop = 1;
    pthread_cond_signal(&s->wanted);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_cond_destroy(&s->wanted);
    pthread_mutex_destroy(&s->lock);
    free(s);
    f->syncer = NULL;
}
