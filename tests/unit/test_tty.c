// LINK: moat_tty moat_synth moat_anon moat_vfs moat_mem moat_base
/*
 * Terminals. The line discipline is compared with the host's: the same settings and bytes go to a host pty and to ours, and
 * what the slave reads and the master sees must be equal. The sentry's tasks are replaced by stubs.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/rcu.h"
#include "fsimpl/anon/anon.h"
#include "sentry/pidns.h"
#include "sentry/task.h"
#include "sentry/tty/tty.h"
#include "tests/unit/file_rw.h"

/* ---- stubs of the sentry ---- */

struct kernel kernel;
static struct task self_task;
static struct thread_group self_group;
static struct process_group self_pgrp;
static struct session self_session;
static struct task *current_task;
static int last_pgrp, last_signal, ignored_signal;
static bool orphaned;

struct task *task_current(void)
{
	return current_task;
}
static struct task_cgroup container, other_container, *acting_in = &container;

struct task_cgroup *task_cgroup_current(void)
{
	return acting_in;
}
/* One pid namespace: numbers are what they are. */
static struct pid_namespace only_ns;

struct pid_namespace *pid_ns_current(void)
{
	return &only_ns;
}
int32_t pid_current_vnr(int32_t root)
{
	return root;
}
int32_t pid_root_of_slow(struct pid_namespace *ns, int32_t nr)
{
	(void)ns;
	return nr;
}
int signal_send_pgrp_kernel(int32_t pgid, int signo)
{
	last_pgrp = pgid;
	last_signal = signo;
	return 0;
}
int signal_send_group_kernel(struct thread_group *g, int signo)
{
	(void)g;
	last_signal = signo;
	return 0;
}
bool pgrp_is_orphaned(int32_t pgid)
{
	(void)pgid;
	return orphaned;
}
bool signal_ignored_or_blocked(struct task *t, int signo)
{
	(void)t;
	return signo == ignored_signal;
}
int32_t group_pgid(struct thread_group *g)
{
	return g->pgrp->id;
}
int32_t group_sid(struct thread_group *g)
{
	return g->pgrp->session->id;
}

static int copy_in(void *dst, uint64_t addr, size_t size)
{
	memcpy(dst, (void *)addr, size);
	return 0;
}
static int copy_out(uint64_t addr, const void *src, size_t size)
{
	memcpy((void *)addr, src, size);
	return 0;
}

/* ---- a pty, ours or the host's, behind one interface ---- */

struct pty {
	bool host;
	int m, s;
	struct file *fm, *fs;
};

static struct mount_namespace *ns;
static struct vfs_path root;
static struct cred *root_cred;

static int open_path(const char *path, unsigned flags, struct file **ret)
{
	struct vfs_lookup lk = {.cred = root_cred,
				.ns = ns,
				.root = root,
				.start = root,
				.path = path,
				.flags = LOOKUP_FOLLOW};
	struct open_args args = {.flags = flags};

	return vfs_open(&lk, &args, ret);
}

static void pty_open(struct pty *p, bool host)
{
	char path[32];
	int n, zero = 0;

	p->host = host;
	if (host) {
		p->m = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
		assert_true(p->m >= 0);
		assert_int_equal(ioctl(p->m, TIOCSPTLCK, &zero), 0);
		assert_int_equal(ioctl(p->m, TIOCGPTN, &n), 0);
		snprintf(path, sizeof(path), "/dev/pts/%d", n);
		p->s = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
		assert_true(p->s >= 0);
		return;
	}
	assert_int_equal(open_path("/ptmx", O_RDWR | O_NONBLOCK, &p->fm), 0);
	assert_int_equal(file_ioctl(p->fm, TIOCSPTLCK, (uint64_t)&zero), 0);
	assert_int_equal(file_ioctl(p->fm, TIOCGPTN, (uint64_t)&n), 0);
	snprintf(path, sizeof(path), "/%d", n);
	assert_int_equal(open_path(path, O_RDWR | O_NOCTTY | O_NONBLOCK, &p->fs), 0);
}

