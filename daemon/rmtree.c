/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/rmtree.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/sysmacros.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "daemon/disk.h"

enum { LEVELS_MAX = 64 }; /* directories open at a time; deeper ones are renamed to the top first */

struct level {
	DIR *dir;
	char name[NAME_MAX + 1]; /* in the level above */
};

struct rmtree {
	struct level levels[LEVELS_MAX];
	size_t n;
	unsigned n_moved;                 /* directories renamed to the top */
	unsigned n_names;                 /* drawn for them */
	const struct rmtree_inode *known; /* what the top has to be, or NULL */
	int r;                            /* the first failure */
	struct err *err;
};

struct rmtree_inode rmtree_inode_of(const struct statx *st)
{
	return (struct rmtree_inode){ .device = makedev(st->stx_dev_major, st->stx_dev_minor),
				      .number = st->stx_ino,
				      .born_sec = st->stx_btime.tv_sec,
				      .born_nsec = st->stx_btime.tv_nsec };
}

bool rmtree_same_inode(const struct rmtree_inode *a, const struct rmtree_inode *b)
{
	return a->device == b->device && a->number == b->number && a->born_sec == b->born_sec &&
	       a->born_nsec == b->born_nsec;
}

static void note(struct rmtree *rm, int r, const char *name)
{
	if (rm->r == 0)
		rm->r = err_errno(rm->err, r, "deleting '%s'", name);
}

static int top_fd(const struct rmtree *rm)
{
	return dirfd(rm->levels[rm->n - 1].dir);
}

/* Open a directory of the tree, which a mode without r, w or x for its owner must not prevent. */
static int open_inside(int fd, const char *name, int flags)
{
	uint64_t resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS;
	int dir;

	flags |= O_DIRECTORY | O_NOFOLLOW;
	dir = disk_openat2(fd, name, flags, 0, resolve);
	if (dir == -ENOSYS)
		dir = disk_openat(fd, name, flags, 0);
	return dir;
}

/* Let the owner into a directory that was closed to it. */
static int let_in(int fd, const char *name)
{
	AUTO_CLOSE int handle = open_inside(fd, name, O_PATH);

	return handle < 0 ? handle : disk_chmod_handle(handle, 0700);
}

static int open_below(int fd, const char *name)
{
	int dir = open_inside(fd, name, O_RDONLY);

	if (dir == -EACCES && (dir = let_in(fd, name)) == 0)
		dir = open_inside(fd, name, O_RDONLY);
	return dir;
}

/* The name is used once: whatever it stands for then is compared, let in and read. */
static int open_top(int fd, const char *name, const struct rmtree_inode *known)
{
	AUTO_CLOSE int handle = open_inside(fd, name, O_PATH);
	struct rmtree_inode inode;
	struct statx st;
	int r = handle < 0 ? handle : disk_statx(handle, "", AT_EMPTY_PATH, RMTREE_LOOK, &st);

	if (r < 0)
		return r;
	inode = rmtree_inode_of(&st);
	return rmtree_same_inode(&inode, known) ? open_below(handle, ".") : -ESTALE;
}

static int enter(struct rmtree *rm, int fd, const char *name)
{
	struct level *level = &rm->levels[rm->n];
	struct stat st;
	int dir = rm->n || !rm->known ? open_below(fd, name) : open_top(fd, name, rm->known);
	int r = 0;

	if (dir < 0)
		return dir;
	if (disk_fstat(dir, &st) == 0 && (st.st_mode & 0700) != 0700)
		(void)disk_fchmod(dir,
				  0700); /* else its entries cannot be unlinked; failing that, they say so */
	level->dir = disk_fdopendir(dir, &r);
	if (!level->dir)
		return r;
	(void)snprintf(level->name, sizeof(level->name), "%s", name);
	rm->n++;
	return 0;
}

/*
 * A directory that is too deep to hold all above it open: rename it to where the deletion began, under a name
 * that nothing there has. That takes the right to write it, for its `..` changes.
 */
