/* gofer/virtiofs/request.c - one request of a ring: copied, decoded, served, answered. */
#include <stdlib.h>
#include <string.h>

#include "gofer/virtiofs/server.h"

unsigned request_slice(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t size,
		       struct iovec *ret, unsigned max)
{
	unsigned out = 0;

	for (unsigned i = 0; i < count && size && out < max; i++) {
		size_t len = iov[i].iov_len;

		if (skip >= len) {
			skip -= len;
			continue;
		}
		len = MIN(len - skip, size);
		ret[out++] = (struct iovec){(char *)iov[i].iov_base + skip, len};
		size -= len;
		skip = 0;
	}
	return out;
}

/* Copies from or to the pieces. Return: bytes. */
static size_t copy_out(const struct iovec *iov, unsigned count, void *buf, size_t size)
{
	size_t done = 0;

	front_end_begin();
	for (unsigned i = 0; i < count && done < size; i++) {
		size_t n = MIN(iov[i].iov_len, size - done);

		memcpy((char *)buf + done, iov[i].iov_base, n);
		done += n;
	}
	front_end_end();
	return done;
}

static void copy_in(const struct iovec *iov, unsigned count, uint64_t skip, const void *buf,
		    size_t size)
{
	size_t done = 0;

	front_end_begin();
	for (unsigned i = 0; i < count && done < size; i++) {
		size_t n;

		if (skip >= iov[i].iov_len) {
			skip -= iov[i].iov_len;
			continue;
		}
		n = MIN(iov[i].iov_len - skip, size - done);
		memcpy((char *)iov[i].iov_base + skip, (const char *)buf + done, n);
		done += n;
		skip = 0;
	}
	front_end_end();
}

uint32_t request_answer(const struct iovec *in, unsigned count, uint64_t size, uint64_t unique,
			int error)
{
	const struct fuse_out_header head = {.len = sizeof(head), .error = error, .unique = unique};

	if (size < sizeof(head))
		return 0;
	copy_in(in, count, 0, &head, sizeof(head));
	return sizeof(head);
}

static uint32_t answer(const struct virtq_chain *c, uint64_t unique, int error, const void *payload,
		       size_t size, size_t in_place)
{
	struct fuse_out_header head = {.error = error, .unique = unique};
	uint64_t total = sizeof(head) + (error ? 0 : size + in_place);

	/* A reply that does not fit is no reply: the client sees used.len 0. */
	if (c->in_size < total)
		return 0;
	head.len = (uint32_t)total;
	copy_in(c->in, c->in_count, 0, &head, sizeof(head));
	if (!error && size)
		copy_in(c->in, c->in_count, sizeof(head), payload, size);
	return head.len;
}

static void forget(struct daemon *d, const struct fuse_decoded *in)
{
	if (in->head.opcode == FUSE_FORGET) {
		struct fuse_forget_in arg;

		memcpy(&arg, in->arg, sizeof(arg));
		node_forget(d, in->head.nodeid, arg.nlookup);
	} else {
		struct fuse_batch_forget_in arg;
		const char *at = in->data;
		size_t left = in->data_size;

		memcpy(&arg, in->arg, sizeof(arg));
		while (arg.count-- && left >= sizeof(struct fuse_forget_one)) {
			struct fuse_forget_one one;

			memcpy(&one, at, sizeof(one));
			node_forget(d, one.nodeid, one.nlookup);
			at += sizeof(one);
			left -= sizeof(one);
		}
	}
}

/* The flags of INIT's upper word. Return: those that are granted. */
static uint64_t init_more(struct daemon *d, uint64_t wanted)
{
	uint64_t granted = 0;

	if ((wanted & FUSE_HAS_INODE_DAX) && dax_on(d))
		granted |= FUSE_HAS_INODE_DAX;
	d->inode_dax = granted & FUSE_HAS_INODE_DAX;
	/* GET_VERSIONS has started them; who asks for seconds after all gets seconds. */
	d->versions_on = (wanted & FUSE_MOAT_VERSIONS) && d->notify_fd >= 0;
	if (d->versions_on)
		granted |= FUSE_MOAT_VERSIONS;
	d->walks = wanted & FUSE_HAS_MOAT_WALK;
	return granted | (wanted & FUSE_HAS_MOAT_WALK);
}

/* The flags of INIT's lower word that this daemon grants who asks. */
static uint32_t init_ours(const struct daemon *d)
{
	const struct virtiofsd_config *c = &d->config;

	return FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |
	       FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |
	       FUSE_MAX_PAGES | FUSE_DONT_MASK | FUSE_INIT_EXT | FUSE_SETXATTR_EXT |
	       (c->writeback ? FUSE_WRITEBACK_CACHE : 0) | (c->posix_lock ? FUSE_POSIX_LOCKS : 0) |
	       (c->flock ? FUSE_FLOCK_LOCKS : 0) | (c->posix_acl ? FUSE_POSIX_ACL : 0) |
	       (c->submounts ? FUSE_SUBMOUNTS : 0) |
	       (c->no_killpriv ? 0 : FUSE_HANDLE_KILLPRIV_V2) |
	       (dax_on(d) ? FUSE_MAP_ALIGNMENT : 0);
}

