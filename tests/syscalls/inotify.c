/* inotify: which events what gives, in which order. Wherever the files are: on memfs, through a server. */
#include "events.h"

static int watcher(void)
{
	int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);

	if (fd < 0)
		SKIP("there is no inotify");
	return fd;
}

static int watch(int fd, const char *path)
{
	int wd = inotify_add_watch(fd, path, IN_ALL_EVENTS);

	CHECK(wd > 0);
	return wd;
}

TEST(truncate)
{
	int fd = watcher(), f;

	CHECK_OK(mkdir("d", 0755));
	close(t_file("d/f", "text"));
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_OK(truncate("d/f", 3));
	CHECK_STR(events(fd), "1:2:f");
	CHECK_EQ(watch(fd, "d/f"), 2);
	CHECK_OK(truncate("d/f", 3));
	CHECK_STR(events(fd), "1:2:f 2:2");
	f = open("d/f", O_WRONLY | O_TRUNC);
	CHECK_STR(events(fd), "1:20:f 2:20 1:2:f 2:2");
	CHECK_OK(ftruncate(f, 10));
	CHECK_STR(events(fd), "1:2:f 2:2");
	close(f);
	CHECK_STR(events(fd), "1:8:f 2:8");
	/* Empty already, and made just now. */
	CHECK_OK(truncate("d/f", 0));
	events(fd);
	f = open("d/f", O_RDWR | O_TRUNC | O_CREAT, 0644);
	CHECK_STR(events(fd), "1:20:f 2:20 1:2:f 2:2");
	close(f);
	close(open("d/new", O_WRONLY | O_TRUNC | O_CREAT, 0644));
	CHECK_STR(events(fd), "1:8:f 2:8 1:100:new 1:20:new 1:8:new");
	close(open("d/new", O_PATH | O_TRUNC));
	CHECK_STR(events(fd), "");
}

TEST(attributes)
{
	struct timespec both[2] = {{1, 0}, {2, 0}}, atime[2] = {{3, 0}, {0, UTIME_OMIT}},
			mtime[2] = {{0, UTIME_OMIT}, {4, 0}};
	int fd = watcher();

	close(t_file("f", "text"));
	watch(fd, "f");
	CHECK_OK(chmod("f", 0600));
	CHECK_STR(events(fd), "1:4");
	CHECK_OK(chown("f", getuid(), getgid()));
	CHECK_STR(events(fd), "1:4");
	CHECK_OK(chown("f", (uid_t)-1, (gid_t)-1));
	CHECK_STR(events(fd), "");
	CHECK_OK(utimensat(AT_FDCWD, "f", both, 0));
	CHECK_STR(events(fd), "1:4");
	CHECK_OK(utimensat(AT_FDCWD, "f", atime, 0));
	CHECK_STR(events(fd), "1:1");
	CHECK_OK(utimensat(AT_FDCWD, "f", mtime, 0));
	CHECK_STR(events(fd), "1:2");
}

TEST(mask_of_flags)
{
	int fd = watcher();

	close(t_file("f", "text"));
	CHECK_EQ(inotify_add_watch(fd, "f", IN_ONESHOT), 1);
	CHECK_EQ(inotify_add_watch(fd, "f", IN_IGNORED), 1);
	CHECK_ERR(inotify_add_watch(fd, "f", 0), EINVAL);
	CHECK_ERR(inotify_add_watch(fd, "f", 0x08000000), EINVAL);
	CHECK_ERR(inotify_add_watch(fd, "f", IN_OPEN | 0x00010000), EINVAL);
	CHECK_OK(chmod("f", 0600));
	CHECK_STR(events(fd), "");
	CHECK_OK(unlink("f"));
	CHECK_STR(events(fd), "1:8000");
}

