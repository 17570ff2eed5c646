/*
 * vfs/inotify.c - inotify(7).
 *
 * Watches are found by (filesystem, inode key) in one hash table under one lock (LOCK_INOTIFY); while there is none, reporting an event
 * costs a load. A watch pins its filesystem, its inode and, as long as that has its name, its dentry (a remote filesystem would forget it):
 * a removed file's dentry goes with the last open file, and its release tells of IN_DELETE_SELF. Events queue per inotify file, the last one is merged with its like,
 * and past fs.inotify.max_queued_events one IN_Q_OVERFLOW stands for the rest.
 *
 * Watch: /proc/PID/fdinfo. What changes on a host behind our back a filesystem may hear of and tell (vfs_notify_outside()).
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <linux/stat.h>
#include <poll.h>
#include <sys/ioctl.h>

#include "base/hash.h"
#include "base/ucount.h"
#include "vfs/inotify.h"
#include "vfs/vfs_internal.h"

#define WATCH_BUCKETS 1024u

struct inotify_watch {
	LIST_ENTRY(inotify_watch) bucket;
	TAILQ_ENTRY(inotify_watch) in_group;
	struct inotify_file *group;
	struct filesystem *fs; /* a reference */
	void *inode; /* inode_hold() */
	struct dentry *dentry; /* a reference; NULL: removed. Guarded by inotify_lock */
	uint64_t key;
	uint64_t ino; /* for fdinfo */
	int wd;
	bool isdir; /* immutable */
	uint32_t mask; /* guarded by inotify_lock */
	/* dnotify: `group` is NULL, and the owner of this description is signalled (not a reference: dnotify_gone()). */
	struct file *signalled;
	uint32_t moved_from; /* cookie of the last entry that left; guarded by inotify_lock */
	struct deferred_work drop;
};

struct queued_event {
	TAILQ_ENTRY(queued_event) link;
	struct inotify_event ev; /* followed by the padded name */
};

struct inotify_file {
	struct file file; /* base */
	struct wait_queue wait;
	/* guarded by inotify_lock */
	TAILQ_HEAD(event_list, queued_event) events;
	TAILQ_HEAD(watch_list, inotify_watch) watches;
	uint32_t count;
	size_t bytes;
	int next_wd;
	int64_t queued_max; /* immutable: what the setting was when it was made */
	struct ucount *user; /* immutable; a reference: who is charged */
};

_Atomic int64_t inotify_queued_max = 16384, inotify_instances_max = 128,
		inotify_watches_max = 131072;

_Atomic uint32_t vfs_watch_count;

static struct mutex inotify_lock = MUTEX_INIT(LOCK_INOTIFY, "inotify");
static LIST_HEAD(, inotify_watch) watch_table[WATCH_BUCKETS]; /* guarded by inotify_lock */

static unsigned bucket_of(const struct filesystem *fs, uint64_t key)
{
	return (unsigned)(hash_u64(key ^ (uintptr_t)fs) % WATCH_BUCKETS);
}

uint32_t vfs_notify_cookie(void)
{
	static _Atomic uint32_t last;

	return atomic_fetch_add_explicit(&last, 1, memory_order_relaxed) + 1;
}

/* ---- queues ---- */

static size_t padded(size_t len)
{
	return len ? round_up_u64(len + 1, sizeof(struct inotify_event)) : 0;
}

static bool event_same(const struct queued_event *q, int wd, uint32_t mask, uint32_t cookie,
		       const char *name, size_t len)
{
	if (q->ev.wd != wd || q->ev.mask != mask || q->ev.cookie != cookie ||
	    q->ev.len != padded(len))
		return false;
	return !len || (!memcmp(q->ev.name, name, len) && !q->ev.name[len]);
}

