/* SPDX-License-Identifier: Apache-2.0 */
/* Puts and the room that there is for them: what they hold, what they wait for, what becomes of them. */
#include "daemon/put.h"

#include "daemon/info.h"
#include "tests/unit/putting.h"

enum { M = 1 << 20, CAP = 24 * M };

static const struct method methods[] = {
	{ "put", put_start, false, false },
	{ "cancel", cancel_start, true, false },
	{ NULL, NULL, false, false },
};

static size_t n_fds_before;

static void setup(uint64_t max_size)
{
	space_limits.max_size = max_size;
	start_cache();
	start_service(methods);
	peer_open(&peer);
	begin();
	n_fds_before = unit_count_fds();
}

/* Nothing is promised, claimed or open any more. */
static bool all_is_given_back(void *ctx)
{
	(void)ctx;
	return !cache_busy(&cache) && space_levels(cache.space).reserved == 0 &&
	       claims_n(cache.claims) == 0 && unit_count_fds() == n_fds_before;
}

static void teardown(void)
{
	run_until(all_is_given_back, NULL);
	wire_out_fini(&message);
	peer_close(&peer);
	stop_service();
	stop_cache();
}

/* A file of so many bytes, the same in each; different ones have different bytes. */
static int open_large(size_t size, char byte)
{
	int fd = open_file("", 0600);

	ck_assert_int_eq(ftruncate(fd, (off_t)size), 0);
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)size - 1), 1);
	return fd;
}

/* The digest of such a file. */
static struct digest digest_of_large(size_t size, char byte)
{
	AUTO_FREE char *bytes = xcalloc(size, 1);
	struct digest digest;

	bytes[size - 1] = byte;
	hash_bytes(bytes, size, &digest);
	return digest;
}

/* A blob that nobody holds. */
static struct digest put_blob(size_t size, char byte)
{
	struct digest digest;

	begin();
	put_file(NULL, open_large(size, byte));
	digest = answer_digest(commit());
	run_until_idle();
	return digest;
}

static void abort_put(void)
{
	begin_step("abort", 0);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
}

static void ck_put_is_over(void)
{
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_FAILED_PRECONDITION, "it is over");
}

static uint32_t holds_of(const struct digest *digest)
{
	const struct catalog_entry *entry = catalog_find(cache.catalog, digest);

	ck_assert_ptr_nonnull(entry);
	return entry->holds;
}

static bool is_not_held(void *digest)
{
	return holds_of(digest) == 0;
}

/* ---- holds ---- */

START_TEST(what_a_put_stored_is_held_until_it_is_aborted_or_its_client_hangs_up)
{
	struct digest digest = digest_of_large(5000, 'a');

	setup(0);
	put_file("a", open_large(5000, 'a'));
	put_file("the same", open_large(5000, 'a'));
	ck_assert_uint_eq(holds_of(&digest), 2);
	abort_put();
	run_until(is_not_held, &digest);

	begin();
	put_file("a", open_large(5000, 'a'));
	ck_assert_uint_eq(holds_of(&digest), 1);
	peer_hang_up(&peer);
	run_until(is_not_held, &digest);
	peer_close(&peer);
	peer_open(&peer);
	teardown();
}
END_TEST

START_TEST(what_is_put_is_held_by_its_tree_in_the_end_and_a_blob_by_nobody)
{
	struct digest digest = digest_of_large(5000, 'a'), root;

	setup(0);
	put_file("a", open_large(5000, 'a'));
	root = answer_digest(commit());
	run_until_idle();
	ck_assert_uint_eq(holds_of(&digest), 1);
	ck_assert_uint_eq(holds_of(&root), 1);
	digest = put_blob(6000, 'b');
	ck_assert_uint_eq(holds_of(&digest), 0);
	teardown();
}
END_TEST

START_TEST(what_an_ended_put_had_stored_is_known_after_a_restart)
{
	struct digest digest = digest_of_large(5000, 'a');

	setup(0);
	put_file("a", open_large(5000, 'a'));
	abort_put();
	run_until_idle();
	peer_close(&peer);
	stop_service();
	restart_cache();
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_PLAIN));
	stop_cache();
}
END_TEST

/* ---- refused ---- */

START_TEST(a_file_larger_than_the_cap_is_refused_by_name_and_harms_nothing)
{
	struct digest kept;

	setup(CAP);
	kept = put_blob(M, 'k');
	begin();
	put_file("small", open_large(5000, 's'));
	(void)commit();
	begin();
	begin_entries(0, 1);
	add_directory("below", 0);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	begin_entries(1, 1);
	add_file("large", 1, 0);
	send_closing((int[]){ open_large(CAP + M, 'x') }, 1);
	peer_ck_error(&peer, last_id, ERR_NO_SPACE,
		      "storing 'below/large': 25.1M more do not fit: of the 24.0M that the cache may have "
		      "(--max-size)");
	ck_put_is_over();
	ck_assert(catalog_has(cache.catalog, &kept, BLOB_PLAIN));
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	ck_assert_uint_eq(cache.counters.evicted_trees + cache.counters.evicted_blobs, 0);
	teardown();
}
END_TEST

