/* SPDX-License-Identifier: Apache-2.0 */
/* `put` as a client speaks it: begin, entries with descriptors, commit. */
#include "daemon/put.h"

#include "daemon/info.h"
#include "daemon/materialize.h"
#include "tests/unit/putting.h"

static const struct method methods[] = {
	{ "put", put_start, false, false },   { "materialize", materialize_start, false, false },
	{ "tags", tags_start, false, false }, { "cancel", cancel_start, true, false },
	{ NULL, NULL, false, false },
};

static void setup(void)
{
	start_cache();
	start_service(methods);
	peer_open(&peer);
	begin();
}

static void teardown(void)
{
	wire_out_fini(&message);
	peer_close(&peer);
	stop_service();
	stop_cache();
}

/* Two answers, in whichever order they come. */
static void ck_two_answers(void)
{
	for (unsigned i = 0; i < 2; i++) {
		struct wire_message *answer = peer_read(&peer);

		ck_assert_ptr_nonnull(answer);
		ck_assert(answer->type == WIRE_RESPONSE && !answer->error);
	}
}

/* The same tree as store_usual_tree(), by put. */
static struct digest put_usual_tree(void)
{
	int fds[4] = { open_file("", 0600), open_file("plain bytes", 0600), open_file("#!/bin/true", 0700),
		       open_file("deep bytes", 0600) };

	begin_entries(3, 4);
	add_file("empty", 0, 0);
	add_file("run", 0, 2);
	add_directory("below", 0);
	add_file("plain", 0, 1);
	send_closing(fds, 3);
	begin_entries(1, 2);
	add_file("deep", 1, 0);
	add_symlink("link", "below/deep", 10);
	send_closing(fds + 3, 1);
	ck_two_answers();
	return answer_digest(commit());
}

START_TEST(a_tree_has_the_digest_that_its_directories_have_and_is_cached_at_once)
{
	struct digest digest, same;
	struct asked asked;

	setup();
	digest = put_usual_tree();
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	ck_assert_uint_eq(cache.counters.put_files, 4);
	ck_assert_uint_eq(cache.counters.put_bytes, 32);
	get_tree(&asked, &digest);
	ck_assert_int_eq(asked.request.cache, TREE_HIT);
	ck_assert_uint_eq(asked.request.node->totals.n_files, 4);
	asked_fini(&asked);
	ck_assert_uint_eq(cache.counters.tree_constructions, 0);
	same = store_usual_tree();
	ck_assert(digest_equal(&digest, &same));
	teardown();
}
END_TEST

START_TEST(the_answer_says_what_was_new)
{
	const struct wire_value *answer;

	setup();
	put_file("f", open_file("bytes", 0600));
	answer = commit();
	ck_assert_uint_eq(answer_uint(answer, "files"), 1);
	ck_assert_uint_eq(answer_uint(answer, "directories"), 1);
	ck_assert_uint_eq(answer_uint(answer, "bytes"), 5);
	ck_assert_uint_eq(answer_uint(answer, "new_blobs"), 2);
	begin();
	put_file("f", open_file("bytes", 0600));
	answer = commit();
	ck_assert_uint_eq(answer_uint(answer, "new_blobs"), 0);
	ck_assert_uint_eq(answer_uint(answer, "new_bytes"), 0);
	teardown();
}
END_TEST

START_TEST(what_was_answered_is_there_after_a_kill)
{
	struct digest digest;

	setup();
	digest = put_usual_tree();
	cache.ready = false; /* no clean stop */
	wire_out_fini(&message);
	peer_close(&peer);
	conns_close(&conns);
	run_until_idle();
	close_cache();
	start_cache();
	ck_assert_int_eq(use_tree(&digest), TREE_HIT);
	stop_cache();
}
END_TEST

START_TEST(an_empty_put_is_the_empty_directory)
{
	struct digest digest;

	setup();
	digest = answer_digest(commit());
	ck_assert(digest_is_empty(&digest));
	ck_assert_uint_eq(trees_n(cache.trees), 1);
	teardown();
}
END_TEST

