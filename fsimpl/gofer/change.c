/*
 * fsimpl/gofer/change.c - creations, links, removals and renames: one request each, under tree_lock held for writing.
 *
 * What the guest may do is decided here from the cached attributes of the directory; the server then does it as one host call. A name that
 * nothing is known about is not looked up first: the host's EEXIST says it. Only when the answer will be an error anyway is it
 * looked up, because Linux reports EEXIST before EROFS and EACCES.
 */
#include <linux/capability.h>
#include <string.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"
#include "vfs/inotify.h"

/* The table's reference and the operation's own: more means that somebody uses it. */
#define IDLE_REFS 2

static int reply_error(uint32_t err)
{
	return err == 0 ? 0 : err < 4096 ? -(int)err : -EIO;
}

/* ---- creation ---- */

/* A creation under way. */
struct creation {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct remote_dentry *dir; /* a reference */
	struct perm_inode pi; /* dir's */
	struct gofer_hint hint;
	struct p9_msg t;
	struct p9_call call;
	uint32_t mode; /* of the new object, with its type */
	bool is_dir, needs_mknod;
	struct p9_str target; /* of a symlink */
	struct remote_dentry *old; /* link: borrowed */
	struct gofer_where old_where;
	struct vfs_endpoint *endpoint; /* borrowed, or NULL */
	uint32_t want_fd; /* P9_WANT_FD: a socket that is bound on the host too */
};

static bool exists(struct creation *c)
{
	struct remote_dentry *d;

	if (c->fs->shared && c->hint.dir == c->dir)
		return c->hint.child != NULL;
	if (gofer_lookup(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp), &d))
		return false;
	remote_dentry_unref(d);
	return true;
}

static int check_creation(struct creation *c)
{
	int name_err = rp_check_create_name(c->rp, c->is_dir), err = 0;
	struct remote_dentry *d;
	bool negative;

	/* -ENOENT is only due when the name is not there. */
	if (name_err && name_err != -ENOENT)
		return name_err;
	d = gofer_cache_find(c->fs, c->dir, rp_component(c->rp), rp_component_len(c->rp),
			     &negative);
	if (d) {
		remote_dentry_unref(d);
		if (!c->fs->shared || exists(c))
			return -EEXIST;
	}
	err = name_err ? name_err : rp_begin_write(c->rp);
	if (!err && remote_is_dead(c->dir))
		err = -ENOENT;
	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(c->dir), &c->pi);
	if (!err)
		err = vfs_permission(rp_cred(c->rp), &c->pi, W_OK | X_OK);
	rcu_read_end();
	if (err && !negative && !remote_is_dead(c->dir) && exists(c))
		return -EEXIST;
	return err;
}

/* Who the new object belongs to, by its directory; want: what the server finds out where that is not known. */
static void set_owner(struct creation *c, const struct perm_inode *dir, uint32_t want)
{
	uint32_t mode = c->mode, uid, gid;

	vfs_init_owner(rp_cred(c->rp), dir, &mode, &uid, &gid);
	switch (c->t.type) {
	case P9_Tmmkdir:
		c->t.Tmmkdir.mode = mode & 07777;
		c->t.Tmmkdir.uid = uid;
		c->t.Tmmkdir.gid = gid;
		c->t.Tmmkdir.want = want;
		break;
	case P9_Tmmknod:
		c->t.Tmmknod.mode = mode;
		c->t.Tmmknod.uid = uid;
		c->t.Tmmknod.gid = gid;
		c->t.Tmmknod.want = want | c->want_fd;
		break;
	case P9_Tmsymlink:
		c->t.Tmsymlink.uid = uid;
		c->t.Tmsymlink.gid = gid;
		c->t.Tmsymlink.want = want;
		break;
	default: /* a link has its owner */
		break;
	}
}

/* link(2): the old place; its rights speak before the new directory's. A directory is refused last. */
static int prepare_link(struct creation *c)
{
	struct perm_inode pi;
	int err;

	err = gofer_acl_ensure(rp_cred(c->rp), c->old);
	if (err)
		return err;
	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(c->old), &pi);
	err = vfs_may_linkat(rp_cred(c->rp), &pi);
	rcu_read_end();
	if (!err)
		err = gofer_where(c->old, &c->old_where);
	c->t.Tmlink.oldfid = c->old_where.fid;
	c->t.Tmlink.oldpath = gofer_where_path(&c->old_where);
	return err;
}

