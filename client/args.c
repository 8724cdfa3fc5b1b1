/* SPDX-License-Identifier: Apache-2.0 */
#include "client/args.h"

#include <assert.h>
#include <errno.h>
#include <getopt.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/auto.h"

enum { OPTIONS_MAX = 32, FIRST_VALUE = 256 }; /* what getopt_long() returns for the i-th: FIRST_VALUE + i */

struct parser {
	const struct arg_option *options[OPTIONS_MAX];
	struct option longs[OPTIONS_MAX + 1];
	char shorts[2 + 2 * OPTIONS_MAX + 1];
	size_t n, n_shorts;
};

static void add_option(struct parser *p, const struct arg_option *option)
{
	int has_value = option->value ? required_argument : no_argument;

	assert(p->n < OPTIONS_MAX);
	p->longs[p->n] = (struct option){ option->name, has_value, NULL, FIRST_VALUE + (int)p->n };
	p->options[p->n++] = option;
	if (option->letter)
		p->shorts[p->n_shorts++] = option->letter;
	if (option->letter && option->value)
		p->shorts[p->n_shorts++] = ':';
}

static void parser_init(struct parser *p, const struct arg_table tables[2], bool stop_early)
{
	*p = (struct parser){ 0 };
	if (stop_early)
		p->shorts[p->n_shorts++] = '+';
	p->shorts[p->n_shorts++] = ':'; /* tell a missing value from an unknown option */
	for (size_t t = 0; t < 2; t++)
		for (size_t i = 0; i < tables[t].n; i++)
			add_option(p, &tables[t].options[i]);
}

static const struct arg_option *find_option(const struct parser *p, int c)
{
	if (c >= FIRST_VALUE && (size_t)(c - FIRST_VALUE) < p->n)
		return p->options[c - FIRST_VALUE];
	for (size_t i = 0; i < p->n; i++)
		if (c && p->options[i]->letter == c)
			return p->options[i];
	return NULL;
}

/* What getopt_long() stumbled over: a short option by its letter, a long one as it was written. */
static char *say_problem(int c, char **argv)
{
	const char *what = c == ':' ? "needs a value" : "is not an option here, or not used so";

	if (optopt > 0 && optopt < FIRST_VALUE)
		return xasprintf("'-%c' %s", optopt, what);
	return xasprintf("'%s' %s", argv[optind - 1], what);
}

int args_parse(int argc, char **argv, const struct arg_table tables[2], bool stop_early, char **problem)
{
	struct parser p;
	int c;

	parser_init(&p, tables, stop_early);
	opterr = 0;
	optind = 0; /* begin anew */
	while ((c = getopt_long(argc, argv, p.shorts, p.longs, NULL)) != -1) {
		const struct arg_option *option = find_option(&p, c);

		if (!option) {
			*problem = say_problem(c, argv);
			return -EINVAL;
		}
		if (option->flag)
			*option->flag = true;
		if (option->text)
			*option->text = optarg;
	}
	return optind;
}

void args_print_help(struct arg_table table)
{
	for (size_t i = 0; i < table.n; i++) {
		const struct arg_option *o = &table.options[i];
		AUTO_FREE char *letter = o->letter ? xasprintf("-%c,", o->letter) : xstrdup("");
		AUTO_FREE char *name =
			xasprintf("--%s%s%s", o->name, o->value ? " " : "", o->value ? o->value : "");

		printf("  %-3s %-16s %s\n", letter, name, o->help);
	}
}

int args_parse_seconds(const char *text, unsigned *ms)
{
	char *end;
	double seconds;

	errno = 0;
	seconds = strtod(text, &end);
	if (errno || end == text || *end || !isfinite(seconds) || seconds < 0 || seconds > INT_MAX / 1000)
		return -EINVAL;
	*ms = (unsigned)(seconds * 1000);
	return 0;
}
