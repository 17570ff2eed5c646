/*
 * sentry/boot/boot_init.c - a process from outside, the container's first one or one of `moat exec`: credentials, descriptors, the
 * executable's path, seccomp.
 */
#include <ctype.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "fsimpl/hostfd/hostfd.h"
#include "sentry/boot/internal.h"
#include "sentry/fdtable.h"
#include "sentry/seccomp.h"
#include "sentry/tty/tty.h"

static int compare_groups(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return (x > y) - (x < y);
}

/* Each once, as by runc. Return: how many are left. */
static unsigned sort_groups(uint32_t *groups, unsigned count)
{
	unsigned n = 0;

	if (count)
		qsort(groups, count, sizeof(*groups), compare_groups);
	for (unsigned i = 0; i < count; i++)
		if (n == 0 || groups[n - 1] != groups[i])
			groups[n++] = groups[i];
	return n;
}

static int make_cred(const struct boot_process *p, struct cred **ret)
{
	const struct boot_spec *s = p->spec;
	struct cred *c;
	int err = cred_prepare(p->boot->root_cred, &c);

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
	err = cred_set_groups(c, s->groups, sort_groups(s->groups, s->ngroups));
	if (err) {
		cred_unref(c);
		return err;
	}
	cred_commit(c);
	*ret = c;
	return 0;
}

/* The container's own instance, a reference; NULL. */
static struct filesystem *find_devpts(struct boot_container *b)
{
	struct vfs_lookup lk = boot_lookup(b, "/dev/pts", LOOKUP_FOLLOW);
	struct filesystem *fs;
	struct vfs_path path;

	if (vfs_get_path(&lk, &path))
		return NULL;
	fs = path.dentry->fs;
	filesystem_ref(fs);
	vfs_path_unref(&path);
	return fs;
}

static int open_console(struct boot_process *p, struct fd_table *fds)
{
	struct winsize ws = {.ws_row = (unsigned short)p->spec->console_rows,
			     .ws_col = (unsigned short)p->spec->console_cols};
	struct file *f;
	unsigned index;
	int err;

	struct filesystem *devpts = find_devpts(p->boot);

	if (!devpts)
		err = -ENODEV;
	else if (p->is_init)
		err = tty_console_create(devpts, p->spec->console_fd, &index, &p->tty);
	else
		err = tty_host_create(devpts, p->spec->console_fd, &index, &p->tty);
	if (devpts)
		filesystem_unref(devpts);
	if (err)
		return boot_fail(p->error, 1, "terminal: %s%s", strerror(-err),
				 err == -ENODEV ? "; the configuration mounts no devpts on /dev/pts"
						: "");
	p->spec->console_fd = -1; /* the terminal's now */
	if (ws.ws_row || ws.ws_col)
		tty_resize(p->tty, &ws);
	tty_set_owner(p->tty, p->spec->uid);
	for (int i = 0; i < 3; i++) {
		struct vfs_lookup lk = boot_lookup(p->boot, "", 0);

		err = tty_open_slave(p->tty, &lk, O_RDWR, &f);
		if (!err) {
			err = fd_install(fds, f, i, FD_TABLE_MAX, false);
			file_unref(f);
		}
		if (err < 0)
			return boot_fail(p->error, 1, "terminal: %s", strerror(-err));
	}
	return 0;
}

/* Takes the host descriptor. */
static int install_host_fd(struct boot_process *p, struct fd_table *fds, int host_fd, int guest_fd)
{
	struct file *f;
	int err = hostfd_file_create(host_fd, HOSTFD_FLAGS_OF_HOST, &f);

	if (err) {
		close(host_fd);
	} else {
		err = fd_install_at(fds, f, guest_fd, FD_TABLE_MAX, false);
		file_unref(f);
	}
	return err < 0 ? boot_fail(p->error, 1, "descriptor %d: %s", guest_fd, strerror(-err)) : 0;
}

