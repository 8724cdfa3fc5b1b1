/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/lap.h"

#include <time.h>

static uint64_t longest_ns, longest_cpu_ns; /* the loop's: there is one in a process */

static uint64_t now_ns(clockid_t clock)
{
	struct timespec now;

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t lap_now_ns(void)
{
	return now_ns(CLOCK_MONOTONIC);
}

struct lap lap_begin(void)
{
	return (struct lap){ .began_ns = lap_now_ns(), .began_cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID) };
}

static void keep_longest(uint64_t *longest, uint64_t took_ns)
{
	if (took_ns > *longest)
		*longest = took_ns;
}

void lap_end(const struct lap *lap)
{
	keep_longest(&longest_ns, lap_now_ns() - lap->began_ns);
	keep_longest(&longest_cpu_ns, now_ns(CLOCK_THREAD_CPUTIME_ID) - lap->began_cpu_ns);
}

uint64_t lap_longest_ns(void)
{
	return longest_ns;
}

uint64_t lap_longest_cpu_ns(void)
{
	return longest_cpu_ns;
}
