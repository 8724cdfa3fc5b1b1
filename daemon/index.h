/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Index: what the cache knows, kept in SQLite (STORE/index.sqlite, WAL). The one door to SQLite.
 *
 * The loop owns the truth while the daemon runs (catalog, trees, tags); the index is what a restart reads.
 * Changes are collected in batches. One lane (a pool of one worker) commits all batches that wait as one
 * transaction, while the next ones gather: a group commit that no one waits for longer than two commits.
 * A batch is whole or absent after a crash. Batches are committed in the order submitted.
 *
 * WAL with synchronous=NORMAL: a killed process loses nothing that was committed; a crashed machine may lose
 * the last transactions, never the order of them.
 *
 * Loop only, but for what is said to run on the lane.
 */
#ifndef DIRCACHE_DAEMON_INDEX_H
#define DIRCACHE_DAEMON_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/digest.h"
#include "common/err.h"

struct event_base;
struct index;
struct index_batch;

/*
 * Of the store: PRAGMA user_version. A newer one is refused, untouched; an older one is brought up to this.
 * Version 2: rows name their inodes. Those of version 1 name none until they are written anew.
 */
enum { INDEX_VERSION = 2 };

#define INDEX_ROW_MAX (UINT64_MAX / 4)

struct index_blob {
	/*
	 * Which row it is, 1 to INDEX_ROW_MAX: given when the blob comes into the store, ascending, and never
	 * again. So what came together lies together, and a transaction of new blobs is a few pages at the
	 * table's end; keyed by hash, each of them would be a page of its own.
	 */
	uint64_t row;
	struct digest digest;
	uint64_t allocated[2]; /* bytes on disk, by enum blob_kind; 0 where that kind is absent and for empty
				  files */
	uint8_t kinds;         /* bit 1 << enum blob_kind for each that is there */
	uint64_t used;         /* last use: microseconds since 1970, strictly ascending between uses */
	uint64_t inodes[2];    /* by enum blob_kind: which inode the row speaks for, as blob_inode() has it;
				  0: not known, and in a change: the one that the row names already */
};

struct index_tree {
	struct digest digest;
	uint64_t n_files, n_directories, n_symlinks, bytes;
	uint64_t used, hits;
};

struct index_tag {
	const char *name; /* terminated */
	struct digest digest;
	uint32_t uid; /* its owner */
};

enum { INDEX_ASIDE_SIZE = sizeof("index.sqlite.damaged-9") };

struct index_loaded {
	/*
	 * The last stop was clean: rows and files agree, and all of both is on the disk for good. Else the
	 * two have to be brought together; index_batch_settled() tells when that is done.
	 */
	bool was_clean;
	bool is_new; /* rows and files were never brought together: a new store, or its index was lost */
	/*
	 * The machine was started again since, or nobody knows: what was used at or after @synced may have
	 * its name, size and times on the disk without its bytes. So may a file that is not the inode that
	 * its row names, whenever that was used: it took the name later, and the crash took its row.
	 */
	bool is_doubtful;
	uint64_t synced;
	uint64_t n_blobs; /* about: for making room */

	/* The index was damaged (these words), and is @aside now, in the same folder; this one is new. */
	struct err damage;
	char aside[INDEX_ASIDE_SIZE];
};

/*
 * Where index_load() puts what it reads; called on the lane. Values are borrowed for the call. Those that
 * return false say that the row makes no sense: then the index is damaged.
 */
struct index_sink {
	/* Before the first row. Comes once more when what was read is void: to be forgotten. */
	void (*begin)(void *ctx, const struct index_loaded *loaded);
	/*
	 * Ascending by row. A hash may come twice where the daemon was killed between putting its new row and
	 * dropping the old one: what comes last is right.
	 */
	bool (*blob)(void *ctx, const struct index_blob *blob);
	bool (*tree)(void *ctx, const struct index_tree *tree); /* ascending by hash */
	bool (*tag)(void *ctx, const struct index_tag *tag);    /* in no order */
	void (*end)(void *ctx);                                 /* after the last row */
	void *ctx;
};

/**
 * Look whether the index in a store is of a newer version or another program's, before anything there is
 * changed.
 *
 * What only its WAL has yet is seen by index_load(). Blocks on disk.
 *
 * Return: 0, or -EPROTO with err.
 */
int index_check_version(int store_fd, struct err *err);

/**
 * Make the index; opens nothing yet.
 *
 * @folder  STORE's path, borrowed for good: index.sqlite is in it
 *
 * Return: an index, or NULL with errno set when the lane's thread cannot be made.
 */
struct index *index_new(struct event_base *base, const char *folder);

/**
 * Open (or create) the database on the lane, read all of it into the sink, then call done on the loop.
 * The store is marked as not cleanly stopped before the first value is read. A damaged index is set aside,
 * as index.sqlite.damaged-N with its WAL, and a new one takes its place.
 *
 * done gets r < 0 with err: -EPROTO for a store of a newer version or another program's, or what SQLite or
 * the disk said.
 */
void index_load(struct index *index, const struct index_sink *sink,
		void (*done)(void *ctx, int r, const struct index_loaded *loaded, const struct err *err),
		void *ctx);

/* A batch of changes; gather, then submit (which takes it over) or free. */
struct index_batch *index_batch_new(void);
void index_batch_free(struct index_batch *batch);

