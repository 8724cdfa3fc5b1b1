/* SPDX-License-Identifier: Apache-2.0 */
#include "client/cli.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define COMMAND(name, function, least, most, usage, summary) { name, function, least, most, usage, summary },
const struct command commands[] = {
#include "client/commands.def"
};
#undef COMMAND
const size_t n_commands = N_ELEMENTS(commands);

enum { GLOBAL_OPTIONS = 5 };

/* They may stand before the command and behind it. */
static void global_options(struct cli *cli, struct arg_option options[GLOBAL_OPTIONS])
{
	const struct arg_option all[GLOBAL_OPTIONS] = {
		{ 0, "socket", "PATH", "where the daemon listens", NULL, &cli->socket },
		{ 0, "json", NULL, "print the answer as JSON", &cli->json, NULL },
		{ 0, "no-start", NULL, "do not start a daemon where there is none", &cli->no_start, NULL },
		{ 'h', "help", NULL, "print this help", &cli->help, NULL },
		{ 'V', "version", NULL, "print the version", &cli->version, NULL },
	};

	memcpy(options, all, sizeof(all));
}

/* ---- messages ---- */

static void print_prefix(const struct cli *cli)
{
	if (cli->command)
		fprintf(stderr, "dircache: %s: ", cli->command->name);
	else
		fputs("dircache: ", stderr);
}

__attribute__((format(printf, 2, 0))) static void print_message(const struct cli *cli, const char *format,
								va_list args)
{
	print_prefix(cli);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void cli_warn(const struct cli *cli, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(cli, format, args);
	va_end(args);
}

int cli_usage(const struct cli *cli, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_message(cli, format, args);
	va_end(args);
	if (cli->command)
		fprintf(stderr, "usage: dircache %s%s%s\n", cli->command->name,
			*cli->command->usage ? " " : "", cli->command->usage);
	else
		fputs("usage: dircache [OPTION...] COMMAND (see dircache --help)\n", stderr);
	return STATUS_USAGE;
}

int cli_fail(const struct cli *cli, const struct dircache_error *error)
{
	cli_warn(cli, "%s", error->message);
	for (size_t i = 0; i < error->n_missing; i++)
		fprintf(stderr, "%s\n", error->missing[i]);
	switch (error->code) {
	case DIRCACHE_NOT_FOUND:
		return STATUS_ABSENT;
	case DIRCACHE_NO_DAEMON:
		return STATUS_NO_DAEMON;
	default:
		return STATUS_FAILED;
	}
}

void cli_print_answer(const struct cli *cli)
{
	AUTO_FREE char *json = dircache_answer_json(cli->dc);

	puts(json ? json : "{}");
}

/* ---- help ---- */

static void print_global_options(void)
{
	struct arg_option options[GLOBAL_OPTIONS];

	global_options(&(struct cli){ 0 }, options);
	args_print_help(ARG_TABLE(options));
}

void cli_print_help(void)
{
	puts("usage: dircache [OPTION...] COMMAND [ARGUMENT...]\n"
	     "\n"
	     "Stores directory trees by digest, and lays them out with hard links.\n"
	     "\n"
	     "Commands:");
	for (size_t i = 0; i < n_commands; i++)
		printf("  %-20s %s\n", commands[i].name, commands[i].summary);
	puts("\nOptions:");
	print_global_options();
	puts("\nExit status: 0 done, 1 failed, 2 wrong usage, 3 something needed is absent, 4 no daemon.\n"
	     "See dircache(1), and dircache COMMAND --help.");
}

static void print_command_help(const struct command *command, struct arg_table options)
{
	printf("usage: dircache %s%s%s\n\n%c%s.\n\nOptions:\n", command->name, *command->usage ? " " : "",
	       command->usage, toupper((unsigned char)command->summary[0]), command->summary + 1);
	args_print_help(options);
	print_global_options();
}

/* ---- arguments ---- */

/* Return: whether to go on. */
static bool stop_with(struct cli *cli, int status)
{
	cli->status = status;
	return false;
}

static bool parse(struct cli *cli, struct arg_table options, bool stop_early)
{
	struct arg_option global[GLOBAL_OPTIONS];
	const struct arg_table tables[2] = { options, ARG_TABLE(global) };
	AUTO_FREE char *problem = NULL;
	int first;

	global_options(cli, global);
	if ((first = args_parse(cli->argc, cli->argv, tables, stop_early, &problem)) < 0)
		return stop_with(cli, cli_usage(cli, "%s", problem));
	cli->argc -= first;
	cli->argv += first;
	return true;
}

bool cli_global_args(struct cli *cli, int argc, char **argv)
{
	cli->argc = argc;
	cli->argv = argv;
	if (!parse(cli, (struct arg_table){ NULL, 0 }, true))
		return false;
	if (cli->version) {
		puts("dircache " PACKAGE_VERSION);
		return stop_with(cli, STATUS_DONE);
	}
	if (cli->help && cli->argc == 0) {
		cli_print_help();
		return stop_with(cli, STATUS_DONE);
	}
	if (cli->argc == 0)
		return stop_with(cli, cli_usage(cli, "a command is missing"));
	return true;
}

bool cli_args(struct cli *cli, struct arg_table options)
{
	const struct command *command = cli->command;

	if (!parse(cli, options, false))
		return false;
	if (cli->help) {
		print_command_help(command, options);
		return stop_with(cli, STATUS_DONE);
	}
	if (cli->version) {
		puts("dircache " PACKAGE_VERSION);
		return stop_with(cli, STATUS_DONE);
	}
	if (cli->argc < command->least)
		return stop_with(cli, cli_usage(cli, "an argument is missing"));
	if (cli->argc > command->most)
		return stop_with(cli,
				 cli_usage(cli, "'%s' is an argument too many", cli->argv[command->most]));
	return true;
}

bool cli_open(struct cli *cli)
{
	struct dircache_error error;

	if (dircache_open(cli->socket, cli->no_start ? DIRCACHE_NO_START : 0, &cli->dc, &error) ==
	    DIRCACHE_OK)
		return true;
	return stop_with(cli, cli_fail(cli, &error));
}

bool cli_args_open(struct cli *cli)
{
	return cli_args(cli, (struct arg_table){ NULL, 0 }) && cli_open(cli);
}
