/*
 * sentry/boot/boot_mounts.c - the container's tree: root, mounts of the configuration, /dev, masked and read-only paths.
 *
 * Everything is done with full credentials through the VFS's own mount operations, as runc does it through the host's.
 * A missing mount point is made, where the tree can be written.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/sysctl.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/overlay/overlay.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "sentry/boot/internal.h"

#define MS_PROPAGATION (MS_SHARED | MS_SLAVE | MS_PRIVATE | MS_UNBINDABLE)

struct vfs_lookup boot_lookup(struct boot_container *b, const char *path, unsigned flags)
{
	return (struct vfs_lookup){.cred = b->root_cred,
				   .ns = b->ns,
				   .root = b->root,
				   .start = b->root,
				   .path = path,
				   .flags = flags};
}

void boot_emit_request(void *arg, const char *what, uint64_t id, int64_t age_ns)
{
	buf_printf(arg, "  %-24s %llu for %lld us\n", what ? what : "?", (unsigned long long)id,
		   (long long)(age_ns / 1000));
}

static void show_requests(struct boot_container *b, void *arg)
{
	struct buf *out = arg;

	buf_printf(out, "requests to the gofer%s%.100s:\n", b->first ? "" : " of ",
		   b->first ? "" : b->spec.id);
	p9_conn_in_flight(b->gofer, boot_emit_request, out);
	boot_show_devices(b, out);
}

void boot_show_requests(struct buf *out)
{
	boot_for_each(show_requests, out);
}

static unsigned mount_flags(uint64_t ms)
{
	return (ms & MS_RDONLY ? MNT_RDONLY_F : 0) | (ms & MS_NOSUID ? MNT_NOSUID_F : 0) |
	       (ms & MS_NODEV ? MNT_NODEV_F : 0) | (ms & MS_NOEXEC ? MNT_NOEXEC_F : 0) |
	       (ms & MS_NOATIME ? MNT_NOATIME_F : 0) | (ms & MS_NODIRATIME ? MNT_NODIRATIME_F : 0) |
	       (ms & (MS_STRICTATIME | MS_NOATIME) ? 0 : MNT_RELATIME_F);
}

static int virtiofs_root(struct boot_container *b, struct filesystem **ret_fs,
			 struct dentry **ret_root)
{
	const struct virtiofs_options options = {
		.timeout_ns = -1,
		.readonly = b->spec.rootfs_overlay || b->spec.rootfs_readonly,
	};
	int err = virtiofs_create(boot_root_device(b), &options, "rootfs", ret_fs, ret_root);

	return err ? boot_fail(&b->error, 1, "root filesystem: virtio-fs device %s: %s",
			       b->spec.virtiofs[0], strerror(-err))
		   : 0;
}

static int gofer_root(struct boot_container *b, struct filesystem **ret_fs,
		      struct dentry **ret_root)
{
	const struct gofer_mount_args args = {
		.conn = b->gofer,
		.attach = 0,
		.source = "rootfs",
		.readonly = b->spec.rootfs_overlay || b->spec.rootfs_readonly,
	};
	int err = gofer_fs_create(&args, ret_fs, ret_root);

	return err ? boot_fail(&b->error, 1, "root filesystem: the gofer does not serve it: %s",
			       strerror(-err))
		   : 0;
}

/* Replaces both references, by an overlay's over them: BOOT_OVERLAY_MEMORY, or a directory of the host's that the gofer serves. NULL on error. */
static int put_overlay(struct boot_container *b, unsigned overlay, struct filesystem **fs,
		       struct dentry **root)
{
	const struct gofer_mount_args args = {
		.conn = b->gofer, .attach = overlay - BOOT_OVERLAY_DIR(0), .source = "overlay"};
	struct overlay_top top = {0};
	struct filesystem *over_fs = NULL;
	struct dentry *over = NULL;
	int err = 0;

	if (overlay != BOOT_OVERLAY_MEMORY) {
		/* The gofer has no CAP_SYS_ADMIN on the host, which trusted.* wants. */
		top.userxattr = true;
		err = gofer_fs_create(&args, &top.fs, &top.dir);
	}
	if (!err)
		err = overlay_create_over(*fs, *root, &top, &over_fs, &over);
	if (top.fs) {
		dentry_unref(top.dir);
		filesystem_unref(top.fs);
	}
	dentry_unref(*root);
	filesystem_unref(*fs);
	*fs = over_fs;
	*root = over;
	return err;
}

