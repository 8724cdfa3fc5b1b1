/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/writers.h"

#include "common/alloc.h"

enum { KEPT_MAX = 16 };

struct writers {
	struct writers_parts parts;
	struct blob_writer *kept[KEPT_MAX];
	size_t n;
};

struct writers *writers_new(const struct writers_parts *parts)
{
	struct writers *writers = xcalloc(1, sizeof(*writers));

	writers->parts = *parts;
	return writers;
}

void writers_free(struct writers *writers)
{
	if (!writers)
		return;
	while (writers->n)
		blob_writer_free(writers->kept[--writers->n]);
	free(writers);
}

struct blob_writer *writers_take(struct writers *writers)
{
	return writers->n ? writers->kept[--writers->n] : blob_writer_new(writers->parts.store);
}

void writers_give(struct writers *writers, struct blob_writer *writer)
{
	struct catalog_totals totals;

	if (!writer)
		return;
	totals = catalog_totals(writers->parts.catalog);
	/* Counted twice for a moment rather than not at all. */
	space_set_used(writers->parts.space, totals.allocated + totals.leaving);
	blob_writer_settle(writer);
	if (writers->n < KEPT_MAX)
		writers->kept[writers->n++] = writer;
	else
		blob_writer_free(writer);
}
