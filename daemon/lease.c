/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/lease.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "daemon/map.h"
#include "daemon/slice.h"

struct lease_user {
	struct list link;
	uid_t uid;
	size_t n;
};

struct lease {
	struct digest key; /* first: by this it is found; of the tree and its holder together */
	struct digest tree;
	struct leases *leases;
	struct lease_user *user;
	struct list link;  /* of all */
	struct list group; /* of its connection; on no list: the user's, or the connection has ended */
	struct event *timer;
	uint64_t ends_ns; /* a user's, once granted */
	size_t n_taken;   /* requests that neither granted nor dropped it yet */
	bool granted, of_group;
};

struct leases {
	struct event_base *base;
	struct trees *trees;
	struct map map;
	struct list all, users;
	uint64_t n_groups; /* ever, to number them */
	uint64_t max_of_user;
};

/* ---- groups ---- */

void lease_group_init(struct leases *leases, struct lease_group *group)
{
	list_init(&group->leases);
	group->number = UINT64_C(1) << 63 | leases->n_groups++; /* no user's */
}

static void end_if_unused(struct lease *lease);

void lease_group_fini(struct lease_group *group)
{
	struct list *l;

	while ((l = list_pop(&group->leases))) {
		struct lease *lease = LIST_ENTRY(l, struct lease, group);

		lease->granted = false;
		end_if_unused(lease);
	}
}

/* ---- users ---- */

static struct lease_user *find_user(const struct leases *leases, uid_t uid)
{
	list_for_each (l, &leases->users) {
		struct lease_user *user = LIST_ENTRY(l, struct lease_user, link);

		if (user->uid == uid)
			return user;
	}
	return NULL;
}

static struct lease_user *user_get(struct leases *leases, uid_t uid)
{
	struct lease_user *user = find_user(leases, uid);

	if (!user) {
		user = xcalloc(1, sizeof(*user));
		user->uid = uid;
		list_append(&leases->users, &user->link);
	}
	user->n++;
	return user;
}

static void user_put(struct lease_user *user)
{
	if (--user->n)
		return;
	list_remove(&user->link);
	free(user);
}

static int check_room(const struct leases *leases, uid_t uid, struct err *err)
{
	const struct lease_user *user = find_user(leases, uid);

	if (user && user->n >= leases->max_of_user)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "user %u has %zu leases, and may have no more (max-user-leases)",
			       (unsigned)uid, user->n);
	if (leases->map.n >= LEASES_MAX)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "there are %d leases, and no more are given",
			       LEASES_MAX);
	return 0;
}

/* ---- leases ---- */

static void lease_free(struct lease *lease)
{
	struct leases *leases = lease->leases;

	trees_unhold(leases->trees, &lease->tree);
	map_remove(&leases->map, &lease->key);
	list_remove(&lease->link);
	list_remove(&lease->group);
	user_put(lease->user);
	if (lease->timer)
		event_free(lease->timer);
	free(lease);
}

static void end_if_unused(struct lease *lease)
{
	if (!lease->granted && !lease->n_taken)
		lease_free(lease);
}

static void on_expired(evutil_socket_t fd, short what, void *arg)
{
	struct lease *lease = arg;

	(void)fd;
	(void)what;
	lease->granted = false;
	end_if_unused(lease);
}

/* Return: NULL when there is no such cached tree. */
static struct lease *lease_new(struct leases *leases, const struct digest *tree, const struct digest *key,
			       uid_t uid)
{
	struct lease *lease;

	if (!trees_hold(leases->trees, tree))
		return NULL;
	lease = xcalloc(1, sizeof(*lease));
	lease->key = *key;
	lease->tree = *tree;
	lease->leases = leases;
	lease->user = user_get(leases, uid);
	list_init(&lease->group);
	list_append(&leases->all, &lease->link);
	map_add(&leases->map, &lease->key);
	return lease;
}

bool lease_group_is_empty(const struct lease_group *group)
{
	return list_is_empty(&group->leases);
}

int lease_take(struct leases *leases, const struct digest *tree, uid_t uid, struct lease_group *group,
	       struct lease **taken, struct err *err)
{
	struct digest key = map_key(&leases->map, tree, group ? group->number : uid);
	struct lease *lease = map_find(&leases->map, &key);
	int r;

	if (!lease) {
		if ((r = check_room(leases, uid, err)) < 0)
			return r;
		lease = lease_new(leases, tree, &key, uid);
		if (!lease)
			return err_set(err, ERR_NOT_FOUND, "tree %s is not cached", DIGEST_TEXT(tree));
		lease->of_group = group != NULL;
		if (group)
			list_append(&group->leases, &lease->group);
	}
	lease->n_taken++;
	*taken = lease;
	return 0;
}

/* From now on, unless it lasts longer already. */
static void let_last(struct lease *lease, unsigned seconds)
{
	uint64_t ends_ns = slice_now_ns() + seconds * UINT64_C(1000000000);

	assert(seconds > 0 && seconds <= LEASE_SECONDS_MAX);
	if (lease->granted && ends_ns <= lease->ends_ns)
		return;
	if (!lease->timer)
		lease->timer = evtimer_new(lease->leases->base, on_expired, lease);
	if (!lease->timer || evtimer_add(lease->timer, &(struct timeval){ .tv_sec = seconds }) < 0)
		abort();
	lease->granted = true;
	lease->ends_ns = ends_ns;
}

void lease_grant(struct lease *lease, unsigned seconds)
{
	lease->n_taken--;
	if (!lease->of_group)
		let_last(lease, seconds);
	else
		lease->granted = !list_is_empty(&lease->group); /* else its connection is gone */
	end_if_unused(lease);
}

void lease_drop(struct lease *lease)
{
	if (!lease)
		return;
	lease->n_taken--;
	end_if_unused(lease);
}

/* ---- the whole ---- */

struct leases *leases_new(struct event_base *base, struct trees *trees, uint64_t max_of_user)
{
	struct leases *leases = xcalloc(1, sizeof(*leases));

	leases->base = base;
	leases->trees = trees;
	leases->max_of_user = max_of_user;
	map_init(&leases->map);
	list_init(&leases->all);
	list_init(&leases->users);
	return leases;
}

void leases_free(struct leases *leases)
{
	if (!leases)
		return;
	while (!list_is_empty(&leases->all)) {
		struct lease *lease = LIST_ENTRY(leases->all.next, struct lease, link);

		assert(!lease->n_taken);
		lease_free(lease);
	}
	map_fini(&leases->map);
	free(leases);
}

size_t leases_n(const struct leases *leases)
{
	return leases->map.n;
}
