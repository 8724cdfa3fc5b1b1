/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/flight.h"

#include "tests/unit/daemon.h"

struct waiting {
	struct flight_waiter waiter; /* first */
	bool landed;
	int r;
	struct err err;
	struct waiting *then; /* joins from within landed() */
	const struct digest *digest;
};

static void on_landed(struct flight_waiter *waiter, int r, const struct err *why)
{
	struct waiting *w = (struct waiting *)waiter;

	ck_assert(!w->landed);
	w->landed = true;
	w->r = r;
	w->err = *why;
	if (!w->then)
		return;
	w->then->waiter.landed = on_landed;
	flight_join(cache.flights, w->digest, BLOB_EXEC, false, &w->then->waiter);
}

static void join(struct waiting *w, const struct digest *digest, enum blob_kind kind, bool links_used_up)
{
	w->waiter.landed = on_landed;
	flight_join(cache.flights, digest, kind, links_used_up, &w->waiter);
	ck_assert(!w->landed);
}

/* Ask for a blob, and wait: how did it end? */
static int fly(const struct digest *digest, enum blob_kind kind, bool links_used_up)
{
	struct waiting w = { 0 };

	join(&w, digest, kind, links_used_up);
	run_until_idle();
	ck_assert(w.landed);
	return w.r;
}

START_TEST(sixteen_who_miss_one_kind_make_one_flight)
{
	struct waiting w[16] = { 0 };
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	for (unsigned i = 0; i < 16; i++)
		join(&w[i], &digest, BLOB_EXEC, false);
	ck_assert_uint_eq(flights_n(cache.flights), 1);
	run_until_idle();
	for (unsigned i = 0; i < 16; i++)
		ck_assert(w[i].landed && w[i].r == 0);
	ck_assert_uint_eq(cache.counters.blob_fetches, 1);
	ck_assert_uint_eq(cache.counters.blob_fetch_joins, 15);
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_EXEC));
	ck_assert_int_eq(blob_stat(cache.store, &digest, BLOB_EXEC, NULL, &err), 0);
	stop_cache();
}
END_TEST

START_TEST(the_kinds_of_a_blob_fly_apart)
{
	struct waiting w[2] = { 0 };
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	join(&w[0], &digest, BLOB_EXEC, false);
	join(&w[1], &digest, BLOB_PLAIN, false);
	ck_assert_uint_eq(flights_n(cache.flights), 2);
	run_until_idle();
	ck_assert(w[0].r == 0 && w[1].r == 0);
	stop_cache();
}
END_TEST

START_TEST(who_asks_for_another_size_waits_for_another_blob)
{
	struct waiting w[2] = { 0 };
	struct digest digest, wrong;

	start_cache();
	wrong = digest = store_text("bytes", BLOB_PLAIN);
	wrong.size++;
	join(&w[0], &digest, BLOB_PLAIN, false);
	join(&w[1], &wrong, BLOB_PLAIN, false);
	ck_assert_uint_eq(flights_n(cache.flights), 2);
	run_until_idle();
	ck_assert_int_eq(w[0].r, 0);
	ck_assert_int_eq(w[1].r, BLOB_MISSING);
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	ck_assert_int_eq(blob_stat(cache.store, &digest, BLOB_PLAIN, NULL, &err), 0);
	ck_assert_uint_eq(cache.counters.tampered_blobs, 0);
	stop_cache();
}
END_TEST

START_TEST(a_blob_that_nobody_has_is_missing_and_the_next_who_asks_tries_anew)
{
	struct digest digest = absent_digest(1);
	struct waiting w[3] = { 0 };

	start_cache();
	join(&w[0], &digest, BLOB_PLAIN, false);
	join(&w[1], &digest, BLOB_PLAIN, false);
	run_until_idle();
	ck_assert(w[0].r == BLOB_MISSING && w[1].r == BLOB_MISSING);
	ck_assert_uint_eq(flights_n(cache.flights), 0);
	digest = store_bytes("later", 5, BLOB_PLAIN, false);
	join(&w[2], &digest, BLOB_PLAIN, false);
	run_until_idle();
	ck_assert_int_eq(w[2].r, 0);
	stop_cache();
}
END_TEST