TEST(excl_unlink)
{
	int fd = watcher(), f;

	CHECK_OK(mkdir("d", 0755));
	f = t_file("d/f", "text");
	CHECK_EQ(inotify_add_watch(fd, "d", IN_ALL_EVENTS | IN_EXCL_UNLINK), 1);
	CHECK_OK(unlink("d/f"));
	CHECK_STR(events(fd), "1:200:f");
	/* What is done to the open file says no more; what is done to the inode does. */
	CHECK_EQ(write(f, "x", 1), 1);
	CHECK_STR(events(fd), "");
	CHECK_OK(fchmod(f, 0600));
	CHECK_STR(events(fd), "1:4:f");
	CHECK_OK(ftruncate(f, 1));
	CHECK_STR(events(fd), "1:2:f");
	close(f);
	CHECK_STR(events(fd), "");
}

TEST(removal_order)
{
	int fd = watcher();

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/sub", 0755));
	close(t_file("d/f", ""));
	close(t_file("d/g", ""));
	CHECK_OK(link("d/g", "d/h"));
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(watch(fd, "d/sub"), 2);
	CHECK_EQ(watch(fd, "d/f"), 3);
	CHECK_EQ(watch(fd, "d/g"), 4);
	CHECK_OK(rmdir("d/sub"));
	CHECK_STR(events(fd), "2:400 2:8000 1:40000200:sub");
	CHECK_OK(unlink("d/f"));
	CHECK_STR(events(fd), "3:4 3:400 3:8000 1:200:f");
	CHECK_OK(unlink("d/g"));
	CHECK_STR(events(fd), "4:4 1:200:g");
}

TEST(rename_order)
{
	int fd = watcher();

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("e", 0755));
	close(t_file("d/f", ""));
	close(t_file("e/g", ""));
	CHECK_OK(mkdir("d/s", 0755));
	CHECK_OK(mkdir("e/t", 0755));
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(watch(fd, "e"), 2);
	CHECK_EQ(watch(fd, "d/f"), 3);
	CHECK_EQ(watch(fd, "e/g"), 4);
	CHECK_EQ(watch(fd, "d/s"), 5);
	CHECK_EQ(watch(fd, "e/t"), 6);
	CHECK_OK(rename("d/f", "e/g"));
	CHECK_STR(events(fd), "1:40:f 2:80:g 4:4 3:800 4:400 4:8000");
	CHECK_OK(rename("d/s", "e/t"));
	CHECK_STR(events(fd), "1:40000040:s 2:40000080:t 6:40000004 5:800 6:400 6:8000");
}

TEST(exchange_order)
{
	int fd = watcher();

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("e", 0755));
	close(t_file("d/f", ""));
	CHECK_OK(mkdir("e/t", 0755));
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(watch(fd, "e"), 2);
	CHECK_EQ(watch(fd, "d/f"), 3);
	CHECK_EQ(watch(fd, "e/t"), 4);
	CHECK_OK(renameat2(AT_FDCWD, "d/f", AT_FDCWD, "e/t", RENAME_EXCHANGE));
	CHECK_STR(events(fd), "1:40:f 2:80:t 3:800 2:40000040:t 1:40000080:f 4:800");
}

TEST(link_order)
{
	int fd = watcher();

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("e", 0755));
	close(t_file("d/f", ""));
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(watch(fd, "e"), 2);
	CHECK_EQ(watch(fd, "d/f"), 3);
	CHECK_OK(link("d/f", "e/g"));
	CHECK_STR(events(fd), "3:4 2:100:g");
}

/* The inode ends with its last name and its last open file, whichever comes later. */
TEST(delete_self_of_open)
{
	int fd = watcher(), f, g;

	CHECK_OK(mkdir("d", 0755));
	f = t_file("d/f", "text");
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(watch(fd, "d/f"), 2);
	g = dup(f);
	CHECK_OK(unlink("d/f"));
	CHECK_STR(events(fd), "2:4 1:200:f");
	CHECK_OK(fchmod(f, 0600));
	CHECK_STR(events(fd), "1:4:f 2:4");
	close(g);
	CHECK_STR(events(fd), "");
	close(f);
	CHECK_STR(events(fd), "1:8:f 2:8 2:400 2:8000");
	CHECK_ERR(inotify_rm_watch(fd, 2), EINVAL);
	/* The next of that name is another. */
	close(t_file("d/f", ""));
	CHECK_STR(events(fd), "1:100:f 1:20:f 1:8:f");
}

