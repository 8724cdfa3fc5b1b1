/* SPDX-License-Identifier: Apache-2.0 */
/* Staging records: what a restart deletes, and what it does not. */
#include "daemon/staging.h"

#include "tests/unit/committing.h"

START_TEST(hidden_names_differ_and_say_that_they_are_ours)
{
	char hidden[100][STAGING_NAME_SIZE];

	setup();
	for (unsigned i = 0; i < 100; i++) {
		ck_assert_int_eq(staging_begin(staging, folder, NULL, hidden[i], &err), 0);
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

START_TEST(a_folder_is_shared_where_others_may_rename_what_is_the_clients)
{
	static const struct {
		mode_t mode;
		uid_t owner; /* besides our own, where we are root */
		int is_shared;
	} cases[] = {
		{ 0755, 0, 0 },  { 0775, 0, STAGING_SHARED },     { 0757, 0, STAGING_SHARED },
		{ 01777, 0, 0 }, { 0755, 12001, STAGING_SHARED }, { 01777, 12001, STAGING_SHARED },
	};
	char hidden[STAGING_NAME_SIZE];

	setup();
	for (size_t i = 0; i < N_ELEMENTS(cases); i++) {
		if (cases[i].owner && geteuid() != 0)
			continue;
		if (cases[i].owner)
			ck_assert_int_eq(fchown(folder, cases[i].owner, (gid_t)-1), 0);
		ck_assert_int_eq(fchmod(folder, cases[i].mode), 0);
		ck_assert_int_eq(staging_begin(staging, folder, NULL, hidden, &err), cases[i].is_shared);
		staging_end(staging, hidden);
	}
	teardown();
}
END_TEST

START_TEST(a_sweep_deletes_no_other_directory_that_took_the_name)
{
	struct target target;

	setup();
	ck_assert_int_eq(fchmod(folder, 0777), 0);
	make_precious();
	target = begin("t", false);
	replace(target.hidden, "precious");
	restart();
	ck_assert_uint_eq(sweep(), 0);
	ck_precious(target.hidden);
	ck_assert_uint_eq(count_records(store), 0);
	teardown();
}
END_TEST

START_TEST(where_others_may_write_a_sweep_deletes_what_was_made_there)
{
	struct target made, barely;

	setup();
	ck_assert_int_eq(fchmod(folder, 0777), 0);
	made = begin("made", false);
	ck_assert_int_eq(target_init(&barely, staging, folder, "barely", 6, &err), 0);
	ck_assert_int_eq(target_begin(&barely, &err), 0);
	make_directory(folder, barely.hidden); /* killed before it could be noted */
	restart();
	ck_assert_uint_eq(sweep(), 2);
	ck_assert(!is_there(folder, made.hidden) && !is_there(folder, barely.hidden));
	ck_assert_uint_eq(count_records(store), 0);
	teardown();
}
END_TEST

/* It was private when the record was made, so that this does not say which directory is meant. */
START_TEST(in_a_folder_opened_to_others_since_a_sweep_leaves_what_is_not_empty)
{
	char hidden[STAGING_NAME_SIZE];

	setup();
	leave_litter(hidden);
	ck_assert_int_eq(fchmod(folder, 0777), 0);
	restart();
	ck_assert_uint_eq(sweep(), 0);
	ck_assert(is_there(folder, hidden));
	teardown();
}
END_TEST

START_TEST(what_is_to_be_removed_is_known_from_the_beginning)
{
	struct rmtree_inode inode;
	char hidden[STAGING_NAME_SIZE];
	struct statx st;

	setup();
	make_precious();
	make_directory(folder, "t");
	make_file(folder, "t/file");
	ck_assert_int_eq(statx(folder, "t", 0, RMTREE_LOOK, &st), 0);
	inode = rmtree_inode_of(&st);
	ck_assert_int_eq(staging_begin(staging, folder, &inode, hidden, &err), 0);
	ck_assert_int_eq(renameat(folder, "t", folder, hidden), 0);
	replace(hidden, "precious");
	restart();
	ck_assert_uint_eq(sweep(), 0);
	ck_precious(hidden);
	ck_assert_int_eq(staging_begin(staging, folder, &inode, hidden, &err), 0);
	ck_assert_int_eq(renameat(folder, "away", folder, hidden), 0);
	restart();
	ck_assert_uint_eq(sweep(), 1);
	ck_assert(!is_there(folder, hidden));
	teardown();
}
END_TEST

START_TEST(a_record_of_what_was_never_made_goes_quietly)
{
	char hidden[STAGING_NAME_SIZE];

	setup();
	ck_assert_int_eq(staging_begin(staging, folder, NULL, hidden, &err), 0);
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

START_TEST(records_of_version_3_are_obeyed)
{
	const char *name = ".dircache-0123456700000001234567ab";
	char text[512];
	struct stat st;

	setup();
	ck_assert_int_eq(fstat(folder, &st), 0);
	make_directory(folder, name);
	make_file(folder, ".dircache-0123456700000001234567ab/file");
	(void)snprintf(text, sizeof(text), "dircache-staging 3\n%u 0\n%ju %ju\n%s\n%s/folder",
		       (unsigned)geteuid(), (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, name, path);
	write_record("01234567", 0, text);
	ck_assert_uint_eq(sweep(), 1);
	ck_assert(!is_there(folder, name));
	teardown();
}
END_TEST

/* One of another user's daemon stays: nothing tells his groups. */
START_TEST(records_of_version_2_are_obeyed_for_the_daemons_own_user)
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
	ck_assert_int_eq(staging_begin(staging, folder, NULL, other, &err), 0);
	for (unsigned i = 0; i < 100; i++) {
		ck_assert_int_eq(staging_begin(staging, folder, NULL, hidden, &err), 0);
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

UNIT_MAIN("staging", hidden_names_differ_and_say_that_they_are_ours,
	  sweep_deletes_only_names_that_records_of_earlier_processes_tell_of,
	  a_folder_is_shared_where_others_may_rename_what_is_the_clients,
	  a_sweep_deletes_no_other_directory_that_took_the_name,
	  where_others_may_write_a_sweep_deletes_what_was_made_there,
	  in_a_folder_opened_to_others_since_a_sweep_leaves_what_is_not_empty,
	  what_is_to_be_removed_is_known_from_the_beginning, a_record_of_what_was_never_made_goes_quietly,
	  a_record_whose_folder_was_replaced_deletes_nothing,
	  a_record_whose_folder_became_a_symlink_deletes_nothing, records_of_version_3_are_obeyed,
	  records_of_version_2_are_obeyed_for_the_daemons_own_user,
	  records_that_make_no_sense_delete_nothing_and_go,
	  slots_are_used_again_and_a_clean_stop_leaves_no_file,
	  a_folder_whose_path_holds_a_line_end_is_swept_too)
