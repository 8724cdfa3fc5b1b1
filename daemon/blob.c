/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/blob_internal.h"
#include "daemon/disk.h"
#include "daemon/rmtree.h"

enum { COPY_STEP = 16 << 20 }; /* bytes copied between two looks whether to go on */

static const char *const kind_names[BLOB_KINDS] = { [BLOB_PLAIN] = "blobs", [BLOB_EXEC] = "exec" };

/* The unit in which a file system gives room to files. Some (NFS) call what they like to be read in a block.
 */
enum { BLOCK_USUAL = 4096, BLOCK_MAX = 64 * 1024 };

/* A day that nothing real was written on, to the nanosecond. */
static const struct timespec wanted_mtime = { .tv_sec = 1000000000, .tv_nsec = 271828183 };

/* ---- names ---- */

static char *print_byte(uint8_t byte, char *out)
{
	static const char digits[16] = "0123456789abcdef";

	*out++ = digits[byte >> 4];
	*out++ = digits[byte & 15];
	return out;
}

void blob_print_name(const uint8_t hash[DIGEST_HASH_SIZE], struct blob_name *name)
{
	char *p = print_byte(hash[0], name->text);

	*p++ = '/';
	for (size_t i = 0; i < DIGEST_HASH_SIZE; i++)
		p = print_byte(hash[i], p);
	*p = '\0';
}

void blob_print_temporary(struct blob_store *store, char name[BLOB_TEMPORARY_SIZE])
{
	uint64_t n = atomic_fetch_add_explicit(&store->n_temporary, 1, memory_order_relaxed);

	(void)snprintf(name, BLOB_TEMPORARY_SIZE, "%016" PRIx64 ".%" PRIx64, store->run, n);
}

const char *blob_kind_folder(enum blob_kind kind)
{
	return kind_names[kind];
}

/* ---- opening ---- */

/* The umask may take bits of the mode away, so it is set again. */
int blob_make_folder(int dirfd, const char *name, mode_t mode)
{
	AUTO_CLOSE int fd = -1;
	int r = disk_mkdirat(dirfd, name, mode);

	if (r < 0)
		return r == -EEXIST ? 0 : r;
	fd = disk_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	return fd < 0 ? fd : disk_fchmod(fd, mode);
}

/* Make or find a folder. Return: a descriptor, or a negative errno. */
static int open_folder(int dirfd, const char *name, mode_t mode, struct err *err)
{
	int r = blob_make_folder(dirfd, name, mode);

	if (r == 0)
		r = disk_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	return r < 0 ? err_errno(err, r, "making the store's folder '%s'", name) : r;
}

/* Give a file the time we want, and see which one the file system makes of it. */
static int find_mtime_of(struct blob_store *store, int fd)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, wanted_mtime };
	struct stat st;
	int r;

	if ((r = disk_futimens(fd, times)) < 0 || (r = disk_fstat(fd, &st)) < 0)
		return r;
	store->mtime = st.st_mtim;
	if (st.st_blksize > 0 && st.st_blksize <= BLOCK_MAX)
		store->block_size = (uint64_t)st.st_blksize;
	return st.st_uid == store->uid ? 0 : -EPERM; /* files get another owner than us: root squashed away */
}

