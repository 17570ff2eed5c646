/*
 * vfs/resolving_path.h - a path on its way through filesystems. Lives on the stack of one vfs_* call.
 *
 * A filesystem's walk is:
 *
 *	d = rp_start(rp);
 *	while (!rp_done(rp)) {
 *		d must be a directory (-ENOTDIR) and searchable (-EACCES)
 *		name = rp_component(rp);           // never empty, never "."; ".." comes as rp_is_dotdot()
 *		if (rp_is_dotdot(rp)) {
 *			err = rp_check_root(rp, d);    // RP_RESTART_PARENT_MOUNT when d is the mount's root: return it; 0 and *stay when d is the task's root
 *			...step to the parent
 *		} else look up the child; absent: -ENOENT (or create when rp_final(rp))
 *		err = rp_check_mount(rp, child);   // RP_RESTART_MOUNT: return it
 *		if child is a symlink and rp_should_follow(rp): err = rp_follow_symlink(rp, target, len) // continues at d; absolute: RP_RESTART_ABSOLUTE
 *		else rp_advance(rp), d = child;
 *	}
 *
 * Operations on a parent stop when rp_final(rp).
 * Restart codes are positive. On a restart the rp already holds what the VFS needs (references were taken by rp_*).
 */
#ifndef MOAT_VFS_RESOLVING_PATH_H
#define MOAT_VFS_RESOLVING_PATH_H

#include <emmintrin.h>

#include "vfs/path_cache.h"
#include "vfs/vfs.h"

/* Above every size that an xattr operation may return: its results and these share one return value. */
enum rp_restart {
	RP_RESTART_BASE = 1 << 24,
	RP_RESTART_MOUNT, /* stepped onto a mount point */
	RP_RESTART_PARENT_MOUNT, /* ".." from a mount's root */
	RP_RESTART_ABSOLUTE, /* an absolute symlink: again at the root */
	RP_RESTART_JUMP, /* a magic link led elsewhere */
	RP_RESTART_AUTOMOUNT, /* stepped onto where a filesystem begins that is not mounted yet */
	RP_RESTART_REFWALK, /* the lock-free walk gave up: all of it again with rp_locked(rp) true */
};

static inline bool rp_is_restart(ssize_t result)
{
	return result > RP_RESTART_BASE;
}

struct rp_part {
	const char *pos, *end;
	char *owned; /* a symlink's target copy, freed when popped; NULL for the caller's path */
	bool wide; /* at least sixteen bytes: the last sixteen may be read at once */
};

/* ---- the hash of a name, made while its end is looked for ---- */

extern uint64_t vfs_name_seed; /* immutable after start */

static inline uint64_t name_hash_step(uint64_t h, uint64_t word)
{
	h = (h ^ word) * 0x9e3779b97f4a7c15ull;
	return h ^ h >> 29;
}
static inline uint32_t name_hash_end(uint64_t h)
{
	return (uint32_t)(h * 0x9e3779b97f4a7c15ull >> 32);
}
static inline uint64_t name_word(const char *p)
{
	uint64_t w;

	__builtin_memcpy(&w, p, sizeof(w));
	return w;
}
/* A bit for each slash among sixteen bytes. */
static inline unsigned name_slashes(const char *p)
{
	const __m128i bytes = _mm_loadu_si128((const __m128i *)(const void *)p);

	return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8('/')));
}
/* How far the next slash is from p, or the end. At least sixteen bytes before `end` belong to the string. */
static inline unsigned name_length(const char *p, const char *end)
{
	const char *start = p;
	unsigned hit;

	for (; end - p >= 16; p += 16) {
		hit = name_slashes(p);
		if (hit)
			return (unsigned)(p - start) + (unsigned)__builtin_ctz(hit);
	}
	if (p == end)
		return (unsigned)(p - start);
	hit = name_slashes(end - 16) >> (16 - (end - p));
	return (unsigned)(p - start) + (hit ? (unsigned)__builtin_ctz(hit) : (unsigned)(end - p));
}
/* The same for strings of any length. */
static inline unsigned name_length_short(const char *p, const char *end)
{
	const char *start = p;

	while (p < end && *p != '/')
		p++;
	return (unsigned)(p - start);
}
/* Up to eight bytes as a word, without reading behind them. */
static inline uint64_t name_tail(const char *p, unsigned len)
{
	uint64_t w = 0;

	while (len--)
		w = w << 8 | (unsigned char)p[len];
	return w;
}
/* Names of `len` bytes, more than eight. */
static inline bool name_equal_long(const char *a, const char *b, unsigned len)
{
	unsigned i = 0;

	for (; i + 8 < len; i += 8)
		if (name_word(a + i) != name_word(b + i))
			return false;
	return name_word(a + len - 8) == name_word(b + len - 8);
}
/* The hash that rp_component_hash() gives for the same bytes. */
uint32_t vfs_name_hash(const char *name, size_t len);

