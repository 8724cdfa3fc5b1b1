/* SPDX-License-Identifier: Apache-2.0 */
#include "client/start.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "common/alloc.h"
#include "common/auto.h"
#include "common/path.h"
#include "common/socket.h"

enum {
	START_MS = 30 * 1000, /* until the socket answers */
	STEP_MS = 2,          /* between looks at it */
	LOG_TAIL_SIZE = 700,  /* bytes of the log that reach the user */
};

/* In place of a pidfd: the daemon has ended already, and init has reaped it. */
enum { DAEMON_GONE = -ESRCH };

/* What is needed between fork and exec, made before, for nothing may be allocated there. */
struct launch {
	char *program;
	char **environment; /* borrowed strings */
	int null, log, report;
};

/* What the daemon-to-be reports through a pipe: its pid, then perhaps why exec failed. */
struct report {
	pid_t pid;
	int errnum; /* 0: none */
};

static void launch_fini(struct launch *launch)
{
	free(launch->program);
	free(launch->environment);
	if (launch->null >= 0)
		(void)close(launch->null);
	if (launch->log >= 0)
		(void)close(launch->log);
	if (launch->report >= 0)
		(void)close(launch->report);
}

/* ---- which program, with what ---- */

/* dircached in the folder of the running program, or NULL. */
static char *program_beside_us(void)
{
	char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	AUTO_FREE char *program = NULL;
	char *slash;

	if (n < 0)
		return NULL;
	path[n] = '\0';
	slash = strrchr(path, '/');
	if (!slash)
		return NULL;
	*slash = '\0';
	program = xasprintf("%s/dircached", path);
	return access(program, X_OK) == 0 ? TAKE(program) : NULL;
}

static char *find_program(void)
{
	const char *setting = getenv("DIRCACHE_DAEMON");
	char *program;

	if (setting && *setting) { /* perhaps relative to the folder that the daemon will not be in */
		program = realpath(setting, NULL);
		return program ? program : xstrdup(setting);
	}
	program = program_beside_us();
	return program ? program : xstrdup(DIRCACHE_BINDIR "/dircached");
}

/* What a service manager told this process about itself. */
static bool is_ours_alone(const char *variable)
{
	static const char *const names[] = { "NOTIFY_SOCKET=",  "LISTEN_",        "WATCHDOG_",
					     "JOURNAL_STREAM=", "INVOCATION_ID=", "MAINPID=" };

	for (size_t i = 0; i < N_ELEMENTS(names); i++)
		if (strncmp(variable, names[i], strlen(names[i])) == 0)
			return true;
	return false;
}

static char **make_environment(void)
{
	size_t n = 0, n_kept = 0;
	char **kept;

	while (environ && environ[n])
		n++;
	kept = xcalloc(n + 1, sizeof(*kept));
	for (size_t i = 0; i < n; i++)
		if (!is_ours_alone(environ[i]))
			kept[n_kept++] = environ[i];
	return kept;
}

static int open_log(const char *path, struct err *err)
{
	const char *slash = strrchr(path, '/');
	AUTO_FREE char *folder = xmemdupz(path, slash ? (size_t)(slash - path) : 0);
	int fd, r;

	if (*folder && (r = path_make_folders(folder, 0700, err)) < 0)
		return r;
	fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY | O_CLOEXEC, 0600);
	return fd >= 0 ? fd : err_errno(err, -errno, "opening the daemon's log '%s'", path);
}

/* Where the caller has closed standard input, output or error, ours must not take their place. */
static int move_up(int *fd)
{
	int up;

	if (*fd > STDERR_FILENO)
		return 0;
	up = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
	if (up < 0)
		return -errno;
	(void)close(*fd);
	*fd = up;
	return 0;
}

static int launch_init(struct launch *launch, const char *log, struct err *err)
{
	int r;

	launch->program = find_program();
	launch->environment = make_environment();
	launch->null = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (launch->null < 0)
		return err_errno(err, -errno, "opening '/dev/null'");
	if ((launch->log = open_log(log, err)) < 0)
		return launch->log;
	if ((r = move_up(&launch->null)) < 0 || (r = move_up(&launch->log)) < 0 ||
	    (r = move_up(&launch->report)) < 0)
		return err_errno(err, r, "duplicating a descriptor");
	return 0;
}

/* ---- between fork and exec: async-signal-safe functions only ---- */

static void reset_signals(void)
{
	sigset_t none;

	for (int sig = 1; sig < NSIG; sig++)
		(void)signal(sig, SIG_DFL); /* fails for some that cannot be set */
	sigemptyset(&none);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* A daemon that may hold a descriptor above all it closes later would keep our pipes open. */
static int place_descriptors(const struct launch *launch)
{
	if (dup2(launch->null, STDIN_FILENO) < 0 || dup2(launch->log, STDOUT_FILENO) < 0 ||
	    dup2(launch->log, STDERR_FILENO) < 0)
		return -errno;
	/* On exec rather than now: the report must still go out when that fails. */
	return close_range(STDERR_FILENO + 1, ~0u, CLOSE_RANGE_CLOEXEC) < 0 ? -errno : 0;
}

static void send_report(int fd, int errnum)
{
	struct report report = { .pid = getpid(), .errnum = errnum };

	(void)!write(fd, &report, sizeof(report));
}

_Noreturn static void become_daemon(const struct launch *launch)
{
	char *argv[] = { launch->program, NULL };
	int r;

	reset_signals();
	send_report(launch->report, 0);
	if ((r = place_descriptors(launch)) == 0 && chdir("/") == 0)
		(void)execve(launch->program, argv, launch->environment);
	send_report(launch->report, r < 0 ? -r : errno);
	_exit(127);
}

/* The one in between leads the session and goes, so the daemon is init's and never gets a terminal. */
_Noreturn static void become_parent(const struct launch *launch)
{
	pid_t pid;

	(void)setsid();
	pid = fork();
	if (pid == 0)
		become_daemon(launch);
	if (pid < 0)
		send_report(launch->report, errno);
	_exit(0);
}

/* ---- launching ---- */

static void reap(pid_t pid)
{
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
}

/* No handler of this process may run in the new one. */
static pid_t fork_quietly(const struct launch *launch)
{
	sigset_t all, before;
	pid_t pid;

	sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &before);
	pid = fork();
	if (pid == 0)
		become_parent(launch);
	(void)pthread_sigmask(SIG_SETMASK, &before, NULL);
	return pid;
}

