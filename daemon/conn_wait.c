/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/conn_internal.h"

#include <event2/event.h>
#include <stdlib.h>

#include "common/auto.h"
#include "daemon/lap.h"

enum { SWEEP_LEAST = 64 }; /* connections looked at in a second, and a quarter of those there are */

/* Who does nothing on a connection for administration, of which there are few, does not keep it. */
static const uint64_t reserved_idle_ns = 30000000000;

static const struct timeval a_second = { .tv_sec = 1 };

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

static void end_message(struct conn *conn)
{
	struct err err = { 0 };

	conn->session.service->cache->counters.slow_writers++;
	err_set(&err, ERR_RESOURCE_EXHAUSTED,
		"message: it was begun, and has not ended after %ju s (message-timeout)",
		(uintmax_t)(conn->conns->patience.stall / 1000000000));
	conn_end(conn, &err);
}

static void end_rest(struct conn *conn)
{
	struct err err = { 0 };

	conn->session.service->cache->counters.idle_connections++;
	err_set(&err, ERR_UNAVAILABLE, "nothing was asked on this connection for so long that it is closed%s",
		conn->session.is_reserved ? ": it was one for administration" : " (connection-timeout)");
	conn_end(conn, &err);
}

static void sweep_one(struct conn *conn, uint64_t now_ns)
{
	const struct conn_patience *patience = &conn->conns->patience;
	bool takes = list_is_empty(&conn->out) || conn->paused, is_resting = is_at_rest(conn);
	bool in_message = !inbox_is_empty(&conn->inbox) && (conn_is_read(conn) || conn_hoards_fds(conn));
	uint64_t rest_ns = waited_ns(&conn->rest, is_resting, conn->inbox.start, now_ns);

	conn_settle_fds(conn);
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

void conns_begin_sweeping(struct conns *conns)
{
	if (!conns->sweep)
		conns->sweep = evtimer_new(conns->base, on_sweep, conns);
	if (!conns->sweep)
		abort();
	(void)evtimer_add(conns->sweep, &a_second);
}
