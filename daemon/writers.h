/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writers at rest: blob writers (a buffer each) between jobs, so that none is made for each file.
 *
 * A job that stores takes one when it is submitted and its done() gives it back, so there are never more than
 * jobs under way; of those at rest a few are kept. Loop only.
 */
#ifndef DIRCACHE_DAEMON_WRITERS_H
#define DIRCACHE_DAEMON_WRITERS_H

#include "common/auto.h"
#include "daemon/blob.h"
#include "daemon/catalog.h"
#include "daemon/space.h"

struct writers;

struct writers_parts { /* all borrowed for good */
	struct blob_store *store;
	struct catalog *catalog;
	struct space *space;
};

struct writers *writers_new(const struct writers_parts *parts);
void writers_free(struct writers *writers);
DEFINE_AUTO(writers);

struct blob_writer *writers_take(struct writers *writers);

/**
 * Give a writer back, when all that it stored or found is in the catalog, and held if it is to stay: from
 * then on it may be evicted, and its room counts as used instead of reserved. NULL is fine.
 */
void writers_give(struct writers *writers, struct blob_writer *writer);

#endif
