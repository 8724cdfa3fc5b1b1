/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Decoding, in bounded memory.
 *
 * The message Directory itself is walked here, field by field: once to count its nodes, so that a limit
 * holds before anything is reserved, and once to decode them, one at a time. Only the nodes are unpacked by
 * protobuf-c, into scratch memory that is used again for the next one. Unpacked as a whole, a message of
 * nothing but two-byte nodes would take forty times its size; and the same few cache lines for every node
 * are faster.
 *
 * The result is one block of memory: the struct, the lists, and behind them names and properties as they
 * come. While it grows it may move, so until then its pointers hold offsets from its beginning.
 */
#include "common/directory.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/directory_internal.h"
#include "common/reapi.pb-c.h"

/* ---- the wire format of protobuf, as far as the outermost message needs it ---- */

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_LENGTH = 2, WIRE_FIXED32 = 5 };

struct reader {
	const uint8_t *p, *end;
};

struct field {
	uint64_t number;
	unsigned type;
	const uint8_t *bytes; /* WIRE_LENGTH: the body */
	size_t len;
};

static bool read_varint(struct reader *reader, uint64_t *value)
{
	*value = 0;
	for (unsigned shift = 0; shift < 64 && reader->p < reader->end; shift += 7) {
		uint8_t byte = *reader->p++;

		*value |= (uint64_t)(byte & 0x7f) << shift;
		if (byte < 0x80)
			return true;
	}
	return false;
}

/* Return: is there a whole field? */
static bool read_field(struct reader *reader, struct field *field)
{
	uint64_t tag, len = 0;

	if (!read_varint(reader, &tag) || tag >> 3 == 0 || tag > UINT32_MAX)
		return false;
	*field = (struct field){ .number = tag >> 3, .type = tag & 7 };
	if (field->type == WIRE_VARINT)
		return read_varint(reader, &len);
	if (field->type == WIRE_LENGTH) {
		if (!read_varint(reader, &len))
			return false;
	} else if (field->type == WIRE_FIXED64) {
		len = 8;
	} else if (field->type == WIRE_FIXED32) {
		len = 4;
	} else {
		return false;
	}
	if (len > (uint64_t)(reader->end - reader->p))
		return false;
	field->bytes = reader->p;
	field->len = len;
	reader->p += len;
	return true;
}

/* ---- counting ---- */

struct counts {
	size_t files, directories, symlinks, properties;
};

static int count_field(const struct field *field, struct counts *counts, struct err *err)
{
	size_t *counter;

	switch (field->number) {
	case DIRECTORY_FILES:
		counter = &counts->files;
		break;
	case DIRECTORY_DIRECTORIES:
		counter = &counts->directories;
		break;
	case DIRECTORY_SYMLINKS:
		counter = &counts->symlinks;
		break;
	case DIRECTORY_PROPERTIES:
		counter = &counts->properties;
		break;
	default:
		return 0;
	}
	if (field->type != WIRE_LENGTH || field->len > DIRECTORY_NODE_MAX)
		return err_set(err, ERR_INVALID_ARGUMENT, "Directory: field %u: %s", (unsigned)field->number,
			       field->type != WIRE_LENGTH ? "it is no message" : "it is too large");
	++*counter;
	return 0;
}

static int count_nodes(const void *bytes, size_t len, size_t max_entries, struct counts *counts,
		       struct err *err)
{
	struct reader reader = { bytes, (const uint8_t *)bytes + len };
	struct field field;
	int r;

	*counts = (struct counts){ 0 };
	while (reader.p < reader.end) {
		if (!read_field(&reader, &field))
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "Directory: malformed after byte %zu of %zu",
				       (size_t)(reader.p - (const uint8_t *)bytes), len);
		if ((r = count_field(&field, counts, err)) < 0)
			return r;
	}
	if (counts->files + counts->directories + counts->symlinks > max_entries)
		return err_set(err, ERR_RESOURCE_EXHAUSTED, "Directory: it has %zu entries: the limit is %zu",
			       counts->files + counts->directories + counts->symlinks, max_entries);
	if (counts->properties > 1)
		return err_set(err, ERR_INVALID_ARGUMENT, "Directory: its properties come twice");
	return 0;
}

/* ---- scratch memory for protobuf-c ---- */

enum {
	/* The worst that a byte of a node becomes: two bytes of an empty NodeProperty take a struct (56), a
	 * pointer (8) and, while they are read, a field's place in a list that doubles (2 * 40). */
	SCRATCH_FACTOR = 80,
	SCRATCH_SIZE = 16 << 10,
};

