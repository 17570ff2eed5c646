/*
 * tests/fs/differential.c [OPERATIONS [SEED [FROM]]] - a seeded stream of path and file operations, each run on the host's tmpfs and
 * on the backend; every result, errno and attribute must agree, and the trees at the end.
 *
 * Not compared: inode and device numbers (only which paths share one), directories' sizes, the order of readdir, times (but that a time
 * which was set is what stat shows). From operation FROM on everything is printed and compared after each. A difference prints the seed, the operation's number and both results. Exit status 77: no tmpfs of our own here.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>

#include "fsimpl/overlay/overlay.h"
#include "tests/fs/env.h"
#include "tests/fs/host_ops.h"
#include "vfs/perm.h"

#ifdef DIFFERENTIAL_OVERLAY
#define OVERLAY 1
#else
#define OVERLAY 0
#endif
#ifdef DIFFERENTIAL_GOFER
#define GOFER 1
#else
#define GOFER 0
#endif
#define FDS 6
#define MOUNTS_MAX 6

static struct fs_env e;
static uint64_t rng;
static long op_nr;
static uint64_t seed;
static int verbose;
static char what[20000];
static char name255[256], name256[257];

static struct {
	int host;
	struct file *ours;
} fds[FDS];

static uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

/* What each prefix of the operation's paths is on both sides, with the credentials as they are. */
static void explain(const char *path)
{
	struct moat_statx h, o;
	char *copy, target[4096];

	if (strlen(path) > 300)
		return;
	copy = strdup(path);

	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] && path[i] != '/')
			continue;
		copy[i] = '\0';
		memset(&h, 0, sizeof(h));
		memset(&o, 0, sizeof(o));
		printf("  %.80s: host %d", copy, host_stat(copy, false, &h));
		printf(" mode %o uid %u gid %u nlink %u ino %llu dev %u", h.mode, h.uid, h.gid,
		       h.nlink, (unsigned long long)h.ino, h.dev_minor);
		printf("; ours %d", fs_lstat(&e, copy, &o));
		printf(" mode %o uid %u gid %u nlink %u ino %llu dev %u\n", o.mode, o.uid, o.gid,
		       o.nlink, (unsigned long long)o.ino, o.dev_minor);
		if (S_ISLNK(o.mode) && fs_readlink(&e, copy, target, sizeof(target)) > 0)
			printf("    -> %.200s\n", target);
		copy[i] = path[i];
	}
	free(copy);
}

static char p1[8192], p2[8192];

/* Without exit handlers: a leak checker would look for /proc in this root. */
static void finish(int status)
{
	fflush(stdout);
	_exit(status);
}

static void differ(const char *field, long long host, long long ours)
{
	printf("seed %llu, operation %ld: %s\n  %s: host %lld (%s), ours %lld (%s)\n",
	       (unsigned long long)seed, op_nr, what, field, host,
	       host < 0 ? strerror((int)-host) : "", ours, ours < 0 ? strerror((int)-ours) : "");
	explain(p1);
	explain(p2);
	finish(1);
}

static void same(const char *field, long long host, long long ours)
{
	if (host != ours)
		differ(field, host, ours);
}

/* ---- inode numbers up to renaming ---- */

#define IDS 65536
static struct {
	uint64_t key, value;
	bool used;
} ids[2][IDS];

/* Within one look at the whole tree numbers stand for inodes: equal on one side exactly if equal on the other. */
static void same_inode(const struct moat_statx *h, const struct moat_statx *o)
{
	uint64_t hk = h->ino * 4096 + h->dev_minor, ok = o->ino * 4096 + o->dev_minor;
	unsigned at = (unsigned)(hk * 0x9e3779b97f4a7c15ull >> 48);

	for (int pass = 0; pass < 2; pass++) {
		uint64_t key = pass ? ok : hk, value = pass ? hk : ok;

		at = (unsigned)(key * 0x9e3779b97f4a7c15ull >> 48);
		while (ids[pass][at].used && ids[pass][at].key != key)
			at = (at + 1) % IDS;
		if (!ids[pass][at].used)
			ids[pass][at].value = value;
		ids[pass][at].used = true;
		ids[pass][at].key = key;
		if (ids[pass][at].value != value)
			differ("inode number", (long long)h->ino, (long long)o->ino);
	}
}

static void same_stat(const struct moat_statx *h, const struct moat_statx *o)
{
	same("mode", h->mode, o->mode);
	same("nlink", h->nlink, o->nlink);
	same("uid", h->uid, o->uid);
	same("gid", h->gid, o->gid);
	if (!S_ISDIR(h->mode)) {
		same("size", (long long)h->size, (long long)o->size);
		same("blocks", (long long)h->blocks, (long long)o->blocks);
	}
	same("rdev major", h->rdev_major, o->rdev_major);
	same("rdev minor", h->rdev_minor, o->rdev_minor);
	same("mask", h->mask & STATX_BASIC_STATS, o->mask & STATX_BASIC_STATS);
	same("blksize", h->blksize, o->blksize);
}

/* ---- paths ---- */

static const char *pick_name(void)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	uint32_t n = rnd(100);

	if (n < 80)
		return names[rnd(8)];
	if (n < 86)
		return ".";
	if (n < 95)
		return "..";
	if (n < 97)
		return name255;
	if (n < 98)
		return name256;
	return "nobody";
}

