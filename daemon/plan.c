/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"

enum { TRIES_MAX = 3 }; /* flights for one file, before its inode is given up */

/* A directory being filled; open as long as something in it is to be made. */
struct folder {
	atomic_int refs;
	int fd; /* O_PATH */
};

/* A stalled item's wait for what it needs. */
struct wait {
	struct flight_waiter waiter;
	struct plan *plan;
};

/* One directory to be made, or the rest of one; with node NULL the single file of the plan. */
struct item {
	struct crew_item crew_item;
	const struct node *node;
	struct folder *parent; /* NULL for what is made in the target's own folder */
	const char *name;      /* in the parent; the node above, or the target, keeps it */
	struct folder *self;   /* once it is made */
	size_t next_file;
	unsigned tries;    /* flights for that file */
	bool out_of_links; /* no flight brought an inode of it that takes a link here */
	struct plan_need need;
	struct wait wait;
};

/* ---- failing ---- */

int plan_fail(struct plan *plan, int r, const struct err *err)
{
	if (!atomic_flag_test_and_set(&plan->failing)) {
		plan->r = r;
		plan->err = *err;
	}
	atomic_store(&plan->stop, true);
	return r;
}

int plan_fail_errno(struct plan *plan, int r, const char *doing, const char *name)
{
	struct err err = { 0 };

	err_errno(&err, r, "%s '%s' at the target '%s'", doing, name, plan->target.name);
	return plan_fail(plan, r, &err);
}

/* ---- folders and items ---- */

static struct folder *folder_get(struct folder *folder)
{
	atomic_fetch_add_explicit(&folder->refs, 1, memory_order_relaxed);
	return folder;
}

static void folder_put(struct folder *folder)
{
	if (folder && atomic_fetch_sub_explicit(&folder->refs, 1, memory_order_acq_rel) == 1) {
		disk_close(folder->fd);
		free(folder);
	}
}

static struct folder *folder_new(int fd)
{
	struct folder *folder = xmalloc(sizeof(*folder));

	atomic_init(&folder->refs, 1);
	folder->fd = fd;
	return folder;
}

static struct item *item_new(const struct node *node, struct folder *parent, const char *name)
{
	struct item *item = xcalloc(1, sizeof(*item));
	size_t n_here = node ? node->directory->n_files + node->directory->n_symlinks : 1;

	item->crew_item.weight = n_here + 4; /* a directory costs about four links */
	item->node = node;
	item->parent = parent;
	item->name = name;
	return item;
}

static void item_free(struct item *item)
{
	folder_put(item->parent);
	folder_put(item->self);
	free(item);
}

/* ---- files ---- */

/* Return: as plan_place(). */
static int place(struct plan *plan, struct item *item, const struct plan_spot *spot, struct plan_tally *tally)
{
	int r = item->out_of_links ? plan_fall_back(plan, spot, EMLINK, &item->need, tally)
				   : plan_place(plan, spot, &item->need, tally);

	if (r == PLAN_PLACED) {
		tally->bytes += spot->file->digest.size;
		item->tries = 0;
		item->out_of_links = false;
	}
	return r;
}

static void count(struct plan *plan, const struct plan_tally *tally)
{
	struct plan_counts *c = &plan->counts;

	atomic_fetch_add_explicit(&c->linked, tally->linked, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->copied, tally->copied, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->reflinked, tally->reflinked, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->created, tally->created, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->fallback, tally->fallback, memory_order_relaxed);
	atomic_fetch_add_explicit(&c->bytes, tally->bytes, memory_order_relaxed);
}

/* ---- directories ---- */

/* The bits that mkdir(2) was not let to set: a default ACL masks them, a setgid folder adds one. */
static int set_mode(int parent, const char *name)
{
	AUTO_CLOSE int fd = disk_openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);

	return fd < 0 ? fd : disk_fchmod(fd, 0755);
}

static int make_folder_quietly(const struct plan *plan, int parent, const char *name)
{
	int r = disk_mkdirat(parent, name, 0755);

	return r == 0 && plan->set_modes ? set_mode(parent, name) : r;
}

