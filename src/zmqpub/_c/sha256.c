/* Double SHA-256: choice of implementation, padding, and the scheme that keeps two streams busy. */
#include "sha256.h"

#include <string.h>

#include "sha256_internal.h"

enum { BLOCK = 64, DIGEST = 32 };

static const zp_sha256_implementation *const implementations[] = {&zp_sha256_x86, &zp_sha256_arm, &zp_sha256_portable};
enum { IMPLEMENTATIONS = sizeof implementations / sizeof implementations[0] };

static const zp_sha256_implementation *chosen = &zp_sha256_portable;

/* ---- words and padding ---- */

static const uint32_t initial_state[8] = {
    0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
};

static inline void begin(uint32_t state[8])
{
    memcpy(state, initial_state, sizeof initial_state);
}

static inline void store_digest(uint8_t out[DIGEST], const uint32_t state[8])
{
    for (size_t i = 0; i < 8; i++)
        zp_store_be32(out + 4 * i, state[i]);
}

/* A big-endian digest back to front is its words back to front, each little-endian. */
static inline void store_digest_reversed(uint8_t out[DIGEST], const uint32_t state[8])
{
    for (size_t i = 0; i < 8; i++)
        zp_store_le32(out + 4 * i, state[7 - i]);
}

/* Blocks that `used` bytes take up once the mark (1 byte) and the length (8 bytes) are appended. */
static inline size_t padded_blocks(size_t used)
{
    return (used + 1 + 8 + BLOCK - 1) / BLOCK;
}

/* Completes the last `used` bytes of a message of `length` bytes; returns the number of blocks. Up to PADDING bytes
   after the used ones are overwritten, needed or not: clearing a fixed number of bytes takes no call. */
enum { PADDING = 1 + (BLOCK - 1) + 8 };

static inline size_t pad(uint8_t *buffer, size_t used, uint64_t length)
{
    size_t blocks = padded_blocks(used);
    uint8_t *bits = buffer + blocks * BLOCK - 8;

    memset(buffer + used, 0, PADDING);
    buffer[used] = 0x80;
    zp_store_be32(bits, (uint32_t)(length >> 29));
    zp_store_be32(bits + 4, (uint32_t)(length << 3));
    return blocks;
}

/* ---- one message ---- */

void zp_sha256d(uint8_t out[32], const uint8_t *data, size_t length)
{
    size_t whole = length / BLOCK, rest = length % BLOCK;
    uint8_t tail[BLOCK + PADDING];
    size_t tail_blocks;
    uint32_t state[8];

    /* The tail first: by the time it is hashed, its narrow stores have reached the cache, where wide loads can see them
       (see digest_block). */
    if (rest > 0)
        memcpy(tail, data + whole * BLOCK, rest);
    tail_blocks = pad(tail, rest, length);
    begin(state);
    if (whole > 0)
        chosen->compress(state, data, whole);
    chosen->compress(state, tail, tail_blocks);

    chosen->digest_block(tail, state);
    begin(state);
    chosen->compress(state, tail, 1);
    store_digest(out, state);
}

/* ---- many messages ---- */

/* Up to this many bytes, padded, what is left of a message is gathered rather than hashed where it lies: every change
   of place ends the run of the other lane too. Not critical: 4 blocks cost 3 % with transactions of 150 to 500 bytes;
   64 cost 5 % with those of 4000 bytes, as copying then shows; 8 and 16 are alike. */
enum { GATHER = 8 * BLOCK };

/* One of the streams that are hashed side by side, and the message in it. */
typedef struct {
    const uint8_t *run; /* blocks ready to be hashed: in the buffer, or in place */
    size_t blocks;
    uint32_t state[8];
    enum { FIRST, FIRST_END, SECOND } stage; /* of the two hashes; FIRST_END: the run is the first one's last */
    zp_hash_job job; /* parts and lengths: what is left of them */
    size_t current;  /* part */
    size_t left, length; /* bytes not yet in a run; bytes of the message */
    uint8_t buffer[GATHER + PADDING];
} lane;

