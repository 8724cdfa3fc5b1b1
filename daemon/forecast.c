/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/forecast.h"

#include "common/alloc.h"
#include "daemon/map.h"

enum {
	STEP = 64,
	SLAB_COUNTS = 512,
	SMALL = 32, /* slabs: they are free()d in some ten microseconds */
};

/* How many references or holds were given back so far. */
struct count {
	struct digest digest; /* first: the key in a map */
	uint64_t n;
};

struct slab {
	struct slab *next;
	struct count counts[SLAB_COUNTS];
};

struct forecast {
	const struct catalog *catalog;
	enum forecast_of of;
	struct map nodes, blobs; /* struct count, in slabs */
	struct slab *slabs;
	size_t n_slabs, n_in_slab;

	const struct node **waiting; /* nodes to be looked into */
	size_t n_waiting, capacity;
	const struct node *node; /* at this one, */
	size_t next;             /* at this entry: itself, files, directories */

	void (*found)(void *ctx, const struct catalog_entry *entry);
	void *ctx;

	struct pool_queue *chores;
	struct job job;
};

struct forecast *forecast_new(const struct catalog *catalog, struct pool_queue *chores, enum forecast_of of)
{
	struct forecast *forecast = xcalloc(1, sizeof(*forecast));

	forecast->catalog = catalog;
	forecast->chores = chores;
	forecast->of = of;
	forecast->n_in_slab = SLAB_COUNTS;
	map_init(&forecast->nodes);
	map_init(&forecast->blobs);
	return forecast;
}

static void give_back(struct forecast *forecast)
{
	struct slab *next;

	for (struct slab *slab = forecast->slabs; slab; slab = next) {
		next = slab->next;
		free(slab);
	}
	map_fini(&forecast->nodes);
	map_fini(&forecast->blobs);
	free(forecast->waiting);
}

static enum job_next free_run(struct job *job)
{
	give_back(CONTAINER_OF(job, struct forecast, job));
	return JOB_DONE;
}

static void free_done(struct job *job)
{
	free(CONTAINER_OF(job, struct forecast, job));
}

void forecast_free(struct forecast *forecast)
{
	if (!forecast)
		return;
	if (forecast->n_slabs > SMALL) {
		forecast->job = (struct job){ .run = free_run, .done = free_done };
		pool_submit(forecast->chores, &forecast->job);
		return;
	}
	give_back(forecast);
	free(forecast);
}

/* Count one more. Return: how many there are now. */
static uint64_t count(struct forecast *forecast, struct map *map, const struct digest *digest)
{
	struct count *count = map_find(map, digest);

	if (!count) {
		if (forecast->n_in_slab == SLAB_COUNTS) {
			struct slab *slab = xmalloc(sizeof(*slab));

			slab->next = forecast->slabs;
			forecast->slabs = slab;
			forecast->n_slabs++;
			forecast->n_in_slab = 0;
		}
		count = &forecast->slabs->counts[forecast->n_in_slab++];
		*count = (struct count){ .digest = *digest };
		map_add(map, &count->digest);
	}
	return ++count->n;
}

/* One reference to a node goes. @kept: those that are there for this forecast only. */
static void count_node(struct forecast *forecast, const struct node *node, size_t kept)
{
	uint64_t n = count(forecast, &forecast->nodes, &node->digest);
	uint64_t all = forecast->of == FORECAST_REACH ? 1 : node_references(node) - kept;

	if (n != all)
		return;
	forecast->waiting = xgrow(forecast->waiting, forecast->n_waiting, &forecast->capacity,
				  sizeof(*forecast->waiting));
	forecast->waiting[forecast->n_waiting++] = node;
}

/* One hold of a blob goes. */
static void count_blob(struct forecast *forecast, const struct digest *digest)
{
	const struct catalog_entry *entry = catalog_find(forecast->catalog, digest);

	if (!entry)
		return;
	if (count(forecast, &forecast->blobs, digest) == (forecast->of == FORECAST_REACH ? 1 : entry->holds))
		forecast->found(forecast->ctx, entry);
}

/* Return: was there another entry? */
static bool count_entry(struct forecast *forecast, const struct node *node, size_t i)
{
	const struct directory *d = node->directory;

	if (i == 0)
		count_blob(forecast, &node->digest);
	else if (i <= d->n_files)
		count_blob(forecast, &d->files[i - 1].digest);
	else if (i <= d->n_files + d->n_directories)
		count_node(forecast, node->children[i - 1 - d->n_files], 0);
	else
		return false;
	return true;
}

void forecast_tree(struct forecast *forecast, const struct node *root,
		   void (*found)(void *ctx, const struct catalog_entry *entry), void *ctx)
{
	forecast->found = found;
	forecast->ctx = ctx;
	count_node(forecast, root, 1);
}

bool forecast_step(struct forecast *forecast)
{
	for (unsigned i = 0; i < STEP; i++) {
		if (!forecast->node) {
			if (!forecast->n_waiting)
				return false;
			forecast->node = forecast->waiting[--forecast->n_waiting];
			forecast->next = 0;
		}
		if (!count_entry(forecast, forecast->node, forecast->next++))
			forecast->node = NULL;
	}
	return true;
}
