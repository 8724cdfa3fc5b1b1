/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: making a tree at a target: the hot path.
 *
 * Workers walk the nodes, a directory each: openat of it, mkdirat for the directories in it, which become
 * further items of the crew; then one fstatat and one linkat for a file, directory-relative, and symlinks
 * verbatim. So all names in a directory are made by one worker. Nothing is allocated for a file. All of it
 * lies under a hidden name, which the last worker renames to the target's, or deletes again after a failure.
 *
 * A file whose inode is missing, changed or used up stalls its directory there: the loop has it obtained by a
 * flight, and the directory goes on where it was. Where the two places cannot share inodes at all (another
 * file system), files are reflinked instead, or else copied, and the result says why.
 *
 * All of it is done as the client (identity.h): directories and private files belong to it, and where it may
 * not write nothing is made. Linking alone takes a right that it lacks, and that is there for the links only.
 *
 * Made by the loop, which owns it before plan_start() and after done().
 */
#ifndef DIRCACHE_DAEMON_PLAN_H
#define DIRCACHE_DAEMON_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/directory.h"
#include "common/err.h"
#include "daemon/blob.h"
#include "daemon/crew.h"
#include "daemon/flight.h"
#include "daemon/identity.h"
#include "daemon/mount.h"
#include "daemon/node.h"
#include "daemon/target.h"

/* What was made. Workers add as they go; the loop may read at any time, for progress. */
struct plan_counts {
	atomic_uint_fast64_t linked, copied, reflinked, created, fallback;
	atomic_uint_fast64_t directories, symlinks, bytes;
};

enum { PLAN_MISSING_MAX = 100 };

/* How files come to be. Where it cannot be so, they come to be in the next way, and count as fallbacks. */
enum plan_mode {
	PLAN_LINK,    /* names of the store's inodes */
	PLAN_REFLINK, /* inodes of their own that share the bytes on disk */
	PLAN_COPY,    /* with bytes of their own */
};

struct plan {
	/* In. Borrowed, and the same until done(). */
	struct blob_store *store;
	struct flights *flights;
	struct pool_queue *queue;
	size_t max_workers;
	struct mount *mount;           /* the store's */
	const struct identity *client; /* as whom workers make it; NULL: as the daemon */
	struct target target;          /* its folder is taken over: the last worker closes it */
	const struct node *root;       /* a resolved tree, */
	const struct file_node *file;  /* or a single file, when root is NULL */
	enum plan_mode mode;
	bool writable;                   /* no links: each file is private, and its owner may write it */
	bool require_link;               /* fail rather than fall back */
	void (*done)(struct plan *plan); /* on the loop */
	void *ctx;                       /* the owner's */

	/* Out, once done() is called. */
	int r; /* 0, or a negative errno with err and the missing digests */
	struct err err;
	size_t n_missing;
	struct digest missing[PLAN_MISSING_MAX];
	int fallback_errno;     /* why files came to be in another way than asked; 0 when none did */
	enum mount_place place; /* of the target's folder */
	struct plan_counts counts;

	/* Private. */
	atomic_bool stop;         /* failed or cancelled: make nothing more */
	atomic_int unlinkable;    /* errno: no file of this plan can be linked */
	atomic_int unreflinkable; /* errno: ... nor share its bytes */
	atomic_int fallback_why;  /* errno: of the first fallback */
	atomic_flag failing;      /* the first to set it writes r and err */
	bool placed;              /* it is at its target: too late to fail */
	bool sticky;              /* the folder of a single file that is therefore no link */
	bool set_modes;           /* the folder has a default ACL or a setgid bit: mkdir(2) is not enough */
	struct crew crew;
};

/* A zeroed plan whose in-part is set. */
void plan_start(struct plan *plan);

/* Stop soon and delete what was made; done() follows with -ECANCELED, or 0 if it was just finished. */
void plan_cancel(struct plan *plan);

/* fallback_errno and place in words. */
const char *plan_fallback(const struct plan *plan);

#endif
