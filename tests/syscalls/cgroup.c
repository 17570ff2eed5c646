/*
 * Groups of processes: directories of cgroup2, mounted by the test, none of whose controllers are used. On the host's unified hierarchy as well, which
 * need not be mounted there.
 */
#include "t.h"

#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <sys/inotify.h>
#include <sys/mount.h>

static char base[64]; /* where the test's groups are */

/* NAME in a group; "" is base itself. */
static const char *at(const char *group, const char *name)
{
	static char paths[8][256];
	static unsigned turn;
	char *path = paths[turn++ % 8];

	snprintf(path, sizeof(paths[0]), "%s%s%s%s%s", base, *group ? "/" : "", group,
		 *name ? "/" : "", name);
	return path;
}

/* Return: 0, or the errno. */
static int put(const char *group, const char *file, const char *text)
{
	int fd = open(at(group, file), O_WRONLY), err;

	CHECK(fd >= 0);
	err = write(fd, text, strlen(text)) == (ssize_t)strlen(text) ? 0 : errno;
	close(fd);
	return err;
}

static void put_pid(const char *group, pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d\n", pid);
	CHECK_EQ(put(group, "cgroup.procs", text), 0);
}

static bool populated(const char *group)
{
	return strstr(t_read(at(group, "cgroup.events")), "populated 1\n") != NULL;
}

/* Is the process in the group, by what /proc says? */
static bool in_group(const char *proc, const char *group)
{
	char end[300];
	const char *line;

	/* base is below the mount point: its last name is the group's. */
	snprintf(end, sizeof(end), "%s%s%s\n", strrchr(base, '/'), *group ? "/" : "", group);
	line = strstr(t_read(proc), "0::/");
	return line && strlen(line) >= strlen(end) && strstr(line, end) != NULL;
}

/* A process that waits for its end. */
static pid_t sleeper(void)
{
	pid_t pid = fork();

	CHECK_OK(pid);
	if (!pid)
		for (;;)
			pause();
	return pid;
}

static void end(pid_t pid)
{
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

static void remove_groups(const char *dir)
{
	char path[512];
	struct dirent *e;
	DIR *d = opendir(dir);

	while (d && (e = readdir(d)))
		if (e->d_type == DT_DIR && e->d_name[0] != '.') {
			snprintf(path, sizeof(path), "%s/%s", dir, e->d_name);
			remove_groups(path);
		}
	if (d)
		closedir(d);
	rmdir(dir);
}

static void run(void *fn)
{
	((void (*)(void))fn)();
	exit(0);
}

/* Runs fn where base is a group of its own, and takes it away afterwards, whatever became of fn. */
static void with_groups(void (*fn)(void))
{
	int status;

	if (unshare(CLONE_NEWNS) < 0)
		SKIP("no mount namespaces");
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK_OK(mkdir("cg", 0755));
	if (mount("none", "cg", "cgroup2", 0, NULL) < 0)
		SKIP("cgroup2 cannot be mounted");
	snprintf(base, sizeof(base), "cg/moat-test-%d", getpid());
	CHECK_OK(mkdir(base, 0755));
	status = t_wait_status(t_spawn(run, (void *)fn));
	put("", "cgroup.kill", "1");
	for (int i = 0; i < 500 && populated(""); i++)
		t_sleep_ms(10);
	remove_groups(base);
	CHECK_EQ(status, 0);
	CHECK_ERR(access(base, F_OK), ENOENT);
	CHECK_OK(umount("cg"));
}

static void makes_directories(void)
{
	static const struct {
		const char *name, *text;
		unsigned mode;
	} files[] = {{"cgroup.controllers", "", 0444},
		     {"cgroup.events", "populated 0\nfrozen 0\n", 0444},
		     {"cgroup.max.depth", "max\n", 0644},
		     {"cgroup.max.descendants", "max\n", 0644},
		     {"cgroup.procs", "", 0644},
		     {"cgroup.stat", "nr_descendants 0\nnr_dying_descendants 0\n", 0444},
		     {"cgroup.subtree_control", "", 0644},
		     {"cgroup.threads", "", 0644},
		     {"cgroup.type", "domain\n", 0644}};
	struct stat st;

	CHECK_OK(mkdir(at("a", ""), 0755));
	CHECK_ERR(mkdir(at("a", ""), 0755), EEXIST);
	CHECK_ERR(mkdir(at("a", "cgroup.procs"), 0755), EEXIST);
	CHECK_ERR(mkdir(at("none", "b"), 0755), ENOENT);
	CHECK_ERR(mkdir(at("a", "new\nline"), 0755), EINVAL);
	CHECK_OK(stat(at("a", ""), &st));
	CHECK_EQ(st.st_mode, S_IFDIR | 0755);
	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		CHECK_OK(stat(at("a", files[i].name), &st));
		CHECK_EQ(st.st_mode, S_IFREG | files[i].mode);
		/* The host's kernel may count groups that it has not forgotten yet. */
		if (strcmp(files[i].name, "cgroup.stat") != 0)
			CHECK_STR(t_read(at("a", files[i].name)), files[i].text);
	}
	CHECK_OK(stat(at("a", "cgroup.kill"), &st));
	CHECK_EQ(st.st_mode, S_IFREG | 0200);
	CHECK_ERR(access(at("a", "memory.max"), F_OK), ENOENT);
	CHECK_ERR(open(at("a", "file"), O_CREAT | O_WRONLY, 0644), EACCES);
	CHECK_ERR(unlink(at("a", "cgroup.procs")), EPERM);
	CHECK_OK(mkdir(at("a", "b"), 0755));
	CHECK(strstr(t_read(at("", "cgroup.stat")), "nr_descendants 2\n"));
	CHECK_ERR(rmdir(at("a", "")), EBUSY);
	CHECK_OK(rmdir(at("a", "b")));
	CHECK_OK(rmdir(at("a", "")));
	CHECK_ERR(rmdir(at("a", "")), ENOENT);
	CHECK_OK(mkdir(at("a", ""), 0700));
	CHECK_OK(stat(at("a", ""), &st));
	CHECK_EQ(st.st_mode, S_IFDIR | 0700);
}

