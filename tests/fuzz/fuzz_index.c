/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A start of the daemon on an index that was damaged, or that somebody wrote to. The store is whole and
 * stays: three files and a tree of them. The index is any bytes, or what the daemon had left there (after a
 * clean stop, or while it ran, with a WAL) with some bytes changed, cut or moved, or with rows changed by
 * SQL.
 *
 * The start uses the index, or sets it aside and makes a new one, or refuses a newer version, or what is
 * another program's, without a change to any file. When it starts, `verify` finds what is wrong and puts it
 * right, and after that finds nothing; no file of the store is lost; and the next start is one like any
 * other.
 */
#include "tests/fuzz/fuzz.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "tests/fuzz/client.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/world.h"

enum { PAGE = 4096, CHANGES_MAX = 16 };

/* One of the index's files. */
struct image {
	uint8_t *bytes;
	size_t len;
	bool is_there;
};

enum { DATABASE, WAL, IMAGES };
static const char *const suffixes[IMAGES] = { "", "-wal" };

/* What a clean stop leaves, and what a kill does. */
static struct image clean[IMAGES], running[IMAGES];
static size_t n_files; /* of blobs, in the store */
static size_t n_counted;

/* ---- files ---- */

static char *path_of(const char *suffix)
{
	return xasprintf("%s/index.sqlite%s", world.store, suffix);
}

static void read_image(struct image *image, const char *suffix)
{
	AUTO_FREE char *path = path_of(suffix);
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat st;
	ssize_t n;

	*image = (struct image){ .is_there = fd >= 0 };
	if (fd < 0 || fstat(fd, &st) < 0)
		return;
	image->len = (size_t)st.st_size;
	image->bytes = xmalloc(image->len + 1);
	n = pread(fd, image->bytes, image->len, 0);
	assert(n == (ssize_t)image->len);
}

static void write_image(const struct image *image, const char *suffix)
{
	AUTO_FREE char *path = path_of(suffix);
	AUTO_CLOSE int fd = -1;
	ssize_t n;

	(void)unlink(path);
	if (!image->is_there)
		return;
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert(fd >= 0);
	n = pwrite(fd, image->bytes, image->len, 0);
	assert(n == (ssize_t)image->len);
}

static void read_images(struct image images[IMAGES])
{
	for (unsigned i = 0; i < IMAGES; i++)
		read_image(&images[i], suffixes[i]);
}

static void free_images(struct image images[IMAGES])
{
	for (unsigned i = 0; i < IMAGES; i++)
		free(images[i].bytes);
}

static bool is_same(const struct image *a, const struct image *b)
{
	return a->is_there == b->is_there && a->len == b->len &&
	       (!a->len || memcmp(a->bytes, b->bytes, a->len) == 0);
}

static void remove_indexes(void)
{
	static const char *const others[] = { "", "-wal", "-shm", "-journal" };

	for (unsigned i = 0; i < N_ELEMENTS(others); i++) {
		AUTO_FREE char *path = path_of(others[i]);
		AUTO_FREE char *aside = xasprintf("%s/index.sqlite.damaged-1%s", world.store, others[i]);

		(void)unlink(path);
		(void)unlink(aside);
	}
}

/* ---- what is done to them ---- */

static size_t input_offset(struct input *input, size_t len)
{
	size_t offset = input_byte(input);

	offset = (offset << 8 | input_byte(input)) << 8 | input_byte(input);
	return len ? offset % len : 0;
}

/* Change a file in one way; it never grows beyond what it had room for. */
static void change(struct image *image, struct input *input)
{
	size_t at = input_offset(input, image->len);
	uint8_t how = input_byte(input);
	const uint8_t *bytes;
	size_t n;

	if (!image->is_there || !image->len)
		return;
	switch (how % 6) {
	case 0:
		image->bytes[at] ^= (uint8_t)(1 << how / 6 % 8);
		break;
	case 1:
		image->bytes[at] = input_byte(input);
		break;
	case 2:
		n = input_bytes(input, &bytes);
		memcpy(image->bytes + at, bytes, n < image->len - at ? n : image->len - at);
		break;
	case 3:
		image->len = at;
		break;
	case 4: /* a page over another */
		n = input_offset(input, image->len) / PAGE * PAGE;
		at = at / PAGE * PAGE;
		if (n + PAGE <= image->len && at + PAGE <= image->len)
			memmove(image->bytes + at, image->bytes + n, PAGE);
		break;
	default:
		image->is_there = false;
	}
}

static void write_changed(const struct image from[IMAGES], struct input *input)
{
	for (unsigned i = 0; i < IMAGES; i++) {
		struct image image = from[i];
		unsigned n = input_byte(input) % CHANGES_MAX;

		if (image.is_there) {
			image.bytes = xmalloc(image.len + 1);
			memcpy(image.bytes, from[i].bytes, image.len);
		}
		while (n-- > 0 && input->len)
			change(&image, input);
		write_image(&image, suffixes[i]);
		free(image.bytes);
	}
}

