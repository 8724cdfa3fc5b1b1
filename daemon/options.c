/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/options.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <ini.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/path.h"
#include "common/size.h"
#include "daemon/disk.h"

enum { WORKERS_MAX = 256, IDLE_MAX = 365 * 24 * 3600 };

struct option_row {
	const char *name, *value;
	int (*read)(void *member, const char *text);
	size_t offset;
	const char *help;
};

/* ---- values: 0, or -EINVAL ---- */

static int read_text(void *member, const char *text)
{
	char **p = member;

	if (!*text)
		return -EINVAL;
	free(*p);
	*p = xstrdup(text);
	return 0;
}

static int read_in_base(uint64_t *number, const char *text, int base, uint64_t min, uint64_t max)
{
	unsigned long long value;
	char *end;

	errno = 0;
	value = strtoull(text, &end, base);
	if (errno || end == text || *end || *text == '-' || value < min || value > max)
		return -EINVAL;
	*number = value;
	return 0;
}

static int read_workers(void *member, const char *text)
{
	return read_in_base(member, text, 10, 1, WORKERS_MAX);
}

static int read_number(void *member, const char *text)
{
	return read_in_base(member, text, 10, 0, IDLE_MAX);
}

static int read_limit(void *member, const char *text)
{
	return read_in_base(member, text, 10, 1, INT64_MAX);
}

static int read_size(void *member, const char *text)
{
	return size_parse(text, member) < 0 ? -EINVAL : 0;
}

static int read_mode(void *member, const char *text)
{
	return read_in_base(member, text, 8, 0, 0777);
}

static int read_bool(void *member, const char *text)
{
	bool *p = member;

	*p = strcmp(text, "yes") == 0;
	return *p || strcmp(text, "no") == 0 ? 0 : -EINVAL;
}

/* ---- the table ---- */

static const struct option_row rows[] = {
#define OPTION(name, value, member, read, help) { name, value, read, offsetof(struct options, member), help },
#include "daemon/options.def"
#undef OPTION
};

enum { N_ROWS = N_ELEMENTS(rows), OPTION_CONFIG = 1000, OPTION_HELP, OPTION_VERSION };

static int set(struct options *options, const struct option_row *row, const char *text, const char *where,
	       struct err *err)
{
	if (row->read((char *)options + row->offset, text) == 0)
		return 0;
	return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s: '%s' will not do: %s", where, row->name, text,
		       row->help);
}

/* ---- the file ---- */

struct file_context {
	struct options *options;
	const char *path;
	struct err *err;
};

static int on_line(void *ctx, const char *section, const char *name, const char *value)
{
	struct file_context *file = ctx;

	for (size_t i = 0; !*section && i < N_ROWS; i++)
		if (strcmp(rows[i].name, name) == 0)
			return set(file->options, &rows[i], value, file->path, file->err) == 0;
	err_set(file->err, ERR_INVALID_ARGUMENT, "%s: there is no option '%s%s%s'", file->path, section,
		*section ? "." : "", name);
	return 0;
}

static int read_file(struct options *options, const char *path, struct err *err)
{
	struct file_context file = { .options = options, .path = path, .err = err };
	struct stat st;
	int line;

	if (disk_fstatat(AT_FDCWD, path, &st, 0) == 0 && S_ISDIR(st.st_mode)) /* which reads as empty */
		return err_errno(err, -EISDIR, "reading the configuration file '%s'", path);
	line = ini_parse(path, on_line, &file);
	if (line == 0)
		return 0;
	if (line < 0)
		return err_errno(err, -errno, "reading the configuration file '%s'", path);
	err_set(err, ERR_INVALID_ARGUMENT, "%s: not understood", path);
	err_prefix(err, "line %d: ", line);
	return -EINVAL;
}

/* ---- the command line ---- */

static void print_help(void)
{
	printf("Usage: dircached [OPTION...]\n"
	       "Keep a cache of directory trees and lay them out for clients, by hard links.\n\n"
	       "  --config FILE               read options from a file first: `store = DIR`, ...\n");
	for (size_t i = 0; i < N_ROWS; i++) {
		char left[40];

		(void)snprintf(left, sizeof(left), "--%s%s%s", rows[i].name, rows[i].value ? " " : "",
			       rows[i].value ? rows[i].value : "");
		printf("  %-27s %s\n", left, rows[i].help);
	}
	printf("  --help                      print this\n"
	       "  --version                   print the version\n\n"
	       "DIRCACHE_STORE and DIRCACHE_SOCKET override the file, options override both. See "
	       "dircached(8).\n");
}

static void fill_getopt(struct option table[N_ROWS + 4])
{
	memset(table, 0, (N_ROWS + 4) * sizeof(*table));
	for (size_t i = 0; i < N_ROWS; i++)
		table[i] = (struct option){ rows[i].name, rows[i].value ? required_argument : no_argument,
					    NULL, (int)i };
	table[N_ROWS] = (struct option){ "config", required_argument, NULL, OPTION_CONFIG };
	table[N_ROWS + 1] = (struct option){ "help", no_argument, NULL, OPTION_HELP };
	table[N_ROWS + 2] = (struct option){ "version", no_argument, NULL, OPTION_VERSION };
}

static int parse(struct options *options, int argc, char **argv, bool config_only, struct err *err)
{
	struct option table[N_ROWS + 4];
	int c, r = 0;

	fill_getopt(table);
	optind = 0;
	opterr = 0;
	while (r == 0 && (c = getopt_long(argc, argv, "", table, NULL)) != -1) {
		if (c == OPTION_HELP) {
			print_help();
			return OPTIONS_DONE;
		}
		if (c == OPTION_VERSION) {
			puts(PACKAGE_STRING);
			return OPTIONS_DONE;
		}
		if (c == '?')
			return err_set(err, ERR_INVALID_ARGUMENT,
				       "'%s': no such option, or its value is missing; see --help",
				       argv[optind - 1]);
		if (c == OPTION_CONFIG)
			r = config_only ? read_file(options, optarg, err) : 0;
		else if (!config_only)
			r = set(options, &rows[c], optarg ? optarg : "yes", "command line", err);
	}
	if (r == 0 && optind < argc)
		return err_set(err, ERR_INVALID_ARGUMENT, "'%s': dircached takes options only; see --help",
			       argv[optind]);
	return r;
}

static int read_environment(struct options *options, struct err *err)
{
	const char *store = getenv("DIRCACHE_STORE"), *socket = getenv("DIRCACHE_SOCKET");
	int r = 0;

	if (store && *store)
		r = set(options, &rows[0], store, "DIRCACHE_STORE", err);
	if (r == 0 && socket && *socket)
		r = set(options, &rows[1], socket, "DIRCACHE_SOCKET", err);
	return r;
}

int options_read(struct options *options, int argc, char **argv, struct err *err)
{
	int r;

	*options = (struct options){
		.socket_mode = 0600,
		.node_memory = 256 << 20,
		.message_timeout = 60,
		.limits = tree_default_limits,
		.user = { .connections = 1000, .requests = 4096, .tags = 5000, .leases = 10000 }
	};
	if ((r = parse(options, argc, argv, true, err)) != 0)
		return r;
	if ((r = read_environment(options, err)) < 0)
		return r;
	if ((r = parse(options, argc, argv, false, err)) != 0)
		return r;
	if (!options->store)
		options->store = path_default_store();
	if (!options->socket)
		options->socket = path_default_socket();
	return OPTIONS_GO;
}

void options_fini(struct options *options)
{
	free(options->store);
	free(options->socket);
	free(options->socket_group);
}
