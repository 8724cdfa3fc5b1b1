/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/uses.h"

#include <event2/event.h>

#include "common/alloc.h"

static const struct timeval flush_interval = { .tv_usec = 250000 };

struct uses {
	struct catalog *catalog;
	struct index *index;
	struct index_batch *batch; /* or NULL */
	struct event *timer;
};

static void on_timer(evutil_socket_t fd, short what, void *uses)
{
	(void)fd;
	(void)what;
	uses_flush(uses);
}

struct uses *uses_new(struct event_base *base, struct catalog *catalog, struct index *index)
{
	struct uses *uses = xcalloc(1, sizeof(*uses));

	uses->catalog = catalog;
	uses->index = index;
	uses->timer = evtimer_new(base, on_timer, uses);
	if (!uses->timer)
		abort();
	return uses;
}

void uses_free(struct uses *uses)
{
	if (!uses)
		return;
	event_free(uses->timer);
	index_batch_free(uses->batch);
	free(uses);
}

void uses_note(struct uses *uses, const struct digest *digest)
{
	struct catalog_entry *entry = catalog_find(uses->catalog, digest);

	if (!entry)
		return;
	entry->used = catalog_tick(uses->catalog);
	if (!uses->batch) {
		uses->batch = index_batch_new();
		(void)evtimer_add(uses->timer, &flush_interval);
	}
	index_batch_touch_blob(uses->batch, entry->row, entry->used);
}

void uses_flush(struct uses *uses)
{
	(void)evtimer_del(uses->timer);
	if (uses->batch)
		index_submit(uses->index, TAKE(uses->batch), NULL, NULL);
}
