/* The mount table as programs read it: statmount, listmount, mountinfo and its kin, statx's mount ids. */
#include "mounts.h"

#include <linux/mount.h>
#include <linux/stat.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/sysmacros.h>

#define NR_statmount 457
#define NR_listmount 458
#define LSMT_ROOT_ UINT64_MAX
#define MNT_ID_UNIQUE 0x4000u
#ifndef STATX_MNT_ID
#define STATX_MNT_ID 0x1000u
#endif
#ifndef STATX_ATTR_MOUNT_ROOT
#define STATX_ATTR_MOUNT_ROOT 0x2000
#endif

enum {
	SB_BASIC = 1,
	MNT_BASIC = 2,
	PROPAGATE_FROM = 4,
	MNT_ROOT = 8,
	MNT_POINT = 0x10,
	FS_TYPE = 0x20,
	MNT_NS_ID = 0x40,
	MNT_OPTS = 0x80,
	SB_SOURCE = 0x200,
	OPT_ARRAY = 0x400,
	SUPPORTED = 0x1000,
};

struct req {
	uint32_t size, spare;
	uint64_t id, param, ns;
};

struct answer {
	uint32_t size, opts;
	uint64_t mask;
	uint32_t major, minor;
	uint64_t magic;
	uint32_t sb_flags, type;
	uint64_t id, parent;
	uint32_t old_id, old_parent;
	uint64_t attr, propagation, peer, master, from;
	uint32_t root, point;
	uint64_t ns;
	uint32_t subtype, source, opt_num, opt_array, sec_num, sec_array;
	uint64_t supported, rest[45];
	char str[4096];
};

static long statmount_(uint64_t id, uint64_t mask, struct answer *a, size_t size)
{
	struct req r = {.size = 24, .id = id, .param = mask};

	memset(a, 0x5a, sizeof(*a));
	return syscall(NR_statmount, &r, a, size, 0);
}

static long listmount_(uint64_t id, uint64_t last, uint64_t *ids, size_t count, unsigned flags)
{
	struct req r = {.size = 24, .id = id, .param = last};

	return syscall(NR_listmount, &r, ids, count, flags);
}

static uint64_t mnt_id(const char *path, unsigned mask)
{
	struct statx sx = {0};

	CHECK_OK(statx(AT_FDCWD, path, 0, mask, &sx));
	CHECK(sx.stx_mask & mask);
	return sx.stx_mnt_id;
}

static const char *cwd(void)
{
	static char buf[PATH_MAX];

	CHECK(getcwd(buf, sizeof(buf)));
	return buf;
}