TEST(directories)
{
	with_groups(makes_directories);
}

static void moves(void)
{
	char proc[64], other[64];
	siginfo_t info;
	pid_t a, b;
	int p[2];

	CHECK_OK(mkdir(at("a", ""), 0755));
	CHECK_OK(mkdir(at("a", "b"), 0755));
	a = sleeper();
	put_pid("a/b", a);
	snprintf(proc, sizeof(proc), "/proc/%d/cgroup", a);
	CHECK(in_group(proc, "a/b"));
	CHECK(!in_group("/proc/self/cgroup", "a/b"));
	CHECK_EQ(atoi(t_read(at("a/b", "cgroup.procs"))), a);
	CHECK_EQ(atoi(t_read(at("a/b", "cgroup.threads"))), a);
	CHECK_STR(t_read(at("a", "cgroup.procs")), "");
	CHECK(populated("a/b") && populated("a") && populated(""));
	CHECK_ERR(rmdir(at("a", "b")), EBUSY);
	put_pid("a", a);
	CHECK(!populated("a/b") && populated("a"));
	CHECK(in_group(proc, "a"));
	CHECK_OK(rmdir(at("a", "b")));
	/* 0 is the writer; what it makes from then on is there, too. */
	CHECK_OK(pipe(p));
	b = fork();
	CHECK_OK(b);
	if (!b) {
		CHECK_EQ(put("a", "cgroup.procs", "0"), 0);
		b = sleeper();
		CHECK_EQ(write(p[1], &b, sizeof(b)), sizeof(b));
		for (;;)
			pause();
	}
	snprintf(other, sizeof(other), "/proc/%d/cgroup", b);
	CHECK_EQ(read(p[0], &b, sizeof(b)), sizeof(b));
	CHECK(in_group(other, "a"));
	snprintf(other, sizeof(other), "/proc/%d/cgroup", b);
	CHECK(in_group(other, "a"));
	CHECK_EQ(put("a", "cgroup.kill", "0"), ERANGE);
	CHECK_EQ(put("a", "cgroup.kill", "x"), EINVAL);
	CHECK_EQ(put("a", "cgroup.kill", "1"), 0);
	CHECK_EQ(t_wait_status(a), SIGKILL);
	CHECK(wait(NULL) > 0);
	while (populated("a"))
		t_sleep_ms(1);
	CHECK_STR(t_read(at("a", "cgroup.procs")), "");
	CHECK_OK(rmdir(at("a", "")));
	/* A zombie keeps no group, but tells where it was. */
	CHECK_OK(mkdir(at("z", ""), 0755));
	a = sleeper();
	put_pid("z", a);
	CHECK_OK(kill(a, SIGKILL));
	CHECK_OK(waitid(P_PID, (id_t)a, &info, WEXITED | WNOWAIT));
	while (populated("z"))
		t_sleep_ms(1);
	snprintf(proc, sizeof(proc), "/proc/%d/cgroup", a);
	CHECK(in_group(proc, "z"));
	CHECK_OK(rmdir(at("z", "")));
	CHECK(strstr(t_read(proc), "/z (deleted)\n"));
	CHECK_EQ(t_wait_status(a), SIGKILL);
}

