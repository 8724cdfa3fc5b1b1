/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/store.h"
#include "tests/unit/unit.h"

/* Link a blob until the file system takes no more. Return: links made; limit when it has not said no. */
static unsigned use_up_links(const struct digest *digest, unsigned from, unsigned limit)
{
	int why, r = 0;
	char name[16];

	for (unsigned i = from; i < limit; i++) {
		(void)snprintf(name, sizeof(name), "%u", i);
		r = blob_link(store, digest, BLOB_PLAIN, out, name, &why, &err);
		if (r == BLOB_LINKS_USED_UP)
			return i - from;
		ck_assert_int_eq(r, 0);
	}
	return limit - from;
}

START_TEST(when_links_are_used_up_a_fresh_inode_takes_the_name)
{
	enum { LIMIT = 70000 };
	struct digest digest;
	struct blob_info info;
	struct stat before, st;
	unsigned n, n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	n = use_up_links(&digest, 0, LIMIT);
	if (n == LIMIT) {
		(void)fprintf(stderr, "# skipped: the file system of %s sets no limit of links below %d\n",
			      unit_folder, LIMIT);
		return;
	}
	before = stat_of(&digest, BLOB_PLAIN);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err),
			 BLOB_EXISTS);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, true, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert_uint_ne(stat_of(&digest, BLOB_PLAIN).st_ino, before.st_ino);
	ck_assert_int_eq(fstatat(out, "0", &st, 0), 0);
	ck_assert_uint_eq(st.st_nlink, n);
	ck_assert_uint_eq(use_up_links(&digest, LIMIT, LIMIT + 10), 10);
	/* Who comes second with the same complaint finds links left. */
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, true, &info, &n_changed, &err), BLOB_EXISTS);
	ck_holds(&digest, "hello");
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

/* ---- renewing ---- */

START_TEST(an_executable_twin_leaves_the_plain_inode_alone)
{
	struct digest digest;
	struct stat before, after;
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	before = stat_of(&digest, BLOB_PLAIN);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert(digest_equal(&info.digest, &digest));
	after = stat_of(&digest, BLOB_PLAIN);
	ck_assert_mem_eq(&after.st_ctim, &before.st_ctim, sizeof(before.st_ctim));
	ck_assert_uint_eq(after.st_mode, before.st_mode);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), 0);
	ck_assert_uint_ne(stat_of(&digest, BLOB_EXEC).st_ino, before.st_ino);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err), BLOB_EXISTS);
	close_store();
}
END_TEST

START_TEST(a_changed_inode_is_renewed_from_the_other_kind)
{
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	(void)put("hello", BLOB_EXEC);
	change_size(path_of(&digest, BLOB_PLAIN));
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 1);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_holds(&digest, "hello");
	close_store();
}
END_TEST

START_TEST(an_inode_with_the_right_bytes_is_renewed_from_itself)
{
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;
	ino_t before;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	before = stat_of(&digest, BLOB_PLAIN).st_ino;
	change_mode(path_of(&digest, BLOB_PLAIN));
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 1);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_assert_uint_ne(stat_of(&digest, BLOB_PLAIN).st_ino, before);
	close_store();
}
END_TEST

START_TEST(what_has_wrong_bytes_leaves_the_store)
{
	struct digest digest, absent = { .size = 3 };
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = put("hello", BLOB_PLAIN);
	(void)put("hello", BLOB_EXEC);
	forge(&digest, BLOB_PLAIN, "jello");
	change_size(path_of(&digest, BLOB_EXEC));
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 2);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), BLOB_MISSING);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), BLOB_MISSING);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	ck_assert_int_eq(blob_renew(writer, &absent, BLOB_EXEC, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 0);
	close_store();
}
END_TEST

START_TEST(an_inode_that_may_not_be_read_any_more_is_a_changed_one)
{
	uint8_t *bytes = NULL;
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;

	ck_assert(unit_heed_modes());
	open_store();
	digest = put("hello", BLOB_PLAIN);
	(void)put("hello", BLOB_EXEC);
	ck_assert_int_eq(fchmodat(folder, path_of(&digest, BLOB_EXEC), 0, 0), 0);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err), 0);
	ck_assert_uint_eq(n_changed, 1);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), 0);
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		ck_assert_int_eq(fchmodat(folder, path_of(&digest, kind), 0, 0), 0);
	ck_assert_int_eq(blob_read(store, &digest, 100, &bytes, &err), BLOB_CHANGED);
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 2);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), BLOB_MISSING);
	ck_assert_int_eq(look(&digest, BLOB_EXEC), BLOB_MISSING);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

