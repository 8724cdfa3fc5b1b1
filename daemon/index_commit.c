/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index_sql.h"

#include <assert.h>
#include <errno.h>

#include "daemon/reserve.h"

/* Of the WAL, 4 KiB each. It grows by as much again at most: the pages of a transaction (index.c). */
enum { CHECKPOINT_PAGES = 1000 };

/* An inode that is not told stays as it was. */
static const char put_blob[] =
	"INSERT INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) "
	"ON CONFLICT (row) DO UPDATE SET size = ?3, kinds = ?4, plain_allocated = ?5, exec_allocated = ?6,"
	"used = ?7, plain_inode = iif(?8, ?8, plain_inode), exec_inode = iif(?9, ?9, exec_inode)";

static const char *const changes[INDEX_OPS] = {
	[INDEX_PUT_BLOB] = put_blob,
	[INDEX_DROP_BLOB] = "DELETE FROM blobs WHERE row = ?1",
	[INDEX_TOUCH_BLOB] = "UPDATE blobs SET used = ?2 WHERE row = ?1",
	[INDEX_PUT_TREE] = "INSERT OR REPLACE INTO trees VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[INDEX_DROP_TREE] = "DELETE FROM trees WHERE hash = ?1",
	[INDEX_TOUCH_TREE] = "UPDATE trees SET used = ?2, hits = ?3 WHERE hash = ?1",
	[INDEX_PUT_TAG] = "INSERT OR REPLACE INTO tags VALUES (?1, ?2, ?3, ?4)",
	[INDEX_DROP_TAG] = "DELETE FROM tags WHERE name = ?1",
	[INDEX_SYNCED] = "INSERT OR REPLACE INTO meta VALUES ('synced', ?1)",
	[INDEX_SETTLED] = "INSERT OR REPLACE INTO meta VALUES ('boot', ?1)",
};

int index_prepare_changes(struct index_db *db, struct err *err)
{
	int r = 0;

	for (unsigned op = 0; op < INDEX_OPS && r == 0; op++)
		r = index_prepare(db, changes[op], &db->changes[op], err);
	return r;
}

/* Numbers above INT64_MAX come back as they were: both ways are conversions modulo 2^64. */
static void bind_number(sqlite3_stmt *statement, int column, uint64_t value)
{
	int code = sqlite3_bind_int64(statement, column, (sqlite3_int64)value);

	assert(code == SQLITE_OK);
}

static void bind_hash(sqlite3_stmt *statement, int column, const struct digest *digest)
{
	int code = sqlite3_bind_blob(statement, column, digest->hash, DIGEST_HASH_SIZE, SQLITE_STATIC);

	assert(code == SQLITE_OK);
}

static void bind_text(sqlite3_stmt *statement, int column, const char *text)
{
	int code = sqlite3_bind_text(statement, column, text, -1, SQLITE_STATIC);

	assert(code == SQLITE_OK || code == SQLITE_TOOBIG || code == SQLITE_NOMEM);
}

static void bind_blob(sqlite3_stmt *statement, const struct index_blob *blob)
{
	bind_number(statement, 1, blob->row);
	bind_hash(statement, 2, &blob->digest);
	bind_number(statement, 3, blob->digest.size);
	bind_number(statement, 4, blob->kinds);
	bind_number(statement, 5, blob->allocated[0]);
	bind_number(statement, 6, blob->allocated[1]);
	bind_number(statement, 7, blob->used);
	bind_number(statement, 8, blob->inodes[0]);
	bind_number(statement, 9, blob->inodes[1]);
}

static void bind_tree(sqlite3_stmt *statement, const struct index_tree *tree)
{
	bind_hash(statement, 1, &tree->digest);
	bind_number(statement, 2, tree->digest.size);
	bind_number(statement, 3, tree->n_files);
	bind_number(statement, 4, tree->n_directories);
	bind_number(statement, 5, tree->n_symlinks);
	bind_number(statement, 6, tree->bytes);
	bind_number(statement, 7, tree->used);
	bind_number(statement, 8, tree->hits);
}

static void bind_change(struct index_db *db, sqlite3_stmt *statement, const struct index_change *change)
{
	switch (change->op) {
	case INDEX_PUT_BLOB:
		bind_blob(statement, &change->blob);
		break;
	case INDEX_TOUCH_BLOB:
		bind_number(statement, 2, change->blob.used);
		__attribute__((fallthrough));
	case INDEX_DROP_BLOB:
		bind_number(statement, 1, change->blob.row);
		break;
	case INDEX_PUT_TREE:
		bind_tree(statement, &change->tree);
		break;
	case INDEX_TOUCH_TREE:
		bind_number(statement, 2, change->tree.used);
		bind_number(statement, 3, change->tree.hits);
		__attribute__((fallthrough));
	case INDEX_DROP_TREE:
		bind_hash(statement, 1, &change->tree.digest);
		break;
	case INDEX_PUT_TAG:
		bind_hash(statement, 2, &change->tag.digest);
		bind_number(statement, 3, change->tag.digest.size);
		bind_number(statement, 4, change->tag.uid);
		__attribute__((fallthrough));
	case INDEX_DROP_TAG:
		bind_text(statement, 1, change->tag.name);
		break;
	case INDEX_SYNCED:
		bind_number(statement, 1, change->synced);
		break;
	case INDEX_SETTLED:
		bind_text(statement, 1, db->boot);
		break;
	case INDEX_OPS:
		break;
	}
}

