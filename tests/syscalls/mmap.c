/* Memory maps: anonymous and of files, shared and private, remap, protect, advise, brk. */
#include "t.h"

#include <linux/mman.h>
#include <sys/syscall.h>

#define PAGE 4096ul

static char *anon(size_t size, int prot, int flags)
{
	char *p = mmap(NULL, size, prot, flags | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

/* Does reading this byte fault? Asked of the kernel, without a signal. */
static bool readable(const void *p)
{
	int fds[2];
	bool ok;

	CHECK_OK(pipe(fds));
	ok = write(fds[1], p, 1) == 1;
	close(fds[0]);
	close(fds[1]);
	return ok;
}

TEST(anonymous)
{
	char *p = anon(16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	for (size_t i = 0; i < 16 * PAGE; i += 512)
		CHECK_EQ(p[i], 0);
	memset(p, 0x5a, 16 * PAGE);
	CHECK_OK(munmap(p + 4 * PAGE, PAGE));
	CHECK(!readable(p + 4 * PAGE));
	CHECK(readable(p + 3 * PAGE) && readable(p + 5 * PAGE));
	CHECK_EQ(p[5 * PAGE], 0x5a);
	CHECK_OK(munmap(p, 16 * PAGE));
	CHECK_OK(munmap(p, 16 * PAGE));
	CHECK(!readable(p));
}

TEST(errors)
{
	int fd = t_file("f", "x"), ro = open("f", O_RDONLY), wo = open("f", O_WRONLY);

	CHECK_ERR((long)mmap(NULL, 0, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), EINVAL);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_READ, MAP_ANONYMOUS, -1, 0), EINVAL);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, -1, 0), EBADF);
	CHECK_ERR(syscall(SYS_mmap, NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 100), EINVAL);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0), EACCES);
	CHECK((long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, ro, 0) != -1);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_WRITE, MAP_SHARED, wo, 0), EACCES);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, open(".", O_RDONLY), 0), ENODEV);
	CHECK_ERR((long)mmap(NULL, 1ul << 60, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		  ENOMEM);
	CHECK_ERR((long)mmap((void *)123, PAGE, PROT_READ, MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS,
			     -1, 0),
		  EINVAL);
	CHECK_ERR(munmap((void *)123, PAGE), EINVAL);
	CHECK_ERR(munmap((void *)PAGE, 0), EINVAL);
	CHECK_ERR((long)mmap((void *)-PAGE, PAGE, PROT_READ,
			     MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0),
		  ENOMEM);
}

