/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tags.h"

#include "tests/unit/daemon.h"

static bool accepts(const char *name, size_t len)
{
	err_clear(&err);
	return tag_check_name(name, len, &err) == 0;
}

START_TEST(tag_names_are_1_to_255_of_the_allowed_bytes)
{
	static const char *const good[] = { "a",         "Z",    "0",  "toolchain", "gcc-12.2/x86_64",
					    "a.b_c-d/e", "a//b", "9/8" };
	static const char *const bad[] = { "",    "a b",  "a\n", "caf\303\251", "a:b",
					   "a@b", "a\\b", "a*",  "a\001" };
	char longest[256];

	for (size_t i = 0; i < N_ELEMENTS(good); i++)
		ck_assert_msg(accepts(good[i], strlen(good[i])), "%s: %s", good[i], err.text);
	for (size_t i = 0; i < N_ELEMENTS(bad); i++) {
		ck_assert_msg(!accepts(bad[i], strlen(bad[i])), "'%s'", bad[i]);
		unit_ck_err(&err, ERR_INVALID_ARGUMENT, "cannot be a tag");
	}
	ck_assert(!accepts("a\0b", 3));
	ck_assert(!accepts("\0", 1));
	memset(longest, 'n', sizeof(longest));
	ck_assert(accepts(longest, 255));
	ck_assert(!accepts(longest, 256));
}
END_TEST

START_TEST(tag_names_begin_with_a_letter_or_digit)
{
	ck_assert(!accepts(".hidden", 7));
	ck_assert(!accepts("-option", 7));
	ck_assert(!accepts("/absolute", 9));
	ck_assert(!accepts("_x", 2));
}
END_TEST

START_TEST(a_tag_name_is_no_digest)
{
	char text[DIGEST_TEXT_SIZE];

	(void)digest_print(&digest_empty, text);
	ck_assert(!accepts(text, strlen(text)));
	ck_assert(accepts(text, 64)); /* a hash alone is not one */
	text[0] = 'E';
	ck_assert(accepts(text, strlen(text)));
}
END_TEST

static unsigned n_done;
static int last_r;

static void on_done(void *ctx, int r, const struct err *why)
{
	(void)ctx;
	(void)why;
	n_done++;
	last_r = r;
}

static void set(const char *name, struct digest digest)
{
	tags_set(cache.tags, &(struct index_tag){ .name = name, .digest = digest, .uid = 7 }, on_done, NULL);
}

static const struct digest *find(const char *name)
{
	return tags_find(cache.tags, name, strlen(name));
}

START_TEST(tags_are_found_by_their_whole_name_and_listed_in_order)
{
	static const char *const names[] = { "b", "a/b", "a", "ab", "aa", "a.b" };
	static const char *const sorted[] = { "a", "a.b", "a/b", "aa", "ab", "b" };

	start_cache();
	for (unsigned i = 0; i < 6; i++)
		set(names[i], absent_digest(i));
	run_until_idle();
	ck_assert_uint_eq(n_done, 6);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_uint_eq(find(names[i])->size, 1000 + i);
	ck_assert_ptr_null(find("abc"));
	ck_assert_ptr_null(find("c"));
	ck_assert_ptr_null(find(""));
	ck_assert_ptr_nonnull(tags_find(cache.tags, "abc", 2));
	ck_assert_uint_eq(tags_n(cache.tags), 6);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_str_eq(tags_at(cache.tags, i).name, sorted[i]);
	for (unsigned i = 0; i < 6; i++)
		ck_assert_uint_eq(tags_after(cache.tags, sorted[i]), i + 1);
	ck_assert_uint_eq(tags_after(cache.tags, ""), 0);
	ck_assert_uint_eq(tags_after(cache.tags, "a/a"), 2); /* one that is gone meanwhile */
	stop_cache();
}
END_TEST

