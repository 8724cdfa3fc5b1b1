/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/evicting.h"

/* Three trees that share a file; the first was used again, so the second is the oldest now. */
static void cache_three(struct digest *one, struct digest *two, struct digest *three)
{
	*one = cache_tree("as");
	*two = cache_tree("bs");
	*three = cache_tree("cs");
	use(one);
}

START_TEST(the_least_recently_used_tree_goes_first_and_what_others_need_stays)
{
	struct digest one, two, three;

	start_cache();
	cache_three(&one, &two, &three);
	gc(ONE_TREE);
	ck_assert(is_cached(&one) && !is_cached(&two) && is_cached(&three));
	ck_assert(has_file('a') && !has_file('b') && has_file('c') && has_file('s'));
	ck_assert(is_stored(&one) && !is_stored(&two)); /* the Directories */
	gc(ONE_TREE);
	ck_assert(is_cached(&one) && !is_cached(&three));
	ck_assert(has_file('a') && has_file('s') && !has_file('c'));
	gc(ALL);
	ck_assert(!is_cached(&one) && !has_file('a') && !has_file('s'));
	ck_assert_uint_eq(cache.counters.evicted_trees, 3);
	ck_assert_uint_eq(cache.counters.evicted_blobs, 7);
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 0);
	ck_assert_uint_eq(catalog_totals(cache.catalog).leaving, 0);
	restart_cache();
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 0);
	stop_cache();
}
END_TEST

START_TEST(one_clock_orders_trees_and_blobs_that_nobody_holds)
{
	struct digest old, young;

	start_cache();
	(void)store_file('x'); /* before both */
	old = cache_tree("a");
	(void)store_file('y'); /* between them */
	young = cache_tree("b");
	(void)store_file('z');
	gc(ONE_FILE);
	ck_assert(!has_file('x') && is_cached(&old));
	gc(ONE_TREE);
	ck_assert(!is_cached(&old) && !has_file('a') && has_file('y'));
	gc(ONE_FILE);
	ck_assert(!has_file('y') && is_cached(&young));
	gc(ONE_TREE);
	ck_assert(!is_cached(&young) && !has_file('b') && has_file('z'));
	stop_cache();
}
END_TEST

START_TEST(what_is_held_or_tagged_stays)
{
	struct digest held, tagged, third, file;
	struct collected collected;

	start_cache();
	held = cache_tree("a");
	tagged = cache_tree("b");
	file = store_file('t');
	third = cache_tree("c");
	ck_assert(tags_load(cache.tags, &(struct index_tag){ .name = "tree", .digest = tagged }));
	ck_assert(tags_load(cache.tags, &(struct index_tag){ .name = "file", .digest = file }));
	ck_assert(trees_hold(cache.trees, &held));
	collect(&collected, ALL, false);
	ck_assert_uint_eq(collected.gc.n_trees, 1);
	ck_assert_uint_eq(collected.gc.n_blobs, 2);
	ck_assert(digest_equal(&collected.gc.trees[0].digest, &third));
	ck_assert(is_cached(&held) && is_cached(&tagged));
	ck_assert(has_file('a') && has_file('b') && has_file('t') && !has_file('c'));
	collected_fini(&collected);
	trees_unhold(cache.trees, &held);
	gc(ALL);
	ck_assert(!is_cached(&held) && is_cached(&tagged));
	tags_clear(cache.tags);
	gc(ALL);
	ck_assert(!is_cached(&tagged) && !has_file('t'));
	stop_cache();
}
END_TEST

