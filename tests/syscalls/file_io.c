/* read, write and their kin; lseek, truncate, fallocate, sparse files, copies inside the kernel. */
#include "t.h"

#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>

TEST(read_write)
{
	char buf[16] = "";
	int fd = t_file("f", "hello");

	CHECK_EQ(read(fd, buf, 2), 2);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 2);
	CHECK_EQ(read(fd, buf, 100), 3);
	CHECK_EQ(read(fd, buf, 100), 0);
	CHECK_EQ(read(fd, buf, 0), 0);
	CHECK_EQ(write(fd, "!", 1), 1);
	CHECK_EQ(write(fd, "", 0), 0);
	CHECK_EQ(pread(fd, buf, 16, 3), 3);
	CHECK(!memcmp(buf, "lo!", 3));
	CHECK_EQ(pwrite(fd, "H", 1, 0), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 6);
	CHECK_ERR(pread(fd, buf, 1, -1), EINVAL);
	CHECK_ERR(pwrite(fd, buf, 1, -1), EINVAL);
}

TEST(errors)
{
	int fd = t_file("f", "hello"), p[2];
	char c;

	CHECK_ERR(read(-1, &c, 1), EBADF);
	CHECK_ERR(write(999, &c, 1), EBADF);
	CHECK_ERR(read(fd, (void *)8, 5), EFAULT);
	CHECK_ERR(write(fd, (void *)8, 5), EFAULT);
	CHECK_ERR(read(open(".", O_RDONLY), &c, 1), EISDIR);
	CHECK_OK(pipe(p));
	CHECK_ERR(pread(p[0], &c, 1, 0), ESPIPE);
	CHECK_ERR(pwrite(p[1], &c, 1, 0), ESPIPE);
	CHECK_ERR(lseek(p[0], 0, SEEK_CUR), ESPIPE);
	CHECK_ERR(ftruncate(p[1], 0), EINVAL);
	CHECK_ERR(close(999), EBADF);
}

/* Half of the buffer is mapped: what was reached counts. */
TEST(partial_fault)
{
	char *map = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = t_file("f", ""), p[2];

	CHECK(map != MAP_FAILED);
	CHECK_OK(munmap(map + 4096, 4096));
	memset(map, 'x', 4096);
	CHECK_EQ(write(fd, map + 4000, 200), 96);
	CHECK_EQ(pread(fd, map + 4095, 200, 0), 1);
	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], map, 4096), 4096);
	/* A pipe gives all of a page or nothing. */
	CHECK_ERR(read(p[0], map + 4090, 4096), EFAULT);
}

TEST(vectors)
{
	char a[4] = "", b[4] = "", c[4] = "";
	struct iovec out[3] = {{"abc", 3}, {NULL, 0}, {"defg", 4}};
	struct iovec in[3] = {{a, 2}, {b, 3}, {c, 4}};
	int fd = t_file("f", "");

	CHECK_EQ(writev(fd, out, 3), 7);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(readv(fd, in, 3), 7);
	CHECK(!memcmp(a, "ab", 2) && !memcmp(b, "cde", 3) && !memcmp(c, "fg", 2));
	CHECK_EQ(preadv(fd, in, 1, 5), 2);
	CHECK(!memcmp(a, "fg", 2));
	CHECK_EQ(pwritev(fd, out, 1, 4), 3);
	CHECK_EQ(preadv2(fd, in, 1, 0, 0), 2);
	CHECK_EQ(preadv2(fd, in, 1, -1, 0), 0);
	CHECK_EQ(pwritev2(fd, out, 1, 0, RWF_APPEND), 3);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 10);
	CHECK_ERR(readv(fd, in, -1), EINVAL);
	CHECK_ERR(readv(fd, in, 1025), EINVAL);
	CHECK_EQ(readv(fd, in, 0), 0);
	in[0].iov_len = (size_t)-1;
	CHECK_ERR(readv(fd, in, 1), EINVAL);
	CHECK_ERR(readv(fd, (void *)8, 1), EFAULT);
	in[0].iov_len = 2;
	CHECK_ERR(preadv2(fd, in, 1, 0, 0x40000000), EOPNOTSUPP);
	/* What has nothing to synchronize is written all the same. */
	CHECK_EQ(pwritev2(open("/dev/null", O_WRONLY), in, 1, 0, RWF_DSYNC), 2);
}

