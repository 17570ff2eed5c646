/* tests/fs/conformance.c - what every filesystem must do, as Linux does it. One executable per backend. */
#include <linux/capability.h>
#include <linux/fs.h>
#include <sys/mount.h>

#include "fsimpl/memfs/memfs.h"
#include "tests/fs/conformance.h"
#include "vfs/perm.h"

static void test_create_and_stat(void **state)
{
	struct moat_statx st;

	(void)state;
	OK(fs_stat(&e, "/", &st));
	assert_true(S_ISDIR(st.mode));
	assert_int_equal(st.nlink, fs_backend.merged_root ? 1 : 2);
	OK(fs_mkdir(&e, "/a", 0777));
	OK(fs_mkdir(&e, "/a/b/", 0700));
	OK(fs_creat(&e, "a/b/f", 0666));
	OK(fs_stat(&e, "/a/b/f", &st));
	assert_int_equal(st.mode, S_IFREG | 0644);
	assert_int_equal(st.nlink, 1);
	assert_int_equal(st.size, 0);
	OK(fs_stat(&e, "/a", &st));
	assert_int_equal(st.mode, S_IFDIR | 0755);
	assert_int_equal(st.nlink, 3);
	OK(fs_stat(&e, "//a/./b/../b//f", &st));
	FAILS(fs_stat(&e, "/a/b/f/", &st), ENOTDIR);
	FAILS(fs_stat(&e, "/a/b/f/.", &st), ENOTDIR);
	FAILS(fs_stat(&e, "/a/b/f/x", &st), ENOTDIR);
	FAILS(fs_stat(&e, "/a/b/g", &st), ENOENT);
	FAILS(fs_stat(&e, "", &st), ENOENT);
	FAILS(fs_mkdir(&e, "/a", 0777), EEXIST);
	FAILS(fs_mkdir(&e, "/", 0777), EEXIST);
	FAILS(fs_mkdir(&e, "/a/.", 0777), EEXIST);
	FAILS(fs_mkdir(&e, "/x/y", 0777), ENOENT);
	FAILS(fs_mkdir(&e, "/x/.", 0777), ENOENT);
	OK(fs_stat(&e, "/../../a", &st));
}

static void test_remove(void **state)
{
	struct moat_statx st;

	(void)state;
	OK(fs_mkdir(&e, "/d", 0755));
	OK(fs_mkdir(&e, "/d/e", 0755));
	OK(fs_creat(&e, "/d/f", 0644));
	FAILS(fs_rmdir(&e, "/d"), ENOTEMPTY);
	FAILS(fs_rmdir(&e, "/d/f"), ENOTDIR);
	FAILS(fs_rmdir(&e, "/d/."), EINVAL);
	FAILS(fs_rmdir(&e, "/d/.."), ENOTEMPTY);
	FAILS(fs_rmdir(&e, "/"), EBUSY);
	FAILS(fs_unlink(&e, "/d/e"), EISDIR);
	FAILS(fs_unlink(&e, "/d/f/"), ENOTDIR);
	FAILS(fs_unlink(&e, "/d/e/"), EISDIR);
	FAILS(fs_unlink(&e, "/d/x"), ENOENT);
	OK(fs_rmdir(&e, "/d/e/"));
	OK(fs_unlink(&e, "/d/f"));
	OK(fs_stat(&e, "/d", &st));
	assert_int_equal(st.nlink, 2);
	OK(fs_chdir(&e, "/d"));
	OK(fs_rmdir(&e, "/d"));
	FAILS(fs_creat(&e, "x", 0644), ENOENT);
	FAILS(fs_mkdir(&e, "x", 0755), ENOENT);
	OK(fs_stat(&e, ".", &st));
	assert_int_equal(st.nlink, 0);
	OK(fs_stat(&e, "..", &st));
	OK(fs_chdir(&e, "/"));
}

