/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/fuzz/input.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/alloc.h"
#include "tests/fuzz/client.h"
#include "tests/fuzz/world.h"

enum { ANY_KIND = 0xf0, MANY = 0xe0, DIGESTS_MANY = 5000, LONG_TEXT = 70000 };

uint8_t input_byte(struct input *input)
{
	if (!input->len)
		return 0;
	input->len--;
	return *input->bytes++;
}

size_t input_bytes(struct input *input, const uint8_t **bytes)
{
	size_t len = input_byte(input);

	if (len > input->len)
		len = input->len;
	*bytes = input->bytes;
	input->bytes += len;
	input->len -= len;
	return len;
}

/* ---- descriptors ---- */

static int open_file(mode_t mode, int flags)
{
	AUTO_FREE char *path = xasprintf("%s/file", world.folder);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, mode), again;

	assert(fd >= 0);
	again = flags == O_RDWR ? dup(fd) : open(path, flags | O_CLOEXEC);
	(void)unlink(path);
	if (again < 0)
		return fd;
	(void)close(fd);
	return again;
}

static int open_with_bytes(struct input *input, mode_t mode)
{
	const uint8_t *bytes;
	size_t len = input_bytes(input, &bytes);
	int fd = open_file(mode, O_RDWR);
	ssize_t n = pwrite(fd, bytes, len, 0);

	assert(n == (ssize_t)len);
	return fd;
}

/* Two bytes: how large, and of what. */
static int open_large(struct input *input)
{
	static const size_t sizes[] = { 1, 4096, 65535, 65536, 300000 };
	size_t size = sizes[input_byte(input) % N_ELEMENTS(sizes)];
	AUTO_FREE char *bytes = xmalloc(size);
	int fd = open_file(0600, O_RDWR);
	ssize_t n;

	memset(bytes, input_byte(input), size);
	n = pwrite(fd, bytes, size, 0);
	assert(n == (ssize_t)size);
	return fd;
}

/* One with a name, since world_check_idle() does not count those without. */
static int open_pipe(int flags)
{
	AUTO_FREE char *path = xasprintf("%s/pipe", world.folder);
	int r = mkfifo(path, 0600), fd;

	assert(r == 0);
	fd = open(path, flags | O_CLOEXEC);
	(void)unlink(path);
	return fd;
}

/* The inode that a digest has in the store, for writing: nobody has such a descriptor but us. */
static int open_blob(const struct digest *digest)
{
	char hex[DIGEST_TEXT_SIZE];
	AUTO_FREE char *path = NULL;
	int fd;

	digest_print(digest, hex);
	path = xasprintf("%s/blobs/%.2s/%.64s", world.store, hex, hex);
	fd = open(path, O_RDWR | O_CLOEXEC);
	return fd >= 0 ? fd : open("/dev/null", O_RDWR | O_CLOEXEC);
}

static int open_socket(void)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert(fd >= 0);
	return fd;
}

static int open_folder(const char *path, int flags)
{
	int fd = open(path, O_DIRECTORY | O_CLOEXEC | flags);

	return fd >= 0 ? fd : dup(world.out);
}

static int open_any(struct input *input)
{
	AUTO_FREE char *below = xasprintf("%s/out/t0", world.folder);

	switch (input_byte(input) % 18) {
	case 0:
		return dup(world.out);
	case 1:
		return open_with_bytes(input, 0600);
	case 2:
		return open_with_bytes(input, 0700);
	case 3:
		return open_large(input);
	case 4:
		return open_file(0600, O_RDONLY);
	case 5:
		return open_file(0600, O_WRONLY);
	case 6:
		return open_file(0600, O_PATH);
	case 7:
		return open_folder(world.folder, O_PATH);
	case 8:
		return open_folder(below, O_RDONLY);
	case 9:
		return open_folder(world.store, O_PATH);
	case 10:
		return open_pipe(O_RDWR);
	case 11:
		return open_pipe(O_RDONLY | O_NONBLOCK);
	case 12:
		return open_socket();
	case 13:
		return open("/dev/null", O_RDWR | O_CLOEXEC);
	case 14:
		return open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	case 15:
		return memfd_create("fuzz", MFD_CLOEXEC);
	case 16:
		return open_blob(&client_digests[input_byte(input) % CLIENT_DIGESTS]);
	default:
		return open_folder("/proc", O_RDONLY);
	}
}

