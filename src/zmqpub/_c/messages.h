/* messages.h: the frames of a notification, made from an event. Which messages, and in which order, is Bitcoin Core's:
 * CZMQNotificationInterface's callbacks, over notifiers sorted by topic.
 */
#ifndef ZMQPUB_MESSAGES_H
#define ZMQPUB_MESSAGES_H

#include "journal.h"
#include "zmqapi.h"

extern const char *const zp_topic_names[ZP_TOPICS];
const char *zp_topic_text(int topic, size_t *length);

/* One of an event's messages: number `index` of those that it makes for `topic`. */
typedef struct {
    int topic;
    uint32_t index;
} zp_message;

/* How many messages an event makes for all topics together, and the one at `place` among them in their order. */
uint32_t zp_event_size(const zp_event *e);
zp_message zp_event_message(const zp_event *e, uint32_t place);

/* Each fills in *m, which libzmq then owns or zp_zmq.msg_close_ frees: 0, or -1 without memory, and then there is none. A body
 * refers to the event's bytes where that is cheaper than a copy of them. */
int zp_message_copy(zmq_msg_t *m, const void *data, size_t size);
int zp_message_topic(zmq_msg_t *m, int topic);
int zp_message_body(zmq_msg_t *m, const zp_event *e, int topic, uint32_t index);
int zp_message_counter(zmq_msg_t *m, uint32_t counter);

/* How many bytes the body has, without making it. */
size_t zp_message_body_size(const zp_event *e, int topic, uint32_t index);

#endif
