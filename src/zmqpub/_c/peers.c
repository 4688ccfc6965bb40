#include "peers.h"
#include "clock.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/sockios.h>
#endif

/* ---- files that libzmq closes ---- */

void zp_file_note(zp_file *file, int fd) {
    struct stat s;
    *file = (zp_file){.fd = -1};
    if (fd >= 0 && fstat(fd, &s) == 0) *file = (zp_file){fd, s.st_dev, s.st_ino};
}

int zp_file_is_open(const zp_file *file) {
    struct stat s;
    return file->fd >= 0 && fstat(file->fd, &s) == 0 && s.st_dev == file->device && s.st_ino == file->inode;
}

void zp_file_wait_closed(const zp_file *file, uint64_t timeout_ns) {
    const struct timespec nap = {0, 50000};
    const uint64_t deadline = zp_now() + timeout_ns;
    while (zp_file_is_open(file) && zp_now() < deadline) nanosleep(&nap, NULL);
}

/* ---- the beginning ---- */

void zp_peers_init(zp_peers *p) {
    memset(p, 0, sizeof *p);
    pthread_mutex_init(&p->lock, NULL);
}

void zp_peers_free(zp_peers *p) {
    for (size_t i = 0; i < p->count; i++)
        if (p->list[i].fd >= 0) close(p->list[i].fd);
    free(p->list);
    pthread_mutex_destroy(&p->lock);
}

/* ---- what the kernel says of a connection ---- */

static uint64_t backlog_of(int fd) {
    int bytes = 0;
    if (fd < 0) return 0;
#ifdef __linux__
    if (ioctl(fd, SIOCOUTQ, &bytes) < 0) return 0;
#else
    socklen_t size = sizeof bytes;
    if (getsockopt(fd, SOL_SOCKET, SO_NWRITE, &bytes, &size) < 0) return 0;
#endif
    return bytes > 0 ? (uint64_t)bytes : 0;
}

uint64_t zp_peer_backlog(const zp_peer *peer) { return backlog_of(peer->fd); }

/* A number of linux/tcp.h's struct tcp_info (Linux 4.1), whose place in the system's ABI is fixed; libcs' own differ in whether
 * they reach that far. 0 where the system does not tell. */
enum { BYTES_ACKED = 15, BYTES_RECEIVED = 16 };

static int read_tcp_info(int fd, unsigned place, uint64_t *out) {
#ifdef __linux__
    uint64_t info[32];
    socklen_t size = sizeof info;
    if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, info, &size) < 0 || size < 8 * (place + 1)) return 0;
    return *out = info[place], 1;
#else
    (void)fd, (void)place, (void)out;
    return 0;
#endif
}

static uint64_t tcp_info_of(int fd, unsigned place) {
    uint64_t value;
    return read_tcp_info(fd, place, &value) ? value : 0;
}

/* Bytes that the peer's kernel acknowledged; where that is not known, only the backlog speaks. */
static uint64_t acked_of(int fd) { return tcp_info_of(fd, BYTES_ACKED); }

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
    struct sockaddr_un local;
    struct sockaddr_storage storage;
} any_address;

/* Is fd a connection of this endpoint? Between libzmq's message and our dup() the connection may have gone and its number
 * may name something else of the process: nothing but our own connections may ever be looked at or shut down. */
static int belongs(const zp_peers *p, int fd) {
    any_address a;
    socklen_t size = sizeof a;
    memset(&a, 0, sizeof a);
    if (getsockname(fd, &a.any, &size) < 0) return 0;
    if (a.any.sa_family == AF_UNIX) {
        const char *path = p->endpoint + (strncmp(p->endpoint, "ipc://", 6) == 0 ? 6 : 0);
        if (path == p->endpoint) return 0;
        if (*path == '@') return a.local.sun_path[0] == 0 && strncmp(a.local.sun_path + 1, path + 1, sizeof a.local.sun_path - 1) == 0;
        return strncmp(a.local.sun_path, path, sizeof a.local.sun_path) == 0;
    }
    const char *colon = strrchr(p->endpoint, ':');
    const long port = colon ? strtol(colon + 1, NULL, 10) : 0;
    if (a.any.sa_family == AF_INET) return ntohs(a.v4.sin_port) == port;
    if (a.any.sa_family == AF_INET6) return ntohs(a.v6.sin6_port) == port;
    return 0;
}

