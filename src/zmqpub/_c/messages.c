#include "messages.h"
#include <string.h>

/* A raw transaction up to this size is copied into the frame: libzmq allocates either way, and a copy of some hundred bytes
 * costs less than counting a reference that another thread gives back (measured: benchmarks/README.md). */
#define COPY_UP_TO 512

const char *const zp_topic_names[ZP_TOPICS] = {"hashblock", "hashtx", "rawblock", "rawtx", "sequence"};
static const uint8_t topic_sizes[ZP_TOPICS] = {9, 6, 8, 5, 8};

const char *zp_topic_text(int topic, size_t *length) {
    *length = topic_sizes[topic];
    return zp_topic_names[topic];
}

/* ---- which ---- */

uint32_t zp_event_size(const zp_event *e) {
    uint32_t n = 0;
    for (int t = 0; t < ZP_TOPICS; t++) n += zp_event_messages(e, t);
    return n;
}

zp_message zp_event_message(const zp_event *e, uint32_t place) {
    if (e->kind == ZP_TIP_UPDATED) return (zp_message){place ? ZP_RAWBLOCK : ZP_HASHBLOCK, 0};
    if (place < 2 * zp_event_messages(e, ZP_HASHTX)) return (zp_message){place % 2 ? ZP_RAWTX : ZP_HASHTX, place / 2};
    return (zp_message){ZP_SEQUENCE, 0};
}

/* ---- frames ---- */

int zp_message_copy(zmq_msg_t *m, const void *data, size_t size) {
    if (zp_zmq.msg_init_size_(m, size) < 0) return -1;
    memcpy(zp_zmq.msg_data_(m), data, size);
    return 0;
}

int zp_message_topic(zmq_msg_t *m, int topic) { return zp_message_copy(m, zp_topic_names[topic], topic_sizes[topic]); }

int zp_message_counter(zmq_msg_t *m, uint32_t counter) {
    uint8_t number[4];
    zp_store_le32(number, counter);
    return zp_message_copy(m, number, sizeof number);
}

static void release_body(void *data, void *hint) { /* on libzmq's thread: no Python */
    (void)data;
    zp_body_unref(hint);
}

static int refer_to(zmq_msg_t *m, zp_body *b, const uint8_t *data, size_t size) {
    if (size <= COPY_UP_TO) return zp_message_copy(m, data, size);
    zp_body_ref(b);
    if (zp_zmq.msg_init_data_(m, (void *)(uintptr_t)data, size, release_body, b) == 0) return 0;
    zp_body_unref(b);
    return -1;
}

static int is_block(const zp_event *e) { return e->kind == ZP_BLOCK_CONNECTED || e->kind == ZP_BLOCK_DISCONNECTED; }

/* Which transaction of the body. */
static uint32_t transaction_of(const zp_event *e, uint32_t index) { return is_block(e) ? index : e->index; }

static int copy_hash(zmq_msg_t *m, const uint8_t *hash) { return hash ? zp_message_copy(m, hash, 32) : -1; }

static char label_of(const zp_event *e) {
    switch (e->kind) {
    case ZP_TX_ADDED: return 'A';
    case ZP_TX_REMOVED: return 'R';
    default: return e->kind == ZP_BLOCK_CONNECTED ? 'C' : 'D';
    }
}

static size_t sequence_size(const zp_event *e) { return is_block(e) ? 33 : 41; }

static int make_sequence(zmq_msg_t *m, const zp_event *e) {
    uint8_t body[41];
    const uint8_t *hash = is_block(e) ? zp_body_hash(e->body) : zp_body_txid(e->body, e->index);
    if (!hash) return -1;
    memcpy(body, hash, 32);
    body[32] = (uint8_t)label_of(e);
    zp_store_le64(body + 33, e->mempool_sequence);
    return zp_message_copy(m, body, sequence_size(e));
}

static size_t tx_size(const zp_body *b, uint32_t i) { return zp_body_tx_end(b, i) - b->places[i].start; }

int zp_message_body(zmq_msg_t *m, const zp_event *e, int topic, uint32_t index) {
    zp_body *b = e->body;
    const uint32_t i = transaction_of(e, index);
    switch (topic) {
    case ZP_HASHBLOCK: return copy_hash(m, zp_body_hash(b));
    case ZP_HASHTX: return copy_hash(m, zp_body_txid(b, i));
    case ZP_RAWBLOCK: return refer_to(m, b, b->raw, b->size);
    case ZP_RAWTX: return refer_to(m, b, b->raw + b->places[i].start, tx_size(b, i));
    default: return make_sequence(m, e);
    }
}

size_t zp_message_body_size(const zp_event *e, int topic, uint32_t index) {
    switch (topic) {
    case ZP_RAWBLOCK: return e->body->size;
    case ZP_RAWTX: return tx_size(e->body, transaction_of(e, index));
    case ZP_SEQUENCE: return sequence_size(e);
    default: return 32;
    }
}
