/*
 * fsimpl/virtiofs/walk_ask.c - one request for all that a walk does not know (MOAT_WALK, which our own daemon has), and for what is done at its end.
 *
 * The reply's entries are entered in the cache as LOOKUPs' are, and kept for this walk, which goes on over them whatever the mount's mode says of
 * believing: they were asked for by it. What the walk meets is checked as if it had been known before: the guest's right to search each
 * directory, mount points, symlinks, at which the request ends.
 *
 * open(2) has its file opened along with that, before the guest's rights are known: nobody sees it, and a handle that is not wanted is given back.
 * A file is made along with it only for credentials that may do that whatever the walk meets; behind a place where something may be mounted nothing is
 * asked for.
 */
#include <fcntl.h>
#include <linux/capability.h>
#include <string.h>

#include "fsimpl/remote/rest.h"
#include "fsimpl/virtiofs/internal.h"

/* A request's names. */
struct asked {
	char path[FUSE_PATH_BYTES_MAX + 1];
	size_t len;
	unsigned count;
	bool all; /* the whole rest of the path, which ends in a name */
	struct {
		const char *name;
		uint16_t len;
	} names[FUSE_WALK_ENTRIES_MAX];
};

static void forget_told(struct virtiofs_walk *wk)
{
	while (wk->told_next < wk->told_count)
		remote_dentry_unref(wk->told[wk->told_next++].d);
	wk->fail_dir = NULL;
}

void virtiofs_walk_fini(struct virtiofs_walk *wk)
{
	forget_told(wk);
	virtiofs_walk_drop_next(wk);
}

int virtiofs_walk_told(struct virtiofs_walk *wk, struct remote_dentry **ret)
{
	const char *name = rp_component(wk->rp);

	if (wk->told_next < wk->told_count) {
		struct virtiofs_told *t = &wk->told[wk->told_next];

		if (t->name == name && remote_parent(t->d) == wk->cur) {
			wk->told_next++;
			*ret = t->d;
			return 0;
		}
	} else if (wk->fail_dir == wk->cur && wk->fail_name == name) {
		return wk->fail_err;
	}
	/* A symlink or ".." led elsewhere. */
	forget_told(wk);
	return 1;
}

/* ---- the request ---- */

static void gather(struct virtiofs_walk *wk, struct asked *a)
{
	struct remote_rest rest;

	a->len = 0;
	a->count = 0;
	a->all = false;
	rcu_read_begin();
	remote_rest_begin(&rest, &wk->fs->dcache, wk->cur, wk->rp);
	while (!a->all && a->count < FUSE_WALK_ENTRIES_MAX && remote_rest_next(&rest)) {
		if (a->len + rest.len + 1 > FUSE_PATH_BYTES_MAX)
			break;
		if (a->len)
			a->path[a->len++] = '/';
		memcpy(a->path + a->len, rest.name, rest.len);
		a->len += rest.len;
		a->names[a->count].name = rest.name;
		a->names[a->count++].len = (uint16_t)rest.len;
		a->all = rest.last;
	}
	rcu_read_end();
}

/* May a file be made by these credentials whatever directory the path leads to? */
static bool may_all(const struct cred *cred)
{
	return cred_has_cap(cred, CAP_DAC_OVERRIDE) && cred_has_cap(cred, CAP_FOWNER) &&
	       cred_has_cap(cred, CAP_FSETID);
}

/* What is to be done at the end of the path along with the walk. */
static uint32_t wanted_of(struct virtiofs_walk *wk, const struct asked *a)
{
	const struct virtiofs_hint *h = wk->hint;
	uint32_t wanted = 0;
	unsigned flags;

	if (!h || !a->all || h->opened)
		return 0;
	flags = h->args->flags;
	/* What CREATE and OPEN are asked for alike; with more, OPEN is a request of its own. */
	if (!(flags & (O_DIRECTORY | O_SYNC | O_DSYNC | O_NOATIME)) &&
	    (flags & (O_CREAT | O_EXCL)) != (O_CREAT | O_EXCL))
		wanted |= FUSE_WALK_OPEN;
	if ((flags & O_CREAT) && may_all(rp_cred(wk->rp)) && !remote_is_dead(wk->cur) &&
	    rp_begin_write(wk->rp) == 0)
		wanted |= FUSE_WALK_CREATE;
	return wanted;
}

