/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users: what the clients of each user take of the daemon together, so that none of them takes all.
 *
 * An account is there as long as somebody refers to it: a connection, a request that outlives it. So the list
 * is as long as there are users with connections. Loop only.
 */
#ifndef DIRCACHE_DAEMON_USERS_H
#define DIRCACHE_DAEMON_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/list.h"

/* What one user may have at a time. */
struct user_limits {
	uint64_t connections, requests;
	uint64_t fds; /* received and not closed; in options 0: half of those for all clients */
	uint64_t tags, leases;
};

struct users {
	struct list all;
	struct user_limits limits;
};

struct user {
	const struct users *users;
	struct list link;
	uid_t uid;
	size_t refs;
	size_t n_connections, n_requests, n_fds;
	size_t n_large; /* messages in large buffers: see inbox.h */
	size_t unsent;  /* bytes of answers that its clients did not take */
};

void users_init(struct users *users, const struct user_limits *limits);

/* A reference to a user's account. */
struct user *users_get(struct users *users, uid_t uid);
struct user *user_ref(struct user *user);
void user_put(struct user *user);

/* May it have one more? Return: 0, or a negative errno (ERR_RESOURCE_EXHAUSTED). */
int user_check_connections(const struct user *user, struct err *err);

/* May it have as many as it has with the one that just came? Return: the same. */
int user_check_requests(const struct user *user, struct err *err);

/* May it have more descriptors? If not, its connections are not read until some are closed. */
static inline bool user_may_receive_fds(const struct user *user)
{
	return user->n_fds < user->users->limits.fds;
}

#endif
