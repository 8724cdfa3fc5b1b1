/* SPDX-License-Identifier: Apache-2.0 */
/* Targets: what appears, and what an abort deletes. */
#include "daemon/target.h"

#include "tests/unit/committing.h"

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

START_TEST(an_abort_deletes_no_other_directory_that_took_the_name)
{
	struct target target;

	setup();
	make_precious();
	target = begin("t", false);
	replace(target.hidden, "precious");
	target_abort(&target);
	ck_precious(target.hidden);
	ck_assert(is_there(folder, "away/file"));
	ck_assert_uint_eq(count_records(store), 0);
	teardown();
}
END_TEST

START_TEST(an_abort_deletes_an_empty_directory_of_which_nothing_else_is_known)
{
	struct target target;

	setup();
	ck_assert_int_eq(target_init(&target, staging, folder, "t", 1, &err), 0);
	ck_assert_int_eq(target_begin(&target, &err), 0);
	make_directory(folder, target.hidden);
	target_abort(&target);
	ck_assert_uint_eq(count_names(folder), 0);
	ck_assert_int_eq(target_begin(&target, &err), 0);
	make_precious();
	ck_assert_int_eq(renameat(folder, "precious", folder, target.hidden), 0);
	target_abort(&target);
	ck_precious(target.hidden);
	teardown();
}
END_TEST

START_TEST(where_others_may_write_only_an_empty_directory_is_taken_for_what_was_made)
{
	struct target target;
	AUTO_CLOSE int fd = -1;

	setup();
	ck_assert_int_eq(fchmod(folder, 0777), 0);
	make_directory(folder, "other");
	make_file(folder, "other/file");
	ck_assert_int_eq(target_init(&target, staging, folder, "t", 1, &err), 0);
	ck_assert_int_eq(target_begin(&target, &err), 0);
	make_directory(folder, target.hidden);
	replace(target.hidden, "other");
	ck_assert_int_lt(try_note(&target), 0);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, "'t' something else took the place");
	target_abort(&target);
	fd = openat(folder, target.hidden, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(fd, 0);
	ck_assert_uint_eq(count_names(fd), 1);
	teardown();
}
END_TEST

UNIT_MAIN("commit", names_that_are_no_names_are_refused, a_target_appears_whole_by_its_commit_and_not_before,
	  a_target_that_appears_meanwhile_is_not_overwritten,
	  an_empty_directory_that_is_filled_meanwhile_is_not_overwritten, an_abort_takes_everything_back,
	  an_abort_deletes_no_other_directory_that_took_the_name,
	  an_abort_deletes_an_empty_directory_of_which_nothing_else_is_known,
	  where_others_may_write_only_an_empty_directory_is_taken_for_what_was_made)
