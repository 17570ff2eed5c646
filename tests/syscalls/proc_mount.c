/* tests/syscalls/proc_mount.c - options of a mount of proc: hidepid=, gid=, subset=. */
#include "mounts.h"

#define USER 1234
#define GROUP 4321

static pid_t other; /* a process of root's */

static void other_begin(void)
{
	own_namespace();
	other = fork();
	if (other == 0) {
		for (;;)
			pause();
	}
	CHECK(other > 0);
	CHECK_OK(mkdir("p", 0755));
}

static void other_end(void)
{
	CHECK_OK(umount("p"));
	CHECK_OK(kill(other, SIGKILL));
	CHECK_EQ(t_wait_status(other), SIGKILL);
}

static const char *of(pid_t pid, const char *file)
{
	static char path[64];

	snprintf(path, sizeof(path), "p/%d%s%s", pid, *file ? "/" : "", file);
	return path;
}

static bool listed(const char *dir, const char *name)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	bool found = false;

	CHECK(d);
	while (!found && (e = readdir(d)))
		found = !strcmp(e->d_name, name);
	closedir(d);
	return found;
}

static bool lists(pid_t pid)
{
	char name[16];

	snprintf(name, sizeof(name), "%d", pid);
	return listed("p", name);
}

static int open_error(const char *path, int flags)
{
	int fd = open(path, flags);

	if (fd < 0)
		return errno;
	close(fd);
	return 0;
}

static int stat_error(const char *path)
{
	struct stat st;

	return stat(path, &st) ? errno : 0;
}

static void sees_all(void)
{
	CHECK(lists(other));
	CHECK_EQ(stat_error(of(other, "")), 0);
	CHECK_EQ(open_error(of(other, "status"), O_RDONLY), 0);
	CHECK_EQ(open_error(of(other, "task"), O_RDONLY), 0);
}

/* As an ordinary user, who is in one more group, or in none but his own. */
static pid_t as_member(void (*fn)(void), size_t count, gid_t group)
{
	pid_t pid = fork();

	if (pid == 0) {
		CHECK_OK(syscall(SYS_setgroups, count, &group));
		CHECK_OK(syscall(SYS_setresgid, USER, USER, USER));
		CHECK_OK(syscall(SYS_setresuid, USER, USER, USER));
		fn();
		_exit(0);
	}
	CHECK(pid > 0);
	return pid;
}

static void member_does(gid_t group, void (*fn)(void))
{
	t_wait_ok(as_member(fn, 1, group));
}

static void user_does(void (*fn)(void))
{
	t_wait_ok(as_member(fn, 0, 0));
}

/* Oneself is always seen: by number, and through the links. */
static void sees_itself(void)
{
	CHECK(lists(getpid()));
	CHECK_EQ(stat_error(of(getpid(), "status")), 0);
	CHECK_EQ(open_error("p/self/status", O_RDONLY), 0);
	CHECK_EQ(open_error("p/thread-self/status", O_RDONLY), 0);
	CHECK_EQ(open_error("p/self/task", O_RDONLY | O_DIRECTORY), 0);
	CHECK_EQ(open_error("p/uptime", O_RDONLY), 0);
}

static void sees_no_files(void)
{
	sees_itself();
	CHECK(lists(other));
	CHECK_EQ(stat_error(of(other, "")), 0);
	CHECK_EQ(stat_error(of(other, "status")), EPERM);
	CHECK_EQ(open_error(of(other, ""), O_RDONLY | O_DIRECTORY), EPERM);
	CHECK_EQ(open_error(of(other, ""), O_PATH), 0);
	CHECK_EQ(open_error(of(other, "status"), O_RDONLY), EPERM);
	CHECK_EQ(open_error(of(other, "nothing"), O_RDONLY), EPERM);
	CHECK_EQ(open_error(of(other, "task/1/comm"), O_RDONLY), EPERM);
	CHECK_ERR(access(of(other, "comm"), F_OK), EPERM);
	CHECK_ERR(readlink(of(other, "cwd"), (char[8]){0}, 8), EPERM);
	CHECK_ERR(chdir(of(other, "")), EPERM);
}

