/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/put_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/discard.h"

enum {
	STORE_JOB_MAX = 64,  /* Directories a worker stores before it looks at other requests */
	STORE_JOBS_MAX = 16, /* that a commit has with the workers at a time */
	ADOPT_STEP = 8,      /* Directories taken in between two looks at the clock */
	FORGET_STEP = 32,    /* ... and forgotten again */
};

/* A Directory of the tree, on its way from entries to a node. */
struct made {
	struct digest digest;
	uint8_t *bytes;
	size_t len;
	struct directory *directory;
	struct blob_info info;
	int stored; /* what blob_write() returned */
	bool changed;
	bool held;        /* by this commit */
	uint64_t brought; /* ... as put_note_blob() says */
};

/* The commit of a tree: encode (one worker), store (all), adopt (the loop), cache, index. */
struct commit {
	struct put *put;
	struct request *request;
	char *tag;
	size_t n; /* Directories: by number, the root first */
	struct made *made;
	struct node **nodes;
	size_t n_jobs;    /* store jobs under way */
	size_t next;      /* Directory to be stored; then those before it are to be adopted, the last first */
	atomic_bool stop; /* cancelled, or something has failed: workers store no more */
	struct list waiting; /* store jobs that wait for room */
	bool cancelled;
	struct err err;
	struct job encode;
	struct slice slice, forget;
	struct tree_request tree;
};

/* Store and decode some Directories. */
struct store_job {
	struct job job;
	struct commit *commit;
	struct blob_writer *writer;
	size_t next, end; /* of commit->made: no two jobs share one */
	struct space_need need;
	struct err err; /* about the next one */

	/* The loop's. */
	size_t n_noted; /* those before it are in the catalog */
	struct room_waiter room;
	struct list waiting;
};

static void forget_made(struct commit *commit, size_t i)
{
	struct made *made = &commit->made[i];

	free(made->bytes);
	if (made->directory)
		discard(commit->put->cache->chores, made->directory, made->directory->memory);
	node_put(commit->nodes[i]);
	if (made->held)
		put_release_blob(commit->put, &made->digest, made->brought);
}

static bool forget_step(struct slice *slice)
{
	struct commit *commit = CONTAINER_OF(slice, struct commit, forget);
	struct cache *cache = commit->put->cache;
	size_t n = commit->put->directories.n;

	for (unsigned i = 0; i < FORGET_STEP && commit->n; i++)
		forget_made(commit, --commit->n);
	if (commit->n)
		return true;
	discard(cache->chores, commit->made, n * sizeof(*commit->made));
	discard(cache->chores, commit->nodes, n * sizeof(struct node *));
	cache->n_ending--;
	put_release(commit->put);
	free(commit->tag);
	free(commit);
	return false;
}

static void commit_free(struct commit *commit)
{
	commit->put->cache->n_ending++;
	put_run_slice(commit->put, &commit->forget);
}

static void commit_fail(struct commit *commit)
{
	request_fail(commit->request, &commit->err);
	commit_free(commit);
}

/* Say which directory it was. */
static void name_directory(struct commit *commit, size_t number, struct err *err)
{
	struct put *put = commit->put;
	AUTO_FREE char *path = number ? put_path(put, put_directory(put, number)) : NULL;

	if (path)
		err_prefix(err, "storing directory '%s': ", path);
	else
		err_prefix(err, "storing the uppermost directory: ");
}

/* Return: has the commit ended, because the client is gone or something failed? */
static bool ended(struct commit *commit)
{
	if (commit->cancelled)
		err_set(&commit->err, ERR_CANCELLED, "put: cancelled");
	if (!commit->err.set)
		return false;
	commit_fail(commit);
	return true;
}

static void submit_store(struct store_job *store)
{
	struct put *put = store->commit->put;

	store->writer = put_take_writer(put);
	pool_submit(put->queue, &store->job);
}

/* Store no more. Jobs that wait for room end on their worker as the others do. */
static void stop_storing(struct commit *commit)
{
	struct list *l;

	atomic_store(&commit->stop, true);
	while ((l = list_pop(&commit->waiting))) {
		struct store_job *store = LIST_ENTRY(l, struct store_job, waiting);

		room_leave(&store->room);
		submit_store(store);
	}
}

static void on_cancel(struct request *request)
{
	struct commit *commit = request->ctx;

	commit->cancelled = true;
	stop_storing(commit);
}

/* ---- encode: on a worker ---- */

static int by_parent(const void *a, const void *b)
{
	const struct put_entry *x = *(struct put_entry *const *)a, *y = *(struct put_entry *const *)b;

	return (x->parent > y->parent) - (x->parent < y->parent);
}

/* The entries of one directory, as the lists of a Directory. */
struct lists {
	struct file_node *files;
	struct directory_node *directories;
	struct symlink_node *symlinks;
};