static void test_symlinks(void **state)
{
	struct moat_statx st;
	struct file *f;
	char buf[64];

	(void)state;
	OK(fs_mkdir(&e, "/d", 0755));
	OK(fs_creat(&e, "/d/f", 0644));
	OK(fs_symlink(&e, "d", "/rel"));
	OK(fs_symlink(&e, "/d/f", "/abs"));
	OK(fs_symlink(&e, "loop", "/loop"));
	OK(fs_symlink(&e, "nowhere", "/dangling"));
	OK(fs_symlink(&e, "rel/", "/chain"));
	assert_int_equal(fs_readlink(&e, "/rel", buf, sizeof(buf)), 1);
	OK(fs_stat(&e, "/rel/f", &st));
	OK(fs_stat(&e, "/chain/f", &st));
	OK(fs_stat(&e, "/abs", &st));
	assert_true(S_ISREG(st.mode));
	OK(fs_lstat(&e, "/abs", &st));
	assert_true(S_ISLNK(st.mode));
	assert_int_equal(st.size, 4);
	OK(fs_lstat(&e, "/rel/", &st));
	assert_true(S_ISDIR(st.mode));
	OK(fs_lstat(&e, "/chain/.", &st));
	assert_true(S_ISDIR(st.mode));
	FAILS(fs_lstat(&e, "/abs/", &st), ENOTDIR);
	FAILS(fs_stat(&e, "/loop", &st), ELOOP);
	FAILS(fs_stat(&e, "/dangling", &st), ENOENT);
	FAILS(fs_open(&e, "/rel", O_RDONLY | O_NOFOLLOW, 0, &f), ELOOP);
	FAILS(fs_open(&e, "/dangling", O_CREAT | O_EXCL | O_WRONLY, 0644, &f), EEXIST);
	OK(fs_creat(&e, "/dangling", 0644));
	OK(fs_stat(&e, "/nowhere", &st));
	FAILS(fs_mkdir(&e, "/rel", 0755), EEXIST);
	FAILS(fs_rmdir(&e, "/rel"), ENOTDIR);
	FAILS(fs_rmdir(&e, "/rel/"), ENOTDIR);
	FAILS(fs_readlink(&e, "/d", buf, sizeof(buf)), EINVAL);
	FAILS(fs_readlink(&e, "/rel/", buf, sizeof(buf)), EINVAL);
}

static void test_open_flags(void **state)
{
	struct file *f;

	(void)state;
	OK(fs_mkdir(&e, "/d", 0755));
	OK(fs_creat(&e, "/f", 0644));
	FAILS(fs_open(&e, "/f", O_CREAT | O_EXCL, 0644, &f), EEXIST);
	FAILS(fs_open(&e, "/d", O_WRONLY, 0, &f), EISDIR);
	FAILS(fs_open(&e, "/d", O_CREAT, 0644, &f), EISDIR);
	FAILS(fs_open(&e, "/d/", O_CREAT, 0644, &f), EISDIR);
	FAILS(fs_open(&e, "/d/.", O_CREAT, 0644, &f), EISDIR);
	FAILS(fs_open(&e, "/", O_CREAT, 0644, &f), EISDIR);
	FAILS(fs_open(&e, "/", O_CREAT | O_EXCL, 0644, &f), EEXIST);
	FAILS(fs_open(&e, "/n/", O_CREAT | O_WRONLY, 0644, &f), EISDIR);
	FAILS(fs_open(&e, "/f", O_DIRECTORY, 0, &f), ENOTDIR);
	FAILS(fs_open(&e, "/f/", O_RDONLY, 0, &f), ENOTDIR);
	OK(fs_open(&e, "/d", O_PATH, 0, &f));
	assert_int_equal(fs_read(f, &f, 1), -EBADF);
	fs_close(f);
	OK(fs_open(&e, "/f", O_WRONLY, 0, &f));
	assert_int_equal(fs_read(f, &f, 1), -EBADF);
	fs_close(f);
}

