/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>

#include "common/alloc.h"
#include "daemon/tree_internal.h"

static const struct timeval flush_interval = { .tv_usec = 250000 };

enum { TRIES_MAX = 3 /* at a tree of which others say that something is missing */ };

const struct tree_limits tree_default_limits = {
	.files = 10000000,
	.directories = 10000000,
	.depth = 1000,
	.entries = DIRECTORY_ENTRIES_MAX,
};

/* ---- the index's rows ---- */

struct index_tree tree_row(const struct tree *tree)
{
	return (struct index_tree){
		.digest = tree->digest,
		.n_files = tree->totals.n_files,
		.n_directories = tree->totals.n_directories,
		.n_symlinks = tree->totals.n_symlinks,
		.bytes = tree->totals.bytes,
		.used = tree->used,
		.hits = tree->hits,
	};
}

void trees_flush(struct trees *trees)
{
	struct index_batch *batch;
	struct list *l;

	(void)event_del(trees->flush_timer);
	if (list_is_empty(&trees->dirty))
		return;
	batch = index_batch_new();
	while ((l = list_pop(&trees->dirty))) {
		struct tree *tree = LIST_ENTRY(l, struct tree, dirty);
		struct index_tree row = tree_row(tree);

		if (tree->stored)
			index_batch_touch_tree(batch, &row.digest, row.used, row.hits);
		else
			index_batch_put_tree(batch, &row);
		tree->stored = true;
	}
	index_submit(trees->parts.index, batch, NULL, NULL);
}

static void on_flush_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	trees_flush(arg);
}

static void mark_dirty(struct tree *tree)
{
	struct trees *trees = tree->trees;

	if (list_is_empty(&tree->dirty))
		list_append(&trees->dirty, &tree->dirty);
	if (!evtimer_pending(trees->flush_timer, NULL))
		(void)evtimer_add(trees->flush_timer, &flush_interval);
}

/* ---- cached trees ---- */

static struct tree *tree_new(struct trees *trees, const struct digest *digest)
{
	struct tree *tree = xcalloc(1, sizeof(*tree));

	tree->digest = *digest;
	tree->trees = trees;
	list_init(&tree->order);
	list_init(&tree->awake);
	list_init(&tree->dirty);
	list_init(&tree->cold);
	list_init(&tree->warming.link);
	map_add(&trees->map, &tree->digest);
	return tree;
}

void tree_free(struct tree *tree)
{
	map_remove(&tree->trees->map, &tree->digest);
	tree_leave_order(tree);
	list_remove(&tree->awake);
	list_remove(&tree->dirty);
	list_remove(&tree->cold);
	free(tree);
}

struct tree *tree_find(const struct trees *trees, const struct digest *digest)
{
	struct tree *tree = map_find(&trees->map, digest);

	return tree && tree->digest.size == digest->size ? tree : NULL;
}

/* It is awake, and used now: to the head of the orders. */
static void touch(struct tree *tree)
{
	tree->used = catalog_tick(tree->trees->parts.catalog);
	tree_leave_order(tree);
	list_append(tree->trees->order.next, &tree->order); /* before the first: the new first */
	list_remove(&tree->awake);
	list_append(tree->trees->awake.next, &tree->awake);
	mark_dirty(tree);
}

/*
 * A request got this tree: it is cached, and used now. A new row is written at once where the request itself
 * had it resolved (its answer waits for that commit), and with the times of use where it was a hit below
 * another tree.
 */
static void keep(struct trees *trees, struct node *node, const struct tree_request *request)
{
	struct tree *tree = map_find(&trees->map, &node->digest);
	bool is_hit = request->purpose == TREE_FOR_MATERIALIZE && request->cache == TREE_HIT;

	if (!tree)
		tree = tree_new(trees, &node->digest);
	if (tree->digest.size != node->digest.size) { /* a row that was wrong */
		tree->digest.size = node->digest.size;
		tree->stored = false;
	}
	tree_hold_node(tree, node);
	tree->hits += is_hit;
	touch(tree);
	if (!tree->stored && !is_hit)
		trees_flush(trees);
}

