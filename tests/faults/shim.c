/* Stands between a process and the C library (LD_PRELOAD) for the files of one folder: records what is written,
 * synced, truncated, created and removed, in order and with marks that the process sets; makes a chosen call fail,
 * kills the process at it, or holds it up. What is not under the watched folder passes through untouched.
 *
 * A record is: operation (1 byte), descriptor (int32), number (int64), length (uint32), payload; little-endian.
 *   O open: number 1 if the call created the file, payload the path       W write: number the offset, payload the data
 *   T truncate: number the new length       S sync       U unlink: payload the path       D mkdir: payload the path
 *   M mark: number as given                 L lock: number the first byte; payload type (int32), length (int64)
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define MOST_FDS 4096
#define KILL_BEFORE -1
#define KILL_AFTER -2
#define KILL_TORN -3

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_mkdir)(const char *, mode_t);
static int (*real_fcntl)(int, int, ...);

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static char folder[4096];
static size_t folder_length;
static int log_fd = -1;
static char *paths[MOST_FDS];

static char armed_ops[16];
static char armed_name[256];
static long armed_nth, armed_times, counted, injected;
static int armed_action;
static char held_op;
static int holding;
static int64_t stop_at = -1;

static void resolve(void) {
    if (real_open) return;
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_mkdir = dlsym(RTLD_NEXT, "mkdir");
    real_fcntl = dlsym(RTLD_NEXT, "fcntl64");
    if (!real_fcntl) real_fcntl = dlsym(RTLD_NEXT, "fcntl");
    real_open = dlsym(RTLD_NEXT, "open64");
}

static void record(char op, int fd, int64_t number, const void *payload, uint32_t length) {
    unsigned char head[17];
    int32_t fd32 = fd;
    int saved = errno;
    if (log_fd < 0) return;
    head[0] = (unsigned char)op;
    memcpy(head + 1, &fd32, 4);
    memcpy(head + 5, &number, 8);
    memcpy(head + 13, &length, 4);
    if (real_write(log_fd, head, sizeof head) != (ssize_t)sizeof head) _exit(97);
    if (length && real_write(log_fd, payload, length) != (ssize_t)length) _exit(97);
    errno = saved;
}

static int is_watched_path(const char *path) {
    return folder_length && strncmp(path, folder, folder_length) == 0 &&
           (path[folder_length] == '/' || path[folder_length] == 0);
}

static const char *watched(int fd) { return fd >= 0 && fd < MOST_FDS ? paths[fd] : NULL; }

/* Whether this call is the one to fail: 0 if not, an errno, or a way to be killed. Called with the lock. */
static int verdict(char op, const char *path) {
    while (holding && held_op == op) pthread_cond_wait(&released, &lock);
    if (!armed_ops[0] || !strchr(armed_ops, op)) return 0;
    if (strlen(path) < strlen(armed_name) || strcmp(path + strlen(path) - strlen(armed_name), armed_name)) return 0;
    counted++;
    if (counted < armed_nth) return 0;
    if (armed_times >= 0 && counted >= armed_nth + armed_times) return 0;
    injected++;
    if (armed_action == KILL_BEFORE) kill(getpid(), SIGKILL);
    return armed_action;
}

static void after(int action) {
    if (action == KILL_AFTER || action == KILL_TORN) kill(getpid(), SIGKILL);
}

/* --- what the process under test calls ------------------------------------------------------------------------- */

void faults_watch(const char *path, int descriptor) {
    resolve();
    pthread_mutex_lock(&lock);
    snprintf(folder, sizeof folder, "%s", path);
    folder_length = strlen(folder);
    log_fd = descriptor;
    pthread_mutex_unlock(&lock);
}

void faults_mark(int64_t number) {
    pthread_mutex_lock(&lock);
    record('M', -1, number, NULL, 0);
    pthread_mutex_unlock(&lock);
}

void faults_arm(const char *ops, const char *name, long nth, long times, int action) {
    pthread_mutex_lock(&lock);
    snprintf(armed_ops, sizeof armed_ops, "%s", ops);
    snprintf(armed_name, sizeof armed_name, "%s", name);
    armed_nth = nth;
    armed_times = times;
    armed_action = action;
    counted = 0;
    injected = 0;
    pthread_mutex_unlock(&lock);
}

long faults_counted(void) { return counted; }
long faults_injected(void) { return injected; }

void faults_hold(char op) {
    pthread_mutex_lock(&lock);
    held_op = op;
    holding = 1;
    pthread_mutex_unlock(&lock);
}

/* The thread that next takes an exclusive lock beginning at this byte stops itself, once it has it. */
void faults_stop_at_lock(int64_t first) { stop_at = first; }

void faults_release(void) {
    pthread_mutex_lock(&lock);
    holding = 0;
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&lock);
}

/* --- what it calls instead of the C library --------------------------------------------------------------------- */

