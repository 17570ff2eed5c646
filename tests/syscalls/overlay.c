/* Overlays, on a tmpfs of the test's own: options, what is kept across a copy-up, marks on the layers. tests/fs/differential.c does names and permissions. */
#include "events.h"

#include <sched.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#define ALL "lowerdir=l,upperdir=u,workdir=w"

/* A tmpfs with l, l2, u, w, m, which is the current directory. */
static void layers(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		SKIP("no mount namespaces");
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK_OK(mkdir("t", 0755));
	CHECK_OK(mount("t", "t", "tmpfs", 0, NULL));
	CHECK_OK(chdir("t"));
	CHECK_OK(mkdir("l", 0755));
	CHECK_OK(mkdir("l2", 0755));
	CHECK_OK(mkdir("u", 0755));
	CHECK_OK(mkdir("w", 0755));
	CHECK_OK(mkdir("m", 0755));
}

static int overlay(const char *options)
{
	if (mount("ov", "m", "overlay", 0, options) == 0)
		return 0;
	if (errno == ENODEV)
		SKIP("no overlayfs");
	return -1;
}

TEST(options)
{
	char long_one[3000];

	layers();
	close(t_file("f", ""));
	CHECK_OK(mkdir("l/sub", 0755));
	CHECK_OK(mkdir("u/sub", 0755));
	CHECK_ERR(overlay(NULL), EINVAL);
	CHECK_ERR(overlay("upperdir=u,workdir=w"), EINVAL);
	CHECK_ERR(overlay("lowerdir=l"), EINVAL);
	CHECK_ERR(overlay("lowerdir=l,upperdir=u"), EINVAL);
	CHECK_ERR(overlay("lowerdir=none,upperdir=u,workdir=w"), ENOENT);
	CHECK_ERR(overlay("lowerdir=f,upperdir=u,workdir=w"), EINVAL);
	CHECK_ERR(overlay("lowerdir=l:,upperdir=u,workdir=w"), EINVAL);
	CHECK_ERR(overlay(ALL ",nonsense"), EINVAL);
	CHECK_ERR(overlay(ALL ",redirect_dir=perhaps"), EINVAL);
	CHECK_ERR(overlay(ALL ",userxattr,redirect_dir=on"), EINVAL);
	CHECK_ERR(overlay("lowerdir=l,upperdir=u,workdir=u"), EINVAL);
	CHECK_ERR(overlay("lowerdir=l,upperdir=u,workdir=u/sub"), EINVAL);
	CHECK_ERR(overlay("lowerdir=u,upperdir=u,workdir=w"), ELOOP);
	CHECK_ERR(overlay("lowerdir=u/sub,upperdir=u,workdir=w"), ELOOP);
	CHECK_ERR(overlay("lowerdir=l:l"), ELOOP);
	CHECK_ERR(overlay("lowerdir=l:l/sub"), ELOOP);
	CHECK_OK(mkdir("o", 0755));
	CHECK_OK(mount("o", "o", "tmpfs", 0, NULL));
	CHECK_ERR(overlay("lowerdir=l,upperdir=u,workdir=o"), EINVAL);
	CHECK_OK(mount("o", "o", NULL, MS_REMOUNT | MS_RDONLY, NULL));
	CHECK_ERR(overlay("lowerdir=l,upperdir=o,workdir=o"), EINVAL);
	CHECK_OK(mkdir("a:b", 0755));
	close(t_file("a:b/colon", ""));
	CHECK_OK(overlay("lowerdir=a\\:b:l"));
	CHECK_OK(access("m/colon", F_OK));
	CHECK_ERR(open("m/new", O_CREAT | O_WRONLY, 0644), EROFS);
	CHECK_ERR(mount("ov", "m", NULL, MS_REMOUNT, NULL), EROFS);
	CHECK_OK(umount("m"));
	memset(long_one, 'x', sizeof(long_one));
	memcpy(long_one, "lowerdir=l:", 11);
	long_one[2900] = '\0';
	CHECK_ERR(overlay(long_one), ENAMETOOLONG);
}