/* ---- limits ---- */

static int over(struct err *err, const struct node *node, const char *what, uint64_t n, uint64_t limit,
		const char *option)
{
	return err_set(err, ERR_RESOURCE_EXHAUSTED, "tree %s has %s%ju %s: the limit is %ju (%s)",
		       DIGEST_TEXT(&node->digest), n == UINT64_MAX ? "at least " : "", (uintmax_t)n, what,
		       (uintmax_t)limit, option);
}

/* Return: 0, or a negative errno with the limit in err. */
static int check_limits(const struct node *node, const struct tree_limits *limits, struct err *err)
{
	const struct tree_totals *t = &node->totals;

	if (t->n_files > limits->files)
		return over(err, node, "files", t->n_files, limits->files, "max-tree-files");
	if (t->n_directories > limits->directories)
		return over(err, node, "directories", t->n_directories, limits->directories,
			    "max-tree-directories");
	if (t->n_symlinks > limits->files)
		return over(err, node, "symlinks", t->n_symlinks, limits->files, "max-tree-files");
	if (t->depth > limits->depth)
		return over(err, node, "levels", t->depth, limits->depth, "max-tree-depth");
	if (limits->bytes && t->bytes > limits->bytes)
		return over(err, node, "bytes", t->bytes, limits->bytes, "max-tree-size");
	return 0;
}

/* ---- requests ---- */

/* Each request once, and for what it was in the end. */
static void count(const struct tree_request *request)
{
	struct counters *counters = request->trees->parts.counters;

	if (request->purpose != TREE_FOR_MATERIALIZE)
		return;
	switch (request->cache) {
	case TREE_HIT:
		counters->tree_hits++;
		break;
	case TREE_JOIN:
		counters->tree_joins++;
		break;
	case TREE_MISS:
		counters->tree_misses++;
		counters->tree_constructions++;
		break;
	}
}

static void fail(struct tree_request *request, const struct node_failure *failure)
{
	count(request);
	request->node = NULL;
	request->err = &failure->err;
	request->missing = failure->missing;
	request->n_missing = failure->n_missing;
	request->done(request, failure->r);
}

/* @node: a reference, handed on */
static void finish(struct tree_request *request, struct node *node)
{
	const struct tree_limits *limits = &request->trees->parts.limits;
	struct node_failure failure = { 0 };

	if (request->purpose != TREE_FOR_LOOK) {
		failure.r = check_limits(node, limits, &failure.err);
		if (failure.r < 0) {
			node_put(node);
			fail(request, &failure);
			return;
		}
		keep(request->trees, node, request);
	}
	count(request);
	request->node = node;
	request->done(request, 0);
}

static enum tree_cache classify(const struct tree *tree, const struct node *node)
{
	if (tree || (node && node_was_resolved(node)))
		return TREE_HIT;
	return node ? TREE_JOIN : TREE_MISS;
}

static void start(struct trees *trees, struct tree_request *request)
{
	struct tree *tree = tree_find(trees, &request->digest);
	struct node *node = nodes_find(trees->parts.nodes, &request->digest);

	request->cache = classify(tree, node);
	if (request->cache == TREE_MISS && !trees->warmed) {
		list_append(&trees->parked, &request->link);
		return;
	}
	if (node && node_is_resolved(node)) {
		finish(request, node_get(node));
		return;
	}
	request->n_tries++;
	request->came_late = node;
	request->node =
		node ? node_get(node) : nodes_resolve(trees->parts.nodes, &request->digest, tree != NULL);
	node_wait(request->node, &request->waiter);
}

/*
 * What this request waited for was begun before it came, and something that was missing then may be there by
 * now: stored, and answered for, before this request was made.
 */
static bool deserves_another_try(const struct tree_request *request, const struct node_failure *failure)
{
	const struct catalog *catalog = request->trees->parts.catalog;

	for (size_t i = 0; request->came_late && request->n_tries < TRIES_MAX && i < failure->n_missing;
	     i++) {
		const struct catalog_entry *entry = catalog_find(catalog, &failure->missing[i]);

		if (entry && entry->digest.size == failure->missing[i].size)
			return true;
	}
	return false;
}

