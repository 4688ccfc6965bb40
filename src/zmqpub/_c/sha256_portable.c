/* SHA-256's compression function (FIPS 180-4, 6.2.2) in plain C. */
#include <string.h>

#include "sha256_internal.h"

_Alignas(16) const uint32_t zp_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

_Alignas(16) const uint8_t zp_sha256_digest_padding[32] = {[0] = 0x80, [30] = 256 >> 8};

static inline uint32_t rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

static inline uint32_t choose(uint32_t x, uint32_t y, uint32_t z)
{
    return z ^ (x & (y ^ z));
}

static inline uint32_t majority(uint32_t x, uint32_t y, uint32_t z)
{
    return (x & y) | (z & (x | y));
}

static inline uint32_t big_sigma0(uint32_t x)
{
    return rotate(x, 2) ^ rotate(x, 13) ^ rotate(x, 22);
}

static inline uint32_t big_sigma1(uint32_t x)
{
    return rotate(x, 6) ^ rotate(x, 11) ^ rotate(x, 25);
}

static inline uint32_t small_sigma0(uint32_t x)
{
    return rotate(x, 7) ^ rotate(x, 18) ^ x >> 3;
}

static inline uint32_t small_sigma1(uint32_t x)
{
    return rotate(x, 17) ^ rotate(x, 19) ^ x >> 10;
}

/* The caller renames the eight words from round to round, so that none has to be moved. */
#define ROUND(a, b, c, d, e, f, g, h, i)                                                                               \
    do {                                                                                                               \
        uint32_t t = (h) + big_sigma1(e) + choose(e, f, g) + k[i] + w[i];                                              \
        (d) += t;                                                                                                      \
        (h) = t + big_sigma0(a) + majority(a, b, c);                                                                   \
    } while (0)

#define EIGHT_ROUNDS(i)                                                                                                \
    do {                                                                                                               \
        ROUND(a, b, c, d, e, f, g, h, (i) + 0);                                                                        \
        ROUND(h, a, b, c, d, e, f, g, (i) + 1);                                                                        \
        ROUND(g, h, a, b, c, d, e, f, (i) + 2);                                                                        \
        ROUND(f, g, h, a, b, c, d, e, (i) + 3);                                                                        \
        ROUND(e, f, g, h, a, b, c, d, (i) + 4);                                                                        \
        ROUND(d, e, f, g, h, a, b, c, (i) + 5);                                                                        \
        ROUND(c, d, e, f, g, h, a, b, (i) + 6);                                                                        \
        ROUND(b, c, d, e, f, g, h, a, (i) + 7);                                                                        \
    } while (0)

/* The schedule sixteen words at a time, in place: w[i] still holds the word of sixteen rounds ago. */
#define EXTEND(i)                                                                                                      \
    (w[i] += small_sigma1(w[((i) + 14) & 15]) + w[((i) + 9) & 15] + small_sigma0(w[((i) + 1) & 15]))

static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    for (; blocks > 0; blocks--, data += ZP_SHA256_BLOCK) {
        uint32_t a = state[0], b = state[1], c = state[2], d = state[3];
        uint32_t e = state[4], f = state[5], g = state[6], h = state[7];
        uint32_t w[16];
        const uint32_t *k = zp_sha256_k;

        for (int i = 0; i < 16; i++)
            w[i] = zp_load_be32(data + 4 * i);
        EIGHT_ROUNDS(0);
        EIGHT_ROUNDS(8);
        for (k += 16; k < zp_sha256_k + 64; k += 16) {
            EXTEND(0), EXTEND(1), EXTEND(2), EXTEND(3), EXTEND(4), EXTEND(5), EXTEND(6), EXTEND(7);
            EIGHT_ROUNDS(0);
            EXTEND(8), EXTEND(9), EXTEND(10), EXTEND(11), EXTEND(12), EXTEND(13), EXTEND(14), EXTEND(15);
            EIGHT_ROUNDS(8);
        }
        state[0] += a, state[1] += b, state[2] += c, state[3] += d;
        state[4] += e, state[5] += f, state[6] += g, state[7] += h;
    }
}

/* Interleaving two streams would only run out of general registers. */
static void compress2(uint32_t state_a[8], const uint8_t *data_a, uint32_t state_b[8], const uint8_t *data_b,
                      size_t blocks)
{
    compress(state_a, data_a, blocks);
    compress(state_b, data_b, blocks);
}

static void digest_block(uint8_t block[64], const uint32_t state[8])
{
    for (int i = 0; i < 8; i++)
        zp_store_be32(block + 4 * i, state[i]);
    memcpy(block + 32, zp_sha256_digest_padding, 32);
}

static bool usable(void)
{
    return true;
}

const zp_sha256_implementation zp_sha256_portable = {"portable", usable, compress, compress2, digest_block};