int boot_make_root(struct boot_container *b)
{
	struct filesystem *fs;
	struct dentry *root;
	/* One with an overlay is writable until its mount points are there. */
	bool readonly = b->spec.rootfs_readonly && !b->spec.rootfs_overlay;
	unsigned flags = MNT_RELATIME_F | (readonly ? MNT_RDONLY_F : 0);
	int err;

	err = cred_create_root(&b->root_cred);
	if (err)
		return boot_fail(&b->error, 1, "root filesystem: %s", strerror(-err));
	cred_set_current(b->root_cred);
	err = p9_conn_create(b->spec.gofer_fd, &b->gofer);
	b->spec.gofer_fd = -1;
	if (err)
		return boot_fail(&b->error, 1, "the gofer does not answer: %s", strerror(-err));
	err = b->spec.rootfs == BOOT_ROOTFS_VIRTIOFS ? virtiofs_root(b, &fs, &root)
						     : gofer_root(b, &fs, &root);
	if (err)
		return err;
	if (b->spec.rootfs_overlay)
		err = put_overlay(b, b->spec.rootfs_overlay, &fs, &root);
	if (err)
		return boot_fail(&b->error, 1, "root filesystem: overlay: %s", strerror(-err));
	err = mount_namespace_create(fs, root, flags, &b->ns);
	dentry_unref(root);
	filesystem_unref(fs);
	if (err)
		return boot_fail(&b->error, 1, "root filesystem: %s", strerror(-err));
	if (b->first)
		kernel.mnt_ns = b->ns;
	mount_namespace_root(b->ns, &b->root);
	return 0;
}

/* mkdir -p of path's directories, without the last component. */
static int make_mountpoint_parents(struct boot_container *b, const char *path)
{
	char *copy = strdup(path);
	int err = 0;

	if (!copy)
		return -ENOMEM;
	for (char *p = copy + 1; !err && *p; p++) {
		if (*p != '/')
			continue;
		*p = '\0';
		struct vfs_lookup lk = boot_lookup(b, copy, 0);
		err = vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755});
		*p = '/';
		if (err == -EEXIST || err == -EROFS)
			err = 0;
	}
	free(copy);
	return err;
}

/* The same, and the last component as a directory or an empty file. -EEXIST is fine. */
static int make_mountpoint(struct boot_container *b, const char *path, bool is_file)
{
	int err = make_mountpoint_parents(b, path);

	if (!err) {
		struct vfs_lookup lk = boot_lookup(b, path, 0);

		err = is_file ? vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFREG | 0644})
			      : vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755});
		if (err == -EEXIST)
			err = 0;
	}
	return err;
}

static bool path_exists(struct boot_container *b, const char *path)
{
	struct vfs_lookup lk = boot_lookup(b, path, LOOKUP_FOLLOW);
	struct vfs_path p;

	if (vfs_get_path(&lk, &p))
		return false;
	vfs_path_unref(&p);
	return true;
}

static int mount_bind(struct boot_container *b, const struct boot_mount *m,
		      const struct vfs_lookup *target)
{
	struct filesystem *fs;
	struct dentry *root;
	struct gofer_mount_args args = {.conn = b->gofer,
					.attach = (unsigned)m->attach,
					.shared = !m->overlay,
					.readonly = m->overlay || m->flags & MS_RDONLY,
					.host_fifo = b->spec.host_fifo,
					.uds_open = !m->overlay && b->spec.host_uds & BOOT_UDS_OPEN,
					.uds_create =
						!m->overlay && b->spec.host_uds & BOOT_UDS_CREATE,
					.source = m->source};
	int err = gofer_fs_create(&args, &fs, &root);

	if (!err && m->overlay)
		err = put_overlay(b, m->overlay, &fs, &root);
	if (err)
		return err;
	err = vfs_mount_fs(target, fs, root, mount_flags(m->flags));
	dentry_unref(root);
	filesystem_unref(fs);
	return err;
}

