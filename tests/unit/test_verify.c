/* SPDX-License-Identifier: Apache-2.0 */
/* What a story on a whole daemon cannot time: verify beside what others are just doing. */
#include "daemon/verify.h"

#include "tests/unit/daemon.h"

enum { FAULTS_MAX = 8, CANCELS_MAX = 100000 };

struct checked {
	struct verify_call call;
	bool done;
};

static void on_verified(struct verify_call *call)
{
	struct checked *checked = CONTAINER_OF(call, struct checked, call);

	ck_assert(!checked->done);
	checked->done = true;
}

static void begin(struct checked *checked, bool repair)
{
	*checked = (struct checked){
		.call = { .repair = repair, .max_faults = FAULTS_MAX, .done = on_verified },
	};
	ck_assert_msg(verify_begin(&cache, &checked->call, &err) == 0, "%s", err.text);
}

static void verify(struct checked *checked, bool repair)
{
	begin(checked, repair);
	run_until_set(&checked->done);
	ck_assert_msg(checked->call.r == 0, "%s", checked->call.err.text);
}

static void assert_clean(void)
{
	struct checked checked;

	verify(&checked, false);
	ck_assert_msg(checked.call.n_faults == 0, "%s",
		      checked.call.n_listed ? verify_kind_word(checked.call.faults[0].kind) : "");
	verify_fini(&checked.call);
}

/* There is exactly this fault. */
static void assert_finds(enum verify_kind kind, bool repair)
{
	struct checked checked;

	verify(&checked, repair);
	ck_assert_uint_eq(checked.call.n_faults, 1);
	ck_assert_str_eq(verify_kind_word(checked.call.faults[0].kind), verify_kind_word(kind));
	ck_assert(checked.call.faults[0].repaired == repair);
	verify_fini(&checked.call);
}

/* A row for a blob, as those that store make. */
static void put_row(const struct digest *digest)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob row = catalog_row(catalog_find(cache.catalog, digest));

	index_batch_put_blob(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
}

static struct digest store_known(const char *text, enum blob_kind kind)
{
	struct digest digest = store_text(text, kind);

	put_row(&digest);
	return digest;
}

/* A cached tree, and the digest of one of its blobs that no other has. */
static struct digest cache_a_tree(struct digest *blob)
{
	static struct draft draft;
	struct asked asked;
	struct digest tree;

	draft_init(&draft);
	*blob = store_known("its only copy", BLOB_PLAIN);
	draft_file(&draft, "f", *blob, false);
	tree = draft_store(&draft);
	put_row(&tree);
	get_tree(&asked, &tree);
	ck_assert_int_eq(asked.r, 0);
	asked_fini(&asked);
	run_until_idle();
	return tree;
}

START_TEST(what_is_on_its_way_into_the_catalog_is_no_fault)
{
	struct blob_writer *writer;
	struct checked checked;
	struct blob_info info;

	start_cache();
	writer = writers_take(cache.writers);
	ck_assert_int_eq(blob_write(writer, "new", 3, BLOB_PLAIN, &info, NULL, &err), 0);
	begin(&checked, false);
	run_for_ms(300);
	ck_assert(!checked.done); /* it waits for who stores it */
	(void)catalog_add(cache.catalog, &info, BLOB_PLAIN, NULL);
	put_row(&info.digest);
	writers_give(cache.writers, writer);
	run_until_set(&checked.done);
	ck_assert_uint_eq(checked.call.n_faults, 0);
	ck_assert_uint_eq(checked.call.files, 1);
	verify_fini(&checked.call);
	stop_cache();
}
END_TEST

START_TEST(a_file_that_nobody_is_at_any_more_and_nobody_knows_is_a_fault)
{
	struct blob_writer *writer;
	struct checked checked;
	struct blob_info info;

	start_cache();
	writer = writers_take(cache.writers);
	ck_assert_int_eq(blob_write(writer, "new", 3, BLOB_PLAIN, &info, NULL, &err), 0);
	begin(&checked, false);
	run_for_ms(100);
	writers_give(cache.writers, writer);
	run_until_set(&checked.done);
	ck_assert_uint_eq(checked.call.n_faults, 1);
	ck_assert_int_eq(checked.call.faults[0].kind, VERIFY_NO_ROW);
	verify_fini(&checked.call);
	assert_finds(VERIFY_NO_ROW, true);
	ck_assert(catalog_has(cache.catalog, &info.digest, BLOB_PLAIN));
	assert_clean();
	stop_cache();
}
END_TEST

