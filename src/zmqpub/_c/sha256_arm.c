/* SHA-256's compression function with ARMv8's SHA2 instructions. */
#include "sha256_internal.h"

/* arm_neon.h declares the intrinsics to a function that asks for them by its target attribute, save in clang before 16,
   which wants them asked for on the command line (Apple's clang for arm64 needs no asking). Big-endian is left out. */
#if defined(__aarch64__) && defined(__ARM_NEON) && !defined(__AARCH64EB__)
#if defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO) || !defined(__clang__) || __clang_major__ >= 16
#define HAVE_SHA2 1
#endif
#endif

#if defined(HAVE_SHA2)

#include <arm_neon.h>

#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__clang__)
#define TARGET __attribute__((target("sha2")))
#else
#define TARGET __attribute__((target("+crypto")))
#endif
#define INLINE static inline __attribute__((always_inline)) TARGET

/* One stream. */
typedef struct {
    uint32x4_t abcd, efgh;
    uint32x4_t w[4]; /* the last sixteen words of the schedule, four by four, in turn */
} stream;

INLINE stream load_state(const uint32_t state[8])
{
    stream s;

    s.abcd = vld1q_u32(state);
    s.efgh = vld1q_u32(state + 4);
    return s;
}

INLINE void store_state(uint32_t state[8], const stream *s)
{
    vst1q_u32(state, s->abcd);
    vst1q_u32(state + 4, s->efgh);
}

/* Rounds 4 * i to 4 * i + 3; i is a constant once inlined. */
INLINE void four_rounds(stream *s, const uint8_t *data, int i)
{
    uint32x4_t *w = s->w, abcd = s->abcd, sum;

    if (i < 4)
        w[i] = vreinterpretq_u32_u8(vrev32q_u8(vld1q_u8(data + 16 * i)));
    else
        w[i & 3] = vsha256su1q_u32(vsha256su0q_u32(w[i & 3], w[(i + 1) & 3]), w[(i + 2) & 3], w[(i + 3) & 3]);
    sum = vaddq_u32(w[i & 3], vld1q_u32(zp_sha256_k + 4 * i));
    s->abcd = vsha256hq_u32(abcd, s->efgh, sum);
    s->efgh = vsha256h2q_u32(s->efgh, abcd, sum);
}

INLINE void add_state(stream *s, uint32x4_t abcd, uint32x4_t efgh)
{
    s->abcd = vaddq_u32(s->abcd, abcd);
    s->efgh = vaddq_u32(s->efgh, efgh);
}

TARGET static void compress(uint32_t state[8], const uint8_t *data, size_t blocks)
{
    stream s = load_state(state);

    for (; blocks > 0; blocks--, data += ZP_SHA256_BLOCK) {
        uint32x4_t abcd = s.abcd, efgh = s.efgh;

#define STEP(i) four_rounds(&s, data, i)
        ZP_SIXTEEN_TIMES(STEP);
#undef STEP
        add_state(&s, abcd, efgh);
    }
    store_state(state, &s);
}

/* Side by side, because each pair of sha256h and sha256h2 waits for the one before. */
TARGET static void compress2(uint32_t state_a[8], const uint8_t *data_a, uint32_t state_b[8], const uint8_t *data_b,
                             size_t blocks)
{
    stream a = load_state(state_a), b = load_state(state_b);

    for (; blocks > 0; blocks--, data_a += ZP_SHA256_BLOCK, data_b += ZP_SHA256_BLOCK) {
        uint32x4_t abcd_a = a.abcd, efgh_a = a.efgh, abcd_b = b.abcd, efgh_b = b.efgh;

#define STEP(i) four_rounds(&a, data_a, i), four_rounds(&b, data_b, i)
        ZP_SIXTEEN_TIMES(STEP);
#undef STEP
        add_state(&a, abcd_a, efgh_a);
        add_state(&b, abcd_b, efgh_b);
    }
    store_state(state_a, &a);
    store_state(state_b, &b);
}

TARGET static void digest_block(uint8_t block[64], const uint32_t state[8])
{
    vst1q_u8(block, vrev32q_u8(vreinterpretq_u8_u32(vld1q_u32(state))));
    vst1q_u8(block + 16, vrev32q_u8(vreinterpretq_u8_u32(vld1q_u32(state + 4))));
    vst1q_u8(block + 32, vld1q_u8(zp_sha256_digest_padding));
    vst1q_u8(block + 48, vld1q_u8(zp_sha256_digest_padding + 16));
}

static bool usable(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) & HWCAP_SHA2) != 0;
#elif defined(__APPLE__)
    return true; /* every arm64 machine of Apple's */
#elif defined(__ARM_FEATURE_SHA2) || defined(__ARM_FEATURE_CRYPTO)
    return true; /* the compiler was told that the machine has them */
#else
    return false;
#endif
}

const zp_sha256_implementation zp_sha256_arm = {"armv8", usable, compress, compress2, digest_block};

#else

const zp_sha256_implementation zp_sha256_arm = {0};

#endif
