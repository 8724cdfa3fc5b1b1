/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>

#include "client/cli.h"
#include "client/progress.h"

/* Copies where links were expected fill disks: nobody shall wonder why. */
static void report(const struct cli *cli, const struct dircache_materialized *done)
{
	if (cli->json)
		cli_print_answer(cli);
	if (done->fallback && done->files_copied + done->files_reflinked > 0)
		cli_warn(cli, "warning: %" PRIu64 " files were copied rather than linked: %s",
			 done->files_copied + done->files_reflinked, done->fallback);
}

int cmd_materialize(struct cli *cli)
{
	struct dircache_materialize_options how = { 0 };
	const struct arg_option options[] = {
		{ 0, "file", NULL, "DIGEST is a blob, TARGET a file", &how.file, NULL },
		{ 0, "executable", NULL, "with --file: make it executable", &how.executable, NULL },
		{ 0, "require-link", NULL, "fail rather than copy", &how.require_link, NULL },
	};
	struct dircache_materialized done;
	struct dircache_error error;
	struct progress progress;
	enum dircache_code code;

	if (!cli_args(cli, ARG_TABLE(options)))
		return cli->status;
	if (how.executable && !how.file)
		return cli_usage(cli, "--executable goes with --file");
	if (!cli_open(cli))
		return cli->status;
	how.progress = progress_start(&progress);
	how.data = &progress;
	code = dircache_materialize(cli->dc, cli->argv[0], cli->argv[1], &how, &done, &error);
	progress_stop(&progress);
	if (code != DIRCACHE_OK)
		return cli_fail(cli, &error);
	report(cli, &done);
	return STATUS_DONE;
}
