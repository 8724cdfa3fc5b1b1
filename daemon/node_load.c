/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node_internal.h"

#include <errno.h>

#include "common/alloc.h"

enum { LOAD_BATCH_MAX = 32 /* Directories a job reads: long enough to pay for the hand-over */ };

/* Read and decode some Directories. */
struct load_job {
	struct job job;

	/* In. */
	struct blob_store *store;
	size_t max_entries;
	size_t n;
	struct node_inner *nodes[LOAD_BATCH_MAX]; /* run() reads their digests only */

	/* Out. */
	struct directory *directories[LOAD_BATCH_MAX];
	struct node_failure *failures[LOAD_BATCH_MAX];
	struct blob_repairs repairs;

	struct nodes *owner;
};

/* On a worker. Return: NULL, or why this Directory cannot be had. */
static struct node_failure *load_one(struct load_job *load, const struct digest *digest,
				     struct directory **directory)
{
	struct node_failure *failure = NULL;
	struct err err = { 0 };
	AUTO_FREE uint8_t *bytes = NULL;
	int r = 0;

	if (!digest_is_empty(digest))
		r = blob_read_renewed(load->store, digest, DIRECTORY_BYTES_MAX, &bytes, &load->repairs, &err);
	if (r == 0) {
		r = directory_decode(bytes, digest->size, load->max_entries, directory, &err);
		if (r == 0)
			return NULL;
		err_prefix(&err, "Directory %s: ", DIGEST_TEXT(digest));
	}
	failure = xcalloc(1, sizeof(struct node_failure));
	if (r > 0) {
		node_add_missing(failure, digest);
		r = err_set(&err, ERR_NOT_FOUND, "Directory %s is not in the store%s", DIGEST_TEXT(digest),
			    r == BLOB_CHANGED ? ": its file was changed" : "");
	}
	failure->r = r;
	failure->err = err;
	return failure;
}

static enum job_next load_run(struct job *job)
{
	struct load_job *load = CONTAINER_OF(job, struct load_job, job);

	for (size_t i = 0; i < load->n; i++)
		load->failures[i] = load_one(load, &load->nodes[i]->node.digest, &load->directories[i]);
	return JOB_DONE;
}

static void load_done(struct job *job)
{
	struct load_job *load = CONTAINER_OF(job, struct load_job, job);

	for (size_t i = 0; i < load->n; i++) {
		struct node_inner *n = load->nodes[i];

		if (load->failures[i]) {
			node_fail_load(n, load->failures[i]);
		} else {
			node_start_scan(n, load->directories[i]);
		}
	}
	load->owner->parts.counters->tampered_blobs += load->repairs.n_changed;
	load->owner->parts.counters->healed_blobs += load->repairs.n_healed;
	load->owner->n_jobs--;
	if (load->owner->n_wanted)
		slice_start(load->owner->parts.slicer, &load->owner->slice);
	free(load);
}

void nodes_dispatch_loads(struct nodes *nodes)
{
	size_t n_workers = pool_n_workers(nodes->parts.pool);
	size_t share = nodes->n_wanted / n_workers + 1;

	while (nodes->n_wanted && nodes->n_jobs < 2 * n_workers) {
		struct load_job *load = xcalloc(1, sizeof(*load));

		*load = (struct load_job){
			.job = { .run = load_run, .done = load_done },
			.store = nodes->parts.store,
			.max_entries = nodes->parts.max_entries,
			.owner = nodes,
		};
		while (nodes->n_wanted && load->n < LOAD_BATCH_MAX && load->n < share) {
			load->nodes[load->n++] =
				LIST_ENTRY(list_pop(&nodes->wanted), struct node_inner, link);
			nodes->n_wanted--;
		}
		nodes->n_jobs++;
		pool_submit(nodes->queue, &load->job);
	}
}
