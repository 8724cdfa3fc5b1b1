/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/materialize.h"

#include <errno.h>
#include <event2/event.h>
#include <string.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/place.h"
#include "daemon/plan.h"

static const struct timeval progress_interval = { .tv_usec = 100000 };

struct materialize_params {
	struct place_params place;
	struct digest digest;
	struct wire_bytes tag, mode;
	uint64_t lease; /* seconds */
	bool has_digest, file, executable, writable, require_link, progress, has_lease, lease_connection;
};

static const struct wire_field fields[] = {
	PLACE_FIELDS(struct materialize_params, place),
	WIRE_OPTIONAL(struct materialize_params, digest, WIRE_DIGEST, has_digest),
	WIRE_FIELD(struct materialize_params, tag, WIRE_TEXT, false),
	WIRE_FIELD(struct materialize_params, file, WIRE_BOOL, false),
	WIRE_FIELD(struct materialize_params, executable, WIRE_BOOL, false),
	WIRE_FIELD(struct materialize_params, mode, WIRE_TEXT, false),
	WIRE_FIELD(struct materialize_params, writable, WIRE_BOOL, false),
	WIRE_FIELD(struct materialize_params, require_link, WIRE_BOOL, false),
	WIRE_FIELD(struct materialize_params, progress, WIRE_BOOL, false),
	WIRE_OPTIONAL(struct materialize_params, lease, WIRE_UINT, has_lease),
	WIRE_FIELD(struct materialize_params, lease_connection, WIRE_BOOL, false),
};

struct materialize {
	struct request *request;
	struct materialize_params params;
	struct tree_request tree;
	struct trees *holder;        /* keeps the tree from eviction; NULL until it does */
	struct node *node;           /* a reference; NULL for a single file */
	struct file_node file;       /* the single file */
	struct catalog *file_holder; /* keeps it from eviction; NULL until it does */
	struct flight_waiter landing;
	struct pool_queue *queue;
	struct plan plan;
	struct event *progress;
	struct lease *lease; /* taken, or NULL */
	uint64_t mark;       /* of the index, at the beginning */
	bool has_folder;     /* the folder is still this request's to close */
	bool waiting, planning, cancelled;
};

static void materialize_free(struct materialize *m)
{
	if (m->progress)
		event_free(m->progress);
	if (m->holder)
		trees_unhold(m->holder, &m->params.digest);
	if (m->file_holder)
		catalog_release(m->file_holder, &m->params.digest, 0);
	lease_drop(m->lease);
	node_put(m->node);
	pool_queue_free(m->queue);
	free(m);
}

static void fail(struct materialize *m, const struct err *err, const struct digest *missing, size_t n_missing)
{
	struct request *request = m->request;

	if (m->has_folder)
		user_close_fds(request->user, &m->plan.target.folder, 1);
	m->has_folder = false;
	request_fail_missing(request, err, missing, n_missing);
	materialize_free(m);
}

/* ---- the answer ---- */

static void add_counters(struct counters *counters, const struct plan_counts *c)
{
	counters->files_linked += c->linked;
	counters->files_copied += c->copied;
	counters->files_reflinked += c->reflinked;
	counters->files_created += c->created;
	counters->fallback_copies += c->fallback;
	counters->directories_created += c->directories;
	counters->symlinks_created += c->symlinks;
}

static void put_totals(struct materialize *m, struct wire_out *out)
{
	static const char *const words[] = { [TREE_HIT] = "hit", [TREE_MISS] = "miss", [TREE_JOIN] = "join" };
	struct tree_totals one = { .n_files = 1, .bytes = m->file.digest.size };
	const struct tree_totals *t = m->node ? &m->node->totals : &one;

	wire_put_digest(out, "digest", &m->params.digest);
	if (m->node)
		wire_put_text(out, "cache", words[m->tree.cache]);
	wire_put_uint(out, "files", t->n_files);
	wire_put_uint(out, "directories", t->n_directories);
	wire_put_uint(out, "symlinks", t->n_symlinks);
	wire_put_uint(out, "bytes", t->bytes);
}

