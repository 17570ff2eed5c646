/*
 * bench/platform.c - what a system call, a fault, a switch and a process cost: host, Moat's platforms and runsc, in one run.
 *
 * Usage: platform [--json] [--rounds N] [--subjects LIST] [--cases LIST] [--moat PATH].
 * Prints "case/subject VALUE UNIT", the median of the rounds, then "case/kvm:runsc RATIO x" lines: the median of the ratios within
 * a round. Every subject runs one bench/platform_guest, started once and idle while others are measured; in a round each case
 * goes through all subjects before the next case begins, so that a noisy minute hits all of them. `_busy` cases have two threads
 * of this program spinning beside them. A subject that does not run is left out, with a line that says why.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS_MAX 101
#define ANSWER_MS 30000
#define BUSY_THREADS 2

enum { HOST, KVM, SYSTRAP, RUNSC, SUBJECTS };

static char moat_path[4096], guest_path[4000], state_dir[4096];
static char work_dir[] = "/tmp/moat-platform-XXXXXX";
static bool json_output, json_first = true;
static int rounds = 9;

static struct subject {
	const char *name;
	const char *argv[12]; /* before the bundle and the id; host: none */
	pid_t pid;
	int to, from;
	bool usable;
} subjects[SUBJECTS] = {
	[HOST] = {.name = "host"},
	[KVM] = {.name = "kvm",
		 .argv = {moat_path, "--root", state_dir, "--platform=kvm", "run", "--bundle"}},
	[SYSTRAP] = {.name = "systrap",
		     .argv = {moat_path, "--root", state_dir, "--platform=systrap", "run",
			      "--bundle"}},
	[RUNSC] = {.name = "runsc",
		   .argv = {"runsc", "--root", state_dir, "--platform=ptrace", "--network=none",
			    "run", "--bundle"}},
};

static const struct bench_case {
	const char *name, *guest;
	int count;
	bool busy, us;
} cases[] = {
	{"getpid", "getpid", 3000, false, false},
	{"getpid_unpatched", "getpid_unpatched", 1000, false, false},
	{"getpid_busy", "getpid", 1000, true, false},
	{"getpid_unpatched_busy", "getpid_unpatched", 500, true, false},
	{"clock_gettime", "clock_gettime", 100000, false, false},
	{"clock_gettime_first", "clock_gettime_first", 1, false, false},
	{"getcpu", "getcpu", 10000, false, false},
	{"minor_fault", "minor_fault", 64, false, true},
	{"mmap_touch_munmap_page", "mmap_touch_munmap_page", 2048, false, true},
	{"pipe_pingpong", "pipe_pingpong", 300, false, true},
	{"futex_pingpong", "futex_pingpong", 300, false, true},
	{"signal_self", "signal_self", 300, false, true},
	{"thread_create_join", "thread_create_join", 100, false, true},
	{"fork_exit_wait", "fork_exit_wait", 20, false, true},
	{"fork_exec_wait", "fork_exec_wait", 10, false, true},
	{"spawn_wait", "spawn_wait", 10, false, true},
};
#define CASES (sizeof(cases) / sizeof(cases[0]))

static double values[CASES][SUBJECTS][ROUNDS_MAX];
static bool wanted[CASES];

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "platform: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

/* ---- subjects ---- */

static void write_config(void)
{
	char path[4200], cmd[16384];
	FILE *f;

	snprintf(cmd, sizeof(cmd),
		 "mkdir -p '%s/b/rootfs/proc' '%s/b/rootfs/dev' '%s/b/rootfs/tmp' && cp '%s' "
		 "'%s/b/rootfs/guest'",
		 work_dir, work_dir, work_dir, guest_path, work_dir);
	if (system(cmd) != 0)
		die("cannot make a bundle in %s", work_dir);
	snprintf(path, sizeof(path), "%s/b/config.json", work_dir);
	f = fopen(path, "w");
	if (!f)
		die("%s: %s", path, strerror(errno));
	fputs("{\"ociVersion\":\"1.0.2\",\"process\":{\"terminal\":false,\"user\":{\"uid\":0,"
	      "\"gid\":0},\"args\":[\"/guest\"],\"env\":[\"PATH=/\"],\"cwd\":\"/\"},\"root\":{"
	      "\"path\":\"rootfs\",\"readonly\":false},\"hostname\":\"bench\",\"mounts\":[{"
	      "\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"}],\"linux\":{"
	      "\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":"
	      "\"mount\"},{\"type\":\"network\"}]}}\n",
	      f);
	if (fclose(f) != 0)
		die("%s: %s", path, strerror(errno));
}

