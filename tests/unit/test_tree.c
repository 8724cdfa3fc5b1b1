/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tree.h"

#include "tests/unit/daemon.h"

static struct draft draft;

/* A tree with one file, in a directory: two Directories. */
static struct digest store_tree(const char *text)
{
	struct digest below;

	draft_init(&draft);
	draft_file(&draft, "f", store_text(text, BLOB_PLAIN), false);
	below = draft_store(&draft);
	draft_directory(&draft, "below", below);
	return draft_store(&draft);
}

/* So many ask for a tree before the loop runs. */
static void ask_together(struct asked *asked, unsigned n, const struct digest *digest)
{
	for (unsigned i = 0; i < n; i++)
		ask(&asked[i], digest, TREE_FOR_MATERIALIZE);
}

static void ck_counts(uint64_t hits, uint64_t misses, uint64_t constructions, uint64_t joins)
{
	ck_assert_uint_eq(cache.counters.tree_hits, hits);
	ck_assert_uint_eq(cache.counters.tree_misses, misses);
	ck_assert_uint_eq(cache.counters.tree_constructions, constructions);
	ck_assert_uint_eq(cache.counters.tree_joins, joins);
}

START_TEST(the_first_request_is_a_miss_the_second_a_hit_from_memory)
{
	struct asked first, second;
	struct digest digest;

	start_cache();
	digest = store_tree("x");
	get_tree(&first, &digest);
	ck_assert_int_eq(first.r, 0);
	ck_assert_int_eq(first.request.cache, TREE_MISS);
	ask(&second, &digest, TREE_FOR_MATERIALIZE);
	ck_assert(second.done); /* from within */
	ck_assert_int_eq(second.request.cache, TREE_HIT);
	ck_assert_ptr_eq(first.request.node, second.request.node);
	ck_counts(1, 1, 1, 0);
	asked_fini(&first);
	asked_fini(&second);
	stop_cache();
}
END_TEST

START_TEST(sixteen_gets_of_one_unresolved_tree_make_one_construction)
{
	struct asked asked[16];
	struct digest digest;

	start_cache();
	digest = store_tree("x");
	ask_together(asked, 16, &digest);
	for (unsigned i = 0; i < 16; i++) {
		run_until_set(&asked[i].done);
		ck_assert_int_eq(asked[i].r, 0);
		ck_assert_int_eq(asked[i].request.cache, i ? TREE_JOIN : TREE_MISS);
	}
	ck_counts(0, 1, 1, 15);
	ck_assert_uint_eq(cache.counters.directory_misses, 2);
	for (unsigned i = 0; i < 16; i++)
		asked_fini(&asked[i]);
	stop_cache();
}
END_TEST

START_TEST(a_failed_construction_reaches_all_who_joined_and_the_next_starts_anew)
{
	struct asked asked[8], again;
	struct digest file, digest;

	start_cache();
	draft_init(&draft);
	hash_bytes("late", 4, &file);
	draft_file(&draft, "f", file, false);
	digest = draft_store(&draft);
	ask_together(asked, 8, &digest);
	for (unsigned i = 0; i < 8; i++) {
		run_until_set(&asked[i].done);
		ck_assert_int_eq(asked[i].r, -ENOENT);
		unit_ck_err(&asked[i].err, ERR_NOT_FOUND, DIGEST_TEXT(&file));
		ck_assert_uint_eq(asked[i].n_missing, 1);
		ck_assert(digest_equal(&asked[i].missing[0], &file));
		ck_assert_ptr_null(asked[i].request.node);
	}
	ck_counts(0, 1, 1, 7);
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	run_until_idle();
	(void)store_text("late", BLOB_PLAIN);
	get_tree(&again, &digest);
	ck_assert_int_eq(again.r, 0);
	ck_assert_int_eq(again.request.cache, TREE_MISS);
	ck_counts(0, 2, 2, 7);
	asked_fini(&again);
	stop_cache();
}
END_TEST

