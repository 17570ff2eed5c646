/* Extended attributes: user.* and trusted.*, on files, directories and links. */
#include "t.h"

#include <linux/capability.h>
#include <sys/xattr.h>

static void need_user(void)
{
	close(t_file("probe", ""));
	if (setxattr("probe", "user.p", "1", 1, 0) < 0 && errno == EOPNOTSUPP)
		SKIP("this file system has no user attributes");
}

TEST(set_get_list)
{
	char buf[256] = "";
	ssize_t n;
	int fd;

	need_user();
	fd = t_file("f", "");
	CHECK_OK(setxattr("f", "user.a", "value", 5, 0));
	CHECK_EQ(getxattr("f", "user.a", NULL, 0), 5);
	CHECK_EQ(getxattr("f", "user.a", buf, sizeof(buf)), 5);
	CHECK(!memcmp(buf, "value", 5));
	CHECK_ERR(getxattr("f", "user.a", buf, 2), ERANGE);
	CHECK_ERR(getxattr("f", "user.none", buf, 2), ENODATA);
	CHECK_OK(fsetxattr(fd, "user.b", "", 0, 0));
	CHECK_EQ(fgetxattr(fd, "user.b", buf, sizeof(buf)), 0);
	n = listxattr("f", buf, sizeof(buf));
	CHECK_EQ(n, 14);
	CHECK(memmem(buf, (size_t)n, "user.a", 7) && memmem(buf, (size_t)n, "user.b", 7));
	CHECK_EQ(listxattr("f", NULL, 0), 14);
	CHECK_ERR(listxattr("f", buf, 3), ERANGE);
	CHECK_OK(removexattr("f", "user.a"));
	CHECK_ERR(fremovexattr(fd, "user.a"), ENODATA);
	CHECK_EQ(flistxattr(fd, buf, sizeof(buf)), 7);
}

TEST(flags_and_errors)
{
	char name[300] = "user.";

	need_user();
	close(t_file("f", ""));
	CHECK_ERR(setxattr("f", "user.a", "v", 1, XATTR_REPLACE), ENODATA);
	CHECK_OK(setxattr("f", "user.a", "v", 1, XATTR_CREATE));
	CHECK_ERR(setxattr("f", "user.a", "v", 1, XATTR_CREATE), EEXIST);
	CHECK_OK(setxattr("f", "user.a", "w", 1, XATTR_REPLACE));
	CHECK_ERR(setxattr("f", "user.a", "v", 1, 8), EINVAL);
	CHECK_ERR(setxattr("f", "", "v", 1, 0), ERANGE);
	memset(name + 5, 'n', sizeof(name) - 6);
	CHECK_ERR(setxattr("f", name, "v", 1, 0), ERANGE);
	CHECK_ERR(setxattr("f", "nonsense.a", "v", 1, 0), EOPNOTSUPP);
	CHECK_ERR(setxattr("f", "user.big", "v", 65537, 0), E2BIG);
	CHECK_ERR(setxattr("none", "user.a", "v", 1, 0), ENOENT);
	CHECK_OK(symlink("f", "l"));
	CHECK_ERR(lsetxattr("l", "user.a", "v", 1, 0), EPERM);
	CHECK_EQ(getxattr("l", "user.a", NULL, 0), 1);
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(setxattr("d", "user.d", "v", 1, 0));
}

TEST(user_rights)
{
	need_user();
	close(t_file("f", ""));
	CHECK_OK(setxattr("f", "user.a", "v", 1, 0));
	CHECK_OK(chmod("f", 0604));
	close(t_file("g", ""));
	CHECK_OK(setxattr("g", "user.a", "v", 1, 0));
	CHECK_OK(chmod("g", 0600));
	t_become(1000, 1000);
	CHECK_EQ(getxattr("f", "user.a", NULL, 0), 1);
	CHECK_ERR(setxattr("f", "user.a", "x", 1, 0), EACCES);
	CHECK_ERR(getxattr("g", "user.a", NULL, 0), EACCES);
}

