/* syscalls/sys_cred.c - user and group ids, supplementary groups, capabilities. */
#include "syscalls/syscalls.h"

#include <linux/capability.h>

#include "syscalls/util.h"

#define SECBIT_NO_SETUID_FIXUP (1u << 2)
#define SECBIT_KEEP_CAPS (1u << 4)
#define FS_CAPS                                                                             \
	((1ull << CAP_CHOWN) | (1ull << CAP_DAC_OVERRIDE) | (1ull << CAP_DAC_READ_SEARCH) | \
	 (1ull << CAP_FOWNER) | (1ull << CAP_FSETID) | (1ull << CAP_LINUX_IMMUTABLE) |      \
	 (1ull << CAP_MKNOD) | (1ull << CAP_MAC_OVERRIDE))
#define NO_ID ((uint32_t)-1)

/* ---- reading ---- */

int64_t sys_getuid(struct task *t, const struct syscall_args *a unused_arg)
{
	return t->cred->uid;
}
int64_t sys_geteuid(struct task *t, const struct syscall_args *a unused_arg)
{
	return t->cred->euid;
}
int64_t sys_getgid(struct task *t, const struct syscall_args *a unused_arg)
{
	return t->cred->gid;
}
int64_t sys_getegid(struct task *t, const struct syscall_args *a unused_arg)
{
	return t->cred->egid;
}

static int64_t put_ids(struct task *t, const struct syscall_args *a, uint32_t r, uint32_t e,
		       uint32_t s)
{
	if (task_copy_out(t, a->a[0], &r, sizeof(r)) || task_copy_out(t, a->a[1], &e, sizeof(e)) ||
	    task_copy_out(t, a->a[2], &s, sizeof(s)))
		return -EFAULT;
	return 0;
}

int64_t sys_getresuid(struct task *t, const struct syscall_args *a)
{
	return put_ids(t, a, t->cred->uid, t->cred->euid, t->cred->suid);
}

int64_t sys_getresgid(struct task *t, const struct syscall_args *a)
{
	return put_ids(t, a, t->cred->gid, t->cred->egid, t->cred->sgid);
}

/* ---- changing ---- */

/* cap_task_fix_setuid(): leaving root drops capabilities, coming back raises them. */
static void fix_caps(struct cred *new, const struct cred *old)
{
	bool was_root = old->uid == 0 || old->euid == 0 || old->suid == 0;
	bool is_root = new->uid == 0 || new->euid == 0 || new->suid == 0;

	if (new->securebits & SECBIT_NO_SETUID_FIXUP)
		return;
	if (was_root && !is_root) {
		if (!(new->securebits &SECBIT_KEEP_CAPS)) {
			new->cap_permitted = 0;
			new->cap_effective = 0;
		}
		new->cap_ambient = 0;
	}
	if (old->euid == 0 && new->euid != 0)
		new->cap_effective = 0;
	if (old->euid != 0 && new->euid == 0)
		new->cap_effective = new->cap_permitted;
}

/* What commit_creds() does beside: a changed identity is no longer dumpable and has no parent-death signal. */
static int64_t commit(struct task *t, struct cred *new)
{
	const struct cred *old = t->cred;

	if (new->euid != old->euid || new->egid != old->egid || new->fsuid != old->fsuid ||
	    new->fsgid != old->fsgid || (new->cap_permitted & ~old->cap_permitted)) {
		atomic_store(&t->group->dumpable, 0);
		t->parent_death_signal = 0;
	}
	cred_commit(new);
	task_set_cred(t, new);
	return 0;
}

static bool may_setuid(const struct task *t)
{
	return cred_has_cap(t->cred, CAP_SETUID);
}

static bool may_setgid(const struct task *t)
{
	return cred_has_cap(t->cred, CAP_SETGID);
}

int64_t sys_setuid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint32_t uid = ARG_UINT(0);
	struct cred *new;
	int err;

	if (uid == NO_ID)
		return -EINVAL;
	if (!may_setuid(t) && uid != old->uid && uid != old->suid)
		return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	if (may_setuid(t))
		new->uid = new->suid = uid;
	new->fsuid = new->euid = uid;
	fix_caps(new, old);
	return commit(t, new);
}

int64_t sys_setgid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint32_t gid = ARG_UINT(0);
	struct cred *new;
	int err;

	if (gid == NO_ID)
		return -EINVAL;
	if (!may_setgid(t) && gid != old->gid && gid != old->sgid)
		return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	if (may_setgid(t))
		new->gid = new->sgid = gid;
	new->fsgid = new->egid = gid;
	return commit(t, new);
}

