/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/remove.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/disk.h"
#include "daemon/place.h"
#include "daemon/rmtree.h"
#include "daemon/target.h"

struct remove_params {
	struct place_params place;
};

static const struct wire_field fields[] = { PLACE_FIELDS(struct remove_params, place) };

/* First hide, and answer; then delete. */
struct removal {
	struct job hide, delete;

	/* In. */
	struct staging *staging;
	struct mount *mount;
	int store_fd;
	struct identity *identity; /* a reference: it outlives the request */
	struct user *user;         /* the same */
	struct target target;      /* folder, name */
	char hidden[STAGING_NAME_SIZE];
	struct rmtree_inode inode; /* of what was looked at, and is to be removed */

	/* Out. */
	int r;
	struct err err;

	struct pool_queue *queue;
	struct request *request; /* until it is answered */
};

static void removal_free(struct removal *removal)
{
	pool_queue_free(removal->queue);
	identity_put(removal->identity);
	user_put(removal->user);
	free(removal);
}

/* ---- on a worker ---- */

/* Is a directory the other one, or somewhere above it? Return: 1, 0, or a negative errno. */
static int is_above(const struct rmtree_inode *above, int below)
{
	AUTO_CLOSE int fd = disk_openat(below, ".", O_PATH | O_DIRECTORY, 0);
	struct stat here, last = { 0 };

	for (;;) {
		int r = fd < 0 ? fd : disk_fstat(fd, &here);
		int up;

		if (r < 0)
			return r;
		if (here.st_dev == above->device && here.st_ino == above->number)
			return 1;
		if (here.st_dev == last.st_dev && here.st_ino == last.st_ino)
			return 0; /* `..` of the root is the root */
		last = here;
		up = disk_openat(fd, "..", O_PATH | O_DIRECTORY, 0);
		disk_close(fd);
		fd = up;
	}
}

/* Is it the store, above it, or inside it? Return: 1, 0, or a negative errno. */
static int touches_store(const struct removal *removal)
{
	AUTO_CLOSE int folder = disk_openat(removal->target.folder, ".", O_PATH | O_DIRECTORY, 0);
	const struct identity *client;
	struct rmtree_inode store;
	struct stat st;
	int r = folder;

	if (r >= 0) {
		client = identity_suspend(); /* above the store the daemon may go, and not every client */
		r = is_above(&removal->inode, removal->store_fd);
		identity_resume(client);
	}
	if (r == 0)
		r = disk_fstat(removal->store_fd, &st);
	if (r != 0)
		return r;
	store = (struct rmtree_inode){ .device = st.st_dev, .number = st.st_ino };
	(void)mount_enter(removal->mount,
			  &folder); /* above a bind mount of what is inside, there is no store */
	r = is_above(&store, folder);
	/* Who cannot go up all the way has met no folder of the store: those that he could write let him
	 * through. */
	return r == -EACCES && identity_assumed() ? 0 : r;
}

static int refuse_mount_point(struct removal *removal)
{
	return err_set(&removal->err, ERR_FAILED_PRECONDITION, "removing '%s': it is a mount point",
		       removal->target.name);
}

/* What is not there is a failed precondition: `not_found` is for digests. */
static int fail(struct removal *removal, int r)
{
	err_errno(&removal->err, r, "removing '%s'", removal->target.name);
	removal->err.code = r == -ENOENT ? ERR_FAILED_PRECONDITION : removal->err.code;
	return r;
}

/* May it be removed, under whatever name it is now? Notes which it is. */
static int check(struct removal *removal, const char *now)
{
	const char *name = removal->target.name;
	struct statx st;
	int r = disk_statx(removal->target.folder, now, AT_SYMLINK_NOFOLLOW, RMTREE_LOOK | STATX_TYPE, &st);

	if (r < 0)
		return fail(removal, r);
	removal->inode = rmtree_inode_of(&st);
	if (!S_ISDIR(st.stx_mode) && !S_ISREG(st.stx_mode))
		return err_set(&removal->err, ERR_FAILED_PRECONDITION,
			       "removing '%s': it is neither a directory nor a regular file", name);
	/* What the client has mounted in a namespace of its own is one to it alone: rename(2) would not mind.
	 */
	if (st.stx_attributes & STATX_ATTR_MOUNT_ROOT)
		return refuse_mount_point(removal);
	if (S_ISDIR(st.stx_mode) && identity_assumed() &&
	    (r = disk_may_write(removal->target.folder, now)) < 0)
		return err_errno(&removal->err, r, "removing '%s': what is in it could not be deleted", name);
	r = touches_store(removal);
	if (r > 0)
		return err_set(&removal->err, ERR_FAILED_PRECONDITION,
			       "removing '%s': that is the store, or above or inside it", name);
	return r < 0 ? fail(removal, r) : 0;
}

