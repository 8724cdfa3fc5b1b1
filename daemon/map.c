/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/map.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/alloc.h"

enum { SLOTS_MIN = 64 }; /* of the only table of a small map */

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15) /* half of its bits are set, in no order */

/*
 * A slot is a pointer, and a byte of its hash, in an array of their own: 64 of these are in one line of the
 * processor's cache, so who is not looked for is told without a look at it, which would be a line more each.
 */
struct map_table {
	unsigned depth; /* the top bits of a hash that all in it share */
	uint32_t n, n_slots;
	uint8_t *tags;          /* 0 where free; behind the slots */
	struct digest *slots[]; /* NULL where free */
};

void map_init(struct map *map)
{
	*map = (struct map){ 0 };
	if (getrandom(map->secrets, sizeof(map->secrets), 0) != (ssize_t)sizeof(map->secrets))
		map->secrets[0] = (uintptr_t)map; /* only where the kernel has no randomness at all */
}

void map_fini(struct map *map)
{
	for (size_t i = 0; i < map->n_tables; i++)
		free(map->tables[i]);
	free(map->tables);
	free(map->directory);
	map->tables = map->directory = NULL;
	map->n = map->n_tables = map->tables_capacity = 0;
	map->depth = 0;
}

/* ---- one table ---- */

/* Both halves of a product: every bit of either factor reaches the result. */
static uint64_t multiply(uint64_t a, uint64_t b)
{
	__uint128_t product = (__uint128_t)a * b;

	return (uint64_t)product ^ (uint64_t)(product >> 64);
}

/* The top bits choose the table, the low ones the slot in it. */
static uint64_t mix(const struct map *map, const struct digest *digest)
{
	const uint64_t *secrets = map->secrets;
	uint64_t words[DIGEST_HASH_SIZE / sizeof(uint64_t)];

	memcpy(words, digest->hash, sizeof(words));
	/* Once more at the end: products of one factor that counts up and one that stays lie in a row. */
	return multiply(multiply(words[0] ^ secrets[0], words[1] ^ secrets[1]) ^ secrets[4],
			multiply(words[2] ^ secrets[2], words[3] ^ secrets[3]) ^ GOLDEN);
}

static size_t home(const struct map_table *table, uint64_t mixed)
{
	return (size_t)mixed & (table->n_slots - 1);
}

/* Of bits that choose neither table nor slot. */
static uint8_t tag_of(uint64_t mixed)
{
	uint8_t tag = (uint8_t)(mixed >> 12);

	return tag ? tag : 1;
}

/* Put in what is known not to be there: the first free slot will do, without a look at the others' hashes. */
static void insert(struct map_table *table, uint64_t mixed, struct digest *item)
{
	size_t i = home(table, mixed);

	while (table->tags[i])
		i = (i + 1) & (table->n_slots - 1);
	table->slots[i] = item;
	table->tags[i] = tag_of(mixed);
	table->n++;
}

/* The slot that holds this hash, or the free one where it would go. */
static size_t probe(const struct map_table *table, uint64_t mixed, const struct digest *digest)
{
	size_t i = home(table, mixed);
	uint8_t tag = tag_of(mixed);

	while (table->tags[i] &&
	       (table->tags[i] != tag || memcmp(table->slots[i]->hash, digest->hash, DIGEST_HASH_SIZE) != 0))
		i = (i + 1) & (table->n_slots - 1);
	return i;
}

static struct map_table *table_new(unsigned depth, uint32_t n_slots)
{
	struct map_table *table = xcalloc(1, sizeof(*table) + n_slots * (sizeof(table->slots[0]) + 1));

	table->depth = depth;
	table->n_slots = n_slots;
	table->tags = (uint8_t *)(table->slots + n_slots);
	return table;
}

/* ---- the directory ---- */

/* Which entry of the directory. */
static size_t entry_of(const struct map *map, uint64_t mixed)
{
	return map->depth ? (size_t)(mixed >> (64 - map->depth)) : 0;
}

static void double_directory(struct map *map)
{
	size_t n = (size_t)1 << map->depth;
	struct map_table **directory = xreallocarray(NULL, 2 * n, sizeof(struct map_table *));

	for (size_t i = 0; i < n; i++)
		directory[2 * i] = directory[2 * i + 1] = map->directory[i];
	free(map->directory);
	map->directory = directory;
	map->depth++;
	assert(map->depth < 48);
}

/* Let the upper half of a table's entries lead to another. */
static void redirect(struct map *map, size_t entry, const struct map_table *table, struct map_table *upper)
{
	size_t n_entries = (size_t)1 << (map->depth - table->depth);
	size_t first = entry & ~(n_entries - 1);

	for (size_t i = first + n_entries / 2; i < first + n_entries; i++)
		map->directory[i] = upper;
}

static struct map_table *add_table(struct map *map, unsigned depth, uint32_t n_slots)
{
	map->tables = xgrow(map->tables, map->n_tables, &map->tables_capacity, sizeof(struct map_table *));
	return map->tables[map->n_tables++] = table_new(depth, n_slots);
}

/* The only table of a small map makes way for one of twice the slots. */
static void grow(struct map *map)
{
	struct map_table *old = map->tables[0];
	struct map_table *table = table_new(0, old->n_slots * 2);

	for (uint32_t i = 0; i < old->n_slots; i++)
		if (old->slots[i])
			insert(table, mix(map, old->slots[i]), old->slots[i]);
	map->tables[0] = map->directory[0] = table;
	free(old);
}

