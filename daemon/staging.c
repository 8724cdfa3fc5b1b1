/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/staging.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/disk.h"
#include "daemon/identity.h"
#include "daemon/rmtree.h"

#define PREFIX ".dircache-"
#define HEAD   "dircache-staging "

/* A hidden name: the prefix, whose process, which slot, and what nobody can guess. */
enum {
	PREFIX_SIZE = sizeof(PREFIX) - 1,
	RUN_DIGITS = 8, /* of the number drawn at start */
	SLOT_DIGITS = 6,
	RANDOM_DIGITS = 10,
	SLOTS_MAX = 1 << (4 * SLOT_DIGITS),
	SLOT_SIZE = 8192,
	RECORD_VERSION = 4,
	HEAD_SIZE = sizeof(HEAD) - 1 + 2, /* with the version, of one digit, and the end of the line */
	MADE_SIZE = 3 * 17 + 9,           /* of its line */
	GROUPS_MAX = 256,                 /* that are recorded */
	GROUPS_SIZE = GROUPS_MAX * (sizeof(" 4294967295") - 1),
	RECORD_MAX = PATH_MAX + GROUPS_SIZE + 512, /* with its NUL */
};

_Static_assert(RECORD_MAX < SLOT_SIZE, "a record fits into its slot");

struct staging {
	int fd;
	char run[RUN_DIGITS + 1]; /* the name of this process's file, and in its hidden names */
	char store[PATH_MAX];     /* its path when it was opened */

	pthread_mutex_t lock; /* held for moments: of the following */
	int records_fd;       /* that file, once there was a record */
	uint32_t n_slots;
	uint32_t *free; /* slots without a record */
	size_t n_free, free_capacity;
};

/* What a record says. */
struct record {
	int version; /* 2 is of a daemon that acted for nobody: it has neither group nor groups */
	struct rmtree_inode made;
	unsigned uid, gid;
	size_t n_groups;
	gid_t groups[GROUPS_MAX];
	uintmax_t device, inode;
	char hidden[STAGING_NAME_SIZE];
	char path[PATH_MAX];
};

static void lock(struct staging *staging)
{
	int r = pthread_mutex_lock(&staging->lock);

	assert(r == 0);
}

static void unlock(struct staging *staging)
{
	int r = pthread_mutex_unlock(&staging->lock);

	assert(r == 0);
}

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
	int r;

	staging->fd = staging->records_fd = -1;
	(void)pthread_mutex_init(&staging->lock, NULL);
	r = disk_fd_path(store_fd, staging->store, sizeof(staging->store));
	if (r < 0) {
		err_errno(err, r, "finding the path of the store");
		return NULL;
	}
	r = disk_mkdirat(store_fd, "staging", 0700);
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
	if (staging->records_fd >= 0 && staging->n_free == staging->n_slots)
		(void)disk_unlinkat(staging->fd, staging->run, 0);
	disk_close(staging->records_fd);
	disk_close(staging->fd);
	(void)pthread_mutex_destroy(&staging->lock);
	free(staging->free);
	free(staging);
}

/* ---- slots ---- */

/* Locked. */
static int open_records(struct staging *staging)
{
	const struct identity *client;

	if (staging->records_fd < 0) {
		client = identity_suspend();
		staging->records_fd = disk_openat(staging->fd, staging->run,
						  O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0600);
		identity_resume(client);
	}
	return staging->records_fd < 0 ? staging->records_fd : 0;
}

static int take_slot(struct staging *staging, uint32_t *slot)
{
	int r;

	lock(staging);
	r = open_records(staging);
	if (r == 0 && staging->n_free)
		*slot = staging->free[--staging->n_free];
	else if (r == 0 && staging->n_slots < SLOTS_MAX)
		*slot = staging->n_slots++;
	else if (r == 0)
		r = -EMFILE;
	unlock(staging);
	return r;
}

/* Without its first byte a record says nothing. */
static int clear_slot(int records_fd, uint32_t slot)
{
	return disk_pwrite_full(records_fd, "", 1, (off_t)slot * SLOT_SIZE);
}

static void give_slot(struct staging *staging, uint32_t slot)
{
	(void)clear_slot(staging->records_fd, slot); /* if not, it tells of a name that is gone: harmless */
	lock(staging);
	staging->free =
		xgrow(staging->free, staging->n_free, &staging->free_capacity, sizeof(*staging->free));
	staging->free[staging->n_free++] = slot;
	unlock(staging);
}

