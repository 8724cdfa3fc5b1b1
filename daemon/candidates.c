/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/candidates.h"

#include <string.h>

#include "common/alloc.h"

enum {
	FOUND_MAX = 65536,
	WALK_STEP = 256, /* slots of the catalog between two looks at the clock */
	MOVE_STEP = 64,
};

/* ---- heaps: youngest_first says which way round ---- */

/* What a tree gives back was used at one time; the hash makes the order one that a dry run can foretell. */
static bool comes_before(const struct candidate *a, const struct candidate *b, bool youngest_first)
{
	const struct candidate *older = youngest_first ? b : a, *younger = youngest_first ? a : b;

	if (older->used != younger->used)
		return older->used < younger->used;
	return memcmp(older->digest.hash, younger->digest.hash, DIGEST_HASH_SIZE) < 0;
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

void candidates_fini(struct candidates *candidates)
{
	free(candidates->oldest.items);
	free(candidates->found.items);
	*candidates = (struct candidates){ 0 };
}

static void begin(struct candidates *candidates, const struct catalog *catalog, uint64_t from)
{
	candidates_fini(candidates);
	candidates->from = from;
	candidates->is_walking = true;
	candidates->end = catalog_end(catalog);
	candidates->horizon = UINT64_MAX;
}

void candidates_find(struct candidates *candidates, const struct catalog *catalog, bool younger)
{
	begin(candidates, catalog, younger ? candidates->horizon + 1 : 0);
}

/* Keep the oldest of those found. */
static void find(struct candidates *candidates, const struct digest *digest, uint64_t used)
{
	struct candidate_heap *found = &candidates->found;
	const struct candidate candidate = { *digest, used };

	if (found->n == FOUND_MAX) {
		candidates->horizon = found->items[0].used;
		if (used >= candidates->horizon)
			return;
		heap_drop_first(found, true);
	}
	heap_add(found, &candidate, true);
}

/* From one heap to the other. */
static bool move(struct candidates *candidates)
{
	struct candidate_heap *found = &candidates->found;

	for (unsigned i = 0; i < MOVE_STEP && found->n; i++)
		heap_add(&candidates->oldest, &found->items[--found->n], false);
	if (found->n)
		return true;
	free(TAKE(found->items));
	found->capacity = 0;
	candidates->is_walking = false;
	return false;
}

bool candidates_step(struct candidates *candidates, const struct catalog *catalog)
{
	if (!candidates->is_walking)
		return false;
	if (candidates->end != catalog_end(catalog)) { /* it has grown: all have other places now */
		begin(candidates, catalog, candidates->from);
		return true;
	}
	for (unsigned i = 0; i < WALK_STEP && candidates->position < candidates->end; i++) {
		const struct catalog_entry *entry = catalog_at(catalog, candidates->position++);

		if (entry && !entry->holds && entry->used >= candidates->from)
			find(candidates, &entry->digest, entry->used);
	}
	return candidates->position < candidates->end || move(candidates);
}

void candidates_add(struct candidates *candidates, const struct digest *digest, uint64_t used)
{
	const struct candidate candidate = { *digest, used };

	if (candidates->is_walking)
		find(candidates, digest, used);
	else if (used <= candidates->horizon)
		heap_add(&candidates->oldest, &candidate, false);
}

const struct candidate *candidates_first(const struct candidates *candidates)
{
	return candidates->oldest.n ? &candidates->oldest.items[0] : NULL;
}

void candidates_drop_first(struct candidates *candidates)
{
	heap_drop_first(&candidates->oldest, false);
}

bool candidates_has_more(const struct candidates *candidates)
{
	return candidates->horizon != UINT64_MAX;
}

uint64_t candidates_bound(const struct candidates *candidates)
{
	return candidates->oldest.n ? candidates->oldest.items[0].used : candidates->horizon;
}
