/* What restores System V objects: the next id, and messages that are looked at in place. */
#include "t.h"

#include <sched.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>

#ifndef MSG_COPY
#define MSG_COPY 040000
#endif

#define WANTED (5 << 15 | 77)

struct message {
	long type;
	char text[16];
};

static int make_msg(void)
{
	return msgget(IPC_PRIVATE, 0600);
}

static int make_sem(void)
{
	return semget(IPC_PRIVATE, 1, 0600);
}

static int make_shm(void)
{
	return shmget(IPC_PRIVATE, 4096, 0600);
}

static int set(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY), ret, err;

	CHECK_OK(fd);
	ret = write(fd, text, strlen(text)) < 0 ? -1 : 0;
	err = errno;
	close(fd);
	errno = err;
	return ret;
}

static void next_id(const char *path, int (*make)(void))
{
	char text[16];

	snprintf(text, sizeof(text), "%d", WANTED);
	CHECK_STR(t_read(path), "-1\n");
	CHECK_OK(set(path, text));
	CHECK_EQ(atoi(t_read(path)), WANTED);
	CHECK_EQ(make(), WANTED);
	CHECK_STR(t_read(path), "-1\n");
	/* It is taken: the next above it. */
	CHECK_OK(set(path, text));
	CHECK_EQ(make(), WANTED + 1);
	CHECK_EQ(make() & 0x7fff, 0);
	CHECK_ERR(set(path, "-1"), EINVAL);
	CHECK_ERR(set(path, "2147483648"), EINVAL);
	CHECK_ERR(set(path, "x"), EINVAL);
}

TEST(next_id)
{
	/* A namespace of its own: on the host nobody else's ids are meant. */
	if (unshare(CLONE_NEWIPC))
		SKIP("needs a namespace of its own");
	if (access("/proc/sys/kernel/msg_next_id", W_OK))
		SKIP("a kernel without CONFIG_CHECKPOINT_RESTORE");
	next_id("/proc/sys/kernel/msg_next_id", make_msg);
	next_id("/proc/sys/kernel/sem_next_id", make_sem);
	next_id("/proc/sys/kernel/shm_next_id", make_shm);
}

TEST(msg_copy)
{
	struct message m = {0};
	struct msqid_ds ds;
	int id;

	CHECK_OK(id = make_msg());
	for (int i = 0; i < 3; i++) {
		m.type = 10 * (i + 1);
		memset(m.text, '0' + i, sizeof(m.text));
		CHECK_OK(msgsnd(id, &m, sizeof(m.text), 0));
	}
	if (msgrcv(id, &m, sizeof(m.text), 0, MSG_COPY | IPC_NOWAIT) < 0 && errno == ENOSYS) {
		CHECK_OK(msgctl(id, IPC_RMID, NULL));
		SKIP("a kernel without CONFIG_CHECKPOINT_RESTORE");
	}
	for (int i = 2; i >= 0; i--) {
		CHECK_EQ(msgrcv(id, &m, sizeof(m.text), i, MSG_COPY | IPC_NOWAIT), sizeof(m.text));
		CHECK_EQ(m.type, 10 * (i + 1));
		CHECK_EQ(m.text[15], '0' + i);
	}
	CHECK_ERR(msgrcv(id, &m, sizeof(m.text), 3, MSG_COPY | IPC_NOWAIT), ENOMSG);
	CHECK_ERR(msgrcv(id, &m, sizeof(m.text), -1, MSG_COPY | IPC_NOWAIT), ENOMSG);
	CHECK_ERR(msgrcv(id, &m, sizeof(m.text), 0, MSG_COPY), EINVAL);
	CHECK_ERR(msgrcv(id, &m, sizeof(m.text), 0, MSG_COPY | MSG_EXCEPT | IPC_NOWAIT), EINVAL);
	CHECK_ERR(msgrcv(id, &m, 3, 0, MSG_COPY | IPC_NOWAIT), E2BIG);
	CHECK_ERR(msgrcv(id, &m, 3, 0, MSG_COPY | IPC_NOWAIT | MSG_NOERROR), EINVAL);
	CHECK_OK(msgctl(id, IPC_STAT, &ds));
	CHECK_EQ(ds.msg_qnum, 3);
	CHECK_OK(msgctl(id, IPC_RMID, NULL));
}
