/* recognize.h: what the embedding program hands over again after a restart, known from what the journal file still holds.
 *
 * A node that comes back does not know how much of what it last said was published. It begins a little earlier, and what the file
 * holds already is skipped: a block that is connected (or disconnected) as far as the file tells, the last tip when no block came
 * after it, a mempool event with its txid and mempool sequence. From there on it may repeat what it had said word for word, also
 * blocks and tips that are history by now (a reorganization): what comes next in the file is known whatever it is. The first event
 * that is none of these is new, and all behind it.
 */
#ifndef ZMQPUB_RECOGNIZE_H
#define ZMQPUB_RECOGNIZE_H

#include "journal_file.h"

typedef struct zp_recognizer zp_recognizer;

/* Of the events held, the last ZP_RECOGNIZED at most. NULL without memory. */
#define ZP_RECOGNIZED 262144u
zp_recognizer *zp_recognizer_new(zp_journal_file *f);
void zp_recognizer_free(zp_recognizer *r);
/* Is it a repetition: 1, 0, or ZP_NO_MEMORY. */
int zp_recognize(zp_recognizer *r, const zp_event *e);

#endif
