/*
 * bench/sandbox.c - Moat beside its peers: start-up, memory, and bench/guest inside each, in one run.
 *
 * Usage: sandbox [--json] [--runs N] [--subjects LIST] [--cases start,memory,calls]. Prints "case/subject VALUE UNIT", then "case/moat:PEER RATIO x" lines:
 * Moat's median divided by the peer's. Subjects alternate in every round, so that a noisy minute hits all of them.
 * Needs busybox, runc and runsc (scripts/deps peers); a subject that cannot run is named on standard error and left out.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SUBJECTS_MAX 4
#define CASES_MAX 64
#define RUNS_MAX 200

struct subject {
	const char *name;
	/* argv before the bundle's flags; NULL-terminated. host: runs the command itself. */
	const char *argv[10];
	bool usable;
};

static char moat_path[4096], state_dir[4096],
	null_path[64] = "/dev/null", work_dir[] = "/tmp/moat-bench-XXXXXX", bench_dir[4000];
static bool json_output, json_first = true;

static struct subject subjects[SUBJECTS_MAX] = {
	{"moat", {moat_path, "--root", state_dir, "run", "--bundle"}, true},
	{"runc", {"runc", "run", "--bundle"}, true},
	{"runsc", {"runsc", "--platform=ptrace", "--network=none", "run", "--bundle"}, true},
	{"host", {NULL}, true},
};

struct result {
	char name[64], unit[8];
	double value[SUBJECTS_MAX];
	bool have[SUBJECTS_MAX];
};
static struct result results[CASES_MAX];
static unsigned nresults;

static void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fprintf(stderr, "sandbox: ");
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static double now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static void record(const char *name, unsigned subject, double value, const char *unit)
{
	struct result *r = NULL;

	for (unsigned i = 0; i < nresults; i++)
		if (strcmp(results[i].name, name) == 0)
			r = &results[i];
	if (!r) {
		if (nresults == CASES_MAX)
			die("more than %d cases", CASES_MAX);
		r = &results[nresults++];
		snprintf(r->name, sizeof(r->name), "%s", name);
		snprintf(r->unit, sizeof(r->unit), "%s", unit);
	}
	r->value[subject] = value;
	r->have[subject] = true;
	if (json_output)
		printf("%s{\"case\":\"%s\",\"subject\":\"%s\",\"value\":%.3f,\"unit\":\"%s\"}",
		       json_first ? "[" : ",\n", name, subjects[subject].name, value, unit);
	else
		printf("%s/%s %.3f %s\n", name, subjects[subject].name, value, unit);
	json_first = false;
	fflush(stdout);
}

static void print_ratios(void)
{
	for (unsigned i = 0; i < nresults; i++) {
		struct result *r = &results[i];

		for (unsigned s = 1; s < SUBJECTS_MAX; s++) {
			if (!r->have[0] || !r->have[s] || r->value[s] <= 0)
				continue;
			if (json_output)
				printf(",\n{\"case\":\"%s\",\"subject\":\"moat:%s\",\"value\":%.3f,"
				       "\"unit\":\"x\"}",
				       r->name, subjects[s].name, r->value[0] / r->value[s]);
			else
				printf("%s/moat:%s %.3f x\n", r->name, subjects[s].name,
				       r->value[0] / r->value[s]);
		}
	}
	if (json_output)
		printf("]\n");
}

static void write_text(const char *path, const char *text)
{
	FILE *f = fopen(path, "w");

	if (!f || fputs(text, f) < 0 || fclose(f) < 0)
		die("%s: %s", path, strerror(errno));
}

