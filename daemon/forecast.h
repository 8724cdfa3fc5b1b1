/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Forecast: which blobs would lose their last hold if trees were evicted, one after the other; and what a
 * tree reaches. Nothing is changed: what would be given back is counted beside the real counts (node
 * references, holds), and only what comes to all of them is looked into. So the cost grows with what would
 * go, not with the trees.
 *
 * In steps, for a slice. It is right about the moment; what is held or released meanwhile it may miss.
 * Loop only.
 */
#ifndef DIRCACHE_DAEMON_FORECAST_H
#define DIRCACHE_DAEMON_FORECAST_H

#include <stdbool.h>

#include "common/auto.h"
#include "daemon/catalog.h"
#include "daemon/node.h"
#include "daemon/pool.h"

struct forecast;

enum forecast_of {
	FORECAST_RELEASE, /* what evicting trees would leave to nobody; trees before count as evicted */
	FORECAST_REACH,   /* all blobs of a tree, each once */
};

/* @chores: the queue of the worker that gives its memory back when it is much. Both are borrowed. */
struct forecast *forecast_new(const struct catalog *catalog, struct pool_queue *chores, enum forecast_of of);
void forecast_free(struct forecast *forecast); /* NULL is fine */
DEFINE_AUTO(forecast);

/**
 * Begin with a tree.
 *
 * @root   borrowed until its last step: resolved and in memory; the caller has one reference to it that is
 *         not the tree's
 * @found  called by forecast_step() for each blob, once in the life of the forecast
 */
void forecast_tree(struct forecast *forecast, const struct node *root,
		   void (*found)(void *ctx, const struct catalog_entry *entry), void *ctx);

/* Go some steps on with it. Return: is more left? */
bool forecast_step(struct forecast *forecast);

#endif
