/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"

enum { APPLICATION_ID = 0x64697263 }; /* "dirc", for file(1) */

/*
 * Tables are keyed by hash and hold nothing else (WITHOUT ROWID): a million blobs take 62 MB and are read in
 * key order as they lie.
 */
static const char schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE blobs ("
	"	hash BLOB PRIMARY KEY CHECK (length(hash) = 32),"
	"	size INTEGER NOT NULL CHECK (size >= 0),"
	"	kinds INTEGER NOT NULL CHECK (kinds BETWEEN 1 AND 3)," /* 1: plain, 2: executable */
	"	plain_allocated INTEGER NOT NULL,"
	"	exec_allocated INTEGER NOT NULL,"
	"	used INTEGER NOT NULL"
	") WITHOUT ROWID;"
	"CREATE TABLE trees ("
	"	hash BLOB PRIMARY KEY CHECK (length(hash) = 32),"
	"	size INTEGER NOT NULL CHECK (size >= 0),"
	"	files INTEGER NOT NULL,"
	"	directories INTEGER NOT NULL,"
	"	symlinks INTEGER NOT NULL,"
	"	bytes INTEGER NOT NULL,"
	"	used INTEGER NOT NULL,"
	"	hits INTEGER NOT NULL"
	") WITHOUT ROWID;"
	"CREATE TABLE tags ("
	"	name TEXT PRIMARY KEY,"
	"	hash BLOB NOT NULL CHECK (length(hash) = 32),"
	"	size INTEGER NOT NULL CHECK (size >= 0),"
	"	uid INTEGER NOT NULL"
	") WITHOUT ROWID;"
	"INSERT INTO meta VALUES ('clean', 0);";

static const char *const changes[INDEX_OPS] = {
	[INDEX_PUT_BLOB] = "INSERT OR REPLACE INTO blobs VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
	[INDEX_DROP_BLOB] = "DELETE FROM blobs WHERE hash = ?1",
	[INDEX_TOUCH_BLOB] = "UPDATE blobs SET used = ?2 WHERE hash = ?1",
	[INDEX_PUT_TREE] = "INSERT OR REPLACE INTO trees VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
	[INDEX_DROP_TREE] = "DELETE FROM trees WHERE hash = ?1",
	[INDEX_TOUCH_TREE] = "UPDATE trees SET used = ?2, hits = ?3 WHERE hash = ?1",
	[INDEX_PUT_TAG] = "INSERT OR REPLACE INTO tags VALUES (?1, ?2, ?3, ?4)",
	[INDEX_DROP_TAG] = "DELETE FROM tags WHERE name = ?1",
};

struct index_db {
	sqlite3 *handle;
	sqlite3_stmt *changes[INDEX_OPS];
};

/* ---- what SQLite says ---- */

static int errno_of(sqlite3 *handle, int code)
{
	int system = sqlite3_system_errno(handle);

	switch (code & 0xff) {
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		return system == ENOSPC || system == EDQUOT || system == EACCES || system == EROFS ? -system
												   : -EIO;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CONSTRAINT:
		return -EINVAL;
	default:
		return -EIO;
	}
}

static int fail(struct index_db *db, int code, const char *what, struct err *err)
{
	int r = errno_of(db->handle, code);
	bool is_damaged = (code & 0xff) == SQLITE_CORRUPT || (code & 0xff) == SQLITE_NOTADB;

	(void)err_set(err, err_code_of_errno(-r), "%s the index: %s%s", what,
		      is_damaged ? "it is damaged: " : "", sqlite3_errmsg(db->handle));
	return r;
}

/* What was read cannot have been written by us. */
static int refuse_row(const char *table, struct err *err)
{
	(void)err_set(err, ERR_INTERNAL, "reading the index: it is damaged: a row of '%s' makes no sense",
		      table);
	return -EIO;
}

static int execute(struct index_db *db, const char *sql, const char *what, struct err *err)
{
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : fail(db, code, what, err);
}

/* A statement, finalized at the end of its scope. */
#define AUTO_STATEMENT CLEANUP(finalize)

static void finalize(sqlite3_stmt **statement)
{
	(void)sqlite3_finalize(*statement);
}

static int prepare(struct index_db *db, const char *sql, sqlite3_stmt **statement, struct err *err)
{
	int code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);

	return code == SQLITE_OK ? 0 : fail(db, code, "preparing", err);
}

