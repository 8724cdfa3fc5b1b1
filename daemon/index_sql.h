/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What index_db.c (opening, setting aside), index_load.c (reading) and index_commit.c (writing) share: the
 * database's handle, and SQLite's codes as errnos.
 *
 * -EUCLEAN is a damaged database: SQLite says so, or what it gives cannot have been written by us.
 */
#ifndef DIRCACHE_DAEMON_INDEX_SQL_H
#define DIRCACHE_DAEMON_INDEX_SQL_H

#include <sqlite3.h>

#include "daemon/index_internal.h"

enum { BOOT_ID_SIZE = 37 }; /* a UUID, terminated */

struct index_db {
	char *folder;
	int folder_fd;
	sqlite3 *handle; /* NULL: there is none to be had */
	sqlite3_stmt *changes[INDEX_OPS];
	char boot[BOOT_ID_SIZE]; /* of the machine, this time; "" where nobody knows */
	int wal_pages;           /* after the last commit */
	bool is_partial;         /* made anew while the daemon ran: it lacks what was committed before */
};

/* A statement, finalized at the end of its scope. */
#define AUTO_STATEMENT CLEANUP(index_finalize)

static inline void index_finalize(sqlite3_stmt **statement)
{
	(void)sqlite3_finalize(*statement);
}

/* SQLite's code as a negative errno, its words behind what was being done ("reading"). */
int index_fail(struct index_db *db, int code, const char *what, struct err *err);

int index_execute(struct index_db *db, const char *sql, const char *what, struct err *err);
int index_prepare(struct index_db *db, const char *sql, sqlite3_stmt **statement, struct err *err);

/* Prepare the statement of each change. */
int index_prepare_changes(struct index_db *db, struct err *err);

#endif
