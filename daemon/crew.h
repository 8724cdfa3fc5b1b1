/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Crew: several workers on the work of one request.
 *
 * Work is a stack of items. A worker takes the topmost, and work() may add further items (a directory's
 * directories): last in, first out, so what is open at a time grows with the depth of a tree and not with its
 * width. Workers come as there is work for them: one begins, and another joins when enough is on the stack to
 * pay for its waking, up to a number. The one that ends the last item calls finish() and then done() is
 * called on the loop.
 *
 * An item that needs something that only the loop can get is stalled: the loop gets it and resumes or drops
 * it.
 *
 *     crew_start -> work(item)* -> finish   on workers
 *                    |   ^
 *           crew_stall   crew_resume        by way of the loop: stalled(item)
 *
 * Its lock is held for a look at the stack.
 */
#ifndef DIRCACHE_DAEMON_CREW_H
#define DIRCACHE_DAEMON_CREW_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "daemon/pool.h"

enum {
	CREW_MAX = 16,    /* workers on one request */
	CREW_WEIGHT = 96, /* waiting weight that pays for one more worker; a link weighs 1 (some 4 us) */
};

struct crew_item {
	struct crew_item *next; /* private */
	size_t weight;          /* about how many links of work */
};

struct crew;

struct crew_share {
	struct job job;
	struct crew *crew;
	bool active; /* with the pool */
};

struct crew {
	/* Set by the owner before crew_start(). */
	void (*work)(struct crew *crew, struct crew_item *item); /* on a worker: item is work()'s to free */
	void (*finish)(struct crew *crew);                       /* on a worker, once, when no item is left */
	void (*done)(struct crew *crew); /* on the loop, last: the crew may be freed */
	void (*stalled)(struct crew *crew, struct crew_item *item); /* on the loop */
	struct pool_queue *queue;                                   /* borrowed */
	size_t max;                                                 /* workers at a time */

	/* Private. */
	pthread_mutex_t lock;
	struct crew_item *stack, *stalls;
	size_t waiting_weight, n_items, n_active;
	bool finishing, finished;
	struct crew_share shares[CREW_MAX];
};

/* Begin with one item. Loop only. */
void crew_start(struct crew *crew, struct crew_item *first);

/* One more item, from within work(). */
void crew_add(struct crew *crew, struct crew_item *item);

/* This item waits for the loop, from within work(), which returns without having freed it. */
void crew_stall(struct crew *crew, struct crew_item *item);

/* A stalled item goes on. Loop only. */
void crew_resume(struct crew *crew, struct crew_item *item);

#endif