static void queue_locked(struct inotify_file *g, int wd, uint32_t mask, uint32_t cookie,
			 const char *name, size_t len)
{
	struct queued_event *q = TAILQ_LAST(&g->events, event_list);
	size_t pad;

	if (q && event_same(q, wd, mask, cookie, name, len))
		return;
	if (g->count >= g->queued_max) {
		if (q && q->ev.mask == IN_Q_OVERFLOW)
			return;
		wd = -1;
		mask = IN_Q_OVERFLOW;
		cookie = 0;
		len = 0;
	}
	pad = padded(len);
	q = calloc(1, sizeof(*q) + pad);
	if (!q)
		return;
	q->ev = (struct inotify_event){
		.wd = wd, .mask = mask, .cookie = cookie, .len = (uint32_t)pad};
	if (len)
		memcpy(q->ev.name, name, len);
	TAILQ_INSERT_TAIL(&g->events, q, link);
	g->count++;
	g->bytes += sizeof(q->ev) + pad;
	wait_queue_wake(&g->wait, POLLIN | POLLRDNORM);
}

/* ---- watches ---- */

static uint32_t dir_bit(bool isdir)
{
	return isdir ? IN_ISDIR : 0;
}

static bool is_dir(struct dentry *d)
{
	return d->fs->ops->dentry_type(d) == S_IFDIR;
}

static void watch_drop_run(struct deferred_work *w)
{
	struct inotify_watch *watch = container_of(w, struct inotify_watch, drop);

	dentry_unref(watch->dentry);
	watch->fs->ops->watch_end(watch->fs, watch->key);
	watch->fs->ops->inode_drop(watch->fs, watch->inode);
	/* Not before: who removes a last name and sees no watch takes it that nothing but dentries holds its inode. */
	atomic_fetch_sub_explicit(&vfs_watch_count, 1, memory_order_seq_cst);
	filesystem_unref(watch->fs);
	free(watch);
}

/* nameless: the inode has no name (any more), or never had one. */
static void watch_enter_locked(struct inotify_watch *w, const struct vfs_path *p, bool nameless)
{
	struct dentry *d = p->dentry;

	w->fs = d->fs;
	w->isdir = is_dir(d);
	filesystem_ref(w->fs);
	w->inode = w->fs->ops->inode_hold(d);
	LIST_INSERT_HEAD(&watch_table[bucket_of(w->fs, w->key)], w, bucket);
	/* Counted, then looked: who removes d marks it dead, then looks at the count (vfs_notify_removed()). */
	atomic_fetch_add_explicit(&vfs_watch_count, 1, memory_order_seq_cst);
	if (!nameless && !(atomic_load_explicit(&d->flags, memory_order_seq_cst) & DENTRY_DEAD)) {
		w->dentry = d;
		dentry_ref(d);
	}
}

/* d lost its name: its watches let go of it. The caller has a reference on d. */
static void watches_unpin(struct dentry *d)
{
	struct inotify_watch *w;
	unsigned n = 0;

	mutex_lock(&inotify_lock);
	LIST_FOREACH (w, &watch_table[bucket_of(d->fs, d->fs->ops->inode_key(d))], bucket) {
		if (w->dentry != d)
			continue;
		w->dentry = NULL;
		n++;
	}
	mutex_unlock(&inotify_lock);
	while (n--)
		dentry_unref(d);
}

/* Out of all lists, with IN_IGNORED; its references go when no lock is held. inotify_lock held. */
static void watch_remove_locked(struct inotify_watch *w)
{
	LIST_REMOVE(w, bucket);
	if (w->group) {
		TAILQ_REMOVE(&w->group->watches, w, in_group);
		ucount_uncharge(w->group->user, UCOUNT_INOTIFY_WATCHES, 1);
		queue_locked(w->group, w->wd, IN_IGNORED, 0, NULL, 0);
	}
	w->drop.run = watch_drop_run;
	vfs_defer(&w->drop);
}

/* ---- dnotify: fcntl(F_NOTIFY) ---- */

