/* locker flock|posix|ofd try|wait FILE [HOLD]: takes an exclusive lock, says "got" or "refused", makes HOLD and keeps the lock until that is removed. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct flock fl = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 5, .l_len = 5};
	int fd = argc > 3 ? open(argv[3], O_RDWR) : -1, err;
	int wait = argc > 3 && !strcmp(argv[2], "wait");

	if (fd < 0)
		return 2;
	if (!strcmp(argv[1], "flock"))
		err = flock(fd, LOCK_EX | (wait ? 0 : LOCK_NB));
	else if (!strcmp(argv[1], "posix"))
		err = fcntl(fd, wait ? F_SETLKW : F_SETLK, &fl);
	else
		err = fcntl(fd, wait ? F_OFD_SETLKW : F_OFD_SETLK, &fl);
	if (err && errno != EAGAIN && errno != EACCES) {
		perror("lock");
		return 2;
	}
	puts(err ? "refused" : "got");
	fflush(stdout);
	if (!err && argc > 4) {
		close(open(argv[4], O_CREAT | O_WRONLY, 0666));
		while (!access(argv[4], F_OK))
			usleep(20000);
	}
	return err != 0;
}
