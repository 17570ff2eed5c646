/* Mounts, in a mount namespace of the test's own: tmpfs, bind, move, read-only, propagation, pivot_root. */
#include "t.h"

#include <sched.h>
#include <sys/mount.h>
#include <sys/statfs.h>

static void own_namespace(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		SKIP("no mount namespaces");
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
}

static bool in_mountinfo(const char *what)
{
	return strstr(t_read("/proc/self/mountinfo"), what) != NULL;
}

TEST(tmpfs)
{
	struct stat above, root;
	struct statfs sf;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	close(t_file("m/hidden", "below"));
	CHECK_OK(stat("m", &above));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, "size=1m,mode=0700"));
	CHECK_OK(stat("m", &root));
	CHECK(above.st_dev != root.st_dev);
	CHECK_EQ(root.st_mode & 07777, 0700);
	CHECK_OK(statfs("m", &sf));
	CHECK_EQ(sf.f_type, 0x01021994);
	CHECK_EQ(sf.f_blocks * (unsigned long)sf.f_bsize, 1 << 20);
	CHECK_ERR(open("m/hidden", O_RDONLY), ENOENT);
	close(t_file("m/f", "inside"));
	CHECK_STR(t_read("m/f"), "inside");
	CHECK(in_mountinfo("/m "));
	CHECK_ERR(rmdir("m"), EBUSY);
	CHECK_ERR(rename("m", "n"), EBUSY);
	CHECK_ERR(rename("m/f", "f"), EXDEV);
	CHECK_ERR(link("m/f", "f"), EXDEV);
	CHECK_OK(umount("m"));
	CHECK_STR(t_read("m/hidden"), "below");
	CHECK_ERR(umount("m"), EINVAL);
}

/* What tmpfs does not do, it says. */
TEST(tmpfs_lacks)
{
	static const int modes[] = {FALLOC_FL_COLLAPSE_RANGE, FALLOC_FL_INSERT_RANGE,
				    FALLOC_FL_ZERO_RANGE,
				    FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
				    FALLOC_FL_UNSHARE_RANGE};
	struct iovec v = {(char[4]){0}, 4};
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	fd = t_file("m/f", "text");
	for (unsigned i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		CHECK_ERR(fallocate(fd, modes[i], 0, 4096), EOPNOTSUPP);
	CHECK_ERR(fallocate(fd, FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_KEEP_SIZE, 0, 4096),
		  EOPNOTSUPP);
	CHECK_ERR(preadv2(fd, &v, 1, 0, RWF_NOWAIT), EOPNOTSUPP);
	CHECK_ERR(pwritev2(fd, &v, 1, 0, RWF_NOWAIT), EOPNOTSUPP);
	CHECK_EQ(preadv2(fd, &v, 1, 0, RWF_HIPRI), 4);
	CHECK_EQ(pwritev2(fd, &v, 1, 0, RWF_DSYNC | RWF_HIPRI), 4);
}

TEST(errors)
{
	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_ERR(mount("x", "m", "no-such-fs", 0, NULL), ENODEV);
	CHECK_ERR(mount("x", "none", "tmpfs", 0, NULL), ENOENT);
	CHECK_ERR(mount("x", "m", "tmpfs", 0, "nonsense=1"), EINVAL);
	close(t_file("f", ""));
	CHECK_ERR(mount("x", "f", "tmpfs", 0, NULL), ENOTDIR);
	CHECK_ERR(umount2("m", 0x100), EINVAL);
	t_become(1000, 1000);
	CHECK_ERR(mount("x", "m", "tmpfs", 0, NULL), EPERM);
	CHECK_ERR(umount("/proc"), EPERM);
}

TEST(size_limit)
{
	static char buf[1 << 20];
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, "size=256k,nr_inodes=10"));
	fd = open("m/f", O_CREAT | O_RDWR, 0600);
	CHECK_EQ(write(fd, buf, sizeof(buf)), 256 << 10);
	CHECK_ERR(write(fd, buf, 1), ENOSPC);
	CHECK_OK(ftruncate(fd, 0));
	CHECK_EQ(write(fd, buf, 4096), 4096);
	for (int i = 0;; i++) {
		char name[16];

		snprintf(name, sizeof(name), "m/n%d", i);
		fd = open(name, O_CREAT | O_RDWR, 0600);
		if (fd < 0) {
			int err = errno;

			CHECK_EQ(err, ENOSPC);
			CHECK(i >= 5 && i < 10);
			break;
		}
		close(fd);
	}
}

