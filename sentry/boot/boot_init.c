/*
 * sentry/boot/boot_init.c - the container's first process: credentials, descriptors, the executable's path.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "fsimpl/hostfd/hostfd.h"
#include "sentry/boot/internal.h"
#include "sentry/tty/tty.h"

static int make_cred(struct boot_state *b, struct cred **ret)
{
	const struct boot_spec *s = &b->spec;
	struct cred *c;
	int err = cred_prepare(b->root_cred, &c);

	if (err)
		return err;
	c->uid = c->euid = c->suid = c->fsuid = s->uid;
	c->gid = c->egid = c->sgid = c->fsgid = s->gid;
	c->cap_bounding = s->cap_bounding & CAP_FULL;
	c->cap_permitted = s->cap_permitted & c->cap_bounding;
	c->cap_effective = s->cap_effective & c->cap_permitted;
	c->cap_inheritable = s->cap_inheritable & CAP_FULL;
	c->cap_ambient = s->cap_ambient & c->cap_permitted & c->cap_inheritable;
	c->no_new_privs = s->no_new_privs;
	err = cred_set_groups(c, s->groups, s->ngroups);
	if (err) {
		cred_unref(c);
		return err;
	}
	cred_commit(c);
	*ret = c;
	return 0;
}

static int open_console(struct boot_state *b, struct fd_table *fds)
{
	struct winsize ws = {.ws_row = (unsigned short)b->spec.console_rows,
			     .ws_col = (unsigned short)b->spec.console_cols};
	struct file *f;
	unsigned index;
	int err = tty_console_create(NULL, b->spec.console_fd, &index, &b->console);

	if (err)
		return boot_fail(&b->error, 1, "terminal: %s%s", strerror(-err),
				 err == -ENODEV ? "; the configuration mounts no devpts on /dev/pts"
						: "");
	tty_resize(b->console, &ws);
	for (int i = 0; i < 3; i++) {
		struct vfs_lookup lk = boot_lookup(b, "", 0);

		err = tty_open_slave(b->console, &lk, O_RDWR, &f);
		if (!err) {
			err = fd_install(fds, f, i, FD_TABLE_MAX, false);
			file_unref(f);
		}
		if (err < 0)
			return boot_fail(&b->error, 1, "terminal: %s", strerror(-err));
	}
	return 0;
}

static int install_stdio(struct boot_state *b, struct fd_table *fds)
{
	if (b->spec.console_fd >= 0)
		return open_console(b, fds);
	for (int i = 0; i < 3; i++) {
		struct file *f;
		int err;

		if (b->spec.stdio[i] < 0)
			continue;
		err = hostfd_file_create(b->spec.stdio[i], HOSTFD_FLAGS_OF_HOST, &f);
		if (!err) {
			err = fd_install(fds, f, i, FD_TABLE_MAX, false);
			file_unref(f);
		}
		if (err < 0)
			return boot_fail(&b->error, 1, "standard descriptor %d: %s", i,
					 strerror(-err));
	}
	return 0;
}

static const char *env_value(char **envp, const char *name)
{
	size_t len = strlen(name);

	for (; *envp; envp++)
		if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
			return *envp + len + 1;
	return NULL;
}

/* Is this a file that the new credentials may execute? 0, or the errno that says why not. */
static int check_executable(struct boot_state *b, const struct cred *cred,
			    const struct vfs_path *cwd, const char *path)
{
	struct vfs_lookup lk = boot_lookup(b, path, LOOKUP_FOLLOW);
	struct moat_statx st;
	int err;

	lk.cred = cred;
	lk.start = *cwd;
	err = vfs_stat(&lk, &(struct stat_args){.mask = 0x7ff}, &st);
	if (err)
		return err;
	if (!S_ISREG(st.mode))
		return -EACCES;
	return vfs_access(&lk, X_OK);
}

/* args[0] through PATH, as runc resolves it. *ret is malloc'd. */
static int find_executable(struct boot_state *b, const struct cred *cred,
			   const struct vfs_path *cwd, char **ret)
{
	const char *name = b->spec.argv[0], *path = env_value(b->spec.envp, "PATH");
	int err = -ENOENT;

	if (strchr(name, '/')) {
		*ret = strdup(name);
		return *ret ? check_executable(b, cred, cwd, name) : -ENOMEM;
	}
	if (!path)
		path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	while (*path) {
		size_t len = strcspn(path, ":");
		char *candidate;
		int this_err;

		if (asprintf(&candidate, "%.*s/%s", len ? (int)len : 1, len ? path : ".", name) < 0)
			return -ENOMEM;
		this_err = check_executable(b, cred, cwd, candidate);
		if (this_err == 0) {
			*ret = candidate;
			return 0;
		}
		free(candidate);
		if (this_err == -EACCES)
			err = this_err;
		path += len + (path[len] == ':');
	}
	return err;
}

