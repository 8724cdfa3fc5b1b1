/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Blob store: immutable files named by their content.
 *
 *     STORE/blobs/ab/abcdef...   plain        mode 0444
 *     STORE/exec/ab/abcdef...    executable   mode 0555, an inode of its own
 *     STORE/tmp/                 files that need a name before they may have theirs; 0700
 *
 * A name appears only once its bytes are complete and match it: a blob is written into an unnamed file
 * (O_TMPFILE), given its one modification time, and then linked in. From then on nobody writes it, changes
 * its mode or its times; an inode that has to go makes way for a fresh one by rename(2). So whatever can be
 * opened is whole, readers need no lock, and two writers of one blob are harmless: the second finds the name
 * taken.
 *
 * The modification time is one fixed value with odd nanoseconds. Before an inode is used, its size, mode,
 * owner and time are compared with what was published, so a change made through one of its many names is
 * seen before it spreads. What cannot be seen (a forged time) is in docs/SECURITY.md.
 *
 * No executable inode is ever published while a descriptor is open for writing on it: exec(2) would fail with
 * ETXTBSY.
 *
 * Who stores asks for room first (space.h), and claims a blob before it looks whether it is there (claims.h).
 * A writer keeps both until it is settled, on the loop, when catalog and holds say what came of it.
 *
 * Nothing here keeps state but descriptors of folders: every function may be called from any thread, and all
 * that are not marked otherwise block on disk, so they are for workers.
 */
#ifndef DIRCACHE_DAEMON_BLOB_H
#define DIRCACHE_DAEMON_BLOB_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <time.h>

#include "common/auto.h"
#include "common/digest.h"
#include "common/err.h"
#include "daemon/claims.h"
#include "daemon/space.h"

enum blob_kind { BLOB_PLAIN = 0, BLOB_EXEC = 1 };
enum { BLOB_KINDS = 2 };

/* Outcomes; each function names those it has. */
enum {
	BLOB_MISSING = 1,       /* no file of that name */
	BLOB_CHANGED = 2,       /* there is one, but it is not what was published */
	BLOB_LINKS_USED_UP = 3, /* the file system takes no further link to this inode (EMLINK) */
	BLOB_EXISTS = 4,        /* it was there already, unchanged */
	BLOB_UNLINKABLE =
		5, /* these two places cannot share an inode (EXDEV, EPERM, EOPNOTSUPP): *why says which */
	BLOB_NO_ROOM = 6, /* the space is taken or the disk is full: blob_writer_need() says for how much */
};

struct blob_store;

/**
 * Open the store in a folder, making what is missing: blobs/ and exec/ (0711; their fan-out folders come with
 * the first blob in each), tmp/.
 *
 * @store_fd  borrowed for good: a descriptor of STORE
 *
 * Finds out which modification time the file system keeps to the nanosecond. Return: a store, or NULL with
 * err.
 */
struct blob_store *blob_store_open(int store_fd, struct err *err);
void blob_store_close(struct blob_store *store);

/* There are descriptors enough: keep up to 512, one of each fan-out folder, so that to link has a folder less
 * to go through. Before any other thread has the store. */
void blob_store_keep_folders(struct blob_store *store);

static inline void blob_store_free(struct blob_store *store)
{
	blob_store_close(store);
}
DEFINE_AUTO(blob_store);

/* Is this the name of a folder in STORE that holds blobs of one kind, in fan-out folders? Does not block. */
bool blob_is_kind_folder(const char *name);

/* Before anything is stored: ask this space for room, and claim blobs here; both borrowed. Without, the store
 * has no limits, and nothing is evicted from it. */
void blob_store_guard(struct blob_store *store, struct space *space, struct claims *claims);

/* Remove what earlier runs left in tmp/. What this one is writing stays: at any time. Return: 0, or a
 * negative errno. */
int blob_store_clean(struct blob_store *store, struct err *err);

/* What a row of the index vouches for: an inode of each kind, or 0. */
struct blob_voucher {
	uint8_t hash[DIGEST_HASH_SIZE];
	uint64_t inodes[BLOB_KINDS];
};

/* Inodes that are on the disk for good. 48 bytes a blob, and only while in doubt. */
struct blob_vouchers {
	struct blob_voucher *items; /* in any order */
	size_t n, capacity;
};

/**
 * Doubt files that look as they were published, since the machine may have crashed before their bytes reached
 * the disk. Until it ends blob_stat(), blob_open(), blob_renew() and all that stores hash what is there,
 * unless it is an inode that is vouched for; blob_link() does not: a kind that is linked was obtained by one
 * of those before.
 *
 * @vouchers  taken over; go with the doubt
 */
