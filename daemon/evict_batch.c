/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include "common/alloc.h"
#include "common/log.h"

enum {
	BATCH_MAX = 64,
	SETTLE_STEP = 4,   /* blobs between two looks at the clock */
	TURN_NS = 2000000, /* then a worker lets others go first */
};

/* One blob on its way out: out of the catalog, its files still there. */
struct condemned {
	struct index_blob row;
	uint8_t seen; /* of its kinds: catalog.h */

	/* Out. */
	bool is_gone;
	uint8_t kinds;  /* that are left of it */
	uint64_t freed; /* bytes of disk: less than what leaves, where there are other links */
};

struct evict_batch {
	struct job job;

	/* In. */
	struct blob_store *store;
	struct claims *claims;
	struct pool_queue *queue;
	bool must_free;
	size_t n;

	/* In and out. */
	size_t n_run;
	struct condemned blobs[BATCH_MAX];
	struct err err;

	/* The loop's. */
	struct evict *evict;
	struct list link; /* settling */
	size_t n_settled;
	struct index_batch *rows;
};

static uint64_t allocated_of(const struct index_blob *row)
{
	return row->allocated[BLOB_PLAIN] + row->allocated[BLOB_EXEC];
}

/* ---- on a worker ---- */

/* Bytes of disk that taking the files of a blob out of the store would free. */
static uint64_t freed_by(struct evict_batch *batch, const struct index_blob *row)
{
	uint64_t freed = 0;

	for (unsigned kind = 0; kind < BLOB_KINDS; kind++) {
		uint64_t bytes;

		if (row->kinds & 1u << kind &&
		    blob_has_no_other_link(batch->store, &row->digest, kind, &bytes))
			freed += bytes;
	}
	return freed;
}

static void execute(struct evict_batch *batch, struct condemned *blob)
{
	const struct digest *digest = &blob->row.digest;

	blob->kinds = blob->row.kinds;
	if (!claims_execute(batch->claims, digest))
		return;
	blob->freed = freed_by(batch, &blob->row);
	for (unsigned kind = 0; kind < BLOB_KINDS && (blob->freed || !batch->must_free); kind++)
		if (blob->kinds & 1u << kind && blob_discard(batch->store, digest, kind, &batch->err) >= 0)
			blob->kinds &= (uint8_t) ~(1u << kind);
	claims_executed(batch->claims, digest);
	blob->is_gone = !blob->kinds;
}

static enum job_next batch_run(struct job *job)
{
	struct evict_batch *batch = CONTAINER_OF(job, struct evict_batch, job);
	uint64_t end = slice_now_ns() + TURN_NS;

	while (batch->n_run < batch->n) {
		execute(batch, &batch->blobs[batch->n_run++]);
		if (batch->n_run < batch->n && slice_now_ns() >= end && pool_others_wait(batch->queue))
			return JOB_AGAIN;
	}
	return JOB_DONE;
}

/* ---- on the loop ---- */

/*
 * What was not unlinked comes into the catalog again, as it was, but for what others noted meanwhile: then
 * theirs is the row, and lacks these kinds. One that lost a kind has to be written, too.
 */
static void restore(struct catalog *catalog, const struct condemned *blob, struct index_batch *rows)
{
	bool is_as_before = !catalog_find(catalog, &blob->row.digest) && blob->kinds == blob->row.kinds;
	struct index_blob row = blob->row;

	row.kinds = blob->kinds;
	row = catalog_row(catalog_put_back(catalog, &row, blob->seen & blob->kinds));
	if (row.row != blob->row.row)
		index_batch_drop_blob(rows, blob->row.row);
	if (!is_as_before)
		index_batch_put_blob(rows, &row);
}

/* A row goes with its files; if the blob was stored again meanwhile, it has another. */
static void settle(struct evict *evict, struct condemned *blob, struct index_batch *rows)
{
	const struct index_blob *row = &blob->row;
	struct evict_gc *gc = evict_first_gc(evict);

	claims_settle(evict->parts.claims, &row->digest);
	catalog_leaving(evict->parts.catalog, -(int64_t)allocated_of(row));
	evict->leaving -= allocated_of(row);
	if (!blob->is_gone) {
		restore(evict->parts.catalog, blob, rows);
		return;
	}
	index_batch_drop_blob(rows, row->row);
	evict->freed += blob->freed;
	evict->sums.n_blobs++;
	evict->sums.bytes += allocated_of(row);
	if (gc) {
		gc->n_blobs++;
		gc->bytes += allocated_of(row);
	}
	evict->parts.counters->evicted_blobs++;
	evict->parts.counters->evicted_bytes += allocated_of(row);
}

static void end_batch(struct evict_batch *batch)
{
	struct evict *evict = batch->evict;
	struct catalog_totals totals = catalog_totals(evict->parts.catalog);

	list_remove(&batch->link);
	index_submit(evict->parts.index, batch->rows, NULL, NULL);
	space_set_used(evict->parts.space, totals.allocated + totals.leaving);
	if (batch->err.set)
		log_warning("evicting: %s", batch->err.text);
	free(batch);
	evict->n_batches--;
	evict_run_kick(evict);
}

static bool settle_step(struct slice *slice)
{
	struct evict *evict = CONTAINER_OF(slice, struct evict, settler);
	struct evict_batch *batch;

	if (list_is_empty(&evict->settling))
		return false;
	batch = LIST_ENTRY(evict->settling.next, struct evict_batch, link);
	for (unsigned i = 0; i < SETTLE_STEP && batch->n_settled < batch->n; i++)
		settle(evict, &batch->blobs[batch->n_settled++], batch->rows);
	if (batch->n_settled == batch->n)
		end_batch(batch);
	return true;
}

static void batch_done(struct job *job)
{
	struct evict_batch *batch = CONTAINER_OF(job, struct evict_batch, job);
	struct evict *evict = batch->evict;

	batch->rows = index_batch_new();
	list_append(&evict->settling, &batch->link);
	slice_start(evict->parts.slicer, &evict->settler);
}

void evict_batch_init(struct evict *evict)
{
	list_init(&evict->settling);
	slice_init(&evict->settler, settle_step);
}

bool evict_batch_add(struct evict *evict, const struct digest *digest, bool must_free)
{
	struct catalog *catalog = evict->parts.catalog;
	struct catalog_entry *entry = catalog_find(catalog, digest);
	struct evict_batch *batch = evict->batch;
	struct index_blob row = catalog_row(entry);

	if (tags_pin(evict->parts.tags, digest) || !claims_condemn(evict->parts.claims, &row.digest))
		return false;
	if (!batch)
		batch = evict->batch = xcalloc(1, sizeof(*batch));
	batch->must_free = must_free;
	batch->blobs[batch->n++] = (struct condemned){ .row = row, .seen = entry->seen };
	for (unsigned kind = 0; kind < BLOB_KINDS; kind++)
		if (row.kinds & 1u << kind)
			entry = catalog_drop(catalog, entry, kind);
	catalog_leaving(catalog, (int64_t)allocated_of(&row));
	evict->leaving += allocated_of(&row);
	return true;
}

bool evict_batch_is_full(const struct evict *evict)
{
	return evict->batch && evict->batch->n == BATCH_MAX;
}

void evict_batch_send(struct evict *evict)
{
	struct evict_batch *batch = TAKE(evict->batch);

	if (!batch)
		return;
	batch->job = (struct job){ .run = batch_run, .done = batch_done };
	batch->store = evict->parts.store;
	batch->claims = evict->parts.claims;
	batch->queue = evict->queue;
	batch->evict = evict;
	evict->n_batches++;
	pool_submit(evict->queue, &batch->job);
}
