/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index_sql.h"

#include <errno.h>
#include <string.h>

/* A row is read from left to right; what cannot have been written by us is remembered. */
struct row {
	sqlite3_stmt *statement;
	const uint8_t *after; /* its hash must come after this one, where the table is keyed by it */
	bool is_bad;
};

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
	if (row->after && memcmp(digest.hash, row->after, DIGEST_HASH_SIZE) <= 0)
		row->is_bad = true;
	return digest;
}

static bool load_blob(struct row *row, struct digest *last, const struct index_sink *sink)
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

	(void)last; /* blobs are keyed by row */
	return !row->is_bad && blob.row && blob.kinds && sink->blob(sink->ctx, &blob);
}

static bool load_tree(struct row *row, struct digest *last, const struct index_sink *sink)
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

	*last = tree.digest;
	return !row->is_bad && sink->tree(sink->ctx, &tree);
}

static bool load_tag(struct row *row, struct digest *last, const struct index_sink *sink)
{
	struct index_tag tag = {
		.digest = digest(row, 0),
		.uid = (uint32_t)number(row, 2, UINT32_MAX),
		.name = (const char *)sqlite3_column_text(row->statement, 3),
	};

	(void)last; /* tags are keyed by name */
	return !row->is_bad && tag.name && sink->tag(sink->ctx, &tag);
}

struct table {
	const char *name, *query;
	bool (*load)(struct row *row, struct digest *last, const struct index_sink *sink);
	bool is_by_hash;
};

static const struct table tables[] = {
	{ "blobs",
	  "SELECT hash, size, kinds, plain_allocated, exec_allocated, used, row, plain_inode, exec_inode "
	  "FROM blobs ORDER BY row",
	  load_blob, false },
	{ "trees",
	  "SELECT hash, size, files, directories, symlinks, bytes, used, hits FROM trees ORDER BY hash",
	  load_tree, true },
	{ "tags", "SELECT hash, size, uid, name FROM tags", load_tag, false },
};

static int refuse_row(const char *table, struct err *err)
{
	(void)err_set(err, err_code_of_errno(EUCLEAN),
		      "reading the index: it is damaged: a row of '%s' makes no sense", table);
	return -EUCLEAN;
}

static int load_table(struct index_db *db, const struct table *table, const struct index_sink *sink,
		      uint64_t *n, struct err *err)
{
	AUTO_STATEMENT sqlite3_stmt *rows = NULL;
	struct digest last;
	int code, r;

	*n = 0;
	if ((r = index_prepare(db, table->query, &rows, err)) < 0)
		return r;
	while ((code = sqlite3_step(rows)) == SQLITE_ROW) {
		struct row row = { .statement = rows, .after = table->is_by_hash && *n ? last.hash : NULL };

		if (!table->load(&row, &last, sink))
			return refuse_row(table->name, err);
		++*n;
	}
	return code == SQLITE_DONE ? 0 : index_fail(db, code, "reading", err);
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
	if (r == 0)
		loaded->n_blobs = n[0];
	return r;
}
