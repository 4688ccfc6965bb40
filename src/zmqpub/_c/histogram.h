/* histogram.h: durations counted in buckets an eighth of an octave wide: 3 KB, no allocation, percentiles within 6 %.
 *
 * One thread records; others may read meanwhile (the counters are atomic, relaxed: a reading is a recent one).
 */
#ifndef ZMQPUB_HISTOGRAM_H
#define ZMQPUB_HISTOGRAM_H

#include <stdatomic.h>
#include <stdint.h>

#define ZP_HISTOGRAM_BUCKETS (8 * 48)

typedef struct {
    atomic_uint_least64_t bucket[ZP_HISTOGRAM_BUCKETS], count, max;
} zp_histogram;

static inline unsigned zp_histogram_bucket(uint64_t ns) {
    if (ns < 8) return (unsigned)ns;
    unsigned octave = 63u - (unsigned)__builtin_clzll(ns); /* 3 or more */
    unsigned i = 8 * (octave - 2) + (unsigned)((ns >> (octave - 3)) & 7);
    return i < ZP_HISTOGRAM_BUCKETS ? i : ZP_HISTOGRAM_BUCKETS - 1;
}

/* The middle of a bucket. */
static inline uint64_t zp_histogram_value(unsigned i) {
    if (i < 8) return i;
    unsigned shift = i / 8 - 1;
    return ((uint64_t)(8 + i % 8) << shift) + (((uint64_t)1 << shift) >> 1);
}

static inline void zp_histogram_bump(atomic_uint_least64_t *counter) {
    /* One writer: a plain add is enough, and cheaper than an atomic one. */
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1, memory_order_relaxed);
}

static inline void zp_histogram_record(zp_histogram *h, uint64_t ns) {
    zp_histogram_bump(&h->bucket[zp_histogram_bucket(ns)]);
    zp_histogram_bump(&h->count);
    if (ns > atomic_load_explicit(&h->max, memory_order_relaxed)) atomic_store_explicit(&h->max, ns, memory_order_relaxed);
}

/* The smallest recorded duration, in ns, that a share of all recorded ones do not exceed; 0 when there are none. */
static inline uint64_t zp_histogram_percentile(zp_histogram *h, double share) {
    const uint64_t count = atomic_load_explicit(&h->count, memory_order_relaxed);
    const double wanted = share * (double)count;
    const uint64_t max = atomic_load_explicit(&h->max, memory_order_relaxed);
    uint64_t seen = 0;
    if (count == 0) return 0;
    for (unsigned i = 0; i < ZP_HISTOGRAM_BUCKETS; i++) {
        seen += atomic_load_explicit(&h->bucket[i], memory_order_relaxed);
        if ((double)seen >= wanted && seen) return zp_histogram_value(i) < max ? zp_histogram_value(i) : max;
    }
    return max;
}

#endif