/* Moves the next `count` bytes of the message to `to`. */
static inline void gather(lane *l, uint8_t *to, size_t count)
{
    l->left -= count;
    while (count > 0) {
        size_t have = l->job.length[l->current];
        size_t n = have < count ? have : count;
        const uint8_t *from = l->job.part[l->current];

        if (n == 4)
            memcpy(to, from, 4); /* version and locktime: spares a call */
        else if (n > 0)
            memcpy(to, from, n);
        to += n;
        count -= n;
        l->job.length[l->current] -= n;
        if (n == have)
            l->current++;
        else
            l->job.part[l->current] += n;
    }
}

/* The next run of the first hash: all that is left if the buffer can take it, else whole blocks in place, else the one
   block that straddles two parts. */
static inline void next_run(lane *l)
{
    if (padded_blocks(l->left) * BLOCK <= GATHER) {
        size_t used = l->left;
        gather(l, l->buffer, used);
        l->blocks = pad(l->buffer, used, l->length);
        l->run = l->buffer;
        l->stage = FIRST_END;
        return;
    }
    while (l->job.length[l->current] == 0)
        l->current++;
    if (l->job.length[l->current] >= BLOCK) {
        l->run = l->job.part[l->current];
        l->blocks = l->job.length[l->current] / BLOCK;
        l->job.part[l->current] += l->blocks * BLOCK;
        l->job.length[l->current] %= BLOCK;
        l->left -= l->blocks * BLOCK;
    } else {
        gather(l, l->buffer, BLOCK);
        l->run = l->buffer;
        l->blocks = 1;
    }
}

static inline void start(lane *l, const zp_hash_job *job)
{
    l->job = *job;
    l->current = 0;
    l->length = l->left = job->length[0] + job->length[1] + job->length[2];
    l->stage = FIRST;
    begin(l->state);
    next_run(l);
}

/* Called when the lane's run is done: finds more blocks for it, from its message or else from the next one. False when
   there are none. */
static inline bool advance(lane *l, const zp_hash_job **next, const zp_hash_job *end)
{
    switch (l->stage) {
    case FIRST:
        next_run(l);
        return true;
    case FIRST_END:
        chosen->digest_block(l->buffer, l->state);
        begin(l->state);
        l->run = l->buffer;
        l->blocks = 1;
        l->stage = SECOND;
        return true;
    case SECOND:
        break;
    }
    store_digest_reversed(l->job.out, l->state);
    if (*next == end)
        return false;
    start(l, (*next)++);
    return true;
}

/* While there are two messages, the lanes go on side by side for as long as both have blocks; then the one that has run
   out finds more. A second hash is one more block of its lane; no lane waits for the end of the other's message. */
void zp_sha256d_jobs(const zp_hash_job *jobs, size_t count)
{
    const zp_hash_job *next = jobs, *end = jobs + count;
    lane lanes[2], *last = &lanes[0];

    if (count == 0)
        return;
    start(&lanes[0], next++);
    if (count > 1) {
        lane *a = &lanes[0], *b = &lanes[1];
        bool more_a = true, more_b = true;

        start(b, next++);
        while (more_a && more_b) {
            size_t blocks = a->blocks < b->blocks ? a->blocks : b->blocks;

            chosen->compress2(a->state, a->run, b->state, b->run, blocks);
            a->run += blocks * BLOCK;
            b->run += blocks * BLOCK;
            if ((a->blocks -= blocks) == 0)
                more_a = advance(a, &next, end);
            if ((b->blocks -= blocks) == 0)
                more_b = advance(b, &next, end);
        }
        if (!more_a && !more_b)
            return;
        last = more_a ? a : b;
    }
    do
        chosen->compress(last->state, last->run, last->blocks);
    while (advance(last, &next, end));
}

/* ---- merkle ---- */

