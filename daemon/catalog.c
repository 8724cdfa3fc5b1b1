/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/catalog.h"

#include <assert.h>
#include <stdatomic.h>
#include <time.h>

#include "common/alloc.h"
#include "daemon/map.h"
#include "daemon/slice.h"

enum {
	SIZE_HINTS = 1 << 16, /* one byte a slot: large sizes are few and spread by a multiplication */
	SLAB_ENTRIES = 1024,
	RESERVE_MAX = 4 << 20, /* room made for what is merely expected: 64 MiB of slots */
	BLOCK = 512,           /* the unit of st_blocks: stat(2) */
};

/* Entries live in slabs: a malloc for each would cost a fifth of the memory. */
struct slab {
	struct slab *next;
	struct catalog_entry entries[SLAB_ENTRIES];
};

/* A dropped entry, waiting to be used again. */
struct free_entry {
	struct free_entry *next;
};

struct catalog {
	struct map map;
	struct slab *slabs;
	size_t n_in_slab; /* used of the first slab */
	struct free_entry *free;
	struct catalog_totals totals;
	void (*unheld)(void *ctx, const struct catalog_entry *entry);
	void *unheld_ctx;
	uint64_t last_tick, last_row;
	bool in_doubt;
	struct catalog_fresh *fresh; /* a ring, once it is full: the next one replaces the oldest */
	size_t n_fresh, fresh_capacity, next_fresh;
	atomic_uchar size_hints[SIZE_HINTS];
};

struct catalog *catalog_new(void)
{
	struct catalog *catalog = xcalloc(1, sizeof(*catalog));

	map_init(&catalog->map);
	catalog->n_in_slab = SLAB_ENTRIES;
	return catalog;
}

static void free_slabs(struct catalog *catalog)
{
	struct slab *next;

	for (struct slab *slab = catalog->slabs; slab; slab = next) {
		next = slab->next;
		free(slab);
	}
	catalog->slabs = NULL;
	catalog->n_in_slab = SLAB_ENTRIES;
}

void catalog_free(struct catalog *catalog)
{
	if (!catalog)
		return;
	free_slabs(catalog);
	map_fini(&catalog->map);
	free(catalog->fresh);
	free(catalog);
}

void catalog_begin(struct catalog *catalog, uint64_t n_blobs)
{
	free_slabs(catalog);
	catalog->free = NULL;
	catalog->totals = (struct catalog_totals){ 0 };
	map_fini(&catalog->map);
	map_init(&catalog->map);
	map_reserve(&catalog->map, n_blobs < RESERVE_MAX ? n_blobs : RESERVE_MAX);
}

static struct catalog_entry *take_entry(struct catalog *catalog)
{
	struct catalog_entry *entry = (void *)catalog->free;

	if (entry) {
		catalog->free = catalog->free->next;
	} else {
		if (catalog->n_in_slab == SLAB_ENTRIES) {
			struct slab *slab = xmalloc(sizeof(*slab));

			slab->next = catalog->slabs;
			catalog->slabs = slab;
			catalog->n_in_slab = 0;
		}
		entry = &catalog->slabs->entries[catalog->n_in_slab++];
	}
	*entry = (struct catalog_entry){ 0 };
	return entry;
}

static size_t size_slot(uint64_t size)
{
	return (size_t)((size * 0x9e3779b97f4a7c15u) >> 48) & (SIZE_HINTS - 1);
}

/* An entry for a hash that has none: as yet of no blob. */
static struct catalog_entry *insert(struct catalog *catalog, const struct digest *digest)
{
	struct catalog_entry *entry = take_entry(catalog);

	entry->digest = *digest;
	map_add(&catalog->map, &entry->digest);
	return entry;
}

static struct catalog_entry *find_or_insert(struct catalog *catalog, const struct digest *digest)
{
	struct catalog_entry *entry = map_find(&catalog->map, digest);

	return entry ? entry : insert(catalog, digest);
}

