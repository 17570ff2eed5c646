/*
 * sentry/fs/cgroup_group.c - the directories of cgroup2: groups that are made by mkdir(2), and the files that each of them has (sentry/cgroup_tree.h).
 *
 * No controller can be given to a group: its cgroup.controllers is empty, and so it has none of their files.
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "sentry/cgroup_tree.h"
#include "sentry/fs/cgroup.h"
#include "sentry/fs/fs.h"
#include "sentry/pidns.h"
#include "sentry/task.h"
#include "vfs/inotify.h"
#include "vfs/perm.h"

static struct cgroup_view *view_of(struct synth_node *n)
{
	return n->priv;
}

static struct cgroup_group *group_of(struct synth_node *n)
{
	return view_of(n)->group;
}

static unsigned file_of(struct synth_node *n)
{
	return n->entry ? (unsigned)(uintptr_t)n->entry->data : CGROUP_DIRECTORY;
}

/* ---- owners, which outlive nodes ---- */

static void put_owner(struct cgroup_group *c, unsigned file, struct synth_attr *inout)
{
	struct cgroup_owner o;

	cgroup_group_owner(c, file, &o);
	if (o.mode)
		inout->mode = (inout->mode & S_IFMT) | (o.mode & 07777);
	inout->uid = o.uid;
	inout->gid = o.gid;
}

static int group_getattr(struct synth_node *n, struct synth_attr *inout)
{
	put_owner(group_of(n), file_of(n), inout);
	return 0;
}

static int group_setattr(struct synth_node *n, const struct setattr_args *in)
{
	struct cgroup_group *c = group_of(n);
	struct synth_attr attr = {.mode = n->mode};
	struct setattr_args args = *in;
	struct cgroup_owner o;
	struct perm_inode pi;
	int err;

	put_owner(c, file_of(n), &attr);
	pi = (struct perm_inode){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
	err = vfs_may_setattr(cred_current(), &pi, &args);
	if (err)
		return err;
	o = (struct cgroup_owner){(attr.mode & S_IFMT) | (args.mode & 07777), args.uid, args.gid};
	path_change_begin(n->dentry.fs);
	filesystem_paths_changed(n->dentry.fs);
	cgroup_group_set_owner(c, file_of(n), &o, args.valid);
	path_change_end(n->dentry.fs);
	return 0;
}

/* ---- who is in it ---- */

/* An open file of a group that was removed. */
static int gone(struct synth_node *n)
{
	return cgroup_group_removed(group_of(n)) ? -ENODEV : 0;
}

static int procs_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct cgroup_group *c = group_of(n);
	struct thread_group *g;
	int32_t id = 1;

	while ((g = task_cgroup_next_group(c->cg, &id))) {
		int32_t nr = pid_current_vnr(g->tgid);

		if (nr && cgroup_group_has(c, g) && !group_has_ended(g))
			buf_printf(b, "%d\n", nr);
		group_unref(g);
		id++;
	}
	return gone(n);
}

static int threads_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct cgroup_group *c = group_of(n);
	struct task *t;
	int32_t id = 1;

	while ((t = task_cgroup_next_task(c->cg, &id))) {
		int32_t nr = pid_current_vnr(t->tid);

		if (nr && cgroup_group_has(c, t->group) && !group_has_ended(t->group))
			buf_printf(b, "%d\n", nr);
		task_unref(t);
		id++;
	}
	return gone(n);
}

