/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/room.h"

bool room_is_exceeded(const struct room *room, uint64_t bytes)
{
	uint64_t cap = space_levels(room->space).limits.max_size;

	return cap && bytes > cap;
}

void room_ask(const struct room *room, const struct space_need *need, uint64_t expected,
	      struct room_waiter *waiter)
{
	struct err err = { 0 };

	list_init(&waiter->link);
	if (room_is_exceeded(room, need->bytes) || room_is_exceeded(room, expected) ||
	    (need->disk_full && waiter->disk_was_full)) {
		waiter->made(waiter, space_refuse(room->space, need->bytes, &err), &err);
		return;
	}
	waiter->disk_was_full = need->disk_full;
	room->make(room->ctx, need->bytes, waiter);
}

void room_leave(struct room_waiter *waiter)
{
	list_remove(&waiter->link);
}