static void give_entry_back(struct catalog *catalog, struct catalog_entry *entry)
{
	struct free_entry *unused = (void *)entry;

	map_remove(&catalog->map, &entry->digest);
	unused->next = catalog->free;
	catalog->free = unused;
}

/* The blob of this entry is there from now on; a hold may have been taken under a size that was a lie. */
static void appear(struct catalog *catalog, struct catalog_entry *entry, uint64_t size, uint64_t row)
{
	entry->digest.size = size;
	entry->row = row;
	catalog->totals.n_blobs++;
	catalog->totals.bytes += size;
	if (size >= BLOB_LARGE)
		atomic_store_explicit(&catalog->size_hints[size_slot(size)], 1, memory_order_relaxed);
}

static void set_kind(struct catalog *catalog, struct catalog_entry *entry, enum blob_kind kind,
		     uint64_t allocated)
{
	catalog->totals.allocated -= (uint64_t)entry->allocated[kind] * BLOCK;
	entry->allocated[kind] = (uint32_t)(allocated / BLOCK);
	catalog->totals.allocated += (uint64_t)entry->allocated[kind] * BLOCK;
	entry->kinds |= (uint8_t)(1u << kind);
}

struct catalog_entry *catalog_find(const struct catalog *catalog, const struct digest *digest)
{
	struct catalog_entry *entry = map_find(&catalog->map, digest);

	return entry && entry->kinds ? entry : NULL;
}

void catalog_doubt(struct catalog *catalog, bool doubt)
{
	catalog->in_doubt = doubt;
}

uint8_t catalog_kinds(const struct catalog *catalog, const struct catalog_entry *entry)
{
	return catalog->in_doubt ? entry->kinds & entry->seen : entry->kinds;
}

bool catalog_has(const struct catalog *catalog, const struct digest *digest, enum blob_kind kind)
{
	const struct catalog_entry *entry = catalog_find(catalog, digest);

	return entry && entry->digest.size == digest->size && entry->kinds & 1u << kind;
}

bool catalog_names(const struct catalog *catalog, const struct digest *digest)
{
	const struct catalog_entry *entry = catalog_find(catalog, digest);

	return digest_is_empty(digest) || (entry && entry->digest.size == digest->size);
}

/* The blob of this entry is there no more. */
static void vanish(struct catalog *catalog, const struct catalog_entry *entry)
{
	catalog->totals.n_blobs--;
	catalog->totals.bytes -= entry->digest.size;
}

static void clear(struct catalog *catalog, struct catalog_entry *entry)
{
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		set_kind(catalog, entry, kind, 0);
	entry->kinds = 0;
	vanish(catalog, entry);
}

uint64_t catalog_load(struct catalog *catalog, const struct index_blob *blob)
{
	struct catalog_entry *entry = find_or_insert(catalog, &blob->digest);
	uint64_t stale = entry->row;

	if (stale)
		clear(catalog, entry);
	appear(catalog, entry, blob->digest.size, blob->row);
	catalog_row_seen(catalog, blob->row);
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		if (blob->kinds & 1u << kind)
			set_kind(catalog, entry, kind, blob->allocated[kind]);
	entry->used = blob->used;
	catalog_tick_seen(catalog, blob->used);
	return stale;
}

void catalog_expect(const struct catalog *catalog, const struct digest *digest)
{
	map_expect(&catalog->map, digest);
}

void catalog_row_seen(struct catalog *catalog, uint64_t row)
{
	if (row > catalog->last_row)
		catalog->last_row = row;
}

struct catalog_entry *catalog_put_back(struct catalog *catalog, const struct index_blob *blob, uint8_t seen)
{
	struct catalog_entry *entry = find_or_insert(catalog, &blob->digest);

	if (!entry->kinds)
		appear(catalog, entry, blob->digest.size, blob->row);
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		if (blob->kinds & ~entry->kinds & 1u << kind)
			set_kind(catalog, entry, kind, blob->allocated[kind]);
	entry->seen |= seen;
	entry->used = blob->used > entry->used ? blob->used : entry->used;
	return entry;
}

