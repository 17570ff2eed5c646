/* gofer/ops_change.c - compound requests that remove, rename and change attributes, by path from a held place. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gofer/server.h"

/* RENAME_* of linux/fs.h, which clashes with glibc's headers. */
#define RENAME_FLAG_NOREPLACE 1u
#define RENAME_FLAG_EXCHANGE 2u
#define RENAME_FLAG_WHITEOUT 4u

/* An O_PATH descriptor of what is about to lose its name. */
static int hold(int dirfd, const char *name)
{
	int fd = openat(dirfd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int bind_kept(struct worker *w, const struct fid *base, uint32_t keepfid, int fd,
		     const struct statx *stx, uint8_t *ret_bound)
{
	int copy, err;

	if (keepfid == P9_NOFID)
		return 0;
	copy = dup_fd(fd);
	if (copy < 0)
		return copy;
	err = fid_add(w->srv, keepfid, base->attach, base->uid, copy, -1, 0,
		      S_ISDIR(stx->stx_mode));
	if (!err)
		*ret_bound = 1;
	return err;
}

static void put_node(struct worker *w, const struct statx *stx, unsigned i)
{
	struct p9_node node;

	stat_to_node(w->srv, stx, &node);
	p9_node_put(&node, w->nodes + (size_t)i * P9_NODE_SIZE);
}

int op_munlink(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmunlink *a = &t->Tmunlink;
	struct p9_Rmunlink *o = &r->Rmunlink;
	auto_close int victim = -1;
	auto_walk struct walk wk;
	struct statx stx;
	int err;

	err = walk_begin(&wk, w, a->fid, &a->path, a->skip, P9_WANT_SELF);
	if (err)
		return err;
	if (wk.fid->attach->readonly)
		return -EROFS;
	if (wk.left == 0)
		return -EINVAL;
	walk_dirs(&wk, 1);
	if (wk.stopped)
		goto out_reply;
	victim = hold(wk.fd, wk.next);
	wk.err = victim < 0 ? victim : stat_fd(victim, "", &stx);
	if (!wk.err)
		wk.err = bind_kept(w, wk.fid, a->keepfid, victim, &stx, &o->bound);
	if (!wk.err && unlinkat(wk.fd, wk.next, (int)(a->flags & AT_REMOVEDIR)) < 0)
		wk.err = -errno;
	if (wk.err && o->bound) {
		(void)!fid_remove(w->srv, a->keepfid);
		o->bound = 0;
	}
	if (!wk.err) {
		walk_refresh_node(&wk, wk.nodes - 1);
		wk.err = stat_fd(victim, "", &stx);
		if (!wk.err)
			put_node(w, &stx, wk.nodes++);
	}
out_reply:
	o->err = (uint32_t)-wk.err;
	walk_nodes(&wk, &o->nodes);
	return 0;
}

/* One side of a rename: its directory and name. */
struct side {
	struct fid *fid;
	int dir;
	bool owned;
	const char *name;
};

static void side_fini(struct side *s)
{
	if (s->owned)
		close(s->dir);
	if (s->fid)
		fid_put(s->fid);
}

static int side_init(struct side *s, struct worker *w, uint32_t fid, const struct p9_str *path,
		     char *scratch)
{
	s->fid = fid_get(w->srv, fid);
	if (!s->fid)
		return -EBADF;
	if (s->fid->attach->readonly)
		return -EROFS;
	return resolve_parent(w, s->fid, path, scratch, &s->dir, &s->owned, &s->name);
}

static int rename_nodes(struct worker *w, const struct side *from, const struct side *to, int moved,
			int replaced, struct p9_nodes *ret)
{
	const int fds[] = {from->dir, to->dir, moved, replaced};
	unsigned count = replaced >= 0 ? 4 : 3;

	for (unsigned i = 0; i < count; i++) {
		struct statx stx;
		int err = stat_fd(fds[i], "", &stx);

		if (err)
			return err;
		put_node(w, &stx, i);
	}
	ret->data = w->nodes;
	ret->count = (uint16_t)count;
	return 0;
}

int op_mrename(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmrename *a = &t->Tmrename;
	auto_close int moved = -1;
	auto_close int replaced = -1;
	struct side from = {0}, to = {0};
	struct statx stx;
	int err;

	if (a->flags & ~(RENAME_FLAG_NOREPLACE | RENAME_FLAG_EXCHANGE | RENAME_FLAG_WHITEOUT))
		return -EINVAL;
	err = side_init(&from, w, a->oldfid, &a->oldpath, w->path);
	if (!err)
		err = side_init(&to, w, a->fid, &a->path, w->path2);
	if (!err && from.fid->attach != to.fid->attach)
		err = -EXDEV;
	if (err)
		goto out;
	moved = hold(from.dir, from.name);
	err = moved < 0 ? moved : 0;
	if (err)
		goto out;
	replaced = hold(to.dir, to.name);
	if (replaced >= 0) {
		err = stat_fd(replaced, "", &stx);
		if (!err)
			err = bind_kept(w, to.fid, a->keepfid, replaced, &stx, &r->Rmrename.bound);
		if (err)
			goto out;
	}
	if (syscall(SYS_renameat2, from.dir, from.name, to.dir, to.name, a->flags) < 0)
		err = -errno;
	if (err && r->Rmrename.bound)
		(void)!fid_remove(w->srv, a->keepfid);
	if (!err)
		err = rename_nodes(w, &from, &to, moved, replaced, &r->Rmrename.nodes);
out:
	side_fini(&to);
	side_fini(&from);
	return err;
}

/* ---- attributes of one place ---- */

struct target {
	struct fid *fid;
	int fd;
	bool owned;
};

static void target_fini(struct target *tg)
{
	if (tg->owned)
		close(tg->fd);
	if (tg->fid)
		fid_put(tg->fid);
}
#define auto_target __attribute__((cleanup(target_fini)))

static int target_init(struct target *tg, struct worker *w, uint32_t fid, const struct p9_str *path,
		       bool write)
{
	tg->fid = fid_get(w->srv, fid);
	if (!tg->fid)
		return -EBADF;
	if (write && tg->fid->attach->readonly)
		return -EROFS;
	return resolve_path(w, tg->fid, path, w->path, &tg->fd, &tg->owned);
}

static int target_node(struct worker *w, const struct target *tg, struct p9_node *ret)
{
	struct statx stx;
	int err = stat_fd(tg->fd, "", &stx);

	if (!err)
		stat_to_node(w->srv, &stx, ret);
	return err;
}

int op_msetattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmsetattr *a = &t->Tmsetattr;
	const struct setattr sa = {
		.valid = a->valid,
		.mode = a->mode,
		.uid = a->uid,
		.gid = a->gid,
		.size = a->size,
		.atime = {a->atime_sec, a->atime_nsec},
		.mtime = {a->mtime_sec, a->mtime_nsec},
	};
	auto_target struct target tg = {0};
	int err = target_init(&tg, w, a->fid, &a->path, a->valid != 0);

	if (!err)
		err = apply_setattr(w, tg.fd, tg.owned ? -1 : tg.fid->io_fd, &sa);
	return err ? err : target_node(w, &tg, &r->Rmsetattr.node);
}

static int xattr_name(char out[P9_NAME_MAX + 1], const struct p9_str *name)
{
	if (name->len == 0 || name->len > P9_NAME_MAX || memchr(name->data, '\0', name->len))
		return -ERANGE;
	memcpy(out, name->data, name->len);
	out[name->len] = '\0';
	return 0;
}

int op_mgetxattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmgetxattr *a = &t->Tmgetxattr;
	auto_target struct target tg = {0};
	char name[P9_NAME_MAX + 1], num[16];
	size_t max = MIN(a->size, SERVER_XATTR_MAX);
	int err = target_init(&tg, w, a->fid, &a->path, false);
	long got;

	if (!err)
		err = xattr_name(name, &a->name);
	if (err)
		return err;
	fd_name(tg.fd, num);
	got = syscall(SYS_getxattr, num, name, max ? w->data : NULL, max);
	if (got < 0)
		return -errno;
	r->Rmgetxattr.size = (uint32_t)got;
	r->Rmgetxattr.data = (struct p9_blob){NULL, max ? (uint32_t)got : 0};
	return 0;
}

