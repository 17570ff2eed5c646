/*
 * sentry/tty/devpts.c - the devpts filesystem, and what the terminal device numbers open.
 *
 * Every mount is an instance of its own (newinstance is the only way, as on Linux). A slave's inode is made from
 * its terminal: mode and owner are kept there. Outside devpts a number says nothing of the instance: 5:2 takes the one
 * that is mounted on "pts" beside the node, as on Linux, and 136:N is nobody's.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sentry/tty/internal.h"
#include "vfs/perm.h"
#include "vfs/fs_config.h"

#define DEVPTS_SUPER_MAGIC 0x1cd1

static struct mutex devpts_list_lock = MUTEX_INIT(LOCK_FS_SUPER, "devpts_list");
static LIST_HEAD(, devpts) devpts_list =
	LIST_HEAD_INITIALIZER(devpts_list); /* guarded by devpts_list_lock; last is first mounted */

static struct devpts *node_devpts(const struct synth_node *n)
{
	return synth_fs_priv(n->dentry.fs);
}

/* ---- numbers ---- */

int devpts_add(struct devpts *inst, struct tty *t)
{
	int32_t index = -ENOSPC;

	mutex_lock(&inst->lock);
	if (atomic_load_explicit(&inst->count, memory_order_relaxed) < inst->max)
		index = idr_alloc_lowest(&inst->ptys, t);
	if (index >= 0) {
		t->index = (unsigned)index;
		t->indexed = true;
		atomic_fetch_or_explicit(&inst->named[index / 64], 1ull << index % 64,
					 memory_order_release);
		atomic_fetch_add_explicit(&inst->count, 1, memory_order_relaxed);
	}
	mutex_unlock(&inst->lock);
	if (index == -EAGAIN)
		return -ENOSPC;
	return index < 0 ? index : 0;
}

void devpts_unname(struct devpts *inst, const struct tty *t)
{
	if (t->indexed)
		atomic_fetch_and_explicit(&inst->named[t->index / 64], ~(1ull << t->index % 64),
					  memory_order_release);
}

static bool index_is_named(struct devpts *inst, unsigned index)
{
	uint64_t bits = index < PTY_MAX ? atomic_load_explicit(&inst->named[index / 64],
							       memory_order_acquire)
					: 0;

	return bits >> index % 64 & 1;
}

/* The last reference is gone: until then the number stays taken, so that no other terminal gets it. */
void devpts_remove(struct devpts *inst, struct tty *t)
{
	mutex_lock(&inst->lock);
	if (t->indexed) {
		devpts_unname(inst, t);
		idr_remove(&inst->ptys, (int32_t)t->index);
		t->indexed = false;
		atomic_fetch_sub_explicit(&inst->count, 1, memory_order_relaxed);
	}
	mutex_unlock(&inst->lock);
}

struct tty *devpts_find(struct devpts *inst, unsigned index)
{
	struct tty *t;

	mutex_lock(&inst->lock);
	t = idr_find(&inst->ptys, (int32_t)index);
	if (t && !ref_tryget(&t->ref))
		t = NULL;
	mutex_unlock(&inst->lock);
	return t;
}

/* A terminal that still has its name: its master is open. */
static struct tty *devpts_find_named(struct devpts *inst, unsigned index)
{
	struct tty *t = index_is_named(inst, index) ? devpts_find(inst, index) : NULL;

	if (t && !index_is_named(inst, index)) {
		tty_unref(t);
		t = NULL;
	}
	return t;
}

struct devpts *devpts_first(struct filesystem *fs)
{
	struct devpts *inst, *found = NULL;

	mutex_lock(&devpts_list_lock);
	LIST_FOREACH (inst, &devpts_list, link)
		if (!fs || inst->fs == fs)
			found = inst;
	/* An instance leaves the list before its filesystem is freed. */
	if (found && !ref_tryget(&found->fs->ref))
		found = NULL;
	mutex_unlock(&devpts_list_lock);
	return found;
}