START_TEST(what_is_on_its_way_out_is_no_fault)
{
	struct index_batch *batch = index_batch_new();
	struct checked checked;
	struct digest digest;

	start_cache();
	digest = store_known("going", BLOB_PLAIN);
	index_batch_drop_blob(batch, catalog_find(cache.catalog, &digest)->row);
	ck_assert(claims_condemn(cache.claims, &digest));
	(void)catalog_drop(cache.catalog, catalog_find(cache.catalog, &digest), BLOB_PLAIN);
	begin(&checked, true);
	run_for_ms(300);
	ck_assert(!checked.done); /* it waits for who unlinks it */
	ck_assert(claims_execute(cache.claims, &digest));
	ck_assert_int_eq(blob_discard(cache.store, &digest, BLOB_PLAIN, &err), 0);
	claims_executed(cache.claims, &digest);
	index_submit(cache.index, batch, NULL, NULL);
	claims_settle(cache.claims, &digest);
	run_until_set(&checked.done);
	ck_assert_uint_eq(checked.call.n_faults, 0);
	verify_fini(&checked.call);
	stop_cache();
}
END_TEST

START_TEST(what_a_file_takes_later_on_is_noted_and_no_fault)
{
	struct catalog_fresh fresh = { .kind = BLOB_PLAIN, .allocated = 1 << 20 };
	uint64_t before;

	start_cache();
	fresh.digest = store_known("allocated late", BLOB_PLAIN);
	before = catalog_totals(cache.catalog).allocated;
	(void)catalog_correct(cache.catalog, &fresh);
	assert_clean();
	ck_assert_uint_eq(catalog_totals(cache.catalog).allocated, before);
	stop_cache();
}
END_TEST

START_TEST(it_waits_for_what_a_killed_daemon_left)
{
	start_cache();
	(void)store_bytes("without a row", 13, BLOB_PLAIN, false);
	cache.ready = false; /* as if killed */
	close_cache();
	open_cache();
	load_cache();
	assert_clean();
	stop_cache();
}
END_TEST

START_TEST(a_folder_that_is_closed_to_the_daemon_gets_its_mode_again)
{
	struct digest digest;
	char *folder;

	ck_assert(unit_heed_modes());
	start_cache();
	digest = store_known("behind a closed door", BLOB_PLAIN);
	folder = xstrdup(path_of_blob(&digest, BLOB_PLAIN));
	*strrchr(folder, '/') = '\0';
	ck_assert_int_eq(chmod(folder, 0), 0);
	assert_finds(VERIFY_MODE, true);
	assert_clean();
	free(folder);
	stop_cache();
}
END_TEST

START_TEST(a_tree_that_lacks_a_blob_is_cached_no_more)
{
	struct digest blob, tree;
	struct checked checked;

	start_cache();
	tree = cache_a_tree(&blob);
	ck_assert_int_eq(unlink(path_of_blob(&blob, BLOB_PLAIN)), 0);
	assert_finds(VERIFY_NO_FILE, false);
	verify(&checked, true);
	ck_assert_uint_eq(checked.call.n_faults, 2);
	ck_assert_uint_eq(checked.call.n_repaired, 2);
	ck_assert_int_eq(checked.call.faults[1].kind, VERIFY_TREE);
	ck_assert(digest_equal(&checked.call.faults[1].digest, &tree));
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	verify_fini(&checked.call);
	assert_clean();
	stop_cache();
}
END_TEST

START_TEST(a_tree_that_is_leased_stays_and_is_not_called_repaired)
{
	struct digest blob, tree;
	struct checked checked;

	start_cache();
	tree = cache_a_tree(&blob);
	ck_assert(trees_hold(cache.trees, &tree));
	ck_assert_int_eq(unlink(path_of_blob(&blob, BLOB_PLAIN)), 0);
	verify(&checked, true);
	ck_assert_uint_eq(checked.call.n_faults, 2);
	ck_assert_uint_eq(checked.call.n_repaired, 1);
	ck_assert(!checked.call.faults[1].repaired);
	ck_assert_str_eq(checked.call.faults[1].repair, "it is leased or in use");
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	verify_fini(&checked.call);
	trees_unhold(cache.trees, &tree);
	assert_finds(VERIFY_TREE, true);
	stop_cache();
}
END_TEST

