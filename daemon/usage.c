/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/usage.h"

#include <errno.h>
#include <fcntl.h>

#include "common/alloc.h"
#include "daemon/disk.h"

enum {
	DEPTH_MAX = 8, /* of folders that are none of ours, such as lost+found */
	SETTLE_STEP = 64,
	TELL_STEP = 8,
};

/* Until then the kernel has written, as it is set up everywhere, what waits to be written. */
static const uint64_t fresh_ns = UINT64_C(60) * 1000000000;

struct measure_job {
	struct job job;

	/* In. */
	struct blob_store *store;
	int store_fd;

	/* In, and what they take now out. */
	struct catalog_fresh *fresh;
	size_t n_fresh;

	/* Out. */
	struct usage_levels levels;
	int r;
	struct err err;

	struct usage *usage;
	struct slice slice;
};

struct usage {
	struct usage_parts parts;
	struct pool_queue *queue;
	struct usage_levels levels;
	struct list waiting;  /* for the next measurement */
	struct list measured; /* for the one that runs */
	bool is_measuring;
};

/* ---- on a worker ---- */

static uint64_t allocated(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512; /* the unit of st_blocks: stat(2) */
}

/*
 * A stream over a folder; NULL when it is gone meanwhile or nobody's business (lost+found is root's), or with
 * *r < 0.
 */
static DIR *open_folder(int parent, const char *name, int *r)
{
	int fd = disk_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);

	*r = fd == -ENOENT || fd == -EACCES ? 0 : fd;
	return fd < 0 ? NULL : disk_fdopendir(fd, r);
}

/*
 * What is below a folder. In a folder of blobs (their kind's) the fan-out folders are counted and not looked
 * into: the catalog knows the files.
 */
static int add_folder(int parent, const char *name, unsigned depth, uint64_t *sum)
{
	bool of_blobs = depth == 1 && blob_is_kind_folder(name);
	struct dirent *entry;
	int r = 0;
	DIR *dir = open_folder(parent, name, &r);

	while (r == 0 && dir && (entry = disk_readdir(dir, &r))) {
		struct stat st;

		r = disk_fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW);
		if (r == -ENOENT) { /* records and drafts come and go */
			r = 0;
			continue;
		}
		if (r == 0)
			*sum += allocated(&st);
		if (r == 0 && S_ISDIR(st.st_mode) && !of_blobs && depth < DEPTH_MAX)
			r = add_folder(dirfd(dir), entry->d_name, depth + 1, sum);
	}
	disk_closedir(dir);
	return r;
}

static int measure(struct measure_job *measure)
{
	struct stat st;
	int r = disk_fstat(measure->store_fd, &st);

	if (r == 0) {
		measure->levels.overhead = allocated(&st);
		r = add_folder(measure->store_fd, ".", 0, &measure->levels.overhead);
	}
	if (r == 0)
		r = disk_free_bytes(measure->store_fd, &measure->levels.disk_free);
	return r < 0 ? err_errno(&measure->err, r, "measuring what the store takes on disk") : 0;
}

static void look_at_fresh(struct blob_store *store, struct catalog_fresh *fresh, size_t n)
{
	struct blob_info info;

	for (size_t i = 0; i < n; i++)
		if (blob_stat(store, &fresh[i].digest, fresh[i].kind, &info, NULL) == 0)
			fresh[i].allocated = info.allocated;
}

static enum job_next measure_run(struct job *job)
{
	struct measure_job *m = CONTAINER_OF(job, struct measure_job, job);

	look_at_fresh(m->store, m->fresh, m->n_fresh);
	m->r = measure(m);
	return JOB_DONE;
}

/* ---- on the loop ---- */

static void measure_more(struct usage *usage);

/* Say what a fresh blob takes by now; one that is still young is looked at again the next time. */
static void settle(struct usage *usage, const struct catalog_fresh *fresh)
{
	struct catalog *catalog = usage->parts.catalog;
	const struct catalog_entry *entry = catalog_correct(catalog, fresh);

	if (entry) {
		struct index_batch *batch = index_batch_new();
		struct index_blob row = catalog_row(entry);

		index_batch_put_blob(batch, &row);
		index_submit(usage->parts.index, batch, NULL, NULL);
	}
	if (slice_now_ns() - fresh->since_ns < fresh_ns)
		catalog_keep_fresh(catalog, fresh);
}

static void settle_some(struct measure_job *m)
{
	for (unsigned i = 0; i < SETTLE_STEP && m->n_fresh; i++)
		settle(m->usage, &m->fresh[--m->n_fresh]);
}

/* There may be as many waiters as requests are open. */
static void tell_some(struct measure_job *m)
{
	struct list *l;

	for (unsigned i = 0; i < TELL_STEP && (l = list_pop(&m->usage->measured)); i++) {
		struct usage_waiter *waiter = LIST_ENTRY(l, struct usage_waiter, link);

		waiter->measured(waiter, m->r, &m->err);
	}
}

static bool end_step(struct slice *slice)
{
	struct measure_job *m = CONTAINER_OF(slice, struct measure_job, slice);
	struct usage *usage = m->usage;

	if (m->n_fresh) {
		settle_some(m);
		return true;
	}
	if (m->r == 0)
		usage->levels = m->levels;
	tell_some(m);
	if (!list_is_empty(&usage->measured))
		return true;
	usage->is_measuring = false;
	free(m->fresh);
	free(m);
	measure_more(usage);
	return false;
}

static void measure_done(struct job *job)
{
	struct measure_job *m = CONTAINER_OF(job, struct measure_job, job);

	slice_start(m->usage->parts.slicer, &m->slice);
}

static void measure_more(struct usage *usage)
{
	struct measure_job *m;
	struct list *l;

	if (usage->is_measuring || list_is_empty(&usage->waiting))
		return;
	m = xcalloc(1, sizeof(*m));
	m->job = (struct job){ .run = measure_run, .done = measure_done };
	m->store = usage->parts.store;
	m->store_fd = usage->parts.store_fd;
	m->n_fresh = catalog_take_fresh(usage->parts.catalog, &m->fresh);
	m->usage = usage;
	slice_init(&m->slice, end_step);
	while ((l = list_pop(&usage->waiting)))
		list_append(&usage->measured, l);
	usage->is_measuring = true;
	pool_submit(usage->queue, &m->job);
}

void usage_settle(struct usage *usage)
{
	AUTO_FREE struct catalog_fresh *fresh = NULL;
	size_t n = catalog_take_fresh(usage->parts.catalog, &fresh);

	look_at_fresh(usage->parts.store, fresh, n);
	for (size_t i = 0; i < n; i++)
		settle(usage, &fresh[i]);
}

struct usage *usage_new(const struct usage_parts *parts)
{
	struct usage *usage = xcalloc(1, sizeof(*usage));

	usage->parts = *parts;
	usage->queue = pool_queue_new(parts->pool);
	list_init(&usage->waiting);
	list_init(&usage->measured);
	return usage;
}

void usage_free(struct usage *usage)
{
	if (!usage)
		return;
	pool_queue_free(usage->queue);
	free(usage);
}

struct usage_levels usage_levels(const struct usage *usage)
{
	return usage->levels;
}

bool usage_is_measuring(const struct usage *usage)
{
	return usage->is_measuring;
}

void usage_measure(struct usage *usage, struct usage_waiter *waiter)
{
	list_append(&usage->waiting, &waiter->link);
	measure_more(usage);
}

void usage_leave(struct usage_waiter *waiter)
{
	list_remove(&waiter->link);
}
