/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/room.h"

void room_ask(const struct room *room, const struct space_need *need, uint64_t expected,
	      struct room_waiter *waiter)
{
	uint64_t cap = space_levels(room->space).limits.max_size;
	struct err err = { 0 };

	list_init(&waiter->link);
	if (need->disk_full && waiter->disk_was_full) {
		waiter->made(waiter, space_refuse(room->space, need->bytes, &err), &err);
		return;
	}
	waiter->disk_was_full = need->disk_full;
	expected = expected > need->bytes ? expected : need->bytes;
	room->make(room->ctx, need->bytes, !cap || expected <= cap, waiter);
}

void room_leave(struct room_waiter *waiter)
{
	list_remove(&waiter->link);
}