START_TEST(a_tree_below_another_is_named_as_well_as_that)
{
	static struct draft draft;
	struct digest blob, below, above;
	struct checked checked;
	struct asked asked;

	start_cache();
	below = cache_a_tree(&blob);
	draft_init(&draft);
	draft_directory(&draft, "d", below);
	above = draft_store(&draft);
	put_row(&above);
	get_tree(&asked, &above);
	asked_fini(&asked);
	run_until_idle();
	ck_assert_int_eq(unlink(path_of_blob(&blob, BLOB_PLAIN)), 0);
	verify(&checked, true);
	ck_assert_uint_eq(checked.call.n_faults, 3);
	ck_assert_uint_eq(checked.call.n_repaired, 3);
	ck_assert_uint_eq(checked.call.trees, 2);
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	verify_fini(&checked.call);
	assert_clean();
	stop_cache();
}
END_TEST

static void on_tagged(void *ctx, int r, const struct err *why)
{
	(void)why;
	ck_assert_int_eq(r, 0);
	++*(unsigned *)ctx;
}

START_TEST(a_tag_that_names_nothing_is_deleted_and_no_other)
{
	struct index_tag lost = { .name = "lost", .uid = geteuid() },
			 there = { .name = "there", .uid = geteuid() };
	struct checked checked;
	unsigned n_tagged = 0;

	start_cache();
	lost.digest = store_known("a blob that is lost", BLOB_PLAIN);
	there.digest = store_known("another", BLOB_PLAIN);
	tags_set(cache.tags, &lost, on_tagged, &n_tagged);
	tags_set(cache.tags, &there, on_tagged, &n_tagged);
	run_until_idle();
	ck_assert_uint_eq(n_tagged, 2);
	ck_assert_int_eq(unlink(path_of_blob(&lost.digest, BLOB_PLAIN)), 0);
	assert_finds(VERIFY_NO_FILE, false); /* until that is mended the blob is known, and the tag good */
	verify(&checked, true);
	ck_assert_uint_eq(checked.call.n_faults, 2);
	ck_assert_uint_eq(checked.call.n_repaired, 2);
	ck_assert_int_eq(checked.call.faults[1].kind, VERIFY_TAG);
	ck_assert_str_eq(checked.call.faults[1].name, "lost");
	ck_assert_uint_eq(checked.call.tags, 2);
	ck_assert_uint_eq(tags_n(cache.tags), 1);
	ck_assert_ptr_nonnull(tags_find(cache.tags, "there", 5));
	verify_fini(&checked.call);
	assert_clean();
	stop_cache();
}
END_TEST

/* What a repair takes out of memory moves others there; none may be passed over for that. */
START_TEST(every_tree_that_lacks_a_blob_and_every_row_without_a_file_is_told)
{
	enum { N = 600 };
	static struct draft draft;
	struct checked checked;
	struct digest blobs[N];
	struct asked asked;

	start_cache();
	for (unsigned i = 0; i < N; i++) {
		struct digest tree;
		char text[16];

		(void)snprintf(text, sizeof(text), "%u", i);
		draft_init(&draft);
		blobs[i] = store_known(text, BLOB_PLAIN);
		draft_file(&draft, "f", blobs[i], false);
		tree = draft_store(&draft);
		put_row(&tree);
		get_tree(&asked, &tree);
		asked_fini(&asked);
	}
	run_until_idle();
	for (unsigned i = 0; i < N; i++)
		ck_assert_int_eq(unlink(path_of_blob(&blobs[i], BLOB_PLAIN)), 0);
	verify(&checked, true);
	ck_assert_uint_eq(checked.call.n_faults, 2 * N);
	ck_assert_uint_eq(checked.call.n_repaired, 2 * N);
	ck_assert_uint_eq(checked.call.trees, N);
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	verify_fini(&checked.call);
	assert_clean();
	stop_cache();
}
END_TEST

START_TEST(faults_that_are_not_listed_are_counted_and_repaired)
{
	struct checked checked;

	start_cache();
	for (unsigned i = 0; i < 3 * FAULTS_MAX; i++) {
		char text[16];

		(void)snprintf(text, sizeof(text), "%u", i);
		(void)store_bytes(text, strlen(text), BLOB_PLAIN, false);
	}
	verify(&checked, true);
	ck_assert_uint_eq(checked.call.n_listed, FAULTS_MAX);
	ck_assert_uint_eq(checked.call.n_faults, 3 * FAULTS_MAX);
	ck_assert_uint_eq(checked.call.n_repaired, 3 * FAULTS_MAX);
	verify_fini(&checked.call);
	assert_clean();
	stop_cache();
}
END_TEST

