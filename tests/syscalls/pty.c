/* Pseudo terminals: line discipline, job control, window size, hang-up. */
#include "t.h"

#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>
#include <termios.h>

static int master, slave;
static char slave_name[64];

static void open_pair(void)
{
	int n;

	master = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (master < 0 && errno == ENOENT)
		SKIP("there is no /dev/ptmx");
	CHECK(master >= 0);
	CHECK_OK(ioctl(master, TIOCSPTLCK, &(int){0}));
	CHECK_OK(ioctl(master, TIOCGPTN, &n));
	snprintf(slave_name, sizeof(slave_name), "/dev/pts/%d", n);
	slave = open(slave_name, O_RDWR | O_NOCTTY);
	CHECK(slave >= 0);
}

static void set_flags(tcflag_t lflag_off, tcflag_t oflag_off)
{
	struct termios t;

	CHECK_OK(tcgetattr(slave, &t));
	t.c_lflag &= ~lflag_off;
	t.c_oflag &= ~oflag_off;
	CHECK_OK(tcsetattr(slave, TCSANOW, &t));
}

/* Reads from the descriptor what is there within a moment. */
static const char *drain(int fd)
{
	static char buf[4096];
	struct pollfd p = {fd, POLLIN, 0};
	size_t len = 0;

	while (poll(&p, 1, len ? 60 : 400) == 1 && (p.revents & POLLIN)) {
		ssize_t n = read(fd, buf + len, sizeof(buf) - 1 - len);

		if (n <= 0)
			break;
		len += (size_t)n;
	}
	buf[len] = '\0';
	return buf;
}

TEST(open_and_attributes)
{
	struct termios t;
	struct stat st;

	open_pair();
	CHECK(isatty(slave) && isatty(master));
	CHECK_OK(fstat(slave, &st));
	CHECK(S_ISCHR(st.st_mode));
	CHECK_OK(tcgetattr(slave, &t));
	CHECK(t.c_lflag & ICANON);
	CHECK(t.c_lflag & ECHO);
	CHECK(t.c_lflag & ISIG);
	CHECK(t.c_oflag & OPOST);
	CHECK_EQ(t.c_cc[VINTR], 3);
	CHECK_EQ(t.c_cc[VEOF], 4);
	CHECK_EQ(cfgetospeed(&t), B38400);
	CHECK_ERR(tcgetattr(t_file("f", ""), &t), ENOTTY);
	CHECK_OK(ttyname_r(slave, (char[64]){0}, 64));
}

/* The kernel's struct termios: libc's is larger. */
struct kernel_termios {
	unsigned iflag, oflag, cflag, lflag;
	unsigned char line, cc[19];
};

TEST(locked_settings)
{
	struct kernel_termios lock;
	struct termios t;
	int err;

	open_pair();
	memset(&lock, 0xff, sizeof(lock));
	CHECK_OK(ioctl(slave, TIOCGLCKTRMIOS, &lock));
	CHECK_EQ(lock.lflag, 0);
	CHECK_EQ(lock.cc[VINTR], 0);
	lock.lflag = ECHO;
	lock.cc[VINTR] = 1;
	err = ioctl(slave, TIOCSLCKTRMIOS, &lock) < 0 ? errno : 0;
	if (err == EPERM)
		SKIP("not privileged");
	CHECK_EQ(err, 0);
	CHECK_OK(tcgetattr(slave, &t));
	t.c_lflag &= ~(tcflag_t)(ECHO | ISIG);
	t.c_cc[VINTR] = 5;
	t.c_cc[VQUIT] = 6;
	CHECK_OK(tcsetattr(slave, TCSANOW, &t));
	CHECK_OK(tcgetattr(slave, &t));
	CHECK_EQ(t.c_lflag & (ECHO | ISIG), ECHO);
	CHECK_EQ(t.c_cc[VINTR], 3);
	CHECK_EQ(t.c_cc[VQUIT], 6);
	t_become(1000, 1000);
	CHECK_ERR(ioctl(slave, TIOCSLCKTRMIOS, &lock), EPERM);
	CHECK_ERR(ioctl(slave, TIOCGLCKTRMIOS, NULL), EFAULT);
}

