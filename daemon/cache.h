/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Cache: one store, opened: the disk, the index and the maps that all requests share, and their start and
 * stop.
 *
 *     cache_open    lock the store, make its folders, start the workers: done before the socket listens
 *     cache_load    read the index, in the background; then `ready`, then warming and sweeping behind the
 * requests cache_close   when no request is left: write what is to be written, mark the stop as clean
 *
 * Loop only.
 */
#ifndef DIRCACHE_DAEMON_CACHE_H
#define DIRCACHE_DAEMON_CACHE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/err.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/claims.h"
#include "daemon/counters.h"
#include "daemon/evict.h"
#include "daemon/flight.h"
#include "daemon/index.h"
#include "daemon/lease.h"
#include "daemon/mount.h"
#include "daemon/node.h"
#include "daemon/pool.h"
#include "daemon/recover.h"
#include "daemon/room.h"
#include "daemon/slice.h"
#include "daemon/space.h"
#include "daemon/staging.h"
#include "daemon/syncer.h"
#include "daemon/tags.h"
#include "daemon/tree.h"
#include "daemon/usage.h"
#include "daemon/users.h"
#include "daemon/uses.h"
#include "daemon/writers.h"

struct event_base;
struct verify;

struct cache_config {
	const char *store; /* the folder; made when missing */
	size_t n_workers;
	size_t n_spare; /* more of them, so that no user's jobs, which get n_workers, keep all */
	struct tree_limits limits;
	uint64_t node_memory; /* bytes for parsed Directories that nobody uses just now: see tree.h */
	struct space_limits space;
	struct user_limits user; /* tags and leases, of these */
};

enum { CACHE_LOAD_AHEAD = 16 };

struct cache {
	struct event_base *base;
	struct cache_config config;
	int store_fd, lock_fd;
	struct pool *pool;
	size_t n_hands; /* workers that one request's crew may have: as many as CPUs, for more only wait for
			   each other */
	struct pool_queue *chores; /* small jobs that belong to no request: closing descriptors, sweeping */
	struct slicer *slicer;
	struct blob_store *store;
	struct space *space;
	struct claims *claims;
	struct mount *mount;
	struct room room; /* made by eviction */
	struct staging *staging;
	struct writers *writers;
	struct index *index;
	struct catalog *catalog;
	struct flights *flights;
	struct nodes *nodes;
	struct trees *trees;
	struct leases *leases;
	struct tags *tags;
	struct uses *uses;
	struct usage *usage;
	struct evict *evict;
	struct syncer *syncer;
	struct recovery *recovery; /* NULL until the index is read */
	struct counters counters;
	uint64_t started_ns;
	size_t n_ending;       /* puts that are being forgotten */
	struct verify *verify; /* the one that is under way, or NULL */
	bool ready;
	bool stopping;  /* begin nothing in the background */
	bool was_clean; /* the last stop */
	bool is_empty;  /* no blob was there when the store was opened */

	/* Private: while the index is read. */
	bool loading;
	struct index_sink sink;
	uint64_t load_synced; /* rows used since are suspects */
	bool load_clean;      /* index and files were the same at the last stop */
	size_t n_tags_differ;
	struct suspects suspects;      /* until the recovery has them */
	struct blob_vouchers vouchers; /* what other rows say of inodes, until the store has them */
	struct index_blob ahead[CACHE_LOAD_AHEAD]; /* a ring of rows not in the catalog yet */
	size_t n_loaded_blobs;                     /* that came into it */
	struct index_batch *rows_to_mend;          /* of rows that are not as they should be */
	struct index_tree *loaded_trees;
	size_t n_loaded_trees, loaded_trees_capacity;
	void (*loaded)(void *ctx, int r, const struct err *err);
	void *loaded_ctx;
	struct slice load_slice;
};

/**
 * Open a store.
 *
 * Return: 0, or a negative errno; -EWOULDBLOCK when another daemon has it (err says which).
 */
int cache_open(struct cache *cache, struct event_base *base, const struct cache_config *config,
	       struct err *err);

/* Read the index; loaded(ctx) is called on the loop, with r < 0 and err when the store cannot be used. */
void cache_load(struct cache *cache, void (*loaded)(void *ctx, int r, const struct err *err), void *ctx);

/* Begin nothing more in the background. */
void cache_stop(struct cache *cache);

/* Is anything under way that a stop should wait for? */
bool cache_busy(const struct cache *cache);

/* Close; also one that is half open. Workers are waited for. */
void cache_close(struct cache *cache);

/* The levels among the counters, brought up to date; `requests_active` and `connections` are the server's. */
const struct counters *cache_count(struct cache *cache);

#endif
