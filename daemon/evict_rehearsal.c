/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include "common/alloc.h"

/*
 * A dry run: the order of a real one, with a forecast in the place of each eviction. What a tree would give
 * back joins the candidates, as it does when it happens.
 */
struct evict_rehearsal {
	struct evict *evict;
	struct evict_gc *gc;
	struct slice slice;
	struct candidates candidates; /* that nobody holds */
	struct candidates released;   /* that nobody would hold */
	struct forecast *forecast;
	struct tree_walk walk;
	uint64_t until; /* trees that were used since it began stay */
	struct tree_victim victim;
	struct tree_request request;
	struct node *node;   /* of the tree that goes, a reference; or NULL */
	uint64_t given_back; /* bytes */
	bool is_waiting;
};

static struct evict_gc *first(const struct evict *evict)
{
	return list_is_empty(&evict->rehearsals) ? NULL
						 : LIST_ENTRY(evict->rehearsals.next, struct evict_gc, link);
}

static void end(struct evict_rehearsal *rehearsal)
{
	struct evict *evict = rehearsal->evict;
	struct evict_gc *gc = rehearsal->gc;

	tree_walk_end(&rehearsal->walk);
	candidates_fini(&rehearsal->candidates, evict->queue);
	candidates_fini(&rehearsal->released, evict->queue);
	forecast_free(rehearsal->forecast);
	node_put(rehearsal->node);
	free(rehearsal);
	evict->rehearsal = NULL;
	list_remove(&gc->link);
	gc->done(gc);
	evict_rehearse(evict);
}

/* ---- a tree goes ---- */

static bool is_tagged(void *ctx, const struct digest *digest)
{
	const struct evict_rehearsal *rehearsal = ctx;

	return tags_pin(rehearsal->evict->parts.tags, digest);
}

static void on_found(void *ctx, const struct catalog_entry *entry)
{
	struct evict_rehearsal *rehearsal = ctx;
	uint64_t used = rehearsal->victim.used;

	rehearsal->given_back += catalog_allocated(entry);
	candidates_add(&rehearsal->released, &entry->digest, entry->used > used ? entry->used : used);
}

static void on_tree(struct tree_request *request, int r)
{
	struct evict_rehearsal *rehearsal = CONTAINER_OF(request, struct evict_rehearsal, request);

	rehearsal->is_waiting = false;
	rehearsal->node = request->node;
	if (r == 0)
		forecast_tree(rehearsal->forecast, rehearsal->node, on_found, rehearsal);
	slice_start(rehearsal->evict->parts.slicer, &rehearsal->slice);
}

static void take_tree(struct evict_rehearsal *rehearsal, const struct tree_victim *victim)
{
	tree_walk_leave(&rehearsal->walk, &victim->digest);
	rehearsal->victim = *victim;
	rehearsal->given_back = 0;
	if (!victim->is_known) { /* it could not be read, so it holds nothing */
		evict_list_tree(rehearsal->gc, &victim->digest, victim->used, 0);
		return;
	}
	rehearsal->is_waiting = true;
	rehearsal->request.done = on_tree;
	tree_get(rehearsal->evict->parts.trees, &victim->digest, TREE_FOR_LOOK, &rehearsal->request);
}

static void end_tree(struct evict_rehearsal *rehearsal)
{
	evict_list_tree(rehearsal->gc, &rehearsal->victim.digest, rehearsal->victim.used,
			rehearsal->given_back);
	node_put(TAKE(rehearsal->node));
}

/* ---- choosing ---- */

static void take_blob(struct evict_rehearsal *rehearsal, const struct digest *digest)
{
	const struct evict_parts *parts = &rehearsal->evict->parts;
	const struct catalog_entry *entry = catalog_find(parts->catalog, digest);

	if (!entry || tags_pin(parts->tags, digest))
		return;
	rehearsal->gc->n_blobs++;
	rehearsal->gc->bytes += catalog_allocated(entry);
}

static bool is_done(const struct evict_rehearsal *rehearsal)
{
	const struct evict_gc *gc = rehearsal->gc;

	return rehearsal->evict->stopping || (!gc->unheld_only && gc->bytes >= gc->goal);
}

/* As evict_run.c does it. Return: does it go on? */
static bool choose(struct evict_rehearsal *rehearsal)
{
	struct candidates *of = &rehearsal->candidates;
	enum tree_found found = TREE_NONE;
	struct tree_victim victim;

	if (!rehearsal->gc->unheld_only)
		found = tree_walk_find(&rehearsal->walk, is_tagged, rehearsal, &victim);
	if (found == TREE_LOOK_ON)
		return true;
	if (candidates_bound(&rehearsal->released) < candidates_bound(of))
		of = &rehearsal->released;
	if (found == TREE_FOUND && victim.used < candidates_bound(of) && victim.used < rehearsal->until) {
		take_tree(rehearsal, &victim);
	} else if (candidates_first(of)) {
		take_blob(rehearsal, &candidates_first(of)->digest);
		candidates_drop_first(of);
	} else if (candidates_has_more(of)) {
		candidates_find(of, rehearsal->evict->parts.catalog, true);
	} else {
		return false;
	}
	return true;
}

static bool rehearsal_step(struct slice *slice)
{
	struct evict_rehearsal *rehearsal = CONTAINER_OF(slice, struct evict_rehearsal, slice);

	if (rehearsal->is_waiting)
		return false;
	if (candidates_step(&rehearsal->candidates, rehearsal->evict->parts.catalog))
		return true;
	if (rehearsal->node) {
		if (forecast_step(rehearsal->forecast))
			return true;
		end_tree(rehearsal);
	}
	if (!is_done(rehearsal) && choose(rehearsal))
		return true;
	end(rehearsal);
	return false;
}

void evict_rehearse(struct evict *evict)
{
	struct evict_rehearsal *rehearsal;
	struct evict_gc *gc = first(evict);

	if (evict->rehearsal || !gc)
		return;
	if (!evict_may_choose(evict) &&
	    !evict->stopping) { /* as a real one: what trees hold is not all known */
		evict_retry_soon(evict);
		return;
	}
	rehearsal = xcalloc(1, sizeof(*rehearsal));
	rehearsal->evict = evict;
	rehearsal->gc = gc;
	rehearsal->forecast = forecast_new(evict->parts.catalog, evict->queue, FORECAST_RELEASE);
	rehearsal->released.keeps_all = true; /* no walk would find them */
	rehearsal->until = catalog_tick(evict->parts.catalog);
	tree_walk_begin(evict->parts.trees, &rehearsal->walk, false);
	candidates_find(&rehearsal->candidates, evict->parts.catalog, false);
	slice_init(&rehearsal->slice, rehearsal_step);
	evict->rehearsal = rehearsal;
	slice_start(evict->parts.slicer, &rehearsal->slice);
}
