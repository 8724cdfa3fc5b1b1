/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/lap.h"

#include <time.h>

static uint64_t longest_ns; /* the loop's: there is one in a process */

uint64_t lap_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void lap_end(uint64_t began_ns)
{
	uint64_t took = lap_now_ns() - began_ns;

	if (took > longest_ns)
		longest_ns = took;
}

uint64_t lap_longest_ns(void)
{
	return longest_ns;
}
