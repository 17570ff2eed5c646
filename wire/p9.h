/*
 * wire/p9.h - 9P2000.L and Moat's extension of it: encoders and decoders over buffers. No I/O.
 *
 * Every message is a struct that P9_OPCODES and the P9_FIELDS_* lists below declare; the same lists
 * make the layout table that drives p9_encode(), p9_decode() and p9_print(). Integers are
 * little-endian. A decoded string, blob or array points into the message's buffer and lives as long
 * as that does; nothing is copied and nothing is allocated.
 *
 * The extension ("9P2000.L.moat1", docs/9p.md) adds compound requests, types 160 and up. They name
 * a place by (fid, path): path is zero or more components joined by single slashes, none of them
 * empty, "." or "..". `skip` leading components are known to the client: no nodes are wanted
 * for them. A node is a qid and all attributes.
 *
 * The decoder accepts exactly one message with nothing behind it. What it returned was bounds-checked
 * only: names and paths are checked by p9_name_ok() and p9_path_ok() by whoever uses them.
 */
#ifndef MOAT_WIRE_P9_H
#define MOAT_WIRE_P9_H

#include "base/compiler.h"

#define P9_HEADER_SIZE 7u
#define P9_VERSION_PLAIN "9P2000.L"
#define P9_VERSION_MOAT "9P2000.L.moat1"
#define P9_MSIZE_MIN 4096u
#define P9_MSIZE_MAX (1u << 20)
#define P9_MSIZE_DEFAULT (128u << 10)
#define P9_NOTAG 0xffffu
#define P9_NOFID 0xffffffffu
#define P9_NONUNAME 0xffffffffu
#define P9_WALK_MAX 16 /* names in one Twalk */
#define P9_NODES_MAX 512 /* nodes in one reply: a walk stops there */
#define P9_FIDS_MAX 256 /* fids in one Tmclunk */
#define P9_NAME_MAX 255
#define P9_PATH_MAX 4095
#define P9_NODE_SIZE 105u
/* What Rread, Twrite and Rreaddir need around their payload. */
#define P9_IO_OVERHEAD 24u

enum {
	P9_QTDIR = 0x80,
	P9_QTAPPEND = 0x40,
	P9_QTSYMLINK = 0x02,
	P9_QTFILE = 0,
	/* Of nodes, where P9_WANT_ACL asked: the server looked for an access ACL; there is one. */
	P9_QTACL_ASKED = 0x08,
	P9_QTACL = 0x20,
	/* Of nodes, where P9_WANT_XATTRS asked: there is no extended attribute that the server can see. */
	P9_QTNO_XATTRS = 0x10,
};

struct p9_str {
	const char *data; /* not terminated */
	uint16_t len;
};

struct p9_qid {
	uint8_t type;
	uint32_t version;
	uint64_t path;
};

struct p9_blob { /* count[4] data[count] */
	const uint8_t *data;
	uint32_t size;
};

struct p9_names {
	uint16_t count;
	struct p9_str name[P9_WALK_MAX];
};

struct p9_qids {
	uint16_t count;
	struct p9_qid qid[P9_WALK_MAX];
};

struct p9_time {
	uint64_t sec;
	uint32_t nsec;
};

struct p9_node {
	struct p9_qid qid;
	uint32_t mode, uid, gid, nlink;
	uint32_t rdev_major, rdev_minor, blksize;
	uint64_t size, blocks;
	struct p9_time atime, mtime, ctime, btime; /* btime 0: unknown */
};

struct p9_nodes { /* raw: p9_nodes_get() */
	const uint8_t *data;
	uint16_t count;
};

struct p9_fids { /* raw: p9_fids_get() */
	const uint8_t *data;
	uint16_t count;
};

/* Kinds of fields, and what each is in C. */
#define P9_C_u8 uint8_t
#define P9_C_u16 uint16_t
#define P9_C_u32 uint32_t
#define P9_C_u64 uint64_t
#define P9_C_opt32 uint32_t /* may be missing at the end: 0 */
#define P9_C_str struct p9_str
#define P9_C_qid struct p9_qid
#define P9_C_blob struct p9_blob
#define P9_C_names struct p9_names
#define P9_C_qids struct p9_qids
#define P9_C_node struct p9_node
#define P9_C_nodes struct p9_nodes
#define P9_C_fids struct p9_fids