void input_take_fds(struct input *input, struct input_fds *fds, size_t n)
{
	for (size_t i = 0; i < n && fds->n < WIRE_DESCRIPTORS_MAX; i++) {
		int fd = open_any(input);

		assert(fd >= 0);
		fds->fds[fds->n++] = fd;
	}
}

void input_close_fds(struct input_fds *fds)
{
	while (fds->n)
		(void)close(fds->fds[--fds->n]);
}

/* ---- values ---- */

/* What the writer of a value needs. */
struct writing {
	struct input *input;
	struct wire_out *out;
	struct input_fds *fds;
};

/* "*N" stands for a text of N bytes. */
static void write_text(struct wire_out *out, const char *text)
{
	size_t len = *text == '*' ? strtoul(text + 1, NULL, 10) : 0;
	AUTO_FREE char *many = xcalloc(1, len + 1);

	memset(many, 'n', len);
	wire_text(out, len ? many : text);
}

#define WRITE_TEXT(name, ...)                                                                                \
	static void name(const struct writing *w, uint8_t choice)                                            \
	{                                                                                                    \
		static const char *const texts[] = { __VA_ARGS__ };                                          \
                                                                                                             \
		write_text(w->out, texts[choice % N_ELEMENTS(texts)]);                                       \
	}

WRITE_TEXT(write_step, "begin", "entries", "commit", "abort", "step")
WRITE_TEXT(write_type, "file", "directory", "symlink", "type")
WRITE_TEXT(write_mode, "link", "reflink", "copy", "mode")
WRITE_TEXT(write_target_name, "t0", "t1", "t2", "t3", "", ".", "..", "t0/a", "/t0", CLIENTS_HIDDEN, "*255",
	   "*256")
WRITE_TEXT(write_tag, "one", "two", "a/b", "", "-", "/a", "*255", "*256",
	   "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855/0")
WRITE_TEXT(write_tree_path, "", "a", "d", "d/a", "/a", "..", "d/../a", "./a", "a/", "d//a", "*256")
WRITE_TEXT(write_entry_name, "a", "b", "c", "d", "", ".", "..", "a/b", "/", "*255", "*256")
WRITE_TEXT(write_link_target, "a", "../a", "/", "", "..", "*4096")
WRITE_TEXT(write_absolute_path, "/nowhere/t0", "t0", "/", "")

static void write_bool(const struct writing *w, uint8_t choice)
{
	wire_bool(w->out, choice & 1);
}

static void write_small(const struct writing *w, uint8_t choice)
{
	wire_uint(w->out, choice % 16);
}

static void write_uint(const struct writing *w, uint8_t choice)
{
	static const uint64_t numbers[] = { 0,       1,       2,          100,       4096,      65536,
					    1 << 20, 1 << 22, 1ull << 32, INT64_MAX, UINT64_MAX };

	wire_uint(w->out, numbers[choice % N_ELEMENTS(numbers)]);
}

static void write_lease(const struct writing *w, uint8_t choice)
{
	static const uint64_t seconds[] = { 1, 604800, 0, 604801, UINT64_MAX };

	wire_uint(w->out, seconds[choice % N_ELEMENTS(seconds)]);
}

/* None at which it takes longer than anybody waits. */
static void write_rate(const struct writing *w, uint8_t choice)
{
	static const uint64_t rates[] = { 0, 1 << 28, UINT64_MAX };

	wire_uint(w->out, rates[choice % N_ELEMENTS(rates)]);
}

