// LINK: moat_sentry moat_ipc moat_loader moat_mm moat_tty moat_synth moat_anon moat_memfs moat_vfs moat_mem
/*
 * Tasks without a CPU: a platform whose "application" is a C function that a register points to. Every switch is one system call, in which
 * that function runs as the task: it forks, waits, signals and exits through the sentry's own interfaces, on real task threads.
 * A handler's address in rip runs the handler and comes back through the signal frame.
 */
#include "tests/unit/check.h"

#include <elf.h>
#include <linux/sched.h>
#include <semaphore.h>
#include <sys/mman.h>

#include "fsimpl/anon/anon.h"
#include "fsimpl/memfs/memfs.h"
#include "sentry/futex.h"
#include "sentry/loader.h"
#include "sentry/task_internal.h"
#include "tests/unit/fake_platform.h"

#define ENTRY 0x400080ull
#define HANDLER 0x4000f0ull
#define RESTORER 0x4000f8ull
#define FPU_SIZE 576

typedef int64_t (*program)(struct task *t);

/* ---- the platform ---- */

struct platform_context {
	_Atomic bool interrupted;
	uint8_t fpu[FPU_SIZE];
};

static _Atomic int contexts, handled;

static int ctx_create(struct platform *p, struct platform_context *from,
		      struct platform_context **ret)
{
	struct platform_context *c = calloc(1, sizeof(*c));

	(void)p;
	if (from)
		memcpy(c->fpu, from->fpu, FPU_SIZE);
	atomic_fetch_add(&contexts, 1);
	*ret = c;
	return 0;
}

static void ctx_destroy(struct platform_context *c)
{
	atomic_fetch_sub(&contexts, 1);
	free(c);
}

static int ctx_switch(struct platform_context *c, struct address_space *as, struct arch_regs *regs,
		      struct platform_event *ev)
{
	(void)as;
	*ev = (struct platform_event){.kind = PLATFORM_SYSCALL};
	if (atomic_exchange(&c->interrupted, false)) {
		ev->kind = PLATFORM_INTERRUPTED;
		return 0;
	}
	if (regs->r.rip == HANDLER) {
		atomic_fetch_add(&handled, 1);
		c->fpu[0] ^= 0xff; /* the handler's own state: gone after the return */
		regs->r.rbx ^= 0x55;
		regs->r.rsp += 8;
		regs->r.rax = 15;
		return 0;
	}
	regs->r.rip = ENTRY + 2; /* one instruction, again and again */
	regs->r.rax = 1000;
	return 0;
}

static void ctx_interrupt(struct platform_context *c)
{
	atomic_store(&c->interrupted, true);
}

static void thread_gone(struct platform *p)
{
	(void)p;
}

static size_t fpu_size(struct platform *p)
{
	(void)p;
	return FPU_SIZE;
}

static int fpu_get(struct platform_context *c, void *buf, size_t size)
{
	memcpy(buf, c->fpu, MIN(size, (size_t)FPU_SIZE));
	return FPU_SIZE;
}

static int fpu_set(struct platform_context *c, const void *buf, size_t size)
{
	memcpy(c->fpu, buf, MIN(size, (size_t)FPU_SIZE));
	return 0;
}

static void fpu_reset(struct platform_context *c)
{
	memset(c->fpu, 0, FPU_SIZE);
}

static struct platform_ops task_ops;

static void dispatch(struct task *t)
{
	struct user_regs_struct *r = &t->regs.r;

	r->orig_rax = r->rax;
	if (r->rax == 15)
		r->rax = (uint64_t)signal_return(t);
	else if (r->rbx)
		r->rax = (uint64_t)((program)r->rbx)(t);
	else
		task_group_exit(t->group, 99 << 8);
}

/* ---- what programs do ---- */