START_TEST(one_is_under_way_at_a_time)
{
	struct checked first, second = { .call = { .done = on_verified } };

	start_cache();
	begin(&first, false);
	ck_assert_int_lt(verify_begin(&cache, &second.call, &err), 0);
	ck_assert_int_eq(err.code, ERR_FAILED_PRECONDITION);
	run_until_set(&first.done);
	assert_clean();
	stop_cache();
}
END_TEST

/* Some of everything that a repair does. */
static void damage(unsigned n)
{
	char text[32];
	struct digest digest;

	(void)snprintf(text, sizeof(text), "unknown %u", n);
	(void)store_bytes(text, strlen(text), BLOB_PLAIN, false);
	(void)snprintf(text, sizeof(text), "changed %u", n);
	digest = store_known(text, BLOB_PLAIN);
	(void)store_text(text, BLOB_EXEC);
	put_row(&digest);
	ck_assert_int_eq(chmod(path_of_blob(&digest, BLOB_PLAIN), 0644), 0);
	(void)snprintf(text, sizeof(text), "gone %u", n);
	digest = store_known(text, BLOB_PLAIN);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	ck_assert_int_eq(mkdirat(cache.store_fd, "tmp/left", 0755), 0);
}

/* After so many turns of the loop. Return: was it in time? */
static bool cancel_after(unsigned n_turns)
{
	struct checked checked;
	bool in_time;

	begin(&checked, true);
	for (unsigned i = 0; i < n_turns && !checked.done; i++)
		(void)event_base_loop(base, EVLOOP_ONCE);
	in_time = !checked.done;
	if (in_time)
		verify_cancel(&checked.call);
	run_until_set(&checked.done);
	ck_assert(!in_time || checked.call.err.code == ERR_CANCELLED);
	verify_fini(&checked.call);
	return in_time;
}

START_TEST(a_repair_cancelled_at_any_turn_leaves_what_the_next_one_repairs)
{
	bool in_time = true;

	start_cache();
	for (unsigned n = 0; in_time && n < CANCELS_MAX; n += 1 + n) {
		struct checked checked;

		damage(n);
		in_time = cancel_after(n);
		verify(&checked, true);
		ck_assert_uint_eq(checked.call.n_faults, checked.call.n_repaired);
		verify_fini(&checked.call);
		ck_assert_uint_eq(claims_n(cache.claims), 0);
	}
	ck_assert(!in_time);
	assert_clean();
	stop_cache();
}
END_TEST

START_TEST(a_low_rate_is_kept_and_can_be_cancelled)
{
	static char bytes[1 << 20];
	struct checked checked;
	struct blob_info info;
	struct blob_writer *writer;

	start_cache();
	writer = writers_take(cache.writers);
	ck_assert_int_eq(blob_write(writer, bytes, sizeof(bytes), BLOB_PLAIN, &info, NULL, &err), 0);
	(void)catalog_add(cache.catalog, &info, BLOB_PLAIN, NULL);
	writers_give(cache.writers, writer);
	put_row(&info.digest);
	begin(&checked, false);
	checked.call.rate = 1024; /* a quarter of an hour */
	run_for_ms(500);
	ck_assert(!checked.done);
	ck_assert_uint_le(checked.call.bytes, sizeof(bytes) / 2);
	verify_cancel(&checked.call);
	run_until_set(&checked.done);
	ck_assert_int_eq(checked.call.err.code, ERR_CANCELLED);
	assert_clean();
	stop_cache();
}
END_TEST

UNIT_MAIN("verify", what_is_on_its_way_into_the_catalog_is_no_fault,
	  a_file_that_nobody_is_at_any_more_and_nobody_knows_is_a_fault, what_is_on_its_way_out_is_no_fault,
	  what_a_file_takes_later_on_is_noted_and_no_fault, it_waits_for_what_a_killed_daemon_left,
	  a_folder_that_is_closed_to_the_daemon_gets_its_mode_again,
	  a_tree_that_lacks_a_blob_is_cached_no_more, a_tree_that_is_leased_stays_and_is_not_called_repaired,
	  a_tree_below_another_is_named_as_well_as_that, a_tag_that_names_nothing_is_deleted_and_no_other,
	  every_tree_that_lacks_a_blob_and_every_row_without_a_file_is_told,
	  faults_that_are_not_listed_are_counted_and_repaired, one_is_under_way_at_a_time,
	  a_repair_cancelled_at_any_turn_leaves_what_the_next_one_repairs,
	  a_low_rate_is_kept_and_can_be_cancelled)
