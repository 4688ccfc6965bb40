/* journal_file.h: a journal's history in a file: a ring of checksummed records that outlives the process.
 *
 * The file is preallocated, mapped for reading and for its head, and locked while it is open. Records are written with
 * pwrite, to the same pages: a large body costs a tenth of what the faults of a fresh mapping cost (measured: 1.4 MB in
 * 0.23 ms instead of 3.6 ms). A record is complete, checksum and all, before any sender sees its event; so what was sent is
 * in the file, whenever the process is killed.
 *
 * One thread at a time writes (the journal's writer lock) and one reads (the history's lock); what is held changes under the
 * journal's lock. A reader copies without that lock and looks afterwards whether the beginning has passed.
 */
#ifndef ZMQPUB_JOURNAL_FILE_H
#define ZMQPUB_JOURNAL_FILE_H

#include "journal_format.h"

#define ZP_SYNC_NONE 0.0
#define ZP_SYNC_EVENT (-1.0)

/* Why a file can't be opened. */
enum { ZP_FILE_SYSTEM = 1, ZP_FILE_IN_USE, ZP_FILE_NO_SPACE, ZP_FILE_VERSION_OTHER, ZP_FILE_DAMAGED, ZP_FILE_SIZE };

typedef struct {
    int code, error;               /* error: errno, 0 where none is to blame */
    uint64_t offset;               /* in the file */
    char expected[128], got[128];
} zp_file_error;

typedef struct {
    uint64_t position;
    zp_position at;
} zp_record_place;                 /* of a record, or behind the last */

/* A run of records, of at most 64 events, or of one event where they are large. What leaves are whole runs; what is looked for is
 * looked for from the beginning of its run. */
typedef struct {
    zp_record_place start;
    uint64_t last_user;            /* the last event that uses a body which stands in this run */
} zp_run;

typedef struct {
    uint64_t position;             /* of its record */
    uint32_t size;                 /* 0: none */
    uint8_t header[80];
} zp_written_block;

typedef struct zp_syncer zp_syncer;

typedef struct zp_journal_file {
    int fd;
    uint16_t serial;               /* tells apart the files that this process opened; 0: none is left */
    uint8_t *map;                  /* the first ZP_RING_AT bytes of the file */
    uint8_t *ring;                 /* for reading: the ring, mapped twice in a row, so that no record ends at its end */
    uint64_t ring_bytes;
    zp_file_state *state;          /* in map */
    zp_record_place begin, end;    /* what is held: the beginning of the first run, and behind the last */
    uint64_t epochs_turn;
    uint32_t life;
    double sync;                   /* seconds, or ZP_SYNC_NONE or ZP_SYNC_EVENT */
    zp_syncer *syncer;             /* NULL where there is none */
    zp_run *runs;                  /* a ring of run_slots (a power of two) */
    uint64_t first_run, end_run;   /* runs [first_run, end_run) are held */
    size_t run_slots;
    zp_written_block blocks[8];    /* of the writer: the blocks written last */
    unsigned next_block;
    zp_record_place hint;          /* of the reader: behind the record that it read last */
    struct { uint64_t at; zp_body *body; } cached[2]; /* of the reader: the large bodies that it made last */
    unsigned next_cached;
    uint64_t looked_at;            /* bytes of the ring that the reader saw since it gave its pages back */
    atomic_int sync_error;         /* errno of the last sync that failed in the background */
    int same_boot;                 /* the machine did not go down since it was open the last time */
    uint64_t lost_events;          /* by the last recovery: they were handed to senders, and are not in the file */
    int may_continue;              /* nothing that was sent is missing: the counters can go on */
} zp_journal_file;

/* Open or create; epochs gets what it holds (nothing, in a new file). 0, or -1 with *error. */
int zp_journal_file_open(zp_journal_file *f, const char *path, uint64_t journal_bytes, double sync, zp_epochs *epochs, zp_file_error *error);
void zp_journal_file_close(zp_journal_file *f);   /* in peace, if it was opened */
int zp_file_fail(zp_file_error *error, int code, int errno_, uint64_t offset, const char *expected, const char *got, ...)
    __attribute__((format(printf, 6, 7)));         /* -1 */

