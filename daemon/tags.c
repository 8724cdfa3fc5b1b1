/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tags_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "daemon/disk.h"
#include "daemon/map.h"
#include "daemon/reserve.h"

enum {
	FILE_MAX = TAGS_MAX * (DIGEST_TEXT_SIZE + 12 + TAG_NAME_MAX)
}; /* of STORE/tags: all that there may be */

/* A digest that tags name. */
struct pin {
	struct digest digest; /* first: the key in the map */
	size_t n;             /* of them */
};

/* Replace STORE/tags: one at a time, each for all changes that had come by then. */
struct save_job {
	struct job job;

	/* In. */
	int store_fd;
	char *text;
	size_t len;

	/* Out. */
	int r;
	struct err err;

	struct tags *tags;
	struct list changes;
};

/* Look whether STORE/tags is what it should be, while nobody writes it. */
struct comparison {
	struct job job;
	struct list link;

	/* In. */
	struct save_job save; /* what should be there; it is run to mend */
	bool mend;

	/* Out. */
	int r;

	struct tags *tags;
	tags_done *done;
	void *ctx;
};

static void change_end(struct change *change, int r, const struct err *err)
{
	change->done(change->ctx, r, err);
	free(change->tag.name);
	free(change);
}

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
		int order = strncmp(tags->items[middle].name, name, len);

		if (order == 0 && tags->items[middle].name[len])
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

static void put(struct tags *tags, const struct index_tag *tag)
{
	bool found;
	size_t i = tags_position(tags, tag->name, strlen(tag->name), &found);

	if (!found) {
		tags->items = xgrow(tags->items, tags->n, &tags->capacity, sizeof(*tags->items));
		memmove(&tags->items[i + 1], &tags->items[i], (tags->n - i) * sizeof(*tags->items));
		tags->n++;
		tags->items[i].name = xstrdup(tag->name);
	} else {
		unpin(tags, &tags->items[i].digest);
	}
	pin(tags, &tag->digest);
	tags->items[i].digest = tag->digest;
	tags->items[i].uid = tag->uid;
}

bool tags_load(struct tags *tags, const struct index_tag *tag)
{
	if (tag_check_name(tag->name, strlen(tag->name), NULL) < 0)
		return false;
	put(tags, tag);
	return true;
}

void tags_clear(struct tags *tags)
{
	while (tags->n) {
		unpin(tags, &tags->items[--tags->n].digest);
		free(tags->items[tags->n].name);
	}
}

static void drop(struct tags *tags, const char *name)
{
	bool found;
	size_t i = tags_position(tags, name, strlen(name), &found);

	if (!found)
		return;
	free(tags->items[i].name);
	unpin(tags, &tags->items[i].digest);
	tags->n--;
	memmove(&tags->items[i], &tags->items[i + 1], (tags->n - i) * sizeof(*tags->items));
}

const struct digest *tags_find(const struct tags *tags, const char *name, size_t len)
{
	bool found;
	size_t i = tags_position(tags, name, len, &found);

	return found ? &tags->items[i].digest : NULL;
}

/* ---- the file ---- */

static int replace_file(const struct save_job *save)
{
	AUTO_CLOSE int fd =
		disk_openat(save->store_fd, "tags.new", O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW, 0600);
	int r = fd;

	if (fd >= 0)
		r = disk_write_full(fd, save->text, save->len);
	if (r >= 0)
		r = disk_fsync(fd); /* whole, or not under this name: whatever the machine does */
	return r < 0 ? r : disk_renameat2(save->store_fd, "tags.new", save->store_fd, "tags", 0);
}

static void save_file(struct save_job *save)
{
	save->r = replace_file(save);
	/* A tag that is deleted lets eviction make room. */
	if (reserve_is_for(save->r) && reserve_give_up(save->store_fd))
		save->r = replace_file(save);
	if (save->r < 0)
		err_errno(&save->err, save->r, "writing the file 'tags' in the store");
}

static enum job_next save_run(struct job *job)
{
	save_file(CONTAINER_OF(job, struct save_job, job));
	return JOB_DONE;
}

