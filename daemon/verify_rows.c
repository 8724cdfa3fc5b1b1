/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index's rows beside what is in memory, which came from them at the start and agrees with the files by
 * now: is the row of each blob, tree and tag there, and does it say the same; and is there any other?
 *
 * Rows are read by the lane, a page at a time, between two commits. Memory is ahead of them by what was
 * submitted and is not committed yet, and eviction is ahead of both by what it is at. So what differs in a
 * page is only a suspicion. It is looked at again by itself, when all that was submitted is committed, and
 * counts if memory was the same before and after, and nobody was at the blob. Else it is looked at once more,
 * later.
 */
#include "daemon/verify_internal.h"

#include <errno.h>
#include <string.h>

#include "common/alloc.h"

enum { LATER_NS = 20000000 }; /* until what somebody else is at is looked at again */

struct suspect_row {
	enum index_table table;
	struct index_row key;
};

struct suspect_rows {
	struct suspect_row *items;
	size_t n, capacity;
};

struct verify_rows {
	struct index_page page;
	bool is_read;         /* the page: to be compared */
	bool in_memory;       /* has each row of memory its own? Before: are there others in the table? */
	bool is_over;         /* nothing more can be compared */
	struct map_walk walk; /* of blobs or trees in memory */
	size_t next_tag;

	struct suspect_rows suspects, later;
	struct suspect_row suspect; /* being looked at again */
	struct index_page one;      /* its row */
	struct index_row was;       /* what was in memory of it, before; the name is the suspect's */
};

/* ---- what is in memory ---- */

static struct index_row find_blob(const struct verify *verify, const struct index_blob *key)
{
	const struct catalog_entry *entry = catalog_find(verify->cache->catalog, &key->digest);

	if (!entry || entry->row != key->row)
		return (struct index_row){ 0 };
	return (struct index_row){ .is_there = true, .blob = catalog_row(entry) };
}

static struct index_row find_tag(const struct verify *verify, const char *name)
{
	size_t i = tags_after(verify->cache->tags, name);
	struct index_row row = { 0 };

	if (i)
		row.tag = tags_at(verify->cache->tags, i - 1);
	row.is_there = i && strcmp(row.tag.name, name) == 0;
	return row;
}

/* What memory has for a key. */
static struct index_row find(const struct verify *verify, enum index_table table, const struct index_row *key)
{
	struct index_row row = { 0 };

	switch (table) {
	case INDEX_BLOBS:
		return find_blob(verify, &key->blob);
	case INDEX_TREES:
		row.is_there = trees_row(verify->cache->trees, &key->tree.digest, &row.tree);
		return row;
	default:
		return find_tag(verify, key->tag.name);
	}
}

static bool memory_is_over(const struct verify *verify, enum index_table table)
{
	switch (table) {
	case INDEX_BLOBS:
		return catalog_walk_is_over(verify->cache->catalog, &verify->rows->walk);
	case INDEX_TREES:
		return trees_visit_is_over(verify->cache->trees, &verify->rows->walk);
	default:
		return verify->rows->next_tag == verify->tags->n;
	}
}

/* Return: is one there, at this step? */
static struct index_row memory_step(struct verify *verify, enum index_table table)
{
	struct verify_rows *rows = verify->rows;
	const struct catalog_entry *entry;
	struct index_row row = { 0 };

	switch (table) {
	case INDEX_BLOBS:
		entry = catalog_walk_step(verify->cache->catalog, &rows->walk);
		row.is_there = entry;
		if (entry)
			row.blob = catalog_row(entry);
		return row;
	case INDEX_TREES:
		row.is_there = trees_visit_step(verify->cache->trees, &rows->walk, &row.tree.digest);
		return row;
	default:
		return (struct index_row){ .is_there = true,
					   .tag = tags_view_at(verify->tags, rows->next_tag++) };
	}
}

/* ---- comparing ---- */

