/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Store a directory, and lay it out again somewhere else:
 *
 *     cc -o hello hello.c $(pkg-config --cflags --libs dircache)
 *     ./hello FOLDER TARGET
 */
#include <dircache.h>

#include <err.h>
#include <inttypes.h>
#include <stdio.h>

int main(int argc, char **argv)
{
	struct dircache_materialized done;
	struct dircache_error error;
	struct dircache_put put;
	struct dircache *dc;

	if (argc != 3)
		errx(2, "usage: hello FOLDER TARGET");

	/* Finds the daemon, or starts one. */
	if (dircache_open(NULL, 0, &dc, &error) != DIRCACHE_OK)
		errx(1, "%s", error.message);

	/* A digest of all that is in the folder. The same files give the same digest. */
	if (dircache_put_path(dc, argv[1], NULL, &put, &error) != DIRCACHE_OK)
		errx(1, "%s", error.message);
	printf("%s holds %s\n", argv[1], put.digest);

	/* Hard links, all or none of them. */
	if (dircache_materialize(dc, put.digest, argv[2], NULL, &done, &error) != DIRCACHE_OK)
		errx(1, "%s", error.message);
	printf("%s has %" PRIu64 " files, %" PRIu64 " of them linked (%s)\n", argv[2], done.files,
	       done.files_linked, done.cache);

	dircache_close(dc);
	return 0;
}
