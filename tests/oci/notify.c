/*
 * notify listen PATH        prints each datagram's lines until one of them is "STOP", or nothing has come for five minutes; the socket is at PATH first
 * notify send LINE...       one datagram to $NOTIFY_SOCKET, then what sd_notify_barrier(3) does
 * notify post LINE...       each a datagram, and no more
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

static int address(const char *path, struct sockaddr_un *un)
{
	*un = (struct sockaddr_un){.sun_family = AF_UNIX};
	if (!path || strlen(path) >= sizeof(un->sun_path))
		return fprintf(stderr, "no usable path\n"), -1;
	strcpy(un->sun_path, path);
	return socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
}

static int receive(const char *path)
{
	struct sockaddr_un un;
	int fd = address(path, &un);
	char text[4097];

	if (fd < 0 || bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0 || chmod(path, 0777) < 0)
		return perror(path), 1;
	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		ssize_t n;

		if (poll(&p, 1, 300000) <= 0)
			return printf("nothing\n"), 1;
		n = recv(fd, text, sizeof(text) - 1, 0);
		if (n < 0)
			return perror("recv"), 1;
		text[n] = '\0';
		if (strcmp(text, "STOP") == 0)
			return 0;
		printf("[%s]\n", text);
		fflush(stdout);
	}
}

static int barrier(int fd, const struct sockaddr_un *un)
{
	char text[] = "BARRIER=1", room[CMSG_SPACE(sizeof(int))] = {0};
	struct iovec iov = {text, sizeof(text) - 1};
	struct msghdr m = {.msg_name = (void *)un,
			   .msg_namelen = sizeof(*un),
			   .msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = room,
			   .msg_controllen = sizeof(room)};
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	struct pollfd p = {0};
	int ends[2];

	if (pipe(ends) < 0)
		return -1;
	*c = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
			      .cmsg_type = SCM_RIGHTS,
			      .cmsg_len = CMSG_LEN(sizeof(int))};
	memcpy(CMSG_DATA(c), &ends[1], sizeof(int));
	if (sendmsg(fd, &m, 0) < 0)
		return -1;
	close(ends[1]);
	p.fd = ends[0];
	return poll(&p, 1, 60000) == 1 && (p.revents & POLLHUP) ? 0 : -1;
}

int main(int argc, char **argv)
{
	char text[4096] = "";
	struct sockaddr_un un;
	int fd;

	if (argc == 3 && strcmp(argv[1], "listen") == 0)
		return receive(argv[2]);
	fd = address(getenv("NOTIFY_SOCKET"), &un);
	if (fd < 0)
		return 1;
	if (argc > 2 && strcmp(argv[1], "post") == 0) {
		for (int i = 2; i < argc; i++)
			if (sendto(fd, argv[i], strlen(argv[i]), 0, (struct sockaddr *)&un,
				   sizeof(un)) < 0)
				return perror(un.sun_path), 1;
		return 0;
	}
	for (int i = 2; i < argc; i++)
		snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%s",
			 i > 2 ? "\n" : "", argv[i]);
	if (sendto(fd, text, strlen(text), 0, (struct sockaddr *)&un, sizeof(un)) < 0)
		return perror(un.sun_path), 1;
	if (barrier(fd, &un) < 0)
		return perror("barrier"), 1;
	puts("sent");
	return 0;
}
