/* syscalls/sys_fcntl.c - fcntl(2), flock(2), and the SIGIO that F_SETOWN asks for. */
#include <fcntl.h>
#include <signal.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "fsimpl/pipe/pipe.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/async.h"
#include "vfs/inotify.h"
#include "vfs/lease.h"

#define F_DUPFD_QUERY_ 1027
#define F_CREATED_QUERY_ 1028
#define CAP_FOWNER_ 3
#define SETFL_MASK (O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME)

/* ---- owner and signal ---- */

struct owner_ex {
	int32_t type, pid;
};

/* Writers of f->owner_* and signum; readers elsewhere (fdinfo) take what they see. */
static struct mutex owner_lock = MUTEX_INIT(LOCK_LEAF, "file owner");

static int owner_exists(int type, int32_t id)
{
	struct thread_group *g;
	struct task *t;
	bool found = false;

	if (type == F_OWNER_PGRP) {
		for (int32_t tgid = 1; !found && (g = group_next(&tgid)); tgid++) {
			found = group_pgid(g) == id;
			group_unref(g);
		}
		return found ? 0 : -ESRCH;
	}
	t = task_find(id);
	if (!t)
		return -ESRCH;
	task_unref(t);
	return 0;
}

static int set_owner(struct file *f, int type, int32_t id)
{
	int err = id ? owner_exists(type, id) : 0;

	if (err)
		return err;
	mutex_lock(&owner_lock);
	f->owner_type = type;
	f->owner_id = id;
	mutex_unlock(&owner_lock);
	return 0;
}

static struct owner_ex get_owner(struct file *f)
{
	struct owner_ex o;

	mutex_lock(&owner_lock);
	o = (struct owner_ex){f->owner_type, f->owner_id};
	mutex_unlock(&owner_lock);
	return o;
}

/* The same by a number as t sees it. */
static int set_owner_v(struct task *t, struct file *f, int type, int32_t nr)
{
	int32_t id = nr > 0 ? pid_root(t, nr) : nr;

	return nr && !id ? -ESRCH : set_owner(f, type, id);
}

static int64_t setown(struct task *t, struct file *f, int arg)
{
	if (arg >= 0)
		return set_owner_v(t, f, F_OWNER_PID, arg);
	if (arg == INT32_MIN)
		return -EINVAL;
	return set_owner_v(t, f, F_OWNER_PGRP, -arg);
}

static int64_t setown_ex(struct task *t, struct file *f, uint64_t uaddr)
{
	struct owner_ex o;

	if (task_copy_in(t, &o, uaddr, sizeof(o)))
		return -EFAULT;
	if (o.type != F_OWNER_TID && o.type != F_OWNER_PID && o.type != F_OWNER_PGRP)
		return -EINVAL;
	return set_owner_v(t, f, o.type, o.pid);
}

static int band_code(uint32_t events)
{
	if (events & POLLMSG)
		return POLL_MSG;
	if (events & POLLHUP)
		return POLL_HUP;
	if (events & POLLERR)
		return POLL_ERR;
	if (events & POLLPRI)
		return POLL_PRI;
	return events & POLLOUT ? POLL_OUT : POLL_IN;
}

void fcntl_send_sigio(struct file *f, uint32_t events)
{
	struct owner_ex o = get_owner(f);
	struct moat_siginfo info = {.si_signo = f->signum ? f->signum : SIGIO};
	struct thread_group *g;
	struct task *t;

	if (!o.pid)
		return;
	info.si_code = f->signum ? band_code(events) : SI_KERNEL;
	info.poll.band = events;
	info.poll.fd = f->sigio_fd;
	if (o.type == F_OWNER_PGRP) {
		(void)signal_send_pgrp_kernel(o.pid, info.si_signo);
		return;
	}
	if (o.type == F_OWNER_TID) {
		t = task_find(o.pid);
		if (t) {
			(void)signal_send_task(t, &info);
			task_unref(t);
		}
		return;
	}
	g = group_find(o.pid);
	if (g) {
		(void)signal_send_group(g, &info);
		group_unref(g);
	}
}

/* ---- flags ---- */

