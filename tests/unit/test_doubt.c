/* SPDX-License-Identifier: Apache-2.0 */
/* What a daemon believes of its files after a crash of the machine, and when its index is lost. */
#include "tests/unit/doubting.h"

/* The store is closed: it has a row for each blob, each hash once. */
static void ck_n_rows(int n)
{
	sqlite3_stmt *statement;
	char path[96];
	sqlite3 *db;

	(void)snprintf(path, sizeof(path), "%s/index.sqlite", store_path);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_prepare_v2(db, "SELECT count(*), count(DISTINCT hash) FROM blobs", -1,
					    &statement, NULL),
			 SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
	ck_assert_int_eq(sqlite3_column_int(statement, 0), n);
	ck_assert_int_eq(sqlite3_column_int(statement, 1), n);
	ck_assert_int_eq(sqlite3_finalize(statement), SQLITE_OK);
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
}

static void lose_index(void)
{
	static const char *const names[] = { "index.sqlite", "index.sqlite-wal" };
	char path[96];

	for (size_t i = 0; i < N_ELEMENTS(names); i++) {
		(void)snprintf(path, sizeof(path), "%s/%s", store_path, names[i]);
		(void)unlink(path);
	}
}

START_TEST(after_a_crash_only_what_was_not_synced_is_hashed)
{
	struct digest synced, good, bad, stray, bad_stray;

	start_cache();
	synced = put_synced("synced", BLOB_PLAIN);
	if (!has_birth_times(&synced))
		return;
	good = put_text("good", BLOB_PLAIN);
	bad = put_text("bad", BLOB_EXEC);
	stray = store_bytes("no row", 6, BLOB_PLAIN, false);
	bad_stray = store_bytes("no row and bad", 14, BLOB_PLAIN, false);
	close_as_if_crashed();
	damage(&synced, BLOB_PLAIN); /* nobody looks: the disk has said that it has this one */
	damage(&bad, BLOB_EXEC);
	damage(&bad_stray, BLOB_PLAIN);
	start_cache();
	ck_assert(recovery_is_whole(cache.recovery));
	ck_assert(!blob_store_in_doubt(cache.store));
	ck_assert(catalog_has(cache.catalog, &synced, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &good, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &stray, BLOB_PLAIN));
	ck_assert_ptr_null(catalog_find(cache.catalog, &bad));
	ck_assert_ptr_null(catalog_find(cache.catalog, &bad_stray));
	ck_assert(!is_in_store(&bad, BLOB_EXEC));
	ck_assert(!is_in_store(&bad_stray, BLOB_PLAIN));
	ck_assert_uint_eq(cache.counters.tampered_blobs, 2);
	ck_assert_uint_eq(catalog_totals(cache.catalog).leaving, 0);
	close_as_if_killed(); /* and the index knows */
	start_without_recovery();
	ck_assert(!blob_store_in_doubt(cache.store));
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 3);
	stop_cache();
	ck_n_rows(3); /* what was in doubt has a new one */
}
END_TEST