static int32_t spawn(struct task *t, program fn, uint64_t arg, uint64_t flags)
{
	struct clone_args_k a = {.flags = flags, .exit_signal = flags & CLONE_THREAD ? 0 : SIGCHLD};
	uint64_t rbx = t->regs.r.rbx, rbp = t->regs.r.rbp;
	int64_t tid;

	t->regs.r.rbx = (uint64_t)fn;
	t->regs.r.rbp = arg;
	do {
		tid = task_clone(t, &a);
		if (tid == -ERESTARTNOINTR_)
			signal_deliver(t, false);
	} while (tid == -ERESTARTNOINTR_);
	t->regs.r.rbx = rbx;
	t->regs.r.rbp = rbp;
	assert(tid > 0 || atomic_load(&t->fatal_pending)); /* killed while it forks */
	return (int32_t)tid;
}

#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD)

static struct task_wait_result wait_for(struct task *t, int32_t pid, int options)
{
	struct task_wait_args a = {
		.idtype = pid > 0 ? P_PID : P_ALL, .id = pid, .options = options};
	struct task_wait_result r;
	int err;

	do
		err = task_wait(t, &a, &r);
	while (err == -ERESTARTSYS_ && (signal_deliver(t, false), true));
	assert(!err);
	return r;
}

static int64_t exit_with_arg(struct task *t)
{
	task_group_exit(t->group, (int)(t->regs.r.rbp & 0xff) << 8);
	return 0;
}

static int64_t exit_thread_only(struct task *t)
{
	task_exit(t, 0);
	return 0;
}

static int64_t sleep_forever(struct task *t)
{
	while (!sleeper_wait(&t->sleeper, SLEEP_INTERRUPTIBLE, TIME_FOREVER))
		;
	return -ERESTARTNOHAND_;
}

static int64_t spin(struct task *t)
{
	(void)t;
	return 0;
}

static void send(int32_t pid, int signo)
{
	struct moat_siginfo info = {.si_signo = signo, .si_code = SI_USER};
	struct thread_group *g = group_find(pid);

	assert(g);
	info.rt.pid = 1;
	assert(!signal_send_group(g, &info));
	group_unref(g);
}

/* ---- the cases; each runs as init ---- */

static void case_fork_wait(struct task *t)
{
	for (int i = 0; i < 50; i++) {
		int32_t pid = spawn(t, exit_with_arg, (uint64_t)i, 0);

		assert(wait_for(t, pid, WEXITED).wait_status == i << 8);
	}
	for (int i = 0; i < 50; i++)
		spawn(t, exit_with_arg, 7, 0);
	for (int i = 0; i < 50; i++)
		assert(wait_for(t, -1, WEXITED).wait_status == 7 << 8);
}

static void case_kill(struct task *t)
{
	program programs[2] = {sleep_forever, spin};

	for (int i = 0; i < 20; i++) {
		int32_t pid = spawn(t, programs[i & 1], 0, 0);

		send(pid, i & 2 ? SIGTERM : SIGKILL);
		assert(wait_for(t, pid, WEXITED).wait_status == (i & 2 ? SIGTERM : SIGKILL));
	}
}

static int64_t many_threads(struct task *t)
{
	for (int i = 0; i < 30; i++)
		spawn(t, i & 1 ? spin : sleep_forever, 0, THREAD_FLAGS);
	for (int i = 0; i < 30; i++)
		spawn(t, exit_thread_only, 0, THREAD_FLAGS);
	t->regs.r.rbx = (uint64_t)sleep_forever;
	if (t->regs.r.rbp)
		task_group_exit(t->group, 3 << 8);
	return 0;
}

static void case_threads(struct task *t)
{
	for (int i = 0; i < 6; i++) {
		int32_t pid = spawn(t, many_threads, (uint64_t)(i & 1), 0);

		if (!(i & 1))
			send(pid, SIGKILL);
		assert(wait_for(t, pid, WEXITED).wait_status == (i & 1 ? 3 << 8 : SIGKILL));
	}
}

static void case_stop(struct task *t)
{
	int32_t pid = spawn(t, many_threads, 0, 0);
	struct task_wait_result r;

	for (int i = 0; i < 10; i++) {
		send(pid, SIGSTOP);
		r = wait_for(t, pid, WSTOPPED);
		assert(r.code == CLD_STOPPED && r.status == SIGSTOP &&
		       r.wait_status == (SIGSTOP << 8 | 0x7f));
		send(pid, SIGCONT);
		r = wait_for(t, pid, WCONTINUED);
		assert(r.code == CLD_CONTINUED && r.wait_status == 0xffff);
	}
	send(pid, SIGSTOP);
	send(pid, SIGKILL);
	assert(wait_for(t, pid, WEXITED).wait_status == SIGKILL);
}

