/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/blob_internal.h"
#include "daemon/disk.h"

enum {
	BUFFER_SIZE = 256 * 1024, /* stays in the processor's cache while it is read, hashed and written */
	SMALL_MAX = 128 * 1024,   /* files up to this size are read whole before anything is decided */
	N_ATTEMPTS = 3,           /* at a file that changes, at a name that comes and goes */
};

/* Inside this file: what is being read is not what it was when reading began. */
enum { SOURCE_CHANGED = 16 };

struct blob_writer {
	struct blob_store *store; /* borrowed */
	struct hasher *hasher;
	uint8_t *buffer;
};

struct blob_writer *blob_writer_new(struct blob_store *store)
{
	struct blob_writer *writer = xmalloc(sizeof(*writer));

	writer->store = store;
	writer->hasher = hasher_new();
	writer->buffer = xmalloc(BUFFER_SIZE);
	return writer;
}

void blob_writer_free(struct blob_writer *writer)
{
	if (!writer)
		return;
	hasher_free(writer->hasher);
	free(writer->buffer);
	free(writer);
}

/* ---- drafts: files on their way into the store ---- */

/*
 * A draft has no name, or where the file system has no O_TMPFILE one in tmp/. It is filled through its
 * descriptor, sealed, and then enters the store under its final name; closing it takes away whatever did not.
 */
struct draft {
	struct blob_store *store;
	enum blob_kind kind;
	int fd;
	bool has_name; /* in tmp/ */
	char name[BLOB_TEMPORARY_SIZE];
};

#define AUTO_DRAFT CLEANUP(draft_close)

static void draft_close(struct draft *draft)
{
	disk_close(draft->fd);
	if (draft->has_name)
		(void)disk_unlinkat(draft->store->tmp_fd, draft->name, 0);
}

static int draft_open_named(struct draft *draft)
{
	blob_print_temporary(draft->store, draft->name);
	draft->fd = disk_openat(draft->store->tmp_fd, draft->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW,
				blob_mode(draft->kind));
	draft->has_name = draft->fd >= 0;
	return draft->fd < 0 ? draft->fd : 0;
}

static int draft_open(struct draft *draft, struct err *err)
{
	struct blob_store *store = draft->store;
	int r = -EOPNOTSUPP;

	if (!atomic_load_explicit(&store->no_tmpfile, memory_order_relaxed))
		r = draft->fd = disk_openat(store->kind_fds[draft->kind], ".", O_WRONLY | O_TMPFILE,
					    blob_mode(draft->kind));
	if (r == -EOPNOTSUPP || r == -EISDIR) { /* EISDIR: from before Linux knew the flag */
		atomic_store_explicit(&store->no_tmpfile, true, memory_order_relaxed);
		r = draft_open_named(draft);
	}
	return r < 0 ? err_errno(err, r, "making a file in the store") : 0;
}

/* Let go of the descriptor that could write; the inode stays ours by one that can only read. */
static int draft_stop_writing(struct draft *draft)
{
	int fd = disk_reopen(draft->fd, O_RDONLY);

	if (fd < 0)
		return fd;
	disk_close(draft->fd);
	draft->fd = fd;
	return 0;
}

/* All bytes are there: give the inode its mode and time, the last things that ever change in it. */
static int draft_seal(struct draft *draft, uint64_t *allocated)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, draft->store->mtime };
	struct stat st;
	int r;

	if ((r = disk_fstat(draft->fd, &st)) < 0)
		return r;
	*allocated = blob_allocated(&st);
	if ((st.st_mode & 07777) != blob_mode(draft->kind) &&
	    (r = disk_fchmod(draft->fd, blob_mode(draft->kind))) < 0) /* the umask, or an inherited ACL */
		return r;
	if ((r = disk_futimens(draft->fd, times)) < 0)
		return r;
	return draft->kind == BLOB_EXEC ? draft_stop_writing(draft) : 0;
}

static int draft_link(struct draft *draft, int dirfd, const char *name)
{
	if (draft->has_name)
		return disk_linkat(draft->store->tmp_fd, draft->name, dirfd, name, 0);
	return disk_link_fd(draft->fd, dirfd, name);
}

/* Take the final name from whatever has it. There is no moment without a file of that name. */
static int draft_replace(struct draft *draft, const struct blob_name *name)
{
	struct blob_store *store = draft->store;
	int r;

	if (!draft->has_name) {
		blob_print_temporary(store, draft->name);
		if ((r = disk_link_fd(draft->fd, store->tmp_fd, draft->name)) < 0)
			return r;
		draft->has_name = true;
	}
	r = disk_renameat2(store->tmp_fd, draft->name, store->kind_fds[draft->kind], name->text, 0);
	draft->has_name = r < 0;
	return r;
}

