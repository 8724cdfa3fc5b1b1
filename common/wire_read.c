/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reading messages. A struct wire_value is msgpack-c's object under another name, so that nobody else needs
 * its header.
 */
#include "common/wire.h"

#include <assert.h>
#include <errno.h>
#include <msgpack.h>
#include <string.h>

#include "common/auto.h"

static const msgpack_object *object_of(const struct wire_value *value)
{
	return (const msgpack_object *)value;
}

static const struct wire_value *value_of(const msgpack_object *object)
{
	return (const struct wire_value *)object;
}

/* ---- messages ---- */

static int bad_message(struct err *err, const char *reason)
{
	(void)err_set(err, ERR_INVALID_ARGUMENT, "message: %s", reason);
	return -EBADMSG;
}

static int read_id(const msgpack_object *object, struct wire_message *message, struct err *err)
{
	if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER || object->via.u64 > UINT32_MAX)
		return bad_message(err, "its id is no unsigned number of 32 bits");
	message->id = (uint32_t)object->via.u64;
	return 0;
}

static int read_call(const msgpack_object *method, const msgpack_object *params, struct wire_message *message,
		     struct err *err)
{
	if (method->type != MSGPACK_OBJECT_STR)
		return bad_message(err, "its method is no text");
	if (params->type != MSGPACK_OBJECT_ARRAY || params->via.array.size != 1 ||
	    params->via.array.ptr[0].type != MSGPACK_OBJECT_MAP)
		return bad_message(err, "its params are not one map in an array");
	message->method = wire_as_bytes(value_of(method));
	message->params = value_of(&params->via.array.ptr[0]);
	return 0;
}

static int read_outcome(const msgpack_object *error, const msgpack_object *result,
			struct wire_message *message, struct err *err)
{
	if (error->type != MSGPACK_OBJECT_NIL && error->type != MSGPACK_OBJECT_MAP)
		return bad_message(err, "its error is neither nil nor a map");
	message->error = error->type == MSGPACK_OBJECT_NIL ? NULL : value_of(error);
	message->result = result->type == MSGPACK_OBJECT_NIL ? NULL : value_of(result);
	return 0;
}

