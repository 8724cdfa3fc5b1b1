/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/recover.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/log.h"

enum {
	FANOUTS = 256,
	FOLDERS = FANOUTS * BLOB_KINDS,
	STEP = 64,                      /* entries between two looks at the clock */
	SETTLE_FILES = 64,              /* hashed by one job, */
	SETTLE_BYTES = 8 * 1024 * 1024, /* or so many bytes: a hundredth of a second */
	LOST_NAMES = 5,                 /* of tags that the log tells */
};

/* A file that is not believed. */
struct doubt {
	struct blob_info info;
	enum blob_kind kind;
	bool skip;          /* somebody else has obtained it by now */
	uint64_t n_counted; /* its bytes among those that the catalog does not have */

	/* Out. */
	int r;
	unsigned n_changed;
};

struct recovery {
	struct job job;
	struct recovery_parts parts;

	/* In. */
	void (*work)(struct recovery *recovery); /* of this job */
	unsigned folder;                         /* to be read: kind * FANOUTS + fan-out */
	uint64_t n_evicted;                      /* blobs, when that began */
	struct doubt *batch;                     /* to be settled: a part of doubts[] */
	size_t n_batch;
	struct blob_writer *writer;

	/* Out. */
	struct blob_found *found;
	size_t n_found, capacity;
	size_t n_deleted;
	int r;
	struct err err;

	/* The loop's. */
	void (*went_on)(struct recovery *recovery); /* after this job */
	struct pool_queue *queue;
	struct slice slice;
	bool files, in_doubt, unread, stop, done, whole;
	size_t next; /* of found, doubts, suspects */
	struct map_walk walk;
	struct doubt *doubts;
	size_t n_doubts, doubts_capacity;
	struct suspects suspects;
	size_t n_adopted, n_hashed, n_wrong, n_dropped;
	struct index_batch *rows; /* changes of this step */
};

static enum blob_kind kind_of(const struct recovery *recovery)
{
	return recovery->folder / FANOUTS;
}

/* ---- on a worker ---- */

static int by_hash(const void *a, const void *b)
{
	const struct index_blob *x = a, *y = b;

	return memcmp(x->digest.hash, y->digest.hash, DIGEST_HASH_SIZE);
}

/* What could not be deleted is tried once more: after a failure of the moment nothing is left. */
static void sweep_staging(struct recovery *recovery)
{
	size_t n_first;

	recovery->r = staging_sweep(recovery->parts.staging, &recovery->n_deleted, &recovery->err);
	if (recovery->r == 0)
		return;
	n_first = recovery->n_deleted;
	err_clear(&recovery->err);
	recovery->r = staging_sweep(recovery->parts.staging, &recovery->n_deleted, &recovery->err);
	recovery->n_deleted += n_first;
}

/* The first job: also sort what is looked for later. */
static void sweep_litter(struct recovery *recovery)
{
	struct err err = { 0 };

	if (recovery->suspects.n)
		qsort(recovery->suspects.rows, recovery->suspects.n, sizeof(*recovery->suspects.rows),
		      by_hash);
	sweep_staging(recovery);
	if (blob_store_clean(recovery->parts.store, &err) < 0 && recovery->r == 0) {
		recovery->r = -1;
		recovery->err = err;
	}
}

static void on_found(void *ctx, const struct blob_found *found)
{
	struct recovery *recovery = ctx;

	recovery->found =
		xgrow(recovery->found, recovery->n_found, &recovery->capacity, sizeof(*recovery->found));
	recovery->found[recovery->n_found++] = *found;
}

static void read_folder(struct recovery *recovery)
{
	recovery->n_found = 0;
	recovery->r = blob_scan(recovery->parts.store, kind_of(recovery), recovery->folder % FANOUTS,
				on_found, recovery, &recovery->err);
}

static void hash_files(struct recovery *recovery)
{
	recovery->r = 0;
	for (size_t i = 0; i < recovery->n_batch; i++) {
		struct doubt *doubt = &recovery->batch[i];
		struct digest digest = doubt->info.digest;

		if (doubt->skip)
			continue;
		doubt->r = blob_settle(recovery->writer, &digest, doubt->kind, &doubt->info,
				       &doubt->n_changed, &recovery->err);
		if (doubt->r < 0)
			recovery->r = doubt->r;
	}
}

static enum job_next recovery_run(struct job *job)
{
	struct recovery *recovery = CONTAINER_OF(job, struct recovery, job);

	err_clear(&recovery->err);
	recovery->work(recovery);
	return JOB_DONE;
}

/* ---- on the loop ---- */

