/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "daemon/blob_internal.h"
#include "daemon/disk.h"

void blob_store_doubt(struct blob_store *store, bool doubt)
{
	atomic_store(&store->in_doubt, doubt);
}

bool blob_store_in_doubt(const struct blob_store *store)
{
	return atomic_load_explicit(&store->in_doubt, memory_order_relaxed);
}

int blob_check_bytes(struct blob_store *store, int fd, const struct digest *digest, struct err *err)
{
	AUTO(blob_writer) writer = NULL; /* the caller's buffer may be in use */
	struct digest found;
	int r;

	if (!blob_store_in_doubt(store))
		return 0;
	writer = blob_writer_new(store);
	r = blob_stream(writer, fd, -1, digest->size, &found, err);
	if (r == 0 && memcmp(found.hash, digest->hash, DIGEST_HASH_SIZE) == 0)
		return 0;
	return r < 0 ? r : BLOB_CHANGED;
}

int blob_check(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
	       const struct blob_name *name, struct stat *st, struct err *err)
{
	AUTO_CLOSE int fd = -1;
	int r = blob_look(store, digest, kind, name, st, err);

	if (r != 0 || !blob_store_in_doubt(store))
		return r;
	fd = disk_openat(store->kind_fds[kind], name->text, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	if (fd < 0)
		return fd == -ENOENT ? BLOB_MISSING
				     : err_errno(err, fd, "opening blob %s", DIGEST_TEXT(digest));
	return blob_check_bytes(store, fd, digest, err);
}
