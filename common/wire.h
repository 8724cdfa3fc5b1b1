/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wire: MessagePack-RPC messages as bytes. The one door to msgpack.
 *
 *     [0, id, method, [params]]   request        params is one map with text keys
 *     [1, id, error, result]      response       error is nil, or {code, message, missing?}
 *     [2, method, [params]]       notification
 *
 * Three steps, so that nothing is believed before it is checked:
 *   wire_scanner  finds where a message ends, as bytes arrive, and checks nesting, sizes and counts against
 *                 limits, before anything is reserved for them;
 *   wire_parse    turns a whole message into values that point into its bytes;
 *   wire_decode   takes the values out of a map by a table of fields, and refuses what is not in the table.
 *
 * Not locked; a message belongs to one thread at a time.
 */
#ifndef DIRCACHE_COMMON_WIRE_H
#define DIRCACHE_COMMON_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

enum {
	WIRE_MESSAGE_MAX = 16 << 20, /* bytes of a message */
	WIRE_NESTING_MAX = 16,       /* arrays and maps inside each other (msgpack-c itself stops at 32) */
	WIRE_VALUES_MAX = 1 << 18,   /* values in one message, all levels */
	WIRE_KEYS_MAX = 256,         /* in a map that is decoded */
	WIRE_TEXT_MAX = 65535,       /* bytes of a text */
	WIRE_DESCRIPTORS_MAX = 253,  /* descriptors with one message: SCM_MAX_FD of unix(7) */
};

/* ---- finding the end of a message ---- */

struct wire_limits {
	size_t bytes;  /* of one message */
	size_t values; /* in one message */
};

extern const struct wire_limits wire_default_limits;

struct wire_scanner {
	const struct wire_limits *limits; /* borrowed */
	size_t offset;                    /* where the next value begins; may lie beyond what has arrived */
	size_t values;                    /* declared so far, all levels */
	unsigned depth;                   /* levels in use; the message itself is the lowest */
	uint64_t open[WIRE_NESTING_MAX + 1]; /* values still missing, by level */
};

enum { WIRE_MORE = 0, WIRE_WHOLE = 1 };

/* Begin with the first byte of a message. */
void wire_scanner_init(struct wire_scanner *scanner, const struct wire_limits *limits);

/**
 * Look on, where the last call stopped.
 *
 * @bytes  the message from its first byte on
 * @len    bytes that have arrived; may reach into the next message
 *
 * Return: WIRE_MORE; WIRE_WHOLE, with the message's length in scanner->offset; or -EBADMSG (what is no
 * MessagePack) or -EMSGSIZE (beyond a limit), with err saying which: the connection cannot go on.
 */
int wire_scanner_feed(struct wire_scanner *scanner, const void *bytes, size_t len, struct err *err);

/* ---- reading ---- */

struct wire_value; /* one value inside a parsed message */

enum wire_message_type { WIRE_REQUEST = 0, WIRE_RESPONSE = 1, WIRE_NOTIFICATION = 2 };

struct wire_bytes {
	const char *data; /* not terminated; NULL when the key was absent */
	size_t len;
};

struct wire_message {
	enum wire_message_type type;
	uint32_t id;                     /* request, response */
	struct wire_bytes method;        /* request, notification */
	const struct wire_value *params; /* request, notification: a map */
	const struct wire_value *error;  /* response: NULL, or a map */
	const struct wire_value *result; /* response: may be NULL */
	void *zone;                      /* private */
};

/**
 * Parse one whole message.
 *
 * @bytes    what a wire_scanner called whole (msgpack-c alone would believe every count in it); must outlive
 *           the message, whose values point into it
 * @message  out: wire_message_fini() when done, also after a failure
 *
 * Return: 0, or -EBADMSG.
 */
int wire_parse(const void *bytes, size_t len, struct wire_message *message, struct err *err);
void wire_message_fini(struct wire_message *message);

/* Are these exactly the bytes of a text? Absent ones are not. */
bool wire_is(const struct wire_bytes *bytes, const char *text);

enum wire_type {
	WIRE_BOOL, /* bool */
	WIRE_UINT, /* uint64_t */
	WIRE_INT,  /* int64_t */
	WIRE_TEXT, /* struct wire_bytes: a str without NUL, up to WIRE_TEXT_MAX; or a bin, for clients without
		      the difference */
	WIRE_BYTES,  /* struct wire_bytes: a bin or str, any bytes */
	WIRE_DIGEST, /* struct digest, from text `hash/size` */
	WIRE_ARRAY,  /* const struct wire_value * */
	WIRE_MAP,    /* const struct wire_value * */
	WIRE_ANY,    /* const struct wire_value * */
};

struct wire_field {
	const char *name;
	enum wire_type type;
	bool required;
	size_t offset;  /* of the member that takes the value */
	size_t present; /* of a bool member set when the key is there; 0: none */
};

