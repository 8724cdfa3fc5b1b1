/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/daemon.h"

static struct draft draft;

/* A tree of one file. */
static struct digest cache_tree(const char *text)
{
	struct digest digest;

	draft_init(&draft);
	draft_file(&draft, "f", store_text(text, BLOB_PLAIN), false);
	digest = draft_store(&draft);
	(void)use_tree(&digest);
	return digest;
}

static bool skip_one(void *ctx, const struct digest *digest)
{
	return ctx && digest_equal(ctx, digest);
}

static bool oldest_is(const struct digest *digest, struct digest *skipped)
{
	struct tree_victim victim;

	return trees_oldest(cache.trees, skip_one, skipped, &victim) && digest_equal(&victim.digest, digest);
}

START_TEST(the_oldest_tree_is_the_least_recently_used_that_is_neither_held_nor_skipped)
{
	struct digest a, b, c;
	struct tree_victim victim;

	start_cache();
	ck_assert(!trees_oldest(cache.trees, skip_one, NULL, &victim));
	a = cache_tree("a");
	b = cache_tree("b");
	c = cache_tree("c");
	ck_assert(oldest_is(&a, NULL));
	ck_assert(oldest_is(&b, &a));
	(void)use_tree(&a); /* a hit: the order is a c b */
	ck_assert(oldest_is(&b, NULL));
	ck_assert(trees_hold(cache.trees, &b));
	ck_assert(trees_hold(cache.trees, &b));
	ck_assert(oldest_is(&c, NULL));
	ck_assert(oldest_is(&a, &c));
	trees_unhold(cache.trees, &b);
	ck_assert(oldest_is(&c, NULL));
	trees_unhold(cache.trees, &b);
	ck_assert(oldest_is(&b, NULL));
	ck_assert(trees_oldest(cache.trees, skip_one, NULL, &victim));
	ck_assert_ptr_eq(victim.node, nodes_find(cache.nodes, &b));
	stop_cache();
}
END_TEST

START_TEST(only_what_is_cached_is_held)
{
	struct digest digest;

	start_cache();
	digest = cache_tree("a");
	digest.size++; /* another tree */
	ck_assert(!trees_hold(cache.trees, &digest));
	digest = absent_digest(1);
	ck_assert(!trees_hold(cache.trees, &digest));
	stop_cache();
}
END_TEST

START_TEST(an_evicted_tree_is_gone_at_once_and_lets_its_blobs_go_when_its_row_is)
{
	struct evicted evicted = { 0 };
	struct digest digest, file;
	struct tree_victim victim;

	start_cache();
	digest = cache_tree("a");
	file = nodes_find(cache.nodes, &digest)->directory->files[0].digest;
	ck_assert(trees_oldest(cache.trees, skip_one, NULL, &victim));
	trees_evict(cache.trees, &digest, on_tree_evicted, &evicted);
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	ck_assert(!trees_hold(cache.trees, &digest));
	ck_assert_uint_eq(catalog_find(cache.catalog, &file)->holds, 1);
	run_until_set(&evicted.done);
	ck_assert_int_eq(evicted.r, 0);
	run_until_idle();
	ck_assert_uint_eq(catalog_find(cache.catalog, &file)->holds, 0);
	ck_assert_uint_eq(catalog_find(cache.catalog, &file)->used, victim.used);
	ck_assert_ptr_null(nodes_find(cache.nodes, &digest));
	restart_cache();
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	ck_assert_int_eq(use_tree(&digest), TREE_MISS);
	stop_cache();
}
END_TEST

START_TEST(what_another_tree_needs_stays_held)
{
	struct digest digest, file, above;

	start_cache();
	digest = cache_tree("a");
	file = nodes_find(cache.nodes, &digest)->directory->files[0].digest;
	draft_directory(&draft, "d", digest);
	above = draft_store(&draft);
	(void)use_tree(&above);
	evict_tree(&digest);
	ck_assert_uint_eq(catalog_find(cache.catalog, &file)->holds, 1);
	ck_assert_int_eq(use_tree(&digest), TREE_HIT); /* below a cached one */
	evict_tree(&digest);
	evict_tree(&above);
	ck_assert_uint_eq(catalog_find(cache.catalog, &file)->holds, 0);
	stop_cache();
}
END_TEST

