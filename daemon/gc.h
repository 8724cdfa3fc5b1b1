/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The methods about what the cache holds and how much disk that takes: `gc`, which evicts on demand, and
 * `trees`, which lists cached trees (docs/PROTOCOL.md). Loop only.
 */
#ifndef DIRCACHE_DAEMON_GC_H
#define DIRCACHE_DAEMON_GC_H

#include "daemon/request.h"

void gc_start(struct request *request);
void trees_start(struct request *request);

#endif
