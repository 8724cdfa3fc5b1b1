/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"
#include "daemon/rmtree.h"

void verify_name_add(struct verify *verify, enum verify_kind kind, char *path, char *expected, char *found)
{
	verify->names =
		xgrow(verify->names, verify->n_names, &verify->names_capacity, sizeof(*verify->names));
	verify->names[verify->n_names++] = (struct verify_name){ kind, path, expected, found };
}

static void name_fini(struct verify_name *name)
{
	free(name->path);
	free(name->expected);
	free(name->found);
}

void verify_names_free(struct verify *verify)
{
	while (verify->next_name < verify->n_names)
		name_fini(&verify->names[verify->next_name++]);
	free(verify->names);
}

/* ---- looking, on a worker ---- */

struct listing {
	struct verify *verify;
	enum blob_kind kind;
};

static void on_folder(void *ctx, const struct blob_name_found *found)
{
	const struct listing *listing = ctx;
	struct verify *verify = listing->verify;
	uid_t owner = blob_owner(verify->cache->store);
	const struct stat *st = found->st;
	char *path = xasprintf("%s/%s", blob_kind_name(listing->kind), found->name);

	if (!found->is_fanout)
		verify_name_add(verify, VERIFY_STRANGER, path, xstrdup("a folder of blobs"),
				xstrdup("another name"));
	else if (!S_ISDIR(st->st_mode))
		verify_name_add(verify, VERIFY_STRANGER, path, xstrdup("a folder of blobs"),
				xstrdup(verify_type_text(st->st_mode)));
	else if (st->st_uid != owner)
		verify_name_add(verify, VERIFY_OWNER, path, verify_owner_text(owner),
				verify_owner_text(st->st_uid));
	else if ((st->st_mode & 07777) != BLOB_FOLDER_MODE)
		verify_name_add(verify, VERIFY_MODE, path, verify_mode_text(BLOB_FOLDER_MODE),
				verify_mode_text(st->st_mode));
	else
		free(path);
}

static void list_folders(struct verify *verify)
{
	for (unsigned kind = 0; kind < BLOB_KINDS && verify->r == 0; kind++) {
		struct listing listing = { verify, kind };

		verify->r = blob_list(verify->cache->store, kind, BLOB_KIND_FOLDER, on_folder, &listing,
				      &verify->err);
	}
}

static void on_litter(void *ctx, const char *name)
{
	verify_name_add(ctx, VERIFY_LITTER, xasprintf("tmp/%s", name), xstrdup("nothing"),
			xstrdup("what an earlier process did not finish"));
}

static void on_record(void *ctx, const char *name)
{
	verify_name_add(ctx, VERIFY_LITTER, xasprintf("staging/%s", name), xstrdup("nothing"),
			xstrdup("records of an earlier process"));
}

static void list_litter(struct verify *verify)
{
	verify->r = blob_list_litter(verify->cache->store, on_litter, verify, &verify->err);
	if (verify->r == 0)
		verify->r = staging_left(verify->cache->staging, on_record, verify, &verify->err);
}

/* ---- mending, on a worker ---- */

static const struct verify_name *name_at_hand(const struct verify *verify)
{
	return &verify->names[verify->next_name];
}

/* Delete what a path below STORE stands for. */
static int delete (const struct verify *verify, const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *folder = xmemdupz(path, (size_t)(slash - path));
	AUTO_CLOSE int fd =
		disk_openat(verify->cache->store_fd, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);

	return fd < 0 ? err_errno(err, fd, "opening the store's folder '%s'", folder)
		      : rmtree(fd, slash + 1, err);
}

static int mend_folder(const struct verify *verify, const char *path)
{
	const char *name = strchr(path, '/') + 1;
	size_t len = strlen(blob_kind_name(BLOB_EXEC));
	bool is_exec = strncmp(path, blob_kind_name(BLOB_EXEC), len) == 0 && path[len] == '/';

	return blob_mend_folder(verify->cache->store, is_exec ? BLOB_EXEC : BLOB_PLAIN, name);
}

/* Records that tell of folders are followed; a folder that cannot be reached keeps them. */
static int sweep_record(const struct verify *verify, const char *path, struct err *err)
{
	struct stat st;
	size_t n_deleted;
	int r = staging_sweep(verify->cache->staging, &n_deleted, err);

	if (r < 0)
		return r;
	if (disk_fstatat(verify->cache->store_fd, path, &st, AT_SYMLINK_NOFOLLOW) == -ENOENT)
		return 0;
	return delete (verify, path, err); /* none of ours */
}

static void mend_name(struct verify *verify)
{
	const struct verify_name *name = name_at_hand(verify);

	if (name->kind == VERIFY_MODE)
		verify->r = mend_folder(verify, name->path);
	else if (name->kind == VERIFY_OWNER)
		verify->r = -EPERM;
	else if (strncmp(name->path, "staging/", 8) == 0)
		verify->r = sweep_record(verify, name->path, &verify->err);
	else
		verify->r = delete (verify, name->path, &verify->err);
	if (verify->r < 0)
		err_errno(&verify->err, verify->r, "mending '%s'", name->path);
}

/* A folder that is being made has its mode a moment later. */
static void look_at_folder(struct verify *verify)
{
	struct stat st;
	const char *path = name_at_hand(verify)->path;

	verify->r = disk_fstatat(verify->cache->store_fd, path, &st, AT_SYMLINK_NOFOLLOW);
	if (verify->r == 0 && (st.st_mode & 07777) != BLOB_FOLDER_MODE)
		verify->r = 1;
}

/* ---- on the loop ---- */

static void drop_name(struct verify *verify)
{
	name_fini(&verify->names[verify->next_name++]);
	if (verify->next_name == verify->n_names)
		verify->next_name = verify->n_names = 0;
}

static void name_mended(struct verify *verify)
{
	const char *done = verify->fault.kind == VERIFY_MODE ? "given its mode again" : "deleted";

	drop_name(verify);
	verify_fault_end(verify, verify->r == 0, verify->r < 0 ? verify->err.text : done);
}

static void report(struct verify *verify)
{
	const struct verify_name *name = name_at_hand(verify);

	verify_fault_set(verify, name->kind, NULL, xstrdup(name->path), xstrdup(name->expected),
			 xstrdup(name->found));
	if (verify->call->repair) {
		verify_submit(verify, mend_name, name_mended);
		return;
	}
	drop_name(verify);
	verify_fault_end(verify, false, NULL);
}

static void folder_looked_at(struct verify *verify)
{
	if (verify->r == 1) {
		report(verify);
		return;
	}
	drop_name(verify);
	verify_go_on(verify);
}

bool verify_report_name(struct verify *verify)
{
	if (verify->next_name == verify->n_names)
		return false;
	if (name_at_hand(verify)->kind == VERIFY_MODE)
		verify_submit(verify, look_at_folder, folder_looked_at);
	else
		report(verify);
	return true;
}

static void listed(struct verify *verify)
{
	verify->listed = true;
	(void)verify_failed(verify, verify->r);
	verify_go_on(verify);
}

static enum verify_next next(struct verify *verify, void (*list)(struct verify *verify))
{
	if (verify_report_name(verify))
		return VERIFY_BUSY;
	if (verify->listed)
		return VERIFY_OVER;
	verify_submit(verify, list, listed);
	return VERIFY_BUSY;
}

enum verify_next verify_folders_next(struct verify *verify)
{
	return next(verify, list_folders);
}

enum verify_next verify_litter_next(struct verify *verify)
{
	return next(verify, list_litter);
}