static int apply_change(struct index_db *db, const struct index_change *change, struct err *err)
{
	sqlite3_stmt *statement = db->changes[change->op];
	int code, r;

	if (change->op == INDEX_SETTLED && db->is_partial)
		return 0; /* that was said of the rows of the database before */
	bind_change(db, statement, change);
	code = sqlite3_step(statement);
	r = code == SQLITE_DONE ? 0 : index_fail(db, code, "writing", err);
	(void)sqlite3_reset(statement); /* after its message was read */
	return r;
}

static int apply(struct index_db *db, const struct index_batch *batch, struct err *err)
{
	int r = 0;

	for (size_t i = 0; i < batch->n_changes && r == 0; i++)
		r = apply_change(db, &batch->changes[i], err);
	return r;
}

/* One transaction of all batches, or of one (only). Return: 0, or an errno: nothing of it happened then. */
static int commit(struct index_db *db, const struct list *batches, const struct index_batch *only,
		  struct err *err)
{
	int r = index_execute(db, "BEGIN IMMEDIATE", "writing", err);

	if (r < 0)
		return r;
	if (only)
		r = apply(db, only, err);
	else
		list_for_each (l, batches)
			if (r == 0)
				r = apply(db, LIST_ENTRY(l, struct index_batch, link), err);
	if (r == 0)
		r = index_execute(db, "COMMIT", "writing", err);
	/* SQLite may have rolled back already, and complains then. */
	if (r < 0)
		(void)index_execute(db, "ROLLBACK", "", NULL);
	return r;
}

/* A batch that nobody hears of will be tried again: what came after it must not overtake it. */
static uint64_t commit_one_by_one(struct index_db *db, struct list *batches)
{
	const struct index_batch *stuck = NULL;
	uint64_t n_committed = 0;

	list_for_each (l, batches) {
		struct index_batch *batch = LIST_ENTRY(l, struct index_batch, link);

		if (stuck) {
			batch->result = stuck->result;
			batch->err = stuck->err;
			continue;
		}
		batch->result = commit(db, batches, batch, &batch->err);
		n_committed += batch->result == 0;
		if (batch->result < 0 && !batch->done)
			stuck = batch;
	}
	return n_committed;
}

static void fail_all(struct list *batches)
{
	list_for_each (l, batches) {
		struct index_batch *batch = LIST_ENTRY(l, struct index_batch, link);

		(void)err_set(&batch->err, ERR_INTERNAL, "writing the index: it is not open");
		batch->result = -EIO;
	}
}

static bool has_drops(const struct list *batches)
{
	list_for_each (l, batches)
		if (LIST_ENTRY(l, struct index_batch, link)->n_drops)
			return true;
	return false;
}

/* Bring what the WAL holds into the database, so that it begins again at its front, where it has room. */
static int checkpoint(struct index_db *db)
{
	return sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);
}

/*
 * The disk is full. The reserve is for what makes room, so only rows that go have it: what puts could get of
 * it would be gone for them. Return: may a second attempt come further?
 */
static bool make_room(struct index_db *db, const struct list *batches)
{
	bool has_given = has_drops(batches) && reserve_give_up(db->folder_fd);

	return checkpoint(db) == SQLITE_OK || has_given;
}

static int commit_all(struct index_db *db, struct list *batches, struct index_outcome *outcome)
{
	char aside[INDEX_ASIDE_SIZE];
	int r = commit(db, batches, NULL, &outcome->damage);

	if (reserve_is_for(r) && make_room(db, batches)) {
		err_clear(&outcome->damage);
		r = commit(db, batches, NULL, &outcome->damage);
	}
	if (r != -EUCLEAN) {
		err_clear(&outcome->damage);
		return r;
	}
	if ((r = index_db_set_aside(db, aside, NULL)) < 0)
		return r;
	err_prefix(&outcome->damage, "%s: ", aside);
	return commit(db, batches, NULL, NULL);
}

void index_db_commit(struct index_db *db, struct list *batches, struct index_outcome *outcome)
{
	if (!db || !db->handle) {
		fail_all(batches);
		return;
	}
	if (commit_all(db, batches, outcome) == 0)
		outcome->n_commits = 1;
	else
		outcome->n_commits = commit_one_by_one(db, batches);
	if (!db->handle)
		return;
	/* The answers wait for this, too. On a full disk it fails, and the WAL grows as long as it can. */
	if (db->wal_pages >= CHECKPOINT_PAGES)
		(void)checkpoint(db);
	(void)reserve_make(db->folder_fd);
}
