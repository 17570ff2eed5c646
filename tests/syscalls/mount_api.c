/* The mount API by descriptors: open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr. */
#include "t.h"

#include <sys/statfs.h>

#include "mounts.h"

#ifndef AT_RECURSIVE
#define AT_RECURSIVE 0x8000
#endif
#ifndef MOVE_MOUNT_SET_GROUP
#define MOVE_MOUNT_SET_GROUP 0x100
#endif
#ifndef MOVE_MOUNT_BENEATH
#define MOVE_MOUNT_BENEATH 0x200
#endif
#ifndef MNT_DETACH
#define MNT_DETACH 2
#endif
#define MOUNT_ATTR_NOSYMFOLLOW_ 0x200000
#define NR_open_tree 428
#define NR_move_mount 429
#define NR_fsopen 430
#define NR_fsconfig 431
#define NR_fsmount 432
#define NR_fspick 433
#define NR_mount_setattr 442
#define NR_open_tree_attr 467

static int open_tree_(int dfd, const char *path, unsigned flags)
{
	return (int)syscall(NR_open_tree, dfd, path, flags);
}

static int move_mount_(int ffd, const char *from, int tfd, const char *to, unsigned flags)
{
	return (int)syscall(NR_move_mount, ffd, from, tfd, to, flags);
}

static int fsopen_(const char *name, unsigned flags)
{
	return (int)syscall(NR_fsopen, name, flags);
}

static int fsconfig_(int fd, unsigned cmd, const char *key, const void *value, int aux)
{
	return (int)syscall(NR_fsconfig, fd, cmd, key, value, aux);
}

static int fsmount_(int fd, unsigned flags, unsigned attr)
{
	return (int)syscall(NR_fsmount, fd, flags, attr);
}

static int fspick_(int dfd, const char *path, unsigned flags)
{
	return (int)syscall(NR_fspick, dfd, path, flags);
}

struct attr {
	uint64_t set, clr, propagation, userns;
};

static int setattr_(int dfd, const char *path, unsigned flags, const struct attr *a)
{
	return (int)syscall(NR_mount_setattr, dfd, path, flags, a, sizeof(*a));
}

/* A detached tmpfs. */
static int new_tmpfs(unsigned attr)
{
	int fs = fsopen_("tmpfs", FSOPEN_CLOEXEC), m;

	CHECK(fs >= 0);
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_STRING, "source", "made", 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	m = fsmount_(fs, FSMOUNT_CLOEXEC, attr);
	CHECK(m >= 0);
	close(fs);
	return m;
}

