/* Inode flags of tmpfs: FS_IOC_GETFLAGS and SETFLAGS, FSGETXATTR and FSSETXATTR, and what they forbid. */
#include "t.h"

#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/xattr.h>

/* In a tmpfs of one's own, whatever the tests run on. */
static void enter_tmpfs(void)
{
	if (unshare(CLONE_NEWNS))
		SKIP("no mount namespaces here");
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	CHECK_OK(chdir("m"));
}

static int get(int fd)
{
	int flags = -1;

	CHECK_OK(ioctl(fd, FS_IOC_GETFLAGS, &flags));
	return flags;
}

static int set(int fd, int flags)
{
	return ioctl(fd, FS_IOC_SETFLAGS, &flags);
}

static int set_x(int fd, struct fsxattr x)
{
	return ioctl(fd, FS_IOC_FSSETXATTR, &x);
}

TEST(which)
{
	const unsigned known = FS_IMMUTABLE_FL | FS_APPEND_FL | FS_NODUMP_FL | FS_NOATIME_FL;
	struct fsxattr x;
	struct statx st;
	int fd, dir, fifo;

	enter_tmpfs();
	fd = t_file("f", "abc");
	CHECK_OK(mkdir("d", 0755));
	dir = open("d", O_RDONLY);
	CHECK_EQ(get(fd), 0);
	CHECK_EQ(get(dir), 0);
	for (int bit = 0; bit < 32; bit++) {
		const unsigned flag = 1u << bit;

		if (!(flag & known)) {
			CHECK_ERR(set(fd, (int)flag), EOPNOTSUPP);
			CHECK_EQ(get(fd), 0);
			continue;
		}
		CHECK_OK(set(dir, (int)flag));
		CHECK_EQ(get(dir), flag);
		CHECK_OK(set(dir, 0));
		CHECK_OK(set(fd, (int)flag));
		CHECK_EQ(get(fd), flag);
		CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS, &st));
		CHECK_EQ(st.stx_attributes & (known & ~FS_NOATIME_FL), flag & ~FS_NOATIME_FL);
		CHECK_EQ(st.stx_attributes_mask & 0x70, 0x70);
		CHECK_OK(set(fd, 0));
	}
	CHECK_ERR(ioctl(fd, FS_IOC_GETFLAGS, NULL), EFAULT);
	CHECK_ERR(ioctl(fd, FS_IOC_SETFLAGS, NULL), EFAULT);
	CHECK_OK(set(fd, FS_NODUMP_FL | FS_APPEND_FL));
	CHECK_OK(ioctl(fd, FS_IOC_FSGETXATTR, &x));
	CHECK_EQ(x.fsx_xflags, FS_XFLAG_NODUMP | FS_XFLAG_APPEND);
	CHECK_OK(set(fd, 0));
	CHECK_OK(mkfifo("p", 0644));
	fifo = open("p", O_RDWR);
	CHECK_ERR(set(fifo, FS_NODUMP_FL), ENOTTY);
	CHECK_ERR(set(open("f", O_PATH), FS_NODUMP_FL), EBADF);
}

TEST(xflags)
{
	int fd, dir;

	enter_tmpfs();
	fd = t_file("f", "abc");
	CHECK_OK(mkdir("d", 0755));
	dir = open("d", O_RDONLY);
	CHECK_OK(set_x(fd, (struct fsxattr){.fsx_xflags = FS_XFLAG_NODUMP | FS_XFLAG_NOATIME}));
	CHECK_EQ(get(fd), FS_NODUMP_FL | FS_NOATIME_FL);
	CHECK_OK(set_x(fd, (struct fsxattr){.fsx_xflags = FS_XFLAG_HASATTR | FS_XFLAG_PREALLOC}));
	CHECK_EQ(get(fd), 0);
	CHECK_OK(set_x(fd, (struct fsxattr){.fsx_xflags = FS_XFLAG_EXTSIZE | FS_XFLAG_COWEXTSIZE}));
	CHECK_ERR(set_x(fd, (struct fsxattr){.fsx_xflags = FS_XFLAG_EXTSZINHERIT}), EINVAL);
	CHECK_ERR(set_x(dir, (struct fsxattr){.fsx_xflags = FS_XFLAG_EXTSIZE}), EINVAL);
	CHECK_OK(set_x(dir, (struct fsxattr){.fsx_xflags = FS_XFLAG_EXTSZINHERIT}));
	CHECK_ERR(set_x(fd, (struct fsxattr){.fsx_xflags = FS_XFLAG_SYNC}), EOPNOTSUPP);
	CHECK_ERR(set_x(fd, (struct fsxattr){.fsx_xflags = FS_XFLAG_DAX}), EOPNOTSUPP);
	CHECK_ERR(set_x(fd, (struct fsxattr){.fsx_projid = 5}), EOPNOTSUPP);
	CHECK_ERR(set_x(fd, (struct fsxattr){.fsx_extsize = 4096}), EOPNOTSUPP);
	CHECK_ERR(set_x(fd, (struct fsxattr){.fsx_cowextsize = 4096}), EOPNOTSUPP);
	CHECK_ERR(ioctl(fd, FS_IOC_FSGETXATTR, NULL), EFAULT);
	CHECK_ERR(ioctl(fd, FS_IOC_FSSETXATTR, NULL), EFAULT);
}

