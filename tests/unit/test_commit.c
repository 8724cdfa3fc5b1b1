/* SPDX-License-Identifier: Apache-2.0 */
/* Targets and their staging records: what appears, and what a restart deletes. */
#include "daemon/target.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/records.h"
#include "tests/unit/unit.h"

static char path[64];
static int store = -1, folder = -1; /* STORE, and a client's folder */
static struct staging *staging;
static struct err err;

static int open_folder(const char *name)
{
	char full[128];
	int fd;

	(void)snprintf(full, sizeof(full), "%s/%s", path, name);
	(void)mkdir(full, 0755);
	fd = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	return fd;
}

static void setup(void)
{
	(void)snprintf(path, sizeof(path), "%s/%d", unit_folder, (int)getpid());
	ck_assert_int_eq(mkdir(path, 0755), 0);
	store = open_folder("store");
	folder = open_folder("folder");
	staging = staging_open(store, &err);
	ck_assert_msg(staging, "%s", err.text);
}

static void teardown(void)
{
	staging_free(staging);
	(void)close(folder);
	(void)close(store);
}

/* As after a kill: the records stay, and the next process draws another number. */
static void restart(void)
{
	staging_free(staging);
	staging = staging_open(store, &err);
	ck_assert_ptr_nonnull(staging);
}

