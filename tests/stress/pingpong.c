/*
 * tests/stress/pingpong.c - many pairs that wake each other by every means there is, more threads than cores: none may sleep for ever.
 *
 * Usage: pingpong SECONDS. A pair hands a turn to and fro; a watchdog sees that every pair goes on. A pair that makes no progress
 * for STUCK_SECONDS has lost a wake-up: its kind and number are printed, the status is 1. At the end the turns of each kind are printed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAIRS_A_KIND 3
#define STUCK_SECONDS 20

struct pair {
	const struct kind *kind;
	_Atomic uint64_t turns;
	_Atomic int turn; /* futex */
	pthread_mutex_t lock;
	pthread_cond_t cond;
	sem_t sem[2];
	int fd[2][2]; /* [side]: what it reads, what the other writes */
	_Atomic int tid[2];
	_Atomic int ended;
};

struct kind {
	const char *name;
	/* Wakes the other side; waits for one's own turn. */
	void (*wake)(struct pair *p, int other);
	void (*wait)(struct pair *p, int mine);
	void (*setup)(struct pair *p);
};

static _Atomic int stop;

static void die(const char *what)
{
	printf("failed: %s: %s\n", what, strerror(errno));
	fflush(stdout);
	_exit(2);
}

/* ---- futex ---- */

static void futex_wait_turn(struct pair *p, int mine)
{
	while (atomic_load(&p->turn) != mine)
		syscall(SYS_futex, &p->turn, FUTEX_WAIT | FUTEX_PRIVATE_FLAG, !mine, NULL, NULL, 0);
}

static void futex_wake_other(struct pair *p, int other)
{
	atomic_store(&p->turn, other);
	syscall(SYS_futex, &p->turn, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, 1, NULL, NULL, 0);
}

/* ---- condition variables, semaphores ---- */

static void cond_wait_turn(struct pair *p, int mine)
{
	pthread_mutex_lock(&p->lock);
	while (atomic_load(&p->turn) != mine)
		pthread_cond_wait(&p->cond, &p->lock);
	pthread_mutex_unlock(&p->lock);
}

static void cond_wake_other(struct pair *p, int other)
{
	pthread_mutex_lock(&p->lock);
	atomic_store(&p->turn, other);
	pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

static void sem_setup(struct pair *p)
{
	sem_init(&p->sem[0], 0, 1);
	sem_init(&p->sem[1], 0, 0);
}

static void sem_wait_turn(struct pair *p, int mine)
{
	while (sem_wait(&p->sem[mine]))
		if (errno != EINTR)
			die("sem_wait");
}

static void sem_wake_other(struct pair *p, int other)
{
	sem_post(&p->sem[other]);
}

/* ---- descriptors ---- */

static void fd_write(int fd, const void *buf, size_t size)
{
	if (write(fd, buf, size) != (ssize_t)size)
		die("write");
}

static void fd_wake_other(struct pair *p, int other)
{
	uint64_t one = 1;

	fd_write(p->fd[other][1], &one, sizeof(one));
}

static void fd_wait_turn(struct pair *p, int mine)
{
	uint64_t got;

	if (read(p->fd[mine][0], &got, sizeof(got)) != sizeof(got))
		die("read");
}

static void poll_wait_turn(struct pair *p, int mine)
{
	struct pollfd pfd = {.fd = p->fd[mine][0], .events = POLLIN};

	if (poll(&pfd, 1, -1) != 1)
		die("poll");
	fd_wait_turn(p, mine);
}

static void epoll_wait_turn(struct pair *p, int mine)
{
	static _Thread_local int ep = -1;
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

	if (ep < 0) {
		ep = epoll_create1(0);
		if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, p->fd[mine][0], &ev))
			die("epoll");
	}
	if (epoll_wait(ep, &ev, 1, -1) != 1)
		die("epoll_wait");
	fd_wait_turn(p, mine);
}

static void pipe_setup(struct pair *p)
{
	if (pipe(p->fd[0]) || pipe(p->fd[1]))
		die("pipe");
	fd_wake_other(p, 0);
}

static void socket_setup(struct pair *p)
{
	int s[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s))
		die("socketpair");
	p->fd[0][0] = p->fd[1][1] = s[0];
	p->fd[1][0] = p->fd[0][1] = s[1];
	fd_wake_other(p, 0);
}

static void eventfd_setup(struct pair *p)
{
	for (int side = 0; side < 2; side++) {
		p->fd[side][0] = p->fd[side][1] = eventfd(side == 0, 0);
		if (p->fd[side][0] < 0)
			die("eventfd");
	}
}

/* ---- signals ---- */

static void on_signal(int sig)
{
	(void)sig;
}

