/* SPDX-License-Identifier: Apache-2.0 */
/* Nodes that fall asleep and are woken: the memory of cached trees. */
#include "tests/unit/daemon.h"

static struct draft draft;

/* A file below two directories: three Directories. */
static struct digest store_chain(const char *text)
{
	struct digest digest;

	draft_init(&draft);
	draft_file(&draft, "f", store_text(text, BLOB_PLAIN), false);
	digest = draft_store(&draft);
	draft_directory(&draft, "c", digest);
	digest = draft_store(&draft);
	draft_file(&draft, "top", store_text("top", BLOB_PLAIN), true);
	draft_directory(&draft, "b", digest);
	return draft_store(&draft);
}

static void cache_tree(const struct digest *digest)
{
	(void)use_tree(digest);
	run_until_idle();
}

/* A cache that keeps nothing awake that nobody uses. */
static void start_sleepy_cache(void)
{
	node_memory = 0;
	start_cache();
}

static bool is_asleep(const struct digest *digest)
{
	const struct node *node = nodes_find(cache.nodes, digest);

	ck_assert_ptr_nonnull(node);
	return !node->directory;
}

static unsigned holds(const struct digest *digest)
{
	const struct catalog_entry *entry = catalog_find(cache.catalog, digest);

	return entry ? entry->holds : 0;
}

static uint64_t all_holds(void)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < catalog_end(cache.catalog); i++)
		if (catalog_at(cache.catalog, i))
			sum += catalog_at(cache.catalog, i)->holds;
	return sum;
}

static void unlink_blob(const struct digest *digest)
{
	ck_assert_int_eq(unlink(path_of_blob(digest, BLOB_PLAIN)), 0);
}

START_TEST(what_nobody_uses_falls_asleep_and_keeps_its_totals_and_holds)
{
	struct digest root, below;
	struct tree_totals totals;
	struct asked asked;
	uint64_t held;

	start_sleepy_cache();
	root = store_chain("x");
	get_tree(&asked, &root);
	run_until_idle();
	ck_assert(!is_asleep(&root)); /* in use */
	below = asked.request.node->directory->directories[0].digest;
	totals = asked.request.node->totals;
	held = all_holds();
	ck_assert_uint_gt(nodes_memory(cache.nodes), 0);
	asked_fini(&asked);
	run_until_idle();
	ck_assert(is_asleep(&root) && is_asleep(&below));
	ck_assert_uint_eq(nodes_memory(cache.nodes), 0);
	ck_assert_uint_eq(nodes_n(cache.nodes), 3);
	ck_assert_int_eq(memcmp(&nodes_find(cache.nodes, &root)->totals, &totals, sizeof(totals)), 0);
	ck_assert_uint_eq(all_holds(), held);
	stop_cache();
}
END_TEST

START_TEST(a_sleeping_tree_is_a_hit_and_counts_no_directory)
{
	struct asked asked, part;
	struct digest root, below;

	start_sleepy_cache();
	root = store_chain("x");
	cache_tree(&root);
	ck_assert_uint_eq(cache.counters.directory_misses, 3);
	get_tree(&asked, &root);
	ck_assert_int_eq(asked.request.cache, TREE_HIT);
	below = asked.request.node->children[0]->directory->directories[0].digest;
	ck_assert_str_eq(asked.request.node->children[0]->children[0]->directory->files[0].name, "f");
	ck_assert_uint_eq(asked.request.node->totals.n_files, 2);
	asked_fini(&asked);
	run_until_idle();
	get_tree(&part, &below); /* a subtree, asleep too */
	ck_assert_int_eq(part.request.cache, TREE_HIT);
	ck_assert(is_asleep(&root));
	asked_fini(&part);
	ck_assert_uint_eq(cache.counters.tree_hits, 2);
	ck_assert_uint_eq(cache.counters.directory_misses, 3);
	ck_assert_uint_eq(cache.counters.directory_hits, 0);
	run_until_idle();
	stop_cache();
}
END_TEST

START_TEST(two_who_wake_a_tree_read_it_once_and_both_have_it)
{
	struct asked one, two;
	struct digest root;

	start_sleepy_cache();
	root = store_chain("x");
	cache_tree(&root);
	ask(&one, &root, TREE_FOR_MATERIALIZE);
	ask(&two, &root, TREE_FOR_LOOK);
	ck_assert(!one.done && !two.done);
	tree_cancel(&two.request);
	ask(&two, &root, TREE_FOR_MATERIALIZE);
	run_until_set(&one.done);
	run_until_set(&two.done);
	ck_assert_ptr_eq(one.request.node, two.request.node);
	ck_assert_uint_eq(cache.counters.tree_hits, 2);
	asked_fini(&one);
	run_until_idle();
	ck_assert(!is_asleep(&root));
	asked_fini(&two);
	run_until_idle();
	ck_assert(is_asleep(&root));
	stop_cache();
}
END_TEST

