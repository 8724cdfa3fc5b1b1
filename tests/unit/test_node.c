/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node.h"

#include "tests/unit/daemon.h"

static struct draft draft;

struct waiting {
	struct node_waiter waiter; /* first */
	bool settled, failed;
	struct node_failure failure;
};

static void on_settled(struct node_waiter *waiter, const struct node_failure *failure)
{
	struct waiting *w = (struct waiting *)waiter;

	ck_assert(!w->settled);
	w->settled = true;
	w->failed = failure;
	if (failure)
		w->failure = *failure;
}

static struct node *begin(struct waiting *w, const struct digest *digest)
{
	struct node *node = nodes_resolve(cache.nodes, digest, false);

	*w = (struct waiting){ .waiter.settled = on_settled };
	if (node_is_resolved(node))
		w->settled = true;
	else
		node_wait(node, &w->waiter);
	return node;
}

/* Resolve, and wait. Return: a reference; the node of a failure is no use but to be put. */
static struct node *resolve(struct waiting *w, const struct digest *digest)
{
	struct node *node = begin(w, digest);

	run_until_set(&w->settled);
	return node;
}

static void check_totals(const struct node *node, uint64_t files, uint64_t directories, uint64_t symlinks,
			 uint64_t bytes, uint64_t depth)
{
	ck_assert_uint_eq(node->totals.n_files, files);
	ck_assert_uint_eq(node->totals.n_directories, directories);
	ck_assert_uint_eq(node->totals.n_symlinks, symlinks);
	ck_assert_uint_eq(node->totals.bytes, bytes);
	ck_assert_uint_eq(node->totals.depth, depth);
}

START_TEST(a_tree_is_resolved_with_its_totals)
{
	struct digest digest;
	struct waiting w;
	struct node *node;

	start_cache();
	digest = store_usual_tree();
	node = resolve(&w, &digest);
	ck_assert(!w.failed && node_is_resolved(node));
	check_totals(node, 4, 2, 1, 11 + 11 + 10, 2);
	ck_assert_str_eq(node->directory->directories[0].name, "below");
	ck_assert_uint_eq(node->children[0]->totals.n_files, 1);
	ck_assert_ptr_eq(nodes_find(cache.nodes, &digest), node);
	ck_assert_uint_eq(cache.counters.directory_misses, 2);
	node_put(node);
	run_until_idle();
	ck_assert_ptr_null(nodes_find(cache.nodes, &digest));
	stop_cache();
}
END_TEST

START_TEST(the_empty_directory_is_a_tree_that_needs_no_blob)
{
	struct waiting w;
	struct node *node;

	start_cache();
	node = resolve(&w, &digest_empty);
	ck_assert(!w.failed);
	check_totals(node, 0, 1, 0, 0, 1);
	node_put(node);
	stop_cache();
}
END_TEST

START_TEST(a_shared_subtree_is_loaded_once)
{
	struct digest shared, left, right, root;
	struct waiting w;
	struct node *node;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", store_text("f", BLOB_PLAIN), false);
	shared = draft_store(&draft);
	draft_directory(&draft, "a", shared);
	draft_directory(&draft, "b", shared);
	left = draft_store(&draft);
	draft_directory(&draft, "c", shared);
	draft_directory(&draft, "d", left);
	right = draft_store(&draft);
	draft_directory(&draft, "left", left);
	draft_directory(&draft, "right", right);
	root = draft_store(&draft);
	node = resolve(&w, &root);
	ck_assert(!w.failed);
	check_totals(node, 2 + 3, 1 + 3 + 5, 0, 5, 4);
	ck_assert_uint_eq(cache.counters.directory_misses, 4);
	ck_assert_uint_eq(cache.counters.directory_hits, 3);
	ck_assert_ptr_eq(node->children[0], node->children[1]->children[1]);
	node_put(node);
	stop_cache();
}
END_TEST

START_TEST(a_chain_of_five_thousand_directories_does_not_recurse)
{
	struct digest digest = digest_empty;
	struct waiting w;
	struct node *node;

	start_cache();
	draft_init(&draft);
	for (unsigned i = 1; i < 5000; i++) {
		draft_directory(&draft, "d", digest);
		digest = draft_store(&draft);
	}
	node = resolve(&w, &digest);
	ck_assert(!w.failed);
	check_totals(node, 0, 5000, 0, 0, 5000);
	node_put(node);
	run_until_idle();
	ck_assert_ptr_null(nodes_find(cache.nodes, &digest_empty));
	stop_cache();
}
END_TEST