bool catalog_confirm(struct catalog *catalog, const struct blob_info *info, enum blob_kind kind)
{
	struct catalog_entry *entry = catalog_find(catalog, &info->digest);

	if (!entry || !(entry->kinds & 1u << kind) || entry->digest.size != info->digest.size ||
	    entry->allocated[kind] != (uint32_t)(info->allocated / BLOCK))
		return false;
	entry->seen |= (uint8_t)(1u << kind);
	return true;
}

struct catalog_entry *catalog_add(struct catalog *catalog, const struct blob_info *info, enum blob_kind kind,
				  bool *is_new)
{
	struct catalog_entry *entry = find_or_insert(catalog, &info->digest);

	if (!entry->kinds)
		appear(catalog, entry, info->digest.size, ++catalog->last_row);
	if (is_new)
		*is_new = !(entry->kinds & 1u << kind);
	set_kind(catalog, entry, kind, info->allocated);
	if (info->allocated >= CATALOG_FRESH_MIN)
		catalog_keep_fresh(catalog, &(struct catalog_fresh){ .digest = info->digest,
								     .kind = kind,
								     .allocated = info->allocated,
								     .since_ns = slice_now_ns() });
	entry->seen |= (uint8_t)(1u << kind);
	entry->stored |= (uint8_t)(1u << kind);
	entry->used = catalog_tick(catalog);
	return entry;
}

void catalog_look(struct catalog_entry *entry, enum blob_kind kind)
{
	entry->stored &= (uint8_t) ~(1u << kind);
}

bool catalog_was_stored(const struct catalog_entry *entry, enum blob_kind kind)
{
	return entry->kinds & entry->stored & 1u << kind;
}

struct catalog_entry *catalog_drop(struct catalog *catalog, struct catalog_entry *entry, enum blob_kind kind)
{
	set_kind(catalog, entry, kind, 0);
	entry->kinds &= (uint8_t) ~(1u << kind);
	entry->stored &= entry->kinds;
	if (entry->kinds)
		return entry;
	vanish(catalog, entry);
	entry->seen = 0;
	if (!entry->holds)
		give_entry_back(catalog, entry);
	return NULL;
}

uint64_t catalog_drop_other_size(struct catalog *catalog, const struct digest *digest)
{
	struct catalog_entry *entry = catalog_find(catalog, digest);
	uint64_t row;

	if (!entry || entry->digest.size == digest->size)
		return 0;
	row = entry->row;
	for (unsigned kind = 0; kind < BLOB_KINDS && entry; kind++)
		if (entry->kinds & 1u << kind)
			entry = catalog_drop(catalog, entry, kind);
	return row;
}

void catalog_hold(struct catalog *catalog, const struct digest *digest)
{
	struct catalog_entry *entry;

	if (digest_is_empty(digest))
		return;
	entry = find_or_insert(catalog, digest);
	if (entry->holds != UINT32_MAX)
		entry->holds++;
}

void catalog_release(struct catalog *catalog, const struct digest *digest, uint64_t used)
{
	struct catalog_entry *entry;

	if (digest_is_empty(digest))
		return;
	entry = map_find(&catalog->map, digest);
	assert(entry && entry->holds);
	entry->used = used > entry->used ? used : entry->used;
	if (entry->holds == UINT32_MAX || --entry->holds)
		return;
	if (!entry->kinds)
		give_entry_back(catalog, entry);
	else if (catalog->unheld)
		catalog->unheld(catalog->unheld_ctx, entry);
}

void catalog_watch(struct catalog *catalog, void (*unheld)(void *ctx, const struct catalog_entry *entry),
		   void *ctx)
{
	catalog->unheld = unheld;
	catalog->unheld_ctx = ctx;
}

void catalog_leaving(struct catalog *catalog, int64_t bytes)
{
	assert(bytes >= 0 || (uint64_t)-bytes <= catalog->totals.leaving);
	catalog->totals.leaving += (uint64_t)bytes;
}