static void pty_close(struct pty *p)
{
	if (p->host) {
		close(p->s);
		close(p->m);
	} else {
		file_unref(p->fs);
		file_unref(p->fm);
	}
}

static long pty_ioctl(struct pty *p, bool master, unsigned long cmd, void *arg)
{
	long ret;

	if (!p->host)
		return (long)file_ioctl(master ? p->fm : p->fs, (unsigned)cmd, (uint64_t)arg);
	ret = ioctl(master ? p->m : p->s, cmd, arg);
	return ret < 0 ? -errno : ret;
}

static ssize_t pty_read(struct pty *p, bool master, void *buf, size_t size)
{
	ssize_t n;

	if (!p->host)
		return file_rd(master ? p->fm : p->fs, buf, size);
	n = read(master ? p->m : p->s, buf, size);
	return n < 0 ? -errno : n;
}

static ssize_t pty_write(struct pty *p, bool master, const void *buf, size_t size)
{
	ssize_t n;

	if (!p->host)
		return file_wr(master ? p->fm : p->fs, buf, size);
	n = write(master ? p->m : p->s, buf, size);
	return n < 0 ? -errno : n;
}

/* The host moves bytes from a pty's one side to the other in a worker, which a busy machine delays. */
static useconds_t settle_us = 1500;

static void pty_settle(struct pty *p)
{
	if (p->host)
		usleep(settle_us);
}

struct kterm {
	uint32_t i, o, c, l;
	uint8_t line, cc[19];
};

static void show(char *out, size_t size, const void *data, ssize_t n)
{
	size_t len = 0;

	if (n < 0) {
		snprintf(out, size, "err %zd", n);
		return;
	}
	out[0] = 0;
	for (ssize_t i = 0; i < n && len + 8 < size; i++) {
		unsigned char c = ((const unsigned char *)data)[i];

		len += (size_t)snprintf(out + len, size - len, c < 32 || c > 126 ? "\\%02x" : "%c",
					c);
	}
}

/* One case on one pty: settings, input, what is read. The transcript is the result. */
static void transcript(bool host, const struct kterm *set, const void *input, size_t size,
		       const void *output, size_t out_size, size_t read_size, char *out, size_t max)
{
	char buf[4096], text[8192];
	size_t len = 0;
	struct pty p;
	struct kterm k;
	ssize_t n;
	int avail = -1;

	pty_open(&p, host);
	assert_int_equal(pty_ioctl(&p, false, TCGETS, &k), 0);
	if (set) {
		k.i = set->i;
		k.o = set->o;
		k.l = set->l;
		memcpy(k.cc, set->cc, sizeof(k.cc));
	}
	assert_int_equal(pty_ioctl(&p, false, TCSETS, &k), 0);
	if (out_size) {
		n = pty_write(&p, false, output, out_size);
		len += (size_t)snprintf(out + len, max - len, "wrote %zd\n", n);
	}
	n = pty_write(&p, true, input, size);
	len += (size_t)snprintf(out + len, max - len, "sent %zd\n", n);
	pty_settle(&p);
	pty_ioctl(&p, false, FIONREAD, &avail);
	len += (size_t)snprintf(out + len, max - len, "avail %d\n", avail);
	for (int i = 0; i < 30; i++) {
		n = pty_read(&p, false, buf, read_size);
		show(text, sizeof(text), buf, n);
		len += (size_t)snprintf(out + len, max - len, "slave: %s\n", text);
		if (n == -EAGAIN || len > max - 9000)
			break;
	}
	for (int i = 0; i < 10; i++) {
		n = pty_read(&p, true, buf, sizeof(buf));
		show(text, sizeof(text), buf, n);
		len += (size_t)snprintf(out + len, max - len, "master: %s\n", text);
		if (n == -EAGAIN || len > max - 9000)
			break;
	}
	pty_close(&p);
}

static char ours[1 << 16], theirs[1 << 16];

