/*
 * fsimpl/overlay/mount.c - options, layers, creation.
 *
 * The options and their conflicts are Linux's. index= and nfs_export= are taken and stay off, as Linux does where the upper filesystem has
 * no file handles; metacopy=on, data-only layers ("::") and verity are refused, because nothing here would honour them.
 */
#include <linux/capability.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/buf.h"
#include "fsimpl/memfs/memfs.h"
#include "fsimpl/overlay/internal.h"
#include "vfs/fs_config.h"
#include "vfs/mount.h"

/* ---- layers ---- */

struct layer_set {
	struct vfs_path upper, work; /* borrowed; dentry NULL: none. On one mount */
	struct vfs_path *lower; /* borrowed */
	unsigned nlower;
};

static unsigned depth_of(const struct filesystem *fs)
{
	return fs->type == &overlay_type ? ((const struct overlay_fs *)fs)->depth : 0;
}

/* Numbers the filesystems of the layers; the first lower's is 0, so that numbers are its own where they can be. */
static void number_filesystems(struct overlay_fs *fs)
{
	unsigned next = 0;
	bool known;

	for (unsigned i = 0; i < fs->nlower; i++) {
		known = false;
		for (unsigned j = 0; j < i && !known; j++) {
			known = fs->lower[j].mount->fs == fs->lower[i].mount->fs;
			fs->lower[i].fsid = fs->lower[j].fsid;
		}
		if (!known)
			fs->lower[i].fsid = next++;
	}
	if (fs->upper_mount) {
		known = false;
		for (unsigned j = 0; j < fs->nlower && !known; j++) {
			known = fs->lower[j].mount->fs == fs->upper_mount->fs;
			fs->upper_fsid = fs->lower[j].fsid;
		}
		if (!known)
			fs->upper_fsid = next++;
	}
	fs->one_fs = next == 1;
}

/* An internal mount for each layer, as Linux clones private ones. */
static int take_layers(struct overlay_fs *fs, const struct layer_set *set,
		       struct overlay_found *found)
{
	int err = 0;

	fs->lower = calloc(MAX(set->nlower, 1u), sizeof(*fs->lower));
	if (!fs->lower)
		return -ENOMEM;
	if (set->upper.dentry) {
		struct filesystem *upper_fs = set->upper.dentry->fs;

		err = mount_create_internal(upper_fs, set->upper.dentry, &fs->upper_mount);
		if (err)
			return err;
		mount_own(fs->upper_mount);
		fs->depth = depth_of(upper_fs);
		dentry_ref(set->upper.dentry);
		found->upper = set->upper.dentry;
	}
	for (unsigned i = 0; i < set->nlower; i++) {
		struct dentry *root = set->lower[i].dentry;
		struct mount *m;
		char value[2] = "";

		err = mount_create_internal(root->fs, root, &m);
		if (err)
			return err;
		mount_own(m);
		fs->lower[fs->nlower++].mount = m;
		fs->depth = MAX(fs->depth, depth_of(root->fs));
		mount_ref(m);
		dentry_ref(root);
		found->lowers[found->nlowers] = (struct vfs_path){m, root};
		if (overlay_mark_get(fs, &found->lowers[found->nlowers], "opaque", value, 2) == 1 &&
		    value[0] == 'x')
			atomic_store(&fs->lower[i].xwhiteouts, true);
		found->nlowers++;
	}
	number_filesystems(fs);
	/* What others change is asked anew by every walk. */
	fs->base.exclusive = !set->upper.dentry || set->upper.dentry->fs->exclusive;
	for (unsigned i = 0; i < set->nlower; i++)
		fs->base.exclusive &= set->lower[i].dentry->fs->exclusive;
	fs->base.path_cache = fs->base.exclusive;
	return 0;
}

static void free_fs(struct rcu_cb *cb)
{
	free(overlay_fs_of(container_of(cb, struct filesystem, rcu)));
}

static void layer_mount_unref(struct mount *m)
{
	mount_disown(m);
	mount_unref(m);
}

