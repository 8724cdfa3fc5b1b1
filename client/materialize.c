/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The calls of libdircache that change the file system at a target: materialize and remove.
 */
#include "client/dircache.h"

#include <stdio.h>

#include "client/connection.h"
#include "client/target.h"

/* ---- materialize ---- */

const char *dircache_mode_text(enum dircache_mode mode)
{
	static const char *const words[] = {
		[DIRCACHE_LINK] = "link", [DIRCACHE_REFLINK] = "reflink", [DIRCACHE_COPY] = "copy"
	};

	return (size_t)mode < N_ELEMENTS(words) ? words[mode] : NULL;
}

struct materialize_answer {
	struct digest digest;
	struct wire_bytes cache, fallback;
	struct dircache_materialized done;
};

static int take_materialized(struct dircache *dc, struct dircache_materialized *done, struct err *err)
{
#define COUNT(name)                                                                                          \
	{                                                                                                    \
#name, WIRE_UINT, false, offsetof(struct materialize_answer, done.name), 0                   \
	}
	static const struct wire_field fields[] = {
		{ "digest", WIRE_DIGEST, true, offsetof(struct materialize_answer, digest), 0 },
		{ "cache", WIRE_TEXT, false, offsetof(struct materialize_answer, cache), 0 },
		{ "fallback", WIRE_TEXT, false, offsetof(struct materialize_answer, fallback), 0 },
		COUNT(files),
		COUNT(directories),
		COUNT(symlinks),
		COUNT(bytes),
		COUNT(files_linked),
		COUNT(files_copied),
		COUNT(files_reflinked),
		COUNT(files_created),
		COUNT(fallback_copies),
	};
#undef COUNT
	struct materialize_answer answer = { 0 };
	int r = connection_decode(dc, fields, N_ELEMENTS(fields), &answer, "materialize", err);

	if (r < 0)
		return r;
	*done = answer.done;
	digest_print(&answer.digest, done->digest);
	(void)snprintf(done->cache, sizeof(done->cache), "%.*s", (int)answer.cache.len,
		       answer.cache.len ? answer.cache.data : "");
	done->fallback = answer.fallback.data ? connection_keep_text(dc, answer.fallback) : NULL;
	return 0;
}

static int call_materialize(struct dircache *dc, const char *what, const char *path,
			    const struct dircache_materialize_options *options, struct err *err)
{
	const char *mode = dircache_mode_text(options->mode);
	CLEANUP(target_fini) struct target target;
	struct wire_out *out;
	int r;

	if (!mode)
		return err_set(err, ERR_INVALID_ARGUMENT, "mode %d is none", (int)options->mode);
	if ((r = target_init(&target, path, err)) < 0)
		return r;
	dc->progress = options->progress;
	dc->progress_data = options->data;
	out = connection_request(dc, "materialize",
				 9 + (options->lease_seconds > 0) + options->lease_connection);
	connection_put_what(out, what);
	target_put(&target, out);
	wire_put_bool(out, "file", options->file);
	wire_put_bool(out, "executable", options->executable);
	wire_put_text(out, "mode", mode);
	wire_put_bool(out, "writable", options->writable);
	wire_put_bool(out, "require_link", options->require_link);
	wire_put_bool(out, "progress", options->progress != NULL);
	if (options->lease_seconds)
		wire_put_uint(out, "lease", options->lease_seconds);
	if (options->lease_connection)
		wire_put_bool(out, "lease_connection", true);
	return connection_call(dc, target.folder, err);
}

enum dircache_code dircache_materialize(struct dircache *dc, const char *what, const char *target,
					const struct dircache_materialize_options *options,
					struct dircache_materialized *done, struct dircache_error *error)
{
	static const struct dircache_materialize_options defaults;
	struct dircache_materialized result;
	struct err err = { 0 };
	int r;

	connection_begin(dc);
	r = call_materialize(dc, what, target, options ? options : &defaults, &err);
	if (r == 0)
		r = take_materialized(dc, done ? done : &result, &err);
	return connection_end(dc, r, &err, error);
}

/* ---- remove ---- */

static int call_remove(struct dircache *dc, const char *path, struct err *err)
{
	CLEANUP(target_fini) struct target target;
	int r;

	if ((r = target_init(&target, path, err)) < 0)
		return r;
	target_put(&target, connection_request(dc, "remove", 2));
	return connection_call(dc, target.folder, err);
}

enum dircache_code dircache_remove(struct dircache *dc, const char *target, struct dircache_error *error)
{
	struct err err = { 0 };

	connection_begin(dc);
	return connection_end(dc, call_remove(dc, target, &err), &err, error);
}