START_TEST(a_dry_run_changes_nothing_and_says_what_then_goes)
{
	struct collected dry, real;
	struct digest digests[3];

	start_cache();
	digests[0] = cache_tree("abs");
	(void)store_file('x');
	digests[1] = cache_tree("cs");
	digests[2] = cache_tree("ac");
	use(&digests[0]);
	for (uint64_t bytes = 1; bytes < 6 * SIZE; bytes += SIZE) {
		collect(&dry, bytes, true);
		collect(&real, 0, true);
		ck_assert_uint_eq(real.gc.n_trees + real.gc.n_blobs, 0);
		collected_fini(&real);
		for (unsigned i = 0; i < N_ELEMENTS(digests); i++)
			ck_assert(is_cached(&digests[i]));
		ck_assert(has_file('x'));
		collected_fini(&dry);
	}
	collect(&dry, 5 * SIZE, true);
	collect(&real, 5 * SIZE, false);
	ck_assert_uint_ge(real.gc.bytes, 5 * SIZE);
	ck_assert_uint_eq(real.gc.n_trees, 3);
	ck_assert_uint_eq(dry.gc.n_trees, real.gc.n_trees);
	ck_assert_uint_eq(dry.gc.n_blobs, real.gc.n_blobs);
	ck_assert_uint_eq(dry.gc.bytes, real.gc.bytes);
	for (size_t i = 0; i < real.gc.n_trees; i++) {
		ck_assert(digest_equal(&dry.gc.trees[i].digest, &real.gc.trees[i].digest));
		ck_assert_uint_eq(dry.gc.trees[i].bytes, real.gc.trees[i].bytes);
		ck_assert_uint_eq(dry.gc.trees[i].used, real.gc.trees[i].used);
	}
	collected_fini(&dry);
	collected_fini(&real);
	stop_cache();
}
END_TEST

START_TEST(without_a_cap_and_a_goal_only_what_nobody_holds_goes)
{
	struct collected collected = { 0 };
	struct digest tree;

	start_cache();
	(void)store_file('x');
	tree = cache_tree("a");
	(void)store_file('y');
	begin_gc(&collected);
	run_until_set(&collected.done);
	ck_assert_uint_eq(collected.gc.n_trees, 0);
	ck_assert_uint_eq(collected.gc.n_blobs, 2);
	ck_assert(is_cached(&tree) && has_file('a') && !has_file('x') && !has_file('y'));
	collected_fini(&collected);
	stop_cache();
}
END_TEST

START_TEST(a_blob_that_a_worker_relies_on_stays)
{
	struct digest file;

	start_cache();
	file = store_file('x');
	claims_take(cache.claims, &file);
	gc(ONE_FILE);
	ck_assert(is_stored(&file));
	claims_drop(cache.claims, &file, 1);
	gc(ONE_FILE);
	ck_assert(!is_stored(&file));
	ck_assert_uint_eq(claims_n(cache.claims), 0);
	stop_cache();
}
END_TEST

START_TEST(both_kinds_of_a_blob_go)
{
	struct digest file;

	start_cache();
	file = store_text("both", BLOB_PLAIN);
	(void)store_text("both", BLOB_EXEC);
	gc(ONE_FILE);
	ck_assert(!is_stored(&file));
	ck_assert_int_eq(blob_stat(cache.store, &file, BLOB_EXEC, NULL, NULL), BLOB_MISSING);
	ck_assert_uint_eq(cache.counters.evicted_blobs, 1);
	stop_cache();
}
END_TEST

START_TEST(a_subtree_that_another_tree_has_stays_whole)
{
	struct digest below, one, two;

	start_cache();
	below = cache_tree("b");
	draft_init(&draft);
	draft_file(&draft, "one", store_file('1'), false);
	draft_directory(&draft, "below", below);
	one = draft_store(&draft);
	draft_file(&draft, "two", store_file('2'), false);
	draft_directory(&draft, "below", below);
	two = draft_store(&draft);
	use(&below);
	(void)use_tree(&one);
	(void)use_tree(&two);
	run_until_idle();
	gc(ONE_TREE); /* the subtree, as a tree of its own, gives back nothing */
	ck_assert(!is_cached(&below) && !is_cached(&one) && is_cached(&two));
	ck_assert(has_file('b') && has_file('2') && is_stored(&below));
	ck_assert(!has_file('1'));
	use(&two);
	stop_cache();
}
END_TEST

START_TEST(after_a_start_the_order_of_use_is_as_it_was)
{
	struct digest one, two, three;

	start_cache();
	cache_three(&one, &two, &three);
	stop_with_index();
	start_cache();
	gc(ONE_TREE);
	ck_assert(is_cached(&one) && !is_cached(&two) && is_cached(&three));
	gc(ONE_TREE);
	ck_assert(is_cached(&one) && !is_cached(&three));
	stop_cache();
}
END_TEST