/* Nobody may link a directory, and not everybody make a device. */
static bool is_refused(const struct creation *c)
{
	return (c->old && remote_is_dir(c->old)) ||
	       (c->needs_mknod && !cred_has_cap(rp_cred(c->rp), CAP_MKNOD));
}

/* Below a directory that is known by now. */
static int send_creation(struct creation *c, int link_err)
{
	struct gofer_where where;
	int err = check_creation(c);

	/* What is there comes before what is not allowed. */
	if (link_err && (!err || err == -EACCES))
		return !err && exists(c) ? -EEXIST : link_err;
	if (err)
		return err;
	if (is_refused(c))
		return exists(c) ? -EEXIST : -EPERM;
	set_owner(c, &c->pi, 0);
	err = gofer_where_child(c->dir, rp_component(c->rp), rp_component_len(c->rp), &where);
	if (err)
		return err;
	gofer_place_request(&c->t, where.fid, where.depth - 1, gofer_where_path(&where));
	err = p9_rpc(c->fs->conn, &c->call, &c->t);
	c->hint.done = !err;
	return err;
}

static int creation_reply(const struct p9_msg *r, const struct p9_nodes **ret_nodes)
{
	switch (r->type) {
	case P9_Rmmkdir:
		*ret_nodes = &r->Rmmkdir.nodes;
		return reply_error(r->Rmmkdir.err);
	case P9_Rmmknod:
		*ret_nodes = &r->Rmmknod.nodes;
		return reply_error(r->Rmmknod.err);
	case P9_Rmsymlink:
		*ret_nodes = &r->Rmsymlink.nodes;
		return reply_error(r->Rmsymlink.err);
	default:
		*ret_nodes = &r->Rmlink.nodes;
		return reply_error(r->Rmlink.err);
	}
}

/* Programs of the guest's talk over this socket: the dentry stays while it has its name, since the host knows nothing of it. */
static void keep_endpoint(struct remote_dentry *child, struct vfs_endpoint *endpoint)
{
	struct gofer_inode *in = gofer_inode_of(child);

	mutex_lock(&in->lock);
	if (!in->endpoint && ref_tryget(&endpoint->ref))
		in->endpoint = endpoint;
	mutex_unlock(&in->lock);
	if (!in->endpoint_dentry)
		in->endpoint_dentry = remote_dentry_ref(child);
}

int gofer_fs_set_endpoint(struct dentry *d, struct vfs_endpoint *endpoint)
{
	if (!gofer_fs_is(d->fs))
		return -EOPNOTSUPP;
	if (remote_dentry_of(d)->inode->type != S_IFSOCK)
		return -ENOTSOCK;
	keep_endpoint(remote_dentry_of(d), endpoint);
	return 0;
}

/* Enters the reply. */
static int enter_creation(struct creation *c)
{
	const char *name = rp_component(c->rp);
	size_t len = rp_component_len(c->rp);
	struct remote_dentry *child = NULL;
	const struct p9_nodes *nodes;
	struct p9_node node;
	int err = creation_reply(&c->call.r, &nodes);

	gofer_dir_changed(gofer_inode_of(c->dir));
	if (!err && c->want_fd) {
		/* Where it went along with the walk, that has it. */
		int *fd = c->hint.fd >= 0 ? &c->hint.fd : &c->call.fd;

		/* Of another server than ours it may be anything. */
		if (gofer_is_unix_socket(*fd, c->endpoint->type)) {
			c->endpoint->host_fd = *fd;
			*fd = -1;
		}
	}
	if (err || nodes->count < 2) {
		remote_forget_negative(&c->fs->dcache, c->dir, name, len);
		return err;
	}
	p9_nodes_get(nodes, nodes->count - 2u, &node);
	if (S_ISDIR(node.mode))
		gofer_inode_update(gofer_inode_of(c->dir), &node);
	p9_nodes_get(nodes, nodes->count - 1u, &node);
	/* It exists: not to remember it is no failure of the call. */
	if (gofer_cache_enter(c->fs, c->dir, name, len, &node, &c->target, &child)) {
		remote_forget_negative(&c->fs->dcache, c->dir, name, len);
		return 0;
	}
	if (c->endpoint)
		keep_endpoint(child, c->endpoint);
	remote_dentry_unref(child);
	return 0;
}

