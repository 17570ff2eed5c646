/*
 * fsimpl/gofer/plain.c - a server without Moat's extension (diod, QEMU): compound requests carried out by plain ones.
 *
 * The rest of the client speaks compound requests only. On a plain connection p9_rpc() comes here: the request is done step by step
 * with 9P2000.L's own messages, one after another (diod does not bear a fid's requests at once), and its reply is made up as the gofer
 * would have sent it. So caches, permission checks and the order of errors are the same code for all servers.
 *
 * Performs: a walk costs a Twalk and a Tgetattr for each unknown name; what is known is crossed in one Twalk for 16 names. Files have no descriptor
 * here: plain_io.c reads and writes by requests.
 * Watch: p9_conn_requests() counts the plain requests.
 * Cannot: descriptors, so no mappings; O_TMPFILE; flags of renameat2(2); fallocate; an attribute of what has lost its last name,
 * because a fid of diod's is a path; default ACLs (the umask is applied here) but for what the server's own host does.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "fsimpl/gofer/plain.h"

#define LISTING_MAX 65536u /* bytes of entries in one made-up Rmreaddir */

int plain_do(struct p9_conn *c, struct p9_msg *t, enum p9_wait wait)
{
	struct p9_call call;
	int err = p9_rpc_one(c, &call, t, wait);

	if (!err)
		p9_call_fini(&call);
	return err;
}

/* ---- walking ---- */

int plain_look(struct p9_conn *c, uint32_t fid, enum p9_wait wait, struct p9_node *ret)
{
	struct p9_msg t = {.type = P9_Tgetattr};
	const struct p9_Rgetattr *a;
	struct p9_call call;
	int err;

	t.Tgetattr.fid = fid;
	t.Tgetattr.mask = P9_GETATTR_BASIC | P9_GETATTR_BTIME;
	err = p9_rpc_one(c, &call, &t, wait);
	if (err)
		return err;
	a = &call.r.Rgetattr;
	*ret = (struct p9_node){
		.qid = {.type = a->qid.type & (P9_QTDIR | P9_QTSYMLINK), .path = a->qid.path},
		.mode = a->mode,
		.uid = a->uid,
		.gid = a->gid,
		.nlink = (uint32_t)a->nlink,
		.rdev_major = (uint32_t)(a->rdev >> 8) & 0xfff,
		.rdev_minor = (uint32_t)((a->rdev & 0xff) | ((a->rdev >> 12) & 0xfff00)),
		.blksize = (uint32_t)MIN(a->blksize, 1u << 20),
		.size = a->size,
		.blocks = a->blocks,
		.atime = {a->atime_sec, (uint32_t)a->atime_nsec},
		.mtime = {a->mtime_sec, (uint32_t)a->mtime_nsec},
		.ctime = {a->ctime_sec, (uint32_t)a->ctime_nsec},
	};
	if (a->valid & P9_GETATTR_BTIME)
		ret->btime = (struct p9_time){a->btime_sec, (uint32_t)a->btime_nsec};
	if ((a->valid & P9_GETATTR_BASIC) != P9_GETATTR_BASIC || a->size > INT64_MAX)
		err = -EIO;
	p9_call_fini(&call);
	return err;
}

static int walk_names(struct p9_conn *c, uint32_t fid, uint32_t newfid,
		      const struct p9_names *names, enum p9_wait wait)
{
	struct p9_msg t = {.type = P9_Twalk};
	struct p9_call call;
	int err;

	t.Twalk.fid = fid;
	t.Twalk.newfid = newfid;
	t.Twalk.names = *names;
	err = p9_rpc_one(c, &call, &t, wait);
	if (err)
		return err;
	/* Fewer: a later name is not there, and newfid is not made. */
	if (call.r.Rwalk.qids.count != names->count)
		err = call.r.Rwalk.qids.count < names->count ? -ENOENT : -EIO;
	p9_call_fini(&call);
	return err;
}

int plain_step(struct p9_conn *c, uint32_t fid, uint32_t newfid, const struct p9_str *name,
	       enum p9_wait wait)
{
	struct p9_names names = {.count = name ? 1 : 0};

	if (name)
		names.name[0] = *name;
	return walk_names(c, fid, newfid, &names, wait);
}

/* Cuts the next name off. */
static struct p9_str take_name(struct plain *p)
{
	struct p9_str name = {.data = p->next};

	while (p->left && *p->next != '/') {
		p->next++;
		p->left--;
		name.len++;
	}
	if (p->left) {
		p->next++;
		p->left--;
	}
	return name;
}