static char *print(const struct tags *tags, size_t *len)
{
	char *text = NULL;
	FILE *out = open_memstream(&text, len);

	assert(out);
	for (size_t i = 0; i < tags->n; i++)
		fprintf(out, "%s %u %s\n", DIGEST_TEXT(&tags->items[i].digest), (unsigned)tags->items[i].uid,
			tags->items[i].name);
	(void)fclose(out);
	return text;
}

/* hash/size UID NAME. The name lies in the line. Return: does it make sense? */
static bool parse_line(char *line, struct index_tag *tag)
{
	char *rest, *digest = strtok_r(line, " ", &rest);
	char *uid = strtok_r(NULL, " ", &rest), *end;
	unsigned long number;

	tag->name = strtok_r(NULL, " ", &rest);
	if (!digest || !uid || !tag->name)
		return false;
	number = strtoul(uid, &end, 10);
	tag->uid = (uint32_t)number;
	return !*end && number <= UINT32_MAX && digest_parse(digest, strlen(digest), &tag->digest) == 0;
}

/*
 * @text  out: terminated, the caller's; empty when there is no such file
 *
 * Return: 0, or a negative errno.
 */
static int read_file(int store_fd, char **text, size_t *len, struct err *err)
{
	AUTO_CLOSE int fd = disk_openat(store_fd, "tags", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct stat st = { 0 };
	int r = fd;

	if (r == -ENOENT)
		r = 0;
	else if (r >= 0 && (r = disk_fstat(fd, &st)) == 0 && (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX))
		r = -EFBIG;
	*len = (size_t)st.st_size;
	if (r == 0) {
		*text = xcalloc(1, *len + 1);
		r = *len ? disk_read_full(fd, *text, *len, 0) : 0;
	}
	return r < 0 ? err_errno(err, r, "reading the file 'tags' in the store") : 0;
}

int tags_read_back(struct tags *tags, struct err *err)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	int r = read_file(tags->store_fd, &text, &len, err);

	if (r < 0)
		return r;
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct index_tag tag;

		if (tags->n < TAGS_MAX && parse_line(line, &tag))
			(void)tags_load(tags, &tag);
	}
	return 0;
}

static bool all_are_here(const struct tags *tags, tags_is_here *is_here, void *ctx)
{
	for (size_t i = 0; i < tags->n; i++)
		if (!is_here(ctx, &tags->items[i].digest))
			return false;
	return true;
}

/* Of a line of the file: is it for a tag that names nothing, and does it name something? */
static bool is_better(const struct tags *tags, const struct index_tag *line, tags_is_here *is_here, void *ctx)
{
	const struct digest *digest = tags_find(tags, line->name, strlen(line->name));

	return digest && !is_here(ctx, digest) && is_here(ctx, &line->digest);
}

/* The owner stays. */
static void restore(struct tags *tags, struct index_tag *line)
{
	struct index_batch *batch = index_batch_new();
	bool found;

	line->uid = tags->items[tags_position(tags, line->name, strlen(line->name), &found)].uid;
	put(tags, line);
	index_batch_put_tag(batch, line);
	index_submit(tags->index, batch, NULL, NULL);
}

int tags_restore(struct tags *tags, tags_is_here *is_here, void *ctx, size_t *n_restored, struct err *err)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	int r;

	*n_restored = 0;
	if (all_are_here(tags, is_here, ctx))
		return 0;
	if ((r = read_file(tags->store_fd, &text, &len, err)) < 0)
		return r;
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct index_tag tag;

		if (parse_line(line, &tag) && is_better(tags, &tag, is_here, ctx)) {
			restore(tags, &tag);
			++*n_restored;
		}
	}
	return 0;
}

void tags_keep(struct tags *tags)
{
	struct index_batch *batch = index_batch_new();

	for (size_t i = 0; i < tags->n; i++) {
		struct index_tag tag = tags_at(tags, i);

		index_batch_put_tag(batch, &tag);
	}
	index_submit(tags->index, batch, NULL, NULL);
}

static void attend_to_file(struct tags *tags);

