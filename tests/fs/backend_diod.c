/* A scratch directory of the host behind Debian's diod: a 9P2000.L server without Moat's extension. */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fsimpl/gofer/gofer_fs.h"
#include "tests/diod_process.h"
#include "tests/fs/env.h"
#include "tests/fs/scratch.h"

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct gofer_mount_args args = {.source = "scratch"};
	char dir[96];
	int sv[2], err;
	pid_t pid;

	/* What the differential generator and the suite take for "not here". */
	if (access(DIOD_PROGRAM, X_OK) || geteuid()) {
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
	err = diod_process_start(dir, scratch_top, true, sv[1], &pid);
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