/* As Linux: who moves a process may write to the cgroup.procs of the group that holds where it was and where it goes. */
static int may_move(const struct cred *cred, struct cgroup_group *from, struct cgroup_group *to)
{
	struct cgroup_group *common = cgroup_group_common(from, to);
	struct synth_attr attr = {.mode = S_IFREG | 0644};
	struct perm_inode pi;

	put_owner(common, CGROUP_PROCS, &attr);
	cgroup_group_unref(common);
	pi = (struct perm_inode){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
	return vfs_permission(cred, &pi, W_OK);
}

int cgroup_group_of_dir(struct file *f, const struct cred *cred, struct cgroup_group **ret)
{
	struct synth_attr attr = {.mode = S_IFREG | 0644};
	struct task *self = task_current();
	struct cgroup_group *to, *from;
	struct perm_inode pi;
	struct synth_node *n;
	int err;

	if (f->path.dentry->fs->magic != CGROUP2_SUPER_MAGIC)
		return -EBADF;
	n = synth_node_of(f->path.dentry);
	if (n->entry || !self)
		return -EBADF;
	to = group_of(n);
	if (self->group->cgroup != to->cg || cgroup_group_removed(to))
		return -ENOENT;
	put_owner(to, CGROUP_PROCS, &attr);
	pi = (struct perm_inode){.mode = attr.mode, .uid = attr.uid, .gid = attr.gid};
	err = vfs_permission(cred, &pi, W_OK);
	if (!err) {
		from = cgroup_group_of(self->group);
		err = may_move(cred, from, to);
		cgroup_group_unref(from);
	}
	if (err)
		return err;
	cgroup_group_ref(to);
	*ret = to;
	return 0;
}

static int move(struct synth_file *sf, struct cgroup_group *to, struct thread_group *g)
{
	struct cgroup_group *from;
	int err;

	if (g->cgroup != to->cg)
		return -ENOENT;
	/* Where it was when the caller was found to have a right to it. */
	do {
		from = cgroup_group_of(g);
		err = may_move(sf->file.cred, from, to);
		if (!err)
			err = cgroup_group_move(to, from, g);
		cgroup_group_unref(from);
	} while (err == -EAGAIN);
	return err;
}

static ssize_t procs_store(struct synth_node *n, struct synth_file *sf, const char *data,
			   size_t size, unused_arg int64_t off)
{
	struct task *self = task_current(), *t;
	int64_t nr;
	int err;

	if (synth_parse_i64(data, size, 0, INT32_MAX, &nr) || !self)
		return -EINVAL;
	if (!nr)
		task_ref(self);
	t = nr ? task_find_v(self, (int32_t)nr) : self;
	if (!t)
		return -ESRCH;
	err = move(sf, group_of(n), t->group);
	task_unref(t);
	return err ? err : (ssize_t)size;
}

/* Threads of one process in several groups: only threaded ones have that. */
static ssize_t threads_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			     unused_arg const char *data, unused_arg size_t size,
			     unused_arg int64_t off)
{
	return -EOPNOTSUPP;
}

static ssize_t kill_store(struct synth_node *n, unused_arg struct synth_file *sf, const char *data,
			  size_t size, unused_arg int64_t off)
{
	int64_t v;
	int err = synth_parse_i64(data, size, INT64_MIN, INT64_MAX, &v);

	if (err)
		return err;
	if (v != 1)
		return -ERANGE;
	if (cgroup_group_removed(group_of(n)))
		return -ENODEV;
	cgroup_group_kill(group_of(n));
	return (ssize_t)size;
}

/* ---- events ---- */

/* What an open file was told last: its priv. */
struct events_seen {
	_Atomic uint32_t turn;
};

static int events_show(struct synth_node *n, struct synth_file *sf, struct buf *b)
{
	struct events_seen *seen = sf->priv;
	struct cgroup_group *c = group_of(n);

	atomic_store(&seen->turn, atomic_load(&c->events));
	/* The root's are the container's, whose first process lives as long as it. */
	buf_printf(b, "populated %d\nfrozen 0\n", !c->parent || cgroup_group_populated(c));
	return gone(n);
}

static int events_open(struct synth_node *n, struct synth_file *sf)
{
	struct events_seen *seen = malloc(sizeof(*seen));

	if (!seen)
		return -ENOMEM;
	atomic_init(&seen->turn, atomic_load(&group_of(n)->events));
	sf->priv = seen;
	return 0;
}

static void events_close(unused_arg struct synth_node *n, struct synth_file *sf)
{
	free(sf->priv);
}

static uint32_t events_poll(struct synth_node *n, struct synth_file *sf)
{
	const struct events_seen *seen = sf->priv;

	return POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM |
	       (atomic_load(&group_of(n)->events) != atomic_load(&seen->turn) ? POLLPRI | POLLERR
									      : 0);
}

static struct wait_queue *events_poll_queue(struct synth_node *n, unused_arg struct synth_file *sf)
{
	return &group_of(n)->wait;
}

