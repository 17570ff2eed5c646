/*
 * tests/fs/virtiofs_fake.h - what a daemon that lies serves: a tree of three files from its imagination, and which reply it makes wrong in which way.
 *
 * Include it in one file of a program, which has the rings and the socket.
 */
#ifndef MOAT_TESTS_FS_VIRTIOFS_FAKE_H
#define MOAT_TESTS_FS_VIRTIOFS_FAKE_H

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "wire/fuse.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

#define QUEUES 2
#define REPLY_MAX 8192
#define WRITE_HEAD_BYTES (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))

/* clang-format off */
#define ATTACKS(X) \
	X(NONE) \
	X(TRUNCATED) \
	X(EMPTY) \
	X(UNIQUE) \
	X(LENGTH) \
	X(RESTART) \
	X(POSITIVE) \
	X(NODE_0) \
	X(NODE_1) \
	X(TYPE) \
	X(SIZE) \
	X(GARBAGE) \
	X(USED_INDEX) \
	X(USED_ID) \
	X(USED_LENGTH) \
	X(TWICE) \
	X(CLOSE) \
	X(WALK_MORE) \
	X(WALK_FEWER) \
	X(WALK_LOOP) \
	X(WALK_OPENED) \
	X(WALK_ERROR)
/* clang-format on */
#define X(name) A_##name,
enum attack { ATTACKS(X) ATTACK_COUNT };
#undef X
#define X(name) #name,
static const char *const attack_names[] = {ATTACKS(X)};
#undef X

static const uint32_t targets[] = {
	FUSE_INIT,	  FUSE_GETATTR,	   FUSE_LOOKUP,	  FUSE_OPEN,	FUSE_READ,    FUSE_WRITE,
	FUSE_FLUSH,	  FUSE_FSYNC,	   FUSE_RELEASE,  FUSE_SETATTR, FUSE_OPENDIR, FUSE_READDIR,
	FUSE_READDIRPLUS, FUSE_RELEASEDIR, FUSE_READLINK, FUSE_CREATE,	FUSE_MKDIR,   FUSE_MKNOD,
	FUSE_SYMLINK,	  FUSE_LINK,	   FUSE_RENAME,	  FUSE_UNLINK,	FUSE_RMDIR,   FUSE_STATFS,
	FUSE_DESTROY,	  FUSE_MOAT_WALK, /* granted only where it is the target */
};

struct fake {
	pthread_t thread;
	int sock;
	enum attack attack;
	uint32_t target;
	struct virtq_region region;
	struct virtq_memory mem;
	uint64_t user_base;
	struct virtq_device rings[QUEUES];
	struct vhost_user_vring_addr addrs[QUEUES];
	unsigned nums[QUEUES];
	int kick[QUEUES], call[QUEUES];
	bool ready[QUEUES], closed;
	unsigned hits;
	bool silent; /* connected, and answers no request */
	_Atomic bool stalled; /* answers nothing meanwhile */
	bool submounts; /* a filesystem of its own in every directory */
	/* what failing and torn writes are tested with */
	_Atomic int write_error; /* of the next WRITE */
	_Atomic unsigned writes;
	char written[4096]; /* the last one's first page */
};
static struct fake fake;

/* ---- the tree ---- */

static struct fuse_attr attr_of(uint64_t node)
{
	static const uint32_t modes[] = {
		0, S_IFDIR | 0755, S_IFREG | 0644, S_IFDIR | 0755, S_IFLNK | 0777, S_IFIFO | 0644};

	return (struct fuse_attr){.ino = node,
				  .mode = modes[node],
				  .nlink = 1,
				  .size = S_ISREG(modes[node]) ? 10000 : 0,
				  .blksize = 4096};
}

static void lie_about(struct fuse_attr *a)
{
	if (fake.attack == A_TYPE)
		a->mode = (a->mode & 07777) | (S_ISSOCK(a->mode) ? S_IFREG : S_IFSOCK);
	else if (fake.attack == A_SIZE)
		a->size = UINT64_MAX - 5;
}

static size_t put_entry(uint8_t *p, uint64_t node, bool lie)
{
	struct fuse_entry_out e = {.nodeid = node, .attr = attr_of(node)};

	if (fake.submounts && S_ISDIR(e.attr.mode))
		e.attr.flags |= FUSE_ATTR_SUBMOUNT;
	if (lie) {
		lie_about(&e.attr);
		if (fake.attack == A_NODE_0)
			e.nodeid = 0;
		else if (fake.attack == A_NODE_1)
			e.nodeid = 1;
	}
	memcpy(p, &e, sizeof(e));
	return sizeof(e);
}

static size_t put_dir(uint8_t *p, uint64_t off, bool plus)
{
	size_t size = 0;

	for (uint64_t i = off; i < 3; i++) {
		struct fuse_entry e = {.name = &"fdl"[i], .len = 1, .ino = i + 2, .off = i + 1};

		e.node.nodeid = i + 2;
		e.node.attr = attr_of(i + 2);
		if (!fuse_put_entry(p, REPLY_MAX, &size, plus, &e))
			abort();
	}
	return size;
}

static uint64_t node_of(const char *name)
{
	return name[0] == 'f' ? 2 : name[0] == 'd' ? 3 : name[0] == 'l' ? 4 : 0;
}

