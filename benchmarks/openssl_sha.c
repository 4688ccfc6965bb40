/* openssl_sha.c: nanoseconds for the double SHA-256 of a message, the core's own C functions beside OpenSSL's low-level calls.
 *
 *   cc -O3 -I../src/zmqpub/_c openssl_sha.c ../src/zmqpub/_c/sha256*.c -o openssl_sha -lcrypto
 *   ./openssl_sha SIZE
 *
 * {"openssl": [a number for each round], "single": [...], "batch": [...]}; the three take turns.
 */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "sha256.h"
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MESSAGES = 256, REPEAT = 80, ROUNDS = 21 };

static uint8_t *messages, digests[MESSAGES][32];
static size_t size;

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void openssl(void) {
    for (int i = 0; i < MESSAGES; i++) {
        SHA256_CTX c;
        uint8_t first[32];
        SHA256_Init(&c);
        SHA256_Update(&c, messages + (size_t)i * size, size);
        SHA256_Final(first, &c);
        SHA256_Init(&c);
        SHA256_Update(&c, first, sizeof first);
        SHA256_Final(digests[i], &c);
    }
}

static void single(void) {
    for (int i = 0; i < MESSAGES; i++) zp_sha256d(digests[i], messages + (size_t)i * size, size);
}

static void batch(void) {
    static zp_hash_job jobs[MESSAGES];
    for (int i = 0; i < MESSAGES; i++)
        jobs[i] = (zp_hash_job){.part = {messages + (size_t)i * size}, .length = {size}, .out = digests[i]};
    zp_sha256d_jobs(jobs, MESSAGES);
}

static double time_of(void (*hash)(void)) {
    const double began = now_ns();
    for (int i = 0; i < REPEAT; i++) hash();
    return (now_ns() - began) / (MESSAGES * REPEAT);
}

int main(int argc, char **argv) {
    void (*const contenders[])(void) = {openssl, single, batch};
    const char *const names[] = {"openssl", "single", "batch"};
    static double taken[3][ROUNDS];
    static uint8_t expected[MESSAGES][32];
    size = argc > 1 ? (size_t)atol(argv[1]) : 250;
    messages = malloc(MESSAGES * size);
    if (!messages || zp_sha256_select(NULL) != 0) return 1;
    for (size_t i = 0; i < MESSAGES * size; i++) messages[i] = (uint8_t)(i * 2654435761u >> 13);
    openssl();
    memcpy(expected, digests, sizeof expected);
    single();
    if (memcmp(expected, digests, sizeof expected)) return 1;
    for (int r = 0; r < ROUNDS; r++)
        for (int i = 0; i < 3; i++) taken[i][r] = time_of(contenders[i]);
    printf("{");
    for (int i = 0; i < 3; i++) {
        printf("%s\"%s\": [", i ? ", " : "", names[i]);
        for (int r = 0; r < ROUNDS; r++) printf("%s%.2f", r ? ", " : "", taken[i][r]);
        printf("]");
    }
    printf("}\n");
    return 0;
}
