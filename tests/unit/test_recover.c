/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon finds after one that was killed. */
#include "daemon/recover.h"

#include "tests/unit/daemon.h"

/* What a kill leaves: nothing is marked as clean. */
static void close_as_if_killed(void)
{
	run_until_idle();
	cache.ready = false; /* by which cache_close() knows that this was no clean stop */
	close_cache();
}

/* A row for a blob, which store_text() does not make. */
static void put_row(const struct digest *digest)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob row = catalog_row(catalog_find(cache.catalog, digest));

	index_batch_put_blob(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
	run_until_idle();
}

START_TEST(a_name_without_a_row_is_taken_in_after_a_kill)
{
	struct digest plain, exec;

	start_cache();
	plain = store_bytes("plain", 5, BLOB_PLAIN, false);
	exec = store_bytes("exec", 4, BLOB_EXEC, false);
	close_as_if_killed();
	start_cache();
	ck_assert(recovery_is_whole(cache.recovery));
	ck_assert(catalog_has(cache.catalog, &plain, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &exec, BLOB_EXEC));
	ck_assert(!catalog_has(cache.catalog, &exec, BLOB_PLAIN));
	restart_cache(); /* and is in the index */
	ck_assert(catalog_has(cache.catalog, &plain, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(a_row_without_a_name_is_dropped_after_a_kill_kind_by_kind)
{
	struct digest gone, half, there;

	start_cache();
	gone = store_text("gone", BLOB_PLAIN);
	half = store_text("half", BLOB_PLAIN);
	(void)store_text("half", BLOB_EXEC);
	there = store_text("there", BLOB_PLAIN);
	put_row(&gone);
	put_row(&half);
	put_row(&there);
	ck_assert_int_eq(unlink(path_of_blob(&gone, BLOB_PLAIN)), 0);
	ck_assert_int_eq(unlink(path_of_blob(&half, BLOB_EXEC)), 0);
	close_as_if_killed();
	start_cache();
	ck_assert_ptr_null(catalog_find(cache.catalog, &gone));
	ck_assert(catalog_has(cache.catalog, &half, BLOB_PLAIN));
	ck_assert(!catalog_has(cache.catalog, &half, BLOB_EXEC));
	ck_assert(catalog_has(cache.catalog, &there, BLOB_PLAIN));
	restart_cache();
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 2);
	ck_assert(!catalog_has(cache.catalog, &half, BLOB_EXEC));
	stop_cache();
}
END_TEST

START_TEST(after_a_clean_stop_no_file_is_looked_at)
{
	struct digest unknown;

	start_cache();
	unknown = store_bytes("unknown", 7, BLOB_PLAIN, false);
	restart_cache();
	ck_assert(recovery_is_done(cache.recovery));
	ck_assert_ptr_null(catalog_find(cache.catalog, &unknown));
	stop_cache();
}
END_TEST

START_TEST(what_is_stored_while_the_folders_are_read_is_kept)
{
	struct digest digests[200];
	char text[16];

	start_cache();
	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(text, sizeof(text), "before %u", i);
		(void)store_bytes(text, strlen(text), BLOB_PLAIN, false);
	}
	close_as_if_killed();
	open_cache();
	load_cache();
	for (unsigned i = 0; i < 200; i++) {
		(void)snprintf(text, sizeof(text), "during %u", i);
		digests[i] = store_text(text, BLOB_PLAIN);
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	}
	run_until_idle();
	ck_assert(recovery_is_whole(cache.recovery));
	for (unsigned i = 0; i < 200; i++)
		ck_assert(catalog_has(cache.catalog, &digests[i], BLOB_PLAIN));
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 400);
	stop_cache();
}
END_TEST

START_TEST(litter_of_the_killed_one_is_deleted)
{
	char hidden[STAGING_NAME_SIZE];
	struct stat st;

	start_cache();
	ck_assert_int_eq(staging_begin(cache.staging, out, NULL, hidden, &err), 0);
	ck_assert_int_eq(mkdirat(out, hidden, 0755), 0);
	close_as_if_killed();
	start_cache();
	ck_assert_int_lt(fstatat(out, hidden, &st, 0), 0);
	stop_cache();
}
END_TEST

START_TEST(a_stop_in_the_middle_is_not_taken_for_a_clean_one)
{
	struct digest digest;

	start_cache();
	digest = store_bytes("unknown", 7, BLOB_PLAIN, false);
	close_as_if_killed();
	open_cache();
	load_cache();
	cache_stop(&cache); /* long before 512 folders are read */
	run_until_idle();
	ck_assert(!recovery_is_whole(cache.recovery));
	close_cache();
	start_cache(); /* so this one reads them all */
	ck_assert(recovery_is_whole(cache.recovery));
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(a_folder_that_cannot_be_read_drops_nothing)
{
	struct digest gone;
	char path[256], *slash;

	start_cache();
	gone = store_text("gone", BLOB_PLAIN);
	put_row(&gone);
	(void)snprintf(path, sizeof(path), "%s", path_of_blob(&gone, BLOB_PLAIN));
	ck_assert_int_eq(unlink(path), 0);
	slash = strrchr(path, '/');
	*slash = '\0';
	ck_assert_int_eq(rmdir(path), 0);
	ck_assert_int_eq(symlink("/", path), 0); /* ELOOP */
	close_as_if_killed();
	start_cache();
	ck_assert_ptr_nonnull(catalog_find(cache.catalog, &gone));
	ck_assert(!recovery_is_whole(cache.recovery));
	stop_cache();
}
END_TEST

UNIT_MAIN("recover", a_name_without_a_row_is_taken_in_after_a_kill,
	  a_row_without_a_name_is_dropped_after_a_kill_kind_by_kind, after_a_clean_stop_no_file_is_looked_at,
	  what_is_stored_while_the_folders_are_read_is_kept, litter_of_the_killed_one_is_deleted,
	  a_stop_in_the_middle_is_not_taken_for_a_clean_one, a_folder_that_cannot_be_read_drops_nothing)
