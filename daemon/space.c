/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/space.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "common/size.h"

enum {
	ALL_PERCENT = 100, /* of the cap */
	HIGH_PERCENT = 95,
	LOW_PERCENT = 90,
	/*
	 * A block more for a folder, and what the row takes of index and WAL. Seldom as much, but a cap that
	 * is small is passed by what is not foreseen.
	 */
	BLOB_OVERHEAD = 2 * 4096,
};

struct space {
	pthread_mutex_t lock;
	struct space_levels levels;
	uint64_t unmeasured; /* overhead that came since it was measured: an estimate */

	/* What may still be written before the disk is at its floor, as far as is known: less with each
	 * reservation, and counted anew when the disk is measured. */
	int64_t disk_room;

	void (*above)(void *ctx);
	void *ctx;
};

struct space *space_new(const struct space_limits *limits)
{
	struct space *space = xcalloc(1, sizeof(*space));

	(void)pthread_mutex_init(&space->lock, NULL);
	space->levels.limits = *limits;
	space->disk_room = INT64_MAX;
	return space;
}

void space_free(struct space *space)
{
	if (!space)
		return;
	assert(space->levels.reserved == 0);
	(void)pthread_mutex_destroy(&space->lock);
	free(space);
}

static void lock(struct space *space)
{
	int r = pthread_mutex_lock(&space->lock);

	assert(r == 0);
}

static void unlock(struct space *space)
{
	int r = pthread_mutex_unlock(&space->lock);

	assert(r == 0);
}

static uint64_t add(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return __builtin_add_overflow(a, b, &sum) ? UINT64_MAX : sum;
}

static uint64_t excess(uint64_t a, uint64_t b)
{
	return a > b ? a - b : 0;
}

static int64_t difference(uint64_t a, uint64_t b)
{
	uint64_t size = a > b ? a - b : b - a;
	int64_t bounded = size < INT64_MAX ? (int64_t)size : INT64_MAX;

	return a > b ? bounded : -bounded;
}

static uint64_t percent(uint64_t n, unsigned percent)
{
	return n / 100 * percent + n % 100 * percent / 100;
}

static uint64_t taken(const struct space *space)
{
	return space->levels.used + space->levels.overhead + space->unmeasured;
}

/* What is in the way of so many more bytes, up to a mark: this percentage of the cap, and as much over the
 * floor. */
static struct space_gap lacks(const struct space *space, uint64_t bytes, unsigned mark)
{
	const struct space_levels *levels = &space->levels;
	uint64_t max_size = percent(levels->limits.max_size, mark);
	uint64_t over_floor = percent(levels->limits.min_free, 100 - mark);
	struct space_gap gap = { 0 };

	if (levels->limits.max_size)
		gap.of_cap = excess(add(taken(space) + levels->reserved, bytes), max_size);
	if (space->disk_room < 0)
		gap.of_disk = add((uint64_t)-space->disk_room, add(bytes, over_floor));
	else if (levels->disk_known)
		gap.of_disk = excess(add(bytes, over_floor), (uint64_t)space->disk_room);
	return gap;
}

/* ---- who writes ---- */

static int reserve(struct space *space, uint64_t bytes, unsigned mark)
{
	bool fits;

	lock(space);
	fits = space_gap_is_closed(lacks(space, add(bytes, BLOB_OVERHEAD), mark));
	/* Without limits a file may say of itself what it likes, and so may another. */
	fits = fits && bytes <= UINT64_MAX - space->levels.reserved;
	if (fits) {
		space->levels.reserved += bytes;
		space->unmeasured += BLOB_OVERHEAD;
		if (space->levels.disk_known)
			space->disk_room -= (int64_t)(bytes + BLOB_OVERHEAD);
	}
	unlock(space);
	return fits ? 0 : SPACE_NONE;
}

int space_reserve(struct space *space, uint64_t bytes)
{
	return reserve(space, bytes, ALL_PERCENT);
}

int space_reserve_spare(struct space *space, uint64_t bytes)
{
	return reserve(space, bytes, HIGH_PERCENT);
}

void space_release(struct space *space, uint64_t bytes)
{
	lock(space);
	assert(space->levels.reserved >= bytes);
	space->levels.reserved -= bytes;
	unlock(space);
}

void space_disk_full(struct space *space)
{
	lock(space);
	space->levels.disk_known = space->levels.disk_full = true;
	space->levels.disk_free = 0;
	if (space->disk_room > 0)
		space->disk_room = 0;
	unlock(space);
}

/* ---- who makes room ---- */