/*
 * The opcode table: OP(name, number of the request); the reply is the number after it.
 * Rlerror alone has no request.
 */
#define P9_OPCODES(OP)        \
	OP(lerror, 6)         \
	OP(statfs, 8)         \
	OP(lopen, 12)         \
	OP(lcreate, 14)       \
	OP(symlink, 16)       \
	OP(mknod, 18)         \
	OP(rename, 20)        \
	OP(readlink, 22)      \
	OP(getattr, 24)       \
	OP(setattr, 26)       \
	OP(xattrwalk, 30)     \
	OP(xattrcreate, 32)   \
	OP(readdir, 40)       \
	OP(fsync, 50)         \
	OP(lock, 52)          \
	OP(getlock, 54)       \
	OP(link, 70)          \
	OP(mkdir, 72)         \
	OP(renameat, 74)      \
	OP(unlinkat, 76)      \
	OP(version, 100)      \
	OP(auth, 102)         \
	OP(attach, 104)       \
	OP(flush, 108)        \
	OP(walk, 110)         \
	OP(read, 116)         \
	OP(write, 118)        \
	OP(clunk, 120)        \
	OP(remove, 122)       \
	OP(mwalk, 160)        \
	OP(mopen, 162)        \
	OP(mcreate, 164)      \
	OP(mmkdir, 166)       \
	OP(msymlink, 168)     \
	OP(mmknod, 170)       \
	OP(mlink, 172)        \
	OP(munlink, 174)      \
	OP(mrename, 176)      \
	OP(msetattr, 178)     \
	OP(mreaddir, 180)     \
	OP(mclunk, 182)       \
	OP(mgetxattr, 184)    \
	OP(msetxattr, 186)    \
	OP(mlistxattr, 188)   \
	OP(mremovexattr, 190) \
	OP(mfallocate, 192)   \
	OP(mseek, 194)        \
	OP(mnotify, 196)      \
	OP(mlock, 198)        \
	OP(mlockcancel, 200)  \
	OP(mgranted, 202)     \
	OP(mwatch, 204)       \
	OP(mevent, 206)       \
	OP(mconnect, 208)

/* Layouts: F(message, kind, field), in wire order. */
/* It never settles on some of these. */
/* clang-format off */
#define P9_FIELDS_Tlerror(F, m)
#define P9_FIELDS_Rlerror(F, m) F(m, u32, ecode)
#define P9_FIELDS_Tstatfs(F, m) F(m, u32, fid)
#define P9_FIELDS_Rstatfs(F, m) \
	F(m, u32, type)         \
	F(m, u32, bsize)        \
	F(m, u64, blocks)       \
	F(m, u64, bfree)        \
	F(m, u64, bavail) F(m, u64, files) F(m, u64, ffree) F(m, u64, fsid) F(m, u32, namelen)
#define P9_FIELDS_Tlopen(F, m) F(m, u32, fid) F(m, u32, flags)
#define P9_FIELDS_Rlopen(F, m) F(m, qid, qid) F(m, u32, iounit)
#define P9_FIELDS_Tlcreate(F, m) \
	F(m, u32, fid) F(m, str, name) F(m, u32, flags) F(m, u32, mode) F(m, u32, gid)
#define P9_FIELDS_Rlcreate(F, m) F(m, qid, qid) F(m, u32, iounit)
#define P9_FIELDS_Tsymlink(F, m) F(m, u32, fid) F(m, str, name) F(m, str, target) F(m, u32, gid)
#define P9_FIELDS_Rsymlink(F, m) F(m, qid, qid)
#define P9_FIELDS_Tmknod(F, m) \
	F(m, u32, fid)         \
	F(m, str, name) F(m, u32, mode) F(m, u32, major) F(m, u32, minor) F(m, u32, gid)
