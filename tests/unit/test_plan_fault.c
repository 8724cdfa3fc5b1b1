/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees on a disk that fails: each call of daemon/disk.h in turn, as each thing that can be wrong, until one
 * run gets through. This program defines what disk.c defines, and so gets in front of it.
 */
#include "daemon/disk.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/prctl.h>

static atomic_uint calls_left;   /* until one fails; 0: none does */
static atomic_int fail_as;       /* a negative errno */
static atomic_int link_fails_as; /* what every link into a tree fails as; 0: it does not */

/* Calls of the pool's workers alone count: the index has a lane of its own. */
static int is_due(void)
{
	unsigned left = atomic_load(&calls_left);
	char name[16] = "";

	if (!left || prctl(PR_GET_NAME, name) < 0 || strcmp(name, "dircached-work") != 0)
		return 0;
	while (left && !atomic_compare_exchange_weak(&calls_left, &left, left - 1))
		continue;
	return left == 1;
}

/* The real ones, by another name. */
#define disk_openat      real_openat
#define disk_pwrite_full real_pwrite_full
#define disk_send_full   real_send_full
#define disk_reflink     real_reflink
#define disk_fstat       real_fstat
#define disk_fstatat     real_fstatat
#define disk_statx       real_statx
#define disk_mkdirat     real_mkdirat
#define disk_symlinkat   real_symlinkat
#define disk_linkat      real_linkat
#define disk_renameat2   real_renameat2
#define disk_fchmod      real_fchmod
#define disk_utimensat   real_utimensat
#define disk_futimens    real_futimens
#define disk_fd_path     real_fd_path
int disk_openat(int dirfd, const char *path, int flags, mode_t mode);
int disk_pwrite_full(int fd, const void *buf, size_t len, off_t offset);
int disk_send_full(int from_fd, off_t offset, int to_fd, uint64_t len);
int disk_reflink(int from_fd, int to_fd);
int disk_fstat(int fd, struct stat *st);
int disk_fstatat(int dirfd, const char *name, struct stat *st, int flags);
int disk_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *st);
int disk_mkdirat(int dirfd, const char *name, mode_t mode);
int disk_symlinkat(const char *target, int dirfd, const char *name);
int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags);
int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
int disk_fchmod(int fd, mode_t mode);
int disk_utimensat(int dirfd, const char *name, const struct timespec times[2]);
int disk_futimens(int fd, const struct timespec times[2]);
int disk_fd_path(int fd, char *buf, size_t size);
#include "daemon/disk.c"
#undef disk_openat
#undef disk_pwrite_full
#undef disk_send_full
#undef disk_reflink
#undef disk_fstat
#undef disk_fstatat
#undef disk_statx
#undef disk_mkdirat
#undef disk_symlinkat
#undef disk_linkat
#undef disk_renameat2
#undef disk_fchmod
#undef disk_utimensat
#undef disk_futimens
#undef disk_fd_path

int disk_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return is_due() ? fail_as : real_openat(dirfd, path, flags, mode);
}

/* But for the clearing of a record: one of a name that is gone does no harm, and stays. */
int disk_pwrite_full(int fd, const void *buf, size_t len, off_t offset)
{
	return len > 1 && is_due() ? fail_as : real_pwrite_full(fd, buf, len, offset);
}

/* The worst way: half of it is there. */
int disk_send_full(int from_fd, off_t offset, int to_fd, uint64_t len)
{
	int fails = is_due();
	int r = real_send_full(from_fd, offset, to_fd, fails ? len / 2 : len);

	return fails ? fail_as : r;
}

int disk_reflink(int from_fd, int to_fd)
{
	return is_due() ? fail_as : real_reflink(from_fd, to_fd);
}

int disk_fstat(int fd, struct stat *st)
{
	return is_due() ? fail_as : real_fstat(fd, st);
}

int disk_fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
	return is_due() ? fail_as : real_fstatat(dirfd, name, st, flags);
}

int disk_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *st)
{
	return is_due() ? fail_as : real_statx(dirfd, name, flags, mask, st);
}

int disk_mkdirat(int dirfd, const char *name, mode_t mode)
{
	return is_due() ? fail_as : real_mkdirat(dirfd, name, mode);
}

int disk_symlinkat(const char *target, int dirfd, const char *name)
{
	return is_due() ? fail_as : real_symlinkat(target, dirfd, name);
}

int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
	int is_for_tree = strcmp(to, "plain") == 0 || strcmp(to, "run") == 0 || strcmp(to, "deep") == 0;

	if (link_fails_as && is_for_tree)
		return link_fails_as;
	return is_due() ? fail_as : real_linkat(from_dirfd, from, to_dirfd, to, flags);
}

int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
	return is_due() ? fail_as : real_renameat2(from_dirfd, from, to_dirfd, to, flags);
}

int disk_fchmod(int fd, mode_t mode)
{
	return is_due() ? fail_as : real_fchmod(fd, mode);
}

int disk_utimensat(int dirfd, const char *name, const struct timespec times[2])
{
	return is_due() ? fail_as : real_utimensat(dirfd, name, times);
}

int disk_futimens(int fd, const struct timespec times[2])
{
	return is_due() ? fail_as : real_futimens(fd, times);
}

int disk_fd_path(int fd, char *buf, size_t size)
{
	return is_due() ? fail_as : real_fd_path(fd, buf, size);
}

