/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room: what is asked for on the loop when a reservation was refused (space.h). It is made by eviction, which
 * stands above most of those who ask, so it is handed down to them as this.
 *
 * What can never fit evicts nothing: it gets no room at all. A disk that is full although there was said to
 * be room is tried once more after something was evicted, and no oftener.
 */
#ifndef DIRCACHE_DAEMON_ROOM_H
#define DIRCACHE_DAEMON_ROOM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/list.h"
#include "daemon/space.h"

struct room_waiter { /* zero before it is used first */
	/*
	 * r: 0, try again; or -ENOSPC with err (ERR_NO_SPACE). The waiter may be freed.
	 */
	void (*made)(struct room_waiter *waiter, int r, const struct err *err);

	bool disk_was_full; /* the owner clears it when it gets on */

	/* Private to who makes it. */
	uint64_t need;
	struct list link;
};

struct room {
	struct space *space;                                                /* borrowed */
	void (*make)(void *ctx, uint64_t need, struct room_waiter *waiter); /* later calls waiter->made() */
	void *ctx;
};

/* Can so many bytes never be here together? */
bool room_is_exceeded(const struct room *room, uint64_t bytes);

/**
 * Ask for room after a reservation was refused. waiter->made() is called, perhaps from within.
 *
 * @expected  bytes that this is a part of, and that are to fit together; 0 if that is not known
 */
void room_ask(const struct room *room, const struct space_need *need, uint64_t expected,
	      struct room_waiter *waiter);

/* Wait no longer. */
void room_leave(struct room_waiter *waiter);

#endif