TEST(processes)
{
	with_groups(moves);
}

static pid_t clone_into(int fd)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = (uint64_t)fd};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static void is_born_there(void)
{
	struct clone_args args = {
		.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = 1ull << 31};
	int a, fd;
	pid_t pid;

	CHECK_OK(mkdir(at("a", ""), 0755));
	a = open(at("a", ""), O_PATH | O_DIRECTORY);
	CHECK(a >= 0);
	pid = clone_into(a);
	CHECK_OK(pid);
	if (!pid)
		_exit(in_group("/proc/self/cgroup", "a") ? 5 : 6);
	CHECK_EQ(t_wait_status(pid), 5 << 8);
	CHECK_ERR(syscall(SYS_clone3, &args, sizeof(args)), EINVAL);
	args.cgroup = (uint64_t)a;
	CHECK_ERR(syscall(SYS_clone3, &args, CLONE_ARGS_SIZE_VER1), EINVAL);
	CHECK_ERR(clone_into(1000), EBADF);
	fd = open(".", O_RDONLY | O_DIRECTORY);
	CHECK_ERR(clone_into(fd), EBADF);
	close(fd);
	fd = open(at("a", "cgroup.procs"), O_RDONLY);
	CHECK_ERR(clone_into(fd), EBADF);
	CHECK_OK(rmdir(at("a", "")));
	CHECK_ERR(clone_into(a), ENOENT);
	CHECK_OK(mkdir(at("b", ""), 0755));
	fd = open(at("b", ""), O_RDONLY | O_DIRECTORY);
	t_become(1000, 1000);
	CHECK_ERR(clone_into(fd), EACCES);
}

TEST(clone3)
{
	with_groups(is_born_there);
}

static void refuses(void)
{
	CHECK_OK(mkdir(at("a", ""), 0755));
	CHECK_EQ(put("a", "cgroup.procs", "none"), EINVAL);
	CHECK_EQ(put("a", "cgroup.procs", "-1"), EINVAL);
	CHECK_EQ(put("a", "cgroup.procs", "999999999"), ESRCH);
	CHECK_EQ(put("a", "cgroup.threads", "0"), EOPNOTSUPP);
	CHECK_EQ(put("a", "cgroup.type", "domain"), EINVAL);
	CHECK_EQ(put("a", "cgroup.subtree_control", "nonsense"), EINVAL);
	CHECK_EQ(put("a", "cgroup.subtree_control", "+nonsense"), EINVAL);
	CHECK_EQ(put("a", "cgroup.subtree_control", "+memory"), ENOENT);
	CHECK_EQ(put("a", "cgroup.subtree_control", "-memory"), 0);
	CHECK_EQ(put("a", "cgroup.max.depth", "-1"), ERANGE);
	CHECK_EQ(put("a", "cgroup.max.depth", "much"), EINVAL);
	CHECK_EQ(put("a", "cgroup.max.depth", "1"), 0);
	CHECK_STR(t_read(at("a", "cgroup.max.depth")), "1\n");
	CHECK_OK(mkdir(at("a/b", ""), 0755));
	CHECK_ERR(mkdir(at("a/b/c", ""), 0755), EAGAIN);
	CHECK_EQ(put("a", "cgroup.max.depth", "max"), 0);
	CHECK_OK(mkdir(at("a/b/c", ""), 0755));
	CHECK_EQ(put("a", "cgroup.max.descendants", "2"), 0);
	CHECK_ERR(mkdir(at("a/d", ""), 0755), EAGAIN);
	CHECK_EQ(put("a", "cgroup.max.descendants", "3"), 0);
	CHECK_OK(mkdir(at("a/d", ""), 0755));
}

TEST(refusals)
{
	with_groups(refuses);
}

