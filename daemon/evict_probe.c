/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include "common/alloc.h"

enum { CHUNK = 1024 }; /* blobs that a worker looks at in one job */

struct evict_probe {
	struct evict *evict;
	struct digest digest; /* the tree's */
	struct tree_request request;
	struct node *node; /* a reference */
	struct forecast *forecast;
	bool is_waiting; /* for the tree, or for the worker */
	bool is_through; /* no blobs are left to be found */

	struct job job;

	/* In. */
	struct blob_store *store;
	struct index_blob *blobs; /* digest and kinds are set */
	size_t n, capacity;

	/* Out. */
	bool frees;
};

static void probe_end(struct evict *evict, bool frees)
{
	struct evict_probe *probe = TAKE(evict->probe);

	if (frees)
		evict->probed = probe->digest;
	else
		evict_pass_over(evict, &probe->digest);
	node_put(probe->node);
	forecast_free(probe->forecast);
	free(probe->blobs);
	free(probe);
}

static enum job_next look_run(struct job *job)
{
	struct evict_probe *probe = CONTAINER_OF(job, struct evict_probe, job);

	for (size_t i = 0; i < probe->n && !probe->frees; i++)
		for (unsigned kind = 0; kind < BLOB_KINDS; kind++) {
			const struct index_blob *blob = &probe->blobs[i];
			uint64_t bytes;

			if (blob->kinds & 1u << kind &&
			    blob_has_no_other_link(probe->store, &blob->digest, kind, &bytes))
				probe->frees |= bytes > 0;
		}
	return JOB_DONE;
}

static void look_done(struct job *job)
{
	struct evict_probe *probe = CONTAINER_OF(job, struct evict_probe, job);

	probe->n = 0;
	probe->is_waiting = false;
	evict_run_kick(probe->evict);
}

/* Its Directories have no links elsewhere, ever; a block for each is not worth a tree. */
static void on_found(void *ctx, const struct catalog_entry *entry)
{
	struct evict_probe *probe = ctx;

	if (nodes_find(probe->evict->parts.nodes, &entry->digest))
		return;
	probe->blobs = xgrow(probe->blobs, probe->n, &probe->capacity, sizeof(*probe->blobs));
	probe->blobs[probe->n++] = (struct index_blob){ .digest = entry->digest, .kinds = entry->kinds };
}

/* The tree's nodes are in memory. A tree that cannot be read is left alone: it cannot be judged. */
static void on_tree(struct tree_request *request, int r)
{
	struct evict_probe *probe = CONTAINER_OF(request, struct evict_probe, request);

	probe->is_waiting = false;
	probe->node = request->node;
	if (r == 0)
		forecast_tree(probe->forecast, probe->node, on_found, probe);
	else
		probe->is_through = true;
	evict_run_kick(probe->evict);
}

void evict_probe_start(struct evict *evict, const struct tree_victim *victim)
{
	struct evict_probe *probe = xcalloc(1, sizeof(*probe));

	evict->probe = probe;
	probe->evict = evict;
	probe->digest = victim->digest;
	probe->store = evict->parts.store;
	probe->forecast = forecast_new(evict->parts.catalog, FORECAST_RELEASE);
	probe->is_waiting = true;
	probe->request.done = on_tree;
	tree_get(evict->parts.trees, &victim->digest, TREE_FOR_LOOK, &probe->request);
}

bool evict_probe_step(struct evict *evict)
{
	struct evict_probe *probe = evict->probe;

	if (probe->is_waiting)
		return false;
	if (!probe->is_through && !probe->frees && probe->n < CHUNK) {
		probe->is_through = !forecast_step(probe->forecast);
		return true;
	}
	if (probe->n && !probe->frees) {
		probe->is_waiting = true;
		probe->job = (struct job){ .run = look_run, .done = look_done };
		pool_submit(evict->queue, &probe->job);
		return false;
	}
	probe_end(evict, probe->frees);
	return true;
}
