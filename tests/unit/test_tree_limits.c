/* SPDX-License-Identifier: Apache-2.0 */
/* Trees beyond the limits: refused by name, and neither cached nor held. */
#include "tests/unit/daemon.h"

static struct draft draft;

/* Ask for a tree of a cache with these limits; words: NULL when it is to be had. */
static void ck_limits(const struct tree_limits *of, const struct digest *digest, enum tree_purpose purpose,
		      const char *words)
{
	struct asked asked;

	limits = of;
	restart_cache();
	ask(&asked, digest, purpose);
	run_until_set(&asked.done);
	if (!words) {
		ck_assert_msg(asked.r == 0, "%s", asked.err.text);
		asked_fini(&asked);
		return;
	}
	ck_assert_int_lt(asked.r, 0);
	unit_ck_err(&asked.err, ERR_RESOURCE_EXHAUSTED, words);
	ck_assert_uint_eq(asked.n_missing, 0);
	ck_assert_ptr_null(asked.request.node);
	run_until_idle();
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	ck_assert_uint_eq(nodes_n(cache.nodes), 0);
	ck_assert_uint_eq(catalog_find(cache.catalog, digest)->holds, 0);
}

START_TEST(a_limit_is_named_with_what_there_is_and_its_option)
{
	static const struct {
		struct tree_limits limits;
		const char *words;
	} cases[] = {
		{ { 3, 9, 9, 0, 9 }, "4 files: the limit is 3 (max-tree-files)" },
		{ { 9, 1, 9, 0, 9 }, "2 directories: the limit is 1 (max-tree-directories)" },
		{ { 9, 9, 1, 0, 9 }, "2 levels: the limit is 1 (max-tree-depth)" },
		{ { 9, 9, 9, 31, 9 }, "32 bytes: the limit is 31 (max-tree-size)" },
		{ { 9, 9, 9, 0, 4 }, "5 entries: the limit is 4" },
	};
	static const struct tree_limits just_enough = { 4, 2, 2, 32, 5 };
	struct digest digest;

	start_cache();
	digest = store_usual_tree();
	for (unsigned row = 0; row < N_ELEMENTS(cases); row++) {
		ck_limits(&cases[row].limits, &digest, TREE_FOR_MATERIALIZE, cases[row].words);
		ck_limits(&cases[row].limits, &digest, TREE_FOR_PUT, cases[row].words);
	}
	ck_limits(&just_enough, &digest, TREE_FOR_MATERIALIZE, NULL);
	stop_cache();
}
END_TEST

START_TEST(symlinks_are_limited_as_files_are)
{
	static const struct tree_limits two = { 2, 9, 9, 0, 9 };
	struct digest digest;

	start_cache();
	draft_init(&draft);
	draft_symlink(&draft, "a", "x");
	draft_symlink(&draft, "b", "x");
	draft_symlink(&draft, "c", "x");
	digest = draft_store(&draft);
	ck_limits(&two, &digest, TREE_FOR_MATERIALIZE, "3 symlinks: the limit is 2 (max-tree-files)");
	stop_cache();
}
END_TEST

START_TEST(one_may_look_at_what_is_too_large_to_be_made)
{
	static const struct tree_limits small = { 1, 1, 1, 1, 9 };
	struct digest digest;

	start_cache();
	digest = store_usual_tree();
	ck_limits(&small, &digest, TREE_FOR_LOOK, NULL);
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(a_cached_tree_is_refused_when_the_limits_were_lowered)
{
	static const struct tree_limits small = { 3, 9, 9, 0, 9 };
	struct asked asked;
	struct digest digest;

	start_cache();
	digest = store_usual_tree();
	(void)use_tree(&digest);
	limits = &small;
	restart_cache();
	get_tree(&asked, &digest);
	unit_ck_err(&asked.err, ERR_RESOURCE_EXHAUSTED, "max-tree-files");
	stop_cache();
}
END_TEST

/* As many levels as said, each with the one below twice: 2^levels directories, in as many Directories. */
static struct digest store_doubling(unsigned levels)
{
	struct digest digest;

	draft_init(&draft);
	draft_file(&draft, "f", store_text("f", BLOB_PLAIN), false);
	digest = draft_store(&draft);
	for (unsigned i = 0; i < levels; i++) {
		draft_directory(&draft, "l", digest);
		draft_directory(&draft, "r", digest);
		digest = draft_store(&draft);
	}
	return digest;
}

START_TEST(a_small_dag_that_stands_for_two_to_the_forty_is_refused)
{
	struct digest digest;

	start_cache();
	digest = store_doubling(40);
	ck_limits(&tree_default_limits, &digest, TREE_FOR_MATERIALIZE, "1099511627776 files");
	ck_assert_uint_eq(cache.counters.directory_misses, 41);
	digest = store_doubling(100); /* beyond what 64 bits can count */
	ck_limits(&tree_default_limits, &digest, TREE_FOR_PUT, "at least");
	stop_cache();
}
END_TEST

START_TEST(a_chain_of_more_than_a_thousand_directories_is_refused)
{
	struct digest digest = digest_empty;

	start_cache();
	draft_init(&draft);
	for (unsigned i = 1; i <= 1000; i++) {
		draft_directory(&draft, "d", digest);
		digest = draft_store(&draft);
	}
	ck_limits(&tree_default_limits, &digest, TREE_FOR_MATERIALIZE, "1001 levels: the limit is 1000");
	stop_cache();
}
END_TEST

UNIT_MAIN("tree_limits", a_limit_is_named_with_what_there_is_and_its_option,
	  symlinks_are_limited_as_files_are, one_may_look_at_what_is_too_large_to_be_made,
	  a_cached_tree_is_refused_when_the_limits_were_lowered,
	  a_small_dag_that_stands_for_two_to_the_forty_is_refused,
	  a_chain_of_more_than_a_thousand_directories_is_refused)
