/*
 * fsimpl/virtiofs/reconnect.c - a device whose daemon went away: another connection, and the filesystem on it brought back.
 *
 * A thread of the device's waits for its death, connects, does the handshake again over the same memory with fresh rings, and has the filesystem
 * find its nodes again. All of that is in the present tense of one epoch: node ids of before are refused (vdev_node()), so that a request that was
 * being made meanwhile reaches no stranger's file.
 *
 * What is found again: what has a name and is in use, by looking up that name from the root, if the same inode is there; its open handles, by
 * opening them anew; its locks, by taking them anew (lock.c). Dirty pages are in our memory and are written later. What was removed, or is another file now, stays EIO.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rcu.h"
#include "fsimpl/virtiofs/internal.h"
#include "fsimpl/virtiofs/internal_device.h"

/* ---- the device ---- */

/* Fresh rings; nobody but us enters any, for the device is dead. */
static int queue_reset(struct vdev_queue *q, unsigned size)
{
	struct vdev_doorbells bells;
	int err = vdev_doorbells_make(&bells);

	if (err)
		return err;
	if (q->poll.fd >= 0)
		hostpoll_remove(&q->poll);
	q->poll.fd = -1;
	mutex_lock(&q->lock);
	/* The old daemon, if it lives, keeps its ends of the old ones. */
	vdev_doorbells_close(&q->bells);
	q->bells = bells;
	mutex_unlock(&q->lock);
	err = vdev_queue_renew(q, size);
	return err ? err : hostpoll_add(&q->poll, q->bells.call, POLLIN, vdev_call_ready);
}

/* The daemon before may be alive still, and on its way out: its locks are not free at once. */
#define RELOCK_NS 2000000000ll

/* This thread's device is no more. */
static _Thread_local bool device_gone;

/* Takes the socket. The handshake, then what is on the device. */
static int restart(struct virtiofs_device *dev, int sock)
{
	unsigned queues = dev->queue_count, have = 0;
	int err, restoring = VDEV_RESTORING;

	if (vdev_epoch(dev) == VDEV_EPOCH_MAX) {
		close(sock);
		return -EOVERFLOW;
	}
	if (dev->sock_poll.fd >= 0)
		hostpoll_remove(&dev->sock_poll);
	dev->sock_poll.fd = -1;
	close(dev->sock);
	dev->sock = sock;
	err = vdev_negotiate(dev, queues - 1, &have);
	if (!err && have != queues) {
		log_error("virtio-fs device: the daemon has %u queues now, and had %u", have,
			  queues);
		err = -EPROTO;
	}
	for (unsigned i = 0; i < queues && !err; i++)
		err = queue_reset(&dev->queues[i], dev->queue_size);
	if (!err)
		err = vdev_start(dev);
	if (!err && dev->dax)
		err = dax_window_start(dev->dax);
	if (err)
		return err;
	atomic_fetch_add(&dev->epoch, 1);
	atomic_store(&dev->abandoned, false);
	atomic_store(&dev->state, VDEV_RESTORING);
	/* Who retires it meanwhile has found it dead, and waits for us: no request waits for this daemon. */
	if (atomic_load(&dev->closing))
		virtiofs_device_kill(dev, NULL);
	/* From here on its end is a death, which ends the restoring's requests. */
	err = hostpoll_add(&dev->sock_poll, sock, POLLIN | POLLRDHUP, vdev_sock_ready);
	op_lock(&dev->restore_lock);
	atomic_store(&dev->restore_end, time_monotonic_ns() + VDEV_RESTORE_NS);
	if (!err && dev->restore)
		err = dev->restore(dev->restore_arg);
	atomic_store(&dev->restore_end, 0);
	op_unlock(&dev->restore_lock);
	if (!err && !atomic_compare_exchange_strong(&dev->state, &restoring, VDEV_ALIVE))
		err = -EIO;
	if (err)
		virtiofs_device_kill(dev, "the file system could not be brought back");
	/* Last: that may be the device's end. */
	vfs_run_deferred();
	return err;
}

static void *reconnect_main(void *arg)
{
	struct virtiofs_device *dev = arg;
	int64_t wait_ms = VDEV_RECONNECT_MS_MIN;
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "moat-virtiofs");
	rcu_thread_begin();
	sleeper_set_current(&dev->reconnector_sleeper);
	while (!atomic_load(&dev->closing)) {
		int64_t deadline = TIME_FOREVER;

		if (atomic_load(&dev->state) == VDEV_DEAD && atomic_load(&dev->abandoned)) {
			int err = dev->reconnect(dev->reconnect_arg);

			if (err >= 0 && atomic_load(&dev->closing)) {
				close(err);
				break;
			}
			if (err >= 0)
				err = restart(dev, err);
			if (device_gone)
				break;
			if (!err) {
				log_warn("virtio-fs device: the daemon is back");
				wait_ms = VDEV_RECONNECT_MS_MIN;
				continue;
			}
			if (err == -EOVERFLOW) {
				log_error("virtio-fs device: the daemon was started anew %u times, "
					  "which is "
					  "as often as can be; mount it again",
					  VDEV_EPOCH_MAX);
				break;
			}
			deadline = time_monotonic_ns() + wait_ms * 1000000;
			wait_ms = MIN(wait_ms * 2, (int64_t)VDEV_RECONNECT_MS_MAX);
		}
		(void)!sleeper_wait(sleeper_current(), SLEEP_UNINTERRUPTIBLE, deadline);
	}
	sleeper_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

