/* SPDX-License-Identifier: Apache-2.0 */
#include "common/path.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"

static const char *setting(const char *name)
{
	const char *value = getenv(name);

	return value && *value ? value : NULL;
}

static const char *absolute_setting(const char *name)
{
	const char *value = setting(name);

	return value && *value == '/' ? value : NULL;
}

static char *home_folder(void)
{
	const char *home = absolute_setting("HOME");
	struct passwd entry, *found = NULL;
	char buf[4096];

	if (home)
		return xstrdup(home);
	if (getpwuid_r(geteuid(), &entry, buf, sizeof(buf), &found) == 0 && found && found->pw_dir[0] == '/')
		return xstrdup(found->pw_dir);
	return xstrdup("/");
}

/* name in the folder that an XDG variable names, else in one below the home folder. */
static char *xdg_path(const char *variable, const char *below_home, const char *name)
{
	const char *folder = absolute_setting(variable);
	AUTO_FREE char *home = NULL;

	if (folder)
		return xasprintf("%s/dircache%s", folder, name);
	home = home_folder();
	return xasprintf("%s/%s/dircache%s", strcmp(home, "/") == 0 ? "" : home, below_home, name);
}

char *path_default_store(void)
{
	const char *store = setting("DIRCACHE_STORE");

	if (store)
		return xstrdup(store);
	if (geteuid() == 0)
		return xstrdup("/var/cache/dircache");
	return xdg_path("XDG_CACHE_HOME", ".cache", "");
}

char *path_default_socket(void)
{
	const char *path = setting("DIRCACHE_SOCKET");

	if (path)
		return xstrdup(path);
	if (geteuid() == 0)
		return xstrdup("/run/dircache/socket");
	path = absolute_setting("XDG_RUNTIME_DIR");
	if (path)
		return xasprintf("%s/dircache/socket", path);
	return xasprintf("/tmp/dircache-%u/socket", (unsigned)geteuid());
}

char *path_default_log(void)
{
	return xdg_path("XDG_STATE_HOME", ".local/state", "/log");
}

/* mkdir(2) masks its mode, and the umask belongs to the whole process. */
static int set_mode(const char *path, mode_t mode)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if ((st.st_mode & 0777) != mode && fchmod(fd, mode) < 0)
		return -errno;
	return 0;
}

static int make_folder(const char *path, mode_t mode, struct err *err)
{
	struct stat st;
	int r;

	if (mkdir(path, 0700) == 0) {
		r = set_mode(path, mode);
		return r < 0 ? err_errno(err, r, "setting the mode of '%s'", path) : 0;
	}
	r = -errno;
	/* Whatever mkdir() says (EEXIST, EROFS, EACCES): what is there need not be made. */
	if (stat(path, &st) < 0)
		return err_errno(err, r, "making the folder '%s'", path);
	if (!S_ISDIR(st.st_mode))
		return err_errno(err, -ENOTDIR, "making the folder '%s'", path);
	return 0;
}

int path_make_folders(const char *path, mode_t mode, struct err *err)
{
	AUTO_FREE char *prefix = xstrdup(path);
	int r;

	if (!*path)
		return err_set(err, ERR_INVALID_ARGUMENT, "making a folder: its path is empty");
	for (char *p = prefix + 1; *p; p++) {
		if (*p != '/' || p[-1] == '/')
			continue;
		*p = '\0';
		if ((r = make_folder(prefix, mode, err)) < 0)
			return r;
		*p = '/';
	}
	return make_folder(prefix, mode, err);
}

static int check_private(const char *folder, struct err *err)
{
	struct stat st;

	if (lstat(folder, &st) < 0)
		return err_errno(err, -errno, "looking at '%s'", folder);
	if (!S_ISDIR(st.st_mode))
		return err_set(err, ERR_PERMISSION_DENIED, "'%s' is not a directory", folder);
	if (st.st_uid != geteuid())
		return err_set(err, ERR_PERMISSION_DENIED, "'%s' belongs to user %u, not to %u", folder,
			       (unsigned)st.st_uid, (unsigned)geteuid());
	if (st.st_mode & 0077)
		return err_set(err, ERR_PERMISSION_DENIED,
			       "'%s' is open to others: its mode is %03o, not 700", folder,
			       (unsigned)st.st_mode & 0777);
	return 0;
}

int path_make_socket_folder(const char *socket, struct err *err)
{
	const char *slash = strrchr(socket, '/');
	AUTO_FREE char *folder = NULL;
	AUTO_FREE char *below_tmp = xasprintf("/tmp/dircache-%u", (unsigned)geteuid());
	int r;

	if (!slash || slash == socket)
		return 0; /* in the current folder, or the root: both are there */
	folder = xmemdupz(socket, (size_t)(slash - socket));
	if (strcmp(folder, below_tmp) != 0)
		return path_make_folders(folder, 0755, err);
	/* /tmp is sticky: what is ours there, nobody else can rename or replace; and what is closed, nobody
	 * else can reach into. */
	r = path_make_folders(folder, 0700, err);
	return r < 0 ? r : check_private(folder, err);
}
