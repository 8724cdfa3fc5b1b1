/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree_internal.h"

#include "common/log.h"

enum { WARMING_MAX = 4 }; /* trees read again at a time in the background: leave workers to requests */

/* ---- sleep ---- */

void tree_hold_node(struct tree *tree, struct node *node)
{
	struct trees *trees = tree->trees;
	struct list *newer = trees->awake.prev;

	list_remove(&tree->cold);
	if (!list_is_empty(&tree->awake))
		return;
	if (tree->node) {
		node_pin(tree->node);
	} else {
		tree->node = node_get(node);
		tree->totals = node->totals;
	}
	while (newer != &trees->awake && LIST_ENTRY(newer, struct tree, awake)->used < tree->used)
		newer = newer->prev;
	list_append(newer->next, &tree->awake);
	slice_start(trees->parts.slicer, &trees->dozing);
}

static void put_to_sleep(struct tree *tree)
{
	list_remove(&tree->awake);
	node_unpin(tree->node);
}

void tree_release_node(struct tree *tree, uint64_t used)
{
	if (!tree->node)
		return;
	if (!list_is_empty(&tree->awake))
		put_to_sleep(tree);
	node_drop(tree->node, used);
}

static bool is_full(const struct trees *trees)
{
	return nodes_memory(trees->parts.nodes) > trees->parts.node_memory;
}

/*
 * One after the other, since what each gives back is known when it sleeps: subtrees are shared. Not while
 * older trees are being read: what they take is not the younger ones' fault.
 */
bool trees_doze(struct slice *slice)
{
	struct trees *trees = CONTAINER_OF(slice, struct trees, dozing);

	if (trees->n_warming || !is_full(trees) || list_is_empty(&trees->awake)) {
		trees_warm(trees);
		return false;
	}
	if (!nodes_dozing(trees->parts.nodes))
		put_to_sleep(LIST_ENTRY(trees->awake.prev, struct tree, awake));
	return true;
}

/* ---- warming ---- */

/*
 * What it needs is not known, so nothing would keep its blobs from eviction: better it is not cached, and
 * the next who asks for it has it resolved anew.
 */
static void cannot_warm(struct tree *tree, const struct err *err)
{
	struct index_batch *batch;

	log_warning("cached tree %s cannot be read, and is dropped: %s", DIGEST_TEXT(&tree->digest),
		    err->text);
	if (tree->holds || tree->node) /* somebody else is at it, or could read it */
		return;
	batch = index_batch_new();
	index_batch_drop_tree(batch, &tree->digest);
	index_submit(tree->trees->parts.index, batch, NULL, NULL);
	tree_free(tree);
}

static void on_warmed(struct node_waiter *waiter, const struct node_failure *failure)
{
	struct tree *tree = CONTAINER_OF(waiter, struct tree, warming);
	struct trees *trees = tree->trees;
	struct node *node = TAKE(tree->warming_node);

	trees->n_warming--;
	if (failure)
		cannot_warm(tree, &failure->err);
	else
		tree_hold_node(tree, node);
	node_put(node);
	slice_start(trees->parts.slicer, &trees->dozing);
}

/* Several at a time, while there is much room; the next when the last ones sleep, when there is none. */
static bool may_warm(const struct trees *trees)
{
	bool is_half_full = nodes_memory(trees->parts.nodes) > trees->parts.node_memory / 2;

	if (list_is_empty(&trees->cold))
		return false;
	if (is_full(trees))
		return !trees->n_warming && list_is_empty(&trees->dozing.link);
	return trees->n_warming < (is_half_full ? 1 : WARMING_MAX);
}

static void warm_one(struct trees *trees)
{
	struct tree *tree = LIST_ENTRY(trees->cold.next, struct tree, cold);
	struct node *node = nodes_resolve(trees->parts.nodes, &tree->digest, true);

	list_remove(&tree->cold);
	if (node_is_resolved(node)) {
		tree_hold_node(tree, node);
		node_put(node);
		return;
	}
	trees->n_warming++;
	tree->warming.settled = on_warmed;
	tree->warming_node = node;
	node_wait(node, &tree->warming);
}

static bool start_one_waiting(struct trees *trees)
{
	struct list *l = list_pop(&trees->readers);

	if (!l)
		return trees_unpark_one(trees);
	slice_start(trees->parts.slicer, LIST_ENTRY(l, struct slice, link));
	return true;
}

bool trees_warm_step(struct slice *slice)
{
	struct trees *trees = CONTAINER_OF(slice, struct trees, warming);

	if (may_warm(trees))
		warm_one(trees);
	trees->warmed |= !trees->n_warming && list_is_empty(&trees->cold);
	return trees->warmed ? start_one_waiting(trees) : may_warm(trees);
}

void trees_start_when_read(struct trees *trees, struct slice *slice)
{
	if (trees->warmed)
		slice_start(trees->parts.slicer, slice);
	else
		list_append(&trees->readers, &slice->link);
}

void trees_warm(struct trees *trees)
{
	slice_start(trees->parts.slicer, &trees->warming);
}

void trees_stop_warming(struct trees *trees)
{
	trees->stopping = true;
	while (list_pop(&trees->cold))
		;
	trees_warm(trees);
}

bool trees_busy(const struct trees *trees)
{
	return !trees->warmed || !list_is_empty(&trees->parked) || !list_is_empty(&trees->dozing.link);
}
