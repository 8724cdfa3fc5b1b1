/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan.h"

#include "tests/unit/making.h"

static struct draft draft;

START_TEST(a_tree_appears_with_the_modes_times_and_inodes_it_should_have)
{
	struct digest digest, plain;
	struct stat st, blob;
	struct making m;
	char target[32];

	start_cache();
	digest = store_usual_tree();
	plain = store_text("plain bytes", BLOB_PLAIN);
	make_tree(&m, &digest, "t");
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(stat_out("t").st_mode, S_IFDIR | 0755);
	ck_assert_uint_eq(stat_out("t/below").st_mode, S_IFDIR | 0755);
	ck_assert_uint_eq(stat_out("t/run").st_mode, S_IFREG | 0555);
	st = stat_out("t/plain");
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0444);
	ck_assert_int_eq(stat(path_of_blob(&plain, BLOB_PLAIN), &blob), 0);
	ck_assert_uint_eq(st.st_ino, blob.st_ino);
	st = stat_out("t/empty");
	ck_assert_uint_eq(st.st_nlink, 1);
	ck_assert_int_eq(st.st_mtim.tv_nsec, blob_mtime(cache.store).tv_nsec);
	ck_assert_int_eq(readlinkat(out, "t/link", target, sizeof(target)), 10);
	ck_assert_int_eq(memcmp(target, "below/deep", 10), 0);
	ck_assert_uint_eq(m.plan.counts.linked, 3);
	ck_assert_uint_eq(m.plan.counts.created, 1);
	ck_assert_uint_eq(m.plan.counts.directories, 2);
	ck_assert_uint_eq(m.plan.counts.symlinks, 1);
	ck_assert_uint_eq(m.plan.counts.bytes, 32);
	ck_assert_uint_eq(m.plan.counts.fallback, 0);
	ck_nothing_left(1);
	stop_cache();
}
END_TEST

START_TEST(a_wide_and_deep_tree_is_made_whole_by_several_workers)
{
	enum { FILES = 200, DIRECTORIES = 100 };
	static char names[FILES][8];
	struct digest digest;
	struct making m;

	start_cache();
	draft_init(&draft);
	for (unsigned i = 0; i < FILES; i++) {
		(void)snprintf(names[i], sizeof(names[i]), "%u", i);
		draft_file(&draft, names[i], store_text(names[i], BLOB_PLAIN), false);
	}
	digest = draft_store(&draft);
	for (unsigned i = 0; i < DIRECTORIES; i++)
		draft_directory(&draft, names[i], digest);
	digest = draft_store(&draft);
	make_tree(&m, &digest, "t");
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(m.plan.counts.linked, FILES * DIRECTORIES);
	for (unsigned i = 0; i < DIRECTORIES; i++) {
		char path[32];

		(void)snprintf(path, sizeof(path), "t/%u/%u", i, FILES - 1 - i);
		ck_assert_uint_gt(stat_out(path).st_nlink, DIRECTORIES);
	}
	ck_nothing_left(1);
	stop_cache();
}
END_TEST

START_TEST(an_empty_directory_at_the_target_is_replaced_and_anything_else_refused)
{
	struct digest digest;
	struct making m;

	start_cache();
	digest = store_usual_tree();
	ck_assert_int_eq(mkdirat(out, "empty", 0700), 0);
	make_tree(&m, &digest, "empty");
	ck_assert_int_eq(m.plan.r, 0);
	ck_assert_uint_eq(stat_out("empty").st_mode, S_IFDIR | 0755);
	make_tree(&m, &digest, "empty"); /* now it is not */
	ck_assert_int_eq(m.plan.r, -EEXIST);
	unit_ck_err(&m.plan.err, ERR_FAILED_PRECONDITION, "'empty' exists and is not empty");
	ck_assert_int_eq(symlinkat("nowhere", out, "symlink"), 0);
	make_tree(&m, &digest, "symlink");
	ck_assert_int_eq(m.plan.r, -EEXIST);
	unit_ck_err(&m.plan.err, ERR_FAILED_PRECONDITION, "no directory");
	ck_nothing_left(2);
	stop_cache();
}
END_TEST

/* A cached tree, one file of which has vanished from the store since. */
static struct digest cache_robbed_tree(struct digest *vanished)
{
	struct digest digest = store_usual_tree();

	*vanished = store_text("plain bytes", BLOB_PLAIN);
	(void)use_tree(&digest);
	ck_assert_int_eq(unlink(path_of_blob(vanished, BLOB_PLAIN)), 0);
	return digest;
}

START_TEST(a_file_that_vanished_from_the_store_is_obtained_again_in_the_middle)
{
	struct digest digest, plain;
	struct making m;

	start_cache();
	digest = cache_robbed_tree(&plain);
	(void)store_text("plain bytes", BLOB_EXEC);
	make_tree(&m, &digest, "t");
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(stat_out("t/plain").st_mode, S_IFREG | 0444);
	ck_assert_uint_eq(m.plan.counts.linked, 3);
	ck_assert_uint_eq(cache.counters.healed_blobs, 1);
	ck_nothing_left(1);
	stop_cache();
}
END_TEST

