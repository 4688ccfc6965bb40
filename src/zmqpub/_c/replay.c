#define _GNU_SOURCE /* SCHED_BATCH */
#include "replay.h"
#include "clock.h"
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ANSWERS 4                    /* that libzmq keeps for a client which does not take them */
#define REQUESTS 16                  /* that it keeps of a client while others are served */
#define LARGEST_FRAME 65536          /* bytes: beyond that libzmq disconnects the client */
#define LONGEST_MESSAGE (4u << 20)   /* bytes, in however many frames: beyond that we do */
#define LOOK_EVERY_MS 100            /* at who takes nothing, while something is under way */
#define GLANCE_EVERY_MS 250          /* at who says too much, while anybody is connected */
#define LAST_LINGER_MS 200           /* at the end, for what is on its way to the kernel */
#define NICE 5                       /* how much less of a busy processor than the live endpoints */

/* ---- the socket ---- */

static int configure(zp_replay *r) {
    const zp_replay_settings *s = &r->settings;
    const int64_t largest = LARGEST_FRAME;
    void *socket = r->listener.socket;
    int bad = zp_set_int(socket, ZMQ_SNDHWM, ANSWERS) | zp_set_int(socket, ZMQ_RCVHWM, REQUESTS) |
              zp_set_int(socket, ZMQ_ROUTER_MANDATORY, 1) | zp_set_int(socket, ZMQ_TCP_KEEPALIVE, 1) |
              zp_zmq.setsockopt_(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    if (s->ipv6) bad |= zp_set_int(socket, ZMQ_IPV6, 1);
    if (r->own_context) bad |= zp_refuse_old_peers(socket); /* no client of this protocol is that old */
    if (s->keepalive_idle >= 0) bad |= zp_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, s->keepalive_idle);
    if (s->keepalive_interval >= 0) bad |= zp_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, s->keepalive_interval);
    return bad ? -1 : 0;
}

static int open_socket(zp_replay *r) {
    if (r->own_context && !(r->context = zp_zmq.ctx_new_())) return -1;
    if (zp_listener_open(&r->listener, r->context, ZMQ_ROUTER) < 0 || configure(r) < 0) return -1;
    return zp_listener_bind(&r->listener, r->address);
}

static void close_socket(zp_replay *r, int linger_ms) {
    zp_listener_close(&r->listener, linger_ms);
    if (r->own_context && r->context)
        while (zp_zmq.ctx_term_(r->context) < 0 && zp_zmq.errno_() == EINTR) continue;
    if (r->own_context) r->context = NULL;
}

/* ---- requests ---- */

/* 1 with a letter, 0 when there is none, -1 with r->error. The caller closes both frames of a letter. */
static int receive(zp_replay *r, zmq_msg_t *m) {
    zp_zmq.msg_init_(m);
    while (zp_zmq.msg_recv_(m, r->listener.socket, ZMQ_DONTWAIT) < 0) {
        const int error = zp_zmq.errno_();
        if (error == EINTR) continue;
        zp_zmq.msg_close_(m);
        if (error == EAGAIN) return 0;
        return r->error = error, -1;
    }
    return 1;
}

/* Frames behind the request mean nothing, but one that could be a request among them would be answered twice. */
static int skip_rest(zp_replay *r, zp_replay_letter *letter, int more) {
    zmq_msg_t m;
    while (more) {
        const int got = receive(r, &m);
        if (got <= 0) return got;
        more = zp_zmq.msg_more_(&m);
        zp_zmq.msg_close_(&m);
        letter->extra = 1;
    }
    return 1;
}

static int read_request(zp_replay *r, zp_replay_letter *letter) {
    int got = receive(r, &letter->frame);
    if (got <= 0) return got;
    int more = zp_zmq.msg_more_(&letter->frame);
    if (more && zp_zmq.msg_size_(&letter->frame) == 0) {
        zp_zmq.msg_close_(&letter->frame);
        letter->delimiter = 1;
        if ((got = receive(r, &letter->frame)) <= 0) return got;
        more = zp_zmq.msg_more_(&letter->frame);
    }
    got = skip_rest(r, letter, more);
    if (got <= 0) zp_zmq.msg_close_(&letter->frame);
    return got;
}

