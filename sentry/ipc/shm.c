/*
 * sentry/ipc/shm.c - shared memory segments.
 *
 * A segment is a mappable of its own, so that attachments are counted where VMAs come and go (fork, exit, a split
 * by mprotect: all as Linux counts them); its pages are those of the shared memory object beneath. IPC_RMID of an
 * attached segment hides its key and destroys it with the last attachment. `pins` keeps it
 * meanwhile for who is about to attach.
 */
#include "sentry/ipc/internal.h"
#include "sentry/pidns.h"

#include <linux/capability.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/resource.h>

#ifndef SHM_DEST
#define SHM_DEST 01000
#define SHM_LOCKED 02000
#endif
#ifndef SHM_HUGETLB
#define SHM_HUGETLB 04000
#endif

struct shm_segment {
	struct ipc_object object;
	struct mappable mappable; /* holds the registrations; a mapping refers to the object */
	struct mappable *memory; /* immutable; a reference */
	uint64_t size; /* immutable: bytes, as asked for */
	char name[24]; /* immutable: /proc/PID/maps */
	/* guarded by object.lock: */
	int32_t attached, pins;
	int32_t creator, last; /* processes */
	int64_t atime, dtime;
};

static REF_TYPE(segment_type, "shared memory segment");

static struct shm_segment *segment_of(struct ipc_object *o)
{
	return container_of(o, struct shm_segment, object);
}

static struct shm_segment *segment_of_mappable(struct mappable *m)
{
	return container_of(m, struct shm_segment, mappable);
}

static uint64_t pages(uint64_t size)
{
	return size / MOAT_PAGE_SIZE + !!(size % MOAT_PAGE_SIZE);
}

/* ---- as a mappable ---- */

static int segment_translate(struct mappable *m, uint64_t off, uint64_t hint_start,
			     uint64_t hint_end, unsigned access, struct mem_trans *ret)
{
	struct mappable *memory = segment_of_mappable(m)->memory;

	return memory->ops->translate(memory, off, hint_start, hint_end, access, ret);
}

/* Object locked. */
static bool segment_unused(const struct shm_segment *s)
{
	return (s->object.mode & SHM_DEST) && !s->attached && !s->pins && !s->object.removed;
}

/*
 * Unused once is unused for ever: it is found by id still, but who finds it pins it under the lock that is
 * taken here again. The caller holds a reference.
 */
static void segment_destroy_if_unused(struct shm_segment *s)
{
	bool unused;

	mutex_lock(&s->object.lock);
	unused = segment_unused(s);
	if (unused)
		s->pins = -1;
	mutex_unlock(&s->object.lock);
	if (unused)
		ipc_object_remove(&s->object);
}

static void segment_mapped(struct mappable *m, int delta)
{
	struct shm_segment *s = segment_of_mappable(m);

	mutex_lock(&s->object.lock);
	s->attached += delta;
	s->last = ipc_caller();
	*(delta > 0 ? &s->atime : &s->dtime) = ipc_seconds();
	mutex_unlock(&s->object.lock);
	if (delta < 0)
		segment_destroy_if_unused(s);
}

static void segment_ref(struct mappable *m)
{
	ipc_object_ref(&segment_of_mappable(m)->object);
}

static void segment_unref(struct mappable *m)
{
	ipc_object_unref(&segment_of_mappable(m)->object);
}

static const struct mappable_ops segment_ops = {
	.translate = segment_translate,
	.mapped = segment_mapped,
	.ref = segment_ref,
	.unref = segment_unref,
};

static void segment_removing(struct ipc_object *o)
{
	atomic_fetch_sub(&o->ids->used, pages(segment_of(o)->size));
}

static void segment_free(struct ipc_object *o)
{
	struct shm_segment *s = segment_of(o);

	mappable_fini(&s->mappable);
	s->memory->ops->unref(s->memory);
}

const struct ipc_kind shm_kind = {
	.type = &segment_type,
	.free = segment_free,
	.removing = segment_removing,
};

/* ---- shmget ---- */

