// LINK: moat_wire moat_base
/* Home directories in passwd(5). */
#include "check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "wire/passwd.h"

/* NULL: no such user. */
static void check_home(const char *text, uint32_t uid, const char *want)
{
	char *home = NULL;
	int err = passwd_home(text, strlen(text), uid, &home);

	assert_int_equal(err, want ? 0 : -ENOENT);
	if (want)
		assert_string_equal(home, want);
	free(home);
}

static void test_passwd_home(unused_arg void **state)
{
	static const char text[] = "root:x:0:0:root:/root:/bin/sh\n"
				   "\n"
				   "# a remark\n"
				   "nobody:x:65534:65534::/nonexistent:/bin/false\r\n"
				   "joe:x:1000:5:Joe,,:/home/joe\n"
				   "again:x:1000:5::/other:/bin/sh\n"
				   "short:x:7\n"
				   "bad:x:8x:8::/bad:\n"
				   "none:x::9::/none:\n"
				   "last:x:4294967295:1::/l a s t  ";

	check_home(text, 0, "/root");
	check_home(text, 65534, "/nonexistent");
	check_home(text, 1000, "/home/joe");
	check_home(text, 7, "");
	check_home(text, 8, NULL);
	check_home(text, 9, NULL);
	check_home(text, UINT32_MAX, "/l a s t");
	check_home("", 0, NULL);
	check_home("a:b:18446744073709551616:::/x", 0, NULL);
}

static void test_passwd_ends(unused_arg void **state)
{
	static const char nul[] = "a:x:1:1::/a:\0b:x:2:2::/b:\n";
	char *home = NULL;

	assert_int_equal(passwd_home(nul, sizeof(nul) - 1, 2, &home), -ENOENT);
	/* No further than told. */
	assert_int_equal(passwd_home("a:x:12", 5, 1, &home), 0);
	assert_string_equal(home, "");
	free(home);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_passwd_home),
		cmocka_unit_test(test_passwd_ends),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
