/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The store with a disk that fails: each call of daemon/disk.h in turn, until one run gets through. This
 * program defines what disk.c defines, and so gets in front of it.
 */
#include "daemon/disk.h"

#include <errno.h>

static void (*after_link)(void), (*before_rename)(void); /* called once */
static unsigned calls_left;                              /* until one fails; 0: none does */
static int fail_as;                                      /* whatever a call usually fails as */
static bool readdir_fails;

static int is_due(void)
{
	return calls_left > 0 && --calls_left == 0;
}

static int failure(int usual)
{
	return fail_as ? fail_as : usual;
}

static void call_once(void (**hook)(void))
{
	void (*f)(void) = *hook;

	*hook = NULL;
	if (f)
		f();
}

/* The real ones, by another name. */
#define disk_openat     real_openat
#define disk_readdir    real_readdir
#define disk_reopen     real_reopen
#define disk_pread      real_pread
#define disk_write_full real_write_full
#define disk_send_full  real_send_full
#define disk_fstat      real_fstat
#define disk_fstatat    real_fstatat
#define disk_statx      real_statx
#define disk_mkdirat    real_mkdirat
#define disk_linkat     real_linkat
#define disk_link_fd    real_link_fd
#define disk_renameat2  real_renameat2
#define disk_fchmod     real_fchmod
#define disk_futimens   real_futimens
#define disk_ftruncate  real_ftruncate
int disk_openat(int dirfd, const char *path, int flags, mode_t mode);
struct dirent *disk_readdir(DIR *dir, int *r);
int disk_reopen(int fd, int flags);
ssize_t disk_pread(int fd, void *buf, size_t len, off_t offset);
int disk_write_full(int fd, const void *buf, size_t len);
int disk_send_full(int from_fd, off_t offset, int to_fd, uint64_t len);
int disk_fstat(int fd, struct stat *st);
int disk_fstatat(int dirfd, const char *name, struct stat *st, int flags);
int disk_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *st);
int disk_mkdirat(int dirfd, const char *name, mode_t mode);
int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags);
int disk_link_fd(int fd, int to_dirfd, const char *to);
int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags);
int disk_fchmod(int fd, mode_t mode);
int disk_ftruncate(int fd, off_t size);
int disk_futimens(int fd, const struct timespec times[2]);
#include "daemon/disk.c"
#undef disk_openat
#undef disk_readdir
#undef disk_reopen
#undef disk_pread
#undef disk_write_full
#undef disk_send_full
#undef disk_fstat
#undef disk_fstatat
#undef disk_statx
#undef disk_mkdirat
#undef disk_linkat
#undef disk_link_fd
#undef disk_renameat2
#undef disk_fchmod
#undef disk_futimens
#undef disk_ftruncate

int disk_openat(int dirfd, const char *path, int flags, mode_t mode)
{
	return is_due() ? failure(-EMFILE) : real_openat(dirfd, path, flags, mode);
}

struct dirent *disk_readdir(DIR *dir, int *r)
{
	if (!readdir_fails)
		return real_readdir(dir, r);
	*r = -EIO;
	return NULL;
}

int disk_reopen(int fd, int flags)
{
	return is_due() ? failure(-EMFILE) : real_reopen(fd, flags);
}

ssize_t disk_pread(int fd, void *buf, size_t len, off_t offset)
{
	return is_due() ? failure(-EIO) : real_pread(fd, buf, len, offset);
}

/* The worst way: half of it is there. */
int disk_write_full(int fd, const void *buf, size_t len)
{
	int fails = is_due();
	int r = real_write_full(fd, buf, fails ? len / 2 : len);

	return fails ? failure(-ENOSPC) : r;
}

int disk_send_full(int from_fd, off_t offset, int to_fd, uint64_t len)
{
	int fails = is_due();
	int r = real_send_full(from_fd, offset, to_fd, fails ? len / 2 : len);

	return fails ? failure(-ENOSPC) : r;
}

int disk_fstat(int fd, struct stat *st)
{
	return is_due() ? failure(-EIO) : real_fstat(fd, st);
}