/* cgroup_view.changed */
static void tell(struct dentry *dir)
{
	struct synth_node *events;

	if (!vfs_notify_wanted() || synth_child(synth_node_of(dir), "cgroup.events", &events))
		return;
	vfs_notify_both_slow(&events->dentry, IN_MODIFY, false);
	synth_node_unref(events);
}

/* ---- what a group may have below it ---- */

static int stat_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_printf(b, "nr_descendants %u\nnr_dying_descendants 0\n",
		   cgroup_group_descendants(group_of(n)));
	return gone(n);
}

static int max_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	uint32_t depth, descendants, v;

	cgroup_group_limits(group_of(n), &depth, &descendants);
	v = file_of(n) == CGROUP_MAX_DEPTH ? depth : descendants;
	if (v == UINT32_MAX)
		buf_puts(b, "max\n");
	else
		buf_printf(b, "%u\n", v);
	return gone(n);
}

static ssize_t max_store(struct synth_node *n, unused_arg struct synth_file *sf, const char *data,
			 size_t size, unused_arg int64_t off)
{
	size_t begin = strspn(data, " \t\n"), len = strcspn(data + begin, " \t\n");
	bool depth = file_of(n) == CGROUP_MAX_DEPTH;
	int64_t v = UINT32_MAX;
	uint32_t limit;

	if (len != 3 || memcmp(data + begin, "max", 3)) {
		int err = synth_parse_i64(data, size, INT64_MIN, INT64_MAX, &v);

		if (err)
			return err;
		if (v < 0 || v > INT32_MAX)
			return -ERANGE;
	}
	limit = (uint32_t)v;
	cgroup_group_set_limits(group_of(n), depth ? &limit : NULL, depth ? NULL : &limit);
	return (ssize_t)size;
}

/* ---- controllers: none but the container's ---- */

static const char *const controllers[] = {"cpuset", "cpu", "io", "memory", "pids"};

static int controllers_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	/* No line where there are none, as Linux. */
	for (unsigned i = 0; !group_of(n)->parent && i < ARRAY_SIZE(controllers); i++)
		buf_printf(b, "%s%c", controllers[i], i + 1 < ARRAY_SIZE(controllers) ? ' ' : '\n');
	return 0;
}

static int subtree_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			unused_arg struct buf *b)
{
	return 0;
}

/* Return: 0: it is as wanted; -errno. */
static int control(const struct cgroup_group *c, const char *word, size_t len)
{
	bool known = false;

	for (unsigned i = 0; len > 1 && i < ARRAY_SIZE(controllers); i++)
		known |= strlen(controllers[i]) == len - 1 &&
			 !memcmp(controllers[i], word + 1, len - 1);
	if (!known || (*word != '+' && *word != '-'))
		return -EINVAL;
	if (*word == '-')
		return 0;
	/* The container's own are not for its groups; these have none that could be handed on. */
	return c->parent ? -ENOENT : -EOPNOTSUPP;
}

static ssize_t subtree_store(struct synth_node *n, unused_arg struct synth_file *sf,
			     const char *data, size_t size, unused_arg int64_t off)
{
	const char *word = data;

	for (;;) {
		size_t len;
		int err;

		word += strspn(word, " \t\n");
		len = strcspn(word, " \t\n");
		if (!len)
			return (ssize_t)size;
		err = control(group_of(n), word, len);
		if (err)
			return err;
		word += len;
	}
}

static int type_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
		     struct buf *b)
{
	buf_puts(b, "domain\n");
	return 0;
}

static ssize_t type_store(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
			  const char *data, unused_arg size_t size, unused_arg int64_t off)
{
	size_t begin = strspn(data, " \t\n"), len = strcspn(data + begin, " \t\n");

	return len == 8 && !memcmp(data + begin, "threaded", 8) ? -EOPNOTSUPP : -EINVAL;
}

#define OPS(...)                                                                \
	{                                                                       \
		.getattr = group_getattr, .setattr = group_setattr, __VA_ARGS__ \
	}

