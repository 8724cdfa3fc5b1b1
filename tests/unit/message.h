/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directory messages written by hand, so that they may be wrong; what is right of them is decoded by
 * accept_message().
 */
#ifndef DIRCACHE_TESTS_UNIT_MESSAGE_H
#define DIRCACHE_TESTS_UNIT_MESSAGE_H

#include <string.h>

#include "common/directory.h"
#include "tests/unit/unit.h"

#define HEX       "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9" /* of "hello world" */
#define HEX_EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

struct message {
	uint8_t bytes[16384];
	size_t len;
};

static inline void put_varint(struct message *m, uint64_t value)
{
	for (; value >= 0x80; value >>= 7)
		m->bytes[m->len++] = (uint8_t)(value | 0x80);
	m->bytes[m->len++] = (uint8_t)value;
}

static inline void put_number(struct message *m, unsigned field, uint64_t value)
{
	put_varint(m, field << 3);
	put_varint(m, value);
}

static inline void put_bytes(struct message *m, unsigned field, const void *bytes, size_t len)
{
	put_varint(m, field << 3 | 2);
	put_varint(m, len);
	ck_assert_uint_le(m->len + len, sizeof(m->bytes));
	memcpy(m->bytes + m->len, bytes, len);
	m->len += len;
}

static inline void put_text(struct message *m, unsigned field, const char *text)
{
	put_bytes(m, field, text, strlen(text));
}

static inline void put_message(struct message *m, unsigned field, const struct message *inner)
{
	put_bytes(m, field, inner->bytes, inner->len);
}

static inline struct message digest_message(const char *hash, int64_t size)
{
	struct message m = { .len = 0 };

	put_text(&m, 1, hash);
	if (size)
		put_number(&m, 2, (uint64_t)size);
	return m;
}

/* A FileNode or DirectoryNode. */
static inline struct message node_message(const char *name, size_t len, const char *hash, int64_t size)
{
	struct message m = { .len = 0 }, digest = digest_message(hash, size);

	put_bytes(&m, 1, name, len);
	put_message(&m, 2, &digest);
	return m;
}

static inline void put_node(struct message *m, unsigned field, const char *name)
{
	struct message node = node_message(name, strlen(name), HEX, 11);

	put_message(m, field, &node);
}

static inline void put_symlink(struct message *m, const char *name, const char *target)
{
	struct message node = { .len = 0 };

	put_text(&node, 1, name);
	put_text(&node, 2, target);
	put_message(m, 3, &node);
}

static inline void put_file_with_properties(struct message *m, const struct message *properties)
{
	struct message node = node_message("f", 1, HEX, 11);

	put_message(&node, 6, properties);
	put_message(m, 1, &node);
}

static inline struct directory *accept_message(const struct message *m)
{
	struct directory *directory = NULL;
	struct err err = { 0 };

	ck_assert_msg(directory_decode(m->bytes, m->len, DIRECTORY_ENTRIES_MAX, &directory, &err) == 0, "%s",
		      err.text);
	return directory;
}

#endif
