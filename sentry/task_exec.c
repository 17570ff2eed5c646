/*
 * sentry/task_exec.c - execve: a new image for the calling task, which becomes its group's only thread.
 *
 * The image is built beside the old one (loader_load() makes a new mm). Until the siblings are told to die nothing has changed and an
 * error is returned; after that the task is committed. A thread that is no leader takes over the leader's tid.
 */
#include <ctype.h>
#include <stdio.h>

#include "sentry/futex.h"
#include "sentry/loader.h"
#include "sentry/ptrace.h"
#include "sentry/task_internal.h"
#include "vfs/write_access.h"

#define PTRACE_EVENT_EXEC_ 4
#define PER_CLEAR_ON_SETID                      \
	(0x0400000u | 0x0040000u | 0x0100000u | \
	 0x0200000u) /* READ_IMPLIES_EXEC NO_RANDOMIZE MMAP_PAGE_ZERO COMPAT_LAYOUT */
#define ADDR_NO_RANDOMIZE_ 0x0040000u

/* From where the loader opens interpreters. */
struct exec_place {
	struct vfs_path root, cwd;
	struct mount_namespace *ns;
	const struct cred *cred;
};

static int exec_open(void *arg, const char *path, struct file **ret)
{
	struct exec_place *p = arg;
	struct vfs_lookup lk = {.cred = p->cred,
				.ns = p->ns,
				.root = p->root,
				.start = p->cwd,
				.path = path,
				.flags = LOOKUP_FOLLOW};
	struct open_args oa = {.flags = O_RDONLY, .exec = true};

	return vfs_open(&lk, &oa, ret);
}

static void exec_place_get(struct task *t, struct exec_place *p)
{
	fs_context_get_root(t->fsctx, &p->root);
	fs_context_get_cwd(t->fsctx, &p->cwd);
	p->ns = t->mnt_ns;
	p->cred = t->cred;
}

static void exec_place_put(struct exec_place *p)
{
	vfs_path_unref(&p->root);
	vfs_path_unref(&p->cwd);
}

struct exec_image {
	struct loader_result res;
	struct cred *cred;
	bool secure;
};

static void exec_image_put(struct exec_image *img)
{
	if (img->res.mm)
		mm_unref(img->res.mm);
	if (img->res.exe)
		file_unref(img->res.exe);
	if (img->cred)
		cred_unref(img->cred);
}

static size_t count_strings(char *const *v)
{
	size_t n = 0;

	while (v && v[n])
		n++;
	return n;
}

static int exec_build(struct task *t, struct file *exe, const char *filename, char *const *argv,
		      size_t argc, char *const *envp, size_t envc, struct exec_image *img)
{
	struct mm_limits limits;
	struct exec_place place;
	struct loader_args la = {.platform = kernel.platform,
				 .file = exe,
				 .filename = filename,
				 .argv = argv,
				 .envp = envp,
				 .argc = argc,
				 .envc = envc,
				 .limits = &limits,
				 .open_exec = exec_open,
				 .open_arg = &place};
	int err;

	*img = (struct exec_image){0};
	err = exec_prepare_cred(t, exe, &img->cred, &img->secure);
	if (err)
		return err;
	task_mm_limits(t, &limits);
	la.stack_rlimit = task_rlimit(t, RLIMIT_STACK);
	la.cred = img->cred;
	la.secure = img->secure;
	la.no_randomize = !img->secure && (t->personality & ADDR_NO_RANDOMIZE_);
	exec_place_get(t, &place);
	err = loader_load(&la, &img->res);
	exec_place_put(&place);
	if (err)
		exec_image_put(img);
	return err;
}

static void exec_set_regs(struct task *t, const struct exec_image *img)
{
	t->regs.r = (struct user_regs_struct){0};
	t->regs.r.rip = img->res.entry;
	t->regs.r.rsp = img->res.sp;
	t->regs.r.cs = ARCH_USER_CS;
	t->regs.r.ss = ARCH_USER_SS;
	t->regs.r.eflags = ARCH_EFLAGS_FIXED;
	t->regs.r.orig_rax = (unsigned long long)-1;
}

/* ---- the first image of a process from outside ---- */