START_TEST(a_blob_whose_file_is_gone_leaves_the_catalog_and_the_index)
{
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	ck_assert_int_eq(fly(&digest, BLOB_PLAIN, false), 0); /* finds it, and writes its row */
	restart_cache();
	ck_assert_ptr_nonnull(catalog_find(cache.catalog, &digest));
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	ck_assert_int_eq(fly(&digest, BLOB_PLAIN, false), BLOB_MISSING);
	ck_assert_ptr_null(catalog_find(cache.catalog, &digest));
	restart_cache();
	ck_assert_ptr_null(catalog_find(cache.catalog, &digest));
	stop_cache();
}
END_TEST

START_TEST(a_lost_kind_is_healed_from_the_other_and_counted)
{
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	(void)store_text("bytes", BLOB_EXEC);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	ck_assert_int_eq(fly(&digest, BLOB_PLAIN, false), 0);
	ck_assert_uint_eq(cache.counters.healed_blobs, 1);
	ck_assert_int_eq(access(path_of_blob(&digest, BLOB_PLAIN), F_OK), 0);
	stop_cache();
}
END_TEST

START_TEST(a_changed_inode_is_taken_out_counted_and_missing)
{
	struct digest digest;
	int fd;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	fd = open(path_of_blob(&digest, BLOB_PLAIN), O_WRONLY); /* as root could through any of its links */
	if (fd < 0) {                                           /* not root: as its owner could */
		ck_assert_int_eq(chmod(path_of_blob(&digest, BLOB_PLAIN), 0644), 0);
		fd = open(path_of_blob(&digest, BLOB_PLAIN), O_WRONLY);
	}
	ck_assert_int_eq(write(fd, "BYTES", 5), 5);
	(void)close(fd);
	ck_assert_int_eq(fly(&digest, BLOB_PLAIN, false), BLOB_MISSING);
	ck_assert_uint_eq(cache.counters.tampered_blobs, 1);
	ck_assert_int_lt(access(path_of_blob(&digest, BLOB_PLAIN), F_OK), 0);
	stop_cache();
}
END_TEST

START_TEST(an_inode_that_takes_more_links_after_all_stays)
{
	struct digest digest;
	struct stat before, after;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	ck_assert_int_eq(stat(path_of_blob(&digest, BLOB_PLAIN), &before), 0);
	ck_assert_int_eq(fly(&digest, BLOB_PLAIN, true), 0); /* says the plan; the disk knows better */
	ck_assert_int_eq(stat(path_of_blob(&digest, BLOB_PLAIN), &after), 0);
	ck_assert_uint_eq(before.st_ino, after.st_ino);
	ck_assert_uint_eq(cache.counters.inode_rotations, 0);
	stop_cache();
}
END_TEST

START_TEST(who_leaves_hears_nothing_and_the_others_all)
{
	struct waiting w[3] = { 0 };
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	for (unsigned i = 0; i < 3; i++)
		join(&w[i], &digest, BLOB_EXEC, false);
	flight_leave(&w[0].waiter);
	flight_leave(&w[2].waiter);
	run_until_idle();
	ck_assert(!w[0].landed && w[1].landed && !w[2].landed);
	stop_cache();
}
END_TEST

START_TEST(who_asks_again_when_a_flight_fails_starts_a_new_one)
{
	struct digest digest = absent_digest(1);
	struct waiting again = { 0 }, w = { .then = &again, .digest = &digest };

	start_cache();
	join(&w, &digest, BLOB_EXEC, false);
	run_until_set(&w.landed);
	ck_assert(!again.landed);
	run_until_idle();
	ck_assert(again.landed && again.r == BLOB_MISSING);
	ck_assert_uint_eq(cache.counters.blob_fetch_joins, 0);
	stop_cache();
}
END_TEST

/* The worker finds nothing, and before the loop hears of it a put has stored the blob. */
START_TEST(what_is_stored_while_a_flight_looks_for_it_is_found)
{
	struct waiting w[2] = { 0 };
	struct digest digest;

	start_cache();
	hash_bytes("late", 4, &digest);
	join(&w[0], &digest, BLOB_PLAIN, false);
	(void)usleep(50000); /* for the worker; if it takes longer it finds the blob itself */
	(void)store_text("late", BLOB_PLAIN);
	join(&w[1], &digest, BLOB_PLAIN, false);
	run_until_idle();
	ck_assert_int_eq(w[0].r, 0);
	ck_assert_int_eq(w[1].r, 0);
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	ck_assert_uint_eq(flights_n(cache.flights), 0);
	stop_cache();
}
END_TEST