/* ---- nodes ---- */

static int pts_index(const struct synth_node *n)
{
	return (int)(intptr_t)n->priv;
}

static int pts_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct tty *t = devpts_find(node_devpts(n), (unsigned)pts_index(n));

	if (!t)
		return -ENOENT;
	mutex_lock(&t->lock);
	inout->mode = t->mode;
	inout->uid = t->uid;
	inout->gid = t->gid;
	inout->atime = inout->mtime = inout->ctime = (struct moat_timestamp){
		.sec = t->time_ns / 1000000000, .nsec = (uint32_t)(t->time_ns % 1000000000)};
	mutex_unlock(&t->lock);
	inout->rdev_major = PTS_MAJOR;
	inout->rdev_minor = t->index;
	tty_unref(t);
	return 0;
}

static int pts_setattr(struct synth_node *n, const struct setattr_args *args)
{
	struct tty *t = devpts_find(node_devpts(n), (unsigned)pts_index(n));
	struct setattr_args a = *args;
	struct perm_inode pi = {0};
	int err;

	if (!t)
		return -ENOENT;
	mutex_lock(&t->lock);
	pi.mode = t->mode;
	pi.uid = t->uid;
	pi.gid = t->gid;
	mutex_unlock(&t->lock);
	err = vfs_may_setattr(cred_current(), &pi, &a);
	if (!err) {
		mutex_lock(&t->lock);
		if (a.valid & SETATTR_MODE)
			t->mode = (t->mode & S_IFMT) | (a.mode & 07777);
		if (a.valid & SETATTR_UID)
			t->uid = a.uid;
		if (a.valid & SETATTR_GID)
			t->gid = a.gid;
		t->time_ns = time_realtime_ns();
		mutex_unlock(&t->lock);
	}
	tty_unref(t);
	return err;
}

static bool pts_revalidate(struct synth_node *n)
{
	return index_is_named(node_devpts(n), (unsigned)pts_index(n));
}

int devpts_open_index(struct devpts *inst, const struct vfs_path *place, unsigned index,
		      unsigned flags, struct file **ret)
{
	struct tty *t = devpts_find_named(inst, index);
	int err;

	if (!t)
		return -EIO;
	err = tty_slave_open(t, place, flags, ret);
	tty_unref(t);
	return err;
}

static int pts_open_file(struct synth_node *n, const struct vfs_path *place, unsigned flags,
			 struct file **ret)
{
	return devpts_open_index(node_devpts(n), place, (unsigned)pts_index(n), flags, ret);
}

static const struct synth_node_ops pts_ops = {
	.getattr = pts_getattr,
	.setattr = pts_setattr,
	.revalidate = pts_revalidate,
	.quick_revalidate = true,
	.open_file = pts_open_file,
};

static int ptmx_getattr(struct synth_node *n, struct synth_attr *inout)
{
	struct devpts *inst = node_devpts(n);

	mutex_lock(&inst->lock);
	inout->mode = S_IFCHR | inst->ptmxmode;
	mutex_unlock(&inst->lock);
	inout->rdev_major = 5;
	inout->rdev_minor = 2;
	return 0;
}

static int ptmx_setattr(struct synth_node *n, const struct setattr_args *args)
{
	struct devpts *inst = node_devpts(n);
	struct setattr_args a = *args;
	struct perm_inode pi = {.mode = S_IFCHR};
	int err = vfs_may_setattr(cred_current(), &pi, &a);

	if (err)
		return err;
	if (a.valid & SETATTR_MODE) {
		mutex_lock(&inst->lock);
		inst->ptmxmode = a.mode & 0777;
		mutex_unlock(&inst->lock);
	}
	return 0;
}

static int ptmx_open_file(struct synth_node *n, const struct vfs_path *place, unsigned flags,
			  struct file **ret)
{
	return tty_master_open(node_devpts(n), place, flags, ret);
}

