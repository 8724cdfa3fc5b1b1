/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Place: where in a client's file system, as `materialize` and `remove` are told: the descriptor of a folder
 * and a name in it; or an absolute path, where the daemon serves one user, whose folder a worker opens. Loop
 * only.
 */
#ifndef DIRCACHE_DAEMON_PLACE_H
#define DIRCACHE_DAEMON_PLACE_H

#include "daemon/request.h"

/* The params. Put these fields into the method's own table. */
struct place_params {
	uint64_t fds;
	struct wire_bytes name, path;
};

#define PLACE_FIELDS(owner, member)                                                                          \
	{ .name = "fds", .type = WIRE_UINT, .offset = offsetof(owner, member.fds) },                         \
		{ .name = "name", .type = WIRE_BYTES, .offset = offsetof(owner, member.name) },              \
	{                                                                                                    \
		.name = "path", .type = WIRE_BYTES, .offset = offsetof(owner, member.path)                   \
	}

struct place {
	int folder;             /* O_PATH or as the client opened it */
	struct wire_bytes name; /* points into the request; not checked */
};

/**
 * Get a place.
 *
 * @got  called once, perhaps from within: r is 0 with a place whose folder is the receiver's to close (on a
 *       worker), or a negative errno with err
 */
void place_get(struct request *request, const struct place_params *params,
	       void (*got)(struct request *request, int r, const struct place *place, const struct err *err));

#endif
