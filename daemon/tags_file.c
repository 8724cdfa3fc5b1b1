/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tags_internal.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/disk.h"
#include "daemon/reserve.h"

enum {
	FILE_MAX = (TAGS_MAX + 1) *
		   (DIGEST_TEXT_SIZE + 12 + TAG_NAME_MAX), /* of STORE/tags: all that there may be */
	ROOT = 0,                                          /* sees all tags */
};

#define SUM "sum "

/* Replace STORE/tags: one at a time, each for all changes that had come by then. */
struct save_job {
	struct job job;

	/* In. */
	int store_fd;
	struct tags_view *view;

	/* Out. */
	char *text;            /* what the file is to be */
	size_t len, lines_len; /* without the sum */
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

static void print(struct save_job *save)
{
	FILE *out = open_memstream(&save->text, &save->len);
	struct digest sum;

	assert(out);
	for (size_t i = 0; i < save->view->n; i++) {
		struct index_tag tag = tags_view_at(save->view, i);

		fprintf(out, "%s %u %s\n", DIGEST_TEXT(&tag.digest), (unsigned)tag.uid, tag.name);
	}
	(void)fflush(out);
	save->lines_len = save->len;
	hash_bytes(save->text, save->lines_len, &sum);
	fprintf(out, SUM "%s\n", DIGEST_TEXT(&sum));
	(void)fclose(out);
}

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

static void save_init(struct save_job *save, const struct tags *tags)
{
	save->store_fd = tags->store_fd;
	save->view = tags_view(tags, ROOT);
}

/* On the worker: giving back a megabyte is not for the loop. */
static void save_fini(struct save_job *save)
{
	tags_view_free(save->view);
	free(save->text);
}

static enum job_next save_run(struct job *job)
{
	struct save_job *save = CONTAINER_OF(job, struct save_job, job);