static int segment_make(const struct ipc_get *g, struct ipc_ids *ids, struct ipc_object **ret)
{
	struct shm_segment *s;
	int err;

	if (!g->size || g->size > ipc_limit(ids->ns, IPC_LIMIT_SHMMAX))
		return -EINVAL;
	if (atomic_load(&ids->used) + pages(g->size) > ipc_limit(ids->ns, IPC_LIMIT_SHMALL))
		return -ENOSPC;
	/* No huge pages are set aside; nor is there memory for what can never fit. */
	if ((g->flags & SHM_HUGETLB) || g->size > mm_total_bytes())
		return -ENOMEM;
	s = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	err = mm_shared_memory_create(round_up_u64(g->size, MOAT_PAGE_SIZE), &s->memory);
	if (err) {
		free(s);
		return err;
	}
	ipc_object_init(&s->object, ids, g->key, g->flags);
	mappable_init(&s->mappable, &segment_ops);
	s->size = g->size;
	s->creator = ipc_caller();
	atomic_fetch_add(&ids->used, pages(g->size));
	snprintf(s->name, sizeof(s->name), "/SYSV%08x (deleted)", (unsigned)g->key);
	*ret = &s->object;
	return 0;
}

static int segment_check(const struct ipc_get *g, struct ipc_object *o)
{
	return g->size > segment_of(o)->size ? -EINVAL : 0;
}

int64_t shm_get(struct ipc_namespace *ns, int32_t key, uint64_t size, int flags)
{
	const struct ipc_get g = {
		.key = key,
		.flags = flags,
		.size = size,
		.make = segment_make,
		.check = segment_check,
	};

	return ipc_get(&ns->shm, &g);
}

/* ---- shmat, shmdt ---- */

/* The flags and the address; *ret_addr is 0 for anywhere. */
static int attach_check(uint64_t addr, int flags, uint64_t *ret_addr)
{
	*ret_addr = addr;
	if (!addr)
		return flags & SHM_REMAP ? -EINVAL : 0;
	if (addr & (SHMLBA - 1)) {
		if (!(flags & SHM_RND))
			return -EINVAL;
		*ret_addr = addr & ~(uint64_t)(SHMLBA - 1);
		if (!*ret_addr && (flags & SHM_REMAP))
			return -EINVAL;
	}
	return 0;
}

static int segment_pin(struct task *t, int id, int flags, struct shm_segment **ret)
{
	struct ipc_object *o;
	struct shm_segment *s;
	int err, want = IPC_READ | (flags & SHM_RDONLY ? 0 : IPC_WRITE) |
			(flags & SHM_EXEC ? IPC_EXEC : 0);

	err = ipc_lock_id(&t->ipc_ns->shm, id, &o);
	if (err)
		return err;
	s = segment_of(o);
	err = ipc_may(o, want);
	if (!err && s->pins < 0)
		err = -EIDRM;
	if (err) {
		ipc_unlock(o);
		return err;
	}
	s->pins++;
	mutex_unlock(&o->lock);
	*ret = s;
	return 0;
}

static void segment_unpin(struct shm_segment *s)
{
	mutex_lock(&s->object.lock);
	s->pins--;
	mutex_unlock(&s->object.lock);
	segment_destroy_if_unused(s);
	ipc_object_unref(&s->object);
}

int64_t shm_attach(struct task *t, int id, uint64_t addr, int flags)
{
	unsigned prot = PROT_READ | (flags & SHM_RDONLY ? 0u : PROT_WRITE) |
			(flags & SHM_EXEC ? PROT_EXEC : 0u);
	struct mm_map_args args = {
		.prot = prot,
		.max_prot = PROT_READ | PROT_EXEC | (flags & SHM_RDONLY ? 0u : PROT_WRITE),
		.shared = true,
	};
	struct mm_limits limits;
	struct shm_segment *s;
	uint64_t at;
	int err;

	if (id < 0)
		return -EINVAL;
	err = attach_check(addr, flags, &args.addr);
	if (!err)
		err = segment_pin(t, id, flags, &s);
	if (err)
		return err;
	args.size = s->size;
	args.mappable = &s->mappable;
	args.name = s->name;
	args.fixed = args.addr && (flags & SHM_REMAP);
	args.fixed_noreplace = args.addr && !(flags & SHM_REMAP);
	task_mm_limits(t, &limits);
	err = mm_map(t->mm, &args, &limits, &at);
	segment_unpin(s);
	if (err == -EEXIST)
		err = -EINVAL;
	return err ? err : (int64_t)at;
}

int64_t shm_detach(struct task *t, uint64_t addr)
{
	return addr & ~MOAT_PAGE_MASK ? -EINVAL : mm_detach(t->mm, addr, &segment_ops);
}

/* ---- shmctl ---- */

int64_t shm_stat(struct ipc_namespace *ns, int id, bool index_not_id, bool any,
		 struct shmid_ds *ret)
{
	struct ipc_object *o;
	struct shm_segment *s;
	int err = ipc_lock_to_stat(&ns->shm, id, index_not_id, any, &o);