/* Two bytes for the length of the database; the rest is its WAL. */
static void write_raw(struct input *input)
{
	size_t len = input_byte(input) << 8 | input_byte(input);
	struct image database = { (uint8_t *)input->bytes, len < input->len ? len : input->len, true };
	struct image wal = { (uint8_t *)input->bytes + database.len, input->len - database.len, true };

	wal.is_there = wal.len > 0;
	write_image(&database, "");
	write_image(&wal, "-wal");
}

/* What rows may be made of, with a value in place of %s. */
static const char *const statements[] = {
	"UPDATE blobs SET hash = %s WHERE hash = (SELECT max(hash) FROM blobs)",
	"UPDATE blobs SET size = %s",
	"UPDATE blobs SET kinds = %s",
	"UPDATE blobs SET plain_allocated = %s",
	"UPDATE blobs SET exec_allocated = %s",
	"UPDATE blobs SET used = %s",
	"UPDATE trees SET hash = %s",
	"UPDATE trees SET size = %s",
	"UPDATE trees SET files = %s, directories = %s",
	"UPDATE trees SET bytes = %s",
	"UPDATE trees SET used = %s",
	"UPDATE trees SET hits = %s",
	"UPDATE tags SET name = %s",
	"UPDATE tags SET hash = %s",
	"UPDATE tags SET size = %s",
	"UPDATE tags SET uid = %s",
	"UPDATE meta SET value = %s WHERE key = 'clean'",
	"UPDATE meta SET value = %s WHERE key = 'boot'",
	"INSERT OR REPLACE INTO meta VALUES ('synced', %s)",
	"DELETE FROM meta WHERE value IS NOT %s",
	"DELETE FROM blobs WHERE size IS NOT %s",
	"INSERT INTO blobs VALUES (%s, 5, 1, 4096, 0, 1)",
	"INSERT INTO trees VALUES (%s, 5, 1, 1, 1, 1, 1, 1)",
	"INSERT INTO tags VALUES ('new', %s, 5, 0)",
	"INSERT OR IGNORE INTO trees SELECT hash, size, 1, 1, 1, 1, used, %s FROM blobs",
	"ALTER TABLE blobs ADD COLUMN more DEFAULT %s",
	"ALTER TABLE trees RENAME TO others; CREATE VIEW trees AS SELECT *, %s FROM others",
	"CREATE TRIGGER later AFTER UPDATE ON meta BEGIN DELETE FROM blobs WHERE size = %s; END",
	"CREATE TRIGGER later AFTER INSERT ON blobs BEGIN DELETE FROM trees WHERE size > %s; END",
	"DROP TABLE blobs; CREATE TABLE blobs (hash, size, kinds, plain_allocated, exec_allocated, used)",
	"DROP TABLE tags",
	"DROP TABLE meta; CREATE TABLE meta (key, value)",
	"DELETE FROM sqlite_schema WHERE name = 'trees' OR name = %s",
	"UPDATE sqlite_schema SET sql = %s WHERE name = 'tags'",
	"UPDATE sqlite_schema SET rootpage = %s WHERE name = 'tags'",
	"PRAGMA user_version = %s",
	"PRAGMA application_id = %s",
	"PRAGMA journal_mode = DELETE",
	"PRAGMA auto_vacuum = 2; VACUUM",
	"PRAGMA page_size = 512; VACUUM",
	"PRAGMA encoding = 'UTF-16'; VACUUM",
};

static const char *const values[] = {
	"0",
	"1",
	"2",
	"3",
	"4",
	"-1",
	"9223372036854775807",
	"-9223372036854775808",
	"4294967296",
	"0.5",
	"''",
	"'name'",
	"NULL",
	"zeroblob(32)",
	"zeroblob(31)",
	"zeroblob(100000)",
	"randomblob(32)",
	"(SELECT min(hash) FROM blobs)",
	"(SELECT max(hash) FROM trees)",
	"'CREATE TABLE tags (name, hash, size, uid)'",
	"hex(zeroblob(200))",
	"char(1)",
	"'/'",
};

static void run_sql(sqlite3 *db, struct input *input)
{
	const char *statement = statements[input_byte(input) % N_ELEMENTS(statements)];
	const char *value = values[input_byte(input) % N_ELEMENTS(values)];
	AUTO_FREE char *sql = xstrdup(statement);
	char *at;

	while ((at = strstr(sql, "%s"))) {
		char *next;

		*at = '\0';
		next = xasprintf("%s%s%s", sql, value, at + 2);
		free(sql);
		sql = next;
	}
	(void)sqlite3_exec(db, sql, NULL, NULL, NULL); /* some make no sense, and SQLite says so */
}

