/* fsimpl/gofer/plain_change.c - creations, removals, renames and attribute changes on a plain server: plain.c says how. */
#include <fcntl.h>
#include <string.h>

#include "fsimpl/gofer/plain.h"

#define SET_ID_BITS 06000u

/* ---- creation ---- */

/*
 * A new object's owner and then its special bits, which it was made without: they are its new owner's, never the server's.
 * *inout_node: as it was made.
 */
static int give_to(struct p9_conn *c, uint32_t fid, uint32_t uid, uint32_t gid, uint32_t mode,
		   struct p9_node *inout_node)
{
	struct p9_msg t = {.type = P9_Tsetattr};
	int err = 0;

	t.Tsetattr.fid = fid;
	if (inout_node->uid != uid || inout_node->gid != gid) {
		t.Tsetattr.valid = P9_SETATTR_UID | P9_SETATTR_GID;
		t.Tsetattr.uid = uid;
		t.Tsetattr.gid = gid;
		err = plain_do(c, &t, P9_MUST_WAIT);
		if (!err)
			err = plain_look(c, fid, P9_MUST_WAIT, inout_node);
	}
	if (err || S_ISLNK(inout_node->mode) || !((inout_node->mode ^ mode) & 07000 & mode))
		return err;
	t.Tsetattr.valid = P9_SETATTR_MODE;
	t.Tsetattr.mode = mode & 07777;
	err = plain_do(c, &t, P9_MUST_WAIT);
	return err ? err : plain_look(c, fid, P9_MUST_WAIT, inout_node);
}

/* To the parent, whose node is the last one and in p->at. Return: 0; 1: the walk stopped, reply what it saw; -errno. */
static int walk_to_parent(struct plain *p, uint32_t fid, struct p9_str path, unsigned skip)
{
	int err = plain_walk(p, fid, path, skip, true, 1);

	if (err)
		return err;
	if (p->stopped)
		return 1;
	if (!p->left)
		return -EINVAL;
	return S_ISDIR(p->at.mode) ? 0 : -ENOTDIR;
}

/* The parent's node anew, and the child's. The change is done: a parent that cannot be asked stays as it was before. */
static void add_child(struct plain *p, const struct p9_node *child)
{
	if (!plain_look(p->c, p->fid, P9_MUST_WAIT, &p->at))
		p9_node_put(&p->at, p->nodes + (p->count - 1u) * (size_t)P9_NODE_SIZE);
	plain_add(p, child);
}

/* O_CREAT met a file: opens it. */
static int open_found(struct plain *p, const struct p9_Tmcreate *a, struct p9_Rmcreate *o)
{
	const struct p9_str name = plain_last(p);
	uint32_t fid = p9_fid_alloc(p->c);
	struct p9_node node;
	int err = plain_step(p->c, p->fid, fid, &name, P9_MAY_LEAVE);

	if (err)
		return err;
	err = plain_look(p->c, fid, P9_MAY_LEAVE, &node);
	if (!err)
		plain_add(p, &node);
	if (!err && S_ISLNK(node.mode))
		err = plain_readlink(p, fid);
	else if (!err && !S_ISDIR(node.mode))
		err = plain_open(p, fid, &node, a->newfid, a->want, a->flags, &o->bound,
				 &o->donated);
	p9_fid_clunk(p->c, fid);
	return err;
}

static int create_here(struct plain *p, const struct p9_Tmcreate *a, struct p9_Rmcreate *o)
{
	bool inherit = (a->want & P9_WANT_SETGID) && (p->at.mode & S_ISGID);
	bool donate = a->want & P9_WANT_FD;
	uint32_t fid = donate ? p9_fid_alloc(p->c) : a->newfid;
	uint32_t gid = inherit ? p->at.gid : a->gid, mode = a->mode & ~a->umask;
	struct p9_msg t = {.type = P9_Tlcreate};
	struct p9_node node;
	int err;

	err = fid == P9_NOFID ? -EINVAL : plain_step(p->c, p->fid, fid, NULL, P9_MAY_LEAVE);
	if (err)
		return err;
	t.Tlcreate.fid = fid;
	t.Tlcreate.name = plain_last(p);
	t.Tlcreate.flags = (a->flags & O_ACCMODE) | O_CREAT | O_EXCL | O_NOFOLLOW;
	t.Tlcreate.mode = (mode & ~SET_ID_BITS) | S_IFREG;
	t.Tlcreate.gid = gid;
	err = plain_do(p->c, &t, P9_MAY_LEAVE);
	if (err)
		goto out_clunk;
	o->created = 1;
	err = plain_look(p->c, fid, P9_MUST_WAIT, &node);
	if (!err)
		err = give_to(p->c, fid, a->uid, gid, mode, &node);
	if (err)
		goto out_clunk;
	add_child(p, &node);
	o->bound = !donate;
	o->donated = donate;
	if (donate)
		p->open_fid = (int)fid;
	return 0;
out_clunk:
	p9_fid_clunk(p->c, fid);
	return err;
}

