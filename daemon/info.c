/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/info.h"

#include "common/alloc.h"
#include "common/directory.h"
#include "common/log.h"

enum {
	PROTOCOL_VERSION = 1,
	TAG_STEP = 64, /* tags told in one step of a slice: some 10 us */
};

/* For methods without params. Return: false when there were any, and the request has failed. */
static bool no_params(struct request *request, const char *method)
{
	struct err err = { 0 };

	if (wire_decode(request->params, NULL, 0, NULL, method, &err) == 0)
		return true;
	request_fail(request, &err);
	return false;
}

void ping_start(struct request *request)
{
	struct wire_out *out;
	size_t n = 0;

	if (!no_params(request, "ping"))
		return;
	for (const struct method *method = request->service->methods; method->name; method++)
		n++;
	out = request_reply(request);
	wire_map(out, 6);
	wire_put_text(out, "version", PACKAGE_VERSION);
	wire_put_uint(out, "protocol", PROTOCOL_VERSION);
	wire_put_bool(out, "ready", request->cache->ready && !request->service->stopping);
	wire_put_uint(out, "pid", (uint64_t)getpid());
	wire_put_uint(out, "uid", (uint64_t)geteuid());
	wire_text(out, "features");
	wire_array(out, n);
	for (const struct method *method = request->service->methods; method->name; method++)
		wire_text(out, method->name);
	request_send(request);
}

struct stats {
	struct request *request;
	struct usage_waiter usage;
};

static void answer_stats(struct request *request)
{
	const struct counters *c = cache_count(request->cache);
	struct wire_out *out = request_reply(request);
	size_t n = 0;

#define COUNTER(name, meaning) n++;
#include "daemon/counters.def"
#undef COUNTER
	wire_map(out, n);
#define COUNTER(name, meaning) wire_put_uint(out, #name, c->name);
#include "daemon/counters.def"
#undef COUNTER
	request_send(request);
}

static void on_measured(struct usage_waiter *usage, int r, const struct err *err)
{
	struct stats *stats = CONTAINER_OF(usage, struct stats, usage);

	if (r < 0) /* what was measured before will do */
		log_warning("stats: %s", err->text);
	answer_stats(stats->request);
	free(stats);
}

/* Before the index is read there is nothing to measure. */
void stats_start(struct request *request)
{
	struct stats *stats;

	if (!no_params(request, "stats"))
		return;
	if (!request->cache->ready) {
		answer_stats(request);
		return;
	}
	stats = xcalloc(1, sizeof(*stats));
	stats->request = request;
	stats->usage.measured = on_measured;
	usage_measure(request->cache->usage, &stats->usage);
}

/* The answer of `tags`, a few of them at a time. */
struct tag_list {
	struct request *request;
	struct wire_out *out;
	struct tags_view *view;
	size_t n_told;
	struct slice slice;
};

static void tell_tag(struct wire_out *out, const struct index_tag *tag)
{
	wire_map(out, 3);
	wire_put_text(out, "name", tag->name);
	wire_put_digest(out, "digest", &tag->digest);
	wire_put_uint(out, "uid", tag->uid);
}

static bool tag_list_step(struct slice *slice)
{
	struct tag_list *list = CONTAINER_OF(slice, struct tag_list, slice);

	for (unsigned i = 0; i < TAG_STEP && list->n_told < list->view->n; i++) {
		struct index_tag tag = tags_view_at(list->view, list->n_told++);

		tell_tag(list->out, &tag);
	}
	if (list->n_told < list->view->n)
		return true;
	request_send(list->request);
	tags_view_free(list->view);
	free(list);
	return false;
}

void tags_start(struct request *request)
{
	struct tag_list *list;

	if (!no_params(request, "tags"))
		return;
	list = xmalloc(sizeof(*list));
	*list = (struct tag_list){ .request = request, .out = request_reply(request) };
	list->view = tags_view(request->cache->tags, request->identity->uid);
	wire_map(list->out, 1);
	wire_text(list->out, "tags");
	wire_array(list->out, list->view->n);
	slice_init(&list->slice, tag_list_step);
	slice_start(request->cache->slicer, &list->slice);
}

struct tag_params {
	struct wire_bytes name;
	struct digest digest;
	bool has_digest, delete;
};

static const struct wire_field tag_fields[] = {
	WIRE_FIELD(struct tag_params, name, WIRE_TEXT, true),
	WIRE_OPTIONAL(struct tag_params, digest, WIRE_DIGEST, has_digest),
	WIRE_FIELD(struct tag_params, delete, WIRE_BOOL, false),
};

static void on_tagged(void *ctx, int r, const struct err *err)
{
	struct request *request = ctx;

	if (r < 0)
		request_fail(request, err);
	else
		request_ok(request);
}

