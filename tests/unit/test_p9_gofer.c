// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/*
 * gofer and fsimpl/gofer together, through the VFS: what the client shows is compared with what the host has; round trips are
 * counted.
 */
#include "tests/unit/p9_gofer_fixture.h"

#include <dirent.h>
#include <sys/xattr.h>

#include "fsimpl/gofer/conn.h"

/* ---- reads ---- */

static void stat_deep_is_one_request(void **state)
{
	struct moat_statx st;
	struct stat hs;
	uint64_t before;

	(void)state;
	deep_host();
	assert_int_equal(stat(host(DEEP "file"), &hs), 0);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_stat(DEEP "file", &st), 0);
	assert_int_equal(p9_conn_requests(fx.conn) - before, 1);
	assert_int_equal(st.size, 4);
	assert_int_equal(st.mode, hs.st_mode);
	assert_int_equal(st.ino, hs.st_ino);
	assert_int_equal(st.mtime.sec, hs.st_mtim.tv_sec);
	assert_int_equal(st.mtime.nsec, hs.st_mtim.tv_nsec);
	assert_int_equal(st.nlink, 1);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_stat(DEEP "file", &st), 0);
	assert_int_equal(do_stat(DEEP "../d7/./file", &st), 0);
	if (!shared_mode)
		assert_int_equal(p9_conn_requests(fx.conn) - before, 0);
	assert_int_equal(do_stat(DEEP "nope", &st), -ENOENT);
	assert_int_equal(do_stat(DEEP "file/x", &st), -ENOTDIR);
	assert_int_equal(do_stat(DEEP "file/", &st), -ENOTDIR);
	assert_int_equal(do_stat("nope/d1/d2", &st), -ENOENT);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_stat(DEEP "nope", &st), -ENOENT);
	if (!shared_mode)
		assert_int_equal(p9_conn_requests(fx.conn) - before, 0);
	assert_int_equal(do_stat("../../..", &st), 0);
	assert_int_equal(stat(fx.dir, &hs), 0);
	assert_int_equal(st.ino, hs.st_ino);
}

static void symlinks(void **state)
{
	struct vfs_lookup lk;
	struct moat_statx st;
	char buf[64];
	size_t len;

	(void)state;
	deep_host();
	assert_int_equal(symlink("d0/d1", host("rel")), 0);
	assert_int_equal(symlink("/d0/d1/d2", host("abs")), 0);
	assert_int_equal(symlink("../../../../../../etc", host("out")), 0);
	assert_int_equal(symlink("loop", host("loop")), 0);
	assert_int_equal(do_stat("rel/d2/d3", &st), 0);
	assert_true(S_ISDIR(st.mode));
	assert_int_equal(do_stat("abs/d3/d4", &st), 0);
	assert_int_equal(do_stat("rel", &st), 0);
	assert_true(S_ISLNK(st.mode));
	assert_int_equal(st.size, 5);
	/* "etc" of the tree, not of the host. */
	assert_int_equal(do_stat("out/passwd", &st), -ENOENT);
	assert_int_equal(do_stat("loop/x", &st), -ELOOP);
	lk = at("abs", 0);
	assert_int_equal(vfs_readlink(&lk, buf, sizeof(buf), &len), 0);
	assert_int_equal(len, 9);
	assert_memory_equal(buf, "/d0/d1/d2", 9);
	lk = at("d0", 0);
	assert_int_equal(vfs_readlink(&lk, buf, sizeof(buf), &len), -EINVAL);
}