struct p9_str plain_last(const struct plain *p)
{
	return (struct p9_str){p->next, (uint16_t)p->left};
}

static unsigned names_left(const struct plain *p)
{
	unsigned count = p->left ? 1 : 0;

	for (size_t i = 0; i < p->left; i++)
		count += p->next[i] == '/';
	return count;
}

/* The walk goes to newfid, which it owns from now on. */
static void stand_at(struct plain *p, uint32_t newfid)
{
	if (p->own && p->fid != newfid)
		p9_fid_clunk(p->c, p->fid);
	p->fid = newfid;
	p->own = true;
	p->looked = false;
}

void plain_walk_end(struct plain *p)
{
	if (p->own)
		p9_fid_clunk(p->c, p->fid);
	p->own = false;
	p->stopped = false;
	p->err = 0;
}

static int skip_names(struct plain *p, unsigned skip)
{
	while (skip) {
		struct p9_names names = {0};
		uint32_t newfid = p9_fid_alloc(p->c);
		int err;

		for (; skip && names.count < P9_WALK_MAX; skip--)
			names.name[names.count++] = take_name(p);
		err = walk_names(p->c, p->fid, newfid, &names, P9_MAY_LEAVE);
		if (err)
			return err;
		stand_at(p, newfid);
	}
	return 0;
}

void plain_add(struct plain *p, const struct p9_node *node)
{
	if (p->count < P9_NODES_MAX)
		p9_node_put(node, p->nodes + (size_t)p->count++ * P9_NODE_SIZE);
}

int plain_readlink(struct plain *p, uint32_t fid)
{
	struct p9_msg t = {.type = P9_Treadlink};
	struct p9_call call;
	int err;

	t.Treadlink.fid = fid;
	err = p9_rpc_one(p->c, &call, &t, P9_MAY_LEAVE);
	if (err)
		return err;
	if (call.r.Rreadlink.target.len > 0 && call.r.Rreadlink.target.len <= P9_PATH_MAX) {
		p->target_len = call.r.Rreadlink.target.len;
		memcpy(p->target, call.r.Rreadlink.target.data, p->target_len);
	} else {
		err = -EIO;
	}
	p9_call_fini(&call);
	return err;
}

/* Steps into the next name, whose node it adds. */
static int walk_one(struct plain *p)
{
	struct p9_str name = take_name(p);
	uint32_t newfid = p9_fid_alloc(p->c);
	int err = plain_step(p->c, p->fid, newfid, &name, P9_MAY_LEAVE);

	if (err)
		return err;
	stand_at(p, newfid);
	err = plain_look(p->c, p->fid, P9_MAY_LEAVE, &p->at);
	if (!err && S_ISLNK(p->at.mode))
		err = plain_readlink(p, p->fid);
	if (err)
		return err;
	p->looked = true;
	plain_add(p, &p->at);
	/* A final symlink is a place. */
	if (S_ISLNK(p->at.mode) || (p->left && !S_ISDIR(p->at.mode)))
		p->stopped = true;
	return 0;
}

int plain_walk(struct plain *p, uint32_t fid, struct p9_str path, unsigned skip, bool self,
	       unsigned keep)
{
	unsigned count;
	int err;

	p->fid = fid;
	p->own = false;
	p->looked = false;
	p->next = path.data;
	p->left = path.len;
	if (!p9_path_ok(path.data, path.len, &count) || skip > count)
		return -EINVAL;
	err = skip_names(p, skip);
	if (!err && self) {
		err = plain_look(p->c, p->fid, P9_MAY_LEAVE, &p->at);
		p->looked = !err;
		if (!err)
			plain_add(p, &p->at);
	}
	if (err)
		return err;
	while (!p->stopped && names_left(p) > keep && p->count < P9_NODES_MAX) {
		p->err = walk_one(p);
		p->stopped |= p->err != 0;
	}
	if (names_left(p) > keep)
		p->stopped = true;
	return 0;
}

/* ---- looking and opening ---- */

static int plain_mwalk(struct plain *p)
{
	const struct p9_Tmwalk *a = &p->t->Tmwalk;
	bool whole;
	int err = plain_walk(p, a->fid, a->path, a->skip, a->want & P9_WANT_SELF, 0);

	if (err)
		return err;
	whole = !p->err && !p->left;
	if (whole && a->newfid != P9_NOFID) {
		err = plain_step(p->c, p->fid, a->newfid, NULL, P9_MAY_LEAVE);
		if (err)
			return err;
		p->r.Rmwalk.bound = 1;
	}
	p->r.Rmwalk.err = (uint32_t)-p->err;
	return 0;
}