/* Writable until the copy is there. A mode of its own wins over the covered directory's. */
static int mount_copied_up(struct boot_container *b, const struct boot_mount *m,
			   const struct vfs_lookup *target)
{
	struct vfs_path covered;
	int err = vfs_get_path(target, &covered);

	if (err)
		return err;
	err = vfs_mount_new(target, "tmpfs", m->source, m->flags & ~(uint64_t)MS_RDONLY, m->data,
			    NULL);
	if (!err)
		err = boot_copy_up(b, &covered, m->destination, strstr(m->data, "mode=") != NULL);
	if (!err && (m->flags & MS_RDONLY))
		err = vfs_remount(target, m->flags | MS_REMOUNT | MS_BIND, NULL, false);
	vfs_path_unref(&covered);
	return err;
}

/* As runc: a directory that was there keeps its mode, unless the options say another. */
static int mount_tmpfs(const struct boot_mount *m, const struct vfs_lookup *target, bool existed)
{
	const char *options = m->data ? m->data : "";
	struct moat_statx covered;
	char *data;
	int err;

	if (!existed || strstr(options, "mode="))
		return vfs_mount_new(target, "tmpfs", m->source, m->flags, m->data, NULL);
	err = vfs_stat(target, &(struct stat_args){.mask = 0x7ff}, &covered);
	if (err)
		return err;
	if (asprintf(&data, "mode=%o%s%s", covered.mode & 07777, *options ? "," : "", options) < 0)
		return -ENOMEM;
	err = vfs_mount_new(target, "tmpfs", m->source, m->flags, data, NULL);
	free(data);
	return err;
}

/* Flags of mount(2); none: as it is. */
static int set_propagation(struct vfs_lookup *target, uint64_t flags)
{
	enum mount_propagation prop = flags & MS_SHARED	      ? PROP_SHARED
				      : flags & MS_SLAVE      ? PROP_SLAVE
				      : flags & MS_UNBINDABLE ? PROP_UNBINDABLE
							      : PROP_PRIVATE;

	return flags & MS_PROPAGATION ? vfs_set_propagation(target, prop, flags & MS_REC) : 0;
}

static int mount_one(struct boot_container *b, const struct boot_mount *m)
{
	struct vfs_lookup target = boot_lookup(b, m->destination, LOOKUP_FOLLOW);
	const char *type = m->type;
	bool existed = path_exists(b, m->destination);
	int err;

	if (!existed) {
		err = make_mountpoint(b, m->destination, m->is_file);
		if (err)
			return boot_fail(&b->error, 1, "mount %s: making the mount point: %s",
					 m->destination, strerror(-err));
	}
	/* The unified hierarchy, whatever the host has: sentry/fs/cgroup.c. */
	if (strcmp(type, "cgroup") == 0 || strcmp(type, "cgroup2") == 0)
		err = vfs_mount_new(&target, "cgroup2", m->source, m->flags, NULL, NULL);
	else if (m->attach >= 0)
		err = mount_bind(b, m, &target);
	else if (strcmp(type, "tmpfs") == 0 && m->data && boot_take_option(m->data, "tmpcopyup"))
		err = mount_copied_up(b, m, &target);
	else if (strcmp(type, "tmpfs") == 0)
		err = mount_tmpfs(m, &target, existed);
	else
		err = vfs_mount_new(&target, type, m->source, m->flags, m->data, NULL);
	if (!err)
		err = set_propagation(&target, m->propagation);
	if (err)
		return boot_fail(&b->error, 1, "mount %s (type %s%s%s): %s", m->destination,
				 m->type, m->data ? ", options " : "", m->data ? m->data : "",
				 strerror(-err));
	return 0;
}

struct device {
	const char *path;
	unsigned major, minor;
};

static const struct device devices[] = {
	{"/dev/null", 1, 3},   {"/dev/zero", 1, 5},    {"/dev/full", 1, 7},
	{"/dev/random", 1, 8}, {"/dev/urandom", 1, 9}, {"/dev/tty", 5, 0},
};

static const char *const dev_links[][2] = {
	{"/dev/fd", "/proc/self/fd"},	    {"/dev/stdin", "/proc/self/fd/0"},
	{"/dev/stdout", "/proc/self/fd/1"}, {"/dev/stderr", "/proc/self/fd/2"},
	{"/dev/ptmx", "pts/ptmx"},
};

