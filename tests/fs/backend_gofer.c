/*
 * A scratch directory of the host behind a gofer: a confined process of its own per filesystem. It is this
 * program executed anew (see serve()): a fork alone would inherit the locks of whatever threads run here,
 * an allocator's among them, and hang.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fsimpl/gofer/gofer_fs.h"
#include "gofer/gofer.h"
#include "tests/fs/env.h"

static char scratch[64];

static void remove_scratch(void)
{
	char cmd[128];

	snprintf(cmd, sizeof(cmd), "rm -rf %s", scratch);
	(void)!system(cmd);
}

/* A directory below one scratch directory per process, removed at exit by the process that made it. */
static int make_dir(char *path, size_t size)
{
	static unsigned count;

	if (!scratch[0]) {
		const char *tmp = getenv("TMPDIR");

		snprintf(scratch, sizeof(scratch), "%.40s/moat-fs.XXXXXX", tmp ? tmp : "/tmp");
		if (!mkdtemp(scratch))
			return -errno;
		atexit(remove_scratch);
	}
	snprintf(path, size, "%s/%u", scratch, count++);
	return mkdir(path, 0755) < 0 ? -errno : 0;
}

#define SERVE_ARG "--serve-gofer"

/* Runs before main: `PROGRAM --serve-gofer PATH FD` is the gofer of PATH on the socket FD, and nothing else. */
__attribute__((constructor)) static void serve(int argc, char **argv, char **envp)
{
	(void)envp;
	if (argc != 4 || strcmp(argv[1], SERVE_ARG))
		return;

	const struct gofer_attach attach = {.host_path = argv[2]};
	const struct gofer_config config = {
		.sock_fd = atoi(argv[3]),
		.attaches = &attach,
		.attach_count = 1,
		.log_fd = 2,
		.log_level = LOG_WARN_LEVEL,
		.flags = geteuid() ? GOFER_NO_NAMESPACES : 0,
	};

	_exit(gofer_main(&config) ? 1 : 0);
}

static int start_gofer(char *path, int sock_fd)
{
	posix_spawn_file_actions_t actions;
	char fd_arg[16];
	char *argv[] = {program_invocation_name, SERVE_ARG, path, fd_arg, NULL};
	pid_t pid;
	int err;

	snprintf(fd_arg, sizeof(fd_arg), "%d", sock_fd);
	posix_spawn_file_actions_init(&actions);
	/* Onto itself: the descriptor loses its close-on-exec flag. */
	posix_spawn_file_actions_adddup2(&actions, sock_fd, sock_fd);
	err = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct gofer_mount_args args = {.source = "scratch"};
	char path[96];
	int sv[2], err;

	err = make_dir(path, sizeof(path));
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	signal(SIGCHLD, SIG_IGN);
	err = start_gofer(path, sv[1]);
	if (err)
		return err;
	close(sv[1]);
	gofer_fs_register();
	err = p9_conn_create(sv[0], &args.conn);
	if (err)
		return err;
	err = gofer_fs_create(&args, ret_fs, ret_root);
	p9_conn_unref(args.conn);
	return err;
}

const struct fs_backend fs_backend = {
	.name = "gofer",
	.create = create,
	.lacks_acl = true,
	.lacks_trusted = true,
};
