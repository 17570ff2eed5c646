/*
 * fsimpl/memfs/memfs.c - tmpfs in the sentry's memory.
 *
 * Organisation: a dentry per name (embedding struct dentry, found by hash in its directory), an inode per file behind it. Directories
 * (dir.c), walks (walk.c), attributes (inode.c), path operations (ops.c, open.c, rename.c, xattr.c), data (data.c, map.c, file.c).
 * Data lies in the sandbox's private memory file, so what a program maps is what read(2) copies.
 *
 * Performance: walks take no lock and write nothing shared; a directory's lock is for changes. An empty file costs an inode and a
 * dentry of about 130 bytes each; a directory's table doubles, its entries are in a tree for getdents. Data is allocated in 64 KiB chunks,
 * of which only the pages written to have memory behind them.
 *
 * Lives: the tree holds one reference on each linked dentry; a dentry holds its parent and its inode; an open file or a mount holds a
 * dentry. What lock-free readers may see is freed after an RCU grace period.
 *
 * Watch: statfs(2), and reference types "memfs inode", "dentry".
 * Cannot do: quotas, huge pages, swap, NUMA policies (their options are hints here: hints.c), casefold.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>

#include "fsimpl/memfs/internal.h"
#include "vfs/fs_config.h"

#define TMPFS_MAGIC_NUMBER 0x01021994
#define RAMFS_MAGIC_NUMBER 0x858458f6

static struct filesystem_type tmpfs_type, ramfs_type;
static struct mount *internal_mount;

/* ---- options ---- */

struct memfs_parsed {
	struct memfs_options o;
	bool size_given, inodes_given, mode_given, uid_given, gid_given;
	bool huge_given, policy_given, noswap;
	uint8_t huge, policy;
};

/* memparse(): a number with k, m, g, t, p, e. */
static int parse_size(const char *s, const char *end, uint64_t *ret)
{
	static const char units[] = "kmgtpe";
	char *stop;
	uint64_t v;
	const char *unit;

	if (s == end || !isdigit((unsigned char)*s))
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &stop, 0);
	if (errno)
		return -EINVAL;
	if (stop < end) {
		unit = strchr(units, tolower((unsigned char)*stop));
		if (unit && *stop) {
			unsigned shift = 10 * (unsigned)(unit - units + 1);

			if (v >> (64 - shift))
				return -EINVAL;
			v <<= shift;
			stop++;
		}
	}
	*ret = v;
	return stop == end ? 0 : -EINVAL;
}

static uint64_t ram_bytes(void)
{
	struct sysinfo si;

	return sysinfo(&si) ? 1ull << 30 : (uint64_t)si.totalram * si.mem_unit;
}

static int parse_size_option(const char *v, const char *end, uint64_t *ret)
{
	uint64_t percent;

	if (end > v && end[-1] == '%') {
		if (parse_size(v, end - 1, &percent) || percent > 1000)
			return -EINVAL;
		*ret = ram_bytes() / 100 * percent;
		return 0;
	}
	return parse_size(v, end, ret);
}

static int parse_number(const char *v, const char *end, int base, uint32_t *ret)
{
	char *stop;
	unsigned long n;

	if (v == end)
		return -EINVAL;
	errno = 0;
	n = strtoul(v, &stop, base);
	if (errno || stop != end || n > UINT32_MAX)
		return -EINVAL;
	*ret = (uint32_t)n;
	return 0;
}

static bool key_is(const char *s, size_t len, const char *key)
{
	return strlen(key) == len && !strncmp(s, key, len);
}

static int parse_option(const char *s, const char *end, struct memfs_parsed *p)
{
	const char *eq = memchr(s, '=', (size_t)(end - s)), *v = eq ? eq + 1 : end;
	size_t len = (size_t)((eq ? eq : end) - s);
	uint64_t n;
	int err;

	if (key_is(s, len, "size")) {
		err = parse_size_option(v, end, &p->o.size_max);
		p->size_given = true;
	} else if (key_is(s, len, "nr_blocks")) {
		err = parse_size(v, end, &n);
		if (!err && n > UINT64_MAX >> MOAT_PAGE_SHIFT)
			err = -EINVAL;
		if (!err)
			p->o.size_max = n << MOAT_PAGE_SHIFT;
		p->size_given = true;
	} else if (key_is(s, len, "nr_inodes")) {
		err = parse_size(v, end, &p->o.inodes_max);
		p->inodes_given = true;
	} else if (key_is(s, len, "mode")) {
		err = parse_number(v, end, 8, &p->o.mode);
		p->o.mode &= 07777;
		p->mode_given = true;
	} else if (key_is(s, len, "uid")) {
		err = parse_number(v, end, 0, &p->o.uid);
		p->uid_given = true;
	} else if (key_is(s, len, "gid")) {
		err = parse_number(v, end, 0, &p->o.gid);
		p->gid_given = true;
	} else if (key_is(s, len, "huge")) {
		err = memfs_parse_huge(v, end, &p->huge);
		p->huge_given = true;
	} else if (key_is(s, len, "mpol")) {
		err = memfs_parse_policy(v, end, &p->policy);
		p->policy_given = true;
	} else if (key_is(s, len, "noswap")) {
		err = 0;
		p->noswap = true;
	} else if (key_is(s, len, "inode64") || key_is(s, len, "inode32")) {
		err = 0;
	} else {
		err = -EINVAL;
	}
	return err;
}

