/* Clocks and timers: clock_*, nanosleep, alarm, setitimer, timer_create, timerfd, times. */
#include "t.h"

#include <poll.h>
#include <pthread.h>
#include <sys/timerfd.h>
#include <sys/times.h>
#include <sys/timex.h>

#define MS 1000000l

static volatile sig_atomic_t count;
static volatile int overrun, value;

static void on_signal(int sig)
{
	(void)sig;
	count++;
}

static void on_timer(int sig, siginfo_t *si, void *uc)
{
	(void)sig;
	(void)uc;
	count++;
	value = si->si_value.sival_int;
	overrun += si->si_overrun;
}

static int64_t ns(struct timespec ts)
{
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

TEST(clocks)
{
	static const clockid_t ids[] = {
		CLOCK_REALTIME,		 CLOCK_MONOTONIC,     CLOCK_PROCESS_CPUTIME_ID,
		CLOCK_THREAD_CPUTIME_ID, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME_COARSE,
		CLOCK_MONOTONIC_COARSE,	 CLOCK_BOOTTIME,      CLOCK_TAI};
	struct timespec a, b, c;
	struct timeval tv;

	for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
		CHECK_OK(clock_gettime(ids[i], &a));
		CHECK_OK(syscall(SYS_clock_gettime, ids[i], &b));
		CHECK(ns(b) >= ns(a) - 10 * MS && ns(b) - ns(a) < 1000 * MS);
		CHECK_OK(clock_getres(ids[i], &c));
		CHECK(c.tv_sec == 0 && c.tv_nsec > 0);
	}
	CHECK_ERR(clock_gettime(99, &a), EINVAL);
	CHECK_ERR(syscall(SYS_clock_gettime, CLOCK_MONOTONIC, (void *)8), EFAULT);
	CHECK_OK(gettimeofday(&tv, NULL));
	CHECK_OK(clock_gettime(CLOCK_REALTIME, &a));
	CHECK(labs(tv.tv_sec - a.tv_sec) <= 1);
	CHECK(labs(time(NULL) - a.tv_sec) <= 1);
	CHECK(a.tv_sec > 1700000000);
}

/* No reader ever sees time go back, by the vDSO or by calls. */
static void *monotone(void *arg)
{
	struct timespec ts;
	int64_t last = 0;

	for (int i = 0; i < 20000; i++) {
		if (i % 50 == 0)
			syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &ts);
		else
			clock_gettime(CLOCK_MONOTONIC, &ts);
		CHECK(ns(ts) >= last);
		last = ns(ts);
	}
	return arg;
}

TEST(monotonic)
{
	pthread_t t[3];

	for (int i = 0; i < 3; i++)
		CHECK_EQ(pthread_create(&t[i], NULL, monotone, NULL), 0);
	for (int i = 0; i < 3; i++)
		pthread_join(t[i], NULL);
}

/* The C library's reading and the call's are of one clock. */
TEST(coarse_clocks_do_not_go_back)
{
	static const clockid_t clocks[] = {CLOCK_REALTIME_COARSE, CLOCK_MONOTONIC_COARSE};

	for (int c = 0; c < 2; c++) {
		int64_t last = 0;

		for (int i = 0; i < 4000; i++) {
			struct timespec ts;
			int64_t now;

			if (i & 1)
				CHECK_OK(clock_gettime(clocks[c], &ts));
			else
				CHECK_OK(syscall(SYS_clock_gettime, clocks[c], &ts));
			now = ts.tv_sec * 1000000000L + ts.tv_nsec;
			/* Less than the tick that the two once differed by. */
			CHECK(now >= last - 1000000);
			last = now;
		}
	}
}

TEST(cpu_clocks)
{
	struct timespec before, after, sleep = {0, 30 * MS};
	int64_t spun = 0, slept = 1000 * MS;
	struct tms tms;

	/* On a busy machine a try can go wrong either way. */
	for (int i = 0; i < 8 && (spun <= 5 * MS || slept >= 20 * MS); i++) {
		int64_t start = t_now_ms();

		CHECK_OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &before));
		while (t_now_ms() - start < 60)
			;
		CHECK_OK(clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &after));
		spun = spun > ns(after) - ns(before) ? spun : ns(after) - ns(before);
		CHECK_OK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &before));
		CHECK_OK(nanosleep(&sleep, NULL));
		CHECK_OK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &after));
		slept = slept < ns(after) - ns(before) ? slept : ns(after) - ns(before);
	}
	CHECK(spun > 5 * MS);
	CHECK(slept < 20 * MS);
	CHECK(times(&tms) != -1);
}

