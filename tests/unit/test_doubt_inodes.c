/* SPDX-License-Identifier: Apache-2.0 */
/* A row speaks for an inode: after a crash of the machine nobody believes it of another that has the name. */
#include "common/alloc.h"
#include "daemon/blob_exam.h"
#include "tests/unit/doubting.h"

/*
 * What a crash leaves of a blob that was evicted and stored again since: the name is that of another inode,
 * and the row is what it was before.
 */
static void replace(const struct digest *digest, enum blob_kind kind, const char *text)
{
	const char *path = path_of_blob(digest, kind);
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(cache.store) };
	char *other = xasprintf("%s.new", path);
	int fd = open(other, O_WRONLY | O_CREAT | O_EXCL, blob_kind_mode(kind));

	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fchmod(fd, blob_kind_mode(kind)), 0);
	ck_assert_int_eq(futimens(fd, times), 0);
	ck_assert_int_eq(close(fd), 0);
	ck_assert_int_eq(rename(other, path), 0);
	free(other);
}

/* A tree of one file. */
static struct digest tree_of(const struct digest *file, bool executable)
{
	static struct draft draft;

	draft_init(&draft);
	draft_file(&draft, "file", *file, executable);
	return draft_store(&draft);
}

static void ck_cannot_be_had(const struct digest *tree, const struct digest *file)
{
	struct asked asked;

	get_tree(&asked, tree);
	ck_assert_int_eq(asked.r, -ENOENT);
	ck_assert_uint_eq(asked.n_missing, 1);
	ck_assert(digest_equal(&asked.missing[0], file));
}

