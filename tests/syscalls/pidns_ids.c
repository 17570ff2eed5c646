/* tests/syscalls/pidns_ids.c - calls that take or give a pid, within a pid namespace and across its border. */
#include "pidns.h"

#include <linux/capability.h>
#include <linux/kcmp.h>
#include <mqueue.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/ptrace.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/socket.h>

#ifndef PTRACE_EVENT_STOP
#define PTRACE_EVENT_STOP 128
#endif
#define FAR 30000 /* a number that nobody has */

static pid_t sleeper(void)
{
	pid_t pid = fork();

	if (!pid)
		for (;;)
			pause();
	CHECK(pid > 0);
	return pid;
}

/* A process outside whose number nobody inside will have. */
static pid_t far_sleeper(void)
{
	for (pid_t want = 20011; want < 20111; want++) {
		pid_t pid = ns_clone_tid(0, &want, 1);

		if (!pid)
			for (;;)
				pause();
		if (pid > 0)
			return pid;
	}
	t_fail(__FILE__, __LINE__, "no number is free");
}

static void end(pid_t pid)
{
	CHECK_OK(kill(pid, SIGKILL));
	CHECK_EQ(t_wait_status(pid), SIGKILL);
}

/* ---- signals and wait ---- */

static volatile sig_atomic_t seen_pid, seen_signo, seen_code;

static void see(int signo, siginfo_t *info, void *uc)
{
	(void)uc;
	seen_signo = signo;
	seen_pid = info->si_pid;
	seen_code = info->si_code;
}

static void catch_info(int signo)
{
	struct sigaction sa = {.sa_sigaction = see, .sa_flags = SA_SIGINFO};

	CHECK_OK(sigaction(signo, &sa, NULL));
}

/* The next of these signals, which are blocked. */
static siginfo_t next_signal(int signo)
{
	struct timespec limit = {.tv_sec = 20};
	siginfo_t info = {0};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	CHECK_EQ(sigtimedwait(&set, &info, &limit), signo);
	return info;
}

static void block(int signo)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, signo);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
}

static void signals_inside(void *arg)
{
	pid_t outer = *(pid_t *)arg, pid;
	siginfo_t info;

	block(SIGUSR1);
	block(SIGCHLD);
	pid = fork();
	if (!pid) {
		union sigval v = {.sival_int = 3};

		CHECK_OK(kill(1, SIGUSR1));
		block(SIGUSR1);
		CHECK_EQ(next_signal(SIGUSR1).si_pid, 1);
		CHECK_OK(sigqueue(1, SIGUSR1, v));
		CHECK_ERR(kill(outer, 0), ESRCH);
		CHECK_ERR(syscall(SYS_tgkill, outer, outer, 0), ESRCH);
		CHECK_ERR(syscall(SYS_tkill, FAR, 0), ESRCH);
		CHECK_ERR(kill(-FAR, 0), ESRCH);
		CHECK_OK(syscall(SYS_tgkill, 2, 2, 0));
		_exit(0);
	}
	info = next_signal(SIGUSR1);
	CHECK_EQ(info.si_pid, 2);
	CHECK_OK(kill(2, SIGUSR1));
	info = next_signal(SIGUSR1);
	CHECK_EQ(info.si_pid, 2);
	CHECK_EQ(info.si_code, SI_QUEUE);
	CHECK_EQ(next_signal(SIGCHLD).si_pid, 2);
	CHECK_EQ(waitid(P_PID, 2, &info, WEXITED | WNOWAIT), 0);
	CHECK_EQ(info.si_pid, 2);
	CHECK_ERR(waitpid(outer, NULL, 0), ECHILD);
	CHECK_EQ(waitpid(2, NULL, 0), 2);
}

TEST(signals_inside)
{
	pid_t outer = far_sleeper();

	ns_run(signals_inside, &outer);
	end(outer);
}

static void from_outside(void *arg)
{
	struct ns_turns *s = arg;

	block(SIGUSR1);
	ns_give(s->up);
	CHECK_EQ(next_signal(SIGUSR1).si_pid, 0);
	ns_give(s->up);
	CHECK_EQ(next_signal(SIGUSR1).si_pid, 0);
}

