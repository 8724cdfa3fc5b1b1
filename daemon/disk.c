/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Where tests/faults/disk.c, which compiles this file once more, makes calls fail. Here, nothing. */
#ifndef DISK_CALL
#define DISK_CALL(call) (call)
#endif

/* A system call, again after EINTR, its failure as a negative errno. */
#define SYSTEM(call)                                                                                         \
	(__extension__({                                                                                     \
		__typeof__(call) result_;                                                                    \
		do                                                                                           \
			result_ = DISK_CALL(call);                                                           \
		while (result_ < 0 && errno == EINTR);                                                       \
		result_ < 0 ? -errno : result_;                                                              \
	}))

enum { FD_LINK_SIZE = sizeof("/proc/self/fd/-2147483648") };

/* The name by which /proc knows a descriptor of ours: a link that leads to the inode, named or not. */
static const char *print_fd_link(int fd, char link[FD_LINK_SIZE])
{
	(void)snprintf(link, FD_LINK_SIZE, "/proc/self/fd/%d", fd);
	return link;
}

int disk_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return SYSTEM(openat(dirfd, path, flags | O_CLOEXEC, mode));
}

/* The C library has none. */
static int call_openat2(int dirfd, const char *path, struct open_how *how)
{
	return (int)syscall(SYS_openat2, dirfd, path, how, sizeof(*how));
}

int disk_openat2(int dirfd, const char *path, int flags, mode_t mode, uint64_t resolve)
{
	struct open_how how = {
		.flags = (uint64_t)(unsigned)flags | O_CLOEXEC,
		.mode = mode,
		.resolve = resolve,
	};

	return SYSTEM(call_openat2(dirfd, path, &how));
}

int disk_reopen(int fd, int flags)
{
	char link[FD_LINK_SIZE];

	return disk_openat(AT_FDCWD, print_fd_link(fd, link), flags, 0);
}

int disk_reopen_on(int mount_fd, int fd, int flags)
{
	union {
		struct file_handle handle;
		char room[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} u = { .handle.handle_bytes = MAX_HANDLE_SZ };
	int mount_id;
	int r = SYSTEM(name_to_handle_at(fd, "", &u.handle, &mount_id, AT_EMPTY_PATH));

	return r < 0 ? r : SYSTEM(open_by_handle_at(mount_fd, &u.handle, flags | O_CLOEXEC));
}

int disk_dup_over(int fd, int over)
{
	int r = SYSTEM(dup3(fd, over, O_CLOEXEC));

	return r < 0 ? r : 0;
}

void disk_close(int fd)
{
	if (fd >= 0)
		(void)close(fd); /* not again after EINTR: Linux has let go of the number already */
}

ssize_t disk_pread(int fd, void *buf, size_t len, off_t offset)
{
	return SYSTEM(pread(fd, buf, len, offset));
}

int disk_read_full(int fd, void *buf, size_t len, off_t offset)
{
	for (char *p = buf; len > 0;) {
		ssize_t n = disk_pread(fd, p, len, offset);

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO;
		p += n;
		offset += n;
		len -= (size_t)n;
	}
	return 0;
}

int disk_write_full(int fd, const void *buf, size_t len)
{
	for (const char *p = buf; len > 0;) {
		ssize_t n = SYSTEM(write(fd, p, len));

		if (n < 0)
			return (int)n;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int disk_pwrite_full(int fd, const void *buf, size_t len, off_t offset)
{
	for (const char *p = buf; len > 0;) {
		ssize_t n = SYSTEM(pwrite(fd, p, len, offset));

		if (n < 0)
			return (int)n;
		p += n;
		offset += n;
		len -= (size_t)n;
	}
	return 0;
}

int disk_send_full(int from_fd, off_t offset, int to_fd, uint64_t len)
{
	while (len > 0) {
		size_t most = len < (1 << 30) ? (size_t)len : 1 << 30;
		ssize_t n = SYSTEM(sendfile(to_fd, from_fd, &offset, most));

		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO;
		len -= (uint64_t)n;
	}
	return 0;
}

int disk_fstat(int fd, struct stat *st)
{
	return SYSTEM(fstat(fd, st));
}

int disk_fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
	return SYSTEM(fstatat(dirfd, name, st, flags));
}

int disk_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *st)
{
	return SYSTEM(statx(dirfd, name, flags, mask, st));
}

int disk_is_read_only(int fd)
{
	struct statvfs vfs;
	int r = SYSTEM(fstatvfs(fd, &vfs));

	return r < 0 ? r : (vfs.f_flag & ST_RDONLY) != 0;
}

int disk_may_write(int dirfd, const char *name)
{
	/* AT_EACCESS: as whom this thread acts. */
	return SYSTEM(faccessat(dirfd, name, W_OK | X_OK, AT_EACCESS | AT_SYMLINK_NOFOLLOW));
}

int disk_mkdirat(int dirfd, const char *name, mode_t mode)
{
	return SYSTEM(mkdirat(dirfd, name, mode));
}

int disk_symlinkat(const char *target, int dirfd, const char *name)
{
	return SYSTEM(symlinkat(target, dirfd, name));
}

int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
	return SYSTEM(linkat(from_dirfd, from, to_dirfd, to, flags));
}

