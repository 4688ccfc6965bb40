/* journal_reader.c: events out of the ring, while the writer goes on.
 *
 * What is read may be overwritten meanwhile. So a record is copied first and judged then, by its position and its checksum; a
 * caller that is told of damage looks whether the beginning has moved on.
 */
#include "history.h"
#include "journal_file.h"
#include <stdlib.h>
#include <string.h>

#define LARGE 65536u /* bytes: a body that several answers are made of, and so is kept */
#define MOST_LOOKED_AT (16u << 20) /* bytes: else a long replay would count as the process's memory, all of the ring twice */

/* ---- where to look ---- */

static const zp_record_place *start_of(const zp_journal_file *f, uint64_t run) { return &f->runs[run & (f->run_slots - 1)].start; }

/* The last run whose start has at most `limit` events, or messages of a topic, before it; the first if none has. */
static zp_record_place last_run(const zp_journal_file *f, int topic, uint64_t limit) {
    uint64_t first = f->first_run, end = f->end_run;
    if (first == end) return f->end;
    while (end - first > 1) {
        const uint64_t middle = first + (end - first) / 2;
        const zp_position *at = &start_of(f, middle)->at;
        if ((topic < 0 ? at->event : zp_messages_before(at, topic)) <= limit) first = middle;
        else end = middle;
    }
    return *start_of(f, first);
}

zp_record_place zp_file_run_of_event(const zp_journal_file *f, uint64_t event) { return last_run(f, -1, event); }

zp_record_place zp_file_run_of_count(const zp_journal_file *f, int topic, uint64_t count) { return last_run(f, topic, count); }

int zp_file_search(const zp_journal_file *f, const zp_record_place *run, uint64_t end, int topic, uint64_t count, uint64_t *event) {
    zp_record_place next = *run;
    *event = run->at.event;
    while (next.at.event < end && zp_messages_before(&next.at, topic) <= count) {
        zp_record r;
        if (!zp_record_load(f, next.position, &r) || r.at.event != next.at.event) return ZP_DAMAGED;
        *event = next.at.event;
        next = zp_behind(&r);
    }
    return ZP_OK;
}

static int find(zp_journal_file *f, const zp_record_place *run, uint64_t event, zp_record *r) {
    const int goes_on = f->hint.at.event <= event && f->hint.at.event >= run->at.event && f->hint.position >= run->position;
    zp_record_place next = goes_on ? f->hint : *run;
    for (;; next = zp_behind(r)) {
        if (!zp_record_load(f, next.position, r) || r->at.event != next.at.event) return ZP_DAMAGED;
        if (r->at.event == event) break;
    }
    f->hint = zp_behind(r);
    return ZP_OK;
}

/* ---- bodies ---- */

void zp_file_forget_bodies(zp_journal_file *f) {
    for (int i = 0; i < 2; i++) {
        if (f->cached[i].body) zp_body_unref(f->cached[i].body);
        f->cached[i].body = NULL;
    }
}

static zp_body *known_body(const zp_journal_file *f, uint64_t position) {
    for (int i = 0; i < 2; i++)
        if (f->cached[i].body && f->cached[i].at == position) {
            zp_body_ref(f->cached[i].body);
            return f->cached[i].body;
        }
    return NULL;
}

static void keep_body(zp_journal_file *f, uint64_t position, zp_body *body) {
    if (body->size < LARGE) return;
    const unsigned i = f->next_cached++ % 2;
    if (f->cached[i].body) zp_body_unref(f->cached[i].body);
    zp_body_ref(body);
    f->cached[i].at = position;
    f->cached[i].body = body;
}

static zp_body *body_of_copy(const zp_record *r, uint8_t *copy, int *result) {
    zp_decode_error error;
    zp_body *body;
    if (r->body_kind == ZP_TXID_ONLY) {
        body = zp_body_from_txid(copy);
        free(copy);
        if (!body) *result = ZP_NO_MEMORY;
        return body;
    }
    body = zp_body_parse(r->body_kind, copy, r->body_size, &error);
    if (body) {
        body->owner = copy;
        body->owner_kind = ZP_OWNER_COPY;
        return body;
    }
    free(copy);
    *result = error.expected ? ZP_DAMAGED : ZP_NO_MEMORY;
    return NULL;
}

/* The body that a record holds, its checksum proved. */
static zp_body *make_body(const zp_journal_file *f, const zp_record *r, int *result) {
    uint8_t *copy = malloc(r->body_size ? r->body_size : 1);
    if (!copy) return *result = ZP_NO_MEMORY, NULL;
    memcpy(copy, zp_in_ring(f, r->position) + sizeof *r, r->body_size);
    if (zp_record_crc(r, copy) != r->crc) {
        free(copy);
        return *result = ZP_DAMAGED, NULL;
    }
    return body_of_copy(r, copy, result);
}

static int is_whole(const zp_record *r) {
    const int kind = r->body_kind;
    return kind == ZP_BLOCK || kind == ZP_TRANSACTION || (kind == ZP_TXID_ONLY && r->body_size == 32);
}

/* The body of a record, whose own checksum is proved on the way. */
static zp_body *body_of(zp_journal_file *f, const zp_record *r, int *result) {
    zp_record holder = *r;
    zp_body *body = known_body(f, r->body_at);
    if (body && zp_record_crc(r, body->raw) == r->crc) return body;
    if (body) zp_body_unref(body);
    *result = ZP_DAMAGED;
    if (!zp_has_body(r) && (zp_record_crc(r, NULL) != r->crc || !zp_record_load(f, r->body_at, &holder))) return NULL;
    if (!zp_has_body(&holder) || !is_whole(&holder)) return NULL;
    *result = ZP_OK;
    body = make_body(f, &holder, result);
    if (body) keep_body(f, holder.position, body);
    return body;
}

int zp_file_read(zp_journal_file *f, const zp_record_place *run, uint64_t event, zp_event *out) {
    zp_record r;
    int result = find(f, run, event, &r);
    if (result != ZP_OK) return result;
    if ((f->looked_at += sizeof r + r.body_size) > MOST_LOOKED_AT) zp_file_give_pages_back(f);
    zp_body *body = body_of(f, &r, &result);
    if (!body) return result;
    *out = (zp_event){.body = body, .at = r.at, .mempool_sequence = r.mempool_sequence, .kind = r.kind};
    return ZP_OK;
}
