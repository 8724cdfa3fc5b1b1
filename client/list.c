/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of libdircache that answer in pages: ls and trees.
 */
#include "client/dircache.h"

#include <errno.h>
#include <string.h>

#include "client/connection.h"
#include "common/alloc.h"

/* ---- ls ---- */

struct entry_answer {
	struct wire_bytes name, type, target;
	struct digest digest;
	uint64_t mode, size;
	bool has_digest, has_target;
};

static int read_type(struct wire_bytes type, enum dircache_type *out)
{
	static const struct {
		const char *name;
		enum dircache_type type;
	} types[] = {
		{ "file", DIRCACHE_FILE },
		{ "directory", DIRCACHE_DIRECTORY },
		{ "symlink", DIRCACHE_SYMLINK },
	};

	for (size_t i = 0; i < N_ELEMENTS(types); i++)
		if (type.len == strlen(types[i].name) && memcmp(type.data, types[i].name, type.len) == 0) {
			*out = types[i].type;
			return 0;
		}
	return -EINVAL;
}

static int take_entry(struct dircache *dc, const struct wire_value *map, struct dircache_entry *entry,
		      struct err *err)
{
	static const struct wire_field fields[] = {
		{ "name", WIRE_BYTES, true, offsetof(struct entry_answer, name), 0 },
		{ "type", WIRE_TEXT, true, offsetof(struct entry_answer, type), 0 },
		{ "mode", WIRE_UINT, true, offsetof(struct entry_answer, mode), 0 },
		{ "size", WIRE_UINT, true, offsetof(struct entry_answer, size), 0 },
		{ "digest", WIRE_DIGEST, false, offsetof(struct entry_answer, digest),
		  offsetof(struct entry_answer, has_digest) },
		{ "target", WIRE_BYTES, false, offsetof(struct entry_answer, target),
		  offsetof(struct entry_answer, has_target) },
	};
	struct entry_answer answer = { 0 };
	int r = wire_decode_open(map, fields, N_ELEMENTS(fields), &answer, "ls", err);

	if (r < 0)
		return r;
	if (read_type(answer.type, &entry->type) < 0 ||
	    (entry->type == DIRCACHE_SYMLINK ? !answer.has_target : !answer.has_digest))
		return err_set(err, ERR_INTERNAL,
			       "the daemon's answer to ls holds an entry of no known type");
	entry->name = connection_keep_text(dc, answer.name);
	entry->mode = (unsigned)answer.mode & 07777;
	entry->size = answer.size;
	entry->digest = answer.has_digest ? connection_keep_digest(dc, &answer.digest) : NULL;
	entry->target = answer.has_target ? connection_keep_text(dc, answer.target) : NULL;
	return 0;
}

struct page_answer {
	struct digest digest;
	const struct wire_value *entries;
	bool has_digest, directory, more;
};

static int take_page(struct dircache *dc, struct dircache_page *page, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "digest", WIRE_DIGEST, false, offsetof(struct page_answer, digest),
		  offsetof(struct page_answer, has_digest) },
		{ "directory", WIRE_BOOL, true, offsetof(struct page_answer, directory), 0 },
		{ "entries", WIRE_ARRAY, true, offsetof(struct page_answer, entries), 0 },
		{ "more", WIRE_BOOL, false, offsetof(struct page_answer, more), 0 },
	};
	struct page_answer answer = { 0 };
	struct dircache_entry *entries;
	int r = connection_decode(dc, fields, N_ELEMENTS(fields), &answer, "ls", err);

	if (r < 0)
		return r;
	*page = (struct dircache_page){ .directory = answer.directory };
	if (answer.has_digest) /* a symlink has none */
		digest_print(&answer.digest, page->digest);
	page->n_entries = wire_array_size(answer.entries);
	page->more = answer.more && page->n_entries > 0;
	entries = connection_keep(dc, xcalloc(page->n_entries + 1, sizeof(*entries)));
	for (size_t i = 0; r == 0 && i < page->n_entries; i++)
		r = take_entry(dc, wire_array_at(answer.entries, i), &entries[i], err);
	page->entries = entries;
	return r;
}