static int parse_options(const char *data, struct memfs_parsed *p)
{
	const char *s = data, *end;
	int err = 0;

	while (s && *s && !err) {
		end = strchrnul(s, ',');
		if (end > s)
			err = parse_option(s, end, p);
		s = *end ? end + 1 : end;
	}
	return err;
}

/* ---- filesystems ---- */

static uint64_t pages_of(uint64_t bytes)
{
	return bytes ? (bytes + MOAT_PAGE_SIZE - 1) >> MOAT_PAGE_SHIFT : 0;
}

static int memfs_create(const struct filesystem_type *type, uint64_t magic, const char *source,
			const struct memfs_parsed *p, struct filesystem **ret_fs,
			struct dentry **ret_root)
{
	struct memfs_fs *fs = aligned_alloc(_Alignof(struct memfs_fs), sizeof(*fs));
	struct memfs_inode *inode;
	struct cred *cred;
	struct memfs_new how;
	int err;

	if (!fs)
		return -ENOMEM;
	memset(fs, 0, sizeof(*fs));
	err = filesystem_init(&fs->fs, type, &memfs_ops, source);
	if (err) {
		free(fs);
		return err;
	}
	fs->fs.magic = magic;
	memfs_account_init(fs, pages_of(p->o.size_max), p->o.inodes_max);
	fs->show_size = p->size_given;
	fs->show_inodes = p->inodes_given;
	fs->mode_given = p->mode_given;
	fs->uid_given = p->uid_given;
	fs->gid_given = p->gid_given;
	fs->noswap = p->noswap;
	fs->huge = p->huge;
	fs->policy = p->policy;
	fs->root_mode = p->o.mode;
	fs->root_uid = p->o.uid;
	fs->root_gid = p->o.gid;
	err = cred_create_root(&cred);
	if (err)
		goto out_fs;
	how = (struct memfs_new){.mode = S_IFDIR | p->o.mode, .cred = cred};
	err = memfs_inode_create(fs, &how, &inode);
	cred_unref(cred);
	if (err)
		goto out_fs;
	atomic_store_explicit(&inode->uid, p->o.uid, memory_order_relaxed);
	atomic_store_explicit(&inode->gid, p->o.gid, memory_order_relaxed);
	err = memfs_dentry_create(fs, NULL, "", 0, inode, &fs->root);
	if (err) {
		memfs_inode_unref(inode);
		goto out_fs;
	}
	dentry_ref(&fs->root->d);
	*ret_fs = &fs->fs;
	*ret_root = &fs->root->d;
	return 0;
out_fs:
	filesystem_unref(&fs->fs);
	return err;
}

static void fs_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct memfs_fs, rcu));
}

void memfs_release(struct filesystem *fs)
{
	struct memfs_fs *mfs = memfs_of(fs);

	if (mfs->root)
		memfs_tree_destroy(mfs);
	filesystem_fini(fs);
	rcu_call(&mfs->rcu, fs_free_cb);
}

int memfs_create_fs(const char *source, const struct memfs_options *opts,
		    struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct memfs_parsed p = {.o = *opts, .size_given = opts->size_max != 0};
	int err;

	err = memfs_create(&tmpfs_type, TMPFS_MAGIC_NUMBER, source, &p, ret_fs, ret_root);
	/* Programs take 0 of 0 blocks for a full disk: a root without a limit shows the machine's memory. */
	if (!err && !opts->size_max)
		memfs_of(*ret_fs)->nominal_pages = pages_of(ram_bytes());
	return err;
}

static int tmpfs_mount(const struct filesystem_type *type, const char *source,
		       unsigned ms_flags unused_arg, const char *data, void *kernel_data unused_arg,
		       struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct memfs_parsed p = {.o = {.size_max = ram_bytes() / 2,
				       .inodes_max = ram_bytes() / 2 / MOAT_PAGE_SIZE,
				       .mode = 01777}};
	int err = parse_options(data, &p);

	if (err)
		return err;
	return memfs_create(type, TMPFS_MAGIC_NUMBER, source, &p, ret_fs, ret_root);
}

