/*
 * runtime/cgroup.c - finding, making, entering and removing a sandbox's cgroups.
 *
 * The directories come from /proc/self/mountinfo and /proc/self/cgroup, as in runc: an absolute linux.cgroupsPath starts at each
 * hierarchy's root, a relative one (or none: the container's id) below the caller's own cgroup. On v1 and hybrid hosts the v2 hierarchy beside
 * them is left alone.
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <time.h>
#include <linux/sched.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/cgroup_files.h"
#include "runtime/cli.h"
#include "runtime/clone.h"
#include "runtime/systemd.h"

#define PROC_FILE_MAX (4u << 20)
#define REMOVE_DEAD_MS 1000
#define CGROUP_DEPTH_MAX 32
/* Of cgroups below a container's, which are removed with it. */
#define BELOW_DEPTH_MAX 8

/* Options of a v1 hierarchy that are no controllers. */
static void keep_controllers(char *options)
{
	static const char *const known[] = {"cpu",     "cpuacct", "cpuset",   "memory",
					    "devices", "freezer", "blkio",    "pids",
					    "hugetlb", "net_cls", "net_prio", "perf_event",
					    "rdma",    "misc"};
	char *out = options, *save = NULL, *copy = strdup(options);

	*out = '\0';
	for (char *o = copy ? strtok_r(copy, ",", &save) : NULL; o;
	     o = strtok_r(NULL, ",", &save)) {
		bool keep = strncmp(o, "name=", 5) == 0;

		for (size_t i = 0; i < ARRAY_SIZE(known); i++)
			keep = keep || strcmp(o, known[i]) == 0;
		if (keep) {
			if (out != options)
				*out++ = ',';
			out = stpcpy(out, o);
		}
	}
	free(copy);
}

/* The caller's own path in the hierarchy with these controllers ("" for v2); malloc'd, NULL if none. */
static char *own_path(const char *self_cgroup, const char *controllers)
{
	char *first = strndup(controllers, strcspn(controllers, ",")), *found = NULL;

	for (const char *line = self_cgroup; first && line && *line && !found;) {
		const char *end = strchrnul(line, '\n'), *c1 = strchr(line, ':'),
			   *c2 = c1 ? strchr(c1 + 1, ':') : NULL;

		if (c2 && c2 < end) {
			char *list = strndup(c1 + 1, (size_t)(c2 - c1 - 1));

			if (list && (*first ? cgroup_list_has(list, first) : *list == '\0'))
				found = strndup(c2 + 1, (size_t)(end - c2 - 1));
			free(list);
		}
		line = *end ? end + 1 : end;
	}
	free(first);
	return found;
}

static int add_dir(struct cgroup *cg, const char *root, const char *controllers, const char *below)
{
	struct cgroup_dir *d = &cg->dirs[cg->ndirs];

	if (cg->ndirs == CGROUP_DIRS_MAX)
		return 0;
	d->controllers = strdup(controllers);
	d->root = strdup(root);
	if (!d->controllers || !d->root || asprintf(&d->path, "%s%s", root, below) < 0)
		return -ENOMEM;
	cg->ndirs++;
	return 0;
}

/* A path without empty, "." and ".." components; a leading slash. */
static char *clean_path(const char *base, const char *name)
{
	char *joined, *out, *save = NULL, *end;

	if (asprintf(&joined, "%s/%s", base, name) < 0)
		return NULL;
	end = out = malloc(strlen(joined) + 2);
	if (!out) {
		free(joined);
		return NULL;
	}
	*end = '\0';
	for (char *c = strtok_r(joined, "/", &save); c; c = strtok_r(NULL, "/", &save)) {
		if (strcmp(c, ".") == 0)
			continue;
		if (strcmp(c, "..") == 0) {
			while (end > out && *--end != '/')
				;
			*end = '\0';
			continue;
		}
		*end++ = '/';
		end = stpcpy(end, c);
	}
	free(joined);
	return out;
}

