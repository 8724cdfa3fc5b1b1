/* SPDX-License-Identifier: Apache-2.0 */
#include "client/walk.h"

#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

#include "common/alloc.h"

enum { READ_SIZE = 64 << 10 };

struct subdirectory {
	char *name;
	uint64_t number;
};

/* A directory on the way from the root to where we are. */
struct level {
	int fd;    /* -1: closed for now */
	dev_t dev; /* when closed: what it must be when it is opened again */
	ino_t ino;
	uint64_t number;
	struct subdirectory *below; /* to be walked when this one is read */
	size_t n_below, below_capacity;
	size_t next; /* of below */
};

struct walk {
	const char *path;
	struct level *levels;
	size_t n_levels, levels_capacity;
	uint64_t n_directories; /* returned */
	bool for_sizes;
	bool no_noatime; /* one of the files is not ours to read without a trace */

	/* The deepest level is read, as long as it has entries: */
	bool reading;
	char *buf;               /* of getdents64(2), which spares opendir()'s fstat and allocation */
	size_t record, pos, len; /* the last entry, the next one, the end */
	char target[PATH_MAX];
};

/* ---- levels ---- */

static struct level *top(struct walk *walk)
{
	return &walk->levels[walk->n_levels - 1];
}

static void level_fini(struct level *level)
{
	if (level->fd >= 0)
		(void)close(level->fd);
	for (size_t i = 0; i < level->n_below; i++)
		free(level->below[i].name);
	free(level->below);
}

static void push(struct walk *walk, int fd, uint64_t number)
{
	walk->levels = xgrow(walk->levels, walk->n_levels, &walk->levels_capacity, sizeof(*walk->levels));
	walk->levels[walk->n_levels++] = (struct level){ .fd = fd, .number = number };
	walk->reading = true;
	walk->pos = walk->len = 0;
}

struct walk *walk_new(int root, const char *path)
{
	struct walk *walk = xcalloc(1, sizeof(*walk));

	walk->path = path;
	walk->buf = xmalloc(READ_SIZE);
	push(walk, root, 0);
	return walk;
}

void walk_for_sizes(struct walk *walk)
{
	walk->for_sizes = true;
}

void walk_free(struct walk *walk)
{
	if (!walk)
		return;
	while (walk->n_levels)
		level_fini(&walk->levels[--walk->n_levels]);
	free(walk->levels);
	free(walk->buf);
	free(walk);
}

/* ---- words ---- */

/* The path of the deepest level, or of a name in it: each level but the root is the subdirectory that the one
 * above went down to last. */
static char *path_of(const struct walk *walk, const char *name)
{
	char *path = xstrdup(walk->path);

	for (size_t i = 0; i < walk->n_levels; i++) {
		const struct level *level = &walk->levels[i];
		const char *last = i + 1 < walk->n_levels ? level->below[level->next - 1].name : name;
		AUTO_FREE char *above = path;
		size_t len = strlen(above);

		if (last)
			path = xasprintf("%s%s%s", above, len && above[len - 1] == '/' ? "" : "/", last);
		else
			above = NULL;
	}
	return path;
}

static int fail(struct walk *walk, int r, const char *doing, const char *name, struct err *err)
{
	AUTO_FREE char *path = path_of(walk, name);

	/* Not "not found": that is said of what the cache lacks. */
	if (r == -ENOENT)
		return err_set(err, ERR_FAILED_PRECONDITION, "%s '%s': it vanished while it was stored",
			       doing, path);
	if (r == -ELOOP || r == -ENOTDIR)
		return err_set(err, ERR_FAILED_PRECONDITION, "%s '%s': it was replaced while it was stored",
			       doing, path);
	return err_errno(err, r, "%s '%s'", doing, path);
}

const char *walk_special_text(unsigned mode)
{
	switch (mode & S_IFMT) {
	case S_IFSOCK:
		return "a socket";
	case S_IFIFO:
		return "a FIFO";
	case S_IFCHR:
	case S_IFBLK:
		return "a device";
	default:
		return "neither a file, a directory nor a symlink";
	}
}

/* ---- entries of one directory ---- */

/* The last entry that was read. */
static const struct dirent64 *record(const struct walk *walk)
{
	return (const void *)(walk->buf + walk->record);
}

