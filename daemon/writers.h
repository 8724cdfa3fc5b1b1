/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writers at rest: blob writers (a buffer and a hasher each) between jobs, so that none is made for each
 * file.
 *
 * A job that stores takes one when it is submitted and its done() gives it back, so there are never more than
 * jobs under way; of those at rest a few are kept. Loop only.
 */
#ifndef DIRCACHE_DAEMON_WRITERS_H
#define DIRCACHE_DAEMON_WRITERS_H

#include "common/auto.h"
#include "daemon/blob.h"

struct writers;

struct writers *writers_new(struct blob_store *store); /* store: borrowed */
void writers_free(struct writers *writers);
DEFINE_AUTO(writers);

struct blob_writer *writers_take(struct writers *writers);
void writers_give(struct writers *writers, struct blob_writer *writer); /* NULL is fine */

#endif
