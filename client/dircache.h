/* SPDX-License-Identifier: Apache-2.0 */
/*
 * libdircache: a client of dircached, the cache of blobs and directory trees of this machine.
 *
 *     struct dircache_error error;
 *     struct dircache *dc;
 *
 *     if (dircache_open(NULL, 0, &dc, &error) != DIRCACHE_OK)
 *             errx(1, "%s", error.message);
 *     if (dircache_materialize(dc, digest, "/build/inputs", NULL, NULL, &error) != DIRCACHE_OK)
 *             errx(1, "%s", error.message);
 *     dircache_close(dc);
 *
 * Compile with `pkg-config --cflags --libs dircache`.
 *
 * A handle is one connection. Calls block until the daemon answers. Different handles may be used by
 * different threads at once; one handle by one thread at a time. After a call that returned
 * DIRCACHE_UNAVAILABLE the connection may be lost: close the handle and open another.
 *
 * Digests are text, `hash/size`: the SHA-256 as 64 lower-case hexadecimal digits, a slash, the size in bytes.
 * Where a function takes `what`, that is a digest, or else the name of a tag.
 *
 * Names, paths and symlink targets are bytes that end in NUL; they need not be UTF-8.
 *
 * Every function that can fail returns DIRCACHE_OK (0) or the code that it also puts into *error, where
 * error is not NULL. Pointers inside results belong to the handle and stay valid until the next call on it.
 * No function writes to standard output or error, changes the working directory or installs a signal
 * handler. Memory that runs out ends the process.
 */
#ifndef DIRCACHE_H
#define DIRCACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dircache; /* a connection */

enum {
	DIRCACHE_DIGEST_SIZE = 85, /* bytes that hold any digest and its NUL */
	DIRCACHE_MESSAGE_SIZE = 1024,
	DIRCACHE_MISSING_MAX = 100, /* digests that an error names at most */
};

/* ---- errors ---- */

enum dircache_code {
	DIRCACHE_OK = 0,
	DIRCACHE_INTERNAL,            /* anything else, with the reason of the operating system */
	DIRCACHE_NOT_FOUND,           /* a digest, tag or path in a tree is not there */
	DIRCACHE_INVALID_ARGUMENT,    /* the call is wrong, or an object that it names is */
	DIRCACHE_PERMISSION_DENIED,   /* the operating system or the daemon does not allow it */
	DIRCACHE_NO_SPACE,            /* the disk or the cache's limit is full */
	DIRCACHE_FAILED_PRECONDITION, /* not in this state: the target exists, a file changed meanwhile */
	DIRCACHE_UNAVAILABLE,         /* not now: the daemon stops, or went away */
	DIRCACHE_RESOURCE_EXHAUSTED,  /* a limit: descriptors, requests, tree size */
	DIRCACHE_CANCELLED,
	DIRCACHE_NO_DAEMON, /* dircache_open(): nobody listens, and none could be started */
};

/* A plain value: nothing to free. Written only by calls that fail. */
struct dircache_error {
	enum dircache_code code;
	char message[DIRCACHE_MESSAGE_SIZE]; /* for people: what was done, to what, why it failed */
	size_t n_missing;                    /* absent blobs, up to DIRCACHE_MISSING_MAX of them */
	char missing[DIRCACHE_MISSING_MAX][DIRCACHE_DIGEST_SIZE];
};

/* The protocol's word for a code: "not_found". A constant. */
const char *dircache_code_text(enum dircache_code code);

/* ---- the connection ---- */

enum {
	DIRCACHE_NO_START = 1 << 0, /* do not start a daemon where none listens */
};

/**
 * Connect to the daemon.
 *
 * @socket  the path of its socket; NULL: $DIRCACHE_SOCKET, else the default one of this user
 * @flags   DIRCACHE_NO_START, or 0
 * @dc      out: owned by the caller, dircache_close()
 *
 * Where nobody listens at the default socket (neither `socket` nor $DIRCACHE_SOCKET is given), a daemon is
 * started and waited for, up to 30 seconds; of several clients at once, one starts it. It inherits no
 * descriptor, is no child of this process, and logs to $XDG_STATE_HOME/dircache/log (~/.local/state). The
 * program is $DIRCACHE_DAEMON, else `dircached` in the folder of the running program, else the installed one.
 */
