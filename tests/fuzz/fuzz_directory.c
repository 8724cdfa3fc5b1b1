/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Any bytes as a Directory: refused with a reason, or decoded to something that encodes, decodes and encodes
 * again to the same bytes, and in which every entry is found by its name.
 */
#include "tests/fuzz/fuzz.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "common/auto.h"
#include "common/directory.h"

enum { ENTRIES_MAX = 10000 };

static void check_entries(const struct directory *d)
{
	for (size_t i = 0; i < d->n_files; i++)
		assert(directory_find_file(d, d->files[i].name, strlen(d->files[i].name)) == &d->files[i]);
	for (size_t i = 0; i < d->n_directories; i++)
		assert(directory_find_directory(d, d->directories[i].name, strlen(d->directories[i].name)) ==
		       &d->directories[i]);
	for (size_t i = 0; i < d->n_symlinks; i++)
		assert(directory_find_symlink(d, d->symlinks[i].name, strlen(d->symlinks[i].name)) ==
		       &d->symlinks[i]);
}

static void check_encoding(struct directory *d)
{
	AUTO_FREE uint8_t *once = NULL;
	AUTO_FREE uint8_t *twice = NULL;
	AUTO(directory) again = NULL;
	size_t len, len_again;
	int r = directory_encode(d, &once, &len, NULL);

	assert(r == 0);
	r = directory_decode(once, len, ENTRIES_MAX, &again, NULL);
	assert(r == 0);
	r = directory_encode(again, &twice, &len_again, NULL);
	assert(r == 0 && len == len_again && memcmp(once, twice, len) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t len)
{
	AUTO(directory) directory = NULL;
	struct err err = { 0 };
	int r = directory_decode(bytes, len, ENTRIES_MAX, &directory, &err);

	assert((r == 0) == (directory != NULL) && (r == 0) == !err.set);
	if (r < 0)
		return 0;
	check_entries(directory);
	check_encoding(directory);
	return 0;
}