TEST(sleeps)
{
	struct timespec ts = {0, 20 * MS}, now;
	int64_t start = t_now_ms();

	CHECK_OK(nanosleep(&ts, NULL));
	CHECK(t_now_ms() - start >= 19 && t_now_ms() - start < 20000);
	ts.tv_nsec = 1000 * MS;
	CHECK_ERR(nanosleep(&ts, NULL), EINVAL);
	ts.tv_nsec = -1;
	CHECK_ERR(nanosleep(&ts, NULL), EINVAL);
	ts = (struct timespec){-1, 0};
	CHECK_ERR(nanosleep(&ts, NULL), EINVAL);
	ts = (struct timespec){0, 0};
	CHECK_OK(nanosleep(&ts, NULL));
	CHECK_ERR(syscall(SYS_nanosleep, (void *)8, NULL), EFAULT);
	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &now));
	ts = now;
	ts.tv_nsec += 20 * MS;
	if (ts.tv_nsec >= 1000 * MS) {
		ts.tv_nsec -= 1000 * MS;
		ts.tv_sec++;
	}
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL), 0);
	CHECK_OK(clock_gettime(CLOCK_MONOTONIC, &now));
	CHECK(ns(now) >= ns(ts));
	CHECK_EQ(clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &(struct timespec){1, 0}, NULL),
		 0);
	CHECK_EQ(clock_nanosleep(99, 0, &ts, NULL), EINVAL);
}

TEST(alarm)
{
	signal(SIGALRM, on_signal);
	CHECK_EQ(alarm(0) > 0, 1);
	CHECK_EQ(alarm(100), 0);
	/* Whole seconds, to the nearest: of a hundred, some may be over. */
	CHECK(alarm(1) >= 90);
	CHECK_EQ(pause(), -1);
	CHECK_EQ(count, 1);
	CHECK_EQ(alarm(0), 0);
}

TEST(itimer_real)
{
	struct itimerval it = {{0, 10000}, {0, 10000}}, old;

	signal(SIGALRM, on_signal);
	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	while (count < 5)
		pause();
	CHECK_OK(getitimer(ITIMER_REAL, &old));
	CHECK_EQ(old.it_interval.tv_usec, 10000);
	CHECK(old.it_value.tv_sec == 0 && old.it_value.tv_usec <= 10000);
	it = (struct itimerval){0};
	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	CHECK_OK(getitimer(ITIMER_REAL, &old));
	CHECK_EQ(old.it_value.tv_usec, 0);
	it.it_value.tv_usec = 1000000;
	CHECK_ERR(setitimer(ITIMER_REAL, &it, NULL), EINVAL);
	CHECK_ERR(setitimer(9, &old, NULL), EINVAL);
}

TEST(itimer_cpu)
{
	struct itimerval it = {{0, 0}, {0, 20000}};

	signal(SIGVTALRM, on_signal);
	signal(SIGPROF, on_signal);
	CHECK_OK(setitimer(ITIMER_VIRTUAL, &it, NULL));
	while (!count)
		;
	CHECK_OK(setitimer(ITIMER_PROF, &it, NULL));
	while (count < 2)
		;
}

TEST(posix_timer)
{
	struct sigaction sa = {.sa_sigaction = on_timer, .sa_flags = SA_SIGINFO};
	struct sigevent ev = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGUSR1};
	struct itimerspec its = {{0, 10 * MS}, {0, 10 * MS}}, now;
	sigset_t set;
	timer_t id;

	ev.sigev_value.sival_int = 77;
	CHECK_OK(sigaction(SIGUSR1, &sa, NULL));
	CHECK_OK(timer_create(CLOCK_MONOTONIC, &ev, &id));
	CHECK_OK(timer_gettime(id, &now));
	CHECK_EQ(now.it_value.tv_nsec, 0);
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	while (count < 3)
		pause();
	CHECK_EQ(value, 77);
	CHECK_OK(timer_gettime(id, &now));
	CHECK_EQ(now.it_interval.tv_nsec, 10 * MS);
	CHECK(now.it_value.tv_nsec > 0 && now.it_value.tv_nsec <= 10 * MS);
	/* Blocked, expirations become overruns of one signal. */
	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	CHECK_OK(sigprocmask(SIG_BLOCK, &set, NULL));
	t_sleep_ms(100);
	count = 0;
	overrun = 0;
	its = (struct itimerspec){0};
	CHECK_OK(sigprocmask(SIG_UNBLOCK, &set, NULL));
	CHECK(count >= 1);
	CHECK(overrun >= 4);
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	CHECK_OK(timer_delete(id));
	CHECK_ERR(timer_delete(id), EINVAL);
	CHECK_ERR(timer_create(99, &ev, &id), EINVAL);
	ev.sigev_signo = 99;
	CHECK_ERR(timer_create(CLOCK_REALTIME, &ev, &id), EINVAL);
}

