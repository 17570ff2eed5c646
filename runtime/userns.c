/* runtime/userns.c - a user namespace for a sandbox: whether one is needed, its mappings. */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/userns.h"

#define MAP_TEXT_MAX 16384

static bool has_cap(int cap)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	return syscall(SYS_capget, &header, data) == 0 &&
	       (data[CAP_TO_INDEX(cap)].effective & CAP_TO_MASK(cap));
}

bool userns_privileged(void)
{
	return has_cap(CAP_SYS_ADMIN);
}

char *userns_map_text(const char *file)
{
	char path[32], *text;
	size_t size;

	snprintf(path, sizeof(path), "/proc/self/%.20s", file);
	return io_read_file_at(AT_FDCWD, path, MAP_TEXT_MAX, &text, &size) ? NULL : text;
}

bool userns_is_initial(void)
{
	char *text = userns_map_text("uid_map");
	unsigned inside, outside, count;
	bool initial;

	if (!text)
		return true;
	initial = sscanf(text, "%u %u %u", &inside, &outside, &count) == 3 && inside == 0 &&
		  outside == 0 && count == UINT32_MAX;
	free(text);
	return initial;
}

/* linux.uidMappings or gidMappings. Return 0 or -errno after saying so. */
static int parse_maps(const json_t *list, const char *name, struct id_map **ret, unsigned *ret_n)
{
	size_t n = json_array_size(list);
	bool root = false;

	if (n > USERNS_MAPS_MAX) {
		cli_error("linux.%s has more than %d entries", name, USERNS_MAPS_MAX);
		return -EINVAL;
	}
	*ret = calloc(n ? n : 1, sizeof(**ret));
	if (!*ret)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		static const char *const keys[] = {"containerID", "hostID", "size"};
		const json_t *m = json_array_get(list, i);
		uint32_t v[3];

		for (size_t k = 0; k < ARRAY_SIZE(keys); k++) {
			const json_t *j = json_object_get(m, keys[k]);
			json_int_t value = json_integer_value(j);

			if (!json_is_integer(j) || value < 0 || value > UINT32_MAX) {
				cli_error("linux.%s[%zu].%s must be a number from 0 to %u", name, i,
					  keys[k], UINT32_MAX);
				return -EINVAL;
			}
			v[k] = (uint32_t)value;
		}
		(*ret)[i] = (struct id_map){v[0], v[1], v[2]};
		root = root || (v[0] == 0 && v[2] > 0);
	}
	*ret_n = (unsigned)n;
	/* Of users and groups alike: runc refuses one without the other, too. */
	if (!n) {
		cli_error("user namespaces enabled, but linux.%s has no entry: give "
			  "linux.uidMappings "
			  "and linux.gidMappings",
			  name);
		return -EINVAL;
	}
	if (!root) {
		cli_error("linux.%s maps no id to the container's root: add one with containerID 0",
			  name);
		return -EINVAL;
	}
	return 0;
}

static int map_self(struct userns *u)
{
	u->uids = calloc(1, sizeof(*u->uids));
	u->gids = calloc(1, sizeof(*u->gids));
	if (!u->uids || !u->gids)
		return -ENOMEM;
	u->uids[0] = (struct id_map){0, geteuid(), 1};
	u->gids[0] = (struct id_map){0, getegid(), 1};
	u->nuids = u->ngids = 1;
	return 0;
}

int userns_plan(const struct oci_config *c, struct userns *ret)
{
	bool mapped = json_array_size(c->uid_mappings) || json_array_size(c->gid_mappings);
	int err;

	*ret = (struct userns){.unprivileged = !userns_privileged(), .path = c->user_ns_path};
	if (c->user_ns && !c->user_ns_path && !ret->unprivileged && !mapped) {
		cli_error("user namespaces enabled, but no uid mappings found: give "
			  "linux.uidMappings and linux.gidMappings");
		return -EINVAL;
	}
	if (mapped && !c->user_ns) {
		cli_error("user namespace mappings specified, but user namespace isn't enabled in "
			  "the config");
		return -EINVAL;
	}
	/* Of one that is there already they are known, not made: podman's --userns=container:X says them again. As with runc, its own hold. */
	ret->create = !c->user_ns_path && (c->user_ns || ret->unprivileged);
	if (!mapped)
		return ret->create ? map_self(ret) : 0;
	err = parse_maps(c->uid_mappings, "uidMappings", &ret->uids, &ret->nuids);
	return err ? err : parse_maps(c->gid_mappings, "gidMappings", &ret->gids, &ret->ngids);
}

void userns_fini(struct userns *u)
{
	free(u->uids);
	free(u->gids);
	*u = (struct userns){0};
}

