/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Deleting a directory tree, through descriptors.
 *
 * No symlink is followed, no mount is crossed, and no inode's mode is changed but that of directories in the
 * tree that do not let their owner in: files in it may be links to blobs. Depth is not bounded by
 * descriptors: what lies too deep is first renamed to the top. Worker only.
 */
#ifndef DIRCACHE_DAEMON_RMTREE_H
#define DIRCACHE_DAEMON_RMTREE_H

#include "common/err.h"

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

#endif
