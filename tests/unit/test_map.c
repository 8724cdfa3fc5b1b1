/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/map.h"

#include <string.h>

#include "common/hash.h"
#include "tests/unit/unit.h"

struct thing {
	struct digest digest; /* first */
	bool is_in;
};

static void make_things(struct thing *things, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		hash_bytes(&i, sizeof(i), &things[i].digest);
		things[i].is_in = false;
	}
}

static void check_all(const struct map *map, struct thing *things, size_t n)
{
	size_t n_in = 0, n_seen = 0, n_wrong = 0;

	for (size_t i = 0; i < n; i++) {
		n_wrong += map_find(map, &things[i].digest) != (things[i].is_in ? &things[i] : NULL);
		n_in += things[i].is_in;
	}
	ck_assert_uint_eq(n_wrong, 0);
	for (size_t i = 0; i < map_end(map); i++)
		n_seen += map_slot(map, i) != NULL;
	ck_assert_uint_eq(map->n, n_in);
	ck_assert_uint_eq(n_seen, n_in);
}

START_TEST(an_empty_map_finds_nothing)
{
	struct map map;

	map_init(&map);
	ck_assert_ptr_null(map_find(&map, &digest_empty));
	ck_assert_uint_eq(map.n, 0);
	map_fini(&map);
}
END_TEST

START_TEST(map_keeps_every_entry_through_ten_thousand_random_adds_and_removes)
{
	enum { N = 1000 };
	static struct thing things[N];
	uint64_t random = 88172645463325252u;
	struct map map;

	make_things(things, N);
	map_init(&map);
	for (unsigned i = 0; i < 10000; i++) {
		struct thing *thing;

		random ^= random << 13, random ^= random >> 7, random ^= random << 17;
		thing = &things[random % N];
		if (thing->is_in)
			map_remove(&map, &thing->digest);
		else
			map_add(&map, &thing->digest);
		thing->is_in = !thing->is_in;
		if (i % 100 == 0)
			check_all(&map, things, N);
	}
	check_all(&map, things, N);
	map_fini(&map);
}
END_TEST

/* Whoever removes the whole of a full table sees every way of moving back, across its end too. */
START_TEST(removing_leaves_all_others_findable_at_every_step)
{
	enum { N = 96 }; /* three quarters of 128: the table is as full as it gets */
	static struct thing things[N];

	for (unsigned round = 0; round < 50; round++) {
		struct map map;

		make_things(things, N);
		map_init(&map); /* with another secret, so another order */
		for (size_t i = 0; i < N; i++) {
			map_add(&map, &things[i].digest);
			things[i].is_in = true;
		}
		for (size_t i = 0; i < N; i++) {
			map_remove(&map, &things[i].digest);
			things[i].is_in = false;
			check_all(&map, things, N);
		}
		map_fini(&map);
	}
}
END_TEST

START_TEST(a_reserved_map_does_not_grow_until_it_holds_that_many)
{
	enum { N = 50000 };
	static struct thing things[N];
	struct map map;
	size_t end;

	make_things(things, N);
	map_init(&map);
	map_reserve(&map, N);
	end = map_end(&map);
	for (size_t i = 0; i < N; i++) {
		map_add(&map, &things[i].digest);
		things[i].is_in = true;
	}
	ck_assert_uint_eq(map_end(&map), end);
	check_all(&map, things, N);
	map_fini(&map);
}
END_TEST

/* Half of all stay; the others come and go between the steps. */
START_TEST(a_walk_meets_all_that_stay_whatever_comes_and_goes_meanwhile)
{
	enum { N = 20000, FEW = 90 };
	static const size_t sizes[] = { FEW, N };
	static struct thing things[N];
	static bool is_met[N];

	for (unsigned round = 0; round < 40; round++) {
		size_t n = sizes[round % 2], n_missed = 0;
		struct map_walk walk = { 0 };
		struct map map;

		make_things(things, n);
		memset(is_met, 0, sizeof(is_met));
		map_init(&map);
		for (size_t i = 0; i < n; i++) {
			things[i].is_in = i % 4 < 3;
			if (things[i].is_in)
				map_add(&map, &things[i].digest);
		}
		for (size_t i = 0; !map_walk_is_over(&map, &walk); i++) {
			const struct thing *met = map_walk_step(&map, &walk);
			struct thing *other = &things[i % n | 1];

			if (met)
				is_met[met - things] = true;
			if (other->is_in)
				map_remove(&map, &other->digest);
			else
				map_add(&map, &other->digest);
			other->is_in = !other->is_in;
		}
		for (size_t i = 0; i < n; i += 2)
			n_missed += things[i].is_in && !is_met[i];
		ck_assert_uint_eq(n_missed, 0);
		map_fini(&map);
	}
}
END_TEST

