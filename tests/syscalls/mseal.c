/* mseal(2), and remap_file_pages(2): mappings that stay, mappings whose pages move. */
#include "t.h"

#include <sys/shm.h>

#define PAGE 4096ul

#ifndef SYS_mseal
#define SYS_mseal 462
#endif

static long seal(void *p, size_t size)
{
	return syscall(SYS_mseal, p, size, 0ul);
}

static char *pages(int prot)
{
	char *p = mmap(NULL, 6 * PAGE, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	CHECK(p != MAP_FAILED);
	return p;
}

TEST(arguments)
{
	char *p = pages(PROT_READ);

	if (seal(p, 0) && errno == ENOSYS)
		SKIP("a kernel without mseal");
	CHECK_ERR(syscall(SYS_mseal, p, PAGE, 1ul), EINVAL);
	CHECK_ERR(seal(p + 1, PAGE), EINVAL);
	CHECK_ERR(seal(p, SIZE_MAX), EINVAL);
	CHECK_ERR(seal(p, -PAGE), EINVAL);
	/* Nothing is sealed where there is a hole. */
	CHECK_OK(munmap(p + PAGE, PAGE));
	CHECK_ERR(seal(p, 3 * PAGE), ENOMEM);
	CHECK_OK(munmap(p, 6 * PAGE));
	CHECK_ERR(seal(p, PAGE), ENOMEM);
}

static void stays(char *p, size_t at)
{
	char *sealed = p + at * PAGE;

	CHECK_ERR(munmap(sealed, PAGE), EPERM);
	CHECK_ERR(munmap(p, 6 * PAGE), EPERM);
	CHECK_ERR(mprotect(sealed, PAGE, PROT_NONE), EPERM);
	CHECK_ERR(mprotect(sealed, PAGE, PROT_READ), EPERM);
	CHECK(mmap(sealed, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) ==
	      MAP_FAILED);
	CHECK(mremap(sealed, PAGE, 2 * PAGE, MREMAP_MAYMOVE) == MAP_FAILED);
	CHECK(mremap(p + 5 * PAGE, PAGE, PAGE, MREMAP_MAYMOVE | MREMAP_FIXED, sealed) ==
	      MAP_FAILED);
	CHECK_ERR(madvise(sealed, PAGE, MADV_DONTNEED), EPERM);
	CHECK_ERR(madvise(sealed, PAGE, MADV_FREE), EPERM);
	/* It may still be read ahead and locked. */
	CHECK_OK(madvise(sealed, PAGE, MADV_WILLNEED));
	CHECK_EQ(*(volatile char *)sealed, 'x');
}

TEST(stays)
{
	char *p = pages(PROT_READ | PROT_WRITE);
	int status;
	pid_t pid;

	if (seal(p, 0) && errno == ENOSYS)
		SKIP("a kernel without mseal");
	p[2 * PAGE] = 'x';
	CHECK_OK(mprotect(p + 2 * PAGE, PAGE, PROT_READ));
	CHECK_OK(seal(p + 2 * PAGE, PAGE));
	CHECK_OK(seal(p + 2 * PAGE, PAGE));
	stays(p, 2);
	/* A child's mapping is sealed, too. */
	pid = fork();
	CHECK_OK(pid);
	if (!pid) {
		stays(p, 2);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status, 0);
	/* Its neighbours are as before. */
	CHECK_OK(munmap(p, 2 * PAGE));
	CHECK_OK(mprotect(p + 3 * PAGE, 3 * PAGE, PROT_NONE));
}

/* What its program may write it may also empty. */
TEST(writable)
{
	char *p = pages(PROT_READ | PROT_WRITE);

	if (seal(p, 0) && errno == ENOSYS)
		SKIP("a kernel without mseal");
	p[0] = 'x';
	CHECK_OK(seal(p, 6 * PAGE));
	CHECK_OK(madvise(p, PAGE, MADV_DONTNEED));
	CHECK_EQ(p[0], 0);
	CHECK_ERR(munmap(p, PAGE), EPERM);
}

/* shmdt(2) says nothing of a segment that has to stay. */
TEST(segment)
{
	int id = shmget(IPC_PRIVATE, 2 * PAGE, 0600 | IPC_CREAT);
	char *p;

	CHECK_OK(id);
	p = shmat(id, NULL, 0);
	CHECK_OK(shmctl(id, IPC_RMID, NULL));
	CHECK(p != (char *)-1);
	if (seal(p, 0) && errno == ENOSYS)
		SKIP("a kernel without mseal");
	CHECK_OK(seal(p + PAGE, PAGE));
	CHECK_OK(shmdt(p));
	p[PAGE] = 'x';
	CHECK_ERR(madvise(p, PAGE, MADV_WILLNEED), ENOMEM);
}

#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
TEST(remap_file_pages)
{
	int fd = t_file("f", "");
	char *p;

	CHECK_OK(ftruncate(fd, 4 * PAGE));
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	CHECK(p != MAP_FAILED);
	for (int i = 0; i < 4; i++)
		p[(size_t)i * PAGE] = (char)('0' + i);
	CHECK_OK(remap_file_pages(p, PAGE, 0, 3, 0));
	CHECK_EQ(p[0], '3');
	CHECK_EQ(p[PAGE], '1');
	p[0] = 'x';
	CHECK_EQ(p[3 * PAGE], 'x');
	CHECK_OK(remap_file_pages(p + PAGE, 2 * PAGE, 0, 0, MAP_NONBLOCK));
	CHECK_EQ(p[PAGE], '0');
	CHECK_EQ(p[2 * PAGE], '1');
	CHECK_ERR(remap_file_pages(p, PAGE, PROT_READ, 0, 0), EINVAL);
	CHECK_ERR(remap_file_pages(p, 0, 0, 0, 0), EINVAL);
	CHECK_ERR(remap_file_pages(p, PAGE, 0, SIZE_MAX, 0), EINVAL);
	CHECK_ERR(remap_file_pages(p, PAGE, 0, INT64_MAX / PAGE, 0), EOVERFLOW);
	CHECK_ERR(remap_file_pages(p, PAGE, 0, 1ul << 52, 0), EOVERFLOW);
	CHECK_OK(munmap(p, 4 * PAGE));
	CHECK_ERR(remap_file_pages(p, PAGE, 0, 0, 0), EINVAL);
	CHECK_ERR(remap_file_pages(p, PAGE, 0, 1ul << 52, 0), EINVAL);
	/* Not of private mappings. */
	p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	CHECK(p != MAP_FAILED);
	CHECK_ERR(remap_file_pages(p, PAGE, 0, 1, 0), EINVAL);
}
