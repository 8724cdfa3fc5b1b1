/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <sys/resource.h>

#include "client/cli.h"
#include "client/json.h"
#include "client/progress.h"

/* What may be on its way to the daemon at once is bounded by this limit too. */
static void raise_descriptor_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
		return;
	limit.rlim_cur = limit.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* The answer, with the path in front: {"path":"a", ... */
static void print_json(const struct cli *cli, const char *path)
{
	AUTO_FREE char *answer = dircache_answer_json(cli->dc);

	fputs("{\"path\":", stdout);
	json_print_text(stdout, path);
	printf(",%s\n", answer + 1);
}

static int put_one(struct cli *cli, const char *path, const char *tag)
{
	struct progress progress;
	const struct dircache_put_options options = {
		.tag = tag,
		.progress = progress_start(&progress),
		.data = &progress,
	};
	struct dircache_error error;
	struct dircache_put put;
	enum dircache_code code = dircache_put_path(cli->dc, path, &options, &put, &error);

	progress_stop(&progress);
	if (code != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		print_json(cli, path);
	else
		puts(put.digest);
	return STATUS_DONE;
}

int cmd_put(struct cli *cli)
{
	const char *tag = NULL;
	const struct arg_option options[] = {
		{ 't', "tag", "NAME", "name and pin what is stored", NULL, &tag },
	};
	int status = STATUS_DONE;

	if (!cli_args(cli, ARG_TABLE(options)))
		return cli->status;
	if (tag && cli->argc > 1)
		return cli_usage(cli, "--tag names one PATH, not %d", cli->argc);
	raise_descriptor_limit();
	if (!cli_open(cli))
		return cli->status;
	for (int i = 0; i < cli->argc && status == STATUS_DONE; i++)
		status = put_one(cli, cli->argv[i], tag);
	return status;
}
