/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/gc.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/forecast.h"

enum {
	PAGE_MAX = 4096,
	SIZED_PAGE_MAX = 256, /* where each is looked into */
	SKIP_STEP = 512,      /* trees before the page passed over between two looks at the clock, */
	ROW_STEP = 32,        /* trees listed, or written into the answer, */
	TAG_STEP = 64,        /* tags looked at */
};

struct trees_params {
	uint64_t offset, limit;
	bool sizes;
};

static const struct wire_field fields[] = {
	WIRE_FIELD(struct trees_params, offset, WIRE_UINT, false),
	WIRE_FIELD(struct trees_params, limit, WIRE_UINT, false),
	WIRE_FIELD(struct trees_params, sizes, WIRE_BOOL, false),
};

struct sizes {
	uint64_t allocated, unique;
	bool known;
};

enum phase {
	SKIPPING, /* what is before the page; when all have been read: what each needs is not known before */
	LISTING,
	PICKING,   /* those of one user, instead, */
	SORTING,   /* and putting them in order */
	NEXT,      /* begin a tree */
	WAITING,   /* for the tree's nodes */
	REACHING,  /* finding all blobs of the tree, */
	RELEASING, /* and those that nobody else holds */
	ANSWERING,
};

/* The cached trees of one user: a worker puts them in order. */
struct own_trees {
	struct job job;

	/* In and out. */
	struct index_tree *rows;
	size_t n;

	size_t capacity;
	char after[TAG_NAME_MAX + 1]; /* the last tag that was looked at */
};

/* A page of cached trees, and on its way through them one at a time. */
struct listing {
	struct request *request;
	struct trees_params params;
	struct index_tree *rows;
	struct sizes *sizes;
	struct tree_walk walk;
	struct own_trees own;
	size_t n_skipped, n, at;
	struct wire_out *out;
	bool more, cancelled;
	enum phase phase;
	struct tree_request tree;
	struct node *node; /* of the tree at hand, a reference; or NULL */
	struct forecast *forecast;
	struct slice slice;
};

static void put_tree(struct wire_out *out, const struct index_tree *row, const struct sizes *sizes)
{
	wire_map(out, sizes->known ? 9 : 7);
	wire_put_digest(out, "digest", &row->digest);
	wire_put_uint(out, "files", row->n_files);
	wire_put_uint(out, "directories", row->n_directories);
	wire_put_uint(out, "symlinks", row->n_symlinks);
	wire_put_uint(out, "bytes", row->bytes);
	wire_put_uint(out, "hits", row->hits);
	wire_put_uint(out, "last_used", row->used);
	if (sizes->known) {
		wire_put_uint(out, "allocated", sizes->allocated);
		wire_put_uint(out, "unique", sizes->unique);
	}
}

/* Begin with the answer. */
static void begin_answer(struct listing *listing)
{
	listing->phase = ANSWERING;
	listing->at = 0;
	listing->out = request_reply(listing->request);
	wire_map(listing->out, 2);
	wire_text(listing->out, "trees");
	wire_array(listing->out, listing->n);
}

static void listing_free(struct listing *listing)
{
	tree_walk_end(&listing->walk);
	free(listing->own.rows);
	free(listing->rows);
	free(listing->sizes);
	free(listing);
}

/* Return: is more left to be done? */
static bool answer_on(struct listing *listing)
{
	for (unsigned i = 0; i < ROW_STEP && listing->at < listing->n; i++, listing->at++)
		put_tree(listing->out, &listing->rows[listing->at], &listing->sizes[listing->at]);
	if (listing->at < listing->n)
		return true;
	wire_put_bool(listing->out, "more", listing->more);
	request_send(listing->request);
	listing_free(listing);
	return false;
}

static void fail(struct listing *listing)
{
	struct err err = { 0 };

	err_set(&err, ERR_CANCELLED, "trees: cancelled");
	request_fail(listing->request, &err);
	listing_free(listing);
}

/* ---- the page ---- */

static void begin_sizes(struct listing *listing)
{
	if (listing->params.sizes)
		listing->phase = NEXT;
	else
		begin_answer(listing);
}

