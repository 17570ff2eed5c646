#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "vfs/acl.h"
#include "vfs/cred.h"

#define ACL_XATTR_VERSION 2u
#define ACL_PERM_BITS 7u

static REF_TYPE(acl_type, "posix acl");

struct acl_xattr_header {
	uint32_t version;
};

struct acl_xattr_entry {
	uint16_t tag, perm;
	uint32_t id;
};

static struct vfs_acl *acl_alloc(uint32_t count)
{
	struct vfs_acl *acl = malloc(sizeof(*acl) + count * sizeof(acl->entries[0]));

	if (acl) {
		ref_init(&acl->ref, &acl_type);
		acl->count = count;
	}
	return acl;
}

void vfs_acl_ref(struct vfs_acl *acl)
{
	ref_get(&acl->ref);
}

static void acl_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct vfs_acl, rcu));
}

void vfs_acl_unref(struct vfs_acl *acl)
{
	if (!acl || !ref_put(&acl->ref))
		return;
	ref_fini(&acl->ref, &acl_type);
	rcu_call(&acl->rcu, acl_free_cb);
}

/* posix_acl_valid(): the order of tags, one of each single one, a mask where it is needed. */
static bool acl_valid(const struct vfs_acl *acl)
{
	uint16_t state = ACL_TAG_USER_OBJ;
	bool needs_mask = false;

	for (uint32_t i = 0; i < acl->count; i++) {
		const struct vfs_acl_entry *e = &acl->entries[i];

		if (e->perm & ~ACL_PERM_BITS)
			return false;
		switch (e->tag) {
		case ACL_TAG_USER_OBJ:
			if (state != ACL_TAG_USER_OBJ)
				return false;
			state = ACL_TAG_USER;
			break;
		case ACL_TAG_USER:
			if (state != ACL_TAG_USER || e->id == UINT32_MAX)
				return false;
			needs_mask = true;
			break;
		case ACL_TAG_GROUP_OBJ:
			if (state != ACL_TAG_USER)
				return false;
			state = ACL_TAG_GROUP;
			break;
		case ACL_TAG_GROUP:
			if (state != ACL_TAG_GROUP || e->id == UINT32_MAX)
				return false;
			needs_mask = true;
			break;
		case ACL_TAG_MASK:
			if (state != ACL_TAG_GROUP)
				return false;
			state = ACL_TAG_OTHER;
			break;
		case ACL_TAG_OTHER:
			if (state != ACL_TAG_OTHER && (state != ACL_TAG_GROUP || needs_mask))
				return false;
			state = 0;
			break;
		default:
			return false;
		}
	}
	return state == 0;
}

static bool acl_tags_known(const struct vfs_acl *acl)
{
	for (uint32_t i = 0; i < acl->count; i++) {
		const struct vfs_acl_entry *e = &acl->entries[i];

		if (!e->tag || (e->tag & (e->tag - 1)) || e->tag > ACL_TAG_OTHER)
			return false;
		if ((e->tag == ACL_TAG_USER || e->tag == ACL_TAG_GROUP) && e->id == UINT32_MAX)
			return false;
	}
	return true;
}

int vfs_acl_parse(const void *data, size_t size, struct vfs_acl **ret)
{
	struct acl_xattr_header header;
	struct vfs_acl *acl;
	size_t count;

	if (!data || size < sizeof(header))
		return -EINVAL;
	memcpy(&header, data, sizeof(header));
	if (header.version != ACL_XATTR_VERSION)
		return -EOPNOTSUPP;
	size -= sizeof(header);
	if (size % sizeof(struct acl_xattr_entry))
		return -EINVAL;
	count = size / sizeof(struct acl_xattr_entry);
	if (!count) {
		*ret = NULL;
		return 0;
	}
	if (count > VFS_ACL_ENTRIES_MAX)
		return -EINVAL;
	acl = acl_alloc((uint32_t)count);
	if (!acl)
		return -ENOMEM;
	for (size_t i = 0; i < count; i++) {
		struct acl_xattr_entry e;

		memcpy(&e, (const char *)data + sizeof(header) + i * sizeof(e), sizeof(e));
		acl->entries[i] = (struct vfs_acl_entry){.tag = e.tag, .perm = e.perm, .id = e.id};
	}
	if (!acl_tags_known(acl)) {
		vfs_acl_unref(acl);
		return -EINVAL;
	}
	*ret = acl;
	return 0;
}

int vfs_acl_check(const struct vfs_acl *acl)
{
	return !acl || acl_valid(acl) ? 0 : -EINVAL;
}

ssize_t vfs_acl_format(const struct vfs_acl *acl, void *data, size_t size)
{
	struct acl_xattr_header header = {.version = ACL_XATTR_VERSION};
	size_t need = sizeof(header) + acl->count * sizeof(struct acl_xattr_entry);

	if (!size)
		return (ssize_t)need;
	if (need > size)
		return -ERANGE;
	memcpy(data, &header, sizeof(header));
	for (uint32_t i = 0; i < acl->count; i++) {
		const struct vfs_acl_entry *from = &acl->entries[i];
		bool has_id = from->tag == ACL_TAG_USER || from->tag == ACL_TAG_GROUP;
		struct acl_xattr_entry e = {
			.tag = from->tag, .perm = from->perm, .id = has_id ? from->id : UINT32_MAX};

		memcpy((char *)data + sizeof(header) + i * sizeof(e), &e, sizeof(e));
	}
	return (ssize_t)need;
}

