/*
 * tests/fs/differential.c [OPERATIONS [SEED [FROM]]] - a seeded stream of path and file operations, each run on the host's tmpfs and
 * on the backend; every result, errno and attribute must agree, and the trees at the end.
 *
 * Not compared: inode and device numbers (only which paths share one), directories' sizes, the order of readdir, times (but that a time
 * which was set is what stat shows). From operation FROM on everything is printed and compared after each. A difference prints the seed, the operation's number and both results. Exit status 77: no tmpfs of our own here.
 */
#include <linux/capability.h>

#include "tests/fs/differential.h"
#include "vfs/perm.h"

struct fs_env e;
uint64_t rng;
long op_nr;
uint64_t seed;
int verbose;
char what[20000];
char name255[256], name256[257];

struct diff_fd fds[FDS];
char p1[8192], p2[8192];

uint32_t rnd(uint32_t n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (uint32_t)((rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

/* What each prefix of the operation's paths is on both sides, with the credentials as they are. */
static void explain(const char *path)
{
	struct moat_statx h, o;
	char *copy, target[4096];

	if (strlen(path) > 300)
		return;
	copy = strdup(path);

	for (size_t i = 1; i <= strlen(path); i++) {
		if (path[i] && path[i] != '/')
			continue;
		copy[i] = '\0';
		memset(&h, 0, sizeof(h));
		memset(&o, 0, sizeof(o));
		printf("  %.80s: host %d", copy, host_stat(copy, false, &h));
		printf(" mode %o uid %u gid %u nlink %u ino %llu dev %u", h.mode, h.uid, h.gid,
		       h.nlink, (unsigned long long)h.ino, h.dev_minor);
		printf("; ours %d", fs_lstat(&e, copy, &o));
		printf(" mode %o uid %u gid %u nlink %u ino %llu dev %u\n", o.mode, o.uid, o.gid,
		       o.nlink, (unsigned long long)o.ino, o.dev_minor);
		if (S_ISLNK(o.mode) && fs_readlink(&e, copy, target, sizeof(target)) > 0)
			printf("    -> %.200s\n", target);
		copy[i] = path[i];
	}
	free(copy);
}

/* Without exit handlers: a leak checker would look for /proc in this root. */
void finish(int status)
{
	fflush(stdout);
	_exit(status);
}

static void differ(const char *field, long long host, long long ours)
{
	printf("seed %llu, operation %ld: %s\n  %s: host %lld (%s), ours %lld (%s)\n",
	       (unsigned long long)seed, op_nr, what, field, host,
	       host < 0 ? strerror((int)-host) : "", ours, ours < 0 ? strerror((int)-ours) : "");
	explain(p1);
	explain(p2);
	finish(1);
}

void same(const char *field, long long host, long long ours)
{
	if (host != ours)
		differ(field, host, ours);
}

/* ---- inode numbers up to renaming ---- */

#define IDS 65536
static struct {
	uint64_t key, value;
	bool used;
} ids[2][IDS];

/* Within one look at the whole tree numbers stand for inodes: equal on one side exactly if equal on the other. */
static void same_inode(const struct moat_statx *h, const struct moat_statx *o)
{
	uint64_t hk = h->ino * 4096 + h->dev_minor, ok = o->ino * 4096 + o->dev_minor;
	unsigned at = (unsigned)(hk * 0x9e3779b97f4a7c15ull >> 48);

	for (int pass = 0; pass < 2; pass++) {
		uint64_t key = pass ? ok : hk, value = pass ? hk : ok;

		at = (unsigned)(key * 0x9e3779b97f4a7c15ull >> 48);
		while (ids[pass][at].used && ids[pass][at].key != key)
			at = (at + 1) % IDS;
		if (!ids[pass][at].used)
			ids[pass][at].value = value;
		ids[pass][at].used = true;
		ids[pass][at].key = key;
		if (ids[pass][at].value != value)
			differ("inode number", (long long)h->ino, (long long)o->ino);
	}
}

static bool differential_dax(void)
{
	const char *options = getenv("VIRTIOFS_OPTIONS");

	return options && strstr(options, "dax=");
}

void same_stat(const struct moat_statx *h, const struct moat_statx *o)
{
	same("mode", h->mode, o->mode);
	same("nlink", h->nlink, o->nlink);
	same("uid", h->uid, o->uid);
	same("gid", h->gid, o->gid);
	if (!S_ISDIR(h->mode)) {
		same("size", (long long)h->size, (long long)o->size);
		/* A hole that is read through a mapping takes room on a tmpfs, and DAX reads are that. */
		if (!differential_dax())
			same("blocks", (long long)h->blocks, (long long)o->blocks);
	}
	same("rdev major", h->rdev_major, o->rdev_major);
	same("rdev minor", h->rdev_minor, o->rdev_minor);
	same("mask", h->mask & STATX_BASIC_STATS, o->mask & STATX_BASIC_STATS);
	same("blksize", h->blksize, o->blksize);
}

/* ---- paths ---- */

static const char *pick_name(void)
{
	static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h"};
	uint32_t n = rnd(100);

	if (n < 80)
		return names[rnd(8)];
	if (n < 86)
		return ".";
	if (n < 95)
		return "..";
	if (n < 97)
		return name255;
	if (n < 98)
		return name256;
	return "nobody";
}

char *pick_path(char *buf)
{
	unsigned depth = 1 + rnd(rnd(3) ? 2 : 5);
	char *p = buf;

	*p = '\0';
	if (!rnd(300))
		return buf;
	if (!rnd(400)) { /* as long as a path may be, or one more */
		size_t len = rnd(2) ? 4095 : 4096;

		memset(buf, '/', len);
		buf[len - 1] = "abcd"[rnd(4)];
		buf[len] = '\0';
		return buf;
	}
	if (rnd(2))
		*p++ = '/';
	for (unsigned i = 0; i < depth; i++) {
		const char *n = pick_name();

		strcpy(p, n);
		p += strlen(n);
		if (i + 1 < depth || !rnd(12))
			*p++ = '/';
		if (!rnd(20))
			*p++ = '/';
	}
	*p = '\0';
	return buf;
}

/* ---- the trees ---- */

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int split(char *list, char **names, int max)
{
	int n = 0;

	for (char *p = strtok(list, "\n"); p && n < max; p = strtok(NULL, "\n"))
		names[n++] = p;
	qsort(names, (size_t)n, sizeof(*names), by_name);
	return n;
}

static void compare_tree(const char *path, int depth)
{
	char *hb = malloc(70000), *ob = malloc(70000), *child = malloc(8192);
	char *hn[100], *on[100];
	struct moat_statx h, o;
	int n;

	if (!*path)
		path = "/";
	snprintf(what, sizeof(what), "tree at %.200s", path);
	same("lstat", host_stat(path, false, &h), fs_lstat(&e, path, &o));
	same_stat(&h, &o);
	same_inode(&h, &o);
	if (S_ISDIR(h.mode) && depth < 12 && strlen(path) < 3000) {
		n = fs_list(&e, path, ob, 70000);
		/* A removed directory that is still mounted somewhere: readdir(3) hides -ENOENT. */
		same("list", host_list(path, hb, 70000), n == -ENOENT ? 0 : n);
		if (verbose)
			printf("%s: host:\n%sours:\n%s", path, hb, ob);
		n = split(hb, hn, 100);
		same("entries", n, split(ob, on, 100));
		for (int i = 0; i < n; i++) {
			same("name", 0, strcmp(hn[i], on[i]));
			snprintf(child, 8192, "%s/%s", path[1] ? path : "", hn[i]);
			compare_tree(child, depth + 1);
		}
	}
	free(hb);
	free(ob);
	free(child);
}

/* The whole tree as root sees it, and what is open. */
static void compare_all(void)
{
	struct cred *was = cred_ref(e.cred);
	struct moat_statx h, o;

	from_cwd();
	if (host_become(0, 0, NULL, 0, CAP_FULL) || fs_env_become(&e, 0, 0, NULL, 0, CAP_FULL))
		finish(1);
	memset(ids, 0, sizeof(ids));
	compare_tree("", 0);
	for (int i = 0; i < FDS; i++) {
		if (!fds[i].ours || host_fstat(fds[i].host, &h) ||
		    file_stat(fds[i].ours, &(struct stat_args){.mask = STATX_BASIC_STATS}, &o))
			continue;
		snprintf(what, sizeof(what), "open file %d", i);
		same_stat(&h, &o);
	}
	if (host_become(was->fsuid, was->fsgid, was->groups, was->ngroups, was->cap_effective) ||
	    fs_env_become(&e, was->fsuid, was->fsgid, was->groups, was->ngroups,
			  was->cap_effective))
		exit(1);
	cred_unref(was);
}

static int read_int(const char *path)
{
	FILE *f = fopen(path, "r");
	int v = 0;

	if (f) {
		if (fscanf(f, "%d", &v) != 1)
			v = 0;
		fclose(f);
	}
	return v;
}

int main(int argc, char **argv)
{
	long count = argc > 1 ? atol(argv[1]) : 20000;
	char scratch[64];
	int err;

	seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	verbose = argc > 3 ? atoi(argv[3]) : 0;
	rng = seed * 0x9e3779b97f4a7c15ull + 1;
	memset(name255, 'n', 255);
	memset(name256, 'm', 256);
	vfs_protected_symlinks = read_int("/proc/sys/fs/protected_symlinks");
	vfs_protected_hardlinks = read_int("/proc/sys/fs/protected_hardlinks");
	vfs_protected_regular = read_int("/proc/sys/fs/protected_regular");
	vfs_protected_fifos = read_int("/proc/sys/fs/protected_fifos");
	/* Forks: before anything of ours has a thread. */
	err = host_init();
	if (err) {
		printf("no tmpfs of our own to compare with: %s\n", strerror(-err));
		return 77;
	}
	if (host_scratch(scratch, sizeof(scratch)) || setenv("TMPDIR", scratch, 1))
		return 1;
	if (fs_env_process_init() || fs_env_init(&e) || host_enter())
		return 1;
	/* As on the host, the root is a mount with something below it. */
	if (fs_mkdir(&e, "/r", 0755) ||
	    (GOFER ? fs_bind(&e, "/r", "/r", false) : fs_mount(&e, "/r", "tmpfs", 0, "mode=755")) ||
	    fs_chdir(&e, "/r"))
		return 1;
	vfs_path_unref(&e.root);
	e.root = e.cwd;
	vfs_path_ref(&e.root);
	if (enter_overlay())
		return 1;
	vfs_path_unref(&e.root);
	e.root = e.cwd;
	vfs_path_ref(&e.root);
	host_umask(022);
	for (op_nr = 0; op_nr < count; op_nr++) {
		do_op();
		if (op_nr % 2000 == 1999 || (verbose && op_nr >= verbose))
			compare_all();
	}
	from_cwd();
	for (int i = 0; i < FDS; i++) {
		if (!fds[i].ours)
			continue;
		host_close(fds[i].host);
		fs_close(fds[i].ours);
	}
	compare_all();
	fs_env_fini(&e);
	printf("%ld operations, seed %llu: no difference\n", count, (unsigned long long)seed);
	finish(0);
}