static const struct timespec past[2] = {{1, 0}, {1, 0}};

TEST(immutable)
{
	int fd;

	enter_tmpfs();
	fd = t_file("f", "abc");
	CHECK_OK(close(fd));
	fd = open("f", O_RDWR);
	CHECK_OK(set(fd, FS_IMMUTABLE_FL));
	CHECK_ERR(open("f", O_RDWR), EPERM);
	CHECK_ERR(open("f", O_RDONLY | O_TRUNC), EPERM);
	CHECK_ERR(truncate("f", 1), EPERM);
	CHECK_ERR(chmod("f", 0600), EPERM);
	CHECK_ERR(chown("f", 1, 1), EPERM);
	CHECK_ERR(unlink("f"), EPERM);
	CHECK_ERR(link("f", "f2"), EPERM);
	CHECK_ERR(rename("f", "f3"), EPERM);
	CHECK_ERR(utimensat(AT_FDCWD, "f", NULL, 0), EPERM);
	CHECK_ERR(utimensat(AT_FDCWD, "f", past, 0), EPERM);
	CHECK_ERR(access("f", W_OK), EPERM);
	CHECK_OK(access("f", R_OK));
	CHECK_ERR(fallocate(fd, 0, 0, 8192), EPERM);
	CHECK_ERR(setxattr("f", "user.a", "b", 1, 0), EPERM);
	CHECK_ERR(setxattr("f", "trusted.a", "b", 1, 0), EPERM);
	CHECK_ERR(removexattr("f", "trusted.a"), EPERM);
	/* What was open for writing stays so. */
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_OK(ftruncate(fd, 1));
	CHECK_OK(set(fd, 0));
	CHECK_OK(unlink("f"));
}

TEST(append_only)
{
	int fd, appending;

	enter_tmpfs();
	fd = t_file("f", "abc");
	CHECK_OK(close(fd));
	fd = open("f", O_RDWR);
	CHECK_OK(set(fd, FS_APPEND_FL));
	CHECK_ERR(open("f", O_RDWR), EPERM);
	CHECK_ERR(open("f", O_RDWR | O_APPEND | O_TRUNC), EPERM);
	CHECK_OK(close(open("f", O_RDONLY)));
	appending = open("f", O_WRONLY | O_APPEND);
	CHECK(appending >= 0);
	CHECK_EQ(write(appending, "x", 1), 1);
	CHECK_ERR(fcntl(appending, F_SETFL, 0), EPERM);
	CHECK_OK(fcntl(appending, F_SETFL, O_APPEND | O_NONBLOCK));
	CHECK_ERR(ftruncate(fd, 1), EPERM);
	CHECK_ERR(ftruncate(fd, 100), EPERM);
	CHECK_ERR(truncate("f", 1), EPERM);
	CHECK_ERR(chmod("f", 0600), EPERM);
	CHECK_ERR(chown("f", 1, 1), EPERM);
	CHECK_ERR(unlink("f"), EPERM);
	CHECK_ERR(link("f", "f2"), EPERM);
	CHECK_ERR(rename("f", "f3"), EPERM);
	CHECK_OK(utimensat(AT_FDCWD, "f", NULL, 0));
	CHECK_ERR(utimensat(AT_FDCWD, "f", past, 0), EPERM);
	CHECK_OK(access("f", W_OK));
	CHECK_OK(fallocate(fd, 0, 0, 8192));
	CHECK_ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM);
	CHECK_ERR(setxattr("f", "user.a", "b", 1, 0), EPERM);
	CHECK_OK(set(fd, 0));
	CHECK_OK(unlink("f"));
}