static char *pick_path(char *buf)
{
	unsigned depth = 1 + rnd(rnd(3) ? 2 : 5);
	char *p = buf;

	*p = '\0';
	if (!rnd(300))
		return buf;
	if (!rnd(400)) { /* as long as a path may be, or one more */
		size_t len = rnd(2) ? 4095 : 4096;

		memset(buf, '/', len);
		buf[len - 1] = "abcd"[rnd(4)];
		buf[len] = '\0';
		return buf;
	}
	if (rnd(2))
		*p++ = '/';
	for (unsigned i = 0; i < depth; i++) {
		const char *n = pick_name();

		strcpy(p, n);
		p += strlen(n);
		if (i + 1 < depth || !rnd(12))
			*p++ = '/';
		if (!rnd(20))
			*p++ = '/';
	}
	*p = '\0';
	return buf;
}

/* ---- operations ---- */

static void note(const char *op, const char *a, const char *b, long x, long y)
{
	snprintf(what, sizeof(what),
		 "%s(%.60s%s, %.60s%s, 0x%lx, 0x%lx) from %d as %u:%u caps %llx", op, a ? a : "",
		 a && strlen(a) > 60 ? "..." : "", b ? b : "", b && strlen(b) > 60 ? "..." : "", x,
		 y, host_at, e.cred->fsuid, e.cred->fsgid,
		 (unsigned long long)e.cred->cap_effective);
	if (verbose)
		printf("%ld: %s\n", op_nr, what);
}

/* Where this operation's relative paths begin: the current directory or something that is open, whatever became of it. */
static void pick_start(void)
{
	unsigned slot = rnd(FDS * 3);

	host_at = AT_FDCWD;
	e.at = NULL;
	if (slot < FDS && fds[slot].ours) {
		host_at = fds[slot].host;
		e.at = &fds[slot].ours->path;
	}
}

static void from_cwd(void)
{
	host_at = AT_FDCWD;
	e.at = NULL;
}

static void do_open(void)
{
	static const int modes[] = {O_RDONLY, O_WRONLY, O_RDWR, 3};
	unsigned slot = rnd(FDS);
	int flags = modes[rnd(rnd(20) ? 3 : 4)], h, o;
	uint32_t mode = rnd(010000);
	struct file *f = NULL;

	if (fds[slot].ours) {
		from_cwd();
		host_close(fds[slot].host);
		fs_close(fds[slot].ours);
		fds[slot].ours = NULL;
	}
	if (rnd(2))
		flags |= O_CREAT;
	if (!rnd(4))
		flags |= O_EXCL;
	if (!rnd(4))
		flags |= O_TRUNC;
	if (!rnd(6))
		flags |= O_APPEND;
	if (!rnd(8))
		flags |= O_NOFOLLOW;
	if (!(flags & O_CREAT) && !rnd(8))
		flags |= O_DIRECTORY;
	if (!rnd(30))
		flags = O_PATH | (flags & (O_NOFOLLOW | O_DIRECTORY));
	if (!rnd(40) && !fs_backend.lacks_tmpfile)
		flags = O_TMPFILE | (rnd(2) ? O_RDWR : O_WRONLY) | (rnd(3) ? 0 : O_EXCL);
	if (!rnd(30))
		flags |= O_NOATIME;
	pick_path(p1);
	note("open", p1, NULL, flags, mode);
	/* Special files need a driver, which the library has none of. */
	{
		struct moat_statx st;

		if (!(flags & O_PATH) && !host_stat(p1, true, &st) && !S_ISREG(st.mode) &&
		    !S_ISDIR(st.mode))
			return;
	}
	h = host_open(p1, flags, mode);
	o = fs_open(&e, p1, flags, mode & 07777, &f);
	same("result", h < 0 ? h : 0, o);
	if (o)
		return;
	fds[slot].host = h;
	fds[slot].ours = f;
}

