/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery: after a stop that was not clean, bring the index and the files together, behind the requests.
 *
 * The order on disk is bytes, name, index; so a killed daemon can leave names without rows, and whoever
 * deletes files from the store leaves rows without names.
 *
 *     litter   what earlier processes left in STORE/tmp, and beside targets (staging.h)
 *     scan     workers read the fan-out folders, one at a time; the loop takes in what it did not know, and
 *              remembers what it must not believe
 *     settle   workers hash that, a few files at a time: right bytes are taken in, wrong ones go
 *     drop     what the index had and no folder has
 *
 * Not to be believed is a file that disagrees with its row, or that does not look as it was published. After
 * a crash of the machine, or when the index was lost, that is also each file that is not known to be on the
 * disk for good: such rows are *suspects* and never were in the catalog, such names have no row, and such
 * inodes are not those that older rows vouch for. The store is in doubt then (blob.h), so that a
 * request that meets one of them before it is settled hashes it itself. Nothing waits for any of this: a blob
 * that the catalog lacks, or does not believe, is looked up on disk (flight.h).
 *
 * Tags that name nothing any more at the end of a doubt stay, and the log tells them. Loop only.
 */
#ifndef DIRCACHE_DAEMON_RECOVER_H
#define DIRCACHE_DAEMON_RECOVER_H

#include <stdbool.h>

#include "common/auto.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/claims.h"
#include "daemon/counters.h"
#include "daemon/index.h"
#include "daemon/pool.h"
#include "daemon/slice.h"
#include "daemon/staging.h"
#include "daemon/tags.h"
#include "daemon/writers.h"

struct recovery;

struct recovery_parts { /* all borrowed for good */
	struct pool *pool;
	struct slicer *slicer;
	struct blob_store *store;
	struct staging *staging;
	struct writers *writers;
	struct claims *claims;
	struct catalog *catalog;
	const struct tags *tags;
	struct index *index;
	struct counters *counters;
};

/* Rows that were not taken into the catalog. */
struct suspects {
	struct index_blob *rows;
	size_t n, capacity;
};

/**
 * Begin.
 *
 * @files     also bring index and files together, else only delete litter
 * @suspects  taken over
 *
 * Whether names without rows are believed is what blob_store_in_doubt() says now. The doubt ends with the
 * recovery, when that was whole.
 */
struct recovery *recovery_start(const struct recovery_parts *parts, bool files, struct suspects *suspects);

/* Stop after the job that runs. */
void recovery_stop(struct recovery *recovery);

bool recovery_is_done(const struct recovery *recovery);

/* Do index and files agree now? Not when it was stopped before its end, or could not read something. */
bool recovery_is_whole(const struct recovery *recovery);

void recovery_free(struct recovery *recovery); /* when no job runs */
DEFINE_AUTO(recovery);

#endif
