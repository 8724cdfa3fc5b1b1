/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/users.h"

#include <errno.h>
#include <stdlib.h>

#include "common/alloc.h"

void users_init(struct users *users, const struct user_limits *limits)
{
	list_init(&users->all);
	users->limits = *limits;
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