static void do_openat2(void)
{
	static const struct {
		uint64_t host;
		unsigned ours;
	} resolve[] = {{RESOLVE_BENEATH, LOOKUP_BENEATH},
		       {RESOLVE_IN_ROOT, LOOKUP_IN_ROOT},
		       {RESOLVE_NO_XDEV, LOOKUP_NO_XDEV},
		       {RESOLVE_NO_SYMLINKS, LOOKUP_NO_SYMLINKS},
		       {0, 0},
		       {RESOLVE_NO_XDEV | RESOLVE_BENEATH, LOOKUP_NO_XDEV | LOOKUP_BENEATH},
		       {RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS,
			LOOKUP_IN_ROOT | LOOKUP_NO_SYMLINKS}};
	static const int flag_sets[] = {O_RDONLY,
					O_RDWR | O_CREAT,
					O_PATH,
					O_PATH | O_NOFOLLOW,
					O_RDONLY | O_DIRECTORY,
					O_WRONLY | O_CREAT | O_EXCL};
	unsigned i = rnd(ARRAY_SIZE(resolve));
	int flags = flag_sets[rnd(ARRAY_SIZE(flag_sets))], h, o;
	uint32_t mode = rnd(010000);
	struct vfs_lookup lk;
	struct open_args args = {
		.flags = (unsigned)flags, .mode = flags & O_CREAT ? mode : 0, .umask = e.umask};
	struct file *f = NULL;
	struct moat_statx st;

	pick_path(p1);
	note("openat2", p1, NULL, flags, (long)resolve[i].host);
	h = host_openat2(p1, flags, mode, resolve[i].host);
	/* Special files need a driver, which the library has none of. */
	if (!(flags & O_PATH) && (h == -ENXIO || (h >= 0 && !host_fstat(h, &st) &&
						  !S_ISREG(st.mode) && !S_ISDIR(st.mode)))) {
		if (h >= 0)
			host_close(h);
		return;
	}
	lk = fs_env_at(&e, p1,
		       (flags & O_NOFOLLOW ? 0 : LOOKUP_FOLLOW) |
			       (flags & O_DIRECTORY ? LOOKUP_DIRECTORY : 0) | resolve[i].ours);
	o = vfs_open(&lk, &args, &f);
	/* O_CREAT on a final "..": Linux first sees whether it may be left, here it is a directory at once. */
	if (o == -ENXIO && h < 0)
		return;
	if (h == -EXDEV && (flags & O_CREAT) && (o == -EISDIR || o == -EEXIST))
		return;
	same("result", h < 0 ? h : 0, o);
	if (o)
		return;
	host_close(h);
	fs_close(f);
}

static bool path_only(const struct file *f)
{
	return f->mode & FILE_PATH_ONLY;
}

static int set_stat_file(struct file *f, const struct setattr_args *args)
{
	struct vfs_lookup lk = fs_env_at(&e, "", LOOKUP_EMPTY);

	lk.start = f->path;
	return vfs_set_stat(&lk, args);
}

/* On what is open rather than by path: it may have no name any more. */
static void do_open_file(void)
{
	static char hb[70000], ob[70000];
	struct file *f = fds[rnd(FDS)].ours;
	int fd = -1;
	uint32_t x = rnd(010000);
	struct moat_statx st;
	struct vfs_lookup lk;
	size_t size = rnd(300);
	ssize_t n;

	for (int i = 0; i < FDS; i++)
		if (f && fds[i].ours == f)
			fd = fds[i].host;
	if (fd < 0 || path_only(f) || host_fstat(fd, &st))
		return;
	lk = fs_env_at(&e, "", LOOKUP_EMPTY);
	lk.start = f->path;
	switch (rnd(9)) {
	case 0:
		note("fchmod", NULL, NULL, x, 0);
		same("result", host_fchmod(fd, x),
		     set_stat_file(f, &(struct setattr_args){.valid = SETATTR_MODE, .mode = x}));
		break;
	case 1: {
		struct setattr_args args = {.uid = rnd(2) ? 1000 + rnd(2) : UINT32_MAX,
					    .gid = rnd(2) ? 100 + rnd(3) : UINT32_MAX,
					    .valid = SETATTR_KILL_PRIV};

		args.valid |= (args.uid != UINT32_MAX ? SETATTR_UID : 0) |
			      (args.gid != UINT32_MAX ? SETATTR_GID : 0);
		note("fchown", NULL, NULL, args.uid, args.gid);
		same("result", host_fchown(fd, args.uid, args.gid), set_stat_file(f, &args));
		break;
	}
	case 2:
		memset(hb, (int)rnd(256), size);
		note("fsetxattr", NULL, "user.one", (long)size, 0);
		same("result", host_fsetxattr(fd, "user.one", hb, size, 0),
		     vfs_set_xattr(&lk, &(struct xattr_args){
						.name = "user.one", .value = hb, .size = size}));
		break;
	case 3:
		note("fgetxattr", NULL, "user.one", sizeof(hb), 0);
		n = host_fgetxattr(fd, "user.one", hb, sizeof(hb));
		same("result", n,
		     vfs_get_xattr(&lk, &(struct xattr_args){.name = "user.one",
							     .value = ob,
							     .size = sizeof(ob)}));
		if (n > 0)
			same("value", 0, memcmp(hb, ob, (size_t)n));
		break;
	case 4:
		if (!S_ISREG(st.mode))
			return;
		memset(hb, (int)op_nr, size);
		note("write", NULL, NULL, (long)size, 0);
		same("result", host_write(fd, hb, size), fs_write(f, hb, size));
		same("position", host_lseek(fd, 0, SEEK_CUR), file_seek(f, 0, SEEK_CUR));
		break;
	case 5:
		if (!S_ISREG(st.mode))
			return;
		note("read", NULL, NULL, (long)size, 0);
		n = host_read(fd, hb, size);
		same("result", n, fs_read(f, ob, size));
		if (n > 0)
			same("data", 0, memcmp(hb, ob, (size_t)n));
		same("position", host_lseek(fd, 0, SEEK_CUR), file_seek(f, 0, SEEK_CUR));
		break;
	case 6:
		/* The system call asks for this capability, or for the opener's credentials. */
		if (!cred_has_cap(e.cred, CAP_DAC_READ_SEARCH))
			return;
		note("link from descriptor", NULL, pick_path(p2), 0, 0);
		{
			struct vfs_lookup to = fs_env_at(&e, p2, 0);

			same("result", host_link_fd(fd, p2), vfs_link(&lk, &to));
		}
		break;
	default:
		if (!S_ISDIR(st.mode))
			return;
		note("list again", NULL, NULL, 0, 0);
		n = host_relist(fd, hb, sizeof(hb));
		same("rewind", 0, file_seek(f, 0, SEEK_SET));
		x = (uint32_t)fs_list_file(f, ob, sizeof(ob));
		same("result", n, (int)x == -ENOENT && n == 0 ? 0 : (int)x);
	}
}