static int make_folder(struct plan *plan, int parent, const char *name)
{
	int r = make_folder_quietly(plan, parent, name);

	return r < 0 ? plan_fail_errno(plan, r, "making the directory", name) : 0;
}

static int open_folder(struct plan *plan, struct item *item)
{
	int parent = item->parent ? item->parent->fd : plan->target.folder;
	int fd = disk_openat(parent, item->name, O_PATH | O_DIRECTORY | O_NOFOLLOW, 0);

	if (fd < 0)
		return plan_fail_errno(plan, fd, "opening the directory", item->name);
	item->self = folder_new(fd);
	folder_put(TAKE(item->parent));
	return 0;
}

static int place_files(struct plan *plan, struct item *item)
{
	const struct directory *d = item->node->directory;
	struct plan_tally tally = { 0 };
	int r = PLAN_PLACED;

	while (item->next_file < d->n_files && r == PLAN_PLACED &&
	       !atomic_load_explicit(&plan->stop, memory_order_relaxed)) {
		const struct file_node *file = &d->files[item->next_file];
		const struct plan_spot spot = { item->self->fd, file->name, file };

		r = place(plan, item, &spot, &tally);
		item->next_file += r == PLAN_PLACED;
	}
	identity_link(false);
	count(plan, &tally);
	return r;
}

static int make_symlinks(struct plan *plan, const struct item *item)
{
	const struct directory *d = item->node->directory;

	for (size_t i = 0; i < d->n_symlinks; i++) {
		int r = disk_symlinkat(d->symlinks[i].target, item->self->fd, d->symlinks[i].name);

		if (r < 0)
			return plan_fail_errno(plan, r, "making the symlink", d->symlinks[i].name);
	}
	atomic_fetch_add_explicit(&plan->counts.symlinks, d->n_symlinks, memory_order_relaxed);
	return 0;
}

/* All names in a directory are made by one worker: two in the same one wait for its lock more than they work.
 */
static int make_folders(struct plan *plan, const struct item *item)
{
	const struct node *node = item->node;

	for (size_t i = 0; i < node->directory->n_directories; i++) {
		const char *name = node->directory->directories[i].name;
		struct item *child;
		int r = make_folder(plan, item->self->fd, name);

		if (r < 0)
			return r;
		child = item_new(node->children[i], folder_get(item->self), name);
		crew_add(&plan->crew, &child->crew_item);
	}
	atomic_fetch_add_explicit(&plan->counts.directories, node->directory->n_directories,
				  memory_order_relaxed);
	return 0;
}

/* Its directories first, so that other workers have something to do. */
static int begin_directory(struct plan *plan, struct item *item)
{
	int r = open_folder(plan, item);

	return r < 0 ? r : make_folders(plan, item);
}

static int make_directory(struct plan *plan, struct item *item)
{
	int r = item->self ? 0 : begin_directory(plan, item);

	if (r == 0)
		r = place_files(plan, item);
	if (r == 0)
		r = make_symlinks(plan, item);
	return r;
}

/* ---- the target ---- */

/* The look comes first: what is mounted at the target is seen by the client's own mount alone. */
static int enter_target(struct plan *plan)
{
	struct err err = { 0 };
	int r = target_check(&plan->target, &err);

	if (r < 0)
		return plan_fail(plan, r, &err);
	plan->place = mount_enter(plan->mount, &plan->target.folder);
	return 0;
}

/* The folder beside the target. Whoever made an empty one at the target may not know that this is needed. */
static int make_root(struct plan *plan, const char *name)
{
	struct err err = { 0 };
	int r = make_folder_quietly(plan, plan->target.folder, name);

	if (r == 0)
		return 0;
	if (r == -EACCES && target_replaces(&plan->target))
		err_set(&err, ERR_FAILED_PRECONDITION,
			"the target '%s' is an empty directory in a folder that the client may not write: it "
			"cannot be replaced",
			plan->target.name);
	else
		err_errno(&err, r, "making a directory beside the target '%s'", plan->target.name);
	return plan_fail(plan, r, &err);
}

