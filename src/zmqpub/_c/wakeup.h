/* wakeup.h: a descriptor that one thread polls and any thread makes readable (an eventfd on Linux, else a pipe). */
#ifndef ZMQPUB_WAKEUP_H
#define ZMQPUB_WAKEUP_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/eventfd.h>
#endif

typedef struct {
    int read_fd, write_fd; /* owned; the same one on Linux */
} zp_wakeup;

/* 0, or -1 with errno. */
static inline int zp_wakeup_open(zp_wakeup *w) {
#ifdef __linux__
    w->read_fd = w->write_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return w->read_fd < 0 ? -1 : 0;
#else
    int fds[2];
    if (pipe(fds) < 0) return -1;
    for (int i = 0; i < 2; i++) {
        fcntl(fds[i], F_SETFL, O_NONBLOCK);
        fcntl(fds[i], F_SETFD, FD_CLOEXEC);
    }
    w->read_fd = fds[0];
    w->write_fd = fds[1];
    return 0;
#endif
}

static inline void zp_wakeup_close(zp_wakeup *w) {
    if (w->read_fd >= 0) close(w->read_fd);
    if (w->write_fd >= 0 && w->write_fd != w->read_fd) close(w->write_fd);
    w->read_fd = w->write_fd = -1;
}

static inline void zp_wakeup_signal(const zp_wakeup *w) {
    const uint64_t one = 1;
    /* A full pipe or counter is readable already; nothing else can fail here. */
    while (write(w->write_fd, &one, w->read_fd == w->write_fd ? 8 : 1) < 0 && errno == EINTR) continue;
}

static inline void zp_wakeup_clear(const zp_wakeup *w) {
    uint64_t buffer[8];
    while (read(w->read_fd, buffer, sizeof buffer) > 0) continue;
}

#endif