int disk_link_fd(int fd, int to_dirfd, const char *to)
{
	char link[FD_LINK_SIZE];
	/* A third cheaper than by /proc; without CAP_DAC_READ_SEARCH refused, before Linux 6.10, as ENOENT.
	 */
	int r = disk_linkat(fd, "", to_dirfd, to, AT_EMPTY_PATH);

	if (r != -ENOENT)
		return r;
	return disk_linkat(AT_FDCWD, print_fd_link(fd, link), to_dirfd, to, AT_SYMLINK_FOLLOW);
}

int disk_unlinkat(int dirfd, const char *name, int flags)
{
	return SYSTEM(unlinkat(dirfd, name, flags));
}

int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
	return SYSTEM(renameat2(from_dirfd, from, to_dirfd, to, flags));
}

int disk_fchmod(int fd, mode_t mode)
{
	return SYSTEM(fchmod(fd, mode));
}

int disk_chmod_handle(int fd, mode_t mode)
{
	char link[FD_LINK_SIZE];

	return SYSTEM(chmod(print_fd_link(fd, link), mode));
}

int disk_utimensat(int dirfd, const char *name, const struct timespec times[2])
{
	return SYSTEM(utimensat(dirfd, name, times, AT_SYMLINK_NOFOLLOW));
}

int disk_futimens(int fd, const struct timespec times[2])
{
	return SYSTEM(futimens(fd, times));
}

int disk_ftruncate(int fd, off_t size)
{
	return SYSTEM(ftruncate(fd, size));
}

int disk_fallocate(int fd, int mode, off_t offset, off_t len)
{
	return SYSTEM(fallocate(fd, mode, offset, len));
}

int disk_reflink(int from_fd, int to_fd)
{
	return SYSTEM(ioctl(to_fd, FICLONE, from_fd));
}

ssize_t disk_readlinkat(int dirfd, const char *name, char *buf, size_t size)
{
	return SYSTEM(readlinkat(dirfd, name, buf, size));
}

int disk_fd_path(int fd, char *buf, size_t size)
{
	char link[FD_LINK_SIZE];
	ssize_t n = disk_readlinkat(AT_FDCWD, print_fd_link(fd, link), buf, size);

	if (n < 0)
		return (int)n;
	if ((size_t)n == size)
		return -ENAMETOOLONG;
	buf[n] = '\0';
	return 0;
}

int disk_fd_flags(int fd)
{
	return SYSTEM(fcntl(fd, F_GETFL));
}

int disk_flock(int fd, int operation)
{
	return SYSTEM(flock(fd, operation));
}

int disk_free_bytes(int fd, uint64_t *bytes)
{
	struct statvfs st;
	int r = SYSTEM(fstatvfs(fd, &st));

	if (r == 0)
		*bytes = (uint64_t)st.f_bavail * st.f_frsize;
	return r;
}

int disk_fsync(int fd)
{
	return SYSTEM(fsync(fd));
}

int disk_syncfs(int fd)
{
	return SYSTEM(syncfs(fd));
}

DIR *disk_fdopendir(int fd, int *r)
{
	DIR *dir;

	do
		dir = fdopendir(fd);
	while (!dir && errno == EINTR);
	*r = dir ? 0 : -errno;
	if (!dir)
		disk_close(fd);
	return dir;
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

struct dirent *disk_readdir(DIR *dir, int *r)
{
	struct dirent *entry;

	do {
		errno = 0; /* NULL is both the end and a failure */
		entry = readdir(dir);
	} while (entry ? is_dot(entry->d_name) : errno == EINTR);
	*r = entry ? 0 : -errno;
	return entry;
}

void disk_closedir(DIR *dir)
{
	if (dir)
		(void)closedir(dir);
}
