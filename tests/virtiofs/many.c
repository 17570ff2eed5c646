/* Processes that end with more open files of /mnt than a ring has places: each must end, whoever takes the answers. Ends with "closed". */
#include <fcntl.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define FILES 300
#define ROUNDS 4

int main(void)
{
	struct rlimit files = {2 * FILES, 2 * FILES};

	setrlimit(RLIMIT_NOFILE, &files);
	for (int round = 0; round < ROUNDS; round++) {
		pid_t pid = fork();
		int status;

		if (pid == 0) {
			for (int i = 0; i < FILES; i++)
				if (open("/mnt/file", O_RDWR | O_CREAT, 0644) < 0)
					_exit(1);
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid || status) {
			perror("round");
			return 1;
		}
	}
	puts("closed");
	return 0;
}