static void test_data(void **state)
{
	char buf[200], *big = malloc(300000), *got = malloc(300000);
	struct moat_statx st;
	struct file *f;

	(void)state;
	OK(fs_open(&e, "/f", O_CREAT | O_RDWR, 0644, &f));
	assert_int_equal(fs_write(f, "hello", 5), 5);
	assert_int_equal(file_seek(f, 0, SEEK_SET), 0);
	assert_int_equal(fs_read(f, buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "hello", 5);
	assert_int_equal(fs_read(f, buf, sizeof(buf)), 0);
	for (int i = 0; i < 300000; i++)
		big[i] = (char)(i * 31 >> 3);
	assert_int_equal(fs_pwrite(f, big, 300000, 65000), 300000);
	assert_int_equal(fs_pread(f, got, 300000, 65000), 300000);
	assert_memory_equal(big, got, 300000);
	assert_int_equal(fs_pread(f, got, 10, 60000), 10);
	assert_memory_equal(got, "\0\0\0\0\0\0\0\0\0\0", 10);
	OK(file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.size, 365000);
	/* Shrink and grow: what was cut reads as zeros. */
	OK(file_truncate(f, 65010));
	OK(file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.size, 65010);
	OK(file_truncate(f, 70000));
	assert_int_equal(fs_pread(f, got, 5000, 65000), 5000);
	assert_memory_equal(got, big, 10);
	for (int i = 10; i < 5000; i++)
		assert_int_equal(got[i], 0);
	/* Append ignores the offset. */
	fs_close(f);
	OK(fs_open(&e, "/f", O_RDWR | O_APPEND, 0, &f));
	assert_int_equal(fs_write(f, "end", 3), 3);
	assert_int_equal(fs_pread(f, buf, 3, 70000), 3);
	assert_memory_equal(buf, "end", 3);
	fs_close(f);
	OK(fs_open(&e, "/f", O_RDWR | O_TRUNC, 0, &f));
	OK(file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.size, 0);
	assert_int_equal(st.blocks, 0);
	/* Unlinked, it lives on. */
	OK(fs_unlink(&e, "/f"));
	assert_int_equal(fs_write(f, "x", 1), 1);
	fs_close(f);
	free(big);
	free(got);
}

static void test_sparse(void **state)
{
	struct moat_statx st;
	struct file *f;
	char c;

	(void)state;
	OK(fs_open(&e, "/f", O_CREAT | O_RDWR, 0644, &f));
	assert_int_equal(fs_pwrite(f, "x", 1, 1ll << 40), 1);
	/* A remote filesystem may hold the data, and then it occupies nothing yet. */
	OK(file_fsync(f, false, 0, UINT64_MAX));
	OK(file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.size, (1ll << 40) + 1);
	assert_int_equal(st.blocks, 8);
	assert_int_equal(file_seek(f, 0, SEEK_DATA), fs_backend.plain_9p ? 0 : 1ll << 40);
	assert_int_equal(file_seek(f, 0, SEEK_HOLE), fs_backend.plain_9p ? st.size : 0);
	assert_int_equal(file_seek(f, 1ll << 40, SEEK_HOLE), (1ll << 40) + 1);
	FAILS(file_seek(f, (1ll << 40) + 1, SEEK_DATA), ENXIO);
	assert_int_equal(fs_pread(f, &c, 1, 12345), 1);
	assert_int_equal(c, 0);
	if (fs_backend.plain_9p) {
		FAILS(file_fallocate(f, 0, 0, 100000), EOPNOTSUPP);
		FAILS(file_truncate(f, 1ull << 63), EINVAL);
		fs_close(f);
		return;
	}
	OK(file_fallocate(f, 0, 0, 100000));
	OK(file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.blocks, 8 * 26);
	OK(file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 4000, 200));
	OK(file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8192, 8192));
	OK(file_stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.blocks, 8 * 24);
	FAILS(file_fallocate(f, FALLOC_FL_PUNCH_HOLE, 0, 1), EOPNOTSUPP);
	FAILS(file_truncate(f, 1ull << 63), EINVAL);
	fs_close(f);
}

static void test_links(void **state)
{
	struct moat_statx st, st2;
	struct file *f;

	(void)state;
	OK(fs_mkdir(&e, "/d", 0755));
	OK(fs_creat(&e, "/f", 0644));
	OK(fs_link(&e, "/f", "/d/g", false));
	OK(fs_stat(&e, "/f", &st));
	OK(fs_stat(&e, "/d/g", &st2));
	assert_int_equal(st.ino, st2.ino);
	assert_int_equal(st.nlink, 2);
	FAILS(fs_link(&e, "/d", "/e", false), EPERM);
	FAILS(fs_link(&e, "/f", "/d/g", false), EEXIST);
	FAILS(fs_link(&e, "/f", "/d", false), EEXIST);
	FAILS(fs_link(&e, "/f", "/n/", false), ENOENT);
	OK(fs_rename(&e, "/f", "/d/g", 0)); /* one file: nothing happens */
	OK(fs_stat(&e, "/f", &st));
	OK(fs_unlink(&e, "/f"));
	OK(fs_stat(&e, "/d/g", &st));
	assert_int_equal(st.nlink, 1);
	if (fs_lacks_tmpfile()) {
		FAILS(fs_open(&e, "/d", O_TMPFILE | O_RDWR, 0600, &f), EOPNOTSUPP);
		return;
	}
	/* O_TMPFILE gets its name later. */
	OK(fs_open(&e, "/d", O_TMPFILE | O_RDWR, 0600, &f));
	assert_int_equal(fs_write(f, "tmp", 3), 3);
	{
		struct vfs_lookup from = fs_env_at(&e, "", LOOKUP_EMPTY);
		struct vfs_lookup to = fs_env_at(&e, "/d/t", 0);

		from.start = f->path;
		OK(vfs_link(&from, &to));
	}
	fs_close(f);
	OK(fs_stat(&e, "/d/t", &st));
	assert_int_equal(st.size, 3);
	assert_int_equal(st.nlink, 1);
}

