/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An index on a folder of its own, in this process: for the programs test_index*. One for each test.
 */
#ifndef DIRCACHE_TESTS_UNIT_INDEX_H
#define DIRCACHE_TESTS_UNIT_INDEX_H

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <string.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/index.h"
#include "tests/unit/unit.h"

static struct event_base *base;
static struct index *index_;
static char folder[64];

/* What index_load() gave. */
static struct {
	bool is_done;
	int r;
	struct index_loaded loaded;
	struct err err;
	size_t n_begun, n_blobs, n_trees, n_tags, capacity;
	struct index_blob *blobs;
	struct index_tree tree;
	struct index_tag tag;
	char tag_name[64];
} got;

static inline void on_begin(void *ctx, const struct index_loaded *loaded)
{
	(void)ctx;
	(void)loaded;
	got.n_begun++;
	got.n_blobs = got.n_trees = got.n_tags = 0;
}

static inline bool on_blob(void *ctx, const struct index_blob *blob)
{
	(void)ctx;
	got.blobs = xgrow(got.blobs, got.n_blobs, &got.capacity, sizeof(*got.blobs));
	got.blobs[got.n_blobs++] = *blob;
	return true;
}

static inline bool on_tree(void *ctx, const struct index_tree *tree)
{
	(void)ctx;
	got.tree = *tree;
	got.n_trees++;
	return true;
}

static inline bool on_tag(void *ctx, const struct index_tag *tag)
{
	(void)ctx;
	got.tag = *tag;
	(void)snprintf(got.tag_name, sizeof(got.tag_name), "%s", tag->name);
	got.n_tags++;
	return strcmp(tag->name, "senseless") != 0;
}

static inline void on_end(void *ctx)
{
	(void)ctx;
}

static inline void on_loaded(void *ctx, int r, const struct index_loaded *loaded, const struct err *err)
{
	(void)ctx;
	got.is_done = true;
	got.r = r;
	got.loaded = *loaded;
	got.err = *err;
}

/* Open the index and wait until it is loaded or has failed. */
static inline void load(void)
{
	static const struct index_sink sink = {
		.begin = on_begin, .blob = on_blob, .tree = on_tree, .tag = on_tag, .end = on_end
	};

	free(got.blobs);
	memset(&got, 0, sizeof(got));
	base = event_base_new();
	index_ = index_new(base, folder);
	ck_assert_ptr_nonnull(index_);
	index_load(index_, &sink, on_loaded, NULL);
	while (!got.is_done)
		(void)event_base_loop(base, EVLOOP_ONCE);
}

static inline void start(void)
{
	if (!folder[0]) {
		(void)snprintf(folder, sizeof(folder), "%s/%d", unit_folder, (int)getpid());
		ck_assert_int_eq(mkdir(folder, 0711), 0);
	}
	load();
	ck_assert_msg(got.r == 0, "%s", got.err.text);
}

static inline void stop(bool clean)
{
	index_free(index_, clean);
	event_base_free(base);
}

static inline const char *path_of(const char *name)
{
	static char path[512];

	(void)snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static inline struct digest digest_of(uint64_t n)
{
	struct digest digest;

	hash_bytes(&n, sizeof(n), &digest);
	return digest;
}

static inline struct index_blob blob_of(uint64_t n)
{
	struct index_blob blob = {
		.row = n + 1,
		.digest = digest_of(n),
		.allocated = { n * 4096, n * 8192 },
		.kinds = (uint8_t)(1 + n % 3),
		.used = n,
		.inodes = { 3 + n, 7 + n },
	};

	return blob;
}

struct answer {
	size_t n_done, n_failed;
	int last;
	struct err err;
};

static inline void on_committed(void *ctx, int r, const struct err *err)
{
	struct answer *answer = ctx;

	answer->n_done++;
	answer->n_failed += r < 0;
	answer->last = r;
	if (r < 0)
		answer->err = *err;
}

static inline void submit(struct index_batch *batch, struct answer *answer)
{
	index_submit(index_, batch, on_committed, answer);
}

static inline void wait_for(struct answer *answer, size_t n)
{
	while (answer->n_done < n)
		(void)event_base_loop(base, EVLOOP_ONCE);
	ck_assert_uint_eq(answer->n_done, n);
}

static inline void submit_blob(uint64_t n, struct answer *answer)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob blob = blob_of(n);

	index_batch_put_blob(batch, &blob);
	submit(batch, answer);
}

static inline const struct index_blob *find(const struct digest *digest)
{
	for (size_t i = 0; i < got.n_blobs; i++)
		if (digest_equal(&got.blobs[i].digest, digest))
			return &got.blobs[i];
	return NULL;
}

static inline void run_sql(const char *sql)
{
	sqlite3 *db;

	ck_assert_int_eq(sqlite3_open(path_of("index.sqlite"), &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

/* One digest of all files' names, times and bytes. */
static inline struct digest digest_of_folder(void)
{
	AUTO(hasher) hasher = hasher_new();
	struct dirent **entries;
	int n = scandir(folder, &entries, NULL, alphasort);
	struct digest digest;

	ck_assert_int_gt(n, 2);
	for (int i = 0; i < n; i++) {
		int fd = open(path_of(entries[i]->d_name), O_RDONLY);
		char bytes[4096];
		struct stat st;
		ssize_t len;

		ck_assert_int_eq(fstat(fd, &st), 0);
		hasher_update(hasher, entries[i]->d_name, strlen(entries[i]->d_name));
		hasher_update(hasher, &st.st_mtim, sizeof(st.st_mtim));
		while (S_ISREG(st.st_mode) && (len = read(fd, bytes, sizeof(bytes))) > 0)
			hasher_update(hasher, bytes, (size_t)len);
		(void)close(fd);
		free(entries[i]);
	}
	free(entries);
	hasher_finish(hasher, &digest);
	return digest;
}

static inline void ck_refused(int r, enum err_code code, const char *words)
{
	struct answer answer = { 0 };

	load();
	ck_assert_int_eq(got.r, r);
	unit_ck_err(&got.err, code, words);
	submit_blob(1, &answer); /* no crash, and no success either */
	wait_for(&answer, 1);
	ck_assert_int_eq(answer.last, -EIO);
	stop(true);
}

#endif
