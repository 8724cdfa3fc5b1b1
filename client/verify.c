/* SPDX-License-Identifier: Apache-2.0 */
#include "client/dircache.h"

#include "client/connection.h"
#include "common/alloc.h"

struct fault_answer {
	struct wire_bytes kind, name, expected, found, repair;
	struct digest digest;
	bool has_digest, repaired;
};

struct verify_answer {
	const struct wire_value *faults;
	struct dircache_verify verify;
};

static const char *keep_or_null(struct dircache *dc, struct wire_bytes bytes)
{
	return bytes.data ? connection_keep_text(dc, bytes) : NULL;
}

static int take_fault(struct dircache *dc, const struct wire_value *map, struct dircache_fault *fault,
		      struct err *err)
{
	static const struct wire_field fields[] = {
		WIRE_FIELD(struct fault_answer, kind, WIRE_TEXT, true),
		WIRE_OPTIONAL(struct fault_answer, digest, WIRE_DIGEST, has_digest),
		WIRE_FIELD(struct fault_answer, name, WIRE_BYTES, false),
		WIRE_FIELD(struct fault_answer, expected, WIRE_TEXT, true),
		WIRE_FIELD(struct fault_answer, found, WIRE_TEXT, true),
		WIRE_FIELD(struct fault_answer, repaired, WIRE_BOOL, true),
		WIRE_FIELD(struct fault_answer, repair, WIRE_TEXT, false),
	};
	struct fault_answer answer = { 0 };
	int r = wire_decode_open(map, fields, N_ELEMENTS(fields), &answer, "verify", err);

	if (r < 0)
		return r;
	*fault = (struct dircache_fault){
		.kind = connection_keep_text(dc, answer.kind),
		.digest = answer.has_digest ? connection_keep_digest(dc, &answer.digest) : NULL,
		.name = keep_or_null(dc, answer.name),
		.expected = connection_keep_text(dc, answer.expected),
		.found = connection_keep_text(dc, answer.found),
		.repaired = answer.repaired,
		.repair = keep_or_null(dc, answer.repair),
	};
	return 0;
}

static int take_answer(struct dircache *dc, struct dircache_verify *verify, struct err *err)
{
	static const struct wire_field fields[] = {
		{ "faults", WIRE_ARRAY, true, offsetof(struct verify_answer, faults), 0 },
		{ "faults_total", WIRE_UINT, true, offsetof(struct verify_answer, verify.faults_total), 0 },
		{ "repaired_total", WIRE_UINT, true, offsetof(struct verify_answer, verify.repaired_total),
		  0 },
		{ "files", WIRE_UINT, true, offsetof(struct verify_answer, verify.files), 0 },
		{ "bytes", WIRE_UINT, true, offsetof(struct verify_answer, verify.bytes), 0 },
		{ "links", WIRE_UINT, true, offsetof(struct verify_answer, verify.links), 0 },
		{ "trees", WIRE_UINT, true, offsetof(struct verify_answer, verify.trees), 0 },
		{ "tags", WIRE_UINT, true, offsetof(struct verify_answer, verify.tags), 0 },
	};
	struct verify_answer answer = { 0 };
	struct dircache_fault *faults;
	int r = connection_decode(dc, fields, N_ELEMENTS(fields), &answer, "verify", err);

	if (r < 0)
		return r;
	*verify = answer.verify;
	verify->n_faults = wire_array_size(answer.faults);
	faults = connection_keep(dc, xcalloc(verify->n_faults + 1, sizeof(*faults)));
	for (size_t i = 0; r == 0 && i < verify->n_faults; i++)
		r = take_fault(dc, wire_array_at(answer.faults, i), &faults[i], err);
	verify->faults = faults;
	return r;
}

enum dircache_code dircache_verify(struct dircache *dc, const struct dircache_verify_options *options,
				   struct dircache_verify *verify, struct dircache_error *error)
{
	static const struct dircache_verify_options defaults;
	const struct dircache_verify_options *o = options ? options : &defaults;
	struct dircache_verify unwanted;
	struct err err = { 0 };
	struct wire_out *out;
	int r;

	connection_begin(dc);
	dc->progress = o->progress;
	dc->progress_data = o->data;
	out = connection_request(dc, "verify", 3);
	wire_put_bool(out, "repair", o->repair);
	wire_put_uint(out, "rate", o->rate);
	wire_put_bool(out, "progress", o->progress);
	if ((r = connection_call(dc, -1, &err)) == 0)
		r = take_answer(dc, verify ? verify : &unwanted, &err);
	return connection_end(dc, r, &err, error);
}
