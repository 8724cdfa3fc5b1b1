/* SPDX-License-Identifier: Apache-2.0 */
/* The store's promises while many do things at once. */
#include "daemon/blob.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/hash.h"
#include "tests/unit/store.h"
#include "tests/unit/unit.h"

enum { N_THREADS = 4 };

static atomic_bool is_over;
static atomic_uint n_seen;

static void start_threads(pthread_t *threads, size_t n, void *(*run)(void *), void *ctx)
{
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, run, ctx), 0);
}

static void join_threads(pthread_t *threads, size_t n)
{
	for (size_t i = 0; i < n; i++)
		ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
}

/* ---- a name appears with all its bytes ---- */

enum { N_BLOBS = 100, BLOB_SIZE = 200 * 1024 };

static struct digest expected[N_BLOBS];

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
	for (size_t i = 0; i < size; i++)
		bytes[i] = (uint8_t)((seed = seed * 1103515245 + 12345) >> 16);
}

/* Read each blob as soon as it is there. */
static void *run_reader(void *ctx)
{
	(void)ctx;
	for (unsigned i = 0; i < N_BLOBS; i++) {
		uint8_t *bytes;
		int r;

		while ((r = blob_read(store, &expected[i], BLOB_SIZE, &bytes, NULL)) == BLOB_MISSING)
			(void)usleep(50);
		ck_assert_int_eq(r, 0);
		free(bytes);
		atomic_fetch_add(&n_seen, 1);
	}
	return NULL;
}

/* Several at once write the same blobs. */
static void *run_writer(void *ctx)
{
	struct blob_writer *mine = blob_writer_new(store);
	uint8_t *bytes = malloc(BLOB_SIZE);
	struct blob_info info;

	(void)ctx;
	for (unsigned i = 0; i < N_BLOBS; i++) {
		int r;

		fill(bytes, BLOB_SIZE, i);
		r = blob_write(mine, bytes, BLOB_SIZE, BLOB_PLAIN, &info, NULL, NULL);
		ck_assert(r == 0 || r == BLOB_EXISTS);
		ck_assert(digest_equal(&info.digest, &expected[i]));
	}
	free(bytes);
	blob_writer_free(mine);
	return NULL;
}

