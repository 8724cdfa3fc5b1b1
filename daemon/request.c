/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/request.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "common/alloc.h"

enum {
	VALUES_HERE = 4096,       /* parsed by the loop: some 0.1 ms */
	REQUEST_BYTES = 10 << 10, /* that a request takes, with the memory into which it is parsed, */
	VALUE_BYTES = 24,         /* and each of its values */
};

/* ---- life ---- */

void request_hold(struct request *request)
{
	assert(!request->holds && request->session);
	request->holds = true;
	request->session->n_held++;
}

static void unhold(struct request *request)
{
	if (request->session)
		request->session->n_held -= request->holds;
	request->holds = false;
}

void request_release(struct request *request)
{
	unhold(request);
	if (request->session)
		request->session->request_ended(request->session);
}

/* The memory of a message that is large, or has many values: a worker gives it back. */
struct remains {
	struct job job;

	/* In. */
	char *bytes;
	struct wire_message message;

	/* The loop's. */
	bool is_large;
	size_t weight; /* of the user's bytes */
	struct service *service;
	struct user *user;
};

static enum job_next remains_run(struct job *job)
{
	struct remains *remains = CONTAINER_OF(job, struct remains, job);

	wire_message_fini(&remains->message);
	free(remains->bytes);
	return JOB_DONE;
}

static void remains_done(struct job *job)
{
	struct remains *remains = CONTAINER_OF(job, struct remains, job);

	if (remains->is_large) {
		service_give_large(remains->service, remains->user);
		remains->service->freed(remains->service);
	}
	user_give_bytes(remains->user, remains->weight);
	user_put(remains->user);
	free(remains);
}

static void drop_message(struct request *request)
{
	struct remains *remains;

	if (!request->is_large && !request->is_heavy) {
		wire_message_fini(&request->message);
		free(request->bytes);
		user_give_bytes(request->user, request->weight);
		return;
	}
	remains = xmalloc(sizeof(*remains));
	*remains = (struct remains){
		.job = { .run = remains_run, .done = remains_done },
		.bytes = request->bytes,
		.message = request->message,
		.is_large = request->is_large,
		.weight = request->weight,
		.service = request->service,
		.user = user_ref(request->user),
	};
	pool_submit(request->user->chores, &remains->job);
}

static void request_free(struct request *request)
{
	struct service *service = request->service;
	size_t n_open = 0, n_fds = request->n_fds;

	service->n_fds -= n_fds;
	request->user->n_fds -= n_fds;
	for (size_t i = 0; i < request->n_fds; i++)
		if (request->fds[i] >= 0)
			request->fds[n_open++] = request->fds[i];
	if (n_open)
		user_close_fds(request->user, request->fds, n_open);
	list_remove(&request->link);
	list_remove(&request->waiting);
	drop_message(request);
	wire_out_fini(&request->out);
	free(request->fds);
	user_put(request->user);
	identity_put(request->identity);
	free(request);
	if (n_fds)
		service->freed(service);
}

/* The request is open no more. */
static void uncount(struct request *request)
{
	user_settle_fds(request->user, request->promises_fd);
	request->cache->counters.requests_active--;
	request->user->n_requests--;
	if (request->session)
		request->session->n_requests--;
	unhold(request);
}

/* Send what is written, if anybody is there to have it, and end. */
static void end(struct request *request, int fd)
{
	struct session *session = request->session;

	uncount(request);
	if (session) {
		size_t len;
		char *bytes = wire_out_take(&request->out, &len);

		session->send(session, bytes, len, fd);
	} else if (fd >= 0) {
		user_close_fds(request->user, &fd, 1);
	}
	request_free(request);
	if (session)
		session->request_ended(session);
}

void request_promise(struct request *request, size_t bytes)
{
	request->weight += bytes;
	user_take_bytes(request->user, bytes);
}

void request_promise_fd(struct request *request)
{
	assert(!request->promises_fd);
	request->promises_fd = true;
	user_promise_fd(request->user);
}

struct wire_out *request_reply(struct request *request)
{
	wire_response(&request->out, request->message.id);
	return &request->out;
}

void request_send(struct request *request)
{
	end(request, -1);
}

void request_send_fd(struct request *request, int fd)
{
	end(request, fd);
}

void request_send_written(struct request *request, struct wire_out *response)
{
	request->out = *response;
	*response = (struct wire_out){ 0 };
	end(request, -1);
}

void request_ok(struct request *request)
{
	wire_map(request_reply(request), 0);
	request_send(request);
}

