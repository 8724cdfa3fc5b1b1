/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/server.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/alloc.h"
#include "common/log.h"
#include "common/path.h"
#include "common/socket.h"
#include "daemon/cache.h"
#include "daemon/conn.h"
#include "daemon/disk.h"
#include "daemon/gc.h"
#include "daemon/identity.h"
#include "daemon/info.h"
#include "daemon/look.h"
#include "daemon/materialize.h"
#include "daemon/put.h"
#include "daemon/remove.h"
#include "daemon/supervisor.h"

enum {
	SPARE_FDS = 256,   /* for the daemon itself: folders, SQLite */
	MANY_FDS = 2048,   /* for clients: then as many are left, of which the store may keep some */
	TABLE_FDS = 16384, /* of 8 bytes each */
	CONNECTIONS = 10000,
	RESERVE = 8, /* connections beyond any limit, for administration */
	ACCEPTS_A_TURN = 4,
	LAST_WORDS_MS = 2000, /* how long a stop waits for clients to take their answers */
};

static const struct timeval stop_poll = { .tv_usec = 5000 };
static const struct timeval accept_pause = { .tv_usec = 100000 };

/* The columns: request.h, struct method. */
const struct method server_methods[] = {
	{ "ping", ping_start, true, false },
	{ "put", put_start, false, false },
	{ "materialize", materialize_start, false, false },
	{ "remove", remove_start, false, false },
	{ "cat", cat_start, false, false },
	{ "ls", ls_start, false, false },
	{ "has", has_start, false, false },
	{ "tag", tag_start, false, false },
	{ "tags", tags_start, false, false },
	{ "stats", stats_start, true, false },
	{ "trees", trees_start, false, false },
	{ "gc", gc_start, false, true },
	{ "verify", verify_start, false, true },
	{ "cancel", cancel_start, true, false },
	{ "stop", stop_start, true, true },
	{ NULL, NULL, false, false },
};

struct server {
	const struct options *options;
	struct event_base *base;
	struct cache cache;
	struct service service;
	struct conns conns;
	int listen_fd, lock_fd;
	size_t max_connections;
	bool is_full; /* of connections, and the log says so */
	struct event *acceptable, *accept_again, *term, *interrupt, *stopping, *idle;
	uint64_t stop_began_ns;
	bool handed; /* listen_fd was opened by whoever started us, who owns its name, too */
	bool bound;  /* it is ours */
	int r;       /* why the server ended, if not as it was told */
	struct err err;
};

/* ---- the socket ---- */

/* Whoever holds this lock may replace what is at the socket's path. */
static int lock_socket(struct server *server, struct err *err)
{
	const char *path = server->options->socket;
	AUTO_FREE char *lock = xasprintf("%s.lock", path);
	int r = path_make_socket_folder(path, err);

	if (r < 0)
		return r;
	server->lock_fd = disk_openat(AT_FDCWD, lock, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);
	if (server->lock_fd < 0)
		return err_errno(err, server->lock_fd, "opening the lock '%s'", lock);
	r = disk_flock(server->lock_fd, LOCK_EX | LOCK_NB);
	if (r == -EWOULDBLOCK)
		return err_set(err, ERR_FAILED_PRECONDITION, "another dircached listens at '%s'", path);
	return r < 0 ? err_errno(err, r, "locking '%s'", lock) : 0;
}

static int remove_stale_socket(const char *path, struct err *err)
{
	AUTO_CLOSE int sock = -1;
	struct stat st;
	int r = disk_fstatat(AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW);

	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return err_errno(err, r, "looking for a stale socket at '%s'", path);
	if (!S_ISSOCK(st.st_mode))
		return err_set(err, ERR_FAILED_PRECONDITION, "'%s' is there and is no socket", path);
	sock = socket_connect(path, SOCK_NONBLOCK, NULL);
	if (sock >= 0 || sock == -EAGAIN)
		return err_set(err, ERR_FAILED_PRECONDITION, "another process listens at '%s'", path);
	r = disk_unlinkat(AT_FDCWD, path, 0);
	return r < 0 ? err_errno(err, r, "removing the stale socket '%s'", path) : 0;
}

static int find_group(const char *name, gid_t *gid, struct err *err)
{
	const struct group *group;
	char *end;
	unsigned long number = strtoul(name, &end, 10);

	*gid = (gid_t)number;
	if (*name && !*end && number < UINT32_MAX)
		return 0;
	group = getgrnam(name);
	if (!group)
		return err_set(err, ERR_INVALID_ARGUMENT, "socket-group: there is no group '%s'", name);
	*gid = group->gr_gid;
	return 0;
}

