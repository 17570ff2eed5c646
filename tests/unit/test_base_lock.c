// LINK: moat_base
#include "tests/unit/check.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/lock_waits.h"
#include "base/rcu.h"
#include "base/sleep.h"

static struct mutex low = MUTEX_INIT(LOCK_TASK, "low");
static struct mutex high = MUTEX_INIT(LOCK_FUTEX, "high");
static struct mutex high2 = MUTEX_INIT(LOCK_FUTEX, "high2");
static struct rwlock vma = RWLOCK_INIT(LOCK_MM_VMA, "vma");
static struct rwlock vma2 = RWLOCK_INIT(LOCK_MM_VMA, "vma2");

static void test_mutex(void **state)
{
	struct mutex m;

	(void)state;
	mutex_init(&m, LOCK_LEAF, "m");
	mutex_lock(&m);
	mutex_assert_held(&m);
	mutex_unlock(&m);
	assert_true(mutex_trylock(&m));
	mutex_unlock(&m);
	mutex_lock_pair(&high2, &high);
	mutex_unlock_pair(&high2, &high);
	mutex_lock_pair(&high, &high);
	mutex_unlock_pair(&high, &high);
	/* Release in any order. */
	mutex_lock(&low);
	mutex_lock(&high);
	mutex_unlock(&low);
	mutex_unlock(&high);
	lock_assert_may_sleep();
}

static void *try_it(void *arg)
{
	return mutex_trylock(arg) ? arg : NULL;
}

static void test_trylock_fails(void **state)
{
	pthread_t t;
	void *ret;

	(void)state;
	mutex_lock(&low);
	assert_int_equal(pthread_create(&t, NULL, try_it, &low), 0);
	pthread_join(t, &ret);
	assert_null(ret);
	mutex_unlock(&low);
}

static void note_wait(void *arg, const struct lock_sleeper *w)
{
	struct lock_sleeper *found = arg;

	if (w->lock == found->lock)
		*found = *w;
}

static void *take_mutex(void *arg)
{
	mutex_lock(arg);
	mutex_unlock(arg);
	return NULL;
}

static void *take_writer(void *arg)
{
	rwlock_write_lock(arg);
	rwlock_write_unlock(arg);
	return NULL;
}

/* Until a sleeper for `lock` is shown, or `for_ns` have passed. */
static struct lock_sleeper find_wait(const void *lock, int64_t for_ns)
{
	struct lock_sleeper w = {.lock = lock};
	int64_t end = time_monotonic_ns() + for_ns;

	do {
		lock_waits_report(note_wait, &w);
		sched_yield();
	} while (!w.tid && time_monotonic_ns() < end);
	return w;
}

static void test_waits_are_shown(void **state)
{
	struct lock_sleeper w;
	pthread_t t;

	(void)state;
	mutex_lock(&low);
	assert_int_equal(find_wait(&low, 0).tid, 0);
	assert_int_equal(pthread_create(&t, NULL, take_mutex, &low), 0);
	w = find_wait(&low, 60000000000);
	assert_true(w.tid > 0 && w.tid != getpid() && w.caller && w.for_ns >= 0);
#ifdef MOAT_DEBUG
	assert_string_equal(w.name, "low");
#endif
	mutex_unlock(&low);
	pthread_join(t, NULL);
	assert_int_equal(find_wait(&low, 0).tid, 0);
	rwlock_read_lock(&vma);
	assert_int_equal(pthread_create(&t, NULL, take_writer, &vma), 0);
	assert_true(find_wait(&vma, 60000000000).tid > 0);
	rwlock_read_unlock(&vma);
	pthread_join(t, NULL);
	assert_int_equal(find_wait(&vma, 0).tid, 0);
}

#ifdef MOAT_DEBUG

static void inversion(void *arg)
{
	(void)arg;
	mutex_lock(&high);
	mutex_lock(&low);
}

static void same_rank(void *arg)
{
	(void)arg;
	mutex_lock(&high);
	mutex_lock(&high2);
}

