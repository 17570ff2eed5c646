/*
 * tests/unit/p9_gofer_fixture.h - a gofer confined in a process of its own serves a scratch directory, and a client mounts it; names for
 * what the tests do there.
 */
#ifndef MOAT_TESTS_UNIT_P9_GOFER_FIXTURE_H
#define MOAT_TESTS_UNIT_P9_GOFER_FIXTURE_H

#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "base/rcu.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "mem/memfile.h"
#include "tests/gofer_process.h"
#include "vfs/vfs.h"

struct fixture {
	char dir[64];
	pid_t pid;
	struct p9_conn *conn;
	struct mount_namespace *ns;
	struct filesystem *fs;
	struct vfs_path root;
	struct cred *cred;
};

static struct fixture fx;
static bool shared_mode;

static inline pid_t start_gofer(char *dir, int *ret_sock)
{
	int sv[2];
	pid_t pid;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(gofer_process_start(dir, sv[1], &pid), 0);
	close(sv[1]);
	*ret_sock = sv[0];
	return pid;
}

/* A client of f's, and a gofer of its own, for fx.dir. */
static inline void mount_client(struct fixture *f, bool shared, const char *source)
{
	struct gofer_mount_args args = {.shared = shared, .source = source};
	struct dentry *root;
	int sock;

	f->pid = start_gofer(fx.dir, &sock);
	assert_int_equal(p9_conn_create(sock, &f->conn), 0);
	args.conn = f->conn;
	assert_int_equal(gofer_fs_create(&args, &f->fs, &root), 0);
	assert_int_equal(mount_namespace_create(f->fs, root, 0, &f->ns), 0);
	dentry_unref(root);
	filesystem_unref(f->fs);
	mount_namespace_root(f->ns, &f->root);
}

static inline void unmount_client(struct fixture *f)
{
	vfs_path_unref(&f->root);
	mount_namespace_unref(f->ns);
	/* The last unrefs are deferred, some of them past a grace period. */
	for (int i = 0; i < 3; i++) {
		vfs_run_deferred();
		rcu_drain();
	}
	p9_conn_unref(f->conn);
}

static inline int setup(void **state)
{
	(void)state;
	strcpy(fx.dir, "/tmp/p9test.XXXXXX");
	assert_non_null(mkdtemp(fx.dir));
	chmod(fx.dir, 0755);
	mount_client(&fx, shared_mode, "test");
	assert_int_equal(cred_create_root(&fx.cred), 0);
	cred_set_current(fx.cred);
	return 0;
}

static inline int teardown(void **state)
{
	char cmd[128];
	int status;

	(void)state;
	unmount_client(&fx);
	cred_set_current(NULL);
	cred_unref(fx.cred);
	/* A failed test leaves files open, and so the connection. */
	for (int i = 0; i < 3000 && waitpid(fx.pid, &status, WNOHANG) == 0; i++) {
		usleep(10000);
		if (i == 2999) {
			print_error("the gofer still has a client: what a failed test left open, "
				    "or a leak\n");
			kill(fx.pid, SIGKILL);
			waitpid(fx.pid, &status, 0);
		}
	}
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", fx.dir);
	return system(cmd);
}

/* ---- shorthands ---- */

static inline struct vfs_lookup at(const char *path, unsigned flags)
{
	return (struct vfs_lookup){.cred = cred_current(),
				   .ns = fx.ns,
				   .root = fx.root,
				   .start = fx.root,
				   .path = path,
				   .flags = flags};
}

static inline const char *host(const char *path)
{
	static char buf[8][512];
	static unsigned i;

	i = (i + 1) % 8;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", fx.dir, path);
	return buf[i];
}

static inline int do_open(const char *path, unsigned flags, uint32_t mode, struct file **ret)
{
	struct vfs_lookup lk = at(path, flags & O_NOFOLLOW ? 0 : LOOKUP_FOLLOW);
	struct open_args args = {.flags = flags, .mode = mode, .umask = 022};

	if (flags & O_DIRECTORY)
		lk.flags |= LOOKUP_DIRECTORY;
	return vfs_open(&lk, &args, ret);
}

static inline int do_stat(const char *path, struct moat_statx *st)
{
	struct vfs_lookup lk = at(path, 0);
	struct stat_args args = {.mask = 0x7ff};

	return vfs_stat(&lk, &args, st);
}

static inline int do_mkdir(const char *path, uint32_t mode)
{
	struct vfs_lookup lk = at(path, 0);
	struct mkdir_args args = {.mode = mode, .umask = 022};

	return vfs_mkdir(&lk, &args);
}

static inline int do_unlink(const char *path)
{
	struct vfs_lookup lk = at(path, 0);

	return vfs_unlink(&lk);
}

static inline int do_rmdir(const char *path)
{
	struct vfs_lookup lk = at(path, 0);

	return vfs_rmdir(&lk);
}

static inline int do_rename(const char *from, const char *to, unsigned flags)
{
	struct vfs_lookup a = at(from, 0), b = at(to, 0);
	struct rename_args args = {.flags = flags};

	return vfs_rename(&a, &b, &args);
}

static inline int do_link(const char *from, const char *to)
{
	struct vfs_lookup a = at(from, 0), b = at(to, 0);

	return vfs_link(&a, &b);
}

static inline int do_symlink(const char *target, const char *path)
{
	struct vfs_lookup lk = at(path, 0);

	return vfs_symlink(&lk, target);
}

static inline ssize_t do_pwrite(struct file *f, const void *buf, size_t size, int64_t off)
{
	struct io_iter it;
	ssize_t ret;

	io_iter_init_kernel(&it, (void *)buf, size, false);
	ret = file_write_iter(f, &it, off < 0 ? NULL : &off, 0);
	io_iter_fini(&it);
	return ret;
}

static inline ssize_t do_pread(struct file *f, void *buf, size_t size, int64_t off)
{
	struct io_iter it;
	ssize_t ret;

	io_iter_init_kernel(&it, buf, size, true);
	ret = file_read_iter(f, &it, off < 0 ? NULL : &off, 0);
	io_iter_fini(&it);
	return ret;
}

static inline void write_host(const char *path, const char *text)
{
	int fd = open(host(path), O_CREAT | O_WRONLY | O_TRUNC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static inline void deep_host(void)
{
	char path[256] = "";

	for (int i = 0; i < 8; i++) {
		snprintf(path + strlen(path), sizeof(path) - strlen(path), "%sd%d", i ? "/" : "",
			 i);
		assert_int_equal(mkdir(host(path), 0755), 0);
	}
	strcat(path, "/file");
	write_host(path, "deep");
}

#define DEEP "d0/d1/d2/d3/d4/d5/d6/d7/"

static inline int init(void **state)
{
	(void)state;
	rcu_thread_begin();
	if (mem_init(0) || vfs_init())
		return -1;
	gofer_fs_register();
	return 0;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
