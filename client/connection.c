/* SPDX-License-Identifier: Apache-2.0 */
#include "client/connection.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/alloc.h"
#include "common/socket.h"

enum { RECEIVE_SIZE = 64 << 10 };

/* ---- the handle ---- */

struct dircache *connection_new(int sock)
{
	struct dircache *dc = xcalloc(1, sizeof(*dc));

	dc->sock = sock;
	dc->capacity = RECEIVE_SIZE;
	dc->in = xmalloc(dc->capacity);
	wire_scanner_init(&dc->scanner, &wire_default_limits);
	return dc;
}

static void forget_message(struct dircache *dc)
{
	wire_message_fini(&dc->message);
	memset(&dc->message, 0, sizeof(dc->message));
	dc->missing = NULL;
}

void connection_begin(struct dircache *dc)
{
	forget_message(dc);
	while (dc->n_fds)
		(void)close(dc->fds[--dc->n_fds]);
	while (dc->n_kept)
		free(dc->kept[--dc->n_kept]);
	dc->progress = NULL;
	dc->first_id = dc->id + 1;
}

void connection_free(struct dircache *dc)
{
	if (!dc)
		return;
	connection_begin(dc);
	(void)close(dc->sock);
	wire_out_fini(&dc->out);
	free(dc->in);
	free(dc->kept);
	free(dc);
}

void *connection_keep(struct dircache *dc, void *p)
{
	dc->kept = xgrow(dc->kept, dc->n_kept, &dc->kept_capacity, sizeof(*dc->kept));
	dc->kept[dc->n_kept++] = p;
	return p;
}

char *connection_keep_text(struct dircache *dc, struct wire_bytes bytes)
{
	return connection_keep(dc, xmemdupz(bytes.data ? bytes.data : "", bytes.len));
}

char *connection_keep_digest(struct dircache *dc, const struct digest *digest)
{
	return connection_keep(dc, xstrdup(DIGEST_TEXT(digest)));
}

/* ---- errors ---- */

static enum dircache_code public_code(enum err_code code)
{
	static const enum dircache_code codes[] = {
		[ERR_INTERNAL] = DIRCACHE_INTERNAL,
		[ERR_NOT_FOUND] = DIRCACHE_NOT_FOUND,
		[ERR_INVALID_ARGUMENT] = DIRCACHE_INVALID_ARGUMENT,
		[ERR_PERMISSION_DENIED] = DIRCACHE_PERMISSION_DENIED,
		[ERR_NO_SPACE] = DIRCACHE_NO_SPACE,
		[ERR_FAILED_PRECONDITION] = DIRCACHE_FAILED_PRECONDITION,
		[ERR_UNAVAILABLE] = DIRCACHE_UNAVAILABLE,
		[ERR_RESOURCE_EXHAUSTED] = DIRCACHE_RESOURCE_EXHAUSTED,
		[ERR_CANCELLED] = DIRCACHE_CANCELLED,
	};

	assert((size_t)code < N_ELEMENTS(codes));
	return codes[code];
}

enum dircache_code error_fill(const struct err *err, struct dircache_error *error)
{
	enum dircache_code code = public_code(err->code);

	if (!error)
		return code;
	error->code = code;
	error->n_missing = 0;
	(void)snprintf(error->message, sizeof(error->message), "%s", err->text);
	return code;
}

static void fill_missing(const struct wire_value *missing, struct dircache_error *error)
{
	size_t n = missing ? wire_array_size(missing) : 0;

	for (size_t i = 0; i < n && error->n_missing < DIRCACHE_MISSING_MAX; i++) {
		struct digest digest;

		if (wire_as_digest(wire_array_at(missing, i), &digest) == 0)
			digest_print(&digest, error->missing[error->n_missing++]);
	}
}

enum dircache_code connection_end(struct dircache *dc, int r, const struct err *err,
				  struct dircache_error *error)
{
	enum dircache_code code;

	if (r == 0)
		return DIRCACHE_OK;
	assert(err->set);
	code = error_fill(err, error);
	if (error)
		fill_missing(dc->missing, error);
	return code;
}

/* ---- sending ---- */

