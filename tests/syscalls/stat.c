/* stat, statx, chmod, chown, utimensat, umask, access, permissions of ordinary users. */
#include "t.h"

#include <linux/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

TEST(fields)
{
	struct stat st, st2;
	struct timespec now;
	int fd = t_file("f", "12345");

	CHECK_OK(stat("f", &st));
	CHECK(S_ISREG(st.st_mode));
	CHECK_EQ(st.st_size, 5);
	CHECK_EQ(st.st_nlink, 1);
	CHECK_EQ(st.st_uid, getuid());
	CHECK_EQ(st.st_gid, getgid());
	CHECK(st.st_blksize >= 512);
	CHECK(st.st_ino != 0);
	clock_gettime(CLOCK_REALTIME, &now);
	CHECK(labs(st.st_mtim.tv_sec - now.tv_sec) <= 2);
	CHECK_OK(fstat(fd, &st2));
	CHECK_EQ(st.st_ino, st2.st_ino);
	CHECK_EQ(st.st_dev, st2.st_dev);
	CHECK_OK(fstatat(fd, "", &st2, AT_EMPTY_PATH));
	CHECK_EQ(st.st_ino, st2.st_ino);
	CHECK_ERR(fstatat(fd, "", &st2, 0), ENOENT);
	CHECK_ERR(stat("none", &st), ENOENT);
	CHECK_ERR(stat("f/x", &st), ENOTDIR);
	CHECK_ERR(stat("f", (void *)8), EFAULT);
	CHECK_ERR(fstat(-1, &st), EBADF);
	CHECK_ERR(syscall(SYS_newfstatat, AT_FDCWD, "f", &st, 0x10000), EINVAL);
}

TEST(statx)
{
	struct statx stx;

	close(t_file("f", "12345"));
	memset(&stx, 0xff, sizeof(stx));
	CHECK_OK(statx(AT_FDCWD, "f", 0, STATX_BASIC_STATS | STATX_BTIME, &stx));
	CHECK_EQ(stx.stx_mask & STATX_BASIC_STATS, STATX_BASIC_STATS);
	CHECK_EQ(stx.stx_size, 5);
	CHECK_EQ(stx.stx_mode, S_IFREG | 0644);
	CHECK_EQ(stx.stx_nlink, 1);
	CHECK_ERR(statx(AT_FDCWD, "f", AT_STATX_FORCE_SYNC | AT_STATX_DONT_SYNC, 0, &stx), EINVAL);
	CHECK_ERR(statx(AT_FDCWD, "f", 0, STATX__RESERVED, &stx), EINVAL);
	CHECK_ERR(statx(AT_FDCWD, "f", 0x40000000, 0, &stx), EINVAL);
	CHECK_OK(statx(open("f", O_RDONLY), "", AT_EMPTY_PATH, STATX_SIZE, &stx));
	CHECK_EQ(stx.stx_size, 5);
}

TEST(chmod)
{
	struct stat st;
	int fd = t_file("f", "");

	CHECK_OK(chmod("f", 04711));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mode & 07777, 04711);
	CHECK_OK(fchmod(fd, 0));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_mode & 07777, 0);
	CHECK_OK(fchmodat(AT_FDCWD, "f", 01600, 0));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mode & 07777, 01600);
	CHECK_OK(symlink("f", "l"));
	CHECK_OK(chmod("l", 0604));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mode & 07777, 0604);
	CHECK_ERR(chmod("none", 0), ENOENT);
}

TEST(chown)
{
	struct stat st;
	int fd = t_file("f", "");

	CHECK_OK(chmod("f", 06755));
	CHECK_OK(chown("f", 1000, 1001));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_EQ(st.st_gid, 1001);
	/* A change of owner drops set-id bits, for root too. */
	CHECK_EQ(st.st_mode & 07777, 0755);
	CHECK_OK(fchown(fd, -1, 5));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_EQ(st.st_gid, 5);
	CHECK_OK(symlink("f", "l"));
	CHECK_OK(lchown("l", 7, 8));
	CHECK_OK(lstat("l", &st));
	CHECK_EQ(st.st_uid, 7);
	CHECK_OK(stat("l", &st));
	CHECK_EQ(st.st_uid, 1000);
	CHECK_OK(fchownat(AT_FDCWD, "l", 9, 9, 0));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_uid, 9);
}

