/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes hold in the catalog, and how they give it back. */
#include "tests/unit/daemon.h"

static struct draft draft;

/* Holds on a blob that is there. */
static unsigned holds(const struct digest *digest)
{
	const struct catalog_entry *entry = catalog_find(cache.catalog, digest);

	ck_assert_ptr_nonnull(entry);
	return entry->holds;
}

START_TEST(a_node_holds_its_directory_and_each_of_its_files)
{
	struct digest plain, other, root;
	struct asked asked;

	start_cache();
	draft_init(&draft);
	plain = store_text("twice", BLOB_PLAIN);
	other = store_text("never", BLOB_PLAIN);
	draft_file(&draft, "a", plain, false);
	draft_file(&draft, "b", plain, true);
	draft_file(&draft, "empty", digest_empty, false);
	root = draft_store(&draft);
	ask(&asked, &root, TREE_FOR_LOOK);
	run_until_set(&asked.done);
	ck_assert_uint_eq(holds(&root), 1);
	ck_assert_uint_eq(holds(&plain), 2);
	ck_assert_uint_eq(holds(&other), 0);
	asked_fini(&asked);
	run_until_idle();
	ck_assert_uint_eq(holds(&root) + holds(&plain), 0);
	stop_cache();
}
END_TEST

START_TEST(a_shared_directory_holds_once_and_until_the_last_tree_is_done_with_it)
{
	struct digest file, below, one, two;
	struct asked first, second;

	start_cache();
	draft_init(&draft);
	file = store_text("shared", BLOB_PLAIN);
	draft_file(&draft, "f", file, false);
	below = draft_store(&draft);
	draft_directory(&draft, "x", below);
	one = draft_store(&draft);
	draft_directory(&draft, "x", below);
	draft_directory(&draft, "y", below);
	two = draft_store(&draft);
	ask(&first, &one, TREE_FOR_LOOK);
	ask(&second, &two, TREE_FOR_LOOK);
	run_until_set(&first.done);
	run_until_set(&second.done);
	ck_assert_uint_eq(holds(&file), 1);
	ck_assert_uint_eq(holds(&below), 1);
	asked_fini(&second);
	run_until_idle();
	ck_assert_uint_eq(holds(&file), 1);
	ck_assert_uint_eq(holds(&two), 0);
	asked_fini(&first);
	run_until_idle();
	ck_assert_uint_eq(holds(&file) + holds(&below) + holds(&one), 0);
	stop_cache();
}
END_TEST

START_TEST(a_tree_that_cannot_be_resolved_releases_what_it_held)
{
	struct digest here, below, root, absent;
	struct asked asked;

	start_cache();
	draft_init(&draft);
	here = store_text("here", BLOB_PLAIN);
	hash_bytes("absent", 6, &absent);
	draft_file(&draft, "a", here, false);
	draft_file(&draft, "b", absent, false);
	below = draft_store(&draft);
	draft_directory(&draft, "below", below);
	draft_directory(&draft, "gone", absent_digest(3));
	draft_file(&draft, "c", here, false);
	root = draft_store(&draft);
	get_tree(&asked, &root);
	ck_assert_int_eq(asked.r, -ENOENT);
	run_until_idle();
	ck_assert_uint_eq(holds(&here) + holds(&below) + holds(&root), 0);
	(void)store_text("absent", BLOB_PLAIN);
	ck_assert_uint_eq(holds(&absent), 0);
	stop_cache();
}
END_TEST

START_TEST(holds_are_there_again_after_a_restart)
{
	struct digest file, root;

	start_cache();
	draft_init(&draft);
	file = store_text("kept", BLOB_PLAIN);
	draft_file(&draft, "f", file, false);
	root = draft_store(&draft);
	(void)use_tree(&root);
	restart_cache();
	ck_assert_uint_eq(holds(&file), 1);
	ck_assert_uint_eq(holds(&root), 1);
	stop_cache();
}
END_TEST

/* Looks on, between the steps of other slices, how many holds a blob has. */
struct watching {
	struct slice slice;
	const struct catalog_entry *entry;
	unsigned last, largest_step;
};

static bool watch_step(struct slice *slice)
{
	struct watching *watching = CONTAINER_OF(slice, struct watching, slice);
	unsigned step = watching->last - watching->entry->holds;

	watching->largest_step = step > watching->largest_step ? step : watching->largest_step;
	watching->last = watching->entry->holds;
	return watching->last;
}

static bool is_released(void *ctx)
{
	const struct watching *watching = ctx;

	return !watching->last;
}

START_TEST(a_directory_of_a_hundred_thousand_files_is_released_little_by_little)
{
	enum { N = 100000 };
	struct file_node *files = xcalloc(N, sizeof(*files));
	struct directory d = { .files = files, .n_files = N };
	struct digest file, root;
	struct watching watching = { .last = N };
	struct asked asked;
	uint8_t *bytes;
	size_t len;

	start_cache();
	file = store_text("many", BLOB_PLAIN);
	for (unsigned i = 0; i < N; i++) {
		char *name = xmalloc(8);

		(void)snprintf(name, 8, "%06u", i);
		files[i] = (struct file_node){ .name = name, .digest = file };
	}
	ck_assert_int_eq(directory_encode(&d, &bytes, &len, &err), 0);
	root = store_bytes(bytes, len, BLOB_PLAIN, true);
	ask(&asked, &root, TREE_FOR_LOOK);
	run_until_set(&asked.done);
	ck_assert_uint_eq(holds(&file), N);
	ck_assert(!nodes_releasing(cache.nodes));
	asked_fini(&asked);
	ck_assert_uint_eq(holds(&file), N); /* nothing at once */
	ck_assert(nodes_releasing(cache.nodes));
	watching.entry = catalog_find(cache.catalog, &file);
	slice_init(&watching.slice, watch_step);
	slice_start(cache.slicer, &watching.slice);
	run_until(is_released, &watching);
	ck_assert_uint_le(watching.largest_step, 1000);
	run_until_idle();
	ck_assert(!nodes_releasing(cache.nodes));
	for (unsigned i = 0; i < N; i++)
		free((char *)(uintptr_t)files[i].name);
	free(files);
	free(bytes);
	stop_cache();
}
END_TEST

UNIT_MAIN("node_holds", a_node_holds_its_directory_and_each_of_its_files,
	  a_shared_directory_holds_once_and_until_the_last_tree_is_done_with_it,
	  a_tree_that_cannot_be_resolved_releases_what_it_held, holds_are_there_again_after_a_restart,
	  a_directory_of_a_hundred_thousand_files_is_released_little_by_little)