/* The shapes of MessagePack-RPC: the number of elements says which type to expect. */
static int read_shape(const msgpack_object *root, struct wire_message *message, struct err *err)
{
	const msgpack_object *at = root->via.array.ptr;
	uint64_t type;
	int r;

	if (root->type != MSGPACK_OBJECT_ARRAY || root->via.array.size < 3 || root->via.array.size > 4 ||
	    at[0].type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return bad_message(err, "it is no request, response or notification");
	type = at[0].via.u64;
	if (type > WIRE_NOTIFICATION || (type == WIRE_NOTIFICATION) != (root->via.array.size == 3))
		return bad_message(err, "it is no request, response or notification");
	message->type = (enum wire_message_type)type;
	if (type == WIRE_NOTIFICATION)
		return read_call(&at[1], &at[2], message, err);
	if ((r = read_id(&at[1], message, err)) < 0)
		return r;
	return type == WIRE_REQUEST ? read_call(&at[2], &at[3], message, err)
				    : read_outcome(&at[2], &at[3], message, err);
}

int wire_parse(const void *bytes, size_t len, struct wire_message *message, struct err *err)
{
	msgpack_unpacked unpacked;
	size_t offset = 0;

	*message = (struct wire_message){ .zone = NULL };
	msgpack_unpacked_init(&unpacked);
	if (msgpack_unpack_next(&unpacked, bytes, len, &offset) != MSGPACK_UNPACK_SUCCESS) {
		msgpack_unpacked_destroy(&unpacked);
		return bad_message(err, "it is no MessagePack");
	}
	/* The root goes out of scope; its elements are in the zone. */
	message->zone = msgpack_unpacked_release_zone(&unpacked);
	if (offset != len)
		return bad_message(err, "bytes are left behind its end");
	return read_shape(&unpacked.data, message, err);
}

void wire_message_fini(struct wire_message *message)
{
	if (message->zone)
		msgpack_zone_free(message->zone);
	*message = (struct wire_message){ .zone = NULL };
}

/* ---- fields ---- */

static bool is_text(const msgpack_object *object)
{
	struct wire_bytes text;

	if (object->type != MSGPACK_OBJECT_STR && object->type != MSGPACK_OBJECT_BIN)
		return false;
	text = wire_as_bytes(value_of(object));
	return text.len <= WIRE_TEXT_MAX && !memchr(text.data, '\0', text.len);
}

static bool read_uint(const msgpack_object *object, uint64_t *out)
{
	if (object->type != MSGPACK_OBJECT_POSITIVE_INTEGER)
		return false;
	*out = object->via.u64;
	return true;
}

static bool read_int(const msgpack_object *object, int64_t *out)
{
	if (object->type == MSGPACK_OBJECT_NEGATIVE_INTEGER)
		*out = object->via.i64;
	else if (object->type == MSGPACK_OBJECT_POSITIVE_INTEGER && object->via.u64 <= INT64_MAX)
		*out = (int64_t)object->via.u64;
	else
		return false;
	return true;
}

static bool read_bytes(const msgpack_object *object, struct wire_bytes *out)
{
	if (object->type != MSGPACK_OBJECT_STR && object->type != MSGPACK_OBJECT_BIN)
		return false;
	*out = wire_as_bytes(value_of(object));
	return true;
}

static bool read_typed(const msgpack_object *object, msgpack_object_type type, const struct wire_value **out)
{
	if (object->type != type)
		return false;
	*out = value_of(object);
	return true;
}

/* Return: is the value of this type? */
static bool read_value(const msgpack_object *object, enum wire_type type, void *out)
{
	switch (type) {
	case WIRE_BOOL:
		if (object->type != MSGPACK_OBJECT_BOOLEAN)
			return false;
		*(bool *)out = object->via.boolean;
		return true;
	case WIRE_UINT:
		return read_uint(object, out);
	case WIRE_INT:
		return read_int(object, out);
	case WIRE_TEXT:
		return is_text(object) && read_bytes(object, out);
	case WIRE_BYTES:
		return read_bytes(object, out);
	case WIRE_DIGEST:
		return wire_as_digest(value_of(object), out) == 0;
	case WIRE_ARRAY:
		return read_typed(object, MSGPACK_OBJECT_ARRAY, out);
	case WIRE_MAP:
		return read_typed(object, MSGPACK_OBJECT_MAP, out);
	case WIRE_ANY:
		*(const struct wire_value **)out = value_of(object);
		return true;
	}
	return false;
}

static const char *const type_texts[] = {
	[WIRE_BOOL] = "a bool",    [WIRE_UINT] = "an unsigned integer",
	[WIRE_INT] = "an integer", [WIRE_TEXT] = "text without NUL",
	[WIRE_BYTES] = "bytes",    [WIRE_DIGEST] = "a digest (`hash/size`)",
	[WIRE_ARRAY] = "an array", [WIRE_MAP] = "a map",
	[WIRE_ANY] = "anything",
};

/* What the steps of decoding one map share. */
struct decoding {
	const struct wire_field *fields;
	size_t n_fields;
	void *out;
	bool open;     /* unknown keys are passed over */
	uint64_t seen; /* by field */
	const char *what;
	struct err *err;
};

static size_t find_field(const struct decoding *d, struct wire_bytes key)
{
	size_t i;

	for (i = 0; i < d->n_fields; i++)
		if (strlen(d->fields[i].name) == key.len && memcmp(d->fields[i].name, key.data, key.len) == 0)
			break;
	return i;
}

static int decode_field(struct decoding *d, size_t i, const msgpack_object *value)
{
	const struct wire_field *field = &d->fields[i];

	if (d->seen & (uint64_t)1 << i)
		return err_set(d->err, ERR_INVALID_ARGUMENT, "%s: '%s' comes twice", d->what, field->name);
	d->seen |= (uint64_t)1 << i;
	if (!read_value(value, field->type, (char *)d->out + field->offset))
		return err_set(d->err, ERR_INVALID_ARGUMENT, "%s: '%s' must be %s", d->what, field->name,
			       type_texts[field->type]);
	if (field->present)
		*(bool *)((char *)d->out + field->present) = true;
	return 0;
}

static int decode_pair(struct decoding *d, const msgpack_object_kv *pair)
{
	struct wire_bytes key;
	size_t i;

	if (!is_text(&pair->key))
		return d->open ? 0 : err_set(d->err, ERR_INVALID_ARGUMENT, "%s: a key is no text", d->what);
	key = wire_as_bytes(value_of(&pair->key));
	i = find_field(d, key);
	if (i < d->n_fields)
		return decode_field(d, i, &pair->val);
	if (d->open || (key.len >= 2 && memcmp(key.data, "x-", 2) == 0))
		return 0;
	return err_set(d->err, ERR_INVALID_ARGUMENT, "%s: '%.*s' is no key that is known here", d->what,
		       (int)(key.len < 64 ? key.len : 64), key.data);
}

static int decode_map(const struct wire_value *map, struct decoding *d)
{
	const msgpack_object *object = object_of(map);

	assert(d->n_fields <= 64);
	if (object->type != MSGPACK_OBJECT_MAP)
		return err_set(d->err, ERR_INVALID_ARGUMENT, "%s: is no map", d->what);
	if (object->via.map.size > WIRE_KEYS_MAX)
		return err_set(d->err, ERR_INVALID_ARGUMENT, "%s: has %u keys, more than %d", d->what,
			       object->via.map.size, WIRE_KEYS_MAX);
	for (size_t i = 0; i < object->via.map.size; i++) {
		int r = decode_pair(d, &object->via.map.ptr[i]);

		if (r < 0)
			return r;
	}
	for (size_t i = 0; i < d->n_fields; i++)
		if (d->fields[i].required && !(d->seen & (uint64_t)1 << i))
			return err_set(d->err, ERR_INVALID_ARGUMENT, "%s: '%s' is missing", d->what,
				       d->fields[i].name);
	return 0;
}

int wire_decode(const struct wire_value *map, const struct wire_field *fields, size_t n_fields, void *out,
		const char *what, struct err *err)
{
	return decode_map(map, &(struct decoding){ fields, n_fields, out, false, 0, what, err });
}

int wire_decode_open(const struct wire_value *map, const struct wire_field *fields, size_t n_fields,
		     void *out, const char *what, struct err *err)
{
	return decode_map(map, &(struct decoding){ fields, n_fields, out, true, 0, what, err });
}

/* ---- values ---- */

size_t wire_array_size(const struct wire_value *array)
{
	assert(!array || object_of(array)->type == MSGPACK_OBJECT_ARRAY);
	return array ? object_of(array)->via.array.size : 0;
}

const struct wire_value *wire_array_at(const struct wire_value *array, size_t i)
{
	assert(i < wire_array_size(array));
	return value_of(&object_of(array)->via.array.ptr[i]);
}

size_t wire_map_size(const struct wire_value *map)
{
	assert(!map || object_of(map)->type == MSGPACK_OBJECT_MAP);
	return map ? object_of(map)->via.map.size : 0;
}

const struct wire_value *wire_map_key(const struct wire_value *map, size_t i)
{
	assert(i < wire_map_size(map));
	return value_of(&object_of(map)->via.map.ptr[i].key);
}

const struct wire_value *wire_map_value(const struct wire_value *map, size_t i)
{
	assert(i < wire_map_size(map));
	return value_of(&object_of(map)->via.map.ptr[i].val);
}

enum wire_kind wire_kind(const struct wire_value *value)
{
	static const enum wire_kind kinds[] = {
		[MSGPACK_OBJECT_NIL] = WIRE_IS_NIL,
		[MSGPACK_OBJECT_BOOLEAN] = WIRE_IS_BOOL,
		[MSGPACK_OBJECT_POSITIVE_INTEGER] = WIRE_IS_UINT,
		[MSGPACK_OBJECT_NEGATIVE_INTEGER] = WIRE_IS_INT,
		[MSGPACK_OBJECT_FLOAT32] = WIRE_IS_FLOAT,
		[MSGPACK_OBJECT_FLOAT64] = WIRE_IS_FLOAT,
		[MSGPACK_OBJECT_STR] = WIRE_IS_TEXT,
		[MSGPACK_OBJECT_BIN] = WIRE_IS_BYTES,
		[MSGPACK_OBJECT_ARRAY] = WIRE_IS_ARRAY,
		[MSGPACK_OBJECT_MAP] = WIRE_IS_MAP,
		[MSGPACK_OBJECT_EXT] = WIRE_IS_OTHER,
	};

	assert((size_t)object_of(value)->type < N_ELEMENTS(kinds));
	return kinds[object_of(value)->type];
}

bool wire_as_bool(const struct wire_value *value)
{
	assert(wire_kind(value) == WIRE_IS_BOOL);
	return object_of(value)->via.boolean;
}

uint64_t wire_as_uint(const struct wire_value *value)
{
	assert(wire_kind(value) == WIRE_IS_UINT);
	return object_of(value)->via.u64;
}

int64_t wire_as_int(const struct wire_value *value)
{
	assert(wire_kind(value) == WIRE_IS_INT);
	return object_of(value)->via.i64;
}

double wire_as_float(const struct wire_value *value)
{
	assert(wire_kind(value) == WIRE_IS_FLOAT);
	return object_of(value)->via.f64;
}

struct wire_bytes wire_as_bytes(const struct wire_value *value)
{
	const msgpack_object *object = object_of(value);
	bool text = object->type == MSGPACK_OBJECT_STR;
	const char *data = text ? object->via.str.ptr : object->via.bin.ptr;

	assert(text || object->type == MSGPACK_OBJECT_BIN);
	return (struct wire_bytes){ data ? data : "", text ? object->via.str.size : object->via.bin.size };
}

int wire_as_digest(const struct wire_value *value, struct digest *digest)
{
	struct wire_bytes text;

	if (!read_bytes(object_of(value), &text))
		return -EINVAL;
	return digest_parse(text.data, text.len, digest);
}

void wire_read_error(const struct wire_value *error, struct err *err, const struct wire_value **missing)
{
	struct {
		struct wire_bytes code, message;
		const struct wire_value *missing;
	} read = { 0 };
	static const struct wire_field fields[] = {
		{ "code", WIRE_TEXT, true, offsetof(__typeof__(read), code), 0 },
		{ "message", WIRE_TEXT, true, offsetof(__typeof__(read), message), 0 },
		{ "missing", WIRE_ARRAY, false, offsetof(__typeof__(read), missing), 0 },
	};

	if (missing)
		*missing = NULL;
	if (wire_decode_open(error, fields, N_ELEMENTS(fields), &read, "error", err) < 0)
		return;
	(void)err_set(err, err_code_parse(read.code.data, read.code.len), "%.*s", (int)read.message.len,
		      read.message.data);
	if (missing)
		*missing = read.missing;
}

bool wire_is(const struct wire_bytes *bytes, const char *text)
{
	return bytes->data && bytes->len == strlen(text) && memcmp(bytes->data, text, bytes->len) == 0;
}
