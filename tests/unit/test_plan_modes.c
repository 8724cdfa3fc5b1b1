/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan.h"

#include "daemon/rmtree.h"
#include "tests/unit/making.h"

static struct draft draft;

START_TEST(files_with_properties_are_private_and_have_them)
{
	struct node_properties properties = { .has_mtime = true,
					      .mtime_sec = 1000000000,
					      .mtime_nsec = 5,
					      .has_unix_mode = true,
					      .unix_mode = 0104640 };
	struct digest digest, bytes;
	struct making m;
	struct stat st;

	start_cache();
	draft_init(&draft);
	bytes = store_text("bytes", BLOB_PLAIN);
	draft_file(&draft, "f", bytes, false);
	draft.files[0].properties = &properties;
	draft_file(&draft, "empty", digest_empty, false);
	draft.files[1].properties = &properties;
	digest = draft_store(&draft);
	make_tree(&m, &digest, "t");
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	for (unsigned i = 0; i < 2; i++) {
		st = stat_out(i ? "t/f" : "t/empty");
		ck_assert_uint_eq(st.st_mode, S_IFREG | 0640);
		ck_assert_int_eq(st.st_mtim.tv_sec, 1000000000);
		ck_assert_int_eq(st.st_mtim.tv_nsec, 5);
		ck_assert_uint_eq(st.st_nlink, 1);
	}
	ck_assert_uint_eq(m.plan.counts.copied + m.plan.counts.reflinked, 1);
	ck_assert_uint_eq(m.plan.counts.created, 1);
	ck_assert_uint_eq(m.plan.counts.fallback, 0);
	stop_cache();
}
END_TEST

/* Make the usual tree in a mode, beside the store. */
static void make_in_mode(struct making *m, enum plan_mode mode, bool writable)
{
	struct digest digest = store_usual_tree();

	*m = (struct making){ .plan = { .mode = mode, .writable = writable } };
	get_tree(&m->asked, &digest);
	m->plan.root = m->asked.request.node;
	begin(m, out, "t");
	end(m);
	ck_assert_msg(m->plan.r == 0, "%s", m->plan.err.text);
	ck_assert_uint_eq(m->plan.counts.linked, 0);
	ck_assert_uint_eq(m->plan.counts.created, 1);
	ck_assert_uint_eq(m->plan.counts.copied + m->plan.counts.reflinked, 3);
}

/* Names of the usual tree, and whether they are executable. */
static const struct {
	const char *name;
	bool executable;
} usual_files[] = {
	{ "t/plain", false }, { "t/run", true }, { "t/empty", false }, { "t/below/deep", false }
};

static void ck_private(mode_t plain, mode_t executable)
{
	for (unsigned i = 0; i < N_ELEMENTS(usual_files); i++) {
		struct stat st = stat_out(usual_files[i].name);

		ck_assert_uint_eq(st.st_mode, S_IFREG | (usual_files[i].executable ? executable : plain));
		ck_assert_uint_eq(st.st_nlink, 1);
		ck_assert_int_eq(st.st_mtim.tv_sec, blob_mtime(cache.store).tv_sec);
		ck_assert_int_eq(st.st_mtim.tv_nsec, blob_mtime(cache.store).tv_nsec);
	}
}

START_TEST(copies_on_request_are_private_and_no_fallback)
{
	struct making m;

	start_cache();
	make_in_mode(&m, PLAN_COPY, false);
	ck_private(0444, 0555);
	ck_assert_uint_eq(m.plan.counts.copied, 3);
	ck_assert_uint_eq(m.plan.counts.fallback, 0);
	ck_assert_int_eq(m.plan.fallback_errno, 0);
	ck_nothing_left(1);
	stop_cache();
}
END_TEST

START_TEST(reflinks_on_request_are_private_and_copies_in_their_place_counted)
{
	struct making m;

	start_cache();
	make_in_mode(&m, PLAN_REFLINK, false);
	ck_private(0444, 0555);
	ck_assert_uint_eq(m.plan.counts.fallback, m.plan.counts.copied);
	ck_assert_int_eq(m.plan.fallback_errno, m.plan.counts.copied ? EOPNOTSUPP : 0);
	ck_nothing_left(1);
	stop_cache();
}
END_TEST