static void finish(struct recovery *recovery)
{
	recovery->done = true;
	if (recovery->n_hashed)
		log_info("hashed %zu files that were not to be believed: %zu of them were wrong, and are "
			 "taken out of the store",
			 recovery->n_hashed, recovery->n_wrong);
	if (recovery->n_adopted || recovery->n_dropped)
		log_info("after an unclean stop: took in %zu blobs that the index did not have, dropped %zu "
			 "that are gone",
			 recovery->n_adopted, recovery->n_dropped);
}

static void submit(struct recovery *recovery, void (*work)(struct recovery *recovery),
		   void (*went_on)(struct recovery *recovery))
{
	if (recovery->stop) {
		finish(recovery);
		return;
	}
	recovery->work = work;
	recovery->went_on = went_on;
	pool_submit(recovery->queue, &recovery->job);
}

static void recovery_done(struct job *job)
{
	struct recovery *recovery = CONTAINER_OF(job, struct recovery, job);

	recovery->went_on(recovery);
}

/* Go on with something else, from the first of it. */
static void begin(struct recovery *recovery, bool (*step)(struct slice *slice))
{
	recovery->next = 0;
	recovery->slice.step = step;
	slice_start(recovery->parts.slicer, &recovery->slice);
}

static void put_row(struct recovery *recovery, struct index_blob row)
{
	index_batch_put_blob(recovery->rows, &row);
}

/* At the end of each step. */
static void submit_rows(struct recovery *recovery)
{
	if (!index_batch_size(recovery->rows))
		return;
	index_submit(recovery->parts.index, recovery->rows, NULL, NULL);
	recovery->rows = index_batch_new();
}

/* ---- drop ---- */

static const struct index_blob *find_suspect(const struct recovery *recovery, const struct digest *digest)
{
	const struct suspects *suspects = &recovery->suspects;
	struct index_blob key = { .digest = *digest };

	return suspects->n ? bsearch(&key, suspects->rows, suspects->n, sizeof(key), by_hash) : NULL;
}

static bool is_here(const struct recovery *recovery, const struct digest *digest)
{
	const struct catalog *catalog = recovery->parts.catalog;

	return digest_is_empty(digest) || catalog_has(catalog, digest, BLOB_PLAIN) ||
	       catalog_has(catalog, digest, BLOB_EXEC);
}

static void tell_lost_tags(const struct recovery *recovery)
{
	const struct tags *tags = recovery->parts.tags;
	AUTO_FREE char *names = xstrdup("");
	size_t n = 0;

	for (size_t i = 0; i < tags_n(tags); i++) {
		struct index_tag tag = tags_at(tags, i);
		AUTO_FREE char *before = NULL;

		if (is_here(recovery, &tag.digest) || ++n > LOST_NAMES)
			continue;
		before = TAKE(names);
		names = xasprintf("%s%s%s", before, *before ? ", " : "", tag.name);
	}
	if (n)
		log_warning(
			"%zu tags name what is not in the store any more: %s%s; they stay, so that it can be "
			"put again, until somebody deletes them",
			n, names, n > LOST_NAMES ? ", ..." : "");
}

/* All that was doubtful is settled, all that is gone is dropped. */
static void end_whole(struct recovery *recovery)
{
	index_batch_settled(recovery->rows);
	submit_rows(recovery);
	blob_store_end_doubt(recovery->parts.store);
	catalog_doubt(recovery->parts.catalog, false);
	if (recovery->in_doubt)
		tell_lost_tags(recovery);
	recovery->whole = true;
	finish(recovery);
}

static bool drop_suspects_step(struct slice *slice)
{
	struct recovery *recovery = CONTAINER_OF(slice, struct recovery, slice);
	const struct suspects *suspects = &recovery->suspects;

	for (unsigned i = 0; i < STEP && recovery->next < suspects->n; i++) {
		const struct index_blob *suspect = &suspects->rows[recovery->next++];

		/* What turned out to be right has a row of its own by now. */
		index_batch_drop_blob(recovery->rows, suspect->row);
		recovery->n_dropped += !catalog_find(recovery->parts.catalog, &suspect->digest);
	}
	submit_rows(recovery);
	if (recovery->next < suspects->n && !recovery->stop)
		return true;
	if (recovery->next < suspects->n)
		finish(recovery);
	else
		end_whole(recovery);
	return false;
}

