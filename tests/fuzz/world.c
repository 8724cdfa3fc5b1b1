/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/world.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/hash.h"
#include "common/log.h"
#include "daemon/lap.h"
#include "daemon/server.h"

enum {
	WORKERS = 4,
	NODE_MEMORY = 64 * 1024, /* little, so that Directories go to sleep and are read again */
	MAX_FDS = 256,
	DEADLINE_SECONDS = 60,
};

struct world world = { .out = -1 };

static const struct timeval millisecond = { .tv_usec = 1000 };

/* ---- folders ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)type;
	return ftw->level > 0 ? remove(path) : 0;
}

void world_empty(const char *path)
{
	(void)nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

void world_empty_out(void)
{
	AUTO_FREE char *out = xasprintf("%s/out", world.folder);

	if (world_count("out", ""))
		world_empty(out);
}

size_t world_count(const char *path, const char *prefix)
{
	AUTO_FREE char *whole = xasprintf("%s/%s", world.folder, path);
	DIR *dir = opendir(whole);
	const struct dirent *entry;
	size_t n = 0;

	assert(dir);
	while ((entry = readdir(dir)))
		n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 &&
		     strncmp(entry->d_name, prefix, strlen(prefix)) == 0;
	(void)closedir(dir);
	return n;
}

/* Its end of the pipe tells it that we are gone, however we went. */
static void start_cleaner(void)
{
	int ends[2];
	char byte;
	int r = pipe2(ends, O_CLOEXEC);

	assert(r == 0);
	r = fork();
	assert(r >= 0);
	if (r > 0) {
		(void)close(ends[0]);
		return;
	}
	(void)setsid();
	(void)close(ends[1]);
	while (read(ends[0], &byte, 1) < 0 && errno == EINTR)
		;
	world_empty(world.folder);
	(void)rmdir(world.folder);
	_exit(0);
}

static void make_folder(void)
{
	const char *parent = getenv("TMPDIR");
	int r;

	if (!parent)
		parent = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
	r = snprintf(world.folder, sizeof(world.folder), "%s/fuzz-XXXXXX", parent);
	assert(r > 0 && (size_t)r < sizeof(world.folder));
	if (!mkdtemp(world.folder)) {
		perror(world.folder);
		abort();
	}
	(void)chmod(world.folder, 0755);
	(void)snprintf(world.store, sizeof(world.store), "%s/store", world.folder);
}

