/*
 * syscalls/sys_poll.c - poll, ppoll, select, pselect6.
 *
 * A call registers one waiter a descriptor with the task's sleeper, looks at all, and sleeps until one is woken: "register, check,
 * wait". Descriptors that are ready at the first look register nothing.
 */
#include <poll.h>
#include <sys/select.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define POLL_FAST 16 /* descriptors handled without malloc */

struct poll_entry {
	struct file *f; /* NULL: ignored or bad */
	struct waiter w;
	int fd;
	uint32_t events; /* POLLERR and POLLHUP included */
	uint32_t revents;
	bool added;
};

static void entries_release(struct poll_entry *e, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		if (!e[i].f)
			continue;
		if (e[i].added) {
			if (e[i].f->ops->poll_remove)
				e[i].f->ops->poll_remove(e[i].f, &e[i].w);
			else
				wait_queue_remove(&e[i].w);
		}
		file_unref(e[i].f);
	}
}

static unsigned look_at_all(struct poll_entry *e, unsigned n)
{
	unsigned ready = 0;

	for (unsigned i = 0; i < n; i++) {
		if (e[i].f)
			e[i].revents = file_poll(e[i].f) & e[i].events;
		ready += e[i].revents != 0;
	}
	return ready;
}

/* Waits until something is ready. Entries have f, events, and revents of what is bad. Return: how many, 0 at the deadline, -EINTR. */
static int do_poll(struct poll_entry *e, unsigned n, int64_t deadline, bool no_wait)
{
	struct sleeper *s = sleeper_current();
	unsigned ready = look_at_all(e, n);
	int err;

	if (ready || no_wait)
		return (int)ready;
	for (unsigned i = 0; i < n; i++) {
		if (!e[i].f)
			continue;
		waiter_init_sleeper(&e[i].w, s, e[i].events);
		if (e[i].f->ops->poll_add)
			e[i].f->ops->poll_add(e[i].f, &e[i].w);
		e[i].added = true;
	}
	for (;;) {
		ready = look_at_all(e, n);
		if (ready)
			return (int)ready;
		err = sleeper_wait(s, SLEEP_INTERRUPTIBLE, deadline);
		if (err == -ETIMEDOUT)
			return (int)look_at_all(e, n);
		if (err)
			return err;
	}
}

/* ---- poll ---- */

static int64_t poll_fds(struct task *t, uint64_t ufds, unsigned n, int64_t deadline, bool no_wait)
{
	struct poll_entry fast[POLL_FAST], *e = fast;
	struct pollfd pfd_fast[POLL_FAST], *pfd = pfd_fast;
	int64_t ret;

	if (n > task_rlimit(t, RLIMIT_NOFILE))
		return -EINVAL;
	if (n > POLL_FAST) {
		e = malloc(n * sizeof(*e));
		pfd = malloc(n * sizeof(*pfd));
		ret = -ENOMEM;
		if (!e || !pfd)
			goto out_free;
	}
	ret = -EFAULT;
	if (n && task_copy_in(t, pfd, ufds, n * sizeof(*pfd)))
		goto out_free;
	for (unsigned i = 0; i < n; i++) {
		e[i].f = pfd[i].fd < 0 ? NULL : sys_fd(t, pfd[i].fd);
		e[i].added = false;
		e[i].events = (uint16_t)pfd[i].events | POLLERR | POLLHUP;
		e[i].revents = pfd[i].fd >= 0 && !e[i].f ? POLLNVAL : 0;
	}
	ret = do_poll(e, n, deadline, no_wait);
	entries_release(e, n);
	if (ret < 0)
		goto out_free;
	for (unsigned i = 0; i < n; i++)
		pfd[i].revents = (short)e[i].revents;
	if (n && task_copy_out(t, ufds, pfd, n * sizeof(*pfd)))
		ret = -EFAULT;
out_free:
	if (n > POLL_FAST) {
		free(e);
		free(pfd);
	}
	return ret;
}

static int64_t poll_restart(struct task *t)
{
	int64_t ret = poll_fds(t, t->restart.poll.ufds, t->restart.poll.nfds,
			       t->restart.poll.deadline, false);

	if (ret == -EINTR) {
		t->restart_fn = poll_restart;
		ret = -ERESTART_RESTARTBLOCK_;
	}
	return ret;
}

