/*
 * sentry/exec_cred.c - the credentials of a new image: set-user-ID, file capabilities, ambient ones, no_new_privs.
 * The rules are those of security/commoncap.c's cap_bprm_creds_from_file().
 */
#include <linux/capability.h>
#include <sys/stat.h>

#include "sentry/task_internal.h"

#define SECBIT_NOROOT (1u << 0)
#define SECBIT_KEEP_CAPS (1u << 4)

struct file_caps {
	bool present, effective;
	uint64_t permitted, inheritable;
};

static int exec_file_caps(struct file *exe, const struct cred *cred, struct file_caps *ret)
{
	struct vfs_ns_cap_data data;
	struct vfs_lookup lk = {.cred = cred,
				.root = exe->path,
				.start = exe->path,
				.path = "",
				.flags = LOOKUP_EMPTY};
	struct xattr_args xa = {
		.name = "security.capability", .value = &data, .size = sizeof(data)};
	uint32_t magic, words;
	ssize_t n;

	*ret = (struct file_caps){0};
	n = vfs_get_xattr(&lk, &xa);
	if (n < 0)
		return 0; /* none, or a filesystem without them */
	if (n < (ssize_t)sizeof(data.magic_etc))
		return -EINVAL;
	magic = data.magic_etc & VFS_CAP_REVISION_MASK;
	if (magic == VFS_CAP_REVISION_1 && n == (ssize_t)XATTR_CAPS_SZ_1)
		words = 1;
	else if (magic == VFS_CAP_REVISION_2 && n == (ssize_t)XATTR_CAPS_SZ_2)
		words = 2;
	else if (magic == VFS_CAP_REVISION_3 && n == (ssize_t)XATTR_CAPS_SZ_3 && data.rootid == 0)
		words = 2;
	else
		return magic == VFS_CAP_REVISION_3 ? 0 : -EINVAL;
	for (uint32_t i = 0; i < words; i++) {
		ret->permitted |= (uint64_t)data.data[i].permitted << (32 * i);
		ret->inheritable |= (uint64_t)data.data[i].inheritable << (32 * i);
	}
	ret->permitted &= CAP_FULL;
	ret->inheritable &= CAP_FULL;
	ret->effective = data.magic_etc & VFS_CAP_FLAGS_EFFECTIVE;
	ret->present = true;
	return 0;
}

/* A script's own bits never count: what runs is its interpreter. */
static bool exec_is_script(struct file *exe)
{
	char head[2];

	return file_read_kernel(exe, head, sizeof(head), 0) == (ssize_t)sizeof(head) &&
	       head[0] == '#' && head[1] == '!';
}

static int exec_set_ids(struct file *exe, struct cred *c)
{
	struct stat_args sa = {.mask = 0x7ff};
	struct moat_statx st;
	int err;

	err = file_stat(exe, &sa, &st);
	if (err)
		return err;
	if (st.mode & S_ISUID)
		c->euid = st.uid;
	if ((st.mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP))
		c->egid = st.gid;
	return 0;
}

static int exec_caps(struct cred *c, const struct cred *old, const struct file_caps *fc,
		     bool *ret_effective)
{
	bool effective = false;
	uint64_t permitted = 0;

	if (fc->present) {
		effective = fc->effective;
		permitted =
			(c->cap_bounding & fc->permitted) | (c->cap_inheritable & fc->inheritable);
		if (effective && (fc->permitted & ~permitted))
			return -EPERM; /* the program could not tell that it lacks some */
	}
	/* Root gets all, unless the file says otherwise for a set-user-ID root program. */
	if (!(c->securebits & SECBIT_NOROOT) && !(fc->present && c->euid == 0 && c->uid != 0)) {
		if (c->euid == 0 || c->uid == 0)
			permitted = c->cap_bounding | old->cap_inheritable;
		if (c->euid == 0)
			effective = true;
	}
	c->cap_permitted = permitted;
	*ret_effective = effective;
	return 0;
}

int exec_prepare_cred(struct task *t, struct file *exe, struct cred **ret_cred, bool *ret_secure)
{
	const struct cred *old = t->cred;
	bool script = exec_is_script(exe), nosuid, setid, effective;
	struct file_caps fc = {0};
	struct cred *c;
	int err;

	err = cred_prepare(old, &c);
	if (err)
		return err;
	nosuid = script || c->no_new_privs || (t->ptrace && !cred_has_cap(old, CAP_SYS_PTRACE)) ||
		 (exe->path.mount && (atomic_load(&exe->path.mount->flags) & MNT_NOSUID_F));
	if (!nosuid) {
		err = exec_set_ids(exe, c);
		if (!err)
			err = exec_file_caps(exe, old, &fc);
		if (err)
			goto out_unref;
	}
	err = exec_caps(c, old, &fc, &effective);
	if (err)
		goto out_unref;
	setid = c->euid != old->uid || c->egid != old->gid;
	if (c->no_new_privs && (c->cap_permitted & ~old->cap_permitted) && old->uid != 0 &&
	    old->euid != 0)
		c->cap_permitted &= old->cap_permitted;
	c->suid = c->fsuid = c->euid;
	c->sgid = c->fsgid = c->egid;
	if (fc.present || c->euid != old->euid || c->egid != old->egid)
		c->cap_ambient = 0;
	c->cap_permitted |= c->cap_ambient;
	c->cap_effective = effective ? c->cap_permitted : c->cap_ambient;
	c->securebits &= ~SECBIT_KEEP_CAPS;
	*ret_secure = setid || (c->uid != 0 && (effective || (c->cap_permitted & ~c->cap_ambient)));
	cred_commit(c);
	*ret_cred = c;
	return 0;
out_unref:
	cred_unref(c);
	return err;
}