/* What is read in the background after a start holds its blobs before anything may go. */
START_TEST(nothing_goes_before_all_cached_trees_are_read)
{
	struct collected collected = { .gc = { .has_to = true } };
	struct digest tree;

	start_cache();
	tree = cache_tree("a");
	(void)store_file('x');
	stop_with_index();
	open_cache();
	load_cache();
	ck_assert(tags_load(cache.tags, &(struct index_tag){ .name = "t", .digest = tree }));
	begin_gc(&collected);
	run_until_set(&collected.done);
	ck_assert(trees_may_evict(cache.trees));
	ck_assert(is_cached(&tree) && has_file('a') && !has_file('x'));
	collected_fini(&collected);
	use(&tree);
	stop_cache();
}
END_TEST

/* Nor does a dry run judge before: what is cached and not read yet would seem to be held by nobody. */
START_TEST(a_dry_run_waits_until_all_cached_trees_are_read)
{
	struct collected collected = { .gc = { .has_to = true, .dry_run = true } };
	char letters[] = "a";

	start_cache();
	for (; letters[0] <= 'z'; letters[0]++)
		(void)cache_tree(letters);
	stop_with_index();
	open_cache();
	load_cache();
	begin_gc(&collected);
	run_until_set(&collected.done);
	ck_assert_uint_eq(collected.gc.n_trees, 26);
	for (size_t i = 0; i < 26; i++)
		ck_assert_uint_gt(collected.gc.trees[i].bytes, SIZE);
	collected_fini(&collected);
	stop_cache();
}
END_TEST

struct waiter {
	struct room_waiter room;
	bool done;
	int r;
};

static void on_room(struct room_waiter *room, int r, const struct err *why)
{
	struct waiter *waiter = CONTAINER_OF(room, struct waiter, room);

	waiter->done = true;
	waiter->r = r;
	if (r < 0)
		err = *why;
}

/* A file with a hole may say that it has any size. */
START_TEST(for_what_no_disk_could_hold_nothing_goes)
{
	struct waiter waiter = { .room.made = on_room };
	struct digest tree;

	start_cache();
	tree = cache_tree("a");
	(void)store_file('x');
	evict_make_room(cache.evict, UINT64_C(1) << 60, &waiter.room);
	run_until_set(&waiter.done);
	ck_assert_int_eq(waiter.r, -ENOSPC);
	unit_ck_err(&err, ERR_NO_SPACE, "the disk has");
	run_until_idle();
	ck_assert(is_cached(&tree) && has_file('a') && has_file('x'));
	stop_cache();
}
END_TEST

/* A kind that could not be unlinked stays, and its row says what is left. */
START_TEST(a_blob_that_lost_one_kind_has_the_row_of_the_other)
{
	struct digest digest;
	struct collected collected;

	start_cache();
	digest = store_text("both", BLOB_PLAIN);
	(void)store_text("both", BLOB_EXEC);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_EXEC)), 0);
	ck_assert_int_eq(mkdir(path_of_blob(&digest, BLOB_EXEC), 0700), 0); /* no file: unlink(2) refuses */
	collect(&collected, ALL, false);
	collected_fini(&collected);
	ck_assert(!catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_EXEC));
	restart_cache();
	ck_assert(!catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_EXEC));
	stop_cache();
}
END_TEST

static bool is_out_of_the_catalog(void *digest)
{
	return !catalog_find(cache.catalog, digest);
}

/* Batches are small, so that the youngest is still to be chosen when the oldest is gone. */
START_TEST(a_blob_that_is_held_before_it_goes_stays)
{
	struct collected collected = { .gc = { .has_to = true } };
	struct digest digests[1000];

	start_cache();
	for (unsigned i = 0; i < N_ELEMENTS(digests); i++) {
		char text[16];

		(void)snprintf(text, sizeof(text), "blob %u", i);
		digests[i] = store_text(text, BLOB_PLAIN);
	}
	begin_gc(&collected);
	run_until(is_out_of_the_catalog, &digests[0]);
	ck_assert(is_stored(&digests[999]));
	catalog_hold(cache.catalog, &digests[999]);
	run_until_set(&collected.done);
	ck_assert_uint_eq(collected.gc.n_blobs, 999);
	ck_assert(is_stored(&digests[999]));
	catalog_release(cache.catalog, &digests[999], 0);
	collected_fini(&collected);
	stop_cache();
}
END_TEST

