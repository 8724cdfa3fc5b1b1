/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Space: how much room the store may take, and who may have it.
 *
 *     used        what the catalog counts: allocated bytes of all blobs, both kinds, and of those that are
 * being unlinked overhead    allocated bytes of all else under STORE: folders, index, WAL, reserve, records
 *     reserved    promised to workers that are writing
 *
 * Whatever writes into the store reserves first, so that used + overhead + reserved never exceeds the cap
 * (max_size), and the disk keeps its floor of free bytes (min_free). A reservation is refused, never waited
 * for: the loop then has room made (evict.h) and tries again. It is kept until the loop counts what was
 * written.
 *
 * Above the high mark, 95 % of the cap, room is made in the background, down to the low mark, 90 %: so that
 * who writes seldom has to wait. The floor has the same marks, 5 and 10 % above it.
 *
 * Numbers only, behind a lock; any thread but where it says otherwise.
 */
#ifndef DIRCACHE_DAEMON_SPACE_H
#define DIRCACHE_DAEMON_SPACE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/err.h"

struct space;

struct space_limits {
	uint64_t max_size, min_free; /* bytes; 0: none */
};

enum { SPACE_NONE = 1 };

struct space *space_new(const struct space_limits *limits);
void space_free(struct space *space);
DEFINE_AUTO(space);

/* ---- who writes ---- */

/**
 * Have room promised. With it goes a little for what a new blob costs besides: a name in its folder, a row in
 * the index; an estimate, until the overhead is measured.
 *
 * Return: 0, or SPACE_NONE.
 */
int space_reserve(struct space *space, uint64_t bytes);

/* The same, but only as far as nothing need be evicted for it: below the high mark. */
int space_reserve_spare(struct space *space, uint64_t bytes);

/* Give a promise back: nothing was written, or what was is counted as used by now. */
void space_release(struct space *space, uint64_t bytes);

/* What a refused reservation was about. */
struct space_need {
	uint64_t bytes;
	bool disk_full; /* they were promised, and the disk had no room all the same */
};

/* The disk had no room (ENOSPC, EDQUOT), whatever was known of it: it has none until it is measured again. */
void space_disk_full(struct space *space);

/* ---- who makes room ---- */

/* Bytes that are in the way: what the cap forbids and what the disk lacks are seldom made good by the same
 * means. */
struct space_gap {
	uint64_t of_cap, of_disk;
};

/* How many bytes have to go before so many can be reserved. */
struct space_gap space_lacks(struct space *space, uint64_t bytes);

/* How many bytes could be reserved now; UINT64_MAX where there is no limit. */
uint64_t space_room(struct space *space);

/* How many bytes are to go in the background, to come down to the low marks; 0 at or below them. */
struct space_gap space_surplus(struct space *space);

static inline bool space_gap_is_closed(struct space_gap gap)
{
	return !gap.of_cap && !gap.of_disk;
}

struct space_levels {
	struct space_limits limits;
	uint64_t used, overhead, reserved;
	bool disk_known;
	bool disk_full;     /* it said so itself (space_disk_full()), since it was measured */
	uint64_t disk_free; /* when last measured */
};
struct space_levels space_levels(struct space *space);

/* Say why so many bytes find no room, when nothing more can be evicted. Return: -ENOSPC (ERR_NO_SPACE). */
int space_refuse(struct space *space, uint64_t bytes, struct err *err);

/* The low mark of a cap. */
uint64_t space_low_mark(uint64_t max_size);

/* ---- who measures: loop only ---- */

/* Be called, from within the functions below, whenever a level is above its high mark. */
void space_watch(struct space *space, void (*above)(void *ctx), void *ctx);

void space_set_used(struct space *space, uint64_t bytes);
void space_set_overhead(struct space *space, uint64_t bytes);
void space_set_disk(struct space *space, uint64_t free_bytes); /* what the daemon may have of it */

#endif