static uint32_t slot_of(const char *hidden)
{
	char digits[SLOT_DIGITS + 1] = { 0 };

	memcpy(digits, hidden + PREFIX_SIZE + RUN_DIGITS, SLOT_DIGITS);
	return (uint32_t)strtoul(digits, NULL, 16);
}

static int write_record(struct staging *staging, uint32_t slot, const char *text, size_t len, struct err *err)
{
	int r = disk_pwrite_full(staging->records_fd, text, len, (off_t)slot * SLOT_SIZE);

	if (r < 0)
		give_slot(staging, slot);
	return r < 0 ? err_errno(err, r, "writing a staging record in the store") : 0;
}

static uid_t acting_uid(void)
{
	const struct identity *client = identity_assumed();

	return client ? client->uid : geteuid();
}

/* UID GID GROUP...: as whom this worker acts, and a sweep will. */
static void print_owner(uid_t uid, char owner[GROUPS_SIZE + 64])
{
	const struct identity *client = identity_assumed();
	gid_t gid = client ? client->gid : getegid();
	size_t n = client ? client->n_groups : 0;
	char *end = owner + snprintf(owner, 64, "%u %u", (unsigned)uid, (unsigned)gid);

	for (size_t i = 0; i < n && i < GROUPS_MAX; i++)
		end += snprintf(end, sizeof(" 4294967295"), " %u", (unsigned)client->groups[i]);
}

/* By its path, which a record needs anyway. */
static int check_path(const struct staging *staging, const char *path, struct err *err)
{
	size_t len = strlen(staging->store);

	if (strncmp(path, staging->store, len) == 0 && (path[len] == '/' || !path[len]))
		return err_set(err, ERR_FAILED_PRECONDITION, "the target's folder '%s' is in the store",
			       path);
	return 0;
}

static int find_path(int folder, char path[PATH_MAX], struct err *err)
{
	int r = disk_fd_path(folder, path, PATH_MAX);

	return r < 0 ? err_errno(err, r, "finding the path of the target's folder") : 0;
}

int staging_check_folder(const struct staging *staging, int folder, struct err *err)
{
	char path[PATH_MAX];
	int r = find_path(folder, path, err);

	return r < 0 ? r : check_path(staging, path, err);
}

/* Can somebody else rename there what is this user's? Root can anywhere; an ACL that lets others write shows
 * in the bits of the group. */
static bool is_shared(const struct stat *folder, uid_t uid)
{
	if (folder->st_uid != uid && folder->st_uid != 0)
		return true;
	return folder->st_mode & (S_IWGRP | S_IWOTH) && !(folder->st_mode & S_ISVTX);
}

static void print_made(const struct rmtree_inode *inode, char line[MADE_SIZE + 1])
{
	(void)snprintf(line, MADE_SIZE + 1, "%016" PRIx64 " %016" PRIx64 " %016" PRIx64 " %08" PRIx32 "\n",
		       inode->device, inode->number, (uint64_t)inode->born_sec, inode->born_nsec);
}

int staging_begin(struct staging *staging, int folder, const struct rmtree_inode *inode,
		  char hidden[STAGING_NAME_SIZE], struct err *err)
{
	static const struct rmtree_inode unknown = { 0 };
	char path[PATH_MAX], made[MADE_SIZE + 1], owner[GROUPS_SIZE + 64], text[RECORD_MAX];
	uid_t uid = acting_uid();
	struct stat st;
	uint32_t slot = 0; /* gcc -O1 thinks that it might be used without */
	int r, len;

	if ((r = find_path(folder, path, err)) < 0 || (r = check_path(staging, path, err)) < 0)
		return r;
	if ((r = disk_fstat(folder, &st)) < 0)
		return err_errno(err, r, "looking at '%s'", path);
	if ((r = take_slot(staging, &slot)) < 0)
		return err_errno(err, r, "making a staging record in the store");
	(void)snprintf(hidden, STAGING_NAME_SIZE, PREFIX "%s%06" PRIx32 "%010" PRIx64, staging->run, slot,
		       draw() >> (64 - 4 * RANDOM_DIGITS));
	print_owner(uid, owner);
	print_made(inode ? inode : &unknown, made);
	len = snprintf(text, sizeof(text), HEAD "%d\n%s%s\n%ju %ju\n%s\n%s", RECORD_VERSION, made, owner,
		       (uintmax_t)st.st_dev, (uintmax_t)st.st_ino, hidden, path);
	r = write_record(staging, slot, text, (size_t)len + 1, err);
	return r < 0 ? r : is_shared(&st, uid) ? STAGING_SHARED : 0;
}