static void tells(void)
{
	char buf[512], text[64];
	int fd, events, watch;
	struct pollfd p;
	pid_t pid;

	CHECK_OK(mkdir(at("a", ""), 0755));
	CHECK_OK(mkdir(at("a", "b"), 0755));
	events = open(at("a", "cgroup.events"), O_RDONLY);
	watch = inotify_init1(IN_NONBLOCK);
	CHECK(events >= 0 && watch >= 0);
	CHECK_OK(inotify_add_watch(watch, at("a", "cgroup.events"), IN_MODIFY));
	CHECK(pread(events, text, sizeof(text), 0) > 0);
	p = (struct pollfd){.fd = events, .events = POLLPRI};
	CHECK_EQ(poll(&p, 1, 0), 0);
	CHECK_ERR(read(watch, buf, sizeof(buf)), EAGAIN);
	pid = sleeper();
	put_pid("a/b", pid);
	CHECK_EQ(poll(&p, 1, T_SECONDS * 1000), 1);
	CHECK(p.revents & POLLPRI);
	fd = pread(events, text, sizeof(text), 0);
	CHECK(fd > 0 && !strncmp(text, "populated 1\n", 12));
	CHECK_EQ(poll(&p, 1, 0), 0);
	p = (struct pollfd){.fd = watch, .events = POLLIN};
	CHECK_EQ(poll(&p, 1, T_SECONDS * 1000), 1);
	CHECK(read(watch, buf, sizeof(buf)) > 0);
	CHECK_EQ(((struct inotify_event *)buf)->mask, IN_MODIFY);
	end(pid);
	/* Told when the last has ended, not when it is waited for. */
	CHECK_EQ(poll(&p, 1, T_SECONDS * 1000), 1);
	CHECK(!populated("a"));
	/* A move within it is no news of it. What went before may be told some time later, so not at each try. */
	CHECK_OK(mkdir(at("a", "c"), 0755));
	pid = sleeper();
	put_pid("a/b", pid);
	p = (struct pollfd){.fd = events, .events = POLLPRI};
	for (int i = 0;; i++) {
		CHECK(i < 20);
		CHECK(pread(events, text, sizeof(text), 0) > 0);
		put_pid("a/c", pid);
		put_pid("a/b", pid);
		if (poll(&p, 1, 100) == 0)
			break;
	}
	end(pid);
	/* An open file of one that is gone. */
	fd = open(at("a/c", "cgroup.procs"), O_RDONLY);
	CHECK(fd >= 0);
	CHECK_OK(rmdir(at("a", "c")));
	CHECK_ERR(read(fd, buf, sizeof(buf)), ENODEV);
}

TEST(events)
{
	with_groups(tells);
}

static void as_user(void *arg)
{
	pid_t pid = *(pid_t *)arg;

	t_become(1000, 1000);
	/* What is his he may divide further, and move within. */
	CHECK_OK(mkdir(at("user/own", ""), 0755));
	CHECK_ERR(mkdir(at("other", ""), 0755), EACCES);
	CHECK_ERR(open(at("", "cgroup.procs"), O_WRONLY), EACCES);
	put_pid("user/own", pid);
	put_pid("user", pid);
	/* But not from elsewhere: what holds both is not his. */
	CHECK_EQ(put("user/own", "cgroup.procs", "0"), EACCES);
	CHECK_OK(rmdir(at("user/own", "")));
	exit(0);
}