void overlay_release(struct filesystem *base)
{
	struct overlay_fs *fs = overlay_fs_of(base);

	for (unsigned i = 0; i < OVERLAY_CACHE_MAX; i++) {
		struct overlay_dentry *d = atomic_exchange(&fs->cache[i], NULL);

		if (d)
			dentry_unref(&d->base);
	}
	if (fs->root)
		dentry_unref(&fs->root->base);
	if (fs->work)
		dentry_unref(fs->work);
	if (fs->upper_mount)
		layer_mount_unref(fs->upper_mount);
	for (unsigned i = 0; i < fs->nlower; i++)
		layer_mount_unref(fs->lower[i].mount);
	overlay_missing_fini(fs);
	free(fs->lower);
	free(fs->config.lowerdir);
	free(fs->config.upperdir);
	free(fs->config.workdir);
	cred_unref(fs->cred);
	filesystem_fini(base);
	rcu_call(&base->rcu, free_fs);
}

/* "work" below the given directory, empty. What a stopped overlay left in it goes. */
static int prepare_work(struct overlay_fs *fs, struct dentry *dir)
{
	struct vfs_path place = {fs->upper_mount, dir}, made;
	struct vfs_lookup lk = overlay_layer_lookup(fs, &place, "work", 0);
	struct overlay_dirent *entries;
	size_t count;
	int err = vfs_get_path(&lk, &made);

	if (!err) {
		err = overlay_list_layer(fs, &made, &entries, &count);
		if (!err) {
			for (size_t i = 0; i < count; i++) {
				struct vfs_lookup old =
					overlay_layer_lookup(fs, &made, entries[i].name, 0);

				if (vfs_unlink(&old) == -EISDIR)
					(void)!overlay_clear_dir(fs, &old);
			}
			overlay_dirents_free(entries, count);
		}
		vfs_path_unref(&made);
		err = vfs_rmdir(&lk);
		if (err)
			return err;
	} else if (err != -ENOENT) {
		return err;
	}
	err = vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0});
	if (!err)
		err = vfs_get_path(&lk, &made);
	if (err)
		return err;
	fs->work = made.dentry;
	mount_unref(made.mount);
	return 0;
}

/* config's strings are taken on success. */
static int create(const struct layer_set *set, struct overlay_config *config, const char *source,
		  const struct cred *cred, struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct overlay_found *found = calloc(1, sizeof(*found));
	struct overlay_fs *fs = calloc(1, sizeof(*fs));
	struct moat_statx st;
	char value[2];
	int err = found && fs ? filesystem_init(&fs->base, &overlay_type, &overlay_filesystem_ops,
						source)
			      : -ENOMEM;

	if (err) {
		free(found);
		free(fs);
		return err;
	}
	fs->cred = cred_ref(cred);
	fs->base.magic = OVERLAY_MAGIC;
	fs->config = *config;
	op_lock_init(&fs->change);
	mutex_init(&fs->inodes_lock, LOCK_FS_INODE, "overlay inodes");
	RB_INIT(&fs->inodes);
	found->type = S_IFDIR;
	err = take_layers(fs, set, found);
	if (!err && fs->depth >= OVERLAY_DEPTH_MAX)
		err = -EINVAL;
	fs->depth++;
	if (!err && set->work.dentry && prepare_work(fs, set->work.dentry)) {
		/* As Linux: without it nothing can be changed. */
		atomic_fetch_or(&fs->base.sb_flags, FS_RDONLY);
	}
	if (!set->upper.dentry)
		atomic_fetch_or(&fs->base.sb_flags, FS_RDONLY);
	if (!err) {
		struct vfs_path top = fs->upper_mount
					      ? (struct vfs_path){fs->upper_mount, found->upper}
					      : found->lowers[0];

		err = overlay_stat_place(fs, &top, &st);
		found->impure = fs->upper_mount &&
				overlay_mark_get(fs, &top, "impure", value, sizeof(value)) == 1;
		found->ino = fs->upper_mount ? overlay_map_ino(fs, fs->upper_fsid, st.ino)
					     : overlay_map_ino(fs, 0, st.ino);
	}
	if (!err)
		err = overlay_dentry_create(fs, NULL, "", 0, found, &fs->root);
	overlay_found_fini(found);
	free(found);
	if (err) {
		memset(&fs->config, 0, sizeof(fs->config));
		filesystem_unref(&fs->base);
		return err;
	}
	memset(config, 0, sizeof(*config));
	dentry_ref(&fs->root->base);
	*ret_root = &fs->root->base;
	*ret_fs = &fs->base;
	return 0;
}