int exec_first_image(struct task *t, const char *filename, char *const *argv, char *const *envp)
{
	struct exec_place place;
	struct exec_image img;
	struct file *exe;
	int err;

	exec_place_get(t, &place);
	err = exec_open(&place, filename, &exe);
	exec_place_put(&place);
	if (err)
		return err;
	err = exec_build(t, exe, filename, argv, count_strings(argv), envp, count_strings(envp),
			 &img);
	file_unref(exe);
	if (err)
		return err;
	t->mm = img.res.mm;
	img.res.mm = NULL;
	mm_set_exe(t->mm, img.res.exe);
	/* The container's configuration gave the credentials: the file's bits apply to them as in any execve. */
	task_set_cred(t, img.cred);
	img.cred = NULL;
	task_set_comm(t, img.res.comm);
	exec_set_regs(t, &img);
	exec_image_put(&img);
	return 0;
}

/*
 * As a Linux container has it: its first process is there before it executes the program, so a program that the kernel refuses is the process's
 * end, not an error of who made it. The mm is empty: nothing ever runs in it.
 */
int exec_refuse_late(struct task *t, const char *filename, int err)
{
	const char *slash = strrchr(filename, '/'), *words = strerrordesc_np(-err);

	if (!words)
		words = "Unknown error";
	if (asprintf(&t->exec_refused, "exec %s: %c%s\n", filename, tolower((unsigned char)*words),
		     words + 1) < 0) {
		t->exec_refused = NULL;
		return -ENOMEM;
	}
	task_set_comm(t, slash ? slash + 1 : filename);
	return mm_create(kernel.platform, &t->mm);
}

void exec_end_refused(struct task *t)
{
	struct file *f = fd_get(t->fdtable, 2);
	struct io_iter it;

	if (f) {
		io_iter_init_kernel(&it, t->exec_refused, strlen(t->exec_refused), false);
		if (file_write_iter(f, &it, NULL, 0) < 0)
			log_info("tasks: %.*s", (int)strcspn(t->exec_refused, "\n"),
				 t->exec_refused);
		io_iter_fini(&it);
		file_unref(f);
	}
	task_group_exit(t->group, 1 << 8);
}

/* ---- alone in the group ---- */

static bool exec_not_busy(void *arg)
{
	struct thread_group *g = arg;
	struct sighand *sh = sighand_lock(g);
	bool free_now = !g->exec_busy;

	if (free_now)
		g->exec_busy = true;
	sighand_unlock(sh);
	return free_now;
}

static void exec_end(struct thread_group *g)
{
	struct sighand *sh = sighand_lock(g);

	g->exec_busy = false;
	g->exec_task = NULL;
	sighand_unlock(sh);
	wait_queue_wake(&g->wait, POLLIN);
}

static bool exec_alone(void *arg)
{
	struct task *t = arg;
	struct thread_group *g = t->group;
	bool alone;

	rwlock_read_lock(&kernel.taskset_lock);
	alone = g->ntasks == 1 ||
		(g->ntasks == 2 && t != g->leader && atomic_load(&g->leader->state) == TASK_ZOMBIE);
	rwlock_read_unlock(&kernel.taskset_lock);
	return alone;
}

/* The caller becomes the leader: it gets the dead leader's tid, which is the process's id. */
static void exec_take_leadership(struct task *t)
{
	struct task_list dead = TAILQ_HEAD_INITIALIZER(dead);
	struct thread_group *g = t->group;
	struct task *old;

	rwlock_write_lock(&kernel.taskset_lock);
	old = g->leader;
	if (old != t) {
		int32_t tid = t->tid;

		ptrace_unlink(old);
		idr_remove(&kernel.tasks, tid);
		task_tid_release(tid);
		idr_replace(&kernel.tasks, old->tid, t);
		t->tid = old->tid;
		t->vtid = old->vtid;
		old->tid = old->vtid = 0;
		task_unlink(old);
		TAILQ_INSERT_TAIL(&dead, old, thread_link);
		g->leader = t;
	}
	/* A child made with another exit signal is an ordinary one from now on. */
	if (g->exit_signal)
		g->exit_signal = SIGCHLD;
	g->did_exec = true;
	rwlock_write_unlock(&kernel.taskset_lock);
	task_list_free(&dead);
}

