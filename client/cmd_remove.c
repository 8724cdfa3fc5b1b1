/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli.h"

int cmd_remove(struct cli *cli)
{
	struct dircache_error error;

	if (!cli_args_open(cli))
		return cli->status;
	if (dircache_remove(cli->dc, cli->argv[0], &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	return STATUS_DONE;
}
