#define _GNU_SOURCE
#include "journal_file.h"
#include "crc32c.h"
#include "history.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

int zp_file_fail(zp_file_error *error, int code, int errno_, uint64_t offset, const char *expected, const char *got, ...) {
    va_list arguments;
    error->code = code;
    error->error = errno_;
    error->offset = offset;
    snprintf(error->expected, sizeof error->expected, "%s", expected);
    va_start(arguments, got);
    vsnprintf(error->got, sizeof error->got, got, arguments);
    va_end(arguments);
    return -1;
}

/* ---- descriptors and forks ---- */

/* A forked child must not hold the lock when the parent is gone: it closes its descriptor, and has no mapping (dont_fork). */
#define MOST_FILES 256
static atomic_int open_files[MOST_FILES]; /* descriptor + 1 */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void close_in_child(void) {
    for (int i = 0; i < MOST_FILES; i++) {
        const int fd = atomic_exchange(&open_files[i], 0) - 1;
        if (fd >= 0) close(fd);
    }
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, close_in_child); }

static int remember_descriptor(int fd) {
    pthread_once(&once, watch_forks);
    for (int i = 0; i < MOST_FILES; i++) {
        int none = 0;
        if (atomic_compare_exchange_strong(&open_files[i], &none, fd + 1)) return 0;
    }
    return -1;
}

static void close_descriptor(int fd) {
    for (int i = 0; i < MOST_FILES; i++) {
        int mine = fd + 1;
        if (atomic_compare_exchange_strong(&open_files[i], &mine, 0)) break;
    }
    close(fd);
}

static void dont_fork(void *p, size_t size) {
#if defined(MADV_DONTFORK)
    madvise(p, size, MADV_DONTFORK);
#elif defined(__APPLE__)
    minherit(p, size, VM_INHERIT_NONE);
#else
    (void)p, (void)size;
#endif
}

/* ---- the boot of the machine: what was in memory at a kill is in the file as long as the machine did not go down, too ---- */

static void read_boot(uint8_t boot[16]) {
    char text[64] = "";
    memset(boot, 0, 16); /* unknown: nobody's boot */
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (!f) return;
    if (fgets(text, sizeof text, f)) {
        int n = 0;
        for (const char *c = text; *c && n < 16; c++) {
            unsigned byte;
            if (*c == '-') continue;
            if (sscanf(c, "%2x", &byte) != 1) break;
            boot[n++] = (uint8_t)byte;
            c++;
        }
    }
    fclose(f);
}

static int is_this_boot(const uint8_t boot[16]) {
    static const uint8_t unknown[16];
    uint8_t now[16];
    read_boot(now);
    return memcmp(now, boot, 16) == 0 && memcmp(now, unknown, 16) != 0;
}

/* ---- the mappings ---- */

static int map_file(zp_journal_file *f, zp_file_error *error) {
    void *head = mmap(NULL, ZP_RING_AT, PROT_READ | PROT_WRITE, MAP_SHARED, f->fd, 0);
    if (head == MAP_FAILED) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, 0, "a file that can be mapped", "%s", strerror(errno));
    f->map = head;
    f->state = (zp_file_state *)(f->map + ZP_STATE_AT);
    dont_fork(head, ZP_RING_AT);
    /* The place for both is taken first, so that nothing else can come between. */
    uint8_t *place = mmap(NULL, 2 * f->ring_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (place == MAP_FAILED) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, ZP_RING_AT, "address space for the ring", "%s", strerror(errno));
    f->ring = place;
    for (int i = 0; i < 2; i++)
        if (mmap(place + (size_t)i * f->ring_bytes, f->ring_bytes, PROT_READ, MAP_SHARED | MAP_FIXED, f->fd, ZP_RING_AT) == MAP_FAILED)
            return zp_file_fail(error, ZP_FILE_SYSTEM, errno, ZP_RING_AT, "a file that can be mapped", "%s", strerror(errno));
    dont_fork(place, 2 * f->ring_bytes);
    return 0;
}

