/* SPDX-License-Identifier: Apache-2.0 */
/* Turns: the order of what takers wait with. */
#include "daemon/turns.h"

#include "tests/unit/unit.h"

struct item {
	struct list link; /* first */
	int name;
};

static struct turns turns;
static struct taker a, b, c;
static struct item items[10];

static void setup(void)
{
	turns_init(&turns);
	taker_init(&a);
	taker_init(&b);
	taker_init(&c);
	for (int i = 0; i < 10; i++) {
		items[i].name = i;
		list_init(&items[i].link);
	}
}

static void wait_with(struct taker *taker, int name)
{
	turns_wait(&turns, taker, &items[name].link);
}

/* The name of the next item; -1 when there is none. */
static int next(void)
{
	struct item *item = (struct item *)turns_next(&turns);

	ck_assert(!item || list_is_empty(&item->link));
	return item ? item->name : -1;
}

static void order_is(const char *names)
{
	for (; *names; names++)
		ck_assert_int_eq(next(), *names - '0');
	ck_assert(turns_are_over(&turns));
	ck_assert_int_eq(next(), -1);
}

START_TEST(who_has_many_has_the_same_turn_as_who_has_one)
{
	setup();
	wait_with(&a, 1);
	wait_with(&a, 2);
	wait_with(&a, 3);
	wait_with(&b, 4);
	wait_with(&c, 5);
	wait_with(&c, 6);
	order_is("145263");
}
END_TEST

START_TEST(who_is_alone_has_all_turns_in_order)
{
	setup();
	for (int i = 0; i < 10; i++)
		wait_with(&a, i);
	order_is("0123456789");
}
END_TEST

START_TEST(who_comes_is_behind_those_who_wait_and_before_their_second)
{
	setup();
	wait_with(&a, 1);
	wait_with(&a, 2);
	wait_with(&a, 3);
	ck_assert_int_eq(next(), 1);
	wait_with(&b, 4);
	order_is("243");
}
END_TEST

START_TEST(who_leaves_with_his_last_item_has_no_turn)
{
	setup();
	wait_with(&a, 1);
	wait_with(&b, 2);
	wait_with(&b, 3);
	turns_leave(&a, &items[1].link);
	turns_leave(&a, &items[1].link);
	ck_assert(!taker_waits(&a));
	turns_leave(&b, &items[2].link);
	order_is("3");
	wait_with(&a, 1);
	order_is("1");
}
END_TEST

START_TEST(who_is_held_has_no_turn_until_released)
{
	setup();
	wait_with(&a, 1);
	wait_with(&a, 2);
	wait_with(&b, 3);
	taker_hold(&a);
	wait_with(&a, 4);
	order_is("3");
	ck_assert(taker_waits(&a));
	taker_release(&turns, &a);
	taker_release(&turns, &a);
	order_is("124");
	taker_hold(&b);
	taker_release(&turns, &b);
	ck_assert(turns_are_over(&turns));
}
END_TEST

UNIT_MAIN("turns", who_has_many_has_the_same_turn_as_who_has_one, who_is_alone_has_all_turns_in_order,
	  who_comes_is_behind_those_who_wait_and_before_their_second,
	  who_leaves_with_his_last_item_has_no_turn, who_is_held_has_no_turn_until_released)