static void drop_unseen(struct recovery *recovery, struct catalog_entry *entry)
{
	uint64_t row = entry->row;

	for (unsigned kind = 0; kind < BLOB_KINDS && entry; kind++) {
		if (!(entry->kinds & ~entry->seen & 1u << kind))
			continue;
		recovery->n_dropped++;
		entry = catalog_drop(recovery->parts.catalog, entry, kind);
	}
	if (entry)
		put_row(recovery, catalog_row(entry));
	else
		index_batch_drop_blob(recovery->rows, row);
}

static bool drop_step(struct slice *slice)
{
	struct recovery *recovery = CONTAINER_OF(slice, struct recovery, slice);
	const struct catalog *catalog = recovery->parts.catalog;

	for (unsigned i = 0; i < STEP && !catalog_walk_is_over(catalog, &recovery->walk); i++) {
		struct catalog_entry *entry = catalog_walk_step(catalog, &recovery->walk);

		if (entry && entry->kinds & ~entry->seen)
			drop_unseen(recovery, entry);
	}
	submit_rows(recovery);
	if (!catalog_walk_is_over(catalog, &recovery->walk)) {
		if (!recovery->stop)
			return true;
		finish(recovery);
	} else {
		begin(recovery, drop_suspects_step);
	}
	return false;
}

/* ---- settle ---- */

/* Its bytes are right: it is as good as any other, and was used when its row says. */
static void take_in(struct recovery *recovery, const struct doubt *doubt)
{
	const struct index_blob *suspect = find_suspect(recovery, &doubt->info.digest);
	uint64_t stale = catalog_drop_other_size(recovery->parts.catalog, &doubt->info.digest);
	struct catalog_entry *entry;
	bool is_first;

	if (stale)
		index_batch_drop_blob(recovery->rows, stale);
	is_first = !catalog_find(recovery->parts.catalog, &doubt->info.digest);
	entry = catalog_add(recovery->parts.catalog, &doubt->info, doubt->kind, NULL);
	if (is_first && suspect)
		entry->used = suspect->used;
	recovery->n_adopted += !suspect;
	put_row(recovery, catalog_row_of(entry, &doubt->info, doubt->kind));
}

static void note_settled(struct recovery *recovery, const struct doubt *doubt)
{
	catalog_leaving(recovery->parts.catalog, -(int64_t)doubt->n_counted);
	if (doubt->skip)
		return;
	recovery->n_hashed++;
	recovery->n_wrong += doubt->r == BLOB_MISSING && doubt->n_changed;
	recovery->parts.counters->tampered_blobs += doubt->n_changed;
	if (doubt->r == 0 || doubt->r == BLOB_EXISTS)
		take_in(recovery, doubt);
	else if (doubt->r != BLOB_MISSING) /* a failure, or no room for a fresh inode */
		recovery->unread = true;
}

static void batch_hashed(struct recovery *recovery)
{
	if (recovery->r < 0)
		log_warning("comparing files with their digests: %s", recovery->err.text);
	slice_start(recovery->parts.slicer, &recovery->slice);
}

/* Whoever asked for it meanwhile has had it obtained. */
static bool is_seen(const struct recovery *recovery, const struct doubt *doubt)
{
	const struct catalog_entry *entry = catalog_find(recovery->parts.catalog, &doubt->info.digest);

	return entry && entry->kinds & entry->seen & 1u << doubt->kind;
}

/* The next files to hash: some, or one that is large. */
static void hash_batch(struct recovery *recovery)
{
	uint64_t bytes = 0;

	recovery->batch = &recovery->doubts[recovery->next];
	while (recovery->next + recovery->n_batch < recovery->n_doubts && recovery->n_batch < SETTLE_FILES &&
	       bytes < SETTLE_BYTES) {
		struct doubt *doubt = &recovery->batch[recovery->n_batch++];

		doubt->skip = is_seen(recovery, doubt);
		bytes += doubt->skip ? 0 : doubt->info.digest.size;
	}
	recovery->writer = writers_take(recovery->parts.writers);
	submit(recovery, hash_files, batch_hashed);
}

/* Note what the last job found, then start the next: at its end this runs again. */
static bool settle_step(struct slice *slice)
{
	struct recovery *recovery = CONTAINER_OF(slice, struct recovery, slice);

	for (size_t i = 0; i < recovery->n_batch; i++)
		note_settled(recovery, &recovery->batch[i]);
	writers_give(recovery->parts.writers, TAKE(recovery->writer));
	submit_rows(recovery);
	recovery->next += recovery->n_batch;
	recovery->n_batch = 0;
	if (recovery->stop || (recovery->unread && recovery->next == recovery->n_doubts))
		finish(recovery); /* if something could not be read, nothing is known to be gone */
	else if (recovery->next < recovery->n_doubts)
		hash_batch(recovery);
	else
		begin(recovery, drop_step);
	return false;
}

