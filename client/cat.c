/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dircache_cat: the daemon hands out a descriptor of the blob, and the bytes go from there without it.
 *
 * The descriptor is read at offsets of our own: whoever else shares its position does not matter.
 */
#include "client/dircache.h"

#include <errno.h>
#include <poll.h>
#include <sys/sendfile.h>
#include <unistd.h>

#include "client/connection.h"

enum { COPY_SIZE = 128 << 10, STEP_MAX = 1 << 30 };

/* Ways to move bytes, each for what the one before cannot do. */
typedef ssize_t copy_fn(int in, off_t *offset, int out, size_t len);

/* From file to file: shares extents where the file system can. */
static ssize_t by_copy_file_range(int in, off_t *offset, int out, size_t len)
{
	return copy_file_range(in, offset, out, NULL, len, 0);
}

/* To a pipe or a socket. */
static ssize_t by_sendfile(int in, off_t *offset, int out, size_t len)
{
	return sendfile(out, in, offset, len);
}

/* To all else: O_APPEND, odd devices and file systems. */
static ssize_t by_hand(int in, off_t *offset, int out, size_t len)
{
	char buf[COPY_SIZE];
	ssize_t n = pread(in, buf, len < sizeof(buf) ? len : sizeof(buf), *offset);

	if (n > 0 && (n = write(out, buf, (size_t)n)) > 0)
		*offset += n;
	return n;
}

static copy_fn *const copiers[] = { by_copy_file_range, by_sendfile, by_hand };

/* One step, by the first copier that can. Return: bytes, or a negative errno. */
static ssize_t copy_step(size_t *copier, int in, off_t *offset, int out, size_t len)
{
	ssize_t n;

	/* 0 bytes too: some file systems and kernels say so where they cannot. */
	while ((n = copiers[*copier](in, offset, out, len)) <= 0) {
		int r = n < 0 ? -errno : 0;

		if (r == -EINTR)
			continue;
		if (r == -EAGAIN)
			(void)poll(&(struct pollfd){ .fd = out, .events = POLLOUT }, 1, -1);
		else if (r == -ENOSPC || r == -EPIPE || r == -EDQUOT || *copier + 1 == N_ELEMENTS(copiers))
			return r;
		else
			(*copier)++;
	}
	return n;
}

static int copy_all(int in, int out, uint64_t size, struct err *err)
{
	size_t copier = 0;
	off_t offset = 0;

	while ((uint64_t)offset < size) {
		uint64_t left = size - (uint64_t)offset;
		ssize_t n = copy_step(&copier, in, &offset, out, left < STEP_MAX ? left : STEP_MAX);

		if (n < 0)
			return err_errno(err, (int)n, "writing the blob");
		if (n == 0)
			return err_set(err, ERR_INTERNAL, "the blob ends after %jd of its %ju bytes",
				       (intmax_t)offset, (uintmax_t)size);
	}
	return 0;
}

static int cat(struct dircache *dc, const char *text, int fd, struct err *err)
{
	static const struct wire_field fields[] = { { "size", WIRE_UINT, true, 0, 0 } };
	AUTO_CLOSE int blob = -1;
	struct digest digest;
	uint64_t size;
	int r;

	if ((r = connection_parse_digest(text, &digest, err)) < 0)
		return r;
	wire_put_digest(connection_request(dc, "cat", 1), "digest", &digest);
	if ((r = connection_call(dc, -1, err)) < 0 ||
	    (r = connection_decode(dc, fields, 1, &size, "cat", err)) < 0)
		return r;
	if ((blob = connection_take_fd(dc, err)) < 0)
		return blob;
	return copy_all(blob, fd, size, err);
}

enum dircache_code dircache_cat(struct dircache *dc, const char *digest, int fd, struct dircache_error *error)
{
	struct err err = { 0 };

	connection_begin(dc);
	return connection_end(dc, cat(dc, digest, fd, &err), &err, error);
}