enum dircache_code dircache_open(const char *socket, unsigned flags, struct dircache **dc,
				 struct dircache_error *error);

/* Close the connection and free the handle; NULL is fine. */
void dircache_close(struct dircache *dc);

/**
 * The daemon's answer to the last call, as it came, as one line of JSON: for printing, for logs, and for
 * keys that this header does not know. Bytes that are no UTF-8 are escaped as Python's surrogateescape does:
 * the byte 0xNN as \udcNN.
 *
 * Return: text that the caller free()s, or NULL when the last call had no answer.
 */
char *dircache_answer_json(const struct dircache *dc);

struct dircache_ping {
	const char *version; /* of the daemon */
	uint64_t protocol;   /* 1 */
	bool ready;          /* the index is read; other calls wait until then */
	uint64_t pid, uid;   /* of the daemon */
	const char *const *features;
	size_t n_features;
};

/**
 * Ask whether the daemon is there.
 *
 * @wait_ms  milliseconds to wait until it is ready; 0: do not
 * @ping     out, may be NULL
 *
 * Fails with DIRCACHE_UNAVAILABLE when it was not ready in time.
 */
enum dircache_code dircache_ping(struct dircache *dc, unsigned wait_ms, struct dircache_ping *ping,
				 struct dircache_error *error);

/* Let the daemon end cleanly. Returns when it has agreed, not when it is gone. */
enum dircache_code dircache_stop(struct dircache *dc, struct dircache_error *error);

/* ---- storing and materializing ---- */

/* Totals are 0 where they are not known. */
struct dircache_progress {
	uint64_t files, files_total;
	uint64_t bytes, bytes_total;
};

/* Called during a call, on its thread, with the data of its options; must not use the handle. */
typedef void (*dircache_progress_fn)(void *data, const struct dircache_progress *progress);

struct dircache_put_options { /* zero: the default of each */
	const char *tag;      /* a name for what is stored, which pins it; moves a tag of that name */
	dircache_progress_fn progress;
	void *data; /* for progress */
};

struct dircache_put {
	char digest[DIRCACHE_DIGEST_SIZE];     /* the blob's, or the root Directory's */
	bool tree;                             /* false for a single file */
	uint64_t files, directories, symlinks; /* in the tree; the root counts as a directory */
	uint64_t bytes;                        /* sum of the files' sizes */
	uint64_t new_blobs, new_bytes;         /* what had to be written */
};

/**
 * Store a file, or a directory as a tree.
 *
 * @path     a symlink here is followed; symlinks inside the directory are stored as they are
 * @options  may be NULL
 * @put      out, may be NULL
 *
 * A file is executable in the tree when its owner may execute it. Sockets, devices and FIFOs are refused.
 * Holds at most some 200 descriptors open at once, whatever the tree.
 */
enum dircache_code dircache_put_path(struct dircache *dc, const char *path,
				     const struct dircache_put_options *options, struct dircache_put *put,
				     struct dircache_error *error);

/* How files come to be. Where it cannot be so they come to be in the next way, and the result says why. */
enum dircache_mode {
	DIRCACHE_LINK = 0, /* hard links to the inodes of the cache */
	DIRCACHE_REFLINK,  /* inodes of their own, which share the bytes on disk */
	DIRCACHE_COPY,     /* inodes and bytes of their own */
};

/* The protocol's word for a mode: "reflink"; NULL for what is none. A constant. */
const char *dircache_mode_text(enum dircache_mode mode);

struct dircache_materialize_options { /* zero: the default of each */
	bool file;                    /* the digest is a blob, and the target a file */
	bool executable;              /* with file: mode 0555 rather than 0444 */
	enum dircache_mode mode;
	bool writable;     /* no links: private files, 0644 or 0755, reflinks but with DIRCACHE_COPY */
	bool require_link; /* fail rather than copy where hard links cannot work; with DIRCACHE_LINK only */
	unsigned lease_seconds; /* do not evict the tree for so long: at most 604800, a week; */
	bool lease_connection;  /* or not before the handle is closed. Not with file */
	dircache_progress_fn progress;
	void *data; /* for progress */
};

