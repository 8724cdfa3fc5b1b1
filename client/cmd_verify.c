/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#include "client/cli.h"
#include "client/progress.h"
#include "client/text.h"
#include "common/size.h"

/* KIND WHAT: expected THIS, found THAT; how it was repaired */
static void print_fault(const struct dircache_fault *fault, bool repair)
{
	printf("%s ", fault->kind);
	text_print_name(fault->name ? fault->name : fault->digest, isatty(STDOUT_FILENO));
	if (fault->name && fault->digest)
		printf(" (%s)", fault->digest);
	printf(": expected %s, found %s", fault->expected, fault->found);
	if (repair)
		printf("; %s: %s", fault->repaired ? "repaired" : "not repaired",
		       fault->repair ? fault->repair : "");
	putchar('\n');
}

static void print(const struct dircache_verify *verify, bool repair)
{
	for (size_t i = 0; i < verify->n_faults; i++)
		print_fault(&verify->faults[i], repair);
	if (verify->n_faults < verify->faults_total)
		printf("and %" PRIu64 " faults more\n", verify->faults_total - verify->n_faults);
	printf("verified %" PRIu64 " files of %s with %" PRIu64 " links, %" PRIu64 " trees, %" PRIu64
	       " tags: %" PRIu64 " faults",
	       verify->files, SIZE_TEXT(verify->bytes), verify->links, verify->trees, verify->tags,
	       verify->faults_total);
	if (repair && verify->faults_total)
		printf(", %" PRIu64 " repaired", verify->repaired_total);
	putchar('\n');
}

/* As fsck(8) has it, what was put right is no reason to fail, unless something is left. */
static int status_of(const struct dircache_verify *verify)
{
	return verify->faults_total == verify->repaired_total ? STATUS_DONE : STATUS_FAILED;
}

int cmd_verify(struct cli *cli)
{
	const char *rate = NULL;
	bool repair = false;
	const struct arg_option table[] = {
		{ 0, "repair", NULL, "put right what is wrong", &repair, NULL },
		{ 0, "rate", "SIZE", "read no more bytes a second than this", NULL, &rate },
	};
	struct progress progress;
	struct dircache_verify_options options = { .data = &progress };
	struct dircache_error error;
	struct dircache_verify verify;
	enum dircache_code code;

	if (!cli_args(cli, ARG_TABLE(table)))
		return cli->status;
	options.repair = repair;
	if (rate && (size_parse(rate, &options.rate) < 0 || !options.rate))
		return cli_usage(cli, "--rate '%s' is no size: a number, and K, M, G or T", rate);
	if (!cli_open(cli))
		return cli->status;
	options.progress = progress_start(&progress);
	code = dircache_verify(cli->dc, &options, &verify, &error);
	progress_stop(&progress);
	if (code != DIRCACHE_OK)
		return cli_fail(cli, &error);
	if (cli->json)
		cli_print_answer(cli);
	else
		print(&verify, repair);
	return status_of(&verify);
}
