/*
 * tests/virtiofs_process.h - virtio-fs daemons in processes of their own, for tests and benchmarks of the client.
 *
 * Ours is the program executed anew (virtiofs_process_serve() runs before main), as tests/gofer_process.h does it. The stock one is of
 * Debian's qemu-system-common. Include it in one file of a program.
 */
#ifndef MOAT_TESTS_VIRTIOFS_PROCESS_H
#define MOAT_TESTS_VIRTIOFS_PROCESS_H

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gofer/virtiofs/virtiofsd.h"

#define VIRTIOFS_PROCESS_ARG "--serve-virtiofs"
#define VIRTIOFS_STOCK_DAEMON "/usr/lib/qemu/virtiofsd"
#define VIRTIOFS_CONNECT_TRIES 12000 /* 5 ms each */

/* $VIRTIOFSD_MORE: options besides, by the stock daemon's names: announce_submounts, posix_lock, flock, killpriv_v2 (which ours has unless told not to). */
static inline const char *virtiofs_process_more(void)
{
	const char *more = getenv("VIRTIOFSD_MORE");

	return more ? more : "";
}

/* Runs before main: `PROGRAM --serve-virtiofs DIR CACHE WINDOW FD` is the daemon of DIR on the socket FD, and nothing else. */
__attribute__((constructor)) static void virtiofs_process_serve(int argc, char **argv, char **envp)
{
	(void)envp;
	if (argc != 6 || strcmp(argv[1], VIRTIOFS_PROCESS_ARG))
		return;

	const struct virtiofsd_config config = {
		.shared_dir = argv[2],
		.cache = !strcmp(argv[3], "none")     ? VIRTIOFSD_NONE
			 : !strcmp(argv[3], "always") ? VIRTIOFSD_ALWAYS
						      : VIRTIOFSD_AUTO,
		.dax_window = strtoul(argv[4], NULL, 10),
		.listen_fd = -1,
		.sock_fd = atoi(argv[5]),
		.writeback = true, /* our client does so only when its mount says */
		.once = true,
		.posix_acl = getenv("VIRTIOFSD_ACL") != NULL,
		.submounts = strstr(virtiofs_process_more(), "announce_submounts") != NULL,
		.posix_lock = strstr(virtiofs_process_more(), "posix_lock") != NULL,
		.flock = strstr(virtiofs_process_more(), "flock") != NULL,
		.no_namespaces = geteuid() != 0,
	};

	_exit(virtiofsd_main(&config) ? 1 : 0);
}

/* What the daemon is to be told: it and the mount must agree on who may cache. */
static inline const char *virtiofs_process_cache(const char *mount_options)
{
	return strstr(mount_options, "cache=none")     ? "none"
	       : strstr(mount_options, "cache=always") ? "always"
						       : "auto";
}

/* Return: our end of the connection, -errno. ret_pid: NULL, or the daemon's. */
static inline int virtiofs_process_own(const char *dir, const char *mount_options,
				       uint64_t dax_window, pid_t *ret_pid)
{
	char fd_arg[16], window_arg[24];
	posix_spawn_file_actions_t actions;
	char *argv[] = {program_invocation_name,
			(char *)VIRTIOFS_PROCESS_ARG,
			(char *)dir,
			(char *)virtiofs_process_cache(mount_options),
			window_arg,
			fd_arg,
			NULL};
	int sv[2], err;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	snprintf(fd_arg, sizeof(fd_arg), "%d", sv[1]);
	snprintf(window_arg, sizeof(window_arg), "%llu", (unsigned long long)dax_window);
	posix_spawn_file_actions_init(&actions);
	/* Onto itself: the descriptor loses its close-on-exec flag. */
	posix_spawn_file_actions_adddup2(&actions, sv[1], sv[1]);
	err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(sv[1]);
	if (err) {
		close(sv[0]);
		return -err;
	}
	if (ret_pid)
		*ret_pid = pid;
	return sv[0];
}

/* Until the daemon listens, or is gone. Return: a connection, -errno. */
static inline int virtiofs_process_connect(const char *path, pid_t pid)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	for (unsigned tries = 0; tries < VIRTIOFS_CONNECT_TRIES; tries++) {
		if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0)
			return sock;
		if (waitpid(pid, NULL, WNOHANG) == pid)
			break;
		usleep(5000);
	}
	close(sock);
	return -ECONNREFUSED;
}

/* log: where its complaints go, NULL: our standard error. Return: a connection, -errno. */
static inline int virtiofs_process_stock(const char *dir, const char *socket_path,
					 const char *mount_options, const char *log, pid_t *ret_pid)
{
	const char *named = getenv("VIRTIOFSD");
	const char *daemon = named && strcmp(named, "stock") ? named : VIRTIOFS_STOCK_DAEMON;
	char sock_arg[160], source[4200], cache_arg[32], more[128];
	posix_spawn_file_actions_t actions;
	char *argv[] = {(char *)daemon,
			sock_arg,
			(char *)"-f",
			(char *)"-o",
			source,
			(char *)"-o",
			cache_arg,
			(char *)"-o",
			(char *)(strstr(mount_options, "no_writeback") ||
						 !strstr(mount_options, "writeback")
					 ? "no_writeback"
					 : "writeback"),
			(char *)"-o",
			more,
			NULL};
	pid_t pid;
	int err;

	snprintf(sock_arg, sizeof(sock_arg), "--socket-path=%s", socket_path);
	snprintf(source, sizeof(source), "source=%s", dir);
	snprintf(more, sizeof(more), "xattr,sandbox=chroot,log_level=err%s%s%s",
		 getenv("VIRTIOFSD_ACL") ? ",posix_acl" : "", *virtiofs_process_more() ? "," : "",
		 virtiofs_process_more());
	snprintf(cache_arg, sizeof(cache_arg), "cache=%s", virtiofs_process_cache(mount_options));
	posix_spawn_file_actions_init(&actions);
	if (log)
		posix_spawn_file_actions_addopen(&actions, 2, log, O_CREAT | O_WRONLY | O_TRUNC,
						 0600);
	err = posix_spawn(&pid, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (err)
		return -err;
	if (ret_pid)
		*ret_pid = pid;
	return virtiofs_process_connect(socket_path, pid);
}

#endif
