/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding: the canonical form, node by node. Fields in ascending order without defaults is what protobuf-c
 * writes; the order of the nodes is ours.
 */
#include "common/directory.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/directory_internal.h"
#include "common/reapi.pb-c.h"

/* ---- sorting ---- */

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* A list that is in order already, as a walk over sorted names gives it, costs one look. */
static void sort_list(struct node_list list)
{
	for (size_t i = 1; i < list.n; i++)
		if (strcmp(node_name(&list, i - 1), node_name(&list, i)) > 0) {
			qsort((void *)list.nodes, list.n, list.size, compare_names);
			return;
		}
}

/* ---- nodes as protobuf-c wants them ---- */

static ProtobufCBinaryData binary(const char *text)
{
	return (ProtobufCBinaryData){ .data = (uint8_t *)text, .len = strlen(text) };
}

struct packed_digest {
	Reapi__Digest message;
	char hex[DIGEST_HEX_SIZE];
};

static Reapi__Digest *pack_digest(struct packed_digest *packed, const struct digest *digest)
{
	packed->message = (Reapi__Digest)REAPI__DIGEST__INIT;
	digest_print_hash(digest->hash, packed->hex);
	packed->message.hash =
		(ProtobufCBinaryData){ .data = (uint8_t *)packed->hex, .len = DIGEST_HEX_SIZE };
	packed->message.size_bytes = (int64_t)digest->size;
	return &packed->message;
}

struct packed_properties {
	Reapi__NodeProperties message;
	Reapi__Timestamp mtime;
	Reapi__UInt32Value unix_mode;
	Reapi__NodeProperty *list;      /* owned */
	Reapi__NodeProperty **pointers; /* owned: to the elements of list */
};

static void packed_properties_fini(struct packed_properties *packed)
{
	free(packed->list);
	free(packed->pointers);
}

static void pack_property_list(struct packed_properties *packed, const struct node_properties *properties)
{
	size_t n = properties->n_properties;

	packed->list = xcalloc(n, sizeof(*packed->list));
	packed->pointers = xcalloc(n, sizeof(*packed->pointers));
	for (size_t i = 0; i < n; i++) {
		packed->list[i] = (Reapi__NodeProperty)REAPI__NODE_PROPERTY__INIT;
		packed->list[i].name = binary(properties->properties[i].name);
		packed->list[i].value = binary(properties->properties[i].value);
		packed->pointers[i] = &packed->list[i];
	}
	packed->message.n_properties = n;
	packed->message.properties = packed->pointers;
}

/* Return: the message, or NULL where there are no properties. */
static Reapi__NodeProperties *pack_properties(struct packed_properties *packed,
					      const struct node_properties *properties)
{
	packed->list = NULL;
	packed->pointers = NULL;
	if (!properties)
		return NULL;
	packed->message = (Reapi__NodeProperties)REAPI__NODE_PROPERTIES__INIT;
	if (properties->n_properties)
		pack_property_list(packed, properties);
	if (properties->has_mtime) {
		packed->mtime = (Reapi__Timestamp)REAPI__TIMESTAMP__INIT;
		packed->mtime.seconds = properties->mtime_sec;
		packed->mtime.nanos = (int32_t)properties->mtime_nsec;
		packed->message.mtime = &packed->mtime;
	}
	if (properties->has_unix_mode) {
		packed->unix_mode = (Reapi__UInt32Value)REAPI__UINT32_VALUE__INIT;
		packed->unix_mode.value = properties->unix_mode;
		packed->message.unix_mode = &packed->unix_mode;
	}
	return &packed->message;
}

/* ---- the message ---- */

struct encoder {
	uint8_t *bytes; /* owned until it is handed over */
	size_t len, capacity;
};

static void encoder_fini(struct encoder *encoder)
{
	free(encoder->bytes);
}