static void test_rename(void **state)
{
	struct moat_statx st, a, b;

	(void)state;
	OK(fs_mkdir(&e, "/a", 0755));
	OK(fs_mkdir(&e, "/a/b", 0755));
	OK(fs_mkdir(&e, "/c", 0755));
	OK(fs_creat(&e, "/f", 0644));
	OK(fs_creat(&e, "/g", 0644));
	FAILS(fs_rename(&e, "/a", "/a/b/x", 0), EINVAL);
	FAILS(fs_rename(&e, "/a/b", "/a", 0), ENOTEMPTY);
	FAILS(fs_rename(&e, "/f", "/c", 0), EISDIR);
	FAILS(fs_rename(&e, "/c", "/f", 0), ENOTDIR);
	FAILS(fs_rename(&e, "/f", "/x/", 0), ENOTDIR);
	FAILS(fs_rename(&e, "/n", "/x", 0), ENOENT);
	FAILS(fs_rename(&e, "/a/.", "/x", 0), EBUSY);
	FAILS(fs_rename(&e, "/a", "/c/..", 0), EBUSY);
	if (fs_backend.plain_9p) {
		FAILS(fs_rename(&e, "/f", "/x", RENAME_NOREPLACE), EINVAL);
		FAILS(fs_rename(&e, "/f", "/g", RENAME_EXCHANGE), EINVAL);
		OK(fs_rename(&e, "/f", "/g", 0));
		FAILS(fs_stat(&e, "/f", &st), ENOENT);
		OK(fs_rename(&e, "/a/b", "/c", 0));
		return;
	}
	FAILS(fs_rename(&e, "/f", "/g", RENAME_NOREPLACE), EEXIST);
	FAILS(fs_rename(&e, "/f", "/n", RENAME_EXCHANGE), ENOENT);
	OK(fs_rename(&e, "/a/b", "/c", 0));
	OK(fs_stat(&e, "/a", &st));
	assert_int_equal(st.nlink, 2);
	OK(fs_stat(&e, "/", &st));
	assert_int_equal(st.nlink, fs_backend.merged_root ? 1 : 4);
	OK(fs_stat(&e, "/f", &a));
	OK(fs_stat(&e, "/c", &b));
	OK(fs_rename(&e, "/f", "/c", RENAME_EXCHANGE));
	OK(fs_stat(&e, "/c", &st));
	assert_int_equal(st.ino, a.ino);
	OK(fs_stat(&e, "/f", &st));
	assert_int_equal(st.ino, b.ino);
	if (fs_backend.lacks_whiteout) {
		FAILS(fs_rename(&e, "/g", "/c", RENAME_WHITEOUT), EINVAL);
		OK(fs_rename(&e, "/g", "/c", 0));
	} else {
		OK(fs_env_become(&e, 1000, 100, NULL, 0, ~0ull));
		OK(fs_rename(&e, "/g", "/c", RENAME_WHITEOUT));
		OK(fs_lstat(&e, "/g", &st));
		assert_int_equal(st.mode & S_IFMT, S_IFCHR);
		assert_int_equal(st.uid, 1000);
		assert_int_equal(st.gid, 100);
		OK(fs_env_become(&e, 0, 0, NULL, 0, ~0ull));
	}
	OK(fs_rename(&e, "/f", "/a/dir", 0));
	OK(fs_stat(&e, "/", &a));
	OK(fs_stat(&e, "/a/dir/../..", &st));
	assert_int_equal(st.ino, a.ino);
}

static void test_names(void **state)
{
	char path[5000], name[300];
	struct moat_statx st;

	(void)state;
	memset(name, 'n', sizeof(name));
	name[255] = '\0';
	OK(fs_creat(&e, name, 0644));
	OK(fs_stat(&e, name, &st));
	name[255] = 'n';
	name[256] = '\0';
	FAILS(fs_creat(&e, name, 0644), ENAMETOOLONG);
	FAILS(fs_stat(&e, name, &st), ENAMETOOLONG);
	FAILS(fs_rename(&e, name, "x", 0), ENAMETOOLONG);
	memset(path, '/', sizeof(path));
	path[4095] = '\0';
	OK(fs_stat(&e, path, &st));
	path[4095] = '/';
	path[4096] = '\0';
	FAILS(fs_stat(&e, path, &st), ENAMETOOLONG);
}

