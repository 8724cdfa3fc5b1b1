/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node.h"

#include <assert.h>

#include "common/alloc.h"
#include "daemon/discard.h"
#include "daemon/node_internal.h"

/* ---- the maps ---- */

struct node_inner *node_find(const struct nodes *nodes, const struct digest *digest)
{
	struct node_inner *n = map_find(&nodes->map, digest);
	const struct node_work *work;
	struct digest key;

	if (n && n->node.digest.size == digest->size)
		return n;
	key = map_key(&nodes->unproven, digest, digest->size);
	work = map_find(&nodes->unproven, &key);
	return work ? work->node : NULL;
}

/* In neither map yet, without references. */
struct node_inner *node_new(struct nodes *nodes, const struct digest *digest)
{
	struct node_inner *n = xcalloc(1, sizeof(*n));

	n->node.digest = *digest;
	n->nodes = nodes;
	list_init(&n->link);
	catalog_hold(nodes->parts.catalog, digest);
	return n;
}

/* ---- references and pins ---- */

void node_ref(struct node_inner *n)
{
	n->refs++;
}

void node_unref(struct node_inner *n, uint64_t used)
{
	struct nodes *nodes = n->nodes;

	n->used = used > n->used ? used : n->used;
	if (--n->refs)
		return;
	assert(!n->pins && !n->work);
	if (n->known)
		map_remove(&nodes->map, &n->node.digest);
	nodes_wake_slice(nodes);
	if (n->state == NODE_FALLING) /* and dies when it has fallen */
		return;
	list_remove(&n->link);
	list_append(n->state == NODE_ASLEEP ? &nodes->unread : &nodes->dying, &n->link);
}

void node_add_pin(struct node_inner *n)
{
	n->pins++;
	if (n->state == NODE_AWAKE) {
		list_remove(&n->link); /* it may have been drowsy */
	} else if (n->state == NODE_ASLEEP) {
		node_begin_work(n);
		node_want(n);
	} else if (n->state == NODE_FALLING && !n->work) {
		node_begin_work(n); /* which goes on when it has fallen */
	}
}

void node_drop_pin(struct node_inner *n)
{
	if (--n->pins || n->state != NODE_AWAKE)
		return;
	list_append(&n->nodes->drowsy, &n->link);
	nodes_wake_slice(n->nodes);
}

void node_pin(struct node *node)
{
	node_add_pin(node_inner(node));
}

void node_unpin(struct node *node)
{
	node_drop_pin(node_inner(node));
}

struct node *node_get(struct node *node)
{
	struct node_inner *n = node_inner(node);

	node_ref(n);
	node_add_pin(n);
	n->nodes->n_references++;
	return node;
}

void node_drop(struct node *node, uint64_t used)
{
	struct node_inner *n = node_inner(node);

	n->nodes->n_references--;
	node_unref(n, used);
}

void node_put(struct node *node)
{
	if (!node)
		return;
	node_unpin(node);
	node_drop(node, 0);
}

/* ---- questions ---- */

size_t node_references(const struct node *node)
{
	return node_inner(node)->refs;
}

bool node_is_resolved(const struct node *node)
{
	return node_inner(node)->state == NODE_AWAKE;
}

bool node_was_resolved(const struct node *node)
{
	return node_inner(node)->known || node_inner(node)->recalled;
}

void node_wait(struct node *node, struct node_waiter *waiter)
{
	list_append(&node_inner(node)->work->waiters, &waiter->link);
}

void node_wait_no_longer(struct node_waiter *waiter)
{
	list_remove(&waiter->link);
}

/* ---- the slice ---- */

void nodes_wake_slice(struct nodes *nodes)
{
	slice_start(nodes->parts.slicer, &nodes->slice);
}

/* Settle before scan before load, lest memory grow. */
static void advance(struct nodes *nodes)
{
	struct list *l;

	if ((l = list_pop(&nodes->settled)))
		node_settle(nodes, LIST_ENTRY(l, struct node_work, link));
	else if (nodes_may_scan(nodes) && (l = list_pop(&nodes->scanning)))
		node_scan(LIST_ENTRY(l, struct node_inner, link));
	if (list_is_empty(&nodes->scanning))
		nodes_dispatch_wanted(nodes);
}

/* Waits for nothing that a request waits for: blobs may be waiting for the room that this makes. */
static void give_back(struct nodes *nodes)
{
	struct list *l;

	if ((l = list_pop(&nodes->drowsy)))
		node_fall(LIST_ENTRY(l, struct node_inner, link));
	else if ((l = list_pop(&nodes->dying)))
		node_release(LIST_ENTRY(l, struct node_inner, link));
	nodes_dispatch_unread(nodes);
}

