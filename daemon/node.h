/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes: parsed Directories, interned by digest: the Merkle DAG in memory.
 *
 * However many trees hold a Directory, there is one node, immutable. A node is *resolved* when every
 * Directory below it was read and checked and every blob below it is in the store, in the kind that its
 * FileNode asks for.
 *
 *     load    workers read and decode Directories, a few at a time
 *     scan    the loop, in slices: look up every blob (a missing kind joins a flight) and every child
 *             (known, being loaded for another, or new: load it)
 *     settle  a node whose children and flights have all ended is resolved, or failed with the digests that
 *             are absent below it; its parents hear of it. Nothing here recurses.
 *
 * A failed node leaves the map at once: those who waited hear why, and the next who asks starts anew.
 * No cycle can be: every Directory read is compared with its digest.
 *
 * Holds. Every node holds blobs in the catalog: its own Directory's from the beginning, and that of each file
 * as it is scanned, there or not. It releases them, in slices, when its last reference is given back.
 *
 * Sleep. A *reference* keeps a node and its holds; a *pin* beside it keeps its contents, the parsed Directory
 * and the pointers to its children, which it pins in turn: all below a pinned node is awake. What nobody pins
 * falls asleep: contents are given back, digest, totals, holds and the references to its children stay. A pin
 * wakes it: its Directory is read again, as it is when a sleeping node has to know what to release. That is
 * neither hit nor miss.
 *
 * Hash and size together name a node, so that who gives a wrong size for a hash is in nobody's way.
 *
 * Loop only; digest, directory, children and totals of a resolved node may be read by any thread while a
 * reference and a pin are held.
 */
#ifndef DIRCACHE_DAEMON_NODE_H
#define DIRCACHE_DAEMON_NODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/directory.h"
#include "common/err.h"
#include "common/list.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/counters.h"
#include "daemon/flight.h"
#include "daemon/pool.h"
#include "daemon/slice.h"

struct nodes;

/* All of these saturate at UINT64_MAX: a DAG of 40 Directories can stand for 2^40. */
struct tree_totals {
	uint64_t n_files, n_directories, n_symlinks; /* n_directories counts the root */
	uint64_t bytes;                              /* sum of the files' sizes */
	uint64_t depth;                              /* levels: 1 for a Directory without Directories */
};

struct node {
	struct digest digest;        /* first: the key in the map */
	struct directory *directory; /* NULL while asleep */
	struct node **children;      /* in the order of directory->directories; NULL while asleep */
	struct tree_totals totals;   /* computed once, when first resolved */
};

enum { NODE_MISSING_MAX = 100 }; /* absent digests that are named */

/* Why a node, or one below it, could not be resolved. */
struct node_failure {
	int r; /* negative errno */
	struct err err;
	size_t n_missing;
	struct digest missing[NODE_MISSING_MAX];
};

struct node_waiter {
	/* failure: NULL when the node is resolved now; else borrowed for the call. May free the waiter. */
	void (*settled)(struct node_waiter *waiter, const struct node_failure *failure);
	struct list link; /* private */
};

struct nodes_parts { /* all borrowed for good */
	struct pool *pool;
	struct blob_store *store;
	struct catalog *catalog;
	struct flights *flights;
	struct slicer *slicer;
	struct counters *counters;
	size_t max_entries; /* of one Directory */
};

struct nodes *nodes_new(const struct nodes_parts *parts);
void nodes_free(struct nodes *nodes); /* when nothing is under way and no reference is held */
DEFINE_AUTO(nodes);

/* The node of a Directory, resolved, asleep or under way, or NULL. Not a new reference. */
struct node *nodes_find(const struct nodes *nodes, const struct digest *digest);

/**
 * Get the node of a Directory, and have it resolved if nobody has begun that yet, or woken.
 *
 * @recall  it was resolved before and only its memory is gone: the Directories read count as neither hit nor
 *          miss
 *
 * Return: a new reference and pin, as node_get().
 */
struct node *nodes_resolve(struct nodes *nodes, const struct digest *digest, bool recall);

/**
 * Take in a Directory that was just stored, children first; all its blobs are in the catalog.
 *
 * @directory  taken over
 *
 * Return: a new reference and pin, as node_get().
 */
struct node *nodes_adopt(struct nodes *nodes, const struct digest *digest, struct directory *directory);

/* Is it resolved and awake? Else wait for it: a node that one has pinned is that, or under way to it. */
bool node_is_resolved(const struct node *node);

/* How many references to it there are, from parents, cached trees and requests. */
size_t node_references(const struct node *node);

/* Was it resolved before, and is awake, asleep or being read again? */
bool node_was_resolved(const struct node *node);

/* Wait for a node that is under way; leave by node_wait_no_longer(). settled() is never called from within.
 */
void node_wait(struct node *node, struct node_waiter *waiter);
void node_wait_no_longer(struct node_waiter *waiter);

/* A reference and a pin; a sleeping node begins to wake. */
struct node *node_get(struct node *node);
void node_put(struct node *node); /* NULL is fine; memory and holds go later, in slices */

/* A pin alone, beside a reference. */
void node_pin(struct node *node);
void node_unpin(struct node *node);

/* Give back a reference that has no pin any more; what is released by it was used at this time. */
void node_drop(struct node *node, uint64_t used);

/* What the contents of all that is awake take in memory, in bytes. */
uint64_t nodes_memory(const struct nodes *nodes);

size_t nodes_n(const struct nodes *nodes);

/* Nodes that are neither resolved nor failed yet. */
size_t nodes_n_under_way(const struct nodes *nodes);

/* Loads, scans, settlements and releases under way. */
bool nodes_busy(const struct nodes *nodes);

/* Are contents that nobody pins still being given back? That takes no I/O. */
bool nodes_dozing(const struct nodes *nodes);

/* Are there nodes without references whose holds are not all released yet? */
bool nodes_releasing(const struct nodes *nodes);

/* Be told when there are none any more. One watcher. */
void nodes_watch(struct nodes *nodes, void (*released)(void *ctx), void *ctx);

#endif