/* The one number that a query gives; *value stays where it gives none. */
static int query_number(struct index_db *db, const char *sql, int64_t *value, struct err *err)
{
	AUTO_STATEMENT sqlite3_stmt *statement = NULL;
	int code, r;

	if ((r = prepare(db, sql, &statement, err)) < 0)
		return r;
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		*value = sqlite3_column_int64(statement, 0);
	return code == SQLITE_ROW || code == SQLITE_DONE ? 0 : fail(db, code, "reading", err);
}

/* ---- opening ---- */

static int refuse_version(int64_t version, struct err *err)
{
	(void)err_set(err, ERR_FAILED_PRECONDITION,
		      "the store has version %lld, of a newer dircached; this one knows %d",
		      (long long)version, INDEX_VERSION);
	return -EPROTO;
}

/*
 * Make the file, private whatever the umask, and look at the version in its header (SQLite's file
 * format, 1.3: four bytes at 60). SQLite itself would leave a WAL beside a store that we must not touch.
 */
static int prepare_file(const char *path, struct err *err)
{
	AUTO_CLOSE int fd = disk_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	uint8_t header[100];
	const uint8_t *v = &header[60];
	uint32_t version;
	ssize_t n;

	if (fd < 0)
		return err_errno(err, fd, "opening the index '%s'", path);
	n = disk_pread(fd, header, sizeof(header), 0);
	if (n < 0)
		return err_errno(err, (int)n, "reading the index '%s'", path);
	if ((size_t)n < sizeof(header) || memcmp(header, "SQLite format 3", 16) != 0)
		return 0; /* new, or SQLite will say what it thinks of it */
	version = (uint32_t)v[0] << 24 | (uint32_t)v[1] << 16 | (uint32_t)v[2] << 8 | v[3];
	return version > INDEX_VERSION ? refuse_version(version, err) : 0;
}

/* As long as the version is not known nothing may be written, not even what a WAL holds into the database. */
static void allow_checkpoint_on_close(struct index_db *db, bool allow)
{
	(void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !allow, NULL);
}

static int check_version(struct index_db *db, int64_t *version, struct err *err)
{
	int64_t application = 0;
	int r;

	/* EXCLUSIVE before the first look: the daemon owns the store, and no shared memory is needed. */
	if ((r = execute(db, "PRAGMA locking_mode = EXCLUSIVE", "opening", err)) < 0 ||
	    (r = query_number(db, "PRAGMA user_version", version, err)) < 0 ||
	    (r = query_number(db, "PRAGMA application_id", &application, err)) < 0)
		return r;
	if (application != 0 && application != APPLICATION_ID) {
		(void)err_set(err, ERR_FAILED_PRECONDITION, "opening the index: another program's database");
		return -EPROTO;
	}
	return *version > INDEX_VERSION ? refuse_version(*version, err) : 0;
}

/* All at once: a version is there if and only if the tables are. */
static int create(struct index_db *db, struct err *err)
{
	AUTO_FREE char *sql =
		xasprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT",
			  schema, INDEX_VERSION, APPLICATION_ID);
	int r = execute(db, sql, "creating", err);

	if (r < 0)
		(void)execute(db, "ROLLBACK", "", NULL);
	return r;
}

static int prepare_changes(struct index_db *db, struct err *err)
{
	int r = 0;

	for (unsigned op = 0; op < INDEX_OPS && r == 0; op++)
		r = prepare(db, changes[op], &db->changes[op], err);
	return r;
}

/* From here on the stop counts as not clean: on disk, so that no crash of the machine can take it back. */
static int mark_running(struct index_db *db, struct index_loaded *loaded, struct err *err)
{
	int64_t clean = 0;
	int r = query_number(db, "SELECT value FROM meta WHERE key = 'clean'", &clean, err);

	if (r == 0 && clean != 0)
		r = execute(db, "UPDATE meta SET value = 0 WHERE key = 'clean'", "writing", err);
	loaded->was_clean = r == 0 && clean != 0;
	return r;
}

/*
 * Keys are random, so nearly every row that changes is a page of the WAL (4 KiB). A cache that holds a
 * transaction's pages and checkpoints that come less often make commits three times as fast as the defaults
 * do; they cost 8 MB and a WAL of 16 MiB.
 */