static void on_settled(struct node_waiter *waiter, const struct node_failure *failure)
{
	struct tree_request *request = CONTAINER_OF(waiter, struct tree_request, waiter);
	struct node *node = TAKE(request->node);

	if (!failure) {
		finish(request, node);
		return;
	}
	node_put(node);
	if (deserves_another_try(request, failure))
		start(request->trees, request);
	else
		fail(request, failure);
}

bool trees_unpark_one(struct trees *trees)
{
	struct list *l = list_pop(&trees->parked);

	if (l)
		start(trees, LIST_ENTRY(l, struct tree_request, link));
	return !list_is_empty(&trees->parked);
}

void tree_get(struct trees *trees, const struct digest *digest, enum tree_purpose purpose,
	      struct tree_request *request)
{
	void (*done)(struct tree_request *, int) = request->done;

	*request = (struct tree_request){
		.done = done,
		.purpose = purpose,
		.digest = *digest,
		.trees = trees,
		.waiter.settled = on_settled,
	};
	list_init(&request->link);
	list_init(&request->waiter.link);
	start(trees, request);
}

void tree_cancel(struct tree_request *request)
{
	if (request->node)
		count(request);
	list_remove(&request->link);
	node_wait_no_longer(&request->waiter);
	node_put(TAKE(request->node));
}

/* ---- the whole ---- */

struct trees *trees_new(const struct trees_parts *parts)
{
	struct trees *trees = xcalloc(1, sizeof(*trees));

	trees->parts = *parts;
	map_init(&trees->map);
	list_init(&trees->order);
	list_init(&trees->awake);
	list_init(&trees->dirty);
	list_init(&trees->cold);
	list_init(&trees->parked);
	list_init(&trees->readers);
	list_init(&trees->gone);
	list_init(&trees->walks);
	slice_init(&trees->dozing, trees_doze);
	slice_init(&trees->warming, trees_warm_step);
	trees->flush_timer = evtimer_new(parts->base, on_flush_timer, trees);
	if (!trees->flush_timer)
		abort();
	return trees;
}

void trees_free(struct trees *trees)
{
	struct list *l;

	if (!trees)
		return;
	assert(list_is_empty(&trees->parked) && list_is_empty(&trees->walks));
	assert(!trees->n_leaving && list_is_empty(&trees->gone));
	while ((l = list_pop(&trees->order))) {
		struct tree *tree = LIST_ENTRY(l, struct tree, order);

		tree_release_node(tree, 0);
		free(tree);
	}
	list_remove(&trees->dozing.link);
	list_remove(&trees->warming.link);
	event_free(trees->flush_timer);
	map_fini(&trees->map);
	free(trees);
}

void tree_load(struct trees *trees, const struct index_tree *row)
{
	struct tree *tree = tree_new(trees, &row->digest);

	tree->totals = (struct tree_totals){
		.n_files = row->n_files,
		.n_directories = row->n_directories,
		.n_symlinks = row->n_symlinks,
		.bytes = row->bytes,
	};
	tree->used = row->used;
	tree->hits = row->hits;
	tree->stored = true;
	catalog_tick_seen(trees->parts.catalog, row->used);
	list_append(&trees->order, &tree->order);
	list_append(&trees->cold, &tree->cold);
}

size_t trees_n(const struct trees *trees)
{
	return trees->map.n;
}

bool trees_visit_is_over(const struct trees *trees, const struct map_walk *walk)
{
	return map_walk_is_over(&trees->map, walk);
}

bool trees_visit_step(const struct trees *trees, struct map_walk *walk, struct digest *digest)
{
	const struct tree *tree = map_walk_step(&trees->map, walk);

	if (tree)
		*digest = tree->digest;
	return tree;
}

bool trees_row(const struct trees *trees, const struct digest *digest, struct index_tree *row)
{
	const struct tree *tree = tree_find(trees, digest);

	if (tree)
		*row = tree_row(tree);
	return tree;
}
