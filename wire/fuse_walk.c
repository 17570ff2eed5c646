/* wire/fuse_walk.c - see fuse_walk.h. */
#include "wire/fuse_walk.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "wire/fuse.h"

_Static_assert(sizeof(struct fuse_walk_in) == 16, "request");
_Static_assert(sizeof(struct fuse_walk_out) == 40, "reply");
_Static_assert(sizeof(struct fuse_walk_reply) <= 4096, "reply");
_Static_assert(offsetof(struct fuse_walk_reply, entries) == sizeof(struct fuse_walk_out), "packed");

int fuse_walk_next(const char **inout_path, size_t *inout_left, const char **ret_name,
		   size_t *ret_len)
{
	const char *name = *inout_path, *slash;
	size_t len = *inout_left, past;

	if (!len)
		return 0;
	slash = memchr(name, '/', len);
	past = len;
	if (slash) {
		len = (size_t)(slash - name);
		past = len + 1;
		/* A slash is between two names. */
		if (past == *inout_left)
			return -EINVAL;
	}
	if (!len || (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.'))) ||
	    memchr(name, '\0', len))
		return -EINVAL;
	if (len > FUSE_NAME_BYTES_MAX)
		return -ENAMETOOLONG;
	*ret_name = name;
	*ret_len = len;
	*inout_path += past;
	*inout_left -= past;
	return 1;
}

static bool entries_ok(const struct fuse_walk_reply *r)
{
	for (unsigned i = 0; i < r->out.count; i++) {
		const struct fuse_entry_out *e = &r->entries[i];

		if (!fuse_entry_ok(e) || (i + 1 < r->out.count && !S_ISDIR(e->attr.mode)))
			return false;
	}
	return true;
}

static bool end_ok(const struct fuse_walk_out *o, const struct fuse_entry_out *last, unsigned asked,
		   uint32_t wanted)
{
	const uint32_t opened = FUSE_WALK_OPENED, created = FUSE_WALK_CREATED;

	if (o->error > 0 || o->error < -FUSE_ERRNO_MAX || (o->error && o->count == asked))
		return false;
	/* Nothing below what is no directory was asked for. */
	if (o->error && last && !S_ISDIR(last->attr.mode))
		return false;
	if (!o->error && !o->count)
		return false;
	if (o->flags & ~(opened | created))
		return false;
	if (!o->flags)
		return true;
	if (o->count != asked || !last || !S_ISREG(last->attr.mode) || !(o->flags & opened))
		return false;
	return o->flags & created ? wanted & FUSE_WALK_CREATE : wanted & FUSE_WALK_OPEN;
}

int fuse_walk_check(struct fuse_walk_reply *r, size_t size, unsigned asked, uint32_t wanted)
{
	const size_t fixed = sizeof(r->out);
	unsigned whole = size < fixed ? 0
				      : (unsigned)MIN((size - fixed) / sizeof(r->entries[0]),
						      (size_t)FUSE_WALK_ENTRIES_MAX);

	if (size < fixed || r->out.count != whole || r->out.count > asked ||
	    size != fixed + whole * sizeof(r->entries[0])) {
		r->out.count = whole;
		return -EIO;
	}
	return entries_ok(r) &&
			       end_ok(&r->out, whole ? &r->entries[whole - 1] : NULL, asked, wanted)
		       ? 0
		       : -EIO;
}
