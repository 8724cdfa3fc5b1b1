/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/blob_internal.h"
#include "daemon/disk.h"

/* The lock is for who comes first, and for the end of the doubt, when a worker may still be looking. */
struct blob_doubt {
	pthread_mutex_t lock;
	struct blob_vouchers vouchers;
	bool is_sorted; /* by hash: rows come in another order, and the daemon becomes ready before that is
			   done */
};

struct blob_doubt *blob_doubt_new(void)
{
	struct blob_doubt *doubt = xcalloc(1, sizeof(*doubt));

	(void)pthread_mutex_init(&doubt->lock, NULL);
	return doubt;
}

void blob_doubt_free(struct blob_doubt *doubt)
{
	if (!doubt)
		return;
	free(doubt->vouchers.items);
	(void)pthread_mutex_destroy(&doubt->lock);
	free(doubt);
}

static void set_vouchers(struct blob_doubt *doubt, const struct blob_vouchers *vouchers)
{
	(void)pthread_mutex_lock(&doubt->lock);
	free(doubt->vouchers.items);
	doubt->vouchers = *vouchers;
	doubt->is_sorted = false;
	(void)pthread_mutex_unlock(&doubt->lock);
}

void blob_store_doubt(struct blob_store *store, struct blob_vouchers *vouchers)
{
	set_vouchers(store->doubt, vouchers);
	*vouchers = (struct blob_vouchers){ 0 };
	atomic_store(&store->in_doubt, true);
}

void blob_store_end_doubt(struct blob_store *store)
{
	atomic_store(&store->in_doubt, false);
	set_vouchers(store->doubt, &(struct blob_vouchers){ 0 });
}

bool blob_store_in_doubt(const struct blob_store *store)
{
	return atomic_load_explicit(&store->in_doubt, memory_order_relaxed);
}

/* ---- inodes ---- */

uint64_t blob_inode(const struct statx *st)
{
	uint64_t born_ns = (uint64_t)st->stx_btime.tv_sec * 1000000000u + st->stx_btime.tv_nsec;
	uint64_t mixed = st->stx_ino + born_ns * 0x9e3779b97f4a7c15u;

	if (!(st->stx_mask & STATX_BTIME))
		return 0;
	return mixed ? mixed : 1;
}

int blob_find_inode(int fd, uint64_t *inode)
{
	struct statx st;
	int r = disk_statx(fd, "", AT_EMPTY_PATH, STATX_INO | STATX_BTIME, &st);

	*inode = r < 0 ? 0 : blob_inode(&st);
	return r;
}

static int by_hash(const void *a, const void *b)
{
	const struct blob_voucher *x = a, *y = b;

	return memcmp(x->hash, y->hash, DIGEST_HASH_SIZE);
}

/* Two rows may speak of one hash, the older one of an inode that has gone: whichever is found, what it says
 * is so. */
static const struct blob_voucher *find(struct blob_doubt *doubt, const struct digest *digest)
{
	struct blob_vouchers *vouchers = &doubt->vouchers;
	struct blob_voucher key;

	if (!vouchers->n)
		return NULL;
	if (!doubt->is_sorted)
		qsort(vouchers->items, vouchers->n, sizeof(*vouchers->items), by_hash);
	doubt->is_sorted = true;
	memcpy(key.hash, digest->hash, DIGEST_HASH_SIZE);
	return bsearch(&key, vouchers->items, vouchers->n, sizeof(key), by_hash);
}

bool blob_is_vouched(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
		     uint64_t inode)
{
	struct blob_doubt *doubt = store->doubt;
	const struct blob_voucher *found;
	bool is_it;

	(void)pthread_mutex_lock(&doubt->lock);
	found = find(doubt, digest);
	is_it = found && inode && found->inodes[kind] == inode;
	(void)pthread_mutex_unlock(&doubt->lock);
	return is_it;
}

/* ---- bytes ---- */

int blob_check_bytes(struct blob_store *store, int fd, const struct digest *digest, enum blob_kind kind,
		     uint64_t *inode, struct err *err)
{
	AUTO(blob_writer) writer = NULL; /* the caller's buffer may be in use */
	struct digest found;
	int r;

	*inode = 0;
	if (!blob_store_in_doubt(store))
		return 0;
	if ((r = blob_find_inode(fd, inode)) < 0)
		return err_errno(err, r, "looking at blob %s", DIGEST_TEXT(digest));
	if (blob_is_vouched(store, digest, kind, *inode)) {
		*inode = 0;
		return 0;
	}
	writer = blob_writer_new(store);
	r = blob_stream(writer, fd, -1, digest->size, &found, err);
	if (r == 0 && memcmp(found.hash, digest->hash, DIGEST_HASH_SIZE) == 0)
		return 0;
	return r < 0 ? r : BLOB_CHANGED;
}

int blob_check(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
	       struct blob_info *info, struct err *err)
{
	AUTO_CLOSE int fd = -1;
	struct stat st;
	int r = blob_look(store, digest, kind, &st, err);

	if (r != 0)
		return r;
	*info = (struct blob_info){ .digest = *digest, .allocated = blob_allocated(&st) };
	if (!blob_store_in_doubt(store))
		return 0;
	fd = blob_open_name(store, digest, kind);
	if (fd < 0)
		return blob_is_nowhere(fd) ? BLOB_MISSING
					   : err_errno(err, fd, "opening blob %s", DIGEST_TEXT(digest));
	return blob_check_bytes(store, fd, digest, kind, &info->inode, err);
}