TEST(busy_and_lazy)
{
	char buf[8] = "";
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	fd = t_file("m/f", "open");
	CHECK_ERR(umount("m"), EBUSY);
	CHECK_OK(umount2("m", MNT_DETACH));
	CHECK_ERR(open("m/f", O_RDONLY), ENOENT);
	/* What is open lives on. */
	CHECK_EQ(pread(fd, buf, 8, 0), 4);
	CHECK_STR(buf, "open");
	CHECK_EQ(write(fd, "more", 4), 4);
	CHECK_OK(rmdir("m"));
}

TEST(bind)
{
	struct stat a, b;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	close(t_file("a/f", "bound"));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_STR(t_read("b/f"), "bound");
	CHECK_OK(stat("a/f", &a));
	CHECK_OK(stat("b/f", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_EQ(a.st_dev, b.st_dev);
	close(t_file("b/new", "x"));
	CHECK_OK(access("a/new", F_OK));
	/* Not even between two mounts of one file system. */
	CHECK_ERR(rename("a/f", "b/g"), EXDEV);
	CHECK_ERR(link("a/f", "b/g"), EXDEV);
	CHECK_OK(umount("b"));
	CHECK_ERR(open("b/f", O_RDONLY), ENOENT);
	/* A file on a file. */
	close(t_file("target", "covered"));
	CHECK_OK(mount("a/f", "target", NULL, MS_BIND, NULL));
	CHECK_STR(t_read("target"), "bound");
	CHECK_ERR(unlink("target"), EBUSY);
	CHECK_ERR(mount("a", "target", NULL, MS_BIND, NULL), ENOTDIR);
	CHECK_OK(umount("target"));
	CHECK_STR(t_read("target"), "covered");
}

TEST(bind_recursive)
{
	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("a/sub", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mkdir("c", 0755));
	CHECK_OK(mount("tmp", "a/sub", "tmpfs", 0, NULL));
	close(t_file("a/sub/f", "deep"));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_ERR(open("b/sub/f", O_RDONLY), ENOENT);
	CHECK_OK(mount("a", "c", NULL, MS_BIND | MS_REC, NULL));
	CHECK_STR(t_read("c/sub/f"), "deep");
	CHECK_ERR(umount("c"), EBUSY);
	CHECK_OK(umount2("c", MNT_DETACH));
	CHECK_ERR(open("c/sub/f", O_RDONLY), ENOENT);
	CHECK_STR(t_read("a/sub/f"), "deep");
}

TEST(read_only)
{
	int fd;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	close(t_file("a/f", "x"));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_OK(mount(NULL, "b", NULL, MS_BIND | MS_REMOUNT | MS_RDONLY, NULL));
	CHECK_ERR(open("b/f", O_RDWR), EROFS);
	CHECK_ERR(open("b/new", O_CREAT | O_RDWR, 0600), EROFS);
	CHECK_ERR(mkdir("b/d", 0755), EROFS);
	CHECK_ERR(unlink("b/f"), EROFS);
	CHECK_ERR(chmod("b/f", 0600), EROFS);
	CHECK_ERR(mkdir("b/f", 0755), EEXIST);
	CHECK_ERR(access("b/f", W_OK), EROFS);
	CHECK_OK(open("b/f", O_RDONLY));
	/* The other mount of the same files is not affected. */
	fd = open("a/f", O_RDWR);
	CHECK(fd >= 0);
	CHECK_OK(mount(NULL, "b", NULL, MS_BIND | MS_REMOUNT, NULL));
	CHECK_OK(open("b/f", O_RDWR));
	CHECK_ERR(mount(NULL, "b/none", NULL, MS_BIND | MS_REMOUNT, NULL), ENOENT);
	CHECK_ERR(mount(NULL, "a", NULL, MS_BIND | MS_REMOUNT, NULL), EINVAL);
}

TEST(read_only_while_writing)
{
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	fd = t_file("m/f", "x");
	CHECK_ERR(mount(NULL, "m", NULL, MS_REMOUNT | MS_RDONLY, NULL), EBUSY);
	close(fd);
	CHECK_OK(mount(NULL, "m", NULL, MS_REMOUNT | MS_RDONLY, NULL));
	CHECK_ERR(open("m/f", O_RDWR), EROFS);
}

TEST(noexec_nodev_nosuid)
{
	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", MS_NOEXEC | MS_NODEV, NULL));
	close(t_file("m/prog", "#!/bin/true\n"));
	CHECK_OK(chmod("m/prog", 0755));
	CHECK_ERR(execve("m/prog", (char *[]){"x", NULL}, (char *[]){NULL}), EACCES);
	CHECK(in_mountinfo("nodev,noexec"));
	CHECK_ERR(access("m/prog", X_OK), EACCES);
}

TEST(move)
{
	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	close(t_file("a/f", "moved"));
	CHECK_OK(mkdir("a/inside", 0755));
	CHECK_ERR(mount("a", "a/inside", NULL, MS_MOVE, NULL), ELOOP);
	CHECK_OK(mount("a", "b", NULL, MS_MOVE, NULL));
	CHECK_STR(t_read("b/f"), "moved");
	CHECK_ERR(open("a/f", O_RDONLY), ENOENT);
	CHECK_ERR(mount("a", "b", NULL, MS_MOVE, NULL), EINVAL);
}

TEST(stacked)
{
	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("one", "m", "tmpfs", 0, NULL));
	close(t_file("m/one", ""));
	CHECK_OK(mount("two", "m", "tmpfs", 0, NULL));
	CHECK_ERR(open("m/one", O_RDONLY), ENOENT);
	CHECK_OK(umount("m"));
	CHECK_OK(open("m/one", O_RDONLY));
	CHECK_ERR(umount("m"), EBUSY);
}

TEST(dotdot_over_mounts)
{
	char cwd[PATH_MAX], start[PATH_MAX];

	own_namespace();
	CHECK(getcwd(start, sizeof(start)));
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("m/d", 0755));
	CHECK_OK(chdir("m/d"));
	CHECK_OK(chdir("../.."));
	CHECK_STR(getcwd(cwd, sizeof(cwd)), start);
	close(t_file("here", "up"));
	CHECK_STR(t_read("m/d/../../here"), "up");
}

