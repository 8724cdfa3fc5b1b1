/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store, a client's folder, and targets and records of them: for tests of target.h and staging.h.
 */
#ifndef DIRCACHE_TESTS_UNIT_COMMITTING_H
#define DIRCACHE_TESTS_UNIT_COMMITTING_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "daemon/target.h"
#include "tests/unit/records.h"
#include "tests/unit/unit.h"

static char path[64];
static int store = -1, folder = -1; /* STORE, and a client's folder */
static struct staging *staging;
static struct err err;

static inline int open_folder(const char *name)
{
	char full[128];
	int fd;

	(void)snprintf(full, sizeof(full), "%s/%s", path, name);
	(void)mkdir(full, 0755);
	fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static inline void setup(void)
{
	(void)snprintf(path, sizeof(path), "%s/%d", unit_folder, (int)getpid());
	ck_assert_int_eq(mkdir(path, 0755), 0);
	store = open_folder("store");
	folder = open_folder("folder");
	staging = staging_open(store, &err);
	ck_assert_msg(staging, "%s", err.text);
}

static inline void teardown(void)
{
	staging_free(staging);
	(void)close(folder);
	(void)close(store);
}

/* As after a kill: the records stay, and the next process draws another number. */
static inline void restart(void)
{
	staging_free(staging);
	staging = staging_open(store, &err);
	ck_assert_ptr_nonnull(staging);
}

static inline size_t count_names(int fd)
{
	DIR *dir = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t n = 0;

	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n - 2;
}

static inline bool is_there(int fd, const char *name)
{
	struct stat st;

	return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static inline void make_file(int fd, const char *name)
{
	AUTO_CLOSE int file = openat(fd, name, O_WRONLY | O_CREAT | O_EXCL, 0644);

	ck_assert_int_ge(file, 0);
}

static inline void make_directory(int fd, const char *name)
{
	ck_assert_int_eq(mkdirat(fd, name, 0755), 0);
}

/* A record, and something under the hidden name: what a killed daemon leaves. */
static inline void leave_litter(char hidden[STAGING_NAME_SIZE])
{
	char below[64];

	ck_assert_msg(staging_begin(staging, folder, NULL, hidden, &err) == 0, "%s", err.text);
	make_directory(folder, hidden);
	(void)snprintf(below, sizeof(below), "%s/file", hidden);
	make_file(folder, below);
}

static inline size_t sweep(void)
{
	size_t n = 0;

	ck_assert_msg(staging_sweep(staging, &n, &err) == 0, "%s", err.text);
	return n;
}

/* Return: as target_made(). */
static inline int try_note(struct target *target)
{
	AUTO_CLOSE int fd = openat(folder, target->hidden, O_PATH | O_DIRECTORY | O_CLOEXEC);
	mode_t mode;

	ck_assert_int_ge(fd, 0);
	return target_made(target, fd, &mode, &err);
}

static inline void note_made(struct target *target)
{
	ck_assert_msg(try_note(target) == 0, "%s", err.text);
}

/* A target with a directory (or a file) made for it, ready to be committed. */
static inline struct target begin(const char *name, bool is_file)
{
	struct target target;

	ck_assert_int_eq(target_init(&target, staging, folder, name, strlen(name), &err), 0);
	target.is_file = is_file;
	ck_assert_msg(target_check(&target, &err) == 0, "%s", err.text);
	ck_assert_msg(target_begin(&target, &err) == 0, "%s", err.text);
	if (is_file) {
		make_file(folder, target.hidden);
	} else {
		char below[64];

		make_directory(folder, target.hidden);
		note_made(&target);
		(void)snprintf(below, sizeof(below), "%s/file", target.hidden);
		make_file(folder, below);
	}
	return target;
}

/* Somebody who may rename things in the folder puts another directory in the place of what was made. */
static inline void replace(const char *hidden, const char *by)
{
	ck_assert_int_eq(renameat(folder, hidden, folder, "away"), 0);
	ck_assert_int_eq(renameat(folder, by, folder, hidden), 0);
}

static inline void make_precious(void)
{
	make_directory(folder, "precious");
	make_file(folder, "precious/file");
	ck_assert_int_eq(fchmodat(folder, "precious", 0, 0), 0); /* and closed: it stays so */
}

static inline void ck_precious(const char *name)
{
	struct stat st;

	ck_assert_int_eq(fstatat(folder, name, &st, 0), 0);
	ck_assert_uint_eq(st.st_mode & 07777, 0);
	ck_assert_int_eq(fchmodat(folder, name, 0755, 0), 0);
	ck_assert_uint_eq(st.st_nlink, 2);
	ck_assert_int_eq(renameat(folder, name, folder, "kept"), 0);
	ck_assert(is_there(folder, "kept/file"));
}

#endif
