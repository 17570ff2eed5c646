/* Namespaces by descriptor: setns by files of /proc/PID/ns, by pidfds and by bind mounts; what ioctl(2) says of them. */
#include "t.h"

#include <sys/ioctl.h>
#include <sys/statfs.h>

#include "mounts.h"

static ino_t ns_ino(const char *what)
{
	struct stat st;

	CHECK_OK(stat(what, &st));
	return st.st_ino;
}

TEST(setns_mount)
{
	int back, there;
	pid_t pid;
	int pipefd[2];
	char c, path[64];

	own_namespace();
	CHECK_OK(mkdir("m", 0755));
	back = open("/proc/self/ns/mnt", O_RDONLY);
	CHECK(back >= 0);
	CHECK_OK(pipe(pipefd));
	pid = fork();
	if (pid == 0) {
		CHECK_OK(unshare(CLONE_NEWNS));
		CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
		close(t_file("m/f", "theirs"));
		CHECK_EQ(write(pipefd[1], "x", 1), 1);
		pause();
	}
	CHECK_EQ(read(pipefd[0], &c, 1), 1);
	snprintf(path, sizeof(path), "/proc/%d/ns/mnt", pid);
	CHECK(ns_ino(path) != ns_ino("/proc/self/ns/mnt"));
	there = open(path, O_RDONLY);
	CHECK_OK(access("m", F_OK));
	CHECK_ERR(access("m/f", F_OK), ENOENT);
	CHECK_ERR(setns(there, CLONE_NEWUTS), EINVAL);
	char cwd[PATH_MAX];
	CHECK(getcwd(cwd, sizeof(cwd)));
	CHECK_OK(setns(there, CLONE_NEWNS));
	CHECK_EQ(ns_ino("/proc/self/ns/mnt"), ns_ino(path));
	/* The working directory is the root of the namespace now. */
	char now[PATH_MAX];
	CHECK_STR(getcwd(now, sizeof(now)), "/");
	CHECK_OK(chdir(cwd));
	CHECK_STR(t_read("m/f"), "theirs");
	CHECK_OK(setns(back, 0));
	CHECK_OK(chdir(cwd));
	CHECK_ERR(access("m/f", F_OK), ENOENT);
	CHECK_ERR(setns(0, 0) == -1 && errno == EINVAL ? -1 : 0, EINVAL);
	CHECK_ERR(setns(999, 0), EBADF);
	kill(pid, SIGKILL);
	t_wait_status(pid);
	/* A namespace lives while a descriptor holds it. */
	CHECK_OK(setns(there, 0));
	CHECK_OK(chdir(cwd));
	CHECK_STR(t_read("m/f"), "theirs");
}

TEST(setns_pidfd)
{
	char name[65];
	int pipefd[2], pidfd;
	pid_t pid;
	char c;

	own_namespace();
	CHECK_OK(pipe(pipefd));
	pid = fork();
	if (pid == 0) {
		CHECK_OK(unshare(CLONE_NEWNS | CLONE_NEWUTS));
		CHECK_OK(sethostname("other", 5));
		CHECK_OK(mount("tmp", "/tmp", "tmpfs", 0, NULL));
		close(t_file("/tmp/f", "theirs"));
		CHECK_EQ(write(pipefd[1], "x", 1), 1);
		pause();
	}
	CHECK_EQ(read(pipefd[0], &c, 1), 1);
	pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(pidfd >= 0);
	CHECK_ERR(setns(pidfd, 0), EINVAL);
	CHECK_ERR(setns(pidfd, 1), EINVAL);
	CHECK_ERR(setns(pidfd, CLONE_NEWUSER), EINVAL);
	CHECK_OK(setns(pidfd, CLONE_NEWUTS));
	CHECK_OK(gethostname(name, sizeof(name)));
	CHECK_STR(name, "other");
	CHECK_OK(setns(pidfd, CLONE_NEWUTS | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWCGROUP));
	CHECK_STR(t_read("/tmp/f"), "theirs");
	kill(pid, SIGKILL);
	t_wait_status(pid);
	CHECK_ERR(setns(pidfd, CLONE_NEWUTS), ESRCH);
}

