/* System V IPC: shared memory, semaphores, message queues. */
#include "t.h"

#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

static void write_word(void *arg)
{
	int *p = shmat(*(int *)arg, NULL, 0);

	CHECK((long)p != -1);
	p[0] = 77;
}

TEST(shared_memory)
{
	struct shmid_ds ds;
	int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600), *p;

	if (id < 0 && errno == ENOSYS)
		SKIP("there is no System V IPC");
	CHECK(id >= 0);
	p = shmat(id, NULL, 0);
	CHECK((long)p != -1);
	CHECK_EQ(p[0], 0);
	t_wait_ok(t_spawn(write_word, &id));
	CHECK_EQ(p[0], 77);
	CHECK_OK(shmctl(id, IPC_STAT, &ds));
	CHECK_EQ(ds.shm_segsz, 8192);
	CHECK_EQ(ds.shm_nattch, 1);
	/* Removed, it lives until the last detaches. */
	CHECK_OK(shmctl(id, IPC_RMID, NULL));
	CHECK_EQ(p[0], 77);
	CHECK_OK(shmdt(p));
	CHECK_ERR(shmctl(id, IPC_STAT, &ds), EINVAL);
	CHECK_ERR((long)shmat(id, NULL, 0), EINVAL);
	CHECK_ERR(shmdt(p), EINVAL);
}

TEST(shared_memory_keys)
{
	key_t key = 0x4d6f0001;
	int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
	char *p;

	if (id < 0 && errno == ENOSYS)
		SKIP("there is no System V IPC");
	CHECK(id >= 0);
	CHECK_ERR(shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600), EEXIST);
	CHECK_EQ(shmget(key, 0, 0), id);
	CHECK_ERR(shmget(key, 8192, 0), EINVAL);
	p = shmat(id, NULL, SHM_RDONLY);
	CHECK((long)p != -1);
	CHECK_ERR(read(open("/dev/zero", O_RDONLY), p, 1), EFAULT);
	CHECK_OK(shmctl(id, IPC_RMID, NULL));
	CHECK_ERR(shmget(key, 0, 0), ENOENT);
	CHECK_ERR(shmget(IPC_PRIVATE, 0, IPC_CREAT), EINVAL);
}

union semun_arg {
	int val;
	unsigned short *array;
	struct semid_ds *buf;
};

TEST(semaphores)
{
	struct sembuf down = {0, -1, 0}, up = {0, 1, 0}, try_down = {0, -1, IPC_NOWAIT},
		      zero = {0, 0, IPC_NOWAIT};
	int id = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
	pid_t pid;

	if (id < 0 && errno == ENOSYS)
		SKIP("there is no System V IPC");
	CHECK(id >= 0);
	CHECK_OK(semctl(id, 0, SETVAL, (union semun_arg){.val = 1}));
	CHECK_EQ(semctl(id, 0, GETVAL), 1);
	CHECK_ERR(semop(id, &zero, 1), EAGAIN);
	CHECK_OK(semop(id, &down, 1));
	CHECK_OK(semop(id, &zero, 1));
	CHECK_ERR(semop(id, &try_down, 1), EAGAIN);
	CHECK_EQ(semctl(id, 0, GETPID), getpid());
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(40);
		CHECK_OK(semop(id, &up, 1));
		_exit(0);
	}
	CHECK_OK(semop(id, &down, 1));
	t_wait_ok(pid);
	CHECK_ERR(semtimedop(id, &down, 1, &(struct timespec){0, 10000000}), EAGAIN);
	up.sem_num = 5;
	CHECK_ERR(semop(id, &up, 1), EFBIG);
	CHECK_OK(semctl(id, 0, IPC_RMID));
	CHECK_ERR(semop(id, &down, 1), EINVAL);
}

TEST(semaphore_undo)
{
	struct sembuf down = {0, -1, SEM_UNDO};
	int id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600);
	pid_t pid;

	if (id < 0 && errno == ENOSYS)
		SKIP("there is no System V IPC");
	CHECK_OK(semctl(id, 0, SETVAL, (union semun_arg){.val = 1}));
	pid = fork();
	if (pid == 0) {
		CHECK_OK(semop(id, &down, 1));
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(semctl(id, 0, GETVAL), 1);
	/* Removal wakes who waits. */
	CHECK_OK(semctl(id, 0, SETVAL, (union semun_arg){.val = 0}));
	pid = fork();
	if (pid == 0) {
		down.sem_flg = 0;
		CHECK_ERR(semop(id, &down, 1), EIDRM);
		_exit(0);
	}
	t_sleep_ms(40);
	CHECK_OK(semctl(id, 0, IPC_RMID));
	t_wait_ok(pid);
}

struct message {
	long type;
	char text[32];
};

TEST(messages)
{
	struct message m = {5, "five"};
	struct msqid_ds ds;
	int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	pid_t pid;

	if (id < 0 && errno == ENOSYS)
		SKIP("there is no System V IPC");
	CHECK(id >= 0);
	CHECK_ERR(msgrcv(id, &m, 32, 0, IPC_NOWAIT), ENOMSG);
	CHECK_OK(msgsnd(id, &m, 5, 0));
	m = (struct message){3, "three"};
	CHECK_OK(msgsnd(id, &m, 6, 0));
	CHECK_OK(msgctl(id, IPC_STAT, &ds));
	CHECK_EQ(ds.msg_qnum, 2);
	CHECK_EQ(msgrcv(id, &m, 32, 3, 0), 6);
	CHECK_STR(m.text, "three");
	CHECK_ERR(msgrcv(id, &m, 2, 0, 0), E2BIG);
	CHECK_EQ(msgrcv(id, &m, 2, 0, MSG_NOERROR), 2);
	m = (struct message){0, ""};
	CHECK_ERR(msgsnd(id, &m, 1, 0), EINVAL);
	pid = fork();
	if (pid == 0) {
		t_sleep_ms(40);
		m = (struct message){9, "late"};
		CHECK_OK(msgsnd(id, &m, 5, 0));
		_exit(0);
	}
	CHECK_EQ(msgrcv(id, &m, 32, -10, 0), 5);
	CHECK_EQ(m.type, 9);
	t_wait_ok(pid);
	CHECK_OK(msgctl(id, IPC_RMID, NULL));
	CHECK_ERR(msgsnd(id, &m, 1, 0), EINVAL);
}