START_TEST(writable_files_are_private_and_their_owner_may_write_them)
{
	static const enum plan_mode modes[] = { PLAN_LINK, PLAN_REFLINK, PLAN_COPY };

	start_cache();
	for (unsigned i = 0; i < N_ELEMENTS(modes); i++) {
		struct making m;

		make_in_mode(&m, modes[i], true);
		ck_private(0644, 0755);
		if (modes[i] != PLAN_REFLINK)
			ck_assert_uint_eq(m.plan.counts.fallback, 0);
		ck_nothing_left(1);
		ck_assert_int_eq(rmtree(out, "t", &err), 0);
	}
	stop_cache();
}
END_TEST

/* Make a tree whose only file is in no kind any more, in a mode. */
static void make_robbed(const struct digest *tree, const struct digest *file, enum plan_mode mode,
			bool writable)
{
	struct making m = { .plan = { .mode = mode, .writable = writable } };

	get_tree(&m.asked, tree);
	m.plan.root = m.asked.request.node;
	begin(&m, out, "t");
	end(&m);
	ck_assert_int_eq(m.plan.r, -ENOENT);
	unit_ck_err(&m.plan.err, ERR_NOT_FOUND, "'f' needs it");
	ck_assert_uint_eq(m.plan.n_missing, 1);
	ck_assert(digest_equal(&m.plan.missing[0], file));
	ck_nothing_left(0);
}

START_TEST(a_file_that_nobody_has_any_more_is_named_whatever_the_mode)
{
	static const enum plan_mode modes[] = { PLAN_LINK, PLAN_REFLINK, PLAN_COPY };
	struct digest tree, file;

	start_cache();
	file = store_text("robbed", BLOB_PLAIN);
	draft_init(&draft);
	draft_file(&draft, "f", file, false);
	tree = draft_store(&draft);
	(void)use_tree(&tree);
	ck_assert_int_eq(unlink(path_of_blob(&file, BLOB_PLAIN)), 0);
	for (unsigned i = 0; i < 2 * N_ELEMENTS(modes); i++)
		make_robbed(&tree, &file, modes[i / 2], i % 2);
	stop_cache();
}
END_TEST

START_TEST(a_writable_file_with_a_mode_of_its_own_keeps_it_but_for_that)
{
	struct node_properties properties = { .has_unix_mode = true, .unix_mode = 0440 };
	struct digest digest;
	struct making m;

	start_cache();
	draft_init(&draft);
	draft_file(&draft, "f", store_text("bytes", BLOB_PLAIN), false);
	draft.files[0].properties = &properties;
	digest = draft_store(&draft);
	m = (struct making){ .plan = { .writable = true } };
	get_tree(&m.asked, &digest);
	m.plan.root = m.asked.request.node;
	begin(&m, out, "t");
	end(&m);
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(stat_out("t/f").st_mode, S_IFREG | 0640);
	stop_cache();
}
END_TEST

START_TEST(one_digest_has_one_inode_for_each_kind_at_all_its_places)
{
	struct digest digest, bytes;
	struct making m;

	start_cache();
	draft_init(&draft);
	bytes = store_text("bytes", BLOB_PLAIN);
	draft_file(&draft, "a", bytes, false);
	draft_file(&draft, "b", bytes, false);
	draft_file(&draft, "x", bytes, true);
	draft_file(&draft, "y", bytes, true);
	digest = draft_store(&draft);
	make_tree(&m, &digest, "t");
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(stat_out("t/a").st_ino, stat_out("t/b").st_ino);
	ck_assert_uint_eq(stat_out("t/x").st_ino, stat_out("t/y").st_ino);
	ck_assert_uint_ne(stat_out("t/a").st_ino, stat_out("t/x").st_ino);
	ck_assert_uint_eq(stat_out("t/a").st_mode, S_IFREG | 0444);
	ck_assert_uint_eq(stat_out("t/x").st_mode, S_IFREG | 0555);
	ck_assert_uint_eq(m.plan.counts.linked, 4);
	stop_cache();
}
END_TEST