static const char settings[] = "PRAGMA journal_mode = WAL;"
			       "PRAGMA synchronous = FULL;"
			       "PRAGMA cache_size = -8000;"
			       "PRAGMA wal_autocheckpoint = 4000;"
			       "PRAGMA journal_size_limit = 4194304;"
			       "PRAGMA temp_store = MEMORY;"
			       "PRAGMA trusted_schema = OFF";

static int set_up(struct index_db *db, struct index_loaded *loaded, struct err *err)
{
	int64_t version = 0;
	int r;

	if ((r = check_version(db, &version, err)) < 0)
		return r;
	allow_checkpoint_on_close(db, true);
	if ((r = execute(db, settings, "opening", err)) < 0)
		return r;
	loaded->is_new = version == 0;
	if (loaded->is_new && (r = create(db, err)) < 0)
		return r;
	if ((r = mark_running(db, loaded, err)) < 0 || (r = prepare_changes(db, err)) < 0)
		return r;
	return execute(db, "PRAGMA synchronous = NORMAL", "opening", err);
}

int index_db_open(const char *folder, struct index_db **opened, struct index_loaded *loaded, struct err *err)
{
	AUTO(index_db) db = xcalloc(1, sizeof(*db));
	AUTO_FREE char *path = xasprintf("%s/index.sqlite", folder);
	int code, r;

	if ((r = prepare_file(path, err)) < 0)
		return r;
	/* NOMUTEX: one thread at a time, which the lane sees to. */
	code = sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code != SQLITE_OK)
		return fail(db, code, "opening", err);
	allow_checkpoint_on_close(db, false);
	if ((r = set_up(db, loaded, err)) < 0)
		return r;
	*opened = TAKE(db);
	return 0;
}

int index_db_close(struct index_db *db, bool clean, struct err *err)
{
	int r = 0;

	if (!db)
		return 0;
	if (clean)
		r = execute(db,
			    "UPDATE meta SET value = 1 WHERE key = 'clean'; PRAGMA wal_checkpoint(TRUNCATE)",
			    "closing", err);
	for (unsigned op = 0; op < INDEX_OPS; op++)
		(void)sqlite3_finalize(db->changes[op]);
	(void)sqlite3_close(db->handle);
	free(db);
	return r;
}

/* ---- loading ---- */

static uint64_t column_number(sqlite3_stmt *row, int column)
{
	return (uint64_t)sqlite3_column_int64(row, column);
}

/* A hash and the size beside it. Return: false when they cannot be a digest. */
static bool column_digest(sqlite3_stmt *row, int column, struct digest *digest)
{
	const void *hash = sqlite3_column_blob(row, column);

	if (!hash || sqlite3_column_bytes(row, column) != DIGEST_HASH_SIZE)
		return false;
	memcpy(digest->hash, hash, DIGEST_HASH_SIZE);
	digest->size = column_number(row, column + 1);
	return digest->size <= INT64_MAX;
}

static bool load_blob(sqlite3_stmt *row, const struct index_sink *sink)
{
	struct index_blob blob = {
		.kinds = (uint8_t)sqlite3_column_int(row, 2),
		.allocated = { column_number(row, 3), column_number(row, 4) },
		.used = column_number(row, 5),
	};

	if (!column_digest(row, 0, &blob.digest) || blob.kinds < 1 || blob.kinds > 3)
		return false;
	sink->blob(sink->ctx, &blob);
	return true;
}

static bool load_tree(sqlite3_stmt *row, const struct index_sink *sink)
{
	struct index_tree tree = {
		.n_files = column_number(row, 2),
		.n_directories = column_number(row, 3),
		.n_symlinks = column_number(row, 4),
		.bytes = column_number(row, 5),
		.used = column_number(row, 6),
		.hits = column_number(row, 7),
	};

	if (!column_digest(row, 0, &tree.digest))
		return false;
	sink->tree(sink->ctx, &tree);
	return true;
}

static bool load_tag(sqlite3_stmt *row, const struct index_sink *sink)
{
	struct index_tag tag = {
		.uid = (uint32_t)sqlite3_column_int64(row, 2),
		.name = (const char *)sqlite3_column_text(row, 3),
	};

	if (!tag.name || !column_digest(row, 0, &tag.digest))
		return false;
	sink->tag(sink->ctx, &tag);
	return true;
}

