/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <fcntl.h>
#include <sys/stat.h>

#include "daemon/blob_exam.h"
#include "daemon/blob_internal.h"
#include "daemon/disk.h"

void blob_store_keep_folders(struct blob_store *store)
{
	store->keeps_folders = true;
}

/* The name of the fan-out folder in that of the kind. */
struct folder_name {
	char text[3];
};

static struct folder_name folder_of(const struct blob_place *place)
{
	return (struct folder_name){ { place->path.text[0], place->path.text[1], '\0' } };
}

static int open_folder(const struct blob_place *place)
{
	const struct folder_name folder = folder_of(place);

	return disk_openat(place->store->kind_fds[place->kind], folder.text,
			   O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);
}

/* Take over a descriptor: it is kept, if any are and no other thread was faster, or is the place's own. */
static void use_folder(struct blob_place *place, int fd)
{
	int others = -1;

	place->dirfd = fd;
	if (!place->store->keeps_folders) {
		place->opened = fd;
	} else if (!atomic_compare_exchange_strong(place->kept, &others, fd)) {
		place->dirfd = others;
		disk_close(fd);
	}
}

int blob_place_find(struct blob_place *place, struct blob_store *store, const struct digest *digest,
		    enum blob_kind kind)
{
	int fd;

	*place = (struct blob_place){ .store = store,
				      .kind = kind,
				      .kept = &store->folders[kind][digest->hash[0]],
				      .dirfd = -1,
				      .opened = -1 };
	blob_print_name(digest->hash, &place->path);
	place->name = place->path.text + sizeof("ab/") - 1;
	place->dirfd = atomic_load_explicit(place->kept, memory_order_acquire);
	if (place->dirfd >= 0)
		return 0;
	fd = open_folder(place);
	if (fd < 0)
		return fd;
	use_folder(place, fd);
	return 0;
}

/* Take over a descriptor of what has the folder's name now. Return: is it another folder than before? */
static bool renew_folder(struct blob_place *place, int new_fd)
{
	AUTO_CLOSE int fd = new_fd;
	struct stat now, before;

	if (place->dirfd < 0) {
		use_folder(place, TAKE_FD(fd));
		return true;
	}
	if (disk_fstat(fd, &now) < 0 || disk_fstat(place->dirfd, &before) < 0 ||
	    (now.st_dev == before.st_dev && now.st_ino == before.st_ino))
		return false;
	return disk_dup_over(fd, place->dirfd) == 0; /* for other threads, too, which go on with either */
}

bool blob_place_changed(struct blob_place *place)
{
	int fd = open_folder(place);

	return fd >= 0 && renew_folder(place, fd);
}

int blob_place_make(struct blob_place *place)
{
	const struct folder_name folder = folder_of(place);
	int r = blob_make_folder(place->store->kind_fds[place->kind], folder.text, BLOB_FOLDER_MODE);

	if (r == 0)
		r = open_folder(place);
	if (r < 0)
		return r;
	(void)renew_folder(place, r);
	return 0;
}

void blob_place_close(struct blob_place *place)
{
	disk_close(place->opened);
}

int blob_open_name(struct blob_store *store, const struct digest *digest, enum blob_kind kind)
{
	AUTO_BLOB_PLACE struct blob_place place;
	int r = blob_place_find(&place, store, digest, kind);

	if (r < 0)
		return r;
	do
		r = disk_openat(place.dirfd, place.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	while (r == -ENOENT && blob_place_changed(&place));
	return r;
}

int blob_stat_name(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
		   struct stat *st)
{
	AUTO_BLOB_PLACE struct blob_place place;
	int r = blob_place_find(&place, store, digest, kind);

	if (r < 0)
		return r;
	do
		r = disk_fstatat(place.dirfd, place.name, st, AT_SYMLINK_NOFOLLOW);
	while (r == -ENOENT && blob_place_changed(&place));
	return r;
}
