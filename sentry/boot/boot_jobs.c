/*
 * sentry/boot/boot_jobs.c - slow steps of the control server's connections, each on a thread of its own.
 *
 * Looking for a program, loading it, making mounts and draining a terminal can take as long as the gofer or a reader likes. Ends of jobs and of
 * processes wake the control thread through one eventfd.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/log.h"
#include "sentry/boot/internal.h"

#define JOB_STACK_SIZE (1u << 20) /* what is touched counts */

static struct mutex jobs_lock = MUTEX_INIT(LOCK_LEAF, "boot_jobs");
static STAILQ_HEAD(, boot_job) jobs_done = STAILQ_HEAD_INITIALIZER(jobs_done);
static int event_fd = -1;

int boot_jobs_init(void)
{
	event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	return event_fd < 0 ? -errno : 0;
}

int boot_event_fd(void)
{
	return event_fd;
}

void boot_event_raise(void)
{
	static const uint64_t one = 1;

	if (write(event_fd, &one, sizeof(one)) < 0 && errno != EAGAIN)
		log_warn("control: the end of a process goes unnoticed: %s", strerror(errno));
}

void boot_event_on_exit(unused_arg struct waiter *w, unused_arg uint32_t events)
{
	boot_event_raise();
}

static void job_run(struct boot_job *j)
{
	j->run(j);
	mutex_lock(&jobs_lock);
	STAILQ_INSERT_TAIL(&jobs_done, j, link);
	mutex_unlock(&jobs_lock);
	boot_event_raise();
}

static void *job_main(void *arg)
{
	rcu_thread_begin();
	job_run(arg);
	cred_set_current(NULL);
	/* Files and mounts that it let go: the queue is this thread's. */
	vfs_run_deferred();
	rcu_thread_end();
	return NULL;
}

/* Without a thread of its own: the caller's credentials come back, what the job was given does not stay. */
static void job_run_here(struct boot_job *j)
{
	const struct cred *own = cred_current();

	job_run(j);
	cred_set_current(NULL);
	vfs_run_deferred();
	cred_set_current(own);
}

bool boot_job_start(const struct boot_job *request)
{
	struct boot_job *j = malloc(sizeof(*j));
	pthread_attr_t attr;
	pthread_t thread;

	if (!j) {
		for (size_t i = 0; i < request->count; i++)
			close(request->fds[i]);
		return false;
	}
	*j = *request;
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, JOB_STACK_SIZE);
	if (pthread_create(&thread, &attr, job_main, j))
		job_run_here(j);
	pthread_attr_destroy(&attr);
	return true;
}

struct boot_job *boot_next_job_done(void)
{
	struct boot_job *j;

	mutex_lock(&jobs_lock);
	j = STAILQ_FIRST(&jobs_done);
	if (j)
		STAILQ_REMOVE_HEAD(&jobs_done, link);
	mutex_unlock(&jobs_lock);
	return j;
}
