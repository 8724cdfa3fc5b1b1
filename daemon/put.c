/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/put_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"

enum {
	HASH_JOB_MAX = 32, /* files a worker stores before it looks at other requests */
	ROWS_MAX = 2048,   /* rows gathered before they are handed to the index */
};

/* A file to be stored. */
struct put_file {
	/* In. */
	int fd;                          /* closed by the worker */
	size_t entry;                    /* index in the put's entries */
	bool has_executable, executable; /* what the client said, else the descriptor's mode says it */

	/* Out. */
	int r;
	bool changed; /* an inode that was changed had to be taken out of the store */
	struct blob_info info;
	enum blob_kind kind;
};

/* Hash and store some files. */
struct hash_job {
	struct job job;

	/* In. */
	const struct catalog *catalog; /* for its hint about sizes only */
	struct blob_writer *writer;
	size_t n;

	/* In and out. */
	struct put_file files[HASH_JOB_MAX];
	size_t failed; /* which file err is about */
	struct err err;

	struct batch *batch;
};

/* One `entries` request: its files are in jobs. */
struct batch {
	struct put *put;
	struct request *request;
	size_t n_jobs;
	bool cancelled;
	int r;
	struct err err;
};

/* ---- the put ---- */

void put_release(struct put *put)
{
	if (--put->refs)
		return;
	for (size_t i = 0; i < put->n_entries; i++) {
		free(put->entries[i].name);
		free(put->entries[i].target);
	}
	free(put->entries);
	index_batch_free(put->batch);
	pool_queue_free(put->queue);
	free(put);
}

static void on_session_gone(struct session_item *item)
{
	struct put *put = CONTAINER_OF(item, struct put, item);

	put->over = true;
	put_release(put);
}

/* The connection need not keep it any longer. */
static void end_put(struct put *put)
{
	put->over = true;
	if (list_is_empty(&put->item.link))
		return;
	list_remove(&put->item.link);
	put_release(put);
}

static struct put *find_put(struct request *request, uint64_t number, struct err *err)
{
	list_for_each (l, &request->session->items) {
		struct session_item *item = LIST_ENTRY(l, struct session_item, link);
		struct put *put = CONTAINER_OF(item, struct put, item);

		if (item->gone == on_session_gone && put->number == number)
			return put;
	}
	err_set(err, ERR_FAILED_PRECONDITION,
		"put: there is no put %ju on this connection; if there was, it is over", (uintmax_t)number);
	return NULL;
}

void put_submit_rows(struct put *put)
{
	index_submit(put->cache->index, put->batch, NULL, NULL);
	put->batch = index_batch_new();
}

void put_note_blob(struct put *put, const struct blob_info *info, enum blob_kind kind, bool is_new)
{
	bool unknown;
	struct catalog_entry *entry = catalog_add(put->cache->catalog, info, kind, &unknown);
	struct index_blob row = catalog_row(entry);

	put->n_new += is_new;
	put->new_bytes += is_new ? info->digest.size : 0;
	if (!is_new && !unknown)
		return;
	index_batch_put_blob(put->batch, &row);
	if (index_batch_size(put->batch) >= ROWS_MAX)
		put_submit_rows(put);
}

static const struct put_entry *directory_of(const struct put *put, uint32_t number)
{
	size_t i = 0;

	while (i < put->n_entries &&
	       (put->entries[i].type != PUT_DIRECTORY || put->entries[i].number != number))
		i++;
	assert(i < put->n_entries); /* numbers of parents were checked when they came */
	return &put->entries[i];
}

/* Where an entry is in the tree, for messages; the caller's to free(). */
static char *path_of(const struct put *put, const struct put_entry *entry)
{
	char *path = xstrdup(entry->name ? entry->name : "the file");

	while (entry->parent) {
		char *shorter = path;

		entry = directory_of(put, entry->parent);
		path = xasprintf("%s/%s", entry->name, shorter);
		free(shorter);
	}
	return path;
}

/* ---- files, on workers ---- */

static int store_file(struct hash_job *hash, struct put_file *file)
{
	int flags = disk_fd_flags(file->fd);
	bool may_be_known;
	struct stat st;
	int r;

	if (flags < 0 || (r = disk_fstat(file->fd, &st)) < 0)
		return err_errno(&hash->err, flags < 0 ? flags : r, "looking at it");
	if (!S_ISREG(st.st_mode))
		return err_set(&hash->err, ERR_INVALID_ARGUMENT, "it is no regular file");
	if (flags & O_PATH || (flags & O_ACCMODE) == O_WRONLY)
		return err_set(&hash->err, ERR_INVALID_ARGUMENT, "its descriptor is not open for reading");
	if (file->has_executable ? file->executable : st.st_mode & S_IXUSR)
		file->kind = BLOB_EXEC;
	may_be_known = st.st_size >= BLOB_LARGE && catalog_may_have_size(hash->catalog, (uint64_t)st.st_size);
	return blob_write_file(hash->writer, file->fd, may_be_known, file->kind, &file->info, &file->changed,
			       &hash->err);
}

