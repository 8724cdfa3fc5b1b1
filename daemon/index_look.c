/* SPDX-License-Identifier: Apache-2.0 */
/* What is read of the index while it is in use: jobs of the lane, between two commits. */
#include "daemon/index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "common/alloc.h"
#include "common/log.h"
#include "daemon/index_internal.h"
#include "daemon/pool.h"

/* ---- reading ---- */

void index_page_add(struct index_page *page, const struct index_row *row)
{
	struct index_row *added = &page->rows[page->n];

	assert(page->n < INDEX_PAGE_MAX);
	page->n++;
	*added = *row;
	if (page->table == INDEX_TAGS)
		added->tag.name = xstrdup(row->tag.name);
}

void index_page_clear(struct index_page *page)
{
	for (size_t i = 0; i < page->n && page->table == INDEX_TAGS; i++)
		free((char *)page->rows[i].tag.name);
	page->n = 0;
}

struct read_job {
	struct job job; /* first */

	/* In. */
	struct index *index;     /* its db is the lane's */
	struct index_page *page; /* out, too */
	bool onwards;

	/* Out. */
	int result;
	struct err err;

	/* For done(). */
	void (*done)(void *ctx, int r, const struct err *err);
	void *ctx;
};

static enum job_next run_read(struct job *job)
{
	struct read_job *read = (struct read_job *)job;

	read->result = index_db_read(index_db_of(read->index), read->page, read->onwards, &read->err);
	return JOB_DONE;
}

static void on_read(struct job *job)
{
	struct read_job *read = (struct read_job *)job;

	read->done(read->ctx, read->result, &read->err);
	free(read);
}

void index_read(struct index *index, struct index_page *page, bool onwards,
		void (*done)(void *ctx, int r, const struct err *err), void *ctx)
{
	struct read_job *read = xcalloc(1, sizeof(*read));

	read->job = (struct job){ .run = run_read, .done = on_read };
	read->index = index;
	read->page = page;
	read->onwards = onwards;
	read->done = done;
	read->ctx = ctx;
	pool_submit(index_lane(index), &read->job);
}

/* ---- checking ---- */

struct check_job {
	struct job job; /* first */

	/* In. */
	struct index *index; /* its db is the lane's */
	struct err known;    /* damage */
	bool replace;

	/* Out. */
	int result;
	struct index_checked checked;
	struct err err;

	/* For done(). */
	void (*done)(void *ctx, int r, const struct index_checked *checked, const struct err *err);
	void *ctx;
};

static enum job_next run_check(struct job *job)
{
	struct check_job *check = (struct check_job *)job;
	struct index_db *db = index_db_of(check->index);

	check->err = check->known;
	check->result = check->known.set ? -EUCLEAN : index_db_check(db, &check->err);
	if (check->result != -EUCLEAN)
		return JOB_DONE;
	check->checked.damage = check->err;
	err_clear(&check->err);
	check->result = check->replace ? index_db_set_aside(db, check->checked.aside, &check->err) : 0;
	return JOB_DONE;
}

static void on_checked(struct job *job)
{
	struct check_job *check = (struct check_job *)job;

	if (*check->checked.aside)
		log_error("%s; it is set aside as '%s': a new one takes what comes, and the next start will "
			  "find "
			  "the rest in the store",
			  check->checked.damage.text, check->checked.aside);
	check->done(check->ctx, check->result, &check->checked, &check->err);
	free(check);
}

void index_check(struct index *index, const struct err *known, bool replace,
		 void (*done)(void *ctx, int r, const struct index_checked *checked, const struct err *err),
		 void *ctx)
{
	struct check_job *check = xcalloc(1, sizeof(*check));

	check->job = (struct job){ .run = run_check, .done = on_checked };
	check->index = index;
	if (known)
		check->known = *known;
	check->replace = replace;
	check->done = done;
	check->ctx = ctx;
	pool_submit(index_lane(index), &check->job);
}
