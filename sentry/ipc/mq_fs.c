/*
 * sentry/ipc/mq_fs.c - the filesystem of message queues: type mqueue, one filesystem a namespace, shared by all its mounts and by mq_open(2).
 *
 * It is a synthetic filesystem whose root asks the space for what there is. A node comes and goes with those who
 * use it and refers to its queue, which alone knows mode and owner: two nodes may be of one queue for a moment, while
 * one goes and a look-up makes the next.
 */
#include <fcntl.h>
#include <limits.h>
#include <string.h>

#include "fsimpl/synth/synth.h"
#include "sentry/ipc/ipc.h"
#include "sentry/ipc/mq_internal.h"
#include "vfs/perm.h"

#include <linux/capability.h>
#include <linux/magic.h>

#ifndef MQUEUE_MAGIC
#define MQUEUE_MAGIC 0x19800202
#endif
/* What Linux says a queue's file and a directory's entry have. */
#define QUEUE_FILE_SIZE 80
#define DIRENT_SIZE 20

static struct filesystem_ops mqueue_ops;
static struct filesystem_type mqueue_type;

/* mq_open's attributes on their way through the VFS to root_create(), on the same thread. */
static __thread const struct mq_attr_k *creating;

/* ---- files ---- */

static struct mq_queue *queue_of_node(struct synth_node *n)
{
	return n->priv;
}

static int queue_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct mq_queue *q = queue_of_node(n);

	mutex_lock(&q->space->lock);
	inout->nlink = q->linked;
	inout->mode = q->mode;
	inout->uid = q->uid;
	inout->gid = q->gid;
	mutex_unlock(&q->space->lock);
	inout->size = QUEUE_FILE_SIZE;
	return 0;
}

static struct perm_inode queue_perm_locked(const struct mq_queue *q)
{
	return (struct perm_inode){.mode = q->mode, .uid = q->uid, .gid = q->gid};
}

static int queue_setattr(struct synth_node *n, const struct setattr_args *in)
{
	struct mq_queue *q = queue_of_node(n);
	struct setattr_args args = *in;
	struct perm_inode pi;
	int err;

	mutex_lock(&q->space->lock);
	pi = queue_perm_locked(q);
	err = vfs_may_setattr(cred_current(), &pi, &args);
	if (!err) {
		if (args.valid & SETATTR_MODE)
			q->mode = (q->mode & S_IFMT) | (args.mode & 07777);
		if (args.valid & SETATTR_UID)
			q->uid = args.uid;
		if (args.valid & SETATTR_GID)
			q->gid = args.gid;
	}
	mutex_unlock(&q->space->lock);
	return err;
}

static void queue_destroy(struct synth_node *n)
{
	mq_queue_unref(queue_of_node(n));
}

static int queue_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	mq_show(queue_of_node(n), b);
	return 0;
}

static ssize_t queue_write_at(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			      unused_arg struct io_iter *it, unused_arg int64_t off)
{
	return -EINVAL;
}

static void queue_flush(struct synth_node *n, unused_arg struct synth_file *sf)
{
	struct task *t = task_current();

	if (t)
		mq_notify_closed(queue_of_node(n), t->group);
}

static uint32_t queue_poll(struct synth_node *n, unused_arg struct synth_file *sf)
{
	return mq_poll(queue_of_node(n));
}

static struct wait_queue *queue_wait(struct synth_node *n, unused_arg struct synth_file *sf)
{
	return &queue_of_node(n)->wait;
}

static const struct synth_node_ops queue_ops = {
	.getattr = queue_getattr,
	.setattr = queue_setattr,
	.destroy = queue_destroy,
	.show = queue_show,
	.write_at = queue_write_at,
	.flush = queue_flush,
	.poll = queue_poll,
	.poll_queue = queue_wait,
};

struct mq_queue *mq_queue_of(const struct file *f)
{
	struct dentry *d = f->path.dentry;

	if ((f->mode & FILE_PATH_ONLY) || !d || d->fs->ops != &mqueue_ops)
		return NULL;
	return synth_node_of(d)->ops == &queue_ops ? queue_of_node(synth_node_of(d)) : NULL;
}

bool mq_is_queue(const struct file *f)
{
	return mq_queue_of(f) != NULL;
}

/* ---- the directory ---- */

static struct mq_space *space_of(struct synth_node *root)
{
	return root->priv;
}

static struct mq_queue *find_locked(struct mq_space *s, const char *name, size_t len)
{
	struct mq_queue *q;

	TAILQ_FOREACH (q, &s->queues, link)
		if (q->name_len == len && !memcmp(q->name, name, len))
			return q;
	return NULL;
}

