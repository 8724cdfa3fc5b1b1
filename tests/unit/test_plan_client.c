/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees made for another user: who the worker is, and what it may, at each call that changes something. This
 * program defines what disk.c defines, and so gets in front of it.
 */
#include "daemon/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/syscall.h>

#include "daemon/identity.h"

static atomic_uint n_links, n_others, n_wrong; /* calls as a client; those with other rights than they need */
static atomic_int link_fails_as, rename_fails_as;

/* The n-th directory that is made for the client is moved away at once, and a symlink to here put in its
 * place. */
static atomic_uint swap_nth;
static char swap_goal[64];

static uint64_t effective_capabilities(void)
{
	struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &head, data) < 0)
		abort();
	return (uint64_t)data[1].effective << 32 | data[0].effective;
}

/* As a client: with its fsuid, and no capability but the one that links need. */
static void look(bool is_link)
{
	const struct identity *client = identity_assumed();
	uint64_t wanted = is_link ? UINT64_C(1) << CAP_FOWNER : 0;

	if (!client)
		return;
	atomic_fetch_add(is_link ? &n_links : &n_others, 1);
	if (effective_capabilities() != wanted || (uid_t)setfsuid((uid_t)-1) != client->uid)
		atomic_fetch_add(&n_wrong, 1);
}

/* The real ones, by another name. */
#define disk_openat       real_openat
#define disk_mkdirat      real_mkdirat
#define disk_symlinkat    real_symlinkat
#define disk_linkat       real_linkat
#define disk_link_fd      real_link_fd
#define disk_unlinkat     real_unlinkat
#define disk_renameat2    real_renameat2
#define disk_fchmod       real_fchmod
#define disk_chmod_handle real_chmod_handle
#define disk_utimensat    real_utimensat
#define disk_futimens     real_futimens
#define disk_ftruncate    real_ftruncate
int disk_openat(int dirfd, const char *path, int flags, mode_t mode);
int disk_mkdirat(int dirfd, const char *name, mode_t mode);
int disk_symlinkat(const char *target, int dirfd, const char *name);
int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags);
int disk_link_fd(int fd, int to_dirfd, const char *to);
int disk_unlinkat(int dirfd, const char *name, int flags);
int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
int disk_fchmod(int fd, mode_t mode);
int disk_chmod_handle(int fd, mode_t mode);
int disk_utimensat(int dirfd, const char *name, const struct timespec times[2]);
int disk_futimens(int fd, const struct timespec times[2]);
int disk_ftruncate(int fd, off_t size);
#include "daemon/disk.c"
#undef disk_openat
#undef disk_mkdirat
#undef disk_symlinkat
#undef disk_linkat
#undef disk_link_fd
#undef disk_unlinkat
#undef disk_renameat2
#undef disk_fchmod
#undef disk_chmod_handle
#undef disk_utimensat
#undef disk_futimens
#undef disk_ftruncate

/* One that only opens may be the daemon's look at a blob, or its way to the blob's folder, between two links.
 */
int disk_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	if (flags & (O_CREAT | O_TRUNC | __O_TMPFILE) &&
	    !(flags & O_PATH)) /* the last has O_DIRECTORY in it */
		look(false);
	return real_openat(dirfd, path, flags, mode);
}

int disk_mkdirat(int dirfd, const char *name, mode_t mode)
{
	unsigned left = atomic_load(&swap_nth);
	int r;

	look(false);
	r = real_mkdirat(dirfd, name, mode);
	if (r < 0 || !identity_assumed() || !left)
		return r;
	atomic_store(&swap_nth, left - 1); /* one worker makes them, in this test */
	if (left == 1 &&
	    (real_renameat2(dirfd, name, dirfd, "away", 0) < 0 || real_symlinkat(swap_goal, dirfd, name) < 0))
		abort();
	return 0;
}

int disk_symlinkat(const char *target, int dirfd, const char *name)
{
	look(false);
	return real_symlinkat(target, dirfd, name);
}

int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
	bool is_for_client = identity_assumed();
	int fails_as = atomic_load(&link_fails_as);

	look(true);
	return is_for_client && fails_as ? fails_as : real_linkat(from_dirfd, from, to_dirfd, to, flags);
}

int disk_link_fd(int fd, int to_dirfd, const char *to)
{
	look(false);
	return real_link_fd(fd, to_dirfd, to);
}

int disk_unlinkat(int dirfd, const char *name, int flags)
{
	look(false);
	return real_unlinkat(dirfd, name, flags);
}