static bool is_dots(const char *name)
{
	return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

/* Return: 1 with the next record(), 0 at the end of the directory, or a negative errno. */
static int read_record(struct walk *walk, struct err *err)
{
	do {
		if (walk->pos == walk->len) {
			ssize_t n = getdents64(top(walk)->fd, walk->buf, READ_SIZE);

			if (n <= 0)
				return n == 0 ? 0 : fail(walk, -errno, "reading", NULL, err);
			walk->pos = 0;
			walk->len = (size_t)n;
		}
		walk->record = walk->pos;
		walk->pos += record(walk)->d_reclen;
	} while (is_dots(record(walk)->d_name));
	return 1;
}

/*
 * The time of the last read of a file that was just written is a write to its inode: ten in a hundred of what
 * storing a small file costs. Who owns the file may do without it.
 */
static int open_to_read(struct walk *walk, const char *name)
{
	const int flags = O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC;
	int fd = -1;

	if (!walk->no_noatime) {
		fd = openat(top(walk)->fd, name, flags | O_NOATIME);
		walk->no_noatime = fd < 0 && errno == EPERM;
	}
	return walk->no_noatime ? openat(top(walk)->fd, name, flags) : fd;
}

static int open_file(struct walk *walk, struct walk_entry *entry, struct err *err)
{
	entry->type = WALK_FILE;
	entry->fd = open_to_read(walk, entry->name);
	if (entry->fd >= 0)
		return 1;
	if (errno == EMFILE)
		walk->pos = walk->record; /* once more, next time */
	return fail(walk, -errno, "opening", entry->name, err);
}

static int measure_file(struct walk *walk, struct walk_entry *entry, struct err *err)
{
	struct stat st;

	if (fstatat(top(walk)->fd, entry->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(walk, -errno, "looking at", entry->name, err);
	entry->type = WALK_FILE;
	entry->size = S_ISREG(st.st_mode) ? (uint64_t)st.st_size : 0;
	return 1;
}

static int read_link(struct walk *walk, struct walk_entry *entry, struct err *err)
{
	ssize_t n = readlinkat(top(walk)->fd, entry->name, walk->target, sizeof(walk->target));

	if (n < 0)
		return fail(walk, -errno, "reading the symlink", entry->name, err);
	if ((size_t)n == sizeof(walk->target))
		return fail(walk, -ENAMETOOLONG, "reading the symlink", entry->name, err);
	walk->target[n] = '\0';
	entry->type = WALK_SYMLINK;
	entry->target = walk->target;
	return 1;
}

static int add_subdirectory(struct walk *walk, struct walk_entry *entry)
{
	struct level *level = top(walk);

	level->below = xgrow(level->below, level->n_below, &level->below_capacity, sizeof(*level->below));
	level->below[level->n_below++] =
		(struct subdirectory){ .name = xstrdup(entry->name), .number = ++walk->n_directories };
	entry->type = WALK_DIRECTORY;
	return 1;
}

static int refuse(struct walk *walk, unsigned mode, const char *name, struct err *err)
{
	AUTO_FREE char *path = path_of(walk, name);

	return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is %s, which cannot be stored", path,
		       walk_special_text(mode));
}

/* Some file systems do not tell types with names. */
static int find_type(struct walk *walk, unsigned *type, struct err *err)
{
	struct stat st;

	*type = record(walk)->d_type;
	if (*type != DT_UNKNOWN)
		return 0;
	if (fstatat(top(walk)->fd, record(walk)->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return fail(walk, -errno, "looking at", record(walk)->d_name, err);
	*type = IFTODT(st.st_mode);
	return 0;
}

static int take_record(struct walk *walk, struct walk_entry *entry, struct err *err)
{
	unsigned type;
	int r;

	if ((r = find_type(walk, &type, err)) < 0)
		return r;
	*entry = (struct walk_entry){ .parent = top(walk)->number, .name = record(walk)->d_name, .fd = -1 };
	switch (type) {
	case DT_REG:
		return walk->for_sizes ? measure_file(walk, entry, err) : open_file(walk, entry, err);
	case DT_DIR:
		return add_subdirectory(walk, entry);
	case DT_LNK:
		return read_link(walk, entry, err);
	default:
		return refuse(walk, DTTOIF(type), entry->name, err);
	}
}

/* ---- down and up ---- */

/* Too deep to keep all open: close the highest one that is, and remember which it was. */
static int close_highest(struct walk *walk, struct err *err)
{
	struct level *level;
	struct stat st;

	if (walk->n_levels <= WALK_OPEN_MAX)
		return 0;
	level = &walk->levels[walk->n_levels - 1 - WALK_OPEN_MAX];
	if (level->fd < 0)
		return 0; /* it was closed when we came by before */
	if (fstat(level->fd, &st) < 0)
		return fail(walk, -errno, "looking above", NULL, err);
	level->dev = st.st_dev;
	level->ino = st.st_ino;
	(void)close(level->fd);
	level->fd = -1;
	return 0;
}

static int go_down(struct walk *walk, struct err *err)
{
	struct level *level = top(walk);
	const struct subdirectory *sub = &level->below[level->next];
	int fd = openat(level->fd, sub->name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	if (fd < 0)
		return fail(walk, -errno, "opening", sub->name, err);
	level->next++;
	push(walk, fd, sub->number);
	return close_highest(walk, err);
}

/* The level above the deepest one was closed: open it again. */
static int reopen_above(struct walk *walk, struct err *err)
{
	struct level *level = top(walk), *above = level - 1;
	struct stat st;

	above->fd = openat(level->fd, "..", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (above->fd < 0 || fstat(above->fd, &st) < 0)
		return fail(walk, -errno, "going up from", NULL, err);
	if (st.st_dev != above->dev || st.st_ino != above->ino)
		return fail(walk, -ENOENT, "going up from", NULL, err); /* moved away */
	return 0;
}

static int go_up(struct walk *walk, struct err *err)
{
	int r;

	if (walk->n_levels > 1 && top(walk)[-1].fd < 0 && (r = reopen_above(walk, err)) < 0)
		return r;
	level_fini(top(walk));
	walk->n_levels--;
	return 0;
}

int walk_next(struct walk *walk, struct walk_entry *entry, struct err *err)
{
	int r = 0;

	while (r == 0 && walk->n_levels) {
		if (walk->reading) {
			if ((r = read_record(walk, err)) > 0)
				return take_record(walk, entry, err);
			walk->reading = false;
		} else if (top(walk)->next < top(walk)->n_below) {
			r = go_down(walk, err);
		} else {
			r = go_up(walk, err);
		}
	}
	return r;
}