static int root_lookup(struct synth_node *dir, const char *name, size_t len,
		       struct synth_node **ret)
{
	struct mq_space *s = space_of(dir);
	struct mq_queue *q;
	uint32_t type = 0;
	int err;

	mutex_lock(&s->lock);
	q = find_locked(s, name, len);
	if (q) {
		mq_queue_ref(q);
		type = q->mode & S_IFMT;
	}
	mutex_unlock(&s->lock);
	if (!q)
		return -ENOENT;
	err = synth_node_create(dir, name, len, type, &queue_ops, q, ret);
	if (err) {
		mq_queue_unref(q);
		return err;
	}
	(*ret)->ino = q->serial + 2;
	return 0;
}

static int root_create(struct synth_node *dir, const char *name, size_t len, uint32_t mode)
{
	struct mq_space *s = space_of(dir);
	struct mq_queue *q;
	int err = mq_queue_create(s, name, len, mode, creating, &q);

	if (err)
		return err;
	mutex_lock(&s->lock);
	if (s->closed)
		err = -EACCES;
	else if (find_locked(s, name, len))
		err = -EEXIST;
	else if (s->count >= mq_limit(s, MQ_LIMIT_QUEUES) &&
		 !cred_has_cap(cred_current(), CAP_SYS_RESOURCE))
		err = -ENOSPC;
	if (!err) {
		q->serial = s->next_serial++;
		q->linked = true;
		s->count++;
		TAILQ_INSERT_TAIL(&s->queues, q, link); /* takes the reference */
	}
	mutex_unlock(&s->lock);
	if (err)
		mq_queue_unref(q);
	return err;
}

static struct perm_inode node_perm(struct synth_node *n)
{
	return (struct perm_inode){
		.mode = atomic_load_explicit(&n->mode, memory_order_relaxed),
		.uid = atomic_load_explicit(&n->uid, memory_order_relaxed),
		.gid = atomic_load_explicit(&n->gid, memory_order_relaxed),
	};
}

static void unlink_locked(struct mq_space *s, struct mq_queue *q)
{
	TAILQ_REMOVE(&s->queues, q, link);
	q->linked = false;
	s->count--;
}

static int root_unlink(struct synth_node *dir, struct synth_node *child)
{
	struct mq_space *s = space_of(dir);
	struct mq_queue *q = queue_of_node(child);
	struct perm_inode up = node_perm(dir), victim;
	int err;

	mutex_lock(&s->lock);
	victim = queue_perm_locked(q);
	err = vfs_may_delete(cred_current(), &up, &victim, false);
	if (!err)
		err = q->linked ? 0 : -ENOENT;
	if (!err)
		unlink_locked(s, q);
	mutex_unlock(&s->lock);
	if (!err)
		mq_queue_unref(q);
	return err;
}

static int root_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	struct mq_space *s = space_of(dir);
	struct mq_queue *q;
	bool more = true;

	while (more) {
		mutex_lock(&s->lock);
		TAILQ_FOREACH (q, &s->queues, link)
			if (q->serial >= (uint64_t)from)
				break;
		if (q)
			mq_queue_ref(q);
		mutex_unlock(&s->lock);
		if (!q)
			break;
		from = (int64_t)q->serial + 1;
		more = synth_emit(it, q->name, q->name_len, S_IFREG, q->serial + 2,
				  (int64_t)q->serial);
		mq_queue_unref(q);
	}
	return 0;
}

static int root_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct mq_space *s = space_of(n);

	mutex_lock(&s->lock);
	inout->size = (2 + s->count) * DIRENT_SIZE;
	mutex_unlock(&s->lock);
	return 0;
}

static const struct synth_node_ops root_ops = {
	.getattr = root_getattr,
	.fixed_perm = true,
	.lookup = root_lookup,
	.create = root_create,
	.unlink = root_unlink,
	.iterate = root_iterate,
};

/* ---- filesystems ---- */

static void fs_release(void *priv)
{
	mq_space_unref(priv);
}

static void fs_put(struct filesystem *fs, struct dentry *root, struct mount *m)
{
	if (m)
		mount_unref(m);
	if (root)
		dentry_unref(root);
	if (fs)
		filesystem_unref(fs);
}

/* The space's filesystem, made at first use. Return: 0 with references, -ENOMEM, -EACCES: its namespace has ended. */
static int space_fs(struct mq_space *s, struct filesystem **ret_fs, struct dentry **ret_root,
		    struct mount **ret_mount)
{
	static const struct synth_entry root_entry = {.mode = S_IFDIR | S_ISVTX | 0777,
						      .ops = &root_ops};
	struct filesystem *fs = NULL;
	struct dentry *root = NULL;
	struct mount *m = NULL;
	bool have;
	int err;

