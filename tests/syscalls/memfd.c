/* memfd_create, seals, and what shared memory does with them. */
#include "t.h"

TEST(basics)
{
	char link[256] = "", path[64];
	struct stat st;
	int fd = memfd_create("name", MFD_CLOEXEC);
	char *p;

	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
	CHECK_EQ(write(fd, "hello", 5), 5);
	CHECK_OK(fstat(fd, &st));
	CHECK_EQ(st.st_size, 5);
	CHECK_EQ(st.st_nlink, 0);
	CHECK_OK(ftruncate(fd, 8192));
	p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK(!memcmp(p, "hello", 5));
	p[8000] = 'z';
	CHECK_EQ(pread(fd, path, 1, 8000), 1);
	CHECK_EQ(path[0], 'z');
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(readlink(path, link, sizeof(link) - 1) > 0);
	CHECK_STR(link, "/memfd:name (deleted)");
	CHECK_OK(open(path, O_RDONLY));
	CHECK_ERR(memfd_create("x", 0x1000), EINVAL);
}

TEST(no_sealing_by_default)
{
	int fd = memfd_create("n", 0);

	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SEAL);
	CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EPERM);
	CHECK_ERR(fcntl(open("/dev/null", O_RDWR), F_ADD_SEALS, F_SEAL_WRITE), EINVAL);
}

TEST(size_seals)
{
	int fd = memfd_create("n", MFD_ALLOW_SEALING);

	CHECK_EQ(fcntl(fd, F_GET_SEALS), 0);
	CHECK_OK(ftruncate(fd, 8192));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK));
	CHECK_ERR(ftruncate(fd, 4096), EPERM);
	CHECK_OK(ftruncate(fd, 16384));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW));
	CHECK_ERR(ftruncate(fd, 20000), EPERM);
	CHECK_ERR(pwrite(fd, "x", 1, 16384), EPERM);
	CHECK_EQ(pwrite(fd, "x", 1, 16383), 1);
	CHECK_ERR(fallocate(fd, 0, 16384, 4096), EPERM);
	CHECK_EQ(fcntl(fd, F_GET_SEALS), F_SEAL_SHRINK | F_SEAL_GROW);
}

TEST(write_seal)
{
	int fd = memfd_create("n", MFD_ALLOW_SEALING);
	char *p;

	CHECK_OK(ftruncate(fd, 4096));
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), EBUSY);
	CHECK_OK(munmap(p, 4096));
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE));
	CHECK_ERR(pwrite(fd, "x", 1, 0), EPERM);
	CHECK_ERR((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	p[0] = 1;
	CHECK_ERR(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096), EPERM);
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_SEAL));
	CHECK_ERR(fcntl(fd, F_ADD_SEALS, F_SEAL_GROW), EPERM);
}

TEST(future_write_seal)
{
	int fd = memfd_create("n", MFD_ALLOW_SEALING);
	char *p;

	CHECK_OK(ftruncate(fd, 4096));
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK_OK(fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE));
	p[0] = 'k';
	CHECK_ERR(pwrite(fd, "x", 1, 0), EPERM);
	CHECK_ERR((long)mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0), EPERM);
}

static void fill(void *arg)
{
	memset(arg, 'c', 65536);
}

TEST(shared_with_child)
{
	int fd = memfd_create("n", 0);
	char *p;

	CHECK_OK(ftruncate(fd, 65536));
	p = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	t_wait_ok(t_spawn(fill, p));
	for (int i = 0; i < 65536; i += 100)
		CHECK_EQ(p[i], 'c');
}

TEST(large_file)
{
	int fd = memfd_create("x", 0);

	CHECK(fd >= 0);
	CHECK_EQ(fcntl(fd, F_GETFL), O_RDWR | 0100000);
}