static void write_rows(struct input *input)
{
	AUTO_FREE char *path = path_of("");
	sqlite3 *db;
	int r;

	write_image(&clean[DATABASE], "");
	r = sqlite3_open(path, &db);
	assert(r == SQLITE_OK);
	(void)sqlite3_exec(db,
			   "PRAGMA synchronous = OFF; PRAGMA ignore_check_constraints = ON;"
			   "PRAGMA writable_schema = ON",
			   NULL, NULL, NULL);
	for (unsigned i = 0; i < CHANGES_MAX && input->len; i++)
		run_sql(db, input);
	r = sqlite3_close(db);
	assert(r == SQLITE_OK);
}

/* ---- the store ---- */

static void call(struct client *client, const char *method, const char *key)
{
	struct wire_out message = { 0 };

	wire_request(&message, client->last_id + 1, method);
	wire_map(&message, key != NULL);
	if (key)
		wire_put_bool(&message, key, true);
	client_call(client, &message);
}

/* A step of what clients do, from the bytes that fuzz_requests.c takes. */
static void request(struct client *client, const uint8_t *bytes, size_t len)
{
	struct input input = { bytes, len };
	struct input_fds fds = { .n = 0 };
	struct wire_out message = { 0 };
	bool sent;

	input_request(&input, &message, client->last_id + 1, &fds);
	sent = client_send(client, message.data, message.len, fds.fds, fds.n);
	assert(sent);
	input_close_fds(&fds);
	wire_out_fini(&message);
	client->last_id++;
	client->n_asked++;
	client_wait(client);
	client_must_succeed(client);
}

/* A tree of two files, one of them also executable, with a tag. */
static void put_tree(struct client *client)
{
	static const uint8_t begin[] = { 0, 1, 0, 0, 0 };
	/* step put fds entries; three files with bytes; and of them three entries, the last executable */
	static const uint8_t entries[] = { 0,   15, 0,  0, 1, 0, 3,  1, 1, 'x', 1,  1, 'y', 1, 1,
					   'x', 3,  11, 0, 0, 0, 11, 0, 1, 1,   43, 0, 2,   2, 1 };
	static const uint8_t commit[] = { 0, 19, 0, 0, 2, 0, 0 };

	request(client, begin, sizeof(begin));
	request(client, entries, sizeof(entries));
	request(client, commit, sizeof(commit));
}

static int count_file(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	(void)st;
	(void)ftw;
	n_counted += type == FTW_F && (strstr(path, "/store/blobs/") || strstr(path, "/store/exec/"));
	return 0;
}

static size_t count_files(void)
{
	n_counted = 0;
	(void)nftw(world.store, count_file, 16, FTW_PHYS);
	return n_counted;
}

static void begin(struct client *client)
{
	client_init(client);
	client_connect(client, geteuid());
}

static void hang_up(struct client *client)
{
	client_hang_up(client);
	while (world.conns.n)
		world_turn();
	world_settle();
	world_check_idle();
}

static void end_world(void)
{
	if (world.is_running)
		world_stop();
	free_images(clean);
	free_images(running);
}

static void make_store(void)
{
	struct client client;
	int r;

	world_make(end_world);
	r = world_start(0);
	assert(r == 0);
	begin(&client);
	put_tree(&client);
	hang_up(&client);
	read_images(running);
	world_stop();
	read_images(clean);
	n_files = count_files();
	assert(n_files > 2 && running[WAL].is_there && clean[DATABASE].is_there);
}

/* ---- the start ---- */

/* A newer version, or another program's: nothing was touched. */
static void check_refused(const struct image before[IMAGES])
{
	struct image after[IMAGES];

	read_images(after);
	assert(world.err.set && world.loaded == -EPROTO);
	for (unsigned i = 0; i < IMAGES; i++)
		assert(is_same(&before[i], &after[i]));
	free_images(after);
}

/* Where the first `verify` found nothing, a second one would be the same; they are most of what an input
 * costs. */
static void check_started(void)
{
	struct client client;

	begin(&client);
	call(&client, "tags", NULL);
	client_must_succeed(&client);
	call(&client, "trees", "sizes");
	client_must_succeed(&client);
	call(&client, "verify", "repair");
	client_must_succeed(&client);
	if (client.value > 0) {
		call(&client, "verify", NULL);
		client_must_succeed(&client);
	}
	assert(client.value == 0);
	hang_up(&client);
	world_stop();
	assert(count_files() >= n_files); /* a row may have asked for a blob in its other kind, too */
	n_files = count_files();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	struct input input = { bytes, len };
	struct image before[IMAGES];
	int r;

	if (!n_files)
		make_store();
	remove_indexes();
	switch (input_byte(&input) % 4) {
	case 0:
		write_raw(&input);
		break;
	case 1:
		write_changed(clean, &input);
		break;
	case 2:
		write_changed(running, &input);
		break;
	default:
		write_rows(&input);
	}
	read_images(before);
	r = world_start(0);
	if (r < 0)
		check_refused(before);
	else
		check_started();
	free_images(before);
	if (r < 0)
		return 0;
	r = world_start(0);
	assert(r == 0);
	world_stop();
	return 0;
}
