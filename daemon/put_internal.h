/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of put share: put.c is the conversation, put_entries.c takes entries in, put_files.c has
 * their files stored, put_tree.c makes a tree of them.
 */
#ifndef DIRCACHE_DAEMON_PUT_INTERNAL_H
#define DIRCACHE_DAEMON_PUT_INTERNAL_H

#include <stdatomic.h>

#include "common/directory.h"
#include "daemon/blocks.h"
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
	bool held;        /* file: its blob is, by this put */
	uint64_t brought; /* ... as put_note_blob() says */
};

struct put {
	struct session_item item; /* first of the connection's hold on it */
	struct cache *cache;
	struct pool_queue *queue;
	uint32_t number;
	struct user *user; /* whose it is */
	size_t refs;       /* the connection's, and one for each request under way */

	struct blocks entries;     /* struct put_entry */
	struct blocks directories; /* by number, from 1 on: which entry it is, a size_t; 0 is the root */
	bool is_file;              /* a single file without a name */
	size_t n_open;             /* `entries` requests under way */
	bool over;                 /* failed, committed or aborted */
	bool is_good;              /* committed: what it stored is wanted */
	uint64_t expected;         /* bytes in all, as the client says; 0: it does not */

	uint64_t mark; /* of the index, when the put began */
	uint64_t n_new, new_bytes;
	uint64_t n_files, n_symlinks, bytes;

	struct slice slice; /* forgetting it, the last entry first */
};

static inline struct put_entry *put_entry(const struct put *put, size_t i)
{
	return blocks_at(&put->entries, i, sizeof(struct put_entry));
}

/* The entry of a directory that is not the root. */
static inline struct put_entry *put_directory(const struct put *put, size_t number)
{
	const size_t *i = blocks_at(&put->directories, number, sizeof(size_t));

	return put_entry(put, *i);
}

void put_release(struct put *put);

/* The put is over: the connection need not keep it any longer. */
void put_end(struct put *put);

/**
 * A blob of this put is in the store: note it in catalog, counters and index, and hold it.
 *
 * Return: its time of use, where the store had nothing of it before; else 0.
 */
uint64_t put_note_blob(struct put *put, const struct blob_info *info, enum blob_kind kind, bool is_new);

/**
 * Give back the hold. What a put that came to nothing brought in is the next to go where room is wanted,
 * unless it was used since.
 *
 * @brought  of put_note_blob()
 */
void put_release_blob(struct put *put, const struct digest *digest, uint64_t brought);

/* A writer for this put, from writers_take(). */
struct blob_writer *put_take_writer(struct put *put);

/* Where an entry is in the tree, for messages; the caller's to free(). Any thread, while nothing is added. */
char *put_path(const struct put *put, const struct put_entry *entry);

/* Run a slice, or all of it at once where the daemon stops and nobody is served any more. */
void put_run_slice(struct put *put, struct slice *slice);

/* ---- entries ---- */

/* The step `entries`: entries is their array, or NULL. */
void put_start_entries(struct request *request, struct put *put, const struct wire_value *entries);

/* A file to be stored. */
struct put_file {
	/* In. */
	int fd;                          /* closed by the worker */
	size_t entry;                    /* index in the put's entries */
	bool has_executable, executable; /* what the client said, else the descriptor's mode says it */

	/* Out. */
	int r;
	bool changed; /* an inode that was changed had to be taken out of the store */
	struct blob_info info;
	enum blob_kind kind;
	struct put_file *next; /* of those that one job stored */
};

/* The files of one request. Jobs take the next one each, until none is left. */
struct put_files {
	struct put *put; /* a reference of the owner's */
	struct put_file *files;
	size_t n;
	/* Called once, when every descriptor is closed: r < 0 with err is the first failure. */
	void (*stored)(struct put_files *files, int r, const struct err *err);

	atomic_bool stop; /* cancelled, or one has failed: only close what is left */

	/* Private. */
	atomic_size_t n_taken;
	size_t n_jobs;
	struct list waiting; /* jobs that wait for room */
	int r;
	struct err err;
};

/* Have files stored: all but the private part is set. stored() may be called from within, if n is 0. */
void put_files_start(struct put_files *files);

/* Store no more of them. stored() is called all the same, when all descriptors are closed. */
void put_files_stop(struct put_files *files);

/* ---- the end ---- */

/* Make the tree of a put whose files are all stored, and answer the request; takes over a reference to the
 * put. */
void put_commit_tree(struct put *put, struct request *request, const char *tag, size_t tag_len);

/* The last step of a commit: the tag, if there is one, then the answer, once all is in the index. */
void put_answer(struct put *put, struct request *request, const struct digest *digest, const char *tag,
		size_t tag_len);

#endif