struct table {
	const char *name, *query;
	bool (*load)(sqlite3_stmt *row, const struct index_sink *sink);
};

static const struct table tables[] = {
	{ "blobs", "SELECT hash, size, kinds, plain_allocated, exec_allocated, used FROM blobs ORDER BY hash",
	  load_blob },
	{ "trees", "SELECT hash, size, files, directories, symlinks, bytes, used, hits FROM trees",
	  load_tree },
	{ "tags", "SELECT hash, size, uid, name FROM tags", load_tag },
};

static int load_table(struct index_db *db, const struct table *table, const struct index_sink *sink,
		      uint64_t *n, struct err *err)
{
	AUTO_STATEMENT sqlite3_stmt *rows = NULL;
	int code, r;

	*n = 0;
	if ((r = prepare(db, table->query, &rows, err)) < 0)
		return r;
	while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
		if (!table->load(rows, sink))
			return refuse_row(table->name, err);
		++*n;
	}
	return code == SQLITE_DONE ? 0 : fail(db, code, "reading", err);
}

int index_db_load(struct index_db *db, const struct index_sink *sink, uint64_t *n_blobs, struct err *err)
{
	uint64_t n[N_ELEMENTS(tables)];
	int r = 0;

	for (size_t i = 0; i < N_ELEMENTS(tables) && r == 0; i++)
		r = load_table(db, &tables[i], sink, &n[i], err);
	(void)sqlite3_db_release_memory(db->handle); /* pages that were read once, for this */
	if (r == 0)
		*n_blobs = n[0];
	return r;
}

/* ---- committing ---- */

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

static void bind_name(sqlite3_stmt *statement, int column, const char *name)
{
	int code = sqlite3_bind_text(statement, column, name, -1, SQLITE_STATIC);

	assert(code == SQLITE_OK || code == SQLITE_TOOBIG || code == SQLITE_NOMEM);
}

static void bind_blob(sqlite3_stmt *statement, const struct index_blob *blob)
{
	bind_hash(statement, 1, &blob->digest);
	bind_number(statement, 2, blob->digest.size);
	bind_number(statement, 3, blob->kinds);
	bind_number(statement, 4, blob->allocated[0]);
	bind_number(statement, 5, blob->allocated[1]);
	bind_number(statement, 6, blob->used);
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

static void bind_change(sqlite3_stmt *statement, const struct index_change *change)
{
	switch (change->op) {
	case INDEX_PUT_BLOB:
		bind_blob(statement, &change->blob);
		break;
	case INDEX_TOUCH_BLOB:
		bind_number(statement, 2, change->blob.used);
		__attribute__((fallthrough));
	case INDEX_DROP_BLOB:
		bind_hash(statement, 1, &change->blob.digest);
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
		bind_name(statement, 1, change->tag.name);
		break;
	case INDEX_OPS:
		break;
	}
}

static int apply(struct index_db *db, const struct index_batch *batch, struct err *err)
{
	for (size_t i = 0; i < batch->n_changes; i++) {
		sqlite3_stmt *statement = db->changes[batch->changes[i].op];
		int code, r;

		bind_change(statement, &batch->changes[i]);
		code = sqlite3_step(statement);
		r = code == SQLITE_DONE ? 0 : fail(db, code, "writing", err);
		(void)sqlite3_reset(statement); /* after its message was read */
		if (r < 0)
			return r;
	}
	return 0;
}

/* One transaction of all batches, or of one (only). Return: 0, or an errno: nothing of it happened then. */
static int commit(struct index_db *db, const struct list *batches, const struct index_batch *only,
		  struct err *err)
{
	int r = execute(db, "BEGIN IMMEDIATE", "writing", err);

	if (r < 0)
		return r;
	if (only)
		r = apply(db, only, err);
	else
		list_for_each (l, batches)
			if (r == 0)
				r = apply(db, LIST_ENTRY(l, struct index_batch, link), err);
	if (r == 0)
		r = execute(db, "COMMIT", "writing", err);
	/* SQLite may have rolled back already, and complains then. */
	if (r < 0)
		(void)execute(db, "ROLLBACK", "", NULL);
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

uint64_t index_db_commit(struct index_db *db, struct list *batches)
{
	if (!db) {
		fail_all(batches);
		return 0;
	}
	if (commit(db, batches, NULL, NULL) == 0)
		return 1;
	return commit_one_by_one(db, batches);
}