static void copy_file(const char *from, const char *to)
{
	char buf[65536];
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	ssize_t n;

	if (in < 0 || out < 0)
		die("%s: %s", in < 0 ? from : to, strerror(errno));
	while ((n = read(in, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			die("%s: %s", to, strerror(errno));
	close(in);
	close(out);
}

/* WORK/NAME: a busybox bundle that runs args (JSON array text). */
static void make_bundle(const char *name, const char *args)
{
	char dir[4096], path[4200], config[8192];
	static const char *const dirs[] = {"",
					   "/rootfs",
					   "/rootfs/bin",
					   "/rootfs/proc",
					   "/rootfs/dev",
					   "/rootfs/tmp",
					   "/rootfs/work"};

	snprintf(dir, sizeof(dir), "%s/%s", work_dir, name);
	for (size_t i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		snprintf(path, sizeof(path), "%s%s", dir, dirs[i]);
		if (mkdir(path, 0755) < 0 && errno != EEXIST)
			die("%s: %s", path, strerror(errno));
	}
	snprintf(path, sizeof(path), "%s/rootfs/bin/busybox", dir);
	copy_file("/bin/busybox", path);
	snprintf(path, sizeof(path), "%s/rootfs/bin/guest", dir);
	copy_file(bench_dir, path);
	snprintf(path, sizeof(path), "%s/rootfs/bin/true", dir);
	(void)!symlink("busybox", path);
	snprintf(path, sizeof(path), "%s/rootfs/bin/sleep", dir);
	(void)!symlink("busybox", path);
	snprintf(config, sizeof(config),
		 "{\"ociVersion\":\"1.0.2\",\"process\":{\"terminal\":false,\"user\":{\"uid\":0,"
		 "\"gid\":0},\"args\":%s,"
		 "\"env\":[\"PATH=/bin\"],\"cwd\":\"/"
		 "\"},\"root\":{\"path\":\"rootfs\",\"readonly\":false},\"hostname\":\"bench\","
		 "\"mounts\":[{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\"},"
		 "{\"destination\":\"/"
		 "dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"mode=755\"]},"
		 "{\"destination\":\"/"
		 "tmp\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"mode=1777\"]}],"
		 "\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":"
		 "\"uts\"},{\"type\":\"mount\"},"
		 "{\"type\":\"network\"}]}}\n",
		 args);
	snprintf(path, sizeof(path), "%s/config.json", dir);
	write_text(path, config);
}

/* Starts subject s on bundle `name`; its output goes to out_fd. */
static pid_t start(unsigned s, const char *name, const char *const *host_argv, int out_fd, int run)
{
	char bundle[4096], id[64];
	const char *argv[16];
	unsigned n = 0;
	pid_t pid;

	snprintf(bundle, sizeof(bundle), "%s/%s", work_dir, name);
	snprintf(id, sizeof(id), "bench-%d-%s-%d", getpid(), name, run);
	if (strcmp(subjects[s].name, "host") == 0) {
		for (; host_argv[n]; n++)
			argv[n] = host_argv[n];
	} else {
		for (; subjects[s].argv[n]; n++)
			argv[n] = subjects[s].argv[n];
		argv[n++] = bundle;
		argv[n++] = id;
	}
	argv[n] = NULL;
	pid = fork();
	if (pid == 0) {
		int null = open(null_path, O_RDWR);

		dup2(null, 0);
		dup2(out_fd >= 0 ? out_fd : null, 1);
		execvp(argv[0], (char *const *)argv);
		_exit(127);
	}
	return pid;
}

static int finish(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void bench_start(int runs)
{
	static double t[SUBJECTS_MAX][RUNS_MAX];
	static const char *const host[] = {"/bin/busybox", "true", NULL};

	make_bundle("true", "[\"/bin/true\"]");
	for (int i = -1; i < runs; i++) { /* -1 warms the caches */
		for (unsigned s = 0; s < SUBJECTS_MAX; s++) {
			double begin = now_ms();

			if (!subjects[s].usable)
				continue;
			if (finish(start(s, "true", host, -1, i)) != 0) {
				fprintf(stderr, "sandbox: %s does not run here; left out\n",
					subjects[s].name);
				subjects[s].usable = false;
			}
			if (i >= 0)
				t[s][i] = now_ms() - begin;
		}
	}
	for (unsigned s = 0; s < SUBJECTS_MAX; s++) {
		if (!subjects[s].usable)
			continue;
		qsort(t[s], (size_t)runs, sizeof(double), compare);
		record("start_to_exit", s, t[s][runs / 2], "ms");
	}
}

static pid_t parent_of(pid_t pid)
{
	char path[64], line[512];
	const char *p;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 0;
	p = fgets(line, sizeof(line), f) ? strrchr(line, ')') : NULL;
	fclose(f);
	return p ? atoi(p + 4) : 0;
}

static double pss_kib(pid_t pid)
{
	char path[64], line[256];
	double kib = 0;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps_rollup", pid);
	f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "Pss: %lf", &kib) == 1)
			break;
	if (f)
		fclose(f);
	return kib;
}

/* PSS of root and all its descendants. */
static double tree_pss_kib(pid_t root)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	double sum = 0;

	while (proc && (e = readdir(proc))) {
		pid_t pid = atoi(e->d_name), up = pid;

		for (int depth = 0; pid > 0 && up > 1 && depth < 32; depth++) {
			if (up == root) {
				sum += pss_kib(pid);
				break;
			}
			up = parent_of(up);
		}
	}
	if (proc)
		closedir(proc);
	return sum;
}

static void bench_memory(void)
{
	static const char *const host[] = {"/bin/busybox", "sleep", "60", NULL};

	make_bundle("sleep", "[\"/bin/sleep\",\"60\"]");
	for (unsigned s = 0; s < SUBJECTS_MAX; s++) {
		pid_t pid;

		if (!subjects[s].usable)
			continue;
		pid = start(s, "sleep", host, -1, 0);
		sleep(1);
		record("idle_pss", s, tree_pss_kib(pid) / 1024, "MiB");
		kill(pid, strcmp(subjects[s].name, "host") == 0 ? SIGKILL : SIGTERM);
		/* sleep as pid 1 ignores SIGTERM: ask the runtime. */
		if (strcmp(subjects[s].name, "host") != 0) {
			char cmd[8600];

			snprintf(cmd, sizeof(cmd),
				 "%s%s%s kill bench-%d-sleep-0 KILL >/dev/null 2>&1",
				 s == 0 ? moat_path : subjects[s].name, s == 0 ? " --root " : "",
				 s == 0 ? state_dir : "", getpid());
			if (system(cmd) != 0)
				kill(pid, SIGKILL);
		}
		finish(pid);
	}
}

static void bench_calls(const char *label, const char *guest_dir, const char *bundle_args)
{
	char host_dir[4200];
	const char *host[] = {bench_dir, host_dir, NULL};

	snprintf(host_dir, sizeof(host_dir), "%s/host-%s", work_dir, label);
	mkdir(host_dir, 0755);
	(void)guest_dir;
	make_bundle(label, bundle_args);
	for (unsigned s = 0; s < SUBJECTS_MAX; s++) {
		char name[64], unit[8], full[128];
		double value;
		int p[2];
		FILE *f;
		pid_t pid;

		if (!subjects[s].usable || pipe2(p, O_CLOEXEC) < 0)
			continue;
		pid = start(s, label, host, p[1], 0);
		close(p[1]);
		f = fdopen(p[0], "r");
		while (f && fscanf(f, "%63s %lf %7s", name, &value, unit) == 3) {
			snprintf(full, sizeof(full), "%s_%s", label, name);
			record(full, s, value, unit);
		}
		if (f)
			fclose(f);
		if (finish(pid) != 0)
			fprintf(stderr, "sandbox: %s: guest failed\n", subjects[s].name);
	}
}

/* One of our own, where we may make it: runsc gives its standard input to nobody, and as root the host's would be that. */
static void make_null(void)
{
	char path[sizeof(null_path)];
	int fd;

	snprintf(path, sizeof(path), "%s/null", work_dir);
	if (mknod(path, S_IFCHR | 0666, makedev(1, 3)) < 0)
		return;
	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return;
	close(fd);
	memcpy(null_path, path, sizeof(path));
}

static void find_binaries(void)
{
	char self[4000];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
	char *slash;

	if (n < 0)
		die("/proc/self/exe: %s", strerror(errno));
	self[n] = '\0';
	slash = strrchr(self, '/');
	*slash = '\0';
	snprintf(bench_dir, sizeof(bench_dir), "%.3900s/guest", self);
	snprintf(moat_path, sizeof(moat_path), "%.3900s/../moat", self);
	if (access(moat_path, X_OK) < 0 || access(bench_dir, X_OK) < 0)
		die("%s or %s is missing: build first (scripts/build)", moat_path, bench_dir);
}

int main(int argc, char **argv)
{
	const char *cases = "start,memory,calls";
	int runs = 15;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			json_output = true;
		else if (strcmp(argv[i], "--runs") == 0 && i + 1 < argc)
			runs = atoi(argv[++i]);
		else if (strcmp(argv[i], "--cases") == 0 && i + 1 < argc)
			cases = argv[++i];
		else if (strcmp(argv[i], "--subjects") == 0 && i + 1 < argc) {
			i++;
			for (unsigned s = 0; s < SUBJECTS_MAX; s++)
				subjects[s].usable = strstr(argv[i], subjects[s].name) != NULL;
		} else
			die("unknown argument '%s'; usage: sandbox [--json] [--runs N] [--subjects "
			    "LIST] [--cases start,memory,calls]",
			    argv[i]);
	}
	if (runs < 1 || runs > RUNS_MAX)
		die("--runs: 1 to %d", RUNS_MAX);
	find_binaries();
	if (!mkdtemp(work_dir))
		die("%s: %s", work_dir, strerror(errno));
	snprintf(state_dir, sizeof(state_dir), "%s/state", work_dir);
	make_null();
	if (strstr(cases, "start"))
		bench_start(runs);
	if (strstr(cases, "memory"))
		bench_memory();
	if (strstr(cases, "calls")) {
		bench_calls("memfs", "/tmp", "[\"/bin/guest\",\"/tmp\"]");
		bench_calls(
			"root", "/work",
			"[\"/bin/guest\",\"/"
			"work\",\"stat\",\"open_close\",\"read_4k\",\"write_64m\",\"read_64m\"]");
	}
	print_ratios();
	char cmd[4200];
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", work_dir);
	return system(cmd) == 0 ? 0 : 1;
}