static void lists_fini(struct lists *lists)
{
	free(lists->files);
	free(lists->directories);
	free(lists->symlinks);
}

static int encode_one(struct commit *commit, uint32_t number, struct put_entry *const *entries, size_t n)
{
	CLEANUP(lists_fini)
	struct lists lists = {
		.files = xcalloc(n + 1, sizeof(*lists.files)),
		.directories = xcalloc(n + 1, sizeof(*lists.directories)),
		.symlinks = xcalloc(n + 1, sizeof(*lists.symlinks)),
	};
	struct directory d = { .files = lists.files,
			       .directories = lists.directories,
			       .symlinks = lists.symlinks };
	struct made *made = &commit->made[number];
	int r;

	for (size_t i = 0; i < n; i++) {
		const struct put_entry *e = entries[i];

		if (e->type == PUT_FILE)
			lists.files[d.n_files++] = (struct file_node){
				.name = e->name,
				.digest = e->digest,
				.executable = e->executable,
			};
		else if (e->type == PUT_DIRECTORY)
			lists.directories[d.n_directories++] = (struct directory_node){
				.name = e->name,
				.digest = commit->made[e->number].digest,
			};
		else
			lists.symlinks[d.n_symlinks++] =
				(struct symlink_node){ .name = e->name, .target = e->target };
	}
	if ((r = directory_encode(&d, &made->bytes, &made->len, &commit->err)) < 0)
		return r;
	if (made->len > DIRECTORY_BYTES_MAX) /* it could be stored, and never read again */
		return err_set(&commit->err, ERR_RESOURCE_EXHAUSTED,
			       "a directory of %zu entries makes a Directory of %zu bytes: the limit is %d",
			       n, made->len, DIRECTORY_BYTES_MAX);
	hash_bytes(made->bytes, made->len, &made->digest);
	return 0;
}

/* Children have higher numbers than their parents: from the last to the first, all below is done. */
static enum job_next encode_run(struct job *job)
{
	struct commit *commit = CONTAINER_OF(job, struct commit, encode);
	struct put *put = commit->put;
	AUTO_FREE struct put_entry **sorted = xcalloc(put->entries.n + 1, sizeof(struct put_entry *));
	size_t end = put->entries.n;

	for (size_t i = 0; i < put->entries.n; i++)
		sorted[i] = put_entry(put, i);
	qsort(sorted, put->entries.n, sizeof(struct put_entry *), by_parent);
	for (uint32_t number = put->directories.n; number-- > 0;) {
		size_t begin = end;

		while (begin && sorted[begin - 1]->parent == number)
			begin--;
		if (encode_one(commit, number, sorted + begin, end - begin) < 0) {
			name_directory(commit, number, &commit->err);
			break;
		}
		end = begin;
	}
	return JOB_DONE;
}

/* ---- store: on all workers ---- */

static int store_one(struct store_job *store, struct made *made)
{
	struct put *put = store->commit->put;
	int r = 0;

	/* First of all, so that what can never be read is never stored. */
	if (!made->directory)
		r = directory_decode(made->bytes, made->len, put->cache->config.limits.entries,
				     &made->directory, &store->err);
	if (r < 0)
		return r;
	if (made->len) {
		made->stored = blob_write(store->writer, made->bytes, made->len, BLOB_PLAIN, &made->info,
					  &made->changed, &store->err);
		if (made->stored < 0 || made->stored == BLOB_NO_ROOM)
			return made->stored;
	}
	free(TAKE(made->bytes));
	return 0;
}

static enum job_next store_run(struct job *job)
{
	struct store_job *store = CONTAINER_OF(job, struct store_job, job);
	struct commit *commit = store->commit;

	for (; store->next < store->end && !atomic_load(&commit->stop); store->next++) {
		int r = store_one(store, &commit->made[store->next]);

		if (r < 0)
			atomic_store(&commit->stop, true);
		if (r == BLOB_NO_ROOM)
			store->need = blob_writer_need(store->writer);
		if (r < 0 || r == BLOB_NO_ROOM)
			break;
		store->room.disk_was_full = false;
	}
	return JOB_DONE;
}

static void start_store(struct commit *commit);

/* A Directory is in the store: it stays until the tree holds it. */
static void note_stored(struct commit *commit, struct made *made)
{
	struct counters *counters = &commit->put->cache->counters;

	if (!made->len)
		return;
	made->brought = put_note_blob(commit->put, &made->info, BLOB_PLAIN, made->stored == 0);
	made->held = true;
	counters->tampered_blobs += made->changed;
	counters->healed_blobs += made->changed;
}

