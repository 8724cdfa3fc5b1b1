/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walk: the entries of a directory and of all below it, one at a time, files opened for reading.
 *
 * Everything is reached by openat(2) with O_NOFOLLOW from the directory's own descriptor: no symlink inside
 * the tree is ever followed, whoever swaps what meanwhile. Neither the stack nor the number of open
 * descriptors grows with depth: of the directories on the way down, the deepest WALK_OPEN_MAX stay open, and
 * one above them is opened again by way of `..`, and compared with what it was. A directory that was moved
 * away meanwhile so fails the walk.
 *
 * Types come from readdir: a regular file costs one openat(2), and whoever receives its descriptor finds out
 * whether it still is one (O_NONBLOCK: a FIFO in its place does not hang us).
 */
#ifndef DIRCACHE_CLIENT_WALK_H
#define DIRCACHE_CLIENT_WALK_H

#include <stdint.h>

#include "common/auto.h"
#include "common/err.h"

struct walk;

enum { WALK_OPEN_MAX = 64 };

enum walk_type { WALK_FILE, WALK_DIRECTORY, WALK_SYMLINK };

struct walk_entry {
	enum walk_type type;
	uint64_t parent;    /* the number of the directory it is in: 0 the root, then as they were returned */
	const char *name;   /* until the next call */
	const char *target; /* symlink: until the next call */
	int fd;             /* file: the caller's from now on */
	uint64_t size;      /* file: only where sizes are asked for instead */
};

/**
 * Begin.
 *
 * @root  taken: a descriptor of the directory, open for reading
 * @path  borrowed: what messages call it
 */
struct walk *walk_new(int root, const char *path);
void walk_free(struct walk *walk);
DEFINE_AUTO(walk);

/* Before the first entry: look at files' sizes instead of opening them. */
void walk_for_sizes(struct walk *walk);

/**
 * Go on to the next entry. A directory is returned before what is in it.
 *
 * Return: 1; 0 at the end; -EMFILE, after which the same entry may be tried again; or another negative
 * errno, after which there is no going on. err names the entry.
 */
int walk_next(struct walk *walk, struct walk_entry *entry, struct err *err);

/* What kind of file cannot be stored, by st_mode: "a socket". */
const char *walk_special_text(unsigned mode);

#endif