int op_msetxattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmsetxattr *a = &t->Tmsetxattr;
	auto_target struct target tg = {0};
	char name[P9_NAME_MAX + 1], num[16];
	int err = target_init(&tg, w, a->fid, &a->path, true);

	if (!err)
		err = xattr_name(name, &a->name);
	if (err)
		return err;
	if (a->data.size > SERVER_XATTR_MAX)
		return -E2BIG;
	fd_name(tg.fd, num);
	if (syscall(SYS_setxattr, num, name, a->data.data, (size_t)a->data.size, (int)a->flags) < 0)
		return -errno;
	return target_node(w, &tg, &r->Rmsetxattr.node);
}

int op_mlistxattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmlistxattr *a = &t->Tmlistxattr;
	auto_target struct target tg = {0};
	size_t max = MIN(a->size, SERVER_XATTR_MAX);
	int err = target_init(&tg, w, a->fid, &a->path, false);
	char num[16];
	long got;

	if (err)
		return err;
	fd_name(tg.fd, num);
	got = syscall(SYS_listxattr, num, max ? w->data : NULL, max);
	if (got < 0)
		return -errno;
	r->Rmlistxattr.size = (uint32_t)got;
	r->Rmlistxattr.data = (struct p9_blob){NULL, max ? (uint32_t)got : 0};
	return 0;
}

int op_mremovexattr(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmremovexattr *a = &t->Tmremovexattr;
	auto_target struct target tg = {0};
	char name[P9_NAME_MAX + 1], num[16];
	int err = target_init(&tg, w, a->fid, &a->path, true);

	if (!err)
		err = xattr_name(name, &a->name);
	if (err)
		return err;
	fd_name(tg.fd, num);
	if (syscall(SYS_removexattr, num, name) < 0)
		return -errno;
	return target_node(w, &tg, &r->Rmremovexattr.node);
}

int op_mfallocate(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmfallocate *a = &t->Tmfallocate;
	auto_fid struct fid *f = fid_get(w->srv, a->fid);
	struct statx stx;
	int err;

	if (!f || f->io_fd < 0)
		return -EBADF;
	if (fallocate(f->io_fd, (int)a->mode, (off_t)a->offset, (off_t)a->size) < 0)
		return -errno;
	err = stat_fd(f->io_fd, "", &stx);
	if (!err)
		stat_to_node(w->srv, &stx, &r->Rmfallocate.node);
	return err;
}

int op_mseek(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmseek *a = &t->Tmseek;
	auto_fid struct fid *f = fid_get(w->srv, a->fid);
	off_t off;

	(void)w;
	if (!f || f->io_fd < 0 || f->is_dir)
		return -EBADF;
	if (a->whence != SEEK_DATA && a->whence != SEEK_HOLE)
		return -EINVAL;
	off = lseek(f->io_fd, (off_t)a->offset, (int)a->whence);
	if (off < 0)
		return -errno;
	r->Rmseek.offset = (uint64_t)off;
	return 0;
}