TEST(seek)
{
	int fd = t_file("f", "0123456789"), dup_fd;

	CHECK_EQ(lseek(fd, -3, SEEK_END), 7);
	CHECK_EQ(lseek(fd, -2, SEEK_CUR), 5);
	CHECK_ERR(lseek(fd, -6, SEEK_CUR), EINVAL);
	CHECK_ERR(lseek(fd, -1, SEEK_SET), EINVAL);
	CHECK_ERR(lseek(fd, 0, 99), EINVAL);
	CHECK_EQ(lseek(fd, 100, SEEK_SET), 100);
	CHECK_EQ(read(fd, &(char){0}, 1), 0);
	/* The position belongs to the open file, not to the descriptor. */
	dup_fd = dup(fd);
	CHECK_EQ(lseek(dup_fd, 4, SEEK_SET), 4);
	CHECK_EQ(lseek(fd, 0, SEEK_CUR), 4);
	CHECK_EQ(lseek(open("f", O_RDONLY), 0, SEEK_CUR), 0);
}

TEST(holes)
{
	struct stat st;
	char buf[64];
	int fd = t_file("f", "");

	CHECK_EQ(pwrite(fd, "end", 3, 1 << 20), 3);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, (1 << 20) + 3);
	CHECK(st.st_blocks * 512 < 512 * 1024);
	CHECK_EQ(pread(fd, buf, sizeof(buf), 4096), (ssize_t)sizeof(buf));
	for (size_t i = 0; i < sizeof(buf); i++)
		CHECK_EQ(buf[i], 0);
	CHECK_EQ(lseek(fd, 0, SEEK_DATA), 1 << 20);
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 0);
	CHECK_EQ(lseek(fd, 1 << 20, SEEK_HOLE), (1 << 20) + 3);
	CHECK_ERR(lseek(fd, (1 << 20) + 3, SEEK_DATA), ENXIO);
	CHECK_ERR(lseek(fd, 2 << 20, SEEK_HOLE), ENXIO);
}

TEST(truncate)
{
	struct stat st;
	char buf[8] = "xxxxxxx";
	int fd = t_file("f", "0123456789");

	CHECK_OK(truncate("f", 3));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 3);
	CHECK_OK(ftruncate(fd, 6));
	CHECK_EQ(pread(fd, buf, 8, 0), 6);
	CHECK(!memcmp(buf, "012\0\0\0", 6));
	CHECK_ERR(truncate("f", -1), EINVAL);
	CHECK_ERR(truncate(".", 0), EISDIR);
	CHECK_ERR(truncate("none", 0), ENOENT);
	CHECK_ERR(ftruncate(open("f", O_RDONLY), 0), EINVAL);
	/* Shrinking and growing again shows zeros. */
	CHECK_EQ(pwrite(fd, "abcdef", 6, 4090), 6);
	CHECK_OK(ftruncate(fd, 4092));
	CHECK_OK(ftruncate(fd, 5000));
	CHECK_EQ(pread(fd, buf, 4, 4090), 4);
	CHECK(!memcmp(buf, "ab\0\0", 4));
}

TEST(fallocate)
{
	struct stat st;
	char buf[4];
	int fd = t_file("f", "");

	if (fallocate(fd, 0, 0, 65536) < 0 && errno == EOPNOTSUPP)
		SKIP("this file system has no fallocate");
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 65536);
	CHECK(st.st_blocks * 512 >= 65536);
	CHECK_OK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 65536, 65536));
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 65536);
	CHECK_EQ(pwrite(fd, "abcd", 4, 4096), 4);
	CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4096, 4096));
	CHECK_EQ(pread(fd, buf, 4, 4096), 4);
	CHECK(!memcmp(buf, "\0\0\0\0", 4));
	CHECK_ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 4096), EOPNOTSUPP);
	CHECK_ERR(fallocate(fd, 0, 0, 0), EINVAL);
	CHECK_ERR(fallocate(fd, 0, -1, 1), EINVAL);
	CHECK_ERR(fallocate(open("f", O_RDONLY), 0, 0, 1), EBADF);
	fd = open("f", O_WRONLY | O_APPEND);
	CHECK_OK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096));
}

#ifndef RWF_NOAPPEND
#define RWF_NOAPPEND 0x20
#endif

