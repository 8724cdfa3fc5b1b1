/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/evict_internal.h"

#include "common/alloc.h"

/*
 * A tag pins a tree by being a reason not to evict it; what holds the blobs below is the cached tree. When
 * the index was lost, so were the cached trees, and tags alone are left. So their trees are resolved again,
 * one after the other, before anything is evicted. A tag may also name a single file: that is no Directory.
 */
struct evict_pins {
	struct evict *evict;
	struct digest *digests;
	size_t n, next;
	struct tree_request request;
	struct slice slice; /* begins the next one: a tree may be had at once, and there may be many */
};

static void end(struct evict_pins *pins)
{
	struct evict *evict = pins->evict;

	evict->is_settled = pins->next == pins->n;
	evict->pins = NULL;
	free(pins->digests);
	free(pins);
	evict_run_kick(evict);
}

static void on_tree(struct tree_request *request, int r)
{
	struct evict_pins *pins = CONTAINER_OF(request, struct evict_pins, request);

	if (r == 0)
		node_put(request->node);
	slice_start(pins->evict->parts.slicer, &pins->slice);
}

static bool is_cached(struct trees *trees, const struct digest *digest)
{
	if (!trees_hold(trees, digest))
		return false;
	trees_unhold(trees, digest);
	return true;
}

static bool pins_step(struct slice *slice)
{
	struct evict_pins *pins = CONTAINER_OF(slice, struct evict_pins, slice);
	const struct digest *digest;

	if (pins->next == pins->n || pins->evict->stopping) {
		end(pins);
		return false;
	}
	digest = &pins->digests[pins->next++];
	if (digest->size > DIRECTORY_BYTES_MAX || is_cached(pins->evict->parts.trees, digest))
		return true;
	pins->request.done = on_tree;
	tree_get(pins->evict->parts.trees, digest, TREE_FOR_PUT, &pins->request);
	return false;
}

void evict_pin_tags(struct evict *evict)
{
	struct evict_pins *pins = xcalloc(1, sizeof(*pins));
	size_t n = tags_n(evict->parts.tags);

	evict->pins = pins;
	pins->evict = evict;
	pins->digests = xcalloc(n + 1, sizeof(*pins->digests));
	for (; pins->n < n; pins->n++)
		pins->digests[pins->n] = tags_at(evict->parts.tags, pins->n).digest;
	slice_init(&pins->slice, pins_step);
	slice_start(evict->parts.slicer, &pins->slice);
}
