/* tests/syscalls/pidns.c - pid namespaces: making and entering them, the numbers of what is born there, the end of an init. */
#include "pidns.h"

#include <pthread.h>
#include <sys/ioctl.h>

#ifndef NS_GET_PARENT
#define NS_GET_PARENT _IO(0xb7, 2)
#endif

/* ---- births ---- */

static void check_first(void *arg)
{
	(void)arg;
	CHECK_EQ(getpid(), 1);
	CHECK_EQ(syscall(SYS_gettid), 1);
	CHECK_EQ(getppid(), 0);
	CHECK_EQ(syscall(SYS_set_tid_address, NULL), 1);
	/* Not a leader of anything: group and session are the parent's, which have no number here. */
	CHECK_EQ(getpgrp(), 0);
	CHECK_EQ(getsid(0), 0);
}

TEST(first_is_one)
{
	ns_run(check_first, NULL);
}

static void check_second(void *arg)
{
	(void)arg;
	CHECK_EQ(getpid(), 2);
	CHECK_EQ(getppid(), 1);
}

static void grow(void *arg)
{
	pid_t pid = t_spawn(check_second, arg);

	CHECK_EQ(pid, 2);
	t_wait_ok(pid);
	pid = fork();
	if (!pid)
		_exit(getpid() == 3 ? 0 : 1);
	CHECK_EQ(pid, 3);
	t_wait_ok(pid);
}

TEST(numbers_grow)
{
	ns_run(grow, NULL);
}

static void *thread_ids(void *arg)
{
	(void)arg;
	CHECK_EQ(getpid(), 1);
	return (void *)(long)syscall(SYS_gettid);
}

static void threads(void *arg)
{
	pthread_t t;
	void *tid;

	(void)arg;
	CHECK_EQ(pthread_create(&t, NULL, thread_ids, NULL), 0);
	CHECK_EQ(pthread_join(t, &tid), 0);
	CHECK_EQ((long)tid, 2);
}

TEST(thread_numbers)
{
	ns_run(threads, NULL);
}

TEST(settid_values)
{
	pid_t *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_PARENT_SETTID | CLONE_CHILD_SETTID,
				  .exit_signal = SIGCHLD};
	pid_t pid;

	CHECK(shared != MAP_FAILED);
	args.parent_tid = (uintptr_t)&shared[0];
	args.child_tid = (uintptr_t)&shared[1];
	pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
	if (!pid)
		_exit(0);
	t_wait_ok(pid);
	CHECK_EQ(shared[0], pid);
	CHECK_EQ(shared[1], 1);
}

TEST(clone_errors)
{
	struct clone_args args = {.flags = CLONE_NEWPID | CLONE_THREAD | CLONE_SIGHAND | CLONE_VM};
	pid_t tids[3] = {1, 1, 1};
	pid_t pid;

	CHECK_ERR(syscall(SYS_clone3, &args, sizeof(args)), EINVAL);
	tids[0] = 5; /* before there is an init */
	CHECK_ERR(ns_clone_tid(CLONE_NEWPID, tids, 1), EINVAL);
	tids[0] = 0;
	CHECK_ERR(ns_clone_tid(CLONE_NEWPID, tids, 1), EINVAL);
	pid = fork();
	if (!pid) {
		t_become(1000, 1000);
		CHECK_ERR(ns_clone(CLONE_NEWPID), EPERM);
		CHECK_ERR(unshare(CLONE_NEWPID), EPERM);
		/* Whether or not there are such: the privilege comes first. */
		CHECK_ERR(ns_clone(CLONE_NEWNET), EPERM);
		CHECK_ERR(unshare(CLONE_NEWNET), EPERM);
		CHECK_ERR(unshare(CLONE_NEWCGROUP), EPERM);
		_exit(0);
	}
	t_wait_ok(pid);
}

static void born_with(void *arg)
{
	pid_t want = 77, pid = ns_clone_tid(0, &want, 1), both[2] = {1, 88};

	(void)arg;
	if (!pid)
		_exit(getpid() == 77 ? 0 : 1);
	CHECK_EQ(pid, 77);
	CHECK_ERR(ns_clone_tid(0, &want, 1), EEXIST);
	t_wait_ok(pid);
	pid = ns_clone_tid(CLONE_NEWPID, both, 2);
	if (!pid)
		_exit(getpid() == 1 ? 0 : 1);
	CHECK_EQ(pid, 88);
	t_wait_ok(pid);
	want = 1;
	CHECK_ERR(ns_clone_tid(0, &want, 1), EEXIST);
}

