/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/blob_internal.h"
#include "daemon/disk.h"

enum {
	SMALL_MAX = 128 * 1024,   /* files up to this size are read whole before anything is decided */
	N_ATTEMPTS = 3,           /* at a file that changes */
	WRITE_NS_MIN = 250000000, /* what a single write(2) may last, */
	WRITE_NS_A_BYTE = 10,     /* and for each byte, */
	WRITE_S_MAX = 60,         /* but no longer than this */
};

struct blob_writer *blob_writer_new(struct blob_store *store)
{
	struct blob_writer *writer = xcalloc(1, sizeof(*writer));

	writer->store = store;
	writer->buffer = xmalloc(BLOB_BUFFER_SIZE);
	return writer;
}

void blob_writer_free(struct blob_writer *writer)
{
	if (!writer)
		return;
	blob_writer_settle(writer);
	free(writer->claimed);
	free(writer->buffer);
	free(writer);
}

/* ---- room and claims ---- */

void blob_claim(struct blob_writer *writer, const struct digest *digest)
{
	if (!writer->store->claims)
		return;
	claims_take(writer->store->claims, digest);
	writer->claimed = xgrow(writer->claimed, writer->n_claimed, &writer->claimed_capacity,
				sizeof(*writer->claimed));
	writer->claimed[writer->n_claimed++] = *digest;
}

void blob_writer_settle(struct blob_writer *writer)
{
	if (writer->n_claimed)
		claims_drop(writer->store->claims, writer->claimed, writer->n_claimed);
	if (writer->reserved)
		space_release(writer->store->space, writer->reserved);
	writer->n_claimed = 0;
	writer->reserved = 0;
	writer->spare_only = false;
}

void blob_writer_take_spare(struct blob_writer *writer)
{
	writer->spare_only = true;
}

struct space_need blob_writer_need(const struct blob_writer *writer)
{
	return writer->need;
}

int blob_refuse(const struct blob_writer *writer, struct err *err)
{
	return space_refuse(writer->store->space, writer->need.bytes, err);
}

int blob_end_storing(struct blob_writer *writer, int r, struct err *err)
{
	if ((r != -ENOSPC && r != -EDQUOT) || !writer->store->space)
		return r;
	space_disk_full(writer->store->space);
	writer->need.disk_full = true;
	if (!writer->need.bytes) /* before it came to a draft */
		writer->need.bytes = writer->store->block_size;
	if (err)
		err_clear(err);
	return BLOB_NO_ROOM;
}

/* ---- writing what is in memory ---- */

/* Return: BLOB_EXISTS, with info, when a blob is there, unchanged; 0 when it must be written; or an errno. */
static int find_known(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
		      struct blob_info *info, struct err *err)
{
	int r;

	blob_claim(writer, digest);
	r = blob_stat(writer->store, digest, kind, info, err);
	if (r < 0)
		return r;
	return r == 0 ? BLOB_EXISTS : 0;
}

/* What is being stored, as what, and what comes of it. */
struct intake {
	struct blob_writer *writer;
	enum blob_kind kind;
	struct blob_info *info;
	bool *changed;

	/* Where it comes from a file: */
	int fd;
	bool likely_known;
	struct stat before;
};

/* Hash bytes and store them unless they are known. */
static int store_bytes(const struct intake *in, const void *bytes, size_t len, struct err *err)
{
	AUTO_BLOB_DRAFT struct blob_draft draft = { .writer = in->writer, .kind = in->kind, .fd = -1 };
	struct digest digest;
	int r;

	if (!len) { /* the empty blob is known to everyone, and never stored */
		*in->info = (struct blob_info){ .digest = digest_empty };
		return BLOB_EXISTS;
	}
	hash_bytes(bytes, len, &digest);
	if ((r = find_known(in->writer, &digest, in->kind, in->info, err)) != 0)
		return r;
	if ((r = blob_draft_open(&draft, len, err)) != 0)
		return r;
	if ((r = disk_write_full(draft.fd, bytes, len)) < 0)
		return err_errno(err, r, "writing blob %s", DIGEST_TEXT(&digest));
	return blob_draft_publish(&draft, &digest, false, in->info, in->changed, err);
}