START_TEST(a_view_stays_as_it_was)
{
	AUTO(tags_view) view = NULL;

	start_cache();
	for (unsigned i = 0; i < 3; i++)
		set((const char *[]){ "moved", "gone", "stays" }[i], absent_digest(i));
	run_until_idle();
	view = tags_view(cache.tags, 0);
	set("moved", absent_digest(9));
	ck_assert_int_eq(tags_delete(cache.tags, "gone", 4, on_done, NULL), 0);
	set("new", absent_digest(8));
	run_until_idle();
	ck_assert_uint_eq(find("moved")->size, 1009);
	ck_assert_ptr_null(find("gone"));
	stop_cache();
	ck_assert_uint_eq(view->n, 3);
	ck_assert_str_eq(tags_view_at(view, 0).name, "gone");
	ck_assert_str_eq(tags_view_at(view, 1).name, "moved");
	ck_assert_uint_eq(tags_view_at(view, 1).digest.size, 1000);
	ck_assert_str_eq(tags_view_at(view, 2).name, "stays");
}
END_TEST

START_TEST(a_tag_can_be_moved_and_taken_away)
{
	start_cache();
	set("t", absent_digest(1));
	set("t", absent_digest(2));
	run_until_idle();
	ck_assert_uint_eq(tags_n(cache.tags), 1);
	ck_assert_uint_eq(find("t")->size, 1002);
	ck_assert_int_eq(tags_delete(cache.tags, "t", 1, on_done, NULL), 0);
	run_until_idle();
	ck_assert_ptr_null(find("t"));
	ck_assert_int_eq(tags_delete(cache.tags, "t", 1, on_done, NULL), -ENOENT);
	run_until_idle();
	ck_assert_uint_eq(n_done, 3);
	restart_cache();
	ck_assert_ptr_null(find("t"));
	stop_cache();
}
END_TEST

START_TEST(a_change_is_seen_once_it_is_in_the_index_and_not_before)
{
	start_cache();
	set("t", absent_digest(1));
	ck_assert_ptr_null(find("t"));
	run_until_idle();
	ck_assert_ptr_nonnull(find("t"));
	ck_assert_int_eq(tags_delete(cache.tags, "t", 1, on_done, NULL), 0);
	ck_assert_ptr_nonnull(find("t"));
	set("t", absent_digest(2)); /* they happen in the order asked for */
	run_until_idle();
	ck_assert_uint_eq(find("t")->size, 1002);
	restart_cache();
	ck_assert_uint_eq(find("t")->size, 1002);
	stop_cache();
}
END_TEST

START_TEST(when_there_are_as_many_as_may_be_a_new_name_is_refused_and_an_old_one_moves)
{
	char name[16];

	start_cache();
	for (unsigned i = 0; i < TAGS_MAX; i++) {
		(void)snprintf(name, sizeof(name), "t%u", i);
		ck_assert_int_eq(tags_check_set(cache.tags, name, strlen(name), 7, &err), 0);
		tags_load(cache.tags, &(struct index_tag){ .name = name, .uid = 7 });
	}
	ck_assert_int_lt(tags_check_set(cache.tags, "new", 3, 7, &err), 0);
	unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, "10000 tags");
	ck_assert_int_eq(tags_check_set(cache.tags, "t77", 3, 7, &err), 0);
	stop_cache();
}
END_TEST

START_TEST(one_user_may_have_so_many_and_leaves_room_for_others)
{
	user_limits.tags = 2;
	start_cache();
	set("a", absent_digest(1));
	set("b", absent_digest(2)); /* on their way to the index they count, too */
	ck_assert_int_lt(tags_check_set(cache.tags, "c", 1, 7, &err), 0);
	unit_ck_err(&err, ERR_RESOURCE_EXHAUSTED, "user 7 has 2 tags, and may have no more (max-user-tags)");
	ck_assert_int_eq(tags_check_set(cache.tags, "a", 1, 7, &err), 0);
	ck_assert_int_eq(tags_check_set(cache.tags, "c", 1, 8, &err), 0);
	run_until_idle();
	ck_assert_int_lt(tags_check_set(cache.tags, "c", 1, 7, NULL), 0);
	stop_cache();
}
END_TEST

