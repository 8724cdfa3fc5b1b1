/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/crew.h"

#include <event2/event.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/unit/unit.h"

static struct event_base *base;
static struct pool *pool;
static struct pool_queue *queue;

/* A piece of work that makes `fan` more of the next lower level, and stalls `stalls` times before it ends. */
struct piece {
	struct crew_item item; /* first */
	unsigned level, fan, stalls;
};

static struct crew crew;
static atomic_uint n_worked, n_finished, n_at_work, most_at_work;
static unsigned n_done, n_stalled;
static long spin_us;
static bool slow_to_resume, is_company_awaited;
static struct piece *held[4096];
static unsigned n_held;

static struct piece *piece_new(unsigned level, unsigned fan, unsigned stalls)
{
	struct piece *piece = xcalloc(1, sizeof(*piece));

	*piece = (struct piece){ .item.weight = CREW_WEIGHT, .level = level, .fan = fan, .stalls = stalls };
	return piece;
}

static void spin(long us)
{
	struct timespec from, now;

	(void)clock_gettime(CLOCK_MONOTONIC, &from);
	do
		(void)clock_gettime(CLOCK_MONOTONIC, &now);
	while ((now.tv_sec - from.tv_sec) * 1000000 + (now.tv_nsec - from.tv_nsec) / 1000 < us);
}

static void note_most(unsigned n)
{
	unsigned most = atomic_load(&most_at_work);

	while (n > most && !atomic_compare_exchange_weak(&most_at_work, &most, n))
		;
}

static void work(struct crew *c, struct crew_item *item)
{
	struct piece *piece = (struct piece *)item;

	note_most(atomic_fetch_add(&n_at_work, 1) + 1);
	while (is_company_awaited && piece->level < 3 && atomic_load(&most_at_work) < 2)
		(void)usleep(100);
	spin(spin_us);
	atomic_fetch_sub(&n_at_work, 1);
	if (piece->stalls) {
		piece->stalls--;
		crew_stall(c, item);
		return;
	}
	for (unsigned i = 0; piece->level && i < piece->fan; i++)
		crew_add(c, &piece_new(piece->level - 1, piece->fan, i % 3 == 0)->item);
	atomic_fetch_add(&n_worked, 1);
	free(piece);
}

static void finish(struct crew *c)
{
	(void)c;
	ck_assert_uint_eq(atomic_load(&n_at_work), 0);
	atomic_fetch_add(&n_finished, 1);
}

static void done(struct crew *c)
{
	(void)c;
	n_done++;
}

static void stalled(struct crew *c, struct crew_item *item)
{
	n_stalled++;
	if (slow_to_resume)
		held[n_held++] = (struct piece *)item;
	else
		crew_resume(c, item);
}

static void start(size_t n_workers, size_t max)
{
	base = event_base_new();
	pool = pool_new(base, n_workers, "test");
	queue = pool_queue_new(pool);
	crew = (struct crew){
		.work = work, .finish = finish, .done = done, .stalled = stalled, .queue = queue, .max = max
	};
}

static void stop(void)
{
	pool_queue_free(queue);
	pool_free(pool);
	event_base_free(base);
}

static void run_until_done(void)
{
	while (!n_done)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_eq(n_done, 1);
	ck_assert_uint_eq(atomic_load(&n_finished), 1);
}

START_TEST(one_item_is_worked_on_then_finish_then_done)
{
	start(2, 2);
	crew_start(&crew, &piece_new(0, 0, 0)->item);
	run_until_done();
	ck_assert_uint_eq(atomic_load(&n_worked), 1);
	stop();
}
END_TEST

START_TEST(every_item_of_a_deep_and_wide_tree_is_worked_on_once)
{
	start(4, 4);
	crew_start(&crew, &piece_new(6, 5, 0)->item);
	run_until_done();
	ck_assert_uint_eq(atomic_load(&n_worked), (5 * 5 * 5 * 5 * 5 * 5 * 5 - 1) / 4);
	ck_assert_uint_gt(n_stalled, 0);
	stop();
}
END_TEST

START_TEST(a_stalled_item_goes_on_when_resumed)
{
	start(2, 2);
	crew_start(&crew, &piece_new(0, 0, 7)->item);
	run_until_done();
	ck_assert_uint_eq(n_stalled, 7);
	ck_assert_uint_eq(atomic_load(&n_worked), 1);
	stop();
}
END_TEST

