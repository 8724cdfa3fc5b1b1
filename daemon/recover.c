/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/recover.h"

#include <assert.h>

#include "common/alloc.h"
#include "common/log.h"

enum {
	FANOUTS = 256,
	FOLDERS = FANOUTS * BLOB_KINDS,
	STEP = 64, /* entries between two looks at the clock */
};

struct recovery {
	struct job job;
	struct recovery_parts parts;

	/* In. */
	bool litter;     /* this job deletes litter, */
	unsigned folder; /* or reads this one: kind * FANOUTS + fan-out */

	/* Out. */
	struct blob_info *found;
	size_t n_found, capacity;
	size_t n_deleted;
	int r;
	struct err err;

	/* The loop's. */
	struct pool_queue *queue;
	struct slice slice;
	bool files, unread, stop, done, whole;
	size_t next; /* of found, or of the catalog at the end */
	size_t n_adopted, n_dropped;
};

static enum blob_kind kind_of(const struct recovery *recovery)
{
	return recovery->folder / FANOUTS;
}

/* ---- on a worker ---- */

static void on_found(void *ctx, enum blob_kind kind, const struct blob_info *info)
{
	struct recovery *recovery = ctx;

	(void)kind;
	recovery->found =
		xgrow(recovery->found, recovery->n_found, &recovery->capacity, sizeof(*recovery->found));
	recovery->found[recovery->n_found++] = *info;
}

static enum job_next recovery_run(struct job *job)
{
	struct recovery *recovery = CONTAINER_OF(job, struct recovery, job);
	struct err err = { 0 };

	err_clear(&recovery->err);
	recovery->n_found = 0;
	if (!recovery->litter) {
		recovery->r = blob_scan(recovery->parts.store, kind_of(recovery), recovery->folder % FANOUTS,
					on_found, recovery, &recovery->err);
		return JOB_DONE;
	}
	recovery->r = staging_sweep(recovery->parts.staging, &recovery->n_deleted, &recovery->err);
	if (blob_store_clean(recovery->parts.store, &err) < 0 && recovery->r == 0) {
		recovery->r = -1;
		recovery->err = err;
	}
	return JOB_DONE;
}

/* ---- on the loop ---- */

static void finish(struct recovery *recovery)
{
	recovery->done = true;
	if (recovery->n_adopted || recovery->n_dropped)
		log_info("after an unclean stop: took in %zu blobs that the index did not have, dropped %zu "
			 "that are gone",
			 recovery->n_adopted, recovery->n_dropped);
}

static void submit(struct recovery *recovery)
{
	if (recovery->stop)
		finish(recovery);
	else
		pool_submit(recovery->queue, &recovery->job);
}

static void put_row(struct recovery *recovery, const struct catalog_entry *entry)
{
	struct index_batch *batch = index_batch_new();
	struct index_blob row = catalog_row(entry);

	index_batch_put_blob(batch, &row);
	index_submit(recovery->parts.index, batch, NULL, NULL);
}

static void adopt(struct recovery *recovery, const struct blob_info *info)
{
	enum blob_kind kind = kind_of(recovery);
	struct catalog_entry *entry = catalog_find(recovery->parts.catalog, &info->digest);

	if (entry && entry->kinds & 1u << kind) {
		entry->seen |= (uint8_t)(1u << kind);
		return;
	}
	if (entry && entry->digest.size != info->digest.size)
		return; /* one of the two was changed: whoever uses it finds out which */
	put_row(recovery, catalog_add(recovery->parts.catalog, info, kind, NULL));
	recovery->n_adopted++;
}

static bool drop_step(struct slice *slice);

/* All folders are read. If one could not be, nothing is known to be gone. */
static bool end_of_folders(struct recovery *recovery)
{
	if (recovery->unread) {
		finish(recovery);
		return false;
	}
	recovery->next = 0;
	recovery->slice.step = drop_step;
	return true;
}

/* A few of the names that a worker found; then the next folder. */
static bool adopt_step(struct slice *slice)
{
	struct recovery *recovery = CONTAINER_OF(slice, struct recovery, slice);

	for (unsigned i = 0; i < STEP && recovery->next < recovery->n_found; i++)
		adopt(recovery, &recovery->found[recovery->next++]);
	if (recovery->next < recovery->n_found)
		return true;
	if (recovery->r < 0) {
		recovery->unread = true;
		log_warning("comparing the index with the files: %s", recovery->err.text);
	}
	if (++recovery->folder == FOLDERS)
		return end_of_folders(recovery);
	submit(recovery);
	return false;
}

/* Return: is the entry gone? Another may have moved to its place. */
static bool drop_unseen(struct recovery *recovery, struct catalog_entry *entry)
{
	struct digest digest = entry->digest;

	for (unsigned kind = 0; kind < BLOB_KINDS && entry; kind++) {
		if (!(entry->kinds & ~entry->seen & 1u << kind))
			continue;
		recovery->n_dropped++;
		entry = catalog_drop(recovery->parts.catalog, entry, kind);
	}
	if (entry) {
		put_row(recovery, entry);
	} else {
		struct index_batch *batch = index_batch_new();

		index_batch_drop_blob(batch, &digest);
		index_submit(recovery->parts.index, batch, NULL, NULL);
	}
	return !entry;
}

static bool drop_step(struct slice *slice)
{
	struct recovery *recovery = CONTAINER_OF(slice, struct recovery, slice);

	for (unsigned i = 0; i < STEP && recovery->next < catalog_end(recovery->parts.catalog); i++) {
		struct catalog_entry *entry = catalog_at(recovery->parts.catalog, recovery->next);

		if (!entry || !(entry->kinds & ~entry->seen) || !drop_unseen(recovery, entry))
			recovery->next++;
	}
	if (recovery->next < catalog_end(recovery->parts.catalog) && !recovery->stop)
		return true;
	recovery->whole = recovery->next >= catalog_end(recovery->parts.catalog);
	finish(recovery);
	return false;
}

static void litter_done(struct recovery *recovery)
{
	if (recovery->r < 0)
		log_warning("deleting what an earlier process left: %s", recovery->err.text);
	if (recovery->n_deleted)
		log_info("deleted %zu unfinished trees of an earlier process", recovery->n_deleted);
	recovery->litter = false;
	if (recovery->files)
		submit(recovery);
	else
		finish(recovery);
}

static void recovery_done(struct job *job)
{
	struct recovery *recovery = CONTAINER_OF(job, struct recovery, job);

	if (recovery->litter) {
		litter_done(recovery);
		return;
	}
	recovery->next = 0;
	slice_start(recovery->parts.slicer, &recovery->slice);
}

struct recovery *recovery_start(const struct recovery_parts *parts, bool files)
{
	struct recovery *recovery = xcalloc(1, sizeof(*recovery));

	recovery->parts = *parts;
	recovery->job = (struct job){ .run = recovery_run, .done = recovery_done };
	recovery->queue = pool_queue_new(parts->pool);
	recovery->litter = true;
	recovery->files = files;
	slice_init(&recovery->slice, adopt_step);
	submit(recovery);
	return recovery;
}

void recovery_stop(struct recovery *recovery)
{
	recovery->stop = true;
}

bool recovery_is_done(const struct recovery *recovery)
{
	return recovery->done;
}

bool recovery_is_whole(const struct recovery *recovery)
{
	return recovery->whole || !recovery->files;
}

void recovery_free(struct recovery *recovery)
{
	if (!recovery)
		return;
	list_remove(&recovery->slice.link);
	pool_queue_free(recovery->queue);
	free(recovery->found);
	free(recovery);
}
