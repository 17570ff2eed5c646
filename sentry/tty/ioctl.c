/*
 * sentry/tty/ioctl.c - ioctl_tty(2). On a master, requests about the line act on its slave, as on Linux.
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <linux/capability.h>

#include "sentry/pidns.h"
#include "sentry/tty/internal.h"

#define KTERMIOS_SIZE 36u /* struct termios of TCGETS: no speeds */

/* struct termio of the older calls. */
struct ktermio {
	uint16_t c_iflag, c_oflag, c_cflag, c_lflag;
	uint8_t c_line, c_cc[8];
};

enum {
	K_TCGETS2 = 0x802c542a,
	K_TCSETS2 = 0x402c542b,
	K_TCSETSW2,
	K_TCSETSF2,
};

static const uint32_t bauds[] = {0,	  50,	   75,	    110,     134,     150,     200,
				 300,	  600,	   1200,    1800,    2400,    4800,    9600,
				 19200,	  38400,   57600,   115200,  230400,  460800,  500000,
				 576000,  921600,  1000000, 1152000, 1500000, 2000000, 2500000,
				 3000000, 3500000, 4000000};

static uint32_t baud_of(const struct ktermios *k, unsigned bits, uint32_t given)
{
	if (bits == BOTHER)
		return given;
	if (bits & CBAUDEX)
		bits = (bits & ~CBAUDEX) + 15;
	(void)k;
	return bits < ARRAY_SIZE(bauds) ? bauds[bits] : 0;
}

static void termios_speeds(struct ktermios *k)
{
	unsigned in = (k->c_cflag >> IBSHIFT) & CBAUD;

	k->c_ospeed = baud_of(k, k->c_cflag & CBAUD, k->c_ospeed);
	k->c_ispeed = in ? baud_of(k, in, k->c_ispeed) : k->c_ospeed;
}

/* ---- settings ---- */

static void flush_tty(struct tty *t, bool in, bool out)
{
	mutex_lock(&t->lock);
	if (in) {
		ldisc_flush_input(t);
		t->in.tail = t->in.head;
	}
	if (out)
		ldisc_flush_output(t);
	mutex_unlock(&t->lock);
}

static tcflag_t keep_locked(tcflag_t new_, tcflag_t old, tcflag_t locked)
{
	return (new_ & ~locked) | (old & locked);
}

/* What TIOCSLCKTRMIOS has locked stays as it is. t->lock held. */
static void termios_keep_locked(const struct tty *t, struct ktermios *k)
{
	const struct ktermios *old = &t->termios, *l = &t->termios_locked;

	k->c_iflag = keep_locked(k->c_iflag, old->c_iflag, l->c_iflag);
	k->c_oflag = keep_locked(k->c_oflag, old->c_oflag, l->c_oflag);
	k->c_cflag = keep_locked(k->c_cflag, old->c_cflag, l->c_cflag);
	k->c_lflag = keep_locked(k->c_lflag, old->c_lflag, l->c_lflag);
	if (l->c_line)
		k->c_line = old->c_line;
	for (size_t i = 0; i < ARRAY_SIZE(k->c_cc); i++)
		if (l->c_cc[i])
			k->c_cc[i] = old->c_cc[i];
}

static int set_locked_user(struct tty *t, uint64_t arg)
{
	struct ktermios k = {0};
	int err;

	if (!cred_has_cap(cred_current(), CAP_SYS_ADMIN))
		return -EPERM;
	err = vfs_user_copy_in(&k, arg, KTERMIOS_SIZE);
	if (err)
		return err;
	mutex_lock(&t->lock);
	t->termios_locked = k;
	mutex_unlock(&t->lock);
	return 0;
}

static int get_locked_user(struct tty *t, uint64_t arg)
{
	struct ktermios k;

	mutex_lock(&t->lock);
	k = t->termios_locked;
	mutex_unlock(&t->lock);
	return vfs_user_copy_out(arg, &k, KTERMIOS_SIZE);
}

static int set_termios(struct tty *t, struct ktermios *k, bool flush)
{
	int err = tty_check_change(t, SIGTTOU);

	if (err)
		return err;
	if (flush)
		flush_tty(t, true, false);
	mutex_lock(&t->lock);
	termios_keep_locked(t, k);
	ldisc_set_termios(t, k);
	mutex_unlock(&t->lock);
	return 0;
}

static void get_termios(struct tty *t, struct ktermios *ret)
{
	mutex_lock(&t->lock);
	*ret = t->termios;
	mutex_unlock(&t->lock);
}

static int set_termios_user(struct tty *t, uint64_t arg, bool two, bool flush)
{
	struct ktermios k;
	int err;

	get_termios(t, &k);
	err = vfs_user_copy_in(&k, arg, two ? sizeof(k) : KTERMIOS_SIZE);
	if (err)
		return err;
	termios_speeds(&k);
	return set_termios(t, &k, flush);
}