static void describe(int fd, char *out, size_t room) {
    any_address a;
    char text[INET6_ADDRSTRLEN] = "";
    socklen_t size = sizeof a;
    memset(&a, 0, sizeof a);
    if (getpeername(fd, &a.any, &size) < 0) {
        snprintf(out, room, "unknown");
    } else if (a.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a.v4.sin_addr, text, sizeof text);
        snprintf(out, room, "%s:%u", text, ntohs(a.v4.sin_port));
    } else if (a.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a.v6.sin6_addr, text, sizeof text);
        snprintf(out, room, "[%s]:%u", text, ntohs(a.v6.sin6_port));
    } else {
#ifdef __linux__
        struct { int32_t pid; uint32_t uid, gid; } who; /* struct ucred, which needs _GNU_SOURCE */
        size = sizeof who;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &size) == 0) {
            snprintf(out, room, "pid %d", (int)who.pid);
            return;
        }
#endif
        snprintf(out, room, "local");
    }
}

/* ---- the list ---- */

static void remove_at(zp_peers *p, size_t i) {
    for (int t = 0; t < ZP_PEER_TOPICS; t++) p->wanted[t] -= p->list[i].subscribed[t] != 0;
    if (p->list[i].fd >= 0) close(p->list[i].fd);
    p->list[i] = p->list[--p->count];
}

void zp_peers_disconnected(zp_peers *p, int fd) {
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->count; i++)
        if (p->list[i].libzmq_fd == fd) {
            remove_at(p, i);
            break;
        }
    pthread_mutex_unlock(&p->lock);
}

/* A dup, or -1: there is no such connection any more, unless errno is EMFILE. */
static int copy_of(const zp_peers *p, int fd) {
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (copy < 0 && errno == ENFILE) errno = EMFILE;
    if (copy < 0 || belongs(p, copy)) return copy;
    close(copy);
    return errno = EBADF, -1;
}

void zp_peers_accepted(zp_peers *p, int fd, uint64_t now) {
    zp_peers_disconnected(p, fd); /* an older connection under the same number has gone */
    int copy = copy_of(p, fd);
    if (copy < 0 && errno != EMFILE) return;
    pthread_mutex_lock(&p->lock);
    if (p->count == p->capacity) {
        size_t capacity = p->capacity ? p->capacity * 2 : 8;
        zp_peer *list = realloc(p->list, capacity * sizeof *list);
        if (!list) { /* unseen, it can neither be counted nor evicted, but it is served */
            pthread_mutex_unlock(&p->lock);
            if (copy >= 0) close(copy);
            return;
        }
        p->list = list;
        p->capacity = capacity;
    }
    zp_peer *peer = &p->list[p->count++];
    memset(peer, 0, sizeof *peer);
    peer->fd = copy;
    peer->libzmq_fd = fd;
    peer->silent = 1;
    peer->since = peer->last_progress = now;
    describe(copy < 0 ? fd : copy, peer->address, sizeof peer->address);
    pthread_mutex_unlock(&p->lock);
}

zp_peer *zp_peers_find(zp_peers *p, int libzmq_fd) {
    for (size_t i = 0; i < p->count; i++)
        if (p->list[i].libzmq_fd == libzmq_fd) return &p->list[i];
    return NULL;
}

int zp_peers_any_subscribing(const zp_peers *p, uint64_t now, uint64_t young_ns) {
    int any = 0;
    for (size_t i = 0; i < p->count; i++) any |= p->list[i].silent && !p->list[i].evicted && now - p->list[i].since < young_ns;
    return any;
}

void zp_peers_subscribe(zp_peers *p, zp_peer *peer, int topic, unsigned length, int on) {
    const int before = peer->subscribed[topic] != 0;
    if (on) peer->subscribed[topic] |= (uint16_t)(1u << length);
    else peer->subscribed[topic] &= (uint16_t)~(1u << length);
    p->wanted[topic] += (unsigned)((peer->subscribed[topic] != 0) - before);
}

/* ---- who is slow ---- */

void zp_peers_sample(zp_peers *p, uint64_t now, uint64_t stale_ns) {
    pthread_mutex_lock(&p->lock);
    const int stale = p->restart || now - p->last_sample > stale_ns;
    for (size_t i = 0; i < p->count; i++) {
        zp_peer *peer = &p->list[i];
        const uint64_t backlog = backlog_of(peer->fd), acked = acked_of(peer->fd);
        const int moved = acked ? acked != peer->acked : backlog != peer->backlog;
        if (backlog == 0 || moved || stale || !peer->sampled) peer->last_progress = now;
        peer->sampled = 1;
        peer->backlog = backlog;
        peer->acked = acked;
        peer->pressure = (p->forget ? 0 : peer->pressure) + backlog;
    }
    p->restart = p->forget = 0;
    p->last_sample = now;
    pthread_mutex_unlock(&p->lock);
}