static int64_t setfl(struct task *t, struct file *f, int fd, unsigned arg)
{
	unsigned old = file_flags(f), new_flags;
	struct moat_statx st = {0};
	int err;

	if ((arg & O_NOATIME) && !(old & O_NOATIME)) {
		err = file_stat(f, &(struct stat_args){.mask = STATX_UID}, &st);
		if (err)
			return err;
		if (st.uid != t->cred->fsuid && !cred_has_cap(t->cred, CAP_FOWNER_))
			return -EPERM;
	}
	new_flags = (arg & (SETFL_MASK | O_ASYNC)) | (old & ~(unsigned)(SETFL_MASK | O_ASYNC));
	if (f->ops->set_flags) {
		err = f->ops->set_flags(f, new_flags);
		if (err)
			return err;
	}
	return sys_file_set_flags(f, fd, new_flags);
}

int sys_file_set_flags(struct file *f, int fd, unsigned new_flags)
{
	int err;

	if ((new_flags & O_ASYNC) && !(file_flags(f) & O_ASYNC)) {
		f->sigio_fd = fd;
		err = f->ops->fasync ? file_async_set(f, true) : 0;
		if (err)
			return err;
	}
	atomic_store_explicit(&f->flags, new_flags, memory_order_relaxed);
	return 0;
}

/* ---- leases ---- */

bool fcntl_opened_elsewhere(struct file *f, bool writers)
{
	struct filesystem *fs = f->path.dentry->fs;
	uint64_t key = fs->ops->inode_key(f->path.dentry);
	bool found = false;
	struct task *t;

	for (int32_t tid = 1; !found && (t = task_next(&tid)); tid++) {
		struct fd_table *table = task_get_fdtable(t);
		struct file *other;

		task_unref(t);
		if (!table)
			continue;
		for (int fd = 0; !found && (fd = fd_next(table, fd, &other)) >= 0; fd++) {
			struct dentry *d = other->path.dentry;

			found = other != f && !(other->mode & FILE_PATH_ONLY) && d->fs == fs &&
				(!writers || (other->mode & FILE_WRITE)) &&
				fs->ops->inode_key(d) == key;
			file_unref(other);
		}
		fd_table_unref(table);
	}
	return found;
}

#define CAP_LEASE_ 28

static int64_t set_lease(struct task *t, struct file *f, int fd, int type)
{
	struct moat_statx st = {0};
	bool is_new;
	int err;

	if (type != F_RDLCK && type != F_WRLCK && type != F_UNLCK)
		return -EINVAL;
	err = file_stat(f, &(struct stat_args){.mask = STATX_UID | STATX_TYPE}, &st);
	if (err)
		return err;
	if (st.uid != t->cred->fsuid && !cred_has_cap(t->cred, CAP_LEASE_))
		return -EACCES;
	if (!S_ISREG(st.mode))
		return -EINVAL;
	err = file_lease_set(f, type, t->group->tgid, &is_new);
	if (!err && is_new) {
		f->sigio_fd = fd;
		if (!get_owner(f).pid)
			(void)set_owner(f, F_OWNER_PID, t->group->tgid);
	}
	return err;
}

static int64_t dup_from(struct task *t, struct file *f, uint64_t min, bool cloexec)
{
	if (min >= sys_fd_limit(t))
		return -EINVAL;
	return fd_install(t->fdtable, f, (int)min, sys_fd_limit(t), cloexec);
}

static int64_t dup_query(struct task *t, struct file *f, int fd)
{
	struct file *other = sys_fd_raw(t, fd);
	bool same = other == f;

	if (!other)
		return -EBADF;
	file_unref(other);
	return same;
}

/* Commands of descriptors, which O_PATH ones answer too. Return: -ENOTTY when it is another command. */
static int64_t fcntl_fd(struct task *t, struct file *f, int fd, unsigned cmd, uint64_t arg,
			bool cloexec)
{
	switch (cmd) {
	case F_DUPFD:
		return dup_from(t, f, (unsigned)arg, false);
	case F_DUPFD_CLOEXEC:
		return dup_from(t, f, (unsigned)arg, true);
	case F_DUPFD_QUERY_:
		return dup_query(t, f, (int)arg);
	case F_GETFD:
		return cloexec ? FD_CLOEXEC : 0;
	case F_SETFD:
		return fd_set_cloexec(t->fdtable, fd, arg & FD_CLOEXEC);
	case F_CREATED_QUERY_:
		return (f->mode & FILE_CREATED) != 0;
	case F_GETFL:
		return file_flags(f);
	default:
		return -ENOTTY;
	}
}