enum dircache_code dircache_ls(struct dircache *dc, const char *what, const char *path, uint64_t offset,
			       struct dircache_page *page, struct dircache_error *error)
{
	struct err err = { 0 };
	struct wire_out *out;
	int r;

	connection_begin(dc);
	out = connection_request(dc, "ls", path ? 3 : 2);
	connection_put_what(out, what);
	wire_put_uint(out, "offset", offset);
	if (path)
		wire_put_bytes(out, "path", path, strlen(path));
	if ((r = connection_call(dc, -1, &err)) == 0)
		r = take_page(dc, page, &err);
	return connection_end(dc, r, &err, error);
}

/* ---- trees ---- */

struct tree_answer {
	struct digest digest;
	struct dircache_tree tree;
	bool has_allocated, has_unique;
};

static int take_tree(struct dircache *dc, const struct wire_value *map, struct dircache_tree *tree,
		     struct err *err)
{
	static const struct wire_field fields[] = {
		{ "digest", WIRE_DIGEST, true, offsetof(struct tree_answer, digest), 0 },
		{ "files", WIRE_UINT, true, offsetof(struct tree_answer, tree.files), 0 },
		{ "directories", WIRE_UINT, true, offsetof(struct tree_answer, tree.directories), 0 },
		{ "symlinks", WIRE_UINT, true, offsetof(struct tree_answer, tree.symlinks), 0 },
		{ "bytes", WIRE_UINT, true, offsetof(struct tree_answer, tree.bytes), 0 },
		{ "hits", WIRE_UINT, true, offsetof(struct tree_answer, tree.hits), 0 },
		{ "last_used", WIRE_UINT, true, offsetof(struct tree_answer, tree.last_used), 0 },
		{ "allocated", WIRE_UINT, false, offsetof(struct tree_answer, tree.allocated),
		  offsetof(struct tree_answer, has_allocated) },
		{ "unique", WIRE_UINT, false, offsetof(struct tree_answer, tree.unique),
		  offsetof(struct tree_answer, has_unique) },
	};
	struct tree_answer answer = { 0 };
	int r = wire_decode_open(map, fields, N_ELEMENTS(fields), &answer, "trees", err);

	if (r < 0)
		return r;
	*tree = answer.tree;
	tree->sized = answer.has_allocated && answer.has_unique;
	tree->digest = connection_keep_digest(dc, &answer.digest);
	return 0;
}

struct trees_answer {
	const struct wire_value *trees;
	bool more;
};

static int take_trees(struct dircache *dc, struct dircache_trees *trees, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "trees", WIRE_ARRAY, true, offsetof(struct trees_answer, trees), 0 },
		{ "more", WIRE_BOOL, false, offsetof(struct trees_answer, more), 0 },
	};
	struct trees_answer answer = { 0 };
	struct dircache_tree *items;
	size_t n;
	int r = connection_decode(dc, fields, N_ELEMENTS(fields), &answer, "trees", err);

	if (r < 0)
		return r;
	n = wire_array_size(answer.trees);
	items = connection_keep(dc, xcalloc(n + 1, sizeof(*items)));
	for (size_t i = 0; r == 0 && i < n; i++)
		r = take_tree(dc, wire_array_at(answer.trees, i), &items[i], err);
	*trees = (struct dircache_trees){ items, n, answer.more && n > 0 };
	return r;
}

enum dircache_code dircache_trees(struct dircache *dc, uint64_t offset, bool sizes,
				  struct dircache_trees *trees, struct dircache_error *error)
{
	struct err err = { 0 };
	struct wire_out *out;
	int r;

	connection_begin(dc);
	out = connection_request(dc, "trees", 2);
	wire_put_uint(out, "offset", offset);
	wire_put_bool(out, "sizes", sizes);
	if ((r = connection_call(dc, -1, &err)) == 0)
		r = take_trees(dc, trees, &err);
	return connection_end(dc, r, &err, error);
}
