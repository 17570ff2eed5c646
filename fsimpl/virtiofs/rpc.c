/* fsimpl/virtiofs/rpc.c - requests that several places make; FORGET; INIT. */
#include <string.h>

#include "base/log.h"
#include "fsimpl/virtiofs/internal.h"

bool virtiofs_lacks(const struct virtiofs_fs *fs, uint32_t opcode)
{
	return opcode < 64 &&
	       (atomic_load_explicit(&fs->absent, memory_order_relaxed) >> opcode & 1);
}

#define OP(opcode) (1ull << (opcode))
/*
 * What a killed caller waits for nevertheless, as under Linux: the answer counts a lookup or brings a handle or a lock, which must be given back, or it
 * tells whether names and attributes that are cached still hold.
 */
#define HEARD_OPS                                                                                  \
	(OP(FUSE_LOOKUP) | OP(FUSE_SETATTR) | OP(FUSE_SYMLINK) | OP(FUSE_MKNOD) | OP(FUSE_MKDIR) | \
	 OP(FUSE_UNLINK) | OP(FUSE_RMDIR) | OP(FUSE_RENAME) | OP(FUSE_LINK) | OP(FUSE_OPEN) |      \
	 OP(FUSE_RELEASE) | OP(FUSE_OPENDIR) | OP(FUSE_RELEASEDIR) | OP(FUSE_CREATE) |             \
	 OP(FUSE_FALLOCATE) | OP(FUSE_READDIRPLUS) | OP(FUSE_RENAME2) | OP(FUSE_TMPFILE) |         \
	 OP(FUSE_SETLK) | OP(FUSE_MOAT_WALK))

/* What every request says. */
static void complete(struct vdev_call *call)
{
	const struct cred *cred = cred_current();
	uint32_t opcode = call->req.opcode;

	if (cred && !call->ids_set) {
		call->req.uid = cred->fsuid;
		call->req.gid = cred->fsgid;
	}
	call->heard = opcode < 64 && (HEARD_OPS >> opcode & 1);
}

ssize_t virtiofs_call(struct virtiofs_fs *fs, struct vdev_call *call)
{
	uint32_t opcode = call->req.opcode;
	ssize_t ret;

	if (virtiofs_lacks(fs, opcode))
		return -ENOSYS;
	complete(call);
	ret = vdev_call(fs->dev, call);
	/* A server says it once for all. */
	if (ret == -ENOSYS && opcode < 64)
		atomic_fetch_or_explicit(&fs->absent, 1ull << opcode, memory_order_relaxed);
	return ret;
}

int virtiofs_entry_named(struct fuse_entry_out *e, unsigned epoch)
{
	if (e->nodeid != vdev_server_node(e->nodeid))
		return -EIO;
	e->nodeid = vdev_node(e->nodeid, epoch);
	return 0;
}

int virtiofs_lookup_begin(struct virtiofs_fs *fs, const struct virtiofs_name *n, bool may_wait,
			  struct virtiofs_lookup *ret)
{
	struct vdev_call call = {
		.req = {.opcode = FUSE_LOOKUP,
			.nodeid = n->dir,
			.name = {n->name},
			.name_len = {n->len}},
		.more = n->more,
		.reply_size = sizeof(struct fuse_entry_out),
	};

	ret->when = virtiofs_now(fs);
	ret->epoch = vdev_epoch(fs->dev);
	complete(&call);
	return vdev_begin(fs->dev, &call, may_wait, &ret->pending);
}

int virtiofs_lookup_end(struct virtiofs_lookup *l, struct fuse_entry_out *ret)
{
	ssize_t got = vdev_end(&l->pending, ret);

	if (got < 0)
		return (int)got;
	/* Some servers grant negative entries so. */
	if (ret->nodeid == 0)
		return -ENOENT;
	return virtiofs_entry_named(ret, l->epoch);
}

int virtiofs_lookup_rpc(struct virtiofs_fs *fs, uint64_t parent, const char *name, size_t len,
			struct fuse_entry_out *ret)
{
	const struct virtiofs_name n = {.dir = parent, .name = name, .len = len};
	struct virtiofs_lookup l;
	int err = virtiofs_lookup_begin(fs, &n, true, &l);

	return err ? err : virtiofs_lookup_end(&l, ret);
}