static int read_letter(zp_replay *r, zp_replay_letter *letter) {
    int got = receive(r, &letter->identity);
    letter->delimiter = letter->extra = 0;
    if (got <= 0) return got;
    if ((got = read_request(r, letter)) <= 0) zp_zmq.msg_close_(&letter->identity);
    return got;
}

/* ---- who takes nothing, or says too much ---- */

static void report_eviction(zp_replay *r, int what, const zp_peer *gone) {
    atomic_fetch_add(&r->counts.evictions, 1);
    zp_log_add(r->log, what, r->listener.bound, gone->address, gone->backlog, 0);
}

static void evict(zp_replay *r) {
    const uint64_t now = zp_now(), stall = r->settings.stall_ns;
    zp_peers *peers = &r->listener.peers;
    zp_peer gone;
    zp_peers_sample(peers, now, stall > 1000000000u ? stall : 1000000000u);
    while (zp_peers_evict_stalled(peers, now, stall, &gone)) report_eviction(r, ZP_LOG_EVICTED_STALLED, &gone);
    while (zp_peers_evict_endless(peers, LONGEST_MESSAGE, &gone)) report_eviction(r, ZP_LOG_EVICTED_FLOODING, &gone);
}

/* Even what libzmq has let go of may still be with the kernel, for a client that takes nothing. */
static long patience_ms(zp_replay *r) {
    if (zp_clients_under_way(&r->clients) || zp_peers_any_backlog(&r->listener.peers)) return LOOK_EVERY_MS;
    return r->listener.peers.count ? GLANCE_EVERY_MS : -1;
}

/* ---- the thread ---- */

/* Sleep until there is a request, a connection, a snapshot or a word from another thread. */
static int rest(zp_replay *r) {
    zmq_pollitem_t items[] = {
        {r->listener.socket, 0, ZMQ_POLLIN, 0}, {r->listener.monitor, 0, ZMQ_POLLIN, 0}, {NULL, r->wakeup.read_fd, ZMQ_POLLIN, 0}};
    if (zp_zmq.poll_(items, 3, patience_ms(r)) < 0 && zp_zmq.errno_() != EINTR) return r->error = zp_zmq.errno_(), -1;
    if (items[1].revents) zp_listener_look(&r->listener);
    if (items[2].revents) zp_wakeup_clear(&r->wakeup);
    return 0;
}

static int serve_one(zp_replay *r) {
    zp_replay_letter letter;
    const int got = read_letter(r, &letter);
    if (got <= 0) return got;
    zp_peers_heard(&r->listener.peers, zp_zmq.msg_get_(&letter.frame, ZMQ_SRCFD));
    const int result = zp_replay_serve(r, &letter);
    zp_zmq.msg_close_(&letter.identity);
    zp_zmq.msg_close_(&letter.frame);
    return result < 0 ? -1 : 1;
}

static int serve(zp_replay *r) {
    uint64_t last_look = 0;
    while (!atomic_load(&r->stop)) {
        const int served = serve_one(r);
        if (served < 0 || zp_replay_serve_snapshots(r) < 0) return -1;
        if (served == 0 && rest(r) < 0) return -1;
        if (zp_now() - last_look < LOOK_EVERY_MS * 1000000u) continue;
        last_look = zp_now();
        zp_listener_look(&r->listener);
        evict(r);
    }
    return 0;
}

/* Wait for answers under way, here and not in libzmq, as it could not be told any more to hurry. Answers how long libzmq itself
 * may take for what it has in hand. */
static int linger(zp_replay *r) {
    const struct timespec nap = {0, 5000000};
    while (zp_clients_under_way(&r->clients) && zp_now() < atomic_load(&r->stop_deadline)) {
        nanosleep(&nap, NULL);
        zp_listener_look(&r->listener);
        evict(r);
    }
    const uint64_t deadline = atomic_load(&r->stop_deadline), now = zp_now();
    const uint64_t left_ms = deadline > now ? (deadline - now) / 1000000 : 0;
    return left_ms < LAST_LINGER_MS ? (int)left_ms : LAST_LINGER_MS;
}

/* libzmq's threads for this context inherit both from this one, as it opens the first socket. Not SCHED_IDLE: this thread takes the
 * journal's lock now and then, and on a busy machine those who publish would wait for it. */
