/* SPDX-License-Identifier: Apache-2.0 */
/* The inside of evict: what evict.c (who wants room), evict_run.c (what goes), evict_party.c (trees),
 * evict_batch.c (unlinking) and evict_rehearsal.c (dry runs) share. */
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

struct evict_party;
struct evict_pins;
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
	struct tree_walk walk;     /* over the trees: those before it stay, or have joined the party */
	struct evict_party *party; /* trees that go together, or are gathered for that; or NULL */
	struct evict_batch *batch; /* being gathered */
	size_t n_batches;          /* with workers, or settling */
	struct list settling;      /* done by workers */
	struct slice settler;
	uint64_t leaving; /* bytes of the blobs in batches */
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

/* ---- evict_party.c ---- */

enum evict_next {
	EVICT_CHOOSE, /* there is no party, or another tree may join it */
	EVICT_GO_ON,
	EVICT_WAIT, /* the run is kicked when it goes on */
};

/* The tree that the walk is at joins the party, or is passed over, when it was looked into. */
void evict_party_add(struct evict *evict, const struct tree_victim *victim, bool must_free);

/* Nothing else joins the party: it goes. */
void evict_party_send(struct evict *evict);

/* Go on with what the party is at. */
enum evict_next evict_party_step(struct evict *evict, const struct evict_goal *goal);

/* Is it beyond recall? */
bool evict_party_is_leaving(const struct evict *evict);

/* A blob lost its last hold. */
void evict_party_unheld(struct evict *evict, const struct catalog_entry *entry);

/* ---- evict_pins.c ---- */

/* Have all trees cached that a tag names; nothing is evicted until that is done. */
void evict_pin_tags(struct evict *evict);

/* ---- evict_batch.c ---- */

enum { EVICT_BATCHES_MAX = 2 }; /* with workers at a time: deletion is in no hurry */

void evict_batch_init(struct evict *evict);

/* Add a blob that is in the catalog and that nobody holds. Return: false, if a worker relies on it. */
bool evict_batch_add(struct evict *evict, const struct digest *digest, bool must_free);

bool evict_batch_is_full(const struct evict *evict);

/* Hand what was gathered to a worker. */
void evict_batch_send(struct evict *evict);

/* ---- evict_rehearsal.c ---- */

/* Begin with the first dry run that waits, if none is at work. */
void evict_rehearse(struct evict *evict);

#endif
