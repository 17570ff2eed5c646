/* runtime/cgroup_freezer.c - pausing a sandbox by its cgroup. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cgroup.h"
#include "runtime/cgroup_files.h"

#define FREEZE_TRIES 5000 /* of 2 ms: runc waits 10 s, too */

static const struct cgroup_dir *dir_with(const struct cgroup *cg, const char *controller)
{
	for (unsigned i = 0; i < cg->ndirs; i++)
		if (cg->version == 2 || cgroup_list_has(cg->dirs[i].controllers, controller))
			return &cg->dirs[i];
	return NULL;
}

bool cgroup_can_freeze(const struct cgroup *cg)
{
	const struct cgroup_dir *d = dir_with(cg, "freezer");
	char path[4600];

	if (!d)
		return false;
	snprintf(path, sizeof(path), "%s/%s", d->path,
		 cg->version == 2 ? "cgroup.freeze" : "freezer.state");
	return access(path, W_OK) == 0;
}

bool cgroup_is_frozen(const struct cgroup *cg)
{
	const struct cgroup_dir *d = dir_with(cg, "freezer");
	auto_free char *text = NULL;

	if (!d)
		return false;
	if (cg->version == 2) {
		text = cgroup_file_read(d->path, "cgroup.freeze");
		return text && strcmp(text, "1") == 0;
	}
	text = cgroup_file_read(d->path, "freezer.state");
	return text && (strcmp(text, "FROZEN") == 0 || strcmp(text, "FREEZING") == 0);
}

/* Of a thread: false if it is gone. `ret_kvm`: not vhost's or io_uring's of whoever else is in the cgroup: nothing would bring those back. */
static bool read_thread(unsigned tid, char *ret_state, bool *ret_kvm)
{
	char dir[32];
	auto_free char *stat = NULL;
	const char *name, *after;
	unsigned flags;

	snprintf(dir, sizeof(dir), "/proc/%u", tid);
	stat = cgroup_file_read(dir, "stat");
	name = stat ? strchr(stat, '(') : NULL;
	after = stat ? strrchr(stat, ')') : NULL;
	if (!name || !after || sscanf(after, ") %c %*d %*d %*d %*d %*d %u", ret_state, &flags) != 2)
		return false;
	*ret_kvm = strncmp(name, "(kvm", 4) == 0 && flags & 0x00200000 /* PF_KTHREAD */;
	return true;
}

static bool is_kvm_thread(unsigned pid)
{
	char state;
	bool kvm;

	return read_thread(pid, &state, &kvm) && kvm;
}

/*
 * KVM's thread for each machine is in the cgroup of who made the machine, and before Linux 6.14 it is a kernel thread, which v2's
 * freezer waits for in vain. It is moved to the root, where kernel threads are, and stays there.
 */
static void evict_kvm_threads(const struct cgroup_dir *d)
{
	auto_free char *text = cgroup_file_read(d->path, "cgroup.procs");
	char *rest = text, *line;

	while (text && (line = strsep(&rest, "\n")))
		if (*line && is_kvm_thread((unsigned)strtoul(line, NULL, 10)))
			(void)!cgroup_file_write(d->root, "cgroup.procs", line);
}

/*
 * Do all threads rest but KVM's, which could not be moved (a user's cgroup, or a pid namespace, where kernel threads have no number: 0)? Each has
 * been woken by the request, and sleeps interruptibly from then on only in the freezer.
 */
static bool rests_but_for_kvm(const struct cgroup_dir *d)
{
	auto_free char *text = cgroup_file_read(d->path, "cgroup.threads");
	char *rest = text, *line, state;
	bool kvm, any = false;

	while (text && (line = strsep(&rest, "\n"))) {
		unsigned tid = (unsigned)strtoul(line, NULL, 10);

		if (!*line)
			continue;
		if (!tid) {
			any = true;
			continue;
		}
		if (!read_thread(tid, &state, &kvm) || (!kvm && !strchr("STt", state)))
			return false;
		any = any || kvm;
	}
	return any;
}

int cgroup_freeze(const struct cgroup *cg, bool frozen)
{
	const struct cgroup_dir *d = dir_with(cg, "freezer");
	const char *file = cg->version == 2 ? "cgroup.freeze" : "freezer.state",
		   *value = cg->version == 2 ? frozen ? "1" : "0"
			    : frozen	     ? "FROZEN"
					     : "THAWED";

	if (!d)
		return -EOPNOTSUPP;
	if (frozen && cg->version == 2)
		evict_kvm_threads(d);
	for (int i = 0; i < FREEZE_TRIES; i++) {
		int err = cgroup_file_write(d->path, file, value);
		auto_free char *now = NULL;

		if (err)
			return err;
		now = cgroup_file_read(d->path, cg->version == 2 ? "cgroup.events" : file);
		if (!now)
			return -EIO;
		if (cg->version == 2 ? strstr(now, frozen ? "frozen 1" : "frozen 0") != NULL
				     : strcmp(now, value) == 0)
			return 0;
		if (frozen && cg->version == 2 && rests_but_for_kvm(d))
			return 0;
		/* v1 needs to be asked again while processes fork. */
		nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
	}
	(void)!cgroup_file_write(d->path, file, cg->version == 2 ? "0" : "THAWED");
	return -ETIMEDOUT;
}