#define P9_FIELDS_Rmknod(F, m) F(m, qid, qid)
#define P9_FIELDS_Trename(F, m) F(m, u32, fid) F(m, u32, dfid) F(m, str, name)
#define P9_FIELDS_Rrename(F, m)
#define P9_FIELDS_Treadlink(F, m) F(m, u32, fid)
#define P9_FIELDS_Rreadlink(F, m) F(m, str, target)
#define P9_FIELDS_Tgetattr(F, m) F(m, u32, fid) F(m, u64, mask)
#define P9_FIELDS_Rgetattr(F, m)                                                                  \
	F(m, u64, valid)                                                                          \
	F(m, qid, qid) F(m, u32, mode) F(m, u32, uid) F(m, u32, gid) F(m, u64, nlink)             \
		F(m, u64, rdev) F(m, u64, size) F(m, u64, blksize) F(m, u64, blocks)              \
			F(m, u64, atime_sec) F(m, u64, atime_nsec) F(m, u64, mtime_sec)           \
				F(m, u64, mtime_nsec) F(m, u64, ctime_sec) F(m, u64, ctime_nsec)  \
					F(m, u64, btime_sec) F(m, u64, btime_nsec) F(m, u64, gen) \
						F(m, u64, data_version)
#define P9_FIELDS_Tsetattr(F, m)                                                       \
	F(m, u32, fid)                                                                 \
	F(m, u32, valid) F(m, u32, mode) F(m, u32, uid) F(m, u32, gid) F(m, u64, size) \
		F(m, u64, atime_sec) F(m, u64, atime_nsec) F(m, u64, mtime_sec)        \
			F(m, u64, mtime_nsec)
#define P9_FIELDS_Rsetattr(F, m)
#define P9_FIELDS_Txattrwalk(F, m) F(m, u32, fid) F(m, u32, newfid) F(m, str, name)
#define P9_FIELDS_Rxattrwalk(F, m) F(m, u64, size)
#define P9_FIELDS_Txattrcreate(F, m) F(m, u32, fid) F(m, str, name) F(m, u64, size) F(m, u32, flags)
#define P9_FIELDS_Rxattrcreate(F, m)
#define P9_FIELDS_Treaddir(F, m) F(m, u32, fid) F(m, u64, offset) F(m, u32, count)
#define P9_FIELDS_Rreaddir(F, m) F(m, blob, data)
#define P9_FIELDS_Tfsync(F, m) F(m, u32, fid) F(m, opt32, datasync)
#define P9_FIELDS_Rfsync(F, m)
#define P9_FIELDS_Tlock(F, m) \
	F(m, u32, fid)        \
	F(m, u8, type)        \
	F(m, u32, flags) F(m, u64, start) F(m, u64, length) F(m, u32, proc_id) F(m, str, client_id)
#define P9_FIELDS_Rlock(F, m) F(m, u8, status)
#define P9_FIELDS_Tgetlock(F, m) \
	F(m, u32, fid)           \
	F(m, u8, type) F(m, u64, start) F(m, u64, length) F(m, u32, proc_id) F(m, str, client_id)
#define P9_FIELDS_Rgetlock(F, m) \
	F(m, u8, type) F(m, u64, start) F(m, u64, length) F(m, u32, proc_id) F(m, str, client_id)
#define P9_FIELDS_Tlink(F, m) F(m, u32, dfid) F(m, u32, fid) F(m, str, name)
#define P9_FIELDS_Rlink(F, m)
#define P9_FIELDS_Tmkdir(F, m) F(m, u32, fid) F(m, str, name) F(m, u32, mode) F(m, u32, gid)
#define P9_FIELDS_Rmkdir(F, m) F(m, qid, qid)
#define P9_FIELDS_Trenameat(F, m) \
	F(m, u32, oldfid) F(m, str, oldname) F(m, u32, newfid) F(m, str, newname)
#define P9_FIELDS_Rrenameat(F, m)
#define P9_FIELDS_Tunlinkat(F, m) F(m, u32, fid) F(m, str, name) F(m, u32, flags)
#define P9_FIELDS_Runlinkat(F, m)
#define P9_FIELDS_Tversion(F, m) F(m, u32, msize) F(m, str, version)
#define P9_FIELDS_Rversion(F, m) F(m, u32, msize) F(m, str, version)
#define P9_FIELDS_Tauth(F, m) F(m, u32, afid) F(m, str, uname) F(m, str, aname) F(m, u32, n_uname)
#define P9_FIELDS_Rauth(F, m) F(m, qid, qid)
#define P9_FIELDS_Tattach(F, m) \
	F(m, u32, fid) F(m, u32, afid) F(m, str, uname) F(m, str, aname) F(m, u32, n_uname)