static void read_file(void **state)
{
	uint64_t before;
	struct file *f;
	char buf[64];

	(void)state;
	deep_host();
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_open(DEEP "file", O_RDONLY, 0, &f), 0);
	assert_int_equal(p9_conn_requests(fx.conn) - before, 1);
	assert_int_equal(do_pread(f, buf, sizeof(buf), -1), 4);
	assert_memory_equal(buf, "deep", 4);
	assert_int_equal(do_pread(f, buf, sizeof(buf), -1), 0);
	assert_int_equal(do_pread(f, buf, 2, 1), 2);
	assert_memory_equal(buf, "ee", 2);
	assert_int_equal(do_pwrite(f, "x", 1, 0), -EBADF);
	assert_int_equal(file_seek(f, -1, SEEK_END), 3);
	assert_int_equal(file_seek(f, 0, SEEK_DATA), 0);
	assert_int_equal(file_seek(f, 0, SEEK_HOLE), 4);
	file_unref(f);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_open(DEEP "file", O_RDONLY, 0, &f), 0);
	if (!shared_mode)
		assert_int_equal(p9_conn_requests(fx.conn) - before, 0);
	file_unref(f);
	assert_int_equal(do_open(DEEP "none", O_RDONLY, 0, &f), -ENOENT);
	assert_int_equal(do_open("d0", O_RDWR, 0, &f), -EISDIR);
	assert_int_equal(do_open(DEEP "file", O_RDONLY | O_DIRECTORY, 0, &f), -ENOTDIR);
}

static uint8_t qid_type_of(const char *name)
{
	struct p9_msg t = {.type = P9_Tmwalk};
	struct p9_node node;
	struct p9_call call;

	t.Tmwalk = (struct p9_Tmwalk){
		.fid = 1, .newfid = P9_NOFID, .want = P9_WANT_ACL, .path = p9_str(name)};
	assert_int_equal(p9_rpc(fx.conn, &call, &t), 0);
	assert_int_equal(call.r.Rmwalk.nodes.count, 1);
	p9_nodes_get(&call.r.Rmwalk.nodes, 0, &node);
	p9_call_fini(&call);
	return node.qid.type;
}

/* The gofer does not look again for the ACL of a file that had none and is as it was: until it has one. */
static void acl_of_an_old_file(void **state)
{
	static const struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} entry[5];
	} acl = {2, {{1, 6, ~0u}, {2, 4, 1234}, {4, 4, ~0u}, {16, 6, ~0u}, {32, 0, ~0u}}};

	(void)state;
	write_host("f", "x");
	assert_int_equal(chmod(host("f"), 0660), 0);
	assert_int_equal(qid_type_of("f"), P9_QTACL_ASKED);
	usleep(5100000);
	assert_int_equal(qid_type_of("f"), P9_QTACL_ASKED);
	assert_int_equal(qid_type_of("f"), P9_QTACL_ASKED);
	if (setxattr(host("f"), "system.posix_acl_access", &acl, sizeof(acl), 0) < 0)
		skip();
	assert_int_equal(qid_type_of("f"), P9_QTACL_ASKED | P9_QTACL);
	assert_int_equal(qid_type_of("f"), P9_QTACL_ASKED | P9_QTACL);
	assert_int_equal(removexattr(host("f"), "system.posix_acl_access"), 0);
	assert_int_equal(qid_type_of("f"), P9_QTACL_ASKED);
}

/* Numbers that are held are left out when they come up again: the root's, and that of a file without a name. */
static void fids_wrap(void **state)
{
	struct file *f[10], *held;
	struct moat_statx st;

	(void)state;
	assert_int_equal(do_open(".", O_TMPFILE | O_RDWR, 0600, &held), 0);
	atomic_store(&fx.conn->next_fid, INT32_MAX - 3u);
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(do_open(".", O_TMPFILE | O_RDWR, 0600, &f[i]), 0);
	assert_true(atomic_load(&fx.conn->next_fid) > INT32_MAX);
	for (unsigned i = 0; i < 10; i++)
		file_unref(f[i]);
	/* And once more round, past what was given back a moment ago. */
	atomic_store(&fx.conn->next_fid, UINT32_MAX - 3u);
	write_host("f", "x");
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(do_open(".", O_TMPFILE | O_RDWR, 0600, &f[i]), 0);
	assert_int_equal(do_stat("f", &st), 0);
	for (unsigned i = 0; i < 10; i++)
		file_unref(f[i]);
	file_unref(held);
}

struct listing {
	struct dir_emit ctx;
	unsigned count, dots, stop_at;
	char names[2048][16];
	int64_t cookies[2048];
};

