/* SPDX-License-Identifier: Apache-2.0 */
/* The index on a disk that is full to the last byte: an ext4 of its own, where this machine can mount one. */
#include <sched.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/wait.h>

#include "daemon/reserve.h"
#include "tests/unit/index.h"

enum { ROWS = 20000, A_BATCH = 100 };

static char disk[48];

__attribute__((format(printf, 1, 2))) static int run(const char *format, ...)
{
	char command[512];
	va_list args;

	va_start(args, format);
	(void)vsnprintf(command, sizeof(command), format, args);
	va_end(args);
	return system(command);
}

/* In a mount namespace of this process, with which it ends. Return: false where that cannot be done. */
static bool mount_disk(void)
{
	(void)snprintf(disk, sizeof(disk), "%s/disk-%d", unit_folder, (int)getpid());
	if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 || mkdir(disk, 0755) < 0 ||
	    run("truncate -s 48M %s.img && mkfs.ext4 -q -m 0 %s.img && mount -o loop %s.img %s 2>/dev/null",
		disk, disk, disk, disk)) {
		(void)fprintf(stderr, "# skipped: no ext4 can be mounted here\n");
		return false;
	}
	(void)snprintf(folder, sizeof(folder), "%s/store", disk);
	ck_assert_int_eq(mkdir(folder, 0711), 0);
	return true;
}

static void sync_disk(void)
{
	int fd = open(disk, O_RDONLY);

	ck_assert_int_eq(syncfs(fd), 0);
	ck_assert_int_eq(close(fd), 0);
}

/* Until nothing more goes, whatever its size. */
static void fill_disk(void)
{
	static char bytes[1 << 20];
	int fd;

	(void)snprintf(bytes, sizeof(bytes), "%s/filler", disk);
	fd = open(bytes, O_WRONLY | O_CREAT | O_APPEND, 0600);
	ck_assert_int_ge(fd, 0);
	for (size_t size = sizeof(bytes); size; size /= 2)
		while (write(fd, bytes, size) > 0)
			;
	ck_assert_int_eq(errno, ENOSPC);
	ck_assert_int_eq(close(fd), 0);
	sync_disk();
	fd = open(bytes, O_WRONLY | O_APPEND); /* what late allocation has left over */
	while (write(fd, bytes, 1) > 0)
		;
	ck_assert_int_eq(close(fd), 0);
}

static void empty_disk(void)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/filler", disk);
	ck_assert_int_eq(unlink(path), 0);
	sync_disk(); /* its blocks are free when that is in the journal */
}

static bool has_reserve(void)
{
	struct stat st;

	return stat(path_of("reserve"), &st) == 0 && st.st_blocks * 512 >= RESERVE_BYTES;
}

static struct index_batch *batch_of(uint64_t first, size_t n, bool drop)
{
	struct index_batch *batch = index_batch_new();

	for (uint64_t i = first; i < first + n; i++) {
		struct index_blob blob = blob_of(i);

		if (drop)
			index_batch_drop_blob(batch, blob.row);
		else
			index_batch_put_blob(batch, &blob);
	}
	return batch;
}

/* Commit a batch and wait. Return: what came of it. */
static int commit(struct index_batch *batch)
{
	struct answer answer = { 0 };

	submit(batch, &answer);
	wait_for(&answer, 1);
	if (answer.last < 0)
		ck_assert_str_eq(err_code_text(answer.err.code), "no_space");
	return answer.last;
}

static void make_rows(void)
{
	start();
	for (uint64_t n = 0; n < ROWS; n += A_BATCH)
		ck_assert_int_eq(commit(batch_of(n, A_BATCH, false)), 0);
}

static void drop_rows(uint64_t first, uint64_t end)
{
	for (uint64_t n = first; n < end; n += A_BATCH)
		ck_assert_int_eq(commit(batch_of(n, A_BATCH, true)), 0);
}

/* Put until it fails, which leaves what is there as it was. Return: rows that were put. */
static uint64_t put_until_full(void)
{
	uint64_t n = 0;

	while (n < 1000000 && commit(batch_of(ROWS + n, A_BATCH, false)) == 0)
		n += A_BATCH;
	ck_assert_uint_lt(n, 1000000);
	return n;
}