	print(save);
	save_file(save);
	save_fini(save);
	return JOB_DONE;
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

/* ---- which of the two is right? ---- */

/* Does the text end with the sum of all before it? That is cut off then. */
static bool cut_sum(char *text, size_t len)
{
	struct digest said, found;
	char *sum;

	if (!text || !len || text[len - 1] != '\n')
		return false;
	text[len - 1] = '\0';
	sum = strrchr(text, '\n');
	sum = sum ? sum + 1 : text;
	if (strlen(text) != len - 1 || strncmp(sum, SUM, strlen(SUM)) != 0 ||
	    digest_parse(sum + strlen(SUM), strlen(sum + strlen(SUM)), &said) < 0)
		return false;
	hash_bytes(text, (size_t)(sum - text), &found);
	*sum = '\0';
	return digest_equal(&said, &found);
}

struct settling {
	struct tags *tags;
	struct index_batch *rows;
	tags_differ *differ;
	void *ctx;
};

static void settle_line(const struct settling *settling, const struct index_tag *line)
{
	struct tags *tags = settling->tags;
	bool found;
	size_t i = tags_position(tags, line->name, strlen(line->name), &found);
	struct index_tag tag = { 0 };

	if (found)
		tag = tags_at(tags, i);
	if (found && tag.uid == line->uid && digest_equal(&tag.digest, &line->digest))
		return;
	settling->differ(settling->ctx, found ? &tag : NULL, line);
	index_batch_put_tag(settling->rows, line);
	tags_put(tags, line);
}

/* What is only in the index goes. @names: those of the file, ascending */
static void settle_others(const struct settling *settling, const char *const *names, size_t n_names)
{
	struct tags *tags = settling->tags;
	size_t next = 0;

	for (size_t i = 0; i < tags->n;) {
		struct index_tag tag = tags_at(tags, i);

		while (next < n_names && strcmp(names[next], tag.name) < 0)
			next++;
		if (next < n_names && strcmp(names[next], tag.name) == 0) {
			i++;
			continue;
		}
		settling->differ(settling->ctx, &tag, NULL);
		index_batch_drop_tag(settling->rows, tag.name);
		tags_drop(tags, tag.name);
	}
}

void tags_settle(struct tags *tags, struct index_batch *rows, tags_differ *differ, void *ctx)
{
	const struct settling settling = { tags, rows, differ, ctx };
	AUTO_FREE const char **names = xcalloc(TAGS_MAX, sizeof(*names));
	AUTO_FREE char *text = NULL;
	size_t len, n = 0;

	if (read_file(tags->store_fd, &text, &len, NULL) < 0 || !cut_sum(text, len))
		return;
	for (char *save, *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
		struct index_tag tag;

		if (n == TAGS_MAX || !parse_line(line, &tag))
			continue;
		names[n++] = tag.name;
		settle_line(&settling, &tag);
	}
	settle_others(&settling, names, n);
}

bool tags_file_is_behind(const struct tags *tags)
{
	return tags->file_is_behind;
}

static bool all_are_here(const struct tags *tags, tags_is_here *is_here, void *ctx)
{
	for (size_t i = 0; i < tags->n; i++)
		if (!is_here(ctx, &tags->items[i]->digest))
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

	line->uid = tags->items[tags_position(tags, line->name, strlen(line->name), &found)]->uid;
	tags_put(tags, line);
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

static void save_done(struct job *job)
{
	struct save_job *saved = CONTAINER_OF(job, struct save_job, job);
	struct tags *tags = saved->tags;
	struct list *l;

	while ((l = list_pop(&saved->changes)))
		tags_end_change(LIST_ENTRY(l, struct change, link), saved->r < 0 ? saved->r : 0, &saved->err);
	tags->file_is_behind = saved->r < 0;
	free(saved);
	tags->saving = false;
	tags_attend_to_file(tags);
}

static void save(struct tags *tags)
{
	struct save_job *job = xcalloc(1, sizeof(*job));
	struct list *l;

	job->job = (struct job){ .run = save_run, .done = save_done };
	job->tags = tags;
	save_init(job, tags);
	list_init(&job->changes);
	while ((l = list_pop(&tags->committed)))
		list_append(&job->changes, l);
	tags->saving = true;
	pool_submit(tags->queue, &job->job);
}

/* ---- is it as it should be? ---- */

/* Return: 0, TAGS_DIFFERED, or a negative errno with save.err. */
static int compare_file(struct comparison *c)
{
	AUTO_FREE char *text = NULL;
	size_t len;
	int r = read_file(c->save.store_fd, &text, &len, &c->save.err);

	if (r == 0 && text && (len == c->save.len || len == c->save.lines_len) &&
	    memcmp(text, c->save.text, len) == 0)
		return 0;
	if (c->mend) { /* also what cannot be read makes way */
		err_clear(&c->save.err);
		save_file(&c->save);
		r = c->save.r;
	}
	return r < 0 ? r : TAGS_DIFFERED;
}

static enum job_next comparison_run(struct job *job)
{
	struct comparison *c = CONTAINER_OF(job, struct comparison, job);

	print(&c->save);
	c->r = compare_file(c);
	save_fini(&c->save);
	return JOB_DONE;
}

static void comparison_done(struct job *job)
{
	struct comparison *c = CONTAINER_OF(job, struct comparison, job);

	c->tags->saving = false;
	c->tags->file_is_behind &= !(c->mend && c->r >= 0);
	tags_attend_to_file(c->tags);
	c->done(c->ctx, c->r, &c->save.err);
	free(c);
}

static void compare(struct comparison *c)
{
	struct tags *tags = c->tags;

	c->job = (struct job){ .run = comparison_run, .done = comparison_done };
	save_init(&c->save, tags);
	tags->saving = true;
	pool_submit(tags->queue, &c->job);
}

/* Somebody has left the file: write what has come, and when it is all there, compare. */
void tags_attend_to_file(struct tags *tags)
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
	tags_attend_to_file(tags);
}
