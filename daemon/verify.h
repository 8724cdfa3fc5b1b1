/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verify: is the store what the cache believes it to be? Every file is hashed again, and disk, catalog,
 * index, trees and tags are compared with each other; with `repair`, what is wrong is put right.
 *
 *     wait      for what a start leaves in the background: recovery (recover.h), warming, tagged trees
 *     folders   strange names, and folders of another mode or owner
 *     rows      has every blob of the catalog its file?
 *     files     type, bytes, mode, owner, time; does the catalog know it, its size, what it takes?
 *     trees     is all there that cached trees need, to the last blob?
 *     tags      do they name something, and is STORE/tags what it should be?
 *     index     are its rows what is in memory, and so agrees with the files by now?
 *     litter    is anything left in tmp/ and staging/ that nobody needs?
 *     pages     is the index a database that SQLite takes for whole?
 *
 * While it serves. Files are looked at by one worker at a time, two milliseconds a turn and less while others
 * wait, and with a `rate` no more bytes a second than that. Blobs come, go, are healed and rotated meanwhile,
 * so what a first look finds is a suspicion: the blob is claimed (claims.h) and looked at again, and what
 * does not agree with the catalog counts only if nobody else has claimed the blob since. One that somebody
 * else is at is looked at again later. Likewise a row of the index is compared when all that was submitted is
 * committed, and counts if what is in memory has not changed meanwhile.
 *
 * Repair, one fault at a time, by what requests and starts do anyway:
 *
 *     other bytes, no file, unreadable
 *         taken out of the store, counted in tampered_blobs, and obtained again from the other kind
 *         (flight.h); where there is none the row goes
 *     other mode, owner or time
 *         a fresh inode takes the name, its bytes checked on the way
 *     a file without a row, a row without a file
 *         taken in; obtained from the other kind, or dropped
 *     size, allocated bytes
 *         catalog and index are told
 *     a tree that is not whole
 *         cached no more: the next request is a miss, and names what is absent
 *     a tag that names nothing, STORE/tags
 *         deleted; written anew
 *     a row of the index
 *         written from memory, or dropped; it speaks for no inode then (blob.h)
 *     a strange name, litter, a folder's mode
 *         deleted; set
 *     the index
 *         set aside; a new one takes what comes, and the next start finds the rest in the store, as it does
 *         whenever damage comes to light (index.h)
 *
 * On disk the order is that of all others: bytes, name, row. So whoever is killed in between leaves what a
 * start or the next repair puts right.
 *
 * One at a time for a cache. Loop only.
 */
#ifndef DIRCACHE_DAEMON_VERIFY_H
#define DIRCACHE_DAEMON_VERIFY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"
#include "daemon/cache.h"

/* X(name, word of the protocol, what it is) */
#define VERIFY_KINDS(X)                                                                                      \
	X(VERIFY_TYPE, "type", "what has a blob's name is no regular file")                                  \
	X(VERIFY_UNREADABLE, "unreadable", "a file that cannot be read")                                     \
	X(VERIFY_BYTES, "bytes", "a file whose bytes are not those of its name")                             \
	X(VERIFY_MODE, "mode", "a file or folder of another mode")                                           \
	X(VERIFY_OWNER, "owner", "a file or folder of another user")                                         \
	X(VERIFY_TIME, "time", "a file of another modification time")                                        \
	X(VERIFY_NO_FILE, "no_file", "a blob in the index without its file")                                 \
	X(VERIFY_NO_ROW, "no_row", "a file that the index does not have")                                    \
	X(VERIFY_SIZE, "size", "a blob of another size in the index")                                        \
	X(VERIFY_ALLOCATED, "allocated", "a file that takes another number of bytes than the index says")    \
	X(VERIFY_STRANGER, "stranger", "a name among the blobs that is none of theirs")                      \
	X(VERIFY_TREE, "tree", "a cached tree that lacks something")                                         \
	X(VERIFY_TAG, "tag", "a tag that names nothing")                                                     \
	X(VERIFY_TAGS_FILE, "tags_file", "the file of tags disagrees with the index")                        \
	X(VERIFY_ROW, "row", "a row of the index that is not what is in memory")                             \
	X(VERIFY_LITTER, "litter", "something that an earlier process left")                                 \
	X(VERIFY_INDEX, "index", "the index is damaged")

#define VERIFY_ENUM_(name, word, what) name,
enum verify_kind { VERIFY_KINDS(VERIFY_ENUM_) };
#undef VERIFY_ENUM_

/* The protocol's word. */
const char *verify_kind_word(enum verify_kind kind);

struct verify_fault {
	enum verify_kind kind;
	bool has_digest;
	struct digest digest; /* of the blob or tree, or what the tag names */
	char *name;           /* the path below STORE, or the tag; NULL for a tree */
	char *expected, *found;
	bool repaired;
	char *repair; /* what was done, or why it could not be; NULL: nothing was to be done */
};

struct verify;

struct verify_call {
	/* In. */
	bool repair;
	uint64_t rate;     /* bytes a second that may be read; 0: no limit */
	size_t max_faults; /* that are listed */

	/* Once, on the loop, never from within verify_start(); the call may be freed after verify_fini(). */
	void (*done)(struct verify_call *call);

	/* Out; while it runs, too. */
	struct verify_fault *faults;
	size_t n_listed;
	uint64_t n_faults, n_repaired;
	uint64_t files, files_total; /* inodes that were hashed, and those there are */
	uint64_t bytes, bytes_total;
	uint64_t links;       /* that lead to these inodes besides their names in the store */
	uint64_t trees, tags; /* that were looked at */
	int r;                /* 0; or negative with err: it could not go on, or was cancelled */
	struct err err;

	struct verify *verify; /* private */
	size_t capacity;
};

/* Begin, if none is under way on this cache. Return: 0, or a negative errno with err. */
int verify_begin(struct cache *cache, struct verify_call *call, struct err *err);

/* Stop soon; done() comes with ERR_CANCELLED. What was repaired stays so. */
void verify_cancel(struct verify_call *call);

/* Free what it lists. */
void verify_fini(struct verify_call *call);

#endif
