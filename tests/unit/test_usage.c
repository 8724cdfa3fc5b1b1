/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/evicting.h"

#include <ftw.h>

static uint64_t sum;

static int add(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)path;
	(void)type;
	(void)ftw;
	sum += (uint64_t)st->st_blocks * 512;
	return 0;
}

/* What du says. */
static uint64_t on_disk(void)
{
	sum = 0;
	ck_assert_int_eq(nftw(store_path, add, 16, FTW_PHYS), 0);
	return sum;
}

START_TEST(all_below_the_store_is_counted)
{
	char path[96];
	FILE *file;

	start_cache();
	ck_assert_uint_eq(measure(), on_disk());
	(void)cache_tree("abc");
	(void)store_text("both kinds", BLOB_PLAIN);
	(void)store_text("both kinds", BLOB_EXEC);
	(void)snprintf(path, sizeof(path), "%s/lost+found", store_path);
	ck_assert_int_eq(mkdir(path, 0700), 0);
	(void)snprintf(path, sizeof(path), "%s/lost+found/something", store_path);
	file = fopen(path, "w");
	ck_assert_ptr_nonnull(file);
	for (unsigned i = 0; i < 10000; i++)
		(void)fputs("something", file);
	(void)fclose(file);
	ck_assert_uint_eq(measure(), on_disk());
	gc(ALL);
	ck_assert_uint_eq(measure(), on_disk());
	stop_cache();
}
END_TEST

START_TEST(all_who_ask_are_told_and_who_leaves_is_not)
{
	struct usage_waiter waiters[3] = { { .measured = on_measured },
					   { .measured = on_measured },
					   { .measured = NULL } };

	start_cache();
	for (unsigned i = 0; i < N_ELEMENTS(waiters); i++)
		usage_measure(cache.usage, &waiters[i]);
	usage_leave(&waiters[2]);
	for (unsigned i = 0; i < 2; i++) {
		is_measured = false;
		run_until_set(&is_measured);
	}
	run_until_idle();
	stop_cache();
}
END_TEST

/* File systems allocate late: what was noted when a file was written may not be what it takes. */
START_TEST(what_a_large_file_takes_is_looked_at_again)
{
	struct catalog_entry *entry;
	struct blob_info info;
	struct digest file;

	start_cache();
	file = store_file('x');
	ck_assert_int_eq(blob_stat(cache.store, &file, BLOB_PLAIN, &info, NULL), 0);
	entry = catalog_find(cache.catalog, &file);
	info.allocated -= 4096;
	(void)catalog_add(cache.catalog, &info, BLOB_PLAIN, NULL); /* as if a block less had been seen */
	ck_assert_uint_eq(catalog_allocated(entry), info.allocated);
	(void)measure();
	ck_assert_uint_eq(catalog_allocated(entry), info.allocated + 4096);
	ck_assert_uint_eq(measure(), on_disk()); /* again, for the index took a little more for that */
	restart_cache();
	ck_assert_uint_eq(catalog_allocated(catalog_find(cache.catalog, &file)), info.allocated + 4096);
	stop_cache();
}
END_TEST

UNIT_MAIN("usage", all_below_the_store_is_counted, all_who_ask_are_told_and_who_leaves_is_not,
	  what_a_large_file_takes_is_looked_at_again)
