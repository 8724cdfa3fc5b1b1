/* SPDX-License-Identifier: Apache-2.0 */
#include "client/dircache.h"

#include "client/connection.h"
#include "common/alloc.h"

struct evicted_answer {
	struct digest digest;
	struct dircache_evicted tree;
};

struct gc_answer {
	const struct wire_value *trees;
	struct dircache_gc gc;
};

static int take_tree(struct dircache *dc, const struct wire_value *map, struct dircache_evicted *tree,
		     struct err *err)
{
	static const struct wire_field fields[] = {
		{ "digest", WIRE_DIGEST, true, offsetof(struct evicted_answer, digest), 0 },
		{ "bytes", WIRE_UINT, true, offsetof(struct evicted_answer, tree.bytes), 0 },
		{ "last_used", WIRE_UINT, true, offsetof(struct evicted_answer, tree.last_used), 0 },
	};
	struct evicted_answer answer = { 0 };
	int r = wire_decode_open(map, fields, N_ELEMENTS(fields), &answer, "gc", err);

	if (r < 0)
		return r;
	*tree = answer.tree;
	tree->digest = connection_keep_digest(dc, &answer.digest);
	return 0;
}

static int take_answer(struct dircache *dc, struct dircache_gc *gc, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "trees", WIRE_ARRAY, true, offsetof(struct gc_answer, trees), 0 },
		{ "evicted_trees", WIRE_UINT, true, offsetof(struct gc_answer, gc.evicted_trees), 0 },
		{ "evicted_blobs", WIRE_UINT, true, offsetof(struct gc_answer, gc.evicted_blobs), 0 },
		{ "evicted_bytes", WIRE_UINT, true, offsetof(struct gc_answer, gc.evicted_bytes), 0 },
		{ "allocated_before", WIRE_UINT, true, offsetof(struct gc_answer, gc.allocated_before), 0 },
	};
	struct gc_answer answer = { 0 };
	struct dircache_evicted *trees;
	int r = connection_decode(dc, fields, N_ELEMENTS(fields), &answer, "gc", err);

	if (r < 0)
		return r;
	*gc = answer.gc;
	gc->n_trees = wire_array_size(answer.trees);
	trees = connection_keep(dc, xcalloc(gc->n_trees + 1, sizeof(*trees)));
	for (size_t i = 0; r == 0 && i < gc->n_trees; i++)
		r = take_tree(dc, wire_array_at(answer.trees, i), &trees[i], err);
	gc->trees = trees;
	return r;
}

enum dircache_code dircache_gc(struct dircache *dc, const struct dircache_gc_options *options,
			       struct dircache_gc *gc, struct dircache_error *error)
{
	static const struct dircache_gc_options defaults;
	const struct dircache_gc_options *o = options ? options : &defaults;
	struct dircache_gc unwanted;
	struct err err = { 0 };
	struct wire_out *out;
	int r;

	connection_begin(dc);
	dc->progress = o->progress;
	dc->progress_data = o->data;
	out = connection_request(dc, "gc", o->has_to ? 3 : 2);
	wire_put_bool(out, "dry_run", o->dry_run);
	wire_put_bool(out, "progress", o->progress);
	if (o->has_to)
		wire_put_uint(out, "to", o->to);
	if ((r = connection_call(dc, -1, &err)) == 0)
		r = take_answer(dc, gc ? gc : &unwanted, &err);
	return connection_end(dc, r, &err, error);
}