TEST(locked_until_unlocked)
{
	int n, m = open("/dev/ptmx", O_RDWR | O_NOCTTY);

	CHECK_OK(ioctl(m, TIOCGPTN, &n));
	snprintf(slave_name, sizeof(slave_name), "/dev/pts/%d", n);
	CHECK_ERR(open(slave_name, O_RDWR | O_NOCTTY), EIO);
	CHECK_OK(ioctl(m, TIOCSPTLCK, &(int){0}));
	CHECK_OK(open(slave_name, O_RDWR | O_NOCTTY));
	CHECK_OK(ioctl(m, TIOCGPTPEER, O_RDWR | O_NOCTTY));
}

TEST(canonical_line)
{
	char buf[64] = "";

	open_pair();
	CHECK_EQ(write(master, "hel", 3), 3);
	CHECK_EQ(poll(&(struct pollfd){slave, POLLIN, 0}, 1, 30), 0);
	CHECK_EQ(write(master, "lp\b\177o\nnext", 10), 10);
	CHECK_EQ(read(slave, buf, sizeof(buf)), 7);
	/* Erased was the backspace, which is an ordinary character here. */
	CHECK(!memcmp(buf, "hellpo\n", 7));
	/* ^U kills the line, ^D ends it without a newline. */
	CHECK_EQ(write(master, "\025abc\004", 5), 5);
	memset(buf, 0, sizeof(buf));
	CHECK_EQ(read(slave, buf, sizeof(buf)), 3);
	CHECK_STR(buf, "abc");
	CHECK_EQ(write(master, "\004", 1), 1);
	CHECK_EQ(read(slave, buf, sizeof(buf)), 0);
	/* A short read leaves the rest of the line. */
	CHECK_EQ(write(master, "one\ntwo\n", 8), 8);
	CHECK_EQ(read(slave, buf, 2), 2);
	CHECK_EQ(read(slave, buf, sizeof(buf)), 2);
	CHECK_EQ(read(slave, buf, sizeof(buf)), 4);
}

TEST(echo_and_output)
{
	open_pair();
	CHECK_EQ(write(master, "ab\n", 3), 3);
	CHECK_STR(drain(master), "ab\r\n");
	CHECK_EQ(write(slave, "out\n", 4), 4);
	CHECK_STR(drain(master), "out\r\n");
	set_flags(0, ONLCR);
	CHECK_EQ(write(slave, "out\n", 4), 4);
	CHECK_STR(drain(master), "out\n");
	set_flags(ECHO, 0);
	CHECK_EQ(write(master, "silent\n", 7), 7);
	CHECK_STR(drain(master), "");
}

TEST(control_characters_echo)
{
	open_pair();
	set_flags(ISIG, 0);
	CHECK_EQ(write(master, "\001", 1), 1);
	CHECK_STR(drain(master), "^A");
	CHECK_EQ(write(master, "x\177", 2), 2);
	CHECK_STR(drain(master), "x\b \b");
}

TEST(raw_mode)
{
	struct termios t;
	char buf[16] = "";

	open_pair();
	CHECK_OK(tcgetattr(slave, &t));
	cfmakeraw(&t);
	CHECK_OK(tcsetattr(slave, TCSAFLUSH, &t));
	CHECK_EQ(write(master, "\003\rx", 3), 3);
	CHECK_EQ(read(slave, buf, 16), 3);
	CHECK(!memcmp(buf, "\003\rx", 3));
	/* VMIN and VTIME. */
	t.c_cc[VMIN] = 0;
	t.c_cc[VTIME] = 0;
	CHECK_OK(tcsetattr(slave, TCSANOW, &t));
	CHECK_EQ(read(slave, buf, 16), 0);
	t.c_cc[VTIME] = 1;
	CHECK_OK(tcsetattr(slave, TCSANOW, &t));
	int64_t start = t_now_ms();
	CHECK_EQ(read(slave, buf, 16), 0);
	CHECK(t_now_ms() - start >= 90);
	t.c_cc[VMIN] = 3;
	t.c_cc[VTIME] = 0;
	CHECK_OK(tcsetattr(slave, TCSANOW, &t));
	if (fork() == 0) {
		write(master, "a", 1);
		t_sleep_ms(30);
		write(master, "bc", 2);
		_exit(0);
	}
	CHECK_EQ(read(slave, buf, 16), 3);
}