static void sees_nothing(void)
{
	sees_itself();
	CHECK(!lists(other));
	CHECK_EQ(stat_error(of(other, "")), ENOENT);
	CHECK_EQ(stat_error(of(other, "status")), ENOENT);
	CHECK_EQ(open_error(of(other, ""), O_RDONLY | O_DIRECTORY), ENOENT);
	CHECK_EQ(open_error(of(other, "status"), O_RDONLY), ENOENT);
	CHECK_EQ(open_error(of(other, "task"), O_RDONLY), ENOENT);
	CHECK_ERR(access(of(other, "comm"), F_OK), ENOENT);
	CHECK_ERR(chdir(of(other, "")), ENOENT);
}

static void with(const char *options, const char *shown)
{
	if (mount("none", "p", "proc", 0, options) < 0)
		t_fail(__FILE__, __LINE__, "mount of proc with %s: errno %d", options, errno);
	CHECK_STR(strstr(line_of("/p rw"), " - "), shown);
}

TEST(proc_hides_files)
{
	other_begin();
	with("hidepid=1", " - proc none rw,hidepid=noaccess");
	sees_all();
	user_does(sees_no_files);
	sees_all();
	user_does(sees_no_files);
	/* gid= is root's until it is said. */
	member_does(0, sees_all);
	other_end();
}

TEST(proc_hides_processes)
{
	other_begin();
	with("hidepid=invisible", " - proc none rw,hidepid=invisible");
	sees_all();
	user_does(sees_nothing);
	sees_all();
	member_does(0, sees_all);
	member_does(GROUP, sees_nothing);
	other_end();
}

TEST(proc_hides_but_for_group)
{
	char options[64];

	other_begin();
	snprintf(options, sizeof(options), "hidepid=2,gid=%d", GROUP);
	with(options, " - proc none rw,gid=4321,hidepid=invisible");
	user_does(sees_nothing);
	member_does(GROUP, sees_all);
	member_does(0, sees_nothing);
	member_does(GROUP + 1, sees_nothing);
	other_end();
}

static void finds_nothing(void)
{
	sees_nothing();
	CHECK_EQ(open_error(of(other, ""), O_PATH), ENOENT);
}

TEST(proc_shows_ptraceable)
{
	char options[64];

	other_begin();
	snprintf(options, sizeof(options), "gid=%d,hidepid=4", GROUP);
	with(options, " - proc none rw,gid=4321,hidepid=ptraceable");
	user_does(finds_nothing);
	/* The group is no exception here. */
	member_does(GROUP, finds_nothing);
	sees_all();
	other_end();
}

static void holds_directory(void *arg)
{
	int fd = *(int *)arg;

	t_become(USER, USER);
	CHECK_ERR(openat(fd, "comm", O_RDONLY), ENOENT);
	CHECK_ERR(openat(fd, "task", O_RDONLY), ENOENT);
}

/* A directory that was opened by who may see it shows nothing to who may not. */
TEST(proc_hides_behind_descriptor)
{
	int fd, comm;

	other_begin();
	with("hidepid=invisible", " - proc none rw,hidepid=invisible");
	fd = open(of(other, ""), O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	t_wait_ok(t_spawn(holds_directory, &fd));
	comm = openat(fd, "comm", O_RDONLY);
	CHECK(comm >= 0);
	close(comm);
	close(fd);
	other_end();
}

/* Another process of one's own, which may be traced or not. */
static void own_begin(int dumpable)
{
	int fds[2];

	CHECK_OK(pipe(fds));
	other = fork();
	if (other == 0) {
		CHECK_OK(prctl(PR_SET_DUMPABLE, dumpable));
		CHECK_EQ(write(fds[1], "x", 1), 1);
		for (;;)
			pause();
	}
	CHECK(other > 0);
	CHECK_EQ(read(fds[0], (char[1]){0}, 1), 1);
}

static void own_end(void)
{
	CHECK_OK(kill(other, SIGKILL));
	CHECK_EQ(t_wait_status(other), SIGKILL);
}

static void sees_own(void)
{
	CHECK_OK(prctl(PR_SET_DUMPABLE, 0));
	sees_itself();
	own_begin(1);
	sees_all();
	own_end();
	own_begin(0);
	sees_nothing();
	own_end();
}

TEST(proc_shows_own_processes)
{
	other_begin();
	with("hidepid=invisible", " - proc none rw,hidepid=invisible");
	user_does(sees_own);
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "hidepid=ptraceable"));
	user_does(sees_own);
	other_end();
}

