/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of trees, shared by the files tree*.c: requests, background reading, eviction. */
#ifndef DIRCACHE_DAEMON_TREE_INTERNAL_H
#define DIRCACHE_DAEMON_TREE_INTERNAL_H

#include "daemon/map.h"
#include "daemon/tree.h"

/* A cached tree. */
struct tree {
	struct digest digest; /* first: the key in the map */
	struct trees *trees;
	struct tree_totals totals;
	uint64_t used, hits;
	bool stored;       /* the index has its row */
	struct node *node; /* a reference, or NULL when its nodes are not in memory */
	struct list order; /* the last used first */
	struct list dirty; /* its row is not as it should be */
	struct list cold;  /* to be warmed */
	size_t holds;      /* by trees_hold(): not to be evicted */
	struct node_waiter warming;
};

struct trees {
	struct trees_parts parts;
	struct map map;
	struct list order, dirty, cold;
	struct list leaving; /* out of the map, their rows not yet gone; by `order` */
	struct list parked;  /* requests that wait for warming to end */
	size_t n_warming;
	bool warmed, stopping;
	struct event *flush_timer;
};

/* tree.c: its nodes are in memory now: stay there. */
void tree_hold_node(struct tree *tree, struct node *node);

/* tree.c: some request may have been waiting for the background reading to end. */
void trees_unpark(struct trees *trees);

#endif