static int find_socket(struct server *server, struct err *err)
{
	int r = supervisor_take_socket(&server->listen_fd, err);

	server->handed = r == 0;
	return r == SUPERVISOR_NONE ? lock_socket(server, err) : r;
}

static int listen_at(struct server *server, struct err *err)
{
	const struct options *options = server->options;
	gid_t gid = (gid_t)-1;
	int r;

	if (server->handed)
		return 0;
	if (options->socket_group && (r = find_group(options->socket_group, &gid, err)) < 0)
		return r;
	if ((r = remove_stale_socket(options->socket, err)) < 0)
		return r;
	server->listen_fd = socket_listen(options->socket, (mode_t)options->socket_mode, err);
	if (server->listen_fd < 0)
		return server->listen_fd;
	server->bound = true;
	if (gid != (gid_t)-1 && lchown(options->socket, (uid_t)-1, gid) < 0)
		return err_errno(err, -errno, "giving the socket '%s' to group %u", options->socket,
				 (unsigned)gid);
	return 0;
}

/* ---- connections ---- */

/* Is this peer one that is served? */
static int check_peer(uid_t uid, struct err *err)
{
	if (identity_is_served(uid))
		return 0;
	if (identity_can_act())
		return err_set(err, ERR_PERMISSION_DENIED,
			       "user %u is not served: that is the number of users that have none here",
			       (unsigned)uid);
	return err_set(err, ERR_PERMISSION_DENIED, "this daemon serves user %u only, not user %u",
		       (unsigned)geteuid(), (unsigned)uid);
}

/* Is there room for another connection of this user? */
static int check_room(struct server *server, uid_t uid, struct err *err)
{
	struct user *user;
	int r;

	if (server->conns.n < server->max_connections) {
		server->is_full = false;
		user = users_get(&server->service.users, uid);
		r = user_check_connections(user, err);
		user_put(user);
		return r;
	}
	if (!server->is_full)
		log_warning("%zu connections are open, and no more may be (max-connections)",
			    server->conns.n);
	server->is_full = true;
	err_set(err, ERR_RESOURCE_EXHAUSTED, "%zu connections are open, and no more may be (max-connections)",
		server->conns.n);
	return -EUSERS;
}

static void turn_away(int sock, const struct err *err)
{
	struct wire_out out = { 0 };

	wire_notification(&out, "error");
	wire_map(&out, 2);
	wire_put_text(&out, "code", err_code_text(err->code));
	wire_put_text(&out, "message", err->text);
	(void)socket_send(sock, out.data, out.len, NULL, 0);
	wire_out_fini(&out);
	(void)close(sock);
}

static void accept_one(struct server *server, int sock)
{
	struct identity *identity = NULL;
	struct err err = { 0 };
	int r = identity_of_peer(sock, &identity);
	bool is_reserved = false;

	if (r < 0)
		err_errno(&err, r, "asking who the peer is");
	else
		r = check_peer(identity->uid, &err);
	if (r == 0) {
		r = check_room(server, identity->uid, &err);
		is_reserved = r < 0 && identity_is_admin(identity->uid) && server->conns.n_reserved < RESERVE;
	}
	if (r == 0 || is_reserved) {
		conn_new(&server->conns, sock, identity, is_reserved);
		return;
	}
	server->cache.counters.connections_refused++;
	turn_away(sock, &err);
	identity_put(identity);
}

/* Out of descriptors: connections wait in the backlog, but the level-triggered event must not spin. */
static void pause_accepting(struct server *server)
{
	(void)event_del(server->acceptable);
	(void)evtimer_add(server->accept_again, &accept_pause);
}

