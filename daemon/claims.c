/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/claims.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "daemon/map.h"

enum verdict { NONE, CONDEMNED, ACQUITTED, LEAVING, GONE };

/* In the map as long as it is claimed or under a verdict. */
struct claim {
	struct digest digest; /* first: by this it is found */
	size_t n;             /* who relies on it, or waits to */
	uint64_t n_ever;      /* the same, with those who gave it up; while it is in the map */
	enum verdict verdict;
};

struct claims {
	pthread_mutex_t lock;
	pthread_cond_t gone; /* something was unlinked */
	struct map map;
};

struct claims *claims_new(void)
{
	struct claims *claims = xcalloc(1, sizeof(*claims));

	(void)pthread_mutex_init(&claims->lock, NULL);
	(void)pthread_cond_init(&claims->gone, NULL);
	map_init(&claims->map);
	return claims;
}

void claims_free(struct claims *claims)
{
	if (!claims)
		return;
	assert(claims->map.n == 0);
	map_fini(&claims->map);
	(void)pthread_cond_destroy(&claims->gone);
	(void)pthread_mutex_destroy(&claims->lock);
	free(claims);
}

static void lock(struct claims *claims)
{
	int r = pthread_mutex_lock(&claims->lock);

	assert(r == 0);
}

static void unlock(struct claims *claims)
{
	int r = pthread_mutex_unlock(&claims->lock);

	assert(r == 0);
}

static struct claim *find_or_add(struct claims *claims, const struct digest *digest)
{
	struct claim *claim = map_find(&claims->map, digest);

	if (claim)
		return claim;
	claim = xcalloc(1, sizeof(*claim));
	claim->digest = *digest;
	map_add(&claims->map, &claim->digest);
	return claim;
}

static void forget_if_idle(struct claims *claims, struct claim *claim)
{
	if (claim->n || claim->verdict != NONE)
		return;
	map_remove(&claims->map, &claim->digest);
	free(claim);
}

void claims_take(struct claims *claims, const struct digest *digest)
{
	struct claim *claim;

	lock(claims);
	claim = find_or_add(claims, digest);
	claim->n_ever++;
	claim->n++; /* from here on it stays in the map, also while we wait */
	if (claim->verdict == CONDEMNED)
		claim->verdict = ACQUITTED;
	while (claim->verdict == LEAVING)
		(void)pthread_cond_wait(&claims->gone, &claims->lock);
	unlock(claims);
}

void claims_drop(struct claims *claims, const struct digest *digests, size_t n)
{
	lock(claims);
	for (size_t i = 0; i < n; i++) {
		struct claim *claim = map_find(&claims->map, &digests[i]);

		assert(claim && claim->n);
		claim->n--;
		forget_if_idle(claims, claim);
	}
	unlock(claims);
}

bool claims_condemn(struct claims *claims, const struct digest *digest)
{
	bool is_free;

	lock(claims);
	is_free = !map_find(&claims->map, digest);
	if (is_free)
		find_or_add(claims, digest)->verdict = CONDEMNED;
	unlock(claims);
	return is_free;
}

bool claims_execute(struct claims *claims, const struct digest *digest)
{
	struct claim *claim;
	bool is_due;

	lock(claims);
	claim = map_find(&claims->map, digest);
	assert(claim && (claim->verdict == CONDEMNED || claim->verdict == ACQUITTED));
	is_due = claim->verdict == CONDEMNED;
	if (is_due)
		claim->verdict = LEAVING;
	unlock(claims);
	return is_due;
}

void claims_executed(struct claims *claims, const struct digest *digest)
{
	struct claim *claim;

	lock(claims);
	claim = map_find(&claims->map, digest);
	assert(claim && claim->verdict == LEAVING);
	claim->verdict = GONE;
	if (claim->n)
		(void)pthread_cond_broadcast(&claims->gone);
	unlock(claims);
}

void claims_settle(struct claims *claims, const struct digest *digest)
{
	struct claim *claim;

	lock(claims);
	claim = map_find(&claims->map, digest);
	assert(claim && (claim->verdict == ACQUITTED || claim->verdict == GONE));
	claim->verdict = NONE;
	forget_if_idle(claims, claim);
	unlock(claims);
}

bool claims_has(struct claims *claims, const struct digest *digest)
{
	bool has;

	lock(claims);
	has = map_find(&claims->map, digest);
	unlock(claims);
	return has;
}

bool claims_is_sole(struct claims *claims, const struct digest *digest)
{
	const struct claim *claim;
	bool is_sole;

	lock(claims);
	claim = map_find(&claims->map, digest);
	assert(claim && claim->n);
	is_sole = claim->n_ever == 1 && claim->verdict == NONE;
	unlock(claims);
	return is_sole;
}

size_t claims_n(struct claims *claims)
{
	size_t n;

	lock(claims);
	n = claims->map.n;
	unlock(claims);
	return n;
}