static void let_others_go_first(void) {
#ifdef SCHED_BATCH
    const struct sched_param none = {0};
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &none);
#endif
#ifdef __linux__
    if (nice(NICE) < 0) return; /* of this thread, on Linux; what cannot be had is not needed */
#endif
}

static void say_opened(zp_replay *r, int error) {
    pthread_mutex_lock(&r->lock);
    r->opened = 1;
    r->open_error = error;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

static void wait_for_start(zp_replay *r) {
    pthread_mutex_lock(&r->lock);
    while (!r->serving) pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

static void *run(void *argument) {
    zp_replay *r = argument;
    let_others_go_first();
    if (open_socket(r) < 0) {
        const int error = zp_zmq.errno_();
        close_socket(r, 0);
        say_opened(r, error);
        return NULL;
    }
    atomic_store(&r->state, ZP_RUNNING);
    say_opened(r, 0);
    wait_for_start(r);
    const int died = serve(r) < 0;
    const int terminated = died && (r->error == ETERM || r->error == ENOTSOCK);
    close_socket(r, died ? 0 : linger(r));
    if (died) zp_log_add(r->log, terminated ? ZP_LOG_TERMINATED : ZP_LOG_FAILED, r->listener.bound, "", 0, r->error);
    atomic_store(&r->state, terminated ? ZP_TERMINATED : died ? ZP_FAILED : ZP_STOPPED);
    return NULL;
}

static int start_thread(zp_replay *r) {
    sigset_t all, before;
    /* Signals are the interpreter's business: none is delivered to this thread. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int error = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error) return error;
    r->started = 1;
    pthread_mutex_lock(&r->lock);
    while (!r->opened) pthread_cond_wait(&r->changed, &r->lock);
    const int result = r->open_error;
    pthread_mutex_unlock(&r->lock);
    return result;
}

/* ---- the beginning and the end ---- */

zp_replay *zp_replay_open(void *context, const char *address, const zp_replay_settings *settings, zp_history *history,
                          zp_journal *journal, zp_log *log, int *error) {
    zp_replay *r = calloc(1, sizeof *r);
    if (!r) return *error = ENOMEM, NULL;
    r->settings = *settings;
    r->context = context;
    r->own_context = context == NULL;
    r->history = history;
    r->journal = journal;
    r->log = log;
    r->wakeup.read_fd = r->wakeup.write_fd = -1;
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    zp_listener_init(&r->listener);
    zp_snapshots_init(&r->snapshots);
    r->address = strdup(address);
    *error = !r->address ? ENOMEM : zp_wakeup_open(&r->wakeup) < 0 ? errno : start_thread(r);
    if (!*error) return r;
    zp_replay_join(r);
    zp_replay_free(r);
    return NULL;
}

void zp_replay_start(zp_replay *r) {
    pthread_mutex_lock(&r->lock);
    r->serving = 1;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void zp_replay_stop(zp_replay *r, uint64_t linger_ns) {
    const uint64_t deadline = linger_ns >= UINT64_MAX / 2 ? UINT64_MAX : zp_now() + linger_ns;
    if (!atomic_load(&r->stop) || deadline < atomic_load(&r->stop_deadline)) atomic_store(&r->stop_deadline, deadline);
    atomic_store(&r->stop, 1);
    zp_replay_start(r);
    zp_wakeup_signal(&r->wakeup);
}

void zp_replay_join(zp_replay *r) {
    if (!r->started) return;
    pthread_join(r->thread, NULL);
    r->started = 0;
}

void zp_replay_free(zp_replay *r) {
    zp_clients_free(&r->clients);
    zp_snapshots_free(&r->snapshots);
    zp_listener_free(&r->listener);
    zp_wakeup_close(&r->wakeup);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->address);
    free(r);
}

/* ---- snapshots ---- */

void zp_replay_offer(zp_replay *r, int offered) { zp_snapshots_offer(&r->snapshots, offered); }

int zp_replay_give(zp_replay *r, const uint8_t *header, size_t header_size, const uint8_t *body, size_t body_size) {
    const int result = zp_snapshots_give(&r->snapshots, header, header_size, body, body_size);
    zp_wakeup_signal(&r->wakeup);
    return result;
}
