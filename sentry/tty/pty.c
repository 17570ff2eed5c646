/*
 * sentry/tty/pty.c - the files of a terminal: slave (also /dev/tty and /dev/console) and master.
 *
 * Data goes through a buffer on the stack, so no guest memory is touched under the terminal's lock; as on Linux, bytes that were
 * taken and then could not be copied out are lost. Reads with VTIME wait in the operation itself: only there is
 * the time known.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <linux/capability.h>

#include "sentry/tty/internal.h"

#define PTY_CHUNK 2048u

/* ---- slave ---- */

static bool slave_master_gone(const struct tty *t)
{
	return !t->console && !t->master_open;
}

struct vtime_wait {
	struct tty_file *tf;
	uint32_t want; /* characters */
};

static bool vtime_ready(void *arg)
{
	struct vtime_wait *w = arg;
	struct tty *t = w->tf->tty;
	bool ready;

	mutex_lock(&t->lock);
	ready = tty_file_hung(w->tf) || slave_master_gone(t) || t->ld.icanon ||
		t->ld.read_head - t->ld.read_tail >= w->want;
	mutex_unlock(&t->lock);
	return ready;
}

/*
 * termios(3)'s non-canonical reads with a timer. MIN 0: TIME runs from the call. MIN > 0: from each character; the first is waited
 * for by the caller (-EAGAIN).
 */
static int slave_vtime_wait(struct tty_file *tf, uint8_t vmin, uint8_t vtime, size_t size)
{
	struct vtime_wait w = {.tf = tf, .want = 1};
	struct tty *t = tf->tty;
	uint32_t target = MIN((size_t)MAX(vmin, 1), size);

	for (;;) {
		int64_t deadline = time_monotonic_ns() + (int64_t)vtime * 100000000;
		int err = wait_event(&t->wait, vtime_ready, &w, SLEEP_INTERRUPTIBLE, deadline);

		if (err == -ETIMEDOUT || w.want >= target)
			return err == -ETIMEDOUT ? 0 : err;
		if (err)
			return err;
		mutex_lock(&t->lock);
		w.want = t->ld.read_head - t->ld.read_tail + 1;
		if (t->ld.icanon || tty_file_hung(tf))
			target = 0;
		mutex_unlock(&t->lock);
		if (w.want > target)
			return 0;
	}
}

/* What one read would do now. Return: 0 read what is there, 1 nothing and return 0, -EAGAIN, 2 wait with the timer first. */
static int slave_read_state(struct tty_file *tf, size_t size, bool nonblock, uint8_t *ret_min,
			    uint8_t *ret_time)
{
	struct tty *t = tf->tty;
	uint32_t have = t->ld.read_head - t->ld.read_tail;
	uint8_t vmin = t->termios.c_cc[VMIN], vtime = t->termios.c_cc[VTIME];

	if (tty_file_hung(tf) || slave_master_gone(t))
		return 1;
	if (t->ld.icanon && !(t->termios.c_lflag & EXTPROC))
		return ldisc_readable(t, false) ? 0 : -EAGAIN;
	*ret_min = vmin;
	*ret_time = vtime;
	if (nonblock)
		return have ? 0 : -EAGAIN;
	if (!vtime) {
		if (!vmin)
			return have ? 0 : 1;
		return have >= MIN((size_t)vmin, size) ? 0 : -EAGAIN;
	}
	if (have >= MIN((size_t)MAX(vmin, 1), size))
		return 0;
	if (vmin && !have)
		return -EAGAIN;
	return 2;
}

static ssize_t slave_take(struct tty_file *tf, uint8_t *data, size_t size, bool nonblock)
{
	struct tty *t = tf->tty;
	uint8_t vmin = 0, vtime = 0;
	ssize_t n = 0;
	bool eof, gone;
	int state;

	mutex_lock(&t->lock);
	state = slave_read_state(tf, size, nonblock, &vmin, &vtime);
	if (state == 2) {
		mutex_unlock(&t->lock);
		state = slave_vtime_wait(tf, vmin, vtime, size);
		mutex_lock(&t->lock);
		/* Interrupted: what came is returned, or the call is. */
		if (t->ld.read_head != t->ld.read_tail)
			state = 0;
	}
	if (state == 0 && !tty_file_hung(tf))
		n = (ssize_t)ldisc_read(t, data, size, &eof);
	gone = t->console && t->host_eof && state == 0;
	mutex_unlock(&t->lock);
	if (gone) /* seen while making room: after what had come before */
		tty_hangup(t, false);
	return state < 0 ? state : n;
}

static ssize_t slave_read(struct file *f, struct io_iter *it, unused_arg int64_t off, int rwf)
{
	struct tty_file *tf = tty_file_of(f);
	uint8_t data[LDISC_BUF];
	ssize_t n;
	int err;

	if (!it->remaining)
		return 0;
	err = tty_check_change(tf->tty, SIGTTIN);
	if (err)
		return err;
	n = slave_take(tf, data, MIN(it->remaining, (uint64_t)sizeof(data)),
		       (file_flags(f) & O_NONBLOCK) || (rwf & RWF_NOWAIT));
	if (n <= 0)
		return n;
	if (io_iter_put(it, data, (size_t)n) != (size_t)n)
		return -EFAULT;
	return n;
}