const struct synth_node_ops cgroup_core_ops[CGROUP_CORE_FILES] = {
	[CGROUP_CONTROLLERS] = OPS(.show = controllers_show),
	[CGROUP_EVENTS] = OPS(.show = events_show, .open = events_open, .close = events_close,
			      .poll = events_poll, .poll_queue = events_poll_queue),
	[CGROUP_KILL] = OPS(.store = kill_store),
	[CGROUP_MAX_DEPTH] = OPS(.show = max_show, .store = max_store),
	[CGROUP_MAX_DESCENDANTS] = OPS(.show = max_show, .store = max_store),
	[CGROUP_PROCS] = OPS(.show = procs_show, .store = procs_store),
	[CGROUP_STAT] = OPS(.show = stat_show),
	[CGROUP_SUBTREE_CONTROL] = OPS(.show = subtree_show, .store = subtree_store),
	[CGROUP_THREADS] = OPS(.show = threads_show, .store = threads_store),
	[CGROUP_TYPE] = OPS(.show = type_show, .store = type_store),
};

static const struct synth_entry group_entries[] = {CGROUP_CORE_ENTRIES, {0}};

/* ---- directories ---- */

static int dir_create(struct synth_node *parent, struct cgroup_group *c, struct synth_node **ret);

static int dir_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret)
{
	struct cgroup_group *c = cgroup_group_find(group_of(dir), name, len);
	int err;

	if (!c)
		return -ENOENT;
	err = dir_create(dir, c, ret);
	if (err)
		cgroup_group_unref(c);
	return err;
}

static int dir_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	struct cgroup_group *c;
	int64_t id = from;

	for (; (c = cgroup_group_next(group_of(dir), &id)); id++) {
		bool more =
			synth_emit(it, c->name, strlen(c->name), S_IFDIR, CGROUP_INO(c->id), id);

		cgroup_group_unref(c);
		if (!more)
			break;
	}
	return 0;
}

static int dir_mkdir(struct synth_node *dir, const char *name, size_t len, uint32_t mode)
{
	const struct cred *cred = cred_current();
	const struct cgroup_owner owner = {S_IFDIR | (mode & 01777), cred->fsuid, cred->fsgid};

	/* /proc/PID/cgroup could not be read. */
	if (memchr(name, '\n', len))
		return -EINVAL;
	return cgroup_group_create(group_of(dir), name, len, &owner);
}

static int dir_rmdir(unused_arg struct synth_node *dir, struct synth_node *child)
{
	/* A file of a group is none. */
	return child->entry ? -EPERM : cgroup_group_remove(group_of(child));
}

static bool dir_revalidate(struct synth_node *dir)
{
	return !cgroup_group_removed(group_of(dir));
}

static void dir_destroy(struct synth_node *dir)
{
	cgroup_view_drop(view_of(dir));
	free(view_of(dir));
}

/* A mount's: it holds the container, too. */
static void root_destroy(struct synth_node *dir)
{
	struct task_cgroup *cg = group_of(dir)->cg;

	dir_destroy(dir);
	task_cgroup_unref(cg);
}

static const struct synth_node_ops dir_ops =
	OPS(.lookup = dir_lookup, .iterate = dir_iterate, .mkdir = dir_mkdir, .rmdir = dir_rmdir,
	    .revalidate = dir_revalidate, .destroy = dir_destroy);
const struct synth_node_ops cgroup_root_ops =
	OPS(.lookup = dir_lookup, .iterate = dir_iterate, .mkdir = dir_mkdir, .rmdir = dir_rmdir,
	    .destroy = root_destroy);

struct cgroup_view *cgroup_view_create(struct cgroup_group *c)
{
	struct cgroup_view *v = malloc(sizeof(*v));

	if (v)
		*v = (struct cgroup_view){.group = c, .changed = tell};
	return v;
}

/* Takes the caller's reference on c if it returns 0. */
static int dir_create(struct synth_node *parent, struct cgroup_group *c, struct synth_node **ret)
{
	struct cgroup_view *v = cgroup_view_create(c);
	int err;

	if (!v)
		return -ENOMEM;
	err = synth_node_create(parent, c->name, strlen(c->name), S_IFDIR | 0755, &dir_ops, v, ret);
	if (err) {
		free(v);
		return err;
	}
	(*ret)->children = group_entries;
	(*ret)->ino = CGROUP_INO(c->id);
	v->dir = &(*ret)->dentry;
	cgroup_view_add(v);
	return 0;
}
