/* syscalls/sys_ipc.c - System V IPC: what crosses to and from the application; the work is sentry/ipc's. */
#include "syscalls/syscalls.h"

#include "sentry/ipc/ipc.h"
#include "syscalls/util.h"

#ifndef SHM_STAT_ANY
#define SHM_STAT_ANY 15
#endif
#ifndef SEM_STAT_ANY
#define SEM_STAT_ANY 20
#endif
#ifndef MSG_STAT_ANY
#define MSG_STAT_ANY 13
#endif
#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

/* A result with a structure for the application: the structure first, then the number. */
static int64_t give(struct task *t, int64_t ret, uint64_t addr, const void *data, size_t size)
{
	if (ret >= 0 && task_copy_out(t, addr, data, size))
		return -EFAULT;
	return ret;
}

/* ---- shared memory ---- */

int64_t sys_shmget(struct task *t, const struct syscall_args *a)
{
	return shm_get(t->ipc_ns, ARG_INT(0), ARG_U64(1), ARG_INT(2));
}

int64_t sys_shmat(struct task *t, const struct syscall_args *a)
{
	return shm_attach(t, ARG_INT(0), ARG_U64(1), ARG_INT(2));
}

int64_t sys_shmdt(struct task *t, const struct syscall_args *a)
{
	return shm_detach(t, ARG_U64(0));
}

int64_t sys_shmctl(struct task *t, const struct syscall_args *a)
{
	int id = ARG_INT(0), cmd = ARG_INT(1);
	uint64_t addr = ARG_U64(2);
	struct shm_info info;
	struct shminfo limits;
	struct shmid_ds ds;
	int64_t ret;

	if (cmd < 0 || id < 0)
		return -EINVAL;
	switch (cmd) {
	case IPC_INFO:
		ret = shm_limits(t->ipc_ns, &limits);
		return give(t, ret, addr, &limits, sizeof(limits));
	case SHM_INFO:
		ret = shm_info(t->ipc_ns, &info);
		return give(t, ret, addr, &info, sizeof(info));
	case IPC_STAT:
	case SHM_STAT:
	case SHM_STAT_ANY:
		ret = shm_stat(t->ipc_ns, id, cmd != IPC_STAT, cmd == SHM_STAT_ANY, &ds);
		return give(t, ret, addr, &ds, sizeof(ds));
	case IPC_SET:
		if (task_copy_in(t, &ds, addr, sizeof(ds)))
			return -EFAULT;
		return shm_set(t->ipc_ns, id, &ds);
	case IPC_RMID:
		return shm_remove(t->ipc_ns, id);
	case SHM_LOCK:
	case SHM_UNLOCK:
		return shm_lock(t, id, cmd == SHM_LOCK);
	default:
		return -EINVAL;
	}
}

/* ---- semaphores ---- */

int64_t sys_semget(struct task *t, const struct syscall_args *a)
{
	return sem_get(t->ipc_ns, ARG_INT(0), ARG_INT(1), ARG_INT(2));
}

static int64_t semop_timed(struct task *t, int id, uint64_t uops, unsigned count, uint64_t utimeout)
{
	struct sembuf fast[8], *ops = fast;
	int64_t deadline, ret;
	bool zero;

	ret = sys_timespec_deadline(t, utimeout, &deadline, &zero);
	if (ret)
		return ret;
	if (count < 1 || id < 0)
		return -EINVAL;
	if (count > ipc_limit(t->ipc_ns, IPC_LIMIT_SEMOPM))
		return -E2BIG;
	if (count > ARRAY_SIZE(fast)) {
		ops = calloc(count, sizeof(*ops));
		if (!ops)
			return -ENOMEM;
	}
	ret = task_copy_in(t, ops, uops, count * sizeof(*ops))
		      ? -EFAULT
		      : sem_operate(t, id, ops, count, deadline);
	if (ops != fast)
		free(ops);
	return ret;
}

int64_t sys_semop(struct task *t, const struct syscall_args *a)
{
	return semop_timed(t, ARG_INT(0), ARG_U64(1), ARG_UINT(2), 0);
}

int64_t sys_semtimedop(struct task *t, const struct syscall_args *a)
{
	return semop_timed(t, ARG_INT(0), ARG_U64(1), ARG_UINT(2), ARG_U64(3));
}

/* GETALL, SETALL: an array as long as the set. */
static int64_t semctl_all(struct task *t, int id, uint64_t addr, bool to_write)
{
	int64_t ret, count = sem_count(t->ipc_ns, id, to_write);
	uint16_t *values;
	size_t size;

	if (count < 0)
		return count;
	size = (size_t)count * sizeof(*values);
	values = malloc(size);
	if (!values)
		return -ENOMEM;
	if (to_write) {
		ret = task_copy_in(t, values, addr, size)
			      ? -EFAULT
			      : sem_set_all(t, id, values, (unsigned)count);
	} else {
		ret = sem_get_all(t->ipc_ns, id, values, (unsigned)count);
		ret = give(t, ret, addr, values, size);
	}
	free(values);
	return ret;
}

