/*
 * sentry/boot/boot_copyup.c - tmpfs with the option tmpcopyup: it begins with a copy of what it covers.
 *
 * The option is the runtimes' own (podman gives it to --tmpfs). Directories, files and symbolic links are copied with mode and owner; other
 * files are made anew. Lookups begin at the covered directory, which keeps being there below the mount.
 */
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "sentry/boot/internal.h"

#define COPYUP_DEPTH_MAX 40
#define COPYUP_ENTRIES_MAX 65536
#define COPYUP_BUF 65536

struct names {
	struct dir_emit ctx;
	char **list;
	size_t count;
	int err;
};

static int copy_dir(struct boot_container *b, const struct vfs_path *from,
		    const struct vfs_path *to, int depth);

static bool collect(struct dir_emit *ctx, const char *name, size_t len, unused_arg uint64_t ino,
		    unused_arg unsigned type, unused_arg int64_t next)
{
	struct names *n = container_of(ctx, struct names, ctx);
	char **grown;

	if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return true;
	grown = n->count < COPYUP_ENTRIES_MAX ? realloc(n->list, (n->count + 1) * sizeof(*grown))
					      : NULL;
	if (!grown) {
		n->err = n->count < COPYUP_ENTRIES_MAX ? -ENOMEM : -E2BIG;
		return false;
	}
	n->list = grown;
	grown[n->count] = strndup(name, len);
	if (!grown[n->count]) {
		n->err = -ENOMEM;
		return false;
	}
	n->count++;
	return true;
}

static struct vfs_lookup at(struct boot_container *b, const struct vfs_path *dir, const char *name)
{
	struct vfs_lookup lk = boot_lookup(b, name, 0);

	lk.start = *dir;
	return lk;
}

static int copy_file(struct boot_container *b, const struct vfs_path *from,
		     const struct vfs_path *to, const char *name, uint32_t mode)
{
	struct vfs_lookup src = at(b, from, name), dst = at(b, to, name);
	char *data = malloc(COPYUP_BUF);
	struct file *in, *out;
	int64_t off = 0, at_out = 0;
	ssize_t n = 0;
	int err = data ? vfs_open(&src, &(struct open_args){.flags = O_RDONLY}, &in) : -ENOMEM;

	if (err) {
		free(data);
		return err;
	}
	out = NULL;
	err = vfs_open(&dst,
		       &(struct open_args){.flags = O_WRONLY | O_CREAT | O_EXCL,
					   .mode = mode & 07777},
		       &out);
	while (!err) {
		struct io_iter it;

		io_iter_init_kernel(&it, data, COPYUP_BUF, true);
		n = in->ops->read_iter(in, &it, off, 0);
		io_iter_fini(&it);
		if (n <= 0) {
			err = (int)n;
			break;
		}
		off += n;
		io_iter_init_kernel(&it, data, (size_t)n, false);
		n = out->ops->write_iter(out, &it, &at_out, 0);
		io_iter_fini(&it);
		err = n < 0 ? (int)n : 0;
	}
	file_unref(in);
	if (out)
		file_unref(out);
	free(data);
	return err;
}

static int copy_link(struct boot_container *b, const struct vfs_path *from,
		     const struct vfs_path *to, const char *name)
{
	struct vfs_lookup src = at(b, from, name), dst = at(b, to, name);
	char target[4097];
	size_t len;
	int err = vfs_readlink(&src, target, sizeof(target) - 1, &len);

	if (err)
		return err;
	target[len] = '\0';
	return vfs_symlink(&dst, target);
}

