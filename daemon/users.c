/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/users.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"

void users_init(struct users *users, const struct user_limits *limits, struct pool *pool)
{
	list_init(&users->all);
	users->limits = *limits;
	users->pool = pool;
	users->relieved = NULL;
}

struct user *users_get(struct users *users, uid_t uid)
{
	struct user *user;

	list_for_each (l, &users->all) {
		user = LIST_ENTRY(l, struct user, link);
		if (user->uid == uid)
			return user_ref(user);
	}
	user = xcalloc(1, sizeof(*user));
	user->users = users;
	user->uid = uid;
	list_init(&user->starved);
	taker_init(&user->conns);
	taker_init(&user->slices);
	user->workers = pool_user_new(users->pool, users->limits.workers);
	user->chores = pool_queue_new_of(user->workers);
	list_init(&user->link);
	list_append(&users->all, &user->link);
	return user_ref(user);
}

struct user *user_ref(struct user *user)
{
	user->refs++;
	return user;
}

void user_put(struct user *user)
{
	if (--user->refs)
		return;
	assert(!taker_waits(&user->conns) && !taker_waits(&user->slices));
	pool_queue_free(user->chores);
	pool_user_put(user->workers);
	list_remove(&user->link);
	free(user);
}

static int check(const struct user *user, size_t n, uint64_t max, const char *what, struct err *err)
{
	if (n < max)
		return 0;
	err_set(err, ERR_RESOURCE_EXHAUSTED, "user %u has %zu %s, and may have no more (max-user-%s)",
		(unsigned)user->uid, n, what, what);
	return -EUSERS;
}

int user_check_connections(const struct user *user, struct err *err)
{
	return check(user, user->n_connections, user->users->limits.connections, "connections", err);
}

int user_check_requests(const struct user *user, struct err *err)
{
	return check(user, user->n_requests - 1, user->users->limits.requests, "requests", err);
}

/* ---- memory ---- */

static void relieve(struct user *user)
{
	if (user_has_room(user) && user->users->relieved)
		user->users->relieved(user);
}

void user_take_bytes(struct user *user, size_t n)
{
	user->bytes += n;
	if (user->bytes >= USER_BYTES_MAX)
		user->is_full = true;
}

void user_give_bytes(struct user *user, size_t n)
{
	assert(n <= user->bytes);
	user->bytes -= n;
	if (!user->is_full || user->bytes > USER_BYTES_MAX / 2)
		return;
	user->is_full = false;
	relieve(user);
}

void user_promise_fd(struct user *user)
{
	user->n_given_fds++;
}

void user_settle_fds(struct user *user, size_t n)
{
	bool had_room = user_has_room(user);

	assert(n <= user->n_given_fds);
	user->n_given_fds -= n;
	if (!had_room)
		relieve(user);
}

bool user_has_room(const struct user *user)
{
	return !user->is_full && user->n_given_fds < user->users->limits.fds;
}

/* ---- time ---- */

void user_charge(struct user *user, uint64_t began_ns, uint64_t now_ns)
{
	if (began_ns - user->window_ns >= USER_WINDOW_NS) {
		user->window_ns = began_ns;
		user->busy_ns = 0;
	}
	user->busy_ns += now_ns - began_ns;
}

static bool is_alone(const struct user *user)
{
	return user->link.next == user->link.prev; /* the list's head */
}

bool user_must_wait(const struct user *user, uint64_t now_ns)
{
	bool is_tired = user->busy_ns >= USER_SHARE_NS && now_ns - user->window_ns < USER_WINDOW_NS;

	return !is_alone(user) && (is_tired || taker_waits(&user->conns));
}

/* ---- descriptors ---- */

struct close_job {
	struct job job;
	struct user *user;
	size_t n;
	int fds[];
};

static enum job_next close_run(struct job *job)
{
	struct close_job *closing = CONTAINER_OF(job, struct close_job, job);

	for (size_t i = 0; i < closing->n; i++)
		disk_close(closing->fds[i]);
	return JOB_DONE;
}

static void close_done(struct job *job)
{
	struct close_job *closing = CONTAINER_OF(job, struct close_job, job);

	user_put(closing->user);
	free(closing);
}

void user_close_fds(struct user *user, const int *fds, size_t n)
{
	struct close_job *closing = xmalloc(sizeof(*closing) + n * sizeof(*fds));

	closing->job = (struct job){ .run = close_run, .done = close_done };
	closing->user = user_ref(user);
	closing->n = n;
	memcpy(closing->fds, fds, n * sizeof(*fds));
	pool_submit(user->chores, &closing->job);
}
