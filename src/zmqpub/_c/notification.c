#include "notification.h"
#include "messages.h"
#include <stdarg.h>

/* libzmq (4.3.5) reads into buffers of 8,192 bytes, which a message that lies within one keeps alive as a whole: one kept
 * transaction could hold thirty times its size. Up to that size bodies are copied. */
#define LIBZMQ_BUFFER 8192
#define SHOWN 32 /* bytes of a strange frame */

/* ---- frames ---- */

void zp_frames_init(zp_frames *f) {
    for (int i = 0; i < ZP_FRAMES; i++) zp_zmq.msg_init_(&f->frame[i]);
}

void zp_frames_close(zp_frames *f) {
    for (int i = 0; i < ZP_FRAMES; i++) zp_zmq.msg_close_(&f->frame[i]);
}

static int receive_frame(zmq_msg_t *frame, void *socket) {
    int r;
    do r = zp_zmq.msg_recv_(frame, socket, ZMQ_DONTWAIT);
    while (r < 0 && zp_zmq.errno_() == EINTR);
    return r;
}

/* What follows the third frame. */
static int receive_rest(void *socket) {
    zmq_msg_t rest;
    int count = 0, more = 1;
    zp_zmq.msg_init_(&rest);
    while (more) {
        if (receive_frame(&rest, socket) < 0) {
            count = -1;
            break;
        }
        count++;
        more = zp_zmq.msg_more_(&rest);
    }
    zp_zmq.msg_close_(&rest);
    return count;
}

int zp_frames_receive(zp_frames *f, void *socket) {
    for (int i = 0; i < ZP_FRAMES; i++) {
        if (receive_frame(&f->frame[i], socket) < 0) return zp_zmq.errno_() == EAGAIN ? 0 : -1;
        if (!zp_zmq.msg_more_(&f->frame[i])) return i + 1;
    }
    const int rest = receive_rest(socket);
    return rest < 0 ? -1 : ZP_FRAMES + rest;
}

/* ---- what is wrong ---- */

/* Bytes of a stranger as text: printable ASCII as it is, the rest as \xNN. */
static void show(char *out, size_t room, const uint8_t *data, size_t size) {
    size_t at = 0;
    for (size_t i = 0; i < size && i < SHOWN && at + 5 < room; i++) {
        if (data[i] >= 0x20 && data[i] < 0x7F && data[i] != '\\') out[at++] = (char)data[i];
        else at += (size_t)snprintf(out + at, room - at, "\\x%02x", data[i]);
    }
    out[at] = 0;
}

static __attribute__((format(printf, 2, 3))) void wrong(zp_entry *out, const char *format, ...) {
    char text[320];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    out->kind = ZP_ENTRY_MALFORMED;
    out->u.malformed.reason = strdup(text);
}

static const char *plural(size_t n) { return n == 1 ? "" : "s"; }

/* ---- the topic ---- */


static uint8_t topic_of(const zmq_msg_t *frame, unsigned topics) {
    const size_t size = zp_zmq.msg_size_(frame);
    const uint8_t *data = zp_zmq.msg_data_((zmq_msg_t *)frame);
    uint8_t topic = ZP_NO_TOPIC;
    switch (size) {
    case 5: topic = ZP_RAWTX; break;
    case 6: topic = ZP_HASHTX; break;
    case 8: topic = data[0] == 'r' ? ZP_RAWBLOCK : ZP_SEQUENCE; break;
    case 9: topic = ZP_HASHBLOCK; break;
    default: return ZP_NO_TOPIC;
    }
    return topics & 1u << topic && memcmp(data, zp_topic_names[topic], size) == 0 ? topic : ZP_NO_TOPIC;
}

static void strange_topic(const zmq_msg_t *frame, zp_entry *out) {
    const size_t size = zp_zmq.msg_size_(frame);
    const uint8_t *data = zp_zmq.msg_data_((zmq_msg_t *)frame);
    char shown[5 * SHOWN];
    show(shown, sizeof shown, data, size);
    wrong(out, "the topic is none that was asked for: '%s'%s (%zu byte%s)", shown, size > SHOWN ? "..." : "", size, plural(size));
    out->length = (uint8_t)(size < ZP_LARGEST_NAME ? size : ZP_LARGEST_NAME);
    memcpy(out->u.malformed.name, data, out->length);
}

/* ---- the body ---- */

typedef struct {
    zp_owner owner;
    zmq_msg_t message;
} kept_message;

static void release_message(zp_owner *owner) {
    zp_zmq.msg_close_(&((kept_message *)owner)->message);
    free(owner);
}

/* The bytes of a raw body, with their owner; NULL when out of memory. */
static const uint8_t *keep(zmq_msg_t *frame, size_t size, void **owner, int *owner_kind) {
    if (size <= LIBZMQ_BUFFER) {
        uint8_t *copy = malloc(size ? size : 1);
        if (copy) memcpy(copy, zp_zmq.msg_data_(frame), size);
        *owner_kind = ZP_OWNER_COPY;
        return *owner = copy;
    }
    kept_message *kept = malloc(sizeof *kept);
    *owner = kept;
    *owner_kind = ZP_OWNER_RELEASES;
    if (!kept) return NULL;
    kept->owner.release = release_message;
    zp_zmq.msg_init_(&kept->message);
    zp_zmq.msg_move_(&kept->message, frame);
    return zp_zmq.msg_data_(&kept->message);
}

