/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plain calls of libdircache: one request, one answer, a table of fields each.
 */
#include "client/dircache.h"

#include <time.h>

#include "client/connection.h"
#include "client/json.h"
#include "common/alloc.h"

const char *dircache_code_text(enum dircache_code code)
{
	if (code == DIRCACHE_OK)
		return "ok";
	if (code == DIRCACHE_NO_DAEMON)
		return "no_daemon";
	return err_code_text((enum err_code)(code - DIRCACHE_INTERNAL + ERR_INTERNAL));
}

void dircache_close(struct dircache *dc)
{
	connection_free(dc);
}

char *dircache_answer_json(const struct dircache *dc)
{
	return dc->message.result ? json_of_value(dc->message.result) : NULL;
}

/* A request without params whose answer says nothing but "done". */
static enum dircache_code call_plain(struct dircache *dc, const char *method, struct dircache_error *error)
{
	struct err err = { 0 };

	connection_begin(dc);
	connection_request(dc, method, 0);
	return connection_end(dc, connection_call(dc, -1, &err), &err, error);
}

/* ---- ping, stop ---- */

struct ping_answer {
	struct wire_bytes version;
	const struct wire_value *features;
	struct dircache_ping ping;
};

static int ping_once(struct dircache *dc, struct ping_answer *answer, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "version", WIRE_TEXT, true, offsetof(struct ping_answer, version), 0 },
		{ "protocol", WIRE_UINT, true, offsetof(struct ping_answer, ping.protocol), 0 },
		{ "ready", WIRE_BOOL, true, offsetof(struct ping_answer, ping.ready), 0 },
		{ "features", WIRE_ARRAY, false, offsetof(struct ping_answer, features), 0 },
		{ "pid", WIRE_UINT, false, offsetof(struct ping_answer, ping.pid), 0 },
		{ "uid", WIRE_UINT, false, offsetof(struct ping_answer, ping.uid), 0 },
	};
	int r;

	*answer = (struct ping_answer){ 0 };
	connection_request(dc, "ping", 0);
	if ((r = connection_call(dc, -1, err)) < 0)
		return r;
	return connection_decode(dc, fields, N_ELEMENTS(fields), answer, "ping", err);
}

static const char *const *keep_features(struct dircache *dc, const struct wire_value *array, size_t *n)
{
	size_t size = array ? wire_array_size(array) : 0;
	const char **features = connection_keep(dc, xcalloc(size + 1, sizeof(*features)));

	*n = 0;
	for (size_t i = 0; i < size; i++) {
		const struct wire_value *feature = wire_array_at(array, i);

		if (wire_kind(feature) == WIRE_IS_TEXT)
			features[(*n)++] = connection_keep_text(dc, wire_as_bytes(feature));
	}
	return features;
}

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

static int ping_until_ready(struct dircache *dc, unsigned wait_ms, struct ping_answer *answer,
			    struct err *err)
{
	int64_t end = now_ms() + wait_ms;
	int r;

	while ((r = ping_once(dc, answer, err)) == 0 && !answer->ping.ready && wait_ms) {
		if (now_ms() >= end)
			return err_set(err, ERR_UNAVAILABLE, "the daemon was not ready within %u ms",
				       wait_ms);
		(void)nanosleep(&(struct timespec){ .tv_nsec = 5 * 1000 * 1000 }, NULL);
	}
	return r;
}

enum dircache_code dircache_ping(struct dircache *dc, unsigned wait_ms, struct dircache_ping *ping,
				 struct dircache_error *error)
{
	struct ping_answer answer;
	struct err err = { 0 };
	int r;

	connection_begin(dc);
	r = ping_until_ready(dc, wait_ms, &answer, &err);
	if (r == 0 && ping) {
		*ping = answer.ping;
		ping->version = connection_keep_text(dc, answer.version);
		ping->features = keep_features(dc, answer.features, &ping->n_features);
	}
	return connection_end(dc, r, &err, error);
}

enum dircache_code dircache_stop(struct dircache *dc, struct dircache_error *error)
{
	return call_plain(dc, "stop", error);
}

/* ---- has ---- */

enum { HAS_MAX = 4096 }; /* digests in one request */

struct missing {
	const char **items;
	size_t n, capacity;
};

static int put_digests(struct wire_out *out, const char *const *digests, size_t n, struct err *err)
{
	wire_text(out, "digests");
	wire_array(out, n);
	for (size_t i = 0; i < n; i++) {
		struct digest digest;
		int r = connection_parse_digest(digests[i], &digest, err);

		if (r < 0)
			return r;
		wire_digest(out, &digest);
	}
	return 0;
}

static int take_missing(struct dircache *dc, struct missing *missing, struct err *err)
{
	static const struct wire_field fields[] = { { "missing", WIRE_ARRAY, true, 0, 0 } };
	const struct wire_value *array;
	int r = connection_decode(dc, fields, 1, &array, "has", err);

	for (size_t i = 0; r == 0 && i < wire_array_size(array); i++) {
		struct digest digest;

		if ((r = wire_as_digest(wire_array_at(array, i), &digest)) < 0)
			return err_set(err, ERR_INTERNAL, "the daemon's answer to has holds no digests");
		missing->items =
			xgrow(missing->items, missing->n, &missing->capacity, sizeof(*missing->items));
		missing->items[missing->n++] = connection_keep_digest(dc, &digest);
	}
	return r;
}

