/*
 * fsimpl/gofer/fs.c - the filesystem: a host tree behind a gofer, cached.
 *
 * Every name and attribute that the server told is cached (fsimpl/remote, names.c, inode.c), because nobody else changes the tree (policy
 * `exclusive`; `shared` asks again at every walk). A walk that meets something unknown asks for all that remains of the path in one
 * request (walk.c); creations, removals, renames and attribute changes are one request each (change.c). Regular files are read, written
 * and mapped through descriptors that the gofer donated (hostfd.c, file.c): no request at all.
 *
 * Performs: a warm stat or open touches no lock that is written by others but tree_lock's reader count. One tree_lock per filesystem: a
 * change keeps cold lookups waiting for the length of its request.
 * Watch: --debug-log of the gofer shows each request; p9_conn_requests() counts them; ref_report() counts inodes.
 * Cannot: fall back to read requests when descriptors run out (opens give ENFILE then).
 * Servers without Moat's extension are served by plain requests instead (plain.c, plain_io.c): many more of them, and no mappings.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mount.h>

#include "fsimpl/gofer/internal.h"

static void gofer_dentry_release(struct dentry *base)
{
	remote_dentry_release(&gofer_fs_of(base->fs)->dcache, remote_dentry_of(base));
}

static uint32_t gofer_dentry_type(struct dentry *d)
{
	return remote_dentry_of(d)->inode->type;
}

static uint64_t gofer_inode_key(struct dentry *d)
{
	return gofer_inode_of(remote_dentry_of(d))->qid_path;
}

static void gofer_inode_drop(struct filesystem *fs unused_arg, void *inode)
{
	gofer_inode_unref(inode);
}

static bool inode_gone(struct remote_inode *base)
{
	struct gofer_inode *in = container_of(base, struct gofer_inode, base);
	bool gone;

	mutex_lock(&in->lock);
	gone = !in->attr.nlink;
	mutex_unlock(&in->lock);
	return gone;
}

static int gofer_sync(struct filesystem *base)
{
	struct gofer_fs *fs = gofer_fs_of(base);
	struct p9_msg t = {.type = P9_Tfsync};
	struct p9_call call;
	int err;

	/* Nothing waits here to be written, and there is no request for what waits there: as Linux's client. */
	if (fs->conn->plain)
		return 0;
	t.Tfsync.fid = fs->root_fid;
	err = p9_rpc(fs->conn, &call, &t);
	if (!err)
		p9_call_fini(&call);
	return err;
}

/* Of the attach points the gofer itself says so; another server does not know. */
static int gofer_remount(struct filesystem *base, unsigned ms_flags, const char *data)
{
	(void)data;
	return gofer_fs_of(base)->held_readonly && !(ms_flags & MS_RDONLY) ? -EROFS : 0;
}

static void gofer_show_options(struct filesystem *base, struct buf *b)
{
	buf_puts(b, gofer_fs_of(base)->shared ? ",trans=fd,cache=none" : ",trans=fd,cache=loose");
}

static void fs_free_rcu(struct rcu_cb *cb)
{
	struct filesystem *base = container_of(cb, struct filesystem, rcu);

	gofer_ahead_destroy(gofer_fs_of(base)->ahead);
	free(gofer_fs_of(base));
}

/* Sockets' dentries are pinned for their endpoints' sake. */
static void drop_endpoints(struct gofer_fs *fs)
{
	for (unsigned i = 0; i < GOFER_INODE_BUCKETS; i++) {
		struct remote_dentry *d;

		do {
			struct gofer_inode *in;

			d = NULL;
			mutex_lock(&fs->inode_lock);
			LIST_FOREACH (in, &fs->inodes[i], hash_link)
				if (in->endpoint_dentry) {
					d = in->endpoint_dentry;
					in->endpoint_dentry = NULL;
					break;
				}
			mutex_unlock(&fs->inode_lock);
			remote_dentry_unref(d);
		} while (d);
	}
}

static void inode_unref_base(struct remote_inode *base)
{
	gofer_inode_unref(container_of(base, struct gofer_inode, base));
}

static void inode_perm_base(struct remote_inode *base, struct perm_inode *ret)
{
	gofer_inode_perm(container_of(base, struct gofer_inode, base), ret);
}

