/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/turns.h"

/* It has its turn behind the others, unless it waits for one already, or for nothing. */
static void queue_up(struct turns *turns, struct taker *taker)
{
	if (list_is_empty(&taker->link) && taker_waits(taker) && !taker->is_held)
		list_append(&turns->takers, &taker->link);
}

void turns_wait(struct turns *turns, struct taker *taker, struct list *item)
{
	list_append(&taker->items, item);
	queue_up(turns, taker);
}

void turns_leave(struct taker *taker, struct list *item)
{
	list_remove(item);
	if (!taker_waits(taker))
		list_remove(&taker->link);
}

struct list *turns_next(struct turns *turns)
{
	struct list *first = list_pop(&turns->takers), *item;
	struct taker *taker;

	if (!first)
		return NULL;
	taker = LIST_ENTRY(first, struct taker, link);
	item = list_pop(&taker->items);
	queue_up(turns, taker);
	return item;
}

void taker_hold(struct taker *taker)
{
	taker->is_held = true;
	list_remove(&taker->link);
}

void taker_release(struct turns *turns, struct taker *taker)
{
	taker->is_held = false;
	queue_up(turns, taker);
}
