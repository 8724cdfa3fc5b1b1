/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A unit test program: tests, and at the end of the file
 *
 *     UNIT_MAIN("digest", first_claim, second_claim, ...)
 *
 * Each test runs in a process of its own. unit_folder is an empty folder with a short path (for sockets),
 * made before the tests and removed after them, whatever became of them.
 */
#ifndef DIRCACHE_TESTS_UNIT_UNIT_H
#define DIRCACHE_TESTS_UNIT_UNIT_H

#include <check.h>
#include <dirent.h>
#include <ftw.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/auto.h"
#include "common/err.h"

static char unit_folder[] = "/tmp/unit-XXXXXX";

/* Did it fail so, and with these words? */
#define unit_ck_err(err, the_code, words)                                                                    \
	do {                                                                                                 \
		ck_assert((err)->set);                                                                       \
		ck_assert_str_eq(err_code_text((err)->code), err_code_text(the_code));                       \
		ck_assert_msg(strstr((err)->text, (words)), "'%s' does not say '%s'", (err)->text, (words)); \
	} while (0)

/* How many descriptors this process has open. */
static inline size_t unit_count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t n = 0;

	ck_assert_ptr_nonnull(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

/* From now on modes count for this thread, as they do for a user's daemon. Return: do they? */
static inline bool unit_heed_modes(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[2] = { 0 };

	return syscall(SYS_capset, &header, data) == 0;
}

static inline int unit_remove(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	(void)ftw;
	return remove(path);
}

static inline int unit_run(const char *name, const TTest *const *tests, size_t n)
{
	Suite *suite = suite_create(name);
	TCase *tcase = tcase_create(name);
	SRunner *runner = srunner_create(suite);
	int failed;

	if (!mkdtemp(unit_folder)) {
		perror(unit_folder);
		return EXIT_FAILURE;
	}
	suite_add_tcase(suite, tcase);
	for (size_t i = 0; i < n; i++)
		tcase_add_test(tcase, tests[i]);
	srunner_set_tap(runner, "-");
	srunner_run_all(runner, CK_ENV); /* beside TAP, whose failures have no file:line */
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	(void)nftw(unit_folder, unit_remove, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}

#define UNIT_MAIN(name, ...)                                                                                 \
	int main(void)                                                                                       \
	{                                                                                                    \
		const TTest *const tests[] = { __VA_ARGS__ };                                                \
                                                                                                             \
		return unit_run((name), tests, N_ELEMENTS(tests));                                           \
	}

#endif
