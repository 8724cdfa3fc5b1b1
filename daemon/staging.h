/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Staging: hidden names beside targets, and the records by which a restart finds them.
 *
 * What is built or taken away lives under a hidden name (`.dircache-` and 24 hexadecimal digits) in the
 * target's own folder while that goes on. Before the name is made, a record of it is left in STORE/staging,
 * unsynced; it is removed when the name is gone again. After a killed daemon the records say what to delete:
 *
 *     dircache-staging 1\n  UID\n  DEVICE INODE\n  HIDDEN NAME\n  FOLDER'S PATH
 *
 * The folder is opened again by its path, without following a symlink at its end, and only if device and
 * inode are still those recorded is the hidden name in it deleted. Names carry a number drawn at start, so a
 * sweep knows those of earlier processes from those in use.
 *
 * Any thread; blocks: workers only.
 */
#ifndef DIRCACHE_DAEMON_STAGING_H
#define DIRCACHE_DAEMON_STAGING_H

#include <stddef.h>

#include "common/auto.h"
#include "common/err.h"

enum { STAGING_NAME_SIZE = 10 + 24 + 1 }; /* of a hidden name, with its NUL */

struct staging;

/* store_fd: borrowed for good, a descriptor of STORE, in which staging/ (0700) is made. */
struct staging *staging_open(int store_fd, struct err *err);
void staging_free(struct staging *staging);
DEFINE_AUTO(staging);

/**
 * Draw a hidden name for a folder, and leave a record of it.
 *
 * @folder  borrowed; O_PATH will do
 * @hidden  out: nothing of that name was made yet
 */
int staging_begin(struct staging *staging, int folder, char hidden[STAGING_NAME_SIZE], struct err *err);

/* The hidden name is gone: so is its record. */
void staging_end(struct staging *staging, const char *hidden);

/**
 * Delete what earlier processes left, and their records. Records of folders that cannot be reached now are
 * kept for the next start.
 *
 * @n_deleted  out: hidden names that were found and deleted
 *
 * Return: 0, or the first negative errno; the others were tried all the same.
 */
int staging_sweep(struct staging *staging, size_t *n_deleted, struct err *err);

#endif
