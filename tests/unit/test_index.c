/* SPDX-License-Identifier: Apache-2.0 */
#include <signal.h>
#include <sys/wait.h>

#include "tests/unit/index.h"

START_TEST(everything_comes_back_as_it_was_put)
{
	struct index_batch *batch = index_batch_new();
	struct index_tree tree = { digest_of(1), 2, 3, 4, UINT64_MAX, 6, 7 };
	struct index_tag tag = { "release/1.0 \xc3\xa9", digest_of(2), 4294967294u };
	struct answer answer = { 0 };

	start();
	ck_assert(got.loaded.is_new);
	ck_assert(!got.loaded.was_clean);
	ck_assert_uint_eq(got.n_blobs, 0);
	for (uint64_t n = 0; n < 500; n++) {
		struct index_blob blob = blob_of(n);

		index_batch_put_blob(batch, &blob);
	}
	index_batch_put_tree(batch, &tree);
	index_batch_put_tag(batch, &tag);
	ck_assert_uint_eq(index_batch_size(batch), 502);
	submit(batch, &answer);
	ck_assert_uint_eq(index_n_pending(index_), 1);
	wait_for(&answer, 1);
	ck_assert_int_eq(answer.last, 0);
	ck_assert_uint_eq(index_n_pending(index_), 0);
	stop(true);

	start();
	ck_assert(!got.loaded.is_new);
	ck_assert(got.loaded.was_clean);
	ck_assert_uint_eq(got.loaded.n_blobs, 500);
	ck_assert_uint_eq(got.n_blobs, 500);
	for (size_t i = 1; i < got.n_blobs; i++)
		ck_assert_uint_lt(got.blobs[i - 1].row, got.blobs[i].row);
	for (uint64_t n = 0; n < 500; n++) {
		struct index_blob blob = blob_of(n);
		const struct index_blob *found = find(&blob.digest);

		ck_assert_ptr_nonnull(found);
		ck_assert_uint_eq(found->kinds, blob.kinds);
		ck_assert_uint_eq(found->allocated[0], blob.allocated[0]);
		ck_assert_uint_eq(found->allocated[1], blob.allocated[1]);
		ck_assert_uint_eq(found->used, blob.used);
		ck_assert_uint_eq(found->inodes[0], blob.inodes[0]);
		ck_assert_uint_eq(found->inodes[1], blob.inodes[1]);
	}
	ck_assert_uint_eq(got.n_trees, 1);
	ck_assert_mem_eq(&got.tree, &tree, sizeof(tree));
	ck_assert_uint_eq(got.n_tags, 1);
	ck_assert_str_eq(got.tag_name, tag.name);
	ck_assert(digest_equal(&got.tag.digest, &tag.digest));
	ck_assert_uint_eq(got.tag.uid, tag.uid);
	stop(true);
}
END_TEST

START_TEST(changes_within_a_batch_happen_in_order)
{
	struct index_batch *batch = index_batch_new();
	struct index_tree tree = { .digest = digest_of(1), .used = 1 };
	struct index_tag tag = { "t", digest_of(1), 0 };
	struct index_blob blob = blob_of(1), gone = blob_of(2);
	struct answer answer = { 0 };

	start();
	index_batch_put_blob(batch, &gone);
	index_batch_drop_blob(batch, gone.row);
	index_batch_touch_blob(batch, gone.row, 99); /* a row that is gone stays gone */
	index_batch_put_blob(batch, &blob);
	index_batch_touch_blob(batch, blob.row, 77);
	index_batch_put_tree(batch, &tree);
	index_batch_touch_tree(batch, &tree.digest, 88, 5);
	index_batch_put_tag(batch, &tag);
	index_batch_drop_tag(batch, "t");
	index_batch_drop_tag(batch, "none");
	submit(batch, &answer);
	wait_for(&answer, 1);
	batch = index_batch_new();
	index_batch_put_tag(batch, &tag);
	index_batch_drop_tree(batch, &gone.digest);
	submit(batch, &answer);
	stop(false);
	ck_assert_uint_eq(answer.n_done, 2); /* free commits what waits */
	ck_assert_uint_eq(answer.n_failed, 0);

	start();
	ck_assert_uint_eq(got.n_blobs, 1);
	ck_assert_uint_eq(got.blobs[0].used, 77);
	ck_assert_uint_eq(got.tree.used, 88);
	ck_assert_uint_eq(got.tree.hits, 5);
	ck_assert_uint_eq(got.n_tags, 1);
	stop(true);
}
END_TEST