TEST(posix_timer_thread_id)
{
	struct sigevent ev = {.sigev_notify = SIGEV_THREAD_ID, .sigev_signo = SIGUSR1};
	/* Again and again: the first may come before pause() does. */
	struct itimerspec its = {{0, 10 * MS}, {0, 10 * MS}};
	timer_t id;

	ev._sigev_un._tid = gettid();
	signal(SIGUSR1, on_signal);
	CHECK_OK(timer_create(CLOCK_REALTIME, &ev, &id));
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	while (!count)
		pause();
	CHECK_OK(timer_delete(id));
	its.it_interval.tv_nsec = 0;
	ev.sigev_notify = SIGEV_NONE;
	CHECK_OK(timer_create(CLOCK_MONOTONIC, &ev, &id));
	CHECK_OK(timer_settime(id, 0, &its, NULL));
	t_sleep_ms(30);
	CHECK_OK(timer_gettime(id, &its));
	CHECK_EQ(its.it_value.tv_nsec, 0);
}

/* Timers are not inherited by fork. */
TEST(timers_and_fork)
{
	struct itimerval it = {{0, 0}, {50, 0}}, now;
	pid_t pid;

	CHECK_OK(setitimer(ITIMER_REAL, &it, NULL));
	pid = fork();
	if (pid == 0) {
		CHECK_OK(getitimer(ITIMER_REAL, &now));
		CHECK_EQ(now.it_value.tv_sec, 0);
		_exit(0);
	}
	t_wait_ok(pid);
	CHECK_OK(getitimer(ITIMER_REAL, &now));
	CHECK(now.it_value.tv_sec >= 40);
}

TEST(timerfd)
{
	struct itimerspec its = {{0, 10 * MS}, {0, 10 * MS}}, now;
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	struct pollfd pfd = {fd, POLLIN, 0};
	uint64_t n = 0;

	CHECK(fd >= 0);
	CHECK_ERR(read(fd, &n, 8), EAGAIN);
	CHECK_OK(timerfd_settime(fd, 0, &its, NULL));
	CHECK_EQ(poll(&pfd, 1, 20000), 1);
	CHECK_EQ(read(fd, &n, 8), 8);
	CHECK(n >= 1);
	t_sleep_ms(55);
	CHECK_EQ(read(fd, &n, 8), 8);
	CHECK(n >= 4);
	CHECK_ERR(read(fd, &n, 4), EINVAL);
	CHECK_OK(timerfd_gettime(fd, &now));
	CHECK_EQ(now.it_interval.tv_nsec, 10 * MS);
	its = (struct itimerspec){0};
	CHECK_OK(timerfd_settime(fd, 0, &its, &now));
	CHECK_EQ(poll(&pfd, 1, 30), 0);
	fd = timerfd_create(CLOCK_REALTIME, 0);
	clock_gettime(CLOCK_REALTIME, &its.it_value);
	its.it_value.tv_sec -= 5;
	CHECK_OK(timerfd_settime(fd, TFD_TIMER_ABSTIME, &its, NULL));
	CHECK_EQ(read(fd, &n, 8), 8);
	CHECK_EQ(n, 1);
	CHECK_ERR(timerfd_create(99, 0), EINVAL);
	CHECK_ERR(timerfd_settime(0, 0, &its, NULL), EINVAL);
	CHECK_ERR(write(fd, &n, 8), EINVAL);
}

TEST(set_clock)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	CHECK_ERR(clock_settime(CLOCK_MONOTONIC, &ts), EINVAL);
	t_become(1000, 1000);
	clock_gettime(CLOCK_REALTIME, &ts);
	CHECK_ERR(clock_settime(CLOCK_REALTIME, &ts), EPERM);
}

/* The caller's own clock stands still while it sleeps: there is no such sleep. (The C library answers EINVAL by itself.) */
TEST(sleep_by_own_clock)
{
	struct timespec ts = {0};

	CHECK_ERR(syscall(SYS_clock_nanosleep, CLOCK_THREAD_CPUTIME_ID, 0, &ts, NULL), EOPNOTSUPP);
	CHECK_ERR(syscall(SYS_clock_nanosleep, CLOCK_MONOTONIC_RAW, 0, &ts, NULL), EOPNOTSUPP);
}
