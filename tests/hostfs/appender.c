/* appender WHO COUNT FILE GO - appends so many lines of many lengths to FILE, once GO is there; says "ready" before. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#define PIECE 3
#define PIECES 100

/* Each second line in many pieces: more than are written by one call of the sentry's. */
static ssize_t put(int fd, char *line, size_t size, int turn)
{
	struct iovec iov[PIECES];
	int count = 0;

	if (turn % 2)
		return write(fd, line, size);
	for (size_t at = 0; at < size; at += PIECE) {
		size_t rest = size - at;

		iov[count++] = (struct iovec){line + at, rest < PIECE ? rest : PIECE};
	}
	return writev(fd, iov, count);
}

int main(int argc, char **argv)
{
	char line[256];
	int fd;

	if (argc != 5)
		return 2;
	fd = open(argv[3], O_WRONLY | O_APPEND);
	if (fd < 0) {
		perror(argv[3]);
		return 1;
	}
	printf("ready\n");
	fflush(stdout);
	while (access(argv[4], F_OK))
		usleep(1000);
	for (int i = 0; i < atoi(argv[2]); i++) {
		int n = snprintf(line, sizeof(line), "%s %d ", argv[1], i), pad = i % 97;

		memset(line + n, '.', (size_t)pad);
		line[n + pad] = '\n';
		if (put(fd, line, (size_t)(n + pad + 1), i) != n + pad + 1) {
			perror("write");
			return 1;
		}
	}
	/* What was written last ends where the offset is, whoever wrote after it. */
	if (lseek(fd, 0, SEEK_CUR) > lseek(fd, 0, SEEK_END))
		return 1;
	printf("appended\n");
	return 0;
}
