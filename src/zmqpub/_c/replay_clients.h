/* replay_clients.h: how much each client of the replay endpoint has under way: in answers that libzmq still holds. */
#ifndef ZMQPUB_REPLAY_CLIENTS_H
#define ZMQPUB_REPLAY_CLIENTS_H

#include "zmqapi.h"
#include <stdatomic.h>

typedef struct zp_client zp_client;
struct zp_client {
    zp_client *link;
    atomic_size_t under_way;    /* bytes; libzmq's threads take away from it */
    atomic_uint refs;           /* the list's, and one for each frame that counts */
    size_t size;
    uint8_t identity[255];      /* as the ROUTER socket names it */
};

typedef struct {
    zp_client *list;            /* only those with something under way, as of the last zp_clients_under_way */
} zp_clients;

/* Bytes under way, of all together. */
size_t zp_clients_under_way(zp_clients *c);
/* NULL without memory. */
zp_client *zp_clients_get(zp_clients *c, const void *identity, size_t size);
void zp_clients_free(zp_clients *c); /* frames may outlive it */

/* A frame with a copy of data that counts as `bytes` under way until libzmq has sent it or thrown it away: the last of its
 * message. 0, or -1 without memory. */
int zp_client_frame(zp_client *client, zmq_msg_t *m, const void *data, size_t size, size_t bytes);

#endif
