/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods about what the cache holds and how much disk that takes: `gc`, which evicts on demand, `trees`,
 * which lists cached trees, and `verify`, which compares the store with what it should be
 * (docs/PROTOCOL.md). Loop only.
 */
#ifndef DIRCACHE_DAEMON_GC_H
#define DIRCACHE_DAEMON_GC_H

#include "daemon/request.h"

void gc_start(struct request *request);
void trees_start(struct request *request);
void verify_start(struct request *request);

#endif
