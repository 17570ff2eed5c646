/*
 * vfs/resolving_path.c - a path on its way through filesystems, and the loop that drives it.
 *
 * The remaining path is a stack of strings: the caller's, and one copy for each symlink entered. Components are parsed one
 * ahead: `comp` is the one that the filesystem looks at, `final` is known from what follows it.
 *
 * Two modes. Lock-free (in_rcu): the VFS holds a read section from rp_enter() to rp_end() or rp_unlazy(), nothing is
 * referenced, and restarts hand places on by bare pointers. Reference mode (locked): `held_mount` and `held_start` pin
 * where the walk stands; the references of a restart travel in `next`. A walk begins lock-free if the filesystem at its
 * start can, turns to reference mode when it meets one that cannot, and begins again from the path's first byte in
 * reference mode when it loses a race (RP_RESTART_REFWALK).
 *
 * A filesystem never unrefs through here: what a restart replaces is dropped in rp_again(), after the filesystem returned.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "base/hash.h"
#include "vfs/resolving_path.h"
#include "vfs/vfs_internal.h"

/* ---- parsing ---- */

uint64_t vfs_name_seed;

__attribute__((constructor)) static void name_seed_choose(void)
{
	vfs_name_seed = hash_seed();
}

uint32_t vfs_name_hash(const char *name, size_t len)
{
	uint64_t h = vfs_name_seed;

	for (; len >= 8; name += 8, len -= 8)
		h = name_hash_step(h, name_word(name));
	if (len)
		h = name_hash_step(h, name_tail(name, (unsigned)len));
	return name_hash_end(h);
}

static bool part_only_slashes(const struct rp_part *part)
{
	for (const char *p = part->pos; p < part->end; p++)
		if (*p != '/')
			return false;
	return true;
}

/* Is there nothing but slashes (and, unless a parent is wanted, ".") after the current component? */
static bool rp_rest_is_empty(struct resolving_path *rp)
{
	for (unsigned i = rp->nparts; i-- > 0;)
		if (!part_only_slashes(&rp->parts[i]))
			return false;
	return true;
}

/*
 * "a/." ends at a with the demand that it be a searchable directory. Only looked at when the
 * component could be last, so an ordinary component pays nothing.
 */
static bool rp_rest_is_dots(struct resolving_path *rp)
{
	for (unsigned i = rp->nparts; i-- > 0;) {
		const char *p = rp->parts[i].pos, *end = rp->parts[i].end;

		while (p < end) {
			if (*p == '/') {
				p++;
				continue;
			}
			if (*p != '.' || (p + 1 < end && p[1] != '/'))
				return false;
			p++;
		}
	}
	return true;
}

static void rp_pop_part(struct resolving_path *rp)
{
	struct rp_part *part = &rp->parts[--rp->nparts];

	free(part->owned);
	part->owned = NULL;
}

/* Parses the next component into comp; NULL when the path is used up. */
void rp_parse(struct resolving_path *rp)
{
	rp->climbing = false;
	for (;;) {
		struct rp_part *part;
		const char *p, *start, *end;

		if (!rp->nparts) {
			rp->comp = NULL;
			rp->comp_len = 0;
			rp->comp_final = false;
			return;
		}
		part = &rp->parts[rp->nparts - 1];
		end = part->end;
		p = part->pos;
		while (p < end && *p == '/')
			p++;
		if (p == end) {
			if (rp->nparts == 1) {
				part->pos = p;
				rp->nparts = 0;
				free(part->owned);
				part->owned = NULL;
				continue;
			}
			rp_pop_part(rp);
			continue;
		}
		start = p;
		p = memchr(p, '/', (size_t)(end - p));
		if (!p)
			p = end;
		rp->comp = start;
		rp->comp_len = (unsigned)(p - start);
		rp->trailing_slash = p < end;
		while (p < end && *p == '/')
			p++;
		part->pos = p;
		rp->comp_final = p == end && (rp->nparts == 1 || rp_rest_is_empty(rp));
		if (rp_is_dot(rp) && !(rp->comp_final && rp->want_parent)) {
			if (rp->comp_final) {
				rp->final_dot = true;
				rp->must_dir = true;
			}
			continue;
		}
		if (!rp->comp_final && !rp->want_parent && *p == '.' && rp_rest_is_dots(rp)) {
			rp->comp_final = true;
			rp->trailing_slash = true;
			rp->final_dot = true;
		}
		if (rp->comp_final && rp->trailing_slash && !rp->want_parent)
			rp->must_dir = true;
		rp->comp_hash = vfs_name_hash(rp->comp, rp->comp_len);
		rp->comp_word = name_tail(rp->comp, MIN(rp->comp_len, 8u));
		return;
	}
}

