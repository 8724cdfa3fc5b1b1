/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recovery: after a stop that was not clean, bring the index and the files together, behind the requests.
 *
 * The order on disk is bytes, name, index; so a killed daemon can leave names without rows, and whoever
 * deletes files from the store leaves rows without names. Workers read the fan-out folders, one at a time;
 * the loop takes in what it did not know, and at the end drops what the index had and no folder has. A blob
 * that is met by a request before that is looked up on disk then (flight.h), so nothing waits for this.
 *
 * Also deletes the litter of earlier processes: in STORE/tmp, and beside targets (staging.h). That comes
 * first. Loop only.
 */
#ifndef DIRCACHE_DAEMON_RECOVER_H
#define DIRCACHE_DAEMON_RECOVER_H

#include <stdbool.h>

#include "common/auto.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/index.h"
#include "daemon/pool.h"
#include "daemon/slice.h"
#include "daemon/staging.h"

struct recovery;

struct recovery_parts { /* all borrowed for good */
	struct pool *pool;
	struct slicer *slicer;
	struct blob_store *store;
	struct staging *staging;
	struct catalog *catalog;
	struct index *index;
};

/* Begin; files: also compare the index with the files, else only delete litter. */
struct recovery *recovery_start(const struct recovery_parts *parts, bool files);

/* Stop after the job that runs. */
void recovery_stop(struct recovery *recovery);

bool recovery_is_done(const struct recovery *recovery);

/* Do index and files agree now? Not when it was stopped before its end. */
bool recovery_is_whole(const struct recovery *recovery);

void recovery_free(struct recovery *recovery); /* when no job runs */
DEFINE_AUTO(recovery);

#endif