static bool differs(const struct kterm *set, const void *in, size_t size, const void *out,
		    size_t out_size, size_t read_size)
{
	transcript(true, set, in, size, out, out_size, read_size, theirs, sizeof(theirs));
	transcript(false, set, in, size, out, out_size, read_size, ours, sizeof(ours));
	return strcmp(ours, theirs);
}

static bool differs_for_long(const struct kterm *set, const void *in, size_t size, const void *out,
			     size_t out_size, size_t read_size)
{
	bool ret = true;

	for (settle_us = 1500; ret && settle_us < 1000000; settle_us *= 5)
		ret = differs(set, in, size, out, out_size, read_size);
	settle_us = 1500;
	return ret;
}

static void compare(const char *what, const struct kterm *set, const void *in, size_t size,
		    size_t read_size)
{
	if (differs_for_long(set, in, size, NULL, 0, read_size)) {
		print_message("%s\nhost:\n%sours:\n%s", what, theirs, ours);
		fail();
	}
}

static const struct kterm dflt = {
	.i = ICRNL | IXON,
	.o = OPOST | ONLCR,
	.l = ISIG | ICANON | ECHO | ECHOE | ECHOK | ECHOCTL | ECHOKE | IEXTEN,
	.cc = {3, 28, 127, 21, 4, 0, 1, 0, 17, 19, 26, 0, 18, 15, 23, 22, 0},
};

static void test_line_discipline_cases(void **state)
{
	static const char *const cases[] = {
		"hello\r",
		"one\rtwo\rthree",
		"abc\177\177x\r",
		"word1 word2\027\027new\r",
		"kill this\025kept\r",
		"tab\there\177\177\177\177\177y\r",
		"\t\ta\177\177\177b\r",
		"lit\026\003x\026\026\r",
		"\004",
		"abc\004def\004\r",
		"line\r\004\004",
		"\001\002\005\033\r",
		"\001\177\177\r",
		"re\022print\r",
		"int\003errupt\r",
		"quit\034x\032y\r",
		"utf \303\251\177\r",
		"\r\r\n\n",
		"stop\023ped\021on\r",
		"\0nul\r",
	};
	struct kterm k = dflt;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		size_t size = cases[i][0] ? strlen(cases[i]) : 5;

		k = dflt;
		compare(cases[i], &k, cases[i], size, 4096);
		compare(cases[i], &k, cases[i], size, 3);
		k.l &= ~(unsigned)ICANON;
		compare("raw-ish", &k, cases[i], size, 4096);
		k = dflt;
		k.l &= ~(unsigned)ECHO;
		compare("no echo", &k, cases[i], size, 4096);
		k = dflt;
		k.i |= IUTF8;
		k.l = (k.l & ~(unsigned)ECHOE) | ECHOPRT;
		compare("echoprt", &k, cases[i], size, 4096);
		k = dflt;
		k.l &= ~(unsigned)(ECHOKE | ECHOCTL);
		k.o &= ~(unsigned)ONLCR;
		compare("noctl", &k, cases[i], size, 4096);
	}
}

static uint32_t rnd(uint32_t *s)
{
	*s = *s * 1664525 + 1013904223;
	return *s >> 8;
}

