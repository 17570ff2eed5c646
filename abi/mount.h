/* abi/mount.h - structures of mount_setattr(2), statmount(2) and listmount(2) up to Linux 6.18. */
#ifndef MOAT_ABI_MOUNT_H
#define MOAT_ABI_MOUNT_H

#include <stdint.h>

/* Every mount's 64-bit id is above this. */
#define MOAT_MNT_UNIQUE_ID_OFFSET (1ull << 31)

struct moat_mount_attr {
	uint64_t attr_set, attr_clr, propagation, userns_fd;
};
#define MOAT_MOUNT_ATTR_SIZE_VER0 32

struct moat_mnt_id_req {
	uint32_t size;
	uint32_t mnt_ns_fd;
	uint64_t mnt_id; /* LSMT_ROOT for listmount */
	uint64_t param; /* STATMOUNT_* or the last id of the list before */
	uint64_t mnt_ns_id;
};
#define MOAT_MNT_ID_REQ_SIZE_VER0 24
#define MOAT_LSMT_ROOT UINT64_MAX
#define MOAT_LISTMOUNT_REVERSE 1u

struct moat_statmount {
	uint32_t size;
	uint32_t mnt_opts;
	uint64_t mask;
	uint32_t sb_dev_major, sb_dev_minor;
	uint64_t sb_magic;
	uint32_t sb_flags;
	uint32_t fs_type;
	uint64_t mnt_id, mnt_parent_id;
	uint32_t mnt_id_old, mnt_parent_id_old;
	uint64_t mnt_attr;
	uint64_t mnt_propagation;
	uint64_t mnt_peer_group;
	uint64_t mnt_master;
	uint64_t propagate_from;
	uint32_t mnt_root, mnt_point;
	uint64_t mnt_ns_id;
	uint32_t fs_subtype, sb_source;
	uint32_t opt_num, opt_array;
	uint32_t opt_sec_num, opt_sec_array;
	uint64_t supported_mask;
	uint32_t mnt_uidmap_num, mnt_uidmap;
	uint32_t mnt_gidmap_num, mnt_gidmap;
	uint64_t spare[43];
};
_Static_assert(sizeof(struct moat_statmount) == 512, "struct statmount");

enum {
	MOAT_STATMOUNT_SB_BASIC = 1 << 0,
	MOAT_STATMOUNT_MNT_BASIC = 1 << 1,
	MOAT_STATMOUNT_PROPAGATE_FROM = 1 << 2,
	MOAT_STATMOUNT_MNT_ROOT = 1 << 3,
	MOAT_STATMOUNT_MNT_POINT = 1 << 4,
	MOAT_STATMOUNT_FS_TYPE = 1 << 5,
	MOAT_STATMOUNT_MNT_NS_ID = 1 << 6,
	MOAT_STATMOUNT_MNT_OPTS = 1 << 7,
	MOAT_STATMOUNT_FS_SUBTYPE = 1 << 8,
	MOAT_STATMOUNT_SB_SOURCE = 1 << 9,
	MOAT_STATMOUNT_OPT_ARRAY = 1 << 10,
	MOAT_STATMOUNT_OPT_SEC_ARRAY = 1 << 11,
	MOAT_STATMOUNT_SUPPORTED_MASK = 1 << 12,
	MOAT_STATMOUNT_MNT_UIDMAP = 1 << 13,
	MOAT_STATMOUNT_MNT_GIDMAP = 1 << 14,
	MOAT_STATMOUNT_SUPPORTED = (1 << 15) - 1,
};

#endif
