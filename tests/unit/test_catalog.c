/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/catalog.h"

#include "common/hash.h"
#include "tests/unit/unit.h"

static struct blob_info info_of(unsigned number, uint64_t size, uint64_t allocated)
{
	struct blob_info info = { .allocated = allocated };

	hash_bytes(&number, sizeof(number), &info.digest);
	info.digest.size = size;
	return info;
}

START_TEST(a_blob_is_there_by_kind_and_size)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct digest other = info.digest;
	bool is_new;

	other.size = 11;
	ck_assert(!catalog_has(catalog, &info.digest, BLOB_PLAIN));
	(void)catalog_add(catalog, &info, BLOB_PLAIN, &is_new);
	ck_assert(is_new);
	(void)catalog_add(catalog, &info, BLOB_PLAIN, &is_new);
	ck_assert(!is_new);
	ck_assert(catalog_has(catalog, &info.digest, BLOB_PLAIN));
	ck_assert(!catalog_has(catalog, &info.digest, BLOB_EXEC));
	ck_assert(!catalog_has(catalog, &other, BLOB_PLAIN));
	ck_assert_ptr_eq(catalog_find(catalog, &other), catalog_find(catalog, &info.digest));
}
END_TEST

START_TEST(an_entry_goes_with_its_last_kind)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct catalog_entry *entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);

	(void)catalog_add(catalog, &info, BLOB_EXEC, NULL);
	ck_assert_ptr_eq(catalog_drop(catalog, entry, BLOB_PLAIN), entry);
	ck_assert(catalog_has(catalog, &info.digest, BLOB_EXEC));
	ck_assert_ptr_null(catalog_drop(catalog, entry, BLOB_EXEC));
	ck_assert_ptr_null(catalog_find(catalog, &info.digest));
}
END_TEST

START_TEST(totals_follow_every_change)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct catalog_entry *entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);
	struct catalog_totals totals;

	(void)catalog_add(catalog, &info, BLOB_EXEC, NULL);
	info.allocated = 8192;
	(void)catalog_add(catalog, &info, BLOB_EXEC, NULL); /* it grew: counted once */
	totals = catalog_totals(catalog);
	ck_assert_uint_eq(totals.n_blobs, 1);
	ck_assert_uint_eq(totals.bytes, 10);
	ck_assert_uint_eq(totals.allocated, 4096 + 8192);
	entry = catalog_drop(catalog, entry, BLOB_EXEC);
	(void)catalog_drop(catalog, entry, BLOB_PLAIN);
	totals = catalog_totals(catalog);
	ck_assert_uint_eq(totals.n_blobs + totals.bytes + totals.allocated, 0);
}
END_TEST

START_TEST(what_the_index_had_comes_back_as_the_same_row)
{
	AUTO(catalog) catalog = catalog_new();
	struct index_blob in = { .row = 5,
				 .digest = info_of(1, 10, 0).digest,
				 .allocated = { 512, 4096 },
				 .kinds = 3,
				 .used = 77 };
	struct index_blob back;

	ck_assert_uint_eq(catalog_load(catalog, &in), 0);
	back = catalog_row(catalog_find(catalog, &in.digest));
	ck_assert_uint_eq(back.row, 5);
	ck_assert(digest_equal(&back.digest, &in.digest));
	ck_assert_uint_eq(back.allocated[BLOB_PLAIN], 512);
	ck_assert_uint_eq(back.allocated[BLOB_EXEC], 4096);
	ck_assert_uint_eq(back.kinds, 3);
	ck_assert_uint_eq(back.used, 77);
	ck_assert_uint_eq(catalog_find(catalog, &in.digest)->seen, 0);
}
END_TEST

START_TEST(of_two_rows_with_one_hash_the_later_counts)
{
	AUTO(catalog) catalog = catalog_new();
	struct index_blob old = { .row = 5,
				  .digest = info_of(1, 10, 0).digest,
				  .allocated = { 512, 4096 },
				  .kinds = 3,
				  .used = 77 };
	struct index_blob new = {
		.row = 9, .digest = info_of(1, 11, 0).digest, .allocated = { 1024 }, .kinds = 1, .used = 66
	};
	struct catalog_totals totals;
	struct index_blob back;

	ck_assert_uint_eq(catalog_load(catalog, &old), 0);
	ck_assert_uint_eq(catalog_load(catalog, &new), 5);
	back = catalog_row(catalog_find(catalog, &new.digest));
	ck_assert_uint_eq(back.row, 9);
	ck_assert_uint_eq(back.kinds, 1);
	ck_assert_uint_eq(back.used, 66);
	totals = catalog_totals(catalog);
	ck_assert_uint_eq(totals.n_blobs, 1);
	ck_assert_uint_eq(totals.bytes, 11);
	ck_assert_uint_eq(totals.allocated, 1024);
}
END_TEST

