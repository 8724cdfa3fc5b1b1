/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/conn_internal.h"

#include <assert.h>
#include <errno.h>
#include <event2/event.h>
#include <string.h>

#include "common/alloc.h"
#include "common/socket.h"
#include "daemon/discard.h"
#include "daemon/lap.h"

enum {
	READS_A_VISIT = 4,    /* then other connections are served, */
	VISIT_NS = 150000,    /* as after so long */
	OUTGOING_BYTES = 128, /* that a message takes until it is sent, besides its own */
	GIVEN_CHECK = 8,      /* descriptors that may have been taken: enough to ask for */
	TURNS_NS = 250000,    /* for those that wait for a turn, until the loop looks who else is there */
};

static const struct timeval at_once = { 0 }, a_while = { .tv_usec = 20000 };

/* A message on its way out. */
struct outgoing {
	struct list link;
	char *bytes;
	size_t len, sent;
	int fd;
};

static void watch(struct conn *conn);

/* ---- end ---- */

static void count_sent(struct conn *conn, size_t n)
{
	conn->out_len -= n;
	user_give_bytes(conn->session.user, n);
}

static void outgoing_free(struct conn *conn, struct outgoing *out)
{
	count_sent(conn, OUTGOING_BYTES + out->len - out->sent);
	list_remove(&out->link);
	if (out->fd >= 0)
		user_close_fds(conn->session.user, &out->fd, 1);
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
		user_close_fds(conn->session.user, fds, n_fds);
	free(fds);
	if (inbox_is_large(&conn->inbox)) {
		discard(service->cache->chores, TAKE(conn->inbox.bytes), conn->inbox.capacity);
		service_give_large(service, conn->session.user);
	}
	inbox_fini(&conn->inbox);
}

