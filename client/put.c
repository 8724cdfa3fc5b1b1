/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dircache_put_path: walk, open, and send what was opened, in batches; several of them are on their way at
 * once, so that the daemon hashes while we open. Nothing is read or hashed here.
 *
 * What will not fit into the room that the daemon has now makes it evict other things, and it wants to know
 * how much there is to come (PROTOCOL.md, `put`). That takes a walk of its own, which is made only then.
 */
#include "client/dircache.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client/connection.h"
#include "client/walk.h"
#include "common/alloc.h"

enum {
	BATCH_FILES = 128, /* descriptors a message; well below the 253 that fit */
	BATCH_ENTRIES = 1024,
	BATCH_BYTES = 64 << 10, /* of names and targets */
	WINDOW = 4,             /* batches unanswered. Every one of their files is open in the daemon */
	BLOCK = 4096,           /* sizes are rounded up to it */
};

/* Names and targets lie one after another in the batch's text, terminated. */
struct entry {
	enum walk_type type;
	uint64_t parent;
	size_t name, target; /* offsets */
};

struct batch {
	struct entry entries[BATCH_ENTRIES];
	int fds[BATCH_FILES];
	size_t n_entries, n_fds;
	char *text;
	size_t len, capacity;
};

struct put {
	struct dircache *dc;
	uint64_t number;         /* on this connection */
	unsigned n_open;         /* batches sent and not answered */
	bool over;               /* the daemon said so */
	bool single;             /* a file, not a tree */
	int root;                /* the tree's, once more, or -1 */
	uint64_t room;           /* what the daemon has without evicting anything */
	uint64_t bytes;          /* of what was added, rounded */
	uint64_t expected, told; /* bytes in all, and what the daemon was told of that; 0: not known */
	struct dircache_progress done;
	struct batch batch;
};

/* Most were opened one after another, and have numbers one after another: a run is one call. */
static void close_all(const int *fds, size_t n)
{
	for (size_t i = 0, end; i < n; i = end) {
		for (end = i + 1; end < n && fds[end] == fds[end - 1] + 1; end++)
			continue;
		(void)close_range((unsigned)fds[i], (unsigned)fds[end - 1], 0);
	}
}

static void put_free(struct put *put)
{
	if (!put)
		return;
	close_all(put->batch.fds, put->batch.n_fds);
	if (put->root >= 0)
		(void)close(put->root);
	free(put->batch.text);
	free(put);
}

DEFINE_AUTO(put);

/* ---- messages ---- */

static int put_begin(struct put *put, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "put", WIRE_UINT, true, offsetof(struct put, number), 0 },
		{ "room", WIRE_UINT, false, offsetof(struct put, room), 0 },
	};
	struct wire_out *out = connection_request(put->dc, "put", 1 + (put->expected > 0));
	int r;

	wire_put_text(out, "step", "begin");
	if (put->expected)
		wire_put_uint(out, "bytes", put->expected);
	put->told = put->expected;
	if ((r = connection_call(put->dc, -1, err)) < 0)
		return r;
	return connection_decode(put->dc, fields, N_ELEMENTS(fields), put, "put", err);
}

/* An answer to any of the batches on their way. */
static int await_batch(struct put *put, struct err *err)
{
	int r = connection_await(put->dc, err);

	assert(put->n_open > 0);
	put->n_open--;
	put->over |= r < 0;
	return r;
}

static int await_all(struct put *put, struct err *err)
{
	int r = 0;

	while (r == 0 && put->n_open)
		r = await_batch(put, err);
	return r;
}

static void write_entry(struct wire_out *out, const struct batch *batch, const struct entry *entry,
			size_t *n_fds)
{
	static const char *const types[] = {
		[WALK_FILE] = "file",
		[WALK_DIRECTORY] = "directory",
		[WALK_SYMLINK] = "symlink",
	};
	const char *name = batch->text + entry->name, *target = batch->text + entry->target;

	wire_map(out, entry->type == WALK_DIRECTORY ? 3 : 4);
	wire_put_text(out, "type", types[entry->type]);
	wire_put_uint(out, "parent", entry->parent);
	wire_put_bytes(out, "name", name, strlen(name));
	if (entry->type == WALK_FILE)
		wire_put_uint(out, "fd", (*n_fds)++);
	if (entry->type == WALK_SYMLINK)
		wire_put_bytes(out, "target", target, strlen(target));
}

/* The one entry of a put that is no tree has no name. */
static void write_single(struct wire_out *out)
{
	wire_map(out, 2);
	wire_put_text(out, "type", "file");
	wire_put_uint(out, "fd", 0);
}

