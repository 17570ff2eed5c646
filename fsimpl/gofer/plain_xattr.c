/* fsimpl/gofer/plain_xattr.c - extended attributes on a plain server: Txattrwalk and Txattrcreate make a fid that is the value. */
#include <stdlib.h>
#include <string.h>

#include "fsimpl/gofer/plain.h"

/* To the file of a request. */
static int walk_to(struct plain *p, uint32_t fid, struct p9_str path)
{
	unsigned count;

	if (!p9_path_ok(path.data, path.len, &count))
		return -EINVAL;
	return plain_walk(p, fid, path, count, false, 0);
}

/* The value behind an attribute fid, all `size` bytes, as the reply's payload. */
static int read_value(struct plain *p, uint32_t fid, uint32_t size)
{
	p->blob = malloc(size + 1u);
	if (!p->blob)
		return -ENOMEM;
	while (p->blob_size < size) {
		struct p9_msg t = {.type = P9_Tread};
		struct p9_call call;
		uint32_t got;
		int err;

		t.Tread.fid = fid;
		t.Tread.offset = p->blob_size;
		t.Tread.count = MIN(size - p->blob_size, p->c->msize - P9_IO_OVERHEAD);
		err = p9_rpc_one(p->c, &call, &t, P9_MAY_LEAVE);
		if (err)
			return err;
		got = call.r.Rread.data.size;
		if (got && got <= t.Tread.count)
			memcpy(p->blob + p->blob_size, call.r.Rread.data.data, got);
		p9_call_fini(&call);
		if (!got || got > t.Tread.count)
			return -EIO;
		p->blob_size += got;
	}
	return 0;
}

/* Of the walk's file; an empty name: the list of names. max 0: only the size. */
static int get(struct plain *p, struct p9_str name, uint32_t max, uint32_t *ret_size)
{
	struct p9_msg t = {.type = P9_Txattrwalk};
	uint32_t fid = p9_fid_alloc(p->c);
	struct p9_call call;
	uint64_t size;
	int err;

	t.Txattrwalk = (struct p9_Txattrwalk){p->fid, fid, name};
	err = p9_rpc_one(p->c, &call, &t, P9_MAY_LEAVE);
	if (err)
		return err;
	size = call.r.Rxattrwalk.size;
	p9_call_fini(&call);
	if (size > VFS_XATTR_SIZE_MAX)
		err = -E2BIG;
	else if (max && size > max)
		err = -ERANGE;
	else if (max)
		err = read_value(p, fid, (uint32_t)size);
	p9_fid_clunk(p->c, fid);
	*ret_size = (uint32_t)size;
	return err;
}

int plain_mgetxattr(struct plain *p)
{
	const struct p9_Tmgetxattr *a = &p->t->Tmgetxattr;
	int err = walk_to(p, a->fid, a->path);

	return err ? err : get(p, a->name, a->size, &p->r.Rmgetxattr.size);
}

int plain_mlistxattr(struct plain *p)
{
	const struct p9_Tmlistxattr *a = &p->t->Tmlistxattr;
	int err = walk_to(p, a->fid, a->path);

	return err ? err : get(p, p9_str(""), a->size, &p->r.Rmlistxattr.size);
}

static int set(struct plain *p, struct p9_str name, struct p9_blob value, uint32_t flags)
{
	uint32_t fid = p9_fid_alloc(p->c);
	struct p9_msg t = {.type = P9_Txattrcreate};
	uint32_t done = 0;
	int err = plain_step(p->c, p->fid, fid, NULL, P9_MAY_LEAVE), clunk_err;

	if (err)
		return err;
	t.Txattrcreate = (struct p9_Txattrcreate){fid, name, value.size, flags};
	err = plain_do(p->c, &t, P9_MAY_LEAVE);
	while (!err && done < value.size) {
		uint32_t size = MIN(value.size - done, p->c->msize - P9_IO_OVERHEAD);

		t = (struct p9_msg){.type = P9_Twrite};
		t.Twrite = (struct p9_Twrite){fid, done, {value.data + done, size}};
		err = plain_do(p->c, &t, P9_MAY_LEAVE);
		done += size;
	}
	/* The clunk sets it, and says what came of that. */
	t = (struct p9_msg){.type = P9_Tclunk};
	t.Tclunk.fid = fid;
	clunk_err = plain_do(p->c, &t, P9_MUST_WAIT);
	return err ? err : clunk_err;
}

int plain_msetxattr(struct plain *p)
{
	const struct p9_Tmsetxattr *a = &p->t->Tmsetxattr;
	int err = walk_to(p, a->fid, a->path);

	if (!err)
		err = set(p, a->name, a->data, a->flags);
	return err ? err : plain_look(p->c, p->fid, P9_MUST_WAIT, &p->r.Rmsetxattr.node);
}

int plain_mremovexattr(struct plain *p)
{
	const struct p9_Tmremovexattr *a = &p->t->Tmremovexattr;
	const struct p9_blob none = {(const uint8_t *)"", 0};
	uint32_t size;
	int err = walk_to(p, a->fid, a->path);

	/* An empty value stands for removal: what is not there cannot be removed. */
	if (!err)
		err = get(p, a->name, 0, &size);
	if (!err)
		err = set(p, a->name, none, 0);
	return err ? err : plain_look(p->c, p->fid, P9_MUST_WAIT, &p->r.Rmremovexattr.node);
}
