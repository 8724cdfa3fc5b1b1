/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "client/cli.h"
#include "client/text.h"
#include "common/size.h"

static void print_json(const struct dircache_tree *tree, bool first)
{
	printf("%s{\"digest\":\"%s\",\"files\":%" PRIu64 ",\"directories\":%" PRIu64 ",\"symlinks\":%" PRIu64
	       ",\"bytes\":%" PRIu64 ",\"hits\":%" PRIu64 ",\"last_used\":%" PRIu64,
	       first ? "" : ",", tree->digest, tree->files, tree->directories, tree->symlinks, tree->bytes,
	       tree->hits, tree->last_used);
	if (tree->sized)
		printf(",\"allocated\":%" PRIu64 ",\"unique\":%" PRIu64, tree->allocated, tree->unique);
	putchar('}');
}

static void print_row(const struct dircache_tree *tree)
{
	char time[TEXT_TIME_SIZE];

	printf("%-76s %9" PRIu64 " %7s %7s %7s %7" PRIu64 "  %s\n", tree->digest, tree->files,
	       SIZE_TEXT(tree->bytes), tree->sized ? SIZE_TEXT(tree->allocated) : "?",
	       tree->sized ? SIZE_TEXT(tree->unique) : "?", tree->hits, text_time(tree->last_used, time));
}

static void print_page(const struct cli *cli, const struct dircache_trees *page, uint64_t offset)
{
	for (size_t i = 0; i < page->n; i++)
		if (cli->json)
			print_json(&page->items[i], offset + i == 0);
		else
			print_row(&page->items[i]);
}

int cmd_trees(struct cli *cli)
{
	struct dircache_trees page = { 0 };
	struct dircache_error error;
	uint64_t offset = 0;

	if (!cli_args_open(cli))
		return cli->status;
	do {
		if (dircache_trees(cli->dc, offset, true, &page, &error) != DIRCACHE_OK)
			return cli_fail(cli, &error);
		if (offset == 0 && cli->json)
			fputs("{\"trees\":[", stdout);
		else if (offset == 0)
			printf("%-76s %9s %7s %7s %7s %7s  %s\n", "DIGEST", "FILES", "SIZE", "ON DISK",
			       "UNIQUE", "HITS", "LAST USED");
		print_page(cli, &page, offset);
		offset += page.n;
	} while (page.more && !ferror(stdout));
	if (cli->json)
		puts("]}");
	return STATUS_DONE;
}
