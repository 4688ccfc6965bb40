/* drain.c: fast subscribers in a process of their own, the same for every contender.
 *
 *   cc -O2 drain.c -o drain -lzmq -lpthread
 *   ./drain ADDRESS [-n SUBSCRIBERS] [-t TOPIC]... [-r MESSAGES_PER_SECOND] [-T TOPIC]
 *
 * Each subscriber is a thread with a context and a SUB socket of its own, without a high-water mark; with -r it reads
 * slowly and keeps libzmq's default mark, as an ordinary client would. -t: subscribe to that topic only (repeatable).
 * -T: keep the time of every message of that topic. Times are CLOCK_MONOTONIC in nanoseconds, Python's monotonic_ns().
 *
 * -V prints libzmq's version and ends. One JSON line to stdout when all are connected, then commands on stdin, a line each, until its end:
 *   run M     begin a run of M messages for each; when all have them: {"complete": time of the last one's last message}
 *   report    {"received": [in this run, of each], "total": [...], "missing": [counters skipped, of each], "disorder": [...],
 *              "connects": [...]}
 *   times     {"times": [[[counter, time], ...] of each]} of the topic of -T
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

enum { MOST = 64, TOPICS = 5 };

typedef struct { uint32_t counter; int64_t time; } Arrival;

typedef struct {
    _Alignas(128) atomic_llong received; /* written by its thread only */
    atomic_llong goal, base, missing, disorder, connects;
    atomic_size_t arrivals;
    Arrival *arrival;
    size_t room;
    uint32_t next[TOPICS];
    int seen[TOPICS];
    int number;
} Subscriber;

static const char *const names[TOPICS] = {"hashblock", "hashtx", "rawblock", "rawtx", "sequence"};
static const char *address, *topics[TOPICS], *timed;
static int count = 1, topic_count;
static double rate;
static Subscriber subscribers[MOST];
static atomic_int ready, unfinished;
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void sleep_until(int64_t deadline) {
    struct timespec t = {deadline / 1000000000, deadline % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

static int topic_of(const char *text, size_t size) {
    for (int i = 0; i < TOPICS; i++)
        if (strlen(names[i]) == size && memcmp(names[i], text, size) == 0) return i;
    return -1;
}

static void keep_time(Subscriber *s, uint32_t counter) {
    const size_t n = atomic_load_explicit(&s->arrivals, memory_order_relaxed);
    if (n == s->room) return; /* main() made it large enough for any benchmark */
    s->arrival[n] = (Arrival){counter, now_ns()};
    atomic_store_explicit(&s->arrivals, n + 1, memory_order_release);
}

static void check_counter(Subscriber *s, int topic, uint32_t counter) {
    const uint32_t skipped = counter - s->next[topic];
    if (s->seen[topic] && skipped) {
        if (skipped < 0x80000000u) atomic_fetch_add(&s->missing, skipped);
        else atomic_fetch_add(&s->disorder, 1);
    }
    s->seen[topic] = 1;
    s->next[topic] = counter + 1;
}

/* One whole message; 0 when none came in time. */
static int receive(Subscriber *s, void *socket) {
    zmq_msg_t m;
    int topic = -1, frame = 0, more = 1;
    for (; more; frame++) {
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, socket, 0) < 0) return 0;
        const char *data = zmq_msg_data(&m);
        const size_t size = zmq_msg_size(&m);
        more = zmq_msg_more(&m);
        if (frame == 0) topic = topic_of(data, size);
        if (frame == 2 && size == 4 && topic >= 0) {
            uint32_t counter;
            memcpy(&counter, data, 4);
            check_counter(s, topic, counter);
            if (timed && strcmp(names[topic], timed) == 0) keep_time(s, counter);
        }
        zmq_msg_close(&m);
    }
    return 1;
}

static void finish_run(void) {
    if (atomic_fetch_sub(&unfinished, 1) != 1) return;
    pthread_mutex_lock(&output);
    printf("{\"complete\": %" PRId64 "}\n", now_ns());
    fflush(stdout);
    pthread_mutex_unlock(&output);
}

static void *watch_connections(void *argument) {
    Subscriber *s = ((void **)argument)[0];
    void *monitor = ((void **)argument)[1];
    for (zmq_msg_t m;;) {
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, monitor, 0) < 0) break;
        zmq_msg_close(&m);
        zmq_msg_init(&m);
        if (zmq_msg_recv(&m, monitor, 0) < 0) break;
        zmq_msg_close(&m);
        if (atomic_fetch_add(&s->connects, 1) == 0) atomic_fetch_add(&ready, 1);
    }
    return NULL;
}