/* Return: 0, or -EINTR when the whole group dies. */
static int exec_dethread(struct task *t)
{
	struct thread_group *g = t->group;
	struct sighand *sh = sighand_lock(g);
	struct task *other;

	if (g->exiting) {
		sighand_unlock(sh);
		return -EINTR;
	}
	g->exec_task = t;
	g->stop.count = 0;
	TAILQ_FOREACH (other, &g->threads, thread_link) {
		if (other == t)
			continue;
		other->stop_pending = false;
		other->pending.set |= sigbit(SIGKILL);
		signal_wake_task(other, true);
	}
	sighand_unlock(sh);
	if (wait_event(&g->wait, exec_alone, t, SLEEP_KILLABLE, TIME_FOREVER))
		return -EINTR;
	exec_take_leadership(t);
	return 0;
}

/* Handlers are shared with another process (CLONE_SIGHAND without CLONE_THREAD): no longer. */
static void exec_unshare_sighand(struct task *t, struct sighand *spare)
{
	struct thread_group *g = t->group;
	struct sighand *old = sighand_lock(g);

	if (spare) {
		memcpy(spare->actions, old->actions, sizeof(spare->actions));
		mutex_lock_nested(&spare->lock); /* nobody else knows it yet */
		signal_flush_handlers(spare);
		rcu_store(g->sighand, spare);
		mutex_unlock(&spare->lock);
	} else {
		signal_flush_handlers(old);
	}
	sighand_unlock(old);
	if (spare)
		sighand_unref(old);
}

/* ---- the point of no return is behind ---- */

static void exec_swap_mm(struct task *t, struct exec_image *img)
{
	struct mm *old;

	task_mm_release(t);
	futex_pi_revive(t);
	mutex_lock(&t->lock);
	old = t->mm;
	t->mm = img->res.mm;
	mutex_unlock(&t->lock);
	img->res.mm = NULL;
	mm_set_exe(t->mm, img->res.exe);
	task_vfork_done(t);
	mm_user_unref(old);
}

static void exec_commit(struct task *t, struct exec_image *img, struct sighand *spare)
{
	const struct cred *old = t->cred;
	bool changed = img->cred->euid != old->euid || img->cred->egid != old->egid ||
		       (img->cred->cap_permitted & ~old->cap_permitted);

	exec_unshare_sighand(t, spare);
	group_timers_exec(t->group);
	exec_swap_mm(t, img);
	atomic_store(&t->group->dumpable, img->secure || changed ? 0 : 1);
	if (img->secure) {
		t->parent_death_signal = 0;
		t->personality &= ~PER_CLEAR_ON_SETID;
	}
	task_set_cred(t, img->cred);
	img->cred = NULL;
	task_set_comm(t, img->res.comm);
	t->altstack = (struct sigaltstack_state){0};
	t->robust_list = t->clear_child_tid = t->set_child_tid = 0;
	t->rseq_addr = 0;
	atomic_store(&t->group->membarrier, 0);
	fd_close_on_exec(t->fdtable);
	kernel.platform->ops->fpu_reset(t->ctx);
	exec_set_regs(t, img);
	t->restart_fn = NULL;
	t->mm_shared = false;
}

int64_t task_execve(struct task *t, struct file *exe, const char *filename, char *const *argv,
		    size_t argc, char *const *envp, size_t envc)
{
	struct thread_group *g = t->group;
	struct sighand *spare = NULL;
	struct exec_image img;
	uint64_t old_tid = ptrace_pid_message(t, t->tid);
	int err;

	/* One execve at a time: the loser is killed by the winner. */
	if (wait_event(&g->wait, exec_not_busy, g, SLEEP_KILLABLE, TIME_FOREVER))
		return -ERESTARTNOINTR_;
	err = vfs_deny_write(exe);
	if (err)
		goto out_end;
	err = exec_build(t, exe, filename, argv, argc, envp, envc, &img);
	if (err)
		goto out_allow;
	err = task_unshare_files(t);
	if (err)
		goto out_put;
	if (ref_read(&g->sighand->ref) > 1) {
		err = -ENOMEM;
		spare = sighand_create();
		if (!spare)
			goto out_put;
	}
	err = exec_dethread(t);
	if (err) {
		if (spare)
			sighand_unref(spare);
		goto out_put;
	}
	exec_commit(t, &img, spare);
	vfs_allow_write(exe);
	exec_end(g);
	exec_image_put(&img);
	ptrace_event(t, PTRACE_EVENT_EXEC_, old_tid);
	return 0;
out_put:
	exec_image_put(&img);
out_allow:
	vfs_allow_write(exe);
out_end:
	exec_end(g);
	return err;
}
