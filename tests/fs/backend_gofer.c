/*
 * A scratch directory of the host behind a gofer: a confined process of its own per filesystem.
 * GOFER_SHARED: a shared tree. GOFER_DENTRIES: how many unused dentries are kept; few make most walks cold.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "fsimpl/gofer/gofer_fs.h"
#include "tests/fs/backend_gofer.h"
#include "tests/fs/env.h"
#include "tests/fs/scratch.h"
#include "tests/gofer_process.h"

static char path[96];
static struct p9_conn *conn;
int (*backend_gofer_wrap)(int sock);

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct gofer_mount_args args = {.source = "scratch"};
	const char *dentries = getenv("GOFER_DENTRIES");
	int sv[2], err;

	args.shared = getenv("GOFER_SHARED") != NULL;
	args.max_dentries = dentries ? (unsigned)atoi(dentries) : 0;
	err = scratch_dir(path, sizeof(path));
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	signal(SIGCHLD, SIG_IGN);
	err = gofer_process_start(path, sv[1], NULL);
	if (err)
		return err;
	close(sv[1]);
	if (backend_gofer_wrap)
		sv[0] = backend_gofer_wrap(sv[0]);
	gofer_fs_register();
	err = p9_conn_create(sv[0], &args.conn);
	if (err)
		return err;
	err = gofer_fs_create(&args, ret_fs, ret_root);
	conn = args.conn;
	p9_conn_unref(args.conn);
	return err;
}

struct p9_conn *backend_gofer_conn(void)
{
	return conn;
}

const char *backend_gofer_dir(void)
{
	return path;
}

const struct fs_backend fs_backend = {
	.name = "gofer",
	.create = create,
	.lacks_trusted = true,
};
