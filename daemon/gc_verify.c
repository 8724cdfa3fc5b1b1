/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/gc.h"

#include <event2/event.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/verify.h"

enum { NAMED_MAX = 1000 }; /* faults, so that an answer fits into a message */

static const struct timeval progress_interval = { .tv_usec = 100000 };

struct verify_params {
	uint64_t rate;
	bool repair, progress;
};

static const struct wire_field fields[] = {
	WIRE_FIELD(struct verify_params, repair, WIRE_BOOL, false),
	WIRE_FIELD(struct verify_params, rate, WIRE_UINT, false),
	WIRE_FIELD(struct verify_params, progress, WIRE_BOOL, false),
};

struct verifying {
	struct request *request;
	struct verify_call call;
	struct event *progress;
};

static void put_fault(struct wire_out *out, const struct verify_fault *fault)
{
	wire_map(out, 4 + fault->has_digest + (fault->name != NULL) + (fault->repair != NULL));
	wire_put_text(out, "kind", verify_kind_word(fault->kind));
	if (fault->has_digest)
		wire_put_digest(out, "digest", &fault->digest);
	if (fault->name)
		wire_put_bytes(out, "name", fault->name, strlen(fault->name));
	wire_put_text(out, "expected", fault->expected);
	wire_put_text(out, "found", fault->found);
	wire_put_bool(out, "repaired", fault->repaired);
	if (fault->repair)
		wire_put_text(out, "repair", fault->repair);
}

static void answer(struct verifying *verifying)
{
	const struct verify_call *call = &verifying->call;
	struct wire_out *out = request_reply(verifying->request);

	wire_map(out, 8);
	wire_text(out, "faults");
	wire_array(out, call->n_listed);
	for (size_t i = 0; i < call->n_listed; i++)
		put_fault(out, &call->faults[i]);
	wire_put_uint(out, "faults_total", call->n_faults);
	wire_put_uint(out, "repaired_total", call->n_repaired);
	wire_put_uint(out, "files", call->files);
	wire_put_uint(out, "bytes", call->bytes);
	wire_put_uint(out, "links", call->links);
	wire_put_uint(out, "trees", call->trees);
	wire_put_uint(out, "tags", call->tags);
	request_send(verifying->request);
}

static void verifying_free(struct verifying *verifying)
{
	if (verifying->progress)
		event_free(verifying->progress);
	verify_fini(&verifying->call);
	free(verifying);
}

static void on_done(struct verify_call *call)
{
	struct verifying *verifying = CONTAINER_OF(call, struct verifying, call);

	if (call->r < 0)
		request_fail(verifying->request, &call->err);
	else
		answer(verifying);
	verifying_free(verifying);
}

static void on_cancel(struct request *request)
{
	struct verifying *verifying = request->ctx;

	verify_cancel(&verifying->call);
}

static void on_progress(evutil_socket_t fd, short what, void *arg)
{
	struct verifying *verifying = arg;
	const struct verify_call *call = &verifying->call;

	(void)fd;
	(void)what;
	request_progress(verifying->request, call->files, call->files_total, call->bytes, call->bytes_total);
}

static void begin_progress(struct verifying *verifying)
{
	struct event_base *base = verifying->request->cache->base;

	verifying->progress = event_new(base, -1, EV_PERSIST, on_progress, verifying);
	if (verifying->progress)
		(void)event_add(verifying->progress, &progress_interval);
}

void verify_start(struct request *request)
{
	struct verify_params params = { 0 };
	struct verifying *verifying;
	struct err err = { 0 };

	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "verify", &err) < 0) {
		request_fail(request, &err);
		return;
	}
	verifying = xcalloc(1, sizeof(*verifying));
	verifying->request = request;
	verifying->call = (struct verify_call){
		.repair = params.repair,
		.rate = params.rate,
		.max_faults = NAMED_MAX,
		.done = on_done,
	};
	if (verify_begin(request->cache, &verifying->call, &err) < 0) {
		request_fail(request, &err);
		verifying_free(verifying);
		return;
	}
	request->ctx = verifying;
	request->cancel = on_cancel;
	if (params.progress)
		begin_progress(verifying);
}
