/* futex(2): wait, wake, bitsets, requeue, timeouts, sharing, robust lists, priority inheritance. */
#include "t.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

static long futex(void *uaddr, int op, uint32_t val, const void *timeout, void *uaddr2,
		  uint32_t val3)
{
	return syscall(SYS_futex, uaddr, op, val, timeout, uaddr2, val3);
}

static _Atomic uint32_t word, word2;
static atomic_int waiting, woken;
static _Atomic pid_t waiter[8];

static void *wait_on_word(void *arg)
{
	uint32_t bits = (uint32_t)(uintptr_t)arg;

	waiter[waiting++] = gettid();
	if (futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, NULL, NULL, bits ? bits : ~0u) == 0)
		woken++;
	return NULL;
}

static void start_waiters(pthread_t *t, int count, uint32_t bits)
{
	waiting = 0;
	for (int i = 0; i < count; i++)
		waiter[i] = 0;
	for (int i = 0; i < count; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, wait_on_word, (void *)(uintptr_t)bits), 0);
	for (int i = 0; i < count; i++) {
		while (!waiter[i])
			usleep(1000);
		t_wait_state(waiter[i], "S");
	}
}

/* What was woken runs when it comes to it; no more than `count` may. */
static void check_woken(int count)
{
	for (int i = 0; i < 2000 && woken < count; i++)
		t_sleep_ms(10);
	t_sleep_ms(10);
	CHECK_EQ(woken, count);
}

TEST(errors)
{
	struct timespec bad = {0, 1000000000};

	word = 0;
	CHECK_ERR(futex(&word, FUTEX_WAIT, 1, NULL, NULL, 0), EAGAIN);
	CHECK_ERR(futex((char *)&word + 1, FUTEX_WAIT, 0, NULL, NULL, 0), EINVAL);
	CHECK_ERR(futex((void *)8, FUTEX_WAIT, 0, NULL, NULL, 0), EFAULT);
	CHECK_ERR(futex(&word, FUTEX_WAIT, 0, &bad, NULL, 0), EINVAL);
	CHECK_ERR(futex(&word, FUTEX_WAIT_BITSET, 0, NULL, NULL, 0), EINVAL);
	CHECK_ERR(futex(&word, 99, 0, NULL, NULL, 0), ENOSYS);
	CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
}

TEST(timeouts)
{
	struct timespec ts = {0, 30000000}, now;
	int64_t start = t_now_ms();

	word = 0;
	CHECK_ERR(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), ETIMEDOUT);
	CHECK(t_now_ms() - start >= 29);
	clock_gettime(CLOCK_MONOTONIC, &now);
	now.tv_nsec += 30000000;
	if (now.tv_nsec >= 1000000000) {
		now.tv_nsec -= 1000000000;
		now.tv_sec++;
	}
	start = t_now_ms();
	CHECK_ERR(futex(&word, FUTEX_WAIT_BITSET_PRIVATE, 0, &now, NULL, ~0u), ETIMEDOUT);
	CHECK(t_now_ms() - start >= 28);
	clock_gettime(CLOCK_REALTIME, &now);
	now.tv_sec--;
	CHECK_ERR(futex(&word, FUTEX_WAIT_BITSET | FUTEX_CLOCK_REALTIME, 0, &now, NULL, ~0u),
		  ETIMEDOUT);
}

TEST(wake_some)
{
	pthread_t t[5];

	word = 0;
	start_waiters(t, 5, 0);
	CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 2, NULL, NULL, 0), 2);
	check_woken(2);
	CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, INT_MAX, NULL, NULL, 0), 3);
	for (int i = 0; i < 5; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(woken, 5);
}

TEST(bitsets)
{
	pthread_t a[2], b[2];

	word = 0;
	start_waiters(a, 2, 1);
	start_waiters(b, 2, 2);
	CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, 4), 0);
	CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, 2), 2);
	CHECK_EQ(futex(&word, FUTEX_WAKE_BITSET_PRIVATE, INT_MAX, NULL, NULL, 3), 2);
	for (int i = 0; i < 2; i++) {
		pthread_join(a[i], NULL);
		pthread_join(b[i], NULL);
	}
}

TEST(requeue)
{
	pthread_t t[4];

	word = 0;
	word2 = 0;
	start_waiters(t, 4, 0);
	CHECK_ERR(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &word2, 77), EAGAIN);
	/* One woken, three moved. */
	CHECK_EQ(futex(&word, FUTEX_CMP_REQUEUE_PRIVATE, 1, (void *)10, &word2, 0), 4);
	check_woken(1);
	CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 0);
	CHECK_EQ(futex(&word2, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 3);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
}

TEST(wake_op)
{
	pthread_t t[2];

	word = 0;
	word2 = 5;
	start_waiters(t, 2, 0);
	/* word2 += 3; wakes word2's waiters too if it was below 0: it was not. */
	CHECK_EQ(futex(&word, FUTEX_WAKE_OP_PRIVATE, 1, (void *)1, &word2,
		       FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_LT, 0)),
		 1);
	CHECK_EQ(word2, 8);
	CHECK_EQ(futex(&word, FUTEX_WAKE_PRIVATE, 10, NULL, NULL, 0), 1);
	for (int i = 0; i < 2; i++)
		pthread_join(t[i], NULL);
}

/* By the memory's identity, not the address: two processes, two mappings. */
TEST(shared_between_processes)
{
	int fd = t_file("f", "");
	_Atomic uint32_t *a, *b;
	pid_t pid;

	CHECK_OK(ftruncate(fd, 4096));
	a = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	b = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	pid = fork();
	if (pid == 0) {
		while (*b == 0)
			futex((void *)b, FUTEX_WAIT, 0, NULL, NULL, 0);
		_exit(0);
	}
	t_wait_state(pid, "S");
	*a = 1;
	CHECK_EQ(futex((void *)a, FUTEX_WAKE, 1, NULL, NULL, 0), 1);
	t_wait_ok(pid);
}