TEST(propagation)
{
	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mkdir("c", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/x", 0755));
	CHECK_OK(mount(NULL, "a", NULL, MS_SHARED, NULL));
	CHECK(in_mountinfo("shared:"));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_OK(mount("a", "c", NULL, MS_BIND, NULL));
	CHECK_OK(mount(NULL, "c", NULL, MS_SLAVE, NULL));
	CHECK_OK(mount("inner", "a/x", "tmpfs", 0, NULL));
	close(t_file("a/x/f", "seen"));
	CHECK_STR(t_read("b/x/f"), "seen");
	CHECK_STR(t_read("c/x/f"), "seen");
	CHECK_OK(umount("b/x"));
	CHECK_ERR(open("a/x/f", O_RDONLY), ENOENT);
	CHECK_ERR(open("c/x/f", O_RDONLY), ENOENT);
	/* From a slave nothing goes back. */
	CHECK_OK(mount("own", "c/x", "tmpfs", 0, NULL));
	close(t_file("c/x/g", ""));
	CHECK_ERR(open("a/x/g", O_RDONLY), ENOENT);
}

TEST(unbindable)
{
	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mount(NULL, "a", NULL, MS_UNBINDABLE, NULL));
	CHECK_ERR(mount("a", "b", NULL, MS_BIND, NULL), EINVAL);
}

