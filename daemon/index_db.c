/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/index_sql.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/alloc.h"
#include "daemon/disk.h"
#include "daemon/reserve.h"

enum {
	APPLICATION_ID = 0x64697263, /* "dirc", for file(1) */
	ASIDE_MAX = 9,               /* damaged indexes that are kept; the last of them makes way */
	FORMAT_MAX = 2,              /* of the file, at 18 and 19: 1 without, 2 with a WAL */
	BLOBS_A_PAGE = 60,           /* rows in 4 KiB, when there is little else in the database */
};

/*
 * Blobs are keyed by a number that ascends as they come (index.h), and nothing looks for them here by their
 * hash. The other tables are keyed by hash or name and hold nothing else (WITHOUT ROWID).
 *
 * In meta are: `clean`, was the last stop clean; `boot`, the boot of the machine since which files and rows
 * were last brought together: there is none as long as that was never done; `synced`, what was used before
 * that time is on the disk for good.
 */
static const char schema[] =
	"CREATE TABLE meta (key TEXT PRIMARY KEY, value NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE blobs ("
	"	row INTEGER PRIMARY KEY,"
	"	hash BLOB NOT NULL CHECK (length(hash) = 32),"
	"	size INTEGER NOT NULL CHECK (size >= 0),"
	"	kinds INTEGER NOT NULL CHECK (kinds BETWEEN 1 AND 3)," /* 1: plain, 2: executable */
	"	plain_allocated INTEGER NOT NULL,"
	"	exec_allocated INTEGER NOT NULL,"
	"	used INTEGER NOT NULL,"
	"	plain_inode INTEGER NOT NULL DEFAULT 0,"
	"	exec_inode INTEGER NOT NULL DEFAULT 0"
	");"
	"CREATE TABLE trees ("
	"	hash BLOB PRIMARY KEY CHECK (length(hash) = 32),"
	"	size INTEGER NOT NULL CHECK (size >= 0),"
	"	files INTEGER NOT NULL,"
	"	directories INTEGER NOT NULL,"
	"	symlinks INTEGER NOT NULL,"
	"	bytes INTEGER NOT NULL,"
	"	used INTEGER NOT NULL,"
	"	hits INTEGER NOT NULL"
	") WITHOUT ROWID;"
	"CREATE TABLE tags ("
	"	name TEXT PRIMARY KEY,"
	"	hash BLOB NOT NULL CHECK (length(hash) = 32),"
	"	size INTEGER NOT NULL CHECK (size >= 0),"
	"	uid INTEGER NOT NULL"
	") WITHOUT ROWID;"
	"INSERT INTO meta VALUES ('clean', 0);";

/* What version 1 lacks. */
static const char upgrade_sql[] = "ALTER TABLE blobs ADD COLUMN plain_inode INTEGER NOT NULL DEFAULT 0;"
				  "ALTER TABLE blobs ADD COLUMN exec_inode INTEGER NOT NULL DEFAULT 0;";

/* ---- what SQLite says ---- */

/* What a system call on the WAL said: SQLite keeps the failure of a commit's fdatasync(2) there alone. */
static int errno_of_wal(sqlite3 *handle)
{
	sqlite3_file *wal = NULL;
	int last = 0;

	(void)sqlite3_file_control(handle, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal);
	if (wal && wal->pMethods)
		(void)wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &last);
	return last;
}

/* What a system call said, for which SQLite has words like "disk I/O error"; 0 where it did not keep that. */
static int errno_of_system(sqlite3 *handle)
{
	static const int passed_on[] = { EIO, ENOSPC, EDQUOT, EACCES, EROFS, EMFILE, ENFILE, ENOMEM };
	int said[] = { sqlite3_system_errno(handle), errno_of_wal(handle) };

	for (size_t i = 0; i < N_ELEMENTS(said); i++)
		for (size_t k = 0; k < N_ELEMENTS(passed_on); k++)
			if (said[i] == passed_on[k])
				return -said[i];
	return 0;
}

