/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include "common/alloc.h"
#include "common/log.h"

/*
 * Trees go in parties, for each commit has its price. A party is gathered from the oldest tree on, and ends
 * where waiting for each tree by itself might have ended: when all that the trees in it leave to nobody
 * (forecast.h) is as much as is wanted. So no tree goes that would have stayed. The rows of a party go in one
 * commit; then its trees are released one after the other, so that it is known what each has left.
 *
 * Where free disk is wanted a worker looks whether any file that a tree leaves has no links elsewhere; else
 * the tree is passed over.
 *
 *     LOOKING ---> (the next tree) ---> LOOKING ---> ... ---> LEAVING ---> RELEASING ---> over
 */
enum {
	CHUNK = 1024,  /* blobs that a worker looks at in one job */
	LARGE = 16384, /* entries: to foresee what a tree leaves costs more than a commit, and memory */
};

enum party_state {
	GATHERING, /* for another tree to join, or none */
	LOOKING,   /* into the tree that joins */
	LEAVING,   /* their rows are being dropped */
	RELEASING, /* one after the other */
};

struct evict_party {
	struct evict *evict;
	enum party_state state;
	struct tree_victim victims[TREES_EVICT_MAX];
	size_t n;
	bool must_free;
	struct forecast *forecast; /* of all that is in it */
	uint64_t promised;         /* bytes that they leave to nobody */
	uint64_t n_entries;

	/* LOOKING. */
	struct tree_victim victim;
	struct tree_request request;
	struct node *node; /* a reference */
	bool is_waiting;   /* for the tree, or for the worker */
	bool is_through;   /* no blobs are left to be found */

	/* RELEASING. */
	size_t n_released;
	uint64_t released; /* bytes of the blobs that the tree at hand gave back so far */

	struct job job;

	/* In. */
	struct blob_store *store;
	struct index_blob *blobs; /* digest and kinds are set */
	size_t n_blobs, capacity;

	/* Out. */
	bool frees;
};

static void party_free(struct evict_party *party)
{
	party->evict->party = NULL;
	forecast_free(party->forecast);
	free(party->blobs);
	free(party);
}

/* Nobody wants it to go any more. */
static void disperse(struct evict_party *party)
{
	tree_walk_rewind(&party->evict->walk);
	party_free(party);
}

/* ---- looking into a tree ---- */

static enum job_next look_run(struct job *job)
{
	struct evict_party *party = CONTAINER_OF(job, struct evict_party, job);

	for (size_t i = 0; i < party->n_blobs && !party->frees; i++)
		for (unsigned kind = 0; kind < BLOB_KINDS; kind++) {
			const struct index_blob *blob = &party->blobs[i];
			uint64_t bytes;

			if (blob->kinds & 1u << kind &&
			    blob_has_no_other_link(party->store, &blob->digest, kind, &bytes))
				party->frees |= bytes > 0;
		}
	return JOB_DONE;
}

static void look_done(struct job *job)
{
	struct evict_party *party = CONTAINER_OF(job, struct evict_party, job);

	party->n_blobs = 0;
	party->is_waiting = false;
	evict_run_kick(party->evict);
}

/* Its Directories have no links elsewhere, ever; a block for each is not worth a tree. */
static void on_found(void *ctx, const struct catalog_entry *entry)
{
	struct evict_party *party = ctx;

	party->promised += catalog_allocated(entry);
	if (!party->must_free || party->frees || nodes_find(party->evict->parts.nodes, &entry->digest))
		return;
	party->blobs = xgrow(party->blobs, party->n_blobs, &party->capacity, sizeof(*party->blobs));
	party->blobs[party->n_blobs++] =
		(struct index_blob){ .digest = entry->digest, .kinds = entry->kinds };
}

/* The tree's nodes are in memory. */
static void on_tree(struct tree_request *request, int r)
{
	struct evict_party *party = CONTAINER_OF(request, struct evict_party, request);

	party->is_waiting = false;
	party->node = request->node;
	if (r == 0)
		forecast_tree(party->forecast, party->node, on_found, party);
	else
		party->is_through = true;
	evict_run_kick(party->evict);
}

static void look_into(struct evict_party *party, const struct tree_victim *victim)
{
	party->state = LOOKING;
	party->victim = *victim;
	party->is_waiting = true;
	party->is_through = party->frees = false;
	party->request.done = on_tree;
	tree_get(party->evict->parts.trees, &victim->digest, TREE_FOR_LOOK, &party->request);
}

/* ---- gathering ---- */

static void join(struct evict_party *party, const struct tree_victim *victim)
{
	party->victims[party->n++] = *victim;
	party->n_entries += victim->n_entries;
	tree_walk_leave(&party->evict->walk, &victim->digest);
}

static void on_rows_dropped(void *ctx, int r, const struct err *err)
{
	struct evict *evict = ctx;
	struct evict_party *party = evict->party;

	if (r == 0) {
		party->state = RELEASING;
		trees_release_one(evict->parts.trees);
	} else {
		log_warning("evicting %zu trees, tree %s the first: %s", party->n,
			    DIGEST_TEXT(&party->victims[0].digest), err->text);
		for (size_t i = 0; i < party->n; i++)
			tree_walk_pass_over(&evict->walk, &party->victims[i].digest);
		party_free(party);
	}
	evict_run_kick(evict);
}

