/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/conn.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>

#include "common/alloc.h"
#include "common/socket.h"
#include "daemon/lap.h"

enum {
	READ_SIZE = 64 * 1024,
	READS_A_TURN = 4, /* then other connections get theirs, */
	TURN_NS = 300000, /* as after so long */
};

static const struct timeval at_once = { 0 }, a_while = { .tv_usec = 20000 };

/* Descriptors that came with the byte before a position of the stream. */
struct arrival {
	uint64_t end;
	int *fds;
	size_t n;
	bool truncated;
};

/* A message on its way out. */
struct outgoing {
	struct list link;
	char *bytes;
	size_t len, sent;
	int fd;
};

struct conn {
	struct session session;
	struct conns *conns;
	struct list link;
	struct list starving; /* among those that wait for descriptors to be closed */
	int sock;
	struct event *readable, *writable;
	struct event *hung_up; /* while it is not read, and so cannot tell */
	struct event *again;   /* a timer: until it may have time, or send a descriptor */

	char *in; /* bytes; those of the current message begin at in_at */
	size_t in_at, in_len, in_capacity;
	uint64_t in_start; /* the stream's position of in[in_at] */
	struct wire_scanner scanner;
	struct arrival *arrivals; /* oldest first */
	size_t n_arrivals, arrivals_capacity;

	struct list out;
	size_t out_len;

	bool dispatching; /* a request may end from within, and must not start reading again below */
	bool held_up;     /* whole messages may be in `in`, for which there was no room or time */
	bool paused;      /* sends nothing until `again` */
	bool closing;     /* send what is there, then close: the peer sent nonsense, or nothing more */
	bool dead;        /* free it as soon as nobody is inside */
};

static void dispatch(struct conn *conn);
static void watch(struct conn *conn);

/* ---- end ---- */

static void outgoing_free(struct conn *conn, struct outgoing *out)
{
	conn->out_len -= out->len - out->sent;
	list_remove(&out->link);
	if (out->fd >= 0)
		cache_close_fds(conn->session.service->cache, &out->fd, 1);
	free(out->bytes);
	free(out);
}

static void drop_arrivals(struct conn *conn)
{
	for (size_t i = 0; i < conn->n_arrivals; i++) {
		session_uncount_fds(&conn->session, conn->arrivals[i].n);
		if (conn->arrivals[i].n)
			cache_close_fds(conn->session.service->cache, conn->arrivals[i].fds,
					conn->arrivals[i].n);
		free(conn->arrivals[i].fds);
	}
	conn->n_arrivals = 0;
}

static void conn_free(struct conn *conn)
{
	struct conns *conns = conn->conns;

	drop_arrivals(conn);
	while (!list_is_empty(&conn->out))
		outgoing_free(conn, LIST_ENTRY(conn->out.next, struct outgoing, link));
	session_fini(&conn->session);
	event_free(conn->readable);
	event_free(conn->writable);
	event_free(conn->hung_up);
	event_free(conn->again);
	(void)close(conn->sock);
	list_remove(&conn->link);
	list_remove(&conn->starving);
	conns->n--;
	free(conn->arrivals);
	free(conn->in);
	free(conn);
	conns_feed(conns);
	conns->changed(conns->ctx);
}

/* ---- out ---- */

/*
 * Too many descriptors of our user are on their way in sockets, and there is no event for their arrival: the
 * socket is writable all the while.
 */
static void pause_sending(struct conn *conn)
{
	conn->paused = true;
	(void)evtimer_add(conn->again, &a_while);
}

/* Return: 0 when all is sent, -EAGAIN, or why the peer cannot be reached. */
static int flush(struct conn *conn)
{
	while (!list_is_empty(&conn->out) && !conn->paused) {
		struct outgoing *out = LIST_ENTRY(conn->out.next, struct outgoing, link);
		ssize_t n = socket_send(conn->sock, out->bytes + out->sent, out->len - out->sent, &out->fd,
					out->fd >= 0 ? 1 : 0);

		if (n == -ETOOMANYREFS)
			pause_sending(conn);
		if (n < 0)
			return n == -ETOOMANYREFS ? -EAGAIN : (int)n;
		if (out->fd >= 0)
			cache_close_fds(conn->session.service->cache, &out->fd, 1);
		out->fd = -1;
		out->sent += (size_t)n;
		conn->out_len -= (size_t)n;
		if (out->sent == out->len)
			outgoing_free(conn, out);
	}
	return conn->paused ? -EAGAIN : 0;
}