static int opened(int dirfd, const char *path, int flags, mode_t mode) {
    struct stat status;
    int fresh, fd;
    resolve();
    if (!is_watched_path(path)) {
        fd = real_openat(dirfd, path, flags, mode);
        if (fd >= 0 && fd < MOST_FDS) paths[fd] = NULL;
        return fd;
    }
    pthread_mutex_lock(&lock);
    fresh = (flags & O_CREAT) && stat(path, &status) != 0;
    int action = fresh ? verdict('O', path) : 0;
    if (action > 0) {
        errno = action;
        fd = -1;
    } else {
        fd = real_openat(dirfd, path, flags, mode);
    }
    if (fd >= 0 && fd < MOST_FDS) {
        paths[fd] = strdup(path); /* never freed: a few descriptors a test */
        record('O', fd, fresh, path, (uint32_t)strlen(path));
    }
    after(action);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define MODE_OF(flags)                                                                                                 \
    mode_t mode = 0;                                                                                                   \
    if ((flags) & (O_CREAT | O_TMPFILE)) {                                                                             \
        va_list more;                                                                                                  \
        va_start(more, flags);                                                                                         \
        mode = va_arg(more, mode_t);                                                                                   \
        va_end(more);                                                                                                  \
    }

int open(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return opened(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dirfd, const char *path, int flags, ...) { MODE_OF(flags) return opened(dirfd, path, flags, mode); }
int openat64(int dirfd, const char *path, int flags, ...) { MODE_OF(flags) return opened(dirfd, path, flags, mode); }

int close(int fd) {
    resolve();
    if (fd >= 0 && fd < MOST_FDS) paths[fd] = NULL;
    return real_close(fd);
}

static ssize_t written(int fd, const void *data, size_t length, off64_t offset, int at) {
    const char *path = watched(fd);
    size_t taken = length;
    ssize_t done;
    int action;
    resolve();
    if (!path) return at ? real_pwrite(fd, data, length, offset) : real_write(fd, data, length);
    pthread_mutex_lock(&lock);
    if (!at) offset = lseek64(fd, 0, SEEK_CUR);
    action = verdict('W', path);
    if (action > 0) {
        errno = action;
        done = -1;
    } else {
        if (action == KILL_TORN) taken = length / 2;
        done = at ? real_pwrite(fd, data, taken, offset) : real_write(fd, data, taken);
        if (done > 0) record('W', fd, offset, data, (uint32_t)done);
        after(action);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t write(int fd, const void *data, size_t length) { return written(fd, data, length, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return written(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) {
    return written(fd, data, length, offset, 1);
}

static int truncated(int fd, off64_t length) {
    const char *path = watched(fd);
    int action, result;
    resolve();
    if (!path) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    action = verdict('T', path);
    if (action > 0) {
        errno = action;
        result = -1;
    } else {
        result = real_ftruncate(fd, length);
        if (result == 0) record('T', fd, length, NULL, 0);
        after(action);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncated(fd, length); }

static int synced(int fd, int (**real)(int)) {
    const char *path = watched(fd);
    int action, result;
    resolve();
    if (!path) return (*real)(fd);
    pthread_mutex_lock(&lock);
    action = verdict('S', path);
    if (action > 0) {
        errno = action;
        result = -1;
    } else {
        result = (*real)(fd);
        if (result == 0) record('S', fd, 0, NULL, 0);
        after(action);
    }
    pthread_mutex_unlock(&lock);
    return result;
}

int fsync(int fd) { return synced(fd, &real_fsync); }
int fdatasync(int fd) { return synced(fd, &real_fdatasync); }

int unlink(const char *path) {
    int result;
    resolve();
    if (!is_watched_path(path)) return real_unlink(path);
    pthread_mutex_lock(&lock);
    result = real_unlink(path);
    if (result == 0) record('U', -1, 0, path, (uint32_t)strlen(path));
    pthread_mutex_unlock(&lock);
    return result;
}

int mkdir(const char *path, mode_t mode) {
    int result;
    resolve();
    if (!is_watched_path(path)) return real_mkdir(path, mode);
    pthread_mutex_lock(&lock);
    result = real_mkdir(path, mode);
    if (result == 0) record('D', -1, 0, path, (uint32_t)strlen(path));
    pthread_mutex_unlock(&lock);
    return result;
}

static int controlled(int fd, int command, void *argument) {
    const char *path = watched(fd);
    int result;
    resolve();
    result = real_fcntl(fd, command, argument);
    if (path && result == 0 && (command == F_SETLK || command == F_SETLKW) && argument) {
        struct flock64 *wanted = argument; /* the same as struct flock on 64-bit systems */
        struct {
            int32_t type;
            int64_t length;
        } __attribute__((packed)) payload = {wanted->l_type, wanted->l_len};
        pthread_mutex_lock(&lock);
        record('L', fd, wanted->l_start, &payload, sizeof payload);
        pthread_mutex_unlock(&lock);
        if (wanted->l_type == F_WRLCK && wanted->l_start == stop_at) {
            stop_at = -1;
            raise(SIGSTOP);
        }
    }
    return result;
}

int fcntl(int fd, int command, ...) {
    va_list more;
    void *argument;
    va_start(more, command);
    argument = va_arg(more, void *);
    va_end(more);
    return controlled(fd, command, argument);
}

int fcntl64(int fd, int command, ...) {
    va_list more;
    void *argument;
    va_start(more, command);
    argument = va_arg(more, void *);
    va_end(more);
    return controlled(fd, command, argument);
}