static void note_failure(struct commit *commit, size_t number, const struct err *err)
{
	stop_storing(commit);
	if (commit->err.set)
		return;
	commit->err = *err;
	name_directory(commit, number, &commit->err);
}

static void on_room_made(struct room_waiter *waiter, int r, const struct err *err)
{
	struct store_job *store = CONTAINER_OF(waiter, struct store_job, room);

	list_remove(&store->waiting);
	if (r < 0)
		note_failure(store->commit, store->next, err);
	submit_store(store);
}

static void end_store(struct store_job *store)
{
	struct commit *commit = store->commit;

	free(store);
	commit->n_jobs--;
	if (!atomic_load(&commit->stop))
		start_store(commit);
	if (commit->n_jobs || ended(commit))
		return;
	slice_start(commit->put->cache->slicer, &commit->slice);
}

static void store_done(struct job *job)
{
	struct store_job *store = CONTAINER_OF(job, struct store_job, job);
	struct commit *commit = store->commit;
	struct cache *cache = commit->put->cache;

	for (; store->n_noted < store->next; store->n_noted++)
		note_stored(commit, &commit->made[store->n_noted]);
	writers_give(cache->writers, TAKE(store->writer));
	if (store->err.set)
		note_failure(commit, store->next, &store->err);
	if (store->next == store->end || atomic_load(&commit->stop)) {
		end_store(store);
		return;
	}
	list_append(&commit->waiting, &store->waiting);
	room_ask(&cache->room, &store->need, commit->put->expected, &store->room);
}

/* Hand the next Directories to the workers, a bounded number ahead of them: each job has a writer. */
static void start_store(struct commit *commit)
{
	while (commit->next < commit->n && commit->n_jobs < STORE_JOBS_MAX) {
		struct store_job *store = xcalloc(1, sizeof(*store));
		size_t left = commit->n - commit->next;

		store->job = (struct job){ .run = store_run, .done = store_done };
		store->commit = commit;
		store->next = store->n_noted = commit->next;
		store->end = store->next + (left < STORE_JOB_MAX ? left : STORE_JOB_MAX);
		store->room.made = on_room_made;
		list_init(&store->waiting);
		commit->next = store->end;
		commit->n_jobs++;
		submit_store(store);
	}
}

static void encode_done(struct job *job)
{
	struct commit *commit = CONTAINER_OF(job, struct commit, encode);

	if (!ended(commit))
		start_store(commit);
}

/* ---- adopt: on the loop, in slices ---- */

static void adopt(struct commit *commit, size_t i)
{
	struct made *made = &commit->made[i];

	commit->nodes[i] = nodes_adopt(commit->put->cache->nodes, &made->digest, TAKE(made->directory));
}

static void on_tree(struct tree_request *tree, int r);

/* Have the tree cached. */
static void get_tree(struct commit *commit)
{
	commit->tree.done = on_tree;
	tree_get(commit->put->cache->trees, &commit->made[0].digest, TREE_FOR_PUT, &commit->tree);
}

static void on_tree(struct tree_request *tree, int r)
{
	struct commit *commit = CONTAINER_OF(tree, struct commit, tree);
	struct put *put = commit->put;

	if (r < 0) {
		commit->err = *tree->err;
		commit_fail(commit);
		return;
	}
	node_put(tree->node);
	put->is_good = true;
	put->refs++; /* put_answer() takes one over, commit_free() another */
	put_answer(put, commit->request, &commit->made[0].digest, commit->tag,
		   commit->tag ? strlen(commit->tag) : 0);
	commit_free(commit);
}

static bool adopt_step(struct slice *slice)
{
	struct commit *commit = CONTAINER_OF(slice, struct commit, slice);

	for (unsigned i = 0; i < ADOPT_STEP && commit->next; i++)
		adopt(commit, --commit->next);
	if (commit->next)
		return true;
	commit->request->cancel = NULL; /* what is left is short */
	get_tree(commit);
	return false;
}

void put_commit_tree(struct put *put, struct request *request, const char *tag, size_t tag_len)
{
	struct commit *commit = xcalloc(1, sizeof(*commit));

	commit->put = put;
	commit->request = request;
	commit->tag = tag ? xmemdupz(tag, tag_len) : NULL;
	commit->n = put->directories.n;
	commit->made = xcalloc(commit->n, sizeof(*commit->made));
	commit->nodes = xcalloc(commit->n, sizeof(struct node *));
	commit->encode = (struct job){ .run = encode_run, .done = encode_done };
	slice_init_of(&commit->slice, adopt_step, &put->user->slices);
	slice_init_of(&commit->forget, forget_step, &put->user->slices);
	atomic_init(&commit->stop, false);
	list_init(&commit->waiting);
	request->ctx = commit;
	request->cancel = on_cancel;
	pool_submit(put->queue, &commit->encode);
}
