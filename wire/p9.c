/*
 * wire/p9.c - the 9P codec.
 *
 * One table row per message type holds its name and its layout: pairs of a field kind and the
 * field's offset in the message's struct. Decoding and encoding are one loop over a layout; the only
 * code that knows a message by name is the table. A decode touches each input byte at most once
 * and allocates nothing, so a message costs about as much as the copy of its fields.
 *
 * Watch: p9_print() turns a message into a line; the client's and the server's debug logs use it.
 * Cannot: big-endian hosts (Moat is x86-64), 9P2000 or .u dialects.
 */
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "wire/p9.h"

enum field_kind {
	K_u8,
	K_u16,
	K_u32,
	K_u64,
	K_opt32,
	K_str,
	K_qid,
	K_blob,
	K_names,
	K_qids,
	K_node,
	K_nodes,
	K_fids,
};

struct field {
	uint8_t kind;
	uint16_t off;
	const char *name;
};

struct layout {
	const char *name;
	const struct field *fields;
	uint8_t count;
	bool valid;
};

#define ROW(m, kind_, field_) {K_##kind_, offsetof(struct p9_##m, field_), #field_},
#define LAYOUT_FIELDS(op, num)                                                                \
	static const struct field fields_T##op[] = {P9_FIELDS_T##op(ROW, T##op){0, 0, NULL}}; \
	static const struct field fields_R##op[] = {P9_FIELDS_R##op(ROW, R##op){0, 0, NULL}};
P9_OPCODES(LAYOUT_FIELDS)