/* Take the final name if it is free, or if what has it was changed. Return: 0, BLOB_EXISTS, or a negative
 * errno. */
static int draft_enter(struct draft *draft, const struct digest *digest, struct blob_info *info,
		       bool *changed)
{
	struct blob_store *store = draft->store;
	struct blob_name name;
	struct stat st;
	int r = -EEXIST;

	blob_print_name(digest->hash, &name);
	for (int i = 0; i < N_ATTEMPTS && r == -EEXIST; i++) {
		int there;

		r = draft_link(draft, store->kind_fds[draft->kind], name.text);
		if (r != -EEXIST)
			break;
		there = blob_look(store, digest, draft->kind, &name, &st, NULL);
		if (there == 0) {
			info->allocated = blob_allocated(&st);
			return BLOB_EXISTS;
		}
		if (there == BLOB_CHANGED) {
			*changed = true;
			return draft_replace(draft, &name);
		}
	}
	return r;
}

/**
 * Publish a draft whose bytes have this digest.
 *
 * @replace  whatever has the name, even if it is good
 *
 * Return: 0, BLOB_EXISTS, or a negative errno.
 */
static int draft_publish(struct draft *draft, const struct digest *digest, bool replace,
			 struct blob_info *info, bool *changed, struct err *err)
{
	struct blob_name name;
	int r;

	info->digest = *digest;
	r = draft_seal(draft, &info->allocated);
	if (r == 0 && replace) {
		blob_print_name(digest->hash, &name);
		r = draft_replace(draft, &name);
	} else if (r == 0) {
		r = draft_enter(draft, digest, info, changed);
	}
	return r < 0 ? err_errno(err, r, "storing blob %s", DIGEST_TEXT(digest)) : r;
}

/* ---- writing what is in memory ---- */

/* Return: BLOB_EXISTS with info when a blob is there, unchanged; 0 when it is to be written; or a negative
 * errno. */
static int find_known(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
		      struct blob_info *info, struct err *err)
{
	int r = blob_stat(store, digest, kind, info, err);

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
	AUTO_DRAFT struct draft draft = { .store = in->writer->store, .kind = in->kind, .fd = -1 };
	struct hasher *hasher = in->writer->hasher;
	struct digest digest;
	int r;

	hasher_reset(hasher);
	hasher_update(hasher, bytes, len);
	hasher_finish(hasher, &digest);
	if ((r = find_known(draft.store, &digest, in->kind, in->info, err)) != 0)
		return r;
	if ((r = draft_open(&draft, err)) < 0)
		return r;
	if ((r = disk_write_full(draft.fd, bytes, len)) < 0)
		return err_errno(err, r, "writing blob %s", DIGEST_TEXT(&digest));
	return draft_publish(&draft, &digest, false, in->info, in->changed, err);
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
	return store_bytes(&in, bytes, len, err);
}

/* ---- writing what a descriptor holds ---- */

/* Hash size bytes of a file, writing them to another unless that is -1. Return: 0, SOURCE_CHANGED, or an
 * errno. */
static int stream(struct blob_writer *writer, int from_fd, int to_fd, uint64_t size, struct digest *digest,
		  struct err *err)
{
	uint64_t offset = 0;
	ssize_t n;
	int r;

	hasher_reset(writer->hasher);
	while ((n = disk_pread(from_fd, writer->buffer, BUFFER_SIZE, (off_t)offset)) > 0) {
		offset += (uint64_t)n;
		if (offset > size)
			return SOURCE_CHANGED;
		hasher_update(writer->hasher, writer->buffer, (size_t)n);
		if (to_fd >= 0 && (r = disk_write_full(to_fd, writer->buffer, (size_t)n)) < 0)
			return err_errno(err, r, "writing a blob of %llu bytes", (unsigned long long)size);
	}
	if (n < 0)
		return err_errno(err, (int)n, "reading a file to store it");
	hasher_finish(writer->hasher, digest);
	return offset == size ? 0 : SOURCE_CHANGED;
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
		return SOURCE_CHANGED;
	if (blob_is_published(store, BLOB_PLAIN, before) || blob_is_published(store, BLOB_EXEC, before))
		return 0;
	return same_time(&after.st_ctim, &before->st_ctim) ? 0 : SOURCE_CHANGED;
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
		return SOURCE_CHANGED;
	if ((r = check_source(in, err)) != 0)
		return r;
	return store_bytes(in, buffer, size, err);
}

