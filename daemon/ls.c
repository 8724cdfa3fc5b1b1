/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/look.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/alloc.h"
#include "common/directory.h"

enum {
	PAGE_MAX = 2048,        /* entries: to send them is half a millisecond of the loop */
	PAGE_BYTES = 512 << 10, /* of names and targets, for the same reason */
	ENTRY_BYTES = 160,      /* what else an entry takes, at most */
};

struct ls_params {
	struct digest digest;
	struct wire_bytes tag, path;
	uint64_t offset, limit;
	bool has_digest;
};

static const struct wire_field fields[] = {
	WIRE_OPTIONAL(struct ls_params, digest, WIRE_DIGEST, has_digest),
	WIRE_FIELD(struct ls_params, tag, WIRE_TEXT, false),
	WIRE_FIELD(struct ls_params, path, WIRE_BYTES, false),
	WIRE_FIELD(struct ls_params, offset, WIRE_UINT, false),
	WIRE_FIELD(struct ls_params, limit, WIRE_UINT, false),
};

struct ls_job {
	struct job job;

	/* In. */
	struct blob_store *store;
	struct digest root;
	struct wire_bytes path; /* points into the request, which is there until done() */
	uint64_t offset, limit;
	size_t max_entries;
	uint32_t id;

	/* Out. */
	struct wire_out answer;
	struct err err;
	bool is_missing;
	struct digest missing;
	struct blob_repairs repairs;

	struct pool_queue *queue;
	struct request *request;
};

/* ---- on a worker ---- */

static int read_directory(struct ls_job *ls, const struct digest *digest, struct directory **directory)
{
	AUTO_FREE uint8_t *bytes = NULL;
	int r = 0;

	if (!digest_is_empty(digest))
		r = blob_read_renewed(ls->store, digest, DIRECTORY_BYTES_MAX, &bytes, &ls->repairs, &ls->err);
	if (r > 0) {
		ls->is_missing = true;
		ls->missing = *digest;
		(void)err_set(&ls->err, ERR_NOT_FOUND, "Directory %s is not in the store",
			      DIGEST_TEXT(digest));
		return -ENOENT;
	}
	if (r == 0)
		r = directory_decode(bytes, digest->size, ls->max_entries, directory, &ls->err);
	if (r < 0)
		err_prefix(&ls->err, "Directory %s: ", DIGEST_TEXT(digest));
	return r;
}

/* An entry is a map of 4 pairs and, for a file or directory, its digest, or for a symlink its target. */
static void put_head(struct wire_out *out, const char *name, const char *type, unsigned mode, uint64_t size)
{
	wire_map(out, 5);
	wire_put_bytes(out, "name", name, strlen(name));
	wire_put_text(out, "type", type);
	wire_put_uint(out, "mode", mode);
	wire_put_uint(out, "size", size);
}

static void put_file(struct wire_out *out, const struct file_node *file)
{
	unsigned mode = file->executable ? 0555 : 0444;

	if (file->properties && file->properties->has_unix_mode)
		mode = file->properties->unix_mode & 0777;
	put_head(out, file->name, "file", mode, file->digest.size);
	wire_put_digest(out, "digest", &file->digest);
}

static void put_symlink(struct wire_out *out, const struct symlink_node *symlink)
{
	put_head(out, symlink->name, "symlink", 0777, strlen(symlink->target));
	wire_put_bytes(out, "target", symlink->target, strlen(symlink->target));
}

static void put_entry(struct wire_out *out, const struct directory *d, size_t i)
{
	if (i < d->n_files) {
		put_file(out, &d->files[i]);
	} else if ((i -= d->n_files) < d->n_directories) {
		put_head(out, d->directories[i].name, "directory", 0755, d->directories[i].digest.size);
		wire_put_digest(out, "digest", &d->directories[i].digest);
	} else {
		put_symlink(out, &d->symlinks[i - d->n_directories]);
	}
}

static void begin_answer(struct ls_job *ls, const struct digest *digest, bool is_directory, size_t n)
{
	wire_response(&ls->answer, ls->id);
	wire_map(&ls->answer, digest ? 4 : 3);
	if (digest)
		wire_put_digest(&ls->answer, "digest", digest);
	wire_put_bool(&ls->answer, "directory", is_directory);
	wire_text(&ls->answer, "entries");
	wire_array(&ls->answer, n);
}

/* How many bytes an entry takes in the answer, at most. */
static size_t entry_size(const struct directory *d, size_t i)
{
	if (i < d->n_files)
		return ENTRY_BYTES + strlen(d->files[i].name);
	if ((i -= d->n_files) < d->n_directories)
		return ENTRY_BYTES + strlen(d->directories[i].name);
	i -= d->n_directories;
	return ENTRY_BYTES + strlen(d->symlinks[i].name) + strlen(d->symlinks[i].target);
}

