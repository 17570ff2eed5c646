/* bench/fs_tree.c - see fs_tree.h. */
#include "bench/fs_tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_BYTES 300
#define FILE_BYTES 4096
#define GROUP 10 /* directories in one of the upper level */
#define LIST_MAX 64

static const char contents[FILE_BYTES] = "as in a source file";

/* "src/g3/d37" */
static void dir_path(char path[PATH_BYTES], unsigned dir)
{
	snprintf(path, PATH_BYTES, "src/g%u/d%u", dir / GROUP, dir);
}

static int make_file(int root, const char *dir, unsigned i)
{
	char path[PATH_BYTES + 8];
	int fd, err = 0;

	snprintf(path, sizeof(path), "%s/f%u.c", dir, i);
	fd = openat(root, path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (write(fd, contents, FILE_BYTES) != FILE_BYTES)
		err = errno ? -errno : -ENOSPC;
	close(fd);
	return err;
}

int tree_make(int root)
{
	char path[PATH_BYTES];
	int err = mkdirat(root, "src", 0755) < 0 ? -errno : 0;

	for (unsigned d = 0; d < TREE_DIRS && !err; d++) {
		snprintf(path, sizeof(path), "src/g%u", d / GROUP);
		if (d % GROUP == 0 && mkdirat(root, path, 0755) < 0)
			return -errno;
		dir_path(path, d);
		if (mkdirat(root, path, 0755) < 0)
			return -errno;
		for (unsigned i = 0; i < TREE_FILES && !err; i++)
			err = make_file(root, path, i);
	}
	return err;
}

/* All of a directory's names are read. Return: how many, -errno. */
static int list_dir(struct subject *s, const char *path)
{
	static char names[LIST_MAX][SUBJECT_NAME_MAX];
	struct subject_file f;
	int err = subject_open(s, path, O_RDONLY | O_DIRECTORY, &f), got, count = 0;

	if (err)
		return err;
	while ((got = subject_list(s, &f, names, LIST_MAX)) > 0)
		count += got;
	err = subject_close(s, &f);
	return got < 0 ? got : err ? err : count;
}

static int expect_listed(struct subject *s, const char *path, int count)
{
	int got = list_dir(s, path);

	return got == count ? 0 : got < 0 ? got : -EBADMSG;
}

int tree_find(struct subject *s)
{
	char path[PATH_BYTES];
	int err = expect_listed(s, "src", TREE_DIRS / GROUP);

	for (unsigned d = 0; d < TREE_DIRS && !err; d++) {
		if (d % GROUP == 0) {
			snprintf(path, sizeof(path), "src/g%u", d / GROUP);
			err = subject_stat(s, path);
			if (!err)
				err = expect_listed(s, path, GROUP);
		}
		dir_path(path, d);
		if (!err)
			err = subject_stat(s, path);
		if (!err)
			err = expect_listed(s, path, TREE_FILES);
	}
	return err;
}

int tree_git_status(struct subject *s)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 8];
	int err = 0;

	for (unsigned d = 0; d < TREE_DIRS && !err; d++) {
		dir_path(dir, d);
		for (unsigned i = 0; i < TREE_FILES && !err; i++) {
			snprintf(path, sizeof(path), "%s/f%u.c", dir, i);
			err = subject_stat(s, path);
		}
	}
	for (unsigned d = 0; d < TREE_DIRS && !err; d++) {
		dir_path(dir, d);
		err = expect_listed(s, dir, TREE_FILES);
	}
	return err;
}

/* "new-SUBJECT/d3" */
static void new_path(const struct subject *s, char path[PATH_BYTES], unsigned dir)
{
	snprintf(path, PATH_BYTES, "new-%s/d%u", s->name, dir);
}

static int untar_file(struct subject *s, const char *path)
{
	struct subject_file f;
	int err = subject_open(s, path, O_CREAT | O_EXCL | O_WRONLY, &f), closed;
	ssize_t put;

	if (err)
		return err;
	put = subject_pwrite(s, &f, contents, FILE_BYTES, 0);
	closed = subject_close(s, &f);
	if (put != FILE_BYTES)
		return put < 0 ? (int)put : -ENOSPC;
	return closed ? closed : subject_chmod(s, path, 0640);
}

int tree_untar(struct subject *s)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 8];
	int err;

	snprintf(dir, sizeof(dir), "new-%s", s->name);
	err = subject_mkdir(s, dir);
	for (unsigned d = 0; d < UNTAR_DIRS && !err; d++) {
		new_path(s, dir, d);
		err = subject_mkdir(s, dir);
		for (unsigned i = 0; i < TREE_FILES && !err; i++) {
			snprintf(path, sizeof(path), "%s/f%u.c", dir, i);
			err = untar_file(s, path);
		}
	}
	return err;
}

int tree_remove_untarred(struct subject *s)
{
	char dir[PATH_BYTES], path[PATH_BYTES + 8];
	int err = 0;

	for (unsigned d = 0; d < UNTAR_DIRS && !err; d++) {
		new_path(s, dir, d);
		for (unsigned i = 0; i < TREE_FILES && !err; i++) {
			snprintf(path, sizeof(path), "%s/f%u.c", dir, i);
			err = subject_unlink(s, path);
		}
		if (!err)
			err = subject_rmdir(s, dir);
	}
	snprintf(dir, sizeof(dir), "new-%s", s->name);
	return err ? err : subject_rmdir(s, dir);
}