void catalog_keep_fresh(struct catalog *catalog, const struct catalog_fresh *fresh)
{
	if (catalog->n_fresh < CATALOG_FRESH_MAX) {
		catalog->fresh = xgrow(catalog->fresh, catalog->n_fresh, &catalog->fresh_capacity,
				       sizeof(*catalog->fresh));
		catalog->fresh[catalog->n_fresh++] = *fresh;
	} else {
		catalog->fresh[catalog->next_fresh++ % CATALOG_FRESH_MAX] = *fresh;
	}
}

size_t catalog_take_fresh(struct catalog *catalog, struct catalog_fresh **fresh)
{
	size_t n = catalog->n_fresh;

	*fresh = TAKE(catalog->fresh);
	catalog->n_fresh = catalog->fresh_capacity = catalog->next_fresh = 0;
	return n;
}

struct catalog_entry *catalog_correct(struct catalog *catalog, const struct catalog_fresh *fresh)
{
	struct catalog_entry *entry = catalog_find(catalog, &fresh->digest);

	if (!entry || !(entry->kinds & 1u << fresh->kind) ||
	    entry->allocated[fresh->kind] == (uint32_t)(fresh->allocated / BLOCK))
		return NULL;
	set_kind(catalog, entry, fresh->kind, fresh->allocated);
	return entry;
}

uint64_t catalog_allocated(const struct catalog_entry *entry)
{
	return ((uint64_t)entry->allocated[BLOB_PLAIN] + entry->allocated[BLOB_EXEC]) * BLOCK;
}

struct index_blob catalog_row(const struct catalog_entry *entry)
{
	return (struct index_blob){
		.row = entry->row,
		.digest = entry->digest,
		.allocated = { (uint64_t)entry->allocated[BLOB_PLAIN] * BLOCK,
			       (uint64_t)entry->allocated[BLOB_EXEC] * BLOCK },
		.kinds = entry->kinds,
		.used = entry->used,
	};
}

struct index_blob catalog_row_of(const struct catalog_entry *entry, const struct blob_info *info,
				 enum blob_kind kind)
{
	struct index_blob row = catalog_row(entry);

	row.inodes[kind] = info->inode;
	return row;
}

uint64_t catalog_tick(struct catalog *catalog)
{
	struct timespec now;
	uint64_t us;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	us = (uint64_t)now.tv_sec * 1000000u + (uint64_t)now.tv_nsec / 1000u;
	catalog->last_tick = us > catalog->last_tick ? us : catalog->last_tick + 1;
	return catalog->last_tick;
}

void catalog_tick_seen(struct catalog *catalog, uint64_t used)
{
	/* Times from the far future (a clock that was wrong once) stay below the top of SQLite's integers. */
	if (used > catalog->last_tick && used < INT64_MAX)
		catalog->last_tick = used;
}

struct catalog_totals catalog_totals(const struct catalog *catalog)
{
	return catalog->totals;
}

bool catalog_may_have_size(const struct catalog *catalog, uint64_t size)
{
	return atomic_load_explicit(&catalog->size_hints[size_slot(size)], memory_order_relaxed);
}

static struct catalog_entry *if_stored(struct catalog_entry *entry)
{
	return entry && entry->kinds ? entry : NULL;
}

bool catalog_walk_is_over(const struct catalog *catalog, const struct map_walk *walk)
{
	return map_walk_is_over(&catalog->map, walk);
}

struct catalog_entry *catalog_walk_step(const struct catalog *catalog, struct map_walk *walk)
{
	return if_stored(map_walk_step(&catalog->map, walk));
}

size_t catalog_end(const struct catalog *catalog)
{
	return map_end(&catalog->map);
}

struct catalog_entry *catalog_at(const struct catalog *catalog, size_t position)
{
	return position < catalog_end(catalog) ? if_stored(map_slot(&catalog->map, position)) : NULL;
}
