/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/options.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/unit.h"

static struct options options;
static struct err err;
static char config[64];

static int read_words(const char *words)
{
	static char copy[512], *argv[32];
	int argc = 1;

	options_fini(&options);
	err_clear(&err);
	(void)snprintf(copy, sizeof(copy), "%s", words);
	argv[0] = (char[]){ "dircached" };
	for (char *word = strtok(copy, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	return options_read(&options, argc, argv, &err);
}

static void ck_go(const char *words)
{
	ck_assert_msg(read_words(words) == OPTIONS_GO, "%s: %s", words, err.text);
}

static void ck_bad(const char *words, const char *says)
{
	ck_assert_int_eq(read_words(words), -EINVAL);
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, says);
}

static void setup(void)
{
	(void)unsetenv("DIRCACHE_STORE");
	(void)unsetenv("DIRCACHE_SOCKET");
	(void)snprintf(config, sizeof(config), "%s/config-%d", unit_folder, (int)getpid());
}

static const char *with_config(const char *text)
{
	static char words[128];
	FILE *file = fopen(config, "w");

	ck_assert_ptr_nonnull(file);
	ck_assert_int_ge(fputs(text, file), 0);
	(void)fclose(file);
	(void)snprintf(words, sizeof(words), "--config %s", config);
	return words;
}

static const char *with_config_and(const char *text, const char *more)
{
	static char words[256];

	(void)snprintf(words, sizeof(words), "%s %s", with_config(text), more);
	return words;
}

START_TEST(without_any_there_are_defaults_for_all)
{
	setup();
	ck_go("");
	ck_assert_ptr_nonnull(options.store);
	ck_assert_ptr_nonnull(options.socket);
	ck_assert_uint_eq(options.workers, 0);
	ck_assert_uint_eq(options.max_size, 0);
	ck_assert_uint_eq(options.min_free, 0);
	ck_assert_uint_eq(options.node_memory, 256 << 20);
	ck_assert_uint_eq(options.limits.files, 10000000);
	ck_assert_uint_eq(options.limits.bytes, 0);
	ck_assert_uint_eq(options.socket_mode, 0600);
	ck_assert_ptr_null(options.socket_group);
	ck_assert_uint_eq(options.idle_timeout, 0);
	ck_assert(!options.verbose);
	options_fini(&options);
}
END_TEST

START_TEST(options_come_in_order_defaults_file_environment_command_line)
{
	static const char text[] = "store = /file/store\nsocket = /file/socket\nworkers = 3\n";

	setup();
	ck_go(with_config(text));
	ck_assert_str_eq(options.store, "/file/store");
	ck_assert_str_eq(options.socket, "/file/socket");
	ck_assert_uint_eq(options.workers, 3);
	ck_assert_int_eq(setenv("DIRCACHE_STORE", "/env/store", 1), 0);
	ck_assert_int_eq(setenv("DIRCACHE_SOCKET", "", 1), 0); /* as if it were not set */
	ck_go(with_config(text));
	ck_assert_str_eq(options.store, "/env/store");
	ck_assert_str_eq(options.socket, "/file/socket");
	ck_go(with_config_and(text, "--store /line/store --workers 4"));
	ck_assert_str_eq(options.store, "/line/store");
	ck_assert_uint_eq(options.workers, 4);
	ck_go("--store /first --store /last");
	ck_assert_str_eq(options.store, "/last");
	options_fini(&options);
}
END_TEST

/* Wherever it stands, a file comes before the command line. */
START_TEST(the_place_of_config_on_the_command_line_does_not_matter)
{
	char words[256];

	setup();
	(void)snprintf(words, sizeof(words), "--workers 4 %s",
		       with_config("workers = 3\nidle-timeout = 9\n"));
	ck_go(words);
	ck_assert_uint_eq(options.workers, 4);
	ck_assert_uint_eq(options.idle_timeout, 9);
	options_fini(&options);
}
END_TEST

START_TEST(values_are_checked_and_the_message_names_option_and_value)
{
	setup();
	ck_bad("--workers 0", "workers: '0' will not do");
	ck_bad("--workers 257", "workers");
	ck_bad("--workers -1", "workers");
	ck_bad("--workers 4x", "workers");
	ck_bad("--workers 99999999999999999999", "workers");
	ck_bad("--socket-mode 1000", "socket-mode: '1000'");
	ck_bad("--socket-mode 8", "socket-mode");
	ck_bad("--idle-timeout never", "idle-timeout: 'never'");
	ck_bad("--store=", "store: ''");
	ck_go("--workers 256 --socket-mode 0666 --idle-timeout 31536000 --socket-group staff --verbose");
	ck_assert_uint_eq(options.workers, 256);
	ck_assert_uint_eq(options.socket_mode, 0666);
	ck_assert_uint_eq(options.idle_timeout, 31536000);
	ck_assert_str_eq(options.socket_group, "staff");
	ck_assert(options.verbose);
	options_fini(&options);
}
END_TEST

START_TEST(what_is_no_option_is_refused_by_name)
{
	setup();
	ck_bad("--nonsense", "'--nonsense'");
	ck_bad("--workers", "'--workers'");
	ck_bad("extra", "'extra': dircached takes options only");
	ck_bad("--workers 2 extra", "'extra'");
	options_fini(&options);
}
END_TEST

START_TEST(a_bad_file_is_refused_with_its_name_and_line)
{
	setup();
	ck_bad(with_config("store = /s\n\nnonsense = 1\n"), "line 3: ");
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, "there is no option 'nonsense'");
	unit_ck_err(&err, ERR_INVALID_ARGUMENT, config);
	ck_bad(with_config("[section]\nstore = /s\n"), "'section.store'");
	ck_bad(with_config("workers = many\n"), "workers: 'many'");
	ck_bad(with_config("store = /s\nno equals sign\n"), "line 2: ");
	ck_bad(with_config("verbose = maybe\n"), "verbose");
	ck_go(with_config("# a comment\nverbose = yes\n; another\nstore = /with blanks in it\n"));
	ck_assert(options.verbose);
	ck_assert_str_eq(options.store, "/with blanks in it");
	ck_go(with_config(""));
	options_fini(&options);
}
END_TEST