static int find_mtime(struct blob_store *store, struct err *err)
{
	char name[BLOB_TEMPORARY_SIZE];
	int fd, r;

	blob_print_temporary(store, name);
	fd = disk_openat(store->tmp_fd, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
	if (fd < 0)
		return err_errno(err, fd, "making a file in the store's folder 'tmp'");
	r = find_mtime_of(store, fd);
	disk_close(fd);
	if (disk_unlinkat(store->tmp_fd, name, 0) < 0)
		(void)disk_unlinkat(store->tmp_fd, name, 0); /* else it stays until the next start */
	if (r < 0)
		return err_errno(err, r, "setting owner and time of a file in the store");
	return 0;
}

static int open_folders(struct blob_store *store, struct err *err)
{
	int r;

	for (unsigned i = 0; i < BLOB_KINDS; i++)
		if ((r = store->kind_fds[i] = open_folder(store->store_fd, kind_names[i], 0711, err)) < 0)
			return r;
	return store->tmp_fd = open_folder(store->store_fd, "tmp", 0700, err);
}

/* Tells this run from those before it, whatever became of the clock: what is left of them is nobody's. */
static uint64_t number_of_run(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_REALTIME, &now);
	return ((uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec) ^ (uint64_t)getpid() << 48;
}

struct blob_store *blob_store_open(int store_fd, struct err *err)
{
	AUTO(blob_store) store = xcalloc(1, sizeof(*store));

	*store = (struct blob_store){
		.store_fd = store_fd,
		.kind_fds = { -1, -1 },
		.tmp_fd = -1,
		.uid = geteuid(),
		.block_size = BLOCK_USUAL,
		.run = number_of_run(),
		.doubt = blob_doubt_new(),
	};
	memset(store->folders, -1, sizeof(store->folders));
	if (open_folders(store, err) < 0 || find_mtime(store, err) < 0)
		return NULL;
	return TAKE(store);
}

void blob_store_guard(struct blob_store *store, struct space *space, struct claims *claims)
{
	store->space = space;
	store->claims = claims;
}

void blob_store_close(struct blob_store *store)
{
	if (!store)
		return;
	for (unsigned i = 0; i < BLOB_KINDS; i++)
		disk_close(store->kind_fds[i]);
	for (unsigned i = 0; i < BLOB_KINDS * BLOB_FOLDERS; i++)
		disk_close(store->folders[i / BLOB_FOLDERS][i % BLOB_FOLDERS]);
	disk_close(store->tmp_fd);
	blob_doubt_free(store->doubt);
	free(store);
}

bool blob_is_kind_folder(const char *name)
{
	return strcmp(name, kind_names[BLOB_PLAIN]) == 0 || strcmp(name, kind_names[BLOB_EXEC]) == 0;
}

/* A stream over a folder, or NULL with *r and err. */
static DIR *open_stream(int dirfd, const char *name, int *r, struct err *err)
{
	int fd = disk_openat(dirfd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	DIR *dir = NULL;

	*r = fd;
	if (fd >= 0)
		dir = disk_fdopendir(fd, r);
	if (!dir)
		(void)err_errno(err, *r, "reading the store's folder '%s'", name);
	return dir;
}

int blob_store_is_empty(struct blob_store *store, struct err *err)
{
	int r = 0;

	for (unsigned kind = 0; kind < BLOB_KINDS; kind++) {
		DIR *dir = open_stream(store->store_fd, kind_names[kind], &r, err);
		const struct dirent *entry = dir ? disk_readdir(dir, &r) : NULL;

		disk_closedir(dir);
		if (r < 0)
			return err_errno(err, r, "reading the store's folder '%s'", kind_names[kind]);
		if (entry)
			return 0;
	}
	return 1;
}

int blob_store_clean(struct blob_store *store, struct err *err)
{
	char ours[BLOB_TEMPORARY_SIZE];
	struct dirent *entry;
	DIR *dir;
	int r;

	(void)snprintf(ours, sizeof(ours), "%016" PRIx64 ".", store->run);
	dir = open_stream(store->store_fd, "tmp", &r, err);
	if (!dir)
		return r;
	while ((entry = disk_readdir(dir, &r)))
		if (strncmp(entry->d_name, ours, strlen(ours)) != 0)
			(void)rmtree(store->tmp_fd, entry->d_name, NULL);
	disk_closedir(dir);
	return r < 0 ? err_errno(err, r, "reading the store's folder 'tmp'") : 0;
}

struct timespec blob_mtime(const struct blob_store *store)
{
	return store->mtime;
}

/* ---- looking ---- */

bool blob_is_published(const struct blob_store *store, enum blob_kind kind, const struct stat *st)
{
	return st->st_mode == (S_IFREG | blob_mode(kind)) && st->st_uid == store->uid &&
	       st->st_mtim.tv_sec == store->mtime.tv_sec && st->st_mtim.tv_nsec == store->mtime.tv_nsec;
}

bool blob_looks_published(const struct blob_store *store, const struct stat *st)
{
	return blob_is_published(store, BLOB_PLAIN, st) || blob_is_published(store, BLOB_EXEC, st);
}

static int compare(const struct blob_store *store, const struct digest *digest, enum blob_kind kind,
		   const struct stat *st)
{
	if (!blob_is_published(store, kind, st) || (uint64_t)st->st_size != digest->size)
		return BLOB_CHANGED;
	return 0;
}

int blob_look(struct blob_store *store, const struct digest *digest, enum blob_kind kind, struct stat *st,
	      struct err *err)
{
	int r = blob_stat_name(store, digest, kind, st);

	if (r == 0)
		return compare(store, digest, kind, st);
	if (blob_is_nowhere(r))
		return BLOB_MISSING;
	return err_errno(err, r, "looking at blob %s", DIGEST_TEXT(digest));
}

int blob_stat(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
	      struct blob_info *info, struct err *err)
{
	struct blob_info found;
	int r = blob_check(store, digest, kind, &found, err);

	if (r == 0 && info)
		*info = found;
	return r;
}

/* ---- reading ---- */

/* Open one kind, and compare what was opened. Return: a descriptor in *fd, or as blob_open(). */
static int open_kind(struct blob_store *store, const struct digest *digest, enum blob_kind kind, int *fd,
		     struct err *err)
{
	AUTO_CLOSE int opened = blob_open_name(store, digest, kind);
	uint64_t inode;
	struct stat st;
	int r;

	if (blob_is_nowhere(opened))
		return BLOB_MISSING;
	if (opened == -ELOOP || opened == -ENXIO)
		return BLOB_CHANGED; /* a symlink or a pipe has our name */
	if (opened == -EACCES && (r = blob_look(store, digest, kind, &st, err)) != 0)
		return r; /* who may not read it sees why, if it has another mode */
	if (opened < 0)
		return err_errno(err, opened, "opening blob %s", DIGEST_TEXT(digest));
	if ((r = disk_fstat(opened, &st)) < 0)
		return err_errno(err, r, "looking at blob %s", DIGEST_TEXT(digest));
	if ((r = compare(store, digest, kind, &st)) == 0 &&
	    (r = blob_check_bytes(store, opened, digest, kind, &inode, err)) == 0)
		*fd = TAKE_FD(opened);
	return r;
}

int blob_open(struct blob_store *store, const struct digest *digest, int *fd, struct err *err)
{
	int plain = open_kind(store, digest, BLOB_PLAIN, fd, err);
	int exec;

	if (plain <= 0)
		return plain;
	exec = open_kind(store, digest, BLOB_EXEC, fd, err);
	return exec == BLOB_MISSING ? plain : exec;
}

int blob_read(struct blob_store *store, const struct digest *digest, size_t max, uint8_t **bytes,
	      struct err *err)
{
	AUTO_FREE uint8_t *read = NULL;
	AUTO_CLOSE int fd = -1;
	struct digest found;
	int r;

	if (digest->size > max)
		return err_errno(err, -EFBIG, "reading blob %s into %zu bytes", DIGEST_TEXT(digest), max);
	r = blob_open(store, digest, &fd, err);
	if (r != 0)
		return r;
	read = xmalloc((size_t)digest->size + 1); /* never malloc(0) */
	r = disk_read_full(fd, read, (size_t)digest->size, 0);
	if (r < 0)
		return err_errno(err, r, "reading blob %s", DIGEST_TEXT(digest));
	hash_bytes(read, (size_t)digest->size, &found);
	if (!digest_equal(&found, digest))
		return BLOB_CHANGED;
	*bytes = TAKE(read);
	return 0;
}

/* ---- private copies ---- */

/* Return: 0 (shared), or a negative errno: to be copied then. */
static int share(struct blob_store *store, int from_fd, int fd)
{
	int r = -EOPNOTSUPP;

	if (!atomic_load_explicit(&store->no_reflink, memory_order_relaxed))
		r = disk_reflink(from_fd, fd);
	if (r == -EOPNOTSUPP) /* EXDEV would come first, so this is the store's own file system */
		atomic_store_explicit(&store->no_reflink, true, memory_order_relaxed);
	return r;
}

static int copy_bytes(int from_fd, int fd, uint64_t size, const atomic_bool *stop)
{
	for (uint64_t at = 0; at < size; at += COPY_STEP) {
		uint64_t left = size - at;
		int r = stop && atomic_load_explicit(stop, memory_order_relaxed) ? -ECANCELED : 0;

		if (r == 0)
			r = disk_send_full(from_fd, (off_t)at, fd, left < COPY_STEP ? left : COPY_STEP);
		if (r < 0)
			return r;
	}
	return 0;
}

static int fill_copy(struct blob_store *store, int from_fd, int fd, uint64_t size, struct blob_copy *copy)
{
	copy->why_not = copy->reflink ? -share(store, from_fd, fd) : 0;
	return copy->reflink && !copy->why_not ? 0 : copy_bytes(from_fd, fd, size, copy->stop);
}

static int finish_copy(struct blob_store *store, int fd, mode_t mode)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, store->mtime };
	struct stat st;
	int r;

	if ((r = disk_fstat(fd, &st)) < 0)
		return r;
	if ((st.st_mode & 07777) != mode && (r = disk_fchmod(fd, mode)) < 0)
		return r;
	return disk_futimens(fd, times);
}