START_TEST(a_tree_asked_for_while_its_row_goes_is_a_hit_and_cached_again)
{
	struct evicted evicted = { 0 };
	struct digest digest;

	start_cache();
	digest = cache_tree("a");
	trees_evict(cache.trees, &digest, on_tree_evicted, &evicted);
	ck_assert_int_eq(use_tree(&digest), TREE_HIT);
	run_until_set(&evicted.done);
	restart_cache();
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	ck_assert_int_eq(use_tree(&digest), TREE_HIT);
	stop_cache();
}
END_TEST

/* From now on files cannot grow beyond so many bytes: the index cannot write. */
static void limit_files(rlim_t bytes)
{
	struct rlimit limit;

	(void)signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &limit), 0);
	limit.rlim_cur = bytes;
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

START_TEST(a_tree_whose_row_cannot_be_dropped_is_cached_again_in_its_place)
{
	struct evicted evicted = { 0 };
	struct digest a, b, c, file;

	start_cache();
	a = cache_tree("a");
	b = cache_tree("b");
	c = cache_tree("c");
	trees_flush(cache.trees);
	run_until_idle();
	file = nodes_find(cache.nodes, &b)->directory->files[0].digest;
	limit_files(16);
	trees_evict(cache.trees, &b, on_tree_evicted, &evicted);
	run_until_set(&evicted.done);
	limit_files(RLIM_INFINITY);
	ck_assert_int_lt(evicted.r, 0);
	ck_assert_uint_eq(catalog_find(cache.catalog, &file)->holds, 1);
	ck_assert_uint_eq(trees_n(cache.trees), 3);
	ck_assert(oldest_is(&a, NULL));
	ck_assert(oldest_is(&b, &a));
	evict_tree(&b);
	ck_assert(oldest_is(&c, &a));
	stop_cache();
}
END_TEST

START_TEST(nothing_may_be_evicted_until_all_cached_trees_were_read)
{
	start_cache();
	ck_assert(trees_may_evict(cache.trees));
	(void)cache_tree("a");
	stop_cache();
	open_cache();
	ck_assert(!trees_may_evict(cache.trees));
	load_cache();
	run_until_idle();
	ck_assert(trees_may_evict(cache.trees));
	cache_stop(&cache);
	ck_assert(!trees_may_evict(cache.trees));
	run_until_idle();
	close_cache();
}
END_TEST

START_TEST(a_tree_that_cannot_be_read_after_a_start_is_cached_no_more)
{
	struct asked asked;
	struct digest digest;

	start_cache();
	digest = cache_tree("a");
	stop_cache();
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	start_cache();
	ck_assert(trees_may_evict(cache.trees));
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	(void)cache_tree("a"); /* it is there again, and resolved anew */
	ck_assert_uint_eq(cache.counters.tree_misses, 1);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	restart_cache();
	restart_cache(); /* its row is gone, too */
	get_tree(&asked, &digest);
	ck_assert_int_eq(asked.r, -ENOENT);
	ck_assert_uint_eq(cache.counters.tree_misses, 1);
	stop_cache();
}
END_TEST

UNIT_MAIN("tree_evict", the_oldest_tree_is_the_least_recently_used_that_is_neither_held_nor_skipped,
	  only_what_is_cached_is_held, an_evicted_tree_is_gone_at_once_and_lets_its_blobs_go_when_its_row_is,
	  what_another_tree_needs_stays_held, a_tree_asked_for_while_its_row_goes_is_a_hit_and_cached_again,
	  a_tree_whose_row_cannot_be_dropped_is_cached_again_in_its_place,
	  nothing_may_be_evicted_until_all_cached_trees_were_read,
	  a_tree_that_cannot_be_read_after_a_start_is_cached_no_more)