TEST(setns_needs_capabilities)
{
	int fd, uts, user;

	own_namespace();
	fd = open("/proc/self/ns/mnt", O_RDONLY);
	uts = open("/proc/self/ns/uts", O_RDONLY);
	user = open("/proc/self/ns/user", O_RDONLY);
	CHECK(fd >= 0 && uts >= 0 && user >= 0);
	CHECK_OK(setns(uts, CLONE_NEWUTS));
	CHECK_OK(setns(fd, CLONE_NEWNS));
	CHECK_ERR(setns(user, CLONE_NEWUSER), EINVAL);
	CHECK_ERR(open("/proc/self/ns/mnt", O_RDWR), EPERM);
	t_become(1000, 1000);
	CHECK_ERR(setns(fd, 0), EPERM);
	CHECK_ERR(setns(uts, 0), EPERM);
	CHECK_ERR(setns(user, 0), EINVAL);
	CHECK_ERR(unshare(CLONE_NEWNS), EPERM);
	CHECK_ERR(unshare(CLONE_NEWUTS), EPERM);
}

#define NS_NSTYPE _IO(0xb7, 3)
#define NS_USERNS _IO(0xb7, 1)
#define NS_OWNER_UID _IO(0xb7, 4)
#define NS_MNTNS_ID _IOR(0xb7, 5, uint64_t)
struct ns_info {
	uint32_t size, mounts;
	uint64_t id;
};
#define NS_MNT_INFO _IOR(0xb7, 10, struct ns_info)

TEST(ns_ioctls)
{
	struct ns_info info = {0};
	uint64_t id = 0;
	uid_t uid = 7;
	int fd, user;

	own_namespace();
	fd = open("/proc/self/ns/mnt", O_RDONLY);
	CHECK_EQ(ioctl(fd, NS_NSTYPE), CLONE_NEWNS);
	CHECK_ERR(ioctl(fd, NS_OWNER_UID, &uid), EINVAL);
	CHECK_OK(ioctl(fd, NS_MNTNS_ID, &id));
	CHECK(id != 0);
	info.size = sizeof(info);
	CHECK_OK(ioctl(fd, NS_MNT_INFO, &info));
	CHECK_EQ(info.id, id);
	CHECK_EQ(info.size, 16);
	int before = (int)info.mounts;
	CHECK_OK(mkdir("m", 0755));
	CHECK_OK(mount("tmp", "m", "tmpfs", 0, NULL));
	CHECK_OK(ioctl(fd, NS_MNT_INFO, &info));
	CHECK_EQ(info.mounts, before + 1);
	user = ioctl(fd, NS_USERNS);
	CHECK(user >= 0);
	CHECK_EQ(ioctl(user, NS_NSTYPE), CLONE_NEWUSER);
	CHECK_OK(ioctl(user, NS_OWNER_UID, &uid));
	CHECK_EQ(uid, 0);
	CHECK_ERR(ioctl(user, NS_MNTNS_ID, &id), EINVAL);
	CHECK_ERR(ioctl(fd, _IO(0xb7, 99)), ENOTTY);
	struct statfs sf;
	CHECK_OK(fstatfs(fd, &sf));
	CHECK_EQ(sf.f_type, 0x6e736673);
	char c;
	CHECK_ERR(read(fd, &c, 1), EINVAL);
}

TEST(namespace_files_bound)
{
	struct stat a, b;
	int fd;

	own_namespace();
	close(t_file("uts", ""));
	close(t_file("mnt", ""));
	CHECK_OK(mount("/proc/self/ns/uts", "uts", NULL, MS_BIND, NULL));
	CHECK_OK(stat("uts", &a));
	CHECK_OK(stat("/proc/self/ns/uts", &b));
	CHECK_EQ(a.st_ino, b.st_ino);
	CHECK_EQ(a.st_dev, b.st_dev);
	fd = open("uts", O_RDONLY);
	CHECK_OK(setns(fd, CLONE_NEWUTS));
	close(fd);
	CHECK(strstr(line_of("/uts "), " - nsfs nsfs rw"));
	/* A namespace of mounts does not hold itself. */
	CHECK_ERR(mount("/proc/self/ns/mnt", "mnt", NULL, MS_BIND, NULL), EINVAL);
	CHECK_OK(umount("uts"));
}