int blob_copy(struct blob_store *store, const struct digest *digest, int dirfd, const char *name,
	      struct blob_copy *copy, struct err *err)
{
	AUTO_CLOSE int from_fd = -1, fd = -1;
	int r = blob_open(store, digest, &from_fd, err);

	if (r != 0)
		return r;
	fd = disk_openat(dirfd, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, copy->mode);
	if (fd < 0)
		return err_errno(err, fd, "making '%s'", name);
	r = fill_copy(store, from_fd, fd, digest->size, copy);
	if (r == 0)
		r = finish_copy(store, fd, copy->mode);
	if (r == 0)
		return 0;
	(void)disk_unlinkat(dirfd, name, 0);
	return err_errno(err, r, "copying blob %s to '%s'", DIGEST_TEXT(digest), name);
}

/* ---- taking out ---- */

int blob_discard(struct blob_store *store, const struct digest *digest, enum blob_kind kind, struct err *err)
{
	AUTO_BLOB_PLACE struct blob_place place;
	int r = blob_place_find(&place, store, digest, kind);

	if (r == 0)
		do
			r = disk_unlinkat(place.dirfd, place.name, 0);
		while (r == -ENOENT && blob_place_changed(&place));
	if (blob_is_nowhere(r))
		return BLOB_MISSING;
	return r < 0 ? err_errno(err, r, "taking blob %s out of the store", DIGEST_TEXT(digest)) : 0;
}