/* Somebody stores what a construction has just found missing, and then asks for the tree. */
struct late {
	struct flight_waiter waiter;
	struct digest tree;
	struct asked asked;
	bool stores;
};

static void on_missing(struct flight_waiter *waiter, int r, const struct err *why)
{
	struct late *late = CONTAINER_OF(waiter, struct late, waiter);

	(void)why;
	ck_assert_int_eq(r, BLOB_MISSING);
	if (late->stores)
		(void)store_text("late", BLOB_PLAIN);
	ask(&late->asked, &late->tree, TREE_FOR_MATERIALIZE);
	ck_assert(!late->asked.done);
}

static bool has_flight(void *ctx)
{
	(void)ctx;
	return flights_n(cache.flights) > 0;
}

START_TEST(who_comes_after_the_blob_does_not_hear_that_it_is_missing)
{
	struct digest file;
	struct asked first;

	for (unsigned stores = 0; stores < 2; stores++) {
		struct late late = { .waiter.landed = on_missing, .stores = stores };

		start_cache();
		hash_bytes("late", 4, &file);
		draft_init(&draft);
		draft_file(&draft, "f", file, false);
		late.tree = draft_store(&draft);
		ask(&first, &late.tree, TREE_FOR_MATERIALIZE);
		run_until(has_flight, NULL);
		flight_join(cache.flights, &file, BLOB_PLAIN, false, &late.waiter);
		run_until_set(&first.done);
		ck_assert_int_eq(first.r, -ENOENT); /* it was, when it asked */
		run_until_set(&late.asked.done);
		ck_assert_int_eq(late.asked.r, stores ? 0 : -ENOENT);
		ck_assert_int_eq(late.asked.request.cache, stores ? TREE_MISS : TREE_JOIN);
		ck_counts(0, 1 + stores, 1 + stores, 1 - stores);
		asked_fini(&late.asked);
		run_until_idle();
		stop_cache();
	}
}
END_TEST

START_TEST(one_who_cancels_does_not_fail_the_others)
{
	struct asked asked[3];
	struct digest digest;

	start_cache();
	digest = store_tree("x");
	ask_together(asked, 3, &digest);
	tree_cancel(&asked[0].request); /* the one that began it, too */
	tree_cancel(&asked[2].request);
	run_until_set(&asked[1].done);
	ck_assert_int_eq(asked[1].r, 0);
	run_until_idle();
	ck_assert(!asked[0].done && !asked[2].done);
	asked_fini(&asked[1]);
	stop_cache();
}
END_TEST

START_TEST(a_subtree_of_a_cached_tree_is_a_hit)
{
	struct asked whole, part;
	struct digest digest, below;

	start_cache();
	digest = store_tree("x");
	get_tree(&whole, &digest);
	below = whole.request.node->directory->directories[0].digest;
	get_tree(&part, &below);
	ck_assert_int_eq(part.request.cache, TREE_HIT);
	ck_counts(1, 1, 1, 0);
	asked_fini(&whole);
	asked_fini(&part);
	stop_cache();
}
END_TEST

