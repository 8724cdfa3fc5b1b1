/* SPDX-License-Identifier: Apache-2.0 */
#include "common/wire.h"

#include <msgpack.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"

static int append(void *out_, const char *bytes, size_t len)
{
	struct wire_out *out = out_;
	size_t capacity = out->capacity ? out->capacity : 256;

	while (capacity - out->len < len)
		capacity *= 2; /* memory ends long before this wraps */
	if (capacity != out->capacity)
		out->data = xreallocarray(out->data, capacity, 1);
	out->capacity = capacity;
	memcpy(out->data + out->len, bytes, len);
	out->len += len;
	return 0;
}

/* A packer holds nothing but these two pointers. Since append() never fails, nor does packing. */
static msgpack_packer *packer(msgpack_packer *pk, struct wire_out *out)
{
	msgpack_packer_init(pk, out, append);
	return pk;
}

#define PACKER(out) packer(&(msgpack_packer){ 0 }, (out))

void wire_out_fini(struct wire_out *out)
{
	free(out->data);
	*out = (struct wire_out){ .data = NULL };
}

void wire_out_trim(struct wire_out *out)
{
	if (out->len == out->capacity)
		return;
	out->data = xreallocarray(out->data, out->len, 1);
	out->capacity = out->len;
}

char *wire_out_take(struct wire_out *out, size_t *len)
{
	char *data = out->data;

	*len = out->len;
	*out = (struct wire_out){ .data = NULL };
	return data;
}

void wire_request(struct wire_out *out, uint32_t id, const char *method)
{
	wire_array(out, 4);
	wire_uint(out, WIRE_REQUEST);
	wire_uint(out, id);
	wire_text(out, method);
	wire_array(out, 1);
}

void wire_response(struct wire_out *out, uint32_t id)
{
	wire_array(out, 4);
	wire_uint(out, WIRE_RESPONSE);
	wire_uint(out, id);
	wire_nil(out);
}

void wire_notification(struct wire_out *out, const char *method)
{
	wire_array(out, 3);
	wire_uint(out, WIRE_NOTIFICATION);
	wire_text(out, method);
	wire_array(out, 1);
}

void wire_error_response(struct wire_out *out, uint32_t id, const struct err *err,
			 const struct digest *missing, size_t n_missing)
{
	wire_array(out, 4);
	wire_uint(out, WIRE_RESPONSE);
	wire_uint(out, id);
	wire_map(out, n_missing ? 3 : 2);
	wire_put_text(out, "code", err_code_text(err->code));
	wire_put_text(out, "message", err->text);
	if (n_missing) {
		wire_text(out, "missing");
		wire_array(out, n_missing);
		for (size_t i = 0; i < n_missing; i++)
			wire_digest(out, &missing[i]);
	}
	wire_nil(out);
}

void wire_map(struct wire_out *out, size_t n)
{
	(void)msgpack_pack_map(PACKER(out), n);
}

void wire_array(struct wire_out *out, size_t n)
{
	(void)msgpack_pack_array(PACKER(out), n);
}

static void put_text(struct wire_out *out, const char *text, size_t len)
{
	msgpack_packer pk;

	packer(&pk, out);
	(void)msgpack_pack_str(&pk, len);
	(void)msgpack_pack_str_body(&pk, text, len);
}

void wire_text(struct wire_out *out, const char *text)
{
	put_text(out, text, strlen(text));
}

void wire_bytes(struct wire_out *out, const void *bytes, size_t len)
{
	msgpack_packer pk;

	packer(&pk, out);
	(void)msgpack_pack_bin(&pk, len);
	if (len)
		(void)msgpack_pack_bin_body(&pk, bytes, len);
}

void wire_uint(struct wire_out *out, uint64_t value)
{
	(void)msgpack_pack_uint64(PACKER(out), value);
}

void wire_int(struct wire_out *out, int64_t value)
{
	(void)msgpack_pack_int64(PACKER(out), value);
}

void wire_float(struct wire_out *out, double value)
{
	(void)msgpack_pack_double(PACKER(out), value);
}

void wire_bool(struct wire_out *out, bool value)
{
	(void)(value ? msgpack_pack_true(PACKER(out)) : msgpack_pack_false(PACKER(out)));
}

void wire_nil(struct wire_out *out)
{
	(void)msgpack_pack_nil(PACKER(out));
}

void wire_digest(struct wire_out *out, const struct digest *digest)
{
	wire_text(out, DIGEST_TEXT(digest));
}

void wire_put_text(struct wire_out *out, const char *key, const char *text)
{
	wire_text(out, key);
	wire_text(out, text);
}

void wire_put_bytes(struct wire_out *out, const char *key, const void *bytes, size_t len)
{
	wire_text(out, key);
	wire_bytes(out, bytes, len);
}

void wire_put_uint(struct wire_out *out, const char *key, uint64_t value)
{
	wire_text(out, key);
	wire_uint(out, value);
}

void wire_put_bool(struct wire_out *out, const char *key, bool value)
{
	wire_text(out, key);
	wire_bool(out, value);
}

void wire_put_digest(struct wire_out *out, const char *key, const struct digest *digest)
{
	wire_text(out, key);
	wire_digest(out, digest);
}
