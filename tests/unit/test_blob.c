/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "common/hash.h"
#include "daemon/blob_exam.h"
#include "daemon/blob_internal.h"
#include "tests/unit/store.h"
#include "tests/unit/unit.h"

/* A file in the folder beside the store, open for reading and writing. */
static int make_file(const char *name, size_t size)
{
	static uint8_t block[1 << 16];
	int fd = openat(out, name, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);

	ck_assert_int_ge(fd, 0);
	for (size_t done = 0; done < size; done += sizeof(block)) {
		size_t n = size - done < sizeof(block) ? size - done : sizeof(block);

		memset(block, (int)(done >> 16), sizeof(block));
		ck_assert_int_eq(write(fd, block, n), (ssize_t)n);
	}
	return fd;
}

/* ---- storing ---- */

START_TEST(bytes_come_back_whole)
{
	struct digest hello;
	uint8_t *bytes;

	open_store();
	hello = put("hello", BLOB_PLAIN);
	ck_holds(&hello, "hello");
	ck_assert_int_eq(blob_read(store, &hello, 4, &bytes, &err), -EFBIG);
	ck_assert_int_eq(blob_discard(store, &hello, BLOB_PLAIN, &err), 0);
	ck_assert_int_eq(blob_discard(store, &hello, BLOB_PLAIN, &err), BLOB_MISSING);
	ck_assert_int_eq(blob_read(store, &hello, 100, &bytes, &err), BLOB_MISSING);
	close_store();
}
END_TEST

START_TEST(the_empty_blob_is_known_and_never_stored)
{
	struct blob_info info;
	int fd;

	open_store();
	fd = make_file("empty", 0);
	ck_assert_int_eq(blob_write(writer, "", 0, BLOB_EXEC, &info, NULL, &err), BLOB_EXISTS);
	ck_assert(digest_is_empty(&info.digest));
	ck_assert_int_eq(blob_write_file(writer, fd, false, BLOB_PLAIN, &info, NULL, &err), BLOB_EXISTS);
	ck_assert(digest_is_empty(&info.digest));
	ck_assert_uint_eq(info.allocated, 0);
	ck_assert_uint_eq(count_entries(folder, "blobs") + count_entries(folder, "exec"), 0);
	(void)close(fd);
	close_store();
}
END_TEST

START_TEST(a_published_inode_has_its_mode_and_time_whatever_the_umask)
{
	char fanout[sizeof("exec/ab")];
	struct digest plain, exec;
	struct stat st;

	(void)umask(077);
	open_store();
	plain = put("plain", BLOB_PLAIN);
	exec = put("exec", BLOB_EXEC);
	st = stat_of(&plain, BLOB_PLAIN);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0444);
	ck_assert_uint_eq(st.st_nlink, 1);
	ck_assert_int_eq(st.st_mtim.tv_sec, blob_mtime(store).tv_sec);
	ck_assert_int_eq(st.st_mtim.tv_nsec, blob_mtime(store).tv_nsec);
	st = stat_of(&exec, BLOB_EXEC);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0555);
	ck_assert_int_eq(look(&exec, BLOB_EXEC), 0);
	ck_assert_int_eq(look(&exec, BLOB_PLAIN), BLOB_MISSING);
	(void)snprintf(fanout, sizeof(fanout), "%.7s", path_of(&exec, BLOB_EXEC));
	ck_assert_int_eq(fstatat(folder, fanout, &st, 0), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0711);
	ck_assert_int_eq(fstatat(folder, "tmp", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0700);
	close_store();
}
END_TEST

START_TEST(known_bytes_are_not_written_again)
{
	struct digest digest;
	struct blob_info info;
	bool changed = true;
	struct stat before;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	before = stat_of(&digest, BLOB_PLAIN);
	ck_assert_int_eq(blob_write(writer, "hello", 5, BLOB_PLAIN, &info, &changed, &err), BLOB_EXISTS);
	ck_assert(!changed);
	ck_assert(digest_equal(&info.digest, &digest));
	ck_assert_uint_eq(info.allocated, (uint64_t)before.st_blocks * 512);
	ck_assert_uint_eq(stat_of(&digest, BLOB_PLAIN).st_ino, before.st_ino);
	close_store();
}
END_TEST

