/*
 * gofer/ops_walk.c - compound requests that look and open: Tmwalk, Tmopen, Tmcreate, Tmreaddir.
 *
 * They never fail half-way with nothing to show: what was seen before an error, a symlink or a
 * non-directory is sent, because the client must check the guest's search permission on it first and cache it.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "gofer/server.h"

static uint32_t errno_of(int err)
{
	return (uint32_t)-err;
}

/* The walk's last component, and a descriptor of it if `ret_fd` is wanted (-1: none, a symlink or an error). */
static void walk_last(struct walk *wk, int *ret_fd, struct statx *ret_stx)
{
	int fd = -1;

	walk_dirs(wk, 1);
	if (wk->stopped || wk->left == 0)
		return;
	if (ret_fd) {
		fd = openat(wk->fd, wk->next, O_PATH | O_NOFOLLOW | O_CLOEXEC);
		wk->err = fd < 0 ? -errno : walk_add_node(wk, fd, "", ret_stx);
	} else {
		wk->err = walk_add_node(wk, wk->fd, wk->next, ret_stx);
	}
	if (wk->err || wk->target.data) {
		wk->stopped = true;
		if (fd >= 0 && wk->err) {
			close(fd);
			fd = -1;
		}
	} else {
		wk->left = 0;
	}
	if (ret_fd)
		*ret_fd = fd;
}

int op_mwalk(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmwalk *a = &t->Tmwalk;
	bool bind = a->newfid != P9_NOFID, whole;
	auto_walk struct walk wk;
	struct statx stx = {0};
	int fd = -1, err;

	err = walk_begin(&wk, w, a->fid, &a->path, a->skip, a->want);
	if (err)
		return err;
	if (wk.left)
		walk_last(&wk, bind ? &fd : NULL, &stx);
	else if (bind && (fd = dup_fd(wk.fd)) < 0)
		return fd;
	/* A final symlink is a place too. */
	whole = !wk.stopped || (wk.left == 1 && !wk.err && wk.target.data);
	if (fd >= 0 && !whole) {
		close(fd);
		fd = -1;
	}
	if (fd >= 0) {
		if (!stx.stx_mode && stat_fd(fd, "", &stx) < 0)
			stx.stx_mode = 0;
		err = fid_add(w->srv, a->newfid, wk.fid->attach, wk.fid->uid, fd, -1, 0,
			      S_ISDIR(stx.stx_mode));
		if (err)
			return err;
		r->Rmwalk.bound = 1;
	}
	r->Rmwalk.err = errno_of(wk.err);
	r->Rmwalk.target = wk.target;
	walk_nodes(&wk, &r->Rmwalk.nodes);
	return 0;
}

/*
 * Hands an opened file over, of that type: by descriptor, or bound to newfid. Takes fd. Only regular files are donated, and directories never.
 */
static int hand_over(struct worker *w, const struct walk *wk, int fd, uint32_t mode,
		     uint32_t newfid, uint32_t want, uint32_t flags, uint8_t *ret_bound,
		     uint8_t *ret_donated)
{
	int err;

	if ((want & P9_WANT_FD) && (S_ISREG(mode) || S_ISFIFO(mode))) {
		w->donate_fd = fd;
		*ret_donated = 1;
		return 0;
	}
	if (newfid == P9_NOFID) {
		close(fd);
		return 0;
	}
	err = fid_add(w->srv, newfid, wk->fid->attach, wk->fid->uid, -1, fd, flags, S_ISDIR(mode));
	if (!err)
		*ret_bound = 1;
	return err;
}

