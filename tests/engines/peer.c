/*
 * tests/engines/peer.c - two containers of a pod meet: System V semaphores and abstract sockets; and the pod's first process. Static: it is in the image.
 *
 *	peer pause           waits, and for whoever is adopted
 *	peer sem-put N       makes the semaphore of key 77 with value N
 *	peer sem-get         prints its value, or why not
 *	peer mount-spaces    prints how many mount namespaces it can walk to, and how many have an id that listmount(2) takes
 *	peer listen NAME     answers each connection to the abstract socket NAME with a line
 *	peer trace COMM [exit] traces the process of that name and waits for none of its stops, nor its death: says so, and when it is gone
 *	peer connect NAME    prints that line, or why not
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define KEY 77
#define IDS_TRIED 64
/* <linux/nsfs.h>, <linux/mount.h>: of newer kernels than the headers. */
#define MNT_GET_NEXT _IOC(_IOC_READ, 0xb7, 11, 16)
#define MNT_GET_PREV _IOC(_IOC_READ, 0xb7, 12, 16)
#define NR_LISTMOUNT 458
#define LISTMOUNT_ROOT UINT64_MAX

static int fail(const char *what)
{
	printf("%s: %s\n", what, strerror(errno));
	return 1;
}

static void reap(int signo)
{
	(void)signo;
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
}

static int pause_main(void)
{
	signal(SIGCHLD, reap);
	for (;;)
		pause();
}

static int sem_main(const char *value)
{
	int id = semget(KEY, 1, value ? IPC_CREAT | 0600 : 0);

	if (id < 0)
		return fail("semget");
	if (value)
		return semctl(id, 0, SETVAL, atoi(value)) < 0 ? fail("semctl") : 0;
	printf("%d\n", semctl(id, 0, GETVAL));
	return 0;
}

static int walk(unsigned long cmd)
{
	int fd = open("/proc/self/ns/mnt", O_RDONLY), next, steps = 0;

	while ((next = ioctl(fd, cmd, NULL)) >= 0) {
		close(fd);
		fd = next;
		steps++;
	}
	return errno == ENOENT ? steps : -1000;
}

static int mount_spaces_main(void)
{
	int walked = 1 + walk(MNT_GET_PREV) + walk(MNT_GET_NEXT), listed = 0;

	for (uint64_t id = 1; id <= IDS_TRIED; id++) {
		struct {
			uint32_t size, spare;
			uint64_t mount, param, space;
		} req = {32, 0, LISTMOUNT_ROOT, 0, id};
		uint64_t found[4];

		if (syscall(NR_LISTMOUNT, &req, found, 4, 0) > 0)
			listed++;
	}
	printf("%d %d\n", walked, listed);
	return 0;
}

static int socket_main(const char *name, int listening)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
	int fd = socket(AF_UNIX, SOCK_STREAM, 0), peer;
	char line[64];
	ssize_t n;

	snprintf(addr.sun_path + 1, sizeof(addr.sun_path) - 1, "%s", name);
	if (!listening) {
		if (fd < 0 || connect(fd, (struct sockaddr *)&addr, size) < 0)
			return fail("connect");
		n = read(fd, line, sizeof(line));
		return n > 0 && write(1, line, (size_t)n) == n ? 0 : fail("read");
	}
	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, size) < 0 || listen(fd, 5) < 0)
		return fail("listen");
	for (;;) {
		peer = accept(fd, NULL, NULL);
		if (peer < 0 || write(peer, "hello from the other\n", 21) != 21)
			return fail("accept");
		close(peer);
	}
}

static int find_comm(const char *want)
{
	DIR *proc = opendir("/proc");
	struct dirent *e;
	int found = 0;

	while (proc && !found && (e = readdir(proc))) {
		char path[64], comm[32] = "";
		FILE *f;

		snprintf(path, sizeof(path), "/proc/%.20s/comm", e->d_name);
		f = atoi(e->d_name) > 0 ? fopen(path, "r") : NULL;
		if (f && fgets(comm, sizeof(comm), f) && !strcmp(strtok(comm, "\n"), want))
			found = atoi(e->d_name);
		if (f)
			fclose(f);
	}
	if (proc)
		closedir(proc);
	return found;
}

static int trace_main(const char *comm, int at_exit)
{
	int pid = 0;

	for (int tries = 0; !pid && tries < 300; tries++) {
		pid = find_comm(comm);
		if (!pid)
			usleep(100000);
	}
	if (!pid || ptrace(PTRACE_SEIZE, pid, NULL, at_exit ? PTRACE_O_TRACEEXIT : 0) < 0)
		return fail("PTRACE_SEIZE");
	printf("traced\n");
	fflush(stdout);
	while (!kill(pid, 0))
		usleep(50000);
	printf("%s\n", waitpid(pid, NULL, __WALL | WNOHANG) < 0 ? "gone" : "still a tracee");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "pause"))
		return pause_main();
	if (argc == 3 && !strcmp(argv[1], "sem-put"))
		return sem_main(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "sem-get"))
		return sem_main(NULL);
	if (argc == 2 && !strcmp(argv[1], "mount-spaces"))
		return mount_spaces_main();
	if (argc == 3 && (!strcmp(argv[1], "listen") || !strcmp(argv[1], "connect")))
		return socket_main(argv[2], argv[1][0] == 'l');
	if (argc >= 3 && !strcmp(argv[1], "trace"))
		return trace_main(argv[2], argc == 4);
	fprintf(stderr, "peer: usage is in its source\n");
	return 2;
}