static void do_file(void)
{
	static char data[70000], hb[70000], ob[70000];
	unsigned slot = rnd(FDS);
	struct file *f = fds[slot].ours;
	int fd = fds[slot].host;
	struct moat_statx h, o;
	int64_t off = rnd(4) ? rnd(20000) : rnd(300000);
	size_t size = rnd(4) ? rnd(5000) : rnd(sizeof(data));
	int whence, mode;

	if (!f)
		return;
	switch (rnd(8)) {
	case 0:
	case 1:
		for (size_t i = 0; i < size; i++)
			data[i] = (char)(op_nr + (long)i * 7);
		note("pwrite", NULL, NULL, off, (long)size);
		same("result", host_pwrite(fd, data, size, off), fs_pwrite(f, data, size, off));
		break;
	case 2:
	case 3: {
		ssize_t n;

		note("pread", NULL, NULL, off, (long)size);
		n = host_pread(fd, hb, size, off);
		same("result", n, fs_pread(f, ob, size, off));
		if (n > 0)
			same("data", 0, memcmp(hb, ob, (size_t)n));
		break;
	}
	case 4:
		note("fstat", NULL, NULL, 0, 0);
		same("result", host_fstat(fd, &h),
		     file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &o));
		same_stat(&h, &o);
		break;
	case 5:
		note("ftruncate", NULL, NULL, off, 0);
		same("result", host_ftruncate(fd, (uint64_t)off), file_truncate(f, (uint64_t)off));
		break;
	case 6:
		mode = (int)rnd(4);
		/* SEEK_DATA tells allocated from written on the host, not here: each seed tries one of the two. */
		if (!(seed & 1) && !(mode & FALLOC_FL_PUNCH_HOLE))
			return;
		note("fallocate", NULL, NULL, off, mode);
		same("result", host_fallocate(fd, mode, (uint64_t)off, size),
		     file_fallocate(f, mode, (uint64_t)off, size));
		break;
	default:
		whence = (int)rnd(6);
		if ((seed & 1) && (whence == SEEK_DATA || whence == SEEK_HOLE))
			return;
		note("lseek", NULL, NULL, off, whence);
		/* Directories have their own cookies. */
		host_fstat(fd, &h);
		if (!S_ISREG(h.mode))
			return;
		same("result", host_lseek(fd, off, whence), file_seek(f, off, whence));
	}
}

static int ours_setxattr(const char *path, const char *name, const void *v, size_t size, int flags)
{
	struct vfs_lookup lk = fs_env_at(&e, path, LOOKUP_FOLLOW);

	return vfs_set_xattr(
		&lk, &(struct xattr_args){
			     .name = name, .value = (void *)v, .size = size, .flags = flags});
}

static size_t make_acl(uint8_t *buf)
{
	static const uint16_t tags[] = {1, 2, 4, 8, 16, 32};
	uint32_t version = 2, id;
	size_t n = 4;

	memcpy(buf, &version, 4);
	for (int i = 0; i < 6; i++) {
		uint16_t perm = (uint16_t)rnd(8);

		if ((i == 1 || i == 3) && rnd(2))
			continue;
		if (i == 4 && !rnd(5))
			continue;
		if (!rnd(50))
			continue;
		id = i == 1 ? 1000 + rnd(2) : i == 3 ? 100 + rnd(3) : UINT32_MAX;
		memcpy(buf + n, &tags[i], 2);
		memcpy(buf + n + 2, &perm, 2);
		memcpy(buf + n + 4, &id, 4);
		n += 8;
	}
	return n;
}

static void do_xattr(void)
{
	static const char *const names[] = {"user.one",
					    "user.two",
					    "trusted.t",
					    "security.s",
					    "user.",
					    "nonsense",
					    "system.posix_acl_access",
					    "system.posix_acl_default",
					    "system.other",
					    "security.capability2"};
	const char *name = names[rnd(GOFER ? 2 : 10)];
	struct vfs_lookup lk;
	uint8_t value[200];
	char hb[300], ob[300];
	size_t size = rnd(100), room = rnd(4) ? sizeof(hb) : rnd(3) ? 0 : 5;
	int flags = rnd(3) ? 0 : (int)rnd(4);
	ssize_t h, o;

	from_cwd();
	pick_path(p1);
	lk = fs_env_at(&e, p1, LOOKUP_FOLLOW);
	switch (rnd(4)) {
	case 0:
		memset(value, (int)rnd(256), sizeof(value));
		if (strstr(name, "acl"))
			size = make_acl(value);
		note("setxattr", p1, name, (long)size, flags);
		same("result", host_setxattr(p1, name, value, size, flags),
		     ours_setxattr(p1, name, value, size, flags));
		break;
	case 1:
		note("getxattr", p1, name, (long)room, 0);
		h = host_getxattr(p1, name, hb, room);
		o = vfs_get_xattr(&lk,
				  &(struct xattr_args){.name = name, .value = ob, .size = room});
		same("result", h, o);
		if (h > 0 && room)
			same("value", 0, memcmp(hb, ob, (size_t)h));
		break;
	case 2:
		/* Linux counts an overlay's own marks where it need not copy names. */
		if (OVERLAY)
			room = sizeof(hb);
		note("listxattr", p1, NULL, (long)room, 0);
		h = host_listxattr(p1, hb, room);
		o = vfs_list_xattr(&lk, ob, room);
		same("result", h, o);
		break;
	default:
		note("removexattr", p1, name, 0, 0);
		same("result", host_removexattr(p1, name), vfs_remove_xattr(&lk, name));
	}
}

