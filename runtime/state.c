/* runtime/state.c - the state directory. */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/cli.h"
#include "runtime/sandbox.h"
#include "runtime/state.h"

#define STATE_FILE_MAX (17ul << 20)
/*
 * Of the lock file: its room for the exit status is taken at creation, so that a disk that is full by then does not lose it, where
 * writing in place takes no room (tmpfs, ext4, xfs; not on btrfs and zfs).
 */
#define EXIT_ROOM 16

/* With what is missing above it, as runc: dockerd names a directory below one that the first container is to make. Return: -1: errno. */
static int make_dirs(const char *path)
{
	char part[PATH_MAX];
	size_t len = strlen(path);
	int err;

	if (len >= sizeof(part)) {
		errno = ENAMETOOLONG;
		return -1;
	}
	for (size_t at = 1; at < len; at++) {
		if (path[at] != '/')
			continue;
		memcpy(part, path, at);
		part[at] = '\0';
		/* What matters is whether the next can be made there. */
		(void)mkdir(part, 0700);
	}
	err = mkdir(path, 0700);
	return err < 0 && errno == EEXIST ? 0 : err;
}

static int open_root(const char *root)
{
	struct stat st;
	int fd;

	if (mkdir(root, 0700) < 0 && errno != EEXIST && (errno != ENOENT || make_dirs(root) < 0)) {
		cli_error("state directory %s: %m; give another with --root", root);
		return -errno;
	}
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (cli.root_public ? O_NOFOLLOW : 0));
	if (fd < 0) {
		cli_error("state directory %s: %m; give another with --root", root);
		return -errno;
	}
	if (cli.root_public &&
	    (fstat(fd, &st) < 0 || st.st_uid != geteuid() || (st.st_mode & 077))) {
		cli_error("state directory %s: it is not yours alone; set XDG_RUNTIME_DIR, or give "
			  "another with --root",
			  root);
		close(fd);
		return -EPERM;
	}
	return fd;
}

/*
 * The root's lock: held for as long as a container's directory comes or goes, so that nobody takes one that is
 * half made for one that was left behind. Of an open file of its own, which rootfd, shared with the monitor, is not;
 * its holder's death frees it. Return what unlock_root() takes.
 */