TEST(proc_remount_hides)
{
	other_begin();
	with(NULL, " - proc none rw");
	user_does(sees_all);
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "hidepid=2"));
	CHECK_STR(strstr(line_of("/p rw"), " - "), " - proc none rw,hidepid=invisible");
	user_does(sees_nothing);
	/* What is not said stays. */
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "gid=4321"));
	CHECK_STR(strstr(line_of("/p rw"), " - "), " - proc none rw,gid=4321,hidepid=invisible");
	member_does(GROUP, sees_all);
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "hidepid=noaccess"));
	user_does(sees_no_files);
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "hidepid=off,gid=0"));
	CHECK_STR(strstr(line_of("/p rw"), " - "), " - proc none rw");
	user_does(sees_all);
	other_end();
}

/* Another mount of the same processes is not concerned. */
TEST(proc_hides_per_mount)
{
	other_begin();
	with("hidepid=2", " - proc none rw,hidepid=invisible");
	CHECK_OK(mkdir("q", 0755));
	CHECK_OK(mount("none", "q", "proc", 0, NULL));
	user_does(sees_nothing);
	CHECK(!strstr(line_of("/q rw"), "hidepid"));
	CHECK_OK(umount("q"));
	other_end();
}

TEST(proc_subset)
{
	other_begin();
	with("subset=pid", " - proc none rw,subset=pid");
	sees_all();
	CHECK_EQ(open_error("p/self/status", O_RDONLY), 0);
	CHECK_EQ(open_error("p/thread-self/status", O_RDONLY), 0);
	CHECK_EQ(open_error("p/self/mounts", O_RDONLY), 0);
	CHECK(listed("p", "self") && listed("p", "thread-self"));
	for (int i = 0; i < 2; i++) {
		CHECK_EQ(open_error("p/uptime", O_RDONLY), ENOENT);
		CHECK_EQ(stat_error("p/sys"), ENOENT);
		CHECK_EQ(stat_error("p/sys/kernel/ostype"), ENOENT);
		CHECK_EQ(open_error("p/mounts", O_RDONLY), ENOENT);
		CHECK_EQ(stat_error("p/net"), ENOENT);
		CHECK(!listed("p", "uptime") && !listed("p", "sys") && !listed("p", "mounts"));
	}
	user_does(sees_all);
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "hidepid=ptraceable"));
	CHECK_STR(strstr(line_of("/p rw"), " - "), " - proc none rw,hidepid=ptraceable,subset=pid");
	other_end();
}

TEST(proc_remount_subset)
{
	other_begin();
	with(NULL, " - proc none rw");
	CHECK_EQ(open_error("p/version", O_RDONLY), 0);
	CHECK(listed("p", "uptime"));
	CHECK_OK(mount(NULL, "p", NULL, MS_REMOUNT, "subset=pid"));
	CHECK(!listed("p", "uptime"));
	/* One that was never looked up: Linux still knows the others. */
	CHECK_EQ(open_error("p/uptime", O_RDONLY), ENOENT);
	CHECK_EQ(open_error("p/self/status", O_RDONLY), 0);
	other_end();
}

TEST(proc_option_values)
{
	static const char *const good[] = {"hidepid=0",	 "hidepid=off", "hidepid=0x1",
					   "hidepid=04", "gid=0x10",	""};
	static const char *const bad[] = {"hidepid=3", "hidepid=5",   "hidepid=nothing",
					  "hidepid=",  "hidepid",     "hidepid= 1",
					  "gid=x",     "gid=",	      "subset=net",
					  "unknown",   "hidepid=-1",  "gid=4294967296",
					  "subset",    "hidepid=1,x", "hidepid=99999999999"};

	own_namespace();
	CHECK_OK(mkdir("p", 0755));
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		if (mount("none", "p", "proc", 0, good[i]) < 0)
			t_fail(__FILE__, __LINE__, "%s: errno %d", good[i], errno);
		CHECK_OK(umount("p"));
	}
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		if (mount("none", "p", "proc", 0, bad[i]) != -1 || errno != EINVAL)
			t_fail(__FILE__, __LINE__, "%s: not EINVAL but %d", bad[i], errno);
}
