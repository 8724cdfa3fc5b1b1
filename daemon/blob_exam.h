/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Exams: the files of the store as they are, whatever they are, for `verify` (verify.h). Other functions of
 * blob.h stop at the first difference; these say what it is. Nothing is changed.
 *
 * A file is hashed in steps, so that a worker can let others go first, in the buffer of a writer, and by a
 * hasher that goes with the exam from one worker to the next. Workers only.
 */
#ifndef DIRCACHE_DAEMON_BLOB_EXAM_H
#define DIRCACHE_DAEMON_BLOB_EXAM_H

#include "common/hash.h"
#include "daemon/blob.h"

/* What is wrong with an inode; of several the worst, which is the first. */
enum blob_flaw {
	BLOB_FINE,
	BLOB_IS_NO_FILE,
	BLOB_IS_UNREADABLE, /* exam->why says why */
	BLOB_HAS_OTHER_BYTES,
	BLOB_HAS_OTHER_MODE,
	BLOB_HAS_OTHER_OWNER,
	BLOB_HAS_OTHER_TIME,
};

struct blob_exam {
	/* In. */
	struct blob_writer *writer; /* borrowed until the end: its buffer, its claims */
	struct hasher *hasher;      /* the same */
	struct digest digest;       /* its size is not looked at */
	enum blob_kind kind;

	/* Out. */
	enum blob_flaw flaw;
	int why;             /* an errno */
	struct digest found; /* of the bytes that were read; its size is theirs */
	struct stat st;

	/* Private. */
	int fd;
};

/**
 * Open and look.
 *
 * @claim  claim the blob first, so that it is not evicted until the writer is settled
 *
 * Return: 0, and blob_exam_end() is due; BLOB_MISSING; or a negative errno.
 */
int blob_exam_begin(struct blob_exam *exam, bool claim, struct err *err);

/* Hash on, for at most one buffer (256 KiB). Return: is more left? If not, the out-part is filled. */
bool blob_exam_step(struct blob_exam *exam);

/* Close it; also in the middle. */
void blob_exam_end(struct blob_exam *exam);

/* The user that all of the store belongs to, and the modes of published files. */
uid_t blob_owner(const struct blob_store *store);
mode_t blob_kind_mode(enum blob_kind kind);

const char *blob_kind_name(enum blob_kind kind); /* of its folder in STORE */

/* The path of a blob's file below STORE. */
enum { BLOB_PATH_SIZE = sizeof("blobs/ab/") + DIGEST_HEX_SIZE };
void blob_print_path(const struct digest *digest, enum blob_kind kind, char path[BLOB_PATH_SIZE]);

/* A name in the folder of a kind. */
struct blob_name_found {
	const char *name;      /* borrowed */
	const uint8_t *hash;   /* in a fan-out folder: of which blob it is the name; NULL: of none */
	bool is_fanout;        /* in the kind's own folder: is it the name of a fan-out folder? */
	const struct stat *st; /* in the kind's own folder */
};

/* For blob_list(): the folder of the kind itself. */
enum { BLOB_KIND_FOLDER = 256 };

/**
 * Call back for every name in one fan-out folder (0 to 255) of a kind, or in the folder of the kind itself.
 * A fan-out folder that is not there, or is none, has no names.
 *
 * Return: 0, or a negative errno.
 */
int blob_list(struct blob_store *store, enum blob_kind kind, unsigned folder,
	      void (*found)(void *ctx, const struct blob_name_found *found), void *ctx, struct err *err);

/* The mode of folders of blobs. */
enum { BLOB_FOLDER_MODE = 0711 };

/* Give a fan-out folder its mode again. Return: 0, or a negative errno. */
int blob_mend_folder(struct blob_store *store, enum blob_kind kind, const char *name);

/**
 * Call back for every name in tmp/ that an earlier run left. Return: 0, or a negative errno.
 */
int blob_list_litter(struct blob_store *store, void (*found)(void *ctx, const char *name), void *ctx,
		     struct err *err);

#endif
