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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/spin.h"
#include "bench/fs_cases.h"
#include "bench/fs_floor.h"
#include "bench/fs_lookup.h"
#include "bench/fs_subject.h"

#define ROUNDS_MAX 99
#define WARM_NS 10000000ll
#define PASSES_MAX 8192
#define OPS_MAX 64u /* of a pass, timed one by one */
#define FILE_MIB_MAX 1024u

static int rounds = 5;
static bool json, json_first = true;
static const char *want_cases = "", *want_subjects = "";

static char scratch[4000], tree[4096];

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

enum { COLD, WARM, STATES };
static const char *const state_names[STATES] = {"cold", "warm"};
static bool case_wanted[FS_CASES];
static double us[FS_CASES][STATES][SUBJECTS][ROUNDS_MAX],
	trips[FS_CASES][STATES][SUBJECTS][ROUNDS_MAX];
/* What the gofer's cold stat is held against, as medians of single ones; so is the stat: the first of a pass wakes who sleeps. */
static double socket_us[ROUNDS_MAX], walk_us[ROUNDS_MAX], steady_us[SUBJECTS][ROUNDS_MAX];
/* What two threads make of sequential reads: the first as the client and its daemon do it, with pieces and memory of their sizes. */
static const struct {
	const char *name;
	size_t piece, ring;
} pipes[] = {
	{"read_by_two_threads", 1ul << 20, 4ul << 20},
	{"read_by_two_threads_256k_of_1m", 256ul << 10, 1ul << 20},
	{"read_by_two_threads_1m_of_64m", 1ul << 20, 64ul << 20},
};
#define PIPES (sizeof(pipes) / sizeof(pipes[0]))
static double pipe_us[PIPES][ROUNDS_MAX], line_ns[ROUNDS_MAX];
/* What a walk's LOOKUPs are held against: a LOOKUP by itself, so long after the answer before. */
static const int64_t thinks_ns[] = {0, 500, 1000, 2000, 4000};
#define THINKS (sizeof(thinks_ns) / sizeof(thinks_ns[0]))
#define RAW_LOOKUPS 2000
static double raw_us[THINKS][SUBJECTS][ROUNDS_MAX];
/* By one client and another, each side on a CPU of its own. */
static double lookup_us[LOOKUP_HOWS][SUBJECTS][ROUNDS_MAX];
static bool lookups_wanted;

/* Return: operations. Time and requests are added. each: us of every operation, of OPS_MAX at most; NULL: not wanted. */
static unsigned pass(struct subject *s, const struct fs_case *c, int64_t *ns, uint64_t *requests,
		     double *each)
{
	unsigned ops = c->ops ? c->ops : fs_file_mib;
	int64_t start, last, now;
	uint64_t sent;

	if (c->before)
		c->before(s);
	sent = subject_requests(s);
	start = last = now_ns();
	for (unsigned i = 0; i < ops; i++) {
		c->op(s, c, i);
		if (!each || i >= OPS_MAX)
			continue;
		now = now_ns();
		each[i] = (double)(now - last) / 1000;
		last = now;
	}
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

static bool is_stat_8(const struct fs_case *c)
{
	return !strcmp(c->name, "stat_8");
}

/* The time of a warm operation is the median of its passes': most of them are short, and whoever else wanted the processor is in few. */
static void measure(size_t k, int who, int round)
{
	static double passes[PASSES_MAX], each[OPS_MAX];
	const struct fs_case *c = &fs_cases[k];
	struct subject *s = &subjects[who];

	if (c->mapped && s->kind == SUBJECT_DIOD)
		return;
	subject_shrink(s);
	for (int state = 0; state < STATES; state++) {
		bool steady = state == COLD && is_stat_8(c);
		uint64_t requests = 0;
		unsigned ops = 0, count = 0;
		int64_t all = 0;

		do {
			int64_t ns = 0;
			unsigned made = pass(s, c, &ns, &requests, steady ? each : NULL);

			passes[count++] = (double)ns / made / 1000;
			ops += made;
			all += ns;
		} while (state == WARM && !c->warm_once && all < WARM_NS && count < PASSES_MAX);
		us[k][state][who][round] = median_of(passes, count);
		trips[k][state][who][round] = (double)requests / ops;
		if (steady)
			steady_us[who][round] = median_of(each, MIN(ops, OPS_MAX));
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
			    (fs_cases[k].mapped && subjects[who].kind == SUBJECT_DIOD))
				continue;
			snprintf(label, sizeof(label), "%s_%s", fs_cases[k].name,
				 state_names[state]);
			report(label, subjects[who].name, median(us[k][state][who]), "us");
			if (subjects[who].kind == SUBJECT_HOST)
				continue;
			snprintf(label, sizeof(label), "%s_%s_trips", fs_cases[k].name,
				 state_names[state]);
			report(label, subjects[who].name, median(trips[k][state][who]), "requests");
		}
}

