/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "daemon/blob_internal.h"
#include "daemon/disk.h"
#include "daemon/rmtree.h"

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

/*
 * Open an inode of the store, whatever has become of it. Return: 0, BLOB_MISSING, BLOB_SOURCE_CHANGED (with
 * *st: it is no file any more, or its new mode or owner forbids to read it), or a negative errno.
 */
static int open_source(const struct renewal *renewal, enum blob_kind kind, int *fd, struct stat *st)
{
	int r;

	*fd = blob_open_name(store_of(renewal), renewal->digest, kind);
	if (blob_is_nowhere(*fd))
		return BLOB_MISSING;
	/* A symlink or a socket has our name, or we may not read what has it. */
	if (*fd == -ELOOP || *fd == -ENXIO || *fd == -EACCES)
		r = blob_stat_name(store_of(renewal), renewal->digest, kind, st);
	else
		r = *fd < 0 ? *fd : disk_fstat(*fd, st);
	if (r < 0)
		return r;
	if (*fd == -EACCES && blob_is_published(store_of(renewal), kind, st))
		return *fd;
	return *fd != -EACCES && S_ISREG(st->st_mode) ? 0 : BLOB_SOURCE_CHANGED;
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

/* Fill a draft from an open inode. The digest is that of the draft's bytes, whatever the source does. */
static int fill_draft(const struct renewal *renewal, struct blob_draft *draft, int from_fd, uint64_t size,
		      struct digest *digest, struct err *err)
{
	AUTO_CLOSE int clone_fd = -1;

	if (clone_source(store_of(renewal), from_fd, draft->fd) < 0)
		return blob_stream(renewal->writer, from_fd, draft->fd, size, digest, err);
	clone_fd = disk_reopen(draft->fd, O_RDONLY);
	if (clone_fd < 0)
		return err_errno(err, clone_fd, "reading blob %s", DIGEST_TEXT(renewal->digest));
	return blob_stream(renewal->writer, clone_fd, -1, size, digest, err);
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
	AUTO_BLOB_PLACE struct blob_place place;
	char away[BLOB_TEMPORARY_SIZE];
	struct stat st;
	int r = blob_place_find(&place, store, renewal->digest, kind);

	blob_print_temporary(store, away);
	if (r == 0)
		do
			r = disk_renameat2(place.dirfd, place.name, store->tmp_fd, away, 0);
		while (r == -ENOENT && blob_place_changed(&place));
	if (blob_is_nowhere(r))
		return 0;
	if (r == 0)
		r = disk_fstatat(store->tmp_fd, away, &st, AT_SYMLINK_NOFOLLOW);
	if (r < 0)
		return err_errno(err, r, "taking changed blob %s out of the store",
				 DIGEST_TEXT(renewal->digest));
	if (st.st_dev != wrong->st_dev || st.st_ino != wrong->st_ino) {
		(void)disk_renameat2(store->tmp_fd, away, place.dirfd, place.name, 0);
		return 0;
	}
	(void)rmtree(store->tmp_fd, away, NULL); /* a folder may have had its name */
	++*renewal->n_changed;
	return 0;
}

/* Make the blob from one of its inodes. Return: as blob_renew(); BLOB_MISSING: not from here. */
static int renew_from(const struct renewal *renewal, enum blob_kind from, struct err *err)
{
	AUTO_BLOB_DRAFT struct blob_draft draft = { .writer = renewal->writer,
						    .kind = renewal->kind,
						    .fd = -1 };
	AUTO_CLOSE int from_fd = -1;
	bool changed = false;
	struct digest found;
	struct stat st;
	int r = open_source(renewal, from, &from_fd, &st);

	if (r < 0)
		return err_errno(err, r, "opening blob %s", DIGEST_TEXT(renewal->digest));
	if (r == BLOB_MISSING)
		return r;
	if (r == 0 && (r = blob_draft_open(&draft, (uint64_t)st.st_size, err)) == 0)
		r = fill_draft(renewal, &draft, from_fd, (uint64_t)st.st_size, &found, err);
	if (r < 0 || r == BLOB_NO_ROOM)
		return r;
	if (r == BLOB_SOURCE_CHANGED || memcmp(found.hash, renewal->digest->hash, DIGEST_HASH_SIZE) != 0) {
		r = take_out(renewal, from, &st, err);
		return r < 0 ? r : BLOB_MISSING;
	}
	if (found.size != renewal->digest->size)
		return BLOB_MISSING; /* the inode is right, the digest that was asked for is not */
	r = blob_draft_publish(&draft, renewal->digest, renewal->replace, renewal->info, &changed, err);
	*renewal->n_changed += changed;
	return r;
}

/* Does the file system take one more link to a blob? Only trying tells. */
static bool has_links_left(struct blob_store *store, const struct digest *digest, enum blob_kind kind)
{
	AUTO_BLOB_PLACE struct blob_place place;
	char trial[BLOB_TEMPORARY_SIZE];

	blob_print_temporary(store, trial);
	if (blob_place_find(&place, store, digest, kind) < 0 ||
	    disk_linkat(place.dirfd, place.name, store->tmp_fd, trial, 0) < 0)
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

		if (r == 0 || r == BLOB_EXISTS || r == BLOB_NO_ROOM) {
			if (err)
				err_clear(err);
			return r;
		}
		if (r < 0 && result > 0)
			result = r;
	}
	return result;
}