static const struct synth_node_ops ptmx_ops = {
	.getattr = ptmx_getattr,
	.setattr = ptmx_setattr,
	.open_file = ptmx_open_file,
};

static int pts_parse(const char *name, size_t len, unsigned *ret)
{
	unsigned v = 0;

	if (!len || len > 7 || (name[0] == '0' && len > 1))
		return -ENOENT;
	for (size_t i = 0; i < len; i++) {
		if (name[i] < '0' || name[i] > '9')
			return -ENOENT;
		v = v * 10 + (unsigned)(name[i] - '0');
	}
	*ret = v;
	return 0;
}

static int devpts_lookup(struct synth_node *dir, const char *name, size_t len,
			 struct synth_node **ret)
{
	unsigned index;
	struct tty *t;
	int err = pts_parse(name, len, &index);

	if (err)
		return err;
	t = devpts_find_named(node_devpts(dir), index);
	if (!t)
		return -ENOENT;
	err = synth_node_create(dir, name, len, S_IFCHR | 0620, &pts_ops, (void *)(intptr_t)index,
				ret);
	if (!err) {
		(*ret)->rdev_major = PTS_MAJOR;
		(*ret)->rdev_minor = index;
		(*ret)->ino = index + 3;
	}
	tty_unref(t);
	return err;
}

static int devpts_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	struct devpts *inst = node_devpts(dir);

	for (int64_t i = from; i < PTY_MAX; i++) {
		struct tty *t = devpts_find_named(inst, (unsigned)i);
		char name[16];
		int len;

		if (!t)
			continue;
		tty_unref(t);
		len = snprintf(name, sizeof(name), "%d", (int)i);
		if (!synth_emit(it, name, (size_t)len, S_IFCHR, (uint64_t)i + 3, i))
			break;
	}
	return 0;
}

static const struct synth_node_ops devpts_root_ops = {
	.lookup = devpts_lookup,
	.iterate = devpts_iterate,
};

static const struct synth_entry devpts_entries[] = {
	{.name = "ptmx", .mode = S_IFCHR, .ops = &ptmx_ops},
	{0},
};

/* ---- mounting ---- */

static int parse_number(const char *s, size_t len, int base, uint32_t max, uint32_t *ret)
{
	char text[16], *end;
	unsigned long v;

	if (!len || len >= sizeof(text))
		return -EINVAL;
	memcpy(text, s, len);
	text[len] = 0;
	v = strtoul(text, &end, base);
	if (*end || v > max)
		return -EINVAL;
	*ret = (uint32_t)v;
	return 0;
}

static int devpts_option(struct devpts *inst, const char *opt, size_t len)
{
	static const char *const flags[] = {"newinstance", "rw", "ro"};
	const char *eq = memchr(opt, '=', len), *val = eq ? eq + 1 : opt + len;
	size_t klen = eq ? (size_t)(eq - opt) : len, vlen = (size_t)(opt + len - val);
	int err;

	for (size_t i = 0; i < ARRAY_SIZE(flags) && !eq; i++)
		if (klen == strlen(flags[i]) && !memcmp(opt, flags[i], klen))
			return 0;
	if (klen == 3 && !memcmp(opt, "uid", 3)) {
		err = parse_number(val, vlen, 10, UINT32_MAX - 1, &inst->uid);
		inst->set_uid = !err;
		return err;
	}
	if (klen == 3 && !memcmp(opt, "gid", 3)) {
		err = parse_number(val, vlen, 10, UINT32_MAX - 1, &inst->gid);
		inst->set_gid = !err;
		return err;
	}
	if (klen == 4 && !memcmp(opt, "mode", 4))
		return parse_number(val, vlen, 8, 0777, &inst->mode);
	if (klen == 8 && !memcmp(opt, "ptmxmode", 8))
		return parse_number(val, vlen, 8, 0777, &inst->ptmxmode);
	if (klen == 3 && !memcmp(opt, "max", 3))
		return parse_number(val, vlen, 10, 1048576, &inst->max);
	return -EINVAL;
}