static void flush_or_die(struct conn *conn)
{
	int r = flush(conn);

	if (r < 0 && r != -EAGAIN)
		conn->dead = true;
	if (r == 0 && conn->closing && conn->session.n_requests == 0)
		conn->dead = true;
}

static void enqueue(struct conn *conn, char *bytes, size_t len, int fd)
{
	struct outgoing *out = xmalloc(sizeof(*out));

	*out = (struct outgoing){ .bytes = bytes, .len = len, .fd = fd };
	list_init(&out->link);
	list_append(&conn->out, &out->link);
	conn->out_len += len;
}

static void conn_send(struct session *session, char *bytes, size_t len, int fd)
{
	struct conn *conn = CONTAINER_OF(session, struct conn, session);

	enqueue(conn, bytes, len, fd);
	if (conn->dispatching || conn->dead)
		return;    /* sent together with the others of this turn */
	(void)flush(conn); /* a peer that is gone shows when it is read */
	watch(conn);
}

static void serve_writable(struct conn *conn)
{
	flush_or_die(conn);
	if (conn->dead) {
		conn_free(conn);
		return;
	}
	if (conn->held_up)
		dispatch(conn);
	watch(conn);
}

static void on_writable(evutil_socket_t sock, short what, void *arg)
{
	struct lap lap = lap_begin();

	(void)sock;
	(void)what;
	serve_writable(arg);
	lap_end(&lap);
}

/* ---- in ---- */

/* The descriptors of the message that ends at a position; those that came inside it are its own. */
static int *take_arrivals(struct conn *conn, uint64_t end, size_t *n_fds, bool *truncated)
{
	size_t n = 0, i;
	int *fds = NULL;

	*truncated = false;
	for (i = 0; i < conn->n_arrivals && conn->arrivals[i].end <= end; i++) {
		struct arrival *arrival = &conn->arrivals[i];

		if (arrival->n) {
			fds = xreallocarray(fds, n + arrival->n, sizeof(*fds));
			memcpy(fds + n, arrival->fds, arrival->n * sizeof(*fds));
		}
		n += arrival->n;
		*truncated |= arrival->truncated;
		free(arrival->fds);
	}
	conn->n_arrivals -= i;
	if (i)
		memmove(conn->arrivals, conn->arrivals + i, conn->n_arrivals * sizeof(*conn->arrivals));
	session_uncount_fds(&conn->session, n); /* the request counts them again */
	*n_fds = n;
	return fds;
}

static bool may_dispatch(const struct conn *conn)
{
	return conn->session.n_requests < CONN_REQUESTS_MAX && conn->out_len < CONN_UNSENT_MAX &&
	       !conn->closing;
}

/* The daemon, or its user, has as many descriptors open as may be. */
static bool is_starving(const struct conn *conn)
{
	return conn->session.service->n_fds >= conn->conns->max_fds ||
	       !user_may_receive_fds(conn->session.user);
}

static bool may_read(const struct conn *conn)
{
	return may_dispatch(conn) && !conn->held_up && !is_starving(conn);
}

/* What the peer sent is no message: say so, and listen no more. */
static void refuse(struct conn *conn, const struct err *err)
{
	struct wire_out out = { 0 };
	char *bytes;
	size_t len;

	wire_notification(&out, "error");
	wire_map(&out, 2);
	wire_put_text(&out, "code", err_code_text(err->code));
	wire_put_text(&out, "message", err->text);
	bytes = wire_out_take(&out, &len);
	enqueue(conn, bytes, len, -1);
	conn->closing = true;
	session_cancel(&conn->session);
}