int vdev_reconnect_start(struct virtiofs_device *dev)
{
	return -pthread_create(&dev->reconnector, NULL, reconnect_main, dev);
}

void vdev_reconnect_stop(struct virtiofs_device *dev)
{
	if (!dev->reconnector)
		return;
	atomic_store(&dev->closing, true);
	sleeper_wake(&dev->reconnector_sleeper);
	/* What it ran itself last may have been the device's end. */
	if (pthread_equal(dev->reconnector, pthread_self())) {
		pthread_detach(dev->reconnector);
		sleeper_set_current(NULL);
		device_gone = true;
	} else {
		pthread_join(dev->reconnector, NULL);
	}
}

void virtiofs_device_retire(struct virtiofs_device *dev)
{
	/* Before and after: the thread may be waiting for the daemon, or have brought it back. */
	atomic_store(&dev->closing, true);
	virtiofs_device_kill(dev, NULL);
	vdev_reconnect_stop(dev);
	dev->reconnector = 0;
	virtiofs_device_kill(dev, NULL);
}

void vdev_set_restore(struct virtiofs_device *dev, int (*restore)(void *arg), void *arg)
{
	op_lock(&dev->restore_lock);
	dev->restore = restore;
	dev->restore_arg = arg;
	op_unlock(&dev->restore_lock);
}

/* ---- the filesystem; all under tree_lock (write) ---- */

struct restoring {
	struct virtiofs_fs *fs;
	struct remote_dentry **dentries; /* those in use; references; owned */
	unsigned count, found;
	int64_t relock_end; /* until when locks that are not free are asked for again; host CLOCK_MONOTONIC */
};

static bool is_current(const struct remote_dentry *d)
{
	const struct virtiofs_inode *in = virtiofs_inode_of(d);

	return vdev_node_current(in->fs->dev, in->nodeid);
}

/* A handle that cannot be had again has a number that no server gives. */
static void reopen_handles(struct virtiofs_inode *in, uint64_t node)
{
	struct virtiofs_handle *h;

	/* Only closing changes the list; it waits for in->lock, which is not held over a request. */
	for (h = virtiofs_handle_next(in, NULL); h; h = virtiofs_handle_next(in, h)) {
		const struct fuse_open_in arg = {.flags = h->flags};
		struct fuse_open_out out;
		struct vdev_call call = {
			.req = {.opcode = FUSE_OPEN, .nodeid = node, .arg = &arg},
			.reply = &out,
			.reply_size = sizeof(out),
		};
		ssize_t got = virtiofs_call(in->fs, &call);

		if (got == -ENOSYS && h->none)
			continue;
		if (got < 0)
			log_warn("virtio-fs: a file open before is not to be opened again: %s",
				 strerror((int)-got));
		atomic_store(&h->fh, got < 0 ? UINT64_MAX : out.fh);
		/* The daemon before had none, this one has. */
		atomic_store(&h->none, false);
		/* What is cached is compared with what others made of it meanwhile. */
		if (in->fs->options.cache != VIRTIOFS_CACHE_ALWAYS)
			atomic_store_explicit(&h->unchecked, true, memory_order_release);
	}
}

/* The inode is this node of the new daemon's. relock_end: host CLOCK_MONOTONIC. */
static void adopt(struct virtiofs_inode *in, const struct fuse_entry_out *e, int64_t relock_end)
{
	struct virtiofs_fs *fs = in->fs;
	uint64_t node = e->nodeid;

	virtiofs_inode_stale(in);
	virtiofs_pass_end(in);
	reopen_handles(in, node);
	virtiofs_relock(in, node, relock_end);
	mutex_lock(&fs->inode_lock);
	virtiofs_inode_rehash(in, node, e->generation);
	mutex_unlock(&fs->inode_lock);
}

