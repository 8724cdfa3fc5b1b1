/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Catalog: which blobs are in the store, in memory. One entry of 72 bytes and a slot in a map for each.
 *
 * The loop owns it. At start the index's lane fills it before anybody else knows of it. The catalog says what
 * was there when last looked; the disk has the last word, and linking looks at the inode itself.
 *
 * A *hold* keeps a blob from eviction. Holds are counted by hash, whether or not the blob is there, so that
 * taking and releasing always balance: an entry may be nothing but a count. Such entries are seen by nobody:
 * not found, not visited, not in the totals.
 */
#ifndef DIRCACHE_DAEMON_CATALOG_H
#define DIRCACHE_DAEMON_CATALOG_H

#include <stdbool.h>
#include <stdint.h>

#include "common/auto.h"
#include "daemon/blob.h"
#include "daemon/index.h"
#include "daemon/map.h"

struct catalog;

struct catalog_entry {
	struct digest digest;
	uint64_t row, used;             /* as in struct index_blob */
	uint32_t allocated[BLOB_KINDS]; /* 512-byte blocks on disk, by kind */
	uint32_t holds; /* read only, as is the rest but `used`; sticks at UINT32_MAX: held for good */
	uint8_t kinds;  /* bit 1 << enum blob_kind for each that is there */
	uint8_t seen;   /* the same, for those whose file was seen since the start, and believed: recover.h */
	uint8_t stored; /* the same, for those noted by catalog_add() since catalog_look() */
};

struct catalog *catalog_new(void);
void catalog_free(struct catalog *catalog);
DEFINE_AUTO(catalog);

/* The entry of a blob that is there, or NULL. Sizes are not compared. Lives until the last kind is dropped.
 */
struct catalog_entry *catalog_find(const struct catalog *catalog, const struct digest *digest);

/*
 * While the store is in doubt, what was loaded is believed only once its file was seen to be the inode that
 * its row speaks for, or hashed: then catalog_kinds() has it. Until then the entry is there: it counts, may
 * be evicted, and is obtained by whoever needs it.
 */
void catalog_doubt(struct catalog *catalog, bool doubt);

/* Which kinds need no look: those that are there, and while in doubt only those seen. */
uint8_t catalog_kinds(const struct catalog *catalog, const struct catalog_entry *entry);

/* Note that the file of a kind is as the catalog has it, and the one that its row speaks for. Return: is it?
 */
bool catalog_confirm(struct catalog *catalog, const struct blob_info *info, enum blob_kind kind);

/* Is this kind there, with this size? */
bool catalog_has(const struct catalog *catalog, const struct digest *digest, enum blob_kind kind);

/* Is there a blob of this digest, in whatever kind? The empty one always is. */
bool catalog_names(const struct catalog *catalog, const struct digest *digest);

/* Forget all blobs, before anybody holds one; make room for so many. */
void catalog_begin(struct catalog *catalog, uint64_t n_blobs);

/**
 * Take in what the index had, before anybody holds it.
 *
 * Return: 0, or the row with the same hash that came before: it counts no more, and is to be dropped.
 */
uint64_t catalog_load(struct catalog *catalog, const struct index_blob *blob);

/* A hint that this one is to be taken in, after a dozen others: map_expect(). */
void catalog_expect(const struct catalog *catalog, const struct digest *digest);

/* A row that the index has: those given from now on are others. */
void catalog_row_seen(struct catalog *catalog, uint64_t row);

/* Take in a blob that was dropped and is there all the same, as it was, with what was @seen of it; others may
 * hold it by now. Its kinds that are noted meanwhile stay as they are. Return: the entry. */
struct catalog_entry *catalog_put_back(struct catalog *catalog, const struct index_blob *blob, uint8_t seen);

/**
 * Note that a kind of a blob is in the store, and its use now.
 *
 * Return: the entry; *is_new, if not NULL, says whether the kind was not known.
 */
struct catalog_entry *catalog_add(struct catalog *catalog, const struct blob_info *info, enum blob_kind kind,
				  bool *is_new);