static uint8_t *reserve(struct encoder *encoder, size_t n)
{
	size_t capacity = encoder->capacity ? encoder->capacity : 256;

	while (capacity - encoder->len < n)
		capacity *= 2;
	if (capacity != encoder->capacity)
		encoder->bytes = xreallocarray(encoder->bytes, capacity, 1);
	encoder->capacity = capacity;
	return encoder->bytes + encoder->len;
}

/* Return: 0, or -EINVAL for a node that directory_decode() would find too large. */
static int add_message(struct encoder *encoder, unsigned field, const ProtobufCMessage *message,
		       struct err *err)
{
	size_t len = protobuf_c_message_get_packed_size(message);
	uint8_t *p = reserve(encoder, 1 + 3 + len);
	size_t rest = len;

	if (len > DIRECTORY_NODE_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "Directory: field %u: it is too large", field);
	*p++ = (uint8_t)(field << 3 | 2);
	for (; rest >= 0x80; rest >>= 7)
		*p++ = (uint8_t)(rest | 0x80);
	*p++ = (uint8_t)rest;
	p += protobuf_c_message_pack(message, p);
	encoder->len = (size_t)(p - encoder->bytes);
	return 0;
}

static int add_file(struct encoder *encoder, const struct file_node *file, struct err *err)
{
	Reapi__FileNode message = REAPI__FILE_NODE__INIT;
	CLEANUP(packed_properties_fini) struct packed_properties properties;
	struct packed_digest digest;

	message.name = binary(file->name);
	message.digest = pack_digest(&digest, &file->digest);
	message.is_executable = file->executable;
	message.node_properties = pack_properties(&properties, file->properties);
	return add_message(encoder, DIRECTORY_FILES, &message.base, err);
}

static int add_directory(struct encoder *encoder, const struct directory_node *directory, struct err *err)
{
	Reapi__DirectoryNode message = REAPI__DIRECTORY_NODE__INIT;
	struct packed_digest digest;

	message.name = binary(directory->name);
	message.digest = pack_digest(&digest, &directory->digest);
	return add_message(encoder, DIRECTORY_DIRECTORIES, &message.base, err);
}

static int add_symlink(struct encoder *encoder, const struct symlink_node *link, struct err *err)
{
	Reapi__SymlinkNode message = REAPI__SYMLINK_NODE__INIT;
	CLEANUP(packed_properties_fini) struct packed_properties properties;

	message.name = binary(link->name);
	message.target = binary(link->target);
	message.node_properties = pack_properties(&properties, link->properties);
	return add_message(encoder, DIRECTORY_SYMLINKS, &message.base, err);
}

static int add_properties(struct encoder *encoder, const struct node_properties *properties, struct err *err)
{
	CLEANUP(packed_properties_fini) struct packed_properties packed;
	const Reapi__NodeProperties *message = pack_properties(&packed, properties);

	return message ? add_message(encoder, DIRECTORY_PROPERTIES, &message->base, err) : 0;
}

static int add_all(struct encoder *encoder, const struct directory *d, struct err *err)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < d->n_files; i++)
		r = add_file(encoder, &d->files[i], err);
	for (size_t i = 0; r == 0 && i < d->n_directories; i++)
		r = add_directory(encoder, &d->directories[i], err);
	for (size_t i = 0; r == 0 && i < d->n_symlinks; i++)
		r = add_symlink(encoder, &d->symlinks[i], err);
	return r < 0 ? r : add_properties(encoder, d->properties, err);
}

int directory_encode(struct directory *directory, uint8_t **bytes, size_t *len, struct err *err)
{
	CLEANUP(encoder_fini) struct encoder encoder = { 0 };
	int r;

	sort_list(directory_files(directory));
	sort_list(directory_directories(directory));
	sort_list(directory_symlinks(directory));
	if ((r = directory_check(directory, err)) < 0 || (r = add_all(&encoder, directory, err)) < 0)
		return r;
	(void)reserve(&encoder, 1); /* the empty Directory has no bytes, but memory to free() */
	*len = encoder.len;
	*bytes = TAKE(encoder.bytes);
	return 0;
}