/* Return: a line without its end was read within the time. */
static bool read_line(struct subject *s, char *line, size_t size)
{
	struct pollfd p = {.fd = s->from, .events = POLLIN};
	size_t n = 0;

	while (n + 1 < size) {
		if (poll(&p, 1, ANSWER_MS) != 1 || read(s->from, &line[n], 1) != 1)
			return false;
		if (line[n] == '\n') {
			line[n] = '\0';
			return true;
		}
		n++;
	}
	return false;
}

static void last_error(const struct subject *s, char *text, size_t size)
{
	char path[4200], line[256];
	FILE *f;

	snprintf(text, size, "it printed no error");
	snprintf(path, sizeof(path), "%s/%s.err", work_dir, s->name);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		line[strcspn(line, "\n")] = '\0';
		if (line[0])
			snprintf(text, size, "%.200s", line);
	}
	if (f)
		fclose(f);
}

static void leave_out(struct subject *s, const char *why)
{
	char text[256];

	last_error(s, text, sizeof(text));
	fprintf(json_output ? stderr : stdout, "# %s is left out: %s: %s\n", s->name, why, text);
	s->usable = false;
	if (s->to > 0) {
		close(s->to);
		close(s->from);
	}
	if (s->pid > 0) {
		kill(s->pid, SIGKILL);
		waitpid(s->pid, NULL, 0);
	}
}

