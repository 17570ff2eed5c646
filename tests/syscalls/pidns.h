/* tests/syscalls/pidns.h - processes in pid namespaces of their own, for the tests of them. */
#ifndef MOAT_TESTS_SYSCALLS_PIDNS_H
#define MOAT_TESTS_SYSCALLS_PIDNS_H

#include <linux/sched.h>
#include <sched.h>
#include <sys/mount.h>

#include "t.h"

/* clone3 with these flags and, if count, set_tid; SIGCHLD at the end. */
static inline __attribute__((unused)) pid_t ns_clone_tid(uint64_t flags, const pid_t *set,
							 size_t count)
{
	struct clone_args args = {.flags = flags,
				  .exit_signal = SIGCHLD,
				  .set_tid = (uintptr_t)set,
				  .set_tid_size = count};

	return (pid_t)syscall(SYS_clone3, &args, sizeof(args));
}

static inline __attribute__((unused)) pid_t ns_clone(uint64_t flags)
{
	return ns_clone_tid(flags, NULL, 0);
}

/* A child in a pid namespace of its own runs fn(arg) as number 1 and exits with 0 if no check failed. */
static inline __attribute__((unused)) pid_t ns_spawn(void (*fn)(void *), void *arg)
{
	pid_t pid = ns_clone(CLONE_NEWPID);

	if (pid == 0) {
		fn(arg);
		_exit(0);
	}
	CHECK(pid > 0);
	return pid;
}

static inline __attribute__((unused)) void ns_run(void (*fn)(void *), void *arg)
{
	t_wait_ok(ns_spawn(fn, arg));
}

/* A pair of pipes to take turns by: one byte is a turn. */
struct ns_turns {
	int down[2], up[2];
};

static inline __attribute__((unused)) void ns_turns_init(struct ns_turns *s)
{
	CHECK_OK(pipe(s->down));
	CHECK_OK(pipe(s->up));
}

static inline __attribute__((unused)) void ns_give(int fds[2])
{
	CHECK_EQ(write(fds[1], "x", 1), 1);
}

static inline __attribute__((unused)) void ns_take(int fds[2])
{
	char c;

	CHECK_EQ(read(fds[0], &c, 1), 1);
}

/* proc of the calling process's pid namespace on "p" of the working directory, seen by this process only. */
static inline __attribute__((unused)) void ns_mount_proc(void)
{
	CHECK_OK(unshare(CLONE_NEWNS));
	CHECK_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	if (access("p", F_OK))
		CHECK_OK(mkdir("p", 0755));
	CHECK_OK(mount("proc", "p", "proc", 0, NULL));
}

/* The rest of the line that begins with `name` in a text. */
static inline __attribute__((unused)) const char *ns_line(const char *text, const char *name)
{
	static char line[256];
	const char *at = strstr(text, name);

	if (!at)
		return "";
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(at + strlen(name), "\n"),
		 at + strlen(name));
	return line;
}

#endif