static void test_line_discipline_random(void **state)
{
	static const uint8_t bytes[] = {'a', 'b', ' ', '_', 'Z',  '\t', '\r', '\n',
					127, 21,  23,  22,  18,	  4,	3,    '9',
					1,   27,  8,   0,   0xc3, 0xa9, '-',  26};
	static const uint32_t iflags[] = {ICRNL, INLCR, IGNCR, IXON, IXANY, ISTRIP, IUCLC, IUTF8};
	static const uint32_t oflags[] = {OPOST, ONLCR, OCRNL, ONOCR, ONLRET, OLCUC, XTABS};
	static const uint32_t lflags[] = {ISIG,	  ICANON,  ECHO,   ECHOE,   ECHOK, ECHONL,
					  NOFLSH, ECHOCTL, ECHOKE, ECHOPRT, IEXTEN};
	uint32_t seed = 12345;
	int rounds = getenv("TTY_ROUNDS") ? atoi(getenv("TTY_ROUNDS")) : 400;

	(void)state;
	for (int round = 0; round < rounds; round++) {
		struct kterm k = dflt;
		uint8_t in[60], out[30];
		size_t n = rnd(&seed) % sizeof(in) + 1, on = rnd(&seed) % 3 ? 0 : rnd(&seed) % 30;
		uint32_t flips = rnd(&seed) % 4;

		for (size_t i = 0; i < n; i++)
			in[i] = bytes[rnd(&seed) % ARRAY_SIZE(bytes)];
		for (size_t i = 0; i < on; i++)
			out[i] = bytes[rnd(&seed) % 8];
		while (flips--) {
			k.i ^= iflags[rnd(&seed) % ARRAY_SIZE(iflags)];
			k.o ^= oflags[rnd(&seed) % ARRAY_SIZE(oflags)];
			k.l ^= lflags[rnd(&seed) % ARRAY_SIZE(lflags)];
		}
		size_t rs = rnd(&seed) % 2 ? 4096 : rnd(&seed) % 10 + 1;
		if (differs_for_long(&k, in, n, out, on, rs)) {
			char text[512];

			show(text, sizeof(text), in, (ssize_t)n);
			print_message("round %d i %x o %x l %x in %s\nhost:\n%sours:\n%s", round,
				      k.i, k.o, k.l, text, theirs, ours);
			fail();
		}
	}
}

static void test_overflow(void **state)
{
	char *big = malloc(20000);
	struct kterm raw = dflt;
	char buf[8192];
	struct pty p;
	ssize_t n;

	(void)state;
	memset(big, 'x', 20000);
	/* A canonical line longer than the buffer loses its end, keeps its newline. */
	pty_open(&p, false);
	assert_int_equal(pty_write(&p, true, big, 6000), 6000);
	assert_int_equal(pty_write(&p, true, "\r", 1), 1);
	assert_int_equal(pty_read(&p, false, buf, sizeof(buf)), 4096);
	assert_int_equal(buf[4095], '\n');
	pty_close(&p);
	/* Raw: the writer waits. */
	raw.l = 0;
	raw.i = 0;
	pty_open(&p, false);
	assert_int_equal(pty_ioctl(&p, false, TCSETS, &raw), 0);
	n = pty_write(&p, true, big, 20000);
	assert_in_range(n, 4095, 4096 + 8192);
	assert_int_equal(pty_write(&p, true, big, 1), -EAGAIN);
	assert_int_equal(file_poll(p.fm) & POLLOUT, 0);
	for (ssize_t got = 0; got < n;) {
		ssize_t r = pty_read(&p, false, buf, sizeof(buf));

		assert_true(r > 0);
		got += r;
	}
	assert_int_equal(pty_read(&p, false, buf, 1), -EAGAIN);
	/* Output: a bounded queue. */
	n = pty_write(&p, false, big, 20000);
	assert_in_range(n, 4096, 16384);
	assert_int_equal(pty_write(&p, false, big, 1), -EAGAIN);
	while ((n = pty_read(&p, true, buf, sizeof(buf))) > 0)
		;
	assert_int_equal(n, -EAGAIN);
	assert_true(file_poll(p.fs) & POLLOUT);
	pty_close(&p);
	free(big);
}