static void do_become(void)
{
	static const uint64_t sets[] = {0,
					CAP_FULL,
					1ull << CAP_DAC_OVERRIDE,
					1ull << CAP_DAC_READ_SEARCH,
					1ull << CAP_FOWNER,
					1ull << CAP_CHOWN,
					1ull << CAP_FSETID,
					1ull << CAP_MKNOD,
					1ull << CAP_SYS_ADMIN};
	uint32_t groups[2] = {100, 101};
	uint32_t uid = rnd(3) ? 0 : 1000 + rnd(2), gid = uid ? 100 + rnd(3) : 0, n = rnd(3);
	uint64_t caps = uid == 0 && rnd(4) ? CAP_FULL : sets[rnd(9)];

	/* What this process itself may not have cannot be compared. */
	caps &= ~(1ull << CAP_SYS_RESOURCE);
	note("become", NULL, NULL, uid, (long)caps);
	same("become", host_become(uid, gid, groups, n, caps),
	     fs_env_become(&e, uid, gid, groups, n, caps));
}

static void do_stat(void)
{
	struct moat_statx h, o;
	bool follow = rnd(2);
	int err;

	pick_path(p1);
	note(follow ? "stat" : "lstat", p1, NULL, 0, 0);
	err = host_stat(p1, follow, &h);
	same("result", err, follow ? fs_stat(&e, p1, &o) : fs_lstat(&e, p1, &o));
	if (err)
		return;
	same_stat(&h, &o);
	same("mount root", h.attributes & STATX_ATTR_MOUNT_ROOT,
	     o.attributes & STATX_ATTR_MOUNT_ROOT);
}

static void do_times(void)
{
	struct setattr_args args = {0};
	struct vfs_lookup lk;
	struct moat_statx h, o;
	int how = (int)rnd(4), err;
	int64_t t = (int64_t)rnd(2000000000) * 1000000000 + rnd(1000000000);

	pick_path(p1);
	lk = fs_env_at(&e, p1, LOOKUP_FOLLOW);
	args.atime = args.mtime =
		(struct moat_timestamp){.sec = t / 1000000000, .nsec = (uint32_t)(t % 1000000000)};
	args.valid = how == 0	? SETATTR_ATIME | SETATTR_MTIME
		     : how == 1 ? SETATTR_ATIME_NOW | SETATTR_MTIME_NOW
		     : how == 2 ? SETATTR_MTIME
				: SETATTR_ATIME_NOW;
	note("utimensat", p1, NULL, how, 0);
	err = host_utimens(p1, t, t, how);
	same("result", err, vfs_set_stat(&lk, &args));
	if (!err && how == 0 && !host_stat(p1, true, &h) && !fs_stat(&e, p1, &o)) {
		same("atime", h.atime.sec, o.atime.sec);
		same("mtime", h.mtime.nsec, o.mtime.nsec);
	}
}

/* ---- mounts ---- */

static int mounts;

static void do_mount(void)
{
	struct vfs_lookup a, b;
	int h;

	from_cwd();
	/* Only root with everything: the library leaves that check to the system call. */
	if (e.cred->fsuid || e.cred->cap_effective != (CAP_FULL & ~(1ull << CAP_SYS_RESOURCE)))
		return;
	pick_path(p1);
	pick_path(p2);
	/* mount(2) copies its strings its own way. */
	if (!*p1 || !*p2 || strlen(p1) > 4000 || strlen(p2) > 4000)
		return;
	a = fs_env_at(&e, p1, LOOKUP_FOLLOW);
	b = fs_env_at(&e, p2, LOOKUP_FOLLOW);
	switch (rnd(6)) {
	case 0:
		if (mounts >= MOUNTS_MAX)
			return;
		note("mount", p1, NULL, 0, 0);
		h = host_mount(p1, 0, "mode=755");
		same("result", h, vfs_mount_new(&a, "tmpfs", "tmpfs", 0, "mode=755", NULL));
		mounts += !h;
		break;
	case 1: {
		bool rec = rnd(2);

		if (mounts >= MOUNTS_MAX)
			return;
		note("bind", p1, p2, rec, 0);
		h = host_bind(p1, p2, rec);
		same("result", h, vfs_bind(&a, &b, rec));
		mounts += !h;
		break;
	}
	case 2: {
		unsigned long flags = rnd(2) ? MS_RDONLY : 0;

		note("remount", p1, NULL, (long)flags, 0);
		same("result", host_remount(p1, flags), vfs_remount(&a, flags, NULL, true));
		break;
	}
	case 3:
		note("move", p1, p2, 0, 0);
		same("result", host_move(p1, p2), vfs_move_mount(&a, &b));
		break;
	default: {
		int flags = rnd(3) ? MNT_DETACH : 0;
		struct moat_statx r, st;

		/* "/" would remount it read-only for good. */
		if (host_stat("/", true, &r) || host_stat(p1, true, &st) ||
		    (r.ino == st.ino && r.dev_minor == st.dev_minor))
			return;
		note("umount", p1, NULL, flags, 0);
		h = host_umount(p1, flags);
		/* Deferred references would keep it busy where the host dropped them. */
		rcu_drain();
		vfs_run_deferred();
		same("result", h, vfs_umount(&a, flags));
		mounts -= !h;
	}
	}
}

