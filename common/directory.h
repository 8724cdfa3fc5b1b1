/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory: one level of a tree, as the Remote Execution API v2 has it (messages Directory, FileNode,
 * DirectoryNode, SymlinkNode, NodeProperties), in its canonical form. The one door to protobuf.
 *
 * A decoded Directory is immutable, checked whole, and lives in one piece of memory. Its encoding is
 * canonical: the same entries give the same bytes, and so the same digest, in every implementation.
 *
 * What is refused (the message names the entry): names that are empty, `.`, `..`, longer than 255 bytes or
 * holding `/` or NUL; names not in ascending byte order within their list, or used twice in the Directory;
 * digests that are not 64 lower-case hexadecimal digits and a size of 0 to INT64_MAX, or that give the empty
 * blob another size; symlink targets that are empty, longer than 4095 bytes or holding NUL; times out of
 * range; node properties that are not in ascending order by name, come twice, have no name or hold NUL; a
 * node of more than 64 KiB; more entries than the limit (counted before memory is reserved for them).
 * Names are bytes here: the specification asks for UTF-8, file systems do not, and a tree must come back as
 * it was. Fields that are unknown to us are passed over.
 */
#ifndef DIRCACHE_COMMON_DIRECTORY_H
#define DIRCACHE_COMMON_DIRECTORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/digest.h"
#include "common/err.h"

enum {
	DIRECTORY_NAME_MAX = 255,        /* bytes of a name */
	DIRECTORY_TARGET_MAX = 4095,     /* bytes of a symlink's target */
	DIRECTORY_ENTRIES_MAX = 1000000, /* default limit of entries */
	DIRECTORY_BYTES_MAX = 64 << 20,  /* default limit of an encoded Directory */
};

/* A property that a client gave a node by name: kept and encoded again, otherwise without meaning here. */
struct node_property {
	const char *name, *value; /* terminated */
};

struct node_properties {
	bool has_mtime, has_unix_mode;
	int64_t mtime_sec;
	uint32_t mtime_nsec;
	uint32_t unix_mode; /* as it came; materialize masks it with 0777 */
	size_t n_properties;
	const struct node_property *properties; /* ascending by name */
};

/* Names and targets are terminated; their bytes hold no other NUL. */
struct file_node {
	const char *name;
	struct digest digest;
	const struct node_properties *properties; /* or NULL */
	bool executable;
};

struct directory_node {
	const char *name;
	struct digest digest;
};

struct symlink_node {
	const char *name, *target;
	const struct node_properties *properties; /* or NULL */
};

struct directory {
	size_t n_files, n_directories, n_symlinks;
	const struct file_node *files; /* each list ascending by name, by bytes */
	const struct directory_node *directories;
	const struct symlink_node *symlinks;
	const struct node_properties *properties; /* of the Directory itself, or NULL */
	uint64_t file_bytes;                      /* sum of the files' sizes; saturates at UINT64_MAX */
	size_t memory;                            /* bytes of the one piece that all of this is */
};

/**
 * Check and decode an encoded Directory.
 *
 * @bytes        borrowed during the call; may be NULL when len is 0, which is the empty Directory
 * @max_entries  more is refused
 * @directory    out: owned by the caller, free with directory_free()
 *
 * Any thread. Time and memory are linear in len.
 *
 * Return: 0, or a negative errno with the entry and the reason in err: ERR_RESOURCE_EXHAUSTED for too many
 * entries, else -EINVAL.
 */
int directory_decode(const void *bytes, size_t len, size_t max_entries, struct directory **directory,
		     struct err *err);

/* The same as free(). */
void directory_free(struct directory *directory);
DEFINE_AUTO(directory);

/**
 * Sort and encode.
 *
 * @directory  its lists may be in any order, and are sorted in place (so point at writable arrays)
 * @bytes      out: owned by the caller, free()
 *
 * Return: 0, or -EINVAL for what directory_decode() would refuse (err names the entry).
 */
int directory_encode(struct directory *directory, uint8_t **bytes, size_t *len, struct err *err);

/**
 * Find an entry by name in a decoded Directory. Binary search; at most one of the three is found.
 *
 * Return: the entry, or NULL.
 */
const struct file_node *directory_find_file(const struct directory *d, const char *name, size_t len);
const struct directory_node *directory_find_directory(const struct directory *d, const char *name,
						      size_t len);
const struct symlink_node *directory_find_symlink(const struct directory *d, const char *name, size_t len);

/* Can this be the name of an entry (see above)? */
bool directory_name_is_valid(const char *name, size_t len);

#endif
