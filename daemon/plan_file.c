/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/plan_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "daemon/disk.h"

/* ---- what a file shall be ---- */

bool plan_links(const struct plan *plan, const struct file_node *file)
{
	return plan->mode == PLAN_LINK && !plan->writable && !file->properties &&
	       !digest_is_empty(&file->digest) &&
	       !atomic_load_explicit(&plan->unlinkable, memory_order_relaxed);
}

/* Of a private file: what a link would show, or its properties; of a writable one that its owner may. */
static mode_t mode_of(const struct plan *plan, const struct file_node *file)
{
	mode_t mode = file->executable ? 0555 : 0444;

	if (file->properties && file->properties->has_unix_mode)
		mode = file->properties->unix_mode & 0777;
	return plan->writable ? mode | 0200 : mode;
}

static struct plan_need need_of(const struct file_node *file, bool links_used_up)
{
	return (struct plan_need){ .digest = file->digest,
				   .kind = file->executable ? BLOB_EXEC : BLOB_PLAIN,
				   .links_used_up = links_used_up };
}

/* The first reason is the one that is told. */
static void note_fallback(struct plan *plan, int why, struct plan_tally *tally)
{
	int none = 0;

	(void)atomic_compare_exchange_strong(&plan->fallback_why, &none, why);
	tally->fallback++;
}

/* ---- private files ---- */

static int set_times(struct plan *plan, const struct plan_spot *spot)
{
	const struct node_properties *properties = spot->file->properties;
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, blob_mtime(plan->store) };
	int r;

	if (properties && properties->has_mtime)
		times[1] = (struct timespec){ properties->mtime_sec, properties->mtime_nsec };
	r = disk_utimensat(spot->folder, spot->name, times);
	return r < 0 ? plan_fail_errno(plan, r, "setting the times of", spot->name) : 0;
}

/* A fresh inode for each empty file: a shared one, once written through, would make all others wrong. */
static int create_empty(struct plan *plan, const struct plan_spot *spot, struct plan_tally *tally)
{
	mode_t mode = mode_of(plan, spot->file);
	AUTO_CLOSE int fd =
		disk_openat(spot->folder, spot->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, mode);
	bool is_usual = plan->root && !plan->set_modes && !spot->file->properties; /* no ACL masks its mode */
	int r = fd < 0 || is_usual ? fd : disk_fchmod(fd, mode);

	if (r < 0)
		return plan_fail_errno(plan, r, "creating", spot->name);
	tally->created++;
	return set_times(plan, spot);
}

int plan_copy(struct plan *plan, const struct plan_spot *spot, struct plan_need *need,
	      struct plan_tally *tally)
{
	const struct file_node *file = spot->file;
	int why = atomic_load_explicit(&plan->unreflinkable, memory_order_relaxed);
	struct blob_copy copy = { .mode = mode_of(plan, file),
				  .reflink = plan->mode != PLAN_COPY && !why,
				  .stop = &plan->stop };
	struct err err = { 0 };
	int r = blob_copy(plan->store, &file->digest, spot->folder, spot->name, &copy, &err);

	if (r > 0) {
		*need = need_of(file, false);
		return PLAN_STALLED;
	}
	if (r < 0)
		return plan_fail(plan, r, &err);
	if (copy.why_not) /* do not try with every file what failed with one */
		atomic_store_explicit(&plan->unreflinkable, why = copy.why_not, memory_order_relaxed);
	tally->copied += why || !copy.reflink;
	tally->reflinked += copy.reflink && !why;
	if (plan->mode == PLAN_REFLINK && why)
		note_fallback(plan, why, tally);
	return file->properties && file->properties->has_mtime ? set_times(plan, spot) : 0;
}

/* ---- links ---- */

static const char *explain(const struct plan *plan, int why)
{
	if (plan->sticky)
		return "the folder is sticky, so that its user could not delete a link to the daemon's file";
	if (why == EXDEV && plan->place == MOUNT_OTHER)
		return "the folder is on another mount of the store's file system, and cannot be opened on "
		       "the store's own";
	return strerrordesc_np(why);
}

const char *plan_fallback(const struct plan *plan)
{
	return explain(plan, plan->fallback_errno);
}

int plan_fall_back(struct plan *plan, const struct plan_spot *spot, int why, struct plan_need *need,
		   struct plan_tally *tally)
{
	struct err err = { 0 };
	int r;

	identity_link(false);
	if (plan->require_link) {
		err_set(&err, ERR_FAILED_PRECONDITION,
			"the target '%s' cannot share inodes with the store, and copies were not wanted: %s",
			plan->target.name, explain(plan, why));
		return plan_fail(plan, -why, &err);
	}
	r = plan_copy(plan, spot, need, tally);
	if (r == PLAN_PLACED)
		note_fallback(plan, why, tally);
	return r;
}

int plan_link(struct plan *plan, const struct plan_spot *spot, struct plan_need *need,
	      struct plan_tally *tally)
{
	const struct file_node *file = spot->file;
	struct err err = { 0 };
	int why = 0, r;

	identity_link(true);
	r = blob_link(plan->store, &file->digest, file->executable ? BLOB_EXEC : BLOB_PLAIN, spot->folder,
		      spot->name, &why, &err);

	switch (r) {
	case 0:
		tally->linked++;
		return PLAN_PLACED;
	case BLOB_UNLINKABLE:
		atomic_store_explicit(&plan->unlinkable, why, memory_order_relaxed);
		return PLAN_UNLINKABLE;
	case BLOB_MISSING:
	case BLOB_CHANGED:
	case BLOB_LINKS_USED_UP:
		*need = need_of(file, r == BLOB_LINKS_USED_UP);
		return PLAN_STALLED;
	default:
		return plan_fail(plan, r, &err);
	}
}

int plan_place(struct plan *plan, const struct plan_spot *spot, struct plan_need *need,
	       struct plan_tally *tally)
{
	int r = PLAN_UNLINKABLE;

	if (plan_links(plan, spot->file))
		r = plan_link(plan, spot, need, tally);
	if (r != PLAN_UNLINKABLE)
		return r;
	/* What follows sets modes and times, and that is for the owner: by now the name may be another
	 * file's. */
	identity_link(false);
	if (digest_is_empty(&spot->file->digest))
		return create_empty(plan, spot, tally);
	if (plan->mode != PLAN_LINK || plan->writable || spot->file->properties)
		return plan_copy(plan, spot, need, tally);
	return plan_fall_back(plan, spot, atomic_load_explicit(&plan->unlinkable, memory_order_relaxed), need,
			      tally);
}
