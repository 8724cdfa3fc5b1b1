/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags: local names for digests. A tag pins what it names.
 *
 * Kept in the index, and once more in STORE/tags, one small file that is replaced atomically: what is left of
 * them when the index is lost. One line each, ascending by name:
 *
 *     hash/size UID NAME
 *
 * and behind them `sum hash/size`, of those lines. A file without it is one of an earlier version.
 *
 * A name is 1 to 255 of A-Z a-z 0-9 . _ - /, begins with a letter or digit, and is no digest.
 *
 * A tag belongs to the user who made it. Others may use it, but only its owner and the daemon's
 * administrators (identity.h) move or delete it; moving it does not change the owner. Loop only.
 */
#ifndef DIRCACHE_DAEMON_TAGS_H
#define DIRCACHE_DAEMON_TAGS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/auto.h"
#include "common/digest.h"
#include "common/err.h"
#include "daemon/index.h"
#include "daemon/pool.h"

enum { TAG_NAME_MAX = 255, TAGS_MAX = 10000 /* names, so that a list of them fits into a message */ };

struct tags;

/* All borrowed for good. max_of_user: tags that one user may have */
struct tags *tags_new(struct pool *pool, struct index *index, int store_fd, uint64_t max_of_user);
void tags_free(struct tags *tags);
DEFINE_AUTO(tags);

/* Return: 0, or -EINVAL with err. */
int tag_check_name(const char *name, size_t len, struct err *err);

/* Take in what the index had. Return: false when the name cannot be one. */
bool tags_load(struct tags *tags, const struct index_tag *tag);

/* Forget all. */
void tags_clear(struct tags *tags);

/**
 * Take in what STORE/tags has, the index being lost; what makes no sense there is passed over. Blocks on
 * disk: on the index's lane, while it loads.
 *
 * Return: 0, or a negative errno when there is a file that cannot be read.
 */
int tags_read_back(struct tags *tags, struct err *err);

/* Is there anything of this digest? */
typedef bool tags_is_here(void *ctx, const struct digest *digest);

/**
 * Give tags that name nothing what STORE/tags has for them, if that is there: a damaged row of the index can
 * make sense. Blocks on disk where there is such a tag: on the loop, at a start.
 *
 * Return: 0, or a negative errno when there is a file that cannot be read.
 */
int tags_restore(struct tags *tags, tags_is_here *is_here, void *ctx, size_t *n_restored, struct err *err);

/* What the index says of a tag and what the file does: NULL where one does not have it. */
typedef void tags_differ(void *ctx, const struct index_tag *index, const struct index_tag *file);

/**
 * Settle the tags that the index had with STORE/tags, after a clean stop: then both were the same. If they
 * are not, and the file's sum is right, it is the index that was damaged, in a way that makes sense, and what
 * the file says counts. Blocks on disk: on the index's lane, while it loads.
 *
 * @rows    what is to be submitted then is added
 * @differ  called for each tag that was another
 */
void tags_settle(struct tags *tags, struct index_batch *rows, tags_differ *differ, void *ctx);

/* Could the file not be written since? Then a stop is not clean. */
bool tags_file_is_behind(const struct tags *tags);

/* Give all of them to the index, which does not have them. */
void tags_keep(struct tags *tags);

/* What a tag names, or NULL. The pointer lives until the loop runs on. */
const struct digest *tags_find(const struct tags *tags, const char *name, size_t len);

/* Called when a change is in the index and the file; r < 0 with err when it could not be made. */
typedef void tags_done(void *ctx, int r, const struct err *err);

/**
 * May this user set this name: as tag_check_name(), may he move it if it is there (ERR_PERMISSION_DENIED),
 * and is there room if it is not (ERR_RESOURCE_EXHAUSTED)?
 */
int tags_check_set(const struct tags *tags, const char *name, size_t len, uid_t uid, struct err *err);

/* Is the name there (ERR_NOT_FOUND), and may this user delete it (ERR_PERMISSION_DENIED)? */
int tags_check_delete(const struct tags *tags, const char *name, size_t len, uid_t uid, struct err *err);

/**
 * Name a digest, or give a name to another one, for the user tag->uid. tags_check_set() was asked, and is
 * once more: somebody may have taken the name since. The tag is copied.
 */
void tags_set(struct tags *tags, const struct index_tag *tag, tags_done *done, void *ctx);

/* Take a name away. Return: 0 (done will be called), or -ENOENT. */
int tags_delete(struct tags *tags, const char *name, size_t len, tags_done *done, void *ctx);

enum { TAGS_DIFFERED = 1 };

/**
 * Compare STORE/tags with the tags.
 *
 * @mend  write it anew where it is another
 * @done  with r: 0, TAGS_DIFFERED, or a negative errno with err (it cannot be read, or not be written)
 */
void tags_compare_file(struct tags *tags, bool mend, tags_done *done, void *ctx);

/* Is this digest named by a tag? */
bool tags_pin(const struct tags *tags, const struct digest *digest);

size_t tags_n(const struct tags *tags);

/* Does this user see the tags of that one: is he the same, or an administrator? */
bool tags_sees(uid_t uid, uid_t owner);

struct index_tag tags_at(const struct tags *tags, size_t i); /* ascending by name; borrowed */

/* Where the names behind this one begin ("": all): for who goes through them while they change. */
size_t tags_after(const struct tags *tags, const char *name);

/*
 * A view: the tags that a user sees, as they are at one moment, ascending by name. What changes later does
 * not change it, and any thread may read and free it: listing thousands of names is not for one turn of the
 * loop.
 */
struct tags_view {
	size_t n;
	struct tag *items[]; /* private */
};
struct tags_view *tags_view(const struct tags *tags, uid_t uid);
void tags_view_free(struct tags_view *view);
DEFINE_AUTO(tags_view);

struct index_tag tags_view_at(const struct tags_view *view, size_t i); /* borrowed of the view */

#endif
