/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index database: what index.c (batches and the lane; the loop) and index_db.c (SQLite; the lane) share.
 */
#ifndef DIRCACHE_DAEMON_INDEX_INTERNAL_H
#define DIRCACHE_DAEMON_INDEX_INTERNAL_H

#include "common/auto.h"
#include "common/list.h"
#include "daemon/index.h"

enum index_op {
	INDEX_PUT_BLOB,
	INDEX_DROP_BLOB,
	INDEX_TOUCH_BLOB,
	INDEX_PUT_TREE,
	INDEX_DROP_TREE,
	INDEX_TOUCH_TREE,
	INDEX_PUT_TAG,
	INDEX_DROP_TAG,
	INDEX_OPS,
};

struct index_change {
	enum index_op op;
	union {
		struct index_blob blob; /* put: all of it; drop: its digest; touch: digest and used */
		struct index_tree tree; /* likewise, and hits */
		struct index_tag tag;   /* its name is the batch's */
	};
};

struct index_batch {
	struct list link;
	struct index_change *changes;
	size_t n_changes, capacity;

	void (*done)(void *ctx, int r, const struct err *err);
	void *ctx;

	/* Out: written by index_db_commit(). */
	int result;
	struct err err;
};

struct index_db;

/**
 * Open or create the database, and mark it as not cleanly stopped; that is on disk before this returns.
 *
 * @loaded  out: was_clean, is_new
 *
 * Return: 0, -EPROTO (not our version, or not ours at all; untouched), or a negative errno.
 */
int index_db_open(const char *folder, struct index_db **db, struct index_loaded *loaded, struct err *err);

/* Read everything. */
int index_db_load(struct index_db *db, const struct index_sink *sink, uint64_t *n_blobs, struct err *err);

/**
 * Commit batches as one transaction; if that fails each as one of its own, so that a bad one fails alone; but
 * behind one that has no done, and will be tried again, all others fail with it. Each batch gets its result
 * and err.
 *
 * @db  NULL: the index is not open, which is every batch's failure
 *
 * Return: the number of transactions committed.
 */
uint64_t index_db_commit(struct index_db *db, struct list *batches);

/* NULL is fine. Return: 0, or a negative errno when the stop could not be marked as clean. */
int index_db_close(struct index_db *db, bool clean, struct err *err);

static inline void index_db_free(struct index_db *db)
{
	(void)index_db_close(db, false, NULL);
}
DEFINE_AUTO(index_db);

#endif
