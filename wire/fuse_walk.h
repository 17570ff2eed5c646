/*
 * wire/fuse_walk.h - MOAT_WALK, a FUSE request of ours: a path of several components in one round trip, and what is opened or made at its end.
 *
 * A client that sets FUSE_HAS_MOAT_WALK in FUSE_INIT and is granted it may send it. The request's node is a directory, its string the names
 * below it, with single slashes between them. Each is looked up by LOOKUP's rules (none is "." or "..", symlinks are not followed), and the
 * reply has an entry for each that was found, which counts as one lookup and is given back by FORGET. It ends
 *	at the first name that cannot be looked up, whose errno is `error` (with versions: name_version is the name's, from before the look);
 *	behind the first entry that is no directory, or that is another file system's root where these are announced;
 *	when there is no room for more entries.
 * If it came to the end of the path:
 *	OPEN	a regular file is opened, with an access mode and no more, as OPEN does; a failure is not told: OPEN will
 *	CREATE	a last name that does not exist is made and opened as CREATE does with O_EXCL; error: why that failed. One that exists is looked up,
 *		and opened if OPEN says so
 * Nobody who is not granted the flag sends it, and no other server knows it (ENOSYS).
 *
 * A reply is believed as a whole or not at all: fuse_walk_check().
 */
#ifndef MOAT_WIRE_FUSE_WALK_H
#define MOAT_WIRE_FUSE_WALK_H

#include <linux/fuse.h>
#include <stddef.h>

#include "base/compiler.h"

#define FUSE_MOAT_WALK 63 /* Linux's opcodes end at 53 */
/* A bit of FUSE_INIT's flags (with FUSE_INIT_EXT) that Linux does not know. */
#define FUSE_HAS_MOAT_WALK (1ull << 62)
#define FUSE_WALK_ENTRIES_MAX 31 /* in a reply of 4 KiB */

enum {
	FUSE_WALK_OPEN = 1 << 0,
	FUSE_WALK_CREATE = 1 << 1,
};
struct fuse_walk_in {
	uint32_t flags; /* FUSE_WALK_OPEN ... */
	uint32_t open_flags; /* O_ACCMODE, for both */
	uint32_t mode, umask; /* CREATE */
};

enum {
	FUSE_WALK_OPENED = 1 << 0, /* the last entry is, as `open` says */
	FUSE_WALK_CREATED = 1 << 1, /* it was made, and is open */
};
/* Then `count` times struct fuse_entry_out. */
struct fuse_walk_out {
	uint32_t count;
	uint32_t flags; /* FUSE_WALK_OPENED ... */
	int32_t error; /* 0, or -errno of the name behind the last entry */
	uint32_t padding;
	uint64_t name_version;
	struct fuse_open_out open;
};

/*
 * The next name of a path: *inout_path goes behind it and its slash. Return: 1; 0: the end; -EINVAL (empty, dots), -ENAMETOOLONG.
 * The name is not terminated.
 */
must_check int fuse_walk_next(const char **inout_path, size_t *inout_left, const char **ret_name,
			      size_t *ret_len);

struct fuse_walk_reply {
	struct fuse_walk_out out;
	struct fuse_entry_out entries[FUSE_WALK_ENTRIES_MAX];
};
/*
 * A reply of `size` bytes to a request for `asked` names, in *r already (its bytes are the wire's). Return: 0; -EIO: it makes no sense: more entries
 * than names, a length that is not theirs, nodes that are none, names below what is no directory, an error behind the last name,
 * something opened that is not there. A node may come twice, a lookup of it each: a directory may be bound below itself. Of what is refused r->out.count is
 * how many whole entries came, for what they hold to be forgotten.
 */
must_check int fuse_walk_check(struct fuse_walk_reply *r, size_t size, unsigned asked,
			       uint32_t wanted);

#endif
