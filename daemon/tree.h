/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Trees: the directory cache. A tree is *cached* once its root node was resolved (node.h), and every request
 * for it, or for a Directory below it, is a hit from then on, after a restart too.
 *
 *     tree_get ---- cached, in memory ----------------------------------------> done (hit)
 *          |------- cached, nodes not in memory -> read them again -----------> done (hit)
 *          |------- under way for another -> wait ----------------------------> done (join)
 *          |                                  `- missing, and there by now: once more
 *          `------- else: a construction -------------------------------------> done (miss)
 *
 * Cached trees are in order of use. Times of use and hits are written to the index at most 250 ms later; a
 * hit writes nothing itself. Loop only.
 */
#ifndef DIRCACHE_DAEMON_TREE_H
#define DIRCACHE_DAEMON_TREE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/err.h"
#include "common/list.h"
#include "daemon/catalog.h"
#include "daemon/counters.h"
#include "daemon/index.h"
#include "daemon/node.h"

struct event_base;
struct slice;
struct trees;

/* Limits of what is cached and materialized, checked before anything is made. */
struct tree_limits {
	uint64_t files, directories, depth; /* as many symlinks as files */
	uint64_t bytes;                     /* of all files; 0: no limit */
	uint64_t entries;                   /* of one Directory: checked when it is read */
};
extern const struct tree_limits tree_default_limits;

struct trees_parts { /* all borrowed for good */
	struct event_base *base;
	struct nodes *nodes;
	struct catalog *catalog; /* for its clock */
	struct index *index;
	struct slicer *slicer;
	struct counters *counters;
	struct tree_limits limits;
	uint64_t node_memory; /* bytes that nodes may take for trees that nobody uses */
};

struct trees *trees_new(const struct trees_parts *parts);
void trees_free(struct trees *trees); /* when no request waits; times of use not written yet are lost */
DEFINE_AUTO(trees);

enum tree_purpose {
	TREE_FOR_MATERIALIZE, /* counts one hit, miss or join; the tree is cached from then on, and used now
			       */
	TREE_FOR_PUT,         /* counts nothing; the tree is cached from then on, and used now */
	TREE_FOR_LOOK,        /* counts nothing, caches nothing */
};

enum tree_cache { TREE_HIT, TREE_MISS, TREE_JOIN };

struct tree_request {
	/*
	 * Called once, perhaps from within tree_get(): r is 0 with node (a reference for the receiver, who
	 * gives it back with node_put()), or negative with err and the missing digests, which live until this
	 * returns.
	 */
	void (*done)(struct tree_request *request, int r);

	enum tree_cache cache;
	struct node *node;
	const struct err *err;
	const struct digest *missing;
	size_t n_missing;

	/* Private. */
	enum tree_purpose purpose;
	struct digest digest;
	struct trees *trees;
	bool came_late;
	unsigned n_tries;
	struct node_waiter waiter;
	struct list link;
};

/* Get a resolved tree. One beyond the limits is refused (ERR_RESOURCE_EXHAUSTED), but for a look. */
void tree_get(struct trees *trees, const struct digest *digest, enum tree_purpose purpose,
	      struct tree_request *request);

/* Wait no longer. What is under way goes on for the others and for the cache. */
void tree_cancel(struct tree_request *request);

/* Take in what the index had, before the loop runs anything else here. */
void tree_load(struct trees *trees, const struct index_tree *tree);

/**
 * After tree_load(): read the nodes of all cached trees in the background, the last used first. Until that is
 * done, a request for a Directory that is no cached tree itself waits: it may be below one, and so a hit. A
 * tree that cannot be read is cached no more, for its holds could not be taken.
 */
void trees_warm(struct trees *trees);

/**
 * Have all cached trees been read since the start? Until then it is not known which blobs they need, and
 * nothing may be evicted.
 */
bool trees_may_evict(const struct trees *trees);

/* Start a slice once all cached trees have been read, or the daemon stops; now, where that is so. */
void trees_start_when_read(struct trees *trees, struct slice *slice);

/* Warm no more trees, and evict none: the daemon stops. */
void trees_stop_warming(struct trees *trees);

/* Are cached trees being read in the background, or put to sleep? */
bool trees_busy(const struct trees *trees);

size_t trees_n(const struct trees *trees);

/* Write times of use to the index now, as is done every 250 ms. */
void trees_flush(struct trees *trees);

/**
 * List the cached trees, the last used first.
 *
 * @offset  skip so many
 *
 * Return: the number of rows written, at most max.
 */
size_t trees_list(const struct trees *trees, size_t offset, struct index_tree *rows, size_t max);

/* Visit all cached trees between two positions (0 to trees_end()), in no order. Return: is there one? */
size_t trees_end(const struct trees *trees);
bool trees_at(const struct trees *trees, size_t position, struct digest *digest);

/**
 * Keep a cached tree from eviction: it is in use, or leased. Counted.
 *
 * Return: is it cached? If not, nothing is held.
 */
bool trees_hold(struct trees *trees, const struct digest *digest);

/* Give a hold of trees_hold() back. */
void trees_unhold(struct trees *trees, const struct digest *digest);

/* Is it cached, and held by nobody: may it be evicted? */
bool trees_may_go(const struct trees *trees, const struct digest *digest);

struct tree_victim {
	struct digest digest;
	uint64_t used;
	struct node *node; /* borrowed until the loop runs on; NULL when it could not be read since the start,
			      but was in use then */
};

/**
 * Find the cached tree that was not used for the longest time.
 *
 * @skip  is this one to be passed over? Held trees are anyway. Time is linear in what is passed over: tags,
 *        leases and requests have limits
 *
 * Return: is there one?
 */
bool trees_oldest(const struct trees *trees, bool (*skip)(void *ctx, const struct digest *digest), void *ctx,
		  struct tree_victim *victim);

/**
 * Evict a tree that is cached and not held. It is out of the cache at once; then its row is dropped, and when
 * that is committed its node is put, so that its blobs lose their holds (see nodes_releasing()).
 *
 * @done  on the loop, after that; r < 0 with err when the row could not be dropped: the tree is cached again
 */
void trees_evict(struct trees *trees, const struct digest *digest,
		 void (*done)(void *ctx, int r, const struct err *err), void *ctx);

#endif