/* What a call says about appending goes before what the description says. */
TEST(append_by_call)
{
	char four[5] = "";
	struct iovec ab = {"ab", 2};
	int fd;

	close(t_file("f", "0123"));
	fd = open("f", O_RDWR | O_APPEND);
	CHECK_ERR(pwritev2(fd, &ab, 1, 1, RWF_APPEND | RWF_NOAPPEND), EINVAL);
	if (pwritev2(fd, &ab, 1, 1, RWF_NOAPPEND) < 0 && errno == EOPNOTSUPP)
		SKIP("this kernel has no RWF_NOAPPEND");
	CHECK_EQ(pread(fd, four, 4, 0), 4);
	CHECK_STR(four, "0ab3");
	CHECK_EQ(pwrite(fd, "cd", 2, 0), 2);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 6);
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 2) == 0) {
		CHECK_EQ(pread(fd, four, 4, 0), 4);
		CHECK(!memcmp(four, "\0\0b3", 4));
	}
	fd = open("/dev/null", O_WRONLY);
	CHECK_EQ(pwritev2(fd, &ab, 1, 0, RWF_DSYNC), 2);
}

TEST(file_size_limit)
{
	struct rlimit lim = {1000, 1000};
	char buf[2000] = "";
	int fd = t_file("f", "");

	CHECK(signal(SIGXFSZ, SIG_IGN) != SIG_ERR);
	CHECK_OK(setrlimit(RLIMIT_FSIZE, &lim));
	CHECK_EQ(write(fd, buf, 2000), 1000);
	CHECK_ERR(write(fd, buf, 1), EFBIG);
	CHECK_ERR(ftruncate(fd, 1001), EFBIG);
	CHECK_OK(ftruncate(fd, 500));
	CHECK_EQ(pwrite(fd, buf, 10, 900), 10);
}

static void write_too_far(void *arg)
{
	struct rlimit lim = {10, 10};
	int fd = t_file("g", "0123456789");

	(void)arg;
	setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
	CHECK_OK(setrlimit(RLIMIT_FSIZE, &lim));
	pwrite(fd, "x", 1, 10);
}

TEST(file_size_signal)
{
	int status = t_wait_status(t_spawn(write_too_far, NULL));

	CHECK(WIFSIGNALED(status));
	CHECK_EQ(WTERMSIG(status), SIGXFSZ);
}

TEST(large_offsets)
{
	int fd = t_file("f", "");
	char c = 0;

	CHECK_EQ(pwrite(fd, "x", 1, 5ll << 30), 1);
	CHECK_EQ(lseek(fd, 0, SEEK_END), (5ll << 30) + 1);
	CHECK_EQ(pread(fd, &c, 1, 5ll << 30), 1);
	CHECK_EQ(c, 'x');
	CHECK_ERR(lseek(fd, INT64_MAX, SEEK_CUR), EINVAL);
	/* Nothing reaches behind the largest one. */
	CHECK_ERR(pread(fd, &c, 1, INT64_MAX), EINVAL);
	CHECK_ERR(pwrite(fd, "x", 1, INT64_MAX), EINVAL);
	CHECK_EQ(pread(fd, &c, 0, INT64_MAX), 0);
	CHECK_EQ(pread(fd, &c, 1, INT64_MAX - 1), 0);
}

