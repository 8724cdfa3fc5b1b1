/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree_internal.h"

#include <assert.h>

#include "common/alloc.h"

/* A tree on its way out. */
struct eviction {
	struct tree *tree;
	void (*done)(void *ctx, int r, const struct err *err);
	void *ctx;
};

bool trees_may_evict(const struct trees *trees)
{
	return trees->warmed && !trees->stopping;
}

bool trees_hold(struct trees *trees, const struct digest *digest)
{
	struct tree *tree = tree_find(trees, digest);

	if (tree)
		tree->holds++;
	return tree;
}

void trees_unhold(struct trees *trees, const struct digest *digest)
{
	struct tree *tree = tree_find(trees, digest);

	assert(tree && tree->holds);
	tree->holds--;
}

bool trees_may_go(const struct trees *trees, const struct digest *digest)
{
	const struct tree *tree = tree_find(trees, digest);

	return tree && !tree->holds && trees_may_evict(trees);
}

bool trees_oldest(const struct trees *trees, bool (*skip)(void *ctx, const struct digest *digest), void *ctx,
		  struct tree_victim *victim)
{
	for (const struct list *l = trees->order.prev; l != &trees->order; l = l->prev) {
		const struct tree *tree = LIST_ENTRY(l, struct tree, order);

		if (tree->holds || skip(ctx, &tree->digest))
			continue;
		*victim = (struct tree_victim){
			.digest = tree->digest,
			.used = tree->used,
			.node = tree->node,
		};
		return true;
	}
	return false;
}

/* Its row stays, so it does. If it was made anew meanwhile, that one is as good. */
static void put_back(struct tree *tree)
{
	struct trees *trees = tree->trees;
	struct list *older = trees->order.prev;

	if (map_find(&trees->map, &tree->digest)) {
		tree_release_node(tree, 0);
		free(tree);
		return;
	}
	while (older != &trees->order && LIST_ENTRY(older, struct tree, order)->used < tree->used)
		older = older->prev;
	list_append(older->next, &tree->order);
	map_add(&trees->map, &tree->digest);
}

static void on_row_dropped(void *ctx, int r, const struct err *err)
{
	struct eviction *eviction = ctx;
	struct tree *tree = eviction->tree;

	list_remove(&tree->order);
	if (r < 0) {
		put_back(tree);
	} else {
		tree_release_node(tree, tree->used);
		free(tree);
	}
	eviction->done(eviction->ctx, r, err);
	free(eviction);
}

void trees_evict(struct trees *trees, const struct digest *digest,
		 void (*done)(void *ctx, int r, const struct err *err), void *ctx)
{
	struct eviction *eviction = xcalloc(1, sizeof(*eviction));
	struct index_batch *batch = index_batch_new();
	struct tree *tree = tree_find(trees, digest);

	assert(tree && !tree->holds && trees->warmed);
	*eviction = (struct eviction){ .tree = tree, .done = done, .ctx = ctx };
	map_remove(&trees->map, &tree->digest);
	list_remove(&tree->order);
	list_remove(&tree->dirty);
	list_append(&trees->leaving, &tree->order);
	index_batch_drop_tree(batch, digest);
	index_submit(trees->parts.index, batch, on_row_dropped, eviction);
}
