/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/alloc.h"

enum { CAPACITY_MIN = 64 };

void map_init(struct map *map)
{
	*map = (struct map){ 0 };
	if (getrandom(map->secrets, sizeof(map->secrets), 0) != (ssize_t)sizeof(map->secrets))
		map->secrets[0] = (uintptr_t)map; /* only where the kernel has no randomness at all */
}

void map_fini(struct map *map)
{
	free(map->slots);
	map->slots = NULL;
	map->n = map->capacity = 0;
}

/* Both halves of a product: every bit of either factor reaches the result. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
	__uint128_t product = (__uint128_t)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* Where a hash would like to be. */
static size_t home(const struct map *map, const struct digest *digest)
{
	const uint64_t *secrets = map->secrets;
	uint64_t words[DIGEST_HASH_SIZE / sizeof(uint64_t)];

	memcpy(words, digest->hash, sizeof(words));
	return (size_t)(multiply(words[0] ^ secrets[0], words[1] ^ secrets[1]) ^
			multiply(words[2] ^ secrets[2], words[3] ^ secrets[3])) &
	       (map->capacity - 1);
}

/* A multiplication by an odd number loses nothing, and by a secret one tells nothing. */
struct digest map_key(const struct map *map, const struct digest *digest, uint64_t number)
{
	struct digest key = *digest;
	uint64_t word;

	memcpy(&word, key.hash, sizeof(word));
	word ^= number * (map->secrets[4] | 1);
	memcpy(key.hash, &word, sizeof(word));
	return key;
}

/* The slot that holds this hash, or the free one where it would go. */
static size_t probe(const struct map *map, const struct digest *digest)
{
	size_t i = home(map, digest);

	while (map->slots[i] && memcmp(map->slots[i]->hash, digest->hash, DIGEST_HASH_SIZE) != 0)
		i = (i + 1) & (map->capacity - 1);
	return i;
}

void *map_find(const struct map *map, const struct digest *digest)
{
	return map->capacity ? map->slots[probe(map, digest)] : NULL;
}

/* Put in what is known not to be there: the first free slot will do, without a look at the others' hashes. */
static void insert(struct map *map, struct digest *item)
{
	size_t i = home(map, item);

	while (map->slots[i])
		i = (i + 1) & (map->capacity - 1);
	map->slots[i] = item;
}

static void resize(struct map *map, size_t capacity)
{
	struct map old = *map;

	map->slots = xcalloc(capacity, sizeof(*map->slots));
	map->capacity = capacity;
	for (size_t i = 0; i < old.capacity; i++)
		if (old.slots[i])
			insert(map, old.slots[i]);
	free(old.slots);
}

void map_reserve(struct map *map, size_t n)
{
	size_t capacity = map->capacity ? map->capacity : CAPACITY_MIN;

	while (capacity / 4 * 3 < n)
		capacity *= 2;
	if (capacity != map->capacity)
		resize(map, capacity);
}

void map_add(struct map *map, struct digest *item)
{
	map_reserve(map, map->n + 1);
	insert(map, item);
	map->n++;
}

void map_remove(struct map *map, const struct digest *item)
{
	size_t mask = map->capacity - 1, hole, i;

	assert(map->capacity);
	hole = probe(map, item);
	assert(map->slots[hole] == item);
	map->n--;
	/* Whoever was pushed past the hole moves back into it, and leaves the next one. */
	for (i = (hole + 1) & mask; map->slots[i]; i = (i + 1) & mask) {
		size_t want = home(map, map->slots[i]);

		if (((i - want) & mask) >= ((i - hole) & mask)) {
			map->slots[hole] = map->slots[i];
			hole = i;
		}
	}
	map->slots[hole] = NULL;
}