static void save_done(struct job *job)
{
	struct save_job *saved = CONTAINER_OF(job, struct save_job, job);
	struct tags *tags = saved->tags;
	struct list *l;

	while ((l = list_pop(&saved->changes)))
		change_end(LIST_ENTRY(l, struct change, link), saved->r < 0 ? saved->r : 0, &saved->err);
	free(saved->text);
	free(saved);
	tags->saving = false;
	attend_to_file(tags);
}

static void save(struct tags *tags)
{
	struct save_job *job = xcalloc(1, sizeof(*job));
	struct list *l;

	job->job = (struct job){ .run = save_run, .done = save_done };
	job->tags = tags;
	job->store_fd = tags->store_fd;
	job->text = print(tags, &job->len);
	list_init(&job->changes);
	while ((l = list_pop(&tags->committed)))
		list_append(&job->changes, l);
	tags->saving = true;
	pool_submit(tags->queue, &job->job);
}

/* ---- is it as it should be? ---- */

static enum job_next comparison_run(struct job *job)
{
	struct comparison *c = CONTAINER_OF(job, struct comparison, job);
	AUTO_FREE char *text = NULL;
	size_t len;

	c->r = read_file(c->save.store_fd, &text, &len, &c->save.err);
	if (c->r == 0 && text && len == c->save.len && memcmp(text, c->save.text, len) == 0)
		return JOB_DONE;
	if (c->mend) { /* also what cannot be read makes way */
		err_clear(&c->save.err);
		save_file(&c->save);
		c->r = c->save.r;
	}
	c->r = c->r < 0 ? c->r : TAGS_DIFFERED;
	return JOB_DONE;
}

static void comparison_done(struct job *job)
{
	struct comparison *c = CONTAINER_OF(job, struct comparison, job);

	c->tags->saving = false;
	attend_to_file(c->tags);
	c->done(c->ctx, c->r, &c->save.err);
	free(c->save.text);
	free(c);
}

static void compare(struct comparison *c)
{
	struct tags *tags = c->tags;

	c->job = (struct job){ .run = comparison_run, .done = comparison_done };
	c->save.store_fd = tags->store_fd;
	c->save.text = print(tags, &c->save.len);
	tags->saving = true;
	pool_submit(tags->queue, &c->job);
}

/* Somebody has left the file: write what has come, and when it is all there, compare. */
static void attend_to_file(struct tags *tags)
{
	struct list *l;

	if (tags->saving)
		return;
	if (!list_is_empty(&tags->committed))
		save(tags);
	else if ((l = list_pop(&tags->comparisons)))
		compare(LIST_ENTRY(l, struct comparison, link));
}

void tags_compare_file(struct tags *tags, bool mend, tags_done *done, void *ctx)
{
	struct comparison *c = xcalloc(1, sizeof(*c));

	c->tags = tags;
	c->mend = mend;
	c->done = done;
	c->ctx = ctx;
	list_append(&tags->comparisons, &c->link);
	attend_to_file(tags);
}

static void on_committed(void *ctx, int r, const struct err *err)
{
	struct change *change = ctx;
	struct tags *tags = change->tags;

	list_remove(&change->link);
	if (r < 0) {
		change_end(change, r, err);
		return;
	}
	if (change->is_deletion)
		drop(tags, change->tag.name);
	else
		put(tags, &(struct index_tag){ .name = change->tag.name,
					       .digest = change->tag.digest,
					       .uid = change->tag.uid });
	list_append(&tags->committed, &change->link);
	attend_to_file(tags);
}

static struct change *change_new(struct tags *tags, const char *name, tags_done *done, void *ctx)
{
	struct change *change = xcalloc(1, sizeof(*change));

	change->tags = tags;
	change->tag.name = xstrdup(name);
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
	change = change_new(tags, tags->items[i].name, done, ctx);
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

struct index_tag tags_at(const struct tags *tags, size_t i)
{
	return (struct index_tag){
		.name = tags->items[i].name,
		.digest = tags->items[i].digest,
		.uid = tags->items[i].uid,
	};
}

size_t tags_after(const struct tags *tags, const char *name)
{
	bool found;
	size_t i = tags_position(tags, name, strlen(name), &found);

	return i + found;
}
