/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flights: obtaining one kind of a blob, once however many ask.
 *
 * Whoever misses a kind of a blob (a Directory's scan, a worker that met a missing, changed or used-up inode)
 * joins the flight for it. The first to join starts it: a worker looks at the disk once more and makes the
 * kind from what the store has. All who joined hear the same end; then the flight is gone, and the next who
 * asks starts anew. A flight for which there is no room has some made, and goes on. Joining and leaving are
 * free of I/O. Loop only.
 */
#ifndef DIRCACHE_DAEMON_FLIGHT_H
#define DIRCACHE_DAEMON_FLIGHT_H

#include "common/auto.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/counters.h"
#include "daemon/index.h"
#include "daemon/pool.h"
#include "daemon/room.h"
#include "daemon/writers.h"

struct flights;

struct flights_parts { /* all borrowed for good */
	struct pool *pool;
	struct writers *writers;
	const struct room *room;
	struct catalog *catalog;
	struct index *index;
	struct counters *counters;
};

struct flight_waiter {
	/*
	 * r: 0 (the kind is there), BLOB_MISSING (the store has no inode with these bytes), or a negative
	 * errno with err. Never called from within flight_join(). The waiter may be freed.
	 */
	void (*landed)(struct flight_waiter *waiter, int r, const struct err *err);
	struct list link; /* private */
};

struct flights *flights_new(const struct flights_parts *parts);
void flights_free(struct flights *flights); /* when none is under way */
DEFINE_AUTO(flights);

/**
 * Wait for a kind of a blob.
 *
 * @links_used_up  the inode there takes no further link: a fresh one must take its place
 */
void flight_join(struct flights *flights, const struct digest *digest, enum blob_kind kind,
		 bool links_used_up, struct flight_waiter *waiter);

/* Wait no longer. The flight goes on for the others, and to its end for the store. */
void flight_leave(struct flight_waiter *waiter);

size_t flights_n(const struct flights *flights); /* under way */

#endif
