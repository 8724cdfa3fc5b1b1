/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "client/cli.h"

int cmd_stats(struct cli *cli)
{
	struct dircache_stats stats;
	struct dircache_error error;

	if (!cli_args_open(cli))
		return cli->status;
	if (dircache_stats(cli->dc, &stats, &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	for (size_t i = 0; !cli->json && i < stats.n; i++)
		printf("%-24s %14" PRIu64 "\n", stats.items[i].name, stats.items[i].value);
	return STATUS_DONE;
}
