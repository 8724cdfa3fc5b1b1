/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Turns: who is next, where the many that one waits with must not keep another's few waiting.
 *
 * What waits is an *item*, and each is some *taker's*: a user's, say. Takers take turns, and a turn is that
 * of the taker's oldest item. So one with a thousand items has the same turn as one with a single item, who
 * is next when each of the others had one.
 *
 *     a: 1 2 3        b: 4        c: 5 6        ->   1 4 5 2 6 3
 *
 * A taker may be held: its items wait without a turn until it is released. A taker is in one struct turns at
 * a time. Not locked.
 */
#ifndef DIRCACHE_DAEMON_TURNS_H
#define DIRCACHE_DAEMON_TURNS_H

#include <stdbool.h>

#include "common/list.h"

struct turns {
	struct list takers; /* that have items and are not held, the next first */
};

struct taker {
	struct list link, items;
	bool is_held;
};

static inline void turns_init(struct turns *turns)
{
	list_init(&turns->takers);
}

static inline void taker_init(struct taker *taker)
{
	list_init(&taker->link);
	list_init(&taker->items);
	taker->is_held = false;
}

/* Is it nobody's turn? */
static inline bool turns_are_over(const struct turns *turns)
{
	return list_is_empty(&turns->takers);
}

/* Does the taker wait with anything? */
static inline bool taker_waits(const struct taker *taker)
{
	return !list_is_empty(&taker->items);
}

/* Wait with an item, behind the taker's others. */
void turns_wait(struct turns *turns, struct taker *taker, struct list *item);

/* Wait with it no more. Harmless for one that does not wait. */
void turns_leave(struct taker *taker, struct list *item);

/* The item whose turn it is, which waits no more; or NULL. */
struct list *turns_next(struct turns *turns);

/* No more turns for the items of this taker, until they have turns again. */
void taker_hold(struct taker *taker);
void taker_release(struct turns *turns, struct taker *taker);

#endif