static void twice(void *arg)
{
	(void)arg;
	mutex_lock(&high);
	mutex_lock_nested(&high);
}

static void not_held(void *arg)
{
	(void)arg;
	mutex_unlock(&high);
}

static void sleep_with_lock(void *arg)
{
	(void)arg;
	mutex_lock(&high);
	lock_assert_may_sleep();
}

static void sleep_in_rcu(void *arg)
{
	(void)arg;
	rcu_thread_begin();
	rcu_read_begin();
	lock_assert_may_sleep();
}

static void rw_inversion(void *arg)
{
	(void)arg;
	mutex_lock(&high);
	rwlock_read_lock(&vma);
}

static void rw_read_twice(void *arg)
{
	(void)arg;
	rwlock_read_lock(&vma);
	rwlock_read_lock(&vma);
}

static void assert_held_fails(void *arg)
{
	(void)arg;
	mutex_assert_held(&low);
}

static void test_checker_aborts(void **state)
{
	static void (*const bugs[])(void *) = {
		inversion,    same_rank,    twice,	   not_held,	      sleep_with_lock,
		sleep_in_rcu, rw_inversion, rw_read_twice, assert_held_fails,
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bugs); i++)
		assert_int_equal(check_child_signal(bugs[i], NULL), SIGABRT);
}

/* The report names both locks. */
static void test_checker_names(void **state)
{
	char text[2048] = "";
	int pipes[2], status;
	pid_t pid;
	ssize_t n;

	(void)state;
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (pid == 0) {
		dup2(pipes[1], STDERR_FILENO);
		signal(SIGABRT, SIG_DFL);
		inversion(NULL);
		_exit(0);
	}
	close(pipes[1]);
	n = read(pipes[0], text, sizeof(text) - 1);
	assert_true(n > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(pipes[0]);
	assert_non_null(strstr(text, "out of order: low"));
	assert_non_null(strstr(text, "high (rank 76"));
}

static void test_held_names(void **state)
{
	char names[256];

	(void)state;
	mutex_lock(&low);
	rwlock_read_lock(&vma);
	assert_true(lock_held_names(names, sizeof(names)) > 0);
	assert_non_null(strstr(names, "low"));
	assert_non_null(strstr(names, "vma"));
	rwlock_read_unlock(&vma);
	mutex_unlock(&low);
	assert_int_equal(lock_held_names(names, sizeof(names)), 0);
}

#endif

#define ROUNDS 100000

static struct mutex counter_lock = MUTEX_INIT(LOCK_LEAF, "counter");
static long counter;

static void *count_up(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		mutex_lock(&counter_lock);
		counter++;
		mutex_unlock(&counter_lock);
	}
	return NULL;
}

static void test_mutex_stress(void **state)
{
	pthread_t t[4];

	(void)state;
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, count_up, NULL), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(counter, 4 * ROUNDS);
}

static struct rwlock pair_lock = RWLOCK_INIT(LOCK_LEAF, "pair");
static long pair_a, pair_b;
static _Atomic bool pair_torn;

static void *rw_worker(void *arg)
{
	unsigned int seed = (unsigned int)(uintptr_t)arg;

	for (int i = 0; i < ROUNDS; i++) {
		int what = rand_r(&seed) % 8;

		if (what == 0) {
			rwlock_write_lock(&pair_lock);
			pair_a++;
			pair_b++;
			rwlock_write_unlock(&pair_lock);
		} else if (what == 1) {
			rwlock_write_lock(&pair_lock);
			pair_a++;
			pair_b++;
			rwlock_downgrade(&pair_lock);
			if (pair_a != pair_b)
				pair_torn = true;
			rwlock_read_unlock(&pair_lock);
		} else {
			rwlock_read_lock(&pair_lock);
			if (pair_a != pair_b)
				pair_torn = true;
			rwlock_read_unlock(&pair_lock);
		}
	}
	return NULL;
}

