/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plan: a tree as the bare programs of the benchmark read it, and the bare calls that make it.
 *
 *     D                       the next directory begins; the first is the root
 *     d NUMBER NAME           in it: a directory, described by the D line of that number (the root's is 0)
 *     p AB/HASH NAME          in it: a link to STORE/blobs/AB/HASH
 *     x AB/HASH NAME          in it: a link to STORE/exec/AB/HASH
 *     l TARGET NAME           in it: a symlink
 *
 * One entry a line, words separated by one space, no other white space. The benchmark's own trees only:
 * what is wrong ends the program.
 */
#ifndef DIRCACHE_TESTS_BENCH_PLAN_H
#define DIRCACHE_TESTS_BENCH_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct plan_entry {
	char type;        /* d, p, x or l */
	const char *what; /* where the link comes from, or points to */
	const char *name;
	size_t number; /* of a directory */
};

struct plan_directory {
	size_t first, n; /* of its entries */
};

struct plan {
	char *text; /* what all names point into */
	struct plan_entry *entries;
	size_t n_entries;
	struct plan_directory *directories;
	size_t n_directories;
};

void plan_read(struct plan *plan, const char *path);

/* Where links come from: STORE/blobs and STORE/exec. */
struct plan_store {
	int blobs, exec;
	bool stat; /* look at each inode before it is linked */
};

void plan_store_open(struct plan_store *store, const char *path, bool stat);

/* Make an entry that is no directory. */
void plan_make_entry(const struct plan_store *store, const struct plan_entry *entry, int dirfd);

/* Make a directory and open it, as a materialization does. Return: a descriptor, the caller's. */
int plan_make_directory(int dirfd, const char *name);

static inline double ms_between(uint64_t from_ns, uint64_t to_ns)
{
	return (double)(to_ns - from_ns) / 1e6;
}

/* CLOCK_MONOTONIC in nanoseconds. */
uint64_t plan_now(void);

#endif
