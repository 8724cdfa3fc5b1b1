/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a directory tree, through descriptors.
 *
 * No symlink is followed, no mount is crossed, and no inode's mode is changed but that of directories in the
 * tree that do not let their owner in: files in it may be links to blobs. Depth is not bounded by
 * descriptors: what lies too deep is first renamed to the top. Worker only.
 *
 * Where others may rename things, a name can come to stand for another directory than the one that was made
 * under it, which the client could delete and they could not. So whoever deletes can say which directory it
 * has to be; the descriptor that is compared is the one that is then emptied. What goes by its name alone is
 * a file or an empty directory, and those anybody can delete who could put them there.
 */
#ifndef DIRCACHE_DAEMON_RMTREE_H
#define DIRCACHE_DAEMON_RMTREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/err.h"

/* Which directory: numbers of deleted inodes are used again, so its birth is told too, where there is one. */
struct rmtree_inode {
	uint64_t device, number; /* both 0: not known */
	int64_t born_sec;
	uint32_t born_nsec;
};

enum { RMTREE_LOOK = STATX_INO | STATX_BTIME }; /* what rmtree_inode_of() needs of statx(2) */

struct rmtree_inode rmtree_inode_of(const struct statx *st);

bool rmtree_same_inode(const struct rmtree_inode *a, const struct rmtree_inode *b);

/**
 * Delete what a name stands for, whatever it is. A name that is not there is a success.
 *
 * @dirfd  borrowed
 *
 * Goes on after a failure and deletes what it can; then what is left is tried once more, so that a failure of
 * the moment leaves nothing. Return: 0, or the first negative errno of the second time (-EXDEV: a mount is
 * inside, and was left).
 */
int rmtree(int dirfd, const char *name, struct err *err);

/**
 * The same, but that a directory is left alone unless it is this one or, where that is not known, empty.
 *
 * Return: as rmtree(), or -ESTALE (ERR_FAILED_PRECONDITION): it is another one.
 */
int rmtree_known(int dirfd, const char *name, const struct rmtree_inode *inode, struct err *err);

#endif