TEST(namespace_is_private)
{
	pid_t pid;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	pid = fork();
	if (pid == 0) {
		CHECK_OK(unshare(CLONE_NEWNS));
		CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
		close(t_file("m/f", ""));
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_ERR(open("m/f", O_RDONLY), ENOENT);
}

TEST(pivot_root)
{
	own_namespace();
	CHECK_OK(mkdir("new", 0755));
	CHECK_OK(mount("tmp", "new", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("new/old", 0755));
	close(t_file("new/marker", "pivoted"));
	CHECK_ERR(syscall(SYS_pivot_root, "new/old", "new/old"), EINVAL);
	CHECK_OK(syscall(SYS_pivot_root, "new", "new/old"));
	CHECK_OK(chdir("/"));
	CHECK_STR(t_read("/marker"), "pivoted");
	CHECK_OK(access("/old/proc", F_OK));
	CHECK_OK(umount2("/old", MNT_DETACH));
	CHECK_ERR(access("/old/proc", F_OK), ENOENT);
}

TEST(flags_in_mountinfo)
{
	static const struct {
		unsigned long flags;
		const char *shown;
	} cases[] = {
		{0, " rw,relatime - "},
		{MS_RELATIME, " rw,relatime - "},
		{MS_NOATIME, " rw,noatime - "},
		{MS_STRICTATIME, " rw - "},
		{MS_STRICTATIME | MS_NOATIME, " rw - "},
		{MS_NODIRATIME, " rw,nodiratime,relatime - "},
		{MS_NOSUID | MS_NODEV | MS_NOEXEC, " rw,nosuid,nodev,noexec,relatime - "},
		{256 /* MS_NOSYMFOLLOW */, " rw,relatime,nosymfollow - "},
		{MS_RDONLY, " ro,relatime - tmpfs x ro"},
		{MS_SYNCHRONOUS | MS_DIRSYNC, " rw,relatime - tmpfs x rw,sync,dirsync"},
		{MS_LAZYTIME, " rw,relatime - tmpfs x rw,lazytime"},
		{MS_SILENT | 0xc0ed0000, " rw,relatime - "},
	};

	own_namespace();
	CHECK_OK(mkdir("mnt", 0755));
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const char *line;

		CHECK_OK(mount("x", "mnt", "tmpfs", cases[i].flags, NULL));
		line = strstr(t_read("/proc/self/mountinfo"), "/mnt ");
		CHECK(line);
		if (!strstr(line, cases[i].shown))
			t_fail(__FILE__, __LINE__, "flags %lx: %s", cases[i].flags, line);
		CHECK_OK(umount("mnt"));
	}
}

TEST(remount_keeps_or_changes_atime)
{
	own_namespace();
	CHECK_OK(mkdir("mnt", 0755));
	CHECK_OK(mount("x", "mnt", "tmpfs", MS_NOATIME | MS_NODIRATIME, NULL));
	/* No word of atime: what it was. */
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT | MS_NOEXEC, NULL));
	CHECK(in_mountinfo("/mnt rw,noexec,noatime,nodiratime - "));
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT | MS_BIND | MS_NOSUID, NULL));
	CHECK(in_mountinfo("/mnt rw,nosuid,noatime,nodiratime - "));
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT | MS_STRICTATIME, NULL));
	CHECK(in_mountinfo("/mnt rw - "));
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT | MS_RELATIME, NULL));
	CHECK(in_mountinfo("/mnt rw,relatime - "));
	/* Read-only of the mount alone, of the superblock. */
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL));
	CHECK(in_mountinfo("/mnt ro,relatime - tmpfs x rw"));
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT | MS_RDONLY, NULL));
	CHECK(in_mountinfo("/mnt ro,relatime - tmpfs x ro"));
	CHECK_OK(mount(NULL, "mnt", NULL, MS_REMOUNT, NULL));
	CHECK(in_mountinfo("/mnt rw,relatime - tmpfs x rw"));
	CHECK_ERR(mount(NULL, "mnt", NULL, MS_REMOUNT, "nonsense"), EINVAL);
	CHECK_ERR(mount(NULL, "mnt", NULL, MS_REMOUNT, "size=x"), EINVAL);
}