/*
 * Between the look and the rename another request may have removed the target and made a new one. That one
 * goes then, if it may: the target is what has its name when it is renamed. Who else renames things in the
 * folder could as well have put it there before the look.
 */
static int check_hidden(struct removal *removal)
{
	struct rmtree_inode now;
	struct statx st;
	int folder = removal->target.folder;
	int r = disk_statx(folder, removal->hidden, AT_SYMLINK_NOFOLLOW, RMTREE_LOOK, &st);

	if (r < 0)
		return 0; /* what is wrong with it the deletion meets, too */
	now = rmtree_inode_of(&st);
	if (rmtree_same_inode(&now, &removal->inode))
		return 0;
	r = check(removal, removal->hidden);
	if (r == 0)
		r = staging_made(removal->staging, removal->hidden, &removal->inode, &removal->err);
	if (r < 0 &&
	    disk_renameat2(folder, removal->hidden, folder, removal->target.name, RENAME_NOREPLACE) < 0)
		log_warning("%s: it stays as '%s'", removal->err.text, removal->hidden);
	return r;
}

static int act_as_client(struct removal *removal)
{
	return identity_assume(identity_acting_for(removal->identity), &removal->err);
}

static int rename_target(struct removal *removal)
{
	int folder = removal->target.folder;
	int r = disk_renameat2(folder, removal->target.name, folder, removal->hidden, 0);

	return r == -EBUSY ? refuse_mount_point(removal) : r < 0 ? fail(removal, r) : 0;
}

static int hide(struct removal *removal)
{
	int r = act_as_client(removal);

	if (r < 0 || (r = check(removal, removal->target.name)) < 0 ||
	    (r = staging_begin(removal->staging, removal->target.folder, &removal->inode, removal->hidden,
			       &removal->err)) < 0)
		return r;
	r = rename_target(removal);
	if (r == 0)
		r = check_hidden(removal);
	if (r < 0)
		staging_end(removal->staging, removal->hidden);
	return r;
}

static enum job_next hide_run(struct job *job)
{
	struct removal *removal = CONTAINER_OF(job, struct removal, hide);

	removal->r = hide(removal);
	if (removal->r < 0)
		disk_close(removal->target.folder);
	return JOB_DONE;
}

static enum job_next delete_run(struct job *job)
{
	struct removal *removal = CONTAINER_OF(job, struct removal, delete);

	removal->r = act_as_client(removal);
	if (removal->r == 0)
		removal->r =
			rmtree_known(removal->target.folder, removal->hidden, &removal->inode, &removal->err);
	if (removal->r == 0 || removal->r == -ESTALE)
		staging_end(removal->staging, removal->hidden);
	disk_close(removal->target.folder);
	return JOB_DONE;
}

/* ---- on the loop ---- */

static void delete_done(struct job *job)
{
	struct removal *removal = CONTAINER_OF(job, struct removal, delete);

	if (removal->r < 0)
		log_warning("removing '%s', now '%s': %s%s", removal->target.name, removal->hidden,
			    removal->err.text, removal->r == -ESTALE ? "" : "; the next start tries again");
	user_settle_fds(removal->user, 1);
	removal_free(removal);
}

static void hide_done(struct job *job)
{
	struct removal *removal = CONTAINER_OF(job, struct removal, hide);

	if (removal->r < 0) {
		request_fail(removal->request, &removal->err);
		removal_free(removal);
		return;
	}
	user_promise_fd(removal->user); /* the folder's, which is the request's no longer */
	request_ok(removal->request);
	removal->delete = (struct job){ .run = delete_run, .done = delete_done };
	pool_submit(removal->queue, &removal->delete);
}

static void on_place(struct request *request, int r, const struct place *place, const struct err *err)
{
	struct cache *cache = request->cache;
	struct removal *removal;

	if (r < 0) {
		request_fail(request, err);
		return;
	}
	removal = xcalloc(1, sizeof(*removal));
	removal->staging = cache->staging;
	removal->mount = cache->mount;
	removal->store_fd = cache->store_fd;
	removal->identity = identity_get(request->identity);
	removal->user = user_ref(request->user);
	removal->request = request;
	removal->queue = request_queue_new(request);
	if (target_init(&removal->target, cache->staging, place->folder, place->name.data, place->name.len,
			&removal->err) < 0) {
		int folder = place->folder;

		user_close_fds(request->user, &folder, 1);
		request_fail(request, &removal->err);
		removal_free(removal);
		return;
	}
	removal->hide = (struct job){ .run = hide_run, .done = hide_done };
	pool_submit(removal->queue, &removal->hide);
}

void remove_start(struct request *request)
{
	struct remove_params params = { 0 };
	struct err err = { 0 };

	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "remove", &err) < 0)
		request_fail(request, &err);
	else
		place_get(request, &params.place, on_place);
}