struct resolving_path {
	const struct vfs_lookup *lk;
	const struct cred *cred;
	struct vfs_path root; /* borrowed from lk */
	struct mount *mount; /* current; referenced when `locked`, else under RCU */
	struct dentry *start; /* where the current filesystem begins */
	/* current component, parsed */
	const char *comp;
	uint64_t comp_word; /* its first eight bytes, zeroes behind its end */
	uint32_t comp_hash;
	unsigned comp_len;
	bool comp_final;
	bool must_dir; /* a trailing slash was seen after the last component, or LOOKUP_DIRECTORY */
	bool want_parent; /* creation/removal: stop at the final component */
	bool has_start; /* `start_place` instead of lk's start (renames and links: the parent was resolved) */
	/* cleared together at the beginning of a call */
	bool locked; /* reference mode */
	bool writing; /* rp_begin_write done */
	bool in_rcu; /* the VFS holds a read section: the complement of `locked` while an operation runs */
	bool next_ref; /* `next` holds references */
	/* cleared together at the beginning of a walk */
	bool trailing_slash;
	bool final_dot; /* a final "." was skipped: the place must be a directory that the caller may search */
	bool have_next;
	bool climbing; /* ".." continues at a mount point: search permission was checked on what covers it */
	bool root_used; /* an absolute path or ".." came already: RESOLVE_NO_XDEV lets absolute links through only then, as Linux's nd_jump_root() */
	unsigned symlinks; /* followed so far */
	int error; /* why rp_enter() gave no filesystem */
	unsigned flags; /* LOOKUP_* */
	unsigned nparts;
	struct dentry *
		place; /* where the walk ended, as far as the filesystem says (else NULL); borrowed, not to be looked into */
	/* references that this call holds and drops at its end */
	struct mount *held_mount;
	struct dentry *held_start;
	struct mount *write_mount; /* of rp_begin_write */
	const char *
		path_start; /* where a restart in reference mode begins: the string left of lk->path to walk */
	bool recording; /* for the path cache; the rest of the walk fills `record` */
	struct vfs_path next; /* where a restart goes on; references, if next_ref */
	struct vfs_path start_place; /* borrowed */
	struct rp_part parts[VFS_SYMLINK_MAX + 1];
	struct path_record record;
};

static inline struct dentry *rp_start(const struct resolving_path *rp)
{
	return rp->start;
}
static inline bool rp_done(const struct resolving_path *rp)
{
	return rp->comp == NULL;
}
/* True if the current component is the last one (trailing slashes aside). */
static inline bool rp_final(const struct resolving_path *rp)
{
	return rp->comp_final;
}
/* True at a link that fs.protected_symlinks is about: one in the middle of a path is not, and what only "." follows is in the middle. */
static inline bool rp_trailing(const struct resolving_path *rp)
{
	return rp->comp_final && !rp->final_dot;
}
/* Not NUL-terminated; rp_component_len bytes, 1..VFS_NAME_MAX (longer: the parse gives -ENAMETOOLONG by rp_check_name). */
static inline const char *rp_component(const struct resolving_path *rp)
{
	return rp->comp;
}
static inline unsigned rp_component_len(const struct resolving_path *rp)
{
	return rp->comp_len;
}
static inline uint32_t rp_component_hash(const struct resolving_path *rp)
{
	return rp->comp_hash;
}
static inline bool rp_is_dotdot(const struct resolving_path *rp)
{
	return rp->comp_len == 2 && rp->comp[0] == '.' && rp->comp[1] == '.';
}
/* "." appears only as the final component of a want_parent path (mkdir("a/.")): elsewhere it is skipped. */
static inline bool rp_is_dot(const struct resolving_path *rp)
{
	return rp->comp_len == 1 && rp->comp[0] == '.';
}
static inline struct mount *rp_mount(const struct resolving_path *rp)
{
	return rp->mount;
}
static inline const struct cred *rp_cred(const struct resolving_path *rp)
{
	return rp->cred;
}
static inline bool rp_locked(const struct resolving_path *rp)
{
	return rp->locked;
}
static inline bool rp_must_dir(const struct resolving_path *rp)
{
	return rp->must_dir;
}