TEST(fsopen_to_move)
{
	struct stat st;
	int fs, m, fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	fs = fsopen_("tmpfs", FSOPEN_CLOEXEC);
	CHECK(fs >= 0);
	CHECK_EQ(fcntl(fs, F_GETFD), FD_CLOEXEC);
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_STRING, "source", "the source", 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_STRING, "mode", "0750", 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_STRING, "size", "1m", 0));
	CHECK_ERR(fsmount_(fs, 0, 0), EINVAL);
	CHECK_OK(fsconfig_(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), EBUSY);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "mode", "0700", 0), EBUSY);
	CHECK_ERR(fsmount_(fs, 2, 0), EINVAL);
	CHECK_ERR(fsmount_(fs, 0, 0x40000000), EINVAL);
	CHECK_ERR(fsmount_(fs, 0, MOUNT_ATTR__ATIME), EINVAL);
	m = fsmount_(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
	CHECK(m >= 0);
	CHECK_EQ(fcntl(m, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(fcntl(m, F_GETFL) & O_PATH, O_PATH);
	CHECK_ERR(fsmount_(fs, 0, 0), EBUSY);
	/* It is no one's yet, but can be walked. */
	CHECK_OK(fstat(m, &st));
	CHECK_EQ(st.st_mode & 07777, 0750);
	fd = openat(m, "f", O_CREAT | O_RDWR, 0600);
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "kept", 4), 4);
	close(fd);
	CHECK_STR(line_of("the\\040source"), "");
	CHECK_OK(move_mount_(m, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_STR(t_read("m/f"), "kept");
	CHECK(strstr(line_of("/m "),
		     " rw,nodev,noatime - tmpfs the\\040source rw,size=1024k,mode=750"));
	/* Once attached it moves like any other. */
	CHECK_OK(mkdir("n", 0755));
	CHECK_OK(move_mount_(m, "", AT_FDCWD, "n", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_STR(t_read("n/f"), "kept");
	close(m);
	CHECK_STR(t_read("n/f"), "kept");
}

/* The next message of a context's. */
static void check_message(int fs, const char *want)
{
	char text[256];
	ssize_t n = read(fs, text, sizeof(text) - 1);

	CHECK(n > 0);
	text[n] = '\0';
	CHECK_STR(text, want);
}

TEST(fsconfig_errors)
{
	char text[256];
	int fs;

	own_namespace();
	CHECK_ERR(fsopen_("no-such-fs", 0), ENODEV);
	CHECK_ERR(fsopen_("tmpfs", 2), EINVAL);
	CHECK_ERR(fsopen_((void *)1, 0), EFAULT);
	fs = fsopen_("tmpfs", 0);
	CHECK_ERR(fsconfig_(-1, FSCONFIG_SET_FLAG, "ro", NULL, 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, NULL, NULL, 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, "ro", "x", 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, "ro", NULL, 1), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "size", NULL, 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FD, "size", NULL, 999), EBADF);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FD, "size", NULL, -1), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_BINARY, "size", "x", 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_BINARY, "size", "x", (1 << 20) + 1), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_PATH, "size", "", AT_FDCWD), ENOENT);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_CREATE, "x", NULL, 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, 99, NULL, NULL, 0), EOPNOTSUPP);
	CHECK_ERR(fsconfig_(999, FSCONFIG_SET_FLAG, "ro", NULL, 0), EBADF);
	CHECK_ERR(fsconfig_(0, FSCONFIG_SET_FLAG, "ro", NULL, 0), EINVAL);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, (void *)1, NULL, 0), EFAULT);
	CHECK_ERR(read(fs, text, sizeof(text)), ENODATA);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "nonsense", "1", 0), EINVAL);
	CHECK_ERR(read(fs, text, 3), EMSGSIZE);
	check_message(fs, "e tmpfs: Unknown parameter 'nonsense'\n");
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "mode", "rwx", 0), EINVAL);
	check_message(fs, "e tmpfs: Bad value for 'mode'\n");
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, "size", NULL, 0), EINVAL);
	check_message(fs, "e tmpfs: Bad value for 'size'\n");
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_STRING, "source", "one", 0));
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "source", "two", 0), EINVAL);
	check_message(fs, "e Multiple sources\n");
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, "", NULL, 0), EINVAL);
	check_message(fs, "e tmpfs: Unknown parameter ''\n");
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "huge", "never ever", 0), EINVAL);
	check_message(fs, "e tmpfs: Bad value for 'huge'\n");
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_STRING, "inode64", "1", 0), EINVAL);
	check_message(fs, "e tmpfs: Unexpected value for 'inode64'\n");
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), EBUSY);
	t_become(1000, 1000);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), EPERM);
	CHECK_ERR(fsopen_("tmpfs", 0), EPERM);
	CHECK_ERR(fsmount_(fs, 0, 0), EPERM);
	CHECK_ERR(fspick_(AT_FDCWD, "/", 0), EPERM);
	CHECK_ERR(open_tree_(AT_FDCWD, "/", OPEN_TREE_CLONE), EPERM);
	CHECK_ERR(move_mount_(AT_FDCWD, "/", AT_FDCWD, "/", 0), EPERM);
	CHECK_OK(open_tree_(AT_FDCWD, "/", 0));
}

TEST(messages_are_eight)
{
	char text[256], want[64];
	int fs;

	own_namespace();
	fs = fsopen_("tmpfs", 0);
	for (int i = 0; i < 10; i++) {
		char key[8];

		snprintf(key, sizeof(key), "k%d", i);
		CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, key, NULL, 0), EINVAL);
	}
	for (int i = 2; i < 10; i++) {
		snprintf(want, sizeof(want), "e tmpfs: Unknown parameter 'k%d'\n", i);
		check_message(fs, want);
	}
	CHECK_ERR(read(fs, text, sizeof(text)), ENODATA);
}

