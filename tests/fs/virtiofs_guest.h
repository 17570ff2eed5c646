/*
 * tests/fs/virtiofs_guest.h - a file system on the daemon of virtiofs_fake.h, and a program in it that makes every kind of call.
 *
 * Include it in one file of a program, whose fs_backend this is.
 */
#ifndef MOAT_TESTS_FS_VIRTIOFS_GUEST_H
#define MOAT_TESTS_FS_VIRTIOFS_GUEST_H

#include <stdio.h>
#include <time.h>

#include "fsimpl/virtiofs/virtiofs.h"
#include "tests/fs/env.h"
#include "tests/fs/virtiofs_fake.h"
#include "vfs/locks.h"

static const char *mount_options = "cache=auto";
static bool reconnects;
static unsigned silent_first; /* so many that are connected to anew answer nothing */
static _Atomic unsigned again; /* times that it was connected to anew */
#define CALL_SECONDS_SOON 1.0
#define CALL_SECONDS_LOADED 15.0 /* on a machine that does much else: a hang has no end */
static double call_seconds_max = CALL_SECONDS_LOADED;
static _Atomic unsigned calls_late; /* that took more than CALL_SECONDS_SOON */
static _Atomic int64_t call_us_seen; /* by the longest; about, when several are judged at once */

/* The next one is as honest as can be, and grants what the last one did. */
static int start_again(void *arg)
{
	uint32_t target = fake.target;

	(void)arg;
	/* It sees its end, whether it ended or was given up. */
	pthread_join(fake.thread, NULL);
	memset(&fake, 0, sizeof(fake));
	fake.target = target;
	fake.silent = again++ < silent_first;
	return start_fake();
}

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	const struct virtiofs_device_options device_options = {
		.memory = 1 << 28,
		.reconnect = reconnects ? start_again : NULL,
	};
	struct virtiofs_options options;
	struct virtiofs_device *dev;
	int sock = start_fake(), err;

	if (sock < 0)
		return sock;
	err = virtiofs_device_connect(sock, &device_options, &dev);
	if (!err)
		err = virtiofs_parse_options(mount_options, &options);
	if (err)
		return err;
	err = virtiofs_create(dev, &options, "fake", ret_fs, ret_root);
	virtiofs_device_unref(dev);
	return err;
}

const struct fs_backend fs_backend = {.name = "virtiofs-hostile", .create = create};

/* ---- what a guest does ---- */

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* From any thread. */
static void judge(const char *what, int64_t ret, double seconds)
{
	if (seconds * 1e6 > (double)atomic_load(&call_us_seen))
		atomic_store(&call_us_seen, (int64_t)(seconds * 1e6));
	if (seconds > CALL_SECONDS_SOON)
		atomic_fetch_add(&calls_late, 1);
	if (ret > -512 && seconds <= call_seconds_max)
		return;
	fprintf(stderr, "%s, %s: %s gave %lld in %.3f s\n", fuse_op_info(fake.target)->name,
		attack_names[fake.attack], what, (long long)ret, seconds);
	abort();
}