int disk_fstatat(int dirfd, const char *name, struct stat *st, int flags)
{
	return is_due() ? failure(-EIO) : real_fstatat(dirfd, name, st, flags);
}

int disk_statx(int dirfd, const char *name, int flags, unsigned mask, struct statx *st)
{
	return is_due() ? failure(-EIO) : real_statx(dirfd, name, flags, mask, st);
}

int disk_mkdirat(int dirfd, const char *name, mode_t mode)
{
	return is_due() ? failure(-ENOSPC) : real_mkdirat(dirfd, name, mode);
}

int disk_linkat(int from_dirfd, const char *from, int to_dirfd, const char *to, int flags)
{
	return is_due() ? failure(-ENOSPC) : real_linkat(from_dirfd, from, to_dirfd, to, flags);
}

int disk_link_fd(int fd, int to_dirfd, const char *to)
{
	int r = is_due() ? failure(-ENOSPC) : real_link_fd(fd, to_dirfd, to);

	if (r == 0)
		call_once(&after_link);
	return r;
}

int disk_renameat2(int from_dirfd, const char *from, int to_dirfd, const char *to, unsigned flags)
{
	call_once(&before_rename);
	return is_due() ? failure(-ENOSPC) : real_renameat2(from_dirfd, from, to_dirfd, to, flags);
}

int disk_fchmod(int fd, mode_t mode)
{
	return is_due() ? failure(-EIO) : real_fchmod(fd, mode);
}

int disk_ftruncate(int fd, off_t size)
{
	return is_due() ? failure(-EFBIG) : real_ftruncate(fd, size);
}

int disk_futimens(int fd, const struct timespec times[2])
{
	return is_due() ? failure(-EIO) : real_futimens(fd, times);
}

#include <sys/wait.h>

#include "common/hash.h"
#include "daemon/blob_exam.h"
#include "daemon/staging.h"
#include "tests/unit/store.h"

#define TEXT "hello, disk"

static struct digest digest;

/* Nothing is left over, and whatever has the name is right. */
static void ck_sound(enum blob_kind kind)
{
	int r = blob_stat(store, &digest, kind, NULL, NULL);

	ck_assert(r == 0 || r == BLOB_MISSING);
	if (r == 0) {
		uint8_t *bytes;

		ck_assert_int_eq(blob_read(store, &digest, 100, &bytes, &err), 0);
		free(bytes);
	}
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
}

/* Make the first, the second, ... call fail until the operation is done. Return: how often it failed. */
static unsigned fail_each(int (*operate)(void), void (*prepare)(void), enum blob_kind kind)
{
	for (unsigned n = 1;; n++) {
		int r;

		prepare();
		err_clear(&err);
		calls_left = n;
		r = operate();
		if (calls_left > 0) {
			calls_left = 0;
			ck_assert_msg(r >= 0, "%d %s", r, err.text);
			ck_sound(kind);
			return n - 1;
		}
		ck_assert_msg(r >= 0 || err.set, "call %u failed without words: %d", n, r);
		ck_sound(kind);
	}
}

static void forget(void)
{
	(void)blob_discard(store, &digest, BLOB_PLAIN, NULL);
	(void)blob_discard(store, &digest, BLOB_EXEC, NULL);
}

static void put_plain(void)
{
	forget();
	(void)put(TEXT, BLOB_PLAIN);
}

static void put_changed(void)
{
	put_plain();
	ck_assert_int_eq(fchmodat(folder, path_of(&digest, BLOB_PLAIN), 0644, 0), 0);
}

static int write_plain(void)
{
	struct blob_info info;

	return blob_write(writer, TEXT, strlen(TEXT), BLOB_PLAIN, &info, NULL, &err);
}

static int write_exec(void)
{
	struct blob_info info;

	return blob_write(writer, TEXT, strlen(TEXT), BLOB_EXEC, &info, NULL, &err);
}

static int renew_exec(void)
{
	struct blob_info info;
	unsigned n_changed;

	return blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err);
}