static int find_and_renew(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
			  bool links_used_up, struct blob_info *info, unsigned *n_changed, struct err *err)
{
	enum blob_kind other = kind == BLOB_PLAIN ? BLOB_EXEC : BLOB_PLAIN;
	struct renewal renewal = { writer, digest, kind, false, info, n_changed };
	struct blob_store *store = writer->store;
	struct blob_info known;
	struct stat st;
	int own, others;

	if ((own = blob_check(store, digest, kind, &known, err)) < 0)
		return own;
	if (own == 0 && (!links_used_up || has_links_left(store, digest, kind))) {
		*info = known;
		return BLOB_EXISTS;
	}
	renewal.replace = own == 0;
	if ((others = blob_look(store, digest, other, &st, err)) < 0)
		return others;
	/* From an unchanged inode if there is one, else from whatever has the name. */
	if (own == 0 || others == BLOB_CHANGED)
		return renew(&renewal, (const enum blob_kind[]){ kind, other }, 2, err);
	return renew(&renewal, (const enum blob_kind[]){ other, kind }, 2, err);
}

int blob_renew(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
	       bool links_used_up, struct blob_info *info, unsigned *n_changed, struct err *err)
{
	int r;

	*n_changed = 0;
	blob_claim(writer, digest);
	r = find_and_renew(writer, digest, kind, links_used_up, info, n_changed, err);
	return blob_end_storing(writer, r, err);
}

int blob_settle(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
		struct blob_info *info, unsigned *n_changed, struct err *err)
{
	struct renewal renewal = { writer, digest, kind, false, info, n_changed };
	AUTO_CLOSE int fd = -1;
	struct digest found;
	struct stat st;
	int r;

	*n_changed = 0;
	blob_claim(writer, digest);
	r = open_source(&renewal, kind, &fd, &st);
	if (r < 0)
		return err_errno(err, r, "opening blob %s", DIGEST_TEXT(digest));
	if (r == BLOB_MISSING)
		return r;
	if (r == 0)
		r = blob_stream(writer, fd, -1, (uint64_t)st.st_size, &found, err);
	if (r < 0 && r != -EIO)
		return r;
	if (r != 0 || memcmp(found.hash, digest->hash, DIGEST_HASH_SIZE) != 0) {
		r = take_out(&renewal, kind, &st, err);
		return r < 0 ? r : BLOB_MISSING;
	}
	if (!blob_is_published(writer->store, kind, &st)) {
		r = blob_renew(writer, &found, kind, false, info, n_changed, err);
		return r == BLOB_NO_ROOM ? blob_refuse(writer, err) : r;
	}
	*info = (struct blob_info){ .digest = found, .allocated = blob_allocated(&st) };
	if ((r = blob_find_inode(fd, &info->inode)) < 0)
		return err_errno(err, r, "looking at blob %s", DIGEST_TEXT(digest));
	return BLOB_EXISTS;
}

int blob_read_renewed(struct blob_store *store, const struct digest *digest, size_t max, uint8_t **bytes,
		      struct blob_repairs *repairs, struct err *err)
{
	AUTO(blob_writer) writer = NULL;
	int r = blob_read(store, digest, max, bytes, err), renewed;
	struct blob_info info = { 0 };
	unsigned n_changed = 0;

	if (r != BLOB_CHANGED)
		return r;
	writer = blob_writer_new(store);
	renewed = blob_renew(writer, digest, BLOB_PLAIN, false, &info, &n_changed, err);
	if (renewed == BLOB_EXISTS) /* it looks right, and its bytes are not */
		n_changed += blob_discard(store, digest, BLOB_PLAIN, NULL) == 0;
	repairs->n_changed += n_changed;
	repairs->n_healed += renewed == 0;
	if (renewed == BLOB_NO_ROOM)
		return blob_refuse(writer, err);
	return renewed < 0 ? renewed : blob_read(store, digest, max, bytes, err);
}
