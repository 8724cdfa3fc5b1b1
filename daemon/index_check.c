/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index_sql.h"

#include <errno.h>
#include <string.h>

/* The first line of what SQLite finds wrong with the pages, keys and constraints; "ok" if nothing is. */
static int read_verdict(struct index_db *db, struct err *err)
{
	AUTO_STATEMENT sqlite3_stmt *statement = NULL;
	const char *verdict;
	int code, r;

	if ((r = index_prepare(db, "PRAGMA quick_check(1)", &statement, err)) < 0)
		return r;
	code = sqlite3_step(statement);
	if (code != SQLITE_ROW)
		return index_fail(db, code, "checking", err);
	verdict = (const char *)sqlite3_column_text(statement, 0);
	if (verdict && strcmp(verdict, "ok") == 0)
		return 0;
	(void)err_set(err, err_code_of_errno(EUCLEAN), "checking the index: it is damaged: %s",
		      verdict ? verdict : "no words");
	return -EUCLEAN;
}

int index_db_check(struct index_db *db, struct err *err)
{
	if (!db || !db->handle)
		return err_set(err, ERR_INTERNAL, "checking the index: it is not open");
	(void)sqlite3_db_release_memory(db->handle); /* what is on the disk is to be read, not what was */
	return read_verdict(db, err);
}

int index_db_set_aside(struct index_db *db, char aside[INDEX_ASIDE_SIZE], struct err *err)
{
	struct index_loaded loaded = { 0 };
	int r = index_db_replace(db, &loaded, err);

	db->is_partial = true;
	memcpy(aside, loaded.aside, INDEX_ASIDE_SIZE);
	return r;
}
