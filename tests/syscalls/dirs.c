/* Directories and names: mkdir, rmdir, getdents, rename, link, symlink, unlink, chdir, getcwd. */
#include "t.h"

#include <linux/fs.h>
#include <linux/limits.h>

static bool exists(const char *name)
{
	struct stat st;

	return lstat(name, &st) == 0;
}

TEST(mkdir_rmdir)
{
	struct stat st;

	CHECK_OK(mkdir("d", 0777));
	CHECK_OK(stat("d", &st));
	CHECK_EQ(st.st_mode, S_IFDIR | 0755);
	CHECK_EQ(st.st_nlink, 2);
	CHECK_ERR(mkdir("d", 0777), EEXIST);
	CHECK_ERR(mkdir("d/", 0777), EEXIST);
	CHECK_ERR(mkdir("none/d", 0777), ENOENT);
	CHECK_ERR(mkdir("", 0777), ENOENT);
	CHECK_ERR(mkdir("/", 0777), EEXIST);
	CHECK_OK(mkdir("d/e/", 0700));
	CHECK_OK(stat("d", &st));
	CHECK(st.st_nlink == 3 || st.st_nlink == 1);
	CHECK_ERR(rmdir("d"), ENOTEMPTY);
	CHECK_ERR(rmdir("d/e/."), EINVAL);
	CHECK_ERR(rmdir("d/e/.."), ENOTEMPTY);
	CHECK_OK(rmdir("d/e"));
	CHECK_OK(rmdir("d/"));
	CHECK_ERR(rmdir("d"), ENOENT);
	close(t_file("f", ""));
	CHECK_ERR(rmdir("f"), ENOTDIR);
	CHECK_ERR(mkdir("f/d", 0777), ENOTDIR);
	CHECK_ERR(rmdir("/"), EBUSY);
}

TEST(unlink)
{
	close(t_file("f", ""));
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERR(unlink("d"), EISDIR);
	CHECK_ERR(unlink("f/"), ENOTDIR);
	CHECK_ERR(unlink("none"), ENOENT);
	CHECK_OK(symlink("d", "l"));
	CHECK_ERR(unlink("l/"), ENOTDIR);
	CHECK_OK(unlink("l"));
	CHECK(exists("d"));
	CHECK_OK(unlink("f"));
	CHECK_OK(unlinkat(AT_FDCWD, "d", AT_REMOVEDIR));
	CHECK_ERR(unlinkat(AT_FDCWD, "d", 0x8000), EINVAL);
	CHECK(!exists("d"));
}

