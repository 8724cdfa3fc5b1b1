/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/progress.h"
#include "client/text.h"
#include "common/size.h"

static void print(const struct dircache_gc *gc, bool dry_run)
{
	char time[TEXT_TIME_SIZE];

	for (size_t i = 0; i < gc->n_trees; i++)
		printf("%-76s %7s  %s\n", gc->trees[i].digest, SIZE_TEXT(gc->trees[i].bytes),
		       text_time(gc->trees[i].last_used, time));
	if (gc->n_trees < gc->evicted_trees)
		printf("and %" PRIu64 " trees more\n", gc->evicted_trees - gc->n_trees);
	printf("%s %" PRIu64 " trees, %" PRIu64 " blobs, %s of %s\n", dry_run ? "would evict" : "evicted",
	       gc->evicted_trees, gc->evicted_blobs, SIZE_TEXT(gc->evicted_bytes),
	       SIZE_TEXT(gc->allocated_before));
}

int cmd_gc(struct cli *cli)
{
	const char *to = NULL;
	bool dry_run = false;
	const struct arg_option table[] = {
		{ 0, "to", "SIZE", "evict until the store takes no more than this", NULL, &to },
		{ 'n', "dry-run", NULL, "change nothing, and print what would go", &dry_run, NULL },
	};
	struct progress progress;
	struct dircache_gc_options options = { .data = &progress };
	struct dircache_error error;
	enum dircache_code code;
	struct dircache_gc gc;

	if (!cli_args(cli, ARG_TABLE(table)))
		return cli->status;
	options.has_to = to;
	options.dry_run = dry_run;
	if (to && size_parse(to, &options.to) < 0)
		return cli_usage(cli, "--to '%s' is no size: a number, and K, M, G or T", to);
	if (!cli_open(cli))
		return cli->status;
	options.progress = progress_start(&progress);
	code = dircache_gc(cli->dc, &options, &gc, &error);
	progress_stop(&progress);
	if (code != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	else
		print(&gc, dry_run);
	return STATUS_DONE;
}