/* Half of what is in a table, by the next bit, moves to a new one. */
static void split(struct map *map, size_t entry)
{
	struct map_table *table = map->directory[entry], *upper;
	struct digest *all[MAP_TABLE_SLOTS];

	if (table->depth == map->depth) {
		double_directory(map);
		entry *= 2;
	}
	upper = add_table(map, table->depth + 1, MAP_TABLE_SLOTS);
	redirect(map, entry, table, upper);
	memcpy(all, table->slots, sizeof(all));
	memset(table->slots, 0, sizeof(all));
	memset(table->tags, 0, MAP_TABLE_SLOTS);
	table->n = 0;
	table->depth++;
	for (size_t i = 0; i < MAP_TABLE_SLOTS; i++) {
		uint64_t mixed = all[i] ? mix(map, all[i]) : 0;

		if (all[i])
			insert(mixed >> (64 - table->depth) & 1 ? upper : table, mixed, all[i]);
	}
}

static void make_room(struct map *map, size_t entry)
{
	if (map->directory[entry]->n_slots < MAP_TABLE_SLOTS)
		grow(map);
	else
		split(map, entry);
}

/* ---- the map ---- */

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

void map_reserve(struct map *map, size_t n)
{
	size_t n_tables = 1;

	assert(!map->n && !map->n_tables);
	if (n < SLOTS_MIN)
		return;
	/* Half full on the average, so that hardly any has to be split. */
	while (n_tables * MAP_TABLE_SLOTS / 2 < n) {
		n_tables *= 2;
		map->depth++;
	}
	map->directory = xreallocarray(NULL, n_tables, sizeof(struct map_table *));
	for (size_t i = 0; i < n_tables; i++)
		map->directory[i] = add_table(map, map->depth, MAP_TABLE_SLOTS);
}

void *map_find(const struct map *map, const struct digest *digest)
{
	uint64_t mixed = mix(map, digest);
	const struct map_table *table;

	if (!map->n)
		return NULL;
	table = map->directory[entry_of(map, mixed)];
	return table->slots[probe(table, mixed, digest)];
}

void map_expect(const struct map *map, const struct digest *digest)
{
	uint64_t mixed = mix(map, digest);
	const struct map_table *table;
	size_t i;

	if (map->n_tables < 2) /* a small one is in the cache */
		return;
	/* Nothing of the table is read, which would be to wait for it: all of them have as many slots. */
	table = map->directory[entry_of(map, mixed)];
	i = (size_t)mixed & (MAP_TABLE_SLOTS - 1);
	__builtin_prefetch(table);
	__builtin_prefetch(&table->slots[i], 1);
	__builtin_prefetch((const uint8_t *)&table->slots[MAP_TABLE_SLOTS] + i, 1);
}

void map_add(struct map *map, struct digest *item)
{
	uint64_t mixed = mix(map, item);
	struct map_table *table;

	if (!map->directory) {
		map->directory = xreallocarray(NULL, 1, sizeof(struct map_table *));
		map->directory[0] = add_table(map, 0, SLOTS_MIN);
	}
	/* More than once only if all that was in a table went to the same half. */
	for (;;) {
		table = map->directory[entry_of(map, mixed)];
		if (table->n < table->n_slots / 4 * 3) /* MAP_TABLE_ITEMS of the largest */
			break;
		make_room(map, entry_of(map, mixed));
	}
	insert(table, mixed, item);
	map->n++;
}

void map_remove(struct map *map, const struct digest *item)
{
	uint64_t mixed = mix(map, item);
	struct map_table *table;
	size_t mask, hole, i;

	assert(map->n);
	table = map->directory[entry_of(map, mixed)];
	mask = table->n_slots - 1;
	hole = probe(table, mixed, item);
	assert(table->slots[hole] == item);
	map->n--;
	table->n--;
	/* Whoever was pushed past the hole moves back into it, and leaves the next one. */
	for (i = (hole + 1) & mask; table->slots[i]; i = (i + 1) & mask) {
		size_t want = home(table, mix(map, table->slots[i]));

		if (((i - want) & mask) >= ((i - hole) & mask)) {
			table->slots[hole] = table->slots[i];
			table->tags[hole] = table->tags[i];
			hole = i;
		}
	}
	table->slots[hole] = NULL;
	table->tags[hole] = 0;
}

void *map_slot(const struct map *map, size_t i)
{
	const struct map_table *table = map->tables[i / MAP_TABLE_SLOTS];

	i %= MAP_TABLE_SLOTS;
	return i < table->n_slots ? table->slots[i] : NULL;
}

bool map_walk_is_over(const struct map *map, const struct map_walk *walk)
{
	return walk->next == walk->n && walk->n_tables >= map->n_tables;
}

static void note_keys(const struct map_table *table, struct map_walk *walk)
{
	walk->n = walk->next = 0;
	for (size_t i = 0; i < table->n_slots && walk->n < table->n; i++)
		if (table->slots[i])
			walk->keys[walk->n++] = *table->slots[i];
}

void *map_walk_step(const struct map *map, struct map_walk *walk)
{
	if (walk->next < walk->n)
		return map_find(map, &walk->keys[walk->next++]);
	note_keys(map->tables[walk->n_tables++], walk);
	return NULL;
}
