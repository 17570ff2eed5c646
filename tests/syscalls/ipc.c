/* System V IPC: shared memory, semaphores, message queues. */
#include "t.h"

#include <grp.h>
#include <sched.h>
#include <sys/ipc.h>
#include <sys/mman.h>
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

/* One of this case alone, whoever else runs it on the same machine: its group of processes has one number. */
static key_t own_key(int n)
{
	return 0x40000000 | n << 22 | (getpgrp() & 0x3fffff);
}

TEST(shared_memory_keys)
{
	key_t key = own_key(1);
	int id = shmget(key, 4096, IPC_CREAT | IPC_EXCL | 0600);
	char *p;

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
	t_wait_state(pid, "S");
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

static unsigned long attached(int id)
{
	struct shmid_ds ds;

	CHECK_OK(shmctl(id, IPC_STAT, &ds));
	return ds.shm_nattch;
}

TEST(shared_memory_attachments)
{
	int id = shmget(IPC_PRIVATE, 5 * 4096, IPC_CREAT | 0600);
	struct shmid_ds ds;
	char *p, *q;
	pid_t pid;
	int go[2];

	CHECK(id >= 0);
	CHECK_OK(pipe(go));
	CHECK_EQ(attached(id), 0);
	p = shmat(id, NULL, 0);
	CHECK((long)p != -1);
	q = shmat(id, NULL, 0);
	CHECK_EQ(attached(id), 2);
	strcpy(p, "both");
	CHECK_STR(q, "both");
	/* A piece with another protection counts for itself. */
	CHECK_OK(mprotect(q + 4096, 4096, PROT_READ));
	CHECK_EQ(attached(id), 4);
	CHECK_OK(shmdt(q));
	CHECK_EQ(attached(id), 1);
	pid = fork();
	if (pid == 0) {
		char c;

		close(go[1]);
		_exit(read(go[0], &c, 1) == 0 ? 0 : 1);
	}
	CHECK_EQ(attached(id), 2);
	/* A hole in the middle: shmdt takes both ends. */
	CHECK_OK(munmap(p + 4096, 4096));
	CHECK_EQ(attached(id), 3);
	CHECK_OK(shmctl(id, IPC_RMID, NULL));
	CHECK_OK(shmctl(id, IPC_STAT, &ds));
	CHECK(ds.shm_perm.mode & 01000);
	CHECK_OK(shmdt(p));
	CHECK_EQ(attached(id), 1);
	close(go[0]);
	close(go[1]);
	t_wait_ok(pid);
	CHECK_ERR(shmctl(id, IPC_STAT, &ds), EINVAL);
}

TEST(shared_memory_addresses)
{
	int id = shmget(IPC_PRIVATE, 3 * 4096, IPC_CREAT | 0600);
	char *hole = mmap(NULL, 16 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), *p;

	CHECK(id >= 0);
	CHECK_ERR((long)shmat(id, hole + 1, 0), EINVAL);
	CHECK_ERR((long)shmat(id, hole, 0), EINVAL);
	CHECK_ERR((long)shmat(id, NULL, SHM_REMAP), EINVAL);
	p = shmat(id, hole + 4096, SHM_REMAP);
	CHECK_EQ((long)p, (long)hole + 4096);
	p[3 * 4096 - 1] = 1;
	CHECK_OK(shmdt(p));
	p = shmat(id, hole + 4096 + 17, SHM_RND);
	CHECK_EQ((long)p, (long)hole + 4096);
	CHECK_EQ(p[3 * 4096 - 1], 1);
	CHECK_ERR(shmdt(p + 4096), EINVAL);
	CHECK_OK(shmdt(p));
	p = shmat(id, NULL, SHM_RDONLY);
	CHECK_ERR(mprotect(p, 4096, PROT_READ | PROT_WRITE), EACCES);
	CHECK_OK(mprotect(p, 4096, PROT_READ | PROT_EXEC));
	CHECK_OK(shmctl(id, IPC_RMID, NULL));
	CHECK_ERR((long)shmat(-1, NULL, 0), EINVAL);
	CHECK_ERR(shmget(IPC_PRIVATE, 1ul << 62, IPC_CREAT | 0600), ENOMEM);
}

/* A child as another user: 0, or the errno that fn() gives. */
static int as_nobody(int (*fn)(int id), int id)
{
	pid_t pid = fork();
	int status;

	if (pid == 0) {
		if (setgroups(0, NULL) || setgid(65534) || setuid(65534))
			_exit(255);
		_exit(fn(id) < 0 ? errno : 0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static int attach_rw(int id)
{
	return (long)shmat(id, NULL, 0) == -1 ? -1 : 0;
}

static int attach_ro(int id)
{
	return (long)shmat(id, NULL, SHM_RDONLY) == -1 ? -1 : 0;
}

static int remove_shm(int id)
{
	return shmctl(id, IPC_RMID, NULL);
}

static int stat_sem(int id)
{
	struct semid_ds ds;

	return semctl(id, 0, IPC_STAT, (union semun_arg){.buf = &ds});
}

static int down_sem(int id)
{
	return semop(id, &(struct sembuf){0, -1, IPC_NOWAIT}, 1);
}

TEST(ipc_permissions)
{
	struct shmid_ds ds;
	struct semid_ds sds;
	int id;

	if (geteuid())
		SKIP("needs root");
	id = shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0644);
	CHECK(id >= 0);
	CHECK_EQ(as_nobody(attach_rw, id), EACCES);
	CHECK_EQ(as_nobody(attach_ro, id), 0);
	CHECK_EQ(as_nobody(remove_shm, id), EPERM);
	CHECK_OK(shmctl(id, IPC_STAT, &ds));
	CHECK_EQ(ds.shm_perm.cuid, 0);
	ds.shm_perm.uid = 65534;
	ds.shm_perm.mode = 0600;
	CHECK_OK(shmctl(id, IPC_SET, &ds));
	CHECK_EQ(as_nobody(attach_rw, id), 0);
	CHECK_EQ(as_nobody(remove_shm, id), 0);
	CHECK_ERR(shmctl(id, IPC_STAT, &ds), EINVAL);

	id = semget(IPC_PRIVATE, 1, IPC_CREAT | 0604);
	CHECK_EQ(as_nobody(stat_sem, id), 0);
	CHECK_EQ(as_nobody(down_sem, id), EACCES);
	CHECK_OK(semctl(id, 0, IPC_STAT, (union semun_arg){.buf = &sds}));
	sds.sem_perm.mode = 0606;
	CHECK_OK(semctl(id, 0, IPC_SET, (union semun_arg){.buf = &sds}));
	CHECK_EQ(as_nobody(down_sem, id), EAGAIN);
	CHECK_OK(semctl(id, 0, IPC_RMID));
}

TEST(semaphore_arrays)
{
	int id = semget(IPC_PRIVATE, 3, IPC_CREAT | 0600);
	unsigned short values[3] = {1, 0, 3};
	struct sembuf both[2] = {{0, -1, 0}, {1, -1, 0}}, zero = {2, 0, 0};
	struct semid_ds ds;
	pid_t a, b;

	CHECK(id >= 0);
	CHECK_OK(semctl(id, 0, SETALL, (union semun_arg){.array = values}));
	a = fork();
	if (a == 0) {
		CHECK_OK(semop(id, both, 2));
		_exit(0);
	}
	b = fork();
	if (b == 0) {
		CHECK_OK(semop(id, &zero, 1));
		_exit(0);
	}
	while (semctl(id, 1, GETNCNT) != 1 || semctl(id, 2, GETZCNT) != 1)
		t_sleep_ms(5);
	/* All or nothing: the first was not taken. */
	CHECK_EQ(semctl(id, 0, GETVAL), 1);
	CHECK_EQ(semctl(id, 0, GETNCNT), 0);
	CHECK_OK(semop(id, &(struct sembuf){1, 1, 0}, 1));
	t_wait_ok(a);
	CHECK_EQ(semctl(id, 0, GETVAL), 0);
	CHECK_EQ(semctl(id, 1, GETPID), a);
	CHECK_OK(semctl(id, 2, SETVAL, (union semun_arg){.val = 0}));
	t_wait_ok(b);
	CHECK_OK(semctl(id, 0, GETALL, (union semun_arg){.array = values}));
	CHECK_EQ(values[0] + values[1] + values[2], 0);
	CHECK_ERR(semctl(id, 3, GETVAL), EINVAL);
	CHECK_ERR(semctl(id, 0, SETVAL, (union semun_arg){.val = 32768}), ERANGE);
	CHECK_ERR(semop(id, both, 0), EINVAL);
	CHECK_ERR(semop(id, both, 501), E2BIG);
	CHECK_OK(semctl(id, 0, SETVAL, (union semun_arg){.val = 32767}));
	CHECK_ERR(semop(id, &(struct sembuf){0, 1, 0}, 1), ERANGE);
	CHECK_OK(semctl(id, 0, IPC_STAT, (union semun_arg){.buf = &ds}));
	CHECK_EQ(ds.sem_nsems, 3);
	CHECK(ds.sem_otime > 0);
	CHECK_OK(semctl(id, 0, IPC_RMID));
	CHECK_ERR(semget(IPC_PRIVATE, 0, IPC_CREAT | 0600), EINVAL);
	CHECK_ERR(semget(IPC_PRIVATE, -1, IPC_CREAT | 0600), EINVAL);
}

static void on_signal(int signo)
{
	(void)signo;
}

TEST(ipc_interrupted)
{
	struct sigaction act = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	int sem = semget(IPC_PRIVATE, 1, IPC_CREAT | 0600),
	    msg = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	struct message m = {1, ""};

	CHECK_OK(sigaction(SIGUSR1, &act, NULL));
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(semop(sem, &(struct sembuf){0, -1, 0}, 1), EINTR);
	CHECK_EQ(semctl(sem, 0, GETNCNT), 0);
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(msgrcv(msg, &m, 32, 0, 0), EINTR);
	for (int i = 0; i < 512; i++)
		CHECK_OK(msgsnd(msg, &m, 32, IPC_NOWAIT));
	CHECK_ERR(msgsnd(msg, &m, 32, IPC_NOWAIT), EAGAIN);
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(msgsnd(msg, &m, 32, 0), EINTR);
	CHECK_OK(semctl(sem, 0, IPC_RMID));
	CHECK_OK(msgctl(msg, IPC_RMID, NULL));
}

TEST(messages_full_queue)
{
	int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
	struct message m = {7, "room"};
	struct msqid_ds ds;
	pid_t pid;

	CHECK(id >= 0);
	CHECK_OK(msgctl(id, IPC_STAT, &ds));
	CHECK_EQ(ds.msg_qbytes, 16384);
	ds.msg_qbytes = 40;
	CHECK_OK(msgctl(id, IPC_SET, &ds));
	CHECK_OK(msgsnd(id, &m, 32, 0));
	CHECK_ERR(msgsnd(id, &m, 9, IPC_NOWAIT), EAGAIN);
	pid = fork();
	if (pid == 0) {
		m.type = 8;
		CHECK_OK(msgsnd(id, &m, 32, 0));
		_exit(0);
	}
	t_wait_state(pid, "S");
	CHECK_ERR(msgrcv(id, &m, 32, 7, MSG_EXCEPT | IPC_NOWAIT), ENOMSG);
	CHECK_EQ(msgrcv(id, &m, 32, 7, 0), 32);
	t_wait_ok(pid);
	CHECK_EQ(msgrcv(id, &m, 32, 7, MSG_EXCEPT), 32);
	CHECK_EQ(m.type, 8);
	CHECK_OK(msgctl(id, IPC_STAT, &ds));
	CHECK_EQ(ds.msg_lspid, pid);
	CHECK_EQ(ds.msg_lrpid, getpid());
	CHECK_ERR(msgsnd(id, &m, 8193, 0), EINVAL);
	CHECK_ERR(msgsnd(id, (void *)8, 1, 0), EFAULT);
	/* Removal wakes who waits. */
	pid = fork();
	if (pid == 0) {
		CHECK_ERR(msgrcv(id, &m, 32, 0, 0), EIDRM);
		_exit(0);
	}
	t_wait_state(pid, "S");
	CHECK_OK(msgctl(id, IPC_RMID, NULL));
	t_wait_ok(pid);
}

TEST(ipc_namespace)
{
	key_t key = own_key(2);
	int id;
	pid_t pid;

	if (geteuid())
		SKIP("needs root");
	id = msgget(key, IPC_CREAT | IPC_EXCL | 0600);
	CHECK(id >= 0);
	pid = fork();
	if (pid == 0) {
		CHECK_OK(unshare(CLONE_NEWIPC));
		CHECK_ERR(msgget(key, 0), ENOENT);
		CHECK(msgget(key, IPC_CREAT | 0600) >= 0);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_EQ(msgget(key, 0), id);
	CHECK_OK(msgctl(id, IPC_RMID, NULL));
}

TEST(ipc_info)
{
	struct msginfo mi;
	struct shm_info si;
	struct shmid_ds ds;
	struct seminfo sei;
	int id = shmget(own_key(3), 4096, IPC_CREAT | 0640), top;
	char line[256], found = 0;
	FILE *f;

	CHECK(id >= 0);
	top = shmctl(0, SHM_INFO, (struct shmid_ds *)&si);
	CHECK(top >= 0);
	CHECK(si.used_ids >= 1);
	for (int i = 0; i <= top; i++)
		if (shmctl(i, SHM_STAT, &ds) == id)
			found = 1;
	CHECK(found);
	CHECK(msgctl(0, IPC_INFO, (struct msqid_ds *)&mi) >= 0);
	CHECK_EQ(mi.msgmax, 8192);
	CHECK(semctl(0, 0, IPC_INFO, &sei) >= 0);
	CHECK_EQ(sei.semmsl, 32000);
	CHECK_EQ(sei.semopm, 500);
	f = fopen("/proc/sysvipc/shm", "r");
	CHECK(f != NULL);
	found = 0;
	while (fgets(line, sizeof(line), f)) {
		int key, at, perms, size;

		if (sscanf(line, "%d %d %o %d", &key, &at, &perms, &size) == 4 && at == id) {
			found = 1;
			CHECK_EQ(key, own_key(3));
			CHECK_EQ(perms, 0640);
			CHECK_EQ(size, 4096);
		}
	}
	fclose(f);
	CHECK(found);
	CHECK_OK(shmctl(id, IPC_RMID, NULL));
}
