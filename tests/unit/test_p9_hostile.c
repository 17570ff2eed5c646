// LINK: moat_gofer moat_wire seccomp
/*
 * A hostile client of the gofer, which speaks raw 9P: names that lead out, what may not be opened, more fids and descriptors
 * than there are, values that would fill the memory, and a host that renames while it walks. HOSTILE_SECONDS (1): how long that races.
 */
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <cmocka.h>

#include "tests/gofer_process.h"
#include "wire/p9.h"

#define ROOT 1u
#define RENAME_FLAG_EXCHANGE 2

static char top[64], dir[80];
static int sock;
static pid_t gofer;
static uint8_t tx[P9_MSIZE_DEFAULT], rx[P9_MSIZE_DEFAULT];

/* Sends t and reads the reply into *r, whose descriptor, if one came, is in *ret_fd (NULL: none is wanted). Return: 0 or the server's -errno. */
static int rpc_fd(struct p9_msg *t, struct p9_msg *r, int *ret_fd)
{
	union {
		struct cmsghdr hdr;
		char buf[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {rx, sizeof(rx)};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	size_t size, got;
	ssize_t n;
	uint32_t whole;
	int fd = -1;

	t->tag = t->type == P9_Tversion ? P9_NOTAG : 7;
	assert_int_equal(p9_encode(t, tx, sizeof(tx), &size), 0);
	assert_int_equal(send(sock, tx, size, MSG_NOSIGNAL), size);
	msg.msg_control = &control;
	msg.msg_controllen = sizeof(control.buf);
	n = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	assert_true(n > 4);
	got = (size_t)n;
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	assert_int_equal(p9_frame_size(rx, got, sizeof(rx), &whole), 0);
	while (got < whole) {
		n = recv(sock, rx + got, whole - got, 0);
		assert_true(n > 0);
		got += (size_t)n;
	}
	assert_int_equal(p9_decode(rx, got, r), 0);
	assert_int_equal(r->tag, t->tag);
	if (ret_fd)
		*ret_fd = fd;
	else
		assert_int_equal(fd, -1);
	if (r->type == P9_Rlerror)
		return -(int)r->Rlerror.ecode;
	assert_int_equal(r->type, t->type + 1);
	return 0;
}

static int rpc(struct p9_msg *t)
{
	struct p9_msg r;

	return rpc_fd(t, &r, NULL);
}

static int walk1(uint32_t fid, uint32_t newfid, const char *name, size_t len)
{
	struct p9_msg t = {.type = P9_Twalk};

	t.Twalk.fid = fid;
	t.Twalk.newfid = newfid;
	t.Twalk.names.count = name ? 1 : 0;
	t.Twalk.names.name[0] = (struct p9_str){name, (uint16_t)len};
	return rpc(&t);
}

static int clunk(uint32_t fid)
{
	struct p9_msg t = {.type = P9_Tclunk};

	t.Tclunk.fid = fid;
	return rpc(&t);
}

static const char *path_of(const char *name)
{
	static char buf[4][160];
	static unsigned i;

	i = (i + 1) % 4;
	snprintf(buf[i], sizeof(buf[i]), "%s/%s", top, name);
	return buf[i];
}

static void put(const char *name, const char *text)
{
	int fd = open(path_of(name), O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
	close(fd);
}

/* A gofer of dir with at most `files` descriptors, attached at ROOT. */
static void start(rlim_t files)
{
	struct p9_msg t = {.type = P9_Tversion};
	struct rlimit old, few;
	int sv[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	few = old;
	few.rlim_cur = files < old.rlim_max ? files : old.rlim_max;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
	assert_int_equal(gofer_process_start(dir, sv[1], &gofer), 0);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	close(sv[1]);
	sock = sv[0];
	t.Tversion.msize = P9_MSIZE_DEFAULT;
	t.Tversion.version = p9_str(P9_VERSION_MOAT);
	assert_int_equal(rpc(&t), 0);
	t = (struct p9_msg){.type = P9_Tattach};
	t.Tattach.fid = ROOT;
	t.Tattach.afid = P9_NOFID;
	t.Tattach.aname = p9_str("0");
	t.Tattach.uname = p9_str("");
	assert_int_equal(rpc(&t), 0);
}

/* It ends by itself, in order. */
static void stop(void)
{
	int status;

	close(sock);
	assert_int_equal(waitpid(gofer, &status, 0), gofer);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(top, "/tmp/p9hostile.XXXXXX");
	assert_non_null(mkdtemp(top));
	chmod(top, 0755);
	snprintf(dir, sizeof(dir), "%s/in", top);
	assert_int_equal(mkdir(dir, 0755), 0);
	assert_int_equal(mkdir(path_of("in/d"), 0755), 0);
	assert_int_equal(mkdir(path_of("out"), 0755), 0);
	put("secret", "outside");
	put("out/secret", "outside");
	put("in/d/secret", "in");
	put("in/f", "in");
	assert_int_equal(symlink("..", path_of("in/up")), 0);
	assert_int_equal(symlink("/proc/self/root", path_of("in/magic")), 0);
	assert_int_equal(symlink(top, path_of("in/abs")), 0);
	assert_int_equal(mkfifo(path_of("in/fifo"), 0666), 0);
	return 0;
}

static int tear_down(void **state)
{
	char cmd[128];

	(void)state;
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd);
}

static struct p9_msg compound_walk(const char *path, size_t len)
{
	struct p9_msg t = {.type = P9_Tmwalk};

	t.Tmwalk.fid = ROOT;
	t.Tmwalk.newfid = P9_NOFID;
	t.Tmwalk.path = (struct p9_str){path, (uint16_t)len};
	return t;
}

static void names_that_lead_out(void **state)
{
	static const struct {
		const char *name;
		size_t len;
	} bad[] = {{"..", 2},	   {".", 1},	{"", 0},	  {"d/..", 4},		 {"/", 1},
		   {"/secret", 7}, {"a\0b", 3}, {"d//secret", 9}, {"d/../../secret", 14}};
	struct p9_msg t, r;

	(void)state;
	start(RLIM_INFINITY);
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		const struct p9_str s = {bad[i].name, (uint16_t)bad[i].len};

		/* Plain walks may say these: where they lead is the next test's. */
		if (strcmp(s.data, "..") != 0 && strcmp(s.data, ".") != 0)
			assert_true(walk1(ROOT, 5, s.data, s.len) < 0);
		t = (struct p9_msg){.type = P9_Tmkdir};
		t.Tmkdir = (struct p9_Tmkdir){ROOT, s, 0755, 0};
		assert_true(rpc(&t) < 0);
		t = (struct p9_msg){.type = P9_Trenameat};
		t.Trenameat = (struct p9_Trenameat){ROOT, p9_str("f"), ROOT, s};
		assert_true(rpc(&t) < 0);
		t = (struct p9_msg){.type = P9_Tunlinkat};
		t.Tunlinkat = (struct p9_Tunlinkat){ROOT, s, 0x200};
		assert_true(rpc(&t) < 0);
		if (!s.len)
			continue;
		t = compound_walk(s.data, s.len);
		assert_int_equal(rpc(&t), -EINVAL);
		/* Known or not makes no difference. */
		t.Tmwalk.skip = 1;
		assert_int_equal(rpc(&t), -EINVAL);
	}
	/* Symbolic links are told, never followed. */
	for (unsigned i = 0; i < 3; i++) {
		static const char *const paths[] = {"up/secret", "abs/secret", "magic/etc/passwd"};

		t = compound_walk(paths[i], strlen(paths[i]));
		assert_int_equal(rpc_fd(&t, &r, NULL), 0);
		assert_int_equal(r.Rmwalk.nodes.count, 1);
		assert_true(r.Rmwalk.target.len > 0);
		t.Tmwalk.skip = 1;
		assert_true(rpc_fd(&t, &r, NULL) < 0 || (r.Rmwalk.err && !r.Rmwalk.nodes.count));
	}
	stop();
}

/* Where a plain walk's ".." from fid leads; 0: nowhere. */
static uint64_t parent_of(uint32_t fid)
{
	struct p9_msg t = {.type = P9_Tgetattr}, r;

	if (walk1(fid, 5, "..", 2))
		return 0;
	t.Tgetattr.fid = 5;
	t.Tgetattr.mask = P9_GETATTR_BASIC;
	assert_int_equal(rpc_fd(&t, &r, NULL), 0);
	assert_int_equal(clunk(5), 0);
	return r.Rgetattr.qid.path;
}

/* The root is its own parent, and a directory that the host has moved out of the tree has none. */
static void parents(void **state)
{
	struct stat st;

	(void)state;
	start(RLIM_INFINITY);
	assert_int_equal(stat(dir, &st), 0);
	assert_int_equal(parent_of(ROOT), st.st_ino);
	assert_int_equal(walk1(ROOT, 6, "d", 1), 0);
	assert_int_equal(parent_of(6), st.st_ino);
	assert_int_equal(rename(path_of("in/d"), path_of("away")), 0);
	/* Linux sees to it below the gofer's own mount, which only root's has. */
	if (!geteuid())
		assert_int_equal(parent_of(6), 0);
	stop();
}

static void what_may_not_be_opened(void **state)
{
	static const char *const names[] = {"up", "magic", "abs", "fifo"};
	struct p9_msg t, r;
	int fd;

	(void)state;
	start(RLIM_INFINITY);
	for (uint32_t i = 0; i < ARRAY_SIZE(names); i++) {
		assert_int_equal(walk1(ROOT, 10 + i, names[i], strlen(names[i])), 0);
		t = (struct p9_msg){.type = P9_Tlopen};
		t.Tlopen = (struct p9_Tlopen){10 + i, O_RDWR};
		assert_true(rpc(&t) < 0);
		t = (struct p9_msg){.type = P9_Tmopen};
		t.Tmopen =
			(struct p9_Tmopen){ROOT, P9_NOFID, P9_WANT_FD, O_RDWR, 0, p9_str(names[i])};
		assert_int_equal(rpc_fd(&t, &r, &fd), 0);
		assert_int_equal(fd, -1);
		assert_false(r.Rmopen.donated);
	}
	stop();
}

static int connect_at(const char *path, size_t len, uint32_t type, int *ret_fd)
{
	struct p9_msg t = {.type = P9_Tmconnect}, r;
	int err;

	t.Tmconnect = (struct p9_Tmconnect){ROOT, {path, (uint16_t)len}, type};
	err = rpc_fd(&t, &r, ret_fd);
	assert_int_equal(*ret_fd >= 0, !err && r.Rmconnect.donated);
	return err;
}

/* Return: 0 or the -errno that ended it. */
static int bind_at(const char *path, uint32_t type, int *ret_fd)
{
	struct p9_msg t = {.type = P9_Tmmknod}, r;
	int err;

	t.Tmmknod.fid = ROOT;
	t.Tmmknod.want = P9_WANT_FD;
	t.Tmmknod.mode = S_IFSOCK | 0777;
	t.Tmmknod.major = type;
	t.Tmmknod.path = p9_str(path);
	err = rpc_fd(&t, &r, ret_fd);
	if (err)
		return err;
	assert_int_equal(*ret_fd >= 0, r.Rmmknod.donated);
	return -(int)r.Rmmknod.err;
}

static int listener_at(const char *name)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(un.sun_path, path_of(name));
	assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
	assert_int_equal(listen(fd, 1), 0);
	return fd;
}

/* In every mode: what is not allowed is refused, and kills nobody. */
static void sockets(void **state)
{
	static const char *const modes[] = {"", "o", "c", "oc"};
	static const char *const wrong[] = {"f", "d", "fifo", "up", "magic", "abs", "tolink"};
	int inside = listener_at("in/s"), outside = listener_at("out/s"), fd;
	char long_name[P9_NAME_MAX + 1];

	(void)state;
	assert_int_equal(symlink(path_of("out/s"), path_of("in/tolink")), 0);
	memset(long_name, 'n', P9_NAME_MAX);
	long_name[P9_NAME_MAX] = '\0';
	for (uint32_t i = 0; i < ARRAY_SIZE(modes); i++) {
		bool open = strchr(modes[i], 'o'), create = strchr(modes[i], 'c');
		struct sockaddr_un un = {.sun_family = AF_UNIX};

		setenv("GOFER_PROCESS_UDS", modes[i], 1);
		start(RLIM_INFINITY);
		assert_int_equal(connect_at("s", 1, SOCK_STREAM, &fd), open ? 0 : -ECONNREFUSED);
		if (open) {
			assert_int_equal(accept(inside, NULL, NULL) >= 0, true);
			close(fd);
			assert_int_equal(connect_at("s", 1, SOCK_DGRAM, &fd), -EPROTOTYPE);
			assert_int_equal(connect_at("s", 1, SOCK_RAW, &fd), -EINVAL);
			assert_int_equal(connect_at("s", 1, SOCK_STREAM | SOCK_CLOEXEC, &fd),
					 -EINVAL);
		}
		for (uint32_t k = 0; k < ARRAY_SIZE(wrong); k++)
			assert_int_equal(connect_at(wrong[k], strlen(wrong[k]), SOCK_STREAM, &fd),
					 -ECONNREFUSED);
		assert_true(connect_at("../out/s", 8, SOCK_STREAM, &fd) < 0);
		assert_true(connect_at("abs/out/s", 9, SOCK_STREAM, &fd) < 0);
		assert_true(connect_at("\0s", 2, SOCK_STREAM, &fd) < 0);
		assert_true(connect_at(long_name, P9_NAME_MAX, SOCK_STREAM, &fd) < 0);
		assert_int_equal(bind_at("made", SOCK_STREAM, &fd), 0);
		assert_int_equal(fd >= 0, create);
		if (create) {
			assert_int_equal(listen(fd, 1), 0);
			close(fd);
			assert_int_equal(bind_at("made", SOCK_STREAM, &fd), -EEXIST);
			assert_int_equal(bind_at("raw", SOCK_RAW, &fd), -EINVAL);
			assert_int_equal(bind_at(long_name, SOCK_STREAM, &fd), -ENAMETOOLONG);
		}
		strcpy(un.sun_path, path_of("in/made"));
		unlink(un.sun_path);
		assert_true(bind_at("abs/made", SOCK_STREAM, &fd) < 0 || fd < 0);
		assert_int_equal(access(path_of("made"), F_OK), -1);
		stop();
	}
	unsetenv("GOFER_PROCESS_UDS");
	/* Nobody came. */
	assert_int_equal(fcntl(outside, F_SETFL, O_NONBLOCK), 0);
	assert_int_equal(accept(outside, NULL, NULL), -1);
	close(inside);
	close(outside);
}

/* The limit answers, the connection lives, and what is given back can be had again. */
static void fids(void **state)
{
	uint32_t fid;
	int err = 0;

	(void)state;
	start(RLIM_INFINITY);
	for (fid = 100; fid < 100 + 17000 && !err; fid++)
		err = walk1(ROOT, fid, NULL, 0);
	fid--;
	assert_true(err == -EMFILE || err == -ENFILE);
	assert_int_equal(walk1(ROOT, 50, "d", 1), err);
	for (unsigned i = 0; i < 20; i++)
		assert_int_equal(clunk(100 + i), 0);
	assert_int_equal(walk1(ROOT, 50, "d", 1), 0);
	assert_int_equal(clunk(100), -EBADF);
	stop();
}

static void descriptors(void **state)
{
	struct p9_msg t, r;
	uint32_t fid;
	int err = 0, fd;

	(void)state;
	start(64);
	for (fid = 100; fid < 200 && !err; fid++)
		err = walk1(ROOT, fid, "d", 1);
	assert_true(err == -EMFILE || err == -ENFILE || err == -ENOMEM);
	/* Compound requests need some in passing: they fail, or say what stopped them; nothing ends. */
	t = compound_walk("d/secret", 8);
	assert_true(rpc_fd(&t, &r, NULL) < 0 || r.Rmwalk.err == EMFILE || !r.Rmwalk.err);
	t = (struct p9_msg){.type = P9_Tmopen};
	t.Tmopen = (struct p9_Tmopen){ROOT, P9_NOFID, P9_WANT_FD, O_RDONLY, 0, p9_str("d/secret")};
	err = rpc_fd(&t, &r, &fd);
	assert_true(err == -EMFILE || (!err && r.Rmopen.err == EMFILE));
	assert_int_equal(fd, -1);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(clunk(100 + i), 0);
	assert_int_equal(rpc_fd(&t, &r, &fd), 0);
	assert_true(fd >= 0);
	close(fd);
	stop();
}

/* Who waits for a lock and gives the fid up waits no more: there is always room for the next. */
static void lock_waits(void **state)
{
	enum { WAITS = 200 };
	struct p9_msg t = {.type = P9_Tmnotify}, r;
	int notices = -1, held;

	(void)state;
	start(RLIM_INFINITY);
	put("in/d/locked", "x");
	held = open(path_of("in/d/locked"), O_RDWR | O_CLOEXEC);
	assert_int_equal(flock(held, LOCK_EX), 0);
	assert_int_equal(rpc_fd(&t, &r, &notices), 0);
	for (uint32_t i = 0; i < WAITS; i++) {
		t = (struct p9_msg){.type = P9_Tmopen};
		t.Tmopen = (struct p9_Tmopen){ROOT,   100 + i, P9_WANT_SELF,
					      O_RDWR, 0,       p9_str("d/locked")};
		assert_int_equal(rpc_fd(&t, &r, NULL), 0);
		assert_true(r.Rmopen.bound);
		t = (struct p9_msg){.type = P9_Tmlock};
		t.Tmlock.fid = 100 + i;
		t.Tmlock.kind = P9_LOCK_FLOCK;
		t.Tmlock.type = P9_LOCK_WRLCK;
		t.Tmlock.wait = i + 1;
		assert_int_equal(rpc_fd(&t, &r, NULL), 0);
		assert_int_equal(r.Rmlock.status, P9_LOCK_QUEUED);
		assert_int_equal(clunk(100 + i), 0);
	}
	close(held);
	close(notices);
	stop();
}

/* Values of attributes wait in the gofer between requests: all together they are bounded. */
static void values(void **state)
{
	uint32_t fid;
	int err = 0;

	(void)state;
	start(RLIM_INFINITY);
	for (fid = 100; fid < 100 + 1000 && !err; fid++) {
		struct p9_msg t = {.type = P9_Txattrcreate};

		assert_int_equal(walk1(ROOT, fid, "f", 1), 0);
		t.Txattrcreate = (struct p9_Txattrcreate){fid, p9_str("user.a"), 65536, 0};
		err = rpc(&t);
	}
	fid--;
	assert_int_equal(err, -ENOMEM);
	assert_true(fid - 100 >= 200);
	/* The clunk of an unfinished value sets nothing, and gives its room back. */
	assert_true(clunk(100) < 0);
	err = walk1(ROOT, 50, "f", 1);
	assert_int_equal(err, 0);
	{
		struct p9_msg t = {.type = P9_Txattrcreate};

		t.Txattrcreate = (struct p9_Txattrcreate){50, p9_str("user.a"), 65536, 0};
		assert_int_equal(rpc(&t), 0);
	}
	stop();
}

/* ---- the race ---- */

static _Atomic bool racer_stop;

/* in/d is a directory, then a link to the outside, then a directory that is moved out of the tree. */
static void *racer(void *arg)
{
	char d[100], away[100], link_path[100], out[100];

	snprintf(d, sizeof(d), "%s/in/d", top);
	snprintf(link_path, sizeof(link_path), "%s/in/l", top);
	snprintf(away, sizeof(away), "%s/away", top);
	snprintf(out, sizeof(out), "%s/out", top);
	(void)!symlink(out, link_path);
	while (!atomic_load(&racer_stop)) {
		(void)!renameat2(AT_FDCWD, d, AT_FDCWD, link_path, RENAME_FLAG_EXCHANGE);
		(void)!renameat2(AT_FDCWD, d, AT_FDCWD, link_path, RENAME_FLAG_EXCHANGE);
		if (rename(d, away) == 0)
			(void)!rename(away, d);
	}
	return arg;
}

static unsigned count_out(void)
{
	char cmd[120];
	unsigned lines = 0;
	FILE *f;

	snprintf(cmd, sizeof(cmd), "ls -A %s/out", top);
	f = popen(cmd, "r");
	assert_non_null(f);
	for (int c; (c = fgetc(f)) != EOF;)
		lines += c == '\n';
	pclose(f);
	return lines;
}

/* What d/secret is opened as: never the file outside. Return: it was found. */
static bool open_secret(unsigned skip)
{
	struct p9_msg t = {.type = P9_Tmopen}, r;
	char buf[16];
	ssize_t n;
	int fd = -1;

	t.Tmopen = (struct p9_Tmopen){ROOT,	P9_NOFID,	P9_WANT_FD,
				      O_RDONLY, (uint16_t)skip, p9_str("d/secret")};
	if (rpc_fd(&t, &r, &fd) || fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf));
	close(fd);
	assert_int_equal(n, 2);
	return true;
}