/* Insert or replace. Values are copied. */
void index_batch_put_blob(struct index_batch *batch, const struct index_blob *blob);
void index_batch_drop_blob(struct index_batch *batch, uint64_t row);
void index_batch_put_tree(struct index_batch *batch, const struct index_tree *tree);
void index_batch_drop_tree(struct index_batch *batch, const struct digest *digest);
void index_batch_put_tag(struct index_batch *batch, const struct index_tag *tag);
void index_batch_drop_tag(struct index_batch *batch, const char *name);
/* Only times of use and hits of rows that are there; a row that is gone stays gone. */
void index_batch_touch_blob(struct index_batch *batch, uint64_t row, uint64_t used);
void index_batch_touch_tree(struct index_batch *batch, const struct digest *digest, uint64_t used,
			    uint64_t hits);

/* What was used before this time is on the disk for good. */
void index_batch_synced(struct index_batch *batch, uint64_t synced);
/* Rows and files agree, and what was doubtful was compared with its digest. */
void index_batch_settled(struct index_batch *batch);

size_t index_batch_size(const struct index_batch *batch); /* changes in it */

/**
 * Commit a batch, with others that wait.
 *
 * @done  on the loop, after the commit, or with r < 0 and err when it could not be made (then nothing of this
 *        batch is in the index). NULL: nobody hears of a failure, and the changes are tried again before
 * those of the next batch, which fails with them
 */
void index_submit(struct index *index, struct index_batch *batch,
		  void (*done)(void *ctx, int r, const struct err *err), void *ctx);

/**
 * Put a blob's row soon: with others, when there are about as many as a transaction takes, and before
 * whatever else is submitted. So changes of one row come in the order in which they were made, whoever made
 * them; a failure is nobody's but a barrier's.
 */
void index_gather_blob(struct index *index, const struct index_blob *blob);
void index_submit_gathered(struct index *index); /* now */

/**
 * Note that a blob that has its row was used. Goes to the index with others, 250 ms later, and with no more
 * than the lane takes without a delay for others: of thousands in that time the last are not written.
 */
void index_use_blob(struct index *index, uint64_t row, uint64_t used);

/* How many batches could not be committed so far: a mark for index_barrier(). */
uint64_t index_mark(const struct index *index);

/**
 * Wait until all that was submitted before is in the index.
 *
 * @mark  from index_mark(), taken before the first batch that matters
 * @done  on the loop; r < 0 with err when a batch failed since the mark
 */
void index_barrier(struct index *index, uint64_t mark, void (*done)(void *ctx, int r, const struct err *err),
		   void *ctx);

enum index_table { INDEX_BLOBS, INDEX_TREES, INDEX_TAGS, INDEX_TABLES };

/* A row of a table. Its key: blob.row (and of that blob), tree.digest.hash, tag.name. */
struct index_row {
	bool is_there;
	union {
		struct index_blob blob;
		struct index_tree tree;
		struct index_tag tag; /* its name is the page's */
	};
};

enum { INDEX_PAGE_MAX = 128 };

/* Some rows as they lie in the database, while it is in use. */
struct index_page {
	enum index_table table;
	size_t n;
	struct index_row rows[INDEX_PAGE_MAX];
};

/* Add a row, where there is room; the name of a tag is copied. */
void index_page_add(struct index_page *page, const struct index_row *row);
void index_page_clear(struct index_page *page); /* no rows any more */

enum { INDEX_IS_PARTIAL = 1 };

/**
 * Read rows, between two commits. What was submitted and not committed is not in them: index_barrier().
 *
 * @page     borrowed until done; its rows: where there could be some
 * @onwards  instead of those rows the next ones behind the first of them (or, where there is none, from the
 *           beginning); none at the end
 * @done     on the loop, with r: 0; INDEX_IS_PARTIAL: this index is a new one, made while the daemon ran,
 *           that lacks what the one before had; or negative with err: -EUCLEAN where the index is damaged
 */
void index_read(struct index *index, struct index_page *page, bool onwards,
		void (*done)(void *ctx, int r, const struct err *err), void *ctx);

/* What index_check() found. */
struct index_checked {
	struct err damage;            /* set: the index is damaged, in these words */
	char aside[INDEX_ASIDE_SIZE]; /* and it is here now, if that was asked */
};

/**
 * Have SQLite check the index as it lies on the disk. Commits wait meanwhile: 71 MB (a million blobs) take
 * some tenths of a second.
 *
 * @known    damage that was met already, by index_read(): nothing else is looked for; or NULL
 * @replace  a damaged one is set aside, and a new one takes what comes; the next start finds the rest in the
 *           store
 * @done     on the loop; r < 0 with err when it could not be checked, or not be replaced
 */
void index_check(struct index *index, const struct err *known, bool replace,
		 void (*done)(void *ctx, int r, const struct index_checked *checked, const struct err *err),
		 void *ctx);

/* Batches submitted and not yet answered. */
size_t index_n_pending(const struct index *index);

/* Transactions committed so far: at most one a batch, and far fewer when batches come faster than the disk.
 */
uint64_t index_n_commits(const struct index *index);

/* Changes submitted so far, and how many of them were puts of blobs. */
uint64_t index_n_changes(const struct index *index);
uint64_t index_n_puts(const struct index *index);

/**
 * Close: commits what waits (the loop must not run any more), marks the stop as clean if asked and if nothing
 * was lost, checkpoints the WAL, ends the lane. NULL is fine.
 */
void index_free(struct index *index, bool clean);

#endif
