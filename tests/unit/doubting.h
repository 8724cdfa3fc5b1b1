/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A daemon that is killed, and the machine with it; and what that leaves of its files.
 */
#ifndef DIRCACHE_TESTS_UNIT_DOUBTING_H
#define DIRCACHE_TESTS_UNIT_DOUBTING_H

#include <sqlite3.h>

#include "daemon/recover.h"
#include "tests/unit/daemon.h"

/* What a kill leaves: nothing is marked as clean. */
static inline void close_as_if_killed(void)
{
	run_until_idle();
	cache.ready = false; /* by which cache_close() knows that this was no clean stop */
	close_cache();
}

static inline void run_sql(const char *sql)
{
	char path[96];
	sqlite3 *db;

	(void)snprintf(path, sizeof(path), "%s/index.sqlite", store_path);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

/* Killed, and the machine was started again since: as the index sees it. */
static inline void close_as_if_crashed(void)
{
	close_as_if_killed();
	run_sql("UPDATE meta SET value = 'another boot' WHERE key = 'boot'");
}

/* Which inode has the name of a blob. */
static inline uint64_t inode_of(const struct digest *digest, enum blob_kind kind)
{
	struct statx st;

	ck_assert_int_eq(statx(AT_FDCWD, path_of_blob(digest, kind), 0, STATX_INO | STATX_BTIME, &st), 0);
	return blob_inode(&st);
}

/* Store a text, with a row. */
static inline struct digest put_text(const char *text, enum blob_kind kind)
{
	struct digest digest = store_text(text, kind);
	struct index_batch *batch = index_batch_new();
	struct blob_info info = { .inode = inode_of(&digest, kind) };
	struct index_blob row = catalog_row_of(catalog_find(cache.catalog, &digest), &info, kind);

	index_batch_put_blob(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
	run_until_idle();
	return digest;
}

/* Bytes that never reached the disk: other ones are there, and all that stat(2) tells is as it was. */
static inline void damage(const struct digest *digest, enum blob_kind kind)
{
	const char *path = path_of_blob(digest, kind);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT } };
	struct stat st;
	int fd;

	ck_assert_int_eq(stat(path, &st), 0);
	times[1] = st.st_mtim;
	ck_assert_int_eq(chmod(path, 0644), 0);
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "\0", 1, 0), 1);
	ck_assert_int_eq(close(fd), 0);
	ck_assert_int_eq(chmod(path, st.st_mode & 0777), 0);
	ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
}

/* Stored, and on the disk for good. */
static inline struct digest put_synced(const char *text, enum blob_kind kind)
{
	struct digest digest = put_text(text, kind);

	syncer_sync(cache.syncer);
	run_until_idle();
	return digest;
}

/* Without times of birth no inode is told from another. */
static inline bool has_birth_times(const struct digest *digest)
{
	if (inode_of(digest, BLOB_PLAIN))
		return true;
	(void)fprintf(stderr, "# skipped: the file system of %s keeps no times of birth\n", unit_folder);
	return false;
}

static inline bool is_in_store(const struct digest *digest, enum blob_kind kind)
{
	return access(path_of_blob(digest, kind), F_OK) == 0;
}

/* Ready, but what goes on behind the requests has ended before it began. */
static inline void start_without_recovery(void)
{
	open_cache();
	load_cache();
	recovery_stop(cache.recovery);
	run_until_idle();
	ck_assert(!recovery_is_whole(cache.recovery));
}

#endif