#define DN_ACCESS_ 1u
#define DN_MODIFY_ 2u
#define DN_CREATE_ 4u
#define DN_DELETE_ 8u
#define DN_RENAME_ 16u
#define DN_ATTRIB_ 32u
#define DN_MULTISHOT_ 0x80000000u
#define DN_WANTS_RENAME IN_MOVE_SELF /* in a watch's mask: no directory event is called so */

struct dnotify_signal {
	struct deferred_work work;
	struct file *f; /* a reference */
};

static void dnotify_send(struct deferred_work *work)
{
	struct dnotify_signal *s = container_of(work, struct dnotify_signal, work);

	if (vfs_hooks.send_sigio)
		vfs_hooks.send_sigio(s->f, POLLIN | POLLRDNORM | POLLMSG);
	file_unref_later(s->f);
	free(s);
}

/* Something happened to the directory or in it: a signal, once no lock is held. Return: the watch has done its work. */
static bool dnotify_event_locked(struct inotify_watch *w, uint32_t mask, uint32_t cookie)
{
	struct dnotify_signal *s;
	bool hit = w->mask & mask & IN_ALL_EVENTS & ~(uint32_t)IN_MOVE_SELF;

	/* DN_RENAME: from this directory into itself. */
	if (mask & IN_MOVED_FROM)
		w->moved_from = cookie;
	if ((mask & IN_MOVED_TO) && w->moved_from == cookie)
		hit |= (w->mask & DN_WANTS_RENAME) != 0;
	if (!hit)
		return false;
	s = malloc(sizeof(*s));
	if (s && file_tryref(w->signalled)) {
		s->f = w->signalled;
		s->work.run = dnotify_send;
		vfs_defer_wake(&s->work);
	} else {
		free(s);
	}
	return w->mask & IN_ONESHOT;
}

static uint32_t dnotify_mask(uint32_t arg)
{
	return (arg & DN_ACCESS_ ? IN_ACCESS : 0) | (arg & DN_MODIFY_ ? IN_MODIFY : 0) |
	       (arg & DN_CREATE_ ? IN_CREATE | IN_MOVED_TO : 0) |
	       (arg & DN_DELETE_ ? IN_DELETE | IN_MOVED_FROM : 0) |
	       (arg & DN_RENAME_ ? DN_WANTS_RENAME : 0) | (arg & DN_ATTRIB_ ? IN_ATTRIB : 0) |
	       (arg & DN_MULTISHOT_ ? 0 : IN_ONESHOT);
}

static struct inotify_watch *dnotify_find_locked(const struct file *f)
{
	struct dentry *d = f->path.dentry;
	struct inotify_watch *w;

	LIST_FOREACH (w, &watch_table[bucket_of(d->fs, d->fs->ops->inode_key(d))], bucket)
		if (w->signalled == f)
			break;
	return w;
}

int dnotify_set(struct file *f, uint32_t arg)
{
	struct dentry *d = f->path.dentry;
	struct inotify_watch *w, *fresh;
	int err;

	if (!(arg & ~DN_MULTISHOT_)) {
		dnotify_gone_slow(f);
		return 0;
	}
	if (d->fs->ops->dentry_type(d) != S_IFDIR)
		return -ENOTDIR;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	err = d->fs->ops->watch_begin(d, IN_ALL_EVENTS & ~(uint32_t)IN_OPEN);
	if (err) {
		free(fresh);
		return err;
	}
	mutex_lock(&inotify_lock);
	w = dnotify_find_locked(f);
	if (w) {
		w->mask = dnotify_mask(arg) | (w->mask & dnotify_mask(~0u));
		if (arg & DN_MULTISHOT_)
			w->mask &= ~(uint32_t)IN_ONESHOT;
	} else {
		fresh->key = d->fs->ops->inode_key(d);
		fresh->mask = dnotify_mask(arg);
		fresh->signalled = f;
		watch_enter_locked(fresh, &f->path, false);
		fresh = NULL;
	}
	mutex_unlock(&inotify_lock);
	if (fresh)
		d->fs->ops->watch_end(d->fs, d->fs->ops->inode_key(d));
	free(fresh);
	return 0;
}

