/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/mount.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/alloc.h"
#include "daemon/disk.h"
#include "daemon/identity.h"

enum {
	LOOK_AT = STATX_BASIC_STATS | STATX_MNT_ID,
	MOUNTINFO_MAX = 16 << 20, /* some hundred thousand mounts */
};

struct mount {
	int fd; /* borrowed */
	struct statx self;
	atomic_bool no_handles; /* the daemon may not open by them */
};

struct mount *mount_open(int store_fd, struct err *err)
{
	AUTO(mount) mount = xcalloc(1, sizeof(*mount));
	int r;

	mount->fd = store_fd;
	if ((r = disk_statx(store_fd, "", AT_EMPTY_PATH, LOOK_AT, &mount->self)) < 0) {
		err_errno(err, r, "looking at the store's mount");
		return NULL;
	}
	return TAKE(mount);
}

void mount_free(struct mount *mount)
{
	free(mount);
}

/* ---- looking ---- */

static bool same_device(const struct statx *a, const struct statx *b)
{
	return a->stx_dev_major == b->stx_dev_major && a->stx_dev_minor == b->stx_dev_minor;
}

/* The same inode, shown with the same owners and mode. */
static bool same_folder(const struct statx *a, const struct statx *b)
{
	return same_device(a, b) && a->stx_ino == b->stx_ino && a->stx_uid == b->stx_uid &&
	       a->stx_gid == b->stx_gid && a->stx_mode == b->stx_mode;
}

static bool on_own_mount(const struct mount *mount, const struct statx *st)
{
	return st->stx_mnt_id == mount->self.stx_mnt_id;
}

/* ---- by path ---- */

/* One line of /proc/self/mountinfo, as far as it is of use here. */
struct mountinfo {
	char root[PATH_MAX];  /* of the mount, in its file system */
	char point[PATH_MAX]; /* where it is mounted */
};

/* All of /proc/self/mountinfo, or NULL. */
static char *read_mountinfo(void)
{
	AUTO_CLOSE int fd = disk_openat(AT_FDCWD, "/proc/self/mountinfo", O_RDONLY, 0);
	size_t len = 0, capacity = 64 * 1024;
	AUTO_FREE char *text = xmalloc(capacity);
	ssize_t n;

	if (fd < 0)
		return NULL;
	while ((n = disk_pread(fd, text + len, capacity - 1 - len, (off_t)len)) > 0) {
		len += (size_t)n;
		if (len == MOUNTINFO_MAX - 1)
			return NULL;
		if (len == capacity - 1)
			text = xreallocarray(text, capacity *= 2, 1);
	}
	text[len] = '\0';
	return n < 0 ? NULL : TAKE(text);
}

static bool is_octal(const char *p)
{
	return p[0] >= '0' && p[0] <= '3' && p[1] >= '0' && p[1] <= '7' && p[2] >= '0' && p[2] <= '7';
}

/* A word of mountinfo, in which blanks and backslashes are escaped as \ooo. Return: does it fit? */
static bool unescape(const char *word, size_t len, char out[PATH_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (n == PATH_MAX - 1)
			return false;
		if (word[i] == '\\' && len - i > 3 && is_octal(word + i + 1)) {
			out[n++] = (char)((word[i + 1] - '0') << 6 | (word[i + 2] - '0') << 3 |
					  (word[i + 3] - '0'));
			i += 3;
		} else {
			out[n++] = word[i];
		}
	}
	out[n] = '\0';
	return true;
}

/* `ID PARENT MAJOR:MINOR ROOT POINT ...`: the words 3 and 4 of the line with this id. */
static bool find_mount(const char *text, uint64_t id, struct mountinfo *info)
{
	for (const char *line = text; *line; line += strcspn(line, "\n"), line += *line == '\n') {
		const char *word = line;
		char *end;

		if (strtoull(line, &end, 10) != id || *end != ' ')
			continue;
		for (unsigned i = 0; i < 3; i++) {
			word += strcspn(word, " \n");
			word += *word == ' ';
		}
		if (!unescape(word, strcspn(word, " \n"), info->root))
			return false;
		word += strcspn(word, " \n");
		word += *word == ' ';
		return unescape(word, strcspn(word, " \n"), info->point) && info->root[0] == '/' &&
		       info->point[0] == '/';
	}
	return false;
}

