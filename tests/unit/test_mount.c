/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/unit/unit.h"

enum { NOBODY = 65534 };

/* In unit_folder: the store, a folder for targets, and others to mount things at. */
static int store = -1;
static struct mount *mount_of_store;
static struct err err;
static bool has_own_mounts; /* can this test mount? */

static int open_folder(const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", unit_folder, name);
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);

	ck_assert_msg(fd >= 0, "%s: %s", path, strerrordesc_np(errno));
	return fd;
}

static void make_folder(const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", unit_folder, name);

	ck_assert(mkdir(path, 0755) == 0 || errno == EEXIST);
}

static void mount_at(const char *what, const char *name, const char *type, unsigned long flags)
{
	AUTO_FREE char *from = xasprintf("%s/%s", unit_folder, what);
	AUTO_FREE char *at = xasprintf("%s/%s", unit_folder, name);

	ck_assert_msg(mount(from, at, type, flags, NULL) == 0, "%s: %s", at, strerrordesc_np(errno));
}

/* A mount namespace for this test's process, which had better come before the store is opened. Mounts go with
 * it. */
static bool enter_own_mounts(void)
{
	return geteuid() == 0 && unshare(CLONE_NEWNS) == 0 &&
	       mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0;
}

/* The store's folder, perhaps by a mount of its own. */
static void open_store(const char *name)
{
	AUTO_FREE char *path = xasprintf("%s/%s", unit_folder, name);

	ck_assert_int_eq(chmod(unit_folder, 0755), 0);
	store = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_ge(store, 0);
	mount_of_store = mount_open(store, &err);
	ck_assert_ptr_nonnull(mount_of_store);
}

static void setup(const char *name)
{
	has_own_mounts = enter_own_mounts();
	make_folder("store");
	make_folder("out");
	make_folder("out/in it");
	make_folder("bound");
	open_store(name);
}

/* The same with `out` at `bound`, too. Return: can this test mount? */
static bool setup_bound(void)
{
	setup("store");
	if (has_own_mounts)
		mount_at("out", "bound", NULL, MS_BIND);
	return has_own_mounts;
}

static void teardown(void)
{
	mount_free(mount_of_store);
	(void)close(store);
}

static struct statx look(int fd)
{
	struct statx st;

	ck_assert_int_eq(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &st), 0);
	return st;
}

/* Where mount_enter() says that it is; and when that is the store's mount, that it is so, and the same
 * folder.
 */
static enum mount_place enter(int folder)
{
	struct statx before = look(folder), after, own = look(store);
	enum mount_place place = mount_enter(mount_of_store, &folder);

	after = look(folder);
	ck_assert_uint_eq(after.stx_ino, before.stx_ino);
	ck_assert_uint_eq(after.stx_dev_minor, before.stx_dev_minor);
	ck_assert_int_eq(after.stx_mnt_id == own.stx_mnt_id, place == MOUNT_OWN);
	if (place != MOUNT_OWN)
		ck_assert_uint_eq(after.stx_mnt_id, before.stx_mnt_id);
	(void)close(folder);
	return place;
}

/* The same without the right to use file handles. */
static enum mount_place enter_as_nobody(int folder)
{
	enum mount_place place;

	ck_assert_int_eq(seteuid(NOBODY), 0);
	ck_assert_int_eq(prctl(PR_SET_DUMPABLE, 1), 0); /* or /proc/self/fd would be root's */
	place = enter(folder);
	ck_assert_int_eq(seteuid(0), 0);
	return place;
}

START_TEST(a_folder_on_the_stores_mount_is_left_as_it_is)
{
	int folder, same;

	setup("store");
	same = folder = open_folder("out/in it");
	ck_assert_int_eq(mount_enter(mount_of_store, &folder), MOUNT_OWN);
	ck_assert_int_eq(folder, same);
	(void)close(folder);
	teardown();
}
END_TEST

START_TEST(a_folder_of_another_file_system_is_left_as_it_is)
{
	int folder, same;

	setup("store");
	same = folder = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	ck_assert_int_eq(mount_enter(mount_of_store, &folder), MOUNT_AWAY);
	ck_assert_int_eq(folder, same);
	(void)close(folder);
	teardown();
}
END_TEST

START_TEST(a_bind_mount_is_left_for_the_stores_own_mount)
{
	if (setup_bound()) {
		ck_assert_int_eq(enter(open_folder("bound")), MOUNT_OWN);
		ck_assert_int_eq(enter(open_folder("bound/in it")), MOUNT_OWN);
	}
	teardown();
}
END_TEST

START_TEST(without_handles_the_folder_is_found_by_its_path_in_the_file_system)
{
	if (setup_bound()) {
		make_folder("odd \\ na\nme\t#");
		mount_at("out/in it", "odd \\ na\nme\t#", NULL, MS_BIND);
		ck_assert_int_eq(enter_as_nobody(open_folder("bound")), MOUNT_OWN);
		ck_assert_int_eq(enter_as_nobody(open_folder("bound/in it")), MOUNT_OWN);
		ck_assert_int_eq(enter_as_nobody(open_folder("odd \\ na\nme\t#")), MOUNT_OWN);
	}
	teardown();
}
END_TEST

