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

/*
 * A walk over the cached trees in the order of their use, in steps: it goes on from where it is, whatever
 * happens to the trees meanwhile. One that is used comes to the young end, and so may be met again, or not.
 */
struct tree_walk {
	/* Private. */
	struct trees *trees;
	struct list *at; /* the next one, in the order; or its head, at the end */
	bool youngest_first;
	uint64_t number;
	struct list link;
};

void tree_walk_begin(struct trees *trees, struct tree_walk *walk, bool youngest_first);
void tree_walk_end(struct tree_walk *walk); /* it was begun, or is all zero */

/* Go back to the beginning. */
void tree_walk_rewind(struct tree_walk *walk);

/* List the next trees. Return: the number of rows written: fewer than max at the end. */
size_t tree_walk_list(struct tree_walk *walk, struct index_tree *rows, size_t max);

/* Pass over the next trees. Return: how many: fewer than n at the end. */
size_t tree_walk_skip(struct tree_walk *walk, size_t n);

/* Visit all cached trees, in no order, in steps: map.h. Return of the step: is there one, here? */
bool trees_visit_is_over(const struct trees *trees, const struct map_walk *walk);
bool trees_visit_step(const struct trees *trees, struct map_walk *walk, struct digest *digest);

/* The row of one cached tree. Return: is it cached? */
bool trees_row(const struct trees *trees, const struct digest *digest, struct index_tree *row);

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
	uint64_t n_entries; /* files and Directories, with repetitions */
	bool is_known;      /* what it holds is; not when it could not be read since the start, but was in
			       use then */
};

enum tree_found { TREE_FOUND, TREE_NONE, TREE_LOOK_ON };

/**
 * Find the next tree that may be evicted, from where a walk is: one that is not held, skipped or passed over.
 * The walk stays there: the same is found again until tree_walk_leave().
 *
 * @walk  from the oldest on
 * @skip  is this one to stay?
 *
 * Return: TREE_FOUND with a victim, TREE_NONE at the end, TREE_LOOK_ON after some steps.
 */
enum tree_found tree_walk_find(struct tree_walk *walk, bool (*skip)(void *ctx, const struct digest *digest),
			       void *ctx, struct tree_victim *victim);

/* Go on from a tree that was found, if the walk is still there: it is not, when the tree was used since. */
void tree_walk_leave(struct tree_walk *walk, const struct digest *digest);

/* Do not find this tree again in this walk. */
void tree_walk_pass_over(struct tree_walk *walk, const struct digest *digest);

/* Was it used, or evicted, since it was found? */
bool trees_used_since(const struct trees *trees, const struct tree_victim *victim);

enum { TREES_EVICT_MAX = 256 /* at once: that takes some ten microseconds */ };

/**
 * Evict trees that are cached and not held. They are out of the cache at once; then their rows are dropped,
 * in one commit, and only then may each let its blobs go: trees_release_one().
 *
 * @victims  copied; their digests alone matter
 * @done     on the loop, after the commit; r < 0 with err when it could not be made: they are cached again
 */
void trees_evict(struct trees *trees, const struct tree_victim *victims, size_t n,
		 void (*done)(void *ctx, int r, const struct err *err), void *ctx);

/*
 * Of the trees whose rows are gone let the next one's node go, in their order, so that its blobs lose their
 * holds (see nodes_releasing()). To be called once for each that was evicted.
 */
void trees_release_one(struct trees *trees);

#endif
