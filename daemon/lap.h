/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lap: the longest that one callback kept the loop.
 *
 * While a callback runs nobody else is served, so none may take longer than a millisecond, whatever the size
 * of a tree or of the store. Every callback that does more than a few microseconds of work is measured; the
 * counter `loop_longest_us` tells. Loop only.
 */
#ifndef DIRCACHE_DAEMON_LAP_H
#define DIRCACHE_DAEMON_LAP_H

#include <stdint.h>

/* Nanoseconds of the monotonic clock. Any thread. */
uint64_t lap_now_ns(void);

/* The callback that began then is over. */
void lap_end(uint64_t began_ns);

/* Of all callbacks so far. */
uint64_t lap_longest_ns(void);

#endif