void zp_file_give_pages_back(zp_journal_file *f) {
    madvise(f->ring, 2 * f->ring_bytes, MADV_DONTNEED);
    f->looked_at = 0;
}

/* ---- the head ---- */

static uint64_t ring_bytes_of(uint64_t journal_bytes) { return (journal_bytes - ZP_RING_AT) / ZP_RING_STEP * ZP_RING_STEP; }

static int no_space(const char *path, uint64_t size, int error_number, zp_file_error *error) {
    struct statvfs fs;
    char expected[128];
    snprintf(expected, sizeof expected, "room for %llu bytes", (unsigned long long)size);
    if (error_number != ENOSPC && error_number != EDQUOT && error_number != EFBIG)
        return zp_file_fail(error, ZP_FILE_SYSTEM, error_number, 0, expected, "%s", strerror(error_number));
    if (statvfs(path, &fs) < 0) return zp_file_fail(error, ZP_FILE_NO_SPACE, error_number, 0, expected, "%s", strerror(error_number));
    return zp_file_fail(error, ZP_FILE_NO_SPACE, error_number, 0, expected, "%s (%llu bytes are free)", strerror(error_number),
                        (unsigned long long)fs.f_bavail * fs.f_frsize);
}

static int allocate(int fd, uint64_t size) {
#ifdef __APPLE__
    fstore_t store = {F_ALLOCATEALL, F_PEOFPOSMODE, 0, (off_t)size, 0};
    if (fcntl(fd, F_PREALLOCATE, &store) < 0) return errno;
    return ftruncate(fd, (off_t)size) < 0 ? errno : 0;
#else
    return posix_fallocate(fd, 0, (off_t)size);
#endif
}

/* The head is written last: a file without one was not finished, and is begun anew. */
static int create(zp_journal_file *f, const char *path, uint64_t journal_bytes, zp_file_error *error) {
    zp_file_head head = {
        .magic = ZP_FILE_MAGIC, .byte_order = ZP_BYTE_ORDER, .version = ZP_FILE_VERSION, .journal_bytes = journal_bytes,
        .ring_at = ZP_RING_AT, .ring_bytes = ring_bytes_of(journal_bytes),
    };
    const uint64_t size = head.ring_at + head.ring_bytes;
    const int failed = allocate(f->fd, size);
    if (failed) {
        if (ftruncate(f->fd, 0) < 0) errno = failed;
        return no_space(path, size, failed, error);
    }
    f->ring_bytes = head.ring_bytes;
    if (map_file(f, error) < 0) return -1;
    memset(f->map, 0, ZP_RING_AT);
    zp_file_drop(f, 0); /* writes the tail */
    head.crc = zp_crc32c(0, &head, offsetof(zp_file_head, crc));
    memcpy(f->map, &head, sizeof head);
    return 0;
}

static const char *printable(const char magic[8], char out[64]) {
    size_t n = 0;
    for (int i = 0; i < 8; i++) n += (size_t)snprintf(out + n, 64 - n, magic[i] >= 32 && magic[i] < 127 ? "%c" : "\\x%02x", (unsigned char)magic[i]);
    return out;
}