static void set_as(uid_t uid, unsigned number)
{
	tags_set(cache.tags, &(struct index_tag){ .name = "t", .digest = absent_digest(number), .uid = uid },
		 on_done, NULL);
}

START_TEST(a_tag_is_changed_by_its_owner_and_administrators_alone)
{
	start_cache();
	set_as(1007, 1);
	set_as(1008, 2); /* comes second to the same name: it was free when it was looked at */
	run_until_idle();
	ck_assert_int_eq(last_r, 0);
	ck_assert_uint_eq(n_done, 2);
	ck_assert_uint_eq(find("t")->size, 1001);
	ck_assert_int_lt(tags_check_set(cache.tags, "t", 1, 1008, &err), 0);
	unit_ck_err(&err, ERR_PERMISSION_DENIED, "the tag 't' of user 1007");
	err_clear(&err);
	ck_assert_int_lt(tags_check_delete(cache.tags, "t", 1, 1008, &err), 0);
	unit_ck_err(&err, ERR_PERMISSION_DENIED, "and root");
	err_clear(&err);
	ck_assert_int_eq(tags_check_delete(cache.tags, "t", 1, 1007, NULL), 0);
	ck_assert_int_eq(tags_check_delete(cache.tags, "t", 1, geteuid(), NULL), 0);
	ck_assert_int_lt(tags_check_delete(cache.tags, "other", 5, 1007, &err), 0);
	unit_ck_err(&err, ERR_NOT_FOUND, "no tag 'other'");
	stop_cache();
}
END_TEST

static size_t n_seen_by(uid_t uid)
{
	AUTO(tags_view) view = tags_view(cache.tags, uid);

	return view->n;
}

START_TEST(a_tag_that_root_moves_is_still_its_owners)
{
	start_cache();
	set_as(1007, 1);
	set_as(0, 2);
	run_until_idle();
	ck_assert_uint_eq(find("t")->size, 1002);
	ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 1007);
	restart_cache();
	ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 1007);
	ck_assert_uint_eq(n_seen_by(1007), 1);
	ck_assert_uint_eq(n_seen_by(1008), 0);
	ck_assert_uint_eq(n_seen_by(0), 1);
	stop_cache();
}
END_TEST

static char *read_file(void)
{
	static char text[1 << 18];
	AUTO_CLOSE int fd = openat(cache.store_fd, "tags", O_RDONLY);
	ssize_t n = read(fd, text, sizeof(text) - 1);

	ck_assert_int_ge(n, 0);
	text[n] = '\0';
	return text;
}

START_TEST(what_was_answered_is_in_the_index_and_in_the_file)
{
	struct digest one = absent_digest(1), two = absent_digest(2);
	char text[1024];

	start_cache();
	set("t/2", two);
	set("t/1", one);
	while (n_done < 2)
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	ck_assert_int_eq(last_r, 0);
	(void)snprintf(text, sizeof(text), "%s 7 t/1\n%s 7 t/2\n", DIGEST_TEXT(&one), DIGEST_TEXT(&two));
	hash_bytes(text, strlen(text), &one);
	(void)snprintf(text + strlen(text), sizeof(text) - strlen(text), "sum %s\n", DIGEST_TEXT(&one));
	ck_assert_str_eq(read_file(), text);
	restart_cache();
	ck_assert_uint_eq(find("t/1")->size, 1001);
	ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 7);
	stop_cache();
}
END_TEST

START_TEST(a_thousand_changes_at_once_take_few_writes_and_are_all_answered)
{
	char name[16];

	start_cache();
	for (unsigned i = 0; i < 1000; i++) {
		(void)snprintf(name, sizeof(name), "t%u", i);
		set(name, absent_digest(i));
	}
	run_until_idle();
	ck_assert_uint_eq(n_done, 1000);
	ck_assert_uint_le(index_n_commits(cache.index), 20);
	ck_assert_ptr_nonnull(strstr(read_file(), " t999\n"));
	stop_cache();
}
END_TEST