static void test_permissions(void **state)
{
	struct moat_statx st;
	struct file *f;

	(void)state;
	OK(fs_mkdir(&e, "/open", 0777));
	OK(fs_chmod(&e, "/open", 01777));
	OK(fs_mkdir(&e, "/closed", 0700));
	OK(fs_mkdir(&e, "/read", 0744));
	OK(fs_creat(&e, "/open/roots", 0644));
	OK(fs_creat(&e, "/closed/f", 0644));
	OK(fs_env_become(&e, 1000, 1000, NULL, 0, 0));
	FAILS(fs_stat(&e, "/closed/f", &st), EACCES);
	FAILS(fs_stat(&e, "/closed/.", &st), EACCES);
	OK(fs_stat(&e, "/closed", &st));
	OK(fs_stat(&e, "/closed/", &st));
	FAILS(fs_stat(&e, "/read/.", &st), EACCES);
	FAILS(fs_creat(&e, "/x", 0644), EACCES);
	FAILS(fs_open(&e, "/open/roots", O_WRONLY, 0, &f), EACCES);
	OK(fs_open(&e, "/open/roots", O_RDONLY, 0, &f));
	fs_close(f);
	FAILS(fs_unlink(&e, "/open/roots"), EPERM);
	OK(fs_creat(&e, "/open/mine", 0600));
	OK(fs_chmod(&e, "/open/mine", 04755));
	FAILS(fs_chmod(&e, "/open/roots", 0777), EPERM);
	FAILS(fs_chown(&e, "/open/mine", 0, UINT32_MAX), EPERM);
	OK(fs_open(&e, "/open/mine", O_WRONLY, 0, &f));
	assert_int_equal(fs_write(f, "x", 1), 1);
	fs_close(f);
	OK(fs_stat(&e, "/open/mine", &st));
	assert_int_equal(st.mode, S_IFREG | 0755); /* setuid went with the write */
	FAILS(fs_link(&e, "/open/roots", "/open/l", false), EPERM);
	FAILS(fs_access(&e, "/open/roots", W_OK), EACCES);
	OK(fs_access(&e, "/open/roots", R_OK));
	FAILS(fs_mknod(&e, "/open/dev", S_IFCHR | 0600, 1, 3), EPERM);
	OK(fs_mknod(&e, "/open/fifo", S_IFIFO | 0600, 0, 0));
	OK(fs_env_become(&e, 1001, 1001, NULL, 0, 1ull << CAP_DAC_OVERRIDE));
	OK(fs_stat(&e, "/closed/f", &st));
}

static ssize_t get_xattr(const char *path, const char *name, void *buf, size_t size)
{
	struct vfs_lookup lk = fs_env_at(&e, path, LOOKUP_FOLLOW);

	return vfs_get_xattr(&lk, &(struct xattr_args){.name = name, .value = buf, .size = size});
}

static int set_xattr(const char *path, const char *name, const void *buf, size_t size, int flags)
{
	struct vfs_lookup lk = fs_env_at(&e, path, LOOKUP_FOLLOW);

	return vfs_set_xattr(
		&lk, &(struct xattr_args){
			     .name = name, .value = (void *)buf, .size = size, .flags = flags});
}

