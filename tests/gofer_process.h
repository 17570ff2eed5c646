/*
 * tests/gofer_process.h - a gofer in a process of its own, for tests of its clients.
 *
 * It is the test program executed anew (gofer_process_serve() runs before main): a fork alone would inherit
 * the locks of whatever threads the test has, an allocator's among them, and hang. Include it in one file of a program.
 */
#ifndef MOAT_TESTS_GOFER_PROCESS_H
#define MOAT_TESTS_GOFER_PROCESS_H

#include <dirent.h>
#include <errno.h>
#include <linux/sockios.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/log.h"
#include "gofer/gofer.h"

#define GOFER_PROCESS_ARG "--serve-gofer"
#define GOFER_PROCESS_TREES 4

/* Runs before main: `PROGRAM --serve-gofer PATH FD` is the gofer of PATH on the socket FD, and nothing else. GOFER_PROCESS_UDS: o and c allow Unix sockets; GOFER_PROCESS_MORE: more trees, with colons between them. */
__attribute__((constructor)) static void gofer_process_serve(int argc, char **argv, char **envp)
{
	(void)envp;
	if (argc != 4 || strcmp(argv[1], GOFER_PROCESS_ARG))
		return;

	const char *uds = getenv("GOFER_PROCESS_UDS");
	struct gofer_attach attaches[GOFER_PROCESS_TREES] = {
		{.host_path = argv[2],
		 .uds_open = uds && strchr(uds, 'o'),
		 .uds_create = uds && strchr(uds, 'c')},
	};
	char *more = getenv("GOFER_PROCESS_MORE"), *path;
	unsigned count = 1;

	while (count < GOFER_PROCESS_TREES && (path = strsep(&more, ":")))
		attaches[count++].host_path = path;

	const struct gofer_config config = {
		.sock_fd = atoi(argv[3]),
		.attaches = attaches,
		.attach_count = count,
		.log_fd = 2,
		.log_level = getenv("P9_DEBUG") ? LOG_DEBUG_LEVEL : LOG_WARN_LEVEL,
		.flags = geteuid() ? GOFER_NO_NAMESPACES : 0,
	};

	_exit(gofer_main(&config) ? 1 : 0);
}

/* Return: 0 with the process in *ret_pid unless NULL, or -errno. sock_fd stays the caller's. */
static int gofer_process_start(char *path, int sock_fd, pid_t *ret_pid)
{
	posix_spawn_file_actions_t actions;
	char fd_arg[16];
	char *argv[] = {program_invocation_name, GOFER_PROCESS_ARG, path, fd_arg, NULL};
	pid_t pid;
	int err;

	snprintf(fd_arg, sizeof(fd_arg), "%d", sock_fd);
	posix_spawn_file_actions_init(&actions);
	/* Onto itself: the descriptor loses its close-on-exec flag. */
	posix_spawn_file_actions_adddup2(&actions, sock_fd, sock_fd);
	err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (!err && ret_pid)
		*ret_pid = pid;
	return -err;
}

/* Return: whether one of its threads has something to do, or waits for a CPU for it. */
static inline bool gofer_process_is_busy(pid_t pid)
{
	char path[64];
	bool busy = false;
	struct dirent *e;
	DIR *tasks;

	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	tasks = opendir(path);
	while (tasks && (e = readdir(tasks))) {
		char stat_path[sizeof(path) + sizeof(e->d_name) + 8], state = 'S';
		FILE *f;

		snprintf(stat_path, sizeof(stat_path), "%s/%s/stat", path, e->d_name);
		f = fopen(stat_path, "re");
		if (f && fscanf(f, "%*d (%*[^)]) %c", &state) == 1)
			busy |= state == 'R';
		if (f)
			fclose(f);
	}
	if (tasks)
		closedir(tasks);
	return busy;
}

/*
 * Waits until it has taken what was sent on sock (unless that is -1) and all its threads wait for something else: it has done what it can. Seen
 * several times, since a thread may sleep for a moment on the way. That never coming, ctest ends the test.
 */
static inline void gofer_process_until_idle(pid_t pid, int sock)
{
	for (int seen = 0, left = 0; seen < 5; seen++) {
		usleep(10000);
		if ((sock >= 0 && (ioctl(sock, SIOCOUTQ, &left) || left)) ||
		    gofer_process_is_busy(pid))
			seen = -1;
	}
}

#endif
