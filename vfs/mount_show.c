/*
 * vfs/mount_show.c - places as strings, and /proc/PID/{mounts,mountinfo,mountstats} in Linux's format (fs/proc_namespace.c).
 */
#include <stdlib.h>
#include <string.h>
#include <linux/stat.h>

#include "vfs/mount_internal.h"

/* A path built from its end. */
struct back_path {
	char data[VFS_PATH_MAX + 16];
	size_t start;
};

static bool back_add(struct back_path *bp, const char *s, size_t len)
{
	if (len > bp->start)
		return false;
	bp->start -= len;
	memcpy(bp->data + bp->start, s, len);
	return true;
}

enum walk_end { WALK_ROOT, WALK_GLOBAL_ROOT, WALK_DETACHED, WALK_ERROR };

/* d's step up across mounts. Return false at the top of its mount tree. RCU or mount_lock keeps m. */
static bool step_mount(struct mount **m, struct dentry **d)
{
	struct mount *parent;
	struct dentry *at;
	uint32_t seq;
	bool up;

	do {
		seq = seqcount_read_begin(&mount_seq);
		parent = atomic_load_explicit(&(*m)->parent, memory_order_acquire);
		at = atomic_load_explicit(&(*m)->mountpoint, memory_order_acquire);
	} while (seqcount_read_retry_acquired(&mount_seq, seq));
	up = parent && at;
	if (!up || !vfs_path_tryref(parent, at))
		return false;
	*m = parent;
	*d = at;
	return true;
}

/* One step: to the mount point, or to the parent with its name added. *at's references are replaced. */
static enum walk_end walk_up(struct back_path *bp, const struct vfs_path *root, struct vfs_path *at,
			     bool *ret_deleted)
{
	bool first = true;

	for (;;) {
		struct dentry *parent = NULL, *d = at->dentry;
		char name[VFS_NAME_MAX + 1];
		int err;

		if (root && at->mount == root->mount && d == root->dentry)
			return WALK_ROOT;
		if (d == at->mount->root) {
			struct mount *m = at->mount;
			struct vfs_path old = *at;
			bool up;

			rcu_read_begin();
			up = step_mount(&m, &d);
			rcu_read_end();
			if (!up)
				return atomic_load_explicit(&at->mount->ns, memory_order_acquire)
					       ? WALK_GLOBAL_ROOT
					       : WALK_DETACHED;
			at->mount = m;
			at->dentry = d;
			vfs_path_unref(&old);
			continue;
		}
		err = d->fs->ops->get_parent(d, &parent, name, sizeof(name));
		if (first && err == -ENOENT)
			*ret_deleted = true;
		else if (err && err != -ENOENT)
			return WALK_ERROR;
		first = false;
		if (!parent && !name[0])
			return WALK_DETACHED;
		if (!back_add(bp, name, strlen(name)) || !back_add(bp, "/", 1)) {
			dentry_unref(parent);
			return WALK_ERROR;
		}
		if (!parent)
			return WALK_DETACHED;
		at->dentry = parent;
		dentry_unref(d);
	}
}

static int path_to_back(const struct vfs_path *root, const struct vfs_path *p, struct back_path *bp,
			enum walk_end *ret_end, bool *ret_deleted)
{
	struct vfs_path at = *p;

	bp->start = sizeof(bp->data);
	*ret_deleted = false;
	vfs_path_ref(&at);
	*ret_end = walk_up(bp, root, &at, ret_deleted);
	vfs_path_unref(&at);
	if (*ret_end == WALK_ERROR)
		return -ENAMETOOLONG;
	if (bp->start == sizeof(bp->data))
		(void)back_add(bp, "/", 1);
	return sizeof(bp->data) - bp->start >= VFS_PATH_MAX ? -ENAMETOOLONG : 0;
}

int vfs_path_to_string(const struct vfs_path *root, const struct vfs_path *p, bool decorate,
		       struct buf *b)
{
	struct back_path bp;
	enum walk_end end;
	bool deleted;
	int err;

	err = path_to_back(root, p, &bp, &end, &deleted);
	if (err)
		return err;
	if (deleted && !decorate)
		return -ENOENT;
	if (end != WALK_ROOT && !decorate)
		buf_puts(b, "(unreachable)");
	buf_append(b, bp.data + bp.start, sizeof(bp.data) - bp.start);
	if (deleted)
		buf_puts(b, " (deleted)");
	return buf_error(b);
}

/* ---- mount tables ---- */

/* Bytes of `special` in octal: mangle() has '#' among them, a path has not. */
#define ESCAPE_PATH " \t\n\\"
#define ESCAPE_NAME " \t\n\\#"
static void show_escaped(struct buf *b, const char *s, size_t len, const char *special)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)s[i];

		if (c && strchr(special, c))
			buf_printf(b, "\\%03o", c);
		else
			buf_putc(b, (char)c);
	}
}

