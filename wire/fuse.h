/*
 * wire/fuse.h - FUSE 7.x requests and replies over buffers, for the virtio-fs client, the daemon and tests. No I/O.
 *
 * The structures are the kernel's (<linux/fuse.h>; what it lacks stands below). FUSE_OPCODES says for every request what
 * its fixed argument, strings and data are and what its reply must hold: the encoder, the decoder and both checks are driven by it.
 * Decoded strings point into the buffer and are terminated there.
 */
#ifndef MOAT_WIRE_FUSE_H
#define MOAT_WIRE_FUSE_H

#include <linux/fuse.h>
#include <stddef.h>

#include "base/compiler.h"
#include "wire/fuse_walk.h"

#define FUSE_WIRE_MINOR 38 /* what we speak */
#define FUSE_NAME_BYTES_MAX 255
#define FUSE_PATH_BYTES_MAX 4095 /* symlink targets */
#define FUSE_REQUEST_ARG_MAX \
	(128 + 2 * (FUSE_PATH_BYTES_MAX + 1)) /* header, argument and strings */
#define FUSE_ROOT 1ull
#define FUSE_ERRNO_MAX \
	511 /* above it are the kernel's own codes, which restart calls: no server may give them */

#ifndef FUSE_STATX
#define FUSE_STATX 52
#endif

/*
 * X(name, fixed argument bytes, strings, data follows, fixed reply bytes, data in the reply)
 * The fixed reply is the least that a server may send; only where data follows may it be more.
 */
#define FUSE_OPCODES(X)                                                                           \
	X(LOOKUP, 0, 1, false, sizeof(struct fuse_entry_out), false)                              \
	X(FORGET, sizeof(struct fuse_forget_in), 0, false, 0, false)                              \
	X(GETATTR, sizeof(struct fuse_getattr_in), 0, false, sizeof(struct fuse_attr_out), false) \
	X(SETATTR, sizeof(struct fuse_setattr_in), 0, false, sizeof(struct fuse_attr_out), false) \
	X(READLINK, 0, 0, false, 0, true)                                                         \
	X(SYMLINK, 0, 2, true, sizeof(struct fuse_entry_out), false)                              \
	X(MKNOD, sizeof(struct fuse_mknod_in), 1, true, sizeof(struct fuse_entry_out), false)     \
	X(MKDIR, sizeof(struct fuse_mkdir_in), 1, true, sizeof(struct fuse_entry_out), false)     \
	X(UNLINK, 0, 1, false, 0, false)                                                          \
	X(RMDIR, 0, 1, false, 0, false)                                                           \
	X(RENAME, sizeof(struct fuse_rename_in), 2, false, 0, false)                              \
	X(LINK, sizeof(struct fuse_link_in), 1, false, sizeof(struct fuse_entry_out), false)      \
	X(OPEN, sizeof(struct fuse_open_in), 0, false, sizeof(struct fuse_open_out), false)       \
	X(READ, sizeof(struct fuse_read_in), 0, false, 0, true)                                   \
	X(WRITE, sizeof(struct fuse_write_in), 0, true, sizeof(struct fuse_write_out), false)     \
	X(STATFS, 0, 0, false, sizeof(struct fuse_statfs_out), false)                             \
	X(RELEASE, sizeof(struct fuse_release_in), 0, false, 0, false)                            \
	X(FSYNC, sizeof(struct fuse_fsync_in), 0, false, 0, false)                                \
	X(SETXATTR, FUSE_COMPAT_SETXATTR_IN_SIZE, 1, true, 0, false)                              \
	X(GETXATTR, sizeof(struct fuse_getxattr_in), 1, false, 0, true)                           \
	X(LISTXATTR, sizeof(struct fuse_getxattr_in), 0, false, 0, true)                          \
	X(REMOVEXATTR, 0, 1, false, 0, false)                                                     \
	X(FLUSH, sizeof(struct fuse_flush_in), 0, false, 0, false)                                \
	X(INIT, FUSE_INIT_IN_MIN, 0, true, FUSE_INIT_OUT_MIN, true)                               \
	X(OPENDIR, sizeof(struct fuse_open_in), 0, false, sizeof(struct fuse_open_out), false)    \
	X(READDIR, sizeof(struct fuse_read_in), 0, false, 0, true)                                \
	X(RELEASEDIR, sizeof(struct fuse_release_in), 0, false, 0, false)                         \
	X(FSYNCDIR, sizeof(struct fuse_fsync_in), 0, false, 0, false)                             \
	X(GETLK, sizeof(struct fuse_lk_in), 0, false, sizeof(struct fuse_lk_out), false)          \
	X(SETLK, sizeof(struct fuse_lk_in), 0, false, 0, false)                                   \
	X(SETLKW, sizeof(struct fuse_lk_in), 0, false, 0, false)                                  \
	X(ACCESS, sizeof(struct fuse_access_in), 0, false, 0, false)                              \
	X(CREATE, sizeof(struct fuse_create_in), 1, true,                                         \
	  sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out), false)                    \
	X(INTERRUPT, sizeof(struct fuse_interrupt_in), 0, false, 0, false)                        \
	X(DESTROY, 0, 0, false, 0, false)                                                         \
	X(BATCH_FORGET, sizeof(struct fuse_batch_forget_in), 0, true, 0, false)                   \
	X(FALLOCATE, sizeof(struct fuse_fallocate_in), 0, false, 0, false)                        \
	X(READDIRPLUS, sizeof(struct fuse_read_in), 0, false, 0, true)                            \
	X(RENAME2, sizeof(struct fuse_rename2_in), 2, false, 0, false)                            \
	X(LSEEK, sizeof(struct fuse_lseek_in), 0, false, sizeof(struct fuse_lseek_out), false)    \
	X(COPY_FILE_RANGE, sizeof(struct fuse_copy_file_range_in), 0, false,                      \
	  sizeof(struct fuse_write_out), false)                                                   \
	X(SETUPMAPPING, sizeof(struct fuse_setupmapping_in), 0, false, 0, false)                  \
	X(REMOVEMAPPING, sizeof(struct fuse_removemapping_in), 0, true, 0, false)                 \
	X(SYNCFS, sizeof(struct fuse_syncfs_in), 0, false, 0, false)                              \
	X(TMPFILE, sizeof(struct fuse_create_in), 1, true,                                        \
	  sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out), false)                    \
	X(MOAT_WALK, sizeof(struct fuse_walk_in), 1, false, sizeof(struct fuse_walk_out), true)