int staging_made(struct staging *staging, const char *hidden, const struct rmtree_inode *inode,
		 struct err *err)
{
	off_t offset = (off_t)slot_of(hidden) * SLOT_SIZE + HEAD_SIZE;
	char line[MADE_SIZE + 1];
	int r;

	print_made(inode, line);
	r = disk_pwrite_full(staging->records_fd, line, MADE_SIZE, offset);
	return r < 0 ? err_errno(err, r, "writing a staging record in the store") : 0;
}

void staging_end(struct staging *staging, const char *hidden)
{
	give_slot(staging, slot_of(hidden));
}

/* ---- sweeping ---- */

static int is_hidden_name(const char *name)
{
	return strlen(name) == STAGING_NAME_SIZE - 1 && strncmp(name, PREFIX, PREFIX_SIZE) == 0 &&
	       strspn(name + PREFIX_SIZE, "0123456789abcdef") == STAGING_NAME_SIZE - 1 - PREFIX_SIZE;
}

/* One number and the blank or the end of the line behind it. Return: what follows, or NULL. */
static const char *parse_id(const char *text, unsigned *id, bool *is_last)
{
	char *end;
	unsigned long number = strtoul(text, &end, 10);

	if (*text < '0' || *text > '9' || number >= UINT32_MAX || (*end != ' ' && *end != '\n'))
		return NULL;
	*id = (unsigned)number;
	*is_last = *end == '\n';
	return end + 1;
}

/* Return: the next line, or NULL. */
static const char *parse_made(const char *text, struct record *record)
{
	struct rmtree_inode *made = &record->made;
	int end = 0, n;

	*made = (struct rmtree_inode){ 0 };
	if (record->version < 4)
		return text;
	n = sscanf(text, "%16" SCNx64 " %16" SCNx64 " %16" SCNx64 " %8" SCNx32 "%n", &made->device,
		   &made->number, (uint64_t *)&made->born_sec, &made->born_nsec, &end);
	return n == 4 && end == MADE_SIZE - 1 && text[end] == '\n' ? text + MADE_SIZE : NULL;
}

/* UID GID GROUP..., of version 2 UID. Return: the next line, or NULL. */
static const char *parse_owner(const char *text, struct record *record)
{
	bool is_last = true, is_alone = record->version == 2;

	record->gid = 0;
	record->n_groups = 0;
	text = parse_id(text, &record->uid, &is_last);
	if (!text || is_last != is_alone)
		return NULL;
	if (is_alone)
		return text;
	text = parse_id(text, &record->gid, &is_last);
	while (text && !is_last && record->n_groups < GROUPS_MAX)
		text = parse_id(text, &record->groups[record->n_groups++], &is_last);
	return is_last ? text : NULL;
}

/* Return: 0, or -EINVAL for what is no record (a crash can leave an empty one). */
static int parse(const char *text, struct record *record)
{
	int end = 0, n;

	if (strncmp(text, HEAD, sizeof(HEAD) - 1) != 0)
		return -EINVAL;
	record->version = text[HEAD_SIZE - 2] - '0';
	if (record->version < 2 || record->version > RECORD_VERSION || text[HEAD_SIZE - 1] != '\n')
		return -EINVAL;
	text = parse_made(text + HEAD_SIZE, record);
	text = text ? parse_owner(text, record) : NULL;
	if (!text ||
	    sscanf(text, "%ju %ju\n%34s%n", &record->device, &record->inode, record->hidden, &end) != 3)
		return -EINVAL;
	if (text[end] != '\n' || text[end + 1] != '/' || !is_hidden_name(record->hidden))
		return -EINVAL;
	n = snprintf(record->path, sizeof(record->path), "%s", text + end + 1);
	return n > 0 && (size_t)n < sizeof(record->path) ? 0 : -EINVAL;
}