static int create_at(struct creation *c, struct filesystem *base, struct resolving_path *rp)
{
	const struct perm_inode unknown = {.mode = S_IFDIR | 0755};
	int err, link_err = 0;

	c->fs = gofer_fs_of(base);
	c->rp = rp;
	c->hint = (struct gofer_hint){.fd = -1, .call = &c->call};
	set_owner(c, &unknown, P9_WANT_SETGID);
	err = gofer_change_lock_killable(c->fs);
	if (err)
		return err;
	if (c->old)
		link_err = prepare_link(c);
	if (!link_err && !is_refused(c))
		c->hint.t = &c->t;
	err = gofer_walk(c->fs, rp, true, &c->hint, &c->dir);
	if (!err && !c->hint.done)
		err = send_creation(c, link_err);
	if (!err)
		err = enter_creation(c);
	rwlock_write_unlock(&c->fs->tree_lock);
	if (!err && c->old)
		vfs_notify_self(&c->old->d, IN_ATTRIB, false);
	if (!err)
		vfs_notify_name(&c->dir->d, IN_CREATE, 0, rp_component(rp), rp_component_len(rp),
				c->is_dir);
	gofer_hint_fini(&c->hint);
	remote_dentry_unref(c->dir);
	return err;
}

int gofer_mkdir_at(struct filesystem *fs, struct resolving_path *rp, const struct mkdir_args *args)
{
	struct creation c = {.mode = (args->mode & 01777) | S_IFDIR, .is_dir = true};

	c.t.type = P9_Tmmkdir;
	c.t.Tmmkdir.umask = args->umask;
	return create_at(&c, fs, rp);
}

int gofer_mknod_at(struct filesystem *fs, struct resolving_path *rp, const struct mknod_args *args)
{
	struct creation c = {.mode = args->mode, .endpoint = args->endpoint};

	if (!(c.mode & S_IFMT))
		c.mode |= S_IFREG;
	/* A whiteout, device 0:0, is no device. */
	c.needs_mknod =
		S_ISBLK(c.mode) || (S_ISCHR(c.mode) && (args->rdev_major || args->rdev_minor));
	c.t.type = P9_Tmmknod;
	c.t.Tmmknod.umask = args->umask;
	c.t.Tmmknod.major = args->rdev_major;
	c.t.Tmmknod.minor = args->rdev_minor;
	if (c.endpoint && c.endpoint->type && gofer_fs_of(fs)->uds_create) {
		c.want_fd = P9_WANT_FD;
		c.t.Tmmknod.major = (uint32_t)c.endpoint->type;
	}
	return create_at(&c, fs, rp);
}

int gofer_symlink_at(struct filesystem *fs, struct resolving_path *rp, const char *target)
{
	struct creation c = {.mode = S_IFLNK | 0777, .target = p9_str(target)};

	c.t.type = P9_Tmsymlink;
	c.t.Tmsymlink.target = c.target;
	return create_at(&c, fs, rp);
}

int gofer_link_at(struct filesystem *fs, struct resolving_path *rp, struct dentry *old_base)
{
	struct creation c = {.old = remote_dentry_of(old_base)};
	struct gofer_inode *in = gofer_inode_of(c.old);

	c.t.type = P9_Tmlink;
	c.target = (struct p9_str){in->target, (uint16_t)in->target_len};
	return create_at(&c, fs, rp);
}

/* ---- removal ---- */

/* A removal under way. */
struct removal {
	struct gofer_fs *fs;
	struct resolving_path *rp;
	struct remote_dentry *dir; /* a reference */
	struct remote_dentry *d; /* a reference; NULL: nothing of it is cached */
	struct gofer_hint hint;
	struct p9_msg t;
	struct p9_call call;
	bool is_dir;
};

/* What has no name any more is kept by a fid, if anybody uses it. */
static void keep_by(struct gofer_fs *fs, struct remote_dentry *d, bool used, uint32_t fid,
		    const struct p9_node *node)
{
	uint32_t none = P9_NOFID;

	if (!d || !used || !atomic_compare_exchange_strong(&gofer_inode_of(d)->fid, &none, fid))
		p9_fid_clunk_removed(fs->conn, fid,
				     MIN(node->blocks, (uint64_t)P9_CLUNK_BYTES) * 512);
}

static bool is_used(const struct remote_dentry *d)
{
	return ref_read(&d->d.ref) > IDLE_REFS;
}