static void mounts_say(const char *what)
{
	char line[4096];
	const char *all = strstr(t_read("/proc/self/mounts"), "ov ");

	CHECK(all != NULL);
	snprintf(line, sizeof(line), "%.*s", (int)strcspn(all, "\n"), all);
	if (!strstr(line, what))
		t_fail(__FILE__, __LINE__, "%s lacks %s", line, what);
}

TEST(shown_options)
{
	struct statfs sf;

	layers();
	CHECK_OK(overlay(ALL));
	mounts_say("overlay rw,relatime,lowerdir=l,upperdir=u,workdir=w");
	CHECK_OK(statfs("m", &sf));
	CHECK_EQ(sf.f_type, 0x794c7630);
	CHECK_OK(umount("m"));
	CHECK_OK(overlay("lowerdir=l:l2,redirect_dir=nofollow"));
	mounts_say("overlay ro,relatime,lowerdir=l:l2,redirect_dir=nofollow");
	CHECK_OK(umount("m"));
	CHECK_OK(overlay(ALL ",redirect_dir=on,volatile"));
	mounts_say(",redirect_dir=on");
	mounts_say("volatile");
	CHECK_OK(umount("m"));
}

TEST(identity)
{
	struct stat dir, file, dev, after;

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(mkdir("l/d", 0755));
	CHECK_OK(link("l/f", "l/g"));
	close(t_file("l/h", "one name"));
	CHECK_OK(overlay(ALL));
	CHECK_OK(stat("m", &dev));
	CHECK_OK(stat("m/h", &file));
	CHECK_OK(stat("m/d", &dir));
	CHECK_EQ(dev.st_dev, file.st_dev);
	CHECK_EQ(dev.st_dev, dir.st_dev);
	CHECK_OK(chmod("m/h", 0600));
	CHECK_OK(chmod("m/d", 0700));
	CHECK_OK(stat("m/h", &after));
	CHECK_EQ(after.st_ino, file.st_ino);
	CHECK_EQ(after.st_dev, file.st_dev);
	CHECK_EQ(after.st_mode & 07777, 0600);
	CHECK_OK(stat("m/d", &after));
	CHECK_EQ(after.st_ino, dir.st_ino);
	/* And in a later mount, and in readdir. */
	CHECK_OK(umount("m"));
	CHECK_OK(overlay(ALL));
	CHECK_OK(stat("m/h", &after));
	CHECK_EQ(after.st_ino, file.st_ino);
	DIR *list = opendir("m");
	bool seen = false;
	for (struct dirent *e; (e = readdir(list));)
		if (!strcmp(e->d_name, "h")) {
			seen = true;
			CHECK_EQ(e->d_ino, file.st_ino);
		}
	closedir(list);
	CHECK(seen);
	/* Hard links of a lower file part at the first change. */
	CHECK_OK(stat("m/f", &file));
	CHECK_EQ(file.st_nlink, 2);
	close(t_file("m/f", "changed"));
	CHECK_STR(t_read("m/g"), "lower");
	CHECK_OK(stat("m/f", &file));
	CHECK_EQ(file.st_nlink, 1);
	/* Hard links made in the overlay do not. */
	CHECK_OK(link("m/f", "m/k"));
	close(t_file("m/k", "both"));
	CHECK_STR(t_read("m/f"), "both");
	CHECK_OK(stat("m/f", &file));
	CHECK_OK(stat("m/k", &after));
	CHECK_EQ(file.st_ino, after.st_ino);
	CHECK_EQ(file.st_nlink, 2);
}

