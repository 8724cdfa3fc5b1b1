/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line program: what its commands share.
 *
 * Answers go to standard output, all else to standard error. A command returns the exit status; whether its
 * output could be written is looked at once, in main().
 */
#ifndef DIRCACHE_CLIENT_CLI_H
#define DIRCACHE_CLIENT_CLI_H

#include "client/args.h"
#include "client/dircache.h"
#include "common/auto.h"

enum status {
	STATUS_DONE = 0,
	STATUS_FAILED = 1,
	STATUS_USAGE = 2,
	STATUS_ABSENT = 3, /* something needed is not in the cache */
	STATUS_NO_DAEMON = 4,
};

struct cli;

struct command {
	const char *name;
	int (*run)(struct cli *cli);
	int least, most; /* arguments */
	const char *usage, *summary;
};

struct cli {
	/* Options of all commands. */
	const char *socket;
	bool json, no_start, help, version;

	const struct command *command;
	int argc; /* at first the command's name and all behind it; after cli_args() its arguments */
	char **argv;

	struct dircache *dc; /* after cli_open() */
	int status;          /* after cli_args() or cli_open() returned false: what to return */
};

extern const struct command commands[];
extern const size_t n_commands;

/**
 * Read the command's options and check the number of its arguments, which cli->argv then holds.
 *
 * Return: whether to go on; else help was printed, or what is wrong with the usage: return cli->status.
 */
bool cli_args(struct cli *cli, struct arg_table options);

/* Connect. Return: whether to go on; else the failure was reported: return cli->status. */
bool cli_open(struct cli *cli);

/* cli_args() for a command without options, and cli_open(). */
bool cli_args_open(struct cli *cli);

/* Report a failure of the library, with the digests that are missing. Return: the status. */
int cli_fail(const struct cli *cli, const struct dircache_error *error);

/* Report a wrong usage. Return: STATUS_USAGE. */
int cli_usage(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Say something on standard error, behind the program's and the command's name. */
void cli_warn(const struct cli *cli, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Print the last answer as JSON, on a line of its own. */
void cli_print_answer(const struct cli *cli);

/* Read the global options. Return: whether to go on, with cli->argc and argv the command and all behind it.
 */
bool cli_global_args(struct cli *cli, int argc, char **argv);

/* What `dircache --help` says. */
void cli_print_help(void);

#define COMMAND(name, function, least, most, usage, summary) int function(struct cli *cli);
#include "client/commands.def"
#undef COMMAND

#endif