static void test_hangups(void **state)
{
	struct pty p;
	char buf[16];
	struct kterm k;

	(void)state;
	pty_open(&p, false);
	assert_int_equal(pty_write(&p, false, "bye", 3), 3);
	assert_int_equal(file_poll(p.fm) & POLLHUP, 0);
	file_unref(p.fs);
	assert_true(file_poll(p.fm) & POLLHUP);
	assert_int_equal(pty_read(&p, true, buf, 16), 3);
	assert_int_equal(pty_read(&p, true, buf, 16), -EIO);
	assert_int_equal(open_path("/0", O_RDWR | O_NOCTTY | O_NONBLOCK, &p.fs), 0);
	assert_int_equal(pty_read(&p, true, buf, 16), -EAGAIN);
	file_unref(p.fm);
	assert_int_equal(pty_read(&p, false, buf, 16), 0);
	assert_int_equal(pty_write(&p, false, "x", 1), -EIO);
	assert_int_equal(file_ioctl(p.fs, TCGETS, (uint64_t)&k), -EIO);
	assert_true(file_poll(p.fs) & POLLHUP);
	assert_int_equal(open_path("/0", O_RDWR | O_NOCTTY, &p.fm), -ENOENT);
	file_unref(p.fs);
}

static void test_vmin_vtime(void **state)
{
	struct kterm raw = dflt;
	struct pty p;
	char buf[16];
	int64_t start;

	(void)state;
	raw.l = raw.i = 0;
	raw.cc[VMIN] = 3;
	pty_open(&p, false);
	assert_int_equal(pty_ioctl(&p, false, TCSETS, &raw), 0);
	assert_int_equal(pty_write(&p, true, "ab", 2), 2);
	assert_int_equal(file_poll(p.fs) & POLLIN, 0);
	assert_int_equal(pty_read(&p, false, buf, 16), 2); /* non-blocking: what is there */
	assert_int_equal(pty_write(&p, true, "abc", 3), 3);
	assert_true(file_poll(p.fs) & POLLIN);
	atomic_fetch_and(&p.fs->flags, ~(unsigned)O_NONBLOCK);
	assert_int_equal(pty_read(&p, false, buf, 16), 3);
	raw.cc[VMIN] = 0;
	raw.cc[VTIME] = 1;
	assert_int_equal(pty_ioctl(&p, false, TCSETS, &raw), 0);
	start = time_monotonic_ns();
	assert_int_equal(pty_read(&p, false, buf, 16), 0);
	assert_true(time_monotonic_ns() - start >= 90000000);
	raw.cc[VMIN] = 5;
	assert_int_equal(pty_ioctl(&p, false, TCSETS, &raw), 0);
	assert_int_equal(pty_write(&p, true, "ab", 2), 2);
	assert_int_equal(pty_read(&p, false, buf, 16), 2); /* after the gap */
	raw.cc[VMIN] = raw.cc[VTIME] = 0;
	assert_int_equal(pty_ioctl(&p, false, TCSETS, &raw), 0);
	assert_int_equal(pty_read(&p, false, buf, 16), 0);
	pty_close(&p);
}

static void test_packet(void **state)
{
	struct pty p;
	char buf[16];
	int on = 1;

	(void)state;
	pty_open(&p, false);
	assert_int_equal(pty_ioctl(&p, true, TIOCPKT, &on), 0);
	assert_int_equal(pty_write(&p, false, "out", 3), 3);
	assert_int_equal(pty_read(&p, true, buf, 16), 4);
	assert_memory_equal(buf, "\0out", 4);
	assert_int_equal(file_ioctl(p.fs, TCFLSH, TCIFLUSH), 0);
	assert_true(file_poll(p.fm) & POLLPRI);
	assert_int_equal(pty_read(&p, true, buf, 16), 1);
	assert_int_equal(buf[0], TIOCPKT_FLUSHREAD);
	pty_close(&p);
}

