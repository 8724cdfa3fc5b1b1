/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon without its socket, in this process: a cache on a store of its own, an event loop, and ways to
 * put blobs and Directories into the store behind its index. One for each test, in a process of its own.
 */
#ifndef DIRCACHE_TESTS_UNIT_DAEMON_H
#define DIRCACHE_TESTS_UNIT_DAEMON_H

#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "daemon/blob_internal.h"
#include "daemon/cache.h"
#include "daemon/identity.h"
#include "tests/unit/unit.h"

enum { DEADLINE_SECONDS = 50, DRAFT_MAX = 512 };

static struct event_base *base;
static struct cache cache;
static char store_path[64];
static int out = -1; /* a folder beside the store, for targets */
static struct err err;
/* of each user; every cache that is opened has them */
static struct user_limits user_limits = {
	.connections = 1000, .requests = 4096, .fds = 512, .tags = 10000, .leases = 10000
};
static struct space_limits space_limits;                        /* of the caches that are opened; none */
static uint64_t node_memory = 256 << 20;                        /* of the next cache that is opened */
static const struct tree_limits *limits = &tree_default_limits; /* the same */

/* ---- the loop ---- */

static inline void on_deadline(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
	ck_abort_msg("nothing more happens");
}

/* Let the loop run until something is so. */
static inline void run_until(bool (*is_so)(void *ctx), void *ctx)
{
	struct event *deadline = evtimer_new(base, on_deadline, NULL);

	(void)evtimer_add(deadline, &(struct timeval){ .tv_sec = DEADLINE_SECONDS });
	while (!is_so(ctx))
		ck_assert_int_eq(event_base_loop(base, EVLOOP_ONCE), 0);
	event_free(deadline);
}

static inline bool flag_is_set(void *ctx)
{
	return *(bool *)ctx;
}

static inline void run_until_set(bool *flag)
{
	run_until(flag_is_set, flag);
}

static inline void on_time_up(evutil_socket_t fd, short what, void *flag)
{
	(void)fd;
	(void)what;
	*(bool *)flag = true;
}

/* For what must not happen: long enough that it would have. */
static inline void run_for_ms(unsigned ms)
{
	bool is_up = false;
	struct event *timer = evtimer_new(base, on_time_up, &is_up);

	(void)evtimer_add(timer, &(struct timeval){ .tv_usec = (suseconds_t)ms * 1000 });
	run_until_set(&is_up);
	event_free(timer);
}

static inline bool cache_is_idle(void *ctx)
{
	(void)ctx;
	return !cache_busy(&cache);
}

static inline void run_until_idle(void)
{
	run_until(cache_is_idle, NULL);
}

/* ---- the cache ---- */

struct loading {
	bool done;
	int r;
	struct err err;
};

static inline void on_cache_loaded(void *ctx, int r, const struct err *why)
{
	struct loading *loading = ctx;

	loading->done = true;
	loading->r = r;
	if (r < 0)
		loading->err = *why;
}