/* Opens what path_fd names, which is known to be of that type, if it may be opened: else nothing is bound and the client sees why in the node. */
static int open_existing(struct worker *w, const struct walk *wk, int path_fd, uint32_t mode,
			 uint32_t newfid, uint32_t want, uint32_t flags, uint8_t *ret_bound,
			 uint8_t *ret_donated)
{
	bool fifo = S_ISFIFO(mode) && wk->fid->attach->fifos && (want & P9_WANT_FIFO) &&
		    (want & P9_WANT_FD);
	int fd;

	if (!S_ISREG(mode) && !S_ISDIR(mode) && !fifo)
		return 0;
	/* A fifo is written to on a read-only file system, too. */
	if (wk->fid->attach->readonly && !fifo && (flags & O_ACCMODE) != O_RDONLY)
		return -EROFS;
	if (S_ISDIR(mode) && (flags & O_ACCMODE) != O_RDONLY)
		return -EISDIR;
	fd = fifo ? reopen_fifo(w, path_fd, flags & O_ACCMODE)
		  : reopen_looked_at(w, path_fd, flags & (O_ACCMODE | O_NOATIME));
	if (fd < 0)
		return fd;
	return hand_over(w, wk, fd, mode, newfid, want, flags, ret_bound, ret_donated);
}

int op_mopen(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmopen *a = &t->Tmopen;
	struct p9_Rmopen *o = &r->Rmopen;
	auto_walk struct walk wk;
	auto_close int fd = -1;
	struct statx stx;
	bool last;
	int err;

	err = walk_begin(&wk, w, a->fid, &a->path, a->skip, a->want);
	if (err)
		return err;
	last = wk.left != 0;
	if (last)
		walk_last(&wk, &fd, &stx);
	else
		err = stat_fd(wk.fd, "", &stx);
	if (err)
		return err;
	if (!wk.stopped)
		wk.err = open_existing(w, &wk, last ? fd : wk.fd, stx.stx_mode, a->newfid, a->want,
				       a->flags, &o->bound, &o->donated);
	o->err = errno_of(wk.err);
	o->target = wk.target;
	walk_nodes(&wk, &o->nodes);
	return 0;
}

/* A child of a setgid directory, when the client could not know that. */
static int inherit_setgid(struct walk *wk, uint32_t want, struct new_owner *o, uint32_t *inout_mode,
			  bool is_dir)
{
	struct statx stx;
	int err;

	if (!(want & P9_WANT_SETGID))
		return 0;
	err = stat_fd(wk->fd, "", &stx);
	if (err || !(stx.stx_mode & S_ISGID))
		return err;
	o->gid = stx.stx_gid;
	if (is_dir)
		*inout_mode |= S_ISGID;
	return 0;
}

/* After a change: the parent's node anew (the last one so far, or a first one), then the child's. */
static int add_changed(struct walk *wk, bool child_too)
{
	if (wk->nodes)
		walk_refresh_node(wk, wk->nodes - 1);
	return child_too ? walk_add_node(wk, wk->fd, wk->next, NULL) : 0;
}

static int create_tmpfile(struct worker *w, struct walk *wk, const struct p9_Tmcreate *a,
			  struct p9_Rmcreate *o)
{
	const struct new_owner owner = {a->uid, a->gid, a->umask};
	int fd = create_file(w, wk->fd, ".", a->flags, a->mode, &owner), err, copy;

	if (fd < 0)
		return fd;
	o->created = 1;
	walk_refresh_node(wk, wk->nodes - 1);
	err = walk_add_node(wk, fd, "", NULL);
	copy = err ? err : dup_fd(fd);
	if (copy < 0) {
		close(fd);
		return copy;
	}
	/* It has no name: the fid keeps it for linkat(2) and attributes, whether the descriptor is donated or not. */
	err = fid_add(w->srv, a->newfid, wk->fid->attach, wk->fid->uid, copy, -1, 0, false);
	if (err) {
		close(fd);
		return err;
	}
	o->bound = 1;
	if (a->want & P9_WANT_FD) {
		w->donate_fd = fd;
		o->donated = 1;
	} else {
		close(fd);
	}
	return 0;
}

static int create_or_open(struct worker *w, struct walk *wk, const struct p9_Tmcreate *a,
			  struct p9_Rmcreate *o)
{
	struct new_owner owner = {a->uid, a->gid, a->umask};
	uint32_t mode = a->mode;
	auto_close int path_fd = -1;
	struct statx stx;
	int fd, err;