START_TEST(a_kill_alone_makes_no_doubt)
{
	struct digest digest;

	start_cache();
	digest = store_bytes("no row", 6, BLOB_PLAIN, false);
	close_as_if_killed();
	start_cache();
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(a_reboot_after_a_clean_stop_makes_no_doubt)
{
	struct digest digest;

	start_cache();
	digest = put_text("kept", BLOB_PLAIN);
	stop_cache();
	run_sql("UPDATE meta SET value = 'another boot' WHERE key = 'boot'");
	start_cache();
	ck_assert(!blob_store_in_doubt(cache.store));
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(doubt_lasts_until_a_start_has_settled_it)
{
	struct digest bad;

	start_cache();
	bad = put_text("bad", BLOB_PLAIN);
	close_as_if_crashed();
	damage(&bad, BLOB_PLAIN);
	start_without_recovery();
	stop_cache(); /* it was not whole, so this was no clean stop */
	start_without_recovery();
	ck_assert(blob_store_in_doubt(cache.store));
	ck_assert_ptr_null(catalog_find(cache.catalog, &bad));
	close_as_if_killed();
	start_cache();
	ck_assert(!blob_store_in_doubt(cache.store));
	ck_assert(!is_in_store(&bad, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(what_is_in_doubt_is_hashed_before_it_is_served)
{
	static struct draft draft;
	struct asked asked;
	struct digest good, bad, tree, other;
	int fd = -1;

	start_cache();
	good = put_text("good bytes", BLOB_PLAIN);
	bad = put_text("bad bytes", BLOB_PLAIN);
	draft_init(&draft);
	draft_file(&draft, "good", good, false);
	other = draft_store(&draft);
	draft_file(&draft, "bad", bad, false);
	tree = draft_store(&draft);
	close_as_if_crashed();
	damage(&bad, BLOB_PLAIN);
	start_without_recovery();
	ck_assert_int_eq(blob_open(cache.store, &bad, &fd, &err), BLOB_CHANGED);
	ck_assert_int_eq(blob_stat(cache.store, &bad, BLOB_PLAIN, NULL, &err), BLOB_CHANGED);
	(void)use_tree(&other); /* the good one is found on disk */
	get_tree(&asked, &tree);
	ck_assert_int_eq(asked.r, -ENOENT);
	ck_assert_uint_eq(asked.n_missing, 1);
	ck_assert(digest_equal(&asked.missing[0], &bad));
	ck_assert(!is_in_store(&bad, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(putting_a_damaged_blob_again_heals_it)
{
	struct digest bad;
	int fd = -1;

	start_cache();
	bad = put_text("bad bytes", BLOB_PLAIN);
	close_as_if_crashed();
	damage(&bad, BLOB_PLAIN);
	start_without_recovery();
	(void)store_text("bad bytes", BLOB_PLAIN);
	ck_assert_int_eq(blob_open(cache.store, &bad, &fd, &err), 0);
	(void)close(fd);
	stop_cache();
}
END_TEST

START_TEST(a_kind_is_made_again_from_the_other_that_is_right)
{
	struct digest both;
	struct asked asked;
	static struct draft draft;
	struct digest tree;

	start_cache();
	both = put_text("both kinds", BLOB_PLAIN);
	(void)put_text("both kinds", BLOB_EXEC);
	draft_init(&draft);
	draft_file(&draft, "run", both, true);
	tree = draft_store(&draft);
	close_as_if_crashed();
	damage(&both, BLOB_EXEC);
	start_without_recovery();
	get_tree(&asked, &tree);
	ck_assert_int_eq(asked.r, 0);
	ck_assert_int_eq(blob_stat(cache.store, &both, BLOB_EXEC, NULL, &err), 0);
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(a_suspect_keeps_its_place_in_the_order_of_use)
{
	struct digest first, second;

	start_cache();
	first = put_text("first", BLOB_PLAIN);
	second = put_text("second", BLOB_PLAIN);
	close_as_if_crashed();
	start_cache();
	ck_assert_uint_lt(catalog_find(cache.catalog, &first)->used,
			  catalog_find(cache.catalog, &second)->used);
	ck_assert_uint_lt(catalog_find(cache.catalog, &second)->used, catalog_tick(cache.catalog));
	stop_cache();
	ck_n_rows(2);
}
END_TEST

static void on_tagged(void *ctx, int r, const struct err *why)
{
	ck_assert_msg(r == 0, "%s", why->text);
	*(bool *)ctx = true;
}

START_TEST(a_lost_index_is_rebuilt_from_files_and_tags)
{
	struct index_tag tag = { .name = "release/1", .uid = 4711 };
	struct digest plain, exec, bad, untagged;
	static struct draft draft;
	bool tagged = false;

	start_cache();
	plain = store_usual_tree();
	(void)use_tree(&plain);
	draft_init(&draft);
	draft_symlink(&draft, "link", "somewhere");
	untagged = draft_store(&draft);
	(void)use_tree(&untagged);
	tag.digest = plain;
	tags_set(cache.tags, &tag, on_tagged, &tagged);
	run_until_set(&tagged);
	exec = put_text("exec", BLOB_EXEC);
	bad = put_text("bad", BLOB_PLAIN);
	stop_cache();
	lose_index();
	damage(&bad, BLOB_PLAIN);

	for (int i = 0; i < 3; i++) {
		start_cache(); /* rebuilt, then killed, then stopped cleanly */
		ck_assert(recovery_is_whole(cache.recovery));
		ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 7);
		ck_assert(catalog_has(cache.catalog, &exec, BLOB_EXEC));
		ck_assert(!is_in_store(&bad, BLOB_PLAIN));
		ck_assert_uint_eq(trees_n(cache.trees), 1); /* the one that the tag names */
		ck_assert_uint_eq(tags_n(cache.tags), 1);
		ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 4711);
		ck_assert(digest_equal(tags_find(cache.tags, "release/1", 9), &plain));
		if (i == 0)
			close_as_if_killed();
		else
			stop_cache();
	}
	start_cache();
	ck_assert_int_eq(use_tree(&untagged), TREE_MISS);
	stop_cache();
}
END_TEST

START_TEST(a_lost_index_keeps_nothing_waiting)
{
	struct digest tree;

	start_cache();
	tree = store_usual_tree();
	stop_cache();
	lose_index();
	start_without_recovery();
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 0);
	(void)use_tree(&tree);
	stop_cache();
}
END_TEST

START_TEST(a_row_that_disagrees_with_its_file_is_settled_by_its_bytes)
{
	struct digest larger, elsewhere, changed;
	struct stat before, after;

	start_cache();
	larger = put_text("its row says that it is larger", BLOB_PLAIN);
	elsewhere = put_text("its row says that it takes more of the disk", BLOB_PLAIN);
	changed = put_text("its mode was changed", BLOB_PLAIN);
	close_as_if_killed();
	run_sql("UPDATE blobs SET size = size + 1 WHERE size = 30;"
		"UPDATE blobs SET plain_allocated = 1048576 WHERE size = 43");
	ck_assert_int_eq(chmod(path_of_blob(&changed, BLOB_PLAIN), 0600), 0);
	ck_assert_int_eq(stat(path_of_blob(&changed, BLOB_PLAIN), &before), 0);
	start_cache();
	ck_assert(catalog_has(cache.catalog, &larger, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &elsewhere, BLOB_PLAIN));
	ck_assert_uint_lt(catalog_row(catalog_find(cache.catalog, &elsewhere)).allocated[0], 1048576);
	ck_assert(catalog_has(cache.catalog, &changed, BLOB_PLAIN));
	ck_assert_int_eq(stat(path_of_blob(&changed, BLOB_PLAIN), &after), 0);
	ck_assert_uint_ne(before.st_ino, after.st_ino); /* nobody changes an inode's mode: it makes way */
	ck_assert_uint_eq(after.st_mode, S_IFREG | 0444);
	ck_assert_uint_eq(cache.counters.tampered_blobs, 1);
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 3);
	restart_cache();
	ck_assert(catalog_has(cache.catalog, &larger, BLOB_PLAIN));
	stop_cache();
	ck_n_rows(3);
}
END_TEST

START_TEST(a_wrong_size_in_a_row_is_settled_when_it_is_met)
{
	static struct draft draft;
	struct asked asked;
	struct digest file, tree, wrong, lie;

	start_cache();
	file = put_text("twenty-one bytes long", BLOB_PLAIN);
	draft_init(&draft);
	draft_file(&draft, "f", file, false);
	tree = draft_store(&draft);
	wrong = file;
	wrong.size = 22;
	draft_file(&draft, "f", wrong, false);
	lie = draft_store(&draft);
	stop_cache(); /* cleanly: nobody compares rows with files after this */
	run_sql("UPDATE blobs SET size = 22 WHERE size = 21");
	start_cache();
	ck_assert(catalog_has(cache.catalog, &wrong, BLOB_PLAIN));
	(void)use_tree(&tree);
	ck_assert(catalog_has(cache.catalog, &file, BLOB_PLAIN));
	get_tree(&asked, &lie); /* and now this one is no valid tree */
	ck_assert_int_eq(asked.r, -EINVAL);
	unit_ck_err(&asked.err, ERR_INVALID_ARGUMENT, "claims 22 bytes, but that blob has 21");
	ck_assert_uint_eq(cache.counters.tampered_blobs, 0);
	restart_cache();
	ck_assert(catalog_has(cache.catalog, &file, BLOB_PLAIN));
	stop_cache();
	ck_n_rows(3); /* and two Directories */
}
END_TEST

/* A kill after the new row of a blob that was evicted and stored again, and before the old one went. */
START_TEST(of_two_rows_with_one_hash_the_later_counts_and_the_other_goes)
{
	const struct catalog_entry *entry;
	struct digest digest;

	start_cache();
	digest = put_text("stored twice", BLOB_PLAIN);
	close_as_if_killed();
	run_sql("INSERT INTO blobs SELECT 100, hash, size, 3, plain_allocated, 8192, used + 1, 0, 0 FROM "
		"blobs;"
		"INSERT INTO blobs SELECT 50, hash, size, 2, 0, 8192, used + 2, 0, 0 FROM blobs WHERE row = "
		"100");
	start_without_recovery();
	entry = catalog_find(cache.catalog, &digest);
	ck_assert_uint_eq(entry->row, 100);
	ck_assert_uint_eq(entry->kinds, 3);
	ck_assert_uint_eq(catalog_totals(cache.catalog).n_blobs, 1);
	stop_cache();
	ck_n_rows(1);
	start_cache();
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	ck_assert(!catalog_has(cache.catalog, &digest, BLOB_EXEC)); /* there is no such file */
	stop_cache();
	ck_n_rows(1);
}
END_TEST

START_TEST(a_new_store_is_clean_from_its_beginning)
{
	struct digest digest;

	open_cache();
	load_cache();
	digest = store_bytes("no row", 6, BLOB_PLAIN, false);
	stop_cache(); /* at once */
	start_cache();
	ck_assert_ptr_null(catalog_find(cache.catalog, &digest)); /* nobody looked */
	stop_cache();
}
END_TEST

UNIT_MAIN("doubt", after_a_crash_only_what_was_not_synced_is_hashed, a_kill_alone_makes_no_doubt,
	  a_reboot_after_a_clean_stop_makes_no_doubt, doubt_lasts_until_a_start_has_settled_it,
	  what_is_in_doubt_is_hashed_before_it_is_served, putting_a_damaged_blob_again_heals_it,
	  a_kind_is_made_again_from_the_other_that_is_right, a_suspect_keeps_its_place_in_the_order_of_use,
	  a_lost_index_is_rebuilt_from_files_and_tags, a_lost_index_keeps_nothing_waiting,
	  a_row_that_disagrees_with_its_file_is_settled_by_its_bytes,
	  a_wrong_size_in_a_row_is_settled_when_it_is_met,
	  of_two_rows_with_one_hash_the_later_counts_and_the_other_goes,
	  a_new_store_is_clean_from_its_beginning)
