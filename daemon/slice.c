/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/slice.h"

#include <event2/event.h>

#include "common/alloc.h"
#include "daemon/lap.h"

struct slicer {
	struct event *turn; /* a timer of zero: fires once the loop has looked at its descriptors */
	struct turns waiting;
	struct taker own; /* the daemon's slices */
};

static void schedule(struct slicer *slicer)
{
	static const struct timeval at_once = { 0, 0 };

	(void)evtimer_add(slicer->turn, &at_once);
}

static void wait_again(struct slicer *slicer, struct slice *slice)
{
	turns_wait(&slicer->waiting, slice->taker ? slice->taker : &slicer->own, &slice->link);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct slicer *slicer = arg;
	struct lap lap = lap_begin();
	struct list *l;

	(void)fd;
	(void)what;
	while ((l = turns_next(&slicer->waiting))) {
		struct slice *slice = LIST_ENTRY(l, struct slice, link);

		if (slice->step(slice) &&
		    list_is_empty(&slice->link)) /* it may have been started from within */
			wait_again(slicer, slice);
		if (lap_now_ns() >= lap.began_ns + SLICE_NS)
			break;
	}
	if (!turns_are_over(&slicer->waiting))
		schedule(slicer);
	lap_end(&lap);
}

struct slicer *slicer_new(struct event_base *base)
{
	struct slicer *slicer = xcalloc(1, sizeof(*slicer));

	turns_init(&slicer->waiting);
	taker_init(&slicer->own);
	slicer->turn = evtimer_new(base, on_turn, slicer);
	if (!slicer->turn)
		abort();
	return slicer;
}

void slicer_free(struct slicer *slicer)
{
	if (!slicer)
		return;
	event_free(slicer->turn);
	free(slicer);
}

void slice_init(struct slice *slice, bool (*step)(struct slice *slice))
{
	slice_init_of(slice, step, NULL);
}

void slice_init_of(struct slice *slice, bool (*step)(struct slice *slice), struct taker *taker)
{
	slice->step = step;
	slice->taker = taker;
	list_init(&slice->link);
}

void slice_start(struct slicer *slicer, struct slice *slice)
{
	if (!list_is_empty(&slice->link))
		return;
	wait_again(slicer, slice);
	schedule(slicer);
}
