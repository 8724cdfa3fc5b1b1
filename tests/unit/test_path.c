/* SPDX-License-Identifier: Apache-2.0 */
#include "common/path.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/unit/unit.h"

enum { SOMEBODY = 12345, SOMEBODY_ELSE = 1 << 30 }; /* users that no machine needs to have */

/* Tests that are about users run as root, which can be anybody, and pass over their claim otherwise. */
static bool become(uid_t uid)
{
	return geteuid() == 0 && setresgid(uid, uid, uid) == 0 && setresuid(uid, uid, uid) == 0;
}

static void clear_settings(void)
{
	static const char *const names[] = { "DIRCACHE_STORE", "DIRCACHE_SOCKET", "XDG_CACHE_HOME",
					     "XDG_RUNTIME_DIR", "XDG_STATE_HOME" };

	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		unsetenv(names[i]);
	setenv("HOME", "/home/me", 1);
}

#define ck_path(call, expected)                                                                              \
	do {                                                                                                 \
		AUTO_FREE char *path_ = (call);                                                              \
		ck_assert_str_eq(path_, (expected));                                                         \
	} while (0)

static mode_t mode_of(const char *path)
{
	struct stat st;

	ck_assert_int_eq(lstat(path, &st), 0);
	return st.st_mode & 07777;
}

START_TEST(the_environment_comes_first)
{
	clear_settings();
	setenv("DIRCACHE_STORE", "rel/store", 1);
	setenv("DIRCACHE_SOCKET", "/s", 1);
	ck_path(path_default_store(), "rel/store");
	ck_path(path_default_socket(), "/s");
}
END_TEST

START_TEST(root_has_places_of_the_system)
{
	if (geteuid() != 0)
		return;
	clear_settings();
	setenv("DIRCACHE_STORE", "", 1); /* empty is as good as unset */
	setenv("XDG_CACHE_HOME", "/xdg", 1);
	setenv("XDG_RUNTIME_DIR", "/xdg", 1);
	ck_path(path_default_store(), "/var/cache/dircache");
	ck_path(path_default_socket(), "/run/dircache/socket");
	ck_path(path_default_log(), "/home/me/.local/state/dircache/log");
}
END_TEST

START_TEST(users_have_places_of_the_xdg_specification)
{
	AUTO_FREE char *fallback = NULL;

	if (geteuid() == 0 && !become(SOMEBODY))
		return;
	clear_settings();
	fallback = xasprintf("/tmp/dircache-%u/socket", (unsigned)geteuid());
	ck_path(path_default_store(), "/home/me/.cache/dircache");
	ck_path(path_default_socket(), fallback);
	ck_path(path_default_log(), "/home/me/.local/state/dircache/log");
	setenv("XDG_CACHE_HOME", "/c", 1);
	setenv("XDG_RUNTIME_DIR", "/r", 1);
	setenv("XDG_STATE_HOME", "/s", 1);
	ck_path(path_default_store(), "/c/dircache");
	ck_path(path_default_socket(), "/r/dircache/socket");
	ck_path(path_default_log(), "/s/dircache/log");
	setenv("XDG_CACHE_HOME", "relative", 1);
	setenv("XDG_RUNTIME_DIR", "relative", 1);
	ck_path(path_default_store(), "/home/me/.cache/dircache");
	ck_path(path_default_socket(), fallback);
}
END_TEST

START_TEST(without_home_the_password_database_is_asked)
{
	AUTO_FREE char *path = NULL;

	clear_settings();
	unsetenv("HOME");
	path = path_default_log();
	ck_assert(path[0] == '/');
	ck_assert(strstr(path, "/.local/state/dircache/log"));
}
END_TEST

START_TEST(missing_folders_are_made_with_their_mode_whatever_the_umask)
{
	AUTO_FREE char *a = xasprintf("%s/a", unit_folder);
	AUTO_FREE char *b = xasprintf("%s/a//b/", unit_folder);
	struct err err = { 0 };

	umask(0277);
	ck_assert_int_eq(path_make_folders(b, 0711, &err), 0);
	ck_assert_int_eq(mode_of(a), 0711);
	ck_assert_int_eq(mode_of(b), 0711);
	ck_assert_int_eq(chmod(a, 0700), 0);
	ck_assert_int_eq(path_make_folders(b, 0755, &err), 0); /* what exists stays */
	ck_assert_int_eq(mode_of(a), 0700);
	ck_assert_int_eq(mode_of(b), 0711);
	ck_assert(!err.set);
}
END_TEST

START_TEST(a_file_in_the_way_is_named)
{
	AUTO_FREE char *file = xasprintf("%s/file", unit_folder);
	AUTO_FREE char *below = xasprintf("%s/file/below", unit_folder);
	AUTO_CLOSE int fd = open(file, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	struct err err = { 0 };

	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(path_make_folders(file, 0700, &err), -ENOTDIR);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, file);
	err_clear(&err);
	ck_assert_int_eq(path_make_folders(below, 0700, &err), -ENOTDIR);
	unit_ck_err(&err, ERR_FAILED_PRECONDITION, file);
	err_clear(&err);
	ck_assert_int_lt(path_make_folders("", 0700, &err), 0);
}
END_TEST