TEST(signal_from_outside)
{
	union sigval v = {.sival_int = 1};
	struct ns_turns s;
	siginfo_t info;
	pid_t pid;

	ns_turns_init(&s);
	block(SIGCHLD);
	pid = ns_spawn(from_outside, &s);
	ns_take(s.up);
	CHECK_OK(kill(pid, SIGUSR1));
	ns_take(s.up);
	CHECK_OK(sigqueue(pid, SIGUSR1, v));
	info = next_signal(SIGCHLD);
	CHECK_EQ(info.si_pid, pid);
	t_wait_ok(pid);
}

static void kill_all_inside(void *arg)
{
	pid_t a = sleeper(), b;

	(void)arg;
	b = fork();
	if (!b) {
		CHECK_OK(setsid());
		for (;;)
			pause();
	}
	CHECK_OK(kill(-1, SIGKILL));
	CHECK_EQ(t_wait_status(a), SIGKILL);
	CHECK_EQ(t_wait_status(b), SIGKILL);
	CHECK_ERR(kill(-1, SIGKILL), ESRCH);
}

TEST(kill_all_is_of_the_namespace)
{
	pid_t other = sleeper();

	ns_run(kill_all_inside, NULL);
	CHECK_EQ(waitpid(other, NULL, WNOHANG), 0);
	end(other);
}

/* ---- groups and sessions ---- */

static void groups(void *arg)
{
	pid_t outer = *(pid_t *)arg, a, b;

	CHECK_EQ(getpgid(1), 0);
	CHECK_EQ(setsid(), 1);
	CHECK_EQ(getpgrp(), 1);
	CHECK_EQ(getsid(0), 1);
	a = sleeper();
	b = sleeper();
	CHECK_EQ(getpgid(a), 1);
	CHECK_OK(setpgid(a, 0));
	CHECK_EQ(getpgid(a), a);
	CHECK_OK(setpgid(b, a));
	CHECK_EQ(getpgid(b), a);
	CHECK_EQ(getsid(b), 1);
	CHECK_ERR(setpgid(b, FAR), EPERM);
	CHECK_ERR(setpgid(outer, 0), ESRCH);
	CHECK_ERR(getpgid(outer), ESRCH);
	CHECK_ERR(getsid(outer), ESRCH);
	/* The number stays taken while the group bears it. */
	CHECK_OK(kill(a, SIGKILL));
	CHECK_EQ(waitpid(-a, NULL, 0), a);
	CHECK_ERR(ns_clone_tid(0, &a, 1), EEXIST);
	CHECK_OK(kill(-a, SIGKILL));
	CHECK_EQ(waitpid(-a, NULL, 0), b);
	CHECK_ERR(kill(-a, 0), ESRCH);
}

TEST(groups_and_sessions)
{
	pid_t outer = far_sleeper();

	ns_run(groups, &outer);
	end(outer);
}

static void terminal(void *arg)
{
	int master = open("/dev/ptmx", O_RDWR | O_NOCTTY), slave, n = 0;
	char name[32];
	pid_t pid, got;

	(void)arg;
	if (master < 0)
		_exit(T_SKIP_STATUS);
	CHECK_OK(ioctl(master, TIOCSPTLCK, &n));
	CHECK_OK(ioctl(master, TIOCGPTN, &n));
	snprintf(name, sizeof(name), "/dev/pts/%d", n);
	CHECK_EQ(setsid(), 1);
	slave = open(name, O_RDWR);
	if (slave < 0)
		_exit(T_SKIP_STATUS);
	CHECK_EQ(tcgetpgrp(slave), 1);
	CHECK_OK(ioctl(slave, TIOCGSID, &got));
	CHECK_EQ(got, 1);
	pid = sleeper();
	CHECK_OK(setpgid(pid, pid));
	signal(SIGTTOU, SIG_IGN);
	CHECK_OK(tcsetpgrp(slave, pid));
	CHECK_EQ(tcgetpgrp(slave), pid);
	CHECK_ERR(tcsetpgrp(slave, FAR), ESRCH);
	CHECK_OK(tcsetpgrp(slave, 1));
	end(pid);
}

