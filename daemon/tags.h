/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tags: local names for digests. A tag pins what it names.
 *
 * Kept in the index, and once more in STORE/tags, one small file that is replaced atomically: what is left of
 * them when the index is lost. One line each, ascending by name:
 *
 *     hash/size UID NAME
 *
 * A name is 1 to 255 of A-Z a-z 0-9 . _ - /, begins with a letter or digit, and is no digest. Loop only.
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

struct tags *tags_new(struct pool *pool, struct index *index, int store_fd); /* all borrowed for good */
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

/* Give all of them to the index, which does not have them. */
void tags_keep(struct tags *tags);

/* What a tag names, or NULL. The pointer lives until the loop runs on. */
const struct digest *tags_find(const struct tags *tags, const char *name, size_t len);

/* Called when a change is in the index and the file; r < 0 with err when it could not be made. */
typedef void tags_done(void *ctx, int r, const struct err *err);

/* May this name be set: as tag_check_name(), and is there room (ERR_RESOURCE_EXHAUSTED)? */
int tags_check_new(const struct tags *tags, const char *name, size_t len, struct err *err);

/* Name a digest, or give a name to another one. The name was checked. The tag is copied. */
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
struct index_tag tags_at(const struct tags *tags, size_t i); /* ascending by name; borrowed */

#endif