START_TEST(a_row_belongs_to_a_blob_from_its_first_kind_to_its_last)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 0), larger = info_of(1, 11, 0);
	struct catalog_entry *entry;
	uint64_t first;

	catalog_row_seen(catalog, 7);
	catalog_hold(catalog, &info.digest); /* the entry outlives the blob */
	entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);
	first = entry->row;
	ck_assert_uint_gt(first, 7);
	ck_assert_uint_eq(catalog_add(catalog, &info, BLOB_EXEC, NULL)->row, first);
	entry = catalog_drop(catalog, entry, BLOB_PLAIN);
	ck_assert_uint_eq(entry->row, first);
	ck_assert_ptr_null(catalog_drop(catalog, entry, BLOB_EXEC));
	entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);
	ck_assert_uint_gt(entry->row, first);
	first = entry->row;
	ck_assert_uint_eq(catalog_drop_other_size(catalog, &info.digest), 0);
	ck_assert_uint_eq(catalog_drop_other_size(catalog, &larger.digest), first);
	ck_assert_ptr_null(catalog_find(catalog, &info.digest));
	catalog_release(catalog, &info.digest, 0);
}
END_TEST

START_TEST(times_of_use_ascend_whatever_was_loaded_and_whatever_the_clock_does)
{
	AUTO(catalog) catalog = catalog_new();
	uint64_t future = UINT64_C(1) << 60, last = 0;

	for (unsigned i = 0; i < 10000; i++) { /* faster than a clock of microseconds */
		uint64_t tick = catalog_tick(catalog);

		ck_assert_uint_gt(tick, last);
		last = tick;
	}
	catalog_tick_seen(catalog, 5);
	ck_assert_uint_gt(catalog_tick(catalog), last);
	catalog_tick_seen(catalog, future);
	ck_assert_uint_eq(catalog_tick(catalog), future + 1);
	catalog_tick_seen(catalog, UINT64_MAX); /* nonsense: the next would begin anew at 0 */
	ck_assert_uint_eq(catalog_tick(catalog), future + 2);
}
END_TEST

START_TEST(a_large_size_is_known_once_it_was_stored)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info large = info_of(1, BLOB_LARGE + 12345, 0), small = info_of(2, 100, 0);

	ck_assert(!catalog_may_have_size(catalog, large.digest.size));
	(void)catalog_add(catalog, &large, BLOB_PLAIN, NULL);
	(void)catalog_add(catalog, &small, BLOB_PLAIN, NULL);
	ck_assert(catalog_may_have_size(catalog, large.digest.size));
	ck_assert(!catalog_may_have_size(catalog, large.digest.size + 1));
}
END_TEST

START_TEST(a_walk_meets_every_entry_once_and_dropped_entries_are_used_again)
{
	enum { N = 5000 };
	AUTO(catalog) catalog = catalog_new();
	size_t n = 0;

	for (unsigned round = 0; round < 3; round++) {
		for (unsigned i = 0; i < N; i++) {
			struct blob_info info = info_of(i, i + 1, 512);

			(void)catalog_add(catalog, &info, BLOB_PLAIN, NULL);
		}
		n = 0;
		for (size_t i = 0; i < catalog_end(catalog); i++)
			n += catalog_at(catalog, i) != NULL;
		ck_assert_uint_eq(n, N);
		for (unsigned i = round == 2 ? N : 0; i < N; i++) {
			struct blob_info info = info_of(i, i + 1, 512);

			(void)catalog_drop(catalog, catalog_find(catalog, &info.digest), BLOB_PLAIN);
		}
	}
	ck_assert_ptr_null(catalog_at(catalog, catalog_end(catalog)));
	for (unsigned i = 0; i < N; i++) {
		struct blob_info info = info_of(i, i + 1, 512);

		ck_assert(catalog_has(catalog, &info.digest, BLOB_PLAIN));
	}
}
END_TEST

START_TEST(an_entry_takes_72_bytes)
{
	ck_assert_uint_eq(sizeof(struct catalog_entry), 72);
}
END_TEST

START_TEST(a_hold_on_what_is_not_there_is_seen_by_nobody)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct digest lie = info.digest;
	size_t n = 0;

	lie.size = BLOB_LARGE;
	catalog_hold(catalog, &lie);
	ck_assert_ptr_null(catalog_find(catalog, &info.digest));
	for (size_t i = 0; i < catalog_end(catalog); i++)
		n += catalog_at(catalog, i) != NULL;
	ck_assert_uint_eq(n, 0);
	ck_assert_uint_eq(catalog_totals(catalog).n_blobs + catalog_totals(catalog).bytes, 0);
	ck_assert(!catalog_may_have_size(catalog, lie.size));
	ck_assert_uint_eq(catalog_add(catalog, &info, BLOB_PLAIN, NULL)->holds, 1);
	ck_assert(catalog_has(catalog, &info.digest, BLOB_PLAIN)); /* with the size that it has */
	ck_assert_uint_eq(catalog_totals(catalog).bytes, 10);
}
END_TEST