static void write_batch(struct put *put)
{
	struct wire_out *out = connection_request(put->dc, "put", 4 + (put->told != put->expected));
	size_t n_fds = 0;

	wire_put_text(out, "step", "entries");
	wire_put_uint(out, "put", put->number);
	if (put->told != put->expected)
		wire_put_uint(out, "bytes", put->expected);
	put->told = put->expected;
	wire_put_uint(out, "fds", put->batch.n_fds);
	wire_text(out, "entries");
	wire_array(out, put->batch.n_entries);
	if (put->single)
		write_single(out);
	for (size_t i = 0; !put->single && i < put->batch.n_entries; i++)
		write_entry(out, &put->batch, &put->batch.entries[i], &n_fds);
}

/* What is on its way counts against a limit of the user's: answers mean that some of it has arrived. */
static int send_batch(struct put *put, struct err *err)
{
	int r;

	while ((r = connection_send(put->dc, put->batch.fds, put->batch.n_fds, err)) == -ETOOMANYREFS) {
		if (put->n_open == 0)
			connection_pause();
		else if ((r = await_batch(put, err)) < 0)
			return r;
	}
	put->over |= r < 0;
	put->n_open += r == 0;
	return r;
}

static void clear_batch(struct batch *batch)
{
	close_all(batch->fds, batch->n_fds);
	batch->n_fds = 0;
	batch->n_entries = 0;
	batch->len = 0;
}

static int flush(struct put *put, struct err *err)
{
	int r;

	if (put->batch.n_entries == 0)
		return 0;
	write_batch(put);
	if ((r = send_batch(put, err)) < 0)
		return r;
	clear_batch(&put->batch);
	while (r == 0 && put->n_open >= WINDOW)
		r = await_batch(put, err);
	if (r == 0 && put->dc->progress)
		put->dc->progress(put->dc->progress_data, &put->done);
	return r;
}

/* ---- entries ---- */

static size_t add_text(struct batch *batch, const char *text)
{
	size_t at = batch->len, size = strlen(text) + 1;

	if (batch->capacity - at < size) {
		batch->capacity = 2 * batch->capacity + size;
		batch->text = xreallocarray(batch->text, batch->capacity, 1);
	}
	memcpy(batch->text + at, text, size);
	batch->len += size;
	return at;
}

static bool is_full(const struct batch *batch)
{
	return batch->n_entries == BATCH_ENTRIES || batch->n_fds == BATCH_FILES || batch->len >= BATCH_BYTES;
}

static uint64_t rounded(uint64_t size)
{
	return size + (BLOCK - size % BLOCK) % BLOCK;
}

/* What all files of the tree take. What cannot be looked at is told of when it cannot be stored, either. */
static uint64_t measure(const struct put *put)
{
	AUTO(walk) walk = NULL;
	int root = openat(put->root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct walk_entry entry;
	uint64_t bytes = 0;

	if (root < 0)
		return put->bytes;
	walk = walk_new(root, "");
	walk_for_sizes(walk);
	while (walk_next(walk, &entry, NULL) > 0)
		bytes += entry.type == WALK_FILE ? rounded(entry.size) : 0;
	return bytes > put->bytes ? bytes : put->bytes;
}

/* See whether there is room for one more file; where that is in doubt, find out how much is needed in all. */
static void count_file(struct put *put, int fd)
{
	struct stat st;

	if (put->room == UINT64_MAX || put->expected || fstat(fd, &st) < 0)
		return;
	put->bytes += rounded((uint64_t)st.st_size);
	if (put->bytes > put->room / 2) /* names, folders and rows take room, too */
		put->expected = measure(put);
}

static int add_entry(struct put *put, const struct walk_entry *from, struct err *err)
{
	struct batch *batch = &put->batch;
	struct entry *entry = &batch->entries[batch->n_entries++];

	*entry = (struct entry){ .type = from->type, .parent = from->parent };
	entry->name = add_text(batch, from->name);
	if (from->type == WALK_SYMLINK)
		entry->target = add_text(batch, from->target);
	if (from->type == WALK_FILE) {
		batch->fds[batch->n_fds++] = from->fd;
		put->done.files++;
		count_file(put, from->fd);
	}
	return is_full(batch) ? flush(put, err) : 0;
}

/* As walk_next(). Where descriptors run out, those of the batch can go first. */
static int next_entry(struct put *put, struct walk *walk, struct walk_entry *entry, struct err *err)
{
	int r = walk_next(walk, entry, err);

	if (r != -EMFILE || put->batch.n_fds == 0)
		return r;
	err_clear(err);
	r = flush(put, err);
	return r < 0 ? r : walk_next(walk, entry, err);
}

static int add_tree(struct put *put, int root, const char *path, struct err *err)
{
	AUTO(walk) walk = walk_new(root, path);
	struct walk_entry entry;
	int r;

	while ((r = next_entry(put, walk, &entry, err)) > 0)
		if ((r = add_entry(put, &entry, err)) < 0)
			return r;
	return r;
}

/* ---- from path to digest ---- */

/* Looked at before it is opened: opening a device may do something. */
static int open_path(const char *path, struct put *put, struct err *err)
{
	struct stat st;
	bool tree;
	int fd;

	if (stat(path, &st) < 0) {
		if (errno == ENOENT) /* not "not found": that is said of what the cache lacks */
			return err_set(err, ERR_FAILED_PRECONDITION, "'%s' does not exist", path);
		return err_errno(err, -errno, "looking at '%s'", path);
	}
	tree = S_ISDIR(st.st_mode);
	if (!tree && !S_ISREG(st.st_mode))
		return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is %s, which cannot be stored", path,
			       walk_special_text(st.st_mode));
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC | (tree ? O_DIRECTORY : 0));
	put->single = !tree;
	if (!tree)
		put->expected = rounded((uint64_t)st.st_size);
	else if (fd >= 0)
		put->root = fcntl(fd, F_DUPFD_CLOEXEC, 0); /* the walk closes its own */
	return fd >= 0 ? fd : err_errno(err, -errno, "opening '%s'", path);
}