static int lock_root(int rootfd)
{
	int fd = openat(rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	while (fd >= 0 && flock(fd, LOCK_EX) < 0 && errno == EINTR)
		;
	return fd;
}

static void unlock_root(int fd)
{
	if (fd >= 0)
		close(fd);
}

/* Root's lock held. Return 0 or -errno: then something of it is left. */
static int remove_tree_at(int rootfd, const char *id)
{
	int fd = openat(rootfd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	while (dir && (e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 &&
		    strcmp(e->d_name, "lock") != 0)
			unlinkat(dirfd(dir), e->d_name, 0);
	/* Last: who is killed before leaves what remove_if_stale() knows. */
	if (dir) {
		unlinkat(dirfd(dir), "lock", 0);
		closedir(dir);
	}
	return unlinkat(rootfd, id, AT_REMOVEDIR) < 0 && errno != ENOENT ? -errno : 0;
}

/* Held by somebody else? */
static bool lock_held(int dirfd)
{
	int fd = openat(dirfd, "lock", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	bool held;

	if (fd < 0)
		return false;
	/* Shared: two that ask at once are not each other's owner. */
	held = flock(fd, LOCK_SH | LOCK_NB) < 0;
	close(fd);
	return held;
}

bool state_is_live(const struct state_dir *s)
{
	return lock_held(s->dirfd);
}

json_t *state_load(const struct state_dir *s, const char *file)
{
	char *text;
	size_t size;
	json_t *j;

	if (io_read_file_at(s->dirfd, file, STATE_FILE_MAX, &text, &size))
		return NULL;
	j = json_loadb(text, size, 0, NULL);
	free(text);
	return j;
}

static bool came_to_be(const struct state_dir *s)
{
	json_t *j = state_load(s, "state.json");
	const char *status = json_string_value(json_object_get(j, "status"));
	bool created = status && strcmp(status, "created") == 0;

	json_decref(j);
	return created;
}

/*
 * What a creation left that was killed: its lock is free, and it never came to be. True if that was so, and it is
 * gone now. Root's lock held.
 */
static bool remove_if_stale(int rootfd, const char *id)
{
	struct state_dir s = {.rootfd = rootfd, .lockfd = -1, .id = (char *)id};
	bool stale = false, busy = false;

	s.dirfd = openat(rootfd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s.dirfd < 0)
		return false;
	s.lockfd = openat(s.dirfd, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (s.lockfd < 0) {
		/*
		 * Killed between mkdir and the lock's creation, or between the lock's removal and rmdir: empty both times. One
		 * with files but no lock is no container's: --root may be any directory.
		 */
		stale = errno == ENOENT && unlinkat(rootfd, id, AT_REMOVEDIR) == 0;
	} else if (!came_to_be(&s) && flock(s.lockfd, LOCK_EX | LOCK_NB) == 0 && !came_to_be(&s)) {
		/* Asked before too: a lock held for the question only would look like a container that lives. */
		json_t *j = state_load(&s, "cgroup.json");
		struct cgroup cg;

		if (j && cgroup_from_json(&cg, j) == 0) {
			busy = cgroup_remove_dead(&cg) == -EBUSY;
			cgroup_fini(&cg);
		}
		json_decref(j);
		stale = !busy && remove_tree_at(rootfd, id) == 0;
	}
	if (s.lockfd >= 0)
		close(s.lockfd);
	close(s.dirfd);
	return stale;
}

static int write_exit(const struct state_dir *s, int exit_code)
{
	char text[EXIT_ROOM + 1];
	ssize_t n;

	snprintf(text, sizeof(text), "%*d\n", EXIT_ROOM - 1, exit_code);
	n = pwrite(s->lockfd, text, EXIT_ROOM, 0);
	return n == EXIT_ROOM ? 0 : n < 0 ? -errno : -ENOSPC;
}

/* Makes ROOT/ID and its lock. Root's lock held. Return 0, or a negative error that was said. */
static int make_locked(struct state_dir *s, const char *root, const char *id)
{
	int err = mkdirat(s->rootfd, id, 0700) < 0 ? -errno : 0;

	if (err == -EEXIST && remove_if_stale(s->rootfd, id))
		err = mkdirat(s->rootfd, id, 0700) < 0 ? -errno : 0;
	if (err == -EEXIST) {
		cli_error("container with given ID already exists: %s; choose another id or "
			  "'moat delete --force %s'",
			  id, id);
		return err;
	}
	if (err) {
		cli_error("%s/%s: %s", root, id, strerror(-err));
		return err;
	}
	s->dirfd = openat(s->rootfd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	if (s->dirfd >= 0)
		s->lockfd =
			openat(s->dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lockfd < 0 || flock(s->lockfd, LOCK_EX | LOCK_NB) < 0)
		err = -errno;
	else
		err = write_exit(s, -1);
	if (err) {
		cli_error("%s/%s/lock: %s", root, id, strerror(-err));
		(void)!remove_tree_at(s->rootfd, id);
	}
	return err;
}

int state_create(const char *root, const char *id, struct state_dir *ret)
{
	struct state_dir s = {.dirfd = -1, .lockfd = -1};
	int err, lock;

	s.rootfd = open_root(root);
	if (s.rootfd < 0)
		return s.rootfd;
	s.id = strdup(id);
	if (!s.id) {
		state_close(&s);
		return -ENOMEM;
	}
	lock = lock_root(s.rootfd);
	err = make_locked(&s, root, id);
	unlock_root(lock);
	if (err) {
		state_close(&s);
		return err;
	}
	*ret = s;
	return 0;
}

int state_open(const char *root, const char *id, bool quiet, struct state_dir *ret)
{
	struct state_dir s = {.dirfd = -1, .lockfd = -1};
	int lock;

	if (!cli_id_valid(id)) {
		if (!quiet)
			cli_error("invalid container id '%s': letters, digits, and _ + - . only",
				  id);
		return -EINVAL;
	}
	s.rootfd = open_root(root);
	if (s.rootfd < 0)
		return s.rootfd;
	lock = lock_root(s.rootfd);
	remove_if_stale(s.rootfd, id);
	unlock_root(lock);
	s.dirfd = openat(s.rootfd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	s.id = s.dirfd < 0 ? NULL : strdup(id);
	if (!s.id) {
		if (!quiet)
			cli_error("container does not exist: %s (in %s; 'moat list' shows what "
				  "there is)",
				  id, root);
		state_close(&s);
		return -ENOENT;
	}
	*ret = s;
	return 0;
}

void state_close(struct state_dir *s)
{
	if (s->dirfd >= 0)
		close(s->dirfd);
	if (s->lockfd >= 0)
		close(s->lockfd);
	if (s->rootfd >= 0)
		close(s->rootfd);
	free(s->id);
	*s = (struct state_dir){.dirfd = -1, .lockfd = -1, .rootfd = -1};
}

int state_remove_config(const struct state_dir *s)
{
	return unlinkat(s->dirfd, "config.json", 0) < 0 ? -errno : 0;
}

int state_remove(struct state_dir *s)
{
	struct stat mine, there;
	int lock = lock_root(s->rootfd), err = 0;

	/* Another's delete and create may have come between: then the name is somebody else's container. */
	if (fstat(s->dirfd, &mine) == 0 &&
	    fstatat(s->rootfd, s->id, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	    mine.st_dev == there.st_dev && mine.st_ino == there.st_ino)
		err = remove_tree_at(s->rootfd, s->id);
	unlock_root(lock);
	return err;
}

void state_time(char *out, size_t size)
{
	struct timespec now;
	struct tm tm;
	char when[32];

	clock_gettime(CLOCK_REALTIME, &now);
	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%S", gmtime_r(&now.tv_sec, &tm));
	snprintf(out, size, "%s.%09ldZ", when, now.tv_nsec);
}

/*
 * In one step, so that a reader sees the old file or the new one. By an exchange where there is an old one: a rename onto it makes ext4 begin to
 * write the new one to the disk at once, and its removal, soon after for a short container, waits for that.
 */
static int replace(int dirfd, const char *from, const char *to)
{
	if (renameat2(dirfd, from, dirfd, to, RENAME_EXCHANGE) == 0) {
		/* Left behind, it goes with the directory. */
		unlinkat(dirfd, from, 0);
		return 0;
	}
	/* There is none, or a filesystem that knows no exchange. */
	return renameat(dirfd, from, dirfd, to) < 0 ? -errno : 0;
}

static int write_json(const struct state_dir *s, const char *file, json_t *j)
{
	char tmp[64], *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
	int err;

	json_decref(j);
	if (!text)
		return -ENOMEM;
	snprintf(tmp, sizeof(tmp), ".%s.tmp", file);
	err = io_write_file_at(s->dirfd, tmp, text, strlen(text), 0600);
	if (!err)
		err = replace(s->dirfd, tmp, file);
	/* A part of it, on a full disk. */
	if (err)
		unlinkat(s->dirfd, tmp, 0);
	free(text);
	if (err)
		cli_error("%s/%s/%s: %s", cli.root, s->id, file, strerror(-err));
	return err;
}

int state_write_json(struct state_dir *s, const struct sandbox *sb, const char *status)
{
	const struct oci_config *c = sb->config;
	json_t *j = json_pack("{ss ss si ss ss* ss* ss* ss ss* sb}", "ociVersion",
			      c->oci_version ? c->oci_version : "1.1.0", "id", s->id, "pid",
			      sb->monitor, "status", status, "bundle", sb->opts->bundle, "rootfs",
			      c->attaches[0].host_path, "sandbox", sb->pod.sandbox, "created",
			      sb->created, "debug_log", cli.debug_log, "no_new_privs",
			      c->spec.no_new_privs);

	if (j && c->annotations)
		json_object_set(j, "annotations", (json_t *)c->annotations);
	if (j && c->json && faccessat(s->dirfd, "config.json", F_OK, 0) < 0) {
		int err = write_json(s, "config.json", json_incref(c->json));

		if (err) {
			json_decref(j);
			return err;
		}
	}
	return write_json(s, "state.json", j);
}

int state_write_cgroup(struct state_dir *s, const struct cgroup *cg)
{
	return write_json(s, "cgroup.json", cgroup_to_json(cg));
}

void state_write_exit(struct state_dir *s, int exit_code)
{
	if (write_exit(s, exit_code))
		cli_debug("%s/%s/lock: the exit status: %m", cli.root, s->id);
}

int state_read_exit(const struct state_dir *s)
{
	char *text;
	size_t size;
	int code;

	if (io_read_file_at(s->dirfd, "lock", 4 * EXIT_ROOM, &text, &size))
		return -1;
	code = size ? atoi(text) : -1;
	free(text);
	return code;
}

char *state_document(const struct state_dir *s, int pid, const char *status)
{
	static const char *const keep[] = {"ociVersion", "id", "bundle", "annotations"};
	json_t *j = state_load(s, "state.json"), *out = json_object();
	char *text = NULL;

	for (size_t i = 0; j && i < ARRAY_SIZE(keep); i++)
		if (json_object_get(j, keep[i]))
			json_object_set(out, keep[i], json_object_get(j, keep[i]));
	json_object_set_new(out, "status", json_string(status));
	if (pid)
		json_object_set_new(out, "pid", json_integer(pid));
	if (j)
		text = json_dumps(out, JSON_COMPACT);
	json_decref(j);
	json_decref(out);
	return text;
}

/* Unix socket paths are short: go through the directory's descriptor. */
static void socket_address(struct state_dir *s, struct sockaddr_un *addr)
{
	*addr = (struct sockaddr_un){.sun_family = AF_UNIX};
	snprintf(addr->sun_path, sizeof(addr->sun_path), "/proc/self/fd/%d/control.sock", s->dirfd);
}

int state_listen(struct state_dir *s)
{
	struct sockaddr_un addr;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	socket_address(s, &addr);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}

int state_connect(struct state_dir *s)
{
	struct sockaddr_un addr;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -errno;
	socket_address(s, &addr);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		int err = -errno;

		close(fd);
		return err;
	}
	return fd;
}
