/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node_internal.h"

#include <errno.h>

#include "common/alloc.h"

enum {
	LOAD_BATCH_MAX = 32, /* Directories a job reads: long enough to pay for the hand-over */
	CHORES_MAX = 2,      /* jobs that read what is to be released */
};

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
	bool is_chore; /* they are dying */
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
			    r == BLOB_CHANGED ? ": the file of that hash was changed, or has another size"
					      : "");
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

/* A node on its way to being resolved or awake has its Directory, or has not. */
static void loaded(struct node_inner *n, struct directory *directory, struct node_failure *failure)
{
	struct nodes *nodes = n->nodes;

	if (failure) {
		node_fail_load(n, failure);
		return;
	}
	if (!n->known) { /* that digest is right */
		map_remove(&nodes->unproven, &n->work->key);
		map_add(&nodes->map, &n->node.digest);
	}
	node_start_scan(n, directory);
}

/* The same for one that has to know what to release. */
static void loaded_to_release(struct node_inner *n, struct directory *directory, struct node_failure *failure)
{
	if (failure) {
		node_cannot_release(n, &failure->err);
		free(failure);
		return;
	}
	node_take_contents(n, directory);
	n->scanned = directory->n_files + directory->n_directories;
	list_append(&n->nodes->dying, &n->link);
}

static void load_done(struct job *job)
{
	struct load_job *load = CONTAINER_OF(job, struct load_job, job);
	struct nodes *nodes = load->owner;

	for (size_t i = 0; i < load->n; i++) {
		if (load->is_chore)
			loaded_to_release(load->nodes[i], load->directories[i], load->failures[i]);
		else
			loaded(load->nodes[i], load->directories[i], load->failures[i]);
	}
	nodes->parts.counters->tampered_blobs += load->repairs.n_changed;
	nodes->parts.counters->healed_blobs += load->repairs.n_healed;
	if (load->is_chore)
		nodes->n_chores--;
	else
		nodes->n_jobs--;
	nodes_wake_slice(nodes);
	free(load);
}

static struct load_job *load_new(struct nodes *nodes, bool is_chore)
{
	struct load_job *load = xcalloc(1, sizeof(*load));

	*load = (struct load_job){
		.job = { .run = load_run, .done = load_done },
		.store = nodes->parts.store,
		.max_entries = nodes->parts.max_entries,
		.owner = nodes,
		.is_chore = is_chore,
	};
	return load;
}

/* In equal parts for all workers. */
void nodes_dispatch_wanted(struct nodes *nodes)
{
	size_t n_workers = pool_n_workers(nodes->parts.pool);
	size_t share = nodes->n_wanted / n_workers + 1;

	while (nodes->n_wanted && nodes->n_jobs < 2 * n_workers) {
		struct load_job *load = load_new(nodes, false);

		while (nodes->n_wanted && load->n < LOAD_BATCH_MAX && load->n < share) {
			load->nodes[load->n++] =
				LIST_ENTRY(list_pop(&nodes->wanted), struct node_inner, link);
			nodes->n_wanted--;
		}
		nodes->n_jobs++;
		pool_submit(nodes->queue, &load->job);
	}
}

/* And no more than is released soon: what was read for it is memory. */
void nodes_dispatch_unread(struct nodes *nodes)
{
	while (!list_is_empty(&nodes->unread) && list_is_empty(&nodes->dying) &&
	       nodes->n_chores < CHORES_MAX) {
		struct load_job *load = load_new(nodes, true);

		while (!list_is_empty(&nodes->unread) && load->n < LOAD_BATCH_MAX)
			load->nodes[load->n++] =
				LIST_ENTRY(list_pop(&nodes->unread), struct node_inner, link);
		nodes->n_chores++;
		pool_submit(nodes->chores, &load->job);
	}
}
