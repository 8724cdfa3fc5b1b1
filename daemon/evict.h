/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Evict: what goes when the store is too large, and in which order.
 *
 * One clock orders cached trees and the blobs that nobody holds: the least recently used goes first. What
 * is in use, leased or tagged stays. A tree goes whole: its row in the index is dropped and committed, its
 * nodes give back their holds in slices, and the blobs that nobody else holds are next in line. Trees that
 * would all go, one after the other, go in a party: with one commit. A blob is unlinked by a worker, a
 * batch of them at a time, against claims (claims.h). So no cached tree ever lacks a blob.
 *
 *     choose the oldest ---- a blob: condemn ---> batch ---> worker: unlink ---> settle, drop its row
 *              ^    `------- trees: their rows ---> their blobs lose their last holds ------.
 *              `----------------------------------------------------------------------------'
 *
 * A *run* does that in slices, for as long as somebody wants room:
 *   - the space itself (space.h): above its high mark, down to its low one, in the background;
 *   - a request whose reservation was refused: evict_make_room();
 *   - an administrator: evict_gc().
 *
 * For the floor of free disk an inode with links elsewhere is passed over, since taking it out of the store
 * frees nothing, and so is a tree of which all files that only it holds are linked elsewhere.
 *
 * Loop only.
 */
#ifndef DIRCACHE_DAEMON_EVICT_H
#define DIRCACHE_DAEMON_EVICT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/digest.h"
#include "common/err.h"
#include "common/list.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/claims.h"
#include "daemon/counters.h"
#include "daemon/index.h"
#include "daemon/node.h"
#include "daemon/pool.h"
#include "daemon/room.h"
#include "daemon/slice.h"
#include "daemon/space.h"
#include "daemon/tags.h"
#include "daemon/tree.h"
#include "daemon/usage.h"

struct event_base;
struct evict;

struct evict_parts { /* all borrowed for good */
	struct event_base *base;
	struct pool *pool;
	struct slicer *slicer;
	struct blob_store *store;
	struct claims *claims;
	struct space *space;
	struct usage *usage;
	struct catalog *catalog;
	struct index *index;
	struct nodes *nodes;
	struct trees *trees;
	struct tags *tags;
	struct counters *counters;
};

struct evict *evict_new(const struct evict_parts *parts);
void evict_free(struct evict *evict); /* when it is not busy */
DEFINE_AUTO(evict);

/**
 * The index is read: measure the store, and watch its levels from now on.
 *
 * @was_clean  the last stop was: else an index may have been lost, and with it what the tagged trees are, and
 *             they are read first
 */
void evict_start(struct evict *evict, bool was_clean);

/* Were all tagged trees read since then? If not, this stop is not clean. */
bool evict_is_settled(const struct evict *evict);

/* Are there rows, of blobs that it has unlinked or put back, that the index was not given yet? */
bool evict_has_rows(const struct evict *evict);

/* The daemon stops: evict for those only who wait for room. */
void evict_stop(struct evict *evict);

/* Is anything being evicted or measured? */
bool evict_is_busy(const struct evict *evict);

/* Bytes of disk that the store takes, each inode once, with what was last measured (usage.h). */
uint64_t evict_allocated(const struct evict *evict);

/* ---- room for a request ---- */

/* Make room for a reservation of so many bytes; the store could hold them. */
void evict_make_room(struct evict *evict, uint64_t need, struct room_waiter *waiter);

/* ---- on demand ---- */

struct evict_tree {
	struct digest digest;
	uint64_t used;
	uint64_t bytes; /* allocated, of the blobs that only it held: what its eviction gives back */
};

struct evict_gc {
	/* In. */
	bool has_to;
	uint64_t to; /* bytes that the store may take afterwards; without: see evict_gc() */
	bool dry_run;
	size_t max_trees; /* that are named */

	/* Called once, on the loop, never from within evict_gc(). */
	void (*done)(struct evict_gc *gc);

	/* Out. */
	struct evict_tree *trees; /* in the order they went; free() */
	size_t n_listed, n_trees, n_blobs;
	uint64_t bytes;  /* allocated, of the blobs that went */
	uint64_t before; /* bytes that the store took when it began */

	/* Private. */
	struct evict *evict;
	size_t capacity;
	uint64_t goal;
	bool unheld_only;
	struct usage_waiter measuring;
	struct list link;
};

/**
 * Evict now: down to `to` bytes; without, to the low mark where the store has a cap, and where it has none
 * all blobs that nobody holds.
 *
 * A dry run changes nothing, and says what the same call would do now.
 */
void evict_gc(struct evict *evict, struct evict_gc *gc);

/* Stop, if it is still under way: done() is called soon, with what went by then. */
void evict_gc_cancel(struct evict_gc *gc);

#endif