static void show_mount_flags(unsigned flags, struct buf *b)
{
	static const struct {
		unsigned flag;
		const char *name;
	} names[] = {
		{MNT_NOSUID_F, ",nosuid"},	     {MNT_NODEV_F, ",nodev"},
		{MNT_NOEXEC_F, ",noexec"},	     {MNT_NOATIME_F, ",noatime"},
		{MNT_NODIRATIME_F, ",nodiratime"},   {MNT_RELATIME_F, ",relatime"},
		{MNT_NOSYMFOLLOW_F, ",nosymfollow"},
	};

	for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
		if (flags & names[i].flag)
			buf_puts(b, names[i].name);
}

/* What is needed of one mount once the lock is dropped. */
struct mount_row {
	struct mount *m; /* a reference */
	int32_t parent_id;
	uint32_t group, master_group, from_group;
	bool unbindable;
};

static void row_fill_locked(struct mount_row *row, struct mount_private *p,
			    const struct vfs_path *root)
{
	struct mount *parent = atomic_load_explicit(&p->mount->parent, memory_order_relaxed);

	*row = (struct mount_row){
		.m = p->mount,
		/* A namespace's root hangs below a mount that nobody sees: id 1. */
		.parent_id = parent ? parent->id : 1,
		.group = p->group,
		.unbindable = p->base == PROP_UNBINDABLE};
	mount_ref(p->mount);
	if (p->master) {
		row->master_group = p->master->group;
		row->from_group = mount_dominating_group_locked(p, mount_ns_of(p->mount), root);
	}
}

static size_t collect_rows(struct mount_namespace *ns, const struct vfs_path *root,
			   struct mount_row **ret_rows)
{
	struct mount_private *p;
	struct mount_row *rows = NULL;
	size_t count = 0;

	mutex_lock(&mount_lock);
	if (ns->count)
		rows = malloc(ns->count * sizeof(*rows));
	if (rows)
		TAILQ_FOREACH (p, &ns->mounts, in_ns)
			row_fill_locked(&rows[count++], p, root);
	mutex_unlock(&mount_lock);
	*ret_rows = rows;
	return count;
}

static void show_fs_type(const struct filesystem *fs, struct buf *b)
{
	show_escaped(b, fs->type->name, strlen(fs->type->name), ESCAPE_NAME);
}

static void show_source(const struct filesystem *fs, struct buf *b)
{
	show_escaped(b, fs->source, strlen(fs->source), ESCAPE_NAME);
}

/* show_sb_opts(). */
static void show_sb_flags(const struct filesystem *fs, struct buf *b)
{
	unsigned flags = atomic_load_explicit(&fs->sb_flags, memory_order_relaxed);

	buf_puts(b, flags & FS_SYNC ? ",sync" : "");
	buf_puts(b, flags & FS_DIRSYNC ? ",dirsync" : "");
	buf_puts(b, flags & FS_MANDLOCK ? ",mand" : "");
	buf_puts(b, flags & FS_LAZYTIME ? ",lazytime" : "");
}

static bool fs_readonly(const struct filesystem *fs)
{
	return (atomic_load_explicit(&fs->sb_flags, memory_order_relaxed) & FS_RDONLY) != 0;
}

/* From d up to its filesystem's root, through dentries only. Return: d was removed. */
static bool root_in_fs(struct dentry *d, struct back_path *bp)
{
	struct dentry *at = d, *parent;
	char name[VFS_NAME_MAX + 1];
	bool deleted = false;

	bp->start = sizeof(bp->data);
	dentry_ref(at);
	for (;;) {
		parent = NULL;
		if (at->fs->ops->get_parent(at, &parent, name, sizeof(name)) == -ENOENT && at == d)
			deleted = true;
		if (!parent)
			break;
		(void)(back_add(bp, name, strlen(name)) && back_add(bp, "/", 1));
		dentry_unref(at);
		at = parent;
	}
	dentry_unref(at);
	if (bp->start == sizeof(bp->data))
		(void)back_add(bp, "/", 1);
	return deleted;
}

static void show_mountinfo(const struct mount_row *row, const struct back_path *place,
			   struct buf *b)
{
	unsigned flags = atomic_load_explicit(&row->m->flags, memory_order_relaxed);
	struct filesystem *fs = row->m->fs;
	struct back_path *in_fs = malloc(sizeof(*in_fs));
	bool deleted;