static int has_some(struct dircache *dc, const struct dircache_digests *digests, bool tree,
		    struct missing *missing, struct err *err)
{
	struct wire_out *out = connection_request(dc, "has", 2);
	int r;

	wire_put_bool(out, "tree", tree);
	if ((r = put_digests(out, digests->items, digests->n, err)) < 0 ||
	    (r = connection_call(dc, -1, err)) < 0)
		return r;
	return take_missing(dc, missing, err);
}

enum dircache_code dircache_has(struct dircache *dc, const struct dircache_digests *digests, bool tree,
				struct dircache_digests *missing, struct dircache_error *error)
{
	struct missing found = { 0 };
	struct err err = { 0 };
	int r = 0;

	connection_begin(dc);
	for (size_t i = 0; r == 0 && i < digests->n; i += HAS_MAX) {
		size_t left = digests->n - i;
		struct dircache_digests some = { digests->items + i, left < HAS_MAX ? left : HAS_MAX };

		r = has_some(dc, &some, tree, &found, &err);
	}
	connection_keep(dc, found.items);
	*missing = (struct dircache_digests){ found.items, found.n };
	return connection_end(dc, r, &err, error);
}

/* ---- tags ---- */

enum dircache_code dircache_tag(struct dircache *dc, const char *name, const char *digest,
				struct dircache_error *error)
{
	struct digest parsed;
	struct err err = { 0 };
	struct wire_out *out;
	int r;

	connection_begin(dc);
	if ((r = connection_parse_digest(digest, &parsed, &err)) == 0) {
		out = connection_request(dc, "tag", 2);
		wire_put_text(out, "name", name);
		wire_put_digest(out, "digest", &parsed);
		r = connection_call(dc, -1, &err);
	}
	return connection_end(dc, r, &err, error);
}

enum dircache_code dircache_untag(struct dircache *dc, const char *name, struct dircache_error *error)
{
	struct err err = { 0 };
	struct wire_out *out;

	connection_begin(dc);
	out = connection_request(dc, "tag", 2);
	wire_put_text(out, "name", name);
	wire_put_bool(out, "delete", true);
	return connection_end(dc, connection_call(dc, -1, &err), &err, error);
}

struct tag_answer {
	struct wire_bytes name;
	struct digest digest;
};

static int take_tags(struct dircache *dc, const struct wire_value *array, struct dircache_tags *tags,
		     struct err *err)
{
	static const struct wire_field fields[] = {
		{ "name", WIRE_TEXT, true, offsetof(struct tag_answer, name), 0 },
		{ "digest", WIRE_DIGEST, true, offsetof(struct tag_answer, digest), 0 },
	};
	size_t n = wire_array_size(array);
	struct dircache_tag_entry *items = connection_keep(dc, xcalloc(n + 1, sizeof(*items)));

	for (size_t i = 0; i < n; i++) {
		struct tag_answer answer = { 0 };
		int r = wire_decode_open(wire_array_at(array, i), fields, N_ELEMENTS(fields), &answer, "tags",
					 err);

		if (r < 0)
			return r;
		items[i].name = connection_keep_text(dc, answer.name);
		items[i].digest = connection_keep_digest(dc, &answer.digest);
	}
	*tags = (struct dircache_tags){ items, n };
	return 0;
}

enum dircache_code dircache_tags(struct dircache *dc, struct dircache_tags *tags,
				 struct dircache_error *error)
{
	static const struct wire_field fields[] = { { "tags", WIRE_ARRAY, true, 0, 0 } };
	const struct wire_value *array;
	struct err err = { 0 };
	int r;

	connection_begin(dc);
	connection_request(dc, "tags", 0);
	if ((r = connection_call(dc, -1, &err)) == 0 &&
	    (r = connection_decode(dc, fields, 1, &array, "tags", &err)) == 0)
		r = take_tags(dc, array, tags, &err);
	return connection_end(dc, r, &err, error);
}

/* ---- stats ---- */

static void take_counters(struct dircache *dc, const struct wire_value *map, struct dircache_stats *stats)
{
	size_t n = wire_map_size(map), n_counters = 0;
	struct dircache_counter *items = connection_keep(dc, xcalloc(n + 1, sizeof(*items)));

	for (size_t i = 0; i < n; i++) {
		const struct wire_value *key = wire_map_key(map, i), *value = wire_map_value(map, i);

		if (wire_kind(key) != WIRE_IS_TEXT || wire_kind(value) != WIRE_IS_UINT)
			continue; /* from a daemon that counts in ways that we do not know */
		items[n_counters].name = connection_keep_text(dc, wire_as_bytes(key));
		items[n_counters++].value = wire_as_uint(value);
	}
	*stats = (struct dircache_stats){ items, n_counters };
}

enum dircache_code dircache_stats(struct dircache *dc, struct dircache_stats *stats,
				  struct dircache_error *error)
{
	struct err err = { 0 };
	int r;

	connection_begin(dc);
	connection_request(dc, "stats", 0);
	if ((r = connection_call(dc, -1, &err)) == 0 &&
	    (r = connection_decode(dc, NULL, 0, NULL, "stats", &err)) == 0)
		take_counters(dc, dc->message.result, stats);
	return connection_end(dc, r, &err, error);
}