START_TEST(only_a_clean_stop_is_remembered_as_one)
{
	start();
	stop(false);
	start();
	ck_assert(!got.loaded.was_clean);
	stop(true);
	start();
	ck_assert(got.loaded.was_clean);
	stop(false);
	start();
	ck_assert(!got.loaded.was_clean);
	stop(true);
}
END_TEST

START_TEST(the_index_is_private_and_one_file_when_stopped)
{
	struct answer answer = { 0 };
	struct stat st;

	(void)umask(0);
	start();
	submit_blob(1, &answer);
	wait_for(&answer, 1);
	ck_assert_int_eq(stat(path_of("index.sqlite"), &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0600);
	ck_assert_int_eq(stat(path_of("index.sqlite-wal"), &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0600);
	ck_assert_int_ne(access(path_of("index.sqlite-shm"), F_OK), 0);
	stop(true);
	ck_assert_int_ne(access(path_of("index.sqlite-wal"), F_OK), 0);
}
END_TEST

/* Batches of three blobs, killed in the middle of them; what was answered is counted in a pipe. */
static void put_until_killed(int fd)
{
	struct answer answer = { 0 };

	start();
	for (uint64_t n = 0;; n++) {
		struct index_batch *batch = index_batch_new();
		size_t n_done = answer.n_done;

		for (uint64_t i = 0; i < 3; i++) {
			struct index_blob blob = blob_of(3 * n + i);

			index_batch_put_blob(batch, &blob);
		}
		submit(batch, &answer);
		if (n % 8 == 0)
			(void)event_base_loop(base, EVLOOP_ONCE);
		for (; n_done < answer.n_done; n_done++)
			if (write(fd, "", 1) != 1)
				_exit(1);
	}
}

START_TEST(a_killed_process_loses_nothing_answered_and_halves_no_batch)
{
	size_t n_answered = 0;
	char bytes[4096];
	int fds[2];
	ssize_t n;
	pid_t pid;

	start(); /* names the folder */
	stop(false);
	ck_assert_int_eq(pipe(fds), 0);
	pid = fork();
	if (pid == 0)
		put_until_killed(fds[1]);
	(void)close(fds[1]);
	while (n_answered < 2000 && (n = read(fds[0], bytes, sizeof(bytes))) > 0)
		n_answered += (size_t)n;
	ck_assert_int_eq(kill(pid, SIGKILL), 0);
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	while ((n = read(fds[0], bytes, sizeof(bytes))) > 0)
		n_answered += (size_t)n;
	ck_assert_uint_ge(n_answered, 2000);

	start();
	ck_assert(!got.loaded.was_clean);
	ck_assert_uint_eq(got.n_blobs % 3, 0);
	ck_assert_uint_ge(got.n_blobs, 3 * n_answered);
	for (uint64_t i = 0; i < got.n_blobs; i++)
		ck_assert_uint_lt(got.blobs[i].used,
				  got.n_blobs); /* the first ones: in the order submitted */
	stop(true);
	(void)close(fds[0]);
}
END_TEST

START_TEST(batches_that_wait_are_committed_together)
{
	struct answer answer = { 0 };

	start();
	for (uint64_t n = 0; n < 1000; n++)
		submit_blob(n, &answer);
	wait_for(&answer, 1000);
	ck_assert_uint_eq(answer.n_failed, 0);
	ck_assert_uint_le(index_n_commits(index_), 10);
	stop(true);
	start();
	ck_assert_uint_eq(got.n_blobs, 1000);
	stop(true);
}
END_TEST

START_TEST(a_bad_batch_fails_alone_and_whole)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob good = blob_of(5), bad = blob_of(6);
	struct answer answers[4] = { 0 };

	start();
	submit_blob(0, &answers[0]); /* keeps the lane while the others gather */
	submit_blob(1, &answers[1]);
	bad.kinds = 0; /* against a CHECK of the table */
	index_batch_put_blob(batch, &good);
	index_batch_put_blob(batch, &bad);
	submit(batch, &answers[2]);
	submit_blob(2, &answers[3]);
	for (int i = 0; i < 4; i++)
		wait_for(&answers[i], 1);
	ck_assert_int_eq(answers[0].last, 0);
	ck_assert_int_eq(answers[1].last, 0);
	ck_assert_int_eq(answers[2].last, -EINVAL);
	unit_ck_err(&answers[2].err, err_code_of_errno(EINVAL), "CHECK constraint failed");
	ck_assert_int_eq(answers[3].last, 0);
	stop(true);
	start();
	ck_assert_uint_eq(got.n_blobs, 3);
	ck_assert_ptr_null(find(&good.digest));
	stop(true);
}
END_TEST

START_TEST(a_newer_version_is_refused_untouched)
{
	struct digest before, after;

	start();
	stop(true);
	run_sql("PRAGMA user_version = 3");
	before = digest_of_folder();
	ck_refused(-EPROTO, ERR_FAILED_PRECONDITION, "newer");
	after = digest_of_folder();
	ck_assert(digest_equal(&before, &after));
}
END_TEST

START_TEST(an_older_version_is_brought_up_to_this_one)
{
	struct answer answer = { 0 };
	struct index_blob blob = blob_of(5);
	const struct index_blob *found;

	start();
	submit_blob(5, &answer);
	wait_for(&answer, 1);
	stop(true);
	run_sql("ALTER TABLE blobs DROP COLUMN plain_inode; ALTER TABLE blobs DROP COLUMN exec_inode;"
		"PRAGMA user_version = 1");
	start();
	ck_assert(!got.loaded.damage.set);
	ck_assert(got.loaded.was_clean);
	ck_assert_ptr_nonnull(found = find(&blob.digest));
	ck_assert_uint_eq(found->used, 5);
	ck_assert_uint_eq(found->inodes[0] + found->inodes[1], 0); /* nobody knows */
	submit_blob(5, &answer);
	wait_for(&answer, 2);
	stop(true);
	start();
	ck_assert_uint_eq(find(&blob.digest)->inodes[0], blob.inodes[0]);
	stop(true);
}
END_TEST

START_TEST(a_row_speaks_for_its_inode_until_it_is_told_of_another)
{
	struct index_batch *batch = index_batch_new();
	struct answer answer = { 0 };
	struct index_blob blob = blob_of(6);

	start();
	index_batch_put_blob(batch, &blob);
	blob.inodes[0] = 0;
	blob.inodes[1] = UINT64_MAX;
	blob.used = 7;
	index_batch_put_blob(batch, &blob);
	submit(batch, &answer);
	wait_for(&answer, 1);
	stop(true);
	start();
	ck_assert_uint_eq(find(&blob.digest)->inodes[0], blob_of(6).inodes[0]);
	ck_assert_uint_eq(find(&blob.digest)->inodes[1], UINT64_MAX);
	ck_assert_uint_eq(find(&blob.digest)->used, 7);
	stop(true);
}
END_TEST

/* A newer dircached was killed: its version is in the WAL alone. */
START_TEST(a_newer_version_that_is_still_in_the_wal_is_refused_untouched)
{
	struct digest before, after;
	pid_t pid;

	start();
	stop(true);
	pid = fork();
	if (pid == 0) {
		sqlite3 *db;

		(void)sqlite3_open(path_of("index.sqlite"), &db);
		(void)sqlite3_exec(db, "PRAGMA locking_mode = EXCLUSIVE; PRAGMA user_version = 3", NULL, NULL,
				   NULL);
		_exit(0); /* without closing it */
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	ck_assert_int_eq(access(path_of("index.sqlite-wal"), F_OK), 0);
	before = digest_of_folder();
	ck_refused(-EPROTO, ERR_FAILED_PRECONDITION, "newer");
	after = digest_of_folder();
	ck_assert(digest_equal(&before, &after));
}
END_TEST

/* Too short for a header; SQLite reads it as if zeros came behind. */
START_TEST(a_newer_version_of_which_little_is_left_is_refused_untouched)
{
	struct digest before, after;

	start();
	stop(true);
	run_sql("PRAGMA user_version = 3");
	ck_assert_int_eq(truncate(path_of("index.sqlite"), 80), 0);
	before = digest_of_folder();
	ck_refused(-EPROTO, ERR_FAILED_PRECONDITION, "newer");
	after = digest_of_folder();
	ck_assert(digest_equal(&before, &after));
}
END_TEST

START_TEST(another_programs_database_is_refused_untouched)
{
	struct digest before, after;

	start();
	stop(true);
	run_sql("PRAGMA application_id = 1");
	before = digest_of_folder();
	ck_refused(-EPROTO, ERR_FAILED_PRECONDITION, "another program");
	after = digest_of_folder();
	ck_assert(digest_equal(&before, &after));
}
END_TEST

static const char *not_for_writing;
static int (*real_open)(const char *path, int flags, int mode);

/* Once, for SQLite, which then opens the same for reading. */
static int fail_to_open_for_writing(const char *path, int flags, int mode)
{
	if (!not_for_writing || (flags & O_ACCMODE) == O_RDONLY || !strstr(path, not_for_writing))
		return real_open(path, flags, mode);
	not_for_writing = NULL;
	errno = EMFILE;
	return -1;
}

START_TEST(an_index_that_opens_for_reading_alone_ends_the_start)
{
	static const char *const names[] = { "index.sqlite", "index.sqlite-wal" };
	sqlite3_vfs *vfs = sqlite3_vfs_find(NULL);
	pid_t pid;

	start();
	stop(false); /* after a clean stop, the start itself would write */
	pid = fork();
	if (pid == 0) {
		start();
		_exit(0); /* without closing it: there is a WAL */
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	real_open = (int (*)(const char *, int, int))vfs->xGetSystemCall(vfs, "open");
	ck_assert_int_eq(vfs->xSetSystemCall(vfs, "open", (sqlite3_syscall_ptr)fail_to_open_for_writing),
			 SQLITE_OK);
	for (size_t i = 0; i < 2; i++) {
		not_for_writing = names[i];
		ck_refused(-EROFS, ERR_FAILED_PRECONDITION, "opening the index");
		ck_assert_ptr_null(not_for_writing);
	}
	start(); /* and nothing came of it */
	stop(true);
}
END_TEST

START_TEST(a_folder_that_is_not_there_is_an_error_with_words)
{
	(void)snprintf(folder, sizeof(folder), "%s/none", unit_folder);
	ck_refused(-ENOENT, ERR_NOT_FOUND, "none'");
}
END_TEST

/* A put gathers rows; meanwhile somebody makes another kind of one of its blobs. */
START_TEST(rows_that_gather_come_before_what_is_submitted_after_them)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob row = blob_of(1);
	struct answer answer = { 0 };

	start();
	row.kinds = 1;
	index_gather_blob(index_, &row);
	row.kinds = 3;
	index_batch_put_blob(batch, &row);
	submit(batch, &answer);
	wait_for(&answer, 1);
	row = blob_of(2);
	index_gather_blob(index_, &row); /* and what nobody submits is not lost at a stop */
	stop(true);
	start();
	ck_assert_uint_eq(got.n_blobs, 2);
	ck_assert_uint_eq(got.blobs[0].kinds, 3);
	stop(true);
}
END_TEST

START_TEST(uses_are_written_later_and_at_a_stop)
{
	struct answer answer = { 0 };
	struct index_blob blobs[2] = { blob_of(1), blob_of(2) };

	start();
	submit_blob(1, &answer);
	submit_blob(2, &answer);
	wait_for(&answer, 2);
	index_use_blob(index_, blobs[0].row, 77);
	ck_assert_uint_eq(index_n_pending(index_), 0);
	while (index_n_changes(index_) < 3)
		(void)event_base_loop(base, EVLOOP_ONCE);
	index_use_blob(index_, blobs[1].row, 88);
	stop(true);
	start();
	ck_assert_uint_eq(find(&blobs[0].digest)->used, 77);
	ck_assert_uint_eq(find(&blobs[1].digest)->used, 88);
	stop(true);
}
END_TEST

UNIT_MAIN("index", everything_comes_back_as_it_was_put, changes_within_a_batch_happen_in_order,
	  only_a_clean_stop_is_remembered_as_one, the_index_is_private_and_one_file_when_stopped,
	  a_killed_process_loses_nothing_answered_and_halves_no_batch,
	  batches_that_wait_are_committed_together, a_bad_batch_fails_alone_and_whole,
	  an_older_version_is_brought_up_to_this_one, a_row_speaks_for_its_inode_until_it_is_told_of_another,
	  a_newer_version_is_refused_untouched, a_newer_version_that_is_still_in_the_wal_is_refused_untouched,
	  a_newer_version_of_which_little_is_left_is_refused_untouched,
	  another_programs_database_is_refused_untouched, a_folder_that_is_not_there_is_an_error_with_words,
	  rows_that_gather_come_before_what_is_submitted_after_them,
	  an_index_that_opens_for_reading_alone_ends_the_start, uses_are_written_later_and_at_a_stop)
