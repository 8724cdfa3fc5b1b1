/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Syncer: up to which time of use everything stored is on the disk for good.
 *
 * Blobs are not synced one by one: that would cost each of them a write to the disk that somebody waits for.
 * Every two minutes, if any were stored since, the store's file system is synced as a whole, and the index is
 * told the time before that began: whatever was used for the last time before it cannot lose its bytes any
 * more. So after a crash of the machine only what was stored in its last two minutes is in doubt (recover.h).
 * A clean stop syncs once more. While the store is in doubt no time is given out.
 *
 * syncfs(2) may take seconds, so it has a thread of its own: neither requests nor commits wait for it. Loop
 * only.
 */
#ifndef DIRCACHE_DAEMON_SYNCER_H
#define DIRCACHE_DAEMON_SYNCER_H

#include <stdbool.h>

#include "common/auto.h"
#include "common/err.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/index.h"

struct event_base;
struct syncer;

struct syncer_parts { /* all borrowed for good */
	struct event_base *base;
	int store_fd;
	struct blob_store *store;
	struct catalog *catalog;
	struct index *index;
};

/* Return: a syncer, or NULL with errno set when its thread cannot be made. */
struct syncer *syncer_new(const struct syncer_parts *parts);

/* Begin: from now on every two minutes. @was_clean: nothing of an earlier process needs to be synced. */
void syncer_start(struct syncer *syncer, bool was_clean);

/* Sync now, in the background, if there is anything to sync. */
void syncer_sync(struct syncer *syncer);

/* Begin no more. */
void syncer_stop(struct syncer *syncer);

bool syncer_is_busy(const struct syncer *syncer);

/* Sync and wait for it: before a stop is called clean. Return: 0, or a negative errno. */
int syncer_finish(struct syncer *syncer, struct err *err);

void syncer_free(struct syncer *syncer); /* waits for what is under way */
DEFINE_AUTO(syncer);

#endif