void world_make(void (*end)(void))
{
	AUTO_FREE char *out = NULL;
	struct digest digest;

	if (world.out >= 0)
		return;
	(void)umask(0);
	(void)signal(SIGPIPE, SIG_IGN);
	log_init("fuzz", LOG_LEVEL_ERROR);
	identity_init();
	make_folder();
	start_cleaner();
	out = xasprintf("%s/out", world.folder);
	(void)mkdir(out, 0777);
	world.out = open(out, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	assert(world.out >= 0);
	hash_bytes("", 0, &digest); /* first, since libcrypto also has something to do at the end: after us */
	(void)atexit(end);
}

/* ---- the loop ---- */

static void on_tick(evutil_socket_t fd, short what, void *arg)
{
	(void)fd;
	(void)what;
	(void)arg;
}

void world_turn(void)
{
	int r;

	(void)evtimer_add(world.tick, &millisecond);
	r = event_base_loop(world.base, EVLOOP_ONCE);
	assert(r == 0);
}

uint64_t world_deadline(void)
{
	return lap_now_ns() + DEADLINE_SECONDS * 1000000000ull;
}

void world_check_deadline(uint64_t deadline, const char *what)
{
	if (lap_now_ns() < deadline)
		return;
	(void)fprintf(stderr, "nothing more happens: %s\n", what);
	abort();
}

void world_settle(void)
{
	uint64_t deadline = world_deadline();

	while (cache_busy(&world.cache) || world.cache.counters.requests_active) {
		world_turn();
		world_check_deadline(deadline, "the cache stays busy");
	}
}

/* ---- the daemon ---- */

static void on_conns_changed(void *ctx)
{
	(void)ctx;
}

static void on_freed(struct service *service)
{
	(void)service;
	conns_feed(&world.conns);
}

static void on_stop(struct service *service)
{
	(void)service;
	world_begin_stop();
}

static void on_loaded(void *ctx, int r, const struct err *err)
{
	(void)ctx;
	world.loaded = r;
	if (r < 0)
		world.err = *err;
	else
		requests_ready(&world.service);
}

/* Never `single_user`: then paths are taken, and what is fuzzed may be the path of anything on this machine.
 */
static void make_service(const struct user_limits *limits)
{
	world.service = (struct service){
		.cache = &world.cache,
		.methods = server_methods,
		.stop = on_stop,
		.freed = on_freed,
	};
	users_init(&world.service.users, limits, world.cache.pool);
	list_init(&world.service.waiting);
	world.conns = (struct conns){
		.base = world.base,
		.service = &world.service,
		.max_fds = MAX_FDS,
		.changed = on_conns_changed,
	};
	list_init(&world.conns.open);
}

/* Pipes are not: sanitizers make some whenever they name a function. Nor is the file of staging.h's records,
 * which is made for the first target and stays open. */
static bool is_counted(const char *what)
{
	return strncmp(what, "pipe:", 5) != 0 && !strstr(what, "/store/staging/");
}

/* say: also what they are. */
static size_t count_fds(bool say)
{
	DIR *dir = opendir("/proc/self/fd");
	const struct dirent *entry;
	char what[256];
	size_t n = 0;

	assert(dir);
	while ((entry = readdir(dir))) {
		ssize_t len = readlinkat(dirfd(dir), entry->d_name, what, sizeof(what) - 1);

		what[len < 0 ? 0 : len] = '\0';
		if (len < 0 || !is_counted(what))
			continue;
		n++;
		if (say)
			(void)fprintf(stderr, "%s: %s\n", entry->d_name, what);
	}
	(void)closedir(dir);
	return n;
}

static void close_all(void)
{
	conns_close(&world.conns);
	cache_close(&world.cache);
	event_free(world.tick);
	event_base_free(world.base);
	world.is_running = false;
}

int world_start(uint64_t max_size)
{
	const struct user_limits limits = {
		.connections = 16, .requests = 128, .fds = 128, .tags = 8, .leases = 8
	};
	const struct cache_config config = {
		.store = world.store,
		.n_workers = WORKERS,
		.limits = tree_default_limits,
		.node_memory = NODE_MEMORY,
		.space = { .max_size = max_size },
		.user = limits,
	};
	int r;

	assert(!world.is_running);
	world.base = event_base_new();
	assert(world.base);
	world.tick = evtimer_new(world.base, on_tick, NULL);
	assert(world.tick);
	err_clear(&world.err);
	world.loaded = r = cache_open(&world.cache, world.base, &config, &world.err);
	make_service(&limits);
	if (r == 0) {
		cache_load(&world.cache, on_loaded, NULL);
		world_settle();
		r = world.loaded;
	}
	world.is_running = r == 0;
	if (r < 0)
		close_all();
	else
		world.n_fds = count_fds(false);
	return r;
}

void world_begin_stop(void)
{
	if (world.service.stopping)
		return;
	world.service.stopping = true;
	conns_cancel(&world.conns);
	cache_stop(&world.cache);
}

void world_stop(void)
{
	world_begin_stop();
	world_settle();
	close_all();
}

void world_check_idle(void)
{
	assert(world.conns.n == 0);
	assert(world.service.n_fds == 0 && world.service.n_large == 0 &&
	       list_is_empty(&world.service.waiting));
	assert(list_is_empty(&world.service.users.all));
	assert(flights_n(world.cache.flights) == 0 && nodes_n_under_way(world.cache.nodes) == 0);
	assert(claims_n(world.cache.claims) == 0);
	assert(world_count("out", ".dircache-") == world_count("out", CLIENTS_HIDDEN));
	assert(world_count("store/tmp", "") == 0);
	if (count_fds(false) == world.n_fds)
		return;
	(void)fprintf(stderr, "%zu descriptors are open, not %zu\n", count_fds(true), world.n_fds);
	abort();
}