TEST(statmount)
{
	struct answer a;
	struct stat st;
	char want[PATH_MAX];
	uint64_t id;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("a source", "m", "tmpfs", MS_NODEV | MS_NOATIME, "size=1m,mode=700"));
	id = mnt_id("m", MNT_ID_UNIQUE);
	CHECK(id > 1ull << 31);
	if (statmount_(id, SB_BASIC, &a, 512) < 0 && errno == ENOSYS)
		SKIP("no statmount");
	CHECK_OK(stat("m", &st));
	CHECK_OK(statmount_(id, SB_BASIC | MNT_BASIC | PROPAGATE_FROM | MNT_NS_ID, &a, 512));
	CHECK_EQ(a.size, 512);
	CHECK_EQ(a.mask, SB_BASIC | MNT_BASIC | PROPAGATE_FROM | MNT_NS_ID);
	CHECK_EQ(a.major, major(st.st_dev));
	CHECK_EQ(a.minor, minor(st.st_dev));
	CHECK_EQ(a.magic, 0x01021994);
	CHECK_EQ(a.sb_flags, 0);
	CHECK_EQ(a.id, id);
	CHECK_EQ(a.parent, mnt_id(".", MNT_ID_UNIQUE));
	CHECK_EQ(a.old_id, mnt_id("m", STATX_MNT_ID));
	CHECK_EQ(a.old_parent, mnt_id(".", STATX_MNT_ID));
	CHECK_EQ(a.attr, MOUNT_ATTR_NODEV | MOUNT_ATTR_NOATIME);
	CHECK_EQ(a.propagation, MS_PRIVATE);
	CHECK_EQ(a.peer, 0);
	CHECK_EQ(a.master, 0);
	CHECK(a.ns != 0);
	CHECK_EQ(a.type, 0);
	CHECK_OK(statmount_(id, FS_TYPE | MNT_ROOT | MNT_POINT | MNT_OPTS | SB_SOURCE | OPT_ARRAY,
			    &a, sizeof(a)));
	CHECK_STR(a.str + a.type, "tmpfs");
	CHECK_STR(a.str + a.root, "/");
	snprintf(want, sizeof(want), "%s/m", cwd());
	CHECK_STR(a.str + a.point, want);
	CHECK(!strncmp(a.str + a.opts, "size=1024k,mode=700", 19));
	CHECK_STR(a.str + a.source, "a source");
	CHECK(a.opt_num >= 2);
	CHECK_STR(a.str + a.opt_array, "size=1024k");
	CHECK_STR(a.str + a.opt_array + 11, "mode=700");
	/* Strings do not fit. */
	CHECK_ERR(statmount_(id, FS_TYPE, &a, 512), EOVERFLOW);
	CHECK_ERR(statmount_(id, FS_TYPE, &a, 515), EOVERFLOW);
	CHECK_OK(statmount_(id, SB_BASIC, &a, 16));
	CHECK_EQ(a.size, 16);
	CHECK_EQ(a.major, 0x5a5a5a5a);
	CHECK_OK(statmount_(id, SUPPORTED, &a, 512));
	CHECK_EQ(a.supported & 0x7fff, 0x7fff);
	/* A part of a filesystem. */
	CHECK_OK(mkdir("m/sub", 0755));
	CHECK_OK(mkdir("n", 0755));
	CHECK_OK(mount("m/sub", "n", NULL, MS_BIND, NULL));
	CHECK_OK(statmount_(mnt_id("n", MNT_ID_UNIQUE), MNT_ROOT, &a, sizeof(a)));
	CHECK_STR(a.str + a.root, "/sub");
}

TEST(statmount_empty_strings)
{
	struct answer a;
	uint64_t id;

	own_namespace();
	id = mnt_id(".", MNT_ID_UNIQUE);
	/* No subtype: the answer's bit is off, and offset 0 still is a string. */
	if (statmount_(id, 1 << 8, &a, sizeof(a)) < 0 && errno == ENOSYS)
		SKIP("no statmount");
	CHECK_OK(statmount_(id, 1 << 8, &a, sizeof(a)));
	CHECK_EQ(a.mask, 0);
	CHECK_EQ(a.size, 513);
	CHECK_EQ(a.str[0], 0);
	CHECK_ERR(statmount_(id, 1 << 8, &a, 512), EOVERFLOW);
}

TEST(statmount_errors)
{
	struct req r = {.size = 24};
	struct answer a;
	uint64_t id;

	own_namespace();
	id = mnt_id("/", MNT_ID_UNIQUE);
	r.id = id;
	r.param = SB_BASIC;
	if (syscall(NR_statmount, &r, &a, 512, 0) < 0 && errno == ENOSYS)
		SKIP("no statmount");
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 1), EINVAL);
	CHECK_ERR(syscall(NR_statmount, (void *)8, &a, 512, 0), EFAULT);
	CHECK_ERR(syscall(NR_statmount, &r, (void *)8, 512, 0), EFAULT);
	r.size = 16;
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 0), EINVAL);
	r.size = 8192;
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 0), E2BIG);
	r.size = 24;
	r.spare = (uint32_t)-1;
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 0), EBADF);
	r.spare = 0;
	r.id = 5;
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 0), EINVAL);
	r.id = 1ull << 60;
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 0), ENOENT);
	r.id = id;
	r.size = 32;
	r.ns = 1ull << 60;
	CHECK_ERR(syscall(NR_statmount, &r, &a, 512, 0), ENOENT);
	r.ns = 0;
	CHECK_OK(syscall(NR_statmount, &r, &a, 512, 0));
	/* By the namespace it told. */
	r.param = MNT_NS_ID;
	CHECK_OK(syscall(NR_statmount, &r, &a, 512, 0));
	r.ns = a.ns;
	CHECK_OK(syscall(NR_statmount, &r, &a, 512, 0));
	uint64_t got = 0;
	int fd = open("/proc/self/ns/mnt", O_RDONLY);
	CHECK_OK(ioctl(fd, _IOR(0xb7, 5, uint64_t), &got));
	CHECK_EQ(got, r.ns);
}