/* What the loop does for one add must not grow with the map. */
START_TEST(a_map_grows_one_table_at_a_time)
{
	enum { N = 100000 };
	static struct thing things[N];
	size_t end = 0, n_most = 0;
	struct map map;

	make_things(things, N);
	map_init(&map);
	for (size_t i = 0; i < N; i++) {
		map_add(&map, &things[i].digest);
		things[i].is_in = true;
		if (i && map_end(&map) - end > n_most)
			n_most = map_end(&map) - end;
		end = map_end(&map);
	}
	ck_assert_uint_eq(n_most, MAP_TABLE_SLOTS);
	check_all(&map, things, N);
	for (size_t i = 0; i < N; i += 3) {
		map_remove(&map, &things[i].digest);
		things[i].is_in = false;
	}
	check_all(&map, things, N);
	map_fini(&map);
}
END_TEST

START_TEST(digests_of_one_hash_and_two_sizes_are_one_key)
{
	struct thing thing = { .digest = digest_empty };
	struct digest other = digest_empty;
	struct map map;

	other.size = 7;
	map_init(&map);
	map_add(&map, &thing.digest);
	ck_assert_ptr_eq(map_find(&map, &other), &thing);
	map_fini(&map);
}
END_TEST

/* The slots follow from a secret, so nobody can choose digests that all want the same one. */
START_TEST(two_maps_keep_the_same_things_in_different_slots)
{
	enum { N = 48 };
	static struct thing things[N];
	struct map a, b;
	size_t n_same = 0;

	make_things(things, N);
	map_init(&a);
	map_init(&b);
	for (size_t i = 0; i < N; i++) {
		map_add(&a, &things[i].digest);
		map_add(&b, &things[i].digest);
	}
	for (size_t i = 0; i < map_end(&a) && i < map_end(&b); i++)
		n_same += map_slot(&a, i) && map_slot(&a, i) == map_slot(&b, i);
	ck_assert_uint_lt(n_same, N / 2);
	map_fini(&a);
	map_fini(&b);
}
END_TEST

static size_t longest_run(const struct map *map)
{
	size_t run = 0, longest = 0;

	for (size_t i = 0; i < 2 * map_end(map); i++) { /* twice, for one that goes round */
		run = map_slot(map, i % map_end(map)) ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	return longest;
}

enum { MANY = 4096, RUN_MAX = MANY / 8 }; /* spread by chance the longest has some sixty */

/* Digests that a client makes up need not look like hashes. */
START_TEST(digests_that_differ_in_two_bytes_are_spread_as_any_others)
{
	static struct thing things[MANY];

	for (size_t at = 0; at + 2 <= DIGEST_HASH_SIZE; at++) {
		struct map map;

		map_init(&map);
		for (unsigned i = 0; i < MANY; i++) {
			uint16_t two = (uint16_t)i;

			memset(things[i].digest.hash, 0xa5, DIGEST_HASH_SIZE);
			memcpy(things[i].digest.hash + at, &two, sizeof(two));
			map_add(&map, &things[i].digest);
		}
		ck_assert_msg(longest_run(&map) < RUN_MAX, "byte %zu: %zu in a row", at, longest_run(&map));
		map_fini(&map);
	}
}
END_TEST

START_TEST(a_digest_has_another_key_with_each_number)
{
	static struct thing things[MANY];
	struct digest digest = { .size = 1 }, other = { .size = 1 }, a, b;
	struct map map;

	map_init(&map);
	for (uint64_t i = 0; i < MANY; i++) {
		things[i].digest = map_key(&map, &digest, i);
		ck_assert_ptr_null(map_find(&map, &things[i].digest));
		map_add(&map, &things[i].digest);
	}
	ck_assert_uint_lt(longest_run(&map), RUN_MAX);
	ck_assert_mem_eq(things[0].digest.hash, digest.hash, DIGEST_HASH_SIZE);
	/* Two pairs that look alike, whichever way the number is put in. */
	for (size_t at = 0; at < DIGEST_HASH_SIZE; at++) {
		other.hash[at] = 1;
		a = map_key(&map, &digest, 1);
		b = map_key(&map, &other, 0);
		ck_assert_mem_ne(a.hash, b.hash, DIGEST_HASH_SIZE);
		other.hash[at] = 0;
	}
	map_fini(&map);
}
END_TEST

UNIT_MAIN("map", an_empty_map_finds_nothing,
	  map_keeps_every_entry_through_ten_thousand_random_adds_and_removes,
	  removing_leaves_all_others_findable_at_every_step,
	  a_walk_meets_all_that_stay_whatever_comes_and_goes_meanwhile,
	  a_reserved_map_does_not_grow_until_it_holds_that_many, a_map_grows_one_table_at_a_time,
	  digests_of_one_hash_and_two_sizes_are_one_key, two_maps_keep_the_same_things_in_different_slots,
	  digests_that_differ_in_two_bytes_are_spread_as_any_others,
	  a_digest_has_another_key_with_each_number)