static int errno_of(sqlite3 *handle, int code)
{
	int r;

	switch (code & 0xff) {
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_ERROR: /* our SQL is right, so the schema is not, or the header's format */
		return -EUCLEAN;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_IOERR:
	case SQLITE_CANTOPEN:
		r = errno_of_system(handle);
		return r < 0 ? r : -EIO;
	case SQLITE_NOMEM:
		return -ENOMEM;
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return -EBUSY;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_CONSTRAINT:
		return -EINVAL;
	default:
		return -EIO;
	}
}

int index_fail(struct index_db *db, int code, const char *what, struct err *err)
{
	int r = errno_of(db->handle, code);
	int primary = code & 0xff;
	bool of_system = primary == SQLITE_IOERR || primary == SQLITE_CANTOPEN;

	if (primary == SQLITE_FULL || (of_system && errno_of_system(db->handle) < 0))
		return err_errno(err, r, "%s the index: %s", what, sqlite3_errmsg(db->handle));
	(void)err_set(err, err_code_of_errno(-r), "%s the index: %s%s", what,
		      r == -EUCLEAN ? "it is damaged: " : "", sqlite3_errmsg(db->handle));
	return r;
}

int index_execute(struct index_db *db, const char *sql, const char *what, struct err *err)
{
	int code = sqlite3_exec(db->handle, sql, NULL, NULL, NULL);

	return code == SQLITE_OK ? 0 : index_fail(db, code, what, err);
}

int index_prepare(struct index_db *db, const char *sql, sqlite3_stmt **statement, struct err *err)
{
	int code = sqlite3_prepare_v3(db->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, statement, NULL);

	return code == SQLITE_OK ? 0 : index_fail(db, code, "preparing", err);
}

/* The first row that a query gives goes to take(). Return: 1, 0 when there is none, or a negative errno. */
static int query(struct index_db *db, const char *sql, void (*take)(sqlite3_stmt *row, void *out), void *out,
		 struct err *err)
{
	AUTO_STATEMENT sqlite3_stmt *statement = NULL;
	int code, r;

	if ((r = index_prepare(db, sql, &statement, err)) < 0)
		return r;
	code = sqlite3_step(statement);
	if (code == SQLITE_ROW)
		take(statement, out);
	return code == SQLITE_ROW ? 1 : code == SQLITE_DONE ? 0 : index_fail(db, code, "reading", err);
}

static void take_number(sqlite3_stmt *row, void *out)
{
	*(int64_t *)out = sqlite3_column_int64(row, 0);
}

/* The one number that a query gives; *value stays where it gives none. */
static int query_number(struct index_db *db, const char *sql, int64_t *value, struct err *err)
{
	int r = query(db, sql, take_number, value, err);

	return r < 0 ? r : 0;
}

/* ---- opening ---- */

static int refuse_version(int64_t version, struct err *err)
{
	(void)err_set(err, ERR_FAILED_PRECONDITION,
		      "the store has version %lld, of a newer dircached; this one knows %d",
		      (long long)version, INDEX_VERSION);
	return -EPROTO;
}

static int refuse_application(struct err *err)
{
	(void)err_set(err, ERR_FAILED_PRECONDITION, "opening the index: another program's database");
	return -EPROTO;
}

static uint32_t big_endian(const uint8_t *v)
{
	return (uint32_t)v[0] << 24 | (uint32_t)v[1] << 16 | (uint32_t)v[2] << 8 | v[3];
}

/*
 * Look at the header of the file (SQLite's file format, 1.3): the version is in four bytes at 60, the program
 * at 68. SQLite itself would leave a WAL beside a store that we must not touch.
 */