static int64_t handler_child(struct task *t)
{
	struct moat_sigaction sa = {
		.handler = HANDLER, .flags = 0x04000000 | SA_SIGINFO, .restorer = RESTORER};

	assert(!signal_action(t, SIGUSR1, &sa, NULL));
	t->ctx->fpu[0] = 42;
	t->regs.r.rbx = (uint64_t)spin;
	t->regs.r.r15 = 0x1515;
	atomic_store(&handled, 0);
	assert(!signal_send_task_kernel(t, SIGUSR1));
	return 0;
}

static void case_handler(struct task *t)
{
	int32_t pid = spawn(t, handler_child, 0, 0);
	struct task *child = task_find(pid);

	while (atomic_load(&handled) < 1)
		usleep(1000);
	for (int i = 0; i < 20; i++) {
		int before = atomic_load(&handled);

		send(pid, SIGUSR1);
		while (atomic_load(&handled) == before)
			usleep(200);
	}
	send(pid, SIGSTOP);
	wait_for(t, pid, WSTOPPED);
	/* The frame kept what the handler changed. */
	assert(child->regs.r.rbx == (uint64_t)spin && child->regs.r.r15 == 0x1515 &&
	       child->ctx->fpu[0] == 42);
	send(pid, SIGKILL);
	wait_for(t, pid, WEXITED);
	task_unref(child);
}

static int64_t orphan_maker(struct task *t)
{
	for (int i = 0; i < 5; i++)
		spawn(t, exit_with_arg, 5, 0);
	task_group_exit(t->group, 0);
	return 0;
}

static void case_orphans(struct task *t)
{
	spawn(t, orphan_maker, 0, 0);
	for (int i = 0; i < 6; i++)
		wait_for(t, -1, WEXITED); /* init inherits the grandchildren */
}

static void case_autoreap(struct task *t)
{
	struct moat_sigaction sa = {.handler = 1}, old;
	struct task_wait_args a = {.idtype = P_ALL, .options = WEXITED};
	struct task_wait_result r;
	int err;

	assert(!signal_action(t, SIGCHLD, &sa, &old));
	for (int i = 0; i < 10; i++)
		spawn(t, exit_with_arg, 1, 0);
	do
		err = task_wait(t, &a, &r);
	while (err == -ERESTARTSYS_);
	assert(err == -ECHILD);
	assert(!signal_action(t, SIGCHLD, &old, NULL));
}

static uint64_t futex_word; /* its address in the guest */

static int64_t futex_waiter(struct task *t)
{
	int64_t ret = futex_op_wait(t, futex_word, 0, 0, ~0u, TIME_FOREVER);

	if (ret == -EINTR)
		return -ERESTARTSYS_;
	assert(ret == 0 || ret == -EAGAIN);
	task_exit(t, 0);
	return 0;
}

static int64_t futex_main(struct task *t)
{
	uint32_t one = 1, zero = 0;
	int woken = 0;

	futex_word = (t->regs.r.rsp - 4096) & ~63ull;
	assert(!task_copy_out(t, futex_word, &zero, sizeof(zero)));
	for (int i = 0; i < 20; i++)
		spawn(t, futex_waiter, 0, THREAD_FLAGS);
	while (woken < 10)
		woken += (int)futex_op_wake(t, futex_word, 0, 1, ~0u);
	/* The rest are asleep or will see the word. */
	assert(!task_copy_out(t, futex_word, &one, sizeof(one)));
	(void)futex_op_wake(t, futex_word, 0, INT32_MAX, ~0u);
	while (atomic_load(&t->group->live) > 1)
		usleep(500);
	task_group_exit(t->group, 0);
	return 0;
}

static void case_futex(struct task *t)
{
	for (int i = 0; i < 5; i++)
		assert(wait_for(t, spawn(t, futex_main, 0, 0), WEXITED).wait_status == 0);
}