int plain_mcreate(struct plain *p)
{
	const struct p9_Tmcreate *a = &p->t->Tmcreate;
	struct p9_Rmcreate *o = &p->r.Rmcreate;
	int err;

	if ((a->flags & O_TMPFILE) == O_TMPFILE)
		return -EOPNOTSUPP;
	err = walk_to_parent(p, a->fid, a->path, a->skip);
	if (err < 0)
		return err;
	if (!err) {
		p->err = create_here(p, a, o);
		if (p->err == -EEXIST && !(a->flags & O_EXCL))
			p->err = open_found(p, a, o);
	}
	o->err = (uint32_t)-p->err;
	return 0;
}

/* What the four creations without a descriptor have in common. */
struct making {
	struct p9_msg t; /* the plain request */
	uint32_t uid, gid, mode;
	bool is_dir;
};

static int fill_making(struct plain *p, struct making *m)
{
	const struct p9_str name = plain_last(p);
	const struct p9_msg *t = p->t;
	uint32_t want = 0;

	switch (t->type) {
	case P9_Tmmkdir:
		m->t.type = P9_Tmkdir;
		m->uid = t->Tmmkdir.uid;
		m->gid = t->Tmmkdir.gid;
		m->mode = t->Tmmkdir.mode & ~t->Tmmkdir.umask;
		m->is_dir = true;
		want = t->Tmmkdir.want;
		break;
	case P9_Tmmknod:
		m->t.type = P9_Tmknod;
		m->uid = t->Tmmknod.uid;
		m->gid = t->Tmmknod.gid;
		m->mode = t->Tmmknod.mode & ~t->Tmmknod.umask;
		want = t->Tmmknod.want;
		break;
	default:
		m->t.type = P9_Tsymlink;
		m->uid = t->Tmsymlink.uid;
		m->gid = t->Tmsymlink.gid;
		want = t->Tmsymlink.want;
		break;
	}
	if ((want & P9_WANT_SETGID) && (p->at.mode & S_ISGID)) {
		m->gid = p->at.gid;
		m->mode |= m->is_dir ? S_ISGID : 0;
	}
	if (m->t.type == P9_Tmkdir)
		m->t.Tmkdir = (struct p9_Tmkdir){p->fid, name, m->mode & 07777, m->gid};
	else if (m->t.type == P9_Tmknod)
		m->t.Tmknod = (struct p9_Tmknod){
			p->fid,		  name,	 m->mode & ~SET_ID_BITS, t->Tmmknod.major,
			t->Tmmknod.minor, m->gid};
	else
		m->t.Tsymlink = (struct p9_Tsymlink){p->fid, name, t->Tmsymlink.target, m->gid};
	return plain_do(p->c, &m->t, P9_MAY_LEAVE);
}

static int link_here(struct plain *p, uint32_t oldfid, struct p9_str oldpath)
{
	struct plain from = {.c = p->c, .nodes = p->nodes};
	struct p9_msg t = {.type = P9_Tlink};
	unsigned count;
	int err;

	if (!p9_path_ok(oldpath.data, oldpath.len, &count))
		return -EINVAL;
	err = plain_walk(&from, oldfid, oldpath, count, false, 0);
	t.Tlink = (struct p9_Tlink){p->fid, from.fid, plain_last(p)};
	if (!err)
		err = plain_do(p->c, &t, P9_MAY_LEAVE);
	plain_walk_end(&from);
	return err;
}

/* Looks at what was made, and gives it to whom it belongs. */
static int made(struct plain *p, const struct making *m)
{
	const struct p9_str name = plain_last(p);
	uint32_t fid = p9_fid_alloc(p->c);
	struct p9_node node;
	int err = plain_step(p->c, p->fid, fid, &name, P9_MUST_WAIT);

	if (err)
		return err;
	err = plain_look(p->c, fid, P9_MUST_WAIT, &node);
	if (!err && m)
		err = give_to(p->c, fid, m->uid, m->gid, m->mode, &node);
	if (!err)
		add_child(p, &node);
	p9_fid_clunk(p->c, fid);
	return err;
}

