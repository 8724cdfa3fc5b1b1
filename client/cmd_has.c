/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>

#include "client/cli.h"

static void print_json(const struct dircache_digests *missing)
{
	fputs("{\"missing\":[", stdout);
	for (size_t i = 0; i < missing->n; i++)
		printf("%s\"%s\"", i ? "," : "", missing->items[i]);
	puts("]}");
}

int cmd_has(struct cli *cli)
{
	bool tree = false;
	const struct arg_option options[] = {
		{ 0, "tree", NULL, "look also at everything below each", &tree, NULL },
	};
	struct dircache_digests digests, missing;
	struct dircache_error error;

	if (!cli_args(cli, ARG_TABLE(options)) || !cli_open(cli))
		return cli->status;
	digests = (struct dircache_digests){ (const char *const *)cli->argv, (size_t)cli->argc };
	if (dircache_has(cli->dc, &digests, tree, &missing, &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		print_json(&missing);
	for (size_t i = 0; !cli->json && i < missing.n; i++)
		puts(missing.items[i]);
	return missing.n ? STATUS_ABSENT : STATUS_DONE;
}