struct scratch {
	ProtobufCAllocator allocator;
	char *memory;
	size_t used, size;
	char *grown; /* owned: memory, when a node needed more than first */
	_Alignas(max_align_t) char first[SCRATCH_SIZE];
};

static void *scratch_alloc(void *scratch_, size_t size)
{
	struct scratch *scratch = scratch_;
	size_t used = (scratch->used + 15) & ~(size_t)15;

	if (used > scratch->size || size > scratch->size - used)
		return NULL;
	scratch->used = used + size;
	return scratch->memory + used;
}

static void scratch_release(void *scratch, void *p)
{
	(void)scratch; /* all at once, before the next node */
	(void)p;
}

static void scratch_init(struct scratch *scratch)
{
	scratch->allocator = (ProtobufCAllocator){ scratch_alloc, scratch_release, scratch };
	scratch->memory = scratch->first;
	scratch->size = sizeof(scratch->first);
	scratch->used = 0;
	scratch->grown = NULL;
}

static void scratch_fini(struct scratch *scratch)
{
	free(scratch->grown);
}

/* Forget the last node, and have room for one of len bytes. */
static ProtobufCAllocator *scratch_for(struct scratch *scratch, size_t len)
{
	size_t size = len * SCRATCH_FACTOR + 1024;

	if (size > scratch->size) {
		free(scratch->grown);
		scratch->memory = scratch->grown = xmalloc(size);
		scratch->size = size;
	}
	scratch->used = 0;
	return &scratch->allocator;
}

/* ---- the block ---- */

struct decoder {
	struct scratch scratch;
	char *block; /* owned until it is handed over */
	size_t used, size;
	struct counts counts;                /* nodes in the message */
	size_t files, directories, symlinks; /* of these lists in the block */
	size_t i;                            /* the node being decoded, of its list */
	const ProtobufCBinaryData *name;     /* its name, once it is known */
	struct err *err;
};

static void decoder_fini(struct decoder *d)
{
	scratch_fini(&d->scratch);
	free(d->block);
}

/* Return: the offset of size new bytes. */
static size_t reserve(struct decoder *d, size_t size)
{
	size_t at = d->used;

	d->used += size;
	if (d->used > d->size) {
		while (d->size < d->used)
			d->size *= 2;
		d->block = xreallocarray(d->block, d->size, 1);
	}
	return at;
}

static size_t reserve_structs(struct decoder *d, size_t n, size_t size)
{
	d->used = (d->used + _Alignof(max_align_t) - 1) & ~(_Alignof(max_align_t) - 1);
	return reserve(d, n * size);
}

/* While the block may move, an offset stands where a pointer will. */
#define OFFSET(type, at) ((const type *)(at))

#define RELOCATE(base, member) ((member) = (const void *)((base) + (uintptr_t)(member)))

static void decoder_init(struct decoder *d, size_t len, const struct counts *counts, struct err *err)
{
	scratch_init(&d->scratch);
	d->counts = *counts;
	d->err = err;
	/* Without properties everything fits: an encoded name is longer than its place here. */
	d->size = sizeof(struct directory) + counts->files * sizeof(struct file_node) +
		  counts->directories * sizeof(struct directory_node) +
		  counts->symlinks * sizeof(struct symlink_node) + len + 64;
	d->block = xmalloc(d->size);
	d->used = 0;
	(void)reserve_structs(d, 1, sizeof(struct directory));
	d->files = reserve_structs(d, counts->files, sizeof(struct file_node));
	d->directories = reserve_structs(d, counts->directories, sizeof(struct directory_node));
	d->symlinks = reserve_structs(d, counts->symlinks, sizeof(struct symlink_node));
}

/* ---- nodes ---- */

static int malformed(const struct decoder *d, const char *kind, const char *reason)
{
	if (!d->name)
		return err_set(d->err, ERR_INVALID_ARGUMENT, "Directory: %s %zu: %s", kind, d->i, reason);
	return err_set(d->err, ERR_INVALID_ARGUMENT, "Directory: %s '%.*s': %s", kind, (int)d->name->len,
		       (const char *)d->name->data, reason);
}

/* Terminate text at the end of the block. NUL inside is refused: it would cut a name short unseen. */
static int take_text(struct decoder *d, const ProtobufCBinaryData *text, const char *kind,
		     const char **offset)
{
	size_t at;

	if (text->len && memchr(text->data, '\0', text->len))
		return malformed(d, kind, "a NUL is in its name, target or properties");
	at = reserve(d, text->len + 1);
	if (text->len)
		memcpy(d->block + at, text->data, text->len);
	d->block[at + text->len] = '\0';
	*offset = OFFSET(char, at);
	return 0;
}

