/* execve and execveat: arguments, scripts, errors, what survives and what does not. */
#define T_OWN_MAIN
#include "t.h"

#include <elf.h>
#include <pthread.h>
#include <sys/inotify.h>

/* What the re-executed program finds out, as its exit status. */
static int helper(int argc, char **argv, char **envp);

static const char *self(void)
{
	static char path[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	CHECK(n > 0);
	return path;
}

static int run(const char *path, char *const argv[], char *const envp[])
{
	pid_t pid = fork();

	if (pid == 0) {
		execve(path, argv, envp);
		_exit(100 + errno);
	}
	return t_wait_status(pid) >> 8;
}

#define RUN(...) run(self(), (char *[]){"exec", "--helper", __VA_ARGS__, NULL}, environ)

TEST(arguments_and_environment)
{
	char *env[] = {"A=1", "EMPTY=", "no-equals", NULL};

	CHECK_EQ(RUN("args", "one", "", "three with blanks"), 0);
	CHECK_EQ(run(self(), (char *[]){"zero", "--helper", "env", NULL}, env), 0);
	CHECK_EQ(run(self(), (char *[]){"x", "--helper", "noenv", NULL}, NULL), 0);
}

TEST(errors)
{
	char *argv[] = {"x", NULL}, *env[] = {NULL}, long_path[PATH_MAX + 8];

	close(t_file("text", "not a program\n"));
	close(t_file("noexec", "#!/bin/true\n"));
	CHECK_OK(chmod("text", 0755));
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERR(execve("none", argv, env), ENOENT);
	CHECK_ERR(execve("", argv, env), ENOENT);
	CHECK_ERR(execve("d", argv, env), EACCES);
	CHECK_ERR(execve("noexec", argv, env), EACCES);
	CHECK_ERR(execve("text", argv, env), ENOEXEC);
	CHECK_ERR(execve("text/x", argv, env), ENOTDIR);
	CHECK_ERR(execve((char *)8, argv, env), EFAULT);
	CHECK_ERR(execve(self(), (char **)8, env), EFAULT);
	CHECK_ERR(execve(self(), (char *[]){(char *)8, NULL}, env), EFAULT);
	memset(long_path, 'a', sizeof(long_path) - 1);
	long_path[sizeof(long_path) - 1] = '\0';
	CHECK_ERR(execve(long_path, argv, env), ENAMETOOLONG);
	close(t_file("empty", ""));
	CHECK_OK(chmod("empty", 0755));
	CHECK_ERR(execve("empty", argv, env), ENOEXEC);
	CHECK_OK(symlink("loop", "loop"));
	CHECK_ERR(execve("loop", argv, env), ELOOP);
}

TEST(bad_elf)
{
	char *argv[] = {"x", NULL}, *env[] = {NULL};
	Elf64_Ehdr eh;
	int fd;

	fd = open(self(), O_RDONLY);
	CHECK_EQ(read(fd, &eh, sizeof(eh)), (ssize_t)sizeof(eh));
	close(fd);
	fd = open("elf", O_CREAT | O_RDWR, 0755);
	CHECK_EQ(write(fd, &eh, 20), 20);
	close(fd);
	CHECK_ERR(execve("elf", argv, env), ENOEXEC);
	fd = open("elf", O_RDWR);
	eh.e_machine = EM_AARCH64;
	CHECK_EQ(write(fd, &eh, sizeof(eh)), (ssize_t)sizeof(eh));
	close(fd);
	CHECK_ERR(execve("elf", argv, env), ENOEXEC);
	fd = open("elf", O_RDWR);
	eh.e_machine = EM_X86_64;
	eh.e_phentsize = 7;
	CHECK_EQ(write(fd, &eh, sizeof(eh)), (ssize_t)sizeof(eh));
	close(fd);
	CHECK_ERR(execve("elf", argv, env), ENOEXEC);
}

TEST(too_big)
{
	size_t size = 200 * 1024;
	char *big = malloc(size), *env[] = {NULL};
	char *many[40];

	memset(big, 'x', size - 1);
	big[size - 1] = '\0';
	/* One string is at most 32 pages. */
	CHECK_ERR(execve(self(), (char *[]){"x", big, NULL}, env), E2BIG);
	big[130000] = '\0';
	for (int i = 0; i < 38; i++)
		many[i] = big;
	many[0] = "x";
	many[1] = "--helper";
	many[2] = "big";
	/* All together at most a quarter of the stack's limit. */
	many[10] = NULL;
	CHECK_EQ(run(self(), many, env), 0);
	many[10] = big;
	many[38] = NULL;
	CHECK_ERR(execve(self(), many, env), E2BIG);
}

TEST(close_on_exec)
{
	char keep[16], lose[16];
	int a = open(".", O_RDONLY), b = open(".", O_RDONLY | O_CLOEXEC);

	snprintf(keep, sizeof(keep), "%d", a);
	snprintf(lose, sizeof(lose), "%d", b);
	CHECK_EQ(RUN("fds", keep, lose), 0);
	CHECK_OK(fcntl(b, F_GETFD));
}

static void on_signal(int sig)
{
	(void)sig;
}

TEST(signals)
{
	sigset_t set;

	/* Handlers go, ignored ones stay, the mask and what is pending stay. */
	signal(SIGUSR1, on_signal);
	signal(SIGUSR2, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	CHECK_EQ(RUN("signals"), 0);
	if (fork() == 0) {
		raise(SIGHUP);
		execve(self(), (char *[]){"x", "--helper", "pending", NULL}, environ);
		_exit(99);
	}
	int status;
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 0);
}

TEST(keeps)
{
	char pid[16], cwd[PATH_MAX], mask[16];

	umask(031);
	snprintf(mask, sizeof(mask), "%d", 031);
	CHECK(getcwd(cwd, sizeof(cwd)));
	alarm(100);
	if (fork() == 0) {
		alarm(100);
		snprintf(pid, sizeof(pid), "%d", getpid());
		execve(self(), (char *[]){"x", "--helper", "keeps", pid, cwd, mask, NULL}, environ);
		_exit(99);
	}
	int status;
	CHECK(wait(&status) > 0);
	CHECK_EQ(status, 0);
}

TEST(scripts)
{
	char text[PATH_MAX + 64], cwd[PATH_MAX], path[PATH_MAX + 16];

	CHECK(getcwd(cwd, sizeof(cwd)));
	snprintf(path, sizeof(path), "%s/script", cwd);
	/* One argument, blanks and all, then the script's path, then the rest. */
	snprintf(text, sizeof(text), "#! %s   --helper-script an argument \nrest\n", self());
	close(t_file("script", text));
	CHECK_OK(chmod("script", 0755));
	CHECK_EQ(run(path, (char *[]){"gone", "tail", NULL}, environ), 0);
	close(t_file("bad", "#!/none/such\n"));
	CHECK_OK(chmod("bad", 0755));
	CHECK_ERR(execve("bad", (char *[]){"x", NULL}, environ), ENOENT);
	close(t_file("blank", "#!   \n"));
	CHECK_OK(chmod("blank", 0755));
	CHECK_ERR(execve("blank", (char *[]){"x", NULL}, environ), ENOEXEC);
	/* Scripts that interpret scripts: four deep, then ELOOP. */
	for (int i = 1; i <= 8; i++) {
		char name[8];

		snprintf(name, sizeof(name), "n%d", i);
		snprintf(text, sizeof(text), "#!%s/n%d\n", cwd, i + 1);
		close(t_file(name, text));
		CHECK_OK(chmod(name, 0755));
	}
	CHECK_ERR(execve("n1", (char *[]){"x", NULL}, environ), ELOOP);
}

TEST(execveat)
{
	int fd = open(self(), O_RDONLY | O_CLOEXEC), status;
	pid_t pid = fork();

	if (pid == 0) {
		syscall(SYS_execveat, fd, "", (char *[]){"x", "--helper", "noenv", NULL},
			(char *[]){NULL}, AT_EMPTY_PATH);
		_exit(99);
	}
	status = t_wait_status(pid);
	CHECK_EQ(status, 0);
	CHECK_ERR(syscall(SYS_execveat, fd, "", NULL, NULL, 0), ENOENT);
	CHECK_ERR(syscall(SYS_execveat, -1, "x", NULL, NULL, 0), EBADF);
	CHECK_OK(symlink(self(), "l"));
	CHECK_ERR(syscall(SYS_execveat, AT_FDCWD, "l", (char *[]){"x", NULL}, NULL,
			  AT_SYMLINK_NOFOLLOW),
		  ELOOP);
	CHECK_ERR(syscall(SYS_execveat, AT_FDCWD, "l", NULL, NULL, 0x4000000), EINVAL);
}

static void *exec_in_thread(void *arg)
{
	char pid[16];

	snprintf(pid, sizeof(pid), "%d", *(int *)arg);
	execve(self(), (char *[]){"x", "--helper", "pid", pid, NULL}, environ);
	_exit(99);
}

static void *sleeper(void *arg)
{
	for (;;)
		pause();
	return arg;
}

/* exec from a second thread ends the others and takes over the leader's id. */
TEST(from_thread)
{
	pid_t pid = fork();

	if (pid == 0) {
		pthread_t t;
		int me = getpid();

		for (int i = 0; i < 8; i++)
			CHECK_EQ(pthread_create(&t, NULL, sleeper, NULL), 0);
		CHECK_EQ(pthread_create(&t, NULL, exec_in_thread, &me), 0);
		for (;;)
			pause();
	}
	t_wait_ok(pid);
}

TEST(setuid_program)
{
	char buf[65536];
	int in = open(self(), O_RDONLY), out = open("suid", O_CREAT | O_WRONLY, 0700);
	ssize_t n;
	pid_t pid;

	while ((n = read(in, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(out, buf, (size_t)n), n);
	CHECK_OK(fchown(out, 1234, 1235));
	CHECK_OK(fchmod(out, 06755));
	close(out);
	close(in);
	pid = fork();
	if (pid == 0) {
		t_become(1000, 1000);
		execve("suid", (char *[]){"x", "--helper", "suid", "1234", "1235", "1", NULL},
		       environ);
		_exit(99);
	}
	CHECK_EQ(t_wait_status(pid), 0);
	pid = fork();
	if (pid == 0) {
		CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
		t_become(1000, 1000);
		execve("suid", (char *[]){"x", "--helper", "suid", "1000", "1000", "0", NULL},
		       environ);
		_exit(99);
	}
	CHECK_EQ(t_wait_status(pid), 0);
}

/* A program of its own that is not open: 0755. */
static void copy_self(const char *name)
{
	char buf[65536];
	int in = open(self(), O_RDONLY), out = open(name, O_CREAT | O_WRONLY | O_TRUNC, 0755);
	ssize_t n;

	CHECK(in >= 0 && out >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(out, buf, (size_t)n), n);
	close(in);
	close(out);
}

#define NOENV                                  \
	(char *[])                             \
	{                                      \
		"x", "--helper", "noenv", NULL \
	}

/* The errno of an execve that must fail; 0: it ran. */
static int exec_errno(const char *path, int fd)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		if (path)
			execve(path, NOENV, (char *[]){NULL});
		else
			syscall(SYS_execveat, fd, "", NOENV, (char *[]){NULL}, AT_EMPTY_PATH);
		_exit(errno);
	}
	status = t_wait_status(pid);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

/* What somebody writes to does not run. */
TEST(text_busy)
{
	char script[PATH_MAX];
	char *p;
	int fd;

	copy_self("copy");
	CHECK_OK(link("copy", "other name"));
	fd = open("other name", O_WRONLY);
	CHECK(fd >= 0);
	CHECK_EQ(exec_errno("copy", -1), ETXTBSY);
	CHECK_OK(fcntl(fd, F_SETFL, O_APPEND));
	CHECK_EQ(exec_errno("copy", -1), ETXTBSY);
	/* Its interpreter neither. */
	CHECK(getcwd(script, sizeof(script) - 64));
	memmove(script + 2, script, strlen(script) + 1);
	memcpy(script, "#!", 2);
	strcat(script, "/copy --helper-script\n");
	{
		int out = open("script", O_CREAT | O_WRONLY, 0755);

		CHECK_EQ(write(out, script, strlen(script)), (ssize_t)strlen(script));
		CHECK_EQ(exec_errno("script", -1), ETXTBSY);
		CHECK_OK(close(out));
		CHECK_EQ(exec_errno("script", -1), ETXTBSY);
	}
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p == MAP_FAILED);
	CHECK_OK(close(fd));
	CHECK_EQ(exec_errno("copy", -1), 0);
	/* A shared mapping writes without a descriptor. */
	fd = open("copy", O_RDWR);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_OK(close(fd));
	CHECK_EQ(exec_errno("copy", -1), ETXTBSY);
	CHECK_OK(munmap(p, 4096));
	CHECK_EQ(exec_errno("copy", -1), 0);
	CHECK((fd = open("copy", O_RDONLY)) >= 0);
	CHECK_EQ(exec_errno("copy", -1), 0);
	CHECK((fd = open("copy", O_PATH)) >= 0);
	CHECK_EQ(exec_errno("copy", -1), 0);
}

/* What runs nobody writes to. */
TEST(text_is_not_written)
{
	struct stat st;
	int go[2], fd, maps, watch;
	char c, path[64];
	pid_t pid;

	copy_self("copy");
	CHECK_OK(stat("copy", &st));
	CHECK_OK(pipe(go));
	pid = fork();
	if (pid == 0) {
		close(go[0]);
		CHECK_EQ(dup2(go[1], 99), 99);
		execve("copy", (char *[]){"x", "--helper", "pause", NULL}, (char *[]){NULL});
		_exit(1);
	}
	close(go[1]);
	CHECK_EQ(read(go[0], &c, 1), 1);
	/* An open that was refused neither begins nor ends for those who watch. */
	CHECK_OK(watch = inotify_init1(IN_NONBLOCK));
	CHECK(inotify_add_watch(watch, "copy", IN_OPEN | IN_CLOSE) > 0);
	CHECK_ERR(open("copy", O_WRONLY), ETXTBSY);
	CHECK_ERR(open("copy", O_RDWR), ETXTBSY);
	CHECK_ERR(read(watch, path, sizeof(path)), EAGAIN);
	CHECK_OK(close(watch));
	CHECK_ERR(open("copy", O_WRONLY | O_TRUNC), ETXTBSY);
	CHECK_ERR(open("copy", O_RDONLY | O_TRUNC), ETXTBSY);
	CHECK_ERR(open("copy", O_WRONLY | O_CREAT, 0644), ETXTBSY);
	CHECK_ERR(truncate("copy", 0), ETXTBSY);
	CHECK_OK(access("copy", W_OK));
	CHECK_OK(chmod("copy", 0777));
	CHECK_OK(link("copy", "link"));
	CHECK_ERR(open("link", O_WRONLY), ETXTBSY);
	CHECK_OK(unlink("link"));
	CHECK_EQ(exec_errno("copy", -1), 0);
	CHECK_OK(stat("copy", &st));
	CHECK(st.st_size > 0);
	/* Who only looks at its memory does not keep the program busy. */
	snprintf(path, sizeof(path), "/proc/%d/maps", pid);
	CHECK_OK(maps = open(path, O_RDONLY));
	CHECK_EQ(read(maps, &c, 1), 1);
	CHECK_OK(kill(pid, SIGKILL));
	CHECK(WIFSIGNALED(t_wait_status(pid)));
	CHECK_OK(fd = open("copy", O_WRONLY | O_TRUNC));
	CHECK_OK(close(maps));
	CHECK(fd >= 0);
}

/* A file that open(2) never saw has no writers. */
TEST(text_busy_without_a_name)
{
	char buf[65536];
	char path[64];
	int in = open(self(), O_RDONLY), fd = memfd_create("program", 0), again;
	ssize_t n;

	CHECK(in >= 0 && fd >= 0);
	while ((n = read(in, buf, sizeof(buf))) > 0)
		CHECK_EQ(write(fd, buf, (size_t)n), n);
	CHECK_EQ(exec_errno(NULL, fd), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	again = open(path, O_RDWR);
	CHECK(again >= 0);
	CHECK_EQ(exec_errno(NULL, fd), ETXTBSY);
	CHECK_OK(close(again));
	CHECK_EQ(exec_errno(NULL, fd), 0);
}

TEST(vfork_exec)
{
	for (int i = 0; i < 50; i++) {
		pid_t pid = vfork();

		if (pid == 0) {
			execve("/proc/self/exe", (char *[]){"x", "--helper", "noenv", NULL},
			       (char *[]){NULL});
			_exit(99);
		}
		t_wait_ok(pid);
	}
}

TEST(auxiliary_vector)
{
	CHECK_EQ(RUN("auxv"), 0);
}

TEST(comm_and_cmdline)
{
	CHECK_EQ(RUN("comm"), 0);
}

#include <sys/auxv.h>

static int helper_args(int argc, char **argv)
{
	return argc == 6 && !strcmp(argv[3], "one") && !argv[4][0] &&
			       !strcmp(argv[5], "three with blanks") && !argv[6]
		       ? 0
		       : 1;
}

static int helper_signals(void)
{
	struct sigaction a, b;
	sigset_t set;

	sigaction(SIGUSR1, NULL, &a);
	sigaction(SIGUSR2, NULL, &b);
	sigprocmask(SIG_BLOCK, NULL, &set);
	return a.sa_handler == SIG_DFL && b.sa_handler == SIG_IGN && sigismember(&set, SIGHUP) ? 0
											       : 1;
}

static int helper_keeps(char **argv)
{
	char cwd[PATH_MAX];

	return getpid() == atoi(argv[3]) && !strcmp(getcwd(cwd, sizeof(cwd)), argv[4]) &&
			       umask(0) == (mode_t)atoi(argv[5]) && alarm(0) > 50
		       ? 0
		       : 1;
}

static int helper_auxv(void)
{
	const char *fn = (const char *)getauxval(AT_EXECFN);
	const unsigned char *random = (const void *)getauxval(AT_RANDOM);
	unsigned char sum = 0;

	for (int i = 0; i < 16; i++)
		sum |= random[i];
	return getauxval(AT_PAGESZ) == 4096 && getauxval(AT_UID) == getuid() &&
			       getauxval(AT_PHDR) && getauxval(AT_PHNUM) && getauxval(AT_ENTRY) &&
			       getauxval(AT_CLKTCK) == 100 && fn && fn[0] && sum &&
			       !getauxval(AT_SECURE) && getauxval(AT_PLATFORM)
		       ? 0
		       : 1;
}

static int helper_comm(void)
{
	const char *base = strrchr(self(), '/') + 1;
	char comm[32];

	snprintf(comm, sizeof(comm), "%.15s\n", base);
	if (strcmp(t_read("/proc/self/comm"), comm))
		return 1;
	return memcmp(t_read("/proc/self/cmdline"), "exec\0--helper\0comm", 19) ? 2 : 0;
}

static int helper(int argc, char **argv, char **envp)
{
	const char *what = argv[2];
	sigset_t set;

	if (!strcmp(what, "pause")) {
		write(99, "x", 1);
		pause();
	}
	if (!strcmp(what, "args"))
		return helper_args(argc, argv);
	if (!strcmp(what, "env"))
		return !strcmp(argv[0], "zero") && !strcmp(envp[0], "A=1") &&
				       !strcmp(envp[1], "EMPTY=") &&
				       !strcmp(envp[2], "no-equals") && !envp[3]
			       ? 0
			       : 1;
	if (!strcmp(what, "noenv"))
		return envp[0] ? 1 : 0;
	if (!strcmp(what, "big"))
		return argc == 10 && strlen(argv[9]) == 130000 ? 0 : 1;
	if (!strcmp(what, "fds"))
		return fcntl(atoi(argv[3]), F_GETFD) == 0 && fcntl(atoi(argv[4]), F_GETFD) < 0 ? 0
											       : 1;
	if (!strcmp(what, "signals"))
		return helper_signals();
	if (!strcmp(what, "pending"))
		return sigpending(&set) == 0 && sigismember(&set, SIGHUP) ? 0 : 1;
	if (!strcmp(what, "keeps"))
		return helper_keeps(argv);
	if (!strcmp(what, "pid"))
		return getpid() == atoi(argv[3]) && syscall(SYS_gettid) == getpid() ? 0 : 1;
	if (!strcmp(what, "suid"))
		return geteuid() == (uid_t)atoi(argv[3]) && getegid() == (gid_t)atoi(argv[4]) &&
				       getuid() == 1000 &&
				       getauxval(AT_SECURE) == (unsigned long)atoi(argv[5])
			       ? 0
			       : 1;
	if (!strcmp(what, "auxv"))
		return helper_auxv();
	if (!strcmp(what, "comm"))
		return helper_comm();
	return 98;
}

int main(int argc, char **argv, char **envp)
{
	t_argv = argv;
	if (argc > 2 && !strcmp(argv[1], "--helper"))
		return helper(argc, argv, envp);
	if (argc == 4 && !strcmp(argv[1], "--helper-script an argument"))
		return strstr(argv[2], "/script") && !strcmp(argv[3], "tail") ? 0 : 1;
	return t_run_named(argc, argv);
}