START_TEST(settling_takes_out_what_may_not_be_read)
{
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;

	ck_assert(unit_heed_modes());
	open_store();
	digest = put("hello", BLOB_PLAIN);
	ck_assert_int_eq(fchmodat(folder, path_of(&digest, BLOB_PLAIN), 0, 0), 0);
	ck_assert_int_eq(blob_settle(writer, &digest, BLOB_PLAIN, &info, &n_changed, &err), BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 1);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), BLOB_MISSING);
	close_store();
}
END_TEST

START_TEST(a_digest_of_the_wrong_size_takes_no_good_inode_out)
{
	struct digest digest, wrong;
	struct blob_info info;
	unsigned n_changed;

	open_store();
	digest = wrong = put("hello", BLOB_PLAIN);
	wrong.size++;
	ck_assert_int_eq(blob_renew(writer, &wrong, BLOB_PLAIN, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_int_eq(blob_renew(writer, &wrong, BLOB_EXEC, false, &info, &n_changed, &err), BLOB_MISSING);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert_int_eq(look(&digest, BLOB_PLAIN), 0);
	ck_assert_int_eq(look(&wrong, BLOB_EXEC), BLOB_MISSING);
	close_store();
}
END_TEST

/* ---- copies and scans ---- */

START_TEST(a_copy_is_private)
{
	char text[6] = { 0 };
	struct digest digest;
	struct stat st;
	struct blob_copy how = { .mode = 0755, .reflink = true };
	int fd;

	(void)umask(077);
	open_store();
	digest = put("hello", BLOB_EXEC);
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", &how, &err), 0);
	ck_assert_int_eq(fstatat(out, "copy", &st, 0), 0);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0755);
	ck_assert_uint_ne(st.st_ino, stat_of(&digest, BLOB_EXEC).st_ino);
	ck_assert_int_eq(st.st_mtim.tv_nsec, blob_mtime(store).tv_nsec);
	fd = openat(out, "copy", O_RDWR);
	ck_assert_int_eq(read(fd, text, 6), 5);
	ck_assert_str_eq(text, "hello");
	ck_assert_int_eq(pwrite(fd, "j", 1, 0), 1);
	(void)close(fd);
	ck_holds(&digest, "hello");
	ck_assert_int_eq(blob_copy(store, &digest, out, "copy", &how, &err), -EEXIST);
	ck_assert_int_eq(fstatat(out, "copy", &st, 0), 0);
	digest.hash[0] ^= 1;
	ck_assert_int_eq(blob_copy(store, &digest, out, "none", &how, &err), BLOB_MISSING);
	ck_assert_uint_eq(count_entries(folder, "out"), 1);
	close_store();
}
END_TEST

struct scanned {
	unsigned n, n_changed;
	struct blob_info last, changed;
};

static void on_found(void *ctx, const struct blob_found *found)
{
	struct scanned *scanned = ctx;

	if (found->is_changed) {
		scanned->n_changed++;
		scanned->changed = found->info;
	} else {
		scanned->n++;
		scanned->last = found->info;
	}
}

START_TEST(a_scan_finds_what_is_ours_and_nothing_else)
{
	struct digest plain, exec, bad;
	struct scanned scanned = { 0 };
	char stray[140];

	open_store();
	exec = put("exec", BLOB_EXEC);
	bad = put("bad", BLOB_PLAIN);
	change_mode(path_of(&bad, BLOB_PLAIN));
	plain = put("plain", BLOB_PLAIN);
	(void)snprintf(stray, sizeof(stray), "%.8s/README", path_of(&plain, BLOB_PLAIN));
	(void)close(openat(folder, stray, O_CREAT | O_WRONLY, 0444));
	(void)snprintf(stray, sizeof(stray), "%s0", path_of(&plain, BLOB_PLAIN));
	(void)close(openat(folder, stray, O_CREAT | O_WRONLY, 0444));
	for (unsigned fanout = 0; fanout < 256; fanout++)
		for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
			ck_assert_int_eq(blob_scan(store, kind, fanout, on_found, &scanned, &err), 0);
	ck_assert_uint_eq(scanned.n, 2);
	ck_assert(digest_equal(&scanned.last.digest, &plain) || digest_equal(&scanned.last.digest, &exec));
	ck_assert_uint_eq(scanned.n_changed, 1);
	ck_assert(digest_equal(&scanned.changed.digest, &bad));
	close_store();
}
END_TEST

UNIT_MAIN("blob_renew", when_links_are_used_up_a_fresh_inode_takes_the_name,
	  an_executable_twin_leaves_the_plain_inode_alone, a_changed_inode_is_renewed_from_the_other_kind,
	  an_inode_with_the_right_bytes_is_renewed_from_itself, what_has_wrong_bytes_leaves_the_store,
	  an_inode_that_may_not_be_read_any_more_is_a_changed_one, settling_takes_out_what_may_not_be_read,
	  a_digest_of_the_wrong_size_takes_no_good_inode_out, a_copy_is_private,
	  a_scan_finds_what_is_ours_and_nothing_else)
