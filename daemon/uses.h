/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Uses: blobs that are asked for by themselves, rather than as a part of a tree: when they were last used,
 * for eviction. Noted in the catalog at once, and in the index with others, 250 ms later at most. Loop only.
 */
#ifndef DIRCACHE_DAEMON_USES_H
#define DIRCACHE_DAEMON_USES_H

#include "common/auto.h"
#include "daemon/catalog.h"
#include "daemon/index.h"

struct event_base;
struct uses;

struct uses *uses_new(struct event_base *base, struct catalog *catalog, struct index *index); /* borrowed */
void uses_free(struct uses *uses); /* what was not flushed is forgotten */
DEFINE_AUTO(uses);

/* A blob is used now, if it is there. */
void uses_note(struct uses *uses, const struct digest *digest);

/* Write to the index now what waits. */
void uses_flush(struct uses *uses);

#endif