static int write_proc(pid_t pid, const char *file, const char *text)
{
	char path[64];
	int fd, err = 0;

	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* In one write, as the kernel wants a map. */
	if (write(fd, text, strlen(text)) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* newuidmap PID INSIDE OUTSIDE COUNT ...: it is setuid, and /etc/subuid says what it grants. */
static int run_helper(const char *program, pid_t pid, const struct id_map *maps, unsigned n)
{
	char **argv = calloc(3 + 3 * (size_t)n, sizeof(*argv));
	size_t argc = 0;
	int status = 0;
	pid_t child;

	if (!argv)
		return -ENOMEM;
	argv[argc++] = strdup(program);
	for (unsigned i = 0; i <= 3 * n; i++) {
		const struct id_map *m = i ? &maps[(i - 1) / 3] : NULL;
		uint32_t v = !m		  ? (uint32_t)pid
			     : i % 3 == 1 ? m->inside
			     : i % 3 == 2 ? m->outside
					  : m->count;

		if (asprintf(&argv[argc++], "%u", v) < 0)
			return -ENOMEM;
	}
	child = fork();
	if (child == 0) {
		setenv("PATH", "/usr/bin:/bin:/usr/local/bin", 0);
		execvp(program, argv);
		_exit(errno == ENOENT ? 127 : 126);
	}
	while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	for (size_t i = 0; i < argc; i++)
		free(argv[i]);
	free(argv);
	if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 0)
		return 0;
	if (child > 0 && WIFEXITED(status) && WEXITSTATUS(status) == 127)
		cli_error("mapping more than the caller's own id needs %s, which is not installed "
			  "(Debian: uidmap); install it or map one id",
			  program);
	else
		cli_error("%s refused the configuration's mappings: see /etc/subuid and "
			  "/etc/subgid, and subuid(5)",
			  program);
	return -EPERM;
}

/* Directly, where the kernel lets us, else through the helper. */
static int write_map(pid_t pid, const char *file, const struct id_map *maps, unsigned n,
		     bool direct, const char *helper)
{
	struct buf b;
	int err;

	if (!direct)
		return run_helper(helper, pid, maps, n);
	buf_init(&b, MAP_TEXT_MAX);
	for (unsigned i = 0; i < n; i++) {
		char line[64];

		snprintf(line, sizeof(line), "%u %u %u\n", maps[i].inside, maps[i].outside,
			 maps[i].count);
		buf_puts(&b, line);
	}
	err = buf_error(&b);
	if (!err)
		err = write_proc(pid, file, b.data);
	buf_fini(&b);
	if (err)
		cli_error("cannot write the sandbox's %s: %s; check linux.uidMappings and "
			  "linux.gidMappings",
			  file, strerror(-err));
	return err;
}

static bool only_self(const struct id_map *maps, unsigned n, uint32_t self)
{
	return n == 1 && maps[0].count == 1 && maps[0].outside == self;
}

int userns_write_maps(const struct userns *u, pid_t pid)
{
	bool gid_cap = has_cap(CAP_SETGID), gid_self = only_self(u->gids, u->ngids, getegid());
	int err = write_map(pid, "uid_map", u->uids, u->nuids,
			    has_cap(CAP_SETUID) || only_self(u->uids, u->nuids, geteuid()),
			    "newuidmap");

	/* Groups may express a denial of access: who may not set them freely gets no setgroups(2) either. */
	if (!err && !gid_cap && gid_self) {
		err = write_proc(pid, "setgroups", "deny");
		if (err)
			cli_error("cannot write the sandbox's setgroups: %s", strerror(-err));
	}
	return err ? err
		   : write_map(pid, "gid_map", u->gids, u->ngids, gid_cap || gid_self, "newgidmap");
}

int userns_enter(const char *path)
{
	struct stat there, own;
	int fd = open(path, O_RDONLY | O_CLOEXEC), err = 0;

	if (fd < 0)
		return -errno;
	/* One's own cannot be entered again. */
	if (fstat(fd, &there) < 0 || stat("/proc/self/ns/user", &own) < 0 ||
	    there.st_ino != own.st_ino || there.st_dev != own.st_dev)
		err = setns(fd, CLONE_NEWUSER) < 0 ? -errno : 0;
	close(fd);
	return err;
}

void userns_explain(const struct userns *u, int err)
{
	if (!u->create) {
		cli_error("cannot make the sandbox's namespaces: %s; run moat as root, or where "
			  "it may make namespaces",
			  strerror(-err));
		return;
	}
	if (err == -ENOSPC || err == -EUSERS)
		cli_error("cannot make a user namespace: %s: raise the sysctl "
			  "user.max_user_namespaces (or end other sandboxes), or run moat as root",
			  strerror(-err));
	else
		cli_error("cannot make a user namespace: %s: this host does not let an "
			  "unprivileged user have one (sysctl kernel.unprivileged_userns_clone=1, "
			  "or kernel.apparmor_restrict_unprivileged_userns=0, where they exist; in "
			  "a container, its seccomp profile): allow it, or run moat as root",
			  strerror(-err));
}

int userns_become_root(void)
{
	/* Refused where the mappings came from an unprivileged user: then the groups are that user's own. */
	if (setgroups(0, NULL) < 0 && errno != EPERM)
		return -errno;
	return setresgid(0, 0, 0) < 0 || setresuid(0, 0, 0) < 0 ? -errno : 0;
}

int userns_keep_caps(void)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2];

	if (geteuid() == 0)
		return 0; /* root's do anyway */
	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	for (int i = 0; i < 2; i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &header, data) < 0)
		return -errno;
	for (int cap = 0; cap <= 63; cap++)
		if ((data[CAP_TO_INDEX(cap)].permitted & CAP_TO_MASK(cap)) &&
		    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0)
			return -errno;
	return 0;
}