int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
	int fails_as = atomic_load(&rename_fails_as);

	look(false);
	return identity_assumed() && fails_as ? fails_as
					      : real_renameat2(from_dirfd, from, to_dirfd, to, flags);
}

int disk_fchmod(int fd, mode_t mode)
{
	look(false);
	return real_fchmod(fd, mode);
}

int disk_chmod_handle(int fd, mode_t mode)
{
	look(false);
	return real_chmod_handle(fd, mode);
}

int disk_utimensat(int dirfd, const char *name, const struct timespec times[2])
{
	look(false);
	return real_utimensat(dirfd, name, times);
}

int disk_futimens(int fd, const struct timespec times[2])
{
	look(false);
	return real_futimens(fd, times);
}

int disk_ftruncate(int fd, off_t size)
{
	look(false);
	return real_ftruncate(fd, size);
}

/* That was the disk; now the tests. */

#include "daemon/plan.h"
#include "daemon/rmtree.h"
#include "tests/unit/making.h"

enum { ALICE = 12001, N_FILES = 61 /* the last is a link */ };

static struct draft draft;
static struct node_properties properties = {
	.has_mtime = true, .mtime_sec = 1000000000, .has_unix_mode = true, .unix_mode = 0100640
};

/* Of links, copies and empty files by turns, so that the right to link comes and goes. */
static struct digest store_mixed_tree(void)
{
	static char names[N_FILES][16];

	draft_init(&draft);
	for (unsigned i = 0; i < N_FILES; i++) {
		struct digest bytes;

		(void)snprintf(names[i], sizeof(names[i]), "f%02u", i);
		bytes = i % 5 == 4 ? digest_empty : store_text(names[i], i % 2 ? BLOB_EXEC : BLOB_PLAIN);
		draft_file(&draft, names[i], bytes, i % 2);
		if (i % 3 == 2)
			draft.files[i].properties = &properties;
	}
	draft_symlink(&draft, "link", "f00");
	return draft_store(&draft);
}

/* A cache that can act as others, and alice's folder for what is made; a process that cannot ends here. */
static struct identity *start(void)
{
	struct identity *alice = identity_new(ALICE, ALICE, NULL, 0);

	start_cache();
	if (!identity_can_act() || identity_acting_for(alice) != alice) {
		stop_cache();
		exit(0); /* each test is a process */
	}
	ck_assert_int_eq(fchown(out, ALICE, ALICE), 0);
	return alice;
}

static void make_so(struct making *m, const struct digest *digest, const struct plan *how)
{
	*m = (struct making){ .plan = *how };
	get_tree(&m->asked, digest);
	ck_assert_msg(m->asked.r == 0, "%s", m->asked.err.text);
	m->plan.root = m->asked.request.node;
	run_until_idle();
	begin(m, out, "t");
	end(m);
}

/* Make a tree in one way. Return: how many links were tried as the client. */
static unsigned make_as_client(struct identity *alice, enum plan_mode mode, bool writable)
{
	struct digest digest = store_mixed_tree();
	unsigned before = atomic_load(&n_links);
	struct making m;

	make_so(&m, &digest, &(struct plan){ .client = alice, .mode = mode, .writable = writable });
	ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	ck_assert_uint_eq(atomic_load(&n_wrong), 0);
	ck_assert_uint_gt(atomic_load(&n_others), N_FILES / 3);
	ck_assert_uint_eq(stat_out("t").st_uid, ALICE);
	ck_assert_uint_eq(stat_out("t/f02").st_uid, ALICE);
	ck_assert_int_eq(rmtree(out, "t", &err), 0);
	return atomic_load(&n_links) - before;
}

START_TEST(the_right_to_link_is_held_at_links_and_at_nothing_else)
{
	struct identity *alice = start();

	ck_assert_uint_gt(make_as_client(alice, PLAN_LINK, false), N_FILES / 3);
	stop_cache();
	identity_put(alice);
}
END_TEST

START_TEST(it_is_never_held_where_no_links_are_made)
{
	struct identity *alice = start();

	ck_assert_uint_eq(make_as_client(alice, PLAN_COPY, false), 0);
	ck_assert_uint_eq(make_as_client(alice, PLAN_REFLINK, false), 0);
	ck_assert_uint_eq(make_as_client(alice, PLAN_LINK, true), 0);
	stop_cache();
	identity_put(alice);
}
END_TEST

START_TEST(it_is_given_up_where_a_link_turns_into_a_copy)
{
	static const int errnos[] = { EXDEV, EPERM, EMLINK };
	struct identity *alice = start();

	for (unsigned i = 0; i < N_ELEMENTS(errnos); i++) {
		atomic_store(&link_fails_as, -errnos[i]);
		ck_assert_uint_gt(make_as_client(alice, PLAN_LINK, false), 0);
	}
	stop_cache();
	identity_put(alice);
}
END_TEST

