/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Usage: what the store takes on disk beside the files of its blobs, which the catalog knows: folders, the
 * index and its log, the reserve, tags, the lock, what staging and tmp hold. Each measured by a worker, as
 * du(1) does: allocated bytes. Some 500 folders are looked at, so a measurement takes about a millisecond.
 *
 * File systems allocate late: a file of many extents may take a block more once its bytes are on the disk.
 * So blobs that were written in the last minute (catalog_fresh()) are looked at again, and the catalog and
 * the index put right.
 *
 * Loop only.
 */
#ifndef DIRCACHE_DAEMON_USAGE_H
#define DIRCACHE_DAEMON_USAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/err.h"
#include "common/list.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/index.h"
#include "daemon/pool.h"
#include "daemon/slice.h"

struct usage;

struct usage_parts { /* all borrowed for good */
	struct pool *pool;
	struct slicer *slicer;
	struct blob_store *store;
	struct catalog *catalog;
	struct index *index;
	int store_fd; /* of STORE */
};

struct usage *usage_new(const struct usage_parts *parts);
void usage_free(struct usage *usage); /* when nothing is measured */
DEFINE_AUTO(usage);

/* At the end, when all was synced and no loop runs: put right what fresh blobs take. Blocks. */
void usage_settle(struct usage *usage);

/* The last measurement; zero before the first. */
struct usage_levels {
	uint64_t overhead;  /* bytes of disk beside the blobs' files */
	uint64_t disk_free; /* bytes that the file system has for an ordinary user */
};
struct usage_levels usage_levels(const struct usage *usage);

struct usage_waiter {
	/* The levels are of now; or r < 0 with err, and they are as old as they were. */
	void (*measured)(struct usage_waiter *waiter, int r, const struct err *err);
	struct list link; /* private */
};

/* Measure, and then tell the waiter. Who asks while a measurement runs waits for the next one. */
void usage_measure(struct usage *usage, struct usage_waiter *waiter);

bool usage_is_measuring(const struct usage *usage);

/* Wait no longer. */
void usage_leave(struct usage_waiter *waiter);

#endif
