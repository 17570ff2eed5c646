/*
 * fsimpl/gofer/fifo.c - fifos of the host, where --host-fifo=open allows them: the gofer donates a descriptor, opened without waiting.
 *
 * So the waiting is done here. A writer asks again until somebody reads; a reader has its descriptor and looks until something
 * was written or a writer has come and gone: the host does not show a writer that has only opened it.
 */
#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sleep.h"
#include "fsimpl/gofer/internal.h"

#define FIFO_TICK_NS (20 * 1000000ll)

/* Is it d's fifo? It was asked for by name, perhaps for the tenth time: the host may have put another file there. */
static bool is_fifo_of(int fd, struct remote_dentry *d)
{
	struct stat st;

	/* qid.path: an index of the device is in the upper 16 bits (docs/9p.md). */
	return !fstat(fd, &st) && S_ISFIFO(st.st_mode) &&
	       !((st.st_ino ^ gofer_inode_of(d)->qid_path) << 16);
}

/* Return: a descriptor or -errno; -ENXIO: nobody reads; -ESTALE: another file has the name. */
static int ask(struct remote_dentry *d, unsigned accmode)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	int fd = rwlock_read_lock_killable(&fs->tree_lock);

	if (fd)
		return fd;
	fd = gofer_ask_fd(d, P9_WANT_FIFO, accmode);
	rwlock_read_unlock(&fs->tree_lock);
	if (fd >= 0 && !is_fifo_of(fd, d)) {
		close(fd);
		fd = -ESTALE;
	}
	return fd;
}

/* Return: 0, -EINTR. */
static int wait_tick(void)
{
	int err = sleeper_wait(sleeper_current(), SLEEP_INTERRUPTIBLE,
			       time_monotonic_ns() + FIFO_TICK_NS);

	return err == -EINTR ? err : 0;
}

static int wait_for_writer(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	int err = 0;

	while (!err && poll(&p, 1, 0) <= 0)
		err = wait_tick();
	return err;
}

int gofer_open_host_fifo(struct remote_dentry *d, unsigned flags, const struct vfs_path *place,
			 struct file **ret)
{
	unsigned accmode = flags & O_ACCMODE;
	int fd, err = 0;

	do {
		fd = ask(d, accmode);
		if (fd == -ENXIO && accmode == O_WRONLY && !(flags & O_NONBLOCK))
			err = wait_tick();
		else if (fd < 0)
			return fd;
	} while (fd < 0 && !err);
	if (err)
		return err;
	if (accmode == O_RDONLY && !(flags & O_NONBLOCK))
		err = wait_for_writer(fd);
	if (!err)
		err = vfs_hooks.open_host(fd, S_IFIFO, flags & (O_ACCMODE | O_APPEND | O_NONBLOCK),
					  place, ret);
	if (err)
		close(fd);
	return err;
}
