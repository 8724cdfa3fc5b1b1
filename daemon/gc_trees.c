/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/gc.h"

#include "common/alloc.h"
#include "daemon/forecast.h"

enum {
	PAGE_MAX = 4096,
	SIZED_PAGE_MAX = 256, /* where each is looked into */
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
	NEXT,      /* begin a tree; the first when all have been read: what each needs is not known before */
	WAITING,   /* for the tree's nodes */
	REACHING,  /* finding all blobs of the tree, */
	RELEASING, /* and those that nobody else holds */
};

/* A page of cached trees, and on its way through them one at a time. */
struct listing {
	struct request *request;
	struct trees_params params;
	struct index_tree *rows;
	struct sizes *sizes;
	size_t n, at;
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

static void answer(struct listing *listing)
{
	struct request *request = listing->request;
	struct wire_out *out = request_reply(request);

	wire_map(out, 2);
	wire_text(out, "trees");
	wire_array(out, listing->n);
	for (size_t i = 0; i < listing->n; i++)
		put_tree(out, &listing->rows[i], &listing->sizes[i]);
	wire_put_bool(out, "more", listing->more);
	request_send(request);
}

static void end(struct listing *listing)
{
	struct err err = { 0 };

	if (listing->cancelled) {
		err_set(&err, ERR_CANCELLED, "trees: cancelled");
		request_fail(listing->request, &err);
	} else {
		answer(listing);
	}
	free(listing->rows);
	free(listing->sizes);
	free(listing);
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
	listing->forecast = forecast_new(listing->request->cache->catalog,
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
static bool begin_tree(struct listing *listing)
{
	struct trees *trees = listing->request->cache->trees;
	const struct digest *digest = &listing->rows[listing->at].digest;

	if (!trees_hold(trees, digest)) {
		listing->at++;
		return true;
	}
	listing->phase = WAITING;
	listing->tree.done = on_tree;
	tree_get(trees, digest, TREE_FOR_LOOK, &listing->tree);
	return true;
}

static bool listing_step(struct slice *slice)
{
	struct listing *listing = CONTAINER_OF(slice, struct listing, slice);

	switch (listing->phase) {
	case NEXT:
		if (!listing->cancelled && listing->at < listing->n)
			return begin_tree(listing);
		end(listing);
		return false;
	case WAITING:
		return false;
	case REACHING:
		if (!listing->cancelled && !forecast_step(listing->forecast))
			begin_forecast(listing, RELEASING);
		break;
	case RELEASING:
		if (!listing->cancelled && !forecast_step(listing->forecast)) {
			listing->sizes[listing->at].known = true;
			end_tree(listing);
		}
		break;
	}
	if (listing->cancelled && listing->node)
		end_tree(listing);
	return true;
}

static void on_cancel(struct request *request)
{
	struct listing *listing = request->ctx;

	listing->cancelled = true;
	if (listing->phase != NEXT)
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
	listing->n = trees_list(request->cache->trees, params.offset, listing->rows, params.limit);
	listing->more = params.offset < trees_n(request->cache->trees) - listing->n;
	request->ctx = listing;
	request->cancel = on_cancel;
	slice_init(&listing->slice, listing_step);
	if (params.sizes)
		trees_start_when_read(request->cache->trees, &listing->slice);
	else
		end(listing);
}