/* Where a page that begins here ends. */
static uint64_t end_of_page(const struct directory *d, uint64_t begin, uint64_t stop)
{
	size_t bytes = 0;

	for (uint64_t i = begin; i < stop; i++)
		if ((bytes += entry_size(d, i)) > PAGE_BYTES)
			return i;
	return stop;
}

static void answer_directory(struct ls_job *ls, const struct digest *digest, const struct directory *d)
{
	uint64_t end = d->n_files + d->n_directories + d->n_symlinks;
	uint64_t begin = ls->offset < end ? ls->offset : end;
	uint64_t stop = end - begin < ls->limit ? end : begin + ls->limit;

	stop = end_of_page(d, begin, stop);
	begin_answer(ls, digest, true, stop - begin);
	for (uint64_t i = begin; i < stop; i++)
		put_entry(&ls->answer, d, i);
	wire_put_bool(&ls->answer, "more", stop < end);
}

/* The last name of the path is a file or symlink. Return: 1 (answered), or 0 (there is none). */
static int answer_leaf(struct ls_job *ls, const struct directory *d, const char *name, size_t len)
{
	const struct file_node *file = directory_find_file(d, name, len);
	const struct symlink_node *symlink = directory_find_symlink(d, name, len);

	if (!file && !symlink)
		return 0;
	begin_answer(ls, file ? &file->digest : NULL, false, 1);
	if (file)
		put_file(&ls->answer, file);
	else
		put_symlink(&ls->answer, symlink);
	wire_put_bool(&ls->answer, "more", false);
	return 1;
}

/* Take the next name off a path, and the slashes around it. */
static struct wire_bytes next_name(struct wire_bytes *path)
{
	struct wire_bytes name;

	while (path->len && *path->data == '/') {
		path->data++;
		path->len--;
	}
	name = (struct wire_bytes){ path->data, 0 };
	while (name.len < path->len && name.data[name.len] != '/')
		name.len++;
	path->data += name.len;
	path->len -= name.len;
	while (path->len && *path->data == '/') {
		path->data++;
		path->len--;
	}
	return name;
}

static int no_such_path(struct ls_job *ls)
{
	return err_set(&ls->err, ERR_NOT_FOUND, "tree %s has no '%.*s'", DIGEST_TEXT(&ls->root),
		       ls->path.len > 4096 ? 4096 : (int)ls->path.len, ls->path.data);
}

static int list(struct ls_job *ls)
{
	struct wire_bytes left = ls->path;
	struct digest digest = ls->root;

	for (;;) {
		AUTO(directory) d = NULL;
		const struct directory_node *child;
		struct wire_bytes name;
		int r = read_directory(ls, &digest, &d);

		if (r < 0)
			return r;
		assert(d);
		name = next_name(&left);
		if (!name.len) {
			answer_directory(ls, &digest, d);
			return 0;
		}
		child = directory_find_directory(d, name.data, name.len);
		if (!child)
			return !left.len && answer_leaf(ls, d, name.data, name.len) ? 0 : no_such_path(ls);
		digest = child->digest;
	}
}

static enum job_next ls_run(struct job *job)
{
	struct ls_job *ls = CONTAINER_OF(job, struct ls_job, job);

	(void)list(ls);
	if (ls->answer.len)
		wire_out_trim(&ls->answer); /* it may wait long until it is taken */
	return JOB_DONE;
}

/* ---- on the loop ---- */

static void ls_done(struct job *job)
{
	struct ls_job *ls = CONTAINER_OF(job, struct ls_job, job);
	struct counters *counters = &ls->request->cache->counters;

	counters->tampered_blobs += ls->repairs.n_changed;
	counters->healed_blobs += ls->repairs.n_healed;
	if (ls->err.set)
		request_fail_missing(ls->request, &ls->err, &ls->missing, ls->is_missing);
	else
		request_send_written(ls->request, &ls->answer);
	wire_out_fini(&ls->answer);
	pool_queue_free(ls->queue);
	free(ls);
}

void ls_start(struct request *request)
{
	struct ls_params params = { .path = { "", 0 }, .limit = PAGE_MAX };
	struct err err = { 0 };
	struct ls_job *ls;

	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "ls", &err) < 0 ||
	    request_digest(request, params.has_digest, params.tag, &params.digest, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	ls = xcalloc(1, sizeof(*ls));
	ls->job = (struct job){ .run = ls_run, .done = ls_done };
	ls->store = request->cache->store;
	ls->root = params.digest;
	ls->path = params.path;
	ls->offset = params.offset;
	ls->limit = params.limit < PAGE_MAX ? params.limit : PAGE_MAX;
	ls->max_entries = request->cache->config.limits.entries;
	ls->id = request->message.id;
	ls->request = request;
	request_promise(request, PAGE_BYTES);
	ls->queue = request_queue_new(request);
	pool_submit(ls->queue, &ls->job);
}
