/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include <event2/event.h>

#include "common/alloc.h"
#include "common/log.h"
#include "common/size.h"

enum { STALE_A_STEP = 64 };

static const struct timeval retry_interval = { .tv_usec = 1000 };

/* ---- choosing ---- */

static bool is_tagged(void *ctx, const struct digest *digest)
{
	const struct evict *evict = ctx;

	return tags_pin(evict->parts.tags, digest);
}

static void on_unheld(void *ctx, const struct catalog_entry *entry)
{
	struct evict *evict = ctx;

	if (!evict->running)
		return;
	candidates_add(&evict->candidates, &entry->digest, entry->used);
	evict_party_unheld(evict, entry);
}

/* Is the first candidate still one? Some that were used since go back to their place. */
static bool drop_stale(struct evict *evict)
{
	const struct candidate *first;

	for (unsigned i = 0; i < STALE_A_STEP && (first = candidates_first(&evict->candidates)); i++) {
		const struct catalog_entry *entry = catalog_find(evict->parts.catalog, &first->digest);
		bool is_free = entry && !entry->holds;

		if (is_free && entry->used == first->used)
			return false;
		candidates_drop_first(&evict->candidates);
		if (is_free)
			candidates_add(&evict->candidates, &entry->digest, entry->used);
	}
	return candidates_first(&evict->candidates) != NULL;
}

static void take_blob(struct evict *evict, const struct candidate *blob, bool must_free)
{
	const struct digest digest = blob->digest;

	candidates_drop_first(&evict->candidates);
	(void)evict_batch_add(evict, &digest, must_free); /* a claimed one is in use */
	if (evict_batch_is_full(evict))
		evict_batch_send(evict);
}

/* Nothing is left to choose. Has anything gone since the last walk, or were some left out, then look again.
 */
static bool walk_again(struct evict *evict)
{
	uint64_t n_gone = evict->sums.n_blobs + evict->sums.n_trees;
	bool has_more = candidates_has_more(&evict->candidates);

	if (evict->walked && n_gone == evict->n_gone_then && !has_more)
		return false;
	candidates_find(&evict->candidates, evict->parts.catalog,
			evict->walked && n_gone == evict->n_gone_then);
	tree_walk_rewind(&evict->walk);
	evict->walked = true;
	evict->n_gone_then = n_gone;
	return true;
}

/* The least recently used of all goes. Return: is more to be done now? */
static bool choose(struct evict *evict, const struct evict_goal *goal)
{
	enum tree_found found = TREE_NONE;
	const struct candidate *blob;
	struct tree_victim victim;

	if (drop_stale(evict))
		return true;
	blob = candidates_first(&evict->candidates);
	if (goal->trees)
		found = tree_walk_find(&evict->walk, is_tagged, evict, &victim);
	if (found == TREE_LOOK_ON)
		return true;
	if (found == TREE_FOUND && victim.used < candidates_bound(&evict->candidates)) {
		evict_party_add(evict, &victim, goal->must_free);
		return true;
	}
	if (evict->party) {
		evict_party_send(evict);
		return true;
	}
	if (blob) {
		take_blob(evict, blob, goal->must_free);
		return true;
	}
	evict_batch_send(evict);
	if (evict->n_batches) /* some of it may stay */
		return false;
	if (!walk_again(evict))
		evict_give_up(evict, goal);
	return true;
}

/* ---- the run ---- */

static void begin(struct evict *evict)
{
	evict->running = true;
	evict->measured = false;
	evict->began_ns = slice_now_ns();
	evict->sums = (struct evict_sums){ 0 };
	tree_walk_begin(evict->parts.trees, &evict->walk, false);
	(void)walk_again(evict);
}

static void end(struct evict *evict)
{
	const struct evict_sums *sums = &evict->sums;

	evict->running = evict->walked = false;
	evict->in_background = false;
	candidates_fini(&evict->candidates, evict->queue);
	tree_walk_end(&evict->walk);
	if (!sums->n_trees && !sums->n_blobs)
		return;
	log_info("evicted %ju trees and %ju blobs, %s, within %ju ms: the store takes %s",
		 (uintmax_t)sums->n_trees, (uintmax_t)sums->n_blobs, SIZE_TEXT(sums->bytes),
		 (uintmax_t)((slice_now_ns() - evict->began_ns) / 1000000),
		 SIZE_TEXT(evict_allocated(evict)));
	evict_measure(evict);
}

void evict_retry_soon(struct evict *evict)
{
	(void)event_add(evict->retry, &retry_interval);
}

bool evict_may_choose(const struct evict *evict)
{
	return evict->started && !evict->pins && trees_may_evict(evict->parts.trees);
}

/* Nothing more is to be chosen: when all that was is gone, the run ends. */
static bool wind_up(struct evict *evict)
{
	evict_batch_send(evict);
	if (evict->n_batches)
		return false;
	if (evict->freed && !list_is_empty(&evict->waiters))
		evict_measure(evict); /* what the disk has now; then the run goes on */
	else
		end(evict);
	return false;
}

/* Nothing may go: not yet, or, when the daemon stops, no more. */
static bool wait_for_trees(struct evict *evict, const struct evict_goal *goal)
{
	if (!evict->stopping) {
		evict_retry_soon(evict);
		return false;
	}
	if (goal->bytes) {
		evict_give_up(evict, goal);
		return true;
	}
	return wind_up(evict);
}

static bool run_step(struct slice *slice)
{
	struct evict *evict = CONTAINER_OF(slice, struct evict, slice);
	struct evict_goal goal;
	enum evict_next next;

	if (!evict->started || evict->pins)
		return false;
	goal = evict_goal(evict);
	next = evict_party_step(evict, &goal);
	if (next != EVICT_CHOOSE)
		return next == EVICT_GO_ON;
	if (!evict->running && !goal.bytes) {
		evict->in_background = false;
		return false;
	}
	if (!trees_may_evict(evict->parts.trees))
		return wait_for_trees(evict, &goal);
	if (!evict->running)
		begin(evict);
	if (!evict->measured) { /* much of what is known since the last time is a guess */
		evict_measure(evict);
		return false;
	}
	if (candidates_step(&evict->candidates, evict->parts.catalog))
		return true;
	if (!goal.bytes)
		return wind_up(evict);
	return evict->n_batches < EVICT_BATCHES_MAX && choose(evict, &goal);
}

void evict_run_kick(struct evict *evict)
{
	slice_start(evict->parts.slicer, &evict->slice);
}

/* What a tree of the party held is given back. */
static void on_released(void *ctx)
{
	struct evict *evict = ctx;

	if (evict->party)
		evict_run_kick(evict);
}

static void on_retry(evutil_socket_t fd, short what, void *evict)
{
	(void)fd;
	(void)what;
	evict_rehearse(evict);
	evict_run_kick(evict);
}

void evict_run_init(struct evict *evict)
{
	slice_init(&evict->slice, run_step);
	evict->retry = evtimer_new(evict->parts.base, on_retry, evict);
	if (!evict->retry)
		abort();
	catalog_watch(evict->parts.catalog, on_unheld, evict);
	nodes_watch(evict->parts.nodes, on_released, evict);
}

void evict_run_fini(struct evict *evict)
{
	event_free(evict->retry);
	candidates_fini(&evict->candidates, evict->queue);
	tree_walk_end(&evict->walk);
	list_remove(&evict->slice.link);
}
