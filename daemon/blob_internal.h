/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What blob.c (look, link, read) and blob_write.c (write, renew) share, and nobody else includes.
 */
#ifndef DIRCACHE_DAEMON_BLOB_INTERNAL_H
#define DIRCACHE_DAEMON_BLOB_INTERNAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/blob.h"

struct blob_store {
	int store_fd;             /* borrowed */
	int kind_fds[BLOB_KINDS]; /* blobs/, exec/ */
	int tmp_fd;               /* tmp/: files that need a name before they may have theirs */
	uid_t uid;                /* that owns everything published */
	struct timespec mtime;    /* of everything published */
	uint64_t run;             /* in the names in tmp/: those of another run are litter */
	atomic_uint_least64_t n_temporary;
	atomic_bool no_tmpfile; /* the file system has no O_TMPFILE */
	atomic_bool no_reflink; /* ... and no FICLONE */
};

/* A blob's name below its kind's folder: `ab/abcdef...`. */
struct blob_name {
	char text[2 + 1 + DIGEST_HEX_SIZE + 1];
};

static inline mode_t blob_mode(enum blob_kind kind)
{
	return kind == BLOB_EXEC ? 0555 : 0444;
}

static inline uint64_t blob_allocated(const struct stat *st)
{
	return (uint64_t)st->st_blocks * 512;
}

void blob_print_name(const uint8_t hash[DIGEST_HASH_SIZE], struct blob_name *name);

/* Is this inode as it was published, but for its size: type, mode, owner, time? */
bool blob_is_published(const struct blob_store *store, enum blob_kind kind, const struct stat *st);

/* blob_stat() by name, with the inode's stat. */
int blob_look(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
	      const struct blob_name *name, struct stat *st, struct err *err);

/* A name in tmp/ that nobody else has. */
enum { BLOB_TEMPORARY_SIZE = 16 + 1 + 16 + 1 };
void blob_print_temporary(struct blob_store *store, char name[BLOB_TEMPORARY_SIZE]);

#endif