/* The walk goes on, perhaps in another mount. */
static void end_write(struct resolving_path *rp)
{
	if (!rp->writing)
		return;
	rp->writing = false;
	mount_end_write(rp->write_mount);
}

static void fill_arg(struct virtiofs_walk *wk, struct vdev_call *call, struct fuse_walk_in *in,
		     uint32_t wanted)
{
	struct virtiofs_hint *h = wk->hint;

	*in = (struct fuse_walk_in){.flags = wanted};
	if (!wanted)
		return;
	h->flags = virtiofs_open_access(wk->fs, h->args->flags);
	if (wanted & FUSE_WALK_CREATE) {
		in->mode = virtiofs_masked(wk->fs, h->args->mode & 07777, h->args->umask) | S_IFREG;
		in->umask = h->args->umask;
		/* It is given to them, and in a setgid directory to its group. */
		call->ids_set = true;
		call->req.uid = rp_cred(wk->rp)->fsuid;
		call->req.gid = rp_cred(wk->rp)->fsgid;
	}
	in->open_flags = h->flags;
}

/* ---- the reply ---- */

/* It makes no sense, or cannot be taken in: nothing of it is kept. */
static int refuse(struct virtiofs_walk *wk, const struct fuse_walk_reply *r, unsigned from, int err)
{
	for (unsigned i = from; i < r->out.count; i++)
		if (fuse_entry_ok(&r->entries[i]))
			virtiofs_forget(wk->fs, r->entries[i].nodeid, 1);
	return err;
}

/* A handle that nobody takes. */
static void give_back(struct virtiofs_fs *fs, const struct fuse_entry_out *e,
		      const struct fuse_open_out *o, unsigned flags)
{
	const struct fuse_release_in arg = {.fh = o->fh, .flags = flags};
	struct vdev_call call = {
		.req = {.opcode = FUSE_RELEASE, .nodeid = e->nodeid, .arg = &arg},
		.unkillable = true, /* or the daemon keeps it for good */
	};

	if (vdev_begin_unwaited(fs->dev, &call) == -EAGAIN)
		(void)!virtiofs_call(fs, &call); /* nobody is left to tell */
}

static void keep_failure(struct virtiofs_walk *wk, const struct fuse_walk_reply *r,
			 const struct asked *a, struct remote_dentry *dir)
{
	unsigned at = r->out.count;

	wk->fail_dir = dir;
	wk->fail_name = a->names[at].name;
	wk->fail_err = r->out.error;
	virtiofs_dir_looked_up(virtiofs_inode_of(dir));
	if (r->out.error == -ENOENT)
		virtiofs_enter_negative(wk->fs, dir, a->names[at].name, a->names[at].len,
					r->out.name_version);
}

static void keep_end(struct virtiofs_walk *wk, const struct fuse_walk_reply *r, unsigned epoch)
{
	struct virtiofs_hint *h = wk->hint;

	remote_dentry_unref(h->child);
	h->child = remote_dentry_ref(wk->told[wk->told_count - 1].d);
	h->opened = r->out.flags & FUSE_WALK_OPENED;
	h->created = r->out.flags & FUSE_WALK_CREATED;
	h->epoch = epoch;
	h->out = r->out.open;
}

static int take_reply(struct virtiofs_walk *wk, struct fuse_walk_reply *r, const struct asked *a,
		      uint32_t wanted, struct virtiofs_when when, unsigned epoch)
{
	struct remote_dentry *dir = wk->cur;
	unsigned count = r->out.count;
	int err = 0;

	wk->told_next = wk->told_count = 0;
	for (unsigned i = 0; i < count && !err; i++) {
		struct virtiofs_told *t = &wk->told[i];

		t->name = a->names[i].name;
		err = virtiofs_enter(wk->fs, dir, t->name, a->names[i].len, &r->entries[i], when,
				     &t->d);
		if (!err && i)
			virtiofs_dir_looked_up(virtiofs_inode_of(dir));
		if (!err) {
			dir = t->d;
			wk->told_count++;
		}
	}
	if (err) {
		if (r->out.flags & FUSE_WALK_OPENED)
			give_back(wk->fs, &r->entries[count - 1], &r->out.open, wk->hint->flags);
		/* The one that failed is forgotten already. */
		return refuse(wk, r, wk->told_count + 1, err);
	}
	/* Why a file could not be made is found out by making it. */
	if (r->out.error && !((wanted & FUSE_WALK_CREATE) && count + 1 == a->count))
		keep_failure(wk, r, a, dir);
	if (wk->hint && a->all && count == a->count)
		keep_end(wk, r, epoch);
	return 0;
}