/* Those that were used since they joined stay. */
static void drop_used(struct evict_party *party)
{
	const struct evict_parts *parts = &party->evict->parts;
	size_t n = 0;

	for (size_t i = 0; i < party->n; i++)
		if (trees_may_go(parts->trees, &party->victims[i].digest) &&
		    !trees_used_since(parts->trees, &party->victims[i]) &&
		    !tags_pin(parts->tags, &party->victims[i].digest))
			party->victims[n++] = party->victims[i];
	party->n = n;
}

void evict_party_send(struct evict *evict)
{
	struct evict_party *party = evict->party;

	evict_batch_send(evict);
	drop_used(party);
	if (!party->n) {
		party_free(party);
		return;
	}
	party->state = LEAVING;
	forecast_free(TAKE(party->forecast));
	trees_evict(evict->parts.trees, party->victims, party->n, on_rows_dropped, evict);
}

static struct evict_party *party_of(struct evict *evict, bool must_free)
{
	struct evict_party *party = evict->party;

	if (party)
		return party;
	party = evict->party = xcalloc(1, sizeof(*party));
	party->evict = evict;
	party->must_free = must_free;
	party->store = evict->parts.store;
	party->job = (struct job){ .run = look_run, .done = look_done };
	party->forecast = forecast_new(evict->parts.catalog, evict->queue, FORECAST_RELEASE);
	return party;
}

void evict_party_add(struct evict *evict, const struct tree_victim *victim, bool must_free)
{
	struct evict_party *party = party_of(evict, must_free);

	if (!victim->is_known && !must_free) { /* it holds nothing */
		join(party, victim);
	} else if (victim->n_entries > LARGE && !must_free) {
		join(party, victim);
		evict_party_send(evict);
	} else {
		look_into(party, victim);
	}
}

/* Is what it was gathered for still wanted? */
static bool is_wanted(const struct evict_party *party, const struct evict_goal *goal)
{
	return goal->bytes && goal->trees && goal->must_free == party->must_free;
}

/*
 * It was looked into. After one that is passed over nothing can be foreseen, for the forecast counts it as
 * gone; nor after one that cannot be read.
 */
static void judge(struct evict_party *party, const struct evict_goal *goal)
{
	struct evict *evict = party->evict;
	bool is_read = party->node, is_last;

	node_put(TAKE(party->node));
	party->state = GATHERING;
	if (!is_wanted(party, goal))
		return;
	is_last = !is_read || party->promised >= goal->bytes ||
		  party->n_entries + party->victim.n_entries > LARGE;
	if (party->must_free && !party->frees) {
		tree_walk_pass_over(&evict->walk, &party->victim.digest);
		is_last = true;
	} else {
		join(party, &party->victim);
	}
	if (is_last || party->n == TREES_EVICT_MAX)
		evict_party_send(evict);
}

static bool look_on(struct evict_party *party, const struct evict_goal *goal)
{
	if (party->is_waiting)
		return false;
	if (!party->is_through && party->n_blobs < CHUNK) {
		party->is_through = !forecast_step(party->forecast);
		return true;
	}
	if (party->n_blobs && !party->frees) {
		party->is_waiting = true;
		pool_submit(party->evict->queue, &party->job);
		return false;
	}
	party->n_blobs = 0;
	if (party->is_through)
		judge(party, goal);
	return true;
}

/* ---- going ---- */

void evict_party_unheld(struct evict *evict, const struct catalog_entry *entry)
{
	if (evict->party && evict->party->state == RELEASING)
		evict->party->released += catalog_allocated(entry);
}

/* All that it held is given back. */
static void end_tree(struct evict_party *party)
{
	struct evict *evict = party->evict;
	const struct tree_victim *victim = &party->victims[party->n_released++];
	struct evict_gc *gc = evict_first_gc(evict);

	evict->sums.n_trees++;
	evict->parts.counters->evicted_trees++;
	if (gc)
		evict_list_tree(gc, &victim->digest, victim->used, party->released);
	party->released = 0;
}

static bool release_on(struct evict_party *party)
{
	struct evict *evict = party->evict;

	if (nodes_releasing(evict->parts.nodes)) /* on_released() */
		return false;
	end_tree(party);
	if (party->n_released < party->n)
		trees_release_one(evict->parts.trees);
	else
		party_free(party);
	return true;
}

bool evict_party_is_leaving(const struct evict *evict)
{
	return evict->party && evict->party->state >= LEAVING;
}

enum evict_next evict_party_step(struct evict *evict, const struct evict_goal *goal)
{
	struct evict_party *party = evict->party;

	if (!party)
		return EVICT_CHOOSE;
	switch (party->state) {
	case GATHERING:
		if (is_wanted(party, goal))
			return EVICT_CHOOSE;
		disperse(party);
		return EVICT_GO_ON;
	case LOOKING:
		return look_on(party, goal) ? EVICT_GO_ON : EVICT_WAIT;
	case LEAVING:
		return EVICT_WAIT;
	case RELEASING:
		return release_on(party) ? EVICT_GO_ON : EVICT_WAIT;
	}
	return EVICT_WAIT;
}
