/*
 * vfs/fs_config.h - how a filesystem is configured: Linux's struct fs_context (Documentation/filesystems/mount_api.rst).
 *
 * mount(2)'s option string and fsconfig(2)'s parameters come the same way: one struct fs_param each. What the VFS knows
 * ("ro", "sync", "source" ...) it takes; then comes the type:
 *
 *  - parse_param: the type takes parameters itself, keeping what it made of them in c->priv, and has get_tree and,
 *    for remounts, reconfigure;
 *  - params: a table of names and kinds. Values are checked against it, and the type's mount and remount get
 *    them as an option string. A table with no rows takes none; no table at all takes anything (the type's mount checks it).
 *
 * A type tells what is wrong by fs_config_error(): the text is what read(2) of the fs descriptor gives.
 * A config belongs to one caller at a time: the descriptor's lock, or the stack of a mount(2).
 */
#ifndef MOAT_VFS_FS_CONFIG_H
#define MOAT_VFS_FS_CONFIG_H

#include "vfs/vfs.h"

#define FS_CONFIG_LOG_MAX 8 /* messages kept; the oldest goes */
#define FS_CONFIG_TEXT_MAX 65536 /* option string of one config */
#define FS_PARAM_KEY_MAX 256
#define FS_PARAM_STRING_MAX 256
#define FS_PARAM_BLOB_MAX (1u << 20)

enum fs_param_kind {
	FS_PARAM_FLAG, /* no value */
	FS_PARAM_STRING,
	FS_PARAM_BLOB,
	FS_PARAM_PATH, /* string, relative to `place` */
	FS_PARAM_FILE, /* a descriptor: its place */
};

struct fs_param {
	enum fs_param_kind kind;
	const char *key;
	const char *string; /* STRING, PATH: NUL-terminated. BLOB: size bytes. NULL otherwise */
	size_t size;
	struct vfs_path place; /* FILE; borrowed */
};

/* Rows of filesystem_type.params. */
enum fs_spec_kind {
	FS_SPEC_FLAG = 1,
	FS_SPEC_STRING, /* not empty */
	FS_SPEC_ANY, /* a string, perhaps empty, or a flag */
	FS_SPEC_U32,
	FS_SPEC_U32_OCT,
	FS_SPEC_SIZE, /* memparse(): a number with k, m, g, t, p, e, or %  */
};
struct fs_param_spec {
	const char *name; /* NULL ends the table */
	enum fs_spec_kind kind;
	bool (*fits)(const char *value); /* of a FS_SPEC_STRING; NULL: any does */
};

/* MS_RMT_MASK: what of the superblock's flags can be changed. MS_RDONLY, MS_SYNCHRONOUS, MS_MANDLOCK, MS_LAZYTIME. */
#define FS_CONFIG_REMOUNT_FLAGS (1u | 16u | 64u | 1u << 25)

/* What parse_param returns for a key that is not the type's. */
#define FS_PARAM_UNKNOWN 1

enum fs_config_phase {
	FS_CONFIG_CREATE_PARAMS,
	FS_CONFIG_AWAITING_MOUNT,
	FS_CONFIG_AWAITING_RECONF,
	FS_CONFIG_RECONF_PARAMS,
	FS_CONFIG_FAILED,
};

struct fs_config {
	const struct filesystem_type *type; /* immutable */
	enum fs_config_phase phase;
	bool reconfigure; /* of fs, which exists */
	unsigned sb_flags, sb_mask; /* MS_* of the superblock, and which were given */
	char *source; /* NULL until given */
	struct buf text; /* options for types without parse_param */
	struct filesystem *fs; /* a reference; set by get_tree */
	struct dentry *root; /* a reference */
	const struct vfs_lookup
		*who; /* the caller, during a call: cred, ns, root, start (cwd); path is not set */
	void *kernel_data; /* the sentry's own mounts */
	void *priv; /* the type's: config_free drops it */
	char *log[FS_CONFIG_LOG_MAX]; /* "e text\n" */
	unsigned log_head, log_count;
};

/* For a new filesystem of the type, or (fs != NULL) to change fs at root (borrowed). *ret is owned. */
must_check int fs_config_create(const struct filesystem_type *type, struct filesystem *fs,
				struct dentry *root, struct fs_config **ret);
void fs_config_destroy(struct fs_config *c);
/* One parameter. -EINVAL (a message says why), -EBUSY (the phase takes none), -ENOMEM. */
must_check int fs_config_param(struct fs_config *c, const struct vfs_lookup *who,
			       const struct fs_param *p);
/* An option string, split at commas: "a,b=c". */
must_check int fs_config_options(struct fs_config *c, const struct vfs_lookup *who,
				 const char *data);
/* FSCONFIG_CMD_CREATE: c->fs and c->root are set. `exclusive` is granted to every type: none shares filesystems. */
must_check int fs_config_get_tree(struct fs_config *c, const struct vfs_lookup *who);
/* FSCONFIG_CMD_RECONFIGURE. */
must_check int fs_config_reconfigure(struct fs_config *c, const struct vfs_lookup *who);
/* fsmount(2) took the tree: parameters now are for a reconfiguration. */
void fs_config_mounted(struct fs_config *c);
/* The oldest message, owned by the caller; NULL: none. */
char *fs_config_pop_message(struct fs_config *c);
const char *fs_config_message(const struct fs_config *c);

/* For types: an error message; returns -EINVAL. */
int fs_config_error(struct fs_config *c, const char *fmt, ...) printf_like(2, 3);

#endif
