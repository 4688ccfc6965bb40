/* notification.h: a message as it comes from a socket, checked into an entry. Knows no counters but the message's own.
 *
 * A notification has exactly three frames: topic, body, counter. Bodies of hashes and sequence messages are copied into the
 * entry. A raw body is walked at once, so that a malformed one is known here; if it is large it stays where libzmq put it.
 */
#ifndef ZMQPUB_NOTIFICATION_H
#define ZMQPUB_NOTIFICATION_H

#include "entry.h"
#include "journal.h"
#include "zmqapi.h"

enum { ZP_FRAMES = 3 };

typedef struct {
    zmq_msg_t frame[ZP_FRAMES];
} zp_frames;

void zp_frames_init(zp_frames *f);
void zp_frames_close(zp_frames *f);
/* Receive one message without waiting: how many frames it had, of which the first three are kept; 0: there is none; -1 with
 * libzmq's errno. */
int zp_frames_receive(zp_frames *f, void *socket);
/* Make an entry of a message of `count` frames: ZP_ENTRY_MESSAGE, or ZP_ENTRY_MALFORMED. topics: a bit for each that was asked
 * for. source and generation are left to the caller. */
void zp_notification_read(zp_frames *f, int count, unsigned topics, zp_entry *out);
/* Are the bodies of two messages of one topic the same? */
int zp_notification_same_body(const zp_entry *e, const uint8_t *small, const zp_body *body);

#endif
