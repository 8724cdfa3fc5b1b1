/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of nodes, shared by the files node*.c.
 *
 *     node.c          references, pins, the maps, the slice
 *     node_resolve.c  what a node does until it is resolved, or awake again: its *work*
 *     node_load.c     reading Directories on workers
 *     node_release.c  falling asleep, and the end
 *
 *                  load            scan             settle
 *     new ---> LOADING ---> SCANNING ---> WAITING ---------> AWAKE ----> FALLING ----> ASLEEP
 *                 ^            |  (known at last)              |  no pins               |  a pin: LOADING
 *                 `------------|------------------------------ | -----------------------'
 *                              `---> FAILED (if not known)     `---> dying, from both, without references
 */
#ifndef DIRCACHE_DAEMON_NODE_INTERNAL_H
#define DIRCACHE_DAEMON_NODE_INTERNAL_H

#include "daemon/map.h"
#include "daemon/node.h"

enum node_state {
	NODE_LOADING,
	NODE_SCANNING,
	NODE_WAITING, /* scanned, or not to be had; children or flights have not ended */
	NODE_AWAKE,
	NODE_FALLING, /* asleep */
	NODE_ASLEEP,
	NODE_FAILED,
};

/* A parent that waits for one of its children. */
struct edge {
	struct node_waiter waiter;
	struct node_inner *parent;
	const struct node *child;
};

/* A node on its way to being resolved, or awake again. It has a reference and a pin of its own. */
struct node_work {
	struct digest key; /* first: by this it is found while its Directory is not read: hash and size */
	struct node_inner *node; /* NULL when settled */
	size_t pending;          /* children and flights that have not ended */
	struct edge *edges;      /* in the order of the children */
	size_t n_edges;
	struct list waiters;
	struct list link; /* settled */
	struct node_failure *failure;
};

/* The loop's side of a node. */
struct node_inner {
	struct node node; /* first: what others see */
	struct nodes *nodes;
	struct node_work *work; /* NULL when not under way. A FALLING node's waits until it has fallen */
	struct list link;       /* wanted, scanning, drowsy, dying or unread */
	size_t refs;            /* from parents, from others, and from work */
	size_t pins;            /* from parents that are awake or under way, from others, and from work */
	size_t scanned; /* entries with a hold or a pin: files, then directories; down again when these go */
	uint64_t used;  /* the last use of what gave back a reference */
	enum node_state state;
	bool known;    /* it was resolved: all its holds and references are taken, its totals computed */
	bool recalled; /* it is known from before the start */
};

struct nodes {
	struct nodes_parts parts;
	struct pool_queue *queue;  /* what requests wait for */
	struct pool_queue *chores; /* what nobody waits for */
	struct map map;            /* whose Directory was read, so that its size is right */
	struct map unproven;       /* work of those whose Directory was not */
	struct slice slice;
	struct list wanted;   /* to be loaded */
	struct list scanning; /* loaded, being looked through */
	struct list settled;  /* work that has ended, waiters not told yet */
	struct list drowsy;   /* without pins: falling asleep */
	struct list dying;    /* without references */
	struct list unread;   /* the same, asleep: to be loaded first */
	size_t n_wanted, n_jobs, n_chores, n_working;
	size_t n_blobs;      /* blobs waited for */
	size_t n_references; /* given out, to others than nodes */
	uint64_t memory;     /* of contents */
	void (*released)(void *ctx);
	void *released_ctx;
	bool was_releasing; /* at the end of the last step: the watcher is to be told when it is not */
};

static inline struct node_inner *node_inner(const struct node *node)
{
	return (struct node_inner *)(uintptr_t)node;
}

/* node.c */
struct node_inner *node_find(const struct nodes *nodes, const struct digest *digest);
struct node_inner *node_new(struct nodes *nodes, const struct digest *digest);
void node_ref(struct node_inner *n);
void node_unref(struct node_inner *n, uint64_t used);
void node_add_pin(struct node_inner *n); /* wakes */
void node_drop_pin(struct node_inner *n);
void nodes_wake_slice(struct nodes *nodes);

/* node_resolve.c */
struct node_inner *node_find_or_want(struct nodes *nodes, const struct digest *digest, bool recall);
void node_begin_work(struct node_inner *n); /* then have it loaded, or start the scan */
void node_want(struct node_inner *n);
void node_start_scan(struct node_inner *n, struct directory *directory); /* takes the Directory over */
void node_scan(struct node_inner *n); /* some entries of a node on the list `scanning` */
void node_settle(struct nodes *nodes, struct node_work *work); /* tell some waiters, from `settled` */
void node_fail_load(struct node_inner *n, struct node_failure *failure); /* takes it over */
void node_add_missing(struct node_failure *failure, const struct digest *digest);
bool nodes_may_scan(const struct nodes *nodes);

/* node_load.c: hand to the workers, a few jobs ahead of them. */
void nodes_dispatch_wanted(struct nodes *nodes);
void nodes_dispatch_unread(struct nodes *nodes);

/* node_release.c */
void node_take_contents(struct node_inner *n, struct directory *directory);
void node_fall(struct node_inner *n);    /* some pins of a node on the list `drowsy` */
void node_release(struct node_inner *n); /* some of a node on the list `dying` */
void node_cannot_release(struct node_inner *n, const struct err *err); /* its Directory cannot be read */
void node_free(struct node_inner *n);                                  /* alone; nothing is released */

#endif