struct dircache_materialized {
	char digest[DIRCACHE_DIGEST_SIZE];
	char cache[8];                                /* "hit", "miss", "join"; "" for a file */
	uint64_t files, directories, symlinks, bytes; /* the root counts as a directory */
	uint64_t files_linked, files_copied, files_reflinked, files_created;
	const char *fallback;     /* NULL, or why files came to be in another way than asked */
	uint64_t fallback_copies; /* how many did */
};

/**
 * Put a tree (or a file) at a path.
 *
 * @what     digest or tag
 * @target   its folder must exist; the target itself not, or be an empty directory
 * @options  may be NULL
 * @done     out, may be NULL
 *
 * The target appears at once and whole, or not at all. Files are hard links into the store unless the mode is
 * another: read-only, and to be replaced rather than changed.
 */
enum dircache_code dircache_materialize(struct dircache *dc, const char *what, const char *target,
					const struct dircache_materialize_options *options,
					struct dircache_materialized *done, struct dircache_error *error);

/* Take a materialized tree away. Its name is gone on return; its files are deleted in the background. */
enum dircache_code dircache_remove(struct dircache *dc, const char *target, struct dircache_error *error);

/* ---- looking ---- */

/**
 * Write a blob's bytes to a descriptor, from its current offset on.
 *
 * @fd  borrowed; a file, pipe, socket or terminal. Writing to a closed pipe raises SIGPIPE, unless ignored.
 */
enum dircache_code dircache_cat(struct dircache *dc, const char *digest, int fd,
				struct dircache_error *error);

enum dircache_type { DIRCACHE_FILE = 1, DIRCACHE_DIRECTORY, DIRCACHE_SYMLINK };

struct dircache_entry {
	const char *name;
	enum dircache_type type;
	unsigned mode;      /* permissions, as it would be materialized */
	uint64_t size;      /* bytes: of the file, the Directory message, the symlink's target */
	const char *digest; /* NULL for a symlink */
	const char *target; /* symlink, else NULL */
};

struct dircache_page {
	char digest[DIRCACHE_DIGEST_SIZE]; /* of the Directory, or of the file that the path names */
	bool directory;                    /* false: the path names a file or symlink, the one entry */
	const struct dircache_entry *entries;
	size_t n_entries;
	bool more; /* ask again, with the offset raised by n_entries */
};

/**
 * List a directory of a tree, a page of up to 4096 entries at a time: files, directories, symlinks, each
 * ascending by bytes.
 *
 * @what    digest or tag of a tree
 * @path    in the tree, separated by `/`; NULL: its root. Symlinks are not followed
 * @offset  entries to skip
 */
enum dircache_code dircache_ls(struct dircache *dc, const char *what, const char *path, uint64_t offset,
			       struct dircache_page *page, struct dircache_error *error);

struct dircache_digests {
	const char *const *items;
	size_t n;
};

/**
 * Ask which blobs are absent.
 *
 * @tree     look also at everything below each digest, which then is a tree's
 * @missing  out: those of `digests` that are absent, and with `tree` up to 100 below each 4096 of them
 */
enum dircache_code dircache_has(struct dircache *dc, const struct dircache_digests *digests, bool tree,
				struct dircache_digests *missing, struct dircache_error *error);

/* ---- tags, counters, trees ---- */

/**
 * Name and pin a tree or blob; moves a tag of that name.
 *
 * @name  1 to 255 of `A-Z a-z 0-9 . _ - /`, beginning with a letter or digit
 */
enum dircache_code dircache_tag(struct dircache *dc, const char *name, const char *digest,
				struct dircache_error *error);
enum dircache_code dircache_untag(struct dircache *dc, const char *name, struct dircache_error *error);

struct dircache_tag_entry {
	const char *name, *digest;
};

struct dircache_tags {
	const struct dircache_tag_entry *items; /* ascending by name */
	size_t n;
};

enum dircache_code dircache_tags(struct dircache *dc, struct dircache_tags *tags,
				 struct dircache_error *error);