TEST(statmount_propagation)
{
	struct answer a, b;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mount(NULL, "a", NULL, MS_SHARED, NULL));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_OK(mount(NULL, "b", NULL, MS_SLAVE, NULL));
	if (statmount_(mnt_id("a", MNT_ID_UNIQUE), MNT_BASIC, &a, 512) < 0 && errno == ENOSYS)
		SKIP("no statmount");
	CHECK_OK(statmount_(mnt_id("b", MNT_ID_UNIQUE), MNT_BASIC | PROPAGATE_FROM, &b, 512));
	CHECK_EQ(a.propagation, MS_SHARED);
	CHECK(a.peer != 0);
	CHECK_EQ(b.propagation, MS_SLAVE);
	CHECK_EQ(b.master, a.peer);
	CHECK_EQ(b.from, a.peer);
	CHECK_OK(mount(NULL, "b", NULL, MS_SHARED, NULL));
	CHECK_OK(statmount_(mnt_id("b", MNT_ID_UNIQUE), MNT_BASIC, &b, 512));
	CHECK_EQ(b.propagation, MS_SLAVE | MS_SHARED);
	CHECK_OK(mount(NULL, "b", NULL, MS_UNBINDABLE, NULL));
	CHECK_OK(statmount_(mnt_id("b", MNT_ID_UNIQUE), MNT_BASIC, &b, 512));
	CHECK_EQ(b.propagation, MS_UNBINDABLE);
}

TEST(listmount)
{
	uint64_t ids[256], some[256], a, in;
	long n;

	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mkdir("a/in", 0755));
	CHECK_OK(mount("tmp", "a/in", "tmpfs", 0, NULL));
	a = mnt_id("a", MNT_ID_UNIQUE);
	in = mnt_id("a/in", MNT_ID_UNIQUE);
	n = listmount_(LSMT_ROOT_, 0, ids, 256, 0);
	if (n < 0 && errno == ENOSYS)
		SKIP("no listmount");
	CHECK(n >= 3);
	for (long i = 1; i < n; i++)
		CHECK(ids[i] > ids[i - 1]);
	CHECK_EQ(ids[n - 1], in);
	CHECK_EQ(ids[n - 2], a);
	CHECK_EQ(listmount_(a, 0, some, 256, 0), 1);
	CHECK_EQ(some[0], in);
	CHECK_EQ(listmount_(in, 0, some, 256, 0), 0);
	/* In pieces, and backwards. */
	CHECK_EQ(listmount_(LSMT_ROOT_, 0, some, 2, 0), 2);
	CHECK_EQ(some[1], ids[1]);
	CHECK_EQ(listmount_(LSMT_ROOT_, ids[1], some, 256, 0), n - 2);
	CHECK_EQ(some[0], ids[2]);
	CHECK_EQ(listmount_(LSMT_ROOT_, 0, some, 256, 1), n);
	CHECK_EQ(some[0], in);
	CHECK_EQ(listmount_(LSMT_ROOT_, in, some, 256, 1), n - 1);
	CHECK_EQ(some[0], a);
	CHECK_EQ(listmount_(LSMT_ROOT_, in, some, 256, 0), 0);
	CHECK_EQ(listmount_(LSMT_ROOT_, 0, some, 0, 0), 0);
	CHECK_ERR(listmount_(LSMT_ROOT_, 0, some, 256, 2), EINVAL);
	CHECK_ERR(listmount_(LSMT_ROOT_, 0, some, (1 << 20) + 1, 0), EOVERFLOW);
	CHECK_ERR(listmount_(LSMT_ROOT_, 0, (void *)8, 256, 0), EFAULT);
	CHECK_ERR(listmount_(5, 0, some, 256, 0), EINVAL);
	CHECK_ERR(listmount_(1ull << 60, 0, some, 256, 0), ENOENT);
	/* Below a root of one's own only what that reaches. */
	CHECK_OK(chroot("a"));
	CHECK_EQ(listmount_(LSMT_ROOT_, 0, some, 256, 0), 2);
}