TEST(superblock_flags)
{
	int fs, m;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	fs = fsopen_("tmpfs", 0);
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "sync", NULL, 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "lazytime", NULL, 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	m = fsmount_(fs, 0, 0);
	CHECK_OK(move_mount_(m, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK(strstr(line_of("/m "), " rw,relatime - tmpfs none ro,sync,lazytime"));
	CHECK_ERR(mkdir("m/d", 0755), EROFS);
	/* The same descriptor reconfigures it now. */
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "rw", NULL, 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "async", NULL, 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
	CHECK(strstr(line_of("/m "), " rw,relatime - tmpfs none rw"));
	CHECK(!strstr(line_of("/m "), "sync"));
	/* What was given once and is not given again is off: the mask outlives fsmount(2). */
	CHECK(!strstr(line_of("/m "), "lazytime"));
	CHECK_OK(mkdir("m/d", 0755));
	/* mount(2) remounts by the same names. */
	CHECK_ERR(mount(NULL, "m", NULL, MS_REMOUNT, "dirsync"), EINVAL);
	CHECK_OK(mount(NULL, "m", NULL, MS_REMOUNT, "lazytime"));
	CHECK(strstr(line_of("/m "), " rw,relatime - tmpfs none rw,lazytime"));
	CHECK_OK(mount(NULL, "m", NULL, MS_REMOUNT, "ro"));
	CHECK_ERR(mkdir("m/e", 0755), EROFS);
	CHECK_OK(mount(NULL, "m", NULL, MS_REMOUNT, "rw,sync"));
	CHECK(strstr(line_of("/m "), " rw,relatime - tmpfs none rw,sync"));
}

TEST(fspick_reconfigures)
{
	struct statfs sf;
	int fs, fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, "size=1m"));
	CHECK_OK(mkdir("m/sub", 0755));
	CHECK_ERR(fspick_(AT_FDCWD, "m/sub", 0), EINVAL);
	CHECK_ERR(fspick_(AT_FDCWD, "none", 0), ENOENT);
	CHECK_ERR(fspick_(AT_FDCWD, "m", 0x10), EINVAL);
	fs = fspick_(AT_FDCWD, "m", FSPICK_CLOEXEC);
	CHECK(fs >= 0);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0), EBUSY);
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_STRING, "size", "2m", 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
	CHECK_OK(statfs("m", &sf));
	CHECK_EQ(sf.f_blocks * (unsigned long)sf.f_bsize, 2 << 20);
	/* A writer keeps it from becoming read-only. */
	fd = t_file("m/f", "x");
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0));
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), EBUSY);
	/* A failed one is done for. */
	CHECK_ERR(fsconfig_(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0), EBUSY);
	CHECK_ERR(fsconfig_(fs, FSCONFIG_SET_FLAG, "rw", NULL, 0), EBUSY);
	close(fs);
	close(fd);
	fs = fspick_(AT_FDCWD, "m", 0);
	CHECK_ERR(fsmount_(fs, 0, 0), EBUSY);
	CHECK_OK(fsconfig_(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0));
	CHECK_OK(fsconfig_(fs, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0));
	CHECK_ERR(open("m/f", O_RDWR), EROFS);
}