/* ---- options ---- */

struct parsed {
	struct fs_config *config; /* borrowed: for messages; who asks */
	struct overlay_config c;
	struct vfs_path *lower; /* references */
	unsigned nlower;
	struct vfs_path upper, work; /* references */
	bool redirect_set;
};

static void parsed_fini(struct parsed *p)
{
	for (unsigned i = 0; i < p->nlower; i++)
		vfs_path_unref(&p->lower[i]);
	free(p->lower);
	if (p->upper.dentry)
		vfs_path_unref(&p->upper);
	if (p->work.dentry)
		vfs_path_unref(&p->work);
	free(p->c.lowerdir);
	free(p->c.upperdir);
	free(p->c.workdir);
}

static int find_dir(struct parsed *p, const char *path, struct vfs_path *ret)
{
	struct vfs_lookup lk = *p->config->who;
	int err;

	if (!*path)
		return fs_config_error(p->config, "overlay: a layer's path is empty");
	lk.path = path;
	lk.flags = LOOKUP_FOLLOW;
	err = vfs_get_path(&lk, ret);
	if (!err && ret->dentry->fs->ops->dentry_type(ret->dentry) != S_IFDIR) {
		vfs_path_unref(ret);
		err = fs_config_error(p->config, "overlay: %s is not a directory", path);
	}
	return err;
}