/* -1: not measured. */
static int case_index(const char *name)
{
	for (size_t k = 0; k < FS_CASES; k++)
		if (!strcmp(fs_cases[k].name, name))
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
			v[r] = steady_us[who][r] / (socket_us[r] + walk_us[r]);
		report("stat_8_cold_median", subjects[who].name, median(steady_us[who]), "us");
		snprintf(label, sizeof(label), "%s:socket+walk", subjects[who].name);
		report("stat_8_cold_median", label, median(v), "x (target at most 1.3)");
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
				fs_fail("a LOOKUP", subjects[who].name, (int)v);
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

/* Walks where nothing is believed; a second CPU is there. */
static bool lookup_wanted(int who)
{
	return lookups_wanted && subjects[who].usable &&
	       (subjects[who].kind == SUBJECT_STOCK || subjects[who].kind == SUBJECT_OWN) &&
	       strstr(subjects[who].name, "-none");
}

static void measure_lookups(int round)
{
	for (int who = 0; who < SUBJECTS; who++) {
		double v[LOOKUP_HOWS];
		int err = lookup_wanted(who) ? lookup_measure(&subjects[who], v) : 0;

		if (err == -ENOTSUP) {
			fprintf(stderr, "fs: no LOOKUP beside a bare client: it needs two CPUs\n");
			lookups_wanted = false;
		} else if (err) {
			fs_fail("LOOKUPs", subjects[who].name, err);
		}
		for (int how = 0; lookup_wanted(who) && how < LOOKUP_HOWS; how++)
			lookup_us[how][who][round] = v[how];
	}
}

static void print_lookups(void)
{
	static const struct {
		enum lookup_how of, to;
		const char *unit;
	} pairs[] = {
		{LOOKUP_BARE_SOCKET, LOOKUP_BARE, "x"},
		{LOOKUP_DEVICE, LOOKUP_BARE, "x"},
		{LOOKUP_STAT, LOOKUP_BARE, "x (target at most 1.1)"},
		{LOOKUP_WALK, LOOKUP_BARE_WALK, "x (target at most 1.1)"},
	};
	double v[ROUNDS_MAX];
	char label[80];

	for (int who = 0; who < SUBJECTS; who++) {
		for (int how = 0; lookup_wanted(who) && how < LOOKUP_HOWS; how++) {
			snprintf(label, sizeof(label), "lookup_pinned_%s", lookup_names[how]);
			report(label, subjects[who].name, median(lookup_us[how][who]), "us");
		}
		for (size_t i = 0; lookup_wanted(who) && i < ARRAY_SIZE(pairs); i++) {
			/* Ours is asked for many names at once. */
			if (pairs[i].of == LOOKUP_WALK && subjects[who].kind == SUBJECT_OWN)
				continue;
			for (int r = 0; r < rounds; r++)
				v[r] = lookup_us[pairs[i].of][who][r] /
				       lookup_us[pairs[i].to][who][r];
			snprintf(label, sizeof(label), "lookup_pinned_%s:%s",
				 lookup_names[pairs[i].of], lookup_names[pairs[i].to]);
			report(label, subjects[who].name, median(v), pairs[i].unit);
		}
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
	err = floor_line(&line_ns[round]);
	for (size_t i = 0; i < PIPES && !err; i++)
		err = floor_pipe(path, fs_file_mib, pipes[i].piece, pipes[i].ring,
				 &pipe_us[i][round]);
	if (err)
		fs_fail("the floor of reads", "host", err);
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
	if (k < 0)
		return;
	for (size_t i = 0; i < PIPES; i++)
		report(pipes[i].name, "host", median(pipe_us[i]), "us");
	report("line_to_another_cpu", "host", median(line_ns), "ns");
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
	for (size_t k = 0; k < FS_CASES; k++)
		fprintf(to, " %s", fs_cases[k].name);
	fprintf(to, " lookup\nSubjects:");
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
			fs_entries = 1000;
			fs_file_mib = 8;
		} else if (!strcmp(argv[i], "--json")) {
			json = true;
		} else if ((v = value_of(argv[i], "--rounds="))) {
			rounds = atoi(v);
		} else if ((v = value_of(argv[i], "--mib="))) {
			fs_file_mib = (unsigned)atoi(v);
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
	if (rounds < 1 || rounds > ROUNDS_MAX || fs_file_mib < 1 || fs_file_mib > FILE_MIB_MAX) {
		usage(stderr);
		exit(2);
	}
}

/* ---- the run ---- */

static void set_up(const char *dir)
{
	struct rlimit files;
	int err;

	/* The gofer's client keeps descriptors. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)!setrlimit(RLIMIT_NOFILE, &files);
	}
	snprintf(scratch, sizeof(scratch), "%.3900s/moat-bench-fs.XXXXXX", dir);
	if (!mkdtemp(scratch))
		fs_fail("making a directory below", dir, -errno);
	snprintf(tree, sizeof(tree), "%s/tree", scratch);
	err = subjects_init(scratch, tree);
	if (err) {
		rmdir(scratch);
		fs_fail("starting", "the process that cleans up", err);
	}
	atexit(subjects_fini);
	if (mkdir(tree, 0755) < 0)
		fs_fail("making", tree, -errno);
	fs_tree_make(tree, case_wanted);
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
	for (size_t k = 0; k < FS_CASES; k++)
		case_wanted[k] = listed(want_cases, fs_cases[k].name);
	lookups_wanted = listed(want_cases, "lookup");
	set_up(dir);
	start_subjects();
	err = floor_start();
	if (err)
		fs_fail("the echo process", "host", err);
	for (int round = 0; round < rounds; round++) {
		err = floor_measure(tree, &socket_us[round], &walk_us[round]);
		if (err)
			fs_fail("the floor", "host", err);
		for (size_t k = 0; k < FS_CASES; k++)
			for (int who = 0; who < SUBJECTS; who++)
				if (case_wanted[k] && subjects[who].usable)
					measure(k, who, round);
		measure_raw(round);
		measure_lookups(round);
		measure_pipe(round);
	}
	for (size_t k = 0; k < FS_CASES; k++)
		if (case_wanted[k])
			print_case(k);
	report("socket_round_trip", "host", median(socket_us), "us");
	report("safe_walk_8", "host", median(walk_us), "us");
	print_lookup();
	print_raw();
	print_lookups();
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
	lookup_stop();
	floor_stop();
	return 0;
}
