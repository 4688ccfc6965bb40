#include "listener.h"
#include "clock.h"
#include <netinet/in.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#ifdef __linux__
#include <linux/filter.h>
#endif

#define PATIENCE_NS 500000000u   /* for libzmq's threads, at the end */
#define KNOCK_NS 100000000u      /* where a connection to ourselves is made in microseconds, or something keeps it from being made */

int zp_set_int(void *socket, int option, int value) { return zp_zmq.setsockopt_(socket, option, &value, sizeof value); }

int zp_refuse_old_peers(void *socket) { return zp_zmq.setsockopt_(socket, ZMQ_ZAP_DOMAIN, "zmqpub", 6); }

void zp_listener_init(zp_listener *l) {
    memset(l, 0, sizeof *l);
    l->file.fd = -1;
    zp_peers_init(&l->peers);
}

/* The monitor is there before the first connection can be. */
static int watch(zp_listener *l, void *context) {
    static atomic_uint number;
    char address[64];
    snprintf(address, sizeof address, "inproc://zmqpub-monitor-%p-%u", (void *)l, atomic_fetch_add(&number, 1));
    const int events = ZMQ_EVENT_LISTENING | ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED;
    if (zp_zmq.socket_monitor_(l->socket, address, events) < 0) return -1;
    if (!(l->monitor = zp_zmq.socket_(context, ZMQ_PAIR))) return -1;
    return zp_set_int(l->monitor, ZMQ_LINGER, 0) < 0 ? -1 : zp_zmq.connect_(l->monitor, address);
}

int zp_listener_open(zp_listener *l, void *context, int type) {
    if (!(l->socket = zp_zmq.socket_(context, type))) return -1;
    return zp_set_int(l->socket, ZMQ_LINGER, 0) < 0 ? -1 : watch(l, context);
}

int zp_listener_bind(zp_listener *l, const char *address) {
    size_t size = sizeof l->bound;
    if (zp_zmq.bind_(l->socket, address) < 0) return -1;
    if (zp_zmq.getsockopt_(l->socket, ZMQ_LAST_ENDPOINT, l->bound, &size) < 0) return -1;
    memcpy(l->peers.endpoint, l->bound, sizeof l->bound);
    l->is_inproc = strncmp(l->bound, "inproc://", 9) == 0;
    zp_listener_look(l); /* at the listening socket, so that it is known even if no thread ever starts */
    return 0;
}

static void note(zp_listener *l, unsigned event, int fd) {
    if (event == ZMQ_EVENT_LISTENING) zp_file_note(&l->file, fd);
    else if (event == ZMQ_EVENT_DISCONNECTED) zp_peers_disconnected(&l->peers, fd);
    else if (event == ZMQ_EVENT_ACCEPTED) zp_peers_accepted(&l->peers, fd, zp_now());
}

void zp_listener_look(zp_listener *l) {
    for (zmq_msg_t m;;) {
        uint16_t event;
        int32_t value;
        zp_zmq.msg_init_(&m);
        if (zp_zmq.msg_recv_(&m, l->monitor, ZMQ_DONTWAIT) < 0) {
            zp_zmq.msg_close_(&m);
            return;
        }
        if (zp_zmq.msg_size_(&m) == 6 && zp_zmq.msg_more_(&m)) {
            const uint8_t *data = zp_zmq.msg_data_(&m);
            memcpy(&event, data, 2);
            memcpy(&value, data + 2, 4);
            note(l, event, value);
        }
        zp_zmq.msg_close_(&m);
    }
}

/* ---- the end ----
 *
 * libzmq 4.3.5 aborts the process when what it does with a connection's first or last bytes meets the end of its socket:
 *
 * - session_base.cpp, clean_pipes: a connection fails in the middle of a message, after its socket was closed with linger 0 and
 *   before that has reached the connection's own thread. A subscriber killed while the publisher is closed does it.
 * - zmtp_engine.cpp, process_routing_id_msg: a handshake of ZMTP 1.0 (which is whatever does not begin with FF, for a ROUTER also
 *   one of 2.0) becomes complete in that time, however long the linger. Anybody who can connect does it.
 *
 * So while the socket still lives, nobody new is let in, and every connection ends (not by unbind: that would end it from the
 * wrong side, too); with a linger, those that may still be shaking hands. Unix sockets, and other systems than Linux, let in
 * whoever comes: there is zp_refuse_old_peers, where it can be had. */

static int is_readable(int fd) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    return poll(&p, 1, 0) > 0;
}

