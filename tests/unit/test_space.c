/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/space.h"

#include <event2/event.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "daemon/pool.h"
#include "tests/unit/unit.h"

enum { K = 1024, M = 1024 * K };

static struct space *space;
static struct err err;
static unsigned n_told;

static void start(uint64_t max_size, uint64_t min_free)
{
	space = space_new(&(struct space_limits){ .max_size = max_size, .min_free = min_free });
}

static void on_above(void *ctx)
{
	(void)ctx;
	n_told++;
}

static uint64_t wider(struct space_gap gap)
{
	return gap.of_cap > gap.of_disk ? gap.of_cap : gap.of_disk;
}

static uint64_t bytes_lacking(struct space *of, uint64_t bytes)
{
	return wider(space_lacks(of, bytes));
}

static uint64_t bytes_above(struct space *of)
{
	return wider(space_surplus(of));
}

START_TEST(without_limits_all_fits)
{
	start(0, 0);
	ck_assert_int_eq(space_reserve(space, INT64_MAX), 0);
	ck_assert_int_eq(space_reserve(space, INT64_MAX), 0);
	ck_assert_uint_eq(bytes_lacking(space, UINT64_MAX), 0);
	ck_assert_int_eq(space_reserve(space, INT64_MAX), SPACE_NONE); /* but for what cannot be counted */
	space_release(space, INT64_MAX);
	space_release(space, INT64_MAX);
	ck_assert_uint_eq(bytes_above(space), 0);
	space_free(space);
}
END_TEST

START_TEST(used_overhead_and_reserved_stay_below_the_cap)
{
	start(10 * M, 0);
	space_set_used(space, 3 * M);
	space_set_overhead(space, 2 * M);
	ck_assert_int_eq(space_reserve(space, 4 * M), 0);
	ck_assert_int_eq(space_reserve(space, M), SPACE_NONE); /* a blob has a name and a row, too */
	ck_assert_uint_gt(bytes_lacking(space, M), 0);
	ck_assert_uint_lt(bytes_lacking(space, M), 64 * K);
	ck_assert_int_eq(space_reserve(space, M - 64 * K), 0);
	space_release(space, 4 * M);
	ck_assert_int_eq(space_reserve(space, 3 * M), 0);
	space_release(space, 3 * M);
	space_release(space, M - 64 * K);
	space_free(space);
}
END_TEST

START_TEST(spare_room_ends_where_something_would_have_to_go)
{
	start(100 * M, 0);
	space_watch(space, on_above, NULL);
	space_set_used(space, 90 * M);
	ck_assert_int_eq(space_reserve_spare(space, 6 * M), SPACE_NONE);
	ck_assert_int_eq(space_reserve_spare(space, 4 * M), 0);
	space_release(space, 4 * M);
	space_set_used(space, 94 * M);
	ck_assert_uint_eq(n_told, 0);
	space_free(space);

	start(0, 100 * M);
	space_set_disk(space, 110 * M);
	ck_assert_int_eq(space_reserve_spare(space, 6 * M), SPACE_NONE);
	ck_assert_int_eq(space_reserve_spare(space, 4 * M), 0);
	space_release(space, 4 * M);
	space_free(space);
}
END_TEST

START_TEST(what_could_never_fit_lacks_more_than_there_is)
{
	start(10 * M, 0);
	space_set_used(space, 3 * M);
	ck_assert_uint_gt(bytes_lacking(space, 11 * M), 3 * M);
	ck_assert_int_eq(space_reserve(space, UINT64_MAX), SPACE_NONE);
	ck_assert_int_eq(space_reserve(space, UINT64_MAX - 8 * M), SPACE_NONE);
	ck_assert_uint_eq(space_levels(space).reserved, 0);
	space_free(space);
}
END_TEST

START_TEST(a_blob_costs_a_little_more_than_its_bytes_until_that_is_measured)
{
	unsigned n = 0;

	start(8 * M, 0);
	while (space_reserve(space, 0) == 0)
		n++;
	ck_assert_uint_gt(n, 100);
	ck_assert_uint_gt(space_levels(space).overhead, 8 * M - 64 * K);
	space_set_overhead(space, 20 * K);
	ck_assert_uint_eq(space_levels(space).overhead, 20 * K);
	ck_assert_int_eq(space_reserve(space, 0), 0);
	space_free(space);
}
END_TEST

START_TEST(the_disk_keeps_its_floor)
{
	start(0, 100 * M);
	ck_assert_int_eq(space_reserve(space, M), 0); /* nobody has measured yet */
	space_set_disk(space, 110 * M);
	ck_assert_int_eq(space_reserve(space, 8 * M), 0);
	ck_assert_int_eq(space_reserve(space, 2 * M), SPACE_NONE);
	space_release(space, M);
	space_release(space, 8 * M);
	ck_assert_int_eq(space_reserve(space, 2 * M), SPACE_NONE); /* they may have been written */
	space_set_disk(space, 110 * M);
	ck_assert_int_eq(space_reserve(space, 2 * M), 0);
	space_release(space, 2 * M);

	space_set_disk(space, 40 * M);
	ck_assert_uint_ge(bytes_lacking(space, M), 61 * M);
	ck_assert_uint_lt(bytes_lacking(space, M), 62 * M);
	space_free(space);
}
END_TEST