void blob_store_doubt(struct blob_store *store, struct blob_vouchers *vouchers);
void blob_store_end_doubt(struct blob_store *store); /* any thread, as the rest */
bool blob_store_in_doubt(const struct blob_store *store);

/* Has no blob a name here? Return: 1 or 0, or a negative errno with err. */
int blob_store_is_empty(struct blob_store *store, struct err *err);

/* The modification time of everything published, and of files made afresh in trees. Does not block. */
/* Does this look like a published inode of the store, of whatever size? Blocks on nothing. */
bool blob_looks_published(const struct blob_store *store, const struct stat *st);

struct timespec blob_mtime(const struct blob_store *store);

/* What is known of a blob's inode. */
struct blob_info {
	struct digest digest;
	uint64_t allocated; /* bytes on disk: st_blocks * 512 */
	uint64_t inode; /* blob_inode(), where it is new or was in doubt; 0: its row has nothing to learn */
};

/*
 * Which inode a file is: its number and the time of its birth in one number, to be compared for equality. An
 * inode that takes its name later has another one, also where it gets the same number.
 *
 * Return: never 0, but where the file system does not keep times of birth (ext4 with inodes of 128 bytes,
 * some network file systems): there no inode is told from another, and after a crash of the machine the whole
 * store is hashed. Does not block.
 */
uint64_t blob_inode(const struct statx *st);

/**
 * Look whether a kind of a blob is there and unchanged. A digest of another size than the file's is
 * BLOB_CHANGED.
 *
 * @info  out, may be NULL
 *
 * Return: 0, BLOB_MISSING, BLOB_CHANGED, or a negative errno.
 */
int blob_stat(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
	      struct blob_info *info, struct err *err);

/**
 * Link a blob's inode into a folder, after the same look. The hot path: one fstatat and one linkat.
 *
 * @dirfd  borrowed: where the new name appears; O_PATH will do
 * @why    out, with BLOB_UNLINKABLE: the errno
 *
 * Return: 0, BLOB_MISSING, BLOB_CHANGED, BLOB_LINKS_USED_UP, BLOB_UNLINKABLE, or a negative errno
 * (-EEXIST: the name is taken).
 */
int blob_link(struct blob_store *store, const struct digest *digest, enum blob_kind kind, int dirfd,
	      const char *name, int *why, struct err *err);

/**
 * Open a blob for reading, in whichever kind is there unchanged.
 *
 * @fd  out: close-on-exec, the caller's
 *
 * Return: 0, BLOB_MISSING, BLOB_CHANGED (in the only kind there), or a negative errno.
 */
int blob_open(struct blob_store *store, const struct digest *digest, int *fd, struct err *err);

/**
 * Read a small blob whole, such as a Directory, and compare it with its digest.
 *
 * @max    larger is refused with -EFBIG
 * @bytes  out: the caller's, free()
 *
 * Return: 0, BLOB_MISSING, BLOB_CHANGED, or a negative errno.
 */
int blob_read(struct blob_store *store, const struct digest *digest, size_t max, uint8_t **bytes,
	      struct err *err);

/* What storing needs from one call to the next: a buffer, and what it has claimed. One thread at a time. */
struct blob_writer;

struct blob_writer *blob_writer_new(struct blob_store *store);
void blob_writer_free(struct blob_writer *writer); /* settles it, too */
DEFINE_AUTO(blob_writer);

/* Give up the claims and the room of all that it stored or found since the last time. Does not block. */
void blob_writer_settle(struct blob_writer *writer);

/* What it stores from now on, until it is settled, may take spare room only: space_reserve_spare(). */
void blob_writer_take_spare(struct blob_writer *writer);

/* What the last BLOB_NO_ROOM was about. */
struct space_need blob_writer_need(const struct blob_writer *writer);

/**
 * Store bytes that are in memory.
 *
 * @info  out: digest and allocated bytes; the empty blob is BLOB_EXISTS: it is never stored
 *
 * Return: 0 (written), BLOB_EXISTS, BLOB_NO_ROOM, or a negative errno. *changed, if not NULL, says whether a
 * file had that name that was changed since it was published: the new one has then taken its place.
 */
int blob_write(struct blob_writer *writer, const void *bytes, size_t len, enum blob_kind kind,
	       struct blob_info *info, bool *changed, struct err *err);

