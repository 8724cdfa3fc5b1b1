/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of evict: what evict.c (who wants room), evict_run.c (what goes), evict_batch.c (unlinking) and
 * evict_rehearsal.c (dry runs) share. */
#ifndef DIRCACHE_DAEMON_EVICT_INTERNAL_H
#define DIRCACHE_DAEMON_EVICT_INTERNAL_H

#include "daemon/candidates.h"
#include "daemon/evict.h"
#include "daemon/forecast.h"
#include "daemon/map.h"

/* What a run is to do next. */
struct evict_goal {
	uint64_t bytes; /* that are to go; 0: the run is over */
	bool trees;     /* may trees go, or only what nobody holds? */
	bool must_free; /* it is free disk that is wanted: pass over what has links elsewhere */
};

/* What went so far. */
struct evict_sums {
	uint64_t n_trees, n_blobs, bytes;
};

/* The tree that is on its way out. */
enum evict_tree_state {
	TREE_NONE,
	TREE_LEAVES,   /* its row is being dropped */
	TREE_RELEASES, /* its nodes give back their holds */
	TREE_STAYS,    /* its row could not be dropped */
};

struct evict_pins;
struct evict_probe;
struct evict_rehearsal;

struct evict {
	struct evict_parts parts;
	struct pool_queue *queue;
	struct slice slice;
	struct event *tick;  /* measure now and then */
	struct event *retry; /* look again at what says no word when it is done */
	bool started, stopping;
	bool is_settled;         /* every tree that a tag names is cached */
	struct evict_pins *pins; /* tagged trees that are not cached are being found; or NULL */

	/* Who wants room. */
	struct list waiters;
	struct list gcs;        /* that evict; the first is at work */
	struct list rehearsals; /* dry runs; the first is at work */
	struct evict_rehearsal *rehearsal;
	bool in_background;      /* a level was above its high mark */
	uint64_t stuck_until_ns; /* nothing could be evicted in the background: not again before */
	bool is_stuck;           /* ... and the log has said so */

	/* Measuring. */
	struct usage_waiter measuring;
	uint64_t allocated_then, commits_then; /* of the last measurement */
	unsigned idle_ticks;
	uint64_t freed; /* bytes of disk, since it was last measured */
	bool measured;  /* since the run began */

	/* The run. */
	bool running;
	uint64_t began_ns;
	struct evict_sums sums;
	struct candidates candidates;
	bool walked;               /* the candidates were looked for, */
	uint64_t n_gone_then;      /* ... and so many trees and blobs were gone then */
	uint64_t oldest_used;      /* no tree that may go was used before this */
	struct map passed;         /* struct digest: trees that are left alone until the run ends */
	struct evict_probe *probe; /* of a tree, under way */
	struct digest probed;      /* the tree that was found to free something */
	enum evict_tree_state tree_state;
	struct tree_victim victim; /* whose state that is */
	uint64_t released;         /* bytes of the blobs that it gave back so far */
	struct evict_batch *batch; /* being gathered */
	size_t n_batches;          /* with workers */
	uint64_t leaving;          /* bytes of the blobs in batches */
};

/* ---- evict.c ---- */

/* What is wanted now. Waiters who have room by now are told. */
struct evict_goal evict_goal(struct evict *evict);

/* Nothing more can be evicted towards a goal: tell who wanted it. */
void evict_give_up(struct evict *evict, const struct evict_goal *goal);

/* The gc that is at work, or NULL. */
struct evict_gc *evict_first_gc(const struct evict *evict);

/* Measure, and set the levels of the space; the run goes on then. */
void evict_measure(struct evict *evict);

/* Note for `gc` that a tree goes. */
void evict_list_tree(struct evict_gc *gc, const struct digest *digest, uint64_t used, uint64_t bytes);

/* ---- evict_run.c ---- */

void evict_run_init(struct evict *evict);
void evict_run_fini(struct evict *evict);

/* There may be something to do. */
void evict_run_kick(struct evict *evict);

/* Look again in a moment: what is waited for says no word. */
void evict_retry_soon(struct evict *evict);

/* Is it known by now what the cached trees and tags hold? Not when the daemon stops. */
bool evict_may_choose(const struct evict *evict);

/* Leave a tree alone for the rest of the run. */
void evict_pass_over(struct evict *evict, const struct digest *digest);

/* ---- evict_probe.c: would evicting a tree free anything, or is all that only it holds linked elsewhere?
 * ---- */

void evict_probe_start(struct evict *evict, const struct tree_victim *victim);

/* Go on. Return: is more to be done now? When it ends, the tree was passed over, or it is evict->probed. */
bool evict_probe_step(struct evict *evict);

/* ---- evict_pins.c ---- */

/* Have all trees cached that a tag names; nothing is evicted until that is done. */
void evict_pin_tags(struct evict *evict);

/* ---- evict_batch.c ---- */

enum { EVICT_BATCHES_MAX = 2 }; /* with workers at a time: deletion is in no hurry */

/* Add a blob that is in the catalog and that nobody holds. Return: false, if a worker relies on it. */
bool evict_batch_add(struct evict *evict, const struct digest *digest, bool must_free);

bool evict_batch_is_full(const struct evict *evict);

/* Hand what was gathered to a worker. */
void evict_batch_send(struct evict *evict);

/* ---- evict_rehearsal.c ---- */

/* Begin with the first dry run that waits, if none is at work. */
void evict_rehearse(struct evict *evict);

#endif