/* What follows a folder's path in a path: empty or with a slash in front; NULL if it is not below. */
static const char *below(const char *folder, const char *path)
{
	size_t len = strlen(folder);

	if (len == 1) /* "/" */
		return path[1] ? path : "";
	return strncmp(path, folder, len) == 0 && (!path[len] || path[len] == '/') ? path + len : NULL;
}

/* Join a folder's path and what below() returned. Return: does it fit? */
static bool join(char out[PATH_MAX], const char *folder, const char *rest)
{
	const char *parent = folder[1] || !*rest ? folder : "";

	return snprintf(out, PATH_MAX, "%s%s", parent, rest) < PATH_MAX;
}

/* The path on the store's own mount, of a path on another mount of the same file system. */
static bool translate(const struct mount *mount, uint64_t from_id, const char *path, char out[PATH_MAX])
{
	AUTO_FREE char *text = read_mountinfo();
	AUTO_FREE struct mountinfo *from = xmalloc(sizeof(*from)), *own = xmalloc(sizeof(*own));
	char inside[PATH_MAX];
	const char *rest;

	if (!text || !find_mount(text, from_id, from) || !find_mount(text, mount->self.stx_mnt_id, own))
		return false;
	rest = below(from->point, path);
	if (!rest || !join(inside, from->root, rest))
		return false;
	rest = below(own->root, inside);
	return rest && join(out, own->point, rest);
}

/* Open a path if it leads to the same folder. Return: a descriptor, with *st, or a negative errno. */
static int open_same(const char *path, const struct statx *folder, struct statx *st)
{
	AUTO_CLOSE int fd = disk_openat(AT_FDCWD, path, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
	int r = fd < 0 ? fd : disk_statx(fd, "", AT_EMPTY_PATH, LOOK_AT, st);

	if (r < 0)
		return r;
	return same_folder(st, folder) ? TAKE_FD(fd) : -ESTALE;
}

static int open_by_path(const struct mount *mount, int folder, const struct statx *client, struct statx *st)
{
	char path[PATH_MAX], own_path[PATH_MAX];
	int fd, r = disk_fd_path(folder, path, sizeof(path));

	if (r < 0)
		return r;
	fd = open_same(path, client, st);
	if (fd < 0 || on_own_mount(mount, st))
		return fd;
	disk_close(fd); /* the daemon sees that other mount too, and so where it is in the file system */
	return translate(mount, st->stx_mnt_id, path, own_path) ? open_same(own_path, client, st) : -EXDEV;
}

/* ---- by handle ---- */

static int open_by_handle(struct mount *mount, int folder, const struct statx *client, struct statx *st)
{
	const struct identity *acting;
	AUTO_CLOSE int fd = -1;
	int r;

	if (atomic_load_explicit(&mount->no_handles, memory_order_relaxed))
		return -EPERM;
	acting = identity_suspend(); /* handles are for the daemon */
	fd = disk_reopen_on(mount->fd, folder, O_PATH | O_DIRECTORY);
	identity_resume(acting);
	if (fd == -EPERM)
		atomic_store_explicit(&mount->no_handles, true, memory_order_relaxed);
	r = fd < 0 ? fd : disk_statx(fd, "", AT_EMPTY_PATH, LOOK_AT, st);
	if (r < 0)
		return r;
	return same_folder(st, client) ? TAKE_FD(fd) : -ESTALE;
}

/* ---- entering ---- */

/* The same folder on the store's own mount. Return: a descriptor, or a negative errno. */
static int open_again(struct mount *mount, int folder, const struct statx *client)
{
	struct statx st;
	AUTO_CLOSE int fd = open_by_handle(mount, folder, client, &st);

	if (fd < 0)
		fd = open_by_path(mount, folder, client, &st);
	if (fd < 0)
		return fd;
	return on_own_mount(mount, &st) ? TAKE_FD(fd) : -EXDEV;
}

enum mount_place mount_enter(struct mount *mount, int *folder)
{
	struct statx st;
	int fd;

	if (disk_statx(*folder, "", AT_EMPTY_PATH, LOOK_AT, &st) < 0 || !same_device(&st, &mount->self))
		return MOUNT_AWAY;
	/* Before Linux 5.8 nobody can tell. */
	if (!(st.stx_mask & STATX_MNT_ID) || on_own_mount(mount, &st))
		return MOUNT_OWN;
	if (disk_is_read_only(*folder) != 0)
		return MOUNT_OTHER;
	fd = open_again(mount, *folder, &st);
	if (fd < 0)
		return MOUNT_OTHER;
	disk_close(*folder);
	*folder = fd;
	return MOUNT_OWN;
}