static int devpts_options(struct devpts *inst, const char *data)
{
	int err = 0;

	while (data && *data && !err) {
		size_t len = strcspn(data, ",");

		if (len)
			err = devpts_option(inst, data, len);
		data += len + (data[len] == ',');
	}
	if (inst->max > PTY_MAX)
		inst->max = PTY_MAX;
	return err;
}

/* The filesystem goes: nobody can hold a terminal of it. */
static void devpts_release(void *priv)
{
	struct devpts *inst = priv;

	mutex_lock(&devpts_list_lock);
	if (inst->fs)
		LIST_REMOVE(inst, link);
	mutex_unlock(&devpts_list_lock);
	idr_fini(&inst->ptys);
	free(inst);
}

static void devpts_show_options(struct filesystem *fs, struct buf *b)
{
	struct devpts *inst = synth_fs_priv(fs);

	mutex_lock(&inst->lock);
	if (inst->set_uid)
		buf_printf(b, ",uid=%u", inst->uid);
	if (inst->set_gid)
		buf_printf(b, ",gid=%u", inst->gid);
	buf_printf(b, ",mode=%03o,ptmxmode=%03o", inst->mode, inst->ptmxmode);
	if (inst->max < PTY_MAX)
		buf_printf(b, ",max=%u", inst->max);
	mutex_unlock(&inst->lock);
}

static int devpts_mount(const struct filesystem_type *type, const char *source,
			unused_arg unsigned ms_flags, const char *data,
			unused_arg void *kernel_data, struct filesystem **ret_fs,
			struct dentry **ret_root)
{
	static const struct synth_entry root = {
		.mode = S_IFDIR | 0755, .ops = &devpts_root_ops, .children = devpts_entries};
	struct devpts *inst = calloc(1, sizeof(*inst));
	int err;

	if (!inst)
		return -ENOMEM;
	mutex_init(&inst->lock, LOCK_FS_SUPER, "devpts");
	inst->mode = 0600;
	inst->max = PTY_MAX;
	idr_init(&inst->ptys, 0, PTY_MAX - 1, "ptys");
	err = devpts_options(inst, data);
	if (!err)
		err = synth_fs_create(type, source ? source : "devpts", DEVPTS_SUPER_MAGIC, &root,
				      inst, devpts_release, ret_fs, ret_root);
	if (err) {
		idr_fini(&inst->ptys);
		free(inst);
		return err;
	}
	mutex_lock(&devpts_list_lock);
	inst->fs = *ret_fs;
	inst->root = *ret_root;
	LIST_INSERT_HEAD(&devpts_list, inst, link);
	mutex_unlock(&devpts_list_lock);
	return 0;
}

static const struct fs_param_spec devpts_params[] = {
	{"gid", FS_SPEC_U32},
	{"max", FS_SPEC_U32},
	{"mode", FS_SPEC_U32_OCT},
	{"newinstance", FS_SPEC_FLAG},
	{"ptmxmode", FS_SPEC_U32_OCT},
	{"uid", FS_SPEC_U32},
	{0},
};
static struct filesystem_ops devpts_ops;
static struct filesystem_type devpts_type = {
	.name = "devpts",
	.flags = FS_NODEV | FS_USERNS_MOUNT,
	.params = devpts_params,
	.mount = devpts_mount,
	.ops = &devpts_ops,
};

void devpts_register(void)
{
	devpts_ops = synth_filesystem_ops;
	devpts_ops.show_options = devpts_show_options;
	vfs_register_type(&devpts_type);
}

/* ---- device numbers ---- */

