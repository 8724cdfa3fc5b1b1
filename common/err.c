/* SPDX-License-Identifier: Apache-2.0 */
#include "common/err.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/auto.h"
#include "common/escape.h"

enum { ERR_REASON_SIZE = 64 }; /* holds every message of strerror(3) */

#define ERR_TEXT_(name, text) [name] = text,
static const char *const code_texts[] = { ERR_CODES(ERR_TEXT_) };

/* What err_set() returns; err_code_of_errno() leads back. */
static const int code_errnos[] = {
	[ERR_INTERNAL] = EIO,
	[ERR_NOT_FOUND] = ENOENT,
	[ERR_INVALID_ARGUMENT] = EINVAL,
	[ERR_PERMISSION_DENIED] = EPERM,
	[ERR_NO_SPACE] = ENOSPC,
	[ERR_FAILED_PRECONDITION] = EBUSY,
	[ERR_UNAVAILABLE] = ESHUTDOWN,
	[ERR_RESOURCE_EXHAUSTED] = ENOBUFS,
	[ERR_CANCELLED] = ECANCELED,
};

static const struct {
	int errnum;
	enum err_code code;
} errno_codes[] = {
	{ ENOENT, ERR_NOT_FOUND },
	{ EINVAL, ERR_INVALID_ARGUMENT },
	{ EBADMSG, ERR_INVALID_ARGUMENT },
	{ ENAMETOOLONG, ERR_INVALID_ARGUMENT },
	{ EILSEQ, ERR_INVALID_ARGUMENT },
	{ ERANGE, ERR_INVALID_ARGUMENT },
	{ EOVERFLOW, ERR_INVALID_ARGUMENT },
	{ EPERM, ERR_PERMISSION_DENIED },
	{ EACCES, ERR_PERMISSION_DENIED },
	{ ENOSPC, ERR_NO_SPACE },
	{ EDQUOT, ERR_NO_SPACE },
	{ EFBIG, ERR_NO_SPACE },
	{ EROFS, ERR_FAILED_PRECONDITION },
	{ EBUSY, ERR_FAILED_PRECONDITION },
	{ EADDRINUSE, ERR_FAILED_PRECONDITION },
	{ EEXIST, ERR_FAILED_PRECONDITION },
	{ ENOTEMPTY, ERR_FAILED_PRECONDITION },
	{ ENOTDIR, ERR_FAILED_PRECONDITION },
	{ EISDIR, ERR_FAILED_PRECONDITION },
	{ ELOOP, ERR_FAILED_PRECONDITION },
	{ EXDEV, ERR_FAILED_PRECONDITION },
	{ ESTALE, ERR_FAILED_PRECONDITION },
	{ ETXTBSY, ERR_FAILED_PRECONDITION },
	{ EMLINK, ERR_RESOURCE_EXHAUSTED },
	{ EMFILE, ERR_RESOURCE_EXHAUSTED },
	{ ENFILE, ERR_RESOURCE_EXHAUSTED },
	{ ENOMEM, ERR_RESOURCE_EXHAUSTED },
	{ ENOBUFS, ERR_RESOURCE_EXHAUSTED },
	{ EMSGSIZE, ERR_RESOURCE_EXHAUSTED },
	{ ETOOMANYREFS, ERR_RESOURCE_EXHAUSTED },
	{ ESHUTDOWN, ERR_UNAVAILABLE },
	{ EAGAIN, ERR_UNAVAILABLE },
	{ EPIPE, ERR_UNAVAILABLE },
	{ ECONNREFUSED, ERR_UNAVAILABLE },
	{ ECONNRESET, ERR_UNAVAILABLE },
	{ ETIMEDOUT, ERR_UNAVAILABLE },
	{ EHOSTUNREACH, ERR_UNAVAILABLE },
	{ ENETUNREACH, ERR_UNAVAILABLE },
	{ ECANCELED, ERR_CANCELLED },
};

const char *err_code_text(enum err_code code)
{
	assert((size_t)code < N_ELEMENTS(code_texts));
	return code_texts[code];
}

enum err_code err_code_parse(const char *text, size_t len)
{
	for (size_t i = 0; i < N_ELEMENTS(code_texts); i++)
		if (strlen(code_texts[i]) == len && memcmp(code_texts[i], text, len) == 0)
			return (enum err_code)i;
	return ERR_INTERNAL;
}

enum err_code err_code_of_errno(int errnum)
{
	for (size_t i = 0; i < N_ELEMENTS(errno_codes); i++)
		if (errno_codes[i].errnum == errnum)
			return errno_codes[i].code;
	return ERR_INTERNAL;
}

static void set_text(struct err *err, enum err_code code, const char *text)
{
	err->set = true;
	err->code = code;
	escape_text(err->text, sizeof(err->text), text, strlen(text));
}

__attribute__((format(printf, 2, 0))) static void format_text(char *buf, const char *format, va_list args)
{
	if (vsnprintf(buf, ERR_TEXT_SIZE, format, args) < 0)
		buf[0] = '\0';
}

int err_set(struct err *err, enum err_code code, const char *format, ...)
{
	assert((size_t)code < N_ELEMENTS(code_errnos));
	if (err && !err->set) {
		char text[ERR_TEXT_SIZE];
		va_list args;

		va_start(args, format);
		format_text(text, format, args);
		va_end(args);
		set_text(err, code, text);
	}
	return -code_errnos[code];
}

static const char *reason_text(int errnum, char buf[ERR_REASON_SIZE])
{
	const char *text = strerrordesc_np(errnum);

	if (text)
		(void)snprintf(buf, ERR_REASON_SIZE, "%s", text);
	else
		(void)snprintf(buf, ERR_REASON_SIZE, "error %d", errnum);
	return buf;
}

int err_errno(struct err *err, int r, const char *format, ...)
{
	assert(r < 0);
	if (err && !err->set) {
		char text[ERR_TEXT_SIZE], whole[ERR_TEXT_SIZE], reason[ERR_REASON_SIZE];
		va_list args;

		va_start(args, format);
		format_text(text, format, args);
		va_end(args);
		/* The words are cut rather than the reason. */
		(void)snprintf(whole, sizeof(whole), "%.*s: %s", ERR_TEXT_SIZE - ERR_REASON_SIZE - 2, text,
			       reason_text(-r, reason));
		set_text(err, err_code_of_errno(-r), whole);
	}
	return r;
}

void err_prefix(struct err *err, const char *format, ...)
{
	char text[ERR_TEXT_SIZE], whole[2 * ERR_TEXT_SIZE];
	va_list args;

	if (!err || !err->set)
		return;
	va_start(args, format);
	format_text(text, format, args);
	va_end(args);
	(void)snprintf(whole, sizeof(whole), "%s%s", text, err->text);
	set_text(err, err->code, whole);
}

void err_clear(struct err *err)
{
	if (!err)
		return;
	err->set = false;
	err->code = ERR_INTERNAL;
	err->text[0] = '\0';
}