void dnotify_gone_slow(struct file *f)
{
	struct inotify_watch *w;

	mutex_lock(&inotify_lock);
	w = dnotify_find_locked(f);
	if (w)
		watch_remove_locked(w);
	mutex_unlock(&inotify_lock);
}

bool vfs_notify_watched(struct dentry *d)
{
	uint64_t key = d->fs->ops->inode_key(d);
	struct inotify_watch *w;

	mutex_lock(&inotify_lock);
	LIST_FOREACH (w, &watch_table[bucket_of(d->fs, key)], bucket)
		if (w->fs == d->fs && w->key == key)
			break;
	mutex_unlock(&inotify_lock);
	return w != NULL;
}

/* An event for the watchers of one inode. */
static void report_inode(struct filesystem *fs, uint64_t key, uint32_t mask, uint32_t cookie,
			 const char *name, size_t len, bool excl_dead)
{
	struct inotify_watch *w, *next;
	uint32_t what = mask & IN_ALL_EVENTS;

	mutex_lock(&inotify_lock);
	for (w = LIST_FIRST(&watch_table[bucket_of(fs, key)]); w; w = next) {
		next = LIST_NEXT(w, bucket);
		if (w->fs != fs || w->key != key)
			continue;
		if (!w->group) {
			if (dnotify_event_locked(w, mask, cookie) || (what & IN_DELETE_SELF))
				watch_remove_locked(w);
			continue;
		}
		if ((w->mask & what) && !(excl_dead && (w->mask & IN_EXCL_UNLINK))) {
			queue_locked(w->group, w->wd, mask, cookie, name, len);
			if (w->mask & IN_ONESHOT) {
				watch_remove_locked(w);
				continue;
			}
		}
		if (what & IN_DELETE_SELF)
			watch_remove_locked(w);
	}
	mutex_unlock(&inotify_lock);
}

static void report(struct dentry *d, uint32_t mask, uint32_t cookie, const char *name, size_t len,
		   bool excl_dead)
{
	report_inode(d->fs, d->fs->ops->inode_key(d), mask, cookie, name, len, excl_dead);
}

void vfs_notify_outside(struct filesystem *fs, uint64_t inode_key, uint32_t mask, uint32_t cookie,
			const char *name, size_t len)
{
	report_inode(fs, inode_key, mask & (IN_ALL_EVENTS | IN_ISDIR), cookie, name, len, false);
}

void vfs_notify_lost(struct filesystem *fs)
{
	struct inotify_watch *w;

	mutex_lock(&inotify_lock);
	for (unsigned i = 0; i < WATCH_BUCKETS; i++)
		LIST_FOREACH (w, &watch_table[i], bucket)
			if (w->fs == fs && w->group)
				queue_locked(w->group, -1, IN_Q_OVERFLOW, 0, NULL, 0);
	mutex_unlock(&inotify_lock);
}

void vfs_notify_unmount_slow(struct filesystem *fs)
{
	struct inotify_watch *w, *next;

	mutex_lock(&inotify_lock);
	for (unsigned i = 0; i < WATCH_BUCKETS; i++)
		for (w = LIST_FIRST(&watch_table[i]); w; w = next) {
			next = LIST_NEXT(w, bucket);
			if (w->fs != fs)
				continue;
			if (w->group)
				queue_locked(w->group, w->wd, IN_UNMOUNT | dir_bit(w->isdir), 0,
					     NULL, 0);
			watch_remove_locked(w);
		}
	mutex_unlock(&inotify_lock);
}

void vfs_notify_self_slow(struct dentry *d, uint32_t mask, bool isdir)
{
	/* The kernel leaves the bit out of what is said about a watched thing's own end and move. */
	bool own = mask & (IN_DELETE_SELF | IN_MOVE_SELF);

	report(d, mask | (own ? 0 : dir_bit(isdir)), 0, NULL, 0, false);
}

