/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Users: what the clients of each user take of the daemon together, so that none of them takes all.
 *
 * An account is there as long as somebody refers to it: a connection, a request that outlives it. So the list
 * is as long as there are users with connections.
 *
 * Time is shared, too. What users wait for goes by turns (turns.h): connections to be served, slices of long
 * work, jobs, and what they have done. And a user for whom the loop worked a quarter of the last millisecond
 * is *tired*: while anybody else is there, what comes through his connections waits for a turn, and what
 * comes from others does not. Loop only.
 */
#ifndef DIRCACHE_DAEMON_USERS_H
#define DIRCACHE_DAEMON_USERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "common/list.h"
#include "daemon/pool.h"
#include "daemon/turns.h"

/* What one user may have at a time. */
struct user_limits {
	uint64_t connections, requests;
	uint64_t fds; /* received and not closed; in options 0: half of those for all clients */
	uint64_t tags, leases;
	uint64_t workers; /* with its jobs; 0: all */
};

struct user;

struct users {
	struct list all;
	struct user_limits limits;
	struct pool *pool;
	void (*relieved)(struct user *user); /* it has room again: see user_give_bytes() */
};

enum { USER_BYTES_MAX = 64 << 20 };
enum { USER_WINDOW_NS = 1000000, USER_SHARE_NS = 250000 };

struct user {
	const struct users *users;
	struct list link;
	uid_t uid;
	size_t refs;
	size_t n_connections, n_requests, n_fds;
	size_t n_large;     /* messages in large buffers: see inbox.h */
	size_t n_given_fds; /* of answers, promised or not known to have been taken; of removals that go on */
	size_t n_puts, n_put_entries; /* of puts that have begun */
	size_t bytes;                 /* of requests that are open, and of answers not taken */
	bool is_full;                 /* bytes reached the limit, and did not fall to half of it since */

	struct list starved; /* connections that wait until it, or everybody, has less of all that */

	struct taker conns, slices;  /* what it waits for a turn with, on the loop */
	struct pool_user *workers;   /* the same on workers */
	struct pool_queue *chores;   /* jobs that are no request's */
	uint64_t window_ns, busy_ns; /* private: since when its time is counted, and how much it had */
};

/* The jobs of users run in this pool. */
void users_init(struct users *users, const struct user_limits *limits, struct pool *pool);

/* A reference to a user's account. */
struct user *users_get(struct users *users, uid_t uid);
struct user *user_ref(struct user *user);
void user_put(struct user *user);

/* May it have one more? Return: 0, or a negative errno (ERR_RESOURCE_EXHAUSTED). */
int user_check_connections(const struct user *user, struct err *err);

/* May it have as many as it has with the one that just came? Return: the same. */
int user_check_requests(const struct user *user, struct err *err);

/*
 * Memory is taken for it, and given back. Who is full is served no further until half of it is given back.
 * When a user has room again relieved() is called, if anybody has set it.
 */
void user_take_bytes(struct user *user, size_t n);
void user_give_bytes(struct user *user, size_t n);

/* The same for descriptors that its clients are given: each is counted from its promise until it is taken. */
void user_promise_fd(struct user *user);
void user_settle_fds(struct user *user, size_t n);

/* The loop worked for it from then until now. */
void user_charge(struct user *user, uint64_t began_ns, uint64_t now_ns);

/* Has what comes through its connections now to wait for a turn? */
bool user_must_wait(const struct user *user, uint64_t now_ns);

/* Close a client's descriptors on a worker: one on a hung file system must not hang the loop. Takes them
 * over. */
void user_close_fds(struct user *user, const int *fds, size_t n);

/* May it have more descriptors? If not, its connections are not read until some are closed. */
static inline bool user_may_receive_fds(const struct user *user)
{
	return user->n_fds < user->users->limits.fds;
}

/* May anything more begin that it asked for? If not, it waits until answers are taken. */
bool user_has_room(const struct user *user);

#endif