TEST(umask)
{
	struct stat st;

	CHECK_EQ(umask(077), 022);
	CHECK_EQ(umask(01077), 077);
	CHECK_EQ(umask(077), 077);
	close(open("f", O_CREAT | O_RDWR, 0666));
	CHECK_OK(mkdir("d", 0777));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mode & 07777, 0600);
	CHECK_OK(stat("d", &st));
	CHECK_EQ(st.st_mode & 07777, 0700);
	CHECK_OK(mkfifo("p", 0666));
	CHECK_OK(stat("p", &st));
	CHECK_EQ(st.st_mode, S_IFIFO | 0600);
}

TEST(utimens)
{
	struct timespec t[2] = {{1000, 123456789}, {2000, 987654321}};
	struct stat st, before;
	struct timeval tv[2] = {{11, 22}, {33, 44}};
	int fd = t_file("f", "");

	CHECK_OK(utimensat(AT_FDCWD, "f", t, 0));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_atim.tv_sec, 1000);
	CHECK_EQ(st.st_atim.tv_nsec, 123456789);
	CHECK_EQ(st.st_mtim.tv_sec, 2000);
	CHECK_EQ(st.st_mtim.tv_nsec, 987654321);
	before = st;
	t[0].tv_nsec = UTIME_OMIT;
	t[1].tv_nsec = UTIME_NOW;
	CHECK_OK(futimens(fd, t));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_atim.tv_sec, before.st_atim.tv_sec);
	CHECK(st.st_mtim.tv_sec > 1000000000);
	CHECK_OK(utimes("f", tv));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mtim.tv_sec, 33);
	CHECK_EQ(st.st_mtim.tv_nsec, 44000);
	t[0].tv_nsec = 1000000000;
	CHECK_ERR(utimensat(AT_FDCWD, "f", t, 0), EINVAL);
	CHECK_ERR(utimensat(AT_FDCWD, "none", NULL, 0), ENOENT);
	CHECK_OK(utimensat(AT_FDCWD, "f", NULL, 0));
	CHECK_OK(symlink("none", "l"));
	t[0].tv_nsec = 5;
	t[1].tv_nsec = 5;
	CHECK_OK(utimensat(AT_FDCWD, "l", t, AT_SYMLINK_NOFOLLOW));
	CHECK_OK(lstat("l", &st));
	CHECK_EQ(st.st_mtim.tv_nsec, 5);
}

/* Which operation moves which time. */
TEST(times_move)
{
	struct timespec old[2] = {{1000, 0}, {1000, 0}};
	struct stat st;
	int fd;

	CHECK_OK(mkdir("d", 0755));
	fd = t_file("d/f", "");
	CHECK_OK(futimens(fd, old));
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_OK(fstat(fd, &st));
	CHECK(st.st_mtim.tv_sec > 1000);
	CHECK_OK(futimens(fd, old));
	CHECK_OK(ftruncate(fd, 0));
	CHECK_OK(fstat(fd, &st));
	CHECK(st.st_mtim.tv_sec > 1000);
	CHECK_OK(futimens(fd, old));
	CHECK_OK(chmod("d/f", 0600));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_mtim.tv_sec, 1000);
	CHECK(st.st_ctim.tv_sec > 1000);
	CHECK_OK(utimensat(AT_FDCWD, "d", old, 0));
	close(t_file("d/g", ""));
	CHECK_OK(stat("d", &st));
	CHECK(st.st_mtim.tv_sec > 1000);
	CHECK_OK(utimensat(AT_FDCWD, "d", old, 0));
	CHECK_OK(unlink("d/g"));
	CHECK_OK(stat("d", &st));
	CHECK(st.st_mtim.tv_sec > 1000);
	CHECK_OK(utimensat(AT_FDCWD, "d", old, 0));
	CHECK_OK(rename("d/f", "d/h"));
	CHECK_OK(stat("d", &st));
	CHECK(st.st_mtim.tv_sec > 1000);
}