static int open_dev_tty(const struct vfs_path *place, unsigned flags, struct file **ret)
{
	struct tty *t = tty_current();
	int err;

	if (!t)
		return -ENXIO;
	err = tty_slave_open(t, place, flags | O_NOCTTY, ret);
	tty_unref(t);
	return err;
}

static int open_dev_console(const struct vfs_path *place, unsigned flags, struct file **ret)
{
	struct tty *t = tty_console();
	int err;

	if (!t)
		return -ENODEV;
	err = tty_slave_open(t, place, flags | O_NOCTTY, ret);
	tty_unref(t);
	return err;
}

/* The instance mounted on "pts" in the directory of `place`: *ret's filesystem gets a reference. Return 0, -ENOENT or -ENODEV. */
static int pts_beside(const struct vfs_path *place, struct devpts **ret)
{
	struct vfs_path dir = {.mount = place->mount}, found;
	struct vfs_lookup lk = {.cred = cred_current(), .path = "pts"};
	char name[VFS_NAME_MAX + 1];
	int err;

	err = place->dentry->fs->ops->get_parent(place->dentry, &dir.dentry, name, sizeof(name));
	/* -ENOENT: it was removed, from there. */
	if (dir.dentry && (!err || err == -ENOENT)) {
		lk.root = lk.start = dir;
		err = vfs_get_path(&lk, &found);
	} else {
		err = -ENOENT;
	}
	dentry_unref(dir.dentry);
	if (err)
		return -ENOENT;
	*ret = devpts_first(found.dentry->fs);
	vfs_path_unref(&found);
	return *ret ? 0 : -ENODEV;
}

int tty_open_device(const struct vfs_path *place, uint32_t major, uint32_t minor, unsigned flags,
		    struct file **ret)
{
	struct devpts *inst;
	int err;

	if (major == 5 && minor == 0)
		return open_dev_tty(place, flags, ret);
	if (major == 5 && minor == 1)
		return open_dev_console(place, flags, ret);
	if (major == 5 && minor != 2)
		return -ENXIO;
	/* A slave outside devpts has no terminal. */
	if (major != 5)
		return -EIO;
	err = pts_beside(place, &inst);
	if (err)
		return err;
	err = tty_master_open(inst, place, flags, ret);
	filesystem_unref(inst->fs);
	return err;
}

/*
 * TIOCGPTPEER: the slave by its master, whatever the caller's mount namespace looks like. Its place is N in the
 * devpts that the master was opened in, on the master's mount when that is the instance's.
 */
int tty_ioctl_open_peer(struct file *f, unsigned cmd, uint64_t arg, struct file **ret)
{
	struct tty *t;
	struct vfs_path place;
	int err;

	if (cmd != TIOCGPTPEER || f->ops != &tty_master_ops)
		return -ENOTTY;
	t = tty_file_of(f)->tty;
	err = tty_slave_place(t, f->path.dentry->fs == t->inst->fs ? f->path.mount : NULL, &place);
	if (err)
		return err;
	err = tty_slave_open(t, &place, (unsigned)arg & (O_ACCMODE | O_NONBLOCK | O_NOCTTY), ret);
	vfs_path_unref(&place);
	return err;
}

/* t's inode on `mnt` (or, when NULL, on a mount in no namespace): references. */
int tty_slave_place(struct tty *t, struct mount *mnt, struct vfs_path *ret)
{
	struct filesystem *fs = t->inst->fs;
	struct vfs_path root = {0};
	char path[16];
	struct vfs_lookup lk = {.cred = cred_current(), .path = path};
	int err;

	if (mnt) {
		root.mount = mnt;
		mount_ref(mnt);
	} else {
		err = mount_create_internal(fs, t->inst->root, &root.mount);
		if (err)
			return err;
	}
	root.dentry = root.mount->root;
	dentry_ref(root.dentry);
	snprintf(path, sizeof(path), "%u", t->index);
	lk.root = lk.start = root;
	err = vfs_get_path(&lk, ret);
	vfs_path_unref(&root);
	return err;
}
