/* File handles. */
#include "t.h"

#include <sys/mount.h>

#include <sched.h>

struct handle {
	struct file_handle h;
	unsigned char room[128];
};

/* A tmpfs, whatever the test's own directory is on. */
static void on_tmpfs(void)
{
	if (unshare(CLONE_NEWNS) < 0)
		SKIP("no mount namespaces");
	CHECK_OK(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	CHECK_OK(chdir("m"));
}

static int name(const char *path, struct handle *h, int flags)
{
	int id;

	h->h.handle_bytes = 128;
	return name_to_handle_at(AT_FDCWD, path, &h->h, &id, flags);
}

TEST(round_trip)
{
	struct handle h, again;
	char buf[8] = "";
	int fd, id;

	on_tmpfs();
	close(t_file("f", "text"));
	CHECK_OK(mkdir("d", 0755));
	h.h.handle_bytes = 0;
	CHECK_ERR(name_to_handle_at(AT_FDCWD, "f", &h.h, &id, 0), EOVERFLOW);
	CHECK_EQ(h.h.handle_bytes, 12);
	CHECK_OK(name_to_handle_at(AT_FDCWD, "f", &h.h, &id, 0));
	CHECK_EQ(h.h.handle_bytes, 12);
	CHECK_EQ(h.h.handle_type, 1);
	CHECK_OK(name("f", &again, 0));
	CHECK(!memcmp(h.h.f_handle, again.h.f_handle, 12));
	CHECK_OK(name("d", &again, 0));
	CHECK(memcmp(h.h.f_handle, again.h.f_handle, 12));
	/* The name may change; the file is the same. */
	CHECK_OK(rename("f", "d/g"));
	fd = open_by_handle_at(AT_FDCWD, &h.h, O_RDONLY);
	CHECK(fd >= 0);
	CHECK_EQ(read(fd, buf, 8), 4);
	CHECK_STR(buf, "text");
	close(fd);
	fd = open_by_handle_at(AT_FDCWD, &again.h, O_RDONLY | O_DIRECTORY);
	CHECK(fd >= 0);
	CHECK_OK(faccessat(fd, "g", F_OK, 0));
	CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.h, O_RDONLY | O_DIRECTORY), ENOTDIR);
	CHECK_OK(unlink("d/g"));
	CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.h, O_RDONLY), ESTALE);
}

TEST(errors)
{
	struct handle h, link;
	int id;

	on_tmpfs();
	close(t_file("f", ""));
	CHECK_OK(symlink("f", "l"));
	CHECK_ERR(name("f", &h, 0x10000), EINVAL);
	CHECK_ERR(name("none", &h, 0), ENOENT);
	CHECK_ERR(name("", &h, 0), ENOENT);
	CHECK_ERR(name_to_handle_at(AT_FDCWD, "f", (void *)8, &id, 0), EFAULT);
	h.h.handle_bytes = 129;
	CHECK_ERR(name_to_handle_at(AT_FDCWD, "f", &h.h, &id, 0), EINVAL);
	CHECK_OK(name("f", &h, 0));
	CHECK_ERR(open_by_handle_at(999, &h.h, O_RDONLY), EBADF);
	h.h.handle_bytes = 0;
	CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.h, O_RDONLY), EINVAL);
	CHECK_OK(name("f", &h, 0));
	h.h.f_handle[5] ^= 0x55;
	CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.h, O_RDONLY), ESTALE);
	CHECK_OK(name("l", &link, 0));
	CHECK_ERR(open_by_handle_at(AT_FDCWD, &link.h, O_RDONLY), ELOOP);
	CHECK_OK(open_by_handle_at(AT_FDCWD, &link.h, O_PATH));
	CHECK_OK(name("l", &link, AT_SYMLINK_FOLLOW));
	CHECK_OK(open_by_handle_at(AT_FDCWD, &link.h, O_RDONLY));
	CHECK_ERR(name("/proc/self", &link, 0), EOPNOTSUPP);
	t_become(1000, 1000);
	CHECK_OK(name("f", &h, 0));
	CHECK_ERR(open_by_handle_at(AT_FDCWD, &h.h, O_RDONLY), EPERM);
}
