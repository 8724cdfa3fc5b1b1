/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A small tree on a warm connection: what one worker sees that asks again and again.
 *
 *     warm --socket SOCKET --digest DIGEST --plan PLAN --store STORE --folder FOLDER [--calls N]
 *
 * Materializes DIGEST in FOLDER over one connection, and in turn makes the same tree (PLAN, one directory) by
 * bare calls, with a small record written into a file before and cleared after, as the daemon leaves one for
 * a restart. What was made is removed between the calls, outside the clock. Prints one JSON object of
 * microseconds.
 */
#include <err.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/socket.h"
#include "common/wire.h"
#include "tests/bench/plan.h"

enum { WARM_UP = 100, RECORD_SIZE = 200 };

struct warm {
	const char *socket_path, *digest, *plan_path, *store_path, *folder_path;
	size_t n_calls;
	struct plan plan;
	struct plan_store store;
	int sock, folder, record;
};

static void connect_all(struct warm *w)
{
	struct err e = { 0 };

	plan_read(&w->plan, w->plan_path);
	plan_store_open(&w->store, w->store_path, true);
	w->folder = open(w->folder_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (w->folder < 0)
		err(1, "%s", w->folder_path);
	w->record = openat(w->folder, ".", O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);
	if (w->record < 0)
		err(1, "a file in %s", w->folder_path);
	w->sock = socket_connect(w->socket_path, 0, &e);
	if (w->sock < 0)
		errx(1, "%s", e.text);
}

static void ask(const struct warm *w, uint32_t id, const char *name)
{
	struct wire_out out = { 0 };
	ssize_t n;

	wire_request(&out, id, "materialize");
	wire_map(&out, 3);
	wire_put_text(&out, "digest", w->digest);
	wire_put_uint(&out, "fds", 1);
	wire_put_bytes(&out, "name", name, strlen(name));
	n = socket_send(w->sock, out.data, out.len, &w->folder, 1);
	if (n != (ssize_t)out.len)
		errx(1, "the request was not sent whole");
	wire_out_fini(&out);
}

/* One answer, which is whole when it comes and too small to come in pieces. */
static void hear(const struct warm *w, uint32_t id)
{
	struct wire_message message = { 0 };
	struct err e = { 0 };
	char buf[4096];
	ssize_t n = read(w->sock, buf, sizeof(buf));

	if (n <= 0)
		errx(1, "the daemon hung up");
	if (wire_parse(buf, (size_t)n, &message, &e) < 0)
		errx(1, "%s", e.text);
	if (message.error)
		wire_read_error(message.error, &e, NULL);
	if (message.error || message.type != WIRE_RESPONSE || message.id != id)
		errx(1, "materialize: %s", e.set ? e.text : "not the answer that was expected");
	wire_message_fini(&message);
}

static double by_daemon(struct warm *w, size_t call, const char *name)
{
	uint64_t begin = plan_now();

	ask(w, (uint32_t)call, name);
	hear(w, (uint32_t)call);
	return ms_between(begin, plan_now()) * 1000;
}

static void write_record(const struct warm *w, const char *record, size_t len)
{
	if (pwrite(w->record, record, len, 0) != (ssize_t)len)
		err(1, "writing the record");
}

static double by_bare_calls(struct warm *w, const char *name)
{
	static const char record[RECORD_SIZE] = "record";
	uint64_t begin = plan_now();
	int fd;

	write_record(w, record, sizeof(record));
	fd = plan_make_directory(w->folder, "hidden");
	for (size_t i = 0; i < w->plan.n_entries; i++)
		plan_make_entry(&w->store, &w->plan.entries[i], fd);
	close(fd);
	if (renameat(w->folder, "hidden", w->folder, name) < 0)
		err(1, "rename to %s", name);
	write_record(w, "", 1);
	return ms_between(begin, plan_now()) * 1000;
}

/* Also says whether what was timed made the whole tree. */
static void clear(const struct warm *w, const char *name)
{
	AUTO_CLOSE int fd = openat(w->folder, name, O_PATH | O_DIRECTORY | O_CLOEXEC);

	for (size_t i = 0; i < w->plan.n_entries; i++) {
		if (unlinkat(fd, w->plan.entries[i].name, 0) < 0)
			err(1, "unlink %s/%s", name, w->plan.entries[i].name);
	}
	if (unlinkat(w->folder, name, AT_REMOVEDIR) < 0)
		err(1, "rmdir %s", name);
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static void report(const char *name, double *us, size_t n, const char *end)
{
	double sum = 0;

	qsort(us, n, sizeof(*us), compare);
	for (size_t i = 0; i < n; i++)
		sum += us[i];
	printf("\"%s\": {\"min\": %.1f, \"p50\": %.1f, \"p99\": %.1f, \"max\": %.1f, \"mean\": %.1f}%s", name,
	       us[0], us[n / 2], us[n * 99 / 100], us[n - 1], sum / (double)n, end);
}

static void run(struct warm *w)
{
	AUTO_FREE double *daemon_us = xcalloc(w->n_calls, sizeof(double));
	AUTO_FREE double *bare_us = xcalloc(w->n_calls, sizeof(double));
	double daemon_took, bare_took;
	char name[32];

	for (size_t i = 0; i < WARM_UP + w->n_calls; i++) {
		snprintf(name, sizeof(name), "warm-%zu", i);
		daemon_took = by_daemon(w, i, name);
		clear(w, name);
		bare_took = by_bare_calls(w, name);
		clear(w, name);
		if (i < WARM_UP)
			continue;
		daemon_us[i - WARM_UP] = daemon_took;
		bare_us[i - WARM_UP] = bare_took;
	}
	printf("{\"calls\": %zu, ", w->n_calls);
	report("dircache", daemon_us, w->n_calls, ", ");
	report("bare", bare_us, w->n_calls, "}\n");
}

static void usage(void)
{
	errx(2, "usage: warm --socket SOCKET --digest DIGEST --plan PLAN --store STORE --folder FOLDER "
		"[--calls N]");
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "socket", required_argument, NULL, 's' },
						 { "digest", required_argument, NULL, 'd' },
						 { "plan", required_argument, NULL, 'p' },
						 { "store", required_argument, NULL, 't' },
						 { "folder", required_argument, NULL, 'f' },
						 { "calls", required_argument, NULL, 'c' },
						 { 0 } };
	struct warm w = { .n_calls = 2000 };
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's':
			w.socket_path = optarg;
			break;
		case 'd':
			w.digest = optarg;
			break;
		case 'p':
			w.plan_path = optarg;
			break;
		case 't':
			w.store_path = optarg;
			break;
		case 'f':
			w.folder_path = optarg;
			break;
		case 'c':
			w.n_calls = strtoul(optarg, NULL, 10);
			break;
		default:
			usage();
		}
	}
	if (!w.socket_path || !w.digest || !w.plan_path || !w.store_path || !w.folder_path || !w.n_calls)
		usage();
	umask(0);
	connect_all(&w);
	run(&w);
	return 0;
}
