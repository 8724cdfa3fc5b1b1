/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/blob_internal.h"
#include "daemon/disk.h"

/* Return: 0, BLOB_CHANGED, or the negative errno of either call. */
static int look_and_link(const struct blob_place *from, const struct digest *digest, int dirfd,
			 const char *name)
{
	struct stat st;
	int r = disk_fstatat(from->dirfd, from->name, &st, AT_SYMLINK_NOFOLLOW);

	if (r < 0)
		return r;
	if (!blob_is_published(from->store, from->kind, &st) || (uint64_t)st.st_size != digest->size)
		return BLOB_CHANGED;
	return disk_linkat(from->dirfd, from->name, dirfd, name, 0);
}

/* What a failure means. ENOENT, ENOTDIR: the blob is not there, or was evicted after the look, or the
 * target's folder is gone. */
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
	case -ENOTDIR:
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
	AUTO_BLOB_PLACE struct blob_place from;
	int r = blob_place_find(&from, store, digest, kind);

	if (r == 0)
		do
			r = look_and_link(&from, digest, dirfd, name);
		while (r == -ENOENT && blob_place_changed(&from));
	if (r < 0)
		r = explain(store, digest, kind, r, why);
	return r < 0 ? err_errno(err, r, "linking '%s' to blob %s", name, DIGEST_TEXT(digest)) : r;
}
