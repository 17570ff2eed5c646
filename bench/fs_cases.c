/* bench/fs_cases.c - the operations that bench/fs measures, and the tree that they need. */
#include "bench/fs_cases.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/fs_tree.h"

/* Operations of a cold pass, each in a tree of its own. The first wakes who sleeps, which the floor's 200 steps do not count. */
#define TREES 64
#define DEEP_TREES 16 /* so many of them are deeper than SHALLOW_MAX */
#define SHALLOW_MAX 8
#define DEPTH_MAX 64
#define PATH_BYTES 256
#define PAGE 4096
#define MIB (1u << 20)

unsigned fs_entries = 10000, fs_file_mib = 32;

static char (*names)[SUBJECT_NAME_MAX];
static uint8_t buffer[MIB];

void fs_fail(const char *what, const char *who, int err)
{
	fprintf(stderr, "fs: %s on %s: %s\n", what, who, strerror(-err));
	exit(1);
}

/* ---- the tree ---- */

/* What of it the cases need. */
struct tree_parts {
	bool chains, wide, source, written;
};

/* "t3/d/d/f": `depth` directories and a file. Made once: what is measured often must not be how its name is printed. */
static const char *path_of(unsigned t, int depth, const char *file)
{
	static struct {
		const char *file;
		char path[PATH_BYTES];
	} made[TREES][DEPTH_MAX + 1];
	char *path = made[t % TREES][depth].path;
	int len;

	if (made[t % TREES][depth].file == file)
		return path;
	made[t % TREES][depth].file = file;
	len = snprintf(path, PATH_BYTES, "t%u", t % TREES);
	for (int d = 1; d < depth; d++)
		len += snprintf(path + len, PATH_BYTES - (size_t)len, "/d");
	snprintf(path + len, PATH_BYTES - (size_t)len, "/%s", file);
	return path;
}

static void put_file(int dir, const char *path, size_t mib)
{
	int fd = openat(dir, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);

	if (fd < 0)
		fs_fail("creating", path, -errno);
	for (size_t i = 0; i < mib; i++)
		if (write(fd, buffer, sizeof(buffer)) != sizeof(buffer))
			fs_fail("filling", path, errno ? -errno : -ENOSPC);
	close(fd);
}

static void put_dir(int dir, const char *path)
{
	if (mkdirat(dir, path, 0755) < 0)
		fs_fail("making", path, -errno);
}

static void put_chain(int root, unsigned t)
{
	int deepest = t < DEEP_TREES ? DEPTH_MAX : SHALLOW_MAX;
	char path[PATH_BYTES];

	snprintf(path, sizeof(path), "t%u", t);
	put_dir(root, path);
	for (int depth = 1; depth <= deepest; depth++) {
		put_file(root, path_of(t, depth, "f"), 0);
		if (depth < deepest)
			put_dir(root, path_of(t, depth, "d"));
	}
}

/* ---- operations ---- */

static struct subject_file opened; /* between before and after */

static void op_stat(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err = subject_stat(s, path_of(i, c->depth, "f"));

	if (err)
		fs_fail(c->name, s->name, err);
}

static void op_open_close(struct subject *s, const struct fs_case *c, unsigned i)
{
	struct subject_file f;
	int err = subject_open(s, path_of(i, c->depth, "f"), O_RDONLY, &f);

	if (!err)
		err = subject_close(s, &f);
	if (err)
		fs_fail(c->name, s->name, err);
}

/* Everybody's new files have names of their own: exclusive clients believe that nobody else makes them. */
static void op_create(struct subject *s, const struct fs_case *c, unsigned i)
{
	struct subject_file f;
	int err = subject_open(s, path_of(i, c->depth, s->name), O_CREAT | O_EXCL | O_WRONLY, &f);

	if (!err)
		err = subject_close(s, &f);
	if (err)
		fs_fail(c->name, s->name, err);
}

static void op_unlink(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err = subject_unlink(s, path_of(i, c->depth, s->name));

	if (err)
		fs_fail(c->name, s->name, err);
}

static void op_create_unlink(struct subject *s, const struct fs_case *c, unsigned i)
{
	op_create(s, c, i);
	op_unlink(s, c, i);
}

