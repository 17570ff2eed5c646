// LINK: moat_oci moat_wire moat_base
/* Annotations and limits as properties of a systemd unit: numbers fit their types. */
#include "check.h"

#include <jansson.h>

#include "runtime/cgroup.h"
#include "runtime/systemd_props.h"

struct sd_api sd;

static char got_type;
static uint64_t got;
static char got_names[200]; /* of the elements, each with a space behind it */

/* Keeps the last value; "sv" is an element of its own, "v" one of an annotation. */
static int append(sd_bus_message *m, const char *types, ...)
{
	va_list ap;

	(void)m;
	va_start(ap, types);
	if (strcmp(types, "(sv)") == 0)
		snprintf(got_names + strlen(got_names), sizeof(got_names) - strlen(got_names),
			 "%s ", va_arg(ap, const char *));
	if (strchr(types, 'v')) {
		got_type = *va_arg(ap, const char *);
		got = got_type == 't' || got_type == 'x' ? va_arg(ap, uint64_t)
							 : va_arg(ap, uint32_t);
	}
	va_end(ap);
	return 0;
}

static int open_container(sd_bus_message *m, char type, const char *contents)
{
	(void)m;
	(void)type;
	(void)contents;
	return 0;
}

static int close_container(sd_bus_message *m)
{
	(void)m;
	return 0;
}

static int annotate(const char *name, const char *value)
{
	char key[80], why[CGROUP_ERROR_MAX] = "";
	json_t *j;
	int err;

	snprintf(key, sizeof(key), "org.systemd.property.%s", name);
	j = json_pack("{ss}", key, value);
	got_type = 0;
	err = systemd_append_annotations(NULL, j, why);
	json_decref(j);
	assert_int_equal(err < 0, why[0] != '\0');
	return err;
}

static void test_numbers(void **state)
{
	static const struct {
		const char *value;
		char type; /* 0: refused */
		uint64_t v;
	} cases[] = {
		{"5", 'i', 5},
		{"-1", 'i', UINT32_MAX},
		{"2147483648", 0, 0},
		{"byte 255", 'y', 255},
		{"byte 300", 0, 0},
		{"byte -1", 0, 0},
		{"int16 -32768", 'n', (uint32_t)INT16_MIN},
		{"int16 -32769", 0, 0},
		{"uint16 65536", 0, 0},
		{"uint32 4294967295", 'u', UINT32_MAX},
		{"uint32 5000000000", 0, 0},
		{"uint32  -5", 0, 0},
		{"int64 -5", 'x', (uint64_t)-5},
		{"int64 9223372036854775808", 0, 0},
		{"uint64 18446744073709551615", 't', UINT64_MAX},
		{"uint64 18446744073709551616", 0, 0},
		{"uint64  -5", 0, 0},
		{"uint64 5x", 0, 0},
		{"uint64 ", 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		int err = annotate("Some", cases[i].value);

		if (cases[i].type ? err < 0 || got_type != cases[i].type || got != cases[i].v
				  : err >= 0)
			fail_msg("'%s': %d, type %c, %llu", cases[i].value, err,
				 got_type ? got_type : '-', (unsigned long long)got);
	}
}

static void test_seconds(void **state)
{
	(void)state;
	assert_int_equal(annotate("TimeoutStopSec", "uint64 7"), 0);
	assert_int_equal(got_type, 't');
	assert_int_equal(got, 7000000);
	assert_true(annotate("TimeoutStopSec", "-1") < 0);
	assert_true(annotate("TimeoutStopSec", "uint64 18446744073710") < 0);
}

static uint64_t tasks_max(json_int_t limit)
{
	char why[CGROUP_ERROR_MAX];
	struct systemd_props p = {.v2 = true, .why = why};
	json_t *j = json_pack("{s{sI}}", "pids", "limit", limit);

	got = 0;
	assert_int_equal(systemd_append_resources(NULL, &p, j), 0);
	json_decref(j);
	return got;
}

static void test_tasks_max(void **state)
{
	(void)state;
	assert_int_equal(tasks_max(100), 100 + CGROUP_PIDS_EXTRA);
	assert_int_equal(tasks_max(-1), UINT64_MAX);
	assert_int_equal(tasks_max(INT64_MAX - 3), INT64_MAX);
}

/* One file of v2's by its own name: the properties, and the value of the last. */
static int unified(const char *file, const char *text)
{
	char why[CGROUP_ERROR_MAX];
	struct systemd_props p = {.v2 = true, .quota_period = true, .cpuset = true, .why = why};
	json_t *j = json_pack("{s{ss}}", "unified", file, text);
	int err;

	got = 0;
	got_names[0] = '\0';
	err = systemd_append_resources(NULL, &p, j);
	json_decref(j);
	return err;
}

static void test_unified(void **state)
{
	static const struct {
		const char *file, *text, *names;
		uint64_t last;
	} cases[] = {
		{"memory.high", "1048576", "MemoryHigh ", 1048576},
		{"memory.max", "max", "MemoryMax ", UINT64_MAX},
		{"memory.swap.max", "0", "MemorySwapMax ", 0},
		{"cpu.weight", "7", "CPUWeight ", 7},
		{"pids.max", "9", "TasksMax ", 9},
		{"cpu.max", "50000", "CPUQuotaPeriodUSec CPUQuotaPerSecUSec ", 500000},
		{"cpu.max", "50000 200000", "CPUQuotaPeriodUSec CPUQuotaPerSecUSec ", 250000},
		{"cpu.max", "max 200000", "CPUQuotaPeriodUSec CPUQuotaPerSecUSec ", UINT64_MAX},
		/* The kernel's to refuse, or systemd has no word for it. */
		{"cpu.max", "5 x", "", 0},
		{"memory.high", "1M", "", 0},
		{"memory.high", "-1", "", 0},
		{"memory.high", "99999999999999999999", "", 0},
		{"memory.oom.group", "1", "", 0},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(unified(cases[i].file, cases[i].text), 0);
		assert_string_equal(got_names, cases[i].names);
		assert_int_equal(got, cases[i].last);
	}
	assert_true(unified("cpuset.cpus", "0-x") < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_seconds),
		cmocka_unit_test(test_tasks_max),
		cmocka_unit_test(test_unified),
	};

	sd.bus_message_append = append;
	sd.bus_message_open_container = open_container;
	sd.bus_message_close_container = close_container;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