START_TEST(a_file_is_stored_as_it_is_small_or_large_known_or_not)
{
	static const size_t sizes[] = { 1, 128 * 1024, 128 * 1024 + 1, 256 * 1024, 1024 * 1024 + 3 };

	open_store();
	for (size_t i = 0; i < N_ELEMENTS(sizes); i++) {
		AUTO_CLOSE int fd = make_file("file", sizes[i]);
		struct blob_info first, again;
		struct digest found;
		uint8_t *bytes;

		ck_assert_int_eq(lseek(fd, 1, SEEK_SET), 1);
		ck_assert_int_eq(blob_write_file(writer, fd, i % 2, BLOB_PLAIN, &first, NULL, &err), 0);
		ck_assert_uint_eq(first.digest.size, sizes[i]);
		ck_assert_int_eq(blob_read(store, &first.digest, 2 << 20, &bytes, &err), 0);
		hash_bytes(bytes, sizes[i], &found);
		ck_assert(digest_equal(&found, &first.digest));
		free(bytes);
		for (int likely = 0; likely < 2; likely++) {
			ck_assert_int_eq(blob_write_file(writer, fd, likely, BLOB_PLAIN, &again, NULL, &err),
					 BLOB_EXISTS);
			ck_assert(digest_equal(&again.digest, &first.digest));
			ck_assert_uint_eq(again.allocated, first.allocated);
		}
		ck_assert_int_eq(lseek(fd, 0, SEEK_CUR), 1);
	}
	close_store();
}
END_TEST

START_TEST(only_regular_files_are_stored)
{
	struct blob_info info;
	int fds[2];

	open_store();
	ck_assert_int_eq(pipe(fds), 0);
	ck_assert_int_eq(blob_write_file(writer, fds[0], false, BLOB_PLAIN, &info, NULL, &err), -EINVAL);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, "regular");
	err_clear(&err);
	ck_assert_int_eq(blob_write_file(writer, out, false, BLOB_PLAIN, &info, NULL, &err), -EINVAL);
	close_store();
}
END_TEST

START_TEST(a_failed_write_leaves_nothing_behind)
{
	struct rlimit before, limit;
	struct digest digest;
	struct blob_info info;
	static char text[3 << 20];
	struct blob_copy how = { .mode = 0644, .reflink = true };
	int fd;

	open_store();
	memset(text, 'x', sizeof(text) - 1);
	digest = put(text, BLOB_PLAIN);
	text[0] = 'y';
	fd = make_file("large", 3 << 20);
	(void)signal(SIGXFSZ, SIG_IGN);
	ck_assert_int_eq(getrlimit(RLIMIT_FSIZE, &before), 0);
	limit = (struct rlimit){ 2 << 20,
				 before.rlim_max }; /* Check itself writes into files: less than this */
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	for (int no_tmpfile = 0; no_tmpfile < 2; no_tmpfile++) {
		atomic_store(&store->no_tmpfile, no_tmpfile);
		ck_assert_int_eq(blob_write(writer, text, strlen(text), BLOB_PLAIN, &info, NULL, &err),
				 -EFBIG);
		ck_assert_int_eq(blob_write_file(writer, fd, false, BLOB_EXEC, &info, NULL, &err), -EFBIG);
		ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	}
	atomic_store(&store->no_reflink, true);
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", &how, &err), -EFBIG);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
	ck_assert_uint_eq(count_entries(folder, "out"), 1);
	(void)close(fd);
	close_store();
}
END_TEST

START_TEST(a_copy_that_is_stopped_leaves_nothing_behind)
{
	atomic_bool stop = true;
	struct blob_copy how = { .mode = 0644, .stop = &stop };
	struct digest digest;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", &how, &err), -ECANCELED);
	unit_ck_err(&err, ERR_CANCELLED, "copying blob");
	ck_assert_uint_eq(count_entries(folder, "out"), 0);
	stop = false;
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", &how, &err), 0);
	ck_assert_uint_eq(count_entries(folder, "out"), 1);
	close_store();
}
END_TEST

START_TEST(without_o_tmpfile_blobs_are_stored_all_the_same)
{
	struct digest plain, exec, again;
	struct blob_info info;
	bool changed;

	open_store();
	atomic_store(&store->no_tmpfile, true);
	plain = put("plain", BLOB_PLAIN);
	exec = put("exec", BLOB_EXEC);
	ck_assert_int_eq(look(&plain, BLOB_PLAIN), 0);
	ck_assert_int_eq(look(&exec, BLOB_EXEC), 0);
	ck_assert_uint_eq(stat_of(&exec, BLOB_EXEC).st_nlink, 1);
	ck_assert_int_eq(fchmodat(folder, path_of(&plain, BLOB_PLAIN), 0600, 0), 0);
	ck_assert_int_eq(blob_write(writer, "plain", 5, BLOB_PLAIN, &info, &changed, &err), 0);
	ck_assert(changed);
	ck_assert_int_eq(look(&plain, BLOB_PLAIN), 0);
	again = put("again", BLOB_PLAIN);
	ck_holds(&again, "again");
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

START_TEST(cleaning_takes_the_litter_of_earlier_runs_only)
{
	char ours[BLOB_TEMPORARY_SIZE];

	open_store();
	blob_print_temporary(store, ours);
	ck_assert_int_ge(openat(folder, "tmp/0123456789abcdef.0", O_CREAT | O_WRONLY, 0600), 0);
	ck_assert_int_ge(openat(store->tmp_fd, ours, O_CREAT | O_WRONLY, 0600), 0);
	ck_assert_int_eq(blob_store_clean(store, &err), 0);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 1);
	ck_assert_int_eq(faccessat(store->tmp_fd, ours, F_OK, 0), 0);
	close_store();
}
END_TEST

