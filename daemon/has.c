/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/look.h"

#include <errno.h>

#include "common/alloc.h"

enum {
	DIGESTS_MAX = 4096,
	DIGEST_BYTES = 256, /* that one takes, as it is asked for, absent and answered */
	STEP = 64,          /* digests between two looks at the clock, */
	TREES_STEP = 8,
};

struct has_params {
	const struct wire_value *digests;
	bool tree;
};

static const struct wire_field fields[] = {
	WIRE_FIELD(struct has_params, digests, WIRE_ARRAY, true),
	WIRE_FIELD(struct has_params, tree, WIRE_BOOL, false),
};

/* One request: blobs that the catalog does not know are looked up on disk; trees are resolved one after
 * another. What takes long on the loop goes in slices. */
struct has {
	struct job job;

	/* In. */
	struct blob_store *store;
	size_t n;
	struct digest *digests; /* asked for; with `tree` the roots */

	/* Out. */
	bool *absent;
	struct err err;

	struct request *request;
	struct pool_queue *queue;
	const struct wire_value *params; /* the digests as they came */
	bool for_trees;
	struct slice slice;
	size_t next;          /* digest to be read, or tree to be looked at, or digest to be answered */
	bool asking, looking; /* inside tree_get(); waiting for its answer */
	struct tree_request tree;
	struct digest *missing;
	size_t n_missing, missing_capacity;
	struct wire_out *out; /* the answer is being written */
};

/* Do the first step of something now, which is all of the usual request; the rest in slices. */
static void start(struct has *has, bool (*step)(struct slice *slice))
{
	struct cache *cache = has->request->cache;

	slice_init_of(&has->slice, step, &has->request->user->slices);
	if (step(&has->slice))
		slice_start(cache->slicer, &has->slice);
}

static void has_free(struct has *has)
{
	pool_queue_free(has->queue);
	free(has->digests);
	free(has->absent);
	free(has->missing);
	free(has);
}

static void add_missing(struct has *has, const struct digest *digest)
{
	if (has->n_missing == DIGESTS_MAX)
		return; /* more would not fit into the answer */
	has->missing = xgrow(has->missing, has->n_missing, &has->missing_capacity, sizeof(*digest));
	has->missing[has->n_missing++] = *digest;
}

static bool answer_step(struct slice *slice)
{
	struct has *has = CONTAINER_OF(slice, struct has, slice);

	for (unsigned i = 0; i < STEP && has->next < has->n_missing; i++)
		wire_digest(has->out, &has->missing[has->next++]);
	if (has->next < has->n_missing)
		return true;
	request_send(has->request);
	has_free(has);
	return false;
}

static void answer(struct has *has)
{
	if (has->err.set) {
		request_fail(has->request, &has->err);
		has_free(has);
		return;
	}
	has->out = request_reply(has->request);
	wire_map(has->out, 1);
	wire_text(has->out, "missing");
	wire_array(has->out, has->n_missing);
	has->next = 0;
	start(has, answer_step);
}

/* ---- blobs ---- */

static enum job_next stat_run(struct job *job)
{
	struct has *has = CONTAINER_OF(job, struct has, job);

	for (size_t i = 0; i < has->n; i++) {
		int r = has->absent[i] ? BLOB_MISSING : 0;

		for (unsigned kind = 0; kind < BLOB_KINDS && r > 0; kind++)
			r = blob_stat(has->store, &has->digests[i], kind, NULL, &has->err);
		has->absent[i] = r != 0;
	}
	return JOB_DONE;
}

static void stat_done(struct job *job)
{
	struct has *has = CONTAINER_OF(job, struct has, job);

	for (size_t i = 0; i < has->n; i++)
		if (has->absent[i])
			add_missing(has, &has->digests[i]);
	answer(has);
}

static bool is_unknown(const struct has *has, const struct digest *digest)
{
	const struct catalog *catalog = has->request->cache->catalog;
	const struct catalog_entry *entry = catalog_find(catalog, digest);

	return !digest_is_empty(digest) &&
	       (!entry || !catalog_kinds(catalog, entry) || entry->digest.size != digest->size);
}

static void look_at_blobs(struct has *has)
{
	has->job = (struct job){ .run = stat_run, .done = stat_done };
	pool_submit(has->queue, &has->job);
}

/* ---- trees ---- */

static bool trees_step(struct slice *slice);

static void on_tree(struct tree_request *tree, int r)
{
	struct has *has = CONTAINER_OF(tree, struct has, tree);

	has->looking = false;
	if (r == 0)
		node_put(tree->node);
	else if (!tree->n_missing)
		has->err = *tree->err;
	for (size_t i = 0; r < 0 && i < tree->n_missing; i++)
		add_missing(has, &tree->missing[i]);
	if (!has->asking)
		start(has, trees_step);
}

/* One after another. Those that are in memory are answered from within. */
static bool trees_step(struct slice *slice)
{
	struct has *has = CONTAINER_OF(slice, struct has, slice);

	for (unsigned i = 0; i < TREES_STEP && !has->err.set && has->next < has->n; i++) {
		has->asking = has->looking = true;
		has->tree.done = on_tree;
		tree_get(has->request->cache->trees, &has->digests[has->next++], TREE_FOR_LOOK, &has->tree);
		has->asking = false;
		if (has->looking)
			return false;
	}
	if (!has->err.set && has->next < has->n)
		return true;
	answer(has);
	return false;
}

/* ---- both ---- */

static bool read_step(struct slice *slice)
{
	struct has *has = CONTAINER_OF(slice, struct has, slice);

	for (unsigned i = 0; i < STEP && has->next < has->n && !has->err.set; i++) {
		struct digest *digest = &has->digests[has->next];

		if (wire_as_digest(wire_array_at(has->params, has->next), digest) < 0)
			err_set(&has->err, ERR_INVALID_ARGUMENT, "has: digests: number %zu is no `hash/size`",
				has->next);
		else
			has->absent[has->next] = !has->for_trees && is_unknown(has, digest);
		has->next++;
	}
	if (has->next < has->n && !has->err.set)
		return true;
	has->next = 0;
	if (has->err.set)
		answer(has);
	else if (has->for_trees)
		start(has, trees_step);
	else
		look_at_blobs(has);
	return false;
}

static void on_cancel(struct request *request)
{
	struct has *has = request->ctx;

	if (!has->for_trees || has->out || has->err.set)
		return;
	err_set(&has->err, ERR_CANCELLED, "has: cancelled");
	if (!has->looking)
		return; /* its next step sees it */
	tree_cancel(&has->tree);
	answer(has);
}

void has_start(struct request *request)
{
	struct has_params params = { 0 };
	struct has *has = xcalloc(1, sizeof(*has));

	has->request = request;
	has->store = request->cache->store;
	has->queue = request_queue_new(request);
	request->ctx = has;
	request->cancel = on_cancel;
	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "has", &has->err) == 0) {
		has->params = params.digests;
		has->for_trees = params.tree;
		has->n = wire_array_size(params.digests);
	}
	if (has->n > DIGESTS_MAX) {
		err_set(&has->err, ERR_INVALID_ARGUMENT, "has: digests: at most %d at a time", DIGESTS_MAX);
		has->n = 0;
	}
	request_promise(request, has->n * DIGEST_BYTES);
	has->digests = xcalloc(has->n + 1, sizeof(*has->digests));
	has->absent = xcalloc(has->n + 1, sizeof(*has->absent));
	start(has, read_step);
}