TEST(open_across_copy_up)
{
	char buf[16] = "";
	char *before, *later;
	int rd, wr;

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(overlay(ALL));
	rd = open("m/f", O_RDONLY);
	CHECK(rd >= 0);
	before = mmap(NULL, 4096, PROT_READ, MAP_SHARED, rd, 0);
	CHECK(before != MAP_FAILED);
	CHECK_EQ(before[0], 'l');
	wr = open("m/f", O_RDWR);
	CHECK(wr >= 0);
	CHECK_EQ(pwrite(wr, "UPPER", 5, 0), 5);
	/* What was opened before reads the new contents; what was mapped before stays the lower file. */
	CHECK_EQ(pread(rd, buf, sizeof(buf), 0), 5);
	CHECK_STR(buf, "UPPER");
	CHECK_EQ(before[0], 'l');
	later = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, wr, 0);
	CHECK(later != MAP_FAILED);
	CHECK_EQ(later[0], 'U');
	later[0] = 'M';
	CHECK_EQ(pread(rd, buf, sizeof(buf), 0), 5);
	CHECK_STR(buf, "MPPER");
	CHECK_STR(t_read("l/f"), "lower");
	CHECK_STR(t_read("u/f"), "MPPER");
}

TEST(locks_across_copy_up)
{
	int rd, wr;

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(overlay(ALL));
	rd = open("m/f", O_RDONLY);
	CHECK(rd >= 0);
	CHECK_OK(flock(rd, LOCK_SH));
	wr = open("m/f", O_RDWR);
	CHECK(wr >= 0);
	CHECK_EQ(pwrite(wr, "x", 1, 0), 1);
	CHECK_ERR(flock(wr, LOCK_EX | LOCK_NB), EWOULDBLOCK);
	CHECK_OK(flock(rd, LOCK_UN));
	CHECK_OK(flock(wr, LOCK_EX | LOCK_NB));
}

TEST(notify)
{
	char buf[4096] __attribute__((aligned(8)));
	uint32_t seen = 0;
	int in, wd_dir, wd_file, fd;
	ssize_t n;

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(overlay(ALL));
	in = inotify_init1(IN_NONBLOCK);
	wd_dir = inotify_add_watch(in, "m", IN_CREATE | IN_DELETE | IN_MOVE);
	wd_file = inotify_add_watch(in, "m/f", IN_MODIFY | IN_ATTRIB);
	CHECK(wd_dir > 0 && wd_file > 0);
	fd = open("m/f", O_WRONLY | O_APPEND);
	CHECK_EQ(write(fd, "x", 1), 1);
	close(fd);
	CHECK_OK(chmod("m/f", 0600));
	CHECK_OK(mkdir("m/d", 0755));
	CHECK_OK(rename("m/d", "m/e"));
	CHECK_OK(rmdir("m/e"));
	n = read(in, buf, sizeof(buf));
	CHECK(n > 0);
	for (ssize_t i = 0; i < n;) {
		struct inotify_event *e = (void *)(buf + i);

		CHECK_EQ(e->wd, e->mask & (IN_MODIFY | IN_ATTRIB) ? wd_file : wd_dir);
		seen |= e->mask;
		i += (ssize_t)(sizeof(*e) + e->len);
	}
	CHECK_EQ(seen & (IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO |
			 IN_DELETE),
		 IN_MODIFY | IN_ATTRIB | IN_CREATE | IN_MOVED_FROM | IN_MOVED_TO | IN_DELETE);
}

TEST(whiteouts_and_opaque)
{
	struct stat st;
	char value[8];

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(mkdir("l/d", 0755));
	close(t_file("l/d/x", ""));
	CHECK_OK(overlay(ALL));
	CHECK_OK(unlink("m/f"));
	CHECK_ERR(access("m/f", F_OK), ENOENT);
	CHECK_OK(lstat("u/f", &st));
	CHECK(S_ISCHR(st.st_mode) && st.st_rdev == 0);
	CHECK_OK(unlink("m/d/x"));
	CHECK_OK(rmdir("m/d"));
	CHECK_OK(lstat("u/d", &st));
	CHECK(S_ISCHR(st.st_mode) && st.st_rdev == 0);
	CHECK_OK(mkdir("m/d", 0755));
	CHECK_ERR(access("m/d/x", F_OK), ENOENT);
	CHECK_EQ(getxattr("u/d", "trusted.overlay.opaque", value, sizeof(value)), 1);
	CHECK_EQ(value[0], 'y');
	CHECK_ERR(mknod("m/zero", S_IFCHR | 0600, makedev(0, 0)), EPERM);
	CHECK_OK(umount("m"));
	CHECK_OK(overlay(ALL));
	CHECK_ERR(access("m/f", F_OK), ENOENT);
	CHECK_ERR(access("m/d/x", F_OK), ENOENT);
}

