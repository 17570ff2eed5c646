/*
 * A scratch directory of the host behind a virtio-fs daemon, one a filesystem. $VIRTIOFS_OPTIONS are the mount's (cache=none,
 * writeback ...), $VIRTIOFSD the daemon: Debian's (of qemu-system-common) by default, "own" for ours, which is this program
 * executed anew.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/hostpoll.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "gofer/virtiofs/virtiofsd.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"

static char scratch[64];

static void remove_scratch(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", scratch);
	(void)!system(cmd);
}

static int make_dir(char *path, size_t size)
{
	static unsigned count;

	if (!scratch[0]) {
		const char *tmp = getenv("TMPDIR");

		snprintf(scratch, sizeof(scratch), "%.40s/moat-vfsd.XXXXXX", tmp ? tmp : "/tmp");
		if (!mkdtemp(scratch))
			return -errno;
		atexit(remove_scratch);
	}
	snprintf(path, size, "%s/%u", scratch, count++);
	return mkdir(path, 0755) < 0 ? -errno : 0;
}

#define SERVE_ARG "--serve-virtiofs"

/* Runs before main: `PROGRAM --serve-virtiofs DIR CACHE FD` is the daemon of DIR on the socket FD, and nothing else. */
__attribute__((constructor)) static void serve(int argc, char **argv, char **envp)
{
	(void)envp;
	if (argc != 5 || strcmp(argv[1], SERVE_ARG))
		return;

	const struct virtiofsd_config config = {
		.shared_dir = argv[2],
		.cache = !strcmp(argv[3], "none")     ? VIRTIOFSD_NONE
			 : !strcmp(argv[3], "always") ? VIRTIOFSD_ALWAYS
						      : VIRTIOFSD_AUTO,
		.listen_fd = -1,
		.sock_fd = atoi(argv[4]),
		.once = true,
		.no_namespaces = geteuid() != 0,
	};

	_exit(virtiofsd_main(&config) ? 1 : 0);
}

/* Return: our end of the connection. */
static int start_own(const char *dir, const char *cache)
{
	posix_spawn_file_actions_t actions;
	char fd_arg[16];
	char *argv[] = {program_invocation_name,
			(char *)SERVE_ARG,
			(char *)dir,
			(char *)cache,
			fd_arg,
			NULL};
	int sv[2], err;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	snprintf(fd_arg, sizeof(fd_arg), "%d", sv[1]);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, sv[1], sv[1]);
	signal(SIGCHLD, SIG_IGN);
	err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	close(sv[1]);
	return err ? -err : sv[0];
}

/* The mount and the daemon must agree on who may cache. */
static const char *cache_of(const char *mount_options)
{
	return strstr(mount_options, "cache=none")     ? "none"
	       : strstr(mount_options, "cache=always") ? "always"
						       : "auto";
}

static int start_daemon(const char *dir, const char *socket_path, const char *mount_options)
{
	const char *named = getenv("VIRTIOFSD"), *cache = cache_of(mount_options);
	char sock_arg[160], source[160], cache_arg[32];
	const char *daemon = named && strcmp(named, "stock") ? named : "/usr/lib/qemu/virtiofsd";
	pid_t pid;

	snprintf(sock_arg, sizeof(sock_arg), "--socket-path=%s", socket_path);
	snprintf(source, sizeof(source), "source=%s", dir);
	snprintf(cache_arg, sizeof(cache_arg), "cache=%s", cache);

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
			(char *)"xattr,sandbox=chroot,log_level=err",
			NULL};

	signal(SIGCHLD, SIG_IGN);
	return -posix_spawn(&pid, argv[0], NULL, NULL, argv, environ);
}

static int connect_daemon(const char *path)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (sock < 0)
		return -errno;
	snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path);
	for (unsigned tries = 0; tries < 1000; tries++) {
		if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) == 0)
			return sock;
		usleep(5000);
	}
	close(sock);
	return -ETIMEDOUT;
}

static struct virtiofs_device *last_device; /* borrowed: while its filesystem lives */

struct virtiofs_device *backend_virtiofs_device(void)
{
	return last_device;
}

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	const struct virtiofs_device_options device_options = {.memory = 1ul << 30};
	const char *text = getenv("VIRTIOFS_OPTIONS");
	struct virtiofs_options options;
	struct virtiofs_device *dev;
	char dir[96], path[112];
	static bool polling;
	int err, sock;

	if (!polling) {
		err = hostpoll_start();
		if (err)
			return err;
		polling = true;
	}
	err = virtiofs_parse_options(text ? text : "", &options);
	if (!err)
		err = make_dir(dir, sizeof(dir));
	if (err)
		return err;
	if (getenv("VIRTIOFSD") && !strcmp(getenv("VIRTIOFSD"), "own")) {
		sock = start_own(dir, cache_of(text ? text : ""));
	} else {
		snprintf(path, sizeof(path), "%s.sock", dir);
		err = start_daemon(dir, path, text ? text : "");
		if (err)
			return err;
		sock = connect_daemon(path);
	}
	if (sock < 0)
		return sock;
	virtiofs_register();
	err = virtiofs_device_connect(sock, &device_options, &dev);
	if (err)
		return err;
	last_device = dev;
	err = virtiofs_create(dev, &options, "scratch", ret_fs, ret_root);
	virtiofs_device_unref(dev);
	return err;
}

const struct fs_backend fs_backend = {
	.name = "virtiofs",
	.create = create,
	.lacks_acl = true,
	.lacks_trusted = true,
	.lacks_tmpfile = true,
};
