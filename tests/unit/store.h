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

#endif