void rp_parse(struct resolving_path *rp); /* any component; rp_advance() is the way in */

/*
 * The next component, when some part is left. Names that are neither "." nor ".." nor before a double slash are parsed
 * here, sixteen bytes at a time; the rest is rp_parse()'s.
 */
static inline void rp_next(struct resolving_path *rp)
{
	struct rp_part *part = &rp->parts[rp->nparts - 1];
	const char *start = part->pos, *end = part->end, *p;
	uint64_t h = vfs_name_seed, w;
	unsigned len, at;

	if (unlikely(start == end || *start == '.' || *start == '/')) {
		rp_parse(rp);
		return;
	}
	len = likely(part->wide) ? name_length(start, end) : name_length_short(start, end);
	p = start + len;
	rp->trailing_slash = p < end;
	rp->comp_final = p >= end;
	/* "name/x", or "name" at the very end of the path. */
	if (likely(p < end) ? ++p == end || *p == '/' || *p == '.' : rp->nparts != 1) {
		rp_parse(rp);
		return;
	}
	if (likely(len < 8)) {
		w = likely(end - start >= 8) ? name_word(start) & ((1ull << 8 * len) - 1)
					     : name_tail(start, len);
		rp->comp_word = w;
		h = name_hash_step(h, w);
	} else {
		rp->comp_word = name_word(start);
		for (at = 0; at + 8 <= len; at += 8)
			h = name_hash_step(h, name_word(start + at));
		if (at < len)
			h = name_hash_step(h, name_word(start + len - 8) >> (64 - 8 * (len - at)));
	}
	rp->climbing = false;
	rp->comp = start;
	rp->comp_len = len;
	rp->comp_hash = name_hash_end(h);
	part->pos = p;
}

/* Goes past the current component. */
static inline void rp_advance(struct resolving_path *rp)
{
	if (rp->nparts == 1 && rp->parts[0].pos == rp->parts[0].end && !rp->parts[0].owned) {
		rp->nparts = 0;
		rp->comp = NULL;
		rp->comp_len = 0;
		rp->comp_final = false;
		rp->climbing = false;
		return;
	}
	rp_next(rp);
}
/* -ENAMETOOLONG if the current component is longer than VFS_NAME_MAX. After the directory and search checks, as Linux orders them. */
must_check int rp_check_name(const struct resolving_path *rp);
/*
 * Before stepping from d to its parent. 0: step. RP_STAY (-1 is no errno here: see value): d is the task's root, stay at d (advance and go on).
 * RP_RESTART_PARENT_MOUNT: d is the current mount's root. -EXDEV for RESOLVE_BENEATH/NO_XDEV.
 */
#define RP_STAY 1000
must_check int rp_check_root(struct resolving_path *rp, struct dentry *d);
/* After finding child d, before using it: is something mounted there? Takes the rp past the component when it restarts. */
must_check int rp_check_mount(struct resolving_path *rp, struct dentry *d);
/* Is the symlink at the current component to be followed (not final, or LOOKUP_FOLLOW, or trailing slash)? */
bool rp_should_follow(const struct resolving_path *rp);
/*
 * Replaces the current component by the target (copied; at most VFS_PATH_MAX-1 bytes). Return 0: go on from the directory that holds the link;
 * RP_RESTART_ABSOLUTE; -ELOOP (too many, NO_SYMLINKS, nosymfollow mount); -ENOENT (empty target); -EXDEV (BENEATH); -ENOMEM.
 * Sticky-directory protection (fs.protected_symlinks) is checked by the filesystem with vfs_may_follow_link() in vfs/perm.h.
 */