/* One line of mountinfo: adds the hierarchy if it is one. */
static int scan_mount(struct cgroup *cg, const char *line, const char *self_cgroup,
		      const char *cgroups_path, const char *id)
{
	/* Of systemd's own cgroup (`self_cgroup` is then process 1's), whose units lie beside it. */
	static const char init_scope[] = "/init.scope";

	char root[1024], point[3000], type[32], options[512];
	const char *dash = strstr(line, " - ");
	auto_free char *inner = clean_path("", cgroups_path && *cgroups_path ? cgroups_path : id);
	char *own, *below;
	bool v2;
	int err;

	if (!dash || sscanf(line, "%*d %*d %*s %1023s %2999s", root, point) != 2 ||
	    sscanf(dash, " - %31s %*s %511s", type, options) != 2)
		return 0;
	v2 = strcmp(type, "cgroup2") == 0;
	if (!v2 && strcmp(type, "cgroup") != 0)
		return 0;
	if (v2)
		options[0] = '\0';
	else
		keep_controllers(options);
	if (!v2 && !options[0])
		return 0;
	for (unsigned i = 0; i < cg->ndirs; i++)
		if (strcmp(cg->dirs[i].controllers, options) == 0)
			return 0; /* mounted twice */
	own = own_path(self_cgroup, options);
	/* Seen through a cgroup namespace or a bind mount, the mount's root is part of our path. */
	if (own && strlen(root) > 1 && strncmp(own, root, strlen(root)) == 0)
		memmove(own, own + strlen(root), strlen(own) - strlen(root) + 1);
	if (cg->unit && own && strlen(own) >= strlen(init_scope) &&
	    strcmp(own + strlen(own) - strlen(init_scope), init_scope) == 0)
		own[strlen(own) - strlen(init_scope)] = '\0';
	/* Below the caller's own, whatever ".." a relative one begins with. */
	below = clean_path(!cg->unit && cgroups_path && cgroups_path[0] == '/' ? ""
			   : own					       ? own
									       : "",
			   inner ? inner : id);
	free(own);
	err = below ? add_dir(cg, point, options, below) : -ENOMEM;
	if (!err && !cg->name)
		cg->name = strdup(below);
	free(below);
	return err;
}

/* v2 counts only where no v1 controller is mounted. */
static void choose_version(struct cgroup *cg)
{
	bool v1 = false;
	unsigned n = 0;

	for (unsigned i = 0; i < cg->ndirs; i++)
		v1 = v1 || (cg->dirs[i].controllers[0] &&
			    strncmp(cg->dirs[i].controllers, "name=", 5) != 0);
	cg->version = cg->ndirs ? v1 ? 1 : 2 : 0;
	for (unsigned i = 0; i < cg->ndirs; i++) {
		struct cgroup_dir *d = &cg->dirs[i];

		if (cg->version == 2 ? d->controllers[0] == '\0' : d->controllers[0] != '\0') {
			cg->dirs[n++] = *d;
			continue;
		}
		free(d->controllers);
		free(d->root);
		free(d->path);
	}
	cg->ndirs = n;
}

/* What systemd's manager needs: that there is one, the unit's names, and its path below the manager's own. */
static int find_unit(struct cgroup *cg, const char *cgroups_path, const char *id, char **ret_below,
		     char *why)
{
	struct statfs fs;

	if (!systemd_runs()) {
		snprintf(why, CGROUP_ERROR_MAX,
			 "systemd not running on this host, cannot use systemd cgroups "
			 "manager; use the cgroupfs manager");
		return -EINVAL;
	}
	/* On v1 nothing is a user's; beside it, v2 has no controllers. */
	if (cg->user && (statfs("/sys/fs/cgroup", &fs) < 0 || fs.f_type != CGROUP2_SUPER_MAGIC)) {
		snprintf(why, CGROUP_ERROR_MAX,
			 "cannot use rootless systemd cgroups manager on cgroup v1");
		return -EINVAL;
	}
	return systemd_names(cgroups_path, id, cg->user, &cg->slice, &cg->unit, ret_below, why);
}