	err = inherit_setgid(wk, a->want, &owner, &mode, false);
	if (err)
		return err;
	fd = create_file(w, wk->fd, wk->next, a->flags, mode, &owner);
	if (fd >= 0) {
		o->created = 1;
		err = add_changed(wk, true);
		if (err) {
			close(fd);
			return err;
		}
		/* O_CREAT and O_EXCL made it. */
		return hand_over(w, wk, fd, S_IFREG, a->newfid, a->want, a->flags, &o->bound,
				 &o->donated);
	}
	if (fd != -EEXIST || (a->flags & O_EXCL))
		return fd;
	path_fd = openat(wk->fd, wk->next, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (path_fd < 0)
		return -errno;
	err = walk_add_node(wk, path_fd, "", &stx);
	if (err || wk->target.data || S_ISDIR(stx.stx_mode))
		return err;
	return open_existing(w, wk, path_fd, stx.stx_mode, a->newfid, a->want, a->flags, &o->bound,
			     &o->donated);
}

int op_mcreate(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmcreate *a = &t->Tmcreate;
	bool tmpfile = (a->flags & O_TMPFILE) == O_TMPFILE;
	struct p9_Rmcreate *o = &r->Rmcreate;
	auto_walk struct walk wk;
	int err;

	err = walk_begin(&wk, w, a->fid, &a->path, a->skip, P9_WANT_SELF | (a->want & P9_WANT_ACL));
	if (err)
		return err;
	if (wk.fid->attach->readonly)
		return -EROFS;
	if (!tmpfile && wk.left == 0)
		return -EINVAL;
	walk_dirs(&wk, tmpfile ? 0 : 1);
	if (!wk.stopped)
		wk.err = tmpfile ? create_tmpfile(w, &wk, a, o) : create_or_open(w, &wk, a, o);
	o->err = errno_of(wk.err);
	o->target = wk.target;
	walk_nodes(&wk, &o->nodes);
	return 0;
}

/* ---- creations without a descriptor ---- */

static int begin_change(struct walk *wk, struct worker *w, uint32_t fid, const struct p9_str *path,
			unsigned skip)
{
	int err = walk_begin(wk, w, fid, path, skip, P9_WANT_SELF);

	if (err)
		return err;
	if (wk->fid->attach->readonly)
		return -EROFS;
	if (wk->left == 0)
		return -EINVAL;
	walk_dirs(wk, 1);
	return 0;
}

static void end_change(struct walk *wk, uint32_t *ret_err, struct p9_nodes *ret_nodes)
{
	if (!wk->stopped && !wk->err)
		wk->err = add_changed(wk, true);
	*ret_err = errno_of(wk->err);
	walk_nodes(wk, ret_nodes);
}

int op_mmkdir(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmmkdir *a = &t->Tmmkdir;
	struct new_owner owner = {a->uid, a->gid, a->umask};
	uint32_t mode = a->mode;
	auto_walk struct walk wk;
	int err = begin_change(&wk, w, a->fid, &a->path, a->skip);

	if (err)
		return err;
	if (!wk.stopped)
		wk.err = inherit_setgid(&wk, a->want, &owner, &mode, true);
	if (!wk.stopped && !wk.err)
		wk.err = create_dir(w, wk.fd, wk.next, mode, &owner);
	end_change(&wk, &r->Rmmkdir.err, &r->Rmmkdir.nodes);
	return 0;
}

int op_msymlink(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmsymlink *a = &t->Tmsymlink;
	struct new_owner owner = {a->uid, a->gid, 0};
	uint32_t mode = 0;
	auto_walk struct walk wk;
	int err = begin_change(&wk, w, a->fid, &a->path, a->skip);

	if (err)
		return err;
	if (!wk.stopped)
		wk.err = inherit_setgid(&wk, a->want, &owner, &mode, false);
	if (!wk.stopped && !wk.err)
		wk.err = create_symlink(w, wk.fd, wk.next, &a->target, &owner);
	end_change(&wk, &r->Rmsymlink.err, &r->Rmsymlink.nodes);
	return 0;
}

int op_mmknod(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmmknod *a = &t->Tmmknod;
	struct new_owner owner = {a->uid, a->gid, a->umask};
	uint32_t mode = a->mode;
	auto_walk struct walk wk;
	int err = begin_change(&wk, w, a->fid, &a->path, a->skip), sock = -1;

	if (err)
		return err;
	if (!wk.stopped)
		wk.err = inherit_setgid(&wk, a->want, &owner, &mode, false);
	if (!wk.stopped && !wk.err) {
		/* A socket's device number says which kind is to be bound. */
		if (S_ISSOCK(mode) && (a->want & P9_WANT_FD) && wk.fid->attach->uds_create)
			wk.err = create_socket(w, wk.fd, wk.next, mode, a->major, &owner, &sock);
		else
			wk.err = create_node(w, wk.fd, wk.next, mode, S_ISSOCK(mode) ? 0 : a->major,
					     a->minor, &owner);
	}
	end_change(&wk, &r->Rmmknod.err, &r->Rmmknod.nodes);
	w->donate_fd = sock;
	r->Rmmknod.donated = sock >= 0;
	return 0;
}

int op_mlink(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmlink *a = &t->Tmlink;
	auto_fid struct fid *old = fid_get(w->srv, a->oldfid);
	auto_walk struct walk wk;
	bool owned = false;
	int err, fd = -1;

	err = begin_change(&wk, w, a->fid, &a->path, a->skip);
	if (err)
		return err;
	if (!old)
		return -EBADF;
	if (old->attach != wk.fid->attach)
		return -EXDEV;
	if (!wk.stopped) {
		wk.err = resolve_path(w, old, &a->oldpath, w->path2, &fd, &owned);
		if (!wk.err)
			wk.err = link_fd(w, fd, wk.fd, wk.next);
		if (owned && fd >= 0)
			close(fd);
	}
	end_change(&wk, &r->Rmlink.err, &r->Rmlink.nodes);
	return 0;
}

/* ---- directories, clunks ---- */

static int open_dir(struct worker *w, struct fid *f, const struct p9_str *path, bool quiet)
{
	const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW;
	bool owned = false;
	int fd, dir, err;

	err = resolve_path(w, f, path, w->path, &fd, &owned);
	if (err)
		return err;
	dir = openat(fd, ".", flags | (quiet ? O_NOATIME : 0));
	/* Somebody else's. */
	if (dir < 0 && errno == EPERM && quiet)
		dir = openat(fd, ".", flags);
	if (dir < 0)
		dir = -errno;
	if (owned)
		close(fd);
	return dir;
}

int op_mreaddir(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmreaddir *a = &t->Tmreaddir;
	struct p9_Rmreaddir *o = &r->Rmreaddir;
	auto_fid struct fid *f = fid_get(w->srv, a->fid);
	size_t max = MIN(a->count, atomic_load(&w->srv->msize) - P9_IO_OVERHEAD), size;
	bool eof;
	int64_t pos = 0;
	int dir, err;

	if (!f)
		return -EBADF;
	if (a->path.len == 0 && f->io_fd >= 0) {
		if (!f->is_dir)
			return -ENOTDIR;
		mutex_lock(&f->lock);
		err = read_dents(w, f->attach, f->io_fd, &f->dir_pos, (int64_t)a->offset, max, true,
				 a->want, &size, &eof);
		mutex_unlock(&f->lock);
	} else {
		dir = open_dir(w, f, &a->path, a->want & P9_WANT_QUIET);
		if (dir < 0)
			return dir;
		err = read_dents(w, f->attach, dir, &pos, (int64_t)a->offset, max, true, a->want,
				 &size, &eof);
		if (err || eof || a->newfid == P9_NOFID) {
			close(dir);
		} else {
			struct fid *nf;

			err = fid_add(w->srv, a->newfid, f->attach, f->uid, -1, dir, 0, true);
			nf = err ? NULL : fid_get(w->srv, a->newfid);
			if (nf) {
				nf->dir_pos = pos;
				fid_put(nf);
				o->bound = 1;
			}
		}
	}
	if (err)
		return err;
	o->eof = eof;
	o->data = (struct p9_blob){NULL, (uint32_t)size};
	return 0;
}

int op_mclunk(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	int ret = 0;

	(void)r;
	for (unsigned i = 0; i < t->Tmclunk.fids.count; i++) {
		int err = fid_remove(w->srv, p9_fids_get(&t->Tmclunk.fids, i));

		if (err)
			ret = err;
	}
	return ret;
}
