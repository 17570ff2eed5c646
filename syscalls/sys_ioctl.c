/* syscalls/sys_ioctl.c - ioctl(2): what every descriptor answers, then the file's own. */
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "sentry/tty/tty.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

static int64_t set_status_flag(struct task *t, struct file *f, int fd, uint64_t uaddr,
			       unsigned flag)
{
	unsigned old = file_flags(f), new_flags;
	int on, err;

	if (task_copy_in(t, &on, uaddr, sizeof(on)))
		return -EFAULT;
	new_flags = on ? old | flag : old & ~flag;
	if (new_flags == old)
		return 0;
	if (f->ops->set_flags) {
		err = f->ops->set_flags(f, new_flags);
		if (err)
			return err;
	}
	return sys_file_set_flags(f, fd, new_flags);
}

/* Regular files: bytes from the offset to the end. */
static int64_t fionread_regular(struct task *t, struct file *f, uint64_t uaddr)
{
	struct moat_statx st = {0};
	int err = file_stat(f, &(struct stat_args){.mask = STATX_SIZE}, &st);
	int left;

	if (err)
		return err;
	left = (int)((int64_t)st.size - f->pos);
	return task_copy_out(t, uaddr, &left, sizeof(left));
}

static int64_t block_size(struct task *t, struct file *f, uint64_t uaddr)
{
	struct moat_statx st = {0};
	int err = file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st);
	int size = (int)st.blksize;

	return err ? err : task_copy_out(t, uaddr, &size, sizeof(size));
}

/* TIOCGPTPEER: the terminal's other side as a new descriptor; arg is open(2)'s flags. */
static int64_t open_peer(struct task *t, struct file *f, unsigned cmd, uint64_t arg)
{
	struct file *peer;
	int err = tty_ioctl_open_peer(f, cmd, arg, &peer);

	return err ? err : sys_fd_install(t, peer, arg & O_CLOEXEC);
}

int64_t sys_ioctl(struct task *t, const struct syscall_args *a)
{
	struct file *f = sys_fd(t, ARG_INT(0));
	struct dentry *d;
	int64_t ret;

	if (!f)
		return -EBADF;
	switch (ARG_UINT(1)) {
	case FIOCLEX:
		ret = fd_set_cloexec(t->fdtable, ARG_INT(0), true);
		break;
	case FIONCLEX:
		ret = fd_set_cloexec(t->fdtable, ARG_INT(0), false);
		break;
	case FIONBIO:
		ret = set_status_flag(t, f, ARG_INT(0), a->a[2], O_NONBLOCK);
		break;
	case FIOASYNC:
		ret = set_status_flag(t, f, ARG_INT(0), a->a[2], O_ASYNC);
		break;
	case TIOCGPTPEER:
		ret = open_peer(t, f, ARG_UINT(1), a->a[2]);
		break;
	case FIGETBSZ:
		ret = block_size(t, f, a->a[2]);
		break;
	case FICLONE:
	case FICLONERANGE:
	case FIDEDUPERANGE:
	case FS_IOC_FIEMAP: /* as of tmpfs and virtio-fs: SEEK_DATA tells of holes */
		ret = -EOPNOTSUPP;
		break;
	case FIONREAD:
		d = f->path.dentry;
		if (d && S_ISREG(d->fs->ops->dentry_type(d))) {
			ret = fionread_regular(t, f, a->a[2]);
			break;
		}
		/* fall through */
	default:
		ret = file_ioctl(f, ARG_UINT(1), a->a[2]);
	}
	file_unref(f);
	return sys_restart(ret);
}