static void write_digest(const struct writing *w, uint8_t choice)
{
	struct digest digest = client_digests[choice % CLIENT_DIGESTS];
	char text[DIGEST_TEXT_SIZE + 1];

	switch (choice / CLIENT_DIGESTS % 5) {
	case 0:
	case 1:
		break;
	case 2:
		digest.size++;
		break;
	case 3:
		digest.hash[0] ^= 1;
		break;
	default:
		digest_print(&digest, text);
		text[choice % 64] = '/';
		wire_text(w->out, text);
		return;
	}
	wire_digest(w->out, &digest);
}

static void write_any(const struct writing *w, uint8_t choice);

static void write_digests(const struct writing *w, uint8_t choice)
{
	size_t n = choice == MANY ? DIGESTS_MANY : choice % 6;

	wire_array(w->out, n);
	for (size_t i = 0; i < n; i++) {
		uint8_t byte = input_byte(w->input);

		if (byte >= ANY_KIND)
			write_any(w, byte);
		else
			write_digest(w, byte);
	}
}

/* Also opens them: as many as the value says, or others. */
static void write_fds(const struct writing *w, uint8_t choice)
{
	size_t n = choice % 4;

	wire_uint(w->out, choice == MANY ? WIRE_DESCRIPTORS_MAX : n + (choice / 4 % 8 == 7));
	input_take_fds(w->input, w->fds, n);
	while (choice == MANY && w->fds->n < WIRE_DESCRIPTORS_MAX) {
		w->fds->fds[w->fds->n] = dup(world.out);
		assert(w->fds->fds[w->fds->n] >= 0);
		w->fds->n++;
	}
}

/* Of any kind, whatever the key wants. */
static void write_any(const struct writing *w, uint8_t choice)
{
	static const char text[LONG_TEXT];
	struct wire_out *out = w->out;

	switch (choice % 16) {
	case 0:
		wire_nil(out);
		break;
	case 1:
		wire_bool(out, true);
		break;
	case 2:
		wire_int(out, INT64_MIN);
		break;
	case 3:
		wire_uint(out, UINT64_MAX);
		break;
	case 4:
		wire_float(out, 0.5);
		break;
	case 5:
		wire_text(out, "");
		break;
	case 6:
		wire_bytes(out, "a\0b", 3);
		break;
	case 7:
		wire_bytes(out, "\xff\xfe", 2);
		break;
	case 8:
		wire_bytes(out, text, sizeof(text));
		break;
	case 9:
		wire_array(out, 0);
		break;
	case 10:
		wire_map(out, 0);
		break;
	case 11:
		wire_map(out, 1);
		wire_nil(out);
		wire_nil(out);
		break;
	case 12:
		wire_array(out, 1);
		write_any(w, input_byte(w->input));
		break;
	default: {
		const uint8_t *bytes;
		size_t len = input_bytes(w->input, &bytes);

		wire_bytes(out, bytes, len);
	}
	}
}

/* ---- maps ---- */

struct param {
	const char *key;
	void (*write)(const struct writing *w, uint8_t choice);
};

/* A value's first byte chooses it, or says that it is of any kind. */
static void write_param(const struct writing *w, const struct param *param)
{
	uint8_t choice = input_byte(w->input);

	wire_text(w->out, param->key);
	if (choice >= ANY_KIND)
		write_any(w, choice);
	else
		param->write(w, choice);
}

static void write_params(const struct writing *w, const struct param *params, unsigned mask)
{
	for (unsigned i = 0; params[i].key; i++)
		if (mask >> i & 1)
			write_param(w, &params[i]);
}

static size_t count_params(const struct param *params, unsigned mask)
{
	size_t n = 0;

	for (unsigned i = 0; params[i].key; i++)
		n += mask >> i & 1;
	return n;
}

static const struct param entry_params[] = {
	{ "type", write_type }, { "name", write_entry_name },    { "parent", write_small },
	{ "fd", write_small },  { "target", write_link_target }, { "executable", write_bool },
	{ NULL, NULL },
};

