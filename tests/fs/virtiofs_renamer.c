/*
 * tests/fs/virtiofs_renamer.c - a hostile client of our daemon, and a host that renames under its feet: nothing outside the tree is ever reached.
 *
 * fs_virtiofs_renamer [SECONDS [SEED]]. Two threads send any request on any node with any name ("..", slashes, links and devices that they made themselves);
 * two others move directories of the tree out of it and back and exchange files with links to the outside. What lies outside has inode numbers,
 * contents and times that must neither be seen nor change. tests/fs/soak runs it for ten minutes.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "tests/virtiofs_front.h"

#define NODES 48
#define SECRET "outside"
#define INSIDE "inside"

static char top[64], tree[80];
static struct front front;
static _Atomic bool stop;
static _Atomic unsigned long reads, links_seen, refused;
static uint64_t forbidden[4]; /* inode numbers */

static void die(const char *what)
{
	fprintf(stderr, "virtiofs_renamer: %s\n", what);
	abort();
}

static const char *below(char buf[160], const char *dir, const char *name)
{
	snprintf(buf, 160, "%s/%s", dir, name);
	return buf;
}

static void put(const char *dir, const char *name, const char *text)
{
	char path[160];
	int fd = open(below(path, dir, name), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);

	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(path);
	close(fd);
}

/* ---- the host ---- */

/* d goes out of the tree and back; links that lead out take its place. */
static void *mover(void *arg)
{
	static const char *const targets[] = {"..", "/", "../outside", "/proc/self/root", "../.."};
	char in[160], out[160];

	below(in, tree, "d");
	below(out, top, "away");
	for (unsigned i = 0; !atomic_load(&stop); i++)
		if (rename(in, out) == 0) {
			(void)!symlink(i % 7 ? targets[i % 5] : top, in);
			(void)unlink(in);
			if (rename(out, in) < 0)
				die("d does not come back");
		}
	return arg;
}

/* A directory and a file change places with links to the outside, all the time. */
static void *exchanger(void *arg)
{
	static const char *const pairs[][2] = {{"race/a", "race/b"}, {"race/f", "race/g"}};
	char one[160], other[160];

	for (unsigned i = 0; !atomic_load(&stop); i++) {
		below(one, tree, pairs[i % 2][0]);
		below(other, tree, pairs[i % 2][1]);
		if (renameat2(AT_FDCWD, one, AT_FDCWD, other, RENAME_EXCHANGE) < 0)
			die("what is exchanged went away");
	}
	return arg;
}

/* ---- the client ---- */

struct attacker {
	unsigned qi;
	uint64_t seed;
	uint64_t node[NODES]; /* a lookup each; [0]: the root */
	uint32_t mode[NODES];
};

static unsigned rnd(struct attacker *a, unsigned n)
{
	a->seed = a->seed * 6364136223846793005ull + 1442695040888963407ull;
	return (unsigned)(a->seed >> 33) % n;
}

static const char *any_name(struct attacker *a)
{
	static const char *const names[] = {"..",	   ".",	 "/",	    "d",	  "race",
					    "a",	   "b",	 "f",	    "g",	  "secret",
					    "n0",	   "n1", "n2",	    "../outside", "d/../..",
					    "/etc/passwd", "n3", "outside", "../secret",  "away"};

	return names[rnd(a, sizeof(names) / sizeof(names[0]))];
}

/* Of what it may change or remove: the race goes on. */
static const char *own_name(struct attacker *a)
{
	static const char *const names[] = {"n0", "n1", "n2",	"n3",		"n4",
					    "..", ".",	"../n", "../outside/n", "/tmp/n"};

	return names[rnd(a, sizeof(names) / sizeof(names[0]))];
}

static unsigned any_node(struct attacker *a)
{
	return rnd(a, NODES);
}

/* A node that the daemon gave: looked at, and kept in place of another, which is forgotten. */
static void keep(struct attacker *a, const struct fuse_entry_out *e)
{
	unsigned at = 1 + rnd(a, NODES - 1);

	for (unsigned i = 0; i < sizeof(forbidden) / sizeof(forbidden[0]); i++)
		if (e->attr.ino == forbidden[i])
			die("an inode of the outside was looked up");
	if (S_ISLNK(e->attr.mode))
		links_seen++;
	if (a->node[at] > 1) {
		const struct fuse_forget_in in = {.nlookup = 1};
		const struct front_request r = {
			.opcode = FUSE_FORGET, .nodeid = a->node[at], .arg = &in};

		front_post(&front, a->qi, &r);
	}
	a->node[at] = e->nodeid;
	a->mode[at] = e->attr.mode;
}

/* A request whose answer begins with an entry. */
static void entry_call(struct attacker *a, const struct front_request *r)
{
	struct fuse_entry_out e = {0};

	if (front_call(&front, a->qi, r, &e, sizeof(e)) < 0)
		refused++;
	else
		keep(a, &e);
}