/* Return: whether there was one more. */
static bool read_report(int fd, struct report *report)
{
	ssize_t n;

	while ((n = read(fd, report, sizeof(*report))) < 0 && errno == EINTR)
		continue;
	return n == sizeof(*report);
}

/* Hear the reports until exec closes the pipe. Return: a pidfd, DAEMON_GONE, or a
 * negative errno. */
static int hear(int fd, const char *program, struct err *err)
{
	struct report report, first = { 0 };
	int pidfd;

	while (read_report(fd, &report)) {
		if (report.errnum)
			return err_errno(err, -report.errnum, "running '%s'", program);
		first = report;
	}
	if (first.pid == 0)
		return err_set(err, ERR_INTERNAL, "'%s' could not be started", program);
	pidfd = pidfd_open(first.pid, 0);
	if (pidfd < 0 && errno != ESRCH)
		return err_errno(err, -errno, "watching '%s'", program);
	return pidfd < 0 ? DAEMON_GONE : pidfd;
}

static int launch_daemon(const char *log, struct err *err)
{
	CLEANUP(launch_fini) struct launch launch = { .null = -1, .log = -1, .report = -1 };
	AUTO_CLOSE int in = -1;
	int fds[2], r;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return err_errno(err, -errno, "making a pipe");
	in = fds[0];
	launch.report = fds[1];
	if ((r = launch_init(&launch, log, err)) < 0)
		return r;
	if ((pid = fork_quietly(&launch)) < 0)
		return err_errno(err, -errno, "starting '%s'", launch.program);
	reap(pid);
	(void)close(TAKE_FD(launch.report));
	return hear(in, launch.program, err);
}

/* ---- waiting ---- */

static int64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * INT64_C(1000) + now.tv_nsec / 1000000;
}

/* Wait a moment. Return: whether the daemon has ended. */
static bool has_ended(int pidfd)
{
	struct pollfd pollfd = { .fd = pidfd, .events = POLLIN };

	return pidfd == DAEMON_GONE || poll(&pollfd, 1, STEP_MS) > 0;
}

/* The last that was written to the log since then. Return: text that the caller free()s. */
static char *read_log(const char *path, off_t since)
{
	AUTO_CLOSE int fd = open(path, O_RDONLY | O_NOCTTY | O_CLOEXEC);
	char tail[LOG_TAIL_SIZE];
	off_t end = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
	ssize_t n;

	if (end <= since)
		return xstrdup("");
	if (end - since > LOG_TAIL_SIZE)
		since = end - LOG_TAIL_SIZE;
	n = pread(fd, tail, sizeof(tail), since);
	return xmemdupz(tail, n > 0 ? (size_t)n : 0);
}

/* The lines of the log as one of ours. */
static int say_why(const char *log, off_t since, struct err *err)
{
	AUTO_FREE char *text = read_log(log, since);
	AUTO_FREE char *said = xstrdup("");
	char *rest = NULL;

	for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
		char *longer = xasprintf("%s%s%s", said, *said ? "; " : "", line);

		free(said);
		said = longer;
	}
	if (*said)
		return err_set(err, ERR_UNAVAILABLE, "the daemon ended: %s", said);
	return err_set(err, ERR_UNAVAILABLE, "the daemon ended; its log '%s' does not say why", log);
}

static int wait_for_socket(const char *socket, int pidfd, const char *log, off_t since, struct err *err)
{
	int64_t end = now_ms() + START_MS;

	do {
		bool ended = has_ended(pidfd);
		int sock = socket_connect(socket, 0, NULL);

		if (sock >= 0)
			return sock;
		if (ended)
			return say_why(log, since, err);
	} while (now_ms() < end);
	return err_set(err, ERR_UNAVAILABLE,
		       "the daemon was started, but did not answer within %d s (log: '%s')", START_MS / 1000,
		       log);
}

/* ---- one at a time ---- */

static int lock_start(const char *socket, struct err *err)
{
	AUTO_FREE char *path = xasprintf("%s.start", socket);
	AUTO_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_NOCTTY | O_CLOEXEC, 0600);

	if (fd < 0)
		return err_errno(err, -errno, "opening '%s'", path);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return err_errno(err, -errno, "locking '%s'", path);
	return TAKE_FD(fd);
}

static off_t log_size(const char *log)
{
	struct stat st;

	return stat(log, &st) == 0 ? st.st_size : 0;
}

int start_daemon(const char *socket, struct err *err)
{
	AUTO_FREE char *log = path_default_log();
	AUTO_CLOSE int lock = -1;
	AUTO_CLOSE int pidfd = -1;
	off_t since;
	int r;

	if ((r = path_make_socket_folder(socket, err)) < 0)
		return r;
	if ((lock = lock_start(socket, err)) < 0)
		return lock;
	if ((r = socket_connect(socket, 0, NULL)) >= 0)
		return r; /* who held the lock before us started it */
	since = log_size(log);
	pidfd = launch_daemon(log, err);
	if (pidfd < 0 && pidfd != DAEMON_GONE)
		return pidfd;
	return wait_for_socket(socket, pidfd, log, since, err);
}
