/* tests/fs/virtiofs_rules.c - what a client of our daemon that breaks the rules is told. */
#include "tests/fs/virtiofs_clients.h"

/* ---- a client that breaks the rules ---- */

static int64_t raw(struct client *c, struct fuse_request req, const void *data, size_t size,
		   void *reply, size_t reply_size)
{
	struct vdev_call call = {.req = req,
				 .inline_data = data,
				 .inline_size = size,
				 .reply = reply,
				 .reply_size = reply_size};

	as(c);
	return vdev_call(c->dev, &call);
}

static int64_t raw_lookup(struct client *c, uint64_t dir, const char *name,
			  struct fuse_entry_out *ret)
{
	return raw(c,
		   (struct fuse_request){.opcode = FUSE_LOOKUP,
					 .nodeid = dir,
					 .name = {name},
					 .name_len = {strlen(name)}},
		   NULL, 0, ret, sizeof(*ret));
}

static int64_t raw_setup(struct client *c, uint64_t node, uint64_t foffset, uint64_t moffset,
			 uint64_t len, uint64_t flags)
{
	const struct fuse_setupmapping_in arg = {.fh = UINT64_MAX,
						 .foffset = foffset,
						 .len = len,
						 .flags = flags,
						 .moffset = moffset};

	return raw(c,
		   (struct fuse_request){.opcode = FUSE_SETUPMAPPING, .nodeid = node, .arg = &arg},
		   NULL, 0, NULL, 0);
}

static void bad_mappings(void **state)
{
	struct fuse_removemapping_in rm = {.count = 1};
	struct fuse_removemapping_one one = {.moffset = WINDOW, .len = RANGE};
	struct fuse_entry_out f, l;
	struct client a;
	const uint64_t rw = 3;

	(void)state;
	put_host("f", "x");
	assert_int_equal(symlink("f", host_path("l")), 0);
	client_start(&a, "dax=always");
	assert_true(raw_lookup(&a, FUSE_ROOT, "f", &f) > 0);
	assert_true(raw_lookup(&a, FUSE_ROOT, "l", &l) > 0);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, WINDOW, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, WINDOW - 4096, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, WINDOW + 4096, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, UINT64_MAX - 4095, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 4096, UINT64_MAX - 4095, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 1, 0, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 1, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, 0, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, UINT64_MAX & ~4095ull, 0, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, RANGE, 0), -EINVAL);
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, RANGE, 8), -EINVAL);
	assert_int_equal(raw_setup(&a, l.nodeid, 0, 0, RANGE, rw), -EINVAL);
	assert_int_equal(raw_setup(&a, FUSE_ROOT, 0, 0, RANGE, rw), -EISDIR);
	assert_int_equal(raw_setup(&a, 12345, 0, 0, RANGE, rw), -ESTALE);
	/* Well-formed, but this client (the window's code) did not ask: refused there. */
	assert_int_equal(raw_setup(&a, f.nodeid, 0, 0, RANGE, rw), -ENOSPC);
	assert_int_equal(raw(&a,
			     (struct fuse_request){
				     .opcode = FUSE_REMOVEMAPPING, .nodeid = FUSE_ROOT, .arg = &rm},
			     &one, sizeof(one), NULL, 0),
			 -EINVAL);
	rm.count = 1000;
	assert_int_equal(raw(&a,
			     (struct fuse_request){
				     .opcode = FUSE_REMOVEMAPPING, .nodeid = FUSE_ROOT, .arg = &rm},
			     &one, sizeof(one), NULL, 0),
			 -EINVAL);
	assert_int_equal(stat_of(&a, "f").size, 1);
	client_stop(&a);
	remove_all();
}

