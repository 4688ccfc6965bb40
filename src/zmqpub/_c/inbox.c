#include "inbox.h"
#include "clock.h"
#include <poll.h>
#include <string.h>

#define CHUNK_BYTES (1u << 20) /* a chunk with so many bytes takes no further entries: the consumer takes it whole */

zp_chunk *zp_chunk_new(void) {
    zp_chunk *chunk = malloc(sizeof *chunk); /* the entries stay as they are: untouched pages cost nothing */
    if (!chunk) return NULL;
    chunk->link = NULL;
    chunk->count = chunk->at = 0;
    chunk->bytes = 0;
    return chunk;
}

void zp_chunk_free(zp_chunk *chunk) {
    for (uint32_t i = chunk->at; i < chunk->count; i++) zp_entry_release(&chunk->entries[i]);
    free(chunk);
}

int zp_inbox_init(zp_inbox *in, size_t bound, size_t latest_sources, const zp_wakeup *room) {
    memset(in, 0, sizeof *in);
    in->bound = bound;
    in->room = room;
    in->places = latest_sources * ZP_TOPICS;
    if (in->places && !(in->latest = calloc(in->places, sizeof *in->latest))) return -1;
    if (zp_wakeup_open(&in->ready) < 0) {
        free(in->latest);
        return -1;
    }
    pthread_mutex_init(&in->lock, NULL);
    return 0;
}

void zp_inbox_free(zp_inbox *in) {
    for (zp_chunk *chunk = in->first, *next; chunk; chunk = next) {
        next = chunk->link;
        zp_chunk_free(chunk);
    }
    free(in->latest);
    zp_wakeup_close(&in->ready);
    pthread_mutex_destroy(&in->lock);
}

/* ---- only the latest of each source and topic ---- */

static zp_place *place_of(zp_inbox *in, const zp_entry *e) {
    return in->latest && e->kind == ZP_ENTRY_MESSAGE ? &in->latest[e->source * ZP_TOPICS + e->topic] : NULL;
}

static void forget(zp_inbox *in, zp_chunk *chunk, zp_entry *e) {
    const size_t bytes = zp_entry_bytes(e) - sizeof *e; /* its own 64 bytes stay, as a void */
    chunk->bytes -= bytes;
    atomic_fetch_sub(&in->bytes, bytes);
    zp_entry_release(e);
}

/* The voids of the last chunk make room. */
static void compact(zp_inbox *in, zp_chunk *chunk) {
    uint32_t kept = 0;
    for (uint32_t i = 0; i < chunk->count; i++) {
        if (chunk->entries[i].kind == ZP_ENTRY_VOID) continue;
        chunk->entries[kept] = chunk->entries[i];
        zp_place *place = place_of(in, &chunk->entries[kept]);
        if (place) *place = (zp_place){chunk, kept};
        kept++;
    }
    const size_t freed = chunk->count - kept;
    chunk->count = kept;
    chunk->bytes -= freed * sizeof(zp_entry);
    in->entries -= freed;
    atomic_fetch_sub(&in->bytes, freed * sizeof(zp_entry));
}

static void forget_places(zp_inbox *in, const zp_chunk *chunk) {
    for (size_t i = 0; i < in->places; i++)
        if (in->latest[i].chunk == chunk) in->latest[i].chunk = NULL;
}

/* ---- putting in and taking out ---- */

static int is_full(const zp_chunk *chunk) { return chunk->count == ZP_CHUNK_ENTRIES || chunk->bytes >= CHUNK_BYTES; }

/* The chunk that the next entry goes to; NULL when out of memory. */
static zp_chunk *chunk_with_room(zp_inbox *in) {
    zp_chunk *chunk = in->last;
    if (chunk && in->latest && chunk->count == ZP_CHUNK_ENTRIES) compact(in, chunk);
    if (chunk && !is_full(chunk)) return chunk;
    if (!(chunk = zp_chunk_new())) return NULL;
    if (in->last) in->last->link = chunk;
    else in->first = chunk;
    return in->last = chunk;
}

static void append(zp_inbox *in, zp_chunk *chunk, const zp_entry *e) {
    const size_t bytes = zp_entry_bytes(e);
    zp_place *place = place_of(in, e);
    if (place) {
        if (place->chunk) forget(in, place->chunk, &place->chunk->entries[place->index]);
        *place = (zp_place){chunk, chunk->count};
    }
    chunk->entries[chunk->count++] = *e;
    chunk->bytes += bytes;
    in->entries++;
    atomic_fetch_add_explicit(&in->bytes, bytes, memory_order_relaxed);
}

static void make_readable(zp_inbox *in) {
    if (in->readable) return;
    in->readable = 1;
    zp_wakeup_signal(&in->ready);
}

/* How many there is room for in one go; 0 when out of memory. */
static size_t put_some(zp_inbox *in, const zp_entry *entries, size_t n) {
    pthread_mutex_lock(&in->lock);
    zp_chunk *chunk = chunk_with_room(in);
    size_t done = 0;
    for (; chunk && done < n && !is_full(chunk); done++) append(in, chunk, &entries[done]);
    if (done) make_readable(in);
    pthread_mutex_unlock(&in->lock);
    return done;
}

size_t zp_inbox_put(zp_inbox *in, const zp_entry *entries, size_t n) {
    size_t done = 0;
    for (size_t now; done < n && (now = put_some(in, entries + done, n - done)); done += now) continue;
    return done;
}

void zp_inbox_end(zp_inbox *in) {
    pthread_mutex_lock(&in->lock);
    in->ended = 1;
    make_readable(in);
    pthread_mutex_unlock(&in->lock);
}

zp_chunk *zp_inbox_take(zp_inbox *in, int *ended) {
    pthread_mutex_lock(&in->lock);
    zp_chunk *chunk = in->first;
    if (chunk) {
        in->first = chunk->link;
        if (!in->first) in->last = NULL;
        chunk->link = NULL;
        in->entries -= chunk->count;
        atomic_fetch_sub(&in->bytes, chunk->bytes);
        if (in->latest) forget_places(in, chunk);
    }
    *ended = in->ended && !chunk;
    if (!in->first && !in->ended && in->readable) {
        zp_wakeup_clear(&in->ready);
        in->readable = 0;
    }
    pthread_mutex_unlock(&in->lock);
    if (chunk && atomic_load(&in->wants_room) && zp_inbox_has_room(in)) {
        atomic_store(&in->wants_room, 0);
        zp_wakeup_signal(in->room);
    }
    return chunk;
}

int zp_inbox_wait(zp_inbox *in, uint64_t timeout_ns) {
    struct pollfd item = {in->ready.read_fd, POLLIN, 0};
    const uint64_t ms = (timeout_ns + 999999) / 1000000;
    return poll(&item, 1, ms > 1000000 ? 1000000 : (int)ms) > 0;
}
