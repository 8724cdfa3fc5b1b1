/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/cache.h"

#include "tests/unit/daemon.h"

START_TEST(an_opened_cache_has_made_its_folders)
{
	struct stat st;

	start_cache();
	ck_assert_int_eq(stat(store_path, &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0711);
	ck_assert_int_eq(fstatat(cache.store_fd, "blobs", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0711);
	ck_assert_int_eq(fstatat(cache.store_fd, "staging", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0700);
	ck_assert(cache.ready);
	stop_cache();
}
END_TEST

START_TEST(a_second_daemon_on_one_store_is_refused_and_told_who_has_it)
{
	struct cache_config config = { .n_workers = 1, .limits = tree_default_limits };
	static struct cache second;
	char words[64];

	start_cache();
	config.store = store_path;
	ck_assert_int_eq(cache_open(&second, base, &config, &err), -EWOULDBLOCK);
	(void)snprintf(words, sizeof(words), "in use by another dircached, process %d", (int)getpid());
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, words);
	cache_close(&second);
	stop_cache();
	start_cache();
	stop_cache();
}
END_TEST

START_TEST(a_store_that_cannot_be_made_is_refused_with_words)
{
	struct cache_config config = { .store = "/dev/null/store", .n_workers = 1 };
	static struct cache closed;

	base = event_base_new();
	ck_assert_int_lt(cache_open(&closed, base, &config, &err), 0);
	ck_assert_ptr_nonnull(strstr(err.text, "/dev/null"));
	cache_close(&closed);
	event_base_free(base);
}
END_TEST

START_TEST(a_cache_that_was_never_loaded_closes)
{
	open_cache();
	close_cache();
}
END_TEST

static void never_loaded(void *ctx, int r, const struct err *why)
{
	(void)ctx;
	(void)r;
	(void)why;
}

/* Whenever the stop comes: before the index is read, in between, after. */
START_TEST(a_stop_while_the_index_is_read_ends_cleanly)
{
	start_cache();
	for (unsigned i = 0; i < 50; i++) {
		char text[16];
		struct digest digest;
		static struct draft draft;

		(void)snprintf(text, sizeof(text), "%u", i);
		draft_init(&draft);
		draft_file(&draft, "f", store_text(text, BLOB_PLAIN), false);
		digest = draft_store(&draft);
		(void)use_tree(&digest);
	}
	stop_cache();
	for (unsigned turns = 0; turns < 30; turns++) {
		open_cache();
		cache_load(&cache, never_loaded, NULL);
		for (unsigned i = 0; i < turns; i++)
			(void)event_base_loop(base, EVLOOP_NONBLOCK);
		stop_cache();
	}
	start_cache();
	ck_assert_uint_eq(trees_n(cache.trees), 50);
	stop_cache();
}
END_TEST

START_TEST(counters_show_the_levels_of_now)
{
	const struct counters *counters;
	struct digest digest;
	struct asked asked;

	start_cache();
	digest = store_usual_tree();
	get_tree(&asked, &digest);
	counters = cache_count(&cache);
	ck_assert_uint_eq(counters->blobs, 5); /* three files and two Directories */
	ck_assert_uint_eq(counters->blob_bytes,
			  32 + digest.size + asked.request.node->directory->directories[0].digest.size);
	ck_assert_uint_gt(counters->allocated_bytes, 0);
	ck_assert_uint_eq(counters->trees, 1);
	ck_assert_uint_eq(counters->tags, 0);
	asked_fini(&asked);
	stop_cache();
}
END_TEST

START_TEST(an_index_of_a_newer_version_is_reported_and_left_alone)
{
	struct cache_config config = { .store = store_path, .n_workers = 1, .limits = tree_default_limits };
	char path[96];
	int fd;

	start_cache();
	stop_cache();
	(void)snprintf(path, sizeof(path), "%s/index.sqlite", store_path);
	fd = open(path, O_WRONLY);
	ck_assert_int_eq(pwrite(fd, "\0\0\0\143", 4, 60), 4); /* PRAGMA user_version = 99 */
	(void)close(fd);
	base = event_base_new();
	ck_assert_int_eq(cache_open(&cache, base, &config, &err), -EPROTO);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, "newer");
	cache_close(&cache);
	event_base_free(base);
}
END_TEST

UNIT_MAIN("cache", an_opened_cache_has_made_its_folders,
	  a_second_daemon_on_one_store_is_refused_and_told_who_has_it,
	  a_store_that_cannot_be_made_is_refused_with_words, a_cache_that_was_never_loaded_closes,
	  a_stop_while_the_index_is_read_ends_cleanly, counters_show_the_levels_of_now,
	  an_index_of_a_newer_version_is_reported_and_left_alone)