START_TEST(a_single_file_is_a_blob_and_no_tree)
{
	struct digest digest, same;

	setup();
	put_file(NULL, open_file("bytes", 0700));
	digest = answer_digest(commit());
	hash_bytes("bytes", 5, &same);
	ck_assert(digest_equal(&digest, &same));
	ck_assert(catalog_has(cache.catalog, &digest, BLOB_EXEC));
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	teardown();
}
END_TEST

/* One bad entry: the request fails with these words, and the put is over. */
static void ck_bad_entry(void (*add)(void), int fd, enum err_code code, const char *words)
{
	begin();
	begin_entries(fd >= 0, 1);
	add();
	if (fd >= 0)
		send_closing(&fd, 1);
	else
		peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, code, words);
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_FAILED_PRECONDITION, "it is over");
}

static void bad_name(void)
{
	add_file("a/b", 0, 0);
}

static void bad_dots(void)
{
	add_directory("..", 0);
}

static void bad_parent(void)
{
	add_file("f", 1, 0);
}

static void bad_fd(void)
{
	add_file("f", 0, 1);
}

static void bad_target(void)
{
	add_symlink("s", "a\0b", 3);
}

static void no_target(void)
{
	add_symlink("s", "", 0);
}

static void good_file(void)
{
	add_file("f", 0, 0);
}

static void nameless_with_parent(void)
{
	add_file(NULL, 5, 0);
}

START_TEST(bad_entries_are_refused_by_name_and_end_the_put)
{
	int pipe_fds[2];

	setup();
	ck_bad_entry(bad_name, open_file("x", 0600), ERR_INVALID_ARGUMENT, "entry 0: name: 'a/b'");
	ck_bad_entry(bad_dots, -1, ERR_INVALID_ARGUMENT, "name: '..'");
	ck_bad_entry(bad_parent, open_file("x", 0600), ERR_INVALID_ARGUMENT, "no directory 1 yet");
	ck_bad_entry(bad_fd, open_file("x", 0600), ERR_INVALID_ARGUMENT, "fd: one of");
	ck_bad_entry(bad_target, -1, ERR_INVALID_ARGUMENT, "target");
	ck_bad_entry(no_target, -1, ERR_INVALID_ARGUMENT, "target");
	ck_assert_int_eq(pipe(pipe_fds), 0);
	ck_bad_entry(good_file, pipe_fds[0], ERR_INVALID_ARGUMENT, "storing 'f': it is no regular file");
	(void)close(pipe_fds[1]);
	ck_bad_entry(good_file, openat(out, ".", O_TMPFILE | O_WRONLY, 0600), ERR_INVALID_ARGUMENT,
		     "not open for reading");
	ck_bad_entry(good_file, dup(out), ERR_INVALID_ARGUMENT, "no regular file");
	teardown();
}
END_TEST

static void add_chain(size_t from, size_t n)
{
	char name[16];

	begin_entries(0, n);
	for (size_t i = from; i < from + n; i++) {
		(void)snprintf(name, sizeof(name), "d%zu", i);
		add_directory(name, i / 2);
	}
	peer_request(&peer, &message, NULL, 0);
}

/* Each names a directory as parent that came before it, which the message before may have. */
START_TEST(very_many_entries_are_taken_in_the_order_sent)
{
	setup();
	begin();
	for (size_t i = 0; i < 5; i++)
		add_chain(i * 800, 800);
	for (uint32_t i = 4; i < 5; i--)
		(void)peer_answer(&peer, last_id - i);
	ck_assert_uint_eq(answer_uint(commit(), "directories"), 4001);
	teardown();
}
END_TEST

START_TEST(a_client_that_hangs_up_while_its_entries_are_read_leaves_nothing)
{
	setup();
	begin();
	add_chain(0, 20000);
	(void)event_base_loop(base, EVLOOP_ONCE);
	peer_hang_up(&peer);
	run_until_idle();
	ck_assert_uint_eq(cache.n_ending, 0);
	teardown();
}
END_TEST