START_TEST(a_file_that_cannot_be_written_is_reported)
{
	start_cache();
	ck_assert_int_eq(mkdirat(cache.store_fd, "tags.new", 0755), 0);
	set("t", absent_digest(1));
	run_until_idle();
	ck_assert_uint_eq(n_done, 1);
	ck_assert_int_eq(last_r, -EISDIR);
	stop_cache();
}
END_TEST

static void write_file(const char *text)
{
	int fd = openat(cache.store_fd, "tags", O_WRONLY | O_CREAT | O_TRUNC, 0600);

	ck_assert_int_eq(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	ck_assert_int_eq(close(fd), 0);
}

START_TEST(what_was_written_is_read_back_with_owners)
{
	struct digest second = absent_digest(2);

	start_cache();
	set("b/c", second);
	set("a", absent_digest(1));
	run_until_idle();
	tags_clear(cache.tags);
	ck_assert_uint_eq(tags_n(cache.tags), 0);
	ck_assert_int_eq(tags_read_back(cache.tags, &err), 0);
	ck_assert_uint_eq(tags_n(cache.tags), 2);
	ck_assert_str_eq(tags_at(cache.tags, 0).name, "a");
	ck_assert(digest_equal(tags_find(cache.tags, "b/c", 3), &second));
	stop_cache();
}
END_TEST

#define HASH "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

START_TEST(lines_that_make_no_sense_are_passed_over)
{
	start_cache();
	write_file(HASH "/0 7 good\n"
			"\n"
			"   \n"
			"word\n" HASH "/0\n" HASH "/0 7\n" HASH "/0 seven name\n" HASH "/0 -1 name\n" HASH
			"/0 4294967296 name\n" HASH "/x 7 name\n" HASH "/0 7 .name\n" HASH
			"/0 4294967294 last");
	ck_assert_int_eq(tags_read_back(cache.tags, &err), 0);
	ck_assert_uint_eq(tags_n(cache.tags), 2);
	ck_assert_str_eq(tags_at(cache.tags, 0).name, "good");
	ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 7);
	ck_assert_str_eq(tags_at(cache.tags, 1).name, "last");
	ck_assert_uint_eq(tags_at(cache.tags, 1).uid, 4294967294u);
	stop_cache();
}
END_TEST

START_TEST(a_file_that_is_none_is_an_error_and_no_file_is_none)
{
	start_cache();
	(void)unlinkat(cache.store_fd, "tags", 0);
	ck_assert_int_eq(tags_read_back(cache.tags, &err), 0);
	ck_assert_int_eq(mkfifoat(cache.store_fd, "tags", 0600), 0);
	ck_assert_int_lt(tags_read_back(cache.tags, &err), 0);
	ck_assert_uint_eq(tags_n(cache.tags), 0);
	stop_cache();
}
END_TEST

/* The outcome of a comparison with the file. */
struct compared {
	bool done;
	int r;
};

static void on_compared(void *ctx, int r, const struct err *why)
{
	struct compared *compared = ctx;

	(void)why;
	*compared = (struct compared){ true, r };
}

static int compare_file(bool mend)
{
	struct compared compared = { 0 };

	tags_compare_file(cache.tags, mend, on_compared, &compared);
	run_until_set(&compared.done);
	return compared.r;
}

START_TEST(a_file_that_is_another_is_noticed_and_mended_if_asked)
{
	start_cache();
	ck_assert_int_eq(compare_file(false), 0); /* no tags, no file */
	set("a", absent_digest(1));
	run_until_idle();
	ck_assert_int_eq(compare_file(false), 0);
	write_file("nonsense\n");
	ck_assert_int_eq(compare_file(false), TAGS_DIFFERED);
	ck_assert_int_eq(compare_file(true), TAGS_DIFFERED);
	ck_assert_int_eq(compare_file(true), 0);
	(void)unlinkat(cache.store_fd, "tags", 0);
	ck_assert_int_eq(mkfifoat(cache.store_fd, "tags", 0600), 0);
	ck_assert_int_lt(compare_file(false), 0);
	ck_assert_int_eq(compare_file(true), TAGS_DIFFERED);
	ck_assert_int_eq(compare_file(false), 0);
	stop_cache();
}
END_TEST

