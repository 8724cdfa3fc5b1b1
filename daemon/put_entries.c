/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/put_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"

enum {
	READ_HERE = 512,     /* entries read at once: what comes with 253 descriptors has hardly more */
	READ_STEP = 32,      /* of more than that, between two looks at the clock */
	USER_PUTS_LARGE = 2, /* the largest puts of one user: there are smaller ones, but no more entries */
};

/* One `entries` request. */
struct batch {
	struct put *put;
	struct request *request;
	const struct wire_value *entries; /* or NULL */
	size_t n_read;
	struct slice slice;
	bool reading;
	struct put_files files;
	int r; /* of reading the entries */
	struct err err;
	bool cancelled;
};

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
	if (wire->parent >= put->directories.n)
		return err_set(err, ERR_INVALID_ARGUMENT, "parent: there is no directory %ju yet",
			       (uintmax_t)wire->parent);
	if (!wire->name.data || !directory_name_is_valid(wire->name.data, wire->name.len))
		return err_set(err, ERR_INVALID_ARGUMENT, "name: '%.*s' cannot be a name",
			       (int)wire->name.len % 4096, wire->name.data ? wire->name.data : "");
	if (put->entries.n >= put->cache->config.limits.files)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "more than %zu entries", put->entries.n);
	if (put->user->n_put_entries >= USER_PUTS_LARGE * put->cache->config.limits.files)
		return err_set(
			err, ERR_RESOURCE_EXHAUSTED,
			"user %u has %zu entries in puts that have begun, and may have no more at a time",
			(unsigned)put->user->uid, put->user->n_put_entries);
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
	bool is_single = wire_is(&wire->type, "file") && !wire->name.data && put->entries.n == 0;
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
		entry.number = (uint32_t)put->directories.n;
		*(size_t *)blocks_add(&put->directories, sizeof(size_t)) = put->entries.n;
	} else if (!wire_is(&wire->type, "file")) {
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "type: one of file, directory and symlink is needed");
	}
	put->is_file = is_single;
	if (wire->name.data)
		entry.name = xmemdupz(wire->name.data, wire->name.len);
	*(struct put_entry *)blocks_add(&put->entries, sizeof(entry)) = entry;
	put->user->n_put_entries++;
	return 0;
}

/* Read one entry of the request. Return: 0, 1 with *file, or a negative errno. */
static int read_entry(struct batch *batch, const struct wire_value *value, size_t i, struct put_file *file)
{
	struct err *err = &batch->err;
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
		.entry = batch->put->entries.n - 1,
		.fd = wire.has_fd ? request_take_fd(batch->request, wire.fd) : -1,
		.has_executable = wire.has_executable,
		.executable = wire.executable,
	};
	if (file->fd < 0)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "%s: fd: one of this message's descriptors is needed, each once", what);
	return 1;
}

/* Read some more. Return: is more left that is wanted? */
static bool read_some(struct batch *batch, size_t n_most)
{
	struct put_files *files = &batch->files;
	size_t n = wire_array_size(batch->entries);

	for (size_t i = 0; i < n_most && batch->n_read < n && batch->r >= 0 && !batch->cancelled; i++) {
		const struct wire_value *entry = wire_array_at(batch->entries, batch->n_read);

		batch->r = read_entry(batch, entry, batch->n_read++, &files->files[files->n]);
		files->n += batch->r == 1;
	}
	return batch->n_read < n && batch->r >= 0 && !batch->cancelled;
}

static void on_stored(struct put_files *files, int r, const struct err *err)
{
	struct batch *batch = CONTAINER_OF(files, struct batch, files);
	struct put *put = batch->put;

	put->n_open--;
	if (batch->r >= 0 && r < 0) {
		batch->r = r;
		batch->err = *err;
	}
	if (batch->cancelled)
		err_set(&batch->err, ERR_CANCELLED, "put: cancelled");
	if (batch->err.set) {
		put_end(put);
		request_fail(batch->request, &batch->err);
	} else {
		request_ok(batch->request);
	}
	put_release(put);
	free(files->files);
	free(batch);
}

static void on_cancel(struct request *request)
{
	struct batch *batch = request->ctx;

	batch->cancelled = true;
	if (!batch->reading)
		put_files_stop(&batch->files);
}

static void store_files(struct batch *batch)
{
	batch->reading = false;
	atomic_init(&batch->files.stop, batch->r < 0 || batch->cancelled);
	put_files_start(&batch->files);
}

static bool read_step(struct slice *slice)
{
	struct batch *batch = CONTAINER_OF(slice, struct batch, slice);

	if (read_some(batch, READ_STEP))
		return true;
	request_release(batch->request);
	store_files(batch);
	return false;
}

void put_start_entries(struct request *request, struct put *put, const struct wire_value *entries)
{
	struct batch *batch = xcalloc(1, sizeof(*batch));

	batch->put = put;
	batch->request = request;
	batch->entries = entries;
	batch->reading = true;
	batch->files = (struct put_files){ .put = put, .stored = on_stored };
	/* Each file takes one of the message's descriptors, and one more may turn out to have none. */
	batch->files.files = xcalloc(request->n_fds + 1, sizeof(*batch->files.files));
	put->refs++;
	put->n_open++;
	request->ctx = batch;
	request->cancel = on_cancel;
	if (!read_some(batch, READ_HERE)) {
		store_files(batch);
		return;
	}
	request_hold(request); /* what comes behind may name directories of these */
	slice_init_of(&batch->slice, read_step, &put->user->slices);
	slice_start(put->cache->slicer, &batch->slice);
}