START_TEST(the_failure_at_the_end_of_a_long_chain_reaches_its_beginning)
{
	struct digest digest = absent_digest(7);
	struct waiting w;

	start_cache();
	draft_init(&draft);
	for (unsigned i = 1; i < 2000; i++) {
		draft_directory(&draft, "d", digest);
		digest = draft_store(&draft);
	}
	node_put(resolve(&w, &digest));
	ck_assert(w.failed);
	ck_assert_int_eq(w.failure.r, -ENOENT);
	ck_assert_uint_eq(w.failure.n_missing, 1);
	ck_assert_uint_eq(w.failure.missing[0].size, 1007);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(a_dag_that_stands_for_two_to_the_forty_is_counted_and_saturates)
{
	struct digest digest;
	struct waiting w;
	struct node *node;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", store_text("f", BLOB_PLAIN), false);
	draft_symlink(&draft, "s", "f");
	digest = draft_store(&draft);
	for (unsigned i = 0; i < 40; i++) {
		draft_directory(&draft, "l", digest);
		draft_directory(&draft, "r", digest);
		digest = draft_store(&draft);
	}
	node = resolve(&w, &digest);
	ck_assert(!w.failed);
	check_totals(node, UINT64_C(1) << 40, (UINT64_C(1) << 41) - 1, UINT64_C(1) << 40, UINT64_C(1) << 40,
		     41);
	ck_assert_uint_eq(cache.counters.directory_misses, 41);
	node_put(node);
	for (unsigned i = 40; i < 100; i++) { /* beyond what 64 bits can count */
		draft_directory(&draft, "l", digest);
		draft_directory(&draft, "r", digest);
		digest = draft_store(&draft);
	}
	node = resolve(&w, &digest);
	check_totals(node, UINT64_MAX, UINT64_MAX, UINT64_MAX, UINT64_MAX, 101);
	node_put(node);
	stop_cache();
}
END_TEST

START_TEST(missing_blobs_are_all_named_up_to_a_hundred)
{
	static char names[200][8];
	struct digest root;
	struct waiting w;

	start_cache();
	draft_init(&draft);
	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%u", i);
		draft_file(&draft, names[i], absent_digest(i % 60), i % 2);
	}
	root = draft_store(&draft);
	node_put(resolve(&w, &root));
	ck_assert(w.failed);
	ck_assert_int_eq(w.failure.r, -ENOENT);
	unit_ck_err(&w.failure.err, ERR_NOT_FOUND, "is not in the store");
	ck_assert_uint_eq(w.failure.n_missing, 60); /* each once */
	draft_init(&draft);
	for (unsigned i = 0; i < 200; i++)
		draft_file(&draft, names[i], absent_digest(i), false);
	root = draft_store(&draft);
	node_put(resolve(&w, &root));
	ck_assert_uint_eq(w.failure.n_missing, NODE_MISSING_MAX);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(what_is_missing_in_all_subtrees_is_named)
{
	struct digest a, b, root;
	struct waiting w;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "x", absent_digest(1), false);
	draft_file(&draft, "y", absent_digest(2), true);
	a = draft_store(&draft);
	draft_file(&draft, "x", absent_digest(3), false);
	draft_directory(&draft, "absent", absent_digest(4));
	b = draft_store(&draft);
	draft_directory(&draft, "a", a);
	draft_directory(&draft, "b", b);
	draft_file(&draft, "f", absent_digest(5), false);
	root = draft_store(&draft);
	node_put(resolve(&w, &root));
	ck_assert(w.failed);
	ck_assert_uint_eq(w.failure.n_missing, 5);
	run_until_idle();
	ck_assert_ptr_null(nodes_find(cache.nodes, &root));
	ck_assert_ptr_null(nodes_find(cache.nodes, &a));
	stop_cache();
}
END_TEST