static bool list_one(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino,
		     unsigned type, int64_t next)
{
	struct listing *l = container_of(ctx, struct listing, ctx);

	(void)ino;
	(void)type;
	if (l->count == l->stop_at)
		return false;
	if (name[0] == '.')
		l->dots++;
	snprintf(l->names[l->count], 16, "%.*s", (int)len, name);
	l->cookies[l->count++] = next;
	return true;
}

static void readdir_all(void **state)
{
	static struct listing l, again;
	struct moat_statx st;
	uint64_t before;
	struct file *f;

	(void)state;
	assert_int_equal(mkdir(host("big"), 0755), 0);
	for (int i = 0; i < 1500; i++) {
		char name[32];

		snprintf(name, sizeof(name), "big/f%d", i);
		write_host(name, "");
	}
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_open("big", O_RDONLY | O_DIRECTORY, 0, &f), 0);
	l = (struct listing){.ctx = {list_one}, .stop_at = 100};
	assert_int_equal(file_iterate(f, &l.ctx), 0);
	assert_int_equal(l.count, 100);
	l.stop_at = 2048;
	assert_int_equal(file_iterate(f, &l.ctx), 0);
	assert_int_equal(l.count, 1502);
	assert_int_equal(l.dots, 2);
	assert_int_equal(file_iterate(f, &l.ctx), 0);
	assert_int_equal(l.count, 1502);
	/* From a cookie in the middle. */
	again = (struct listing){.ctx = {list_one}, .stop_at = 2048};
	assert_int_equal(file_seek(f, l.cookies[699], SEEK_SET), l.cookies[699]);
	assert_int_equal(file_iterate(f, &again.ctx), 0);
	assert_int_equal(again.count, 1502 - 700);
	assert_string_equal(again.names[0], l.names[700]);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_stat("big/f77", &st), 0);
	if (!shared_mode)
		assert_int_equal(p9_conn_requests(fx.conn) - before, 0);
	file_unref(f);
}

/* ---- writes ---- */

static int list_raw(uint32_t want, struct p9_call *ret)
{
	struct p9_msg t = {.type = P9_Tmreaddir};

	t.Tmreaddir = (struct p9_Tmreaddir){.fid = 1,
					    .path = p9_str("mixed"),
					    .newfid = P9_NOFID,
					    .count = 65536,
					    .want = want};
	return p9_rpc(fx.conn, ret, &t);
}

/* Which entries of a listing have attributes. */
static void readdir_nodes(void **state)
{
	static const struct {
		uint32_t want;
		const char *with; /* first letters of the names */
	} cases[] = {
		{0, ""},
		{P9_WANT_DIR_NODES, ""},
		{P9_WANT_NODES, "dfp"},
		{P9_WANT_NODES | P9_WANT_ACL, "dfp"},
		{P9_WANT_NODES | P9_WANT_DIR_NODES, "d"},
		{P9_WANT_NODES | P9_WANT_DIR_NODES | P9_WANT_ACL | P9_WANT_QUIET, "d"},
		{P9_WANT_TARGETS, ""},
		{P9_WANT_NODES | P9_WANT_TARGETS, "dflp"},
		{P9_WANT_NODES | P9_WANT_DIR_NODES | P9_WANT_TARGETS, "d"},
	};
	char overlong[P9_DIRENT_TARGET_MAX + 2];
	struct p9_dirent d;
	struct p9_call call;

	(void)state;
	assert_int_equal(mkdir(host("mixed"), 0755), 0);
	assert_int_equal(mkdir(host("mixed/dir"), 0750), 0);
	assert_int_equal(mkfifo(host("mixed/pipe"), 0644), 0);
	assert_int_equal(symlink("file", host("mixed/link")), 0);
	/* It would not be worth its room: asked for by itself. */
	memset(overlong, 'x', sizeof(overlong) - 1);
	overlong[sizeof(overlong) - 1] = '\0';
	assert_int_equal(symlink(overlong, host("mixed/overlong")), 0);
	write_host("mixed/file", "x");
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		unsigned count = 0;
		size_t off = 0;

		assert_int_equal(list_raw(cases[i].want, &call), 0);
		assert_true(call.r.Rmreaddir.eof);
		while (p9_dirent_get(call.r.Rmreaddir.data.data, call.r.Rmreaddir.data.size, &off,
				     true, &d) == 1) {
			char first = d.name.data[0];

			count++;
			assert_int_equal(d.type, first == 'd' || first == '.'	? DT_DIR
						 : first == 'l' || first == 'o' ? DT_LNK
						 : first == 'p'			? DT_FIFO
										: DT_REG);
			assert_int_equal(d.has_node, strchr(cases[i].with, first) != NULL);
			if (d.has_node)
				assert_int_equal(d.node.qid.type & P9_QTACL_ASKED,
						 cases[i].want & P9_WANT_ACL ? P9_QTACL_ASKED : 0);
			if (d.has_node)
				assert_int_equal(IFTODT(d.node.mode), d.type);
			assert_int_equal(d.target.len, d.has_node && first == 'l' ? 4 : 0);
			if (d.target.len)
				assert_memory_equal(d.target.data, "file", 4);
		}
		assert_int_equal(count, 7);
		p9_call_fini(&call);
	}
}

