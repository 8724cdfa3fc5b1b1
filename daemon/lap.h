/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lap: the longest that one callback kept the loop.
 *
 * While a callback runs nobody else is served, so none may take longer than a millisecond, whatever the size
 * of a tree or of the store. Every callback that does more than a few microseconds of work is measured by two
 * clocks: `loop_longest_us` is what others waited, also while the system gave the processor to somebody else;
 * `loop_longest_cpu_us` is what the callback itself worked. Loop only.
 */
#ifndef DIRCACHE_DAEMON_LAP_H
#define DIRCACHE_DAEMON_LAP_H

#include <stdint.h>

/* A callback that runs. */
struct lap {
	uint64_t began_ns, began_cpu_ns;
};

/* Nanoseconds of the monotonic clock. Any thread. */
uint64_t lap_now_ns(void);

struct lap lap_begin(void);
void lap_end(const struct lap *lap);

/* Nanoseconds, of all callbacks so far: by the monotonic clock, and by that of the loop's thread. */
uint64_t lap_longest_ns(void);
uint64_t lap_longest_cpu_ns(void);

#endif