#define P9_FIELDS_Rattach(F, m) F(m, qid, qid)
#define P9_FIELDS_Tflush(F, m) F(m, u16, oldtag)
#define P9_FIELDS_Rflush(F, m)
#define P9_FIELDS_Twalk(F, m) F(m, u32, fid) F(m, u32, newfid) F(m, names, names)
#define P9_FIELDS_Rwalk(F, m) F(m, qids, qids)
#define P9_FIELDS_Tread(F, m) F(m, u32, fid) F(m, u64, offset) F(m, u32, count)
#define P9_FIELDS_Rread(F, m) F(m, blob, data)
#define P9_FIELDS_Twrite(F, m) F(m, u32, fid) F(m, u64, offset) F(m, blob, data)
#define P9_FIELDS_Rwrite(F, m) F(m, u32, count)
#define P9_FIELDS_Tclunk(F, m) F(m, u32, fid)
#define P9_FIELDS_Rclunk(F, m)
#define P9_FIELDS_Tremove(F, m) F(m, u32, fid)
#define P9_FIELDS_Rremove(F, m)

/* newfid NOFID: none wanted. err: what stopped the walk after the nodes (0: complete, a symlink or no directory). */
#define P9_FIELDS_Tmwalk(F, m) \
	F(m, u32, fid) F(m, u32, newfid) F(m, u32, want) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmwalk(F, m) F(m, u32, err) F(m, u8, bound) F(m, nodes, nodes) F(m, str, target)
/* flags: O_ACCMODE and O_DIRECTORY of open(2), nothing with a side effect. */
#define P9_FIELDS_Tmopen(F, m) \
	F(m, u32, fid)         \
	F(m, u32, newfid) F(m, u32, want) F(m, u32, flags) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmopen(F, m) \
	F(m, u32, err) F(m, u8, bound) F(m, u8, donated) F(m, nodes, nodes) F(m, str, target)
/* flags: O_ACCMODE, O_EXCL, or O_TMPFILE (path is then the directory). nodes: [place at skip], ..., parent, child. */
#define P9_FIELDS_Tmcreate(F, m) \
	F(m, u32, fid)           \
	F(m, u32, newfid)        \
	F(m, u32, want)          \
	F(m, u32, flags)         \
	F(m, u32, mode)          \
	F(m, u32, umask) F(m, u32, uid) F(m, u32, gid) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmcreate(F, m) \
	F(m, u32, err)           \
	F(m, u8, created) F(m, u8, bound) F(m, u8, donated) F(m, nodes, nodes) F(m, str, target)
#define P9_FIELDS_Tmmkdir(F, m) \
	F(m, u32, fid)          \
	F(m, u32, want)         \
	F(m, u32, mode)         \
	F(m, u32, umask) F(m, u32, uid) F(m, u32, gid) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmmkdir(F, m) F(m, u32, err) F(m, nodes, nodes)
#define P9_FIELDS_Tmsymlink(F, m) \
	F(m, u32, fid)            \
	F(m, u32, want)           \
	F(m, u32, uid) F(m, u32, gid) F(m, str, target) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmsymlink(F, m) F(m, u32, err) F(m, nodes, nodes)
#define P9_FIELDS_Tmmknod(F, m) \
	F(m, u32, fid)          \
	F(m, u32, want)         \
	F(m, u32, mode)         \
	F(m, u32, umask)        \
	F(m, u32, major)        \
	F(m, u32, minor) F(m, u32, uid) F(m, u32, gid) F(m, u16, skip) F(m, str, path)
/* donated: a socket with P9_WANT_FD; `major` is its SOCK_* type. */
#define P9_FIELDS_Rmmknod(F, m) F(m, u32, err) F(m, u8, donated) F(m, nodes, nodes)
#define P9_FIELDS_Tmlink(F, m) \
	F(m, u32, oldfid)      \
	F(m, str, oldpath) F(m, u32, fid) F(m, u32, want) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmlink(F, m) F(m, u32, err) F(m, nodes, nodes)
/* keepfid: is bound to the removed object unless NOFID. nodes: [place at skip], ..., parent, victim; taken afterwards. */
#define P9_FIELDS_Tmunlink(F, m) \
	F(m, u32, fid)           \
	F(m, u32, want) F(m, u32, flags) F(m, u32, keepfid) F(m, u16, skip) F(m, str, path)
