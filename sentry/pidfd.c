/*
 * sentry/pidfd.c - pidfds: readable when the process is dead; fdinfo shows its pid.
 */
#include "fsimpl/anon/anon.h"
#include "sentry/pidfd_internal.h"

static void pidfd_release(struct file *f)
{
	struct pidfd_file *p = pidfd_of(f);

	if (p->task)
		task_unref(p->task);
	group_unref(p->group);
	file_free(f);
}

static uint32_t pidfd_poll(struct file *f)
{
	struct pidfd_file *p = pidfd_of(f);
	int state;

	if (p->task) {
		state = atomic_load(&p->task->state);
		return state == TASK_ZOMBIE || state == TASK_DEAD ? POLLIN | POLLRDNORM : 0;
	}
	return group_is_dead(p->group) ? POLLIN | POLLRDNORM : 0;
}

static void pidfd_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&pidfd_of(f)->group->pidfd_wait, w);
}

static void pidfd_poll_remove(struct file *f, struct waiter *w)
{
	(void)f;
	wait_queue_remove(w);
}

static void pidfd_fdinfo(struct file *f, struct buf *b)
{
	struct pidfd_file *p = pidfd_of(f);
	int32_t root = p->task ? p->tid : p->group->tgid;
	struct pid_namespace *ns = pid_ns_current();

	if (pidfd_poll(f)) {
		buf_puts(b, "Pid:\t-1\nNSpid:\t-1\n");
		return;
	}
	buf_printf(b, "Pid:\t%d\nNSpid:", pid_nr_in(ns, root));
	if (pid_nr_in(ns, root))
		pid_show_levels(ns, root, "\t", b);
	else
		buf_puts(b, "\t0");
	buf_putc(b, '\n');
}

static const struct file_ops pidfd_ops = {
	.name = "anon_inode:[pidfd]",
	.release = pidfd_release,
	.poll = pidfd_poll,
	.poll_add = pidfd_poll_add,
	.poll_remove = pidfd_poll_remove,
	.ioctl = pidfd_ioctl,
	.show_fdinfo = pidfd_fdinfo,
	.stat = anon_file_stat,
	.set_stat = anon_file_set_stat,
};

int pidfd_create_file(struct task *t, unsigned flags, struct file **ret)
{
	const struct anon_args args = {.kind = ANON_INODE, .name = "[pidfd]", .mode = 0600};
	struct pidfd_file *p = calloc(1, sizeof(*p));
	int err;

	if (!p)
		return -ENOMEM;
	group_ref(t->group);
	p->group = t->group;
	if (flags & O_EXCL) {
		task_ref(t);
		p->task = t;
		p->tid = t->tid;
	}
	err = anon_file_init(&p->f, &pidfd_ops, &args, O_RDWR | (flags & (O_NONBLOCK | O_EXCL)),
			     FILE_READ | FILE_WRITE | FILE_STREAM);
	if (err) {
		if (p->task)
			task_unref(p->task);
		group_unref(p->group);
		free(p);
		return err;
	}
	*ret = &p->f;
	return 0;
}

struct thread_group *pidfd_group(struct file *f, int32_t *ret_tid)
{
	struct pidfd_file *p = pidfd_of(f);

	if (f->ops != &pidfd_ops)
		return NULL;
	group_ref(p->group);
	if (ret_tid)
		*ret_tid = p->task ? p->tid : 0;
	return p->group;
}

unsigned pidfd_flags(struct file *f)
{
	return file_flags(f);
}
