/* What the implementations of SHA-256's compression function share; nobody outside sha256*.c includes this. */
#ifndef ZMQPUB_SHA256_INTERNAL_H
#define ZMQPUB_SHA256_INTERNAL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ZP_SHA256_BLOCK ((size_t)64)

typedef struct {
    const char *name;
    bool (*usable)(void); /* whether this machine can run it */

    /* state: the words a to h. data: blocks x 64 bytes, any alignment. blocks may be 0. */
    void (*compress)(uint32_t state[8], const uint8_t *data, size_t blocks);

    /* Two independent streams, the same number of blocks each. */
    void (*compress2)(uint32_t state_a[8], const uint8_t *data_a, uint32_t state_b[8], const uint8_t *data_b,
                      size_t blocks);

    /* Makes the one block of the hash of a digest. It is here because the block is read back at once: written by
       anything narrower than the vectors that compress() reads, it would have to reach the cache first. */
    void (*digest_block)(uint8_t block[64], const uint32_t state[8]);
} zp_sha256_implementation;

/* An implementation that this platform's compiler cannot make is { .name = NULL }. */
extern const zp_sha256_implementation zp_sha256_x86;
extern const zp_sha256_implementation zp_sha256_arm;
extern const zp_sha256_implementation zp_sha256_portable;

/* The round constants, aligned for vector loads. */
extern const uint32_t zp_sha256_k[64];

/* The end of the block that holds a digest: the mark, zeros, and the length of 256 bits. */
extern const uint8_t zp_sha256_digest_padding[32];

/* Words at any alignment. Whole words, because gcc 12 makes a hundred instructions of eight words stored bytewise. */
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ZP_BE32(x) __builtin_bswap32(x)
#define ZP_LE32(x) (x)
#else
#define ZP_BE32(x) (x)
#define ZP_LE32(x) __builtin_bswap32(x)
#endif

static inline uint32_t zp_load_be32(const uint8_t *p)
{
    uint32_t x;

    memcpy(&x, p, sizeof x);
    return ZP_BE32(x);
}

static inline void zp_store_be32(uint8_t *p, uint32_t x)
{
    x = ZP_BE32(x);
    memcpy(p, &x, sizeof x);
}

static inline void zp_store_le32(uint8_t *p, uint32_t x)
{
    x = ZP_LE32(x);
    memcpy(p, &x, sizeof x);
}

/* step(0) to step(15), written out because the schedule stays in registers only if every index is a constant. */
#define ZP_SIXTEEN_TIMES(step)                                                                                         \
    do {                                                                                                               \
        step(0);                                                                                                       \
        step(1);                                                                                                       \
        step(2);                                                                                                       \
        step(3);                                                                                                       \
        step(4);                                                                                                       \
        step(5);                                                                                                       \
        step(6);                                                                                                       \
        step(7);                                                                                                       \
        step(8);                                                                                                       \
        step(9);                                                                                                       \
        step(10);                                                                                                      \
        step(11);                                                                                                      \
        step(12);                                                                                                      \
        step(13);                                                                                                      \
        step(14);                                                                                                      \
        step(15);                                                                                                      \
    } while (0)

#endif