static int take_digest(const struct decoder *d, const Reapi__Digest *message, const char *kind,
		       struct digest *digest)
{
	if (!message)
		return malformed(d, kind, "its digest is missing");
	if (digest_parse_hash((const char *)message->hash.data, message->hash.len, digest->hash) < 0)
		return malformed(d, kind, "its hash is not 64 lower-case hexadecimal digits");
	if (message->size_bytes < 0)
		return malformed(d, kind, "its size is negative");
	digest->size = (uint64_t)message->size_bytes;
	return 0;
}

static int take_property_list(struct decoder *d, const Reapi__NodeProperties *message, const char *kind,
			      size_t list)
{
	for (size_t i = 0; i < message->n_properties; i++) {
		struct node_property property;
		int r;

		if ((r = take_text(d, &message->properties[i]->name, kind, &property.name)) < 0 ||
		    (r = take_text(d, &message->properties[i]->value, kind, &property.value)) < 0)
			return r;
		memcpy(d->block + list + i * sizeof(property), &property, sizeof(property));
	}
	return 0;
}

static int take_properties(struct decoder *d, const Reapi__NodeProperties *message, const char *kind,
			   const struct node_properties **offset)
{
	struct node_properties properties = { 0 };
	size_t at, list;

	*offset = NULL;
	if (!message)
		return 0;
	if (message->mtime) {
		properties.has_mtime = true;
		properties.mtime_sec = message->mtime->seconds;
		properties.mtime_nsec =
			(uint32_t)message->mtime->nanos; /* a negative one is out of range too */
	}
	if (message->unix_mode) {
		properties.has_unix_mode = true;
		properties.unix_mode = message->unix_mode->value;
	}
	at = reserve_structs(d, 1, sizeof(properties));
	list = reserve_structs(d, message->n_properties, sizeof(struct node_property));
	properties.n_properties = message->n_properties;
	properties.properties = OFFSET(struct node_property, list);
	memcpy(d->block + at, &properties, sizeof(properties));
	*offset = OFFSET(struct node_properties, at);
	return take_property_list(d, message, kind, list);
}

static int decode_file(struct decoder *d, const struct field *field)
{
	const Reapi__FileNode *message =
		reapi__file_node__unpack(scratch_for(&d->scratch, field->len), field->len, field->bytes);
	struct file_node node;
	int r;

	if (!message)
		return malformed(d, "file", "malformed");
	d->name = &message->name;
	if ((r = take_text(d, &message->name, "file", &node.name)) < 0 ||
	    (r = take_digest(d, message->digest, "file", &node.digest)) < 0 ||
	    (r = take_properties(d, message->node_properties, "file", &node.properties)) < 0)
		return r;
	node.executable = message->is_executable;
	memcpy(d->block + d->files + d->i * sizeof(node), &node, sizeof(node));
	return 0;
}

static int decode_directory(struct decoder *d, const struct field *field)
{
	const Reapi__DirectoryNode *message =
		reapi__directory_node__unpack(scratch_for(&d->scratch, field->len), field->len, field->bytes);
	struct directory_node node;
	int r;

	if (!message)
		return malformed(d, "directory", "malformed");
	d->name = &message->name;
	if ((r = take_text(d, &message->name, "directory", &node.name)) < 0 ||
	    (r = take_digest(d, message->digest, "directory", &node.digest)) < 0)
		return r;
	memcpy(d->block + d->directories + d->i * sizeof(node), &node, sizeof(node));
	return 0;
}

static int decode_symlink(struct decoder *d, const struct field *field)
{
	const Reapi__SymlinkNode *message =
		reapi__symlink_node__unpack(scratch_for(&d->scratch, field->len), field->len, field->bytes);
	struct symlink_node node;
	int r;

	if (!message)
		return malformed(d, "symlink", "malformed");
	d->name = &message->name;
	if ((r = take_text(d, &message->name, "symlink", &node.name)) < 0 ||
	    (r = take_text(d, &message->target, "symlink", &node.target)) < 0 ||
	    (r = take_properties(d, message->node_properties, "symlink", &node.properties)) < 0)
		return r;
	memcpy(d->block + d->symlinks + d->i * sizeof(node), &node, sizeof(node));
	return 0;
}

