/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/look.h"

#include <errno.h>
#include <fcntl.h>

#include "common/alloc.h"
#include "daemon/disk.h"

struct cat_params {
	struct digest digest;
};

static const struct wire_field fields[] = { WIRE_FIELD(struct cat_params, digest, WIRE_DIGEST, true) };

struct cat_job {
	struct job job;

	/* In. */
	struct blob_store *store;
	struct digest digest;

	/* Out. */
	int fd, r;
	struct err err;

	struct pool_queue *queue;
	struct request *request;
	struct flight_waiter waiter;
	bool was_renewed; /* once is enough */
};

static enum job_next cat_run(struct job *job)
{
	struct cat_job *cat = CONTAINER_OF(job, struct cat_job, job);

	if (!digest_is_empty(&cat->digest)) {
		cat->r = blob_open(cat->store, &cat->digest, &cat->fd, &cat->err);
		return JOB_DONE;
	}
	/* It is known without being stored: what reads as empty will do. */
	cat->r = cat->fd = disk_openat(AT_FDCWD, "/dev/null", O_RDONLY, 0);
	if (cat->fd < 0)
		err_errno(&cat->err, cat->fd, "opening '/dev/null'");
	else
		cat->r = 0;
	return JOB_DONE;
}

static void answer(struct cat_job *cat)
{
	struct wire_out *out = request_reply(cat->request);

	wire_map(out, 3);
	wire_put_digest(out, "digest", &cat->digest);
	wire_put_uint(out, "size", cat->digest.size);
	wire_put_uint(out, "fds", 1);
	request_send_fd(cat->request, cat->fd);
}

static void end(struct cat_job *cat)
{
	if (cat->r > 0)
		err_set(&cat->err, ERR_NOT_FOUND, "blob %s is not in the store", DIGEST_TEXT(&cat->digest));
	if (cat->r)
		request_fail_missing(cat->request, &cat->err, &cat->digest, cat->r > 0);
	else
		answer(cat);
	pool_queue_free(cat->queue);
	free(cat);
}

static void on_landed(struct flight_waiter *waiter, int r, const struct err *err)
{
	struct cat_job *cat = CONTAINER_OF(waiter, struct cat_job, waiter);

	if (r == 0) {
		pool_submit(cat->queue, &cat->job);
		return;
	}
	cat->r = r;
	if (r < 0)
		cat->err = *err;
	end(cat);
}

static void cat_done(struct job *job)
{
	struct cat_job *cat = CONTAINER_OF(job, struct cat_job, job);

	if (cat->r <= 0 || cat->was_renewed) {
		end(cat);
		return;
	}
	/* Lost or changed: it may be had from bytes that are still right. */
	cat->was_renewed = true;
	cat->waiter.landed = on_landed;
	flight_join(cat->request->cache->flights, &cat->digest, BLOB_PLAIN, false, &cat->waiter);
}

void cat_start(struct request *request)
{
	struct cat_params params;
	struct err err = { 0 };
	struct cat_job *cat;

	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &params, "cat", &err) < 0) {
		request_fail(request, &err);
		return;
	}
	cat = xcalloc(1, sizeof(*cat));
	cat->job = (struct job){ .run = cat_run, .done = cat_done };
	cat->store = request->cache->store;
	cat->digest = params.digest;
	cat->request = request;
	request_promise_fd(request);
	cat->queue = request_queue_new(request);
	uses_note(request->cache->uses, &cat->digest);
	pool_submit(cat->queue, &cat->job);
}