/* Return: 1 (deleted), 0 (nothing to delete any more), or a negative errno. */
static int sweep_record(const struct record *record, struct err *err)
{
	AUTO_CLOSE int folder = disk_openat(AT_FDCWD, record->path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
	struct stat st, hidden;
	int r = folder < 0 ? folder : disk_fstat(folder, &st);

	if (r == -ENOENT || r == -ENOTDIR || r == -ELOOP)
		return 0;
	if (r < 0)
		return err_errno(err, r, "opening '%s'", record->path);
	if (st.st_dev != record->device || st.st_ino != record->inode)
		return 0;
	if (disk_fstatat(folder, record->hidden, &hidden, AT_SYMLINK_NOFOLLOW) == -ENOENT)
		return 0;
	if (record->made.number || is_shared(&st, acting_uid()))
		r = rmtree_known(folder, record->hidden, &record->made, err);
	else
		r = rmtree(folder, record->hidden, err);
	if (r != -ESTALE)
		return r < 0 ? r : 1;
	err_clear(err);
	log_warning("'%s' in '%s' is another directory than what a killed daemon made there: it is left",
		    record->hidden, record->path);
	return 0;
}

/* As the client for whom the name was made, who alone may be let to delete it. */
static int sweep_as_owner(const struct record *record, struct err *err)
{
	struct identity *client = identity_new(record->uid, record->gid, record->groups, record->n_groups);
	int r = 0;

	if (record->uid != geteuid() && (record->version == 2 || !identity_can_act()))
		r = err_errno(err, -EPERM, "deleting '%s' in '%s' as user %u", record->hidden, record->path,
			      record->uid);
	if (r == 0)
		r = identity_assume(identity_acting_for(client), err);
	if (r == 0)
		r = sweep_record(record, err);
	identity_drop();
	identity_put(client);
	return r;
}

/* The file of an earlier process, which has hidden names with its number only. */
static int sweep_slot(int records_fd, uint32_t slot, const char *run, size_t *n_deleted, struct err *err)
{
	char text[RECORD_MAX + 1] = { 0 };
	ssize_t n = disk_pread(records_fd, text, RECORD_MAX, (off_t)slot * SLOT_SIZE);
	struct record record;
	int r = 0;

	if (n < 0)
		return err_errno(err, (int)n, "reading a staging record in the store");
	if (!*text)
		return 0;
	if (parse(text, &record) == 0 && strncmp(record.hidden + PREFIX_SIZE, run, RUN_DIGITS) == 0)
		r = sweep_as_owner(&record, err);
	if (r < 0)
		return r;
	*n_deleted += (size_t)r;
	r = clear_slot(records_fd, slot);
	return r < 0 ? err_errno(err, r, "clearing a staging record in the store") : 0;
}

static int sweep_file(struct staging *staging, const char *run, size_t *n_deleted, struct err *err)
{
	AUTO_CLOSE int fd = disk_openat(staging->fd, run, O_RDWR | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stat st;
	int first = 0, r = fd < 0 ? fd : disk_fstat(fd, &st);

	if (r < 0)
		return err_errno(err, r, "opening the staging records '%s' in the store", run);
	for (uint32_t slot = 0; slot < SLOTS_MAX && (off_t)slot * SLOT_SIZE < st.st_size; slot++) {
		r = sweep_slot(fd, slot, run, n_deleted, err);
		first = first ? first : r;
	}
	if (first == 0 && (r = disk_unlinkat(staging->fd, run, 0)) < 0)
		first = err_errno(err, r, "deleting the staging records '%s' in the store", run);
	return first;
}

static bool is_of_earlier_process(const struct staging *staging, const char *name)
{
	return strlen(name) == RUN_DIGITS && strspn(name, "0123456789abcdef") == RUN_DIGITS &&
	       strcmp(name, staging->run) != 0;
}

/* A stream over STORE/staging, or NULL with *r and err. */
static DIR *open_stream(struct staging *staging, int *r, struct err *err)
{
	int fd = disk_openat(staging->fd, ".", O_RDONLY | O_DIRECTORY, 0);
	DIR *dir = NULL;

	*r = fd;
	if (fd >= 0)
		dir = disk_fdopendir(fd, r);
	if (!dir)
		(void)err_errno(err, *r, "reading the folder 'staging' in the store");
	return dir;
}

int staging_sweep(struct staging *staging, size_t *n_deleted, struct err *err)
{
	int first = 0, r;
	struct dirent *entry;
	DIR *dir = open_stream(staging, &r, err);

	*n_deleted = 0;
	if (!dir)
		return r;
	while ((entry = disk_readdir(dir, &r))) {
		int swept = 0;

		if (is_of_earlier_process(staging, entry->d_name))
			swept = sweep_file(staging, entry->d_name, n_deleted, err);
		first = first ? first : swept;
	}
	disk_closedir(dir);
	if (r < 0)
		(void)err_errno(err, r, "reading the folder 'staging' in the store");
	return first ? first : r;
}

int staging_left(struct staging *staging, void (*found)(void *ctx, const char *name), void *ctx,
		 struct err *err)
{
	struct dirent *entry;
	int r;
	DIR *dir = open_stream(staging, &r, err);

	if (!dir)
		return r;
	while ((entry = disk_readdir(dir, &r)))
		if (strcmp(entry->d_name, staging->run) != 0)
			found(ctx, entry->d_name);
	disk_closedir(dir);
	return r < 0 ? err_errno(err, r, "reading the folder 'staging' in the store") : 0;
}