/* ---- changes ---- */

/* By whole seconds, as what restores times from an archive does: the odd nanoseconds stay. */
static void change_seconds(const char *path)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };

	times[1].tv_sec++;
	ck_assert_int_eq(utimensat(folder, path, times, 0), 0);
}

static void change_owner(const char *path)
{
	if (geteuid() == 0)
		ck_assert_int_eq(fchownat(folder, path, 65534, (gid_t)-1, 0), 0);
	else
		change_mode(path);
}

static void change_type(const char *path)
{
	ck_assert_int_eq(unlinkat(folder, path, 0), 0);
	ck_assert_int_eq(symlinkat("../../out/x", folder, path), 0);
}

static void (*const ways_to_change[])(const char *path) = { change_mode, change_time,  change_seconds,
							    change_size, change_owner, change_type };

START_TEST(a_changed_inode_is_never_used)
{
	int fd, why;

	open_store();
	for (size_t i = 0; i < N_ELEMENTS(ways_to_change); i++) {
		char text[16];
		struct digest digest;
		uint8_t *bytes;

		(void)snprintf(text, sizeof(text), "way %zu", i);
		digest = put(text, BLOB_EXEC);
		ways_to_change[i](path_of(&digest, BLOB_EXEC));
		ck_assert_int_eq(look(&digest, BLOB_EXEC), BLOB_CHANGED);
		ck_assert_int_eq(blob_link(store, &digest, BLOB_EXEC, out, text, &why, &err), BLOB_CHANGED);
		ck_assert_int_eq(blob_open(store, &digest, &fd, &err), BLOB_CHANGED);
		ck_assert_int_eq(blob_read(store, &digest, 100, &bytes, &err), BLOB_CHANGED);
	}
	ck_assert_uint_eq(count_entries(folder, "out"), 0);
	close_store();
}
END_TEST

START_TEST(a_changed_inode_makes_way_when_its_bytes_are_stored_again)
{
	open_store();
	for (size_t i = 0; i < N_ELEMENTS(ways_to_change); i++) {
		struct digest digest;
		struct blob_info info;
		bool changed = false;
		char text[16];

		(void)snprintf(text, sizeof(text), "way %zu", i);
		digest = put(text, BLOB_PLAIN);
		ways_to_change[i](path_of(&digest, BLOB_PLAIN));
		ck_assert_int_eq(blob_write(writer, text, strlen(text), BLOB_PLAIN, &info, &changed, &err),
				 0);
		ck_assert(changed);
		ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
		ck_holds(&digest, text);
	}
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

START_TEST(an_unchanged_kind_is_read_when_the_other_was_changed)
{
	struct digest digest;
	int fd = -1;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	(void)put("hello", BLOB_EXEC);
	change_mode(path_of(&digest, BLOB_PLAIN));
	ck_assert_int_eq(blob_open(store, &digest, &fd, &err), 0);
	ck_assert_int_eq(fcntl(fd, F_GETFD), FD_CLOEXEC);
	(void)close(fd);
	ck_holds(&digest, "hello");
	close_store();
}
END_TEST

START_TEST(reading_notices_a_change_that_no_look_can_see)
{
	struct digest digest;
	uint8_t *bytes;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	forge(&digest, BLOB_PLAIN, "jello");
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_assert_int_eq(blob_read(store, &digest, 100, &bytes, &err), BLOB_CHANGED);
	close_store();
}
END_TEST

START_TEST(an_exam_of_a_file_that_grows_all_the_while_has_an_end)
{
	enum { STEPS_MAX = 10 };
	AUTO(hasher) hasher = hasher_new();
	struct blob_exam exam = { .hasher = hasher };
	int fd;

	open_store();
	exam.writer = writer;
	exam.digest = put("hello", BLOB_PLAIN);
	ck_assert_int_eq(fchmodat(folder, path_of(&exam.digest, BLOB_PLAIN), 0644, 0), 0);
	fd = openat(folder, path_of(&exam.digest, BLOB_PLAIN), O_WRONLY);
	ck_assert_int_eq(blob_exam_begin(&exam, false, &err), 0);
	for (int i = 1; i < STEPS_MAX; i++) {
		ck_assert_int_eq(ftruncate(fd, i * BLOB_BUFFER_SIZE), 0);
		if (!blob_exam_step(&exam))
			break;
	}
	ck_assert_int_eq(exam.flaw, BLOB_HAS_OTHER_BYTES);
	blob_exam_end(&exam);
	(void)close(fd);
	close_store();
}
END_TEST

/* ---- linking ---- */

START_TEST(a_link_shares_the_inode)
{
	struct digest digest;
	struct stat st;
	int why, path_fd;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	path_fd = openat(folder, "out", O_PATH | O_DIRECTORY);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, path_fd, "a", &why, &err), 0);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, path_fd, "b", &why, &err), 0);
	ck_assert_int_eq(fstatat(out, "b", &st, 0), 0);
	ck_assert_uint_eq(st.st_ino, stat_of(&digest, BLOB_PLAIN).st_ino);
	ck_assert_uint_eq(st.st_nlink, 3);
	(void)close(path_fd);
	close_store();
}
END_TEST