int zp_peers_any_backlog(zp_peers *p) {
    int any = 0;
    for (size_t i = 0; i < p->count; i++) any |= p->list[i].backlog > 0 && !p->list[i].evicted;
    return any;
}

int zp_peers_any_unseen(zp_peers *p) {
    int any = 0;
    for (size_t i = 0; i < p->count; i++) any |= p->list[i].fd < 0;
    return any;
}

void zp_peers_restart(zp_peers *p) { p->restart = 1; }

void zp_peers_forget(zp_peers *p) { p->forget = 1; }

void zp_peers_evict(zp_peers *p, zp_peer *peer, zp_peer *out) {
    pthread_mutex_lock(&p->lock);
    if (peer->fd >= 0) shutdown(peer->fd, SHUT_RDWR);
    peer->evicted = 1;
    *out = *peer;
    pthread_mutex_unlock(&p->lock);
}

int zp_peers_evict_stalled(zp_peers *p, uint64_t now, uint64_t stall_ns, zp_peer *out) {
    for (size_t i = 0; i < p->count; i++) {
        zp_peer *peer = &p->list[i];
        if (peer->evicted || peer->backlog == 0 || now - peer->last_progress < stall_ns) continue;
        zp_peers_evict(p, peer, out);
        return 1;
    }
    return 0;
}

int zp_peers_evict_slowest(zp_peers *p, zp_peer *out) {
    zp_peer *worst = NULL;
    for (size_t i = 0; i < p->count; i++)
        if (!p->list[i].evicted && p->list[i].pressure && (!worst || p->list[i].pressure > worst->pressure)) worst = &p->list[i];
    if (!worst) return 0;
    zp_peers_evict(p, worst, out);
    return 1;
}

/* ---- who says too much ---- */

void zp_peers_heard(zp_peers *p, int libzmq_fd) {
    zp_peer *peer = zp_peers_find(p, libzmq_fd);
    if (!peer) return;
    peer->heard = 1;
    peer->silent = 0;
}

int zp_peers_evict_endless(zp_peers *p, uint64_t most, zp_peer *out) {
    for (size_t i = 0; i < p->count; i++) {
        zp_peer *peer = &p->list[i];
        const uint64_t said = tcp_info_of(peer->fd, BYTES_RECEIVED);
        if (peer->heard) peer->said_before = said;
        peer->heard = 0;
        if (peer->evicted || said - peer->said_before <= most) continue;
        zp_peers_evict(p, peer, out);
        return 1;
    }
    return 0;
}

/* ---- the end ---- */

/* Of its own accord, libzmq sends a peer that speaks ZMTP 1.0 or 2.0 this much at most. */
#define OLD_GREETING 14

/* Is its handshake over, or one that ends in no error, whatever comes? Who speaks ZMTP 1.0 or 2.0 is never named by what he
 * says, but was sent more than a greeting, if he has anything to receive. What cannot be told is no. */
static int is_settled(const zp_peer *peer) {
    uint64_t acked;
    if (!peer->silent) return 1;
    return read_tcp_info(peer->fd, BYTES_ACKED, &acked) && acked + backlog_of(peer->fd) > OLD_GREETING; /* in this order: none twice */
}

static int is_with_libzmq(const zp_peer *peer) {
    zp_file file;
    zp_file_note(&file, peer->fd);
    if (file.fd >= 0) file.fd = peer->libzmq_fd; /* the same connection, until libzmq closes it */
    return zp_file_is_open(&file);
}

size_t zp_peers_disconnect(zp_peers *p, int whom) {
    size_t open = 0;
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->count; i++) {
        zp_peer *peer = &p->list[i];
        if (peer->fd < 0) peer->fd = copy_of(p, peer->libzmq_fd); /* by now there may be descriptors */
        if (!peer->evicted && peer->fd >= 0 && (whom == ZP_EVERYBODY || (whom == ZP_UNSETTLED && !is_settled(peer)))) {
            shutdown(peer->fd, SHUT_RDWR);
            peer->evicted = 1;
        }
        open += peer->evicted && is_with_libzmq(peer);
    }
    pthread_mutex_unlock(&p->lock);
    return open;
}

void zp_peers_let_go(zp_peers *p) {
    pthread_mutex_lock(&p->lock);
    for (size_t i = 0; i < p->count; i++)
        if (p->list[i].fd >= 0) close(p->list[i].fd);
    p->count = 0;
    memset(p->wanted, 0, sizeof p->wanted);
    pthread_mutex_unlock(&p->lock);
}
