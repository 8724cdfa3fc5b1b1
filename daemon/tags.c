/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tags_internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/map.h"

/* A digest that tags name. */
struct pin {
	struct digest digest; /* first: the key in the map */
	size_t n;             /* of them */
};

struct tags *tags_new(struct pool *pool, struct index *index, int store_fd, uint64_t max_of_user)
{
	struct tags *tags = xcalloc(1, sizeof(*tags));

	tags->queue = pool_queue_new(pool);
	list_init(&tags->pending);
	list_init(&tags->committed);
	list_init(&tags->comparisons);
	tags->max_of_user = max_of_user;
	map_init(&tags->pins);
	tags->index = index;
	tags->store_fd = store_fd;
	return tags;
}

void tags_free(struct tags *tags)
{
	if (!tags)
		return;
	tags_clear(tags);
	free(tags->items);
	map_fini(&tags->pins);
	pool_queue_free(tags->queue);
	free(tags);
}

int tag_check_name(const char *name, size_t len, struct err *err)
{
	static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-/";
	struct digest digest;
	bool good = len >= 1 && len <= TAG_NAME_MAX && !strchr("._-/", name[0]);

	for (size_t i = 0; good && i < len; i++)
		good = name[i] && strchr(allowed, name[i]);
	if (good && digest_parse(name, len, &digest) < 0)
		return 0;
	return err_set(err, ERR_INVALID_ARGUMENT,
		       "'%.*s' cannot be a tag: 1 to 255 of A-Z a-z 0-9 . _ - / that begin with a letter or "
		       "digit and "
		       "are no digest",
		       len > TAG_NAME_MAX ? TAG_NAME_MAX : (int)len, name);
}

size_t tags_position(const struct tags *tags, const char *name, size_t len, bool *found)
{
	size_t low = 0, high = tags->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strncmp(tags->items[middle]->name, name, len);

		if (order == 0 && tags->items[middle]->name[len])
			order = 1;
		if (order == 0) {
			*found = true;
			return middle;
		}
		if (order < 0)
			low = middle + 1;
		else
			high = middle;
	}
	*found = false;
	return low;
}

static void pin(struct tags *tags, const struct digest *digest)
{
	struct pin *pin = map_find(&tags->pins, digest);

	if (!pin) {
		pin = xcalloc(1, sizeof(*pin));
		pin->digest = *digest;
		map_add(&tags->pins, &pin->digest);
	}
	pin->n++;
}

static void unpin(struct tags *tags, const struct digest *digest)
{
	struct pin *pin = map_find(&tags->pins, digest);

	if (--pin->n)
		return;
	map_remove(&tags->pins, &pin->digest);
	free(pin);
}

bool tags_pin(const struct tags *tags, const struct digest *digest)
{
	return map_find(&tags->pins, digest);
}

static struct tag *tag_new(const struct index_tag *from)
{
	size_t size = strlen(from->name) + 1;
	struct tag *tag = xmalloc(sizeof(*tag) + size);

	*tag = (struct tag){ .refs = 1, .uid = from->uid, .digest = from->digest };
	memcpy(tag->name, from->name, size);
	return tag;
}

static void tag_unref(struct tag *tag)
{
	if (atomic_fetch_sub_explicit(&tag->refs, 1, memory_order_acq_rel) == 1)
		free(tag);
}

/* Take one of the table out of it: views may still have it. */
static void let_go(struct tags *tags, size_t i)
{
	unpin(tags, &tags->items[i]->digest);
	tag_unref(tags->items[i]);
}

void tags_put(struct tags *tags, const struct index_tag *tag)
{
	struct tag *new = tag_new(tag);
	bool found;
	size_t i = tags_position(tags, new->name, strlen(new->name), &found);

	pin(tags, &new->digest);
	if (found) {
		let_go(tags, i);
	} else {
		tags->items = xgrow(tags->items, tags->n, &tags->capacity, sizeof(*tags->items));
		memmove(&tags->items[i + 1], &tags->items[i], (tags->n - i) * sizeof(*tags->items));
		tags->n++;
	}
	tags->items[i] = new;
}

bool tags_load(struct tags *tags, const struct index_tag *tag)
{
	if (tag_check_name(tag->name, strlen(tag->name), NULL) < 0)
		return false;
	tags_put(tags, tag);
	return true;
}

