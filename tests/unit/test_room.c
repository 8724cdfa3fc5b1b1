/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/room.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

enum { M = 1 << 20 };

/* What who makes room was asked for, and what who waits was told. */
static unsigned n_asked, n_told;
static int told;
static struct err why;

static void make(void *ctx, uint64_t need, struct room_waiter *waiter)
{
	(void)ctx;
	(void)need;
	(void)waiter;
	n_asked++;
}

static void on_made(struct room_waiter *waiter, int r, const struct err *err)
{
	(void)waiter;
	n_told++;
	told = r;
	why = *err;
}

static struct room room = { .make = make };

static void start(uint64_t max_size)
{
	room.space = space_new(&(struct space_limits){ .max_size = max_size });
}

static void ask(uint64_t bytes, bool disk_full, uint64_t expected, struct room_waiter *waiter)
{
	waiter->made = on_made;
	room_ask(&room, &(struct space_need){ .bytes = bytes, .disk_full = disk_full }, expected, waiter);
}

START_TEST(for_what_can_never_fit_no_room_is_made)
{
	static const struct {
		uint64_t bytes, expected;
		bool can_fit;
	} cases[] = {
		{ M, 0, true },      { 10 * M, 0, true },  { 11 * M, 0, false },
		{ M, 10 * M, true }, { M, 11 * M, false },
	};
	unsigned n_can = 0;

	start(10 * M);
	for (unsigned i = 0; i < N_ELEMENTS(cases); i++) {
		struct room_waiter waiter = { 0 };

		ask(cases[i].bytes, false, cases[i].expected, &waiter);
		n_can += cases[i].can_fit;
		ck_assert_msg(n_asked == n_can && n_told == i + 1 - n_can, "case %u", i);
		ck_assert(cases[i].can_fit || told == -ENOSPC);
	}
	space_free(room.space);
}
END_TEST

START_TEST(a_disk_that_is_full_in_spite_of_all_is_tried_once_more_and_no_oftener)
{
	struct room_waiter waiter = { 0 };

	start(0);
	space_disk_full(room.space);
	ask(M, true, 0, &waiter);
	ck_assert_uint_eq(n_asked, 1);
	ask(M, true, 0, &waiter);
	ck_assert_uint_eq(n_asked, 1);
	ck_assert_uint_eq(n_told, 1);
	ck_assert_int_eq(told, -ENOSPC);
	unit_ck_err(&why, ERR_NO_SPACE, "the disk is full");

	waiter.disk_was_full = false; /* it got on meanwhile */
	ask(M, true, 0, &waiter);
	ck_assert_uint_eq(n_asked, 2);
	ask(M, false, 0, &waiter); /* others were faster */
	ask(M, true, 0, &waiter);
	ck_assert_uint_eq(n_asked, 4);
	space_free(room.space);
}
END_TEST

UNIT_MAIN("room", for_what_can_never_fit_no_room_is_made,
	  a_disk_that_is_full_in_spite_of_all_is_tried_once_more_and_no_oftener)