int plain_open(struct plain *p, uint32_t fid, const struct p9_node *node, uint32_t newfid,
	       uint32_t want, uint32_t flags, uint8_t *ret_bound, uint8_t *ret_donated)
{
	bool donate = (want & P9_WANT_FD) && S_ISREG(node->mode);
	struct p9_msg t = {.type = P9_Tlopen};
	uint32_t opened = donate ? p9_fid_alloc(p->c) : newfid;
	int err;

	if ((!S_ISREG(node->mode) && !S_ISDIR(node->mode)) || opened == P9_NOFID)
		return 0;
	if (S_ISDIR(node->mode) && (flags & O_ACCMODE) != O_RDONLY)
		return -EISDIR;
	err = plain_step(p->c, fid, opened, NULL, P9_MAY_LEAVE);
	if (err)
		return err;
	t.Tlopen.fid = opened;
	t.Tlopen.flags = (flags & O_ACCMODE) | (S_ISDIR(node->mode) ? O_DIRECTORY : O_NOFOLLOW);
	err = plain_do(p->c, &t, P9_MAY_LEAVE);
	if (err) {
		p9_fid_clunk(p->c, opened);
		return err;
	}
	*ret_bound = !donate;
	*ret_donated = donate;
	if (donate)
		p->open_fid = (int)opened;
	return 0;
}

static int plain_mopen(struct plain *p)
{
	const struct p9_Tmopen *a = &p->t->Tmopen;
	struct p9_Rmopen *o = &p->r.Rmopen;
	int err = plain_walk(p, a->fid, a->path, a->skip, a->want & P9_WANT_SELF, 0);

	if (!err && !p->stopped && !p->looked)
		err = plain_look(p->c, p->fid, P9_MAY_LEAVE, &p->at);
	if (err)
		return err;
	if (!p->stopped)
		p->err = plain_open(p, p->fid, &p->at, a->newfid, a->want, a->flags, &o->bound,
				    &o->donated);
	o->err = (uint32_t)-p->err;
	return 0;
}

/* ---- directories ---- */

/* Appends one Treaddir's entries to the blob. Return: 1, 0 at the end, -errno. */
static int read_entries(struct plain *p, uint32_t fid, uint64_t *inout_offset)
{
	struct p9_msg t = {.type = P9_Treaddir};
	size_t off = 0, end = p->blob_size;
	struct p9_call call;
	struct p9_dirent e;
	int ret, got;

	t.Treaddir.fid = fid;
	t.Treaddir.offset = *inout_offset;
	/* An entry with a node's flag is longer by a byte. */
	t.Treaddir.count = MIN(p->c->msize - P9_IO_OVERHEAD, (LISTING_MAX - p->blob_size) / 2);
	ret = p9_rpc_one(p->c, &call, &t, P9_MAY_LEAVE);
	if (ret)
		return ret;
	ret = call.r.Rreaddir.data.size ? 1 : 0;
	while ((got = p9_dirent_get(call.r.Rreaddir.data.data, call.r.Rreaddir.data.size, &off,
				    false, &e)) == 1) {
		got = p9_dirent_put(p->blob, LISTING_MAX, &end, &e, true);
		if (got)
			break;
		*inout_offset = e.offset;
	}
	p9_call_fini(&call);
	p->blob_size = (uint32_t)end;
	return got < 0 ? -EIO : ret;
}

static int plain_mreaddir(struct plain *p)
{
	const struct p9_Tmreaddir *a = &p->t->Tmreaddir;
	bool open_already = a->newfid == P9_NOFID && !a->path.len;
	uint32_t fid = a->fid;
	uint64_t offset = a->offset;
	uint8_t bound = 0, donated;
	int got, err = 0;

	p->blob = malloc(LISTING_MAX);
	if (!p->blob)
		return -ENOMEM;
	if (!open_already) {
		fid = a->newfid == P9_NOFID ? p9_fid_alloc(p->c) : a->newfid;
		err = plain_walk(
			p, a->fid, a->path,
			names_left(&(struct plain){.next = a->path.data, .left = a->path.len}),
			true, 0);
		p->count = 0;
		if (!err && !S_ISDIR(p->at.mode))
			err = -ENOTDIR;
		if (!err)
			err = plain_open(p, p->fid, &p->at, fid, 0, O_RDONLY, &bound, &donated);
		if (err)
			return err;
	}
	do
		got = read_entries(p, fid, &offset);
	while (got > 0 && p->blob_size < LISTING_MAX / 2);
	/* What was read before an error is shown; the next request meets it again. */
	if (got < 0 && p->blob_size)
		got = 1;
	p->r.Rmreaddir.eof = got == 0;
	p->r.Rmreaddir.bound = bound && got > 0 && a->newfid != P9_NOFID;
	if (bound && !p->r.Rmreaddir.bound)
		p9_fid_clunk(p->c, fid);
	return MIN(got, 0);
}