static void gofer_release(struct filesystem *base)
{
	struct gofer_fs *fs = gofer_fs_of(base);

	gofer_ahead_drop(fs);
	drop_endpoints(fs);
	remote_shrink(&fs->dcache);
	remote_dentry_unref(fs->root);
	p9_fid_clunk(fs->conn, fs->root_fid);
	p9_conn_unref(fs->conn);
	filesystem_fini(base);
	rcu_call(&base->rcu, fs_free_rcu);
}

static struct filesystem_ops gofer_ops = {
	.get_dentry_at = gofer_get_dentry_at,
	.open_at = gofer_open_at,
	.stat_at = gofer_stat_at,
	.set_stat_at = gofer_set_stat_at,
	.access_at = gofer_access_at,
	.mkdir_at = gofer_mkdir_at,
	.mknod_at = gofer_mknod_at,
	.link_at = gofer_link_at,
	.symlink_at = gofer_symlink_at,
	.readlink_at = gofer_readlink_at,
	.rename_at = gofer_rename_at,
	.unlink_at = gofer_unlink_at,
	.rmdir_at = gofer_rmdir_at,
	.statfs = gofer_statfs,
	.get_xattr_at = gofer_get_xattr_at,
	.set_xattr_at = gofer_set_xattr_at,
	.list_xattr_at = gofer_list_xattr_at,
	.remove_xattr_at = gofer_remove_xattr_at,
	.get_endpoint_at = gofer_get_endpoint_at,
	.get_parent = remote_get_parent,
	.get_acl = gofer_get_acl,
	.dentry_type = gofer_dentry_type,
	.inode_key = gofer_inode_key,
	.inode_hold = remote_inode_hold,
	.inode_drop = gofer_inode_drop,
	.watch_begin = gofer_watch_begin,
	.watch_end = gofer_watch_end,
	.dentry_release = gofer_dentry_release,
	.peek_perm = gofer_peek_perm,
	.peek_stat = gofer_peek_stat,
	.peek_link = gofer_peek_link,
	.sync = gofer_sync,
	.remount = gofer_remount,
	.show_options = gofer_show_options,
	.release = gofer_release,
};

/* ---- servers that mount(2) may name ---- */

/* One tree of a server that the operator mounts. Immutable but for `readonly`. */
struct p9_tag {
	LIST_ENTRY(p9_tag) link; /* guarded by tag_lock */
	const void *container; /* whose mount(2) knows it */
	struct p9_conn *conn; /* a reference */
	bool readonly; /* guarded by tag_lock */
	char *aname; /* in name, behind it */
	char name[]; /* the path of the server's socket */
};

static struct mutex tag_lock = MUTEX_INIT(LOCK_LEAF, "9p tags");
static LIST_HEAD(, p9_tag) tags = LIST_HEAD_INITIALIZER(tags);

/* aname NULL: any tree of that server. */
static struct p9_tag *find_tag_locked(const void *container, const char *tag, const char *aname)
{
	struct p9_tag *t;

	LIST_FOREACH (t, &tags, link)
		if (t->container == container && !strcmp(t->name, tag) &&
		    (!aname || !strcmp(t->aname, aname)))
			break;
	return t;
}

/* The calling thread's container's: args->conn, a reference, and args->readonly. Return: 0, -EPERM. */
static int find_tag(const char *tag, const char *aname, struct gofer_mount_args *args)
{
	const void *container = vfs_container();
	struct p9_tag *t;

	mutex_lock(&tag_lock);
	t = find_tag_locked(container, tag, aname);
	if (t) {
		p9_conn_ref(t->conn);
		args->conn = t->conn;
		args->readonly = t->readonly;
	}
	mutex_unlock(&tag_lock);
	return t ? 0 : -EPERM;
}

static bool has_key(const char *option, size_t len, const char *key)
{
	return len >= strlen(key) && !memcmp(option, key, strlen(key));
}