void request_fail_missing(struct request *request, const struct err *err, const struct digest *missing,
			  size_t n)
{
	request->cache->counters.errors++;
	wire_error_response(&request->out, request->message.id, err, missing, n);
	end(request, -1);
}

void request_fail(struct request *request, const struct err *err)
{
	request_fail_missing(request, err, NULL, 0);
}

void request_progress(struct request *request, uint64_t files, uint64_t files_total, uint64_t bytes,
		      uint64_t bytes_total)
{
	struct wire_out out = { 0 };
	char *message;
	size_t len;

	if (!request->session)
		return;
	wire_notification(&out, "progress");
	wire_map(&out, 5);
	wire_put_uint(&out, "id", request->message.id);
	wire_put_uint(&out, "files", files);
	wire_put_uint(&out, "files_total", files_total);
	wire_put_uint(&out, "bytes", bytes);
	wire_put_uint(&out, "bytes_total", bytes_total);
	message = wire_out_take(&out, &len);
	request->session->send(request->session, message, len, -1);
}

struct pool_queue *request_queue_new(const struct request *request)
{
	return pool_queue_new_of(request->user->workers);
}

int request_take_fd(struct request *request, size_t i)
{
	return i < request->n_fds ? TAKE_FD(request->fds[i]) : -1;
}

/* ---- beginning ---- */

static const struct method *find_method(const struct service *service, const struct wire_bytes *name)
{
	for (const struct method *method = service->methods; method->name; method++)
		if (wire_is(name, method->name))
			return method;
	return NULL;
}

/* The number of descriptors that the params speak of. */
static uint64_t declared_fds(const struct wire_value *params)
{
	static const struct wire_field fields[] = { { .name = "fds", .type = WIRE_UINT } };
	uint64_t n = 0;

	/* A wrong type, or a key that comes twice, is for the method to refuse. */
	(void)wire_decode_open(params, fields, N_ELEMENTS(fields), &n, "", NULL);
	return n;
}

static int check_fds(const struct request *request, bool truncated, struct err *err)
{
	uint64_t declared = declared_fds(request->params);

	if (truncated)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "descriptors were lost on the way: the daemon has too many open, or more than "
			       "%d came",
			       WIRE_DESCRIPTORS_MAX);
	if (declared != request->n_fds)
		return err_set(err, ERR_INVALID_ARGUMENT, "fds: %ju descriptors were announced, %zu came",
			       (uintmax_t)declared, request->n_fds);
	return 0;
}

static bool id_is_open(const struct session *session, const struct request *request)
{
	list_for_each (l, &session->requests) {
		const struct request *other = LIST_ENTRY(l, struct request, link);

		if (other != request && other->message.id == request->message.id)
			return true;
	}
	return false;
}

/* May this method begin, by this client and now? */
static int check_method(const struct request *request, const struct method *method, struct err *err)
{
	if (method->admin && !identity_is_admin(request->identity->uid))
		return identity_refuse(method->name, err);
	if (request->session->is_reserved && !method->admin && !method->any_time)
		return err_set(err, ERR_RESOURCE_EXHAUSTED,
			       "%s: so many connections are open that this one is for administration only "
			       "(max-connections, max-user-connections)",
			       method->name);
	if (request->service->stopping && !method->any_time)
		return err_set(err, ERR_UNAVAILABLE, "%s: the daemon is stopping", method->name);
	return 0;
}

static void begin(struct request *request)
{
	const struct wire_bytes *name = &request->message.method;
	const struct method *method = find_method(request->service, name);
	struct err err = { 0 };

	if (!method) {
		err_set(&err, ERR_INVALID_ARGUMENT, "there is no method '%.*s'",
			name->len > 64 ? 64 : (int)name->len, name->data);
		request_fail(request, &err);
		return;
	}
	if (check_method(request, method, &err) < 0)
		request_fail(request, &err);
	else if (!request->cache->ready && !method->any_time)
		list_append(&request->service->waiting, &request->waiting);
	else
		method->start(request);
}

void requests_ready(struct service *service)
{
	struct list *l;

	while ((l = list_pop(&service->waiting)))
		begin(LIST_ENTRY(l, struct request, waiting));
}

static struct request *request_new(struct session *session, struct packet *packet)
{
	struct request *request = xcalloc(1, sizeof(*request));

