/* receiving.h: what the receiver's thread does, in parts: receiving.c takes in what the sockets and their monitors have,
 * silence.c makes a socket anew that says nothing, or never will. Of that thread alone.
 */
#ifndef ZMQPUB_RECEIVING_H
#define ZMQPUB_RECEIVING_H

#include "receiver.h"

static inline int zp_is_dead(int error) { return error == ETERM || error == ENOTSOCK; }

/* What returns an int here returns -1 with r->error set when receiving is over. */

void zp_receiver_flush(zp_receiver *r);          /* the stage, into the inbox */
void zp_receiver_make_room(zp_receiver *r);      /* in the stage, for one step */
void zp_receiver_tell_discarded(zp_receiver *r); /* there is room in the inbox again */
int zp_receiver_serve(zp_receiver *r, zp_source *source); /* 1: it may have more */
void zp_receiver_connected(zp_receiver *r, zp_source *source);
/* Everything that the ended connection brought is taken in as its own: a message is never said to be of a newer connection than
 * it is. */
int zp_receiver_end_connection(zp_receiver *r, zp_source *source);
void zp_receiver_expect_retry(const zp_receiver *r, zp_source *source);

uint64_t zp_receiver_tick_ns(const zp_receiver *r); /* between two looks at the silence */
int zp_receiver_tick(zp_receiver *r);

#endif