TEST(directories)
{
	int dir;

	enter_tmpfs();
	close(t_file("f", "abc"));
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/s", 0755));
	close(t_file("d/x", "abc"));
	dir = open("d", O_RDONLY);
	CHECK_OK(set(dir, FS_IMMUTABLE_FL));
	CHECK_ERR(open("d/y", O_CREAT | O_WRONLY, 0644), EPERM);
	CHECK_OK(close(open("d/x", O_CREAT | O_WRONLY, 0644)));
	CHECK_ERR(unlink("d/x"), EPERM);
	CHECK_ERR(rmdir("d/s"), EPERM);
	CHECK_ERR(mkdir("d/z", 0755), EPERM);
	CHECK_ERR(mknod("d/p", S_IFIFO | 0644, 0), EPERM);
	CHECK_ERR(symlink("f", "d/l"), EPERM);
	CHECK_ERR(link("f", "d/l"), EPERM);
	CHECK_ERR(rename("d/x", "x"), EPERM);
	CHECK_ERR(rename("f", "d/f"), EPERM);
	CHECK_ERR(rename("d", "e"), EPERM);
	CHECK_ERR(rmdir("d"), EPERM);
	CHECK_ERR(open("d", O_TMPFILE | O_RDWR, 0600), EPERM);
	CHECK_OK(set(dir, FS_APPEND_FL));
	CHECK_OK(close(open("d/y", O_CREAT | O_WRONLY, 0644)));
	CHECK_OK(mkdir("d/z", 0755));
	CHECK_OK(link("f", "d/l"));
	CHECK_OK(symlink("f", "d/l2"));
	CHECK_ERR(unlink("d/x"), EPERM);
	CHECK_ERR(rmdir("d/s"), EPERM);
	CHECK_ERR(rename("d/x", "d/w"), EPERM);
	CHECK_ERR(rename("f", "d/x"), EPERM);
	CHECK_OK(rename("f", "d/new"));
	CHECK_OK(close(open("d", O_TMPFILE | O_RDWR, 0600)));
	CHECK_OK(set(dir, 0));
}

TEST(inherited)
{
	struct statx before, after;
	int dir, fd;
	char c;

	enter_tmpfs();
	CHECK_OK(mkdir("d", 0755));
	dir = open("d", O_RDONLY);
	CHECK_OK(set(dir, FS_NODUMP_FL | FS_NOATIME_FL | FS_APPEND_FL));
	fd = open("d/f", O_CREAT | O_RDWR, 0644);
	CHECK_EQ(get(fd), FS_NODUMP_FL | FS_NOATIME_FL);
	CHECK_OK(mkdir("d/d", 0755));
	CHECK_EQ(get(open("d/d", O_RDONLY)), FS_NODUMP_FL | FS_NOATIME_FL);
	/* No access time: although the last one is older than the last change. */
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_OK(futimens(fd, past));
	CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_ATIME, &before));
	CHECK_EQ(pread(fd, &c, 1, 0), 1);
	CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_ATIME, &after));
	CHECK_EQ(after.stx_atime.tv_sec, before.stx_atime.tv_sec);
	CHECK_OK(set(fd, 0));
	CHECK_EQ(pread(fd, &c, 1, 0), 1);
	CHECK_OK(statx(fd, "", AT_EMPTY_PATH, STATX_ATIME, &after));
	CHECK(after.stx_atime.tv_sec > before.stx_atime.tv_sec);
	CHECK_OK(set(dir, 0));
}

/* What can only be appended to has no shared mapping that a writer could write through. */
TEST(append_only_mapping)
{
	const int protections[] = {PROT_READ, PROT_READ | PROT_WRITE};
	int fd, reader;

	enter_tmpfs();
	fd = t_file("f", "abc");
	CHECK_OK(set(fd, FS_APPEND_FL));
	fd = open("f", O_RDWR | O_APPEND);
	reader = open("f", O_RDONLY);
	for (unsigned i = 0; i < 2; i++) {
		CHECK(mmap(NULL, 4096, protections[i], MAP_SHARED, fd, 0) == MAP_FAILED &&
		      errno == EACCES);
		CHECK(mmap(NULL, 4096, protections[i], MAP_PRIVATE, fd, 0) != MAP_FAILED);
	}
	CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, reader, 0) != MAP_FAILED);
	CHECK_OK(set(reader, 0));
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) != MAP_FAILED);
}

TEST(who)
{
	int fd, other;

	enter_tmpfs();
	CHECK_OK(close(t_file("mine", "abc")));
	CHECK_OK(close(t_file("other", "abc")));
	CHECK_OK(chown("mine", 1000, 1000));
	CHECK_OK(chmod("mine", 0666));
	CHECK_OK(chmod("other", 0666));
	CHECK_OK(setresgid(1000, 1000, 1000));
	CHECK_OK(setresuid(1000, 1000, 1000));
	fd = open("mine", O_RDONLY);
	other = open("other", O_RDWR);
	CHECK_OK(set(fd, FS_NODUMP_FL));
	CHECK_ERR(set(fd, FS_NODUMP_FL | FS_APPEND_FL), EPERM);
	CHECK_ERR(set(fd, FS_IMMUTABLE_FL), EPERM);
	CHECK_EQ(get(fd), FS_NODUMP_FL);
	CHECK_ERR(set(fd, FS_SYNC_FL), EOPNOTSUPP);
	CHECK_ERR(set(other, FS_NODUMP_FL), EPERM);
	CHECK_ERR(set(other, FS_SYNC_FL), EPERM);
}
