/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The commands tag and tags.
 */
#include <stdio.h>
#include <string.h>

#include "client/cli.h"

int cmd_tag(struct cli *cli)
{
	bool delete = false;
	const struct arg_option options[] = {
		{ 'd', "delete", NULL, "take the name away", &delete, NULL },
	};
	struct dircache_error error;
	enum dircache_code code;

	if (!cli_args(cli, ARG_TABLE(options)))
		return cli->status;
	if (cli->argc != (delete ? 1 : 2))
		return cli_usage(cli, delete ? "-d takes a name alone" : "a digest is missing");
	if (!cli_open(cli))
		return cli->status;
	if (delete)
		code = dircache_untag(cli->dc, cli->argv[0], &error);
	else
		code = dircache_tag(cli->dc, cli->argv[0], cli->argv[1], &error);
	if (code != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	return STATUS_DONE;
}

static void print_tags(const struct dircache_tags *tags)
{
	int width = 0;

	for (size_t i = 0; i < tags->n; i++) {
		int len = (int)strlen(tags->items[i].name);

		width = len > width ? len : width;
	}
	for (size_t i = 0; i < tags->n; i++)
		printf("%-*s  %s\n", width, tags->items[i].name, tags->items[i].digest);
}

int cmd_tags(struct cli *cli)
{
	struct dircache_tags tags;
	struct dircache_error error;

	if (!cli_args_open(cli))
		return cli->status;
	if (dircache_tags(cli->dc, &tags, &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	else
		print_tags(&tags);
	return STATUS_DONE;
}
