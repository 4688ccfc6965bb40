/* asker.c: clients of a replay endpoint in a process of their own, as fast as C can ask.
 *
 *   cc -O2 asker.c -o asker -lzmq -lpthread
 *   ./asker ADDRESS [-n CLIENTS] [-b BYTES_PER_ANSWER] [-f]
 *
 * Each client is a thread with a context and a DEALER socket of its own: HELLO, then RANGE for all notifiers of the current epoch
 * from the oldest message held to the newest, checking every counter. The next piece is asked for when the header of the one before
 * is there, so that the publisher makes it while the messages are looked at. When all have everything, one JSON line:
 * {"messages": of each, "bytes": of each, "seconds": from the first request to the last message of the last, "disorder": counters
 * that were not the next}. With -f they go on from the beginning until they are killed, and say nothing but {"ready": 1}.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { MOST = 64, TOPICS = 5, HEADER = 10 };

typedef struct {
    uint16_t id;
    uint8_t topic;
    uint64_t next;
} Notifier;

typedef struct {
    void *socket;
    uint8_t epoch[16];
    Notifier notifiers[TOPICS];
    unsigned count;
    uint64_t messages, bytes, disorder;
    int64_t first, last;
} Client;

static const char *const names[TOPICS] = {"hashblock", "hashtx", "rawblock", "rawtx", "sequence"};
static const char *address;
static int count = 1, forever;
static uint32_t most_bytes;
static Client clients[MOST];
static atomic_int ready;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *what) {
    fprintf(stderr, "asker: %s\n", what);
    exit(1);
}

static uint64_t load(const uint8_t *p, unsigned bytes) {
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++) v |= (uint64_t)p[i] << (8 * i);
    return v;
}

static uint8_t *put(uint8_t *p, uint64_t v, unsigned bytes) {
    for (unsigned i = 0; i < bytes; i++) *p++ = (uint8_t)(v >> (8 * i));
    return p;
}

/* ---- requests ---- */

static void hello(Client *c) {
    zmq_send(c->socket, "ZPR1\x01\0\0\0\0", 9, 0);
}

static void range(Client *c) {
    uint8_t request[9 + 36 + 10 * TOPICS], *p = request;
    memcpy(p, "ZPR1\x02\0\0\0\0", 9);
    memcpy(p + 9, c->epoch, 16);
    p = put(p + 25, 65536, 4);
    p = put(p, most_bytes, 4);
    p = put(p, 0xFFFF, 2);
    p = put(p, 0, 8);
    p = put(p, c->count, 2);
    for (unsigned i = 0; i < c->count; i++) {
        p = put(p, c->notifiers[i].id, 2);
        p = put(p, c->notifiers[i].next, 8);
    }
    zmq_send(c->socket, request, (size_t)(p - request), 0);
}

/* ---- answers ---- */

static int receive(Client *c, zmq_msg_t *m) {
    zmq_msg_init(m);
    if (zmq_msg_recv(m, c->socket, 0) < 0) fail("no answer");
    return zmq_msg_more(m);
}

static void take_hello(Client *c) {
    zmq_msg_t m;
    receive(c, &m);
    const uint8_t *p = zmq_msg_data(&m);
    if (zmq_msg_size(&m) < HEADER + 1 || p[5] != 0) fail("HELLO was refused");
    unsigned epochs = p[HEADER];
    p += HEADER + 1;
    while (epochs--) {
        memcpy(c->epoch, p, 16);
        c->count = 0;
        for (unsigned n = (unsigned)load(p + 25, 2), size = 27; ; n--) {
            p += size;
            if (!n) break;
            if (c->count < TOPICS) c->notifiers[c->count++] = (Notifier){(uint16_t)load(p, 2), p[2], load(p + 3, 8)};
            size = 21 + (unsigned)load(p + 19, 2);
        }
    }
    zmq_msg_close(&m);
}

