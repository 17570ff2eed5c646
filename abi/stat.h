/* abi/stat.h - attributes as the VFS passes them: statx(2)'s layout, and what setattr changes. */
#ifndef MOAT_ABI_STAT_H
#define MOAT_ABI_STAT_H

#include <stdint.h>

struct moat_timestamp {
	int64_t sec;
	uint32_t nsec;
	int32_t pad;
};

/* struct statx of include/uapi/linux/stat.h (Linux 6.12), 256 bytes. */
struct moat_statx {
	uint32_t mask, blksize;
	uint64_t attributes;
	uint32_t nlink, uid, gid;
	uint16_t mode, pad0;
	uint64_t ino, size, blocks, attributes_mask;
	struct moat_timestamp atime, btime, ctime, mtime;
	uint32_t rdev_major, rdev_minor, dev_major, dev_minor;
	uint64_t mnt_id;
	uint32_t dio_mem_align, dio_offset_align;
	uint64_t subvol;
	uint32_t atomic_write_unit_min, atomic_write_unit_max, atomic_write_segments_max, pad1;
	uint64_t spare[9];
};
_Static_assert(sizeof(struct moat_statx) == 256, "statx ABI");

/* struct stat of arch/x86/include/uapi/asm/stat.h, 144 bytes. */
struct moat_stat {
	uint64_t dev, ino, nlink;
	uint32_t mode, uid, gid, pad0;
	uint64_t rdev;
	int64_t size, blksize, blocks;
	int64_t atime;
	uint64_t atime_nsec;
	int64_t mtime;
	uint64_t mtime_nsec;
	int64_t ctime;
	uint64_t ctime_nsec;
	int64_t unused[3];
};
_Static_assert(sizeof(struct moat_stat) == 144, "stat ABI");

struct stat_args {
	uint32_t mask; /* STATX_* wanted */
	unsigned flags; /* AT_STATX_* sync type */
};

enum {
	SETATTR_MODE = 1 << 0,
	SETATTR_UID = 1 << 1,
	SETATTR_GID = 1 << 2,
	SETATTR_SIZE = 1 << 3,
	SETATTR_ATIME = 1 << 4, /* to the given time */
	SETATTR_MTIME = 1 << 5,
	SETATTR_ATIME_NOW = 1 << 6, /* to the current time: writers may, not only owners */
	SETATTR_MTIME_NOW = 1 << 7,
	SETATTR_OPEN = 1 << 8, /* truncation by O_TRUNC: permission was checked by open */
	SETATTR_FILE = 1 << 9, /* through an open descriptor (ftruncate): its mode was checked */
	SETATTR_KILL_PRIV = 1 << 10, /* clear setuid/setgid/capabilities (write, truncate, chown) */
};

struct setattr_args {
	unsigned valid; /* SETATTR_* */
	uint32_t mode; /* permission bits */
	uint32_t uid, gid;
	uint64_t size;
	struct moat_timestamp atime, mtime;
};

#endif