static void is_handed_over(void)
{
	struct stat st;
	pid_t pid;

	CHECK_OK(chmod(".", 0755));
	CHECK_OK(mkdir(at("user", ""), 0755));
	CHECK_OK(chown(at("user", ""), 1000, 1000));
	CHECK_OK(chown(at("user", "cgroup.procs"), 1000, 1000));
	CHECK_OK(chmod(at("user", "cgroup.procs"), 0600));
	pid = sleeper();
	put_pid("user", pid);
	CHECK_EQ(t_wait_status(t_spawn(as_user, &pid)), 0);
	CHECK_OK(stat(at("user", ""), &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_OK(stat(at("user", "cgroup.procs"), &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_OK(stat(at("user", "cgroup.events"), &st));
	CHECK_EQ(st.st_uid, 0);
	end(pid);
}

TEST(delegation)
{
	with_groups(is_handed_over);
}

/* Waits until nobody is in it, for a time that is enough for what was killed. */
static bool empties(const char *group)
{
	for (int i = 0; i < 1000 && populated(group); i++)
		t_sleep_ms(10);
	return !populated(group);
}

/*
 * Who forks on and on does not outrun cgroup.kill. Hardly ever, that is: Linux 6.18 lets a child go whose
 * parent, the last of the list, forks between its being found and its signal, once in some thousands of kills
 * on a busy machine. So two of the ten may take another.
 */
static void forks_on(void)
{
	unsigned outrun = 0;
	pid_t pid;

	CHECK_OK(mkdir(at("a", ""), 0755));
	for (unsigned round = 0; round < 10; round++) {
		pid = fork();
		CHECK_OK(pid);
		if (!pid) {
			CHECK_EQ(put("a", "cgroup.procs", "0"), 0);
			for (;;) {
				pid = fork();
				/* The child goes on, and its parent ends a moment later. */
				if (pid > 0) {
					t_sleep_ms(1);
					_exit(0);
				}
			}
		}
		while (!populated("a"))
			t_sleep_ms(1);
		t_sleep_ms((int)round);
		CHECK_EQ(put("a", "cgroup.kill", "1"), 0);
		CHECK(waitpid(pid, NULL, 0) == pid);
		if (!empties("a")) {
			outrun++;
			CHECK_EQ(put("a", "cgroup.kill", "1"), 0);
			CHECK(empties("a"));
		}
	}
	CHECK(outrun <= 2);
	CHECK_OK(rmdir(at("a", "")));
}

TEST(kill_forks)
{
	with_groups(forks_on);
}

static void come_and_go(void *arg)
{
	(void)arg;
	for (unsigned i = 0; i < 300; i++) {
		pid_t pid = fork();

		CHECK_OK(pid);
		if (!pid)
			_exit(put("a", "cgroup.procs", "0"));
		CHECK_EQ(t_wait_status(pid), 0);
	}
}

/* Other mounts of it, that show the group for a moment, while it fills and empties, and somebody watches. */
static void is_mounted(void)
{
	char shown[64];
	int watch;
	pid_t pid;

	CHECK_OK(mkdir(at("a", ""), 0755));
	CHECK_OK(mkdir("m", 0755));
	snprintf(shown, sizeof(shown), "m%s/a/cgroup.events", strrchr(base, '/'));
	watch = inotify_init1(IN_NONBLOCK);
	CHECK_OK(inotify_add_watch(watch, at("a", "cgroup.events"), IN_MODIFY));
	pid = t_spawn(come_and_go, NULL);
	for (unsigned i = 0; i < 300; i++) {
		CHECK_OK(mount("none", "m", "cgroup2", 0, NULL));
		CHECK_OK(access(shown, F_OK));
		CHECK_OK(umount("m"));
	}
	CHECK_EQ(t_wait_status(pid), 0);
	while (populated("a"))
		t_sleep_ms(1);
	CHECK_OK(rmdir("m"));
}

TEST(mounts)
{
	with_groups(is_mounted);
}

/* Many processes that are made and end while they are moved about: nobody is counted twice, or for ever. */
static void churns(void)
{
	static const char *const names[] = {"a", "b", "a/c"};
	pid_t movers[2];

	CHECK_OK(mkdir(at("a", ""), 0755));
	CHECK_OK(mkdir(at("b", ""), 0755));
	CHECK_OK(mkdir(at("a/c", ""), 0755));
	for (unsigned m = 0; m < 2; m++) {
		movers[m] = fork();
		CHECK_OK(movers[m]);
		for (unsigned i = 0; !movers[m] && i < 100; i++) {
			pid_t pid = fork();

			CHECK_OK(pid);
			if (!pid) {
				if (put(names[i % 3], "cgroup.procs", "0") || fork() < 0)
					_exit(1);
				_exit(0);
			}
			char text[16];

			snprintf(text, sizeof(text), "%d", pid);
			(void)put(names[(i + m) % 3], "cgroup.procs", text);
			CHECK_EQ(t_wait_status(pid), 0);
		}
		if (!movers[m])
			exit(0);
	}
	for (unsigned m = 0; m < 2; m++)
		CHECK_EQ(t_wait_status(movers[m]), 0);
	for (int i = 0; i < T_SECONDS * 100 && populated(""); i++)
		t_sleep_ms(10);
	CHECK_OK(rmdir(at("a/c", "")));
	CHECK_OK(rmdir(at("a", "")));
	CHECK_OK(rmdir(at("b", "")));
}

TEST(churn)
{
	with_groups(churns);
}