/* Default devices of the OCI specification, in whatever is mounted on /dev. */
static int make_devices(struct boot_container *b)
{
	int err = 0;

	if (!path_exists(b, "/dev"))
		return 0;
	for (size_t i = 0; !err && i < ARRAY_SIZE(devices); i++) {
		struct vfs_lookup lk = boot_lookup(b, devices[i].path, 0);

		err = vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFCHR | 0666,
							  .rdev_major = devices[i].major,
							  .rdev_minor = devices[i].minor});
		if (err == -EEXIST || err == -EROFS || err == -EPERM)
			err = 0;
	}
	for (size_t i = 0; !err && i < ARRAY_SIZE(dev_links); i++) {
		struct vfs_lookup lk = boot_lookup(b, dev_links[i][0], 0);

		err = vfs_symlink(&lk, dev_links[i][1]);
		if (err == -EEXIST || err == -EROFS)
			err = 0;
	}
	if (!err && b->spec.terminal) {
		struct vfs_lookup lk = boot_lookup(b, "/dev/console", 0);

		err = vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFCHR | 0620,
							  .rdev_major = 5,
							  .rdev_minor = 1});
		if (err == -EEXIST || err == -EROFS)
			err = 0;
	}
	return err ? boot_fail(&b->error, 1, "devices in /dev: %s", strerror(-err)) : 0;
}

/* Nothing can be read there any more: /dev/null over a file, an empty read-only tmpfs over a directory. */
static int mask_path(struct boot_container *b, const char *path)
{
	struct vfs_lookup target = boot_lookup(b, path, LOOKUP_FOLLOW),
			  null = boot_lookup(b, "/dev/null", LOOKUP_FOLLOW);
	struct moat_statx st;
	int err = vfs_stat(&target, &(struct stat_args){.mask = 0x7ff}, &st);

	if (err)
		return err == -ENOENT || err == -ENOTDIR ? 0 : err;
	if (S_ISDIR(st.mode))
		return vfs_mount_new(&target, "tmpfs", "tmpfs", MS_RDONLY, "size=0", NULL);
	return vfs_bind(&null, &target, false);
}

/* The mount below keeps what else it forbids. */
static int readonly_path(struct boot_container *b, const char *path)
{
	struct vfs_lookup lk = boot_lookup(b, path, LOOKUP_FOLLOW);
	unsigned long flags = MS_RDONLY | MS_BIND | MS_REMOUNT;
	struct vfs_path at;
	unsigned old;
	int err;

	if (!path_exists(b, path))
		return 0;
	err = vfs_bind(&lk, &lk, true);
	if (!err)
		err = vfs_get_path(&lk, &at);
	if (err)
		return err;
	old = atomic_load_explicit(&at.mount->flags, memory_order_relaxed);
	vfs_path_unref(&at);
	flags |= old & MNT_NOSUID_F ? MS_NOSUID : 0;
	flags |= old & MNT_NODEV_F ? MS_NODEV : 0;
	flags |= old & MNT_NOEXEC_F ? MS_NOEXEC : 0;
	return vfs_remount(&lk, flags, NULL, true);
}

/* linux.devices: "c MAJOR MINOR MODE UID GID PATH". What has no driver here is there and answers ENXIO, as a device that was pulled. */
static int make_device(struct boot_container *b, const char *line)
{
	unsigned major, minor, mode, uid, gid;
	struct moat_statx st;
	struct vfs_lookup lk;
	int path_at = -1, err;
	char type;

	if (sscanf(line, "%c %u %u %o %u %u %n", &type, &major, &minor, &mode, &uid, &gid,
		   &path_at) < 6 ||
	    path_at < 0 || line[path_at] != '/')
		return -EINVAL;
	lk = boot_lookup(b, line + path_at, LOOKUP_FOLLOW);
	if (vfs_stat(&lk, &(struct stat_args){.mask = 0x7ff}, &st) == 0)
		return 0;
	err = make_mountpoint_parents(b, line + path_at);
	if (err)
		return err;
	lk.flags = 0;
	err = vfs_mknod(&lk, &(struct mknod_args){.mode = (type == 'p'	 ? S_IFIFO
							   : type == 'b' ? S_IFBLK
									 : S_IFCHR) |
							  (mode & 07777),
						  .rdev_major = major,
						  .rdev_minor = minor});
	if (!err && (uid || gid))
		err = vfs_set_stat(&lk, &(struct setattr_args){.valid = SETATTR_UID | SETATTR_GID,
							       .uid = uid,
							       .gid = gid});
	return err == -EEXIST || err == -EROFS ? 0 : err;
}

