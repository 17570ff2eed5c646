/* Credentials: ids, groups, capabilities, securebits, no_new_privs. */
#include "t.h"

#include <linux/capability.h>
#include <linux/securebits.h>

static int capget(uint64_t *eff, uint64_t *perm, uint64_t *inh)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2];

	if (syscall(SYS_capget, &h, d))
		return -1;
	*eff = d[0].effective | (uint64_t)d[1].effective << 32;
	*perm = d[0].permitted | (uint64_t)d[1].permitted << 32;
	*inh = d[0].inheritable | (uint64_t)d[1].inheritable << 32;
	return 0;
}

static int capset(uint64_t eff, uint64_t perm, uint64_t inh)
{
	struct __user_cap_header_struct h = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct d[2] = {{(uint32_t)eff, (uint32_t)perm, (uint32_t)inh},
					      {(uint32_t)(eff >> 32), (uint32_t)(perm >> 32),
					       (uint32_t)(inh >> 32)}};

	return (int)syscall(SYS_capset, &h, d);
}

TEST(ids_of_root)
{
	uid_t r, e, s;

	CHECK_EQ(getuid(), 0);
	CHECK_OK(setresuid(1, 2, 3));
	CHECK_OK(getresuid(&r, &e, &s));
	CHECK(r == 1 && e == 2 && s == 3);
	/* Now ordinary: only among these three. */
	CHECK_ERR(setresuid(4, -1, -1), EPERM);
	CHECK_OK(setresuid(-1, 3, -1));
	CHECK_EQ(geteuid(), 3);
	CHECK_OK(seteuid(1));
	CHECK_ERR(setuid(5), EPERM);
	CHECK_OK(setuid(3));
	CHECK_OK(getresuid(&r, &e, &s));
	CHECK(r == 1 && e == 3 && s == 3);
}

TEST(setuid_of_root_sets_all)
{
	uid_t r, e, s;
	gid_t gr, ge, gs;

	CHECK_OK(setgid(1001));
	CHECK_OK(getresgid(&gr, &ge, &gs));
	CHECK(gr == 1001 && ge == 1001 && gs == 1001);
	CHECK_OK(setuid(1000));
	CHECK_OK(getresuid(&r, &e, &s));
	CHECK(r == 1000 && e == 1000 && s == 1000);
	CHECK_ERR(setuid(0), EPERM);
	CHECK_ERR(setgid(0), EPERM);
}

TEST(setreuid)
{
	uid_t r, e, s;

	CHECK_OK(setreuid(1000, 2000));
	CHECK_OK(getresuid(&r, &e, &s));
	/* Setting the real id, or the effective one to something else, sets the saved one. */
	CHECK(r == 1000 && e == 2000 && s == 2000);
	CHECK_OK(setreuid(2000, 1000));
	CHECK_OK(getresuid(&r, &e, &s));
	CHECK(r == 2000 && e == 1000 && s == 1000);
	CHECK_ERR(setreuid(0, -1), EPERM);
	CHECK_OK(setreuid(-1, -1));
}

TEST(saved_id_brings_root_back)
{
	uint64_t eff, perm, inh;

	CHECK_OK(seteuid(1000));
	CHECK_OK(capget(&eff, &perm, &inh));
	CHECK_EQ(eff, 0);
	CHECK(perm != 0);
	CHECK_ERR(chroot("."), EPERM);
	CHECK_OK(seteuid(0));
	CHECK_OK(capget(&eff, &perm, &inh));
	CHECK(eff != 0);
	CHECK_OK(setresuid(1000, 1000, 1000));
	CHECK_OK(capget(&eff, &perm, &inh));
	CHECK_EQ(eff | perm, 0);
	CHECK_ERR(seteuid(0), EPERM);
}

TEST(groups)
{
	gid_t groups[4] = {30, 10, 20, 10}, got[8];

	CHECK_OK(syscall(SYS_setgroups, 4, groups));
	CHECK_EQ(getgroups(0, NULL), 4);
	CHECK_EQ(getgroups(8, got), 4);
	CHECK_ERR(getgroups(2, got), EINVAL);
	CHECK_ERR(syscall(SYS_setgroups, 100000, groups), EINVAL);
	CHECK_OK(setresuid(1000, 1000, 1000));
	CHECK_ERR(syscall(SYS_setgroups, 1, groups), EPERM);
}

TEST(fsuid)
{
	struct stat st;

	CHECK_EQ(syscall(SYS_setfsuid, 1000), 0);
	CHECK_EQ(syscall(SYS_setfsgid, 1001), 0);
	CHECK_EQ(syscall(SYS_setfsuid, -1), 1000);
	/* The directory is root's: only root, or the id that owns it, writes there. */
	CHECK_ERR(open("f", O_CREAT | O_RDWR, 0600), EACCES);
	CHECK_EQ(geteuid(), 0);
	CHECK_EQ(syscall(SYS_setfsuid, 0), 1000);
	CHECK_OK(open("f", O_CREAT | O_RDWR, 0600));
	CHECK_OK(stat("f", &st));
	CHECK_EQ(st.st_gid, 1001);
}