int blob_write(struct blob_writer *writer, const void *bytes, size_t len, enum blob_kind kind,
	       struct blob_info *info, bool *changed, struct err *err)
{
	bool ignored;
	struct intake in = {
		.writer = writer,
		.kind = kind,
		.info = info,
		.changed = changed ? changed : &ignored,
		.fd = -1,
	};

	*in.changed = false;
	return blob_end_storing(writer, store_bytes(&in, bytes, len, err), err);
}

/* ---- writing what a descriptor holds ---- */

int blob_stream(struct blob_writer *writer, int from_fd, int to_fd, uint64_t size, struct digest *digest,
		struct err *err)
{
	struct hasher *hasher;
	uint64_t offset = 0;
	ssize_t n;
	int r;

	/* XFS reserves blocks ahead of a file that grows, by as much again, and counts them as its own. */
	if (to_fd >= 0 && (r = disk_ftruncate(to_fd, (off_t)size)) < 0)
		return err_errno(err, r, "writing a blob of %llu bytes", (unsigned long long)size);
	hasher = hasher_of_thread();
	while ((n = disk_pread(from_fd, writer->buffer, BLOB_BUFFER_SIZE, (off_t)offset)) > 0) {
		offset += (uint64_t)n;
		if (offset > size)
			return BLOB_SOURCE_CHANGED;
		hasher_update(hasher, writer->buffer, (size_t)n);
		if (to_fd >= 0 && (r = disk_write_full(to_fd, writer->buffer, (size_t)n)) < 0)
			return err_errno(err, r, "writing a blob of %llu bytes", (unsigned long long)size);
	}
	if (n < 0)
		return err_errno(err, (int)n, "reading a file to store it");
	hasher_finish(hasher, digest);
	return offset == size ? 0 : BLOB_SOURCE_CHANGED;
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
	return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/*
 * Was the file written to since the first stat? The change time says so even where somebody set the
 * modification time back; but it changes with every new link, and a published inode gets those all the time,
 * while being stored again from a tree that it was linked into.
 */
static int check_source(const struct intake *in, struct err *err)
{
	const struct blob_store *store = in->writer->store;
	const struct stat *before = &in->before;
	struct stat after;
	int r = disk_fstat(in->fd, &after);

	if (r < 0)
		return err_errno(err, r, "looking at a file after it was stored");
	if (after.st_size != before->st_size || !same_time(&after.st_mtim, &before->st_mtim))
		return BLOB_SOURCE_CHANGED;
	if (blob_is_published(store, BLOB_PLAIN, before) || blob_is_published(store, BLOB_EXEC, before))
		return 0;
	return same_time(&after.st_ctim, &before->st_ctim) ? 0 : BLOB_SOURCE_CHANGED;
}

/*
 * May a write(2) that began before the first stat still be under way? It changed the times when it began, so
 * they do not tell, and what was read may be half of it. No single write is taken to last longer than a
 * quarter of a second and what its bytes take at 100 MB/s.
 */
static bool may_be_torn(const struct intake *in)
{
	const struct blob_store *store = in->writer->store;
	const struct timespec *changed = &in->before.st_ctim;
	struct timespec now;
	int64_t age_ns;

	if (blob_is_published(store, BLOB_PLAIN, &in->before) ||
	    blob_is_published(store, BLOB_EXEC, &in->before))
		return false;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	if (now.tv_sec - changed->tv_sec > WRITE_S_MAX)
		return false;
	age_ns = (now.tv_sec - changed->tv_sec) * INT64_C(1000000000) + now.tv_nsec - changed->tv_nsec;
	return age_ns <= WRITE_NS_MIN + in->before.st_size * WRITE_NS_A_BYTE;
}

/* Read a file that was changed just now once more. Return: 0 when it is the same, BLOB_SOURCE_CHANGED, or an
 * errno. */
static int read_again(const struct intake *in, size_t size, struct err *err)
{
	uint8_t *first = in->writer->buffer, *second = first + SMALL_MAX;
	ssize_t n = disk_pread(in->fd, second, size, 0);

	if (n < 0)
		return err_errno(err, (int)n, "reading a file to store it");
	return (size_t)n == size && memcmp(first, second, size) == 0 ? check_source(in, err)
								     : BLOB_SOURCE_CHANGED;
}

static int store_small(const struct intake *in, struct err *err)
{
	uint8_t *buffer = in->writer->buffer;
	size_t size = (size_t)in->before.st_size;
	ssize_t n = disk_pread(in->fd, buffer, size + 1, 0); /* one more, to see it grow */
	int r;

	if (n < 0)
		return err_errno(err, (int)n, "reading a file to store it");
	if ((size_t)n != size)
		return BLOB_SOURCE_CHANGED;
	if ((r = check_source(in, err)) != 0)
		return r;
	if (may_be_torn(in) && (r = read_again(in, size, err)) != 0)
		return r;
	return store_bytes(in, buffer, size, err);
}

/* The same for a file that does not fit into the buffer. */
static int hash_again(const struct intake *in, const struct digest *digest, struct err *err)
{
	struct digest again;
	int r = blob_stream(in->writer, in->fd, -1, (uint64_t)in->before.st_size, &again, err);

	if (r != 0)
		return r;
	return digest_equal(digest, &again) ? check_source(in, err) : BLOB_SOURCE_CHANGED;
}

/* Hash a whole file, writing it to a draft on the way unless to_fd is -1, and see whether it is known. */
static int pass(const struct intake *in, int to_fd, struct digest *digest, struct err *err)
{
	int r = blob_stream(in->writer, in->fd, to_fd, (uint64_t)in->before.st_size, digest, err);

	if (r == 0)
		r = check_source(in, err);
	if (r == 0 && may_be_torn(in))
		r = hash_again(in, digest, err);
	return r == 0 ? find_known(in->writer, digest, in->kind, in->info, err) : r;
}

static int store_large(const struct intake *in, struct err *err)
{
	AUTO_BLOB_DRAFT struct blob_draft draft = { .writer = in->writer, .kind = in->kind, .fd = -1 };
	struct digest digest;
	int r;

	if (in->likely_known && (r = pass(in, -1, &digest, err)) != 0)
		return r;
	if ((r = blob_draft_open(&draft, (uint64_t)in->before.st_size, err)) != 0)
		return r;
	/* Hashed again if it was already: what counts is what this pass has read and written. */
	if ((r = pass(in, draft.fd, &digest, err)) != 0)
		return r;
	return blob_draft_publish(&draft, &digest, false, in->info, in->changed, err);
}

static int store_file(struct intake *in, struct err *err)
{
	int r = disk_fstat(in->fd, &in->before);

	if (r < 0)
		return err_errno(err, r, "looking at a file to store it");
	if (!S_ISREG(in->before.st_mode))
		return err_set(err, ERR_INVALID_ARGUMENT, "only regular files can be stored");
	return in->before.st_size <= SMALL_MAX ? store_small(in, err) : store_large(in, err);
}

int blob_write_file(struct blob_writer *writer, int fd, bool likely_known, enum blob_kind kind,
		    struct blob_info *info, bool *changed, struct err *err)
{
	bool ignored;
	struct intake in = {
		.writer = writer,
		.kind = kind,
		.info = info,
		.changed = changed ? changed : &ignored,
		.fd = fd,
		.likely_known = likely_known,
	};

	*in.changed = false;
	for (int i = 0; i < N_ATTEMPTS; i++) {
		int r = store_file(&in, err);

		if (r != BLOB_SOURCE_CHANGED)
			return blob_end_storing(writer, r, err);
	}
	(void)err_set(err, ERR_FAILED_PRECONDITION, "the file changes while it is stored");
	return -EAGAIN;
}