TEST(terminal_groups)
{
	int status = t_wait_status(ns_spawn(terminal, NULL));

	if (WIFEXITED(status) && WEXITSTATUS(status) == T_SKIP_STATUS)
		SKIP("no pty");
	CHECK_EQ(status, 0);
}

/* ---- others, by number ---- */

static void by_number(void *arg)
{
	pid_t outer = *(pid_t *)arg, pid = sleeper();
	struct __user_cap_header_struct cap = {.version = _LINUX_CAPABILITY_VERSION_3, .pid = pid};
	struct __user_cap_data_struct data[2];
	static char text[8] = "parent";
	struct iovec local = {(char[8]){0}, 8}, remote = {text, 8};
	struct rlimit limit;
	struct timespec ts;
	clockid_t clock;
	size_t len;
	void *head;
	int fd;

	CHECK_EQ(pid, 2);
	CHECK_EQ(process_vm_readv(pid, &local, 1, &remote, 1, 0), 8);
	CHECK_STR(local.iov_base, "parent");
	CHECK_ERR(process_vm_readv(outer, &local, 1, &remote, 1, 0), ESRCH);
	CHECK_OK(prlimit(pid, RLIMIT_NOFILE, NULL, &limit));
	CHECK_ERR(prlimit(outer, RLIMIT_NOFILE, NULL, &limit), ESRCH);
	CHECK_EQ(sched_getscheduler(pid), SCHED_OTHER);
	CHECK_ERR(sched_getscheduler(outer), ESRCH);
	CHECK_OK(setpriority(PRIO_PROCESS, (id_t)pid, 3));
	CHECK_EQ(getpriority(PRIO_PROCESS, (id_t)pid), 3);
	CHECK_ERR(setpriority(PRIO_PROCESS, (id_t)outer, 3), ESRCH);
	CHECK_ERR(setpriority(PRIO_PGRP, (id_t)outer, 3), ESRCH);
	CHECK_OK(syscall(SYS_ioprio_get, 1, pid));
	CHECK_ERR(syscall(SYS_ioprio_get, 1, outer), ESRCH);
	CHECK(syscall(SYS_kcmp, 1, pid, KCMP_FILES, 0, 0) >= 0);
	CHECK_EQ(syscall(SYS_kcmp, 1, 1, KCMP_VM, 0, 0), 0);
	CHECK_ERR(syscall(SYS_kcmp, 1, outer, KCMP_VM, 0, 0), ESRCH);
	CHECK_OK(syscall(SYS_get_robust_list, pid, &head, &len));
	CHECK_ERR(syscall(SYS_get_robust_list, outer, &head, &len), ESRCH);
	CHECK_OK(syscall(SYS_capget, &cap, data));
	cap.pid = outer;
	CHECK_ERR(syscall(SYS_capget, &cap, data), ESRCH);
	CHECK_EQ(clock_getcpuclockid(pid, &clock), 0);
	CHECK_OK(clock_gettime(clock, &ts));
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	CHECK(fd >= 0);
	CHECK_ERR(syscall(SYS_pidfd_open, outer, 0), ESRCH);
	end(pid);
}

TEST(by_number)
{
	pid_t outer = far_sleeper();

	ns_run(by_number, &outer);
	end(outer);
}

static void *busy(void *arg)
{
	ns_take(arg);
	return NULL;
}

static void timer_to_thread(void *arg)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	int fds[2];
	pthread_t t;
	timer_t id;

	(void)arg;
	CHECK_OK(pipe(fds));
	CHECK_EQ(pthread_create(&t, NULL, busy, fds), 0);
	ev._sigev_un._tid = 2;
	CHECK_OK(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id));
	ev._sigev_un._tid = FAR;
	CHECK_ERR(syscall(SYS_timer_create, CLOCK_MONOTONIC, &ev, &id), EINVAL);
	ns_give(fds);
	CHECK_EQ(pthread_join(t, NULL), 0);
}

TEST(timer_thread_id)
{
	ns_run(timer_to_thread, NULL);
}

