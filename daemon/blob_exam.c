/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/blob_exam.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/blob_internal.h"
#include "daemon/disk.h"

/* ---- one file ---- */

/* What is wrong with it before its bytes are read. */
static enum blob_flaw flaw_of(const struct blob_exam *exam)
{
	const struct blob_store *store = exam->writer->store;
	const struct stat *st = &exam->st;

	if (!S_ISREG(st->st_mode))
		return BLOB_IS_NO_FILE;
	if ((st->st_mode & 07777) != blob_mode(exam->kind))
		return BLOB_HAS_OTHER_MODE;
	if (st->st_uid != store->uid)
		return BLOB_HAS_OTHER_OWNER;
	return blob_is_published(store, exam->kind, st) ? BLOB_FINE : BLOB_HAS_OTHER_TIME;
}

/* Not for want of descriptors or memory: what is on the disk is to blame. */
static bool is_disk_to_blame(int r)
{
	return r < 0 && r != -EMFILE && r != -ENFILE && r != -ENOMEM;
}

int blob_exam_begin(struct blob_exam *exam, bool claim, struct err *err)
{
	struct blob_store *store = exam->writer->store;
	int r;

	exam->fd = -1;
	exam->why = 0;
	exam->found = (struct digest){ 0 };
	if (claim)
		blob_claim(exam->writer, &exam->digest);
	r = blob_stat_name(store, &exam->digest, exam->kind, &exam->st);
	if (r == 0 && S_ISREG(exam->st.st_mode)) {
		r = exam->fd = blob_open_name(store, &exam->digest, exam->kind);
		if (r >= 0)
			r = disk_fstat(exam->fd, &exam->st); /* it may be another one by now */
	}
	if (blob_is_nowhere(r))
		return BLOB_MISSING;
	if (r < 0 && !is_disk_to_blame(r)) {
		blob_exam_end(exam);
		return err_errno(err, r, "looking at blob %s", DIGEST_TEXT(&exam->digest));
	}
	exam->why = r < 0 ? -r : 0;
	exam->flaw = exam->why ? BLOB_IS_UNREADABLE : flaw_of(exam);
	hasher_reset(exam->hasher);
	return 0;
}

static bool end_step(struct blob_exam *exam)
{
	struct digest found;

	hasher_finish(exam->hasher, &found);
	memcpy(exam->found.hash, found.hash, sizeof(found.hash));
	if (exam->why)
		exam->flaw = BLOB_IS_UNREADABLE;
	else if (memcmp(found.hash, exam->digest.hash, sizeof(found.hash)) != 0)
		exam->flaw = BLOB_HAS_OTHER_BYTES;
	return false;
}

bool blob_exam_step(struct blob_exam *exam)
{
	struct blob_writer *writer = exam->writer;
	ssize_t n;

	if (exam->flaw == BLOB_IS_NO_FILE)
		return false;
	if (exam->why)
		return end_step(exam);
	n = disk_pread(exam->fd, writer->buffer, BLOB_BUFFER_SIZE, (off_t)exam->found.size);
	if (n < 0)
		exam->why = (int)-n;
	if (n <= 0)
		return end_step(exam);
	hasher_update(exam->hasher, writer->buffer, (size_t)n);
	exam->found.size += (uint64_t)n;
	/* One that has grown is another one, and might have no end. */
	return exam->found.size <= (uint64_t)exam->st.st_size || end_step(exam);
}

void blob_exam_end(struct blob_exam *exam)
{
	disk_close(exam->fd);
	exam->fd = -1;
}

/* ---- what things should be ---- */

uid_t blob_owner(const struct blob_store *store)
{
	return store->uid;
}

mode_t blob_kind_mode(enum blob_kind kind)
{
	return blob_mode(kind);
}

void blob_print_path(const struct digest *digest, enum blob_kind kind, char path[BLOB_PATH_SIZE])
{
	struct blob_name name;

	blob_print_name(digest->hash, &name);
	(void)snprintf(path, BLOB_PATH_SIZE, "%s/%s", blob_kind_folder(kind), name.text);
}

const char *blob_kind_name(enum blob_kind kind)
{
	return blob_kind_folder(kind);
}

/* ---- folders ---- */

static bool is_fanout_name(const char *name)
{
	return strlen(name) == 2 && strspn(name, "0123456789abcdef") == 2;
}

/* Return: 0; -ENOENT when it is gone by now. */
static int list_entry(int dirfd, const char *name, unsigned folder, struct blob_name_found *found,
		      struct digest *digest, struct stat *st)
{
	*found = (struct blob_name_found){ .name = name };
	if (folder == BLOB_KIND_FOLDER) {
		found->is_fanout = is_fanout_name(name);
		found->st = st;
		return disk_fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW);
	}
	if (digest_parse_hash(name, strlen(name), digest->hash) == 0 && digest->hash[0] == folder)
		found->hash = digest->hash;
	return 0;
}

int blob_list(struct blob_store *store, enum blob_kind kind, unsigned folder,
	      void (*found)(void *ctx, const struct blob_name_found *found), void *ctx, struct err *err)
{
	char path[3] = ".";
	struct dirent *entry;
	DIR *dir = NULL;
	int fd, r;

	if (folder != BLOB_KIND_FOLDER)
		(void)snprintf(path, sizeof(path), "%02x", folder);
	r = fd = disk_openat(store->kind_fds[kind], path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0;
	if (r >= 0)
		dir = disk_fdopendir(fd, &r);
	while (dir && (entry = disk_readdir(dir, &r))) {
		struct blob_name_found one;
		struct digest digest;
		struct stat st;

		r = list_entry(dirfd(dir), entry->d_name, folder, &one, &digest, &st);
		if (r == 0)
			found(ctx, &one);
		else if (r != -ENOENT)
			break;
	}
	disk_closedir(dir);
	return r < 0 ? err_errno(err, r, "reading the store's folder '%s/%s'", blob_kind_folder(kind), path)
		     : 0;
}

int blob_mend_folder(struct blob_store *store, enum blob_kind kind, const char *name)
{
	/* Not open for reading, which is what its mode may forbid. */
	AUTO_CLOSE int fd = disk_openat(store->kind_fds[kind], name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);

	return fd < 0 ? fd : disk_chmod_handle(fd, BLOB_FOLDER_MODE);
}

int blob_list_litter(struct blob_store *store, void (*found)(void *ctx, const char *name), void *ctx,
		     struct err *err)
{
	int r, fd = disk_openat(store->tmp_fd, ".", O_RDONLY | O_DIRECTORY, 0);
	char ours[BLOB_TEMPORARY_SIZE];
	struct dirent *entry;
	DIR *dir = NULL;

	(void)snprintf(ours, sizeof(ours), "%016" PRIx64 ".", store->run);
	r = fd;
	if (fd >= 0)
		dir = disk_fdopendir(fd, &r);
	while (dir && (entry = disk_readdir(dir, &r)))
		if (strncmp(entry->d_name, ours, strlen(ours)) != 0)
			found(ctx, entry->d_name);
	disk_closedir(dir);
	return r < 0 ? err_errno(err, r, "reading the store's folder 'tmp'") : 0;
}
