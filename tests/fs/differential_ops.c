/* tests/fs/differential_ops.c - the operations of a differential run, each on the host and on the backend. */
#include <linux/capability.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <sys/mount.h>

#include "tests/fs/differential.h"

#define MOUNTS_MAX 6

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

void from_cwd(void)
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
	if (!rnd(40) && !fs_lacks_tmpfile())
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

/* What is open, rather than a path: it may have no name any more. */
struct open_file {
	struct file *f;
	int fd;
	struct moat_statx st;
	struct vfs_lookup lk;
	uint32_t x;
	size_t size;
};

/* What was read on either side. */
static char host_buf[70000], our_buf[70000];

static void open_file_attr(unsigned op, struct open_file *of)
{
	ssize_t n;

	switch (op) {
	case 0:
		note("fchmod", NULL, NULL, of->x, 0);
		same("result", host_fchmod(of->fd, of->x),
		     set_stat_file(of->f,
				   &(struct setattr_args){.valid = SETATTR_MODE, .mode = of->x}));
		break;
	case 1: {
		struct setattr_args args = {.uid = rnd(2) ? 1000 + rnd(2) : UINT32_MAX,
					    .gid = rnd(2) ? 100 + rnd(3) : UINT32_MAX,
					    .valid = SETATTR_KILL_PRIV};

		args.valid |= (args.uid != UINT32_MAX ? SETATTR_UID : 0) |
			      (args.gid != UINT32_MAX ? SETATTR_GID : 0);
		note("fchown", NULL, NULL, args.uid, args.gid);
		same("result", host_fchown(of->fd, args.uid, args.gid),
		     set_stat_file(of->f, &args));
		break;
	}
	case 2:
		memset(host_buf, (int)rnd(256), of->size);
		note("fsetxattr", NULL, "user.one", (long)of->size, 0);
		same("result", host_fsetxattr(of->fd, "user.one", host_buf, of->size, 0),
		     vfs_set_xattr(&of->lk, &(struct xattr_args){.name = "user.one",
								 .value = host_buf,
								 .size = of->size}));
		break;
	default:
		note("fgetxattr", NULL, "user.one", sizeof(host_buf), 0);
		n = host_fgetxattr(of->fd, "user.one", host_buf, sizeof(host_buf));
		same("result", n,
		     vfs_get_xattr(&of->lk, &(struct xattr_args){.name = "user.one",
								 .value = our_buf,
								 .size = sizeof(our_buf)}));
		if (n > 0)
			same("value", 0, memcmp(host_buf, our_buf, (size_t)n));
		break;
	}
}

static void open_file_data(unsigned op, struct open_file *of)
{
	size_t size = of->size;
	struct file *f = of->f;
	int fd = of->fd, o;
	ssize_t n;

	switch (op) {
	case 4:
		if (!S_ISREG(of->st.mode))
			return;
		memset(host_buf, (int)op_nr, size);
		note("write", NULL, NULL, (long)size, 0);
		same("result", host_write(fd, host_buf, size), fs_write(f, host_buf, size));
		same("position", host_lseek(fd, 0, SEEK_CUR), file_seek(f, 0, SEEK_CUR));
		break;
	case 5:
		if (!S_ISREG(of->st.mode))
			return;
		note("read", NULL, NULL, (long)size, 0);
		n = host_read(fd, host_buf, size);
		same("result", n, fs_read(f, our_buf, size));
		if (n > 0)
			same("data", 0, memcmp(host_buf, our_buf, (size_t)n));
		same("position", host_lseek(fd, 0, SEEK_CUR), file_seek(f, 0, SEEK_CUR));
		break;
	case 6:
		/* The system call asks for this capability, or for the opener's credentials. */
		if (!cred_has_cap(e.cred, CAP_DAC_READ_SEARCH))
			return;
		note("link from descriptor", NULL, pick_path(p2), 0, 0);
		{
			struct vfs_lookup to = fs_env_at(&e, p2, 0);

			same("result", host_link_fd(fd, p2), vfs_link(&of->lk, &to));
		}
		break;
	default:
		if (!S_ISDIR(of->st.mode))
			return;
		note("list again", NULL, NULL, 0, 0);
		n = host_relist(fd, host_buf, sizeof(host_buf));
		same("rewind", 0, file_seek(f, 0, SEEK_SET));
		o = fs_list_file(f, our_buf, sizeof(our_buf));
		same("result", n, o == -ENOENT && n == 0 ? 0 : o);
	}
}