START_TEST(nothing_is_finished_while_an_item_is_stalled)
{
	slow_to_resume = true;
	start(2, 2);
	crew_start(&crew, &piece_new(1, 30, 0)->item); /* ten of thirty stall */
	while (n_held < 10)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	for (unsigned i = 0; i < 20; i++)
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	while (pool_n_jobs(pool)) /* for ever, should somebody wait for it in a worker */
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_eq(atomic_load(&n_finished), 0);
	while (n_held)
		crew_resume(&crew, &held[--n_held]->item);
	run_until_done();
	ck_assert_uint_eq(atomic_load(&n_worked), 31);
	stop();
}
END_TEST

START_TEST(no_more_workers_than_the_maximum_are_at_work_at_once)
{
	spin_us = 200;
	is_company_awaited = true; /* by whoever has an item that the first one added */
	start(8, 3);
	crew_start(&crew, &piece_new(3, 6, 0)->item);
	run_until_done();
	ck_assert_uint_le(atomic_load(&most_at_work), 3);
	ck_assert_uint_ge(atomic_load(&most_at_work), 2);
	stop();
}
END_TEST

/*
 * The one worker that a crew may have has run out of items and is on its way back to the loop: who resumes an
 * item then finds no worker free to send, so the one that comes back must be sent again.
 */
START_TEST(no_worker_is_left_idle_forever_when_an_item_is_resumed_while_the_last_share_leaves)
{
	for (unsigned round = 0; round < 2000; round++) {
		n_done = 0;
		atomic_store(&n_finished, 0);
		if (round == 0)
			start(1, 1);
		else
			crew = (struct crew){ .work = work,
					      .finish = finish,
					      .done = done,
					      .stalled = stalled,
					      .queue = queue,
					      .max = 1 };
		crew_start(&crew, &piece_new(1, 4, round % 3)->item);
		run_until_done();
	}
	stop();
}
END_TEST

START_TEST(items_resumed_one_by_one_at_any_moment_are_all_worked_on)
{
	slow_to_resume = true;
	start(2, 2);
	crew_start(&crew, &piece_new(2, 30, 0)->item);
	while (!n_done) {
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
		if (n_held)
			crew_resume(&crew, &held[--n_held]->item);
	}
	run_until_done();
	ck_assert_uint_eq(atomic_load(&n_worked), 1 + 30 + 900);
	stop();
}
END_TEST

/* Jobs of another queue: one that keeps the worker until all is prepared, one that sees how far the crew is.
 */
static atomic_bool is_prepared;
static unsigned n_worked_before;
static bool is_other_done;

static enum job_next keep_worker(struct job *job)
{
	(void)job;
	while (!atomic_load(&is_prepared))
		(void)usleep(100);
	return JOB_DONE;
}

static void keep_done(struct job *job)
{
	(void)job;
}

static enum job_next other_run(struct job *job)
{
	(void)job;
	n_worked_before = atomic_load(&n_worked);
	return JOB_DONE;
}

static void other_done(struct job *job)
{
	(void)job;
	is_other_done = true;
}

START_TEST(a_large_crew_lets_the_job_of_another_request_in)
{
	struct job keep = { .run = keep_worker, .done = keep_done };
	struct job other = { .run = other_run, .done = other_done };
	struct pool_queue *queue2;

	spin_us = 100;
	start(1, 1);
	queue2 = pool_queue_new(pool);
	pool_submit(queue2, &keep);
	crew_start(&crew, &piece_new(4, 8, 0)->item); /* 0.4 s */
	pool_submit(queue2, &other);
	atomic_store(&is_prepared, true);
	run_until_done();
	ck_assert(is_other_done);
	ck_assert_uint_lt(n_worked_before, 1000);
	ck_assert_uint_eq(atomic_load(&n_worked), (8 * 8 * 8 * 8 * 8 - 1) / 7);
	pool_queue_free(queue2);
	stop();
}
END_TEST

UNIT_MAIN("crew", one_item_is_worked_on_then_finish_then_done,
	  every_item_of_a_deep_and_wide_tree_is_worked_on_once, a_stalled_item_goes_on_when_resumed,
	  nothing_is_finished_while_an_item_is_stalled, no_more_workers_than_the_maximum_are_at_work_at_once,
	  no_worker_is_left_idle_forever_when_an_item_is_resumed_while_the_last_share_leaves,
	  items_resumed_one_by_one_at_any_moment_are_all_worked_on,
	  a_large_crew_lets_the_job_of_another_request_in)
