/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts: what some of the daemon's parts cost alone.
 *
 *     parts map N     add N digests to three maps, one after the other, and find them at random
 *     parts wake N    two threads that wake each other N times by a socket, as client and daemon do
 *     parts bare      wake another thread by a write(2) every half millisecond, until standard input ends,
 * and tell how long the longest of these calls worked
 *
 * Prints one JSON object of microseconds.
 */
#include <err.h>
#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "daemon/map.h"
#include "tests/bench/plan.h"

enum {
	BARE_US = 250, /* as SLICE_NS in daemon/slice.c */
	MAPS = 3,
};

static double us_since(uint64_t begin)
{
	return (double)(plan_now() - begin) / 1000;
}

/* Of this thread alone, whoever else has the processor meanwhile. */
static uint64_t processor_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const double *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

/* Numbers that look like hashes will do. */
static void make_digest(struct digest *digest, uint64_t *random)
{
	for (size_t i = 0; i < DIGEST_HASH_SIZE; i += sizeof(*random)) {
		*random ^= *random << 13;
		*random ^= *random >> 7;
		*random ^= *random << 17;
		memcpy(digest->hash + i, random, sizeof(*random));
	}
}

/* Add them to a new map. What an addition took stays noted only where it was faster than those before. */
static void add_all(struct map *map, struct digest *digests, double *took, size_t n)
{
	map_init(map);
	for (size_t i = 0; i < n; i++) {
		uint64_t begin = processor_ns();
		double us;

		map_add(map, &digests[i]);
		us = (double)(processor_ns() - begin) / 1000;
		took[i] = us < took[i] ? us : took[i];
	}
}

/* Return: microseconds to find one, at random. */
static double find_all(const struct map *map, const struct digest *digests, size_t n)
{
	uint64_t begin = plan_now();
	size_t n_found = 0;

	for (size_t i = 0; i < n; i++)
		n_found += map_find(map, &digests[i * 7919 % n]) != NULL;
	if (n_found != n)
		errx(1, "%zu of %zu found", n_found, n);
	return us_since(begin) / (double)n;
}

/* A pause of the map's own comes at the same addition to each map; one of the machine's does not. */
static void map_main(size_t n)
{
	AUTO_FREE struct digest *digests = xcalloc(n, sizeof(*digests));
	AUTO_FREE double *took = xcalloc(n, sizeof(*took));
	uint64_t random = 88172645463325252u;
	double found_us = 0;
	struct map map;

	for (size_t i = 0; i < n; i++) {
		make_digest(&digests[i], &random);
		took[i] = INFINITY;
	}
	for (unsigned i = 0; i < MAPS; i++) {
		add_all(&map, digests, took, n);
		found_us = find_all(&map, digests, n);
		map_fini(&map);
	}
	qsort(took, n, sizeof(*took), compare);
	printf("{\"maps\": %d, \"add_p50\": %.3f, \"add_longest\": %.1f, \"find\": %.3f}\n", MAPS,
	       took[n / 2], took[n - 1], found_us);
}

static void *answer(void *ctx)
{
	const int *sock = ctx;
	char byte;

	while (read(*sock, &byte, 1) == 1)
		if (write(*sock, &byte, 1) != 1)
			break;
	return NULL;
}

static void wake_main(size_t n)
{
	AUTO_FREE double *took = xcalloc(n, sizeof(*took));
	pthread_t thread;
	int socks[2];
	char byte = 0;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, socks) < 0)
		err(1, "socketpair");
	if (pthread_create(&thread, NULL, answer, &socks[1]))
		errx(1, "cannot start a thread");
	for (size_t i = 0; i < n; i++) {
		uint64_t begin = plan_now();

		if (write(socks[0], &byte, 1) != 1 || read(socks[0], &byte, 1) != 1)
			err(1, "the other thread");
		took[i] = us_since(begin);
	}
	(void)shutdown(socks[0], SHUT_RDWR);
	(void)pthread_join(thread, NULL);
	qsort(took, n, sizeof(*took), compare);
	printf("{\"p50\": %.1f, \"p99\": %.1f}\n", took[n / 2], took[n * 99 / 100]);
}

static void *swallow(void *ctx)
{
	const int *pipe_fd = ctx;
	char byte;

	while (read(*pipe_fd, &byte, 1) == 1)
		;
	return NULL;
}

/* Wait for a millisecond. Return: whether standard input has ended. */
static bool input_ended(void)
{
	struct pollfd input = { .fd = STDIN_FILENO };

	return poll(&input, 1, 1) > 0;
}

static void work_for_us(double us)
{
	uint64_t begin = plan_now();

	while (us_since(begin) < us)
		;
}

static void bare_main(void)
{
	uint64_t longest = 0, n = 0;
	pthread_t thread;
	int ends[2];
	char byte = 0;

	if (pipe(ends) < 0)
		err(1, "pipe");
	if (pthread_create(&thread, NULL, swallow, &ends[0]))
		errx(1, "cannot start a thread");
	for (; !input_ended(); n++) {
		uint64_t begin = processor_ns(), took;

		work_for_us(BARE_US);
		if (write(ends[1], &byte, 1) != 1)
			err(1, "the other thread");
		took = processor_ns() - begin;
		longest = took > longest ? took : longest;
	}
	(void)close(ends[1]);
	(void)pthread_join(thread, NULL);
	printf("{\"longest\": %.1f, \"calls\": %" PRIu64 "}\n", (double)longest / 1000, n);
}

int main(int argc, char **argv)
{
	size_t n = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;

	if (argc == 2 && strcmp(argv[1], "bare") == 0)
		bare_main();
	else if (n >= 100 && strcmp(argv[1], "map") == 0)
		map_main(n);
	else if (n >= 100 && strcmp(argv[1], "wake") == 0)
		wake_main(n);
	else
		errx(2, "usage: parts map|wake N, parts bare");
	return 0;
}
