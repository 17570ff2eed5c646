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