START_TEST(a_changed_tree_over_sleeping_ones_reads_the_changed_path_only)
{
	struct digest shared, path, one, two;
	struct asked asked;

	start_sleepy_cache();
	shared = store_chain("shared");
	draft_file(&draft, "f", store_text("before", BLOB_PLAIN), false);
	path = draft_store(&draft);
	draft_directory(&draft, "path", path);
	draft_directory(&draft, "shared", shared);
	one = draft_store(&draft);
	draft_file(&draft, "f", store_text("after", BLOB_PLAIN), false);
	path = draft_store(&draft);
	draft_directory(&draft, "path", path);
	draft_directory(&draft, "shared", shared);
	two = draft_store(&draft);
	cache_tree(&one);
	ck_assert_uint_eq(cache.counters.directory_misses, 5);
	ck_assert(is_asleep(&shared));
	get_tree(&asked, &two);
	ck_assert_int_eq(asked.request.cache, TREE_MISS);
	ck_assert_uint_eq(cache.counters.directory_misses, 5 + 2);
	ck_assert_uint_eq(cache.counters.directory_hits, 1);
	ck_assert_uint_eq(asked.request.node->totals.n_files, 3);
	ck_assert(!is_asleep(&shared));
	asked_fini(&asked);
	run_until_idle();
	ck_assert(is_asleep(&shared));
	stop_cache();
}
END_TEST

