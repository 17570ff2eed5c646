/*
 * fs_virtiofs_live [SECONDS [SEED]] - a daemon that scribbles over what it shares with the client, at any time: used and available rings, descriptors, indirect
 * tables, requests and replies, while the client's threads make every kind of call. Each call ends within a second, with a result or an errno of Linux's; nothing
 * crashes; the sanitizers see to it that nothing outside of the shared memory is touched.
 *
 * A round is one connection and one kind of damage. It ends when the client has given the daemon up, or after ROUND_MS. The daemon itself answers whatever it can
 * make out, and ends the connection where it can make out nothing.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/hostpoll.h"
#include "base/log.h"
#include "tests/fs/virtiofs_guest.h"

#define GUESTS 3
#define ROUND_MS 150
#define PAUSE_US_MAX 300 /* between two strokes */

enum kind { USED_INDEX, USED_ENTRIES, AVAIL, DESCRIPTORS, SLOTS, REPLIES, EVERYTHING, KINDS };

static struct {
	enum kind kind;
	uint64_t random;
	_Atomic bool stop;
	_Atomic unsigned strokes;
	_Atomic unsigned good, refused; /* files opened, or not */
} scribble;

/* xorshift64 */
static uint64_t dice(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* A number as hostile as can be, now and then one that is nearly right. */
static uint32_t hostile(uint32_t near)
{
	static const uint32_t values[] = {0, 1, 127, 128, 0x7fff, 0xffff, 0x7fffffff, UINT32_MAX};
	uint64_t r = dice(&scribble.random);

	switch (r % 3) {
	case 0:
		return near + (uint32_t)(r >> 32) % 5 - 2;
	case 1:
		return values[(r >> 32) % ARRAY_SIZE(values)];
	default:
		return (uint32_t)(r >> 32);
	}
}

static void put16(uint8_t *at, uint32_t v)
{
	__atomic_store_n((uint16_t *)(void *)at, (uint16_t)v, __ATOMIC_RELAXED);
}

static void put32(uint8_t *at, uint32_t v)
{
	__atomic_store_n((uint32_t *)(void *)at, v, __ATOMIC_RELAXED);
}

static uint16_t get16(const uint8_t *at)
{
	return __atomic_load_n((const uint16_t *)(const void *)at, __ATOMIC_RELAXED);
}

/* Where a descriptor leads: a slot's table or, where that is told, the buffer that the table's entry names. NULL: nowhere. */
static uint8_t *follow_desc(uint8_t *memory, const uint8_t *desc, bool further)
{
	struct vring_desc d;

	for (unsigned i = 0; i <= further; i++) {
		uint64_t off;

		memcpy(&d, desc, sizeof(d));
		off = d.addr - fake.region.addr;
		if (off >= fake.region.size - 65536)
			return NULL;
		desc = memory + off;
		if (!i && further)
			desc += dice(&scribble.random) % 3 * sizeof(d);
	}
	return (uint8_t *)(uintptr_t)desc;
}

static void stroke(uint8_t *memory, unsigned ring, enum kind kind)
{
	unsigned num = fake.nums[ring];
	uint64_t at = dice(&scribble.random) % num;
	uint8_t *desc = memory + (fake.addrs[ring].desc - fake.user_base);
	uint8_t *avail = memory + (fake.addrs[ring].avail - fake.user_base);
	uint8_t *used = memory + (fake.addrs[ring].used - fake.user_base), *p;

	switch (kind) {
	case USED_INDEX:
		put16(used + 2, hostile(get16(used + 2)));
		put16(used, hostile(0)); /* the flags, and the event index */
		put16(used + 4 + 8 * num, hostile(get16(avail + 2)));
		break;
	case USED_ENTRIES:
		put32(used + 4 + 8 * at, hostile((uint32_t)at));
		put32(used + 8 + 8 * at, hostile(16));
		break;
	case AVAIL:
		put16(avail + 4 + 2 * at, hostile((uint32_t)at));
		if (at < 4)
			put16(avail + 2, hostile(get16(avail + 2)));
		put16(avail + 4 + 2 * num, hostile(get16(used + 2)));
		break;
	case DESCRIPTORS:
		put32(desc + 16 * (at % 8) + 4 * (at / 8 % 4), hostile(16));
		break;
	case SLOTS:
	case REPLIES:
		p = follow_desc(memory, desc + 16 * (at % 8), kind == REPLIES);
		if (p)
			put32(p + 4 * (dice(&scribble.random) % 32), hostile(16));
		break;
	default:
		stroke(memory, ring, (enum kind)(dice(&scribble.random) % EVERYTHING));
	}
}

static void *scribble_main(void *arg)
{
	(void)arg;
	while (!atomic_load(&scribble.stop)) {
		uint8_t *memory = atomic_load(&fake.scribbled);

		/* The memory is known before the rings are. */
		if (memory && atomic_load(&fake.serving)) {
			stroke(memory, dice(&scribble.random) % QUEUES, scribble.kind);
			atomic_fetch_add(&scribble.strokes, 1);
		}
		usleep((unsigned)(dice(&scribble.random) % PAUSE_US_MAX));
	}
	return NULL;
}

struct guest_thread {
	pthread_t thread;
	struct fs_env *e;
	double until;
};

static void *guest_main(void *arg)
{
	struct guest_thread *g = arg;
	struct file *f;

	rcu_thread_begin();
	cred_set_current(g->e->cred);
	do {
		f = NULL;
		CALL(fs_open(g->e, "/f", O_RDWR, 0, &f));
		atomic_fetch_add(f ? &scribble.good : &scribble.refused, 1);
		if (f)
			CALL(fs_close(f));
		guest(g->e);
	} while (now() < g->until && f);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* Return: was there a file system? */
static bool round_of(enum kind kind)
{
	struct guest_thread guests[GUESTS];
	pthread_t scribbler;
	struct fs_env e;
	int err;

	memset(&fake, 0, sizeof(fake));
	fake.live = true;
	scribble.kind = kind;
	atomic_store(&scribble.stop, false);
	if (pthread_create(&scribbler, NULL, scribble_main, NULL))
		abort();
	err = fs_env_init(&e);
	if (err) {
		if (err <= -512)
			abort();
		cred_set_current(NULL);
		cred_unref(e.cred);
	}
	for (unsigned i = 0; i < GUESTS && !err; i++) {
		guests[i] = (struct guest_thread){.e = &e, .until = now() + ROUND_MS / 1e3};
		if (pthread_create(&guests[i].thread, NULL, guest_main, &guests[i]))
			abort();
	}
	for (unsigned i = 0; i < GUESTS && !err; i++)
		pthread_join(guests[i].thread, NULL);
	if (!err) {
		double began = now();

		fs_env_fini(&e);
		judge("umount", 0, now() - began);
	}
	pthread_join(fake.thread, NULL);
	atomic_store(&scribble.stop, true);
	pthread_join(scribbler, NULL);
	if (fake.scribbled)
		munmap(fake.scribbled, fake.region.size);
	return !err;
}

int main(int argc, char **argv)
{
	double seconds = argc > 1 ? strtod(argv[1], NULL) : 3, end;
	uint64_t seed = argc > 2 ? strtoull(argv[2], NULL, 0) : 1;
	unsigned rounds = 0, mounted = 0;

	signal(SIGPIPE, SIG_IGN);
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (hostpoll_start() || fs_env_process_init())
		return 1;
	virtiofs_register();
	cred_set_current(NULL);
	scribble.random = seed * 0x9e3779b97f4a7c15ull | 1;
	alarm((unsigned)seconds + 100);
	/* A slow machine takes longer until each has happened; alarm() ends it. */
	for (end = now() + seconds;
	     rounds < KINDS || now() < end || !mounted || !scribble.good || !scribble.refused;
	     rounds++)
		mounted += round_of((enum kind)(rounds % KINDS));
	printf("seed %llu: %u rounds, %u mounted, %u strokes, %u files opened, %u refused; the "
	       "longest call took %.3f s\n",
	       (unsigned long long)seed, rounds, mounted, scribble.strokes, scribble.good,
	       scribble.refused, (double)atomic_load(&call_us_seen) / 1e6);
	/* Neither all nor nothing went wrong. */
	return !(mounted && scribble.good && scribble.refused && scribble.strokes > rounds);
}
