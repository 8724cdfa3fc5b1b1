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
#include "daemon/blob_internal.h"
#include "tests/unit/store.h"
#include "tests/unit/unit.h"

static int look(const struct digest *digest, enum blob_kind kind)
{
	return blob_stat(store, digest, kind, NULL, NULL);
}

static struct stat stat_of(const struct digest *digest, enum blob_kind kind)
{
	struct stat st;

	ck_assert_int_eq(fstatat(folder, path_of(digest, kind), &st, AT_SYMLINK_NOFOLLOW), 0);
	return st;
}

static void ck_holds(const struct digest *digest, const char *text)
{
	uint8_t *bytes = NULL;
	int r = blob_read(store, digest, 1 << 20, &bytes, &err);

	ck_assert_msg(r == 0, "%d %s", r, err.text);
	ck_assert_mem_eq(bytes, text, strlen(text));
	free(bytes);
}

/* Write into an inode of the store, and set mode and time back: a change that no look can see. */
static void forge(const struct digest *digest, enum blob_kind kind, const char *text)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };
	int fd;

	ck_assert_int_eq(fchmodat(folder, path_of(digest, kind), 0644, 0), 0);
	fd = openat(folder, path_of(digest, kind), O_WRONLY);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(fchmod(fd, blob_mode(kind)), 0);
	ck_assert_int_eq(futimens(fd, times), 0);
	(void)close(fd);
}

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
	struct digest hello, empty;
	uint8_t *bytes;

	open_store();
	hello = put("hello", BLOB_PLAIN);
	empty = put("", BLOB_PLAIN);
	ck_assert(digest_is_empty(&empty));
	ck_holds(&hello, "hello");
	ck_holds(&empty, "");
	ck_assert_int_eq(blob_read(store, &hello, 4, &bytes, &err), -EFBIG);
	ck_assert_int_eq(blob_discard(store, &hello, BLOB_PLAIN, &err), 0);
	ck_assert_int_eq(blob_discard(store, &hello, BLOB_PLAIN, &err), BLOB_MISSING);
	ck_assert_int_eq(blob_read(store, &hello, 100, &bytes, &err), BLOB_MISSING);
	close_store();
}
END_TEST

START_TEST(a_published_inode_has_its_mode_and_time_whatever_the_umask)
{
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
	ck_assert_int_eq(fstatat(folder, "blobs/ff", &st, 0), 0);
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
	static const size_t sizes[] = { 0, 1, 128 * 1024, 128 * 1024 + 1, 256 * 1024, 1024 * 1024 + 3 };

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
	bool reflinked;
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
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", 0644, &reflinked, &err), -EFBIG);
	ck_assert_int_eq(setrlimit(RLIMIT_FSIZE, &before), 0);
	ck_assert_uint_eq(count_entries(folder, "out"), 1);
	(void)close(fd);
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

static void change_mode(const char *path)
{
	ck_assert_int_eq(fchmodat(folder, path, 0644, 0), 0);
}

static void change_time(const char *path)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };

	times[1].tv_nsec++;
	ck_assert_int_eq(utimensat(folder, path, times, 0), 0);
}

/* As root one can write to it, whatever its mode; the time is set back. */
static void change_size(const char *path)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(store) };
	struct stat st;
	int fd;

	ck_assert_int_eq(fstatat(folder, path, &st, 0), 0);
	ck_assert_int_eq(fchmodat(folder, path, 0600, 0), 0);
	fd = openat(folder, path, O_WRONLY | O_APPEND);
	ck_assert_int_eq(write(fd, "!", 1), 1);
	ck_assert_int_eq(fchmod(fd, st.st_mode & 07777), 0);
	ck_assert_int_eq(futimens(fd, times), 0);
	(void)close(fd);
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

static void (*const ways_to_change[])(const char *path) = { change_mode, change_time, change_size,
							    change_owner, change_type };

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

