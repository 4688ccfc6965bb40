#include "listener.h"
#include "clock.h"
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define PATIENCE_NS 500000000u   /* for libzmq's threads, at the end */

int zp_set_int(void *socket, int option, int value) { return zp_zmq.setsockopt_(socket, option, &value, sizeof value); }

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

/* libzmq (4.3.5, session_base.cpp, clean_pipes) aborts the process when a connection fails, in the middle of a message, after
 * its socket was closed with linger 0 and before that has reached the connection's own thread: a subscriber killed while the
 * publisher is closed does it. So every connection ends while the socket still lives (not by unbind: that would end it from the
 * wrong side, too). */
void zp_listener_close(zp_listener *l, int linger_ms) {
    if (l->socket) {
        if (l->monitor) zp_listener_look(l); /* at who connected last */
        zp_peers_end(&l->peers, linger_ms == 0, PATIENCE_NS);
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