static void nap(void) {
    const struct timespec time = {0, 50000};
    nanosleep(&time, NULL);
}

/* Until libzmq has let go of them, and where the door is shut, until it has taken in who still waits there. It tells through the
 * monitor, which must be read all the while: its threads stop where that is full. */
static void end_connections(zp_listener *l, int whom, int door_is_shut) {
    const uint64_t deadline = zp_now() + PATIENCE_NS;
    for (;;) {
        const int waiting = door_is_shut && is_readable(l->file.fd);
        zp_listener_look(l);
        if ((!zp_peers_disconnect(&l->peers, whom) && !waiting) || zp_now() >= deadline) return;
        nap();
    }
}

#ifdef __linux__
typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} inet_address;

/* The address of the listening socket; 0 when it is not TCP's, or not there. */
static socklen_t find_door(const zp_listener *l, inet_address *door) {
    socklen_t size = sizeof *door;
    if (!zp_file_is_open(&l->file) || getsockname(l->file.fd, &door->any, &size) < 0) return 0;
    return door->any.sa_family == AF_INET || door->any.sa_family == AF_INET6 ? size : 0;
}

/* Packets to the listening socket are dropped from now on, unless they come from that port (0: no exception). To shut it down
 * would abort libzmq. The system answers nobody then, and who tries again a second later meets the next who listens there.
 * Answers whether it could be done. */
static int shut_door(int listening, uint16_t exception) {
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 0), /* of the TCP header: the port where it comes from */
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, exception, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
        BPF_STMT(BPF_RET | BPF_K, 0),
    };
    const struct sock_fprog filter = {exception ? 4 : 1, exception ? program : program + 3};
    return setsockopt(listening, SOL_SOCKET, SO_ATTACH_FILTER, &filter, sizeof filter) == 0;
}

/* A socket that may yet be connected to the listener, and its own port; -1. */
static int make_knocker(const inet_address *door, socklen_t size, uint16_t *port) {
    const struct linger reset = {.l_onoff = 1, .l_linger = 0}; /* a connection that leaves nothing behind */
    inet_address own;
    memset(&own, 0, sizeof own);
    own.any.sa_family = door->any.sa_family;
    const int fd = socket(door->any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return -1;
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
    if (bind(fd, &own.any, size) < 0 || getsockname(fd, &own.any, &size) < 0) return close(fd), -1;
    *port = ntohs(own.any.sa_family == AF_INET ? own.v4.sin_port : own.v6.sin6_port);
    return fd;
}

/* libzmq tells of a connection some time after it has accepted it, and accepts one after the other. So when it greets the last that
 * there was, which is ours, it has told of all others. */
static void knock(zp_listener *l, const inet_address *door, socklen_t size) {
    const uint64_t deadline = zp_now() + KNOCK_NS;
    uint16_t port;
    const int fd = make_knocker(door, size, &port);
    if (fd < 0) return;
    shut_door(l->file.fd, port);
    const int failed = connect(fd, &door->any, size) < 0 && errno != EINPROGRESS;
    while (!failed && !is_readable(fd) && zp_now() < deadline) {
        zp_listener_look(l);
        nap();
    }
    close(fd);
}
#endif

/* With a linger, who was just sent his first message is known by that only when libzmq has written it: by when it answers the
 * knock. */
static void end_before_close(zp_listener *l, int lingers) {
#ifdef __linux__
    inet_address door;
    const socklen_t size = find_door(l, &door);
    if (size && shut_door(l->file.fd, 0)) {
        end_connections(l, lingers ? ZP_NOBODY : ZP_EVERYBODY, 1);
        knock(l, &door, size);
    }
#endif
    end_connections(l, lingers ? ZP_UNSETTLED : ZP_EVERYBODY, 0);
    zp_peers_let_go(&l->peers);
}

void zp_listener_close(zp_listener *l, int linger_ms) {
    if (l->socket) {
        if (l->monitor && !l->is_inproc) end_before_close(l, linger_ms != 0);
        if (l->is_inproc) zp_zmq.unbind_(l->socket, l->bound);
        zp_zmq.socket_monitor_(l->socket, NULL, 0);
        zp_set_int(l->socket, ZMQ_LINGER, linger_ms);
        zp_zmq.close_(l->socket);
        zp_file_wait_closed(&l->file, PATIENCE_NS);
    }
    if (l->monitor) zp_zmq.close_(l->monitor);
    l->socket = l->monitor = NULL;
}

void zp_listener_free(zp_listener *l) { zp_peers_free(&l->peers); }