TEST(capabilities_drop)
{
	uint64_t eff, perm, inh, chown_cap = 1ull << CAP_CHOWN;

	CHECK_OK(capget(&eff, &perm, &inh));
	if (!(perm & chown_cap))
		SKIP("no CAP_CHOWN to begin with");
	close(t_file("f", ""));
	CHECK_OK(chown("f", 5, 5));
	CHECK_OK(capset(eff & ~chown_cap, perm, 0));
	CHECK_ERR(chown("f", 6, 6), EPERM);
	CHECK_OK(capset(eff, perm, 0));
	CHECK_OK(chown("f", 6, 6));
	CHECK_OK(capset(eff & ~chown_cap, perm & ~chown_cap, 0));
	CHECK_ERR(capset(eff, perm, 0), EPERM);
	CHECK_ERR(capset(eff, perm & ~chown_cap, 0), EPERM);
	CHECK_OK(capget(&eff, &perm, &inh));
	CHECK_EQ((eff | perm) & chown_cap, 0);
}

TEST(capability_versions)
{
	struct __user_cap_header_struct h = {0x12345678, 0};
	struct __user_cap_data_struct d[2];

	CHECK_ERR(syscall(SYS_capget, &h, d), EINVAL);
	CHECK_EQ(h.version, _LINUX_CAPABILITY_VERSION_3);
	CHECK_OK(syscall(SYS_capget, &h, NULL));
	h.pid = 0x7fffff;
	CHECK_ERR(syscall(SYS_capget, &h, d), ESRCH);
	h.pid = -1;
	CHECK_ERR(syscall(SYS_capget, &h, d), EINVAL);
}

TEST(keep_capabilities)
{
	uint64_t eff, perm, inh;

	CHECK_EQ(prctl(PR_GET_KEEPCAPS), 0);
	CHECK_OK(prctl(PR_SET_KEEPCAPS, 1));
	CHECK_OK(setresuid(1000, 1000, 1000));
	CHECK_OK(capget(&eff, &perm, &inh));
	CHECK_EQ(eff, 0);
	CHECK(perm != 0);
	CHECK_OK(capset(perm, perm, 0));
	CHECK_OK(setresuid(2000, 2000, 2000));
}

TEST(bounding_and_ambient)
{
	uint64_t eff, perm, inh;

	CHECK_OK(capget(&eff, &perm, &inh));
	CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 1);
	CHECK_ERR(prctl(PR_CAPBSET_READ, 99), EINVAL);
	CHECK_ERR(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0), EPERM);
	CHECK_OK(capset(eff, perm, 1ull << CAP_CHOWN));
	CHECK_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_CHOWN, 0, 0));
	CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 1);
	CHECK_OK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	CHECK_EQ(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_CHOWN, 0, 0), 0);
	if (perm & (1ull << CAP_SETPCAP)) {
		CHECK_OK(prctl(PR_CAPBSET_DROP, CAP_CHOWN));
		CHECK_EQ(prctl(PR_CAPBSET_READ, CAP_CHOWN), 0);
	}
}

TEST(no_new_privs)
{
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 0);
	CHECK_ERR(prctl(PR_SET_NO_NEW_PRIVS, 2, 0, 0, 0), EINVAL);
	CHECK_OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	CHECK_EQ(prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), 1);
	CHECK_ERR(prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0), EINVAL);
}

static void shows(void *arg)
{
	(void)arg;
	t_become(1000, 1001);
	CHECK(strstr(t_read("/proc/self/status"), "Uid:\t1000\t1000\t1000\t1000\n"));
	CHECK(strstr(t_read("/proc/self/status"), "Gid:\t1001\t1001\t1001\t1001\n"));
	CHECK(strstr(t_read("/proc/self/status"), "CapEff:\t0000000000000000\n"));
}

TEST(in_proc_status)
{
	t_wait_ok(t_spawn(shows, NULL));
}

/* After its ids changed a process is not dumpable, and its /proc belongs to root. */
TEST(dumpable)
{
	CHECK_EQ(prctl(PR_GET_DUMPABLE), 1);
	CHECK_OK(prctl(PR_SET_DUMPABLE, 0));
	CHECK_EQ(prctl(PR_GET_DUMPABLE), 0);
	CHECK_ERR(prctl(PR_SET_DUMPABLE, 2), EINVAL);
	CHECK_OK(prctl(PR_SET_DUMPABLE, 1));
	CHECK_OK(setresuid(1000, 1000, 1000));
	CHECK(prctl(PR_GET_DUMPABLE) != 1);
}
