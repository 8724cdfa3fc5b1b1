/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/index_internal.h"
#include "daemon/pool.h"

enum {
	LOST_MAX = 1000000, /* changes kept for another try */
	GATHERED_MAX = 500, /* rows that wait for more: about a transaction */
	CHANGES_MAX = 500, /* of a transaction, with one batch more: the WAL grows by as many pages at once */
	USES_MAX = 500,    /* written each time: the order of use may be coarse, the lane must not be busy */
};

static const struct timeval use_interval = { .tv_usec = 250000 };

/* All batches that waited when the lane was free. */
struct commit_job {
	struct job job; /* first */

	/* In; each batch also takes its result out. */
	struct list batches;
	struct index *index; /* its db is the lane's */

	/* Out. */
	struct index_outcome outcome;
};

struct index {
	const char *folder; /* borrowed */
	struct pool *lane;
	struct pool_queue *queue;
	struct index_db *db; /* the lane's, and ours again when it has ended */

	struct list waiting;      /* batches for the next commit */
	struct commit_job commit; /* there is only one at a time */
	bool is_committing;
	size_t n_pending;
	uint64_t n_commits, n_changes, n_puts;

	/* Changes that could not be committed and whose batch has nobody to tell: they are tried again,
	 * before the next batch. NULL for none. */
	struct index_batch *lost;
	bool lost_for_good; /* there were too many */

	struct index_batch *gathered; /* rows, not submitted yet; NULL for none */
	struct index_batch *uses;     /* of blobs, not submitted yet; NULL for none */
	struct event *use_timer;

	uint64_t n_failed; /* batches; the last of them with */
	int failure;
	struct err failure_err;
};

/* ---- loading ---- */

struct load_job {
	struct job job; /* first */

	/* In. */
	struct index *index; /* its db is the lane's */
	struct index_sink sink;

	/* Out. */
	int result;
	struct index_loaded loaded;
	struct err err;

	/* For done(). */
	void (*done)(void *ctx, int r, const struct index_loaded *loaded, const struct err *err);
	void *ctx;
};

static int open_and_read(struct load_job *load, struct index_db **db)
{
	int r = index_db_open(load->index->folder, db, &load->loaded, &load->err);

	if (r == 0)
		r = index_db_load(*db, &load->sink, &load->loaded, &load->err);
	if (r != -EUCLEAN)
		return r;
	load->loaded.damage = load->err;
	err_clear(&load->err);
	r = index_db_replace(*db, &load->loaded, &load->err);
	return r < 0 ? r : index_db_load(*db, &load->sink, &load->loaded, &load->err);
}

static enum job_next run_load(struct job *job)
{
	struct load_job *load = (struct load_job *)job;
	AUTO(index_db) db = NULL;

	load->result = open_and_read(load, &db);
	if (load->result == 0)
		load->index->db = TAKE(db);
	return JOB_DONE;
}

static void on_loaded(struct job *job)
{
	struct load_job *load = (struct load_job *)job;

	load->done(load->ctx, load->result, &load->loaded, &load->err);
	free(load);
}

void index_load(struct index *index, const struct index_sink *sink,
		void (*done)(void *ctx, int r, const struct index_loaded *loaded, const struct err *err),
		void *ctx)
{
	struct load_job *load = xcalloc(1, sizeof(*load));

	load->job = (struct job){ .run = run_load, .done = on_loaded };
	load->index = index;
	load->sink = *sink;
	load->done = done;
	load->ctx = ctx;
	pool_submit(index->queue, &load->job);
}

/* ---- batches ---- */

struct index_batch *index_batch_new(void)
{
	struct index_batch *batch = xcalloc(1, sizeof(*batch));

	list_init(&batch->link);
	return batch;
}

void index_batch_free(struct index_batch *batch)
{
	if (!batch)
		return;
	for (size_t i = 0; i < batch->n_changes; i++) {
		const struct index_change *change = &batch->changes[i];

		if (change->op == INDEX_PUT_TAG || change->op == INDEX_DROP_TAG)
			free((char *)change->tag.name);
	}
	free(batch->changes);
	free(batch);
}

static struct index_change *add(struct index_batch *batch, enum index_op op)
{
	struct index_change *change;

	batch->changes = xgrow(batch->changes, batch->n_changes, &batch->capacity, sizeof(*batch->changes));
	change = &batch->changes[batch->n_changes++];
	batch->n_drops += op == INDEX_DROP_BLOB || op == INDEX_DROP_TREE || op == INDEX_DROP_TAG;
	*change = (struct index_change){ .op = op };
	return change;
}