static void tell_watcher(struct nodes *nodes)
{
	bool is_releasing = nodes_releasing(nodes);

	if (nodes->was_releasing && !is_releasing && nodes->released)
		nodes->released(nodes->released_ctx);
	nodes->was_releasing = is_releasing;
}

void nodes_watch(struct nodes *nodes, void (*released)(void *ctx), void *ctx)
{
	nodes->released = released;
	nodes->released_ctx = ctx;
}

/* Of both a little, so that neither a large tree's coming nor another's going keeps the other waiting. */
static bool nodes_step(struct slice *slice)
{
	struct nodes *nodes = CONTAINER_OF(slice, struct nodes, slice);

	nodes->was_releasing |= nodes_releasing(nodes);
	give_back(nodes);
	advance(nodes);
	tell_watcher(nodes);
	return !list_is_empty(&nodes->drowsy) || !list_is_empty(&nodes->dying) ||
	       !list_is_empty(&nodes->settled) || nodes_may_scan(nodes);
}

/* ---- the whole ---- */

struct nodes *nodes_new(const struct nodes_parts *parts)
{
	struct nodes *nodes = xcalloc(1, sizeof(*nodes));

	nodes->parts = *parts;
	nodes->queue = pool_queue_new(parts->pool);
	nodes->chores = pool_queue_new(parts->pool);
	map_init(&nodes->map);
	map_init(&nodes->unproven);
	slice_init(&nodes->slice, nodes_step);
	list_init(&nodes->wanted);
	list_init(&nodes->scanning);
	list_init(&nodes->settled);
	list_init(&nodes->drowsy);
	list_init(&nodes->dying);
	list_init(&nodes->unread);
	return nodes;
}

static void free_all(struct list *nodes)
{
	struct list *l;

	while ((l = list_pop(nodes)))
		node_free(LIST_ENTRY(l, struct node_inner, link));
}

void nodes_free(struct nodes *nodes)
{
	if (!nodes)
		return;
	assert(!nodes->n_references && !nodes->n_working && !nodes->unproven.n);
	free_all(&nodes->dying);
	free_all(&nodes->unread);
	for (size_t i = 0; i < map_end(&nodes->map); i++)
		if (map_slot(&nodes->map, i))
			node_free(map_slot(&nodes->map, i));
	map_fini(&nodes->map);
	map_fini(&nodes->unproven);
	list_remove(&nodes->slice.link);
	pool_queue_free(nodes->queue);
	pool_queue_free(nodes->chores);
	free(nodes);
}

struct node *nodes_find(const struct nodes *nodes, const struct digest *digest)
{
	struct node_inner *n = node_find(nodes, digest);

	return n ? &n->node : NULL;
}

struct node *nodes_resolve(struct nodes *nodes, const struct digest *digest, bool recall)
{
	nodes->n_references++;
	return &node_find_or_want(nodes, digest, recall)->node;
}

struct node *nodes_adopt(struct nodes *nodes, const struct digest *digest, struct directory *directory)
{
	struct node_inner *n = node_find(nodes, digest);

	if (!n) {
		n = node_new(nodes, digest);
		n->recalled = true;
		map_add(&nodes->map, &n->node.digest);
		node_begin_work(n);
		node_start_scan(n, directory);
	} else if (n->state == NODE_ASLEEP) {
		node_begin_work(n);
		node_start_scan(n, directory);
	} else {
		discard(nodes->chores, directory, directory->memory);
	}
	return node_get(&n->node);
}

uint64_t nodes_memory(const struct nodes *nodes)
{
	return nodes->memory;
}

size_t nodes_n(const struct nodes *nodes)
{
	return nodes->map.n + nodes->unproven.n;
}

bool nodes_dozing(const struct nodes *nodes)
{
	return !list_is_empty(&nodes->drowsy);
}

size_t nodes_n_under_way(const struct nodes *nodes)
{
	return nodes->n_working;
}

bool nodes_releasing(const struct nodes *nodes)
{
	/* One of the drowsy may be without references, and dies when it has fallen asleep. */
	return !list_is_empty(&nodes->dying) || !list_is_empty(&nodes->unread) || nodes->n_chores ||
	       nodes_dozing(nodes);
}

bool nodes_busy(const struct nodes *nodes)
{
	assert(nodes->n_working || (!nodes->n_blobs && !nodes->unproven.n &&
				    list_is_empty(&nodes->scanning) && list_is_empty(&nodes->settled)));
	return nodes->n_working || nodes->n_jobs || nodes_dozing(nodes) || nodes_releasing(nodes);
}
