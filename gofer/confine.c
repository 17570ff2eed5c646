/*
 * gofer/confine.c - what the server gives up before it reads its first request.
 *
 * Mounts: an own mount namespace whose root is a read-only tmpfs with one directory (or file) per attach
 * point, "0", "1", ..., each a private clone of the host's tree, nodev and nosuid and read-only where asked, and "fd", a bind of
 * /proc/self/fd. The host's root is detached: no path leads outside, and ".." from "fd" ends in the tmpfs, not in
 * /proc.
 * Capabilities kept, because files in the served trees belong to anybody:
 *   CHOWN         files are given to the ids that the guest's program has
 *   DAC_OVERRIDE  they are then opened, listed and changed whatever their modes: the client checks the guest's rights
 *   FOWNER        chmod, utimes, sticky directories, O_NOATIME on files of others
 *   FSETID        chmod and chown keep setgid bits that the guest may set
 *   MKNOD         device nodes in the root file system (they are never opened here)
 *   SETFCAP       security.capability, as dpkg and tar set it
 * Not kept: DAC_READ_SEARCH (open_by_handle_at), SYS_ADMIN (so trusted.* attributes are EPERM) and all others.
 * The seccomp filter kills the process at any call that is not in seccomp.c or in the table below.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/io.h"
#include "gofer/confine.h"
#include "gofer/server.h"

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* sys/mount.h clashes with linux/mount.h here; these are its numbers. */
#define MOAT_MS_RDONLY 1ul
#define MOAT_MS_NOSUID 2ul
#define MOAT_MS_NODEV 4ul
#define MOAT_MS_NOEXEC 8ul
#define MOAT_MS_REMOUNT 32ul
#define MOAT_MS_BIND 4096ul
#define MOAT_MS_REC 16384ul
#define MOAT_MS_PRIVATE (1ul << 18)
#define MOAT_MNT_DETACH 2
#define MOAT_AT_RECURSIVE 0x8000
#define MOUNTINFO_MAX (4u << 20)

/* Covered before the host's root goes: any directory that is sure to exist. */
#define STAGING "/proc"

static int host_mount(const char *source, const char *target, const char *type, unsigned long flags,
		      const char *data)
{
	return syscall(SYS_mount, source, target, type, flags, data) < 0 ? -errno : 0;
}