void index_batch_put_blob(struct index_batch *batch, const struct index_blob *blob)
{
	add(batch, INDEX_PUT_BLOB)->blob = *blob;
	batch->n_puts++;
}

void index_batch_drop_blob(struct index_batch *batch, uint64_t row)
{
	add(batch, INDEX_DROP_BLOB)->blob.row = row;
}

void index_batch_put_tree(struct index_batch *batch, const struct index_tree *tree)
{
	add(batch, INDEX_PUT_TREE)->tree = *tree;
}

void index_batch_drop_tree(struct index_batch *batch, const struct digest *digest)
{
	add(batch, INDEX_DROP_TREE)->tree.digest = *digest;
}

void index_batch_put_tag(struct index_batch *batch, const struct index_tag *tag)
{
	struct index_change *change = add(batch, INDEX_PUT_TAG);

	change->tag = *tag;
	change->tag.name = xstrdup(tag->name);
}

void index_batch_drop_tag(struct index_batch *batch, const char *name)
{
	add(batch, INDEX_DROP_TAG)->tag.name = xstrdup(name);
}

void index_batch_touch_blob(struct index_batch *batch, uint64_t row, uint64_t used)
{
	struct index_blob *blob = &add(batch, INDEX_TOUCH_BLOB)->blob;

	blob->row = row;
	blob->used = used;
}

void index_batch_touch_tree(struct index_batch *batch, const struct digest *digest, uint64_t used,
			    uint64_t hits)
{
	struct index_tree *tree = &add(batch, INDEX_TOUCH_TREE)->tree;

	tree->digest = *digest;
	tree->used = used;
	tree->hits = hits;
}

void index_batch_synced(struct index_batch *batch, uint64_t synced)
{
	add(batch, INDEX_SYNCED)->synced = synced;
}

void index_batch_settled(struct index_batch *batch)
{
	(void)add(batch, INDEX_SETTLED);
}

size_t index_batch_size(const struct index_batch *batch)
{
	return batch->n_changes;
}

/* ---- committing ---- */

static enum job_next run_commit(struct job *job)
{
	struct commit_job *commit = (struct commit_job *)job;

	commit->outcome = (struct index_outcome){ 0 };
	index_db_commit(commit->index->db, &commit->batches, &commit->outcome);
	return JOB_DONE;
}

static void commit_waiting(struct index *index);

/* Move the changes of a batch to those that are tried again. */
static void keep_lost(struct index *index, struct index_batch *batch)
{
	struct index_batch *lost = index->lost;

	if (!lost)
		lost = index->lost = index_batch_new();
	lost->n_drops += batch->n_drops;
	for (size_t i = 0; i < batch->n_changes && lost->n_changes < LOST_MAX; i++) {
		lost->changes =
			xgrow(lost->changes, lost->n_changes, &lost->capacity, sizeof(*lost->changes));
		lost->changes[lost->n_changes++] = batch->changes[i];
	}
	index->lost_for_good |= lost->n_changes == LOST_MAX;
	batch->n_changes = 0;
}

static void note_failure(struct index *index, struct index_batch *batch)
{
	index->n_failed++;
	index->failure = batch->result;
	index->failure_err = batch->err;
	if (!batch->done && batch->n_changes)
		keep_lost(index, batch);
}

static void on_committed(struct job *job)
{
	struct commit_job *commit = (struct commit_job *)job;
	struct index *index = commit->index;
	struct list answers, *l;

	index->n_commits += commit->outcome.n_commits;
	if (commit->outcome.damage.set)
		log_error(
			"the index was damaged and is set aside, as %s; a new one takes what comes, and the "
			"next start will find the rest in the store",
			commit->outcome.damage.text);
	list_init(&answers);
	/* What is tried again comes before what waits: a row may be put by the one and dropped by the other.
	 */
	while ((l = list_pop(&commit->batches))) {
		struct index_batch *batch = LIST_ENTRY(l, struct index_batch, link);

		list_append(&answers, l);
		if (batch->result < 0)
			note_failure(index, batch);
	}
	/* The lane goes on before the answers, which may take their time and may submit more. */
	index->is_committing = false;
	commit_waiting(index);
	while ((l = list_pop(&answers))) {
		struct index_batch *batch = LIST_ENTRY(l, struct index_batch, link);

		index->n_pending--;
		if (batch->done)
			batch->done(batch->ctx, batch->result, &batch->err);
		index_batch_free(batch);
	}
}