struct wire_out *connection_request(struct dircache *dc, const char *method, size_t n_params)
{
	dc->out.len = 0;
	wire_request(&dc->out, ++dc->id, method);
	wire_map(&dc->out, n_params);
	return &dc->out;
}

static int lose(struct dircache *dc, int r, const char *doing, struct err *err)
{
	dc->lost = true;
	return err_errno(err, r, "%s the daemon", doing);
}

/* Only where somebody made the socket time out (SO_SNDTIMEO) or non-blocking. */
static void wait_for(int sock, short events)
{
	struct pollfd pollfd = { .fd = sock, .events = events };

	(void)poll(&pollfd, 1, -1);
}

/* The daemon closed its end, perhaps after saying why. Return: a negative errno. */
static int hear_last_words(struct dircache *dc, struct err *err)
{
	int r;

	while ((r = connection_await(dc, err)) == 0)
		continue;
	dc->lost = true;
	return r;
}

int connection_send(struct dircache *dc, const int *fds, size_t n_fds, struct err *err)
{
	size_t sent = 0;

	if (dc->lost)
		return err_set(err, ERR_UNAVAILABLE, "the connection to the daemon is lost");
	while (sent < dc->out.len) {
		/* Descriptors go with the first bytes, whole. */
		ssize_t n =
			socket_send(dc->sock, dc->out.data + sent, dc->out.len - sent, fds, sent ? 0 : n_fds);

		if (n >= 0)
			sent += (size_t)n;
		else if (n == -EAGAIN)
			wait_for(dc->sock, POLLOUT);
		else if (n == -ETOOMANYREFS && sent == 0)
			return -ETOOMANYREFS;
		else if (n == -EPIPE || n == -ECONNRESET)
			return hear_last_words(dc, err);
		else
			return lose(dc, (int)n, "sending to", err);
	}
	return 0;
}

/* ---- receiving ---- */

static void make_room(struct dircache *dc)
{
	if (dc->start) {
		memmove(dc->in, dc->in + dc->start, dc->len - dc->start);
		dc->len -= dc->start;
		dc->start = 0;
	}
	if (dc->capacity - dc->len >= RECEIVE_SIZE)
		return;
	dc->capacity = 2 * dc->capacity + RECEIVE_SIZE;
	dc->in = xreallocarray(dc->in, dc->capacity, 1);
}

/* Descriptors nobody asked for must not pile up. */
static void take_descriptors(struct dircache *dc, const int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (dc->n_fds < N_ELEMENTS(dc->fds))
			dc->fds[dc->n_fds++] = fds[i];
		else
			(void)close(fds[i]);
}

static int receive_bytes(struct dircache *dc, struct err *err)
{
	int fds[WIRE_DESCRIPTORS_MAX];
	struct socket_received received;
	int r;

	make_room(dc);
	while ((r = socket_receive(dc->sock, dc->in + dc->len, dc->capacity - dc->len, fds, &received)) ==
	       -EAGAIN)
		wait_for(dc->sock, POLLIN);
	if (r < 0)
		return lose(dc, r, "receiving from", err);
	take_descriptors(dc, fds, received.n_fds);
	if (received.truncated)
		return lose(dc, -EMFILE, "receiving descriptors from", err);
	if (received.n == 0) {
		dc->lost = true;
		return err_set(err, ERR_UNAVAILABLE, "the daemon closed the connection");
	}
	dc->len += (size_t)received.n;
	return 0;
}

/* The next message, into dc->message. */
static int receive_message(struct dircache *dc, struct err *err)
{
	size_t len;
	int r;

	forget_message(dc);
	while ((r = wire_scanner_feed(&dc->scanner, dc->in + dc->start, dc->len - dc->start, err)) ==
	       WIRE_MORE)
		if ((r = receive_bytes(dc, err)) < 0)
			return r;
	if (r < 0) {
		dc->lost = true;
		return r;
	}
	len = dc->scanner.offset;
	r = wire_parse(dc->in + dc->start, len, &dc->message, err);
	dc->start += len;
	wire_scanner_init(&dc->scanner, &wire_default_limits);
	dc->lost |= r < 0;
	return r;
}

