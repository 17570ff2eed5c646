/*
 * sentry/oom_host.c - the memory limit of the sandbox's first container, which the host's cgroup keeps: the sentry is to act before the host does.
 *
 * At the limit the host's OOM killer would end the sentry, and all of the container with it. So whoever takes memory beyond half of the limit looks, from
 * time to time, how much is left: what the host says through the monitor (runtime/room.h), since the limit counts the sandbox's own memory as well, and not
 * page cache. The less is left the sooner is the next look (a quarter of it), and the less is mapped ahead. Below twice the reserve the host is asked to
 * give as much as that. If it does not, the container is out of memory, the host has counted it, and oom.c kills whom Linux would.
 *
 * Pages that were mapped ahead of their use are touched without anybody's knowledge. So beyond half of the limit, counted by what is allocated, nothing that does not exist is
 * mapped (mem_exact), where the platform can map single pages: on kvm. Each that is asked for counts as one that was taken.
 *
 * Cannot do: a system call may take more than there is before its end: who takes the reserve that way is met by the host's killer. Nor is anything done about a limit above the container's cgroup.
 */
#include "mem/memfile.h"
#include "sentry/oom.h"
#include "sentry/task_internal.h"

/* What is kept free, but a larger part of a very small limit. */
#define RESERVE_MIN (2ull << 20)
#define RESERVE_MAX (16ull << 20)
#define RESERVE_PART 16
#define RESERVE_PART_MAX 8
/* Little is left: so many times that. */
#define TIGHT_RESERVES 8
/* For the monitor, which may have a process to make, and the host busy to let it. Nothing is given meanwhile. */
#define ASK_NS 10000000000ll
/* For what the dead had to be the host's again, before anybody else has to die. */
#define DRAIN_NS 200000000ll
#define DRAIN_STEP_NS 2000000ll

/* One asks at a time; the control thread answers. */
static struct {
	_Atomic int32_t asked, answered; /* numbers of questions */
	_Atomic int err;
	_Atomic uint64_t bytes;
} room;

uint64_t oom_host_reserve(uint64_t limit)
{
	uint64_t reserve = MIN(limit / RESERVE_PART, RESERVE_MAX);

	return MAX(MIN(RESERVE_MIN, limit / RESERVE_PART_MAX), reserve);
}

void oom_room_told(int32_t question, int err, uint64_t bytes)
{
	if (question != atomic_load(&room.asked))
		return;
	atomic_store(&room.err, err);
	atomic_store(&room.bytes, bytes);
	atomic_store(&room.answered, question);
	wait_queue_wake(&kernel.cgroup->oom_wait, POLLIN);
}

static bool is_answered(unused_arg void *arg)
{
	return atomic_load(&room.answered) == atomic_load(&room.asked);
}

static int wait_answer(struct task_cgroup *cg)
{
	return wait_event(&cg->oom_wait, is_answered, NULL, SLEEP_KILLABLE,
			  time_monotonic_ns() + ASK_NS);
}

/*
 * One question at a time: who asked before us may have had to die, and the child that tries it for that one takes the reserve that we ask for.
 * Return: 0, -ENOMEM: `want` cannot be had, -ENODATA: nobody can know, -EBUSY: nobody has said yet, -EINTR: we are to die.
 */
static int ask(struct task_cgroup *cg, uint64_t want, bool try_it, uint64_t *ret_bytes)
{
	int32_t question = (atomic_load(&room.asked) + 1) & INT32_MAX;
	int err;

	if (!kernel.ask_room)
		return -ENODATA;
	err = wait_answer(cg);
	if (err == -EINTR)
		return err;
	atomic_store(&room.asked, question);
	kernel.ask_room(question, want, try_it);
	err = wait_answer(cg);
	if (err)
		return err == -EINTR ? err : -EBUSY;
	*ret_bytes = atomic_load(&room.bytes);
	return -atomic_load(&room.err);
}

static bool is_drained(void *arg)
{
	struct mem_stats ms;

	mem_get_stats(&ms);
	return ms.private_free_pending <= *(uint64_t *)arg;
}

static int drain(struct task_cgroup *cg, uint64_t rest)
{
	int64_t deadline = time_monotonic_ns() + DRAIN_NS;
	int err;

	do
		err = wait_event(&cg->oom_wait, is_drained, &rest, SLEEP_KILLABLE,
				 time_monotonic_ns() + DRAIN_STEP_NS);
	while (err == -ETIMEDOUT && time_monotonic_ns() < deadline);
	return err;
}

/* held: what the account had before anybody looked how much was left. What others have taken since is of that. */
static void look_after(struct task_cgroup *cg, uint64_t held, uint64_t bytes, uint64_t reserve)
{
	mem_account_look_after(cg->account, held, MAX(bytes / 4, reserve / 4));
}

/*
 * From here on the application has to ask for each page that does not exist yet. Whoever maps holds the mm's lock and finds the mark set, or has done so before we take the
 * mappings away. What is forked at this moment may keep what its parent had.
 */
static void map_exactly(void)
{
	struct mm *last = NULL, *mm;
	struct task *t;

	if (atomic_exchange(&mem_exact, true))
		return;
	for (int32_t id = 1; (t = task_next(&id)); id++) {
		mm = task_get_mm(t);
		if (mm && mm != last)
			mm_unmap_ahead(mm);
		if (last)
			mm_unref(last);
		last = mm;
		task_unref(t);
	}
	if (last)
		mm_unref(last);
}

bool oom_host_has_room(struct task_cgroup *cg, uint64_t limit, uint64_t reserve)
{
	uint64_t held = mem_account_bytes(cg->account), used = mem_private_resident(), bytes = 0;
	int err;

	map_exactly();
	if (used < limit / 2) {
		mem_set_tight(false);
		look_after(cg, held, limit / 2 - used, reserve);
		return true;
	}
	err = ask(cg, reserve, false, &bytes);
	if (!err && bytes < 2 * reserve) {
		mem_set_tight(true);
		err = drain(cg, reserve / 4) == -EINTR ? -EINTR : 0;
		mem_private_unmap();
		held = mem_account_bytes(cg->account);
		if (!err)
			err = ask(cg, reserve, true, &bytes);
	}
	if (err == -ENOMEM)
		return false;
	/*
	 * The mark stays for who comes next. Where the answer is late the caller goes on by one step and asks again: what is slow is who takes memory, and nothing
	 * is given that may not be there.
	 */
	if (err == -EINTR || err == -EBUSY)
		return true;
	if (!err)
		mem_set_tight(bytes < TIGHT_RESERVES * reserve);
	look_after(cg, held, err ? 4 * reserve : bytes, reserve);
	return true;
}
