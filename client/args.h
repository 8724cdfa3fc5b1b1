/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Args: the command line by tables, from which its help comes too.
 */
#ifndef DIRCACHE_CLIENT_ARGS_H
#define DIRCACHE_CLIENT_ARGS_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

struct arg_option {
	char letter;       /* or 0 */
	const char *name;  /* without dashes */
	const char *value; /* what the help calls its value; NULL: the option is a flag */
	const char *help;
	bool *flag;        /* set when given; or */
	const char **text; /* points at the value */
};

struct arg_table {
	const struct arg_option *options;
	size_t n;
};

/* For a table that is an array. */
#define ARG_TABLE(array) ((struct arg_table){ (array), sizeof(array) / sizeof((array)[0]) })

enum { ARGS_ANY = INT_MAX };

/**
 * Read options.
 *
 * @tables      two of them, either may be empty
 * @stop_early  at the first argument that is no option (else options may stand behind arguments too)
 * @problem     out: on failure what is wrong, the caller's to free()
 *
 * Return: the index of the first argument that is no option (the arguments are moved behind the options);
 * or -EINVAL.
 */
int args_parse(int argc, char **argv, const struct arg_table tables[2], bool stop_early, char **problem);

/* Print a table's options, one a line, to standard output. */
void args_print_help(struct arg_table table);

/**
 * Read a number of seconds, such as 10 or 0.5, as milliseconds.
 *
 * Return: 0, or -EINVAL.
 */
int args_parse_seconds(const char *text, unsigned *ms);

#endif