TEST(delete_self_of_mapped)
{
	int fd = watcher(), f = t_file("f", "text");
	void *p = mmap(NULL, 4096, PROT_READ, MAP_SHARED, f, 0);

	CHECK(p != MAP_FAILED);
	watch(fd, "f");
	close(f);
	CHECK_OK(unlink("f"));
	CHECK_STR(events(fd), "1:4");
	CHECK_OK(munmap(p, 4096));
	CHECK_STR(events(fd), "1:8 1:400 1:8000");
}

/* A dentry at a time: the first that goes once no name is left tells it. */
TEST(delete_self_of_links)
{
	int fd = watcher(), a, b;

	CHECK_OK(mkdir("d", 0755));
	close(t_file("d/a", ""));
	CHECK_OK(link("d/a", "d/b"));
	a = open("d/a", O_RDONLY);
	CHECK_EQ(watch(fd, "d/a"), 1);
	CHECK_OK(unlink("d/a"));
	CHECK_STR(events(fd), "1:4");
	close(a);
	CHECK_STR(events(fd), "1:10");
	b = open("d/b", O_RDONLY);
	CHECK_STR(events(fd), "1:20");
	CHECK_OK(unlink("d/b"));
	CHECK_STR(events(fd), "1:4");
	close(b);
	CHECK_STR(events(fd), "1:10 1:400 1:8000");

	close(t_file("d/a", ""));
	CHECK_OK(link("d/a", "d/b"));
	a = open("d/a", O_RDONLY);
	CHECK_EQ(watch(fd, "d/b"), 2);
	CHECK_OK(unlink("d/a"));
	CHECK_OK(unlink("d/b"));
	CHECK_STR(events(fd), "2:4 2:400 2:8000");
	close(a);
	CHECK_STR(events(fd), "");
}

TEST(delete_self_of_replaced)
{
	int fd = watcher(), f;

	close(t_file("new", ""));
	f = t_file("old", "");
	CHECK_EQ(watch(fd, "old"), 1);
	CHECK_EQ(watch(fd, "new"), 2);
	CHECK_OK(rename("new", "old"));
	CHECK_STR(events(fd), "1:4 2:800");
	close(f);
	CHECK_STR(events(fd), "1:8 1:400 1:8000");
	CHECK_OK(unlink("old"));
	CHECK_STR(events(fd), "2:4 2:400 2:8000");
}

TEST(delete_self_of_directory)
{
	int fd = watcher(), dir;

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/by_fd", 0755));
	CHECK_OK(mkdir("d/by_path", 0755));
	CHECK_OK(mkdir("d/cwd", 0755));
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(inotify_add_watch(fd, "d/by_fd", IN_DELETE_SELF), 2);
	CHECK_EQ(inotify_add_watch(fd, "d/by_path", IN_DELETE_SELF), 3);
	CHECK_EQ(inotify_add_watch(fd, "d/cwd", IN_DELETE_SELF), 4);
	dir = open("d/by_fd", O_RDONLY | O_DIRECTORY);
	CHECK_STR(events(fd), "1:40000020:by_fd");
	CHECK_OK(rmdir("d/by_fd"));
	CHECK_STR(events(fd), "1:40000200:by_fd");
	close(dir);
	CHECK_STR(events(fd), "1:40000010:by_fd 2:400 2:8000");
	dir = open("d/by_path", O_PATH);
	CHECK_OK(rmdir("d/by_path"));
	CHECK_STR(events(fd), "1:40000200:by_path");
	close(dir);
	CHECK_STR(events(fd), "3:400 3:8000");
	CHECK_OK(chdir("d/cwd"));
	CHECK_OK(rmdir("../cwd"));
	CHECK_STR(events(fd), "1:40000200:cwd");
	CHECK_OK(chdir("/"));
	CHECK_STR(events(fd), "4:400 4:8000");
}

