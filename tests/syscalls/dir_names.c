/* Names that cannot be made (procfs, devpts), and what an open directory lists of changes. */
#include "t.h"

static void create_refused(const char *dir, int any, int regular)
{
	char path[256], first[512];
	struct dirent *e;
	DIR *d = opendir(dir);

	CHECK(d != NULL);
	do
		e = readdir(d);
	while (e && e->d_name[0] == '.');
	CHECK(e != NULL);
	snprintf(path, sizeof(path), "%s/no-such-name", dir);
	snprintf(first, sizeof(first), "%s/%s", dir, e->d_name);
	closedir(d);
	CHECK_ERR(mkdir(path, 0755), any);
	CHECK_ERR(symlink("x", path), any);
	CHECK_ERR(mknod(path, S_IFIFO | 0644, 0), any);
	CHECK_ERR(mknod(path, S_IFREG | 0644, 0), regular);
	CHECK_ERR(open(path, O_CREAT | O_WRONLY, 0644), regular);
	CHECK_ERR(open(path, O_CREAT | O_EXCL | O_WRONLY, 0644), regular);
	CHECK_ERR(link(first, path), any);
	CHECK_ERR(rename(first, path), any);
	CHECK_ERR(unlink(path), ENOENT);
	CHECK_ERR(rmdir(path), ENOENT);
}

TEST(procfs_creates_nothing)
{
	create_refused("/proc", ENOENT, ENOENT);
	create_refused("/proc/self", ENOENT, ENOENT);
	create_refused("/proc/sys/kernel", ENOENT, ENOENT);
	create_refused("/proc/self/fd", ENOENT, ENOENT);
	create_refused("/proc/self/ns", ENOENT, ENOENT);
}

static int entries(DIR *d, char *names, size_t size)
{
	struct dirent *e;
	int n = 0;

	names[0] = '\0';
	while ((e = readdir(d))) {
		if (e->d_name[0] == '.')
			continue;
		n++;
		if (strlen(names) + 2 < size)
			strcat(strcat(names, e->d_name), " ");
	}
	return n;
}

TEST(created_after_opendir)
{
	char names[256];
	DIR *d = opendir(".");

	CHECK(d != NULL);
	CHECK_OK(mkdir("a", 0755));
	CHECK_OK(mkdir("b", 0755));
	CHECK_EQ(entries(d, names, sizeof(names)), 2);
	CHECK_OK(mkdir("c", 0755));
	rewinddir(d);
	CHECK_EQ(entries(d, names, sizeof(names)), 3);
	closedir(d);
}

/* Each name is renamed as soon as it is read: the reading ends. */
TEST(rename_while_reading)
{
	char from[64], to[64];
	struct dirent *e;
	int seen = 0;
	DIR *d;

	for (int i = 0; i < 300; i++) {
		snprintf(from, sizeof(from), "f%d", i);
		CHECK_OK(mknod(from, S_IFREG | 0644, 0));
	}
	d = opendir(".");
	CHECK(d != NULL);
	while ((e = readdir(d)) && seen < 10000) {
		if (e->d_name[0] == '.')
			continue;
		seen++;
		snprintf(to, sizeof(to), "r%.40s", e->d_name);
		CHECK_OK(rename(e->d_name, to));
	}
	CHECK(seen >= 300 && seen < 10000);
	closedir(d);
}

/* Positions stay good while others come and go. */
TEST(seekdir_after_changes)
{
	char name[64], rest[4096], again[4096];
	DIR *d;
	long pos;

	for (int i = 0; i < 20; i++) {
		snprintf(name, sizeof(name), "f%d", i);
		CHECK_OK(mknod(name, S_IFREG | 0644, 0));
	}
	d = opendir(".");
	CHECK(d != NULL);
	for (int i = 0; i < 8; i++)
		CHECK(readdir(d) != NULL);
	pos = telldir(d);
	(void)entries(d, rest, sizeof(rest));
	seekdir(d, pos);
	(void)entries(d, again, sizeof(again));
	CHECK(strcmp(rest, again) == 0);
	closedir(d);
}