TEST(statx_mount_ids)
{
	struct statx sx = {0};
	int fd;

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	CHECK(mnt_id("m", STATX_MNT_ID) < 1ull << 31);
	CHECK_EQ(mnt_id("m", STATX_MNT_ID), mnt_id(".", STATX_MNT_ID));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	CHECK(mnt_id("m", STATX_MNT_ID) != mnt_id(".", STATX_MNT_ID));
	CHECK_OK(statx(AT_FDCWD, "m", 0, 0, &sx));
	CHECK(sx.stx_attributes_mask & STATX_ATTR_MOUNT_ROOT);
	CHECK(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT);
	CHECK_OK(statx(AT_FDCWD, ".", 0, 0, &sx));
	CHECK(!(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT));
	CHECK_OK(mkdir("m/d", 0755));
	CHECK_OK(statx(AT_FDCWD, "m/d/..", 0, 0, &sx));
	CHECK(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT);
	CHECK_OK(statx(AT_FDCWD, "m/d", 0, 0, &sx));
	CHECK(!(sx.stx_attributes & STATX_ATTR_MOUNT_ROOT));
	/* fdinfo tells the same id. */
	char want[64], path[64];
	fd = open("m", O_RDONLY);
	snprintf(want, sizeof(want), "mnt_id:\t%llu\n",
		 (unsigned long long)mnt_id("m", STATX_MNT_ID));
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	CHECK(strstr(t_read(path), want));
}

TEST(mounts_files)
{
	char want[PATH_MAX + 200];
	struct stat st;

	own_namespace();
	CHECK_OK(mkdir("a b", 0755));
	CHECK_OK(mkdir("a b/#\\x", 0755));
	CHECK_OK(mount("s #\t\\x", "a b/#\\x", "tmpfs", MS_NOSUID | MS_NOEXEC | MS_NODIRATIME,
		       "size=1m,mode=0755"));
	CHECK_OK(stat("a b/#\\x", &st));
	snprintf(want, sizeof(want),
		 " 0:%u / %s/a\\040b/#\\134x rw,nosuid,noexec,nodiratime,relatime - tmpfs "
		 "s\\040\\043\\011\\134x rw,size=1024k,mode=755",
		 minor(st.st_dev), cwd());
	CHECK(strstr(line_in("/proc/self/mountinfo", "#\\134x"), want));
	snprintf(want, sizeof(want),
		 "s\\040\\043\\011\\134x %s/a\\040b/#\\134x tmpfs "
		 "rw,nosuid,noexec,nodiratime,relatime,size=1024k,mode=755",
		 cwd());
	CHECK(!strncmp(line_in("/proc/self/mounts", "#\\134x"), want, strlen(want)));
	CHECK(strstr(line_in("/proc/self/mounts", "#\\134x"), " 0 0"));
	snprintf(want, sizeof(want),
		 "device s\\040\\043\\011\\134x mounted on %s/a\\040b/#\\134x with fstype tmpfs",
		 cwd());
	CHECK_STR(line_in("/proc/self/mountstats", "#\\134x"), want);
	/* A mount of a directory that is no more. */
	CHECK_OK(mkdir("gone", 0755));
	CHECK_OK(mkdir("at", 0755));
	CHECK_OK(mount("gone", "at", NULL, MS_BIND, NULL));
	CHECK_OK(rmdir("gone"));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/at "), "gone//deleted "));
	/* No source is "none", an empty one is nothing. */
	CHECK_OK(mkdir("x", 0755));
	CHECK_OK(mkdir("y", 0755));
	CHECK_OK(mount(NULL, "x", "tmpfs", 0, NULL));
	CHECK_OK(mount("", "y", "tmpfs", 0, NULL));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/x "), " - tmpfs none rw"));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/y "), " - tmpfs  rw"));
}

