/*
 * sentry/boot/boot_add.c - further containers in the sandbox: those of a pod.
 *
 * A monitor of the container's own asks for it (CONTROL_ADD) and keeps the connection, as that of an exec does for a process. The container has a
 * gofer, a root, a mount namespace, and a control socket of its own, which the verbs connect to; uts, ipc and pid namespaces are its own or another container's.
 *
 *	add_begin()   a job: the spec's, mounts, the first process; CREATED or STARTED
 *	add_finish()  a job, when the first process has ended or the monitor has gone: every process is killed and waited for, the tree is let go (the
 *	              engine is about to unmount it), EXIT
 *
 * The first container is the sandbox: with its end all is over (boot.c). Its virtio-fs devices and 9P servers each container has for itself
 * (boot_virtiofs.c); they end with it, or with its monitor.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "sentry/boot/boot_network.h"
#include "sentry/boot/internal.h"
#include "sentry/fs/fs.h"
#include "sentry/ipc/ipc.h"
#include "sentry/pidns.h"
#include "sentry/task_internal.h"
#include "sentry/tty/tty.h"

/* How long the last output of a terminal may wait for whoever reads it. */
#define ADD_DRAIN_NS 1000000000ll
#define ADD_KILL_NS 10000000000ll

REF_TYPE(container_ref_type, "container");

static struct mutex list_lock = MUTEX_INIT(LOCK_BOOT, "containers");
static TAILQ_HEAD(, boot_container)
	containers = TAILQ_HEAD_INITIALIZER(containers); /* guarded by list_lock */

void boot_list_add(struct boot_container *b)
{
	mutex_lock(&list_lock);
	TAILQ_INSERT_TAIL(&containers, b, link);
	mutex_unlock(&list_lock);
}

static void list_remove(struct boot_container *b)
{
	mutex_lock(&list_lock);
	TAILQ_REMOVE(&containers, b, link);
	mutex_unlock(&list_lock);
}

void boot_for_each(void (*fn)(struct boot_container *b, void *arg), void *arg)
{
	struct boot_container *b;

	mutex_lock(&list_lock);
	TAILQ_FOREACH (b, &containers, link)
		fn(b, arg);
	mutex_unlock(&list_lock);
}

/* ---- namespaces ---- */

/* A reference; NULL: there is none of that name. */
static struct boot_container *find(const char *id)
{
	struct boot_container *b;

	mutex_lock(&list_lock);
	TAILQ_FOREACH (b, &containers, link)
		if (strcmp(b->spec.id, id) == 0)
			break;
	if (b)
		boot_container_ref(b);
	mutex_unlock(&list_lock);
	return b;
}

static void set_names(struct uts_namespace *uts, const struct boot_spec *s)
{
	mutex_lock(&uts->lock);
	snprintf(uts->nodename, sizeof(uts->nodename), "%s", s->hostname ? s->hostname : "moat");
	if (s->domainname)
		snprintf(uts->domainname, sizeof(uts->domainname), "%s", s->domainname);
	mutex_unlock(&uts->lock);
}

static int make_first_namespaces(struct boot_container *b)
{
	ref_init(&b->ref, &container_ref_type);
	b->uts_ns = kernel.uts_ns;
	uts_ref(b->uts_ns);
	b->ipc_ns = kernel.ipc_ns;
	ipc_namespace_ref(b->ipc_ns);
	b->pid_ns = &pid_ns_root;
	b->cgroup = kernel.cgroup;
	task_cgroup_ref(b->cgroup);
	set_names(b->uts_ns, &b->spec);
	return 0;
}

static int no_such(struct boot_container *b, const char *type, const char *id)
{
	return boot_fail(&b->error, 1, "linux.namespaces: %s: container %s has ended", type, id);
}

int boot_make_namespaces(struct boot_container *b)
{
	const struct boot_spec *s = &b->spec;
	struct boot_container *other;

	if (b->first)
		return make_first_namespaces(b);
	if (task_cgroup_create(&b->cgroup))
		return boot_fail(&b->error, 1, "sentry: out of memory");
	if (s->uts_of) {
		other = find(s->uts_of);
		if (!other)
			return no_such(b, "uts", s->uts_of);
		b->uts_ns = other->uts_ns;
		uts_ref(b->uts_ns);
		boot_container_unref(other);
	} else {
		b->uts_ns = uts_create(NULL);
		if (b->uts_ns)
			set_names(b->uts_ns, s);
	}
	if (s->ipc_of) {
		other = find(s->ipc_of);
		if (!other)
			return no_such(b, "ipc", s->ipc_of);
		b->ipc_ns = other->ipc_ns;
		ipc_namespace_ref(b->ipc_ns);
		boot_container_unref(other);
	} else if (ipc_namespace_create(&b->ipc_ns)) {
		b->ipc_ns = NULL;
	}
	if (s->pid_of) {
		other = find(s->pid_of);
		if (!other)
			return no_such(b, "pid", s->pid_of);
		b->pid_ns = other->pid_ns;
		pid_ns_ref(b->pid_ns);
		boot_container_unref(other);
	} else if (pid_ns_create(&pid_ns_root, &b->pid_ns)) {
		b->pid_ns = NULL;
	}
	return b->uts_ns && b->ipc_ns && b->pid_ns
		       ? 0
		       : boot_fail(&b->error, 1, "sentry: out of memory");
}