/* d lost its name; node: its attributes since, or NULL: it was the last. */
static void removed(struct remote_dentry *d, const struct p9_node *node)
{
	struct gofer_inode *in = gofer_inode_of(d);
	bool gone = remote_is_dir(d) || !node || node->nlink == 0;
	struct remote_dentry *pinned = in->endpoint_dentry;

	if (node && (node->mode & S_IFMT) == in->base.type)
		gofer_inode_update(in, node);
	if (gone) {
		mutex_lock(&in->lock);
		in->attr.nlink = 0;
		mutex_unlock(&in->lock);
	}
	if (gone)
		gofer_inode_unhash(in);
	vfs_dentry_delete_end(&d->d);
	if (pinned == d) {
		in->endpoint_dentry = NULL;
		remote_dentry_unref(pinned);
	}
}

/* May it be removed? Looks the name up, unless the host can be left to say what is wrong. */
static int check_removal(struct removal *m)
{
	int err = rp_check_remove_name(m->rp, m->is_dir);
	struct perm_inode dir_pi, pi;
	bool negative;

	/* "." and "..", then a read-only mount, then a name too long. */
	if (!err || err == -ENAMETOOLONG) {
		int write_err = rp_begin_write(m->rp);

		err = write_err ? write_err : err && remote_is_dead(m->dir) ? -ENOENT : err;
	}
	if (err)
		return err;
	m->d = gofer_cache_find(m->fs, m->dir, rp_component(m->rp), rp_component_len(m->rp),
				&negative);
	if (!m->d && !negative && !m->rp->trailing_slash && gofer_may_all(m->rp) &&
	    !remote_is_dead(m->dir))
		return 0;
	remote_dentry_unref(m->d);
	m->d = NULL;
	if (m->hint.child && m->hint.dir == m->dir) {
		/* Taken, not shared: a reference more would say that somebody uses it. */
		m->d = m->hint.child;
		m->hint.child = NULL;
	} else {
		err = gofer_lookup(m->fs, m->dir, rp_component(m->rp), rp_component_len(m->rp),
				   &m->d);
	}
	if (err)
		return err;
	if (m->rp->trailing_slash && !m->is_dir)
		return remote_is_dir(m->d) ? -EISDIR : -ENOTDIR;
	rcu_read_begin();
	gofer_inode_perm(gofer_inode_of(m->dir), &dir_pi);
	gofer_inode_perm(gofer_inode_of(m->d), &pi);
	err = vfs_may_delete(rp_cred(m->rp), &dir_pi, &pi, m->is_dir);
	rcu_read_end();
	return err ? err : vfs_dentry_delete_begin(m->rp, &m->d->d);
}

static int send_removal(struct removal *m)
{
	struct gofer_where where;
	int err = check_removal(m);

	if (!err)
		err = gofer_where_child(m->dir, rp_component(m->rp), rp_component_len(m->rp),
					&where);
	if (err)
		return err;
	if (!m->d || !is_used(m->d))
		m->t.Tmunlink.keepfid = P9_NOFID;
	gofer_place_request(&m->t, where.fid, where.depth - 1, gofer_where_path(&where));
	err = p9_rpc(m->fs->conn, &m->call, &m->t);
	m->hint.done = !err;
	return err;
}

static int enter_removal(struct removal *m)
{
	const struct p9_Rmunlink *r = &m->call.r.Rmunlink;
	const char *name = rp_component(m->rp);
	size_t len = rp_component_len(m->rp);
	struct p9_node node;
	int err = reply_error(r->err);
	bool negative, used;

	gofer_dir_changed(gofer_inode_of(m->dir));
	if (err || r->nodes.count < 2) {
		/* A shared tree, or a server that forgot to tell. */
		if (!err || err == -ENOENT)
			gofer_cache_vanished(m->fs, m->dir, name, len);
		if (r->bound)
			p9_fid_clunk(m->fs->conn, m->t.Tmunlink.keepfid);
		if (!err && m->d)
			removed(m->d, NULL);
		return err;
	}
	if (!m->d)
		m->d = gofer_cache_find(m->fs, m->dir, name, len, &negative);
	used = m->d && is_used(m->d);
	p9_nodes_get(&r->nodes, r->nodes.count - 2u, &node);
	if (S_ISDIR(node.mode))
		gofer_inode_update(gofer_inode_of(m->dir), &node);
	p9_nodes_get(&r->nodes, r->nodes.count - 1u, &node);
	if (m->d && gofer_inode_of(m->d)->qid_path != node.qid.path) {
		/* Another file by the name than was known. */
		gofer_cache_vanished(m->fs, m->dir, name, len);
		remote_dentry_unref(m->d);
		m->d = NULL;
	}
	if (r->bound)
		keep_by(m->fs, m->d, used, m->t.Tmunlink.keepfid, &node);
	if (m->d) {
		gofer_cache_remove(m->fs, m->d);
		removed(m->d, &node);
	} else {
		gofer_cache_enter_negative(m->fs, m->dir, name, len);
	}
	return 0;
}