static int get_termio_user(struct tty *t, uint64_t arg)
{
	struct ktermio io = {0};
	struct ktermios k;

	get_termios(t, &k);
	io.c_iflag = (uint16_t)k.c_iflag;
	io.c_oflag = (uint16_t)k.c_oflag;
	io.c_cflag = (uint16_t)k.c_cflag;
	io.c_lflag = (uint16_t)k.c_lflag;
	io.c_line = k.c_line;
	memcpy(io.c_cc, k.c_cc, sizeof(io.c_cc));
	return vfs_user_copy_out(arg, &io, sizeof(io));
}

static int set_termio_user(struct tty *t, uint64_t arg, bool flush)
{
	struct ktermio io;
	struct ktermios k;
	int err = vfs_user_copy_in(&io, arg, sizeof(io));

	if (err)
		return err;
	get_termios(t, &k);
	k.c_iflag = (k.c_iflag & 0xffff0000) | io.c_iflag;
	k.c_oflag = (k.c_oflag & 0xffff0000) | io.c_oflag;
	k.c_cflag = (k.c_cflag & 0xffff0000) | io.c_cflag;
	k.c_lflag = (k.c_lflag & 0xffff0000) | io.c_lflag;
	memcpy(k.c_cc, io.c_cc, sizeof(io.c_cc));
	termios_speeds(&k);
	return set_termios(t, &k, flush);
}

/* True: cmd was one of these and *ret is the answer. */
static bool ioctl_termios(struct tty *t, unsigned cmd, uint64_t arg, int64_t *ret)
{
	struct ktermios k;

	switch (cmd) {
	case TCGETS:
	case K_TCGETS2:
		get_termios(t, &k);
		*ret = vfs_user_copy_out(arg, &k, cmd == TCGETS ? KTERMIOS_SIZE : sizeof(k));
		return true;
	case TCSETS:
	case TCSETSW:
	case TCSETSF:
		*ret = set_termios_user(t, arg, false, cmd == TCSETSF);
		return true;
	case K_TCSETS2:
	case K_TCSETSW2:
	case K_TCSETSF2:
		*ret = set_termios_user(t, arg, true, cmd == K_TCSETSF2);
		return true;
	case TCGETA:
		*ret = get_termio_user(t, arg);
		return true;
	case TCSETA:
	case TCSETAW:
	case TCSETAF:
		*ret = set_termio_user(t, arg, cmd == TCSETAF);
		return true;
	case TIOCGLCKTRMIOS:
		*ret = get_locked_user(t, arg);
		return true;
	case TIOCSLCKTRMIOS:
		*ret = set_locked_user(t, arg);
		return true;
	}
	return false;
}

/* ---- flow ---- */

static int64_t ioctl_flow(struct tty *t, uint64_t arg)
{
	int err = tty_check_change(t, SIGTTOU);

	if (err)
		return err;
	mutex_lock(&t->lock);
	switch (arg) {
	case TCOOFF:
		t->tco_stopped = true;
		break;
	case TCOON:
		t->tco_stopped = false;
		t->stopped = false;
		wait_queue_wake(&t->wait, POLLOUT | POLLWRNORM);
		break;
	case TCIOFF: /* a START or STOP character would go to the master */
	case TCION: {
		uint8_t c = t->termios.c_cc[arg == TCIOFF ? VSTOP : VSTART];

		if (c && ring_room(&t->out))
			ring_put(&t->out, c);
		tty_output_ready(t);
		break;
	}
	default:
		err = -EINVAL;
	}
	mutex_unlock(&t->lock);
	return err;
}

static int64_t ioctl_flush(struct tty *t, uint64_t arg)
{
	int err = tty_check_change(t, SIGTTOU);

	if (err)
		return err;
	if (arg > TCIOFLUSH)
		return -EINVAL;
	flush_tty(t, arg != TCOFLUSH, arg != TCIFLUSH);
	return 0;
}

/* ---- job control ---- */

static int64_t ioctl_get_pgrp(struct tty *t, bool master, uint64_t arg, bool sid)
{
	int32_t id;
	bool have;

	if (!master && !tty_is_controlling(t))
		return -ENOTTY;
	mutex_lock(&t->lock);
	id = sid ? t->session : t->pgrp;
	have = t->session;
	mutex_unlock(&t->lock);
	if (sid && !have)
		return -ENOTTY;
	id = pid_current_vnr(id);
	return vfs_user_copy_out(arg, &id, sizeof(id));
}