/* ---- futexes ---- */

static void pi_and_robust(void *arg)
{
	pthread_mutex_t *m =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t a;
	pid_t pid;

	(void)arg;
	CHECK(m != MAP_FAILED);
	pthread_mutexattr_init(&a);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_INHERIT);
	pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST);
	CHECK_EQ(pthread_mutex_init(&m[0], &a), 0);
	pthread_mutexattr_setprotocol(&a, PTHREAD_PRIO_NONE);
	CHECK_EQ(pthread_mutex_init(&m[1], &a), 0);
	pid = fork();
	if (!pid) {
		CHECK_EQ(pthread_mutex_lock(&m[0]), 0);
		CHECK_EQ(pthread_mutex_lock(&m[1]), 0);
		CHECK_EQ(m[0].__data.__lock & 0x3fffffff, 3);
		/* The parent waits for us by now, or comes late: both must work. */
		t_sleep_ms(50);
		_exit(0);
	}
	while (!*(volatile int *)&m[1].__data.__lock)
		t_sleep_ms(1);
	CHECK_EQ(pthread_mutex_lock(&m[0]), EOWNERDEAD);
	CHECK_EQ(m[0].__data.__lock & 0x3fffffff, 2);
	CHECK_EQ(pthread_mutex_consistent(&m[0]), 0);
	CHECK_EQ(pthread_mutex_unlock(&m[0]), 0);
	CHECK_EQ(pthread_mutex_lock(&m[1]), EOWNERDEAD);
	t_wait_ok(pid);
}

/* The C library keeps its thread's number, and a bare clone3() does not tell it the new one: fork() does. */
static void in_fork(void *arg)
{
	t_wait_ok(t_spawn(pi_and_robust, arg));
}

TEST(futex_owners)
{
	ns_run(in_fork, NULL);
}

/* ---- ptrace ---- */

static void trace(void *arg)
{
	unsigned long message = 0;
	pid_t pid, child;
	int status;

	(void)arg;
	pid = fork();
	if (!pid) {
		CHECK_OK(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
		raise(SIGSTOP);
		child = fork();
		if (!child)
			_exit(0);
		t_wait_ok(child);
		_exit(0);
	}
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_OK(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACEFORK));
	CHECK_OK(ptrace(PTRACE_CONT, pid, NULL, NULL));
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
	CHECK_OK(ptrace(PTRACE_GETEVENTMSG, pid, NULL, &message));
	CHECK_EQ(message, 3);
	CHECK_EQ(waitpid(3, &status, __WALL), 3);
	CHECK_OK(ptrace(PTRACE_DETACH, 3, NULL, NULL));
	CHECK_OK(ptrace(PTRACE_DETACH, pid, NULL, NULL));
	t_wait_ok(pid);
	CHECK_ERR(ptrace(PTRACE_ATTACH, FAR, NULL, NULL), ESRCH);
}

TEST(ptrace_inside)
{
	ns_run(trace, NULL);
}

static void fork_when_told(void *arg)
{
	struct ns_turns *s = arg;

	ns_take(s->down);
	t_wait_ok(fork() ?: (_exit(0), 0));
}

TEST(ptrace_from_outside)
{
	unsigned long message = 0;
	struct ns_turns s;
	pid_t pid;
	int status;

	ns_turns_init(&s);
	pid = ns_spawn(fork_when_told, &s);
	CHECK_OK(ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACEFORK));
	ns_give(s.down);
	CHECK_EQ(waitpid(pid, &status, 0), pid);
	CHECK_EQ(status >> 8, SIGTRAP | PTRACE_EVENT_FORK << 8);
	CHECK_OK(ptrace(PTRACE_GETEVENTMSG, pid, NULL, &message));
	/* Our number for it, not its own. */
	CHECK(message > 2);
	CHECK_EQ(waitpid((pid_t)message, &status, __WALL), message);
	CHECK_OK(ptrace(PTRACE_DETACH, (pid_t)message, NULL, NULL));
	CHECK_OK(ptrace(PTRACE_DETACH, pid, NULL, NULL));
	t_wait_ok(pid);
}