/* Every call ends, and soon, with an errno that programs know. */
#define CALL(expression)                                \
	do {                                            \
		double began = now();                   \
		int64_t ret = (expression);             \
                                                        \
		judge(#expression, ret, now() - began); \
	} while (0)

static void guest_locks(struct file *f)
{
	struct file_lock req = {.type = F_WRLCK, .end = INT64_MAX, .owner = f, .pid = 1}, got;

	for (unsigned kind = FILE_LOCK_POSIX; kind <= FILE_LOCK_FLOCK; kind++) {
		req.kind = (enum file_lock_kind)kind;
		CALL(file_lock_test(f, &req, &got));
		CALL(file_lock_set(f, &req, false));
	}
	file_locks_close(f, f);
}

static void guest_file(struct file *f)
{
	static _Thread_local char buf[5000];

	CALL(fs_pread(f, buf, 5000, 100));
	CALL(fs_pread(f, buf, 5000, INT64_MAX - 10000));
	CALL(fs_pwrite(f, buf, 5000, 200));
	CALL(file_seek(f, 0, SEEK_END));
	CALL(file_seek(f, 0, SEEK_DATA));
	CALL(file_truncate(f, 77));
	CALL(file_fallocate(f, 0, 0, 100));
	CALL(file_fsync(f, false, 0, UINT64_MAX));
	guest_locks(f);
}

static void guest_xattrs(struct fs_env *e)
{
	struct vfs_lookup lk = fs_env_at(e, "/f", LOOKUP_FOLLOW);
	char buf[100];
	struct xattr_args args = {.name = "user.a", .value = buf, .size = sizeof(buf)};

	CALL(vfs_get_xattr(&lk, &args));
	args.size = 0;
	CALL(vfs_get_xattr(&lk, &args));
	CALL(vfs_list_xattr(&lk, buf, sizeof(buf)));
	CALL(vfs_list_xattr(&lk, NULL, 0));
	CALL(vfs_set_xattr(&lk, &(struct xattr_args){.name = "user.a", .value = "x", .size = 1}));
	CALL(vfs_remove_xattr(&lk, "user.a"));
}

static void guest_dirs(struct fs_env *e)
{
	static _Thread_local char buf[5000];
	struct file *f = NULL;
	struct statfs sfs;

	CALL(fs_list(e, "/d", buf, sizeof(buf)));
	CALL(fs_open(e, "/d", O_RDONLY | O_DIRECTORY, 0, &f));
	if (f) {
		CALL(fs_list_file(f, buf, sizeof(buf)));
		CALL(file_fsync(f, false, 0, UINT64_MAX));
		CALL(fs_close(f));
	}
	f = NULL;
	CALL(fs_open(e, "/d", O_TMPFILE | O_RDWR, 0644, &f));
	if (f)
		CALL(fs_close(f));
	CALL(vfs_statfs(&e->root, &sfs));
	CALL(e->root.mount->fs->ops->sync(e->root.mount->fs));
}

static void guest(struct fs_env *e)
{
	char buf[100];
	struct moat_statx st;
	struct file *f;

	CALL(fs_stat(e, "/f", &st));
	CALL(fs_stat(e, "/nothing", &st));
	CALL(fs_stat(e, "/l", &st));
	CALL(fs_readlink(e, "/l", buf, sizeof(buf)));
	f = NULL;
	CALL(fs_open(e, "/f", O_RDWR, 0, &f));
	if (f) {
		guest_file(f);
		CALL(fs_close(f));
	}
	guest_dirs(e);
	for (unsigned i = 0; i < 3; i++) {
		f = NULL;
		CALL(fs_open(e, i == 2 ? "/d/f" : "/d/new", i ? O_CREAT | O_RDWR : O_RDONLY, 0644,
			     &f));
		if (f)
			CALL(fs_close(f));
	}
	CALL(fs_stat(e, "/d/l/x", &st));
	CALL(fs_stat(e, "/d/d/d/f", &st)); /* a loop */
	CALL(fs_stat(e, "/d/f", &st));
	guest_dirs(e);
	f = NULL;
	CALL(fs_open(e, "/new", O_CREAT | O_RDWR, 0644, &f));
	if (f) {
		CALL(fs_write(f, "x", 1));
		CALL(fs_close(f));
	}
	CALL(fs_mkdir(e, "/newdir", 0755));
	CALL(fs_mknod(e, "/newfifo", S_IFIFO | 0644, 0, 0));
	CALL(fs_symlink(e, "f", "/newlink"));
	CALL(fs_link(e, "/f", "/newhard", false));
	CALL(fs_rename(e, "/f", "/other", 0));
	CALL(fs_rename(e, "/f", "/other", RENAME_NOREPLACE));
	CALL(fs_chmod(e, "/f", 0600));
	CALL(fs_truncate(e, "/f", 100));
	guest_xattrs(e);
	CALL(fs_unlink(e, "/f"));
	CALL(fs_rmdir(e, "/d"));
}

#endif