TEST(which_error_first)
{
	own_namespace();
	CHECK_OK(mkdir("d", 0755));
	close(t_file("f", ""));
	CHECK_ERR(mount("x", "d", NULL, 0, NULL), EINVAL);
	CHECK_ERR(mount("x", (void *)8, "tmpfs", 0, NULL), EFAULT);
	CHECK_ERR(mount("x", "d", (void *)8, 0, NULL), EFAULT);
	CHECK_ERR(mount((void *)8, "d", "tmpfs", 0, NULL), EFAULT);
	CHECK_ERR(mount("x", "d", "tmpfs", 0, (void *)8), EFAULT);
	CHECK_ERR(mount("x", "", "tmpfs", 0, NULL), ENOENT);
	CHECK_ERR(mount("x", "f/none", "tmpfs", 0, NULL), ENOTDIR);
	CHECK_ERR(mount("x", "d", "tmpfs", 1ul << 31, NULL), EINVAL);
	/* Binds. */
	CHECK_ERR(mount(NULL, "d", NULL, MS_BIND, NULL), EINVAL);
	CHECK_ERR(mount("", "d", NULL, MS_BIND, NULL), EINVAL);
	CHECK_ERR(mount("none", "d", NULL, MS_BIND, NULL), ENOENT);
	CHECK_ERR(mount("f", "d", NULL, MS_BIND, NULL), ENOTDIR);
	CHECK_ERR(mount("d", "f", NULL, MS_BIND, NULL), ENOTDIR);
	/* Moves. */
	CHECK_ERR(mount("d", "d", NULL, MS_MOVE, NULL), EINVAL);
	CHECK_ERR(mount(NULL, "d", NULL, MS_MOVE, NULL), EINVAL);
	/* Propagation. */
	CHECK_ERR(mount(NULL, "d", NULL, MS_SHARED, NULL), EINVAL);
	CHECK_ERR(mount(NULL, "/", NULL, MS_SHARED | MS_SLAVE, NULL), EINVAL);
	CHECK_ERR(mount(NULL, "/", NULL, MS_SHARED | MS_RDONLY, NULL), EINVAL);
	/* Remounts. */
	CHECK_ERR(mount(NULL, "d", NULL, MS_REMOUNT, NULL), EINVAL);
	CHECK_ERR(mount(NULL, "d", NULL, MS_REMOUNT | MS_BIND, NULL), EINVAL);
	/* Not a mount point. */
	CHECK_ERR(umount2("d", 0), EINVAL);
	CHECK_ERR(umount2("d", MNT_EXPIRE | MNT_FORCE), EINVAL);
	CHECK_ERR(umount2("none", 0), ENOENT);
	CHECK_ERR(umount2("", 0), ENOENT);
	CHECK_ERR(umount2((void *)8, 0), EFAULT);
	t_become(1000, 1000);
	CHECK_ERR(umount2("none", 0), ENOENT);
	CHECK_ERR(umount2("d", 0), EPERM);
	CHECK_ERR(umount2("d", 0x40), EINVAL);
	CHECK_ERR(mount("x", "none", "no-such", 0, NULL), ENOENT);
	CHECK_ERR(mount("x", "d", "no-such", 0, NULL), EPERM);
	CHECK_ERR(mount("x", "d", "tmpfs", 1ul << 31, NULL), EINVAL);
	CHECK_ERR(syscall(SYS_pivot_root, "none", "none"), EPERM);
	CHECK_ERR(chroot("d"), EPERM);
	CHECK_ERR(chroot("none"), ENOENT);
	CHECK_ERR(chroot("f"), ENOTDIR);
}

TEST(expire)
{
	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("x", "m", "tmpfs", 0, NULL));
	CHECK_ERR(umount2("m", MNT_EXPIRE), EAGAIN);
	CHECK_OK(umount2("m", MNT_EXPIRE));
	CHECK_ERR(umount2("m", MNT_EXPIRE), EINVAL);
	CHECK_OK(mount("x", "m", "tmpfs", 0, NULL));
	CHECK_ERR(umount2("m", MNT_EXPIRE), EAGAIN);
	/* Used again. */
	close(open("m", O_RDONLY));
	CHECK_ERR(umount2("m", MNT_EXPIRE), EAGAIN);
	int fd = open("m", O_RDONLY);
	CHECK_ERR(umount2("m", MNT_EXPIRE), EBUSY);
	close(fd);
	CHECK_ERR(umount2("/", MNT_EXPIRE), EINVAL);
}

