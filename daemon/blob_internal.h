/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What blob.c (look, link, read), blob_write.c, blob_draft.c and blob_renew.c share, and nobody else
 * includes.
 */
#ifndef DIRCACHE_DAEMON_BLOB_INTERNAL_H
#define DIRCACHE_DAEMON_BLOB_INTERNAL_H

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "daemon/blob.h"

enum { BLOB_FOLDERS = 256 }; /* of each kind: one for each first byte of a hash */

struct blob_store {
	int store_fd;             /* borrowed */
	int kind_fds[BLOB_KINDS]; /* blobs/, exec/ */
	bool keeps_folders;       /* the following are opened as they are met; -1 before */
	atomic_int folders[BLOB_KINDS][BLOB_FOLDERS];
	int tmp_fd;            /* tmp/: files that need a name before they may have theirs */
	uid_t uid;             /* that owns everything published */
	struct timespec mtime; /* of everything published */
	uint64_t block_size;   /* in which files take room */
	struct space *space;   /* borrowed, or NULL: no limits */
	struct claims *claims; /* borrowed, or NULL: nothing is evicted */
	uint64_t run;          /* in the names in tmp/: those of another run are litter */
	atomic_uint_least64_t n_temporary;
	atomic_bool no_tmpfile; /* the file system has no O_TMPFILE */
	atomic_bool no_reflink; /* ... and no FICLONE */
	atomic_bool in_doubt;   /* blob_store_doubt() */
	struct blob_doubt *doubt;
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

/* ---- places ---- */

/*
 * A place is where a blob is or would be: a fan-out folder, and the name in it. Whatever is done to a blob by
 * name is done there, so that no symlink in the place of the folder is followed, and the kernel has a folder
 * less to go through. The folder is a descriptor that the store keeps, or was opened for this place.
 *
 * Somebody may put another folder in the place of a kept one (a backup of it, say). So who is told ENOENT
 * asks whether that is so, and tries again:
 *
 *     if ((r = blob_place_find(&place, store, digest, kind)) == 0)
 *             do
 *                     r = disk_unlinkat(place.dirfd, place.name, 0);
 *             while (r == -ENOENT && blob_place_changed(&place));
 */
struct blob_place {
	int dirfd;        /* of the fan-out folder; -1: there is none */
	const char *name; /* in it */

	/* Private. */
	struct blob_store *store;
	enum blob_kind kind;
	atomic_int *kept;
	int opened;            /* what is to be closed, or -1 */
	struct blob_name path; /* below the kind's folder */
};

#define AUTO_BLOB_PLACE CLEANUP(blob_place_close)

/* Return: 0; -ENOENT or -ENOTDIR, for which see blob_is_nowhere(); or another negative errno. To be closed in
 * any case. A place is not copied. */
int blob_place_find(struct blob_place *place, struct blob_store *store, const struct digest *digest,
		    enum blob_kind kind);
void blob_place_close(struct blob_place *place);

/* Is its folder another one by now, or there at last? Then that is the place's from here on. */
bool blob_place_changed(struct blob_place *place);

/* Does this tell that there is no blob: neither the name, nor a folder for it, but perhaps a symlink? */
static inline bool blob_is_nowhere(int r)
{
	return r == -ENOENT || r == -ENOTDIR;
}

/* Make the folder of a place that has none, or a deleted one. Return: 0, or a negative errno (-ENOTDIR: what
 * has its name is none). */
int blob_place_make(struct blob_place *place);

/* ---- looks ---- */

/* Is this inode as it was published, but for its size: type, mode, owner, time? */
bool blob_is_published(const struct blob_store *store, enum blob_kind kind, const struct stat *st);

/* blob_stat() by name, with the inode's stat. Does not fail on what is there: BLOB_CHANGED. */
int blob_look(struct blob_store *store, const struct digest *digest, enum blob_kind kind, struct stat *st,
	      struct err *err);

/* blob_look(), and while the store is in doubt blob_check_bytes() as well. */
int blob_check(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
	       struct blob_info *info, struct err *err);

/* Open what has a blob's name to read it, whatever that is: -ELOOP, -ENXIO if it is no file. Return: a
 * descriptor, or a negative errno. */
int blob_open_name(struct blob_store *store, const struct digest *digest, enum blob_kind kind);

/* Look at what has a blob's name. Return: 0, or a negative errno. */
int blob_stat_name(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
		   struct stat *st);

/**
 * While the store is in doubt, hash what an open blob holds, unless its inode is vouched for.
 *
 * @inode  out: as in struct blob_info
 *
 * Return: 0, BLOB_CHANGED, or a negative errno.
 */
int blob_check_bytes(struct blob_store *store, int fd, const struct digest *digest, enum blob_kind kind,
		     uint64_t *inode, struct err *err);

/* While the store is in doubt: is this inode of a blob vouched for? */
bool blob_is_vouched(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
		     uint64_t inode);

/* Which inode a descriptor stands for. Return: 0, or a negative errno. */
int blob_find_inode(int fd, uint64_t *inode);

/* What the store knows while it is in doubt. */
struct blob_doubt *blob_doubt_new(void);
void blob_doubt_free(struct blob_doubt *doubt); /* NULL is fine */

/* Make a folder if it is missing. Return: 0, or a negative errno. */
int blob_make_folder(int dirfd, const char *name, mode_t mode);

/* The name of a kind's folder in STORE. */
const char *blob_kind_folder(enum blob_kind kind);

/* A name in tmp/ that nobody else has. */
enum { BLOB_TEMPORARY_SIZE = 16 + 1 + 16 + 1 };
void blob_print_temporary(struct blob_store *store, char name[BLOB_TEMPORARY_SIZE]);

/* ---- writers ---- */

enum { BLOB_BUFFER_SIZE = 256 * 1024 }; /* stays in the processor's cache while it is read, hashed, written */

struct blob_writer {
	struct blob_store *store; /* borrowed */
	uint8_t *buffer;

