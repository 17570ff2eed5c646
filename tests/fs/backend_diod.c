/* A scratch directory of the host behind Debian's diod: a 9P2000.L server without Moat's extension. */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fsimpl/gofer/gofer_fs.h"
#include "tests/fs/env.h"
#include "tests/fs/scratch.h"

/* It ends when the socket does. */
static int start(char *dir, int sock)
{
	char rfd[32], wfd[32];
	/* It resolves every path anew: its namespace does not see what the test mounts meanwhile. */
	char *argv[] = {"unshare",   "-m", "/usr/sbin/diod", "-f", "-n", "-N", "-L",
			"/dev/null", "-c", "/dev/null",	     "-e", dir,	 rfd,  wfd,
			NULL};
	posix_spawn_file_actions_t actions;
	int err;

	snprintf(rfd, sizeof(rfd), "--rfdno=%d", sock);
	snprintf(wfd, sizeof(wfd), "--wfdno=%d", sock);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, sock, sock);
	/* An assertion of its own may fail when the connection ends, and it lifts the limit of core dumps. */
	posix_spawn_file_actions_addchdir_np(&actions, scratch_top);
	err = posix_spawn(&(pid_t){0}, "/usr/bin/unshare", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return -err;
}

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct gofer_mount_args args = {.source = "scratch"};
	char dir[96];
	int sv[2], err;

	/* What the differential generator and the suite take for "not here". */
	if (access("/usr/sbin/diod", X_OK) || geteuid()) {
		fprintf(stderr, "SKIPPED: needs root, and diod (scripts/deps test)\n");
		exit(77);
	}
	args.shared = getenv("GOFER_SHARED") != NULL;
	args.aname = dir;
	err = scratch_dir(dir, sizeof(dir));
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	signal(SIGCHLD, SIG_IGN);
	err = start(dir, sv[1]);
	close(sv[1]);
	if (err) {
		close(sv[0]);
		return err;
	}
	gofer_fs_register();
	err = p9_conn_create(sv[0], &args.conn);
	if (err)
		return err;
	err = gofer_fs_create(&args, ret_fs, ret_root);
	p9_conn_unref(args.conn);
	return err;
}

const struct fs_backend fs_backend = {
	.name = "diod",
	.create = create,
	.lacks_whiteout = true,
	.lacks_tmpfile = true,
	.lacks_trusted = true,
	.plain_9p = true,
};