static int install_stdio(struct boot_process *p, struct fd_table *fds)
{
	struct boot_spec *s = p->spec;
	int err = 0;

	if (s->console_fd >= 0) {
		err = open_console(p, fds);
	} else {
		for (int i = 0; !err && i < 3; i++) {
			if (s->stdio[i] < 0)
				continue;
			err = install_host_fd(p, fds, s->stdio[i], i);
			s->stdio[i] = -1;
		}
	}
	for (unsigned i = 0; !err && i < s->extra_fds; i++) {
		int fd = p->extra ? p->extra[i] : s->extra_fd + (int)i;

		if (p->extra)
			p->extra[i] = -1;
		err = install_host_fd(p, fds, fd, 3 + (int)i);
	}
	return err;
}

const char *boot_env_value(char **envp, const char *name)
{
	size_t len = strlen(name);

	for (; *envp; envp++)
		if (strncmp(*envp, name, len) == 0 && (*envp)[len] == '=')
			return *envp + len + 1;
	return NULL;
}

/* Where a program is looked for. */
struct program_search {
	struct boot_container *b;
	const struct cred *cred;
	const struct vfs_path *cwd;
	bool as_shell; /* moat do: as a shell looks, else as runc */
};

/* Is this a file that somebody may execute (*ret_may 0), and the credentials too? 0, or the errno that says why not. */
static int check_executable(const struct program_search *s, const char *path, int *ret_may)
{
	struct vfs_lookup lk = boot_lookup(s->b, path, LOOKUP_FOLLOW);
	struct moat_statx st;
	int err;

	lk.cred = s->cred;
	lk.start = *s->cwd;
	err = vfs_stat(&lk, &(struct stat_args){.mask = 0x7ff}, &st);
	if (err)
		return err;
	if (S_ISDIR(st.mode) || !(st.mode & 0111))
		return -EACCES;
	*ret_may = S_ISREG(st.mode) ? vfs_access(&lk, X_OK) : -EACCES;
	return 0;
}

/*
 * The next candidate of PATH. runc takes the first that has a bit to execute, and then looks whether it may: it passes over other files as if there were none, and
 * refuses (-EXDEV) one that is found by a relative directory. A shell goes on, and tells of what it may not execute.
 */
static int try_candidate(const struct program_search *s, const char *candidate, bool *found)
{
	int may = 0, err = check_executable(s, candidate, &may);

	if (s->as_shell) {
		err = err ? err : may;
		*found = !err;
		return err == -EACCES || !err ? err : -ENOENT;
	}
	*found = !err;
	if (err)
		return -ENOENT;
	return *candidate == '/' ? may : -EXDEV;
}

static const char *program_name(const struct boot_process *p)
{
	return p->spec->program ? p->spec->program : p->spec->argv[0];
}

/* args[0] through PATH. *ret is malloc'd. Return: 0, -ENOENT, -EACCES, -EXDEV (see try_candidate()), what stat(2) says of a path. */
static int find_executable(const struct boot_process *p, const struct program_search *s, char **ret)
{
	const char *name = program_name(p), *path = boot_env_value(p->spec->envp, "PATH");
	int err = -ENOENT, may = 0;
	bool found = false;

	/* Not the directories of PATH themselves. */
	if (!*name)
		return -ENOENT;
	if (strchr(name, '/')) {
		*ret = strdup(name);
		err = *ret ? check_executable(s, name, &may) : -ENOMEM;
		return err ? err : may;
	}
	if (!path)
		path = s->as_shell ? "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
				   : "";
	for (bool more = *path != 0; more && !found; path++) {
		size_t len = strcspn(path, ":");
		char *candidate;
		int this_err;

		if (asprintf(&candidate, "%.*s/%s", len ? (int)len : 1, len ? path : ".", name) < 0)
			return -ENOMEM;
		this_err = try_candidate(s, candidate, &found);
		if (this_err == 0)
			*ret = candidate;
		else
			free(candidate);
		if (found || this_err == -EACCES)
			err = this_err;
		path += len;
		more = *path != 0; /* an empty last one counts as well */
	}
	return err;
}

