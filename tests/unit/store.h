/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store to test with, and a folder `out` beside it: one for each test, in a process of its own.
 */
#ifndef DIRCACHE_TESTS_UNIT_STORE_H
#define DIRCACHE_TESTS_UNIT_STORE_H

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/blob.h"
#include "daemon/blob_internal.h"
#include "tests/unit/unit.h"

static int folder = -1, out = -1;
static struct blob_store *store;
static struct blob_writer *writer;
static struct err err;

static inline void open_store(void)
{
	static char name[32];

	(void)snprintf(name, sizeof(name), "%d", (int)getpid());
	folder = open(unit_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(mkdirat(folder, name, 0755), 0);
	folder = openat(folder, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(mkdirat(folder, "out", 0755), 0);
	out = openat(folder, "out", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	store = blob_store_open(folder, &err);
	ck_assert_msg(store, "%s", err.text);
	writer = blob_writer_new(store);
}

static inline void close_store(void)
{
	blob_writer_free(writer);
	blob_store_close(store);
	(void)close(out);
	(void)close(folder);
}

static inline struct digest put(const char *text, enum blob_kind kind)
{
	struct blob_info info;
	int r = blob_write(writer, text, strlen(text), kind, &info, NULL, &err);

	ck_assert_msg(r == 0, "%d %s", r, err.text);
	ck_assert_uint_eq(info.digest.size, strlen(text));
	return info.digest;
}

/* blobs/ab/abcdef... below the store's folder */
static inline const char *path_of(const struct digest *digest, enum blob_kind kind)
{
	static char path[128];
	struct blob_name name;

	blob_print_name(digest->hash, &name);
	(void)snprintf(path, sizeof(path), "%s/%s", kind == BLOB_EXEC ? "exec" : "blobs", name.text);
	return path;
}

static inline size_t count_entries(int dirfd, const char *name)
{
	DIR *dir = fdopendir(openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n - 2;
}

static inline int look(const struct digest *digest, enum blob_kind kind)
{
	return blob_stat(store, digest, kind, NULL, NULL);
}

static inline struct stat stat_of(const struct digest *digest, enum blob_kind kind)
{
	struct stat st;

	ck_assert_int_eq(fstatat(folder, path_of(digest, kind), &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

static inline void ck_holds(const struct digest *digest, const char *text)
{
	uint8_t *bytes = NULL;
	int r = blob_read(store, digest, 1 << 20, &bytes, &err);

	ck_assert_msg(r == 0, "%d %s", r, err.text);
	ck_assert_mem_eq(bytes, text, strlen(text));
	free(bytes);
}

/* ---- changing what was published ---- */

/* Write into an inode of the store, and set mode and time back: a change that no look can see. */
static inline void forge(const struct digest *digest, enum blob_kind kind, const char *text)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };
	int fd;

	ck_assert_int_eq(fchmodat(folder, path_of(digest, kind), 0644, 0), 0);
	fd = openat(folder, path_of(digest, kind), O_WRONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fchmod(fd, blob_mode(kind)), 0);
	ck_assert_int_eq(futimens(fd, times), 0);
	(void)close(fd);
}

static inline void change_mode(const char *path)
{
	ck_assert_int_eq(fchmodat(folder, path, 0644, 0), 0);
}

static inline void change_time(const char *path)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };

	times[1].tv_nsec++;
	ck_assert_int_eq(utimensat(folder, path, times, 0), 0);
}

/* As root one can write to it, whatever its mode; the time is set back. */
static inline void change_size(const char *path)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };
	struct stat st;
	int fd;

	ck_assert_int_eq(fstatat(folder, path, &st, 0), 0);
	ck_assert_int_eq(fchmodat(folder, path, 0600, 0), 0);
	fd = openat(folder, path, O_WRONLY | O_APPEND);
	ck_assert_int_eq(write(fd, "!", 1), 1);
	ck_assert_int_eq(fchmod(fd, st.st_mode & 07777), 0);
	ck_assert_int_eq(futimens(fd, times), 0);
	(void)close(fd);
}

#endif