	mutex_lock(&s->lock);
	have = s->fs || s->closed;
	mutex_unlock(&s->lock);
	if (!have) {
		ref_get(&s->ref);
		err = synth_fs_create(&mqueue_type, "mqueue", MQUEUE_MAGIC, &root_entry, s,
				      fs_release, &fs, &root);
		if (err) {
			mq_space_unref(s);
			return err;
		}
		err = mount_create_internal(fs, root, &m);
		if (err) {
			fs_put(fs, root, NULL);
			return err;
		}
	}
	mutex_lock(&s->lock);
	if (!s->fs && !s->closed && m) {
		s->fs = fs;
		s->root = root;
		s->mount = m;
		fs = NULL;
		root = NULL;
		m = NULL;
	}
	err = s->fs ? 0 : -EACCES;
	if (!err) {
		filesystem_ref(s->fs);
		dentry_ref(s->root);
		mount_ref(s->mount);
		*ret_fs = s->fs;
		*ret_root = s->root;
		*ret_mount = s->mount;
	}
	mutex_unlock(&s->lock);
	/* Another was faster. */
	fs_put(fs, root, m);
	return err;
}

void mq_space_close(struct mq_space *s)
{
	struct filesystem *fs;
	struct dentry *root;
	struct mount *m;
	struct mq_queue *q;

	if (!s)
		return;
	mutex_lock(&s->lock);
	s->closed = true;
	fs = s->fs;
	root = s->root;
	m = s->mount;
	s->fs = NULL;
	s->root = NULL;
	s->mount = NULL;
	while ((q = TAILQ_FIRST(&s->queues))) {
		unlink_locked(s, q);
		mutex_unlock(&s->lock);
		mq_queue_unref(q);
		mutex_lock(&s->lock);
	}
	mutex_unlock(&s->lock);
	fs_put(fs, root, m);
	mq_space_unref(s);
}

static int mqueue_mount(unused_arg const struct filesystem_type *type,
			unused_arg const char *source, unused_arg unsigned ms_flags,
			unused_arg const char *data, unused_arg void *kernel_data,
			struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct mount *m;
	int err = space_fs(ipc_namespace_mq(ipc_current()), ret_fs, ret_root, &m);

	if (!err)
		mount_unref(m);
	return err;
}

static struct filesystem_type mqueue_type = {
	.name = "mqueue",
	.flags = FS_NODEV | FS_USERNS_MOUNT,
	.mount = mqueue_mount,
	.ops = &mqueue_ops,
};

void mq_register(void)
{
	mqueue_ops = synth_filesystem_ops;
	vfs_register_type(&mqueue_type);
}

/* ---- names ---- */

struct mq_place {
	struct filesystem *fs;
	struct vfs_path root;
	struct vfs_lookup lk;
};

/* A name is one component: lookup_noperm()'s errors. */
static int place_get(struct task *t, const char *name, struct mq_place *p)
{
	size_t len = strlen(name);
	int err;

	if (!len)
		return -ENOENT;
	if (len > NAME_MAX)
		return -ENAMETOOLONG;
	if (strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, ".."))
		return -EACCES;
	err = space_fs(ipc_namespace_mq(t->ipc_ns), &p->fs, &p->root.dentry, &p->root.mount);
	if (err)
		return err;
	p->lk = (struct vfs_lookup){
		.cred = t->cred,
		.ns = t->mnt_ns,
		.root = p->root,
		.start = p->root,
		.path = name,
	};
	return 0;
}

static void place_put(struct mq_place *p)
{
	fs_put(p->fs, p->root.dentry, p->root.mount);
}

int mq_open_file(struct task *t, const char *name, unsigned flags, uint32_t mode,
		 const struct mq_attr_k *attr, struct file **ret)
{
	struct open_args args = {
		.flags = flags & (O_ACCMODE | O_CREAT | O_EXCL | O_NONBLOCK),
		.mode = mode & 07777,
		.umask = fs_context_umask(t->fsctx),
	};
	struct mq_place p;
	int err = place_get(t, name, &p);

	if (err)
		return err;
	if ((flags & O_ACCMODE) == O_ACCMODE)
		err = -EINVAL;
	creating = attr;
	if (!err)
		err = vfs_open(&p.lk, &args, ret);
	creating = NULL;
	place_put(&p);
	return err;
}

int mq_unlink_name(struct task *t, const char *name)
{
	struct mq_place p;
	int err = place_get(t, name, &p);

	if (err)
		return err;
	err = vfs_unlink(&p.lk);
	place_put(&p);
	return err;
}