/* Of all that was in it nothing is left, at any depth. */
TEST(delete_self_of_tree)
{
	int fd = watcher();

	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/e", 0755));
	CHECK_OK(mkdir("d/e/g", 0755));
	close(t_file("d/e/g/f", ""));
	CHECK_EQ(inotify_add_watch(fd, "d", IN_DELETE_SELF), 1);
	CHECK_OK(unlink("d/e/g/f"));
	CHECK_ERR(access("d/e/g/none", F_OK), ENOENT);
	CHECK_OK(rmdir("d/e/g"));
	CHECK_OK(rmdir("d/e"));
	CHECK_STR(events(fd), "");
	CHECK_OK(rmdir("d"));
	CHECK_STR(events(fd), "1:400 1:8000");
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(mkdir("d/e", 0755));
	close(t_file("d/e/f", ""));
	CHECK_OK(mkdir("new", 0755));
	CHECK_EQ(inotify_add_watch(fd, "d", IN_DELETE_SELF), 2);
	CHECK_OK(unlink("d/e/f"));
	CHECK_OK(rmdir("d/e"));
	CHECK_OK(rename("new", "d"));
	CHECK_STR(events(fd), "2:400 2:8000");
}

/* What was in a directory keeps it, too. */
TEST(delete_self_of_parent)
{
	int fd = watcher(), f;

	CHECK_OK(mkdir("d", 0755));
	f = t_file("d/f", "");
	CHECK_EQ(watch(fd, "d"), 1);
	CHECK_EQ(watch(fd, "d/f"), 2);
	CHECK_OK(unlink("d/f"));
	CHECK_STR(events(fd), "2:4 1:200:f");
	CHECK_OK(rmdir("d"));
	CHECK_STR(events(fd), "");
	close(f);
	CHECK_STR(events(fd), "1:8:f 2:8 2:400 2:8000 1:400 1:8000");
}

/* Watched when it has lost its name already. */
TEST(delete_self_of_nameless)
{
	int fd = watcher(), f = t_file("f", "");
	char path[64];

	CHECK_OK(unlink("f"));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f);
	CHECK_EQ(watch(fd, path), 1);
	CHECK_STR(events(fd), "");
	close(f);
	CHECK_STR(events(fd), "1:8 1:400 1:8000");
	f = open(".", O_TMPFILE | O_RDWR, 0600);
	if (f < 0)
		return;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f);
	CHECK_EQ(watch(fd, path), 2);
	CHECK_OK(linkat(AT_FDCWD, path, AT_FDCWD, "named", AT_SYMLINK_FOLLOW));
	CHECK_STR(events(fd), "2:4");
	close(f);
	CHECK_STR(events(fd), "2:8");
	CHECK_OK(unlink("named"));
	CHECK_STR(events(fd), "2:4 2:400 2:8000");
	f = open(".", O_TMPFILE | O_RDWR, 0600);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", f);
	CHECK_EQ(watch(fd, path), 3);
	close(f);
	CHECK_STR(events(fd), "3:8 3:400 3:8000");
}

/* The last reference is another process's, which ends. */
TEST(delete_self_by_exit)
{
	int fd = watcher(), f = t_file("f", ""), gate[2];
	pid_t pid;

	CHECK_OK(pipe(gate));
	watch(fd, "f");
	pid = fork();
	CHECK(pid >= 0);
	if (!pid) {
		close(gate[1]);
		_exit(read(gate[0], &(char){0}, 1) != 0);
	}
	close(f);
	CHECK_OK(unlink("f"));
	CHECK_STR(events(fd), "1:4");
	close(gate[1]);
	t_wait_ok(pid);
	CHECK_STR(events(fd), "1:8 1:400 1:8000");
}