START_TEST(the_reserve_is_there_and_private)
{
	struct stat st;

	start();
	ck_assert_int_eq(stat(path_of("reserve"), &st), 0);
	ck_assert_uint_eq(st.st_mode, S_IFREG | 0600);
	ck_assert_int_eq(st.st_size, RESERVE_BYTES);
	ck_assert(has_reserve());
	stop(true);
	ck_assert(has_reserve());
}
END_TEST

START_TEST(half_a_reserve_is_made_whole)
{
	start();
	stop(true);
	ck_assert_int_eq(truncate(path_of("reserve"), 0), 0);
	ck_assert_int_eq(truncate(path_of("reserve"), RESERVE_BYTES), 0);
	ck_assert(!has_reserve());
	start();
	ck_assert(has_reserve());
	stop(true);
}
END_TEST

START_TEST(an_index_opens_and_drops_rows_on_a_full_disk)
{
	if (!mount_disk())
		return;
	make_rows();
	stop(true);
	fill_disk();
	start();
	ck_assert_uint_eq(got.n_blobs, ROWS);
	ck_assert(!has_reserve());
	drop_rows(0, ROWS / 2);
	stop(true);
	start();
	ck_assert(got.loaded.was_clean);
	ck_assert_uint_eq(got.n_blobs, ROWS / 2);
	stop(true);
}
END_TEST

START_TEST(a_killed_index_opens_on_a_full_disk)
{
	pid_t pid;

	if (!mount_disk())
		return;
	pid = fork();
	if (pid == 0) {
		make_rows();
		_exit(0);
	}
	ck_assert_int_eq(waitpid(pid, NULL, 0), pid);
	fill_disk();
	start();
	ck_assert_uint_eq(got.n_blobs, ROWS);
	drop_rows(0, ROWS);
	stop(true);
}
END_TEST

START_TEST(a_disk_that_fills_up_refuses_rows_and_still_drops_them)
{
	uint64_t n;

	if (!mount_disk())
		return;
	make_rows();
	ck_assert(has_reserve());
	fill_disk();
	n = put_until_full();
	ck_assert(has_reserve()); /* it is not for what is put */
	drop_rows(0, ROWS);
	empty_disk();
	ck_assert_int_eq(commit(batch_of(0, A_BATCH, false)), 0);
	ck_assert(has_reserve()); /* there is room again */
	fill_disk();
	ck_assert_int_eq(commit(batch_of(0, A_BATCH, true)), 0);
	stop(true);
	start();
	ck_assert(got.loaded.was_clean);
	ck_assert_uint_eq(got.n_blobs, n);
	stop(true);
}
END_TEST

/* What nobody hears of is tried again, and not after what came later. */
START_TEST(a_row_that_found_no_room_is_not_put_after_it_was_dropped)
{
	struct answer answer = { 0 };
	uint64_t n;

	if (!mount_disk())
		return;
	make_rows();
	fill_disk();
	n = ROWS + put_until_full();
	index_submit(index_, batch_of(n, ROWS, false), NULL, NULL);
	submit(batch_of(n, ROWS, true), &answer); /* while that is tried */
	wait_for(&answer, 1);
	empty_disk();
	if (answer.last < 0)
		ck_assert_int_eq(commit(batch_of(n, ROWS, true)), 0);
	ck_assert_int_eq(commit(index_batch_new()), 0); /* and with it what was lost, if anything was */
	stop(true);
	start();
	ck_assert_uint_eq(got.n_blobs, n);
	stop(true);
}
END_TEST

START_TEST(the_wal_has_a_limit)
{
	struct answer answer = { 0 };
	struct stat st;
	size_t n_batches = 0;

	start();
	for (uint64_t n = 0; n < 60000; n += 500, n_batches++)
		submit(batch_of(n, 500, false), &answer);
	while (answer.n_done < n_batches) {
		(void)event_base_loop(base, EVLOOP_ONCE);
		ck_assert_int_eq(stat(path_of("index.sqlite-wal"), &st), 0);
		ck_assert_int_le(st.st_size, 9 << 20);
	}
	ck_assert_uint_eq(answer.n_failed, 0);
	stop(true);
}
END_TEST

UNIT_MAIN("index_full", the_reserve_is_there_and_private, half_a_reserve_is_made_whole,
	  an_index_opens_and_drops_rows_on_a_full_disk, a_killed_index_opens_on_a_full_disk,
	  a_disk_that_fills_up_refuses_rows_and_still_drops_them,
	  a_row_that_found_no_room_is_not_put_after_it_was_dropped, the_wal_has_a_limit)