/* Hand one whole message on. */
static int dispatch_one(struct conn *conn, size_t len, struct err *err)
{
	bool truncated;
	size_t n_fds;
	int *fds = take_arrivals(conn, conn->in_start + len, &n_fds, &truncated);
	char *bytes = xmemdupz(conn->in + conn->in_at, len);

	conn->in_start += len;
	conn->in_at += len;
	conn->in_len -= len;
	wire_scanner_init(&conn->scanner, &wire_default_limits);
	return request_start(&conn->session, bytes, len, fds, n_fds, truncated, err);
}

/* What came with a message that is not whole yet. */
static int check_arrivals(const struct conn *conn, struct err *err)
{
	size_t n = 0;

	for (size_t i = 0; i < conn->n_arrivals; i++)
		n += conn->arrivals[i].n;
	if (n <= WIRE_DESCRIPTORS_MAX)
		return WIRE_MORE;
	err_set(err, ERR_RESOURCE_EXHAUSTED, "more than %d descriptors came with one message",
		WIRE_DESCRIPTORS_MAX);
	return -EBADMSG;
}

/* To the front, so that what comes next has room. */
static void move_up(struct conn *conn)
{
	if (conn->in_at && conn->in_len)
		memmove(conn->in, conn->in + conn->in_at, conn->in_len);
	conn->in_at = 0;
}

/* Hand on what is whole, as far as the limits let it. */
static void dispatch(struct conn *conn)
{
	uint64_t end_ns = lap_now_ns() + TURN_NS;
	struct err err = { 0 };
	int r = WIRE_WHOLE;

	conn->dispatching = true;
	while (r == WIRE_WHOLE && conn->in_len && may_dispatch(conn) && lap_now_ns() < end_ns) {
		r = wire_scanner_feed(&conn->scanner, conn->in + conn->in_at, conn->in_len, &err);
		if (r == WIRE_WHOLE && dispatch_one(conn, conn->scanner.offset, &err) < 0)
			r = -EBADMSG;
	}
	move_up(conn);
	conn->held_up = r == WIRE_WHOLE && conn->in_len;
	if (r == WIRE_MORE)
		r = check_arrivals(conn, &err);
	if (r < 0)
		refuse(conn, &err);
	conn->dispatching = false;
}

static void note_arrival(struct conn *conn, const int *fds, const struct socket_received *received)
{
	struct arrival *arrival;

	if (!received->n_fds && !received->truncated)
		return;
	conn->arrivals =
		xgrow(conn->arrivals, conn->n_arrivals, &conn->arrivals_capacity, sizeof(*conn->arrivals));
	arrival = &conn->arrivals[conn->n_arrivals++];
	*arrival = (struct arrival){
		.end = conn->in_start + conn->in_len,
		.n = received->n_fds,
		.truncated = received->truncated,
	};
	if (received->n_fds) {
		arrival->fds = xreallocarray(NULL, received->n_fds, sizeof(*fds));
		memcpy(arrival->fds, fds, received->n_fds * sizeof(*fds));
	}
	session_count_fds(&conn->session, received->n_fds);
}

/* Return: bytes that came, 0 (the end), or a negative errno. */
static ssize_t receive(struct conn *conn)
{
	int fds[WIRE_DESCRIPTORS_MAX];
	struct socket_received received;
	int r;

	if (conn->in_capacity - conn->in_len < READ_SIZE) {
		conn->in_capacity = conn->in_capacity * 2 + READ_SIZE;
		conn->in = xreallocarray(conn->in, conn->in_capacity, 1);
	}
	r = socket_receive(conn->sock, conn->in + conn->in_len, READ_SIZE, fds, &received);
	if (r < 0)
		return r;
	conn->in_len += (size_t)received.n;
	note_arrival(conn, fds, &received);
	return received.n;
}

/* A large message was here: do not keep its memory for the next small one. */
static void shrink(struct conn *conn)
{
	if (conn->in_len || conn->in_capacity <= 4 * READ_SIZE)
		return;
	free(TAKE(conn->in));
	conn->in_capacity = 0;
}

