/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Staging: hidden names beside targets, and the records by which a restart finds them.
 *
 * What is built or taken away lives under a hidden name (`.dircache-` and 24 hexadecimal digits) in the
 * target's own folder while that goes on. Before the name is made, a record of it is left in STORE/staging,
 * unsynced; it is cleared when the name is gone again. After a killed daemon the records say what to delete:
 *
 *     dircache-staging 4\n  MADE\n  UID GID GROUP...\n  DEVICE INODE\n  HIDDEN NAME\n  FOLDER'S PATH  NUL
 *
 * The records of one process lie in one file, STORE/staging/NUMBER, in slots of 8 KiB that are used again and
 * again: to write into a file costs a sixth of making one and deleting it. A slot whose first byte is NUL is
 * free. The number is drawn at start and is in the hidden names too, as is the slot, so a sweep knows the
 * records of earlier processes from those in use. A clean stop deletes the file.
 *
 * The first line says as whom the worker acted (identity.h), with at most 256 groups; a sweep acts as the
 * same, and so gets nowhere where that client does not. Records of version 3 have no MADE; those of version 2
 * have a UID alone besides, that of a daemon which acted for nobody: those of the daemon's own user are
 * obeyed, others are kept and told of.
 *
 * Whoever else may rename things in the folder can put another directory of the client's under the hidden
 * name. So there MADE says which directory was made (rmtree.h): device, inode and time of birth, in digits of
 * a fixed number, so that they can be written once it is known, by one call. It is not written where nobody
 * else can rename what is the client's: the folder is the client's or root's, and sticky or writable by its
 * owner alone. In a folder that others may write, when it is swept, a record without it deletes nothing but a
 * file or an empty directory.
 *
 * A sweep opens the folder again by its path, without following a symlink at its end, and only if device and
 * inode are still those recorded is the hidden name in it deleted. A record of which a kill left a part tells
 * of a name that was not made yet.
 *
 * Any thread; blocks: workers only.
 */
#ifndef DIRCACHE_DAEMON_STAGING_H
#define DIRCACHE_DAEMON_STAGING_H

#include <stddef.h>

#include "common/auto.h"
#include "common/err.h"
#include "daemon/rmtree.h"

enum { STAGING_NAME_SIZE = 10 + 24 + 1 }; /* of a hidden name, with its NUL */

enum { STAGING_SHARED = 1 };

struct staging;

/* store_fd: borrowed for good, a descriptor of STORE, in which staging/ (0700) is made. */
struct staging *staging_open(int store_fd, struct err *err);
void staging_free(struct staging *staging);
DEFINE_AUTO(staging);

/**
 * Draw a hidden name for a folder, and leave a record of it.
 *
 * @folder  borrowed; O_PATH will do
 * @inode   of what will be renamed to the hidden name; NULL for what is to be made
 * @hidden  out: nothing of that name was made yet
 *
 * Return: 0, STAGING_SHARED (others may rename things there: staging_made() is due for a directory), or a
 * negative errno: what staging_check_folder() refuses is refused here, too.
 */
int staging_begin(struct staging *staging, int folder, const struct rmtree_inode *inode,
		  char hidden[STAGING_NAME_SIZE], struct err *err);

/* This directory was made under the hidden name, and a sweep deletes no other. Return: 0 or a negative errno.
 */
int staging_made(struct staging *staging, const char *hidden, const struct rmtree_inode *inode,
		 struct err *err);

/* Refuse a folder whose path is the store's or in it: what appeared there would be taken for a blob.
 * Return: 0, or a negative errno (ERR_FAILED_PRECONDITION). */
int staging_check_folder(const struct staging *staging, int folder, struct err *err);

/* The hidden name is gone: clear its record. */
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

/**
 * Call back for each file of records that earlier processes left and that a sweep could not clear.
 *
 * Return: 0, or a negative errno.
 */
int staging_left(struct staging *staging, void (*found)(void *ctx, const char *name), void *ctx,
		 struct err *err);

#endif
