/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/candidates.h"

#include <string.h>

#include "common/alloc.h"
#include "daemon/discard.h"

enum {
	FOUND_MAX = 65536,
	KEPT_MAX = 2 * FOUND_MAX, /* with those added since */
	WALK_STEP = 256,          /* slots of the catalog between two looks at the clock */
	MOVE_STEP = 64,
};

/* ---- heaps: youngest_first says which way round ---- */

/* What a tree gives back was used at one time; the hash makes the order one that a dry run can foretell. */
static bool is_older(const struct candidate *a, const struct candidate *b)
{
	if (a->used != b->used)
		return a->used < b->used;
	return memcmp(a->digest.hash, b->digest.hash, DIGEST_HASH_SIZE) < 0;
}

static bool comes_before(const struct candidate *a, const struct candidate *b, bool youngest_first)
{
	return youngest_first ? is_older(b, a) : is_older(a, b);
}

static void swap(struct candidate *a, struct candidate *b)
{
	struct candidate c = *a;

	*a = *b;
	*b = c;
}

static void heap_add(struct candidate_heap *heap, const struct candidate *item, bool youngest_first)
{
	size_t i = heap->n++;

	heap->items = xgrow(heap->items, i, &heap->capacity, sizeof(*heap->items));
	heap->items[i] = *item;
	for (; i && comes_before(&heap->items[i], &heap->items[(i - 1) / 2], youngest_first); i = (i - 1) / 2)
		swap(&heap->items[i], &heap->items[(i - 1) / 2]);
}

static void heap_drop_first(struct candidate_heap *heap, bool youngest_first)
{
	size_t i = 0, next;

	heap->items[0] = heap->items[--heap->n];
	while ((next = 2 * i + 1) < heap->n) {
		if (next + 1 < heap->n &&
		    comes_before(&heap->items[next + 1], &heap->items[next], youngest_first))
			next++;
		if (!comes_before(&heap->items[next], &heap->items[i], youngest_first))
			return;
		swap(&heap->items[i], &heap->items[next]);
		i = next;
	}
}

/* ---- the walk ---- */

void candidates_fini(struct candidates *candidates, struct pool_queue *chores)
{
	struct candidate_heap *oldest = &candidates->oldest, *found = &candidates->found;

	discard(chores, oldest->items, oldest->capacity * sizeof(struct candidate));
	discard(chores, found->items, found->capacity * sizeof(struct candidate));
	*candidates = (struct candidates){ 0 };
}

static void begin(struct candidates *candidates, const struct catalog *catalog, const struct candidate *from)
{
	candidates->from = *from;
	candidates->oldest.n = candidates->found.n = 0;
	candidates->position = 0;
	candidates->has_more = false;
	candidates->is_walking = true;
	candidates->end = catalog_end(catalog);
}

void candidates_find(struct candidates *candidates, const struct catalog *catalog, bool younger)
{
	static const struct candidate oldest;

	begin(candidates, catalog, younger && candidates->has_more ? &candidates->horizon : &oldest);
}

static bool is_beyond(const struct candidates *candidates, const struct candidate *candidate)
{
	return candidates->has_more && !is_older(candidate, &candidates->horizon);
}

static void leave_out(struct candidates *candidates, const struct candidate *candidate)
{
	if (!candidates->has_more || is_older(candidate, &candidates->horizon))
		candidates->horizon = *candidate;
	candidates->has_more = true;
}

/* Keep the oldest of those found. */
static void find(struct candidates *candidates, const struct digest *digest, uint64_t used)
{
	const struct candidate candidate = { *digest, used };
	struct candidate_heap *found = &candidates->found;

	if (is_older(&candidate, &candidates->from))
		return;
	if (found->n < FOUND_MAX) {
		heap_add(found, &candidate, true);
	} else if (is_older(&candidate, &found->items[0])) {
		leave_out(candidates, &found->items[0]);
		heap_drop_first(found, true);
		heap_add(found, &candidate, true);
	} else {
		leave_out(candidates, &candidate);
	}
}

/* From one heap to the other. */
static bool move(struct candidates *candidates)
{
	struct candidate_heap *found = &candidates->found;

	for (unsigned i = 0; i < MOVE_STEP && found->n; i++)
		heap_add(&candidates->oldest, &found->items[--found->n], false);
	if (found->n)
		return true;
	candidates->is_walking = false;
	return false;
}

bool candidates_step(struct candidates *candidates, const struct catalog *catalog)
{
	if (!candidates->is_walking)
		return false;
	if (candidates->end != catalog_end(catalog)) { /* it has grown: all have other places now */
		begin(candidates, catalog, &candidates->from);
		return true;
	}
	for (unsigned i = 0; i < WALK_STEP && candidates->position < candidates->end; i++) {
		const struct catalog_entry *entry = catalog_at(catalog, candidates->position++);

		if (entry && !entry->holds)
			find(candidates, &entry->digest, entry->used);
	}
	return candidates->position < candidates->end || move(candidates);
}

void candidates_add(struct candidates *candidates, const struct digest *digest, uint64_t used)
{
	const struct candidate candidate = { *digest, used };

	if (candidates->is_walking)
		find(candidates, digest, used);
	else if ((candidates->oldest.n >= KEPT_MAX && !candidates->keeps_all) ||
		 is_beyond(candidates, &candidate))
		leave_out(candidates, &candidate);
	else
		heap_add(&candidates->oldest, &candidate, false);
}

/* Those beyond the horizon are left to a walk, which finds what comes before them. */
const struct candidate *candidates_first(const struct candidates *candidates)
{
	const struct candidate *first = candidates->oldest.items;

	return candidates->oldest.n && !is_beyond(candidates, first) ? first : NULL;
}

void candidates_drop_first(struct candidates *candidates)
{
	heap_drop_first(&candidates->oldest, false);
}

bool candidates_has_more(const struct candidates *candidates)
{
	return candidates->has_more;
}

uint64_t candidates_bound(const struct candidates *candidates)
{
	const struct candidate *first = candidates_first(candidates);

	if (first)
		return first->used;
	return candidates->has_more ? candidates->horizon.used : UINT64_MAX;
}