/* Times of use are written later, and of blobs not all: an earlier one is right. That a blob is the next to
 * go, being of no use (0), is not written at all. */
static bool is_same_blob(const struct index_blob *now, const struct index_blob *row)
{
	return digest_equal(&now->digest, &row->digest) && now->kinds == row->kinds &&
	       memcmp(now->allocated, row->allocated, sizeof(row->allocated)) == 0 &&
	       (!now->used || row->used <= now->used);
}

static bool is_same_tree(const struct index_tree *now, const struct index_tree *row)
{
	return digest_equal(&now->digest, &row->digest) && now->n_files == row->n_files &&
	       now->n_directories == row->n_directories && now->n_symlinks == row->n_symlinks &&
	       now->bytes == row->bytes && row->used <= now->used && row->hits <= now->hits;
}

static bool is_same(enum index_table table, const struct index_row *now, const struct index_row *row)
{
	if (!now->is_there || !row->is_there)
		return now->is_there == row->is_there;
	switch (table) {
	case INDEX_BLOBS:
		return is_same_blob(&now->blob, &row->blob);
	case INDEX_TREES:
		return is_same_tree(&now->tree, &row->tree);
	default:
		return digest_equal(&now->tag.digest, &row->tag.digest) && now->tag.uid == row->tag.uid;
	}
}

static void suspect(struct suspect_rows *suspects, enum index_table table, const struct index_row *key)
{
	struct suspect_row *added;

	suspects->items = xgrow(suspects->items, suspects->n, &suspects->capacity, sizeof(*suspects->items));
	added = &suspects->items[suspects->n++];
	*added = (struct suspect_row){ table, *key };
	if (table == INDEX_TAGS)
		added->key.tag.name = xstrdup(key->tag.name);
}

static void suspect_fini(struct suspect_row *suspect)
{
	if (suspect->table == INDEX_TAGS)
		free((char *)suspect->key.tag.name);
	*suspect = (struct suspect_row){ 0 };
}

/* Of the page stays, where the table is gone through, the last row: behind it the next begins. */
static void leave_page(struct verify_rows *rows)
{
	struct index_page *page = &rows->page;
	struct index_row last;

	rows->is_read = false;
	if (rows->in_memory) {
		index_page_clear(page);
		return;
	}
	last = page->rows[--page->n];
	index_page_clear(page);
	page->rows[page->n++] = last;
}

static void compare_page(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;
	struct index_page *page = &rows->page;

	for (size_t i = 0; i < page->n; i++) {
		const struct index_row *row = &page->rows[i];
		struct index_row now = find(verify, page->table, row);

		/* Of what memory has the rows come later; and what it has no more by then is no matter. */
		if (rows->in_memory ? now.is_there && !is_same(page->table, &now, row) : !now.is_there)
			suspect(&rows->suspects, page->table, row);
	}
	leave_page(rows);
}

/* ---- pages ---- */

/* What came of reading. Return: can rows be compared? */
static bool was_read(struct verify *verify, int r, const struct err *err)
{
	if (r == -EUCLEAN)
		verify->damage = *err; /* told in its phase */
	else if (r < 0)
		verify->err = *err;
	if (r != -EUCLEAN)
		(void)verify_failed(verify, r);
	verify->rows->is_over |= r != 0;
	return r == 0;
}

static void begin_way(struct verify_rows *rows, enum index_table table, bool in_memory)
{
	index_page_clear(&rows->page);
	rows->page.table = table;
	rows->in_memory = in_memory;
	rows->walk = (struct map_walk){ 0 };
}

/* Each table is gone through first, and then memory. */
static void end_way(struct verify_rows *rows)
{
	if (rows->in_memory)
		begin_way(rows, rows->page.table + 1, false);
	else
		begin_way(rows, rows->page.table, true);
}

