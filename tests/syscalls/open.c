/* open(2), openat(2), openat2(2), creat(2): flags, errors, descriptors. */
#include "t.h"

#include <linux/openat2.h>
#include <sys/ioctl.h>

TEST(create_and_excl)
{
	int fd = open("f", O_WRONLY | O_CREAT | O_EXCL, 0666);
	struct stat st;

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "abc", 3), 3);
	CHECK_OK(close(fd));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_mode & 07777, 0644);
	CHECK_EQ(st.st_size, 3);
	CHECK_ERR(open("f", O_WRONLY | O_CREAT | O_EXCL, 0666), EEXIST);
	CHECK_OK(symlink("nowhere", "l"));
	CHECK_ERR(open("l", O_WRONLY | O_CREAT | O_EXCL, 0666), EEXIST);
	/* Through a dangling link, O_CREAT makes the target. */
	fd = open("l", O_WRONLY | O_CREAT, 0600);
	CHECK(fd >= 0);
	CHECK_OK(stat("nowhere", &st));
	CHECK_EQ(st.st_mode & 07777, 0600);
	fd = creat("f", 0600);
	CHECK(fd >= 0);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 0);
	CHECK_EQ(st.st_mode & 07777, 0644);
}

TEST(errors)
{
	char name[300];

	close(t_file("f", "x"));
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERR(open("", O_RDONLY), ENOENT);
	CHECK_ERR(open("none", O_RDONLY), ENOENT);
	CHECK_ERR(open("none/f", O_RDONLY | O_CREAT, 0600), ENOENT);
	CHECK_ERR(open("f/x", O_RDONLY), ENOTDIR);
	CHECK_ERR(open("f/", O_RDONLY), ENOTDIR);
	CHECK_ERR(open("f", O_RDONLY | O_DIRECTORY), ENOTDIR);
	CHECK_ERR(open("d", O_WRONLY), EISDIR);
	CHECK_ERR(open("d", O_RDWR), EISDIR);
	CHECK_ERR(open("d", O_RDONLY | O_CREAT, 0600), EISDIR);
	CHECK_ERR(open("new/", O_WRONLY | O_CREAT, 0600), EISDIR);
	CHECK_ERR(open(NULL, O_RDONLY), EFAULT);
	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = '\0';
	CHECK_ERR(open(name, O_RDONLY), ENAMETOOLONG);
	name[255] = '\0';
	CHECK_OK(open(name, O_RDONLY | O_CREAT, 0600));
	CHECK_ERR(openat(-5, "f", O_RDONLY), EBADF);
	CHECK_ERR(openat(0x7fffffff, "f", O_RDONLY), EBADF);
}

TEST(long_path)
{
	char path[PATH_MAX + 10] = "";

	while (strlen(path) < PATH_MAX - 3)
		strcat(path, "./");
	strcat(path, "f");
	close(t_file("f", "x"));
	CHECK(strlen(path) < PATH_MAX);
	CHECK_OK(open(path, O_RDONLY));
	memmove(path + 2, path, strlen(path) + 1);
	CHECK_ERR(open(path, O_RDONLY), ENAMETOOLONG);
}

TEST(nofollow_and_loops)
{
	char name[16], target[16];

	close(t_file("f", "x"));
	CHECK_OK(symlink("f", "l"));
	CHECK_ERR(open("l", O_RDONLY | O_NOFOLLOW), ELOOP);
	CHECK_OK(open("l", O_RDONLY | O_NOFOLLOW | O_PATH));
	CHECK_OK(open("l", O_RDONLY));
	CHECK_OK(symlink("b", "a"));
	CHECK_OK(symlink("a", "b"));
	CHECK_ERR(open("a", O_RDONLY), ELOOP);
	CHECK_ERR(open("a/x", O_RDONLY), ELOOP);
	/* 40 links are followed, not 41. */
	CHECK_OK(symlink("f", "s1"));
	for (int i = 2; i <= 41; i++) {
		snprintf(name, sizeof(name), "s%d", i);
		snprintf(target, sizeof(target), "s%d", i - 1);
		CHECK_OK(symlink(target, name));
	}
	CHECK_OK(open("s40", O_RDONLY));
	CHECK_ERR(open("s41", O_RDONLY), ELOOP);
}