int rp_check_name(const struct resolving_path *rp)
{
	return rp->comp_len > VFS_NAME_MAX ? -ENAMETOOLONG : 0;
}

bool rp_should_follow(const struct resolving_path *rp)
{
	if (!rp->comp_final)
		return true;
	if (rp->want_parent && !(rp->flags & LOOKUP_FOLLOW))
		return false;
	return (rp->flags & LOOKUP_FOLLOW) || rp->trailing_slash;
}

/* ---- checks on names ---- */

int rp_check_create_name(const struct resolving_path *rp, bool is_dir)
{
	if (!rp->comp || rp_is_dot(rp) || rp_is_dotdot(rp))
		return -EEXIST;
	if (rp->comp_len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	/* The caller looks the name up first: an existing one is -EEXIST. */
	if (rp->trailing_slash && !is_dir)
		return -ENOENT;
	return 0;
}

int rp_check_remove_name(const struct resolving_path *rp, bool is_dir)
{
	if (!rp->comp)
		return is_dir ? -EBUSY : -EISDIR;
	if (rp_is_dot(rp))
		return is_dir ? -EINVAL : -EISDIR;
	if (rp_is_dotdot(rp))
		return is_dir ? -ENOTEMPTY : -EISDIR;
	if (rp->comp_len > VFS_NAME_MAX)
		return -ENAMETOOLONG;
	return 0;
}

int rp_check_open_create(const struct resolving_path *rp, unsigned flags)
{
	/* No name left: the start itself (a mount's root, "/") is what is opened. */
	if (!rp->comp)
		return flags & O_EXCL ? -EEXIST : 0;
	if (!rp_is_dot(rp) && !rp_is_dotdot(rp))
		return rp->trailing_slash ? -EISDIR : 0;
	return flags & O_EXCL ? -EEXIST : -EISDIR;
}

/* ---- beginning ---- */

/*
 * With any other flag the way counts and not only the place (RESOLVE_*), so the path cache is not asked. The first two are part of its
 * key; the others change nothing about a path that is not empty.
 */
#define LOOKUP_CACHEABLE (LOOKUP_FOLLOW | LOOKUP_DIRECTORY | LOOKUP_EMPTY | LOOKUP_NO_AUTOMOUNT)

static bool rp_is_jail(const struct resolving_path *rp)
{
	return (rp->flags & (LOOKUP_BENEATH | LOOKUP_IN_ROOT)) != 0;
}

/* The less common things that flags and errors ask of a beginning. */
static noinline_fn const struct vfs_path *rp_reset_slow(struct resolving_path *rp,
							const struct vfs_path *start, size_t len)
{
	const struct vfs_lookup *lk = rp->lk;

	/* IN_ROOT and BENEATH: the start is the root of this walk. */
	if (rp_is_jail(rp))
		rp->root = rp->has_start ? rp->start_place : lk->start;
	if (!rp->has_start && rp->path_start[0] == '/') {
		if (rp->flags & LOOKUP_BENEATH)
			rp->error = -EXDEV;
		start = &rp->root;
	}
	if (len >= VFS_PATH_MAX)
		rp->error = -ENAMETOOLONG;
	else if (len == 0 && !(rp->flags & LOOKUP_EMPTY))
		rp->error = -ENOENT;
	else if (!start->mount)
		rp->error = -ENOENT;
	return start;
}

/* Sets the walk to its first byte. Errors wait in rp->error until rp_enter(). */
static inline void rp_reset(struct resolving_path *rp)
{
	const struct vfs_lookup *lk = rp->lk;
	const char *path = rp->path_start;
	size_t len = strlen(path);
	const struct vfs_path *start;
	bool absolute = !rp->has_start && path[0] == '/';

	rp->trailing_slash = false;
	rp->final_dot = false;
	rp->have_next = false;
	rp->climbing = false;
	rp->root_used = false;
	rp->symlinks = 0;
	rp->error = 0;
	rp->flags = lk->flags;
	rp->must_dir = (lk->flags & LOOKUP_DIRECTORY) != 0;
	rp->place = NULL;
	rp->comp = NULL;
	rp->root = lk->root;
	start = absolute ? &rp->root : rp->has_start ? &rp->start_place : &lk->start;
	if (unlikely(len - 1 >= VFS_PATH_MAX - 1 || rp_is_jail(rp) || !start->mount))
		start = rp_reset_slow(rp, start, len);
	rp->mount = start->mount;
	rp->start = start->dentry;
	/* Past an absolute path's first slash, so that the quick parse meets a name. */
	rp->parts[0] =
		(struct rp_part){.pos = path + absolute, .end = path + len, .wide = len >= 16};
	rp->nparts = 1;
	if (likely(!rp->error))
		rp_advance(rp);
}

static inline void rp_init_common(struct resolving_path *rp, const struct vfs_lookup *lk,
				  const char *path, bool want_parent)
{
	rp->lk = lk;
	rp->cred = lk->cred;
	rp->want_parent = want_parent;
	rp->locked = false;
	rp->writing = false;
	rp->in_rcu = false;
	rp->next_ref = false;
	rp->held_mount = NULL;
	rp->held_start = NULL;
	rp->write_mount = NULL;
	rp->path_start = path;
	rp->has_start = false;
	rp->recording = false;
}

void rp_init(struct resolving_path *rp, const struct vfs_lookup *lk, bool want_parent)
{
	rp_init_common(rp, lk, lk->path, want_parent);
	if (likely(vfs_path_cache_on && !want_parent &&
		   !(lk->flags & ~(unsigned)LOOKUP_CACHEABLE)) &&
	    path_cache_begin(rp))
		return;
	rp_reset(rp);
}

void rp_init_child(struct resolving_path *rp, const struct vfs_lookup *lk,
		   const struct vfs_path *parent, const char *name)
{
	rp_init_common(rp, lk, name, true);
	rp->has_start = true;
	rp->start_place = *parent;
	rp_reset(rp);
}

void rp_init_at(struct resolving_path *rp, struct vfs_lookup *lk, const struct vfs_path *place,
		const struct cred *cred)
{
	*lk = (struct vfs_lookup){
		.cred = cred, .root = *place, .start = *place, .path = "", .flags = LOOKUP_EMPTY};
	rp_init(rp, lk, false);
}

/* ---- modes ---- */

static void rp_leave_rcu(struct resolving_path *rp)
{
	if (rp->in_rcu) {
		rp->in_rcu = false;
		rcu_read_end();
	}
}

bool vfs_path_tryref(struct mount *m, struct dentry *d)
{
	if (!mount_tryref(m))
		return false;
	if (dentry_tryref(d))
		return true;
	mount_unref(m);
	return false;
}

int rp_unlazy(struct resolving_path *rp, struct dentry *d)
{
	assert(rp->in_rcu && !rp->locked);
	if (!vfs_path_tryref(rp->mount, d))
		return RP_RESTART_REFWALK;
	rp->held_mount = rp->mount;
	rp->held_start = d;
	rp->locked = true;
	rp_leave_rcu(rp);
	return 0;
}

void rp_hold(struct resolving_path *rp, struct dentry *d)
{
	struct dentry *old = rp->held_start;

	assert(rp->locked);
	rp->held_start = d;
	dentry_unref(old);
}

static void rp_drop_held(struct resolving_path *rp)
{
	struct mount *m = rp->held_mount;
	struct dentry *d = rp->held_start;

	rp->held_mount = NULL;
	rp->held_start = NULL;
	/* Dentry before mount. */
	dentry_unref(d);
	/* A walk through a mount is no use of it, as far as MNT_EXPIRE goes: who keeps the result is. */
	if (m)
		mount_unref_keep_mark(m);
}

static void rp_drop_parts(struct resolving_path *rp)
{
	while (rp->nparts)
		rp_pop_part(rp);
}

/* The whole walk again, with references. */
static void rp_restart_locked(struct resolving_path *rp)
{
	assert(!rp->writing);
	rp->recording = false;
	rp_leave_rcu(rp);
	if (rp->have_next && rp->next_ref)
		vfs_path_unref(&rp->next);
	rp_drop_held(rp);
	rp_drop_parts(rp);
	rp->locked = true;
	rp_reset(rp);
	if (!rp->error) {
		mount_ref(rp->mount);
		dentry_ref(rp->start);
		rp->held_mount = rp->mount;
		rp->held_start = rp->start;
	}
}

struct filesystem *rp_enter_slow(struct resolving_path *rp)
{
	if (unlikely(rp->error))
		return NULL;
	if (!rp->locked && !rp->in_rcu) {
		if (rp->mount->fs->rcu_walk) {
			rcu_read_begin();
			rp->in_rcu = true;
		} else {
			/* The caller's references pin the start. */
			mount_ref(rp->mount);
			dentry_ref(rp->start);
			rp->held_mount = rp->mount;
			rp->held_start = rp->start;
			rp->locked = true;
		}
	} else if (rp->in_rcu && !rp->mount->fs->rcu_walk) {
		if (rp_unlazy(rp, rp->start)) {
			rp_restart_locked(rp);
			if (rp->error)
				return NULL;
		}
	}
	/* No component left: the start is the place, whatever the filesystem says of itself. */
	rp->place = rp_done(rp) ? rp->start : NULL;
	return rp->mount->fs;
}

bool rp_restart(struct resolving_path *rp, ssize_t *inout_result)
{
	if (*inout_result == RP_RESTART_REFWALK) {
		rp_restart_locked(rp);
		return true;
	}
	assert(rp->have_next);
	if (unlikely(*inout_result == RP_RESTART_AUTOMOUNT)) {
		*inout_result = vfs_automount(&rp->next);
		if (*inout_result)
			return false;
	}
	rp->have_next = false;
	/* An attempt to create where a symlink was found: write access to this mount says nothing about the next. */
	if (unlikely(rp->writing)) {
		rp->writing = false;
		mount_end_write(rp->write_mount);
	}
	rp->climbing = *inout_result == RP_RESTART_PARENT_MOUNT;
	if (rp->locked) {
		assert(rp->next_ref);
		rp_drop_held(rp);
		rp->held_mount = rp->next.mount;
		rp->held_start = rp->next.dentry;
	}
	rp->mount = rp->next.mount;
	rp->start = rp->next.dentry;
	if (unlikely(rp->recording))
		path_record_fs(rp, rp->mount);
	return true;
}

void rp_end_slow(struct resolving_path *rp)
{
	rp_leave_rcu(rp);
	if (rp->writing) {
		rp->writing = false;
		mount_end_write(rp->write_mount);
	}
	if (rp->have_next && rp->next_ref)
		vfs_path_unref(&rp->next);
	rp_drop_parts(rp);
	rp_drop_held(rp);
}

/* ---- stepping ---- */

/* Where to go on. `referenced`: the caller gives references away; otherwise they are taken here in reference mode. */
static int rp_set_next(struct resolving_path *rp, struct mount *m, struct dentry *d,
		       bool referenced, int restart)
{
	if (rp->locked && !referenced && !vfs_path_tryref(m, d))
		return RP_RESTART_REFWALK;
	rp->next.mount = m;
	rp->next.dentry = d;
	rp->next_ref = rp->locked;
	rp->have_next = true;
	return restart;
}

/* Of a mount or a ".." that LOOKUP_NO_XDEV or LOOKUP_BENEATH forbid: Linux's walk under RCU, all that LOOKUP_CACHED has, gives up there. */
static int rp_forbidden(const struct resolving_path *rp)
{
	return rp->flags & LOOKUP_CACHED ? -EAGAIN : -EXDEV;
}

/* As follow_automount(): not for who only asks for attributes of the place itself. */
static int rp_automount(struct resolving_path *rp, struct dentry *d)
{
	/* Below a filesystem that stacks on it nothing is mounted. */
	if (!atomic_load_explicit(&rp->mount->ns, memory_order_relaxed))
		return 0;
	if ((rp->flags & LOOKUP_NO_AUTOMOUNT) && (!rp->comp || rp->comp_final) &&
	    !rp->trailing_slash && !rp->must_dir)
		return 0;
	if (rp->flags & LOOKUP_NO_XDEV)
		return rp_forbidden(rp);
	return rp->locked ? rp_set_next(rp, rp->mount, d, false, RP_RESTART_AUTOMOUNT)
			  : RP_RESTART_REFWALK;
}

int rp_check_mount(struct resolving_path *rp, struct dentry *d)
{
	uint32_t flags = atomic_load_explicit(&d->flags, memory_order_acquire);
	struct mount *m, *up;
	int err = 0;

	if (likely(!(flags & (DENTRY_MAYBE_MOUNTPOINT | DENTRY_AUTOMOUNT))))
		return 0;
	rcu_read_begin();
	m = mount_lookup(rp->mount, d);
	if (m) {
		while (unlikely(atomic_load_explicit(&m->root->flags, memory_order_acquire) &
				DENTRY_MAYBE_MOUNTPOINT) &&
		       (up = mount_lookup(m, m->root)))
			m = up;
		if (rp->flags & LOOKUP_NO_XDEV)
			err = rp_forbidden(rp);
		else
			err = rp_set_next(rp, m, m->root, false, RP_RESTART_MOUNT);
	} else if (flags & DENTRY_AUTOMOUNT) {
		err = rp_automount(rp, d);
	}
	if ((err == RP_RESTART_MOUNT || err == RP_RESTART_AUTOMOUNT) && rp->comp)
		rp_advance(rp);
	rcu_read_end();
	return err;
}

/* d is the root of the current mount: climbs to the mount point's place in a parent, RP_STAY at the top. */
static int rp_climb(struct resolving_path *rp)
{
	struct mount *m, *parent;
	uint32_t seq;
	int err;

	rcu_read_begin();
again:
	m = rp->mount;
	err = RP_STAY;
	/* (parent, mountpoint) pairs change under the mount lock: a pair that was torn is read again. */
	seq = seqcount_read_begin(&mount_seq);
	while ((parent = atomic_load_explicit(&m->parent, memory_order_acquire))) {
		struct dentry *at = atomic_load_explicit(&m->mountpoint, memory_order_acquire);

		if (!at)
			break;
		if (parent == rp->root.mount && at == rp->root.dentry)
			break;
		m = parent;
		if (at != m->root) {
			if (seqcount_read_retry_acquired(&mount_seq, seq))
				goto again;
			err = rp->flags & LOOKUP_NO_XDEV
				      ? rp_forbidden(rp)
				      : rp_set_next(rp, m, at, false, RP_RESTART_PARENT_MOUNT);
			break;
		}
	}
	if (err == RP_STAY && seqcount_read_retry_acquired(&mount_seq, seq))
		goto again;
	rcu_read_end();
	return err;
}

int rp_check_root(struct resolving_path *rp, struct dentry *d)
{
	int err = RP_STAY;

	rp->root_used = true;
	if (likely(d != rp->mount->root) &&
	    likely(d != rp->root.dentry || rp->mount != rp->root.mount)) {
		/* path_connected(): a directory moved out from under a bind mount leads nowhere above itself. */
		if (likely(!rp->mount->partial))
			return 0;
		/* That depends on directories which a walk from below has not passed. */
		rp->recording = false;
		return rp->mount->fs->ops->is_descendant(d, rp->mount->root) ? 0 : -ENOENT;
	}
	if (d != rp->root.dentry || rp->mount != rp->root.mount)
		err = rp_climb(rp);
	if (err != RP_STAY)
		return err;
	if (rp->flags & LOOKUP_BENEATH)
		return rp_forbidden(rp);
	/* Staying steps into what may be mounted here, as Linux does. */
	err = rp_check_mount(rp, d);
	return err ? err : RP_STAY;
}

static int rp_count_symlink(struct resolving_path *rp)
{
	if (rp->flags & LOOKUP_NO_SYMLINKS)
		return -ELOOP;
	if (rp->symlinks >= VFS_SYMLINK_MAX)
		return -ELOOP;
	rp->symlinks++;
	return 0;
}

int rp_follow_symlink(struct resolving_path *rp, const char *target, size_t len)
{
	struct rp_part *part;
	char *copy;
	int err;

	err = rp_count_symlink(rp);
	if (err)
		return err;
	if (atomic_load_explicit(&rp->mount->flags, memory_order_relaxed) & MNT_NOSYMFOLLOW_F)
		return -ELOOP;
	len = strnlen(target, len);
	if (!len)
		return -ENOENT;
	if (len >= VFS_PATH_MAX)
		return -ENAMETOOLONG;
	copy = malloc(len + 1);
	if (!copy)
		return -ENOMEM;
	/* "link/": whatever the link leads to is followed, and must be a directory (must_dir is set). */
	if (rp->comp_final && rp->trailing_slash)
		rp->flags |= LOOKUP_FOLLOW;
	memcpy(copy, target, len);
	copy[len] = '\0';
	assert(rp->nparts <= VFS_SYMLINK_MAX);
	part = &rp->parts[rp->nparts++];
	*part = (struct rp_part){.pos = copy, .end = copy + len, .owned = copy, .wide = len >= 16};
	if (copy[0] != '/') {
		rp_parse(rp);
		return 0;
	}
	if (rp->flags & LOOKUP_BENEATH)
		return -EXDEV;
	if ((rp->flags & LOOKUP_NO_XDEV) &&
	    (rp->mount != rp->root.mount ||
	     !(rp->root_used || rp_is_jail(rp) || rp->path_start[0] == '/')))
		return -EXDEV;
	rp_parse(rp);
	return rp_set_next(rp, rp->root.mount, rp->root.dentry, false, RP_RESTART_ABSOLUTE);
}

int rp_jump(struct resolving_path *rp, struct vfs_path *place)
{
	int err;

	assert(rp->locked);
	rp->recording = false;
	err = rp_count_symlink(rp);
	if (!err &&
	    (atomic_load_explicit(&rp->mount->flags, memory_order_relaxed) & MNT_NOSYMFOLLOW_F))
		err = -ELOOP;
	/* No walk under RCU gets through: proc_pid_get_link() is -ECHILD there. */
	if (!err && (rp->flags & LOOKUP_CACHED))
		err = -EAGAIN;
	if (!err && (rp->flags & LOOKUP_NO_MAGICLINKS))
		err = -ELOOP;
	if (!err && rp_is_jail(rp))
		err = -EXDEV;
	if (!err && (rp->flags & LOOKUP_NO_XDEV) && place->mount != rp->mount)
		err = -EXDEV;
	if (err) {
		vfs_path_unref(place);
		return err;
	}
	rp_parse(rp);
	return rp_set_next(rp, place->mount, place->dentry, true, RP_RESTART_JUMP);
}

int rp_begin_write(struct resolving_path *rp)
{
	int err;

	if (rp->writing)
		return 0;
	assert(rp->locked);
	err = mount_begin_write(rp->mount);
	if (err)
		return err;
	rp->writing = true;
	rp->write_mount = rp->mount;
	return 0;
}