static void create_write(void **state)
{
	uint64_t before;
	struct moat_statx st;
	struct file *f, *g;
	struct stat hs;
	char buf[64];

	(void)state;
	assert_int_equal(do_mkdir("a", 0777), 0);
	assert_int_equal(do_mkdir("a", 0777), -EEXIST);
	assert_int_equal(do_mkdir("x/y", 0777), -ENOENT);
	assert_int_equal(stat(host("a"), &hs), 0);
	assert_int_equal(hs.st_mode & 07777, 0755);
	before = p9_conn_requests(fx.conn);
	assert_int_equal(do_open("a/new", O_CREAT | O_EXCL | O_RDWR, 0666, &f), 0);
	if (!shared_mode)
		assert_int_equal(p9_conn_requests(fx.conn) - before, 1);
	assert_int_equal(do_pwrite(f, "hello", 5, -1), 5);
	assert_int_equal(do_pwrite(f, "J", 1, 0), 1);
	assert_int_equal(do_stat("a/new", &st), 0);
	assert_int_equal(st.size, 5);
	assert_int_equal(st.mode, S_IFREG | 0644);
	assert_int_equal(do_open("a/new", O_CREAT | O_EXCL | O_RDWR, 0666, &g), -EEXIST);
	assert_int_equal(do_open("a/new", O_CREAT | O_WRONLY | O_APPEND, 0666, &g), 0);
	assert_int_equal(do_pwrite(g, " world", 6, -1), 6);
	assert_int_equal(do_pread(g, buf, 1, 0), -EBADF);
	assert_int_equal(do_pread(f, buf, sizeof(buf), 0), 11);
	assert_memory_equal(buf, "Jello world", 11);
	assert_int_equal(file_truncate(f, 3), 0);
	assert_int_equal(stat(host("a/new"), &hs), 0);
	assert_int_equal(hs.st_size, 3);
	file_unref(g);
	assert_int_equal(do_open("a/new", O_RDWR | O_TRUNC, 0, &g), 0);
	assert_int_equal(do_stat("a/new", &st), 0);
	assert_int_equal(st.size, 0);
	assert_int_equal(file_fallocate(g, 0, 0, 8192), 0);
	assert_int_equal(file_fsync(g, false, 0, INT64_MAX), 0);
	assert_int_equal(do_stat("a/new", &st), 0);
	assert_int_equal(st.size, 8192);
	file_unref(g);
	/* Unlinked while open. */
	assert_int_equal(do_unlink("a/new"), 0);
	assert_int_equal(do_stat("a/new", &st), -ENOENT);
	assert_int_equal(do_pwrite(f, "still", 5, 0), 5);
	assert_int_equal(file_stat(f, &(struct stat_args){.mask = 0x7ff}, &st), 0);
	assert_int_equal(st.nlink, 0);
	assert_int_equal(
		file_set_stat(f, &(struct setattr_args){.valid = SETATTR_MODE, .mode = 0600}), 0);
	assert_int_equal(file_stat(f, &(struct stat_args){.mask = 0x7ff}, &st), 0);
	assert_int_equal(st.mode & 07777, 0600);
	/* The name is free for another. */
	assert_int_equal(do_open("a/new", O_CREAT | O_EXCL | O_RDWR, 0666, &g), 0);
	assert_int_equal(do_pread(g, buf, sizeof(buf), 0), 0);
	file_unref(g);
	file_unref(f);
	assert_int_equal(do_rmdir("a"), -ENOTEMPTY);
	assert_int_equal(do_unlink("a"), -EISDIR);
	assert_int_equal(do_rmdir("a/new"), -ENOTDIR);
	assert_int_equal(do_unlink("a/new"), 0);
	assert_int_equal(do_rmdir("a"), 0);
	assert_int_equal(access(host("a"), F_OK), -1);
	assert_int_equal(do_rmdir("a"), -ENOENT);
}

