/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Candidates: the blobs that nobody holds, the least recently used first.
 *
 * They are found by a walk over the catalog, in steps, that keeps the oldest 65,536: memory stays bounded
 * however many there are. Blobs that lose their last hold after that are added one by one, as many again.
 * When all are used up and there had been more, another walk finds the next ones: those of one time of use
 * come by their hashes, so none is left out for good.
 *
 * What is taken may have changed since: the catalog has the last word. Loop only.
 */
#ifndef DIRCACHE_DAEMON_CANDIDATES_H
#define DIRCACHE_DAEMON_CANDIDATES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/catalog.h"

struct pool_queue;

struct candidate {
	struct digest digest;
	uint64_t used;
};

struct candidate_heap {
	struct candidate *items;
	size_t n, capacity;
};

struct candidates {
	struct candidate_heap oldest; /* the first is the oldest */
	struct candidate_heap found;  /* during a walk: the first is the youngest */
	size_t position, end;         /* of the walk, in the catalog */
	bool is_walking, has_more;
	bool keeps_all;           /* those that are added, however many */
	struct candidate from;    /* those before this one were found by another walk */
	struct candidate horizon; /* with has_more: the first that was left out */
};

/* @chores: the queue of the worker that gives its memory back when it is much */
void candidates_fini(struct candidates *candidates, struct pool_queue *chores);

/**
 * Begin a walk over the catalog; what was left of the last one is forgotten.
 *
 * @younger  find those that the last walk left out, and not again those that it found
 */
void candidates_find(struct candidates *candidates, const struct catalog *catalog, bool younger);

/* Go some steps on. Return: is more left? */
bool candidates_step(struct candidates *candidates, const struct catalog *catalog);

/* Add one that nobody holds any more. */
void candidates_add(struct candidates *candidates, const struct digest *digest, uint64_t used);

/* The oldest; NULL when there is none. Not during a walk. */
const struct candidate *candidates_first(const struct candidates *candidates);
void candidates_drop_first(struct candidates *candidates);

/* Were younger ones left out? */
bool candidates_has_more(const struct candidates *candidates);

/* No candidate, found or left out, was used before this. UINT64_MAX: there is none. */
uint64_t candidates_bound(const struct candidates *candidates);

#endif
