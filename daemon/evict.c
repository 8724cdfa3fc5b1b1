/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict.h"

#include <errno.h>
#include <event2/event.h>

#include "common/alloc.h"
#include "common/log.h"
#include "common/size.h"
#include "daemon/evict_internal.h"

enum {
	IDLE_TICKS = 10, /* without a change the disk is looked at so seldom */
};

static const struct timeval tick_interval = { .tv_sec = 1 };
static const uint64_t stuck_ns = UINT64_C(10) * 1000000000;

static uint64_t excess(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static uint64_t wider(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* ---- who waits for room ---- */

static void tell(struct room_waiter *waiter, int r, const struct err *err)
{
	list_remove(&waiter->link);
	waiter->made(waiter, r, err);
}

static void refuse(struct evict *evict, struct room_waiter *waiter)
{
	struct err err = { 0 };

	tell(waiter, space_refuse(evict->parts.space, waiter->need, &err), &err);
}

/* The run has measured: would all that is free and all that is here, gone to the last blob, be too little? */
static bool can_never_fit(const struct evict *evict, const struct room_waiter *waiter)
{
	struct space_levels levels = space_levels(evict->parts.space);

	return evict->running && evict->measured && levels.disk_known && !levels.disk_full &&
	       waiter->need > excess(levels.used + levels.disk_free, levels.limits.min_free);
}

/*
 * Tell those who have room now, the first come first. Room that is told of is not reserved yet, so it counts
 * as taken for those behind. Who can never have room is told so before anything goes for him. Return: what
 * the first of the others lacks.
 */
static struct space_gap tell_waiters(struct evict *evict)
{
	struct space_gap gap = { 0 };
	uint64_t told = 0;

	while (!list_is_empty(&evict->waiters)) {
		struct room_waiter *waiter = LIST_ENTRY(evict->waiters.next, struct room_waiter, link);

		gap = space_lacks(evict->parts.space, told + waiter->need);
		if (space_gap_is_closed(gap)) {
			told += waiter->need;
			tell(waiter, 0, NULL);
		} else if (can_never_fit(evict, waiter)) {
			refuse(evict, waiter);
		} else {
			return gap;
		}
	}
	return (struct space_gap){ 0 };
}

void evict_make_room(struct evict *evict, uint64_t need, struct room_waiter *waiter)
{
	waiter->need = need;
	list_append(&evict->waiters, &waiter->link);
	evict_run_kick(evict);
}

/* ---- gc ---- */

struct evict_gc *evict_first_gc(const struct evict *evict)
{
	return list_is_empty(&evict->gcs) ? NULL : LIST_ENTRY(evict->gcs.next, struct evict_gc, link);
}

void evict_list_tree(struct evict_gc *gc, const struct digest *digest, uint64_t used, uint64_t bytes)
{
	gc->n_trees++;
	if (gc->n_listed == gc->max_trees)
		return;
	gc->trees = xgrow(gc->trees, gc->n_listed, &gc->capacity, sizeof(*gc->trees));
	gc->trees[gc->n_listed++] = (struct evict_tree){ *digest, used, bytes };
}

static void end_gc(struct evict_gc *gc)
{
	list_remove(&gc->link);
	gc->done(gc);
}

/* The store was measured: now it is known how much is to go. */
static void on_gc_measured(struct usage_waiter *waiter, int r, const struct err *err)
{
	struct evict_gc *gc = CONTAINER_OF(waiter, struct evict_gc, measuring);
	struct evict *evict = gc->evict;
	uint64_t max_size = space_levels(evict->parts.space).limits.max_size;

	if (r < 0)
		log_warning("gc: %s", err->text); /* the last measurement will do */
	gc->before = evict_allocated(evict);
	if (gc->has_to)
		gc->goal = excess(gc->before, gc->to);
	else if (max_size)
		gc->goal = excess(gc->before, space_low_mark(max_size));
	else
		gc->unheld_only = true;
	list_append(gc->dry_run ? &evict->rehearsals : &evict->gcs, &gc->link);
	if (gc->dry_run)
		evict_rehearse(evict);
	else
		evict_run_kick(evict);
}

void evict_gc(struct evict *evict, struct evict_gc *gc)
{
	gc->evict = evict;
	list_init(&gc->link);
	gc->measuring.measured = on_gc_measured;
	usage_measure(evict->parts.usage, &gc->measuring);
}

void evict_gc_cancel(struct evict_gc *gc)
{
	gc->goal = 0;
	gc->has_to = true;
	gc->unheld_only = false;
	gc->to = UINT64_MAX;       /* if it is not measured yet */
	evict_run_kick(gc->evict); /* a rehearsal finds out by itself */
}

/* What the first gc still wants to go; those that want nothing more are ended. */
static uint64_t gc_wants(struct evict *evict)
{
	uint64_t leaving = evict->leaving;
	struct evict_gc *gc;

	while ((gc = evict_first_gc(evict))) {
		if (gc->unheld_only && !evict->stopping)
			return UINT64_MAX;
		if (gc->goal > gc->bytes + leaving && !evict->stopping)
			return gc->goal - gc->bytes - leaving;
		if (leaving || evict_party_is_leaving(evict))
			return 0; /* what is on its way out is to be in its sums */
		end_gc(gc);
	}
	return 0;
}

/* ---- goals ---- */

struct evict_goal evict_goal(struct evict *evict)
{
	uint64_t leaving = evict->leaving;
	struct space_gap gap = tell_waiters(evict), surplus = { 0 };
	uint64_t of_gc = gc_wants(evict), of_cap, of_disk;

	if (evict->in_background)
		surplus = space_surplus(evict->parts.space);
	of_cap = excess(wider(gap.of_cap, surplus.of_cap), leaving);
	of_disk = excess(wider(gap.of_disk, surplus.of_disk), leaving + evict->freed);
	if (of_gc && of_gc != UINT64_MAX)
		of_cap = wider(of_cap, of_gc);
	if (of_cap)
		return (struct evict_goal){ .bytes = of_cap, .trees = true };
	if (of_gc)
		return (struct evict_goal){ .bytes = of_gc };
	return (struct evict_goal){ .bytes = of_disk, .trees = true, .must_free = true };
}

static void note_stuck(struct evict *evict)
{
	struct space_levels levels = space_levels(evict->parts.space);
	struct space_gap surplus = space_surplus(evict->parts.space);

	evict->in_background = false;
	evict->stuck_until_ns = slice_now_ns() + stuck_ns;
	if (evict->is_stuck || space_gap_is_closed(surplus)) /* closed: a request wanted more than could go */
		return;
	evict->is_stuck = true;
	if (surplus.of_cap)
		log_warning("the store takes %s of the %s that it may (max-size), and nothing more can be "
			    "evicted: %zu cached trees are in use, leased or tagged",
			    SIZE_TEXT(levels.used + levels.overhead), SIZE_TEXT(levels.limits.max_size),
			    trees_n(evict->parts.trees));
	else
		log_warning("%s of the disk are free, less than is wanted (min-free, %s), and eviction would "
			    "free none: what could go has links elsewhere",
			    SIZE_TEXT(levels.disk_free), SIZE_TEXT(levels.limits.min_free));
}

void evict_give_up(struct evict *evict, const struct evict_goal *goal)
{
	struct evict_gc *gc = evict_first_gc(evict);
	struct list lacking, *l;

	if (gc && !goal->must_free)
		end_gc(gc);
	if (!goal->trees)
		return;
	list_init(&lacking);
	while ((l = list_pop(&evict->waiters)))
		list_append(&lacking, l);
	while ((l = list_pop(&lacking))) {
		struct room_waiter *waiter = LIST_ENTRY(l, struct room_waiter, link);

		if (space_gap_is_closed(space_lacks(evict->parts.space, waiter->need)))
			tell(waiter, 0, NULL);
		else
			refuse(evict, waiter);
	}
	if (evict->in_background)
		note_stuck(evict);
}

/* ---- levels ---- */

uint64_t evict_allocated(const struct evict *evict)
{
	struct catalog_totals totals = catalog_totals(evict->parts.catalog);

	return totals.allocated + totals.leaving + usage_levels(evict->parts.usage).overhead;
}

static void on_above(void *ctx)
{
	struct evict *evict = ctx;

	if (evict->stopping || slice_now_ns() < evict->stuck_until_ns)
		return;
	evict->in_background = true;
	evict_run_kick(evict);
}

static void on_measured(struct usage_waiter *waiter, int r, const struct err *err)
{
	struct evict *evict = CONTAINER_OF(waiter, struct evict, measuring);
	struct catalog_totals totals = catalog_totals(evict->parts.catalog);
	struct usage_levels levels = usage_levels(evict->parts.usage);

	if (r < 0) {
		log_warning("%s", err->text);
	} else {
		space_set_overhead(evict->parts.space, levels.overhead);
		space_set_disk(evict->parts.space, levels.disk_free);
	}
	space_set_used(evict->parts.space, totals.allocated + totals.leaving);
	evict->freed = 0;
	evict->measured = true;
	if (space_gap_is_closed(space_surplus(evict->parts.space)))
		evict->is_stuck = false;
	evict_run_kick(evict);
}

void evict_measure(struct evict *evict)
{
	if (!list_is_empty(&evict->measuring.link))
		return;
	evict->allocated_then = catalog_totals(evict->parts.catalog).allocated;
	evict->commits_then = index_n_commits(evict->parts.index);
	usage_measure(evict->parts.usage, &evict->measuring);
}

/* Has anything been written since the last measurement? If not, others may fill the disk all the same. */
static bool may_have_changed(struct evict *evict)
{
	return evict->allocated_then != catalog_totals(evict->parts.catalog).allocated ||
	       evict->commits_then != index_n_commits(evict->parts.index) ||
	       ++evict->idle_ticks >= IDLE_TICKS;
}

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	struct evict *evict = arg;

	(void)fd;
	(void)what;
	if (!may_have_changed(evict))
		return;
	evict->idle_ticks = 0;
	evict_measure(evict);
}

/* ---- the whole ---- */

struct evict *evict_new(const struct evict_parts *parts)
{
	struct evict *evict = xcalloc(1, sizeof(*evict));

	evict->parts = *parts;
	evict->queue = pool_queue_new(parts->pool);
	list_init(&evict->waiters);
	list_init(&evict->gcs);
	list_init(&evict->rehearsals);
	evict->measuring.measured = on_measured;
	list_init(&evict->measuring.link);
	evict->tick = event_new(parts->base, -1, EV_PERSIST, on_tick, evict);
	if (!evict->tick)
		abort();
	evict_run_init(evict);
	evict_batch_init(evict);
	space_watch(parts->space, on_above, evict);
	return evict;
}

void evict_free(struct evict *evict)
{
	if (!evict)
		return;
	usage_leave(&evict->measuring);
	event_free(evict->tick);
	evict_run_fini(evict);
	pool_queue_free(evict->queue);
	free(evict);
}

void evict_start(struct evict *evict, bool was_clean)
{
	struct space_limits limits = space_levels(evict->parts.space).limits;

	evict->started = true;
	evict->is_settled = was_clean;
	if (!was_clean)
		evict_pin_tags(evict);
	evict_measure(evict);
	if (limits.max_size || limits.min_free)
		(void)event_add(evict->tick, &tick_interval);
	evict_run_kick(evict);
}

void evict_stop(struct evict *evict)
{
	evict->stopping = true;
	evict->in_background = false;
	(void)event_del(evict->tick);
	evict_run_kick(evict);
}

bool evict_is_settled(const struct evict *evict)
{
	return evict->is_settled;
}

bool evict_has_rows(const struct evict *evict)
{
	return !list_is_empty(&evict->settling);
}

bool evict_is_busy(const struct evict *evict)
{
	return evict->running || evict->in_background || evict->n_batches || evict->pins ||
	       !list_is_empty(&evict->rehearsals) || !list_is_empty(&evict->waiters) ||
	       !list_is_empty(&evict->gcs) || usage_is_measuring(evict->parts.usage);
}
