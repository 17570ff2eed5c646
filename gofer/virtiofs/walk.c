/*
 * gofer/virtiofs/walk.c - MOAT_WALK (wire/fuse_walk.h): several LOOKUPs in one request, and the OPEN or CREATE at their end.
 *
 * Each name is looked up from the node of the one before by what serves LOOKUP, so that what a client reaches by a walk is what it reaches by
 * LOOKUPs. A node is used (node_get()) while the walk stands on it: another queue may forget it meanwhile.
 */
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

struct walk {
	struct request *r;
	struct fuse_walk_in in;
	struct fuse_walk_reply *reply;
	struct node *at; /* a use */
	unsigned max; /* entries that there is room for */
	char name[FUSE_NAME_BYTES_MAX + 1];
};

/* Steps to what was found last. Return: 0, -errno. */
static int step(struct walk *w)
{
	const struct fuse_entry_out *last = &w->reply->entries[w->reply->out.count - 1];
	struct node *n = node_get(w->r->d, last->nodeid);

	if (!n)
		return -ESTALE;
	node_put(w->r->d, w->at);
	w->at = n;
	return 0;
}

/* May names be looked up below what was found last? */
static bool goes_on(const struct walk *w)
{
	const struct fuse_attr *a = &w->reply->entries[w->reply->out.count - 1].attr;

	return S_ISDIR(a->mode) && !(a->flags & FUSE_ATTR_SUBMOUNT);
}

/* The file that was found last, opened. Whatever keeps it closed is for OPEN to say. */
static void open_last(struct walk *w)
{
	struct daemon *d = w->r->d;
	struct fuse_walk_out *out = &w->reply->out;
	struct node *n;
	int fd = -1;

	if (d->config.readonly && (w->in.open_flags & O_ACCMODE) != O_RDONLY)
		return;
	n = node_get(d, w->reply->entries[out->count - 1].nodeid);
	if (n && n->type == S_IFREG)
		fd = node_open(d, n, open_flags(d, w->in.open_flags & O_ACCMODE));
	if (n)
		node_put(d, n);
	if (fd >= 0 && !add_open(d, fd, &out->open))
		out->flags |= FUSE_WALK_OPENED;
}

/* The last name, made if it is not there. Return: 0: it is the last entry now; -errno. */
static int create_last(struct walk *w)
{
	struct daemon *d = w->r->d;
	struct fuse_walk_out *out = &w->reply->out;
	struct fuse_entry_out *e = &w->reply->entries[out->count];
	int fd = -EROFS, err;

	if (!d->config.readonly)
		fd = file_make(w->r, w->at, w->name, open_flags(d, w->in.open_flags & O_ACCMODE),
			       w->in.mode, w->in.umask, e);
	if (fd < 0) {
		err = lookup_entry(d, w->at, w->name, e);
		/* What is there is told of; what is not could not be made. */
		if (err)
			return err == -ENOENT ? fd : err;
		out->count++;
		if (w->in.flags & FUSE_WALK_OPEN)
			open_last(w);
		return 0;
	}
	err = add_open(d, fd, &out->open);
	if (err) {
		node_forget(d, e->nodeid, 1);
		(void)remove_name(d, w->at, w->name, 0);
		return err;
	}
	out->count++;
	out->flags = FUSE_WALK_OPENED | FUSE_WALK_CREATED;
	return 0;
}

/* One name. Return: 0, -errno: not found, which is no error of the request's. */
static int look(struct walk *w, bool last)
{
	struct fuse_walk_out *out = &w->reply->out;
	int err;

	if (w->at->type != S_IFDIR)
		return -ENOTDIR;
	if (last && (w->in.flags & FUSE_WALK_CREATE))
		return create_last(w);
	if (w->r->d->versions_on)
		out->name_version = version_of_name(w->r->d, w->at, w->name);
	err = lookup_entry(w->r->d, w->at, w->name, &w->reply->entries[out->count]);
	if (err)
		return err;
	out->count++;
	if (last && (w->in.flags & FUSE_WALK_OPEN))
		open_last(w);
	return 0;
}

/* Return: 0, -errno of a path that is none. */
static int walk(struct walk *w, const char *path, size_t left)
{
	struct fuse_walk_out *out = &w->reply->out;
	const char *name;
	size_t len;
	int got;

	while ((got = fuse_walk_next(&path, &left, &name, &len)) == 1) {
		if (out->count == w->max || (out->count && !goes_on(w)))
			return 0;
		if (out->count)
			out->error = step(w);
		memcpy(w->name, name, len);
		w->name[len] = '\0';
		if (!out->error)
			out->error = look(w, left == 0);
		if (out->error)
			return 0;
	}
	/* Known only now: what was found before it stays. */
	if (got < 0 && out->count)
		out->error = got;
	return out->count ? 0 : got ? got : -EINVAL;
}

int do_walk(struct request *r, struct node *n)
{
	struct walk w = {.r = r, .reply = (struct fuse_walk_reply *)(void *)r->reply};
	const size_t fixed = sizeof(struct fuse_out_header) + sizeof(w.reply->out);
	int err;

	if (!r->d->walks)
		return -ENOSYS;
	if (r->chain->in_size < fixed + sizeof(w.reply->entries[0]))
		return -EINVAL;
	w.max = (unsigned)MIN((r->chain->in_size - fixed) / sizeof(w.reply->entries[0]),
			      (uint64_t)FUSE_WALK_ENTRIES_MAX);
	memcpy(&w.in, r->in.arg, sizeof(w.in));
	memset(&w.reply->out, 0, sizeof(w.reply->out));
	/* The caller's use of n stays. */
	w.at = node_get(r->d, n->id);
	if (!w.at)
		return -ESTALE;
	err = walk(&w, r->in.name[0], r->in.name_len[0]);
	node_put(r->d, w.at);
	if (!err)
		r->reply_size =
			sizeof(w.reply->out) + w.reply->out.count * sizeof(w.reply->entries[0]);
	return err;
}
