/* Preloaded into a process, writes down all that it does to the files of one folder.
 *
 * ENVELOCK_RECORD_FOLDER  the folder; only regular files directly in it count
 * ENVELOCK_RECORD_LOG     where the record goes, outside the folder
 * ENVELOCK_RECORD_SAID    an existing file outside the folder; what is written there is recorded as said
 *
 * A record: kind (1), three little-endian 64-bit numbers (inode, offset, length), then so many bytes.
 *   W write      T set length (offset = the new one, length = 0)      S sync of a file     D sync of the folder
 *   N the names now: for each, inode (8), length of the name (1), name                     A said
 *
 * Names are read from the folder itself before and after each call, so that a rename by a raw system
 * call is seen at the next call, before what that does. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int log_fd = -1;
static const char *folder;
static struct stat folder_stat, said_stat;
static char names[65536], before[65536];
static size_t names_len, before_len;

static ssize_t (*real_write)(int, const void *, size_t);
#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void out(const void *bytes, size_t len) {
    while (len) {
        ssize_t done = real_write(log_fd, bytes, len);
        if (done < 0) {
            if (errno == EINTR) continue;
            abort();
        }
        bytes = (const char *)bytes + done;
        len -= (size_t)done;
    }
}

static void record(char kind, uint64_t inode, uint64_t offset, const void *bytes, uint64_t len) {
    char head[25];
    head[0] = kind;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &offset, 8);
    memcpy(head + 17, &len, 8);
    out(head, sizeof head);
    out(bytes, len);
}

static void look(void) {
    DIR *dir = opendir(folder);
    struct dirent *entry;
    if (!dir) abort();
    memcpy(before, names, names_len);
    before_len = names_len;
    names_len = 0;
    while ((entry = readdir(dir))) {
        size_t len = strlen(entry->d_name);
        uint64_t inode = entry->d_ino;
        if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
        if (len > 255 || names_len + len + 9 > sizeof names) abort();
        memcpy(names + names_len, &inode, 8);
        names[names_len + 8] = (char)len;
        memcpy(names + names_len + 9, entry->d_name, len);
        names_len += len + 9;
    }
    closedir(dir);
    if (names_len != before_len || memcmp(names, before, names_len)) record('N', 0, 0, names, names_len);
}

__attribute__((constructor)) static void start(void) {
    const char *log = getenv("ENVELOCK_RECORD_LOG"), *said = getenv("ENVELOCK_RECORD_SAID");
    real_write = (__typeof__(real_write))dlsym(RTLD_NEXT, "write");
    folder = getenv("ENVELOCK_RECORD_FOLDER");
    if (!log || !folder || !said) return;
    log_fd = open(log, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (log_fd < 0 || stat(folder, &folder_stat) || stat(said, &said_stat)) abort();
    look();
}

/* 'f' a file of the folder, 'd' the folder, 's' what is said, 0 anything else. */
static char kind_of(int fd, uint64_t *inode) {
    struct stat it;
    size_t at;
    if (log_fd < 0 || fstat(fd, &it)) return 0;
    *inode = it.st_ino;
    if (it.st_dev == said_stat.st_dev && it.st_ino == said_stat.st_ino) return 's';
    if (it.st_dev != folder_stat.st_dev) return 0;
    if (it.st_ino == folder_stat.st_ino) return 'd';
    if (!S_ISREG(it.st_mode)) return 0;
    for (at = 0; at < names_len; at += 9 + (unsigned char)names[at + 8])
        if (!memcmp(names + at, &it.st_ino, 8)) return 'f';
    return 0;
}

/* All under the lock: look, the call, then what it did. */
#define BEGIN                                   \
    int saved;                                  \
    uint64_t inode = 0;                         \
    char kind;                                  \
    pthread_mutex_lock(&lock);                  \
    if (log_fd >= 0) look();                    \
    kind = kind_of(fd, &inode)
#define END                                     \
    saved = errno;                              \
    pthread_mutex_unlock(&lock);                \
    errno = saved;                              \
    return done

static void wrote(char kind, uint64_t inode, off_t offset, const void *bytes, ssize_t done) {
    if (done <= 0) return;
    if (kind == 'f') record('W', inode, (uint64_t)offset, bytes, (uint64_t)done);
    if (kind == 's') record('A', 0, 0, bytes, (uint64_t)done);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    ssize_t done;
    struct stat it;
    /* Not under the lock: pipes of other threads may wait. */
    if (log_fd < 0 || fstat(fd, &it) || !S_ISREG(it.st_mode)) {
        REAL(write);
        return real(fd, bytes, len);
    }
    BEGIN;
    off_t offset = kind == 'f' ? lseek(fd, 0, SEEK_CUR) : 0;
    done = real_write(fd, bytes, len);
    wrote(kind, inode, offset, bytes, done);
    END;
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    REAL(pwrite);
    ssize_t done;
    BEGIN;
    done = real(fd, bytes, len, offset);
    wrote(kind, inode, offset, bytes, done);
    END;
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) {
    return pwrite(fd, bytes, len, offset);
}

int ftruncate(int fd, off_t len) {
    REAL(ftruncate);
    int done;
    BEGIN;
    done = real(fd, len);
    if (!done && kind == 'f') record('T', inode, (uint64_t)len, "", 0);
    END;
}

int ftruncate64(int fd, off64_t len) {
    return ftruncate(fd, len);
}

/* As slow as a disk, so that whoever is told of something before it is synced can say so. */
static void linger(void) {
    if (log_fd >= 0) usleep(1000);
}

static void synced(char kind, uint64_t inode) {
    if (kind == 'f') record('S', inode, 0, "", 0);
    if (kind == 'd') record('D', inode, 0, "", 0);
}

int fsync(int fd) {
    REAL(fsync);
    int done;
    linger();
    BEGIN;
    done = real(fd);
    if (!done) synced(kind, inode);
    END;
}

int fdatasync(int fd) {
    REAL(fdatasync);
    int done;
    linger();
    BEGIN;
    done = real(fd);
    if (!done) synced(kind, inode);
    END;
}

int unlink(const char *path) {
    REAL(unlink);
    int done, fd = -1;
    BEGIN;
    (void)kind;
    done = real(path);
    saved = errno;
    if (log_fd >= 0) look();
    errno = saved;
    END;
}

int rename(const char *from, const char *to) {
    REAL(rename);
    int done, fd = -1;
    BEGIN;
    (void)kind;
    done = real(from, to);
    saved = errno;
    if (log_fd >= 0) look();
    errno = saved;
    END;
}

/* What nobody here calls: the record would miss it, so it is an end with a noise. */
#define UNUSED_ON_FILES(fd)                                         \
    do {                                                            \
        uint64_t inode;                                             \
        if (log_fd >= 0 && kind_of(fd, &inode) == 'f') abort();     \
    } while (0)

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    UNUSED_ON_FILES(fd);
    return real(fd, parts, count);
}

ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t offset) {
    REAL(pwritev);
    UNUSED_ON_FILES(fd);
    return real(fd, parts, count, offset);
}

int posix_fallocate(int fd, off_t offset, off_t len) {
    REAL(posix_fallocate);
    UNUSED_ON_FILES(fd);
    return real(fd, offset, len);
}

int fallocate(int fd, int mode, off_t offset, off_t len) {
    REAL(fallocate);
    UNUSED_ON_FILES(fd);
    return real(fd, mode, offset, len);
}