TEST(xattr_whiteouts)
{
	layers();
	close(t_file("l2/gone", "below"));
	close(t_file("l2/kept", "below"));
	close(t_file("l/gone", ""));
	close(t_file("l/empty", ""));
	CHECK_OK(setxattr("l/gone", "trusted.overlay.whiteout", "", 0, 0));
	CHECK_OK(overlay("lowerdir=l:l2"));
	CHECK_ERR(access("m/gone", F_OK), ENOENT);
	CHECK_OK(umount("m"));
	/* With the mark on the directory it is not listed either. */
	CHECK_OK(setxattr("l", "trusted.overlay.opaque", "x", 1, 0));
	CHECK_OK(overlay("lowerdir=l:l2"));
	CHECK_ERR(access("m/gone", F_OK), ENOENT);
	CHECK_OK(access("m/empty", F_OK));
	CHECK_STR(t_read("m/kept"), "below");
	DIR *d = opendir("m");
	for (struct dirent *e; (e = readdir(d));)
		CHECK(strcmp(e->d_name, "gone"));
	closedir(d);
}

TEST(xattr_escapes)
{
	char names[200], value[16];
	ssize_t n;

	layers();
	CHECK_OK(overlay(ALL));
	close(t_file("m/f", ""));
	CHECK_OK(setxattr("m/f", "trusted.overlay.opaque", "mine", 4, 0));
	CHECK_EQ(getxattr("m/f", "trusted.overlay.opaque", value, sizeof(value)), 4);
	CHECK_EQ(getxattr("u/f", "trusted.overlay.overlay.opaque", value, sizeof(value)), 4);
	CHECK_ERR(getxattr("u/f", "trusted.overlay.opaque", value, sizeof(value)), ENODATA);
	n = listxattr("m/f", names, sizeof(names));
	CHECK_EQ(n, (ssize_t)sizeof("trusted.overlay.opaque"));
	CHECK_STR(names, "trusted.overlay.opaque");
	CHECK_OK(removexattr("m/f", "trusted.overlay.opaque"));
	CHECK_ERR(getxattr("u/f", "trusted.overlay.overlay.opaque", value, sizeof(value)), ENODATA);
	/* A mark of the overlay itself is not seen. */
	close(t_file("u/g", ""));
	CHECK_OK(setxattr("u/g", "trusted.overlay.origin", "x", 1, 0));
	CHECK_ERR(getxattr("m/g", "trusted.overlay.origin", value, sizeof(value)), ENODATA);
	CHECK_EQ(listxattr("m/g", names, sizeof(names)), 0);
}

TEST(userxattr)
{
	char value[4];

	layers();
	CHECK_OK(mkdir("l/d", 0755));
	close(t_file("l/d/x", ""));
	CHECK_OK(overlay(ALL ",userxattr"));
	CHECK_OK(unlink("m/d/x"));
	CHECK_OK(rmdir("m/d"));
	CHECK_OK(mkdir("m/d", 0755));
	CHECK_EQ(getxattr("u/d", "user.overlay.opaque", value, sizeof(value)), 1);
	CHECK_ERR(getxattr("u/d", "trusted.overlay.opaque", value, sizeof(value)), ENODATA);
	CHECK_ERR(access("m/d/x", F_OK), ENOENT);
}