TEST(nodes)
{
	struct stat st;

	CHECK_OK(mknod("f", S_IFREG | 0644, 0));
	CHECK_OK(stat("f", &st));
	CHECK(S_ISREG(st.st_mode));
	CHECK_OK(mknod("f2", 0644, 0));
	CHECK_OK(mknod("p", S_IFIFO | 0644, 0));
	CHECK_OK(mknod("s", S_IFSOCK | 0644, 0));
	CHECK_OK(stat("s", &st));
	CHECK(S_ISSOCK(st.st_mode));
	CHECK_ERR(open("s", O_RDWR), ENXIO);
	CHECK_ERR(mknod("f", S_IFREG | 0644, 0), EEXIST);
	CHECK_ERR(mknod("d", S_IFDIR | 0644, 0), EPERM);
	CHECK_ERR(mknod("d", 0170000, 0), EINVAL);
	CHECK_OK(stat("/dev/null", &st));
	CHECK(S_ISCHR(st.st_mode));
	CHECK_EQ(st.st_rdev, makedev(1, 3));
}

TEST(access_root)
{
	close(t_file("f", ""));
	CHECK_OK(chmod("f", 0));
	CHECK_OK(access("f", F_OK));
	CHECK_OK(access("f", R_OK | W_OK));
	CHECK_ERR(access("f", X_OK), EACCES);
	CHECK_OK(chmod("f", 0100));
	CHECK_OK(access("f", X_OK));
	CHECK_ERR(access("none", F_OK), ENOENT);
	CHECK_ERR(access("f", 8), EINVAL);
	CHECK_OK(faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS));
	CHECK_OK(open("f", O_RDWR));
}

TEST(user_permissions)
{
	close(t_file("root600", "secret"));
	CHECK_OK(chmod("root600", 0600));
	close(t_file("root644", "open"));
	close(t_file("mine", ""));
	CHECK_OK(chown("mine", 1000, 1000));
	CHECK_OK(mkdir("closed", 0700));
	close(t_file("closed/f", ""));
	CHECK_OK(mkdir("nosearch", 0744));
	close(t_file("nosearch/f", ""));
	CHECK_OK(mkdir("shared", 0777));
	CHECK_OK(chmod("shared", 01777));
	close(t_file("shared/roots", ""));
	t_become(1000, 1000);
	CHECK_ERR(open("root600", O_RDONLY), EACCES);
	CHECK_OK(open("root644", O_RDONLY));
	CHECK_ERR(open("root644", O_RDWR), EACCES);
	CHECK_ERR(open("root644", O_RDONLY | O_TRUNC), EACCES);
	CHECK_ERR(open("new", O_CREAT | O_RDWR, 0600), EACCES);
	CHECK_ERR(mkdir("new", 0700), EACCES);
	CHECK_ERR(unlink("root644"), EACCES);
	CHECK_ERR(rename("mine", "other"), EACCES);
	CHECK_ERR(open("closed/f", O_RDONLY), EACCES);
	CHECK_ERR(stat("closed/f", &(struct stat){0}), EACCES);
	CHECK_ERR(stat("closed/none", &(struct stat){0}), EACCES);
	CHECK_ERR(stat("nosearch/f", &(struct stat){0}), EACCES);
	CHECK_OK(open("nosearch", O_RDONLY));
	CHECK_ERR(chdir("nosearch"), EACCES);
	CHECK_ERR(chmod("root644", 0777), EPERM);
	CHECK_ERR(chown("mine", 0, 0), EPERM);
	CHECK_ERR(chown("root644", 1000, -1), EPERM);
	CHECK_OK(chmod("mine", 0400));
	CHECK_ERR(open("mine", O_WRONLY), EACCES);
	CHECK_ERR(access("root600", R_OK), EACCES);
	CHECK_ERR(utimensat(AT_FDCWD, "root644", NULL, 0), EACCES);
	CHECK_ERR(utimensat(AT_FDCWD, "root644", (struct timespec[2]){{1, 1}, {1, 1}}, 0), EPERM);
	/* Sticky: others' files stay. */
	CHECK_ERR(unlink("shared/roots"), EPERM);
	CHECK_ERR(rename("shared/roots", "shared/x"), EPERM);
	CHECK_OK(open("shared/mine", O_CREAT | O_RDWR, 0600));
	CHECK_OK(unlink("shared/mine"));
	CHECK_ERR(mknod("shared/dev", S_IFCHR | 0666, makedev(1, 3)), EPERM);
	CHECK_OK(mkfifo("shared/fifo", 0600));
	CHECK_ERR(chroot("shared"), EPERM);
}