static void create_through_symlink(void **state)
{
	struct moat_statx st;
	struct file *f;

	(void)state;
	assert_int_equal(do_mkdir("dir", 0755), 0);
	assert_int_equal(do_symlink("dir/target", "link"), 0);
	assert_int_equal(do_open("link", O_CREAT | O_EXCL | O_RDWR, 0644, &f), -EEXIST);
	assert_int_equal(do_open("link", O_CREAT | O_RDWR | O_NOFOLLOW, 0644, &f), -ELOOP);
	assert_int_equal(do_open("link", O_CREAT | O_RDWR, 0644, &f), 0);
	file_unref(f);
	assert_int_equal(access(host("dir/target"), F_OK), 0);
	assert_int_equal(do_stat("dir/target", &st), 0);
	assert_int_equal(do_open("dir/", O_CREAT | O_RDWR, 0644, &f), -EISDIR);
	assert_int_equal(do_open("dir", O_CREAT | O_RDWR, 0644, &f), -EISDIR);
	assert_int_equal(do_open("dir/..", O_CREAT | O_RDWR, 0644, &f), -EISDIR);
}

static void links(void **state)
{
	struct moat_statx a, b;
	struct file *f;

	(void)state;
	assert_int_equal(do_open("one", O_CREAT | O_RDWR, 0644, &f), 0);
	assert_int_equal(do_link("one", "two"), 0);
	assert_int_equal(do_link("one", "two"), -EEXIST);
	assert_int_equal(do_pwrite(f, "12345", 5, 0), 5);
	assert_int_equal(do_stat("one", &a), 0);
	assert_int_equal(do_stat("two", &b), 0);
	assert_int_equal(a.ino, b.ino);
	assert_int_equal(a.nlink, 2);
	assert_int_equal(b.size, 5);
	assert_int_equal(do_unlink("one"), 0);
	assert_int_equal(do_stat("two", &b), 0);
	assert_int_equal(b.nlink, 1);
	assert_int_equal(b.size, 5);
	file_unref(f);
	assert_int_equal(do_mkdir("d", 0755), 0);
	assert_int_equal(do_link("d", "d2"), -EPERM);
}

