/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/conn.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>

#include "common/alloc.h"
#include "common/socket.h"
#include "daemon/discard.h"
#include "daemon/inbox.h"
#include "daemon/lap.h"

enum {
	READS_A_TURN = 4, /* then other connections get theirs, */
	TURN_NS = 300000, /* as after so long */
	SWEEP_LEAST = 64, /* connections looked at in a second, and a quarter of those there are */
};

/* Who does nothing on a connection for administration, of which there are few, does not keep it. */
static const uint64_t reserved_idle_ns = 30000000000;

static const struct timeval at_once = { 0 }, a_while = { .tv_usec = 20000 }, a_second = { .tv_sec = 1 };

/* Waiting for the peer: since when, and what would have changed if it had done something. */
struct wait {
	uint64_t since_ns, mark;
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

	struct inbox inbox;
	struct list out;
	size_t out_len;
	uint64_t n_sent; /* messages, whole */

	struct wait message, taking,
		rest; /* for the end of a message, for answers to be taken, for a request */

	bool dispatching; /* a request may end from within, and must not start reading again below */
	bool held_up;     /* whole messages may be in the inbox, for which there was no room or time */
	bool paused;      /* sends nothing until `again` */
	bool closing;     /* send what is there, then close: the peer sent nonsense, or nothing more */
	bool dead;        /* free it as soon as nobody is inside */
};

static void dispatch(struct conn *conn);
static void watch(struct conn *conn);

/* ---- end ---- */

static void count_sent(struct conn *conn, size_t n)
{
	conn->out_len -= n;
	conn->session.user->unsent -= n;
}

static void outgoing_free(struct conn *conn, struct outgoing *out)
{
	count_sent(conn, out->len - out->sent);
	list_remove(&out->link);
	if (out->fd >= 0)
		cache_close_fds(conn->session.service->cache, &out->fd, 1);
	free(out->bytes);
	free(out);
}

static void drop_inbox(struct conn *conn)
{
	struct service *service = conn->session.service;
	size_t n_fds;
	int *fds = inbox_take_fds(&conn->inbox, &n_fds);

	session_uncount_fds(&conn->session, n_fds);
	if (n_fds)
		cache_close_fds(service->cache, fds, n_fds);
	free(fds);
	if (inbox_is_large(&conn->inbox)) {
		discard(service->cache->chores, TAKE(conn->inbox.bytes), conn->inbox.capacity);
		service_give_large(service, conn->session.user);
	}
	inbox_fini(&conn->inbox);
}

static void conn_free(struct conn *conn)
{
	struct conns *conns = conn->conns;

	list_remove(&conn->starving);
	drop_inbox(conn);
	while (!list_is_empty(&conn->out))
		outgoing_free(conn, LIST_ENTRY(conn->out.next, struct outgoing, link));
	session_fini(&conn->session);
	event_free(conn->readable);
	event_free(conn->writable);
	event_free(conn->hung_up);
	event_free(conn->again);
	(void)close(conn->sock);
	list_remove(&conn->link);
	conns->n--;
	conns->n_reserved -= conn->session.is_reserved;
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
static int send_some(struct conn *conn)
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
		count_sent(conn, (size_t)n);
		if (out->sent < out->len)
			continue;
		outgoing_free(conn, out);
		conn->n_sent++;
	}
	return conn->paused ? -EAGAIN : 0;
}

static bool takes_too_little(const struct user *user)
{
	return user->unsent >= USER_UNSENT_MAX;
}