static int check_head(const zp_file_head *head, uint64_t size, uint64_t journal_bytes, zp_file_error *error) {
    char text[64], expected[128];
    if (memcmp(head->magic, ZP_FILE_MAGIC, 8) != 0)
        return zp_file_fail(error, ZP_FILE_DAMAGED, 0, 0, "a journal of zmqpub, which begins with ZMQPUBJ", "%s", printable(head->magic, text));
    if (head->byte_order != ZP_BYTE_ORDER)
        return zp_file_fail(error, ZP_FILE_VERSION_OTHER, 0, 8, "a journal in this machine's byte order", "another byte order");
    if (head->version != ZP_FILE_VERSION)
        return zp_file_fail(error, ZP_FILE_VERSION_OTHER, 0, 12, "version 1", "version %u", head->version);
    if (head->crc != zp_crc32c(0, head, offsetof(zp_file_head, crc)) || head->ring_at != ZP_RING_AT ||
        head->journal_bytes < ZP_RING_AT + ZP_RING_STEP || head->ring_bytes != ring_bytes_of(head->journal_bytes))
        return zp_file_fail(error, ZP_FILE_DAMAGED, 0, 0, "a head that fits its checksum", "another checksum");
    if (size != head->ring_at + head->ring_bytes) {
        snprintf(expected, sizeof expected, "a file of %llu bytes", (unsigned long long)(head->ring_at + head->ring_bytes));
        return zp_file_fail(error, ZP_FILE_DAMAGED, 0, size, expected, "one of %llu bytes", (unsigned long long)size);
    }
    if (head->journal_bytes != journal_bytes) {
        snprintf(expected, sizeof expected, "journal_bytes=%llu, with which the file was made", (unsigned long long)head->journal_bytes);
        return zp_file_fail(error, ZP_FILE_SIZE, 0, 16, expected, "journal_bytes=%llu", (unsigned long long)journal_bytes);
    }
    return 0;
}

static int is_unfinished(const zp_file_head *head) {
    static const zp_file_head nothing;
    return memcmp(head, &nothing, sizeof nothing) == 0;
}

/* ---- epochs ---- */

static zp_file_epochs *epochs_copy(const zp_journal_file *f, uint64_t turn) {
    return (zp_file_epochs *)(f->map + ZP_EPOCHS_AT + (turn & 1) * ZP_EPOCHS_BYTES);
}

static int is_whole(const zp_file_epochs *e) {
    return e->size <= ZP_EPOCHS_BYTES - sizeof *e + sizeof e->turn && e->size >= sizeof e->turn && e->crc == zp_crc32c(0, &e->turn, e->size);
}

int zp_file_save_epochs(zp_journal_file *f, const zp_epochs *epochs) {
    const size_t room = ZP_EPOCHS_BYTES - sizeof(zp_file_epochs), size = zp_epochs_packed_size(epochs);
    if (size > room) return ZP_NO_ROOM;
    zp_file_epochs *copy = epochs_copy(f, ++f->epochs_turn);
    copy->crc = 0; /* until it is whole */
    atomic_signal_fence(memory_order_seq_cst);
    copy->turn = f->epochs_turn;
    copy->size = (uint32_t)(sizeof copy->turn + size);
    zp_epochs_pack(epochs, copy->packed);
    const uint32_t crc = zp_crc32c(0, &copy->turn, copy->size);
    atomic_signal_fence(memory_order_seq_cst);
    copy->crc = crc;
    return ZP_OK;
}

static int load_epochs(zp_journal_file *f, zp_epochs *epochs, zp_file_error *error) {
    const zp_file_epochs *best = NULL;
    for (uint64_t i = 0; i < 2; i++) {
        const zp_file_epochs *copy = epochs_copy(f, i);
        if (is_whole(copy) && (!best || copy->turn > best->turn)) best = copy;
    }
    if (!best) return f->state->life ? zp_file_fail(error, ZP_FILE_DAMAGED, 0, ZP_EPOCHS_AT, "a list of epochs that fits its checksum", "none") : 0;
    f->epochs_turn = best->turn;
    const int result = zp_epochs_unpack(epochs, best->packed, best->size - sizeof best->turn);
    if (result == 0) return 0;
    return zp_file_fail(error, ZP_FILE_DAMAGED, 0, ZP_EPOCHS_AT, "a list of epochs", "%s", result == ZP_NO_MEMORY ? "no memory for it" : "something else");
}

/* ---- open and close ---- */

