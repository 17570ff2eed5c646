// LINK: moat_base
/* base/hostpoll: batched descriptors are announced to whoever looks, and to whoever awaits. */
#include "tests/unit/check.h"

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/rcu.h"
#include "base/sleep.h"

#define MS 1000000ll
#define LONG (30000 * MS)
#define ROUNDS 500

struct subject {
	struct hostpoll hp;
	int fd;
	_Atomic unsigned announced;
	struct sleeper *_Atomic sleeper;
};

static _Thread_local unsigned announced_here;

static void subject_ready(struct hostpoll *hp, uint32_t events)
{
	struct subject *s = container_of(hp, struct subject, hp);
	struct sleeper *sl = atomic_load(&s->sleeper);

	announced_here++;
	if (events & POLLIN)
		atomic_fetch_add(&s->announced, 1);
	if (sl)
		sleeper_wake(sl);
}

static void subject_open(struct subject *s, bool batched)
{
	*s = (struct subject){.fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)};
	assert_true(s->fd >= 0);
	assert_int_equal((batched ? hostpoll_add_batched : hostpoll_add)(&s->hp, s->fd, POLLIN,
									 subject_ready),
			 0);
}

static void subject_close(struct subject *s)
{
	hostpoll_remove(&s->hp);
	close(s->fd);
}

static void tell(struct subject *s)
{
	assert_int_equal(eventfd_write(s->fd, 1), 0);
}

/* Waits for the count, looking or not. */
static bool reaches(struct subject *s, unsigned count, int64_t ns, bool look)
{
	int64_t end = time_monotonic_ns() + ns;

	while (atomic_load(&s->announced) < count) {
		if (time_monotonic_ns() >= end)
			return false;
		if (look)
			hostpoll_look();
		usleep(200);
	}
	return true;
}

/* Tells one by one until nobody but a looker announces any more. */
static unsigned park(struct subject *s)
{
	unsigned told = atomic_load(&s->announced);

	for (int i = 0; i < 100; i++) {
		tell(s);
		told++;
		if (!reaches(s, told, 200 * MS, false))
			return told;
	}
	fail_msg("the housekeeping thread goes on announcing what nobody awaits");
	return told;
}

static void test_looked_for(unused_arg void **state)
{
	struct subject s, other;
	unsigned told;

	subject_open(&s, true);
	subject_open(&other, false);
	told = park(&s);
	assert_true(reaches(&s, told, LONG, true));
	/* The others are announced as ever. */
	tell(&other);
	assert_true(reaches(&other, 1, LONG, false));
	subject_close(&other);
	subject_close(&s);
}

static void test_awaited(unused_arg void **state)
{
	struct subject s;
	unsigned told;

	subject_open(&s, true);
	told = park(&s);
	/* What came before is announced as well as what comes now. */
	hostpoll_await();
	assert_true(reaches(&s, told, LONG, false));
	for (int i = 0; i < 20; i++) {
		tell(&s);
		assert_true(reaches(&s, ++told, LONG, false));
	}
	hostpoll_await_end();
	subject_close(&s);
}

static void *teller(void *arg)
{
	struct subject *s = arg;

	for (unsigned i = 1; i <= ROUNDS; i++) {
		tell(s);
		if (!reaches(s, i, LONG, false))
			break;
	}
	return NULL;
}

/* A task that is busy at times: looks, and sleeps when it found nothing. No wake-up is lost. */
static void test_none_lost(unused_arg void **state)
{
	struct sleeper *me = sleeper_current();
	struct subject s;
	pthread_t thread;
	unsigned seen;

	subject_open(&s, true);
	atomic_store(&s.sleeper, me);
	assert_int_equal(pthread_create(&thread, NULL, teller, &s), 0);
	for (seen = 0; seen < ROUNDS;) {
		for (unsigned busy = seen % 7; busy; busy--) {
			usleep(300);
			hostpoll_look_if_parked();
		}
		hostpoll_await();
		while (atomic_load(&s.announced) <= seen)
			assert_int_equal(sleeper_wait(me, SLEEP_UNINTERRUPTIBLE,
						      time_monotonic_ns() + LONG),
					 0);
		hostpoll_await_end();
		seen = atomic_load(&s.announced);
	}
	assert_int_equal(pthread_join(thread, NULL), 0);
	subject_close(&s);
}

static void closing_ready(struct hostpoll *hp, unused_arg uint32_t events)
{
	hostpoll_remove(hp);
	subject_ready(hp, POLLIN);
}

/* From its own callback, on a looker's thread. */
static void test_removes_itself(unused_arg void **state)
{
	struct subject s = {.fd = eventfd(1, EFD_NONBLOCK | EFD_CLOEXEC)};

	assert_int_equal(hostpoll_add_batched(&s.hp, s.fd, POLLIN, closing_ready), 0);
	assert_true(reaches(&s, 1, LONG, true));
	assert_int_equal(s.hp.fd, -1);
	close(s.fd);
}

#define MANY 400 /* more than one look announces */
#define ONE_LOOK 256

/* One look ends although more is ready; nothing of it is lost, whoever announces it. */
static void test_many_at_once(unused_arg void **state)
{
	static struct subject many[MANY];
	unsigned before, told;

	for (unsigned i = 0; i < MANY; i++)
		subject_open(&many[i], true);
	told = park(&many[0]);
	assert_true(reaches(&many[0], told, LONG, true));
	for (unsigned i = 0; i < MANY; i++)
		tell(&many[i]);
	before = announced_here;
	hostpoll_look();
	assert_in_range(announced_here - before, 0, ONE_LOOK);
	hostpoll_await();
	for (unsigned i = 1; i < MANY; i++)
		assert_true(reaches(&many[i], 1, LONG, false));
	hostpoll_await_end();
	for (unsigned i = 0; i < MANY; i++)
		subject_close(&many[i]);
}

static int start(unused_arg void **state)
{
	rcu_thread_begin();
	return hostpoll_start();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_looked_for),   cmocka_unit_test(test_awaited),
		cmocka_unit_test(test_none_lost),    cmocka_unit_test(test_removes_itself),
		cmocka_unit_test(test_many_at_once),
	};

	return cmocka_run_group_tests(tests, start, NULL);
}