static int remove_at(struct filesystem *base, struct resolving_path *rp, bool is_dir)
{
	struct removal m = {.fs = gofer_fs_of(base), .rp = rp, .is_dir = is_dir};
	int err;

	m.hint = (struct gofer_hint){.fd = -1, .t = &m.t, .call = &m.call};
	m.t.type = P9_Tmunlink;
	m.t.Tmunlink.flags = is_dir ? 0x200 : 0; /* AT_REMOVEDIR */
	m.t.Tmunlink.keepfid = p9_fid_alloc(m.fs->conn);
	err = gofer_change_lock_killable(m.fs);
	if (err)
		return err;
	err = gofer_walk(m.fs, rp, true, &m.hint, &m.dir);
	if (!err && !m.hint.done)
		err = send_removal(&m);
	if (!err)
		err = enter_removal(&m);
	rwlock_write_unlock(&m.fs->tree_lock);
	gofer_hint_fini(&m.hint);
	if (!err && is_dir && m.d)
		remote_watched_gone(&m.fs->dcache, m.d);
	if (!err && m.d)
		vfs_notify_removed(&m.dir->d, &m.d->d, rp_component(rp), rp_component_len(rp),
				   is_dir);
	else if (!err)
		vfs_notify_name(&m.dir->d, IN_DELETE, 0, rp_component(rp), rp_component_len(rp),
				is_dir);
	else
		remote_dentry_unref(m.d);
	remote_dentry_unref(m.dir);
	return err;
}

int gofer_unlink_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(fs, rp, false);
}

int gofer_rmdir_at(struct filesystem *fs, struct resolving_path *rp)
{
	return remove_at(fs, rp, true);
}

/* ---- rename ---- */

static struct gofer_fs *renaming_fs(const struct remote_renaming *r)
{
	return gofer_fs_of(r->olddir->d.fs);
}

static void update_from(struct remote_dentry *d, const struct p9_nodes *nodes, unsigned i)
{
	struct p9_node node;

	if (i >= nodes->count)
		return;
	p9_nodes_get(nodes, i, &node);
	if ((node.mode & S_IFMT) == d->inode->type)
		gofer_inode_update(gofer_inode_of(d), &node);
}

/* Is the cached d what the reply calls node i? A shared tree may have had another there: that goes. */
static void check_known(struct remote_renaming *r, struct remote_dentry **inout_d,
			struct remote_dentry *dir, const char *name, size_t len,
			const struct p9_nodes *nodes, unsigned i)
{
	struct p9_node node = {0};

	if (i < nodes->count)
		p9_nodes_get(nodes, i, &node);
	if (!*inout_d || (i < nodes->count && gofer_inode_of(*inout_d)->qid_path == node.qid.path))
		return;
	gofer_cache_vanished(renaming_fs(r), dir, name, len);
	remote_dentry_unref(*inout_d);
	*inout_d = NULL;
}

static void move(struct remote_renaming *r, struct remote_dentry *d, struct remote_dentry *dir,
		 const char *name, size_t len)
{
	uint64_t old = gofer_place_of(d);

	remote_move(r->c, d, dir, name, len);
	gofer_place_moved(d, old);
}

static void exchange(struct remote_renaming *r)
{
	uint64_t old = gofer_place_of(r->old), new_ = gofer_place_of(r->new_);

	remote_exchange(r->c, r->old, r->new_);
	gofer_place_moved(r->old, old);
	gofer_place_moved(r->new_, new_);
}

static void exchanged(struct remote_renaming *r, const struct p9_nodes *nodes)
{
	if (r->new_)
		update_from(r->new_, nodes, 3);
	if (r->old && r->new_)
		exchange(r);
	else if (r->old)
		move(r, r->old, r->newdir, r->new_name, r->new_len);
	else if (r->new_)
		move(r, r->new_, r->olddir, r->old_name, r->old_len);
}