/* A byte for its keys, if it is a map at all. */
static void write_entries(const struct writing *w, uint8_t choice)
{
	wire_array(w->out, choice % 8);
	for (unsigned i = 0; i < choice % 8; i++) {
		uint8_t mask = input_byte(w->input);

		if (mask >= ANY_KIND) {
			write_any(w, mask);
			continue;
		}
		wire_map(w->out, count_params(entry_params, mask));
		write_params(w, entry_params, mask);
	}
}

enum { PARAMS_MAX = 13 };

struct call {
	const char *method;
	struct param params[PARAMS_MAX + 1];
};

/* Their numbers are those of make-corpus.py. */
static const struct call calls[] = {
	{ "put",
	  { { "step", write_step },
	    { "put", write_small },
	    { "fds", write_fds },
	    { "entries", write_entries },
	    { "tag", write_tag },
	    { "bytes", write_uint } } },
	{ "materialize",
	  { { "digest", write_digest },
	    { "fds", write_fds },
	    { "name", write_target_name },
	    { "tag", write_tag },
	    { "file", write_bool },
	    { "executable", write_bool },
	    { "mode", write_mode },
	    { "writable", write_bool },
	    { "require_link", write_bool },
	    { "progress", write_bool },
	    { "lease", write_lease },
	    { "lease_connection", write_bool },
	    { "path", write_absolute_path } } },
	{ "remove",
	  { { "fds", write_fds }, { "name", write_target_name }, { "path", write_absolute_path } } },
	{ "cat", { { "digest", write_digest } } },
	{ "ls",
	  { { "digest", write_digest },
	    { "tag", write_tag },
	    { "path", write_tree_path },
	    { "offset", write_uint },
	    { "limit", write_uint } } },
	{ "has", { { "digests", write_digests }, { "tree", write_bool } } },
	{ "tag", { { "name", write_tag }, { "digest", write_digest }, { "delete", write_bool } } },
	{ "tags", { { NULL, NULL } } },
	{ "trees", { { "offset", write_uint }, { "limit", write_uint }, { "sizes", write_bool } } },
	{ "gc", { { "to", write_uint }, { "dry_run", write_bool }, { "progress", write_bool } } },
	{ "verify", { { "repair", write_bool }, { "rate", write_rate }, { "progress", write_bool } } },
	{ "stats", { { NULL, NULL } } },
	{ "ping", { { NULL, NULL } } },
	{ "cancel", { { "id", write_small } } },
	{ "stop", { { NULL, NULL } } },
	{ "nothing", { { "digest", write_digest } } },
};

/* What may be odd about a request: a key twice, one that nobody knows, one to be passed over, an old id. */
enum { ODD_TWICE = 1, ODD_UNKNOWN = 2, ODD_PASSED_OVER = 4, ODD_ID = 8 };

void input_request(struct input *input, struct wire_out *message, uint32_t id, struct input_fds *fds)
{
	const struct writing w = { .input = input, .out = message, .fds = fds };
	const struct call *call = &calls[input_byte(input) % N_ELEMENTS(calls)];
	unsigned mask = input_byte(input) | (unsigned)input_byte(input) << 8;
	uint8_t odd = input_byte(input);
	bool twice = odd & ODD_TWICE && call->params[0].key && mask & 1;

	wire_request(message, odd & ODD_ID && id > 1 ? id - 1 : id, call->method);
	wire_map(message, count_params(call->params, mask) + twice + !!(odd & ODD_UNKNOWN) +
				  !!(odd & ODD_PASSED_OVER));
	write_params(&w, call->params, mask);
	if (twice)
		write_param(&w, &call->params[0]);
	if (odd & ODD_UNKNOWN)
		wire_put_uint(message, "unknown", 1);
	if (odd & ODD_PASSED_OVER)
		wire_put_uint(message, "x-unknown", 1);
}
