/* SPDX-License-Identifier: Apache-2.0 */
#include <unistd.h>

#include "client/cli.h"

int cmd_cat(struct cli *cli)
{
	struct dircache_error error;

	if (!cli_args_open(cli))
		return cli->status;
	if (dircache_cat(cli->dc, cli->argv[0], STDOUT_FILENO, &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	return STATUS_DONE;
}
