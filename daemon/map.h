/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Map: structs by the hash of their digest, in tables of pointers.
 *
 * What is kept begins with a struct digest. Whoever may name digests, and so may make them up, must not
 * choose the slots: these follow from the whole hash and the map's secrets.
 *
 * A map is many small tables (extendible hashing): the top bits of a mixed hash choose one, by way of a
 * directory, the low ones a slot in it. A table that is three quarters full is split in two, and no other is
 * touched. So no add takes longer than that of a thousand pointers, however large the map is, where a single
 * table would keep the loop for tens of milliseconds when it grows at a million. In a table: linear probing;
 * deleting moves the followers back, so there are no tombstones.
 *
 * Borrows what it keeps. Not locked: the owner's thread only.
 */
#ifndef DIRCACHE_DAEMON_MAP_H
#define DIRCACHE_DAEMON_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"

enum {
	MAP_TABLE_SLOTS = 1024,
	MAP_TABLE_ITEMS = MAP_TABLE_SLOTS / 4 * 3, /* in it at most */
};

struct map_table;

struct map {
	size_t n;                     /* what is in it */
	struct map_table **directory; /* 2^depth; several neighbours may be the same table */
	unsigned depth;
	struct map_table **tables; /* each once, for walks: the oldest first */
	size_t n_tables, tables_capacity;
	uint64_t secrets[5];
};

void map_init(struct map *map);
void map_fini(struct map *map);

/* The key in this map of a digest together with a number. Nobody can find two pairs that have the same one.
 */
struct digest map_key(const struct map *map, const struct digest *digest, uint64_t number);

/* What has this hash (sizes are not compared), or NULL. */
void *map_find(const struct map *map, const struct digest *digest);

/*
 * A hint that this digest is going to be looked for or added, after a dozen others: what that needs is on its
 * way from memory meanwhile. In a large map waiting for it is most of the time that either takes.
 */
void map_expect(const struct map *map, const struct digest *digest);

/* Add a struct whose hash is not there yet. */
void map_add(struct map *map, struct digest *item);

/* Make room for n items in a map that is empty: then they are added without splitting. */
void map_reserve(struct map *map, size_t n);

/* Remove a struct that is there. */
void map_remove(struct map *map, const struct digest *item);

/*
 * What is in the slot, of 0 to map_end() - 1; NULL where free. What is added or removed moves others: only a
 * walk at one go sees all.
 */
void *map_slot(const struct map *map, size_t i);

static inline size_t map_end(const struct map *map)
{
	return map->n_tables * MAP_TABLE_SLOTS;
}

/*
 * A walk in steps, between which things may be added and removed. What is in the map from the first step to
 * the last is met; again, where its table was split meanwhile. Of 30 KiB: the keys of a table are noted at
 * once, and each is looked for when its turn comes.
 */
struct map_walk { /* all zero: at the beginning */
	/* Private. */
	size_t n_tables; /* noted so far; the last one's keys are */
	size_t n, next;
	struct digest keys[MAP_TABLE_ITEMS];
};

bool map_walk_is_over(const struct map *map, const struct map_walk *walk);

/* Go on, while it is not over. Return: what is met; NULL: nothing, here. */
void *map_walk_step(const struct map *map, struct map_walk *walk);

#endif