TEST(input_flags)
{
	char buf[16] = "";

	open_pair();
	/* ICRNL is on: a carriage return ends the line. */
	CHECK_EQ(write(master, "a\r", 2), 2);
	CHECK_EQ(read(slave, buf, 16), 2);
	CHECK_STR(buf, "a\n");
}

TEST(window_size)
{
	struct winsize ws = {0};

	open_pair();
	CHECK_OK(ioctl(slave, TIOCGWINSZ, &ws));
	CHECK_EQ(ws.ws_row, 0);
	ws = (struct winsize){24, 80, 0, 0};
	CHECK_OK(ioctl(master, TIOCSWINSZ, &ws));
	memset(&ws, 0, sizeof(ws));
	CHECK_OK(ioctl(slave, TIOCGWINSZ, &ws));
	CHECK_EQ(ws.ws_row, 24);
	CHECK_EQ(ws.ws_col, 80);
}

static volatile sig_atomic_t got;

static void on_signal(int sig)
{
	got = sig;
}

/* In a new session with the slave as its terminal. */
static pid_t in_session(void (*fn)(void))
{
	pid_t pid = fork();

	if (pid == 0) {
		CHECK(setsid() > 0);
		CHECK_OK(ioctl(slave, TIOCSCTTY, 0));
		fn();
		_exit(0);
	}
	return pid;
}

static void check_terminal(void)
{
	int tty = open("/dev/tty", O_RDWR);

	CHECK(tty >= 0);
	CHECK_EQ(tcgetpgrp(tty), getpgrp());
	CHECK_EQ(tcgetsid(tty), getpid());
	CHECK_EQ(write(tty, "tty", 3), 3);
	signal(SIGHUP, SIG_IGN);
	CHECK_OK(ioctl(tty, TIOCNOTTY));
	CHECK_ERR(open("/dev/tty", O_RDWR), ENXIO);
}

TEST(controlling_terminal)
{
	open_pair();
	CHECK_ERR(tcgetpgrp(slave), ENOTTY);
	t_wait_ok(in_session(check_terminal));
	CHECK_STR(drain(master), "tty");
}

static void acquire_by_open(void)
{
	int fd;

	CHECK_OK(ioctl(slave, TIOCNOTTY));
	fd = open(slave_name, O_RDWR);
	CHECK(fd >= 0);
	CHECK_OK(open("/dev/tty", O_RDWR));
}

TEST(open_acquires)
{
	open_pair();
	signal(SIGHUP, SIG_IGN);
	t_wait_ok(in_session(acquire_by_open));
}

static void wait_signal(void)
{
	signal(SIGINT, on_signal);
	signal(SIGQUIT, on_signal);
	signal(SIGWINCH, on_signal);
	CHECK_EQ(write(slave, "R", 1), 1);
	while (!got)
		usleep(1000);
	_exit(got);
}

static int signal_for(const char *typed)
{
	char c;
	pid_t pid;
	int status;

	open_pair();
	pid = in_session(wait_signal);
	CHECK_EQ(read(master, &c, 1), 1);
	if (typed)
		CHECK_EQ(write(master, typed, 1), 1);
	else
		CHECK_OK(ioctl(master, TIOCSWINSZ, &(struct winsize){10, 10, 0, 0}));
	status = t_wait_status(pid);
	return WEXITSTATUS(status);
}

