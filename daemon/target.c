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
static int directory_is_empty(const struct target *target)
{
	int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW;
	int r = 0, fd = disk_openat(target->folder, target->name, flags, 0);
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
	r = directory_is_empty(target);
	if (r < 0)
		return err_errno(err, r, "reading the target '%s'", target->name);
	target->was_empty_directory = r == 1;
	return r ? 0 : refuse(target, " and is not empty", err);
}

int target_begin(struct target *target, struct err *err)
{
	int r = staging_begin(target->staging, target->folder, target->hidden, err);

	target->begun = r == 0;
	return r;
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

	if (!target->begun)
		return;
	target->begun = false;
	/* A look first: a file system that is read-only refuses to delete even what is not there. */
	if (disk_fstatat(target->folder, target->hidden, &st, AT_SYMLINK_NOFOLLOW) != -ENOENT &&
	    rmtree(target->folder, target->hidden, &err) < 0) {
		log_warning("taking back the target '%s': %s; the next start tries again", target->name,
			    err.text);
		return;
	}
	staging_end(target->staging, target->hidden);
}
