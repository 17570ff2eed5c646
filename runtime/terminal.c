/* runtime/terminal.c - raw mode and the byte pump. */
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <termios.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/terminal.h"

#define PUMP_SIZE 65536

struct pump {
	char data[PUMP_SIZE];
	size_t begin, end;
};

static struct termios saved_termios;
static bool is_raw, stdin_ended;
static struct pump in, out; /* terminal to sandbox, sandbox to terminal */

void terminal_raw(void)
{
	struct termios t;

	if (is_raw || tcgetattr(STDIN_FILENO, &saved_termios) < 0)
		return;
	t = saved_termios;
	cfmakeraw(&t);
	is_raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &t) == 0;
}

void terminal_restore(void)
{
	if (is_raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &saved_termios);
	is_raw = false;
}

int terminal_size(unsigned *ret_rows, unsigned *ret_cols)
{
	struct winsize ws;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) < 0)
		return -errno;
	*ret_rows = ws.ws_row;
	*ret_cols = ws.ws_col;
	return 0;
}

void terminal_copy_size(int master)
{
	struct winsize ws;

	if (ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0)
		ioctl(master, TIOCSWINSZ, &ws);
}

static bool pump_empty(const struct pump *p)
{
	return p->begin == p->end;
}

void terminal_poll_prepare(int console, struct pollfd *pfd)
{
	pfd[0] = (struct pollfd){.fd = stdin_ended || !pump_empty(&in) ? -1 : STDIN_FILENO,
				 .events = POLLIN};
	pfd[1] = (struct pollfd){.fd = console,
				 .events = (short)((pump_empty(&out) ? POLLIN : 0) |
						   (pump_empty(&in) ? 0 : POLLOUT))};
	pfd[2] = (struct pollfd){.fd = pump_empty(&out) ? -1 : STDOUT_FILENO, .events = POLLOUT};
}

/* False at the end of the source. */
static bool pump_fill(struct pump *p, int fd)
{
	ssize_t n = read(fd, p->data, sizeof(p->data));

	if (n > 0) {
		p->begin = 0;
		p->end = (size_t)n;
		return true;
	}
	return n < 0 && (errno == EAGAIN || errno == EINTR);
}

static void pump_drain(struct pump *p, int fd)
{
	ssize_t n = write(fd, p->data + p->begin, p->end - p->begin);

	if (n > 0)
		p->begin += (size_t)n;
	else if (n < 0 && errno != EAGAIN && errno != EINTR)
		p->begin = p->end; /* nobody reads any more: drop */
}

bool terminal_poll_done(int console, const struct pollfd *pfd)
{
	if (pfd[0].fd >= 0 && pfd[0].revents && !pump_fill(&in, STDIN_FILENO))
		stdin_ended = true;
	if (!pump_empty(&in) && (pfd[1].revents & (POLLOUT | POLLERR)))
		pump_drain(&in, console);
	if (pump_empty(&out) && (pfd[1].revents & (POLLIN | POLLHUP | POLLERR)) &&
	    !pump_fill(&out, console))
		return false;
	if (!pump_empty(&out))
		pump_drain(&out, STDOUT_FILENO);
	return true;
}

void terminal_drain(int console)
{
	do {
		while (!pump_empty(&out))
			pump_drain(&out, STDOUT_FILENO);
	} while (pump_fill(&out, console) && !pump_empty(&out));
}