START_TEST(a_put_that_says_it_is_larger_than_the_cap_evicts_nothing)
{
	struct digest kept;

	setup(CAP);
	kept = put_blob(8 * M, 'k');
	put = 0;
	begin_step("begin", 1);
	wire_put_uint(&message, "bytes", CAP + M);
	peer_request(&peer, &message, NULL, 0);
	put = answer_uint(peer_answer(&peer, last_id), "put");
	put_file("fits", open_large(4 * M, 'a'));
	send_file("does not", open_large(8 * M, 'b'));
	peer_ck_error(&peer, last_id, ERR_NO_SPACE, "storing 'does not'");
	ck_assert(catalog_has(cache.catalog, &kept, BLOB_PLAIN));
	ck_assert_uint_eq(cache.counters.evicted_blobs, 0);
	teardown();
}
END_TEST

START_TEST(what_is_known_is_put_however_full_the_cache_is)
{
	setup(CAP);
	(void)put_blob(17 * M, 'k');
	ck_assert_uint_lt(space_room(cache.space), 4 * M);
	begin();
	put_file("known", open_large(17 * M, 'k'));
	(void)answer_digest(commit());
	ck_assert_uint_eq(cache.counters.evicted_blobs, 0);
	teardown();
}
END_TEST

/* ---- made ---- */

START_TEST(a_put_that_fits_once_others_are_gone_has_them_evicted)
{
	struct digest first, second;

	setup(CAP);
	first = put_blob(11 * M, 'a');
	second = put_blob(11 * M, 'b');
	ck_assert(!catalog_has(cache.catalog, &first, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &second, BLOB_PLAIN));
	ck_assert_uint_eq(cache.counters.evicted_blobs, 1);
	teardown();
}
END_TEST

START_TEST(what_a_failed_put_left_behind_goes_first)
{
	struct digest old, left = digest_of_large(10 * M, 'l'), again = digest_of_large(M, 'g');

	setup(CAP);
	old = put_blob(2 * M, 'o');
	begin();
	put_file("again", open_large(M, 'g'));
	(void)commit();
	begin();
	put_file("left", open_large(10 * M, 'l'));
	put_file("known before", open_large(M, 'g'));
	send_file("too large", open_large(CAP + M, 'x'));
	peer_ck_error(&peer, last_id, ERR_NO_SPACE, "too large");
	run_until(is_not_held, &left);
	(void)put_blob(9 * M, 'n');
	ck_assert(!catalog_has(cache.catalog, &left, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &old, BLOB_PLAIN));
	ck_assert(catalog_has(cache.catalog, &again, BLOB_PLAIN));
	teardown();
}
END_TEST

static uint64_t used_of(const struct digest *digest)
{
	const struct catalog_entry *entry = catalog_find(cache.catalog, digest);

	ck_assert_ptr_nonnull(entry);
	return entry->used;
}

START_TEST(what_an_aborted_put_brought_in_keeps_its_place_when_others_use_it)
{
	struct digest alone = digest_of_large(5000, 'a'), shared = digest_of_large(5000, 's');
	struct digest asked_for = digest_of_large(5000, 'f'), twin = digest_of_large(5000, 't');
	uint64_t used, first;

	setup(0);
	put_file("alone", open_large(5000, 'a'));
	put_file("shared", open_large(5000, 's'));
	put_file("asked for", open_large(5000, 'f'));
	uses_note(cache.uses, &asked_for);
	ck_assert(catalog_has(cache.catalog, &shared, BLOB_PLAIN));
	first = put;
	begin(); /* another put, which comes to something */
	put_file("shared", open_large(5000, 's'));
	put_file("twin", open_large(5000, 't'));
	(void)commit();
	put = first;
	used = used_of(&twin);
	put_file("twin", open_large(5000, 't')); /* it was there */
	abort_put();
	run_until(is_not_held, &alone);
	run_until_idle();
	ck_assert_uint_eq(used_of(&alone), 0);
	ck_assert_uint_gt(used_of(&shared), 0);
	ck_assert_uint_gt(used_of(&asked_for), 0);
	ck_assert_uint_gt(used_of(&twin), used);
	teardown();
}
END_TEST

START_TEST(begin_says_how_much_room_there_is_where_there_is_a_limit)
{
	uint64_t room;

	setup(CAP);
	(void)put_blob(8 * M, 'k');
	put = 0;
	begin_step("begin", 0);
	peer_request(&peer, &message, NULL, 0);
	room = answer_uint(peer_answer(&peer, last_id), "room");
	ck_assert_uint_le(room, 16 * M);
	ck_assert_uint_gt(room, 8 * M);
	teardown();
}
END_TEST

/* ---- somebody who makes room when the test says so ---- */

static struct room_waiter *asked[64];
static size_t n_asked;
static uint64_t hogged; /* all the room that there was */

static void keep_asking(void *ctx, uint64_t need, struct room_waiter *waiter)
{
	(void)ctx;
	(void)need;
	ck_assert_uint_lt(n_asked, N_ELEMENTS(asked));
	asked[n_asked++] = waiter;
}