START_TEST(without_handles_a_folder_that_the_stores_mount_does_not_reach_stays)
{
	setup("store");
	make_folder("outer");
	teardown();
	if (has_own_mounts) {
		make_folder("store/sub");
		mount_at("store", "outer", NULL, MS_BIND);
		open_store("outer"); /* this mount ends where the store does */
		ck_assert_int_eq(enter_as_nobody(open_folder("outer/sub")), MOUNT_OWN);
		ck_assert_int_eq(enter_as_nobody(open_folder("store/sub")), MOUNT_OWN);
		ck_assert_int_eq(enter_as_nobody(open_folder("store")), MOUNT_OWN);
		ck_assert_int_eq(enter_as_nobody(open_folder("out")), MOUNT_OTHER);
		teardown();
		open_store("outer"); /* of one who may use handles */
		ck_assert_int_eq(enter(open_folder("out")), MOUNT_OWN);
		teardown();
	}
}
END_TEST

START_TEST(a_read_only_mount_is_not_left)
{
	if (setup_bound()) {
		mount_at("out", "bound", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY);
		ck_assert_int_eq(enter(open_folder("bound/in it")), MOUNT_OTHER);
		ck_assert_int_eq(enter_as_nobody(open_folder("bound/in it")), MOUNT_OTHER);
	}
	teardown();
}
END_TEST

START_TEST(what_a_folders_path_leads_to_by_now_is_not_taken_for_it)
{
	if (setup_bound()) {
		int folder = open_folder("bound/in it");

		mount_at("out", "bound", "tmpfs", 0);
		make_folder("bound/in it");
		ck_assert_int_eq(enter_as_nobody(folder), MOUNT_OTHER);
	}
	teardown();
}
END_TEST

START_TEST(a_folder_that_was_deleted_stays)
{
	if (setup_bound()) {
		AUTO_FREE char *path = xasprintf("%s/out/gone", unit_folder);
		int folder;

		make_folder("out/gone");
		folder = open_folder("bound/gone");
		ck_assert_int_eq(rmdir(path), 0);
		ck_assert_int_eq(enter_as_nobody(folder), MOUNT_OTHER);
	}
	teardown();
}
END_TEST

static bool map_ids(pid_t pid, const char *which)
{
	static const char map[] = "0 1000 1000";
	AUTO_FREE char *path = xasprintf("/proc/%d/%s", (int)pid, which);
	AUTO_CLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	return write(fd, map, strlen(map)) == (ssize_t)strlen(map);
}

/* A descriptor of a user namespace in which the user 0 is 1000 here; -1 where none can be. */
static int open_user_namespace(void)
{
	AUTO_FREE char *path = NULL;
	int ready[2], end[2], fd = -1;
	char byte;
	pid_t pid;

	if (pipe(ready) < 0 || pipe(end) < 0 || (pid = fork()) < 0)
		return -1;
	if (pid == 0) {
		(void)close(end[1]);
		byte = unshare(CLONE_NEWUSER) == 0 ? 'y' : 'n';
		if (write(ready[1], &byte, 1) == 1)
			(void)!read(end[0], &byte, 1);
		_exit(0);
	}
	path = xasprintf("/proc/%d/ns/user", (int)pid);
	ck_assert_int_eq(read(ready[0], &byte, 1), 1);
	if (byte == 'y' && map_ids(pid, "uid_map") && map_ids(pid, "gid_map"))
		fd = open(path, O_RDONLY | O_CLOEXEC);
	(void)close(end[1]);
	(void)waitpid(pid, NULL, 0);
	return fd;
}

/* Bind `out` to `bound`, idmapped. Return: can this kernel and file system do that? */
static bool mount_idmapped(void)
{
	AUTO_FREE char *from = xasprintf("%s/out", unit_folder), *to = xasprintf("%s/bound", unit_folder);
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP };
	int user_ns = open_user_namespace();
	int tree = (int)syscall(SYS_open_tree, AT_FDCWD, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	bool done;

	attr.userns_fd = (uint64_t)(unsigned)user_ns;
	done = user_ns >= 0 && tree >= 0 &&
	       syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) == 0 &&
	       syscall(SYS_move_mount, tree, "", AT_FDCWD, to, MOVE_MOUNT_F_EMPTY_PATH) == 0;
	(void)close(tree);
	(void)close(user_ns);
	return done;
}

START_TEST(a_mount_that_shows_other_owners_is_not_left)
{
	setup("store");
	if (has_own_mounts && mount_idmapped()) {
		int folder = open_folder("bound");

		ck_assert_uint_ne(look(folder).stx_uid, 0);
		ck_assert_int_eq(enter(folder), MOUNT_OTHER);
	}
	teardown();
}
END_TEST

UNIT_MAIN("mount", a_folder_on_the_stores_mount_is_left_as_it_is,
	  a_folder_of_another_file_system_is_left_as_it_is, a_bind_mount_is_left_for_the_stores_own_mount,
	  without_handles_the_folder_is_found_by_its_path_in_the_file_system,
	  without_handles_a_folder_that_the_stores_mount_does_not_reach_stays, a_read_only_mount_is_not_left,
	  what_a_folders_path_leads_to_by_now_is_not_taken_for_it, a_folder_that_was_deleted_stays,
	  a_mount_that_shows_other_owners_is_not_left)