/* in == out works because two digests are written where two messages, or earlier ones, have been read. */
void zp_sha256d_pairs(uint8_t *out, const uint8_t *in, size_t count)
{
    static const uint8_t padding[BLOCK] = {[0] = 0x80, [BLOCK - 2] = BLOCK * 8 / 256};
    uint32_t a[8], b[8];
    uint8_t block_a[BLOCK], block_b[BLOCK];

    for (; count >= 2; count -= 2, in += 2 * BLOCK, out += 2 * DIGEST) {
        begin(a);
        begin(b);
        chosen->compress2(a, in, b, in + BLOCK, 1);
        chosen->compress2(a, padding, b, padding, 1);
        chosen->digest_block(block_a, a);
        chosen->digest_block(block_b, b);
        begin(a);
        begin(b);
        chosen->compress2(a, block_a, b, block_b, 1);
        store_digest(out, a);
        store_digest(out + DIGEST, b);
    }
    if (count > 0)
        zp_sha256d(out, in, BLOCK);
}

/* ---- choice ---- */

/* Every path over every length of tail, against a digest made elsewhere. */
static bool self_test(void)
{
    enum { MESSAGES = 3 * BLOCK + 1, LONG = 19 * BLOCK }; /* LONG: too long to be gathered */
    /* SHA-256d of the concatenated results below */
    static const uint8_t expected[DIGEST] = {
        0x14, 0x0a, 0x37, 0x20, 0x8d, 0x14, 0x44, 0xd7, 0xfe, 0x47, 0x6c, 0x69, 0x3d, 0xb0, 0xd5, 0x1b,
        0x70, 0xea, 0x24, 0x80, 0xba, 0xb1, 0xa0, 0xf6, 0x61, 0xb1, 0x83, 0xc6, 0x74, 0xe6, 0xf6, 0x7e,
    };
    uint8_t text[LONG], results[MESSAGES + 5][DIGEST], digest[DIGEST];
    zp_hash_job jobs[MESSAGES + 1];

    _Static_assert((int)LONG > (int)GATHER, "the self-test must see a message that is hashed in place");

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)(i * 7 + (i >> 8) + 3);
    for (size_t i = 0; i < MESSAGES; i++) /* i bytes from offset i % 16, cut in three */
        jobs[i] = (zp_hash_job){
            {text + i % 16, text + i % 16 + i / 4, text + i % 16 + i / 2},
            {i / 4, i / 2 - i / 4, i - i / 2},
            results[i],
        };
    jobs[MESSAGES] = (zp_hash_job){{text, text + 4, NULL}, {4, sizeof text - 4, 0}, results[MESSAGES]};
    zp_sha256d_jobs(jobs, MESSAGES + 1);
    zp_sha256d_pairs(results[MESSAGES + 1], results[0], 3);
    zp_sha256d(results[MESSAGES + 4], text, sizeof text);
    zp_sha256d(digest, results[0], sizeof results);
    return memcmp(digest, expected, DIGEST) == 0;
}

static bool usable(const zp_sha256_implementation *implementation)
{
    return implementation->name != NULL && implementation->usable();
}

int zp_sha256_select(const char *name)
{
    static const char *const known[] = {"sha-ni", "armv8", "portable"};
    const zp_sha256_implementation *before = chosen;
    bool any = name == NULL || name[0] == '\0', is_known = any;

    for (size_t i = 0; i < sizeof known / sizeof known[0] && !is_known; i++)
        is_known = strcmp(name, known[i]) == 0;
    if (!is_known)
        return -1;
    for (size_t i = 0; i < IMPLEMENTATIONS; i++) {
        if (!usable(implementations[i]) || !(any || strcmp(name, implementations[i]->name) == 0))
            continue;
        chosen = implementations[i];
        if (self_test())
            return 0;
        chosen = before;
        return -3;
    }
    return -2;
}

const char *zp_sha256_backend(void)
{
    return chosen->name;
}

const char *zp_sha256_available(size_t i)
{
    for (size_t j = 0; j < IMPLEMENTATIONS; j++)
        if (usable(implementations[j]) && i-- == 0)
            return implementations[j]->name;
    return NULL;
}
