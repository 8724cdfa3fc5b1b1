/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node.h"

#include <assert.h>

#include "common/alloc.h"
#include "daemon/node_internal.h"

/* ---- life ---- */

struct node_inner *node_new(struct nodes *nodes, const struct digest *digest, enum node_state state)
{
	struct node_inner *n = xcalloc(1, sizeof(*n));

	n->node.digest = *digest;
	n->nodes = nodes;
	n->state = state;
	n->refs = 1;
	list_init(&n->waiters);
	list_init(&n->link);
	map_add(&nodes->map, &n->node.digest);
	catalog_hold(nodes->parts.catalog, digest);
	nodes->n_waiting++;
	return n;
}

void node_unref(struct node_inner *n, uint64_t used)
{
	n->used = used > n->used ? used : n->used;
	if (--n->refs)
		return;
	if (n->state == NODE_RESOLVED)
		map_remove(&n->nodes->map, &n->node.digest);
	list_append(&n->nodes->dying, &n->link);
	slice_start(n->nodes->parts.slicer, &n->nodes->slice);
}

struct node *node_get(struct node *node)
{
	struct node_inner *n = node_inner(node);

	n->refs++;
	n->nodes->n_references++;
	return node;
}

void node_put_used(struct node *node, uint64_t used)
{
	if (!node)
		return;
	node_inner(node)->nodes->n_references--;
	node_unref(node_inner(node), used);
}

void node_put(struct node *node)
{
	node_put_used(node, 0);
}

size_t node_references(const struct node *node)
{
	return node_inner(node)->refs;
}

bool node_is_resolved(const struct node *node)
{
	return node_inner(node)->state == NODE_RESOLVED;
}

bool node_is_recalled(const struct node *node)
{
	return node_inner(node)->recalled;
}

void node_wait(struct node *node, struct node_waiter *waiter)
{
	list_append(&node_inner(node)->waiters, &waiter->link);
}

void node_wait_no_longer(struct node_waiter *waiter)
{
	list_remove(&waiter->link);
}

/* ---- the slice: release and settle before scan before load, so that memory is given back first ---- */

static bool nodes_step(struct slice *slice)
{
	struct nodes *nodes = CONTAINER_OF(slice, struct nodes, slice);
	struct list *l;

	if ((l = list_pop(&nodes->dying)))
		node_release(LIST_ENTRY(l, struct node_inner, link));
	else if ((l = list_pop(&nodes->settled)))
		node_settle(LIST_ENTRY(l, struct node_inner, link));
	else if (nodes_may_scan(nodes) && (l = list_pop(&nodes->scanning)))
		node_scan(LIST_ENTRY(l, struct node_inner, link));
	if (list_is_empty(&nodes->scanning))
		nodes_dispatch_loads(nodes);
	return !list_is_empty(&nodes->dying) || !list_is_empty(&nodes->settled) || nodes_may_scan(nodes);
}

/* ---- the whole ---- */

struct nodes *nodes_new(const struct nodes_parts *parts)
{
	struct nodes *nodes = xcalloc(1, sizeof(*nodes));

	nodes->parts = *parts;
	nodes->queue = pool_queue_new(parts->pool);
	map_init(&nodes->map);
	slice_init(&nodes->slice, nodes_step);
	list_init(&nodes->wanted);
	list_init(&nodes->scanning);
	list_init(&nodes->settled);
	list_init(&nodes->dying);
	return nodes;
}

void nodes_free(struct nodes *nodes)
{
	struct list *l;

	if (!nodes)
		return;
	assert(!nodes->n_references && !nodes->n_waiting);
	while ((l = list_pop(&nodes->dying)))
		node_free(LIST_ENTRY(l, struct node_inner, link));
	for (size_t i = 0; i < map_end(&nodes->map); i++)
		node_free(map_slot(&nodes->map, i));
	map_fini(&nodes->map);
	list_remove(&nodes->slice.link);
	pool_queue_free(nodes->queue);
	free(nodes);
}

struct node *nodes_find(const struct nodes *nodes, const struct digest *digest)
{
	return map_find(&nodes->map, digest);
}

struct node *nodes_resolve(struct nodes *nodes, const struct digest *digest, bool recall)
{
	struct node_inner *n = node_find_or_want(nodes, digest, recall);

	nodes->n_references++;
	return &n->node;
}

struct node *nodes_adopt(struct nodes *nodes, const struct digest *digest, struct directory *directory)
{
	struct node_inner *n = map_find(&nodes->map, digest);

	if (n) {
		directory_free(directory);
	} else {
		n = node_new(nodes, digest, NODE_SCANNING);
		n->recalled = true;
		node_start_scan(n, directory);
	}
	return node_get(&n->node);
}

bool nodes_busy(const struct nodes *nodes)
{
	return nodes->n_waiting || nodes->n_jobs || !list_is_empty(&nodes->dying);
}

bool nodes_releasing(const struct nodes *nodes)
{
	return !list_is_empty(&nodes->dying);
}
