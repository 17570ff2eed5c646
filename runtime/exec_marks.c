/*
 * runtime/exec_marks.c - who stands for the execs of a container: the state directory's file exec-PID holds the time when that process began, since
 * its number may become another's.
 */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/container.h"

/* In ticks since boot; 0 if there is no such process. */
static unsigned long long start_time(int pid)
{
	unsigned long long when = 0;
	char path[32], *text, *end;
	size_t size;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	if (io_read_file_at(AT_FDCWD, path, 4096, &text, &size))
		return 0;
	end = strrchr(text, ')');
	/* The 22nd of proc(5)'s fields; the name, which may hold anything, is the second. */
	if (!end || sscanf(end,
			   ") %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
			   "%*d %*d %*d %*d %llu",
			   &when) != 1)
		when = 0;
	free(text);
	return when;
}

void exec_mark(const struct state_dir *s, char *ret_name)
{
	char text[32];

	snprintf(ret_name, EXEC_MARK_MAX, "exec-%d", getpid());
	snprintf(text, sizeof(text), "%llu", start_time(getpid()));
	if (io_write_file_at(s->dirfd, ret_name, text, strlen(text), 0600))
		cli_debug("exec: %s: %m", ret_name);
}

/* Is `pid` still the process that made the mark? A number may have become another's. */
static bool mark_valid(const struct state_dir *s, const char *name, int pid)
{
	unsigned long long when;
	size_t size;
	char *text;

	if (io_read_file_at(s->dirfd, name, 64, &text, &size))
		return false;
	when = strtoull(text, NULL, 10);
	free(text);
	return when && when == start_time(pid);
}

/* `each` of those that are there. */
static void mark_walk(const struct state_dir *s, void (*each)(int pid, void *arg), void *arg)
{
	int fd = openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	if (fd >= 0 && !dir)
		close(fd);
	while (dir && (e = readdir(dir)) != NULL) {
		int pid;

		if (sscanf(e->d_name, "exec-%d", &pid) == 1 && pid > 0 &&
		    mark_valid(s, e->d_name, pid))
			each(pid, arg);
	}
	if (dir)
		closedir(dir);
}

static void append_pid(int pid, void *list)
{
	json_array_append_new(list, json_integer(pid));
}

void exec_list_pids(const struct container *c, json_t *list)
{
	mark_walk(&c->dir, append_pid, list);
}

/* By a descriptor that is opened before the mark is read again: the number may become another's in between. */
static void kill_marked(int pid, void *arg)
{
	const struct state_dir *s = arg;
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	char name[EXEC_MARK_MAX];

	snprintf(name, sizeof(name), "exec-%d", pid);
	if (fd >= 0 && mark_valid(s, name, pid))
		(void)syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	if (fd >= 0)
		close(fd);
}

void exec_kill_all(const struct state_dir *s)
{
	mark_walk(s, kill_marked, (void *)s);
}