int64_t sys_setreuid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint32_t r = ARG_UINT(0), e = ARG_UINT(1);
	struct cred *new;
	int err;

	if (r != NO_ID && r != old->uid && r != old->euid && !may_setuid(t))
		return -EPERM;
	if (e != NO_ID && e != old->uid && e != old->euid && e != old->suid && !may_setuid(t))
		return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	if (r != NO_ID)
		new->uid = r;
	if (e != NO_ID)
		new->euid = e;
	if (r != NO_ID || (e != NO_ID && e != old->uid))
		new->suid = new->euid;
	new->fsuid = new->euid;
	fix_caps(new, old);
	return commit(t, new);
}

int64_t sys_setregid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint32_t r = ARG_UINT(0), e = ARG_UINT(1);
	struct cred *new;
	int err;

	if (r != NO_ID && r != old->gid && r != old->egid && !may_setgid(t))
		return -EPERM;
	if (e != NO_ID && e != old->gid && e != old->egid && e != old->sgid && !may_setgid(t))
		return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	if (r != NO_ID)
		new->gid = r;
	if (e != NO_ID)
		new->egid = e;
	if (r != NO_ID || (e != NO_ID && e != old->gid))
		new->sgid = new->egid;
	new->fsgid = new->egid;
	return commit(t, new);
}

static bool one_of(uint32_t id, uint32_t r, uint32_t e, uint32_t s)
{
	return id == NO_ID || id == r || id == e || id == s;
}

int64_t sys_setresuid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	struct cred *new;
	int err;

	for (int i = 0; i < 3; i++)
		if (!one_of(ARG_UINT(i), old->uid, old->euid, old->suid) && !may_setuid(t))
			return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	if (ARG_UINT(0) != NO_ID)
		new->uid = ARG_UINT(0);
	if (ARG_UINT(1) != NO_ID)
		new->euid = ARG_UINT(1);
	if (ARG_UINT(2) != NO_ID)
		new->suid = ARG_UINT(2);
	new->fsuid = new->euid;
	fix_caps(new, old);
	return commit(t, new);
}

int64_t sys_setresgid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	struct cred *new;
	int err;

	for (int i = 0; i < 3; i++)
		if (!one_of(ARG_UINT(i), old->gid, old->egid, old->sgid) && !may_setgid(t))
			return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	if (ARG_UINT(0) != NO_ID)
		new->gid = ARG_UINT(0);
	if (ARG_UINT(1) != NO_ID)
		new->egid = ARG_UINT(1);
	if (ARG_UINT(2) != NO_ID)
		new->sgid = ARG_UINT(2);
	new->fsgid = new->egid;
	return commit(t, new);
}

int64_t sys_setfsuid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint32_t uid = ARG_UINT(0), before = old->fsuid;
	struct cred *new;

	if (uid == NO_ID || uid == before ||
	    (!one_of(uid, old->uid, old->euid, old->suid) && !may_setuid(t)) ||
	    cred_prepare(old, &new))
		return before;
	new->fsuid = uid;
	if (!(new->securebits &SECBIT_NO_SETUID_FIXUP)) {
		if (before == 0 && uid != 0)
			new->cap_effective &= ~FS_CAPS;
		else if (before != 0 && uid == 0)
			new->cap_effective |= new->cap_permitted &FS_CAPS;
	}
	commit(t, new);
	return before;
}

int64_t sys_setfsgid(struct task *t, const struct syscall_args *a)
{
	const struct cred *old = t->cred;
	uint32_t gid = ARG_UINT(0), before = old->fsgid;
	struct cred *new;

	if (gid == NO_ID || gid == before ||
	    (!one_of(gid, old->gid, old->egid, old->sgid) && !may_setgid(t)) ||
	    cred_prepare(old, &new))
		return before;
	new->fsgid = gid;
	commit(t, new);
	return before;
}

/* ---- supplementary groups ---- */

int64_t sys_getgroups(struct task *t, const struct syscall_args *a)
{
	const struct cred *c = t->cred;
	int size = ARG_INT(0);

	if (size < 0)
		return -EINVAL;
	if (size) {
		if ((uint32_t)size < c->ngroups)
			return -EINVAL;
		if (c->ngroups &&
		    task_copy_out(t, a->a[1], c->groups, c->ngroups * sizeof(uint32_t)))
			return -EFAULT;
	}
	return c->ngroups;
}

