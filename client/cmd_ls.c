/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command ls. With -R each directory below is listed by its own digest, after the one it is in.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "client/cli.h"
#include "client/json.h"
#include "client/text.h"
#include "common/alloc.h"

/* A directory still to be listed. */
struct pending {
	char *what; /* digest; the first: as it was given */
	char *path; /* in front of the names; "" for the root */
};

struct listing {
	struct cli *cli;
	bool recursive, zero, escape;
	const char *path; /* as it was given, or NULL */
	bool begun;       /* JSON: the head is printed */
	uint64_t n_printed;

	/* A stack. */
	struct pending *pending;
	size_t n_pending, capacity;
};

static void listing_fini(struct listing *l)
{
	for (size_t i = 0; i < l->n_pending; i++) {
		free(l->pending[i].what);
		free(l->pending[i].path);
	}
	free(l->pending);
}

static void push(struct listing *l, const char *what, char *path)
{
	l->pending = xgrow(l->pending, l->n_pending, &l->capacity, sizeof(*l->pending));
	l->pending[l->n_pending++] = (struct pending){ xstrdup(what), path };
}

static char *join(const char *folder, const char *name)
{
	return *folder ? xasprintf("%s/%s", folder, name) : xstrdup(name);
}

/* ---- one entry ---- */

static const char *mode_text(const struct dircache_entry *entry, char buf[11])
{
	static const char letters[] = "rwxrwxrwx";

	buf[0] = entry->type == DIRCACHE_DIRECTORY ? 'd' : entry->type == DIRCACHE_SYMLINK ? 'l' : '-';
	for (int i = 0; i < 9; i++)
		buf[1 + i] = '-';
	for (int i = 0; i < 9; i++)
		if (entry->mode & (0400u >> i))
			buf[1 + i] = letters[i];
	buf[10] = '\0';
	return buf;
}

static void print_line(const struct listing *l, const struct dircache_entry *entry, const char *path)
{
	char mode[11];

	printf("%s %10" PRIu64 " %s ", mode_text(entry, mode), entry->size,
	       entry->digest ? entry->digest : "-");
	text_print_name(path, l->escape);
	if (entry->target && !l->zero) {
		fputs(" -> ", stdout);
		text_print_name(entry->target, l->escape);
	}
	putchar(l->zero ? '\0' : '\n');
}

static void print_json(struct listing *l, const struct dircache_entry *entry, const char *path)
{
	static const char *const types[] = {
		[DIRCACHE_FILE] = "file",
		[DIRCACHE_DIRECTORY] = "directory",
		[DIRCACHE_SYMLINK] = "symlink",
	};

	fputs(l->n_printed ? ",{\"name\":" : "{\"name\":", stdout);
	json_print_text(stdout, entry->name);
	fputs(",\"path\":", stdout);
	json_print_text(stdout, path);
	printf(",\"type\":\"%s\",\"mode\":%u,\"size\":%" PRIu64, types[entry->type], entry->mode,
	       entry->size);
	if (entry->digest)
		printf(",\"digest\":\"%s\"", entry->digest);
	if (entry->target) {
		fputs(",\"target\":", stdout);
		json_print_text(stdout, entry->target);
	}
	putchar('}');
}

static void print_entry(struct listing *l, const struct dircache_entry *entry, const char *path)
{
	if (l->cli->json)
		print_json(l, entry, path);
	else
		print_line(l, entry, path);
	l->n_printed++;
}

/* ---- one directory ---- */

static void begin_json(struct listing *l, const struct dircache_page *page)
{
	if (!l->cli->json || l->begun)
		return;
	l->begun = true;
	putchar('{');
	if (*page->digest)
		printf("\"digest\":\"%s\",", page->digest);
	printf("\"directory\":%s,\"entries\":[", page->directory ? "true" : "false");
}

/* Of a path that names a file, the last name is the entry's. */
static char *entry_path(const struct listing *l, const struct dircache_page *page, const char *folder,
			const char *name)
{
	if (!l->recursive)
		return xstrdup(name);
	return page->directory ? join(folder, name) : xstrdup(folder);
}

static void print_page(struct listing *l, const struct dircache_page *page, const char *folder)
{
	begin_json(l, page);
	for (size_t i = 0; i < page->n_entries; i++) {
		const struct dircache_entry *entry = &page->entries[i];
		AUTO_FREE char *path = entry_path(l, page, folder, entry->name);

		print_entry(l, entry, path);
		if (l->recursive && page->directory && entry->type == DIRCACHE_DIRECTORY)
			push(l, entry->digest, TAKE(path));
	}
}

/* What was pushed last would come first: turn the new ones round, so that they come in their order. */
static void reverse(struct pending *items, size_t n)
{
	for (size_t i = 0; i < n / 2; i++) {
		struct pending item = items[i];

		items[i] = items[n - 1 - i];
		items[n - 1 - i] = item;
	}
}

static int list_pages(struct listing *l, const struct pending *p, const char *path)
{
	struct dircache_page page = { 0 };
	struct dircache_error error;
	size_t before = l->n_pending;
	uint64_t offset = 0;

	do {
		if (dircache_ls(l->cli->dc, p->what, path, offset, &page, &error) != DIRCACHE_OK)
			return cli_fail(l->cli, &error);
		print_page(l, &page, p->path);
		offset += page.n_entries;
	} while (page.more && !ferror(stdout));
	if (l->n_pending > before)
		reverse(l->pending + before, l->n_pending - before);
	return STATUS_DONE;
}

static int list_next(struct listing *l, const char *path)
{
	struct pending p = l->pending[--l->n_pending];
	int status = list_pages(l, &p, path);

	free(p.what);
	free(p.path);
	return status;
}

/* ---- all of it ---- */

/* Without slashes at both ends: what -R puts in front of the names. */
static char *tidy(const char *path)
{
	size_t len;

	path += strspn(path, "/");
	len = strlen(path);
	while (len && path[len - 1] == '/')
		len--;
	return xmemdupz(path, len);
}

static int list(struct listing *l)
{
	int status;

	push(l, l->cli->argv[0], tidy(l->path ? l->path : ""));
	status = list_next(l, l->path);
	while (status == STATUS_DONE && l->n_pending && !ferror(stdout))
		status = list_next(l, NULL);
	if (l->begun)
		puts("]}");
	return status;
}

int cmd_ls(struct cli *cli)
{
	CLEANUP(listing_fini) struct listing l = { .cli = cli };
	const struct arg_option options[] = {
		{ 'R', "recursive", NULL, "list everything below, by its path in the tree", &l.recursive,
		  NULL },
		{ 'z', "zero", NULL, "end entries with NUL, print names raw", &l.zero, NULL },
	};

	if (!cli_args(cli, ARG_TABLE(options)) || !cli_open(cli))
		return cli->status;
	l.path = cli->argc > 1 ? cli->argv[1] : NULL;
	l.escape = !l.zero && isatty(STDOUT_FILENO);
	return list(&l);
}