bool blob_has_no_other_link(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
			    uint64_t *allocated)
{
	struct stat st;

	if (blob_stat_name(store, digest, kind, &st) < 0)
		return false;
	*allocated = blob_allocated(&st);
	return st.st_nlink == 1;
}

/* ---- scanning ---- */

/* What blob_is_published() looks at, and the size and blocks. */
static struct stat stat_of(const struct statx *stx)
{
	return (struct stat){
		.st_mode = stx->stx_mode,
		.st_uid = stx->stx_uid,
		.st_size = (off_t)stx->stx_size,
		.st_blocks = (blkcnt_t)stx->stx_blocks,
		.st_mtim = { .tv_sec = stx->stx_mtime.tv_sec, .tv_nsec = stx->stx_mtime.tv_nsec },
	};
}

/* Look at one name of a fan-out folder. Return: 0 if it is one of ours, BLOB_MISSING, or a negative errno. */
static int scan_entry(struct blob_store *store, enum blob_kind kind, unsigned fanout, int dirfd,
		      const char *name, struct blob_found *found)
{
	struct digest *digest = &found->info.digest;
	struct statx stx;
	struct stat st;
	int r;

	if (digest_parse_hash(name, strlen(name), digest->hash) < 0 || digest->hash[0] != fanout)
		return BLOB_MISSING;
	r = disk_statx(dirfd, name, AT_SYMLINK_NOFOLLOW, STATX_BASIC_STATS | STATX_BTIME, &stx);
	if (r < 0)
		return r == -ENOENT ? BLOB_MISSING : r;
	st = stat_of(&stx);
	found->is_changed = !blob_is_published(store, kind, &st);
	digest->size = (uint64_t)st.st_size;
	found->info.allocated = blob_allocated(&st);
	found->info.inode = blob_inode(&stx);
	found->is_vouched =
		blob_store_in_doubt(store) && blob_is_vouched(store, digest, kind, found->info.inode);
	return 0;
}

int blob_scan(struct blob_store *store, enum blob_kind kind, unsigned fanout,
	      void (*found)(void *ctx, const struct blob_found *found), void *ctx, struct err *err)
{
	char name[3] = { 0 };
	struct dirent *entry;
	struct stat st;
	DIR *dir;
	int r;

	assert(fanout < 256);
	(void)print_byte((uint8_t)fanout, name);
	if (disk_fstatat(store->kind_fds[kind], name, &st, AT_SYMLINK_NOFOLLOW) == -ENOENT)
		return 0; /* no blob begins with this byte */
	dir = open_stream(store->kind_fds[kind], name, &r, err);
	if (!dir)
		return r;
	while ((entry = disk_readdir(dir, &r))) {
		struct blob_found one;
		int looked = scan_entry(store, kind, fanout, dirfd(dir), entry->d_name, &one);

		if (looked == 0)
			found(ctx, &one);
		if (looked < 0) {
			r = looked;
			break;
		}
	}
	disk_closedir(dir);
	return r < 0 ? err_errno(err, r, "reading the store's folder '%s/%s'", kind_names[kind], name) : 0;
}