static void end_page(struct listing *listing)
{
	listing->more = tree_walk_skip(&listing->walk, 1);
	tree_walk_end(&listing->walk);
	begin_sizes(listing);
}

static void skip_on(struct listing *listing)
{
	uint64_t left = listing->params.offset - listing->n_skipped;
	size_t most = left < SKIP_STEP ? left : SKIP_STEP;
	size_t n = tree_walk_skip(&listing->walk, most);

	listing->n_skipped += n;
	if (n < most)
		end_page(listing);
	else if (listing->n_skipped == listing->params.offset)
		listing->phase = LISTING;
}

static void list_on(struct listing *listing)
{
	size_t left = listing->params.limit - listing->n;
	size_t most = left < ROW_STEP ? left : ROW_STEP;
	size_t n = tree_walk_list(&listing->walk, &listing->rows[listing->n], most);

	listing->n += n;
	if (n < most || n == left)
		end_page(listing);
}

/* ---- the page of who may not see all ---- */

static int by_digest(const void *a, const void *b)
{
	const struct index_tree *x = a, *y = b;

	return memcmp(x->digest.hash, y->digest.hash, sizeof(x->digest.hash));
}

/* The last used first. */
static int by_use(const void *a, const void *b)
{
	const struct index_tree *x = a, *y = b;

	if (x->used != y->used)
		return x->used < y->used ? 1 : -1;
	return by_digest(a, b);
}

/* Each once, though it may have several tags, and have been used between two looks at it. */
static enum job_next sort_run(struct job *job)
{
	struct own_trees *own = CONTAINER_OF(job, struct own_trees, job);
	size_t n = 0;

	qsort(own->rows, own->n, sizeof(*own->rows), by_digest);
	for (size_t i = 0; i < own->n; i++)
		if (i == 0 || !digest_equal(&own->rows[i].digest, &own->rows[n - 1].digest))
			own->rows[n++] = own->rows[i];
	own->n = n;
	qsort(own->rows, own->n, sizeof(*own->rows), by_use);
	return JOB_DONE;
}

static void sort_done(struct job *job)
{
	struct listing *listing = CONTAINER_OF(job, struct listing, own.job);
	const struct trees_params *params = &listing->params;
	const struct own_trees *own = &listing->own;
	size_t offset = params->offset < own->n ? (size_t)params->offset : own->n;

	listing->n = own->n - offset < params->limit ? own->n - offset : (size_t)params->limit;
	listing->more = own->n - offset > listing->n;
	memcpy(listing->rows, own->rows + offset, listing->n * sizeof(*own->rows));
	begin_sizes(listing);
	slice_start(listing->request->cache->slicer, &listing->slice);
}

static void sort(struct listing *listing)
{
	if (!listing->own.n) {
		begin_sizes(listing);
		return;
	}
	listing->phase = SORTING;
	listing->own.job = (struct job){ .run = sort_run, .done = sort_done };
	pool_submit(listing->request->cache->chores, &listing->own.job);
}

/*
 * A tree has no owner, since whoever stores it once more shares it. Its tags have: they say who may see it.
 */
static void pick_on(struct listing *listing)
{
	const struct cache *cache = listing->request->cache;
	struct own_trees *own = &listing->own;
	size_t i = tags_after(cache->tags, own->after);

	for (unsigned n = 0; n < TAG_STEP; n++, i++) {
		struct index_tag tag;

		if (i == tags_n(cache->tags)) {
			sort(listing);
			return;
		}
		tag = tags_at(cache->tags, i);
		own->rows = xgrow(own->rows, own->n, &own->capacity, sizeof(*own->rows));
		own->n += tag.uid == listing->request->identity->uid &&
			  trees_row(cache->trees, &tag.digest, &own->rows[own->n]);
		(void)snprintf(own->after, sizeof(own->after), "%s", tag.name);
	}
}

/* ---- one tree after the other ---- */

static void on_found(void *ctx, const struct catalog_entry *entry)
{
	struct listing *listing = ctx;
	struct sizes *sizes = &listing->sizes[listing->at];

	*(listing->phase == REACHING ? &sizes->allocated : &sizes->unique) += catalog_allocated(entry);
}