static void test_xattrs(void **state)
{
	static const struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} e[5];
	} acl = {2, {{1, 7, -1u}, {2, 4, 1000}, {4, 0, -1u}, {16, 5, -1u}, {32, 0, -1u}}};
	struct vfs_lookup lk = fs_env_at(&e, "/f", 0);
	struct moat_statx st;
	struct file *f;
	char buf[100];

	(void)state;
	OK(fs_creat(&e, "/f", 0644));
	FAILS((int)get_xattr("/f", "user.a", buf, 100), ENODATA);
	OK(set_xattr("/f", "user.a", "value", 5, 0));
	FAILS(set_xattr("/f", "user.a", "v", 1, 1), EEXIST);
	FAILS(set_xattr("/f", "user.b", "v", 1, 2), ENODATA);
	FAILS(set_xattr("/f", "nobody.b", "v", 1, 0), EOPNOTSUPP);
	assert_int_equal(get_xattr("/f", "user.a", buf, 0), 5);
	assert_int_equal(get_xattr("/f", "user.a", buf, 4), -ERANGE);
	assert_int_equal(get_xattr("/f", "user.a", buf, 100), 5);
	if (!fs_backend.lacks_trusted) {
		OK(set_xattr("/f", "trusted.t", "", 0, 0));
		assert_int_equal(vfs_list_xattr(&lk, NULL, 0), 7 + 10);
	}
	if (fs_backend.lacks_acl && !getenv("VIRTIOFSD_ACL")) {
		FAILS(set_xattr("/f", "system.posix_acl_access", &acl, sizeof(acl), 0), EOPNOTSUPP);
		return;
	}
	OK(set_xattr("/f", "system.posix_acl_access", &acl, sizeof(acl), 0));
	OK(fs_stat(&e, "/f", &st));
	assert_int_equal(st.mode & 0777, 0750);
	OK(fs_env_become(&e, 1000, 1000, NULL, 0, 0));
	OK(fs_open(&e, "/f", O_RDONLY, 0, &f));
	fs_close(f);
	FAILS(fs_open(&e, "/f", O_WRONLY, 0, &f), EACCES);
	FAILS((int)get_xattr("/f", "trusted.t", buf, 100), ENODATA);
	FAILS(set_xattr("/f", "user.a", "v", 1, 0), EACCES);
	FAILS(set_xattr("/f", "system.posix_acl_access", &acl, sizeof(acl), 0), EPERM);
	OK(fs_env_become(&e, 1001, 1001, NULL, 0, 0));
	FAILS(fs_open(&e, "/f", O_RDONLY, 0, &f), EACCES);
	OK(fs_env_become(&e, 0, 0, NULL, 0, CAP_FULL));
	/* What is not opened for it has one as well. */
	OK(fs_mknod(&e, "/fifo", S_IFIFO | 0600, 0, 0));
	OK(set_xattr("/fifo", "system.posix_acl_access", &acl, sizeof(acl), 0));
	assert_int_equal(get_xattr("/fifo", "system.posix_acl_access", buf, 100), sizeof(acl));
	OK(fs_stat(&e, "/fifo", &st));
	assert_int_equal(st.mode & 0777, 0750);
	FAILS(set_xattr("/fifo", "user.a", "v", 1, 0), EPERM);
	/* A default ACL comes down. */
	OK(fs_mkdir(&e, "/d", 0755));
	OK(set_xattr("/d", "system.posix_acl_default", &acl, sizeof(acl), 0));
	OK(fs_creat(&e, "/d/f", 0666));
	assert_int_equal(get_xattr("/d/f", "system.posix_acl_access", buf, 100), sizeof(acl));
	OK(fs_mkdir(&e, "/d/s", 0777));
	assert_int_equal(get_xattr("/d/s", "system.posix_acl_default", buf, 100), sizeof(acl));
}

static void test_readdir(void **state)
{
	static char list[1 << 16], again[1 << 16];
	char path[32];

	(void)state;
	OK(fs_mkdir(&e, "/d", 0755));
	for (int i = 0; i < 500; i++) {
		snprintf(path, sizeof(path), "/d/%d", i);
		OK(fs_creat(&e, path, 0644));
	}
	assert_int_equal(fs_list(&e, "/d", list, sizeof(list)), 500);
	for (int i = 0; i < 500; i += 2) {
		snprintf(path, sizeof(path), "/d/%d", i);
		OK(fs_unlink(&e, path));
	}
	assert_int_equal(fs_list(&e, "/d", again, sizeof(again)), 250);
	for (int i = 1; i < 500; i += 2) {
		snprintf(path, sizeof(path), "/d/%d", i);
		OK(fs_unlink(&e, path));
	}
	OK(fs_rmdir(&e, "/d"));
}

static void test_memfd_and_seals(void **state)
{
	struct moat_statx st;
	struct file *f;
	struct buf b;

	(void)state;
	OK(memfs_create_unlinked_file(memfs_internal_mount(), "memfd:x", MEMFS_FILE_SEALABLE, &f));
	assert_int_equal(fs_write(f, "data", 4), 4);
	OK(f->ops->stat(f, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st));
	assert_int_equal(st.nlink, 0);
	buf_init(&b, 4096);
	OK(vfs_path_to_string(&e.root, &f->path, true, &b));
	assert_string_equal(b.data, "/memfd:x (deleted)");
	buf_fini(&b);
	assert_int_equal(f->ops->get_seals(f), 0);
	OK(f->ops->add_seals(f, F_SEAL_SHRINK | F_SEAL_GROW));
	FAILS(file_truncate(f, 2), EPERM);
	FAILS(file_truncate(f, 20), EPERM);
	assert_int_equal(fs_write(f, "more", 4), -EPERM);
	assert_int_equal(fs_pwrite(f, "more", 4, 0), 4);
	OK(f->ops->add_seals(f, F_SEAL_WRITE | F_SEAL_SEAL));
	assert_int_equal(fs_pwrite(f, "more", 4, 0), -EPERM);
	FAILS(f->ops->add_seals(f, F_SEAL_WRITE), EPERM);
	fs_close(f);
}