TEST(set_tid)
{
	ns_run(born_with, NULL);
}

/* ---- unshare ---- */

static void unshare_self(void *arg)
{
	char before[64] = {0}, after[64] = {0};
	pid_t pid;

	(void)arg;
	CHECK_OK(unshare(CLONE_NEWPID));
	/* All or nothing. */
	CHECK(readlink("/proc/self/ns/mnt", before, sizeof(before) - 1) > 0);
	CHECK_ERR(unshare(CLONE_NEWPID | CLONE_NEWNS), EINVAL);
	CHECK(readlink("/proc/self/ns/mnt", after, sizeof(after) - 1) > 0);
	CHECK_STR(after, before);
	/* A second one, or a thread, would be elsewhere than what is born next. */
	CHECK_ERR(unshare(CLONE_NEWPID), EINVAL);
	CHECK_ERR(ns_clone(CLONE_NEWPID), EINVAL);
	CHECK_ERR(syscall(SYS_clone, CLONE_THREAD | CLONE_SIGHAND | CLONE_VM, NULL, 0, 0, 0),
		  EINVAL);
	CHECK_ERR(readlink("/proc/self/ns/pid_for_children", (char[64]){0}, 64), ENOENT);
	pid = fork();
	if (!pid) {
		check_first(NULL);
		_exit(0);
	}
	CHECK(pid > 1);
	t_wait_ok(pid);
	/* Its init is dead: nothing more is born there. */
	CHECK_ERR(fork(), ENOMEM);
	CHECK(readlink("/proc/self/ns/pid_for_children", (char[64]){0}, 64) > 0);
}

TEST(unshare_children_only)
{
	pid_t before = getpid();

	t_wait_ok(t_spawn(unshare_self, NULL));
	CHECK_EQ(getpid(), before);
}

static void unshare_two(void *arg)
{
	struct ns_turns s;
	pid_t one, two;

	(void)arg;
	ns_turns_init(&s);
	CHECK_OK(unshare(CLONE_NEWPID));
	one = fork();
	if (!one) {
		ns_take(s.down);
		_exit(getpid() == 1 ? 0 : 1);
	}
	two = fork();
	if (!two) {
		/* The parent is outside. */
		CHECK_EQ(getpid(), 2);
		CHECK_EQ(getppid(), 0);
		_exit(0);
	}
	t_wait_ok(two);
	ns_give(s.down);
	t_wait_ok(one);
}

TEST(unshare_second_child)
{
	t_wait_ok(t_spawn(unshare_two, NULL));
}

static void nest(void *arg)
{
	(void)arg;
	/* Each child goes on one level deeper; the depth comes back as exit status. */
	for (int level = 0; level <= 40; level++) {
		pid_t pid = ns_clone(CLONE_NEWPID);

		if (pid < 0)
			_exit(errno == ENOSPC ? level : 99);
		if (pid)
			_exit(WEXITSTATUS(t_wait_status(pid)));
	}
	_exit(98);
}

TEST(nested_limit)
{
	int deepest;
	pid_t pid = t_spawn(nest, NULL);

	/* How many fit depends on where we are ourselves: 32 below the machine's own. */
	deepest = WEXITSTATUS(t_wait_status(pid));
	CHECK(deepest >= 25 && deepest <= 32);
}

/* ---- the namespace as a file ---- */

static void wait_turn(void *arg)
{
	struct ns_turns *s = arg;

	ns_give(s->up);
	ns_take(s->down);
}

static int ns_open(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/ns/pid", pid);
	return open(path, O_RDONLY);
}

