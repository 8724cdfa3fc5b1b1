/* SPDX-License-Identifier: Apache-2.0 */
/* A damaged index is set aside and replaced; a foreign one is not. */
#include <sys/wait.h>

#include "tests/unit/index.h"

enum { ROWS = 1000, PAGE = 4096 };

/* An index with some rows, a tree and a tag, cleanly closed. */
static void make_index(uint64_t n_rows)
{
	struct index_batch *batch = index_batch_new();
	struct index_tree tree = { .digest = digest_of(1), .used = 1 };
	struct index_tag tag = { "keep", digest_of(1), 7 };
	struct answer answer = { 0 };

	start();
	for (uint64_t n = 0; n < n_rows; n++) {
		struct index_blob blob = blob_of(n);

		index_batch_put_blob(batch, &blob);
	}
	index_batch_put_tree(batch, &tree);
	index_batch_put_tag(batch, &tag);
	submit(batch, &answer);
	wait_for(&answer, 1);
	ck_assert_int_eq(answer.last, 0);
	stop(true);
}

static struct index_batch *batch_settled(void)
{
	struct index_batch *batch = index_batch_new();

	index_batch_settled(batch);
	return batch;
}

static void overwrite(const char *name, const void *bytes, size_t len, off_t offset)
{
	int fd = open(path_of(name), O_WRONLY);

	ck_assert_int_eq(pwrite(fd, bytes, len, offset), (ssize_t)len);
	ck_assert_int_eq(close(fd), 0);
}

static off_t size_of(const char *name)
{
	struct stat st;

	ck_assert_msg(stat(path_of(name), &st) == 0, "%s is not there", name);
	return st.st_size;
}

static bool is_there(const char *name)
{
	return access(path_of(name), F_OK) == 0;
}

/* The index starts, empty and unclean, and says where the damaged one is; rows can be put and come back. */
static void ck_replaced(const char *words, const char *aside)
{
	struct answer answer = { 0 };

	start();
	ck_assert_msg(got.loaded.damage.set, "the damage was not seen");
	ck_assert_msg(strstr(got.loaded.damage.text, words), "%s", got.loaded.damage.text);
	ck_assert_str_eq(got.loaded.aside, aside);
	ck_assert(is_there(aside));
	ck_assert(!got.loaded.was_clean);
	ck_assert(got.loaded.is_new);
	ck_assert(got.loaded.is_doubtful);
	ck_assert_uint_eq(got.n_blobs + got.n_trees + got.n_tags, 0);
	submit_blob(1, &answer);
	wait_for(&answer, 1);
	ck_assert_int_eq(answer.last, 0);
	stop(true);
	start();
	ck_assert(!got.loaded.damage.set);
	ck_assert_uint_eq(got.n_blobs, 1);
	stop(true);
}

START_TEST(a_truncated_index_is_replaced)
{
	char aside[INDEX_ASIDE_SIZE];
	off_t lengths[] = { 50, 700, PAGE, 5 * PAGE + 100 };

	for (unsigned i = 0; i < N_ELEMENTS(lengths); i++) {
		make_index(ROWS);
		ck_assert_int_eq(truncate(path_of("index.sqlite"), lengths[i]), 0);
		(void)snprintf(aside, sizeof(aside), "index.sqlite.damaged-%u", i + 1);
		ck_replaced("damaged", aside);
		ck_assert_int_eq(size_of(aside), lengths[i]);
		ck_assert_int_eq(unlink(path_of("index.sqlite")), 0);
	}
}
END_TEST

START_TEST(an_index_of_which_nothing_is_left_is_a_new_one)
{
	make_index(10);
	ck_assert_int_eq(truncate(path_of("index.sqlite"), 0), 0);
	start();
	ck_assert(got.loaded.is_new);
	ck_assert(got.loaded.is_doubtful);
	ck_assert(!got.loaded.damage.set);
	stop(true);
}
END_TEST

START_TEST(whichever_page_is_garbage_the_index_is_replaced)
{
	char garbage[PAGE];
	off_t size;

	memset(garbage, 0x5a, sizeof(garbage));
	make_index(200);
	size = size_of("index.sqlite");
	for (off_t at = 0; at < size; at += PAGE) {
		(void)unlink(path_of("index.sqlite"));
		make_index(200);
		overwrite("index.sqlite", garbage, sizeof(garbage), at);
		ck_replaced("damaged", "index.sqlite.damaged-1");
		ck_assert_int_eq(unlink(path_of("index.sqlite.damaged-1")), 0);
	}
}
END_TEST