int64_t sys_setgroups(struct task *t, const struct syscall_args *a)
{
	uint32_t count = ARG_UINT(0), *groups = NULL;
	struct cred *new;
	int err;

	if (!may_setgid(t))
		return -EPERM;
	if (count > CRED_GROUPS_MAX)
		return -EINVAL;
	if (count) {
		groups = malloc(count * sizeof(*groups));
		if (!groups)
			return -ENOMEM;
		err = -EFAULT;
		if (task_copy_in(t, groups, a->a[1], count * sizeof(*groups)))
			goto out_free;
	}
	err = cred_prepare(t->cred, &new);
	if (err)
		goto out_free;
	err = cred_set_groups(new, groups, count);
	if (err)
		cred_unref(new);
	else
		err = (int)commit(t, new);
out_free:
	free(groups);
	return err;
}

/* ---- capabilities ---- */

struct cap_header {
	uint32_t version;
	int32_t pid;
};

struct cap_data {
	uint32_t effective, permitted, inheritable;
};

/* How many words the version has; an unknown one is answered with the current. */
static int cap_words(struct task *t, uint64_t uhdr, struct cap_header *hdr, unsigned *ret_words)
{
	uint32_t now = _LINUX_CAPABILITY_VERSION_3;

	if (task_copy_in(t, hdr, uhdr, sizeof(*hdr)))
		return -EFAULT;
	switch (hdr->version) {
	case _LINUX_CAPABILITY_VERSION_1:
		*ret_words = 1;
		return 0;
	case _LINUX_CAPABILITY_VERSION_2:
	case _LINUX_CAPABILITY_VERSION_3:
		*ret_words = 2;
		return 0;
	default:
		return task_copy_out(t, uhdr, &now, sizeof(now)) ? -EFAULT : -EINVAL;
	}
}

int64_t sys_capget(struct task *t, const struct syscall_args *a)
{
	struct cap_data data[2] = {0};
	struct cap_header hdr;
	struct task *other;
	struct cred *c;
	unsigned words;
	int err;

	err = cap_words(t, a->a[0], &hdr, &words);
	if (err)
		return err == -EINVAL && !a->a[1] ? 0 : err;
	if (hdr.pid < 0)
		return -EINVAL;
	other = task_find_v(t, hdr.pid ? hdr.pid : t->vtid);
	if (!other)
		return -ESRCH;
	c = task_get_cred(other);
	task_unref(other);
	for (unsigned i = 0; i < words; i++) {
		data[i].effective = (uint32_t)(c->cap_effective >> (32 * i));
		data[i].permitted = (uint32_t)(c->cap_permitted >> (32 * i));
		data[i].inheritable = (uint32_t)(c->cap_inheritable >> (32 * i));
	}
	cred_unref(c);
	return a->a[1] ? task_copy_out(t, a->a[1], data, words * sizeof(data[0])) : 0;
}

int64_t sys_capset(struct task *t, const struct syscall_args *a)
{
	uint64_t e = 0, p = 0, inh = 0;
	const struct cred *old = t->cred;
	struct cap_data data[2] = {0};
	struct cap_header hdr;
	struct cred *new;
	unsigned words;
	int err;

	err = cap_words(t, a->a[0], &hdr, &words);
	if (err)
		return err;
	if (hdr.pid && hdr.pid != t->vtid)
		return -EPERM;
	if (task_copy_in(t, data, a->a[1], words * sizeof(data[0])))
		return -EFAULT;
	for (unsigned i = 0; i < words; i++) {
		e |= (uint64_t)data[i].effective << (32 * i);
		p |= (uint64_t)data[i].permitted << (32 * i);
		inh |= (uint64_t)data[i].inheritable << (32 * i);
	}
	e &= CAP_FULL, p &= CAP_FULL, inh &= CAP_FULL;
	if (!cred_has_cap(old, CAP_SETPCAP) && (inh & ~(old->cap_inheritable | old->cap_permitted)))
		return -EPERM;
	if (inh & ~(old->cap_inheritable | old->cap_bounding))
		return -EPERM;
	if ((p & ~old->cap_permitted) || (e & ~p))
		return -EPERM;
	err = cred_prepare(old, &new);
	if (err)
		return err;
	new->cap_effective = e;
	new->cap_permitted = p;
	new->cap_inheritable = inh;
	new->cap_ambient &= p &inh;
	return commit(t, new);
}
