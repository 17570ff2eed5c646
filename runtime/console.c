/* runtime/console.c - descriptors of a container: its terminal, its standard streams. */
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/sandbox.h"

int console_open(int *ret_master, int *ret_slave)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC), slave = -1, err;
	struct termios t;

	if (master < 0 || grantpt(master) < 0 || unlockpt(master) < 0)
		goto out_errno;
	slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (slave < 0 || tcgetattr(slave, &t) < 0)
		goto out_errno;
	/* The guest's line discipline does the work. */
	cfmakeraw(&t);
	if (tcsetattr(slave, TCSANOW, &t) < 0)
		goto out_errno;
	*ret_master = master;
	*ret_slave = slave;
	return 0;
out_errno:
	err = -errno;
	cli_error("cannot make a terminal: %s", strerror(-err));
	if (master >= 0)
		close(master);
	if (slave >= 0)
		close(slave);
	return err;
}

int console_send(const char *socket_path, int master)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	auto_close int sock = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	auto_close int dir = -1;
	auto_free char *copy = strdup(socket_path);
	const char *slash = strrchr(socket_path, '/');
	char name[64];
	ssize_t n;

	if (sock < 0 || !copy)
		return -ENOMEM;
	if (strlen(socket_path) < sizeof(addr.sun_path)) {
		strcpy(addr.sun_path, socket_path);
	} else {
		/* Too long for an address: through the directory's descriptor. */
		dir = open(dirname(copy), O_PATH | O_DIRECTORY | O_CLOEXEC);
		snprintf(addr.sun_path, sizeof(addr.sun_path), "/proc/self/fd/%d/%.80s", dir,
			 slash ? slash + 1 : socket_path);
	}
	if (connect(sock, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int err = -errno;

		cli_error("--console-socket %s: %m", socket_path);
		return err;
	}
	if (ptsname_r(master, name, sizeof(name)) != 0)
		strcpy(name, "/dev/ptmx");
	n = io_send_fds(sock, name, strlen(name), &master, 1);
	if (n < 0)
		cli_error("--console-socket %s: %s", socket_path, strerror((int)-n));
	return n < 0 ? (int)n : 0;
}

void stdio_to_null(bool keep_stderr)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	if (null < 0)
		return;
	for (int fd = 0; fd < (keep_stderr ? 2 : 3); fd++)
		dup2(null, fd);
	if (null > 2)
		close(null);
}