int64_t sys_semctl(struct task *t, const struct syscall_args *a)
{
	int id = ARG_INT(0), num = ARG_INT(1), cmd = ARG_INT(2);
	uint64_t arg = ARG_U64(3);
	struct seminfo info;
	struct semid_ds ds;
	int64_t ret;

	if (id < 0)
		return -EINVAL;
	switch (cmd) {
	case IPC_INFO:
	case SEM_INFO:
		ret = sem_limits(t->ipc_ns, cmd == SEM_INFO, &info);
		return give(t, ret, arg, &info, sizeof(info));
	case IPC_STAT:
	case SEM_STAT:
	case SEM_STAT_ANY:
		ret = sem_stat(t->ipc_ns, id, cmd != IPC_STAT, cmd == SEM_STAT_ANY, &ds);
		return give(t, ret, arg, &ds, sizeof(ds));
	case GETALL:
	case SETALL:
		return semctl_all(t, id, arg, cmd == SETALL);
	case GETVAL:
	case GETPID:
	case GETNCNT:
	case GETZCNT:
		return sem_get_one(t->ipc_ns, id, num, cmd);
	case SETVAL:
		return sem_set_one(t, id, num, (int)arg);
	case IPC_SET:
		if (task_copy_in(t, &ds, arg, sizeof(ds)))
			return -EFAULT;
		return sem_set(t->ipc_ns, id, &ds);
	case IPC_RMID:
		return sem_remove(t->ipc_ns, id);
	default:
		return -EINVAL;
	}
}

/* ---- messages ---- */

int64_t sys_msgget(struct task *t, const struct syscall_args *a)
{
	return msg_get(t->ipc_ns, ARG_INT(0), ARG_INT(1));
}

int64_t sys_msgsnd(struct task *t, const struct syscall_args *a)
{
	uint64_t addr = ARG_U64(1), size = ARG_U64(2);
	struct ipc_message *m;
	int64_t type, ret;

	if (task_copy_in(t, &type, addr, sizeof(type)))
		return -EFAULT;
	if (ARG_INT(0) < 0 || size > ipc_limit(t->ipc_ns, IPC_LIMIT_MSGMAX) || type < 1)
		return -EINVAL;
	ret = ipc_message_create(size, &m);
	if (ret)
		return ret;
	if (task_copy_in(t, ipc_message_text(m), addr + sizeof(type), size))
		ret = -EFAULT;
	else
		ret = msg_send(t, ARG_INT(0), m, type, ARG_INT(3));
	if (ret)
		ipc_message_free(m);
	return ret;
}

int64_t sys_msgrcv(struct task *t, const struct syscall_args *a)
{
	uint64_t addr = ARG_U64(1), size = ARG_U64(2);
	struct ipc_message *m;
	int64_t ret, type;

	if (ARG_INT(0) < 0 || (int64_t)size < 0)
		return -EINVAL;
	if ((ARG_INT(4) & MSG_COPY) && ((ARG_INT(4) & MSG_EXCEPT) || !(ARG_INT(4) & IPC_NOWAIT)))
		return -EINVAL;
	ret = msg_receive(t, ARG_INT(0), size, ARG_LONG(3), ARG_INT(4), &m);
	if (ret)
		return ret;
	type = ipc_message_type(m);
	ret = (int64_t)MIN(size, ipc_message_size(m));
	if (task_copy_out(t, addr, &type, sizeof(type)) ||
	    task_copy_out(t, addr + sizeof(type), ipc_message_text(m), (size_t)ret))
		ret = -EFAULT;
	ipc_message_free(m);
	return ret;
}

int64_t sys_msgctl(struct task *t, const struct syscall_args *a)
{
	int id = ARG_INT(0), cmd = ARG_INT(1);
	uint64_t addr = ARG_U64(2);
	struct msginfo info;
	struct msqid_ds ds;
	int64_t ret;

	if (id < 0 || cmd < 0)
		return -EINVAL;
	switch (cmd) {
	case IPC_INFO:
	case MSG_INFO:
		ret = msg_limits(t->ipc_ns, cmd == MSG_INFO, &info);
		return give(t, ret, addr, &info, sizeof(info));
	case IPC_STAT:
	case MSG_STAT:
	case MSG_STAT_ANY:
		ret = msg_stat(t->ipc_ns, id, cmd != IPC_STAT, cmd == MSG_STAT_ANY, &ds);
		return give(t, ret, addr, &ds, sizeof(ds));
	case IPC_SET:
		if (task_copy_in(t, &ds, addr, sizeof(ds)))
			return -EFAULT;
		return msg_set(t->ipc_ns, id, &ds);
	case IPC_RMID:
		return msg_remove(t->ipc_ns, id);
	default:
		return -EINVAL;
	}
}