/* Of one that comes back, since it could not be unlinked, there is one entry all the same. */
START_TEST(a_blob_may_be_held_while_it_is_on_its_way_out)
{
	struct collected collected = { .gc = { .has_to = true } };
	struct digest digest;

	start_cache();
	digest = store_text("both", BLOB_PLAIN);
	(void)store_text("both", BLOB_EXEC);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_EXEC)), 0);
	ck_assert_int_eq(mkdir(path_of_blob(&digest, BLOB_EXEC), 0700), 0);
	begin_gc(&collected);
	run_until(is_out_of_the_catalog, &digest);
	catalog_hold(cache.catalog, &digest);
	run_until_set(&collected.done);
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_EXEC));
	ck_assert(!catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	ck_assert_uint_eq(catalog_find(cache.catalog, &digest)->holds, 1);
	catalog_release(cache.catalog, &digest, 0);
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 1);
	collected_fini(&collected);
	stop_cache();
}
END_TEST

/* What asleep nodes held is known when they have been read once more. */
START_TEST(trees_that_are_asleep_go_and_are_foretold_as_well)
{
	struct collected dry, real;
	struct digest below, one, two;

	node_memory = 1;
	start_cache();
	below = cache_tree("bs");
	draft_init(&draft);
	draft_file(&draft, "one", store_file('1'), false);
	draft_directory(&draft, "below", below);
	one = draft_store(&draft);
	(void)use_tree(&one);
	two = cache_tree("2s");
	run_until_idle();
	ck_assert_uint_eq(nodes_memory(cache.nodes), 0);
	collect(&dry, SIZE + 1, true); /* the tree below the first gives back nothing */
	collect(&real, SIZE + 1, false);
	ck_assert_uint_eq(real.gc.n_trees, 2);
	ck_assert_uint_eq(dry.gc.n_trees, 2);
	ck_assert_uint_eq(dry.gc.trees[0].bytes, 0);
	ck_assert_uint_eq(real.gc.trees[0].bytes, 0);
	ck_assert_uint_eq(dry.gc.trees[1].bytes, real.gc.trees[1].bytes);
	ck_assert_uint_eq(dry.gc.n_blobs, real.gc.n_blobs);
	ck_assert_uint_eq(dry.gc.bytes, real.gc.bytes);
	ck_assert(!is_cached(&below) && !is_cached(&one) && is_cached(&two) && has_file('s') &&
		  has_file('2'));
	collected_fini(&dry);
	collected_fini(&real);
	use(&two);
	stop_cache();
}
END_TEST

/* And no more of them than had each been waited for. */
START_TEST(trees_that_are_to_go_anyway_go_in_one_commit)
{
	struct digest digests[26];
	struct collected dry, real;
	uint64_t n_commits;

	start_cache();
	for (unsigned i = 0; i < 26; i++)
		digests[i] =
			cache_tree((char[]){ (char)('a' + i), 'S', '\0' }); /* one file of all, one its own */
	collect(&dry, 20 * ONE_TREE, true);
	n_commits = index_n_commits(cache.index);
	collect(&real, 20 * ONE_TREE, false);
	ck_assert_uint_eq(real.gc.n_trees, 20);
	ck_assert_uint_eq(dry.gc.n_trees, 20);
	for (unsigned i = 0; i < 26; i++) {
		ck_assert_int_eq(is_cached(&digests[i]), i >= 20);
		ck_assert(i >= 20 || digest_equal(&real.gc.trees[i].digest, &digests[i]));
		ck_assert(i >= 20 || (real.gc.trees[i].bytes > SIZE && real.gc.trees[i].bytes < 2 * SIZE));
		ck_assert(i >= 20 || real.gc.trees[i].bytes == dry.gc.trees[i].bytes);
	}
	collected_fini(&dry);
	collected_fini(&real);
	/* One drops the trees, the others the blobs, in batches. */
	ck_assert_uint_le(index_n_commits(cache.index), n_commits + 4);
	stop_cache();
}
END_TEST

