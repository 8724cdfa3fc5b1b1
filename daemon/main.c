/* SPDX-License-Identifier: Apache-2.0 */
/* dircached: a cache of directory trees, laid out by hard links. */
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <sys/stat.h>

#include "common/log.h"
#include "daemon/disk.h"
#include "daemon/options.h"
#include "daemon/server.h"

enum { EXIT_USAGE = 2 };

/* Whoever started us with 0, 1 or 2 closed: the log must not go to whatever would be opened there. */
static void fill_standard_descriptors(void)
{
	int fd;

	do
		fd = disk_openat(AT_FDCWD, "/dev/null", O_RDWR, 0);
	while (fd >= 0 && fd <= 2);
	disk_close(fd);
}

/*
 * Modes are what the code says; a peer that hangs up, or a file beyond RLIMIT_FSIZE, is no reason to die.
 * malloc puts small pieces that are freed aside, and joins all of them when a large one is freed: more than a
 * millisecond, on the loop, when a hundred thousand names went before (mallopt(3), M_MXFAST).
 */
static void settle_process(void)
{
	(void)mallopt(M_MXFAST, 0);
	(void)umask(0);
	(void)signal(SIGPIPE, SIG_IGN);
	(void)signal(SIGXFSZ, SIG_IGN);
}

int main(int argc, char **argv)
{
	struct options options;
	struct err err = { 0 };
	int r;

	fill_standard_descriptors();
	log_init("dircached", LOG_LEVEL_INFO);
	r = options_read(&options, argc, argv, &err);
	if (r == OPTIONS_GO) {
		log_init("dircached", options.verbose ? LOG_LEVEL_DEBUG : LOG_LEVEL_INFO);
		settle_process();
		r = server_run(&options, &err);
		if (r < 0)
			log_error("%s", err.text);
		r = r < 0 ? 1 : 0;
	} else if (r < 0) {
		log_error("%s", err.text);
		r = EXIT_USAGE;
	} else {
		r = 0;
	}
	options_fini(&options);
	return r;
}