TEST(group_permissions)
{
	gid_t groups[2] = {2000, 3000};

	close(t_file("g", ""));
	CHECK_OK(chown("g", 5, 3000));
	CHECK_OK(chmod("g", 0060));
	close(t_file("h", ""));
	CHECK_OK(chown("h", 1000, 3000));
	CHECK_OK(chmod("h", 0077));
	CHECK_OK(syscall(SYS_setgroups, 2, groups));
	CHECK_OK(setresgid(1000, 1000, 1000));
	CHECK_OK(setresuid(1000, 1000, 1000));
	CHECK_OK(open("g", O_RDWR));
	/* The owner's bits decide, even when the group's would allow. */
	CHECK_ERR(open("h", O_RDONLY), EACCES);
	CHECK_OK(chown("h", -1, 2000));
	CHECK_ERR(chown("h", -1, 4000), EPERM);
}

TEST(setgid_directory)
{
	struct stat st;

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(chown("d", 0, 3000));
	CHECK_OK(chmod("d", 02777));
	close(t_file("d/f", ""));
	CHECK_OK(stat("d/f", &st));
	CHECK_EQ(st.st_gid, 3000);
	CHECK_OK(mkdir("d/e", 0755));
	CHECK_OK(stat("d/e", &st));
	CHECK_EQ(st.st_gid, 3000);
	CHECK_EQ(st.st_mode & 07777, 02755);
}

/* Writing by an ordinary user drops the set-id bits. */
TEST(setid_dropped_by_write)
{
	struct stat st;
	int fd = t_file("f", "");

	CHECK_OK(chown("f", 1000, 1000));
	CHECK_OK(chmod("f", 06777));
	t_become(1000, 1000);
	CHECK_EQ(write(fd, "x", 1), 1);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_mode & 07777, 0777);
}

TEST(statfs)
{
	struct statfs sf;
	struct statvfs sv;

	CHECK_OK(statfs(".", &sf));
	CHECK(sf.f_bsize > 0);
	CHECK(sf.f_namelen >= 255);
	CHECK_OK(statvfs("/proc", &sv));
	CHECK_OK(statfs("/proc", &sf));
	CHECK_EQ(sf.f_type, 0x9fa0);
	CHECK_ERR(statfs("none", &sf), ENOENT);
	CHECK_ERR(fstatfs(-1, &sf), EBADF);
	CHECK_OK(fstatfs(open(".", O_RDONLY), &sf));
}

TEST(inode_numbers)
{
	struct stat a, b;
	struct dirent *e;
	DIR *dir;

	close(t_file("a", ""));
	close(t_file("b", ""));
	CHECK_OK(stat("a", &a));
	CHECK_OK(stat("b", &b));
	CHECK(a.st_ino != b.st_ino);
	CHECK_EQ(a.st_dev, b.st_dev);
	dir = opendir(".");
	while ((e = readdir(dir)))
		if (!strcmp(e->d_name, "a"))
			CHECK_EQ(e->d_ino, a.st_ino);
	CHECK_OK(stat("/proc/self/stat", &b));
	CHECK(a.st_dev != b.st_dev);
}