/* A row of such a table: the key has the member's name. */
#define WIRE_FIELD(owner, member, kind, is_required)                                                         \
	{                                                                                                    \
		.name = #member, .type = (kind), .required = (is_required),                                  \
		.offset = offsetof(owner, member)                                                            \
	}

/* The same, with a bool member that says whether the key was there. */
#define WIRE_OPTIONAL(owner, member, kind, present_member)                                                   \
	{                                                                                                    \
		.name = #member, .type = (kind), .offset = offsetof(owner, member),                          \
		.present = offsetof(owner, present_member)                                                   \
	}

/**
 * Fill a struct from a map.
 *
 * Members whose keys are absent keep what they hold. A key that is not in the table is refused, unless it
 * begins with `x-`; so is one of the table that comes twice.
 *
 * @what  names the map in messages: "ping", "put: entry 3"
 *
 * Return: 0, or -EINVAL with the key and the reason in err.
 */
int wire_decode(const struct wire_value *map, const struct wire_field *fields, size_t n_fields, void *out,
		const char *what, struct err *err);

/* As wire_decode(), but unknown keys are passed over: what a client does with answers. */
int wire_decode_open(const struct wire_value *map, const struct wire_field *fields, size_t n_fields,
		     void *out, const char *what, struct err *err);

/* The elements of an array; NULL has none. */
size_t wire_array_size(const struct wire_value *array);
const struct wire_value *wire_array_at(const struct wire_value *array, size_t i);

/* The pairs of a map; NULL has none. */
size_t wire_map_size(const struct wire_value *map);
const struct wire_value *wire_map_key(const struct wire_value *map, size_t i);
const struct wire_value *wire_map_value(const struct wire_value *map, size_t i);

/* What a value is, for printing an answer whatever it holds. */
enum wire_kind {
	WIRE_IS_NIL,
	WIRE_IS_BOOL,
	WIRE_IS_UINT,
	WIRE_IS_INT,
	WIRE_IS_FLOAT,
	WIRE_IS_TEXT,
	WIRE_IS_BYTES,
	WIRE_IS_ARRAY,
	WIRE_IS_MAP,
	WIRE_IS_OTHER
};
enum wire_kind wire_kind(const struct wire_value *value);

/* A value that wire_kind() said is of this kind. */
bool wire_as_bool(const struct wire_value *value);
uint64_t wire_as_uint(const struct wire_value *value);
int64_t wire_as_int(const struct wire_value *value);
double wire_as_float(const struct wire_value *value);
struct wire_bytes wire_as_bytes(const struct wire_value *value); /* TEXT or BYTES */

/* Text or bytes: the digest they spell. Return: 0, or -EINVAL. */
int wire_as_digest(const struct wire_value *value, struct digest *digest);

/**
 * Read the error of a response into err (code, message).
 *
 * @missing  out, may be NULL: the array under `missing`, or NULL
 */
void wire_read_error(const struct wire_value *error, struct err *err, const struct wire_value **missing);

/* ---- writing ---- */

/* A growing piece of memory. Zero it to begin; wire_out_fini() when done. */
struct wire_out {
	char *data;
	size_t len, capacity;
};

void wire_out_fini(struct wire_out *out);

/* It grows no more: what it has of memory beyond its length is given back. */
void wire_out_trim(struct wire_out *out);

/* The message is done and its memory the caller's, who free()s it. */
char *wire_out_take(struct wire_out *out, size_t *len);

/* Heads. The caller goes on with one map: params or result. */
void wire_request(struct wire_out *out, uint32_t id, const char *method);
void wire_response(struct wire_out *out, uint32_t id);
void wire_notification(struct wire_out *out, const char *method);

/**
 * A whole response that says what failed.
 *
 * @missing  digests that are absent, or NULL
 */
void wire_error_response(struct wire_out *out, uint32_t id, const struct err *err,
			 const struct digest *missing, size_t n_missing);

/* Values. A map of n is followed by n keys (text), each with its value. */
void wire_map(struct wire_out *out, size_t n);
void wire_array(struct wire_out *out, size_t n);
void wire_text(struct wire_out *out, const char *text);
void wire_bytes(struct wire_out *out, const void *bytes, size_t len);
void wire_uint(struct wire_out *out, uint64_t value);
void wire_int(struct wire_out *out, int64_t value);
void wire_float(struct wire_out *out, double value);
void wire_bool(struct wire_out *out, bool value);
void wire_nil(struct wire_out *out);
void wire_digest(struct wire_out *out, const struct digest *digest); /* as text */

/* A key and its value at once. */
void wire_put_text(struct wire_out *out, const char *key, const char *text);
void wire_put_bytes(struct wire_out *out, const char *key, const void *bytes, size_t len);
void wire_put_uint(struct wire_out *out, const char *key, uint64_t value);
void wire_put_bool(struct wire_out *out, const char *key, bool value);
void wire_put_digest(struct wire_out *out, const char *key, const struct digest *digest);

#endif