TEST(fixed)
{
	char *p = anon(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *q;

	memset(p, 1, 8 * PAGE);
	q = mmap(p + PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK(q == p + PAGE);
	CHECK_EQ(q[0], 0);
	CHECK_EQ(p[0], 1);
	CHECK_EQ(p[2 * PAGE], 1);
	CHECK_ERR((long)mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0),
		  EEXIST);
	CHECK_OK(munmap(p, 8 * PAGE));
	q = mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	CHECK(q == p);
	/* A hint is taken when it is free. */
	q = mmap(p + 4 * PAGE, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(q == p + 4 * PAGE);
	q = mmap(p, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(q != p && q != MAP_FAILED);
}

TEST(low_32_bit)
{
	char *p = anon(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_32BIT);

	CHECK((uintptr_t)p < 1ul << 32);
	p[0] = 1;
	/* A hint is taken when it is free and ends below 2 GiB (sbcl asks so), else it is put elsewhere below. */
	p = mmap((void *)0x50000000, 4 * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	CHECK(p == (char *)0x50000000);
	p[0] = 1;
	p = mmap((void *)0x50000000, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1,
		 0);
	CHECK(p != (char *)0x50000000 && (uintptr_t)p < 1ul << 31);
	p = mmap((void *)(0x80000000 - PAGE), 2 * PAGE, PROT_READ,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	CHECK((uintptr_t)p < 0x80000000 - 2 * PAGE);
}

TEST(private_file)
{
	char buf[8];
	int fd = t_file("f", "original");
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);

	CHECK(p != MAP_FAILED);
	close(fd);
	CHECK(!memcmp(p, "original", 8));
	for (size_t i = 8; i < PAGE; i++)
		CHECK_EQ(p[i], 0);
	memcpy(p, "modified", 8);
	fd = open("f", O_RDONLY);
	CHECK_EQ(read(fd, buf, 8), 8);
	CHECK(!memcmp(buf, "original", 8));
}

TEST(shared_file)
{
	char buf[8];
	int fd = t_file("f", "original");
	char *p, *q;

	CHECK_OK(ftruncate(fd, 2 * PAGE));
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	q = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
	CHECK(p != MAP_FAILED && q != MAP_FAILED);
	memcpy(p, "mapped!!", 8);
	p[PAGE + 5] = 'z';
	CHECK_EQ(q[5], 'z');
	CHECK_EQ(pread(fd, buf, 8, 0), 8);
	CHECK(!memcmp(buf, "mapped!!", 8));
	CHECK_EQ(pwrite(fd, "written.", 8, 0), 8);
	CHECK(!memcmp(p, "written.", 8));
	CHECK_OK(msync(p, PAGE, MS_SYNC));
	CHECK_OK(msync(p, PAGE, MS_ASYNC));
	CHECK_ERR(msync(p, PAGE, MS_SYNC | MS_ASYNC), EINVAL);
	CHECK_ERR(msync(p + 1, PAGE, MS_SYNC), EINVAL);
	CHECK_OK(munmap(q, PAGE));
	CHECK_ERR(msync(q, PAGE, MS_SYNC), ENOMEM);
}

static void write_shared(void *arg)
{
	char *p = arg;

	CHECK_EQ(p[0], 'p');
	p[1] = 'c';
}

/* Anonymous memory, within what the descriptor allows. */
static int map_at(int fd, size_t size, uint64_t off)
{
	long p = syscall(SYS_mmap, NULL, size, PROT_READ, MAP_SHARED, fd, off);

	return p == -1 ? -1 : munmap((void *)p, size);
}

/* A file's last page ends a page before the largest offset. */
TEST(beyond_any_file)
{
	int fd = t_file("f", "x");

	CHECK_OK(map_at(fd, PAGE, INT64_MAX - 2 * PAGE + 1));
	CHECK_ERR(map_at(fd, 2 * PAGE, INT64_MAX - 2 * PAGE + 1), EOVERFLOW);
	CHECK_ERR(map_at(fd, PAGE, INT64_MAX - PAGE + 1), EOVERFLOW);
	CHECK_ERR(map_at(fd, PAGE, 1ull << 63), EOVERFLOW);
	CHECK_ERR(map_at(fd, PAGE, -2 * PAGE), EOVERFLOW);
	CHECK_ERR(map_at(fd, PAGE, -PAGE), EOVERFLOW);
}

TEST(zero_device)
{
	int ro = open("/dev/zero", O_RDONLY), rw = open("/dev/zero", O_RDWR);
	char *p;
	pid_t pid;

	CHECK(ro >= 0 && rw >= 0);
	p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, ro, 4 * PAGE);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(p[PAGE], 0);
	p[PAGE] = 1;
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, ro, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(p[0], 0);
	CHECK_ERR(mprotect(p, PAGE, PROT_READ | PROT_WRITE), EACCES);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, ro, 0), EACCES);
	CHECK_ERR((long)mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, open("/dev/null", O_RDWR), 0),
		  ENODEV);
	/* Each shared mapping is memory of its own, and stays it over fork(). */
	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, rw, 0);
	CHECK(p != MAP_FAILED);
	pid = fork();
	if (pid == 0) {
		p[1] = 7;
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(p[1], 7);
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, rw, 0);
	CHECK(p != MAP_FAILED);
	CHECK_EQ(p[1], 0);
}

TEST(shared_anonymous_after_fork)
{
	char *p = anon(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);

	p[0] = 'p';
	t_wait_ok(t_spawn(write_shared, p));
	CHECK_EQ(p[1], 'c');
}