/* Link a blob until the file system takes no more. Return: links made; limit when it has not said no. */
static unsigned use_up_links(const struct digest *digest, unsigned from, unsigned limit)
{
	int why, r = 0;
	char name[16];

	for (unsigned i = from; i < limit; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		r = blob_link(store, digest, BLOB_PLAIN, out, name, &why, &err);
		if (r == BLOB_LINKS_USED_UP)
			return i - from;
		ck_assert_int_eq(r, 0);
	}
	return limit - from;
}

START_TEST(when_links_are_used_up_a_fresh_inode_takes_the_name)
{
	enum { LIMIT = 70000 };
	struct digest digest;
	struct blob_info info;
	struct stat before, st;
	unsigned n, n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	n = use_up_links(&digest, 0, LIMIT);
	if (n == LIMIT) {
		(void)fprintf(stderr, "# skipped: the file system of %s sets no limit of links below %d\n",
			      unit_folder, LIMIT);
		return;
	}
	before = stat_of(&digest, BLOB_PLAIN);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err),
			 BLOB_EXISTS);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, true, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert_uint_ne(stat_of(&digest, BLOB_PLAIN).st_ino, before.st_ino);
	ck_assert_int_eq(fstatat(out, "0", &st, 0), 0);
	ck_assert_uint_eq(st.st_nlink, n);
	ck_assert_uint_eq(use_up_links(&digest, LIMIT, LIMIT + 10), 10);
	/* Who comes second with the same complaint finds links left. */
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, true, &info, &n_changed, &err), BLOB_EXISTS);
	ck_holds(&digest, "hello");
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

/* ---- renewing ---- */

START_TEST(an_executable_twin_leaves_the_plain_inode_alone)
{
	struct digest digest;
	struct stat before, after;
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	before = stat_of(&digest, BLOB_PLAIN);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert(digest_equal(&info.digest, &digest));
	after = stat_of(&digest, BLOB_PLAIN);
	ck_assert_mem_eq(&after.st_ctim, &before.st_ctim, sizeof(before.st_ctim));
	ck_assert_uint_eq(after.st_mode, before.st_mode);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), 0);
	ck_assert_uint_ne(stat_of(&digest, BLOB_EXEC).st_ino, before.st_ino);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err), BLOB_EXISTS);
	close_store();
}
END_TEST

START_TEST(a_changed_inode_is_renewed_from_the_other_kind)
{
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	(void)put("hello", BLOB_EXEC);
	change_size(path_of(&digest, BLOB_PLAIN));
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 1);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_holds(&digest, "hello");
	close_store();
}
END_TEST

START_TEST(an_inode_with_the_right_bytes_is_renewed_from_itself)
{
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;
	ino_t before;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	before = stat_of(&digest, BLOB_PLAIN).st_ino;
	change_mode(path_of(&digest, BLOB_PLAIN));
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 1);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_assert_uint_ne(stat_of(&digest, BLOB_PLAIN).st_ino, before);
	close_store();
}
END_TEST

START_TEST(what_has_wrong_bytes_leaves_the_store)
{
	struct digest digest, absent = { .size = 3 };
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	(void)put("hello", BLOB_EXEC);
	forge(&digest, BLOB_PLAIN, "jello");
	change_size(path_of(&digest, BLOB_EXEC));
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 2);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), BLOB_MISSING);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), BLOB_MISSING);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	ck_assert_int_eq(blob_renew(writer, &absent, BLOB_EXEC, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 0);
	close_store();
}
END_TEST