static int exec_error(struct boot_state *b, int err)
{
	const char *name = b->spec.argv[0];

	if (err == -ENOENT && !strchr(name, '/'))
		return boot_fail(&b->error, 127, "exec: \"%s\": executable file not found in $PATH",
				 name);
	if (err == -ENOENT || err == -ENOTDIR)
		return boot_fail(
			&b->error, 127,
			"exec: \"%s\": no such file or directory (or its interpreter is missing)",
			name);
	if (err == -ENOEXEC)
		return boot_fail(&b->error, 126,
				 "exec: \"%s\": exec format error: no x86-64 ELF file or script",
				 name);
	return boot_fail(&b->error, 126, "exec: \"%s\": %s", name,
			 err == -EACCES ? "permission denied" : strerror(-err));
}

static void make_rlimits(const struct boot_spec *s, struct rlimits *out)
{
	static const uint64_t defaults[RLIM_COUNT][2] = {
		{UINT64_MAX, UINT64_MAX},
		{UINT64_MAX, UINT64_MAX},
		{UINT64_MAX, UINT64_MAX},
		{8 << 20, UINT64_MAX},
		{0, UINT64_MAX},
		{UINT64_MAX, UINT64_MAX},
		{TASKS_MAX, TASKS_MAX},
		{1024, 1048576},
		{8 << 20, 8 << 20},
		{UINT64_MAX, UINT64_MAX},
		{UINT64_MAX, UINT64_MAX},
		{TASKS_MAX, TASKS_MAX},
		{819200, 819200},
		{0, 0},
		{0, 0},
		{UINT64_MAX, UINT64_MAX},
	};

	for (int i = 0; i < RLIM_COUNT; i++) {
		out->lim[i].cur = s->rlimits[i].set ? s->rlimits[i].cur : defaults[i][0];
		out->lim[i].max = s->rlimits[i].set ? s->rlimits[i].max : defaults[i][1];
	}
}

static int resolve_cwd(struct boot_state *b, const struct cred *cred, struct vfs_path *ret)
{
	struct vfs_lookup lk = boot_lookup(b, b->spec.cwd, LOOKUP_FOLLOW | LOOKUP_DIRECTORY);
	int err;

	lk.cred = cred;
	err = vfs_get_path(&lk, ret);
	if (err)
		return boot_fail(&b->error, 127,
				 "process.cwd: %s: %s; make it in the root filesystem or correct "
				 "process.cwd",
				 b->spec.cwd, strerror(-err));
	return 0;
}

static int create_init(struct boot_state *b, const struct vfs_path *cwd, struct cred *cred,
		       struct fd_table *fds, struct task **ret_task)
{
	struct rlimits rlimits;
	struct task_exec_args args = {
		.root = b->root,
		.cwd = *cwd,
		.argv = b->spec.argv,
		.envp = b->spec.envp,
		.cred = cred,
		.mnt_ns = b->ns,
		.uts_ns = kernel.uts_ns,
		.fdtable = fds,
		.rlimits = &rlimits,
		.umask = b->spec.umask,
		.new_session = true,
		.ctty = b->console,
	};
	char *filename = NULL;
	int err = find_executable(b, cred, cwd, &filename);

	make_rlimits(&b->spec, &rlimits);
	args.filename = filename;
	if (!err)
		err = task_create_process(&args, ret_task);
	else
		fd_table_unref(fds);
	free(filename);
	return err ? exec_error(b, err) : 0;
}

int boot_start_init(struct boot_state *b, struct task **ret_task)
{
	struct fd_table *fds;
	struct vfs_path cwd;
	struct cred *cred;
	int err;

	mutex_lock(&kernel.uts_ns->lock);
	snprintf(kernel.uts_ns->nodename, sizeof(kernel.uts_ns->nodename), "%s",
		 b->spec.hostname ? b->spec.hostname : "moat");
	if (b->spec.domainname)
		snprintf(kernel.uts_ns->domainname, sizeof(kernel.uts_ns->domainname), "%s",
			 b->spec.domainname);
	mutex_unlock(&kernel.uts_ns->lock);
	err = make_cred(b, &cred);
	if (!err)
		err = fd_table_create(&fds);
	if (err)
		return boot_fail(&b->error, 1, "first process: %s", strerror(-err));
	if (install_stdio(b, fds) || resolve_cwd(b, cred, &cwd)) {
		fd_table_unref(fds);
		return -1;
	}
	err = create_init(b, &cwd, cred, fds, ret_task);
	vfs_path_unref(&cwd);
	cred_unref(cred);
	return err;
}