/* ZP_OK or ZP_NO_ROOM. The journal's lock held. */
int zp_file_save_epochs(zp_journal_file *f, const zp_epochs *epochs);
int zp_file_sync(zp_journal_file *f);             /* 0 or errno */

/* ---- writing: journal_records.c. By the writer alone ---- */

#define ZP_NOWHERE UINT64_MAX

/* What an event takes, and where its body is if that is held already. */
typedef struct {
    uint64_t length, body_at;      /* body_at: ZP_NOWHERE when it has to be written */
    const uint8_t *data;           /* the body's bytes */
    uint32_t size, transactions;
    uint8_t body_kind;
} zp_plan;

/* ZP_OK, ZP_NO_MEMORY, or ZP_TOO_LARGE for a ring of this size. */
int zp_file_plan(const zp_journal_file *f, const zp_event *e, zp_plan *plan);
/* Which events have to leave before it: all before the one that is returned, the beginning's when there is room. No body leaves
 * before its last user. */
uint64_t zp_file_must_drop(const zp_journal_file *f, const zp_plan *plan);
void zp_file_drop(zp_journal_file *f, uint64_t upto); /* with the journal's lock */
/* Write it; it counts when zp_file_commit says so. ZP_OK, or ZP_FILE_FAILED with errno. */
int zp_file_write(zp_journal_file *f, const zp_event *e, const zp_plan *plan);
int zp_file_reserve(zp_journal_file *f);              /* so that a commit has the memory: ZP_OK or ZP_NO_MEMORY; with the lock */
void zp_file_commit(zp_journal_file *f, const zp_event *e, const zp_plan *plan); /* with the journal's lock */
/* The record at `end` is held from now on, too. */
void zp_file_take(zp_journal_file *f, const zp_record *r, const uint8_t *body);

/* ---- reading: journal_reader.c ---- */

/* The start of the run where to look for an event, or for the last event with at most `count` messages of a topic before it. The
 * journal's lock held. */
zp_record_place zp_file_run_of_event(const zp_journal_file *f, uint64_t event);
zp_record_place zp_file_run_of_count(const zp_journal_file *f, int topic, uint64_t count);
/* By the reader alone, without the journal's lock. ZP_OK, ZP_NO_MEMORY, or ZP_DAMAGED: what is there is not what was written, or
 * not any more, if the beginning has moved on. The event has a reference to a body of its own. */
int zp_file_read(zp_journal_file *f, const zp_record_place *run, uint64_t event, zp_event *out);
/* From the run's start on, the last event before `end` with at most `count` messages before it. */
int zp_file_search(const zp_journal_file *f, const zp_record_place *run, uint64_t end, int topic, uint64_t count, uint64_t *event);
void zp_file_forget_bodies(zp_journal_file *f);
/* The process needs the ring's pages no more for now; they stay in the system's cache. */
void zp_file_give_pages_back(zp_journal_file *f);

/* ---- between the files ---- */

/* Copy the record at a position, if it is the one that was written there (its checksum is not looked at): 1 or 0. */
int zp_record_load(const zp_journal_file *f, uint64_t position, zp_record *out);
uint32_t zp_record_crc(const zp_record *r, const void *body);
zp_record_place zp_behind(const zp_record *r);

static inline const uint8_t *zp_in_ring(const zp_journal_file *f, uint64_t position) { return f->ring + position % f->ring_bytes; }
static inline int zp_has_body(const zp_record *r) { return r->body_at == r->position; }

int zp_file_recover(zp_journal_file *f, zp_file_error *error);   /* journal_recovery.c: 0 or -1 */
int zp_syncer_start(zp_journal_file *f);                         /* journal_sync.c: 0 or errno */
void zp_syncer_stop(zp_journal_file *f);

#endif
