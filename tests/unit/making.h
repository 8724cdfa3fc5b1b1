/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plans for tests: a tree or a file of the cache in daemon.h, made at a target in the folder `out`.
 */
#ifndef DIRCACHE_TESTS_UNIT_MAKING_H
#define DIRCACHE_TESTS_UNIT_MAKING_H

#include "daemon/plan.h"
#include "tests/unit/daemon.h"
#include "tests/unit/records.h"

/* A tree, or a single file, on its way to a target in `out`. */
struct making {
	struct plan plan;
	struct asked asked;
	struct file_node file;
	struct pool_queue *queue;
	bool done;
};

static inline void on_planned(struct plan *plan)
{
	struct making *m = CONTAINER_OF(plan, struct making, plan);

	ck_assert(!m->done);
	m->done = true;
}

static inline void begin(struct making *m, int folder, const char *name)
{
	m->queue = pool_queue_new(cache.pool);
	ck_assert_int_eq(target_init(&m->plan.target, cache.staging, dup(folder), name, strlen(name), &err),
			 0);
	m->plan.store = cache.store;
	m->plan.mount = cache.mount;
	m->plan.flights = cache.flights;
	m->plan.queue = m->queue;
	m->plan.max_workers = 4;
	m->plan.done = on_planned;
	plan_start(&m->plan);
}

static inline void begin_tree(struct making *m, const struct digest *digest, int folder, const char *name)
{
	*m = (struct making){ .done = false };
	get_tree(&m->asked, digest);
	ck_assert_msg(m->asked.r == 0, "%s", m->asked.err.text);
	m->plan.root = m->asked.request.node;
	begin(m, folder, name);
}

static inline void begin_file(struct making *m, struct digest digest, bool executable, const char *name)
{
	*m = (struct making){ .file = { .name = "file", .digest = digest, .executable = executable } };
	m->plan.file = &m->file;
	begin(m, out, name);
}

static inline void end(struct making *m)
{
	run_until_set(&m->done);
	pool_queue_free(m->queue);
	if (m->plan.root)
		asked_fini(&m->asked);
}

static inline void make_tree(struct making *m, const struct digest *digest, const char *name)
{
	begin_tree(m, digest, out, name);
	end(m);
}

static inline struct stat stat_out(const char *name)
{
	struct stat st;

	ck_assert_msg(fstatat(out, name, &st, AT_SYMLINK_NOFOLLOW) == 0, "%s: %s", name, strerror(errno));
	return st;
}

static inline size_t count_names(int folder)
{
	DIR *dir = fdopendir(openat(folder, ".", O_RDONLY | O_DIRECTORY));
	size_t n = 0;

	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n - 2;
}

static inline void ck_nothing_left(size_t n_names)
{
	ck_assert_uint_eq(count_names(out), n_names);
	ck_assert_uint_eq(count_records(cache.store_fd), 0);
}

#endif
