/*
 * runtime/view.c - the monitor's mount namespace: the container's tree as the host can show it.
 *
 * Engines enter the mount namespace of the pid that they were told (podman cp, podman top). It must be the container's, never the
 * host's: the root filesystem, with the configuration's bind mounts in their places, and a /proc with one process, the monitor.
 * What only the guest has (its tmpfs, mounts of its own) is not there. Made when the sandbox is up, since the sentry makes the mount points.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/sandbox.h"

/* A place in the tree below `root`, with the image's symbolic links resolved inside it. */
static int open_inside(int root, const char *path)
{
	struct open_how how = {.flags = O_PATH | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT};

	return (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
}

/* Is `path` below (or at) the destination of one of the first `count` mounts? Then it is made there. */
static bool covered_by_mount(const struct boot_spec *s, const char *path, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		size_t n = strlen(s->mounts[i].destination);

		if (strncmp(path, s->mounts[i].destination, n) == 0 &&
		    (path[n] == '/' || path[n] == '\0'))
			return true;
	}
	return false;
}

/* mkdir -p below root; the last component as a directory or an empty file. */
static void make_inside(int root, const char *path, bool is_file)
{
	char prefix[4200];
	size_t at = 0;

	while (path[at]) {
		size_t len = strspn(path + at, "/"), name = at + len;
		int fd, dir;
		bool last;

		len += strcspn(path + name, "/");
		last = path[at + len + strspn(path + at + len, "/")] == '\0';
		if (at + len >= sizeof(prefix) || path[name] == '\0')
			return;
		snprintf(prefix, sizeof(prefix), "%.*s", (int)(at + len), path);
		fd = open_inside(root, prefix);
		if (fd < 0 && errno == ENOENT) {
			prefix[name] = '\0';
			dir = open_inside(root, *prefix ? prefix : "/");
			snprintf(prefix, sizeof(prefix), "%.*s", (int)(at + len - name),
				 path + name);
			if (dir < 0)
				return;
			if (last && is_file)
				fd = openat(dir, prefix, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC,
					    0644);
			else if (mkdirat(dir, prefix, 0755) < 0)
				cli_debug("mount point %s: %m", path);
			close(dir);
		}
		if (fd >= 0)
			close(fd);
		at += len;
	}
}

/* A tmpfs has the mode of the directory that it covers; one that is made for it is no such. */
static void keep_tmpfs_mode(int root, struct boot_mount *m)
{
	const char *options = m->data ? m->data : "";
	auto_close int there = -1;
	char *data;

	if (strcmp(m->type, "tmpfs") != 0 || strstr(options, "mode=") ||
	    strstr(options, "tmpcopyup"))
		return;
	there = open_inside(root, m->destination);
	if (there >= 0 || asprintf(&data, "mode=1777%s%s", *options ? "," : "", options) < 0)
		return;
	free(m->data);
	m->data = data;
}