/* ---- scan ---- */

static void doubt_file(struct recovery *recovery, const struct blob_info *info, bool is_known)
{
	struct doubt *doubt;

	recovery->doubts = xgrow(recovery->doubts, recovery->n_doubts, &recovery->doubts_capacity,
				 sizeof(*recovery->doubts));
	doubt = &recovery->doubts[recovery->n_doubts++];
	*doubt = (struct doubt){ .info = *info, .kind = kind_of(recovery) };
	if (is_known)
		return;
	doubt->n_counted = info->allocated; /* it is on the disk, and the limit of size counts it */
	catalog_leaving(recovery->parts.catalog, (int64_t)doubt->n_counted);
}

/*
 * Is a name that the catalog does not have perhaps one that eviction has taken out of it, and unlinks now or
 * has unlinked since the folder was read? Who settles it claims it first, and then looks again.
 */
static bool may_be_evicted(const struct recovery *recovery)
{
	return claims_n(recovery->parts.claims) ||
	       recovery->parts.counters->evicted_blobs != recovery->n_evicted;
}

static void adopt(struct recovery *recovery, const struct blob_info *info)
{
	enum blob_kind kind = kind_of(recovery);
	struct catalog_entry *entry = catalog_add(recovery->parts.catalog, info, kind, NULL);

	put_row(recovery, catalog_row_of(entry, info, kind));
	recovery->n_adopted++;
}

/* One name: is it what the catalog says, is it unknown, or must it be hashed? */
static void compare(struct recovery *recovery, const struct blob_found *found)
{
	const struct blob_info *info = &found->info;
	enum blob_kind kind = kind_of(recovery);
	struct catalog_entry *entry = catalog_find(recovery->parts.catalog, &info->digest);
	bool is_known = entry && entry->kinds & 1u << kind;
	bool agrees = !found->is_changed && (!entry || entry->digest.size == info->digest.size);
	bool is_good = !recovery->in_doubt || found->is_vouched;

	if (agrees && is_good && catalog_confirm(recovery->parts.catalog, info, kind))
		return;
	if (is_known || !agrees || !is_good || may_be_evicted(recovery))
		doubt_file(recovery, info, is_known);
	else
		adopt(recovery, info);
}

static void folder_read(struct recovery *recovery)
{
	recovery->next = 0;
	slice_start(recovery->parts.slicer, &recovery->slice);
}

static void submit_folder(struct recovery *recovery)
{
	recovery->n_evicted = recovery->parts.counters->evicted_blobs;
	submit(recovery, read_folder, folder_read);
}

/* A few of the names that a worker found; then the next folder. */
static bool compare_step(struct slice *slice)
{
	struct recovery *recovery = CONTAINER_OF(slice, struct recovery, slice);

	for (unsigned i = 0; i < STEP && recovery->next < recovery->n_found; i++)
		compare(recovery, &recovery->found[recovery->next++]);
	submit_rows(recovery);
	if (recovery->next < recovery->n_found)
		return true;
	if (recovery->r < 0) {
		recovery->unread = true;
		log_warning("comparing the index with the files: %s", recovery->err.text);
	}
	if (++recovery->folder < FOLDERS)
		submit_folder(recovery);
	else
		begin(recovery, settle_step);
	return false;
}

/* ---- the whole ---- */

static void litter_swept(struct recovery *recovery)
{
	if (recovery->r < 0)
		log_warning("deleting what an earlier process left: %s", recovery->err.text);
	if (recovery->n_deleted)
		log_info("deleted %zu unfinished trees of an earlier process", recovery->n_deleted);
	recovery->slice.step = compare_step;
	if (recovery->files)
		submit_folder(recovery);
	else
		finish(recovery);
}

struct recovery *recovery_start(const struct recovery_parts *parts, bool files, struct suspects *suspects)
{
	struct recovery *recovery = xcalloc(1, sizeof(*recovery));

	recovery->parts = *parts;
	recovery->job = (struct job){ .run = recovery_run, .done = recovery_done };
	recovery->queue = pool_queue_new(parts->pool);
	recovery->rows = index_batch_new();
	recovery->files = files;
	recovery->in_doubt = blob_store_in_doubt(parts->store);
	recovery->suspects = *suspects;
	*suspects = (struct suspects){ 0 };
	slice_init(&recovery->slice, compare_step);
	submit(recovery, sweep_litter, litter_swept);
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
	index_batch_free(recovery->rows);
	free(recovery->suspects.rows);
	free(recovery->doubts);
	free(recovery->found);
	free(recovery);
}
