/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/gc.h"

#include <event2/event.h>

#include "common/alloc.h"

enum {
	NAMED_MAX = 10000, /* trees, so that an answer fits into a message */
	ANSWER_STEP = 32,  /* of them, written between two looks at the clock */
};

static const struct timeval progress_interval = { .tv_usec = 100000 };

struct gc_params {
	uint64_t to;
	bool has_to, dry_run, progress;
};

static const struct wire_field fields[] = {
	WIRE_OPTIONAL(struct gc_params, to, WIRE_UINT, has_to),
	WIRE_FIELD(struct gc_params, dry_run, WIRE_BOOL, false),
	WIRE_FIELD(struct gc_params, progress, WIRE_BOOL, false),
};

struct gc {
	struct request *request;
	struct evict_gc evict;
	struct event *progress;
	bool cancelled;
	struct slice slice; /* writes the answer */
	size_t n_answered;
};

static void put_tree(struct wire_out *out, const struct evict_tree *tree)
{
	wire_map(out, 3);
	wire_put_digest(out, "digest", &tree->digest);
	wire_put_uint(out, "bytes", tree->bytes);
	wire_put_uint(out, "last_used", tree->used);
}

static void gc_free(struct gc *gc)
{
	free(gc->evict.trees);
	free(gc);
}

static void begin_answer(struct gc *gc)
{
	struct wire_out *out = request_reply(gc->request);

	wire_map(out, 5);
	wire_text(out, "trees");
	wire_array(out, gc->evict.n_listed);
}

static void end_answer(struct gc *gc)
{
	const struct evict_gc *went = &gc->evict;
	struct wire_out *out = &gc->request->out;

	wire_put_uint(out, "evicted_trees", went->n_trees);
	wire_put_uint(out, "evicted_blobs", went->n_blobs);
	wire_put_uint(out, "evicted_bytes", went->bytes);
	wire_put_uint(out, "allocated_before", went->before);
	request_send(gc->request);
}

static bool answer_step(struct slice *slice)
{
	struct gc *gc = CONTAINER_OF(slice, struct gc, slice);

	for (unsigned i = 0; i < ANSWER_STEP && gc->n_answered < gc->evict.n_listed; i++)
		put_tree(&gc->request->out, &gc->evict.trees[gc->n_answered++]);
	if (gc->n_answered < gc->evict.n_listed)
		return true;
	end_answer(gc);
	gc_free(gc);
	return false;
}

static void on_done(struct evict_gc *evict)
{
	struct gc *gc = CONTAINER_OF(evict, struct gc, evict);
	struct err err = { 0 };

	if (gc->progress)
		event_free(gc->progress);
	gc->request->cancel = NULL; /* it is over */
	if (gc->cancelled) {
		err_set(&err, ERR_CANCELLED, "gc: cancelled");
		request_fail(gc->request, &err);
		gc_free(gc);
		return;
	}
	begin_answer(gc);
	slice_init_of(&gc->slice, answer_step, &gc->request->user->slices);
	slice_start(gc->request->cache->slicer, &gc->slice);
}

static void on_cancel(struct request *request)
{
	struct gc *gc = request->ctx;

	gc->cancelled = true;
	evict_gc_cancel(&gc->evict);
}

static void on_progress(evutil_socket_t fd, short what, void *arg)
{
	struct gc *gc = arg;

	(void)fd;
	(void)what;
	request_progress(gc->request, gc->evict.n_blobs, 0, gc->evict.bytes, gc->evict.goal);
}

void gc_start(struct request *request)
{
	struct gc_params params = { 0 };
	struct err err = { 0 };
	struct gc *gc;

	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "gc", &err) < 0) {
		request_fail(request, &err);
		return;
	}
	gc = xcalloc(1, sizeof(*gc));
	gc->request = request;
	gc->evict = (struct evict_gc){
		.has_to = params.has_to,
		.to = params.to,
		.dry_run = params.dry_run,
		.max_trees = NAMED_MAX,
		.done = on_done,
	};
	request->ctx = gc;
	request->cancel = on_cancel;
	if (params.progress) {
		gc->progress = event_new(request->cache->base, -1, EV_PERSIST, on_progress, gc);
		if (gc->progress)
			(void)event_add(gc->progress, &progress_interval);
	}
	evict_gc(request->cache->evict, &gc->evict);
}