START_TEST(holds_outlive_the_blob_and_meet_it_when_it_comes_back)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct catalog_entry *entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);

	catalog_hold(catalog, &info.digest);
	catalog_hold(catalog, &info.digest);
	ck_assert_ptr_null(catalog_drop(catalog, entry, BLOB_PLAIN));
	ck_assert_uint_eq(catalog_totals(catalog).n_blobs + catalog_totals(catalog).allocated, 0);
	catalog_release(catalog, &info.digest, 0);
	entry = catalog_add(catalog, &info, BLOB_EXEC, NULL);
	ck_assert_uint_eq(entry->holds, 1);
	ck_assert_uint_eq(entry->seen, 1u << BLOB_EXEC);
	catalog_release(catalog, &info.digest, 0);
	ck_assert_uint_eq(entry->holds, 0);
	ck_assert_ptr_eq(catalog_find(catalog, &info.digest), entry);
}
END_TEST

START_TEST(the_last_release_of_what_is_not_there_leaves_nothing)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);

	for (unsigned i = 0; i < 3; i++) {
		catalog_hold(catalog, &info.digest);
		catalog_release(catalog, &info.digest, 5);
	}
	ck_assert_uint_eq(catalog_add(catalog, &info, BLOB_PLAIN, NULL)->holds, 0);
}
END_TEST

static unsigned n_unheld;
static struct digest last_unheld;

static void on_unheld(void *ctx, const struct catalog_entry *entry)
{
	ck_assert_ptr_eq(ctx, &n_unheld);
	ck_assert_uint_eq(entry->holds, 0);
	n_unheld++;
	last_unheld = entry->digest;
}

START_TEST(the_watcher_hears_of_the_last_release_of_what_is_there)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info here = info_of(1, 10, 4096), absent = info_of(2, 20, 0);

	(void)catalog_add(catalog, &here, BLOB_PLAIN, NULL);
	catalog_watch(catalog, on_unheld, &n_unheld);
	catalog_hold(catalog, &here.digest);
	catalog_hold(catalog, &here.digest);
	catalog_hold(catalog, &absent.digest);
	catalog_release(catalog, &here.digest, 0);
	catalog_release(catalog, &absent.digest, 0);
	ck_assert_uint_eq(n_unheld, 0);
	catalog_release(catalog, &here.digest, 0);
	ck_assert_uint_eq(n_unheld, 1);
	ck_assert(digest_equal(&last_unheld, &here.digest));
}
END_TEST

START_TEST(what_is_released_was_used_when_its_holder_was)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct catalog_entry *entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);
	uint64_t stored = entry->used;

	catalog_hold(catalog, &info.digest);
	catalog_release(catalog, &info.digest, stored + 7);
	ck_assert_uint_eq(entry->used, stored + 7);
	catalog_hold(catalog, &info.digest);
	catalog_release(catalog, &info.digest, stored); /* an older holder does not make it older */
	ck_assert_uint_eq(entry->used, stored + 7);
}
END_TEST

START_TEST(the_empty_blob_is_never_held)
{
	AUTO(catalog) catalog = catalog_new();

	catalog_hold(catalog, &digest_empty);
	ck_assert_uint_eq(catalog_end(catalog), 0);
	catalog_release(catalog, &digest_empty, 1);
}
END_TEST

START_TEST(a_count_that_reached_its_end_holds_for_good)
{
	AUTO(catalog) catalog = catalog_new();
	struct blob_info info = info_of(1, 10, 4096);
	struct catalog_entry *entry = catalog_add(catalog, &info, BLOB_PLAIN, NULL);

	entry->holds = UINT32_MAX - 1; /* as after four thousand million holds */
	catalog_hold(catalog, &info.digest);
	catalog_hold(catalog, &info.digest);
	catalog_release(catalog, &info.digest, 0);
	catalog_release(catalog, &info.digest, 0);
	ck_assert_uint_eq(entry->holds, UINT32_MAX);
}
END_TEST

START_TEST(leaving_bytes_are_counted_until_they_are_gone)
{
	AUTO(catalog) catalog = catalog_new();

	catalog_leaving(catalog, 8192);
	catalog_leaving(catalog, -4096);
	ck_assert_uint_eq(catalog_totals(catalog).leaving, 4096);
	ck_assert_uint_eq(catalog_totals(catalog).allocated, 0);
	catalog_leaving(catalog, -4096);
	ck_assert_uint_eq(catalog_totals(catalog).leaving, 0);
}
END_TEST

UNIT_MAIN("catalog", a_blob_is_there_by_kind_and_size, an_entry_goes_with_its_last_kind,
	  totals_follow_every_change, what_the_index_had_comes_back_as_the_same_row,
	  of_two_rows_with_one_hash_the_later_counts, a_row_belongs_to_a_blob_from_its_first_kind_to_its_last,
	  times_of_use_ascend_whatever_was_loaded_and_whatever_the_clock_does,
	  a_large_size_is_known_once_it_was_stored,
	  a_walk_meets_every_entry_once_and_dropped_entries_are_used_again, an_entry_takes_72_bytes,
	  a_hold_on_what_is_not_there_is_seen_by_nobody,
	  holds_outlive_the_blob_and_meet_it_when_it_comes_back,
	  the_last_release_of_what_is_not_there_leaves_nothing,
	  the_watcher_hears_of_the_last_release_of_what_is_there,
	  what_is_released_was_used_when_its_holder_was, the_empty_blob_is_never_held,
	  a_count_that_reached_its_end_holds_for_good, leaving_bytes_are_counted_until_they_are_gone)
