/* runtime/state.c - the state directory. */
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/state.h"

static int open_root(const char *root)
{
	int fd;

	if (mkdir(root, 0700) < 0 && errno != EEXIST) {
		cli_error("state directory %s: %m; give another with --root", root);
		return -errno;
	}
	fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0) {
		cli_error("state directory %s: %m; give another with --root", root);
		return -errno;
	}
	return fd;
}

static void remove_tree_at(int rootfd, const char *id)
{
	int fd = openat(rootfd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
	struct dirent *e;

	while (dir && (e = readdir(dir)) != NULL)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			unlinkat(dirfd(dir), e->d_name, 0);
	if (dir)
		closedir(dir);
	unlinkat(rootfd, id, AT_REMOVEDIR);
}

/* The lock of a directory whose container is gone is free: take it and remove the remains. True if that was so. */
static bool remove_if_stale(int rootfd, const char *id)
{
	char path[300];
	int fd;

	snprintf(path, sizeof(path), "%s/lock", id);
	fd = openat(rootfd, path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		if (errno != ENOENT)
			return false;
		/* Killed between mkdir and the lock's creation, or being created right now: an empty directory can go. */
		return unlinkat(rootfd, id, AT_REMOVEDIR) == 0;
	}
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		return false;
	}
	remove_tree_at(rootfd, id);
	close(fd);
	return true;
}

int state_create(const char *root, const char *id, struct state_dir *ret)
{
	struct state_dir s = {.dirfd = -1, .lockfd = -1};
	int err;

	s.rootfd = open_root(root);
	if (s.rootfd < 0)
		return s.rootfd;
	err = mkdirat(s.rootfd, id, 0700) < 0 ? -errno : 0;
	if (err == -EEXIST && remove_if_stale(s.rootfd, id))
		err = mkdirat(s.rootfd, id, 0700) < 0 ? -errno : 0;
	if (err) {
		errno = -err;
		if (err == -EEXIST)
			cli_error("container with id exists: %s; choose another id or 'moat delete "
				  "--force %s'",
				  id, id);
		else
			cli_error("%s/%s: %m", root, id);
		goto out_close;
	}
	s.dirfd = openat(s.rootfd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	s.lockfd = s.dirfd < 0 ? -1
			       : openat(s.dirfd, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
					0600);
	if (s.lockfd < 0 || flock(s.lockfd, LOCK_EX | LOCK_NB) < 0) {
		err = -errno;
		cli_error("%s/%s/lock: %m", root, id);
		goto out_remove;
	}
	s.id = strdup(id);
	if (!s.id) {
		err = -ENOMEM;
		goto out_remove;
	}
	*ret = s;
	return 0;
out_remove:
	remove_tree_at(s.rootfd, id);
out_close:
	state_close(&s);
	return err;
}

int state_open(const char *root, const char *id, struct state_dir *ret)
{
	struct state_dir s = {.dirfd = -1, .lockfd = -1};

	if (!cli_id_valid(id)) {
		cli_error("invalid container id '%s': letters, digits, and _ + - . only", id);
		return -EINVAL;
	}
	s.rootfd = open_root(root);
	if (s.rootfd < 0)
		return s.rootfd;
	remove_if_stale(s.rootfd, id);
	s.dirfd = openat(s.rootfd, id, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
	s.id = s.dirfd < 0 ? NULL : strdup(id);
	if (!s.id) {
		cli_error("container does not exist: %s (in %s; 'moat list' shows what there is)",
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

void state_remove(struct state_dir *s)
{
	remove_tree_at(s->rootfd, s->id);
}

int state_write_json(struct state_dir *s, const char *bundle, int pid, const char *rootfs)
{
	char when[64];
	time_t now = time(NULL);
	struct tm tm;
	json_t *j;
	char *text;
	int err;

	strftime(when, sizeof(when), "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
	j = json_pack("{ss ss si ss* ss* ss}", "ociVersion", "1.1.0", "id", s->id, "pid", pid,
		      "bundle", bundle, "rootfs", rootfs, "created", when);
	text = j ? json_dumps(j, JSON_INDENT(2)) : NULL;
	json_decref(j);
	if (!text)
		return -ENOMEM;
	err = io_write_file_at(s->dirfd, "state.json", text, strlen(text), 0600);
	free(text);
	return err;
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