static int add_lower(struct parsed *p, const char *path)
{
	struct vfs_path *grown;
	int err;

	if (p->nlower == OVERLAY_LAYERS_MAX)
		return -EINVAL;
	grown = realloc(p->lower, (p->nlower + 1) * sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	p->lower = grown;
	err = find_dir(p, path, &p->lower[p->nlower]);
	if (!err)
		p->nlower++;
	return err;
}

/* a:b:c with "\:" for a colon in a name. The string is eaten. */
static int parse_lowers(struct parsed *p, char *s)
{
	bool more = true;
	int err = 0;

	for (unsigned i = 0; i < p->nlower; i++)
		vfs_path_unref(&p->lower[i]);
	p->nlower = 0;
	while (!err && more) {
		char *in = s, *out = s, *start = s;

		while (*in && *in != ':') {
			if (*in == '\\' && in[1])
				in++;
			*out++ = *in++;
		}
		more = *in == ':';
		s = in + 1;
		*out = '\0';
		err = add_lower(p, start);
	}
	return err;
}

static int replace(char **slot, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		return -ENOMEM;
	free(*slot);
	*slot = copy;
	return 0;
}

static int parse_dir(struct parsed *p, struct vfs_path *place, char **slot, char *value)
{
	struct vfs_path found;
	char *in = value, *out = value;
	int err = replace(slot, value);

	while (*in) {
		if (*in == '\\' && in[1])
			in++;
		*out++ = *in++;
	}
	*out = '\0';
	if (!err)
		err = find_dir(p, value, &found);
	if (err)
		return err;
	if (place->dentry)
		vfs_path_unref(place);
	*place = found;
	return 0;
}

/* One of the words, or -EINVAL. */
static int word(const char *value, const char *const *words)
{
	for (int i = 0; words[i]; i++)
		if (strcmp(value, words[i]) == 0)
			return i;
	return -EINVAL;
}

static int parse_paths(struct parsed *p, const char *key, char *value)
{
	int err;

	if (!strcmp(key, "lowerdir")) {
		err = replace(&p->c.lowerdir, value);
		return err ? err : parse_lowers(p, value);
	}
	if (!strcmp(key, "lowerdir+")) {
		char *joined =
			malloc(strlen(value) + 2 + (p->c.lowerdir ? strlen(p->c.lowerdir) : 0));

		if (!joined)
			return -ENOMEM;
		strcpy(joined, p->c.lowerdir ? p->c.lowerdir : "");
		if (*joined)
			strcat(joined, ":");
		strcat(joined, value);
		free(p->c.lowerdir);
		p->c.lowerdir = joined;
		return add_lower(p, value);
	}
	if (!strcmp(key, "upperdir"))
		return parse_dir(p, &p->upper, &p->c.upperdir, value);
	if (!strcmp(key, "workdir"))
		return parse_dir(p, &p->work, &p->c.workdir, value);
	return 1;
}

static int parse_one(struct parsed *p, const char *key, char *value)
{
	static const char *const redirects[] = {"on", "off", "follow", "nofollow", NULL};
	static const enum overlay_redirect modes[] = {REDIRECT_ON, REDIRECT_FOLLOW, REDIRECT_FOLLOW,
						      REDIRECT_NOFOLLOW};
	static const char *const on_off[] = {"off", "on", NULL};
	static const char *const xinos[] = {"off", "on", "auto", NULL};
	static const char *const uuids[] = {"off", "null", "auto", "on", NULL};
	int n;

	if (!value) {
		if (!strcmp(key, "userxattr"))
			p->c.userxattr = true;
		else if (!strcmp(key, "volatile"))
			p->c.is_volatile = true;
		else if (strcmp(key, "default_permissions"))
			return -EINVAL;
		return 0;
	}
	n = parse_paths(p, key, value);
	if (n <= 0)
		return n;
	if (!strcmp(key, "redirect_dir")) {
		n = word(value, redirects);
		if (n >= 0) {
			p->c.redirect = modes[n];
			p->redirect_set = true;
		}
	} else if (!strcmp(key, "xino")) {
		n = word(value, xinos);
		if (n >= 0)
			p->c.xino = n ? xinos[n] : NULL;
	} else if (!strcmp(key, "index") || !strcmp(key, "nfs_export")) {
		n = word(value, on_off);
	} else if (!strcmp(key, "metacopy") || !strcmp(key, "verity")) {
		n = word(value, on_off) == 0 ? 0 : -EINVAL;
	} else if (!strcmp(key, "uuid")) {
		n = word(value, uuids);
	} else {
		n = -EINVAL;
	}
	return n < 0 ? n : 0;
}

static bool overlap(const struct vfs_path *a, const struct vfs_path *b)
{
	const struct filesystem *fs = a->dentry->fs;

	return fs == b->dentry->fs && (fs->ops->is_descendant(a->dentry, b->dentry) ||
				       fs->ops->is_descendant(b->dentry, a->dentry));
}

/* The layers must not reach into each other: -ELOOP. */
static int check_overlap(const struct parsed *p)
{
	for (unsigned i = 0; i < p->nlower; i++) {
		if (p->upper.dentry &&
		    (overlap(&p->lower[i], &p->upper) || overlap(&p->lower[i], &p->work)))
			return -ELOOP;
		for (unsigned j = 0; j < i; j++)
			if (overlap(&p->lower[i], &p->lower[j]))
				return -ELOOP;
	}
	return 0;
}

static int check_options(struct parsed *p)
{
	if (p->c.userxattr) {
		if (p->redirect_set && p->c.redirect != REDIRECT_NOFOLLOW)
			return -EINVAL;
		p->c.redirect = REDIRECT_NOFOLLOW;
	}
	if (!p->nlower)
		return fs_config_error(p->config, "overlay: missing 'lowerdir'");
	if (!p->upper.dentry) {
		if (p->work.dentry)
			vfs_path_unref(&p->work);
		free(p->c.workdir);
		p->c.workdir = NULL;
		p->c.is_volatile = false;
		if (p->c.redirect == REDIRECT_ON)
			p->c.redirect = REDIRECT_FOLLOW;
		return p->nlower < 2 ? fs_config_error(p->config,
						       "overlay: at least 2 lowerdir are needed "
						       "while upperdir nonexistent")
				     : check_overlap(p);
	}
	if (!p->work.dentry)
		return fs_config_error(p->config, "overlay: missing 'workdir'");
	if ((atomic_load(&p->upper.dentry->fs->sb_flags) & FS_RDONLY) ||
	    (atomic_load(&p->upper.mount->flags) & MNT_RDONLY_F))
		return -EINVAL;
	if (p->upper.mount != p->work.mount || overlap(&p->upper, &p->work))
		return fs_config_error(p->config, "overlay: workdir and upperdir must be "
						  "separate subtrees under the same mount");
	return check_overlap(p);
}

static int overlay_parse_param(struct fs_config *c, const struct fs_param *param)
{
	struct parsed *p = c->priv;
	char *value = NULL;
	int err;

	/* A remount has always ignored what it was given. */
	if (c->reconfigure)
		return 0;
	if (!strcmp(param->key, "source"))
		return FS_PARAM_UNKNOWN;
	if (param->kind != FS_PARAM_FLAG && param->kind != FS_PARAM_STRING)
		return fs_config_error(c, "overlay: %s takes a path", param->key);
	if (!p)
		p = c->priv = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	if (param->kind == FS_PARAM_STRING) {
		value = strdup(param->string);
		if (!value)
			return -ENOMEM;
	}
	p->config = c;
	err = parse_one(p, param->key, value);
	if (err == -EINVAL && !fs_config_message(c))
		err = fs_config_error(c, "overlay: Bad value for '%s'", param->key);
	free(value);
	return err;
}

static int overlay_get_tree(struct fs_config *c, struct filesystem **ret_fs,
			    struct dentry **ret_root)
{
	struct parsed *p = c->priv;
	struct layer_set set;
	int err;

	if (!p)
		return fs_config_error(c, "overlay: missing 'lowerdir'");
	p->config = c;
	err = check_options(p);
	if (err)
		return err;
	set = (struct layer_set){p->upper, p->work, p->lower, p->nlower};
	return create(&set, &p->c, c->source ? c->source : "none", c->who->cred, ret_fs, ret_root);
}

/* Only read-only and back. */
static int overlay_reconfigure(struct fs_config *c)
{
	bool rdonly = c->sb_mask & MS_RDONLY ? c->sb_flags & MS_RDONLY
					     : atomic_load(&c->fs->sb_flags) & FS_RDONLY;

	return !rdonly && !overlay_fs_of(c->fs)->work ? -EROFS : 0;
}

static void overlay_config_free(struct fs_config *c)
{
	if (c->priv)
		parsed_fini(c->priv);
	free(c->priv);
}

/* As the kernel's mangling of option values. */
static void show_value(struct buf *b, const char *key, const char *value)
{
	buf_printf(b, ",%s=", key);
	for (; *value; value++) {
		if (strchr(" \t\n\\,", *value) && *value != '\\')
			buf_printf(b, "\\%03o", (unsigned char)*value);
		else
			buf_putc(b, *value);
	}
}

/* In ovl_show_options()'s order. */
void overlay_show_options(struct filesystem *base, struct buf *b)
{
	const struct overlay_fs *fs = overlay_fs_of(base);
	const struct overlay_config *c = &fs->config;

	if (c->lowerdir)
		show_value(b, "lowerdir", c->lowerdir);
	if (c->upperdir) {
		show_value(b, "upperdir", c->upperdir);
		show_value(b, "workdir", c->workdir);
	}
	if (c->redirect == REDIRECT_ON)
		buf_puts(b, ",redirect_dir=on");
	else if (c->redirect == REDIRECT_NOFOLLOW)
		buf_puts(b, ",redirect_dir=nofollow");
	if (c->xino && !fs->one_fs)
		buf_printf(b, ",xino=%s", c->xino);
	if (c->is_volatile)
		buf_puts(b, ",volatile");
	if (c->userxattr)
		buf_puts(b, ",userxattr");
}

struct filesystem_type overlay_type = {
	.name = "overlay",
	.flags = FS_NODEV | FS_USERNS_MOUNT | FS_RCU_WALK | FS_PATH_CACHE,
	.parse_param = overlay_parse_param,
	.get_tree = overlay_get_tree,
	.reconfigure = overlay_reconfigure,
	.config_free = overlay_config_free,
	.ops = &overlay_filesystem_ops,
};

int overlay_register(void)
{
	vfs_register_type(&overlay_type);
	return 0;
}

/* ---- for boot ---- */

static int root_cred(const struct cred **ret)
{
	struct cred *c;
	int err = cred_create_root(&c);

	if (!err)
		*ret = c;
	return err;
}

/* *ret: references. Return: 1 if it was made, 0 if it was there. */
static int make_dir(const struct vfs_path *root, const struct cred *cred, const char *name,
		    struct vfs_path *ret)
{
	struct vfs_lookup lk = {
		.cred = cred, .root = *root, .start = *root, .path = name, .flags = 0};
	int made = vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), err;

	if (made && made != -EEXIST)
		return made;
	lk.flags = LOOKUP_DIRECTORY;
	err = vfs_get_path(&lk, ret);
	return err ? err : !made;
}