static void test_rwlock_stress(void **state)
{
	pthread_t t[4];

	(void)state;
	for (uintptr_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&t[i], NULL, rw_worker, (void *)(i + 1)), 0);
	for (int i = 0; i < 4; i++)
		pthread_join(t[i], NULL);
	assert_false(pair_torn);
	assert_int_equal(pair_a, pair_b);
	assert_int_equal(atomic_load(&pair_lock.word), 0);
}

static struct rwlock pref_lock = RWLOCK_INIT(LOCK_LEAF, "pref");
static _Atomic bool pref_written, pref_stop;

static void *pref_reader(void *arg)
{
	(void)arg;
	/* Each holds the lock nearly always: a writer without preference would starve. */
	while (!pref_stop) {
		rwlock_read_lock(&pref_lock);
		usleep(200);
		rwlock_read_unlock(&pref_lock);
	}
	return NULL;
}

static void *pref_writer(void *arg)
{
	(void)arg;
	for (int i = 0; i < 50; i++) {
		rwlock_write_lock(&pref_lock);
		rwlock_write_unlock(&pref_lock);
	}
	pref_written = true;
	return NULL;
}

static void test_writer_preference(void **state)
{
	pthread_t readers[3], writer;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, pref_reader, NULL), 0);
	assert_int_equal(pthread_create(&writer, NULL, pref_writer, NULL), 0);
	pthread_join(writer, NULL);
	assert_true(pref_written);
	pref_stop = true;
	for (int i = 0; i < 3; i++)
		pthread_join(readers[i], NULL);
}

static struct rwlock kill_lock = RWLOCK_INIT(LOCK_FS_OP, "kill");

struct killable {
	struct sleeper sleeper;
	pthread_t thread;
	bool write;
	int err;
	_Atomic bool done;
};

static void *killable_thread(void *arg)
{
	struct killable *k = arg;

	sleeper_set_current(&k->sleeper);
	k->err = k->write ? rwlock_write_lock_killable(&kill_lock)
			  : rwlock_read_lock_killable(&kill_lock);
	if (!k->err && k->write)
		rwlock_write_unlock(&kill_lock);
	else if (!k->err)
		rwlock_read_unlock(&kill_lock);
	atomic_store(&k->done, true);
	sleeper_set_current(NULL);
	return NULL;
}

static void killable_start(struct killable *k, bool write)
{
	*k = (struct killable){.write = write};
	sleeper_init(&k->sleeper);
	assert_int_equal(pthread_create(&k->thread, NULL, killable_thread, k), 0);
}

/* The first that waits for reading, and for writing, says so in the word. If none does ctest ends the test. */
static void killable_until_not(uint32_t word)
{
	while (atomic_load(&kill_lock.word) == word)
		usleep(1000);
}

/* Who was killed leaves, a signal alone is no reason, and who stood behind a writer that left goes on. */
static void test_rwlock_killable(void **state)
{
	struct killable writer, other, reader;
	uint32_t word;

	(void)state;
	rwlock_read_lock(&kill_lock);
	word = atomic_load(&kill_lock.word);
	killable_start(&writer, true);
	killable_until_not(word);
	killable_start(&other, true);
	word = atomic_load(&kill_lock.word);
	killable_start(&reader, false);
	killable_until_not(word);
	sleeper_interrupt(&writer.sleeper, false);
	usleep(600000);
	assert_false(atomic_load(&writer.done));
	assert_false(atomic_load(&reader.done));
	sleeper_interrupt(&writer.sleeper, true);
	pthread_join(writer.thread, NULL);
	assert_int_equal(writer.err, -EINTR);
	sleeper_interrupt(&other.sleeper, true);
	pthread_join(other.thread, NULL);
	assert_int_equal(other.err, -EINTR);
	/* While the lock is held still. */
	pthread_join(reader.thread, NULL);
	assert_int_equal(reader.err, 0);
	rwlock_read_unlock(&kill_lock);
	assert_int_equal(atomic_load(&kill_lock.word), 0);

	rwlock_write_lock(&kill_lock);
	word = atomic_load(&kill_lock.word);
	killable_start(&reader, false);
	killable_until_not(word);
	killable_start(&other, false);
	word = atomic_load(&kill_lock.word);
	killable_start(&writer, true);
	killable_until_not(word);
	sleeper_interrupt(&reader.sleeper, true);
	pthread_join(reader.thread, NULL);
	assert_int_equal(reader.err, -EINTR);
	rwlock_write_unlock(&kill_lock);
	pthread_join(other.thread, NULL);
	pthread_join(writer.thread, NULL);
	assert_int_equal(other.err, 0);
	assert_int_equal(writer.err, 0);
	assert_int_equal(atomic_load(&kill_lock.word), 0);
}