static void do_op(void)
{
	static char hb[70000], ob[70000];
	uint32_t x;
	int h;

	pick_start();
	switch (rnd(46)) {
	case 40 ... 41:
		do_openat2();
		break;
	case 42 ... 43:
		do_open_file();
		break;
	case 44:
		x = rnd(8);
		note("access, nofollow", pick_path(p1), NULL, x, 0);
		{
			struct vfs_lookup lk = fs_env_at(&e, p1, 0);

			same("result", host_access_nofollow(p1, (int)x), vfs_access(&lk, (int)x));
		}
		break;
	case 45: {
		struct setattr_args args = {.uid = 1000 + rnd(2),
					    .gid = 100 + rnd(3),
					    .valid = SETATTR_UID | SETATTR_GID | SETATTR_KILL_PRIV};
		struct vfs_lookup lk;

		note("lchown", pick_path(p1), NULL, args.uid, args.gid);
		lk = fs_env_at(&e, p1, 0);
		same("result", host_lchown(p1, args.uid, args.gid), vfs_set_stat(&lk, &args));
		break;
	}
	case 0 ... 4:
		do_open();
		break;
	case 5 ... 9:
		do_file();
		break;
	case 10 ... 12:
		x = rnd(010000);
		note("mkdir", pick_path(p1), NULL, x, 0);
		same("result", host_mkdir(p1, x), fs_mkdir(&e, p1, x));
		break;
	case 13:
		x = (uint32_t[]){S_IFIFO, S_IFSOCK, S_IFREG, S_IFCHR, S_IFBLK, 0}[rnd(6)] |
		    rnd(01000);
		note("mknod", pick_path(p1), NULL, x, 0);
		same("result", host_mknod(p1, x, 1, 3),
		     fs_mknod(&e, p1, x, S_ISCHR(x) || S_ISBLK(x) ? 1 : 0,
			      S_ISCHR(x) || S_ISBLK(x) ? 3 : 0));
		break;
	case 14 ... 15:
		note("symlink", pick_path(p1), pick_path(p2), 0, 0);
		same("result", host_symlink(p1, p2), fs_symlink(&e, p1, p2));
		break;
	case 16 ... 17:
		x = rnd(2);
		note("link", pick_path(p1), pick_path(p2), x, 0);
		same("result", host_link(p1, p2, x), fs_link(&e, p1, p2, x));
		break;
	case 18 ... 19:
		note("unlink", pick_path(p1), NULL, 0, 0);
		same("result", host_unlink(p1), fs_unlink(&e, p1));
		break;
	case 20:
		note("rmdir", pick_path(p1), NULL, 0, 0);
		same("result", host_rmdir(p1), fs_rmdir(&e, p1));
		break;
	case 21 ... 24:
		x = rnd(3) ? 0 : rnd(8);
		note("rename", pick_path(p1), pick_path(p2), x, 0);
		same("result", host_rename(p1, p2, x), fs_rename(&e, p1, p2, x));
		break;
	case 25 ... 28:
		do_stat();
		break;
	case 29:
		x = rnd(010000);
		note("chmod", pick_path(p1), NULL, x, 0);
		same("result", host_chmod(p1, x), fs_chmod(&e, p1, x));
		break;
	case 30: {
		uint32_t uid = rnd(3) ? UINT32_MAX : 1000 + rnd(2),
			 gid = rnd(2) ? UINT32_MAX : 100 + rnd(3);

		note("chown", pick_path(p1), NULL, uid, gid);
		same("result", host_chown(p1, uid, gid, true), fs_chown(&e, p1, uid, gid));
		break;
	}
	case 31:
		from_cwd();
		x = rnd(100000);
		note("truncate", pick_path(p1), NULL, x, 0);
		same("result", host_truncate(p1, x), fs_truncate(&e, p1, x));
		break;
	case 32:
		x = rnd(8);
		note("access", pick_path(p1), NULL, x, 0);
		same("result", host_access(p1, (int)x), fs_access(&e, p1, (int)x));
		break;
	case 33:
		note("readlink", pick_path(p1), NULL, 0, 0);
		h = host_readlink(p1, hb, sizeof(hb));
		same("result", h, fs_readlink(&e, p1, ob, sizeof(ob)));
		if (h > 0)
			same("target", 0, strcmp(hb, ob));
		break;
	case 34 ... 35:
		do_xattr();
		break;
	case 36:
		note("list", pick_path(p1), NULL, 0, 0);
		h = host_list(p1, hb, sizeof(hb));
		x = (uint32_t)fs_list(&e, p1, ob, sizeof(ob));
		if (h != (int)x && h >= 0)
			printf("host:\n%sours:\n%s", hb, (int)x >= 0 ? ob : "");
		same("result", h, (int)x == -ENOENT && h == 0 ? 0 : (int)x);
		break;
	case 37:
		if (rnd(3)) {
			do_times();
			break;
		}
		from_cwd();
		note("chdir", pick_path(p1), NULL, 0, 0);
		/* chdir asks for search permission on the directory itself, which the system call checks. */
		if (e.cred->fsuid || !cred_has_cap(e.cred, CAP_DAC_OVERRIDE))
			break;
		same("result", host_chdir(p1), fs_chdir(&e, p1));
		break;
	case 38:
		do_become();
		break;
	default:
		do_mount();
	}
}