/* Where each notifier of the answer begins and ends; 1 when there is more to be asked for. */
static int take_header(Client *c, uint64_t begin[TOPICS]) {
    zmq_msg_t m;
    receive(c, &m);
    const uint8_t *p = zmq_msg_data(&m);
    if (zmq_msg_size(&m) < HEADER + 19 || p[5] != 0) fail("RANGE was refused");
    const int more = p[HEADER + 16] & 1;
    for (unsigned i = 0; i < c->count; i++) {
        const uint8_t *span = p + HEADER + 19 + 26 * i;
        begin[c->notifiers[i].topic] = load(span + 2, 8);
        c->notifiers[i].next = load(span + 10, 8);
    }
    zmq_msg_close(&m);
    return more;
}

static int topic_of(const zmq_msg_t *m) {
    for (int i = 0; i < TOPICS; i++)
        if (strlen(names[i]) == zmq_msg_size(m) && memcmp(names[i], zmq_msg_data((zmq_msg_t *)m), strlen(names[i])) == 0) return i;
    fail("an unknown topic");
    return 0;
}

static void take_messages(Client *c, uint64_t number[TOPICS], uint64_t messages) {
    while (messages--) {
        zmq_msg_t topic, body, counter;
        receive(c, &topic);
        receive(c, &body);
        receive(c, &counter);
        const int t = topic_of(&topic);
        c->disorder += load(zmq_msg_data(&counter), 4) != (uint32_t)number[t]++;
        c->messages++;
        c->bytes += zmq_msg_size(&topic) + zmq_msg_size(&body) + 4;
        zmq_msg_close(&topic);
        zmq_msg_close(&body);
        zmq_msg_close(&counter);
    }
}

static void replay(Client *c) {
    int more = 1;
    range(c);
    while (more) {
        uint64_t number[TOPICS], messages = 0;
        more = take_header(c, number);
        for (unsigned i = 0; i < c->count; i++) messages += c->notifiers[i].next - number[c->notifiers[i].topic];
        if (more) range(c);
        take_messages(c, number, messages);
    }
}

static void *run(void *argument) {
    Client *c = argument;
    void *context = zmq_ctx_new();
    c->socket = zmq_socket(context, ZMQ_DEALER);
    const int patience = 20000;
    zmq_setsockopt(c->socket, ZMQ_RCVTIMEO, &patience, sizeof patience);
    zmq_connect(c->socket, address);
    hello(c);
    take_hello(c);
    atomic_fetch_add(&ready, 1);
    while (atomic_load(&ready) < count) usleep(100);
    c->first = now_ns();
    do {
        replay(c);
        if (forever) {
            hello(c);
            take_hello(c);
        }
    } while (forever);
    c->last = now_ns();
    return NULL;
}

int main(int argc, char **argv) {
    for (int option; (option = getopt(argc, argv, "n:b:f")) != -1;) {
        if (option == 'n') count = atoi(optarg);
        else if (option == 'b') most_bytes = (uint32_t)atol(optarg);
        else if (option == 'f') forever = 1;
        else return 2;
    }
    if (optind + 1 != argc || count < 1 || count > MOST) return 2;
    address = argv[optind];
    pthread_t threads[MOST];
    for (int i = 0; i < count; i++) pthread_create(&threads[i], NULL, run, &clients[i]);
    while (forever && atomic_load(&ready) < count) usleep(100);
    if (forever) printf("{\"ready\": 1}\n"), fflush(stdout);
    int64_t first = INT64_MAX, last = 0;
    uint64_t disorder = 0;
    for (int i = 0; i < count; i++) {
        pthread_join(threads[i], NULL);
        if (clients[i].first < first) first = clients[i].first;
        if (clients[i].last > last) last = clients[i].last;
        disorder += clients[i].disorder;
    }
    printf("{\"messages\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"seconds\": %.9f, \"disorder\": %" PRIu64 "}\n", clients[0].messages,
           clients[0].bytes, (double)(last - first) / 1e9, disorder);
    return 0;
}
