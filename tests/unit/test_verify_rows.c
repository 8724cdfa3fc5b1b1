/* SPDX-License-Identifier: Apache-2.0 */
/* The index's rows beside what is in memory, while the daemon serves. */
#include "daemon/verify.h"

#include "tests/unit/daemon.h"

enum { FAULTS_MAX = 8, ROWS = 3 * INDEX_PAGE_MAX + 5 };

struct checked {
	struct verify_call call;
	bool done;
};

static void on_verified(struct verify_call *call)
{
	CONTAINER_OF(call, struct checked, call)->done = true;
}

static void begin(struct checked *checked, bool repair)
{
	*checked = (struct checked){
		.call = { .repair = repair, .max_faults = FAULTS_MAX, .done = on_verified },
	};
	ck_assert_msg(verify_begin(&cache, &checked->call, &err) == 0, "%s", err.text);
}

/* It finds so many faults, all of them rows, and repairs them if asked. */
static void assert_finds(uint64_t n, bool repair, const char *expected, const char *found)
{
	struct checked checked;

	begin(&checked, repair);
	run_until_set(&checked.done);
	ck_assert_msg(checked.call.r == 0, "%s", checked.call.err.text);
	for (size_t i = 0; i < checked.call.n_listed; i++) {
		const struct verify_fault *fault = &checked.call.faults[i];

		ck_assert_str_eq(verify_kind_word(fault->kind), "row");
		ck_assert_msg(strstr(fault->expected, expected) && strstr(fault->found, found), "%s; %s",
			      fault->expected, fault->found);
		ck_assert(fault->has_digest && fault->repaired == repair);
	}
	ck_assert_uint_eq(checked.call.n_faults, n);
	ck_assert_uint_eq(checked.call.n_repaired, repair ? n : 0);
	verify_fini(&checked.call);
}

/* It is found, repaired, and right for the next start, too. */
static void assert_mended(uint64_t n, const char *expected, const char *found)
{
	assert_finds(n, false, expected, found);
	assert_finds(n, true, expected, found);
	assert_finds(0, false, "", "");
	restart_cache();
	assert_finds(0, false, "", "");
}

static struct index_blob row_of(const struct digest *digest)
{
	return catalog_row(catalog_find(cache.catalog, digest));
}

static struct digest store_known(const char *text)
{
	struct digest digest = store_text(text, BLOB_PLAIN);
	struct index_blob row = row_of(&digest);

	index_gather_blob(cache.index, &row);
	index_submit_gathered(cache.index);
	return digest;
}

/* Behind the back of those who own what is in memory, as a flipped bit would. */
static void put_behind(const struct index_blob *row)
{
	struct index_batch *batch = index_batch_new();

	index_batch_put_blob(batch, row);
	index_submit(cache.index, batch, NULL, NULL);
}

static void drop_behind(const struct digest *digest)
{
	struct index_batch *batch = index_batch_new();

	index_batch_drop_blob(batch, row_of(digest).row);
	index_submit(cache.index, batch, NULL, NULL);
}

static struct digest cache_a_tree(void)
{
	static struct draft draft;
	struct asked asked;
	struct digest tree;
	struct index_blob row;

	draft_init(&draft);
	draft_file(&draft, "f", store_known("of a tree"), false);
	tree = draft_store(&draft);
	row = row_of(&tree);
	index_gather_blob(cache.index, &row);
	get_tree(&asked, &tree);
	ck_assert_int_eq(asked.r, 0);
	asked_fini(&asked);
	run_until_idle();
	return tree;
}

START_TEST(rows_on_many_pages_are_as_they_should_be)
{
	start_cache();
	for (unsigned i = 0; i < ROWS; i++) {
		char text[32];

		(void)snprintf(text, sizeof(text), "blob %u", i);
		(void)store_known(text);
	}
	(void)cache_a_tree();
	assert_finds(0, false, "", "");
	stop_cache();
}
END_TEST

START_TEST(a_row_that_says_something_else_is_written_from_memory)
{
	struct index_blob row;
	struct digest digest;

	start_cache();
	digest = store_known("five!");
	row = row_of(&digest);
	row.digest.size = 1029;
	put_behind(&row);
	assert_mended(1, "size 5,", "size 1029,");
	row = row_of(&digest);
	row.kinds = 3;
	put_behind(&row);
	assert_mended(1, "kinds 1,", "kinds 3,");
	row = row_of(&digest);
	row.allocated[BLOB_PLAIN] += 1 << 20;
	put_behind(&row);
	assert_mended(1, "kinds 1,", "bytes on disk");
	row = row_of(&digest);
	row.used += UINT64_C(1) << 60;
	put_behind(&row);
	assert_mended(1, "used", "used");
	stop_cache();
}
END_TEST