/* Hash a whole file, writing it to a draft on the way unless to_fd is -1, and see whether it is known. */
static int pass(const struct intake *in, int to_fd, struct digest *digest, struct err *err)
{
	int r = stream(in->writer, in->fd, to_fd, (uint64_t)in->before.st_size, digest, err);

	if (r == 0)
		r = check_source(in, err);
	return r == 0 ? find_known(in->writer->store, digest, in->kind, in->info, err) : r;
}

static int store_large(const struct intake *in, struct err *err)
{
	AUTO_DRAFT struct draft draft = { .store = in->writer->store, .kind = in->kind, .fd = -1 };
	struct digest digest;
	int r;

	if (in->likely_known && (r = pass(in, -1, &digest, err)) != 0)
		return r;
	if ((r = draft_open(&draft, err)) < 0)
		return r;
	/* Hashed again if it was already: what counts is what this pass has read and written. */
	if ((r = pass(in, draft.fd, &digest, err)) != 0)
		return r;
	return draft_publish(&draft, &digest, false, in->info, in->changed, err);
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

		if (r != SOURCE_CHANGED)
			return r;
	}
	(void)err_set(err, ERR_FAILED_PRECONDITION, "the file changes while it is stored");
	return -EAGAIN;
}

/* ---- renewing ---- */

/* What blob_renew() was asked, and has found. */
struct renewal {
	struct blob_writer *writer;
	const struct digest *digest;
	enum blob_kind kind; /* to be made */
	bool replace;        /* the name is taken by an inode without links left */
	struct blob_info *info;
	unsigned *n_changed;
};

static struct blob_store *store_of(const struct renewal *renewal)
{
	return renewal->writer->store;
}

/* Open an inode of the store, whatever has become of it. Return: 0, BLOB_MISSING, or a negative errno. */
static int open_source(const struct renewal *renewal, enum blob_kind kind, int *fd, struct stat *st)
{
	struct blob_name name;
	int r;

	blob_print_name(renewal->digest->hash, &name);
	*fd = disk_openat(store_of(renewal)->kind_fds[kind], name.text, O_RDONLY | O_NOFOLLOW | O_NONBLOCK,
			  0);
	if (*fd == -ENOENT)
		return BLOB_MISSING;
	if (*fd < 0)
		return *fd;
	if ((r = disk_fstat(*fd, st)) < 0)
		return r;
	return S_ISREG(st->st_mode) ? 0 : -EINVAL;
}

/* Share the source's data blocks. Return: 0, or a negative errno: to be copied then. */
static int clone_source(struct blob_store *store, int from_fd, int to_fd)
{
	int r = -EOPNOTSUPP;

	if (!atomic_load_explicit(&store->no_reflink, memory_order_relaxed))
		r = disk_reflink(from_fd, to_fd);
	if (r == -EOPNOTSUPP || r == -EXDEV)
		atomic_store_explicit(&store->no_reflink, true, memory_order_relaxed);
	return r;
}

/* Fill a draft from an open inode. The digest is that of the draft's bytes, whatever happens to the source.
 */
static int fill_draft(const struct renewal *renewal, struct draft *draft, int from_fd, uint64_t size,
		      struct digest *digest, struct err *err)
{
	AUTO_CLOSE int clone_fd = -1;

	if (clone_source(draft->store, from_fd, draft->fd) < 0)
		return stream(renewal->writer, from_fd, draft->fd, size, digest, err);
	clone_fd = disk_reopen(draft->fd, O_RDONLY);
	if (clone_fd < 0)
		return err_errno(err, clone_fd, "reading blob %s", DIGEST_TEXT(renewal->digest));
	return stream(renewal->writer, clone_fd, -1, size, digest, err);
}

/*
 * Take a wrong inode out of the store. Since it was opened another worker may have put a good one in its
 * place, and unlinking by name would lose that: so the name is moved away first, and back if it is another
 * inode's.
 */
static int take_out(const struct renewal *renewal, enum blob_kind kind, const struct stat *wrong,
		    struct err *err)
{
	struct blob_store *store = store_of(renewal);
	char away[BLOB_TEMPORARY_SIZE];
	struct blob_name name;
	struct stat st;
	int r;

