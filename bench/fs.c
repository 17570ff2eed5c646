/*
 * bench/fs.c - host files as a library: the gofer's client and the virtio-fs client beside system calls on the same tree.
 *
 * See usage() for how to call it. Every case has a cold and a warm form; "case_cold/SUBJECT VALUE us" is the time of one operation and
 * "case_cold_trips/SUBJECT VALUE requests" how many requests it took. Cold: the client has forgotten everything and each operation goes to
 * a tree (or part of a file) of its own; the host's caches are always warm. Warm: the same operations again. In a round each case goes through all
 * subjects before the next begins; values are medians of the rounds, ratios are medians of the ratios within a round.
 * A subject that cannot be started is named on standard error and left out. No sandbox: what a system call costs is not in here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/spin.h"
#include "bench/fs_floor.h"
#include "bench/fs_subject.h"
#include "bench/fs_tree.h"

#define ROUNDS_MAX 99
/* Operations of a cold pass, each in a tree of its own. The first wakes who sleeps, which the floor's 200 steps do not count. */
#define TREES 64
#define DEEP_TREES 16 /* so many of them are deeper than SHALLOW_MAX */
#define SHALLOW_MAX 8
#define DEPTH_MAX 64
#define PATH_BYTES 256
#define WARM_NS 10000000ll
#define PASSES_MAX 8192
#define PAGE 4096
#define MIB (1u << 20)
#define FILE_MIB_MAX 1024u

static int rounds = 5;
static unsigned entries = 10000, file_mib = 32;
static bool json, json_first = true;
static const char *want_cases = "", *want_subjects = "";

static char scratch[4000], tree[4096];
static char (*names)[SUBJECT_NAME_MAX];
static uint8_t buffer[MIB];

static void fail(const char *what, const char *who, int err)
{
	fprintf(stderr, "fs: %s on %s: %s\n", what, who, strerror(-err));
	exit(1);
}

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
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
		fail("creating", path, -errno);
	for (size_t i = 0; i < mib; i++)
		if (write(fd, buffer, sizeof(buffer)) != sizeof(buffer))
			fail("filling", path, errno ? -errno : -ENOSPC);
	close(fd);
}

