/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of put share: put.c takes entries in, put_tree.c makes a tree of them.
 */
#ifndef DIRCACHE_DAEMON_PUT_INTERNAL_H
#define DIRCACHE_DAEMON_PUT_INTERNAL_H

#include "common/directory.h"
#include "daemon/put.h"

enum put_type { PUT_FILE, PUT_DIRECTORY, PUT_SYMLINK };

struct put_entry {
	enum put_type type;
	uint32_t parent;      /* number of a directory */
	uint32_t number;      /* of this directory */
	char *name;           /* owned; NULL for a put of a single file */
	char *target;         /* symlink: owned */
	struct digest digest; /* file: once it is stored */
	bool executable;
};

struct put {
	struct session_item item; /* first of the connection's hold on it */
	struct cache *cache;
	struct pool_queue *queue;
	uint32_t number;
	uid_t uid;
	size_t refs; /* the connection's, and one for each request under way */

	struct put_entry *entries;
	size_t n_entries, entries_capacity;
	uint32_t n_directories; /* the root, number 0, included */
	bool is_file;           /* a single file without a name */
	size_t n_open;          /* `entries` requests under way */
	bool over;              /* failed, committed or aborted */

	struct index_batch *batch; /* rows not submitted yet */
	uint64_t mark;             /* of the index, when the put began */
	uint64_t n_new, new_bytes;
	uint64_t n_files, n_symlinks, bytes;
};

void put_release(struct put *put);

/* A blob of this put is in the store: note it in catalog, counters and index. */
void put_note_blob(struct put *put, const struct blob_info *info, enum blob_kind kind, bool is_new);

/* Submit the rows gathered so far. */
void put_submit_rows(struct put *put);

/* Make the tree of a put whose files are all stored, and answer the request; takes over a reference to the
 * put. */
void put_commit_tree(struct put *put, struct request *request, const char *tag, size_t tag_len);

/* The last step of a commit: the tag, if there is one, then the answer, once all is in the index. */
void put_answer(struct put *put, struct request *request, const struct digest *digest, const char *tag,
		size_t tag_len);

#endif
