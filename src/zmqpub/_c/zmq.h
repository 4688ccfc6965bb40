/* zmq.h: what zmqpub and pyzmq's .pxd files need of libzmq's header, which pyzmq's wheels do not ship.
 *
 * Only declarations that libzmq keeps stable (its public ABI since 4.0). Nothing here is linked: the functions are
 * reached through zmqapi.h, in the libzmq that pyzmq has loaded.
 */
#ifndef ZMQPUB_ZMQ_H
#define ZMQPUB_ZMQ_H

#include <errno.h>
#include <stddef.h>
#include <stdint.h>

#define ZMQ_VERSION_MAJOR 4
#define ZMQ_VERSION_MINOR 3
#define ZMQ_VERSION_PATCH 0
#define ZMQ_MAKE_VERSION(major, minor, patch) ((major) * 10000 + (minor) * 100 + (patch))
#define ZMQ_VERSION ZMQ_MAKE_VERSION(ZMQ_VERSION_MAJOR, ZMQ_VERSION_MINOR, ZMQ_VERSION_PATCH)

typedef struct zmq_msg_t {
    _Alignas(void *) unsigned char _[64];
} zmq_msg_t;

typedef struct zmq_pollitem_t {
    void *socket;
    int fd;
    short events, revents;
} zmq_pollitem_t;

typedef void(zmq_free_fn)(void *data, void *hint);

enum { ZMQ_PAIR = 0, ZMQ_SUB = 2, ZMQ_DEALER = 5, ZMQ_ROUTER = 6, ZMQ_XPUB = 9 };
enum { ZMQ_DONTWAIT = 1, ZMQ_SNDMORE = 2 };
enum { ZMQ_POLLIN = 1 };
enum { ZMQ_SRCFD = 2 };
enum {
    ZMQ_SUBSCRIBE = 6,
    ZMQ_EVENTS = 15,
    ZMQ_LINGER = 17,
    ZMQ_RECONNECT_IVL = 18,
    ZMQ_RECONNECT_IVL_MAX = 21,
    ZMQ_MAXMSGSIZE = 22,
    ZMQ_SNDHWM = 23,
    ZMQ_RCVHWM = 24,
    ZMQ_SNDTIMEO = 28,
    ZMQ_LAST_ENDPOINT = 32,
    ZMQ_ROUTER_MANDATORY = 33,
    ZMQ_TCP_KEEPALIVE = 34,
    ZMQ_TCP_KEEPALIVE_IDLE = 36,
    ZMQ_TCP_KEEPALIVE_INTVL = 37,
    ZMQ_IPV6 = 42,
    ZMQ_ZAP_DOMAIN = 55,
    ZMQ_XPUB_NODROP = 69,
    ZMQ_HEARTBEAT_IVL = 75,
    ZMQ_XPUB_VERBOSER = 78
};
enum {
    ZMQ_EVENT_CONNECTED = 0x0001,
    ZMQ_EVENT_CONNECT_DELAYED = 0x0002,
    ZMQ_EVENT_CONNECT_RETRIED = 0x0004,
    ZMQ_EVENT_LISTENING = 0x0008,
    ZMQ_EVENT_ACCEPTED = 0x0020,
    ZMQ_EVENT_DISCONNECTED = 0x0200,
    ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL = 0x0800,
    ZMQ_EVENT_HANDSHAKE_SUCCEEDED = 0x1000,
    ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL = 0x2000,
    ZMQ_EVENT_HANDSHAKE_FAILED_AUTH = 0x4000
};
#ifndef ETERM
#define ETERM (156384712 + 53)
#endif

#endif