START_TEST(after_a_restart_a_tree_and_its_subtrees_are_hits)
{
	struct asked asked, part;
	struct digest digest, below;

	start_cache();
	digest = store_tree("x");
	get_tree(&asked, &digest);
	below = asked.request.node->directory->directories[0].digest;
	asked_fini(&asked);
	stop_cache();
	open_cache();
	load_cache(); /* and no longer: it may still be warming */
	ask(&part, &below, TREE_FOR_MATERIALIZE);
	ask(&asked, &digest, TREE_FOR_MATERIALIZE);
	run_until_set(&part.done);
	run_until_set(&asked.done);
	ck_assert_int_eq(asked.request.cache, TREE_HIT);
	ck_assert_int_eq(part.request.cache, TREE_HIT);
	ck_counts(2, 0, 0, 0);
	ck_assert_uint_eq(cache.counters.directory_misses + cache.counters.directory_hits, 0);
	asked_fini(&asked);
	asked_fini(&part);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(a_put_tree_counts_nothing_and_is_a_hit_afterwards)
{
	struct asked put, asked;
	struct digest digest;

	start_cache();
	digest = store_tree("x");
	ask(&put, &digest, TREE_FOR_PUT);
	run_until_set(&put.done);
	ck_counts(0, 0, 0, 0);
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	get_tree(&asked, &digest);
	ck_counts(1, 0, 0, 0);
	asked_fini(&put);
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(a_look_counts_nothing_and_caches_nothing)
{
	struct asked look, asked;
	struct digest digest;

	start_cache();
	digest = store_tree("x");
	ask(&look, &digest, TREE_FOR_LOOK);
	run_until_set(&look.done);
	ck_assert_int_eq(look.r, 0);
	ck_counts(0, 0, 0, 0);
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	asked_fini(&look);
	run_until_idle();
	get_tree(&asked, &digest);
	ck_counts(0, 1, 1, 0);
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(another_size_than_the_known_one_is_another_tree_and_absent)
{
	struct asked asked, wrong;
	struct digest digest;

	start_cache();
	digest = store_tree("x");
	get_tree(&asked, &digest);
	digest.size++;
	get_tree(&wrong, &digest);
	ck_assert_int_eq(wrong.r, -ENOENT);
	unit_ck_err(&wrong.err, ERR_NOT_FOUND, "not in the store");
	ck_assert_uint_eq(wrong.n_missing, 1);
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(who_asks_with_a_wrong_size_is_in_nobodys_way)
{
	struct asked right[2], wrong[2];
	struct digest digest, lie;

	for (unsigned round = 0; round < 3; round++) { /* the lie first; the truth first; the truth cached */
		if (round < 2)
			start_cache();
		digest = lie = store_tree("x");
		lie.size += 1 + round;
		for (unsigned i = 0; i < 2; i++) {
			if (round == 0)
				ask(&wrong[i], &lie, TREE_FOR_MATERIALIZE);
			ask(&right[i], &digest, TREE_FOR_MATERIALIZE);
			if (round > 0)
				ask(&wrong[i], &lie, TREE_FOR_MATERIALIZE);
		}
		for (unsigned i = 0; i < 2; i++) {
			run_until_set(&right[i].done);
			run_until_set(&wrong[i].done);
			ck_assert_int_eq(right[i].r, 0);
			ck_assert_int_eq(wrong[i].r, -ENOENT);
			ck_assert(digest_equal(&wrong[i].missing[0], &lie));
			asked_fini(&right[i]);
		}
		run_until_idle();
		ck_assert_uint_eq(cache.counters.tampered_blobs, 0);
		ck_assert_uint_eq(catalog_find(cache.catalog, &digest)->holds, 1);
		ck_assert_uint_eq(trees_n(cache.trees), 1);
		if (round == 0)
			stop_cache();
	}
	stop_cache();
}
END_TEST

static size_t list_trees(size_t offset, struct index_tree *rows, size_t max)
{
	struct tree_walk walk;
	size_t n = 0;

	tree_walk_begin(cache.trees, &walk, true);
	if (tree_walk_skip(&walk, offset) == offset)
		n = tree_walk_list(&walk, rows, max);
	tree_walk_end(&walk);
	return n;
}

START_TEST(trees_are_listed_the_last_used_first_after_a_restart_too)
{
	struct digest digests[3];
	struct index_tree rows[4];

	start_cache();
	for (unsigned i = 0; i < 3; i++) {
		digests[i] = store_tree((const char *[]){ "a", "b", "c" }[i]);
		(void)use_tree(&digests[i]);
	}
	(void)use_tree(&digests[0]); /* used again: the order is a c b */
	for (unsigned round = 0; round < 2; round++) {
		ck_assert_uint_eq(list_trees(0, rows, 4), 3);
		ck_assert(digest_equal(&rows[0].digest, &digests[0]));
		ck_assert(digest_equal(&rows[1].digest, &digests[2]));
		ck_assert(digest_equal(&rows[2].digest, &digests[1]));
		ck_assert_uint_eq(rows[0].hits, 1);
		ck_assert_uint_eq(rows[1].hits, 0);
		ck_assert_uint_eq(rows[0].n_directories, 2);
		ck_assert_uint_eq(list_trees(1, rows, 1), 1);
		ck_assert(digest_equal(&rows[0].digest, &digests[2]));
		ck_assert_uint_eq(list_trees(3, rows, 4), 0);
		restart_cache();
	}
	stop_cache();
}
END_TEST

static bool more_is_committed(void *n_commits)
{
	return index_n_commits(cache.index) > *(uint64_t *)n_commits;
}

/* Ten hits after a commit of what was used before. Return: did they take less than a fifth of a second? */
static bool hit_ten_times(const struct digest *digest, uint64_t *n_commits)
{
	uint64_t begin;

	*n_commits = index_n_commits(cache.index);
	(void)use_tree(digest);
	run_until(more_is_committed, n_commits);
	run_until_idle();
	*n_commits = index_n_commits(cache.index);
	begin = slice_now_ns();
	for (unsigned i = 0; i < 10; i++)
		(void)use_tree(digest);
	return slice_now_ns() - begin < 200000000;
}

START_TEST(a_hit_writes_nothing_until_a_quarter_of_a_second_later)
{
	struct digest digest;
	uint64_t n_commits;

	start_cache();
	digest = store_tree("x");
	(void)use_tree(&digest);
	while (!hit_ten_times(&digest, &n_commits)) /* others kept us from running meanwhile */
		continue;
	ck_assert_uint_eq(index_n_pending(cache.index), 0);
	ck_assert_uint_eq(index_n_commits(cache.index), n_commits);
	run_until(more_is_committed, &n_commits);
	ck_assert_uint_eq(index_n_commits(cache.index), n_commits + 1);
	stop_cache();
}
END_TEST

START_TEST(a_cached_tree_whose_file_vanished_fails_by_name_and_can_be_had_again)
{
	struct digest digest, file;
	struct asked asked;

	start_cache();
	digest = store_tree("lost");
	get_tree(&asked, &digest);
	file = asked.request.node->children[0]->directory->files[0].digest;
	asked_fini(&asked);
	stop_cache();
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0); /* the Directory itself */
	start_cache();
	get_tree(&asked, &digest);
	ck_assert_int_eq(asked.r, -ENOENT);
	ck_assert(digest_equal(&asked.missing[0], &digest));
	(void)store_tree("lost");
	get_tree(&asked, &digest);
	ck_assert_int_eq(asked.r, 0);
	ck_assert(digest_equal(&asked.request.node->children[0]->directory->files[0].digest, &file));
	asked_fini(&asked);
	stop_cache();
}
END_TEST

UNIT_MAIN("tree", the_first_request_is_a_miss_the_second_a_hit_from_memory,
	  sixteen_gets_of_one_unresolved_tree_make_one_construction,
	  a_failed_construction_reaches_all_who_joined_and_the_next_starts_anew,
	  who_comes_after_the_blob_does_not_hear_that_it_is_missing, one_who_cancels_does_not_fail_the_others,
	  a_subtree_of_a_cached_tree_is_a_hit, after_a_restart_a_tree_and_its_subtrees_are_hits,
	  a_put_tree_counts_nothing_and_is_a_hit_afterwards, a_look_counts_nothing_and_caches_nothing,
	  another_size_than_the_known_one_is_another_tree_and_absent,
	  who_asks_with_a_wrong_size_is_in_nobodys_way,
	  trees_are_listed_the_last_used_first_after_a_restart_too,
	  a_hit_writes_nothing_until_a_quarter_of_a_second_later,
	  a_cached_tree_whose_file_vanished_fails_by_name_and_can_be_had_again)