static void begin_forecast(struct listing *listing, enum phase phase)
{
	forecast_free(listing->forecast);
	listing->phase = phase;
	listing->forecast = forecast_new(listing->request->cache->catalog, listing->request->cache->chores,
					 phase == REACHING ? FORECAST_REACH : FORECAST_RELEASE);
	forecast_tree(listing->forecast, listing->node, on_found, listing);
}

static void end_tree(struct listing *listing)
{
	forecast_free(TAKE(listing->forecast));
	node_put(TAKE(listing->node));
	trees_unhold(listing->request->cache->trees, &listing->rows[listing->at].digest);
	listing->at++;
	listing->phase = NEXT;
}

/* Its nodes are in memory. A tree that cannot be read has no sizes. */
static void on_tree(struct tree_request *tree, int r)
{
	struct listing *listing = CONTAINER_OF(tree, struct listing, tree);

	listing->node = tree->node;
	if (r < 0)
		end_tree(listing);
	else
		begin_forecast(listing, REACHING);
	slice_start(listing->request->cache->slicer, &listing->slice);
}

/* One that was evicted since has no sizes either. */
static void begin_tree(struct listing *listing)
{
	struct trees *trees = listing->request->cache->trees;
	const struct digest *digest = &listing->rows[listing->at].digest;

	if (!trees_hold(trees, digest)) {
		listing->at++;
		return;
	}
	listing->phase = WAITING;
	listing->tree.done = on_tree;
	tree_get(trees, digest, TREE_FOR_LOOK, &listing->tree);
}

static void step(struct listing *listing)
{
	switch (listing->phase) {
	case SKIPPING:
		skip_on(listing);
		break;
	case LISTING:
		list_on(listing);
		break;
	case PICKING:
		pick_on(listing);
		break;
	case NEXT:
		if (listing->at < listing->n)
			begin_tree(listing);
		else
			begin_answer(listing);
		break;
	case REACHING:
		if (!forecast_step(listing->forecast))
			begin_forecast(listing, RELEASING);
		break;
	case RELEASING:
		if (!forecast_step(listing->forecast)) {
			listing->sizes[listing->at].known = true;
			end_tree(listing);
		}
		break;
	case SORTING:
	case WAITING:
	case ANSWERING:
		break;
	}
}

static bool listing_step(struct slice *slice)
{
	struct listing *listing = CONTAINER_OF(slice, struct listing, slice);

	if (listing->phase == ANSWERING)
		return answer_on(listing);
	if (listing->phase == WAITING || listing->phase == SORTING)
		return false;
	if (!listing->cancelled) {
		step(listing);
		return true;
	}
	if (listing->node)
		end_tree(listing);
	fail(listing);
	return false;
}

static void on_cancel(struct request *request)
{
	struct listing *listing = request->ctx;

	listing->cancelled = true;
	if (listing->phase != SKIPPING && listing->phase != PICKING)
		return;
	list_remove(&listing->slice.link); /* perhaps it waits for trees to be read */
	slice_start(request->cache->slicer, &listing->slice);
}

void trees_start(struct request *request)
{
	struct trees_params params = { .limit = PAGE_MAX };
	struct listing *listing;
	struct err err = { 0 };
	size_t most;

	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "trees", &err) < 0) {
		request_fail(request, &err);
		return;
	}
	most = params.sizes ? SIZED_PAGE_MAX : PAGE_MAX;
	params.limit = params.limit < most ? params.limit : most;
	listing = xcalloc(1, sizeof(*listing));
	listing->request = request;
	listing->params = params;
	listing->rows = xcalloc(params.limit + 1, sizeof(*listing->rows));
	listing->sizes = xcalloc(params.limit + 1, sizeof(*listing->sizes));
	if (identity_is_admin(request->identity->uid))
		tree_walk_begin(request->cache->trees, &listing->walk, true);
	else
		listing->phase = PICKING;
	request->ctx = listing;
	request->cancel = on_cancel;
	slice_init_of(&listing->slice, listing_step, &request->user->slices);
	if (params.sizes)
		trees_start_when_read(request->cache->trees, &listing->slice);
	else
		slice_start(request->cache->slicer, &listing->slice);
}