/* ---- the trees ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int split(char *list, char **names, int max)
{
	int n = 0;

	for (char *p = strtok(list, "\n"); p && n < max; p = strtok(NULL, "\n"))
		names[n++] = p;
	qsort(names, (size_t)n, sizeof(*names), by_name);
	return n;
}

static void compare_tree(const char *path, int depth)
{
	char *hb = malloc(70000), *ob = malloc(70000), *child = malloc(8192);
	char *hn[100], *on[100];
	struct moat_statx h, o;
	int n;

	if (!*path)
		path = "/";
	snprintf(what, sizeof(what), "tree at %.200s", path);
	same("lstat", host_stat(path, false, &h), fs_lstat(&e, path, &o));
	same_stat(&h, &o);
	same_inode(&h, &o);
	if (S_ISDIR(h.mode) && depth < 12 && strlen(path) < 3000) {
		n = fs_list(&e, path, ob, 70000);
		/* A removed directory that is still mounted somewhere: readdir(3) hides -ENOENT. */
		same("list", host_list(path, hb, 70000), n == -ENOENT ? 0 : n);
		if (verbose)
			printf("%s: host:\n%sours:\n%s", path, hb, ob);
		n = split(hb, hn, 100);
		same("entries", n, split(ob, on, 100));
		for (int i = 0; i < n; i++) {
			same("name", 0, strcmp(hn[i], on[i]));
			snprintf(child, 8192, "%s/%s", path[1] ? path : "", hn[i]);
			compare_tree(child, depth + 1);
		}
	}
	free(hb);
	free(ob);
	free(child);
}

/* The whole tree as root sees it, and what is open. */
static void compare_all(void)
{
	struct cred *was = cred_ref(e.cred);
	struct moat_statx h, o;

	from_cwd();
	if (host_become(0, 0, NULL, 0, CAP_FULL) || fs_env_become(&e, 0, 0, NULL, 0, CAP_FULL))
		finish(1);
	memset(ids, 0, sizeof(ids));
	compare_tree("", 0);
	for (int i = 0; i < FDS; i++) {
		if (!fds[i].ours || host_fstat(fds[i].host, &h) ||
		    file_stat(fds[i].ours, &(struct stat_args){.mask = STATX_BASIC_STATS}, &o))
			continue;
		snprintf(what, sizeof(what), "open file %d", i);
		same_stat(&h, &o);
	}
	if (host_become(was->fsuid, was->fsgid, was->groups, was->ngroups, was->cap_effective) ||
	    fs_env_become(&e, was->fsuid, was->fsgid, was->groups, was->ngroups,
			  was->cap_effective))
		exit(1);
	cred_unref(was);
}

static int read_int(const char *path)
{
	FILE *f = fopen(path, "r");
	int v = 0;

	if (f) {
		if (fscanf(f, "%d", &v) != 1)
			v = 0;
		fclose(f);
	}
	return v;
}