/* An entry other than the owner's: bounded by the mask that follows it. */
static int acl_masked(const struct vfs_acl *acl, uint32_t at, unsigned want)
{
	for (uint32_t i = at + 1; i < acl->count; i++)
		if (acl->entries[i].tag == ACL_TAG_MASK)
			return (acl->entries[i].perm & acl->entries[at].perm & want) == want
				       ? 0
				       : -EACCES;
	return (acl->entries[at].perm & want) == want ? 0 : -EACCES;
}

int vfs_acl_permission(const struct vfs_acl *acl, uint32_t uid, uint32_t gid,
		       const struct cred *cred, int mask)
{
	unsigned want = (unsigned)mask & ACL_PERM_BITS;
	bool found = false;

	for (uint32_t i = 0; i < acl->count; i++) {
		const struct vfs_acl_entry *e = &acl->entries[i];
		bool group = false;

		switch (e->tag) {
		case ACL_TAG_USER_OBJ:
			if (cred->fsuid == uid)
				return (e->perm & want) == want ? 0 : -EACCES;
			break;
		case ACL_TAG_USER:
			if (cred->fsuid == e->id)
				return acl_masked(acl, i, want);
			break;
		case ACL_TAG_GROUP_OBJ:
			group = cred_in_group(cred, gid);
			break;
		case ACL_TAG_GROUP:
			group = cred_in_group(cred, e->id);
			break;
		case ACL_TAG_OTHER:
			return !found && (e->perm & want) == want ? 0 : -EACCES;
		default:
			break;
		}
		if (group) {
			found = true;
			if ((e->perm & want) == want)
				return acl_masked(acl, i, want);
		}
	}
	return -EACCES;
}

bool vfs_acl_to_mode(const struct vfs_acl *acl, uint32_t *inout_mode)
{
	bool equivalent = true;
	uint32_t mode = 0;

	for (uint32_t i = 0; i < acl->count; i++) {
		const struct vfs_acl_entry *e = &acl->entries[i];

		switch (e->tag) {
		case ACL_TAG_USER_OBJ:
			mode |= (uint32_t)e->perm << 6;
			break;
		case ACL_TAG_GROUP_OBJ:
			mode |= (uint32_t)e->perm << 3;
			break;
		case ACL_TAG_OTHER:
			mode |= e->perm;
			break;
		case ACL_TAG_MASK:
			mode = (mode & ~(uint32_t)S_IRWXG) | (uint32_t)e->perm << 3;
			equivalent = false;
			break;
		default:
			equivalent = false;
		}
	}
	*inout_mode = (*inout_mode & ~0777u) | mode;
	return equivalent;
}

static int acl_clone(const struct vfs_acl *acl, struct vfs_acl **ret)
{
	struct vfs_acl *copy = acl_alloc(acl->count);

	if (!copy)
		return -ENOMEM;
	memcpy(copy->entries, acl->entries, acl->count * sizeof(acl->entries[0]));
	*ret = copy;
	return 0;
}

int vfs_acl_chmod(const struct vfs_acl *acl, uint32_t mode, struct vfs_acl **ret)
{
	struct vfs_acl_entry *group = NULL, *mask = NULL;
	struct vfs_acl *copy;
	int err;

	err = acl_clone(acl, &copy);
	if (err)
		return err;
	for (uint32_t i = 0; i < copy->count; i++) {
		struct vfs_acl_entry *e = &copy->entries[i];

		if (e->tag == ACL_TAG_USER_OBJ)
			e->perm = (mode >> 6) & 7;
		else if (e->tag == ACL_TAG_GROUP_OBJ)
			group = e;
		else if (e->tag == ACL_TAG_MASK)
			mask = e;
		else if (e->tag == ACL_TAG_OTHER)
			e->perm = mode & 7;
	}
	if (mask)
		mask->perm = (mode >> 3) & 7;
	else if (group)
		group->perm = (mode >> 3) & 7;
	*ret = copy;
	return 0;
}

int vfs_acl_create(struct vfs_acl *dir_default, uint32_t umask, uint32_t *inout_mode,
		   struct vfs_acl **ret_access)
{
	struct vfs_acl_entry *group = NULL, *mask = NULL, *last;
	uint32_t mode = *inout_mode;
	bool equivalent = true;
	struct vfs_acl *copy;
	int err;

	*ret_access = NULL;
	if (!dir_default) {
		*inout_mode = mode & ~(umask & 0777u);
		return 0;
	}
	err = acl_clone(dir_default, &copy);
	if (err)
		return err;
	/* posix_acl_create_masq(): the ACL and the mode restrict each other. */
	for (uint32_t i = 0; i < copy->count; i++) {
		struct vfs_acl_entry *e = &copy->entries[i];

		switch (e->tag) {
		case ACL_TAG_USER_OBJ:
			e->perm &= (mode >> 6) & 7;
			mode &= (uint32_t)e->perm << 6 | ~(uint32_t)S_IRWXU;
			break;
		case ACL_TAG_GROUP_OBJ:
			group = e;
			break;
		case ACL_TAG_MASK:
			mask = e;
			equivalent = false;
			break;
		case ACL_TAG_OTHER:
			e->perm &= mode & 7;
			mode &= e->perm | ~(uint32_t)S_IRWXO;
			break;
		default:
			equivalent = false;
		}
	}
	last = mask ? mask : group;
	if (last) {
		last->perm &= (mode >> 3) & 7;
		mode &= (uint32_t)last->perm << 3 | ~(uint32_t)S_IRWXG;
	}
	*inout_mode = mode;
	if (equivalent)
		vfs_acl_unref(copy);
	else
		*ret_access = copy;
	return 0;
}