/* There is no such program, or it may not be executed: in runc's words, which engines make 127 and 126 of. */
static int lookup_error(const struct boot_process *p, int err)
{
	const char *name = program_name(p), *words = strerror(-err);

	if (err == -ENOENT && !strchr(name, '/'))
		return boot_fail(p->error, 127, "exec: \"%s\": executable file not found in $PATH",
				 name);
	if (err == -EXDEV && !strchr(name, '/'))
		return boot_fail(
			p->error, 126,
			"exec: \"%s\": cannot run executable found relative to current directory",
			name);
	if (err == -EACCES)
		return boot_fail(p->error, 126, "exec: \"%s\": permission denied", name);
	return boot_fail(p->error, err == -ENOENT || err == -ENOTDIR ? 127 : 126,
			 "exec: \"%s\": stat %s: %c%s", name, name, tolower((unsigned char)*words),
			 words + 1);
}

/* It is there, but no program. */
static int image_error(const struct boot_process *p, int err)
{
	const char *name = program_name(p);

	if (err == -ENOENT)
		return boot_fail(
			p->error, 127,
			"exec: \"%s\": no such file or directory: its interpreter is missing",
			name);
	if (err == -ENOEXEC)
		return boot_fail(p->error, 126,
				 "exec: \"%s\": exec format error: no x86-64 ELF file or script",
				 name);
	return boot_fail(p->error, 126, "exec: \"%s\": %s", name,
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
	/* The host's fs.nr_open may be larger than ours: a limit above that could not be set anew inside, not even to itself. */
	out->lim[RLIMIT_NOFILE].max = MIN(out->lim[RLIMIT_NOFILE].max, (uint64_t)FD_TABLE_MAX);
	out->lim[RLIMIT_NOFILE].cur = MIN(out->lim[RLIMIT_NOFILE].cur, out->lim[RLIMIT_NOFILE].max);
}

static int resolve_cwd(const struct boot_process *p, const struct cred *cred, struct vfs_path *ret)
{
	struct vfs_lookup lk = boot_lookup(p->boot, p->spec->cwd, LOOKUP_FOLLOW | LOOKUP_DIRECTORY);
	int err;

	lk.cred = cred;
	err = vfs_get_path(&lk, ret);
	/* As runc: the directory may be one that only the container's root may enter. */
	if (err == -EACCES) {
		lk.cred = p->boot->root_cred;
		err = vfs_get_path(&lk, ret);
	}
	if (err)
		return boot_fail(p->error, 127,
				 "process.cwd: %s: %s; make it in the root filesystem or correct "
				 "process.cwd",
				 p->spec->cwd, strerror(-err));
	return 0;
}

static int hex_digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The filter of config.json, which the runtime compiled. */
static int attach_seccomp(const struct boot_process *p, struct task *t)
{
	const char *hex = p->spec->seccomp;
	size_t count = hex ? strlen(hex) / 16 : 0;
	struct seccomp_insn *insns;
	int err = -EINVAL;

	if (!hex)
		return 0;
	insns = calloc(count ? count : 1, sizeof(*insns));
	if (!insns)
		return -ENOMEM;
	if (count == 0 || count > BOOT_SECCOMP_INSNS_MAX || strlen(hex) % 16)
		goto out;
	for (size_t i = 0; i < count; i++) {
		uint64_t v = 0;

		for (int k = 0; k < 16; k++) {
			int digit = hex_digit(hex[i * 16 + (size_t)k]);

			if (digit < 0)
				goto out;
			v = v << 4 | (uint64_t)digit;
		}
		insns[i] = (struct seccomp_insn){.code = (uint16_t)(v >> 48),
						 .jt = (uint8_t)(v >> 40),
						 .jf = (uint8_t)(v >> 32),
						 .k = (uint32_t)v};
	}
	err = (int)seccomp_install(t, 0, insns, (unsigned)count);
out:
	free(insns);
	return err;
}

/* Pre: it does not run yet. */
static void set_priorities(const struct boot_spec *s, struct task *t)
{
	t->personality = s->personality;
	t->sched_policy = (int)s->sched_policy;
	t->sched_priority = (int)s->sched_priority;
	t->sched_reset_on_fork = s->sched_reset_on_fork;
	t->nice = s->nice;
	atomic_store(&t->ioprio, (int)s->ioprio);
}

static int create_process(struct boot_process *p, const struct vfs_path *cwd, struct cred *cred,
			  struct fd_table *fds, struct task **ret_task)
{
	struct rlimits rlimits;
	struct task_exec_args args = {
		.root = p->boot->root,
		.cwd = *cwd,
		.argv = p->spec->argv,
		.envp = p->spec->envp,
		.cred = cred,
		.mnt_ns = p->boot->ns,
		.uts_ns = p->boot->uts_ns,
		.ipc_ns = p->boot->ipc_ns,
		.pid_ns = p->boot->pid_ns,
		.cgroup = p->boot->cgroup,
		.fdtable = fds,
		.rlimits = &rlimits,
		.umask = p->spec->umask,
		.new_session = true,
		/* Not a command under moat do, whose caller is told at once. */
		.refuse_late = !p->is_init || !p->spec->killable_init,
		.ctty = p->tty,
	};
	const struct program_search search = {
		.b = p->boot,
		.cred = cred,
		.cwd = cwd,
		.as_shell = p->is_init && p->spec->killable_init,
	};
	char *filename = NULL;
	int err = find_executable(p, &search, &filename);

	if (err) {
		fd_table_unref(fds);
		free(filename);
		return lookup_error(p, err);
	}
	make_rlimits(p->spec, &rlimits);
	args.filename = filename;
	err = task_create_process(&args, ret_task);
	free(filename);
	if (err)
		return image_error(p, err);
	atomic_store(&(*ret_task)->group->oom_score_adj, p->spec->oom_score_adj);
	set_priorities(p->spec, *ret_task);
	err = attach_seccomp(p, *ret_task);
	if (!err)
		return 0;
	/* The sandbox ends without its first one. */
	if (!p->is_init || !p->boot->first) {
		task_group_exit((*ret_task)->group, SIGKILL);
		if (task_start(*ret_task))
			log_error("process: it stays: %s", p->spec->argv[0]);
		task_unref(*ret_task);
		*ret_task = NULL;
	}
	return boot_fail(p->error, 1, "linux.seccomp: %s", strerror(-err));
}

int boot_create_process(struct boot_process *p, struct task **ret_task)
{
	struct fd_table *fds;
	struct vfs_path cwd;
	struct cred *cred;
	int err = make_cred(p, &cred);

	if (!err) {
		err = boot_add_home(p->boot, p->spec);
		if (!err)
			err = fd_table_create(&fds);
		if (err)
			cred_unref(cred);
	}
	if (err)
		return boot_fail(p->error, 1, "process: %s", strerror(-err));
	if (install_stdio(p, fds) || resolve_cwd(p, cred, &cwd)) {
		fd_table_unref(fds);
		cred_unref(cred);
		return -1;
	}
	err = create_process(p, &cwd, cred, fds, ret_task);
	vfs_path_unref(&cwd);
	cred_unref(cred);
	return err;
}

int boot_create_init(struct boot_container *b, int *extra)
{
	struct boot_process p = {
		.boot = b, .spec = &b->spec, .error = &b->error, .is_init = true, .extra = extra};
	int err;

	err = boot_create_process(&p, &b->init);
	b->console = p.tty;
	/* Not started yet: nobody else looks. */
	if (!err)
		atomic_store(&b->cgroup->init, b->init->group);
	if (!err && b->spec.killable_init)
		b->init->group->unkillable = false;
	return err;
}
