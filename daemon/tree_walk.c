/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree_internal.h"

enum { FIND_STEP = 64 }; /* trees looked at between two looks at the clock */

static struct list *next_of(const struct tree_walk *walk, const struct list *l)
{
	return walk->youngest_first ? l->next : l->prev;
}

void tree_leave_order(struct tree *tree)
{
	list_for_each (l, &tree->trees->walks) {
		struct tree_walk *walk = LIST_ENTRY(l, struct tree_walk, link);

		if (walk->at == &tree->order)
			walk->at = next_of(walk, walk->at);
	}
	list_remove(&tree->order);
}

void tree_walk_begin(struct trees *trees, struct tree_walk *walk, bool youngest_first)
{
	*walk = (struct tree_walk){
		.trees = trees,
		.youngest_first = youngest_first,
		.number = ++trees->n_walks,
	};
	list_append(&trees->walks, &walk->link);
	tree_walk_rewind(walk);
}

void tree_walk_end(struct tree_walk *walk)
{
	if (walk->trees)
		list_remove(&walk->link);
	*walk = (struct tree_walk){ 0 };
}

void tree_walk_rewind(struct tree_walk *walk)
{
	walk->at = next_of(walk, &walk->trees->order);
}

/* The one that the walk is at; NULL at the end. */
static struct tree *tree_at(struct tree_walk *walk)
{
	struct list *head = &walk->trees->order;

	while (walk->at != head && LIST_ENTRY(walk->at, struct tree, order)->is_leaving)
		walk->at = next_of(walk, walk->at); /* as many at most as are evicted at once */
	return walk->at == head ? NULL : LIST_ENTRY(walk->at, struct tree, order);
}

size_t tree_walk_list(struct tree_walk *walk, struct index_tree *rows, size_t max)
{
	const struct tree *tree;
	size_t n = 0;

	while (n < max && (tree = tree_at(walk))) {
		rows[n++] = tree_row(tree);
		walk->at = next_of(walk, walk->at);
	}
	return n;
}

size_t tree_walk_skip(struct tree_walk *walk, size_t n)
{
	size_t n_skipped = 0;

	while (n_skipped < n && tree_at(walk)) {
		walk->at = next_of(walk, walk->at);
		n_skipped++;
	}
	return n_skipped;
}

enum tree_found tree_walk_find(struct tree_walk *walk, bool (*skip)(void *ctx, const struct digest *digest),
			       void *ctx, struct tree_victim *victim)
{
	for (unsigned i = 0; i < FIND_STEP; i++) {
		const struct tree *tree = tree_at(walk);

		if (!tree)
			return TREE_NONE;
		if (!tree->holds && tree->passed_by != walk->number && !skip(ctx, &tree->digest)) {
			*victim = (struct tree_victim){
				.digest = tree->digest,
				.used = tree->used,
				.n_entries = tree->totals.n_files + tree->totals.n_directories,
				.is_known = tree->node,
			};
			return TREE_FOUND;
		}
		walk->at = next_of(walk, walk->at);
	}
	return TREE_LOOK_ON;
}

void tree_walk_leave(struct tree_walk *walk, const struct digest *digest)
{
	const struct tree *tree = tree_at(walk);

	if (tree && digest_equal(&tree->digest, digest))
		walk->at = next_of(walk, walk->at);
}

void tree_walk_pass_over(struct tree_walk *walk, const struct digest *digest)
{
	struct tree *tree = tree_find(walk->trees, digest);

	if (tree)
		tree->passed_by = walk->number;
}