START_TEST(a_file_node_with_a_wrong_size_is_an_invalid_tree)
{
	struct digest digest, root;
	struct waiting w;

	start_cache();
	draft_init(&draft);
	digest = store_text("four", BLOB_PLAIN);
	digest.size = 5;
	draft_file(&draft, "lies", digest, false);
	root = draft_store(&draft);
	node_put(resolve(&w, &root));
	ck_assert(w.failed);
	ck_assert_int_eq(w.failure.r, -EINVAL);
	unit_ck_err(&w.failure.err, ERR_INVALID_ARGUMENT, "'lies' claims 5 bytes, but that blob has 4");
	ck_assert_uint_eq(w.failure.n_missing, 0);
	ck_assert_uint_eq(cache.counters.tampered_blobs, 0);
	digest.size = 4;
	ck_assert_int_eq(blob_stat(cache.store, &digest, BLOB_PLAIN, NULL, &err), 0);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(a_directory_node_with_a_wrong_size_is_an_invalid_tree)
{
	struct digest below, wrong, root;
	struct waiting w;
	struct node *node;

	start_cache();
	wrong = below = store_usual_tree();
	wrong.size++;
	draft_init(&draft);
	draft_directory(&draft, "lies", wrong);
	root = draft_store(&draft);
	node = resolve(&w, &below); /* so that its size is known */
	node_put(resolve(&w, &root));
	ck_assert(w.failed);
	ck_assert_int_eq(w.failure.r, -EINVAL);
	unit_ck_err(&w.failure.err, ERR_INVALID_ARGUMENT, "'lies' claims");
	ck_assert(node_is_resolved(node));
	node_put(node);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(what_is_no_directory_message_is_refused_with_its_digest)
{
	struct digest digest;
	struct waiting w;

	start_cache();
	digest = store_text("this is no Directory", BLOB_PLAIN);
	node_put(resolve(&w, &digest));
	ck_assert(w.failed);
	ck_assert_int_eq(w.failure.r, -EINVAL);
	unit_ck_err(&w.failure.err, ERR_INVALID_ARGUMENT, DIGEST_TEXT(&digest));
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(a_missing_kind_is_made_from_the_other_before_the_node_is_resolved)
{
	struct digest digest, root;
	struct waiting w;
	struct node *node;

	start_cache();
	draft_init(&draft);
	digest = store_text("both", BLOB_PLAIN);
	draft_file(&draft, "plain", digest, false);
	draft_file(&draft, "run", digest, true);
	root = draft_store(&draft);
	node = resolve(&w, &root);
	ck_assert(!w.failed);
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_EXEC));
	ck_assert_uint_eq(cache.counters.blob_fetches, 1);
	node_put(node);
	stop_cache();
}
END_TEST

START_TEST(a_blob_that_only_the_disk_knows_is_found)
{
	struct digest root;
	struct waiting w;
	struct node *node;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", store_bytes("unknown", 7, BLOB_PLAIN, false), false);
	root = draft_store(&draft);
	node = resolve(&w, &root);
	ck_assert(!w.failed);
	node_put(node);
	stop_cache();
}
END_TEST

START_TEST(two_who_wait_hear_the_same_failure_and_the_next_starts_anew)
{
	struct waiting w[2], again;
	struct digest root;
	struct node *node;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", absent_digest(0), false);
	root = draft_store(&draft);
	node_put(begin(&w[0], &root));
	node_put(begin(&w[1], &root)); /* what is under way keeps itself */
	run_until_set(&w[1].settled);
	run_until_set(&w[0].settled);
	ck_assert(w[0].failed && w[1].failed);
	node = resolve(&again, &root);
	ck_assert(again.failed);
	node_put(node);
	ck_assert_uint_eq(cache.counters.directory_misses, 2);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(an_adopted_directory_is_resolved_without_a_read)
{
	struct waiting w = { .waiter.settled = on_settled };
	AUTO_FREE uint8_t *bytes = NULL;
	struct directory *directory = NULL;
	struct digest root;
	struct node *node;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", store_text("f", BLOB_PLAIN), false);
	root = draft_store(&draft);
	ck_assert_int_eq(blob_read(cache.store, &root, 1000, &bytes, &err), 0);
	ck_assert_int_eq(directory_decode(bytes, root.size, 10, &directory, &err), 0);
	node = nodes_adopt(cache.nodes, &root, directory);
	node_wait(node, &w.waiter);
	run_until_set(&w.settled);
	ck_assert(!w.failed);
	check_totals(node, 1, 1, 0, 1, 1);
	ck_assert_uint_eq(cache.counters.directory_misses, 0);
	node_put(node);
	stop_cache();
}
END_TEST

START_TEST(a_node_dropped_while_it_is_under_way_ends_by_itself)
{
	static char names[DRAFT_MAX][8];
	struct digest digest = digest_empty;
	struct waiting w;
	struct node *node;

	start_cache();
	draft_init(&draft);
	for (unsigned i = 0; i < DRAFT_MAX; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%u", i);
		draft_directory(&draft, names[i], i ? digest : digest_empty);
		if (i == DRAFT_MAX / 2)
			digest = draft_store(&draft);
	}
	digest = draft_store(&draft);
	node = begin(&w, &digest);
	node_wait_no_longer(&w.waiter);
	node_put(node);
	run_until_idle();
	ck_assert(!w.settled);
	ck_assert_ptr_null(nodes_find(cache.nodes, &digest));
	stop_cache();
}
END_TEST

UNIT_MAIN("node", a_tree_is_resolved_with_its_totals, the_empty_directory_is_a_tree_that_needs_no_blob,
	  a_shared_subtree_is_loaded_once, a_chain_of_five_thousand_directories_does_not_recurse,
	  the_failure_at_the_end_of_a_long_chain_reaches_its_beginning,
	  a_dag_that_stands_for_two_to_the_forty_is_counted_and_saturates,
	  missing_blobs_are_all_named_up_to_a_hundred, what_is_missing_in_all_subtrees_is_named,
	  a_file_node_with_a_wrong_size_is_an_invalid_tree,
	  a_directory_node_with_a_wrong_size_is_an_invalid_tree,
	  what_is_no_directory_message_is_refused_with_its_digest,
	  a_missing_kind_is_made_from_the_other_before_the_node_is_resolved,
	  a_blob_that_only_the_disk_knows_is_found,
	  two_who_wait_hear_the_same_failure_and_the_next_starts_anew,
	  an_adopted_directory_is_resolved_without_a_read,
	  a_node_dropped_while_it_is_under_way_ends_by_itself)
