/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/verify_internal.h"

#include <inttypes.h>
#include <string.h>

#include "common/alloc.h"

const char *verify_type_text(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return "a file";
	case S_IFDIR:
		return "a folder";
	case S_IFLNK:
		return "a symlink";
	default:
		return "a pipe, socket or device";
	}
}

char *verify_mode_text(mode_t mode)
{
	return xasprintf("mode %04o", (unsigned)(mode & 07777));
}

char *verify_owner_text(uid_t uid)
{
	return xasprintf("user %u", (unsigned)uid);
}

static char *hash_text(const struct digest *digest)
{
	return xasprintf("SHA-256 %.*s", DIGEST_HEX_SIZE, DIGEST_TEXT(digest));
}

static char *time_text(const struct timespec *time)
{
	return xasprintf("time %jd.%09ld", (intmax_t)time->tv_sec, time->tv_nsec);
}

static char *size_text(uint64_t size)
{
	return xasprintf("%" PRIu64 " bytes", size);
}

/* Without the row's word there is none. */
static uint64_t row_allocated(const struct catalog_entry *entry, enum blob_kind kind)
{
	return entry ? catalog_row(entry).allocated[kind] : 0;
}

void verify_describe(const struct verify *verify, enum verify_kind kind, const struct catalog_entry *entry,
		     const struct blob_exam *exam, char *words[2])
{
	const struct blob_store *store = verify->cache->store;
	const struct timespec mtime = blob_mtime(store);

	switch (kind) {
	case VERIFY_TYPE:
		words[0] = xstrdup("a file");
		words[1] = xstrdup(verify_type_text(exam->st.st_mode));
		break;
	case VERIFY_UNREADABLE:
		words[0] = xstrdup("a file that can be read");
		words[1] = xstrdup(strerror(exam->why));
		break;
	case VERIFY_BYTES:
		words[0] = hash_text(&exam->digest);
		words[1] = hash_text(&exam->found);
		break;
	case VERIFY_MODE:
		words[0] = verify_mode_text(blob_kind_mode(exam->kind));
		words[1] = verify_mode_text(exam->st.st_mode);
		break;
	case VERIFY_OWNER:
		words[0] = verify_owner_text(blob_owner(store));
		words[1] = verify_owner_text(exam->st.st_uid);
		break;
	case VERIFY_TIME:
		words[0] = time_text(&mtime);
		words[1] = time_text(&exam->st.st_mtim);
		break;
	case VERIFY_NO_FILE:
		words[0] = xstrdup("a file");
		words[1] = xstrdup("none");
		break;
	case VERIFY_NO_ROW:
		words[0] = xstrdup("a blob that the index has");
		words[1] = xstrdup("one that it does not have");
		break;
	case VERIFY_SIZE:
		words[0] = size_text(exam->found.size);
		words[1] = entry ? size_text(entry->digest.size) : xstrdup("none");
		break;
	default: /* VERIFY_ALLOCATED: the others are not about files of blobs */
		words[0] = size_text((uint64_t)exam->st.st_blocks * 512);
		words[1] = size_text(row_allocated(entry, exam->kind));
		break;
	}
}