TEST(link)
{
	struct stat a, b;

	close(t_file("f", "x"));
	CHECK_OK(link("f", "g"));
	CHECK_OK(stat("f", &a));
	CHECK_OK(stat("g", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_EQ(a.st_nlink, 2);
	CHECK_ERR(link("f", "g"), EEXIST);
	CHECK_ERR(link("none", "h"), ENOENT);
	CHECK_OK(mkdir("d", 0755));
	CHECK_ERR(link("d", "e"), EPERM);
	CHECK_ERR(link("f", "none/h"), ENOENT);
	CHECK_OK(symlink("f", "l"));
	CHECK_OK(link("l", "l2"));
	CHECK_OK(lstat("l2", &b));
	CHECK(S_ISLNK(b.st_mode));
	CHECK_OK(linkat(AT_FDCWD, "l", AT_FDCWD, "h", AT_SYMLINK_FOLLOW));
	CHECK_OK(lstat("h", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_EQ(b.st_nlink, 3);
	CHECK_OK(unlink("f"));
	CHECK_STR(t_read("g"), "x");
}

TEST(symlink)
{
	char buf[64] = "";
	struct stat st;

	CHECK_OK(symlink("some/where", "l"));
	CHECK_EQ(readlink("l", buf, sizeof(buf)), 10);
	CHECK(!memcmp(buf, "some/where", 10));
	CHECK_EQ(readlink("l", buf, 4), 4);
	CHECK_ERR(readlink("l", buf, 0), EINVAL);
	CHECK_OK(lstat("l", &st));
	CHECK(S_ISLNK(st.st_mode));
	CHECK_EQ(st.st_size, 10);
	CHECK_ERR(stat("l", &st), ENOENT);
	CHECK_ERR(symlink("x", "l"), EEXIST);
	CHECK_ERR(symlink("", "m"), ENOENT);
	close(t_file("f", ""));
	CHECK_ERR(readlink("f", buf, sizeof(buf)), EINVAL);
	CHECK_OK(mkdir("d", 0755));
	close(t_file("d/x", "deep"));
	CHECK_OK(symlink("d", "dl"));
	CHECK_STR(t_read("dl/x"), "deep");
	CHECK_OK(symlink("../d/x", "d/up"));
	CHECK_STR(t_read("dl/up"), "deep");
	CHECK_OK(lstat("dl/", &st));
	CHECK(S_ISDIR(st.st_mode));
}

TEST(rename_plain)
{
	struct stat a, b;

	close(t_file("f", "f"));
	CHECK_OK(stat("f", &a));
	CHECK_OK(rename("f", "g"));
	CHECK(!exists("f"));
	CHECK_OK(stat("g", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	close(t_file("h", "h"));
	CHECK_OK(rename("g", "h"));
	CHECK_STR(t_read("h"), "f");
	CHECK_ERR(rename("none", "x"), ENOENT);
	CHECK_OK(rename("h", "h"));
	/* Two names of one inode: nothing happens. */
	CHECK_OK(link("h", "i"));
	CHECK_OK(rename("h", "i"));
	CHECK(exists("h") && exists("i"));
}

TEST(rename_dirs)
{
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("a/b", 0755));
	CHECK_OK(mkdir("c", 0755));
	close(t_file("a/b/f", "f"));
	close(t_file("file", ""));
	CHECK_ERR(rename("a", "a/b/c"), EINVAL);
	CHECK_ERR(rename("a", "file"), ENOTDIR);
	CHECK_ERR(rename("file", "a"), EISDIR);
	CHECK_ERR(rename("c", "a"), ENOTEMPTY);
	CHECK_ERR(rename("a/b", "a/."), EBUSY);
	CHECK_OK(rename("a", "c"));
	CHECK_STR(t_read("c/b/f"), "f");
	CHECK_OK(rename("c/b", "b"));
	CHECK_STR(t_read("b/f"), "f");
	CHECK_STR(t_read("b/../b/f"), "f");
	CHECK_OK(rmdir("c"));
}

TEST(rename_flags)
{
	close(t_file("f", "f"));
	close(t_file("g", "g"));
	CHECK_OK(mkdir("d", 0755));
	close(t_file("d/x", "x"));
	CHECK_ERR(renameat2(AT_FDCWD, "f", AT_FDCWD, "g", RENAME_NOREPLACE), EEXIST);
	CHECK_OK(renameat2(AT_FDCWD, "f", AT_FDCWD, "h", RENAME_NOREPLACE));
	CHECK_OK(renameat2(AT_FDCWD, "h", AT_FDCWD, "g", RENAME_EXCHANGE));
	CHECK_STR(t_read("g"), "f");
	CHECK_STR(t_read("h"), "g");
	CHECK_OK(renameat2(AT_FDCWD, "d", AT_FDCWD, "g", RENAME_EXCHANGE));
	CHECK_STR(t_read("d"), "f");
	CHECK_STR(t_read("g/x"), "x");
	CHECK_ERR(renameat2(AT_FDCWD, "d", AT_FDCWD, "none", RENAME_EXCHANGE), ENOENT);
	CHECK_ERR(renameat2(AT_FDCWD, "d", AT_FDCWD, "h", RENAME_EXCHANGE | RENAME_NOREPLACE),
		  EINVAL);
	CHECK_ERR(renameat2(AT_FDCWD, "d", AT_FDCWD, "h", 0x100), EINVAL);
}

struct dent {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* Reads a directory with buffers of `size`, marks what it saw; returns the number of entries. */
static int list(int fd, size_t size, unsigned char *seen, int max)
{
	char buf[4096];
	int count = 0;
	long n;

	while ((n = syscall(SYS_getdents64, fd, buf, size)) > 0) {
		for (long at = 0; at < n;) {
			struct dent *d = (struct dent *)(buf + at);
			int i;

			CHECK(d->reclen >= 19 + strlen(d->name) + 1 && d->reclen % 8 == 0);
			if (sscanf(d->name, "file%d", &i) == 1) {
				CHECK(i >= 0 && i < max);
				CHECK_EQ(seen[i], 0);
				CHECK(d->type == DT_REG || d->type == DT_UNKNOWN);
				seen[i] = 1;
			}
			count++;
			at += d->reclen;
		}
	}
	CHECK_EQ(n, 0);
	return count;
}

TEST(getdents)
{
	static unsigned char seen[1000];
	char name[32], small[24];
	int fd = open(".", O_RDONLY | O_DIRECTORY);

	for (int i = 0; i < 1000; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		close(t_file(name, ""));
	}
	/* Some file systems (tmpfs of 6.12) show an open directory what came since only after a rewind. */
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(list(fd, 4096, seen, 1000), 1002);
	memset(seen, 0, sizeof(seen));
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_EQ(list(fd, 100, seen, 1000), 1002);
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_ERR(syscall(SYS_getdents64, fd, small, 10), EINVAL);
	CHECK_ERR(syscall(SYS_getdents64, t_file("file0", ""), small, sizeof(small)), ENOTDIR);
	CHECK_OK(mkdir("d", 0755));
	fd = open("d", O_RDONLY);
	CHECK_EQ(list(fd, 4096, seen, 0), 2);
	CHECK_OK(rmdir("d"));
	CHECK_EQ(lseek(fd, 0, SEEK_SET), 0);
	CHECK_ERR(syscall(SYS_getdents64, fd, (char[4096]){0}, 4096), ENOENT);
}

/* Entries removed behind a reader's back: every entry that stays is seen once. */
TEST(getdents_while_removing)
{
	static unsigned char seen[300];
	struct dirent *e;
	char name[32];
	DIR *dir;
	int i;

	for (i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "file%d", i);
		close(t_file(name, ""));
	}
	dir = opendir(".");
	CHECK(dir);
	while ((e = readdir(dir))) {
		if (sscanf(e->d_name, "file%d", &i) != 1)
			continue;
		CHECK_EQ(seen[i], 0);
		seen[i] = 1;
		CHECK_OK(unlink(e->d_name));
	}
	for (i = 0; i < 300; i++)
		CHECK_EQ(seen[i], 1);
	closedir(dir);
}

TEST(seekdir)
{
	char first[256], name[32];
	long pos[60];
	DIR *dir;

	for (int i = 0; i < 50; i++) {
		snprintf(name, sizeof(name), "n%d", i);
		close(t_file(name, ""));
	}
	dir = opendir(".");
	for (int i = 0; i < 30; i++) {
		pos[i] = telldir(dir);
		CHECK(readdir(dir));
	}
	seekdir(dir, pos[20]);
	strcpy(first, readdir(dir)->d_name);
	seekdir(dir, pos[3]);
	CHECK(readdir(dir));
	seekdir(dir, pos[20]);
	CHECK_STR(readdir(dir)->d_name, first);
	rewinddir(dir);
	for (int i = 0; i < 52; i++)
		CHECK(readdir(dir));
	CHECK(!readdir(dir));
}

/* Past what a position can be. */
TEST(seek_past_all)
{
	static const char *const dirs[] = {".", "/proc", "/proc/self/fd", "/proc/self/task",
					   "/dev"};
	char buf[128];

	for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++) {
		int fd = open(dirs[i], O_RDONLY | O_DIRECTORY);
		off_t pos;

		CHECK(syscall(SYS_getdents64, fd, buf, sizeof(buf)) > 0);
		pos = lseek(fd, 0, SEEK_CUR);
		CHECK(pos > 0);
		CHECK_ERR(lseek(fd, INT64_MAX, SEEK_CUR), EINVAL);
		CHECK_ERR(lseek(fd, -1, SEEK_SET), EINVAL);
		CHECK_EQ(lseek(fd, 0, SEEK_CUR), pos);
		close(fd);
	}
}

TEST(chdir_getcwd)
{
	char start[PATH_MAX], buf[PATH_MAX], want[PATH_MAX + 8];
	int fd;

	CHECK(getcwd(start, sizeof(start)));
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/e", 0755));
	CHECK_OK(symlink("d/e", "l"));
	CHECK_OK(chdir("l"));
	snprintf(want, sizeof(want), "%s/d/e", start);
	CHECK(getcwd(buf, sizeof(buf)));
	CHECK_STR(buf, want);
	CHECK_OK(chdir(".."));
	CHECK_OK(chdir("../d/./e//"));
	CHECK_EQ(syscall(SYS_getcwd, buf, sizeof(buf)), strlen(want) + 1);
	CHECK_ERR(syscall(SYS_getcwd, buf, 3), ERANGE);
	CHECK_OK(chdir(start));
	CHECK_OK(rename("d", "r"));
	fd = open("r/e", O_RDONLY);
	CHECK_OK(fchdir(fd));
	snprintf(want, sizeof(want), "%s/r/e", start);
	CHECK_STR(getcwd(buf, sizeof(buf)), want);
	CHECK_ERR(chdir("none"), ENOENT);
	CHECK_ERR(fchdir(open("f", O_RDWR | O_CREAT, 0600)), ENOTDIR);
	CHECK_OK(unlink("f"));
	/* In a removed directory. */
	CHECK_OK(rmdir("../e"));
	CHECK(!getcwd(buf, sizeof(buf)));
	CHECK_ERR(open("x", O_CREAT | O_RDWR, 0600), ENOENT);
	CHECK_ERR(mkdir("x", 0755), ENOENT);
	CHECK_OK(chdir(".."));
	CHECK_OK(chdir("/"));
	CHECK_OK(chdir(".."));
	CHECK_STR(getcwd(buf, sizeof(buf)), "/");
	CHECK_ERR(chdir("/proc/self/status"), ENOTDIR);
}

TEST(deep_tree)
{
	char path[PATH_MAX] = "", cwd[8192];

	for (int i = 0; i < 60; i++) {
		CHECK_OK(mkdir("a-directory-with-a-longish-name", 0755));
		CHECK_OK(chdir("a-directory-with-a-longish-name"));
		if (i < 40)
			strcat(path, "../");
	}
	CHECK_OK(syscall(SYS_getcwd, cwd, sizeof(cwd)));
	CHECK_OK(chdir(path));
	close(t_file("here", "yes"));
	CHECK_STR(t_read("a-directory-with-a-longish-name/../here"), "yes");
}

TEST(chroot)
{
	char buf[PATH_MAX];

	CHECK_OK(mkdir("r", 0755));
	CHECK_OK(mkdir("r/sub", 0755));
	close(t_file("r/f", "inside"));
	CHECK_OK(symlink("/f", "r/sub/abs"));
	CHECK_OK(symlink("../../../../f", "r/sub/up"));
	CHECK_OK(chroot("r"));
	CHECK_OK(chdir("/"));
	CHECK_STR(t_read("/f"), "inside");
	CHECK_STR(t_read("/../../f"), "inside");
	CHECK_STR(t_read("/sub/abs"), "inside");
	CHECK_STR(t_read("/sub/up"), "inside");
	CHECK_STR(getcwd(buf, sizeof(buf)), "/");
}

TEST(names)
{
	struct stat st;
	char name[256];

	for (int c = 1; c < 256; c++) {
		if (c == '/')
			continue;
		snprintf(name, sizeof(name), "x%cy", c);
		close(t_file(name, ""));
		CHECK_OK(stat(name, &st));
	}
	memset(name, 'n', 255);
	name[255] = '\0';
	CHECK_OK(mkdir(name, 0755));
	CHECK_OK(stat(name, &st));
	CHECK_OK(stat(".//./x.y", &st));
	CHECK_OK(rmdir(name));
}