/* The moved object was not known: now it is, by its new name. */
static void enter_moved(struct remote_renaming *r, const struct p9_node *node)
{
	struct remote_dentry *d;

	if (S_ISLNK(node->mode) ||
	    gofer_cache_enter(renaming_fs(r), r->newdir, r->new_name, r->new_len, node, NULL, &d))
		remote_forget_negative(r->c, r->newdir, r->new_name, r->new_len);
	else
		remote_dentry_unref(d);
}

/* The reply's consequences for the cache. Return: something was renamed; *ret_is_dir: a directory. */
static bool renamed(struct remote_renaming *r, const struct p9_Rmrename *reply, uint32_t keepfid,
		    bool *ret_is_dir)
{
	const struct p9_nodes *nodes = &reply->nodes;
	struct p9_node moved, other = {0};
	bool used;

	gofer_dir_changed(gofer_inode_of(r->olddir));
	gofer_dir_changed(gofer_inode_of(r->newdir));
	if (nodes->count < 3) {
		/* A server that forgot to tell. */
		gofer_cache_vanished(renaming_fs(r), r->olddir, r->old_name, r->old_len);
		gofer_cache_vanished(renaming_fs(r), r->newdir, r->new_name, r->new_len);
		return false;
	}
	p9_nodes_get(nodes, 2, &moved);
	if (nodes->count > 3)
		p9_nodes_get(nodes, 3, &other);
	*ret_is_dir = S_ISDIR(moved.mode);
	check_known(r, &r->old, r->olddir, r->old_name, r->old_len, nodes, 2);
	check_known(r, &r->new_, r->newdir, r->new_name, r->new_len, nodes, 3);
	used = r->new_ && is_used(r->new_);
	if (reply->bound)
		keep_by(renaming_fs(r), r->new_, used, keepfid, &other);
	/* Two names of one file: nothing was done. */
	if (nodes->count > 3 && moved.qid.path == other.qid.path)
		return false;
	update_from(r->olddir, nodes, 0);
	update_from(r->newdir, nodes, 1);
	if (r->old)
		update_from(r->old, nodes, 2);
	if (r->flags & REMOTE_RENAME_EXCHANGE) {
		exchanged(r, nodes);
		return true;
	}
	if (r->new_) {
		gofer_cache_remove(renaming_fs(r), r->new_);
		removed(r->new_, &other);
	}
	if (r->old)
		move(r, r->old, r->newdir, r->new_name, r->new_len);
	else
		enter_moved(r, &moved);
	if (!(r->flags & REMOTE_RENAME_WHITEOUT))
		gofer_cache_enter_negative(renaming_fs(r), r->olddir, r->old_name, r->old_len);
	return true;
}

/* The server made the whiteout; it belongs to the caller. The rename is done: a failure here has nobody to tell. */
static void own_whiteout(struct remote_renaming *r)
{
	struct setattr_args a = {.valid = SETATTR_UID | SETATTR_GID};
	struct remote_dentry *d;
	struct perm_inode pi;
	uint32_t mode = S_IFCHR;

	gofer_inode_perm(gofer_inode_of(r->olddir), &pi);
	vfs_init_owner(rp_cred(r->rp), &pi, &mode, &a.uid, &a.gid);
	remote_forget_negative(r->c, r->olddir, r->old_name, r->old_len);
	if (gofer_lookup(renaming_fs(r), r->olddir, r->old_name, r->old_len, &d))
		return;
	(void)!gofer_setattr_locked(renaming_fs(r), d, &a);
	remote_dentry_unref(d);
}

/* Return: 1 if something was renamed, 0 if not (two names of one file), -errno. */
static int rename_locked(struct remote_renaming *r, bool *ret_is_dir)
{
	struct p9_msg t = {.type = P9_Tmrename};
	struct gofer_fs *fs = renaming_fs(r);
	struct gofer_where from, to;
	struct p9_call call;
	int err;

	err = gofer_where_child(r->olddir, r->old_name, r->old_len, &from);
	if (!err)
		err = gofer_where_child(r->newdir, r->new_name, r->new_len, &to);
	if (err)
		return err;
	t.Tmrename.oldfid = from.fid;
	t.Tmrename.oldpath = gofer_where_path(&from);
	t.Tmrename.fid = to.fid;
	t.Tmrename.path = gofer_where_path(&to);
	t.Tmrename.flags = r->flags;
	t.Tmrename.keepfid = P9_NOFID;
	if (r->new_ && is_used(r->new_) && !(r->flags & REMOTE_RENAME_EXCHANGE))
		t.Tmrename.keepfid = p9_fid_alloc(fs->conn);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	err = renamed(r, &call.r.Rmrename, t.Tmrename.keepfid, ret_is_dir);
	p9_call_fini(&call);
	if (err && (r->flags & REMOTE_RENAME_WHITEOUT))
		own_whiteout(r);
	return err;
}