static int set_capability(const char *name, uint32_t magic, uint32_t rootid, size_t size)
{
	struct vfs_ns_cap_data data = {.magic_etc = magic, .rootid = rootid};

	data.data[0].permitted = 1u << CAP_NET_RAW;
	return lsetxattr(name, "security.capability", &data, size, 0);
}

TEST(file_capability)
{
	struct vfs_ns_cap_data data;

	close(t_file("f", ""));
	if (set_capability("f", VFS_CAP_REVISION_2, 0, XATTR_CAPS_SZ_2) < 0)
		SKIP("no file capabilities");
	CHECK_EQ(getxattr("f", "security.capability", &data, sizeof(data)), 20);
	CHECK_EQ(data.magic_etc, VFS_CAP_REVISION_2);
	CHECK_EQ(data.data[0].permitted, 1u << CAP_NET_RAW);
	CHECK_EQ(getxattr("f", "security.capability", NULL, 0), 20);
	CHECK_ERR(getxattr("f", "security.capability", &data, 19), ERANGE);
	/* Forms there are not. */
	CHECK_ERR(lsetxattr("f", "security.capability", "v", 1, 0), EINVAL);
	CHECK_ERR(set_capability("f", VFS_CAP_REVISION_1, 0, XATTR_CAPS_SZ_1), EINVAL);
	CHECK_ERR(set_capability("f", VFS_CAP_REVISION_2, 0, XATTR_CAPS_SZ_3), EINVAL);
	CHECK_ERR(set_capability("f", VFS_CAP_REVISION_3, 0, XATTR_CAPS_SZ_2), EINVAL);
	CHECK_ERR(set_capability("f", VFS_CAP_REVISION_2 | 2, 0, XATTR_CAPS_SZ_2), EINVAL);
	CHECK_ERR(set_capability("f", 0x04000000, 0, XATTR_CAPS_SZ_2), EINVAL);
	CHECK_ERR(set_capability("none", 0, 0, 1), ENOENT);
	/* Of this namespace's root, and of another's. */
	CHECK_OK(set_capability("f", VFS_CAP_REVISION_3 | 1, 0, XATTR_CAPS_SZ_3));
	CHECK_EQ(getxattr("f", "security.capability", &data, sizeof(data)), 20);
	CHECK_EQ(data.magic_etc, VFS_CAP_REVISION_2 | 1);
	CHECK_OK(set_capability("f", VFS_CAP_REVISION_3, 1000, XATTR_CAPS_SZ_3));
	CHECK_EQ(getxattr("f", "security.capability", &data, sizeof(data)), 24);
	CHECK_EQ(data.rootid, 1000);
	CHECK_OK(removexattr("f", "security.capability"));
	CHECK_ERR(getxattr("f", "security.capability", &data, sizeof(data)), ENODATA);
	CHECK_ERR(removexattr("f", "security.capability"), ENODATA);
	CHECK_OK(mkdir("d", 0755));
	CHECK_OK(set_capability("d", VFS_CAP_REVISION_2, 0, XATTR_CAPS_SZ_2));
	CHECK_OK(symlink("f", "l"));
	CHECK_ERR(lsetxattr("l", "security.capability", "v", 1, 0), EINVAL);
	CHECK_OK(chown("f", 1000, 1000));
	CHECK_OK(set_capability("f", VFS_CAP_REVISION_2, 0, XATTR_CAPS_SZ_2));
	t_become(1000, 1000);
	CHECK_ERR(set_capability("f", VFS_CAP_REVISION_2, 0, XATTR_CAPS_SZ_2), EPERM);
	CHECK_ERR(lsetxattr("f", "security.capability", "v", 1, 0), EINVAL);
	CHECK_ERR(removexattr("f", "security.capability"), EPERM);
	CHECK_EQ(getxattr("f", "security.capability", NULL, 0), 20);
}

TEST(space_without_name)
{
	static const char *const names[] = {"user.", "trusted.", "security."};

	close(t_file("f", "x"));
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		CHECK_ERR(getxattr("f", names[i], NULL, 0), EINVAL);
		CHECK_ERR(setxattr("f", names[i], "v", 1, 0), EINVAL);
		CHECK_ERR(removexattr("f", names[i]), EINVAL);
	}
}