/* The same, and where a user's other connections wait for that, they go on. */
static int flush(struct conn *conn)
{
	bool took_too_little = takes_too_little(conn->session.user);
	int r = send_some(conn);

	if (took_too_little && !takes_too_little(conn->session.user))
		conns_feed(conn->conns);
	return r;
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
	conn->session.user->unsent += len;
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

/* By what there is of this connection alone. */
static bool has_room(const struct conn *conn)
{
	return conn->session.n_requests < CONN_REQUESTS_MAX && conn->out_len < CONN_UNSENT_MAX &&
	       !conn->session.n_held && !conn->closing;
}

static bool may_dispatch(const struct conn *conn)
{
	return has_room(conn) && !takes_too_little(conn->session.user);
}

/* The daemon, or its user, has as many descriptors open as may be, or as many large messages. */
static bool is_starving(const struct conn *conn)
{
	const struct session *session = &conn->session;

	return session->service->n_fds >= conn->conns->max_fds || !user_may_receive_fds(session->user) ||
	       (inbox_wants_large(&conn->inbox) && !service_has_large(session->service, session->user));
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

/* Hand on what is whole, as far as the limits let it. */
static void dispatch(struct conn *conn)
{
	uint64_t end_ns = lap_now_ns() + TURN_NS;
	struct packet packet;
	struct err err = { 0 };
	int r = WIRE_WHOLE;

	conn->dispatching = true;
	while (r == WIRE_WHOLE && !inbox_is_empty(&conn->inbox) && may_dispatch(conn) &&
	       lap_now_ns() < end_ns) {
		r = inbox_next(&conn->inbox, &packet, &err);
		if (r != WIRE_WHOLE)
			break;
		session_uncount_fds(&conn->session, packet.n_fds); /* the request counts them again */
		if (request_start(&conn->session, &packet, &err) < 0)
			r = -EBADMSG;
	}
	inbox_settle(&conn->inbox);
	conn->held_up = r == WIRE_WHOLE && !inbox_is_empty(&conn->inbox);
	if (r < 0)
		refuse(conn, &err);
	conn->dispatching = false;
}

/* Return: bytes that came, 0 (the end), or a negative errno. */
static ssize_t receive(struct conn *conn)
{
	size_t n_fds;
	ssize_t n;

	if (inbox_wants_large(&conn->inbox))
		service_take_large(conn->session.service, conn->session.user);
	n = inbox_receive(&conn->inbox, conn->sock, &n_fds);
	session_count_fds(&conn->session, n_fds);
	return n;
}

static void serve_readable(struct conn *conn)
{
	uint64_t end_ns = lap_now_ns() + TURN_NS;
	ssize_t r = INBOX_READ;

	/* On after a full buffer only: the usual request is small, and its client waits for the answer. */
	for (unsigned i = 0; i < READS_A_TURN && r == INBOX_READ && may_read(conn); i++) {
		r = receive(conn);
		if (r > 0)
			dispatch(conn);
		if (lap_now_ns() >= end_ns)
			break;
	}
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

		if (may_dispatch(conn) && (conn->held_up || !is_starving(conn)))
			watch(conn);
	}
}

static void conn_request_ended(struct session *session)
{
	struct conn *conn = CONTAINER_OF(session, struct conn, session);

	if (conn->dispatching || conn->dead)
		return;
	watch(conn); /* what had come while there was no room has its turn as any other's */
}

static void conn_refuse(struct session *session, const struct err *err)
{
	struct conn *conn = CONTAINER_OF(session, struct conn, session);

	refuse(conn, err);
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
	if (has_room(conn) && (!may_dispatch(conn) || (!conn->held_up && is_starving(conn))))
		list_append(&conn->conns->starved, &conn->starving);
	if (conn->held_up && may_dispatch(conn)) /* there was no time: at the next turn of the loop */
		(void)evtimer_add(conn->again, &at_once);
	if ((!list_is_empty(&conn->out) && !conn->paused) || (conn->closing && conn->session.n_requests == 0))
		(void)event_add(conn->writable, NULL);
	else
		(void)event_del(conn->writable);
}

/* ---- waiting ---- */

/* For how long? Nothing was waited for if not waits, and all is well if the mark has changed. */
static uint64_t waited_ns(struct wait *wait, bool waits, uint64_t mark, uint64_t now_ns)
{
	if (!waits || !wait->since_ns || wait->mark != mark)
		*wait = (struct wait){ .since_ns = now_ns, .mark = mark };
	return now_ns - wait->since_ns;
}

static bool is_over(uint64_t ns, uint64_t limit_ns)
{
	return limit_ns && ns > limit_ns;
}

static bool is_at_rest(const struct conn *conn)
{
	const struct session *session = &conn->session;

	return !session->n_requests && list_is_empty(&session->items) &&
	       lease_group_is_empty(&session->leases) && inbox_is_empty(&conn->inbox) &&
	       list_is_empty(&conn->out) && !conn->closing;
}

/* Say farewell. */
static void close_for(struct conn *conn, const struct err *err)
{
	refuse(conn, err);
	flush_or_die(conn);
	if (conn->dead)
		conn_free(conn);
	else
		watch(conn);
}

static void end_message(struct conn *conn)
{
	struct err err = { 0 };

	conn->session.service->cache->counters.slow_writers++;
	err_set(&err, ERR_RESOURCE_EXHAUSTED,
		"message: it was begun, and has not ended after %ju s (message-timeout)",
		(uintmax_t)(conn->conns->patience.stall / 1000000000));
	close_for(conn, &err);
}

static void end_rest(struct conn *conn)
{
	struct err err = { 0 };

	conn->session.service->cache->counters.idle_connections++;
	err_set(&err, ERR_UNAVAILABLE, "nothing was asked on this connection for so long that it is closed%s",
		conn->session.is_reserved ? ": it was one for administration" : " (connection-timeout)");
	close_for(conn, &err);
}

static void sweep_one(struct conn *conn, uint64_t now_ns)
{
	const struct conn_patience *patience = &conn->conns->patience;
	bool takes = list_is_empty(&conn->out) || conn->paused, is_resting = is_at_rest(conn);
	bool in_message = !inbox_is_empty(&conn->inbox) && may_read(conn);
	uint64_t rest_ns = waited_ns(&conn->rest, is_resting, conn->inbox.start, now_ns);

	if (is_over(waited_ns(&conn->taking, !takes, conn->n_sent, now_ns), patience->stall)) {
		conn->session.service->cache->counters.slow_readers++;
		conn_free(conn); /* it would not take a word of farewell either */
	} else if (is_over(waited_ns(&conn->message, in_message, conn->inbox.start, now_ns),
			   patience->stall)) {
		end_message(conn);
	} else if (is_over(rest_ns, conn->session.is_reserved ? reserved_idle_ns : patience->idle)) {
		end_rest(conn);
	} else if (rest_ns) {
		inbox_rest(&conn->inbox);
	}
}

/* Each is looked at every few seconds, then has its next turn behind the others. */
static void on_sweep(evutil_socket_t sock, short what, void *arg)
{
	struct conns *conns = arg;
	struct lap lap = lap_begin();
	size_t n = conns->n / 4 + SWEEP_LEAST;
	struct list *l;

	(void)sock;
	(void)what;
	if (n > conns->n)
		n = conns->n;
	while (n-- && (l = list_pop(&conns->open))) {
		struct conn *conn = LIST_ENTRY(l, struct conn, link);

		list_append(&conns->open, &conn->link);
		sweep_one(conn, lap.began_ns);
	}
	if (conns->n)
		(void)evtimer_add(conns->sweep, &a_second);
	lap_end(&lap);
}

static void begin_sweeping(struct conns *conns)
{
	if (!conns->sweep)
		conns->sweep = evtimer_new(conns->base, on_sweep, conns);
	if (!conns->sweep)
		abort();
	(void)evtimer_add(conns->sweep, &a_second);
}

/* ---- all ---- */

void conn_new(struct conns *conns, int sock, struct identity *identity, bool is_reserved)
{
	struct conn *conn = xcalloc(1, sizeof(*conn));

	session_init(&conn->session, conns->service, identity);
	conn->session.send = conn_send;
	conn->session.request_ended = conn_request_ended;
	conn->session.refuse = conn_refuse;
	conn->session.is_reserved = is_reserved;
	conn->conns = conns;
	conn->sock = sock;
	list_init(&conn->out);
	list_init(&conn->link);
	list_init(&conn->starving);
	inbox_init(&conn->inbox);
	conn->readable = event_new(conns->base, sock, EV_READ | EV_PERSIST, on_readable, conn);
	conn->writable = event_new(conns->base, sock, EV_WRITE | EV_PERSIST, on_writable, conn);
	conn->hung_up = event_new(conns->base, sock, EV_CLOSED | EV_PERSIST, on_hung_up, conn);
	conn->again = evtimer_new(conns->base, on_again, conn);
	if (!conn->readable || !conn->writable || !conn->hung_up || !conn->again)
		abort();
	list_append(&conns->open, &conn->link);
	if (conns->n++ == 0)
		begin_sweeping(conns);
	conns->n_reserved += is_reserved;
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
	if (conns->sweep)
		event_free(TAKE(conns->sweep));
}