/* The new upper root looks like the lower one. */
static int copy_root_attributes(const struct cred *cred, const struct vfs_path *from,
				const struct vfs_path *to)
{
	struct vfs_lookup lower = {
		.cred = cred, .root = *from, .start = *from, .path = "", .flags = LOOKUP_EMPTY};
	struct vfs_lookup upper = lower;
	struct moat_statx st;
	int err = vfs_stat(&lower, &(struct stat_args){.mask = OVERLAY_STATX_MASK}, &st);

	upper.root = upper.start = *to;
	return err ? err
		   : vfs_set_stat(&upper,
				  &(struct setattr_args){.valid = SETATTR_MODE | SETATTR_UID |
								  SETATTR_GID | SETATTR_ATIME |
								  SETATTR_MTIME,
							 .mode = st.mode & 07777,
							 .uid = st.uid,
							 .gid = st.gid,
							 .atime = st.atime,
							 .mtime = st.mtime});
}

/* The mount of a tree of the caller's that nobody sees. */
static int mount_layer(struct filesystem *fs, struct dentry *dir, struct vfs_path *ret)
{
	ret->dentry = dir;
	return mount_create_internal(fs, dir, &ret->mount);
}

/* A layer of the top: its two directories, the first with the attributes of what is below if it is new. */
static int make_top(const struct vfs_path *top, const struct vfs_path *bottom,
		    const struct cred *cred, struct vfs_path *upper, struct vfs_path *work)
{
	int made = make_dir(top, cred, "upper", upper);
	int err = made < 0 ? made : make_dir(top, cred, "work", work);

	if (err < 0)
		return err;
	return made ? copy_root_attributes(cred, bottom, upper) : 0;
}