static void test_job_control(void **state)
{
	struct winsize ws = {24, 80, 0, 0};
	struct pty p;
	struct file *tty;
	char buf[16];
	int32_t id = 0;

	(void)state;
	pty_open(&p, false);
	/* a session leader, group 100 */
	self_session = (struct session){.id = 100, .leader = &self_group};
	self_pgrp = (struct process_group){.id = 100, .session = &self_session};
	self_group.pgrp = &self_pgrp;
	self_task.group = &self_group;
	current_task = &self_task;
	assert_int_equal(idr_alloc_at(&kernel.sessions, 100, &self_session), 0);
	assert_int_equal(idr_alloc_at(&kernel.groups, 100, &self_pgrp), 0);
	assert_null(tty_current());
	assert_int_equal(file_ioctl(p.fs, TIOCGPGRP, (uint64_t)&id), -ENOTTY);
	assert_int_equal(file_ioctl(p.fs, TIOCSCTTY, 0), 0);
	assert_int_equal(file_ioctl(p.fs, TIOCGPGRP, (uint64_t)&id), 0);
	assert_int_equal(id, 100);
	assert_int_equal(file_ioctl(p.fs, TIOCGSID, (uint64_t)&id), 0);
	assert_int_equal(id, 100);
	/* ^C */
	last_signal = 0;
	assert_int_equal(pty_write(&p, true, "\003", 1), 1);
	assert_int_equal(last_signal, SIGINT);
	assert_int_equal(last_pgrp, 100);
	assert_int_equal(pty_read(&p, true, buf, 16), 2);
	assert_memory_equal(buf, "^C", 2);
	assert_int_equal(pty_ioctl(&p, true, TIOCSWINSZ, &ws), 0);
	assert_int_equal(last_signal, SIGWINCH);
	/* in the background */
	self_pgrp.id = 200;
	assert_int_equal(file_rd(p.fs, buf, 1), -ERESTARTSYS_);
	assert_int_equal(last_signal, SIGTTIN);
	assert_int_equal(last_pgrp, 200);
	ignored_signal = SIGTTIN;
	assert_int_equal(file_rd(p.fs, buf, 1), -EIO);
	ignored_signal = 0;
	orphaned = true;
	assert_int_equal(file_rd(p.fs, buf, 1), -EIO);
	orphaned = false;
	assert_int_equal(file_wr(p.fs, "w", 1), 1); /* no TOSTOP */
	id = 200;
	assert_int_equal(file_ioctl(p.fs, TIOCSPGRP, (uint64_t)&id), -ERESTARTSYS_);
	assert_int_equal(last_signal, SIGTTOU);
	ignored_signal = SIGTTOU; /* as shells do */
	assert_int_equal(file_ioctl(p.fs, TIOCSPGRP, (uint64_t)&id), -ESRCH);
	assert_int_equal(idr_alloc_at(&kernel.groups, 200, &self_pgrp), 0);
	assert_int_equal(file_ioctl(p.fs, TIOCSPGRP, (uint64_t)&id), 0);
	ignored_signal = 0;
	assert_int_equal(file_rd(p.fs, buf, 1), -EAGAIN);
	/* the leader exits */
	last_signal = 0;
	tty_session_leader_exit(&self_session);
	assert_int_equal(last_signal, SIGHUP);
	assert_int_equal(last_pgrp, 200);
	assert_null(tty_current());
	assert_int_equal(file_rd(p.fs, buf, 1), 0);
	/* opening takes a terminal for a leader without one */
	assert_int_equal(open_path("/0", O_RDWR | O_NONBLOCK, &tty), 0);
	assert_int_equal(file_ioctl(tty, TIOCGPGRP, (uint64_t)&id), 0);
	assert_int_equal(file_ioctl(tty, TIOCNOTTY, 0), 0);
	assert_null(tty_current());
	file_unref(tty);
	pty_close(&p);
	idr_remove(&kernel.sessions, 100);
	idr_remove(&kernel.groups, 100);
	idr_remove(&kernel.groups, 200);
	current_task = NULL;
}

/* What comes, whenever it comes: if it never does ctest ends the test. */
static void read_whole(int fd, char *buf, size_t size)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (size_t got = 0; got < size;) {
		ssize_t n;

		assert_int_equal(poll(&p, 1, -1), 1);
		n = read(fd, buf + got, size - got);
		assert_true(n > 0 || errno == EAGAIN);
		got += n > 0 ? (size_t)n : 0;
	}
}