TEST(append)
{
	int fd = t_file("f", "12345"), a;
	char buf[16];

	a = open("f", O_WRONLY | O_APPEND);
	CHECK(a >= 0);
	CHECK_EQ(lseek(a, 1, SEEK_SET), 1);
	CHECK_EQ(write(a, "67", 2), 2);
	CHECK_EQ(lseek(a, 0, SEEK_CUR), 7);
	/* On Linux pwrite(2) appends too. */
	CHECK_EQ(pwrite(a, "8", 1, 0), 1);
	CHECK_EQ(pread(fd, buf, sizeof(buf), 0), 8);
	CHECK(!memcmp(buf, "12345678", 8));
	CHECK_EQ(fcntl(a, F_GETFL) & (O_APPEND | O_ACCMODE), O_APPEND | O_WRONLY);
}

TEST(trunc)
{
	struct stat st;
	int fd;

	close(t_file("f", "12345"));
	fd = open("f", O_RDWR | O_TRUNC);
	CHECK(fd >= 0);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 0);
}

TEST(access_mode)
{
	char c;
	int fd = t_file("f", "x");

	close(fd);
	fd = open("f", O_RDONLY);
	CHECK_ERR(write(fd, "y", 1), EBADF);
	CHECK_ERR(ftruncate(fd, 0), EINVAL);
	fd = open("f", O_WRONLY);
	CHECK_ERR(read(fd, &c, 1), EBADF);
	CHECK_ERR(pread(fd, &c, 1, 0), EBADF);
}

TEST(tmpfile)
{
	char path[64], text[8] = "";
	struct stat st;
	int fd = open(".", O_TMPFILE | O_RDWR, 0600);

	if (fd < 0 && errno == EOPNOTSUPP)
		SKIP("this file system has no O_TMPFILE");
	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "tmp", 3), 3);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 1);
	fd = open("named", O_RDONLY);
	CHECK_EQ(read(fd, text, sizeof(text)), 3);
	CHECK_STR(text, "tmp");
	fd = open(".", O_TMPFILE | O_RDWR | O_EXCL, 0600);
	CHECK(fd >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK_ERR(linkat(AT_FDCWD, path, AT_FDCWD, "named2", AT_SYMLINK_FOLLOW), ENOENT);
	CHECK_ERR(open(".", O_TMPFILE | O_RDONLY, 0600), EINVAL);
	CHECK_ERR(open("named", O_TMPFILE | O_RDWR, 0600), ENOTDIR);
}

TEST(opath)
{
	struct stat st;
	char c;
	int fd;

	close(t_file("f", "x"));
	CHECK_OK(mkdir("d", 0755));
	close(t_file("d/g", "y"));
	fd = open("f", O_PATH);
	CHECK(fd >= 0);
	CHECK_ERR(read(fd, &c, 1), EBADF);
	CHECK_ERR(write(fd, "x", 1), EBADF);
	CHECK_ERR(fchmod(fd, 0600), EBADF);
	CHECK_ERR(ioctl(fd, 0, 0), EBADF);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 1);
	CHECK_EQ(fcntl(fd, F_GETFL) & O_PATH, O_PATH);
	CHECK_OK(dup(fd));
	fd = open("d", O_PATH);
	CHECK_OK(openat(fd, "g", O_RDONLY));
	CHECK_OK(fchdir(fd));
	CHECK_OK(open("g", O_RDONLY));
}

TEST(lowest_descriptor)
{
	int a = open(".", O_RDONLY), b = open(".", O_RDONLY), c = open(".", O_RDONLY);

	CHECK_EQ(b, a + 1);
	CHECK_EQ(c, a + 2);
	close(a);
	close(b);
	CHECK_EQ(dup(c), a);
	CHECK_EQ(open(".", O_RDONLY), b);
}

