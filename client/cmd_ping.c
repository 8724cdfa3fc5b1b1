/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <time.h>

#include "client/cli.h"

enum { STEP_MS = 20 };

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Who waits for a daemon that somebody else starts need not know when it begins to listen. */
static bool open_until(struct cli *cli, int64_t end)
{
	struct dircache_error error;

	if (dircache_open(cli->socket, cli->no_start ? DIRCACHE_NO_START : 0, &cli->dc, &error) ==
	    DIRCACHE_OK)
		return true;
	while (now_ms() < end) {
		(void)nanosleep(&(struct timespec){ .tv_nsec = STEP_MS * 1000 * 1000 }, NULL);
		if (dircache_open(cli->socket, DIRCACHE_NO_START, &cli->dc, NULL) == DIRCACHE_OK)
			return true;
	}
	cli->status = cli_fail(cli, &error);
	return false;
}

static void print_ping(const struct cli *cli, const struct dircache_ping *ping)
{
	if (cli->json)
		cli_print_answer(cli);
	else
		printf("%s%s\n", ping->version, ping->ready ? "" : " (not ready)");
}

int cmd_ping(struct cli *cli)
{
	const char *wait = NULL;
	const struct arg_option options[] = {
		{ 'w', "wait", "SECONDS", "until it listens and is ready", NULL, &wait },
	};
	struct dircache_ping ping;
	struct dircache_error error;
	unsigned wait_ms = 0;
	int64_t end;

	if (!cli_args(cli, ARG_TABLE(options)))
		return cli->status;
	if (wait && args_parse_seconds(wait, &wait_ms) < 0)
		return cli_usage(cli, "--wait: '%s' is no number of seconds", wait);
	end = now_ms() + wait_ms;
	if (!open_until(cli, end))
		return cli->status;
	if (wait_ms) {
		int64_t left = end - now_ms();

		wait_ms = left > 0 ? (unsigned)left : 1;
	}
	if (dircache_ping(cli->dc, wait_ms, &ping, &error) != DIRCACHE_OK)
		return cli_fail(cli, &error);
	print_ping(cli, &ping);
	return STATUS_DONE;
}
