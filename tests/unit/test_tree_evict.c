/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/resource.h>

#include "tests/unit/leaving.h"

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

START_TEST(the_oldest_tree_is_the_least_recently_used_that_is_neither_held_nor_skipped)
{
	struct digest a, b, c;
	struct tree_victim victim;

	start_cache();
	ck_assert(!find_oldest(NULL, &victim));
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
	ck_assert(find_oldest(NULL, &victim));
	ck_assert(victim.is_known);
	ck_assert_uint_eq(victim.n_entries, 2);
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
	struct evicted evicted;
	struct digest digest, file;
	struct tree_victim victim;

	start_cache();
	digest = cache_tree("a");
	file = nodes_find(cache.nodes, &digest)->directory->files[0].digest;
	ck_assert(find_oldest(NULL, &victim));
	begin_to_evict(&evicted, &digest);
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
	struct evicted evicted;
	struct digest digest;

	start_cache();
	digest = cache_tree("a");
	begin_to_evict(&evicted, &digest);
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
	struct evicted evicted;
	struct digest a, b, c, file;

	start_cache();
	a = cache_tree("a");
	b = cache_tree("b");
	c = cache_tree("c");
	trees_flush(cache.trees);
	run_until_idle();
	file = nodes_find(cache.nodes, &b)->directory->files[0].digest;
	limit_files(16);
	begin_to_evict(&evicted, &b);
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

/* Trees of one file each, the texts "0", "1" ... */
static void cache_trees(struct digest *digests, size_t n)
{
	char text[8];

	for (size_t i = 0; i < n; i++) {
		(void)snprintf(text, sizeof(text), "%zu", i);
		digests[i] = cache_tree(text);
	}
}

START_TEST(trees_that_go_together_have_one_commit_and_let_their_blobs_go_one_after_the_other)
{
	struct tree_victim victims[3];
	struct evicted evicted = { 0 };
	struct digest digests[4];
	uint64_t n_commits;

	start_cache();
	cache_trees(digests, 4);
	trees_flush(cache.trees);
	run_until_idle();
	for (size_t i = 0; i < 3; i++)
		victims[i] = (struct tree_victim){ .digest = digests[i] };
	n_commits = index_n_commits(cache.index);
	trees_evict(cache.trees, victims, 3, on_tree_evicted, &evicted);
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	ck_assert(oldest_is(&digests[3], NULL));
	run_until_set(&evicted.done); /* which releases the first */
	for (size_t i = 0; i < 3; i++) {
		run_until_idle();
		ck_assert_ptr_null(nodes_find(cache.nodes, &digests[i]));
		if (i == 2)
			break;
		ck_assert_ptr_nonnull(nodes_find(cache.nodes, &digests[i + 1]));
		trees_release_one(cache.trees);
	}
	ck_assert_uint_eq(index_n_commits(cache.index), n_commits + 1);
	restart_cache();
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	stop_cache();
}
END_TEST

/* Whatever happens to the tree that it is at. */
START_TEST(a_walk_goes_on_where_it_was)
{
	enum { N = 8 };
	struct digest digests[N];
	struct tree_victim victim;
	struct index_tree rows[N];
	struct tree_walk walk, other;

	start_cache();
	cache_trees(digests, N);
	tree_walk_begin(cache.trees, &walk, false);
	tree_walk_begin(cache.trees, &other, true);
	ck_assert_uint_eq(tree_walk_skip(&walk, 2), 2);
	(void)use_tree(&digests[2]); /* the youngest now */
	ck_assert_int_eq(tree_walk_find(&walk, skip_one, NULL, &victim), TREE_FOUND);
	ck_assert(digest_equal(&victim.digest, &digests[3]));
	evict_tree(&digests[3]);
	ck_assert(trees_hold(cache.trees, &digests[4]));
	ck_assert(trees_used_since(cache.trees, &victim));
	tree_walk_pass_over(&walk, &digests[5]);
	ck_assert_int_eq(tree_walk_find(&walk, skip_one, &digests[6], &victim), TREE_FOUND);
	ck_assert(digest_equal(&victim.digest, &digests[7]));
	ck_assert(!trees_used_since(cache.trees, &victim));
	ck_assert(!trees_may_go(cache.trees, &digests[4]));
	trees_unhold(cache.trees, &digests[4]);
	tree_walk_rewind(&walk);
	ck_assert_uint_eq(tree_walk_list(&walk, rows, N), N - 1);
	ck_assert(digest_equal(&rows[0].digest, &digests[0]));
	ck_assert(digest_equal(&rows[2].digest, &digests[4]));
	ck_assert(digest_equal(&rows[N - 2].digest, &digests[2]));
	ck_assert_int_eq(tree_walk_find(&walk, skip_one, NULL, &victim), TREE_NONE);
	ck_assert_uint_eq(tree_walk_list(&other, rows, 2), 2); /* what came after it had begun is not met */
	ck_assert(digest_equal(&rows[0].digest, &digests[7]));
	ck_assert(digest_equal(&rows[1].digest, &digests[6]));
	tree_walk_end(&walk);
	tree_walk_end(&other);
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
	  trees_that_go_together_have_one_commit_and_let_their_blobs_go_one_after_the_other,
	  a_walk_goes_on_where_it_was, nothing_may_be_evicted_until_all_cached_trees_were_read,
	  a_tree_that_cannot_be_read_after_a_start_is_cached_no_more)