/* /proc/PID/cgroup of the process below whose cgroup relative names start; malloc'd. */
static int read_base(const struct cgroup *cg, char **ret, char *why)
{
	auto_free char *group = NULL;
	size_t size;
	int err;

	if (!cg->user)
		return io_read_file_at(AT_FDCWD, cg->unit ? "/proc/1/cgroup" : "/proc/self/cgroup",
				       PROC_FILE_MAX, ret, &size);
	err = systemd_user_group(&group, why);
	if (!err && asprintf(ret, "0::%s\n", group) < 0)
		err = -ENOMEM;
	return err;
}

int cgroup_find(struct cgroup *cg, const char *cgroups_path, const char *id,
		enum cgroup_manager manager, char *why)
{
	auto_free char *mounts = NULL, *self = NULL, *below = NULL;
	size_t size;
	int err;

	*cg = (struct cgroup){.user = manager == CGROUP_BY_USER_SYSTEMD};
	*why = '\0';
	if (manager != CGROUP_BY_FILES) {
		err = find_unit(cg, cgroups_path, id, &below, why);
		if (err)
			return err;
		cgroups_path = below;
	}
	err = io_read_file_at(AT_FDCWD, "/proc/self/mountinfo", PROC_FILE_MAX, &mounts, &size);
	if (!err)
		err = read_base(cg, &self, why);
	for (const char *line = mounts; !err && line && *line;) {
		const char *end = strchrnul(line, '\n');

		err = scan_mount(cg, line, self, cgroups_path, id);
		line = *end ? end + 1 : end;
	}
	if (err) {
		cgroup_fini(cg);
		if (!*why)
			snprintf(why, CGROUP_ERROR_MAX, "cgroups: %s", strerror(-err));
		return err;
	}
	choose_version(cg);
	for (unsigned i = 0; i < cg->ndirs; i++) {
		if (strcmp(cg->dirs[i].path, cg->dirs[i].root) != 0)
			continue;
		/* Its processes are everybody's, and the end of a container kills those of its cgroup. */
		snprintf(why, CGROUP_ERROR_MAX,
			 "linux.cgroupsPath: %.200s is the root of a hierarchy; name a cgroup "
			 "below it",
			 cg->dirs[i].root);
		cgroup_fini(cg);
		return -EINVAL;
	}
	return 0;
}

void cgroup_fini(struct cgroup *cg)
{
	for (unsigned i = 0; i < cg->ndirs; i++) {
		free(cg->dirs[i].controllers);
		free(cg->dirs[i].root);
		free(cg->dirs[i].path);
	}
	free(cg->name);
	free(cg->unit);
	free(cg->slice);
	*cg = (struct cgroup){0};
}

json_t *cgroup_to_json(const struct cgroup *cg)
{
	json_t *list = json_array();

	for (unsigned i = 0; i < cg->ndirs; i++)
		json_array_append_new(list, json_pack("{ss ss ss}", "controllers",
						      cg->dirs[i].controllers, "root",
						      cg->dirs[i].root, "path", cg->dirs[i].path));
	return json_pack("{si ss* ss* ss* sb so}", "version", cg->version, "name", cg->name, "unit",
			 cg->unit, "slice", cg->slice, "user", cg->user, "dirs", list);
}