static int serve_init(struct request *r)
{
	const uint32_t ours = init_ours(r->d);
	struct fuse_init_in in = {0};
	struct fuse_init_out out = {0};
	size_t out_size = sizeof(out);

	/* INIT grew in time: an old client's ends before the new fields. */
	memcpy(&in, r->in.arg, MIN(sizeof(in), r->in.arg_size + r->in.data_size));
	if (in.major < FUSE_KERNEL_VERSION || (in.major == FUSE_KERNEL_VERSION && in.minor < 31))
		return -EPROTO;
	out.major = FUSE_KERNEL_VERSION;
	out.minor = FUSE_WIRE_MINOR;
	if (in.major == FUSE_KERNEL_VERSION) {
		out.max_readahead = MIN(in.max_readahead, MAX_IO);
		out.flags = in.flags & ours;
		r->d->writeback = out.flags & FUSE_WRITEBACK_CACHE;
		r->d->submounts = out.flags & FUSE_SUBMOUNTS;
		r->d->killpriv = out.flags & FUSE_HANDLE_KILLPRIV_V2;
		r->d->setxattr_ext = out.flags & FUSE_SETXATTR_EXT;
		out.max_background = 64;
		out.congestion_threshold = 48;
		out.max_write = MAX_IO;
		out.time_gran = 1;
		out.max_pages = MAX_IO / 4096;
		if (out.flags & FUSE_MAP_ALIGNMENT)
			out.map_alignment = __builtin_ctzl(DAX_ALIGN);
		out.flags2 = init_more(r->d,
				       out.flags & FUSE_INIT_EXT ? (uint64_t)in.flags2 << 32 : 0) >>
			     32;
		atomic_store(&r->d->initialised, true);
	}
	memcpy(r->reply, &out, out_size);
	r->reply_size = out_size;
	return 0;
}

/* Requests that change the tree whatever their arguments are. OPEN looks at its flags itself. */
static bool is_change(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_SETATTR:
	case FUSE_SYMLINK:
	case FUSE_MKNOD:
	case FUSE_MKDIR:
	case FUSE_UNLINK:
	case FUSE_RMDIR:
	case FUSE_RENAME:
	case FUSE_RENAME2:
	case FUSE_LINK:
	case FUSE_WRITE:
	case FUSE_SETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_CREATE:
	case FUSE_TMPFILE:
	case FUSE_FALLOCATE:
	case FUSE_COPY_FILE_RANGE:
		return true;
	default:
		return false;
	}
}

/* Are all of its strings names in a directory? Others look at theirs themselves. */
static bool has_names(uint32_t opcode)
{
	switch (opcode) {
	case FUSE_SYMLINK:
	case FUSE_SETXATTR:
	case FUSE_GETXATTR:
	case FUSE_REMOVEXATTR:
	case FUSE_TMPFILE:
	case FUSE_MOAT_WALK:
		return false;
	default:
		return true;
	}
}

static int serve_node(struct request *r)
{
	request_fn fn = request_find(r->in.head.opcode);
	struct node *n;
	int err;

	if (!fn)
		return -ENOSYS;
	if (!atomic_load(&r->d->initialised))
		return -EINVAL;
	if (r->d->config.readonly && is_change(r->in.head.opcode))
		return -EROFS;
	n = node_get(r->d, r->in.head.nodeid);
	/* FORGET comes by a queue of its own and may be first: the handle would stay for good, and the room of a removed file with it. */
	if (!n && (r->in.head.opcode == FUSE_RELEASE || r->in.head.opcode == FUSE_RELEASEDIR))
		return do_release(r, NULL);
	if (!n)
		return -ESTALE;
	for (unsigned i = 0; i < r->in.op->strings && has_names(r->in.head.opcode); i++) {
		err = check_name(r->in.name[i], r->in.name_len[i]);
		if (err)
			goto out;
	}
	err = fn(r, n);
out:
	node_put(r->d, n);
	return err;
}

static int serve(struct request *r)
{
	switch (r->in.head.opcode) {
	case FUSE_INIT:
		return serve_init(r);
	case FUSE_DESTROY:
		return 0;
	case FUSE_INTERRUPT:
		return do_interrupt(r);
	default:
		return serve_node(r);
	}
}

/* WRITE's data stays where it is: only what precedes it is copied. */
static size_t head_bytes(const struct virtq_chain *chain)
{
	struct fuse_in_header head;

	if (copy_out(chain->out, chain->out_count, &head, sizeof(head)) == sizeof(head) &&
	    head.opcode == FUSE_WRITE)
		return sizeof(head) + sizeof(struct fuse_write_in);
	return REQUEST_BYTES_MAX;
}

bool request_serve(struct queue *q, const struct virtq_chain *chain, struct request_buffers *b,
		   uint32_t *ret_len)
{
	struct request r = {.d = q->d, .q = q, .chain = chain, .reply = b->reply};
	size_t size = copy_out(chain->out, chain->out_count, b->request,
			       MIN(sizeof(b->request), head_bytes(chain)));
	int err = fuse_decode(b->request, size, chain->out_size, &r.in);

	*ret_len = 0;
	if (size < sizeof(r.in.head))
		return true;
	r.data_at = size;
	/* Longer than any request may be that carries no file data. */
	if (!err && size < chain->out_size && r.in.head.opcode != FUSE_WRITE)
		err = -EINVAL;
	if (!err && (r.in.head.opcode == FUSE_FORGET || r.in.head.opcode == FUSE_BATCH_FORGET)) {
		forget(q->d, &r.in);
		return true;
	}
	if (!err)
		err = serve(&r);
	if (r.deferred)
		return false;
	*ret_len = answer(chain, r.in.head.unique, err, r.reply, r.reply_size, r.in_place);
	return true;
}