static int begin_tree(struct plan *plan, struct item *root)
{
	struct err err = { 0 };
	mode_t mode;
	int r;

	if ((r = enter_target(plan)) < 0)
		return r;
	if ((r = target_begin(&plan->target, &err)) < 0)
		return plan_fail(plan, r, &err);
	root->name = plan->target.hidden;
	if ((r = make_root(plan, root->name)) < 0 || (r = open_folder(plan, root)) < 0)
		return r;
	atomic_fetch_add_explicit(&plan->counts.directories, 1, memory_order_relaxed);
	if ((r = target_made(&plan->target, root->self->fd, &mode, &err)) < 0)
		return plan_fail(plan, r, &err);
	plan->set_modes = (mode & 07777) != 0755;
	if (plan->set_modes && (r = set_mode(root->self->fd, ".")) < 0)
		return plan_fail_errno(plan, r, "setting the mode of", root->name);
	return make_folders(plan, root);
}

/* Return: as plan_link(). */
static int link_single(struct plan *plan, struct item *item)
{
	const struct plan_spot spot = { plan->target.folder, plan->target.name, plan->file };
	struct plan_tally tally = { 0 };
	int r = plan_link(plan, &spot, &item->need, &tally);

	identity_link(false);
	plan->placed = r == PLAN_PLACED;
	if (plan->placed)
		tally.bytes = plan->file->digest.size;
	count(plan, &tally);
	return r;
}

/* Made under the hidden name, to be renamed. */
static int copy_single(struct plan *plan, struct item *item)
{
	const struct plan_spot spot = { plan->target.folder, plan->target.hidden, plan->file };
	struct plan_tally tally = { 0 };
	struct err err = { 0 };
	int r = plan->target.begun ? 0 : target_begin(&plan->target, &err);

	if (r < 0)
		return plan_fail(plan, r, &err);
	r = place(plan, item, &spot, &tally);
	count(plan, &tally);
	return r;
}

/*
 * In a folder with the sticky bit only a file's owner may delete or rename it, and a link would be the
 * daemon's: not for its own user, though, nor for root.
 */
static int look_for_sticky(struct plan *plan)
{
	struct stat st;
	int r;

	if (!plan->client || plan->client->uid == 0)
		return 0;
	if ((r = disk_fstat(plan->target.folder, &st)) < 0)
		return plan_fail_errno(plan, r, "looking at the folder of", plan->target.name);
	if (st.st_mode & S_ISVTX) {
		plan->sticky = true;
		atomic_store(&plan->unlinkable, EPERM);
	}
	return 0;
}

/* A single file is linked straight to its name; a private one is made under the hidden name and renamed. */
static int make_file(struct plan *plan, struct item *item)
{
	int r = plan->target.begun ? 0 : enter_target(plan);

	if (r == 0 && !plan->target.begun)
		r = look_for_sticky(plan);
	if (r < 0)
		return r;
	r = PLAN_UNLINKABLE;
	if (plan_links(plan, plan->file) && !item->out_of_links)
		r = link_single(plan, item);
	return r == PLAN_UNLINKABLE ? copy_single(plan, item) : r;
}

/* ---- the crew ---- */

static int act_as_client(struct plan *plan)
{
	struct err err = { 0 };
	int r = identity_assume(plan->client, &err);

	return r < 0 ? plan_fail(plan, r, &err) : 0;
}

static void plan_work(struct crew *crew, struct crew_item *crew_item)
{
	struct plan *plan = CONTAINER_OF(crew, struct plan, crew);
	struct item *item = CONTAINER_OF(crew_item, struct item, crew_item);
	bool is_root = item->node == plan->root && !item->parent && !item->self;
	int r = 0;

	if (!atomic_load_explicit(&plan->stop, memory_order_relaxed) && act_as_client(plan) == 0) {
		if (!plan->root)
			r = make_file(plan, item);
		else if (!is_root || (r = begin_tree(plan, item)) == 0)
			r = make_directory(plan, item);
	}
	if (r == PLAN_STALLED)
		crew_stall(crew, crew_item);
	else
		item_free(item);
}

