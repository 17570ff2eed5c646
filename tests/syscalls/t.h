/*
 * tests/syscalls/t.h - what a system call test needs, and nothing more.
 *
 * TEST(name) { ... } defines a case; it runs in a child process of its own, in an empty directory of
 * its own, for at most T_SECONDS. A failed CHECK prints `# file:line: why` and ends the
 * process it happened in; a case that waits for children uses t_wait_ok(). The program prints
 * `ok NAME`, `not ok NAME (how)` or `skip NAME (reason)` for each case; with arguments, only for
 * the cases named. No test library: the binary is static and must run on a bare root.
 */
#ifndef MOAT_TESTS_SYSCALLS_T_H
#define MOAT_TESTS_SYSCALLS_T_H

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define T_SECONDS 60 /* that it hangs, on a machine that does other things as well */
#define T_SKIP_STATUS 77
#define T_TESTS_MAX 128

struct t_test {
	const char *name;
	void (*fn)(void);
};

static struct t_test t_tests[T_TESTS_MAX];
static int t_count;
static char **t_argv __attribute__((unused));

#define TEST(test_name)                                                             \
	static void test_##test_name(void);                                         \
	__attribute__((constructor)) static void t_register_##test_name(void)       \
	{                                                                           \
		t_tests[t_count++] = (struct t_test){#test_name, test_##test_name}; \
	}                                                                           \
	static void test_##test_name(void)

__attribute__((noreturn, format(printf, 3, 4))) static inline void
t_fail(const char *file, int line, const char *fmt, ...)
{
	char text[512];
	int len = snprintf(text, sizeof(text),
			   "# %s:%d: ", strrchr(file, '/') ? strrchr(file, '/') + 1 : file, line);
	va_list ap;
	ssize_t n;

	va_start(ap, fmt);
	len += vsnprintf(text + len, sizeof(text) - (size_t)len - 1, fmt, ap);
	va_end(ap);
	if (len > (int)sizeof(text) - 2)
		len = sizeof(text) - 2;
	text[len++] = '\n';
	n = write(STDOUT_FILENO, text, (size_t)len);
	(void)n;
	_exit(1);
}

#define CHECK(cond)                                                                   \
	do {                                                                          \
		errno = 0;                                                            \
		if (!(cond))                                                          \
			t_fail(__FILE__, __LINE__, "%s (errno %d %s)", #cond, errno,  \
			       strerrorname_np(errno) ? strerrorname_np(errno) : ""); \
	} while (0)

#define CHECK_EQ(a, b)                                                                         \
	do {                                                                                   \
		errno = 0;                                                                     \
		long long t_a = (long long)(a), t_b = (long long)(b);                          \
		if (t_a != t_b)                                                                \
			t_fail(__FILE__, __LINE__, "%s is %lld, not %s = %lld (errno %d)", #a, \
			       t_a, #b, t_b, errno);                                           \
	} while (0)

/* The call fails with exactly this errno. */
#define CHECK_ERR(call, err)                                                                 \
	do {                                                                                 \
		errno = 0;                                                                   \
		long long t_r = (long long)(call);                                           \
		if (t_r != -1 || errno != (err))                                             \
			t_fail(__FILE__, __LINE__, "%s returned %lld errno %d (%s), not %s", \
			       #call, t_r, errno,                                            \
			       strerrorname_np(errno) ? strerrorname_np(errno) : "", #err);  \
	} while (0)

#define CHECK_OK(call) CHECK((call) != -1)
#define CHECK_STR(a, b)                                                                         \
	do {                                                                                    \
		const char *t_sa = (a), *t_sb = (b);                                            \
		if (strcmp(t_sa, t_sb))                                                         \
			t_fail(__FILE__, __LINE__, "%s is \"%s\", not \"%s\"", #a, t_sa, t_sb); \
	} while (0)

#define SKIP(reason)                              \
	do {                                      \
		printf("# skip: %s\n", (reason)); \
		fflush(stdout);                   \
		_exit(T_SKIP_STATUS);             \
	} while (0)

/* Waits for a child that must exit with 0. */
#define t_wait_ok(pid) CHECK_EQ(t_wait_status(pid), 0)
static inline int t_wait_status(pid_t pid)
{
	int status = -1;
	pid_t got;

	do
		got = waitpid(pid, &status, 0);
	while (got < 0 && errno == EINTR);
	return got == pid ? status : -1;
}

/* fork() whose child runs fn(arg) and exits with 0 if no check failed. */
static inline __attribute__((unused)) pid_t t_spawn(void (*fn)(void *), void *arg)
{
	pid_t pid = fork();

	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	CHECK(pid > 0);
	return pid;
}

static inline __attribute__((unused)) int64_t t_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ll + ts.tv_nsec / 1000000;
}

static inline __attribute__((unused)) void t_sleep_ms(int ms)
{
	struct timespec ts = {ms / 1000, ms % 1000 * 1000000l};

	while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
		;
}

/* A file with these contents, open for reading and writing. */
static inline __attribute__((unused)) int t_file(const char *name, const char *text)
{
	int fd = open(name, O_RDWR | O_CREAT | O_TRUNC, 0644);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, text, strlen(text)), (ssize_t)strlen(text));
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

/* The whole of a file as a string, in a static buffer. */
static inline __attribute__((unused)) const char *t_read(const char *name)
{
	static char text[65536];
	size_t len = 0;
	ssize_t n;
	int fd = open(name, O_RDONLY);

	if (fd < 0)
		return "";
	while (len < sizeof(text) - 1 && (n = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += (size_t)n;
	close(fd);
	text[len] = '\0';
	return text;
}

/* The one-letter state in /proc/PID/stat, or 0. */
static inline __attribute__((unused)) char t_state(pid_t pid)
{
	char path[64];
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	p = strrchr(t_read(path), ')');
	return p && p[1] ? p[2] : 0;
}

/* Waits until the task is in one of `states` ("S", "T", "Z"); fails after twenty seconds and more. */
static inline __attribute__((unused)) void t_wait_state(pid_t pid, const char *states)
{
	for (int i = 0; i < 4000; i++) {
		char c = t_state(pid);

		if (c && strchr(states, c))
			return;
		t_sleep_ms(5);
	}
	t_fail(__FILE__, __LINE__, "task %d is in state %c, not one of %s", pid, t_state(pid),
	       states);
}

/*
 * A child that sends its parent a signal when that sleeps, and `ms` later at the earliest: a timer could
 * be over before the parent got as far as the call that it is to interrupt.
 */
static inline __attribute__((unused)) pid_t t_signal_sleeper(int sig, int ms)
{
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		t_wait_state(parent, "S");
		t_sleep_ms(ms);
		CHECK_OK(kill(parent, sig));
		_exit(0);
	}
	CHECK(pid > 0);
	return pid;
}

/* Becomes an ordinary user: no capabilities, no supplementary groups. */
static inline __attribute__((unused)) void t_become(uid_t uid, gid_t gid)
{
	CHECK_OK(syscall(SYS_setgroups, 0, NULL));
	CHECK_OK(syscall(SYS_setresgid, gid, gid, gid));
	CHECK_OK(syscall(SYS_setresuid, uid, uid, uid));
}

static inline void t_remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *e;
	char sub[PATH_MAX];

	while (dir && (e = readdir(dir))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		snprintf(sub, sizeof(sub), "%s/%s", path, e->d_name);
		if (unlink(sub) < 0)
			t_remove_tree(sub);
	}
	if (dir)
		closedir(dir);
	rmdir(path);
}

static inline void t_child(const struct t_test *test, const char *dir)
{
	CHECK_OK(chdir(dir));
	/* A process group of its own, so that what it leaves behind can be ended with it. */
	setpgid(0, 0);
	signal(SIGALRM, SIG_DFL);
	alarm(T_SECONDS);
	umask(022);
	test->fn();
	fflush(stdout);
	_exit(0);
}

static inline int t_run(const struct t_test *test)
{
	const char *tmp = getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp";
	char dir[256];
	int status;
	pid_t pid;

	snprintf(dir, sizeof(dir), "%s/t-XXXXXX", tmp);
	if (!mkdtemp(dir)) {
		printf("not ok %s (no directory in %s: errno %d)\n", test->name, tmp, errno);
		return 1;
	}
	chmod(dir, 0755);
	fflush(stdout);
	pid = fork();
	if (pid == 0)
		t_child(test, dir);
	if (pid < 0) {
		printf("not ok %s (fork: errno %d)\n", test->name, errno);
		return 1;
	}
	status = t_wait_status(pid);
	kill(-pid, SIGKILL);
	t_remove_tree(dir);
	if (status == 0)
		printf("ok %s\n", test->name);
	else if (WIFEXITED(status) && WEXITSTATUS(status) == T_SKIP_STATUS)
		printf("skip %s\n", test->name);
	else if (WIFSIGNALED(status))
		printf("not ok %s (%s)\n", test->name,
		       WTERMSIG(status) == SIGALRM ? "took too long" : strsignal(WTERMSIG(status)));
	else
		printf("not ok %s (status 0x%x)\n", test->name, status);
	return status != 0 && !(WIFEXITED(status) && WEXITSTATUS(status) == T_SKIP_STATUS);
}

/* All cases, or those named. Return: 1 if any failed. */
static inline int t_run_named(int argc, char **argv)
{
	int failed = 0;

	setvbuf(stdout, NULL, _IOLBF, 0);
	for (int i = 0; i < t_count; i++) {
		bool wanted = argc == 1;

		for (int a = 1; a < argc; a++)
			wanted |= !strcmp(argv[a], t_tests[i].name);
		if (wanted)
			failed |= t_run(&t_tests[i]);
	}
	return failed;
}

#ifndef T_OWN_MAIN
int main(int argc, char **argv)
{
	t_argv = argv;
	return t_run_named(argc, argv);
}
#endif

#endif