/* A detached, private clone of the tree at `path`, with the attributes of an attach point. */
static int clone_tree(const char *path, bool recursive, uint64_t attr_set)
{
	struct mount_attr attr = {.attr_set = attr_set, .propagation = MOAT_MS_PRIVATE};
	unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC;
	int fd, err;

	fd = (int)syscall(SYS_open_tree, AT_FDCWD, path,
			  flags | (recursive ? MOAT_AT_RECURSIVE : 0));
	if (fd < 0 && errno == EINVAL && !recursive) {
		/* In a user namespace what is mounted below may not be uncovered. */
		recursive = true;
		fd = (int)syscall(SYS_open_tree, AT_FDCWD, path, flags | MOAT_AT_RECURSIVE);
	}
	if (fd < 0)
		return -errno;
	if (syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH | (recursive ? MOAT_AT_RECURSIVE : 0),
		    &attr, sizeof(attr)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

/* An overlayfs of the host's, detached: it lives as long as who has it open. */
static int overlay_tree(const char *data, uint64_t attr_set)
{
	int fd, err = host_mount("overlay", STAGING, "overlay", 0, data);

	if (err)
		return err;
	fd = clone_tree(STAGING, false, attr_set);
	if (syscall(SYS_umount2, STAGING, MOAT_MNT_DETACH) < 0 && fd >= 0) {
		err = -errno;
		close(fd);
		return err;
	}
	return fd;
}

static int place_tree(int tree, const char *target, bool is_file)
{
	auto_close int fd = -1;

	if (is_file) {
		fd = open(target, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
		if (fd < 0)
			return -errno;
	} else if (mkdir(target, 0700) < 0) {
		return -errno;
	}
	return syscall(SYS_move_mount, tree, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0
		       ? -errno
		       : 0;
}

/* File systems that give power over the host rather than files: never served. */
static bool is_pseudo(const char *type)
{
	static const char *const pseudo[] = {
		"proc",	   "sysfs",	 "cgroup",	"cgroup2",  "debugfs",	"tracefs",
		"bpf",	   "securityfs", "configfs",	"efivarfs", "pstore",	"fusectl",
		"devpts",  "mqueue",	 "binfmt_misc", "nsfs",	    "devtmpfs", "selinuxfs",
		"resctrl", "rpc_pipefs", "nfsd",
	};

	for (unsigned i = 0; i < ARRAY_SIZE(pseudo); i++)
		if (strcmp(type, pseudo[i]) == 0)
			return true;
	return false;
}

/* mountinfo writes space, tab, newline and backslash as octal. */
static void unescape(char *s)
{
	char *out = s;

	for (; *s; s++) {
		unsigned code;

		if (*s == '\\' && sscanf(s + 1, "%3o", &code) == 1) {
			*out++ = (char)code;
			s += 3;
		} else {
			*out++ = *s;
		}
	}
	*out = '\0';
}

/* A file (nsfs, a bind of one of proc's) under an empty one of our own. */
static int cover_file(const char *point)
{
	auto_close int fd = open(STAGING "/empty", O_CREAT | O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	return host_mount(STAGING "/empty", point, NULL, MOAT_MS_BIND, NULL);
}

/* Takes pseudo file systems out of the recursively cloned trees, or covers them where that is not allowed. */
static int remove_pseudo(int mountinfo_fd)
{
	auto_free char *text = malloc(MOUNTINFO_MAX);
	size_t len = 0;
	ssize_t got;

	if (!text)
		return -ENOMEM;
	while (len < MOUNTINFO_MAX - 1 &&
	       (got = read(mountinfo_fd, text + len, MOUNTINFO_MAX - 1 - len)) > 0)
		len += (size_t)got;
	text[len] = '\0';
	for (char *line = text, *end; *line; line = end) {
		char point[P9_PATH_MAX + 1], type[64];
		const char *dash;
		int err;

		end = strchr(line, '\n');
		if (!end)
			return -EOVERFLOW;
		*end++ = '\0';
		dash = strstr(line, " - ");
		if (!dash || sscanf(line, "%*s %*s %*s %*s %4095s", point) != 1 ||
		    sscanf(dash, " - %63s", type) != 1 || !is_pseudo(type))
			continue;
		unescape(point);
		if (strncmp(point, STAGING "/", strlen(STAGING "/")) != 0 ||
		    strcmp(point, STAGING "/fd") == 0)
			continue;
		if (syscall(SYS_umount2, point, MOAT_MNT_DETACH) == 0)
			continue;
		err = host_mount("none", point, "tmpfs",
				 MOAT_MS_RDONLY | MOAT_MS_NODEV | MOAT_MS_NOSUID, "size=4k");
		if (err == -ENOTDIR)
			err = cover_file(point);
		/* Gone with its parent. */
		if (err && err != -ENOENT)
			return err;
	}
	return 0;
}

/* Linux 6.13's multigrain timestamps: a change after a stat(2) gets a ctime that differs, on filesystems that take part. */
static bool has_fine_ctime(int fd)
{
	static const uint32_t types[] = {EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC,
					 TMPFS_MAGIC};
	unsigned major = 0, minor = 0;
	struct utsname name;
	struct statfs fs;

	if (uname(&name) < 0 || sscanf(name.release, "%u.%u", &major, &minor) != 2 ||
	    fstatfs(fd, &fs) < 0 || major < 6 || (major == 6 && minor < 13))
		return false;
	for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
		if ((uint32_t)fs.f_type == types[i])
			return true;
	return false;
}

static int init_attach(struct attach *a, const struct gofer_attach *conf, const char *path)
{
	char buf[P9_PATH_MAX + 1], link[64];
	struct stat st;
	ssize_t len;

	a->readonly = conf->readonly;
	a->fifos = conf->fifos;
	a->uds_open = conf->uds_open;
	a->uds_create = conf->uds_create;
	a->is_file = conf->is_file;
	a->resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
	if (!conf->recursive)
		a->resolve |= RESOLVE_NO_XDEV;
	a->fd = open(path, O_PATH | O_CLOEXEC);
	if (a->fd < 0 || fstat(a->fd, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode) == conf->is_file)
		return conf->is_file ? -EISDIR : -ENOTDIR;
	a->dev = st.st_dev;
	a->ino = st.st_ino;
	a->fine_ctime = has_fine_ctime(a->fd);
	snprintf(link, sizeof(link), "/proc/self/fd/%d", a->fd);
	len = readlink(link, buf, sizeof(buf) - 1);
	if (len < 0)
		len = snprintf(buf, sizeof(buf), "%s", path);
	buf[len] = '\0';
	a->real_path = strdup(buf);
	return a->real_path ? 0 : -ENOMEM;
}

static int open_proc_fd(struct server *srv, const char *path)
{
	srv->proc_fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (srv->proc_fd < 0)
		return -errno;
	return fchdir(srv->proc_fd) < 0 ? -errno : 0;
}

static int open_in_place(struct server *srv, const struct gofer_config *config)
{
	for (size_t i = 0; i < config->attach_count; i++) {
		const struct gofer_attach *a = &config->attaches[i];
		int err =
			a->overlay ? -EOPNOTSUPP : init_attach(&srv->attaches[i], a, a->host_path);

		if (err) {
			log_error("gofer: attach %zu, %s: %s", i, config->attaches[i].host_path,
				  strerror(-err));
			return err;
		}
	}
	return open_proc_fd(srv, "/proc/self/fd");
}

static int enter_root(void)
{
	int err;

	if (chdir(STAGING) < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return -errno;
	/* The old root lies on top of the new one now. */
	if (syscall(SYS_umount2, ".", MOAT_MNT_DETACH) < 0 || chdir("/") < 0)
		return -errno;
	err = host_mount(NULL, "/", NULL,
			 MOAT_MS_REMOUNT | MOAT_MS_BIND | MOAT_MS_RDONLY | MOAT_MS_NODEV |
				 MOAT_MS_NOSUID | MOAT_MS_NOEXEC,
			 NULL);
	return err;
}

static int place_all(const struct gofer_config *config, int *trees, int fd_tree)
{
	char path[64];
	int err = 0;

	for (size_t i = 0; i < config->attach_count && !err; i++) {
		snprintf(path, sizeof(path), STAGING "/%zu", i);
		err = place_tree(trees[i], path, config->attaches[i].is_file);
	}
	return err ? err : place_tree(fd_tree, STAGING "/fd", false);
}

static int clone_all(const struct gofer_config *config, int *trees)
{
	for (size_t i = 0; i < config->attach_count; i++) {
		const struct gofer_attach *a = &config->attaches[i];
		uint64_t attr = MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID;

		attr |= a->readonly ? MOUNT_ATTR_RDONLY : 0;
		trees[i] = a->overlay ? overlay_tree(a->host_path, attr)
				      : clone_tree(a->host_path, a->recursive, attr);
		if (trees[i] < 0) {
			log_error("gofer: attach %zu, %s: %s", i, a->host_path,
				  strerror(-trees[i]));
			return trees[i];
		}
	}
	return 0;
}

int confine_mounts(struct server *srv, const struct gofer_config *config)
{
	auto_free int *trees = NULL;
	auto_close int fd_tree = -1;
	auto_close int mountinfo = -1;
	int err;

	if (config->flags & GOFER_NO_NAMESPACES)
		return open_in_place(srv, config);
	trees = calloc(config->attach_count + 1, sizeof(*trees));
	if (!trees)
		return -ENOMEM;
	if (unshare(CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET) < 0)
		return -errno;
	err = host_mount(NULL, "/", NULL, MOAT_MS_REC | MOAT_MS_PRIVATE, NULL);
	if (err)
		return err;
	err = clone_all(config, trees);
	if (err)
		return err;
	mountinfo = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
	fd_tree = clone_tree("/proc/self/fd", false,
			     MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	if (mountinfo < 0 || fd_tree < 0)
		return mountinfo < 0 ? -ENOENT : fd_tree;
	err = host_mount("none", STAGING, "tmpfs", MOAT_MS_NODEV | MOAT_MS_NOSUID,
			 "mode=0700,size=64k,nr_inodes=1024");
	if (!err)
		err = place_all(config, trees, fd_tree);
	for (size_t i = 0; i < config->attach_count; i++)
		close(trees[i]);
	if (!err)
		err = remove_pseudo(mountinfo);
	if (!err)
		err = enter_root();
	if (!err)
		err = open_proc_fd(srv, "/fd");
	for (size_t i = 0; i < config->attach_count && !err; i++) {
		char path[32];

		snprintf(path, sizeof(path), "/%zu", i);
		err = init_attach(&srv->attaches[i], &config->attaches[i], path);
		if (err)
			log_error("gofer: attach %zu, %s: %s", i, config->attaches[i].host_path,
				  strerror(-err));
	}
	return err;
}

int confine_close_fds(const struct gofer_config *config)
{
	int keep[2] = {MIN(config->sock_fd, config->log_fd), MAX(config->sock_fd, config->log_fd)};
	unsigned first = 3;

	for (unsigned i = 0; i < 2; i++) {
		if (keep[i] < (int)first)
			continue;
		if ((unsigned)keep[i] > first && close_range(first, (unsigned)keep[i] - 1, 0) < 0)
			return -errno;
		first = (unsigned)keep[i] + 1;
	}
	return close_range(first, ~0u, 0) < 0 ? -errno : 0;
}

int confine_caps(void)
{
	static const int kept[] = {CAP_CHOWN,  CAP_DAC_OVERRIDE, CAP_FOWNER,
				   CAP_FSETID, CAP_MKNOD,	 CAP_SETFCAP};
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];
	uint32_t mask[2] = {0, 0};

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (unsigned i = 0; i < ARRAY_SIZE(kept); i++)
		mask[CAP_TO_INDEX(kept[i])] |= CAP_TO_MASK(kept[i]);
	/* Refused when already without CAP_SETPCAP: then there is nothing to gain by exec anyway. */
	for (int cap = 0; cap <= 63; cap++)
		if (!(mask[CAP_TO_INDEX(cap)] & CAP_TO_MASK(cap)))
			(void)prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	for (unsigned i = 0; i < 2; i++) {
		data[i].permitted &= mask[i];
		data[i].effective = data[i].permitted;
		data[i].inheritable = 0;
	}
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}

/* ---- seccomp ---- */

/* Besides what both servers call (seccomp.c). */
static const int calls[] = {
	SCMP_SYS(sendmsg), /* replies and donated descriptors out */
	SCMP_SYS(openat2),
	SCMP_SYS(lgetxattr), /* of an entry of a directory */
	MOAT_SYS_getxattrat, /* the same, where Linux has it */
	/* data, for clients that do not take descriptors */
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(umask),
	/* locks: flock(2), and threads that wait for one */
	SCMP_SYS(flock),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
	/* inotify for the client's watches */
	SCMP_SYS(inotify_add_watch),
	SCMP_SYS(inotify_rm_watch),
	SCMP_SYS(read),
	SCMP_SYS(poll),
};

#define THREAD_FLAGS \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

/* Threads, no processes: clone3(2)'s flags cannot be seen, and the C library does without it. The second connection, and packets on it. */
static int add_lock_rules(void *ctx)
{
	int err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);

	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				       SCMP_A0(SCMP_CMP_MASKED_EQ, THREAD_FLAGS, THREAD_FLAGS));
	/* A worker made later has its own umask too. */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(unshare), 1,
				       SCMP_A0(SCMP_CMP_EQ, CLONE_FS));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(socketpair), 2,
				       SCMP_A0(SCMP_CMP_EQ, AF_UNIX),
				       SCMP_A1(SCMP_CMP_EQ, SOCK_SEQPACKET | SOCK_CLOEXEC));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(sendto), 1,
				       SCMP_A4(SCMP_CMP_EQ, 0));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(inotify_init1), 1,
				       SCMP_A0(SCMP_CMP_EQ, IN_NONBLOCK | IN_CLOEXEC));
	return err;
}

