/* What a mapping writes behind the end of /mnt/tail is not there when the file reaches further: zeros are, as on the host. Ends with "zeros". */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PAGE 4096
#define SHORT 5000 /* where it ends at first: in its second page */
#define LONG 20000

enum how { TRUNCATE, ALLOCATE, WRITE, WRITE_SAME_PAGE, HOWS };

static int extend(int fd, enum how how)
{
	switch (how) {
	case TRUNCATE:
		return ftruncate(fd, LONG);
	case ALLOCATE:
		return fallocate(fd, 0, LONG - 1, 1);
	case WRITE:
		return pwrite(fd, "e", 1, LONG) == 1 ? 0 : -1;
	default:
		return pwrite(fd, "e", 1, 2 * PAGE - 1) == 1 ? 0 : -1;
	}
}

static int wrong(const char *what, enum how how, const char *p)
{
	for (int i = SHORT; i < 2 * PAGE - 1; i++)
		if (p[i]) {
			printf("%s, extended by %d: byte %d is %d\n", what, how, i, p[i]);
			return 1;
		}
	return 0;
}

int main(void)
{
	static char data[SHORT], back[2 * PAGE];

	memset(data, 'd', sizeof(data));
	for (enum how how = 0; how < HOWS; how++) {
		int fd = open("/mnt/tail", O_RDWR | O_CREAT | O_TRUNC, 0644), other;
		char *m;

		if (fd < 0 || write(fd, data, SHORT) != SHORT)
			return perror("write"), 1;
		m = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (m == MAP_FAILED)
			return perror("mmap"), 1;
		memset(m + SHORT, 'T', 2 * PAGE - SHORT);
		if (extend(fd, how))
			return perror("extend"), 1;
		if (wrong("the mapping", how, m))
			return 1;
		/* Nor does it go to the server with what is written to the page next. */
		m[SHORT - 1] = 'D';
		if (msync(m, 2 * PAGE, MS_SYNC) || munmap(m, 2 * PAGE) || fsync(fd) || close(fd))
			return perror("msync"), 1;
		other = open("/mnt/tail", O_RDONLY);
		if (pread(other, back, sizeof(back), 0) != sizeof(back))
			return perror("read"), 1;
		close(other);
		if (wrong("the file", how, back))
			return 1;
	}
	printf("zeros\n");
	return 0;
}
