/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/blob_internal.h"
#include "daemon/disk.h"

void blob_store_keep_folders(struct blob_store *store)
{
	store->keeps_folders = true;
}

/* The fan-out folder of a name, and never one that a symlink in its place leads to. */
static int open_folder(const struct blob_store *store, enum blob_kind kind, const struct blob_name *name)
{
	const char folder[3] = { name->text[0], name->text[1], '\0' };

	return disk_openat(store->kind_fds[kind], folder, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* Return: a descriptor of the fan-out folder, the store's; or -1 where none is kept. */
static int kept_folder(struct blob_store *store, enum blob_kind kind, const struct blob_name *name,
		       uint8_t byte)
{
	int fd = atomic_load_explicit(&store->folders[kind][byte], memory_order_acquire), others = -1;

	if (fd >= 0 || !store->keeps_folders)
		return fd;
	fd = open_folder(store, kind, name);
	if (fd < 0)
		return -1;
	if (atomic_compare_exchange_strong(&store->folders[kind][byte], &others, fd))
		return fd;
	disk_close(fd);
	return others;
}

/* A name below a folder. */
struct where {
	int dirfd;
	const char *name;
};

/* Return: 0, BLOB_CHANGED, or the negative errno of either call. */
static int look_and_link(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
			 struct where from, struct where to)
{
	struct stat st;
	int r = disk_fstatat(from.dirfd, from.name, &st, AT_SYMLINK_NOFOLLOW);

	if (r < 0)
		return r;
	if (!blob_is_published(store, kind, &st) || (uint64_t)st.st_size != digest->size)
		return BLOB_CHANGED;
	return disk_linkat(from.dirfd, from.name, to.dirfd, to.name, 0);
}

/* What a failure means. ENOENT: the blob is not there, or was evicted after the look, or the folder is gone.
 */
static int explain(struct blob_store *store, const struct digest *digest, enum blob_kind kind, int r,
		   int *why)
{
	switch (r) {
	case -EMLINK:
		return BLOB_LINKS_USED_UP;
	case -EXDEV:
	case -EPERM:
	case -EOPNOTSUPP:
		*why = -r;
		return BLOB_UNLINKABLE;
	case -ENOENT:
		if (blob_stat(store, digest, kind, NULL, NULL) == BLOB_MISSING)
			return BLOB_MISSING;
		return r;
	default:
		return r;
	}
}

int blob_link(struct blob_store *store, const struct digest *digest, enum blob_kind kind, int dirfd,
	      const char *name, int *why, struct err *err)
{
	const struct where to = { dirfd, name };
	struct where there;
	AUTO_CLOSE int opened = -1;
	struct blob_name from;
	int r = -ENOENT;

	blob_print_name(digest->hash, &from);
	there = (struct where){ kept_folder(store, kind, &from, digest->hash[0]),
				from.text + sizeof("ab/") - 1 };
	if (there.dirfd >= 0)
		r = look_and_link(store, digest, kind, there, to);
	/* Somebody may have put another folder in the place of the one we keep. */
	if (r == -ENOENT) {
		there.dirfd = r = opened = open_folder(store, kind, &from);
		if (opened >= 0)
			r = look_and_link(store, digest, kind, there, to);
	}
	if (r < 0)
		r = explain(store, digest, kind, r, why);
	return r < 0 ? err_errno(err, r, "linking '%s' to blob %s", name, DIGEST_TEXT(digest)) : r;
}