static int ramfs_mount(const struct filesystem_type *type, const char *source,
		       unsigned ms_flags unused_arg, const char *data, void *kernel_data unused_arg,
		       struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct memfs_parsed p = {.o = {.mode = 0755}};
	int err = parse_options(data, &p);

	if (err)
		return err;
	p.o.size_max = 0;
	p.o.inodes_max = 0;
	return memfs_create(type, RAMFS_MAGIC_NUMBER, source, &p, ret_fs, ret_root);
}

int memfs_remount(struct filesystem *fs, unsigned ms_flags unused_arg, const char *data)
{
	struct memfs_fs *mfs = memfs_of(fs);
	struct memfs_parsed p = {0};
	int err = parse_options(data, &p);

	if (err)
		return err;
	if (p.noswap && !mfs->noswap)
		return -EINVAL;
	/* Limits may change, but not below what is in use, nor between limited and unlimited. */
	if (p.size_given) {
		err = memfs_limit_change(mfs, MEMFS_PAGES, pages_of(p.o.size_max));
		if (err)
			return err;
		mfs->show_size = true;
	}
	if (p.inodes_given) {
		err = memfs_limit_change(mfs, MEMFS_INODES, p.o.inodes_max);
		if (err)
			return err;
		mfs->show_inodes = true;
	}
	if (p.huge_given)
		atomic_store_explicit(&mfs->huge, p.huge, memory_order_relaxed);
	/* There is no way back to the task's own policy. */
	if (p.policy_given && p.policy)
		atomic_store_explicit(&mfs->policy, p.policy, memory_order_relaxed);
	return 0;
}

/* In shmem_show_options()'s order. */
void memfs_show_options(struct filesystem *fs, struct buf *b)
{
	struct memfs_fs *mfs = memfs_of(fs);

	if (fs->type == &ramfs_type) {
		if (mfs->mode_given)
			buf_printf(b, ",mode=%o", mfs->root_mode);
		return;
	}
	if (mfs->show_size)
		buf_printf(b, ",size=%lluk",
			   (unsigned long long)memfs_limit(mfs, MEMFS_PAGES) *
				   (MOAT_PAGE_SIZE / 1024));
	if (mfs->show_inodes)
		buf_printf(b, ",nr_inodes=%llu",
			   (unsigned long long)memfs_limit(mfs, MEMFS_INODES));
	if (mfs->root_mode != 01777)
		buf_printf(b, ",mode=%03o", mfs->root_mode);
	if (mfs->root_uid)
		buf_printf(b, ",uid=%u", mfs->root_uid);
	if (mfs->root_gid)
		buf_printf(b, ",gid=%u", mfs->root_gid);
	buf_puts(b, ",inode64");
	memfs_show_hints(mfs, b);
}

static const struct fs_param_spec memfs_params[] = {
	{"size", FS_SPEC_SIZE},
	{"nr_blocks", FS_SPEC_SIZE},
	{"nr_inodes", FS_SPEC_SIZE},
	{"mode", FS_SPEC_U32_OCT},
	{"uid", FS_SPEC_U32},
	{"gid", FS_SPEC_U32},
	{"huge", FS_SPEC_STRING, memfs_huge_fits},
	{"mpol", FS_SPEC_STRING, memfs_policy_fits},
	{"inode32", FS_SPEC_FLAG},
	{"inode64", FS_SPEC_FLAG},
	{"noswap", FS_SPEC_FLAG},
	{0},
};

static struct filesystem_type tmpfs_type = {
	.name = "tmpfs",
	.flags = FS_NODEV | FS_USERNS_MOUNT | FS_RCU_WALK | FS_PATH_CACHE | FS_HANDLES |
		 FS_KEEP_REFS,
	.params = memfs_params,
	.mount = tmpfs_mount,
	.ops = &memfs_ops,
};

static struct filesystem_type ramfs_type = {
	.name = "ramfs",
	.flags = FS_NODEV | FS_USERNS_MOUNT | FS_RCU_WALK | FS_PATH_CACHE | FS_KEEP_REFS,
	.mount = ramfs_mount,
	.ops = &memfs_ops,
};

int memfs_register(void)
{
	struct memfs_options opts = {.mode = 0700};
	struct filesystem *fs;
	struct dentry *root;
	int err;

	if (internal_mount)
		return 0;
	vfs_register_type(&tmpfs_type);
	vfs_register_type(&ramfs_type);
	err = memfs_create_fs("tmpfs", &opts, &fs, &root);
	if (err)
		return err;
	err = mount_create_internal(fs, root, &internal_mount);
	dentry_unref(root);
	filesystem_unref(fs);
	return err;
}

struct mount *memfs_internal_mount(void)
{
	return internal_mount;
}