static void *leaving_thread(void *arg)
{
	struct sleeper sleeper;
	unsigned seed = (unsigned)(uintptr_t)arg;

	sleeper_init(&sleeper);
	sleeper_set_current(&sleeper);
	/* Every other thread is dead from the start. */
	if (seed & 1)
		sleeper_interrupt(&sleeper, true);
	for (int i = 0; i < 12; i++) {
		bool write = rand_r(&seed) % 2;

		if (write ? rwlock_write_lock_killable(&kill_lock)
			  : rwlock_read_lock_killable(&kill_lock))
			continue;
		/* Around a tick. */
		usleep(rand_r(&seed) % 4 ? 100 : 240000 + (unsigned)(rand_r(&seed) % 20000));
		if (write)
			rwlock_write_unlock(&kill_lock);
		else
			rwlock_read_unlock(&kill_lock);
	}
	sleeper_set_current(NULL);
	return NULL;
}

/* Those who leave take nobody's wake-up along: it ends. */
static void test_rwlock_killable_many(void **state)
{
	pthread_t t[8];

	(void)state;
	for (uintptr_t i = 0; i < 8; i++)
		assert_int_equal(pthread_create(&t[i], NULL, leaving_thread, (void *)i), 0);
	for (int i = 0; i < 8; i++)
		pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&kill_lock.word), 0);
}

static void test_rwlock_basic(void **state)
{
	(void)state;
	rwlock_write_lock(&vma);
	rwlock_write_lock_nested(&vma2);
	rwlock_write_unlock(&vma2);
	rwlock_downgrade(&vma);
	rwlock_read_unlock(&vma);
	assert_int_equal(atomic_load(&vma.word), 0);
}

static struct seqcount seq;
static _Atomic long seq_a, seq_b;

static void *seq_writer(void *arg)
{
	(void)arg;
	for (long i = 1; i <= ROUNDS; i++) {
		seqcount_write_begin(&seq);
		atomic_store_explicit(&seq_a, i, memory_order_relaxed);
		atomic_store_explicit(&seq_b, i, memory_order_relaxed);
		seqcount_write_end(&seq);
	}
	return NULL;
}

static void test_seqcount(void **state)
{
	long a = 0, b;
	pthread_t t;

	(void)state;
	assert_int_equal(pthread_create(&t, NULL, seq_writer, NULL), 0);
	while (a < ROUNDS) {
		uint32_t start = seqcount_read_begin(&seq);

		a = atomic_load_explicit(&seq_a, memory_order_acquire);
		b = atomic_load_explicit(&seq_b, memory_order_acquire);
		if (!seqcount_read_retry(&seq, start))
			assert_int_equal(a, b);
	}
	pthread_join(t, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_mutex),		cmocka_unit_test(test_trylock_fails),
		cmocka_unit_test(test_waits_are_shown),
#ifdef MOAT_DEBUG
		cmocka_unit_test(test_checker_aborts),	cmocka_unit_test(test_checker_names),
		cmocka_unit_test(test_held_names),
#endif
		cmocka_unit_test(test_rwlock_killable), cmocka_unit_test(test_rwlock_killable_many),
		cmocka_unit_test(test_rwlock_basic),	cmocka_unit_test(test_mutex_stress),
		cmocka_unit_test(test_rwlock_stress),	cmocka_unit_test(test_writer_preference),
		cmocka_unit_test(test_seqcount),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