void conn_free(struct conn *conn)
{
	struct conns *conns = conn->conns;

	list_remove(&conn->starving);
	turns_leave(&conn->session.user->conns, &conn->turn);
	drop_inbox(conn);
	while (!list_is_empty(&conn->out))
		outgoing_free(conn, LIST_ENTRY(conn->out.next, struct outgoing, link));
	user_settle_fds(conn->session.user, conn->n_given_fds);
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

/* Its descriptor is on its way, and not in our table any more. */
static void note_given(struct conn *conn, struct outgoing *out)
{
	if (out->fd < 0)
		return;
	user_close_fds(conn->session.user, &out->fd, 1);
	out->fd = -1;
	conn->n_in_flight++;
}

void conn_settle_fds(struct conn *conn)
{
	if (!conn->n_in_flight || !socket_is_taken(conn->sock))
		return;
	user_settle_fds(conn->session.user, conn->n_in_flight);
	conn->n_given_fds -= conn->n_in_flight;
	conn->n_in_flight = 0;
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
		note_given(conn, out);
		out->sent += (size_t)n;
		count_sent(conn, (size_t)n);
		if (out->sent < out->len)
			continue;
		outgoing_free(conn, out);
		conn->n_sent++;
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
	conn->out_len += OUTGOING_BYTES + len;
	user_take_bytes(conn->session.user, OUTGOING_BYTES + len);
	if (fd < 0)
		return;
	conn->n_given_fds++;
	user_promise_fd(conn->session.user);
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

/* ---- in ---- */

/* By what there is of this connection alone. */
static bool has_room(const struct conn *conn)
{
	return conn->session.n_requests < CONN_REQUESTS_MAX && conn->out_len < CONN_UNSENT_MAX &&
	       conn->n_given_fds < CONN_GIVEN_FDS_MAX && !conn->session.n_held && !conn->closing;
}

static bool may_dispatch(const struct conn *conn)
{
	return has_room(conn) && user_has_room(conn->session.user);
}

/* The daemon, or its user, has as many descriptors open as may be. */
static bool lacks_fds(const struct conn *conn)
{
	const struct session *session = &conn->session;

	return session->service->n_fds >= conn->conns->max_fds || !user_may_receive_fds(session->user);
}

/* There are too many descriptors, or large messages. */
static bool is_starving(const struct conn *conn)
{
	const struct session *session = &conn->session;

	return lacks_fds(conn) ||
	       (inbox_wants_large(&conn->inbox) && !service_has_large(session->service, session->user));
}

bool conn_is_read(const struct conn *conn)
{
	return may_dispatch(conn) && !conn->held_up && !is_starving(conn);
}

bool conn_hoards_fds(const struct conn *conn)
{
	return inbox_has_fds(&conn->inbox) && may_dispatch(conn) && !conn->held_up && lacks_fds(conn);
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

/* Hand on what is whole, as far as the limits let it: one message at least, or a visit might be for nothing.
 */
static void dispatch(struct conn *conn, uint64_t end_ns)
{
	struct packet packet;
	struct err err = { 0 };
	int r = WIRE_WHOLE;

	conn->dispatching = true;
	while (r == WIRE_WHOLE && !inbox_is_empty(&conn->inbox) && may_dispatch(conn)) {
		r = inbox_next(&conn->inbox, &packet, &err);
		if (r != WIRE_WHOLE)
			break;
		session_uncount_fds(&conn->session, packet.n_fds); /* the request counts them again */
		if (request_start(&conn->session, &packet, &err) < 0)
			r = -EBADMSG;
		if (lap_now_ns() >= end_ns)
			break;
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

/* Return: bytes that came last, 0 (the end), or a negative errno. */
static ssize_t receive_some(struct conn *conn, uint64_t end_ns)
{
	ssize_t r = INBOX_READ;

	/* On after a full buffer only: the usual request is small, and its client waits for the answer. */
	for (unsigned i = 0; i < READS_A_VISIT && r == INBOX_READ && conn_is_read(conn); i++) {
		r = receive(conn);
		if (r > 0)
			dispatch(conn, end_ns);
		if (lap_now_ns() >= end_ns)
			break;
	}
	return r;
}

/* ---- visits ---- */

/* Do what is due. Return: does the connection go on? */
static bool do_due(struct conn *conn, uint64_t end_ns)
{
	short due = conn->due;
	ssize_t r = -EAGAIN;

	conn->due = 0;
	if (due & EV_WRITE)
		flush_or_die(conn);
	if (conn->held_up && !conn->dead)
		dispatch(conn, end_ns);
	if ((due & EV_READ) && !conn->dead)
		r = receive_some(conn, end_ns);
	if (r == 0 || (r < 0 && r != -EAGAIN))
		return false; /* whoever hangs up wants no answers */
	flush_or_die(conn);
	return !conn->dead;
}

static void visit(struct conn *conn)
{
	struct user *user = user_ref(conn->session.user);
	uint64_t began_ns = lap_now_ns();

	if (do_due(conn, began_ns + VISIT_NS))
		watch(conn);
	else
		conn_free(conn);
	user_charge(user, began_ns, lap_now_ns());
	user_put(user);
}

/* To be visited when it is the user's turn. Nothing more is to be heard of it until then. */
static void await_turn(struct conn *conn)
{
	struct conns *conns = conn->conns;

	(void)event_del(conn->readable);
	(void)event_del(conn->writable);
	if (list_is_empty(&conn->turn))
		turns_wait(&conns->turns, &conn->session.user->conns, &conn->turn);
	(void)evtimer_add(conns->turn, &at_once);
}

static void on_turn(evutil_socket_t sock, short what, void *arg)
{
	struct conns *conns = arg;
	struct lap lap = lap_begin();
	struct list *l;

	(void)sock;
	(void)what;
	while ((l = turns_next(&conns->turns))) {
		visit(LIST_ENTRY(l, struct conn, turn));
		if (lap_now_ns() >= lap.began_ns + TURNS_NS)
			break;
	}
	if (!turns_are_over(&conns->turns))
		(void)evtimer_add(conns->turn, &at_once);
	lap_end(&lap);
}

static void on_ready(evutil_socket_t sock, short what, void *arg)
{
	struct conn *conn = arg;
	struct lap lap = lap_begin();

	(void)sock;
	conn->due |= what;
	if (user_must_wait(conn->session.user, lap.began_ns))
		await_turn(conn);
	else
		visit(conn);
	lap_end(&lap);
}

static void on_again(evutil_socket_t sock, short what, void *arg)
{
	struct conn *conn = arg;

	(void)what;
	conn->paused = false;
	on_ready(sock, EV_WRITE, conn);
}

static void on_hung_up(evutil_socket_t sock, short what, void *arg)
{
	(void)sock;
	(void)what;
	conn_free(arg);
}

/* Its connections that may go on do so when it is its turn. */
static void feed(struct user *user)
{
	list_for_each (l, &user->starved) {
		struct conn *conn = LIST_ENTRY(l, struct conn, starving);

		if (!may_dispatch(conn) || (!conn->held_up && is_starving(conn)))
			continue;
		list_remove(&conn->starving);
		conn->due |= EV_READ;
		await_turn(conn);
	}
}

void conns_feed(struct conns *conns)
{
	if (conns->service->n_fds >= conns->max_fds)
		return;
	list_for_each (l, &conns->service->users.all) {
		struct user *user = LIST_ENTRY(l, struct user, link);

		if (user_may_receive_fds(user))
			feed(user);
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

/* No event tells that the peer has taken a descriptor: see for oneself, now and then. */
static void watch_given(struct conn *conn)
{
	if (conn->n_in_flight >= GIVEN_CHECK || !may_dispatch(conn))
		conn_settle_fds(conn);
	if (conn->n_in_flight && !may_dispatch(conn))
		(void)evtimer_add(conn->again, &a_while);
}

/* Watch for what can be done now. */
static void watch(struct conn *conn)
{
	list_remove(&conn->starving);
	if (!list_is_empty(&conn->turn))
		return; /* then it is looked at */
	if (conn->n_in_flight)
		watch_given(conn);
	if (conn_is_read(conn)) {
		(void)event_add(conn->readable, NULL);
		(void)event_del(conn->hung_up);
	} else {
		(void)event_del(conn->readable);
		(void)event_add(conn->hung_up, NULL);
	}
	if (has_room(conn) && (!may_dispatch(conn) || (!conn->held_up && is_starving(conn))))
		list_append(&conn->session.user->starved, &conn->starving);
	if (conn->held_up && may_dispatch(conn)) { /* there was no time */
		await_turn(conn);
		return;
	}
	if ((!list_is_empty(&conn->out) && !conn->paused) || (conn->closing && conn->session.n_requests == 0))
		(void)event_add(conn->writable, NULL);
	else
		(void)event_del(conn->writable);
}

/* ---- all ---- */

void conn_end(struct conn *conn, const struct err *err)
{
	refuse(conn, err);
	flush_or_die(conn);
	if (conn->dead)
		conn_free(conn);
	else
		watch(conn);
}

static void begin(struct conns *conns)
{
	conns_begin_sweeping(conns);
	conns->service->users.relieved = feed;
	if (!conns->turn) {
		turns_init(&conns->turns);
		conns->turn = evtimer_new(conns->base, on_turn, conns);
	}
	if (!conns->turn)
		abort();
}

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
	list_init(&conn->turn);
	inbox_init(&conn->inbox);
	conn->readable = event_new(conns->base, sock, EV_READ | EV_PERSIST, on_ready, conn);
	conn->writable = event_new(conns->base, sock, EV_WRITE | EV_PERSIST, on_ready, conn);
	conn->hung_up = event_new(conns->base, sock, EV_CLOSED | EV_PERSIST, on_hung_up, conn);
	conn->again = evtimer_new(conns->base, on_again, conn);
	if (!conn->readable || !conn->writable || !conn->hung_up || !conn->again)
		abort();
	list_append(&conns->open, &conn->link);
	if (conns->n++ == 0)
		begin(conns);
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
	if (conns->turn)
		event_free(TAKE(conns->turn));
}