static int decode_properties(struct decoder *d, const struct field *field,
			     const struct node_properties **properties)
{
	const Reapi__NodeProperties *message = reapi__node_properties__unpack(
		scratch_for(&d->scratch, field->len), field->len, field->bytes);

	if (!message)
		return malformed(d, "properties", "malformed");
	return take_properties(d, message, "properties", properties);
}

static int decode_nodes(struct decoder *d, struct reader reader, const struct node_properties **properties)
{
	struct counts done = { 0 };
	struct field field;
	int r = 0;

	while (r == 0 && reader.p < reader.end && read_field(&reader, &field)) {
		d->name = NULL;
		switch (field.number) {
		case DIRECTORY_FILES:
			d->i = done.files++;
			r = decode_file(d, &field);
			break;
		case DIRECTORY_DIRECTORIES:
			d->i = done.directories++;
			r = decode_directory(d, &field);
			break;
		case DIRECTORY_SYMLINKS:
			d->i = done.symlinks++;
			r = decode_symlink(d, &field);
			break;
		case DIRECTORY_PROPERTIES:
			d->i = 0;
			r = decode_properties(d, &field, properties);
			break;
		default:
			break; /* of a later version of the specification */
		}
	}
	return r;
}

/* ---- from offsets to pointers ---- */

static void relocate_properties(char *base, const struct node_properties **member)
{
	struct node_properties *properties;

	if (!*member)
		return;
	RELOCATE(base, *member);
	properties = (struct node_properties *)*member;
	RELOCATE(base, properties->properties);
	for (size_t i = 0; i < properties->n_properties; i++) {
		struct node_property *property = (struct node_property *)&properties->properties[i];

		RELOCATE(base, property->name);
		RELOCATE(base, property->value);
	}
}

static void relocate_lists(const struct decoder *d, char *base)
{
	struct file_node *files = (struct file_node *)(void *)(base + d->files);
	struct directory_node *directories = (struct directory_node *)(void *)(base + d->directories);
	struct symlink_node *symlinks = (struct symlink_node *)(void *)(base + d->symlinks);

	for (size_t i = 0; i < d->counts.files; i++) {
		RELOCATE(base, files[i].name);
		relocate_properties(base, &files[i].properties);
	}
	for (size_t i = 0; i < d->counts.directories; i++)
		RELOCATE(base, directories[i].name);
	for (size_t i = 0; i < d->counts.symlinks; i++) {
		RELOCATE(base, symlinks[i].name);
		RELOCATE(base, symlinks[i].target);
		relocate_properties(base, &symlinks[i].properties);
	}
}

static uint64_t sum_sizes(const struct file_node *files, size_t n)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < n; i++)
		if (__builtin_add_overflow(sum, files[i].digest.size, &sum))
			return UINT64_MAX;
	return sum;
}

/* The block has its final size and place; from here on it is a struct directory. */
static struct directory *decoder_take(struct decoder *d, const struct node_properties *properties)
{
	char *base = xreallocarray(d->block, d->used, 1);
	struct directory *directory = (struct directory *)(void *)base;

	d->block = NULL;
	*directory = (struct directory){
		.n_files = d->counts.files,
		.n_directories = d->counts.directories,
		.n_symlinks = d->counts.symlinks,
		.files = (const struct file_node *)(void *)(base + d->files),
		.directories = (const struct directory_node *)(void *)(base + d->directories),
		.symlinks = (const struct symlink_node *)(void *)(base + d->symlinks),
		.properties = properties,
		.memory = d->used,
	};
	relocate_properties(base, &directory->properties);
	relocate_lists(d, base);
	directory->file_bytes = sum_sizes(directory->files, directory->n_files);
	return directory;
}

int directory_decode(const void *bytes, size_t len, size_t max_entries, struct directory **directory,
		     struct err *err)
{
	const struct node_properties *properties = NULL;
	struct counts counts;
	CLEANUP(decoder_fini) struct decoder decoder;
	AUTO(directory) decoded = NULL;
	int r;

	decoder.block = decoder.scratch.grown = NULL;
	if (!len)
		bytes = ""; /* it may be NULL, to which C lets nobody add even 0 */
	if ((r = count_nodes(bytes, len, max_entries, &counts, err)) < 0)
		return r;
	decoder_init(&decoder, len, &counts, err);
	if ((r = decode_nodes(&decoder, (struct reader){ bytes, (const uint8_t *)bytes + len },
			      &properties)) < 0)
		return r;
	decoded = decoder_take(&decoder, properties);
	if ((r = directory_check(decoded, err)) < 0)
		return r;
	*directory = TAKE(decoded);
	return 0;
}