static enum job_next hash_run(struct job *job)
{
	struct hash_job *hash = CONTAINER_OF(job, struct hash_job, job);

	for (size_t i = 0; i < hash->n; i++) {
		struct put_file *file = &hash->files[i];

		if (!hash->err.set) {
			file->r = store_file(hash, file);
			hash->failed = i;
		} else {
			file->r = -ECANCELED;
		}
		disk_close(file->fd);
	}
	return JOB_DONE;
}

/* ---- entries, on the loop ---- */

static void batch_end(struct batch *batch)
{
	struct put *put = batch->put;

	put->n_open--;
	if (batch->r < 0 || batch->cancelled)
		end_put(put);
	if (batch->cancelled)
		err_set(&batch->err, ERR_CANCELLED, "put: cancelled");
	if (batch->err.set)
		request_fail(batch->request, &batch->err);
	else
		request_ok(batch->request);
	put_release(put);
	free(batch);
}

static void note_file(struct put *put, const struct put_file *file)
{
	struct put_entry *entry = &put->entries[file->entry];
	struct counters *counters = &put->cache->counters;

	entry->digest = file->info.digest;
	entry->executable = file->kind == BLOB_EXEC;
	put->n_files++;
	put->bytes += file->info.digest.size;
	counters->put_files++;
	counters->put_bytes += file->info.digest.size;
	counters->tampered_blobs += file->changed;
	counters->healed_blobs += file->changed;
	if (!digest_is_empty(&file->info.digest))
		put_note_blob(put, &file->info, file->kind, file->r == 0);
}

static void hash_done(struct job *job)
{
	struct hash_job *hash = CONTAINER_OF(job, struct hash_job, job);
	struct batch *batch = hash->batch;
	struct put *put = batch->put;

	for (size_t i = 0; i < hash->n; i++)
		if (hash->files[i].r >= 0)
			note_file(put, &hash->files[i]);
	if (hash->err.set && !batch->err.set) {
		AUTO_FREE char *path = path_of(put, &put->entries[hash->files[hash->failed].entry]);

		batch->r = hash->files[hash->failed].r;
		batch->err = hash->err;
		err_prefix(&batch->err, "storing '%s': ", path);
	}
	writers_give(put->cache->writers, hash->writer);
	free(hash);
	if (--batch->n_jobs == 0)
		batch_end(batch);
}

static void on_batch_cancel(struct request *request)
{
	struct batch *batch = request->ctx;

	batch->cancelled = true; /* its jobs are short: they end by themselves */
}

/* An entry as the wire has it. */
struct wire_entry {
	struct wire_bytes type, name, target;
	uint64_t parent, fd;
	bool executable, has_executable, has_fd;
};

static const struct wire_field entry_fields[] = {
	WIRE_FIELD(struct wire_entry, type, WIRE_TEXT, true),
	WIRE_FIELD(struct wire_entry, name, WIRE_BYTES, false),
	WIRE_FIELD(struct wire_entry, target, WIRE_BYTES, false),
	WIRE_FIELD(struct wire_entry, parent, WIRE_UINT, false),
	WIRE_OPTIONAL(struct wire_entry, fd, WIRE_UINT, has_fd),
	WIRE_OPTIONAL(struct wire_entry, executable, WIRE_BOOL, has_executable),
};

static int check_place(const struct put *put, const struct wire_entry *wire, struct err *err)
{
	if (put->is_file)
		return err_set(err, ERR_INVALID_ARGUMENT, "nothing goes with a file without a name");
	if (wire->parent >= put->n_directories)
		return err_set(err, ERR_INVALID_ARGUMENT, "parent: there is no directory %ju yet",
			       (uintmax_t)wire->parent);
	if (!wire->name.data || !directory_name_is_valid(wire->name.data, wire->name.len))
		return err_set(err, ERR_INVALID_ARGUMENT, "name: '%.*s' cannot be a name",
			       (int)wire->name.len % 4096, wire->name.data ? wire->name.data : "");
	if (put->n_entries >= put->cache->config.limits.files)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "more than %zu entries", put->n_entries);
	return 0;
}

static int check_symlink(const struct wire_entry *wire, struct err *err)
{
	if (!wire->target.data || !wire->target.len || wire->target.len > DIRECTORY_TARGET_MAX ||
	    memchr(wire->target.data, 0, wire->target.len))
		return err_set(err, ERR_INVALID_ARGUMENT, "target: 1 to %d bytes without NUL are needed",
			       DIRECTORY_TARGET_MAX);
	return 0;
}