	blob_print_name(renewal->digest->hash, &name);
	blob_print_temporary(store, away);
	r = disk_renameat2(store->kind_fds[kind], name.text, store->tmp_fd, away, 0);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = disk_fstatat(store->tmp_fd, away, &st, AT_SYMLINK_NOFOLLOW);
	if (r < 0)
		return err_errno(err, r, "taking changed blob %s out of the store",
				 DIGEST_TEXT(renewal->digest));
	if (st.st_dev != wrong->st_dev || st.st_ino != wrong->st_ino) {
		(void)disk_renameat2(store->tmp_fd, away, store->kind_fds[kind], name.text, 0);
		return 0;
	}
	(void)disk_unlinkat(store->tmp_fd, away, 0);
	++*renewal->n_changed;
	return 0;
}

/* Make the blob from one of its inodes. Return: 0, BLOB_EXISTS, BLOB_MISSING (not from this one), or an
 * errno. */
static int renew_from(const struct renewal *renewal, enum blob_kind from, struct err *err)
{
	AUTO_DRAFT struct draft draft = { .store = store_of(renewal), .kind = renewal->kind, .fd = -1 };
	AUTO_CLOSE int from_fd = -1;
	bool changed = false;
	struct digest found;
	struct stat st;
	int r = open_source(renewal, from, &from_fd, &st);

	if (r != 0)
		return r < 0 ? err_errno(err, r, "opening blob %s", DIGEST_TEXT(renewal->digest)) : r;
	if ((r = draft_open(&draft, err)) < 0)
		return r;
	r = fill_draft(renewal, &draft, from_fd, (uint64_t)st.st_size, &found, err);
	if (r < 0)
		return r;
	if (r == SOURCE_CHANGED || memcmp(found.hash, renewal->digest->hash, DIGEST_HASH_SIZE) != 0) {
		r = take_out(renewal, from, &st, err);
		return r < 0 ? r : BLOB_MISSING;
	}
	if (found.size != renewal->digest->size)
		return BLOB_MISSING; /* the inode is right, the digest that was asked for is not */
	r = draft_publish(&draft, renewal->digest, renewal->replace, renewal->info, &changed, err);
	*renewal->n_changed += changed;
	return r;
}

/* Does the file system take one more link to a blob? Only trying tells. */
static bool has_links_left(struct blob_store *store, enum blob_kind kind, const struct blob_name *name)
{
	char trial[BLOB_TEMPORARY_SIZE];

	blob_print_temporary(store, trial);
	if (disk_linkat(store->kind_fds[kind], name->text, store->tmp_fd, trial, 0) < 0)
		return false;
	(void)disk_unlinkat(store->tmp_fd, trial, 0);
	return true;
}

/* Try the kinds in turn. A failure with one is the answer only if no other has the bytes. */
static int renew(const struct renewal *renewal, const enum blob_kind *from, size_t n_from, struct err *err)
{
	int result = BLOB_MISSING;

	for (size_t i = 0; i < n_from; i++) {
		int r = renew_from(renewal, from[i], result < 0 ? NULL : err);

		if (r == 0 || r == BLOB_EXISTS) {
			if (err)
				err_clear(err);
			return r;
		}
		if (r < 0 && result > 0)
			result = r;
	}
	return result;
}

int blob_renew(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
	       bool links_used_up, struct blob_info *info, unsigned *n_changed, struct err *err)
{
	enum blob_kind other = kind == BLOB_PLAIN ? BLOB_EXEC : BLOB_PLAIN;
	struct renewal renewal = { writer, digest, kind, false, info, n_changed };
	struct blob_store *store = writer->store;
	struct blob_name name;
	struct stat st;
	int own, others;

	*n_changed = 0;
	blob_print_name(digest->hash, &name);
	if ((own = blob_look(store, digest, kind, &name, &st, err)) < 0)
		return own;
	if (own == 0 && (!links_used_up || has_links_left(store, kind, &name))) {
		*info = (struct blob_info){ .digest = *digest, .allocated = blob_allocated(&st) };
		return BLOB_EXISTS;
	}
	renewal.replace = own == 0;
	if ((others = blob_look(store, digest, other, &name, &st, err)) < 0)
		return others;
	/* From an unchanged inode if there is one, else from whatever has the name. */
	if (own == 0 || others == BLOB_CHANGED)
		return renew(&renewal, (const enum blob_kind[]){ kind, other }, 2, err);
	return renew(&renewal, (const enum blob_kind[]){ other, kind }, 2, err);
}