TEST(emfile)
{
	struct rlimit lim = {16, 16};
	int fd, err, count = 0;

	CHECK_OK(setrlimit(RLIMIT_NOFILE, &lim));
	while ((fd = open(".", O_RDONLY)) >= 0)
		count++;
	err = errno;
	CHECK_EQ(err, EMFILE);
	CHECK(count >= 8 && count <= 13);
	CHECK_ERR(dup(0), EMFILE);
	CHECK_ERR(dup2(0, 16), EBADF);
	CHECK_OK(dup2(0, 15));
	CHECK_ERR(pipe((int[2]){0}), EMFILE);
	CHECK_ERR(fcntl(0, F_DUPFD, 16), EINVAL);
}

TEST(openat_dirfd)
{
	int dir;

	CHECK_OK(mkdir("d", 0755));
	dir = open("d", O_RDONLY | O_DIRECTORY);
	CHECK(dir >= 0);
	CHECK_OK(openat(dir, "f", O_CREAT | O_WRONLY, 0600));
	CHECK_OK(access("d/f", F_OK));
	CHECK_OK(openat(dir, "../d/f", O_RDONLY));
	CHECK_ERR(openat(openat(dir, "f", O_RDONLY), "x", O_RDONLY), ENOTDIR);
	/* An absolute path needs no descriptor. */
	CHECK_OK(openat(-1, "/", O_RDONLY));
	/* The directory may be renamed meanwhile, or be removed. */
	CHECK_OK(rename("d", "e"));
	CHECK_OK(openat(dir, "f", O_RDONLY));
	CHECK_OK(unlinkat(dir, "f", 0));
	CHECK_OK(rmdir("e"));
	CHECK_ERR(openat(dir, "f", O_RDONLY | O_CREAT, 0600), ENOENT);
}

static int openat2_resolve(int dirfd, const char *path, uint64_t flags, uint64_t resolve)
{
	struct open_how how = {.flags = flags, .resolve = resolve};

	return (int)syscall(SYS_openat2, dirfd, path, &how, sizeof(how));
}

TEST(openat2)
{
	struct open_how how = {.flags = O_RDONLY};
	char big[sizeof(how) + 8] = {0};
	int dir;

	CHECK_OK(mkdir("d", 0755));
	close(t_file("d/f", "x"));
	close(t_file("out", "x"));
	CHECK_OK(symlink("f", "d/in"));
	CHECK_OK(symlink("../out", "d/escape"));
	CHECK_OK(symlink("/", "d/abs"));
	dir = open("d", O_RDONLY);
	CHECK_OK(openat2_resolve(dir, "f", O_RDONLY, RESOLVE_BENEATH));
	CHECK_OK(openat2_resolve(dir, "in", O_RDONLY, RESOLVE_BENEATH));
	CHECK_ERR(openat2_resolve(dir, "escape", O_RDONLY, RESOLVE_BENEATH), EXDEV);
	CHECK_ERR(openat2_resolve(dir, "abs", O_RDONLY, RESOLVE_BENEATH), EXDEV);
	CHECK_ERR(openat2_resolve(dir, "/", O_RDONLY, RESOLVE_BENEATH), EXDEV);
	CHECK_ERR(openat2_resolve(dir, "..", O_RDONLY, RESOLVE_BENEATH), EXDEV);
	CHECK_ERR(openat2_resolve(dir, "in", O_RDONLY, RESOLVE_NO_SYMLINKS), ELOOP);
	CHECK_OK(openat2_resolve(dir, "/f", O_RDONLY, RESOLVE_IN_ROOT));
	CHECK_OK(openat2_resolve(dir, "abs/f", O_RDONLY, RESOLVE_IN_ROOT));
	CHECK_OK(openat2_resolve(dir, "../../f", O_RDONLY, RESOLVE_IN_ROOT));
	CHECK_ERR(openat2_resolve(dir, "escape", O_RDONLY, RESOLVE_IN_ROOT), ENOENT);
	CHECK_ERR(openat2_resolve(AT_FDCWD, "/proc/self/exe", O_RDONLY, RESOLVE_NO_MAGICLINKS),
		  ELOOP);
	CHECK_ERR(openat2_resolve(AT_FDCWD, "/proc/self", O_RDONLY, RESOLVE_NO_XDEV), EXDEV);
	CHECK_ERR(openat2_resolve(dir, "f", O_RDONLY, 1ull << 40), EINVAL);
	CHECK_ERR(openat2_resolve(dir, "f", 1ull << 40, 0), EINVAL);
	how.mode = 0600;
	CHECK_ERR(syscall(SYS_openat2, dir, "f", &how, sizeof(how)), EINVAL);
	how.mode = 0;
	CHECK_ERR(syscall(SYS_openat2, dir, "f", &how, 8), EINVAL);
	memcpy(big, &how, sizeof(how));
	CHECK_OK(syscall(SYS_openat2, dir, "f", big, sizeof(big)));
	big[sizeof(big) - 1] = 1;
	CHECK_ERR(syscall(SYS_openat2, dir, "f", big, sizeof(big)), E2BIG);
}