/* ---- sockets ---- */

static void send_cred(int fd, pid_t pid)
{
	struct iovec iov = {(char[1]){'c'}, 1};
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} u = {0};
	struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};
	struct ucred uc = {pid, getuid(), getgid()};

	if (pid) {
		m.msg_control = &u;
		m.msg_controllen = sizeof(u.space);
		u.h = (struct cmsghdr){CMSG_LEN(sizeof(uc)), SOL_SOCKET, SCM_CREDENTIALS};
		memcpy(CMSG_DATA(&u.h), &uc, sizeof(uc));
	}
	if (pid == FAR)
		CHECK_ERR(sendmsg(fd, &m, 0), ESRCH);
	else
		CHECK_EQ(sendmsg(fd, &m, 0), 1);
}

static pid_t recv_cred(int fd)
{
	struct iovec iov = {(char[1]){0}, 1};
	union {
		struct cmsghdr h;
		char space[CMSG_SPACE(sizeof(struct ucred))];
	} u = {0};
	struct msghdr m = {.msg_iov = &iov,
			   .msg_iovlen = 1,
			   .msg_control = &u,
			   .msg_controllen = sizeof(u.space)};
	struct ucred uc;

	CHECK_EQ(recvmsg(fd, &m, 0), 1);
	CHECK(CMSG_FIRSTHDR(&m));
	memcpy(&uc, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(uc));
	return uc.pid;
}

static pid_t peer_pid(int fd)
{
	struct ucred uc;
	socklen_t len = sizeof(uc);

	CHECK_OK(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &uc, &len));
	return uc.pid;
}

static void credentials(void *arg)
{
	int fd = *(int *)arg, own[2];

	CHECK_EQ(peer_pid(fd), 0);
	CHECK_EQ(recv_cred(fd), 0);
	send_cred(fd, 1);
	send_cred(fd, 0);
	send_cred(fd, FAR);
	CHECK_OK(socketpair(AF_UNIX, SOCK_STREAM, 0, own));
	CHECK_EQ(peer_pid(own[0]), 1);
	/* The other end will hear of us after our death. */
	if (!fork())
		send_cred(fd, 2);
	else
		t_wait_ok(2);
}

TEST(socket_credentials)
{
	int fds[2], on = 1;
	pid_t pid;

	CHECK_OK(socketpair(AF_UNIX, SOCK_DGRAM, 0, fds));
	for (int i = 0; i < 2; i++)
		CHECK_OK(setsockopt(fds[i], SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)));
	pid = ns_spawn(credentials, &fds[1]);
	send_cred(fds[0], getpid());
	CHECK_EQ(recv_cred(fds[0]), pid);
	CHECK_EQ(recv_cred(fds[0]), pid);
	CHECK(recv_cred(fds[0]) > pid);
	t_wait_ok(pid);
}

/* ---- files ---- */

static void owners(void *arg)
{
	int fd = *(int *)arg, own[2];
	struct f_owner_ex ex;

	CHECK_EQ(fcntl(fd, F_GETOWN), 0);
	CHECK_OK(pipe(own));
	CHECK_OK(fcntl(own[0], F_SETOWN, 1));
	CHECK_EQ(fcntl(own[0], F_GETOWN), 1);
	CHECK_ERR(fcntl(own[0], F_SETOWN, FAR), ESRCH);
	ex = (struct f_owner_ex){F_OWNER_TID, 1};
	CHECK_OK(fcntl(own[0], F_SETOWN_EX, &ex));
	CHECK_OK(fcntl(own[0], F_GETOWN_EX, &ex));
	CHECK_EQ(ex.pid, 1);
	CHECK_OK(fcntl(fd, F_SETOWN, 1));
}

TEST(file_owners)
{
	int fds[2];
	pid_t pid;

	CHECK_OK(pipe(fds));
	CHECK_OK(fcntl(fds[0], F_SETOWN, getpid()));
	pid = ns_spawn(owners, &fds[0]);
	while (fcntl(fds[0], F_GETOWN) == getpid())
		t_sleep_ms(1);
	t_wait_ok(pid);
}