START_TEST(a_file_that_cannot_be_read_is_refused)
{
	setup();
	ck_assert_int_eq(read_words("--config /nonexistent/config"), -ENOENT);
	ck_assert_ptr_nonnull(strstr(err.text, "/nonexistent/config"));
	ck_assert_int_lt(read_words("--config /"), 0); /* a folder is no empty file */
	ck_assert_ptr_nonnull(strstr(err.text, "'/'"));
	options_fini(&options);
}
END_TEST

START_TEST(a_long_path_in_the_file_is_taken_whole_or_refused)
{
	char text[512], longest[400];
	int r;

	setup();
	memset(longest, 'p', sizeof(longest));
	longest[0] = '/';
	longest[sizeof(longest) - 1] = '\0';
	(void)snprintf(text, sizeof(text), "store = %s\n", longest);
	r = read_words(with_config(text));
	if (r == OPTIONS_GO)
		ck_assert_str_eq(options.store, longest);
	else
		unit_ck_err(&err, ERR_INVALID_ARGUMENT, config);
	options_fini(&options);
}
END_TEST

START_TEST(sizes_take_the_units_of_people)
{
	setup();
	ck_go("--max-size 10G --min-free 512m");
	ck_assert_uint_eq(options.max_size, (uint64_t)10 << 30);
	ck_assert_uint_eq(options.min_free, (uint64_t)512 << 20);
	ck_go(with_config("max-size = 4096\n"));
	ck_assert_uint_eq(options.max_size, 4096);
	ck_bad("--max-size 10GB", "max-size: '10GB'");
	ck_bad("--max-size -1", "max-size: '-1'");
	ck_bad("--min-free lots", "min-free: 'lots'");
	ck_go("--node-memory 1M --max-tree-size 2T");
	ck_assert_uint_eq(options.node_memory, 1 << 20);
	ck_assert_uint_eq(options.limits.bytes, (uint64_t)2 << 40);
	options_fini(&options);
}
END_TEST

START_TEST(limits_of_trees_are_numbers_from_one_on)
{
	setup();
	ck_go("--max-tree-files 1 --max-tree-directories 2 --max-tree-depth 3 --max-directory-entries 4");
	ck_assert_uint_eq(options.limits.files, 1);
	ck_assert_uint_eq(options.limits.directories, 2);
	ck_assert_uint_eq(options.limits.depth, 3);
	ck_assert_uint_eq(options.limits.entries, 4);
	ck_bad("--max-tree-files 0", "max-tree-files: '0'");
	ck_bad("--max-tree-depth -3", "max-tree-depth: '-3'");
	ck_bad("--max-directory-entries 1K", "max-directory-entries: '1K'");
	options_fini(&options);
}
END_TEST

START_TEST(help_and_version_are_answered_at_once)
{
	setup();
	ck_assert_int_ge(dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO), 0);
	ck_assert_int_eq(read_words("--help"), OPTIONS_DONE);
	ck_assert_int_eq(read_words("--version"), OPTIONS_DONE);
	options_fini(&options);
}
END_TEST

UNIT_MAIN("options", without_any_there_are_defaults_for_all,
	  options_come_in_order_defaults_file_environment_command_line,
	  the_place_of_config_on_the_command_line_does_not_matter,
	  values_are_checked_and_the_message_names_option_and_value, what_is_no_option_is_refused_by_name,
	  a_bad_file_is_refused_with_its_name_and_line, a_file_that_cannot_be_read_is_refused,
	  a_long_path_in_the_file_is_taken_whole_or_refused, sizes_take_the_units_of_people,
	  limits_of_trees_are_numbers_from_one_on, help_and_version_are_answered_at_once)
