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
	bool stored;        /* the index has its row */
	struct node *node;  /* a reference, and a pin while awake; or NULL when not read since the start */
	struct list order;  /* the last used first */
	struct list awake;  /* the last used first; unlinked while asleep */
	struct list dirty;  /* its row is not as it should be */
	struct list cold;   /* to be warmed */
	size_t holds;       /* by trees_hold(): not to be evicted */
	bool is_leaving;    /* out of the map, its row not yet gone */
	uint64_t passed_by; /* the number of the walk that passed over it last */
	struct node_waiter warming;
	struct node *warming_node; /* a reference and a pin */
};

struct trees {
	struct trees_parts parts;
	struct map map;
	struct list order, awake, dirty, cold;
	struct list gone;    /* their rows are, and their nodes not yet released; by `order` */
	struct list parked;  /* requests that wait for warming to end */
	struct list readers; /* slices that do */
	struct list walks;   /* struct tree_walk */
	size_t n_leaving;
	uint64_t n_walks; /* begun so far */
	size_t n_warming;
	bool warmed, stopping;
	struct slice dozing;  /* puts trees to sleep while nodes take more memory than they may */
	struct slice warming; /* reads cached trees, then starts what is parked */
	struct event *flush_timer;
};

/* tree.c */
struct index_tree tree_row(const struct tree *tree);
struct tree *tree_find(const struct trees *trees, const struct digest *digest); /* of this size, too */
void tree_free(struct tree *tree);          /* with its place in the map and the lists; it has no node */
bool trees_unpark_one(struct trees *trees); /* start one that waited for the warming to end. Return: more? */

/* tree_walk.c */
void tree_leave_order(struct tree *tree); /* walks that are at it go on */

/* tree_memory.c */
void tree_hold_node(struct tree *tree, struct node *node); /* it is resolved: stay so, if there is room */
void tree_release_node(struct tree *tree, uint64_t used);
bool trees_doze(struct slice *slice);
bool trees_warm_step(struct slice *slice);

#endif