/* linux.sysctl, as `sysctl -w` would: through /proc/sys, whose handlers check the value. */
static int write_sysctl(struct boot_container *b, const char *assignment)
{
	const char *eq = strchr(assignment, '=');
	struct open_args oa = {.flags = O_WRONLY};
	struct io_iter it;
	char path[256];
	struct file *f;
	int64_t off = 0;
	ssize_t n;
	int len, err;

	if (!eq)
		return -EINVAL;
	len = snprintf(path, sizeof(path), "/proc/sys/%.*s", (int)(eq - assignment), assignment);
	if (len < 0 || (size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	/* Dots separate, slashes are part of a name that has dots (net.ipv4.conf.eth0/1...). */
	for (char *p = path + strlen("/proc/sys/"); *p; p++)
		*p = *p == '.' ? '/' : *p == '/' ? '.' : *p;
	struct vfs_lookup lk = boot_lookup(b, path, LOOKUP_FOLLOW);

	err = vfs_open(&lk, &oa, &f);
	if (err)
		return err;
	io_iter_init_kernel(&it, (char *)eq + 1, strlen(eq + 1), false);
	n = f->ops->write_iter(f, &it, &off, 0);
	io_iter_fini(&it);
	file_unref(f);
	return n < 0 ? (int)n : 0;
}

/* As runc: an image need not have its working directory. What cannot be made is told where it is entered. Not for moat do, whose caller named a directory of the host's. */
static void make_cwd(struct boot_container *b)
{
	const char *cwd = b->spec.cwd;
	int err = b->spec.killable_init || !cwd || path_exists(b, cwd)
			  ? 0
			  : make_mountpoint(b, cwd, false);

	if (err)
		log_debug("container %s: %s: %s", b->spec.id, cwd, strerror(-err));
}

int boot_make_mounts(struct boot_container *b)
{
	bool dev_done = false;

	for (unsigned i = 0; i < b->spec.nmounts; i++) {
		if (mount_one(b, &b->spec.mounts[i]))
			return -1;
		/* Right after /dev, since mounts below it may need the directory only. */
		if (strcmp(b->spec.mounts[i].destination, "/dev") == 0 && !dev_done) {
			if (make_devices(b))
				return -1;
			dev_done = true;
		}
	}
	for (char **p = b->spec.devices; p && *p; p++) {
		int err = make_device(b, *p);

		if (err)
			return boot_fail(&b->error, 1, "linux.devices: %s: %s", *p, strerror(-err));
	}
	for (char **p = b->spec.sysctls; p && *p; p++) {
		int err = sysctl_is_network(*p) ? 0 : write_sysctl(b, *p);

		if (err)
			return boot_fail(&b->error, 1, "linux.sysctl: %s: %s", *p, strerror(-err));
	}
	for (char **p = b->spec.masked_paths; p && *p; p++) {
		int err = mask_path(b, *p);

		if (err)
			return boot_fail(&b->error, 1, "maskedPaths: %s: %s", *p, strerror(-err));
	}
	for (char **p = b->spec.readonly_paths; p && *p; p++) {
		int err = readonly_path(b, *p);

		if (err)
			return boot_fail(&b->error, 1, "readonlyPaths: %s: %s", *p, strerror(-err));
	}
	make_cwd(b);
	/* Last: nothing that is unbindable can be made read-only in part. */
	struct vfs_lookup root = boot_lookup(b, "/", LOOKUP_FOLLOW);
	int err = set_propagation(&root, b->spec.rootfs_propagation);

	if (!err && b->spec.rootfs_readonly && b->spec.rootfs_overlay) {
		err = vfs_remount(&root, MS_RDONLY | MS_BIND | MS_REMOUNT, NULL, false);
		if (err)
			return boot_fail(&b->error, 1, "root filesystem: read-only: %s",
					 strerror(-err));
	}
	return err ? boot_fail(&b->error, 1, "linux.rootfsPropagation: %s", strerror(-err)) : 0;
}