static const struct {
	const char *name;
	void (*fn)(struct task *t);
} cases[] = {
	{"fork_wait", case_fork_wait}, {"kill", case_kill},	  {"threads", case_threads},
	{"stop", case_stop},	       {"handler", case_handler}, {"orphans", case_orphans},
	{"autoreap", case_autoreap},   {"futex", case_futex},
};

static sem_t init_done;
static int init_status = -1;

static int64_t init_program(struct task *t)
{
	for (unsigned i = 0; i < ARRAY_SIZE(cases); i++) {
		cases[i].fn(t);
		print_message("  %s\n", cases[i].name);
	}
	/* Left to the end of init: killed with it. */
	spawn(t, sleep_forever, 0, 0);
	spawn(t, spin, 0, 0);
	task_group_exit(t->group, 12 << 8);
	return 0;
}

static void init_exited(int status)
{
	init_status = status;
	sem_post(&init_done);
}

/* ---- the machine around ---- */

static void write_program(struct mount_namespace *ns, const struct vfs_path *root,
			  const struct cred *cred)
{
	struct vfs_lookup lk = {
		.cred = cred, .ns = ns, .root = *root, .start = *root, .path = "/init"};
	struct open_args oa = {.flags = O_CREAT | O_RDWR, .mode = 0755};
	struct {
		Elf64_Ehdr e;
		Elf64_Phdr p;
	} elf = {0};
	char page[4096] = {0};
	struct file *f;

	memcpy(elf.e.e_ident, ELFMAG, SELFMAG);
	elf.e.e_ident[EI_CLASS] = ELFCLASS64;
	elf.e.e_ident[EI_DATA] = ELFDATA2LSB;
	elf.e.e_ident[EI_VERSION] = EV_CURRENT;
	elf.e.e_type = ET_EXEC;
	elf.e.e_machine = EM_X86_64;
	elf.e.e_version = EV_CURRENT;
	elf.e.e_entry = ENTRY;
	elf.e.e_phoff = sizeof(elf.e);
	elf.e.e_ehsize = sizeof(elf.e);
	elf.e.e_phentsize = sizeof(elf.p);
	elf.e.e_phnum = 1;
	elf.p = (Elf64_Phdr){.p_type = PT_LOAD,
			     .p_flags = PF_R | PF_X,
			     .p_vaddr = 0x400000,
			     .p_paddr = 0x400000,
			     .p_filesz = 4096,
			     .p_memsz = 4096,
			     .p_align = 4096};
	memcpy(page, &elf, sizeof(elf));
	assert_int_equal(vfs_open(&lk, &oa, &f), 0);
	assert_int_equal(file_write_kernel(f, page, sizeof(page), 0), sizeof(page));
	file_unref(f);
}

static bool is_dead(void *g)
{
	return group_is_dead(g);
}

/* A text that is no program, to be executed by a process from outside: it says so on its descriptor 2. init is there, and not started yet. */
static void check_refused(const struct task_exec_args *init_args)
{
	static const char wanted[] = "exec /bad: exec format error\n";
	struct task_exec_args args = *init_args;
	struct vfs_lookup lk = {.cred = args.cred,
				.ns = args.mnt_ns,
				.root = args.root,
				.start = args.root,
				.path = "/bad"};
	struct open_args oa = {.flags = O_CREAT | O_RDWR, .mode = 0755};
	char text[64] = {0};
	struct thread_group *g;
	struct task *t = NULL;
	struct file *f;

	args.filename = "/bad";
	assert_int_equal(vfs_open(&lk, &oa, &f), 0);
	assert_int_equal(file_write_kernel(f, "echo hi\n", 8, 0), 8);
	file_unref(f);
	assert_int_equal(fd_table_create(&args.fdtable), 0);
	assert_int_equal(task_create_process(&args, &t), -ENOEXEC);
	args.refuse_late = true;
	lk.path = "/out";
	for (int open_err = 0; open_err < 2; open_err++) {
		assert_int_equal(fd_table_create(&args.fdtable), 0);
		if (open_err) {
			assert_int_equal(vfs_open(&lk, &oa, &f), 0);
			assert_int_equal(fd_install_at(args.fdtable, f, 2, 16, false), 2);
		}
		assert_int_equal(task_create_process(&args, &t), 0);
		g = t->group;
		group_ref(g);
		assert_int_equal(task_start(t), 0);
		assert_int_equal(wait_event(&g->pidfd_wait, is_dead, g, SLEEP_INTERRUPTIBLE,
					    time_monotonic_ns() + 5000000000ll),
				 0);
		assert_int_equal(g->exit_code, 1 << 8);
		group_unref(g);
		task_unref(t);
	}
	assert_int_equal(file_read_kernel(f, text, sizeof(text), 0), sizeof(wanted) - 1);
	assert_string_equal(text, wanted);
	file_unref(f);
}