TEST(open_tree_plain)
{
	struct stat a, b;
	int fd;

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(symlink("d", "l"));
	CHECK_ERR(open_tree_(AT_FDCWD, "d", 0x10), EINVAL);
	CHECK_ERR(open_tree_(AT_FDCWD, "d", AT_RECURSIVE), EINVAL);
	CHECK_ERR(open_tree_(AT_FDCWD, "none", 0), ENOENT);
	CHECK_ERR(open_tree_(AT_FDCWD, "", 0), ENOENT);
	CHECK_ERR(open_tree_(99, "", AT_EMPTY_PATH), EBADF);
	fd = open_tree_(AT_FDCWD, "l", AT_SYMLINK_NOFOLLOW | O_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_OK(fstat(fd, &a));
	CHECK(S_ISLNK(a.st_mode));
	CHECK_EQ(fcntl(fd, F_GETFL), O_PATH);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	close(fd);
	fd = open_tree_(AT_FDCWD, "l", 0);
	CHECK_OK(fstat(fd, &a));
	CHECK_OK(stat("d", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_ERR(read(fd, &a, 1), EBADF);
}

TEST(open_tree_clone)
{
	int fd, sub;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("a/in", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/in", 0755));
	CHECK_OK(mount("inner", "a/in", "tmpfs", 0, NULL));
	close(t_file("a/in/f", "deep"));
	close(t_file("a/g", "flat"));
	fd = open_tree_(AT_FDCWD, "a", OPEN_TREE_CLONE);
	CHECK(fd >= 0);
	CHECK_OK(faccessat(fd, "g", F_OK, 0));
	CHECK_ERR(faccessat(fd, "in/f", F_OK, 0), ENOENT);
	close(fd);
	fd = open_tree_(AT_FDCWD, "a", OPEN_TREE_CLONE | AT_RECURSIVE | OPEN_TREE_CLOEXEC);
	CHECK(fd >= 0);
	CHECK_OK(faccessat(fd, "in/f", F_OK, 0));
	/* ".." stays in a detached tree. */
	CHECK_OK(faccessat(fd, "../g", F_OK, 0));
	/* A copy of a part. */
	sub = open_tree_(fd, "in", OPEN_TREE_CLONE);
	CHECK(sub >= 0);
	CHECK_OK(faccessat(sub, "f", F_OK, 0));
	CHECK_OK(umount("a/in"));
	CHECK_OK(faccessat(fd, "in/f", F_OK, 0));
	CHECK_OK(move_mount_(fd, "", AT_FDCWD, "b", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_STR(t_read("b/in/f"), "deep");
	CHECK_OK(umount("b/in"));
	close(fd);
	CHECK_STR(t_read("b/g"), "flat");
	CHECK_OK(umount("b"));
	CHECK_OK(faccessat(sub, "f", F_OK, 0));
	/* A part of a tree that is in no namespace of ours cannot be moved out. */
	fd = open_tree_(AT_FDCWD, "/", OPEN_TREE_CLONE | AT_RECURSIVE);
	CHECK_ERR(move_mount_(fd, "proc", AT_FDCWD, "b", 0), EINVAL);
	CHECK_OK(mount(NULL, "a", NULL, MS_UNBINDABLE, NULL));
	CHECK_ERR(open_tree_(AT_FDCWD, "a", OPEN_TREE_CLONE), EINVAL);
}

TEST(detached_trees_dissolve)
{
	int fd, inner, file;
	char c;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	fd = new_tmpfs(0);
	file = openat(fd, "f", O_CREAT | O_RDWR, 0600);
	CHECK_EQ(write(file, "x", 1), 1);
	CHECK_OK(mkdirat(fd, "d", 0755));
	/* Mounting on a tree that is detached. */
	inner = new_tmpfs(0);
	CHECK_OK(mkdirat(inner, "mark", 0755));
	CHECK_OK(move_mount_(inner, "", fd, "d", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_OK(faccessat(fd, "d/mark", F_OK, 0));
	close(inner);
	CHECK_OK(faccessat(fd, "d/mark", F_OK, 0));
	inner = openat(fd, "d", O_PATH);
	close(fd);
	/* The tree is gone; what was open of it is not. */
	CHECK_EQ(pread(file, &c, 1, 0), 1);
	CHECK_OK(faccessat(inner, "mark", F_OK, 0));
	CHECK_ERR(move_mount_(inner, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH), EINVAL);
	CHECK_ERR(open_tree_(inner, "", AT_EMPTY_PATH | OPEN_TREE_CLONE), EINVAL);
}

TEST(move_mount_errors)
{
	int fd, file;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	close(t_file("f", ""));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/sub", 0755));
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "b", 0x1000), EINVAL);
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "b",
			      MOVE_MOUNT_BENEATH | MOVE_MOUNT_SET_GROUP),
		  EINVAL);
	CHECK_ERR(move_mount_(AT_FDCWD, "none", AT_FDCWD, "b", 0), ENOENT);
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "none", 0), ENOENT);
	CHECK_ERR(move_mount_(AT_FDCWD, "", AT_FDCWD, "b", 0), ENOENT);
	CHECK_ERR(move_mount_(AT_FDCWD, "a/sub", AT_FDCWD, "b", 0), EINVAL);
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "f", 0), EINVAL);
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "a/sub", 0), ELOOP);
	CHECK_OK(symlink("a", "l"));
	CHECK_ERR(move_mount_(AT_FDCWD, "l", AT_FDCWD, "b", 0), EINVAL);
	CHECK_OK(move_mount_(AT_FDCWD, "l", AT_FDCWD, "b", MOVE_MOUNT_F_SYMLINKS));
	CHECK_OK(access("b/sub", F_OK));
	/* A file on a file. */
	file = open_tree_(AT_FDCWD, "f", OPEN_TREE_CLONE);
	CHECK_ERR(move_mount_(file, "", AT_FDCWD, "a", MOVE_MOUNT_F_EMPTY_PATH), EINVAL);
	close(t_file("g", "covered"));
	CHECK_OK(move_mount_(file, "", AT_FDCWD, "g", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_STR(t_read("g"), "");
	/* Out of a shared parent nothing moves. */
	CHECK_OK(mount("outer", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/x", 0755));
	CHECK_OK(mount("tmp", "a/x", "tmpfs", 0, NULL));
	CHECK_OK(mount(NULL, "a", NULL, MS_SHARED, NULL));
	CHECK_ERR(move_mount_(AT_FDCWD, "a/x", AT_FDCWD, "b", 0), EINVAL);
	/* Into it an unbindable tree does not. */
	fd = new_tmpfs(0);
	CHECK_OK(setattr_(fd, "", AT_EMPTY_PATH, &(struct attr){.propagation = MS_UNBINDABLE}));
	CHECK_OK(mkdir("a/y", 0755));
	CHECK_ERR(move_mount_(fd, "", AT_FDCWD, "a/y", MOVE_MOUNT_F_EMPTY_PATH), EINVAL);
}

/* A mount whose root was removed can be copied, but neither it nor the copy is mounted anywhere (Linux 6.17). */
TEST(removed_root)
{
	char by_fd[64];
	int fd;

	own_namespace();
	CHECK_OK(mkdir("dir", 0755));
	CHECK_OK(mkdir("at", 0755));
	CHECK_OK(mkdir("to", 0755));
	close(t_file("file", ""));
	close(t_file("on", ""));
	CHECK_OK(mount("dir", "at", NULL, MS_BIND, NULL));
	fd = t_file("gone", "");
	CHECK_OK(rmdir("dir"));
	CHECK_OK(unlink("gone"));
	if (mount("at", "to", NULL, MS_BIND, NULL) == 0)
		SKIP("a kernel that mounts removed directories");
	CHECK_ERR(mount("at", "to", NULL, MS_BIND, NULL), ENOENT);
	CHECK_ERR(mount("at", "to", NULL, MS_BIND | MS_REC, NULL), ENOENT);
	CHECK_ERR(mount("at", "to", NULL, MS_MOVE, NULL), ENOENT);
	CHECK_ERR(mount("at", "on", NULL, MS_BIND, NULL), ENOTDIR);
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
	CHECK_ERR(mount(by_fd, "on", NULL, MS_BIND, NULL), ENOENT);
	CHECK_ERR(move_mount_(AT_FDCWD, "at", AT_FDCWD, "to", 0), ENOENT);
	fd = open_tree_(AT_FDCWD, "at", OPEN_TREE_CLONE);
	CHECK(fd >= 0);
	CHECK_ERR(move_mount_(fd, "", AT_FDCWD, "to", MOVE_MOUNT_F_EMPTY_PATH), ENOENT);
	CHECK_OK(umount("at"));
}

TEST(move_beneath)
{
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mkdir("plain", 0755));
	CHECK_OK(mount("top", "m", "tmpfs", 0, NULL));
	close(t_file("m/top", ""));
	fd = new_tmpfs(0);
	close(openat(fd, "under", O_CREAT | O_RDWR, 0600));
	CHECK_ERR(move_mount_(fd, "", AT_FDCWD, "plain",
			      MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH),
		  EINVAL);
	CHECK_ERR(move_mount_(fd, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH),
		  EINVAL);
	CHECK_OK(move_mount_(fd, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_BENEATH));
	CHECK_OK(access("m/top", F_OK));
	CHECK_ERR(access("m/under", F_OK), ENOENT);
	CHECK_OK(umount("m"));
	CHECK_OK(access("m/under", F_OK));
	CHECK_ERR(umount("m"), EBUSY);
	close(fd);
	CHECK_OK(umount("m"));
	CHECK_ERR(access("m/under", F_OK), ENOENT);
}

TEST(set_group)
{
	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mkdir("c", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/x", 0755));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	/* A private one has no group to give. */
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "b", MOVE_MOUNT_SET_GROUP), EINVAL);
	CHECK_OK(mount(NULL, "a", NULL, MS_SHARED, NULL));
	CHECK_ERR(move_mount_(AT_FDCWD, "a/x", AT_FDCWD, "b", MOVE_MOUNT_SET_GROUP), EINVAL);
	CHECK_OK(mount("other", "c", "tmpfs", 0, NULL));
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "c", MOVE_MOUNT_SET_GROUP), EINVAL);
	CHECK_OK(move_mount_(AT_FDCWD, "a", AT_FDCWD, "b", MOVE_MOUNT_SET_GROUP));
	CHECK_OK(mount("inner", "a/x", "tmpfs", 0, NULL));
	close(t_file("a/x/f", "seen"));
	CHECK_STR(t_read("b/x/f"), "seen");
	CHECK_ERR(move_mount_(AT_FDCWD, "a", AT_FDCWD, "b", MOVE_MOUNT_SET_GROUP), EINVAL);
}

