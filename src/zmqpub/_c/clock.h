/* clock.h: the monotonic clock, in nanoseconds. */
#ifndef ZMQPUB_CLOCK_H
#define ZMQPUB_CLOCK_H

#include <stdint.h>
#include <time.h>

static inline uint64_t zp_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

#endif