	if (!in_fs)
		return;
	buf_printf(b, "%i %i %u:%u ", row->m->id, row->parent_id, 0, fs->dev_minor);
	deleted = root_in_fs(row->m->root, in_fs);
	show_escaped(b, in_fs->data + in_fs->start, sizeof(in_fs->data) - in_fs->start,
		     ESCAPE_PATH);
	if (deleted)
		buf_puts(b, "//deleted");
	free(in_fs);
	buf_putc(b, ' ');
	show_escaped(b, place->data + place->start, sizeof(place->data) - place->start,
		     ESCAPE_PATH);
	buf_puts(b, flags & MNT_RDONLY_F ? " ro" : " rw");
	show_mount_flags(flags, b);
	if (row->group)
		buf_printf(b, " shared:%u", row->group);
	if (row->master_group)
		buf_printf(b, " master:%u", row->master_group);
	if (row->from_group && row->from_group != row->master_group)
		buf_printf(b, " propagate_from:%u", row->from_group);
	if (row->unbindable)
		buf_puts(b, " unbindable");
	buf_puts(b, " - ");
	show_fs_type(fs, b);
	buf_putc(b, ' ');
	show_source(fs, b);
	buf_puts(b, fs_readonly(fs) ? " ro" : " rw");
	show_sb_flags(fs, b);
	fs->ops->show_options(fs, b);
	buf_putc(b, '\n');
}

static void show_mounts_line(const struct mount_row *row, const struct back_path *place,
			     struct buf *b)
{
	unsigned flags = atomic_load_explicit(&row->m->flags, memory_order_relaxed);
	struct filesystem *fs = row->m->fs;

	show_source(fs, b);
	buf_putc(b, ' ');
	show_escaped(b, place->data + place->start, sizeof(place->data) - place->start,
		     ESCAPE_PATH);
	buf_putc(b, ' ');
	show_fs_type(fs, b);
	buf_puts(b, (flags & MNT_RDONLY_F) || fs_readonly(fs) ? " ro" : " rw");
	show_sb_flags(fs, b);
	show_mount_flags(flags, b);
	fs->ops->show_options(fs, b);
	buf_puts(b, " 0 0\n");
}

static void show_mountstats(const struct mount_row *row, const struct back_path *place,
			    struct buf *b)
{
	struct filesystem *fs = row->m->fs;

	buf_puts(b, "device ");
	show_source(fs, b);
	buf_puts(b, " mounted on ");
	show_escaped(b, place->data + place->start, sizeof(place->data) - place->start,
		     ESCAPE_PATH);
	buf_puts(b, " with fstype ");
	show_fs_type(fs, b);
	buf_putc(b, '\n');
}

void vfs_show_mounts(struct mount_namespace *ns, const struct vfs_path *root, enum mount_show what,
		     struct buf *b)
{
	struct back_path *place = malloc(sizeof(*place));
	struct mount_row *rows;
	size_t count;

	if (!place)
		return;
	count = collect_rows(ns, root, &rows);
	for (size_t i = 0; i < count; i++) {
		struct vfs_path p = {.mount = rows[i].m, .dentry = rows[i].m->root};
		enum walk_end end;
		bool deleted;

		/* What the reader's root does not reach is left out. */
		if (!path_to_back(root, &p, place, &end, &deleted) && end == WALK_ROOT) {
			if (what == MOUNT_SHOW_MOUNTINFO)
				show_mountinfo(&rows[i], place, b);
			else if (what == MOUNT_SHOW_MOUNTS)
				show_mounts_line(&rows[i], place, b);
			else
				show_mountstats(&rows[i], place, b);
		}
		mount_unref(rows[i].m);
	}
	free(rows);
	free(place);
}

void mount_facts_root(const struct mount_facts *f, struct buf *b)
{
	struct back_path *bp = malloc(sizeof(*bp));
	bool deleted;

	if (!bp)
		return;
	deleted = root_in_fs(f->at.dentry, bp);
	buf_append(b, bp->data + bp->start, sizeof(bp->data) - bp->start);
	if (deleted)
		buf_puts(b, "//deleted");
	free(bp);
}

int mount_facts_point(const struct mount_facts *f, const struct vfs_path *root, struct buf *b)
{
	struct back_path *bp = malloc(sizeof(*bp));
	enum walk_end end;
	bool deleted;
	int err;

	if (!bp)
		return -ENOMEM;
	err = path_to_back(root, &f->at, bp, &end, &deleted);
	if (!err && end == WALK_ROOT)
		buf_append(b, bp->data + bp->start, sizeof(bp->data) - bp->start);
	free(bp);
	return err;
}

void vfs_stat_add_mount(const struct mount *m, const struct stat_args *args, struct moat_statx *st)
{
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x00004000U
#endif
	if (args->mask & STATX_MNT_ID_UNIQUE) {
		st->mask |= STATX_MNT_ID_UNIQUE;
		st->mnt_id = m->unique_id;
	} else {
		st->mask |= STATX_MNT_ID;
		st->mnt_id = (uint64_t)m->id;
	}
}
