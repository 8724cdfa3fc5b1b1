/* SPDX-License-Identifier: Apache-2.0 */
#include "common/directory.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/directory_internal.h"

/* The range of google.protobuf.Timestamp: the years 1 to 9999. */
static const int64_t mtime_min = -62135596800, mtime_max = 253402300799;

static_assert(offsetof(struct file_node, name) == 0, "see struct node_list");
static_assert(offsetof(struct directory_node, name) == 0, "see struct node_list");
static_assert(offsetof(struct symlink_node, name) == 0, "see struct node_list");

void directory_free(struct directory *directory)
{
	free(directory);
}

bool directory_name_is_valid(const char *name, size_t len)
{
	if (len == 0 || len > DIRECTORY_NAME_MAX || memchr(name, '/', len) || memchr(name, '\0', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

/* ---- finding ---- */

static const void *find_node(const struct node_list *list, const char *name, size_t len)
{
	size_t low = 0, high = list->n;

	if (!directory_name_is_valid(name, len))
		return NULL;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		const char *at = node_name(list, middle);
		int order = strncmp(at, name, len);

		if (order == 0 && at[len] == '\0')
			return (const char *)list->nodes + middle * list->size;
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

const struct file_node *directory_find_file(const struct directory *d, const char *name, size_t len)
{
	struct node_list list = directory_files(d);

	return find_node(&list, name, len);
}

const struct directory_node *directory_find_directory(const struct directory *d, const char *name, size_t len)
{
	struct node_list list = directory_directories(d);

	return find_node(&list, name, len);
}

const struct symlink_node *directory_find_symlink(const struct directory *d, const char *name, size_t len)
{
	struct node_list list = directory_symlinks(d);

	return find_node(&list, name, len);
}

/* ---- checking ---- */

static int invalid(struct err *err, const char *kind, const char *name, const char *reason)
{
	return err_set(err, ERR_INVALID_ARGUMENT, "Directory: %s '%s': %s", kind, name, reason);
}

static int check_list(const struct node_list *list, struct err *err)
{
	const char *previous = "";

	for (size_t i = 0; i < list->n; i++) {
		const char *name = node_name(list, i);
		int order = strcmp(previous, name); /* the empty name is before all that are valid */

		if (!directory_name_is_valid(name, strlen(name)))
			return invalid(err, list->kind, name,
				       "a name is 1 to 255 bytes without '/', and not '.' or '..'");
		if (order == 0)
			return invalid(err, list->kind, name, "the name is used twice");
		if (order > 0)
			return invalid(err, list->kind, name, "the names are not in ascending order");
		previous = name;
	}
	return 0;
}

/* Both are in order, so one walk along them meets every name that they share. */
static int check_disjoint(const struct node_list *a, const struct node_list *b, struct err *err)
{
	for (size_t i = 0, j = 0; i < a->n && j < b->n;) {
		int order = strcmp(node_name(a, i), node_name(b, j));

		if (order == 0)
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "Directory: '%s': the name is used twice, for a %s and a %s",
				       node_name(a, i), a->kind, b->kind);
		if (order < 0)
			i++;
		else
			j++;
	}
	return 0;
}

static int check_names(const struct directory *d, struct err *err)
{
	struct node_list files = directory_files(d);
	struct node_list directories = directory_directories(d);
	struct node_list symlinks = directory_symlinks(d);
	int r;

	if ((r = check_list(&files, err)) < 0 || (r = check_list(&directories, err)) < 0 ||
	    (r = check_list(&symlinks, err)) < 0)
		return r;
	if ((r = check_disjoint(&files, &directories, err)) < 0 ||
	    (r = check_disjoint(&files, &symlinks, err)) < 0)
		return r;
	return check_disjoint(&directories, &symlinks, err);
}

static int check_digest(const struct digest *digest, const char *kind, const char *name, struct err *err)
{
	bool empty_hash;

	if (digest->size > INT64_MAX)
		return invalid(err, kind, name, "its size is out of range");
	if (digest->size > 0 && digest->hash[0] != digest_empty.hash[0])
		return 0;
	empty_hash = memcmp(digest->hash, digest_empty.hash, DIGEST_HASH_SIZE) == 0;
	if (empty_hash != (digest->size == 0))
		return invalid(err, kind, name,
			       "its digest has the hash or the size of the empty blob, not both");
	return 0;
}

static int check_properties(const struct node_properties *p, const char *kind, const char *name,
			    struct err *err)
{
	if (!p)
		return 0;
	if (p->has_mtime &&
	    (p->mtime_sec < mtime_min || p->mtime_sec > mtime_max || p->mtime_nsec > 999999999))
		return invalid(err, kind, name, "its mtime is out of range");
	for (size_t i = 0; i < p->n_properties; i++) {
		if (!*p->properties[i].name)
			return invalid(err, kind, name, "one of its properties has no name");
		if (i > 0 && strcmp(p->properties[i - 1].name, p->properties[i].name) >= 0)
			return invalid(err, kind, name,
				       "its properties are not in ascending order, or one is there twice");
	}
	return 0;
}

static int check_symlink(const struct symlink_node *link, struct err *err)
{
	size_t len = strnlen(link->target, DIRECTORY_TARGET_MAX + 1);

	if (len == 0 || len > DIRECTORY_TARGET_MAX)
		return invalid(err, "symlink", link->name, "a target is 1 to 4095 bytes");
	return check_properties(link->properties, "symlink", link->name, err);
}

int directory_check(const struct directory *d, struct err *err)
{
	int r;

	if ((r = check_names(d, err)) < 0)
		return r;
	for (size_t i = 0; i < d->n_files; i++) {
		const struct file_node *file = &d->files[i];

		if ((r = check_digest(&file->digest, "file", file->name, err)) < 0 ||
		    (r = check_properties(file->properties, "file", file->name, err)) < 0)
			return r;
	}
	for (size_t i = 0; i < d->n_directories; i++)
		if ((r = check_digest(&d->directories[i].digest, "directory", d->directories[i].name, err)) <
		    0)
			return r;
	for (size_t i = 0; i < d->n_symlinks; i++)
		if ((r = check_symlink(&d->symlinks[i], err)) < 0)
			return r;
	return check_properties(d->properties, "directory", ".", err);
}
