/* SPDX-License-Identifier: Apache-2.0 */
/* Accounts of users: their share of the loop's time, of memory and descriptors, and what is done for them. */
#include "daemon/users.h"

#include <event2/event.h>
#include <fcntl.h>

#include "tests/unit/unit.h"

enum { MS = 1000000 };

static struct event_base *base;
static struct pool *pool;
static struct users users;
static struct user *one, *other;
static uint64_t now = (uint64_t)1000 * MS;

static void setup(void)
{
	const struct user_limits limits = { .connections = 2, .requests = 2, .fds = 2 };

	base = event_base_new();
	pool = pool_new(base, 2, "test");
	users_init(&users, &limits, pool);
	one = users_get(&users, 1);
	other = users_get(&users, 2);
}

static void teardown(void)
{
	user_put(one);
	if (other)
		user_put(other);
	ck_assert(list_is_empty(&users.all));
	pool_free(pool);
	event_base_free(base);
}

static void work_for(struct user *user, uint64_t ns)
{
	user_charge(user, now, now + ns);
	now += ns;
}

START_TEST(who_had_a_share_of_the_loops_time_must_wait)
{
	setup();
	work_for(one, USER_SHARE_NS / 2);
	ck_assert(!user_must_wait(one, now));
	work_for(one, USER_SHARE_NS / 2);
	ck_assert(user_must_wait(one, now));
	ck_assert(!user_must_wait(other, now));
	teardown();
}
END_TEST

START_TEST(but_not_for_long)
{
	setup();
	work_for(one, USER_SHARE_NS);
	now += USER_WINDOW_NS - USER_SHARE_NS - 1;
	ck_assert(user_must_wait(one, now));
	now++;
	ck_assert(!user_must_wait(one, now));
	work_for(one, USER_SHARE_NS - 1); /* what was before counts no more */
	ck_assert(!user_must_wait(one, now));
	work_for(one, 1);
	ck_assert(user_must_wait(one, now));
	teardown();
}
END_TEST

START_TEST(who_is_alone_waits_for_nobody)
{
	setup();
	work_for(one, USER_SHARE_NS);
	ck_assert(user_must_wait(one, now));
	user_put(TAKE(other));
	ck_assert(!user_must_wait(one, now));
	teardown();
}
END_TEST

START_TEST(what_comes_does_not_overtake_what_waits)
{
	struct turns turns;
	struct list conn;

	setup();
	turns_init(&turns);
	list_init(&conn);
	ck_assert(!user_must_wait(one, now));
	turns_wait(&turns, &one->conns, &conn);
	ck_assert(user_must_wait(one, now));
	ck_assert_ptr_eq(turns_next(&turns), &conn);
	ck_assert(!user_must_wait(one, now));
	teardown();
}
END_TEST

static unsigned n_relieved;

static void on_relieved(struct user *user)
{
	ck_assert_ptr_eq(user, one);
	ck_assert(user_has_room(one));
	n_relieved++;
}

START_TEST(who_is_full_has_room_again_when_half_is_given_back)
{
	setup();
	users.relieved = on_relieved;
	user_take_bytes(one, USER_BYTES_MAX - 1);
	ck_assert(user_has_room(one));
	user_take_bytes(one, 2);
	ck_assert(!user_has_room(one));
	ck_assert(user_has_room(other));
	user_give_bytes(one, USER_BYTES_MAX / 2);
	ck_assert(!user_has_room(one));
	ck_assert_uint_eq(n_relieved, 0);
	user_give_bytes(one, 1);
	ck_assert(user_has_room(one));
	ck_assert_uint_eq(n_relieved, 1);
	user_give_bytes(one, USER_BYTES_MAX / 2);
	ck_assert_uint_eq(n_relieved, 1);
	teardown();
}
END_TEST

START_TEST(who_takes_no_descriptors_is_promised_no_more)
{
	setup();
	users.relieved = on_relieved;
	user_promise_fd(one);
	ck_assert(user_has_room(one));
	user_promise_fd(one);
	user_promise_fd(one);
	ck_assert(!user_has_room(one));
	ck_assert(user_has_room(other));
	user_settle_fds(one, 1);
	ck_assert_uint_eq(n_relieved, 0);
	user_settle_fds(one, 2);
	ck_assert(user_has_room(one));
	ck_assert_uint_eq(n_relieved, 1);
	teardown();
}
END_TEST

static bool is_open(int fd)
{
	return fcntl(fd, F_GETFD) >= 0;
}

START_TEST(descriptors_are_closed_by_workers)
{
	int fds[2], numbers[2];

	setup();
	ck_assert_int_eq(pipe(fds), 0);
	memcpy(numbers, fds, sizeof(fds));
	user_close_fds(other, numbers, 2);
	user_put(TAKE(other)); /* the account is there until they are */
	while (pool_n_jobs(pool))
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert(!is_open(fds[0]) && !is_open(fds[1]));
	teardown();
}
END_TEST

UNIT_MAIN("users", who_had_a_share_of_the_loops_time_must_wait, but_not_for_long,
	  who_is_alone_waits_for_nobody, what_comes_does_not_overtake_what_waits,
	  who_is_full_has_room_again_when_half_is_given_back, who_takes_no_descriptors_is_promised_no_more,
	  descriptors_are_closed_by_workers)
