/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/put_internal.h"

#include <fcntl.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "common/size.h"
#include "daemon/disk.h"

enum { TURN_NS = 2000000 }; /* after so long a worker lets other requests go first, between files */

/* Hash and store files, one after another. */
struct store_files {
	struct job job;

	/* In. */
	const struct blob_store *store;
	const struct catalog *catalog; /* for its hint about sizes only */
	struct put_files *files;       /* its files, n_taken and stop */
	struct blob_writer *writer;

	/* In and out. */
	struct put_file *at; /* what it is about, or the one that found no room */

	/* Out. */
	struct put_file *stored; /* by this job since it was submitted, the last first */
	struct space_need need;
	struct err err; /* about `failed` */
	struct put_file *failed;

	/* The loop's. */
	struct room_waiter room;
	struct list waiting;
};

/* ---- on a worker ---- */

/* Is this a file that its client may read, and that will stay as it is read? */
static int check_file(const struct store_files *store, int fd, struct stat *st, struct err *err)
{
	int flags = disk_fd_flags(fd), r;

	if (flags < 0 || (r = disk_fstat(fd, st)) < 0)
		return err_errno(err, flags < 0 ? flags : r, "looking at it");
	if (!S_ISREG(st->st_mode))
		return err_set(err, ERR_INVALID_ARGUMENT, "it is no regular file");
	if (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY)
		return err_set(err, ERR_INVALID_ARGUMENT, "its descriptor is not open for reading");
	if ((flags & O_ACCMODE) == O_RDWR && blob_looks_published(store->store, st))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "it is a file of the store, and its descriptor is open for writing");
	return 0;
}

static int store_file(struct store_files *store, struct put_file *file)
{
	bool may_be_known;
	struct stat st;
	int r = check_file(store, file->fd, &st, &store->err);

	if (r < 0)
		return r;
	file->kind =
		(file->has_executable ? file->executable : st.st_mode & S_IXUSR) ? BLOB_EXEC : BLOB_PLAIN;
	may_be_known =
		st.st_size >= BLOB_LARGE && catalog_may_have_size(store->catalog, (uint64_t)st.st_size);
	return blob_write_file(store->writer, file->fd, may_be_known, file->kind, &file->info, &file->changed,
			       &store->err);
}

static struct put_file *take_next(struct put_files *files)
{
	size_t i = atomic_fetch_add(&files->n_taken, 1);

	return i < files->n ? &files->files[i] : NULL;
}

/* Store a file, or only close it. Return: is it done with? */
static bool serve_file(struct store_files *store, struct put_file *file)
{
	bool is_wanted = !atomic_load(&store->files->stop);

	if (is_wanted && (file->r = store_file(store, file)) == BLOB_NO_ROOM)
		return false;
	disk_close(file->fd);
	if (is_wanted && file->r >= 0) {
		file->next = store->stored;
		store->stored = file;
		store->room.disk_was_full = false;
	} else if (is_wanted) {
		store->failed = file;
		atomic_store(&store->files->stop, true);
	}
	return true;
}

static enum job_next store_run(struct job *job)
{
	struct store_files *store = CONTAINER_OF(job, struct store_files, job);
	uint64_t end = slice_now_ns() + TURN_NS;

	while (store->at || (store->at = take_next(store->files))) {
		if (!serve_file(store, store->at)) {
			store->need = blob_writer_need(store->writer);
			return JOB_DONE;
		}
		store->at = NULL;
		if (pool_others_wait(store->files->put->queue) && slice_now_ns() >= end)
			return JOB_AGAIN;
	}
	return JOB_DONE;
}

/* ---- on the loop ---- */

static void note_file(struct put *put, const struct put_file *file)
{
	struct put_entry *entry = put_entry(put, file->entry);
	struct counters *counters = &put->cache->counters;

	entry->digest = file->info.digest;
	entry->executable = file->kind == BLOB_EXEC;
	put->n_files++;
	put->bytes += file->info.digest.size;
	counters->put_files++;
	counters->put_bytes += file->info.digest.size;
	counters->tampered_blobs += file->changed;
	counters->healed_blobs += file->changed;
	if (digest_is_empty(&file->info.digest))
		return;
	entry->brought = put_note_blob(put, &file->info, file->kind, file->r == 0);
	entry->held = true;
}

static void submit(struct store_files *store)
{
	store->writer = put_take_writer(store->files->put);
	pool_submit(store->files->put->queue, &store->job);
}

/* Those that wait for room have descriptors to close. */
static void wake_waiting(struct put_files *files)
{
	struct list *l;

	while ((l = list_pop(&files->waiting))) {
		struct store_files *store = LIST_ENTRY(l, struct store_files, waiting);

		room_leave(&store->room);
		submit(store);
	}
}

void put_files_stop(struct put_files *files)
{
	atomic_store(&files->stop, true);
	wake_waiting(files);
}

/* The first failure is the one that is told. */
static void note_failure(struct put_files *files, int r, const struct err *err, const struct put_file *file)
{
	struct put *put = files->put;

	put_files_stop(files);
	if (files->err.set)
		return;
	const struct put_entry *entry = put_entry(put, file->entry);
	const char *quote = entry->name ? "'" : ""; /* a single file has no name here */
	AUTO_FREE char *path = put_path(put, entry);

	files->r = r;
	files->err = *err;
	if (err->code == ERR_NO_SPACE && put->expected)
		err_prefix(&files->err, "storing %s%s%s, of %s in all: ", quote, path, quote,
			   SIZE_TEXT(put->expected));
	else
		err_prefix(&files->err, "storing %s%s%s: ", quote, path, quote);
}

static void on_room_made(struct room_waiter *waiter, int r, const struct err *err)
{
	struct store_files *store = CONTAINER_OF(waiter, struct store_files, room);

	list_remove(&store->waiting);
	if (r < 0)
		note_failure(store->files, r, err, store->at);
	submit(store);
}

static void end_job(struct put_files *files)
{
	if (--files->n_jobs == 0)
		files->stored(files, files->r, &files->err);
}

static void store_done(struct job *job)
{
	struct store_files *store = CONTAINER_OF(job, struct store_files, job);
	struct put_files *files = store->files;
	struct cache *cache = files->put->cache;

	for (struct put_file *file = store->stored; file; file = file->next)
		note_file(files->put, file);
	store->stored = NULL;
	writers_give(cache->writers, TAKE(store->writer));
	if (store->failed)
		note_failure(files, store->failed->r, &store->err, store->failed);
	if (store->at && atomic_load(&files->stop)) {
		submit(store);
	} else if (store->at) {
		list_append(&files->waiting, &store->waiting);
		room_ask(&cache->room, &store->need, files->put->expected, &store->room);
	} else {
		free(store);
		end_job(files);
	}
}

static void start_job(struct put_files *files)
{
	struct store_files *store = xcalloc(1, sizeof(*store));

	store->job = (struct job){ .run = store_run, .done = store_done };
	store->store = files->put->cache->store;
	store->catalog = files->put->cache->catalog;
	store->files = files;
	store->room.made = on_room_made;
	list_init(&store->waiting);
	files->n_jobs++;
	submit(store);
}

void put_files_start(struct put_files *files)
{
	size_t n_hands = files->put->cache->n_hands;

	atomic_init(&files->n_taken, 0);
	list_init(&files->waiting);
	files->n_jobs = 1; /* this function, so that no job ends it before all are submitted */
	for (size_t i = 0; i < files->n && i < n_hands; i++)
		start_job(files);
	end_job(files);
}