static size_t count_names(int fd)
{
	DIR *dir = fdopendir(openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
	size_t n = 0;

	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n - 2;
}

static bool is_there(int fd, const char *name)
{
	struct stat st;

	return fstatat(fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static void make_file(int fd, const char *name)
{
	AUTO_CLOSE int file = openat(fd, name, O_WRONLY | O_CREAT | O_EXCL, 0644);

	ck_assert_int_ge(file, 0);
}

static void make_directory(int fd, const char *name)
{
	ck_assert_int_eq(mkdirat(fd, name, 0755), 0);
}

/* A record, and something under the hidden name: what a killed daemon leaves. */
static void leave_litter(char hidden[STAGING_NAME_SIZE])
{
	char below[64];

	ck_assert_msg(staging_begin(staging, folder, hidden, &err) == 0, "%s", err.text);
	make_directory(folder, hidden);
	(void)snprintf(below, sizeof(below), "%s/file", hidden);
	make_file(folder, below);
}

static size_t sweep(void)
{
	size_t n = 0;

	ck_assert_msg(staging_sweep(staging, &n, &err) == 0, "%s", err.text);
	return n;
}

/* A target with a directory (or a file) made for it, ready to be committed. */
static struct target begin(const char *name, bool is_file)
{
	struct target target;

	ck_assert_int_eq(target_init(&target, staging, folder, name, strlen(name), &err), 0);
	target.is_file = is_file;
	ck_assert_msg(target_check(&target, &err) == 0, "%s", err.text);
	ck_assert_msg(target_begin(&target, &err) == 0, "%s", err.text);
	if (is_file) {
		make_file(folder, target.hidden);
	} else {
		char below[64];

		make_directory(folder, target.hidden);
		(void)snprintf(below, sizeof(below), "%s/file", target.hidden);
		make_file(folder, below);
	}
	return target;
}

static void ck_refused_and_gone(struct target *target)
{
	err_clear(&err);
	ck_assert_int_eq(target_commit(target, &err), -EEXIST);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, "appeared while this was made");
	target_abort(target);
	ck_assert(!is_there(folder, target->hidden));
	ck_assert_uint_eq(count_records(store), 0);
}

START_TEST(names_that_are_no_names_are_refused)
{
	static const char *const bad[] = { "", ".", "..", "a/b", "/" };
	struct target target;
	char longest[256];

	setup();
	for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
		err_clear(&err);
		ck_assert_int_eq(target_init(&target, staging, folder, bad[i], strlen(bad[i]), &err),
				 -EINVAL);
		unit_ck_err(&err, ERR_INVALID_ARGUMENT, "cannot be the name of a target");
	}
	ck_assert_int_eq(target_init(&target, staging, folder, "a\0b", 3, &err), -EINVAL);
	memset(longest, 'n', sizeof(longest));
	ck_assert_int_eq(target_init(&target, staging, folder, longest, 256, &err), -EINVAL);
	ck_assert_int_eq(target_init(&target, staging, folder, longest, 255, &err), 0);
	ck_assert_uint_eq(strlen(target.name), 255);
	teardown();
}
END_TEST

START_TEST(a_target_appears_whole_by_its_commit_and_not_before)
{
	struct target target;

	setup();
	target = begin("t", false);
	ck_assert(!is_there(folder, "t"));
	ck_assert_uint_eq(count_records(store), 1);
	ck_assert_msg(target_commit(&target, &err) == 0, "%s", err.text);
	ck_assert(is_there(folder, "t/file"));
	ck_assert_uint_eq(count_records(store), 0);
	target_abort(&target); /* harmless */
	ck_assert(is_there(folder, "t/file"));
	teardown();
}
END_TEST

START_TEST(a_target_that_appears_meanwhile_is_not_overwritten)
{
	struct target target;

	setup();
	target = begin("file", false);
	make_file(folder, "file");
	ck_refused_and_gone(&target);
	target = begin("directory", false);
	make_directory(folder, "directory"); /* even an empty one: it was not there when we looked */
	ck_refused_and_gone(&target);
	target = begin("symlink", false);
	ck_assert_int_eq(symlinkat("directory", folder, "symlink"), 0);
	ck_refused_and_gone(&target);
	target = begin("single", true);
	make_file(folder, "single");
	ck_refused_and_gone(&target);
	ck_assert(is_there(folder, "file") && is_there(folder, "single"));
	ck_assert_uint_eq(count_names(folder), 4);
	teardown();
}
END_TEST

START_TEST(an_empty_directory_that_is_filled_meanwhile_is_not_overwritten)
{
	struct target target;

	setup();
	make_directory(folder, "t");
	target = begin("t", false);
	make_file(folder, "t/precious");
	ck_refused_and_gone(&target);
	ck_assert(is_there(folder, "t/precious"));
	ck_assert_int_eq(unlinkat(folder, "t/precious", 0), 0);
	target = begin("t", false);
	ck_assert_int_eq(unlinkat(folder, "t", AT_REMOVEDIR), 0);
	make_file(folder, "t");
	ck_refused_and_gone(&target);
	teardown();
}
END_TEST

START_TEST(an_abort_takes_everything_back)
{
	struct target target;

	setup();
	target = begin("t", false);
	target_abort(&target);
	ck_assert_uint_eq(count_names(folder), 0);
	ck_assert_uint_eq(count_records(store), 0);
	target_abort(&target);
	teardown();
}
END_TEST

START_TEST(hidden_names_differ_and_say_that_they_are_ours)
{
	char hidden[100][STAGING_NAME_SIZE];

	setup();
	for (unsigned i = 0; i < 100; i++) {
		ck_assert_int_eq(staging_begin(staging, folder, hidden[i], &err), 0);
		ck_assert_uint_eq(strlen(hidden[i]), STAGING_NAME_SIZE - 1);
		ck_assert_int_eq(strncmp(hidden[i], ".dircache-", 10), 0);
		for (unsigned k = 0; k < i; k++)
			ck_assert_str_ne(hidden[i], hidden[k]);
	}
	ck_assert_uint_eq(count_records(store), 100);
	for (unsigned i = 0; i < 100; i++)
		staging_end(staging, hidden[i]);
	ck_assert_uint_eq(count_records(store), 0);
	teardown();
}
END_TEST

START_TEST(sweep_deletes_only_names_that_records_of_earlier_processes_tell_of)
{
	char earlier[STAGING_NAME_SIZE], now[STAGING_NAME_SIZE];

	setup();
	leave_litter(earlier);
	restart();
	leave_litter(now);
	make_directory(folder,
		       ".dircache-0123456789abcdef01234567"); /* looks like ours; no record tells of it */
	make_file(folder, "precious");
	ck_assert_uint_eq(sweep(), 1);
	ck_assert(!is_there(folder, earlier));
	ck_assert(is_there(folder, now));
	ck_assert_uint_eq(count_names(folder), 3);
	ck_assert_uint_eq(count_records(store), 1);
	ck_assert_uint_eq(sweep(), 0);
	teardown();
}
END_TEST

START_TEST(a_record_of_what_was_never_made_goes_quietly)
{
	char hidden[STAGING_NAME_SIZE];

	setup();
	ck_assert_int_eq(staging_begin(staging, folder, hidden, &err), 0);
	restart();
	ck_assert_uint_eq(sweep(), 0);
	ck_assert_uint_eq(count_records(store), 0);
	teardown();
}
END_TEST

START_TEST(a_record_whose_folder_was_replaced_deletes_nothing)
{
	char hidden[STAGING_NAME_SIZE], below[128], from[96], to[96];
	int other;

	setup();
	leave_litter(hidden);
	(void)snprintf(from, sizeof(from), "%s/folder", path);
	(void)snprintf(to, sizeof(to), "%s/moved", path);
	ck_assert_int_eq(rename(from, to), 0);
	other = open_folder("folder");
	(void)snprintf(below, sizeof(below), "%s", hidden);
	make_directory(other, below);
	restart();
	ck_assert_uint_eq(sweep(), 0);
	ck_assert(is_there(other, hidden));
	ck_assert(is_there(folder, hidden));
	(void)close(other);
	teardown();
}
END_TEST

START_TEST(a_record_whose_folder_became_a_symlink_deletes_nothing)
{
	char hidden[STAGING_NAME_SIZE], from[96], to[96];

	setup();
	leave_litter(hidden);
	(void)snprintf(from, sizeof(from), "%s/folder", path);
	(void)snprintf(to, sizeof(to), "%s/moved", path);
	ck_assert_int_eq(rename(from, to), 0);
	ck_assert_int_eq(symlink("moved", from), 0); /* to the very same one */
	restart();
	ck_assert_uint_eq(sweep(), 0);
	ck_assert(is_there(folder, hidden));
	teardown();
}
END_TEST

static void write_record(const char *name, unsigned slot, const char *text)
{
	AUTO_CLOSE int fd = -1;
	char full[96];

	(void)snprintf(full, sizeof(full), "staging/%s", name);
	fd = openat(store, full, O_WRONLY | O_CREAT, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(pwrite(fd, text, strlen(text) + 1, slot * 8192), (ssize_t)strlen(text) + 1);
}

/* One of another user's daemon stays: nothing tells his groups. */
START_TEST(records_of_the_version_before_are_obeyed_for_the_daemons_own_user)
{
	static const char *const names[] = { ".dircache-0123456700000001234567ab",
					     ".dircache-89abcdef00000001234567ab" };
	char text[512];
	struct stat st;
	size_t n;

	setup();
	ck_assert_int_eq(fstat(folder, &st), 0);
	for (unsigned i = 0; i < 2; i++) {
		make_directory(folder, names[i]);
		(void)snprintf(text, sizeof(text), "dircache-staging 2\n%u\n%ju %ju\n%s\n%s/folder",
			       (unsigned)geteuid() + i, (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, names[i],
			       path);
		write_record(i ? "89abcdef" : "01234567", 0, text);
	}
	ck_assert_int_lt(staging_sweep(staging, &n, &err), 0);
	ck_assert_uint_eq(n, 1);
	ck_assert(!is_there(folder, names[0]) && is_there(folder, names[1]));
	ck_assert_uint_eq(count_records(store), 1);
	teardown();
}
END_TEST

/* A record is in a private folder; even so no words in it make the sweep leave the folder it names. */
START_TEST(records_that_make_no_sense_delete_nothing_and_go)
{
	static const char *const owners[] = {
		"", "0", "0 x", "-1 0", "0 4294967295", "0 0 1 2 three", "0\n0"
	};
	const char *run = "01234567", *name = ".dircache-0123456789abcdef01234567";
	char text[512];
	struct stat st;

	setup();
	make_directory(folder, "precious");
	ck_assert_int_eq(fstat(folder, &st), 0);
	write_record("00000000", 0, "");
	write_record(run, 0, "dircache-staging 2\n0\n1 1\nx\n/");
	write_record("11111111", 0, "dircache-staging 1\n0\n1 1\nx\n/");
	(void)snprintf(text, sizeof(text), "dircache-staging 3\n0 0\n%ju %ju\nprecious\n%s/folder",
		       (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, path);
	write_record(run, 1, text);
	(void)snprintf(text, sizeof(text), "dircache-staging 3\n0 0\n%ju %ju\n%s\nfolder",
		       (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, name); /* no absolute path */
	write_record(run, 5, text);
	for (unsigned i = 0; i < N_ELEMENTS(owners); i++) {
		(void)snprintf(text, sizeof(text), "dircache-staging 3\n%s\n%ju %ju\n%s\n%s/folder",
			       owners[i], (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, name, path);
		write_record("01234567", 6 + (off_t)i, text);
	}
	(void)snprintf(text, sizeof(text), "dircache-staging 3\n0 0\n%ju %ju\n%s\n%s/folder",
		       (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, name, path);
	write_record("76543210", 2, text); /* another process's name than that of its own file */
	make_directory(folder, name);
	ck_assert_uint_eq(sweep(), 0);
	ck_assert(is_there(folder, "precious") && is_there(folder, name));
	ck_assert_uint_eq(count_records(store), 0);
	write_record("something else", 0, "x");
	ck_assert_uint_eq(sweep(), 0);
	ck_assert_uint_eq(count_records(store), 1);
	teardown();
}
END_TEST

START_TEST(slots_are_used_again_and_a_clean_stop_leaves_no_file)
{
	char hidden[STAGING_NAME_SIZE], other[STAGING_NAME_SIZE];
	AUTO_CLOSE int records = -1;
	struct stat st;

	setup();
	records = openat(store, "staging", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(staging_begin(staging, folder, other, &err), 0);
	for (unsigned i = 0; i < 100; i++) {
		ck_assert_int_eq(staging_begin(staging, folder, hidden, &err), 0);
		staging_end(staging, hidden);
	}
	ck_assert_uint_eq(count_names(records), 1);
	ck_assert_uint_eq(count_records(store), 1);
	hidden[18] = '\0'; /* the file's name is the number in the hidden name */
	ck_assert_int_eq(fstatat(records, hidden + 10, &st, 0), 0);
	ck_assert_int_lt(st.st_size, 3 * 8192);
	staging_end(staging, other);
	teardown();
	store = open_folder("store");
	ck_assert_uint_eq(count_names(records), 0);
}
END_TEST

START_TEST(a_folder_whose_path_holds_a_line_end_is_swept_too)
{
	char hidden[STAGING_NAME_SIZE];

	setup();
	(void)close(folder);
	folder = open_folder("a\nb c\n");
	leave_litter(hidden);
	restart();
	ck_assert_uint_eq(sweep(), 1);
	ck_assert_uint_eq(count_names(folder), 0);
	teardown();
}
END_TEST

UNIT_MAIN("commit", names_that_are_no_names_are_refused, a_target_appears_whole_by_its_commit_and_not_before,
	  a_target_that_appears_meanwhile_is_not_overwritten,
	  an_empty_directory_that_is_filled_meanwhile_is_not_overwritten, an_abort_takes_everything_back,
	  hidden_names_differ_and_say_that_they_are_ours,
	  sweep_deletes_only_names_that_records_of_earlier_processes_tell_of,
	  a_record_of_what_was_never_made_goes_quietly, a_record_whose_folder_was_replaced_deletes_nothing,
	  a_record_whose_folder_became_a_symlink_deletes_nothing,
	  records_of_the_version_before_are_obeyed_for_the_daemons_own_user,
	  records_that_make_no_sense_delete_nothing_and_go, a_folder_whose_path_holds_a_line_end_is_swept_too,
	  slots_are_used_again_and_a_clean_stop_leaves_no_file)