/* One option of mount(2)'s data; aname has VFS_PATH_MAX bytes. */
static int parse_option(const char *o, size_t len, struct gofer_mount_args *args, char *aname)
{
	static const char *const ignored[] = {"trans=", "access=", "uname=", "msize=", "posixacl"};

	if (has_key(o, len, "aname=")) {
		if (len - 6 >= VFS_PATH_MAX)
			return -EINVAL;
		memcpy(aname, o + 6, len - 6);
		aname[len - 6] = '\0';
		return 0;
	}
	if (has_key(o, len, "cache=")) {
		args->shared = !has_key(o, len, "cache=loose");
		return 0;
	}
	if (has_key(o, len, "version="))
		return len == 16 && !strncasecmp(o + 8, P9_VERSION_PLAIN, 8) ? 0 : -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(ignored); i++)
		if (has_key(o, len, ignored[i]))
			return 0;
	return -EINVAL;
}

static int parse_options(const char *data, struct gofer_mount_args *args, char *aname)
{
	int err = 0;

	while (!err && data && *data) {
		size_t len = strcspn(data, ",");

		if (len)
			err = parse_option(data, len, args, aname);
		data += len + (data[len] == ',');
	}
	return err;
}

int p9_add_tag(const void *container, const char *tag, struct p9_conn *c, const char *options,
	       bool readonly)
{
	size_t len = strlen(tag);
	struct gofer_mount_args args = {.conn = c};
	struct p9_tag *t, *old;
	char *aname;

	if (!len || len >= VFS_PATH_MAX)
		return -EINVAL;
	aname = calloc(1, VFS_PATH_MAX);
	if (!aname)
		return -ENOMEM;
	/* Wrong options are found out by the mount that has them. */
	(void)!parse_options(options, &args, aname);
	t = calloc(1, sizeof(*t) + len + 1 + strlen(aname) + 1);
	if (t) {
		memcpy(t->name, tag, len);
		t->aname = t->name + len + 1;
		strcpy(t->aname, aname);
		t->container = container;
		t->conn = c;
		t->readonly = readonly;
		mutex_lock(&tag_lock);
		old = find_tag_locked(container, tag, aname);
		if (old) {
			old->readonly &= readonly;
		} else {
			p9_conn_ref(c);
			LIST_INSERT_HEAD(&tags, t, link);
		}
		mutex_unlock(&tag_lock);
		if (old)
			free(t);
	}
	free(aname);
	return t ? 0 : -ENOMEM;
}

void p9_drop_tags(const void *container)
{
	LIST_HEAD(, p9_tag) dropped = LIST_HEAD_INITIALIZER(dropped);
	struct p9_tag *t, *next;

	mutex_lock(&tag_lock);
	for (t = LIST_FIRST(&tags); t; t = next) {
		next = LIST_NEXT(t, link);
		if (t->container != container)
			continue;
		LIST_REMOVE(t, link);
		LIST_INSERT_HEAD(&dropped, t, link);
	}
	mutex_unlock(&tag_lock);
	/* The last reference ends threads. */
	while ((t = LIST_FIRST(&dropped))) {
		LIST_REMOVE(t, link);
		p9_conn_unref(t->conn);
		free(t);
	}
}

/*
 * Exactly what the operator mounts, no more writable than there. Not what is below it either: a server that goes by paths follows
 * a symbolic link that the guest made on the way to a deeper tree.
 */
static int mount_tag(const char *source, const char *data, struct filesystem **ret_fs,
		     struct dentry **ret_root)
{
	struct gofer_mount_args args = {.shared = true, .source = source};
	char *aname = calloc(1, VFS_PATH_MAX);
	int err = aname ? parse_options(data, &args, aname) : -ENOMEM;

	if (!err)
		err = find_tag(source, aname, &args);
	if (!err) {
		args.aname = aname;
		err = gofer_fs_create(&args, ret_fs, ret_root);
		p9_conn_unref(args.conn);
	}
	free(aname);
	return err;
}

/* mount(2) inside the sandbox: a server that the container was given. */
static int gofer_mount(const struct filesystem_type *type, const char *source, unsigned ms_flags,
		       const char *data, void *kernel_data, struct filesystem **ret_fs,
		       struct dentry **ret_root)
{
	const struct gofer_mount_args *args = kernel_data;
	struct gofer_mount_args known;

	(void)type;
	(void)ms_flags;
	if (args)
		return gofer_fs_create(args, ret_fs, ret_root);
	/* Whatever the options are. */
	if (!source || find_tag(source, NULL, &known))
		return -EPERM;
	p9_conn_unref(known.conn);
	return mount_tag(source, data, ret_fs, ret_root);
}

