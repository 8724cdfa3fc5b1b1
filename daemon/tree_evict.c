/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree_internal.h"

#include <assert.h>

#include "common/alloc.h"

/* Trees on their way out. */
struct eviction {
	struct trees *trees;
	struct tree *leaving[TREES_EVICT_MAX];
	size_t n;
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

bool trees_used_since(const struct trees *trees, const struct tree_victim *victim)
{
	const struct tree *tree = tree_find(trees, &victim->digest);

	return !tree || tree->used != victim->used;
}

/* Its row stays, so it does. If it was made anew meanwhile, that one is as good. */
static void put_back(struct tree *tree)
{
	struct trees *trees = tree->trees;

	tree->is_leaving = false;
	if (!map_find(&trees->map, &tree->digest)) {
		map_add(&trees->map, &tree->digest);
		return;
	}
	tree_leave_order(tree);
	tree_release_node(tree, 0);
	free(tree);
}

static void on_rows_dropped(void *ctx, int r, const struct err *err)
{
	struct eviction *eviction = ctx;
	struct trees *trees = eviction->trees;

	trees->n_leaving -= eviction->n;
	for (size_t i = 0; i < eviction->n; i++) {
		struct tree *tree = eviction->leaving[i];

		if (r < 0) {
			put_back(tree);
			continue;
		}
		tree_leave_order(tree);
		list_append(&trees->gone, &tree->order);
	}
	eviction->done(eviction->ctx, r, err);
	free(eviction);
}

static void leave(struct trees *trees, struct tree *tree)
{
	assert(tree && !tree->holds && trees->warmed);
	map_remove(&trees->map, &tree->digest);
	list_remove(&tree->dirty);
	tree->is_leaving = true;
	trees->n_leaving++;
}

void trees_evict(struct trees *trees, const struct tree_victim *victims, size_t n,
		 void (*done)(void *ctx, int r, const struct err *err), void *ctx)
{
	struct eviction *eviction = xcalloc(1, sizeof(*eviction));
	struct index_batch *batch = index_batch_new();

	assert(n <= TREES_EVICT_MAX);
	*eviction = (struct eviction){ .trees = trees, .n = n, .done = done, .ctx = ctx };
	for (size_t i = 0; i < n; i++) {
		eviction->leaving[i] = tree_find(trees, &victims[i].digest);
		leave(trees, eviction->leaving[i]);
		index_batch_drop_tree(batch, &victims[i].digest);
	}
	index_submit(trees->parts.index, batch, on_rows_dropped, eviction);
}

void trees_release_one(struct trees *trees)
{
	struct list *l = list_pop(&trees->gone);
	struct tree *tree;

	assert(l);
	tree = LIST_ENTRY(l, struct tree, order);
	tree_release_node(tree, tree->used);
	free(tree);
}
