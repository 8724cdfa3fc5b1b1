/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "client/cli.h"
#include "client/progress.h"

enum { LEASE_SECONDS_MAX = 7 * 24 * 60 * 60 }; /* docs/PROTOCOL.md */

/* Copies where links were expected fill disks: nobody shall wonder why. */
static void report(const struct cli *cli, enum dircache_mode mode, const struct dircache_materialized *done)
{
	if (cli->json)
		cli_print_answer(cli);
	if (done->fallback)
		cli_warn(cli, "warning: %" PRIu64 " files were %s rather than %s: %s", done->fallback_copies,
			 done->files_copied ? "copied" : "reflinked",
			 mode == DIRCACHE_LINK ? "linked" : "reflinked", done->fallback);
}

static bool parse_mode(const char *text, enum dircache_mode *mode)
{
	const char *word;

	for (*mode = DIRCACHE_LINK; (word = dircache_mode_text(*mode)); ++*mode)
		if (strcmp(text, word) == 0)
			return true;
	return false;
}

/* What is wrong with the options together, or NULL. */
static const char *find_conflict(const struct dircache_materialize_options *how)
{
	if (how->executable && !how->file)
		return "--executable goes with --file";
	if (how->lease_seconds && how->file)
		return "--lease is for trees, not with --file";
	if (how->require_link && (how->mode != DIRCACHE_LINK || how->writable))
		return "--require-link goes with --mode link, and not with --writable";
	return NULL;
}

static bool parse_lease(const char *text, unsigned *seconds)
{
	uint64_t number = 0;

	for (const char *p = text; *p; p++) {
		if (*p < '0' || *p > '9' || number > LEASE_SECONDS_MAX)
			return false;
		number = number * 10 + (uint64_t)(*p - '0');
	}
	*seconds = (unsigned)number;
	return number >= 1 && number <= LEASE_SECONDS_MAX;
}

int cmd_materialize(struct cli *cli)
{
	struct dircache_materialize_options how = { 0 };
	const char *mode = "link", *lease = NULL, *conflict;
	const struct arg_option options[] = {
		{ 0, "file", NULL, "DIGEST is a blob, TARGET a file", &how.file, NULL },
		{ 0, "executable", NULL, "with --file: make it executable", &how.executable, NULL },
		{ 0, "mode", "MODE", "link (default), reflink or copy", NULL, &mode },
		{ 0, "writable", NULL, "private files that their owner may write", &how.writable, NULL },
		{ 0, "require-link", NULL, "fail rather than copy", &how.require_link, NULL },
		{ 0, "lease", "SECONDS", "do not evict the tree for so long", NULL, &lease },
	};
	struct dircache_materialized done;
	struct dircache_error error;
	struct progress progress;
	enum dircache_code code;

	if (!cli_args(cli, ARG_TABLE(options)))
		return cli->status;
	if (!parse_mode(mode, &how.mode))
		return cli_usage(cli, "--mode is one of link, reflink and copy, not '%s'", mode);
	if (lease && !parse_lease(lease, &how.lease_seconds))
		return cli_usage(cli, "'%s' is no number of seconds from 1 to %d", lease, LEASE_SECONDS_MAX);
	if ((conflict = find_conflict(&how)))
		return cli_usage(cli, "%s", conflict);
	if (!cli_open(cli))
		return cli->status;
	how.progress = progress_start(&progress);
	how.data = &progress;
	code = dircache_materialize(cli->dc, cli->argv[0], cli->argv[1], &how, &done, &error);
	progress_stop(&progress);
	if (code != DIRCACHE_OK)
		return cli_fail(cli, &error);
	report(cli, how.mode, &done);
	return STATUS_DONE;
}