/* That was the disk; now the tests. */

#include "daemon/plan.h"
#include "daemon/rmtree.h"
#include "tests/unit/making.h"

/* Make the usual tree at `t`, in one way; the n-th call on the way to it fails. */
static void make_so(struct making *m, const struct digest *digest, const struct plan *how, unsigned n)
{
	*m = (struct making){ .plan = *how };
	get_tree(&m->asked, digest);
	ck_assert_msg(m->asked.r == 0, "%s", m->asked.err.text);
	m->plan.root = m->asked.request.node;
	run_until_idle();
	atomic_store(&calls_left, n);
	begin(m, out, "t");
	end(m);
}

static void ck_whole(const struct making *m)
{
	static const char *const names[] = { "t/plain", "t/run", "t/empty", "t/link", "t/below/deep" };

	ck_assert_uint_eq(m->plan.counts.linked + m->plan.counts.copied + m->plan.counts.reflinked, 3);
	for (unsigned i = 0; i < N_ELEMENTS(names); i++)
		(void)stat_out(names[i]);
	ck_assert_int_eq(stat_out("t/plain").st_size, 11);
	ck_nothing_left(1);
	ck_assert_int_eq(rmtree(out, "t", &err), 0);
}

/* Fail the n-th call. Return: was there one? */
static bool fail_nth(const struct digest *digest, const struct plan *how, unsigned n, int as)
{
	struct making m;

	fail_as = as;
	make_so(&m, digest, how, n);
	if (m.plan.r == 0) {
		ck_whole(&m); /* there was another way, or none failed */
	} else {
		ck_assert(m.plan.err.set);
		ck_assert_int_eq(m.plan.err.code, err_code_of_errno(-as));
		ck_assert_int_ne(m.plan.err.code, ERR_NOT_FOUND);
		ck_nothing_left(0);
	}
	return atomic_exchange(&calls_left, 0) == 0;
}

static void fail_each(const struct plan *how)
{
	static const int errnos[] = {
		ENOSPC, EDQUOT, EMFILE, ENFILE, ENOMEM, EROFS, EACCES, EIO, ENAMETOOLONG
	};
	struct digest digest;

	start_cache();
	digest = store_usual_tree();
	for (unsigned i = 0; i < N_ELEMENTS(errnos); i++) {
		unsigned n = 1;

		while (fail_nth(&digest, how, n, -errnos[i]))
			n++;
		ck_assert_uint_gt(n, 15);
	}
	stop_cache();
}

START_TEST(a_call_that_fails_while_links_are_made_has_its_code_and_leaves_nothing)
{
	fail_each(&(struct plan){ .mode = PLAN_LINK });
}
END_TEST

START_TEST(a_call_that_fails_while_reflinks_are_made_has_its_code_and_leaves_nothing)
{
	fail_each(&(struct plan){ .mode = PLAN_REFLINK });
}
END_TEST

START_TEST(a_call_that_fails_while_copies_are_made_has_its_code_and_leaves_nothing)
{
	fail_each(&(struct plan){ .mode = PLAN_COPY, .writable = true });
}
END_TEST

/* Link, where link(2) fails so. */
static void link_where(int errnum, bool require_link, struct making *m)
{
	struct digest digest = store_usual_tree();

	link_fails_as = -errnum;
	make_so(m, &digest, &(struct plan){ .require_link = require_link }, 0);
	link_fails_as = 0;
}

START_TEST(what_cannot_be_linked_is_made_in_another_way_and_the_reason_told)
{
	static const int errnos[] = { EXDEV, EPERM, EOPNOTSUPP };
	struct making m;

	start_cache();
	for (unsigned i = 0; i < N_ELEMENTS(errnos); i++) {
		link_where(errnos[i], false, &m);
		ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
		ck_assert_uint_eq(m.plan.counts.linked, 0);
		ck_assert_uint_eq(m.plan.counts.fallback, 3);
		ck_assert_int_eq(m.plan.fallback_errno, errnos[i]);
		ck_whole(&m);
		link_where(errnos[i], true, &m);
		ck_assert_int_eq(m.plan.r, -errnos[i]);
		unit_ck_err(&m.plan.err, ERR_FAILED_PRECONDITION, "copies were not wanted");
		ck_nothing_left(0);
	}
	stop_cache();
}
END_TEST

START_TEST(where_no_fresh_inode_gets_a_link_files_are_copied_one_by_one)
{
	struct making m;

	start_cache();
	link_where(EMLINK, false, &m);
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(m.plan.counts.fallback, 3);
	ck_assert_int_eq(m.plan.fallback_errno, EMLINK);
	ck_whole(&m);
	link_where(EMLINK, true, &m);
	ck_assert_int_eq(m.plan.r, -EMLINK);
	unit_ck_err(&m.plan.err, ERR_FAILED_PRECONDITION, "Too many links");
	ck_nothing_left(0);
	stop_cache();
}
END_TEST

UNIT_MAIN("plan_fault", a_call_that_fails_while_links_are_made_has_its_code_and_leaves_nothing,
	  a_call_that_fails_while_reflinks_are_made_has_its_code_and_leaves_nothing,
	  a_call_that_fails_while_copies_are_made_has_its_code_and_leaves_nothing,
	  what_cannot_be_linked_is_made_in_another_way_and_the_reason_told,
	  where_no_fresh_inode_gets_a_link_files_are_copied_one_by_one)