static int64_t ioctl_set_pgrp(struct tty *t, uint64_t arg)
{
	struct process_group *p;
	int32_t pgid, sid;
	int err = tty_check_change(t, SIGTTOU);

	if (err)
		return err == -EIO ? -ENOTTY : err;
	err = vfs_user_copy_in(&pgid, arg, sizeof(pgid));
	if (err)
		return err;
	if (pgid < 0)
		return -EINVAL;
	if (!tty_is_controlling(t))
		return -ENOTTY;
	pgid = pid_root_of(pid_ns_current(), pgid);
	sid = tty_current_session();
	mutex_lock(&t->lock);
	rwlock_read_lock(&kernel.taskset_lock);
	p = pgid > 0 ? idr_find(&kernel.groups, pgid) : NULL;
	if (!p)
		err = -ESRCH;
	else if (p->session->id != sid)
		err = -EPERM;
	else
		t->pgrp = pgid;
	rwlock_read_unlock(&kernel.taskset_lock);
	mutex_unlock(&t->lock);
	return err;
}

/* TIOCSCTTY. `steal`: root takes it from another session. */
static int64_t ioctl_set_control(struct file *f, struct tty *t, uint64_t arg)
{
	struct task *self = task_current();
	bool root = cred_has_cap(cred_current(), CAP_SYS_ADMIN);
	struct tty *drop = NULL;
	struct session *s, *old;
	int err = 0;

	if (!self)
		return -EPERM;
	mutex_lock(&t->lock);
	rwlock_write_lock(&kernel.taskset_lock);
	s = self->group->pgrp->session;
	if (s->leader != self->group) {
		err = -EPERM;
	} else if (t->session == s->id) {
		err = 0;
	} else if (s->tty || (t->session && !(arg == 1 && root)) ||
		   (!(f->mode & FILE_READ) && !root)) {
		err = -EPERM;
	} else {
		old = t->session ? idr_find(&kernel.sessions, t->session) : NULL;
		if (old && old->tty == t) {
			old->tty = NULL;
			drop = t;
		}
		tty_ref(t);
		s->tty = t;
		t->session = s->id;
		t->pgrp = self->group->pgrp->id;
	}
	rwlock_write_unlock(&kernel.taskset_lock);
	mutex_unlock(&t->lock);
	if (drop)
		tty_unref(drop);
	return err;
}

/* TIOCNOTTY: the leader gives the terminal up, its foreground group hears of it. */
static int64_t ioctl_drop_control(struct tty *t)
{
	struct task *self = task_current();
	struct session *s;
	bool drop = false;
	int32_t pgrp = 0;

	if (!self || !tty_is_controlling(t))
		return -ENOTTY;
	mutex_lock(&t->lock);
	rwlock_write_lock(&kernel.taskset_lock);
	s = self->group->pgrp->session;
	if (s->leader == self->group && s->tty == t) {
		pgrp = t->pgrp;
		s->tty = NULL;
		t->session = t->pgrp = 0;
		drop = true;
	}
	rwlock_write_unlock(&kernel.taskset_lock);
	mutex_unlock(&t->lock);
	if (pgrp) {
		signal_send_pgrp_kernel(pgrp, SIGHUP);
		signal_send_pgrp_kernel(pgrp, SIGCONT);
	}
	if (drop)
		tty_unref(t);
	return 0;
}

static bool ioctl_job(struct file *f, struct tty *t, bool master, unsigned cmd, uint64_t arg,
		      int64_t *ret)
{
	switch (cmd) {
	case TIOCGPGRP:
		*ret = ioctl_get_pgrp(t, master, arg, false);
		return true;
	case TIOCGSID:
		*ret = ioctl_get_pgrp(t, master, arg, true);
		return true;
	case TIOCSPGRP:
		*ret = ioctl_set_pgrp(t, arg);
		return true;
	case TIOCSCTTY:
		*ret = master ? -EINVAL : ioctl_set_control(f, t, arg);
		return true;
	case TIOCNOTTY:
		*ret = ioctl_drop_control(t);
		return true;
	}
	return false;
}

/* ---- pty ---- */

static int64_t get_int(uint64_t arg, int32_t value)
{
	return vfs_user_copy_out(arg, &value, sizeof(value));
}

static int64_t ioctl_signal(struct tty *t, uint64_t signo)
{
	if (signo < 1 || signo > SIG_COUNT)
		return -EINVAL;
	mutex_lock(&t->lock);
	if (t->pgrp)
		signal_send_pgrp_kernel(t->pgrp, (int)signo);
	mutex_unlock(&t->lock);
	return 0;
}

static int64_t ioctl_set_packet(struct tty *t, uint64_t arg)
{
	int32_t on;
	int err = vfs_user_copy_in(&on, arg, sizeof(on));

	if (err)
		return err;
	mutex_lock(&t->lock);
	if (on && !t->packet)
		t->packet_status = 0;
	t->packet = on;
	mutex_unlock(&t->lock);
	return 0;
}