#define P9_FIELDS_Rmunlink(F, m) F(m, u32, err) F(m, u8, bound) F(m, nodes, nodes)
/* nodes: old parent, new parent, the moved object, and the one replaced or exchanged if there was one. */
#define P9_FIELDS_Tmrename(F, m) \
	F(m, u32, oldfid)        \
	F(m, str, oldpath) F(m, u32, fid) F(m, str, path) F(m, u32, flags) F(m, u32, keepfid)
#define P9_FIELDS_Rmrename(F, m) F(m, u8, bound) F(m, nodes, nodes)
#define P9_FIELDS_Tmsetattr(F, m)                                                 \
	F(m, u32, fid)                                                            \
	F(m, str, path)                                                           \
	F(m, u32, valid)                                                          \
	F(m, u32, mode)                                                           \
	F(m, u32, uid)                                                            \
	F(m, u32, gid) F(m, u64, size) F(m, u64, atime_sec) F(m, u32, atime_nsec) \
		F(m, u64, mtime_sec) F(m, u32, mtime_nsec)
#define P9_FIELDS_Rmsetattr(F, m) F(m, node, node)
/* path "" with an open fid continues it; otherwise the directory is opened and, unless all was sent, bound to newfid. */
#define P9_FIELDS_Tmreaddir(F, m) \
	F(m, u32, fid)            \
	F(m, str, path) F(m, u32, newfid) F(m, u64, offset) F(m, u32, count) F(m, u32, want)
#define P9_FIELDS_Rmreaddir(F, m) F(m, u8, eof) F(m, u8, bound) F(m, blob, data)
#define P9_FIELDS_Tmclunk(F, m) F(m, fids, fids)
#define P9_FIELDS_Rmclunk(F, m)
/* size 0 asks for the size. */
#define P9_FIELDS_Tmgetxattr(F, m) F(m, u32, fid) F(m, str, path) F(m, str, name) F(m, u32, size)
#define P9_FIELDS_Rmgetxattr(F, m) F(m, u32, size) F(m, blob, data)
#define P9_FIELDS_Tmsetxattr(F, m) \
	F(m, u32, fid) F(m, str, path) F(m, str, name) F(m, u32, flags) F(m, blob, data)
#define P9_FIELDS_Rmsetxattr(F, m) F(m, node, node)
#define P9_FIELDS_Tmlistxattr(F, m) F(m, u32, fid) F(m, str, path) F(m, u32, size)
#define P9_FIELDS_Rmlistxattr(F, m) F(m, u32, size) F(m, blob, data)
#define P9_FIELDS_Tmremovexattr(F, m) F(m, u32, fid) F(m, str, path) F(m, str, name)
#define P9_FIELDS_Rmremovexattr(F, m) F(m, node, node)
#define P9_FIELDS_Tmfallocate(F, m) F(m, u32, fid) F(m, u32, mode) F(m, u64, offset) F(m, u64, size)
#define P9_FIELDS_Rmfallocate(F, m) F(m, node, node)
#define P9_FIELDS_Tmseek(F, m) F(m, u32, fid) F(m, u64, offset) F(m, u32, whence)
#define P9_FIELDS_Rmseek(F, m) F(m, u64, offset)
/* The server's end of a second connection (SOCK_SEQPACKET), once: notices come there, one a packet. */
#define P9_FIELDS_Tmnotify(F, m)
#define P9_FIELDS_Rmnotify(F, m) F(m, u8, donated)
/* kind: P9_LOCK_RECORD, P9_LOCK_FLOCK; type: P9_LOCK_RDLCK ...; wait: 0, or the name of the notice that tells of it. status: P9_LOCK_SUCCESS ... */
#define P9_FIELDS_Tmlock(F, m) \
	F(m, u32, fid) F(m, u8, kind) F(m, u8, type) F(m, u64, wait) F(m, u64, start) F(m, u64, length)