static int set_times(const char *path, const struct setattr_args *args)
{
	struct vfs_lookup lk = fs_env_at(&e, path, LOOKUP_FOLLOW);

	return vfs_set_stat(&lk, args);
}

static void test_times(void **state)
{
	struct setattr_args both = {.valid = SETATTR_ATIME | SETATTR_MTIME,
				    .atime = {.sec = 1000000000, .nsec = 5},
				    .mtime = {.sec = 1200000000, .nsec = 999999999}};
	struct moat_statx st, later;

	(void)state;
	OK(fs_creat(&e, "/f", 0666));
	OK(set_times("/f", &both));
	OK(fs_stat(&e, "/f", &st));
	assert_int_equal(st.atime.sec, 1000000000);
	assert_int_equal(st.atime.nsec, 5);
	assert_int_equal(st.mtime.sec, 1200000000);
	assert_int_equal(st.mtime.nsec, 999999999);
	OK(set_times("/f", &(struct setattr_args){.valid = SETATTR_MTIME_NOW}));
	OK(fs_stat(&e, "/f", &later));
	assert_true(later.mtime.sec > st.mtime.sec);
	assert_int_equal(later.atime.sec, 1000000000);
	/* "Now" is for those who may write, a time of one's own for the owner. */
	OK(fs_env_become(&e, 1000, 1000, NULL, 0, 0));
	FAILS(set_times("/f", &both), EPERM);
	FAILS(set_times("/f",
			&(struct setattr_args){.valid = SETATTR_ATIME_NOW | SETATTR_MTIME_NOW}),
	      EACCES);
	FAILS(set_times("/nobody", &both), ENOENT);
	OK(fs_env_become(&e, 0, 0, NULL, 0, CAP_FULL));
	OK(fs_chmod(&e, "/f", 0666));
	OK(fs_env_become(&e, 1000, 1000, NULL, 0, 0));
	FAILS(set_times("/f", &both), EPERM);
	OK(set_times("/f", &(struct setattr_args){.valid = SETATTR_ATIME_NOW | SETATTR_MTIME_NOW}));
}

/* Every change below a directory that is open but gone. */
static void test_removed_directory(void **state)
{
	struct moat_statx st;
	struct file *f;
	char list[100];

	(void)state;
	OK(fs_mkdir(&e, "/d", 0755));
	OK(fs_creat(&e, "/f", 0644));
	OK(fs_open(&e, "/d", O_RDONLY | O_DIRECTORY, 0, &f));
	OK(fs_rmdir(&e, "/d"));
	e.at = &f->path;
	FAILS(fs_mkdir(&e, "x", 0755), ENOENT);
	FAILS(fs_creat(&e, "x", 0644), ENOENT);
	FAILS(fs_symlink(&e, "t", "x"), ENOENT);
	FAILS(fs_mknod(&e, "x", S_IFIFO | 0644, 0, 0), ENOENT);
	FAILS(fs_link(&e, "/f", "x", false), ENOENT);
	FAILS(fs_rename(&e, "/f", "x", 0), ENOENT);
	FAILS(fs_unlink(&e, "x"), ENOENT);
	FAILS(fs_rmdir(&e, "x"), ENOENT);
	FAILS(fs_stat(&e, "x", &st), ENOENT);
	OK(fs_stat(&e, ".", &st));
	assert_int_equal(st.nlink, 0);
	e.at = NULL;
	FAILS(fs_list_file(f, list, sizeof(list)), ENOENT);
	/* Another directory of that name is another directory. */
	OK(fs_mkdir(&e, "/d", 0755));
	OK(fs_creat(&e, "/d/x", 0644));
	e.at = &f->path;
	FAILS(fs_stat(&e, "x", &st), ENOENT);
	e.at = NULL;
	fs_close(f);
}

