/* listener.h: a bound socket, the monitor that tells who connects to it, and an end that leaves nothing behind. */
#ifndef ZMQPUB_LISTENER_H
#define ZMQPUB_LISTENER_H

#include "peers.h"
#include "zmqapi.h"

/* What the thread that serves it is doing: it ended as it was told to, for its context ended, or for an error. */
enum { ZP_RUNNING = 1, ZP_STOPPED, ZP_TERMINATED, ZP_FAILED };

typedef struct {
    void *socket, *monitor;  /* owned; NULL when closed */
    zp_peers peers;
    zp_file file;            /* of the address, which is free again when libzmq has closed it */
    char bound[256];         /* ZMQ_LAST_ENDPOINT: with the real port */
    int is_inproc;           /* its connections have no descriptors, so that peers stays empty */
} zp_listener;

void zp_listener_init(zp_listener *l);
/* A socket of that type with its monitor, not bound yet. 0, or -1 with libzmq's errno; zp_listener_close is due either way. */
int zp_listener_open(zp_listener *l, void *context, int type);
int zp_listener_bind(zp_listener *l, const char *address);          /* 0, or -1 with libzmq's errno */
/* Read what the monitor says of connections that came or went. */
void zp_listener_look(zp_listener *l);
/* When this returns, the address can be bound again. */
void zp_listener_close(zp_listener *l, int linger_ms);
void zp_listener_free(zp_listener *l);                              /* closed */

int zp_set_int(void *socket, int option, int value);
/* Before it is bound: peers that speak ZMTP 1.0 or 2.0 are refused, and so are no danger to the end (listener.c). Only where nobody
 * in the context answers ZAP requests, or it would be asked about each connection. 0, or -1 with libzmq's errno. */
int zp_refuse_old_peers(void *socket);

#endif
