/* peers.h: the connections of one endpoint, seen from outside libzmq: who is stuck, who is slow, and how to let go.
 *
 * libzmq tells nobody which subscriber fills its pipe. The socket's monitor tells the file descriptor of each accepted
 * connection; a dup() of it shows how many bytes its peer has not taken (SIOCOUTQ), and shutdown() on the dup makes
 * libzmq drop the connection and its pipe at once. inproc has no descriptors.
 */
#ifndef ZMQPUB_PEERS_H
#define ZMQPUB_PEERS_H

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { ZP_PEER_TOPICS = 5 };

typedef struct {
    int fd;                  /* our dup, owned; closed when libzmq says disconnected, or the peer's FIN would wait for us; -1
                              * where none could be had: then it is only counted */
    int libzmq_fd;           /* the number libzmq knows it by; only compared */
    int evicted;
    int sampled;
    uint64_t since;          /* when it connected, zp_now() */
    uint64_t backlog;        /* bytes in the kernel that the peer has not taken, at the last sample */
    uint64_t acked;          /* bytes the peer's kernel has taken, where the system tells */
    uint64_t last_progress;  /* when it last took something or had nothing to take */
    uint64_t pressure;       /* the backlogs of the samples since zp_peers_forget, added up */
    uint16_t subscribed[ZP_PEER_TOPICS]; /* bit n: it subscribed to the first n bytes of the topic */
    int silent;              /* nothing that it said was read yet */
    unsigned said;           /* messages upstream within the second that began at said_since */
    uint64_t said_since;
    int heard;               /* a whole message came since the last look at how much it says */
    uint64_t said_before;    /* bytes that it had sent by then */
    size_t useless;          /* bytes of its subscriptions to what is no topic: each costs libzmq some 50 bytes of memory */
    char address[96];
} zp_peer;

typedef struct {
    pthread_mutex_t lock;    /* the sender changes the list; stats() reads it */
    zp_peer *list;
    size_t count, capacity;
    unsigned wanted[ZP_PEER_TOPICS]; /* how many of the list subscribed to something of each topic */
    uint64_t last_sample;
    int restart, forget;     /* the next sample measures progress anew; begins with no pressure */
    char endpoint[256];      /* what the endpoint is bound to, as libzmq reports it */
} zp_peers;

/* An open file, known by more than its number, which may be another's tomorrow. */
typedef struct {
    int fd;
    dev_t device;
    ino_t inode;
} zp_file;

void zp_file_note(zp_file *file, int fd);
int zp_file_is_open(const zp_file *file); /* under that number */
/* Wait until nobody has it open under that number, at most timeout_ns: what libzmq closes, it closes on its own threads. */
void zp_file_wait_closed(const zp_file *file, uint64_t timeout_ns);

void zp_peers_init(zp_peers *p);
void zp_peers_free(zp_peers *p);     /* closes all dups */
/* Disconnect those (unsettled: who may still be at the beginning of a handshake, and has nothing to receive). Answers how many
 * that were disconnected, now or before, libzmq has not closed yet. */
enum { ZP_NOBODY, ZP_UNSETTLED, ZP_EVERYBODY };
size_t zp_peers_disconnect(zp_peers *p, int whom);
/* Know nobody any more. Our dups are closed, as each would keep its connection open after libzmq has closed it. */
void zp_peers_let_go(zp_peers *p);
void zp_peers_accepted(zp_peers *p, int fd, uint64_t now);
void zp_peers_disconnected(zp_peers *p, int fd);
/* Look at every connection. What was seen longer than `stale_ns` ago, or before zp_peers_restart, says nothing of progress:
 * a backlog of the same size may be another one. */
void zp_peers_sample(zp_peers *p, uint64_t now, uint64_t stale_ns);
uint64_t zp_peer_backlog(const zp_peer *peer); /* bytes not taken, right now */
int zp_peers_any_backlog(zp_peers *p);
int zp_peers_any_unseen(zp_peers *p);   /* is there one whose descriptor could not be had? */
void zp_peers_restart(zp_peers *p);  /* the pipes have room: nobody holds the endpoint up */
void zp_peers_forget(zp_peers *p);   /* begin to add up the pressure anew */
/* Disconnect one that took nothing for stall_ns; 1 with a copy in *out, 0 when there is none. */
int zp_peers_evict_stalled(zp_peers *p, uint64_t now, uint64_t stall_ns, zp_peer *out);
/* Is there one that may be subscribing just now: younger than `young_ns`, and nothing that it said was read yet? */
int zp_peers_any_subscribing(const zp_peers *p, uint64_t now, uint64_t young_ns);
/* The connection that libzmq knows by that number; NULL when there is none. */
zp_peer *zp_peers_find(zp_peers *p, int libzmq_fd);
void zp_peers_subscribe(zp_peers *p, zp_peer *peer, int topic, unsigned length, int on);
void zp_peers_evict(zp_peers *p, zp_peer *peer, zp_peer *out);
/* libzmq keeps a message that is not whole yet, whatever its size. zp_peers_heard: one is whole; 1 with a copy in *out: one was
 * disconnected that sent more than `most` bytes without that. Unix sockets do not tell. */
void zp_peers_heard(zp_peers *p, int libzmq_fd);
int zp_peers_evict_endless(zp_peers *p, uint64_t most, zp_peer *out);
/* Disconnect the one with the most pressure; 0 when no connection has any backlog. */
int zp_peers_evict_slowest(zp_peers *p, zp_peer *out);

#endif
