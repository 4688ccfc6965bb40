/* Double SHA-256: bitcoin's hash of transactions, block headers and merkle nodes. */
#ifndef ZMQPUB_SHA256_H
#define ZMQPUB_SHA256_H

#include <stddef.h>
#include <stdint.h>

/* message = concatenation of up to three parts (length 0 = absent);
   out receives the 32-byte double SHA-256, reversed (display order) */
typedef struct {
    const uint8_t *part[3];
    size_t length[3];
    uint8_t *out;
} zp_hash_job;

/* Choose the implementation: NULL or "" = best available. Runs the self-test of whatever is chosen; must be called
   before any of the hash functions. 0 ok, -1 unknown name, -2 not on this machine, -3 self-test failed. On failure the
   earlier choice, if any, stays. Not to be called while another thread hashes. */
extern int zp_sha256_select(const char *name);

/* "sha-ni", "armv8" or "portable" */
extern const char *zp_sha256_backend(void);

/* The i-th name usable on this machine, best first; NULL at the end. */
extern const char *zp_sha256_available(size_t i);

/* One message, any alignment; digest order (not reversed). */
extern void zp_sha256d(uint8_t out[32], const uint8_t *data, size_t length);

/* Many messages at once. No out may overlap a message that is yet to be hashed. */
extern void zp_sha256d_jobs(const zp_hash_job *jobs, size_t count);

/* Merkle step: count x 64 bytes in, count x 32 out, digest order; in == out allowed. */
extern void zp_sha256d_pairs(uint8_t *out, const uint8_t *in, size_t count);

#endif
