/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk: the daemon's file system calls, one function each, as the system has them but for this: failures are
 * returned as negative errno, EINTR is tried again, and every descriptor is close-on-exec.
 *
 * The one door, so that a test can stand in it: a program that defines these functions itself gets them
 * instead of disk.o, and can make the n-th call fail. (SQLite's own calls have SQLite's door,
 * xSetSystemCall.)
 *
 * Any thread. All of them block: workers only, but at start and stop.
 */
#ifndef DIRCACHE_DAEMON_DISK_H
#define DIRCACHE_DAEMON_DISK_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <time.h>

int disk_openat(int dirfd, const char *path, int flags, mode_t mode);
/* openat2(2) with RESOLVE_* flags; where the kernel lacks it, -ENOSYS. */
int disk_openat2(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve);
/* Open the inode behind a descriptor once more, named or not: another open file, with an offset of its own.
 */
int disk_reopen(int fd, int flags);
/* Open what is behind a descriptor once more, on the mount that another descriptor is on: by its file handle,
 * which takes CAP_DAC_READ_SEARCH (-EPERM). */
int disk_reopen_on(int mount_fd, int fd, int flags);
/* dup3(2): from here on `over` is what fd is, for every thread at once. */
int disk_dup_over(int fd, int over);
void disk_close(int fd); /* -1 is fine; errors of close(2) mean nothing here: nothing is promised before it */

ssize_t disk_pread(int fd, void *buf, size_t len, off_t offset); /* one call: may be short */
int disk_read_full(int fd, void *buf, size_t len, off_t offset); /* all, else -EIO at an early end */
int disk_write_full(int fd, const void *buf, size_t len);        /* all */
int disk_pwrite_full(int fd, const void *buf, size_t len, off_t offset);
/* From an offset in one file to where the other stands, inside the kernel; -EIO at an early end. */
int disk_send_full(int from_fd, off_t offset, int to_fd, uint64_t len);

int disk_fstat(int fd, struct stat *st);
int disk_fstatat(int dirfd, const char *name, struct stat *st, int flags);
int disk_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *st);
int disk_is_read_only(int fd);                   /* the mount that it is on: 1, 0, or a negative errno */
int disk_may_write(int dirfd, const char *name); /* and search a directory: 0 or a negative errno */
int disk_mkdirat(int dirfd, const char *name, mode_t mode);
int disk_symlinkat(const char *target, int dirfd, const char *name);
int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags);
int disk_link_fd(int fd, int to_dirfd, const char *to); /* give an O_TMPFILE file a name */
int disk_unlinkat(int dirfd, const char *name, int flags);
int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
int disk_fchmod(int fd, mode_t mode);
int disk_chmod_handle(int fd, mode_t mode); /* of what an O_PATH descriptor stands for, by /proc/self/fd */
int disk_utimensat(int dirfd, const char *name, const struct timespec times[2]); /* follows no symlink */
int disk_futimens(int fd, const struct timespec times[2]);
int disk_ftruncate(int fd, off_t size);
int disk_fallocate(int fd, int mode, off_t offset, off_t len);
int disk_reflink(int from_fd, int to_fd);                                     /* ioctl FICLONE: all of it */
ssize_t disk_readlinkat(int dirfd, const char *name, char *buf, size_t size); /* not terminated, may be cut */
int disk_fd_path(int fd, char *buf,
		 size_t size); /* the path behind a descriptor, terminated, or -ENAMETOOLONG */
int disk_fd_flags(int fd);     /* fcntl F_GETFL */
int disk_flock(int fd, int operation);
int disk_free_bytes(int fd, uint64_t *bytes); /* that its file system has for an ordinary user */
int disk_fsync(int fd);
int disk_syncfs(int fd);

/* A stream over a folder; takes fd over, also on failure. Return: the stream, or NULL with *r < 0. */
DIR *disk_fdopendir(int fd, int *r);
/* The next entry that is not `.` or `..`; NULL at the end, or with *r < 0. */
struct dirent *disk_readdir(DIR *dir, int *r);
void disk_closedir(DIR *dir);

#endif