/* ---- the beginning ---- */

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

/* The spec, and the descriptors where it wants them. */
static int take_request(struct boot_container *b, struct boot_job *j, struct boot_process *p)
{
	struct boot_spec *s = &b->spec;
	size_t at = 3, devices = 0;

	if (j->count < at)
		return boot_fail(&b->error, 1, "control: descriptors do not match the request");
	if (exec_read_spec(j->fds[0], s, &b->error))
		return -1;
	/* What the spec says of descriptors was never true here. */
	s->control_fd = s->listen_fd = s->log_fd = s->notify_fd = s->virtiofs_fd = -1;
	s->gofer_fd = j->fds[1];
	b->listen_fd = j->fds[2];
	j->fds[1] = j->fds[2] = -1;
	if ((j->flags & CONTROL_ADD_NOTIFY) && at < j->count) {
		s->notify_fd = j->fds[at];
		j->fds[at++] = -1;
	}
	while (s->virtiofs && s->virtiofs[devices])
		devices++;
	if (devices && j->count - at < devices + 1)
		return boot_fail(&b->error, 1, "control: descriptors do not match the request");
	if (exec_place_fds(p, j->fds, j->count, at + (devices ? devices + 1 : 0), j->flags))
		return -1;
	return boot_connect_devices(b, j->fds + at);
}

static int make_container(struct boot_container *b, struct boot_job *j)
{
	struct boot_process p = {.boot = b, .spec = &b->spec, .error = &b->error, .is_init = true};
	struct kernel_actor actor;
	int err;

	if (take_request(b, j, &p) || boot_make_namespaces(b))
		return -1;
	boot_configure_cgroup(b);
	actor = (struct kernel_actor){
		.uts_ns = b->uts_ns, .ipc_ns = b->ipc_ns, .cgroup = b->cgroup};
	kernel_act_as(&actor);
	procfs_set_mount_ns(b->pid_ns);
	err = boot_name_devices(b);
	if (!err)
		err = boot_make_root(b);
	if (!err)
		err = boot_make_mounts(b);
	if (!err)
		err = boot_network_configure(&b->spec, false, b->error.text, sizeof(b->error.text));
	if (!err) {
		boot_make_notify(b);
		b->spec.notify_fd = -1;
		err = boot_create_init(b, p.extra);
	}
	procfs_set_mount_ns(NULL);
	kernel_act_as(NULL);
	return err;
}

/* All that it holds of files, for the engine is about to unmount them. A job; the control thread looks at none of it. */
static void drop_tree(struct boot_container *b)
{
	struct vfs_path root = b->root;

	boot_hurry_devices(b);
	if (b->cgroup)
		tty_console_forget(b->cgroup);
	if (b->console)
		tty_host_close(b->console);
	b->console = NULL;
	b->root = (struct vfs_path){0};
	if (root.dentry)
		vfs_path_unref(&root);
	if (b->ns)
		mount_namespace_unref(b->ns);
	b->ns = NULL;
	/* What the last reference left to be done: files are closed on the host then. */
	vfs_run_deferred();
	rcu_drain();
	vfs_run_deferred();
	boot_release_devices(b);
	if (b->gofer)
		p9_conn_unref(b->gofer);
	b->gofer = NULL;
}

static void container_free(struct boot_container *b)
{
	/* Not sooner: clients of its socket send signals to its end and beyond. */
	if (b->init)
		task_unref(b->init);
	drop_tree(b);
	close_fd(&b->spec.gofer_fd);
	close_fd(&b->spec.notify_fd);
	close_fd(&b->listen_fd);
	close_fd(&b->spec.console_fd);
	for (int i = 0; i < 3; i++)
		close_fd(&b->spec.stdio[i]);
	pid_ns_unref(b->pid_ns);
	uts_unref(b->uts_ns);
	ipc_namespace_unref(b->ipc_ns);
	task_cgroup_unref(b->cgroup);
	if (b->root_cred)
		cred_unref(b->root_cred);
	boot_spec_fini(&b->spec);
	wait_queue_fini(&b->idle);
	free(b);
}