START_TEST(what_fails_is_taken_back_without_it)
{
	struct identity *alice = start();
	struct digest digest = store_mixed_tree();
	struct making m;

	atomic_store(&rename_fails_as, -EIO);
	make_so(&m, &digest, &(struct plan){ .client = alice });
	ck_assert_int_eq(m.plan.r, -EIO);
	ck_assert_uint_eq(atomic_load(&n_wrong), 0);
	ck_nothing_left(0);
	stop_cache();
	identity_put(alice);
}
END_TEST

/* Directories of three levels, with something in each. */
static struct digest store_deep_tree(void)
{
	struct digest bytes = store_text("deep", BLOB_PLAIN), below;

	draft_init(&draft);
	draft_file(&draft, "file", bytes, false);
	draft_file(&draft, "empty", digest_empty, false);
	for (unsigned level = 0; level < 2; level++) {
		below = draft_store(&draft);
		draft_init(&draft);
		draft_file(&draft, "file", bytes, false);
		draft_directory(&draft, "d", below);
		draft_symlink(&draft, "link", "file");
	}
	return draft_store(&draft);
}

static void ck_untouched(int folder)
{
	struct stat st;

	ck_assert_int_eq(fstat(folder, &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFDIR | 0700);
	ck_assert_uint_eq(count_names(folder), 0);
}

START_TEST(a_directory_that_becomes_a_symlink_at_once_leads_nowhere)
{
	struct identity *alice = start();
	struct digest digest = store_deep_tree();
	int elsewhere;

	ck_assert_int_eq(mkdirat(cache.store_fd, "elsewhere", 0700), 0);
	elsewhere = openat(cache.store_fd, "elsewhere", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(fchown(elsewhere, ALICE, ALICE), 0);
	(void)snprintf(swap_goal, sizeof(swap_goal), "/proc/self/fd/%d", elsewhere);
	for (unsigned i = 0; i < 8; i++) {
		struct making m;

		/* In a setgid folder modes are set by a call of their own. */
		ck_assert_int_eq(fchmod(out, i < 4 ? 0755 : 02775), 0);
		atomic_store(&swap_nth, 1 + i % 4);
		make_so(&m, &digest, &(struct plan){ .client = alice });
		ck_assert_uint_eq(atomic_load(&swap_nth) == 0, i % 4 < 3); /* there are three directories */
		ck_assert_uint_eq(m.plan.r == 0, i % 4 == 3);
		ck_untouched(elsewhere);
		ck_assert_uint_eq(count_records(cache.store_fd), 0);
		atomic_store(&swap_nth, 0);
		(void)rmtree(out, "away", &err);
		(void)rmtree(out, "t", &err);
		ck_assert_uint_eq(count_names(out), 0);
	}
	(void)close(elsewhere);
	stop_cache();
	identity_put(alice);
}
END_TEST

START_TEST(a_single_file_is_linked_with_it_and_copied_without)
{
	struct identity *alice = start();
	struct digest digest = store_text("single", BLOB_PLAIN);
	static const char *const names[] = { "link", "copy", "empty" };
	struct making m;

	for (unsigned i = 0; i < N_ELEMENTS(names); i++) {
		m = (struct making){
			.plan = { .client = alice, .mode = i == 1 ? PLAN_COPY : PLAN_LINK },
			.file = { .name = "file", .digest = i == 2 ? digest_empty : digest },
		};
		m.plan.file = &m.file;
		begin(&m, out, names[i]);
		end(&m);
		ck_assert_msg(m.plan.r == 0, "%s", m.plan.err.text);
	}
	ck_assert_uint_eq(atomic_load(&n_links), 1);
	ck_assert_uint_eq(atomic_load(&n_wrong), 0);
	ck_assert_uint_eq(stat_out("link").st_uid, geteuid());
	ck_assert_uint_eq(stat_out("copy").st_uid, ALICE);
	ck_assert_uint_eq(stat_out("empty").st_uid, ALICE);
	stop_cache();
	identity_put(alice);
}
END_TEST

UNIT_MAIN("plan_client", the_right_to_link_is_held_at_links_and_at_nothing_else,
	  it_is_never_held_where_no_links_are_made, it_is_given_up_where_a_link_turns_into_a_copy,
	  what_fails_is_taken_back_without_it, a_directory_that_becomes_a_symlink_at_once_leads_nowhere,
	  a_single_file_is_linked_with_it_and_copied_without)