TEST(setattr)
{
	struct attr a = {.set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOEXEC};
	char big[64] = "";
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("m/sub", 0755));
	CHECK_OK(mount("tmp", "m/sub", "tmpfs", 0, NULL));
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0x10, &a), EINVAL);
	CHECK_ERR(syscall(NR_mount_setattr, AT_FDCWD, "m", 0, &a, 8), EINVAL);
	CHECK_ERR(syscall(NR_mount_setattr, AT_FDCWD, "m", 0, &a, 1 << 20), E2BIG);
	CHECK_ERR(syscall(NR_mount_setattr, AT_FDCWD, "m", 0, (void *)8, sizeof(a)), EFAULT);
	memcpy(big, &a, sizeof(a));
	CHECK_OK(syscall(NR_mount_setattr, AT_FDCWD, "m", 0, big, sizeof(big)));
	big[40] = 1;
	CHECK_ERR(syscall(NR_mount_setattr, AT_FDCWD, "m", 0, big, sizeof(big)), E2BIG);
	CHECK(strstr(line_of("/m "), " ro,noexec,relatime "));
	CHECK(strstr(line_of("/m/sub "), " rw,relatime "));
	/* Nothing to do: not even the path is looked at. */
	CHECK_OK(setattr_(AT_FDCWD, "none", 0, &(struct attr){0}));
	CHECK_ERR(setattr_(AT_FDCWD, "none", 0, &a), ENOENT);
	CHECK_ERR(setattr_(AT_FDCWD, "m/sub/..", 0, &(struct attr){.set = 0x40000000}), EINVAL);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &(struct attr){.propagation = MS_SHARED | MS_SLAVE}),
		  EINVAL);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &(struct attr){.propagation = MS_REC}), EINVAL);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &(struct attr){.set = MOUNT_ATTR_NOATIME}), EINVAL);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &(struct attr){.clr = MOUNT_ATTR_NOATIME}), EINVAL);
	CHECK_OK(setattr_(AT_FDCWD, "m", 0,
			  &(struct attr){.set = MOUNT_ATTR_NOATIME | MOUNT_ATTR_NOSYMFOLLOW_,
					 .clr = MOUNT_ATTR__ATIME | MOUNT_ATTR_RDONLY}));
	CHECK(strstr(line_of("/m "), " rw,noexec,noatime,nosymfollow "));
	CHECK_OK(symlink("sub", "m/link"));
	CHECK_ERR(open("m/link", O_RDONLY), ELOOP);
	/* All or nothing: a writer below keeps the top writable. */
	fd = t_file("m/sub/f", "x");
	CHECK_ERR(setattr_(AT_FDCWD, "m", AT_RECURSIVE, &(struct attr){.set = MOUNT_ATTR_RDONLY}),
		  EBUSY);
	CHECK(strstr(line_of("/m "), " rw,"));
	close(fd);
	CHECK_OK(setattr_(AT_FDCWD, "m", AT_RECURSIVE,
			  &(struct attr){.set = MOUNT_ATTR_RDONLY, .propagation = MS_SHARED}));
	CHECK(strstr(line_of("/m "), " ro,noexec,noatime,nosymfollow shared:"));
	CHECK(strstr(line_of("/m/sub "), " ro,relatime shared:"));
	CHECK_ERR(open("m/sub/f", O_RDWR), EROFS);
	CHECK_ERR(setattr_(AT_FDCWD, "m/sub/f", 0, &a), EINVAL);
	/* Identity maps need a user namespace. */
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0,
			   &(struct attr){.set = MOUNT_ATTR_IDMAP, .userns = 999}),
		  EBADF);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &(struct attr){.set = MOUNT_ATTR_IDMAP, .userns = 0}),
		  EINVAL);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &(struct attr){.clr = MOUNT_ATTR_IDMAP}), EINVAL);
	fd = open("/proc/self/ns/user", O_RDONLY);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0,
			   &(struct attr){.set = MOUNT_ATTR_IDMAP, .userns = (uint64_t)fd}),
		  EPERM);
	t_become(1000, 1000);
	CHECK_ERR(setattr_(AT_FDCWD, "m", 0, &a), EPERM);
}