void vfs_notify_child_slow(struct dentry *dir, uint32_t mask, uint32_t cookie, const char *name,
			   size_t len, bool isdir)
{
	report(dir, mask | dir_bit(isdir), cookie, name, len, false);
}

void vfs_notify_both_slow(struct dentry *d, uint32_t mask, bool by_file)
{
	bool isdir = is_dir(d);
	char name[VFS_NAME_MAX + 1];
	struct dentry *parent = NULL;
	int err;

	err = d->fs->ops->get_parent(d, &parent, name, sizeof(name));
	by_file = by_file && err == -ENOENT;
	if (parent && name[0])
		report(parent, mask | dir_bit(isdir), 0, name, strlen(name), by_file);
	dentry_unref(parent);
	report(d, mask | dir_bit(isdir), 0, NULL, 0, by_file);
}

void vfs_notify_change_slow(struct dentry *d, unsigned valid)
{
	bool atime = valid & (SETATTR_ATIME | SETATTR_ATIME_NOW);
	bool mtime = valid & (SETATTR_MTIME | SETATTR_MTIME_NOW);
	uint32_t mask = 0;

	if (valid & SETATTR_FILE)
		return;
	if (valid & (SETATTR_MODE | SETATTR_UID | SETATTR_GID))
		mask |= IN_ATTRIB;
	if (valid & SETATTR_SIZE)
		mask |= IN_MODIFY;
	/* One time alone looks like what else sets it. */
	if (atime && mtime)
		mask |= IN_ATTRIB;
	else
		mask |= (atime ? IN_ACCESS : 0) | (mtime ? IN_MODIFY : 0);
	if (mask)
		vfs_notify_both_slow(d, mask, false);
}

void vfs_notify_removed_slow(struct dentry *dir, struct dentry *d, const char *name, size_t len,
			     bool isdir)
{
	if (!isdir)
		vfs_notify_self_slow(d, IN_ATTRIB, false);
	watches_unpin(d);
	dentry_unref(d);
	vfs_notify_child_slow(dir, IN_DELETE, 0, name, len, isdir);
}

void vfs_notify_gone_slow(struct dentry *d)
{
	vfs_notify_self_slow(d, IN_DELETE_SELF, false);
}

static void notify_move(const struct vfs_moved *m)
{
	uint32_t cookie = vfs_notify_cookie();

	vfs_notify_child_slow(m->from_dir, IN_MOVED_FROM, cookie, m->from, m->from_len, m->isdir);
	vfs_notify_child_slow(m->to_dir, IN_MOVED_TO, cookie, m->to, m->to_len, m->isdir);
	if (m->replaced)
		vfs_notify_self_slow(m->replaced, IN_ATTRIB, m->isdir);
	if (m->d)
		vfs_notify_self_slow(m->d, IN_MOVE_SELF, m->isdir);
	if (m->replaced)
		watches_unpin(m->replaced);
}

void vfs_notify_moved(const struct vfs_moved *m)
{
	if (!vfs_notify_wanted())
		return;
	notify_move(m);
	if (m->exchanged)
		notify_move(&(struct vfs_moved){.from_dir = m->to_dir,
						.to_dir = m->from_dir,
						.from = m->to,
						.from_len = m->to_len,
						.to = m->from,
						.to_len = m->from_len,
						.d = m->exchanged,
						.isdir = is_dir(m->exchanged)});
}

/* ---- the file ---- */

static struct inotify_file *inotify_of(struct file *f)
{
	return (struct inotify_file *)f;
}

/* The next event if it fits. -EAGAIN: none; -EINVAL: too big for the buffer. */
static int pop_event(struct inotify_file *g, uint64_t room, struct queued_event **ret)
{
	struct queued_event *q;
	int err = 0;

	mutex_lock(&inotify_lock);
	q = TAILQ_FIRST(&g->events);
	if (!q) {
		err = -EAGAIN;
	} else if (sizeof(q->ev) + q->ev.len > room) {
		err = -EINVAL;
	} else {
		TAILQ_REMOVE(&g->events, q, link);
		g->count--;
		g->bytes -= sizeof(q->ev) + q->ev.len;
		*ret = q;
	}
	mutex_unlock(&inotify_lock);
	return err;
}