static void bad_names(void **state)
{
	static const char *const names[] = {"..", ".", "a/b", "/etc", "../x", ""};
	struct fuse_open_in open_in = {.flags = O_RDONLY};
	struct fuse_open_out out;
	struct fuse_entry_out e;
	struct client a;

	(void)state;
	assert_int_equal(symlink("/proc/self/root/etc/passwd", host_path("l")), 0);
	client_start(&a, "");
	for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		assert_int_equal(raw_lookup(&a, FUSE_ROOT, names[i], &e), -EINVAL);
	assert_true(raw_lookup(&a, FUSE_ROOT, "l", &e) > 0);
	assert_int_equal(e.attr.mode & S_IFMT, S_IFLNK);
	assert_int_equal(
		raw(&a,
		    (struct fuse_request){.opcode = FUSE_OPEN, .nodeid = e.nodeid, .arg = &open_in},
		    NULL, 0, &out, sizeof(out)),
		-ENXIO);
	/* below a file, a link */
	assert_int_equal(raw_lookup(&a, e.nodeid, "passwd", &e), -ENOTDIR);
	client_stop(&a);
	remove_all();
}

/* Nodes and handles until there are no more; the neighbour does not notice, and giving back helps. */
static void exhaustion(void **state)
{
	struct fuse_open_in open_in = {.flags = O_RDONLY};
	struct fuse_open_out out = {0};
	struct fuse_entry_out e, first;
	struct client a, b;
	char name[16];
	int64_t got = 0;
	unsigned n;

	(void)state;
	for (n = 0; n < NOFILE_OF_DAEMON; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		put_host(name, "x");
	}
	client_start(&a, "");
	client_start(&b, "");
	for (n = 0; n < NOFILE_OF_DAEMON && got >= 0; n++) {
		snprintf(name, sizeof(name), "f%u", n);
		got = raw_lookup(&a, FUSE_ROOT, name, &e);
		if (!n)
			first = e;
	}
	assert_int_equal(got, -ENFILE);
	assert_int_equal(raw(&a,
			     (struct fuse_request){
				     .opcode = FUSE_OPEN, .nodeid = first.nodeid, .arg = &open_in},
			     NULL, 0, &out, sizeof(out)),
			 -ENFILE);
	stat_of(&b, "f5");
	client_stop(&a);
	client_start(&a, "");
	assert_true(raw_lookup(&a, FUSE_ROOT, "f0", &first) > 0);
	for (n = 0, got = 0; n < NOFILE_OF_DAEMON && got >= 0; n++)
		got = raw(&a,
			  (struct fuse_request){
				  .opcode = FUSE_OPEN, .nodeid = first.nodeid, .arg = &open_in},
			  NULL, 0, &out, sizeof(out));
	assert_int_equal(got, -ENFILE);
	stat_of(&b, "f6");
	client_stop(&a);
	client_stop(&b);
	remove_all();
}

static _Atomic bool renamer_stop;

/* d goes out of the tree and back, a link to the outside takes its place. */
static void *renamer(void *arg)
{
	char in[100], out[100];

	snprintf(in, sizeof(in), "%s/d", tree);
	snprintf(out, sizeof(out), "%s/away", top);
	while (!atomic_load(&renamer_stop)) {
		if (rename(in, out) == 0) {
			(void)!symlink(top, in);
			(void)unlink(in);
			(void)!rename(out, in);
		}
	}
	return arg;
}

/* Nothing that is found at d/secret is ever the file of that name outside. */
static void racing_renamer(void **state)
{
	struct client a;
	struct moat_statx st;
	pthread_t thread;
	struct file *f;
	char path[100];
	unsigned found = 0;
	int fd;

	(void)state;
	snprintf(path, sizeof(path), "%s/secret", top);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	assert_int_equal(write(fd, "outside", 7), 7);
	close(fd);
	assert_int_equal(mkdir(host_path("d"), 0755), 0);
	put_host("d/secret", "in");
	client_start(&a, "cache=none");
	atomic_store(&renamer_stop, false);
	assert_int_equal(pthread_create(&thread, NULL, renamer, NULL), 0);
	for (int64_t end = now_ms() + 1500; now_ms() < end;) {
		if (fs_stat(as(&a), "d/secret", &st) == 0) {
			assert_int_equal(st.size, 2);
			found++;
		}
		if (fs_open(as(&a), "d/secret", O_RDONLY, 0, &f) == 0) {
			char buf[16];

			assert_in_range(fs_read(f, buf, sizeof(buf)), 0, 2);
			fs_close(f);
		}
	}
	atomic_store(&renamer_stop, true);
	pthread_join(thread, NULL);
	assert_true(found > 0);
	client_stop(&a);
	remove_all();
}