/* Somebody restores a backup of it, say. */
START_TEST(a_fan_out_folder_that_is_kept_open_may_be_replaced)
{
	char path[128], *name;
	struct digest digest;
	int why;

	open_store();
	blob_store_keep_folders(store);
	digest = put("hello", BLOB_PLAIN);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "a", &why, &err), 0);
	(void)snprintf(path, sizeof(path), "%s", path_of(&digest, BLOB_PLAIN));
	name = strrchr(path, '/');
	*name++ = '\0';
	ck_assert_int_eq(renameat(folder, path, folder, "old"), 0);
	ck_assert_int_eq(mkdirat(folder, path, 0711), 0);
	(void)snprintf(path, sizeof(path), "old/%s", name);
	ck_assert_int_eq(renameat(folder, path, folder, path_of(&digest, BLOB_PLAIN)), 0);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "b", &why, &err), 0);
	close_store();
}
END_TEST

START_TEST(a_fan_out_folder_that_is_kept_open_and_deleted_is_made_again)
{
	struct digest digest;
	char path[128];

	open_store();
	blob_store_keep_folders(store);
	digest = put("hello", BLOB_PLAIN);
	(void)snprintf(path, sizeof(path), "%s", path_of(&digest, BLOB_PLAIN));
	ck_assert_int_eq(unlinkat(folder, path, 0), 0);
	*strrchr(path, '/') = '\0';
	ck_assert_int_eq(unlinkat(folder, path, AT_REMOVEDIR), 0);
	ck_assert_int_eq(blob_stat(store, &digest, BLOB_PLAIN, NULL, &err), BLOB_MISSING);
	digest = put("hello", BLOB_PLAIN);
	ck_assert_uint_eq(stat_of(&digest, BLOB_PLAIN).st_nlink, 1);
	ck_assert_int_eq(blob_stat(store, &digest, BLOB_PLAIN, NULL, &err), 0);
	close_store();
}
END_TEST

START_TEST(linking_says_what_is_in_the_way)
{
	struct digest digest, absent = { .size = 3 };
	struct stat here, there;
	int shm, why = 0;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	ck_assert_int_eq(blob_link(store, &absent, BLOB_PLAIN, out, "a", &why, &err), BLOB_MISSING);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_EXEC, out, "a", &why, &err), BLOB_MISSING);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "a", &why, &err), 0);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "a", &why, &err), -EEXIST);
	unit_ck_err(&err, err_code_of_errno(EEXIST), "linking 'a'");
	err_clear(&err);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "no/a", &why, &err), -ENOENT);
	shm = open("/dev/shm", O_PATH | O_DIRECTORY);
	if (shm >= 0 && fstat(shm, &there) == 0 && fstat(out, &here) == 0 && here.st_dev != there.st_dev) {
		ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, shm, "a", &why, &err),
				 BLOB_UNLINKABLE);
		ck_assert_int_eq(why, EXDEV);
	}
	digest.size++;
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "b", &why, &err), BLOB_CHANGED);
	close_store();
}
END_TEST

UNIT_MAIN("blob", bytes_come_back_whole, the_empty_blob_is_known_and_never_stored,
	  a_published_inode_has_its_mode_and_time_whatever_the_umask, known_bytes_are_not_written_again,
	  a_file_is_stored_as_it_is_small_or_large_known_or_not, only_regular_files_are_stored,
	  a_failed_write_leaves_nothing_behind, a_copy_that_is_stopped_leaves_nothing_behind,
	  without_o_tmpfile_blobs_are_stored_all_the_same, cleaning_takes_the_litter_of_earlier_runs_only,
	  a_changed_inode_is_never_used, a_changed_inode_makes_way_when_its_bytes_are_stored_again,
	  an_unchanged_kind_is_read_when_the_other_was_changed, reading_notices_a_change_that_no_look_can_see,
	  an_exam_of_a_file_that_grows_all_the_while_has_an_end, a_link_shares_the_inode,
	  a_fan_out_folder_that_is_kept_open_may_be_replaced,
	  a_fan_out_folder_that_is_kept_open_and_deleted_is_made_again, linking_says_what_is_in_the_way)
