/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rmtree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static int folder = -1;
static struct err err;

static void setup(void)
{
	char name[32];
	int top = open(unit_folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	(void)umask(0);
	ck_assert_int_eq(fchmod(top, 0755), 0);
	(void)snprintf(name, sizeof(name), "%d", (int)getpid());
	ck_assert_int_eq(mkdirat(top, name, 0777), 0);
	folder = openat(top, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	(void)close(top);
}

static void make_file(const char *path)
{
	AUTO_CLOSE int fd = openat(folder, path, O_WRONLY | O_CREAT | O_EXCL, 0644);

	ck_assert_msg(fd >= 0, "%s: %s", path, strerror(errno));
}

static void make_directory(const char *path)
{
	ck_assert_msg(mkdirat(folder, path, 0755) == 0, "%s: %s", path, strerror(errno));
}

static bool is_there(const char *path)
{
	struct stat st;

	return fstatat(folder, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(fstatat(folder, path, &st, AT_SYMLINK_NOFOLLOW), 0);
	return st.st_mode & 07777;
}

static void ck_deleted(const char *name)
{
	ck_assert_msg(rmtree(folder, name, &err) == 0, "%s", err.text);
	ck_assert(!is_there(name));
}

/* A chain of directories `d`, each with a file; the descriptor of the last is the caller's. */
static int make_chain(const char *name, unsigned levels)
{
	int fd = dup(folder);

	for (unsigned i = 0; i < levels; i++) {
		const char *next = i ? "d" : name;
		int below;

		ck_assert_int_eq(mkdirat(fd, next, 0755), 0);
		below = openat(fd, next, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		ck_assert_int_ge(below, 0);
		(void)close(openat(below, "file", O_WRONLY | O_CREAT, 0644));
		(void)close(fd);
		fd = below;
	}
	return fd;
}

START_TEST(rmtree_deletes_whatever_a_name_stands_for)
{
	setup();
	ck_deleted("not there");
	make_file("file");
	ck_deleted("file");
	ck_assert_int_eq(symlinkat("nowhere", folder, "symlink"), 0);
	ck_deleted("symlink");
	ck_assert_int_eq(mkfifoat(folder, "fifo", 0600), 0);
	ck_deleted("fifo");
	make_directory("t");
	make_file("t/file");
	make_directory("t/below");
	make_file("t/below/.hidden");
	ck_assert_int_eq(mkfifoat(folder, "t/fifo", 0600), 0);
	ck_deleted("t");
}
END_TEST

START_TEST(rmtree_follows_no_symlink)
{
	setup();
	make_directory("precious");
	make_file("precious/file");
	make_directory("t");
	ck_assert_int_eq(symlinkat("../precious", folder, "t/link"), 0);
	ck_assert_int_eq(symlinkat("../precious/file", folder, "t/file"), 0);
	ck_assert_int_eq(symlinkat("precious", folder, "top"), 0);
	ck_deleted("t");
	ck_deleted("top");
	ck_assert(is_there("precious/file"));
}
END_TEST

START_TEST(rmtree_changes_no_files_mode)
{
	setup();
	make_directory("t");
	make_file("blob");
	ck_assert_int_eq(fchmodat(folder, "blob", 0444, 0), 0);
	make_file("exec");
	ck_assert_int_eq(fchmodat(folder, "exec", 0555, 0), 0);
	make_file("none");
	ck_assert_int_eq(fchmodat(folder, "none", 0, 0), 0);
	ck_assert_int_eq(linkat(folder, "blob", folder, "t/blob", 0), 0);
	ck_assert_int_eq(linkat(folder, "exec", folder, "t/exec", 0), 0);
	ck_assert_int_eq(linkat(folder, "none", folder, "t/none", 0), 0);
	ck_assert_int_eq(fchmodat(folder, "t", 0555, 0), 0);
	ck_deleted("t");
	ck_assert_uint_eq(mode_of("blob"), 0444);
	ck_assert_uint_eq(mode_of("exec"), 0555);
	ck_assert_uint_eq(mode_of("none"), 0);
}
END_TEST

START_TEST(rmtree_deletes_two_hundred_levels)
{
	setup();
	(void)close(make_chain("t", 200));
	ck_deleted("t");
}
END_TEST

START_TEST(rmtree_needs_few_descriptors_for_a_thousand_levels)
{
	setup();
	(void)close(make_chain("t", 1000));
	ck_deleted("t");
	ck_assert_int_lt(dup(folder), 20); /* and gave them back */
}
END_TEST

/* The names that deep directories are moved to may be taken, by anything. */
START_TEST(rmtree_is_not_confused_by_names_that_it_would_use_itself)
{
	setup();
	(void)close(make_chain("t", 150));
	make_directory("t/.dircache-deep-0");
	make_file("t/.dircache-deep-0/file");
	make_file("t/.dircache-deep-1");
	ck_assert_int_eq(symlinkat("nowhere", folder, "t/.dircache-deep-2"), 0);
	make_directory("t/.dircache-deep-3");
	ck_deleted("t");
}
END_TEST

/* In a process of its own as somebody else, if we may: what root may is no test. */
static void as_nobody(void (*f)(void))
{
	int status;
	pid_t pid;

	ck_assert_int_eq(fchmod(folder, 0777), 0);
	pid = fork();
	ck_assert_int_ge(pid, 0);
	if (pid == 0) {
		if (geteuid() == 0 && (setgid(65534) < 0 || setuid(65534) < 0))
			_exit(1);
		f();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "it ended with status %x", status);
}

static void delete_closed_directories(void)
{
	if (mkdirat(folder, "t", 0755) < 0 || mkdirat(folder, "t/a", 0755) < 0 ||
	    mkdirat(folder, "t/a/b", 0755) < 0 || fchmodat(folder, "t/a/b", 0, 0) < 0 ||
	    fchmodat(folder, "t/a", 0555, 0) < 0 || fchmodat(folder, "t", 0, 0) < 0)
		_exit(2);
	if (rmtree(folder, "t", &err) < 0 || is_there("t"))
		_exit(3);
}

START_TEST(rmtree_lets_itself_into_directories_that_are_closed_to_their_owner)
{
	setup();
	as_nobody(delete_closed_directories);
}
END_TEST

static void delete_deep_read_only_directories(void)
{
	int fd = dup(folder);

	for (unsigned i = 0; i < 200; i++) {
		int below;

		if (mkdirat(fd, "d", 0755) < 0)
			_exit(2);
		below = openat(fd, "d", O_RDONLY | O_DIRECTORY);
		if (i && fchmod(fd, 0555) < 0)
			_exit(2);
		(void)close(fd);
		fd = below;
	}
	if (rmtree(folder, "d", &err) < 0 || is_there("d"))
		_exit(3);
}

START_TEST(rmtree_deletes_two_hundred_levels_of_read_only_directories)
{
	setup();
	as_nobody(delete_deep_read_only_directories);
}
END_TEST

static void delete_around_what_is_not_ours(void)
{
	if (rmtree(folder, "t", &err) == 0 || !err.set)
		_exit(3);
	if (is_there("t/mine") || !is_there("t/others/file"))
		_exit(4);
}

START_TEST(rmtree_goes_on_after_a_failure_and_says_what_failed)
{
	setup();
	if (geteuid() != 0)
		return;
	make_directory("t");
	make_directory("t/mine");
	make_directory("t/others");
	make_file("t/others/file");
	ck_assert_int_eq(fchownat(folder, "t", 65534, 65534, 0), 0);
	ck_assert_int_eq(fchownat(folder, "t/mine", 65534, 65534, 0), 0);
	as_nobody(delete_around_what_is_not_ours);
	ck_deleted("t");
}
END_TEST

/* From here on mounts are seen by this test only, and gone when it ends. Return: may we mount? */
static bool have_mounts(void)
{
	return unshare(CLONE_NEWNS) == 0 && mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

static void mount_on(const char *path)
{
	char full[512];

	(void)snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", folder, path);
	ck_assert_msg(mount("unit", full, "tmpfs", 0, "size=64k") == 0, "%s", strerror(errno));
}

static void unmount_from(const char *path)
{
	char full[512];

	(void)snprintf(full, sizeof(full), "/proc/self/fd/%d/%s", folder, path);
	ck_assert_int_eq(umount2(full, MNT_DETACH), 0);
}

START_TEST(rmtree_crosses_no_mount)
{
	bool kept;
	int r;

	if (!have_mounts())
		return;
	setup();
	make_directory("t");
	make_directory("t/mount");
	make_file("t/file");
	mount_on("t/mount");
	make_file("t/mount/precious");
	r = rmtree(folder, "t", &err);
	kept = is_there("t/mount/precious");
	unmount_from("t/mount");
	ck_assert(kept);
	ck_assert_int_eq(r, -EXDEV);
	ck_assert(err.set && !is_there("t/file"));
	ck_deleted("t");
}
END_TEST

START_TEST(rmtree_ends_when_what_is_too_deep_cannot_be_moved)
{
	char path[256] = "t";
	int r;

	if (!have_mounts())
		return;
	setup();
	(void)close(make_chain("t", 64));
	for (unsigned i = 1; i < 64; i++)
		(void)strncat(path, "/d", sizeof(path) - strlen(path) - 1);
	(void)strncat(path, "/mount", sizeof(path) - strlen(path) - 1);
	make_directory(path);
	mount_on(path);
	r = rmtree(folder, "t", &err);
	unmount_from(path);
	ck_assert_int_lt(r, 0);
	ck_assert(err.set);
	ck_deleted("t");
}
END_TEST

UNIT_MAIN("rmtree", rmtree_deletes_whatever_a_name_stands_for, rmtree_follows_no_symlink,
	  rmtree_changes_no_files_mode, rmtree_deletes_two_hundred_levels,
	  rmtree_needs_few_descriptors_for_a_thousand_levels,
	  rmtree_is_not_confused_by_names_that_it_would_use_itself,
	  rmtree_lets_itself_into_directories_that_are_closed_to_their_owner,
	  rmtree_deletes_two_hundred_levels_of_read_only_directories,
	  rmtree_goes_on_after_a_failure_and_says_what_failed, rmtree_crosses_no_mount,
	  rmtree_ends_when_what_is_too_deep_cannot_be_moved)