static inline void open_cache(void)
{
	struct cache_config config = {
		.store = store_path,
		.n_workers = 4,
		.limits = *limits,
		.space = space_limits,
		.node_memory = node_memory,
		.user = user_limits,
	};
	char out_path[80];

	(void)umask(0);
	identity_init();
	(void)snprintf(store_path, sizeof(store_path), "%s/store-%d", unit_folder, (int)getpid());
	(void)snprintf(out_path, sizeof(out_path), "%s/out-%d", unit_folder, (int)getpid());
	(void)mkdir(out_path, 0755);
	out = open(out_path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	base = event_base_new();
	ck_assert_ptr_nonnull(base);
	ck_assert_msg(cache_open(&cache, base, &config, &err) == 0, "%s", err.text);
}

static inline void load_cache(void)
{
	static struct loading loading;

	loading = (struct loading){ .r = 1 };
	cache_load(&cache, on_cache_loaded, &loading);
	run_until_set(&loading.done);
	ck_assert_msg(loading.r == 0, "%s", loading.err.text);
}

/* A cache that is ready, and has done all that it does after a start. */
static inline void start_cache(void)
{
	open_cache();
	load_cache();
	run_until_idle();
}

static inline void close_cache(void)
{
	cache_close(&cache);
	event_base_free(base);
	(void)close(out);
}

/* A clean stop. */
static inline void stop_cache(void)
{
	cache_stop(&cache);
	run_until_idle();
	close_cache();
}

static inline void restart_cache(void)
{
	stop_cache();
	start_cache();
}

/* ---- blobs and Directories ---- */

/* Put bytes into the store; is_known: into the catalog too, else the index and the catalog miss them. */
static inline struct digest store_bytes(const void *bytes, size_t len, enum blob_kind kind, bool is_known)
{
	struct blob_writer *writer = writers_take(cache.writers);
	struct blob_info info = { 0 };
	int r = blob_write(writer, bytes, len, kind, &info, NULL, &err);

	ck_assert_msg(r == 0 || r == BLOB_EXISTS, "%d %s", r, err.text);
	if (is_known && len)
		(void)catalog_add(cache.catalog, &info, kind, NULL);
	writers_give(cache.writers, writer);
	return info.digest;
}

static inline struct digest store_text(const char *text, enum blob_kind kind)
{
	return store_bytes(text, strlen(text), kind, true);
}

/* blobs/ab/abcdef... below the store's folder */
static inline const char *path_of_blob(const struct digest *digest, enum blob_kind kind)
{
	static char path[256];
	struct blob_name name;

	blob_print_name(digest->hash, &name);
	(void)snprintf(path, sizeof(path), "%s/%s/%s", store_path, kind == BLOB_EXEC ? "exec" : "blobs",
		       name.text);
	return path;
}

/* A Directory being written; names and targets are borrowed. */
struct draft {
	struct file_node files[DRAFT_MAX];
	struct directory_node directories[DRAFT_MAX];
	struct symlink_node symlinks[DRAFT_MAX];
	struct directory d;
};

static inline void draft_init(struct draft *draft)
{
	memset(&draft->d, 0, sizeof(draft->d));
}

static inline void draft_file(struct draft *draft, const char *name, struct digest digest, bool executable)
{
	ck_assert_uint_lt(draft->d.n_files, DRAFT_MAX);
	draft->files[draft->d.n_files++] =
		(struct file_node){ .name = name, .digest = digest, .executable = executable };
}

static inline void draft_directory(struct draft *draft, const char *name, struct digest digest)
{
	ck_assert_uint_lt(draft->d.n_directories, DRAFT_MAX);
	draft->directories[draft->d.n_directories++] =
		(struct directory_node){ .name = name, .digest = digest };
}

static inline void draft_symlink(struct draft *draft, const char *name, const char *target)
{
	ck_assert_uint_lt(draft->d.n_symlinks, DRAFT_MAX);
	draft->symlinks[draft->d.n_symlinks++] = (struct symlink_node){ .name = name, .target = target };
}

/* Store it as a plain blob, and begin the next. */
static inline struct digest draft_store(struct draft *draft)
{
	AUTO_FREE uint8_t *bytes = NULL;
	struct digest digest;
	size_t len;

	draft->d.files = draft->files;
	draft->d.directories = draft->directories;
	draft->d.symlinks = draft->symlinks;
	ck_assert_msg(directory_encode(&draft->d, &bytes, &len, &err) == 0, "%s", err.text);
	digest = store_bytes(bytes, len, BLOB_PLAIN, true);
	draft_init(draft);
	return digest;
}

/* A digest that nothing here has. */
static inline struct digest absent_digest(unsigned number)
{
	struct digest digest = { .size = 1000 + number };

	memset(digest.hash, 0xab, sizeof(digest.hash));
	memcpy(digest.hash, &number, sizeof(number));
	return digest;
}

/* Two files (one executable, one empty), a symlink, and a directory with a file: the usual tree. */
static inline struct digest store_usual_tree(void)
{
	static struct draft draft;
	struct digest below;

	draft_init(&draft);
	draft_file(&draft, "deep", store_text("deep bytes", BLOB_PLAIN), false);
	below = draft_store(&draft);
	draft_file(&draft, "empty", digest_empty, false);
	draft_file(&draft, "plain", store_text("plain bytes", BLOB_PLAIN), false);
	draft_file(&draft, "run", store_text("#!/bin/true", BLOB_EXEC), true);
	draft_symlink(&draft, "link", "below/deep");
	draft_directory(&draft, "below", below);
	return draft_store(&draft);
}

/* ---- trees ---- */

/* A request for a tree, and its answer. */
struct asked {
	struct tree_request request;
	bool done;
	int r;
	struct err err;
	size_t n_missing;
	struct digest missing[NODE_MISSING_MAX];
};

static inline void on_tree_asked(struct tree_request *request, int r)
{
	struct asked *asked = CONTAINER_OF(request, struct asked, request);

	ck_assert(!asked->done);
	asked->done = true;
	asked->r = r;
	if (r == 0)
		return;
	asked->err = *request->err;
	asked->n_missing = request->n_missing;
	ck_assert_uint_le(request->n_missing, NODE_MISSING_MAX);
	memcpy(asked->missing, request->missing, request->n_missing * sizeof(*request->missing));
}

static inline void ask(struct asked *asked, const struct digest *digest, enum tree_purpose purpose)
{
	asked->done = false;
	asked->request.done = on_tree_asked;
	tree_get(cache.trees, digest, purpose, &asked->request);
}

/* Ask for a tree as `materialize` does, and wait. The node, if there is one, is for asked_fini(). */
static inline void get_tree(struct asked *asked, const struct digest *digest)
{
	ask(asked, digest, TREE_FOR_MATERIALIZE);
	run_until_set(&asked->done);
}

static inline void asked_fini(struct asked *asked)
{
	node_put(asked->request.node);
	asked->request.node = NULL;
}

/* The same for a tree that is there, and let it go at once. */
static inline enum tree_cache use_tree(const struct digest *digest)
{
	struct asked asked;

	get_tree(&asked, digest);
	ck_assert_msg(asked.r == 0, "%s", asked.err.text);
	asked_fini(&asked);
	return asked.request.cache;
}

struct evicted {
	bool done;
	int r;
};

static inline void on_tree_evicted(void *ctx, int r, const struct err *why)
{
	struct evicted *evicted = ctx;

	ck_assert(!evicted->done && (r == 0 || why->set));
	evicted->done = true;
	evicted->r = r;
	if (r == 0)
		trees_release_one(cache.trees);
}

static inline void begin_to_evict(struct evicted *evicted, const struct digest *digest)
{
	*evicted = (struct evicted){ .done = false };
	trees_evict(cache.trees, &(struct tree_victim){ .digest = *digest }, 1, on_tree_evicted, evicted);
}

/* Evict a tree, and wait until all that follows from that is done. */
static inline void evict_tree(const struct digest *digest)
{
	struct evicted evicted;

	begin_to_evict(&evicted, digest);
	run_until_set(&evicted.done);
	ck_assert_int_eq(evicted.r, 0);
	run_until_idle();
}

#endif