static void answer(struct materialize *m)
{
	struct wire_out *out = request_reply(m->request);
	const struct plan_counts *c = &m->plan.counts;
	bool fell_back = c->fallback > 0;

	if (m->lease)
		lease_grant(TAKE(m->lease), (unsigned)m->params.lease);
	wire_map(out, 9 + (m->node != NULL) + (fell_back ? 2 : 0));
	put_totals(m, out);
	wire_put_uint(out, "files_linked", c->linked);
	wire_put_uint(out, "files_copied", c->copied);
	wire_put_uint(out, "files_reflinked", c->reflinked);
	wire_put_uint(out, "files_created", c->created);
	if (fell_back) {
		wire_put_text(out, "fallback", plan_fallback(&m->plan));
		wire_put_uint(out, "fallback_copies", c->fallback);
	}
	request_send(TAKE(m->request));
	materialize_free(m);
}

static void on_in_index(void *ctx, int r, const struct err *err)
{
	if (r < 0) /* the tree is at its target all the same; after a restart it will be resolved anew */
		log_warning("the index has no row of a new tree: %s", err->text);
	answer(ctx);
}

static void on_planned(struct plan *plan)
{
	struct materialize *m = plan->ctx;

	m->request->cancel = NULL;
	add_counters(&m->request->cache->counters, &plan->counts);
	if (plan->r < 0)
		fail(m, &plan->err, plan->missing, plan->n_missing);
	else if (m->node && m->tree.cache != TREE_HIT)
		index_barrier(m->request->cache->index, m->mark, on_in_index, m);
	else
		answer(m);
}

/* ---- the way there ---- */

static void on_progress(evutil_socket_t fd, short what, void *arg)
{
	struct materialize *m = arg;
	const struct plan_counts *c = &m->plan.counts;

	(void)fd;
	(void)what;
	request_progress(m->request, c->linked + c->copied + c->reflinked + c->created,
			 m->node->totals.n_files, c->bytes, m->node->totals.bytes);
}

static void start_plan(struct materialize *m)
{
	struct cache *cache = m->request->cache;

	m->planning = true;
	m->has_folder = false; /* the plan closes it */
	m->plan.store = cache->store;
	m->plan.mount = cache->mount;
	m->plan.client = identity_acting_for(m->request->identity);
	m->plan.flights = cache->flights;
	m->plan.queue = m->queue;
	m->plan.max_workers = cache->n_hands;
	m->plan.root = m->node;
	m->plan.file = m->node ? NULL : &m->file;
	m->plan.writable = m->params.writable;
	m->plan.require_link = m->params.require_link;
	m->plan.done = on_planned;
	m->plan.ctx = m;
	if (m->params.progress && m->node) {
		m->progress = event_new(cache->base, -1, EV_PERSIST, on_progress, m);
		if (m->progress)
			(void)event_add(m->progress, &progress_interval);
	}
	plan_start(&m->plan);
}

/* There must be room for it before anything is made. */
static int take_lease(struct materialize *m, struct err *err)
{
	struct session *session = m->request->session;

	if (!m->params.has_lease && !m->params.lease_connection)
		return 0;
	return lease_take(m->request->cache->leases, &m->params.digest, m->request->identity->uid,
			  m->params.lease_connection ? &session->leases : NULL, &m->lease, err);
}

static void on_tree(struct tree_request *tree, int r)
{
	struct materialize *m = CONTAINER_OF(tree, struct materialize, tree);
	struct err err = { 0 };

	m->waiting = false;
	if (r < 0) {
		fail(m, tree->err, tree->missing, tree->n_missing);
		return;
	}
	m->node = tree->node;
	if (trees_hold(m->request->cache->trees, &m->params.digest))
		m->holder = m->request->cache->trees;
	if (take_lease(m, &err) < 0)
		fail(m, &err, NULL, 0);
	else
		start_plan(m);
}

static void on_cancel(struct request *request)
{
	struct materialize *m = request->ctx;
	struct err err = { 0 };

	m->cancelled = true;
	if (m->planning) {
		plan_cancel(&m->plan);
	} else if (m->waiting) {
		tree_cancel(&m->tree);
		err_set(&err, ERR_CANCELLED, "materialize: cancelled");
		fail(m, &err, NULL, 0);
	}
}

