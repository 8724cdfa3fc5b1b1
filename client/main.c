/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dircache: the command line on top of libdircache.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli.h"

static const struct command *find_command(const char *name)
{
	for (size_t i = 0; i < n_commands; i++)
		if (strcmp(commands[i].name, name) == 0)
			return &commands[i];
	return NULL;
}

static int run(struct cli *cli, int argc, char **argv)
{
	if (!cli_global_args(cli, argc, argv))
		return cli->status;
	cli->command = find_command(cli->argv[0]);
	if (!cli->command)
		return cli_usage(cli, "'%s' is not a command", cli->argv[0]);
	return cli->command->run(cli);
}

/* A full disk or a closed pipe may show only now. Return: the status to exit with. */
static int finish_output(int status)
{
	bool failed = ferror(stdout);

	errno = 0;
	if (fclose(stdout) == 0 && !failed)
		return status;
	fprintf(stderr, "dircache: writing to standard output: %s\n",
		errno ? strerror(errno) : "an error happened");
	return status == STATUS_DONE ? STATUS_FAILED : status;
}

/* Where standard input, output or error is closed, the socket must not take its place. */
static void reserve_standard_descriptors(void)
{
	int fd;

	do
		fd = open("/dev/null", O_RDONLY); /* to write to it fails */
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		(void)close(fd);
}

int main(int argc, char **argv)
{
	struct cli cli = { 0 };
	int status;

	reserve_standard_descriptors();
	(void)signal(SIGPIPE, SIG_IGN); /* a write says EPIPE, and we say what could not be written */
	status = run(&cli, argc, argv);
	dircache_close(cli.dc);
	return finish_output(status);
}