static void on_acceptable(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;
	struct lap lap = lap_begin();
	int sock = 0;

	(void)what;
	for (unsigned i = 0; i < ACCEPTS_A_TURN && sock >= 0; i++) {
		sock = accept4(fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
		if (sock >= 0)
			accept_one(server, sock);
		else if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
			pause_accepting(server);
	}
	lap_end(&lap);
}

static void on_accept_again(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;

	(void)fd;
	(void)what;
	if (!server->service.stopping)
		(void)event_add(server->acceptable, NULL);
}

/* ---- stopping ---- */

static bool may_end(const struct server *server)
{
	bool waited = slice_now_ns() - server->stop_began_ns > LAST_WORDS_MS * 1000000ull;

	return !cache_busy(&server->cache) && server->cache.counters.requests_active == 0 &&
	       (waited || !conns_busy(&server->conns));
}

static void on_stopping(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;

	(void)fd;
	(void)what;
	if (may_end(server))
		(void)event_base_loopbreak(server->base);
	else
		(void)evtimer_add(server->stopping, &stop_poll);
}

static void begin_stop(struct server *server)
{
	if (server->service.stopping)
		return;
	supervisor_tell("STOPPING=1");
	server->service.stopping = true;
	server->stop_began_ns = slice_now_ns();
	(void)event_del(server->acceptable);
	(void)event_del(server->idle);
	conns_cancel(&server->conns);
	cache_stop(&server->cache);
	(void)evtimer_add(server->stopping, &stop_poll);
}

static void on_service_stop(struct service *service)
{
	begin_stop(CONTAINER_OF(service, struct server, service));
}

static void on_freed(struct service *service)
{
	conns_feed(&CONTAINER_OF(service, struct server, service)->conns);
}

static void on_signal(evutil_socket_t number, short what, void *arg)
{
	(void)what;
	log_info("stopping: signal %d", (int)number);
	begin_stop(arg);
}

static void on_idle(evutil_socket_t fd, short what, void *arg)
{
	struct server *server = arg;

	(void)fd;
	(void)what;
	log_info("stopping: no client for %ju seconds", (uintmax_t)server->options->idle_timeout);
	begin_stop(server);
}

static void on_conns_changed(void *ctx)
{
	struct server *server = ctx;
	struct timeval timeout = { .tv_sec = (time_t)server->options->idle_timeout };

	server->cache.counters.connections = server->conns.n;
	if (!server->options->idle_timeout || server->service.stopping)
		return;
	if (server->conns.n)
		(void)event_del(server->idle);
	else
		(void)evtimer_add(server->idle, &timeout);
}

/* ---- starting ---- */

static void on_loaded(void *ctx, int r, const struct err *err)
{
	struct server *server = ctx;

	if (r < 0) {
		server->r = r;
		server->err = *err;
		begin_stop(server);
		return;
	}
	log_debug("ready: %zu trees", trees_n(server->cache.trees));
	requests_ready(&server->service);
	supervisor_tell("READY=1");
}

/* As many descriptors as we may have. Return: how many clients may have of them, one way or another. */
static size_t raise_fd_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return SPARE_FDS;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
	(void)getrlimit(RLIMIT_NOFILE, &limit);
	return limit.rlim_cur > 2 * SPARE_FDS ? limit.rlim_cur - SPARE_FDS : SPARE_FDS;
}

/* A third of them for connections, if no other number is asked for: what they send takes more. */
static size_t share_connections(size_t n_fds, uint64_t wanted)
{
	size_t most = n_fds - n_fds / 4;

	if (!wanted)
		return n_fds / 3 < CONNECTIONS ? n_fds / 3 : CONNECTIONS;
	if (wanted > most)
		log_warning("max-connections: the limit of descriptors (RLIMIT_NOFILE) leaves room for %zu",
			    most);
	return wanted < most ? (size_t)wanted : most;
}

/*
 * A full table of descriptors is replaced by one of twice the size, and in a process with threads the system
 * then waits until no processor looks at the old one: ten milliseconds, on the loop, whenever messages bring
 * more descriptors than ever before. So it is made large before there are threads; it never shrinks.
 */
static void widen_fd_table(void)
{
	int fd = -1;

	for (int size = TABLE_FDS; fd < 0 && size > SPARE_FDS; size /= 2) /* the limit may be lower */
		fd = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, size - 1);
	disk_close(fd);
}

/*
 * What one user may have. Connections and what comes through them are descriptors, and nobody gets more than
 * half of them. A daemon with one user leaves them all to that one.
 */
static struct user_limits share_fds(const struct user_limits *limits, size_t n_connections, size_t max_fds)
{
	size_t part = identity_can_act() ? 2 : 1;
	struct user_limits shared = *limits;

	if (!shared.fds || shared.fds > max_fds)
		shared.fds = max_fds / part;
	if (shared.connections > n_connections / part)
		shared.connections = n_connections / part;
	return shared;
}

