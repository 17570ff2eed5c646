/* runtime/room.c - how much memory is left to the container: room.h. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/cgroup_files.h"
#include "runtime/cli.h"
#include "runtime/clone.h"
#include "runtime/room.h"

/* The sentry is not trusted to say how much: a probe this large takes some 50 ms. */
#define ROOM_PROBE_MAX (64ull << 20)
/* What the probe maps, and how often: 32 MiB, more than the sentry has of its own and of its program's text. */
#define ROOM_PAD_BYTES (256ul << 10)
#define ROOM_PADS 128
/* memory.stat has some fifty lines. */
#define ROOM_STAT_MAX 16384

static int open_in(const struct cgroup *cg, const char *v1, const char *v2)
{
	const char *dir = cgroup_dir_of(cg, "memory");
	char path[4600];

	if (!dir)
		return -1;
	snprintf(path, sizeof(path), "%s/%s", dir, cg->version == 2 ? v2 : v1);
	return open(path, O_RDONLY | O_CLOEXEC);
}

void room_open(struct room *r, const struct cgroup *cg)
{
	r->limit_fd = open_in(cg, "memory.limit_in_bytes", "memory.max");
	r->usage_fd = open_in(cg, "memory.usage_in_bytes", "memory.current");
	r->stat_fd = open_in(cg, "memory.stat", "memory.stat");
	r->adj_fd = open("/proc/self/oom_score_adj", O_RDONLY | O_CLOEXEC);
	r->proc_fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	r->pad_fd = -1;
	r->probe = 0;
}

/* The whole of a small file, ended. Return: false: none. */
static bool read_text(int fd, char *text, size_t size)
{
	ssize_t n = fd < 0 ? -1 : pread(fd, text, size - 1, 0);

	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* A line's figure; 0: there is no such line. */
static uint64_t figure(const char *text, const char *name)
{
	size_t len = strlen(name);

	for (; text; text = strchr(text, '\n')) {
		text += *text == '\n';
		if (strncmp(text, name, len) == 0 && text[len] == ' ')
			return strtoull(text + len + 1, NULL, 10);
	}
	return 0;
}

/* What the kernel can surely take back: pages of files. (On v1 the figures without total_ are of this cgroup alone.) */
static uint64_t reclaimable(const struct room *r)
{
	char text[ROOM_STAT_MAX];

	if (!read_text(r->stat_fd, text, sizeof(text)))
		return 0;
	if (strstr(text, "\ntotal_inactive_file "))
		return figure(text, "total_inactive_file") + figure(text, "total_active_file");
	return figure(text, "inactive_file") + figure(text, "active_file") +
	       figure(text, "slab_reclaimable");
}

/* Return: false: nobody knows. */
static bool estimate(const struct room *r, uint64_t *ret_bytes)
{
	uint64_t limit, usage, free_pages;
	char text[64];

	if (!read_text(r->limit_fd, text, sizeof(text)))
		return false;
	limit = strncmp(text, "max", 3) == 0 ? INT64_MAX : strtoull(text, NULL, 10);
	if (!read_text(r->usage_fd, text, sizeof(text)))
		return false;
	usage = strtoull(text, NULL, 10);
	free_pages = reclaimable(r);
	usage = usage > free_pages ? usage - free_pages : 0;
	*ret_bytes = limit > usage ? MIN(limit - usage, (uint64_t)INT64_MAX) : 0;
	return true;
}

/* Made while there is room: the probe itself must look bad before it takes anything. */
static void make_pad(struct room *r)
{
	char zeros[4096] = {0};

	r->pad_fd = memfd_create("moat-room", MFD_CLOEXEC);
	for (size_t at = 0; r->pad_fd >= 0 && at < ROOM_PAD_BYTES; at += sizeof(zeros))
		if (pwrite(r->pad_fd, zeros, sizeof(zeros), (off_t)at) != sizeof(zeros)) {
			close(r->pad_fd);
			r->pad_fd = -1;
		}
}

/* The calling process's own, by the host's /proc: the container's may be all that there is otherwise. */
static bool look_worst(int proc_fd)
{
	int fd = openat(proc_fd, "self/oom_score_adj", O_WRONLY | O_CLOEXEC);

	return fd >= 0 && write(fd, "1000", 4) == 4;
}

static noreturn_fn void probe_main(int proc_fd, int pad_fd, uint64_t bytes)
{
	volatile char *p;

	/* Before it takes anything. The monitor must not look like that for a moment: its end is the container's. */
	if (!look_worst(proc_fd))
		_exit(1);
	for (unsigned i = 0; i < ROOM_PADS; i++)
		if (mmap(NULL, ROOM_PAD_BYTES, PROT_READ, MAP_SHARED | MAP_POPULATE, pad_fd, 0) ==
		    MAP_FAILED)
			_exit(1);
	p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		_exit(1);
	for (uint64_t at = 0; at < bytes; at += MOAT_PAGE_SIZE)
		p[at] = 1;
	_exit(0);
}

/*
 * Where the sandbox's oom_score_adj is above 0 (some users' sessions), the host might prefer the sentry to the child all the same: nothing is asked then.
 */
static bool start_probe(struct room *r, uint64_t bytes)
{
	char own[16];
	pid_t pid;

	if (r->pad_fd < 0 || !read_text(r->adj_fd, own, sizeof(own)) || atoi(own) > 0)
		return false;
	pid = clone_process(0, SIGCHLD);
	if (pid == 0)
		probe_main(r->proc_fd, r->pad_fd, bytes);
	r->probe = MAX(pid, 0);
	return pid > 0;
}

bool room_ask(struct room *r, const struct control_msg *msg, struct control_msg *ret)
{
	uint64_t want = MIN(msg->memory, ROOM_PROBE_MAX), bytes = 0;
	bool known;

	/* The child has what is asked for. Who asked for it has been waited for in vain, or has died. */
	if (r->probe) {
		*ret = (struct control_msg){
			.op = CONTROL_ROOM, .pid = msg->pid, .exit_code = EBUSY};
		return true;
	}
	known = estimate(r, &bytes);
	if (known && r->pad_fd < 0)
		make_pad(r);
	*ret = (struct control_msg){.op = CONTROL_ROOM, .pid = msg->pid, .memory = bytes};
	if (!known)
		ret->exit_code = ENODATA;
	if (!known || !msg->all || bytes >= 2 * want)
		return true;
	r->reply = *ret;
	if (start_probe(r, want))
		return false;
	ret->exit_code = ENODATA;
	return true;
}

bool room_reaped(struct room *r, pid_t pid, int status, struct control_msg *ret)
{
	if (!r->probe || pid != r->probe)
		return false;
	r->probe = 0;
	*ret = r->reply;
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		ret->exit_code = ENOMEM;
	else if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		ret->exit_code = ENODATA;
	return true;
}