/* The entries' nodes get the device's names; one that cannot is none. */
static int name_entries(struct fuse_walk_reply *r, unsigned epoch)
{
	int err = 0;

	for (unsigned i = 0; i < r->out.count; i++) {
		if (!virtiofs_entry_named(&r->entries[i], epoch))
			continue;
		r->entries[i].nodeid = 0;
		err = -EIO;
	}
	return err;
}

int virtiofs_walk_ask(struct virtiofs_walk *wk)
{
	const unsigned epoch = vdev_epoch(wk->fs->dev);
	struct virtiofs_when when;
	struct fuse_walk_reply r;
	struct fuse_walk_in in;
	struct asked a;
	struct vdev_call call = {
		.req = {.opcode = FUSE_MOAT_WALK,
			.nodeid = virtiofs_inode_of(wk->cur)->nodeid,
			.arg = &in,
			.name = {a.path}},
		.reply = &r,
		.reply_size = sizeof(r),
	};
	uint32_t wanted;
	ssize_t got;
	int err;

	if (!(wk->fs->init_flags & FUSE_HAS_MOAT_WALK) || (rp_final(wk->rp) && !wk->hint))
		return 1;
	gather(wk, &a);
	wanted = wanted_of(wk, &a);
	if (!a.count || (a.count == 1 && !wanted))
		return 1;
	call.req.name_len[0] = a.len;
	fill_arg(wk, &call, &in, wanted);
	when = virtiofs_now(wk->fs);
	got = virtiofs_call(wk->fs, &call);
	if (got < 0) {
		err = (int)got;
	} else {
		err = fuse_walk_check(&r, (size_t)got, a.count, wanted);
		if (name_entries(&r, epoch) || err)
			err = refuse(wk, &r, 0, -EIO);
		else
			err = take_reply(wk, &r, &a, wanted, when, epoch);
	}
	if ((wanted & FUSE_WALK_CREATE) && (err || !wk->hint->created))
		end_write(wk->rp);
	return err;
}

int virtiofs_walk_ask_last(struct virtiofs_walk *wk)
{
	struct virtiofs_inode *in = virtiofs_inode_of(wk->cur);
	struct virtiofs_clock clock = {0};
	struct perm_inode pi;
	int err;

	if (!wk->hint || wk->hint->child || !(wk->hint->args->flags & O_CREAT) || rp_done(wk->rp) ||
	    !may_all(rp_cred(wk->rp)) || !remote_is_dir(wk->cur) ||
	    virtiofs_inode_asked(in, wk->since) || virtiofs_peek_perm(in, &clock, &pi))
		return 0;
	forget_told(wk);
	err = virtiofs_walk_ask(wk);
	return MIN(err, 0);
}

/* ---- hints ---- */

int virtiofs_hint_take(struct virtiofs_hint *h, struct remote_dentry *d,
		       struct virtiofs_handle **ret)
{
	int err;

	if (!h || !h->opened || h->child != d)
		return 0;
	err = virtiofs_handle_adopt(virtiofs_inode_of(d), h->flags, h->epoch, &h->out, ret);
	if (err)
		return err;
	h->opened = false;
	return 1;
}

void virtiofs_hint_fini(struct virtiofs_hint *h)
{
	const struct fuse_entry_out e = {.nodeid = h->child ? virtiofs_inode_of(h->child)->nodeid
							    : 0};

	/* The handle of a daemon that is gone went with it. */
	if (h->opened && h->epoch == vdev_epoch(virtiofs_inode_of(h->child)->fs->dev))
		give_back(virtiofs_inode_of(h->child)->fs, &e, &h->out, h->flags);
	remote_dentry_unref(h->child);
}