static void lie_about_walk(struct fuse_walk_reply *r)
{
	if (fake.attack == A_WALK_MORE)
		r->out.count += 20;
	else if (fake.attack == A_WALK_FEWER)
		r->out.count--;
	else if (fake.attack == A_WALK_OPENED)
		r->out.flags ^= FUSE_WALK_OPENED | FUSE_WALK_CREATED;
	else if (fake.attack == A_WALK_ERROR)
		r->out.error = r->out.error ? -4000 : -EACCES;
	else if (fake.attack == A_WALK_LOOP)
		for (unsigned i = 1; i < r->out.count; i++)
			r->entries[i].nodeid = r->entries[0].nodeid;
}

static ssize_t reply_to_walk(const struct fuse_decoded *in, uint8_t *p, bool lie)
{
	struct fuse_walk_reply r = {0};
	const char *path = in->name[0], *name;
	size_t left = in->name_len[0], len;
	struct fuse_walk_in arg;

	memcpy(&arg, in->arg, sizeof(arg));
	while (!r.out.error && r.out.count < FUSE_WALK_ENTRIES_MAX &&
	       fuse_walk_next(&path, &left, &name, &len) == 1) {
		uint64_t node = node_of(name);

		if (r.out.count && !S_ISDIR(r.entries[r.out.count - 1].attr.mode))
			break;
		if (!node && !left && (arg.flags & FUSE_WALK_CREATE)) {
			node = 2;
			r.out.flags = FUSE_WALK_OPENED | FUSE_WALK_CREATED;
		} else if (node == 2 && !left && (arg.flags & FUSE_WALK_OPEN)) {
			r.out.flags = FUSE_WALK_OPENED;
		}
		if (node)
			put_entry((uint8_t *)&r.entries[r.out.count++], node, lie && !left);
		else
			r.out.error = -ENOENT;
	}
	len = sizeof(r.out) + r.out.count * sizeof(r.entries[0]);
	if (lie)
		lie_about_walk(&r);
	memcpy(p, &r, len);
	return (ssize_t)len;
}

/* Return: payload bytes, -errno. */
static ssize_t reply_to(const struct fuse_decoded *in, uint8_t *p, bool lie)
{
	struct fuse_init_out init = {.major = 7, .minor = 31, .max_write = 131072};
	struct fuse_attr_out attr = {0};
	struct fuse_write_in wr;
	struct fuse_read_in rd;

	switch (in->head.opcode) {
	case FUSE_INIT:
		init.flags = FUSE_DO_READDIRPLUS | FUSE_MAX_PAGES;
		init.max_pages = 32;
		if (fake.submounts)
			init.flags |= FUSE_SUBMOUNTS;
		if (fake.target == FUSE_MOAT_WALK) {
			init.flags |= FUSE_INIT_EXT;
			init.flags2 = FUSE_HAS_MOAT_WALK >> 32;
		}
		memcpy(p, &init, sizeof(init));
		return sizeof(init);
	case FUSE_LOOKUP:
		return node_of(in->name[0]) ? (ssize_t)put_entry(p, node_of(in->name[0]), lie)
					    : -ENOENT;
	case FUSE_MOAT_WALK:
		return reply_to_walk(in, p, lie);
	case FUSE_GETATTR:
	case FUSE_SETATTR:
		attr.attr = attr_of(in->head.nodeid <= 5 ? in->head.nodeid : 2);
		if (lie)
			lie_about(&attr.attr);
		memcpy(p, &attr, sizeof(attr));
		return sizeof(attr);
	case FUSE_MKDIR:
		return (ssize_t)put_entry(p, 3, lie);
	case FUSE_SYMLINK:
		return (ssize_t)put_entry(p, 4, lie);
	case FUSE_MKNOD:
		return (ssize_t)put_entry(p, 5, lie);
	case FUSE_LINK:
		return (ssize_t)put_entry(p, 2, lie);
	case FUSE_CREATE:
		memset(p + sizeof(struct fuse_entry_out), 0, sizeof(struct fuse_open_out));
		return (ssize_t)(put_entry(p, 2, lie) + sizeof(struct fuse_open_out));
	case FUSE_OPEN:
	case FUSE_OPENDIR:
		memset(p, 0, sizeof(struct fuse_open_out));
		return sizeof(struct fuse_open_out);
	case FUSE_READ:
		memcpy(&rd, in->arg, sizeof(rd));
		memset(p, 'd', 4096);
		return rd.offset < 10000 ? (ssize_t)MIN(rd.size, 4096u) : 0;
	case FUSE_WRITE:
		memcpy(&wr, in->arg, sizeof(wr));
		atomic_fetch_add(&fake.writes, 1);
		if (atomic_load(&fake.write_error))
			return atomic_exchange(&fake.write_error, 0);
		memset(p, 0, sizeof(struct fuse_write_out));
		memcpy(p, &wr.size, sizeof(wr.size));
		return sizeof(struct fuse_write_out);
	case FUSE_READDIR:
	case FUSE_READDIRPLUS:
		memcpy(&rd, in->arg, sizeof(rd));
		return (ssize_t)put_dir(p, rd.offset, in->head.opcode == FUSE_READDIRPLUS);
	case FUSE_READLINK:
		memcpy(p, "f", 1);
		return 1;
	case FUSE_STATFS:
		memset(p, 0, sizeof(struct fuse_statfs_out));
		return sizeof(struct fuse_statfs_out);
	default:
		return 0;
	}
}

#endif