static int64_t ioctl_set_lock(struct tty *t, uint64_t arg)
{
	int32_t on;
	int err = vfs_user_copy_in(&on, arg, sizeof(on));

	if (err)
		return err;
	mutex_lock(&t->lock);
	t->locked = on;
	mutex_unlock(&t->lock);
	return 0;
}

static bool ioctl_master(struct tty *t, unsigned cmd, uint64_t arg, int64_t *ret)
{
	switch (cmd) {
	case TIOCGPTN:
		*ret = get_int(arg, (int32_t)t->index);
		return true;
	case TIOCSPTLCK:
		*ret = ioctl_set_lock(t, arg);
		return true;
	case TIOCGPTLCK:
		*ret = get_int(arg, t->locked);
		return true;
	case TIOCPKT:
		*ret = ioctl_set_packet(t, arg);
		return true;
	case TIOCGPKT:
		*ret = get_int(arg, t->packet);
		return true;
	case TIOCSIG:
		*ret = ioctl_signal(t, arg);
		return true;
	}
	return false;
}

/* ---- the rest ---- */

static int64_t ioctl_set_winsize(struct tty *t, uint64_t arg)
{
	struct winsize ws;
	int err = vfs_user_copy_in(&ws, arg, sizeof(ws));

	if (err)
		return err;
	tty_resize(t, &ws);
	return 0;
}

static int64_t ioctl_queued(struct tty *t, bool master, bool out, uint64_t arg)
{
	int32_t n;

	mutex_lock(&t->lock);
	if (out)
		n = (int32_t)(master ? ring_used(&t->in) : 0);
	else
		n = (int32_t)(master ? ring_used(&t->out) : ldisc_chars(t));
	mutex_unlock(&t->lock);
	return get_int(arg, n);
}

static int64_t ioctl_get_winsize(struct tty *t, uint64_t arg)
{
	struct winsize ws;

	mutex_lock(&t->lock);
	ws = t->ws;
	mutex_unlock(&t->lock);
	return vfs_user_copy_out(arg, &ws, sizeof(ws));
}

static int64_t ioctl_set_ldisc(uint64_t arg)
{
	int32_t n;
	int err = vfs_user_copy_in(&n, arg, sizeof(n));

	if (err)
		return err;
	return n == 0 ? 0 : -EINVAL;
}

static int64_t ioctl_vhangup(struct tty *t)
{
	if (!cred_has_cap(cred_current(), CAP_SYS_ADMIN))
		return -EPERM;
	tty_hangup(t, false);
	return 0;
}

int64_t tty_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	bool master = f->ops == &tty_master_ops;
	struct tty *t = tty_file_of(f)->tty;
	int64_t ret;

	if (!master && tty_file_hung(tty_file_of(f)))
		return cmd == TIOCSPGRP ? -ENOTTY : -EIO;
	if (ioctl_termios(t, cmd, arg, &ret) || ioctl_job(f, t, master, cmd, arg, &ret))
		return ret;
	if (master && ioctl_master(t, cmd, arg, &ret))
		return ret;
	switch (cmd) {
	case TIOCGWINSZ:
		return ioctl_get_winsize(t, arg);
	case TIOCSWINSZ:
		return ioctl_set_winsize(t, arg);
	case FIONREAD:
		return ioctl_queued(t, master, false, arg);
	case TIOCOUTQ:
		return ioctl_queued(t, master, true, arg);
	case TCXONC:
		return ioctl_flow(t, arg);
	case TCFLSH:
		return ioctl_flush(t, arg);
	case TCSBRK:
	case TCSBRKP:
	case TIOCSBRK:
	case TIOCCBRK:
		return tty_check_change(t, SIGTTOU); /* no line to break; output is never delayed */
	case TIOCEXCL:
	case TIOCNXCL:
		mutex_lock(&t->lock);
		t->exclusive = cmd == TIOCEXCL;
		mutex_unlock(&t->lock);
		return 0;
	case TIOCGEXCL:
		return get_int(arg, t->exclusive);
	case TIOCGETD:
		return get_int(arg, 0);
	case TIOCSETD:
		return ioctl_set_ldisc(arg);
	case TIOCGDEV:
		return get_int(arg, (int32_t)tty_device(t));
	case TIOCVHANGUP:
		return ioctl_vhangup(t);
	case TIOCSTI:
		return cred_has_cap(cred_current(), CAP_SYS_ADMIN) ? -EIO : -EPERM;
	case TIOCCONS:
		return -EPERM;
	default:
		return -ENOTTY;
	}
}
