/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The floor: the system calls that the work cannot do without, and nothing else.
 *
 *     floor tree [--stat] [--threads N] PLAN STORE TARGET
 *         Make a tree of links beside TARGET and rename it into place: for each directory one mkdirat and one
 *         openat, for each file one linkat (with --stat: one fstatat before it), for each symlink one
 * symlinkat. A directory belongs to one thread.
 *
 *     floor hash ROOT
 *         SHA-256 of every file below ROOT, each read into memory before the clock runs.
 *
 * Prints the milliseconds that the calls took, without the start of the program and reading the plan.
 */
#include <err.h>
#include <fcntl.h>
#include <fts.h>
#include <getopt.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/hash.h"
#include "tests/bench/plan.h"

/* A directory that was made and waits to be filled. */
struct waiting {
	int fd;
	size_t number;
};

/* All directories that wait, the last one first, so that few are open at once. */
struct crew {
	const struct plan *plan;
	struct plan_store store;
	pthread_mutex_t mutex;
	pthread_cond_t wake;
	struct waiting *stack;
	size_t n, capacity;
	size_t left; /* directories not yet filled */
};

static void crew_push(struct crew *crew, struct waiting directory)
{
	pthread_mutex_lock(&crew->mutex);
	crew->stack = xgrow(crew->stack, crew->n, &crew->capacity, sizeof(*crew->stack));
	crew->stack[crew->n++] = directory;
	pthread_cond_signal(&crew->wake);
	pthread_mutex_unlock(&crew->mutex);
}

/* The next directory, waiting for one while others may still come. Return: false when all are filled. */
static bool crew_pop(struct crew *crew, struct waiting *directory)
{
	bool found;

	pthread_mutex_lock(&crew->mutex);
	while (!crew->n && crew->left)
		pthread_cond_wait(&crew->wake, &crew->mutex);
	found = crew->n > 0;
	if (found)
		*directory = crew->stack[--crew->n];
	pthread_mutex_unlock(&crew->mutex);
	return found;
}

static void crew_filled_one(struct crew *crew)
{
	pthread_mutex_lock(&crew->mutex);
	if (--crew->left == 0)
		pthread_cond_broadcast(&crew->wake);
	pthread_mutex_unlock(&crew->mutex);
}

/* Directories first, so that the other threads have work. */
static void fill(struct crew *crew, struct waiting directory)
{
	const struct plan_directory *d = &crew->plan->directories[directory.number];
	const struct plan_entry *entries = crew->plan->entries + d->first;

	for (size_t i = 0; i < d->n; i++) {
		if (entries[i].type == 'd')
			crew_push(crew, (struct waiting){ plan_make_directory(directory.fd, entries[i].name),
							  entries[i].number });
	}
	for (size_t i = 0; i < d->n; i++) {
		if (entries[i].type != 'd')
			plan_make_entry(&crew->store, &entries[i], directory.fd);
	}
	close(directory.fd);
	crew_filled_one(crew);
}

static void *work(void *crew)
{
	struct waiting directory;

	while (crew_pop(crew, &directory))
		fill(crew, directory);
	return NULL;
}

static void make_tree(struct crew *crew, const char *target, size_t n_threads)
{
	AUTO_FREE pthread_t *threads = xcalloc(n_threads, sizeof(*threads));
	AUTO_FREE char *hidden = xasprintf("%s.floor", target);

	crew->left = crew->plan->n_directories;
	crew_push(crew, (struct waiting){ plan_make_directory(AT_FDCWD, hidden), 0 });
	for (size_t i = 1; i < n_threads; i++) {
		if (pthread_create(&threads[i], NULL, work, crew))
			errx(1, "cannot start a thread");
	}
	work(crew);
	for (size_t i = 1; i < n_threads; i++)
		pthread_join(threads[i], NULL);
	if (rename(hidden, target) < 0)
		err(1, "rename to %s", target);
}

static void usage(void)
{
	errx(2, "usage: floor tree [--stat] [--threads N] PLAN STORE TARGET | floor hash ROOT");
}

static int tree_main(int argc, char **argv)
{
	static const struct option options[] = { { "stat", no_argument, NULL, 's' },
						 { "threads", required_argument, NULL, 't' },
						 { 0 } };
	struct crew crew = { .mutex = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER };
	size_t n_threads = 1;
	bool stat = false;
	struct plan plan;
	uint64_t begin;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			stat = true;
		else if (c == 't')
			n_threads = strtoul(optarg, NULL, 10);
		else
			usage();
	}
	if (argc - optind != 3 || n_threads < 1)
		usage();
	plan_read(&plan, argv[optind]);
	plan_store_open(&crew.store, argv[optind + 1], stat);
	crew.plan = &plan;
	umask(0);
	begin = plan_now();
	make_tree(&crew, argv[optind + 2], n_threads);
	printf("%.3f\n", ms_between(begin, plan_now()));
	return 0;
}

static void read_file(const char *path, char *buf, size_t size)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t done = 0;
	ssize_t n;

	while (fd >= 0 && done < size && (n = read(fd, buf + done, size - done)) > 0)
		done += (size_t)n;
	if (done < size)
		err(1, "%s", path);
}

static int hash_main(const char *root)
{
	char *roots[] = { (char *)root, NULL };
	FTS *walk = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	AUTO(hasher) hasher = hasher_new();
	AUTO_FREE char *buf = NULL;
	uint64_t begin, ns = 0;
	struct digest digest;
	FTSENT *entry;
	size_t size;

	if (!walk)
		err(1, "%s", root);
	while ((entry = fts_read(walk))) {
		if (entry->fts_info != FTS_F)
			continue;
		size = (size_t)entry->fts_statp->st_size;
		buf = xreallocarray(buf, size + 1, 1);
		read_file(entry->fts_accpath, buf, size);
		begin = plan_now();
		hasher_reset(hasher);
		hasher_update(hasher, buf, size);
		hasher_finish(hasher, &digest);
		ns += plan_now() - begin;
	}
	fts_close(walk);
	printf("%.3f\n", (double)ns / 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	struct rlimit files;

	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
	if (argc > 1 && strcmp(argv[1], "tree") == 0)
		return tree_main(argc - 1, argv + 1);
	if (argc == 3 && strcmp(argv[1], "hash") == 0)
		return hash_main(argv[2]);
	usage();
}
