/* inotify: which events what gives, in which order. Wherever the files are: on memfs, through a server. */
#include "t.h"

#include <sys/inotify.h>

/* Everything queued: "WD:MASK[:NAME] ...", in hexadecimal. */
static const char *events(int fd)
{
	static char text[4096];
	char buf[4096] __attribute__((aligned(8)));
	ssize_t n = read(fd, buf, sizeof(buf));
	size_t len = 0;

	text[0] = '\0';
	for (ssize_t at = 0; at < n;) {
		struct inotify_event *e = (struct inotify_event *)(buf + at);

		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%d:%x%s%s",
					len ? " " : "", e->wd, e->mask, e->len ? ":" : "",
					e->len ? e->name : "");
		at += (ssize_t)(sizeof(*e) + e->len);
	}
	return text;
}

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