/* From now on is it of interest whether the kind is noted once more. One looks at a time. */
void catalog_look(struct catalog_entry *entry, enum blob_kind kind);

/* Was it noted since then? */
bool catalog_was_stored(const struct catalog_entry *entry, enum blob_kind kind);

/* Note that a kind is gone; the entry goes with its last kind (the return is NULL then). */
struct catalog_entry *catalog_drop(struct catalog *catalog, struct catalog_entry *entry, enum blob_kind kind);

/**
 * Note that all kinds are gone that are there with another size than this one, which was hashed.
 *
 * Return: 0, or the row of what was there, which is to be dropped.
 */
uint64_t catalog_drop_other_size(struct catalog *catalog, const struct digest *digest);

/* Keep a blob from eviction, there or not. The empty blob needs no hold: it is passed over, here and below.
 */
void catalog_hold(struct catalog *catalog, const struct digest *digest);

/**
 * Give a hold back.
 *
 * @used  when what held it was last used: the blob was used then, too
 */
void catalog_release(struct catalog *catalog, const struct digest *digest, uint64_t used);

/* Be told of every blob that is there and loses its last hold. One watcher. It may not drop the entry. */
void catalog_watch(struct catalog *catalog, void (*unheld)(void *ctx, const struct catalog_entry *entry),
		   void *ctx);

/* Note that bytes are leaving: dropped here, still on the disk. Negative when they are gone. */
void catalog_leaving(struct catalog *catalog, int64_t bytes);

/*
 * Files of 64 KiB or more that were written lately: what they take on disk may not be settled yet (usage.h).
 * The last FRESH_MAX of them.
 */
struct catalog_fresh {
	struct digest digest;
	enum blob_kind kind;
	uint64_t allocated; /* bytes */
	uint64_t since_ns;  /* slice_now_ns() */
};
enum { CATALOG_FRESH_MIN = 64 * 1024, CATALOG_FRESH_MAX = 8192 };

/* Take them all, for the caller to free(). Return: how many. */
size_t catalog_take_fresh(struct catalog *catalog, struct catalog_fresh **fresh);

/* Put one back, to be taken again. */
void catalog_keep_fresh(struct catalog *catalog, const struct catalog_fresh *fresh);

/* Note what a kind takes now. Return: its entry if that is another number than before, else NULL. */
struct catalog_entry *catalog_correct(struct catalog *catalog, const struct catalog_fresh *fresh);

/* Bytes that its files take on disk. */
uint64_t catalog_allocated(const struct catalog_entry *entry);

/* The row that the index should have. It goes on to speak for the inodes that it names already. */
struct index_blob catalog_row(const struct catalog_entry *entry);

/* The same, of a blob of which one kind is @info's inode now. */
struct index_blob catalog_row_of(const struct catalog_entry *entry, const struct blob_info *info,
				 enum blob_kind kind);

/* A time of use: microseconds since 1970, later than all that were given or loaded, whatever the clock does.
 */
uint64_t catalog_tick(struct catalog *catalog);

/* A time of use that was loaded from elsewhere (a tree's): later ones are later than it. */
void catalog_tick_seen(struct catalog *catalog, uint64_t used);

struct catalog_totals {
	uint64_t n_blobs, bytes, allocated;
	uint64_t leaving; /* bytes on disk of files dropped here and not deleted yet */
};
struct catalog_totals catalog_totals(const struct catalog *catalog);

/**
 * May the store hold a large blob (BLOB_LARGE or more) of this size? Any thread: a hint, right when it says
 * no but for what was stored this instant.
 */
bool catalog_may_have_size(const struct catalog *catalog, uint64_t size);

/* Visit all blobs, in steps: map.h. */
bool catalog_walk_is_over(const struct catalog *catalog, const struct map_walk *walk);
struct catalog_entry *catalog_walk_step(const struct catalog *catalog, struct map_walk *walk); /* or NULL */

/* The same by position, 0 to catalog_end(): less to do; but where others come or go meanwhile some are
 * missed. */
size_t catalog_end(const struct catalog *catalog);
struct catalog_entry *catalog_at(const struct catalog *catalog, size_t position); /* or NULL */

#endif