/* Unix sockets of the host's (ops_socket.c), where an attach point allows them. */
static int add_uds_rules(void *ctx, const struct gofer_config *config)
{
	static const int types[] = {SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET};
	bool open = false, create = false;
	int err = 0;

	for (size_t i = 0; i < config->attach_count; i++) {
		open |= config->attaches[i].uds_open;
		create |= config->attaches[i].uds_create;
	}
	for (unsigned i = 0; i < ARRAY_SIZE(types) && !err && (open || create); i++)
		err = seccomp_rule_add(
			ctx, SCMP_ACT_ALLOW, SCMP_SYS(socket), 3, SCMP_A0(SCMP_CMP_EQ, AF_UNIX),
			SCMP_A1(SCMP_CMP_EQ,
				(scmp_datum_t)(types[i] | SOCK_NONBLOCK | SOCK_CLOEXEC)),
			SCMP_A2(SCMP_CMP_EQ, 0));
	if (!err && open)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(connect), 0);
	if (!err && open)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(getsockopt), 2,
				       SCMP_A1(SCMP_CMP_EQ, SOL_SOCKET),
				       SCMP_A2(SCMP_CMP_EQ, SO_PEERCRED));
	if (!err && create)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(bind), 0);
	return err;
}

static int add_conditional(void *ctx, const void *arg)
{
	static const int fcntls[] = {F_DUPFD_CLOEXEC, F_OFD_SETLK, F_OFD_SETLKW,
				     F_OFD_GETLK,     F_GETFL,	   F_GETFD};
	const struct gofer_config *config = arg;
	int err = add_lock_rules(ctx);

	if (!err)
		err = add_uds_rules(ctx, config);
	for (unsigned i = 0; i < ARRAY_SIZE(fcntls) && !err; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				       SCMP_A1(SCMP_CMP_EQ, (scmp_datum_t)fcntls[i]));
	/* log lines and a crash's last words */
	if (!err && config->log_fd >= 0)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)config->log_fd));
	if (!err && config->log_fd != 2)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(write), 1,
				       SCMP_A0(SCMP_CMP_EQ, 2));
	return err;
}

int confine_seccomp(const struct gofer_config *config, int sock)
{
	const struct confine_filter filter = {
		.calls = calls,
		.count = ARRAY_SIZE(calls),
		.add = add_conditional,
		.arg = config,
		.all_threads = true, /* the workers exist already */
	};

	(void)sock;
	return config->flags & GOFER_NO_SECCOMP ? 0 : confine_filter_load(&filter);
}