static ssize_t inotify_read_iter(struct file *f, struct io_iter *it, int64_t off unused_arg,
				 int rwf unused_arg)
{
	struct inotify_file *g = inotify_of(f);
	struct queued_event *q;
	ssize_t done = 0;
	int err;

	for (;;) {
		size_t size, got;

		err = pop_event(g, it->remaining, &q);
		if (err)
			break;
		size = sizeof(q->ev) + q->ev.len;
		got = io_iter_put(it, &q->ev, size);
		free(q);
		if (got < size)
			return done ? done : -EFAULT;
		done += (ssize_t)size;
	}
	return done ? done : err;
}

static uint32_t inotify_poll(struct file *f)
{
	struct inotify_file *g = inotify_of(f);
	uint32_t now;

	mutex_lock(&inotify_lock);
	now = TAILQ_EMPTY(&g->events) ? 0 : POLLIN | POLLRDNORM;
	mutex_unlock(&inotify_lock);
	return now;
}

static void inotify_poll_add(struct file *f, struct waiter *w)
{
	wait_queue_add(&inotify_of(f)->wait, w);
}

static void inotify_poll_remove(struct file *f unused_arg, struct waiter *w)
{
	wait_queue_remove(w);
}

static int64_t inotify_ioctl(struct file *f, unsigned cmd, uint64_t arg)
{
	int bytes;

	if (cmd != FIONREAD)
		return -ENOTTY;
	mutex_lock(&inotify_lock);
	bytes = (int)inotify_of(f)->bytes;
	mutex_unlock(&inotify_lock);
	return vfs_user_copy_out(arg, &bytes, sizeof(bytes));
}

static void inotify_release(struct file *f)
{
	struct inotify_file *g = inotify_of(f);
	struct inotify_watch *w;
	struct queued_event *q;

	mutex_lock(&inotify_lock);
	while ((w = TAILQ_FIRST(&g->watches)))
		watch_remove_locked(w);
	mutex_unlock(&inotify_lock);
	while ((q = TAILQ_FIRST(&g->events))) {
		TAILQ_REMOVE(&g->events, q, link);
		free(q);
	}
	ucount_uncharge(g->user, UCOUNT_INOTIFY_INSTANCES, 1);
	ucount_put(g->user);
	wait_queue_fini(&g->wait);
	file_free(f);
}

static void inotify_show_fdinfo(struct file *f, struct buf *b)
{
	struct inotify_watch *w;

	mutex_lock(&inotify_lock);
	TAILQ_FOREACH (w, &inotify_of(f)->watches, in_group)
		buf_printf(b, "inotify wd:%x ino:%llx sdev:%x mask:%x ignored_mask:0\n", w->wd,
			   (unsigned long long)w->ino, w->fs->dev_minor,
			   w->mask & (IN_ALL_EVENTS | IN_ONESHOT | IN_EXCL_UNLINK));
	mutex_unlock(&inotify_lock);
}

static const struct file_ops inotify_ops = {
	.name = "anon_inode:inotify",
	.no_read_flags = true,
	.release = inotify_release,
	.read_iter = inotify_read_iter,
	.poll = inotify_poll,
	.poll_add = inotify_poll_add,
	.fasync = true,
	.poll_remove = inotify_poll_remove,
	.ioctl = inotify_ioctl,
	.show_fdinfo = inotify_show_fdinfo,
};

bool file_is_inotify(const struct file *f)
{
	return f->ops == &inotify_ops;
}