static int open_cached(const char *path, int flags, uint64_t resolve)
{
	struct open_how how = {.flags = (uint64_t)flags, .resolve = RESOLVE_CACHED | resolve};

	return (int)syscall(SYS_openat2, AT_FDCWD, path, &how, sizeof(how));
}

/* EAGAIN, for which a rename or a mount anywhere on the machine is enough, is not taken for the answer. */
static int open_known(const char *path, int flags, int resolve)
{
	int fd;

	for (int i = 0; i < 100; i++) {
		fd = open_cached(path, flags, resolve);
		if (fd >= 0 || errno != EAGAIN)
			break;
		t_sleep_ms(1);
	}
	return fd;
}

/* What is wrong before the last component, too; what is wrong with that itself is told. */
TEST(openat2_cached_on_the_way)
{
	static const char *const links[] = {"link", "slash", "loop"};
	struct timespec times[2] = {{0}, {.tv_nsec = UTIME_OMIT}};
	char big[NAME_MAX + 2], path[sizeof(big) + 2];
	struct stat st;

	close(t_file("f", ""));
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("no", 0700));
	close(t_file("no/g", ""));
	close(t_file("secret", ""));
	CHECK_OK(chmod("secret", 0600));
	CHECK_OK(symlink("f/x", "link"));
	CHECK_OK(symlink("f/", "slash"));
	CHECK_OK(symlink("loop", "loop"));
	memset(big, 'n', sizeof(big) - 1);
	big[sizeof(big) - 1] = '\0';
	snprintf(path, sizeof(path), "d/%s", big);
	/* Following them has no time to note (relatime), for which a walk would have to wait. */
	clock_gettime(CLOCK_REALTIME, &times[0]);
	times[0].tv_sec += 3600;
	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		CHECK_OK(utimensat(AT_FDCWD, links[i], times, AT_SYMLINK_NOFOLLOW));
	/* Known from here on, where something must be. */
	CHECK_OK(stat("no/g", &st));
	CHECK_OK(stat("secret", &st));
	CHECK_OK(stat("d", &st));
	CHECK_ERR(stat("link", &st), ENOTDIR);
	CHECK_ERR(stat("slash", &st), ENOTDIR);
	if (open_known("f", O_RDONLY, 0) < 0)
		SKIP("no RESOLVE_CACHED here");
	CHECK_ERR(open_cached("f/x", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached("f/x", O_PATH, 0), EAGAIN);
	CHECK_ERR(open_cached("f/x/y", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached("f/.", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached("f/..", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached("link", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached(path, O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached("../d", O_RDONLY, RESOLVE_BENEATH), EAGAIN);
	CHECK_ERR(open_cached("/proc/self", O_RDONLY, RESOLVE_NO_XDEV), EAGAIN);
	CHECK_ERR(open_known("f/", O_RDONLY, 0), ENOTDIR);
	CHECK_ERR(open_known("slash", O_RDONLY, 0), ENOTDIR);
	CHECK_ERR(open_known("f", O_RDONLY | O_DIRECTORY, 0), ENOTDIR);
	CHECK_ERR(open_known("d", O_RDWR, 0), EISDIR);
	CHECK_ERR(open_known("loop/x", O_RDONLY, 0), ELOOP);
	CHECK_ERR(open_known("/f", O_RDONLY, RESOLVE_BENEATH), EXDEV);
	if (geteuid())
		return;
	t_become(1000, 1000);
	CHECK_ERR(open_cached("no/g", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_cached("no/none", O_RDONLY, 0), EAGAIN);
	CHECK_ERR(open_known("no", O_RDONLY, 0), EACCES);
	CHECK_ERR(open_known("secret", O_RDONLY, 0), EACCES);
}

/* RESOLVE_CACHED: what would have to be asked for is EAGAIN, and that it is not there is not known. */
TEST(openat2_cached)
{
	struct open_how how = {.flags = O_RDONLY, .resolve = RESOLVE_CACHED};
	char by_fd[64];
	int fd = t_file("f", "");

	if (open_known("f", O_RDONLY, 0) < 0)
		SKIP("no RESOLVE_CACHED here");
	CHECK_ERR(syscall(SYS_openat2, AT_FDCWD, "never", &how, sizeof(how)), EAGAIN);
	CHECK_ERR(syscall(SYS_openat2, AT_FDCWD, "nowhere/f", &how, sizeof(how)), EAGAIN);
	CHECK_ERR(syscall(SYS_openat2, AT_FDCWD, "", &how, sizeof(how)), ENOENT);
	snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
	CHECK_ERR(syscall(SYS_openat2, AT_FDCWD, by_fd, &how, sizeof(how)), EAGAIN);
	CHECK_ERR(syscall(SYS_openat2, AT_FDCWD, "/proc/self/exe", &how, sizeof(how)), EAGAIN);
}

TEST(unlinked_lives_on)
{
	char buf[8] = "";
	struct stat st;
	int fd = t_file("f", "alive");

	CHECK_OK(unlink("f"));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_nlink, 0);
	CHECK_EQ(pread(fd, buf, sizeof(buf), 0), 5);
	CHECK_STR(buf, "alive");
	CHECK_EQ(pwrite(fd, "A", 1, 0), 1);
	CHECK_OK(ftruncate(fd, 100));
	/* A new file of the same name is another one. */
	close(t_file("f", "new"));
	CHECK_EQ(pread(fd, buf, 1, 0), 1);
	CHECK_EQ(buf[0], 'A');
}

TEST(fifo)
{
	CHECK_OK(mkfifo("p", 0600));
	CHECK_ERR(open("p", O_WRONLY | O_NONBLOCK), ENXIO);
	CHECK_OK(open("p", O_RDONLY | O_NONBLOCK));
	CHECK_OK(open("p", O_WRONLY | O_NONBLOCK));
}

TEST(dev_files)
{
	char buf[16] = "xxxxxxx";
	int fd = open("/dev/null", O_RDWR);

	CHECK(fd >= 0);
	CHECK_EQ(write(fd, "abc", 3), 3);
	CHECK_EQ(read(fd, buf, 3), 0);
	fd = open("/dev/zero", O_RDWR);
	CHECK_EQ(read(fd, buf, 4), 4);
	CHECK(!memcmp(buf, "\0\0\0\0xxx", 7));
	CHECK_EQ(write(fd, buf, 4), 4);
	fd = open("/dev/full", O_RDWR);
	CHECK_ERR(write(fd, "a", 1), ENOSPC);
	CHECK_EQ(read(fd, buf, 4), 4);
	fd = open("/dev/urandom", O_RDONLY);
	CHECK_EQ(read(fd, buf, 16), 16);
}
