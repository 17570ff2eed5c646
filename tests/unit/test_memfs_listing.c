// LINK: moat_memfs moat_vfs moat_mem
/*
 * memfs: listings while the directory changes. A name that stays in the directory is met exactly once, whatever batches the listing is read in and
 * whatever files bear it one after the other;
 * what comes during it is not met; no position is given twice.
 */
#include "tests/unit/check.h"

#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/memfs_env.h"

#define STAY 300
#define CONFIGS 2 /* names that are there all the time, each time another file's */
#define MOVING 40
#define LISTERS 2
#define CHANGERS 2
#define LISTINGS 600

/* cmocka's assertions are for the thread that runs the test. */
#define must(condition)                                                                 \
	do {                                                                            \
		if (!(condition)) {                                                     \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
			abort();                                                        \
		}                                                                       \
	} while (0)

static atomic_bool stop;

static void create(const char *path)
{
	struct vfs_lookup lk = at(path);

	must(!vfs_mknod(&lk, &(struct mknod_args){.mode = S_IFREG | 0644}));
}

static void move(const char *from, const char *to)
{
	struct vfs_lookup a = at(from), b = at(to);

	must(!vfs_rename(&a, &b, &(struct rename_args){0}));
}

/* Each name's file is replaced by a newer one, then the two exchange their names. */
static void replace(int id)
{
	struct rename_args exchange = {.flags = RENAME_EXCHANGE};
	char fresh[64], config[64];
	struct vfs_lookup a = at(fresh), b = at("/dir/config0"), c = at("/dir/config1");

	snprintf(fresh, sizeof(fresh), "/dir/fresh%d", id);
	snprintf(config, sizeof(config), "/dir/config%d", id % CONFIGS);
	create(fresh);
	move(fresh, config);
	create(fresh);
	must(!vfs_unlink(&a));
	must(!vfs_rename(&b, &c, &exchange));
}

/* Makes, renames here, moves away, moves back and removes names of its own, the newest of them between those that stay. */
static void *changer(void *arg)
{
	int id = *(const int *)arg;
	char here[64], renamed[64], away[64];

	rcu_thread_begin();
	cred_set_current(cred);
	for (int i = 0; !atomic_load(&stop); i = (i + 1) % MOVING) {
		struct vfs_lookup lk = at(here);

		snprintf(here, sizeof(here), "/dir/move%d.%d", id, i);
		snprintf(renamed, sizeof(renamed), "/dir/renamed%d.%d", id, i);
		snprintf(away, sizeof(away), "/away/move%d.%d", id, i);
		move(here, renamed);
		move(renamed, away);
		move(away, here);
		must(!vfs_unlink(&lk));
		create(here);
		replace(id);
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

struct lister {
	struct dir_emit ctx;
	int room;
	int64_t last; /* positions go down: newest first */
	unsigned char seen[STAY], configs[CONFIGS];
};

static bool take(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino unused_arg,
		 unsigned type unused_arg, int64_t next)
{
	struct lister *l = container_of(ctx, struct lister, ctx);
	int n;

	if (!l->room)
		return false;
	l->room--;
	if (name[0] == '.')
		return true;
	must(strnlen(name, len + 1) == len);
	must(next > 2 && next < l->last);
	l->last = next;
	if (sscanf(name, "stay%d", &n) == 1)
		l->seen[n]++;
	if (sscanf(name, "config%d", &n) == 1)
		l->configs[n]++;
	return true;
}

static void list_once(int batch)
{
	struct lister l = {.ctx.emit = take, .last = INT64_MAX};
	struct vfs_lookup lk = at("/dir");
	struct file *f;

	must(!vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_DIRECTORY}, &f));
	do {
		l.room = batch;
		must(!file_iterate(f, &l.ctx));
	} while (!l.room);
	file_unref(f);
	for (int i = 0; i < STAY; i++)
		must(l.seen[i] == 1);
	for (int i = 0; i < CONFIGS; i++)
		must(l.configs[i] == 1);
}

static void *lister(void *arg unused_arg)
{
	rcu_thread_begin();
	cred_set_current(cred);
	for (int i = 0; i < LISTINGS; i++)
		list_once(i % 3 ? 1 + i % 50 : 100000);
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void test_changes(void **state unused_arg)
{
	pthread_t readers[LISTERS], writers[CHANGERS];
	int ids[CHANGERS];
	char path[64];

	for (int i = 0; i < STAY; i++) {
		snprintf(path, sizeof(path), "/dir/stay%d", i);
		create(path);
		snprintf(path, sizeof(path), "/dir/config%d", i / (STAY / CONFIGS));
		if (i % (STAY / CONFIGS) == STAY / CONFIGS / 2)
			create(path);
		for (int id = 0; id < CHANGERS && i % (STAY / MOVING) == 0; id++) {
			snprintf(path, sizeof(path), "/dir/move%d.%d", id, i / (STAY / MOVING));
			if (i / (STAY / MOVING) < MOVING)
				create(path);
		}
	}
	for (int i = 0; i < CHANGERS; i++) {
		ids[i] = i;
		assert_int_equal(pthread_create(&writers[i], NULL, changer, &ids[i]), 0);
	}
	for (int i = 0; i < LISTERS; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, lister, NULL), 0);
	for (int i = 0; i < LISTERS; i++)
		pthread_join(readers[i], NULL);
	atomic_store(&stop, true);
	for (int i = 0; i < CHANGERS; i++)
		pthread_join(writers[i], NULL);
	list_once(7);
}

/* Where a listing stands may be removed, alone or with all that is older. */
static void test_position_removed(void **state unused_arg)
{
	struct lister l = {.ctx.emit = take, .last = INT64_MAX, .room = 4};
	struct vfs_lookup lk = at("/few"), gone;
	struct file *f;

	assert_int_equal(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), 0);
	create("/few/stay0");
	create("/few/stay1");
	create("/few/stay2");
	create("/few/stay3");
	assert_int_equal(vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_DIRECTORY}, &f),
			 0);
	assert_int_equal(file_iterate(f, &l.ctx), 0);
	assert_true(l.seen[3] && l.seen[2] && !l.seen[1]);
	gone = at("/few/stay2");
	assert_int_equal(vfs_unlink(&gone), 0);
	gone = at("/few/stay1");
	assert_int_equal(vfs_unlink(&gone), 0);
	create("/few/stay4");
	l.room = 1;
	assert_int_equal(file_iterate(f, &l.ctx), 0);
	assert_true(l.seen[0] == 1 && !l.seen[1] && !l.seen[4]);
	gone = at("/few/stay0");
	assert_int_equal(vfs_unlink(&gone), 0);
	l.room = 1;
	assert_int_equal(file_iterate(f, &l.ctx), 0);
	assert_int_equal(l.room, 1);
	file_unref(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_changes),
		cmocka_unit_test(test_position_removed),
	};
	struct vfs_lookup lk;

	if (memfs_env_init())
		return 1;
	lk = at("/dir");
	must(!vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}));
	lk = at("/away");
	must(!vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