void tags_clear(struct tags *tags)
{
	while (tags->n)
		let_go(tags, --tags->n);
}

void tags_drop(struct tags *tags, const char *name)
{
	bool found;
	size_t i = tags_position(tags, name, strlen(name), &found);

	if (!found)
		return;
	let_go(tags, i);
	tags->n--;
	memmove(&tags->items[i], &tags->items[i + 1], (tags->n - i) * sizeof(*tags->items));
}

const struct digest *tags_find(const struct tags *tags, const char *name, size_t len)
{
	bool found;
	size_t i = tags_position(tags, name, len, &found);

	return found ? &tags->items[i]->digest : NULL;
}

void tags_end_change(struct change *change, int r, const struct err *err)
{
	change->done(change->ctx, r, err);
	free(change);
}

static void on_committed(void *ctx, int r, const struct err *err)
{
	struct change *change = ctx;
	struct tags *tags = change->tags;

	list_remove(&change->link);
	if (r < 0) {
		tags_end_change(change, r, err);
		return;
	}
	if (change->is_deletion)
		tags_drop(tags, change->tag.name);
	else
		tags_put(tags, &change->tag);
	list_append(&tags->committed, &change->link);
	tags_attend_to_file(tags);
}

static struct change *change_new(struct tags *tags, const char *name, tags_done *done, void *ctx)
{
	size_t size = strlen(name) + 1;
	struct change *change = xcalloc(1, sizeof(*change) + size);

	change->tags = tags;
	change->tag.name = memcpy(change->name, name, size);
	change->done = done;
	change->ctx = ctx;
	list_init(&change->link);
	list_append(&tags->pending, &change->link);
	return change;
}

void tags_set(struct tags *tags, const struct index_tag *tag, tags_done *done, void *ctx)
{
	struct index_tag owned = *tag;
	struct index_batch *batch;
	struct change *change;
	struct err err = { 0 };
	int r = tags_check_set(tags, tag->name, strlen(tag->name), tag->uid, &err);

	if (r < 0) {
		done(ctx, r, &err);
		return;
	}
	(void)tags_find_owner(tags, tag->name, strlen(tag->name), &owned.uid);
	change = change_new(tags, tag->name, done, ctx);
	change->tag.digest = tag->digest;
	change->tag.uid = owned.uid;
	batch = index_batch_new();
	index_batch_put_tag(batch, &owned);
	index_submit(tags->index, batch, on_committed, change);
}

int tags_delete(struct tags *tags, const char *name, size_t len, tags_done *done, void *ctx)
{
	struct index_batch *batch;
	struct change *change;
	bool found;
	size_t i = tags_position(tags, name, len, &found);

	if (!found)
		return -ENOENT;
	change = change_new(tags, tags->items[i]->name, done, ctx);
	change->is_deletion = true;
	batch = index_batch_new();
	index_batch_drop_tag(batch, change->tag.name);
	index_submit(tags->index, batch, on_committed, change);
	return 0;
}

size_t tags_n(const struct tags *tags)
{
	return tags->n;
}

static struct index_tag tag_as_row(const struct tag *tag)
{
	return (struct index_tag){ .name = tag->name, .digest = tag->digest, .uid = tag->uid };
}

struct index_tag tags_at(const struct tags *tags, size_t i)
{
	return tag_as_row(tags->items[i]);
}

size_t tags_after(const struct tags *tags, const char *name)
{
	bool found;
	size_t i = tags_position(tags, name, strlen(name), &found);

	return i + found;
}

/* ---- a view ---- */

struct tags_view *tags_view(const struct tags *tags, uid_t uid)
{
	struct tags_view *view = xmalloc(sizeof(*view) + tags->n * sizeof(view->items[0]));

	view->n = 0;
	for (size_t i = 0; i < tags->n; i++) {
		struct tag *tag = tags->items[i];

		if (!tags_sees(uid, tag->uid))
			continue;
		(void)atomic_fetch_add_explicit(&tag->refs, 1, memory_order_relaxed);
		view->items[view->n++] = tag;
	}
	return view;
}

struct index_tag tags_view_at(const struct tags_view *view, size_t i)
{
	return tag_as_row(view->items[i]);
}

void tags_view_free(struct tags_view *view)
{
	if (!view)
		return;
	for (size_t i = 0; i < view->n; i++)
		tag_unref(view->items[i]);
	free(view);
}