TEST(redirect)
{
	char value[64] = "";

	layers();
	CHECK_OK(mkdir("l/a", 0755));
	CHECK_OK(mkdir("l/b", 0755));
	CHECK_OK(mkdir("l/a/deep", 0755));
	close(t_file("l/a/deep/f", "found"));
	CHECK_OK(overlay(ALL));
	CHECK_ERR(rename("m/a", "m/z"), EXDEV);
	CHECK_OK(umount("m"));
	CHECK_OK(overlay(ALL ",redirect_dir=on"));
	CHECK_OK(rename("m/a", "m/z"));
	CHECK_STR(t_read("m/z/deep/f"), "found");
	CHECK_ERR(access("m/a", F_OK), ENOENT);
	CHECK_EQ(getxattr("u/z", "trusted.overlay.redirect", value, sizeof(value)), 1);
	CHECK_STR(value, "a");
	CHECK_OK(rename("m/z/deep", "m/b/moved"));
	memset(value, 0, sizeof(value));
	CHECK(getxattr("u/b/moved", "trusted.overlay.redirect", value, sizeof(value)) > 0);
	CHECK_STR(value, "/a/deep");
	CHECK_STR(t_read("m/b/moved/f"), "found");
	/* And after a new mount: the marks say it. */
	CHECK_OK(umount("m"));
	CHECK_OK(overlay(ALL));
	CHECK_STR(t_read("m/b/moved/f"), "found");
	CHECK_ERR(access("m/z/deep", F_OK), ENOENT);
	CHECK_OK(umount("m"));
	CHECK_OK(overlay(ALL ",redirect_dir=nofollow"));
	CHECK_ERR(access("m/b/moved/f", F_OK), EPERM);
}

TEST(layers_of_three)
{
	layers();
	close(t_file("l/f", "top"));
	close(t_file("l2/f", "bottom"));
	close(t_file("l2/only", "bottom"));
	CHECK_OK(mkdir("l/d", 0755));
	CHECK_OK(mkdir("l2/d", 0755));
	close(t_file("l/d/1", ""));
	close(t_file("l2/d/2", ""));
	/* A name that is a file above hides the directory below. */
	close(t_file("l/mixed", "file"));
	CHECK_OK(mkdir("l2/mixed", 0755));
	CHECK_OK(overlay("lowerdir=l:l2,upperdir=u,workdir=w"));
	CHECK_STR(t_read("m/f"), "top");
	CHECK_STR(t_read("m/only"), "bottom");
	CHECK_OK(access("m/d/1", F_OK));
	CHECK_OK(access("m/d/2", F_OK));
	CHECK_STR(t_read("m/mixed"), "file");
	CHECK_OK(unlink("m/f"));
	CHECK_ERR(access("m/f", F_OK), ENOENT);
	CHECK_OK(unlink("m/mixed"));
	CHECK_ERR(access("m/mixed", F_OK), ENOENT);
}

TEST(nested)
{
	layers();
	close(t_file("l/f", "bottom"));
	CHECK_OK(overlay("lowerdir=l:l2"));
	CHECK_OK(mkdir("m2", 0755));
	CHECK_OK(mkdir("m3", 0755));
	CHECK_OK(mount("ov2", "m2", "overlay", 0, "lowerdir=m,upperdir=u,workdir=w"));
	CHECK_STR(t_read("m2/f"), "bottom");
	close(t_file("m2/f", "changed"));
	CHECK_STR(t_read("m2/f"), "changed");
	CHECK_STR(t_read("m/f"), "bottom");
	CHECK_OK(mkdir("u3", 0755));
	CHECK_OK(mkdir("w3", 0755));
	CHECK_ERR(mount("ov3", "m3", "overlay", 0, "lowerdir=m2,upperdir=u3,workdir=w3"), EINVAL);
}