/* @fd: taken */
static int add_path(struct put *put, int fd, const char *path, struct err *err)
{
	if (!put->single)
		return add_tree(put, fd, path, err);
	return add_entry(put, &(struct walk_entry){ .type = WALK_FILE, .name = "", .fd = fd }, err);
}

struct commit_answer {
	struct digest digest;
	struct dircache_put put;
};

static int take_put(struct dircache *dc, struct dircache_put *result, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "digest", WIRE_DIGEST, true, offsetof(struct commit_answer, digest), 0 },
		{ "tree", WIRE_BOOL, false, offsetof(struct commit_answer, put.tree), 0 },
		{ "files", WIRE_UINT, false, offsetof(struct commit_answer, put.files), 0 },
		{ "directories", WIRE_UINT, false, offsetof(struct commit_answer, put.directories), 0 },
		{ "symlinks", WIRE_UINT, false, offsetof(struct commit_answer, put.symlinks), 0 },
		{ "bytes", WIRE_UINT, false, offsetof(struct commit_answer, put.bytes), 0 },
		{ "new_blobs", WIRE_UINT, false, offsetof(struct commit_answer, put.new_blobs), 0 },
		{ "new_bytes", WIRE_UINT, false, offsetof(struct commit_answer, put.new_bytes), 0 },
	};
	struct commit_answer answer = { 0 };
	int r = connection_decode(dc, fields, N_ELEMENTS(fields), &answer, "put", err);

	if (r < 0)
		return r;
	*result = answer.put;
	digest_print(&answer.digest, result->digest);
	return 0;
}

static int put_commit(struct put *put, const char *tag, struct err *err)
{
	struct wire_out *out = connection_request(put->dc, "put", tag ? 3 : 2);
	int r;

	wire_put_text(out, "step", "commit");
	wire_put_uint(out, "put", put->number);
	if (tag)
		wire_put_text(out, "tag", tag);
	r = connection_call(put->dc, -1, err);
	put->over = true;
	return r;
}

/* Our side failed: the daemon need not keep what it has. Best effort; the connection's end does the same. */
static void put_abort(struct put *put)
{
	struct wire_out *out = connection_request(put->dc, "put", 2);
	struct err ignored = { 0 }; /* a batch on its way may have failed as well */

	wire_put_text(out, "step", "abort");
	wire_put_uint(out, "put", put->number);
	(void)connection_call(put->dc, -1, &ignored);
}

static int put_path(struct dircache *dc, const char *path, const char *tag, struct err *err)
{
	AUTO(put) put = xcalloc(1, sizeof(*put));
	AUTO_CLOSE int fd = -1;
	int r;

	put->root = -1;
	put->room = UINT64_MAX;
	put->dc = dc;
	if ((fd = open_path(path, put, err)) < 0)
		return fd;
	if ((r = put_begin(put, err)) < 0)
		return r;
	if ((r = add_path(put, TAKE_FD(fd), path, err)) == 0 && (r = flush(put, err)) == 0 &&
	    (r = await_all(put, err)) == 0)
		r = put_commit(put, tag, err);
	if (r < 0 && put->over)
		err_prefix(err, "'%s': ", path); /* the daemon knows no paths, only names within */
	else if (r < 0)
		put_abort(put);
	return r;
}

enum dircache_code dircache_put_path(struct dircache *dc, const char *path,
				     const struct dircache_put_options *options, struct dircache_put *put,
				     struct dircache_error *error)
{
	static const struct dircache_put_options defaults;
	struct dircache_put result;
	struct err err = { 0 };
	int r;

	options = options ? options : &defaults;
	connection_begin(dc);
	dc->progress = options->progress;
	dc->progress_data = options->data;
	if ((r = put_path(dc, path, options->tag, &err)) == 0)
		r = take_put(dc, put ? put : &result, &err);
	return connection_end(dc, r, &err, error);
}
