/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/syncer.h"

#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/disk.h"
#include "daemon/pool.h"

/*
 * The kernel writes what is 30 seconds old by itself, so that this finds little left to write; and files of
 * others on the same disk, short-lived ones of builds among them, are not forced out all the time.
 */
static const struct timeval interval = { .tv_sec = 120 };

struct syncer {
	struct job job;
	struct syncer_parts parts;

	/* In. */
	uint64_t began;  /* what was used before is synced when the job is done */
	uint64_t n_puts; /* rows of blobs at that time */

	/* Out. */
	int r;

	/* The loop's. */
	struct pool *lane;
	struct pool_queue *queue;
	struct event *timer;
	uint64_t n_synced;  /* rows of blobs that are on the disk for good */
	uint64_t n_changes; /* of the index, when it was told last */
	bool busy, stopped;
};

static void on_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	syncer_sync(arg);
}

static enum job_next syncer_run(struct job *job)
{
	struct syncer *syncer = CONTAINER_OF(job, struct syncer, job);

	syncer->r = disk_syncfs(syncer->parts.store_fd);
	return JOB_DONE;
}

/* All that was used before `began` is on the disk. */
static void tell_index(struct syncer *syncer)
{
	struct index_batch *batch = index_batch_new();

	index_batch_synced(batch, syncer->began);
	index_submit(syncer->parts.index, batch, NULL, NULL);
	syncer->n_synced = syncer->n_puts;
	syncer->n_changes++; /* this one */
}

static void syncer_done(struct job *job)
{
	struct syncer *syncer = CONTAINER_OF(job, struct syncer, job);

	syncer->busy = false;
	if (syncer->r < 0)
		log_warning("syncing the store's file system: %s", strerrordesc_np(-syncer->r));
	else
		tell_index(syncer);
}

struct syncer *syncer_new(const struct syncer_parts *parts)
{
	struct pool *lane = pool_new(parts->base, 1, "dircached-sync");
	struct syncer *syncer;

	if (!lane)
		return NULL;
	syncer = xcalloc(1, sizeof(*syncer));
	syncer->parts = *parts;
	syncer->lane = lane;
	syncer->queue = pool_queue_new(lane);
	syncer->job = (struct job){ .run = syncer_run, .done = syncer_done };
	syncer->timer = event_new(parts->base, -1, EV_PERSIST, on_timer, syncer);
	if (!syncer->timer)
		abort();
	return syncer;
}

void syncer_start(struct syncer *syncer, bool was_clean)
{
	syncer->n_synced = syncer->n_changes = was_clean ? 0 : UINT64_MAX;
	(void)evtimer_add(syncer->timer, &interval);
}

/* What there is to sync. Return: false when there is nothing that the index should hear of. */
static bool begin(struct syncer *syncer)
{
	const struct syncer_parts *parts = &syncer->parts;

	if (syncer->stopped || syncer->busy || blob_store_in_doubt(parts->store) ||
	    index_n_changes(parts->index) == syncer->n_changes)
		return false;
	syncer->n_changes = index_n_changes(parts->index);
	syncer->n_puts = index_n_puts(parts->index);
	syncer->began = catalog_tick(parts->catalog);
	return true;
}

void syncer_sync(struct syncer *syncer)
{
	if (!begin(syncer))
		return;
	if (syncer->n_puts == syncer->n_synced) { /* known blobs were used again, and nothing was stored */
		tell_index(syncer);
		return;
	}
	syncer->busy = true;
	pool_submit(syncer->queue, &syncer->job);
}

void syncer_stop(struct syncer *syncer)
{
	syncer->stopped = true;
	(void)event_del(syncer->timer);
}

bool syncer_is_busy(const struct syncer *syncer)
{
	return syncer->busy;
}

int syncer_finish(struct syncer *syncer, struct err *err)
{
	int r = 0;

	syncer->stopped = false;
	if (!begin(syncer))
		return 0;
	if (syncer->n_puts != syncer->n_synced)
		r = disk_syncfs(syncer->parts.store_fd);
	if (r < 0)
		return err_errno(err, r, "syncing the store's file system");
	tell_index(syncer);
	return 0;
}

void syncer_free(struct syncer *syncer)
{
	if (!syncer)
		return;
	pool_free(syncer->lane);
	pool_queue_free(syncer->queue);
	event_free(syncer->timer);
	free(syncer);
}