TEST(keyboard_signals)
{
	CHECK_EQ(signal_for("\003"), SIGINT);
	CHECK_EQ(signal_for("\034"), SIGQUIT);
	CHECK_EQ(signal_for(NULL), SIGWINCH);
}

static void stop_by_key(void)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		setpgid(0, 0);
		signal(SIGTTOU, SIG_IGN);
		CHECK_OK(tcsetpgrp(slave, getpid()));
		signal(SIGTTOU, SIG_DFL);
		CHECK_EQ(write(slave, "R", 1), 1);
		for (;;)
			pause();
	}
	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGTSTP);
	/* The shell takes the terminal back, continues the job in the background; it reads. */
	signal(SIGTTOU, SIG_IGN);
	CHECK_OK(tcsetpgrp(slave, getpgrp()));
	CHECK_OK(kill(child, SIGKILL));
	CHECK_EQ(waitpid(child, &status, 0), child);
}

TEST(stop_key)
{
	char c;
	pid_t pid;

	open_pair();
	pid = in_session(stop_by_key);
	CHECK_EQ(read(master, &c, 1), 1);
	CHECK_EQ(write(master, "\032", 1), 1);
	t_wait_ok(pid);
}

static void background_reader(void)
{
	pid_t child = fork();
	char c;
	int status;

	if (child == 0) {
		setpgid(0, 0);
		if (read(slave, &c, 1) == 1 && c == 'z')
			_exit(0);
		_exit(1);
	}
	setpgid(child, child);
	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGTTIN);
	CHECK_OK(tcsetpgrp(slave, child));
	CHECK_OK(kill(child, SIGCONT));
	CHECK_EQ(write(master, "z\n", 2), 2);
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

TEST(background_read_stops)
{
	open_pair();
	t_wait_ok(in_session(background_reader));
}

static void background_writer(void)
{
	struct termios t;
	pid_t child;
	int status;

	CHECK_OK(tcgetattr(slave, &t));
	t.c_lflag |= TOSTOP;
	CHECK_OK(tcsetattr(slave, TCSANOW, &t));
	child = fork();
	if (child == 0) {
		setpgid(0, 0);
		write(slave, "x", 1);
		_exit(0);
	}
	setpgid(child, child);
	CHECK_EQ(waitpid(child, &status, WUNTRACED), child);
	CHECK(WIFSTOPPED(status));
	CHECK_EQ(WSTOPSIG(status), SIGTTOU);
	CHECK_OK(kill(child, SIGKILL));
	CHECK_EQ(waitpid(child, &status, 0), child);
	/* Ignored or blocked: the write goes through. */
	child = fork();
	if (child == 0) {
		signal(SIGTTOU, SIG_IGN);
		setpgid(0, 0);
		_exit(write(slave, "x", 1) == 1 ? 0 : 1);
	}
	CHECK_EQ(waitpid(child, &status, 0), child);
	CHECK_EQ(status, 0);
}

TEST(background_write_stops)
{
	open_pair();
	t_wait_ok(in_session(background_writer));
}

static void wait_hup(void)
{
	signal(SIGHUP, on_signal);
	close(master);
	CHECK_EQ(write(slave, "R", 1), 1);
	while (!got)
		usleep(1000);
	CHECK_EQ(got, SIGHUP);
	CHECK_EQ(read(slave, &(char){0}, 1), 0);
	CHECK_ERR(write(slave, "x", 1), EIO);
}

TEST(hangup)
{
	char c;
	pid_t pid;

	open_pair();
	pid = in_session(wait_hup);
	CHECK_EQ(read(master, &c, 1), 1);
	close(slave);
	close(master);
	t_wait_ok(pid);
}