/* A file without a name is all of its put: it has no parent that a message could name. */
START_TEST(a_single_file_with_a_parent_is_refused)
{
	setup();
	ck_bad_entry(nameless_with_parent, dup(out), ERR_INVALID_ARGUMENT, "");
	ck_bad_entry(nameless_with_parent, open_file("x", 0600), ERR_INVALID_ARGUMENT, "parent");
	teardown();
}
END_TEST

START_TEST(a_name_used_twice_fails_the_commit)
{
	setup();
	begin_entries(0, 2);
	add_directory("same", 0);
	add_symlink("same", "x", 1);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_INVALID_ARGUMENT, "'same'");
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	teardown();
}
END_TEST

START_TEST(a_directory_beyond_the_limit_is_refused_by_name_and_not_stored)
{
	static struct tree_limits few;
	AUTO_FREE uint8_t *bytes = NULL;
	static struct draft draft;
	struct digest digest;
	size_t len;

	few = tree_default_limits;
	few.entries = 1;
	limits = &few;
	draft_symlink(&draft, "a", "x");
	draft_symlink(&draft, "b", "x");
	draft.d.symlinks = draft.symlinks;
	ck_assert_int_eq(directory_encode(&draft.d, &bytes, &len, &err), 0);
	hash_bytes(bytes, len, &digest);
	setup();
	begin_entries(0, 2);
	add_symlink("a", "x", 1);
	add_symlink("b", "x", 1);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_RESOURCE_EXHAUSTED, "storing the uppermost directory");
	run_until_idle();
	ck_assert_int_eq(blob_stat(cache.store, &digest, BLOB_PLAIN, NULL, &err), BLOB_MISSING);
	teardown();
}
END_TEST

START_TEST(the_path_of_a_file_that_cannot_be_stored_is_named_whole)
{
	int fd;

	setup();
	begin_entries(0, 2);
	add_directory("a", 0);
	add_directory("b", 1);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	fd = dup(out);
	begin_entries(1, 1);
	add_file("f", 2, 0);
	send_closing(&fd, 1);
	peer_ck_error(&peer, last_id, ERR_INVALID_ARGUMENT, "storing 'a/b/f'");
	teardown();
}
END_TEST

START_TEST(a_bad_tag_refuses_the_commit_and_the_put_goes_on)
{
	setup();
	begin_step("commit", 1);
	wire_put_text(&message, "tag", "-x");
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_INVALID_ARGUMENT, "cannot be a tag");
	begin_step("commit", 1);
	wire_put_text(&message, "tag", "x");
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	ck_assert_ptr_nonnull(tags_find(cache.tags, "x", 1));
	teardown();
}
END_TEST

START_TEST(an_aborted_put_and_one_whose_client_hung_up_leave_no_tree)
{
	struct peer other;

	setup();
	begin_step("abort", 0);
	peer_request(&peer, &message, NULL, 0);
	(void)peer_answer(&peer, last_id);
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_FAILED_PRECONDITION, "no put");
	begin();
	send_file("f", open_file("bytes", 0600));
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_hang_up(&peer);
	peer_open(&other);
	peer_close(&other);
	run_for_ms(50);
	run_until_idle();
	ck_assert_uint_eq(trees_n(cache.trees), 0);
	teardown();
}
END_TEST

START_TEST(a_put_of_one_connection_is_not_found_on_another)
{
	setup();
	(void)put_usual_tree();
	begin();
	peer_close(&peer);
	peer_open(&peer);
	begin_step("commit", 0);
	peer_request(&peer, &message, NULL, 0);
	peer_ck_error(&peer, last_id, ERR_FAILED_PRECONDITION, "no put");
	teardown();
}
END_TEST

START_TEST(a_put_cancelled_in_the_middle_is_over)
{
	int fds[200];

	setup();
	begin_entries(200, 200);
	for (unsigned i = 0; i < 200; i++) {
		char name[8];

		(void)snprintf(name, sizeof(name), "%u", i);
		fds[i] = open_file(name, 0600);
		add_file(name, 0, i);
	}
	send_closing(fds, 200);
	peer_cancel(&peer, 10000, last_id);
	for (unsigned n = 0; n < 2; n++) /* the two answers, in whichever order */
		ck_assert_ptr_nonnull(peer_read(&peer));
	run_until_idle();
	teardown();
}
END_TEST

