// LINK: moat_wire moat_base
/* The boot spec and control messages survive the trip; damaged ones are refused. */
#include "check.h"

#include <stdlib.h>
#include <string.h>

#include "wire/boot_spec.h"
#include "wire/control.h"

static char **strv(const char *a, const char *b)
{
	char **v = calloc(3, sizeof(*v));

	v[0] = strdup(a);
	v[1] = strdup(b);
	return v;
}

static void fill(struct boot_spec *s)
{
	boot_spec_init(s);
	s->id = strdup("id");
	s->argv = strv("caf\xc3\xa9", "\xff\x80\x01");
	s->envp = strv("A=1", "B=");
	s->cwd = strdup("/");
	s->platform = strdup("kvm");
	s->uid = UINT32_MAX - 1;
	s->cap_bounding = UINT64_MAX;
	s->rlimits[3] = (struct boot_rlimit){true, 5, UINT64_MAX};
	s->mounts = calloc(1, sizeof(*s->mounts));
	s->nmounts = 1;
	s->mounts[0] = (struct boot_mount){
		strdup("/p"), strdup("proc"), NULL, strdup("a=b"), 1ull << 40, 2, -1, true};
	s->groups = calloc(1, sizeof(*s->groups));
	s->groups[0] = 77;
	s->ngroups = 1;
	s->stdio[2] = 9;
}

static void test_round_trip(void **state)
{
	struct boot_spec in, out;
	char why[128];
	struct buf b;

	(void)state;
	fill(&in);
	buf_init(&b, BOOT_SIZE_MAX);
	boot_spec_encode(&in, &b);
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(boot_spec_decode(b.data, b.len, &out, why, sizeof(why)), 0);
	assert_string_equal(out.argv[0], in.argv[0]);
	assert_string_equal(out.argv[1], in.argv[1]);
	assert_null(out.argv[2]);
	assert_int_equal(out.uid, in.uid);
	assert_true(out.cap_bounding == UINT64_MAX);
	assert_true(out.rlimits[3].set && out.rlimits[3].max == UINT64_MAX && !out.rlimits[4].set);
	assert_string_equal(out.mounts[0].data, "a=b");
	assert_null(out.mounts[0].source);
	assert_true(out.mounts[0].flags == 1ull << 40 && out.mounts[0].attach == -1 &&
		    out.mounts[0].is_file);
	assert_int_equal(out.groups[0], 77);
	assert_int_equal(out.stdio[2], 9);
	boot_spec_fini(&out);
	/* Every truncation is refused, none crashes. */
	for (size_t n = 0; n < b.len; n++)
		assert_true(boot_spec_decode(b.data, n, &out, why, sizeof(why)) < 0);
	buf_fini(&b);
	boot_spec_fini(&in);
}

static void test_control(void **state)
{
	struct control_msg in = {.op = CONTROL_SIGNAL,
				 .signo = 15,
				 .all = true,
				 .text = (char *)"a\"b\n"},
			   out;
	struct buf b;

	(void)state;
	buf_init(&b, CONTROL_MSG_MAX);
	control_encode(&in, &b);
	assert_int_equal(control_decode(b.data, b.len, &out), 0);
	assert_int_equal(out.op, CONTROL_SIGNAL);
	assert_int_equal(out.signo, 15);
	assert_true(out.all);
	assert_string_equal(out.text, in.text);
	control_msg_fini(&out);
	for (size_t n = 0; n < b.len; n++)
		assert_int_equal(control_decode(b.data, n, &out), -EINVAL);
	assert_int_equal(control_decode("{\"v\":1,\"op\":\"fly\"}", 18, &out), -EINVAL);
	assert_int_equal(control_decode("{\"op\":\"signal\"}", 15, &out), -EINVAL);
	buf_fini(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_control),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