static void make_platform(void)
{
	task_ops = fake_ops;
	task_ops.context_create = ctx_create;
	task_ops.context_destroy = ctx_destroy;
	task_ops.context_switch = ctx_switch;
	task_ops.context_interrupt = ctx_interrupt;
	task_ops.thread_exit = thread_gone;
	task_ops.fpu_size = fpu_size;
	task_ops.fpu_get = fpu_get;
	task_ops.fpu_set = fpu_set;
	task_ops.fpu_reset = fpu_reset;
	fake_platform.ops = &task_ops;
}

static void count_tasks(void *arg, const char *name, int64_t live)
{
	static const char *const types[] = {"task",	     "thread group", "sighand",	   "mm",
					    "process group", "session",	     "posix timer"};

	for (unsigned i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(name, types[i]) && live) {
			print_message("  left: %s %ld\n", name, (long)live);
			*(int64_t *)arg += live;
		}
}

static void test_life(void **state)
{
	struct memfs_options opts = {0};
	struct task_exec_args args = {
		.filename = "/init", .argv = (char *[]){"init", NULL}, .envp = (char *[]){NULL}};
	struct filesystem *fs;
	struct dentry *root;
	struct cred *cred;
	struct task *init;
	int64_t left = 0;

	(void)state;
	make_platform();
	assert_int_equal(guard_install(), 0);
	assert_int_equal(mem_init(0), 0);
	assert_int_equal(vdso_init(), 0);
	rcu_thread_begin();
	assert_int_equal(timer_thread_start(), 0);
	assert_int_equal(vfs_init(), 0);
	assert_int_equal(kernel_init(&fake_platform, 2, 1000), 0);
	assert_int_equal(anon_init(), 0);
	assert_int_equal(memfs_register(), 0);
	kernel.dispatch = dispatch;
	kernel.on_init_exit = init_exited;
	sem_init(&init_done, 0, 0);
	assert_int_equal(cred_create_root(&cred), 0);
	cred_set_current(cred);
	assert_int_equal(memfs_create_fs("root", &opts, &fs, &root), 0);
	assert_int_equal(mount_namespace_create(fs, root, 0, &args.mnt_ns), 0);
	mount_namespace_root(args.mnt_ns, &args.root);
	mount_namespace_root(args.mnt_ns, &args.cwd);
	write_program(args.mnt_ns, &args.root, cred);
	assert_int_equal(fd_table_create(&args.fdtable), 0);
	args.cred = cred;
	args.uts_ns = uts_create(NULL);
	assert_int_equal(task_create_process(&args, &init), 0);
	check_refused(&args);
	init->regs.r.rbx = (uint64_t)init_program;
	assert_int_equal(task_start(init), 0);
	sem_wait(&init_done);
	assert_int_equal(init_status, 12 << 8);
	/* Init's own end goes on after the news. */
	for (int i = 0; i < 60000 && atomic_load(&kernel.running); i++)
		usleep(1000);
	assert_int_equal(atomic_load(&kernel.running), 0);
	task_unref(init);
	task_unref(kernel.init);
	rcu_drain();
	rcu_drain();
	ref_report(count_tasks, &left);
	assert_int_equal(left, 0);
	assert_int_equal(atomic_load(&contexts), 0);
	uts_unref(args.uts_ns);
	vfs_path_unref(&args.root);
	vfs_path_unref(&args.cwd);
	mount_namespace_unref(args.mnt_ns);
	cred_set_current(NULL);
	cred_unref(cred);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_life)};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
