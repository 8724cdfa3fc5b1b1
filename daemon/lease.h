/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Leases: cached trees that are kept from eviction for a while, because a client asked for it.
 *
 * A lease has a holder: a user, who has it for some seconds, whatever becomes of the connection; or a
 * connection, with which it ends. A holder has one lease on a tree, however often it asks; the latest end
 * counts. So the table is as large as what is held, and that is limited for each user and in all.
 *
 *     lease_take --- the tree is held from here on ---+--- lease_grant   done: the lease begins
 *                                                     `--- lease_drop    not done: as if never asked
 *
 * Leases are kept in memory: they end with the daemon, and nothing is evicted while there is none. Seconds
 * are those of the monotonic clock. Loop only.
 */
#ifndef DIRCACHE_DAEMON_LEASE_H
#define DIRCACHE_DAEMON_LEASE_H

#include <stddef.h>
#include <stdint.h>
#include <stdbool.h>
#include <sys/types.h>

#include "common/auto.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/list.h"
#include "daemon/tree.h"

struct event_base;
struct leases;
struct lease;

enum {
	LEASE_SECONDS_MAX = 7 * 24 * 60 * 60, /* whoever needs a tree for longer tags it */
	LEASES_MAX = 50000,
};

/* Borrowed for good. max_of_user: leases that one user may have */
struct leases *leases_new(struct event_base *base, struct trees *trees, uint64_t max_of_user);
void leases_free(struct leases *leases); /* ends all; when no request has one taken */
DEFINE_AUTO(leases);

/* What a connection holds. */
struct lease_group {
	struct list leases; /* private, as all of it */
	uint64_t number;
};

void lease_group_init(struct leases *leases, struct lease_group *group);
/* The connection has ended, and its leases with it. */
void lease_group_fini(struct lease_group *group);
bool lease_group_is_empty(const struct lease_group *group);

/**
 * Hold a cached tree, for a request that will ask for a lease when it is done.
 *
 * @uid    whose it is, for the limits
 * @group  the connection that is to be the holder, borrowed until lease_group_fini(); NULL: the user
 * @lease  out: until lease_grant() or lease_drop()
 *
 * Return: 0, or a negative errno with err (ERR_RESOURCE_EXHAUSTED).
 */
int lease_take(struct leases *leases, const struct digest *tree, uid_t uid, struct lease_group *group,
	       struct lease **lease, struct err *err);

/* The lease begins. seconds: 1 to LEASE_SECONDS_MAX for a user's; of a connection's not looked at. */
void lease_grant(struct lease *lease, unsigned seconds);

/* It is not wanted any more; NULL is fine. */
void lease_drop(struct lease *lease);

size_t leases_n(const struct leases *leases);

#endif
