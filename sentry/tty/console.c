/*
 * sentry/tty/console.c - the container's console: a slave in devpts whose master is a host descriptor.
 *
 * The runtime makes the user's terminal raw and gives us a descriptor that carries its bytes both ways. Output is written
 * as soon as there is some, under the terminal's lock (the descriptor does not block); what the host does not take waits
 * in the terminal's ring until hostpoll says POLLOUT. Input is read as far as the line discipline has room; when a reader makes
 * room the pump is asked again, since hostpoll is edge-triggered.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "sentry/tty/internal.h"

#define CONSOLE_PIECE 4096u /* what a polled blocking descriptor surely takes */

static struct mutex console_lock = MUTEX_INIT(LOCK_LEAF, "console"); /* over each container's */

static bool host_ready(struct tty *t, short events)
{
	struct pollfd pfd = {.fd = t->host_fd, .events = events};

	return t->host_nonblock || (poll(&pfd, 1, 0) == 1 && pfd.revents);
}

void console_flush(struct tty *t)
{
	bool moved = false;

	while (ring_used(&t->out) && !t->host_eof && host_ready(t, POLLOUT)) {
		uint32_t at = t->out.tail & (t->out.size - 1);
		uint32_t size = MIN(ring_used(&t->out), t->out.size - at);
		ssize_t n;

		size = MIN(size, CONSOLE_PIECE);
		do
			n = write(t->host_fd, t->out.data + at, size);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno != EAGAIN) {
			t->host_eof = true; /* nobody sees it: thrown away */
			n = (ssize_t)ring_used(&t->out);
		}
		if (n <= 0)
			break;
		t->out.tail += (uint32_t)n;
		moved = true;
	}
	if (t->host_eof)
		t->out.tail = t->out.head;
	if (moved) {
		wait_queue_wake(&t->wait, POLLOUT | POLLWRNORM);
		wait_queue_wake(&t->master_wait, POLLOUT);
	}
}

/* True: the host's end is gone. */
static bool console_read_locked(struct tty *t)
{
	while (!t->host_eof) {
		uint8_t data[1024];
		size_t room = MIN((size_t)ring_room(&t->in), sizeof(data));
		ssize_t n;

		if (!room || !host_ready(t, POLLIN))
			return false;
		do
			n = read(t->host_fd, data, room);
		while (n < 0 && errno == EINTR);
		if (n < 0 && errno == EAGAIN)
			return false;
		if (n <= 0) {
			t->host_eof = true;
			return true;
		}
		ldisc_receive(t, data, (size_t)n);
	}
	return false;
}

void console_pump(struct tty *t)
{
	(void)console_read_locked(t);
}

static void console_ready(struct hostpoll *hp, uint32_t events)
{
	struct tty *t = container_of(hp, struct tty, hp);
	bool gone = false;

	mutex_lock(&t->lock);
	if (events & (POLLOUT | POLLERR | POLLHUP))
		console_flush(t);
	if (events & (POLLIN | POLLHUP | POLLERR | POLLRDHUP))
		gone = console_read_locked(t);
	mutex_unlock(&t->lock);
	if (gone)
		tty_hangup(t, false);
}

int tty_host_create(struct filesystem *devpts, int host_fd, unsigned *ret_index, struct tty **ret)
{
	struct devpts *inst = devpts_first(devpts);
	struct winsize ws;
	struct tty *t;
	int flags = fcntl(host_fd, F_GETFL), err;

	if (!inst)
		return -ENODEV;
	err = flags < 0 ? -errno : tty_create(inst, &t);
	filesystem_unref(inst->fs); /* the terminal holds one */
	if (err)
		return err;
	t->console = true;
	t->host_fd = host_fd;
	t->host_nonblock = flags & O_NONBLOCK;
	if (ioctl(host_fd, TIOCGWINSZ, &ws) == 0)
		t->ws = ws;
	err = devpts_add(t->inst, t);
	if (!err)
		err = hostpoll_add(&t->hp, host_fd, POLLIN | POLLOUT | POLLRDHUP, console_ready);
	if (err) {
		t->host_fd = -1;
		tty_unref(t);
		return err;
	}
	*ret_index = t->index;
	*ret = t;
	return 0;
}

int tty_console_create(struct filesystem *devpts, int host_fd, unsigned *ret_index,
		       struct tty **ret)
{
	struct task_cgroup *cg = task_cgroup_current();
	struct tty *t, *old;
	int err = tty_host_create(devpts, host_fd, ret_index, &t);

	if (err)
		return err;
	tty_ref(t);
	mutex_lock(&console_lock);
	old = cg->console;
	cg->console = t;
	mutex_unlock(&console_lock);
	if (old)
		tty_unref(old);
	*ret = t;
	return 0;
}

void tty_console_forget(struct task_cgroup *cg)
{
	struct tty *t;

	mutex_lock(&console_lock);
	t = cg->console;
	cg->console = NULL;
	mutex_unlock(&console_lock);
	if (t)
		tty_unref(t);
}

void tty_host_close(struct tty *t)
{
	int fd;

	hostpoll_remove(&t->hp);
	mutex_lock(&t->lock);
	console_flush(t);
	fd = t->host_fd;
	t->host_fd = -1;
	t->host_eof = true;
	t->console = false; /* its master is gone: slaves read end of file and write EIO */
	mutex_unlock(&t->lock);
	devpts_unname(t->inst, t);
	if (fd >= 0)
		close(fd);
	tty_hangup(t, false);
	tty_unref(t);
}

void tty_set_owner(struct tty *t, uint32_t uid)
{
	mutex_lock(&t->lock);
	t->uid = uid;
	mutex_unlock(&t->lock);
}

struct tty *tty_console(void)
{
	struct task_cgroup *cg = task_cgroup_current();
	struct tty *t;

	mutex_lock(&console_lock);
	t = cg->console;
	if (t)
		tty_ref(t);
	mutex_unlock(&console_lock);
	return t;
}

static bool console_drained(void *arg)
{
	struct tty *t = arg;
	bool drained;

	mutex_lock(&t->lock);
	console_flush(t);
	drained = !ring_used(&t->out);
	mutex_unlock(&t->lock);
	return drained;
}

void tty_console_drain(struct tty *t, int64_t deadline_ns)
{
	if (wait_event(&t->master_wait, console_drained, t, SLEEP_UNINTERRUPTIBLE, deadline_ns))
		return;
}

int tty_open_slave(struct tty *t, const struct vfs_lookup *lk, unsigned flags, struct file **ret)
{
	struct vfs_path place;
	char path[32];
	int err;

	if (lk) {
		struct vfs_lookup own = *lk;

		snprintf(path, sizeof(path), "/dev/pts/%u", t->index);
		own.path = path;
		err = vfs_get_path(&own, &place);
		if (!err && place.dentry->fs != t->inst->fs) {
			vfs_path_unref(&place);
			err = -ENOENT;
		}
	} else {
		err = -ENOENT;
	}
	if (err)
		err = tty_slave_place(t, NULL, &place);
	if (err)
		return err;
	err = tty_slave_open(t, &place, flags, ret);
	vfs_path_unref(&place);
	return err;
}
