/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/target.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/directory.h"
#include "common/log.h"
#include "daemon/disk.h"
#include "daemon/rmtree.h"

int target_init(struct target *target, struct staging *staging, int folder, const char *name, size_t len,
		struct err *err)
{
	*target = (struct target){ .staging = staging, .folder = folder };
	if (!directory_name_is_valid(name, len))
		return err_set(err, ERR_INVALID_ARGUMENT, "'%.*s' cannot be the name of a target",
			       len > NAME_MAX ? NAME_MAX : (int)len, name);
	memcpy(target->name, name, len);
	return 0;
}

static int refuse(const struct target *target, const char *what, struct err *err)
{
	err_set(err, ERR_FAILED_PRECONDITION, "the target '%s' exists%s", target->name, what);
	return -EEXIST;
}

/* Return: 1 (empty), 0, or a negative errno. */
static int directory_is_empty(int folder, const char *name)
{
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
	int r = 0, fd = disk_openat(folder, name, flags, 0);
	struct dirent *entry;
	DIR *dir;

	if (fd < 0)
		return fd;
	dir = disk_fdopendir(fd, &r);
	if (!dir)
		return r;
	entry = disk_readdir(dir, &r);
	disk_closedir(dir);
	return r < 0 ? r : !entry;
}

int target_check(struct target *target, struct err *err)
{
	struct statx st;
	int r = disk_statx(target->folder, target->name, AT_SYMLINK_NOFOLLOW, STATX_TYPE, &st);

	if (r == -ENOENT) /* a file may be linked without staging_begin() */
		return target->is_file ? staging_check_folder(target->staging, target->folder, err) : 0;
	if (r < 0)
		return err_errno(err, r, "looking at the target '%s'", target->name);
	if (target->is_file)
		return refuse(target, "", err);
	if (!S_ISDIR(st.stx_mode))
		return refuse(target, " and is no directory", err);
	if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return refuse(target, " and is a mount point", err);
	r = directory_is_empty(target->folder, target->name);
	if (r < 0)
		return err_errno(err, r, "reading the target '%s'", target->name);
	target->was_empty_directory = r == 1;
	return r ? 0 : refuse(target, " and is not empty", err);
}

int target_begin(struct target *target, struct err *err)
{
	int r = staging_begin(target->staging, target->folder, NULL, target->hidden, err);

	if (r < 0)
		return r;
	target->begun = true;
	target->shared = r == STAGING_SHARED;
	return 0;
}

int target_made(struct target *target, int fd, mode_t *mode, struct err *err)
{
	struct rmtree_inode inode;
	struct statx st;
	int r = disk_statx(fd, "", AT_EMPTY_PATH, RMTREE_LOOK | STATX_TYPE | STATX_MODE, &st);

	if (r == 0 && target->shared)
		r = directory_is_empty(fd, ".");
	else if (r == 0)
		r = 1;
	if (r < 0)
		return err_errno(err, r, "looking at what was made beside the target '%s'", target->name);
	if (r == 0)
		return err_set(
			err, ERR_FAILED_PRECONDITION,
			"beside the target '%s' something else took the place of the directory made there",
			target->name);
	inode = rmtree_inode_of(&st);
	if (target->shared && (r = staging_made(target->staging, target->hidden, &inode, err)) < 0)
		return r;
	target->made = inode;
	*mode = st.stx_mode;
	return 0;
}

static int rename_into_place(const struct target *target)
{
	int r;

	if (target->was_empty_directory)
		return disk_renameat2(target->folder, target->hidden, target->folder, target->name, 0);
	r = disk_renameat2(target->folder, target->hidden, target->folder, target->name, RENAME_NOREPLACE);
	/* A file system without that flag: rename(2) of a directory still replaces nothing but an empty one.
	 */
	if (r == -EINVAL && !target->is_file)
		r = disk_renameat2(target->folder, target->hidden, target->folder, target->name, 0);
	return r;
}

int target_commit(struct target *target, struct err *err)
{
	int r = rename_into_place(target);

	if (r == -EEXIST || r == -ENOTEMPTY || r == -ENOTDIR)
		return refuse(target, ": it appeared while this was made", err);
	if (r < 0)
		return err_errno(err, r, "renaming what was made to '%s'", target->name);
	staging_end(target->staging, target->hidden);
	target->begun = false;
	return 0;
}

void target_abort(struct target *target)
{
	struct err err = { 0 };
	struct stat st;
	int r = 0;

	if (!target->begun)
		return;
	target->begun = false;
	/* A look first: a file system that is read-only refuses to delete even what is not there. */
	if (disk_fstatat(target->folder, target->hidden, &st, AT_SYMLINK_NOFOLLOW) != -ENOENT)
		r = rmtree_known(target->folder, target->hidden, &target->made, &err);
	if (r < 0)
		log_warning("taking back the target '%s': %s%s", target->name, err.text,
			    r == -ESTALE ? "" : "; the next start tries again");
	if (r == 0 || r == -ESTALE)
		staging_end(target->staging, target->hidden);
}