int plain_make(struct plain *p)
{
	const struct p9_msg *t = p->t;
	struct making m = {.gid = 0};
	bool link = t->type == P9_Tmlink;
	uint32_t err_code;
	int err;

	switch (t->type) {
	case P9_Tmmkdir:
		err = walk_to_parent(p, t->Tmmkdir.fid, t->Tmmkdir.path, t->Tmmkdir.skip);
		break;
	case P9_Tmmknod:
		err = walk_to_parent(p, t->Tmmknod.fid, t->Tmmknod.path, t->Tmmknod.skip);
		break;
	case P9_Tmsymlink:
		err = walk_to_parent(p, t->Tmsymlink.fid, t->Tmsymlink.path, t->Tmsymlink.skip);
		break;
	default:
		err = walk_to_parent(p, t->Tmlink.fid, t->Tmlink.path, t->Tmlink.skip);
		break;
	}
	if (err < 0)
		return err;
	if (!err)
		p->err = link ? link_here(p, t->Tmlink.oldfid, t->Tmlink.oldpath)
			      : fill_making(p, &m);
	if (!err && !p->err)
		p->err = made(p, link ? NULL : &m);
	err_code = (uint32_t)-p->err;
	if (t->type == P9_Tmmkdir)
		p->r.Rmmkdir.err = err_code;
	else if (t->type == P9_Tmmknod)
		p->r.Rmmknod.err = err_code;
	else if (t->type == P9_Tmsymlink)
		p->r.Rmsymlink.err = err_code;
	else
		p->r.Rmlink.err = err_code;
	return 0;
}

/* ---- removal, rename ---- */

static bool is_unknown(int err)
{
	return err == -EOPNOTSUPP || err == -ENOSYS;
}

/* One name fewer, by what is known: the server cannot be asked by a name that is gone. */
static void lose_name(struct p9_node *node)
{
	node->nlink = S_ISDIR(node->mode) || !node->nlink ? 0 : node->nlink - 1;
}

/* Takes fid. */
static int remove_fid(struct plain *p, uint32_t fid, const struct p9_node *node, uint32_t flags)
{
	struct p9_msg t = {.type = P9_Tunlinkat};
	int err;

	t.Tunlinkat = (struct p9_Tunlinkat){p->fid, plain_last(p), flags};
	err = atomic_load(&p->c->no_unlinkat) ? -EOPNOTSUPP : plain_do(p->c, &t, P9_MAY_LEAVE);
	if (!is_unknown(err)) {
		p9_fid_clunk(p->c, fid);
		return err;
	}
	atomic_store(&p->c->no_unlinkat, true);
	/* Tremove does not say which of the two calls it is. */
	if (S_ISDIR(node->mode) != !!(flags & AT_REMOVEDIR)) {
		p9_fid_clunk(p->c, fid);
		return S_ISDIR(node->mode) ? -EISDIR : -ENOTDIR;
	}
	t = (struct p9_msg){.type = P9_Tremove};
	t.Tremove.fid = fid;
	return plain_do(p->c, &t, P9_MAY_LEAVE);
}

int plain_munlink(struct plain *p)
{
	const struct p9_Tmunlink *a = &p->t->Tmunlink;
	uint32_t fid = p9_fid_alloc(p->c);
	struct p9_str name;
	struct p9_node node;
	int err = walk_to_parent(p, a->fid, a->path, a->skip);

	if (err < 0)
		return err;
	if (err)
		goto out;
	name = plain_last(p);
	p->err = plain_step(p->c, p->fid, fid, &name, P9_MAY_LEAVE);
	if (p->err)
		goto out;
	p->err = plain_look(p->c, fid, P9_MAY_LEAVE, &node);
	if (p->err)
		p9_fid_clunk(p->c, fid);
	else
		p->err = remove_fid(p, fid, &node, a->flags);
	if (!p->err) {
		lose_name(&node);
		add_child(p, &node);
	}
out:
	p->r.Rmunlink.err = (uint32_t)-p->err;
	return 0;
}

/* One side of a rename. */
struct side {
	struct plain walk;
	bool at_dir; /* walk stands at the directory: until then it is where it began */
	uint32_t fid; /* the object, or P9_NOFID: there is none */
	struct p9_node dir, node;
};

static int side_init(struct side *s, struct plain *p, uint32_t fid, struct p9_str path)
{
	struct p9_str name;
	unsigned count;
	int err;

	s->walk.c = p->c;
	s->walk.nodes = p->nodes;
	s->fid = P9_NOFID;
	if (!p9_path_ok(path.data, path.len, &count) || !count)
		return -EINVAL;
	err = plain_walk(&s->walk, fid, path, count - 1, false, 1);
	if (err)
		return err;
	s->at_dir = true;
	name = plain_last(&s->walk);
	fid = p9_fid_alloc(p->c);
	err = plain_step(p->c, s->walk.fid, fid, &name, P9_MAY_LEAVE);
	if (err)
		return err;
	err = plain_look(p->c, fid, P9_MAY_LEAVE, &s->node);
	if (err)
		p9_fid_clunk(p->c, fid);
	else
		s->fid = fid;
	return err;
}