static void write_private(void *arg)
{
	unsigned char *p = arg;

	for (int i = 0; i < 64; i++) {
		CHECK_EQ(p[i * PAGE], i);
		p[i * PAGE] = 0xcc;
	}
	for (int i = 0; i < 64; i++)
		CHECK_EQ(p[i * PAGE], 0xcc);
}

TEST(copy_on_write)
{
	unsigned char *p = (void *)anon(64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	pid_t a, b;

	for (int i = 0; i < 64; i++)
		p[i * PAGE] = (unsigned char)i;
	a = t_spawn(write_private, p);
	b = t_spawn(write_private, p);
	t_wait_ok(a);
	t_wait_ok(b);
	for (int i = 0; i < 64; i++)
		CHECK_EQ(p[i * PAGE], i);
}

/* The parent writes while the child reads the old contents. */
TEST(copy_on_write_in_parent)
{
	unsigned char *p = (void *)anon(64 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int go[2];
	pid_t pid;

	for (int i = 0; i < 64; i++)
		p[i * PAGE] = (unsigned char)i;
	CHECK_OK(pipe(go));
	pid = fork();
	if (pid == 0) {
		char c;

		CHECK_EQ(read(go[0], &c, 1), 1);
		write_private(p);
		_exit(0);
	}
	for (int i = 0; i < 64; i++)
		p[i * PAGE] = 0xee;
	CHECK_EQ(write(go[1], "x", 1), 1);
	t_wait_ok(pid);
	for (int i = 0; i < 64; i++)
		CHECK_EQ(p[i * PAGE], 0xee);
}

/* The kernel's own stores into a copied page go to the copy as well. */
TEST(copy_on_write_by_kernel)
{
	char *p = anon(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int fd = t_file("f", "kernel");
	pid_t pid;

	strcpy(p, "before");
	pid = fork();
	if (pid == 0) {
		CHECK_EQ(read(fd, p, 6), 6);
		CHECK_STR(p, "kernel");
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_STR(p, "before");
}

TEST(mremap)
{
	char *p = anon(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *q;

	memset(p, 'a', 4 * PAGE);
	q = mremap(p, 4 * PAGE, 2 * PAGE, 0);
	CHECK(q == p);
	CHECK(!readable(p + 2 * PAGE));
	q = mremap(p, 2 * PAGE, 64 * PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED);
	CHECK_EQ(q[2 * PAGE - 1], 'a');
	CHECK_EQ(q[2 * PAGE], 0);
	q[63 * PAGE] = 'b';
	p = anon(64 * PAGE, PROT_NONE, MAP_PRIVATE);
	CHECK(mremap(q, 64 * PAGE, 64 * PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, p) == p);
	CHECK(!readable(q));
	CHECK_EQ(p[0], 'a');
	CHECK_EQ(p[63 * PAGE], 'b');
	CHECK_ERR((long)mremap(p, 64 * PAGE, 65 * PAGE, MREMAP_FIXED, q), EINVAL);
	CHECK_ERR((long)mremap(p + 1, PAGE, PAGE, 0), EINVAL);
	CHECK_ERR((long)mremap(p, PAGE, 0, 0), EINVAL);
	CHECK_ERR((long)mremap(q, PAGE, PAGE, 0), EFAULT);
	/* No room to grow in place. */
	mmap(p + 64 * PAGE, PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	CHECK_ERR((long)mremap(p, 64 * PAGE, 65 * PAGE, 0), ENOMEM);
}

TEST(mremap_file_keeps_its_offset)
{
	int fd = t_file("f", "");
	char *p, *q;

	CHECK_OK(ftruncate(fd, 8 * PAGE));
	for (int i = 0; i < 8; i++)
		CHECK_EQ(pwrite(fd, &(char){(char)('0' + i)}, 1, i * (long)PAGE), 1);
	p = mmap(NULL, 2 * PAGE, PROT_READ, MAP_SHARED, fd, PAGE);
	q = mremap(p, 2 * PAGE, 6 * PAGE, MREMAP_MAYMOVE);
	CHECK(q != MAP_FAILED);
	for (int i = 0; i < 6; i++)
		CHECK_EQ(q[i * (long)PAGE], '1' + i);
	/* An old size of zero duplicates a shared mapping. */
	p = mremap(q, 0, PAGE, MREMAP_MAYMOVE);
	CHECK(p != MAP_FAILED && p != q);
	CHECK_EQ(p[0], '1');
}

TEST(mprotect)
{
	char *p = anon(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	int fd = t_file("f", "data");

	memset(p, 'x', 8 * PAGE);
	CHECK_OK(mprotect(p + 2 * PAGE, 2 * PAGE, PROT_READ));
	CHECK_ERR(pread(fd, p + 2 * PAGE, 4, 0), EFAULT);
	CHECK(readable(p + 2 * PAGE));
	CHECK_OK(mprotect(p + 2 * PAGE, PAGE, PROT_NONE));
	CHECK(!readable(p + 2 * PAGE));
	CHECK_OK(mprotect(p, 8 * PAGE, PROT_READ | PROT_WRITE));
	CHECK_EQ(p[2 * PAGE], 'x');
	p[3 * PAGE] = 'y';
	CHECK_ERR(mprotect(p + 1, PAGE, PROT_READ), EINVAL);
	CHECK_OK(munmap(p + 4 * PAGE, PAGE));
	CHECK_ERR(mprotect(p + 3 * PAGE, 3 * PAGE, PROT_READ), ENOMEM);
	CHECK_ERR(mprotect(p, PAGE, 0x1000), EINVAL);
	CHECK_OK(mprotect(p, 0, PROT_READ));
	p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, open("f", O_RDONLY), 0);
	CHECK_ERR(mprotect(p, PAGE, PROT_READ | PROT_WRITE), EACCES);
}

TEST(madvise)
{
	char *p = anon(8 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE), *q;
	int fd = t_file("f", "filedata");

	memset(p, 'x', 8 * PAGE);
	CHECK_OK(madvise(p + PAGE, 2 * PAGE, MADV_DONTNEED));
	CHECK_EQ(p[0], 'x');
	CHECK_EQ(p[PAGE], 0);
	CHECK_EQ(p[3 * PAGE - 1], 0);
	CHECK_EQ(p[3 * PAGE], 'x');
	q = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	memcpy(q, "changed!", 8);
	CHECK_OK(madvise(q, PAGE, MADV_DONTNEED));
	CHECK(!memcmp(q, "filedata", 8));
	q = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memcpy(q, "changed!", 8);
	CHECK_OK(madvise(q, PAGE, MADV_DONTNEED));
	CHECK(!memcmp(q, "changed!", 8));
	CHECK_OK(madvise(p, 8 * PAGE, MADV_WILLNEED));
	CHECK_OK(madvise(p, 8 * PAGE, MADV_FREE));
	CHECK_OK(madvise(p, 8 * PAGE, MADV_NORMAL));
	CHECK_ERR(madvise(p + 1, PAGE, MADV_NORMAL), EINVAL);
	CHECK_ERR(madvise(p, PAGE, 9999), EINVAL);
	CHECK_OK(munmap(p, 8 * PAGE));
	CHECK_ERR(madvise(p, PAGE, MADV_DONTNEED), ENOMEM);
}

static void check_wiped(void *arg)
{
	char *p = arg;

	CHECK_EQ(p[0], 0);
	CHECK(!readable(p + PAGE));
	CHECK_EQ(p[2 * PAGE], 'x');
}

TEST(madvise_fork)
{
	char *p = anon(3 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	memset(p, 'x', 3 * PAGE);
	CHECK_OK(madvise(p, PAGE, MADV_WIPEONFORK));
	CHECK_OK(madvise(p + PAGE, PAGE, MADV_DONTFORK));
	t_wait_ok(t_spawn(check_wiped, p));
	CHECK_EQ(p[0], 'x');
}

TEST(remove_hole)
{
	int fd = t_file("f", "");
	char *p;

	CHECK_OK(ftruncate(fd, 4 * PAGE));
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	memset(p, 'x', 4 * PAGE);
	CHECK_OK(madvise(p + PAGE, PAGE, MADV_REMOVE));
	CHECK_EQ(p[0], 'x');
	CHECK_EQ(p[PAGE], 0);
	CHECK_EQ(p[2 * PAGE], 'x');
}

TEST(mincore)
{
	char *p = anon(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	unsigned char vec[4] = {9, 9, 9, 9};

	p[PAGE] = 1;
	CHECK_OK(mincore(p, 4 * PAGE, vec));
	CHECK_EQ(vec[1] & 1, 1);
	CHECK_ERR(mincore(p + 1, PAGE, vec), EINVAL);
	CHECK_OK(munmap(p, PAGE));
	CHECK_ERR(mincore(p, PAGE, vec), ENOMEM);
	/* Of shared memory and a tmpfs's files nothing is there that was not touched. */
	for (int i = 0; i < 2; i++) {
		int fd = i ? memfd_create("m", 0) : -1;

		CHECK(!i || (fd >= 0 && !ftruncate(fd, 64 * PAGE)));
		p = mmap(NULL, 64 * PAGE, PROT_READ | PROT_WRITE,
			 MAP_SHARED | (i ? 0 : MAP_ANONYMOUS), fd, 0);
		CHECK(p != MAP_FAILED);
		for (size_t at = 0; at < 64; at++) {
			CHECK_OK(mincore(p + at * PAGE, PAGE, vec));
			CHECK_EQ(vec[0] & 1, 0);
		}
		p[PAGE] = 1;
		CHECK_OK(mincore(p, 4 * PAGE, vec));
		CHECK_EQ(vec[1] & 1, 1);
	}
	/* Locked memory is there before anybody touches it. */
	p = anon(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	if (mlock(p, 4 * PAGE))
		return;
	CHECK_OK(mincore(p, 4 * PAGE, vec));
	for (int i = 0; i < 4; i++)
		CHECK_EQ(vec[i] & 1, 1);
}

TEST(mlock)
{
	char *p = anon(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	CHECK_OK(mlock(p, PAGE));
	CHECK_OK(munlock(p, PAGE));
	CHECK_OK(mlock2(p, PAGE, MLOCK_ONFAULT));
	CHECK_OK(munmap(p, 4 * PAGE));
	CHECK_ERR(mlock(p, PAGE), ENOMEM);
	CHECK_OK(mlockall(MCL_FUTURE));
	CHECK_OK(munlockall());
	CHECK_ERR(mlockall(0), EINVAL);
}

TEST(brk)
{
	char *start = sbrk(0), *p;

	p = sbrk(3 * PAGE + 10);
	CHECK(p == start);
	memset(p, 'b', 3 * PAGE + 10);
	CHECK_OK(brk(start + PAGE));
	CHECK_OK(brk(start + 3 * PAGE));
	/* What was given back comes again as zeros. */
	CHECK_EQ(p[2 * PAGE + 100], 0);
	CHECK_EQ(p[10], 'b');
	/* The call itself returns the break, whatever happened. */
	CHECK_EQ(syscall(SYS_brk, 0), (long)(start + 3 * PAGE));
	CHECK_EQ(syscall(SYS_brk, 1), (long)(start + 3 * PAGE));
}

TEST(data_limit)
{
	struct rlimit lim = {64 << 20, 64 << 20};
	char *p;

	CHECK_OK(setrlimit(RLIMIT_AS, &lim));
	p = mmap(NULL, 256ul << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p == MAP_FAILED);
	p = mmap(NULL, 1ul << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
}

TEST(many_mappings)
{
	char *p = anon(4096 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

	for (int i = 0; i < 4096; i += 2)
		CHECK_OK(mprotect(p + i * PAGE, PAGE, PROT_READ));
	for (int i = 1; i < 4096; i += 2)
		p[i * PAGE] = (char)i;
	for (int i = 0; i < 4096; i += 2)
		CHECK_EQ(p[i * PAGE], 0);
	CHECK_OK(munmap(p, 4096 * PAGE));
}

TEST(large_sparse_reservation)
{
	size_t size = 64ul << 30;
	char *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	CHECK(p != MAP_FAILED);
	for (size_t at = 0; at < size; at += 1ul << 30)
		p[at] = 1;
	CHECK_OK(munmap(p, size));
	p = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	CHECK(p != MAP_FAILED);
}

/* A mapping outlives its descriptor, its name and a later file of that name. */
TEST(unlinked_mapping)
{
	int fd = t_file("f", "persist");
	char *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	close(fd);
	CHECK_OK(unlink("f"));
	close(t_file("f", "another"));
	CHECK(!memcmp(p, "persist", 7));
	p[0] = 'P';
	CHECK_STR(t_read("f"), "another");
}

TEST(reuse_is_zeroed)
{
	for (int i = 0; i < 200; i++) {
		char *p = anon(32 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);

		for (size_t at = 0; at < 32 * PAGE; at += 1024)
			CHECK_EQ(p[at], 0);
		memset(p, 0xff, 32 * PAGE);
		CHECK_OK(munmap(p, 32 * PAGE));
	}
}

TEST(process_vm)
{
	char secret[16] = "from the child", got[16] = "";
	int go[2], ready[2];
	struct iovec local = {got, 15}, remote = {secret, 15};
	pid_t pid;
	char c;

	CHECK_OK(pipe(go));
	CHECK_OK(pipe(ready));
	strcpy(secret, "from the parent");
	pid = fork();
	if (pid == 0) {
		strcpy(secret, "from the child.");
		CHECK_EQ(write(ready[1], "x", 1), 1);
		read(go[0], &c, 1);
		_exit(strcmp(secret, "by the parent.."));
	}
	CHECK_EQ(read(ready[0], &c, 1), 1);
	CHECK_EQ(process_vm_readv(pid, &local, 1, &remote, 1, 0), 15);
	CHECK(!memcmp(got, "from the child.", 15));
	memcpy(got, "by the parent..", 15);
	CHECK_EQ(process_vm_writev(pid, &local, 1, &remote, 1, 0), 15);
	CHECK_STR(secret, "from the parent");
	CHECK_EQ(write(go[1], "x", 1), 1);
	t_wait_ok(pid);
	CHECK_ERR(process_vm_readv(pid, &local, 1, &remote, 1, 0), ESRCH);
}

/* Unlike a debugger's, it goes no further than the process itself could. */
TEST(process_vm_keeps_to_protections)
{
	char got[8] = "",
	     *p = mmap(NULL, 3 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec local = {got, 8}, remote = {p, 8};
	pid_t me = getpid();

	CHECK(p != MAP_FAILED);
	strcpy(p, "before");
	CHECK_EQ(process_vm_readv(me, &local, 1, &remote, 1, 0), 8);
	CHECK_STR(got, "before");
	CHECK_OK(mprotect(p, 4096, PROT_READ));
	CHECK_ERR(process_vm_writev(me, &local, 1, &remote, 1, 0), EFAULT);
	CHECK_STR(p, "before");
	/* Up to the first page that forbids it. */
	remote = (struct iovec){p + 4096 - 4, 8};
	CHECK_ERR(process_vm_writev(me, &local, 1, &remote, 1, 0), EFAULT);
	CHECK_OK(mprotect(p, 4096, PROT_NONE));
	remote = (struct iovec){p, 8};
	CHECK_ERR(process_vm_readv(me, &local, 1, &remote, 1, 0), EFAULT);
	remote = (struct iovec){p + 2 * 4096 - 4, 8};
	CHECK_OK(mprotect(p + 2 * 4096, 4096, PROT_READ));
	CHECK_EQ(process_vm_writev(me, &local, 1, &remote, 1, 0), 4);
	/* A page of the program's text, in a process with its own copy. */
	remote = (struct iovec){(void *)(uintptr_t)t_now_ms, 8};
	CHECK_ERR(process_vm_writev(me, &local, 1, &remote, 1, 0), EFAULT);
}