static int copy(void)
{
	struct blob_copy how = { .mode = 0644, .reflink = true };
	int r = blob_copy(store, &digest, out, "copy", &how, &err);

	ck_assert_uint_eq(count_entries(folder, "out"), r == 0);
	(void)unlinkat(out, "copy", 0);
	return r;
}

static int open_again(void)
{
	AUTO(blob_store) again = blob_store_open(folder, &err);

	return again ? 0 : -EIO;
}

/* A changed inode must not be there when it was not replaced: it is seen as changed, which is sound, too. */
static int rewrite_changed(void)
{
	int r = write_plain();

	if (r < 0) {
		ck_assert_int_eq(blob_stat(store, &digest, BLOB_PLAIN, NULL, NULL), BLOB_CHANGED);
		forget();
	}
	return r;
}

START_TEST(a_call_that_fails_leaves_the_store_sound)
{
	open_store();
	hash_bytes(TEXT, strlen(TEXT), &digest);
	for (int no_tmpfile = 0; no_tmpfile < 2; no_tmpfile++) {
		atomic_store(&store->no_tmpfile, no_tmpfile);
		ck_assert_uint_ge(fail_each(write_plain, forget, BLOB_PLAIN), 6);
		ck_assert_uint_ge(fail_each(write_exec, forget, BLOB_EXEC), 7);
		ck_assert_uint_ge(fail_each(renew_exec, put_plain, BLOB_EXEC), 9);
		ck_assert_uint_ge(fail_each(rewrite_changed, put_changed, BLOB_PLAIN), 8);
	}
	atomic_store(&store->no_reflink, true);
	ck_assert_uint_ge(fail_each(copy, put_plain, BLOB_PLAIN), 5);
	ck_assert_uint_ge(fail_each(open_again, put_plain, BLOB_PLAIN), 9);
	close_store();
}
END_TEST

/* ---- a full disk, under a space ---- */

static struct space *space;

/* What operate() does, against a space that knows of no limit. A full disk is an outcome, and has no words.
 */
static int with_space(int (*operate)(void))
{
	int r = operate();

	ck_assert_msg(r >= 0, "%d %s", r, err.text);
	if (r == BLOB_NO_ROOM) {
		ck_assert(!err.set);
		ck_assert(blob_writer_need(writer).disk_full);
		ck_assert_uint_gt(blob_writer_need(writer).bytes, 0);
		ck_assert(space_levels(space).disk_full);
	}
	blob_writer_settle(writer);
	ck_assert_uint_eq(space_levels(space).reserved, 0);
	space_set_disk(space, INT64_MAX);
	return r;
}

static int write_plain_with_space(void)
{
	return with_space(write_plain);
}

static int renew_exec_with_space(void)
{
	return with_space(renew_exec);
}

START_TEST(a_disk_that_is_full_at_any_call_is_no_room_and_leaves_the_store_sound)
{
	static const struct space_limits none = { 0 };

	open_store();
	space = space_new(&none);
	blob_store_guard(store, space, NULL);
	hash_bytes(TEXT, strlen(TEXT), &digest);
	for (int i = 0; i < 4; i++) {
		atomic_store(&store->no_tmpfile, i & 1);
		fail_as = i & 2 ? -EDQUOT : -ENOSPC;
		ck_assert_uint_ge(fail_each(write_plain_with_space, forget, BLOB_PLAIN), 6);
		ck_assert_uint_ge(fail_each(renew_exec_with_space, put_plain, BLOB_EXEC), 9);
	}
	blob_writer_settle(writer);
	close_store();
	space_free(space);
}
END_TEST

/* ---- in the middle ---- */

static int exec_status = -1;

/* Run the executable that has just got its name. */
static void execute_it(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		char *argv[] = { (char *)path_of(&digest, BLOB_EXEC), NULL };

		if (fchdir(folder) == 0)
			(void)execv(argv[0], argv);
		_exit(errno);
	}
	ck_assert_int_eq(waitpid(pid, &exec_status, 0), pid);
}

