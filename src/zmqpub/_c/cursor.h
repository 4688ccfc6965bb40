/* cursor.h: reading untrusted bytes. Only the cursor advances the pointer, and it checks the bounds as it does.
 *
 * A read that would leave the buffer, or finds what the format forbids, fills in the error and returns false; the
 * caller passes that on. Formats are those of Bitcoin Core's serialize.h.
 */
#ifndef ZMQPUB_CURSOR_H
#define ZMQPUB_CURSOR_H

#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* MAX_SIZE of serialize.h: no count or length in a message may be larger. */
#define ZP_MAX_SIZE 0x02000000u

typedef struct {
    size_t offset;           /* where in the buffer */
    uint32_t transaction;    /* which transaction of a block, UINT32_MAX outside of any */
    const char *expected;    /* static text */
    char got[80];
} zp_decode_error;

typedef struct {
    const uint8_t *start, *p, *end; /* borrowed: the caller keeps the buffer alive */
    zp_decode_error *error;         /* borrowed */
} zp_cursor;

static inline size_t zp_left(const zp_cursor *c) { return (size_t)(c->end - c->p); }
static inline size_t zp_offset(const zp_cursor *c) { return (size_t)(c->p - c->start); }

/* Out of line and cold: the walk's fast path stays small. */
static __attribute__((noinline, cold, unused)) bool zp_short(zp_cursor *c, uint64_t wanted, const char *expected) {
    c->error->offset = zp_offset(c);
    c->error->expected = expected;
    snprintf(c->error->got, sizeof c->error->got, "%zu of %" PRIu64 " bytes, then the end of the data", zp_left(c), wanted);
    return false;
}

static __attribute__((noinline, cold, unused)) bool zp_wrong(zp_cursor *c, const uint8_t *at, const char *expected,
                                                             const char *format, uint64_t value) {
    c->error->offset = (size_t)(at - c->start);
    c->error->expected = expected;
    switch (*format) {
    case 'x': snprintf(c->error->got, sizeof c->error->got, "0x%02" PRIx64, value); break;
    case 'b': snprintf(c->error->got, sizeof c->error->got, "%" PRIu64 " more bytes", value); break;
    case 'e': snprintf(c->error->got, sizeof c->error->got, "only empty stacks"); break;
    case 'n': snprintf(c->error->got, sizeof c->error->got, "%" PRIu64 " in a longer form", value); break;
    default: snprintf(c->error->got, sizeof c->error->got, "%" PRIu64, value);
    }
    return false;
}

static inline bool zp_skip(zp_cursor *c, uint64_t n, const char *expected) {
    if (__builtin_expect(n > zp_left(c), 0)) return zp_short(c, n, expected);
    c->p += n;
    return true;
}

static inline uint64_t zp_load_le(const uint8_t *p, unsigned bytes) {
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static inline void zp_store_le32(uint8_t *p, uint32_t v) {
    p[0] = (uint8_t)v, p[1] = (uint8_t)(v >> 8), p[2] = (uint8_t)(v >> 16), p[3] = (uint8_t)(v >> 24);
}

static inline void zp_store_le64(uint8_t *p, uint64_t v) {
    zp_store_le32(p, (uint32_t)v);
    zp_store_le32(p + 4, (uint32_t)(v >> 32));
}

static __attribute__((noinline, unused)) bool zp_long_compact_size(zp_cursor *c, uint64_t *out, const char *expected) {
    const uint8_t *at = c->p;
    if (zp_left(c) == 0) return zp_short(c, 1, expected);
    uint8_t first = *c->p;
    if (first < 253) {
        *out = first;
        c->p++;
        return true;
    }
    unsigned bytes = first == 253 ? 2 : first == 254 ? 4 : 8;
    if (zp_left(c) < bytes + 1u) return zp_short(c, bytes + 1u, expected);
    uint64_t v = zp_load_le(c->p + 1, bytes);
    if (v < (first == 253 ? 253u : first == 254 ? 0x10000u : 0x100000000u))
        return zp_wrong(c, at, "a CompactSize in its shortest form", "n", v);
    if (v > ZP_MAX_SIZE) return zp_wrong(c, at, "a CompactSize of at most 33554432", "u", v);
    c->p += bytes + 1u;
    *out = v;
    return true;
}

/* A canonical CompactSize of at most ZP_MAX_SIZE. */
static inline bool zp_compact_size(zp_cursor *c, uint64_t *out, const char *expected) {
    if (__builtin_expect(c->p < c->end && *c->p < 253, 1)) {
        *out = *c->p++;
        return true;
    }
    return zp_long_compact_size(c, out, expected);
}

#endif