static int copy_subdir(struct boot_container *b, const struct vfs_path *from,
		       const struct vfs_path *to, const char *name, uint32_t mode, int depth)
{
	struct vfs_lookup src = at(b, from, name), dst = at(b, to, name);
	struct vfs_path below_from, below_to;
	int err = vfs_mkdir(&dst, &(struct mkdir_args){.mode = mode & 07777});

	if (err)
		return err;
	err = vfs_get_path(&src, &below_from);
	if (err)
		return err;
	err = vfs_get_path(&dst, &below_to);
	if (!err) {
		err = copy_dir(b, &below_from, &below_to, depth + 1);
		vfs_path_unref(&below_to);
	}
	vfs_path_unref(&below_from);
	return err;
}

static int copy_entry(struct boot_container *b, const struct vfs_path *from,
		      const struct vfs_path *to, const char *name, int depth)
{
	struct vfs_lookup src = at(b, from, name), dst = at(b, to, name);
	struct moat_statx st;
	int err = vfs_stat(&src, &(struct stat_args){.mask = 0x7ff}, &st);

	if (err)
		return err == -ENOENT ? 0 : err;
	if (S_ISDIR(st.mode))
		err = copy_subdir(b, from, to, name, st.mode, depth);
	else if (S_ISREG(st.mode))
		err = copy_file(b, from, to, name, st.mode);
	else if (S_ISLNK(st.mode))
		err = copy_link(b, from, to, name);
	else
		err = vfs_mknod(&dst, &(struct mknod_args){.mode = st.mode,
							   .rdev_major = st.rdev_major,
							   .rdev_minor = st.rdev_minor});
	if (!err && (st.uid || st.gid))
		err = vfs_set_stat(&dst, &(struct setattr_args){.valid = SETATTR_UID | SETATTR_GID,
								.uid = st.uid,
								.gid = st.gid});
	return err;
}

static int copy_dir(struct boot_container *b, const struct vfs_path *from,
		    const struct vfs_path *to, int depth)
{
	struct names n = {.ctx = {.emit = collect}};
	struct vfs_lookup lk = at(b, from, ".");
	struct file *dir;
	int err;

	if (depth > COPYUP_DEPTH_MAX)
		return -ELOOP;
	lk.flags = LOOKUP_DIRECTORY;
	err = vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_DIRECTORY}, &dir);
	if (err)
		return err;
	err = file_iterate(dir, &n.ctx);
	file_unref(dir);
	if (!err)
		err = n.err;
	for (size_t i = 0; i < n.count; i++) {
		if (!err)
			err = copy_entry(b, from, to, n.list[i], depth);
		free(n.list[i]);
	}
	free(n.list);
	return err;
}

bool boot_take_option(char *data, const char *option)
{
	size_t len = strlen(option);

	for (char *p = data; p && *p;) {
		size_t n = strcspn(p, ",");

		if (n == len && memcmp(p, option, len) == 0) {
			/* With one of the commas around it. */
			if (p[n])
				memmove(p, p + n + 1, strlen(p + n + 1) + 1);
			else if (p > data)
				p[-1] = '\0';
			else
				*p = '\0';
			return true;
		}
		p += n + (p[n] == ',');
	}
	return false;
}

int boot_copy_up(struct boot_container *b, const struct vfs_path *covered, const char *path,
		 bool keep_mode)
{
	struct vfs_lookup lk = boot_lookup(b, path, LOOKUP_FOLLOW | LOOKUP_DIRECTORY);
	struct moat_statx st;
	struct vfs_path to;
	int err = vfs_get_path(&lk, &to);

	if (err)
		return err;
	err = copy_dir(b, covered, &to, 0);
	/* The directory itself too, unless the options give a mode: /tmp stays 1777. */
	lk = at(b, covered, ".");
	if (!err && !keep_mode && vfs_stat(&lk, &(struct stat_args){.mask = 0x7ff}, &st) == 0) {
		lk = at(b, &to, ".");
		err = vfs_set_stat(&lk, &(struct setattr_args){.valid = SETATTR_UID | SETATTR_GID |
									SETATTR_MODE,
							       .uid = st.uid,
							       .gid = st.gid,
							       .mode = st.mode & 07777});
	}
	vfs_path_unref(&to);
	return err;
}