TEST(private_is_per_process)
{
	pid_t pid;

	word = 0;
	pid = fork();
	if (pid == 0) {
		struct timespec ts = {0, 400000000};

		_exit(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0) == -1 && errno == ETIMEDOUT ? 0
											    : 1);
	}
	t_wait_state(pid, "S");
	CHECK_EQ(futex(&word, FUTEX_WAKE, 1, NULL, NULL, 0), 0);
	t_wait_ok(pid);
}

static void on_signal(int sig)
{
	(void)sig;
}

TEST(interrupted)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct timespec ts = {25, 0};

	word = 0;
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	t_signal_sleeper(SIGUSR1, 0);
	CHECK_ERR(futex(&word, FUTEX_WAIT, 0, &ts, NULL, 0), EINTR);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static int turn;

static void *take_turns(void *arg)
{
	int me = (int)(intptr_t)arg;

	for (int i = 0; i < 500; i++) {
		pthread_mutex_lock(&mutex);
		while (turn != me)
			pthread_cond_wait(&cond, &mutex);
		turn = (me + 1) % 3;
		pthread_cond_broadcast(&cond);
		pthread_mutex_unlock(&mutex);
	}
	return NULL;
}

TEST(condition_variables)
{
	pthread_t t[3];

	for (intptr_t i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, take_turns, (void *)i), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

static pthread_mutex_t *shared_mutex(int robust, int protocol)
{
	pthread_mutex_t *m =
		mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	pthread_mutexattr_t attr;

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setpshared(&attr, PTHREAD_PROCESS_SHARED);
	pthread_mutexattr_setrobust(&attr, robust);
	pthread_mutexattr_setprotocol(&attr, protocol);
	CHECK_EQ(pthread_mutex_init(m, &attr), 0);
	return m;
}

static void die_holding(int protocol, bool waits)
{
	pthread_mutex_t *m = shared_mutex(PTHREAD_MUTEX_ROBUST, protocol);
	_Atomic bool *held = (void *)(m + 1);
	pid_t parent = getpid(), pid = fork();

	if (pid == 0) {
		pthread_mutex_lock(m);
		*held = true;
		if (waits)
			t_wait_state(parent, "S");
		raise(SIGKILL);
	}
	/* Without a sleep of its own, which could be taken for that in the lock. */
	while (!*held)
		sched_yield();
	if (!waits)
		CHECK_EQ(t_wait_status(pid), SIGKILL);
	CHECK_EQ(pthread_mutex_lock(m), EOWNERDEAD);
	CHECK_EQ(pthread_mutex_consistent(m), 0);
	CHECK_EQ(pthread_mutex_unlock(m), 0);
	CHECK_EQ(pthread_mutex_lock(m), 0);
	CHECK_EQ(pthread_mutex_unlock(m), 0);
}

TEST(robust)
{
	die_holding(PTHREAD_PRIO_NONE, false);
}

TEST(robust_with_waiter)
{
	die_holding(PTHREAD_PRIO_NONE, true);
}

TEST(robust_pi)
{
	die_holding(PTHREAD_PRIO_INHERIT, false);
	die_holding(PTHREAD_PRIO_INHERIT, true);
}

TEST(get_robust_list)
{
	void *head = NULL;
	size_t size = 0;

	CHECK_OK(syscall(SYS_get_robust_list, 0, &head, &size));
	CHECK(head != NULL);
	CHECK_EQ(size, 24);
	CHECK_ERR(syscall(SYS_set_robust_list, head, 5), EINVAL);
	CHECK_ERR(syscall(SYS_get_robust_list, 0x7fffff, &head, &size), ESRCH);
}

static pthread_mutex_t pi_mutex;
static int pi_count;

static void *pi_add(void *arg)
{
	for (int i = 0; i < 2000; i++) {
		CHECK_EQ(pthread_mutex_lock(&pi_mutex), 0);
		pi_count++;
		CHECK_EQ(pthread_mutex_unlock(&pi_mutex), 0);
	}
	return arg;
}

TEST(pi_contended)
{
	pthread_mutexattr_t attr;
	pthread_t t[4];

	pthread_mutexattr_init(&attr);
	pthread_mutexattr_setprotocol(&attr, PTHREAD_PRIO_INHERIT);
	CHECK_EQ(pthread_mutex_init(&pi_mutex, &attr), 0);
	for (int i = 0; i < 4; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, pi_add, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	CHECK_EQ(pi_count, 8000);
}

TEST(pi_errors)
{
	word = 0;
	CHECK_OK(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0));
	CHECK_EQ(word & FUTEX_TID_MASK, gettid());
	CHECK_ERR(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0), EDEADLK);
	CHECK_ERR(futex(&word, FUTEX_TRYLOCK_PI_PRIVATE, 0, NULL, NULL, 0), EDEADLK);
	CHECK_OK(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0));
	CHECK_EQ(word, 0);
	CHECK_ERR(futex(&word, FUTEX_UNLOCK_PI_PRIVATE, 0, NULL, NULL, 0), EPERM);
	word = 0x3ffffff;
	CHECK_ERR(futex(&word, FUTEX_LOCK_PI_PRIVATE, 0, NULL, NULL, 0), ESRCH);
}

TEST(join_uses_child_cleartid)
{
	pthread_t t;

	for (int i = 0; i < 200; i++) {
		waiting = 0;
		woken = 0;
		word = 1;
		CHECK_EQ(pthread_create(&t, NULL, wait_on_word, NULL), 0);
		CHECK_EQ(pthread_join(t, NULL), 0);
	}
}