static void signal_wait_turn(struct pair *p, int mine)
{
	sigset_t set;
	int sig;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	while (atomic_load(&p->turn) != mine)
		if (sigwait(&set, &sig))
			die("sigwait");
}

/* A handler in a call that it interrupts: the mask opens with the wait. */
static void suspend_wait_turn(struct pair *p, int mine)
{
	sigset_t none;

	sigemptyset(&none);
	while (atomic_load(&p->turn) != mine)
		sigsuspend(&none);
}

static void signal_wake_other(struct pair *p, int other)
{
	int tid;

	atomic_store(&p->turn, other);
	while (!(tid = atomic_load(&p->tid[other])))
		sched_yield();
	if (syscall(SYS_tgkill, getpid(), tid, SIGUSR1) && errno != ESRCH)
		die("tgkill");
}

static const struct kind kinds[] = {
	{"futex", futex_wake_other, futex_wait_turn, NULL},
	{"cond", cond_wake_other, cond_wait_turn, NULL},
	{"sem", sem_wake_other, sem_wait_turn, sem_setup},
	{"pipe", fd_wake_other, fd_wait_turn, pipe_setup},
	{"pipe-poll", fd_wake_other, poll_wait_turn, pipe_setup},
	{"socket", fd_wake_other, fd_wait_turn, socket_setup},
	{"eventfd", fd_wake_other, fd_wait_turn, eventfd_setup},
	{"eventfd-epoll", fd_wake_other, epoll_wait_turn, eventfd_setup},
	{"sigwait", signal_wake_other, signal_wait_turn, NULL},
	{"sigsuspend", signal_wake_other, suspend_wait_turn, NULL},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static struct pair pairs[KINDS * PAIRS_A_KIND];

static void run_side(struct pair *p, int mine)
{
	sigset_t usr1;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	pthread_sigmask(SIG_BLOCK, &usr1, NULL);
	atomic_store(&p->tid[mine], (int)syscall(SYS_gettid));
	for (;;) {
		p->kind->wait(p, mine);
		if (atomic_load(&p->ended))
			return;
		/* The first side ends the pair, in its turn: both are awake then. */
		if (mine == 0 && atomic_load(&stop))
			atomic_store(&p->ended, 1);
		atomic_fetch_add_explicit(&p->turns, 1, memory_order_relaxed);
		p->kind->wake(p, !mine);
		if (mine == 0 && atomic_load(&p->ended))
			return;
	}
}

static void *side0(void *arg)
{
	run_side(arg, 0);
	return NULL;
}

static void *side1(void *arg)
{
	run_side(arg, 1);
	return NULL;
}

/* Return: false if a pair stood still. */
static int watch(int seconds)
{
	uint64_t seen[KINDS * PAIRS_A_KIND] = {0};
	int still[KINDS * PAIRS_A_KIND] = {0}, good = 1;

	for (int s = 0; s < seconds && good; s++) {
		sleep(1);
		for (size_t i = 0; i < KINDS * PAIRS_A_KIND; i++) {
			uint64_t now = atomic_load(&pairs[i].turns);

			still[i] = now == seen[i] ? still[i] + 1 : 0;
			seen[i] = now;
			if (still[i] < STUCK_SECONDS)
				continue;
			printf("lost wake-up: %s pair %zu after %llu turns\n", pairs[i].kind->name,
			       i % PAIRS_A_KIND, (unsigned long long)now);
			good = 0;
		}
	}
	return good;
}

static void report(void)
{
	for (size_t k = 0; k < KINDS; k++) {
		unsigned long long sum = 0;

		for (size_t i = 0; i < PAIRS_A_KIND; i++)
			sum += atomic_load(&pairs[k * PAIRS_A_KIND + i].turns);
		printf("%s %llu\n", kinds[k].name, sum);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int seconds = argc > 1 ? atoi(argv[1]) : 10;
	pthread_t threads[KINDS * PAIRS_A_KIND][2];

	signal(SIGUSR1, on_signal);
	for (size_t i = 0; i < KINDS * PAIRS_A_KIND; i++) {
		struct pair *p = &pairs[i];

		p->kind = &kinds[i / PAIRS_A_KIND];
		pthread_mutex_init(&p->lock, NULL);
		pthread_cond_init(&p->cond, NULL);
		if (p->kind->setup)
			p->kind->setup(p);
	}
	for (size_t i = 0; i < KINDS * PAIRS_A_KIND; i++)
		if (pthread_create(&threads[i][0], NULL, side0, &pairs[i]) ||
		    pthread_create(&threads[i][1], NULL, side1, &pairs[i]))
			die("pthread_create");
	if (!watch(seconds)) {
		report();
		return 1;
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < KINDS * PAIRS_A_KIND; i++)
		for (int side = 0; side < 2; side++)
			pthread_join(threads[i][side], NULL);
	report();
	return 0;
}