static void enter(void *arg)
{
	int fd = *(int *)arg, own = ns_open(getpid());
	pid_t pid, before = getpid();

	CHECK_ERR(setns(fd, CLONE_NEWUTS), EINVAL);
	CHECK_OK(setns(fd, CLONE_NEWPID));
	CHECK_EQ(getpid(), before);
	pid = fork();
	if (!pid) {
		CHECK_EQ(getpid(), 2);
		CHECK_EQ(getppid(), 0);
		/* Not back up. */
		CHECK_ERR(setns(own, CLONE_NEWPID), EINVAL);
		CHECK_ERR(kill(before, 0), ESRCH);
		CHECK_OK(kill(1, 0));
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_OK(setns(own, 0));
	pid = fork();
	if (!pid)
		_exit(getppid() == before ? 0 : 1);
	t_wait_ok(pid);
}

TEST(setns_by_file)
{
	struct ns_turns s;
	struct stat a, b;
	pid_t pid;
	int fd, own = ns_open(getpid());

	ns_turns_init(&s);
	pid = ns_spawn(wait_turn, &s);
	ns_take(s.up);
	fd = ns_open(pid);
	CHECK(fd >= 0 && own >= 0);
	CHECK_OK(fstat(fd, &a));
	CHECK_OK(fstat(own, &b));
	CHECK(a.st_ino != b.st_ino);
	t_wait_ok(t_spawn(enter, &fd));
	ns_give(s.down);
	t_wait_ok(pid);
	/* It exists as long as the file; its init does not. */
	CHECK_OK(setns(fd, CLONE_NEWPID));
	CHECK_ERR(fork(), ENOMEM);
}

static void enter_pidfd(void *arg)
{
	pid_t pid;

	CHECK_OK(setns(*(int *)arg, CLONE_NEWPID));
	pid = fork();
	if (!pid)
		_exit(getpid() == 2 ? 0 : 1);
	t_wait_ok(pid);
}

TEST(setns_by_pidfd)
{
	struct ns_turns s;
	pid_t pid;
	int fd;

	ns_turns_init(&s);
	pid = ns_spawn(wait_turn, &s);
	ns_take(s.up);
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(fd >= 0);
	t_wait_ok(t_spawn(enter_pidfd, &fd));
	ns_give(s.down);
	t_wait_ok(pid);
}

static void parent_of(void *arg)
{
	int fd = ns_open(getpid()), outer = *(int *)arg;

	(void)fd;
	/* From inside, the own namespace's parent cannot be seen. */
	CHECK_ERR(ioctl(outer, NS_GET_PARENT), EPERM);
}

TEST(parent_by_ioctl)
{
	struct ns_turns s;
	struct stat a, b;
	pid_t pid;
	int fd, up;

	ns_turns_init(&s);
	pid = ns_spawn(wait_turn, &s);
	ns_take(s.up);
	fd = ns_open(pid);
	up = ioctl(fd, NS_GET_PARENT);
	CHECK(up >= 0);
	CHECK_OK(fstat(up, &a));
	CHECK_OK(stat("/proc/self/ns/pid", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	ns_run(parent_of, &fd);
	ns_give(s.down);
	t_wait_ok(pid);
}

/* ---- death of an init ---- */

static void leave_children(void *arg)
{
	struct ns_turns *s = arg;

	for (int i = 0; i < 3; i++)
		if (!fork()) {
			/* One of them in a namespace below, one in a session of its own. */
			if (i == 1)
				(void)ns_clone(CLONE_NEWPID);
			if (i == 2)
				setsid();
			close(s->down[0]);
			signal(SIGTERM, SIG_IGN);
			for (;;)
				pause();
		}
	close(s->up[1]);
	ns_take(s->down);
	_exit(5);
}

TEST(init_takes_all)
{
	struct ns_turns s;
	pid_t pid;
	char c;

	ns_turns_init(&s);
	pid = ns_spawn(leave_children, &s);
	close(s.up[1]);
	ns_give(s.down);
	/* The writers' end closes when the last of them is gone, which is before the init can be waited for. */
	CHECK_EQ(WEXITSTATUS(t_wait_status(pid)), 5);
	CHECK_OK(fcntl(s.up[0], F_SETFL, O_NONBLOCK));
	CHECK_EQ(read(s.up[0], &c, 1), 0);
}

static void fork_twice(void *arg)
{
	int *to = arg;
	pid_t pid = fork();

	if (!pid) {
		if (!fork()) {
			while (getppid() == 2)
				t_sleep_ms(1);
			dprintf(to[1], "%d", getppid());
			_exit(3);
		}
		_exit(0);
	}
	t_wait_ok(pid);
	/* The orphan is ours now. */
	CHECK_EQ(WEXITSTATUS(t_wait_status(3)), 3);
}

TEST(orphans_go_to_init)
{
	int to[2];
	char text[16] = "";

	CHECK_OK(pipe(to));
	ns_run(fork_twice, to);
	CHECK_EQ(read(to[0], text, sizeof(text) - 1), 1);
	CHECK_STR(text, "1");
}

static void subreaper(void *arg)
{
	pid_t pid;

	(void)arg;
	pid = fork();
	if (!pid) {
		CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
		pid = fork();
		if (!pid) {
			if (!fork()) {
				while (getppid() == 3)
					t_sleep_ms(1);
				_exit(getppid() == 2 ? 0 : 1);
			}
			_exit(0);
		}
		t_wait_ok(pid);
		t_wait_ok(4);
		_exit(0);
	}
	t_wait_ok(pid);
}

TEST(subreaper_inside)
{
	/* One outside is none for those within. */
	CHECK_OK(prctl(PR_SET_CHILD_SUBREAPER, 1));
	ns_run(subreaper, NULL);
	ns_run(fork_twice, (int[2]){-1, open("/dev/null", O_WRONLY)});
}

static void not_even(void *arg)
{
	struct ns_turns *s = arg;

	if (!fork()) {
		/* No handler: the init ignores it; and what it cannot catch, from inside. */
		CHECK_OK(kill(1, SIGTERM));
		CHECK_OK(kill(1, SIGKILL));
		CHECK_OK(kill(1, SIGSTOP));
		CHECK_OK(kill(1, SIGINT));
		_exit(0);
	}
	CHECK_OK(wait(NULL) < 0 ? -1 : 0);
	CHECK_OK(kill(1, SIGKILL));
	ns_give(s->up);
	ns_take(s->down);
}

TEST(init_is_protected)
{
	struct ns_turns s;
	pid_t pid;

	ns_turns_init(&s);
	pid = ns_spawn(not_even, &s);
	ns_take(s.up);
	/* From outside SIGTERM is ignored as well, SIGSTOP and SIGKILL are not. */
	CHECK_OK(kill(pid, SIGTERM));
	CHECK_OK(kill(pid, SIGSTOP));
	CHECK_EQ(waitpid(pid, NULL, WUNTRACED), pid);
	CHECK_OK(kill(pid, SIGCONT));
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

static void zombie_outside(void *arg)
{
	struct ns_turns s;
	pid_t init, other;

	(void)arg;
	ns_turns_init(&s);
	CHECK_OK(unshare(CLONE_NEWPID));
	init = fork();
	if (!init) {
		ns_take(s.down);
		_exit(0);
	}
	other = fork();
	if (!other)
		for (;;)
			pause();
	ns_give(s.down);
	/* The init's end kills our other child, and waits until we have waited for it. */
	CHECK_EQ(t_wait_status(other), SIGKILL);
	t_wait_ok(init);
}

TEST(init_waits_for_foreign_zombies)
{
	t_wait_ok(t_spawn(zombie_outside, NULL));
}

static void *last_thread(void *arg)
{
	(void)arg;
	t_sleep_ms(20);
	syscall(SYS_exit, 0);
	return NULL;
}

static void leader_first(void *arg)
{
	pthread_t t;

	(void)arg;
	CHECK_EQ(pthread_create(&t, NULL, last_thread, NULL), 0);
	if (!fork())
		for (;;)
			pause();
	syscall(SYS_exit, 0);
}

TEST(init_with_threads)
{
	ns_run(leader_first, NULL);
}

static void *exec_thread(void *arg)
{
	char *argv[] = {arg, (char *)"--exec-child", NULL};

	execv(arg, argv);
	_exit(9);
}

static void exec_from_thread(void *arg)
{
	pthread_t t;

	CHECK_EQ(pthread_create(&t, NULL, exec_thread, arg), 0);
	for (;;)
		pause();
}

/* The number of the thread that calls execve becomes the leader's. */
__attribute__((constructor)) static void exec_child(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "--exec-child"))
		_exit(getpid() == 1 && syscall(SYS_gettid) == 1 && fork() >= 0 ? 0 : 1);
}

TEST(exec_keeps_number)
{
	static char self[PATH_MAX];

	CHECK(readlink("/proc/self/exe", self, sizeof(self) - 1) > 0);
	ns_run(exec_from_thread, self);
}