static int add_entry(struct put *put, const struct wire_entry *wire, struct err *err)
{
	bool is_single = wire_is(&wire->type, "file") && !wire->name.data && put->n_entries == 0;
	struct put_entry entry = { .parent = (uint32_t)wire->parent };
	int r;

	if (!is_single && (r = check_place(put, wire, err)) < 0)
		return r;
	if (is_single && wire->parent)
		return err_set(err, ERR_INVALID_ARGUMENT, "parent: a file without a name has none");
	if (wire_is(&wire->type, "symlink")) {
		if ((r = check_symlink(wire, err)) < 0)
			return r;
		entry.type = PUT_SYMLINK;
		entry.target = xmemdupz(wire->target.data, wire->target.len);
		put->n_symlinks++;
	} else if (wire_is(&wire->type, "directory")) {
		entry.type = PUT_DIRECTORY;
		entry.number = put->n_directories++;
	} else if (!wire_is(&wire->type, "file")) {
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "type: one of file, directory and symlink is needed");
	}
	put->is_file = is_single;
	if (wire->name.data)
		entry.name = xmemdupz(wire->name.data, wire->name.len);
	put->entries = xgrow(put->entries, put->n_entries, &put->entries_capacity, sizeof(entry));
	put->entries[put->n_entries++] = entry;
	return 0;
}

/* The params of all steps. */
struct put_params {
	struct wire_bytes step, tag;
	uint64_t put, fds;
	const struct wire_value *entries;
};

static const struct wire_field put_fields[] = {
	WIRE_FIELD(struct put_params, step, WIRE_TEXT, true),
	WIRE_FIELD(struct put_params, tag, WIRE_TEXT, false),
	WIRE_FIELD(struct put_params, put, WIRE_UINT, false),
	WIRE_FIELD(struct put_params, fds, WIRE_UINT, false),
	WIRE_FIELD(struct put_params, entries, WIRE_ARRAY, false),
};

static void submit_hash(struct hash_job *hash)
{
	hash->job = (struct job){ .run = hash_run, .done = hash_done };
	hash->catalog = hash->batch->put->cache->catalog;
	hash->writer = writers_take(hash->batch->put->cache->writers);
	hash->batch->n_jobs++;
	pool_submit(hash->batch->put->queue, &hash->job);
}

/* One file more for the job that is being filled; a full one is handed over. */
static struct hash_job *add_file(struct hash_job *hash, struct batch *batch, const struct put_file *file,
				 size_t max)
{
	if (!hash) {
		hash = xcalloc(1, sizeof(*hash));
		hash->batch = batch;
	}
	hash->files[hash->n++] = *file;
	if (hash->n < max)
		return hash;
	submit_hash(hash);
	return NULL;
}

/* Read one entry of the request. Return: 0, 1 with *file, or a negative errno. */
static int read_entry(struct batch *batch, const struct wire_value *value, size_t i, struct put_file *file,
		      struct err *err)
{
	struct wire_entry wire = { 0 };
	char what[40];
	int r;

	(void)snprintf(what, sizeof(what), "put: entry %zu", i);
	if ((r = wire_decode(value, entry_fields, N_ELEMENTS(entry_fields), &wire, what, err)) < 0)
		return r;
	if ((r = add_entry(batch->put, &wire, err)) < 0) {
		err_prefix(err, "%s: ", what);
		return r;
	}
	if (!wire_is(&wire.type, "file"))
		return 0;
	*file = (struct put_file){
		.entry = batch->put->n_entries - 1,
		.fd = wire.has_fd ? request_take_fd(batch->request, wire.fd) : -1,
		.has_executable = wire.has_executable,
		.executable = wire.executable,
	};
	if (file->fd < 0)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "%s: fd: one of this message's descriptors is needed, each once", what);
	return 1;
}

static void read_entries(struct batch *batch, const struct wire_value *entries)
{
	size_t n = wire_array_size(entries), n_hands = batch->put->cache->n_hands;
	size_t max = batch->request->n_fds / n_hands + 1;
	struct hash_job *hash = NULL;

	max = max < HASH_JOB_MAX ? max : HASH_JOB_MAX;
	for (size_t i = 0; i < n && batch->r >= 0; i++) {
		struct put_file file;

		batch->r = read_entry(batch, wire_array_at(entries, i), i, &file, &batch->err);
		if (batch->r == 1)
			hash = add_file(hash, batch, &file, max);
	}
	if (hash)
		submit_hash(hash);
}

static void start_entries(struct request *request, struct put *put, const struct put_params *params)
{
	struct batch *batch = xcalloc(1, sizeof(*batch));

	batch->put = put;
	batch->request = request;
	request->ctx = batch;
	request->cancel = on_batch_cancel;
	put->refs++;
	put->n_open++;
	batch->n_jobs = 1; /* this function, so that no job ends it before all are submitted */
	if (params->entries)
		read_entries(batch, params->entries);
	if (--batch->n_jobs == 0)
		batch_end(batch);
}

