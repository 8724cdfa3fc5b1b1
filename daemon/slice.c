/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/slice.h"

#include <event2/event.h>

#include "common/alloc.h"
#include "daemon/lap.h"

struct slicer {
	struct event *turn; /* a timer of zero: fires once the loop has looked at its descriptors */
	struct list waiting;
};

static void schedule(struct slicer *slicer)
{
	static const struct timeval at_once = { 0, 0 };

	(void)evtimer_add(slicer->turn, &at_once);
}

static void on_turn(evutil_socket_t fd, short what, void *arg)
{
	struct slicer *slicer = arg;
	struct lap lap = lap_begin();
	struct list *l;

	(void)fd;
	(void)what;
	while ((l = list_pop(&slicer->waiting))) {
		struct slice *slice = LIST_ENTRY(l, struct slice, link);

		if (slice->step(slice) &&
		    list_is_empty(&slice->link)) /* it may have been started from within */
			list_append(&slicer->waiting, &slice->link);
		if (lap_now_ns() >= lap.began_ns + SLICE_NS)
			break;
	}
	if (!list_is_empty(&slicer->waiting))
		schedule(slicer);
	lap_end(&lap);
}

struct slicer *slicer_new(struct event_base *base)
{
	struct slicer *slicer = xcalloc(1, sizeof(*slicer));

	list_init(&slicer->waiting);
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
	slice->step = step;
	list_init(&slice->link);
}

void slice_start(struct slicer *slicer, struct slice *slice)
{
	if (!list_is_empty(&slice->link))
		return;
	list_append(&slicer->waiting, &slice->link);
	schedule(slicer);
}
