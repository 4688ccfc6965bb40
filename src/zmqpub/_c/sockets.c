#include "sockets.h"
#include "cursor.h"
#include "listener.h"
#include "messages.h"
#include <string.h>

/* No body that Bitcoin has is longer (MAX_SIZE of Bitcoin Core's serialize.h); libzmq closes the connection of whoever sends one. */
#define LARGEST_FRAME ((int64_t)ZP_MAX_SIZE)
#define WATCHED                                                                                                        \
    (ZMQ_EVENT_CONNECTED | ZMQ_EVENT_CONNECT_DELAYED | ZMQ_EVENT_CONNECT_RETRIED | ZMQ_EVENT_HANDSHAKE_SUCCEEDED |     \
     ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH |    \
     ZMQ_EVENT_DISCONNECTED)

static int configure(void *socket, const zp_source *source, const zp_receiver_settings *s) {
    const int64_t largest = LARGEST_FRAME;
    int bad = zp_set_int(socket, ZMQ_RCVHWM, s->rcvhwm) | zp_set_int(socket, ZMQ_LINGER, 0) | zp_set_int(socket, ZMQ_TCP_KEEPALIVE, 1) |
              zp_set_int(socket, ZMQ_RECONNECT_IVL, s->reconnect_ms) | zp_set_int(socket, ZMQ_RECONNECT_IVL_MAX, s->reconnect_max_ms) |
              zp_zmq.setsockopt_(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest);
    if (source->ipv6) bad |= zp_set_int(socket, ZMQ_IPV6, 1);
    if (s->keepalive_idle >= 0) bad |= zp_set_int(socket, ZMQ_TCP_KEEPALIVE_IDLE, s->keepalive_idle);
    if (s->keepalive_interval >= 0) bad |= zp_set_int(socket, ZMQ_TCP_KEEPALIVE_INTVL, s->keepalive_interval);
    if (s->heartbeat_ms > 0) bad |= zp_set_int(socket, ZMQ_HEARTBEAT_IVL, s->heartbeat_ms);
    return bad ? -1 : 0;
}

static int subscribe(void *socket, unsigned topics) {
    for (int i = 0; i < ZP_TOPICS; i++)
        if (topics & 1u << i && zp_zmq.setsockopt_(socket, ZMQ_SUBSCRIBE, zp_topic_names[i], strlen(zp_topic_names[i])) < 0) return -1;
    return 0;
}

/* The monitor is there before the first connection can be. */
static int watch(zp_source *source, void *context) {
    static atomic_uint number;
    char address[64];
    snprintf(address, sizeof address, "inproc://zmqpub-source-%p-%u", (void *)source, atomic_fetch_add(&number, 1));
    if (zp_zmq.socket_monitor_(source->socket, address, WATCHED) < 0) return -1;
    if (!(source->monitor = zp_zmq.socket_(context, ZMQ_PAIR))) return -1;
    return zp_set_int(source->monitor, ZMQ_LINGER, 0) < 0 ? -1 : zp_zmq.connect_(source->monitor, address);
}

int zp_source_open(zp_source *source, const zp_receiver_settings *settings, void *context) {
    if ((source->socket = zp_zmq.socket_(context, ZMQ_SUB)) && configure(source->socket, source, settings) == 0 &&
        watch(source, context) == 0 && subscribe(source->socket, source->stream.topics) == 0 &&
        zp_zmq.connect_(source->socket, source->endpoint) == 0)
        return 0;
    const int error = zp_zmq.errno_();
    zp_source_close(source);
    return error;
}

void zp_source_close(zp_source *source) {
    if (source->socket) {
        zp_zmq.socket_monitor_(source->socket, NULL, 0);
        zp_zmq.close_(source->socket);
    }
    if (source->monitor) zp_zmq.close_(source->monitor);
    source->socket = source->monitor = NULL;
}

/* Frame 1: 2 bytes of event, 4 of value, as the machine stores them; frame 2: the address. */
int zp_monitor_next(void *monitor, zp_monitor_event *out) {
    zp_frames f;
    uint16_t event = 0;
    zp_frames_init(&f);
    const int n = zp_frames_receive(&f, monitor);
    if (n > 0 && zp_zmq.msg_size_(&f.frame[0]) >= 2) memcpy(&event, zp_zmq.msg_data_(&f.frame[0]), 2);
    out->event = event;
    out->address[0] = 0;
    if (n >= 2) {
        const size_t size = zp_zmq.msg_size_(&f.frame[1]), kept = size < sizeof out->address - 1 ? size : sizeof out->address - 1;
        memcpy(out->address, zp_zmq.msg_data_(&f.frame[1]), kept);
        out->address[kept] = 0;
    }
    const int error = zp_zmq.errno_();
    zp_frames_close(&f);
    if (n < 0) errno = error;
    return n < 0 ? -1 : 0;
}