static void try_read(struct attacker *a, unsigned at)
{
	const struct fuse_open_in open_in = {.flags = rnd(a, 2) ? O_RDONLY : O_RDWR};
	const struct front_request o = {
		.opcode = FUSE_OPEN, .nodeid = a->node[at], .arg = &open_in};
	struct fuse_open_out opened = {0};
	struct fuse_read_in read_in = {.size = 64};
	struct fuse_release_in release_in = {0};
	struct front_request r = {.opcode = FUSE_READ, .nodeid = a->node[at], .arg = &read_in};
	char text[64] = "";

	if (front_call(&front, a->qi, &o, &opened, sizeof(opened)) < 0) {
		refused++;
		return;
	}
	if (a->mode[at] && !S_ISREG(a->mode[at]))
		die("something was opened that is no file");
	read_in.fh = release_in.fh = opened.fh;
	if (front_call(&front, a->qi, &r, text, sizeof(text) - 1) > 0) {
		if (strstr(text, SECRET))
			die("a file of the outside was read");
		reads++;
	}
	r = (struct front_request){
		.opcode = FUSE_RELEASE, .nodeid = a->node[at], .arg = &release_in};
	(void)front_call(&front, a->qi, &r, NULL, 0);
}

static void try_list(struct attacker *a, unsigned at)
{
	const struct fuse_open_in open_in = {0};
	const struct front_request o = {
		.opcode = FUSE_OPENDIR, .nodeid = a->node[at], .arg = &open_in};
	struct fuse_open_out opened = {0};
	struct fuse_read_in read_in = {.size = 4096};
	struct fuse_release_in release_in = {0};
	struct front_request r = {
		.opcode = FUSE_READDIRPLUS, .nodeid = a->node[at], .arg = &read_in};
	static _Thread_local char buf[4096];
	struct fuse_entry e;
	size_t off = 0;
	ssize_t got;

	if (front_call(&front, a->qi, &o, &opened, sizeof(opened)) < 0) {
		refused++;
		return;
	}
	read_in.fh = release_in.fh = opened.fh;
	got = front_call(&front, a->qi, &r, buf, sizeof(buf));
	while (got > 0 && fuse_next_entry(buf, (size_t)got, &off, true, &e) == 1)
		if (e.node.nodeid)
			keep(a, &e.node);
	r = (struct front_request){
		.opcode = FUSE_RELEASEDIR, .nodeid = a->node[at], .arg = &release_in};
	(void)front_call(&front, a->qi, &r, NULL, 0);
}

static void try_make(struct attacker *a, unsigned at)
{
	static const char *const targets[] = {"/", "..", "../outside/secret", "/proc/self/fd/3",
					      "../../../../etc"};
	static const uint32_t types[] = {S_IFCHR, S_IFBLK, S_IFIFO, S_IFSOCK, S_IFREG};
	const struct fuse_create_in create = {.flags = O_CREAT | O_RDWR | O_TRUNC, .mode = 0644};
	const struct fuse_mkdir_in mkdir_in = {.mode = 0755};
	const struct fuse_mknod_in mknod_in = {.mode = types[rnd(a, 5)] | 0666, .rdev = 0x105};
	const struct fuse_link_in link_in = {.oldnodeid = a->node[any_node(a)]};
	struct front_request r = {.nodeid = a->node[at], .name = {own_name(a)}};
	struct fuse_release_in release_in = {0};
	uint8_t out[sizeof(struct fuse_entry_out) + sizeof(struct fuse_open_out)];

	switch (rnd(a, 6)) {
	case 0:
		r.opcode = FUSE_SYMLINK;
		r.name[1] = targets[rnd(a, 5)];
		break;
	case 1:
		r.opcode = FUSE_LINK;
		r.arg = &link_in;
		break;
	case 2:
		r.opcode = FUSE_MKNOD;
		r.arg = &mknod_in;
		break;
	case 3:
		r.opcode = FUSE_MKDIR;
		r.arg = &mkdir_in;
		break;
	default:
		r.opcode = FUSE_CREATE;
		r.arg = &create;
		if (front_call(&front, a->qi, &r, out, sizeof(out)) < 0)
			return;
		keep(a, (const void *)out);
		memcpy(&release_in.fh, out + sizeof(struct fuse_entry_out), sizeof(uint64_t));
		r = (struct front_request){.opcode = FUSE_RELEASE, .nodeid = 1, .arg = &release_in};
		(void)front_call(&front, a->qi, &r, NULL, 0);
		return;
	}
	entry_call(a, &r);
}