static void plan_finish(struct crew *crew)
{
	struct plan *plan = CONTAINER_OF(crew, struct plan, crew);
	struct err err = { 0 };
	int r;

	if (act_as_client(plan) == 0 && !atomic_load(&plan->stop) && plan->target.begun) {
		r = target_commit(&plan->target, &err);
		plan->placed = r == 0;
		if (r < 0)
			plan_fail(plan, r, &err);
	}
	if (identity_assume(plan->client, &err) == 0)
		target_abort(&plan->target); /* what cannot be taken back now, the next start does */
	disk_close(plan->target.folder);
}

static void plan_done(struct crew *crew)
{
	struct plan *plan = CONTAINER_OF(crew, struct plan, crew);

	plan->fallback_errno = atomic_load(&plan->fallback_why);
	if (plan->placed) { /* a cancel that came meanwhile changes nothing */
		plan->r = 0;
		err_clear(&plan->err);
	}
	/* A folder that vanished is no digest that the cache lacks: not_found is for those. */
	if (plan->r < 0 && plan->err.code == ERR_NOT_FOUND && !plan->n_missing)
		plan->err.code = ERR_FAILED_PRECONDITION;
	plan->done(plan);
}

/* ---- stalled items, on the loop ---- */

static void add_missing(struct plan *plan, const struct digest *digest)
{
	if (plan->n_missing < PLAN_MISSING_MAX)
		plan->missing[plan->n_missing++] = *digest;
}

/* What stalled it. */
static const char *name_wanted(const struct plan *plan, const struct item *item)
{
	return item->node ? item->node->directory->files[item->next_file].name : plan->target.name;
}

static void on_landed(struct flight_waiter *waiter, int r, const struct err *err)
{
	struct wait *wait = CONTAINER_OF(waiter, struct wait, waiter);
	struct item *item = CONTAINER_OF(wait, struct item, wait);
	struct plan *plan = wait->plan;
	struct err missing = { 0 };

	if (r == BLOB_MISSING) {
		add_missing(plan, &item->need.digest);
		err_set(&missing, ERR_NOT_FOUND, "blob %s is no longer in the store: '%s' needs it",
			DIGEST_TEXT(&item->need.digest), name_wanted(plan, item));
		plan_fail(plan, -ENOENT, &missing);
	} else if (r < 0) {
		plan_fail(plan, r, err);
	}
	crew_resume(&plan->crew, &item->crew_item); /* a plan that failed drops it */
}

/* A file for which flight after flight was in vain. */
static void give_up(struct plan *plan, struct item *item)
{
	struct err err = { 0 };

	if (item->need.links_used_up) { /* btrfs can be out of links in one folder, for any inode */
		item->out_of_links = true;
		return;
	}
	err_set(&err, ERR_INTERNAL, "blob %s cannot be linked: its inode changes again and again",
		DIGEST_TEXT(&item->need.digest));
	plan_fail(plan, -EIO, &err);
}

static void plan_stalled(struct crew *crew, struct crew_item *crew_item)
{
	struct plan *plan = CONTAINER_OF(crew, struct plan, crew);
	struct item *item = CONTAINER_OF(crew_item, struct item, crew_item);
	struct plan_need *need = &item->need;

	if (atomic_load(&plan->stop)) {
		crew_resume(crew, crew_item);
		return;
	}
	if (++item->tries > TRIES_MAX) {
		give_up(plan, item);
		crew_resume(crew, crew_item);
		return;
	}
	item->wait.plan = plan;
	item->wait.waiter.landed = on_landed;
	flight_join(plan->flights, &need->digest, need->kind, need->links_used_up, &item->wait.waiter);
}

void plan_start(struct plan *plan)
{
	struct item *first = item_new(plan->root, NULL, plan->target.name);

	plan->target.is_file = !plan->root;
	plan->crew.work = plan_work;
	plan->crew.finish = plan_finish;
	plan->crew.done = plan_done;
	plan->crew.stalled = plan_stalled;
	plan->crew.queue = plan->queue;
	plan->crew.max = plan->max_workers < CREW_MAX ? plan->max_workers : CREW_MAX;
	crew_start(&plan->crew, &first->crew_item);
}

void plan_cancel(struct plan *plan)
{
	struct err err = { 0 };

	err_set(&err, ERR_CANCELLED, "materializing '%s' was cancelled", plan->target.name);
	plan_fail(plan, -ECANCELED, &err);
}