static void delete_tag(struct request *request, const struct wire_bytes *name)
{
	struct tags *tags = request->cache->tags;
	struct err err = { 0 };

	if (tags_check_delete(tags, name->data, name->len, request->identity->uid, &err) < 0)
		request_fail(request, &err);
	else
		(void)tags_delete(tags, name->data, name->len, on_tagged, request);
}

/* What is not here cannot be pinned. */
static bool is_here(struct request *request, const struct digest *digest)
{
	return digest_is_empty(digest) || catalog_has(request->cache->catalog, digest, BLOB_PLAIN) ||
	       catalog_has(request->cache->catalog, digest, BLOB_EXEC);
}

/* A tag on its way into the index: what it names is kept meanwhile. */
struct tagging {
	struct request *request;
	char *name;
	struct digest digest;
	uid_t uid;
	struct tree_request tree;
	bool holds_tree;
};

static void on_tag_set(void *ctx, int r, const struct err *err)
{
	struct tagging *tagging = ctx;
	struct cache *cache = tagging->request->cache;

	if (tagging->holds_tree)
		trees_unhold(cache->trees, &tagging->digest);
	catalog_release(cache->catalog, &tagging->digest, 0);
	on_tagged(tagging->request, r, err);
	free(tagging->name);
	free(tagging);
}

static void set_tag(struct tagging *tagging)
{
	struct index_tag tag = {
		.name = tagging->name,
		.digest = tagging->digest,
		.uid = tagging->uid,
	};

	tags_set(tagging->request->cache->tags, &tag, on_tag_set, tagging);
}

/* It is a tree of its own now, or it cannot be read, and the tag pins a blob. */
static void on_tree_kept(struct tree_request *tree, int r)
{
	struct tagging *tagging = CONTAINER_OF(tree, struct tagging, tree);

	if (r == 0)
		node_put(tree->node);
	tagging->holds_tree = trees_hold(tagging->request->cache->trees, &tagging->digest);
	set_tag(tagging);
}

/*
 * A tree is cached as one of its own, be it there as a part of another, which may go, or as blobs that nobody
 * has resolved yet: then all below it is held. What may be a Directory is tried; most files are none.
 */
static void begin_tag(struct request *request, const struct tag_params *params)
{
	struct cache *cache = request->cache;
	struct tagging *tagging = xcalloc(1, sizeof(*tagging));

	tagging->request = request;
	tagging->name = xmemdupz(params->name.data, params->name.len);
	tagging->digest = params->digest;
	tagging->uid = request->identity->uid;
	catalog_hold(cache->catalog, &tagging->digest);
	tagging->holds_tree = trees_hold(cache->trees, &tagging->digest);
	if (tagging->holds_tree || tagging->digest.size > DIRECTORY_BYTES_MAX) {
		set_tag(tagging);
		return;
	}
	tagging->tree.done = on_tree_kept;
	tree_get(cache->trees, &tagging->digest, TREE_FOR_PUT, &tagging->tree);
}

void tag_start(struct request *request)
{
	struct tag_params params = { 0 };
	struct err err = { 0 };

	if (wire_decode(request->params, tag_fields, N_ELEMENTS(tag_fields), &params, "tag", &err) < 0) {
		request_fail(request, &err);
	} else if (params.has_digest == params.delete) {
		err_set(&err, ERR_INVALID_ARGUMENT,
			"tag: one of `digest` and `delete` is needed, and not both");
		request_fail(request, &err);
	} else if (params.delete) {
		delete_tag(request, &params.name);
	} else if (tags_check_set(request->cache->tags, params.name.data, params.name.len,
				  request->identity->uid, &err) < 0) {
		request_fail(request, &err);
	} else if (!is_here(request, &params.digest)) {
		err_set(&err, ERR_NOT_FOUND, "tag: %s is not in the store", DIGEST_TEXT(&params.digest));
		request_fail_missing(request, &err, &params.digest, 1);
	} else {
		begin_tag(request, &params);
	}
}

struct cancel_params {
	uint64_t id;
};

static const struct wire_field cancel_fields[] = { WIRE_FIELD(struct cancel_params, id, WIRE_UINT, true) };

void cancel_start(struct request *request)
{
	struct cancel_params params;
	struct err err = { 0 };

	if (wire_decode(request->params, cancel_fields, N_ELEMENTS(cancel_fields), &params, "cancel", &err) <
	    0) {
		request_fail(request, &err);
		return;
	}
	if (params.id <= UINT32_MAX && params.id != request->message.id)
		(void)request_cancel(request->session, (uint32_t)params.id);
	request_ok(request);
}

void stop_start(struct request *request)
{
	struct service *service = request->service;

	if (!no_params(request, "stop"))
		return;
	request_ok(request);
	service->stop(service);
}
