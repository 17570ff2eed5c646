/*
 * plock flock|fcntl [-n] FILE COMMAND... - runs COMMAND under a lock of FILE that excludes all others. -n: 1 if it is not to be had at once.
 * The environment's ASKING names a file that is made just before it is asked for.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <unistd.h>

static int lock(int fd, int whole, int now)
{
	const struct flock lk = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

	if (whole)
		return flock(fd, LOCK_EX | (now ? LOCK_NB : 0));
	return fcntl(fd, now ? F_SETLK : F_SETLKW, &lk);
}

int main(int argc, char **argv)
{
	int now = argc > 2 && !strcmp(argv[2], "-n"), fd, status;
	const char *asking = getenv("ASKING");
	pid_t pid;

	if (argc < 4 + now)
		return 2;
	fd = open(argv[2 + now], O_RDWR | O_CREAT | O_CLOEXEC, 0644);
	if (asking)
		close(open(asking, O_WRONLY | O_CREAT, 0644));
	if (fd < 0 || lock(fd, !strcmp(argv[1], "flock"), now) < 0) {
		perror(argv[2 + now]);
		return 1;
	}
	pid = fork();
	if (!pid) {
		execvp(argv[3 + now], argv + 3 + now);
		_exit(127);
	}
	return pid < 0 || waitpid(pid, &status, 0) < 0 || status ? 3 : 0;
}