static void test_console(void **state)
{
	struct file *f, *dev;
	struct tty *t;
	unsigned index;
	char buf[64];
	int sv[2];

	(void)state;
	assert_int_equal(pipe(sv), 0);
	close(sv[0]);
	close(sv[1]);
	assert_int_equal(hostpoll_start(), 0);
	sv[0] = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK); /* any two-way descriptor */
	assert_true(sv[0] >= 0);
	{
		char path[32];
		int zero = 0, num;
		struct termios raw;

		ioctl(sv[0], TIOCSPTLCK, &zero);
		ioctl(sv[0], TIOCGPTN, &num);
		snprintf(path, sizeof(path), "/dev/pts/%d", num);
		sv[1] = open(path, O_RDWR | O_NOCTTY | O_NONBLOCK);
		assert_true(sv[1] >= 0);
		tcgetattr(sv[1], &raw);
		cfmakeraw(&raw);
		tcsetattr(sv[1], TCSANOW, &raw);
	}
	assert_int_equal(tty_console_create(NULL, sv[1], &index, &t), 0);
	snprintf(buf, sizeof(buf), "/%u", index);
	assert_int_equal(open_path(buf, O_RDWR | O_NOCTTY, &f), 0);
	/* Of one container, and of no other. */
	assert_int_equal(tty_open_device(&f->path, 5, 1, O_RDWR, &dev), 0);
	file_unref(dev);
	acting_in = &other_container;
	assert_int_equal(tty_open_device(&f->path, 5, 1, O_RDWR, &dev), -ENODEV);
	acting_in = &container;
	assert_int_equal(file_wr(f, "prompt\n", 7), 7);
	read_whole(sv[0], buf, 8);
	assert_memory_equal(buf, "prompt\r\n", 8);
	assert_int_equal(write(sv[0], "ls\r", 3), 3);
	assert_int_equal(file_rd(f, buf, sizeof(buf)),
			 3); /* blocks until the housekeeping thread brings it */
	assert_memory_equal(buf, "ls\n", 3);
	read_whole(sv[0], buf, 4);
	assert_memory_equal(buf, "ls\r\n", 4);
	assert_int_equal(read(sv[0], buf, 1), -1);
	tty_console_drain(t, time_monotonic_ns() + 1000000000);
	close(sv[0]);
	assert_int_equal(file_rd(f, buf, sizeof(buf)), 0);
	tty_console_forget(&container);
	assert_int_equal(tty_open_device(&f->path, 5, 1, O_RDWR, &dev), -ENODEV);
	file_unref(f);
	tty_unref(t);
}

static int setup(void **state)
{
	const struct filesystem_type *type;
	struct filesystem *fs;
	struct dentry *d;

	(void)state;
	rcu_thread_begin();
	if (vfs_init() || anon_init() || cred_create_root(&root_cred))
		return -1;
	cred_set_current(root_cred);
	vfs_hooks.copy_in = copy_in;
	vfs_hooks.copy_out = copy_out;
	rwlock_init(&kernel.taskset_lock, LOCK_TASKSET, "taskset");
	idr_init(&kernel.sessions, 1, TASKS_MAX, "sessions");
	idr_init(&kernel.groups, 1, TASKS_MAX, "groups");
	if (tty_init())
		return -1;
	type = vfs_find_type("devpts", 6);
	if (type->mount(type, "devpts", 0, "mode=620,ptmxmode=666", NULL, &fs, &d))
		return -1;
	if (mount_namespace_create(fs, d, 0, &ns))
		return -1;
	mount_namespace_root(ns, &root);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_line_discipline_cases),
		cmocka_unit_test(test_overflow),
		cmocka_unit_test(test_hangups),
		cmocka_unit_test(test_vmin_vtime),
		cmocka_unit_test(test_packet),
		cmocka_unit_test(test_job_control),
		cmocka_unit_test(test_line_discipline_random),
		cmocka_unit_test(test_console),
	};

	signal(SIGHUP, SIG_IGN);
	return cmocka_run_group_tests(tests, setup, NULL);
}