TEST(setattr_of_detached)
{
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	fd = new_tmpfs(0);
	CHECK_OK(mkdirat(fd, "d", 0755));
	CHECK_OK(setattr_(fd, "", AT_EMPTY_PATH, &(struct attr){.set = MOUNT_ATTR_RDONLY}));
	CHECK_ERR(mkdirat(fd, "e", 0755), EROFS);
	CHECK_OK(move_mount_(fd, "", AT_FDCWD, "m", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_ERR(mkdir("m/e", 0755), EROFS);
}

TEST(open_tree_attr)
{
	struct attr a = {.set = MOUNT_ATTR_RDONLY};
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mkdir("n", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	fd = (int)syscall(NR_open_tree_attr, AT_FDCWD, "m", OPEN_TREE_CLONE, &a, sizeof(a));
	if (fd < 0 && errno == ENOSYS)
		SKIP("no open_tree_attr");
	CHECK(fd >= 0);
	CHECK_ERR(mkdirat(fd, "d", 0755), EROFS);
	CHECK_OK(mkdir("m/d", 0755));
	CHECK_OK(move_mount_(fd, "", AT_FDCWD, "n", MOVE_MOUNT_F_EMPTY_PATH));
	CHECK_ERR(rmdir("n/d"), EROFS);
	CHECK_ERR(syscall(NR_open_tree_attr, AT_FDCWD, "m", OPEN_TREE_CLONE, NULL, sizeof(a)),
		  EINVAL);
	CHECK_ERR(syscall(NR_open_tree_attr, AT_FDCWD, "m", OPEN_TREE_CLONE, &a, 8), EINVAL);
	CHECK_OK(syscall(NR_open_tree_attr, AT_FDCWD, "m", OPEN_TREE_CLONE, NULL, 0));
}