TEST(mountinfo_optional_fields)
{
	own_namespace();
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_OK(mkdir("c", 0755));
	CHECK_OK(mount("tmp", "a", "tmpfs", 0, NULL));
	CHECK_OK(mount(NULL, "a", NULL, MS_SHARED, NULL));
	CHECK_OK(mount("a", "b", NULL, MS_BIND, NULL));
	CHECK_OK(mount(NULL, "b", NULL, MS_SLAVE, NULL));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/a "), " rw,relatime shared:"));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/b "), " rw,relatime master:"));
	CHECK_OK(mount(NULL, "b", NULL, MS_SHARED, NULL));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/b "), " rw,relatime shared:"));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/b "), " master:"));
	/* The master's peers are all out of sight once a is unmounted: the next master up is. */
	CHECK_OK(mount("b", "c", NULL, MS_BIND, NULL));
	CHECK_OK(mount(NULL, "c", NULL, MS_SLAVE, NULL));
	CHECK(!strstr(line_in("/proc/self/mountinfo", "/c "), "propagate_from"));
	CHECK_OK(mount(NULL, "a", NULL, MS_UNBINDABLE, NULL));
	CHECK(strstr(line_in("/proc/self/mountinfo", "/a "), " rw,relatime unbindable - "));
}

TEST(mountinfo_of_a_chroot)
{
	char line[512];

	own_namespace();
	CHECK_OK(mkdir("jail", 0755));
	CHECK_OK(mkdir("jail/proc", 0755));
	CHECK_OK(mkdir("jail/m", 0755));
	CHECK_OK(mount("proc", "jail/proc", "proc", 0, NULL));
	CHECK_OK(mount("tmp", "jail/m", "tmpfs", 0, NULL));
	CHECK_OK(chroot("jail"));
	CHECK_OK(chdir("/"));
	/* The jail itself is no mount: what is outside is not shown, nor is the root. */
	const char *all = t_read("/proc/self/mounts");
	int lines = 0;
	for (const char *p = all; (p = strchr(p, '\n')); p++)
		lines++;
	CHECK_EQ(lines, 2);
	snprintf(line, sizeof(line), "%s", line_in("/proc/self/mountinfo", " /m "));
	CHECK(strstr(line, " / /m rw,relatime - tmpfs tmp rw"));
}

static int changed(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN | POLLPRI};

	CHECK(poll(&p, 1, 0) >= 0);
	return p.revents;
}

TEST(poll_of_mounts)
{
	static const char *const files[] = {"/proc/self/mounts", "/proc/self/mountinfo"};

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	for (int i = 0; i < 2; i++) {
		int fd = open(files[i], O_RDONLY);

		CHECK_EQ(changed(fd), POLLIN);
		CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
		CHECK_EQ(changed(fd), POLLIN | POLLPRI | POLLERR);
		CHECK_EQ(changed(fd), POLLIN);
		CHECK_OK(umount("m"));
		CHECK_EQ(changed(fd), POLLIN | POLLPRI | POLLERR);
		CHECK_EQ(changed(fd), POLLIN);
		close(fd);
	}
	/* One that waits is woken. */
	int fd = open("/proc/self/mounts", O_RDONLY);
	pid_t pid = fork();

	if (pid == 0) {
		t_sleep_ms(100);
		CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
		_exit(0);
	}
	struct pollfd p = {.fd = fd, .events = POLLPRI};
	CHECK_EQ(poll(&p, 1, 5000), 1);
	CHECK_EQ(p.revents, POLLPRI | POLLERR);
	t_wait_ok(pid);
}
