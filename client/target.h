/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Target: a path that the daemon shall make or take away, as the descriptor of its folder and its last name.
 * The folder is opened here, with the rights and in the mount namespace of the client.
 */
#ifndef DIRCACHE_CLIENT_TARGET_H
#define DIRCACHE_CLIENT_TARGET_H

#include <stddef.h>

#include "common/err.h"
#include "common/wire.h"

struct target {
	int folder;       /* O_PATH */
	const char *name; /* points into the path; not terminated: slashes may follow */
	size_t len;
};

/**
 * Split a path and open the folder.
 *
 * @path    must outlive the target. Slashes at its end are passed over
 * @target  out: target_fini() when done, also after a failure
 *
 * Return: 0, or a negative errno; refused are the root, `.` and `..` as last names.
 */
int target_init(struct target *target, const char *path, struct err *err);
void target_fini(struct target *target);

/* Put the two params `fds` and `name`. */
void target_put(const struct target *target, struct wire_out *out);

#endif
