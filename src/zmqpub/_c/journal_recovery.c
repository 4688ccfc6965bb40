/* journal_recovery.c: what a journal file still holds when it is opened again.
 *
 * After a kill that is everything: each record was whole before its event counted. At most a last record is torn, and cut. A loss
 * of power may have kept pages in any order: then the records up to the first that is not whole are kept, and the rest is cut.
 */
#include "crc32c.h"
#include "history.h"
#include "journal_file.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ---- one record after the other ---- */

typedef struct {
    zp_record_place begin, end;
    uint32_t life;                 /* of the last record: an older one behind it was left by a life that was cut */
} zp_chain;

/* Does this record, all of it, follow in the chain? */
static int follows(const zp_journal_file *f, const zp_chain *chain, zp_record *r) {
    const zp_position *at = &chain->end.at;
    if (!zp_record_load(f, chain->end.position, r)) return 0;
    if (r->at.event != at->event || r->at.tx != at->tx || r->at.tip != at->tip) return 0;
    if (r->life < chain->life || r->life > f->state->life) return 0;
    if (r->position + r->length - chain->begin.position > f->ring_bytes || r->body_at < chain->begin.position) return 0;
    return r->crc == zp_record_crc(r, zp_in_ring(f, r->position) + sizeof *r);
}

static int take_all(zp_journal_file *f, const zp_record_place *begin) {
    zp_chain chain = {*begin, *begin, 0};
    zp_record r;
    f->begin = f->end = *begin;
    f->first_run = f->end_run = 0;
    while (follows(f, &chain, &r)) {
        if (zp_file_reserve(f) < 0) return ZP_NO_MEMORY;
        zp_file_take(f, &r, zp_in_ring(f, r.position) + sizeof r);
        chain.end = f->end;
        chain.life = r.life;
    }
    return ZP_OK;
}

/* ---- where to begin ---- */

static const zp_file_tail *newest_tail(const zp_journal_file *f) {
    const zp_file_tail *best = NULL;
    for (int i = 0; i < 2; i++) {
        const zp_file_tail *t = &f->state->tail[i];
        if (t->crc == zp_crc32c(0, t, offsetof(zp_file_tail, crc)) && (!best || t->turn > best->turn)) best = t;
    }
    return best;
}

/* The chain that begins at a place of the ring, whatever it is; its end is its beginning where there is none. */
static zp_chain chain_at(const zp_journal_file *f, uint64_t offset) {
    zp_record r;
    memcpy(&r, f->ring + offset, sizeof r);
    zp_chain chain = {{r.position, r.at}, {r.position, r.at}, 0};
    if (r.magic != ZP_RECORD_MAGIC || r.position % f->ring_bytes != offset) return chain;
    while (follows(f, &chain, &r)) {
        chain.end = zp_behind(&r);
        chain.life = r.life;
    }
    return chain;
}

/* The tail that the head knows is not there: the head is older than the ring. Find the newest chain, from its beginning. */
static zp_record_place search_ring(const zp_journal_file *f, const zp_record_place *otherwise) {
    zp_chain best = {*otherwise, *otherwise, 0};
    for (uint64_t offset = 0; offset < f->ring_bytes;) {
        const zp_chain chain = chain_at(f, offset);
        const uint64_t length = chain.end.position - chain.begin.position;
        const int newer = chain.end.position > best.end.position;
        if (length && (newer || (chain.end.position == best.end.position && chain.begin.position < best.begin.position))) best = chain;
        offset += length ? length : 8;
    }
    return best.begin;
}

/* ---- judging it ---- */

static int refuse(const zp_journal_file *f, zp_file_error *error) {
    char expected[128];
    snprintf(expected, sizeof expected, "the record of event %llu, of %llu", (unsigned long long)f->end.at.event,
             (unsigned long long)f->state->committed);
    return zp_file_fail(error, ZP_FILE_DAMAGED, 0, ZP_RING_AT + f->end.position % f->ring_bytes, expected, "something else");
}

int zp_file_recover(zp_journal_file *f, zp_file_error *error) {
    const zp_file_tail *tail = newest_tail(f);
    if (!tail) return zp_file_fail(error, ZP_FILE_DAMAGED, 0, ZP_STATE_AT, "a place of the oldest record that fits its checksum", "none");
    const zp_record_place begin = {tail->position, tail->at};
    int result = take_all(f, &begin);
    const uint64_t committed = f->state->committed;
    if (result == ZP_OK && f->end.at.event == begin.at.event && committed != begin.at.event) {
        const zp_record_place found = search_ring(f, &begin);
        result = take_all(f, &found);
    }
    if (result != ZP_OK) return zp_file_fail(error, ZP_FILE_SYSTEM, ENOMEM, 0, "memory for its index", "none");
    f->lost_events = committed > f->end.at.event ? committed - f->end.at.event : 0;
    /* Only a loss of power leaves more than one record that is not whole. */
    return f->lost_events > 1 && f->same_boot ? refuse(f, error) : 0;
}
