/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What plan.c (directories, the target, the crew) and plan_file.c (how one file comes to be) share, and
 * nobody else includes.
 */
#ifndef DIRCACHE_DAEMON_PLAN_INTERNAL_H
#define DIRCACHE_DAEMON_PLAN_INTERNAL_H

#include "daemon/plan.h"

/* One file to be made. */
struct plan_spot {
	int folder;       /* borrowed; O_PATH will do */
	const char *name; /* in the folder */
	const struct file_node *file;
};

/* What a file that cannot be made yet waits for. */
struct plan_need {
	struct digest digest;
	enum blob_kind kind;
	bool links_used_up;
};

/* What a worker made of one item, added to the plan's counts at the end of it. */
struct plan_tally {
	uint64_t linked, copied, reflinked, created, fallback, bytes;
};

enum { PLAN_PLACED = 0, PLAN_STALLED = 1, PLAN_UNLINKABLE = 2 };

/* The plan has failed; the first to say so is heard. Any thread. Return: r. */
int plan_fail(struct plan *plan, int r, const struct err *err);
/* The same, because of a system call. */
int plan_fail_errno(struct plan *plan, int r, const char *doing, const char *name);

/* Is this file to be a link to the store's inode, as far as is known now? */
bool plan_links(const struct plan *plan, const struct file_node *file);

/**
 * Link a file for which plan_links().
 *
 * Return: PLAN_PLACED, PLAN_STALLED with *need, PLAN_UNLINKABLE (no file of this plan can be linked), or a
 * negative errno that the plan has failed with.
 */
int plan_link(struct plan *plan, const struct plan_spot *spot, struct plan_need *need,
	      struct plan_tally *tally);

/* Make a private file. Return: as plan_link(), but never PLAN_UNLINKABLE. */
int plan_copy(struct plan *plan, const struct plan_spot *spot, struct plan_need *need,
	      struct plan_tally *tally);

/* plan_copy() in place of a link, for this reason; an error if the plan is to do without. */
int plan_fall_back(struct plan *plan, const struct plan_spot *spot, int why, struct plan_need *need,
		   struct plan_tally *tally);

/* Make a file in the way that it should be made, or can be. Return: as plan_copy(). */
int plan_place(struct plan *plan, const struct plan_spot *spot, struct plan_need *need,
	       struct plan_tally *tally);

#endif
