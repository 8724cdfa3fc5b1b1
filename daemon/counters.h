/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Counters: what happened, by the names of counters.def. Written by the loop only; what a worker counts comes
 * to the loop in its job.
 */
#ifndef DIRCACHE_DAEMON_COUNTERS_H
#define DIRCACHE_DAEMON_COUNTERS_H

#include <stdint.h>

struct counters {
#define COUNTER(name, meaning) uint64_t name;
#include "daemon/counters.def"
#undef COUNTER
};

#endif