static void begin_materialize(const struct digest *digest, const char *name)
{
	wire_request(&message, ++last_id, "materialize");
	wire_map(&message, 3);
	wire_put_digest(&message, "digest", digest);
	wire_put_uint(&message, "fds", 1);
	wire_put_bytes(&message, "name", name, strlen(name));
	peer_request(&peer, &message, &out, 1);
}

START_TEST(sixteen_clients_that_materialize_an_unresolved_tree_make_one_construction)
{
	struct peer peers[16], first = { .fd = -1 };
	struct digest digest;
	char name[8];

	setup();
	digest = store_usual_tree();
	first = peer;
	for (unsigned i = 0; i < 16; i++) {
		peer_open(&peers[i]);
		peer = peers[i];
		(void)snprintf(name, sizeof(name), "%u", i);
		begin_materialize(&digest, name);
	}
	for (unsigned i = 0; i < 16; i++) {
		struct stat st;

		ck_assert_uint_eq(answer_uint(peer_answer(&peers[i], last_id - 15 + i), "files"), 4);
		(void)snprintf(name, sizeof(name), "%u/run", i);
		ck_assert_int_eq(fstatat(out, name, &st, 0), 0);
		peer_close(&peers[i]);
	}
	ck_assert_uint_eq(cache.counters.tree_constructions, 1);
	ck_assert_uint_eq(cache.counters.tree_misses, 1);
	ck_assert_uint_eq(cache.counters.tree_joins + cache.counters.tree_hits, 15);
	ck_assert_uint_eq(cache.counters.files_linked, 16 * 3);
	peer = first;
	teardown();
}
END_TEST

START_TEST(a_client_that_dies_while_its_tree_is_made_leaves_nothing_or_all)
{
	struct digest digest;
	struct stat st;

	setup();
	digest = store_usual_tree();
	for (unsigned i = 0; i < 50; i++) {
		char name[16];

		(void)snprintf(name, sizeof(name), "%u", i);
		begin_materialize(&digest, name);
		for (unsigned turn = 0; turn < i % 10; turn++)
			(void)event_base_loop(base, EVLOOP_NONBLOCK);
		peer_close(&peer);
		peer_open(&peer);
		run_for_ms(5);
		run_until_idle();
		if (fstatat(out, name, &st, 0) == 0) {
			(void)snprintf(name, sizeof(name), "%u/below/deep", i);
			ck_assert_int_eq(fstatat(out, name, &st, 0), 0);
			(void)snprintf(name, sizeof(name), "%u/link", i);
			ck_assert_int_eq(fstatat(out, name, &st, AT_SYMLINK_NOFOLLOW), 0);
		}
	}
	teardown();
}
END_TEST

UNIT_MAIN("put", a_tree_has_the_digest_that_its_directories_have_and_is_cached_at_once,
	  the_answer_says_what_was_new, what_was_answered_is_there_after_a_kill,
	  an_empty_put_is_the_empty_directory, a_single_file_is_a_blob_and_no_tree,
	  bad_entries_are_refused_by_name_and_end_the_put, very_many_entries_are_taken_in_the_order_sent,
	  a_client_that_hangs_up_while_its_entries_are_read_leaves_nothing,
	  a_single_file_with_a_parent_is_refused, a_name_used_twice_fails_the_commit,
	  a_directory_beyond_the_limit_is_refused_by_name_and_not_stored,
	  the_path_of_a_file_that_cannot_be_stored_is_named_whole,
	  a_bad_tag_refuses_the_commit_and_the_put_goes_on,
	  an_aborted_put_and_one_whose_client_hung_up_leave_no_tree,
	  a_put_of_one_connection_is_not_found_on_another, a_put_cancelled_in_the_middle_is_over,
	  sixteen_clients_that_materialize_an_unresolved_tree_make_one_construction,
	  a_client_that_dies_while_its_tree_is_made_leaves_nothing_or_all)