static void *subscribe(void *argument) {
    Subscriber *s = argument;
    void *context = zmq_ctx_new(), *socket = zmq_socket(context, ZMQ_SUB), *monitor = zmq_socket(context, ZMQ_PAIR);
    const int no_limit = 0;
    char name[32];
    pthread_t watcher;
    if (rate == 0) zmq_setsockopt(socket, ZMQ_RCVHWM, &no_limit, sizeof no_limit);
    if (!topic_count) zmq_setsockopt(socket, ZMQ_SUBSCRIBE, "", 0);
    for (int i = 0; i < topic_count; i++) zmq_setsockopt(socket, ZMQ_SUBSCRIBE, topics[i], strlen(topics[i]));
    snprintf(name, sizeof name, "inproc://monitor-%d", s->number);
    zmq_socket_monitor(socket, name, ZMQ_EVENT_HANDSHAKE_SUCCEEDED);
    zmq_connect(monitor, name);
    pthread_create(&watcher, NULL, watch_connections, (void *[]){s, monitor});
    zmq_connect(socket, address);
    int64_t due = 0;
    for (;;) {
        if (!receive(s, socket)) continue;
        const long long n = atomic_load_explicit(&s->received, memory_order_relaxed) + 1;
        atomic_store_explicit(&s->received, n, memory_order_relaxed);
        if (n == atomic_load_explicit(&s->goal, memory_order_relaxed)) finish_run();
        if (rate > 0) {
            const int64_t now = now_ns(), step = (int64_t)(1e9 / rate);
            due = due + step < now - 100 * step ? now : due + step;
            sleep_until(due);
        }
    }
    return NULL;
}

static void print_counts(const char *name, size_t offset, size_t minus, const char *end) {
    printf("\"%s\": [", name);
    for (int i = 0; i < count; i++) {
        const char *s = (const char *)&subscribers[i];
        long long n = atomic_load((atomic_llong *)(s + offset));
        if (minus) n -= atomic_load((atomic_llong *)(s + minus));
        printf("%s%lld", i ? ", " : "", n);
    }
    printf("]%s", end);
}

static void report(void) {
    printf("{");
    print_counts("received", offsetof(Subscriber, received), offsetof(Subscriber, base), ", ");
    print_counts("total", offsetof(Subscriber, received), 0, ", ");
    print_counts("missing", offsetof(Subscriber, missing), 0, ", ");
    print_counts("disorder", offsetof(Subscriber, disorder), 0, ", ");
    print_counts("connects", offsetof(Subscriber, connects), 0, "}\n");
}

static void print_times(void) {
    printf("{\"times\": [");
    for (int i = 0; i < count; i++) {
        const size_t n = atomic_load_explicit(&subscribers[i].arrivals, memory_order_acquire);
        printf("%s[", i ? ", " : "");
        for (size_t k = 0; k < n; k++)
            printf("%s[%" PRIu32 ", %" PRId64 "]", k ? ", " : "", subscribers[i].arrival[k].counter, subscribers[i].arrival[k].time);
        printf("]");
    }
    printf("]}\n");
}

static void begin_run(long long messages) {
    /* Nothing is on its way now, so the threads do not move while their goals are set. */
    atomic_store(&unfinished, count);
    for (int i = 0; i < count; i++) {
        const long long received = atomic_load(&subscribers[i].received);
        atomic_store(&subscribers[i].base, received);
        atomic_store(&subscribers[i].goal, received + messages);
    }
    printf("{\"run\": %lld}\n", messages);
}

static int read_options(int argc, char **argv) {
    int option;
    while ((option = getopt(argc, argv, "n:t:r:T:")) != -1) {
        if (option == 'n') count = atoi(optarg);
        else if (option == 't' && topic_count < TOPICS) topics[topic_count++] = optarg;
        else if (option == 'r') rate = atof(optarg);
        else if (option == 'T') timed = optarg;
        else return -1;
    }
    address = argv[optind];
    return address && count >= 1 && count <= MOST ? 0 : -1;
}

int main(int argc, char **argv) {
    pthread_t thread;
    char line[64];
    if (argc == 2 && strcmp(argv[1], "-V") == 0) {
        int major, minor, patch;
        zmq_version(&major, &minor, &patch);
        printf("%d.%d.%d\n", major, minor, patch);
        return 0;
    }
    if (read_options(argc, argv) < 0) {
        fprintf(stderr, "usage: drain [-n SUBSCRIBERS] [-t TOPIC]... [-r MESSAGES_PER_SECOND] [-T TOPIC] ADDRESS\n");
        return 2;
    }
    for (int i = 0; i < count; i++) {
        Subscriber *s = &subscribers[i];
        s->number = i;
        s->room = timed ? 1 << 20 : 0;
        if (timed && !(s->arrival = malloc(s->room * sizeof *s->arrival))) return 1;
        if (pthread_create(&thread, NULL, subscribe, s)) return 1;
    }
    while (atomic_load(&ready) < count) sleep_until(now_ns() + 1000000);
    printf("{\"ready\": %d}\n", count);
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        pthread_mutex_lock(&output);
        if (strncmp(line, "run ", 4) == 0) begin_run(atoll(line + 4));
        else if (strcmp(line, "report\n") == 0) report();
        else if (strcmp(line, "times\n") == 0) print_times();
        fflush(stdout);
        pthread_mutex_unlock(&output);
    }
    fflush(stdout);
    _exit(0); /* the threads have nothing to put in order */
}
