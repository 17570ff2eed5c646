/*
 * tests/fs/virtiofs_daemon.c - our virtio-fs daemon by raw requests: remote locks, waiting and interrupts, umask and ACLs, submounts, setuid bits.
 *
 * The host's side is looked at with system calls.
 */
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>

#include <cmocka.h>

#include "tests/virtiofs_front.h"

#define WAITS 64 /* of the daemon, at a time */
#define NOT_YET_MS 50 /* an answer that must not come */

static char top[64], tree[80];
static struct front front;
static pid_t daemon_pid;

static const char *host_path(const char *name)
{
	static char path[2][160];
	static int turn;

	turn ^= 1;
	snprintf(path[turn], sizeof(path[turn]), "%s/%s", tree, name);
	return path[turn];
}

static int connect_new(void **state)
{
	(void)state;
	return front_spawn(&front, tree, &daemon_pid);
}

static int disconnect(void **state)
{
	int status;

	(void)state;
	front_close(&front);
	/* It ends by itself, and not by a signal. */
	return waitpid(daemon_pid, &status, 0) == daemon_pid && WIFEXITED(status) ? 0 : -1;
}

static void put_host(const char *name, const char *text)
{
	int fd = open(host_path(name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

static unsigned host_mode(const char *name)
{
	struct stat st;

	assert_int_equal(lstat(host_path(name), &st), 0);
	return st.st_mode & 07777;
}

/* ---- locks ---- */

struct locked {
	uint64_t node, fh;
};

static struct locked open_locked(const char *name)
{
	struct locked l;

	front_init(&front, FUSE_POSIX_LOCKS | FUSE_FLOCK_LOCKS);
	put_host(name, "0123456789");
	l.node = (uint64_t)front_lookup(&front, FUSE_ROOT, name, NULL);
	l.fh = (uint64_t)front_open(&front, l.node, O_RDWR, 0);
	assert_true((int64_t)l.node > 1 && (int64_t)l.fh >= 0);
	return l;
}

static struct front_slot *submit_lock(unsigned qi, uint32_t opcode, const struct locked *l,
				      uint64_t owner, uint32_t type, uint64_t start, uint64_t end,
				      uint32_t flags)
{
	const struct fuse_lk_in in = {.fh = l->fh,
				      .owner = owner,
				      .lk = {.start = start, .end = end, .type = type, .pid = 7},
				      .lk_flags = flags};
	const struct front_request r = {.opcode = opcode, .nodeid = l->node, .arg = &in};

	return front_submit(&front, qi, &r);
}

static int set_lock(const struct locked *l, uint64_t owner, uint32_t type, uint64_t start,
		    uint64_t end)
{
	struct front_slot *s = submit_lock(1, FUSE_SETLK, l, owner, type, start, end, 0);

	return (int)front_collect(&front, 1, s, NULL, 0);
}

static struct fuse_file_lock get_lock(const struct locked *l, uint64_t owner)
{
	struct fuse_lk_out out = {0};

	assert_int_equal(
		front_collect(&front, 1,
			      submit_lock(1, FUSE_GETLK, l, owner, F_WRLCK, 0, INT64_MAX, 0), &out,
			      sizeof(out)),
		sizeof(out));
	return out.lk;
}

static int host_lock(const char *name, short type)
{
	struct flock lk = {.l_type = type, .l_whence = SEEK_SET};
	int fd = open(host_path(name), O_RDWR | O_CLOEXEC), ret;

	assert_true(fd >= 0);
	ret = fcntl(fd, F_OFD_SETLK, &lk) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static void posix_locks(void **state)
{
	const struct locked l = open_locked("f");
	const struct fuse_flush_in flush = {.fh = l.fh, .lock_owner = 1};
	const struct front_request r = {.opcode = FUSE_FLUSH, .nodeid = l.node, .arg = &flush};
	struct fuse_file_lock lk;

	(void)state;
	assert_int_equal(set_lock(&l, 1, F_WRLCK, 10, 19), 0);
	assert_int_equal(set_lock(&l, 2, F_RDLCK, 0, 9), 0);
	assert_int_equal(set_lock(&l, 2, F_RDLCK, 19, 30), -EAGAIN);
	lk = get_lock(&l, 2);
	assert_int_equal(lk.type, F_WRLCK);
	assert_int_equal(lk.start, 10);
	assert_int_equal(lk.end, 19);
	assert_int_equal(get_lock(&l, 1).type, F_RDLCK);
	/* the host's programs see them */
	assert_int_equal(host_lock("f", F_WRLCK), -EAGAIN);
	/* a part let go, and the rest at a close by the same owner */
	assert_int_equal(set_lock(&l, 1, F_UNLCK, 15, 19), 0);
	assert_int_equal(get_lock(&l, 2).end, 14);
	assert_int_equal(front_call(&front, 1, &r, NULL, 0), 0);
	assert_int_equal(get_lock(&l, 2).type, F_UNLCK);
	assert_int_equal(set_lock(&l, 2, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(host_lock("f", F_WRLCK), 0);
	/* to the end of the file, wherever that is */
	assert_int_equal(set_lock(&l, 3, F_WRLCK, 5, INT64_MAX), 0);
	lk = get_lock(&l, 4);
	assert_int_equal(lk.end, INT64_MAX);
	assert_int_equal(set_lock(&l, 3, F_WRLCK, 9, 8), -EINVAL);
	assert_int_equal(set_lock(&l, 3, 9, 0, 8), -EINVAL);
	assert_int_equal(set_lock(&l, 5, F_UNLCK, 0, 8), 0);
}

static void waiting(void **state)
{
	const struct locked l = open_locked("f");
	struct front_slot *s;

	(void)state;
	assert_int_equal(set_lock(&l, 1, F_WRLCK, 0, 99), 0);
	s = submit_lock(1, FUSE_SETLKW, &l, 2, F_WRLCK, 50, 60, 0);
	assert_false(front_wait(&front, 1, s, NOT_YET_MS));
	/* Others behind it in the ring are served, the one that it waits for too. */
	assert_int_equal(get_lock(&l, 2).type, F_WRLCK);
	assert_int_equal(set_lock(&l, 1, F_UNLCK, 0, 99), 0);
	assert_int_equal(front_collect(&front, 1, s, NULL, 0), 0);
	assert_int_equal(get_lock(&l, 1).start, 50);
	/* What its owner gives up meanwhile does not take away what it waits for. */
	assert_int_equal(set_lock(&l, 3, F_WRLCK, 200, 210), 0);
	s = submit_lock(2, FUSE_SETLKW, &l, 3, F_WRLCK, 0, 99, 0);
	assert_false(front_wait(&front, 2, s, NOT_YET_MS));
	assert_int_equal(set_lock(&l, 3, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(get_lock(&l, 1).end, 60);
	assert_int_equal(set_lock(&l, 1, F_WRLCK, 200, 210), 0);
	assert_int_equal(set_lock(&l, 1, F_UNLCK, 200, 210), 0);
	assert_int_equal(set_lock(&l, 2, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(front_collect(&front, 2, s, NULL, 0), 0);
	assert_int_equal(get_lock(&l, 1).end, 99);
	assert_int_equal(set_lock(&l, 3, F_UNLCK, 0, INT64_MAX), 0);
	assert_int_equal(get_lock(&l, 1).type, F_UNLCK);
}

static int interrupt(uint64_t unique)
{
	const struct fuse_interrupt_in in = {.unique = unique};
	const struct front_request r = {.opcode = FUSE_INTERRUPT, .arg = &in};

	return (int)front_call(&front, 0, &r, NULL, 0);
}

static void interrupts(void **state)
{
	const struct locked l = open_locked("f");
	struct front_slot *s;

	(void)state;
	assert_int_equal(set_lock(&l, 1, F_WRLCK, 0, 99), 0);
	for (unsigned i = 0; i < 50; i++) {
		int err;

		s = submit_lock(1 + i % 2, FUSE_SETLKW, &l, 2, F_RDLCK, 0, 9, 0);
		/* Not known yet: asked again. */
		while ((err = interrupt(s->unique)) == -EAGAIN)
			usleep(100);
		assert_int_equal(err, 0);
		assert_int_equal(front_collect(&front, 1 + i % 2, s, NULL, 0), -EINTR);
	}
	assert_int_equal(interrupt(12345678), -EAGAIN);
	assert_int_equal(get_lock(&l, 2).start, 0);
	assert_int_equal(set_lock(&l, 1, F_UNLCK, 0, 99), 0);
}

static void flocks(void **state)
{
	const struct locked a = open_locked("f");
	struct locked b = a;
	struct front_slot *s;
	int fd;

	(void)state;
	b.fh = (uint64_t)front_open(&front, a.node, O_RDONLY, 0);
	s = submit_lock(1, FUSE_SETLK, &a, 1, F_WRLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
	assert_int_equal(front_collect(&front, 1, s, NULL, 0), 0);
	s = submit_lock(1, FUSE_SETLK, &b, 2, F_RDLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
	assert_int_equal(front_collect(&front, 1, s, NULL, 0), -EAGAIN);
	fd = open(host_path("f"), O_RDONLY | O_CLOEXEC);
	assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), -1);
	/* The two kinds do not know each other. */
	assert_int_equal(set_lock(&b, 2, F_WRLCK, 0, INT64_MAX), 0);
	s = submit_lock(1, FUSE_SETLKW, &b, 2, F_RDLCK, 0, INT64_MAX, FUSE_LK_FLOCK);
	assert_false(front_wait(&front, 1, s, NOT_YET_MS));
	assert_int_equal(front_collect(&front, 2,
				       submit_lock(2, FUSE_SETLK, &a, 1, F_UNLCK, 0, INT64_MAX,
						   FUSE_LK_FLOCK),
				       NULL, 0),
			 0);
	assert_int_equal(front_collect(&front, 1, s, NULL, 0), 0);
	assert_int_equal(flock(fd, LOCK_SH | LOCK_NB), 0);
	assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), -1);
	close(fd);
}

/* More that wait than there is room for; then the queue stops, and all of them are answered. */
static void many_waits(void **state)
{
	const struct locked l = open_locked("f");
	struct front_slot *s[WAITS];

	(void)state;
	assert_int_equal(set_lock(&l, 1, F_WRLCK, 0, 99), 0);
	for (unsigned i = 0; i < WAITS; i++)
		s[i] = submit_lock(2, FUSE_SETLKW, &l, 10 + i, F_WRLCK, 0, 9, 0);
	assert_int_equal(front_collect(&front, 2,
				       submit_lock(2, FUSE_SETLKW, &l, 9, F_WRLCK, 0, 9, 0), NULL,
				       0),
			 -ENOLCK);
	assert_int_equal(interrupt(s[3]->unique), 0);
	assert_int_equal(front_collect(&front, 2, s[3], NULL, 0), -EINTR);
	s[3] = submit_lock(2, FUSE_SETLKW, &l, 8, F_WRLCK, 0, 9, 0);
	assert_false(front_wait(&front, 2, s[3], NOT_YET_MS));
	assert_int_equal(front_queue_stop(&front, 2), front.q[2].submitted);
	for (unsigned i = 0; i < WAITS; i++)
		assert_int_equal(front_collect(&front, 2, s[i], NULL, 0), -EINTR);
	assert_int_equal(set_lock(&l, 1, F_UNLCK, 0, 99), 0);
	/* The end of the connection with some that wait, too: disconnect() sees it. */
	assert_int_equal(set_lock(&l, 1, F_WRLCK, 0, 99), 0);
	submit_lock(1, FUSE_SETLKW, &l, 2, F_WRLCK, 0, 9, 0);
}

/* ---- modes ---- */

static int create(uint64_t dir, const char *name, uint32_t mode, uint32_t mask)
{
	const struct fuse_create_in in = {
		.flags = O_CREAT | O_EXCL | O_WRONLY, .mode = mode | S_IFREG, .umask = mask};
	const struct front_request r = {.opcode = FUSE_CREATE,
					.nodeid = dir,
					.arg = &in,
					.name = {name},
					.uid = 5,
					.gid = 6};
	ssize_t got = front_call(&front, 1, &r, NULL, 0);

	return got < 0 ? (int)got : 0;
}

static int mkdir_as(uint64_t dir, const char *name, uint32_t mode, uint32_t mask)
{
	const struct fuse_mkdir_in in = {.mode = mode, .umask = mask};
	const struct front_request r = {.opcode = FUSE_MKDIR,
					.nodeid = dir,
					.arg = &in,
					.name = {name},
					.uid = 5,
					.gid = 6};
	ssize_t got = front_call(&front, 1, &r, NULL, 0);

	return got < 0 ? (int)got : 0;
}

static void umasks(void **state)
{
	struct stat st;

	(void)state;
	if (geteuid())
		skip();
	assert_true(front_init(&front, FUSE_DONT_MASK) & FUSE_DONT_MASK);
	assert_int_equal(create(FUSE_ROOT, "masked", 0666, 027), 0);
	assert_int_equal(host_mode("masked"), 0640);
	assert_int_equal(stat(host_path("masked"), &st), 0);
	assert_int_equal(st.st_uid, 5);
	assert_int_equal(st.st_gid, 6);
	assert_int_equal(create(FUSE_ROOT, "open", 0666, 0), 0);
	assert_int_equal(host_mode("open"), 0666);
	assert_int_equal(create(FUSE_ROOT, "setuid", 06755, 022), 0);
	assert_int_equal(host_mode("setuid"), 06755);
	assert_int_equal(mkdir_as(FUSE_ROOT, "dir", 01777, 022), 0);
	assert_int_equal(host_mode("dir"), 01755);
	/* A setgid directory gives its group, and to directories the bit. */
	assert_int_equal(mkdir(host_path("sg"), 0755), 0);
	assert_int_equal(chown(host_path("sg"), 0, 77), 0);
	assert_int_equal(chmod(host_path("sg"), 02755), 0);
	assert_int_equal(mkdir_as((uint64_t)front_lookup(&front, FUSE_ROOT, "sg", NULL), "in", 0777,
				  022),
			 0);
	assert_int_equal(host_mode("sg/in"), 02755);
	assert_int_equal(stat(host_path("sg/in"), &st), 0);
	assert_int_equal(st.st_gid, 77);
}

/* An ACL as its xattr has it. */
struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};
struct acl {
	uint32_t version;
	struct acl_entry e[5];
};
/* u::rwx u:9:rwx g::r-x m::rwx o::- */
static const struct acl default_acl = {
	2, {{1, 7, -1u}, {2, 7, 9}, {4, 5, -1u}, {0x10, 7, -1u}, {0x20, 0, -1u}}};

static int set_acl(uint64_t node, const char *which, const struct acl *acl, uint32_t flags)
{
	const struct fuse_setxattr_in in = {.size = sizeof(*acl), .setxattr_flags = flags};
	const struct front_request r = {.opcode = FUSE_SETXATTR,
					.nodeid = node,
					.arg = &in,
					.arg_size = sizeof(in),
					.name = {which},
					.data = acl,
					.data_size = sizeof(*acl)};

	return (int)front_call(&front, 1, &r, NULL, 0);
}

static void acls(void **state)
{
	const uint64_t wanted = FUSE_POSIX_ACL | FUSE_DONT_MASK | FUSE_SETXATTR_EXT;
	struct acl got;
	int64_t node;
	int err;

	(void)state;
	if (geteuid())
		skip();
	assert_true((front_init(&front, wanted) & wanted) == wanted);
	assert_int_equal(mkdir(host_path("acl"), 0755), 0);
	node = front_lookup(&front, FUSE_ROOT, "acl", NULL);
	err = set_acl((uint64_t)node, "system.posix_acl_default", &default_acl, 0);
	if (err == -EOPNOTSUPP)
		skip();
	assert_int_equal(err, 0);
	/* The default ACL stands in for the umask, and the mode takes from it. */
	assert_int_equal(create((uint64_t)node, "f", 0666, 077), 0);
	assert_int_equal(host_mode("acl/f"), 0660);
	assert_int_equal(getxattr(host_path("acl/f"), "system.posix_acl_access", &got, sizeof(got)),
			 sizeof(got));
	assert_int_equal(got.e[1].id, 9);
	assert_int_equal(got.e[3].perm, 6);
	assert_int_equal(mkdir_as((uint64_t)node, "d", 0777, 077), 0);
	assert_int_equal(host_mode("acl/d"), 0770);
	assert_int_equal(getxattr(host_path("acl/d"), "system.posix_acl_default", &got,
				  sizeof(got)),
			 sizeof(got));
	/* Set by one who is not in the group: setgid goes, where the client says so. */
	assert_int_equal(chmod(host_path("acl/f"), 02770), 0);
	node = front_lookup(&front, (uint64_t)node, "f", NULL);
	assert_int_equal(set_acl((uint64_t)node, "system.posix_acl_access", &default_acl, 0), 0);
	assert_int_equal(host_mode("acl/f"), 02770);
	assert_int_equal(set_acl((uint64_t)node, "system.posix_acl_access", &default_acl,
				 FUSE_SETXATTR_ACL_KILL_SGID),
			 0);
	assert_int_equal(host_mode("acl/f"), 0770);
}

static void set_special(void)
{
	assert_int_equal(chmod(host_path("suid"), 06755), 0);
}

static void setuid_goes(void **state)
{
	struct fuse_write_in write_in = {.size = 1, .write_flags = FUSE_WRITE_KILL_SUIDGID};
	struct fuse_setattr_in size = {.valid = FATTR_SIZE | FATTR_KILL_SUIDGID, .size = 1};
	struct front_request w = {
		.opcode = FUSE_WRITE, .arg = &write_in, .data = "x", .data_size = 1};
	struct front_request t = {.opcode = FUSE_SETATTR, .arg = &size};
	uint64_t node;

	(void)state;
	assert_true(front_init(&front, FUSE_HANDLE_KILLPRIV_V2) & FUSE_HANDLE_KILLPRIV_V2);
	put_host("suid", "abc");
	node = (uint64_t)front_lookup(&front, FUSE_ROOT, "suid", NULL);
	w.nodeid = t.nodeid = node;
	write_in.fh = (uint64_t)front_open(&front, node, O_RDWR, 0);
	set_special();
	assert_int_equal(front_call(&front, 1, &w, NULL, 0), sizeof(struct fuse_write_out));
	assert_int_equal(host_mode("suid"), 0755);
	set_special();
	assert_int_equal(front_call(&front, 1, &t, NULL, 0), sizeof(struct fuse_attr_out));
	assert_int_equal(host_mode("suid"), 0755);
	set_special();
	assert_true(front_open(&front, node, O_RDWR | O_TRUNC, FUSE_OPEN_KILL_SUIDGID) >= 0);
	assert_int_equal(host_mode("suid"), 0755);
	/* setgid without execution means something else, and stays */
	assert_int_equal(chmod(host_path("suid"), 02644), 0);
	assert_int_equal(front_call(&front, 1, &w, NULL, 0), sizeof(struct fuse_write_out));
	assert_int_equal(host_mode("suid"), 02644);
	/* and who has the privilege keeps them */
	if (geteuid() == 0) {
		set_special();
		write_in.write_flags = 0;
		assert_int_equal(front_call(&front, 1, &w, NULL, 0), sizeof(struct fuse_write_out));
		assert_int_equal(host_mode("suid"), 06755);
	}
}

static void submounts(void **state)
{
	struct fuse_entry_out e = {0};

	(void)state;
	if (geteuid())
		skip();
	assert_int_equal(mkdir(host_path("plain"), 0755), 0);
	/* Unless asked, nothing is told. */
	assert_false(front_init(&front, 0) & FUSE_SUBMOUNTS);
	assert_true(front_lookup(&front, FUSE_ROOT, "mounted", &e) > 0);
	assert_false(e.attr.flags & FUSE_ATTR_SUBMOUNT);
	assert_true(front_init(&front, FUSE_SUBMOUNTS) & FUSE_SUBMOUNTS);
	assert_true(front_lookup(&front, FUSE_ROOT, "mounted", &e) > 0);
	assert_true(e.attr.flags & FUSE_ATTR_SUBMOUNT);
	assert_true(front_lookup(&front, FUSE_ROOT, "plain", &e) > 0);
	assert_false(e.attr.flags & FUSE_ATTR_SUBMOUNT);
}

/* ---- walks ---- */

static struct fuse_walk_reply walked;

/* Return: what fuse_walk_check() makes of the reply to a path of `asked` names, or -errno; EINVAL if it is refused as a whole. */
static int walk(const char *path, unsigned asked, uint32_t flags, uint32_t open_flags)
{
	const struct fuse_walk_in in = {
		.flags = flags, .open_flags = open_flags, .mode = S_IFREG | 04666, .umask = 027};
	const struct front_request r = {
		.opcode = FUSE_MOAT_WALK, .nodeid = FUSE_ROOT, .arg = &in, .name = {path}};
	ssize_t got;

	memset(&walked, 0, sizeof(walked));
	got = front_call(&front, 1, &r, &walked, sizeof(walked));
	return got < 0 ? (int)got : fuse_walk_check(&walked, (size_t)got, asked, flags);
}

static int64_t size_of_node(uint64_t node)
{
	const struct fuse_getattr_in in = {0};
	const struct front_request r = {.opcode = FUSE_GETATTR, .nodeid = node, .arg = &in};
	struct fuse_attr_out out = {0};
	ssize_t got = front_call(&front, 1, &r, &out, sizeof(out));

	return got < 0 ? got : (int64_t)out.attr.size;
}

static void forget(uint64_t node, uint64_t nlookup)
{
	const struct fuse_forget_in in = {.nlookup = nlookup};
	const struct front_request r = {.opcode = FUSE_FORGET, .nodeid = node, .arg = &in};

	front_post(&front, 1, &r);
}

static void make_deep(void)
{
	assert_int_equal(mkdir(host_path("w"), 0755), 0);
	assert_int_equal(mkdir(host_path("w/x"), 0755), 0);
	put_host("w/x/f", "12345");
	put_host("secret", "not below w");
	assert_int_equal(symlink("x", host_path("w/link")), 0);
	assert_int_equal(symlink("/etc/passwd", host_path("w/x/away")), 0);
	assert_int_equal(mkfifo(host_path("w/x/fifo"), 0644), 0);
}

static void walks(void **state)
{
	const uint32_t both = FUSE_WALK_OPEN | FUSE_WALK_CREATE;
	uint64_t ids[3];

	(void)state;
	make_deep();
	/* Nobody is served who did not ask for it. */
	front_init(&front, 0);
	assert_int_equal(walk("w", 1, 0, 0), -ENOSYS);
	assert_true(front_init(&front, FUSE_HAS_MOAT_WALK) & FUSE_HAS_MOAT_WALK);
	assert_int_equal(walk("w/x/f", 3, 0, 0), 0);
	assert_int_equal(walked.out.count, 3);
	assert_int_equal(walked.entries[2].attr.size, 5);
	for (unsigned i = 0; i < 3; i++)
		ids[i] = walked.entries[i].nodeid;
	/* The same nodes as LOOKUP's, and each walk counts: as many FORGETs, and they are gone. */
	assert_int_equal(front_lookup(&front, FUSE_ROOT, "w", NULL), ids[0]);
	assert_int_equal(walk("w/x/f", 3, 0, 0), 0);
	for (unsigned i = 0; i < 3; i++) {
		forget(ids[i], i ? 1 : 2);
		assert_true(size_of_node(ids[i]) >= 0);
		forget(ids[i], 1);
		assert_int_equal(size_of_node(ids[i]), -ESTALE);
	}
	/* Where it ends: names that are not there, files, symlinks. */
	assert_int_equal(walk("w/y/f", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, 1);
	assert_int_equal(walked.out.error, -ENOENT);
	assert_int_equal(walk("w/x/f/g", 4, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, 3);
	assert_int_equal(walked.out.error, 0);
	assert_int_equal(walk("w/link/f", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, 2);
	assert_int_equal(walk("w/x/away", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.flags, 0);
	assert_int_equal(walk("w/x/fifo", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.flags, 0);
	/* Paths that are none: the names before are told, nothing is reached behind. */
	for (unsigned i = 0; i < 6; i++) {
		static const char *const bad[] = {"", "/etc", "..", ".", "../secret", "//"};

		assert_int_equal(walk(bad[i], 2, both, O_RDWR), -EINVAL);
	}
	assert_int_equal(walk("w/../secret", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, 1);
	assert_int_equal(walked.out.error, -EINVAL);
	assert_int_equal(walk("w/x/", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, 1);
	assert_int_equal(walk("w/./x", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, 1);
}

static void walks_open(void **state)
{
	const uint32_t both = FUSE_WALK_OPEN | FUSE_WALK_CREATE;
	char path[200] = "w";

	(void)state;
	front_init(&front, FUSE_HAS_MOAT_WALK | FUSE_DONT_MASK);
	assert_int_equal(walk("w/x/f", 3, FUSE_WALK_OPEN, O_RDONLY | O_TRUNC), 0);
	assert_int_equal(walked.out.flags, FUSE_WALK_OPENED);
	assert_int_equal(size_of_node(walked.entries[2].nodeid), 5);
	/* What is there is not made, whatever else is asked for. */
	assert_int_equal(walk("w/x/f", 3, both, O_RDWR | O_TRUNC), 0);
	assert_int_equal(walked.out.flags, FUSE_WALK_OPENED);
	assert_int_equal(size_of_node(walked.entries[2].nodeid), 5);
	assert_int_equal(walk("w/x/f", 3, FUSE_WALK_CREATE, O_RDWR), 0);
	assert_int_equal(walked.out.flags, 0);
	assert_int_equal(walk("w/x/new", 3, FUSE_WALK_OPEN, O_RDWR), 0);
	assert_int_equal(walked.out.error, -ENOENT);
	assert_int_equal(walk("w/x/new", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.flags, FUSE_WALK_OPENED | FUSE_WALK_CREATED);
	assert_int_equal(host_mode("w/x/new"), 04640);
	/* Only the last name is made. */
	assert_int_equal(walk("w/z/new", 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.error, -ENOENT);
	assert_int_equal(access(host_path("w/z"), F_OK), -1);
	/* As many entries as there is room for. */
	for (unsigned i = 0; i < FUSE_WALK_ENTRIES_MAX + 2; i++) {
		strcat(path, "/n");
		assert_int_equal(mkdir(host_path(path), 0755), 0);
	}
	assert_int_equal(walk(path, FUSE_WALK_ENTRIES_MAX + 3, both, O_RDWR), 0);
	assert_int_equal(walked.out.count, FUSE_WALK_ENTRIES_MAX);
	assert_int_equal(walked.out.error, 0);
	if (geteuid())
		return;
	/* Another file system's root ends it where these are told of. */
	put_host("mounted/f", "x");
	assert_int_equal(walk("mounted/f", 2, 0, 0), 0);
	assert_int_equal(walked.out.count, 2);
	front_init(&front, FUSE_HAS_MOAT_WALK | FUSE_SUBMOUNTS);
	assert_int_equal(walk("mounted/f", 2, 0, 0), 0);
	assert_int_equal(walked.out.count, 1);
	assert_true(walked.entries[0].attr.flags & FUSE_ATTR_SUBMOUNT);
}

/* ---- handles ---- */

/* A FORGET that overtakes RELEASE, as it may on a queue of its own, leaves no handle behind. */
static void forgotten_first(void **state)
{
	const struct fuse_forget_in one = {.nlookup = 1};
	struct fuse_release_in out = {0};
	struct fuse_read_in in = {.size = 1};
	const struct front_request forget = {.opcode = FUSE_FORGET, .arg = &one};
	const struct front_request release = {.opcode = FUSE_RELEASE, .arg = &out};
	const struct front_request read = {.opcode = FUSE_READ, .arg = &in};
	struct front_request r = forget;
	uint64_t node, other;
	char byte;

	(void)state;
	front_init(&front, 0);
	put_host("first", "x");
	put_host("other", "y");
	node = (uint64_t)front_lookup(&front, FUSE_ROOT, "first", NULL);
	other = (uint64_t)front_lookup(&front, FUSE_ROOT, "other", NULL);
	out.fh = in.fh = (uint64_t)front_open(&front, node, O_RDONLY, 0);
	r.nodeid = node;
	front_post(&front, 0, &r);
	/* Handles are looked for by their number alone: another node's request tells whether it is there. */
	r = read;
	r.nodeid = other;
	assert_int_equal(front_call(&front, 1, &r, &byte, 1), 1);
	r = release;
	r.nodeid = node;
	assert_int_equal(front_call(&front, 1, &r, NULL, 0), 0);
	r = read;
	r.nodeid = other;
	assert_int_equal(front_call(&front, 1, &r, &byte, 1), -EBADF);
}

/* ---- files without names ---- */

static ssize_t make_nameless(uint64_t dir, uint32_t flags, struct fuse_entry_out *ret_entry,
			     struct fuse_open_out *ret_open)
{
	/* What Linux sends: the name that its dentry has, and the flags of open(2). */
	const struct fuse_create_in in = {
		.flags = O_TMPFILE | flags, .mode = S_IFREG | S_ISUID | 0666, .umask = 027};
	const struct front_request r = {.opcode = FUSE_TMPFILE,
					.nodeid = dir,
					.arg = &in,
					.name = {"/"},
					.uid = 5,
					.gid = 6};
	struct {
		struct fuse_entry_out entry;
		struct fuse_open_out open;
	} reply;
	ssize_t got = front_call(&front, 1, &r, &reply, sizeof(reply));

	if (got < 0)
		return got;
	assert_int_equal(got, sizeof(reply));
	*ret_entry = reply.entry;
	*ret_open = reply.open;
	return 0;
}

static int name_it(uint64_t node, const char *name)
{
	const struct fuse_link_in in = {.oldnodeid = node};
	const struct front_request r = {
		.opcode = FUSE_LINK, .nodeid = FUSE_ROOT, .arg = &in, .name = {name}};
	ssize_t got = front_call(&front, 1, &r, NULL, 0);

	return got < 0 ? (int)got : 0;
}

/* TMPFILE: the caller's, with the mode that was asked for; LINK names it, unless it was opened with O_EXCL. */
static void nameless(void **state)
{
	struct fuse_read_in in = {.size = 1};
	struct front_request r = {.opcode = FUSE_READ, .arg = &in};
	struct fuse_entry_out entry;
	struct fuse_open_out opened;
	struct stat st;
	char byte;

	(void)state;
	front_init(&front, 0);
	put_host("dir-or-not", "x");
	assert_int_equal(
		make_nameless((uint64_t)front_lookup(&front, FUSE_ROOT, "dir-or-not", NULL), O_RDWR,
			      &entry, &opened),
		-ENOTDIR);
	assert_int_equal(make_nameless(FUSE_ROOT, O_RDONLY, &entry, &opened), -EINVAL);
	assert_int_equal(make_nameless(FUSE_ROOT, O_RDWR, &entry, &opened), 0);
	assert_int_equal(entry.attr.nlink, 0);
	assert_int_equal(entry.attr.mode, S_IFREG | S_ISUID | 0640);
	assert_int_equal(entry.attr.uid, 5);
	assert_int_equal(entry.attr.gid, 6);
	r.nodeid = entry.nodeid;
	in.fh = opened.fh;
	assert_int_equal(front_call(&front, 1, &r, &byte, 1), 0);
	assert_int_equal(name_it(entry.nodeid, "named"), 0);
	assert_int_equal(stat(host_path("named"), &st), 0);
	assert_int_equal(st.st_ino, entry.attr.ino);
	assert_int_equal(st.st_nlink, 1);
	assert_int_equal(st.st_mode, S_IFREG | S_ISUID | 0640);
	assert_int_equal(make_nameless(FUSE_ROOT, O_WRONLY | O_EXCL, &entry, &opened), 0);
	assert_int_equal(name_it(entry.nodeid, "never"), -ENOENT);
	assert_int_equal(stat(host_path("never"), &st), -1);
}

/* ---- the connection ---- */

/* A kick descriptor that is readable for ever, and has nothing: the queue's thread ends the connection, and does not look at it again and again. */
static void dead_kick(void **state)
{
	struct pollfd p = {.fd = front.sock, .events = POLLRDHUP};
	int sv[2];

	(void)state;
	(void)front_queue_stop(&front, 1);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	front_set(&front, VHOST_USER_SET_VRING_KICK, 1, sv[1]);
	front_set(&front, VHOST_USER_SET_VRING_ENABLE, front_state(1, 1), -1);
	close(sv[1]);
	assert_int_equal(poll(&p, 1, 200), 0);
	close(sv[0]);
	assert_int_equal(poll(&p, 1, FRONT_WAIT_MS), 1);
}

/* ---- the whole ---- */

/* Before there is anybody else: a tree, and a file system mounted in it that only we and the daemon see. */
static int make_tree(void)
{
	const char *tmp = getenv("TMPDIR");

	snprintf(top, sizeof(top), "%.40s/moat-daemon.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(top))
		return -1;
	snprintf(tree, sizeof(tree), "%s/tree", top);
	if (mkdir(tree, 0755) < 0 || mkdir(host_path("mounted"), 0755) < 0)
		return -1;
	if (geteuid())
		return 0;
	return unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0
		       ? -1
		       : mount("tmpfs", host_path("mounted"), "tmpfs", 0, NULL);
}

static int remove_tree(void)
{
	char cmd[128];

	(void)umount2(host_path("mounted"), MNT_DETACH);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

#define T(name) cmocka_unit_test_setup_teardown(name, connect_new, disconnect)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(posix_locks), T(waiting),   T(interrupts), T(flocks),
		T(many_waits),	T(umasks),    T(acls),	     T(setuid_goes),
		T(submounts),	T(walks),     T(walks_open), T(forgotten_first),
		T(nameless),	T(dead_kick),
	};
	int failed;

	if (make_tree()) {
		perror("the tree");
		return 1;
	}
	failed = cmocka_run_group_tests(tests, NULL, NULL);
	return remove_tree() || failed;
}