static void unlink_all(struct subject *s, const struct fs_case *c)
{
	for (unsigned i = 0; i < c->ops; i++)
		op_unlink(s, c, i);
}

/* Batch by batch, as ls(1) does with -l: names, then their attributes. */
static void list_wide(struct subject *s, const struct fs_case *c, bool with_stat)
{
	struct subject_file f;
	unsigned total = 0;
	int err = subject_open(s, "wide", O_RDONLY | O_DIRECTORY, &f), got = 0;

	while (!err && (got = subject_list(s, &f, names, 1024)) > 0) {
		total += (unsigned)got;
		for (int i = 0; with_stat && !err && i < got; i++) {
			char path[PATH_BYTES + 8];

			snprintf(path, sizeof(path), "wide/%s", names[i]);
			err = subject_stat(s, path);
		}
	}
	if (!err)
		err = subject_close(s, &f);
	if (!err && (got < 0 || total != fs_entries))
		err = got < 0 ? got : -EBADMSG;
	if (err)
		fs_fail(c->name, s->name, err);
}

static void op_readdir(struct subject *s, const struct fs_case *c, unsigned i)
{
	(void)i;
	list_wide(s, c, false);
}

static void op_readdir_stat(struct subject *s, const struct fs_case *c, unsigned i)
{
	(void)i;
	list_wide(s, c, true);
}

static void open_data(struct subject *s)
{
	int err = subject_open(s, "data", O_RDONLY, &opened);

	if (err)
		fs_fail("opening the file", s->name, err);
}

static void open_written(struct subject *s)
{
	char path[PATH_BYTES];
	int err;

	snprintf(path, sizeof(path), "written/%s", s->name);
	err = subject_open(s, path, O_RDWR, &opened);
	if (err)
		fs_fail("opening the file to write", s->name, err);
}

static void close_opened(struct subject *s)
{
	int err = subject_close(s, &opened);

	if (err)
		fs_fail("closing", s->name, err);
}

static void close_after(struct subject *s, const struct fs_case *c)
{
	(void)c;
	close_opened(s);
}

/* Pages in an order that no readahead follows; each once. */
static int64_t random_page(unsigned i)
{
	return (int64_t)((i * 2654435761u) % (fs_file_mib * (MIB / PAGE))) * PAGE;
}

static void expect(struct subject *s, const struct fs_case *c, ssize_t got, size_t size)
{
	if (got != (ssize_t)size)
		fs_fail(c->name, s->name, got < 0 ? (int)got : -ENODATA);
}

static void op_read_4k(struct subject *s, const struct fs_case *c, unsigned i)
{
	expect(s, c, subject_pread(s, &opened, buffer, PAGE, random_page(i)), PAGE);
}

static void op_read_1m(struct subject *s, const struct fs_case *c, unsigned i)
{
	expect(s, c, subject_pread(s, &opened, buffer, MIB, (int64_t)i * MIB), MIB);
}

static void op_write_4k(struct subject *s, const struct fs_case *c, unsigned i)
{
	expect(s, c, subject_pwrite(s, &opened, buffer, PAGE, random_page(i)), PAGE);
}

static void op_write_1m(struct subject *s, const struct fs_case *c, unsigned i)
{
	expect(s, c, subject_pwrite(s, &opened, buffer, MIB, (int64_t)i * MIB), MIB);
}

static void op_mmap_1m(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err = subject_read_mapped(s, &opened, (int64_t)i * MIB, MIB);

	if (err)
		fs_fail(c->name, s->name, err);
}

/* What is done to a whole tree is one operation. */
#define TREE_OP(op, whole)                                                     \
	static void op(struct subject *s, const struct fs_case *c, unsigned i) \
	{                                                                      \
		int err = whole(s);                                            \
                                                                               \
		(void)i;                                                       \
		if (err)                                                       \
			fs_fail(c->name, s->name, err);                        \
	}

TREE_OP(op_find, tree_find)
TREE_OP(op_git_status, tree_git_status)
TREE_OP(op_untar, tree_untar)

