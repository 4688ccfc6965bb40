/* zmqapi.h: the libzmq that pyzmq has loaded, reached through a table of functions filled at import.
 *
 * A second libzmq in the process would have its own contexts and message layout, so none is linked: zp_zmq_load looks
 * the functions up in pyzmq's extension, whose search includes the libzmq it was linked with.
 */
#ifndef ZMQPUB_ZMQAPI_H
#define ZMQPUB_ZMQAPI_H

#include "zmq.h"

#define ZP_ZMQ_FUNCTIONS(F)                                                                                            \
    F(int, errno, (void))                                                                                              \
    F(const char *, strerror, (int number))                                                                            \
    F(void, version, (int *major, int *minor, int *patch))                                                             \
    F(void *, ctx_new, (void))                                                                                         \
    F(int, ctx_term, (void *context))                                                                                  \
    F(void *, socket, (void *context, int type))                                                                       \
    F(int, close, (void *socket))                                                                                      \
    F(int, setsockopt, (void *socket, int option, const void *value, size_t size))                                     \
    F(int, getsockopt, (void *socket, int option, void *value, size_t *size))                                          \
    F(int, bind, (void *socket, const char *endpoint))                                                                 \
    F(int, unbind, (void *socket, const char *endpoint))                                                               \
    F(int, connect, (void *socket, const char *endpoint))                                                              \
    F(int, poll, (zmq_pollitem_t *items, int count, long timeout_ms))                                                  \
    F(int, socket_monitor, (void *socket, const char *endpoint, int events))                                           \
    F(int, msg_init, (zmq_msg_t *msg))                                                                                 \
    F(int, msg_init_size, (zmq_msg_t *msg, size_t size))                                                               \
    F(int, msg_init_data, (zmq_msg_t *msg, void *data, size_t size, zmq_free_fn *release, void *hint))                 \
    F(int, msg_close, (zmq_msg_t *msg))                                                                                \
    F(int, msg_move, (zmq_msg_t *to, zmq_msg_t *from))                                                                 \
    F(void *, msg_data, (zmq_msg_t *msg))                                                                              \
    F(size_t, msg_size, (const zmq_msg_t *msg))                                                                        \
    F(int, msg_more, (const zmq_msg_t *msg))                                                                           \
    F(int, msg_get, (const zmq_msg_t *msg, int property))                                                              \
    F(int, msg_send, (zmq_msg_t *msg, void *socket, int flags))                                                        \
    F(int, msg_recv, (zmq_msg_t *msg, void *socket, int flags))

typedef struct {
#define ZP_FIELD(type, name, arguments) type(*name##_) arguments;
    ZP_ZMQ_FUNCTIONS(ZP_FIELD)
#undef ZP_FIELD
} zp_zmq_table;

extern zp_zmq_table zp_zmq;

/* Fill the table from the extension module at path. NULL when all was found, else a static text or dlerror's. */
const char *zp_zmq_load(const char *path);

#endif