int cgroup_from_json(struct cgroup *cg, const json_t *j)
{
	const char *name = json_string_value(json_object_get(j, "name")),
		   *unit = json_string_value(json_object_get(j, "unit")),
		   *slice = json_string_value(json_object_get(j, "slice"));
	const json_t *list = json_object_get(j, "dirs");

	*cg = (struct cgroup){
		.version = (int)json_integer_value(json_object_get(j, "version")),
		.name = name ? strdup(name) : NULL,
		.unit = unit ? strdup(unit) : NULL,
		.slice = slice ? strdup(slice) : NULL,
		.user = json_is_true(json_object_get(j, "user")),
	};
	for (size_t i = 0; i < json_array_size(list) && i < CGROUP_DIRS_MAX; i++) {
		const json_t *d = json_array_get(list, i);
		const char *controllers = json_string_value(json_object_get(d, "controllers")),
			   *root = json_string_value(json_object_get(d, "root")),
			   *path = json_string_value(json_object_get(d, "path"));

		if (!controllers || !root || !path || root[0] != '/' ||
		    strncmp(path, root, strlen(root)) != 0 || strcmp(path, root) == 0) {
			cgroup_fini(cg);
			return -EINVAL;
		}
		cg->dirs[cg->ndirs++] =
			(struct cgroup_dir){strdup(controllers), strdup(root), strdup(path)};
	}
	return 0;
}

/* A new v1 cpuset is empty, and nobody can enter it: it takes the parent's. */
static void inherit_cpuset(const char *path)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};
	char *parent = strdup(path), *slash = parent ? strrchr(parent, '/') : NULL;

	if (slash)
		*slash = '\0';
	for (size_t i = 0; slash && i < ARRAY_SIZE(files); i++) {
		auto_free char *mine = cgroup_file_read(path, files[i]),
			       *theirs = cgroup_file_read(parent, files[i]);

		if (mine && !*mine && theirs && *theirs)
			(void)!cgroup_file_write(path, files[i], theirs);
	}
	free(parent);
}

/* v2: what the parent has, its children may have. */
static void enable_controllers(const char *parent)
{
	auto_free char *have = cgroup_file_read(parent, "cgroup.controllers");
	char *save = NULL;

	for (char *c = have ? strtok_r(have, " ", &save) : NULL; c;
	     c = strtok_r(NULL, " ", &save)) {
		char line[64];

		snprintf(line, sizeof(line), "+%.60s", c);
		/* A parent with processes of its own (ours, as in a container) refuses: then the limit's own write tells. */
		(void)!cgroup_file_write(parent, "cgroup.subtree_control", line);
	}
}