START_TEST(an_executable_runs_in_the_moment_it_has_its_name)
{
	static const char script[] = "#!/bin/sh\nexit 0\n";
	struct blob_info info;

	open_store();
	hash_bytes(script, strlen(script), &digest);
	after_link = execute_it;
	ck_assert_int_eq(blob_write(writer, script, strlen(script), BLOB_EXEC, &info, NULL, &err), 0);
	ck_assert(WIFEXITED(exec_status));
	ck_assert_msg(WEXITSTATUS(exec_status) == 0, "exec: %s", strerror(WEXITSTATUS(exec_status)));
	close_store();
}
END_TEST

static void put_in_a_good_one(void)
{
	ck_assert_int_eq(write_plain(), 0);
}

START_TEST(a_good_inode_that_came_meanwhile_is_not_taken_out)
{
	struct blob_info info;
	unsigned n_changed;
	int fd;

	open_store();
	digest = put(TEXT, BLOB_PLAIN);
	ck_assert_int_eq(fchmodat(folder, path_of(&digest, BLOB_PLAIN), 0644, 0), 0);
	fd = openat(folder, path_of(&digest, BLOB_PLAIN), O_WRONLY | O_APPEND);
	ck_assert_int_eq(write(fd, "!", 1), 1);
	(void)close(fd);
	before_rename = put_in_a_good_one;
	ck_assert_int_eq(blob_renew(writer, &digest, BLOB_EXEC, false, &info, &n_changed, &err),
			 BLOB_MISSING);
	ck_assert_ptr_null(before_rename);
	ck_assert_uint_eq(n_changed, 0);
	ck_assert_int_eq(blob_stat(store, &digest, BLOB_PLAIN, NULL, NULL), 0);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

/* ---- folders that cannot be read to their end ---- */

static void on_blob_name(void *ctx, const struct blob_name_found *found)
{
	(void)ctx;
	(void)found;
}

static void on_blob(void *ctx, const struct blob_found *found)
{
	(void)ctx;
	(void)found;
}

static void on_name(void *ctx, const char *name)
{
	(void)ctx;
	(void)name;
}

/* What failed as EIO says so of the folder, and forgets it. */
static void ck_names_folder(int r, const char *name)
{
	ck_assert_int_eq(r, -EIO);
	unit_ck_err(&err, ERR_INTERNAL, "reading the ");
	unit_ck_err(&err, ERR_INTERNAL, name);
	unit_ck_err(&err, ERR_INTERNAL, strerror(EIO));
	err_clear(&err);
}

START_TEST(a_folder_of_the_store_that_cannot_be_read_is_named)
{
	char path[16];

	open_store();
	digest = put(TEXT, BLOB_PLAIN);
	(void)snprintf(path, sizeof(path), "'blobs/%02x'", digest.hash[0]);
	readdir_fails = true;
	ck_names_folder(blob_store_is_empty(store, &err), "'blobs'");
	ck_names_folder(blob_store_clean(store, &err), "'tmp'");
	ck_names_folder(blob_scan(store, BLOB_PLAIN, digest.hash[0], on_blob, NULL, &err), path);
	ck_names_folder(blob_list(store, BLOB_PLAIN, digest.hash[0], on_blob_name, NULL, &err), path);
	ck_names_folder(blob_list_litter(store, on_name, NULL, &err), "'tmp'");
	readdir_fails = false;
	close_store();
}
END_TEST

START_TEST(staging_that_cannot_be_read_is_named)
{
	AUTO(staging) staging = NULL;
	size_t n_deleted;

	open_store();
	staging = staging_open(folder, &err);
	ck_assert_ptr_nonnull(staging);
	readdir_fails = true;
	ck_names_folder(staging_sweep(staging, &n_deleted, &err), "'staging'");
	ck_names_folder(staging_left(staging, on_name, NULL, &err), "'staging'");
	readdir_fails = false;
	close_store();
}
END_TEST

UNIT_MAIN("blob_fault", a_call_that_fails_leaves_the_store_sound,
	  a_disk_that_is_full_at_any_call_is_no_room_and_leaves_the_store_sound,
	  an_executable_runs_in_the_moment_it_has_its_name, a_good_inode_that_came_meanwhile_is_not_taken_out,
	  a_folder_of_the_store_that_cannot_be_read_is_named, staging_that_cannot_be_read_is_named)