/* All but the version and the application, which say that the database is not ours to replace. */
static off_t random_place(off_t size)
{
	off_t at;

	do
		at = rand() % size;
	while ((at >= 60 && at < 64) || (at >= 68 && at < 72));
	return at;
}

START_TEST(no_flipped_bit_keeps_the_index_from_starting)
{
	char *bytes;
	off_t size;
	int fd;

	make_index(100);
	size = size_of("index.sqlite");
	bytes = xmalloc((size_t)size);
	fd = open(path_of("index.sqlite"), O_RDONLY);
	ck_assert_int_eq(read(fd, bytes, (size_t)size), size);
	(void)close(fd);
	srand(1);
	for (int i = 0; i < 60; i++) {
		off_t at = i < 30 ? random_place(size) : random_place(100);
		char flipped = (char)(bytes[at] ^ 1 << rand() % 8);

		(void)unlink(path_of("index.sqlite.damaged-1"));
		(void)unlink(path_of("index.sqlite"));
		fd = open(path_of("index.sqlite"), O_WRONLY | O_CREAT, 0600);
		ck_assert_int_eq(write(fd, bytes, (size_t)size), size);
		(void)close(fd);
		overwrite("index.sqlite", &flipped, 1, at);
		start();
		for (size_t n = 1; n < got.n_blobs; n++)
			ck_assert_uint_lt(got.blobs[n - 1].row, got.blobs[n].row);
		stop(true);
	}
	free(bytes);
}
END_TEST

START_TEST(a_row_that_makes_no_sense_is_damage)
{
	static const char *const rows[] = {
		"INSERT INTO blobs VALUES (NULL, x'00', 1, 1, 0, 0, 0, 0, 0)",
		"UPDATE blobs SET row = 0 WHERE row = 1",
		"UPDATE blobs SET row = -1 WHERE row = 1",
		"UPDATE blobs SET row = 1 << 62 WHERE row = 1",
		"UPDATE blobs SET size = -1",
		"UPDATE blobs SET kinds = 4",
		"UPDATE blobs SET kinds = 0",
		"UPDATE blobs SET plain_allocated = -512",
		"UPDATE blobs SET exec_allocated = 1 << 45",
		"UPDATE blobs SET used = -1",
		"UPDATE blobs SET used = 'yesterday'",
		"UPDATE trees SET hits = 0.5",
		"UPDATE trees SET hash = 'text'",
		"UPDATE tags SET uid = 1 << 40",
		"UPDATE tags SET name = 'senseless'",
	};
	char sql[128];

	for (size_t i = 0; i < N_ELEMENTS(rows); i++) {
		make_index(10);
		(void)snprintf(sql, sizeof(sql), "PRAGMA ignore_check_constraints = ON; %s", rows[i]);
		run_sql(sql);
		ck_replaced("makes no sense", "index.sqlite.damaged-1");
		ck_assert_int_eq(unlink(path_of("index.sqlite.damaged-1")), 0);
		ck_assert_int_eq(unlink(path_of("index.sqlite")), 0);
	}
}
END_TEST

START_TEST(a_schema_that_is_not_ours_is_damage)
{
	static const char *const changes[] = {
		"DROP TABLE trees",
		"ALTER TABLE blobs ADD COLUMN colour TEXT",
		"ALTER TABLE tags RENAME COLUMN uid TO gid",
		"PRAGMA user_version = 0",
	};

	for (size_t i = 0; i < N_ELEMENTS(changes); i++) {
		make_index(10);
		run_sql(changes[i]);
		ck_replaced("damaged", "index.sqlite.damaged-1");
		ck_assert_int_eq(unlink(path_of("index.sqlite.damaged-1")), 0);
		ck_assert_int_eq(unlink(path_of("index.sqlite")), 0);
	}
}
END_TEST

