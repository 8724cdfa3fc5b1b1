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
	INDEX_SYNCED,
	INDEX_SETTLED,
	INDEX_OPS,
};

struct index_change {
	enum index_op op;
	union {
		struct index_blob blob; /* put: all of it; drop: its digest; touch: digest and used */
		struct index_tree tree; /* likewise, and hits */
		struct index_tag tag;   /* its name is the batch's */
		uint64_t synced;
	};
};

struct index_batch {
	struct list link;
	struct index_change *changes;
	size_t n_changes, n_puts, n_drops, capacity; /* n_puts: of blobs; n_drops: of anything */

	void (*done)(void *ctx, int r, const struct err *err);
	void *ctx;

	/* Out: written by index_db_commit(). */
	int result;
	struct err err;
};

struct index_db;
struct pool_queue;

/* Where jobs of the lane go, and what they work on: NULL when it is not open. */
struct pool_queue *index_lane(const struct index *index);
struct index_db *index_db_of(const struct index *index); /* on the lane */

/**
 * Open or create the database, and mark it as not cleanly stopped; that is on disk before this returns.
 *
 * @loaded  out
 *
 * Return: 0; -EUCLEAN (damaged: the handle is good for index_db_replace() and closing); -EPROTO (not our
 * version, or not ours at all; untouched), or another negative errno.
 */
int index_db_open(const char *folder, struct index_db **db, struct index_loaded *loaded, struct err *err);

/* Read everything. Return: 0, -EUCLEAN (after a row, perhaps), or another negative errno. */
int index_db_load(struct index_db *db, const struct index_sink *sink, struct index_loaded *loaded,
		  struct err *err);

/**
 * Set a damaged database aside, with its WAL, and make a new one in its place.
 *
 * @loaded  out, also where the damaged one is now. Return: 0, or a negative errno (then there is none).
 */
int index_db_replace(struct index_db *db, struct index_loaded *loaded, struct err *err);

/* The same while the daemon runs: the new one lacks what was committed before, and no stop of it is clean. */
int index_db_set_aside(struct index_db *db, char aside[INDEX_ASIDE_SIZE], struct err *err);

/* Read all of it from the disk, as SQLite checks it. Return: 0, -EUCLEAN with what is wrong in err, or
 * another negative errno. */
int index_db_check(struct index_db *db, struct err *err);

/* Rows for index_read(). Return: 0, INDEX_IS_PARTIAL, -EUCLEAN, or another negative errno. */
int index_db_read(struct index_db *db, struct index_page *page, bool onwards, struct err *err);

/* What came of a commit. */
struct index_outcome {
	uint64_t n_commits; /* transactions */
	struct err damage;  /* set: the database was damaged, and is replaced by a new one, which lacks its
			       rows */
};

/**
 * Commit batches as one transaction; if that fails each as one of its own, so that a bad one fails alone; but
 * behind one that has no done, and will be tried again, all others fail with it. Each batch gets its result
 * and err.
 *
 * A database that turns out to be damaged is replaced, and the commit is made in the new one. The stop of
 * that one is never marked as clean: the next start brings it together with the files.
 *
 * @db  NULL: the index is not open, which is every batch's failure
 */
void index_db_commit(struct index_db *db, struct list *batches, struct index_outcome *outcome);

/* NULL is fine. Return: 0, or a negative errno when the stop could not be marked as clean. */
int index_db_close(struct index_db *db, bool clean, struct err *err);

static inline void index_db_free(struct index_db *db)
{
	(void)index_db_close(db, false, NULL);
}
DEFINE_AUTO(index_db);

#endif