void view_make_mountpoints(struct oci_config *c)
{
	struct boot_spec *s = &c->spec;
	int root;

	/* Those of an overlay are made in it. */
	if (!s->rootfs_readonly || s->rootfs_overlay || s->rootfs != BOOT_ROOTFS_GOFER)
		return;
	root = open(c->attaches[0].host_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return;
	for (unsigned i = 0; i < s->nmounts; i++)
		if (!covered_by_mount(s, s->mounts[i].destination, i)) {
			keep_tmpfs_mode(root, &s->mounts[i]);
			make_inside(root, s->mounts[i].destination, s->mounts[i].is_file);
		}
	if (s->cwd && !covered_by_mount(s, s->cwd, s->nmounts))
		make_inside(root, s->cwd, false);
	close(root);
}

static bool bind_on(const char *source, int target, bool alone)
{
	char at[64];

	snprintf(at, sizeof(at), "/proc/self/fd/%d", target);
	if (mount(source, at, NULL, MS_BIND | (alone ? 0 : MS_REC), NULL) < 0) {
		cli_debug("view: binding %s: %m", source);
		return false;
	}
	return true;
}

/* `target` was opened after the mount: one from before is what lies beneath. */
static void make_readonly(const char *source, int target)
{
	struct statvfs st;
	char at[64];

	snprintf(at, sizeof(at), "/proc/self/fd/%d", target);
	/* In a user namespace the flags that the mount came with cannot be taken off: they are named again. */
	if (statvfs(at, &st) < 0 || mount(NULL, at, NULL,
					  MS_REMOUNT | MS_BIND | MS_RDONLY |
						  (st.f_flag & (ST_NOSUID | ST_NODEV | ST_NOEXEC |
								ST_NOATIME | ST_NODIRATIME)) |
						  (st.f_flag & ST_RELATIME ? MS_RELATIME : 0),
					  NULL) < 0)
		cli_debug("view: %s read-only: %m", source);
}

/*
 * An overlay is the gofer's: a second mount that writes to the same upper directory would spoil it. What engines see reads all of its layers, and
 * is read-only.
 */
static void overlay_on(const char *given, int target)
{
	auto_free char *data = oci_overlay_readonly(given);
	char at[64];

	snprintf(at, sizeof(at), "/proc/self/fd/%d", target);
	if (data && mount("overlay", at, "overlay", MS_RDONLY | MS_NODEV | MS_NOSUID, data) < 0)
		cli_debug("view: overlay: %m");
}

static void bind_mounts(const struct oci_config *c, int root)
{
	for (unsigned i = 0; i < c->spec.nmounts; i++) {
		const struct boot_mount *m = &c->spec.mounts[i];
		int target = m->attach >= 0 ? open_inside(root, m->destination) : -1;

		if (target < 0)
			continue;
		if (c->attaches[m->attach].overlay) {
			overlay_on(c->attaches[m->attach].host_path, target);
			close(target);
			continue;
		}
		/* What an overlay spares an engine's copy would not: it fails. */
		if (bind_on(m->source, target, c->attaches[m->attach].alone) &&
		    (m->overlay || m->flags & MS_RDONLY)) {
			close(target);
			target = open_inside(root, m->destination);
			make_readonly(m->source, target);
		}
		if (target >= 0)
			close(target);
	}
}

/*
 * A new tmpfs on `target`. Return: its root, or -1. Not found by its name: that may lead elsewhere by then, as whoever else has the tree likes, and
 * what is made in there would be made on the host.
 */
static int tmpfs_on(int target)
{
	int fs = fsopen("tmpfs", FSOPEN_CLOEXEC), fd = -1;

	if (fs >= 0 && fsconfig(fs, FSCONFIG_SET_STRING, "source", "proc", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_SET_STRING, "mode", "555", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_SET_STRING, "size", "64k", 0) == 0 &&
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		fd = fsmount(fs, FSMOUNT_CLOEXEC,
			     MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	if (fd >= 0 &&
	    move_mount(fd, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		cli_debug("view: /proc: %m");
	if (fs >= 0)
		close(fs);
	return fd;
}

/*
 * /proc with the monitor alone: sentry and gofer are no processes of the container. `self` is the monitor's name in
 * the host's: a child that does this for it has one that is gone soon.
 */
static void make_proc(const struct sandbox *sb, int root, const char *self)
{
	static const char *const files[] = {"stat", "uptime", "meminfo", "cpuinfo", "loadavg"};
	int place = open_inside(root, "/proc"), target, proc, dir;
	char source[96];

	if (place < 0)
		return;
	/* The host's, as a place to take files from. */
	proc = open("/proc", O_PATH | O_CLOEXEC);
	target = tmpfs_on(place);
	close(place);
	if (target < 0) {
		close(proc);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		int fd = openat(target, files[i], O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0444);

		if (fd < 0)
			continue;
		snprintf(source, sizeof(source), "/proc/self/fd/%d/%s", proc, files[i]);
		bind_on(source, fd, false);
		close(fd);
	}
	/* Without a name it would be all of the host's. */
	if (*self && mkdirat(target, "1", 0555) == 0 &&
	    (dir = openat(target, "1", O_PATH | O_CLOEXEC)) >= 0) {
		snprintf(source, sizeof(source), "/proc/self/fd/%d/%s", proc, self);
		if (bind_on(source, dir, false))
			view_identity(&sb->config->spec, &sb->userns, target);
		close(dir);
	}
	close(proc);
	close(target);
}

static int enter(const char *rootfs)
{
	/* A mount of its own, as pivot_root(2) wants; what is mounted below comes along. */
	if (mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(rootfs) < 0 ||
	    syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	return 0;
}

/* In the new mount namespace, as root of the namespace that owns it. */
static int populate(const struct sandbox *sb, const char *self)
{
	const struct oci_config *c = sb->config;
	const char *rootfs = c->attaches[0].host_path;
	int root;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
	    mount(rootfs, rootfs, NULL, MS_BIND | MS_REC, NULL) < 0)
		return -errno;
	root = open(rootfs, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (root < 0)
		return -errno;
	if (c->spec.rootfs_overlay)
		make_readonly(rootfs, root);
	make_proc(sb, root, self);
	bind_mounts(c, root);
	close(root);
	return enter(rootfs);
}

/* The monitor's ids may have no mapping, and with such nothing can be made on a tmpfs: a child becomes root and does it. */
static int populate_as_root(const struct sandbox *sb, const char *self)
{
	int status = 0;
	pid_t pid = fork();

	if (pid == 0) {
		int err = userns_become_root();

		_exit(err ? -err : -populate(sb, self));
	}
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (pid < 0)
		return -errno;
	/* pivot_root(2) took our root along, not the working directory. */
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

int view_make(struct sandbox *sb)
{
	bool ns = sb->userns.create || sb->userns.path;
	char self[32];
	ssize_t n = readlink("/proc/self", self, sizeof(self) - 1);
	int err = 0;

	self[n > 0 ? n : 0] = '\0';
	sb->host_mounts = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	if (sb->host_mounts < 0 || unshare(CLONE_NEWNS) < 0)
		err = -errno;
	else
		/* Without a user namespace of its own the root would be the host's. */
		err = !ns || geteuid() == 0 ? populate(sb, self) : populate_as_root(sb, self);
	if (!err && chdir("/") < 0)
		err = -errno;
	if (err)
		cli_error("the container's mounts for engines: %s", strerror(-err));
	return err;
}

bool view_leave(struct sandbox *sb)
{
	if (sb->host_mounts < 0 || setns(sb->host_mounts, CLONE_NEWNS) == 0)
		return true;
	cli_debug("view: leaving: %m");
	return false;
}