TEST(umount_flags)
{
	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(symlink("m", "l"));
	CHECK_OK(mount("x", "m", "tmpfs", 0, NULL));
	CHECK_ERR(umount2("l", UMOUNT_NOFOLLOW), EINVAL);
	CHECK_OK(umount2("l", 0));
	CHECK_OK(mount("x", "m", "tmpfs", 0, NULL));
	CHECK_OK(umount2("m", MNT_FORCE));
	/* Stacked: the top goes. */
	CHECK_OK(mount("one", "m", "tmpfs", 0, NULL));
	CHECK_OK(mount("two", "m", "tmpfs", 0, NULL));
	CHECK_OK(umount("m"));
	CHECK(in_mountinfo(" one "));
	CHECK(!in_mountinfo(" two "));
	CHECK_OK(umount("m"));
	/* What is mounted below goes with a lazy one. */
	CHECK_OK(mount("one", "m", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("m/in", 0755));
	CHECK_OK(mount("two", "m/in", "tmpfs", 0, NULL));
	CHECK_ERR(umount("m"), EBUSY);
	CHECK_OK(umount2("m", MNT_DETACH));
	CHECK(!in_mountinfo(" two "));
}

TEST(busy_copies)
{
	int fd;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/x", 0755));
	CHECK_OK(mount(NULL, "a", NULL, MS_SHARED, NULL));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_OK(mount("inner", "a/x", "tmpfs", 0, NULL));
	/* In use through the other peer. */
	fd = open("b/x", O_RDONLY);
	CHECK_ERR(umount("a/x"), EBUSY);
	close(fd);
	CHECK_OK(umount("a/x"));
	CHECK_ERR(umount("b/x"), EINVAL);
}

TEST(pivot_root_errors)
{
	own_namespace();
	CHECK_OK(mkdir("new", 0755));
	CHECK_OK(mkdir("plain", 0755));
	CHECK_OK(mkdir("plain/old", 0755));
	close(t_file("file", ""));
	CHECK_OK(mount("tmp", "new", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("new/old", 0755));
	CHECK_ERR(syscall(SYS_pivot_root, "none", "new/old"), ENOENT);
	CHECK_ERR(syscall(SYS_pivot_root, "new", "none"), ENOENT);
	CHECK_ERR(syscall(SYS_pivot_root, "file", "new/old"), ENOTDIR);
	CHECK_ERR(syscall(SYS_pivot_root, "new", "file"), ENOTDIR);
	CHECK_ERR(syscall(SYS_pivot_root, "/", "new/old"), EBUSY);
	CHECK_ERR(syscall(SYS_pivot_root, "new", "/"), EBUSY);
	CHECK_ERR(syscall(SYS_pivot_root, "new/old", "new/old"), EINVAL);
	CHECK_ERR(syscall(SYS_pivot_root, (void *)8, "new"), EFAULT);
	/* Shared mounts are in the way. */
	CHECK_OK(mount(NULL, "new", NULL, MS_SHARED, NULL));
	CHECK_ERR(syscall(SYS_pivot_root, "new", "new/old"), EINVAL);
	CHECK_OK(mount(NULL, "new", NULL, MS_PRIVATE, NULL));
	/* "." onto "." stacks the old root on the new. */
	CHECK_OK(chdir("new"));
	CHECK_OK(syscall(SYS_pivot_root, ".", "."));
	CHECK_OK(umount2(".", MNT_DETACH));
	CHECK_OK(access("/old", F_OK));
	CHECK_ERR(access("/proc/self", F_OK), ENOENT);
}

TEST(clone_with_namespace)
{
	pid_t pid;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_ERR(syscall(SYS_clone, CLONE_NEWNS | CLONE_FS | SIGCHLD, 0, 0, 0, 0), EINVAL);
	pid = (pid_t)syscall(SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		CHECK_OK(mount("mine", "m", "tmpfs", 0, NULL));
		CHECK(in_mountinfo(" mine "));
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK(!in_mountinfo(" mine "));
	/* A shared tree of another namespace is one. */
	CHECK_OK(mount("base", "m", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("m/x", 0755));
	CHECK_OK(mount(NULL, "m", NULL, MS_SHARED, NULL));
	pid = (pid_t)syscall(SYS_clone, CLONE_NEWNS | SIGCHLD, 0, 0, 0, 0);
	if (pid == 0) {
		CHECK_OK(mount("theirs", "m/x", "tmpfs", 0, NULL));
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK(in_mountinfo(" theirs "));
}

/* What a tmpfs's options are said to be. */
static const char *tmpfs_told(const char *options)
{
	static char told[256];
	const char *line;

	told[0] = '\0';
	CHECK_OK(mount("x", "m", "tmpfs", 0, options));
	line = strstr(t_read("/proc/self/mountinfo"), "/m rw");
	CHECK(line && (line = strstr(line, " - tmpfs x rw")));
	sscanf(line, " - tmpfs x rw%255[^\n]", told);
	return told;
}

static bool tells(const char *options, const char *want)
{
	bool right = strstr(tmpfs_told(options), want) != NULL;

	CHECK_OK(umount("m"));
	return right;
}

/* Hints: nothing in the sandbox depends on them. */
TEST(tmpfs_hints)
{
	static const char *const bad[] = {
		"huge=deny",
		"huge=force",
		"huge=",
		"huge",
		"mpol",
		"mpol=",
		"mpol=bind",
		"mpol=bind:",
		"mpol=bind:63",
		"mpol=local:0",
		"mpol=local:",
		"mpol=default:0",
		"mpol=bind=no:0",
		"mpol=prefer=static",
		"mpol=prefer:",
		"mpol=interleave:",
		"mpol=prefer:0-0",
		"mpol=x",
		"huge=x,huge=never",
	};

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		CHECK_ERR(mount("x", "m", "tmpfs", 0, bad[i]), EINVAL);
	CHECK(tells("noswap", ",noswap"));
	CHECK(tells("mpol=local", ",mpol=local"));
	CHECK(tells("mpol=prefer", ",mpol=local"));
	CHECK(tells("mpol=bind:0", ",mpol=bind:0"));
	CHECK(tells("mpol=prefer=static:0", ",mpol=prefer=static:0"));
	CHECK(tells("mpol=interleave=relative", ",mpol=interleave=relative:0"));
	CHECK(tells("noswap,mpol=bind:0-0,huge=advise,gid=4", ",huge=advise,mpol=bind:0,noswap"));
	CHECK(!strstr(tmpfs_told("mpol=default=x,huge=never"), "mpol"));
	CHECK(!strstr(t_read("/proc/self/mountinfo"), "huge="));
	CHECK_OK(mount("x", "m", NULL, MS_REMOUNT, "huge=always,mpol=local"));
	CHECK(in_mountinfo("huge=always,mpol=local"));
	CHECK_OK(mount("x", "m", NULL, MS_REMOUNT, "mpol=default,huge=never"));
	CHECK(in_mountinfo("mpol=local"));
	CHECK_ERR(mount("x", "m", NULL, MS_REMOUNT, "noswap"), EINVAL);
}

TEST(options_by_name)
{
	static const char *const types[] = {"proc", "sysfs", "devpts", "tmpfs"};

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	for (int i = 0; i < 4; i++) {
		CHECK_OK(mount("x", "m", types[i], 0, NULL));
		CHECK_OK(umount("m"));
		CHECK_OK(mount("x", "m", types[i], 0, "ro"));
		CHECK_OK(umount("m"));
		CHECK_ERR(mount("x", "m", types[i], 0, "no_such_option"), EINVAL);
		CHECK_ERR(mount("x", "m", types[i], 0, "no_such_option=1"), EINVAL);
	}
	CHECK_OK(mount("x", "m", "devpts", 0, "newinstance,mode=620,ptmxmode=666,gid=5,max=100"));
	CHECK_OK(umount("m"));
	CHECK_ERR(mount("x", "m", "devpts", 0, "mode=9"), EINVAL);
	CHECK_ERR(mount("x", "m", "devpts", 0, "gid=many"), EINVAL);
	CHECK_OK(mount("x", "m", "proc", 0, "hidepid=1,gid=5"));
	CHECK_OK(umount("m"));
	CHECK_ERR(mount("x", "m", "proc", 0, "hidepid=9"), EINVAL);
	CHECK_ERR(mount("x", "m", "proc", 0, "subset=none"), EINVAL);
	CHECK_ERR(mount("x", "m", "tmpfs", 0, "mode=9"), EINVAL);
	CHECK_ERR(mount("x", "m", "tmpfs", 0, "uid=-1"), EINVAL);
	CHECK_ERR(mount("x", "m", "tmpfs", 0, "size"), EINVAL);
	CHECK_OK(mount("x", "m", "tmpfs", 0, ",,size=1m,,"));
}