START_TEST(a_file_that_nobody_has_any_more_is_named_and_nothing_is_left)
{
	struct digest digest, plain;
	struct making m;

	start_cache();
	digest = cache_robbed_tree(&plain);
	make_tree(&m, &digest, "t");
	ck_assert_int_eq(m.plan.r, -ENOENT);
	unit_ck_err(&m.plan.err, ERR_NOT_FOUND, DIGEST_TEXT(&plain));
	unit_ck_err(&m.plan.err, ERR_NOT_FOUND, "'plain' needs it");
	ck_assert_uint_eq(m.plan.n_missing, 1);
	ck_assert(digest_equal(&m.plan.missing[0], &plain));
	ck_nothing_left(0);
	stop_cache();
}
END_TEST

START_TEST(a_cancelled_plan_leaves_nothing)
{
	struct digest digest;
	struct making m;

	start_cache();
	digest = store_usual_tree();
	begin_tree(&m, &digest, out, "t");
	plan_cancel(&m.plan); /* before or while a worker makes it, or after: the answer says what is */
	end(&m);
	if (m.plan.r == 0) {
		ck_nothing_left(1);
	} else {
		ck_assert_int_eq(m.plan.r, -ECANCELED);
		unit_ck_err(&m.plan.err, ERR_CANCELLED, "'t' was cancelled");
		ck_nothing_left(0);
	}
	stop_cache();
}
END_TEST

static void wait_for(const char *name)
{
	struct stat st;

	while (fstatat(out, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		(void)usleep(1000);
}

START_TEST(a_cancel_of_what_is_already_at_its_target_is_too_late)
{
	struct digest digest;
	struct making m;

	start_cache();
	digest = store_usual_tree();
	begin_tree(&m, &digest, out, "t");
	wait_for("t"); /* workers do it all; the loop does not know yet */
	plan_cancel(&m.plan);
	end(&m);
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	begin_file(&m, store_text("file", BLOB_PLAIN), false, "f");
	wait_for("f");
	plan_cancel(&m.plan);
	end(&m);
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_nothing_left(2);
	stop_cache();
}
END_TEST

START_TEST(a_single_file_is_a_link_to_the_kind_asked_for)
{
	struct digest digest;
	struct stat blob;
	struct making m;

	start_cache();
	digest = store_text("file", BLOB_PLAIN);
	begin_file(&m, digest, true, "run"); /* the other kind is made on the way */
	end(&m);
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(m.plan.counts.linked, 1);
	ck_assert_uint_eq(stat_out("run").st_mode, S_IFREG | 0555);
	ck_assert_int_eq(stat(path_of_blob(&digest, BLOB_EXEC), &blob), 0);
	ck_assert_uint_eq(stat_out("run").st_ino, blob.st_ino);
	begin_file(&m, digest, false, "run");
	end(&m);
	ck_assert_int_eq(m.plan.r, -EEXIST);
	unit_ck_err(&m.plan.err, ERR_FAILED_PRECONDITION, "'run' exists");
	begin_file(&m, digest_empty, false, "empty");
	end(&m);
	ck_assert_int_eq(m.plan.r, 0);
	ck_assert_uint_eq(stat_out("empty").st_nlink, 1);
	begin_file(&m, absent_digest(1), false, "absent");
	end(&m);
	ck_assert_int_eq(m.plan.r, -ENOENT);
	ck_assert_uint_eq(m.plan.n_missing, 1);
	ck_nothing_left(2);
	stop_cache();
}
END_TEST

START_TEST(directories_are_0755_also_in_a_setgid_folder)
{
	struct digest digest;
	struct making m;

	start_cache();
	digest = store_usual_tree();
	ck_assert_int_eq(fchmod(out, 02775), 0);
	make_tree(&m, &digest, "t");
	ck_assert_int_eq(m.plan.r, 0);
	ck_assert_uint_eq(stat_out("t").st_mode, S_IFDIR | 0755);
	ck_assert_uint_eq(stat_out("t/below").st_mode, S_IFDIR | 0755);
	stop_cache();
}
END_TEST

UNIT_MAIN("plan", a_tree_appears_with_the_modes_times_and_inodes_it_should_have,
	  a_wide_and_deep_tree_is_made_whole_by_several_workers,
	  an_empty_directory_at_the_target_is_replaced_and_anything_else_refused,
	  a_file_that_vanished_from_the_store_is_obtained_again_in_the_middle,
	  a_file_that_nobody_has_any_more_is_named_and_nothing_is_left, a_cancelled_plan_leaves_nothing,
	  a_cancel_of_what_is_already_at_its_target_is_too_late,
	  a_single_file_is_a_link_to_the_kind_asked_for, directories_are_0755_also_in_a_setgid_folder)
