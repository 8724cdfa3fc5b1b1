/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees that leave the cache of daemon.h by hand, as eviction has them leave: which is the oldest, and its
 * end.
 */
#ifndef DIRCACHE_TESTS_UNIT_LEAVING_H
#define DIRCACHE_TESTS_UNIT_LEAVING_H

#include "tests/unit/daemon.h"

static inline bool skip_one(void *ctx, const struct digest *digest)
{
	return ctx && digest_equal(ctx, digest);
}

/* The oldest tree that may go, but for one, or NULL. Return: is there one? */
static inline bool find_oldest(struct digest *skipped, struct tree_victim *victim)
{
	struct tree_walk walk;
	enum tree_found found;

	tree_walk_begin(cache.trees, &walk, false);
	do
		found = tree_walk_find(&walk, skip_one, skipped, victim);
	while (found == TREE_LOOK_ON);
	tree_walk_end(&walk);
	return found == TREE_FOUND;
}

static inline bool oldest_is(const struct digest *digest, struct digest *skipped)
{
	struct tree_victim victim;

	return find_oldest(skipped, &victim) && digest_equal(&victim.digest, digest);
}

#endif