/* ---- walks without locks, while the same client changes what they go over ---- */

struct changer {
	struct client *c;
	_Atomic bool ready, stop;
	unsigned rounds;
};

static int look(struct client *c, const char *path)
{
	struct moat_statx st;
	int err = fs_stat(as(c), path, &st);

	if (err)
		return err;
	/* keep/d/f holds 4 bytes, m/f 2 wherever it is. */
	if (strstr(path, "d/f"))
		assert_int_equal(st.size, 4);
	else if (strstr(path, "/f"))
		assert_int_equal(st.size, 2);
	return 0;
}

/* What it has changed it sees by its very next look. */
static void change_once(struct client *c, unsigned i)
{
	const unsigned mode = i & 1 ? 0755 : 0711;

	assert_int_equal(fs_rename(as(c), "m", "n", 0), 0);
	assert_int_equal(look(c, "n/f"), 0);
	assert_int_equal(look(c, "m/f"), -ENOENT);
	assert_int_equal(fs_rename(as(c), "n", "m", 0), 0);
	assert_int_equal(look(c, "m/f"), 0);
	assert_int_equal(look(c, "n/f"), -ENOENT);
	assert_int_equal(fs_creat(as(c), "m/tmp", 0644), 0);
	assert_int_equal(look(c, "m/tmp"), 0);
	assert_int_equal(fs_unlink(as(c), "m/tmp"), 0);
	assert_int_equal(look(c, "m/tmp"), -ENOENT);
	assert_int_equal(fs_chmod(as(c), "keep", mode), 0);
	assert_int_equal(stat_of(c, "keep").mode & 07777, mode);
}

static void *changer_main(void *arg)
{
	struct changer *ch = arg;

	rcu_thread_begin();
	atomic_store(&ch->ready, true);
	while (!atomic_load(&ch->stop))
		change_once(ch->c, ch->rounds++);
	vfs_run_deferred();
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void walk_while_changing(const char *options)
{
	struct client a;
	struct changer ch = {.c = &a};
	pthread_t thread;

	client_start(&a, options);
	assert_int_equal(look(&a, "m/f"), 0);
	assert_int_equal(pthread_create(&thread, NULL, changer_main, &ch), 0);
	while (!atomic_load(&ch.ready))
		sched_yield();
	for (int64_t end = now_ms() + 400; now_ms() < end;) {
		static const char *const paths[] = {"m/f", "n/f", "m/tmp"};

		assert_int_equal(look(&a, "keep/d/f"), 0);
		assert_int_equal(look(&a, "keep/l/f"), 0);
		assert_int_equal(look(&a, "keep/none"), -ENOENT);
		assert_int_equal(look(&a, "keep/d/f/x"), -ENOTDIR);
		assert_int_equal(look(&a, "keep/d/../d/f"), 0);
		for (unsigned i = 0; i < 3; i++) {
			int err = look(&a, paths[i]);

			assert_true(err == 0 || err == -ENOENT);
		}
	}
	atomic_store(&ch.stop, true);
	pthread_join(thread, NULL);
	assert_true(ch.rounds > 0);
	assert_int_equal(look(&a, "m/f"), 0);
	assert_int_equal(look(&a, "n/f"), -ENOENT);
	client_stop(&a);
}

static void racing_walks(void **state)
{
	(void)state;
	assert_int_equal(mkdir(host_path("keep"), 0755), 0);
	assert_int_equal(mkdir(host_path("keep/d"), 0755), 0);
	put_host("keep/d/f", "keep");
	assert_int_equal(mkdir(host_path("keep/l"), 0755), 0);
	put_host("keep/l/f", "it");
	assert_int_equal(mkdir(host_path("m"), 0755), 0);
	put_host("m/f", "in");
	walk_while_changing("cache=always");
	walk_while_changing("cache=auto");
	walk_while_changing("coherence=versions");
	walk_while_changing("cache=none");
	remove_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bad_mappings), cmocka_unit_test(bad_names),
		cmocka_unit_test(exhaustion),	cmocka_unit_test(racing_renamer),
		cmocka_unit_test(racing_walks),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
