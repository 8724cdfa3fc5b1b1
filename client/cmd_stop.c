/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli.h"

int cmd_stop(struct cli *cli)
{
	struct dircache_error error;

	cli->no_start = true; /* one that does not run need not be started to be stopped */
	if (!cli_args_open(cli))
		return cli->status;
	if (dircache_stop(cli->dc, &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	return STATUS_DONE;
}
