/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob_internal.h"

#include <errno.h>
#include <fcntl.h>

#include "daemon/disk.h"

enum {
	N_ATTEMPTS = 3,    /* at a name that comes and goes */
	EXTENT_PART = 256, /* ext4 needs a block of extents for 340 of data, at worst; others less */
};

static struct blob_store *store_of(const struct blob_draft *draft)
{
	return draft->writer->store;
}

/* What a file of so many bytes may take on disk. */
static uint64_t room_for(const struct blob_store *store, uint64_t size)
{
	uint64_t blocks = size / store->block_size + (size % store->block_size != 0);

	return (blocks + blocks / EXTENT_PART) * store->block_size;
}

static int reserve(struct blob_draft *draft, uint64_t size)
{
	struct space *space = store_of(draft)->space;
	uint64_t bytes = room_for(store_of(draft), size);
	int r;

	draft->writer->need = (struct space_need){ .bytes = bytes };
	if (!space)
		return 0;
	r = draft->writer->spare_only ? space_reserve_spare(space, bytes) : space_reserve(space, bytes);
	if (r != 0)
		return BLOB_NO_ROOM;
	draft->reserved = bytes;
	return 0;
}

void blob_draft_close(struct blob_draft *draft)
{
	disk_close(draft->fd);
	if (draft->has_name)
		(void)disk_unlinkat(store_of(draft)->tmp_fd, draft->name, 0);
	if (draft->reserved)
		space_release(store_of(draft)->space, draft->reserved);
}

static int open_named(struct blob_draft *draft)
{
	struct blob_store *store = store_of(draft);

	blob_print_temporary(store, draft->name);
	draft->fd = disk_openat(store->tmp_fd, draft->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW,
				blob_mode(draft->kind));
	draft->has_name = draft->fd >= 0;
	return draft->fd < 0 ? draft->fd : 0;
}

int blob_draft_open(struct blob_draft *draft, uint64_t size, struct err *err)
{
	struct blob_store *store = store_of(draft);
	int r = reserve(draft, size);

	if (r != 0)
		return r;
	r = -EOPNOTSUPP;
	if (!atomic_load_explicit(&store->no_tmpfile, memory_order_relaxed))
		r = draft->fd = disk_openat(store->kind_fds[draft->kind], ".", O_WRONLY | O_TMPFILE,
					    blob_mode(draft->kind));
	if (r == -EOPNOTSUPP || r == -EISDIR) { /* EISDIR: from before Linux knew the flag */
		atomic_store_explicit(&store->no_tmpfile, true, memory_order_relaxed);
		r = open_named(draft);
	}
	return r < 0 ? err_errno(err, r, "making a file in the store") : 0;
}

/* Let go of the descriptor that could write; the inode stays ours by one that can only read. */
static int stop_writing(struct blob_draft *draft)
{
	int fd = disk_reopen(draft->fd, O_RDONLY);

	if (fd < 0)
		return fd;
	disk_close(draft->fd);
	draft->fd = fd;
	return 0;
}

/* All bytes are there: give the inode its mode and time, the last things that ever change in it. */
static int seal(struct blob_draft *draft, struct blob_info *info)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, store_of(draft)->mtime };
	struct statx st;
	int r;

	if ((r = disk_statx(draft->fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_BTIME, &st)) < 0)
		return r;
	info->allocated = st.stx_blocks * 512;
	info->inode = blob_inode(&st);
	if ((st.stx_mode & 07777) != blob_mode(draft->kind) &&
	    (r = disk_fchmod(draft->fd, blob_mode(draft->kind))) < 0) /* the umask, or an inherited ACL */
		return r;
	if ((r = disk_futimens(draft->fd, times)) < 0)
		return r;
	return draft->kind == BLOB_EXEC ? stop_writing(draft) : 0;
}

static int link_draft(struct blob_draft *draft, const struct blob_place *place)
{
	if (draft->has_name)
		return disk_linkat(store_of(draft)->tmp_fd, draft->name, place->dirfd, place->name, 0);
	return disk_link_fd(draft->fd, place->dirfd, place->name);
}

/* Take the final name if it is free. */
static int take_free_name(struct blob_draft *draft, struct blob_place *place)
{
	int r = link_draft(draft, place);

	if (r == -ENOENT && (r = blob_place_make(place)) == 0) /* somebody has deleted its folder */
		r = link_draft(draft, place);
	return r;
}

/* Take the final name, from whatever has it. There is no moment without a file of that name. */
static int take_name(struct blob_draft *draft, struct blob_place *place)
{
	int tmp_fd = store_of(draft)->tmp_fd;
	int r;

	if (!draft->has_name) {
		blob_print_temporary(store_of(draft), draft->name);
		if ((r = disk_link_fd(draft->fd, tmp_fd, draft->name)) < 0)
			return r;
		draft->has_name = true;
	}
	r = disk_renameat2(tmp_fd, draft->name, place->dirfd, place->name, 0);
	if (r == -ENOENT && (r = blob_place_make(place)) == 0)
		r = disk_renameat2(tmp_fd, draft->name, place->dirfd, place->name, 0);
	draft->has_name = r < 0;
	return r;
}

/* Take the final name if it is free, or if what has it was changed. Return: 0, BLOB_EXISTS, or an errno. */
static int enter(struct blob_draft *draft, struct blob_place *place, struct blob_info *info, bool *changed)
{
	int r = -EEXIST;

	for (int i = 0; i < N_ATTEMPTS && r == -EEXIST; i++) {
		struct blob_info known;
		int there;

		r = take_free_name(draft, place);
		if (r != -EEXIST)
			break;
		there = blob_check(store_of(draft), &info->digest, draft->kind, &known, NULL);
		if (there == 0) {
			*info = known;
			return BLOB_EXISTS;
		}
		if (there == BLOB_CHANGED) {
			*changed = true;
			return take_name(draft, place);
		}
	}
	return r;
}

int blob_draft_publish(struct blob_draft *draft, const struct digest *digest, bool replace,
		       struct blob_info *info, bool *changed, struct err *err)
{
	AUTO_BLOB_PLACE struct blob_place place = { .opened = -1 };
	int r;

	info->digest = *digest;
	r = seal(draft, info);
	if (r == 0)
		r = blob_place_find(&place, store_of(draft), digest, draft->kind);
	if (r == -ENOENT) /* the first in its folder */
		r = blob_place_make(&place);
	if (r == 0)
		r = replace ? take_name(draft, &place) : enter(draft, &place, info, changed);
	if (r == 0) { /* it is in the store now: the room is given back when the catalog counts it */
		draft->writer->reserved += draft->reserved;
		draft->reserved = 0;
	}
	return r < 0 ? err_errno(err, r, "storing blob %s", DIGEST_TEXT(digest)) : r;
}