/* ---- begin, commit, abort ---- */

static void start_begin(struct request *request)
{
	struct put *put = xcalloc(1, sizeof(*put));
	struct session *session = request->session;
	struct wire_out *out;

	put->cache = request->cache;
	put->queue = pool_queue_new(request->cache->pool);
	put->number = session->n_numbered++;
	put->uid = session->uid;
	put->refs = 1;
	put->n_directories = 1;
	put->batch = index_batch_new();
	put->mark = index_mark(request->cache->index);
	put->item.gone = on_session_gone;
	list_init(&put->item.link);
	list_append(&session->items, &put->item.link);
	out = request_reply(request);
	wire_map(out, 1);
	wire_put_uint(out, "put", put->number);
	request_send(request);
}

struct answer {
	struct put *put;
	struct request *request;
	struct digest digest;
	char *tag;
};

static void on_tagged(void *ctx, int r, const struct err *err)
{
	struct answer *answer = ctx;
	struct put *put = answer->put;
	struct wire_out *out;

	if (r < 0) {
		request_fail(answer->request, err);
	} else {
		out = request_reply(answer->request);
		wire_map(out, 8);
		wire_put_digest(out, "digest", &answer->digest);
		wire_put_bool(out, "tree", !put->is_file);
		wire_put_uint(out, "files", put->n_files);
		wire_put_uint(out, "directories", put->is_file ? 0 : put->n_directories);
		wire_put_uint(out, "symlinks", put->n_symlinks);
		wire_put_uint(out, "bytes", put->bytes);
		wire_put_uint(out, "new_blobs", put->n_new);
		wire_put_uint(out, "new_bytes", put->new_bytes);
		request_send(answer->request);
	}
	put_release(put);
	free(answer->tag);
	free(answer);
}

/* Everything that the tag needs is in the index. */
static void on_in_index(void *ctx, int r, const struct err *err)
{
	struct answer *answer = ctx;
	struct index_tag tag = { .name = answer->tag, .digest = answer->digest, .uid = answer->put->uid };

	if (r == 0 && answer->tag)
		tags_set(answer->put->cache->tags, &tag, on_tagged, answer);
	else
		on_tagged(answer, r, err);
}

void put_answer(struct put *put, struct request *request, const struct digest *digest, const char *tag,
		size_t tag_len)
{
	struct answer *answer = xmalloc(sizeof(*answer));

	*answer = (struct answer){ .put = put, .request = request, .digest = *digest };
	answer->tag = tag ? xmemdupz(tag, tag_len) : NULL;
	put_submit_rows(put);
	index_barrier(put->cache->index, put->mark, on_in_index, answer);
}

static int check_commit(const struct put *put, const struct wire_bytes *tag, struct err *err)
{
	if (put->n_open)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "put: %zu requests with entries are not answered yet", put->n_open);
	return tag->data ? tags_check_new(put->cache->tags, tag->data, tag->len, err) : 0;
}

static void start_commit(struct request *request, struct put *put, const struct put_params *params)
{
	struct err err = { 0 };

	if (check_commit(put, &params->tag, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	/* The connection's reference becomes the commit's. */
	put->over = true;
	list_remove(&put->item.link);
	if (put->is_file)
		put_answer(put, request, &put->entries[0].digest, params->tag.data, params->tag.len);
	else
		put_commit_tree(put, request, params->tag.data, params->tag.len);
}

static void start_abort(struct request *request, struct put *put, const struct put_params *params)
{
	(void)params;
	end_put(put);
	request_ok(request);
}

/* The steps of a put that has begun. */
static const struct {
	const char *name;
	void (*start)(struct request *request, struct put *put, const struct put_params *params);
} steps[] = { { "entries", start_entries }, { "commit", start_commit }, { "abort", start_abort } };

static void start_step(struct request *request, const struct put_params *params, struct err *err)
{
	for (size_t i = 0; i < N_ELEMENTS(steps); i++) {
		struct put *put;

		if (!wire_is(&params->step, steps[i].name))
			continue;
		put = find_put(request, params->put, err);
		if (put)
			steps[i].start(request, put, params);
		return;
	}
	err_set(err, ERR_INVALID_ARGUMENT, "put: step: one of begin, entries, commit and abort is needed");
}

void put_start(struct request *request)
{
	struct put_params params = { 0 };
	struct err err = { 0 };

	if (wire_decode(request->params, put_fields, N_ELEMENTS(put_fields), &params, "put", &err) == 0) {
		if (wire_is(&params.step, "begin"))
			start_begin(request);
		else
			start_step(request, &params, &err);
	}
	if (err.set)
		request_fail(request, &err);
}