/* The same of the file's own offset, of what an append finds, and of what the kernel copies. */
TEST(largest_offset)
{
	int fd = open("file", O_RDWR | O_CREAT | O_TRUNC, 0644), mem = memfd_create("f", 0), p[2];
	struct iovec v = {"xy", 2};
	loff_t at = INT64_MAX - 1;
	char c[2];

	CHECK_OK(pipe2(p, O_NONBLOCK));
	CHECK_EQ(lseek(mem, INT64_MAX, SEEK_SET), INT64_MAX);
	CHECK_ERR(read(mem, c, 1), EINVAL);
	CHECK_ERR(write(mem, "x", 1), EINVAL);
	CHECK_ERR(pwritev2(mem, &v, 1, -1, RWF_APPEND), EINVAL);
	CHECK_EQ(write(mem, "x", 0), 0);
	CHECK_ERR(sendfile(p[1], mem, NULL, 1), EINVAL);
	CHECK_ERR(splice(mem, NULL, p[1], NULL, 1, 0), EINVAL);
	CHECK_EQ(lseek(mem, INT64_MAX - 1, SEEK_SET), INT64_MAX - 1);
	CHECK_ERR(write(mem, "xy", 2), EINVAL);
	CHECK_EQ(lseek(mem, 0, SEEK_END), 0);
	CHECK_ERR(sendfile(p[1], mem, &at, 2), EINVAL);
	CHECK_ERR(splice(mem, &at, p[1], NULL, 2, 0), EINVAL);
	CHECK_ERR(sendfile(p[1], mem, NULL, SIZE_MAX), EINVAL);
	CHECK_EQ(write(p[1], "ab", 2), 2);
	CHECK_ERR(splice(p[0], NULL, mem, &at, 2, 0), EINVAL);
	CHECK_OK(ftruncate(mem, INT64_MAX - 1));
	CHECK_EQ(pwritev2(mem, &v, 1, 0, RWF_APPEND), 1);
	CHECK_EQ(lseek(mem, 0, SEEK_END), INT64_MAX);
	CHECK_ERR(pwritev2(mem, &v, 1, 0, RWF_APPEND), EFBIG);
	v.iov_len = 0;
	CHECK_EQ(pwritev2(mem, &v, 1, 0, RWF_APPEND), 0);
	CHECK_OK(fd);
	CHECK_EQ(lseek(fd, INT64_MAX >> 20, SEEK_SET), INT64_MAX >> 20);
	CHECK_EQ(read(fd, c, 1), 0);
}

TEST(no_extents)
{
	struct fiemap map = {.fm_length = UINT64_MAX};
	int fd = memfd_create("f", 0), p[2];

	CHECK_OK(fd);
	CHECK_OK(pipe(p));
	CHECK_ERR(ioctl(fd, FS_IOC_FIEMAP, &map), EOPNOTSUPP);
	CHECK_ERR(ioctl(p[0], FS_IOC_FIEMAP, &map), EOPNOTSUPP);
}

TEST(big_transfer)
{
	size_t size = 3 << 20;
	unsigned char *buf = malloc(size), *back = malloc(size);
	int fd = t_file("f", "");

	for (size_t i = 0; i < size; i++)
		buf[i] = (unsigned char)(i * 7 + i / 4096);
	CHECK_EQ(write(fd, buf, size), size);
	CHECK_EQ(pread(fd, back, size, 0), size);
	CHECK(!memcmp(buf, back, size));
	CHECK_EQ(pread(fd, back, 100000, 12345), 100000);
	CHECK(!memcmp(buf + 12345, back, 100000));
}

TEST(sendfile)
{
	off_t at = 2;
	char buf[16] = "";
	int in = t_file("in", "0123456789"), out = t_file("out", ""), p[2];

	CHECK_EQ(sendfile(out, in, &at, 5), 5);
	CHECK_EQ(at, 7);
	CHECK_EQ(lseek(in, 0, SEEK_CUR), 0);
	CHECK_EQ(sendfile(out, in, NULL, 100), 10);
	CHECK_EQ(sendfile(out, in, NULL, 100), 0);
	CHECK_EQ(pread(out, buf, 16, 0), 15);
	CHECK(!memcmp(buf, "234560123456789", 15));
	CHECK_OK(pipe(p));
	at = 0;
	CHECK_EQ(sendfile(p[1], in, &at, 4), 4);
	CHECK_EQ(read(p[0], buf, 16), 4);
	CHECK_ERR(sendfile(out, p[0], NULL, 4), EINVAL);
}

/* What is read and written, but not spliced. */
TEST(sendfile_to_odd_files)
{
	int in = t_file("in", "01234567"), full = open("/dev/full", O_RDWR), p[2];
	int event = eventfd(0, EFD_NONBLOCK), comm = open("/proc/self/comm", O_RDWR);
	int null = open("/dev/null", O_RDWR);

	CHECK_ERR(sendfile(full, in, NULL, 8), EINVAL);
	CHECK_ERR(sendfile(event, in, NULL, 8), EINVAL);
	CHECK_ERR(sendfile(comm, in, NULL, 8), EINVAL);
	CHECK_EQ(sendfile(null, full, NULL, 8), 8);
	CHECK_EQ(sendfile(null, in, NULL, 8), 8);
	CHECK_OK(pipe(p));
	CHECK_EQ(write(p[1], "01234567", 8), 8);
	CHECK_ERR(splice(p[0], NULL, full, NULL, 8, 0), EINVAL);
	CHECK_ERR(splice(p[0], NULL, comm, NULL, 8, 0), EINVAL);
	CHECK_EQ(splice(p[0], NULL, null, NULL, 8, 0), 8);
}

