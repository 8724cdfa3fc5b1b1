/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/look.h"

#include <errno.h>

#include "common/alloc.h"

enum { DIGESTS_MAX = 4096 };

struct has_params {
	const struct wire_value *digests;
	bool tree;
};

static const struct wire_field fields[] = {
	WIRE_FIELD(struct has_params, digests, WIRE_ARRAY, true),
	WIRE_FIELD(struct has_params, tree, WIRE_BOOL, false),
};

/* One request: blobs that the catalog does not know are looked up on disk; trees are resolved one after
 * another. */
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
	size_t next;          /* tree to be looked at */
	bool asking, looking; /* inside tree_get(); waiting for its answer */
	struct tree_request tree;
	struct digest *missing;
	size_t n_missing, missing_capacity;
};

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

static void answer(struct has *has)
{
	struct wire_out *out;

	if (has->err.set) {
		request_fail(has->request, &has->err);
		has_free(has);
		return;
	}
	out = request_reply(has->request);
	wire_map(out, 1);
	wire_text(out, "missing");
	wire_array(out, has->n_missing);
	for (size_t i = 0; i < has->n_missing; i++)
		wire_digest(out, &has->missing[i]);
	request_send(has->request);
	has_free(has);
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

static void look_at_blobs(struct has *has)
{
	struct catalog *catalog = has->request->cache->catalog;

	has->absent = xcalloc(has->n + 1, sizeof(*has->absent));
	for (size_t i = 0; i < has->n; i++) {
		const struct catalog_entry *entry = catalog_find(catalog, &has->digests[i]);

		has->absent[i] = !digest_is_empty(&has->digests[i]) &&
				 (!entry || entry->digest.size != has->digests[i].size);
	}
	has->job = (struct job){ .run = stat_run, .done = stat_done };
	pool_submit(has->queue, &has->job);
}

/* ---- trees ---- */

static void look_at_trees(struct has *has);

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
		look_at_trees(has);
}

/* One after another; those that are in memory are answered from within, so this is a loop and no recursion.
 */
static void look_at_trees(struct has *has)
{
	while (!has->err.set && has->next < has->n) {
		has->asking = has->looking = true;
		has->tree.done = on_tree;
		tree_get(has->request->cache->trees, &has->digests[has->next++], TREE_FOR_LOOK, &has->tree);
		has->asking = false;
		if (has->looking)
			return;
	}
	answer(has);
}

static void on_cancel(struct request *request)
{
	struct has *has = request->ctx;

	if (!has->looking)
		return;
	tree_cancel(&has->tree);
	err_set(&has->err, ERR_CANCELLED, "has: cancelled");
	answer(has);
}

/* ---- both ---- */

static int read_digests(struct has *has, const struct wire_value *array, struct err *err)
{
	has->n = wire_array_size(array);
	if (has->n > DIGESTS_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "has: digests: at most %d at a time", DIGESTS_MAX);
	has->digests = xcalloc(has->n + 1, sizeof(*has->digests));
	for (size_t i = 0; i < has->n; i++)
		if (wire_as_digest(wire_array_at(array, i), &has->digests[i]) < 0)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "has: digests: number %zu is no `hash/size`", i);
	return 0;
}

void has_start(struct request *request)
{
	struct has_params params = { 0 };
	struct has *has = xcalloc(1, sizeof(*has));

	has->request = request;
	has->store = request->cache->store;
	has->queue = pool_queue_new(request->cache->pool);
	request->ctx = has;
	request->cancel = on_cancel;
	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "has", &has->err) < 0 ||
	    read_digests(has, params.digests, &has->err) < 0)
		answer(has);
	else if (params.tree)
		look_at_trees(has);
	else
		look_at_blobs(has);
}
