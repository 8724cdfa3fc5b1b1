/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What decoding and encoding share: the three lists of a Directory seen as one, and the rules.
 */
#ifndef DIRCACHE_COMMON_DIRECTORY_INTERNAL_H
#define DIRCACHE_COMMON_DIRECTORY_INTERNAL_H

#include "common/directory.h"

enum {
	DIRECTORY_NODE_MAX = 64 << 10, /* bytes of one encoded node; what is more is all properties */

	/* Field numbers of the message Directory. */
	DIRECTORY_FILES = 1,
	DIRECTORY_DIRECTORIES = 2,
	DIRECTORY_SYMLINKS = 3,
	DIRECTORY_PROPERTIES = 5,
};

/* A list of nodes whose first member is their name. */
struct node_list {
	const char *kind; /* for messages: "file", ... */
	const void *nodes;
	size_t n, size;
};

static inline struct node_list directory_files(const struct directory *d)
{
	return (struct node_list){ "file", d->files, d->n_files, sizeof(struct file_node) };
}

static inline struct node_list directory_directories(const struct directory *d)
{
	return (struct node_list){ "directory", d->directories, d->n_directories,
				   sizeof(struct directory_node) };
}

static inline struct node_list directory_symlinks(const struct directory *d)
{
	return (struct node_list){ "symlink", d->symlinks, d->n_symlinks, sizeof(struct symlink_node) };
}

static inline const char *node_name(const struct node_list *list, size_t i)
{
	return *(const char *const *)(const void *)((const char *)list->nodes + i * list->size);
}

/**
 * Check everything that a struct directory can say wrong.
 *
 * Return: 0, or -EINVAL with the entry and the reason in err.
 */
int directory_check(const struct directory *directory, struct err *err);

#endif