TEST(slave_closed)
{
	struct pollfd p;
	char c;

	open_pair();
	CHECK_EQ(write(slave, "x", 1), 1);
	close(slave);
	CHECK_EQ(read(master, &c, 1), 1);
	CHECK_ERR(read(master, &c, 1), EIO);
	p = (struct pollfd){master, POLLIN, 0};
	CHECK_EQ(poll(&p, 1, 0), 1);
	CHECK(p.revents & POLLHUP);
	/* Opened again it works again. */
	slave = open(slave_name, O_RDWR | O_NOCTTY);
	CHECK_EQ(write(slave, "y", 1), 1);
	CHECK_EQ(read(master, &c, 1), 1);
}

TEST(session_leader_exit)
{
	int said[2];
	pid_t pid;
	char c;

	open_pair();
	CHECK_OK(pipe(said));
	pid = fork();
	if (pid == 0) {
		pid_t child;
		int tell[2];

		CHECK_OK(pipe(tell));
		CHECK(setsid() > 0);
		CHECK_OK(ioctl(slave, TIOCSCTTY, 0));
		child = fork();
		if (child == 0) {
			/* In the foreground group when the leader goes: SIGHUP. */
			signal(SIGHUP, on_signal);
			CHECK_EQ(write(tell[1], "r", 1), 1);
			while (!got)
				usleep(1000);
			CHECK_EQ(write(said[1], got == SIGHUP ? "h" : "?", 1), 1);
			_exit(0);
		}
		CHECK_EQ(read(tell[0], &c, 1), 1);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_OK(close(said[1]));
	CHECK_EQ(read(said[0], &c, 1), 1);
	CHECK_EQ(c, 'h');
}

TEST(flush_and_queues)
{
	int n;

	open_pair();
	set_flags(ICANON | ECHO, 0);
	CHECK_EQ(write(master, "abc", 3), 3);
	/* Linux passes it on from a work queue. */
	CHECK_EQ(poll(&(struct pollfd){slave, POLLIN, 0}, 1, 1000), 1);
	CHECK_OK(ioctl(slave, FIONREAD, &n));
	CHECK_EQ(n, 3);
	CHECK_OK(tcflush(slave, TCIFLUSH));
	CHECK_OK(ioctl(slave, FIONREAD, &n));
	CHECK_EQ(n, 0);
	CHECK_EQ(write(slave, "out", 3), 3);
	CHECK_EQ(poll(&(struct pollfd){master, POLLIN, 0}, 1, 1000), 1);
	CHECK_OK(ioctl(master, FIONREAD, &n));
	CHECK_EQ(n, 3);
	CHECK_OK(tcdrain(slave));
}

/* A node of a terminal's number says nothing of whose terminal it is: devpts does, or what is mounted beside ptmx. */
TEST(nodes_outside_devpts)
{
	int n, m;

	open_pair();
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mkdir("d", 0755) < 0 || mount("d", "d", "tmpfs", 0, NULL) < 0)
		SKIP("mounting is not allowed");
	CHECK_OK(ioctl(master, TIOCGPTN, &n));
	CHECK_OK(mknod("d/tty", S_IFCHR | 0666, makedev(136, (unsigned)n)));
	CHECK_ERR(open("d/tty", O_RDWR | O_NOCTTY), EIO);
	CHECK_OK(mknod("d/ptmx", S_IFCHR | 0666, makedev(5, 2)));
	CHECK_ERR(open("d/ptmx", O_RDWR | O_NOCTTY), ENOENT);
	CHECK_OK(mkdir("d/pts", 0755));
	CHECK_ERR(open("d/ptmx", O_RDWR | O_NOCTTY), ENODEV);
	CHECK_OK(mount("d", "d/pts", "devpts", 0, "newinstance"));
	m = open("d/ptmx", O_RDWR | O_NOCTTY);
	CHECK(m >= 0);
	CHECK_OK(ioctl(m, TIOCGPTN, &n));
	CHECK_EQ(n, 0);
	CHECK_OK(access("d/pts/0", F_OK));
}
