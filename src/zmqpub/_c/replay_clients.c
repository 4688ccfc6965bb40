#include "replay_clients.h"
#include <stdlib.h>
#include <string.h>

static void unref(zp_client *client) {
    if (atomic_fetch_sub(&client->refs, 1) == 1) free(client);
}

size_t zp_clients_under_way(zp_clients *c) {
    size_t total = 0;
    for (zp_client **p = &c->list; *p;) {
        zp_client *client = *p;
        const size_t bytes = atomic_load(&client->under_way);
        total += bytes;
        if (bytes) {
            p = &client->link;
        } else {
            *p = client->link;
            unref(client);
        }
    }
    return total;
}

zp_client *zp_clients_get(zp_clients *c, const void *identity, size_t size) {
    for (zp_client *client = c->list; client; client = client->link)
        if (client->size == size && memcmp(client->identity, identity, size) == 0) return client;
    zp_client *client = size <= sizeof client->identity ? calloc(1, sizeof *client) : NULL;
    if (!client) return NULL;
    atomic_init(&client->refs, 1);
    client->size = size;
    memcpy(client->identity, identity, size);
    client->link = c->list;
    c->list = client;
    return client;
}

void zp_clients_free(zp_clients *c) {
    for (zp_client *client = c->list, *next; client; client = next) {
        next = client->link;
        unref(client);
    }
    c->list = NULL;
}

/* ---- frames ---- */

typedef struct {
    zp_client *client;
    size_t bytes;
    uint8_t data[];
} counted;

static void release(void *data, void *hint) { /* on libzmq's thread */
    counted *frame = hint;
    (void)data;
    atomic_fetch_sub(&frame->client->under_way, frame->bytes);
    unref(frame->client);
    free(frame);
}

int zp_client_frame(zp_client *client, zmq_msg_t *m, const void *data, size_t size, size_t bytes) {
    counted *frame = malloc(sizeof *frame + size);
    if (!frame) return -1;
    frame->client = client;
    frame->bytes = bytes;
    if (size) memcpy(frame->data, data, size);
    if (zp_zmq.msg_init_data_(m, frame->data, size, release, frame) < 0) {
        free(frame);
        return -1;
    }
    atomic_fetch_add(&client->refs, 1);
    atomic_fetch_add(&client->under_way, bytes);
    return 0;
}