static int64_t fcntl_owner(struct task *t, struct file *f, unsigned cmd, uint64_t arg)
{
	struct owner_ex o = get_owner(f);

	o.pid = pid_vnr(t, o.pid);
	switch (cmd) {
	case F_SETOWN:
		return setown(t, f, (int)arg);
	case F_GETOWN:
		return o.type == F_OWNER_PGRP ? -(int64_t)o.pid : o.pid;
	case F_SETOWN_EX:
		return setown_ex(t, f, arg);
	case F_GETOWN_EX:
		return task_copy_out(t, arg, &o, sizeof(o));
	case F_SETSIG:
		if (arg > SIG_COUNT)
			return -EINVAL;
		f->signum = (int)arg;
		return 0;
	default: /* F_GETSIG */
		return f->signum;
	}
}

static int64_t set_notify(struct task *t, struct file *f, int fd, uint32_t arg)
{
	int err = dnotify_set(f, arg);

	if (err || !(arg & 0x7fffffff))
		return err;
	f->sigio_fd = fd;
	return set_owner(f, F_OWNER_PID, t->group->tgid);
}

/* F_GET_RW_HINT, F_SET_RW_HINT: kept with the name in memory, as advice that nobody here takes. */
static int64_t rw_hint(struct task *t, struct file *f, unsigned cmd, uint64_t arg)
{
	struct dentry *d = f->path.dentry;
	uint32_t type = d->fs->ops->dentry_type(d);
	uint64_t hint;

	/* What pipes and their like have for a dentry is one for all. */
	if (!S_ISREG(type) && !S_ISDIR(type))
		return -EINVAL;
	if (cmd == F_GET_RW_HINT) {
		hint = dentry_rw_hint(d);
		return task_copy_out(t, arg, &hint, sizeof(hint));
	}
	if (task_copy_in(t, &hint, arg, sizeof(hint)))
		return -EFAULT;
	if (hint > RWH_WRITE_LIFE_EXTREME)
		return -EINVAL;
	dentry_set_rw_hint(d, (unsigned)hint);
	return 0;
}

static int64_t fcntl_file(struct task *t, struct file *f, int fd, unsigned cmd, uint64_t arg)
{
	switch (cmd) {
	case F_SETFL:
		return setfl(t, f, fd, (unsigned)arg);
	case F_SETOWN:
	case F_GETOWN:
	case F_SETOWN_EX:
	case F_GETOWN_EX:
	case F_SETSIG:
	case F_GETSIG:
		return fcntl_owner(t, f, cmd, arg);
	case F_GETPIPE_SZ:
		return pipe_get_size(f);
	case F_SETPIPE_SZ:
		return pipe_set_size(f, (unsigned)arg);
	case F_ADD_SEALS:
		return f->ops->add_seals ? f->ops->add_seals(f, (unsigned)arg) : -EINVAL;
	case F_GET_SEALS:
		return f->ops->get_seals ? f->ops->get_seals(f) : -EINVAL;
	case F_GETLEASE:
		return file_lease_get(f);
	case F_SETLEASE:
		return set_lease(t, f, fd, (int)arg);
	case F_GETLK:
	case F_SETLK:
	case F_SETLKW:
	case F_OFD_GETLK:
	case F_OFD_SETLK:
	case F_OFD_SETLKW:
		return fcntl_lock(t, f, fd, cmd, arg);
	case F_NOTIFY:
		return set_notify(t, f, fd, (uint32_t)arg);
	case F_GET_RW_HINT:
	case F_SET_RW_HINT:
		return rw_hint(t, f, cmd, arg);
	default:
		return -EINVAL;
	}
}

int64_t sys_fcntl(struct task *t, const struct syscall_args *a)
{
	int fd = ARG_INT(0);
	bool cloexec = false;
	struct file *f = fd_get_flags(t->fdtable, fd, &cloexec);
	int64_t ret;

	if (!f)
		return -EBADF;
	ret = fcntl_fd(t, f, fd, ARG_UINT(1), a->a[2], cloexec);
	if (ret == -ENOTTY)
		ret = f->mode & FILE_PATH_ONLY ? -EBADF
					       : fcntl_file(t, f, fd, ARG_UINT(1), a->a[2]);
	file_unref(f);
	return ret;
}