int virtiofs_getattr_rpc(struct virtiofs_inode *in, struct fuse_attr_out *ret)
{
	const struct fuse_getattr_in arg = {0};
	struct vdev_call call = {
		.req = {.opcode = FUSE_GETATTR, .nodeid = in->nodeid, .arg = &arg},
		.reply = ret,
		.reply_size = sizeof(*ret),
	};
	ssize_t got = virtiofs_call(in->fs, &call);

	return got < 0 ? (int)got : 0;
}

/* ---- FORGET ---- */

/* Pre: forget_lock. What the ring has no room for stays. */
static void forget_flush_locked(struct virtiofs_fs *fs)
{
	const struct fuse_batch_forget_in arg = {.count = fs->forget_count};
	const struct fuse_request req = {.opcode = FUSE_BATCH_FORGET, .arg = &arg};

	if (!fs->forget_count)
		return;
	if (vdev_post(fs->dev, &req, fs->forgets, fs->forget_count * sizeof(fs->forgets[0])) !=
	    -EAGAIN) {
		fs->forget_count = 0;
		fs->forget_bytes = 0;
	}
}

void virtiofs_forget(struct virtiofs_fs *fs, uint64_t nodeid, uint64_t nlookup)
{
	virtiofs_forget_file(fs, nodeid, nlookup, 0);
}

void virtiofs_forget_file(struct virtiofs_fs *fs, uint64_t nodeid, uint64_t nlookup, uint64_t bytes)
{
	const struct fuse_forget_one one = {.nodeid = vdev_server_node(nodeid), .nlookup = nlookup};
	const struct fuse_forget_in arg = {.nlookup = nlookup};
	const struct fuse_request req = {.opcode = FUSE_FORGET, .nodeid = nodeid, .arg = &arg};

	if (nodeid == FUSE_ROOT || !nlookup)
		return;
	mutex_lock(&fs->forget_lock);
	/* What a daemon before this one held went with it. */
	if (!vdev_node_current(fs->dev, nodeid)) {
		mutex_unlock(&fs->forget_lock);
		return;
	}
	if (fs->forget_count == VIRTIOFS_FORGET_BATCH)
		forget_flush_locked(fs);
	if (fs->forget_count < VIRTIOFS_FORGET_BATCH)
		fs->forgets[fs->forget_count++] = one;
	else if (vdev_post(fs->dev, &req, NULL, 0))
		log_debug("virtio-fs: no room to forget node %llu", (unsigned long long)nodeid);
	fs->forget_bytes += MIN(bytes, (uint64_t)VIRTIOFS_FORGET_BYTES);
	if (fs->forget_bytes >= VIRTIOFS_FORGET_BYTES)
		forget_flush_locked(fs);
	mutex_unlock(&fs->forget_lock);
}

void virtiofs_forget_flush(struct virtiofs_fs *fs)
{
	mutex_lock(&fs->forget_lock);
	forget_flush_locked(fs);
	mutex_unlock(&fs->forget_lock);
}

/* ---- INIT ---- */

#define WANTED_FLAGS                                                                             \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_AUTO_INVAL_DATA |        \
	 FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS |   \
	 FUSE_MAX_PAGES | FUSE_SUBMOUNTS | FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT | \
	 FUSE_HANDLE_KILLPRIV_V2 | FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS)

/* What the mount's options want of INIT's flags, or -EINVAL: the daemon has nothing like it. */
static int wanted_flags(struct virtiofs_fs *fs, uint64_t *ret)
{
	const struct virtiofs_options *o = &fs->options;
	struct virtiofs_versions *v = virtiofs_device_versions(fs->dev);

	*ret = WANTED_FLAGS | FUSE_INIT_EXT | FUSE_HAS_MOAT_WALK |
	       (o->writeback ? FUSE_WRITEBACK_CACHE : 0);
	if (o->dax == VIRTIOFS_DAX_ALWAYS && !virtiofs_device_dax(fs->dev)) {
		log_error("virtio-fs: dax=always, but the daemon has no DAX");
		return -EINVAL;
	}
	if (o->coherence &&
	    (!v || (o->coherence == VIRTIOFS_COHERENCE_STRICT && v->notify_fd < 0))) {
		log_error("virtio-fs: coherence=%s, but the daemon has no version table",
			  o->coherence == VIRTIOFS_COHERENCE_STRICT ? "strict" : "versions");
		return -EINVAL;
	}
	if (o->dax && virtiofs_device_dax(fs->dev))
		*ret |= FUSE_MAP_ALIGNMENT |
			(o->dax == VIRTIOFS_DAX_INODE ? FUSE_HAS_INODE_DAX : 0);
	if (o->coherence)
		*ret |= FUSE_MOAT_VERSIONS;
	return 0;
}