static bool somebody_asked(void *ctx)
{
	(void)ctx;
	return n_asked > 0;
}

/* No room from now on but what the test gives. */
static void hog_room(void)
{
	cache.room.make = keep_asking;
	hogged = space_room(cache.space);
	while (space_reserve(cache.space, hogged) != 0)
		hogged -= 4096;
	while (space_reserve(cache.space, 0) == 0)
		;
}

static void let_go_of_room(void)
{
	space_release(cache.space, hogged);
	hogged = 0;
}

static void tell_asked(int r, const struct err *why)
{
	while (n_asked) {
		struct room_waiter *waiter = asked[--n_asked];

		waiter->made(waiter, r, why);
	}
}

START_TEST(a_put_that_waited_for_room_goes_on_where_it_was)
{
	int fds[40];
	const struct wire_value *answer;

	setup(CAP);
	begin_entries(40, 40);
	for (unsigned i = 0; i < 40; i++) {
		char name[8];

		(void)snprintf(name, sizeof(name), "%u", i);
		fds[i] = open_large(20000, (char)(i + 1));
		add_file(name, 0, i);
	}
	hog_room();
	send_closing(fds, 40);
	run_until(somebody_asked, NULL);
	let_go_of_room();
	while (cache.counters.put_files < 40) {
		tell_asked(0, NULL);
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	}
	(void)peer_answer(&peer, last_id);
	answer = commit();
	ck_assert_uint_eq(answer_uint(answer, "files"), 40);
	ck_assert_uint_eq(answer_uint(answer, "new_blobs"), 41);
	teardown();
}
END_TEST

START_TEST(a_put_is_cancelled_while_it_waits_for_room)
{
	uint32_t entries;
	bool is_cancelled = false;

	setup(CAP);
	hog_room();
	send_file("f", open_large(M, 'f'));
	entries = last_id;
	run_until(somebody_asked, NULL);
	peer_cancel(&peer, 10000, entries);
	for (unsigned n = 0; n < 2; n++) { /* the two answers, in whichever order */
		const struct wire_message *answer = peer_read(&peer);

		ck_assert_ptr_nonnull(answer);
		is_cancelled |= answer->id == entries && answer->error;
	}
	ck_assert(is_cancelled);
	ck_put_is_over();
	let_go_of_room();
	teardown();
}
END_TEST

START_TEST(a_client_that_hangs_up_while_its_put_waits_leaves_nothing_behind)
{
	setup(CAP);
	hog_room();
	send_file("f", open_large(M, 'f'));
	run_until(somebody_asked, NULL);
	n_fds_before--; /* the daemon's end of the connection */
	peer_hang_up(&peer);
	n_fds_before--; /* and the client's */
	let_go_of_room();
	run_until(all_is_given_back, NULL);
	peer_close(&peer);
	n_fds_before += 2;
	peer_open(&peer);
	teardown();
}
END_TEST

/* Two levels, so that there is a Directory with a path. */
static void begin_commit_without_room(void)
{
	begin_entries(0, 2);
	add_directory("upper", 0);
	add_directory("lower", 1);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	hog_room();
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	run_until(somebody_asked, NULL);
}

START_TEST(a_directory_that_finds_no_room_fails_the_commit_by_name)
{
	struct err why = { 0 };

	setup(CAP);
	begin_commit_without_room();
	(void)err_set(&why, ERR_NO_SPACE, "no more");
	tell_asked(-ENOSPC, &why);
	peer_ck_error(&peer, last_id, ERR_NO_SPACE, "directory: no more");
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	let_go_of_room();
	teardown();
}
END_TEST

START_TEST(a_commit_that_waited_for_room_goes_on)
{
	setup(CAP);
	begin_commit_without_room();
	let_go_of_room();
	space_set_overhead(cache.space, 0);
	tell_asked(0, NULL);
	ck_assert_uint_eq(answer_uint(peer_answer(&peer, last_id), "directories"), 3);
	teardown();
}
END_TEST

UNIT_MAIN("put_room", what_a_put_stored_is_held_until_it_is_aborted_or_its_client_hangs_up,
	  what_is_put_is_held_by_its_tree_in_the_end_and_a_blob_by_nobody,
	  what_an_ended_put_had_stored_is_known_after_a_restart,
	  a_file_larger_than_the_cap_is_refused_by_name_and_harms_nothing,
	  a_put_that_says_it_is_larger_than_the_cap_evicts_nothing,
	  what_is_known_is_put_however_full_the_cache_is,
	  a_put_that_fits_once_others_are_gone_has_them_evicted, what_a_failed_put_left_behind_goes_first,
	  what_an_aborted_put_brought_in_keeps_its_place_when_others_use_it,
	  begin_says_how_much_room_there_is_where_there_is_a_limit,
	  a_put_that_waited_for_room_goes_on_where_it_was, a_put_is_cancelled_while_it_waits_for_room,
	  a_client_that_hangs_up_while_its_put_waits_leaves_nothing_behind,
	  a_directory_that_finds_no_room_fails_the_commit_by_name, a_commit_that_waited_for_room_goes_on)
