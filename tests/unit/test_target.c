/* SPDX-License-Identifier: Apache-2.0 */
#include "client/target.h"

#include <string.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/unit/unit.h"

/* Does the path split into this folder and this name? */
static void check_split(const char *path, const char *folder, const char *name)
{
	CLEANUP(target_fini) struct target target;
	struct stat expected, opened;
	struct err err = { 0 };

	ck_assert_msg(target_init(&target, path, &err) == 0, "'%s': %s", path, err.text);
	ck_assert_msg(target.len == strlen(name) && memcmp(target.name, name, target.len) == 0,
		      "'%s': the name is '%.*s'", path, (int)target.len, target.name);
	ck_assert_int_eq(stat(folder, &expected), 0);
	ck_assert_int_eq(fstat(target.folder, &opened), 0);
	ck_assert_msg(expected.st_ino == opened.st_ino, "'%s': another folder", path);
}

static void check_refused(const char *path, enum err_code code, const char *words)
{
	CLEANUP(target_fini) struct target target;
	struct err err = { 0 };

	ck_assert_int_lt(target_init(&target, path, &err), 0);
	unit_ck_err(&err, code, words);
}

/* In a folder of the test's own, with a folder `a`. */
static void enter_folder(void)
{
	AUTO_FREE char *folder = xasprintf("%s/XXXXXX", unit_folder);

	ck_assert_ptr_nonnull(mkdtemp(folder));
	ck_assert_int_eq(chdir(folder), 0);
	ck_assert_int_eq(mkdir("a", 0755), 0);
}

START_TEST(a_path_splits_before_its_last_name)
{
	enter_folder();
	check_split("x", ".", "x");
	check_split("./x", ".", "x");
	check_split("a/x", "a", "x");
	check_split("a//x", "a", "x");
	check_split("a/../x", ".", "x");
	check_split("/x", "/", "x");
	check_split("...", ".", "...");
	check_split(".x", ".", ".x");
}
END_TEST

START_TEST(slashes_at_the_end_are_passed_over)
{
	enter_folder();
	check_split("x/", ".", "x");
	check_split("a/x///", "a", "x");
}
END_TEST

START_TEST(paths_without_a_last_name_are_refused)
{
	static const char *const paths[] = { "", "/", "//", ".", "..", "./", "../", "a/.", "a/..", "a/../" };

	for (size_t i = 0; i < N_ELEMENTS(paths); i++)
		check_refused(paths[i], ERR_INVALID_ARGUMENT, "does not end in a name");
}
END_TEST

/* "Not found" is said of what the cache lacks. */
START_TEST(a_missing_folder_is_named_and_is_no_missing_blob)
{
	check_refused("/nowhere/at/all", ERR_FAILED_PRECONDITION, "'/nowhere/at/' does not exist");
}
END_TEST

UNIT_MAIN("target", a_path_splits_before_its_last_name, slashes_at_the_end_are_passed_over,
	  paths_without_a_last_name_are_refused, a_missing_folder_is_named_and_is_no_missing_blob)