static void try_change(struct attacker *a, unsigned at)
{
	const struct fuse_setattr_in setattr = {.valid = FATTR_MODE | (rnd(a, 2) ? FATTR_MTIME : 0),
						.mode = 0700 | rnd(a, 0100)};
	const struct fuse_rename2_in rename_in = {.newdir = a->node[any_node(a)],
						  .flags = rnd(a, 3)};
	struct front_request r = {.nodeid = a->node[at], .name = {own_name(a), own_name(a)}};

	switch (rnd(a, 5)) {
	case 0:
		r.opcode = FUSE_SETATTR;
		r.arg = &setattr;
		break;
	case 1:
		r.opcode = FUSE_RENAME2;
		r.arg = &rename_in;
		break;
	case 2:
		r.opcode = FUSE_RMDIR;
		break;
	default:
		r.opcode = FUSE_UNLINK;
	}
	(void)front_call(&front, a->qi, &r, NULL, 0);
}

static void *attack(void *arg)
{
	struct attacker *a = arg;

	a->node[0] = FUSE_ROOT;
	while (!atomic_load(&stop)) {
		unsigned at = rnd(a, 3) ? any_node(a) : 0;
		struct front_request r = {.nodeid = a->node[at]};

		switch (rnd(a, 10)) {
		case 0:
			try_make(a, at);
			break;
		case 1:
		case 2:
			try_change(a, at);
			break;
		case 3:
		case 4:
			/* Mostly files, but not only. */
			for (unsigned i = 0; i < 8 && !S_ISREG(a->mode[at]); i++)
				at = any_node(a);
			try_read(a, at);
			break;
		case 5:
			try_list(a, at);
			break;
		case 6:
			r.opcode = FUSE_READLINK;
			(void)front_call(&front, a->qi, &r, NULL, 0);
			break;
		default:
			r.opcode = FUSE_LOOKUP;
			r.name[0] = any_name(a);
			entry_call(a, &r);
		}
	}
	return NULL;
}

/* ---- the whole ---- */

static void expect_names(const char *dir, const char *allowed)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (e->d_name[0] != '.' && !strstr(allowed, e->d_name))
			die("something was made outside");
	if (!d || closedir(d) < 0)
		die(dir);
}

static uint64_t ino_of(const char *dir, const char *name)
{
	struct stat st;
	char path[160];

	if (stat(below(path, dir, name), &st) < 0)
		die(path);
	return st.st_ino;
}

static void make_tree(struct stat *ret_secret)
{
	static const char *const dirs[] = {"outside", "tree", "tree/d", "tree/race", "tree/race/a"};
	const char *tmp = getenv("TMPDIR");
	char path[160];

	snprintf(top, sizeof(top), "%.40s/moat-renamer.XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(top))
		die("no directory");
	snprintf(tree, sizeof(tree), "%s/tree", top);
	for (unsigned i = 0; i < sizeof(dirs) / sizeof(dirs[0]); i++)
		if (mkdir(below(path, top, dirs[i]), 0755) < 0)
			die(path);
	put(top, "secret", SECRET);
	put(top, "outside/secret", SECRET);
	put(tree, "d/secret", INSIDE);
	put(tree, "race/a/secret", INSIDE);
	put(tree, "race/f", INSIDE);
	if (symlink("../../outside", below(path, tree, "race/b")) < 0 ||
	    symlink("../../outside/secret", below(path, tree, "race/g")) < 0)
		die(path);
	forbidden[0] = ino_of(top, ".");
	forbidden[1] = ino_of(top, "secret");
	forbidden[2] = ino_of(top, "outside");
	forbidden[3] = ino_of(top, "outside/secret");
	if (stat(below(path, top, "outside/secret"), ret_secret) < 0)
		die(path);
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 3;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 10) : (uint64_t)time(NULL);
	static struct attacker attackers[2];
	void *(*const mains[])(void *) = {mover, exchanger, attack, attack};
	pthread_t threads[4];
	struct stat before, after;
	char path[160], cmd[100];
	pid_t pid;
	int status;

	make_tree(&before);
	if (front_spawn(&front, tree, &pid))
		die("no daemon");
	front_init(&front, FUSE_POSIX_ACL | FUSE_SUBMOUNTS | FUSE_DO_READDIRPLUS);
	for (unsigned i = 0; i < 4; i++) {
		struct attacker *a = i >= 2 ? &attackers[i - 2] : NULL;

		if (a)
			*a = (struct attacker){.qi = i - 1, .seed = seed + i};
		if (pthread_create(&threads[i], NULL, mains[i], a))
			die("no thread");
	}
	sleep(seconds);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	front_close(&front);
	if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status))
		die("the daemon was killed");
	expect_names(top, "tree outside secret away");
	expect_names(below(path, top, "outside"), "secret");
	if (stat(below(path, top, "outside/secret"), &after) < 0 ||
	    after.st_mode != before.st_mode || after.st_nlink != 1 ||
	    after.st_mtim.tv_nsec != before.st_mtim.tv_nsec ||
	    after.st_ctim.tv_nsec != before.st_ctim.tv_nsec)
		die("the file outside was changed");
	printf("%lu reads, %lu links looked up, %lu requests refused, seed %llu\n", reads,
	       links_seen, refused, (unsigned long long)seed);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", top);
	return system(cmd) || !reads || !links_seen;
}