static void renames(void **state)
{
	struct moat_statx st;
	struct file *f;
	char buf[8];

	(void)state;
	assert_int_equal(do_mkdir("a", 0755), 0);
	assert_int_equal(do_mkdir("a/b", 0755), 0);
	assert_int_equal(do_mkdir("c", 0755), 0);
	assert_int_equal(do_open("a/b/f", O_CREAT | O_RDWR, 0644, &f), 0);
	assert_int_equal(do_pwrite(f, "1", 1, 0), 1);
	file_unref(f);
	assert_int_equal(do_rename("a/b", "c/b2", 0), 0);
	assert_int_equal(do_stat("c/b2/f", &st), 0);
	assert_int_equal(do_stat("a/b", &st), -ENOENT);
	assert_int_equal(access(host("c/b2/f"), F_OK), 0);
	assert_int_equal(do_rename("c", "c/b2/x", 0), -EINVAL);
	assert_int_equal(do_rename("c/b2/f", "c/b2", 0), -ENOTEMPTY);
	assert_int_equal(do_rename("c/b2/f", "a", 0), -EISDIR);
	assert_int_equal(do_rename("a", "c/b2/f", 0), -ENOTDIR);
	assert_int_equal(do_rename("nope", "x", 0), -ENOENT);
	/* Over an open file. */
	assert_int_equal(do_open("victim", O_CREAT | O_RDWR, 0644, &f), 0);
	assert_int_equal(do_pwrite(f, "v", 1, 0), 1);
	assert_int_equal(do_rename("c/b2/f", "victim", 1), -EEXIST);
	assert_int_equal(do_rename("c/b2/f", "victim", 0), 0);
	assert_int_equal(do_pread(f, buf, 8, 0), 1);
	assert_int_equal(buf[0], 'v');
	assert_int_equal(file_stat(f, &(struct stat_args){.mask = 0x7ff}, &st), 0);
	assert_int_equal(st.nlink, 0);
	file_unref(f);
	assert_int_equal(do_open("victim", O_RDONLY, 0, &f), 0);
	assert_int_equal(do_pread(f, buf, 8, 0), 1);
	assert_int_equal(buf[0], '1');
	file_unref(f);
	/* Exchange. */
	assert_int_equal(do_rename("victim", "a", 2), 0);
	assert_int_equal(do_stat("a", &st), 0);
	assert_true(S_ISREG(st.mode));
	assert_int_equal(do_stat("victim", &st), 0);
	assert_true(S_ISDIR(st.mode));
	assert_int_equal(access(host("victim/."), F_OK), 0);
}

static void attributes(void **state)
{
	struct vfs_lookup lk;
	struct setattr_args sa;
	struct moat_statx st;
	struct stat hs;
	struct file *f;

	(void)state;
	assert_int_equal(do_open("f", O_CREAT | O_RDWR, 0644, &f), 0);
	lk = at("f", LOOKUP_FOLLOW);
	sa = (struct setattr_args){.valid = SETATTR_MODE, .mode = 0751};
	assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	sa = (struct setattr_args){.valid = SETATTR_UID | SETATTR_GID, .uid = 1000, .gid = 1001};
	assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	sa = (struct setattr_args){.valid = SETATTR_ATIME | SETATTR_MTIME,
				   .atime = {.sec = 100, .nsec = 7},
				   .mtime = {.sec = 200, .nsec = 8}};
	assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	sa = (struct setattr_args){.valid = SETATTR_SIZE, .size = 12345};
	assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	assert_int_equal(do_stat("f", &st), 0);
	assert_int_equal(stat(host("f"), &hs), 0);
	assert_int_equal(st.mode, hs.st_mode);
	assert_int_equal(hs.st_mode & 07777, 0751);
	assert_int_equal(st.uid, 1000);
	assert_int_equal(hs.st_gid, 1001);
	assert_int_equal(st.size, 12345);
	assert_int_equal(st.atime.sec, 100);
	assert_int_equal(st.ctime.sec, hs.st_ctim.tv_sec);
	file_unref(f);
	/* A setgid directory. */
	assert_int_equal(do_mkdir("g", 0755), 0);
	lk = at("g", LOOKUP_FOLLOW);
	sa = (struct setattr_args){.valid = SETATTR_GID, .gid = 77};
	assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	sa = (struct setattr_args){.valid = SETATTR_MODE, .mode = 02755};
	assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	assert_int_equal(do_mkdir("g/sub", 0755), 0);
	assert_int_equal(stat(host("g/sub"), &hs), 0);
	assert_int_equal(hs.st_gid, 77);
	assert_int_equal(hs.st_mode & 07777, 02755);
	assert_int_equal(do_open("g/file", O_CREAT | O_RDWR, 0644, &f), 0);
	file_unref(f);
	assert_int_equal(stat(host("g/file"), &hs), 0);
	assert_int_equal(hs.st_gid, 77);
}