int64_t sys_poll(struct task *t, const struct syscall_args *a)
{
	int timeout = ARG_INT(2);
	int64_t deadline = TIME_FOREVER, ret;

	if (timeout > 0)
		deadline = sys_deadline_after((int64_t)timeout * 1000000);
	ret = poll_fds(t, a->a[0], ARG_UINT(1), deadline, timeout == 0);
	if (ret != -EINTR)
		return ret;
	t->restart.poll.ufds = a->a[0];
	t->restart.poll.nfds = ARG_UINT(1);
	t->restart.poll.deadline = deadline;
	t->restart_fn = poll_restart;
	return -ERESTART_RESTARTBLOCK_;
}

/* ---- what ppoll, pselect and epoll_pwait share ---- */

int sys_temp_mask(struct task *t, uint64_t umask_, uint64_t size)
{
	uint64_t mask;

	if (!umask_)
		return 0;
	if (size != sizeof(mask))
		return -EINVAL;
	if (task_copy_in(t, &mask, umask_, sizeof(mask)))
		return -EFAULT;
	signal_set_temp_mask(t, mask & ~SIGMASK_UNBLOCKABLE);
	return 0;
}

/* poll_select_finish: the time that is left goes back to the caller, whose memory may be read-only: errors are ignored. */
static int64_t time_left_out(struct task *t, uint64_t uaddr, int64_t deadline, bool timeval,
			     int64_t ret)
{
	int64_t left, out[2];

	if (!uaddr || deadline == TIME_FOREVER ||
	    (t->personality & 0x4000000 /* STICKY_TIMEOUTS */))
		return ret == -EINTR ? -ERESTARTNOHAND_ : ret;
	left = MAX(deadline - time_monotonic_ns(), (int64_t)0);
	out[0] = left / 1000000000;
	out[1] = timeval ? left % 1000000000 / 1000 : left % 1000000000;
	if (task_copy_out(t, uaddr, out, sizeof(out)))
		return ret; /* cannot restart with what is left: EINTR stays */
	return ret == -EINTR ? -ERESTARTNOHAND_ : ret;
}

int64_t sys_ppoll(struct task *t, const struct syscall_args *a)
{
	int64_t deadline, ret;
	bool zero;
	int err;

	err = sys_timespec_deadline(t, a->a[2], &deadline, &zero);
	if (!err)
		err = sys_temp_mask(t, a->a[3], a->a[4]);
	if (err)
		return err;
	ret = poll_fds(t, a->a[0], ARG_UINT(1), deadline, zero);
	return time_left_out(t, a->a[2], deadline, false, ret);
}

/* ---- select ---- */

#define SELECT_IN (POLLRDNORM | POLLRDBAND | POLLIN | POLLHUP | POLLERR)
#define SELECT_OUT (POLLWRBAND | POLLWRNORM | POLLOUT | POLLERR)
#define SELECT_EX (POLLPRI)

/* The three sets, in and then out, `words` each. */
struct select_sets {
	uint64_t *in[3], *out[3];
	unsigned words;
};

static int sets_copy_in(struct task *t, struct select_sets *s, const uint64_t *uaddr)
{
	for (unsigned k = 0; k < 3; k++)
		if (uaddr[k] && task_copy_in(t, s->in[k], uaddr[k], s->words * 8))
			return -EFAULT;
	return 0;
}

static int sets_copy_out(struct task *t, struct select_sets *s, const uint64_t *uaddr)
{
	for (unsigned k = 0; k < 3; k++)
		if (uaddr[k] && task_copy_out(t, uaddr[k], s->out[k], s->words * 8))
			return -EFAULT;
	return 0;
}

static unsigned count_wanted(const struct select_sets *s)
{
	unsigned n = 0;

	for (unsigned w = 0; w < s->words; w++)
		n += (unsigned)__builtin_popcountll(s->in[0][w] | s->in[1][w] | s->in[2][w]);
	return n;
}

/* Fills entries for every descriptor in a set. Return: how many, -EBADF. */
static int sets_to_entries(struct task *t, const struct select_sets *s, struct poll_entry *e)
{
	unsigned n = 0;

	for (unsigned w = 0; w < s->words; w++) {
		uint64_t all = s->in[0][w] | s->in[1][w] | s->in[2][w];

		for (; all; all &= all - 1) {
			unsigned bit = (unsigned)__builtin_ctzll(all);
			struct poll_entry *p = &e[n];

			p->fd = (int)(w * 64 + bit);
			p->f = sys_fd(t, p->fd);
			p->added = false;
			p->revents = 0;
			p->events = 0;
			if (s->in[0][w] >> bit & 1)
				p->events |= SELECT_IN;
			if (s->in[1][w] >> bit & 1)
				p->events |= SELECT_OUT;
			if (s->in[2][w] >> bit & 1)
				p->events |= SELECT_EX;
			if (!p->f) {
				entries_release(e, n);
				return -EBADF;
			}
			n++;
		}
	}
	return (int)n;
}

