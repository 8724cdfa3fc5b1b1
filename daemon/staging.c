/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/staging.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/alloc.h"
#include "daemon/disk.h"
#include "daemon/rmtree.h"

#define PREFIX ".dircache-"

enum {
	PREFIX_SIZE = sizeof(PREFIX) - 1,
	RUN_DIGITS = 8, /* of the number drawn at start */
	RECORD_MAX = PATH_MAX + 256,
};

struct staging {
	int fd;
	char run[RUN_DIGITS + 1]; /* in the hidden names of this process */
};

/* What a record says. */
struct record {
	unsigned uid;
	uintmax_t device, inode;
	char hidden[STAGING_NAME_SIZE];
	char path[PATH_MAX];
};

static uint64_t draw(void)
{
	uint64_t number;
	ssize_t n = getrandom(&number, sizeof(number), 0);

	/* Without randomness the clock and an address will do: names must differ, and mkdir(2) says if not.
	 */
	return n == (ssize_t)sizeof(number) ? number : (uint64_t)clock() ^ (uintptr_t)&number;
}

struct staging *staging_open(int store_fd, struct err *err)
{
	AUTO(staging) staging = xcalloc(1, sizeof(*staging));
	int r = disk_mkdirat(store_fd, "staging", 0700);

	staging->fd = -1;
	if (r < 0 && r != -EEXIST) {
		err_errno(err, r, "making the folder 'staging' in the store");
		return NULL;
	}
	staging->fd = disk_openat(store_fd, "staging", O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	if (staging->fd < 0) {
		err_errno(err, staging->fd, "opening the folder 'staging' in the store");
		return NULL;
	}
	(void)snprintf(staging->run, sizeof(staging->run), "%08" PRIx32, (uint32_t)draw());
	return TAKE(staging);
}

void staging_free(struct staging *staging)
{
	if (!staging)
		return;
	disk_close(staging->fd);
	free(staging);
}

static int write_record(struct staging *staging, const char *hidden, const char *text, size_t len,
			struct err *err)
{
	AUTO_CLOSE int fd = disk_openat(staging->fd, hidden, O_WRONLY | O_CREAT | O_EXCL, 0600);
	int r = fd < 0 ? fd : disk_write_full(fd, text, len);

	if (fd >= 0 && r < 0)
		(void)disk_unlinkat(staging->fd, hidden, 0);
	return r < 0 ? err_errno(err, r, "writing the staging record '%s' in the store", hidden) : 0;
}

int staging_begin(struct staging *staging, int folder, char hidden[STAGING_NAME_SIZE], struct err *err)
{
	char path[PATH_MAX], text[RECORD_MAX];
	struct stat st;
	int r, len;

	if ((r = disk_fd_path(folder, path, sizeof(path))) < 0)
		return err_errno(err, r, "finding the path of the target's folder");
	if ((r = disk_fstat(folder, &st)) < 0)
		return err_errno(err, r, "looking at '%s'", path);
	(void)snprintf(hidden, STAGING_NAME_SIZE, PREFIX "%s%016" PRIx64, staging->run, draw());
	len = snprintf(text, sizeof(text), "dircache-staging 1\n%u\n%ju %ju\n%s\n%s", (unsigned)geteuid(),
		       (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, hidden, path);
	return write_record(staging, hidden, text, (size_t)len, err);
}

void staging_end(struct staging *staging, const char *hidden)
{
	(void)disk_unlinkat(staging->fd, hidden, 0);
}

static int is_hidden_name(const char *name)
{
	return strlen(name) == STAGING_NAME_SIZE - 1 && strncmp(name, PREFIX, PREFIX_SIZE) == 0 &&
	       strspn(name + PREFIX_SIZE, "0123456789abcdef") == STAGING_NAME_SIZE - 1 - PREFIX_SIZE;
}

/* Return: 0, or -EINVAL for what is no record (a crash can leave an empty one). */
static int parse(const char *text, struct record *record)
{
	int end = 0, n;

	if (sscanf(text, "dircache-staging 1\n%u\n%ju %ju\n%34s%n", &record->uid, &record->device,
		   &record->inode, record->hidden, &end) != 4)
		return -EINVAL;
	if (text[end] != '\n' || text[end + 1] != '/' || !is_hidden_name(record->hidden))
		return -EINVAL;
	n = snprintf(record->path, sizeof(record->path), "%s", text + end + 1);
	return n > 0 && (size_t)n < sizeof(record->path) ? 0 : -EINVAL;
}

static int read_record(struct staging *staging, const char *name, struct record *record)
{
	AUTO_CLOSE int fd = disk_openat(staging->fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	char text[RECORD_MAX + 1];
	ssize_t n = fd < 0 ? fd : disk_pread(fd, text, RECORD_MAX, 0);

	if (n < 0)
		return (int)n;
	text[n] = '\0';
	return strlen(text) == (size_t)n ? parse(text, record) : -EINVAL;
}

/* Return: 1 (deleted), 0 (nothing to delete any more), or a negative errno. */
static int sweep_record(const struct record *record, struct err *err)
{
	AUTO_CLOSE int folder = disk_openat(AT_FDCWD, record->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	struct stat st;
	int r = folder < 0 ? folder : disk_fstat(folder, &st);

	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0;
	if (r < 0)
		return err_errno(err, r, "opening '%s'", record->path);
	if (st.st_dev != record->device || st.st_ino != record->inode)
		return 0;
	if (disk_fstatat(folder, record->hidden, &st, AT_SYMLINK_NOFOLLOW) == -ENOENT)
		return 0;
	r = rmtree(folder, record->hidden, err);
	return r < 0 ? r : 1;
}

static int sweep_one(struct staging *staging, const char *name, size_t *n_deleted, struct err *err)
{
	struct record record;
	int r = 0;

	if (!is_hidden_name(name) || strncmp(name + PREFIX_SIZE, staging->run, RUN_DIGITS) == 0)
		return 0;
	if (read_record(staging, name, &record) == 0 && strcmp(record.hidden, name) == 0)
		r = sweep_record(&record, err);
	if (r < 0)
		return r;
	*n_deleted += (size_t)r;
	staging_end(staging, name);
	return 0;
}

int staging_sweep(struct staging *staging, size_t *n_deleted, struct err *err)
{
	int first = 0, r = 0;
	int fd = disk_openat(staging->fd, ".", O_RDONLY | O_DIRECTORY, 0);
	struct dirent *entry;
	DIR *dir;

	*n_deleted = 0;
	if (fd < 0)
		return err_errno(err, fd, "reading the folder 'staging' in the store");
	dir = disk_fdopendir(fd, &r);
	if (!dir)
		return err_errno(err, r, "reading the folder 'staging' in the store");
	while ((entry = disk_readdir(dir, &r))) {
		int swept = sweep_one(staging, entry->d_name, n_deleted, err);

		first = first ? first : swept;
	}
	disk_closedir(dir);
	return first ? first : r;
}