#define P9_FIELDS_Rmlock(F, m) F(m, u8, status)
/* err: EINTR, or 0: it was granted just before. ENOENT: its notice is under way. */
#define P9_FIELDS_Tmlockcancel(F, m) F(m, u64, wait)
#define P9_FIELDS_Rmlockcancel(F, m) F(m, u32, err)
/* Notices: no replies. */
#define P9_FIELDS_Tmgranted(F, m) F(m, u64, wait) F(m, u32, err)
#define P9_FIELDS_Rmgranted(F, m)
/* inotify: newfid is bound to a watch of the place, which lives as long. mask: IN_ALL_EVENTS of inotify(7); more of a place that is watched already adds up. qid: what is watched. */
#define P9_FIELDS_Tmwatch(F, m) F(m, u32, fid) F(m, str, path) F(m, u32, newfid) F(m, u32, mask)
#define P9_FIELDS_Rmwatch(F, m) F(m, qid, qid) F(m, u32, watch)
/* A notice: an event that no request of this connection caused. It happened after `since` and before `until` (CLOCK_MONOTONIC, ns). */
#define P9_FIELDS_Tmevent(F, m) \
	F(m, u32, watch)        \
	F(m, u32, mask) F(m, u32, cookie) F(m, u64, since) F(m, u64, until) F(m, str, name)
#define P9_FIELDS_Rmevent(F, m)
/* connect(2) of a new Unix socket of that SOCK_* type to the place. qid: what it is; uid, gid: its listener's. */
#define P9_FIELDS_Tmconnect(F, m) F(m, u32, fid) F(m, str, path) F(m, u32, type)
#define P9_FIELDS_Rmconnect(F, m) F(m, u8, donated) F(m, qid, qid) F(m, u32, uid) F(m, u32, gid)
/* clang-format on */

/* Bits of `want`. */
enum {
	P9_WANT_SELF = 1 << 0, /* the place at `skip` as the first node */
	P9_WANT_FD =
		1
		<< 1, /* donate a descriptor (regular files; mknod: a socket bound there); then newfid is not bound */
	P9_WANT_NODES = 1 << 2, /* readdir: attributes of every entry (but symlinks: TARGETS) */
	P9_WANT_SETGID =
		1
		<< 3, /* a new child of a setgid directory inherits as Linux does: the client does not know the parent */
	P9_WANT_ACL = 1 << 4, /* walks, opens, readdir: do nodes have access ACLs? */
	P9_WANT_FIFO = 1 << 5, /* opens: donate a fifo too, not waited for */
	P9_WANT_QUIET =
		1
		<< 6, /* readdir: nobody reads the directory, its atime stays if that is allowed */
	P9_WANT_DIR_NODES = 1 << 7, /* readdir, with NODES: of directories only */
	P9_WANT_TARGETS =
		1
		<< 8, /* readdir, with NODES: of symlinks too, with targets of P9_DIRENT_TARGET_MAX bytes at most */
	P9_WANT_XATTRS = 1 << 9, /* readdir, with NODES: which have extended attributes? */
};

/* Tlock's and Tmlock's. */
enum { P9_LOCK_RDLCK, P9_LOCK_WRLCK, P9_LOCK_UNLCK };
enum { P9_LOCK_RECORD, P9_LOCK_FLOCK };
enum {
	P9_LOCK_SUCCESS,
	P9_LOCK_BLOCKED, /* taken */
	P9_LOCK_ERROR,
	P9_LOCK_QUEUED, /* Tmlock: a notice comes */
	P9_LOCK_RETRY, /* Tmlock: taken, and nothing waits for it: ask again */
};
#define P9_NOTICE_MAX 512u /* bytes of one */

/* Tsetattr's and Tmsetattr's `valid`. */
enum {
	P9_SETATTR_MODE = 1 << 0,
	P9_SETATTR_UID = 1 << 1,
	P9_SETATTR_GID = 1 << 2,
	P9_SETATTR_SIZE = 1 << 3,
	P9_SETATTR_ATIME = 1 << 4,
	P9_SETATTR_MTIME = 1 << 5,
	P9_SETATTR_CTIME = 1 << 6,
	P9_SETATTR_ATIME_SET = 1 << 7,
	P9_SETATTR_MTIME_SET = 1 << 8,
};

#define P9_GETATTR_BASIC 0x7ffull
#define P9_GETATTR_BTIME 0x800ull

#define P9_OP_ENUM(name, num) P9_T##name = (num), P9_R##name = (num) + 1,
enum p9_type { P9_OPCODES(P9_OP_ENUM) P9_TYPE_MAX = 256 };
#undef P9_OP_ENUM

