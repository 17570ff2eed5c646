// LINK: moat_wire
/* MOAT_WALK's wire form: paths into names, and which replies are believed. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "wire/fuse.h"

/* Joins what it is taken apart into: "a,b,c", with an errno in the end if there is one. */
static const char *names_of(const char *path)
{
	static char out[1024];
	size_t left = strlen(path), len, at = 0;
	const char *name;
	int got;

	out[0] = '\0';
	while ((got = fuse_walk_next(&path, &left, &name, &len)) == 1)
		at += (size_t)snprintf(out + at, sizeof(out) - at, "%.*s,", (int)len, name);
	if (got)
		snprintf(out + at, sizeof(out) - at, "%s", strerrorname_np(-got));
	return out;
}

static void test_names(void **state)
{
	char longest[FUSE_NAME_BYTES_MAX + 4] = "a/";

	(void)state;
	assert_string_equal(names_of(""), "");
	assert_string_equal(names_of("a"), "a,");
	assert_string_equal(names_of("a/bc/d"), "a,bc,d,");
	assert_string_equal(names_of("..a/.b/..."), "..a,.b,...,");
	assert_string_equal(names_of("/a"), "EINVAL");
	assert_string_equal(names_of("a/"), "EINVAL");
	assert_string_equal(names_of("a//b"), "a,EINVAL");
	assert_string_equal(names_of("."), "EINVAL");
	assert_string_equal(names_of("a/.."), "a,EINVAL");
	assert_string_equal(names_of("a/../b"), "a,EINVAL");
	memset(longest + 2, 'x', FUSE_NAME_BYTES_MAX + 1);
	assert_string_equal(names_of(longest), "a,ENAMETOOLONG");
	longest[2 + FUSE_NAME_BYTES_MAX] = '\0';
	assert_non_null(strstr(names_of(longest), "xxx,"));
}

/* Directories, the last a file; of `asked` names. */
static struct fuse_walk_reply reply_of(unsigned count)
{
	struct fuse_walk_reply r = {.out.count = count};

	for (unsigned i = 0; i < count; i++) {
		r.entries[i].nodeid = 10 + i;
		r.entries[i].attr.mode = (i + 1 == count ? S_IFREG : S_IFDIR) | 0755;
	}
	return r;
}

static size_t size_of(unsigned count)
{
	return sizeof(struct fuse_walk_out) + count * sizeof(struct fuse_entry_out);
}

static void test_replies(void **state)
{
	const uint32_t both = FUSE_WALK_OPEN | FUSE_WALK_CREATE;
	struct fuse_walk_reply r = reply_of(3);

	(void)state;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 3, 0), 0);
	/* It ended at the file: the names behind it were not looked at. */
	assert_int_equal(fuse_walk_check(&r, size_of(3), 5, 0), 0);
	assert_int_equal(fuse_walk_check(&r, size_of(3), 2, 0), -EIO);
	r = reply_of(0);
	assert_int_equal(fuse_walk_check(&r, size_of(0), 2, 0), -EIO);
	r.out.error = -ENOENT;
	assert_int_equal(fuse_walk_check(&r, size_of(0), 2, 0), 0);
	/* Opened and made: only what was asked for. */
	r = reply_of(2);
	r.out.flags = FUSE_WALK_OPENED;
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, FUSE_WALK_OPEN), 0);
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, FUSE_WALK_CREATE), -EIO);
	assert_int_equal(fuse_walk_check(&r, size_of(2), 3, both), -EIO);
	r.out.flags = FUSE_WALK_OPENED | FUSE_WALK_CREATED;
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, FUSE_WALK_CREATE), 0);
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, FUSE_WALK_OPEN), -EIO);
	r.out.flags = FUSE_WALK_CREATED;
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, both), -EIO);
	r = reply_of(2);
	r.out.flags = FUSE_WALK_OPENED;
	r.entries[1].attr.mode = S_IFDIR | 0755;
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, both), -EIO);
	r.out.flags = 4;
	assert_int_equal(fuse_walk_check(&r, size_of(2), 2, both), -EIO);
}

static void test_nonsense(void **state)
{
	struct fuse_walk_reply r;

	(void)state;
	/* Lengths and counts that disagree; what came whole is told, to be forgotten. */
	r = reply_of(3);
	assert_int_equal(fuse_walk_check(&r, size_of(3) - 1, 3, 0), -EIO);
	assert_int_equal(r.out.count, 2);
	r = reply_of(3);
	r.out.count = 4;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 4, 0), -EIO);
	assert_int_equal(r.out.count, 3);
	r = reply_of(3);
	r.out.count = 2;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 4, 0), -EIO);
	assert_int_equal(r.out.count, 3);
	r = reply_of(1);
	assert_int_equal(fuse_walk_check(&r, sizeof(r.out) - 1, 1, 0), -EIO);
	assert_int_equal(r.out.count, 0);
	/* Nodes that are none; a file with something below it. */
	r = reply_of(3);
	r.entries[1].nodeid = 0;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 3, 0), -EIO);
	r.entries[1].nodeid = FUSE_ROOT;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 3, 0), -EIO);
	/* But a directory may be bound below itself. */
	r.entries[1].nodeid = r.entries[0].nodeid;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 3, 0), 0);
	r = reply_of(3);
	r.entries[1].attr.mode = S_IFLNK | 0777;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 3, 0), -EIO);
	r.entries[1].attr.mode = 0755;
	assert_int_equal(fuse_walk_check(&r, size_of(3), 3, 0), -EIO);
	/* Errors that are none of Linux's, of no name, or behind what is no directory. */
	for (int i = 0; i < 4; i++) {
		static const int32_t errors[] = {2, -512, -ENOENT, -ENOENT};

		r = reply_of(2);
		r.entries[1].attr.mode = i == 3 ? S_IFREG : S_IFDIR;
		r.out.error = errors[i];
		assert_int_equal(fuse_walk_check(&r, size_of(2), i == 2 ? 2 : 3, 0), -EIO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_replies),
		cmocka_unit_test(test_nonsense),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