static void side_fini(struct side *s)
{
	if (s->fid != P9_NOFID)
		p9_fid_clunk(s->walk.c, s->fid);
	plain_walk_end(&s->walk);
}

static int rename_sides(struct plain *p, const struct side *from, const struct side *to)
{
	struct p9_msg t = {.type = P9_Trenameat};
	int err;

	t.Trenameat = (struct p9_Trenameat){from->walk.fid, plain_last(&from->walk), to->walk.fid,
					    plain_last(&to->walk)};
	err = atomic_load(&p->c->no_renameat) ? -EOPNOTSUPP : plain_do(p->c, &t, P9_MAY_LEAVE);
	if (!is_unknown(err))
		return err;
	atomic_store(&p->c->no_renameat, true);
	t = (struct p9_msg){.type = P9_Trename};
	t.Trename = (struct p9_Trename){from->fid, to->walk.fid, plain_last(&to->walk)};
	return plain_do(p->c, &t, P9_MAY_LEAVE);
}

/* Both directories and what moved, afterwards; and what it replaced. */
static int renamed(struct plain *p, struct side *from, struct side *to)
{
	const struct p9_str name = plain_last(&to->walk);
	uint32_t fid = p9_fid_alloc(p->c);
	struct p9_node moved;
	int err = plain_look(p->c, from->walk.fid, P9_MUST_WAIT, &from->dir);

	if (!err)
		err = plain_look(p->c, to->walk.fid, P9_MUST_WAIT, &to->dir);
	if (!err)
		err = plain_step(p->c, to->walk.fid, fid, &name, P9_MUST_WAIT);
	if (err)
		return err;
	err = plain_look(p->c, fid, P9_MUST_WAIT, &moved);
	p9_fid_clunk(p->c, fid);
	if (err)
		return err;
	plain_add(p, &from->dir);
	plain_add(p, &to->dir);
	plain_add(p, &moved);
	if (to->fid != P9_NOFID) {
		if (to->node.qid.path != moved.qid.path)
			lose_name(&to->node);
		plain_add(p, &to->node);
	}
	return 0;
}

int plain_mrename(struct plain *p)
{
	const struct p9_Tmrename *a = &p->t->Tmrename;
	struct side from = {.fid = P9_NOFID}, to = {.fid = P9_NOFID};
	int err;

	/* As Linux's client: there is no message for these. */
	if (a->flags)
		return -EINVAL;
	from.walk.c = to.walk.c = p->c;
	err = side_init(&from, p, a->oldfid, a->oldpath);
	if (!err)
		err = side_init(&to, p, a->fid, a->path);
	if (err == -ENOENT && from.fid != P9_NOFID && to.at_dir && to.fid == P9_NOFID)
		err = 0;
	if (!err)
		err = rename_sides(p, &from, &to);
	/* It is done: a reply without nodes makes the client forget both names. */
	if (!err && renamed(p, &from, &to))
		p->count = 0;
	side_fini(&to);
	side_fini(&from);
	return err;
}

/* ---- attributes ---- */

int plain_msetattr(struct plain *p)
{
	const struct p9_Tmsetattr *a = &p->t->Tmsetattr;
	struct p9_msg t = {.type = P9_Tsetattr};
	unsigned count;
	int err;

	if (!p9_path_ok(a->path.data, a->path.len, &count))
		return -EINVAL;
	err = plain_walk(p, a->fid, a->path, count, false, 0);
	if (err)
		return err;
	t.Tsetattr = (struct p9_Tsetattr){
		.fid = p->fid,
		.valid = a->valid,
		.mode = a->mode,
		.uid = a->uid,
		.gid = a->gid,
		.size = a->size,
		.atime_sec = a->atime_sec,
		.atime_nsec = a->atime_nsec,
		.mtime_sec = a->mtime_sec,
		.mtime_nsec = a->mtime_nsec,
	};
	/* A change of owner takes special bits away: the mode comes after it. */
	if ((a->valid & P9_SETATTR_MODE) && (a->valid & (P9_SETATTR_UID | P9_SETATTR_GID)))
		t.Tsetattr.valid &= ~(uint32_t)P9_SETATTR_MODE;
	if (t.Tsetattr.valid)
		err = plain_do(p->c, &t, P9_MAY_LEAVE);
	if (!err && t.Tsetattr.valid != a->valid) {
		t.Tsetattr.valid = P9_SETATTR_MODE;
		err = plain_do(p->c, &t, P9_MUST_WAIT);
	}
	return err ? err
		   : plain_look(p->c, p->fid, a->valid ? P9_MUST_WAIT : P9_MAY_LEAVE,
				&p->r.Rmsetattr.node);
}