static void on_page(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;
	struct verify_rows *rows = verify->rows;

	rows->is_read = was_read(verify, r, err) && rows->page.n;
	if (r == 0 && !rows->page.n)
		end_way(rows);
	verify_go_on(verify);
}

static void read_page(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;

	index_read(verify->cache->index, &rows->page, !rows->in_memory, on_page, verify);
}

/* Gather what memory has. */
static enum verify_next gather(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;
	struct index_page *page = &rows->page;
	enum index_table table = page->table;

	for (unsigned i = 0; i < VERIFY_STEP && !memory_is_over(verify, table) && page->n < INDEX_PAGE_MAX;
	     i++) {
		struct index_row row = memory_step(verify, table);

		if (row.is_there)
			index_page_add(page, &row);
	}
	if (page->n < INDEX_PAGE_MAX && !memory_is_over(verify, table))
		return VERIFY_MORE;
	if (!page->n) {
		end_way(rows);
		return VERIFY_MORE;
	}
	read_page(verify);
	return VERIFY_BUSY;
}

/* ---- looking again ---- */

static bool somebody_is_at_it(const struct verify *verify, const struct suspect_row *suspect)
{
	const struct cache *cache = verify->cache;

	return suspect->table == INDEX_BLOBS &&
	       (claims_has(cache->claims, &suspect->key.blob.digest) || evict_has_rows(cache->evict));
}

static char *words_of(enum index_table table, const struct index_row *row)
{
	if (!row->is_there)
		return xstrdup("no row");
	switch (table) {
	case INDEX_BLOBS:
		return xasprintf("size %ju, kinds %u, %ju and %ju bytes on disk, used %ju",
				 (uintmax_t)row->blob.digest.size, (unsigned)row->blob.kinds,
				 (uintmax_t)row->blob.allocated[BLOB_PLAIN],
				 (uintmax_t)row->blob.allocated[BLOB_EXEC], (uintmax_t)row->blob.used);
	case INDEX_TREES:
		return xasprintf("size %ju, %ju files, %ju directories, %ju symlinks, %ju bytes, used %ju, "
				 "hits %ju",
				 (uintmax_t)row->tree.digest.size, (uintmax_t)row->tree.n_files,
				 (uintmax_t)row->tree.n_directories, (uintmax_t)row->tree.n_symlinks,
				 (uintmax_t)row->tree.bytes, (uintmax_t)row->tree.used,
				 (uintmax_t)row->tree.hits);
	default:
		return xasprintf("%s, of user %u", DIGEST_TEXT(&row->tag.digest), (unsigned)row->tag.uid);
	}
}

static const struct digest *digest_of(enum index_table table, const struct index_row *row)
{
	return table == INDEX_BLOBS   ? &row->blob.digest
	       : table == INDEX_TREES ? &row->tree.digest
				      : &row->tag.digest;
}

static void on_mended(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;
	const struct verify_rows *rows = verify->rows;

	verify_fault_end(verify, r == 0,
			 r < 0                ? err->text
			 : rows->was.is_there ? "written from memory"
					      : "dropped");
}

/* Nothing of a wrong row is believed: not the inodes that it names either, of which memory knows nothing. */
static void mend(struct verify *verify, const struct index_row *now)
{
	const struct suspect_row *suspect = &verify->rows->suspect;
	struct index_batch *batch = index_batch_new();

	switch (suspect->table) {
	case INDEX_BLOBS:
		index_batch_drop_blob(batch, suspect->key.blob.row);
		if (now->is_there)
			index_batch_put_blob(batch, &now->blob);
		break;
	case INDEX_TREES:
		index_batch_drop_tree(batch, &suspect->key.tree.digest);
		if (now->is_there)
			index_batch_put_tree(batch, &now->tree);
		break;
	default:
		index_batch_drop_tag(batch, suspect->key.tag.name);
		if (now->is_there)
			index_batch_put_tag(batch, &now->tag);
		break;
	}
	index_submit(verify->cache->index, batch, on_mended, verify);
}