static void commit_waiting(struct index *index)
{
	struct commit_job *commit = &index->commit;
	size_t n_changes = 0;
	struct list *l;

	if (index->is_committing || list_is_empty(&index->waiting))
		return;
	if (index->lost) {
		list_append(&commit->batches, &TAKE(index->lost)->link);
		index->n_pending++;
	}
	while (n_changes < CHANGES_MAX && (l = list_pop(&index->waiting))) {
		n_changes += LIST_ENTRY(l, struct index_batch, link)->n_changes;
		list_append(&commit->batches, l);
	}
	index->is_committing = true;
	commit->job = (struct job){ .run = run_commit, .done = on_committed };
	pool_submit(index->queue, &commit->job);
}

static void append(struct index *index, struct index_batch *batch)
{
	list_append(&index->waiting, &batch->link);
	index->n_pending++;
	index->n_changes += batch->n_changes;
	index->n_puts += batch->n_puts;
}

void index_submit(struct index *index, struct index_batch *batch,
		  void (*done)(void *ctx, int r, const struct err *err), void *ctx)
{
	batch->done = done;
	batch->ctx = ctx;
	if (index->gathered)
		append(index, TAKE(index->gathered));
	append(index, batch);
	commit_waiting(index);
}

void index_gather_blob(struct index *index, const struct index_blob *blob)
{
	if (!index->gathered)
		index->gathered = index_batch_new();
	index_batch_put_blob(index->gathered, blob);
	if (index_batch_size(index->gathered) >= GATHERED_MAX)
		index_submit_gathered(index);
}

void index_submit_gathered(struct index *index)
{
	if (!index->gathered)
		return;
	append(index, TAKE(index->gathered));
	commit_waiting(index);
}

uint64_t index_mark(const struct index *index)
{
	return index->n_failed;
}

struct barrier {
	struct index *index;
	uint64_t mark;
	void (*done)(void *ctx, int r, const struct err *err);
	void *ctx;
};

static void on_barrier(void *ctx, int r, const struct err *err)
{
	struct barrier *barrier = ctx;
	const struct index *index = barrier->index;

	(void)err;
	if (r < 0 || index->n_failed != barrier->mark)
		barrier->done(barrier->ctx, index->failure, &index->failure_err);
	else
		barrier->done(barrier->ctx, 0, NULL);
	free(barrier);
}

void index_barrier(struct index *index, uint64_t mark, void (*done)(void *ctx, int r, const struct err *err),
		   void *ctx)
{
	struct barrier *barrier = xmalloc(sizeof(*barrier));

	*barrier = (struct barrier){ .index = index, .mark = mark, .done = done, .ctx = ctx };
	index_submit(index, index_batch_new(), on_barrier, barrier);
}

struct pool_queue *index_lane(const struct index *index)
{
	return index->queue;
}

struct index_db *index_db_of(const struct index *index)
{
	return index->db;
}

size_t index_n_pending(const struct index *index)
{
	return index->n_pending;
}

uint64_t index_n_commits(const struct index *index)
{
	return index->n_commits;
}

uint64_t index_n_changes(const struct index *index)
{
	return index->n_changes;
}

uint64_t index_n_puts(const struct index *index)
{
	return index->n_puts;
}

/* ---- uses ---- */

static void submit_uses(struct index *index)
{
	if (index->uses)
		index_submit(index, TAKE(index->uses), NULL, NULL);
}

static void on_use_timer(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	submit_uses(arg);
}

void index_use_blob(struct index *index, uint64_t row, uint64_t used)
{
	if (!index->uses) {
		index->uses = index_batch_new();
		(void)evtimer_add(index->use_timer, &use_interval);
	}
	if (index_batch_size(index->uses) < USES_MAX)
		index_batch_touch_blob(index->uses, row, used);
}

/* ---- the whole ---- */

struct index *index_new(struct event_base *base, const char *folder)
{
	struct pool *lane = pool_new(base, 1, "index");
	struct index *index;

	if (!lane)
		return NULL;
	index = xcalloc(1, sizeof(*index));
	index->folder = folder;
	index->lane = lane;
	index->queue = pool_queue_new(lane);
	index->use_timer = evtimer_new(base, on_use_timer, index);
	if (!index->use_timer)
		abort();
	list_init(&index->waiting);
	list_init(&index->commit.batches);
	index->commit.index = index;
	return index;
}

void index_free(struct index *index, bool clean)
{
	struct err err = { 0 };

	if (!index)
		return;
	index_submit_gathered(index);
	submit_uses(index);
	if (index->lost)
		index_submit(index, index_batch_new(), NULL, NULL);
	event_free(index->use_timer);
	pool_free(index->lane); /* commits what waits: each commit's done() submits the next */
	assert(index->n_pending == 0);
	pool_queue_free(index->queue);
	if (index_db_close(index->db, clean && !index->lost && !index->lost_for_good, &err) < 0)
		log_warning("%s", err.text);
	index_batch_free(index->lost);
	free(index);
}