START_TEST(a_row_that_is_not_there_is_written)
{
	struct digest digest;

	start_cache();
	digest = store_known("row gone");
	drop_behind(&digest);
	assert_mended(1, "size 8,", "no row");
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(a_row_that_nobody_put_goes)
{
	struct index_blob row = { .row = 1000000, .kinds = 1, .used = 1 };

	start_cache();
	(void)store_known("one that is there");
	hash_bytes("nothing", 7, &row.digest);
	put_behind(&row);
	assert_mended(1, "no row", "size 7,");
	stop_cache();
}
END_TEST

/* The hash is what a row is about: the blob has none then, and another has one. */
START_TEST(a_row_of_another_hash_is_replaced)
{
	struct digest digest;
	struct index_blob row;

	start_cache();
	digest = store_known("its hash");
	row = row_of(&digest);
	drop_behind(&digest);
	row.digest.hash[7] ^= 1;
	put_behind(&row);
	assert_finds(2, false, "", "");
	assert_finds(2, true, "", "");
	assert_finds(0, false, "", "");
	restart_cache();
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	assert_finds(0, false, "", "");
	stop_cache();
}
END_TEST

START_TEST(totals_of_a_tree_are_those_that_it_has)
{
	struct index_batch *batch = index_batch_new();
	struct index_tree row;
	struct digest tree;

	start_cache();
	tree = cache_a_tree();
	ck_assert(trees_row(cache.trees, &tree, &row));
	row.n_files += 1 << 20;
	index_batch_put_tree(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
	assert_mended(1, " 1 files,", " 1048577 files,");
	batch = index_batch_new();
	index_batch_drop_tree(batch, &tree);
	index_submit(cache.index, batch, NULL, NULL);
	assert_mended(1, " 1 files,", "no row");
	batch = index_batch_new();
	row.digest.hash[0] ^= 1;
	index_batch_put_tree(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
	assert_mended(1, "no row", " 1048577 files,");
	stop_cache();
}
END_TEST

/* A bit that flips while no daemon runs: the tree has other totals until it is read. */
START_TEST(totals_that_were_wrong_at_the_start_are_found)
{
	struct index_batch *batch = index_batch_new();
	struct index_tree row;
	struct digest tree;

	start_cache();
	tree = cache_a_tree();
	ck_assert(trees_row(cache.trees, &tree, &row));
	row.bytes += 1;
	index_batch_put_tree(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
	restart_cache();
	assert_mended(1, " 9 bytes,", " 10 bytes,");
	stop_cache();
}
END_TEST

static void on_tagged(void *ctx, int r, const struct err *why)
{
	(void)why;
	ck_assert_int_eq(r, 0);
	*(bool *)ctx = true;
}

START_TEST(a_tag_of_another_name_or_owner_is_written_from_memory)
{
	struct index_batch *batch = index_batch_new();
	struct index_tag tag = { .name = "a/tag", .uid = 1000 };
	bool done = false;

	start_cache();
	tag.digest = store_known("tagged");
	tags_set(cache.tags, &tag, on_tagged, &done);
	run_until_set(&done);
	tag.uid = 1064;
	index_batch_put_tag(batch, &tag);
	index_submit(cache.index, batch, NULL, NULL);
	assert_mended(1, "user 1000", "user 1064");
	batch = index_batch_new();
	tag.name = "c/tag";
	index_batch_put_tag(batch, &tag);
	index_submit(cache.index, batch, NULL, NULL);
	assert_mended(1, "no row", "user 1064");
	batch = index_batch_new();
	index_batch_drop_tag(batch, "a/tag");
	index_submit(cache.index, batch, NULL, NULL);
	assert_mended(1, "user 1000", "no row");
	stop_cache();
}
END_TEST

START_TEST(rows_that_wait_for_others_are_no_fault)
{
	struct index_blob row;
	struct digest digest;

	start_cache();
	digest = store_text("stored", BLOB_PLAIN);
	row = row_of(&digest);
	index_gather_blob(cache.index, &row);
	assert_finds(0, false, "", "");
	stop_cache();
}
END_TEST

/* Who evicts it has taken it out of memory, and its row goes later. */
START_TEST(a_row_whose_blob_is_being_evicted_is_no_fault)
{
	struct index_batch *batch = index_batch_new();
	struct checked checked;
	struct digest digest;

	start_cache();
	digest = store_known("going");
	index_batch_drop_blob(batch, row_of(&digest).row);
	ck_assert(claims_condemn(cache.claims, &digest));
	ck_assert(claims_execute(cache.claims, &digest));
	(void)catalog_drop(cache.catalog, catalog_find(cache.catalog, &digest), BLOB_PLAIN);
	ck_assert_int_eq(blob_discard(cache.store, &digest, BLOB_PLAIN, &err), 0);
	claims_executed(cache.claims, &digest);
	begin(&checked, true);
	run_for_ms(300);
	ck_assert(!checked.done); /* it waits for the row */
	index_submit(cache.index, batch, NULL, NULL);
	claims_settle(cache.claims, &digest);
	run_until_set(&checked.done);
	ck_assert_uint_eq(checked.call.n_faults, 0);
	verify_fini(&checked.call);
	stop_cache();
}
END_TEST

UNIT_MAIN("verify_rows", rows_on_many_pages_are_as_they_should_be,
	  a_row_that_says_something_else_is_written_from_memory, a_row_that_is_not_there_is_written,
	  a_row_that_nobody_put_goes, a_row_of_another_hash_is_replaced,
	  totals_of_a_tree_are_those_that_it_has, totals_that_were_wrong_at_the_start_are_found,
	  a_tag_of_another_name_or_owner_is_written_from_memory, rows_that_wait_for_others_are_no_fault,
	  a_row_whose_blob_is_being_evicted_is_no_fault)