static void report(struct verify *verify, const struct index_row *now, const struct index_row *row)
{
	enum index_table table = verify->rows->suspect.table;
	const struct index_row *known = now->is_there ? now : row;
	char *name = table == INDEX_TAGS ? xstrdup(verify->rows->suspect.key.tag.name) : NULL;

	verify_fault_set(verify, VERIFY_ROW, digest_of(table, known), name, words_of(table, now),
			 words_of(table, row));
	if (verify->call->repair)
		mend(verify, now);
	else
		verify_fault_end(verify, false, NULL);
}

static void on_row(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;
	struct verify_rows *rows = verify->rows;
	const struct suspect_row *suspected = &rows->suspect;
	struct index_row now;

	if (!was_read(verify, r, err)) {
		verify_go_on(verify);
		return;
	}
	now = find(verify, suspected->table, &suspected->key);
	if (somebody_is_at_it(verify, suspected) || !is_same(suspected->table, &now, &rows->was)) {
		suspect(&rows->later, suspected->table, &suspected->key);
		verify_go_on(verify);
	} else if (is_same(suspected->table, &now, &rows->one.rows[0])) {
		verify_go_on(verify);
	} else {
		report(verify, &now, &rows->one.rows[0]);
	}
}

/* What could not be committed is tried again by itself: such rows are behind, and not wrong. */
static void on_committed(void *ctx, int r, const struct err *err)
{
	struct verify *verify = ctx;
	struct verify_rows *rows = verify->rows;

	(void)err;
	if (r < 0) {
		verify_go_on(verify);
		return;
	}
	index_page_clear(&rows->one);
	rows->one.table = rows->suspect.table;
	index_page_add(&rows->one, &rows->suspect.key);
	index_read(verify->cache->index, &rows->one, false, on_row, verify);
}

/* Return: was something begun? */
static bool look_again(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;
	struct index *index = verify->cache->index;

	while (rows->suspects.n) {
		suspect_fini(&rows->suspect);
		rows->suspect = rows->suspects.items[--rows->suspects.n];
		if (somebody_is_at_it(verify, &rows->suspect)) {
			suspect(&rows->later, rows->suspect.table, &rows->suspect.key);
			continue;
		}
		trees_flush(verify->cache->trees);
		rows->was = find(verify, rows->suspect.table, &rows->suspect.key);
		index_barrier(index, index_mark(index), on_committed, verify);
		return true;
	}
	return false;
}

static enum verify_next look_at_later(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;
	const struct suspect_rows done = rows->suspects;

	if (!rows->later.n)
		return VERIFY_OVER;
	rows->suspects = rows->later;
	rows->later = done;
	verify_go_on_after(verify, LATER_NS);
	return VERIFY_BUSY;
}

/* ---- the phase ---- */

static void suspects_free(struct suspect_rows *suspects)
{
	while (suspects->n)
		suspect_fini(&suspects->items[--suspects->n]);
	free(suspects->items);
}

void verify_rows_free(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;

	if (!rows)
		return;
	suspects_free(&rows->suspects);
	suspects_free(&rows->later);
	suspect_fini(&rows->suspect);
	index_page_clear(&rows->page);
	index_page_clear(&rows->one);
	free(rows);
}

enum verify_next verify_index_rows_next(struct verify *verify)
{
	struct verify_rows *rows = verify->rows;

	if (!rows)
		rows = verify->rows = xcalloc(1, sizeof(*rows));
	if (rows->is_over)
		return VERIFY_OVER;
	if (look_again(verify))
		return VERIFY_BUSY;
	if (rows->is_read) {
		compare_page(verify);
		return VERIFY_MORE;
	}
	if (rows->page.table == INDEX_TABLES)
		return look_at_later(verify);
	if (rows->in_memory)
		return gather(verify);
	read_page(verify);
	return VERIFY_BUSY;
}