START_TEST(trees_are_put_to_sleep_the_least_recently_used_first)
{
	struct digest trees[3];
	struct asked asked;

	start_cache();
	trees[0] = store_chain("a");
	cache_tree(&trees[0]);
	node_memory = nodes_memory(cache.nodes) * 5 / 2; /* two fit */
	restart_cache();
	for (unsigned i = 0; i < 3; i++) {
		trees[i] = store_chain((const char *[]){ "a", "b", "c" }[i]);
		cache_tree(&trees[i]);
	}
	ck_assert(is_asleep(&trees[0]) && !is_asleep(&trees[1]) && !is_asleep(&trees[2]));
	cache_tree(&trees[1]);
	cache_tree(&trees[0]);
	ck_assert(!is_asleep(&trees[0]) && !is_asleep(&trees[1]) && is_asleep(&trees[2]));
	ck_assert_uint_le(nodes_memory(cache.nodes), node_memory);
	ask(&asked, &trees[1], TREE_FOR_MATERIALIZE);
	ck_assert(asked.done); /* awake: from within */
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(a_start_reads_all_trees_and_keeps_to_its_memory)
{
	struct digest trees[8];
	uint64_t held, one = 0;

	start_cache();
	for (unsigned i = 0; i < 8; i++) {
		trees[i] = store_chain((const char *[]){ "a", "b", "c", "d", "e", "f", "g", "h" }[i]);
		cache_tree(&trees[i]);
		one = i ? one : nodes_memory(cache.nodes);
	}
	held = all_holds();
	stop_cache();
	node_memory = 2 * one + 1;
	start_cache();
	ck_assert(trees_may_evict(cache.trees));
	ck_assert_uint_eq(all_holds(), held);
	ck_assert_uint_le(nodes_memory(cache.nodes), node_memory);
	ck_assert_uint_eq(nodes_n(cache.nodes), 8 * 3);
	ck_assert(!is_asleep(&trees[7]) && !is_asleep(&trees[6])); /* the last used */
	ck_assert(is_asleep(&trees[5]) && is_asleep(&trees[0]));
	cache_tree(&trees[0]);
	ck_assert_uint_eq(cache.counters.tree_hits, 1);
	ck_assert_uint_eq(cache.counters.directory_misses, 0);
	stop_cache();
}
END_TEST

START_TEST(an_evicted_tree_that_was_asleep_releases_all_that_it_held)
{
	struct digest one, two;

	start_sleepy_cache();
	one = store_chain("one");
	two = store_chain("two");
	cache_tree(&one);
	cache_tree(&two);
	ck_assert(is_asleep(&one));
	evict_tree(&one);
	ck_assert_ptr_null(nodes_find(cache.nodes, &one));
	ck_assert_uint_eq(nodes_n(cache.nodes), 3);
	ck_assert_uint_eq(holds(&two), 1);
	evict_tree(&two);
	ck_assert_uint_eq(all_holds(), 0);
	ck_assert_uint_eq(nodes_n(cache.nodes), 0);
	ck_assert_uint_eq(nodes_memory(cache.nodes), 0);
	stop_cache();
}
END_TEST

START_TEST(what_an_unreadable_directory_held_stays_held_and_all_else_goes_on)
{
	struct digest one, two, below;
	struct asked asked;

	start_sleepy_cache();
	one = store_chain("one");
	two = store_chain("two");
	get_tree(&asked, &one);
	below = asked.request.node->directory->directories[0].digest;
	asked_fini(&asked);
	cache_tree(&two);
	unlink_blob(&one);
	evict_tree(&one);
	ck_assert_ptr_null(nodes_find(cache.nodes, &one));
	ck_assert_uint_eq(holds(&one), 0);
	ck_assert_uint_eq(holds(&below), 1); /* nobody knows that it is free */
	cache_tree(&two);
	evict_tree(&two);
	(void)use_tree(&below); /* and it is as good as ever */
	run_until_idle();
	evict_tree(&below);
	restart_cache();
	ck_assert_uint_eq(all_holds(), 0);
	stop_cache();
}
END_TEST

START_TEST(a_tree_that_cannot_be_woken_fails_by_name_and_can_be_had_again)
{
	struct digest root, deep;
	struct asked asked[3];
	uint64_t held;

	start_sleepy_cache();
	root = store_chain("lost");
	get_tree(&asked[0], &root);
	deep = asked[0].request.node->children[0]->directory->directories[0].digest;
	asked_fini(&asked[0]);
	run_until_idle();
	held = all_holds();
	unlink_blob(&deep);
	for (unsigned i = 0; i < 3; i++)
		ask(&asked[i], &root, TREE_FOR_MATERIALIZE);
	for (unsigned i = 0; i < 3; i++) {
		run_until_set(&asked[i].done);
		ck_assert_int_eq(asked[i].r, -ENOENT);
		ck_assert_uint_eq(asked[i].n_missing, 1);
		ck_assert(digest_equal(&asked[i].missing[0], &deep));
	}
	run_until_idle();
	ck_assert(is_asleep(&root) && is_asleep(&deep));
	ck_assert_uint_eq(nodes_memory(cache.nodes), 0);
	ck_assert_uint_eq(all_holds(), held);
	(void)store_chain("lost");
	get_tree(&asked[0], &root);
	ck_assert_int_eq(asked[0].r, 0);
	ck_assert_str_eq(asked[0].request.node->children[0]->children[0]->directory->files[0].name, "f");
	asked_fini(&asked[0]);
	run_until_idle();
	evict_tree(&root);
	ck_assert_uint_eq(all_holds(), 0);
	stop_cache();
}
END_TEST

START_TEST(a_directory_that_is_put_again_wakes_its_node_without_a_read)
{
	struct directory *directory = NULL;
	AUTO_FREE uint8_t *bytes = NULL;
	struct digest root;
	struct node *node;

	start_sleepy_cache();
	draft_file(&draft, "f", store_text("f", BLOB_PLAIN), false);
	root = draft_store(&draft);
	cache_tree(&root);
	ck_assert_int_eq(blob_read(cache.store, &root, 1000, &bytes, &err), 0);
	ck_assert_int_eq(directory_decode(bytes, root.size, 10, &directory, &err), 0);
	unlink_blob(&root);
	node = nodes_adopt(cache.nodes, &root, directory);
	while (!node_is_resolved(node))
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_uint_eq(holds(&node->directory->files[0].digest), 1);
	ck_assert_uint_eq(node->totals.n_files, 1);
	node_put(node);
	run_until_idle();
	stop_cache();
}
END_TEST

/* Pins a node in the middle of its falling asleep. */
struct disturbing {
	struct slice slice;
	struct node *node;
	unsigned steps, after;
};

static bool disturb_step(struct slice *slice)
{
	struct disturbing *disturbing = CONTAINER_OF(slice, struct disturbing, slice);

	if (disturbing->steps++ < disturbing->after)
		return true;
	node_pin(disturbing->node);
	return false;
}

static bool is_resolved(void *node)
{
	return node_is_resolved(node);
}

START_TEST(a_pin_in_the_middle_of_falling_asleep_wakes_the_node_again)
{
	static char names[DRAFT_MAX][8];
	struct digest below, root;
	struct asked asked;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", store_text("f", BLOB_PLAIN), false);
	below = draft_store(&draft);
	for (unsigned i = 0; i < DRAFT_MAX; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%03u", i);
		draft_directory(&draft, names[i], below);
	}
	root = draft_store(&draft);
	ask(&asked, &root, TREE_FOR_LOOK);
	run_until_set(&asked.done);
	for (unsigned after = 0; after < 8; after++) {
		struct disturbing disturbing = { .node = asked.request.node, .after = after };

		node_unpin(disturbing.node);
		slice_init(&disturbing.slice, disturb_step);
		slice_start(cache.slicer, &disturbing.slice);
		run_until_idle();
		ck_assert_uint_gt(disturbing.steps, after);
		run_until(is_resolved, disturbing.node);
		ck_assert_ptr_nonnull(disturbing.node->children[DRAFT_MAX - 1]->directory);
		ck_assert_ptr_nonnull(disturbing.node->children[0]->directory);
		ck_assert_uint_eq(disturbing.node->totals.n_files, DRAFT_MAX);
	}
	asked_fini(&asked);
	run_until_idle();
	ck_assert_uint_eq(all_holds() + nodes_n(cache.nodes) + nodes_memory(cache.nodes), 0);
	stop_cache();
}
END_TEST

/* All below is there: plan.c would walk it so. */
static uint64_t count_files(const struct node *node)
{
	uint64_t n = node->directory->n_files;

	for (size_t i = 0; i < node->directory->n_directories; i++)
		n += count_files(node->children[i]);
	return n;
}

enum { LEVELS = 5, WIDTH = 8 };

/* Every level's Directories have three of the level below, some of them shared. */
static void store_levels(struct digest level[LEVELS][WIDTH])
{
	static const char *const names[WIDTH] = { "n0", "n1", "n2", "n3", "n4", "n5", "n6", "n7" };
	static const char *const below[3] = { "x", "y", "z2" };

	draft_init(&draft);
	for (unsigned l = 0; l < LEVELS; l++) {
		for (unsigned w = 0; w < WIDTH; w++) {
			draft_file(&draft, names[w], store_text(names[(w * 3 + l) % (w + 1)], BLOB_PLAIN),
				   w % 2);
			draft_file(&draft, "z", store_text(below[l % 3], BLOB_PLAIN), l % 2);
			for (unsigned i = 0; l && i < 3; i++)
				draft_directory(&draft, below[i], level[l - 1][(w + i * l) % WIDTH]);
			level[l][w] = draft_store(&draft);
		}
	}
}

static void evict_if_cached(const struct digest *digest)
{
	struct evicted evicted;

	if (!trees_hold(cache.trees, digest))
		return;
	trees_unhold(cache.trees, digest);
	begin_to_evict(&evicted, digest);
	run_until_set(&evicted.done);
}

/* Wait for a tree, see that all of it is there, and let it go. */
static void finish(struct asked *asked)
{
	run_until_set(&asked->done);
	ck_assert_msg(asked->r == 0, "%s", asked->err.text);
	ck_assert_uint_eq(count_files(asked->request.node), asked->request.node->totals.n_files);
	asked_fini(asked);
}

START_TEST(after_a_thousand_random_uses_and_evictions_all_counts_are_right)
{
	enum { ROUNDS = 1000, OPEN = 6 };
	struct digest level[LEVELS][WIDTH];
	struct asked asked[OPEN];
	bool is_open[OPEN] = { false };
	unsigned seed = 1;

	node_memory = 4000; /* a few of them */
	start_cache();
	store_levels(level);
	for (unsigned round = 0; round < ROUNDS; round++) {
		const struct digest *digest = &level[rand_r(&seed) % LEVELS][rand_r(&seed) % WIDTH];
		unsigned i = (unsigned)rand_r(&seed) % OPEN;

		if (rand_r(&seed) % 8 == 0) {
			evict_if_cached(digest);
			continue;
		}
		if (is_open[i])
			finish(&asked[i]);
		else
			ask(&asked[i], digest, TREE_FOR_MATERIALIZE);
		is_open[i] = !is_open[i];
		if (rand_r(&seed) % 16 == 0)
			run_until_idle();
	}
	for (unsigned i = 0; i < OPEN; i++)
		if (is_open[i])
			finish(&asked[i]);
	run_until_idle();
	ck_assert_uint_le(nodes_memory(cache.nodes), node_memory);
	for (unsigned i = 0; i < LEVELS * WIDTH; i++)
		evict_if_cached(&level[i / WIDTH][i % WIDTH]);
	run_until_idle();
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	ck_assert_uint_eq(all_holds() + nodes_n(cache.nodes) + nodes_memory(cache.nodes), 0);
	stop_cache();
}
END_TEST

UNIT_MAIN("node_sleep", what_nobody_uses_falls_asleep_and_keeps_its_totals_and_holds,
	  a_sleeping_tree_is_a_hit_and_counts_no_directory, two_who_wake_a_tree_read_it_once_and_both_have_it,
	  a_changed_tree_over_sleeping_ones_reads_the_changed_path_only,
	  trees_are_put_to_sleep_the_least_recently_used_first,
	  a_start_reads_all_trees_and_keeps_to_its_memory,
	  an_evicted_tree_that_was_asleep_releases_all_that_it_held,
	  what_an_unreadable_directory_held_stays_held_and_all_else_goes_on,
	  a_tree_that_cannot_be_woken_fails_by_name_and_can_be_had_again,
	  a_directory_that_is_put_again_wakes_its_node_without_a_read,
	  a_pin_in_the_middle_of_falling_asleep_wakes_the_node_again,
	  after_a_thousand_random_uses_and_evictions_all_counts_are_right)