static void put_dir(int dir, const char *path)
{
	if (mkdirat(dir, path, 0755) < 0)
		fail("making", path, -errno);
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

/* Made only for cases that were asked for: many files take longer than most cases. */
static void make_tree(const struct tree_parts *want)
{
	int root = open(tree, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	char path[PATH_BYTES];

	if (root < 0)
		fail("opening", tree, -errno);
	for (size_t i = 0; i < sizeof(buffer); i++)
		buffer[i] = (uint8_t)(i * 31 + (i >> 12));
	for (unsigned t = 0; t < (want->chains ? TREES : 1); t++)
		put_chain(root, t); /* the floor needs the first */
	if (want->wide)
		put_dir(root, "wide");
	for (unsigned i = 0; want->wide && i < entries; i++) {
		snprintf(path, sizeof(path), "wide/entry-%05u", i);
		put_file(root, path, 0);
	}
	put_file(root, "data", file_mib);
	if (want->source && tree_make(root))
		fail("making", "src", -errno);
	put_dir(root, "written");
	for (int i = 0; want->written && i < SUBJECTS; i++) {
		snprintf(path, sizeof(path), "written/%s", subjects[i].name);
		put_file(root, path, file_mib);
	}
	close(root);
}

/* ---- operations ---- */

/* One pass of a case: `ops` operations. What may go wrong ends the benchmark. */
struct fs_case {
	const char *name;
	void (*before)(struct subject *s); /* not measured; NULL */
	void (*op)(struct subject *s, const struct fs_case *c, unsigned i);
	void (*last)(struct subject *s); /* measured with the pass; NULL */
	void (*after)(struct subject *s, const struct fs_case *c); /* not measured; NULL */
	int depth;
	unsigned ops; /* 0: one a MiB of the file */
	bool warm_once; /* long: one warm pass is enough */
	bool mapped; /* diod's files cannot be */
};

static struct subject_file opened; /* between before and after */

static void op_stat(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err = subject_stat(s, path_of(i, c->depth, "f"));

	if (err)
		fail(c->name, s->name, err);
}

static void op_open_close(struct subject *s, const struct fs_case *c, unsigned i)
{
	struct subject_file f;
	int err = subject_open(s, path_of(i, c->depth, "f"), O_RDONLY, &f);

	if (!err)
		err = subject_close(s, &f);
	if (err)
		fail(c->name, s->name, err);
}

/* Everybody's new files have names of their own: exclusive clients believe that nobody else makes them. */
static void op_create(struct subject *s, const struct fs_case *c, unsigned i)
{
	struct subject_file f;
	int err = subject_open(s, path_of(i, c->depth, s->name), O_CREAT | O_EXCL | O_WRONLY, &f);

	if (!err)
		err = subject_close(s, &f);
	if (err)
		fail(c->name, s->name, err);
}

static void op_unlink(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err = subject_unlink(s, path_of(i, c->depth, s->name));

	if (err)
		fail(c->name, s->name, err);
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
	if (!err && (got < 0 || total != entries))
		err = got < 0 ? got : -EBADMSG;
	if (err)
		fail(c->name, s->name, err);
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
		fail("opening the file", s->name, err);
}

static void open_written(struct subject *s)
{
	char path[PATH_BYTES];
	int err;

	snprintf(path, sizeof(path), "written/%s", s->name);
	err = subject_open(s, path, O_RDWR, &opened);
	if (err)
		fail("opening the file to write", s->name, err);
}

static void close_opened(struct subject *s)
{
	int err = subject_close(s, &opened);

	if (err)
		fail("closing", s->name, err);
}

static void close_after(struct subject *s, const struct fs_case *c)
{
	(void)c;
	close_opened(s);
}

/* Pages in an order that no readahead follows; each once. */
static int64_t random_page(unsigned i)
{
	return (int64_t)((i * 2654435761u) % (file_mib * (MIB / PAGE))) * PAGE;
}

static void expect(struct subject *s, const struct fs_case *c, ssize_t got, size_t size)
{
	if (got != (ssize_t)size)
		fail(c->name, s->name, got < 0 ? (int)got : -ENODATA);
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
		fail(c->name, s->name, err);
}

/* What is done to a whole tree is one operation. */
#define TREE_OP(op, whole)                                                     \
	static void op(struct subject *s, const struct fs_case *c, unsigned i) \
	{                                                                      \
		int err = whole(s);                                            \
                                                                               \
		(void)i;                                                       \
		if (err)                                                       \
			fail(c->name, s->name, err);                           \
	}

TREE_OP(op_find, tree_find)
TREE_OP(op_git_status, tree_git_status)
TREE_OP(op_untar, tree_untar)

static void remove_untarred(struct subject *s, const struct fs_case *c)
{
	int err = tree_remove_untarred(s);

	if (err)
		fail(c->name, s->name, err);
}

static void op_fsync(struct subject *s, const struct fs_case *c, unsigned i)
{
	int err;

	op_write_4k(s, c, i);
	err = subject_fsync(s, &opened);
	if (err)
		fail(c->name, s->name, err);
}

static const struct fs_case cases[] = {
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
#define CASES (sizeof(cases) / sizeof(cases[0]))

enum { COLD, WARM, STATES };
static const char *const state_names[STATES] = {"cold", "warm"};
static bool case_wanted[CASES];
static double us[CASES][STATES][SUBJECTS][ROUNDS_MAX], trips[CASES][STATES][SUBJECTS][ROUNDS_MAX];
/* What the gofer's cold stat is held against. */
static double socket_us[ROUNDS_MAX], walk_us[ROUNDS_MAX];
/* What two threads make of sequential reads. */
static double pipe_us[ROUNDS_MAX];
/* What a walk's LOOKUPs are held against: a LOOKUP by itself, so long after the answer before. */
static const int64_t thinks_ns[] = {0, 500, 1000, 2000, 4000};
#define THINKS (sizeof(thinks_ns) / sizeof(thinks_ns[0]))
#define RAW_LOOKUPS 2000
static double raw_us[THINKS][SUBJECTS][ROUNDS_MAX];

/* Return: operations. Time and requests are added. */
static unsigned pass(struct subject *s, const struct fs_case *c, int64_t *ns, uint64_t *requests)
{
	unsigned ops = c->ops ? c->ops : file_mib;
	uint64_t sent;
	int64_t start;

	if (c->before)
		c->before(s);
	sent = subject_requests(s);
	start = now_ns();
	for (unsigned i = 0; i < ops; i++)
		c->op(s, c, i);
	if (c->last)
		c->last(s);
	*ns += now_ns() - start;
	*requests += subject_requests(s) - sent;
	if (c->after)
		c->after(s, c);
	return ops;
}

/* ---- results ---- */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median_of(double *v, unsigned count)
{
	qsort(v, count, sizeof(v[0]), by_value);
	return count % 2 ? v[count / 2] : (v[count / 2 - 1] + v[count / 2]) / 2;
}

static double median(const double *values)
{
	double v[ROUNDS_MAX];

	memcpy(v, values, (size_t)rounds * sizeof(v[0]));
	return median_of(v, (unsigned)rounds);
}

/* The time of a warm operation is the median of its passes': most of them are short, and whoever else wanted the processor is in few. */
static void measure(size_t k, int who, int round)
{
	static double passes[PASSES_MAX];
	const struct fs_case *c = &cases[k];
	struct subject *s = &subjects[who];

	if (c->mapped && s->kind == SUBJECT_DIOD)
		return;
	subject_shrink(s);
	for (int state = 0; state < STATES; state++) {
		uint64_t requests = 0;
		unsigned ops = 0, count = 0;
		int64_t all = 0;

		do {
			int64_t ns = 0;
			unsigned made = pass(s, c, &ns, &requests);

			passes[count++] = (double)ns / made / 1000;
			ops += made;
			all += ns;
		} while (state == WARM && !c->warm_once && all < WARM_NS && count < PASSES_MAX);
		us[k][state][who][round] = median_of(passes, count);
		trips[k][state][who][round] = (double)requests / ops;
	}
}

static void report(const char *what, const char *who, double value, const char *unit)
{
	if (json)
		printf("%s{\"case\": \"%s/%s\", \"value\": %.2f, \"unit\": \"%s\"}",
		       json_first ? "[\n" : ",\n", what, who, value, unit);
	else
		printf("%s/%s %.2f %s\n", what, who, value, unit);
	json_first = false;
	fflush(stdout);
}

static void print_case(size_t k)
{
	char label[80];

	for (int state = 0; state < STATES; state++)
		for (int who = 0; who < SUBJECTS; who++) {
			if (!subjects[who].usable ||
			    (cases[k].mapped && subjects[who].kind == SUBJECT_DIOD))
				continue;
			snprintf(label, sizeof(label), "%s_%s", cases[k].name, state_names[state]);
			report(label, subjects[who].name, median(us[k][state][who]), "us");
			if (subjects[who].kind == SUBJECT_HOST)
				continue;
			snprintf(label, sizeof(label), "%s_%s_trips", cases[k].name,
				 state_names[state]);
			report(label, subjects[who].name, median(trips[k][state][who]), "requests");
		}
}

/* -1: not measured. */
static int case_index(const char *name)
{
	for (size_t k = 0; k < CASES; k++)
		if (!strcmp(cases[k].name, name))
			return case_wanted[k] ? (int)k : -1;
	return -1;
}

static void target_trips(const char *name)
{
	int k = case_index(name);
	char label[80];

	if (k < 0)
		return;
	snprintf(label, sizeof(label), "%s_cold_trips", name);
	for (int who = 0; who < SUBJECTS; who++)
		if (subjects[who].usable && subjects[who].kind != SUBJECT_HOST)
			report(label, subjects[who].name, median(trips[k][COLD][who]),
			       "requests (target 1)");
}

static void target_gofer_stat(void)
{
	int k = case_index("stat_8");
	double v[ROUNDS_MAX];

	for (int who = 0; k >= 0 && who < SUBJECTS; who++) {
		char label[80];

		if (!subjects[who].usable || subjects[who].kind != SUBJECT_GOFER)
			continue;
		for (int r = 0; r < rounds; r++)
			v[r] = us[k][COLD][who][r] / (socket_us[r] + walk_us[r]);
		snprintf(label, sizeof(label), "%s:socket+walk", subjects[who].name);
		report("stat_8_cold", label, median(v), "x (target at most 1.3)");
	}
}

/*
 * To be held against a client that does nothing else: where nothing is cached a deep stat is a row of LOOKUPs (ours: of walks).
 * Only where the walk's are measured.
 */
static bool raw_wanted(int who)
{
	return case_index("stat_64") >= 0 && subjects[who].usable &&
	       (subjects[who].kind == SUBJECT_STOCK || subjects[who].kind == SUBJECT_OWN) &&
	       strstr(subjects[who].name, "-none");
}

static void measure_raw(int round)
{
	for (int who = 0; who < SUBJECTS; who++)
		for (size_t i = 0; raw_wanted(who) && i < THINKS; i++) {
			double v = subject_lookup_raw(&subjects[who], "data", RAW_LOOKUPS,
						      thinks_ns[i]);

			if (v < 0)
				fail("a LOOKUP", subjects[who].name, (int)v);
			raw_us[i][who][round] = v;
		}
}

static void print_raw(void)
{
	char label[40];

	for (size_t i = 0; i < THINKS; i++)
		for (int who = 0; who < SUBJECTS; who++) {
			if (!raw_wanted(who))
				continue;
			snprintf(label, sizeof(label), "lookup_after_%lld_ns",
				 (long long)thinks_ns[i]);
			report(label, subjects[who].name, median(raw_us[i][who]), "us");
		}
}

static void print_lookup(void)
{
	int k = case_index("stat_64");
	double v[ROUNDS_MAX];

	for (int who = 0; k >= 0 && who < SUBJECTS; who++) {
		if (!subjects[who].usable || subjects[who].kind != SUBJECT_STOCK ||
		    !strstr(subjects[who].name, "-none"))
			continue;
		for (int r = 0; r < rounds; r++)
			v[r] = us[k][WARM][who][r] / trips[k][WARM][who][r];
		report("lookup", subjects[who].name, median(v), "us");
	}
}

static void measure_pipe(int round)
{
	char path[sizeof(tree) + sizeof("/data")];
	int k = case_index("read_1m"), err;

	if (k < 0)
		return;
	snprintf(path, sizeof(path), "%s/data", tree);
	err = floor_pipe(path, file_mib, &pipe_us[round]);
	if (err)
		fail("the floor of reads", "host", err);
}

static void target_sequential(void)
{
	int k = case_index("read_1m");
	double v[ROUNDS_MAX];

	for (int who = 1; k >= 0 && subjects[0].usable && who < SUBJECTS; who++) {
		char label[80];

		if (!subjects[who].usable || subjects[who].kind == SUBJECT_GOFER)
			continue;
		for (int r = 0; r < rounds; r++)
			v[r] = us[k][COLD][0][r] / us[k][COLD][who][r];
		snprintf(label, sizeof(label), "%s:host", subjects[who].name);
		report("read_1m_cold_speed", label, median(v), "x (target at least 0.8)");
	}
	if (k >= 0)
		report("read_by_two_threads", "host", median(pipe_us), "us");
}

/* ---- arguments ---- */

static void usage(FILE *to)
{
	fprintf(to,
		"Usage: fs [--quick] [--json] [--rounds=N] [--cases=LIST] [--subjects=LIST] "
		"[--dir=DIR]\n"
		"Host files through the gofer's and the virtio-fs client, in this process, beside "
		"system calls.\n"
		"  --quick          1 round, a directory of 1,000 instead of 10,000, a file of 8 "
		"MiB instead of 32\n"
		"  --rounds=N       1 to %d, default 5; values are their medians\n"
		"  --mib=N          the size of the files that are read and written, 1 to %u MiB\n"
		"  --cases=LIST     separated by commas; a name or how it begins (\"stat\" is all "
		"of stat_*)\n"
		"  --subjects=LIST  likewise (\"stock\" is all of stock-*)\n"
		"  --dir=DIR        where the tree is made, default $TMPDIR or /tmp; removed at "
		"the end\n"
		"Cases:",
		ROUNDS_MAX, FILE_MIB_MAX);
	for (size_t k = 0; k < CASES; k++)
		fprintf(to, " %s", cases[k].name);
	fprintf(to, "\nSubjects:");
	for (int i = 0; i < SUBJECTS; i++)
		fprintf(to, " %s", subjects[i].name);
	fprintf(to, "\n");
}

/* "" lists everything. */
static bool listed(const char *list, const char *name)
{
	if (!*list)
		return true;
	for (;;) {
		size_t len = strcspn(list, ",");

		if (len && !strncmp(name, list, len))
			return true;
		list += len;
		if (!*list++)
			return false;
	}
}

static const char *value_of(const char *arg, const char *option)
{
	size_t len = strlen(option);

	return strncmp(arg, option, len) ? NULL : arg + len;
}

static void parse(int argc, char **argv, const char **ret_dir)
{
	for (int i = 1; i < argc; i++) {
		const char *v;

		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			exit(0);
		} else if (!strcmp(argv[i], "--quick")) {
			rounds = 1;
			entries = 1000;
			file_mib = 8;
		} else if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if ((v = value_of(argv[i], "--rounds="))) {
			rounds = atoi(v);
		} else if ((v = value_of(argv[i], "--mib="))) {
			file_mib = (unsigned)atoi(v);
		} else if ((v = value_of(argv[i], "--cases="))) {
			want_cases = v;
		} else if ((v = value_of(argv[i], "--subjects="))) {
			want_subjects = v;
		} else if ((v = value_of(argv[i], "--dir="))) {
			*ret_dir = v;
		} else {
			usage(stderr);
			exit(2);
		}
	}
	if (rounds < 1 || rounds > ROUNDS_MAX || file_mib < 1 || file_mib > FILE_MIB_MAX) {
		usage(stderr);
		exit(2);
	}
}

/* ---- the run ---- */

static void parts_wanted(struct tree_parts *ret)
{
	*ret = (struct tree_parts){0};
	for (size_t k = 0; k < CASES; k++) {
		if (!case_wanted[k])
			continue;
		ret->chains |= cases[k].depth != 0;
		ret->wide |= !strncmp(cases[k].name, "readdir", 7);
		ret->written |= cases[k].before == open_written;
		ret->source |= cases[k].op == op_find || cases[k].op == op_git_status ||
			       cases[k].op == op_untar;
	}
}

static void set_up(const char *dir)
{
	struct tree_parts parts;
	struct rlimit files;
	int err;

	/* The gofer's client keeps descriptors. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)!setrlimit(RLIMIT_NOFILE, &files);
	}
	names = calloc(1024, sizeof(*names));
	if (!names)
		fail("memory", "host", -ENOMEM);
	snprintf(scratch, sizeof(scratch), "%.3900s/moat-bench-fs.XXXXXX", dir);
	if (!mkdtemp(scratch))
		fail("making a directory below", dir, -errno);
	snprintf(tree, sizeof(tree), "%s/tree", scratch);
	err = subjects_init(scratch, tree);
	if (err) {
		rmdir(scratch);
		fail("starting", "the process that cleans up", err);
	}
	atexit(subjects_fini);
	if (mkdir(tree, 0755) < 0)
		fail("making", tree, -errno);
	parts_wanted(&parts);
	make_tree(&parts);
}

static void start_subjects(void)
{
	for (int i = 0; i < SUBJECTS; i++) {
		int err;

		if (!listed(want_subjects, subjects[i].name))
			continue;
		err = subject_start(&subjects[i]);
		if (err)
			fprintf(stderr, "fs: %s is left out: it did not start: %s\n",
				subjects[i].name, strerror(-err));
	}
}

int main(int argc, char **argv)
{
	const char *dir = getenv("TMPDIR");
	int err;

	if (!dir)
		dir = "/tmp";
	parse(argc, argv, &dir);
	spin_allow();
	for (size_t k = 0; k < CASES; k++)
		case_wanted[k] = listed(want_cases, cases[k].name);
	set_up(dir);
	start_subjects();
	err = floor_start();
	if (err)
		fail("the echo process", "host", err);
	for (int round = 0; round < rounds; round++) {
		err = floor_measure(tree, &socket_us[round], &walk_us[round]);
		if (err)
			fail("the floor", "host", err);
		for (size_t k = 0; k < CASES; k++)
			for (int who = 0; who < SUBJECTS; who++)
				if (case_wanted[k] && subjects[who].usable)
					measure(k, who, round);
		measure_raw(round);
		measure_pipe(round);
	}
	for (size_t k = 0; k < CASES; k++)
		if (case_wanted[k])
			print_case(k);
	report("socket_round_trip", "host", median(socket_us), "us");
	report("safe_walk_8", "host", median(walk_us), "us");
	print_lookup();
	print_raw();
	target_trips("stat_8");
	target_trips("open_close_8");
	target_trips("create_8");
	target_gofer_stat();
	target_sequential();
	if (json)
		printf("\n]\n");
	for (int i = 0; i < SUBJECTS; i++)
		if (subjects[i].usable)
			subject_stop(&subjects[i]);
	floor_stop();
	return 0;
}