static void drop(void *owner, int owner_kind) {
    if (owner && owner_kind == ZP_OWNER_RELEASES) release_message(owner);
    else free(owner);
}

static void wrong_raw(zp_entry *out, const zp_decode_error *error) {
    const char *name = zp_topic_names[out->topic];
    if (!error->expected) {
        wrong(out, "no memory for a %s body", name);
    } else if (out->topic == ZP_RAWBLOCK && error->transaction != UINT32_MAX) {
        wrong(out, "%s body, transaction %" PRIu32 ": at offset %zu: expected %s, got %s", name, error->transaction, error->offset,
              error->expected, error->got);
    } else {
        wrong(out, "%s body: at offset %zu: expected %s, got %s", name, error->offset, error->expected, error->got);
    }
}

static void read_raw(zmq_msg_t *frame, zp_entry *out) {
    const size_t size = zp_zmq.msg_size_(frame);
    zp_decode_error error = {0};
    void *owner;
    int owner_kind;
    const uint8_t *raw = keep(frame, size, &owner, &owner_kind);
    zp_body *body = raw ? zp_body_parse(out->topic == ZP_RAWBLOCK ? ZP_BLOCK : ZP_TRANSACTION, raw, size, &error) : NULL;
    if (!body) {
        drop(owner, owner_kind);
        wrong_raw(out, &error);
        return;
    }
    body->owner = owner;
    body->owner_kind = (uint8_t)owner_kind;
    out->flags |= ZP_HAS_BODY;
    out->u.body = body;
}

static void read_hash(const uint8_t *data, size_t size, zp_entry *out) {
    if (size == 32) {
        memcpy(out->u.small, data, 32);
        out->length = 32;
    } else {
        wrong(out, "%s body: expected a hash of 32 bytes, got %zu byte%s", zp_topic_names[out->topic], size, plural(size));
    }
}

static void read_sequence(const uint8_t *data, size_t size, zp_entry *out) {
    char shown[8];
    if (size <= 32) {
        wrong(out, "sequence body: expected a hash of 32 bytes and a label, got %zu byte%s", size, plural(size));
        return;
    }
    const uint8_t label = data[32];
    const size_t expected = label == 'C' || label == 'D' ? 33 : label == 'A' || label == 'R' ? 41 : 0;
    show(shown, sizeof shown, &label, 1);
    if (!expected) {
        wrong(out, "sequence body: expected a label, one of C, D, A, R, got '%s'", shown);
    } else if (size != expected) {
        wrong(out, "sequence body: expected %zu bytes with label %s, got %zu byte%s", expected, shown, size, plural(size));
    } else {
        memcpy(out->u.small, data, size);
        out->length = (uint8_t)size;
    }
}

static void read_body(zmq_msg_t *frame, zp_entry *out) {
    const uint8_t *data = zp_zmq.msg_data_(frame);
    const size_t size = zp_zmq.msg_size_(frame);
    switch (out->topic) {
    case ZP_RAWBLOCK:
    case ZP_RAWTX: read_raw(frame, out); break;
    case ZP_SEQUENCE: read_sequence(data, size, out); break;
    default: read_hash(data, size, out);
    }
}

/* ---- the whole ---- */

static void read_counter(zmq_msg_t *frame, zp_entry *out) {
    if (zp_zmq.msg_size_(frame) != 4) return;
    out->counter = (uint32_t)zp_load_le(zp_zmq.msg_data_(frame), 4);
    out->flags |= ZP_HAS_COUNTER;
}

void zp_notification_read(zp_frames *f, int count, unsigned topics, zp_entry *out) {
    out->kind = ZP_ENTRY_MESSAGE;
    out->length = out->flags = 0;
    out->counter = 0;
    out->topic = topic_of(&f->frame[0], topics);
    if (count >= ZP_FRAMES) read_counter(&f->frame[2], out);
    if (out->topic == ZP_NO_TOPIC) {
        strange_topic(&f->frame[0], out);
    } else if (count != ZP_FRAMES) {
        wrong(out, "expected 3 frames: topic, body, counter, got %d", count);
    } else if (!(out->flags & ZP_HAS_COUNTER)) {
        const size_t size = zp_zmq.msg_size_(&f->frame[2]);
        wrong(out, "counter: expected 4 bytes, got %zu byte%s", size, plural(size));
    } else {
        read_body(&f->frame[1], out);
    }
}

int zp_notification_same_body(const zp_entry *e, const uint8_t *small, const zp_body *body) {
    if (!(e->flags & ZP_HAS_BODY)) return memcmp(e->u.small, small, e->length) == 0;
    return body && body->size == e->u.body->size && memcmp(body->raw, e->u.body->raw, body->size) == 0;
}