static ssize_t slave_write(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
			   unused_arg int rwf)
{
	struct tty_file *tf = tty_file_of(f);
	struct tty *t = tf->tty;
	ssize_t total = 0;
	bool tostop;
	int err = 0;

	mutex_lock(&t->lock);
	tostop = t->termios.c_lflag & TOSTOP;
	mutex_unlock(&t->lock);
	if (tostop) {
		err = tty_check_change(t, SIGTTOU);
		if (err)
			return err;
	}
	while (it->remaining && !err) {
		uint8_t data[PTY_CHUNK];
		size_t got = io_iter_get(it, data, MIN(it->remaining, (uint64_t)sizeof(data)));
		size_t done = 0;

		if (!got) {
			err = it->error ? it->error : -EFAULT;
			break;
		}
		mutex_lock(&t->lock);
		if (tty_file_hung(tf) || slave_master_gone(t)) {
			err = -EIO;
		} else {
			done = ldisc_write(t, data, got);
			tty_output_ready(t);
		}
		mutex_unlock(&t->lock);
		if (done < got)
			io_iter_revert(it, got - done);
		total += (ssize_t)done;
		if (!done && !err)
			err = -EAGAIN;
	}
	return total ? total : err;
}

static uint32_t slave_poll(struct file *f)
{
	struct tty_file *tf = tty_file_of(f);
	struct tty *t = tf->tty;
	uint32_t events = 0;

	mutex_lock(&t->lock);
	if (tty_file_hung(tf)) {
		events = POLLIN | POLLOUT | POLLERR | POLLHUP | POLLRDNORM | POLLWRNORM;
	} else {
		if (ldisc_readable(t, true))
			events |= POLLIN | POLLRDNORM;
		if (slave_master_gone(t))
			events |= POLLHUP;
		if (!t->stopped && !t->tco_stopped && ring_used(&t->out) + 8 <= TTY_OUT_SOFT)
			events |= POLLOUT | POLLWRNORM;
	}
	mutex_unlock(&t->lock);
	return events;
}

static void slave_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&tty_file_of(f)->tty->wait, w);
}

static void tty_poll_remove(unused_arg struct file *f, struct waiter *w)
{
	wait_queue_remove(w);
}

static void slave_release(struct file *f)
{
	struct tty *t = tty_file_of(f)->tty;

	mutex_lock(&t->lock);
	if (--t->slaves == 0) {
		t->exclusive = false;
		wait_queue_wake(&t->master_wait, POLLIN | POLLRDNORM | POLLHUP);
	}
	mutex_unlock(&t->lock);
	tty_unref(t);
	file_free(f);
}

const struct file_ops tty_slave_ops = {
	.name = "tty",
	.release = slave_release,
	.read_iter = slave_read,
	.write_iter = slave_write,
	.poll = slave_poll,
	.poll_add = slave_poll_add,
	.fasync = true,
	.poll_remove = tty_poll_remove,
	.ioctl = tty_ioctl,
};

static struct tty_file *tty_file_create(struct tty *t, const struct file_ops *ops,
					const struct vfs_path *place, unsigned flags)
{
	struct tty_file *tf = calloc(1, sizeof(*tf));
	unsigned accmode = flags & O_ACCMODE;
	unsigned mode = FILE_STREAM;

	if (!tf)
		return NULL;
	if (accmode != O_WRONLY)
		mode |= FILE_READ;
	if (accmode != O_RDONLY)
		mode |= FILE_WRITE;
	file_init(&tf->f, ops, place, flags, mode);
	tty_ref(t);
	tf->tty = t;
	return tf;
}

/* open(2) of a terminal without O_NOCTTY by a session leader that has none. */
static void slave_maybe_control(struct tty *t, unsigned flags)
{
	struct task *self = task_current();
	struct session *s = NULL;
	int32_t pgid = 0;

	if ((flags & O_NOCTTY) || (flags & O_ACCMODE) == O_WRONLY || !self)
		return;
	rwlock_read_lock(&kernel.taskset_lock);
	if (self->group->pgrp && self->group->pgrp->session->leader == self->group) {
		s = self->group->pgrp->session;
		pgid = self->group->pgrp->id;
	}
	rwlock_read_unlock(&kernel.taskset_lock);
	/* s lives: the caller is in it. -EPERM means that one of the two is taken. */
	if (s && tty_set_controlling(t, s, pgid))
		return;
}