	/* Until it is settled. */
	struct digest *claimed;
	size_t n_claimed, claimed_capacity;
	uint64_t reserved;
	bool spare_only;
	struct space_need need;
};

/* From here on this blob is not evicted, until the writer is settled. Before its name is looked at. */
void blob_claim(struct blob_writer *writer, const struct digest *digest);

/* A call that stored has ended so: a full disk is BLOB_NO_ROOM, and has no words. Return: the outcome. */
int blob_end_storing(struct blob_writer *writer, int r, struct err *err);

/* Where there is nobody to make room. Return: -ENOSPC, with words. */
int blob_refuse(const struct blob_writer *writer, struct err *err);

/* ---- drafts ---- */

/*
 * A draft is a file on its way into the store. It has no name, or where the file system has no O_TMPFILE one
 * in tmp/. It is filled through its descriptor and published; closing it takes away what was not, and gives
 * its room back.
 */
struct blob_draft {
	struct blob_writer *writer;
	enum blob_kind kind;
	uint64_t reserved;
	int fd;        /* -1 at first */
	bool has_name; /* in tmp/ */
	char name[BLOB_TEMPORARY_SIZE];
};

#define AUTO_BLOB_DRAFT CLEANUP(blob_draft_close)

/* Make its file, for so many bytes; writer and kind are set. Return: 0, BLOB_NO_ROOM, or a negative errno. */
int blob_draft_open(struct blob_draft *draft, uint64_t size, struct err *err);
void blob_draft_close(struct blob_draft *draft);

/**
 * Publish a draft whose bytes have this digest.
 *
 * @replace  whatever has the name, even if it is good
 * @info     out
 * @changed  out, stays as it is but for true: what had the name was changed, and has made way
 *
 * Return: 0, BLOB_EXISTS (and the draft is not needed), or a negative errno.
 */
int blob_draft_publish(struct blob_draft *draft, const struct digest *digest, bool replace,
		       struct blob_info *info, bool *changed, struct err *err);

/* ---- streaming ---- */

/* What is being read is not what it was when reading began. */
enum { BLOB_SOURCE_CHANGED = 16 };

/**
 * Hash a file of so many bytes from its beginning, writing them to another on the way.
 *
 * @to_fd   -1: only hash
 * @digest  out: of the bytes read and written
 *
 * Return: 0, BLOB_SOURCE_CHANGED (it has more or fewer), or a negative errno.
 */
int blob_stream(struct blob_writer *writer, int from_fd, int to_fd, uint64_t size, struct digest *digest,
		struct err *err);

#endif
