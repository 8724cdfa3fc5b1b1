/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A service whose methods do what a test of connections needs: `hold` keeps its request until release(),
 * `inodes` tells which descriptors came, `large` answers with 100 KB.
 */
#ifndef DIRCACHE_TESTS_UNIT_HOLD_H
#define DIRCACHE_TESTS_UNIT_HOLD_H

#include "daemon/info.h"
#include "daemon/look.h"
#include "tests/unit/peer.h"

enum { HELD_MAX = 256 };
static struct request *held[HELD_MAX];
static size_t n_held, n_started, n_cancelled;
static bool end_when_cancelled;

static inline void forget(const struct request *request)
{
	for (size_t i = 0; i < n_held; i++)
		if (held[i] == request)
			held[i] = held[--n_held];
}

static inline void on_hold_cancel(struct request *request)
{
	struct err why = { 0 };

	n_cancelled++;
	if (!end_when_cancelled)
		return;
	forget(request);
	err_set(&why, ERR_CANCELLED, "hold: cancelled");
	request_fail(request, &why);
}

/* Keep the request until release(). */
static inline void hold_start(struct request *request)
{
	n_started++;
	request->cancel = on_hold_cancel;
	held[n_held++] = request;
}

static inline void release(void)
{
	struct request *now[HELD_MAX];
	size_t n = n_held;

	memcpy(now, held, sizeof(now));
	n_held = 0; /* what comes in meanwhile is held again */
	for (size_t i = 0; i < n; i++)
		request_ok(now[i]);
}

/* Answer with the inode numbers of the descriptors that came. */
static inline void inodes_start(struct request *request)
{
	struct wire_out *answer = request_reply(request);

	n_started++;
	wire_map(answer, 1);
	wire_text(answer, "inodes");
	wire_array(answer, request->n_fds);
	for (size_t i = 0; i < request->n_fds; i++) {
		struct stat st;

		ck_assert_int_eq(fstat(request->fds[i], &st), 0);
		wire_uint(answer, st.st_ino);
	}
	request_send(request);
}

/* Answer with 100 KB. */
static inline void large_start(struct request *request)
{
	static char bytes[100000];
	struct wire_out *answer = request_reply(request);

	n_started++;
	wire_map(answer, 1);
	wire_put_bytes(answer, "bytes", bytes, sizeof(bytes));
	request_send(request);
}

static const struct method methods[] = {
	{ "ping", ping_start, true, false },    { "stats", stats_start, true, false },
	{ "cat", cat_start, false, false },     { "cancel", cancel_start, true, false },
	{ "hold", hold_start, false, false },   { "inodes", inodes_start, false, false },
	{ "large", large_start, false, false }, { NULL, NULL, false, false },
};

static inline void setup(void)
{
	start_cache();
	start_service(methods);
}

static inline void teardown(void)
{
	while (n_held)
		release();
	stop_service();
	stop_cache();
}

static inline bool enough_held(void *n)
{
	return n_held >= *(size_t *)n;
}

static inline void run_until_held(size_t n)
{
	run_until(enough_held, &n);
}

static inline bool none_open(void *ctx)
{
	(void)ctx;
	return conns.n == 0;
}

#endif