static void exec_subject(struct subject *s, int in, int out)
{
	char bundle[4200], id[64], path[4200];
	const char *argv[16];
	unsigned n = 0;
	int err;

	snprintf(path, sizeof(path), "%s/%s.err", work_dir, s->name);
	err = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	dup2(in, 0);
	dup2(out, 1);
	dup2(err, 2);
	if (!s->argv[0]) {
		argv[n++] = guest_path;
	} else {
		snprintf(bundle, sizeof(bundle), "%s/b", work_dir);
		snprintf(id, sizeof(id), "platform-%d-%s", getppid(), s->name);
		for (; s->argv[n]; n++)
			argv[n] = s->argv[n];
		argv[n++] = bundle;
		argv[n++] = id;
	}
	argv[n] = NULL;
	execvp(argv[0], (char *const *)argv);
	fprintf(stderr, "%s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

static void start(struct subject *s)
{
	char line[64];
	int in[2], out[2];

	if (pipe2(in, O_CLOEXEC) || pipe2(out, O_CLOEXEC))
		die("pipe: %s", strerror(errno));
	s->pid = fork();
	if (s->pid == 0)
		exec_subject(s, in[0], out[1]);
	close(in[0]);
	close(out[1]);
	s->to = in[1];
	s->from = out[0];
	s->usable = true;
	if (s->pid < 0 || !read_line(s, line, sizeof(line)) || strcmp(line, "ready") != 0)
		leave_out(s, "it does not start");
}

static double ask(struct subject *s, const char *guest_case, int count)
{
	char line[128];
	int n = snprintf(line, sizeof(line), "%s %d\n", guest_case, count);
	double value;

	if (write(s->to, line, (size_t)n) == n && read_line(s, line, sizeof(line)) &&
	    sscanf(line, "%lf", &value) == 1)
		return value;
	leave_out(s, guest_case);
	return 0;
}

/* ---- rounds ---- */

static _Atomic bool busy;

static void *spin(void *arg)
{
	while (atomic_load_explicit(&busy, memory_order_relaxed))
		__asm__ volatile("");
	return arg;
}

static void measure(unsigned c, int round)
{
	pthread_t threads[BUSY_THREADS];

	if (cases[c].busy) {
		atomic_store(&busy, true);
		for (int i = 0; i < BUSY_THREADS; i++)
			if (pthread_create(&threads[i], NULL, spin, NULL))
				die("pthread_create");
	}
	for (unsigned k = 0; k < SUBJECTS; k++) {
		/* Whoever comes first in a round has the colder caches: not always the same. */
		struct subject *s = &subjects[(k + (unsigned)round) % SUBJECTS];

		if (s->usable)
			values[c][s - subjects][round] = ask(s, cases[c].guest, cases[c].count);
	}
	if (cases[c].busy) {
		atomic_store(&busy, false);
		for (int i = 0; i < BUSY_THREADS; i++)
			pthread_join(threads[i], NULL);
	}
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(const double *v)
{
	double sorted[ROUNDS_MAX];

	memcpy(sorted, v, sizeof(double) * (size_t)rounds);
	qsort(sorted, (size_t)rounds, sizeof(double), compare);
	return sorted[rounds / 2];
}

static void print(const char *name, const char *subject, double value, const char *unit)
{
	if (json_output)
		printf("%s{\"case\":\"%s\",\"subject\":\"%s\",\"value\":%.3f,\"unit\":\"%s\"}",
		       json_first ? "[" : ",\n", name, subject, value, unit);
	else
		printf("%s/%s %.3f %s\n", name, subject, value, unit);
	json_first = false;
}

static void print_ratio(unsigned c, unsigned a, unsigned b)
{
	double ratio[ROUNDS_MAX];
	char pair[64];

	if (a == b || !subjects[a].usable || !subjects[b].usable)
		return;
	for (int i = 0; i < rounds; i++)
		ratio[i] = values[c][b][i] > 0 ? values[c][a][i] / values[c][b][i] : 0;
	snprintf(pair, sizeof(pair), "%s:%s", subjects[a].name, subjects[b].name);
	print(cases[c].name, pair, median(ratio), "x");
}

static void print_all(void)
{
	for (unsigned c = 0; c < CASES; c++)
		for (unsigned s = 0; wanted[c] && s < SUBJECTS; s++)
			if (subjects[s].usable)
				print(cases[c].name, subjects[s].name,
				      median(values[c][s]) / (cases[c].us ? 1000 : 1),
				      cases[c].us ? "us" : "ns");
	for (unsigned c = 0; c < CASES; c++) {
		for (unsigned s = KVM; wanted[c] && s <= SYSTRAP; s++) {
			print_ratio(c, s, HOST);
			print_ratio(c, s, RUNSC);
		}
	}
	if (json_output)
		printf("%s]\n", json_first ? "[" : "");
}

/* ---- arguments ---- */

/* Is `name` one of the comma-separated words of `list`? */
static bool listed(const char *list, const char *name)
{
	size_t len = strlen(name);

	for (const char *p = list; p; p = strchr(p, ',')) {
		p += *p == ',';
		if (strncmp(p, name, len) == 0 && (p[len] == ',' || p[len] == '\0'))
			return true;
	}
	return false;
}

static void find_binaries(void)
{
	char self[4000];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

	if (n < 0)
		die("/proc/self/exe: %s", strerror(errno));
	self[n] = '\0';
	*strrchr(self, '/') = '\0';
	snprintf(guest_path, sizeof(guest_path), "%.3900s/platform_guest", self);
	if (!moat_path[0])
		snprintf(moat_path, sizeof(moat_path), "%.3900s/../moat", self);
	if (access(moat_path, X_OK) < 0 || access(guest_path, X_OK) < 0)
		die("%s or %s is missing: build first (scripts/build)", moat_path, guest_path);
}

static void parse_args(int argc, char **argv, const char **only_subjects, const char **only_cases)
{
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json_output = true;
		else if (strcmp(argv[i], "--rounds") == 0 && i + 1 < argc)
			rounds = atoi(argv[++i]);
		else if (strcmp(argv[i], "--subjects") == 0 && i + 1 < argc)
			*only_subjects = argv[++i];
		else if (strcmp(argv[i], "--cases") == 0 && i + 1 < argc)
			*only_cases = argv[++i];
		else if (strcmp(argv[i], "--moat") == 0 && i + 1 < argc)
			snprintf(moat_path, sizeof(moat_path), "%s", argv[++i]);
		else
			die("unknown argument '%s'; usage: platform [--json] [--rounds N] "
			    "[--subjects LIST] [--cases LIST] [--moat PATH]",
			    argv[i]);
	}
	if (rounds < 1 || rounds > ROUNDS_MAX)
		die("--rounds: 1 to %d", ROUNDS_MAX);
}

int main(int argc, char **argv)
{
	const char *only_subjects = NULL, *only_cases = NULL;
	char cmd[4200];

	parse_args(argc, argv, &only_subjects, &only_cases);
	signal(SIGPIPE, SIG_IGN);
	find_binaries();
	if (!mkdtemp(work_dir))
		die("%s: %s", work_dir, strerror(errno));
	snprintf(state_dir, sizeof(state_dir), "%s/state", work_dir);
	write_config();
	for (unsigned s = 0; s < SUBJECTS; s++)
		if (!only_subjects || listed(only_subjects, subjects[s].name))
			start(&subjects[s]);
	for (unsigned c = 0; c < CASES; c++)
		wanted[c] = !only_cases || listed(only_cases, cases[c].name);
	for (unsigned c = 0; c < CASES; c++) /* warms caches, lets hot sites be patched */
		for (unsigned s = 0; wanted[c] && s < SUBJECTS; s++)
			if (subjects[s].usable)
				(void)ask(&subjects[s], cases[c].guest, cases[c].count / 4 + 1);
	for (int round = 0; round < rounds; round++)
		for (unsigned c = 0; c < CASES; c++)
			if (wanted[c])
				measure(c, round);
	print_all();
	for (unsigned s = 0; s < SUBJECTS; s++) {
		if (!subjects[s].usable)
			continue;
		close(subjects[s].to);
		close(subjects[s].from);
		waitpid(subjects[s].pid, NULL, 0);
	}
	snprintf(cmd, sizeof(cmd), "rm -rf --one-file-system '%s'", work_dir);
	return system(cmd) == 0 ? 0 : 1;
}