/* d's directory was found: is d where it was? Return: 0: it is; -ENOENT: not, or another; -EIO: the daemon is gone again. */
static int find_again(struct remote_dentry *d, int64_t relock_end)
{
	struct remote_dentry *parent = remote_parent(d);
	struct virtiofs_inode *in = virtiofs_inode_of(d);
	const struct remote_key *key = rcu_load(d->key);
	struct fuse_entry_out e;
	bool same;
	int err = virtiofs_lookup_rpc(in->fs, virtiofs_inode_of(parent)->nodeid, key->name,
				      key->len, &e);

	if (!virtiofs_device_alive(in->fs->dev))
		return -EIO;
	if (err)
		return -ENOENT;
	same = fuse_entry_ok(&e) && (e.attr.mode & S_IFMT) == in->base.type &&
	       e.attr.ino == virtiofs_inode_ino(in);
	/* A key is of the file's handle: another file of the same number has another. */
	if (same && in->fs->versions && e.generation && in->generation)
		same = e.generation == in->generation;
	if (same) {
		adopt(in, &e, relock_end);
		atomic_store(&d->valid_until, in->fs->versions
						      ? (int64_t)e.entry_valid
						      : virtiofs_valid_until(in->fs, e.entry_valid,
									     e.entry_valid_nsec));
	} else if (fuse_entry_ok(&e)) {
		virtiofs_forget(in->fs, e.nodeid, 1);
	}
	return same ? 0 : -ENOENT;
}

/* From the highest directory that was not looked for yet down to d. */
static int revive(struct restoring *r, struct remote_dentry *d)
{
	while (!is_current(d)) {
		struct remote_dentry *top = d, *parent;
		int err;

		while ((parent = remote_parent(top)) && !is_current(parent))
			top = parent;
		err = parent ? find_again(top, r->relock_end) : -ENOENT;
		if (err == -EIO)
			return err;
		if (err) {
			/* It and all below it is lost. */
			remote_forget(&r->fs->dcache, top);
			atomic_fetch_or(&top->d.flags, DENTRY_DEAD);
			return 0;
		}
		r->found++;
	}
	return 0;
}

/* Every dentry that is in the table still: those in use, and their directories. */
static int collect(struct restoring *r)
{
	struct remote_dcache *c = &r->fs->dcache;
	struct remote_dentry *d;

	mutex_lock(&c->lock);
	r->dentries = calloc(atomic_load(&c->count) + 1, sizeof(struct remote_dentry *));
	if (r->dentries)
		TAILQ_FOREACH (d, &c->clock, clock) {
			/* What the old daemon said of it, or the number of its version, means nothing to the new one. */
			atomic_store(&d->valid_until, r->fs->versions ? -1 : 0);
			r->dentries[r->count++] = remote_dentry_ref(d);
		}
	mutex_unlock(&c->lock);
	return r->dentries ? 0 : -ENOMEM;
}

/* What is in use, below a root whose node is that of the new daemon's. */
static int restore_names(struct virtiofs_fs *fs)
{
	struct restoring r = {.fs = fs, .relock_end = time_monotonic_ns() + RELOCK_NS};
	int err;

	atomic_store(&fs->absent, 0);
	mutex_lock(&fs->forget_lock);
	fs->forget_count = 0;
	fs->forget_bytes = 0;
	mutex_unlock(&fs->forget_lock);
	virtiofs_inode_stale(virtiofs_inode_of(fs->root));
	remote_shrink(&fs->dcache);
	err = collect(&r);
	for (unsigned i = 0; i < r.count && !err; i++) {
		if (!r.dentries[i]->inode)
			remote_forget(&fs->dcache, r.dentries[i]);
		else if (!remote_is_dead(r.dentries[i]))
			err = revive(&r, r.dentries[i]);
	}
	log_info("virtio-fs: of %u names in use %u were found again", r.count, r.found);
	while (r.count)
		remote_dentry_unref(r.dentries[--r.count]);
	free(r.dentries);
	return err;
}

static int restore_top(struct virtiofs_fs *fs)
{
	struct fuse_attr_out out;
	int err = virtiofs_init_rpc(fs, true);

	/* What the daemon before had no request for this one may have. */
	atomic_store(&fs->absent, 0);
	if (!err)
		err = virtiofs_getattr_rpc(virtiofs_inode_of(fs->root), &out);
	if (!err && !S_ISDIR(out.attr.mode))
		err = -ENOTDIR;
	if (err)
		return err;
	if (fs->versions)
		atomic_store(&virtiofs_inode_of(fs->root)->generation, fs->versions->root_key);
	return restore_names(fs);
}

/* A submount's root is the node that its mount point, found again before it, is now. One whose place is lost stays lost. */
static int restore_submount(struct virtiofs_fs *fs)
{
	struct virtiofs_inode *root = virtiofs_inode_of(fs->root);
	struct virtiofs_inode *over = virtiofs_inode_of(fs->over);

	if (is_current(fs->over)) {
		atomic_store(&root->generation, atomic_load(&over->generation));
		atomic_store(&root->nodeid, atomic_load(&over->nodeid));
	}
	return restore_names(fs);
}

int virtiofs_restore(void *arg)
{
	struct virtiofs_fs *top = arg, *fs;
	int err;

	rwlock_write_lock(&top->tree_lock);
	err = restore_top(top);
	rwlock_write_unlock(&top->tree_lock);
	for (fs = NULL; !err && (fs = virtiofs_submount_next(top, fs));) {
		rwlock_write_lock(&fs->tree_lock);
		err = restore_submount(fs);
		rwlock_write_unlock(&fs->tree_lock);
	}
	if (fs)
		virtiofs_submount_put_later(fs);
	return err;
}