static int check_header(int fd, struct err *err)
{
	uint8_t header[100] = { 0 }; /* what a shorter file lacks is zeros to SQLite */
	ssize_t n = disk_pread(fd, header, sizeof(header), 0);
	uint32_t version, application;

	if (n < 0)
		return err_errno(err, (int)n, "reading the index");
	if (memcmp(header, "SQLite format 3", 16) != 0)
		return 0; /* new, or SQLite will say what it thinks of it */
	version = big_endian(&header[60]);
	application = big_endian(&header[68]);
	if (application != 0 && application != APPLICATION_ID)
		return refuse_application(err);
	if (version > INDEX_VERSION)
		return refuse_version(version, err);
	if (header[18] <= FORMAT_MAX && header[19] <= FORMAT_MAX)
		return 0;
	/* SQLite would read it, and call it read-only. */
	return err_errno(err, -EUCLEAN, "opening the index");
}

int index_check_version(int store_fd, struct err *err)
{
	AUTO_CLOSE int fd = disk_openat(store_fd, "index.sqlite", O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
	struct err words = { 0 };

	if (fd < 0 || check_header(fd, &words) != -EPROTO)
		return 0; /* whatever else is wrong with it comes to light when it is opened */
	if (err)
		*err = words;
	return -EPROTO;
}

/* Make the file, private whatever the umask. */
static int prepare_file(const char *path, struct err *err)
{
	AUTO_CLOSE int fd = disk_openat(AT_FDCWD, path, O_RDWR | O_CREAT | O_NOFOLLOW, 0600);

	return fd < 0 ? err_errno(err, fd, "opening the index '%s'", path) : check_header(fd, err);
}

/* As long as the version is not known nothing may be written, not even what a WAL holds into the database. */
static void allow_checkpoint_on_close(struct index_db *db, bool allow)
{
	(void)sqlite3_db_config(db->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, !allow, NULL);
}

static int check_version(struct index_db *db, int64_t *version, struct err *err)
{
	int64_t application = 0;
	int r;

	/* EXCLUSIVE before the first look: the daemon owns the store, and no shared memory is needed. */
	if ((r = index_execute(db, "PRAGMA locking_mode = EXCLUSIVE", "opening", err)) < 0 ||
	    (r = query_number(db, "PRAGMA user_version", version, err)) < 0 ||
	    (r = query_number(db, "PRAGMA application_id", &application, err)) < 0)
		return r;
	if (application != 0 && application != APPLICATION_ID)
		return refuse_application(err);
	return *version > INDEX_VERSION ? refuse_version(*version, err) : 0;
}

/* All at once: a version is there if and only if its tables are. */
static int make_version(struct index_db *db, const char *tables, const char *what, struct err *err)
{
	AUTO_FREE char *sql =
		xasprintf("BEGIN IMMEDIATE; %s PRAGMA user_version = %d; PRAGMA application_id = %d; COMMIT",
			  tables, INDEX_VERSION, APPLICATION_ID);
	int r = index_execute(db, sql, what, err);

	if (r < 0)
		(void)index_execute(db, "ROLLBACK", "", NULL);
	return r;
}

/*
 * Rows that are used again or go may be a page of the WAL each (4 KiB). A cache that holds a transaction's
 * pages makes commits much faster; it costs 8 MB. Checkpoints are made by index_commit.c, since on a full
 * disk they need help.
 */
static const char settings[] = "PRAGMA journal_mode = WAL;"
			       "PRAGMA synchronous = FULL;"
			       "PRAGMA cache_size = -8000;"
			       "PRAGMA wal_autocheckpoint = 0;"
			       "PRAGMA journal_size_limit = 4194304;"
			       "PRAGMA temp_store = MEMORY;"
			       "PRAGMA trusted_schema = OFF";

static int on_wal(void *ctx, sqlite3 *handle, const char *name, int n_pages)
{
	struct index_db *db = ctx;

	(void)handle;
	(void)name;
	db->wal_pages = n_pages;
	return SQLITE_OK;
}

static int set_up(struct index_db *db, struct err *err)
{
	int64_t version = 0;
	int r;

	if ((r = check_version(db, &version, err)) < 0)
		return r;
	allow_checkpoint_on_close(db, true);
	if ((r = index_execute(db, settings, "opening", err)) < 0)
		return r;
	(void)sqlite3_wal_hook(db->handle, on_wal, db);
	if (version == 0)
		return make_version(db, schema, "creating", err);
	return version < INDEX_VERSION ? make_version(db, upgrade_sql, "upgrading", err) : 0;
}

/* ---- what the last stop was, and where it left the store ---- */

/* Which boot of the machine this is; "" where that cannot be known, which equals no other. */
static void read_boot_id(char id[BOOT_ID_SIZE])
{
	AUTO_CLOSE int fd = disk_openat(AT_FDCWD, "/proc/sys/kernel/random/boot_id", O_RDONLY, 0);
	ssize_t n = fd < 0 ? fd : disk_pread(fd, id, BOOT_ID_SIZE - 1, 0);

	id[n > 0 ? n : 0] = '\0';
	id[strspn(id, "0123456789abcdef-")] = '\0';
}

static void take_text(sqlite3_stmt *row, void *out)
{
	const char *text = (const char *)sqlite3_column_text(row, 0);

	(void)snprintf(out, BOOT_ID_SIZE, "%s", text ? text : "");
}

static int read_state(struct index_db *db, struct index_loaded *loaded, struct err *err)
{
	int64_t clean = 0, synced = 0, pages = 0;
	char boot[BOOT_ID_SIZE] = "";
	int r, has_boot;

	if ((r = query_number(db, "SELECT value FROM meta WHERE key = 'clean'", &clean, err)) < 0 ||
	    (r = query_number(db, "SELECT value FROM meta WHERE key = 'synced'", &synced, err)) < 0 ||
	    (r = has_boot = query(db, "SELECT value FROM meta WHERE key = 'boot'", take_text, boot, err)) <
		    0 ||
	    (r = query_number(db, "PRAGMA page_count", &pages, err)) < 0)
		return r;
	loaded->was_clean = clean != 0;
	loaded->is_new = !clean && !has_boot;
	loaded->is_doubtful = !clean && (!*boot || strcmp(boot, db->boot) != 0);
	loaded->synced = synced > 0 ? (uint64_t)synced : 0;
	loaded->n_blobs = (uint64_t)pages * BLOBS_A_PAGE;
	return 0;
}

/* From here on the stop counts as not clean: on disk, so that no crash of the machine can take it back. */
static int mark_running(struct index_db *db, struct err *err)
{
	AUTO_FREE char *sql = xasprintf("BEGIN IMMEDIATE;"
					"UPDATE meta SET value = 0 WHERE key = 'clean';"
					"INSERT OR REPLACE INTO meta VALUES ('boot', '%s');"
					"COMMIT",
					db->boot);

	return index_execute(db, sql, "writing", err);
}

/* ---- the whole ---- */

static int open_file(struct index_db *db, struct index_loaded *loaded, struct err *err)
{
	AUTO_FREE char *path = xasprintf("%s/index.sqlite", db->folder);
	int code, r;

	if ((r = prepare_file(path, err)) < 0)
		return r;
	/* NOMUTEX: one thread at a time, which the lane sees to. */
	code = sqlite3_open_v2(path, &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
	if (code != SQLITE_OK)
		return index_fail(db, code, "opening", err);
	/* A file that it could not open for writing SQLite has opened for reading, and forgotten why. */
	if (sqlite3_db_readonly(db->handle, "main") == 1) {
		(void)err_set(err, err_code_of_errno(EROFS),
			      "opening the index '%s': it opens for reading alone", path);
		return -EROFS;
	}
	allow_checkpoint_on_close(db, false);
	if ((r = set_up(db, err)) < 0 || (r = read_state(db, loaded, err)) < 0)
		return r;
	if (loaded->was_clean && (r = mark_running(db, err)) < 0)
		return r;
	/* The same may be so of the WAL, and would show at a commit. */
	if ((r = index_execute(db, "BEGIN IMMEDIATE; ROLLBACK", "opening", err)) < 0)
		return r;
	if ((r = index_prepare_changes(db, err)) < 0)
		return r;
	return index_execute(db, "PRAGMA synchronous = NORMAL", "opening", err);
}

static void close_file(struct index_db *db)
{
	for (unsigned op = 0; op < INDEX_OPS; op++) {
		(void)sqlite3_finalize(db->changes[op]);
		db->changes[op] = NULL;
	}
	(void)sqlite3_close(db->handle);
	db->handle = NULL;
	db->wal_pages = 0;
}

int index_db_open(const char *folder, struct index_db **opened, struct index_loaded *loaded, struct err *err)
{
	AUTO(index_db) db = xcalloc(1, sizeof(*db));
	int r;

	db->folder = xstrdup(folder);
	read_boot_id(db->boot);
	db->folder_fd = r = disk_openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY, 0);
	if (r < 0)
		return err_errno(err, r, "opening the folder of the index, '%s'", folder);
	r = open_file(db, loaded, err);
	if (reserve_is_for(r) && reserve_give_up(db->folder_fd)) {
		close_file(db);
		if (err)
			err_clear(err);
		r = open_file(db, loaded, err);
	}
	if (r == 0)
		(void)reserve_make(db->folder_fd);
	if (r == 0 || r == -EUCLEAN)
		*opened = TAKE(db);
	return r;
}

static int mark_clean(struct index_db *db, struct err *err)
{
	return index_execute(db,
			     "UPDATE meta SET value = 1 WHERE key = 'clean'; PRAGMA wal_checkpoint(TRUNCATE)",
			     "closing", err);
}

int index_db_close(struct index_db *db, bool clean, struct err *err)
{
	int r = 0;

	if (!db)
		return 0;
	if (clean && db->handle && !db->is_partial) {
		r = mark_clean(db, NULL);
		if (r < 0) {
			(void)(reserve_is_for(r) && reserve_give_up(db->folder_fd));
			r = mark_clean(db, err);
		}
	}
	close_file(db);
	disk_close(db->folder_fd);
	free(db->folder);
	free(db);
	return r;
}

/* ---- setting aside ---- */

/* The first name that is free for a damaged database, else the last. */
static void print_aside(int folder, char name[INDEX_ASIDE_SIZE])
{
	struct stat st;
	int r = 0;

	for (unsigned n = 1; n <= ASIDE_MAX && r == 0; n++) {
		(void)snprintf(name, INDEX_ASIDE_SIZE, "index.sqlite.damaged-%u", n);
		r = disk_fstatat(folder, name, &st, AT_SYMLINK_NOFOLLOW);
	}
}

/*
 * The database goes first: what is left of the others if that was all belongs to an empty new one, and SQLite
 * deletes it; while a database without its WAL would be taken for a whole one.
 */
static int set_aside(int folder, char name[INDEX_ASIDE_SIZE])
{
	static const char *const suffixes[] = { "", "-wal", "-journal" };
	int r = 0;

	print_aside(folder, name);
	for (size_t i = 0; i < N_ELEMENTS(suffixes) && r == 0; i++) {
		AUTO_FREE char *from = xasprintf("index.sqlite%s", suffixes[i]);
		AUTO_FREE char *to = xasprintf("%s%s", name, suffixes[i]);

		r = disk_renameat2(folder, from, folder, to, 0);
		if (r == -ENOENT && *suffixes[i]) { /* nor may one of an earlier database stay beside this */
			(void)disk_unlinkat(folder, to, 0);
			r = 0;
		}
	}
	return r;
}

int index_db_replace(struct index_db *db, struct index_loaded *loaded, struct err *err)
{
	int r;

	if (db->handle)
		allow_checkpoint_on_close(db, false);
	close_file(db);
	if ((r = set_aside(db->folder_fd, loaded->aside)) < 0)
		return err_errno(err, r, "setting the damaged index in '%s' aside", db->folder);
	r = open_file(db, loaded, err);
	if (r < 0)
		close_file(db);
	return r;
}
