/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include <event2/event.h>

#include "common/alloc.h"
#include "common/log.h"
#include "common/size.h"

enum { STALE_A_STEP = 64 };

static const struct timeval retry_interval = { .tv_usec = 1000 };

/* ---- a tree goes ---- */

static bool skips(void *ctx, const struct digest *digest)
{
	const struct evict *evict = ctx;

	return tags_pin(evict->parts.tags, digest) || map_find(&evict->passed, digest);
}

void evict_pass_over(struct evict *evict, const struct digest *digest)
{
	struct digest *passed = xmalloc(sizeof(*passed));

	*passed = *digest;
	map_add(&evict->passed, passed);
}

static void forget_passed(struct evict *evict)
{
	for (size_t i = 0; i < map_end(&evict->passed); i++)
		free(map_slot(&evict->passed, i));
	map_fini(&evict->passed);
	map_init(&evict->passed);
}

/* Its row is gone; its nodes give back their holds from now on. */
static void on_tree_evicted(void *ctx, int r, const struct err *err)
{
	struct evict *evict = ctx;

	if (r < 0) {
		log_warning("evicting tree %s: %s", DIGEST_TEXT(&evict->victim.digest), err->text);
		evict_pass_over(evict, &evict->victim.digest);
	}
	evict->tree_state = r < 0 ? TREE_STAYS : TREE_RELEASES;
	evict_run_kick(evict);
}

static void take_tree(struct evict *evict, const struct tree_victim *victim)
{
	evict_batch_send(evict);
	evict->victim = *victim;
	evict->released = 0;
	evict->tree_state = TREE_LEAVES;
	trees_evict(evict->parts.trees, &evict->victim.digest, on_tree_evicted, evict);
}

/* All that it held is given back. */
static void end_tree(struct evict *evict)
{
	struct evict_gc *gc = evict_first_gc(evict);

	evict->sums.n_trees++;
	evict->parts.counters->evicted_trees++;
	if (gc)
		evict_list_tree(gc, &evict->victim.digest, evict->victim.used, evict->released);
}

static void on_unheld(void *ctx, const struct catalog_entry *entry)
{
	struct evict *evict = ctx;

	if (!evict->running)
		return;
	candidates_add(&evict->candidates, &entry->digest, entry->used);
	if (evict->tree_state == TREE_RELEASES || evict->tree_state == TREE_LEAVES)
		evict->released += catalog_allocated(entry);
}

/* ---- choosing ---- */

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
	evict->walked = true;
	evict->n_gone_then = n_gone;
	return true;
}

static bool choose_tree(struct evict *evict, const struct tree_victim *victim, bool must_free)
{
	if (must_free && !digest_equal(&evict->probed, &victim->digest))
		evict_probe_start(evict, victim);
	else
		take_tree(evict, victim);
	return evict->probe;
}

/*
 * The least recently used tree that may go, if it is older than a time of use. What was found is remembered:
 * no tree before it may go, so none is looked for on behalf of each blob that is older, however many stay.
 */
static bool oldest_tree(struct evict *evict, uint64_t than, struct tree_victim *victim)
{
	bool found;

	if (evict->oldest_used >= than)
		return false;
	found = trees_oldest(evict->parts.trees, skips, evict, victim);
	evict->oldest_used = found ? victim->used : UINT64_MAX - 1; /* without a blob it is looked again */
	return found && victim->used < than;
}

/* The least recently used of all goes. Return: is more to be done now? */
static bool choose(struct evict *evict, const struct evict_goal *goal)
{
	const struct candidate *blob;
	struct tree_victim victim;

	if (drop_stale(evict))
		return true;
	blob = candidates_first(&evict->candidates);
	if (goal->trees && oldest_tree(evict, candidates_bound(&evict->candidates), &victim))
		return choose_tree(evict, &victim, goal->must_free);
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
	evict->oldest_used = 0;
	evict->began_ns = slice_now_ns();
	evict->sums = (struct evict_sums){ 0 };
	(void)walk_again(evict);
}

static void end(struct evict *evict)
{
	const struct evict_sums *sums = &evict->sums;

	evict->running = evict->walked = false;
	evict->in_background = false;
	candidates_fini(&evict->candidates);
	forget_passed(evict);
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

/* Is the tree that goes still on its way? */
static bool tree_is_leaving(struct evict *evict)
{
	switch (evict->tree_state) {
	case TREE_NONE:
		return false;
	case TREE_LEAVES:
		return true;
	case TREE_RELEASES:
		if (nodes_releasing(evict->parts.nodes)) {
			evict_retry_soon(evict);
			return true;
		}
		end_tree(evict);
		break;
	case TREE_STAYS:
		break;
	}
	evict->tree_state = TREE_NONE;
	return false;
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

	if (!evict->started || evict->pins)
		return false;
	if (evict->probe)
		return evict_probe_step(evict);
	if (tree_is_leaving(evict))
		return false;
	goal = evict_goal(evict);
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
	map_init(&evict->passed);
	evict->retry = evtimer_new(evict->parts.base, on_retry, evict);
	if (!evict->retry)
		abort();
	catalog_watch(evict->parts.catalog, on_unheld, evict);
}

void evict_run_fini(struct evict *evict)
{
	event_free(evict->retry);
	candidates_fini(&evict->candidates);
	forget_passed(evict);
	map_fini(&evict->passed);
	list_remove(&evict->slice.link);
}
