#include "clock.h"
#include "receiving.h"
#include "sockets.h"

#define LONGEST_TICK_NS 250000000u  /* between two looks at how long it has been silent */
#define SHORTEST_TICK_NS 1000000u
#define MOST_PATIENCE 16            /* an address that stays silent is tried anew ever less often: up to so many times stale_after */
#define MOST_GIVEN_UP 16

uint64_t zp_receiver_tick_ns(const zp_receiver *r) {
    const uint64_t quarter = r->settings.stale_ns / 4;
    return quarter > LONGEST_TICK_NS ? LONGEST_TICK_NS : quarter < SHORTEST_TICK_NS ? SHORTEST_TICK_NS : quarter;
}

/* A fresh socket looks the name up anew, and has no connection that is dead without knowing. */
static int make_anew(zp_receiver *r, zp_source *source) {
    zp_source_close(source);
    source->give_up_at = 0;
    const int error = zp_source_open(source, &r->settings, r->context);
    if (zp_is_dead(error)) return r->error = error, -1;
    if (error) zp_receiver_expect_retry(r, source); /* out of descriptors or memory: later */
    if (!error && source->is_inproc) zp_receiver_connected(r, source);
    return 0;
}

static int give_up(zp_receiver *r, zp_source *source) {
    if (source->given_up < MOST_GIVEN_UP) source->given_up++;
    return make_anew(r, source);
}

static int renew(zp_receiver *r, zp_source *source) {
    if (source->socket && zp_receiver_end_connection(r, source) < 0) return -1;
    zp_entry e = {.kind = ZP_ENTRY_STALE, .source = source->stream.index, .generation = source->stream.generation};
    e.u.silence_ns = source->silence_ns;
    atomic_fetch_add(&source->stream.counts.stale, 1);
    zp_receiver_make_room(r);
    zp_stage_add(&r->stage, &e);
    const uint64_t most = r->settings.stale_ns * MOST_PATIENCE;
    source->patience_ns = source->patience_ns < most / 2 ? source->patience_ns * 2 : most;
    source->waited_ns = 0;
    return make_anew(r, source);
}

static int count_silence(zp_receiver *r, zp_source *source, uint64_t elapsed) {
    if (source->heard) {
        source->heard = 0;
        source->silence_ns = source->waited_ns = 0;
        source->patience_ns = r->settings.stale_ns;
        return 0;
    }
    source->silence_ns += elapsed;
    source->waited_ns += elapsed;
    return source->waited_ns < source->patience_ns ? 0 : renew(r, source);
}

/* Counted is no more than what was waited for on purpose: not that the process was stopped, or the machine asleep. */
int zp_receiver_tick(zp_receiver *r) {
    const uint64_t now = zp_now(), longest = 2 * zp_receiver_tick_ns(r);
    uint64_t elapsed = now - r->last_tick;
    r->last_tick = now;
    if (elapsed > longest) elapsed = longest;
    for (size_t i = 0; i < r->count; i++) {
        zp_source *source = &r->sources[i];
        if (source->give_up_at && now >= source->give_up_at && give_up(r, source) < 0) return -1;
        if (r->settings.stale_ns != UINT64_MAX && count_silence(r, source, elapsed) < 0) return -1;
    }
    return 0;
}
