#include "syscalls/util.h"

#include <stdlib.h>

/* The start from dirfd, borrowed from p->file. */
static int resolve_start(struct task *t, int dirfd, struct sys_path *p)
{
	p->file = fd_get(t->fdtable, dirfd);
	if (!p->file)
		return -EBADF;
	p->start = p->file->path;
	return 0;
}

int sys_path_init(struct task *t, int dirfd, unsigned lookup_flags, struct sys_path *p)
{
	bool relative;
	int err;

	p->file = NULL;
	p->start = (struct vfs_path){0};
	p->empty = !p->path[0];
	if (p->empty && !(lookup_flags & LOOKUP_EMPTY))
		return -ENOENT;
	/* LOOKUP_IN_ROOT takes an absolute path as relative to dirfd. */
	relative = p->path[0] != '/' || (lookup_flags & (LOOKUP_IN_ROOT | LOOKUP_BENEATH));
	if (relative && dirfd != SYS_AT_FDCWD) {
		err = resolve_start(t, dirfd, p);
		if (err)
			return err;
	}
	p->places = fs_context_pin(t->fsctx);
	p->root = p->places->root;
	if (relative && dirfd == SYS_AT_FDCWD)
		p->start = p->places->cwd;
	if (!p->start.mount)
		p->start = p->root;
	p->lk = (struct vfs_lookup){
		.cred = t->cred,
		.ns = t->mnt_ns,
		.root = p->root,
		.start = p->start,
		.path = p->path,
		.flags = lookup_flags,
	};
	return 0;
}

int sys_path_get(struct task *t, int dirfd, uint64_t upath, unsigned lookup_flags,
		 struct sys_path *p)
{
	ssize_t len = mm_copy_in_string(t->mm, p->path, upath, sizeof(p->path));

	if (len < 0)
		return (int)len;
	return sys_path_init(t, dirfd, lookup_flags, p);
}

int sys_path_from_fd(struct task *t, int fd, bool allow_path_only, struct sys_path *p)
{
	struct file *f = allow_path_only ? sys_fd_raw(t, fd) : sys_fd(t, fd);
	int err;

	if (!f)
		return -EBADF;
	p->path[0] = '\0';
	err = sys_path_init(t, fd, LOOKUP_EMPTY, p);
	file_unref(f);
	return err;
}

void sys_path_put(struct sys_path *p)
{
	fs_places_unpin(p->places);
	if (p->file)
		file_unref(p->file);
}

struct file *sys_fd_raw(struct task *t, int fd)
{
	return fd_get(t->fdtable, fd);
}

struct file *sys_fd(struct task *t, int fd)
{
	struct file *f = fd_get(t->fdtable, fd);

	if (f && unlikely(f->mode & FILE_PATH_ONLY)) {
		file_unref(f);
		return NULL;
	}
	return f;
}

int sys_fd_install(struct task *t, struct file *f, bool cloexec)
{
	int fd = fd_install(t->fdtable, f, 0, sys_fd_limit(t), cloexec);

	file_unref(f);
	return fd;
}

int sys_fd_install_pair(struct task *t, struct file *fa, struct file *fb, bool cloexec,
			uint64_t uaddr)
{
	unsigned limit = sys_fd_limit(t);
	int fds[2], err;

	fds[0] = fd_reserve(t->fdtable, 0, limit, cloexec);
	if (fds[0] < 0) {
		err = fds[0];
		goto out_unref;
	}
	fds[1] = fd_reserve(t->fdtable, 0, limit, cloexec);
	if (fds[1] < 0) {
		err = fds[1];
		goto out_first;
	}
	err = task_copy_out(t, uaddr, fds, sizeof(fds));
	if (err)
		goto out_second;
	fd_commit(t->fdtable, fds[0], fa);
	fd_commit(t->fdtable, fds[1], fb);
	file_unref(fa);
	file_unref(fb);
	return 0;

out_second:
	fd_cancel(t->fdtable, fds[1]);
out_first:
	fd_cancel(t->fdtable, fds[0]);
out_unref:
	file_unref(fa);
	file_unref(fb);
	return err;
}

int64_t sys_iov_get(struct task *t, uint64_t uiov, uint64_t count, struct iovec *fast,
		    struct iovec **ret_iov)
{
	struct iovec *iov = fast;
	uint64_t total = 0;
	int64_t err;

	if (count > SYS_IOV_MAX)
		return -EINVAL;
	if (count > SYS_IOV_FAST) {
		iov = malloc(count * sizeof(*iov));
		if (!iov)
			return -ENOMEM;
	}
	err = -EFAULT;
	if (count && task_copy_in(t, iov, uiov, count * sizeof(*iov)))
		goto out_free;
	for (uint64_t i = 0; i < count; i++) {
		uint64_t len = iov[i].iov_len;

		err = -EINVAL;
		if ((int64_t)len < 0)
			goto out_free;
		/* Checked before the cut, as import_iovec does. */
		err = -EFAULT;
		if (!sys_range_ok((uint64_t)iov[i].iov_base, len))
			goto out_free;
		if (len > FILE_IO_MAX - total)
			iov[i].iov_len = len = FILE_IO_MAX - total;
		total += len;
	}
	*ret_iov = iov;
	return (int64_t)total;

out_free:
	sys_iov_free(fast, iov);
	return err;
}

int64_t sys_deadline_after(int64_t ns)
{
	int64_t deadline;

	if (ns < 0)
		return 0;
	if (__builtin_add_overflow(time_monotonic_ns(), ns, &deadline))
		return TIME_FOREVER;
	return deadline;
}

int sys_timespec_deadline(struct task *t, uint64_t uaddr, int64_t *ret_deadline, bool *ret_zero)
{
	struct moat_timespec ts;
	int64_t ns;

	if (ret_zero)
		*ret_zero = false;
	if (!uaddr) {
		*ret_deadline = TIME_FOREVER;
		return 0;
	}
	if (task_copy_in(t, &ts, uaddr, sizeof(ts)))
		return -EFAULT;
	if (ts.sec < 0 || ts.nsec < 0 || ts.nsec >= 1000000000)
		return -EINVAL;
	if (ret_zero)
		*ret_zero = !ts.sec && !ts.nsec;
	if (__builtin_mul_overflow(ts.sec, (int64_t)1000000000, &ns) ||
	    __builtin_add_overflow(ns, ts.nsec, &ns)) {
		*ret_deadline = TIME_FOREVER;
		return 0;
	}
	*ret_deadline = sys_deadline_after(ns);
	return 0;
}

int sys_copy_struct_in(struct task *t, void *dst, size_t ksize, uint64_t uaddr, uint64_t usize)
{
	size_t size = MIN(ksize, usize);
	uint8_t rest[64];

	memset(dst, 0, ksize);
	if (usize > ksize) {
		for (uint64_t off = ksize; off < usize;) {
			size_t n = MIN(sizeof(rest), usize - off);

			if (task_copy_in(t, rest, uaddr + off, n))
				return -EFAULT;
			for (size_t i = 0; i < n; i++)
				if (rest[i])
					return -E2BIG;
			off += n;
		}
	}
	return task_copy_in(t, dst, uaddr, size) ? -EFAULT : 0;
}