/* ---- the made-up reply ---- */

/* Nodes, target and payload, where the message has them. */
static void point_reply(struct plain *p)
{
	const struct p9_nodes nodes = {p->nodes, p->count};
	/* A reply without one has none, not an empty one. */
	const struct p9_str target = {p->target_len ? p->target : NULL, p->target_len};
	const struct p9_blob blob = {p->blob ? p->blob : (const uint8_t *)"", p->blob_size};

	switch (p->r.type) {
	case P9_Rmwalk:
		p->r.Rmwalk.nodes = nodes;
		p->r.Rmwalk.target = target;
		break;
	case P9_Rmopen:
		p->r.Rmopen.nodes = nodes;
		p->r.Rmopen.target = target;
		break;
	case P9_Rmcreate:
		p->r.Rmcreate.nodes = nodes;
		p->r.Rmcreate.target = target;
		break;
	case P9_Rmmkdir:
		p->r.Rmmkdir.nodes = nodes;
		break;
	case P9_Rmmknod:
		p->r.Rmmknod.nodes = nodes;
		break;
	case P9_Rmsymlink:
		p->r.Rmsymlink.nodes = nodes;
		break;
	case P9_Rmlink:
		p->r.Rmlink.nodes = nodes;
		break;
	case P9_Rmunlink:
		p->r.Rmunlink.nodes = nodes;
		break;
	case P9_Rmrename:
		p->r.Rmrename.nodes = nodes;
		break;
	case P9_Rmreaddir:
		p->r.Rmreaddir.data = blob;
		break;
	case P9_Rmgetxattr:
		p->r.Rmgetxattr.data = blob;
		break;
	case P9_Rmlistxattr:
		p->r.Rmlistxattr.data = blob;
		break;
	default:
		break;
	}
}

static int encode_reply(struct plain *p, struct p9_call *call)
{
	size_t max = 512 + (size_t)p->count * P9_NODE_SIZE + p->target_len + p->blob_size, size;
	int err;

	p9_call_init(call);
	point_reply(p);
	call->buf = malloc(max);
	if (!call->buf)
		return -ENOMEM;
	err = p9_encode(&p->r, call->buf, max, &size);
	if (!err)
		err = p9_decode(call->buf, size, &call->r);
	if (err) {
		free(call->buf);
		call->buf = NULL;
		return -EIO;
	}
	call->size = (uint32_t)size;
	call->fd = p->open_fid;
	call->plain = p->c;
	p->open_fid = -1;
	return 0;
}

static int carry_out(struct plain *p)
{
	switch (p->t->type) {
	case P9_Tmwalk:
		return plain_mwalk(p);
	case P9_Tmopen:
		return plain_mopen(p);
	case P9_Tmcreate:
		return plain_mcreate(p);
	case P9_Tmmkdir:
	case P9_Tmmknod:
	case P9_Tmsymlink:
	case P9_Tmlink:
		return plain_make(p);
	case P9_Tmunlink:
		return plain_munlink(p);
	case P9_Tmrename:
		return plain_mrename(p);
	case P9_Tmsetattr:
		return plain_msetattr(p);
	case P9_Tmreaddir:
		return plain_mreaddir(p);
	case P9_Tmgetxattr:
		return plain_mgetxattr(p);
	case P9_Tmsetxattr:
		return plain_msetxattr(p);
	case P9_Tmlistxattr:
		return plain_mlistxattr(p);
	case P9_Tmremovexattr:
		return plain_mremovexattr(p);
	default:
		return -EOPNOTSUPP;
	}
}

int p9_plain_rpc(struct p9_conn *c, struct p9_call *call, struct p9_msg *t)
{
	struct plain *p = calloc(1, sizeof(*p));
	int err = -ENOMEM;

	if (!p)
		return err;
	p->nodes = malloc((size_t)P9_NODES_MAX * P9_NODE_SIZE);
	p->c = c;
	p->t = t;
	p->r.type = t->type + 1;
	p->open_fid = -1;
	if (p->nodes)
		err = carry_out(p);
	plain_walk_end(p);
	if (!err)
		err = encode_reply(p, call);
	if (p->open_fid >= 0)
		p9_fid_clunk(c, (uint32_t)p->open_fid);
	free(p->nodes);
	free(p->blob);
	free(p);
	return err;
}