/* Something in the way of a blob's folder, or nothing again. */
static void block(const struct digest *digest, bool is_blocked)
{
	char path[256];

	(void)snprintf(path, sizeof(path), "%s", path_of_blob(digest, BLOB_EXEC));
	*strrchr(path, '/') = '\0';
	if (is_blocked)
		ck_assert_int_eq(mknod(path, S_IFREG | 0600, 0), 0);
	else
		ck_assert_int_eq(unlink(path), 0);
}

/* A use is no storing: who gave up a hold meanwhile did not see the file. */
START_TEST(what_is_only_used_while_a_flight_looks_for_it_is_missing)
{
	struct waiting w = { 0 };
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	catalog_hold(cache.catalog, &digest);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	join(&w, &digest, BLOB_PLAIN, false);
	catalog_release(cache.catalog, &digest, catalog_tick(cache.catalog));
	uses_note(cache.uses, &digest);
	run_until_idle();
	ck_assert_int_eq(w.r, BLOB_MISSING);
	ck_assert_ptr_null(catalog_find(cache.catalog, &digest));
	stop_cache();
}
END_TEST

/* ... and a blob that was known, and lost, and stored again while a flight looks, is there. */
START_TEST(what_is_stored_again_while_a_flight_looks_for_it_is_found)
{
	struct waiting w = { 0 };
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	ck_assert_int_eq(unlink(path_of_blob(&digest, BLOB_PLAIN)), 0);
	join(&w, &digest, BLOB_PLAIN, false);
	(void)usleep(50000); /* for the worker; if it takes longer it finds the blob itself */
	(void)store_text("bytes", BLOB_PLAIN);
	run_until_idle();
	ck_assert_int_eq(w.r, 0);
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	stop_cache();
}
END_TEST

START_TEST(a_failure_reaches_all_with_its_words_and_the_next_who_asks_starts_anew)
{
	struct waiting w[16] = { 0 };
	struct digest digest;

	start_cache();
	digest = store_text("bytes", BLOB_PLAIN);
	block(&digest, true);
	for (unsigned i = 0; i < 16; i++)
		join(&w[i], &digest, BLOB_EXEC, false);
	ck_assert_uint_eq(cache_count(&cache)->fetches_active, 1);
	run_until_idle();
	for (unsigned i = 0; i < 16; i++) {
		ck_assert(w[i].landed && w[i].r < 0);
		unit_ck_err(&w[i].err, w[0].err.code, DIGEST_TEXT(&digest));
	}
	ck_assert_uint_eq(cache_count(&cache)->fetches_active, 0);
	ck_assert(!catalog_has(cache.catalog, &digest, BLOB_EXEC));
	block(&digest, false);
	ck_assert_int_eq(fly(&digest, BLOB_EXEC, false), 0);
	ck_assert_uint_eq(cache.counters.blob_fetches, 1);
	stop_cache();
}
END_TEST

UNIT_MAIN("flight", sixteen_who_miss_one_kind_make_one_flight, the_kinds_of_a_blob_fly_apart,
	  who_asks_for_another_size_waits_for_another_blob,
	  a_blob_that_nobody_has_is_missing_and_the_next_who_asks_tries_anew,
	  a_blob_whose_file_is_gone_leaves_the_catalog_and_the_index,
	  a_lost_kind_is_healed_from_the_other_and_counted, a_changed_inode_is_taken_out_counted_and_missing,
	  an_inode_that_takes_more_links_after_all_stays, who_leaves_hears_nothing_and_the_others_all,
	  who_asks_again_when_a_flight_fails_starts_a_new_one,
	  what_is_stored_while_a_flight_looks_for_it_is_found,
	  what_is_only_used_while_a_flight_looks_for_it_is_missing,
	  what_is_stored_again_while_a_flight_looks_for_it_is_found,
	  a_failure_reaches_all_with_its_words_and_the_next_who_asks_starts_anew)
