/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/candidates.h"

#include <string.h>

#include "common/hash.h"
#include "tests/unit/unit.h"

static struct catalog *catalog;
static struct candidates candidates;

static struct digest digest_of(unsigned number)
{
	struct digest digest;

	hash_bytes(&number, sizeof(number), &digest);
	return digest;
}

/* Blobs of which the i-th was used at `first + i * step`. */
static void load(unsigned n, uint64_t first, uint64_t step)
{
	for (unsigned i = 0; i < n; i++) {
		struct index_blob blob = { .digest = digest_of(i), .kinds = 1, .used = first + i * step };

		catalog_load(catalog, &blob);
	}
}

static void walk(bool younger)
{
	candidates_find(&candidates, catalog, younger);
	while (candidates_step(&candidates, catalog))
		;
}

/* Take all; they ascend. Return: how many; *last, if there are any, was used last. */
static size_t take_all(uint64_t *last)
{
	const struct candidate *first;
	size_t n = 0;

	while ((first = candidates_first(&candidates))) {
		ck_assert(!n || first->used >= *last);
		*last = first->used;
		candidates_drop_first(&candidates);
		n++;
	}
	return n;
}

static void setup(void)
{
	catalog = catalog_new();
}

static void teardown(void)
{
	free(candidates.oldest.items); /* candidates_fini() may want a worker */
	free(candidates.found.items);
	candidates = (struct candidates){ 0 };
	catalog_free(catalog);
}

START_TEST(those_that_nobody_holds_come_by_their_use)
{
	struct digest held = digest_of(3);
	uint64_t last;

	setup();
	load(10, 1000, 7);
	catalog_hold(catalog, &held);
	walk(false);
	ck_assert_uint_eq(candidates_bound(&candidates), 1000);
	ck_assert(!candidates_has_more(&candidates));
	ck_assert_uint_eq(take_all(&last), 9);
	ck_assert_uint_eq(last, 1063);
	ck_assert_uint_eq(candidates_bound(&candidates), UINT64_MAX);
	teardown();
}
END_TEST

START_TEST(those_that_are_added_take_their_place)
{
	struct digest early = digest_of(100), late = digest_of(101);
	uint64_t last;

	setup();
	load(10, 1000, 10);
	walk(false);
	candidates_add(&candidates, &late, 5000);
	candidates_add(&candidates, &early, 5);
	ck_assert(digest_equal(&candidates_first(&candidates)->digest, &early));
	ck_assert_uint_eq(take_all(&last), 12);
	ck_assert_uint_eq(last, 5000);
	teardown();
}
END_TEST

START_TEST(of_very_many_the_oldest_are_kept_and_the_others_found_later)
{
	enum { N = 150000 };
	struct digest younger = digest_of(N);
	uint64_t last = 0;
	size_t n, sum = 0;

	setup();
	load(N, 1, 1);
	walk(false);
	ck_assert(candidates_has_more(&candidates));
	candidates_add(&candidates, &younger, N + 1); /* left to a walk that comes so far */
	for (unsigned walks = 1;; walks++) {
		n = take_all(&last);
		sum += n;
		ck_assert_uint_eq(last, sum);
		if (!candidates_has_more(&candidates))
			break;
		ck_assert_uint_eq(candidates_bound(&candidates), last + 1);
		ck_assert_uint_lt(walks, 5);
		walk(true);
	}
	ck_assert_uint_eq(sum, N);
	teardown();
}
END_TEST

/* As many as one tree may leave: by their hashes each comes once, in one walk or another. */
START_TEST(of_very_many_that_share_one_time_of_use_none_is_missed)
{
	enum { N = 150000 };
	const struct candidate *first;
	struct candidate last = { .used = 0 };
	size_t sum = 0;

	setup();
	load(N, 77, 0);
	walk(false);
	for (unsigned walks = 1;; walks++) {
		for (; (first = candidates_first(&candidates)); sum++) {
			ck_assert(!sum || memcmp(first->digest.hash, last.digest.hash, DIGEST_HASH_SIZE) > 0);
			last = *first;
			candidates_drop_first(&candidates);
		}
		if (!candidates_has_more(&candidates))
			break;
		ck_assert_uint_eq(candidates_bound(&candidates), 77);
		ck_assert_uint_lt(walks, 5);
		walk(true);
	}
	ck_assert_uint_eq(sum, N);
	teardown();
}
END_TEST

/* What is left out then is found by a walk, in its turn. */
START_TEST(of_very_many_that_are_added_no_more_are_kept_than_have_room)
{
	enum { N = 200000, EARLY = 190000 };
	uint64_t last = 0;
	size_t n;

	setup();
	walk(false);
	load(N, 1000, 1);
	for (unsigned i = 0; i < N; i++) {
		struct digest digest = digest_of(i);

		if (i == EARLY) /* as used before all of them */
			catalog_find(catalog, &digest)->used = 5;
		candidates_add(&candidates, &digest, i == EARLY ? 5 : 1000 + i);
	}
	ck_assert_uint_lt(candidates.oldest.n, N);
	ck_assert(candidates_has_more(&candidates));
	ck_assert_uint_eq(candidates_bound(&candidates), 5); /* not what is kept: that is younger */
	ck_assert_ptr_null(candidates_first(&candidates));
	walk(true);
	ck_assert_uint_eq(candidates_first(&candidates)->used, 5);
	n = take_all(&last);
	ck_assert_uint_eq(last, 1000 + n - 2);
	teardown();
}
END_TEST

START_TEST(a_catalog_that_grows_is_walked_over_from_the_beginning)
{
	uint64_t last;

	setup();
	load(1000, 1, 1);
	candidates_find(&candidates, catalog, false);
	(void)candidates_step(&candidates, catalog);
	for (unsigned i = 1000; i < 5000; i++) {
		struct index_blob blob = { .digest = digest_of(i), .kinds = 1, .used = 1 + i };

		catalog_load(catalog, &blob);
	}
	while (candidates_step(&candidates, catalog))
		;
	ck_assert_uint_eq(take_all(&last), 5000);
	teardown();
}
END_TEST

UNIT_MAIN("candidates", those_that_nobody_holds_come_by_their_use, those_that_are_added_take_their_place,
	  of_very_many_the_oldest_are_kept_and_the_others_found_later,
	  of_very_many_that_share_one_time_of_use_none_is_missed,
	  of_very_many_that_are_added_no_more_are_kept_than_have_room,
	  a_catalog_that_grows_is_walked_over_from_the_beginning)
