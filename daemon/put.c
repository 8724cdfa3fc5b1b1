/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/put_internal.h"

#include <stdio.h>
#include <string.h>

#include "common/alloc.h"

enum {
	USER_PUTS_MAX = 1000,
	FORGET_STEP = 64, /* entries forgotten between two looks at the clock */
};

/* ---- the put ---- */

void put_run_slice(struct put *put, struct slice *slice)
{
	struct cache *cache = put->cache;

	if (!cache->stopping)
		slice_start(cache->slicer, slice);
	else
		while (slice->step(slice))
			continue;
}

struct blob_writer *put_take_writer(struct put *put)
{
	struct blob_writer *writer = writers_take(put->cache->writers);

	if (room_is_exceeded(&put->cache->room, put->expected))
		blob_writer_take_spare(writer);
	return writer;
}

void put_release_blob(struct put *put, const struct digest *digest, uint64_t brought)
{
	struct catalog *catalog = put->cache->catalog;
	struct catalog_entry *entry = brought && !put->is_good ? catalog_find(catalog, digest) : NULL;

	if (entry && entry->used == brought) /* no two uses have one time */
		entry->used = 0;
	catalog_release(catalog, digest, 0); /* storing it was its last use, and is noted */
}

static void forget_entry(struct put *put, struct put_entry *entry)
{
	if (entry->held)
		put_release_blob(put, &entry->digest, entry->brought);
	free(entry->name);
	free(entry->target);
}

static bool forget_step(struct slice *slice)
{
	struct put *put = CONTAINER_OF(slice, struct put, slice);

	for (unsigned i = 0; i < FORGET_STEP && put->entries.n; i++) {
		put->user->n_put_entries--;
		forget_entry(put, put_entry(put, put->entries.n - 1));
		blocks_pop(&put->entries);
	}
	if (put->entries.n)
		return true;
	put->cache->n_ending--;
	blocks_fini(&put->entries);
	blocks_fini(&put->directories);
	pool_queue_free(put->queue);
	put->user->n_puts--;
	user_put(put->user);
	free(put);
	return false;
}

void put_release(struct put *put)
{
	if (--put->refs)
		return;
	/* Rows of what was stored before it ended early: that is in the store all the same. */
	index_submit_gathered(put->cache->index);
	put->cache->n_ending++;
	slice_init_of(&put->slice, forget_step, &put->user->slices);
	put_run_slice(put, &put->slice);
}

static void on_session_gone(struct session_item *item)
{
	struct put *put = CONTAINER_OF(item, struct put, item);

	put->over = true;
	put_release(put);
}

void put_end(struct put *put)
{
	put->over = true;
	if (list_is_empty(&put->item.link))
		return;
	list_remove(&put->item.link);
	put_release(put);
}

static struct put *find_put(struct request *request, uint64_t number, struct err *err)
{
	list_for_each (l, &request->session->items) {
		struct session_item *item = LIST_ENTRY(l, struct session_item, link);
		struct put *put = CONTAINER_OF(item, struct put, item);

		if (item->gone == on_session_gone && put->number == number)
			return put;
	}
	err_set(err, ERR_FAILED_PRECONDITION,
		"put: there is no put %ju on this connection; if there was, it is over", (uintmax_t)number);
	return NULL;
}

uint64_t put_note_blob(struct put *put, const struct blob_info *info, enum blob_kind kind, bool is_new)
{
	bool is_as_was = catalog_confirm(put->cache->catalog, info, kind), unknown;
	struct catalog_entry *entry = catalog_add(put->cache->catalog, info, kind, &unknown);
	struct index_blob row = catalog_row_of(entry, info, kind);

	catalog_hold(put->cache->catalog, &info->digest);
	put->n_new += is_new;
	put->new_bytes += is_new ? info->digest.size : 0;
	if (!is_new && is_as_was && !info->inode) {
		index_use_blob(put->cache->index, row.row, row.used);
		return 0;
	}
	index_gather_blob(put->cache->index, &row);
	return is_new && unknown && row.kinds == 1u << kind ? row.used : 0;
}

char *put_path(const struct put *put, const struct put_entry *entry)
{
	char *path = xstrdup(entry->name ? entry->name : "the file");

	while (entry->parent) {
		char *shorter = path;

		entry = put_directory(put, entry->parent);
		path = xasprintf("%s/%s", entry->name, shorter);
		free(shorter);
	}
	return path;
}

/* The params of all steps. */
struct put_params {
	struct wire_bytes step, tag;
	uint64_t put, fds, bytes;
	const struct wire_value *entries;
};

static const struct wire_field put_fields[] = {
	WIRE_FIELD(struct put_params, step, WIRE_TEXT, true),
	WIRE_FIELD(struct put_params, tag, WIRE_TEXT, false),
	WIRE_FIELD(struct put_params, put, WIRE_UINT, false),
	WIRE_FIELD(struct put_params, fds, WIRE_UINT, false),
	WIRE_FIELD(struct put_params, bytes, WIRE_UINT, false),
	WIRE_FIELD(struct put_params, entries, WIRE_ARRAY, false),
};

/* ---- begin, commit, abort ---- */

static int check_puts(const struct user *user, struct err *err)
{
	if (user->n_puts < USER_PUTS_MAX)
		return 0;
	return err_set(err, ERR_RESOURCE_EXHAUSTED,
		       "put: user %u has begun %zu, and may have no more at a time", (unsigned)user->uid,
		       user->n_puts);
}

