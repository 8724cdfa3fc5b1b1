/* SPDX-License-Identifier: Apache-2.0 */
/* What tags.c (the table, the index), tags_file.c (STORE/tags) and tags_owner.c (whose they are) share, and
 * nobody else includes. */
#ifndef DIRCACHE_DAEMON_TAGS_INTERNAL_H
#define DIRCACHE_DAEMON_TAGS_INTERNAL_H

#include <stdatomic.h>

#include "daemon/map.h"
#include "daemon/tags.h"

/* It never changes: a name that is moved has a new one. */
struct tag {
	atomic_uint refs; /* the table's, and one of each view */
	uid_t uid;
	struct digest digest;
	char name[];
};

struct tags {
	struct map pins;
	struct pool_queue *queue;
	struct index *index;
	int store_fd;
	struct tag **items; /* ascending by name */
	size_t n, capacity;
	uint64_t max_of_user;
	struct list pending;   /* changes that are not in the index yet, the first first */
	struct list committed; /* changes that are in the index and not in the file */
	struct list comparisons;
	bool saving;         /* or comparing: somebody is at the file */
	bool file_is_behind; /* it could not be written */
};

/* A change on its way: first the index, then here, then the file. What the index refuses never was. */
struct change {
	struct list link; /* pending, committed, or being saved */
	struct tags *tags;
	struct index_tag tag;
	bool is_deletion;
	tags_done *done;
	void *ctx;
	char name[]; /* the tag's */
};

/* Where a name is, or would go. */
size_t tags_position(const struct tags *tags, const char *name, size_t len, bool *found);

/* Whose a name is when what is on its way to the index has come there. Return: is it anybody's? */
bool tags_find_owner(const struct tags *tags, const char *name, size_t len, uid_t *uid);

/* Take in a tag, or what it names now. */
void tags_put(struct tags *tags, const struct index_tag *tag);

/* Forget one, if it is there. */
void tags_drop(struct tags *tags, const char *name);

/* Tell who asked for a change what came of it, and forget it. */
void tags_end_change(struct change *change, int r, const struct err *err);

/* Changes are committed, or somebody wants to compare: get at the file, if nobody is there. */
void tags_attend_to_file(struct tags *tags);

#endif