static bool a_node_is_read(void *ctx)
{
	(void)ctx;
	return nodes_n_under_way(cache.nodes);
}

static void use_it(const struct digest *digest)
{
	ck_assert_int_eq(use_tree(digest), TREE_HIT);
}

static void hold_it(const struct digest *digest)
{
	ck_assert(trees_hold(cache.trees, digest));
}

static void tag_it(const struct digest *digest)
{
	ck_assert(tags_load(cache.tags, &(struct index_tag){ .name = "late", .digest = *digest }));
}

/* Four trees, of which two are to go; the oldest is wanted when it was chosen, and others are to join it. */
static struct digest collect_while(void (*want)(const struct digest *digest))
{
	struct collected collected = { .gc = { .has_to = true } };
	struct digest digests[4];

	node_memory = 1;
	start_cache();
	for (unsigned i = 0; i < 4; i++)
		digests[i] = cache_tree((char[]){ (char)('a' + i), '\0' });
	collected.gc.to = measure() - 2 * ONE_TREE;
	begin_gc(&collected);
	run_until(a_node_is_read, NULL);
	want(&digests[0]);
	run_until_set(&collected.done);
	ck_assert_uint_eq(collected.gc.n_trees, 2);
	ck_assert(is_cached(&digests[0]) && has_file('a') && is_cached(&digests[3]) && has_file('d'));
	ck_assert(!is_cached(&digests[1]) && !is_cached(&digests[2]));
	collected_fini(&collected);
	return digests[0];
}

START_TEST(a_tree_that_is_used_before_it_goes_stays)
{
	(void)collect_while(use_it);
	stop_cache();
}
END_TEST

START_TEST(a_tree_that_is_held_before_it_goes_stays)
{
	struct digest digest = collect_while(hold_it);

	trees_unhold(cache.trees, &digest);
	stop_cache();
}
END_TEST

START_TEST(a_tree_that_is_tagged_before_it_goes_stays)
{
	(void)collect_while(tag_it);
	stop_cache();
}
END_TEST

START_TEST(a_gc_can_be_cancelled)
{
	struct collected collected = { .gc = { .has_to = true } };
	struct collected dry = { .gc = { .has_to = true, .dry_run = true } };

	start_cache();
	(void)cache_tree("abc");
	begin_gc(&collected);
	begin_gc(&dry);
	evict_gc_cancel(&collected.gc);
	evict_gc_cancel(&dry.gc);
	run_until_set(&collected.done);
	run_until_set(&dry.done);
	ck_assert_uint_eq(collected.gc.n_trees + dry.gc.n_trees, 0);
	collected_fini(&collected);
	collected_fini(&dry);
	stop_cache();
}
END_TEST

UNIT_MAIN("evict", the_least_recently_used_tree_goes_first_and_what_others_need_stays,
	  one_clock_orders_trees_and_blobs_that_nobody_holds, what_is_held_or_tagged_stays,
	  a_dry_run_changes_nothing_and_says_what_then_goes,
	  without_a_cap_and_a_goal_only_what_nobody_holds_goes, a_blob_that_a_worker_relies_on_stays,
	  both_kinds_of_a_blob_go, a_subtree_that_another_tree_has_stays_whole,
	  after_a_start_the_order_of_use_is_as_it_was, nothing_goes_before_all_cached_trees_are_read,
	  a_dry_run_waits_until_all_cached_trees_are_read, for_what_no_disk_could_hold_nothing_goes,
	  a_blob_that_lost_one_kind_has_the_row_of_the_other, a_blob_that_is_held_before_it_goes_stays,
	  a_blob_may_be_held_while_it_is_on_its_way_out, trees_that_are_asleep_go_and_are_foretold_as_well,
	  trees_that_are_to_go_anyway_go_in_one_commit, a_tree_that_is_used_before_it_goes_stays,
	  a_tree_that_is_held_before_it_goes_stays, a_tree_that_is_tagged_before_it_goes_stays,
	  a_gc_can_be_cancelled)