static void permissions(void **state)
{
	struct cred *user;
	struct moat_statx st;
	struct stat hs;
	struct file *f;

	(void)state;
	assert_int_equal(do_mkdir("open", 0777), 0);
	assert_int_equal(chmod(fx.dir, 0755), 0);
	{
		struct vfs_lookup lk = at("open", 0);
		struct setattr_args sa = {.valid = SETATTR_MODE, .mode = 0777};

		assert_int_equal(vfs_set_stat(&lk, &sa), 0);
	}
	assert_int_equal(do_mkdir("closed", 0700), 0);
	assert_int_equal(do_mkdir("closed/in", 0777), 0);
	assert_int_equal(do_open("secret", O_CREAT | O_RDWR, 0600, &f), 0);
	file_unref(f);
	assert_int_equal(cred_prepare(fx.cred, &user), 0);
	user->uid = user->euid = user->suid = user->fsuid = 1000;
	user->gid = user->egid = user->sgid = user->fsgid = 1000;
	user->cap_effective = user->cap_permitted = 0;
	cred_commit(user);
	cred_set_current(user);
	assert_int_equal(do_stat("closed/in", &st), -EACCES);
	assert_int_equal(do_stat("closed/none", &st), -EACCES);
	assert_int_equal(do_open("secret", O_RDONLY, 0, &f), -EACCES);
	assert_int_equal(do_mkdir("mine", 0755), -EACCES);
	assert_int_equal(do_mkdir("closed", 0755), -EEXIST);
	assert_int_equal(do_unlink("secret"), -EACCES);
	assert_int_equal(do_open("open/mine", O_CREAT | O_RDWR, 0600, &f), 0);
	file_unref(f);
	assert_int_equal(stat(host("open/mine"), &hs), 0);
	assert_int_equal(hs.st_uid, 1000);
	assert_int_equal(hs.st_gid, 1000);
	assert_int_equal(hs.st_mode & 07777, 0600);
	cred_set_current(fx.cred);
	cred_unref(user);
}

static void tmpfile_and_xattr(void **state)
{
	struct xattr_args xa = {.name = "user.test", .value = "value", .size = 5};
	struct moat_statx st;
	struct vfs_lookup lk;
	struct file *f;
	char buf[64];
	int err;

	(void)state;
	err = do_open(".", O_TMPFILE | O_RDWR, 0644, &f);
	if (err != -EOPNOTSUPP) {
		assert_int_equal(err, 0);
		assert_int_equal(do_pwrite(f, "tmp", 3, 0), 3);
		assert_int_equal(file_stat(f, &(struct stat_args){.mask = 0x7ff}, &st), 0);
		assert_int_equal(st.nlink, 0);
		assert_int_equal(st.size, 3);
		file_unref(f);
	}
	assert_int_equal(do_open("x", O_CREAT | O_RDWR, 0644, &f), 0);
	file_unref(f);
	lk = at("x", 0);
	assert_int_equal(vfs_get_xattr(&lk, &(struct xattr_args){.name = "user.test"}), -ENODATA);
	assert_int_equal(vfs_set_xattr(&lk, &xa), 0);
	xa.value = buf;
	xa.size = sizeof(buf);
	assert_int_equal(vfs_get_xattr(&lk, &xa), 5);
	assert_memory_equal(buf, "value", 5);
	assert_int_equal(vfs_list_xattr(&lk, buf, sizeof(buf)), 10);
	assert_string_equal(buf, "user.test");
	assert_int_equal(vfs_remove_xattr(&lk, "user.test"), 0);
	assert_int_equal(vfs_get_xattr(&lk, &xa), -ENODATA);
}