static bool may_be_mountpoint(const struct remote_dentry *d)
{
	return d && (atomic_load(&d->d.flags) & DENTRY_MAYBE_MOUNTPOINT);
}

/*
 * Can the host be left to say what is wrong? Where something is not known (in a shared tree: nothing is) and the guest may do anything:
 * then what is cached is taken along, and checked against the reply.
 */
static bool rename_blindly(struct remote_renaming *r)
{
	struct gofer_fs *fs = renaming_fs(r);
	bool no_old, no_new, known;

	if (r->old_must_be_dir || r->rp->trailing_slash || !gofer_may_all(r->rp))
		return false;
	r->old = gofer_cache_find(fs, r->olddir, r->old_name, r->old_len, &no_old);
	r->new_ = gofer_cache_find(fs, r->newdir, r->new_name, r->new_len, &no_new);
	known = !fs->shared && (r->old || no_old) && (r->new_ || no_new);
	if (!known && !may_be_mountpoint(r->old) && !may_be_mountpoint(r->new_))
		return true;
	remote_dentry_unref(r->old);
	remote_dentry_unref(r->new_);
	r->old = r->new_ = NULL;
	return false;
}

/* Everything that is known or can be asked. Return: 0 go on; 1 nothing to do; -errno. */
static int check_rename(struct remote_renaming *r)
{
	int err = rp_begin_write(r->rp), name_err;

	r->old_len = strlen(r->old_name);
	if (!err && remote_is_dead(r->olddir))
		err = -ENOENT;
	if (!err && r->old_len > VFS_NAME_MAX)
		err = -ENAMETOOLONG;
	if (err)
		return err;
	/* The old name speaks before the new. */
	name_err = remote_rename_names(r);
	if (!name_err && rename_blindly(r))
		return 0;
	err = gofer_lookup(renaming_fs(r), r->olddir, r->old_name, r->old_len, &r->old);
	if (!err)
		err = name_err;
	if (err)
		return err;
	err = gofer_lookup(renaming_fs(r), r->newdir, r->new_name, r->new_len, &r->new_);
	if (!err || err == -ENOENT)
		err = remote_rename_shape(r);
	/* Two names of one file: nothing to do, and nothing is. */
	if (!err && r->new_ && r->new_->inode == r->old->inode)
		return 1;
	if (!err)
		err = gofer_acl_ensure(rp_cred(r->rp), r->olddir);
	if (!err)
		err = gofer_acl_ensure(rp_cred(r->rp), r->old);
	if (!err && r->new_)
		err = gofer_acl_ensure(rp_cred(r->rp), r->new_);
	return err ? err : remote_rename_rights(r);
}

int gofer_rename_at(struct filesystem *base, struct resolving_path *rp, struct dentry *old_parent,
		    const char *old_name, bool old_must_be_dir, const struct rename_args *args)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct remote_renaming r = {.c = &fs->dcache,
				    .rp = rp,
				    .olddir = remote_dentry_of(old_parent),
				    .old_name = old_name,
				    .flags = args->flags,
				    .old_must_be_dir = old_must_be_dir};
	struct gofer_hint hint = {.fd = -1, .lazy = true};
	bool is_dir = false;
	int err;

	err = gofer_change_lock_killable(fs);
	if (err)
		return err;
	err = gofer_walk(fs, rp, true, &hint, &r.newdir);
	gofer_hint_fini(&hint);
	if (err) {
		rwlock_write_unlock(&fs->tree_lock);
		return err;
	}
	err = check_rename(&r);
	if (!err)
		err = rename_locked(&r, &is_dir);
	else if (err > 0)
		err = 0;
	rwlock_write_unlock(&fs->tree_lock);
	if (err > 0)
		remote_rename_notify(&r, is_dir);
	remote_rename_fini(&r);
	return MIN(err, 0);
}