TEST(acl)
{
	/* user::rwx user:1000:r-- group::--- mask::rwx other::--- */
	static const uint8_t acl[] = {2,   0,	0,   0,	  1,   0,    7,	 0,   255, 255, 255,
				      255, 2,	0,   4,	  0,   0xe8, 3,	 0,   0,   4,	0,
				      0,   0,	255, 255, 255, 255,  16, 0,   7,   0,	255,
				      255, 255, 255, 32,  0,   0,    0,	 255, 255, 255, 255};
	struct stat st;

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(setxattr("l/f", "system.posix_acl_access", acl, sizeof(acl), 0));
	CHECK_OK(overlay(ALL));
	CHECK_OK(chmod(".", 0755));
	pid_t child = fork();
	if (child == 0) {
		t_become(1000, 1000);
		CHECK_OK(access("m/f", R_OK));
		CHECK_ERR(open("m/f", O_WRONLY), EACCES);
		_exit(0);
	}
	t_wait_ok(child);
	/* It goes up with the file. */
	CHECK_OK(utimensat(AT_FDCWD, "m/f", NULL, 0));
	CHECK_OK(stat("u/f", &st));
	CHECK_EQ(st.st_mode & 0777, 0770);
	t_become(1001, 1001);
	CHECK_ERR(open("m/f", O_RDONLY), EACCES);
}

TEST(sync_and_seek)
{
	int dir, fd;

	layers();
	close(t_file("l/f", "lower"));
	CHECK_OK(overlay(ALL));
	fd = open("m/f", O_RDWR);
	dir = open("m", O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0 && dir >= 0);
	CHECK_EQ(write(fd, "more", 4), 4);
	CHECK_OK(fsync(fd));
	CHECK_OK(fdatasync(fd));
	CHECK_OK(fsync(dir));
	CHECK_OK(syncfs(dir));
	CHECK_EQ(lseek(fd, 0, SEEK_HOLE), 5);
	CHECK_EQ(lseek(fd, 0, SEEK_END), 5);
}

/* Wherever the layers have it: its end is told when the last who uses it is gone. */
TEST(delete_self)
{
	const uint32_t end = IN_ATTRIB | IN_DELETE_SELF | IN_DELETE | IN_MOVE_SELF;
	int fd = inotify_init1(IN_NONBLOCK), f, dir;

	CHECK(fd >= 0);
	layers();
	close(t_file("l/lower", ""));
	close(t_file("l/over", ""));
	close(t_file("u/upper", ""));
	close(t_file("u/new", ""));
	CHECK_OK(mkdir("l/dir", 0755));
	CHECK_OK(overlay(ALL));
	CHECK_EQ(inotify_add_watch(fd, "m", end), 1);
	CHECK_EQ(inotify_add_watch(fd, "m/lower", end), 2);
	CHECK_EQ(inotify_add_watch(fd, "m/upper", end), 3);
	CHECK_EQ(inotify_add_watch(fd, "m/dir", end), 4);
	CHECK_EQ(inotify_add_watch(fd, "m/over", end), 5);
	f = open("m/lower", O_RDONLY);
	CHECK_OK(unlink("m/lower"));
	CHECK_STR(events(fd), "2:4 1:200:lower");
	close(f);
	CHECK_STR(events(fd), "2:400 2:8000");
	f = open("m/upper", O_RDONLY);
	CHECK_OK(link("m/upper", "m/name"));
	CHECK_STR(events(fd), "3:4");
	CHECK_OK(unlink("m/upper"));
	CHECK_STR(events(fd), "3:4 1:200:upper");
	close(f);
	CHECK_STR(events(fd), "");
	CHECK_OK(unlink("m/name"));
	CHECK_STR(events(fd), "3:4 3:400 3:8000 1:200:name");
	dir = open("m/dir", O_RDONLY | O_DIRECTORY);
	CHECK_OK(rmdir("m/dir"));
	CHECK_STR(events(fd), "1:40000200:dir");
	close(dir);
	CHECK_STR(events(fd), "4:400 4:8000");
	f = open("m/over", O_RDONLY);
	CHECK_OK(rename("m/new", "m/over"));
	CHECK_STR(events(fd), "5:4");
	close(f);
	CHECK_STR(events(fd), "5:400 5:8000");
	CHECK_OK(inotify_add_watch(fd, "m/over", end));
	CHECK_OK(unlink("m/over"));
	CHECK_STR(events(fd), "6:4 6:400 6:8000 1:200:over");
}