static void nodes_and_statfs(void **state)
{
	struct vfs_lookup lk = at("fifo", 0);
	struct mknod_args args = {.mode = S_IFIFO | 0644, .umask = 022};
	struct moat_statx st;
	struct statfs sfs;
	struct file *f;
	int err;

	(void)state;
	assert_int_equal(vfs_mknod(&lk, &args), 0);
	assert_int_equal(do_stat("fifo", &st), 0);
	assert_true(S_ISFIFO(st.mode));
	/* Never the host's: without hooks there is nobody to open it. */
	assert_int_equal(do_open("fifo", O_RDONLY | O_NONBLOCK, 0, &f), -ENXIO);
	lk = at("null", 0);
	args = (struct mknod_args){.mode = S_IFCHR | 0666, .rdev_major = 1, .rdev_minor = 3};
	err = vfs_mknod(&lk, &args);
	if (!err) {
		assert_int_equal(do_stat("null", &st), 0);
		assert_int_equal(st.rdev_major, 1);
		assert_int_equal(st.rdev_minor, 3);
	}
	assert_int_equal(vfs_statfs(&fx.root, &sfs), 0);
	assert_true(sfs.f_blocks > 0);
}

static void shrink(void **state)
{
	struct moat_statx st;

	(void)state;
	deep_host();
	assert_int_equal(do_stat(DEEP "file", &st), 0);
	gofer_fs_shrink(fx.fs);
	assert_int_equal(do_stat(DEEP "file", &st), 0);
	assert_int_equal(do_stat(DEEP "no", &st), -ENOENT);
	gofer_fs_shrink(fx.fs);
}

/* copy_file_range(2): the host's, with no data read here and no request; setuid goes as with a write. */
static void copy_range(void **state)
{
	struct file *in, *out;
	char buf[16] = "";
	uint64_t sent;
	struct stat st;

	(void)state;
	write_host("from", "0123456789");
	write_host("to", "abcdefghij");
	assert_int_equal(do_open("from", O_RDONLY, 0, &in), 0);
	assert_int_equal(do_open("to", O_RDWR, 0, &out), 0);
	sent = p9_conn_requests(fx.conn);
	assert_int_equal(file_copy_range(in, 2, out, 5, 3), 3);
	assert_int_equal(file_copy_range(in, 8, out, 10, 100), 2);
	assert_int_equal(file_copy_range(in, 10, out, 0, 5), 0);
	assert_int_equal(p9_conn_requests(fx.conn), sent);
	assert_int_equal(file_read_kernel(out, buf, sizeof(buf), 0), 12);
	assert_string_equal(buf, "abcde234ij89");
	assert_int_equal(stat(host("to"), &st), 0);
	assert_int_equal(st.st_size, 12);
	file_unref(in);
	/* Directories have none, neither two nor one and a file. */
	assert_int_equal(do_open(".", O_RDONLY | O_DIRECTORY, 0, &in), 0);
	assert_int_equal(file_copy_range(in, 0, out, 0, 1), -EOPNOTSUPP);
	assert_int_equal(file_copy_range(out, 0, in, 0, 1), -EOPNOTSUPP);
	file_unref(out);
	assert_int_equal(do_open(".", O_RDONLY | O_DIRECTORY, 0, &out), 0);
	assert_int_equal(file_copy_range(in, 0, out, 0, 1), -EOPNOTSUPP);
	file_unref(in);
	file_unref(out);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(stat_deep_is_one_request),
		TEST(symlinks),
		TEST(read_file),
		TEST(readdir_all),
		TEST(readdir_nodes),
		TEST(create_write),
		TEST(create_through_symlink),
		TEST(links),
		TEST(renames),
		TEST(attributes),
		TEST(permissions),
		TEST(tmpfile_and_xattr),
		TEST(nodes_and_statfs),
		TEST(shrink),
		TEST(fids_wrap),
		TEST(copy_range),
	};
	/* It does not matter to the server, and takes seconds. */
	const struct CMUnitTest once[] = {TEST(acl_of_an_old_file)};
	int ret = cmocka_run_group_tests_name("exclusive", tests, init, NULL);

	shared_mode = true;
	ret += cmocka_run_group_tests_name("server", once, NULL, NULL);
	return ret + cmocka_run_group_tests_name("shared", tests, NULL, NULL);
}