START_TEST(an_old_row_does_not_speak_for_a_new_inode)
{
	struct digest bad, tree;
	int fd = -1;

	start_cache();
	bad = put_synced("right", BLOB_PLAIN);
	tree = tree_of(&bad, false);
	replace(&bad, BLOB_PLAIN, "wrong");
	close_as_if_crashed();
	start_without_recovery();
	ck_assert_int_eq(blob_open(cache.store, &bad, &fd, &err), BLOB_CHANGED);
	ck_cannot_be_had(&tree, &bad);
	ck_assert(!is_in_store(&bad, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(what_goes_on_behind_the_requests_takes_a_wrong_new_inode_out)
{
	struct digest bad, good;
	struct stat before, after;

	start_cache();
	bad = put_text("right", BLOB_EXEC);
	good = put_synced("good", BLOB_PLAIN);
	replace(&bad, BLOB_EXEC, "wrong");
	replace(&good, BLOB_PLAIN, "good");
	ck_assert_int_eq(stat(path_of_blob(&good, BLOB_PLAIN), &before), 0);
	close_as_if_crashed();
	start_cache();
	ck_assert(!blob_store_in_doubt(cache.store));
	ck_assert_ptr_null(catalog_find(cache.catalog, &bad));
	ck_assert(!is_in_store(&bad, BLOB_EXEC));
	ck_assert(catalog_has(cache.catalog, &good, BLOB_PLAIN));
	ck_assert_int_eq(stat(path_of_blob(&good, BLOB_PLAIN), &after), 0);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	ck_assert_uint_eq(cache.counters.tampered_blobs, 1);
	stop_cache();
}
END_TEST

START_TEST(a_row_speaks_for_its_inode_and_nobody_hashes_that)
{
	struct digest known, tree;
	struct asked asked;
	uint64_t used;

	start_cache();
	known = put_synced("known", BLOB_PLAIN);
	if (!has_birth_times(&known))
		return;
	tree = tree_of(&known, false);
	close_as_if_crashed();
	damage(&known, BLOB_PLAIN); /* which hashing would see */
	start_without_recovery();
	used = catalog_find(cache.catalog, &known)->used;
	ck_assert_int_eq(blob_stat(cache.store, &known, BLOB_PLAIN, NULL, &err), 0);
	get_tree(&asked, &tree);
	ck_assert_int_eq(asked.r, 0);
	ck_assert_uint_eq(catalog_find(cache.catalog, &known)->used, used); /* that was no use of it */
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(a_row_that_names_no_inode_vouches_for_nothing)
{
	struct digest bad, tree;

	start_cache();
	bad = put_synced("right", BLOB_PLAIN);
	tree = tree_of(&bad, false);
	close_as_if_crashed();
	run_sql("UPDATE blobs SET plain_inode = 0");
	damage(&bad, BLOB_PLAIN);
	start_without_recovery();
	ck_cannot_be_had(&tree, &bad);
	stop_cache();
}
END_TEST

START_TEST(a_new_kind_is_not_vouched_for_by_the_row_of_the_other)
{
	struct digest both, tree;

	start_cache();
	both = put_synced("right", BLOB_PLAIN);
	(void)store_bytes("right", 5, BLOB_EXEC, false);
	tree = tree_of(&both, true);
	replace(&both, BLOB_EXEC, "wrong");
	replace(&both, BLOB_PLAIN, "wrong");
	close_as_if_crashed();
	start_without_recovery();
	ck_cannot_be_had(&tree, &both);
	stop_cache();
}
END_TEST

/* The index, which the daemon has for itself, must be closed. */
static void ck_row_names(const struct digest *digest, enum blob_kind kind, uint64_t inode)
{
	static const char query[] = "SELECT plain_inode, exec_inode FROM blobs WHERE hash = ?1";
	uint64_t inodes[BLOB_KINDS] = { 0 };
	sqlite3_stmt *row;
	char path[96];
	sqlite3 *db;

	(void)snprintf(path, sizeof(path), "%s/index.sqlite", store_path);
	ck_assert_int_eq(sqlite3_open(path, &db), SQLITE_OK);
	ck_assert_int_eq(sqlite3_prepare_v2(db, query, -1, &row, NULL), SQLITE_OK);
	ck_assert_int_eq(sqlite3_bind_blob(row, 1, digest->hash, DIGEST_HASH_SIZE, SQLITE_STATIC), SQLITE_OK);
	ck_assert_int_eq(sqlite3_step(row), SQLITE_ROW);
	for (int i = 0; i < BLOB_KINDS; i++)
		inodes[i] = (uint64_t)sqlite3_column_int64(row, i);
	(void)sqlite3_finalize(row);
	ck_assert_int_eq(sqlite3_close(db), SQLITE_OK);
	ck_assert_uint_eq(inodes[kind], inode);
}

static void on_landed(struct flight_waiter *waiter, int r, const struct err *why)
{
	(void)waiter;
	ck_assert_msg(r == 0, "%s", why->text);
}

static void obtain(const struct digest *digest, enum blob_kind kind, bool links_used_up)
{
	struct flight_waiter waiter = { .landed = on_landed };

	flight_join(cache.flights, digest, kind, links_used_up, &waiter);
	run_until_idle();
}

START_TEST(whatever_makes_an_inode_names_it_in_the_row)
{
	struct digest digest, other, changed, known;
	uint64_t first;

	start_cache();
	digest = put_text("both kinds", BLOB_PLAIN);
	other = put_text("changed, and asked for", BLOB_PLAIN);
	changed = put_text("changed, and met at the start", BLOB_PLAIN);
	known = put_text("not changed", BLOB_PLAIN);
	first = inode_of(&other, BLOB_PLAIN);
	obtain(&digest, BLOB_EXEC, false); /* made from the other kind */
	ck_assert_int_eq(chmod(path_of_blob(&other, BLOB_PLAIN), 0644), 0);
	obtain(&other, BLOB_PLAIN, false); /* healed */
	close_as_if_killed();
	ck_row_names(&digest, BLOB_PLAIN, inode_of(&digest, BLOB_PLAIN));
	ck_row_names(&digest, BLOB_EXEC, inode_of(&digest, BLOB_EXEC));
	ck_row_names(&other, BLOB_PLAIN, inode_of(&other, BLOB_PLAIN));
	ck_assert(!first || first != inode_of(&other, BLOB_PLAIN));

	first = inode_of(&known, BLOB_PLAIN);
	ck_assert_int_eq(chmod(path_of_blob(&changed, BLOB_PLAIN), 0644), 0);
	run_sql("UPDATE blobs SET plain_inode = 0");
	start_cache();
	close_as_if_killed();
	ck_row_names(&changed, BLOB_PLAIN, inode_of(&changed, BLOB_PLAIN)); /* a fresh one */
	ck_row_names(&known, BLOB_PLAIN, 0);                                /* nobody had to look */
	run_sql("UPDATE meta SET value = 'another boot' WHERE key = 'boot'");
	start_cache();
	close_as_if_killed();
	ck_row_names(&known, BLOB_PLAIN, first); /* hashed, and believed the next time */
}
END_TEST

UNIT_MAIN("doubt_inodes", an_old_row_does_not_speak_for_a_new_inode,
	  what_goes_on_behind_the_requests_takes_a_wrong_new_inode_out,
	  a_row_speaks_for_its_inode_and_nobody_hashes_that, a_row_that_names_no_inode_vouches_for_nothing,
	  a_new_kind_is_not_vouched_for_by_the_row_of_the_other, whatever_makes_an_inode_names_it_in_the_row)