#define LAYOUT_ROW(op, num)                                                        \
	[num] = {"T" #op, fields_T##op, ARRAY_SIZE(fields_T##op) - 1, (num) != 6}, \
	[(num) + 1] = {"R" #op, fields_R##op, ARRAY_SIZE(fields_R##op) - 1, true},
static const struct layout layouts[P9_TYPE_MAX] = {P9_OPCODES(LAYOUT_ROW)};

/* Every message's struct starts at the union's start. */
#define MSG_BODY_OFF offsetof(struct p9_msg, Tlerror)

const char *p9_type_name(unsigned type)
{
	if (type >= P9_TYPE_MAX || !layouts[type].name)
		return "T?";
	return layouts[type].name;
}

/* ---- reading ---- */

struct reader {
	const uint8_t *p, *end;
};

static bool get_bytes(struct reader *r, void *dst, size_t size)
{
	if ((size_t)(r->end - r->p) < size)
		return false;
	memcpy(dst, r->p, size);
	r->p += size;
	return true;
}

static bool get_raw(struct reader *r, const uint8_t **ret, size_t size)
{
	if ((size_t)(r->end - r->p) < size)
		return false;
	*ret = r->p;
	r->p += size;
	return true;
}

static bool get_str(struct reader *r, struct p9_str *ret)
{
	const uint8_t *data;

	if (!get_bytes(r, &ret->len, 2) || !get_raw(r, &data, ret->len))
		return false;
	ret->data = (const char *)data;
	return true;
}

static bool get_qid(struct reader *r, struct p9_qid *ret)
{
	return get_bytes(r, &ret->type, 1) && get_bytes(r, &ret->version, 4) &&
	       get_bytes(r, &ret->path, 8);
}

static bool get_time(struct reader *r, struct p9_time *ret)
{
	return get_bytes(r, &ret->sec, 8) && get_bytes(r, &ret->nsec, 4);
}

static bool get_node(struct reader *r, struct p9_node *n)
{
	return get_qid(r, &n->qid) && get_bytes(r, &n->mode, 4) && get_bytes(r, &n->uid, 4) &&
	       get_bytes(r, &n->gid, 4) && get_bytes(r, &n->nlink, 4) &&
	       get_bytes(r, &n->rdev_major, 4) && get_bytes(r, &n->rdev_minor, 4) &&
	       get_bytes(r, &n->blksize, 4) && get_bytes(r, &n->size, 8) &&
	       get_bytes(r, &n->blocks, 8) && get_time(r, &n->atime) && get_time(r, &n->mtime) &&
	       get_time(r, &n->ctime) && get_time(r, &n->btime);
}

static bool get_names(struct reader *r, struct p9_names *ret)
{
	if (!get_bytes(r, &ret->count, 2) || ret->count > P9_WALK_MAX)
		return false;
	for (unsigned i = 0; i < ret->count; i++)
		if (!get_str(r, &ret->name[i]))
			return false;
	return true;
}

static bool get_qids(struct reader *r, struct p9_qids *ret)
{
	if (!get_bytes(r, &ret->count, 2) || ret->count > P9_WALK_MAX)
		return false;
	for (unsigned i = 0; i < ret->count; i++)
		if (!get_qid(r, &ret->qid[i]))
			return false;
	return true;
}

static bool get_field(struct reader *r, const struct field *f, uint8_t *base)
{
	void *dst = base + f->off;

	switch ((enum field_kind)f->kind) {
	case K_u8:
		return get_bytes(r, dst, 1);
	case K_u16:
		return get_bytes(r, dst, 2);
	case K_u32:
		return get_bytes(r, dst, 4);
	case K_u64:
		return get_bytes(r, dst, 8);
	case K_opt32:
		if (r->p == r->end) {
			memset(dst, 0, 4);
			return true;
		}
		return get_bytes(r, dst, 4);
	case K_str:
		return get_str(r, dst);
	case K_qid:
		return get_qid(r, dst);
	case K_blob: {
		struct p9_blob *b = dst;

		return get_bytes(r, &b->size, 4) && get_raw(r, &b->data, b->size);
	}
	case K_names:
		return get_names(r, dst);
	case K_qids:
		return get_qids(r, dst);
	case K_node:
		return get_node(r, dst);
	case K_nodes: {
		struct p9_nodes *n = dst;

		return get_bytes(r, &n->count, 2) && n->count <= P9_NODES_MAX &&
		       get_raw(r, &n->data, (size_t)n->count * P9_NODE_SIZE);
	}
	case K_fids: {
		struct p9_fids *n = dst;

		return get_bytes(r, &n->count, 2) && n->count <= P9_FIDS_MAX &&
		       get_raw(r, &n->data, (size_t)n->count * 4);
	}
	}
	return false;
}

int p9_frame_size(const void *buf, size_t len, uint32_t msize, uint32_t *ret_size)
{
	uint32_t size;

	if (len < 4)
		return -EAGAIN;
	memcpy(&size, buf, 4);
	if (size < P9_HEADER_SIZE || size > msize)
		return -EBADMSG;
	*ret_size = size;
	return 0;
}

int p9_decode(const void *buf, size_t size, struct p9_msg *ret)
{
	struct reader r = {buf, (const uint8_t *)buf + size};
	const struct layout *l;
	uint32_t framed;

	if (!get_bytes(&r, &framed, 4) || framed != size || !get_bytes(&r, &ret->type, 1) ||
	    !get_bytes(&r, &ret->tag, 2))
		return -EBADMSG;
	l = &layouts[ret->type];
	if (!l->valid)
		return -EOPNOTSUPP;
	for (unsigned i = 0; i < l->count; i++)
		if (!get_field(&r, &l->fields[i], (uint8_t *)ret + MSG_BODY_OFF))
			return -EBADMSG;
	return r.p == r.end ? 0 : -EBADMSG;
}

/* ---- writing ---- */

struct writer {
	uint8_t *p, *end;
};

static bool put_bytes(struct writer *w, const void *src, size_t size)
{
	if ((size_t)(w->end - w->p) < size)
		return false;
	if (size)
		memcpy(w->p, src, size);
	w->p += size;
	return true;
}

static bool put_str(struct writer *w, const struct p9_str *s)
{
	return put_bytes(w, &s->len, 2) && put_bytes(w, s->data, s->len);
}

static bool put_qid(struct writer *w, const struct p9_qid *q)
{
	return put_bytes(w, &q->type, 1) && put_bytes(w, &q->version, 4) &&
	       put_bytes(w, &q->path, 8);
}

static bool put_time(struct writer *w, const struct p9_time *t)
{
	return put_bytes(w, &t->sec, 8) && put_bytes(w, &t->nsec, 4);
}

static bool put_node(struct writer *w, const struct p9_node *n)
{
	return put_qid(w, &n->qid) && put_bytes(w, &n->mode, 4) && put_bytes(w, &n->uid, 4) &&
	       put_bytes(w, &n->gid, 4) && put_bytes(w, &n->nlink, 4) &&
	       put_bytes(w, &n->rdev_major, 4) && put_bytes(w, &n->rdev_minor, 4) &&
	       put_bytes(w, &n->blksize, 4) && put_bytes(w, &n->size, 8) &&
	       put_bytes(w, &n->blocks, 8) && put_time(w, &n->atime) && put_time(w, &n->mtime) &&
	       put_time(w, &n->ctime) && put_time(w, &n->btime);
}

static bool put_names(struct writer *w, const struct p9_names *n)
{
	if (n->count > P9_WALK_MAX || !put_bytes(w, &n->count, 2))
		return false;
	for (unsigned i = 0; i < n->count; i++)
		if (!put_str(w, &n->name[i]))
			return false;
	return true;
}

static bool put_qids(struct writer *w, const struct p9_qids *n)
{
	if (n->count > P9_WALK_MAX || !put_bytes(w, &n->count, 2))
		return false;
	for (unsigned i = 0; i < n->count; i++)
		if (!put_qid(w, &n->qid[i]))
			return false;
	return true;
}

static bool put_field(struct writer *w, const struct field *f, const uint8_t *base)
{
	const void *src = base + f->off;

	switch ((enum field_kind)f->kind) {
	case K_u8:
		return put_bytes(w, src, 1);
	case K_u16:
		return put_bytes(w, src, 2);
	case K_u32:
	case K_opt32:
		return put_bytes(w, src, 4);
	case K_u64:
		return put_bytes(w, src, 8);
	case K_str:
		return put_str(w, src);
	case K_qid:
		return put_qid(w, src);
	case K_blob: {
		const struct p9_blob *b = src;

		return put_bytes(w, &b->size, 4) && (!b->data || put_bytes(w, b->data, b->size));
	}
	case K_names:
		return put_names(w, src);
	case K_qids:
		return put_qids(w, src);
	case K_node:
		return put_node(w, src);
	case K_nodes: {
		const struct p9_nodes *n = src;

		return n->count <= P9_NODES_MAX && put_bytes(w, &n->count, 2) &&
		       put_bytes(w, n->data, (size_t)n->count * P9_NODE_SIZE);
	}
	case K_fids: {
		const struct p9_fids *n = src;

		return n->count <= P9_FIDS_MAX && put_bytes(w, &n->count, 2) &&
		       put_bytes(w, n->data, (size_t)n->count * 4);
	}
	}
	return false;
}

int p9_encode(const struct p9_msg *msg, void *buf, size_t max, size_t *ret_size)
{
	const struct layout *l = &layouts[msg->type];
	const uint8_t *body = (const uint8_t *)msg + MSG_BODY_OFF;
	struct writer w = {buf, (uint8_t *)buf + max};
	uint64_t framed;
	uint32_t size32 = 0;

	if (!l->valid)
		return -EINVAL;
	if (!put_bytes(&w, &size32, 4) || !put_bytes(&w, &msg->type, 1) ||
	    !put_bytes(&w, &msg->tag, 2))
		return -EMSGSIZE;
	for (unsigned i = 0; i < l->count; i++)
		if (!put_field(&w, &l->fields[i], body))
			return -EMSGSIZE;
	framed = (uint64_t)(w.p - (uint8_t *)buf);
	*ret_size = framed;
	if (l->count && l->fields[l->count - 1].kind == K_blob) {
		const struct p9_blob *b = (const void *)(body + l->fields[l->count - 1].off);

		if (!b->data)
			framed += b->size;
	}
	if (framed > UINT32_MAX)
		return -EMSGSIZE;
	size32 = (uint32_t)framed;
	memcpy(buf, &size32, 4);
	return 0;
}

/* ---- nodes, fids, directory entries ---- */

void p9_nodes_get(const struct p9_nodes *nodes, unsigned i, struct p9_node *ret)
{
	struct reader r = {nodes->data + (size_t)i * P9_NODE_SIZE,
			   nodes->data + (size_t)(i + 1) * P9_NODE_SIZE};

	assert(i < nodes->count);
	if (!get_node(&r, ret))
		assert(!"a node has one size");
}

void p9_node_put(const struct p9_node *node, uint8_t out[P9_NODE_SIZE])
{
	struct writer w = {out, out + P9_NODE_SIZE};

	if (!put_node(&w, node) || w.p != w.end)
		assert(!"a node has one size");
}

uint32_t p9_fids_get(const struct p9_fids *fids, unsigned i)
{
	uint32_t fid;

	assert(i < fids->count);
	memcpy(&fid, fids->data + (size_t)i * 4, 4);
	return fid;
}

void p9_fids_put(uint8_t *out, unsigned i, uint32_t fid)
{
	memcpy(out + (size_t)i * 4, &fid, 4);
}

int p9_dirent_put(void *buf, size_t max, size_t *inout_off, const struct p9_dirent *d, bool moat)
{
	struct writer w = {(uint8_t *)buf + *inout_off, (uint8_t *)buf + max};
	uint8_t has_node = !d->has_node ? 0 : d->target.len ? 2 : 1;

	if (!put_qid(&w, &d->qid) || !put_bytes(&w, &d->offset, 8) || !put_bytes(&w, &d->type, 1))
		return -EMSGSIZE;
	if (moat && (!put_bytes(&w, &has_node, 1) || (has_node && !put_node(&w, &d->node)) ||
		     (has_node == 2 && !put_str(&w, &d->target))))
		return -EMSGSIZE;
	if (!put_str(&w, &d->name))
		return -EMSGSIZE;
	*inout_off = (size_t)(w.p - (uint8_t *)buf);
	return 0;
}

int p9_dirent_get(const void *buf, size_t size, size_t *inout_off, bool moat, struct p9_dirent *ret)
{
	struct reader r = {(const uint8_t *)buf + *inout_off, (const uint8_t *)buf + size};
	uint8_t has_node = 0;

	if (r.p == r.end)
		return 0;
	if (!get_qid(&r, &ret->qid) || !get_bytes(&r, &ret->offset, 8) ||
	    !get_bytes(&r, &ret->type, 1))
		return -EBADMSG;
	if (moat && (!get_bytes(&r, &has_node, 1) || has_node > 2))
		return -EBADMSG;
	ret->has_node = has_node;
	ret->target = (struct p9_str){0};
	if (has_node && !get_node(&r, &ret->node))
		return -EBADMSG;
	if (has_node == 2 && (!get_str(&r, &ret->target) || !ret->target.len ||
			      ret->target.len > P9_DIRENT_TARGET_MAX))
		return -EBADMSG;
	if (!get_str(&r, &ret->name))
		return -EBADMSG;
	*inout_off = (size_t)(r.p - (const uint8_t *)buf);
	return 1;
}

bool p9_changes_nothing(const struct p9_msg *t)
{
	switch (t->type) {
	case P9_Tmwalk:
		return t->Tmwalk.newfid == P9_NOFID;
	case P9_Tmopen:
		return t->Tmopen.newfid == P9_NOFID;
	case P9_Tmsetattr:
		return t->Tmsetattr.valid == 0;
	case P9_Tmreaddir:
		return t->Tmreaddir.newfid == P9_NOFID;
	case P9_Tgetattr:
	case P9_Tstatfs:
	case P9_Treadlink:
	case P9_Tread:
	case P9_Treaddir:
	case P9_Tfsync:
	case P9_Tgetlock:
	case P9_Tmgetxattr:
	case P9_Tmlistxattr:
	case P9_Tmconnect: /* what was connected is closed */
		return true;
	default:
		return false;
	}
}

/* ---- names ---- */

bool p9_name_ok(const char *name, size_t len)
{
	if (len == 0 || len > P9_NAME_MAX || memchr(name, '/', len) || memchr(name, '\0', len))
		return false;
	return !(name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')));
}

bool p9_path_ok(const char *path, size_t len, unsigned *ret_count)
{
	unsigned count = 0;
	size_t start = 0;

	*ret_count = 0;
	if (len > P9_PATH_MAX)
		return false;
	if (len == 0)
		return true;
	for (;;) {
		const char *slash = memchr(path + start, '/', len - start);
		size_t end = slash ? (size_t)(slash - path) : len;

		if (!p9_name_ok(path + start, end - start))
			return false;
		count++;
		if (end == len)
			break;
		start = end + 1;
	}
	*ret_count = count;
	return true;
}

/* ---- printing ---- */

static void print_field(const struct field *f, const uint8_t *base, char *buf, size_t size)
{
	const void *src = base + f->off;
	char quoted[LOG_STR_MAX];

	switch ((enum field_kind)f->kind) {
	case K_u8:
		snprintf(buf, size, " %s=%u", f->name, *(const uint8_t *)src);
		break;
	case K_u16:
		snprintf(buf, size, " %s=%u", f->name, *(const uint16_t *)src);
		break;
	case K_u32:
	case K_opt32:
		snprintf(buf, size, " %s=%u", f->name, *(const uint32_t *)src);
		break;
	case K_u64:
		snprintf(buf, size, " %s=%llu", f->name,
			 (unsigned long long)*(const uint64_t *)src);
		break;
	case K_str: {
		const struct p9_str *s = src;

		log_quote(quoted, sizeof(quoted), s->data, s->len);
		snprintf(buf, size, " %s=%s", f->name, quoted);
		break;
	}
	case K_qid: {
		const struct p9_qid *q = src;

		snprintf(buf, size, " %s=%x:%llu", f->name, q->type, (unsigned long long)q->path);
		break;
	}
	case K_blob:
		snprintf(buf, size, " %s[%u]", f->name, ((const struct p9_blob *)src)->size);
		break;
	case K_names: {
		const struct p9_names *n = src;

		snprintf(buf, size, " %s[%u]", f->name, n->count);
		break;
	}
	case K_qids:
		snprintf(buf, size, " %s[%u]", f->name, ((const struct p9_qids *)src)->count);
		break;
	case K_node: {
		const struct p9_node *n = src;

		snprintf(buf, size, " %s=%llu mode %o", f->name, (unsigned long long)n->qid.path,
			 n->mode);
		break;
	}
	case K_nodes:
		snprintf(buf, size, " %s[%u]", f->name, ((const struct p9_nodes *)src)->count);
		break;
	case K_fids:
		snprintf(buf, size, " %s[%u]", f->name, ((const struct p9_fids *)src)->count);
		break;
	}
}

const char *p9_print(const struct p9_msg *msg, char *buf, size_t size)
{
	const struct layout *l = &layouts[msg->type];

	snprintf(buf, size, "%s tag %u", p9_type_name(msg->type), msg->tag);
	for (unsigned i = 0; l->valid && i < l->count; i++) {
		size_t used = strlen(buf);

		print_field(&l->fields[i], (const uint8_t *)msg + MSG_BODY_OFF, buf + used,
			    size - used);
	}
	return buf;
}
