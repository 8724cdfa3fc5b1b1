/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees of files of one size, to be evicted; and `gc`.
 */
#ifndef DIRCACHE_TESTS_UNIT_EVICTING_H
#define DIRCACHE_TESTS_UNIT_EVICTING_H

#include "tests/unit/daemon.h"

/* Trees are made of files of so many bytes; on disk, where a block is 4096 bytes or less, they take as many.
 */
enum { SIZE = 25 * 4096 };

static struct draft draft;

static inline struct digest store_file(char fill)
{
	static char bytes[SIZE];

	memset(bytes, fill, sizeof(bytes));
	return store_bytes(bytes, sizeof(bytes), BLOB_PLAIN, true);
}

/* A clean stop, after which the index knows all that the catalog does. */
static inline void stop_with_index(void)
{
	struct index_batch *batch = index_batch_new();

	for (size_t i = 0; i < catalog_end(cache.catalog); i++) {
		const struct catalog_entry *entry = catalog_at(cache.catalog, i);

		if (entry) {
			struct index_blob row = catalog_row(entry);

			index_batch_put_blob(batch, &row);
		}
	}
	index_submit(cache.index, batch, NULL, NULL);
	stop_cache();
}

/* A cached tree with a file for each letter; used now. */
static inline struct digest cache_tree(const char *letters)
{
	static char names[256][2];
	struct digest digest;

	draft_init(&draft);
	for (const char *p = letters; *p; p++) {
		names[(unsigned char)*p][0] = *p;
		draft_file(&draft, names[(unsigned char)*p], store_file(*p), false);
	}
	digest = draft_store(&draft);
	(void)use_tree(&digest);
	run_until_idle();
	return digest;
}

static inline void use(const struct digest *digest)
{
	ck_assert_int_eq(use_tree(digest), TREE_HIT);
	run_until_idle();
}

static inline bool is_cached(const struct digest *digest)
{
	if (!trees_hold(cache.trees, digest))
		return false;
	trees_unhold(cache.trees, digest);
	return true;
}

/* In the catalog and on the disk, or in neither. */
static inline bool is_stored(const struct digest *digest)
{
	bool is_there = blob_stat(cache.store, digest, BLOB_PLAIN, NULL, NULL) == 0;

	ck_assert_int_eq(catalog_has(cache.catalog, digest, BLOB_PLAIN), is_there);
	return is_there;
}

static inline bool has_file(char fill)
{
	static char bytes[SIZE];
	struct digest digest;

	memset(bytes, fill, sizeof(bytes));
	hash_bytes(bytes, sizeof(bytes), &digest);
	return is_stored(&digest);
}

/* ---- gc ---- */

struct collected {
	struct evict_gc gc;
	bool done;
};

static bool is_measured;

static inline void on_collected(struct evict_gc *gc)
{
	struct collected *collected = CONTAINER_OF(gc, struct collected, gc);

	ck_assert(!collected->done);
	collected->done = true;
}

static inline void begin_gc(struct collected *collected)
{
	collected->done = false;
	collected->gc.max_trees = 100;
	collected->gc.done = on_collected;
	evict_gc(cache.evict, &collected->gc);
	ck_assert(!collected->done);
}

static inline void on_measured(struct usage_waiter *waiter, int r, const struct err *why)
{
	(void)waiter;
	(void)why;
	ck_assert_int_eq(r, 0);
	is_measured = true;
}

/* What the store takes, when nothing is under way. */
static inline uint64_t measure(void)
{
	struct usage_waiter waiter = { .measured = on_measured };

	run_until_idle();
	is_measured = false;
	usage_measure(cache.usage, &waiter);
	run_until_set(&is_measured);
	return evict_allocated(cache.evict);
}

/* Evict so many bytes, or with dry_run see what would go. */
static inline void collect(struct collected *collected, uint64_t bytes, bool dry_run)
{
	uint64_t takes = measure();

	*collected = (struct collected){ .gc = { .has_to = true, .dry_run = dry_run } };
	collected->gc.to = takes > bytes ? takes - bytes : 0;
	begin_gc(collected);
	run_until_set(&collected->done);
}

static inline void collected_fini(struct collected *collected)
{
	free(collected->gc.trees);
	run_until_idle();
}

/* Let one file go, or a tree's only one and its Directory. */
enum { ONE_FILE = 1, ONE_TREE = SIZE + 1, ALL = 1 << 30 };

static inline void gc(uint64_t bytes)
{
	struct collected collected;

	collect(&collected, bytes, false);
	collected_fini(&collected);
}

#endif
