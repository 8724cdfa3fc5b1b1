/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/slice.h"

#include <event2/event.h>

#include "tests/unit/unit.h"

static struct event_base *base;
static struct slicer *slicer;

struct work {
	struct slice slice; /* first */
	unsigned n, max;    /* steps taken, and how many there are */
	unsigned starts_at; /* the step that starts the slice itself; 0: none */
	uint64_t spin_ns;   /* that a step takes */
	struct work *other; /* started from within the first step */
};

static void spin(uint64_t ns)
{
	uint64_t end = slice_now_ns() + ns;

	while (slice_now_ns() < end)
		;
}

static bool step(struct slice *slice)
{
	struct work *work = (struct work *)slice;

	work->n++;
	spin(work->spin_ns);
	if (work->n == work->starts_at)
		slice_start(slicer, slice);
	if (work->other && work->n == 1)
		slice_start(slicer, &work->other->slice);
	return work->n < work->max;
}

static void begin(struct work *work, unsigned max)
{
	slice_init(&work->slice, step);
	work->max = max;
	slice_start(slicer, &work->slice);
}

static void setup(void)
{
	base = event_base_new();
	slicer = slicer_new(base);
}

static void teardown(void)
{
	slicer_free(slicer);
	event_base_free(base);
}

START_TEST(a_slice_runs_from_the_next_turn_on_and_until_it_says_no_more)
{
	struct work work = { .n = 0 };

	setup();
	begin(&work, 1000);
	ck_assert_uint_eq(work.n, 0);
	(void)event_base_dispatch(base); /* ends when nothing waits */
	ck_assert_uint_eq(work.n, 1000);
	teardown();
}
END_TEST

START_TEST(starting_twice_is_starting_once)
{
	struct work work = { .n = 0 };

	setup();
	begin(&work, 1);
	slice_start(slicer, &work.slice);
	(void)event_base_dispatch(base);
	ck_assert_uint_eq(work.n, 1);
	teardown();
}
END_TEST

START_TEST(a_slice_started_from_within_its_own_step_runs_once_more_and_the_list_stays_whole)
{
	struct work more = { .starts_at = 10 }, last = { .starts_at = 20 }, others[3] = { 0 };

	setup();
	begin(&others[0], 50);
	begin(&more, 20); /* there is more anyway */
	begin(&others[1], 50);
	begin(&last, 20); /* in its last step */
	begin(&others[2], 50);
	(void)event_base_dispatch(base);
	ck_assert_uint_eq(more.n, 20);
	ck_assert_uint_eq(last.n, 21);
	for (unsigned i = 0; i < 3; i++)
		ck_assert_uint_eq(others[i].n, 50);
	ck_assert(list_is_empty(&more.slice.link) && list_is_empty(&last.slice.link));
	teardown();
}
END_TEST

START_TEST(a_slice_can_start_another)
{
	struct work second = { .max = 5 }, first = { .other = &second };

	setup();
	slice_init(&second.slice, step);
	begin(&first, 1);
	(void)event_base_dispatch(base);
	ck_assert_uint_eq(first.n, 1);
	ck_assert_uint_eq(second.n, 5);
	teardown();
}
END_TEST

START_TEST(slices_take_turns)
{
	struct work a = { .spin_ns = 20000 }, b = { .spin_ns = 20000 };

	setup();
	begin(&a, 1000);
	begin(&b, 1000);
	while (a.n < 500)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_ge(b.n + 1, a.n);
	ck_assert_uint_le(b.n, a.n + 1);
	teardown();
}
END_TEST

START_TEST(who_has_many_slices_has_no_more_turns)
{
	struct work many[9] = { 0 }, one = { .n = 0 };
	struct taker taker;

	setup();
	taker_init(&taker);
	for (int i = 0; i < 9; i++) {
		slice_init_of(&many[i].slice, step, &taker);
		many[i].max = 100;
		slice_start(slicer, &many[i].slice);
	}
	one.spin_ns = SLICE_NS; /* so that each is the last of a turn of the loop */
	begin(&one, 20);
	while (one.n < 20)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	for (int i = 0; i < 9; i++)
		ck_assert_uint_le(many[i].n, 3);
	teardown();
}
END_TEST

static void on_event(evutil_socket_t fd, short what, void *n)
{
	(void)fd;
	(void)what;
	++*(unsigned *)n;
}

START_TEST(the_loop_serves_its_other_events_between_turns)
{
	struct work work = { .spin_ns = 20000 };
	struct event *tick;
	unsigned n_ticks = 0;

	setup();
	tick = event_new(base, -1, EV_PERSIST, on_event, &n_ticks);
	(void)event_add(tick, &(struct timeval){ .tv_usec = 1000 });
	begin(&work, 5000); /* 100 ms of it */
	while (work.n < 5000)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_ge(n_ticks, 20);
	event_free(tick);
	teardown();
}
END_TEST

UNIT_MAIN("slice", a_slice_runs_from_the_next_turn_on_and_until_it_says_no_more,
	  starting_twice_is_starting_once,
	  a_slice_started_from_within_its_own_step_runs_once_more_and_the_list_stays_whole,
	  a_slice_can_start_another, slices_take_turns, who_has_many_slices_has_no_more_turns,
	  the_loop_serves_its_other_events_between_turns)