START_TEST(a_disk_that_said_it_is_full_has_no_room_until_it_is_measured)
{
	start(0, 0);
	space_disk_full(space);
	ck_assert_int_eq(space_reserve(space, 1), SPACE_NONE);
	ck_assert_uint_ge(bytes_lacking(space, M), M);
	ck_assert(space_levels(space).disk_full);
	space_set_disk(space, 2 * M);
	ck_assert(!space_levels(space).disk_full);
	ck_assert_int_eq(space_reserve(space, M), 0);
	ck_assert_int_eq(space_reserve(space, M), SPACE_NONE);
	space_release(space, M);
	space_free(space);
}
END_TEST

START_TEST(above_the_high_mark_the_watch_is_told)
{
	start(100 * M, 0);
	space_watch(space, on_above, NULL);
	space_set_used(space, 94 * M);
	ck_assert_uint_eq(n_told, 0);
	ck_assert_uint_eq(bytes_above(space), 4 * M);
	space_set_overhead(space, 2 * M);
	ck_assert_uint_eq(n_told, 1);
	ck_assert_uint_eq(bytes_above(space), 6 * M);
	space_set_used(space, 80 * M);
	ck_assert_uint_eq(n_told, 1);
	ck_assert_uint_eq(bytes_above(space), 0);
	space_free(space);
}
END_TEST

START_TEST(near_the_floor_the_watch_is_told)
{
	start(0, 100 * M);
	space_watch(space, on_above, NULL);
	space_set_disk(space, 106 * M);
	ck_assert_uint_eq(n_told, 0);
	space_set_disk(space, 104 * M);
	ck_assert_uint_eq(n_told, 1);
	ck_assert_uint_eq(bytes_above(space), 6 * M);
	space_set_disk(space, 110 * M);
	ck_assert_uint_eq(bytes_above(space), 0);
	space_free(space);
}
END_TEST

START_TEST(a_refusal_says_what_is_needed_and_what_there_is)
{
	start(10 * M, 0);
	space_set_used(space, 3 * M);
	ck_assert_int_eq(space_refuse(space, 12 * M, &err), -ENOSPC);
	unit_ck_err(&err, ERR_NO_SPACE, "12.0M more do not fit: of the 10.0M that the cache may have");
	unit_ck_err(&err, ERR_NO_SPACE, "3.0M are in use");
	space_set_disk(space, 100 * M);
	err_clear(&err);
	ck_assert_int_eq(space_refuse(space, M, &err), -ENOSPC); /* one file of many, which do not fit */
	unit_ck_err(&err, ERR_NO_SPACE, "1.0M more do not fit: of the 10.0M that the cache may have");
	space_free(space);

	start(0, 100 * M);
	space_set_disk(space, 101 * M);
	err_clear(&err);
	ck_assert_int_eq(space_refuse(space, 12 * M, &err), -ENOSPC);
	unit_ck_err(&err, ERR_NO_SPACE, "the disk has 101M free, of which 100M are to stay so");
	space_free(space);

	start(0, 0);
	space_disk_full(space);
	err_clear(&err);
	ck_assert_int_eq(space_refuse(space, 12 * M, &err), -ENOSPC);
	unit_ck_err(&err, ERR_NO_SPACE, "the disk is full");
	space_free(space);
}
END_TEST

/* ---- many workers ---- */

enum { N_JOBS = 4, N_ROUNDS = 50000, BYTES = 10 * K };

static size_t n_done;
static atomic_size_t n_promised, n_most, n_refused;

static enum job_next run_writer(struct job *job)
{
	(void)job;
	for (unsigned i = 0; i < N_ROUNDS; i++) {
		size_t now, most;

		if (space_reserve(space, BYTES) != 0) {
			atomic_fetch_add(&n_refused, 1);
			space_set_overhead(space, 0); /* else what a blob costs besides fills it up */
			continue;
		}
		now = atomic_fetch_add(&n_promised, 1) + 1;
		most = atomic_load(&n_most);
		while (now > most && !atomic_compare_exchange_weak(&n_most, &most, now))
			;
		atomic_fetch_sub(&n_promised, 1);
		space_release(space, BYTES);
	}
	return JOB_DONE;
}

static void on_done(struct job *job)
{
	(void)job;
	n_done++;
}

START_TEST(no_two_workers_are_promised_the_same_room)
{
	struct event_base *base = event_base_new();
	struct pool *pool = pool_new(base, N_JOBS, "test");
	struct pool_queue *queue = pool_queue_new(pool);
	struct job jobs[N_JOBS];

	start(3 * BYTES - K, 0);
	for (unsigned i = 0; i < N_JOBS; i++) {
		jobs[i] = (struct job){ .run = run_writer, .done = on_done };
		pool_submit(queue, &jobs[i]);
	}
	while (n_done < N_JOBS)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_le(atomic_load(&n_most), 2);
	ck_assert_uint_gt(atomic_load(&n_refused), 0);
	ck_assert_uint_eq(space_levels(space).reserved, 0);
	pool_free(pool);
	pool_queue_free(queue);
	event_base_free(base);
	space_free(space);
}
END_TEST

UNIT_MAIN("space", without_limits_all_fits, used_overhead_and_reserved_stay_below_the_cap,
	  spare_room_ends_where_something_would_have_to_go, what_could_never_fit_lacks_more_than_there_is,
	  a_blob_costs_a_little_more_than_its_bytes_until_that_is_measured, the_disk_keeps_its_floor,
	  a_disk_that_said_it_is_full_has_no_room_until_it_is_measured, above_the_high_mark_the_watch_is_told,
	  near_the_floor_the_watch_is_told, a_refusal_says_what_is_needed_and_what_there_is,
	  no_two_workers_are_promised_the_same_room)
