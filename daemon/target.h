/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Target: a name in a client's folder under which something appears whole, or not at all.
 *
 * What is made lies under a hidden name in the same folder (staging.h) until target_commit() renames it.
 * The folder is a descriptor throughout: no path is used twice. Any thread; blocks: workers only.
 */
#ifndef DIRCACHE_DAEMON_TARGET_H
#define DIRCACHE_DAEMON_TARGET_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "daemon/staging.h"

struct target {
	struct staging *staging; /* borrowed */
	int folder;              /* borrowed: O_PATH will do */
	char name[NAME_MAX + 1];
	bool is_file; /* a file appears here, not a directory */

	/* Private. */
	bool was_empty_directory; /* it was there, and is replaced */
	bool begun;
	bool shared;              /* others may rename things in the folder */
	struct rmtree_inode made; /* under the hidden name; unknown for a file, and before target_made() */
	char hidden[STAGING_NAME_SIZE];
};

/**
 * Name a target. Blocks on nothing: the loop may.
 *
 * Return: 0, or -EINVAL for a name that is empty, `.`, `..`, too long, or holds `/` or NUL.
 */
int target_init(struct target *target, struct staging *staging, int folder, const char *name, size_t len,
		struct err *err);

/**
 * Refuse what target_commit() would refuse later: anything at the target but, for a directory, an empty one.
 *
 * Return: 0, or a negative errno (-EEXIST, ERR_FAILED_PRECONDITION).
 */
int target_check(struct target *target, struct err *err);

/* Is an empty directory there, as target_check() saw, and to be replaced? */
static inline bool target_replaces(const struct target *target)
{
	return target->was_empty_directory;
}

/* Leave a record and draw the hidden name; the caller makes something under target->hidden. Return: 0 or a
 * negative errno. */
int target_begin(struct target *target, struct err *err);

/**
 * Note which directory was made under the hidden name: that one and no other is deleted by an abort or a
 * sweep.
 *
 * @fd    borrowed: what was opened under that name; nothing is in it yet. O_PATH will do
 * @mode  out: its mode
 *
 * Where others may rename things it may be another directory already: one that is not empty is refused.
 * Return: 0, or a negative errno.
 */
int target_made(struct target *target, int fd, mode_t *mode, struct err *err);

/**
 * Rename what was made to its final name, over an empty directory only if one was there at target_check().
 *
 * Return: 0, or a negative errno; then target_abort() is still due.
 */
int target_commit(struct target *target, struct err *err);

/* Delete what was made so far, and the record. A directory that is another one, and not empty, is left and
 * told of. Harmless after a commit, or before the beginning. */
void target_abort(struct target *target);

#endif