#ifdef DIFFERENTIAL_OVERLAY
#define BOTH(host_call, our_call)                                                                \
	do {                                                                                     \
		int h_ = (int)(host_call), o_ = (int)(our_call);                                 \
                                                                                                 \
		if (h_ != o_) {                                                                  \
			printf("filling the layers: %s: host %d, ours %d\n", #our_call, h_, o_); \
			finish(1);                                                               \
		}                                                                                \
	} while (0)

static void write_file(const char *path, size_t size)
{
	char data[3000];
	struct file *f = NULL;
	int fd;

	memset(data, (int)rnd(256), sizeof(data));
	fd = host_open(path, O_CREAT | O_RDWR, 0644);
	if (fd < 0 || fs_open(&e, path, O_CREAT | O_RDWR, 0644, &f))
		return;
	BOTH(host_pwrite(fd, data, size, 0), fs_pwrite(f, data, size, 0));
	host_close(fd);
	fs_close(f);
}

/*
 * What a layer may hold; upper layers also hide what is below. A whiteout is made only in a directory that has a part in the layer `below`: in
 * one that has not, Linux shows it to readdir. True if there is one.
 */
static bool fill(const char *dir, const char *below, int depth)
{
	char path[300], other[300], under[300] = "";
	struct moat_statx st;
	bool any = false, merged = below && !host_stat(below, false, &st) && S_ISDIR(st.mode);
	uint8_t acl[200];
	size_t acl_size;

	for (int i = 0; i < 6; i++) {
		uint32_t mode = rnd(3) ? 0755 : rnd(010000);
		char name = "abcdefgh"[rnd(8)];
		bool whiteout = false;

		snprintf(path, sizeof(path), "%s/%c", dir, name);
		snprintf(other, sizeof(other), "%s/%c", dir, "abcdefgh"[rnd(8)]);
		if (below)
			snprintf(under, sizeof(under), "%s/%c", below, name);
		switch (rnd(merged ? 10 : 7)) {
		case 0 ... 2:
			if (depth == 3)
				break;
			BOTH(host_mkdir(path, 0755), fs_mkdir(&e, path, 0755));
			whiteout = fill(path, below ? under : NULL, depth + 1);
			if (below && !whiteout && !rnd(4))
				BOTH(host_setxattr(path, "trusted.overlay.opaque", "y", 1, 0),
				     ours_setxattr(path, "trusted.overlay.opaque", "y", 1, 0));
			break;
		case 3 ... 4:
			write_file(path, rnd(3000));
			break;
		case 5:
			BOTH(host_symlink(other, path), fs_symlink(&e, other, path));
			break;
		case 6:
			BOTH(host_link(other, path, false), fs_link(&e, other, path, false));
			break;
		default:
			BOTH(host_mknod(path, S_IFCHR, 0, 0), fs_mknod(&e, path, S_IFCHR, 0, 0));
			whiteout = true;
		}
		any |= whiteout;
		if (rnd(3))
			continue;
		acl_size = make_acl(acl);
		BOTH(host_setxattr(path, "user.one", dir, 3, 0),
		     ours_setxattr(path, "user.one", dir, 3, 0));
		BOTH(host_setxattr(path, "system.posix_acl_access", acl, acl_size, 0),
		     ours_setxattr(path, "system.posix_acl_access", acl, acl_size, 0));
		BOTH(host_chown(path, 1000, 100, true), fs_chown(&e, path, 1000, 100));
		BOTH(host_chmod(path, mode), fs_chmod(&e, path, mode));
	}
	return any;
}

/* /l1 over /l2 over /l3, /u on top: the root from here on is the overlay. */
static int enter_overlay(void)
{
	static const char *const dirs[] = {"/l3", "/l2", "/l1", "/u", "/w", "/m"};
	char options[200];

	if (overlay_register())
		return -ENOMEM;
	for (int i = 0; i < 6; i++)
		BOTH(host_mkdir(dirs[i], 0755), fs_mkdir(&e, dirs[i], 0755));
	for (int i = 0; i < 4; i++)
		fill(dirs[i], i ? dirs[i - 1] : NULL, 0);
	snprintf(options, sizeof(options),
		 "lowerdir=/l1:/l2:/l3,upperdir=/u,workdir=/w,redirect_dir=%s",
		 seed % 2 ? "on" : "off");
	BOTH(host_mount_type("overlay", "/m", options), fs_mount(&e, "/m", "overlay", 0, options));
	BOTH(host_chroot("/m"), fs_chdir(&e, "/m"));
	return 0;
}
#else
static int enter_overlay(void)
{
	return 0;
}
#endif

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 20000;
	char scratch[64];
	int err;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	verbose = argc > 3 ? atoi(argv[3]) : 0;
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	memset(name255, 'n', 255);
	memset(name256, 'm', 256);
	vfs_protected_symlinks = read_int("/proc/sys/fs/protected_symlinks");
	vfs_protected_hardlinks = read_int("/proc/sys/fs/protected_hardlinks");
	vfs_protected_regular = read_int("/proc/sys/fs/protected_regular");
	vfs_protected_fifos = read_int("/proc/sys/fs/protected_fifos");
	/* Forks: before anything of ours has a thread. */
	err = host_init();
	if (err) {
		printf("no tmpfs of our own to compare with: %s\n", strerror(-err));
		return 77;
	}
	if (host_scratch(scratch, sizeof(scratch)) || setenv("TMPDIR", scratch, 1))
		return 1;
	if (fs_env_process_init() || fs_env_init(&e) || host_enter())
		return 1;
	/* As on the host, the root is a mount with something below it. */
	if (fs_mkdir(&e, "/r", 0755) ||
	    (GOFER ? fs_bind(&e, "/r", "/r", false) : fs_mount(&e, "/r", "tmpfs", 0, "mode=755")) ||
	    fs_chdir(&e, "/r"))
		return 1;
	vfs_path_unref(&e.root);
	e.root = e.cwd;
	vfs_path_ref(&e.root);
	if (enter_overlay())
		return 1;
	vfs_path_unref(&e.root);
	e.root = e.cwd;
	vfs_path_ref(&e.root);
	host_umask(022);
	for (op_nr = 0; op_nr < count; op_nr++) {
		do_op();
		if (op_nr % 2000 == 1999 || (verbose && op_nr >= verbose))
			compare_all();
	}
	from_cwd();
	for (int i = 0; i < FDS; i++) {
		if (!fds[i].ours)
			continue;
		host_close(fds[i].host);
		fs_close(fds[i].ours);
	}
	compare_all();
	fs_env_fini(&e);
	printf("%ld operations, seed %llu: no difference\n", count, (unsigned long long)seed);
	finish(0);
}
