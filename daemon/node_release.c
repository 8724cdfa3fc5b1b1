/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/node_internal.h"

#include "common/alloc.h"

enum {
	RELEASE_STEP = 128, /* entries released between two looks at the clock */
	/*
	 * Memory of a size that malloc gives back to the system at once: that takes the system 10 ms for
	 * 100 MB, so a worker does it.
	 */
	LARGE = 1 << 20,
};

/* ---- memory ---- */

/* Free the memory of a large Directory on a worker. */
struct forget_job {
	struct job job;
	struct directory *directory;
	struct node **children;
};

static enum job_next forget_run(struct job *job)
{
	struct forget_job *forget = CONTAINER_OF(job, struct forget_job, job);

	directory_free(forget->directory);
	free(forget->children);
	return JOB_DONE;
}

static void forget_done(struct job *job)
{
	free(CONTAINER_OF(job, struct forget_job, job));
}

static void forget_contents(struct node_inner *n)
{
	struct directory *directory = TAKE(n->node.directory);
	struct node **children = TAKE(n->node.children);
	struct forget_job *forget;

	if (!directory || directory->memory + directory->n_directories * sizeof(*children) < LARGE) {
		directory_free(directory);
		free(children);
		return;
	}
	forget = xcalloc(1, sizeof(*forget));
	forget->job = (struct job){ .run = forget_run, .done = forget_done };
	forget->directory = directory;
	forget->children = children;
	pool_submit(n->nodes->queue, &forget->job);
}

/* ---- release ---- */

static void release_entry(struct node_inner *n, size_t i)
{
	const struct directory *d = n->node.directory;

	if (i < d->n_files)
		catalog_release(n->nodes->parts.catalog, &d->files[i].digest, n->used);
	else
		node_unref(node_inner(n->node.children[i - d->n_files]), n->used);
}

void node_release(struct node_inner *n)
{
	for (unsigned i = 0; i < RELEASE_STEP && n->scanned; i++)
		release_entry(n, --n->scanned);
	if (n->scanned) {
		list_append(&n->nodes->dying, &n->link);
		return;
	}
	catalog_release(n->nodes->parts.catalog, &n->node.digest, n->used);
	forget_contents(n);
	node_free(n);
}

void node_free(struct node_inner *n)
{
	if (!n)
		return;
	directory_free(n->node.directory);
	free(n->node.children);
	free(n->edges);
	free(n->failure);
	free(n);
}