struct dircache_counter {
	const char *name;
	uint64_t value;
};

struct dircache_stats {
	const struct dircache_counter *items;
	size_t n;
};

/* The daemon's counters; events count from its start. */
enum dircache_code dircache_stats(struct dircache *dc, struct dircache_stats *stats,
				  struct dircache_error *error);

struct dircache_tree {
	const char *digest;
	uint64_t files, directories, symlinks, bytes;
	uint64_t hits;      /* of its lifetime */
	uint64_t last_used; /* microseconds since 1970 */
	bool sized;         /* the next two are known */
	uint64_t allocated; /* bytes of disk of all that it needs, each file of the store once */
	uint64_t unique;    /* of those, what no other tree needs: what evicting it alone would free */
};

struct dircache_trees {
	const struct dircache_tree *items; /* the last used first */
	size_t n;
	bool more; /* ask again, with the offset raised by n */
};

/**
 * List the cached trees, a page of up to 4096 at a time; with sizes, which take a look into each, up to 256.
 */
enum dircache_code dircache_trees(struct dircache *dc, uint64_t offset, bool sizes,
				  struct dircache_trees *trees, struct dircache_error *error);

/* ---- eviction ---- */

struct dircache_gc_options { /* zero: the default of each */
	bool has_to;
	uint64_t to;  /* with has_to: bytes of disk that the store may take afterwards */
	bool dry_run; /* change nothing, and say what would go */
	dircache_progress_fn progress;
	void *data; /* for progress */
};

struct dircache_evicted {
	const char *digest;
	uint64_t bytes;     /* of disk, of the files that only this tree needed */
	uint64_t last_used; /* microseconds since 1970 */
};

struct dircache_gc {
	const struct dircache_evicted *trees; /* in the order they went, the least recently used first */
	size_t n_trees;                       /* of those that are named: up to 10,000 */
	uint64_t evicted_trees, evicted_blobs;
	uint64_t evicted_bytes;    /* of disk */
	uint64_t allocated_before; /* what the store took */
};

/**
 * Evict now, the least recently used first: down to options->to; without it, to the low mark (90 %) of the
 * daemon's --max-size; where it has none, only blobs that no cached tree needs. What is in use, leased or
 * tagged stays. For the daemon's user and root.
 *
 * @options  may be NULL
 * @gc       out, may be NULL
 */
enum dircache_code dircache_gc(struct dircache *dc, const struct dircache_gc_options *options,
			       struct dircache_gc *gc, struct dircache_error *error);

/* ---- what is wrong in the store ---- */

struct dircache_verify_options { /* zero: the default of each */
	bool repair;             /* put right what is wrong */
	uint64_t rate;           /* bytes a second that may be read; 0: no limit */
	dircache_progress_fn progress;
	void *data; /* for progress */
};

struct dircache_fault {
	const char *kind;   /* a word of the protocol (docs/PROTOCOL.md): `bytes`, `no_file`, `tree`, ... */
	const char *digest; /* of the blob or tree, or what a tag names; may be NULL */
	const char *name;   /* the path below the store's folder, or the tag; may be NULL */
	const char *expected, *found; /* for people */
	bool repaired;
	const char *repair; /* what was done, or why nothing could be; NULL without options->repair */
};

struct dircache_verify {
	const struct dircache_fault *faults;
	size_t n_faults; /* of those that are named: up to 1,000 */
	uint64_t faults_total, repaired_total;
	uint64_t files, bytes; /* files of the store that were hashed */
	uint64_t links;        /* that lead to them from elsewhere, in trees that were materialized */
	uint64_t trees, tags;  /* that were looked at */
};

/**
 * Compare the store with what it should be: every file is hashed again; files, index, cached trees and tags
 * are compared with each other. The daemon serves meanwhile. For the daemon's user and root; one at a time.
 *
 * @options  may be NULL
 * @verify   out, may be NULL
 *
 * Faults are no failure of the call.
 */
enum dircache_code dircache_verify(struct dircache *dc, const struct dircache_verify_options *options,
				   struct dircache_verify *verify, struct dircache_error *error);

#ifdef __cplusplus
}
#endif

#endif