static uint64_t granted_flags(const struct fuse_init_out *out, uint64_t wanted)
{
	uint64_t granted = out->flags;

	if (granted & FUSE_INIT_EXT)
		granted |= (uint64_t)out->flags2 << 32;
	return granted & wanted;
}

/* What was granted of it. Return: 0, -EPROTO. */
static int take_flags(struct virtiofs_fs *fs, const struct fuse_init_out *out, uint64_t wanted)
{
	struct virtiofs_versions *v = virtiofs_device_versions(fs->dev);

	fs->init_flags = granted_flags(out, wanted);
	/* No alignment that a range does not have. */
	if (!(fs->init_flags & FUSE_MAP_ALIGNMENT) || out->map_alignment > VIRTIOFS_DAX_SHIFT)
		fs->options.dax = VIRTIOFS_DAX_NEVER;
	if (!fs->options.coherence)
		return 0;
	if (!(fs->init_flags & FUSE_MOAT_VERSIONS)) {
		log_error("virtio-fs: the daemon has a version table and does not grant it");
		return -EPROTO;
	}
	v->root_key = v->table->root_key;
	v->strict = fs->options.coherence == VIRTIOFS_COHERENCE_STRICT;
	fs->versions = v;
	return 0;
}

/* How long requests may be. */
static void take_sizes(struct virtiofs_fs *fs, const struct fuse_init_out *out)
{
	fs->max_write = MAX(4096u, MIN(out->max_write, (uint32_t)VIRTIOFS_READ_MAX));
	fs->max_read = fs->max_write;
	if ((out->flags & FUSE_MAX_PAGES) && out->max_pages)
		fs->max_read = MIN(fs->max_read, (uint32_t)out->max_pages * 4096u);
	else
		fs->max_read = MIN(fs->max_read, 32u * 4096u);
	fs->max_write = MIN(fs->max_write, fs->max_read);
}

/* Another daemon: what was settled with the first holds, so it must have as much. Return: 0, -EPROTO. */
static int check_again(struct virtiofs_fs *fs, const struct fuse_init_out *out, uint64_t wanted)
{
	struct virtiofs_fs now = {0};

	take_sizes(&now, out);
	if (now.max_write >= fs->max_write && now.max_read >= fs->max_read &&
	    !(fs->init_flags & ~granted_flags(out, wanted))) {
		if (fs->versions)
			fs->versions->root_key = fs->versions->table->root_key;
		return 0;
	}
	log_error("virtio-fs: the daemon was started again with other options: it can do less than "
		  "before; start it as it was, or unmount");
	return -EPROTO;
}

int virtiofs_init_rpc(struct virtiofs_fs *fs, bool again)
{
	struct fuse_init_in arg = {
		.major = FUSE_KERNEL_VERSION,
		.minor = FUSE_WIRE_MINOR,
		.max_readahead = VIRTIOFS_READ_MAX,
	};
	struct fuse_init_out out = {0};
	struct vdev_call call = {
		.req = {.opcode = FUSE_INIT, .arg = &arg, .arg_size = sizeof(arg)},
		.reply = &out,
		.reply_size = sizeof(out),
	};
	uint64_t flags;
	ssize_t got = wanted_flags(fs, &flags);

	arg.flags = (uint32_t)flags;
	arg.flags2 = (uint32_t)(flags >> 32);
	if (!got)
		got = virtiofs_call(fs, &call);
	if (got < 0)
		return (int)got;
	if (out.major != FUSE_KERNEL_VERSION || out.minor < 31) {
		log_error(
			"virtio-fs: the daemon speaks FUSE %u.%u; 7.31 is the oldest that will do",
			out.major, out.minor);
		return -EPROTO;
	}
	if (again)
		return check_again(fs, &out, flags);
	take_sizes(fs, &out);
	return take_flags(fs, &out, flags);
}