must_check int rp_follow_symlink(struct resolving_path *rp, const char *target, size_t len);
/* A magic link (/proc/PID/fd/N): takes the references in *place. Returns RP_RESTART_JUMP or -ELOOP/-EXDEV. */
must_check int rp_jump(struct resolving_path *rp, struct vfs_path *place);
/* Write access on the current mount and filesystem for the rest of the call: 0 or -EROFS. Ended by the VFS. */
must_check int rp_begin_write(struct resolving_path *rp);
/* Checks for want_parent operations on the final component: create: "." / ".." / "/" -> -EEXIST; rmdir: "." -EINVAL, ".." -ENOTEMPTY; unlink: -EISDIR ... */
must_check int rp_check_create_name(const struct resolving_path *rp, bool is_dir);
must_check int rp_check_remove_name(const struct resolving_path *rp, bool is_dir);
/*
 * Filesystems with FS_RCU_WALK are first called with rp_locked() false: inside the VFS's RCU read section, without references on
 * mount or start. They must not sleep until they have called rp_unlazy() with the dentry that they need from there on.
 * Takes references on the mount and on d for the rest of the call and leaves the read section.
 * Return: 0, RP_RESTART_REFWALK (return it).
 */
must_check int rp_unlazy(struct resolving_path *rp, struct dentry *d);
/* In reference mode: keeps d (takes the caller's reference) until the end of the call. */
void rp_hold(struct resolving_path *rp, struct dentry *d);
/*
 * O_CREAT on a final ".", ".." or a trailing slash: -EISDIR, or -EEXIST with O_EXCL; 0 for a plain name. With rp_done() the start itself is to
 * be opened (a mount's root, which may be a file): -EEXIST with O_EXCL, else 0.
 */
must_check int rp_check_open_create(const struct resolving_path *rp, unsigned flags);

/*
 * The VFS's loop around one operation (vfs/path_ops.c; also for a filesystem that stacks on others):
 *
 *	do {
 *		fs = rp_enter(rp);
 *		ret = fs ? fs->ops->stat_at(fs, rp, args, ret_stat) : rp->error;
 *	} while (rp_again(rp, &ret));
 *	rp_end(rp);
 */
void rp_init(struct resolving_path *rp, const struct vfs_lookup *lk, bool want_parent);
/* At `place` itself, which the caller keeps referenced: an operation on an open file. */
void rp_init_at(struct resolving_path *rp, struct vfs_lookup *lk, const struct vfs_path *place,
		const struct cred *cred);
/* The one component `name` (with its trailing slashes) below `parent`, which the caller keeps referenced. */
void rp_init_child(struct resolving_path *rp, const struct vfs_lookup *lk,
		   const struct vfs_path *parent, const char *name);
struct filesystem *rp_enter_slow(struct resolving_path *rp);
must_check bool rp_restart(struct resolving_path *rp, ssize_t *inout_result);
void rp_end_slow(struct resolving_path *rp);

static inline struct filesystem *rp_enter(struct resolving_path *rp)
{
	/* The common beginning: a walk that was just set up, in a filesystem that walks lock-free. */
	if (likely(!rp->error && !rp->locked && rp->mount->fs->rcu_walk)) {
		if (!rp->in_rcu) {
			rcu_read_begin();
			rp->in_rcu = true;
		}
		rp->place = rp->comp ? NULL : rp->start;
		return rp->mount->fs;
	}
	return rp_enter_slow(rp);
}
static inline must_check bool rp_again(struct resolving_path *rp, ssize_t *inout_result)
{
	return unlikely(rp_is_restart(*inout_result)) && rp_restart(rp, inout_result);
}
static inline void rp_end(struct resolving_path *rp)
{
	if (likely(rp->in_rcu && !rp->parts[0].owned && rp->nparts <= 1 && !rp->have_next)) {
		rp->in_rcu = false;
		rcu_read_end();
		return;
	}
	rp_end_slow(rp);
}
/*
 * After rp_check_mount() said RP_RESTART_MOUNT in a lock-free walk: goes on in the mounted filesystem without leaving the operation, if that is
 * one of the caller's kind (its root has operations `ops`). Returns the mount's root, or NULL: return the restart.
 */
static inline struct dentry *rp_cross(struct resolving_path *rp, const struct filesystem_ops *ops)
{
	struct dentry *d = rp->next.dentry;

	if (!rp->in_rcu || d->fs->ops != ops)
		return NULL;
	rp->have_next = false;
	rp->climbing = false;
	rp->mount = rp->next.mount;
	rp->start = d;
	if (unlikely(rp->recording))
		path_record_fs(rp, rp->mount);
	return d;
}

/* A file opened here gets this place: fills *ret with borrowed pointers to the current mount and d. */
static inline void rp_place(const struct resolving_path *rp, struct dentry *d, struct vfs_path *ret)
{
	ret->mount = rp->mount;
	ret->dentry = d;
}

#endif
