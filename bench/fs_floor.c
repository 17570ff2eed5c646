/* bench/fs_floor.c - see fs_floor.h. */
#include "bench/fs_floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define ECHO_ARG "--serve-echo"
#define ECHO_REQUEST 120
#define FLOOR_COUNT 200
#define ECHO_REPLY 1000 /* nine nodes of 105 bytes, and a head */

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static int echo_sock = -1;

/* Runs before main: `PROGRAM --serve-echo FD` answers, and nothing else. */
__attribute__((constructor)) static void serve_echo(int argc, char **argv, char **envp)
{
	char data[ECHO_REPLY] = "";

	(void)envp;
	if (argc != 3 || strcmp(argv[1], ECHO_ARG))
		return;
	while (recv(atoi(argv[2]), data, ECHO_REQUEST, MSG_WAITALL) == ECHO_REQUEST)
		if (send(atoi(argv[2]), data, ECHO_REPLY, MSG_NOSIGNAL) != ECHO_REPLY)
			break;
	_exit(0);
}

int floor_start(void)
{
	posix_spawn_file_actions_t actions;
	char fd_arg[16];
	char *argv[] = {program_invocation_name, (char *)ECHO_ARG, fd_arg, NULL};
	int sv[2], err;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	snprintf(fd_arg, sizeof(fd_arg), "%d", sv[1]);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, sv[1], sv[1]);
	err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(sv[1]);
	echo_sock = sv[0];
	return -err;
}

void floor_stop(void)
{
	close(echo_sock);
}

static int round_trip(int sock)
{
	char data[ECHO_REPLY] = "";

	return send(sock, data, ECHO_REQUEST, MSG_NOSIGNAL) != ECHO_REQUEST ||
			       recv(sock, data, ECHO_REPLY, MSG_WAITALL) != ECHO_REPLY
		       ? -EPIPE
		       : 0;
}

/* "t0/d/d/d/d/d/d/d/f", one safe step a component. */
static int safe_walk(int root)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS};
	int at = root;

	for (int i = 0; i <= 8; i++) {
		const char *name = i == 0 ? "t0" : i == 8 ? "f" : "d";
		int fd = (int)syscall(SYS_openat2, at, name, &how, sizeof(how));
		struct stat st;

		if (fd < 0 || fstat(fd, &st) < 0)
			return -errno;
		if (at != root)
			close(at);
		at = fd;
	}
	close(at);
	return 0;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

/* The median of `count` times of what `op` does to `arg`, in us. */
static int median_us(int (*op)(int arg), int arg, double *ret)
{
	static int64_t ns[FLOOR_COUNT];
	int err = 0;

	for (int i = 0; i < FLOOR_COUNT && !err; i++) {
		int64_t start = now_ns();

		err = op(arg);
		ns[i] = now_ns() - start;
	}
	qsort(ns, FLOOR_COUNT, sizeof(ns[0]), by_value);
	*ret = (double)ns[FLOOR_COUNT / 2] / 1000;
	return err;
}

int floor_measure(const char *tree, double *ret_socket_us, double *ret_walk_us)
{
	int root = open(tree, O_PATH | O_DIRECTORY | O_CLOEXEC);
	int err = round_trip(echo_sock);

	if (!err)
		err = median_us(round_trip, echo_sock, ret_socket_us);
	if (!err)
		err = median_us(safe_walk, root, ret_walk_us);
	close(root);
	return err;
}