static void test_read_only(void **state)
{
	struct vfs_lookup lk;
	struct moat_statx st;
	struct file *f;

	(void)state;
	OK(fs_mkdir(&e, "/m", 0755));
	OK(fs_mkdir(&e, "/m/d", 0755));
	OK(fs_creat(&e, "/m/f", 0644));
	OK(fs_bind(&e, "/m", "/m", false));
	lk = fs_env_at(&e, "/m", LOOKUP_FOLLOW);
	OK(vfs_remount(&lk, MS_RDONLY, NULL, true));
	FAILS(fs_mkdir(&e, "/m/x", 0755), EROFS);
	FAILS(fs_mkdir(&e, "/m/d", 0755), EEXIST);
	FAILS(fs_symlink(&e, "t", "/m/x"), EROFS);
	FAILS(fs_mknod(&e, "/m/x", S_IFIFO | 0644, 0, 0), EROFS);
	FAILS(fs_link(&e, "/m/f", "/m/x", false), EROFS);
	FAILS(fs_rename(&e, "/m/f", "/m/x", 0), EROFS);
	FAILS(fs_unlink(&e, "/m/f"), EROFS);
	FAILS(fs_rmdir(&e, "/m/d"), EROFS);
	FAILS(fs_chmod(&e, "/m/f", 0600), EROFS);
	FAILS(fs_chown(&e, "/m/f", 1, 1), EROFS);
	FAILS(fs_truncate(&e, "/m/f", 0), EROFS);
	FAILS(fs_access(&e, "/m/f", W_OK), EROFS);
	OK(fs_access(&e, "/m/f", R_OK));
	FAILS(fs_open(&e, "/m/f", O_RDWR, 0, &f), EROFS);
	FAILS(fs_open(&e, "/m/f", O_RDONLY | O_TRUNC, 0, &f), EROFS);
	FAILS(fs_open(&e, "/m/x", O_CREAT | O_RDWR, 0644, &f), EROFS);
	OK(fs_open(&e, "/m/f", O_CREAT | O_RDONLY, 0644, &f));
	fs_close(f);
	FAILS(set_times("/m/f", &(struct setattr_args){.valid = SETATTR_MTIME_NOW}), EROFS);
	OK(fs_stat(&e, "/m/f", &st));
	OK(fs_umount(&e, "/m", 0));
	OK(fs_unlink(&e, "/m/f"));
}

static void test_special_files(void **state)
{
	struct vfs_endpoint *endpoint;
	struct moat_statx st;
	struct vfs_lookup lk;
	struct statfs sf;
	char buf[8];

	(void)state;
	OK(fs_mknod(&e, "/fifo", S_IFIFO | 0640, 0, 0));
	OK(fs_mknod(&e, "/sock", S_IFSOCK | 0600, 0, 0));
	OK(fs_stat(&e, "/fifo", &st));
	assert_int_equal(st.mode, S_IFIFO | 0640);
	OK(fs_stat(&e, "/sock", &st));
	assert_int_equal(st.mode, S_IFSOCK | 0600);
	FAILS(fs_truncate(&e, "/fifo", 0), EINVAL);
	FAILS(fs_truncate(&e, "/", 0), EISDIR);
	FAILS(fs_readlink(&e, "/fifo", buf, sizeof(buf)), EINVAL);
	FAILS(fs_chdir(&e, "/fifo"), ENOTDIR);
	/* Nobody is bound there. */
	lk = fs_env_at(&e, "/sock", LOOKUP_FOLLOW);
	FAILS(vfs_get_endpoint(&lk, &endpoint), ECONNREFUSED);
	lk = fs_env_at(&e, "/fifo", LOOKUP_FOLLOW);
	FAILS(vfs_get_endpoint(&lk, &endpoint), ECONNREFUSED);
	OK(vfs_statfs(&e.root, &sf));
	assert_true(sf.f_bsize > 0 && sf.f_namelen == 255);
	OK(e.root.mount->fs->ops->sync(e.root.mount->fs));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		CONFORMANCE(test_create_and_stat),
		CONFORMANCE(test_remove),
		CONFORMANCE(test_symlinks),
		CONFORMANCE(test_open_flags),
		CONFORMANCE(test_data),
		CONFORMANCE(test_sparse),
		CONFORMANCE(test_links),
		CONFORMANCE(test_rename),
		CONFORMANCE(test_names),
		CONFORMANCE(test_permissions),
		CONFORMANCE(test_xattrs),
		CONFORMANCE(test_readdir),
		CONFORMANCE(test_memfd_and_seals),
		CONFORMANCE(test_times),
		CONFORMANCE(test_removed_directory),
		CONFORMANCE(test_read_only),
		CONFORMANCE(test_special_files),
	};

	if (fs_env_process_init())
		return 1;
	return cmocka_run_group_tests_name(fs_backend.name, tests, NULL, NULL) +
	       conformance_mounts();
}