static int move_to_top(struct rmtree *rm, const char *name)
{
	int top = dirfd(rm->levels[0].dir), r;

	do {
		char moved[64];

		(void)snprintf(moved, sizeof(moved), ".dircache-deep-%u", rm->n_names++);
		r = disk_renameat2(top_fd(rm), name, top, moved, 0);
		if (r == -EACCES && (r = let_in(top_fd(rm), name)) == 0)
			r = disk_renameat2(top_fd(rm), name, top, moved, 0);
	} while (r == -EEXIST || r == -ENOTEMPTY || r == -ENOTDIR);
	rm->n_moved += r == 0;
	return r;
}

static void remove_entry(struct rmtree *rm, const struct dirent *entry)
{
	int r = entry->d_type == DT_DIR ? -EISDIR : disk_unlinkat(top_fd(rm), entry->d_name, 0);

	if (r == -EISDIR)
		r = rm->n < LEVELS_MAX ? enter(rm, top_fd(rm), entry->d_name)
				       : move_to_top(rm, entry->d_name);
	if (r < 0 && r != -ENOENT)
		note(rm, r, entry->d_name);
}

/* One directory is read to its end: delete it itself, in the one above. */
static void leave(struct rmtree *rm, int root_fd)
{
	struct level *level = &rm->levels[--rm->n];
	int above = rm->n ? top_fd(rm) : root_fd;
	int r;

	disk_closedir(level->dir);
	r = disk_unlinkat(above, level->name, AT_REMOVEDIR);
	if (r < 0 && r != -ENOENT)
		note(rm, r, level->name);
}

/* One pass; directories renamed to the top are for the next. */
static void pass(struct rmtree *rm, int fd)
{
	while (rm->n) {
		int r = 0;
		struct dirent *entry = disk_readdir(rm->levels[rm->n - 1].dir, &r);

		if (entry) {
			remove_entry(rm, entry);
			continue;
		}
		if (r < 0)
			note(rm, r, rm->levels[rm->n - 1].name);
		leave(rm, fd);
	}
}

static int refuse(const char *name, struct err *err)
{
	err_set(err, ERR_FAILED_PRECONDITION,
		"deleting '%s': it is another directory than the one that was there, and is left", name);
	return -ESTALE;
}

static int delete_empty(int fd, const char *name, struct err *err)
{
	int r = disk_unlinkat(fd, name, AT_REMOVEDIR);

	if (r == 0 || r == -ENOENT)
		return 0;
	return r == -ENOTEMPTY || r == -EEXIST ? refuse(name, err) : err_errno(err, r, "deleting '%s'", name);
}

static int delete (int fd, const char *name, const struct rmtree_inode *known, struct err *err)
{
	AUTO_FREE struct rmtree *rm = NULL;
	unsigned n_moved;
	int r = disk_unlinkat(fd, name, 0);

	if (r == 0 || r == -ENOENT)
		return 0;
	if (r != -EISDIR)
		return err_errno(err, r, "deleting '%s'", name);
	if (known && !known->number)
		return delete_empty(fd, name, err);
	rm = xcalloc(1, sizeof(*rm));
	rm->known = known;
	rm->err = err;
	do {
		n_moved = rm->n_moved;
		rm->r = 0;
		err_clear(err);
		r = enter(rm, fd, name);
		if (r == -ENOENT)
			return 0;
		if (r == -ESTALE)
			return refuse(name, err);
		if (r < 0)
			return err_errno(err, r, "deleting '%s'", name);
		pass(rm, fd);
	} while (rm->n_moved != n_moved);
	return rm->r;
}

int rmtree(int fd, const char *name, struct err *err)
{
	return rmtree_known(fd, name, NULL, err);
}

int rmtree_known(int fd, const char *name, const struct rmtree_inode *inode, struct err *err)
{
	struct err first = { 0 };

	return delete (fd, name, inode, &first) == 0 ? 0 : delete (fd, name, inode, err);
}