static int open_locked(zp_journal_file *f, const char *path, uint64_t *size, zp_file_error *error) {
    struct stat info;
    f->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (f->fd < 0) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, 0, "a file that can be opened", "%s", strerror(errno));
    if (fstat(f->fd, &info) < 0) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, 0, "a file", "%s", strerror(errno));
    if (!S_ISREG(info.st_mode)) return zp_file_fail(error, ZP_FILE_SYSTEM, EINVAL, 0, "a regular file", "something else");
    if (flock(f->fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, 0, "a file that can be locked", "%s", strerror(errno));
        return zp_file_fail(error, ZP_FILE_IN_USE, errno, 0, "a journal that nobody uses", "one that another publisher has open");
    }
    if (fstat(f->fd, &info) < 0) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, 0, "a file", "%s", strerror(errno));
    *size = (uint64_t)info.st_size;
    if (remember_descriptor(f->fd) < 0) return zp_file_fail(error, ZP_FILE_SYSTEM, EMFILE, 0, "at most 256 open journals", "one more");
    return 0;
}

static int open_or_create(zp_journal_file *f, const char *path, uint64_t journal_bytes, zp_epochs *epochs, zp_file_error *error) {
    zp_file_head head;
    uint64_t size = 0;
    if (open_locked(f, path, &size, error) < 0) return -1;
    memset(&head, 0, sizeof head);
    const ssize_t n = size ? pread(f->fd, &head, sizeof head, 0) : 0;
    if (n < 0) return zp_file_fail(error, ZP_FILE_SYSTEM, errno, 0, "a file that can be read", "%s", strerror(errno));
    if (is_unfinished(&head)) return create(f, path, journal_bytes, error);
    if (check_head(&head, size, journal_bytes, error) < 0) return -1;
    f->ring_bytes = head.ring_bytes;
    if (map_file(f, error) < 0 || load_epochs(f, epochs, error) < 0) return -1;
    f->same_boot = is_this_boot(f->state->boot);
    return zp_file_recover(f, error);
}

/* From now on this is the life that writes it. */
static void begin_life(zp_journal_file *f) {
    zp_file_state *state = f->state;
    const int complete = f->same_boot || state->clean || state->synced;
    f->may_continue = complete && f->lost_events == 0;
    f->life = state->life + 1;
    state->clean = 0;
    state->synced = f->sync == ZP_SYNC_EVENT;
    read_boot(state->boot);
    state->committed = f->end.at.event;
    state->life = f->life;
}

static atomic_uint serials;

int zp_journal_file_open(zp_journal_file *f, const char *path, uint64_t journal_bytes, double sync, zp_epochs *epochs, zp_file_error *error) {
    memset(f, 0, sizeof *f);
    f->fd = -1;
    f->sync = sync;
    const unsigned serial = atomic_fetch_add(&serials, 1) + 1;
    f->serial = serial <= UINT16_MAX ? (uint16_t)serial : 0;
    int result = open_or_create(f, path, journal_bytes, epochs, error);
    if (result == 0) {
        begin_life(f);
        const int failed = f->sync == ZP_SYNC_EVENT ? zp_file_sync(f) : zp_syncer_start(f);
        if (failed) result = zp_file_fail(error, ZP_FILE_SYSTEM, failed, 0, "a file that can be synced", "%s", strerror(failed));
    }
    if (result < 0) zp_journal_file_close(f);
    return result;
}

void zp_journal_file_close(zp_journal_file *f) {
    const int opened = f->life != 0;
    if (f->syncer) zp_syncer_stop(f);
    if (opened) f->state->clean = 1;
    if (opened && f->sync != ZP_SYNC_NONE) zp_file_sync(f);
    zp_file_forget_bodies(f);
    free(f->runs);
    if (f->ring) munmap(f->ring, 2 * f->ring_bytes);
    if (f->map) munmap(f->map, ZP_RING_AT);
    if (f->fd >= 0) close_descriptor(f->fd);
    f->fd = -1;
    f->runs = NULL;
    f->ring = f->map = NULL;
}