#define P9_DECL_FIELD(m, kind, field) P9_C_##kind field;
#define P9_DECL_STRUCTS(name, num)                        \
	struct p9_T##name {                               \
		P9_FIELDS_T##name(P9_DECL_FIELD, T##name) \
	};                                                \
	struct p9_R##name {                               \
		P9_FIELDS_R##name(P9_DECL_FIELD, R##name) \
	};
P9_OPCODES(P9_DECL_STRUCTS)
#undef P9_DECL_STRUCTS

struct p9_msg {
	uint8_t type; /* enum p9_type */
	uint16_t tag;
	union {
#define P9_DECL_UNION(name, num)   \
	struct p9_T##name T##name; \
	struct p9_R##name R##name;
		P9_OPCODES(P9_DECL_UNION)
#undef P9_DECL_UNION
	};
};
#undef P9_DECL_FIELD

/* "Twalk"; "T?" for a type that does not exist. */
const char *p9_type_name(unsigned type);

/*
 * p9_frame_size - the size[4] of the message that starts at buf[0..len).
 * Return: 0 with *ret_size set; -EAGAIN fewer than 4 bytes; -EBADMSG not within [P9_HEADER_SIZE, msize].
 */
must_check int p9_frame_size(const void *buf, size_t len, uint32_t msize, uint32_t *ret_size);

/*
 * p9_decode - one whole message of `size` bytes (its own size[4] says the same).
 * *ret borrows from buf. Return: 0; -EBADMSG malformed; -EOPNOTSUPP no such type (type and tag are set then).
 */
must_check int p9_decode(const void *buf, size_t size, struct p9_msg *ret);

/*
 * p9_encode - writes the message. When its last field is a blob with data NULL and size n, the payload is
 * the caller's: the size counts it, but *ret_size ends before it.
 * Return: 0, -EMSGSIZE (does not fit in `max`, or a field is over its limit), -EINVAL no such type.
 */
must_check int p9_encode(const struct p9_msg *msg, void *buf, size_t max, size_t *ret_size);

/* One line for traces: "Twalk tag 3 fid=1 ...". Returns buf. */
const char *p9_print(const struct p9_msg *msg, char *buf, size_t size);

/* nodes, fids: i < count. */
void p9_nodes_get(const struct p9_nodes *nodes, unsigned i, struct p9_node *ret);
void p9_node_put(const struct p9_node *node, uint8_t out[P9_NODE_SIZE]);
uint32_t p9_fids_get(const struct p9_fids *fids, unsigned i);
void p9_fids_put(uint8_t *out, unsigned i, uint32_t fid);

#define P9_DIRENT_TARGET_MAX 255u
#define P9_DIRENT_SIZE 25u /* of Rmreaddir's without a node, but for the name's bytes */

/* Entries of Rreaddir (qid, offset, type, name) and, with a node and perhaps a target before the name, of Rmreaddir. */
struct p9_dirent {
	struct p9_qid qid;
	uint64_t offset; /* cookie of the entry after this */
	uint8_t type; /* DT_* */
	bool has_node; /* Rmreaddir only */
	struct p9_node node;
	struct p9_str
		target; /* with a node: a symlink's, 1 to P9_DIRENT_TARGET_MAX bytes; length 0: none */
	struct p9_str name;
};
/* Appends at *inout_off. Return: 0, -EMSGSIZE. */
must_check int p9_dirent_put(void *buf, size_t max, size_t *inout_off, const struct p9_dirent *d,
			     bool moat);
/* Reads at *inout_off. Return: 1, 0 at the end, -EBADMSG. */
must_check int p9_dirent_get(const void *buf, size_t size, size_t *inout_off, bool moat,
			     struct p9_dirent *ret);

/* Does the request change nothing and bind no fid? Its reply may be dropped then. */
bool p9_changes_nothing(const struct p9_msg *t);

/* One component: 1..255 bytes, no slash, no NUL, not "." or "..". */
bool p9_name_ok(const char *name, size_t len);
/* Zero or more such components; *ret_count of them. */
bool p9_path_ok(const char *path, size_t len, unsigned *ret_count);

static inline struct p9_str p9_str(const char *s)
{
	return (struct p9_str){.data = s, .len = (uint16_t)__builtin_strlen(s)};
}

#endif
