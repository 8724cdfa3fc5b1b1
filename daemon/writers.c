/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/writers.h"

#include "common/alloc.h"

enum { KEPT_MAX = 16 };

struct writers {
	struct blob_store *store;
	struct blob_writer *kept[KEPT_MAX];
	size_t n;
};

struct writers *writers_new(struct blob_store *store)
{
	struct writers *writers = xcalloc(1, sizeof(*writers));

	writers->store = store;
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
	return writers->n ? writers->kept[--writers->n] : blob_writer_new(writers->store);
}

void writers_give(struct writers *writers, struct blob_writer *writer)
{
	if (writers->n < KEPT_MAX && writer)
		writers->kept[writers->n++] = writer;
	else
		blob_writer_free(writer);
}