/**
 * Store what a descriptor holds, from its beginning (pread(2): its offset stays), in bounded memory.
 *
 * @fd          borrowed: a regular file, open for reading
 * @likely_known  the store has a large blob of this size: hash first and write only if it is new after all,
 * rather than do both at once (so that known data costs the hash, and new data is read once)
 *
 * The file's size, modification and change times are compared before and after; a file that changed meanwhile
 * is read again, up to three times, and then refused with -EAGAIN (ERR_FAILED_PRECONDITION).
 * One that changed so lately that a write(2) may still be under way is read twice, and both must agree.
 *
 * Return: as blob_write().
 */
int blob_write_file(struct blob_writer *writer, int fd, bool likely_known, enum blob_kind kind,
		    struct blob_info *info, bool *changed, struct err *err);

/* Files from this size on are worth the question behind likely_known. */
enum { BLOB_LARGE = 256 * 1024 };

/**
 * Make one kind of a blob from any inode of it that still has the right bytes: from its other kind, or from
 * its own where the links are used up (a fresh inode then takes the name) or where only mode or time were
 * changed. The bytes are checked against the digest on the way. What was changed and is not right is taken
 * out of the store.
 *
 * Return: 0 (made), BLOB_EXISTS (it was there, unchanged, with links left), BLOB_MISSING (nothing here has
 * these bytes), BLOB_NO_ROOM, or a negative errno. @n_changed, out, counts inodes that were taken out because
 * they had changed.
 */
int blob_renew(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
	       bool links_used_up, struct blob_info *info, unsigned *n_changed, struct err *err);

/* What came to light on the way: for the counters. */
struct blob_repairs {
	unsigned n_changed; /* inodes taken out because they had changed */
	unsigned n_healed;  /* blobs that are good again */
};

/**
 * Read a small blob whole, as blob_read(), but where its inodes were changed renew it first, from bytes that
 * are still right.
 *
 * @repairs  added to
 *
 * Return: as blob_read(); -ENOSPC when there is no room for that.
 */
int blob_read_renewed(struct blob_store *store, const struct digest *digest, size_t max, uint8_t **bytes,
		      struct blob_repairs *repairs, struct err *err);

/* How a private file is to be made, and was. */
struct blob_copy {
	mode_t mode;             /* whatever the umask */
	bool reflink;            /* share the bytes on disk, if that can be */
	const atomic_bool *stop; /* looked at as bytes are copied: end with -ECANCELED; may be NULL */
	int why_not; /* out: the errno for which they are not shared, though they were to be; else 0 */
};

/**
 * Make a private file with a blob's bytes in a folder: by reflink, or by copying them. It has blob_mtime().
 * Its name is there before its bytes are, so the folder should be one that nobody looks into yet.
 *
 * Return: 0, BLOB_MISSING, BLOB_CHANGED, or a negative errno (-EEXIST: the name is taken). Nothing is left
 * behind on failure.
 */
int blob_copy(struct blob_store *store, const struct digest *digest, int dirfd, const char *name,
	      struct blob_copy *copy, struct err *err);

/* Take a kind out of the store. Links elsewhere stay. Return: 0, BLOB_MISSING, or a negative errno. */
int blob_discard(struct blob_store *store, const struct digest *digest, enum blob_kind kind, struct err *err);

/**
 * Hash the inode that has a blob's name, whatever it looks like. Wrong bytes, and those that the disk does
 * not give back, are taken out of the store; right ones in an inode that was changed get a fresh one.
 *
 * @digest     its size is not looked at
 * @info       out, with the size that is right
 * @n_changed  out: inodes that were taken out
 *
 * Return: 0 (right, in a fresh inode), BLOB_EXISTS (right), BLOB_MISSING (there is none, or it was wrong), or
 * a negative errno.
 */
int blob_settle(struct blob_writer *writer, const struct digest *digest, enum blob_kind kind,
		struct blob_info *info, unsigned *n_changed, struct err *err);

/* What blob_scan() finds. */
struct blob_found {
	struct blob_info info;
	bool is_changed; /* it is not as it was published, whatever its size */
	bool is_vouched; /* while the store is in doubt: this inode is on the disk for good */
};

/**
 * Would taking a kind out of the store free its disk: does its inode have no links elsewhere?
 *
 * @allocated  out: what it takes
 */
bool blob_has_no_other_link(struct blob_store *store, const struct digest *digest, enum blob_kind kind,
			    uint64_t *allocated);

/**
 * Call back for every name in one fan-out folder (0 to 255) of one kind, that is a whole digest hash.
 *
 * Return: 0, or a negative errno.
 */
int blob_scan(struct blob_store *store, enum blob_kind kind, unsigned fanout,
	      void (*found)(void *ctx, const struct blob_found *found), void *ctx, struct err *err);

#endif
