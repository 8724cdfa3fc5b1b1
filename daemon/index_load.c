/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index_sql.h"

#include <errno.h>
#include <string.h>

#include "common/alloc.h"

/* A row is read from left to right; what cannot have been written by us is remembered. */
struct row {
	sqlite3_stmt *statement;
	bool is_bad;
};

/*
 * The key of the row before. SQLite believes the order that it finds, so it has to be looked at: by a page of
 * rows that leads back, who reads on from the last row would go round for ever.
 */
struct last {
	bool is_there;
	uint64_t row;
	uint8_t hash[DIGEST_HASH_SIZE];
	char *name;
};

static void last_fini(struct last *last)
{
	free(last->name);
}

/* Return: at most max. */
static uint64_t number(struct row *row, int column, uint64_t max)
{
	uint64_t value = (uint64_t)sqlite3_column_int64(row->statement, column);

	row->is_bad |= sqlite3_column_type(row->statement, column) != SQLITE_INTEGER || value > max;
	return value;
}

/* A hash and the size beside it. */
static struct digest digest(struct row *row, int column)
{
	const void *hash = sqlite3_column_blob(row->statement, column);
	struct digest digest = { .size = number(row, column + 1, INT64_MAX) };

	if (!hash || sqlite3_column_bytes(row->statement, column) != DIGEST_HASH_SIZE)
		row->is_bad = true;
	else
		memcpy(digest.hash, hash, DIGEST_HASH_SIZE);
	return digest;
}

static bool load_blob(struct row *row, struct last *last, const struct index_sink *sink)
{
	const uint64_t allocated_max = (uint64_t)UINT32_MAX * 512; /* as the catalog counts: catalog.h */
	struct index_blob blob = {
		.digest = digest(row, 0),
		.kinds = (uint8_t)number(row, 2, 3),
		.allocated = { number(row, 3, allocated_max), number(row, 4, allocated_max) },
		.used = number(row, 5, INT64_MAX),
		.row = number(row, 6, INDEX_ROW_MAX),
		.inodes = { number(row, 7, UINT64_MAX), number(row, 8, UINT64_MAX) },
	};

	row->is_bad |= last->is_there && blob.row <= last->row;
	last->row = blob.row;
	return !row->is_bad && blob.row && blob.kinds && sink->blob(sink->ctx, &blob);
}

static bool load_tree(struct row *row, struct last *last, const struct index_sink *sink)
{
	struct index_tree tree = {
		.digest = digest(row, 0),
		.n_files = number(row, 2, UINT64_MAX),
		.n_directories = number(row, 3, UINT64_MAX),
		.n_symlinks = number(row, 4, UINT64_MAX),
		.bytes = number(row, 5, UINT64_MAX),
		.used = number(row, 6, INT64_MAX),
		.hits = number(row, 7, INT64_MAX),
	};

	row->is_bad |= last->is_there && memcmp(tree.digest.hash, last->hash, DIGEST_HASH_SIZE) <= 0;
	memcpy(last->hash, tree.digest.hash, DIGEST_HASH_SIZE);
	return !row->is_bad && sink->tree(sink->ctx, &tree);
}

static bool load_tag(struct row *row, struct last *last, const struct index_sink *sink)
{
	struct index_tag tag = {
		.digest = digest(row, 0),
		.uid = (uint32_t)number(row, 2, UINT32_MAX),
		.name = (const char *)sqlite3_column_text(row->statement, 3),
	};

	row->is_bad |= !tag.name || (last->is_there && strcmp(tag.name, last->name) <= 0);
	if (row->is_bad)
		return false;
	free(last->name);
	last->name = xstrdup(tag.name);
	return sink->tag(sink->ctx, &tag);
}

struct table {
	const char *name, *key, *query;
	bool (*load)(struct row *row, struct last *last, const struct index_sink *sink);
};

static const struct table tables[INDEX_TABLES] = {
	[INDEX_BLOBS] = { "blobs", "row",
			  "SELECT hash, size, kinds, plain_allocated, exec_allocated, used, row, "
			  "plain_inode, "
			  "exec_inode FROM blobs",
			  load_blob },
	[INDEX_TREES] = { "trees", "hash",
			  "SELECT hash, size, files, directories, symlinks, bytes, used, hits FROM trees",
			  load_tree },
	[INDEX_TAGS] = { "tags", "name", "SELECT hash, size, uid, name FROM tags", load_tag },
};

static int refuse_row(const char *table, struct err *err)
{
	(void)err_set(err, err_code_of_errno(EUCLEAN),
		      "reading the index: it is damaged: a row of '%s' makes no sense", table);
	return -EUCLEAN;
}

/* All rows that a statement gives, ascending from the last one. */
static int take_rows(struct index_db *db, const struct table *table, sqlite3_stmt *rows, struct last *last,
		     const struct index_sink *sink, uint64_t *n, struct err *err)
{
	int code;

	*n = 0;
	while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
		struct row row = { .statement = rows };

		if (!table->load(&row, last, sink))
			return refuse_row(table->name, err);
		last->is_there = true;
		++*n;
	}
	return code == SQLITE_DONE ? 0 : index_fail(db, code, "reading", err);
}

static int load_table(struct index_db *db, const struct table *table, const struct index_sink *sink,
		      uint64_t *n, struct err *err)
{
	AUTO_FREE char *query = xasprintf("%s ORDER BY %s", table->query, table->key);
	AUTO_STATEMENT sqlite3_stmt *rows = NULL;
	struct last last CLEANUP(last_fini) = { 0 };
	int r = index_prepare(db, query, &rows, err);

	return r < 0 ? r : take_rows(db, table, rows, &last, sink, n, err);
}