TEST(copy_file_range)
{
	off_t from = 1, to = 3;
	char buf[16] = "";
	int in = t_file("in", "0123456789"), out = t_file("out", "");

	CHECK_EQ(copy_file_range(in, &from, out, &to, 4, 0), 4);
	CHECK_EQ(from, 5);
	CHECK_EQ(to, 7);
	CHECK_EQ(pread(out, buf, 16, 0), 7);
	CHECK(!memcmp(buf,
		      "\0\0\0"
		      "1234",
		      7));
	CHECK_EQ(copy_file_range(in, NULL, out, NULL, 100, 0), 10);
	CHECK_EQ(copy_file_range(in, NULL, out, NULL, 100, 0), 0);
	CHECK_ERR(copy_file_range(in, NULL, out, NULL, 1, 1), EINVAL);
	from = 0;
	to = 2;
	CHECK_ERR(copy_file_range(in, &from, in, &to, 4, 0), EINVAL);
}

/* Which of what is wrong is said: before the data is looked at, and after. */
TEST(copy_file_range_errors)
{
	int in = t_file("in", "0123456789"), out = t_file("out", ""), dir = open(".", O_RDONLY);
	int proc = open("/proc/self/status", O_RDONLY), app = open("out", O_WRONLY | O_APPEND);
	loff_t from = -5, to = 0;

	CHECK_ERR(copy_file_range(in, &from, out, NULL, 10, 0), EOVERFLOW);
	CHECK_ERR(copy_file_range(in, &from, out, NULL, 3, 0), EINVAL);
	from = 0x7ffffffffffffff0;
	CHECK_EQ(copy_file_range(in, &from, out, &to, 100, 0), 0);
	from = 1;
	CHECK_ERR(copy_file_range(in, &from, out, &to, SIZE_MAX, 0), EOVERFLOW);
	to = -3;
	CHECK_ERR(copy_file_range(in, &from, out, &to, 2, 0), EINVAL);
	to = INT64_MAX;
	CHECK_ERR(copy_file_range(in, &from, out, &to, 1, 0), EFBIG);
	to = 0;
	CHECK_EQ(copy_file_range(in, &from, out, &to, SSIZE_MAX, 0), 9);
	CHECK_EQ(to, 9);
	CHECK_ERR(copy_file_range(proc, NULL, out, NULL, 10, 0), EXDEV);
	CHECK_ERR(copy_file_range(dir, NULL, out, NULL, 10, 0), EISDIR);
	CHECK_ERR(copy_file_range(in, NULL, app, NULL, 10, 0), EBADF);
	/* Behind the end of a file nothing overlaps. */
	from = 10;
	to = 10;
	CHECK_EQ(copy_file_range(in, &from, in, &to, 5, 0), 0);
}

#ifndef RWF_NOSIGNAL
#define RWF_NOSIGNAL 0x100
#endif

TEST(no_signal_by_call)
{
	struct iovec v = {"abcd", 4};
	int p[2], s[2], file = t_file("f", "text");
	pid_t pid;

	CHECK_OK(pipe(p));
	if (pwritev2(p[1], &v, 1, -1, RWF_NOSIGNAL) < 0 && errno == EOPNOTSUPP)
		SKIP("this kernel has no RWF_NOSIGNAL");
	close(p[0]);
	CHECK_ERR(pwritev2(p[1], &v, 1, -1, RWF_NOSIGNAL), EPIPE);
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, s));
	close(s[0]);
	CHECK_ERR(pwritev2(s[1], &v, 1, -1, RWF_NOSIGNAL), EPIPE);
	CHECK_EQ(pwritev2(file, &v, 1, 0, RWF_NOSIGNAL), 4);
	v.iov_base = (char[4]){0};
	CHECK_EQ(preadv2(file, &v, 1, 0, RWF_NOSIGNAL), 4);
	CHECK_ERR(preadv2(file, &v, 1, 0, 0x80000), EOPNOTSUPP);
	signal(SIGPIPE, SIG_DFL);
	pid = fork();
	if (pid == 0) {
		pwritev2(p[1], &v, 1, -1, 0);
		_exit(0);
	}
	CHECK_EQ(t_wait_status(pid) & 0x7f, SIGPIPE);
}