START_TEST(a_digest_of_the_wrong_size_takes_no_good_inode_out)
{
	struct digest digest, wrong;
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = wrong = put("hello", BLOB_PLAIN);
	wrong.size++;
	ck_assert_int_eq(blob_renew(writer, &wrong, BLOB_PLAIN, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_int_eq(blob_renew(writer, &wrong, BLOB_EXEC, false, &info, &n_changed, &err), BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_assert_int_eq(look(&wrong, BLOB_EXEC), BLOB_MISSING);
	close_store();
}
END_TEST

/* ---- copies and scans ---- */

START_TEST(a_copy_is_private)
{
	char text[6] = { 0 };
	struct digest digest;
	struct stat st;
	bool reflinked;
	int fd;

	(void)umask(077);
	open_store();
	digest = put("hello", BLOB_EXEC);
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", 0755, &reflinked, &err), 0);
	ck_assert_int_eq(fstatat(out, "copy", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0755);
	ck_assert_uint_ne(st.st_ino, stat_of(&digest, BLOB_EXEC).st_ino);
	ck_assert_int_eq(st.st_mtim.tv_nsec, blob_mtime(store).tv_nsec);
	fd = openat(out, "copy", O_RDWR);
	ck_assert_int_eq(read(fd, text, 6), 5);
	ck_assert_str_eq(text, "hello");
	ck_assert_int_eq(pwrite(fd, "j", 1, 0), 1);
	(void)close(fd);
	ck_holds(&digest, "hello");
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", 0755, &reflinked, &err), -EEXIST);
	ck_assert_int_eq(fstatat(out, "copy", &st, 0), 0);
	digest.hash[0] ^= 1;
	ck_assert_int_eq(blob_copy(store, &digest, out, "none", 0755, &reflinked, &err), BLOB_MISSING);
	ck_assert_uint_eq(count_entries(folder, "out"), 1);
	close_store();
}
END_TEST

struct scanned {
	unsigned n[BLOB_KINDS];
	struct blob_info last;
};

static void on_found(void *ctx, enum blob_kind kind, const struct blob_info *info)
{
	struct scanned *scanned = ctx;

	scanned->n[kind]++;
	scanned->last = *info;
}

START_TEST(a_scan_finds_what_is_ours_and_nothing_else)
{
	struct digest plain, exec, bad;
	struct scanned scanned = { 0 };
	char stray[140];

	open_store();
	exec = put("exec", BLOB_EXEC);
	bad = put("bad", BLOB_PLAIN);
	change_mode(path_of(&bad, BLOB_PLAIN));
	plain = put("plain", BLOB_PLAIN);
	(void)snprintf(stray, sizeof(stray), "%.8s/README", path_of(&plain, BLOB_PLAIN));
	(void)close(openat(folder, stray, O_CREAT | O_WRONLY, 0444));
	(void)snprintf(stray, sizeof(stray), "%s0", path_of(&plain, BLOB_PLAIN));
	(void)close(openat(folder, stray, O_CREAT | O_WRONLY, 0444));
	for (unsigned fanout = 0; fanout < 256; fanout++)
		for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
			ck_assert_int_eq(blob_scan(store, kind, fanout, on_found, &scanned, &err), 0);
	ck_assert_uint_eq(scanned.n[BLOB_PLAIN], 1);
	ck_assert_uint_eq(scanned.n[BLOB_EXEC], 1);
	ck_assert(digest_equal(&scanned.last.digest, &plain) || digest_equal(&scanned.last.digest, &exec));
	close_store();
}
END_TEST

UNIT_MAIN("blob", bytes_come_back_whole, a_published_inode_has_its_mode_and_time_whatever_the_umask,
	  known_bytes_are_not_written_again, a_file_is_stored_as_it_is_small_or_large_known_or_not,
	  only_regular_files_are_stored, a_failed_write_leaves_nothing_behind,
	  without_o_tmpfile_blobs_are_stored_all_the_same, cleaning_takes_the_litter_of_earlier_runs_only,
	  a_changed_inode_is_never_used, a_changed_inode_makes_way_when_its_bytes_are_stored_again,
	  an_unchanged_kind_is_read_when_the_other_was_changed, reading_notices_a_change_that_no_look_can_see,
	  a_link_shares_the_inode, linking_says_what_is_in_the_way,
	  when_links_are_used_up_a_fresh_inode_takes_the_name,
	  an_executable_twin_leaves_the_plain_inode_alone, a_changed_inode_is_renewed_from_the_other_kind,
	  an_inode_with_the_right_bytes_is_renewed_from_itself, what_has_wrong_bytes_leaves_the_store,
	  a_digest_of_the_wrong_size_takes_no_good_inode_out, a_copy_is_private,
	  a_scan_finds_what_is_ours_and_nothing_else)
