/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of nodes, shared by the files node*.c: their life, their resolving, their reading. */
#ifndef DIRCACHE_DAEMON_NODE_INTERNAL_H
#define DIRCACHE_DAEMON_NODE_INTERNAL_H

#include "daemon/map.h"
#include "daemon/node.h"

enum node_state {
	NODE_LOADING,
	NODE_SCANNING,
	NODE_WAITING,  /* scanned; children or flights have not ended */
	NODE_SETTLING, /* all have; its own waiters are not told yet */
	NODE_RESOLVED,
	NODE_FAILED,
};

/* A parent that waits for one of its children. */
struct edge {
	struct node_waiter waiter;
	struct node_inner *parent;
	const struct node *child;
};

/* The loop's side of a node. */
struct node_inner {
	struct node node; /* first: what others see */
	struct nodes *nodes;
	enum node_state state;
	bool recalled;
	size_t refs;    /* from parents, from others, and one of its own while under way */
	size_t pending; /* children and flights that have not ended */
	size_t scanned; /* entries looked up and held: files, then directories */
	uint64_t used;  /* the last use of what gave back a reference */
	struct edge *edges;
	struct list waiters;
	struct list link; /* wanted, scanning, settled or dying */
	struct node_failure *failure;
};

struct nodes {
	struct nodes_parts parts;
	struct pool_queue *queue;
	struct map map;
	struct slice slice;
	struct list wanted;   /* to be loaded */
	struct list scanning; /* loaded, being looked through */
	struct list settled;  /* ended, waiters not told yet */
	struct list dying;    /* without references */
	size_t n_wanted, n_jobs, n_waiting;
	size_t n_blobs;      /* blobs waited for */
	size_t n_references; /* given out, to others than nodes */
};

static inline struct node_inner *node_inner(const struct node *node)
{
	return (struct node_inner *)(uintptr_t)node;
}

/* node.c: under way, with a reference that ends with that. */
struct node_inner *node_new(struct nodes *nodes, const struct digest *digest, enum node_state state);
void node_unref(struct node_inner *n, uint64_t used); /* a reference that a node had */

/* node_resolve.c */
struct node_inner *node_find_or_want(struct nodes *nodes, const struct digest *digest, bool recall);
void node_start_scan(struct node_inner *n, struct directory *directory); /* takes the Directory over */
void node_scan(struct node_inner *n);   /* some entries of a node on the list `scanning` */
void node_settle(struct node_inner *n); /* tell some waiters of a node on the list `settled` */
void node_fail_load(struct node_inner *n, struct node_failure *failure); /* takes it over */
void node_add_missing(struct node_failure *failure, const struct digest *digest);
bool nodes_may_scan(const struct nodes *nodes);

/* node_release.c */
void node_release(struct node_inner *n); /* some of a node on the list `dying` */
void node_free(struct node_inner *n);    /* alone, and without releasing anything */

/* node_load.c: hand what is wanted to the workers, in equal parts, a few jobs ahead of them. */
void nodes_dispatch_loads(struct nodes *nodes);

#endif