/* INIT grew: both ends accept the first form. */
#define FUSE_INIT_IN_MIN 16
#define FUSE_INIT_OUT_MIN 24

struct fuse_op_info {
	const char *name; /* "LOOKUP"; NULL: no such opcode */
	uint16_t in_size;
	uint8_t strings;
	bool in_data;
	uint16_t out_size;
	bool out_data;
};
/* Never NULL; name is NULL for an unknown opcode. */
const struct fuse_op_info *fuse_op_info(uint32_t opcode);

/* ---- the client's side ---- */

struct fuse_request {
	uint32_t opcode;
	uint64_t nodeid;
	uint32_t uid, gid, pid;
	const void *arg; /* the fixed argument, in_size bytes */
	size_t arg_size; /* 0: the table's; else more (INIT, SETXATTR's long form) */
	const char *name[2]; /* not terminated */
	size_t name_len[2];
	uint64_t data_size; /* of data sent apart: counted in the header */
};
/* Header, argument and strings into buf. Return: bytes, -ENAMETOOLONG, -EINVAL. */
must_check ssize_t fuse_encode(const struct fuse_request *r, uint64_t unique, void *buf,
			       size_t size);
/*
 * A completion: `head` was copied out of shared memory once, `used` bytes were written, payload_room could hold the rest.
 * Return: the payload's bytes; -errno of the server; -EIO: nonsense (*ret_broken set).
 */
must_check ssize_t fuse_check_reply(uint32_t opcode, uint64_t unique,
				    const struct fuse_out_header *head, uint32_t used,
				    size_t payload_room, bool *ret_broken);
/* A usable node: id not 0 or root, type known. */
bool fuse_entry_ok(const struct fuse_entry_out *e);

struct fuse_entry {
	const char *name; /* in the buffer, not terminated */
	uint32_t len, type; /* type: DT_* */
	uint64_t ino, off;
	struct fuse_entry_out node; /* READDIRPLUS; nodeid 0: not looked up */
};
/* The entry at *inout_off of a READDIR or READDIRPLUS reply. Return: 1, 0: the end, -EIO. */
must_check int fuse_next_entry(const void *buf, size_t size, size_t *inout_off, bool plus,
			       struct fuse_entry *ret);

/* ---- the server's side ---- */

struct fuse_decoded {
	struct fuse_in_header head;
	const struct fuse_op_info *op;
	const void *arg; /* op->in_size bytes at least; unaligned */
	size_t arg_size;
	const char *name[2]; /* terminated */
	size_t name_len[2];
	const void *data; /* what is left in buf */
	size_t data_size;
};
/*
 * buf: a copy of the request as far as it is no file data. total: all bytes of the request, of which the header's length must tell.
 * Return: 0, -EINVAL (too short, lengths that disagree, unterminated), -ENOSYS (ret->head is filled in).
 */
must_check int fuse_decode(const void *buf, size_t size, uint64_t total, struct fuse_decoded *ret);
/* One entry of READDIR(PLUS) behind *inout_size. False: no room. */
bool fuse_put_entry(void *buf, size_t size, size_t *inout_size, bool plus,
		    const struct fuse_entry *e);

#endif