struct space_gap space_lacks(struct space *space, uint64_t bytes)
{
	struct space_gap gap;

	lock(space);
	gap = lacks(space, add(bytes, BLOB_OVERHEAD), ALL_PERCENT);
	unlock(space);
	return gap;
}

uint64_t space_room(struct space *space)
{
	const struct space_levels *levels = &space->levels;
	uint64_t room = UINT64_MAX, on_disk;

	lock(space);
	if (levels->limits.max_size)
		room = excess(levels->limits.max_size, taken(space) + levels->reserved);
	if (levels->disk_known) {
		on_disk = space->disk_room > 0 ? (uint64_t)space->disk_room : 0;
		room = on_disk < room ? on_disk : room;
	}
	unlock(space);
	return room;
}

/* What is above the marks that are these percentages: of the cap, and as much over the floor. */
static struct space_gap above_mark(const struct space *space, unsigned mark)
{
	const struct space_limits *limits = &space->levels.limits;
	uint64_t floor = add(limits->min_free, percent(limits->min_free, 100 - mark));
	struct space_gap gap = { 0 };

	if (limits->max_size)
		gap.of_cap = excess(taken(space), percent(limits->max_size, mark));
	if (limits->min_free && space->levels.disk_known)
		gap.of_disk = excess(floor, space->levels.disk_free);
	return gap;
}

struct space_gap space_surplus(struct space *space)
{
	struct space_gap gap;

	lock(space);
	gap = above_mark(space, LOW_PERCENT);
	unlock(space);
	return gap;
}

uint64_t space_low_mark(uint64_t max_size)
{
	return percent(max_size, LOW_PERCENT);
}

struct space_levels space_levels(struct space *space)
{
	struct space_levels levels;

	lock(space);
	levels = space->levels;
	levels.overhead += space->unmeasured;
	unlock(space);
	return levels;
}

int space_refuse(struct space *space, uint64_t bytes, struct err *err)
{
	struct space_levels levels = space_levels(space);
	uint64_t cap = levels.limits.max_size, in_use = levels.used + levels.overhead + levels.reserved;
	bool has_disk = !levels.disk_full && levels.disk_free >= add(levels.limits.min_free, bytes);

	if (cap && (add(in_use, bytes) > cap || has_disk)) /* a part may fit of what does not as a whole */
		return err_set(
			err, ERR_NO_SPACE,
			"%s more do not fit: of the %s that the cache may have (--max-size) %s are in use, "
			"and nothing can be evicted for it",
			SIZE_TEXT(bytes), SIZE_TEXT(cap), SIZE_TEXT(in_use));
	if (levels.limits.min_free && !levels.disk_full)
		return err_set(err, ERR_NO_SPACE,
			       "%s more do not fit: the disk has %s free, of which %s are to stay so "
			       "(--min-free), and nothing can be evicted",
			       SIZE_TEXT(bytes), SIZE_TEXT(levels.disk_free),
			       SIZE_TEXT(levels.limits.min_free));
	if (levels.disk_full)
		return err_set(err, ERR_NO_SPACE, "%s more do not fit: the disk is full", SIZE_TEXT(bytes));
	return err_set(err, ERR_NO_SPACE,
		       "%s more do not fit: the disk has %s free, and nothing can be evicted",
		       SIZE_TEXT(bytes), SIZE_TEXT(levels.disk_free));
}

/* ---- who measures ---- */

void space_watch(struct space *space, void (*above)(void *ctx), void *ctx)
{
	space->above = above;
	space->ctx = ctx;
}

/* The levels are locked, and are not when this returns: above() may look at them. */
static void unlock_and_tell(struct space *space)
{
	bool is_above = !space_gap_is_closed(above_mark(space, HIGH_PERCENT));

	unlock(space);
	if (is_above && space->above)
		space->above(space->ctx);
}

void space_set_used(struct space *space, uint64_t bytes)
{
	lock(space);
	space->levels.used = bytes;
	unlock_and_tell(space);
}

void space_set_overhead(struct space *space, uint64_t bytes)
{
	lock(space);
	space->levels.overhead = bytes;
	space->unmeasured = 0;
	unlock_and_tell(space);
}

void space_set_disk(struct space *space, uint64_t free_bytes)
{
	uint64_t kept;

	lock(space);
	/* Some of what is reserved is written already and counted twice then, until the next time. */
	kept = add(space->levels.limits.min_free, space->levels.reserved);
	space->levels.disk_known = true;
	space->levels.disk_full = false;
	space->levels.disk_free = free_bytes;
	space->disk_room = difference(free_bytes, kept);
	unlock_and_tell(space);
}
