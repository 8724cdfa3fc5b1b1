/* SPDX-License-Identifier: Apache-2.0 */
#include "client/args.h"

#include <errno.h>
#include <string.h>

#include "tests/unit/unit.h"

enum { ARGC_MAX = 8 };

/* A command line, parsed by a table of each kind of option. */
struct parsed {
	char *argv[ARGC_MAX + 1];
	bool all, json;
	const char *name;
	char *problem;
	int first; /* what args_parse() returned */
};

static void parse(struct parsed *p, bool stop_early, const char *line)
{
	static char words[256];
	const struct arg_option own[] = {
		{ 'a', "all", NULL, "", &p->all, NULL },
		{ 'n', "name", "NAME", "", NULL, &p->name },
	};
	const struct arg_option global[] = {
		{ 0, "json", NULL, "", &p->json, NULL },
	};
	const struct arg_table tables[2] = { ARG_TABLE(own), ARG_TABLE(global) };
	int argc = 0;

	*p = (struct parsed){ 0 };
	ck_assert_uint_lt(strlen(line), sizeof(words));
	memcpy(words, line, strlen(line) + 1);
	for (char *rest, *word = strtok_r(words, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
		p->argv[argc++] = word;
	p->first = args_parse(argc, p->argv, tables, stop_early, &p->problem);
}

static void check_problem(const char *line, const char *words)
{
	struct parsed p;

	parse(&p, false, line);
	ck_assert_int_eq(p.first, -EINVAL);
	ck_assert_msg(strstr(p.problem, words) != NULL, "'%s' does not say '%s'", p.problem, words);
	free(p.problem);
}

START_TEST(options_of_both_tables_are_read)
{
	struct parsed p;

	parse(&p, false, "cmd -a --name=x --json one");
	ck_assert(p.all && p.json);
	ck_assert_str_eq(p.name, "x");
	ck_assert_int_eq(p.first, 4);
	ck_assert_str_eq(p.argv[4], "one");
}
END_TEST

START_TEST(options_may_stand_behind_arguments)
{
	struct parsed p;

	parse(&p, false, "cmd one two -n x --json");
	ck_assert(p.json);
	ck_assert_str_eq(p.name, "x");
	ck_assert_str_eq(p.argv[p.first], "one");
	ck_assert_str_eq(p.argv[p.first + 1], "two");
}
END_TEST

START_TEST(the_options_of_a_command_are_left_to_it)
{
	struct parsed p;

	parse(&p, true, "prog --json cmd --all");
	ck_assert(p.json && !p.all);
	ck_assert_int_eq(p.first, 2);
}
END_TEST

START_TEST(two_dashes_end_options)
{
	struct parsed p;

	parse(&p, false, "cmd -- --all");
	ck_assert(!p.all);
	ck_assert_str_eq(p.argv[p.first], "--all");
}
END_TEST

START_TEST(each_parse_begins_anew)
{
	struct parsed p;

	parse(&p, true, "prog --json cmd");
	parse(&p, false, "cmd --all x");
	ck_assert(p.all);
	ck_assert_str_eq(p.argv[p.first], "x");
}
END_TEST

START_TEST(what_is_wrong_is_named)
{
	check_problem("cmd --nonsense", "'--nonsense'");
	check_problem("cmd -x", "'-x'");
	check_problem("cmd --name", "'--name' needs a value");
	check_problem("cmd -n", "'-n' needs a value");
	check_problem("cmd --all=1", "'--all=1'");
}
END_TEST

START_TEST(seconds_are_read_to_the_millisecond)
{
	unsigned ms;

	ck_assert_int_eq(args_parse_seconds("10", &ms), 0);
	ck_assert_uint_eq(ms, 10000);
	ck_assert_int_eq(args_parse_seconds("0.25", &ms), 0);
	ck_assert_uint_eq(ms, 250);
	ck_assert_int_eq(args_parse_seconds("0", &ms), 0);
	ck_assert_uint_eq(ms, 0);
}
END_TEST

START_TEST(what_is_no_number_of_seconds_is_refused)
{
	static const char *const texts[] = { "", "x", "1x", "-1", "nan", "inf", "1e99", "9999999" };
	unsigned ms;

	for (size_t i = 0; i < N_ELEMENTS(texts); i++)
		ck_assert_msg(args_parse_seconds(texts[i], &ms) == -EINVAL, "'%s'", texts[i]);
}
END_TEST

UNIT_MAIN("args", options_of_both_tables_are_read, options_may_stand_behind_arguments,
	  the_options_of_a_command_are_left_to_it, two_dashes_end_options, each_parse_begins_anew,
	  what_is_wrong_is_named, seconds_are_read_to_the_millisecond,
	  what_is_no_number_of_seconds_is_refused)