static void start_begin(struct request *request, const struct put_params *params)
{
	struct put *put = xcalloc(1, sizeof(*put));
	struct session *session = request->session;
	uint64_t room = space_room(request->cache->space);
	struct wire_out *out;

	put->cache = request->cache;
	put->queue = request_queue_new(request);
	put->number = session->n_numbered++;
	put->user = user_ref(request->user);
	put->user->n_puts++;
	put->refs = 1;
	(void)blocks_add(&put->directories, sizeof(size_t)); /* the root has no entry */
	put->expected = params->bytes;
	put->mark = index_mark(request->cache->index);
	put->item.gone = on_session_gone;
	list_init(&put->item.link);
	list_append(&session->items, &put->item.link);
	out = request_reply(request);
	wire_map(out, 1 + (room != UINT64_MAX));
	wire_put_uint(out, "put", put->number);
	if (room != UINT64_MAX)
		wire_put_uint(out, "room", room);
	request_send(request);
}

struct answer {
	struct put *put;
	struct request *request;
	struct digest digest;
	char *tag;
	bool held; /* the tree: whoever is told that it is stored, or names it, finds it */
};

static void on_tagged(void *ctx, int r, const struct err *err)
{
	struct answer *answer = ctx;
	struct put *put = answer->put;
	struct wire_out *out;

	if (r < 0) {
		request_fail(answer->request, err);
	} else {
		put->is_good = true;
		out = request_reply(answer->request);
		wire_map(out, 8);
		wire_put_digest(out, "digest", &answer->digest);
		wire_put_bool(out, "tree", !put->is_file);
		wire_put_uint(out, "files", put->n_files);
		wire_put_uint(out, "directories", put->is_file ? 0 : put->directories.n);
		wire_put_uint(out, "symlinks", put->n_symlinks);
		wire_put_uint(out, "bytes", put->bytes);
		wire_put_uint(out, "new_blobs", put->n_new);
		wire_put_uint(out, "new_bytes", put->new_bytes);
		request_send(answer->request);
	}
	if (answer->held)
		trees_unhold(put->cache->trees, &answer->digest);
	put_release(put);
	free(answer->tag);
	free(answer);
}

/* Everything that the tag needs is in the index. */
static void on_in_index(void *ctx, int r, const struct err *err)
{
	struct answer *answer = ctx;
	struct index_tag tag = { .name = answer->tag,
				 .digest = answer->digest,
				 .uid = answer->put->user->uid };

	if (r == 0 && answer->tag)
		tags_set(answer->put->cache->tags, &tag, on_tagged, answer);
	else
		on_tagged(answer, r, err);
}

void put_answer(struct put *put, struct request *request, const struct digest *digest, const char *tag,
		size_t tag_len)
{
	struct answer *answer = xmalloc(sizeof(*answer));

	*answer = (struct answer){ .put = put, .request = request, .digest = *digest };
	answer->held = !put->is_file && trees_hold(put->cache->trees, digest);
	answer->tag = tag ? xmemdupz(tag, tag_len) : NULL;
	index_barrier(put->cache->index, put->mark, on_in_index, answer);
}

static int check_commit(const struct put *put, const struct wire_bytes *tag, struct err *err)
{
	if (put->n_open)
		return err_set(err, ERR_FAILED_PRECONDITION,
			       "put: %zu requests with entries are not answered yet", put->n_open);
	return tag->data ? tags_check_set(put->cache->tags, tag->data, tag->len, put->user->uid, err) : 0;
}

static void start_commit(struct request *request, struct put *put, const struct put_params *params)
{
	struct err err = { 0 };

	if (check_commit(put, &params->tag, &err) < 0) {
		request_fail(request, &err);
		return;
	}
	/* The connection's reference becomes the commit's. */
	put->over = true;
	list_remove(&put->item.link);
	if (put->is_file)
		put_answer(put, request, &put_entry(put, 0)->digest, params->tag.data, params->tag.len);
	else
		put_commit_tree(put, request, params->tag.data, params->tag.len);
}

static void start_entries(struct request *request, struct put *put, const struct put_params *params)
{
	if (params->bytes)
		put->expected = params->bytes;
	put_start_entries(request, put, params->entries);
}

static void start_abort(struct request *request, struct put *put, const struct put_params *params)
{
	(void)params;
	put_end(put);
	request_ok(request);
}

/* The steps of a put that has begun. */
static const struct {
	const char *name;
	void (*start)(struct request *request, struct put *put, const struct put_params *params);
} steps[] = { { "entries", start_entries }, { "commit", start_commit }, { "abort", start_abort } };

static void start_step(struct request *request, const struct put_params *params, struct err *err)
{
	for (size_t i = 0; i < N_ELEMENTS(steps); i++) {
		struct put *put;

		if (!wire_is(&params->step, steps[i].name))
			continue;
		put = find_put(request, params->put, err);
		if (put)
			steps[i].start(request, put, params);
		return;
	}
	err_set(err, ERR_INVALID_ARGUMENT, "put: step: one of begin, entries, commit and abort is needed");
}

void put_start(struct request *request)
{
	struct put_params params = { 0 };
	struct err err = { 0 };

	if (wire_decode(request->params, put_fields, N_ELEMENTS(put_fields), &params, "put", &err) == 0) {
		if (!wire_is(&params.step, "begin"))
			start_step(request, &params, &err);
		else if (check_puts(request->user, &err) == 0)
			start_begin(request, &params);
	}
	if (err.set)
		request_fail(request, &err);
}
