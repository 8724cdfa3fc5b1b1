/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map: structs by the hash of their digest, in one flat table of pointers.
 *
 * What is kept begins with a struct digest. Whoever may name digests, and so may make them up, must not
 * choose the slots: these follow from the whole hash and the table's secrets. Linear probing, at most three
 * quarters full; deleting moves the followers back, so there are no tombstones.
 *
 * Borrows what it keeps. Not locked: the owner's thread only.
 */
#ifndef DIRCACHE_DAEMON_MAP_H
#define DIRCACHE_DAEMON_MAP_H

#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"

struct map {
	struct digest **slots; /* NULL where free */
	size_t n, capacity;    /* in use; slots, a power of two or 0 */
	uint64_t secrets[5];
};

void map_init(struct map *map);
void map_fini(struct map *map);

/* The key in this map of a digest together with a number. Nobody can find two pairs that have the same one.
 */
struct digest map_key(const struct map *map, const struct digest *digest, uint64_t number);

/* What has this hash (sizes are not compared), or NULL. */
void *map_find(const struct map *map, const struct digest *digest);

/* Add a struct whose hash is not there yet. Amortized constant; now and then as long as the table. */
void map_add(struct map *map, struct digest *item);

/* Make room for n items at once. */
void map_reserve(struct map *map, size_t n);

/* Remove a struct that is there. */
void map_remove(struct map *map, const struct digest *item);

/* What is in the slot, for a walk over 0 to capacity - 1; NULL where free. */
static inline void *map_slot(const struct map *map, size_t i)
{
	return map->slots[i];
}

#endif