	if (err)
		return err;
	s = segment_of(o);
	*ret = (struct shmid_ds){
		.shm_segsz = s->size,
		.shm_atime = s->atime,
		.shm_dtime = s->dtime,
		.shm_ctime = o->ctime,
		.shm_cpid = pid_current_vnr(s->creator),
		.shm_lpid = pid_current_vnr(s->last),
		.shm_nattch = (shmatt_t)s->attached,
	};
	ipc_fill_perm(o, &ret->shm_perm);
	err = index_not_id ? o->id : 0;
	ipc_unlock(o);
	return err;
}

int64_t shm_set(struct ipc_namespace *ns, int id, const struct shmid_ds *ds)
{
	struct ipc_object *o;
	int err = ipc_lock_to_control(&ns->shm, id, &o);

	if (err)
		return err;
	ipc_set_perm(o, &ds->shm_perm);
	ipc_unlock(o);
	return 0;
}

int64_t shm_remove(struct ipc_namespace *ns, int id)
{
	struct ipc_object *o;
	int err = ipc_lock_to_control(&ns->shm, id, &o);

	if (err)
		return err;
	o->mode |= SHM_DEST;
	mutex_unlock(&o->lock);
	ipc_object_hide(o);
	segment_destroy_if_unused(segment_of(o));
	ipc_object_unref(o);
	return 0;
}

/* Nothing is ever swapped out: the mode's bit is all there is to a lock. */
int64_t shm_lock(struct task *t, int id, bool lock)
{
	struct ipc_object *o;
	int err = ipc_lock_id(&t->ipc_ns->shm, id, &o);

	if (err)
		return err;
	if (!cred_has_cap(t->cred, CAP_IPC_LOCK)) {
		if (t->cred->euid != o->uid && t->cred->euid != o->cuid)
			err = -EPERM;
		else if (lock && !task_rlimit(t, RLIMIT_MEMLOCK))
			err = -EPERM;
	}
	if (!err)
		o->mode = (uint16_t)(lock ? o->mode | SHM_LOCKED : o->mode & ~SHM_LOCKED);
	ipc_unlock(o);
	return err;
}

int64_t shm_limits(struct ipc_namespace *ns, struct shminfo *ret)
{
	*ret = (struct shminfo){
		.shmmax = ipc_limit(ns, IPC_LIMIT_SHMMAX),
		.shmmin = 1,
		.shmmni = ipc_limit(ns, IPC_LIMIT_SHMMNI),
		.shmseg = ipc_limit(ns, IPC_LIMIT_SHMMNI),
		.shmall = ipc_limit(ns, IPC_LIMIT_SHMALL),
	};
	return ipc_highest_index(&ns->shm);
}

int64_t shm_info(struct ipc_namespace *ns, struct shm_info *ret)
{
	struct ipc_object *o;
	int32_t index = 0;

	*ret = (struct shm_info){0};
	while ((o = ipc_next(&ns->shm, &index))) {
		ret->used_ids++;
		ret->shm_tot += pages(segment_of(o)->size);
		ret->shm_rss += mm_shared_memory_resident(segment_of(o)->memory) / MOAT_PAGE_SIZE;
		ipc_object_unref(o);
	}
	return ipc_highest_index(&ns->shm);
}

void shm_show(struct ipc_namespace *ns, struct buf *b)
{
	struct ipc_object *o;
	int32_t index = 0;

	buf_printf(
		b,
		"       key      shmid perms                  size  cpid  lpid nattch   uid   gid"
		"  cuid  cgid      atime      dtime      ctime                   rss"
		"                  swap\n");
	while ((o = ipc_next(&ns->shm, &index))) {
		struct shm_segment *s = segment_of(o);

		mutex_lock(&o->lock);
		buf_printf(b,
			   "%10d %10d  %4o %21lu %5u %5u  %5u %5u %5u %5u %5u %10lld %10lld %10lld"
			   " %21lu %21lu\n",
			   o->key, o->id, o->mode, (unsigned long)s->size,
			   (unsigned)pid_current_vnr(s->creator),
			   (unsigned)pid_current_vnr(s->last), (unsigned)s->attached, o->uid,
			   o->gid, o->cuid, o->cgid, (long long)s->atime, (long long)s->dtime,
			   (long long)o->ctime, (unsigned long)mm_shared_memory_resident(s->memory),
			   0ul);
		mutex_unlock(&o->lock);
		ipc_object_unref(o);
	}
}