TEST(flags_of_odd_files)
{
	struct iovec v = {(char[4]){0}, 4};
	int dir = open(".", O_RDONLY), proc = open("/proc/self/status", O_RDONLY);

	CHECK_ERR(preadv2(dir, &v, 1, 0, 0), EISDIR);
	CHECK_ERR(preadv2(dir, &v, 1, 0, RWF_HIPRI), EISDIR);
	CHECK_ERR(preadv2(dir, &v, 1, 0, RWF_NOWAIT), EOPNOTSUPP);
	CHECK_ERR(preadv2(proc, &v, 1, 0, RWF_NOWAIT), EOPNOTSUPP);
	CHECK_EQ(preadv2(proc, &v, 1, 0, RWF_HIPRI), 4);
}

/* Files that know no flags, and files that are not read or written at all. */
TEST(flags_of_files_without_iterators)
{
	static const int flags[] = {RWF_DSYNC, RWF_SYNC, RWF_APPEND};
	struct iovec v = {(uint64_t[1]){1}, 8};
	int event = eventfd(0, EFD_NONBLOCK), notify = inotify_init1(IN_NONBLOCK);
	int comm = open("/proc/self/comm", O_RDWR), full = open("/dev/full", O_RDWR);
	int poll = epoll_create1(0);

	for (int i = 0; i < 3; i++) {
		CHECK_ERR(preadv2(comm, &v, 1, 0, flags[i]), EOPNOTSUPP);
		CHECK_ERR(pwritev2(comm, &v, 1, -1, flags[i]), EOPNOTSUPP);
		CHECK_ERR(pwritev2(full, &v, 1, 0, flags[i]), EOPNOTSUPP);
		CHECK_ERR(pwritev2(event, &v, 1, -1, flags[i]), EOPNOTSUPP);
		CHECK_ERR(preadv2(event, &v, 1, -1, flags[i]), EAGAIN);
		CHECK_ERR(preadv2(notify, &v, 1, -1, flags[i]), EOPNOTSUPP);
		CHECK_ERR(preadv2(poll, &v, 1, -1, flags[i]), EINVAL);
	}
	CHECK_ERR(preadv2(notify, &v, 1, -1, RWF_HIPRI), EAGAIN);
	CHECK_ERR(pwritev2(full, &v, 1, 0, RWF_HIPRI), ENOSPC);
	CHECK_ERR(preadv2(poll, &v, 1, -1, 0x80000), EINVAL);
	CHECK_ERR(preadv2(event, &v, 1, -1, 0x80000), EOPNOTSUPP);
	CHECK_EQ(pwritev2(event, &v, 1, -1, RWF_HIPRI), 8);
	CHECK_EQ(preadv2(event, &v, 1, -1, RWF_HIPRI), 8);
}

TEST(sync)
{
	int fd = t_file("f", "x"), p[2];

	CHECK_OK(fsync(fd));
	CHECK_OK(fdatasync(fd));
	CHECK_OK(syncfs(fd));
	sync();
	CHECK_OK(pipe(p));
	CHECK_ERR(fsync(p[0]), EINVAL);
	CHECK_ERR(fsync(-1), EBADF);
	CHECK_OK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL));
	CHECK_OK(readahead(fd, 0, 4096));
}

/* Two processes that append lose nothing; two that share a description do not overlap. */
static void append_many(void *arg)
{
	int fd = arg ? *(int *)arg : open("f", O_WRONLY | O_APPEND);

	for (int i = 0; i < 500; i++)
		CHECK_EQ(write(fd, "0123456789", 10), 10);
}

TEST(concurrent_writers)
{
	struct stat st;
	pid_t a, b;
	int fd;

	close(t_file("f", ""));
	a = t_spawn(append_many, NULL);
	b = t_spawn(append_many, NULL);
	t_wait_ok(a);
	t_wait_ok(b);
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_size, 10000);
	fd = open("f", O_WRONLY | O_TRUNC);
	a = t_spawn(append_many, &fd);
	b = t_spawn(append_many, &fd);
	t_wait_ok(a);
	t_wait_ok(b);
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_size, 10000);
}