START_TEST(a_single_file_can_be_private_and_writable)
{
	struct digest digest;
	struct making m;

	start_cache();
	digest = store_text("file", BLOB_PLAIN);
	m = (struct making){ .file = { .name = "file", .digest = digest, .executable = true },
			     .plan = { .mode = PLAN_COPY, .writable = true } };
	m.plan.file = &m.file;
	begin(&m, out, "run");
	end(&m);
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(m.plan.counts.copied, 1);
	ck_assert_uint_eq(m.plan.counts.fallback, 0);
	ck_assert_uint_eq(stat_out("run").st_mode, S_IFREG | 0755);
	ck_assert_uint_eq(stat_out("run").st_nlink, 1);
	ck_nothing_left(1);
	stop_cache();
}
END_TEST

/* Make a folder of another file system than the store's, if this machine has one that we may write to. */
static int other_file_system(char *path)
{
	struct stat here, there;

	if (!mkdtemp(path))
		return -1;
	if (fstat(out, &here) == 0 && stat(path, &there) == 0 && here.st_dev != there.st_dev)
		return open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)rmdir(path);
	return -1;
}

START_TEST(where_links_cannot_work_files_are_copied_and_the_result_says_why)
{
	struct digest digest;
	struct making m;
	char path[] = "/dev/shm/unit-XXXXXX";
	int folder, r;

	start_cache();
	folder = other_file_system(path);
	if (folder >= 0) {
		digest = store_usual_tree();
		begin_tree(&m, &digest, folder, "t");
		end(&m);
		r = m.plan.r;
		(void)nftw(path, unit_remove, 16, FTW_DEPTH | FTW_PHYS);
		(void)close(folder);
		ck_assert_msg(r == 0, "%s", m.plan.err.text);
		ck_assert_int_eq(m.plan.fallback_errno, EXDEV);
		ck_assert_uint_eq(m.plan.counts.fallback, 3);
		ck_assert_uint_eq(m.plan.counts.copied, 3);
		ck_assert_uint_eq(m.plan.counts.linked, 0);
		ck_assert_uint_eq(m.plan.counts.created, 1);
	}
	stop_cache();
}
END_TEST

START_TEST(require_link_fails_rather_than_copy_and_leaves_nothing)
{
	struct digest digest;
	struct making m;
	char path[] = "/dev/shm/unit-XXXXXX";
	int folder;

	start_cache();
	folder = other_file_system(path);
	if (folder >= 0) {
		size_t n_left;

		digest = store_usual_tree();
		m = (struct making){ .plan.require_link = true };
		get_tree(&m.asked, &digest);
		m.plan.root = m.asked.request.node;
		begin(&m, folder, "t");
		end(&m);
		n_left = count_names(folder);
		(void)nftw(path, unit_remove, 16, FTW_DEPTH | FTW_PHYS);
		(void)close(folder);
		ck_assert_int_eq(m.plan.r, -EXDEV);
		unit_ck_err(&m.plan.err, ERR_FAILED_PRECONDITION, "copies were not wanted");
		ck_assert_uint_eq(n_left, 0);
	}
	stop_cache();
}
END_TEST

UNIT_MAIN("plan_modes", files_with_properties_are_private_and_have_them,
	  copies_on_request_are_private_and_no_fallback,
	  reflinks_on_request_are_private_and_copies_in_their_place_counted,
	  writable_files_are_private_and_their_owner_may_write_them,
	  a_file_that_nobody_has_any_more_is_named_whatever_the_mode,
	  a_writable_file_with_a_mode_of_its_own_keeps_it_but_for_that,
	  one_digest_has_one_inode_for_each_kind_at_all_its_places, a_single_file_can_be_private_and_writable,
	  where_links_cannot_work_files_are_copied_and_the_result_says_why,
	  require_link_fails_rather_than_copy_and_leaves_nothing)