int overlay_create_over(struct filesystem *lower_fs, struct dentry *lower,
			const struct overlay_top *over, struct filesystem **ret_fs,
			struct dentry **ret_root)
{
	struct memfs_options opts = {.mode = 0755};
	struct overlay_config config = {
		.userxattr = over->userxattr,
		/* As mount(2) has it: who may write user.* attributes is no mounter. */
		.redirect = over->userxattr ? REDIRECT_NOFOLLOW : REDIRECT_FOLLOW};
	struct vfs_path top = {0}, bottom = {0}, upper = {0}, work = {0};
	const struct cred *cred, *was = cred_current();
	struct filesystem *mem = NULL;
	struct dentry *mem_root = NULL;
	int err = root_cred(&cred);

	if (err)
		return err;
	if (!over->fs)
		err = memfs_create_fs("overlay", &opts, &mem, &mem_root);
	if (err)
		goto out_cred;
	cred_set_current(cred);
	err = mount_layer(mem ? mem : over->fs, mem ? mem_root : over->dir, &top);
	if (!err)
		err = mount_layer(lower_fs, lower, &bottom);
	if (!err)
		err = make_top(&top, &bottom, cred, &upper, &work);
	if (!err) {
		struct layer_set set = {upper, work, &bottom, 1};

		err = create(&set, &config, "overlay", cred, ret_fs, ret_root);
	}
	cred_set_current(was);
	if (upper.dentry)
		vfs_path_unref(&upper);
	if (work.dentry)
		vfs_path_unref(&work);
	if (bottom.mount)
		mount_unref(bottom.mount);
	if (top.mount)
		mount_unref(top.mount);
	if (mem) {
		dentry_unref(mem_root);
		filesystem_unref(mem);
	}
out_cred:
	cred_unref(cred);
	return err;
}