static void on_file_landed(struct flight_waiter *waiter, int r, const struct err *err)
{
	struct materialize *m = CONTAINER_OF(waiter, struct materialize, landing);
	struct err mine = { 0 };

	if (m->cancelled)
		err_set(&mine, ERR_CANCELLED, "materialize: cancelled");
	else if (r == BLOB_MISSING)
		err_set(&mine, ERR_NOT_FOUND, "blob %s is not in the store", DIGEST_TEXT(&m->file.digest));
	if (mine.set)
		fail(m, &mine, &m->file.digest, !m->cancelled);
	else if (r < 0)
		fail(m, err, NULL, 0);
	else
		start_plan(m);
}

/* A single file is linked by what the disk says; where that is in doubt, its bytes are looked at first. */
static void start_file(struct materialize *m)
{
	struct cache *cache = m->request->cache;

	uses_note(cache->uses, &m->params.digest);
	catalog_hold(cache->catalog, &m->params.digest);
	m->file_holder = cache->catalog;
	m->file = (struct file_node){ .name = m->plan.target.name,
				      .digest = m->params.digest,
				      .executable = m->params.executable };
	if (!blob_store_in_doubt(cache->store) || digest_is_empty(&m->file.digest)) {
		start_plan(m);
		return;
	}
	m->landing.landed = on_file_landed;
	flight_join(cache->flights, &m->file.digest, m->file.executable ? BLOB_EXEC : BLOB_PLAIN, false,
		    &m->landing);
}

static void on_place(struct request *request, int r, const struct place *place, const struct err *err)
{
	struct materialize *m = request->ctx;
	struct cache *cache = request->cache;
	struct err mine = { 0 };

	if (r < 0) {
		fail(m, err, NULL, 0);
		return;
	}
	m->has_folder = true;
	if (target_init(&m->plan.target, cache->staging, place->folder, place->name.data, place->name.len,
			&mine) < 0 ||
	    (m->cancelled && err_set(&mine, ERR_CANCELLED, "materialize: cancelled") < 0)) {
		fail(m, &mine, NULL, 0);
		return;
	}
	if (m->params.file) {
		start_file(m);
		return;
	}
	m->waiting = true;
	m->tree.done = on_tree;
	tree_get(cache->trees, &m->params.digest, TREE_FOR_MATERIALIZE, &m->tree);
}

static int check_lease(const struct materialize_params *params, struct err *err)
{
	if (params->file && (params->has_lease || params->lease_connection))
		return err_set(err, ERR_INVALID_ARGUMENT, "materialize: a lease is on a tree, not on a file");
	if (params->has_lease && params->lease_connection)
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "materialize: one of `lease` and `lease_connection`, not both");
	if (params->has_lease && (params->lease < 1 || params->lease > LEASE_SECONDS_MAX))
		return err_set(err, ERR_INVALID_ARGUMENT, "materialize: lease: 1 to %d seconds",
			       LEASE_SECONDS_MAX);
	return 0;
}

/* What the params say together. */
static int check_params(struct materialize *m, struct err *err)
{
	static const char *const modes[] = {
		[PLAN_LINK] = "link", [PLAN_REFLINK] = "reflink", [PLAN_COPY] = "copy"
	};
	const struct materialize_params *params = &m->params;
	size_t mode = PLAN_LINK;

	while (params->mode.data && mode < N_ELEMENTS(modes) && !wire_is(&params->mode, modes[mode]))
		mode++;
	if (params->executable && !params->file)
		return err_set(err, ERR_INVALID_ARGUMENT, "materialize: executable goes with file only");
	if (mode == N_ELEMENTS(modes))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "materialize: mode is one of link, reflink and copy");
	if (params->require_link && (mode != PLAN_LINK || params->writable))
		return err_set(err, ERR_INVALID_ARGUMENT,
			       "materialize: require_link goes with the mode link, and not with writable");
	m->plan.mode = (enum plan_mode)mode;
	return check_lease(params, err);
}

void materialize_start(struct request *request)
{
	struct materialize *m = xcalloc(1, sizeof(*m));
	struct err err = { 0 };

	m->request = request;
	m->queue = request_queue_new(request);
	m->mark = index_mark(request->cache->index);
	request->ctx = m;
	request->cancel = on_cancel;
	if (wire_decode(request->params, fields, N_ELEMENTS(fields), &m->params, "materialize", &err) < 0 ||
	    request_digest(request, m->params.has_digest, m->params.tag, &m->params.digest, &err) < 0 ||
	    check_params(m, &err) < 0) {
		fail(m, &err, NULL, 0);
		return;
	}
	place_get(request, &m->params.place, on_place);
}