START_TEST(a_name_appears_only_with_all_its_bytes)
{
	static uint8_t bytes[BLOB_SIZE];
	pthread_t readers[2], writers[N_THREADS];

	open_store();
	for (unsigned i = 0; i < N_BLOBS; i++) {
		fill(bytes, BLOB_SIZE, i);
		hash_bytes(bytes, BLOB_SIZE, &expected[i]);
	}
	start_threads(readers, 2, run_reader, NULL);
	start_threads(writers, N_THREADS, run_writer, NULL);
	join_threads(writers, N_THREADS);
	join_threads(readers, 2);
	ck_assert_uint_eq(atomic_load(&n_seen), 2 * N_BLOBS);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

/* ---- sources that change ---- */

struct source {
	int fd;
	size_t size;
	bool grows;
};

/* All 'a', all 'b', all 'a', ... */
static void *run_rewriter(void *ctx)
{
	const struct source *source = ctx;
	char *bytes = malloc(source->size);

	for (unsigned i = 0; !atomic_load(&is_over); i++) {
		off_t offset = source->grows ? (off_t)(i * source->size) : 0;

		memset(bytes, 'a' + i % 2, source->size);
		if (pwrite(source->fd, bytes, source->size, offset) != (ssize_t)source->size)
			break;
		if (source->grows)
			(void)usleep(20);
	}
	free(bytes);
	return NULL;
}

/* What is in the store is what its name says; how the source looked meanwhile is another matter. */
static void ck_stored_well(const struct digest *digest)
{
	uint8_t *bytes;
	int r = blob_read(store, digest, 16 << 20, &bytes, &err);

	ck_assert_msg(r == 0, "%d %s", r, err.text);
	free(bytes);
}

static void store_while_rewritten(size_t size)
{
	struct source source = { openat(out, "file", O_RDWR | O_CREAT | O_TRUNC, 0644), size, false };
	pthread_t rewriter;

	ck_assert_int_eq(ftruncate(source.fd, (off_t)size), 0);
	atomic_store(&is_over, false);
	start_threads(&rewriter, 1, run_rewriter, &source);
	for (unsigned i = 0; i < 100; i++) {
		struct blob_info info;
		int r = blob_write_file(writer, source.fd, i % 2, BLOB_PLAIN, &info, NULL, &err);

		if (r == -EAGAIN)
			unit_ck_err(&err, ERR_FAILED_PRECONDITION, "changes");
		else
			ck_assert_msg(r == 0 || r == BLOB_EXISTS, "%d %s", r, err.text);
		if (r >= 0)
			ck_stored_well(&info.digest);
		err_clear(&err);
	}
	atomic_store(&is_over, true);
	join_threads(&rewriter, 1);
	(void)close(source.fd);
}

START_TEST(a_file_that_changes_is_stored_consistently_or_refused)
{
	open_store();
	store_while_rewritten(100 * 1024);
	store_while_rewritten(1024 * 1024);
	close_store();
}
END_TEST

START_TEST(a_file_that_grows_and_grows_is_refused)
{
	struct source source = { -1, 4096, true };
	unsigned n_refused = 0;
	pthread_t rewriter;

	open_store();
	source.fd = openat(out, "log", O_RDWR | O_CREAT, 0644);
	ck_assert_int_eq(ftruncate(source.fd, 4 << 20), 0);
	start_threads(&rewriter, 1, run_rewriter, &source);
	while (n_refused == 0) { /* it may be a while before it grows at all */
		struct blob_info info;
		int r = blob_write_file(writer, source.fd, false, BLOB_PLAIN, &info, NULL, NULL);

		ck_assert(r == 0 || r == BLOB_EXISTS || r == -EAGAIN);
		n_refused += r == -EAGAIN;
	}
	atomic_store(&is_over, true);
	join_threads(&rewriter, 1);
	(void)close(source.fd);
	close_store();
}
END_TEST

/* ---- a published inode is stored again, from a tree, while others link it ---- */

static void *run_linker(void *digest)
{
	char name[32];
	int why;

	for (unsigned i = 0; !atomic_load(&is_over); i++) {
		(void)snprintf(name, sizeof(name), "%u", i % 1000);
		(void)unlinkat(out, name, 0);
		ck_assert_int_eq(blob_link(store, digest, BLOB_PLAIN, out, name, &why, NULL), 0);
	}
	return NULL;
}

START_TEST(links_made_meanwhile_are_no_change)
{
	static char text[300000];
	struct digest digest;
	pthread_t linker;
	int fd, why;

	open_store();
	memset(text, 'x', sizeof(text) - 1);
	digest = put(text, BLOB_PLAIN);
	ck_assert_int_eq(blob_link(store, &digest, BLOB_PLAIN, out, "input", &why, &err), 0);
	fd = openat(out, "input", O_RDONLY);
	start_threads(&linker, 1, run_linker, &digest);
	for (unsigned i = 0; i < 200; i++) {
		struct blob_info info;

		ck_assert_int_eq(blob_write_file(writer, fd, true, BLOB_PLAIN, &info, NULL, &err),
				 BLOB_EXISTS);
	}
	atomic_store(&is_over, true);
	join_threads(&linker, 1);
	(void)close(fd);
	close_store();
}
END_TEST

/* ---- changed inodes, seen by several at once ---- */

static const char *healed_path;

static void *run_healer(void *ctx)
{
	const char *text = ctx;
	struct blob_writer *mine = blob_writer_new(store);
	struct digest digest;
	struct blob_info info;
	unsigned n_changed;

	hash_bytes(text, strlen(text), &digest);
	for (unsigned i = 0; i < 300; i++) {
		int r = i % 2 ? blob_write(mine, text, strlen(text), BLOB_PLAIN, &info, NULL, NULL)
			      : blob_renew(mine, &digest, BLOB_PLAIN, i % 4 == 0, &info, &n_changed, NULL);

		ck_assert_msg(r == 0 || r == BLOB_EXISTS, "%d", r);
		(void)!fchmodat(folder, healed_path, 0644, 0); /* it may just be making way */
	}
	blob_writer_free(mine);
	return NULL;
}

START_TEST(many_who_heal_one_blob_do_not_lose_it)
{
	static char text[] = "hello";
	pthread_t healers[N_THREADS];
	struct digest digest;
	unsigned n_changed;
	struct blob_info info;
	int r;

	open_store();
	digest = put(text, BLOB_PLAIN);
	healed_path = path_of(&digest, BLOB_PLAIN);
	start_threads(healers, N_THREADS, run_healer, text);
	join_threads(healers, N_THREADS);
	r = blob_renew(writer, &digest, BLOB_PLAIN, false, &info, &n_changed, &err);
	ck_assert_msg(r == 0 || r == BLOB_EXISTS, "%d %s", r, err.text);
	ck_assert_int_eq(blob_stat(store, &digest, BLOB_PLAIN, NULL, NULL), 0);
	ck_assert_uint_eq(count_entries(folder, "tmp"), 0);
	close_store();
}
END_TEST

/* ---- executables run as soon as they are there ---- */

enum { N_SCRIPTS = 150 };

static void print_script(char *text, size_t size, unsigned i)
{
	(void)snprintf(text, size, "#!/bin/sh\nexit 0 # %u\n", i);
}

/* Run a file as soon as it is there. Return: 0, or the errno of exec(2). */
static int run_when_there(const char *path)
{
	int status;
	pid_t pid;

	while (faccessat(folder, path, F_OK, 0) < 0)
		continue;
	pid = fork();
	if (pid == 0) {
		char *argv[] = { (char *)path, NULL };

		if (fchdir(folder) == 0)
			(void)execv(path, argv);
		_exit(errno);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) ? WEXITSTATUS(status) : EIO;
}

/* A process of its own, made before any thread: its children inherit none of our descriptors for writing. */
static pid_t start_runner(void)
{
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	for (unsigned i = 0; i < N_SCRIPTS; i++) {
		struct digest digest;
		char text[64];
		int r;

		print_script(text, sizeof(text), i);
		hash_bytes(text, strlen(text), &digest);
		r = run_when_there(path_of(&digest, BLOB_EXEC));
		if (r != 0)
			_exit(r);
	}
	_exit(0);
}

static void *run_script_writer(void *ctx)
{
	struct blob_writer *mine = blob_writer_new(store);

	(void)ctx;
	for (unsigned i = 0; i < N_SCRIPTS; i++) {
		struct blob_info info;
		char text[64];
		int r;

		print_script(text, sizeof(text), i);
		r = blob_write(mine, text, strlen(text), BLOB_EXEC, &info, NULL, NULL);
		ck_assert(r == 0 || r == BLOB_EXISTS);
	}
	blob_writer_free(mine);
	return NULL;
}

START_TEST(an_executable_runs_at_once_while_many_store_it)
{
	pthread_t writers[N_THREADS];
	int status;
	pid_t runner;

	open_store();
	runner = start_runner();
	start_threads(writers, N_THREADS, run_script_writer, NULL);
	join_threads(writers, N_THREADS);
	ck_assert_int_eq(waitpid(runner, &status, 0), runner);
	ck_assert(WIFEXITED(status));
	ck_assert_msg(WEXITSTATUS(status) == 0, "exec: %s", strerror(WEXITSTATUS(status)));
	close_store();
}
END_TEST

UNIT_MAIN("blob_race", a_name_appears_only_with_all_its_bytes,
	  a_file_that_changes_is_stored_consistently_or_refused, a_file_that_grows_and_grows_is_refused,
	  links_made_meanwhile_are_no_change, many_who_heal_one_blob_do_not_lose_it,
	  an_executable_runs_at_once_while_many_store_it)