static void do_open_file(void)
{
	struct open_file of = {.f = fds[rnd(FDS)].ours, .fd = -1};
	unsigned op;

	of.x = rnd(010000);
	of.size = rnd(300);
	for (int i = 0; i < FDS; i++)
		if (of.f && fds[i].ours == of.f)
			of.fd = fds[i].host;
	if (of.fd < 0 || path_only(of.f) || host_fstat(of.fd, &of.st))
		return;
	if (fs_backend.plain_9p && !of.st.nlink)
		return;
	of.lk = fs_env_at(&e, "", LOOKUP_EMPTY);
	of.lk.start = of.f->path;
	op = rnd(9);
	if (op < 4)
		open_file_attr(op, &of);
	else
		open_file_data(op, &of);
}

static void do_file(void)
{
	static char data[70000];
	unsigned slot = rnd(FDS);
	struct file *f = fds[slot].ours;
	int fd = fds[slot].host;
	struct moat_statx h, o;
	int64_t off = rnd(4) ? rnd(20000) : rnd(300000);
	size_t size = rnd(4) ? rnd(5000) : rnd(sizeof(data));
	int whence, mode;

	if (!f)
		return;
	if (fs_backend.plain_9p && (host_fstat(fd, &h) || !h.nlink))
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
		n = host_pread(fd, host_buf, size, off);
		same("result", n, fs_pread(f, our_buf, size, off));
		if (n > 0)
			same("data", 0, memcmp(host_buf, our_buf, (size_t)n));
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
		if (fs_backend.plain_9p || (!(seed & 1) && !(mode & FALLOC_FL_PUNCH_HOLE)))
			return;
		note("fallocate", NULL, NULL, off, mode);
		same("result", host_fallocate(fd, mode, (uint64_t)off, size),
		     file_fallocate(f, mode, (uint64_t)off, size));
		break;
	default:
		whence = (int)rnd(6);
		if (((seed & 1) || fs_backend.plain_9p) &&
		    (whence == SEEK_DATA || whence == SEEK_HOLE))
			return;
		note("lseek", NULL, NULL, off, whence);
		/* Directories have their own cookies. */
		host_fstat(fd, &h);
		if (!S_ISREG(h.mode))
			return;
		same("result", host_lseek(fd, off, whence), file_seek(f, off, whence));
	}
}

int ours_setxattr(const char *path, const char *name, const void *v, size_t size, int flags)
{
	struct vfs_lookup lk = fs_env_at(&e, path, LOOKUP_FOLLOW);

	return vfs_set_xattr(
		&lk, &(struct xattr_args){
			     .name = name, .value = (void *)v, .size = size, .flags = flags});
}

size_t make_acl(uint8_t *buf)
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
		/* For diod an empty value is no value. */
		if (fs_backend.plain_9p)
			size++;
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

/* ---- one of them ---- */

static void do_access_nofollow(void)
{
	uint32_t x = rnd(8);
	struct vfs_lookup lk;

	note("access, nofollow", pick_path(p1), NULL, x, 0);
	lk = fs_env_at(&e, p1, 0);
	same("result", host_access_nofollow(p1, (int)x), vfs_access(&lk, (int)x));
}

static void do_lchown(void)
{
	struct setattr_args args = {.uid = 1000 + rnd(2),
				    .gid = 100 + rnd(3),
				    .valid = SETATTR_UID | SETATTR_GID | SETATTR_KILL_PRIV};
	struct vfs_lookup lk;

	note("lchown", pick_path(p1), NULL, args.uid, args.gid);
	lk = fs_env_at(&e, p1, 0);
	same("result", host_lchown(p1, args.uid, args.gid), vfs_set_stat(&lk, &args));
}

static void do_mkdir(void)
{
	uint32_t x = rnd(010000);

	note("mkdir", pick_path(p1), NULL, x, 0);
	same("result", host_mkdir(p1, x), fs_mkdir(&e, p1, x));
}

static void do_mknod(void)
{
	static const uint32_t types[] = {S_IFIFO, S_IFSOCK, S_IFREG, S_IFCHR, S_IFBLK, 0};
	uint32_t x = types[rnd(6)] | rnd(01000);

	note("mknod", pick_path(p1), NULL, x, 0);
	same("result", host_mknod(p1, x, 1, 3),
	     fs_mknod(&e, p1, x, S_ISCHR(x) || S_ISBLK(x) ? 1 : 0,
		      S_ISCHR(x) || S_ISBLK(x) ? 3 : 0));
}