int index_db_load(struct index_db *db, const struct index_sink *sink, struct index_loaded *loaded,
		  struct err *err)
{
	uint64_t n[N_ELEMENTS(tables)];
	int r = 0;

	sink->begin(sink->ctx, loaded);
	for (size_t i = 0; i < N_ELEMENTS(tables) && r == 0; i++)
		r = load_table(db, &tables[i], sink, &n[i], err);
	(void)sqlite3_db_release_memory(db->handle); /* pages that were read once, for this */
	if (r == 0) {
		loaded->n_blobs = n[0];
		sink->end(sink->ctx);
	}
	return r;
}

/* ---- some rows, while it runs ---- */

static bool take_blob(void *ctx, const struct index_blob *blob)
{
	index_page_add(ctx, &(struct index_row){ .is_there = true, .blob = *blob });
	return true;
}

static bool take_tree(void *ctx, const struct index_tree *tree)
{
	index_page_add(ctx, &(struct index_row){ .is_there = true, .tree = *tree });
	return true;
}

static bool take_tag(void *ctx, const struct index_tag *tag)
{
	index_page_add(ctx, &(struct index_row){ .is_there = true, .tag = *tag });
	return true;
}

/* key: NULL for one before all others */
static int bind_key(struct index_db *db, sqlite3_stmt *rows, enum index_table table,
		    const struct index_row *key, struct err *err)
{
	int code;

	if (table == INDEX_BLOBS)
		code = sqlite3_bind_int64(rows, 1, key ? (sqlite3_int64)key->blob.row : 0);
	else if (table == INDEX_TREES)
		code = sqlite3_bind_blob(rows, 1, key ? (const void *)key->tree.digest.hash : "",
					 key ? DIGEST_HASH_SIZE : 0, SQLITE_STATIC);
	else
		code = sqlite3_bind_text(rows, 1, key ? key->tag.name : "", -1, SQLITE_STATIC);
	return code == SQLITE_OK ? 0 : index_fail(db, code, "reading", err);
}

static void set_last(struct last *last, enum index_table table, const struct index_row *key)
{
	last->is_there = true;
	if (table == INDEX_BLOBS)
		last->row = key->blob.row;
	else if (table == INDEX_TREES)
		memcpy(last->hash, key->tree.digest.hash, DIGEST_HASH_SIZE);
	else
		last->name = xstrdup(key->tag.name);
}

/* The rows of a query that has a place for a key. onwards: which come after it. */
static int read_by_key(struct index_db *db, sqlite3_stmt *rows, const struct index_row *key, bool onwards,
		       struct index_page *found, struct err *err)
{
	/* take_rows() neither begins nor ends. */
	const struct index_sink sink = {
		.blob = take_blob, .tree = take_tree, .tag = take_tag, .ctx = found
	};
	struct last last CLEANUP(last_fini) = { 0 };
	uint64_t n;
	int r = bind_key(db, rows, found->table, key, err);

	if (key && onwards)
		set_last(&last, found->table, key);
	if (r == 0)
		r = take_rows(db, &tables[found->table], rows, &last, &sink, &n, err);
	(void)sqlite3_reset(rows);
	return r;
}

static int read_onwards(struct index_db *db, const struct index_page *page, struct index_page *found,
			struct err *err)
{
	const struct table *table = &tables[page->table];
	AUTO_FREE char *query = xasprintf("%s WHERE %s > ?1 ORDER BY %s LIMIT %d", table->query, table->key,
					  table->key, INDEX_PAGE_MAX);
	AUTO_STATEMENT sqlite3_stmt *rows = NULL;
	int r = index_prepare(db, query, &rows, err);

	return r < 0 ? r : read_by_key(db, rows, page->n ? &page->rows[0] : NULL, true, found, err);
}

/* Numbers are keys, too, but a row is about its hash: one of another is none. */
static bool is_another(enum index_table table, const struct index_row *key, const struct index_row *row)
{
	return table == INDEX_BLOBS &&
	       memcmp(key->blob.digest.hash, row->blob.digest.hash, DIGEST_HASH_SIZE) != 0;
}

static int read_each(struct index_db *db, const struct index_page *page, struct index_page *found,
		     struct err *err)
{
	const struct table *table = &tables[page->table];
	AUTO_FREE char *query = xasprintf("%s WHERE %s = ?1", table->query, table->key);
	AUTO_STATEMENT sqlite3_stmt *rows = NULL;
	int r = index_prepare(db, query, &rows, err);

	for (size_t i = 0; i < page->n && r == 0; i++) {
		struct index_row absent = page->rows[i];

		r = read_by_key(db, rows, &page->rows[i], false, found, err);
		absent.is_there = false;
		if (r == 0 && found->n > i && is_another(page->table, &absent, &found->rows[i]))
			found->n--;
		if (r == 0 && found->n == i)
			index_page_add(found, &absent);
	}
	return r;
}

int index_db_read(struct index_db *db, struct index_page *page, bool onwards, struct err *err)
{
	AUTO_FREE struct index_page *found = xcalloc(1, sizeof(*found));
	int r;

	if (!db || !db->handle)
		return err_set(err, ERR_INTERNAL, "reading the index: it is not open");
	if (db->is_partial)
		return INDEX_IS_PARTIAL;
	if (onwards && !page->n)
		(void)sqlite3_db_release_memory(db->handle); /* what is on the disk, not what was */
	found->table = page->table;
	r = onwards ? read_onwards(db, page, found, err) : read_each(db, page, found, err);
	if (r < 0) {
		index_page_clear(found);
		return r;
	}
	index_page_clear(page);
	*page = *found;
	return 0;
}