static bool bytes_are(struct wire_bytes bytes, const char *text)
{
	return bytes.len == strlen(text) && memcmp(bytes.data, text, bytes.len) == 0;
}

static int read_error(struct dircache *dc, const struct wire_value *error, struct err *err)
{
	wire_read_error(error, err, &dc->missing);
	assert(err->set);
	return -EREMOTEIO;
}

struct progress_message {
	struct dircache_progress progress;
	uint64_t id;
};

static void report_progress(struct dircache *dc)
{
	static const struct wire_field fields[] = {
		{ "id", WIRE_UINT, true, offsetof(struct progress_message, id), 0 },
		{ "files", WIRE_UINT, true, offsetof(struct progress_message, progress.files), 0 },
		{ "files_total", WIRE_UINT, false, offsetof(struct progress_message, progress.files_total),
		  0 },
		{ "bytes", WIRE_UINT, false, offsetof(struct progress_message, progress.bytes), 0 },
		{ "bytes_total", WIRE_UINT, false, offsetof(struct progress_message, progress.bytes_total),
		  0 },
	};
	struct progress_message message = { 0 };

	if (!dc->progress ||
	    wire_decode_open(dc->message.params, fields, N_ELEMENTS(fields), &message, "progress", NULL) < 0)
		return;
	if (message.id == dc->id)
		dc->progress(dc->progress_data, &message.progress);
}

/* What the daemon says unasked. Return: 0, or a negative errno when it gives the connection up. */
static int on_notification(struct dircache *dc, struct err *err)
{
	if (bytes_are(dc->message.method, "progress"))
		report_progress(dc);
	if (!bytes_are(dc->message.method, "error"))
		return 0;
	dc->lost = true;
	return read_error(dc, dc->message.params, err);
}

int connection_await(struct dircache *dc, struct err *err)
{
	int r;

	for (;;) {
		if ((r = receive_message(dc, err)) < 0)
			return r;
		if (dc->message.type == WIRE_NOTIFICATION && (r = on_notification(dc, err)) < 0)
			return r;
		/* Ids count up and may wrap: compare by distance. */
		if (dc->message.type == WIRE_RESPONSE && (int32_t)(dc->message.id - dc->first_id) >= 0)
			return dc->message.error ? read_error(dc, dc->message.error, err) : 0;
	}
}

void connection_pause(void)
{
	(void)nanosleep(&(struct timespec){ .tv_nsec = 1000 * 1000 }, NULL);
}

int connection_call(struct dircache *dc, int fd, struct err *err)
{
	int r;

	dc->first_id = dc->id;
	while ((r = connection_send(dc, &fd, fd >= 0, err)) == -ETOOMANYREFS)
		connection_pause();
	return r < 0 ? r : connection_await(dc, err);
}

int connection_decode(struct dircache *dc, const struct wire_field *fields, size_t n_fields, void *out,
		      const char *what, struct err *err)
{
	int r;

	if (!dc->message.result || wire_kind(dc->message.result) != WIRE_IS_MAP)
		return err_set(err, ERR_INTERNAL, "the daemon's answer to %s is no map", what);
	if ((r = wire_decode_open(dc->message.result, fields, n_fields, out, what, err)) < 0) {
		err_prefix(err, "the daemon's answer is not understood: ");
		err->code = ERR_INTERNAL; /* not the caller's argument */
	}
	return r;
}

int connection_take_fd(struct dircache *dc, struct err *err)
{
	int fd;

	if (dc->n_fds == 0)
		return err_set(err, ERR_INTERNAL, "the daemon's answer came without its descriptor");
	fd = dc->fds[0];
	memmove(dc->fds, dc->fds + 1, --dc->n_fds * sizeof(fd));
	return fd;
}

/* ---- params ---- */

void connection_put_what(struct wire_out *out, const char *what)
{
	struct digest digest;

	if (digest_parse(what, strlen(what), &digest) == 0)
		wire_put_digest(out, "digest", &digest);
	else
		wire_put_text(out, "tag", what);
}

int connection_parse_digest(const char *text, struct digest *digest, struct err *err)
{
	if (digest_parse(text, strlen(text), digest) == 0)
		return 0;
	return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is no digest (64 hexadecimal digits, '/', the size)",
		       text);
}