static void do_symlink(void)
{
	note("symlink", pick_path(p1), pick_path(p2), 0, 0);
	same("result", host_symlink(p1, p2), fs_symlink(&e, p1, p2));
}

static void do_link(void)
{
	uint32_t x = rnd(2);

	note("link", pick_path(p1), pick_path(p2), x, 0);
	same("result", host_link(p1, p2, x), fs_link(&e, p1, p2, x));
}

static void do_unlink(void)
{
	note("unlink", pick_path(p1), NULL, 0, 0);
	same("result", host_unlink(p1), fs_unlink(&e, p1));
}

static void do_rmdir(void)
{
	note("rmdir", pick_path(p1), NULL, 0, 0);
	same("result", host_rmdir(p1), fs_rmdir(&e, p1));
}

static void do_rename(void)
{
	uint32_t x = rnd(3) ? 0 : rnd(8);

	if (fs_backend.plain_9p)
		x = 0;

	note("rename", pick_path(p1), pick_path(p2), x, 0);
	same("result", host_rename(p1, p2, x), fs_rename(&e, p1, p2, x));
}

static void do_chmod(void)
{
	uint32_t x = rnd(010000);

	note("chmod", pick_path(p1), NULL, x, 0);
	same("result", host_chmod(p1, x), fs_chmod(&e, p1, x));
}

static void do_chown(void)
{
	uint32_t uid = rnd(3) ? UINT32_MAX : 1000 + rnd(2),
		 gid = rnd(2) ? UINT32_MAX : 100 + rnd(3);

	note("chown", pick_path(p1), NULL, uid, gid);
	same("result", host_chown(p1, uid, gid, true), fs_chown(&e, p1, uid, gid));
}

static void do_truncate(void)
{
	uint32_t x;

	from_cwd();
	x = rnd(100000);
	note("truncate", pick_path(p1), NULL, x, 0);
	same("result", host_truncate(p1, x), fs_truncate(&e, p1, x));
}

static void do_access(void)
{
	uint32_t x = rnd(8);

	note("access", pick_path(p1), NULL, x, 0);
	same("result", host_access(p1, (int)x), fs_access(&e, p1, (int)x));
}

static void do_readlink(void)
{
	static char hb[8192], ob[8192];
	int h;

	note("readlink", pick_path(p1), NULL, 0, 0);
	h = host_readlink(p1, hb, sizeof(hb));
	same("result", h, fs_readlink(&e, p1, ob, sizeof(ob)));
	if (h > 0)
		same("target", 0, strcmp(hb, ob));
}

static void do_list(void)
{
	int h, o;

	note("list", pick_path(p1), NULL, 0, 0);
	h = host_list(p1, host_buf, sizeof(host_buf));
	o = fs_list(&e, p1, our_buf, sizeof(our_buf));
	if (h != o && h >= 0)
		printf("host:\n%sours:\n%s", host_buf, o >= 0 ? our_buf : "");
	same("result", h, o == -ENOENT && h == 0 ? 0 : o);
}

static void do_times_or_chdir(void)
{
	if (rnd(3)) {
		do_times();
		return;
	}
	from_cwd();
	note("chdir", pick_path(p1), NULL, 0, 0);
	/* chdir asks for search permission on the directory itself, which the system call checks. */
	if (e.cred->fsuid || !cred_has_cap(e.cred, CAP_DAC_OVERRIDE))
		return;
	same("result", host_chdir(p1), fs_chdir(&e, p1));
}

/* How often each comes: an entry a part in 46. */
static void (*const operations[])(void) = {
	[0 ... 4] = do_open,
	[5 ... 9] = do_file,
	[10 ... 12] = do_mkdir,
	[13] = do_mknod,
	[14 ... 15] = do_symlink,
	[16 ... 17] = do_link,
	[18 ... 19] = do_unlink,
	[20] = do_rmdir,
	[21 ... 24] = do_rename,
	[25 ... 28] = do_stat,
	[29] = do_chmod,
	[30] = do_chown,
	[31] = do_truncate,
	[32] = do_access,
	[33] = do_readlink,
	[34 ... 35] = do_xattr,
	[36] = do_list,
	[37] = do_times_or_chdir,
	[38] = do_become,
	[39] = do_mount,
	[40 ... 41] = do_openat2,
	[42 ... 43] = do_open_file,
	[44] = do_access_nofollow,
	[45] = do_lchown,
};

void do_op(void)
{
	pick_start();
	operations[rnd(ARRAY_SIZE(operations))]();
}