static void locks(void *arg)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
	struct ns_turns *s = arg;
	int fd = open("locked", O_RDWR);
	pid_t pid;

	CHECK(fd >= 0);
	/* The holder is outside. */
	CHECK_OK(fcntl(fd, F_GETLK, &l));
	CHECK_EQ(l.l_type, F_WRLCK);
	CHECK_EQ(l.l_pid, 0);
	l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 20, .l_len = 10};
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	pid = fork();
	if (!pid) {
		CHECK_OK(fcntl(fd, F_GETLK, &l));
		CHECK_EQ(l.l_pid, 1);
		_exit(0);
	}
	t_wait_ok(pid);
	ns_give(s->up);
	ns_take(s->down);
}

TEST(lock_holders)
{
	struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 10};
	int fd = t_file("locked", "");
	struct ns_turns s;
	pid_t pid;

	ns_turns_init(&s);
	CHECK_OK(fcntl(fd, F_SETLK, &l));
	pid = ns_spawn(locks, &s);
	ns_take(s.up);
	l = (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 20, .l_len = 10};
	CHECK_OK(fcntl(fd, F_GETLK, &l));
	CHECK_EQ(l.l_pid, pid);
	ns_give(s.down);
	t_wait_ok(pid);
}

/* ---- IPC ---- */

struct ipc_ids_ {
	int msg, sem, shm;
	pid_t maker;
};

static void ipc_inside(void *arg)
{
	struct ipc_ids_ *i = arg;
	struct msqid_ds q;
	struct shmid_ds shm;

	CHECK_OK(msgctl(i->msg, IPC_STAT, &q));
	CHECK_EQ(q.msg_lspid, 0);
	CHECK_EQ(semctl(i->sem, 0, GETPID), 0);
	CHECK_OK(shmctl(i->shm, IPC_STAT, &shm));
	CHECK_EQ(shm.shm_cpid, 0);
	CHECK_OK(msgsnd(i->msg, &(struct msgbuf){.mtype = 1}, 1, 0));
	CHECK_OK(semop(i->sem, &(struct sembuf){.sem_op = 1}, 1));
	CHECK(shmat(i->shm, NULL, 0) != (void *)-1);
	CHECK_OK(msgctl(i->msg, IPC_STAT, &q));
	CHECK_EQ(q.msg_lspid, 1);
	CHECK_EQ(semctl(i->sem, 0, GETPID), 1);
	CHECK_OK(shmctl(i->shm, IPC_STAT, &shm));
	CHECK_EQ(shm.shm_lpid, 1);
}

TEST(sysv_pids)
{
	struct ipc_ids_ i = {.msg = msgget(IPC_PRIVATE, 0600),
			     .sem = semget(IPC_PRIVATE, 1, 0600),
			     .shm = shmget(IPC_PRIVATE, 4096, 0600)};
	struct msqid_ds q;
	struct shmid_ds shm;
	pid_t pid;

	CHECK(i.msg >= 0 && i.sem >= 0 && i.shm >= 0);
	CHECK_OK(msgsnd(i.msg, &(struct msgbuf){.mtype = 1}, 1, 0));
	CHECK_OK(semop(i.sem, &(struct sembuf){.sem_op = 1}, 1));
	pid = ns_spawn(ipc_inside, &i);
	t_wait_ok(pid);
	/* It is dead and has a number still. */
	CHECK_OK(msgctl(i.msg, IPC_STAT, &q));
	CHECK_EQ(q.msg_lspid, pid);
	CHECK_EQ(semctl(i.sem, 0, GETPID), pid);
	CHECK_OK(shmctl(i.shm, IPC_STAT, &shm));
	CHECK_EQ(shm.shm_lpid, pid);
	CHECK_EQ(shm.shm_cpid, getpid());
	msgctl(i.msg, IPC_RMID, NULL);
	semctl(i.sem, 0, IPC_RMID);
	shmctl(i.shm, IPC_RMID, NULL);
}

static void send_one(void *arg)
{
	CHECK_OK(mq_send(*(mqd_t *)arg, "x", 1, 0));
}

