/*
 * bench/guest.c - the microbenchmarks that run inside: plain system calls, static, no dependency on Moat.
 *
 * Usage: guest DIR [CASE ...]. Prints "case VALUE UNIT" lines: the median of several rounds. DIR is where the file cases work.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define ROUNDS 7
#define BIG_FILE (64u << 20)

static const char *dir = "/tmp";
static char path[4096];
static char *self;

static double now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static void die(const char *what)
{
	fprintf(stderr, "guest: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void bench_getpid(int n)
{
	while (n--)
		syscall(SYS_getpid);
}

static void bench_stat(int n)
{
	struct stat st;

	while (n--)
		if (stat(path, &st) < 0)
			die("stat");
}

static void bench_open(int n)
{
	while (n--) {
		int fd = open(path, O_RDONLY);

		if (fd < 0)
			die("open");
		close(fd);
	}
}

static void bench_read(int n)
{
	char buf[4096];
	int fd = open(path, O_RDONLY);

	while (n--)
		if (pread(fd, buf, sizeof(buf), 0) != sizeof(buf))
			die("read");
	close(fd);
}

static void bench_pipe(int n)
{
	int a[2], b[2];
	char c = 0;
	pid_t pid;

	if (pipe(a) || pipe(b))
		die("pipe");
	pid = fork();
	if (pid == 0) {
		close(a[1]);
		close(b[0]);
		while (read(a[0], &c, 1) == 1)
			if (write(b[1], &c, 1) != 1)
				break;
		_exit(0);
	}
	close(a[0]);
	close(b[1]);
	while (n--)
		if (write(a[1], &c, 1) != 1 || read(b[0], &c, 1) != 1)
			die("pipe ping-pong");
	close(a[1]);
	close(b[0]);
	waitpid(pid, NULL, 0);
}

static void bench_fork(int n)
{
	while (n--) {
		pid_t pid = fork();

		if (pid == 0)
			_exit(0);
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			die("fork");
	}
}

static void bench_exec(int n)
{
	while (n--) {
		pid_t pid = fork();

		if (pid == 0) {
			execl(self, self, "--exit", (char *)NULL);
			_exit(127);
		}
		if (pid < 0 || waitpid(pid, NULL, 0) != pid)
			die("fork+exec");
	}
}

static void bench_touch(int n)
{
	size_t size = (size_t)n * 4096;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		die("mmap");
	for (size_t i = 0; i < size; i += 4096)
		p[i] = 1;
	munmap(p, size);
}

static void bench_write64(int n)
{
	static char buf[1 << 20];

	memset(buf, 'x', sizeof(buf));
	while (n--) {
		int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);

		if (fd < 0)
			die("open for writing");
		for (size_t done = 0; done < BIG_FILE; done += sizeof(buf))
			if (write(fd, buf, sizeof(buf)) != sizeof(buf))
				die("write");
		close(fd);
	}
}

static void bench_read64(int n)
{
	static char buf[1 << 20];

	while (n--) {
		int fd = open(path, O_RDONLY);

		for (size_t done = 0; done < BIG_FILE; done += sizeof(buf))
			if (read(fd, buf, sizeof(buf)) != sizeof(buf))
				die("read back");
		close(fd);
	}
}

static const struct bench_case {
	const char *name;
	void (*run)(int n);
	int n;
	const char *unit;
} cases[] = {
	{"getpid", bench_getpid, 2000, "ns"},	  {"stat", bench_stat, 1000, "ns"},
	{"open_close", bench_open, 500, "ns"},	  {"read_4k", bench_read, 1000, "ns"},
	{"pipe_pingpong", bench_pipe, 300, "ns"}, {"fork_wait", bench_fork, 20, "ns"},
	{"fork_exec", bench_exec, 10, "ns"},	  {"mmap_touch_page", bench_touch, 4096, "ns"},
	{"write_64m", bench_write64, 1, "ms"},	  {"read_64m", bench_read64, 1, "ms"},
};

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void run_case(const struct bench_case *c)
{
	double t[ROUNDS];

	snprintf(path, sizeof(path), "%s/%s", dir,
		 c->unit[0] == 'm' ? "moat-bench-big" : "moat-bench-small");
	c->run(c->n / 10 + 1);
	for (int i = 0; i < ROUNDS; i++) {
		double begin = now_ns();

		c->run(c->n);
		t[i] = (now_ns() - begin) / c->n;
	}
	qsort(t, ROUNDS, sizeof(t[0]), compare);
	printf("%s %.1f %s\n", c->name, c->unit[0] == 'm' ? t[ROUNDS / 2] / 1e6 : t[ROUNDS / 2],
	       c->unit);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	char page[4096] = "x";
	int fd;

	if (argc > 1 && strcmp(argv[1], "--exit") == 0)
		return 0;
	self = argv[0];
	if (argc > 1)
		dir = argv[1];
	snprintf(path, sizeof(path), "%s/moat-bench-small", dir);
	fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0644);
	if (fd < 0 || write(fd, page, sizeof(page)) != sizeof(page))
		die(path);
	close(fd);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		int wanted = argc <= 2;

		for (int k = 2; k < argc; k++)
			wanted |= strcmp(argv[k], cases[i].name) == 0;
		if (wanted)
			run_case(&cases[i]);
	}
	snprintf(path, sizeof(path), "%s/moat-bench-small", dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/moat-bench-big", dir);
	unlink(path);
	return 0;
}