static void remove_untarred(struct subject *s, const struct fs_case *c)
{
	int err = tree_remove_untarred(s);

	if (err)
		fs_fail(c->name, s->name, err);
}

static void op_fsync(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err;

	op_write_4k(s, c, i);
	err = subject_fsync(s, &opened);
	if (err)
		fs_fail(c->name, s->name, err);
}

const struct fs_case fs_cases[] = {
	{.name = "stat_1", .op = op_stat, .depth = 1, .ops = TREES},
	{.name = "stat_3", .op = op_stat, .depth = 3, .ops = TREES},
	{.name = "stat_8", .op = op_stat, .depth = 8, .ops = TREES},
	{.name = "stat_64", .op = op_stat, .depth = 64, .ops = DEEP_TREES},
	{.name = "open_close_8", .op = op_open_close, .depth = 8, .ops = TREES},
	{.name = "create_8", .op = op_create, .after = unlink_all, .depth = 8, .ops = TREES},
	{.name = "create_unlink_8", .op = op_create_unlink, .depth = 8, .ops = TREES},
	{.name = "readdir", .op = op_readdir, .ops = 1},
	{.name = "readdir_stat", .op = op_readdir_stat, .ops = 1, .warm_once = true},
	{.name = "read_4k",
	 .before = open_data,
	 .op = op_read_4k,
	 .after = close_after,
	 .ops = 128},
	{.name = "read_1m", .before = open_data, .op = op_read_1m, .after = close_after},
	{.name = "mmap_1m",
	 .before = open_data,
	 .op = op_mmap_1m,
	 .after = close_after,
	 .mapped = true},
	/* With their close, which is when written data that was kept goes. */
	{.name = "write_4k",
	 .before = open_written,
	 .op = op_write_4k,
	 .last = close_opened,
	 .ops = 128},
	{.name = "write_1m", .before = open_written, .op = op_write_1m, .last = close_opened},
	{.name = "write_4k_fsync",
	 .before = open_written,
	 .op = op_fsync,
	 .after = close_after,
	 .ops = 8,
	 .warm_once = true},
	{.name = "find", .op = op_find, .ops = 1, .warm_once = true},
	{.name = "git_status", .op = op_git_status, .ops = 1, .warm_once = true},
	{.name = "untar", .op = op_untar, .after = remove_untarred, .ops = 1, .warm_once = true},
};

/* ---- what of the tree is made ---- */

static void parts_wanted(const bool *case_wanted, struct tree_parts *ret)
{
	*ret = (struct tree_parts){0};
	for (size_t k = 0; k < FS_CASES; k++) {
		if (!case_wanted[k])
			continue;
		ret->chains |= fs_cases[k].depth != 0;
		ret->wide |= !strncmp(fs_cases[k].name, "readdir", 7);
		ret->written |= fs_cases[k].before == open_written;
		ret->source |= fs_cases[k].op == op_find || fs_cases[k].op == op_git_status ||
			       fs_cases[k].op == op_untar;
	}
}

/* Made only for cases that were asked for: many files take longer than most cases. */
void fs_tree_make(const char *tree, const bool *case_wanted)
{
	struct tree_parts want;
	int root = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[PATH_BYTES];

	names = calloc(1024, sizeof(*names));
	if (!names)
		fs_fail("memory", "host", -ENOMEM);
	parts_wanted(case_wanted, &want);
	if (root < 0)
		fs_fail("opening", tree, -errno);
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i * 31 + (i >> 12));
	for (unsigned t = 0; t < (want.chains ? TREES : 1); t++)
		put_chain(root, t); /* the floor needs the first */
	if (want.wide)
		put_dir(root, "wide");
	for (unsigned i = 0; want.wide && i < fs_entries; i++) {
		snprintf(path, sizeof(path), "wide/entry-%05u", i);
		put_file(root, path, 0);
	}
	put_file(root, "data", fs_file_mib);
	if (want.source && tree_make(root))
		fs_fail("making", "src", -errno);
	put_dir(root, "written");
	for (int i = 0; want.written && i < SUBJECTS; i++) {
		snprintf(path, sizeof(path), "written/%s", subjects[i].name);
		put_file(root, path, fs_file_mib);
	}
	close(root);
}