static void free_job(struct boot_job *j)
{
	container_free(j->container);
	j->container = NULL;
}

void boot_container_unref(struct boot_container *b)
{
	struct boot_job j = {.run = free_job, .sock = -1, .container = b};

	if (!b || !ref_put(&b->ref))
		return;
	ref_fini(&b->ref, &container_ref_type);
	/* Letting go of mounts asks the gofer, which may take its time. */
	if (!boot_job_start(&j))
		log_warn("container %s: out of memory: some of it stays", b->spec.id);
}

static void begin_failed(struct boot_container *b, struct boot_job *j)
{
	struct control_msg msg = {.op = CONTROL_ERROR,
				  .text = b ? b->error.text : (char *)"sentry: out of memory",
				  .exit_code = b && b->error.exit_code ? b->error.exit_code : 1};

	if (control_send(j->sock, &msg))
		log_warn("control: a monitor went away before its reply");
	if (b)
		boot_container_unref(b);
	j->container = NULL;
	j->last = true;
}

void add_begin(struct boot_job *j)
{
	struct boot_container *b = calloc(1, sizeof(*b)), *asked = j->container;
	struct control_msg created = {.op = CONTROL_CREATED}, started = {.op = CONTROL_STARTED};
	int err = -1;

	if (b) {
		ref_init(&b->ref, &container_ref_type);
		boot_spec_init(&b->spec);
		wait_queue_init(&b->idle);
		b->listen_fd = -1;
		b->lifeline = j->sock;
		err = make_container(b, j);
	}
	for (size_t i = 0; i < j->count; i++)
		if (j->fds[i] >= 0)
			close(j->fds[i]);
	boot_container_unref(asked);
	if (err) {
		begin_failed(b, j);
		return;
	}
	waiter_init(&b->end, boot_event_on_exit, b, POLLIN | POLLHUP);
	wait_queue_add(&b->init->group->pidfd_wait, &b->end);
	boot_list_add(b);
	log_info("container %s: added to the sandbox", b->spec.id);
	j->container = b;
	created.pid = started.pid = b->init->vtid;
	/* A monitor that has gone is noticed by the control thread. */
	control_post(b, b->spec.hold ? &created : &started);
	if (!b->spec.hold && boot_start_init(b))
		log_error("container %s: %s", b->spec.id, b->error.text);
}

/* ---- the end ---- */

static bool is_exiting(const struct boot_container *b)
{
	struct sighand *sh = sighand_lock(b->init->group);
	bool exiting = b->init->group->exiting;

	sighand_unlock(sh);
	return exiting;
}

/* With the pid namespace of another container that it shares, before it was started: it ends on a thread that add_finish() gives it. */
static bool killed_unstarted(const struct boot_container *b)
{
	return !atomic_load(&b->started) && is_exiting(b);
}

void add_look_at_end(struct boot_container *b)
{
	if (is_exiting(b))
		boot_hurry_devices(b);
}

bool add_has_ended(const struct boot_container *b)
{
	return killed_unstarted(b) || group_has_ended(b->init->group);
}

static bool is_idle(void *arg)
{
	return atomic_load(&((struct boot_container *)arg)->execs) == 0;
}

void add_finish(struct boot_job *j)
{
	struct boot_container *b = j->container;
	struct control_msg msg = {.op = CONTROL_EXIT};

	cred_set_current(b->root_cred);
	if (!atomic_exchange(&b->started, true)) {
		/* One that was never started has no thread to die on. */
		task_group_exit(b->init->group, SIGKILL);
		if (task_start(b->init))
			log_error("container %s: its first process stays", b->spec.id);
	}
	boot_hurry_devices(b);
	if (task_cgroup_kill(b->cgroup, ADD_KILL_NS))
		log_warn("container %s: some processes do not end", b->spec.id);
	msg.status = b->init->group->exit_code;
	wait_queue_remove(&b->end);
	list_remove(b);
	if (b->console)
		tty_console_drain(b->console, time_monotonic_ns() + ADD_DRAIN_NS);
	/* Processes of `moat exec` on their way: they see that there is no container any more. */
	atomic_store(&b->ended, true);
	if (wait_event(&b->idle, is_idle, b, SLEEP_UNINTERRUPTIBLE,
		       time_monotonic_ns() + ADD_DRAIN_NS) == 0)
		drop_tree(b);
	if (control_send(j->sock, &msg))
		log_info("container %s: nobody waits for its end", b->spec.id);
	j->last = true;
}