int tty_slave_open(struct tty *t, const struct vfs_path *place, unsigned flags, struct file **ret)
{
	struct tty_file *tf = tty_file_create(t, &tty_slave_ops, place, flags);
	int err = 0;

	if (!tf)
		return -ENOMEM;
	mutex_lock(&t->lock);
	if (t->locked || slave_master_gone(t))
		err = -EIO;
	else if (t->exclusive && !cred_has_cap(cred_current(), CAP_SYS_ADMIN))
		err = -EBUSY;
	if (!err) {
		t->slaves++;
		t->slave_was_open = true;
		tf->gen = t->hup_gen;
	}
	mutex_unlock(&t->lock);
	if (err) {
		file_fini(&tf->f);
		free(tf);
		tty_unref(t);
		return err;
	}
	slave_maybe_control(t, flags);
	*ret = &tf->f;
	return 0;
}

/* ---- master ---- */

static bool master_eof(const struct tty *t)
{
	return !t->slaves && t->slave_was_open;
}

static size_t master_take(struct tty *t, uint8_t *data, size_t size)
{
	size_t n = 0;

	if (t->packet) {
		if (t->packet_status) {
			data[0] = t->packet_status;
			t->packet_status = 0;
			return 1;
		}
		if (ring_used(&t->out))
			data[n++] = TIOCPKT_DATA;
	}
	while (n < size && ring_used(&t->out))
		data[n++] = ring_get(&t->out);
	return n;
}

static ssize_t master_read(struct file *f, struct io_iter *it, unused_arg int64_t off,
			   unused_arg int rwf)
{
	struct tty *t = tty_file_of(f)->tty;
	uint8_t data[4096];
	bool had, eof;
	size_t n;

	if (!it->remaining)
		return 0;
	mutex_lock(&t->lock);
	had = ring_used(&t->out);
	n = master_take(t, data, MIN(it->remaining, (uint64_t)sizeof(data)));
	eof = !n && master_eof(t);
	if (had && n)
		wait_queue_wake(&t->wait, POLLOUT | POLLWRNORM);
	mutex_unlock(&t->lock);
	if (!n)
		return eof ? -EIO : -EAGAIN;
	if (io_iter_put(it, data, n) != n)
		return -EFAULT;
	return (ssize_t)n;
}

static ssize_t master_write(struct file *f, struct io_iter *it, unused_arg int64_t *inout_off,
			    unused_arg int rwf)
{
	struct tty *t = tty_file_of(f)->tty;
	ssize_t total = 0;

	while (it->remaining) {
		uint8_t data[PTY_CHUNK];
		size_t got = io_iter_get(it, data, MIN(it->remaining, (uint64_t)sizeof(data)));
		size_t done = 0;
		bool eof;

		if (!got)
			return total ? total : -EFAULT;
		mutex_lock(&t->lock);
		eof = master_eof(t);
		if (!eof)
			done = ldisc_receive(t, data, got);
		mutex_unlock(&t->lock);
		if (done < got)
			io_iter_revert(it, got - done);
		total += (ssize_t)done;
		if (eof)
			return total ? total : -EIO;
		if (!done)
			return total ? total : -EAGAIN;
	}
	return total;
}

static uint32_t master_poll(struct file *f)
{
	struct tty *t = tty_file_of(f)->tty;
	uint32_t events = 0;

	mutex_lock(&t->lock);
	if (ring_used(&t->out))
		events |= POLLIN | POLLRDNORM;
	if (t->packet && t->packet_status)
		events |= POLLPRI | POLLIN | POLLRDNORM;
	if (master_eof(t))
		events |= POLLHUP;
	else if (ring_room(&t->in))
		events |= POLLOUT | POLLWRNORM;
	mutex_unlock(&t->lock);
	return events;
}

static void master_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&tty_file_of(f)->tty->master_wait, w);
}

static void master_release(struct file *f)
{
	struct tty *t = tty_file_of(f)->tty;

	mutex_lock(&t->lock);
	t->master_open = false;
	mutex_unlock(&t->lock);
	/* The name goes now, the number with the last slave. */
	devpts_unname(t->inst, t);
	tty_hangup(t, false);
	tty_unref(t);
	file_free(f);
}

const struct file_ops tty_master_ops = {
	.name = "ptmx",
	.release = master_release,
	.read_iter = master_read,
	.write_iter = master_write,
	.poll = master_poll,
	.poll_add = master_poll_add,
	.fasync = true,
	.poll_remove = tty_poll_remove,
	.ioctl = tty_ioctl,
};

int tty_master_open(struct devpts *inst, const struct vfs_path *place, unsigned flags,
		    struct file **ret)
{
	struct tty_file *tf;
	struct tty *t;
	int err = tty_create(inst, &t);

	if (err)
		return err;
	t->master_open = true;
	t->locked = true;
	tf = tty_file_create(t, &tty_master_ops, place, flags);
	if (!tf) {
		err = -ENOMEM;
		goto out_tty;
	}
	err = devpts_add(inst, t);
	if (err) {
		file_fini(&tf->f);
		free(tf);
		tty_unref(t);
		goto out_tty;
	}
	*ret = &tf->f;
out_tty:
	tty_unref(t);
	return err;
}