	request->session = session;
	request->identity = identity_get(session->identity);
	request->user = user_ref(session->user);
	request->service = session->service;
	request->cache = session->service->cache;
	request->bytes = TAKE(packet->bytes);
	request->is_large = packet->is_large;
	request->is_heavy = packet->values > VALUES_HERE;
	request->fds = TAKE(packet->fds);
	request->n_fds = packet->n_fds;
	list_init(&request->link);
	list_init(&request->waiting);
	session_count_fds(session, packet->n_fds);
	if (!request->is_large) /* of those there are few: USER_LARGE_MAX */
		request_promise(request, REQUEST_BYTES + packet->len + packet->values * VALUE_BYTES);
	session->n_requests++;
	request->user->n_requests++;
	request->cache->counters.requests_active++;
	list_append(&session->requests, &request->link);
	return request;
}

/* Parsed: is it one that may begin? */
static int check_request(const struct request *request, bool truncated, struct err *err)
{
	const struct session *session = request->session;
	int r = user_check_requests(request->user, err);

	if (r == 0 && request->cancelled)
		return err_set(err, ERR_CANCELLED, "cancelled before it began");
	if (r == 0 && id_is_open(session, request))
		return err_set(err, ERR_INVALID_ARGUMENT, "the id %u is that of an open request",
			       request->message.id);
	return r < 0 ? r : check_fds(request, truncated, err);
}

static void start_parsed(struct request *request, bool truncated)
{
	struct err refused = { 0 };

	request->params = request->message.params;
	request->cache->counters.requests++;
	if (check_request(request, truncated, &refused) < 0)
		request_fail(request, &refused);
	else
		begin(request);
}

static int parse(const char *bytes, size_t len, struct wire_message *message, struct err *err)
{
	int r = wire_parse(bytes, len, message, err);

	if (r == 0 && message->type != WIRE_REQUEST) {
		err_set(err, ERR_INVALID_ARGUMENT, "a client sends requests only");
		r = -EBADMSG;
	}
	return r;
}

/* One of many values, while a worker parses it. */
struct parsing {
	struct job job;

	/* In. */
	const char *bytes;
	size_t len;

	/* Out. */
	struct wire_message message;
	int r;
	struct err err;

	struct pool_queue *queue;
	struct request *request;
	bool truncated;
};

static enum job_next parsing_run(struct job *job)
{
	struct parsing *parsing = CONTAINER_OF(job, struct parsing, job);

	parsing->r = parse(parsing->bytes, parsing->len, &parsing->message, &parsing->err);
	return JOB_DONE;
}

static void parsing_done(struct job *job)
{
	struct parsing *parsing = CONTAINER_OF(job, struct parsing, job);
	struct request *request = parsing->request;
	struct session *session = request->session;

	request->message = parsing->message;
	if (session && parsing->r == 0) {
		unhold(request); /* it may hold again as it begins */
		start_parsed(request, parsing->truncated);
		session->request_ended(session);
	} else {
		uncount(request);
		request_free(request);
		if (session)
			session->refuse(session, &parsing->err);
	}
	pool_queue_free(parsing->queue);
	free(parsing);
}

static void start_parsing(struct request *request, const struct packet *packet)
{
	struct parsing *parsing = xmalloc(sizeof(*parsing));

	request_hold(request);
	*parsing = (struct parsing){
		.job = { .run = parsing_run, .done = parsing_done },
		.bytes = request->bytes,
		.len = packet->len,
		.queue = request_queue_new(request),
		.request = request,
		.truncated = packet->truncated,
	};
	pool_submit(parsing->queue, &parsing->job);
}

int request_start(struct session *session, struct packet *packet, struct err *err)
{
	struct request *request = request_new(session, packet);
	int r;

	if (request->is_heavy) {
		start_parsing(request, packet);
		return 0;
	}
	r = parse(request->bytes, packet->len, &request->message, err);
	if (r < 0) {
		uncount(request);
		request_free(request);
		return r;
	}
	start_parsed(request, packet->truncated);
	return 0;
}

int request_digest(struct request *request, bool has_digest, struct wire_bytes tag, struct digest *digest,
		   struct err *err)
{
	const struct digest *named;

	if (has_digest == (tag.data != NULL))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "one of `digest` and `tag` is needed, and not both");
	if (has_digest)
		return 0;
	named = tags_find(request->cache->tags, tag.data, tag.len);
	if (!named)
		return err_set(err, ERR_NOT_FOUND, "there is no tag '%.*s'",
			       tag.len > 255 ? 255 : (int)tag.len, tag.data);
	*digest = *named;
	return 0;
}