static void serve_readable(struct conn *conn)
{
	ssize_t r = READ_SIZE;

	/* On after a full buffer only: the usual request is small, and its client waits for the answer. */
	for (unsigned i = 0; i < READS_A_TURN && r == READ_SIZE && may_read(conn); i++) {
		r = receive(conn);
		if (r > 0)
			dispatch(conn);
	}
	shrink(conn);
	if (r == 0 || (r < 0 && r != -EAGAIN)) {
		conn_free(conn); /* whoever hangs up wants no answers */
		return;
	}
	flush_or_die(conn);
	if (conn->dead)
		conn_free(conn);
	else
		watch(conn);
}

static void on_readable(evutil_socket_t sock, short what, void *arg)
{
	struct lap lap = lap_begin();

	(void)sock;
	(void)what;
	serve_readable(arg);
	lap_end(&lap);
}

static void on_again(evutil_socket_t sock, short what, void *arg)
{
	struct conn *conn = arg;

	conn->paused = false;
	on_writable(sock, what, conn);
}

static void on_hung_up(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	conn_free(arg);
}

void conns_feed(struct conns *conns)
{
	if (conns->service->n_fds >= conns->max_fds)
		return;
	list_for_each (l, &conns->starved) {
		struct conn *conn = LIST_ENTRY(l, struct conn, starving);

		if (!is_starving(conn))
			watch(conn);
	}
}

static void conn_request_ended(struct session *session)
{
	struct conn *conn = CONTAINER_OF(session, struct conn, session);

	if (conn->dispatching || conn->dead)
		return;
	dispatch(conn); /* what had come while there was no room */
	(void)flush(conn);
	watch(conn);
}

/* Watch for what can be done now. */
static void watch(struct conn *conn)
{
	if (may_read(conn)) {
		(void)event_add(conn->readable, NULL);
		(void)event_del(conn->hung_up);
	} else {
		(void)event_del(conn->readable);
		(void)event_add(conn->hung_up, NULL);
	}
	list_remove(&conn->starving);
	if (may_dispatch(conn) && !conn->held_up && is_starving(conn))
		list_append(&conn->conns->starved, &conn->starving);
	if (conn->held_up && may_dispatch(conn)) /* there was no time: at the next turn of the loop */
		(void)evtimer_add(conn->again, &at_once);
	if ((!list_is_empty(&conn->out) && !conn->paused) || (conn->closing && conn->session.n_requests == 0))
		(void)event_add(conn->writable, NULL);
	else
		(void)event_del(conn->writable);
}

/* ---- all ---- */

void conn_new(struct conns *conns, int sock, struct identity *identity)
{
	struct conn *conn = xcalloc(1, sizeof(*conn));

	session_init(&conn->session, conns->service, identity);
	conn->session.send = conn_send;
	conn->session.request_ended = conn_request_ended;
	conn->conns = conns;
	conn->sock = sock;
	list_init(&conn->out);
	list_init(&conn->link);
	list_init(&conn->starving);
	wire_scanner_init(&conn->scanner, &wire_default_limits);
	conn->readable = event_new(conns->base, sock, EV_READ | EV_PERSIST, on_readable, conn);
	conn->writable = event_new(conns->base, sock, EV_WRITE | EV_PERSIST, on_writable, conn);
	conn->hung_up = event_new(conns->base, sock, EV_CLOSED | EV_PERSIST, on_hung_up, conn);
	conn->again = evtimer_new(conns->base, on_again, conn);
	if (!conn->readable || !conn->writable || !conn->hung_up || !conn->again)
		abort();
	list_append(&conns->open, &conn->link);
	conns->n++;
	conns->changed(conns->ctx);
	watch(conn);
}

void conns_cancel(struct conns *conns)
{
	list_for_each (l, &conns->open)
		session_cancel(&LIST_ENTRY(l, struct conn, link)->session);
}

bool conns_busy(const struct conns *conns)
{
	list_for_each (l, &conns->open) {
		const struct conn *conn = LIST_ENTRY(l, struct conn, link);

		if (conn->session.n_requests || !list_is_empty(&conn->out))
			return true;
	}
	return false;
}

void conns_close(struct conns *conns)
{
	while (!list_is_empty(&conns->open))
		conn_free(LIST_ENTRY(conns->open.next, struct conn, link));
}
