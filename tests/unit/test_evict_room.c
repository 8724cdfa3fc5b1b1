/* SPDX-License-Identifier: Apache-2.0 */
/* Eviction for those who need room: the cap, the floor of free disk, requests that wait. */
#include "tests/unit/evicting.h"

enum { M = 1 << 20, CAP = 16 * M };

struct waiting {
	struct room_waiter waiter;
	bool done;
	int r;
	struct err err;
};

static void on_made(struct room_waiter *waiter, int r, const struct err *why)
{
	struct waiting *waiting = CONTAINER_OF(waiter, struct waiting, waiter);

	ck_assert(!waiting->done);
	waiting->done = true;
	waiting->r = r;
	if (r < 0)
		waiting->err = *why;
}

static void ask_for_room(struct waiting *waiting, uint64_t need)
{
	*waiting = (struct waiting){ .waiter.made = on_made };
	evict_make_room(cache.evict, need, &waiting->waiter);
	ck_assert(!waiting->done); /* later */
}

static void get_room(struct waiting *waiting, uint64_t need)
{
	ask_for_room(waiting, need);
	run_until_set(&waiting->done);
}

static uint64_t room_left(void)
{
	struct space_levels levels = space_levels(cache.space);

	return levels.limits.max_size - levels.used - levels.overhead - levels.reserved;
}

/* What the catalog has, the loop tells the space of; writers do that in the daemon. */
static void tell_space(void)
{
	(void)measure();
	space_set_overhead(cache.space, usage_levels(cache.usage).overhead);
	space_set_used(cache.space, catalog_totals(cache.catalog).allocated);
	run_until_idle();
}

/* So many trees of a file each, a, b, c ...; the last one was used last. */
static void cache_trees(struct digest *digests, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		const char letters[2] = { (char)('a' + i), '\0' };

		digests[i] = cache_tree(letters);
	}
}

static size_t count_cached(const struct digest *digests, size_t n)
{
	size_t n_cached = 0;

	for (size_t i = 0; i < n; i++)
		n_cached += is_cached(&digests[i]);
	return n_cached;
}

static void setup(uint64_t max_size, uint64_t min_free)
{
	space_limits = (struct space_limits){ .max_size = max_size, .min_free = min_free };
	start_cache();
}

START_TEST(a_request_has_as_much_evicted_as_it_needs)
{
	struct digest digests[8];
	struct waiting waiting;

	setup(CAP, 0);
	cache_trees(digests, N_ELEMENTS(digests));
	tell_space();
	get_room(&waiting, room_left() + 2 * SIZE);
	ck_assert_int_eq(waiting.r, 0);
	ck_assert(!is_cached(&digests[0]) && !is_cached(&digests[1]));
	ck_assert_uint_ge(count_cached(digests, N_ELEMENTS(digests)), 4);
	ck_assert(is_cached(&digests[7]));
	stop_cache();
}
END_TEST

START_TEST(who_asks_for_more_than_can_be_had_is_refused_with_the_reason)
{
	struct digest digests[4];
	struct waiting waiting;

	setup(CAP, 0);
	cache_trees(digests, N_ELEMENTS(digests));
	tell_space();
	ck_assert(trees_hold(cache.trees, &digests[2]));
	get_room(&waiting, CAP);
	ck_assert_int_eq(waiting.r, -ENOSPC);
	unit_ck_err(&waiting.err, ERR_NO_SPACE, "--max-size");
	ck_assert(is_cached(&digests[2]) && has_file('c'));
	trees_unhold(cache.trees, &digests[2]);
	stop_cache();
}
END_TEST

START_TEST(one_who_waits_no_longer_is_not_told)
{
	struct waiting gone, waiting;

	setup(CAP, 0);
	ask_for_room(&gone, 2 * CAP);
	ask_for_room(&waiting, SIZE);
	list_remove(&gone.waiter.link);
	run_until_set(&waiting.done);
	ck_assert_int_eq(waiting.r, 0);
	run_until_idle();
	ck_assert(!gone.done);
	stop_cache();
}
END_TEST

START_TEST(above_the_high_mark_it_is_evicted_down_to_the_low_one)
{
	struct digest digests[26];
	struct space_levels levels;
	uint64_t takes;

	start_cache();
	cache_trees(digests, N_ELEMENTS(digests));
	stop_with_index();
	start_cache();
	takes = measure();
	stop_cache();
	setup(takes, 0); /* it is as large as it may be */
	tell_space();
	levels = space_levels(cache.space);
	ck_assert_uint_le(levels.used + levels.overhead, levels.limits.max_size / 100 * 95);
	ck_assert_uint_ge(cache.counters.evicted_bytes, takes / 100 * 9);
	stop_cache();
}
END_TEST

/* A floor that no disk has; so all goes that frees something, and nothing else does. */
START_TEST(for_the_floor_what_is_linked_elsewhere_is_passed_over)
{
	struct digest digests[3], alone;
	char name[64];

	start_cache();
	alone = store_file('x');
	cache_trees(digests, N_ELEMENTS(digests));
	for (unsigned i = 0; i < 2; i++) {
		struct digest file = nodes_find(cache.nodes, &digests[i])->directory->files[0].digest;

		(void)snprintf(name, sizeof(name), "linked-%u", i);
		ck_assert_int_eq(linkat(AT_FDCWD, path_of_blob(&file, BLOB_PLAIN), out, name, 0), 0);
		(void)snprintf(name, sizeof(name), "linked-%u-too", i);
		ck_assert_int_eq(linkat(AT_FDCWD, path_of_blob(&digests[i], BLOB_PLAIN), out, name, 0), 0);
	}
	stop_with_index();
	setup(0, UINT64_MAX / 4);
	run_until_idle();
	ck_assert(is_cached(&digests[0]) && is_cached(&digests[1]) && has_file('a') && has_file('b'));
	ck_assert(!is_cached(&digests[2]) && !has_file('c') && !is_stored(&alone));
	stop_cache();
}
END_TEST

START_TEST(for_the_floor_trees_go_together_too)
{
	struct digest digests[16], file;
	uint64_t n_commits;

	start_cache();
	cache_trees(digests, N_ELEMENTS(digests));
	file = nodes_find(cache.nodes, &digests[7])->directory->files[0].digest;
	ck_assert_int_eq(linkat(AT_FDCWD, path_of_blob(&file, BLOB_PLAIN), out, "linked", 0), 0);
	stop_with_index();
	setup(0, UINT64_MAX / 4);
	n_commits = index_n_commits(cache.index);
	run_until_idle();
	for (unsigned i = 0; i < N_ELEMENTS(digests); i++)
		ck_assert_int_eq(is_cached(&digests[i]), i == 7);
	ck_assert(has_file('h'));
	/* Two parties, before and behind the one that stays, and what they leave. */
	ck_assert_uint_le(index_n_commits(cache.index), n_commits + 6);
	stop_cache();
}
END_TEST

UNIT_MAIN("evict_room", a_request_has_as_much_evicted_as_it_needs,
	  who_asks_for_more_than_can_be_had_is_refused_with_the_reason, one_who_waits_no_longer_is_not_told,
	  above_the_high_mark_it_is_evicted_down_to_the_low_one,
	  for_the_floor_what_is_linked_elsewhere_is_passed_over, for_the_floor_trees_go_together_too)