START_TEST(the_damaged_index_is_kept_as_it_was_with_its_wal)
{
	char garbage[PAGE], found[PAGE];
	pid_t pid;
	int fd;

	memset(garbage, 0x5a, sizeof(garbage));
	make_index(ROWS);
	pid = fork();
	if (pid == 0) { /* killed with a WAL */
		struct answer answer = { 0 };

		start();
		submit_blob(ROWS + 1, &answer);
		wait_for(&answer, 1);
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	overwrite("index.sqlite", garbage, sizeof(garbage), 3 * PAGE);
	ck_assert_int_gt(size_of("index.sqlite-wal"), 0);
	ck_replaced("damaged", "index.sqlite.damaged-1");
	ck_assert_int_gt(size_of("index.sqlite.damaged-1-wal"), 0);
	fd = open(path_of("index.sqlite.damaged-1"), O_RDONLY);
	ck_assert_int_eq(pread(fd, found, sizeof(found), 3 * PAGE), PAGE);
	ck_assert_mem_eq(found, garbage, sizeof(found));
	(void)close(fd);
}
END_TEST

START_TEST(no_more_than_nine_damaged_ones_are_kept)
{
	for (int i = 0; i < 11; i++) {
		make_index(1);
		overwrite("index.sqlite", "no database", 11, 0);
		load();
		ck_assert_int_eq(got.r, 0);
		stop(false);
	}
	ck_assert(is_there("index.sqlite.damaged-9"));
	ck_assert(!is_there("index.sqlite.damaged-10"));
}
END_TEST

START_TEST(damage_met_while_running_costs_no_answer)
{
	char garbage[PAGE];
	struct answer answer = { 0 };
	off_t size;

	memset(garbage, 0x5a, sizeof(garbage));
	make_index(ROWS);
	start();
	size = size_of("index.sqlite");
	for (off_t at = PAGE; at < size; at += PAGE)
		overwrite("index.sqlite", garbage, sizeof(garbage), at);
	for (uint64_t n = 0; n < 3; n++)
		submit_blob(ROWS + n, &answer);
	wait_for(&answer, 3);
	ck_assert_uint_eq(answer.n_failed, 0);
	ck_assert(is_there("index.sqlite.damaged-1"));
	submit(batch_settled(), &answer); /* of what the new one does not have */
	wait_for(&answer, 4);
	stop(true);

	start(); /* what was put since is there; the rest has to be found in the store */
	ck_assert_uint_eq(got.n_blobs, 3);
	ck_assert(!got.loaded.was_clean);
	ck_assert(got.loaded.is_new);
	stop(false);
}
END_TEST

START_TEST(only_another_boot_after_an_unclean_stop_makes_doubt)
{
	struct index_batch *batch;
	struct answer answer = { 0 };

	start(); /* new: nobody knows */
	ck_assert(got.loaded.is_doubtful);
	batch = batch_settled();
	index_batch_synced(batch, 12345);
	submit(batch, &answer);
	wait_for(&answer, 1);
	stop(false);

	start(); /* killed */
	ck_assert(!got.loaded.is_new);
	ck_assert(!got.loaded.is_doubtful);
	stop(true);

	run_sql("UPDATE meta SET value = 'another' WHERE key = 'boot'");
	start(); /* the machine was restarted in good order */
	ck_assert(got.loaded.was_clean);
	ck_assert(!got.loaded.is_doubtful);
	stop(false);

	run_sql("UPDATE meta SET value = 'another' WHERE key = 'boot'");
	for (int i = 0; i < 2; i++) { /* it crashed; and that is so until index and files agree again */
		start();
		ck_assert(got.loaded.is_doubtful);
		ck_assert(!got.loaded.is_new);
		ck_assert_uint_eq(got.loaded.synced, 12345);
		submit_blob(1, &answer);
		wait_for(&answer, 2 + (size_t)i);
		stop(false);
	}
	start();
	submit(batch_settled(), &answer);
	wait_for(&answer, 4);
	stop(false);
	start();
	ck_assert(!got.loaded.is_doubtful);
	stop(true);
}
END_TEST

UNIT_MAIN("index_damage", a_truncated_index_is_replaced, an_index_of_which_nothing_is_left_is_a_new_one,
	  whichever_page_is_garbage_the_index_is_replaced, no_flipped_bit_keeps_the_index_from_starting,
	  a_row_that_makes_no_sense_is_damage, a_schema_that_is_not_ours_is_damage,
	  the_damaged_index_is_kept_as_it_was_with_its_wal, no_more_than_nine_damaged_ones_are_kept,
	  damage_met_while_running_costs_no_answer, only_another_boot_after_an_unclean_stop_makes_doubt)