START_TEST(a_file_is_compared_when_all_changes_are_in_it)
{
	struct compared compared[100] = { 0 }, set_last;
	char name[16];

	start_cache();
	for (unsigned i = 0; i < N_ELEMENTS(compared); i++) {
		struct index_tag tag = { .name = name, .digest = absent_digest(i) };

		(void)snprintf(name, sizeof(name), "tag-%u", i);
		tags_set(cache.tags, &tag, on_compared, &set_last);
		tags_compare_file(cache.tags, false, on_compared, &compared[i]);
		(void)event_base_loop(base, EVLOOP_NONBLOCK);
	}
	for (unsigned i = 0; i < N_ELEMENTS(compared); i++) {
		run_until_set(&compared[i].done);
		ck_assert_int_eq(compared[i].r, 0);
	}
	run_until_idle();
	stop_cache();
}
END_TEST

/* What a flipped bit does to a tag's row, behind the daemon's back. */
static void damage_row(const char *name, struct digest digest)
{
	struct index_batch *batch = index_batch_new();
	struct index_tag tag = { .name = name, .digest = digest, .uid = 7 };

	digest.hash[0] ^= 1;
	tag.digest = digest;
	index_batch_put_tag(batch, &tag);
	index_submit(cache.index, batch, NULL, NULL);
}

START_TEST(a_tag_whose_row_was_damaged_names_again_what_the_file_has)
{
	struct index_batch *batch;
	struct index_blob row;
	struct digest here;

	start_cache();
	here = store_text("tagged", BLOB_PLAIN);
	row = catalog_row(catalog_find(cache.catalog, &here));
	batch = index_batch_new();
	index_batch_put_blob(batch, &row);
	index_submit(cache.index, batch, NULL, NULL);
	set("absent", absent_digest(1));
	set("damaged", here);
	set("other", here);
	run_until_idle();
	damage_row("absent", absent_digest(1));
	damage_row("damaged", here);
	for (unsigned i = 0; i < 2; i++) { /* once from the file, once from the index */
		restart_cache();
		ck_assert_uint_eq(tags_n(cache.tags), 3);
		ck_assert(digest_equal(tags_find(cache.tags, "damaged", 7), &here));
		ck_assert(digest_equal(tags_find(cache.tags, "other", 5), &here));
		ck_assert_uint_eq(tags_at(cache.tags, 1).uid, 7);
		ck_assert(!catalog_names(cache.catalog, tags_find(cache.tags, "absent", 6)));
		write_file("");
	}
	stop_cache();
}
END_TEST

static void put_behind(const char *name, struct digest digest, uid_t uid)
{
	struct index_batch *batch = index_batch_new();

	index_batch_drop_tag(batch, "b");
	index_batch_put_tag(batch, &(struct index_tag){ .name = name, .digest = digest, .uid = uid });
	index_submit(cache.index, batch, NULL, NULL);
}

/* As flipped bits leave them: other names, owners, digests. */
static void damage_rows(void)
{
	put_behind("c", absent_digest(2), 7);
	put_behind("a", absent_digest(1), 23);
	put_behind("d", absent_digest(4), 7);
}

START_TEST(a_tag_of_another_name_or_owner_is_again_what_the_file_has)
{
	start_cache();
	set("a", absent_digest(1));
	set("b", absent_digest(2));
	set("d", absent_digest(3));
	run_until_idle();
	damage_rows();
	for (unsigned i = 0; i < 2; i++) { /* once from the file, once from the index */
		restart_cache();
		ck_assert_uint_eq(tags_n(cache.tags), 3);
		ck_assert_str_eq(tags_at(cache.tags, 1).name, "b");
		ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 7);
		ck_assert_uint_eq(find("d")->size, absent_digest(3).size);
		ck_assert_int_eq(compare_file(true), i ? TAGS_DIFFERED : 0);
		write_file("");
	}
	stop_cache();
}
END_TEST