/*
 * The default folder of a user without XDG_RUNTIME_DIR. Only root can be a user that has none of his own
 * there; each test is a process and a user of its own, so that it need not change back, and minds no other
 * that runs at the same time.
 */
static char default_folder[64], default_socket[80];

static void remove_default_folder(void)
{
	if (seteuid(0) < 0)
		return;
	(void)unlink(default_folder);
	(void)rmdir(default_folder);
}

static uid_t somebody_else(void)
{
	return SOMEBODY_ELSE + (uid_t)getpid();
}

/* Return: are we the user whose folder that is? */
static bool become_somebody(void)
{
	if (geteuid() != 0)
		return false;
	(void)snprintf(default_folder, sizeof(default_folder), "/tmp/dircache-%u", somebody_else());
	(void)snprintf(default_socket, sizeof(default_socket), "%s/socket", default_folder);
	(void)atexit(remove_default_folder);
	remove_default_folder();
	return seteuid(somebody_else()) == 0;
}

START_TEST(the_default_socket_folder_below_tmp_is_made_private)
{
	struct err err = { 0 };

	if (!become_somebody())
		return;
	umask(0);
	ck_assert_int_eq(path_make_socket_folder(default_socket, &err), 0);
	ck_assert_int_eq(mode_of(default_folder), 0700);
	ck_assert_int_eq(path_make_socket_folder(default_socket, &err), 0); /* found is as good */
}
END_TEST

START_TEST(the_default_socket_folder_below_tmp_is_refused_when_it_is_open)
{
	struct err err = { 0 };

	if (!become_somebody())
		return;
	ck_assert_int_eq(mkdir(default_folder, 0700), 0);
	ck_assert_int_eq(chmod(default_folder, 0755), 0);
	ck_assert_int_eq(path_make_socket_folder(default_socket, &err), -EPERM);
	unit_ck_err(&err, ERR_PERMISSION_DENIED, "755");
}
END_TEST

START_TEST(the_default_socket_folder_below_tmp_is_refused_when_it_is_another_users)
{
	struct err err = { 0 };

	if (!become_somebody())
		return;
	ck_assert_int_eq(seteuid(0), 0);
	ck_assert_int_eq(mkdir(default_folder, 0700), 0);
	ck_assert_int_eq(seteuid(somebody_else()), 0);
	ck_assert_int_eq(path_make_socket_folder(default_socket, &err), -EPERM);
	unit_ck_err(&err, ERR_PERMISSION_DENIED, "belongs to user 0");
}
END_TEST

START_TEST(a_symlink_in_place_of_the_default_socket_folder_is_refused)
{
	struct err err = { 0 };

	if (!become_somebody())
		return;
	ck_assert_int_eq(symlink("/", default_folder), 0);
	ck_assert_int_eq(path_make_socket_folder(default_socket, &err), -EPERM);
	unit_ck_err(&err, ERR_PERMISSION_DENIED, "not a directory");
}
END_TEST

START_TEST(a_socket_folder_that_somebody_chose_may_be_open)
{
	AUTO_FREE char *socket = xasprintf("%s/socket", unit_folder);
	struct err err = { 0 };

	ck_assert_int_eq(chmod(unit_folder, 0755), 0);
	ck_assert_int_eq(path_make_socket_folder(socket, &err), 0);
	ck_assert_int_eq(chmod(unit_folder, 0700), 0);
}
END_TEST

START_TEST(a_socket_folder_elsewhere_is_made_for_all)
{
	AUTO_FREE char *folder = xasprintf("/var%s", unit_folder); /* /var/tmp/... */
	AUTO_FREE char *socket = xasprintf("%s/socket", folder);
	struct err err = { 0 };
	mode_t mode;

	if (access("/var/tmp", W_OK) < 0)
		return;
	umask(077);
	ck_assert_int_eq(path_make_socket_folder(socket, &err), 0);
	mode = mode_of(folder);
	ck_assert_int_eq(rmdir(folder), 0);
	ck_assert_int_eq(mode, 0755);
}
END_TEST

START_TEST(a_socket_in_the_current_folder_needs_none)
{
	ck_assert_int_eq(path_make_socket_folder("socket", NULL), 0);
	ck_assert_int_eq(path_make_socket_folder("/socket", NULL), 0);
}
END_TEST

UNIT_MAIN("path", the_environment_comes_first, root_has_places_of_the_system,
	  users_have_places_of_the_xdg_specification, without_home_the_password_database_is_asked,
	  missing_folders_are_made_with_their_mode_whatever_the_umask, a_file_in_the_way_is_named,
	  the_default_socket_folder_below_tmp_is_made_private,
	  the_default_socket_folder_below_tmp_is_refused_when_it_is_open,
	  the_default_socket_folder_below_tmp_is_refused_when_it_is_another_users,
	  a_symlink_in_place_of_the_default_socket_folder_is_refused,
	  a_socket_folder_that_somebody_chose_may_be_open, a_socket_folder_elsewhere_is_made_for_all,
	  a_socket_in_the_current_folder_needs_none)