static struct event *make(struct server *server, evutil_socket_t fd, short what, event_callback_fn callback)
{
	struct event *event = event_new(server->base, fd, what, callback, server);

	if (!event)
		abort();
	return event;
}

static void make_events(struct server *server)
{
	server->acceptable = make(server, server->listen_fd, EV_READ | EV_PERSIST, on_acceptable);
	server->accept_again = make(server, -1, 0, on_accept_again);
	server->stopping = make(server, -1, 0, on_stopping);
	server->idle = make(server, -1, 0, on_idle);
	(void)event_add(server->acceptable, NULL);
}

/* Before anybody can connect: who sees the daemon listen may end it. */
static void hear_signals(struct server *server)
{
	server->term = make(server, SIGTERM, EV_SIGNAL | EV_PERSIST, on_signal);
	server->interrupt = make(server, SIGINT, EV_SIGNAL | EV_PERSIST, on_signal);
	(void)event_add(server->term, NULL);
	(void)event_add(server->interrupt, NULL);
}

static int start(struct server *server, struct err *err)
{
	const struct options *options = server->options;
	struct cache_config config = {
		.store = options->store,
		.limits = options->limits,
		.node_memory = options->node_memory,
		.space = { .max_size = options->max_size, .min_free = options->min_free },
		.user = options->user,
	};
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	size_t n_fds = raise_fd_limit(), max_fds;
	struct user_limits user;
	int r;

	server->max_connections = share_connections(n_fds, options->max_connections);
	max_fds = (n_fds - server->max_connections) / 2; /* the other half are the store's files */
	user = share_fds(&options->user, server->max_connections, max_fds);
	widen_fd_table();
	config.n_workers = options->workers ? (size_t)options->workers : (size_t)(cpus > 0 ? cpus : 1) + 2;
	config.n_spare = identity_can_act();
	user.workers = config.n_workers;
	if ((r = find_socket(server, err)) < 0 ||
	    (r = cache_open(&server->cache, server->base, &config, err)) < 0)
		return r;
	hear_signals(server);
	if ((r = listen_at(server, err)) < 0)
		return r;
	server->service = (struct service){
		.cache = &server->cache,
		.methods = server_methods,
		.stop = on_service_stop,
		.freed = on_freed,
		/* Nobody else is served, or gets past the socket's mode, which is known of our own. */
		.single_user = !identity_can_act() || (!server->handed && !(options->socket_mode & 0066)),
	};
	users_init(&server->service.users, &user, server->cache.pool);
	list_init(&server->service.waiting);
	server->conns = (struct conns){
		.base = server->base,
		.service = &server->service,
		.max_fds = max_fds,
		.patience = { .stall = options->message_timeout * 1000000000,
			      .idle = options->connection_timeout * 1000000000 },
		.changed = on_conns_changed,
		.ctx = server,
	};
	list_init(&server->conns.open);
	if (server->conns.max_fds >= MANY_FDS)
		blob_store_keep_folders(server->cache.store);
	make_events(server);
	on_conns_changed(server);
	cache_load(&server->cache, on_loaded, server);
	return 0;
}

static void free_event(struct event *event)
{
	if (event)
		event_free(event);
}

static void finish(struct server *server)
{
	if (server->conns.open.next)
		conns_close(&server->conns);
	free_event(server->acceptable);
	free_event(server->accept_again);
	free_event(server->stopping);
	free_event(server->idle);
	free_event(server->term);
	free_event(server->interrupt);
	cache_close(&server->cache);
	if (server->bound)
		(void)disk_unlinkat(AT_FDCWD, server->options->socket, 0);
	disk_close(server->listen_fd);
	disk_close(server->lock_fd);
	event_base_free(server->base);
}

int server_run(const struct options *options, struct err *err)
{
	struct server server = { .options = options, .listen_fd = -1, .lock_fd = -1 };
	int r;

	identity_init();
	server.cache.store_fd = server.cache.lock_fd = -1;
	server.base = event_base_new();
	if (!server.base)
		return err_set(err, ERR_INTERNAL, "the event loop cannot be made");
	r = start(&server, err);
	if (r == 0) {
		if (server.handed)
			log_info("serving store '%s' at the socket that was handed over", options->store);
		else
			log_info("serving store '%s' at '%s'", options->store, options->socket);
		(void)event_base_dispatch(server.base);
		r = server.r;
		if (r < 0)
			*err = server.err;
	}
	finish(&server);
	return r;
}