START_TEST(a_file_whose_sum_is_wrong_or_that_has_none_settles_nothing)
{
	char *text;

	start_cache();
	set("a", absent_digest(1));
	run_until_idle();
	damage_rows();
	text = read_file();
	text[3] ^= 1;
	write_file(text);
	restart_cache();
	ck_assert_str_eq(tags_at(cache.tags, 1).name, "c");
	ck_assert_int_eq(compare_file(true), TAGS_DIFFERED);
	text = read_file();
	*strstr(text, "sum ") = '\0';
	write_file(text);
	ck_assert_int_eq(compare_file(false), 0); /* as an earlier version wrote it */
	put_behind("a", absent_digest(1), 24);
	restart_cache();
	ck_assert_uint_eq(tags_at(cache.tags, 0).uid, 24);
	stop_cache();
}
END_TEST

START_TEST(a_file_that_is_behind_makes_no_clean_stop)
{
	start_cache();
	(void)store_text("else the store is empty, and clean", BLOB_PLAIN);
	set("a", absent_digest(1));
	run_until_idle();
	ck_assert_int_eq(mkdirat(cache.store_fd, "tags.new", 0755), 0);
	set("b", absent_digest(2));
	run_until_idle();
	ck_assert(tags_file_is_behind(cache.tags));
	cache_stop(&cache);
	run_until_idle();
	close_cache();
	open_cache(); /* which reads nothing yet */
	ck_assert_int_eq(unlinkat(cache.store_fd, "tags.new", AT_REMOVEDIR), 0);
	load_cache();
	run_until_idle();
	ck_assert(!cache.was_clean);
	ck_assert_uint_eq(tags_n(cache.tags), 2);
	ck_assert_int_eq(compare_file(false), 0);
	stop_cache();
}
END_TEST

START_TEST(a_kill_between_index_and_file_is_made_good_at_the_next_start)
{
	start_cache();
	set("a", absent_digest(1));
	run_until_idle();
	write_file("");
	cache.ready = false; /* as if killed */
	close_cache();
	start_cache();
	ck_assert_int_eq(compare_file(false), 0);
	ck_assert_uint_eq(tags_n(cache.tags), 1);
	stop_cache();
}
END_TEST

UNIT_MAIN("tags", tag_names_are_1_to_255_of_the_allowed_bytes, tag_names_begin_with_a_letter_or_digit,
	  a_tag_name_is_no_digest, tags_are_found_by_their_whole_name_and_listed_in_order,
	  a_view_stays_as_it_was, a_tag_can_be_moved_and_taken_away,
	  a_change_is_seen_once_it_is_in_the_index_and_not_before,
	  when_there_are_as_many_as_may_be_a_new_name_is_refused_and_an_old_one_moves,
	  one_user_may_have_so_many_and_leaves_room_for_others,
	  a_tag_is_changed_by_its_owner_and_administrators_alone, a_tag_that_root_moves_is_still_its_owners,
	  what_was_answered_is_in_the_index_and_in_the_file,
	  a_thousand_changes_at_once_take_few_writes_and_are_all_answered,
	  a_file_that_cannot_be_written_is_reported, what_was_written_is_read_back_with_owners,
	  lines_that_make_no_sense_are_passed_over, a_file_that_is_none_is_an_error_and_no_file_is_none,
	  a_file_that_is_another_is_noticed_and_mended_if_asked,
	  a_file_is_compared_when_all_changes_are_in_it,
	  a_tag_whose_row_was_damaged_names_again_what_the_file_has,
	  a_tag_of_another_name_or_owner_is_again_what_the_file_has,
	  a_file_whose_sum_is_wrong_or_that_has_none_settles_nothing,
	  a_file_that_is_behind_makes_no_clean_stop,
	  a_kill_between_index_and_file_is_made_good_at_the_next_start)
