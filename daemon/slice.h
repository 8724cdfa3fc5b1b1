/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Slices: long work on the loop, in steps of microseconds, a quarter of a millisecond at a time.
 *
 * The loop owns every map, so what changes maps must run on it, however much of it there is: interning the
 * Directories of a large tree, taking in the index. Such work is a slice whose step() does a little and says
 * whether more is left. Users take turns with theirs, the daemon itself among them; between turns the loop
 * serves its other events.
 */
#ifndef DIRCACHE_DAEMON_SLICE_H
#define DIRCACHE_DAEMON_SLICE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/auto.h"
#include "common/list.h"
#include "daemon/lap.h"
#include "daemon/turns.h"

struct event_base;
struct slicer;

struct slice {
	/* Do some ten microseconds of work. Return: is more left? May free the slice when it is not. */
	bool (*step)(struct slice *slice);
	struct taker *taker; /* whose it is; NULL: the daemon's */
	struct list link;    /* private */
};

enum { SLICE_NS = 250000 }; /* the time that one turn of the loop gives to long work */

struct slicer *slicer_new(struct event_base *base);
void slicer_free(struct slicer *slicer); /* slices that still wait are forgotten */
DEFINE_AUTO(slicer);

/* For the daemon; or for who has turns of its own, which is there as long as the slice waits. */
void slice_init(struct slice *slice, bool (*step)(struct slice *slice));
void slice_init_of(struct slice *slice, bool (*step)(struct slice *slice), struct taker *taker);

/* Let it run, from the next turn of the loop on. Harmless when it is waiting already. */
void slice_start(struct slicer *slicer, struct slice *slice);

/* Nanoseconds of the monotonic clock. */
static inline uint64_t slice_now_ns(void)
{
	return lap_now_ns();
}

#endif
