#include "replay_request.h"
#include <string.h>

#define HEADER 9u           /* ZPR1, operation, id */
#define RANGE 36u           /* epoch, two limits, where to end, count */
#define START 10u           /* notifier, number */

#define DEFAULT_MESSAGES 4096u
#define DEFAULT_BYTES (1u << 20)
#define MOST_MESSAGES 65536u
#define MOST_BYTES (8u << 20)

static uint32_t within(uint64_t asked, uint32_t usual, uint32_t most) {
    return asked == 0 ? usual : asked < most ? (uint32_t)asked : most;
}

static int bad(const char **problem, const char *text) {
    *problem = text;
    return ZP_REPLAY_BAD_REQUEST;
}

static int unsupported(const char **problem, const char *text) {
    *problem = text;
    return ZP_REPLAY_UNSUPPORTED;
}

static int parse_range(const uint8_t *p, size_t size, zp_replay_request *out, const char **problem) {
    if (size < RANGE) return bad(problem, "a RANGE request has at least 45 bytes");
    const uint64_t count = zp_load_le(p + 34, 2);
    if (size != RANGE + START * count) return bad(problem, "the length of a RANGE request is 45 bytes, and 10 for each notifier");
    if (count == 0) return bad(problem, "a RANGE request names at least one notifier");
    if (count > ZP_TOPICS) return bad(problem, "a RANGE request names at most one notifier of each topic");
    memcpy(out->epoch, p, ZP_EPOCH_BYTES);
    out->max_messages = within(zp_load_le(p + 16, 4), DEFAULT_MESSAGES, MOST_MESSAGES);
    out->max_bytes = within(zp_load_le(p + 20, 4), DEFAULT_BYTES, MOST_BYTES);
    out->until_notifier = (uint16_t)zp_load_le(p + 24, 2);
    out->until = zp_load_le(p + 26, 8);
    out->count = (unsigned)count;
    for (unsigned i = 0; i < out->count; i++) {
        const uint8_t *at = p + RANGE + START * i;
        out->starts[i] = (zp_replay_from){(uint16_t)zp_load_le(at, 2), zp_load_le(at + 2, 8)};
    }
    return ZP_REPLAY_OK;
}

int zp_replay_parse(const uint8_t *data, size_t size, zp_replay_request *out, const char **problem) {
    memset(out, 0, sizeof *out);
    if (size < 4 || memcmp(data, "ZPR", 3) != 0) return bad(problem, "a request begins with ZPR1");
    if (size >= 5) out->operation = data[4] & 0x7F;
    if (size >= HEADER) out->id = (uint32_t)zp_load_le(data + 5, 4);
    if (size > ZP_REPLAY_LARGEST_REQUEST) return bad(problem, "a request has at most 4096 bytes");
    if (data[3] != '1') return unsupported(problem, "this is version 1 of the protocol: a request begins with ZPR1");
    if (size < HEADER) return bad(problem, "a request has at least 9 bytes");
    switch (data[4]) {
    case ZP_REPLAY_HELLO:
    case ZP_REPLAY_SNAPSHOT:
        return size == HEADER ? ZP_REPLAY_OK : bad(problem, "a HELLO or SNAPSHOT request has 9 bytes");
    case ZP_REPLAY_RANGE: return parse_range(data + HEADER, size - HEADER, out, problem);
    default: return unsupported(problem, "the operations are 1 (HELLO), 2 (RANGE) and 3 (SNAPSHOT)");
    }
}
