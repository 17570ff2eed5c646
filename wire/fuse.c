/* wire/fuse.c - FUSE requests and replies; see fuse.h. */
#include "wire/fuse.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#define X(op, in, names, data, out, out_var) \
	[FUSE_##op] = {.name = #op,          \
		       .in_size = (in),      \
		       .strings = (names),   \
		       .in_data = (data),    \
		       .out_size = (out),    \
		       .out_data = (out_var)},
static const struct fuse_op_info ops[] = {FUSE_OPCODES(X)};
#undef X

static const struct fuse_op_info unknown;

const struct fuse_op_info *fuse_op_info(uint32_t opcode)
{
	return opcode < ARRAY_SIZE(ops) ? &ops[opcode] : &unknown;
}

/* ---- the client's side ---- */

ssize_t fuse_encode(const struct fuse_request *r, uint64_t unique, void *buf, size_t size)
{
	const struct fuse_op_info *op = fuse_op_info(r->opcode);
	size_t arg_size = r->arg_size ? r->arg_size : op->in_size;
	size_t total = sizeof(struct fuse_in_header) + arg_size;
	struct fuse_in_header head;
	uint8_t *at = buf;

	if (!op->name || (arg_size && !r->arg))
		return -EINVAL;
	for (unsigned i = 0; i < op->strings; i++) {
		if (r->name_len[i] > FUSE_PATH_BYTES_MAX)
			return -ENAMETOOLONG;
		if (!r->name[i] || memchr(r->name[i], '\0', r->name_len[i]))
			return -EINVAL;
		total += r->name_len[i] + 1;
	}
	if (total > size || r->data_size > UINT32_MAX - total)
		return -EINVAL;
	head = (struct fuse_in_header){
		.len = (uint32_t)(total + r->data_size),
		.opcode = r->opcode,
		.unique = unique,
		.nodeid = r->nodeid,
		.uid = r->uid,
		.gid = r->gid,
		.pid = r->pid,
	};
	memcpy(at, &head, sizeof(head));
	at += sizeof(head);
	if (arg_size)
		memcpy(at, r->arg, arg_size);
	at += arg_size;
	for (unsigned i = 0; i < op->strings; i++) {
		memcpy(at, r->name[i], r->name_len[i]);
		at += r->name_len[i];
		*at++ = '\0';
	}
	return (ssize_t)total;
}

ssize_t fuse_check_reply(uint32_t opcode, uint64_t unique, const struct fuse_out_header *head,
			 uint32_t used, size_t payload_room, bool *ret_broken)
{
	const struct fuse_op_info *op = fuse_op_info(opcode);
	size_t payload;

	*ret_broken = true;
	if (used < sizeof(*head) || head->len != used || head->unique != unique)
		return -EIO;
	payload = used - sizeof(*head);
	if (head->error) {
		if (head->error > 0 || head->error < -FUSE_ERRNO_MAX || payload)
			return -EIO;
		*ret_broken = false;
		return head->error;
	}
	if (payload > payload_room || payload < op->out_size ||
	    (payload > op->out_size && !op->out_data))
		return -EIO;
	*ret_broken = false;
	return (ssize_t)payload;
}

static bool type_known(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

bool fuse_entry_ok(const struct fuse_entry_out *e)
{
	return e->nodeid != 0 && e->nodeid != FUSE_ROOT && type_known(e->attr.mode);
}

int fuse_next_entry(const void *buf, size_t size, size_t *inout_off, bool plus,
		    struct fuse_entry *ret)
{
	size_t fixed = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET, at = *inout_off,
	       whole;
	const uint8_t *p = (const uint8_t *)buf + at;
	struct fuse_dirent d;

	if (at >= size || size - at < fixed)
		return 0;
	memcpy(&d, p + (plus ? offsetof(struct fuse_direntplus, dirent) : 0), FUSE_NAME_OFFSET);
	whole = FUSE_DIRENT_ALIGN(fixed + d.namelen);
	if (!d.namelen || d.namelen > FUSE_NAME_BYTES_MAX || whole > size - at)
		return -EIO;
	ret->name = (const char *)p + fixed;
	ret->len = d.namelen;
	if (memchr(ret->name, '/', ret->len) || memchr(ret->name, '\0', ret->len))
		return -EIO;
	ret->type = d.type;
	ret->ino = d.ino;
	ret->off = d.off;
	if (plus)
		memcpy(&ret->node, p, sizeof(ret->node));
	*inout_off = at + whole;
	return 1;
}

/* ---- the server's side ---- */

int fuse_decode(const void *buf, size_t size, uint64_t total, struct fuse_decoded *ret)
{
	const char *at = buf, *end = at + size;

	memset(ret, 0, sizeof(*ret));
	if (size < sizeof(ret->head))
		return -EINVAL;
	memcpy(&ret->head, at, sizeof(ret->head));
	at += sizeof(ret->head);
	if (ret->head.len != total || total < size)
		return -EINVAL;
	ret->op = fuse_op_info(ret->head.opcode);
	if (!ret->op->name)
		return -ENOSYS;
	if ((size_t)(end - at) < ret->op->in_size)
		return -EINVAL;
	ret->arg = at;
	ret->arg_size = ret->op->in_size;
	at += ret->op->in_size;
	for (unsigned i = 0; i < ret->op->strings; i++) {
		const char *nul = memchr(at, '\0', (size_t)(end - at));

		if (!nul)
			return -EINVAL;
		ret->name[i] = at;
		ret->name_len[i] = (size_t)(nul - at);
		at = nul + 1;
	}
	ret->data = at;
	ret->data_size = (size_t)(end - at);
	return ret->data_size && !ret->op->in_data ? -EINVAL : 0;
}

bool fuse_put_entry(void *buf, size_t size, size_t *inout_size, bool plus,
		    const struct fuse_entry *e)
{
	size_t fixed = plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET, at = *inout_size;
	size_t whole = FUSE_DIRENT_ALIGN(fixed + e->len);
	struct fuse_dirent d = {.ino = e->ino, .off = e->off, .namelen = e->len, .type = e->type};
	uint8_t *p = (uint8_t *)buf + at;

	if (whole > size - at)
		return false;
	memset(p, 0, whole);
	if (plus)
		memcpy(p, &e->node, sizeof(e->node));
	memcpy(p + (plus ? offsetof(struct fuse_direntplus, dirent) : 0), &d, FUSE_NAME_OFFSET);
	memcpy(p + fixed, e->name, e->len);
	*inout_size = at + whole;
	return true;
}