/* Does the configuration limit something that v2 counts for whole processes? As runc has it, with cpu, which would also do for threads. */
static bool wants_domain(const json_t *resources)
{
	static const char *const names[][2] = {
		{"memory", "limit"},
		{"memory", "reservation"},
		{"memory", "swap"},
		{"cpu", "shares"},
		{"cpu", "quota"},
		{"cpu", "period"},
		{"blockIO", "weight"},
		{"blockIO", "weightDevice"},
		{"blockIO", "throttleReadBpsDevice"},
		{"blockIO", "throttleWriteBpsDevice"},
		{"blockIO", "throttleReadIOPSDevice"},
		{"blockIO", "throttleWriteIOPSDevice"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		const json_t *v =
			json_object_get(json_object_get(resources, names[i][0]), names[i][1]);

		if (json_integer_value(v) || json_array_size(v))
			return true;
	}
	return json_array_size(json_object_get(resources, "hugepageLimits")) > 0;
}

/*
 * v2, as runc: below a threaded cgroup a new one cannot hold processes until it is threaded itself, and then has only the controllers that are for
 * threads too. Return 0, -EOPNOTSUPP with `why`.
 */
static int make_usable(const char *path, const json_t *resources, char *why)
{
	auto_free char *type = cgroup_file_read(path, "cgroup.type");
	bool invalid = type && strcmp(type, "domain invalid") == 0;

	if (!type || strcmp(type, "domain") == 0)
		return 0;
	if (wants_domain(resources)) {
		snprintf(
			why, CGROUP_ERROR_MAX,
			"cannot enter cgroupv2 \"%.150s\" with domain controllers -- it is in %s%s",
			path, invalid ? "an invalid state" : type, invalid ? "" : " mode");
		return -EOPNOTSUPP;
	}
	/* If it cannot be, entering it says so. */
	if (invalid)
		(void)!cgroup_file_write(path, "cgroup.type", "threaded");
	return 0;
}

static int make_dir(struct cgroup *cg, struct cgroup_dir *d, const json_t *resources, char *why)
{
	char *p = d->path + strlen(d->root);
	bool cpuset = cg->version == 1 && cgroup_list_has(d->controllers, "cpuset");

	for (;;) {
		int err = 0;
		char saved;

		p += strspn(p, "/");
		if (!*p)
			return 0;
		if (cg->version == 2) {
			saved = p[-1];
			p[-1] = '\0';
			enable_controllers(d->path);
			p[-1] = saved;
		}
		p += strcspn(p, "/");
		saved = *p;
		*p = '\0';
		if (mkdir(d->path, 0755) < 0 && errno != EEXIST)
			err = -errno;
		if (!err && cpuset)
			inherit_cpuset(d->path);
		if (!err && cg->version == 2)
			err = make_usable(d->path, resources, why);
		*p = saved;
		if (err)
			return err;
	}
}

/* Processes (of a threaded one: threads) in a directory and below it. */
static size_t population(const char *path, unsigned depth)
{
	auto_free char *text = cgroup_file_read(path, "cgroup.procs");
	DIR *dir = depth < CGROUP_DEPTH_MAX ? opendir(path) : NULL;
	struct dirent *e;
	size_t n = 0;

	if (dir && !text)
		text = cgroup_file_read(path, "cgroup.threads");
	if (text && *text)
		n++;
	for (const char *p = text; p && *p; p++)
		n += *p == '\n';
	while (dir && (e = readdir(dir)) != NULL) {
		auto_free char *below = NULL;

		if (e->d_type == DT_DIR && e->d_name[0] != '.' &&
		    asprintf(&below, "%s/%s", path, e->d_name) >= 0)
			n += population(below, depth + 1);
	}
	if (dir)
		closedir(dir);
	return n;
}

size_t cgroup_population(const struct cgroup *cg)
{
	size_t most = 0;

	for (unsigned i = 0; i < cg->ndirs; i++)
		most = MAX(most, population(cg->dirs[i].path, 0));
	return most;
}

int cgroup_create(struct cgroup *cg, const json_t *resources, char *why)
{
	unsigned kept = 0;

	*why = '\0';
	for (unsigned i = 0; i < cg->ndirs; i++) {
		struct cgroup_dir *d = &cg->dirs[i];
		int err = make_dir(cg, d, resources, why);

		/* Not ours to change (rootless, a read-only mount): without this hierarchy. */
		if (err == -EACCES || err == -EROFS || err == -EPERM) {
			cli_debug("cgroup %s: %s; going on without it", d->path, strerror(-err));
			free(d->controllers);
			free(d->root);
			free(d->path);
			continue;
		}
		if (err) {
			if (!*why)
				snprintf(why, CGROUP_ERROR_MAX, "cgroup %.200s: %s", d->path,
					 strerror(-err));
			return err;
		}
		cg->dirs[kept++] = *d;
	}
	cg->ndirs = kept;
	if (!kept)
		cg->version = 0;
	return 0;
}

int cgroup_enter(const struct cgroup *cg, int pid, char *why)
{
	/* For one thread that moves itself the kernel takes no lock against forks, for which it would wait. */
	bool alone = cg->version == 1 && pid == 0;
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	for (unsigned i = 0; i < cg->ndirs; i++) {
		int err =
			cgroup_file_write(cg->dirs[i].path, alone ? "tasks" : "cgroup.procs", text);

		/* A user's process comes from a session, whose cgroup is not the user's: systemd may move it. */
		if (err == -EACCES && cg->user && !systemd_attach(cg, pid ? pid : getpid()))
			err = 0;
		if (err) {
			snprintf(why, CGROUP_ERROR_MAX, "entering cgroup %.200s: %s",
				 cg->dirs[i].path, strerror(-err));
			return err;
		}
	}
	return 0;
}

pid_t cgroup_clone(const struct cgroup *cg, unsigned long flags, int exit_signal, bool *ret_entered)
{
	struct clone_args args = {.flags = flags | CLONE_INTO_CGROUP,
				  .exit_signal = (uint64_t)exit_signal};
	/* systemd makes the scope around the process. */
	bool into = cg->version == 2 && cg->ndirs == 1 && !cg->unit;
	int fd = into ? open(cg->dirs[0].path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	pid_t pid = -1;

	*ret_entered = fd >= 0;
	if (fd >= 0) {
		args.cgroup = (uint64_t)fd;
		pid = (pid_t)syscall(SYS_clone3, &args, sizeof(args));
		close(fd);
	}
	/* What the cgroup refuses too: entering it afterwards says why. */
	if (pid >= 0)
		return pid;
	*ret_entered = false;
	return clone_process(flags, exit_signal);
}

int cgroup_start_scope(struct cgroup *cg, int pid, const json_t *annotations, char *why)
{
	int err = systemd_start_scope(cg, pid, annotations, why);

	/* What is there is another container's: not to be killed, stopped or removed. */
	if (err == -EEXIST)
		cgroup_fini(cg);
	return err;
}

int cgroup_complete_scope(struct cgroup *cg, int pid, const json_t *resources, char *why)
{
	int err = cgroup_create(cg, resources, why);

	return err ? err : cgroup_enter(cg, pid, why);
}

void cgroup_leave(const struct cgroup *cg)
{
	for (unsigned i = 0; i < cg->ndirs; i++)
		if (cgroup_file_write(cg->dirs[i].root, "cgroup.procs", "0"))
			cli_debug("cannot leave cgroup %s: %m", cg->dirs[i].path);
}

/* ---- the end ---- */

/* What somebody made below it and has left; as far as that goes. */
static void remove_below(const char *path, unsigned depth)
{
	DIR *dir = depth ? opendir(path) : NULL;
	struct dirent *e;

	while (dir && (e = readdir(dir))) {
		auto_free char *below = NULL;

		if (e->d_type != DT_DIR || e->d_name[0] == '.' ||
		    asprintf(&below, "%s/%s", path, e->d_name) < 0)
			continue;
		remove_below(below, depth - 1);
		(void)!rmdir(below);
	}
	if (dir)
		closedir(dir);
}

static int64_t now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000ll + t.tv_nsec / 1000000;
}

/* Return 0, -EBUSY: somebody stays in there until `end_ms`; -errno: it is not ours to remove. */
static int remove_dir(const char *path, int64_t end_ms)
{
	for (;;) {
		if (rmdir(path) == 0 || errno == ENOENT)
			return 0;
		if (errno != EBUSY)
			return -errno;
		remove_below(path, BELOW_DEPTH_MAX);
		if (rmdir(path) == 0 || errno == ENOENT)
			return 0;
		if (now_ms() >= end_ms)
			return -EBUSY;
		/* Processes that have died are still leaving. */
		nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
	}
}

int cgroup_remove(const struct cgroup *cg, int timeout_ms)
{
	int64_t end_ms = now_ms() + timeout_ms;
	int ret = 0;

	/* What it leaves (v1's other hierarchies) is removed as ever. */
	if (cg->unit && systemd_stop_scope(cg))
		cli_debug("the scope %s is left to systemd", cg->unit);
	for (unsigned i = 0; i < cg->ndirs; i++) {
		int err = remove_dir(cg->dirs[i].path, end_ms);

		if (err && ret != -EBUSY)
			ret = err;
	}
	return ret;
}

int cgroup_remove_dead(const struct cgroup *cg)
{
	int64_t end_ms = now_ms() + REMOVE_DEAD_MS;
	int err = 0;

	if (!cg->unit) {
		return cgroup_remove(cg, REMOVE_DEAD_MS);
	}
	for (unsigned i = 0; i < cg->ndirs && !err; i++)
		err = remove_dir(cg->dirs[i].path, end_ms);
	/* Whoever is in one is not ours. */
	return 0;
}