TEST(mq_notify_sender)
{
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct mq_attr attr = {.mq_maxmsg = 2, .mq_msgsize = 8};
	mqd_t q = mq_open("/pidns-test", O_RDWR | O_CREAT, 0600, &attr);
	pid_t pid;

	CHECK(q >= 0);
	mq_unlink("/pidns-test");
	block(SIGUSR1);
	CHECK_OK(mq_notify(q, &ev));
	pid = ns_spawn(send_one, &q);
	CHECK_EQ(next_signal(SIGUSR1).si_pid, pid);
	t_wait_ok(pid);
}

/* ---- proc ---- */

static void proc_inside(void *arg)
{
	pid_t outer = *(pid_t *)arg, pid;
	char path[64], want[64];
	int fd;

	ns_mount_proc();
	CHECK_EQ(readlink("p/self", path, sizeof(path)), 1);
	CHECK_EQ(path[0], '1');
	CHECK_EQ(readlink("p/thread-self", path, sizeof(path)), 8);
	CHECK(!memcmp(path, "1/task/1", 8));
	pid = sleeper();
	CHECK_EQ(pid, 2);
	CHECK_STR(ns_line(t_read("p/2/status"), "\nPid:\t"), "2");
	CHECK_STR(ns_line(t_read("p/2/status"), "\nPPid:\t"), "1");
	CHECK_STR(ns_line(t_read("p/1/status"), "\nPPid:\t"), "0");
	CHECK_STR(ns_line(t_read("p/2/status"), "NStgid:"), "\t2");
	CHECK_STR(ns_line(t_read("p/2/status"), "NSpgid:"), "\t0");
	CHECK_STR(t_read("p/1/task/1/children"), "2 ");
	snprintf(path, sizeof(path), "p/%d", outer);
	CHECK_ERR(access(path, F_OK), ENOENT);
	fd = (int)syscall(SYS_pidfd_open, pid, 0);
	snprintf(path, sizeof(path), "p/self/fdinfo/%d", fd);
	CHECK_STR(ns_line(t_read(path), "NSpid:"), "\t2");
	/* The mount from outside goes on showing those numbers, our own too. */
	CHECK(readlink("/proc/self", path, sizeof(path)) > 0);
	CHECK(path[0] != '1' || path[1]);
	snprintf(want, sizeof(want), "\t%d\t1", atoi(path));
	CHECK_STR(ns_line(t_read("/proc/self/status"), "NSpid:"), want);
	end(pid);
}

TEST(proc_of_a_namespace)
{
	pid_t outer = far_sleeper();

	ns_run(proc_inside, &outer);
	end(outer);
}

static void mount_only(void *arg)
{
	struct ns_turns *s = arg;

	CHECK_OK(mount("proc", "p", "proc", 0, NULL));
	ns_give(s->up);
	ns_take(s->down);
}

TEST(proc_from_outside)
{
	struct ns_turns s;
	pid_t pid;

	ns_turns_init(&s);
	CHECK_OK(mkdir("p", 0755));
	CHECK_OK(unshare(CLONE_NEWNS));
	CHECK_OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	pid = ns_spawn(mount_only, &s);
	ns_take(s.up);
	/* We are not in it. */
	CHECK_ERR(readlink("p/self", (char[8]){0}, 8), ENOENT);
	CHECK_STR(ns_line(t_read("p/1/status"), "NSpid:"), "\t1");
	ns_give(s.down);
	t_wait_ok(pid);
	CHECK_ERR(access("p/1", F_OK), ENOENT);
	CHECK_OK(umount("p"));
}

static void exit_four(void *arg)
{
	(void)arg;
	_exit(4);
}

TEST(handler_sees_number)
{
	pid_t pid;

	catch_info(SIGCHLD);
	pid = ns_spawn(exit_four, NULL);
	while (!seen_signo)
		t_sleep_ms(1);
	CHECK_EQ(seen_pid, pid);
	CHECK_EQ(seen_code, CLD_EXITED);
	CHECK_EQ(WEXITSTATUS(t_wait_status(pid)), 4);
}
