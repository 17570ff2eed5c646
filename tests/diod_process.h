/*
 * tests/diod_process.h - Debian's diod in a process of its own, a 9P2000.L server without Moat's extension, for tests and benchmarks of the client.
 */
#ifndef MOAT_TESTS_DIOD_PROCESS_H
#define MOAT_TESTS_DIOD_PROCESS_H

#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <unistd.h>

#define DIOD_PROGRAM "/usr/sbin/diod"

/*
 * Serves dir on sock (which stays the caller's) until that closes. cwd: where its core would go: an assertion of its own may fail when the connection ends,
 * and it lifts the limit. own_mounts: in a mount namespace of its own: it resolves every path anew, and must not see what the caller mounts meanwhile.
 * Return: 0, -errno.
 */
static inline int diod_process_start(const char *dir, const char *cwd, bool own_mounts, int sock,
				     pid_t *ret_pid)
{
	char rfd[32], wfd[32];
	char *argv[] = {(char *)"unshare",
			(char *)"-m",
			(char *)DIOD_PROGRAM,
			(char *)"-f",
			(char *)"-n",
			(char *)"-N",
			(char *)"-L",
			(char *)"/dev/null",
			(char *)"-c",
			(char *)"/dev/null",
			(char *)"-e",
			(char *)dir,
			rfd,
			wfd,
			NULL};
	posix_spawn_file_actions_t actions;
	int err;

	snprintf(rfd, sizeof(rfd), "--rfdno=%d", sock);
	snprintf(wfd, sizeof(wfd), "--wfdno=%d", sock);
	posix_spawn_file_actions_init(&actions);
	/* Onto itself: the descriptor loses its close-on-exec flag. */
	posix_spawn_file_actions_adddup2(&actions, sock, sock);
	posix_spawn_file_actions_addchdir_np(&actions, cwd);
	err = own_mounts ? posix_spawn(ret_pid, "/usr/bin/unshare", &actions, NULL, argv, environ)
			 : posix_spawn(ret_pid, DIOD_PROGRAM, &actions, NULL, argv + 2, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

#endif
