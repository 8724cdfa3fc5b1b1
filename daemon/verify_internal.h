/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of verify, shared by the files verify*.c.
 *
 *     verify.c          phases, waiting, the list of faults
 *     verify_look.c     rows and files: looking, and looking again
 *     verify_words.c    what a fault says
 *     verify_mend.c     what repair does to a blob's file
 *     verify_trees.c    cached trees
 *     verify_names.c    folders, strange names, litter
 *     verify_tags.c     tags and their file, the index's pages
 *     verify_rows.c     the index's rows
 *
 * A verify does one thing at a time: a job, a flight, a commit, a timer. When that has ended, verify_go_on()
 * has the slice look for the next.
 */
#ifndef DIRCACHE_DAEMON_VERIFY_INTERNAL_H
#define DIRCACHE_DAEMON_VERIFY_INTERNAL_H

#include "daemon/blob_exam.h"
#include "daemon/map.h"
#include "daemon/verify.h"

/* What a phase's next() says. */
enum verify_next {
	VERIFY_MORE, /* call again */
	VERIFY_BUSY, /* something was begun that calls verify_go_on() */
	VERIFY_OVER, /* the phase is */
};

enum {
	VERIFY_TURN_FILES = 64, /* looked at in one job */
	VERIFY_TURN_ROWS = 256,
	VERIFY_STEP = 64, /* entries looked at on the loop between two looks at the clock */
};

/* A kind of a blob that is perhaps not as it should be. */
struct verify_suspect {
	struct digest digest; /* its size is not known */
	enum blob_kind kind;
};

struct verify_suspects {
	struct verify_suspect *items;
	size_t n, capacity;
};

/* A name that should not be there, or a folder that is not as it should be. */
struct verify_name {
	enum verify_kind kind;
	char *path; /* below STORE */
	char *expected, *found;
};

struct verify_look {
	/* Names of one fan-out folder, or rows of the catalog; at `next`. */
	struct verify_suspect *items;
	size_t n, capacity, next;
	unsigned folder;       /* kind * 256 + fan-out: the next to be listed */
	struct map_walk blobs; /* of the catalog */

	/* The job's. */
	struct blob_exam exam; /* of the item that is being hashed */
	bool in_exam;
	bool again;       /* a second look: claimed */
	uint64_t n_bytes; /* read in this turn, */
	uint64_t most;    /* and no more than so many */
	size_t n_seen;
	struct {
		int r;
		struct blob_exam exam; /* without a descriptor */
	} seen[VERIFY_TURN_FILES];
	bool missing[VERIFY_TURN_ROWS];

	/* For the rate. */
	uint64_t may_read_ns;
};

struct verify_walk;
struct verify_rows;

struct verify {
	struct cache *cache;
	struct verify_call *call;
	struct pool_queue *queue;
	struct slice slice;
	struct event *timer;
	unsigned phase;
	bool cancelled;
	bool is_waiting; /* for the timer */

	/* The job. */
	struct job job;
	void (*work)(struct verify *verify); /* on a worker */
	void (*then)(struct verify *verify); /* on the loop */
	struct blob_writer *writer;
	struct hasher *hasher; /* made by the first job that needs it */
	int r;
	struct err err;

	struct verify_look look;
	struct verify_suspects suspects; /* to be looked at again */
	struct verify_suspects later;    /* the same, but somebody is at them */
	struct verify_suspects kept;     /* the items of `look`, while one is looked at again */
	size_t kept_next;

	/* What is being mended: the fault, and the file. */
	struct verify_fault fault;
	struct verify_suspect patient;
	struct flight_waiter flight;
	bool in_flight;
	unsigned n_changed, n_tries;

	struct verify_name *names; /* found, and not reported yet, from next_name on */
	size_t n_names, names_capacity, next_name;
	bool listed; /* the names of this phase were looked for */

	struct verify_walk *walk; /* of trees */
	struct tags_view *tags;   /* all of them, since the phase of tags */
	size_t next_tag;
	bool compared;            /* the file of tags, or the index with what SQLite expects */
	struct verify_rows *rows; /* of the index */
	struct err damage;        /* of the index, met when its rows were read */
};

/* ---- verify.c ---- */

void verify_go_on(struct verify *verify);
void verify_go_on_after(struct verify *verify, uint64_t ns);

/* Run work() on a worker, and then() on the loop. */
void verify_submit(struct verify *verify, void (*work)(struct verify *verify),
		   void (*then)(struct verify *verify));

/* Begin a fault: its words; taken over. digest: may be NULL. */
void verify_fault_set(struct verify *verify, enum verify_kind kind, const struct digest *digest, char *name,
		      char *expected, char *found);

/* The fault that was begun is listed; done or why not: NULL when nothing was to be done. Then verify_go_on().
 */
void verify_fault_end(struct verify *verify, bool repaired, const char *repair);

/* Something went wrong that is no fault of the store's: the verify cannot go on. Return: r < 0. */
bool verify_failed(struct verify *verify, int r);

/* ---- verify_look.c ---- */

enum verify_next verify_rows_next(struct verify *verify);
enum verify_next verify_files_next(struct verify *verify);

/* Look at a suspect again. Return: was something begun? */
bool verify_look_again(struct verify *verify);

/* ---- verify_words.c ---- */

/* What was expected of a file, and was found: for the caller to free(). entry: of the catalog, or NULL. */
void verify_describe(const struct verify *verify, enum verify_kind kind, const struct catalog_entry *entry,
		     const struct blob_exam *exam, char *words[2]);
const char *verify_type_text(mode_t mode);
char *verify_mode_text(mode_t mode);
char *verify_owner_text(uid_t uid);

/* ---- verify_mend.c ---- */

/* Mend the fault that was set, of verify->patient; the writer still claims it. */
void verify_mend(struct verify *verify, const struct blob_exam *exam);

/* Catalog and index are told what a file takes. */
void verify_note_allocated(struct verify *verify, const struct blob_exam *exam);

/* ---- verify_names.c ---- */

enum verify_next verify_folders_next(struct verify *verify);
enum verify_next verify_litter_next(struct verify *verify);

/* Note a name; on a worker, too. Texts are taken over. */
void verify_name_add(struct verify *verify, enum verify_kind kind, char *path, char *expected, char *found);

/* Report a name that was noted. Return: was there one? */
bool verify_report_name(struct verify *verify);

void verify_names_free(struct verify *verify);

/* ---- verify_rows.c ---- */

enum verify_next verify_index_rows_next(struct verify *verify);
void verify_rows_free(struct verify *verify);

/* ---- verify_trees.c, verify_tags.c ---- */

enum verify_next verify_trees_next(struct verify *verify);
void verify_walk_free(struct verify *verify);
enum verify_next verify_tags_next(struct verify *verify);
enum verify_next verify_index_next(struct verify *verify);

#endif
