/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A fuzz target without the fuzzer: it runs on the files named, or on its whole corpus, which is
 * tests/fuzz/corpus/NAME below $top_srcdir for a program called fuzz_NAME. TAP goes to standard output. An
 * input that breaks something ends the process, so each is announced before it is tried.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/auto.h"

static void close_file(FILE **file)
{
	if (*file)
		(void)fclose(*file);
}

/* Return: the file's bytes, the caller's to free(), or NULL. */
static uint8_t *read_file(const char *path, size_t *len)
{
	CLEANUP(close_file) FILE *file = fopen(path, "rb");
	AUTO_FREE uint8_t *bytes = NULL;
	size_t capacity = 0, n;

	if (!file)
		return NULL;
	*len = 0;
	do {
		bytes = xgrow(bytes, *len, &capacity, 1);
		n = fread(bytes + *len, 1, capacity - *len, file);
		*len += n;
	} while (n > 0);
	if (ferror(file))
		return NULL;
	bytes = xreallocarray(bytes, *len, 1); /* no larger, so that a byte read behind the end is seen */
	return TAKE(bytes);
}

static void replay(size_t number, const char *path)
{
	const char *name = strrchr(path, '/');
	AUTO_FREE uint8_t *bytes = NULL;
	size_t len = 0;

	name = name ? name + 1 : path;
	printf("# %s\n", name);
	(void)fflush(stdout);
	bytes = read_file(path, &len);
	if (!bytes) {
		printf("not ok %zu - %s: %s\n", number, name, strerror(errno));
		return;
	}
	(void)LLVMFuzzerTestOneInput(bytes, len);
	printf("ok %zu - %s does no harm\n", number, name);
}

static int replay_all(char **paths, size_t n)
{
	printf("1..%zu\n", n);
	for (size_t i = 0; i < n; i++)
		replay(i + 1, paths[i]);
	return EXIT_SUCCESS;
}

static int replay_corpus(const char *program)
{
	const char *top_srcdir = getenv("top_srcdir"), *name = strstr(program, "fuzz_");
	AUTO_FREE char *pattern = NULL;
	glob_t found = { 0 };
	int r;

	if (!top_srcdir || !name) {
		printf("Bail out! %s: wants top_srcdir in the environment, and to be called fuzz_NAME\n",
		       program);
		return EXIT_FAILURE;
	}
	pattern = xasprintf("%s/tests/fuzz/corpus/%s/*", top_srcdir, name + strlen("fuzz_"));
	if (glob(pattern, 0, NULL, &found) != 0) {
		printf("Bail out! no file is %s\n", pattern);
		return EXIT_FAILURE;
	}
	r = replay_all(found.gl_pathv, found.gl_pathc);
	globfree(&found);
	return r;
}

int main(int argc, char **argv)
{
	return argc > 1 ? replay_all(argv + 1, (size_t)argc - 1) : replay_corpus(argv[0]);
}