int inotify_file_create(const struct vfs_path *place, unsigned flags, struct file **ret)
{
	const struct cred *cred = cred_current();
	struct inotify_file *g = calloc(1, sizeof(*g));

	if (!g)
		return -ENOMEM;
	g->queued_max = inotify_queued_max;
	g->user = ucount_get(cred ? cred->uid : 0);
	if (!g->user ||
	    !ucount_try_charge(g->user, UCOUNT_INOTIFY_INSTANCES, 1, inotify_instances_max)) {
		int err = g->user ? -EMFILE : -ENOMEM;

		ucount_put(g->user);
		free(g);
		return err;
	}
	file_init(&g->file, &inotify_ops, place, flags & ~(unsigned)O_ACCMODE, FILE_STREAM);
	TAILQ_INIT(&g->events);
	TAILQ_INIT(&g->watches);
	wait_queue_init(&g->wait);
	g->next_wd = 1;
	*ret = &g->file;
	return 0;
}

static struct inotify_watch *find_locked(struct inotify_file *g, struct filesystem *fs,
					 uint64_t key)
{
	struct inotify_watch *w;

	LIST_FOREACH (w, &watch_table[bucket_of(fs, key)], bucket)
		if (w->group == g && w->fs == fs && w->key == key)
			return w;
	return NULL;
}

static int update_locked(struct inotify_watch *w, uint32_t mask)
{
	if (mask & IN_MASK_CREATE)
		return -EEXIST;
	if (mask & IN_MASK_ADD)
		w->mask |= mask;
	else
		w->mask = mask;
	return w->wd;
}

/* Its number and count of names; nothing if that fails. */
static struct moat_statx stat_of(const struct vfs_path *p)
{
	struct vfs_lookup lk = {
		.cred = cred_current(), .root = *p, .start = *p, .path = "", .flags = LOOKUP_EMPTY};
	struct moat_statx st = {0};

	if (vfs_stat(&lk, &(struct stat_args){.mask = STATX_INO | STATX_NLINK}, &st))
		st = (struct moat_statx){0};
	return st;
}

int inotify_file_add_watch(struct file *f, const struct vfs_path *p, uint32_t mask)
{
	struct inotify_file *g = inotify_of(f);
	struct filesystem *fs = p->dentry->fs;
	struct inotify_watch *w, *fresh;
	uint64_t key = fs->ops->inode_key(p->dentry);
	struct moat_statx st;
	int ret;

	if (!file_is_inotify(f) || !mask || (mask & ~(uint32_t)INOTIFY_MASK) ||
	    ((mask & IN_MASK_ADD) && (mask & IN_MASK_CREATE)))
		return -EINVAL;
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh)
		return -ENOMEM;
	ret = fs->ops->watch_begin(p->dentry, mask & IN_ALL_EVENTS);
	if (ret) {
		free(fresh);
		return ret;
	}
	st = stat_of(p);
	mutex_lock(&inotify_lock);
	w = find_locked(g, fs, key);
	if (w) {
		ret = update_locked(w, mask);
	} else if (g->next_wd == INT32_MAX ||
		   !ucount_try_charge(g->user, UCOUNT_INOTIFY_WATCHES, 1, inotify_watches_max)) {
		ret = -ENOSPC;
	} else {
		*fresh = (struct inotify_watch){
			.group = g, .key = key, .ino = st.ino, .wd = g->next_wd++, .mask = mask};
		watch_enter_locked(fresh, p, (st.mask & STATX_NLINK) && !st.nlink);
		TAILQ_INSERT_TAIL(&g->watches, fresh, in_group);
		ret = fresh->wd;
		fresh = NULL;
	}
	mutex_unlock(&inotify_lock);
	/* A watch that is there already has its own. */
	if (fresh)
		fs->ops->watch_end(fs, key);
	free(fresh);
	return ret;
}

int inotify_file_rm_watch(struct file *f, int wd)
{
	struct inotify_watch *w;

	if (!file_is_inotify(f))
		return -EINVAL;
	mutex_lock(&inotify_lock);
	TAILQ_FOREACH (w, &inotify_of(f)->watches, in_group)
		if (w->wd == wd)
			break;
	if (w)
		watch_remove_locked(w);
	mutex_unlock(&inotify_lock);
	return w ? 0 : -EINVAL;
}