static int entries_to_sets(const struct poll_entry *e, unsigned n, struct select_sets *s)
{
	static const uint32_t masks[3] = {SELECT_IN, SELECT_OUT, SELECT_EX};
	int count = 0;

	for (unsigned i = 0; i < n; i++) {
		unsigned w = (unsigned)e[i].fd / 64;
		uint64_t bit = 1ull << (e[i].fd % 64);

		for (unsigned k = 0; k < 3; k++)
			if ((s->in[k][w] & bit) && (e[i].revents & masks[k])) {
				s->out[k][w] |= bit;
				count++;
			}
	}
	return count;
}

static int64_t select_fds(struct task *t, int n, const uint64_t *usets, int64_t deadline,
			  bool no_wait)
{
	struct poll_entry fast[POLL_FAST], *e = fast;
	uint64_t bits_fast[6 * 4] = {0}, *bits = bits_fast;
	struct select_sets s;
	int64_t ret;
	int count;

	if (n < 0)
		return -EINVAL;
	n = MIN(n, (int)fd_table_size(t->fdtable));
	s.words = (unsigned)(n + 63) / 64;
	if (s.words > 4) {
		bits = calloc(6ul * s.words, sizeof(*bits));
		if (!bits)
			return -ENOMEM;
	}
	for (unsigned k = 0; k < 3; k++) {
		s.in[k] = bits + k * s.words;
		s.out[k] = bits + (3 + k) * s.words;
	}
	ret = sets_copy_in(t, &s, usets);
	if (ret)
		goto out_bits;
	/* Bits past n in the last word are not asked for. */
	for (unsigned k = 0; k < 3 && n % 64; k++)
		s.in[k][s.words - 1] &= (1ull << (n % 64)) - 1;
	if (count_wanted(&s) > POLL_FAST) {
		e = malloc(count_wanted(&s) * sizeof(*e));
		ret = -ENOMEM;
		if (!e)
			goto out_bits;
	}
	ret = count = sets_to_entries(t, &s, e);
	if (count < 0)
		goto out_entries;
	ret = do_poll(e, (unsigned)count, deadline, no_wait);
	if (ret >= 0)
		ret = entries_to_sets(e, (unsigned)count, &s);
	entries_release(e, (unsigned)count);
	if (ret >= 0 && sets_copy_out(t, &s, usets))
		ret = -EFAULT;
out_entries:
	if (e != fast)
		free(e);
out_bits:
	if (bits != bits_fast)
		free(bits);
	return ret;
}

int64_t sys_select(struct task *t, const struct syscall_args *a)
{
	const uint64_t usets[3] = {a->a[1], a->a[2], a->a[3]};
	int64_t deadline = TIME_FOREVER, ret, ns;
	struct moat_timeval tv = {0};

	if (a->a[4]) {
		if (task_copy_in(t, &tv, a->a[4], sizeof(tv)))
			return -EFAULT;
		if (tv.sec < 0 || tv.usec < 0)
			return -EINVAL;
		if (!__builtin_mul_overflow(tv.sec + tv.usec / 1000000, (int64_t)1000000000, &ns) &&
		    !__builtin_add_overflow(ns, tv.usec % 1000000 * 1000, &ns))
			deadline = sys_deadline_after(ns);
	}
	ret = select_fds(t, ARG_INT(0), usets, deadline, a->a[4] && !tv.sec && !tv.usec);
	return time_left_out(t, a->a[4], deadline, true, ret);
}

int64_t sys_pselect6(struct task *t, const struct syscall_args *a)
{
	const uint64_t usets[3] = {a->a[1], a->a[2], a->a[3]};
	uint64_t sig[2] = {0, 0};
	int64_t deadline, ret;
	bool zero;
	int err;

	if (a->a[5] && task_copy_in(t, sig, a->a[5], sizeof(sig)))
		return -EFAULT;
	err = sys_timespec_deadline(t, a->a[4], &deadline, &zero);
	if (!err)
		err = sys_temp_mask(t, sig[0], sig[1]);
	if (err)
		return err;
	ret = select_fds(t, ARG_INT(0), usets, deadline, zero);
	return time_left_out(t, a->a[4], deadline, false, ret);
}