static void change_something(unsigned i)
{
	struct p9_msg t = {.type = P9_Tmcreate}, r;
	int fd = -1;

	t.Tmcreate.fid = ROOT;
	t.Tmcreate.newfid = P9_NOFID;
	t.Tmcreate.want = P9_WANT_FD;
	t.Tmcreate.flags = O_RDWR;
	t.Tmcreate.mode = 0600;
	t.Tmcreate.path = p9_str("d/new");
	t.Tmcreate.skip = i & 1;
	if (!rpc_fd(&t, &r, &fd) && fd >= 0)
		close(fd);
	t = (struct p9_msg){.type = P9_Tmrename};
	t.Tmrename.oldfid = t.Tmrename.fid = ROOT;
	t.Tmrename.oldpath = p9_str("d/secret");
	t.Tmrename.path = p9_str("d/secret2");
	t.Tmrename.keepfid = P9_NOFID;
	if (!rpc(&t)) {
		t.Tmrename.oldpath = p9_str("d/secret2");
		t.Tmrename.path = p9_str("d/secret");
		/* Until it is back: in the directory, wherever that has gone. */
		while (!atomic_load(&racer_stop) && rpc(&t))
			;
	}
	t = (struct p9_msg){.type = P9_Tmunlink};
	t.Tmunlink = (struct p9_Tmunlink){ROOT, 0, 0, P9_NOFID, (uint16_t)(i & 1), p9_str("d/new")};
	(void)rpc(&t);
}