static struct filesystem_type gofer_type = {
	.name = "9p",
	.flags = FS_NODEV,
	.mount = gofer_mount,
	.ops = &gofer_ops,
};

bool gofer_fs_is(const struct filesystem *fs)
{
	return fs->ops == &gofer_ops;
}

void gofer_fs_register(void)
{
	static _Atomic bool registered;

	if (!atomic_exchange(&registered, true))
		vfs_register_type(&gofer_type);
}

static int attach(struct gofer_fs *fs, const struct gofer_mount_args *args)
{
	struct p9_msg t = {.type = P9_Tattach};
	char aname[16];
	struct p9_call call;
	struct p9_node node;
	int err;

	snprintf(aname, sizeof(aname), "%u", args->attach);
	fs->root_fid = p9_fid_alloc(fs->conn);
	t.Tattach.fid = fs->root_fid;
	t.Tattach.afid = P9_NOFID;
	t.Tattach.uname = p9_str("");
	t.Tattach.aname = p9_str(args->aname ? args->aname : aname);
	t.Tattach.n_uname = 0;
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	p9_call_fini(&call);
	t = (struct p9_msg){.type = P9_Tmwalk};
	t.Tmwalk.fid = fs->root_fid;
	t.Tmwalk.newfid = P9_NOFID;
	t.Tmwalk.want = P9_WANT_SELF | P9_WANT_ACL;
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		return err;
	if (call.r.Rmwalk.nodes.count == 1) {
		p9_nodes_get(&call.r.Rmwalk.nodes, 0, &node);
		err = gofer_dentry_create_root(fs, &node);
	} else {
		err = -EIO;
	}
	p9_call_fini(&call);
	return err;
}

int gofer_fs_create(const struct gofer_mount_args *args, struct filesystem **ret_fs,
		    struct dentry **ret_root)
{
	struct gofer_fs *fs = calloc(1, sizeof(*fs));
	int err;

	if (!fs)
		return -ENOMEM;
	err = filesystem_init(&fs->fs, &gofer_type, &gofer_ops,
			      args->source ? args->source : "none");
	if (err) {
		free(fs);
		return err;
	}
	p9_conn_ref(args->conn);
	fs->conn = args->conn;
	fs->shared = args->shared;
	fs->host_fifo = args->host_fifo;
	fs->uds_open = args->uds_open && !args->conn->plain;
	fs->uds_create = args->uds_create && !args->conn->plain;
	fs->held_readonly = args->readonly && args->aname;
	fs->fs.exclusive = !args->shared;
	fs->fs.magic = V9FS_MAGIC;
	if (args->readonly)
		atomic_fetch_or(&fs->fs.sb_flags, FS_RDONLY);
	rwlock_init(&fs->tree_lock, LOCK_FS_OP, "gofer_tree");
	mutex_init(&fs->inode_lock, LOCK_FS_SUPER, "gofer_inodes");
	mutex_init(&fs->open_ahead.lock, LOCK_FS_DIR, "gofer_open_ahead");
	remote_dcache_init(&fs->dcache, &fs->fs, inode_unref_base, inode_gone,
			   args->max_dentries ? args->max_dentries : GOFER_DENTRIES_MAX);
	fs->dcache.inode_perm = inode_perm_base;
	if (!fs->shared && !fs->conn->plain)
		err = gofer_ahead_create(&fs->ahead);
	if (!err)
		err = attach(fs, args);
	if (err) {
		gofer_ahead_destroy(fs->ahead);
		p9_conn_unref(fs->conn);
		filesystem_fini(&fs->fs);
		free(fs);
		return err;
	}
	if (fs->shared)
		p9_notify_start(fs->conn);
	remote_dentry_ref(fs->root);
	*ret_fs = &fs->fs;
	*ret_root = &fs->root->d;
	return 0;
}

void gofer_fs_shrink(struct filesystem *base)
{
	struct gofer_fs *fs = gofer_fs_of(base);

	gofer_ahead_drop(fs);
	remote_shrink(&fs->dcache);
	gofer_host_fds_trim(fs->conn, 0);
}
