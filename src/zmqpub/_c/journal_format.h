/* journal_format.h: the bytes of a journal file, version 1; docs/journal.md describes them.
 *
 *     0        zp_file_head: what the file is; written once
 *     1024     zp_file_state: what goes on in it; written all the time
 *     65536    two copies of the epochs and their notifiers (zp_file_epochs), written in turn
 *     196608   the ring of records
 *
 * A place in the ring is a position: bytes ever written before it, so that what an earlier lap left behind is known by its
 * position. All is in the byte order of the machine, which `byte_order` tells.
 */
#ifndef ZMQPUB_JOURNAL_FORMAT_H
#define ZMQPUB_JOURNAL_FORMAT_H

#include "epochs.h"

#define ZP_FILE_MAGIC "ZMQPUBJ\n"
#define ZP_FILE_VERSION 1u
#define ZP_BYTE_ORDER 0x01020304u
#define ZP_STATE_AT 1024u
#define ZP_EPOCHS_AT 65536u
#define ZP_EPOCHS_BYTES 65536u
#define ZP_RING_AT (ZP_EPOCHS_AT + 2 * ZP_EPOCHS_BYTES)
#define ZP_RING_STEP 65536u        /* the ring's size is a multiple: every system's page divides it */
#define ZP_RECORD_MAGIC 0x7A706A72u
#define ZP_ALIGN(n) (((n) + 7) & ~(uint64_t)7)

typedef struct {
    char magic[8];
    uint32_t byte_order, version;
    uint64_t journal_bytes;        /* the setting that it was made with */
    uint64_t ring_at, ring_bytes;
    uint32_t crc;                  /* of what stands before it */
    uint32_t unused;
} zp_file_head;

typedef struct {
    uint64_t turn;                 /* the greater one counts */
    uint64_t position;             /* of the oldest record held */
    zp_position at;                /* before it */
    uint32_t crc;                  /* of what stands before it */
    uint32_t unused;
} zp_file_tail;

typedef struct {
    uint8_t boot[16];              /* the boot of the machine in which it was last opened */
    uint32_t life;                 /* how often it was opened */
    uint32_t clean;                /* closed in peace */
    uint32_t synced;               /* opened with journal_sync="event" */
    uint32_t unused;
    atomic_uint_least64_t committed; /* events that were handed to the senders: so many must be found again */
    zp_file_tail tail[2];          /* written in turn */
} zp_file_state;

typedef struct {
    uint32_t crc;                  /* of what stands behind it, `size` bytes */
    uint32_t size;
    uint64_t turn;                 /* the greater one counts */
    uint8_t packed[];              /* epochs.c */
} zp_file_epochs;

typedef struct {
    uint32_t crc;                  /* of the record from `position` to the body's end */
    uint32_t magic;
    uint64_t position;             /* its own */
    uint64_t length;               /* with the body and up to 7 zeros behind it */
    zp_position at;                /* before it */
    uint64_t mempool_sequence;
    uint64_t body_at;              /* position of the record that holds the body: its own, or an earlier one */
    uint32_t body_size;
    uint32_t transactions;         /* of the body */
    uint32_t life;                 /* zp_file_state's, when it was written */
    uint8_t kind, body_kind;
    uint8_t unused[2];
} zp_record;

_Static_assert(sizeof(zp_file_head) == 48 && sizeof(zp_file_state) == 136 && sizeof(zp_record) == 80, "the format has no gaps");

#endif