static void racing_renamer(void **state)
{
	const char *text = getenv("HOSTILE_SECONDS");
	time_t end = time(NULL) + (text ? atoi(text) : 1) + 1;
	unsigned found = 0;
	pthread_t thread;

	(void)state;
	start(RLIM_INFINITY);
	atomic_store(&racer_stop, false);
	assert_int_equal(pthread_create(&thread, NULL, racer, NULL), 0);
	for (unsigned i = 0; time(NULL) < end || (!found && time(NULL) < end + 30); i++) {
		found += open_secret(i & 1);
		change_something(i);
		if (i % 1000 == 0)
			assert_int_equal(count_out(), 1);
	}
	atomic_store(&racer_stop, true);
	pthread_join(thread, NULL);
	assert_true(found > 0);
	assert_int_equal(count_out(), 1);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(names_that_lead_out, set_up, tear_down),
		cmocka_unit_test_setup_teardown(parents, set_up, tear_down),
		cmocka_unit_test_setup_teardown(what_may_not_be_opened, set_up, tear_down),
		cmocka_unit_test_setup_teardown(sockets, set_up, tear_down),
		cmocka_unit_test_setup_teardown(fids, set_up, tear_down),
		cmocka_unit_test_setup_teardown(descriptors, set_up, tear_down),
		cmocka_unit_test_setup_teardown(values, set_up, tear_down),
		cmocka_unit_test_setup_teardown(lock_waits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(racing_renamer, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
